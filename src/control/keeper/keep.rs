//! One key: its machine, and what the machine must not hold.

use std::sync::Arc;

use tokio::task::{AbortHandle, Id};

use super::trace::FetchTrace;
use crate::base::secret::Fingerprint;
use crate::base::time::{Deadline, Now, millis};
use crate::control::leases::Answer;
use crate::control::{
    Aid, Generation, Issued, Known, LedgerFailure, LedgerLine, LedgerRest, LedgerToken, Observer, Shelf, Tally,
    TokenSpec, Unavailable, What,
};
use crate::store::Store;
use crate::token::failure::Class;
use crate::token::grant::CredentialHeaders;
use crate::token::key::TokenKey;
use crate::token::lease::Lease;
use crate::token::policy::Policy;
use crate::token::state::{Denial, Report, Slot};

/// One key: its machine, and what the machine must not hold.
pub(super) struct Keep {
    pub(super) slot: Slot,
    pub(super) spec: Arc<TokenSpec>,
    pub(super) shelf: Arc<Shelf>,
    pub(super) waiters: Vec<Answer>,
    pub(super) fetch: Option<Fetch>,
    /// What the store was said to hold of a user while a fetch was under way: a generation, or nothing.
    pub(super) moved: Option<Option<u64>>,
    /// Boot-clock second of the last publication.
    published: u64,
    /// The token of the last publication.
    known: Option<Known>,
    tally: Tally,
}

/// A fetch under way, seen from its key.
pub(super) struct Fetch {
    pub(super) task: AbortHandle,
    pub(super) started: Now,
    pub(super) trace: FetchTrace,
}

/// The part of a fetched token that the machine must not hold, on its way from a fetch to a lease.
pub(super) struct Brought {
    pub(super) headers: CredentialHeaders,
    pub(super) fingerprint: Fingerprint,
    pub(super) adopted: bool,
    pub(super) record: u64,
}

pub(super) type Cargo = Option<Brought>;

impl Keep {
    pub(super) fn new(spec: Arc<TokenSpec>, floor: u64) -> Self {
        Self {
            slot: Slot::starting_after(floor),
            spec,
            shelf: Arc::default(),
            waiters: Vec::new(),
            fetch: None,
            moved: None,
            published: 0,
            known: None,
            tally: Tally::default(),
        }
    }

    /// Stops the fetch under way; says which task that was.
    pub(super) fn abandon(&self) -> Option<Id> {
        self.fetch.as_ref().map(|fetch| {
            fetch.task.abort();
            fetch.task.id()
        })
    }

    /// What the next fetch may use.
    pub(super) fn aid(&self, store: Option<Store>, now: Now) -> Aid {
        let live = self.shelf.load().as_ref().is_some_and(|lease| lease.valid(now));
        let (patience, refresh_before) = (self.spec.fetch_timeout, self.spec.refresh_before);
        Aid { store, known: self.known, live, patience, refresh_before, ..Aid::default() }
    }

    /// Whether this generation of a user's record is newer than what was taken from it.
    pub(super) fn is_before(&self, generation: u64) -> bool {
        self.known.is_none_or(|known| known.record < generation)
    }

    /// Whether anybody took the current generation.
    pub(super) fn used(&self) -> bool {
        self.shelf.last_used() >= self.published
    }

    pub(super) fn publish(
        &mut self,
        key: TokenKey,
        now: Now,
        generation: u64,
        (issued, expires): (Now, Deadline),
        cargo: Cargo,
    ) -> Option<What> {
        // `Publish` answers `Fetched` alone, and that always comes with its cargo.
        let Brought { headers, fingerprint, record, .. } = cargo?;
        let renewed = self.shelf.load().as_ref().is_some_and(|lease| lease.valid(now));
        self.known = Some(Known { fingerprint, issued: issued.wall, expires: expires.wall(), record });
        self.published = now.boot / 1000;
        self.shelf.put(Some(Arc::new(Lease { key, generation, headers, issued, expires, fingerprint })));
        let life = expires.remaining(issued).as_secs();
        tracing::info!(
            provider = %self.spec.provider, %key, generation, token = %fingerprint, life, "token published"
        );
        let token = Generation { provider: Arc::clone(&self.spec.provider), key, number: generation };
        Some(What::TokenFetched { token, fingerprint, life: expires.remaining(now), renewed })
    }

    /// A fetch ended: count it and tell the observer.
    pub(super) fn settle(&mut self, key: TokenKey, observer: &dyn Observer, outcome: Result<(), Class>, now: Now) {
        if let Some(fetch) = self.fetch.take() {
            self.tally.count(outcome);
            observer.fetched(&self.spec.provider, outcome, now.since(fetch.started));
            let token = self.known.filter(|_| outcome.is_ok()).map(|known| known.fingerprint);
            fetch.trace.end(key, &self.spec.provider, outcome.map(|()| token), (fetch.started, now));
        }
    }

    pub(super) fn serve(&mut self, now: Now, fresh: bool) {
        let lease = self.shelf.load();
        // `Serve` follows a publication that nothing has withdrawn.
        let Some(lease) = lease.as_ref() else { return };
        if !self.waiters.is_empty() {
            self.shelf.stamp(now);
        }
        for waiter in self.waiters.drain(..) {
            drop(waiter.send(Ok(Issued { lease: Arc::clone(lease), shelf: Arc::clone(&self.shelf), fresh })));
        }
    }

    /// The lease that may be sent now. Looking is no use of it.
    pub(super) fn at_hand(&self, now: Now) -> Option<Issued> {
        let lease = self.shelf.glance(now)?;
        Some(Issued { lease, shelf: Arc::clone(&self.shelf), fresh: false })
    }

    pub(super) fn deny(&mut self, denial: &Denial) {
        for waiter in self.waiters.drain(..) {
            drop(waiter.send(Err(Unavailable {
                class: denial.class,
                retry_after: denial.retry_after,
                inside: Arc::clone(&denial.inside),
            })));
        }
    }

    pub(super) fn report(&self, key: TokenKey, report: &Report) {
        let (provider, class, rest) = (&self.spec.provider, report.class.as_str(), report.rest.as_secs());
        let inside = &report.inside;
        match report.class {
            Class::Closed => tracing::info!(%provider, %key, class, rest, %inside, "no token: provider closed"),
            Class::Consent => tracing::info!(%provider, %key, class, rest, %inside, "no token: consent required"),
            Class::Fatal => tracing::error!(%provider, %key, class, rest, %inside, "no token: credentials rejected"),
            Class::RateLimited | Class::Transient => tracing::warn!(%provider, %key, class, rest, %inside, "no token"),
        }
    }

    /// A report as those hear it who watch.
    pub(super) fn failed(&self, key: TokenKey, report: &Report) -> What {
        let (provider, inside) = (Arc::clone(&self.spec.provider), Arc::clone(&report.inside));
        What::TokenFailed { provider, key, class: report.class, inside, rest: report.rest }
    }

    pub(super) fn policy(&self) -> Policy {
        Policy { refresh_before: self.spec.refresh_before, fetch_timeout: self.spec.fetch_timeout }
    }

    /// Whether nobody would notice if it were forgotten, but for the time of a fetch.
    pub(super) fn idle(&self) -> bool {
        self.waiters.is_empty() && self.slot.flight().is_none()
    }

    pub(super) fn line(&self, key: TokenKey, now: Now) -> LedgerLine {
        LedgerLine {
            key,
            provider: Arc::clone(&self.spec.provider),
            phase: self.slot.waiting(),
            token: self.shelf.load().as_ref().filter(|lease| lease.valid(now)).map(|lease| LedgerToken {
                generation: lease.generation,
                fingerprint: lease.fingerprint,
                issued: lease.issued.wall,
                expires: lease.expires.wall(),
                renews: self.slot.renews().map(Deadline::wall),
            }),
            rest: self.slot.rest(now).map(|denial| LedgerRest {
                class: denial.class,
                until: now.wall.saturating_add(millis(denial.retry_after)),
            }),
            last_failure: self.slot.trouble().map(|trouble| LedgerFailure {
                class: trouble.class,
                inside: Arc::clone(&trouble.inside),
                at: trouble.at.wall,
            }),
            failures: self.slot.failures(),
            waiters: self.waiters.iter().filter(|waiter| !waiter.is_closed()).count(),
            fetches: self.tally,
        }
    }
}
