//! The uses that a profile makes of a key, by which a config with the wrong key is refused.

use crate::signing::algorithm::{KeyType, SigningAlgorithm};
use crate::signing::jwe::KeyManagement;

/// A use of a key. Our own private key signs and decrypts, the provider's public key verifies and encrypts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum KeyUse {
    Decrypt(KeyManagement),
    Encrypt(KeyManagement),
    Sign(SigningAlgorithm),
    Verify(SigningAlgorithm),
}

impl KeyUse {
    /// Returns the JOSE name of the algorithm.
    pub(super) const fn algorithm(self) -> &'static str {
        match self {
            KeyUse::Decrypt(management) | KeyUse::Encrypt(management) => management.name(),
            KeyUse::Sign(algorithm) | KeyUse::Verify(algorithm) => algorithm.name(),
        }
    }

    /// Returns the algorithm by which the key signs, if it does.
    pub(super) const fn signs(self) -> Option<SigningAlgorithm> {
        match self {
            KeyUse::Sign(algorithm) => Some(algorithm),
            KeyUse::Decrypt(_) | KeyUse::Encrypt(_) | KeyUse::Verify(_) => None,
        }
    }

    /// Returns whether a key of this kind is fit for it.
    pub(super) fn takes(self, key: KeyType) -> bool {
        match self {
            KeyUse::Decrypt(management) | KeyUse::Encrypt(management) => management.takes(key),
            KeyUse::Sign(algorithm) | KeyUse::Verify(algorithm) => algorithm.key_type() == key,
        }
    }

    /// Returns a few words for the keys that are fit for it.
    pub(super) fn key(self) -> String {
        match self {
            KeyUse::Decrypt(management) | KeyUse::Encrypt(management) => management.key().to_owned(),
            KeyUse::Sign(algorithm) | KeyUse::Verify(algorithm) => algorithm.key_type().to_string(),
        }
    }
}
