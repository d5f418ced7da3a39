//! The used amount of a bounded resource.

use std::sync::atomic::{AtomicI64, Ordering};

/// The amount of a bounded resource that is in use: connections, buffered bytes. The limit comes with each call, since a
/// reload may change it.
#[derive(Debug, Default)]
pub struct ResourceUsage(AtomicI64);

impl ResourceUsage {
    /// Acquires `amount` if no more than `limit` is in use then. Returns whether it did.
    pub fn try_acquire(&self, amount: u64, limit: u64) -> bool {
        let amount = i64::try_from(amount).unwrap_or(i64::MAX);
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let before = self.0.fetch_add(amount, Ordering::Relaxed);
        let fits = before.checked_add(amount).is_some_and(|after| after <= limit);
        if !fits {
            self.0.fetch_sub(amount, Ordering::Relaxed);
        }
        fits
    }

    /// Releases an `amount` that was acquired before.
    pub fn release(&self, amount: u64) {
        self.0.fetch_sub(i64::try_from(amount).unwrap_or(i64::MAX), Ordering::Relaxed);
    }

    /// Returns the amount in use at this moment.
    pub fn current(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}
