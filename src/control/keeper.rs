//! The keeper: owner of every token's state machine, and the hands that carry its decisions out.
//!
//! One task, one message at a time. A message becomes an event, the event a step of one `Slot`, the step a few
//! actions, done before the next message is looked at. So there is nothing to lock, and "one fetch at a time" is not a
//! matter of luck. Fetches run as tasks of their own: what hangs is abandoned by its deadline, what panics has failed,
//! and neither touches another key.
//!
//! All that is decided here is decided by [`Clock`]. tokio's timer only says when to look at it again.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::{Id, JoinError, JoinSet};

use super::consents::patiently;
use super::token_handle::{Freshness, Inbox, KeeperMessage, TokenReply};
use super::{
    EventKind, FetchContext, Fetched, Generation, LedgerLine, Observer, ProviderTokens, Rests, TokenHandle, TokenPage,
    TokenPageQuery, TokenSpec, TokenTable, Tracker, Unavailable,
};
use crate::base::draw::draw;
use crate::base::secret::Fingerprint;
use crate::base::time::{Clock, Now, millis};
use crate::observe::trace::{Context, Tracer};
use crate::store::{Kind, RecordKey, Store};
use crate::token::credential_slots::CredentialSlot;
use crate::token::failure::{Class, Failure};
use crate::token::key::{KeyMap, TokenKey};
use crate::token::state::{Action, Arrived, Event, PhaseKind};

mod invalidation;
mod slots;
mod token_entry;
mod token_order;
mod trace;

use invalidation::Invalidations;
use slots::FetchSlots;
use token_entry::{Fetch, FetchedToken, Lifetime, TokenEntry};
use token_order::TokenOrder;
use trace::FetchTrace;

/// Longest interval between two looks at the clocks, even if no timer is due, busy or not. The machine's own timer
/// stands still while the machine sleeps, and no notification arrives when the wall clock is set.
const LOOK: Duration = Duration::from_secs(5);

/// Timers that fall due within this of each other are served together.
const STRIDE: u64 = 10;

/// Time after which a key without a token is forgotten if no request asked for it. Longer than the longest rest with
/// its jitter: a key must not lose its count of failures because all callers respected its `Retry-After`.
const FORGET: Duration = Duration::from_secs(7200);

/// Bounds on the resources that the keeper uses.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Keys; beyond, the one that was used least recently is forgotten.
    pub keys: usize,
    /// Requests that wait for one key; beyond, they are sent away for a second.
    pub waiters: usize,
    /// Fetches under way over all keys; beyond, they queue.
    pub fetches: usize,
    /// Fetches under way from one provider; beyond, they queue.
    pub fetches_per_provider: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { keys: 10_000, waiters: 10_000, fetches: 128, fetches_per_provider: 32 }
    }
}

/// The owner of all tokens. [Run](Keeper::run) on the control thread.
pub struct Keeper {
    clock: Clock,
    jitter: fn() -> u8,
    limits: Limits,
    observer: Box<dyn Observer>,
    inbox: mpsc::UnboundedReceiver<KeeperMessage>,
    store: Option<Store>,
    /// The owner of what must not be abandoned.
    tasks: Tracker,
    /// Users and providers that are not asked for a while.
    rests: Rests,
    /// The way to tell that other credentials are accepted.
    promotions: Option<TokenHandle>,
    keys: KeyMap<TokenEntry>,
    /// The keys of the modules of the config in force; absent before the first reload: all are.
    modules: Option<KeyMap<()>>,
    order: TokenOrder,
    /// The keys of users' tokens, by the record that they come from.
    users: KeyMap<Vec<TokenKey>>,
    fetches: JoinSet<Result<Fetched, Failure>>,
    flights: HashMap<Id, FetchTask>,
    slots: FetchSlots,
    invalidations: Invalidations,
    /// The boot-clock millisecond at which the timers want to be looked at.
    due: u64,
    /// The highest generation of all keys that were forgotten: a key that comes back starts above it.
    floor: u64,
    /// The tracer of fetches; absent: fetches leave no spans.
    tracer: Option<Tracer>,
    /// Keys that were used least recently when that was last looked at, with the second of that use.
    leavers: Vec<(u64, TokenKey)>,
    /// Reused from step to step.
    actions: Vec<Action>,
}

/// Data that accompany an event but do not concern the state machine.
enum EventData {
    /// The token that a fetch brought.
    Fetched(FetchedToken),
    None,
    /// The span of the request that waits: a fetch that the event starts is recorded as its child.
    Waiting(Option<Context>),
}

/// A fetch under way, seen from its task.
struct FetchTask {
    key: TokenKey,
    number: u64,
}

impl Keeper {
    /// Builds a keeper and the handle to it. The keeper does no work until it is [run](Keeper::run).
    pub fn new(clock: Clock, limits: Limits, observer: Box<dyn Observer>) -> (TokenHandle, Self) {
        let (leases, inbox) = TokenHandle::open();
        (leases, Self::behind(inbox, clock, limits, observer, None))
    }

    /// The keeper at this end. With a store, tokens are looked for and kept there.
    pub fn behind(
        inbox: Inbox,
        clock: Clock,
        limits: Limits,
        observer: Box<dyn Observer>,
        store: Option<Store>,
    ) -> Self {
        Self {
            clock,
            jitter: draw,
            limits,
            observer,
            inbox: inbox.0,
            store,
            tasks: Tracker::default(),
            rests: Rests::default(),
            promotions: None,
            keys: KeyMap::default(),
            modules: None,
            order: TokenOrder::default(),
            users: KeyMap::default(),
            fetches: JoinSet::new(),
            flights: HashMap::new(),
            slots: FetchSlots::new(limits.fetches, limits.fetches_per_provider),
            invalidations: Invalidations::default(),
            due: 0,
            floor: 0,
            tracer: None,
            leavers: Vec::new(),
            actions: Vec::new(),
        }
    }

    /// The same keeper, telling its fetches as spans.
    #[must_use]
    pub fn traced(mut self, tracer: Tracer) -> Self {
        self.tracer = Some(tracer);
        self
    }

    /// The same keeper, with the owner of renewals that must not be abandoned, and the rests of users.
    #[must_use]
    pub fn with_renewals(mut self, tasks: Tracker, rests: Rests) -> Self {
        (self.tasks, self.rests) = (tasks, rests);
        self
    }

    /// The same keeper, with a way back to itself for renewals that find other credentials accepted.
    #[must_use]
    pub fn with_promotions(mut self, leases: TokenHandle) -> Self {
        self.promotions = Some(leases);
        self
    }

    /// A keeper with the system's clock, run as a local task.
    ///
    /// # Panics
    ///
    /// Outside a [`tokio::task::LocalSet`].
    pub fn start(limits: Limits, observer: Box<dyn Observer>) -> TokenHandle {
        let (leases, keeper) = Self::new(Clock::System, limits, observer);
        tokio::task::spawn_local(keeper.run());
        leases
    }

    /// Serves until a shutdown message arrives or all handles are dropped. Fetches are local tasks, so this must be
    /// awaited inside a [`tokio::task::LocalSet`]. Fetches in progress end with it.
    pub async fn run(mut self) {
        self.serve().await;
        let invalidations = std::mem::take(&mut self.invalidations);
        // Requests that wait are told.
        drop(self);
        invalidations.finish().await;
    }

    async fn serve(&mut self) {
        loop {
            let now = self.clock.now();
            if now.boot >= self.due {
                self.tick(now);
            }
            let pause = self.pause(now);
            tokio::select! {
                biased;
                Some(landed) = self.fetches.join_next_with_id() => self.land(landed),
                message = self.inbox.recv() => match message {
                    Some(message) => if self.receive(message).is_break() { return },
                    None => return,
                },
                () = sleep(pause) => self.look(),
            }
        }
    }

    /// Returns the time for which the timer may sleep; `None`: without end, because the clock is moved by hand.
    fn pause(&self, now: Now) -> Option<Duration> {
        match self.clock {
            Clock::System => Some(Duration::from_millis(self.due.saturating_sub(now.boot))),
            Clock::Manual(_) => None,
            #[cfg(test)]
            Clock::Simulated(_) => Some(Duration::from_millis(self.due.saturating_sub(now.boot))),
        }
    }

    /// Checks all keys when the timer fires, whichever key it fired for, since the wall clock may have been set.
    fn look(&mut self) {
        let now = self.clock.now();
        self.tick(now);
    }

    /// Tells the time to every key that it concerns. A walk over all keys, a few nanoseconds each, at most a hundred
    /// times a second: cheaper to be sure of than a heap with entries that have changed their minds.
    fn tick(&mut self, now: Now) {
        let ready: Vec<TokenKey> = self
            .keys
            .iter()
            .filter(|(_, tracked)| tracked.slot.wait(now).is_some_and(|wait| wait.is_zero()))
            .map(|(key, _)| *key)
            .collect();
        for key in ready {
            let used = self.keys.get(&key).is_some_and(TokenEntry::used);
            self.advance(key, Event::Tick { used }, EventData::None);
        }
        self.prewarm(now);
        self.forget_idle(now);
        let next = self.keys.values().filter_map(|tracked| tracked.slot.wait(now)).min().unwrap_or(LOOK);
        self.due = now.boot.saturating_add(millis(next.min(LOOK)).max(STRIDE));
    }

    /// Fetches the tokens of providers that open soon, for the keys that were in use while they were open. A fetch that
    /// fails is repeated after its rest, up to the opening.
    fn prewarm(&mut self, now: Now) {
        let due: Vec<TokenKey> =
            self.keys.iter().filter(|(_, tracked)| tracked.is_to_prewarm(now)).map(|(key, _)| *key).collect();
        for key in due {
            self.advance(key, Event::Needed, EventData::None);
        }
    }

    fn receive(&mut self, message: KeeperMessage) -> ControlFlow<()> {
        match message {
            KeeperMessage::AtHand { key, answer } => {
                let now = self.clock.now();
                drop(answer.send(self.keys.get(&key).and_then(|tracked| tracked.at_hand(now))));
            }
            // A key that has moved on since has the newer token, or is fetching it: a forced renewal would only add a
            // fetch.
            KeeperMessage::CatchUp { key, generation } => {
                if self.is_still_at(&key, generation) {
                    self.advance(key, Event::Forced, EventData::None);
                }
            }
            // Others may wait for a newer one: the credentials may be in use again.
            KeeperMessage::Discard { key, generation } => {
                if self.is_still_at(&key, generation) {
                    self.remove_stored(key);
                    self.advance(key, Event::Purged, EventData::None);
                }
            }
            KeeperMessage::Contested { answer } => {
                let contested = self.keys.iter().filter(|(_, tracked)| tracked.spec.procedure.is_contested());
                drop(answer.send(contested.map(|(key, _)| *key).collect()));
            }
            KeeperMessage::Promoted { provider, slot, is_change } => self.promoted(provider, slot, is_change),
            KeeperMessage::IdleUsers { answer } => drop(answer.send(self.idle_users(self.clock.now()))),
            // The caller may have hung up.
            KeeperMessage::Ledger { answer } => drop(answer.send(self.ledger())),
            KeeperMessage::Line { key, answer } => drop(answer.send(self.line(&key))),
            KeeperMessage::Moved { record, generation, answer } => {
                for key in self.users.get(&record).cloned().unwrap_or_default() {
                    self.record_changed(key, generation);
                }
                let _hung_up = answer.send(());
            }
            KeeperMessage::Need { spec, cause, answer } => self.queue(spec, (answer, cause), Event::Needed),
            KeeperMessage::Page { query, answer } => drop(answer.send(self.page(&query))),
            KeeperMessage::Purge { key, answer } => {
                self.remove_stored(key);
                let _hung_up = answer.send(self.advance(key, Event::Purged, EventData::None));
            }
            KeeperMessage::Refresh { key, answer } => {
                let _hung_up = answer.send(self.advance(key, Event::Forced, EventData::None));
            }
            KeeperMessage::Refused { spec, generation, replaced, cause, answer } => {
                let refused = Generation { provider: Arc::clone(&spec.provider), key: spec.key, number: generation };
                self.refused(spec.key, generation);
                self.observer.told(EventKind::Replay(refused));
                self.queue(spec, (answer, cause), Event::Refused { generation, replaced });
            }
            KeeperMessage::RefusedAtBirth { key, generation } => {
                self.refused(key, generation);
                self.advance(key, Event::RefusedAtBirth { generation }, EventData::None);
            }
            KeeperMessage::Reloaded { modules } => self.reloaded(modules),
            KeeperMessage::Shutdown => return ControlFlow::Break(()),
            KeeperMessage::Standing { key, answer } => self.report_freshness(&key, answer),
            KeeperMessage::Sent { provider, token, answer } => drop(answer.send(self.key_of(&provider, token))),
            KeeperMessage::Summary { answer } => drop(answer.send(self.summary())),
            KeeperMessage::Suspect { key, generation } => {
                self.advance(key, Event::Suspected { generation }, EventData::None);
            }
            KeeperMessage::Tick { answer } => {
                self.look();
                let _hung_up = answer.send(());
            }
            KeeperMessage::Users { answer } => drop(answer.send(self.users.keys().copied().collect())),
            KeeperMessage::Withdrawn { key, generation, replaced } => {
                self.refused(key, generation);
                self.advance(key, Event::Withdrawn { generation, replaced }, EventData::None);
            }
        }
        ControlFlow::Continue(())
    }

    /// Another config is in force. Keys of its secrets stay known: requests that began before may take their tokens, and
    /// whoever forgot which ones have expired could take one from the store again when the wall clock is set.
    fn reloaded(&mut self, modules: KeyMap<()>) {
        let keys: Vec<TokenKey> = self.keys.keys().copied().collect();
        for key in keys {
            let Some(tracked) = self.keys.get_mut(&key) else { continue };
            tracked.is_superseded = is_superseded(&tracked.spec, Some(&modules));
            self.advance(key, Event::Forgiven, EventData::None);
        }
        self.modules = Some(modules);
    }

    /// Returns whether this generation is the last one, and no newer one is being fetched.
    fn is_still_at(&self, key: &TokenKey, generation: u64) -> bool {
        self.keys.get(key).is_some_and(|entry| entry.slot.generation() == generation && entry.slot.flight().is_none())
    }

    /// A provider refused this generation: that is news if it is the one that is served.
    fn refused(&self, key: TokenKey, number: u64) {
        let Some(tracked) = self.keys.get(&key) else { return };
        if tracked.token_slot.load().as_ref().is_some_and(|lease| lease.generation == number) {
            let provider = Arc::clone(&tracked.spec.provider);
            self.observer.told(EventKind::TokenRefused(Generation { provider, key, number }));
        }
    }

    /// A provider accepts these credentials and has refused the others. Those are asked for at once when the provider goes
    /// back to them: their rest ends.
    fn promoted(&mut self, provider: Arc<str>, slot: CredentialSlot, is_change: bool) {
        let rests =
            |tracked: &TokenEntry| tracked.spec.provider == provider && tracked.slot.waiting() == PhaseKind::Resting;
        let resting: Vec<TokenKey> =
            self.keys.iter().filter(|(_, tracked)| rests(tracked)).map(|(key, _)| *key).collect();
        for key in resting {
            self.advance(key, Event::Forgiven, EventData::None);
        }
        if is_change {
            let credentials = slot.as_str();
            tracing::warn!(
                %provider, credentials,
                "the provider refused the credentials in use and accepts the others: calls use those from now on"
            );
            self.observer.told(EventKind::CredentialsPromoted { provider, slot });
        }
    }

    /// A user's record has changed in the store.
    fn record_changed(&mut self, key: TokenKey, record: Option<u64>) {
        let Some(tracked) = self.keys.get_mut(&key) else { return };
        let in_flight = tracked.slot.flight().is_some();
        // A fetch in progress may have read the record before the change: this is decided when it lands. A fetch that
        // starts now reads the new record.
        tracked.record_changed = in_flight.then_some(record);
        match record {
            None => {
                self.advance(key, Event::Purged, EventData::None);
            }
            Some(generation) if !in_flight && tracked.is_before(generation) => {
                self.advance(key, Event::Forced, EventData::None);
            }
            Some(_) => {}
        }
    }

    /// Says how a token stands, where another replica may have replaced it.
    fn report_freshness(&self, key: &TokenKey, answer: oneshot::Sender<Freshness>) {
        let Some(tracked) = self.keys.get(key).filter(|tracked| tracked.spec.procedure.is_contested()) else {
            let _hung_up = answer.send(Freshness::UNCONTESTED);
            return;
        };
        let (spec, aid) =
            (Arc::clone(&tracked.spec), tracked.aid(self.store.clone(), self.invalidations.of(key), self.clock.now()));
        let generation = tracked.slot.generation();
        tokio::task::spawn_local(async move {
            let outdated = spec.procedure.is_replaced(aid).await;
            let _hung_up = answer.send(Freshness { generation, outdated });
        });
    }

    /// Takes a token out of the store.
    fn remove_stored(&self, key: TokenKey) {
        let Some(store) = self.store.clone() else { return };
        tokio::task::spawn_local(async move {
            let name = RecordKey::from(&key);
            if let Err(error) = patiently(async || store.remove(Kind::Application, &name).await).await {
                tracing::warn!(%key, %error, "a purged token is still in the store");
            }
        });
    }

    /// Queues a request that waits, in the span `cause`, and lets the event decide for how long.
    fn queue(&mut self, spec: Arc<TokenSpec>, (answer, cause): (TokenReply, Option<Context>), event: Event) {
        let (key, now) = (spec.key, self.clock.now());
        if !self.keys.contains_key(&key) && self.keys.len() >= self.limits.keys && !self.evict() {
            return drop(answer.send(Err(crowded("every token that may be held is being fetched"))));
        }
        let tracked = match self.keys.entry(key) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                if let Some(record) = spec.procedure.record() {
                    self.users.entry(record).or_default().push(key);
                }
                entry.insert(TokenEntry::new(Arc::clone(&spec), self.floor))
            }
        };
        // The spec of the latest config fetches: it may know a newer certificate than the first one did. A request that
        // began under an earlier config takes nothing back.
        if spec.serial >= tracked.spec.serial {
            tracked.spec = spec;
        }
        tracked.is_superseded = is_superseded(&tracked.spec, self.modules.as_ref());
        tracked.token_slot.stamp(now);
        if tracked.waiters.len() >= self.limits.waiters {
            tracked.waiters.retain(|waiter| !waiter.is_closed());
        }
        if tracked.waiters.len() >= self.limits.waiters {
            return drop(answer.send(Err(crowded("too many requests wait for this token"))));
        }
        tracked.waiters.push(answer);
        self.advance(key, event, EventData::Waiting(cause));
    }

    /// A fetch has ended, one way or another.
    fn land(&mut self, landed: Result<(Id, Result<Fetched, Failure>), JoinError>) {
        let (id, result) = match landed {
            Ok((id, result)) => (id, result),
            Err(error) => (error.id(), Err(Failure::new(Class::Transient, "the fetch ended by a bug of ours"))),
        };
        // An abandoned flight has been struck off already.
        let Some(FetchTask { key, number }) = self.flights.remove(&id) else { return };
        // A token of a record that is gone by now must not be sent once more, not even by those who wait for it.
        let is_gone = self.keys.get(&key).is_some_and(|tracked| tracked.record_changed == Some(None));
        let result = match result {
            Ok(_) if is_gone => Err(Failure::new(Class::Consent, "the consent was revoked meanwhile")),
            result => result,
        };
        match result {
            Ok(fetched) => {
                let now = self.clock.now();
                let Some(origin) = self.keys.get_mut(&key).map(|tracked| tracked.origin(&fetched, now)) else { return };
                let Fetched { issued, expires, credentials, fingerprint, adopted, record, .. } = fetched;
                let arrived = Arrived { issued, expires, origin };
                let fetched = FetchedToken { credentials, fingerprint, adopted, record };
                self.advance(key, Event::Fetched { flight: number, arrived }, EventData::Fetched(fetched))
            }
            Err(failure) => {
                let now = self.clock.now();
                let Some(failure) = self.keys.get(&key).map(|tracked| tracked.until_opening(failure, now)) else {
                    return;
                };
                self.advance(key, Event::Failed { flight: number, failure }, EventData::None)
            }
        };
        if let Some(record) = self.keys.get_mut(&key).and_then(|tracked| tracked.record_changed.take()) {
            self.record_changed(key, record);
        }
    }

    /// One step of one key, and all that follows from it. Says whether the key is known.
    fn advance(&mut self, key: TokenKey, event: Event, data: EventData) -> bool {
        let (mut fetched, mut cause) = match data {
            EventData::Fetched(fetched) => (Some(fetched), None),
            EventData::None => (None, None),
            EventData::Waiting(cause) => (None, cause),
        };
        let now = self.clock.now();
        let Some(tracked) = self.keys.get_mut(&key) else { return false };
        let policy = tracked.policy();
        // Only the end of a fetch brings a token: then waiters get a token that was fetched for them.
        let mut fresh = fetched.as_ref().is_some_and(|fetched| !fetched.adopted);
        let mut actions = std::mem::take(&mut self.actions);
        let mut closed = None;
        let proved = tracked.newly_proved().map(|generation| Event::Proved { generation });
        for event in proved.into_iter().chain([event]) {
            tracked.slot = std::mem::take(&mut tracked.slot).step(event, now, &policy, (self.jitter)(), &mut actions);
        }
        for action in actions.drain(..) {
            match action {
                Action::Abandon { flight: _ } => {
                    if let Some(task) = tracked.abandon() {
                        self.flights.remove(&task);
                    }
                }
                Action::Deny(denial) => tracked.deny(&denial, now),
                Action::Fetch { flight } => {
                    // No call is made outside the provider's hours: the fetch has failed before it began.
                    if let Some(failure) = tracked.closed(now) {
                        closed = Some(Event::Failed { flight, failure });
                        continue;
                    }
                    // It reads what is there now.
                    tracked.record_changed = None;
                    let spec = Arc::clone(&tracked.spec);
                    let (tasks, rests) = (self.tasks.clone(), self.rests.clone());
                    let aid = FetchContext {
                        tasks,
                        rests,
                        leases: self.promotions.clone(),
                        ..tracked.aid(self.store.clone(), self.invalidations.of(&key), now)
                    };
                    let queued = self.slots.queue(&spec.provider);
                    let task = self.fetches.spawn_local(async move {
                        let _slot = queued.slot().await;
                        spec.procedure.fetch(aid).await
                    });
                    self.flights.insert(task.id(), FetchTask { key, number: flight });
                    let trace = FetchTrace::begin(self.tracer.as_ref(), cause.take());
                    tracked.fetch = Some(Fetch { task, started: now, trace });
                }
                Action::Invalidate { generation } => {
                    // It may have been refused as an earlier generation, which is all that a worker knows of.
                    tracked.token_slot.distrust(generation);
                    if let Some(token) = tracked.gone(generation) {
                        self.invalidations.add(self.store.as_ref(), &self.clock, Arc::clone(&tracked.spec), token);
                    }
                }
                Action::Publish { generation, issued, expires, young_until } => {
                    let lifetime = Lifetime { issued, expires, young_until };
                    if let Some(what) = tracked.publish(key, now, generation, lifetime, fetched.take()) {
                        self.observer.told(what);
                    }
                    tracked.settle(key, &*self.observer, Ok(()), now);
                }
                Action::Report(report) => {
                    tracked.report(key, &report);
                    self.observer.told(tracked.failed(key, &report));
                    if report.flight.is_some() {
                        tracked.settle(key, &*self.observer, Err(report.class), now);
                    }
                }
                Action::Republish { generation, of, retried } => {
                    // Those who waited for a second trial waited for this token: to fetch again would not help them.
                    fresh |= retried;
                    tracked.republish(key, now, generation, of);
                }
                Action::Serve => tracked.serve(now, fresh),
                Action::SetAside { generation, pause } => {
                    let (provider, pause) = (&tracked.spec.provider, pause.as_millis());
                    tracing::warn!(
                        %provider, %key, generation, pause_ms = pause,
                        "new token refused; it is tried again"
                    );
                }
                Action::Withdraw { generation } => tracked.withdraw(key, generation),
            }
        }
        // A fetch that a request did not start is one that it waits for all the same.
        if let (Some(cause), Some(fetch)) = (cause, tracked.fetch.as_mut()) {
            fetch.trace.wait(cause);
        }
        tracked.tidy();
        let rank = Some(tracked.current_rank());
        let before = std::mem::replace(&mut tracked.rank, rank);
        if before != rank {
            self.order.place(&tracked.spec.provider, key, before, rank);
        }
        let wait = tracked.slot.wait(now);
        self.actions = actions;
        self.due = self.due.min(wait.map_or(u64::MAX, |wait| now.boot.saturating_add(millis(wait))));
        match closed {
            Some(failed) => self.advance(key, failed, EventData::None),
            None => true,
        }
    }

    /// Makes room for one more key. Says whether it could: a key that is being fetched or waited for stays.
    fn evict(&mut self) -> bool {
        for looked in [false, true] {
            if looked {
                self.leavers = self.find_leavers();
            }
            while let Some((last_used, key)) = self.leavers.pop() {
                // A key that was used since is no longer the oldest: keys that are not in the list may be older.
                let stays = |tracked: &TokenEntry| !tracked.idle() || tracked.token_slot.last_used() != last_used;
                if self.keys.get(&key).is_none_or(stays) {
                    continue;
                }
                self.forget(&key);
                return true;
            }
        }
        false
    }

    /// Those who go first when room is wanted, the first one last: a sixteenth of all, so that they are looked for once
    /// in so many.
    fn find_leavers(&self) -> Vec<(u64, TokenKey)> {
        let idle = self.keys.iter().filter(|(_, tracked)| tracked.idle());
        let mut found: Vec<(u64, TokenKey)> =
            idle.map(|(key, tracked)| (tracked.token_slot.last_used(), *key)).collect();
        let most = (found.len() / 16).max(1);
        if most < found.len() {
            found.select_nth_unstable_by_key(most, |(last_used, _)| *last_used);
            found.truncate(most);
        }
        found.sort_unstable_by_key(|(last_used, _)| std::cmp::Reverse(*last_used));
        found
    }

    fn forget_idle(&mut self, now: Now) {
        let horizon = (now.boot / 1000).saturating_sub(FORGET.as_secs());
        let old: Vec<TokenKey> = self
            .keys
            .iter()
            .filter(|(_, tracked)| tracked.slot.waiting() == PhaseKind::Empty && tracked.idle())
            .filter(|(_, tracked)| tracked.token_slot.last_used() < horizon && !tracked.awaits_opening(now))
            .map(|(key, _)| *key)
            .collect();
        for key in old {
            self.forget(&key);
        }
    }

    fn forget(&mut self, key: &TokenKey) {
        if let Some(tracked) = self.keys.remove(key) {
            self.order.place(&tracked.spec.provider, *key, tracked.rank, None);
            tracked.token_slot.retire();
            if let Some(record) = tracked.spec.procedure.record()
                && let Entry::Occupied(mut known) = self.users.entry(record)
            {
                known.get_mut().retain(|other| other != key);
                if known.get().is_empty() {
                    known.remove();
                }
            }
            self.floor = self.floor.max(tracked.slot.generation());
            tracing::debug!(provider = %tracked.spec.provider, %key, "key forgotten");
        }
    }

    /// For how long a token of each user was not taken, by record.
    fn idle_users(&self, now: Now) -> KeyMap<Duration> {
        let last_used =
            |keys: &Vec<TokenKey>| keys.iter().filter_map(|key| Some(self.keys.get(key)?.token_slot.last_used())).max();
        let used =
            self.users.iter().filter_map(|(record, keys)| Some((*record, last_used(keys).filter(|at| *at > 0)?)));
        used.map(|(record, at)| (record, Duration::from_secs((now.boot / 1000).saturating_sub(at)))).collect()
    }

    /// A page of the keys. Without a search no other key is looked at; a search looks at all and copies none.
    fn page(&self, query: &TokenPageQuery) -> TokenPage {
        let (all, size) = (self.keys.len(), query.size.max(1));
        let matching: Option<Vec<&TokenKey>> = query.search.as_ref().map(|search| {
            let fits = |key: &TokenKey| self.keys.get(key).is_some_and(|entry| search.fits(key, &entry.searched()));
            self.order.keys().filter(|key| fits(key)).collect()
        });
        let found = matching.as_ref().map_or(all, Vec::len);
        let pages = found.div_ceil(size).max(1);
        let number = query.number.clamp(1, pages);
        let skipped = (number - 1).saturating_mul(size);
        let keys: Vec<&TokenKey> = match matching {
            Some(matching) => matching.into_iter().skip(skipped).take(size).collect(),
            None => self.order.keys().skip(skipped).take(size).collect(),
        };
        let now = self.clock.now();
        let row = |key: &TokenKey| self.keys.get(key).map(|entry| (entry.line(*key, now), entry.subject()));
        TokenPage { rows: keys.into_iter().filter_map(row).collect(), number, pages, found, all }
    }

    /// The key that is shown as this text.
    fn line(&self, text: &str) -> Option<LedgerLine> {
        let (key, entry) = self.keys.iter().find(|(key, _)| key.is_shown_as(text))?;
        Some(entry.line(*key, self.clock.now()))
    }

    /// The key of a provider's token, if that is being served.
    fn key_of(&self, provider: &str, token: (Fingerprint, u64)) -> Option<TokenKey> {
        let now = self.clock.now();
        let is_sent = |entry: &TokenEntry| {
            let lease = entry.token_slot.load();
            let lease = lease.as_ref().filter(|lease| lease.valid(now));
            *entry.spec.provider == *provider
                && lease.is_some_and(|lease| (lease.fingerprint, lease.generation) == token)
        };
        self.keys.iter().find(|(_, entry)| is_sent(entry)).map(|(key, _)| *key)
    }

    /// The tokens of each provider, summed up. Each key is looked at, none is kept.
    fn summary(&self) -> HashMap<Arc<str>, ProviderTokens> {
        let (now, mut summary) = (self.clock.now(), HashMap::<Arc<str>, ProviderTokens>::new());
        for (key, entry) in &self.keys {
            let line = entry.line(*key, now);
            summary.entry(Arc::clone(&line.provider)).or_default().add(line);
        }
        summary
    }

    fn ledger(&self) -> TokenTable {
        let now = self.clock.now();
        let mut lines: Vec<LedgerLine> = self.keys.iter().map(|(key, tracked)| tracked.line(*key, now)).collect();
        lines.sort_by(|a, b| (&a.provider, a.key).cmp(&(&b.provider, b.key)));
        TokenTable { lines }
    }
}

/// Returns whether a token is one of a secret that the config in force no longer has.
fn is_superseded(spec: &TokenSpec, modules: Option<&KeyMap<()>>) -> bool {
    spec.module.zip(modules).is_some_and(|(module, modules)| !modules.contains_key(&module))
}

fn crowded(inside: &str) -> Unavailable {
    Unavailable { class: Class::Transient, retry_after: Duration::from_secs(1), ours: true, inside: inside.into() }
}

async fn sleep(pause: Option<Duration>) {
    match pause {
        Some(pause) => tokio::time::sleep(pause).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
