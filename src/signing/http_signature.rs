//! HTTP message signatures (RFC 9421): the signature base, the fields `Signature-Input` and `Signature`, and the check
//! of a bank's own signature.

mod check;
mod component;
mod parameters;

pub use check::{HttpSignatureCheck, SignatureRefused, VerifiedHttpSignature, unverified_key_id, verify};
pub use component::CoveredComponent;
pub use parameters::{SignatureParameter, SignatureParameters};

use std::fmt;

use http::HeaderMap;
use thiserror::Error;

use super::algorithm::SigningAlgorithm;
use super::encoding::base64;
use super::key::SigningKey;
use super::request_parts::RequestParts;
use super::signature::DigitalSignature;
use super::signer::SigningError;
use super::structured_field;

/// A message that a signature covers.
#[derive(Clone, Copy)]
pub enum HttpMessage<'a> {
    Request(RequestParts<'a>),
    Response {
        status: u16,
        headers: &'a HeaderMap,
        /// The request that it answers, for components with `;req`.
        request: Option<RequestParts<'a>>,
    },
}

/// Leaves out the header fields: they may hold credentials.
impl fmt::Debug for HttpMessage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HttpMessage::Request(request) => f.debug_tuple("Request").field(request).finish(),
            HttpMessage::Response { status, .. } => f.debug_tuple("Response").field(status).finish_non_exhaustive(),
        }
    }
}

/// The reason for which a message has no signature base.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum BaseError {
    #[error("the component {0} is covered twice")]
    Duplicate(String),
    #[error(
        "{0} is not a component that is read here; write a lower-case field name, with ;bs or ;req if needed, or one of \
         \"@authority\", \"@method\", \"@path\", \"@query\", \"@query-param\";name=\"…\", \
         \"@request-target\", \"@scheme\", \"@status\", \"@target-uri\""
    )]
    Identifier(String),
    #[error("the component {0} does not occur in the message, or not in a form that can be covered")]
    Missing(String),
    #[error("a label has lower-case letters, digits and the signs _-.* only, and starts with a letter or *")]
    Label,
    #[error("the parameter {0} has letters outside of visible ASCII, or a number beyond 15 digits")]
    Parameter(&'static str),
    #[error("the signature is by another algorithm than the parameter alg or the one that was asked for")]
    Algorithm,
}

/// A signature that awaits its value.
#[derive(Clone, Eq, PartialEq)]
pub struct UnsignedHttpSignature {
    algorithm: SigningAlgorithm,
    label: String,
    parameters: String,
    base: String,
}

/// The values of both header fields of a signature.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HttpSignatureFields {
    pub input: String,
    pub signature: String,
}

impl UnsignedHttpSignature {
    /// Builds the signature base of a message under a label. An algorithm that the parameters name must be the one that
    /// signs.
    pub fn new(
        message: &HttpMessage<'_>,
        label: &str,
        parameters: &SignatureParameters,
        algorithm: SigningAlgorithm,
    ) -> Result<Self, BaseError> {
        if !structured_field::is_key(label) {
            return Err(BaseError::Label);
        }
        if parameters.algorithm().is_some_and(|name| Some(name) != algorithm.http_name()) {
            return Err(BaseError::Algorithm);
        }
        let base = signature_base(message, parameters)?;
        Ok(Self { algorithm, label: label.to_owned(), parameters: parameters.text()?, base })
    }

    /// Returns the algorithm that has to sign.
    pub const fn algorithm(&self) -> SigningAlgorithm {
        self.algorithm
    }

    /// Returns the signature base (RFC 9421 section 2.5): the bytes to sign.
    pub const fn base(&self) -> &str {
        self.base.as_str()
    }

    /// Completes both fields with the signature. ECDSA signatures are written in the form of JOSE (section 3.3.4).
    pub fn complete(&self, signature: &DigitalSignature) -> Result<HttpSignatureFields, BaseError> {
        if signature.algorithm() != self.algorithm {
            return Err(BaseError::Algorithm);
        }
        let input = format!("{}={}", self.label, self.parameters);
        Ok(HttpSignatureFields { input, signature: format!("{}=:{}:", self.label, base64(signature.bytes())) })
    }

    /// Signs with a key in memory.
    pub fn sign(&self, key: &SigningKey) -> Result<HttpSignatureFields, SigningError> {
        let signature = key.sign(self.algorithm, self.base.as_bytes())?;
        self.complete(&signature).map_err(|_| SigningError::Failed)
    }
}

/// Leaves out the signature base: it may cover header fields with credentials.
impl fmt::Debug for UnsignedHttpSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("UnsignedHttpSignature");
        shown.field("label", &self.label).field("parameters", &self.parameters).finish_non_exhaustive()
    }
}

/// Builds the signature base (RFC 9421 section 2.5).
fn signature_base(message: &HttpMessage<'_>, parameters: &SignatureParameters) -> Result<String, BaseError> {
    let mut base = String::new();
    let components = parameters.components();
    for (at, component) in components.iter().enumerate() {
        if components[..at].iter().any(|earlier| earlier.is_same(component)) {
            return Err(BaseError::Duplicate(component.identifier()));
        }
        let value = component.value(message).ok_or_else(|| BaseError::Missing(component.identifier()))?;
        base.push_str(&component.identifier());
        base.push_str(": ");
        base.push_str(&value);
        base.push('\n');
    }
    base.push_str("\"@signature-params\": ");
    base.push_str(&parameters.text()?);
    Ok(base)
}

#[cfg(test)]
mod tests;
