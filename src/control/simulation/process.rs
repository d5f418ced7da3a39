//! One process of one replica: the real control plane, in a set of tasks of its own that can be dropped at any moment.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::task::LocalSet;
use tokio::time::Instant;

use super::news_lane::NewsLane;
use super::settings::snapshot;
use super::simulation_world::{ProcessClocks, Simulation};
use crate::base::time::Clock;
use crate::base::vars::Vars;
use crate::config::Snapshot;
use crate::control::{
    ConsentHandle, ConsentService, Events, Keeper, Limits, Registry, Reloading, Reloads, Rests, TokenHandle, TokenSlot,
    TokenSpec, Tracker, modules_in_force, token_spec, user_spec,
};
use crate::observe::audit::Auditor;
use crate::observe::metrics::Metrics;
use crate::store::{KeyRing, SealingKey, Store};
use crate::token::key::TokenKey;

thread_local! {
    /// The process whose code runs now.
    static CURRENT: RefCell<Option<Rc<Process>>> = const { RefCell::new(None) };
    /// Making them takes longer than a run may.
    static METRICS: Arc<Metrics> = Arc::new(Metrics::new());
    static RING: Arc<KeyRing> = {
        let key = SealingKey::from_base64(&"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=".to_owned().into());
        Arc::new(KeyRing::new(key.expect("32 bytes"), Vec::new()))
    };
}

/// The process whose code runs now; absent between them.
pub(super) fn current() -> Option<Rc<Process>> {
    CURRENT.with_borrow(Option::clone)
}

/// The lifecycle state of a process.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum State {
    Running,
    /// It was told to end, and has time until this moment.
    Draining(u64),
    Killed,
    /// It has ended after its drain.
    Ended,
}

/// One simulated process of a replica.
pub(super) struct Process {
    /// Its number; no two of a run have the same.
    pub(super) number: u32,
    /// The replica that it is one of.
    pub(super) replica: usize,
    pub(super) watch: Arc<ProcessClocks>,
    pub(super) lane: Rc<NewsLane>,
    pub(super) leases: TokenHandle,
    pub(super) consents: ConsentHandle,
    pub(super) audit: Auditor,
    /// Tokens that its clients reported as refused.
    pub(super) refused: RefCell<BTreeSet<usize>>,
    /// Tokens that it has sent.
    pub(super) sent: RefCell<BTreeSet<usize>>,
    /// Token slots that its workers remember, by key.
    pub(super) shelves: RefCell<BTreeMap<TokenKey, Arc<TokenSlot>>>,
    /// Requests of clients under way.
    pub(super) requests: Cell<u32>,
    /// Start of the process, in milliseconds of the run.
    pub(super) since: u64,
    /// End of the process, in milliseconds of the run; `u64::MAX` until then.
    pub(super) ended: Cell<u64>,
    /// True once a successor has been started or scheduled.
    pub(super) replaced: Cell<bool>,
    tasks: Tracker,
    rests: Rests,
    reloading: Reloading,
    config: Cell<usize>,
    /// Serial of its config: the number of its reloads so far.
    serial: Cell<u64>,
    state: Cell<State>,
    waker: RefCell<Option<Waker>>,
    world: Rc<Simulation>,
}

impl Process {
    /// Starts a process and adds it to the simulation.
    pub(super) fn start(world: &Rc<Simulation>, replica: usize, config: usize, uptime: u64, error: i64) -> Rc<Self> {
        let number = world.started.get();
        world.started.set(number + 1);
        let watch = world.watch(uptime, error);
        let clock = Clock::Simulated(watch.clone());
        let lane = NewsLane::new(world.clone(), number);
        let store = Store::simulated(world.place.clone(), lane.clone(), RING.with(Arc::clone), clock.clone());
        lane.attach(store.clone());
        let (leases, inbox) = TokenHandle::open();
        let (consents, registry) = ConsentHandle::open();
        let (reloads, reloading) = Reloads::open(snapshot(config), clock.now().wall);
        let audit = Auditor::off();
        let (tasks, rests) = (Tracker::default(), Rests::default());
        let process = Rc::new(Self {
            number,
            replica,
            watch,
            lane,
            leases: leases.clone(),
            consents,
            audit: audit.clone(),
            refused: RefCell::default(),
            sent: RefCell::default(),
            shelves: RefCell::default(),
            requests: Cell::new(0),
            since: world.now(),
            ended: Cell::new(u64::MAX),
            replaced: Cell::new(false),
            tasks: tasks.clone(),
            rests: rests.clone(),
            reloading,
            config: Cell::new(config),
            serial: Cell::new(0),
            state: Cell::new(State::Running),
            waker: RefCell::default(),
            world: world.clone(),
        });
        world.note(|| {
            format!("{process} starts with config {config}, uptime {uptime} ms, wall clock wrong by {error} ms")
        });
        let set = LocalSet::new();
        let desk = ConsentService {
            store: store.clone(),
            clock: clock.clone(),
            leases,
            events: Events::open(clock.clone()),
            audit,
            tasks: tasks.clone(),
            rests: rests.clone(),
        };
        let keeper = Keeper::behind(inbox, clock, Limits::default(), Box::new(()), Some(store));
        set.spawn_local(keeper.with_renewals(tasks, rests).run());
        set.spawn_local(Registry::run(registry, desk, METRICS.with(Arc::clone), reloads));
        world.spawn(Machine { process: process.clone(), tasks: Some(set) });
        world.processes.borrow_mut().push(process.clone());
        process
    }

    pub(super) fn clock(&self) -> Clock {
        Clock::Simulated(self.watch.clone())
    }

    /// The config that it has.
    pub(super) fn config(&self) -> Arc<Snapshot> {
        snapshot(self.config.get())
    }

    pub(super) const fn config_number(&self) -> usize {
        self.config.get()
    }

    /// Returns the spec of the application's token at this provider.
    pub(super) fn application(&self, name: &str) -> Arc<TokenSpec> {
        token_spec(super::settings::route(&self.config(), name), Vars::none(), &self.clock(), self.serial.get())
    }

    /// The same, as the bank sees it.
    pub(super) fn asks_with(&self, name: &str) -> String {
        let config = self.config();
        let host = super::settings::provider(&config, name).base_url.bare_host();
        format!("{host} secret-{}", super::settings::secret(self.config.get()))
    }

    /// Returns the spec of a user's token.
    pub(super) fn of_user(&self, user: usize) -> Arc<TokenSpec> {
        let key = self.world.users[user].key.clone();
        let provider = super::settings::provider(&self.config(), &key.provider).clone();
        user_spec(&provider, key, self.serial.get(), &self.clock(), &self.audit).expect("a provider with users")
    }

    /// Tasks that must not be abandoned, under way.
    pub(super) fn running(&self) -> usize {
        self.tasks.running()
    }

    pub(super) const fn state(&self) -> State {
        self.state.get()
    }

    pub(super) fn is_running(&self) -> bool {
        self.state.get() == State::Running
    }

    /// Returns whether it was killed and no other process has been started in its place.
    pub(super) fn is_killed_by_itself(&self) -> bool {
        self.state.get() == State::Killed && !self.replaced.get()
    }

    /// Returns whether its unfinished work is excused: it was killed, or its time to end is over.
    pub(super) fn is_dying(&self) -> bool {
        match self.state.get() {
            State::Killed => true,
            State::Draining(until) => self.world.now() >= until,
            State::Ended | State::Running => false,
        }
    }

    /// Returns whether it was alive, and had a working store for long enough, to save the data that it had at this
    /// moment.
    pub(super) fn could_save_since(&self, at: u64) -> bool {
        let now = self.world.now();
        self.state.get() != State::Killed && self.lane.whole_since() <= at && now >= at + 2_000
    }

    /// Puts another config in force, in the order in which the process itself does so.
    pub(super) fn reload(&self, config: usize) {
        self.world.note(|| format!("{self} reloads: config {config}"));
        self.config.set(config);
        self.serial.set(self.serial.get() + 1);
        self.reloading.current.send_replace(snapshot(config));
        self.forgive();
    }

    /// Ends all rests of the process, and removes them from the banks' records.
    pub(super) fn forgive(&self) {
        self.leases.reloaded(modules_in_force(&snapshot(self.config.get())));
        self.rests.forgive();
        self.world.bank.borrow_mut().floors.retain(|(process, _), _| *process != self.number);
    }

    /// Ends it at once, wherever it is.
    pub(super) fn kill(&self) {
        if matches!(self.state.get(), State::Running | State::Draining(_)) {
            self.world.note(|| format!("{self} is killed"));
            self.excuse_unsaved();
            self.state.set(State::Killed);
            self.ended.set(self.world.now());
            self.wake();
        }
    }

    /// Excuses the loss of consents with new refresh tokens that it received and may not have saved yet.
    fn excuse_unsaved(&self) {
        let now = self.world.now();
        let lately = self.lane.whole_since().max(now.saturating_sub(7_000));
        let mut lost = Vec::new();
        for refresh in &self.world.bank.borrow().refreshes {
            if let Some(super::bank::RefreshDelivery::Delivered { process, at }) = refresh.spent
                && process == self.number
                && (at >= lately || !self.could_save_since(at))
            {
                lost.push(refresh.consent);
            }
        }
        for consent in lost {
            self.world.excuse(consent, "a process was killed before it could save");
        }
    }

    /// Ends it as a signal does: what is under way has so many milliseconds.
    pub(super) async fn drain(self: Rc<Self>, limit: u64) {
        let until = self.world.now() + limit;
        self.world.note(|| format!("{self} is told to end within {limit} ms"));
        self.state.set(State::Draining(until));
        let end = Instant::now() + Duration::from_millis(limit);
        self.tasks.close_at(end);
        while self.requests.get() > 0 && self.world.now() < until {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // The control thread ends when the workers have, and what must not be abandoned is done.
        let _lost = self.tasks.finish(end).await;
        if matches!(self.state.get(), State::Draining(_)) {
            self.world.note(|| format!("{self} ends"));
            if self.world.now() >= until {
                self.excuse_unsaved();
            }
            self.state.set(State::Ended);
            self.ended.set(self.world.now());
            self.wake();
        }
    }

    /// Kills the process at random, in the middle of an operation. Never returns once the process has ended.
    pub(super) async fn perhaps_die(&self) {
        if self.world.plan.crashes && self.world.strikes(100) {
            self.kill();
        }
        if matches!(self.state.get(), State::Ended | State::Killed) {
            std::future::pending().await
        }
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} of replica {}", self.number, self.replica)
    }
}

/// The future that runs a process's tasks, and drops them when the process ends.
struct Machine {
    process: Rc<Process>,
    tasks: Option<LocalSet>,
}

impl Future for Machine {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let process = self.process.clone();
        CURRENT.set(Some(process.clone()));
        let poll = match (process.state.get(), &mut self.tasks) {
            (State::Draining(_) | State::Running, Some(tasks)) => {
                *process.waker.borrow_mut() = Some(cx.waker().clone());
                Pin::new(tasks).poll(cx)
            }
            (State::Ended | State::Killed, _) | (_, None) => {
                self.tasks = None;
                Poll::Ready(())
            }
        };
        CURRENT.set(None);
        poll
    }
}
