//! AWS Key Management Service by its HTTP API: `GetPublicKey`, `Sign` and `Decrypt`, in its JSON protocol, signed by
//! [Signature Version 4](crate::signing::signing_scope).
//!
//! A key never leaves the service; a message's digest goes there and its signature comes back. Credentials are those of
//! the config: the instance metadata service and web identities are not asked.

mod kms_device;

use std::sync::Arc;

pub use kms_device::KmsDevice;

use crate::base::http_call::HttpWay;
use crate::base::secret::{ExposeSecret, SecretString, sha256};
use crate::base::time::Clock;

/// The settings of an account.
#[derive(Clone, Debug)]
pub struct KmsSettings {
    pub region: String,
    /// The value of `Host`: the endpoint's authority.
    pub host: String,
    pub access_key_id: String,
    pub secret_access_key: SecretString,
    /// The token of temporary credentials.
    pub session_token: Option<SecretString>,
    pub http: Arc<dyn HttpWay>,
    /// A digest of the way to it.
    pub http_digest: [u8; 32],
    pub clock: Clock,
}

impl KmsSettings {
    /// Returns its name in logs, metrics and the status.
    pub fn title(&self) -> String {
        format!("kms:{}", self.region)
    }

    /// Returns a digest of all of it.
    pub(in crate::key_service) fn digest(&self) -> [u8; 32] {
        let mut inputs = self.http_digest.to_vec();
        let token = self.session_token.as_ref().map_or("", |token| token.expose_secret());
        for text in [&*self.region, &self.host, &self.access_key_id, self.secret_access_key.expose_secret(), token] {
            inputs.extend(sha256(text.as_bytes()));
        }
        sha256(&inputs)
    }
}
