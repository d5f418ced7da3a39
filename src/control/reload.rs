//! The configuration that holds now, and the way to the next one.
//!
//! A reload reads the config anew and then either replaces the whole world or changes nothing: whoever holds a
//! [`Snapshot`] holds a right one, and the last outcome, a refusal with its reason included, stays to be seen until the
//! next reload.

use std::fmt;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};

use crate::config::Snapshot;

/// How the last reload, or the start, went.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Reloaded {
    /// When, in milliseconds since 1970.
    pub at: u64,
    /// Who wanted it: `start`, `signal`, `files`, or `admin` and the name of the token that was shown.
    pub by: Arc<str>,
    /// The digest of the config that holds since then.
    pub digest: Arc<str>,
    /// What came of it.
    pub outcome: ReloadOutcome,
}

/// What came of a reload.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ReloadOutcome {
    /// The new config holds. What differs from the one before, one change a line, without secrets; none: nothing does.
    Applied(Arc<[String]>),
    /// The old config goes on. What is wrong with the new one, for a person to read; no secrets.
    Refused(Arc<str>),
}

impl ReloadOutcome {
    /// Whether the config on the disk is the one that holds.
    pub const fn is_applied(&self) -> bool {
        matches!(self, ReloadOutcome::Applied(_))
    }
}

/// What is read anew.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ReloadScope {
    /// Everything.
    Everything,
    /// Certificates, keys and secrets; the config's own text counts as it was read last.
    Secrets,
}

/// What is asked of the one who reloads.
pub struct ReloadRequest {
    /// What is read anew.
    pub scope: ReloadScope,
    /// Who asks.
    pub by: Arc<str>,
    /// Where the answer goes; whoever hangs up is not waited for.
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
    /// Wishes, in order.
    pub asks: mpsc::UnboundedReceiver<ReloadRequest>,
    /// Where a new config is told.
    pub current: watch::Sender<Arc<Snapshot>>,
    /// Where an outcome is told.
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

    /// How the last reload went.
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
