//! The public keys of the issuers of clients' tokens: fetched here, read by workers without a lock.
//!
//! A worker never fetches. It reads the keys in a slot, and requests newer keys if these are old or do not include the
//! signer's key; a worker that asks while a fetch is in progress waits for that fetch. If an issuer cannot be reached,
//! its own clients remain unidentified, and no others.
//!
//! Slots are keyed by a digest of the issuer's settings, so a reload that does not change those settings keeps the
//! keys.

mod fetch;
mod keys;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::{mpsc, watch};

use crate::base::time::{Clock, Now, millis};
use crate::config::Issuer;

pub use fetch::{fetch as try_keys, place as issuer_place};
pub use keys::{KeySet, Signature};

/// Keys are asked for anew in the background from this age on.
const STALE: Duration = Duration::from_secs(5 * 60);
/// Keys of this age serve only while the issuer cannot be reached.
const OLD: Duration = Duration::from_secs(10 * 60);
/// Keys of this age do not serve at all.
const DEAD: Duration = Duration::from_secs(60 * 60);
/// After a fetch, an issuer is left alone for this long.
const REST: Duration = Duration::from_secs(30);
/// The same after a fetch that failed when there were no keys at all.
const SHORT_REST: Duration = Duration::from_secs(5);
/// Maximum time for which a request waits for a fetch.
const PATIENCE: Duration = Duration::from_secs(10);

/// Keys, and when they were fetched.
#[derive(Debug)]
pub struct CachedKeys {
    /// The issuer's public keys, as last fetched.
    pub keys: KeySet,
    at: Now,
}

/// The place of one issuer's keys.
struct KeySlot {
    held: ArcSwapOption<CachedKeys>,
    /// No fetch begins before this reading of the boot clock, in milliseconds.
    rest_until: AtomicU64,
    /// True while a fetch is in progress.
    busy: watch::Sender<bool>,
}

/// A fetch under way. Its end, a panic included, lets the next one begin after a rest.
struct Attempt<'a> {
    slot: &'a KeySlot,
    clock: &'a Clock,
    rest: Duration,
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        let until = self.clock.now().boot.saturating_add(millis(self.rest));
        self.slot.rest_until.store(until, Ordering::Relaxed);
        self.slot.busy.send_replace(false);
    }
}

/// A worker's word to the control thread: fetch this.
struct Wanted {
    issuer: Arc<Issuer>,
    slot: Arc<KeySlot>,
}

/// The workers' end. Cheap to clone.
#[derive(Clone)]
pub struct Issuers(Arc<IssuerCache>);

struct IssuerCache {
    slots: ArcSwap<HashMap<[u8; 32], Arc<KeySlot>>>,
    wanted: mpsc::UnboundedSender<Wanted>,
}

/// The control thread's end, which receives the workers' requests and fetches the keys.
pub struct Fetcher {
    wanted: mpsc::UnboundedReceiver<Wanted>,
    clock: Clock,
}

impl Issuers {
    /// Creates both ends. No keys are fetched until [`Fetcher::run`] runs.
    pub fn open(clock: Clock) -> (Self, Fetcher) {
        // No bound is needed: an issuer has at most one message under way.
        let (sender, wanted) = mpsc::unbounded_channel();
        (Self(Arc::new(IssuerCache { slots: ArcSwap::default(), wanted: sender })), Fetcher { wanted, clock })
    }

    /// The keys of an issuer, if they are young enough; asks for newer ones in time. No lock, no waiting.
    pub fn keys(&self, issuer: &Arc<Issuer>, now: Now) -> Option<Arc<CachedKeys>> {
        let slot = self.slot(issuer);
        let held = slot.held.load_full()?;
        let age = now.since(held.at);
        if age >= STALE {
            self.start(issuer, &slot, now);
        }
        (age < OLD).then_some(held)
    }

    /// Newer keys than `than`, if they can be had now: waits for a fetch that is under way, or that may begin. Falls
    /// back on old keys where the issuer cannot be reached.
    pub async fn newer(
        &self,
        issuer: &Arc<Issuer>,
        than: Option<&Arc<CachedKeys>>,
        now: Now,
    ) -> Option<Arc<CachedKeys>> {
        let slot = self.slot(issuer);
        let mut busy = slot.busy.subscribe();
        if *busy.borrow() || self.start(issuer, &slot, now) {
            let _ = tokio::time::timeout(PATIENCE, busy.wait_for(|busy| !busy)).await;
        }
        let held = slot.held.load_full().filter(|held| now.since(held.at) < DEAD)?;
        than.is_none_or(|known| !Arc::ptr_eq(known, &held)).then_some(held)
    }

    /// Starts fetching the keys of those issuers that have none yet, so that no request has to wait for them later.
    pub fn prepare(&self, issuers: &[Arc<Issuer>], now: Now) {
        for issuer in issuers {
            let slot = self.slot(issuer);
            if slot.held.load().is_none() {
                self.start(issuer, &slot, now);
            }
        }
    }

    fn slot(&self, issuer: &Arc<Issuer>) -> Arc<KeySlot> {
        if let Some(slot) = self.0.slots.load().get(&issuer.id) {
            return slot.clone();
        }
        let new = Arc::new(KeySlot {
            held: ArcSwapOption::empty(),
            rest_until: AtomicU64::new(0),
            busy: watch::Sender::new(false),
        });
        self.0.slots.rcu(|slots| {
            let mut slots = HashMap::clone(slots);
            slots.entry(issuer.id).or_insert_with(|| new.clone());
            slots
        });
        self.0.slots.load().get(&issuer.id).cloned().unwrap_or(new)
    }

    /// Begins a fetch, unless one is under way or the issuer is being left alone. Says whether it did.
    fn start(&self, issuer: &Arc<Issuer>, slot: &Arc<KeySlot>, now: Now) -> bool {
        if now.boot < slot.rest_until.load(Ordering::Relaxed) {
            return false;
        }
        let begun = slot.busy.send_if_modified(|busy| !std::mem::replace(busy, true));
        if begun && self.0.wanted.send(Wanted { issuer: issuer.clone(), slot: slot.clone() }).is_err() {
            // The control thread has ended, and so will we.
            slot.busy.send_replace(false);
        }
        begun
    }
}

impl fmt::Debug for Issuers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Issuers")
    }
}

impl Fetcher {
    /// Fetches what is wanted, each issuer in a task of its own, on the calling thread's local runtime.
    pub async fn run(mut self) {
        while let Some(Wanted { issuer, slot }) = self.wanted.recv().await {
            let clock = self.clock.clone();
            tokio::task::spawn_local(async move {
                let mut attempt = Attempt { slot: &slot, clock: &clock, rest: SHORT_REST };
                let outcome = fetch::fetch(&issuer, clock.now()).await;
                let at = clock.now();
                let failed_without = outcome.is_err() && slot.held.load().is_none();
                match outcome {
                    Ok(keys) => {
                        tracing::info!(issuer = %issuer.name, keys = keys.len(), "the issuer's keys were fetched");
                        slot.held.store(Some(Arc::new(CachedKeys { keys, at })));
                    }
                    Err(error) => {
                        tracing::warn!(issuer = %issuer.name, %error, "the issuer's keys cannot be fetched; its clients may be refused");
                    }
                }
                if !failed_without {
                    attempt.rest = REST;
                }
            });
        }
    }
}

impl fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fetcher")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::ManualClock;

    #[test]
    fn a_fetch_that_panics_lets_the_next_one_begin() {
        let manual = ManualClock::at(Now::at(1_000_000, 1_700_000_000_000));
        let clock = Clock::Manual(manual.clone());
        let slot =
            KeySlot { held: ArcSwapOption::empty(), rest_until: AtomicU64::new(0), busy: watch::Sender::new(true) };
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _attempt = Attempt { slot: &slot, clock: &clock, rest: SHORT_REST };
            panic!("a bug of ours");
        }));
        assert!(panicked.is_err() && !*slot.busy.borrow());
        assert_eq!(slot.rest_until.load(Ordering::Relaxed), 1_005_000);
    }
}
