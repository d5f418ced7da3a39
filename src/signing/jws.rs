//! JSON Web Signatures in compact form (RFC 7515): whole, detached (appendix F), and over a payload that is not encoded
//! (RFC 7797).

use std::fmt;

use serde_json::{Map, Value};
use thiserror::Error;

use super::algorithm::SigningAlgorithm;
use super::encoding::base64url;
use super::key::SigningKey;
use super::signature::DigitalSignature;
use super::signer::SigningError;

/// The form of a payload in a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PayloadForm {
    /// The payload stands between header and signature.
    Attached,
    /// The payload travels apart, as the body of a request; it is signed in base64url.
    Detached,
    /// The payload travels apart and is signed as it is: `b64` is false (RFC 7797).
    Unencoded,
}

/// The reason for which a header cannot be used.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum JwsError {
    #[error("the member alg names another algorithm than the one that signs")]
    Algorithm,
    #[error("the member b64 contradicts the form of the payload; leave it out")]
    Encoding,
    #[error("the member crit lists names of members of this header, each once")]
    Critical,
    #[error("the signature was made by another algorithm than the header names")]
    Signature,
}

/// A header: its members in their order, `alg` among them.
#[derive(Clone, Debug, PartialEq)]
pub struct JwsHeader {
    algorithm: SigningAlgorithm,
    members: Map<String, Value>,
}

impl JwsHeader {
    /// A header of members in the order given. `alg` may stand among them, to give it a place; otherwise it is first.
    pub fn new(algorithm: SigningAlgorithm, members: Map<String, Value>) -> Result<Self, JwsError> {
        let name = Value::from(algorithm.name());
        if members.get("alg").is_some_and(|written| *written != name) {
            return Err(JwsError::Algorithm);
        }
        let members = if members.contains_key("alg") {
            members
        } else {
            [("alg".to_owned(), name)].into_iter().chain(members).collect()
        };
        check_critical(&members)?;
        Ok(Self { algorithm, members })
    }

    /// Puts the header before a payload; the result awaits its signature. For [`PayloadForm::Unencoded`], `b64` and
    /// `crit` are added unless they are there.
    pub fn over(&self, payload: &[u8], form: PayloadForm) -> Result<UnsignedJws, JwsError> {
        let mut members = self.members.clone();
        match (form, members.get("b64")) {
            (PayloadForm::Attached | PayloadForm::Detached, None | Some(Value::Bool(true))) => {}
            (PayloadForm::Unencoded, None | Some(Value::Bool(false))) => state_unencoded(&mut members)?,
            (PayloadForm::Attached | PayloadForm::Detached | PayloadForm::Unencoded, _) => {
                return Err(JwsError::Encoding);
            }
        }
        let header = base64url(Value::Object(members).to_string().as_bytes());
        let mut input = header.clone().into_bytes();
        input.push(b'.');
        let shown = match form {
            PayloadForm::Attached | PayloadForm::Detached => {
                let encoded = base64url(payload);
                input.extend_from_slice(encoded.as_bytes());
                if form == PayloadForm::Attached { encoded } else { String::new() }
            }
            PayloadForm::Unencoded => {
                input.extend_from_slice(payload);
                String::new()
            }
        };
        Ok(UnsignedJws { algorithm: self.algorithm, start: format!("{header}.{shown}."), input })
    }
}

/// A message that awaits its signature.
#[derive(Clone, Eq, PartialEq)]
pub struct UnsignedJws {
    algorithm: SigningAlgorithm,
    start: String,
    input: Vec<u8>,
}

impl UnsignedJws {
    /// Returns the algorithm that has to sign.
    pub const fn algorithm(&self) -> SigningAlgorithm {
        self.algorithm
    }

    /// Returns the bytes to sign (RFC 7515 section 5.1, RFC 7797 section 3).
    pub fn input(&self) -> &[u8] {
        &self.input
    }

    /// Completes the message with its signature.
    pub fn complete(&self, signature: &DigitalSignature) -> Result<String, JwsError> {
        if signature.algorithm() != self.algorithm {
            return Err(JwsError::Signature);
        }
        Ok(format!("{}{}", self.start, base64url(signature.bytes())))
    }

    /// Signs with a key in memory.
    pub fn sign(&self, key: &SigningKey) -> Result<String, SigningError> {
        let signature = key.sign(self.algorithm, &self.input)?;
        self.complete(&signature).map_err(|_| SigningError::Failed)
    }
}

/// Leaves out the payload: it may hold credentials or concern customers.
impl fmt::Debug for UnsignedJws {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnsignedJws").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

/// Adds `b64` and its mention in `crit` (RFC 7797 sections 3 and 6).
fn state_unencoded(members: &mut Map<String, Value>) -> Result<(), JwsError> {
    members.entry("b64").or_insert(Value::Bool(false));
    match members.entry("crit").or_insert_with(|| Value::Array(Vec::new())) {
        Value::Array(names) => {
            if !names.iter().any(|name| name == "b64") {
                names.push(Value::from("b64"));
            }
        }
        _ => return Err(JwsError::Critical),
    }
    Ok(())
}

/// Checks `crit` against RFC 7515 section 4.1.11; `b64` may be listed before the form of the payload is known.
fn check_critical(members: &Map<String, Value>) -> Result<(), JwsError> {
    let Some(critical) = members.get("crit") else { return Ok(()) };
    let names = critical.as_array().filter(|names| !names.is_empty()).ok_or(JwsError::Critical)?;
    for (at, name) in names.iter().enumerate() {
        let known = name.as_str().is_some_and(|name| members.contains_key(name) || name == "b64");
        if !known || names[..at].contains(name) {
            return Err(JwsError::Critical);
        }
    }
    Ok(())
}
