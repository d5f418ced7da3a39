//! A source of secrets, as the config and its watcher use it.

use std::collections::HashMap;
use std::fmt;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;

use super::secret_document::SecretDocument;
use super::source_problem::SourceProblem;
use super::source_settings::{SecretName, SourceKind, SourceSettings};
use super::source_task::SourceTask;
use super::vault_answer::SecretLease;
use super::vault_client::renewal_after;
use crate::base::time::{Clock, Now};

/// More questions than this do not wait.
const MOST_WAITING: usize = 256;

/// The use that is made of a secret.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ReadPurpose {
    /// A config is read. A lease that lives is kept, and a source that fails gives the last good value.
    Config,
    /// The watcher looks whether there is another value. A lease is renewed, and a failure is told.
    Look,
}

/// A server that keeps secrets. It is asked on a thread of its own.
pub struct SecretSource {
    jobs: mpsc::Sender<SourceJob>,
    state: Arc<SourceState>,
}

/// The state that a source shares with its task.
pub(super) struct SourceState {
    pub(super) name: String,
    pub(super) kind: SourceKind,
    pub(super) clock: Clock,
    timeout: Duration,
    known: Mutex<HashMap<SecretName, KnownSecret>>,
}

/// A secret that was read once at least.
pub(super) struct KnownSecret {
    pub(super) document: Arc<SecretDocument>,
    pub(super) lease: Option<KnownLease>,
    /// The last problem, and when it began.
    failure: Option<(SourceProblem, Now)>,
}

/// A lease, and its renewal.
#[derive(Clone)]
pub(super) struct KnownLease {
    pub(super) lease: SecretLease,
    pub(super) first_life: Duration,
    pub(super) renew_at: Now,
    /// Number of the session that it belongs to.
    session: u64,
}

impl KnownLease {
    pub(super) fn new(lease: SecretLease, first_life: Option<Duration>, session: u64, now: Now) -> Self {
        let renew_at = now.plus(renewal_after(lease.life));
        Self { first_life: first_life.unwrap_or(lease.life), renew_at, session, lease }
    }

    /// Returns whether it needs no renewal yet.
    pub(super) fn lasts(&self, session: u64, now: Now) -> bool {
        self.is_of(session) && !self.renew_at.since(now).is_zero()
    }

    /// Returns whether the session that it belongs to is this one.
    pub(super) const fn is_of(&self, session: u64) -> bool {
        self.session == session
    }
}

/// The state of a source for the operator.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SourceReport {
    /// Its name in the config.
    pub name: String,
    /// The word of its kind.
    pub kind: &'static str,
    /// Number of secrets that were read.
    pub secrets: usize,
    /// Those of them that could not be read again; their last values are in use.
    pub failing: usize,
    /// The problem of one of them.
    pub failure: Option<String>,
    /// Beginning of the first of the problems.
    pub failing_since: Option<Now>,
}

/// A piece of work for the task of a source.
pub(super) struct SourceJob {
    pub(super) name: SecretName,
    pub(super) purpose: ReadPurpose,
    pub(super) answer: SyncSender<Result<Arc<SecretDocument>, SourceProblem>>,
}

impl SourceState {
    pub(super) fn known(&self) -> MutexGuard<'_, HashMap<SecretName, KnownSecret>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what was read.
    pub(super) fn keep(&self, name: &SecretName, document: Arc<SecretDocument>, lease: Option<KnownLease>) {
        let before = self.known().insert(name.clone(), KnownSecret { document, lease, failure: None });
        if before.is_some_and(|before| before.failure.is_some()) {
            tracing::info!(source = %self.name, secret = %name, "a secret can be read again");
        }
    }

    /// Notes that a secret cannot be read. Returns its last value, if there was one.
    pub(super) fn fail(&self, name: &SecretName, problem: &SourceProblem) -> Option<Arc<SecretDocument>> {
        let mut all = self.known();
        let known = all.get_mut(name)?;
        let since = known.failure.as_ref().map_or_else(|| self.clock.now(), |(_, since)| *since);
        known.failure = Some((problem.clone(), since));
        let document = known.document.clone();
        drop(all);
        tracing::warn!(source = %self.name, secret = %name, %problem, "a secret cannot be read; the last value stays in use");
        Some(document)
    }
}

impl SecretSource {
    pub(super) fn new(settings: SourceSettings) -> (Self, SourceTask) {
        let (jobs, queue) = mpsc::channel(MOST_WAITING);
        let state = Arc::new(SourceState {
            name: settings.name.clone(),
            kind: settings.kind(),
            clock: settings.clock.clone(),
            timeout: settings.timeout,
            known: Mutex::default(),
        });
        (Self { jobs, state: state.clone() }, SourceTask { settings, queue, state })
    }

    /// Reads a secret. Blocks for three times the source's `timeout` at most, if others are being read.
    pub fn read(&self, name: &SecretName, purpose: ReadPurpose) -> Result<Arc<SecretDocument>, SourceProblem> {
        let (answer, told) = sync_channel(1);
        let gone = |what: &str| SourceProblem::server(what, "");
        let job = SourceJob { name: name.clone(), purpose, answer };
        self.jobs.try_send(job).map_err(|_| gone("too many secrets wait for it"))?;
        match told.recv_timeout(self.state.timeout * 3) {
            Ok(told) => told,
            Err(RecvTimeoutError::Timeout) => Err(gone("it does not answer in time")),
            Err(RecvTimeoutError::Disconnected) => Err(gone("the sources of this process have ended")),
        }
    }

    pub fn name(&self) -> &str {
        &self.state.name
    }

    pub fn kind(&self) -> SourceKind {
        self.state.kind
    }

    /// Returns the time until the lease of a secret is to be renewed; `None`: it has no lease.
    pub fn renewal_in(&self, name: &SecretName) -> Option<Duration> {
        let renew_at = self.state.known().get(name)?.lease.as_ref()?.renew_at;
        Some(renew_at.since(self.state.clock.now()))
    }

    /// Returns whether a secret could not be read when it was last asked for.
    pub fn is_failing(&self, name: &SecretName) -> bool {
        self.state.known().get(name).is_some_and(|known| known.failure.is_some())
    }

    pub(super) fn report(&self) -> SourceReport {
        let known = self.state.known();
        let mut failures: Vec<_> = known.values().filter_map(|known| known.failure.as_ref()).collect();
        failures.sort_by_key(|(_, since)| since.boot);
        SourceReport {
            name: self.state.name.clone(),
            kind: self.state.kind.word(),
            secrets: known.len(),
            failing: failures.len(),
            failure: failures.first().map(|(problem, _)| problem.to_string()),
            failing_since: failures.first().map(|(_, since)| *since),
        }
    }
}

impl fmt::Debug for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SecretSource").field(&self.state.name).finish()
    }
}

/// The same source, which is one for each set of settings.
impl PartialEq for SecretSource {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.state, &other.state)
    }
}
