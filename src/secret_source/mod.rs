//! Secrets from the servers that keep them: Vault and OpenBao, AWS Secrets Manager, Kubernetes, and the SPIFFE Workload
//! API, whose secrets are certificates with their keys.
//!
//! A [`SecretSources`] holds a [`SecretSource`] for each server that a config names. All of them live on one thread,
//! `secret-sources`, in a task each, with a session and connections of its own; none waits for another. A task remembers
//! what it has read: a config that is read while the server is away gets the last good value, and a leased secret is
//! renewed and not drawn anew by each reading. The session with a server is renewed before its end, or begun anew.
//!
//! Times, sizes and the number of waiting questions are bounded. Values are wiped when they are dropped and appear in no
//! message; of what a server writes in an error, only words that are known here are repeated.
//!
//! It must not know the config's syntax, or how a request reaches a server over HTTP:
//! [`HttpWay`](crate::base::http_call::HttpWay) is built by the config, with the TLS roots and the proxy that it names.

mod aws_credentials;
mod aws_secrets;
mod kubernetes_client;
mod secret_document;
mod secret_sources;
mod source;
mod source_client;
mod source_problem;
mod source_settings;
mod source_task;
mod spiffe_client;
#[cfg(test)]
mod tests;
mod vault_answer;
mod vault_client;

pub use aws_credentials::{AwsCredentials, AwsIdentity, ContainerToken};
pub use aws_secrets::AwsSecretsSettings;
pub use kubernetes_client::KubernetesSettings;
pub use secret_document::SecretDocument;
pub use secret_sources::SecretSources;
pub use source::{ReadPurpose, SecretSource, SourceReport};
pub use source_client::bearer_of_file;
pub use source_problem::{SourcePart, SourceProblem};
pub use source_settings::{HttpServer, SecretName, ServerSettings, SourceKind, SourceSettings};
pub use spiffe_client::{DEFAULT_SVID, SVID_BUNDLE, SVID_CERTIFICATES, SVID_KEY, SpiffeSettings};
pub use vault_client::{VaultLogin, VaultSettings};
