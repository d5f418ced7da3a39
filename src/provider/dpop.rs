//! Proofs of possession on a provider's calls: `[dpop]` of a profile (RFC 9449).
//!
//! ```text
//! [dpop]
//! key       = "dpop_key"    # a setting of kind = "key"
//! algorithm = "ES256"
//! ```
//!
//! Token calls and API calls carry a proof in the header field `DPoP`, which is made anew for each attempt. It goes on
//! before the profile's other signatures, so that they may cover it.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::Value;

use crate::provider::challenge::errors;
use crate::provider::compiled_signature::{CompiledKey, SignatureFailure, SignedMessage, SigningInputs};
use crate::provider::document;
use crate::provider::document::DocumentFormat;
use crate::provider::dpop_nonces::nonce;
use crate::provider::message_values::Fresh;
use crate::provider::setting::Settings;
use crate::provider::signature_rule::KeyChoice;
use crate::provider::template::TemplateScope;
use crate::signing::algorithm::{KeyType, SigningAlgorithm};
use crate::signing::dpop::{DpopProof, access_token_hash};
use crate::signing::public_key::PublicKey;
use crate::signing::signer::{Signer, SigningError};
use crate::syntax::{Diagnostics, Fields, Node};

/// The header field of a proof.
pub(super) const DPOP: HeaderName = HeaderName::from_static("dpop");

/// The authentication scheme of a token that is bound to a key (RFC 9449 section 7.1).
const SCHEME: &str = "DPoP";

/// The error code of a server that wants a nonce, or another one (RFC 9449 sections 8 and 9).
const USE_DPOP_NONCE: &str = "use_dpop_nonce";

/// `[dpop]` of a profile, as read.
#[derive(Clone, Debug)]
pub(super) struct DpopRule {
    pub key: KeyChoice,
}

impl DpopRule {
    /// Reads the table. Every mistake is reported.
    pub(super) fn read(node: &Node, scope: TemplateScope<'_>, report: &Diagnostics) -> Option<Self> {
        let fields = Fields::new(node, "[dpop]", report);
        let (key, key_node) = (KeyChoice::take(&fields, scope), fields.take("key"));
        fields.finish();
        let key = key?;
        let declared = scope.settings.iter().find(|setting| setting.name == key.setting);
        let is_private = key.is_key() && key.supposed().key_type() != KeyType::Secret;
        if let (false, Some(node)) = (is_private, key_node) {
            let help = "use a setting of `kind = \"key\"`, and \"ES256\", \"PS256\" or \"EdDSA\"".to_owned();
            node.error(report, "a proof is signed with a private key, which the provider never sees", "", Some(help));
            return None;
        }
        if let (true, Some(node)) = (declared.is_some_and(|setting| setting.optional), key_node) {
            let title = format!("without `{}` there would be no proof, and no token that is bound to it", key.setting);
            node.error(report, title, "", Some(format!("take `optional` out of [settings.{}]", key.setting)));
        }
        Some(Self { key })
    }
}

/// A key that makes proofs.
#[derive(Debug)]
pub(super) struct CompiledDpop {
    key: CompiledKey,
    public: PublicKey,
}

impl CompiledDpop {
    /// Finds the key among the settings. The error is for a person.
    pub(super) fn compile(rule: &DpopRule, settings: &Settings) -> Result<Arc<Self>, String> {
        let name = &rule.key.setting;
        let key = CompiledKey::find(&rule.key, None, settings)?;
        let key = key.ok_or_else(|| format!("[dpop] signs with `{name}`, which is not set"))?;
        let public = key.public_key().ok_or_else(|| format!("[dpop] needs the public half of `{name}`"))?;
        Ok(Arc::new(Self { key, public }))
    }

    /// The same proofs, signed by another signer.
    pub(super) fn signed_by(&self, signer: Arc<dyn Signer>) -> Arc<Self> {
        Arc::new(Self { key: self.key.signed_by(signer), public: self.public.clone() })
    }

    /// Returns the algorithm of its proofs.
    pub(super) const fn algorithm(&self) -> SigningAlgorithm {
        self.key.algorithm()
    }

    /// Puts a proof on a message, in the place of one of an earlier attempt.
    pub(super) async fn prove(
        &self,
        message: &mut SignedMessage<'_>,
        nonce: Option<&str>,
        inputs: &mut SigningInputs<'_>,
    ) -> Result<(), SignatureFailure> {
        let failed = || SignatureFailure::Signer(SigningError::Failed);
        message.headers.remove(DPOP);
        let id = inputs.ids.fresh().hyphenated().to_string();
        let token_hash = message.token.map(access_token_hash);
        let proof = DpopProof {
            method: message.method,
            target: &format!("https://{}{}", message.authority, message.path_and_query),
            issued_at: inputs.values.instant(Fresh::Attempt).unix_seconds(),
            id: &id,
            token_hash: token_hash.as_deref(),
            nonce,
        };
        let unsigned = proof.unsigned(self.key.algorithm(), &self.public).map_err(|_| failed())?;
        let signature = self.key.sign(unsigned.input(), inputs.within).await?;
        let text = unsigned.complete(&signature).map_err(|_| failed())?;
        let mut value = HeaderValue::from_str(&text).map_err(|_| failed())?;
        value.set_sensitive(true);
        message.headers.insert(DPOP, value);
        Ok(())
    }
}

/// Returns whether a template's beginning presents a token under the scheme of bound tokens.
pub(super) fn presents(literal: &str) -> bool {
    literal.trim_end().eq_ignore_ascii_case(SCHEME) && literal.ends_with(' ')
}

/// Returns whether an API refused a call only because its proof lacks the nonce that the answer gives: before it
/// processed anything, and whatever the token is worth (RFC 9449 section 9).
pub(super) fn is_challenge(status: StatusCode, headers: &HeaderMap) -> bool {
    let wants = || errors(headers, &[SCHEME]).iter().any(|error| error == USE_DPOP_NONCE);
    status == StatusCode::UNAUTHORIZED && nonce(headers).is_some() && wants()
}

/// Returns whether an authorization server refused a request only because its proof lacks the nonce that the answer
/// gives (RFC 9449 section 8). Some answer 401.
pub fn lacks_nonce(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> bool {
    matches!(status, StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED)
        && nonce(headers).is_some()
        && document::read(DocumentFormat::Json, headers, body)
            .is_ok_and(|answer| answer.get("error").and_then(Value::as_str) == Some(USE_DPOP_NONCE))
}

#[cfg(test)]
mod tests {
    use http::header::WWW_AUTHENTICATE;

    use super::*;

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).expect("a value"))).collect()
    }

    #[test]
    fn only_a_401_that_asks_for_a_nonce_and_gives_it_is_a_challenge() {
        let nonce = (HeaderName::from_static("dpop-nonce"), "n-1");
        let asks = (WWW_AUTHENTICATE, r#"Bearer realm="a", DPoP error="use_dpop_nonce", algs="ES256""#);
        assert!(is_challenge(StatusCode::UNAUTHORIZED, &headers(&[nonce.clone(), asks.clone()])));
        for (status, given) in [
            (400, vec![nonce.clone(), asks.clone()]),
            (403, vec![nonce.clone(), asks.clone()]),
            (401, vec![asks.clone()]),
            (401, vec![nonce.clone()]),
            (401, vec![nonce.clone(), nonce.clone(), asks]),
            (401, vec![nonce.clone(), (WWW_AUTHENTICATE, r#"DPoP error="invalid_token""#)]),
            (401, vec![nonce.clone(), (WWW_AUTHENTICATE, r#"Bearer error="use_dpop_nonce""#)]),
        ] {
            let status = StatusCode::from_u16(status).expect("a status");
            let mut fields = HeaderMap::new();
            for (name, value) in &given {
                fields.append(name, HeaderValue::from_str(value).expect("a value"));
            }
            assert!(!is_challenge(status, &fields), "{status} {given:?}");
        }
    }

    #[test]
    fn a_token_endpoint_says_it_in_its_body() {
        let with = headers(&[(HeaderName::from_static("dpop-nonce"), "n-1")]);
        let asks = br#"{"error":"use_dpop_nonce"}"#;
        assert!(lacks_nonce(StatusCode::BAD_REQUEST, &with, asks));
        assert!(lacks_nonce(StatusCode::UNAUTHORIZED, &with, asks));
        assert!(!lacks_nonce(StatusCode::BAD_REQUEST, &HeaderMap::new(), asks));
        assert!(!lacks_nonce(StatusCode::OK, &with, asks));
        for body in [&br#"{"error":"invalid_grant"}"#[..], b"use_dpop_nonce", b"", b"[]"] {
            assert!(!lacks_nonce(StatusCode::BAD_REQUEST, &with, body));
        }
    }
}
