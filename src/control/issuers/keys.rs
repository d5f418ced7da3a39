//! A set of public keys (JSON Web Key Set, RFC 7517), and what they can verify.

use std::fmt;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use thiserror::Error;

/// More keys than this no issuer has; the rest is not read.
const MOST_KEYS: usize = 64;

/// The public keys of an issuer. Symmetric keys are never among them.
pub struct KeySet(Vec<VerifyKey>);

struct VerifyKey {
    id: Option<String>,
    algorithms: &'static [Algorithm],
    key: DecodingKey,
}

/// The parts of a compact JWS (RFC 7515 section 7.1) that matter to its signature.
#[derive(Clone, Copy, Debug)]
pub struct Signature<'a> {
    /// The `alg` parameter of the JWS header.
    pub algorithm: Algorithm,
    /// The `kid` parameter of the JWS header, if it has one.
    pub key_id: Option<&'a str>,
    /// Header and payload as they were sent, with the dot between them.
    pub message: &'a str,
    /// The signature as it was sent, base64url.
    pub signature: &'a str,
}

/// The reason for which a document is of no use as a key set.
#[derive(Debug, Error)]
pub enum KeySetError {
    #[error("this is no JSON Web Key Set")]
    Malformed,
    #[error("there is no key in it that signs with RS256, PS256, ES256 or EdDSA")]
    NoKey,
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<serde_json::Value>,
}

impl KeySet {
    /// Reads a key set. Keys that are of no use here are left out; without any that is, it is an error.
    pub fn parse(json: &[u8]) -> Result<Self, KeySetError> {
        let document: Document = serde_json::from_slice(json).map_err(|_| KeySetError::Malformed)?;
        let keys: Vec<VerifyKey> = document.keys.into_iter().take(MOST_KEYS).filter_map(VerifyKey::read).collect();
        if keys.is_empty() {
            return Err(KeySetError::NoKey);
        }
        Ok(Self(keys))
    }

    /// Returns the number of keys.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether there are no keys.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns whether one of the keys could have made this signature, judged by key ID and algorithm.
    pub fn knows(&self, signature: &Signature<'_>) -> bool {
        self.0.iter().any(|key| key.fits(signature))
    }

    /// Returns whether one of the keys made this signature.
    pub fn verifies(&self, signature: &Signature<'_>) -> bool {
        let message = signature.message.as_bytes();
        self.0.iter().filter(|key| key.fits(signature)).any(|key| {
            jsonwebtoken::crypto::verify(signature.signature, message, &key.key, signature.algorithm).unwrap_or(false)
        })
    }
}

impl VerifyKey {
    fn read(value: serde_json::Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(value).ok()?;
        if jwk.common.public_key_use.as_ref().is_some_and(|named| *named != PublicKeyUse::Signature) {
            return None;
        }
        let algorithms: &'static [Algorithm] = match (&jwk.algorithm, jwk.common.key_algorithm) {
            (AlgorithmParameters::RSA(_), None) => &[Algorithm::RS256, Algorithm::PS256],
            (AlgorithmParameters::RSA(_), Some(KeyAlgorithm::RS256)) => &[Algorithm::RS256],
            (AlgorithmParameters::RSA(_), Some(KeyAlgorithm::PS256)) => &[Algorithm::PS256],
            (AlgorithmParameters::EllipticCurve(curve), None | Some(KeyAlgorithm::ES256))
                if curve.curve == EllipticCurve::P256 =>
            {
                &[Algorithm::ES256]
            }
            (AlgorithmParameters::OctetKeyPair(curve), None | Some(KeyAlgorithm::EdDSA))
                if curve.curve == EllipticCurve::Ed25519 =>
            {
                &[Algorithm::EdDSA]
            }
            // Symmetric keys and all others: who knows a public key must not be able to sign with it.
            _ => return None,
        };
        let key = DecodingKey::from_jwk(&jwk).ok()?;
        Some(Self { id: jwk.common.key_id, algorithms, key })
    }

    fn fits(&self, signature: &Signature<'_>) -> bool {
        // A token may leave the key's name out; one that names a key means that one.
        let named = signature.key_id.is_none_or(|id| self.id.as_deref() == Some(id));
        named && self.algorithms.contains(&signature.algorithm)
    }
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|key| &key.id)).finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_public_keys_of_the_listed_kinds_are_taken() {
        let p256 = r#"{"kty":"EC","crv":"P-256","kid":"a","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#;
        let set = |keys: &[&str]| KeySet::parse(format!("{{\"keys\":[{}]}}", keys.join(",")).as_bytes());
        assert_eq!(set(&[p256]).unwrap().len(), 1);
        let shared = r#"{"kty":"oct","kid":"b","k":"c2VjcmV0","alg":"HS256"}"#;
        let encrypts = p256.replace("\"kid\"", "\"use\":\"enc\",\"kid\"");
        let p384 = p256.replace("P-256", "P-384");
        let other = r#"{"kty":"XYZ","kid":"c"}"#;
        assert_eq!(set(&[shared, &encrypts, &p384, other, p256, "7"]).unwrap().len(), 1);
        for none in [&[][..], &[shared], &[&encrypts], &[&p384], &[other]] {
            assert!(set(none).is_err(), "{none:?}");
        }
        for broken in ["", "[]", "{}", "{\"keys\":7}", "\u{0}"] {
            assert!(KeySet::parse(broken.as_bytes()).is_err(), "{broken}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_bytes_make_it_panic(kty in "(EC|RSA|OKP|oct)", x in ".{0,40}", n in "[A-Za-z0-9_-]{0,60}", signature in ".{0,60}") {
            let key = serde_json::json!({
                "kty": kty, "crv": if kty == "EC" { "P-256" } else { "Ed25519" }, "x": x, "y": n, "n": n, "e": "AQAB", "k": x,
            });
            if let Ok(set) = KeySet::parse(serde_json::json!({ "keys": [key] }).to_string().as_bytes()) {
                for algorithm in [Algorithm::RS256, Algorithm::PS256, Algorithm::ES256, Algorithm::EdDSA, Algorithm::HS256] {
                    let signed = Signature { algorithm, key_id: None, message: "a.b", signature: &signature };
                    prop_assert!(!set.verifies(&signed));
                }
            }
        }
    }
}
