//! Secrets that both sides know: keys of message authentication codes and of symmetric encryption.

use std::fmt;

use aws_lc_rs::hmac;
use pkcs8::PrivateKeyInfoRef;
use serde_json::Value;
use thiserror::Error;
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::SubjectPublicKeyInfo;
use zeroize::Zeroizing;

use super::algorithm::KeyType;
use super::algorithm::SigningAlgorithm;
use super::encoding::TextEncoding;
use super::signature::DigitalSignature;
use super::signer::SigningError;
use crate::base::secret::ExposeSecret;
use crate::base::secret::SecretBox;

/// The fewest bytes of a secret whose length a bank has chosen.
const LEAST_ISSUED: usize = 8;

/// A secret that both sides know.
pub struct SharedSecret {
    bytes: SecretBox<[u8]>,
    /// True if the bank chose its length.
    issued: bool,
}

/// The reason for which bytes are not accepted as a shared secret. It quotes none of them.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum SecretError {
    /// The text or its bytes are a key with a public part, or a certificate.
    #[error("a key or a certificate is no shared secret; give the secret that the bank has issued for HMAC")]
    Key,
    /// There are hardly any bytes.
    #[error("a shared secret has 8 bytes or more")]
    Short,
}

impl SharedSecret {
    /// A secret of one's own choice. A signature with it needs as many bytes as the hash has (RFC 7518 section 3.2).
    pub fn new(bytes: Zeroizing<Vec<u8>>) -> Result<Self, SecretError> {
        Self::read(bytes, false)
    }

    /// A secret of the length that a bank has chosen, for canonical texts and OAuth 1.0a: banks issue secrets shorter
    /// than the hash. At least 8 bytes.
    pub fn as_issued(bytes: Zeroizing<Vec<u8>>) -> Result<Self, SecretError> {
        Self::read(bytes, true)
    }

    /// Computes the authentication code of a message.
    pub(super) fn sign(&self, algorithm: SigningAlgorithm, message: &[u8]) -> Result<DigitalSignature, SigningError> {
        let tag = hmac::sign(&self.hmac_key(algorithm)?, message);
        Ok(DigitalSignature::new(algorithm, tag.as_ref().to_vec()))
    }

    /// Checks an authentication code in constant time.
    pub(super) fn verify(&self, algorithm: SigningAlgorithm, message: &[u8], tag: &[u8]) -> bool {
        self.hmac_key(algorithm).is_ok_and(|key| hmac::verify(&key, message, tag).is_ok())
    }

    /// Hands the bytes to an operation of the cryptographic library.
    pub(super) fn with_bytes<T>(&self, operation: impl FnOnce(&[u8]) -> T) -> T {
        operation(self.bytes.expose_secret())
    }

    fn read(bytes: Zeroizing<Vec<u8>>, issued: bool) -> Result<Self, SecretError> {
        if is_key(&bytes) {
            return Err(SecretError::Key);
        }
        if bytes.len() < LEAST_ISSUED {
            return Err(SecretError::Short);
        }
        // An exact copy, so that no reallocation leaves the bytes behind.
        let boxed: Box<[u8]> = Box::from(bytes.as_slice());
        Ok(Self { bytes: SecretBox::new(boxed), issued })
    }

    fn hmac_key(&self, algorithm: SigningAlgorithm) -> Result<hmac::Key, SigningError> {
        let hash = match algorithm {
            SigningAlgorithm::Hs256 => hmac::HMAC_SHA256,
            SigningAlgorithm::Hs384 => hmac::HMAC_SHA384,
            SigningAlgorithm::Hs512 => hmac::HMAC_SHA512,
            SigningAlgorithm::EdDsa
            | SigningAlgorithm::Es256
            | SigningAlgorithm::Es384
            | SigningAlgorithm::Ps256
            | SigningAlgorithm::Ps384
            | SigningAlgorithm::Ps512
            | SigningAlgorithm::Rs256
            | SigningAlgorithm::Rs384
            | SigningAlgorithm::Rs512 => {
                return Err(SigningError::WrongKey { algorithm, key: KeyType::Secret });
            }
        };
        let bytes = self.bytes.expose_secret();
        if bytes.len() < hash.tag_len() && !self.issued {
            return Err(SigningError::ShortSecret { algorithm, least: hash.tag_len() });
        }
        Ok(hmac::Key::new(hash, bytes))
    }
}

impl fmt::Debug for SharedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedSecret").finish_non_exhaustive()
    }
}

/// Returns whether bytes are a key in PEM, DER, JWK or OpenSSH form, or a certificate: text that others may know.
fn is_key(bytes: &[u8]) -> bool {
    let contains = |mark: &[u8]| bytes.windows(mark.len()).any(|window| window == mark);
    contains(b"-----BEGIN ")
        || bytes.starts_with(b"ssh-")
        || bytes.starts_with(b"ecdsa-sha2-")
        || is_der_key(bytes)
        || std::str::from_utf8(bytes)
            .is_ok_and(|text| TextEncoding::Base64.decode(text.trim()).is_some_and(|bytes| is_der_key(&bytes)))
        || bytes.trim_ascii_start().starts_with(b"{")
            && serde_json::from_slice::<Value>(bytes)
                .is_ok_and(|json| json.get("kty").is_some() || json.get("keys").is_some())
}

fn is_der_key(bytes: &[u8]) -> bool {
    SubjectPublicKeyInfo::from_der(bytes).is_ok()
        || x509_parser::parse_x509_certificate(bytes).is_ok()
        || PrivateKeyInfoRef::try_from(bytes).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(bytes: &[u8]) -> Result<SharedSecret, SecretError> {
        SharedSecret::new(Zeroizing::new(bytes.to_vec()))
    }

    #[test]
    fn a_short_secret_signs_only_if_a_bank_chose_it() {
        let short = secret(&[7; 31]).unwrap();
        let error = short.sign(SigningAlgorithm::Hs256, b"m").unwrap_err();
        assert!(error.to_string().contains("32 bytes"), "{error}");
        assert!(secret(&[7; 32]).unwrap().sign(SigningAlgorithm::Hs256, b"m").is_ok());
        assert!(secret(&[7; 32]).unwrap().sign(SigningAlgorithm::Hs512, b"m").is_err());
        let issued = SharedSecret::as_issued(Zeroizing::new(b"16-bytes-of-bank".to_vec())).unwrap();
        assert!(issued.sign(SigningAlgorithm::Hs512, b"m").is_ok());
        assert!(issued.sign(SigningAlgorithm::Rs256, b"m").is_err());
        assert_eq!(secret(&[7; 7]).unwrap_err(), SecretError::Short);
        assert_eq!(format!("{issued:?}"), "SharedSecret { .. }");
    }

    #[test]
    fn keys_and_certificates_are_no_secrets() {
        let pair = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::default().self_signed(&pair).unwrap();
        for text in [
            pair.public_key_pem().into_bytes(),
            pair.serialize_pem().into_bytes(),
            format!("  \n{}", certificate.pem()).into_bytes(),
            rcgen::PublicKeyData::subject_public_key_info(&pair),
            certificate.der().to_vec(),
            pair.serialize_der(),
            format!("{}\n", TextEncoding::Base64.encode(certificate.der())).into_bytes(),
            br#" {"kty":"RSA","n":"AQAB","e":"AQAB"}"#.to_vec(),
            br#"{"keys":[]}"#.to_vec(),
            b"ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABgQ".to_vec(),
        ] {
            assert_eq!(secret(&text).unwrap_err(), SecretError::Key);
        }
    }
}
