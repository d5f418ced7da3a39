//! Proofs of possession that the provider demands (RFC 9449), by ES256 alone.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::StatusCode;
use http::header::{HeaderName, WWW_AUTHENTICATE};
use serde_json::Value;

use crate::base::secret::sha256;
use crate::sim::call::SimCall;
use crate::sim::oauth2::error;
use crate::sim::sim_response::SimResponse;
use crate::sim::sim_state::SimState;

/// The header field of a nonce.
const DPOP_NONCE: HeaderName = HeaderName::from_static("dpop-nonce");
/// The most seconds by which a proof's `iat` may be off.
const SKEW: u64 = 60;

/// The demands of a provider on proofs of possession.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct DpopManner {
    /// The nonces that proofs to the authorization server may hold; empty: none is wanted. The last one is given.
    pub token_nonces: Vec<String>,
    /// The same for API calls.
    pub resource_nonces: Vec<String>,
}

impl DpopManner {
    const fn nonces(&self, is_api: bool) -> &Vec<String> {
        if is_api { &self.resource_nonces } else { &self.token_nonces }
    }

    /// Puts the current nonce on an answer of this half.
    pub(super) fn give(&self, is_api: bool, answer: SimResponse) -> SimResponse {
        match self.nonces(is_api).last() {
            Some(nonce) => answer.with(DPOP_NONCE, nonce),
            None => answer,
        }
    }
}

/// The defect of a proof.
pub(super) enum BadProof {
    Invalid(&'static str),
    /// The nonce is missing, or none that is accepted any more.
    Nonce,
}

impl BadProof {
    /// The answer of the authorization server (sections 5 and 8).
    pub(super) fn at_token_endpoint(&self) -> SimResponse {
        match self {
            BadProof::Invalid(why) => error(StatusCode::BAD_REQUEST, "invalid_dpop_proof", why),
            BadProof::Nonce => error(StatusCode::BAD_REQUEST, "use_dpop_nonce", "a nonce is required"),
        }
    }

    /// The answer of the API (sections 7.1 and 9).
    pub(super) fn at_api(&self) -> SimResponse {
        let challenge = match self {
            BadProof::Invalid(why) => format!(r#"DPoP error="invalid_dpop_proof", error_description="{why}""#),
            BadProof::Nonce => r#"DPoP error="use_dpop_nonce", algs="ES256""#.to_owned(),
        };
        SimResponse::bare(StatusCode::UNAUTHORIZED).with(WWW_AUTHENTICATE, &challenge)
    }
}

/// Verifies the proof of a call and returns the thumbprint of its key. `token`: the access token of an API call.
pub(super) fn thumbprint(
    desk: &SimState,
    call: &SimCall,
    manner: &DpopManner,
    token: Option<&str>,
) -> Result<String, BadProof> {
    let mut proofs = call.headers.get_all("dpop").iter();
    let (Some(proof), None) = (proofs.next(), proofs.next()) else {
        return Err(BadProof::Invalid("there is not one proof"));
    };
    let proof = proof.to_str().map_err(|_| BadProof::Invalid("the proof is no text"))?;
    let (head, claims, jkt) = opened(proof).ok_or(BadProof::Invalid("the proof cannot be verified"))?;
    let says = |name: &str, expected: &str| claims.get(name).and_then(Value::as_str) == Some(expected);
    if head.get("typ").and_then(Value::as_str) != Some("dpop+jwt") || head["jwk"].get("d").is_some() {
        return Err(BadProof::Invalid("this is no proof"));
    }
    if !says("htm", call.method.as_str()) || !says("htu", &format!("https://{}{}", call.authority, call.path)) {
        return Err(BadProof::Invalid("the proof is for another request"));
    }
    let hash = token.map(|token| BASE64_URL_SAFE_NO_PAD.encode(sha256(token.as_bytes())));
    if claims.get("ath").and_then(Value::as_str) != hash.as_deref() {
        return Err(BadProof::Invalid("the proof is for another token"));
    }
    let issued = claims.get("iat").and_then(Value::as_u64).unwrap_or_default();
    if issued.abs_diff(call.now.unix_seconds()) > SKEW {
        return Err(BadProof::Invalid("the proof is of another time"));
    }
    let id = claims.get("jti").and_then(Value::as_str).unwrap_or_default();
    if id.is_empty() || desk.nth(&format!("jti {id}")) > 1 {
        desk.violation("a proof was sent twice");
        return Err(BadProof::Invalid("the proof was used before"));
    }
    let nonces = manner.nonces(token.is_some());
    if !nonces.is_empty() && !nonces.iter().any(|nonce| says("nonce", nonce)) {
        return Err(BadProof::Nonce);
    }
    Ok(jkt)
}

/// The header and claims of a proof whose signature is right, and the thumbprint of the key in it (RFC 7638).
fn opened(proof: &str) -> Option<(Value, Value, String)> {
    let (input, signature) = proof.rsplit_once('.')?;
    let (head, claims) = input.split_once('.')?;
    let decoded = |text: &str| BASE64_URL_SAFE_NO_PAD.decode(text).ok();
    let head: Value = serde_json::from_slice(&decoded(head)?).ok()?;
    let claims: Value = serde_json::from_slice(&decoded(claims)?).ok()?;
    let key = head.get("jwk")?;
    let (kind, curve) = (key.get("kty")?.as_str()?, key.get("crv")?.as_str()?);
    let (x, y) = (key.get("x")?.as_str()?, key.get("y")?.as_str()?);
    if (kind, curve, head.get("alg")?.as_str()?) != ("EC", "P-256", "ES256") {
        return None;
    }
    let point = [&[4][..], &decoded(x)?, &decoded(y)?].concat();
    let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
    key.verify(input.as_bytes(), &decoded(signature)?).ok()?;
    let canonical = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
    let thumbprint = BASE64_URL_SAFE_NO_PAD.encode(sha256(canonical.as_bytes()));
    Some((head, claims, thumbprint))
}
