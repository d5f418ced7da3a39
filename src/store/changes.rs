//! Locks and wake-ups within one process; and how wake-ups look wherever they come from.

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::record::{RecordKey, RecordName};
use crate::base::time::{Deadline, Now};

/// So many wake-ups may wait for a slow listener; then it is told to look at everything.
const WAITING: usize = 1024;

/// A lock that is held until it is given back or its time is over. Clones are the same lock.
#[derive(Clone, Debug)]
#[must_use = "give it back with `unlock`, or others wait until its time is over"]
pub struct Lock {
    pub(super) key: RecordKey,
    /// The fencing number, larger than that of every lock granted before, on any key.
    pub fence: u64,
}

/// A notification that [`Changes`] delivers.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Change {
    /// Some news may have been missed: look at everything. Told whenever a connection was (re)made, for news or for
    /// records.
    Everything,
    /// This record was announced, perhaps by ourselves.
    Record(RecordName),
}

/// A subscription to the announcements of changed records.
#[derive(Debug)]
pub struct Changes(broadcast::Receiver<Change>);

impl Changes {
    /// The next news. May be dropped and called again at any time. Waits for ever once the store is gone.
    pub async fn next(&mut self) -> Change {
        match self.0.recv().await {
            Ok(change) => change,
            Err(RecvError::Lagged(_)) => Change::Everything,
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// The sender of changes to all listeners in this process.
#[derive(Clone, Debug)]
pub(super) struct ChangeNotifier(broadcast::Sender<Change>);

impl Default for ChangeNotifier {
    fn default() -> Self {
        Self(broadcast::Sender::new(WAITING))
    }
}

impl ChangeNotifier {
    pub(super) fn notify(&self, change: Change) {
        // A send fails only if there is no listener, which is no error.
        let _ = self.0.send(change);
    }

    pub(super) fn listen(&self) -> Changes {
        Changes(self.0.subscribe())
    }
}

/// Locks among the tasks of one process.
#[derive(Debug, Default)]
pub(super) struct Locks {
    held: HashMap<RecordKey, (u64, Deadline)>,
    last: u64,
}

impl Locks {
    pub(super) fn lock(&mut self, key: &RecordKey, lease: Duration, now: Now) -> Option<Lock> {
        self.held.retain(|_, (_, until)| !until.passed(now));
        if self.held.contains_key(key) {
            return None;
        }
        // The clock keeps numbers growing over restarts.
        self.last = (self.last + 1).max(now.wall.saturating_mul(1000));
        self.held.insert(key.clone(), (self.last, Deadline::after(now, lease)));
        Some(Lock { key: key.clone(), fence: self.last })
    }

    pub(super) fn unlock(&mut self, lock: &Lock, now: Now) -> bool {
        let ours = self.held.get(&lock.key).is_some_and(|(fence, until)| *fence == lock.fence && !until.passed(now));
        if ours {
            self.held.remove(&lock.key);
        }
        ours
    }
}
