//! The settings of a source, and the names of its secrets.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::aws_secrets::AwsSecretsSettings;
use super::kubernetes_client::KubernetesSettings;
use super::spiffe_client::SpiffeSettings;
use super::vault_client::VaultSettings;
use crate::base::http_call::HttpWay;
use crate::base::secret::sha256;
use crate::base::time::Clock;

/// The kind of a source.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum SourceKind {
    AwsSecretsManager,
    Kubernetes,
    Spiffe,
    Vault,
}

impl SourceKind {
    /// Returns its word in configs, logs and metrics.
    pub const fn word(self) -> &'static str {
        match self {
            SourceKind::AwsSecretsManager => "aws",
            SourceKind::Kubernetes => "kubernetes",
            SourceKind::Spiffe => "spiffe",
            SourceKind::Vault => "vault",
        }
    }
}

/// The settings of one source.
#[derive(Clone, Debug)]
pub struct SourceSettings {
    /// Its name in the config.
    pub name: String,
    /// A secret is read, or renewed, within this time.
    pub timeout: Duration,
    pub clock: Clock,
    pub server: ServerSettings,
}

/// The settings of a source that are of its kind alone.
#[derive(Clone, Debug)]
pub enum ServerSettings {
    Aws(HttpServer, AwsSecretsSettings),
    Kubernetes(HttpServer, KubernetesSettings),
    Spiffe(SpiffeSettings),
    Vault(HttpServer, VaultSettings),
}

/// A server that is asked over HTTP.
#[derive(Clone, Debug)]
pub struct HttpServer {
    /// The value of `Host`: the server's authority.
    pub host: String,
    pub http: Arc<dyn HttpWay>,
    /// A digest of the way to it.
    pub digest: [u8; 32],
}

impl HttpServer {
    /// A digest of the way and the authority.
    fn whole_digest(&self) -> [u8; 32] {
        sha256(&[self.digest, sha256(self.host.as_bytes())].concat())
    }
}

impl SourceSettings {
    pub(super) const fn kind(&self) -> SourceKind {
        match self.server {
            ServerSettings::Aws(..) => SourceKind::AwsSecretsManager,
            ServerSettings::Kubernetes(..) => SourceKind::Kubernetes,
            ServerSettings::Spiffe(_) => SourceKind::Spiffe,
            ServerSettings::Vault(..) => SourceKind::Vault,
        }
    }

    /// Returns a digest of all of it.
    pub(super) fn digest(&self) -> [u8; 32] {
        let mut inputs = sha256(self.name.as_bytes()).to_vec();
        inputs.extend(self.timeout.as_millis().to_be_bytes());
        inputs.extend(sha256(self.kind().word().as_bytes()));
        let (server, own) = match &self.server {
            ServerSettings::Aws(server, aws) => (server.whole_digest(), aws.digest()),
            ServerSettings::Kubernetes(server, kubernetes) => (server.whole_digest(), kubernetes.digest()),
            ServerSettings::Spiffe(spiffe) => ([0; 32], spiffe.digest()),
            ServerSettings::Vault(server, vault) => (server.whole_digest(), vault.digest()),
        };
        inputs.extend(server);
        inputs.extend(own);
        sha256(&inputs)
    }
}

/// A digest of texts that is another one for other texts.
pub(super) fn digest_of(texts: &[&str]) -> [u8; 32] {
    sha256(&texts.iter().flat_map(|text| sha256(text.as_bytes())).collect::<Vec<u8>>())
}

/// The name of a secret at its source.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct SecretName {
    /// A path in Vault, a name or ARN in AWS, the name of a `Secret` in Kubernetes, a SPIFFE ID or [`DEFAULT_SVID`].
    pub name: String,
    /// A number in Vault, a stage in AWS; `None`: the current one.
    pub version: Option<String>,
}

impl fmt::Display for SecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.version {
            Some(version) => write!(f, "{} (version {version})", self.name),
            None => f.write_str(&self.name),
        }
    }
}
