//! A key of a key service, as a signer.

use std::fmt;
use std::sync::Arc;

use super::service::{KeyName, KeyService};
use crate::base::time::Within;
use crate::signing::algorithm::{KeyType, SigningAlgorithm};
use crate::signing::public_key::PublicKey;
use crate::signing::signer::{PendingSignature, Signer};

/// A private key that a key service holds, with its public key.
pub struct RemoteKey {
    service: Arc<KeyService>,
    name: KeyName,
    public: PublicKey,
}

impl RemoteKey {
    pub(super) const fn new(service: Arc<KeyService>, name: KeyName, public: PublicKey) -> Self {
        Self { service, name, public }
    }
}

impl fmt::Debug for RemoteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteKey").field("name", &self.name).field("public", &self.public).finish_non_exhaustive()
    }
}

impl Signer for RemoteKey {
    fn key_type(&self) -> KeyType {
        self.public.key_type()
    }

    fn public_key(&self) -> Option<PublicKey> {
        Some(self.public.clone())
    }

    fn sign<'a>(&'a self, algorithm: SigningAlgorithm, message: &'a [u8], within: Within) -> PendingSignature<'a> {
        self.service.sign(&self.name, self.key_type(), algorithm, message, within)
    }
}
