//! The private key of an interception CA: in memory, or elsewhere.

use std::sync::{Arc, Mutex, PoisonError};

use rcgen::{
    KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_RSA_SHA256, PublicKeyData, SignatureAlgorithm,
    SigningKey,
};

use crate::signing::algorithm::SigningAlgorithm;
use crate::signing::blocking_signature::sign_blocking;
use crate::signing::signer::{Signer, SigningError};

/// The algorithms by which a CA signs whose key is elsewhere.
pub const AUTHORITY_ALGORITHMS: [SigningAlgorithm; 3] =
    [SigningAlgorithm::Es256, SigningAlgorithm::Es384, SigningAlgorithm::Rs256];

/// The private key of a CA.
pub(super) enum AuthorityKey {
    Local(KeyPair),
    Remote(RemoteAuthorityKey),
}

/// A key that a signer holds. Its signatures are waited for.
pub(super) struct RemoteAuthorityKey {
    signer: Arc<dyn Signer>,
    algorithm: SigningAlgorithm,
    name: &'static SignatureAlgorithm,
    /// The content of `subjectPublicKey` (RFC 5280 section 4.1).
    public: Vec<u8>,
    /// The last failure: the maker of certificates forgets it.
    failure: Mutex<Option<SigningError>>,
}

impl RemoteAuthorityKey {
    /// Takes a key with the content of its `subjectPublicKey`. `None` for an algorithm by which no CA signs here.
    pub(super) fn new(signer: Arc<dyn Signer>, algorithm: SigningAlgorithm, public: Vec<u8>) -> Option<Self> {
        let name = match algorithm {
            SigningAlgorithm::Es256 => &PKCS_ECDSA_P256_SHA256,
            SigningAlgorithm::Es384 => &PKCS_ECDSA_P384_SHA384,
            SigningAlgorithm::Rs256 => &PKCS_RSA_SHA256,
            _ => return None,
        };
        Some(Self { signer, algorithm, name, public, failure: Mutex::default() })
    }
}

impl AuthorityKey {
    /// Returns whether signatures are waited for.
    pub(super) const fn is_remote(&self) -> bool {
        matches!(self, AuthorityKey::Remote(_))
    }

    /// Takes out the reason for which the last signature was not made.
    pub(super) fn failure(&self) -> Option<SigningError> {
        match self {
            AuthorityKey::Local(_) => None,
            AuthorityKey::Remote(key) => key.failure.lock().unwrap_or_else(PoisonError::into_inner).take(),
        }
    }
}

impl PublicKeyData for AuthorityKey {
    fn der_bytes(&self) -> &[u8] {
        match self {
            AuthorityKey::Local(key) => key.der_bytes(),
            AuthorityKey::Remote(key) => &key.public,
        }
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        match self {
            AuthorityKey::Local(key) => PublicKeyData::algorithm(key),
            AuthorityKey::Remote(key) => key.name,
        }
    }
}

impl SigningKey for AuthorityKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        match self {
            AuthorityKey::Local(key) => key.sign(message),
            AuthorityKey::Remote(key) => match sign_blocking(&*key.signer, key.algorithm, message) {
                Ok(made) => Ok(made.to_der()),
                Err(error) => {
                    *key.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    Err(rcgen::Error::RemoteKeyError)
                }
            },
        }
    }
}
