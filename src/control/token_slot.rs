//! The place of one key's current lease: read by every worker without a lock, written by the keeper alone.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::{ArcSwapOption, Guard};

use crate::base::time::Now;
use crate::token::lease::Lease;

/// The place of one key's lease. A worker that was issued a lease keeps its slot and looks there first next time.
///
/// Once the keeper forgets the key the slot is *retired*: it stays empty for ever, and its holders should ask the
/// keeper again and take the new one.
#[derive(Default)]
pub struct TokenSlot {
    lease: ArcSwapOption<Lease>,
    /// Boot-clock second of the last use. A stamp, not a synchronisation: relaxed, and only written when it changes,
    /// so that a busy key does not bounce a cache line between workers more than once a second.
    last_used: AtomicU64,
    retired: AtomicBool,
    /// The newest generation that a worker saw refused.
    refused: AtomicU64,
}

impl TokenSlot {
    /// The lease that may be sent at `now`: one atomic load, one comparison, one clone. `None`: ask the keeper.
    #[inline]
    pub fn take(&self, now: Now) -> Option<Arc<Lease>> {
        self.read(now, Arc::clone)
    }

    /// Like [`TokenSlot::take`], but lends the lease instead of cloning it: no shared counter is touched. Keep `look`
    /// short; a long one only slows the keeper's next publication down.
    #[inline]
    pub fn read<R>(&self, now: Now, look: impl FnOnce(&Arc<Lease>) -> R) -> Option<R> {
        let guard = self.lease.load();
        let lease = guard.as_ref()?;
        if !lease.valid(now) || lease.generation <= self.refused.load(Ordering::Acquire) {
            return None;
        }
        self.stamp(now);
        Some(look(lease))
    }

    /// Like [`TokenSlot::take`], but does not count as a use: what lies here is to be used up, not renewed.
    pub fn cached(&self, now: Now) -> Option<Arc<Lease>> {
        let lease = self.lease.load_full()?;
        (lease.valid(now) && lease.generation > self.refused.load(Ordering::Acquire)).then_some(lease)
    }

    /// This generation was refused: from now on no worker takes it, even before the keeper withdraws it.
    ///
    /// Tell the keeper first: who finds the shelf empty asks it, and it must have heard by then.
    pub fn distrust(&self, generation: u64) {
        self.refused.fetch_max(generation, Ordering::AcqRel);
    }

    /// Returns whether this generation may still be sent, as far as is known here: no worker saw it refused, and the
    /// keeper has not taken the key out of use. A newer generation in the slot does not matter.
    #[inline]
    pub fn bears(&self, generation: u64) -> bool {
        generation > self.refused.load(Ordering::Acquire) && self.lease.load().is_some()
    }

    /// Returns the current lease, valid or not, without counting as a use.
    pub fn load(&self) -> Guard<Option<Arc<Lease>>> {
        self.lease.load()
    }

    /// Returns whether the keeper has forgotten the key; then no lease will ever be stored here again.
    pub fn retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }

    #[inline]
    pub(super) fn stamp(&self, now: Now) {
        let second = now.boot / 1000;
        if self.last_used.load(Ordering::Relaxed) != second {
            self.last_used.store(second, Ordering::Relaxed);
        }
    }

    /// Boot-clock second of the last use.
    pub(super) fn last_used(&self) -> u64 {
        self.last_used.load(Ordering::Relaxed)
    }

    pub(super) fn put(&self, lease: Option<Arc<Lease>>) {
        self.lease.store(lease);
    }

    pub(super) fn retire(&self) {
        self.retired.store(true, Ordering::Release);
        self.lease.store(None);
    }
}

impl fmt::Debug for TokenSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenSlot")
            .field("lease", &*self.lease.load())
            .field("retired", &self.retired())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod model;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::base::secret::Fingerprint;
    use crate::base::time::Deadline;
    use crate::token::key::KeyBuilder;
    use crate::token::lease::LeaseTrial;

    #[test]
    fn a_refused_generation_is_not_taken_again_and_its_successor_is() {
        let now = Now::at(5_000, 1_000_000);
        let lease = |generation| {
            Some(Arc::new(Lease {
                key: KeyBuilder::new("bank").finish(),
                generation,
                credentials: Box::default(),
                issued: now,
                expires: Deadline::after(now, Duration::from_secs(10)),
                fingerprint: Fingerprint::of(b"token"),
                trial: LeaseTrial::default(),
            }))
        };
        let token_slot = TokenSlot::default();
        token_slot.put(lease(2));
        token_slot.distrust(1);
        assert!(token_slot.take(now).is_some(), "late news");
        token_slot.distrust(2);
        assert!(token_slot.take(now).is_none());
        assert!(!token_slot.bears(2));
        token_slot.put(lease(3));
        assert_eq!(token_slot.take(now).map(|lease| lease.generation), Some(3));
        assert!(token_slot.bears(3) && !token_slot.bears(2));
        token_slot.put(None);
        assert!(!token_slot.bears(3), "taken out of use");
    }

    #[test]
    fn a_shelf_gives_only_what_may_be_sent_and_notes_the_use() {
        let start = Now::at(5_000, 1_000_000);
        let token_slot = TokenSlot::default();
        assert!(token_slot.take(start).is_none());
        token_slot.put(Some(Arc::new(Lease {
            key: KeyBuilder::new("bank").finish(),
            generation: 1,
            credentials: Box::default(),
            issued: start,
            expires: Deadline::after(start, Duration::from_secs(10)),
            fingerprint: Fingerprint::of(b"token"),
            trial: LeaseTrial::default(),
        })));
        let later = start.plus(Duration::from_secs(3));
        assert_eq!(token_slot.take(later).map(|lease| lease.generation), Some(1));
        assert_eq!(token_slot.last_used(), 8);
        let dead = start.plus(Duration::from_secs(10));
        assert!(token_slot.take(dead).is_none());
        assert!(token_slot.take(Now::at(0, dead.wall)).is_none(), "either clock kills it");
        assert_eq!(token_slot.last_used(), 8, "a miss is no use");
        token_slot.retire();
        assert!(token_slot.retired() && token_slot.take(start).is_none());
    }
}
