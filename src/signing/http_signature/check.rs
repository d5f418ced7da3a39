//! The check of a signature on a message that another side signed.

use std::time::Duration;

use http::HeaderMap;
use thiserror::Error;

use super::super::algorithm::SigningAlgorithm;
use super::super::public_key::VerifyingKey;
use super::super::request_parts;
use super::super::structured_field;
use super::super::structured_field::{BareItem, Member};
use super::CoveredComponent;
use super::HttpMessage;
use super::SignatureParameter;
use super::SignatureParameters;
use super::signature_base;
use crate::base::time::{CLOCK_TOLERANCE, Now};

/// The demands on a signature. The algorithm is pinned here, and never taken from the message.
#[derive(Clone, Copy, Debug)]
pub struct HttpSignatureCheck<'a> {
    /// The label of the signature; without one, the message must have a single signature.
    pub label: Option<&'a str>,
    pub algorithm: SigningAlgorithm,
    /// Components that the signature must cover.
    pub required: &'a [CoveredComponent],
    /// The value of `tag` that it must have, if any.
    pub tag: Option<&'a str>,
    /// The age beyond which it is refused.
    pub oldest: Duration,
    /// True if it need not state when it was created.
    pub undated: bool,
    pub now: Now,
}

/// A signature was refused. The reason is not told: it would help only the forger.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("no valid signature")]
pub struct SignatureRefused;

/// A signature that was verified.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct VerifiedHttpSignature {
    pub label: String,
    pub parameters: SignatureParameters,
}

/// Verifies a signature of a message. A digest that it covers is the caller's to compare with the body.
pub fn verify(
    message: &HttpMessage<'_>,
    check: &HttpSignatureCheck<'_>,
    key: &VerifyingKey,
) -> Result<VerifiedHttpSignature, SignatureRefused> {
    verified(message, check, key).ok_or(SignatureRefused)
}

fn verified(
    message: &HttpMessage<'_>,
    check: &HttpSignatureCheck<'_>,
    key: &VerifyingKey,
) -> Option<VerifiedHttpSignature> {
    let headers: &HeaderMap = match message {
        HttpMessage::Request(request) => request.headers,
        HttpMessage::Response { headers, .. } => headers,
    };
    let inputs = structured_field::dictionary(&request_parts::field_value(headers, "signature-input")?)?;
    let signatures = structured_field::dictionary(&request_parts::field_value(headers, "signature")?)?;
    let is_alone = inputs.len() == 1;
    let mut inputs = inputs.into_iter();
    let (label, input) = match check.label {
        Some(label) => inputs.find(|(name, _)| name == label)?,
        None => inputs.next().filter(|_| is_alone)?,
    };
    let (_, signature) = signatures.into_iter().find(|(name, _)| *name == label)?;
    let (Member::InnerList(items, parameters), Member::Item(signature)) = (input, signature) else { return None };
    let BareItem::Bytes(signature) = signature.value else { return None };
    let parameters = SignatureParameters::read(items, parameters)?;
    if !is_acceptable(&parameters, check) {
        return None;
    }
    let base = signature_base(message, &parameters).ok()?;
    let is_valid = key.verify(check.algorithm, base.as_bytes(), &signature);
    is_valid.then_some(VerifiedHttpSignature { label, parameters })
}

/// Returns `keyid` of a signature: to find the key, and for no other decision before the signature is verified. `label` as
/// in [`HttpSignatureCheck`].
pub fn unverified_key_id(headers: &HeaderMap, label: Option<&str>) -> Option<String> {
    let inputs = structured_field::dictionary(&request_parts::field_value(headers, "signature-input")?)?;
    let is_it = |(name, _): &&(String, Member)| label.is_none_or(|label| name == label);
    let (_, Member::InnerList(_, parameters)) = inputs.iter().find(is_it)? else { return None };
    let (_, BareItem::Text(id)) = parameters.iter().find(|(name, _)| name == "keyid")? else { return None };
    Some(id.clone())
}

/// Returns whether a signature, if it is genuine, says what is asked for.
fn is_acceptable(parameters: &SignatureParameters, check: &HttpSignatureCheck<'_>) -> bool {
    let now = check.now.unix_seconds();
    let covers = |wanted: &CoveredComponent| parameters.components().iter().any(|covered| covered.is_same(wanted));
    let (mut is_dated, mut is_tagged) = (check.undated, check.tag.is_none());
    for parameter in parameters.parameters() {
        let is_fine = match parameter {
            SignatureParameter::Alg(name) => check.algorithm.http_name() == Some(name),
            SignatureParameter::Created(at) => {
                is_dated = true;
                *at <= now.saturating_add(CLOCK_TOLERANCE) && now.saturating_sub(*at) <= check.oldest.as_secs()
            }
            SignatureParameter::Expires(at) => now < *at,
            SignatureParameter::Tag(tag) => {
                is_tagged |= check.tag == Some(tag);
                check.tag.is_none_or(|wanted| wanted == tag)
            }
            SignatureParameter::KeyId(_) | SignatureParameter::Nonce(_) => true,
        };
        if !is_fine {
            return false;
        }
    }
    is_dated && is_tagged && check.required.iter().all(covers)
}
