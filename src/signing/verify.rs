//! Verification of JSON Web Signatures in compact form, whole and detached.
//!
//! The algorithm is pinned by the caller, so that neither an unsigned message nor one that uses a public key as a
//! shared secret is accepted. Every refusal is the same error.

use std::fmt;

use serde_json::{Map, Value};
use thiserror::Error;

use super::algorithm::SigningAlgorithm;
use super::encoding::base64url;
use super::encoding::from_base64url;
use super::public_key::VerifyingKey;

/// The longest header in which a key's name is looked for, in bytes.
const LONGEST_HEADER: usize = 16 * 1024;

/// The demands on a message.
#[derive(Clone, Copy, Debug)]
pub struct JwsCheck<'a> {
    /// The algorithm that `alg` must name.
    pub algorithm: SigningAlgorithm,
    /// Names in `crit` that the caller takes care of; `b64` is taken care of here.
    pub understood: &'a [&'a str],
    /// The longest message that is read, in bytes.
    pub most: usize,
}

/// A message was refused. The reason is not told: it would help only the forger.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("no valid JSON Web Signature")]
pub struct JwsRefused;

/// A message whose signature was verified. Claims are the caller's to judge.
#[derive(Clone, PartialEq)]
pub struct VerifiedJws {
    /// The members of the header.
    pub header: Map<String, Value>,
    pub payload: Vec<u8>,
}

/// Shows the header's names only: a bank's payload concerns its customers.
impl fmt::Debug for VerifiedJws {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifiedJws").field("header", &self.header.keys()).finish_non_exhaustive()
    }
}

/// Verifies a message that holds its payload.
pub fn verify_attached(message: &str, check: &JwsCheck<'_>, key: &VerifyingKey) -> Result<VerifiedJws, JwsRefused> {
    let verified = || {
        let (header, payload, signature) = parts(message, check)?;
        let (members, is_encoded) = read_header(header, check)?;
        let input = &message[..message.len() - signature.len() - 1];
        let is_valid = is_encoded && key.verify(check.algorithm, input.as_bytes(), &from_base64url(signature)?);
        let payload = from_base64url(payload).filter(|_| is_valid)?;
        Some(VerifiedJws { header: members, payload })
    };
    verified().ok_or(JwsRefused)
}

/// Verifies a detached message (RFC 7515 appendix F) over a payload that traveled apart, and returns the header. `b64`
/// (RFC 7797) says whether the payload was signed as it is.
pub fn verify_detached(
    message: &str,
    payload: &[u8],
    check: &JwsCheck<'_>,
    key: &VerifyingKey,
) -> Result<Map<String, Value>, JwsRefused> {
    let verified = || {
        let (header, attached, signature) = parts(message, check)?;
        let (members, is_encoded) = read_header(header, check)?;
        let mut input = format!("{header}.").into_bytes();
        if is_encoded {
            input.extend_from_slice(base64url(payload).as_bytes());
        } else {
            input.extend_from_slice(payload);
        }
        let signature = from_base64url(signature).filter(|_| attached.is_empty())?;
        key.verify(check.algorithm, &input, &signature).then_some(members)
    };
    verified().ok_or(JwsRefused)
}

/// Reads `kid` from the header of a message without verifying anything: to find the key, and for no other decision.
pub fn unverified_key_id(message: &str) -> Option<String> {
    let (header, _) = message.split_once('.').filter(|(header, _)| header.len() <= LONGEST_HEADER)?;
    let members: Map<String, Value> = serde_json::from_slice(&from_base64url(header)?).ok()?;
    members.get("kid")?.as_str().map(ToOwned::to_owned)
}

/// The three parts of a message.
fn parts<'a>(message: &'a str, check: &JwsCheck<'_>) -> Option<(&'a str, &'a str, &'a str)> {
    let mut parts = message.split('.');
    let found = (parts.next()?, parts.next()?, parts.next()?);
    (parts.next().is_none() && message.len() <= check.most).then_some(found)
}

/// The members of a header, and whether its payload is signed in base64url.
fn read_header(header: &str, check: &JwsCheck<'_>) -> Option<(Map<String, Value>, bool)> {
    let members: Map<String, Value> = serde_json::from_slice(&from_base64url(header)?).ok()?;
    let mut is_b64_critical = false;
    if let Some(critical) = members.get("crit") {
        let names = critical.as_array().filter(|names| !names.is_empty())?;
        for name in names {
            let name = name.as_str().filter(|name| members.contains_key(*name))?;
            is_b64_critical |= name == "b64";
            if name != "b64" && !check.understood.contains(&name) {
                return None;
            }
        }
    }
    let is_encoded = match members.get("b64") {
        None => true,
        // RFC 7797 section 6: a reader that does not know it would verify other bytes, so it must be critical.
        Some(Value::Bool(is_encoded)) if is_b64_critical => *is_encoded,
        Some(_) => return None,
    };
    let is_pinned = members.get("alg").and_then(Value::as_str) == Some(check.algorithm.name());
    is_pinned.then_some((members, is_encoded))
}
