//! Public keys, and the keys that verify.

use std::fmt;

use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::rsa::{PublicEncryptingKey, PublicKey as RsaPublicKey, PublicKeyComponents};
use aws_lc_rs::signature;
use aws_lc_rs::signature::{ParsedPublicKey, RsaParameters, UnparsedPublicKey};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer};
use serde_json::{Map, Value};
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::PublicKey as ParsedKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::algorithm::KeyType;
use super::algorithm::SigningAlgorithm;
use super::encoding::base64url;
use super::jwk_thumbprint::jwk_thumbprint;
use super::key::KeyError;
use super::pkcs;
use super::shared_secret::SharedSecret;
use crate::base::secret::sha256;

/// The longest RSA modulus that is read, in bytes.
const LONGEST_MODULUS: usize = 1024;

#[derive(Clone, Eq, PartialEq)]
pub struct PublicKey(Numbers);

#[derive(Clone, Eq, PartialEq)]
enum Numbers {
    /// An EC key: its curve, and its point in uncompressed form.
    Ec(KeyType, Vec<u8>),
    Ed25519([u8; 32]),
    /// Both without leading zeros.
    Rsa {
        modulus: Vec<u8>,
        exponent: Vec<u8>,
    },
}

impl PublicKey {
    /// Reads a public key or certificate from a PEM file.
    pub fn from_pem(pem: &[u8]) -> Result<Self, KeyError> {
        if let Some(der) = pkcs::section(pem, "RSA PUBLIC KEY")? {
            return Self::from_pkcs1(&der);
        }
        if let Ok(info) = SubjectPublicKeyInfoDer::from_pem_slice(pem) {
            return Self::from_spki(info.as_ref());
        }
        match CertificateDer::from_pem_slice(pem) {
            Ok(certificate) => Self::from_certificate(certificate.as_ref()),
            Err(_) => Err(KeyError::NoPublicKey),
        }
    }

    /// Reads the public key of a certificate in DER. The certificate's validity and issuer are the caller's to judge.
    pub fn from_certificate(der: &[u8]) -> Result<Self, KeyError> {
        let (_, certificate) = x509_parser::parse_x509_certificate(der).map_err(|_| KeyError::Broken)?;
        Self::from_spki(certificate.public_key().raw)
    }

    /// Reads a SubjectPublicKeyInfo in DER.
    pub fn from_spki(der: &[u8]) -> Result<Self, KeyError> {
        let (_, info) = SubjectPublicKeyInfo::from_der(der).map_err(|_| KeyError::Broken)?;
        match info.algorithm.algorithm.to_id_string().as_str() {
            "1.3.101.112" => return Self::ed25519(&info.subject_public_key.data),
            // A key that is restricted to RSASSA-PSS is read as any RSA key.
            "1.2.840.113549.1.1.10" => return Self::from_pkcs1(&info.subject_public_key.data),
            _ => {}
        }
        match info.parsed().map_err(|_| KeyError::Broken)? {
            ParsedKey::RSA(rsa) => Self::rsa(rsa.modulus, rsa.exponent),
            ParsedKey::EC(point) => match point.data().len() {
                65 => Self::ec(KeyType::P256, point.data()),
                97 => Self::ec(KeyType::P384, point.data()),
                _ => Err(KeyError::Curve),
            },
            ParsedKey::DSA(_) | ParsedKey::GostR3410(_) | ParsedKey::GostR3410_2012(_) | ParsedKey::Unknown(_) => {
                Err(KeyError::Broken)
            }
        }
    }

    /// Reads an RSA key in PKCS#1 form.
    pub(super) fn from_pkcs1(der: &[u8]) -> Result<Self, KeyError> {
        let key = RsaPublicKey::from_der(der).map_err(|_| KeyError::Broken)?;
        let info: PublicKeyX509Der<'_> = key.as_der().map_err(|_| KeyError::Broken)?;
        Self::from_spki(info.as_ref())
    }

    /// An RSA key from its numbers, big-endian.
    pub fn rsa(modulus: &[u8], exponent: &[u8]) -> Result<Self, KeyError> {
        let modulus = without_zeros(modulus);
        let exponent = without_zeros(exponent);
        if modulus.len() < 256 || modulus.len() == 256 && modulus[0] < 0x80 {
            return Err(KeyError::Short);
        }
        if modulus.len() > LONGEST_MODULUS || exponent.len() > 5 {
            return Err(KeyError::Broken);
        }
        let numbers = PublicKeyComponents { n: modulus, e: exponent };
        let accepted = numbers.to_parsed_public_key(&signature::RSA_PSS_2048_8192_SHA256);
        accepted.map_err(|_| KeyError::Broken)?;
        Ok(Self(Numbers::Rsa { modulus: modulus.to_vec(), exponent: exponent.to_vec() }))
    }

    /// An EC key; `point` is uncompressed and must lie on the curve.
    pub fn ec(curve: KeyType, point: &[u8]) -> Result<Self, KeyError> {
        let accepted = match (curve, point) {
            (KeyType::P256, [4, ..]) => ParsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, point),
            (KeyType::P384, [4, ..]) => ParsedPublicKey::new(&signature::ECDSA_P384_SHA384_FIXED, point),
            (KeyType::Ed25519 | KeyType::P256 | KeyType::P384 | KeyType::Rsa | KeyType::Secret, _) => {
                return Err(KeyError::Curve);
            }
        };
        accepted.map_err(|_| KeyError::Broken)?;
        Ok(Self(Numbers::Ec(curve, point.to_vec())))
    }

    /// An Ed25519 key; `public` has 32 bytes.
    pub fn ed25519(public: &[u8]) -> Result<Self, KeyError> {
        public.try_into().map(|bytes| Self(Numbers::Ed25519(bytes))).map_err(|_| KeyError::Broken)
    }

    pub const fn key_type(&self) -> KeyType {
        match &self.0 {
            Numbers::Ec(curve, _) => *curve,
            Numbers::Ed25519(_) => KeyType::Ed25519,
            Numbers::Rsa { .. } => KeyType::Rsa,
        }
    }

    /// Returns the members that a JSON Web Key needs, in lexicographic order (RFC 7638 section 3.2).
    pub fn to_jwk(&self) -> Map<String, Value> {
        let members: Vec<(&str, String)> = match &self.0 {
            Numbers::Ec(curve, point) => {
                let name = if *curve == KeyType::P384 { "P-384" } else { "P-256" };
                let (x, y) = point[1..].split_at((point.len() - 1) / 2);
                vec![("crv", name.into()), ("kty", "EC".into()), ("x", base64url(x)), ("y", base64url(y))]
            }
            Numbers::Ed25519(public) => {
                vec![("crv", "Ed25519".into()), ("kty", "OKP".into()), ("x", base64url(public))]
            }
            Numbers::Rsa { modulus, exponent } => {
                vec![("e", base64url(exponent)), ("kty", "RSA".into()), ("n", base64url(modulus))]
            }
        };
        members.into_iter().map(|(name, value)| (name.to_owned(), Value::String(value))).collect()
    }

    /// Returns a digest that tells the key from others.
    pub fn mark(&self) -> [u8; 32] {
        sha256(jwk_thumbprint(self).as_bytes())
    }

    /// Checks a signature in the form of JOSE.
    fn verify(&self, algorithm: SigningAlgorithm, message: &[u8], made: &[u8]) -> bool {
        if algorithm.key_type() != self.key_type() {
            return false;
        }
        let verified = match &self.0 {
            Numbers::Ec(KeyType::P384, point) => {
                UnparsedPublicKey::new(&signature::ECDSA_P384_SHA384_FIXED, point).verify(message, made)
            }
            Numbers::Ec(_, point) => {
                UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, point).verify(message, made)
            }
            Numbers::Ed25519(public) => UnparsedPublicKey::new(&signature::ED25519, public).verify(message, made),
            Numbers::Rsa { modulus, exponent } => {
                let Some(parameters) = rsa_parameters(algorithm) else { return false };
                PublicKeyComponents { n: modulus, e: exponent }.verify(parameters, message, made)
            }
        };
        verified.is_ok()
    }

    /// Returns the same key for encryption, if it is an RSA key.
    pub(super) fn rsa_encryption(&self) -> Option<PublicEncryptingKey> {
        let Numbers::Rsa { modulus, exponent } = &self.0 else { return None };
        PublicKeyComponents { n: modulus, e: exponent }.try_into().ok()
    }

    /// Returns the point of an EC key, in uncompressed form.
    pub(super) fn point(&self) -> Option<&[u8]> {
        match &self.0 {
            Numbers::Ec(_, point) => Some(point),
            Numbers::Ed25519(_) | Numbers::Rsa { .. } => None,
        }
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PublicKey").field(&self.key_type()).finish()
    }
}

/// A key that verifies: a public key, or the secret that both sides know.
#[derive(Debug)]
pub enum VerifyingKey {
    /// The other side's public key.
    Public(PublicKey),
    /// The secret that both sides know.
    Secret(SharedSecret),
}

impl VerifyingKey {
    /// Returns whether a signature in the form of JOSE is the key's over `message`, by this algorithm.
    pub fn verify(&self, algorithm: SigningAlgorithm, message: &[u8], signature: &[u8]) -> bool {
        match self {
            VerifyingKey::Public(key) => key.verify(algorithm, message, signature),
            VerifyingKey::Secret(secret) => secret.verify(algorithm, message, signature),
        }
    }
}

const fn rsa_parameters(algorithm: SigningAlgorithm) -> Option<&'static RsaParameters> {
    match algorithm {
        SigningAlgorithm::Ps256 => Some(&signature::RSA_PSS_2048_8192_SHA256),
        SigningAlgorithm::Ps384 => Some(&signature::RSA_PSS_2048_8192_SHA384),
        SigningAlgorithm::Ps512 => Some(&signature::RSA_PSS_2048_8192_SHA512),
        SigningAlgorithm::Rs256 => Some(&signature::RSA_PKCS1_2048_8192_SHA256),
        SigningAlgorithm::Rs384 => Some(&signature::RSA_PKCS1_2048_8192_SHA384),
        SigningAlgorithm::Rs512 => Some(&signature::RSA_PKCS1_2048_8192_SHA512),
        SigningAlgorithm::EdDsa
        | SigningAlgorithm::Es256
        | SigningAlgorithm::Es384
        | SigningAlgorithm::Hs256
        | SigningAlgorithm::Hs384
        | SigningAlgorithm::Hs512 => None,
    }
}

fn without_zeros(number: &[u8]) -> &[u8] {
    let start = number.iter().position(|byte| *byte != 0).unwrap_or(number.len());
    &number[start..]
}
