//! A model check of the messages between workers and keeper: publish, withdraw, wait, hang up, forget.
//!
//! The state machine is the real one, [`TokenState`]. Around it are a keeper that carries its actions out in the order
//! of the real one, shelves with the steps of the real token slots (a lease stored, then retired and emptied), workers
//! that look, ask, report refusals and hang up, and banks that respond late: each a thread of `shuttle`, which runs
//! them in thousands of orders, switching at every atomic, lock and message.
//!
//! It shows, for every order tried:
//!
//! - one fetch at a time, and no more fetches than one, plus one per refused generation, per forgotten key and per
//!   failed fetch;
//! - every waiter gets a response, even if others hang up (a lost response would be a deadlock, which `shuttle`
//!   reports);
//! - a token leaves the shelf with the news that it was refused, before anything else happens;
//! - a worker that got a response after reporting a refused generation never receives that one or an older one again,
//!   neither in a response nor on a shelf, not even on the shelf of a key that was forgotten meanwhile;
//! - a shelf goes forward only, and one that was seen retired *and then* empty stays empty.
//!
//! It cannot show the parts that the model leaves out: the lock-free cell itself (`arc_swap` has its own checks) and
//! tokio's channels. All accesses count as sequentially consistent; the shelf relies on no weaker order than acquire
//! and release.

use std::collections::HashSet;
use std::time::Duration;

use shuttle::rand::{Rng as _, thread_rng};
use shuttle::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use shuttle::sync::mpsc::{Receiver, Sender, channel};
use shuttle::sync::{Arc, Mutex};
use shuttle::thread;

use crate::base::time::{Deadline, Now};
use crate::token::failure::{Class, Failure};
use crate::token::policy::Policy;
use crate::token::state::{Action, Arrived, Event, PhaseKind, TokenOrigin, TokenState};

const NOW: Now = Now::at(1_000_000, 2_000_000);
const LIFE: Duration = Duration::from_secs(1800);
const POLICY: Policy =
    Policy { refresh_before: Duration::from_secs(60), fetch_timeout: Duration::from_secs(10), overlap: true };

/// The shelf, with a generation for a lease; 0 is none.
#[derive(Default)]
struct ModelShelf {
    generation: AtomicU64,
    retired: AtomicBool,
}

impl ModelShelf {
    fn take(&self) -> Option<u64> {
        Some(self.generation.load(Ordering::SeqCst)).filter(|generation| *generation != 0)
    }

    /// Sets the generation, which may only grow, or 0. Called by the keeper alone.
    fn put(&self, generation: u64) {
        let before = self.generation.swap(generation, Ordering::SeqCst);
        assert!(generation == 0 || generation > before, "{before} was followed by {generation}");
        assert!(generation == 0 || !self.retired.load(Ordering::SeqCst), "something was laid on a retired shelf");
    }

    fn retire(&self) {
        self.retired.store(true, Ordering::SeqCst);
        self.put(0);
    }
}

/// A generation, and the shelf on which its successors will lie; or none.
type ModelAnswer = Option<(u64, Arc<ModelShelf>)>;

enum ModelMessage {
    /// The key has not been used for long, or room is needed.
    Forget,
    Landed {
        flight: u64,
        good: bool,
    },
    Need {
        answer: Sender<ModelAnswer>,
    },
    /// A token that settles has had its time.
    Passed,
    Refused {
        generation: u64,
        answer: Sender<ModelAnswer>,
    },
    Withdrawn {
        generation: u64,
    },
}

/// The bank's state that all threads share.
#[derive(Default)]
struct ModelBank {
    under_way: AtomicUsize,
    fetches: AtomicUsize,
    forgotten: AtomicUsize,
    /// Generations up to here are refused.
    dead: AtomicU64,
    refused: Mutex<HashSet<u64>>,
}

struct ModelKeeper {
    slot: TokenState,
    token_slot: Arc<ModelShelf>,
    waiters: Vec<Sender<ModelAnswer>>,
    bank: Arc<ModelBank>,
    sender: Sender<ModelMessage>,
    fails: bool,
    /// True if tokens are young when they arrive, so that a refusal sets them aside.
    young: bool,
    now: Now,
    timer: bool,
}

impl ModelKeeper {
    /// Runs until no thread can send messages any more; then no waiter may be left.
    fn run(mut self, inbox: &Receiver<ModelMessage>, ends: &AtomicUsize) {
        loop {
            // The fetches hold a way to us, too, so the channel alone does not tell the end.
            let idle = self.slot.flight().is_none() && !self.timer && ends.load(Ordering::SeqCst) == 0;
            let message = match inbox.try_recv() {
                Ok(message) => message,
                Err(_) if idle => break,
                Err(_) => match inbox.recv() {
                    Ok(message) => message,
                    Err(_) => break,
                },
            };
            self.receive(message);
        }
        assert!(self.waiters.is_empty(), "somebody was forgotten");
    }

    fn receive(&mut self, message: ModelMessage) {
        match message {
            ModelMessage::Forget => self.forget(),
            ModelMessage::Landed { flight, good: true } => {
                // One that is not young has been on its way for long.
                let age = if self.young { 0 } else { 5_000 };
                let issued = Now::at(self.now.boot - age, self.now.wall - age);
                let arrived = Arrived { issued, expires: Deadline::after(issued, LIFE), origin: TokenOrigin::Issued };
                self.step(Event::Fetched { flight, arrived });
            }
            ModelMessage::Landed { flight, good: false } => {
                self.step(Event::Failed { flight, failure: Failure::new(Class::Transient, "weather") });
            }
            ModelMessage::Need { answer } => {
                self.waiters.push(answer);
                self.step(Event::Needed);
            }
            ModelMessage::Passed => {
                self.timer = false;
                self.now = self.now.plus(Duration::from_secs(100));
                self.step(Event::Tick { used: false });
            }
            ModelMessage::Refused { generation, answer } => {
                self.waiters.push(answer);
                self.step(Event::Refused { generation, replaced: false });
                self.never_lies(generation);
            }
            ModelMessage::Withdrawn { generation } => {
                self.step(Event::Withdrawn { generation, replaced: false });
                self.never_lies(generation);
            }
        }
    }

    /// From the moment that we know of a refusal.
    fn never_lies(&self, refused: u64) {
        assert_ne!(self.token_slot.take(), Some(refused), "a refused token is still on the shelf");
    }

    fn step(&mut self, event: Event) {
        let mut actions = Vec::new();
        self.slot = std::mem::take(&mut self.slot).step(event, self.now, &POLICY, 0, &mut actions);
        for action in actions {
            match action {
                Action::Abandon { .. } => unreachable!("no clock moves here"),
                Action::Deny(_) => self.answer(|| None),
                Action::Fetch { flight } => self.fetch(flight),
                Action::Publish { generation, .. } | Action::Republish { generation, .. } => {
                    self.token_slot.put(generation)
                }
                Action::Invalidate { .. } | Action::Report(_) => {}
                Action::SetAside { .. } => {
                    self.timer = true;
                    let sender = self.sender.clone();
                    thread::spawn(move || {
                        thread::yield_now();
                        let _ended = sender.send(ModelMessage::Passed);
                    });
                }
                Action::Serve => {
                    let generation = self.token_slot.take().expect("`Serve` follows a publication");
                    let token_slot = self.token_slot.clone();
                    self.answer(|| Some((generation, token_slot.clone())));
                }
                Action::Withdraw { .. } => self.token_slot.put(0),
            }
        }
    }

    /// Sends this to all waiters. One that hung up is ignored.
    fn answer(&mut self, what: impl Fn() -> ModelAnswer) {
        for waiter in self.waiters.drain(..) {
            let _hung_up = waiter.send(what());
        }
    }

    fn fetch(&mut self, flight: u64) {
        assert_eq!(self.bank.under_way.fetch_add(1, Ordering::SeqCst), 0, "two fetches at once");
        self.bank.fetches.fetch_add(1, Ordering::SeqCst);
        let (bank, sender, good) = (self.bank.clone(), self.sender.clone(), !std::mem::take(&mut self.fails));
        thread::spawn(move || {
            thread::yield_now();
            bank.under_way.fetch_sub(1, Ordering::SeqCst);
            let _ended = sender.send(ModelMessage::Landed { flight, good });
        });
    }

    /// As the real one: a key that is being fetched or waited for stays; who comes back starts above the old numbers.
    fn forget(&mut self) {
        let idle = self.waiters.is_empty() && self.slot.flight().is_none();
        if idle && matches!(self.slot.waiting(), PhaseKind::Empty | PhaseKind::Live) {
            self.token_slot.retire();
            self.slot = TokenState::starting_after(self.slot.generation());
            self.token_slot = Arc::default();
            self.bank.forgotten.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// A worker's end: the shelf that it remembers, and the highest generation that it may not meet again.
struct ModelWorker {
    keeper: Sender<ModelMessage>,
    bank: Arc<ModelBank>,
    token_slot: Option<Arc<ModelShelf>>,
    refused: u64,
}

impl ModelWorker {
    /// One request: look, ask, send, be refused, ask again. `None` where there was no token, or it hung up.
    fn request(&mut self, hangs_up: bool) -> Option<()> {
        let (generation, token_slot) = match self.look() {
            Some(found) => found,
            None => self.ask(hangs_up, |answer| ModelMessage::Need { answer })?,
        };
        self.meet(generation, token_slot);
        if generation > self.bank.dead.load(Ordering::SeqCst) {
            return Some(());
        }
        self.bank.refused.lock().expect("not poisoned").insert(generation);
        if hangs_up && thread_rng().gen_bool(0.3) {
            // Its request cannot be replayed: it only brings the news.
            self.keeper.send(ModelMessage::Withdrawn { generation }).expect("the keeper outlives us");
            return None;
        }
        let (newer, token_slot) = self.ask(hangs_up, |answer| ModelMessage::Refused { generation, answer })?;
        self.refused = self.refused.max(generation);
        self.meet(newer, token_slot);
        Some(())
    }

    fn meet(&mut self, generation: u64, token_slot: Arc<ModelShelf>) {
        assert!(generation > self.refused, "{generation} came back after {} was refused", self.refused);
        self.token_slot = Some(token_slot);
    }

    /// Returns the remembered shelf and the generation on it, if there is one.
    fn look(&self) -> Option<(u64, Arc<ModelShelf>)> {
        let token_slot = self.token_slot.as_ref()?;
        let retired = token_slot.retired.load(Ordering::SeqCst);
        let found = token_slot.take();
        if retired && found.is_none() {
            assert_eq!(token_slot.take(), None, "a retired shelf was filled again");
        }
        found.map(|generation| (generation, token_slot.clone()))
    }

    fn ask(&self, hangs_up: bool, message: impl FnOnce(Sender<ModelAnswer>) -> ModelMessage) -> ModelAnswer {
        let (answer, waiting) = channel();
        self.keeper.send(message(answer)).expect("the keeper outlives us");
        if hangs_up && thread_rng().gen_bool(0.5) {
            return None;
        }
        waiting.recv().expect("whoever waits is answered")
    }
}

/// The size of a model run: its numbers of workers and events.
#[derive(Clone, Copy)]
struct ModelSize {
    workers: usize,
    requests: usize,
    revocations: usize,
    forgets: usize,
    hang_ups: bool,
}

const LARGE: ModelSize = ModelSize { workers: 3, requests: 2, revocations: 2, forgets: 2, hang_ups: true };
const SMALL: ModelSize = ModelSize { workers: 2, requests: 1, revocations: 1, forgets: 0, hang_ups: false };

/// So many workers, some of whom hang up, a bank that revokes its tokens, and a key that is forgotten now and then.
fn world(size: ModelSize, fails: bool, young: bool) {
    let ModelSize { workers, requests, revocations, forgets, hang_ups } = size;
    let bank: Arc<ModelBank> = Arc::default();
    let (sender, inbox) = channel();
    let ends = Arc::new(AtomicUsize::new(workers + 1));
    let keeper = ModelKeeper {
        slot: TokenState::default(),
        token_slot: Arc::default(),
        waiters: Vec::new(),
        bank: bank.clone(),
        sender: sender.clone(),
        fails,
        young,
        now: NOW,
        timer: false,
    };
    let keeping = {
        let ends = ends.clone();
        thread::spawn(move || keeper.run(&inbox, &ends))
    };
    let mut threads = Vec::new();
    for number in 0..workers {
        let mut worker = ModelWorker { keeper: sender.clone(), bank: bank.clone(), token_slot: None, refused: 0 };
        let ends = ends.clone();
        threads.push(thread::spawn(move || {
            for _ in 0..requests {
                worker.request(hang_ups && number % 2 == 1);
            }
            last_word(&ends, &worker.keeper);
        }));
    }
    let operator = sender;
    for _ in 0..revocations {
        thread::yield_now();
        bank.dead.fetch_add(1, Ordering::SeqCst);
    }
    for _ in 0..forgets {
        operator.send(ModelMessage::Forget).expect("the keeper outlives us");
    }
    last_word(&ends, &operator);
    for thread in threads {
        thread.join().expect("no panic");
    }
    keeping.join().expect("no panic");
    let allowed = 1
        + usize::from(fails)
        + bank.refused.lock().expect("not poisoned").len()
        + bank.forgotten.load(Ordering::SeqCst);
    let fetches = bank.fetches.load(Ordering::SeqCst);
    assert!(fetches <= allowed, "{fetches} fetches where {allowed} are enough");
}

/// Says that we are done, and wakes the keeper to see it.
fn last_word(ends: &AtomicUsize, keeper: &Sender<ModelMessage>) {
    ends.fetch_sub(1, Ordering::SeqCst);
    // News about a generation that never was: the keeper need not be there to hear it.
    let _ended = keeper.send(ModelMessage::Withdrawn { generation: u64::MAX });
}

#[test]
fn whoever_waits_is_answered_and_nobody_meets_a_refused_token_again() {
    shuttle::check_random(|| world(LARGE, false, false), 1500);
}

#[test]
fn the_same_holds_in_the_orders_that_few_switches_make() {
    shuttle::check_pct(|| world(LARGE, false, false), 1000, 3);
}

#[test]
fn a_failed_fetch_answers_all_who_wait_as_well() {
    shuttle::check_random(|| world(LARGE, true, false), 1000);
}

#[test]
fn two_workers_and_one_refusal_in_the_first_orders_of_all() {
    shuttle::check_dfs(|| world(SMALL, false, false), Some(3000));
}

#[test]
fn the_same_holds_while_refused_newborns_are_set_aside() {
    shuttle::check_random(|| world(LARGE, false, true), 1500);
    shuttle::check_random(|| world(LARGE, true, true), 500);
}
