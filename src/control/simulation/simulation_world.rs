//! The state that all actors of one run share: the seed's random numbers, the time, the trace, and the first broken
//! promise.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::bank::SimulatedBanks;
use super::panics;
use super::plan::SimulationPlan;
use super::process::Process;
use super::user::User;
use crate::base::draw::seeded::Generator;
use crate::base::run_trace::RunTrace;
use crate::base::time::{Clock, Now, SimulatedClock};
use crate::store::simulated::SharedStore;

/// The wall clock's reading when a run begins.
const WALL: u64 = 1_800_000_000_000;

type Task = Pin<Box<dyn Future<Output = ()>>>;

/// The shared state of one run.
pub(super) struct Simulation {
    pub(super) plan: SimulationPlan,
    pub(super) bank: RefCell<SimulatedBanks>,
    pub(super) place: Rc<SharedStore>,
    pub(super) processes: RefCell<Vec<Rc<Process>>>,
    pub(super) users: Vec<User>,
    /// True while faults may still happen.
    pub(super) storm: Cell<bool>,
    /// Processes that were started so far.
    pub(super) started: Cell<u32>,
    /// The largest and the smallest error of a wall clock so far, in milliseconds.
    errors: Cell<(i64, i64)>,
    /// Tokens that a replica's clients reported as refused, and when.
    reported: RefCell<BTreeMap<(usize, usize), u64>>,
    /// When a client last told of a suspicion.
    suspected: Cell<Option<u64>>,
    /// Until when renewals may be late without anybody's fault.
    hindered: Cell<u64>,
    start: Instant,
    random: RefCell<Generator>,
    tasks: mpsc::UnboundedSender<Task>,
    trace: RunTrace,
}

impl Simulation {
    /// A world before anything happens. To be made inside the paused runtime.
    pub(super) fn new(seed: u64, traced: bool) -> Rc<Self> {
        let mut random = Generator::new(seed ^ 0x5eed);
        let plan = SimulationPlan::draw(&mut random);
        let start = Instant::now();
        let (tasks, mut begun) = mpsc::unbounded_channel::<Task>();
        tokio::task::spawn_local(async move {
            while let Some(task) = begun.recv().await {
                tokio::task::spawn_local(task);
            }
        });
        let place = SharedStore::new(Clock::Simulated(Arc::new(ProcessClocks::new(start, 0))), plan.shared);
        Rc::new(Self {
            users: User::all(),
            plan,
            bank: RefCell::default(),
            place,
            processes: RefCell::default(),
            storm: Cell::new(true),
            started: Cell::new(0),
            errors: Cell::new((0, 0)),
            reported: RefCell::default(),
            suspected: Cell::new(None),
            hindered: Cell::new(0),
            start,
            random: RefCell::new(random),
            tasks,
            trace: RunTrace::new(traced),
        })
    }

    /// Runs a task that belongs to the simulation. The caller may be inside a process: the task outlives that process.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        let _ended = self.tasks.send(Box::pin(task));
    }

    /// Milliseconds since the run began.
    pub(super) fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// A number below this one.
    pub(super) fn below(&self, end: u64) -> u64 {
        self.random.borrow_mut().next() % end.max(1)
    }

    /// A number of this range, its end excluded.
    pub(super) fn between(&self, from: u64, to: u64) -> u64 {
        from + self.below(to - from)
    }

    /// Returns at random whether an event with this rate per 10,000 occurs. Always false once the faults are over.
    pub(super) fn strikes(&self, often: u64) -> bool {
        often > 0 && self.storm.get() && self.below(10_000) < often
    }

    /// Returns at random whether an event with this probability in percent occurs.
    pub(super) fn chance(&self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// Waits for a random time of this range, in milliseconds.
    pub(super) async fn pause(&self, from: u64, to: u64) {
        tokio::time::sleep(Duration::from_millis(self.between(from, to))).await;
    }

    /// A watch for one process.
    pub(super) fn watch(&self, uptime: u64, error: i64) -> Arc<ProcessClocks> {
        let watch = Arc::new(ProcessClocks::new(self.start, signed(uptime) - signed(self.now())));
        self.set_wall(&watch, error);
        watch
    }

    /// Sets a wall clock wrong by this much.
    pub(super) fn set_wall(&self, watch: &ProcessClocks, error: i64) {
        watch.error.store(error, Ordering::SeqCst);
        let (most, least) = self.errors.get();
        self.errors.set((most.max(error), least.min(error)));
    }

    /// By how much two wall clocks have differed at most.
    pub(super) fn spread(&self) -> u64 {
        let (most, least) = self.errors.get();
        most.abs_diff(least)
    }

    /// A replica's clients report that a token was refused.
    pub(super) fn report(&self, replica: usize, token: usize) {
        let now = self.now();
        self.reported.borrow_mut().entry((replica, token)).or_insert(now);
    }

    /// Returns whether the replica's clients reported this token long enough before `since`, with a working store: then
    /// the replica's next process knows of the refusal.
    pub(super) fn was_reported(&self, replica: usize, token: usize, since: u64) -> bool {
        let at = self.reported.borrow().get(&(replica, token)).copied();
        let before =
            self.processes.borrow().iter().rfind(|other| other.replica == replica && other.since < since).cloned();
        at.zip(before)
            .is_some_and(|(at, before)| before.lane.whole_since() <= at && at + 2_000 < since.min(before.ended.get()))
    }

    /// A client tells its process to suspect a token.
    pub(super) fn suspect(&self) {
        self.suspected.set(Some(self.now()));
    }

    /// Returns whether a client has reported a suspicion since this moment: a renewal that it forces may fail, and be tried
    /// again for as long as none succeeds.
    pub(super) fn suspects_since(&self, at: u64) -> bool {
        self.suspected.get().is_some_and(|suspected| suspected >= at)
    }

    /// Until this moment renewals may be late without anybody's fault.
    pub(super) fn hinder(&self, until: u64) {
        self.hindered.set(self.hindered.get().max(until));
    }

    /// Returns the latest moment that was passed to [`Simulation::hinder`].
    pub(super) fn hindered(&self) -> u64 {
        self.hindered.get()
    }

    /// A consent may be lost from now on: nothing could have saved it.
    pub(super) fn excuse(&self, consent: usize, why: &'static str) {
        self.note(|| format!("consent {consent} may be lost: {why}"));
        self.bank.borrow_mut().consents[consent].excuse.get_or_insert(why);
    }

    /// Writes a line of the trace.
    pub(super) fn note(&self, line: impl FnOnce() -> String) {
        self.trace.note(self.now(), line);
    }

    /// Records a broken promise; only the first one is kept.
    pub(super) fn broken(&self, what: impl FnOnce() -> String) {
        self.trace.broken(self.now(), what);
    }

    /// Returns whether a promise was broken. A panic counts as a broken promise.
    pub(super) fn is_broken(&self) -> bool {
        if let Some(panic) = panics::heard() {
            self.broken(|| panic);
        }
        self.trace.is_broken()
    }

    /// Returns the first broken promise, if any, and the trace.
    pub(super) fn outcome(&self) -> (Option<String>, Vec<String>) {
        let _heard = self.is_broken();
        self.trace.outcome()
    }
}

/// The clocks of one process: its machine's uptime, and a wall clock that may be wrong.
pub(super) struct ProcessClocks {
    start: Instant,
    /// Milliseconds by which the boot clock is ahead of the run; negative if it is behind.
    ahead: i64,
    error: AtomicI64,
}

impl ProcessClocks {
    fn new(start: Instant, ahead: i64) -> Self {
        Self { start, ahead, error: AtomicI64::new(0) }
    }

    /// By how much its wall clock is wrong.
    pub(super) fn error(&self) -> i64 {
        self.error.load(Ordering::SeqCst)
    }
}

impl fmt::Debug for ProcessClocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProcessClocks")
    }
}

impl SimulatedClock for ProcessClocks {
    fn now(&self) -> Now {
        let run = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        Now { boot: run.saturating_add_signed(self.ahead), wall: (WALL + run).saturating_add_signed(self.error()) }
    }
}

fn signed(millis: u64) -> i64 {
    i64::try_from(millis).unwrap_or(i64::MAX)
}
