//! One key: its machine, and what the machine must not hold.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::task::{AbortHandle, Id};

use super::token_order::TokenRank;
use super::trace::FetchTrace;
use crate::base::secret::Fingerprint;
use crate::base::time::{Deadline, Now, millis};
use crate::base::working_hours::WorkingHours;
use crate::control::token_handle::TokenReply;
use crate::control::token_page::SearchedToken;
use crate::control::{
    EventKind, FetchContext, FetchCounts, Fetched, Generation, Issued, KnownToken, LedgerFailure, LedgerLine,
    LedgerRest, LedgerToken, Observer, TokenSlot, TokenSpec, TokenSubject, Unavailable,
};
use crate::store::Store;
use crate::token::failure::{Class, ExactRest, Failure};
use crate::token::grant::CallCredentials;
use crate::token::key::TokenKey;
use crate::token::lease::{Lease, LeaseTrial};
use crate::token::policy::Policy;
use crate::token::state::{Denial, FailureReport, PhaseKind, TokenOrigin, TokenState};

/// The number of superseded tokens that are remembered.
const MOST_SUPERSEDED: usize = 16;

#[cfg(test)]
thread_local! {
    /// Number of lines that were made on this thread.
    pub(super) static LINES: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// One key: its machine, and what the machine must not hold.
pub(super) struct TokenEntry {
    pub(super) slot: TokenState,
    pub(super) spec: Arc<TokenSpec>,
    pub(super) token_slot: Arc<TokenSlot>,
    pub(super) waiters: Vec<TokenReply>,
    /// Leases that are not on the shelf, and may come back to it.
    aside: Vec<Arc<Lease>>,
    /// The last generation of which the machine knows that it was accepted.
    proved: u64,
    pub(super) fetch: Option<Fetch>,
    /// The change of the user's record that was reported while a fetch was in progress: its new generation, or
    /// `Some(None)` if the record is gone.
    pub(super) record_changed: Option<Option<u64>>,
    /// Boot-clock second of the last publication.
    published: u64,
    /// The token of the last publication.
    known: Option<KnownToken>,
    /// Tokens that were known before it, the latest last. By the wall clock alone, one of them could look newer.
    superseded: VecDeque<Fingerprint>,
    tally: FetchCounts,
    /// True if it is one of a secret that the config in force no longer has. Requests that began before may take its token;
    /// no other is fetched ahead of need, since the bank has no use for the old secret.
    pub(super) is_superseded: bool,
    /// Its place in the order of all keys; absent until it has one.
    pub(super) rank: Option<TokenRank>,
}

/// A fetch under way, seen from its key.
pub(super) struct Fetch {
    pub(super) task: AbortHandle,
    pub(super) started: Now,
    pub(super) trace: FetchTrace,
}

/// The part of a fetched token that the machine must not hold, on its way from a fetch to a lease.
pub(super) struct FetchedToken {
    pub(super) credentials: CallCredentials,
    pub(super) fingerprint: Fingerprint,
    pub(super) adopted: bool,
    pub(super) record: u64,
}

/// From when to when a token lives.
pub(super) struct Lifetime {
    pub(super) issued: Now,
    pub(super) expires: Deadline,
    /// Before this moment a refusal of it need not be final.
    pub(super) young_until: Option<Deadline>,
}

impl TokenEntry {
    pub(super) fn new(spec: Arc<TokenSpec>, floor: u64) -> Self {
        Self {
            slot: TokenState::starting_after(floor),
            spec,
            token_slot: Arc::default(),
            waiters: Vec::new(),
            aside: Vec::new(),
            proved: 0,
            fetch: None,
            record_changed: None,
            published: 0,
            known: None,
            superseded: VecDeque::new(),
            tally: FetchCounts::default(),
            is_superseded: false,
            rank: None,
        }
    }

    /// Stops the fetch under way; says which task that was.
    pub(super) fn abandon(&self) -> Option<Id> {
        self.fetch.as_ref().map(|fetch| {
            fetch.task.abort();
            fetch.task.id()
        })
    }

    /// Builds the context of the next fetch. `refused`: tokens of this key that must no longer be taken from the store.
    pub(super) fn aid(&self, store: Option<Store>, mut refused: Vec<Fingerprint>, now: Now) -> FetchContext {
        refused.extend(&self.superseded);
        let live = self.token_slot.load().as_ref().is_some_and(|lease| lease.valid(now));
        let (patience, refresh_before) = (self.spec.fetch_timeout, self.spec.refresh_before);
        FetchContext { store, known: self.known, live, patience, refresh_before, refused, ..FetchContext::default() }
    }

    /// Returns the origin of a token that a fetch brought. A token from the store that has already expired is recorded
    /// as known, so that it is not taken again.
    pub(super) fn origin(&mut self, fetched: &Fetched, now: Now) -> TokenOrigin {
        let Fetched { issued, expires, fingerprint, adopted, young, record, .. } = *fetched;
        if adopted {
            if expires.passed(now) {
                self.know(KnownToken { fingerprint, issued: issued.wall, expires: expires.wall(), record });
            }
            return TokenOrigin::Adopted { young };
        }
        match self.known {
            Some(known) if known.fingerprint == fingerprint => TokenOrigin::Repeated,
            Some(_) | None => TokenOrigin::Issued,
        }
    }

    fn know(&mut self, token: KnownToken) {
        if let Some(before) = self.known.replace(token)
            && before.fingerprint != token.fingerprint
        {
            if self.superseded.len() == MOST_SUPERSEDED {
                self.superseded.pop_front();
            }
            self.superseded.push_back(before.fingerprint);
        }
    }

    /// The generation on the shelf, if it was accepted since this was last asked. Workers mark the lease and send no
    /// message, since that happens on the way of a request.
    pub(super) fn newly_proved(&mut self) -> Option<u64> {
        let generation =
            self.token_slot.load().as_ref().filter(|lease| lease.proved()).map(|lease| lease.generation)?;
        (generation > self.proved).then(|| {
            self.proved = generation;
            generation
        })
    }

    /// Returns whether this generation of a user's record is newer than the one that the known token was taken from.
    pub(super) fn is_before(&self, generation: u64) -> bool {
        self.known.is_none_or(|known| known.record < generation)
    }

    /// Returns whether a request has taken the current generation.
    pub(super) fn used(&self) -> bool {
        !self.is_superseded && self.token_slot.last_used() >= self.published
    }

    pub(super) fn publish(
        &mut self,
        key: TokenKey,
        now: Now,
        generation: u64,
        Lifetime { issued, expires, young_until }: Lifetime,
        fetched: Option<FetchedToken>,
    ) -> Option<EventKind> {
        // `Publish` answers `Fetched` alone, with the token that was fetched.
        let FetchedToken { credentials, fingerprint, record, .. } = fetched?;
        let renewed = self.token_slot.load().as_ref().is_some_and(|lease| lease.valid(now));
        self.know(KnownToken { fingerprint, issued: issued.wall, expires: expires.wall(), record });
        self.published = now.boot / 1000;
        let trial = young_until.map_or_else(LeaseTrial::default, LeaseTrial::until);
        self.put(Some(Arc::new(Lease { key, generation, credentials, issued, expires, fingerprint, trial })));
        let life = expires.life_since(issued).as_secs();
        tracing::info!(
            provider = %self.spec.provider, %key, generation, token = %fingerprint, life, "token published"
        );
        let token = Generation { provider: Arc::clone(&self.spec.provider), key, number: generation };
        Some(EventKind::TokenFetched { token, fingerprint, life: expires.remaining(now), renewed })
    }

    /// Puts a lease on the shelf in place of what is there, which may come back.
    fn put(&mut self, lease: Option<Arc<Lease>>) {
        self.aside.extend(self.token_slot.load().clone());
        self.token_slot.put(lease);
    }

    pub(super) fn withdraw(&mut self, key: TokenKey, generation: u64) {
        // A request that holds it and waits for a connection must not send it either, once another token lies here.
        self.token_slot.distrust(generation);
        self.put(None);
        tracing::info!(provider = %self.spec.provider, %key, generation, "token withdrawn");
    }

    /// The token of this generation, as another generation of its own.
    pub(super) fn republish(&mut self, key: TokenKey, now: Now, generation: u64, of: u64) {
        // The machine brings back only what it [keeps](Slot::keeps).
        let Some(lease) = self.aside.iter().find(|lease| lease.generation == of).cloned() else { return };
        let (credentials, trial) = (lease.credentials.clone(), LeaseTrial::default());
        let Lease { issued, expires, fingerprint, .. } = *lease;
        self.published = now.boot / 1000;
        self.put(Some(Arc::new(Lease { key, generation, credentials, issued, expires, fingerprint, trial })));
        tracing::info!(provider = %self.spec.provider, %key, generation, of, token = %fingerprint, "token used again");
    }

    /// Returns the fingerprint and the expiry of a generation that has left the token slot in this step.
    pub(super) fn gone(&self, generation: u64) -> Option<(Fingerprint, Deadline)> {
        let lease = self.aside.iter().find(|lease| lease.generation == generation)?;
        Some((lease.fingerprint, lease.expires))
    }

    /// A step is done: drops what it left behind.
    pub(super) fn tidy(&mut self) {
        if !self.aside.is_empty() {
            let Self { aside, slot, .. } = self;
            aside.retain(|lease| slot.keeps(lease.generation));
        }
        if self.slot.flight().is_none() {
            self.fetch = None;
        }
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
        let lease = self.token_slot.load();
        // `Serve` follows a publication that nothing has withdrawn.
        let Some(lease) = lease.as_ref() else { return };
        if !self.waiters.is_empty() {
            self.token_slot.stamp(now);
        }
        for waiter in self.waiters.drain(..) {
            drop(waiter.send(Ok(Issued { lease: Arc::clone(lease), token_slot: Arc::clone(&self.token_slot), fresh })));
        }
    }

    /// The failure that takes the place of a fetch while the provider is closed by its calendar.
    pub(super) fn closed(&self, now: Now) -> Option<Failure> {
        let hours = self.spec.procedure.hours()?;
        let exact = Some(ExactRest::of(hours.fetches_in(now)?));
        Some(Failure { exact, ..Failure::new(Class::Closed, hours.reason(now)) })
    }

    /// The failure of a fetch, with the end of its rest by the calendar: a provider that says that it is closed, in the
    /// time before its opening, is asked again at the opening.
    pub(super) fn until_opening(&self, failure: Failure, now: Now) -> Failure {
        let opens_in = self.spec.procedure.hours().and_then(|hours| hours.opens_in(now));
        match opens_in.filter(|_| failure.class == Class::Closed) {
            Some(left) => Failure { exact: Some(ExactRest::of(left)), ..failure },
            None => failure,
        }
    }

    /// Returns whether the provider is closed and is expected to be called with this token at its opening.
    pub(super) fn awaits_opening(&self, now: Now) -> bool {
        self.spec.procedure.hours().is_some_and(|hours| hours.expects_use(self.token_slot.last_used(), now))
    }

    /// Returns whether a token is to be fetched before the opening.
    pub(super) fn is_to_prewarm(&self, now: Now) -> bool {
        let opens_soon = |hours: &WorkingHours| hours.opens_in(now).is_some() && hours.fetches_in(now).is_none();
        !self.is_superseded
            && self.slot.waiting() == PhaseKind::Empty
            && self.spec.procedure.hours().is_some_and(opens_soon)
            && self.awaits_opening(now)
    }

    /// The lease that may be sent now. Looking is no use of it.
    pub(super) fn at_hand(&self, now: Now) -> Option<Issued> {
        let lease = self.token_slot.cached(now)?;
        Some(Issued { lease, token_slot: Arc::clone(&self.token_slot), fresh: false })
    }

    /// Tells those who wait that there is no token, and when to ask again: not before the provider opens.
    pub(super) fn deny(&mut self, denial: &Denial, now: Now) {
        let opens_in = self.spec.procedure.hours().and_then(|hours| hours.opens_in(now));
        let opens_in = opens_in.filter(|_| denial.class == Class::Closed).unwrap_or_default();
        for waiter in self.waiters.drain(..) {
            drop(waiter.send(Err(Unavailable {
                class: denial.class,
                retry_after: denial.retry_after.max(opens_in),
                ours: denial.ours,
                inside: Arc::clone(&denial.inside),
            })));
        }
    }

    pub(super) fn report(&self, key: TokenKey, report: &FailureReport) {
        let (provider, class, rest) = (&self.spec.provider, report.class.as_str(), report.rest.as_secs());
        let inside = &report.inside;
        match report.class {
            Class::Closed => {
                tracing::info!(%provider, %key, class, rest, error = %inside, "token fetch failed: provider closed")
            }
            Class::Consent => {
                tracing::info!(%provider, %key, class, rest, error = %inside, "token fetch failed: consent required")
            }
            Class::Fatal => {
                tracing::error!(%provider, %key, class, rest, error = %inside, "token fetch failed: credentials rejected")
            }
            Class::RateLimited | Class::Transient => {
                tracing::warn!(%provider, %key, class, rest, error = %inside, "token fetch failed")
            }
        }
    }

    /// A report as those hear it who watch.
    pub(super) fn failed(&self, key: TokenKey, report: &FailureReport) -> EventKind {
        let (provider, inside) = (Arc::clone(&self.spec.provider), Arc::clone(&report.inside));
        EventKind::TokenFailed { provider, key, class: report.class, inside, rest: report.rest }
    }

    pub(super) fn policy(&self) -> Policy {
        // A user's old token may be one of a consent that was taken back.
        let of_user = self.known.is_some_and(|known| known.record > 0);
        Policy {
            refresh_before: self.spec.refresh_before,
            fetch_timeout: self.spec.fetch_timeout,
            overlap: !of_user && !self.spec.procedure.is_contested(),
        }
    }

    /// Returns whether the key can be forgotten with no effect but the time of a new fetch.
    pub(super) fn idle(&self) -> bool {
        self.waiters.is_empty() && self.slot.flight().is_none() && self.slot.waiting() != PhaseKind::Settling
    }

    /// When its fetches began to fail. A former secret fails nobody.
    fn failing_since(&self) -> Option<Now> {
        self.slot.failing_since().filter(|_| !self.is_superseded)
    }

    /// The state as an operator is told it.
    fn state(&self) -> PhaseKind {
        self.slot.waiting().told(self.failing_since().is_some())
    }

    /// The place that it has in the order of all keys, as it is now.
    pub(super) fn current_rank(&self) -> TokenRank {
        let ends = self.token_slot.load().as_ref().map_or(u64::MAX, |lease| lease.expires.wall());
        TokenRank { is_well: !self.state().is_failing(), ends }
    }

    /// The parts that a search looks at.
    pub(super) fn searched(&self) -> SearchedToken<'_> {
        let TokenSpec { provider, procedure, .. } = &*self.spec;
        SearchedToken { provider, state: self.state(), user: procedure.user(), vars: procedure.vars() }
    }

    /// The user and the values that the token is for.
    pub(super) fn subject(&self) -> TokenSubject {
        let procedure = &self.spec.procedure;
        TokenSubject { user: procedure.user().cloned(), vars: procedure.vars().cloned().unwrap_or_default() }
    }

    pub(super) fn line(&self, key: TokenKey, now: Now) -> LedgerLine {
        #[cfg(test)]
        LINES.with(|lines| lines.set(lines.get() + 1));
        LedgerLine {
            key,
            provider: Arc::clone(&self.spec.provider),
            superseded: self.is_superseded,
            phase: self.slot.waiting(),
            token: self.token_slot.load().as_ref().filter(|lease| lease.valid(now)).map(|lease| LedgerToken {
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
                cause: trouble.cause,
                inside: Arc::clone(&trouble.inside),
                at: trouble.at.wall,
            }),
            failures: self.slot.failures(),
            failing_since: self.failing_since().map(|since| since.wall),
            waiters: self.waiters.iter().filter(|waiter| !waiter.is_closed()).count(),
            fetches: self.tally,
        }
    }
}
