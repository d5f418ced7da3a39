//! The client of a source, by its kind.

use std::path::Path;
use std::time::Duration;

use http::HeaderValue;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use zeroize::Zeroizing;

use super::aws_secrets::AwsSecretsClient;
use super::kubernetes_client::KubernetesClient;
use super::secret_document::SecretDocument;
use super::source_problem::{SourcePart, SourceProblem};
use super::source_settings::{SecretName, ServerSettings, SourceSettings};
use super::spiffe_client::SpiffeClient;
use super::vault_answer::SecretLease;
use super::vault_client::{VaultClient, sensitive};
use crate::base::secret::{ExposeSecret, SecretString};
use crate::base::time::Now;

/// The unreserved characters of RFC 3986 section 2.3, and the slash.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// A token of a service account is no longer, in bytes.
const LONGEST_TOKEN: u64 = 64 << 10;

/// A secret as it was read, with its lease if it has one.
pub(super) struct FetchedSecret {
    pub(super) document: SecretDocument,
    pub(super) lease: Option<SecretLease>,
}

/// A client of one source. It lives on the thread of the sources. Callers bound the time of each call.
pub(super) enum SourceClient {
    Aws(AwsSecretsClient),
    Kubernetes(KubernetesClient),
    Spiffe(SpiffeClient),
    Vault(VaultClient),
}

impl SourceClient {
    pub(super) fn new(settings: &SourceSettings) -> Self {
        let clock = &settings.clock;
        match &settings.server {
            ServerSettings::Aws(server, aws) => SourceClient::Aws(AwsSecretsClient::new(aws.clone(), server, clock)),
            ServerSettings::Kubernetes(server, own) => {
                SourceClient::Kubernetes(KubernetesClient::new(own.clone(), server))
            }
            ServerSettings::Spiffe(spiffe) => SourceClient::Spiffe(SpiffeClient::new(spiffe.clone())),
            ServerSettings::Vault(server, vault) => SourceClient::Vault(VaultClient::new(vault.clone(), server, clock)),
        }
    }

    pub(super) async fn read(&mut self, name: &SecretName) -> Result<FetchedSecret, SourceProblem> {
        match self {
            SourceClient::Aws(aws) => aws.read(name).await,
            SourceClient::Kubernetes(kubernetes) => kubernetes.read(name).await,
            SourceClient::Spiffe(spiffe) => spiffe.read(name).await,
            SourceClient::Vault(vault) => vault.read(name).await,
        }
    }

    /// Renews the lease of a secret; `None`: it is to be read anew.
    pub(super) async fn renew(
        &mut self,
        lease: &SecretLease,
        first_life: Duration,
    ) -> Result<Option<SecretLease>, SourceProblem> {
        match self {
            SourceClient::Aws(_) | SourceClient::Kubernetes(_) | SourceClient::Spiffe(_) => Ok(None),
            SourceClient::Vault(vault) => vault.renew(lease, first_life).await,
        }
    }

    /// Returns the time until the session is to be renewed; `None`: there is none that ends.
    pub(super) fn renewal_in(&self, now: Now) -> Option<Duration> {
        match self {
            // What they log in with is looked at with each reading.
            SourceClient::Aws(_) | SourceClient::Kubernetes(_) | SourceClient::Spiffe(_) => None,
            SourceClient::Vault(vault) => vault.renewal_in(now),
        }
    }

    /// Returns the number of the session, with which its leases end.
    pub(super) const fn session(&self) -> u64 {
        match self {
            SourceClient::Aws(_) | SourceClient::Kubernetes(_) | SourceClient::Spiffe(_) => 0,
            SourceClient::Vault(vault) => vault.session(),
        }
    }

    pub(super) async fn renew_session(&mut self) -> Result<(), SourceProblem> {
        match self {
            SourceClient::Aws(_) | SourceClient::Kubernetes(_) | SourceClient::Spiffe(_) => Ok(()),
            SourceClient::Vault(vault) => vault.renew_session().await,
        }
    }
}

/// Writes a name as a path; slashes stay.
pub(super) fn encoded(name: &str) -> String {
    utf8_percent_encode(name, PLAIN).to_string()
}

/// Reads a token from its file for the field `authorization`. `what` names it in the error.
pub fn bearer_of_file(path: &Path, what: &str) -> Result<HeaderValue, SourceProblem> {
    bearer(&file_text(path, what)?)
}

/// Returns the field `authorization` with a token (RFC 6750 section 2.1).
pub(super) fn bearer(token: &SecretString) -> Result<HeaderValue, SourceProblem> {
    sensitive(&Zeroizing::new(format!("Bearer {}", token.expose_secret())))
}

/// Reads a token from its file, which somebody else renews.
pub(super) fn file_text(path: &Path, what: &str) -> Result<SecretString, SourceProblem> {
    let problem = |why: &str| {
        let told = format!("{what} cannot be read from `{}`: {why}", path.display());
        SourceProblem::new(SourcePart::Credentials, told, "see that it is mounted there, and readable for this user")
    };
    let length = path.metadata().map_err(|error| problem(&error.kind().to_string()))?.len();
    if length > LONGEST_TOKEN {
        return Err(problem("it is too long"));
    }
    let text = std::fs::read_to_string(path).map_err(|error| problem(&error.kind().to_string()))?;
    let text = SecretString::from(text.trim());
    Ok(text)
}
