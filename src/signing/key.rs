//! Private keys, and signatures with them.

use std::fmt;

use aws_lc_rs::agreement;
use aws_lc_rs::encoding::{AsBigEndian as _, AsDer as _, EcPrivateKeyBin, Pkcs8V1Der};
use aws_lc_rs::error::KeyRejected;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, PrivateDecryptingKey};
use aws_lc_rs::signature;
use aws_lc_rs::signature::{EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, RsaEncoding};
use thiserror::Error;

use super::algorithm::KeyType;
use super::algorithm::SigningAlgorithm;
use super::public_key::PublicKey;
use super::shared_secret::SecretError;
use super::shared_secret::SharedSecret;
use super::signature::DigitalSignature;
use super::signer::SigningError;
use crate::base::secret::sha256;

/// The reason for which a key cannot be used. It quotes nothing of the key.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum KeyError {
    #[error("the key is broken, or of a kind that is not read here; RSA, EC (P-256, P-384) and Ed25519 keys are")]
    Broken,
    #[error("the curve is not read here; use P-256, P-384 or Ed25519")]
    Curve,
    #[error("an RSA key in JWK form needs its members p, q, dp, dq and qi; `openssl` exports keys that have them")]
    Factors,
    #[error("not well-formed: a JSON Web Key is a JSON object with the member kty, RSA, EC, OKP or oct")]
    Jwk,
    #[error("no private key found")]
    NoPrivateKey,
    #[error("no public key or certificate found")]
    NoPublicKey,
    #[error("the key is encrypted in an old form; `openssl pkcs8 -topk8 -in KEY -out NEW` writes it in today's form")]
    OldEncryption,
    #[error("not well-formed PEM")]
    Pem,
    #[error("the private key is encrypted, and its password is not given")]
    PasswordMissing,
    #[error("the key cannot be decrypted: its password is wrong, or it is encrypted in a way that is not read here")]
    PasswordWrong,
    #[error("a public key: its private key is needed to sign")]
    Public,
    #[error("an RSA key below 2048 bits is too weak; ask for a new one of 2048 bits or more")]
    Short,
    #[error(transparent)]
    Secret(#[from] SecretError),
}

/// A key that signs: a private key, or a secret that both sides know. The two are never mistaken for each other.
#[derive(Debug)]
pub enum SigningKey {
    /// A private key, whose public key verifies.
    Private(PrivateKey),
    /// A shared secret, which also verifies.
    Secret(SharedSecret),
}

impl SigningKey {
    pub const fn key_type(&self) -> KeyType {
        match self {
            SigningKey::Private(key) => key.key_type(),
            SigningKey::Secret(_) => KeyType::Secret,
        }
    }

    /// Returns the public key of a private key, for `jwk` in the header of a proof; a shared secret has none.
    pub const fn public(&self) -> Option<&PublicKey> {
        match self {
            SigningKey::Private(key) => Some(key.public()),
            SigningKey::Secret(_) => None,
        }
    }

    /// Returns a digest that tells the key from others.
    pub(super) fn mark(&self) -> [u8; 32] {
        match self {
            SigningKey::Private(key) => key.public().mark(),
            SigningKey::Secret(secret) => secret.with_bytes(sha256),
        }
    }

    /// Signs a message. The key must fit the algorithm.
    pub fn sign(&self, algorithm: SigningAlgorithm, message: &[u8]) -> Result<DigitalSignature, SigningError> {
        match self {
            SigningKey::Private(key) => key.sign(algorithm, message),
            SigningKey::Secret(secret) => secret.sign(algorithm, message),
        }
    }
}

/// A private key with its public key.
pub struct PrivateKey {
    pair: Pair,
    public: PublicKey,
}

enum Pair {
    Ed25519(Ed25519KeyPair),
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

impl PrivateKey {
    pub const fn key_type(&self) -> KeyType {
        self.public.key_type()
    }

    /// Signs a message. The key must fit the algorithm.
    pub fn sign(&self, algorithm: SigningAlgorithm, message: &[u8]) -> Result<DigitalSignature, SigningError> {
        let encoding: Option<&'static dyn RsaEncoding> = match algorithm {
            SigningAlgorithm::Ps256 => Some(&signature::RSA_PSS_SHA256),
            SigningAlgorithm::Ps384 => Some(&signature::RSA_PSS_SHA384),
            SigningAlgorithm::Ps512 => Some(&signature::RSA_PSS_SHA512),
            SigningAlgorithm::Rs256 => Some(&signature::RSA_PKCS1_SHA256),
            SigningAlgorithm::Rs384 => Some(&signature::RSA_PKCS1_SHA384),
            SigningAlgorithm::Rs512 => Some(&signature::RSA_PKCS1_SHA512),
            SigningAlgorithm::EdDsa
            | SigningAlgorithm::Es256
            | SigningAlgorithm::Es384
            | SigningAlgorithm::Hs256
            | SigningAlgorithm::Hs384
            | SigningAlgorithm::Hs512 => None,
        };
        let bytes = match (&self.pair, algorithm, encoding) {
            (Pair::Ed25519(pair), SigningAlgorithm::EdDsa, _) => {
                pair.try_sign(message).map(|made| made.as_ref().to_vec())
            }
            (Pair::P256(pair), SigningAlgorithm::Es256, _) | (Pair::P384(pair), SigningAlgorithm::Es384, _) => {
                pair.sign(&SystemRandom::new(), message).map(|made| made.as_ref().to_vec())
            }
            (Pair::Rsa(pair), _, Some(encoding)) => {
                let mut bytes = vec![0; pair.public_modulus_len()];
                pair.sign(encoding, &SystemRandom::new(), message, &mut bytes).map(|()| bytes)
            }
            (Pair::Ed25519(_) | Pair::P256(_) | Pair::P384(_) | Pair::Rsa(_), _, _) => {
                return Err(SigningError::WrongKey { algorithm, key: self.key_type() });
            }
        };
        bytes.map(|bytes| DigitalSignature::new(algorithm, bytes)).map_err(|_| SigningError::Failed)
    }

    pub const fn public(&self) -> &PublicKey {
        &self.public
    }

    fn new(pair: Pair) -> Result<Self, KeyError> {
        let public = match &pair {
            Pair::Ed25519(pair) => PublicKey::ed25519(pair.public_key().as_ref())?,
            Pair::P256(pair) => PublicKey::ec(KeyType::P256, pair.public_key().as_ref())?,
            Pair::P384(pair) => PublicKey::ec(KeyType::P384, pair.public_key().as_ref())?,
            Pair::Rsa(pair) => PublicKey::from_pkcs1(pair.public_key().as_ref())?,
        };
        Ok(Self { pair, public })
    }

    pub(super) fn from_rsa_pkcs1(der: &[u8]) -> Result<Self, KeyError> {
        Self::from_rsa(RsaKeyPair::from_der(der))
    }

    pub(super) fn from_rsa(pair: Result<RsaKeyPair, KeyRejected>) -> Result<Self, KeyError> {
        // The library tells its reasons as text only.
        let told = |rejected: KeyRejected| match rejected.to_string().as_str() {
            "TooSmall" => KeyError::Short,
            _ => KeyError::Broken,
        };
        Self::new(Pair::Rsa(pair.map_err(told)?))
    }

    /// Reads an EC key in PKCS#8 or SEC1 form; its curve decides.
    pub(super) fn from_ec_der(der: &[u8]) -> Result<Self, KeyError> {
        let read = |curve: &'static EcdsaSigningAlgorithm| EcdsaKeyPair::from_private_key_der(curve, der);
        let p256 = read(&signature::ECDSA_P256_SHA256_FIXED_SIGNING).map(Pair::P256);
        let pair = p256.or_else(|_| read(&signature::ECDSA_P384_SHA384_FIXED_SIGNING).map(Pair::P384));
        Self::new(pair.map_err(|_| KeyError::Curve)?)
    }

    /// An EC key from its numbers; `point` is uncompressed.
    pub(super) fn from_ec_parts(curve: KeyType, scalar: &[u8], point: &[u8]) -> Result<Self, KeyError> {
        let read = |curve: &'static EcdsaSigningAlgorithm| {
            EcdsaKeyPair::from_private_key_and_public_key(curve, scalar, point).map_err(|_| KeyError::Broken)
        };
        match curve {
            KeyType::P256 => Self::new(Pair::P256(read(&signature::ECDSA_P256_SHA256_FIXED_SIGNING)?)),
            KeyType::P384 => Self::new(Pair::P384(read(&signature::ECDSA_P384_SHA384_FIXED_SIGNING)?)),
            KeyType::Ed25519 | KeyType::Rsa | KeyType::Secret => Err(KeyError::Curve),
        }
    }

    pub(super) fn from_ed25519_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        Self::new(Pair::Ed25519(Ed25519KeyPair::from_pkcs8(der).map_err(|_| KeyError::Broken)?))
    }

    pub(super) fn from_ed25519_parts(seed: &[u8], public: &[u8]) -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::from_seed_and_public_key(seed, public).map_err(|_| KeyError::Broken)?;
        Self::new(Pair::Ed25519(pair))
    }

    /// Returns the same key for decryption, if it is an RSA key.
    pub(super) fn rsa_decryption(&self) -> Option<PrivateDecryptingKey> {
        let Pair::Rsa(pair) = &self.pair else { return None };
        let der: Pkcs8V1Der<'_> = pair.as_der().ok()?;
        PrivateDecryptingKey::from_pkcs8(der.as_ref()).ok()
    }

    /// Returns the same key for key agreement, if it is an EC key.
    pub(super) fn agreement(&self) -> Option<agreement::PrivateKey> {
        let (pair, curve) = match &self.pair {
            Pair::P256(pair) => (pair, &agreement::ECDH_P256),
            Pair::P384(pair) => (pair, &agreement::ECDH_P384),
            Pair::Ed25519(_) | Pair::Rsa(_) => return None,
        };
        let scalar: EcPrivateKeyBin<'_> = pair.private_key().as_be_bytes().ok()?;
        agreement::PrivateKey::from_private_key(curve, scalar.as_ref()).ok()
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PrivateKey").field(&self.key_type()).finish()
    }
}
