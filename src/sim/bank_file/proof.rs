//! Proofs that a request is its sender's: signatures over texts, JSON Web Tokens, detached JSON Web Signatures.

use std::collections::BTreeMap;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::check::place;
use super::text::Values;
use crate::base::secret::ExposeSecret;
use crate::sim::call::SimCall;

/// A signature over a text.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SignedText {
    header: Option<String>,
    query: Option<String>,
    field: Option<String>,
    /// What stands before the signature in its place.
    #[serde(default)]
    prefix: String,
    algorithm: String,
    pub(super) key: String,
    encoding: SignatureEncoding,
    text: String,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum SignatureEncoding {
    Base64,
    Base64Url,
    Hex,
}

/// A JSON Web Token (RFC 7519): a client assertion, or one for each request.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Jwt {
    header: Option<String>,
    query: Option<String>,
    field: Option<String>,
    #[serde(default)]
    prefix: String,
    pub(super) key: String,
    #[serde(default)]
    claims: BTreeMap<String, String>,
}

/// A JSON Web Signature (RFC 7515) whose payload is the body, in its place or apart.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Jws {
    header: String,
    #[serde(default)]
    prefix: String,
    pub(super) key: String,
    #[serde(default)]
    detached: bool,
}

impl SignedText {
    pub(super) fn is_valid(&self, call: &SimCall, values: Values<'_>) -> bool {
        let found = place(call, self.header.as_deref(), self.query.as_deref(), self.field.as_deref());
        let Some(signature) = found.as_deref().and_then(|found| found.strip_prefix(&self.prefix)) else { return false };
        let signature = match self.encoding {
            SignatureEncoding::Base64 => BASE64_STANDARD.decode(signature).ok(),
            SignatureEncoding::Base64Url => BASE64_URL_SAFE_NO_PAD.decode(signature).ok(),
            SignatureEncoding::Hex => unhex(signature),
        };
        let text = values.fill(&self.text, call, None);
        signature.is_some_and(|signature| verify(values, &self.key, &self.algorithm, text.as_bytes(), &signature))
    }
}

impl Jwt {
    pub(super) fn is_valid(&self, call: &SimCall, values: Values<'_>) -> bool {
        let found = place(call, self.header.as_deref(), self.query.as_deref(), self.field.as_deref());
        let claims = || {
            let token = found.as_deref()?.strip_prefix(&self.prefix)?;
            let (input, signature) = token.rsplit_once('.')?;
            let (header, payload) = input.split_once('.')?;
            let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).ok()?;
            let is_valid = verify(values, &self.key, &algorithm(header)?, input.as_bytes(), &signature);
            members(payload).filter(|_| is_valid)
        };
        claims().is_some_and(|claims| {
            let is_alive = claims.get("exp").and_then(Value::as_u64).is_none_or(|end| end * 1000 > call.now.wall);
            is_alive
                && self.claims.iter().all(|(name, wanted)| claims_as(&claims, name, &values.fill(wanted, call, None)))
        })
    }
}

/// Returns whether a claim is this text, or a list that has it.
fn claims_as(claims: &Map<String, Value>, name: &str, wanted: &str) -> bool {
    match claims.get(name) {
        Some(Value::String(text)) => text == wanted,
        Some(Value::Array(items)) => items.iter().any(|item| item.as_str() == Some(wanted)),
        Some(Value::Number(number)) => number.to_string() == wanted,
        Some(Value::Bool(is_true)) => wanted == if *is_true { "true" } else { "false" },
        Some(Value::Null | Value::Object(_)) => false,
        None => false,
    }
}

impl Jws {
    pub(super) fn is_valid(&self, call: &SimCall, values: Values<'_>) -> bool {
        let verified = || {
            let message = call.header(&self.header)?.strip_prefix(&self.prefix)?;
            let mut parts = message.split('.');
            let (header, payload, signature) = (parts.next()?, parts.next()?, parts.next()?);
            let encoded = BASE64_URL_SAFE_NO_PAD.encode(&call.body);
            let has_payload = if self.detached { payload.is_empty() } else { payload == encoded };
            let is_plain = members(header)?.get("b64") == Some(&Value::Bool(false));
            let mut input = format!("{header}.").into_bytes();
            if is_plain {
                input.extend_from_slice(&call.body)
            } else {
                input.extend_from_slice(encoded.as_bytes())
            }
            let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).ok()?;
            Some(has_payload && verify(values, &self.key, &algorithm(header)?, &input, &signature))
        };
        verified().unwrap_or(false)
    }
}

/// The members of a part in base64url.
fn members(part: &str) -> Option<Map<String, Value>> {
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

fn algorithm(header: &str) -> Option<String> {
    members(header)?.get("alg")?.as_str().map(str::to_owned)
}

/// Verifies by a public key, or by a secret that both sides know.
fn verify(values: Values<'_>, key: &str, algorithm: &str, message: &[u8], signature: &[u8]) -> bool {
    let secret = values.drawn().text(key);
    let shared = match algorithm {
        "HS256" => hmac::HMAC_SHA256,
        "HS384" => hmac::HMAC_SHA384,
        "HS512" => hmac::HMAC_SHA512,
        _ => return values.drawn().is_signed(key, algorithm, message, signature),
    };
    secret.is_some_and(|secret| {
        hmac::verify(&hmac::Key::new(shared, secret.expose_secret().as_bytes()), message, signature).is_ok()
    })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok()).collect()
}
