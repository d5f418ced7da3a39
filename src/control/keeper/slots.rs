//! The bound on fetches in progress at a time, over all keys.
//!
//! A key has one fetch at most, but there may be thousands of keys: one for each value of a route's variable. Each
//! fetch is a connection of its own, so their number is bounded, and fetches over the bound wait in a queue, first
//! come, first served. A provider may have no more than its share in progress, so a provider that hangs does not keep
//! the others waiting. The time in the queue is part of a fetch's deadline: a request waits no longer because of it.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The slots of all providers.
pub(super) struct FetchSlots {
    all: Arc<Semaphore>,
    share: usize,
    providers: HashMap<Arc<str>, Arc<Semaphore>>,
}

/// A place in both queues: that of the provider, and that of all.
pub(super) struct Queued {
    provider: Arc<Semaphore>,
    all: Arc<Semaphore>,
}

/// Leave to fetch, given back when it is dropped.
pub(super) struct FetchSlot {
    _provider: Option<OwnedSemaphorePermit>,
    _all: Option<OwnedSemaphorePermit>,
}

impl FetchSlots {
    /// So many slots, of which a provider may have `share`.
    pub(super) fn new(all: usize, share: usize) -> Self {
        let bounded = |slots: usize| slots.clamp(1, Semaphore::MAX_PERMITS);
        Self { all: Arc::new(Semaphore::new(bounded(all))), share: bounded(share), providers: HashMap::new() }
    }

    /// A place in the queues for a fetch from this provider.
    pub(super) fn queue(&mut self, provider: &Arc<str>) -> Queued {
        let share = self.share;
        let provider =
            self.providers.entry(Arc::clone(provider)).or_insert_with(|| Arc::new(Semaphore::new(share))).clone();
        Queued { provider, all: Arc::clone(&self.all) }
    }
}

impl Queued {
    /// Waits for a slot of the provider, then for one of all slots.
    pub(super) async fn slot(self) -> FetchSlot {
        // The provider's first: to wait for that while holding one of all would take it from the others. No semaphore is
        // ever closed.
        let provider = self.provider.acquire_owned().await.ok();
        let all = self.all.acquire_owned().await.ok();
        FetchSlot { _provider: provider, _all: all }
    }
}
