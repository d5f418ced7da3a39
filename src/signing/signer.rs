//! The interface of all that signs: a key in memory, a device or a key service.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use thiserror::Error;

use super::algorithm::KeyType;
use super::algorithm::SigningAlgorithm;
use super::key::SigningKey;
use super::public_key::PublicKey;
use super::signature::DigitalSignature;
use crate::base::time::Within;

/// The reason for which a message was not signed. It quotes no secret.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum SigningError {
    #[error("the signature could not be computed")]
    Failed,
    /// The secret is shorter than the hash.
    #[error("{algorithm} needs a secret of {least} bytes or more")]
    ShortSecret {
        /// The algorithm that was asked for.
        algorithm: SigningAlgorithm,
        /// The fewest bytes of its secret.
        least: usize,
    },
    /// A device or a key service did not sign; the text is for the log.
    #[error("the signer did not answer: {0}")]
    Unavailable(String),
    /// The key is of another kind.
    #[error("{algorithm} needs {}, and this is {key}", .algorithm.key_type())]
    WrongKey {
        /// The algorithm that was asked for.
        algorithm: SigningAlgorithm,
        /// The kind of the key.
        key: KeyType,
    },
}

/// A signature on its way.
pub type PendingSignature<'a> = Pin<Box<dyn Future<Output = Result<DigitalSignature, SigningError>> + Send + 'a>>;

/// A signer: it holds a key and never hands it out.
pub trait Signer: fmt::Debug + Send + Sync {
    /// Returns the kind of its key, so that a config with a wrong algorithm is refused before the first request.
    fn key_type(&self) -> KeyType;

    /// Returns the public key, for the header of a proof; a shared secret has none.
    fn public_key(&self) -> Option<PublicKey>;

    /// Signs the bytes of a message within the deadline. ECDSA signatures are returned in the form of JOSE; a device
    /// that returns DER converts it with [`DigitalSignature::from_der`].
    fn sign<'a>(&'a self, algorithm: SigningAlgorithm, message: &'a [u8], within: Within) -> PendingSignature<'a>;
}

/// A key in memory signs at once.
impl Signer for SigningKey {
    fn key_type(&self) -> KeyType {
        SigningKey::key_type(self)
    }

    fn public_key(&self) -> Option<PublicKey> {
        self.public().cloned()
    }

    fn sign<'a>(&'a self, algorithm: SigningAlgorithm, message: &'a [u8], _: Within) -> PendingSignature<'a> {
        Box::pin(std::future::ready(SigningKey::sign(self, algorithm, message)))
    }
}
