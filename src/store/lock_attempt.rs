//! An attempt to take a lock, which leaves nothing behind when it is given up.

use std::cell::Cell;
use std::time::Duration;

use super::changes::{Claim, Lock};
use super::error::Error;
use super::front::Store;
use super::record::RecordKey;

/// An attempt to take a lock, which may be repeated after an error: a lock that was granted to it is granted again.
///
/// An answer may get lost, and then the lock may have been granted without anybody knowing. An attempt that is dropped
/// with such an answer outstanding gives the lock back: otherwise nobody would have it until its lease is over.
#[derive(Debug)]
pub struct LockAttempt {
    store: Store,
    claim: Claim,
    lease: Duration,
    /// True from a question that may have been granted until the lock is in a caller's hands.
    may_be_granted: Cell<bool>,
}

impl LockAttempt {
    pub(super) fn new(store: Store, key: RecordKey, lease: Duration, number: u64) -> Self {
        Self { store, claim: Claim { key, number }, lease, may_be_granted: Cell::new(false) }
    }

    /// Takes the lock, or returns `None` while another holds it.
    pub async fn take(&self) -> Result<Option<Lock>, Error> {
        let before = self.may_be_granted.replace(true);
        let taken = self.store.take_lock(&self.claim, self.lease).await;
        match &taken {
            Ok(Some(_)) => self.may_be_granted.set(false),
            // What was asked before this may still arrive.
            Ok(None) => self.may_be_granted.set(before),
            Err(_) => {}
        }
        taken
    }
}

impl Drop for LockAttempt {
    fn drop(&mut self) {
        if self.may_be_granted.get() {
            self.store.leave_lock(&self.claim);
        }
    }
}
