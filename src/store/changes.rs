//! Locks and wake-ups within one process; and how wake-ups look wherever they come from.

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::record::{RecordKey, RecordName};
use crate::base::time::Now;

/// So many wake-ups may wait for a slow listener; then it is told to look at everything.
const WAITING: usize = 1024;

/// A lock that is held until it is given back or its time is over. Clones are the same lock.
#[derive(Clone, Debug)]
#[must_use = "give it back with `unlock`, or others wait until its time is over"]
pub struct Lock {
    pub(super) claim: Claim,
    /// The fencing number, larger than that of every lock granted before on this key.
    pub fence: u64,
}

/// Whose a lock is: what it is for, and a number that its holder drew at random.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Claim {
    pub(super) key: RecordKey,
    pub(super) number: u64,
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
    /// The fence of each lock, and the boot-clock millisecond at which it ends: whoever sets the wall clock ends none.
    held: HashMap<RecordKey, (u64, u64)>,
    last: u64,
}

impl Locks {
    pub(super) fn lock(&mut self, claim: &Claim, lease: Duration, now: Now) -> Option<Lock> {
        self.held.retain(|_, (_, until)| now.boot < *until);
        if self.held.contains_key(&claim.key) {
            return None;
        }
        // The clock keeps numbers growing over restarts.
        self.last = (self.last + 1).max(now.wall.saturating_mul(1000));
        self.held.insert(claim.key.clone(), (self.last, now.plus(lease).boot));
        Some(Lock { claim: claim.clone(), fence: self.last })
    }

    pub(super) fn unlock(&mut self, lock: &Lock, now: Now) -> bool {
        let key = &lock.claim.key;
        let ours = self.held.get(key).is_some_and(|(fence, until)| *fence == lock.fence && now.boot < *until);
        if ours {
            self.held.remove(key);
        }
        ours
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_within_the_process_lasts_by_the_boot_clock_alone() {
        let (mut locks, key) = (Locks::default(), Claim { key: RecordKey::from("alice"), number: 1 });
        let lock = locks.lock(&key, Duration::from_secs(50), Now::at(1_000, 1_700_000_000_000)).unwrap();
        // The wall clock is set ahead by an hour.
        let ahead = Now::at(2_000, 1_700_003_600_000);
        assert!(locks.lock(&key, Duration::from_secs(50), ahead).is_none());
        assert!(locks.unlock(&lock, ahead));
        let next = locks.lock(&key, Duration::from_secs(50), ahead).unwrap();
        assert!(next.fence > lock.fence);
        assert!(locks.lock(&key, Duration::from_secs(50), Now::at(52_000, 1_700_000_000_000)).is_some(), "it is over");
        assert!(!locks.unlock(&next, Now::at(52_001, 1_700_000_000_000)), "the lock is another's by now");
    }
}
