//! The counts of quotas: of this process, or of a store that replicas share.
//!
//! A worker takes requests out of what its process was granted. When that runs low it sends a claim here, and goes on; only
//! where nothing is left does a request wait for the answer. While the store does not answer, each process counts alone.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::base::time::Clock;
use crate::route::{QuotaClaim, QuotaCounters, QuotaKey, QuotaRule, QuotaTurn};
use crate::store::QuotaCall;
use crate::store::Store;

/// A request waits this long for an answer to a claim, and the store has this long for one.
const PATIENCE: Duration = Duration::from_millis(250);
/// Another request's claim is looked at after this long.
const LOOK: Duration = Duration::from_millis(2);

/// The counters of all quotas of a process. They outlive a reload. Clones are the same.
#[derive(Clone)]
pub struct QuotaBook {
    all: Arc<Mutex<HashMap<Arc<str>, Arc<QuotaCounters>>>>,
    claims: mpsc::UnboundedSender<QuotaMessage>,
    is_shared: bool,
}

/// A claim, with the counters that get what is granted.
struct QuotaMessage {
    name: Arc<str>,
    counters: Arc<QuotaCounters>,
    claim: QuotaClaim,
    answer: oneshot::Sender<()>,
}

/// The end at which claims arrive.
pub struct QuotaClaims {
    inbox: mpsc::UnboundedReceiver<QuotaMessage>,
}

/// One quota on its way through a worker.
#[derive(Clone, Debug)]
pub struct CountedQuota {
    /// The quota as the config says it.
    pub rule: Arc<QuotaRule>,
    counters: Arc<QuotaCounters>,
    book: QuotaBook,
}

impl QuotaBook {
    /// Creates both ends. `is_shared`: counts are kept in the store, for all replicas.
    pub fn open(is_shared: bool) -> (Self, QuotaClaims) {
        let (claims, inbox) = mpsc::unbounded_channel();
        (Self { all: Arc::default(), claims, is_shared }, QuotaClaims { inbox })
    }

    /// Returns a quota with its counters.
    pub fn counted(&self, rule: &Arc<QuotaRule>) -> CountedQuota {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let counters =
            all.entry(rule.identity().clone()).or_insert_with(|| Arc::new(QuotaCounters::new(self.is_shared)));
        CountedQuota { rule: rule.clone(), counters: counters.clone(), book: self.clone() }
    }
}

impl fmt::Debug for QuotaBook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuotaBook").field("is_shared", &self.is_shared).finish_non_exhaustive()
    }
}

impl CountedQuota {
    /// Takes a request, or says how long it is until the next window. Waits only where nothing is granted.
    pub async fn take(&self, key: QuotaKey, clock: &Clock) -> Result<(), Duration> {
        let mut patience = PATIENCE;
        loop {
            match self.counters.take(&self.rule, key, clock.now()) {
                QuotaTurn::Refused(left) => return Err(left),
                QuotaTurn::Taken(claim) => {
                    if let Some(claim) = claim {
                        let _nobody_waits = self.send(claim);
                    }
                    return Ok(());
                }
                QuotaTurn::Waits(Some(claim)) => {
                    let answered = tokio::time::timeout(PATIENCE, self.send(claim)).await;
                    if !matches!(answered, Ok(Ok(()))) {
                        self.counters.go_alone(&claim, clock.now());
                    }
                }
                QuotaTurn::Waits(None) => {
                    let Some(left) = patience.checked_sub(LOOK) else { return Err(Duration::from_secs(1)) };
                    patience = left;
                    tokio::time::sleep(LOOK).await;
                }
            }
        }
    }

    /// Gives a request back that was taken and is not made.
    pub fn give_back(&self, key: QuotaKey, clock: &Clock) {
        self.counters.give_back(key, clock.now());
    }

    fn send(&self, claim: QuotaClaim) -> oneshot::Receiver<()> {
        let (answer, answered) = oneshot::channel();
        let (name, counters) = (self.rule.identity().clone(), self.counters.clone());
        // Without a control thread the process ends.
        let _ends = self.book.claims.send(QuotaMessage { name, counters, claim, answer });
        answered
    }
}

impl QuotaClaims {
    /// Carries claims to the store, one after another. Ends when no book is left.
    pub async fn run(mut self, store: Store, clock: Clock) {
        let mut is_gone = false;
        while let Some(QuotaMessage { name, counters, claim, answer }) = self.inbox.recv().await {
            let key = format!("{name}:{}:{}", claim.window.from, claim.key);
            let QuotaClaim { debt, want, limit, window, .. } = claim;
            let call = QuotaCall { debt, want, limit, until: window.until };
            match tokio::time::timeout(PATIENCE, store.claim_quota(&key, &call)).await {
                Ok(Ok((granted, total))) => {
                    counters.granted(&claim, granted, total);
                    if std::mem::take(&mut is_gone) {
                        tracing::info!("quotas are shared again");
                    }
                }
                failed @ (Ok(Err(_)) | Err(_)) => {
                    counters.go_alone(&claim, clock.now());
                    if !std::mem::replace(&mut is_gone, true) {
                        let error = failed.map_or_else(
                            |_| "no answer in time".to_owned(),
                            |failed| match failed {
                                Ok(_) => String::new(),
                                Err(error) => error.to_string(),
                            },
                        );
                        tracing::warn!(%error, "quotas are counted by each process alone: the store is gone");
                    }
                }
            }
            let _nobody_waits = answer.send(());
        }
    }
}

impl fmt::Debug for QuotaClaims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuotaClaims").finish_non_exhaustive()
    }
}
