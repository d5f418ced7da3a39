//! The state that all actors of one run share: dice, time, the trace, and the books against which promises are checked.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use super::plan::{ExchangeFate, Manner, Plan};
use crate::base::draw::seeded::Generator;
use crate::base::run_trace::RunTrace;
use crate::base::time::{Now, SimulatedClock};
use crate::token::policy::SETTLE;

/// The wall clock's reading when a run begins.
const WALL: u64 = 1_800_000_000_000;
/// A refusal is read to its end within this, in milliseconds, or not judged: the shorter of `body_idle` and `response`.
pub(super) const PATIENCE: u64 = 3_000;
/// A client that reads nothing is given up within this, in milliseconds.
pub(super) const STALLED: u64 = 40_000;

/// A token that the bank has issued.
#[derive(Debug)]
pub(super) struct Token {
    issued: u64,
    expires: u64,
    /// True once the bank refuses the token.
    pub(super) revoked: bool,
    /// A client has seen an answer to a call with it that was no error.
    accepted: bool,
    /// It may be tried again although it was refused.
    retried: bool,
    /// When it was proved to be refused, and to which request.
    refusals: Vec<(u64, usize)>,
}

/// A request, as its client knows it.
#[derive(Debug)]
pub(super) struct Asked {
    /// True if it must not be processed twice.
    payment: bool,
    /// Length of its body in bytes.
    length: usize,
    /// Length of the response's body that the bank is to send.
    wants: usize,
    /// The client has sent all of it.
    finished: bool,
    /// Time at which its client stopped waiting for the response.
    left: Option<u64>,
    deliveries: Vec<usize>,
}

/// A request, as it reached the bank.
#[derive(Debug)]
pub(super) struct Delivery {
    request: usize,
    token: usize,
    /// The bank has told the whole answer.
    finished: bool,
    /// Length of the response's body, as far as the bank sends it.
    reported: usize,
    /// When it came, and when the head of its answer was told.
    came: u64,
    head: u64,
    /// Proof that it was not processed; `None`: it may have been.
    proof: Option<&'static str>,
    /// The bank is not done with it.
    open: bool,
}

/// The state of one run, shared by all its actors.
pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) tokens: RefCell<Vec<Token>>,
    pub(super) requests: RefCell<Vec<Asked>>,
    deliveries: RefCell<Vec<Delivery>>,
    /// Connections to the bank, and of clients.
    pub(super) at_bank: Cell<u32>,
    pub(super) at_front: Cell<u32>,
    /// True if the proxy's own last response was a 503, which asks for a later attempt.
    rest: Cell<bool>,
    /// Clients that are not done.
    pub(super) clients: Cell<u32>,
    start: Instant,
    random: RefCell<Generator>,
    trace: RunTrace,
}

impl World {
    /// A world before anything happens. To be made inside the paused runtime.
    pub(super) fn new(seed: u64, traced: bool) -> Rc<Self> {
        let mut random = Generator::new(seed ^ 0xda7a);
        Rc::new(Self {
            plan: Plan::draw(&mut random),
            tokens: RefCell::default(),
            requests: RefCell::default(),
            deliveries: RefCell::default(),
            at_bank: Cell::new(0),
            at_front: Cell::new(0),
            rest: Cell::new(false),
            clients: Cell::new(0),
            start: Instant::now(),
            random: RefCell::new(random),
            trace: RunTrace::new(traced),
        })
    }

    /// Runs a task that counts for as long as it lives. Its panic is a finding like any other.
    pub(super) fn spawn(self: &Rc<Self>, count: fn(&Self) -> &Cell<u32>, task: impl Future<Output = ()> + 'static) {
        count(self).set(count(self).get() + 1);
        let counted = CountedBody(self.clone(), count);
        tokio::task::spawn_local(async move {
            let _counted = counted;
            task.await;
        });
    }

    /// Milliseconds since the run began.
    pub(super) fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Returns clocks that run with tokio's.
    pub(super) fn watch(&self) -> Watch {
        Watch(self.start)
    }

    /// A number below this one.
    pub(super) fn below(&self, end: u64) -> u64 {
        self.random.borrow_mut().next() % end.max(1)
    }

    /// Draws whether an event happens that does so this often in 100 times.
    pub(super) fn chance(&self, percent: u64) -> bool {
        percent > 0 && self.below(100) < percent
    }

    /// Waits for a random time of at most so many milliseconds.
    pub(super) async fn pause(&self, most: u64) {
        if most > 0 {
            tokio::time::sleep(Duration::from_millis(self.below(most))).await;
        }
    }

    /// Waits before the next request.
    pub(super) async fn think(&self) {
        let rest = if self.rest.take() { 1_500 } else { 0 };
        self.pause(self.plan.pace).await;
        tokio::time::sleep(Duration::from_millis(rest)).await;
    }

    /// Draws the bank's behaviour in an exchange.
    pub(super) fn fate(&self) -> ExchangeFate {
        let fates = &self.plan.fates;
        if self.chance(self.plan.fate) { fates[self.below(fates.len() as u64) as usize] } else { ExchangeFate::Fine }
    }

    /// Draws a client's behaviour in its next request.
    pub(super) fn manner(&self) -> Manner {
        let manners = &self.plan.manners;
        if self.chance(self.plan.manner) { manners[self.below(manners.len() as u64) as usize] } else { Manner::Polite }
    }

    /// Draws the length of a body, in bytes.
    pub(super) fn length(&self) -> usize {
        if self.chance(self.plan.large) { self.large() } else { 1 + self.below(2_000) as usize }
    }

    /// Draws the length of a body that is larger than the buffers.
    pub(super) fn large(&self) -> usize {
        300_000 + self.below(100_000) as usize
    }

    /// Writes a line of the trace.
    pub(super) fn note(&self, line: impl FnOnce() -> String) {
        self.trace.note(self.now(), line);
    }

    /// Records that a promise was broken; only the first one is kept.
    pub(super) fn broken(&self, what: impl FnOnce() -> String) {
        self.trace.broken(self.now(), what);
    }

    /// Returns the broken promise, if there is one, and the trace.
    pub(super) fn outcome(&self) -> (Option<String>, Vec<String>) {
        self.trace.outcome()
    }

    /// Issues a token and returns its position in `tokens`.
    pub(super) fn issue(&self) -> usize {
        let now = self.now();
        let expires = now + self.plan.life * 1000;
        let token =
            Token { issued: now, expires, revoked: false, accepted: false, retried: false, refusals: Vec::new() };
        self.tokens.borrow_mut().push(token);
        self.tokens.borrow().len() - 1
    }

    /// A client begins to send a request.
    pub(super) fn ask(&self, payment: bool, length: usize, wants: usize) -> usize {
        let finished = length == 0;
        let asked = Asked { payment, length, wants, finished, left: None, deliveries: Vec::new() };
        self.requests.borrow_mut().push(asked);
        self.requests.borrow().len() - 1
    }

    /// The client has sent all of it.
    pub(super) fn finish(&self, request: usize) {
        self.requests.borrow_mut()[request].finished = true;
    }

    /// The client waits for its answer no more.
    pub(super) fn leave(&self, request: usize, why: &str) {
        let asked = &mut self.requests.borrow_mut()[request];
        if asked.left.is_none() {
            self.note(|| format!("request {request}: {why}"));
            asked.left = Some(self.now());
        }
    }

    /// The head of a request has reached the bank: promises 1 and 4.
    pub(super) fn deliver(&self, request: usize, token: usize) -> usize {
        let (now, mut deliveries) = (self.now(), self.deliveries.borrow_mut());
        let at = deliveries.len();
        self.note(|| format!("request {request} reaches the bank with token {token}: delivery {at}"));
        let mut requests = self.requests.borrow_mut();
        let before = &requests[request].deliveries;
        if requests[request].payment {
            if let Some(other) = before.iter().find(|other| deliveries[**other].proof.is_none()) {
                self.broken(|| format!("payment {request} is delivered again after {other}, which may be processed"));
            }
            let replays = before.iter().filter(|other| deliveries[**other].proof == Some(REFUSED)).count();
            if replays > 1 {
                self.broken(|| format!("payment {request} is replayed {replays} times"));
            }
        }
        let known = &self.tokens.borrow()[token];
        if now > known.expires {
            self.broken(|| format!("token {token} is sent at {now} ms and has expired at {} ms", known.expires));
        }
        let heard = |at: u64, by: usize| at < now && requests[by].left.is_none_or(|left| left > at);
        if let Some((at, by)) = known.refusals.iter().find(|(at, by)| heard(*at, *by)) {
            self.broken(|| format!("token {token} is sent, which request {by} knows to be refused since {at} ms"));
        }
        requests[request].deliveries.push(at);
        let (finished, reported, proof, open) = (false, 0, None, true);
        deliveries.push(Delivery { request, token, finished, reported, came: now, head: now, proof, open });
        at
    }

    /// The bank has read a body to its end: promise 2.
    pub(super) fn read_whole(&self, delivery: usize, length: usize) {
        let request = self.deliveries.borrow()[delivery].request;
        let asked = &self.requests.borrow()[request];
        self.note(|| format!("delivery {delivery}: the bank has read all {length} bytes"));
        if !asked.finished || asked.length != length {
            self.broken(|| format!("the bank takes request {request} for whole: {length} of {} bytes", asked.length));
        }
    }

    /// The bank begins to answer.
    pub(super) fn begins(&self, delivery: usize, status: u16) {
        self.note(|| format!("delivery {delivery}: answered with {status}"));
        self.deliveries.borrow_mut()[delivery].head = self.now();
    }

    /// The bank will tell so much of a body.
    pub(super) fn tells(&self, delivery: usize, length: usize) {
        self.deliveries.borrow_mut()[delivery].reported = length;
    }

    /// The bank tells the end of its answer.
    pub(super) fn reported(&self, delivery: usize) {
        self.note(|| format!("delivery {delivery}: the answer is told"));
        self.deliveries.borrow_mut()[delivery].finished = true;
    }

    /// Notes that the response to this delivery proves that the token was refused.
    pub(super) fn refuses(&self, delivery: usize) {
        let (now, mut deliveries) = (self.now(), self.deliveries.borrow_mut());
        let delivery = &mut deliveries[delivery];
        delivery.proof = Some(REFUSED);
        let token = &mut self.tokens.borrow_mut()[delivery.token];
        // A token that was refused in its first moments, and never worked, may be tried once more.
        let young = delivery.came <= token.issued + u64::try_from(SETTLE.as_millis()).unwrap_or(u64::MAX);
        token.retried |= young && !token.accepted;
        // A response that arrives too slowly is passed on unjudged.
        if (!young || (token.accepted && !token.retried)) && now < delivery.head + PATIENCE {
            token.refusals.push((now, delivery.request));
        }
    }

    /// The bank takes all tokens back.
    pub(super) fn revoke(&self) {
        self.note(|| "the bank takes all tokens back".to_owned());
        self.tokens.borrow_mut().iter_mut().for_each(|token| token.revoked = true);
    }

    /// Returns the length of the response's body that is to be sent for a delivery.
    pub(super) fn wants(&self, delivery: usize) -> usize {
        self.requests.borrow()[self.asked(delivery)].wants
    }

    /// Returns the number of the request that was delivered.
    pub(super) fn asked(&self, delivery: usize) -> usize {
        self.deliveries.borrow()[delivery].request
    }

    /// The bank says that it did nothing with a request.
    pub(super) fn turns_away(&self, delivery: usize) {
        self.note(|| format!("delivery {delivery} is turned away"));
        self.deliveries.borrow_mut()[delivery].proof = Some("turned away");
    }

    /// The bank is done with it.
    pub(super) fn closes(&self, delivery: usize) {
        self.note(|| format!("delivery {delivery} is over"));
        self.deliveries.borrow_mut()[delivery].open = false;
    }

    /// A client has read an answer to its end: promise 3.
    pub(super) fn answered(&self, request: usize, status: u16, delivery: Option<usize>, length: usize) {
        self.leave(request, &format!("answered with {status}, {length} bytes of delivery {delivery:?}"));
        let Some(delivery) = delivery else {
            self.rest.set(status == 503);
            return;
        };
        let deliveries = self.deliveries.borrow();
        let found = &deliveries[delivery];
        if found.request != request {
            self.broken(|| format!("request {request} gets the answer to request {}", found.request));
        }
        if !found.finished || found.reported != length {
            self.broken(|| {
                format!("request {request} takes delivery {delivery} for whole: {length} of {} bytes", found.reported)
            });
        }
        if status < 400 {
            self.tokens.borrow_mut()[found.token].accepted = true;
        }
    }

    /// Exchanges at the bank for this request, or any, that are not over.
    pub(super) fn held(&self, request: Option<usize>) -> usize {
        let deliveries = self.deliveries.borrow();
        deliveries.iter().filter(|found| found.open && request.is_none_or(|request| found.request == request)).count()
    }
}

/// The proof that leads to a replay.
const REFUSED: &str = "refused";

/// Counts a task, and tells of its panic.
struct CountedBody(Rc<World>, fn(&World) -> &Cell<u32>);

impl Drop for CountedBody {
    fn drop(&mut self) {
        let count = (self.1)(&self.0);
        count.set(count.get() - 1);
        if std::thread::panicking() {
            self.0.broken(|| "a task panicked".to_owned());
        }
    }
}

/// Clocks that run with tokio's.
pub(super) struct Watch(Instant);

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watch")
    }
}

impl SimulatedClock for Watch {
    fn now(&self) -> Now {
        let run = u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX);
        Now { boot: 300_000_000 + run, wall: WALL + run }
    }
}
