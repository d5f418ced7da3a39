//! Proofs of possession (DPoP, RFC 9449): a token per request that shows the key to which an access token is bound.

use http::Uri;
use serde_json::{Map, Value};
use thiserror::Error;

use super::algorithm::KeyType;
use super::algorithm::SigningAlgorithm;
use super::claims::Claims;
use super::encoding::base64url;
use super::jws::JwsError;
use super::jws::JwsHeader;
use super::jws::UnsignedJws;
use super::public_key::PublicKey;
use crate::base::secret::sha256;

/// The reason for which a proof cannot be made.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum DpopError {
    #[error("a proof is signed with a private key; choose PS256, ES256 or EdDSA")]
    Algorithm,
    #[error(transparent)]
    Header(#[from] JwsError),
    #[error("the address is not an absolute one of http or https")]
    Target,
}

/// The request that a proof is for, and all that makes it unique.
#[derive(Clone, Copy, Debug)]
pub struct DpopProof<'a> {
    pub method: &'a str,
    /// The address; query and fragment are left out of `htu`.
    pub target: &'a str,
    /// `iat`, in seconds since 1970.
    pub issued_at: u64,
    /// `jti`, fresh for each proof.
    pub id: &'a str,
    /// The hash of the access token that the request carries, of [`access_token_hash`]; none in a token request.
    pub token_hash: Option<&'a str>,
    /// The nonce that the server gave last.
    pub nonce: Option<&'a str>,
}

impl DpopProof<'_> {
    /// Builds the proof for the owner of `key`; it awaits its signature.
    pub fn unsigned(&self, algorithm: SigningAlgorithm, key: &PublicKey) -> Result<UnsignedJws, DpopError> {
        if algorithm.key_type() == KeyType::Secret || algorithm.key_type() != key.key_type() {
            return Err(DpopError::Algorithm);
        }
        let members = [
            ("typ", Value::from("dpop+jwt")),
            ("alg", Value::from(algorithm.name())),
            ("jwk", Value::Object(key.to_jwk())),
        ];
        let members: Map<_, _> = members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let mut claims = Claims::new().id(self.id).with("htm", self.method).with("htu", target_uri(self.target)?);
        claims = claims.issued_at(self.issued_at);
        if let Some(hash) = self.token_hash {
            claims = claims.with("ath", hash);
        }
        if let Some(nonce) = self.nonce {
            claims = claims.with("nonce", nonce);
        }
        Ok(claims.under(&JwsHeader::new(algorithm, members)?)?)
    }
}

/// Computes `ath` (RFC 9449 section 4.2): the SHA-256 of an access token, in base64url.
pub fn access_token_hash(token: &str) -> String {
    base64url(&sha256(token.as_bytes()))
}

/// The address without query and fragment (RFC 9449 section 4.2).
fn target_uri(target: &str) -> Result<String, DpopError> {
    let end = target.find(['?', '#']).unwrap_or(target.len());
    let target = &target[..end];
    let uri: Uri = target.parse().map_err(|_| DpopError::Target)?;
    let is_web = matches!(uri.scheme_str(), Some("http" | "https"));
    let is_plain = uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
    if is_web && is_plain { Ok(target.to_owned()) } else { Err(DpopError::Target) }
}
