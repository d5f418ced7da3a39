//! A client of the SPIFFE Workload API: certificates that name this process, with their keys and the CAs of their trust
//! domain.
//!
//! After "The SPIFFE Workload API", X.509-SVID profile. An answer is a stream that stays open: the agent sends again when a
//! certificate is about to end or a CA changes. Reading takes what has come since; a stream that broke is begun anew.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use futures_util::{FutureExt as _, Stream, StreamExt as _};
use spiffe::transport::{Endpoint, TransportError};
use spiffe::{WorkloadApiClient, WorkloadApiError, X509Context, X509Svid};
use zeroize::Zeroizing;

use super::secret_document::SecretDocument;
use super::source_client::FetchedSecret;
use super::source_problem::{SourcePart, SourceProblem};
use super::source_settings::{SecretName, digest_of};
use crate::base::pem_section::{CERTIFICATE, PRIVATE_KEY, pem_text};

/// The name of the identity that the Workload API gives first.
pub const DEFAULT_SVID: &str = "default";
/// The field with the CAs of the trust domain, as PEM.
pub const SVID_BUNDLE: &str = "bundle";
/// The field with the certificate and its chain, as PEM.
pub const SVID_CERTIFICATES: &str = "certificates";
/// The field with the private key, as PEM.
pub const SVID_KEY: &str = "key";

/// So many identities are told to a person at most.
const TOLD_IDENTITIES: usize = 8;

/// The settings of a Workload API.
#[derive(Clone, Debug)]
pub struct SpiffeSettings {
    /// The path of its Unix socket.
    pub socket: PathBuf,
}

impl SpiffeSettings {
    pub(super) fn digest(&self) -> [u8; 32] {
        digest_of(&[&self.socket.display().to_string()])
    }
}

/// The answers of a Workload API as they come.
type Updates = Pin<Box<dyn Stream<Item = Result<X509Context, WorkloadApiError>> + Send>>;

/// A client of the Workload API of an agent.
pub(super) struct SpiffeClient {
    settings: SpiffeSettings,
    /// The open stream, and the last that came of it.
    open: Option<(Updates, X509Context)>,
}

impl SpiffeClient {
    pub(super) const fn new(settings: SpiffeSettings) -> Self {
        Self { settings, open: None }
    }

    /// Reads an identity as it is now.
    pub(super) async fn read(&mut self, name: &SecretName) -> Result<FetchedSecret, SourceProblem> {
        let (updates, last) = match self.open.take().and_then(caught_up) {
            Some(open) => open,
            None => self.begin().await.map_err(|error| problem(&error, &self.settings.socket))?,
        };
        let document = document(&last, &name.name);
        self.open = Some((updates, last));
        Ok(FetchedSecret { document: document?, lease: None })
    }

    /// Connects, and waits for the first answer.
    async fn begin(&self) -> Result<(Updates, X509Context), WorkloadApiError> {
        let client = WorkloadApiClient::connect(Endpoint::Unix(self.settings.socket.clone())).await?;
        let mut updates: Updates = Box::pin(client.stream_x509_contexts().await?);
        let first = updates.next().await.unwrap_or(Err(WorkloadApiError::EmptyResponse))?;
        Ok((updates, first))
    }
}

/// Takes what has come of a stream; `None`: it has ended.
fn caught_up((mut updates, mut last): (Updates, X509Context)) -> Option<(Updates, X509Context)> {
    while let Some(update) = updates.next().now_or_never() {
        last = update?.ok()?;
    }
    Some((updates, last))
}

/// The identity of this name, as PEM.
fn document(context: &X509Context, name: &str) -> Result<SecretDocument, SourceProblem> {
    let svids = context.svids();
    let found = match name {
        DEFAULT_SVID => svids.first(),
        id => svids.iter().find(|svid| svid.spiffe_id().to_string() == id),
    };
    let Some(svid) = found else {
        let what = "the Workload API does not give this identity to this process";
        return Err(SourceProblem::new(SourcePart::Secret, what, given(svids)));
    };
    let bundle = context.bundle_set().get(svid.spiffe_id().trust_domain());
    let authorities = bundle.as_ref().map(|bundle| bundle.authorities()).unwrap_or_default();
    let certificates = |all: &[spiffe::Certificate]| -> Vec<u8> {
        all.iter().flat_map(|one| pem_text(CERTIFICATE, one.as_bytes()).as_bytes().to_vec()).collect()
    };
    let key: Zeroizing<String> = pem_text(PRIVATE_KEY, svid.private_key().as_bytes());
    Ok(SecretDocument::of_fields([
        (SVID_BUNDLE.to_owned(), Some(certificates(authorities))),
        (SVID_CERTIFICATES.to_owned(), Some(certificates(svid.cert_chain()))),
        (SVID_KEY.to_owned(), Some(key.as_bytes().to_vec())),
    ]))
}

/// The identities that are given, for a person. Their characters are those of SPIFFE IDs.
fn given(svids: &[Arc<X509Svid>]) -> String {
    let names: Vec<_> = svids.iter().take(TOLD_IDENTITIES).map(|svid| format!("`{}`", svid.spiffe_id())).collect();
    format!("it gives {}; see the entries of the server", names.join(", "))
}

/// Says what is wrong. Texts that the other side wrote are left out.
fn problem(error: &WorkloadApiError, socket: &Path) -> SourceProblem {
    let shown = socket.display();
    let what = match error {
        WorkloadApiError::NoIdentityIssued | WorkloadApiError::PermissionDenied(_) => {
            let what = "the Workload API has no identity for this process";
            let cure = "see that an entry of the server has selectors that fit its user, its path or its pod";
            return SourceProblem::new(SourcePart::Credentials, what, cure);
        }
        WorkloadApiError::Transport(TransportError::Status(status)) => {
            format!("the Workload API at `{shown}` answers `{}`", status.code())
        }
        WorkloadApiError::Transport(error) => {
            format!("the Workload API at `{shown}` does not answer: {}", cause(error))
        }
        WorkloadApiError::EmptyResponse => format!("the Workload API at `{shown}` ends its answer before it begins"),
        WorkloadApiError::MissingRequiredField { field } | WorkloadApiError::InvalidResponseField { field } => {
            format!("the answer of the Workload API has no proper `{field}`")
        }
        _ => "the answer of the Workload API breaks the rules of X.509-SVID".to_owned(),
    };
    SourceProblem::server(
        what,
        "see that `address` names the socket of an agent that runs, and that this user may open it",
    )
}

/// The error of the system behind one of the connection.
fn cause(error: &TransportError) -> io::ErrorKind {
    let mut next: Option<&(dyn Error + 'static)> = error.source();
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return error.kind();
        }
        next = error.source();
    }
    io::ErrorKind::ConnectionAborted
}
