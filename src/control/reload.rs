//! The current configuration, and the way to the next one.
//!
//! A reload reads the config again and then either replaces the whole snapshot or changes nothing: every holder of a
//! [`Snapshot`] holds a valid one. The last outcome, including a refusal with its reason, stays available until the
//! next reload.

use std::fmt;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};

use crate::config::Snapshot;

/// The outcome of the last reload, or of the start.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Reloaded {
    /// When, in milliseconds since 1970.
    pub at: u64,
    /// Initiator of the reload: `start`, `signal`, `files`, or `admin` and the name of the token that was presented.
    pub by: Arc<str>,
    /// The digest of the config that holds since then.
    pub digest: Arc<str>,
    /// Result of the reload: applied, or refused with the reason.
    pub outcome: ReloadOutcome,
}

/// The result of a reload.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ReloadOutcome {
    /// The new config is in force. Lists the differences from the previous one, one change a line, without secrets;
    /// empty if there are none.
    Applied(Arc<[String]>),
    /// The old config stays in force. Describes the errors in the new one, for a person to read, without secrets.
    Refused(Arc<str>),
}

impl ReloadOutcome {
    /// Returns whether the config on the disk is the one in force.
    pub const fn is_applied(&self) -> bool {
        matches!(self, ReloadOutcome::Applied(_))
    }
}

/// The part of the configuration that is read again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ReloadScope {
    /// The config's text, and its certificates, keys and secrets.
    Everything,
    /// Certificates, keys and secrets; the config's own text counts as it was read last.
    Secrets,
}

/// A request for a reload.
pub struct ReloadRequest {
    /// Part of the configuration to read again.
    pub scope: ReloadScope,
    /// Initiator of the reload, as in [`Reloaded::by`].
    pub by: Arc<str>,
    /// Sender for the result. A caller that hangs up is not waited for.
    pub answer: oneshot::Sender<Reloaded>,
}

/// The config in force, and reloads. Cheap to clone.
#[derive(Clone)]
pub struct Reloads {
    asks: mpsc::UnboundedSender<ReloadRequest>,
    current: watch::Receiver<Arc<Snapshot>>,
    last: watch::Receiver<Arc<Reloaded>>,
}

/// The end that reloads are done at.
pub struct Reloading {
    /// Requests for reloads, in order of arrival.
    pub asks: mpsc::UnboundedReceiver<ReloadRequest>,
    /// Sender that publishes each new config.
    pub current: watch::Sender<Arc<Snapshot>>,
    /// Sender that publishes each reload's outcome.
    pub last: watch::Sender<Arc<Reloaded>>,
}

impl Reloads {
    /// The two ends, from the config that the process starts with, at `at` (milliseconds since 1970).
    pub fn open(snapshot: Arc<Snapshot>, at: u64) -> (Self, Reloading) {
        let first = Reloaded {
            at,
            by: "start".into(),
            digest: snapshot.digest.as_str().into(),
            outcome: ReloadOutcome::Applied(Arc::default()),
        };
        let (ask, asks) = mpsc::unbounded_channel();
        let (told, current) = watch::channel(snapshot);
        let (tell, last) = watch::channel(Arc::new(first));
        (Self { asks: ask, current, last }, Reloading { asks, current: told, last: tell })
    }

    /// The config that holds now. Not for a request's path: it takes a lock.
    pub fn current(&self) -> Arc<Snapshot> {
        self.current.borrow().clone()
    }

    /// Tells of every new config.
    pub fn news(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.current.clone()
    }

    /// Returns the outcome of the last reload.
    pub fn last(&self) -> Arc<Reloaded> {
        self.last.borrow().clone()
    }

    /// Tells of every reload, refused ones too.
    pub fn outcomes(&self) -> watch::Receiver<Arc<Reloaded>> {
        self.last.clone()
    }

    /// Reads the config anew and waits for what comes of it. `None`: the process is ending.
    pub async fn reload(&self, by: &str) -> Option<Reloaded> {
        self.read(ReloadScope::Everything, by).await
    }

    /// Reads this much anew and waits for what comes of it. `None`: the process is ending.
    pub async fn read(&self, scope: ReloadScope, by: &str) -> Option<Reloaded> {
        let (answer, waiting) = oneshot::channel();
        self.asks.send(ReloadRequest { scope, by: by.into(), answer }).ok()?;
        waiting.await.ok()
    }
}

impl fmt::Debug for Reloads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reloads")
    }
}

impl fmt::Debug for Reloading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reloading")
    }
}
