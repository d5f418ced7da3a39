//! Deadlines of a client's connection: a request's head, the silence between requests, and an answer that the client
//! does not take.
//!
//! **Rest.** Without a request for a moment, a connection of HTTP/1.1 has neither the buffers of HTTP nor the state of its
//! parser: it waits with its stream alone, and HTTP begins anew with the next request's first byte.
//!
//! One timer per connection. It is set anew only when it has run out, or must come earlier, so that a request on a busy
//! connection touches no timer at all. Progress is noted by flags and counters; the clock is read when the timer has run
//! out, and when a write has to wait.
//!
//! An answer is not taken where the socket takes nothing (HTTP/1.1, and HTTP/2 as a whole), or where one stream of
//! HTTP/2 has no window (RFC 9113 section 5.2). Time counts against the client only while something waits for it: a
//! provider that is silent is its own matter. A connection whose socket is stuck is closed, a stuck stream is reset, and
//! either lets the provider's connection go.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::rt::Executor;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::AbortHandle;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::WaitForCancellationFuture;

use crate::base::planted::{PlantedFault, planted};
use crate::base::sent_bytes::SentBytes;
use crate::base::time::{Clock, Now};
use crate::config::Limits;
use crate::serve::connections::opening::{Opening, PREFACE};

/// So long a connection that is being closed may stay idle: what its client has sent before it knew is answered.
pub const FAREWELL: Duration = Duration::from_secs(2);
/// Time without a request after which a connection of HTTP/1.1 rests.
const REST: Duration = Duration::from_millis(100);
/// A response of HTTP/1.1 is not read on while the client has yet to take so many bytes of it.
const BACKLOG: u64 = 32 * 1024;
/// Stands for "not before something happens".
const NEVER: Duration = Duration::from_secs(3600);

/// The reason for which a connection is over.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ConnectionEnd {
    /// An answer broke off, and with it the connection.
    BrokenOff,
    /// HTTP ended on it, with or without an error, and no deadline had passed.
    Closed,
    /// The client speaks HTTP/2 without having agreed on it.
    Preface,
    /// A request's head took too long.
    HeadTooSlow,
    /// No request came for too long.
    Idle,
    /// None: no request came for a moment, and the connection waits for the next one without the state of HTTP.
    Resting,
    /// The client took nothing of what waits for it.
    Stalled,
}

/// The state of a client's connection that its deadlines depend on.
pub struct Activity {
    clock: Clock,
    in_flight: Cell<u32>,
    /// Those among them whose answer has not begun.
    unanswered: Cell<u32>,
    /// True once there was a request.
    used: Cell<bool>,
    head_since: Cell<Option<Now>>,
    idle_since: Cell<Now>,
    /// True while the connection is at rest.
    resting: Cell<bool>,
    /// When the latest rest ended.
    awake_since: Cell<Now>,
    /// True once the connection must not rest any more.
    restless: Cell<bool>,
    /// Set once the connection is to close.
    closing: Cell<bool>,
    /// Time for the head of a request.
    header_timeout: Option<Duration>,
    /// Time without a request, and time for which a client may take no bytes of a response, unless the response sets
    /// another.
    patience: Option<Duration>,
    /// The shortest patience so far: the timer runs no longer than that.
    shortest: Cell<Duration>,
    /// The timer must come earlier than it was set.
    earlier: Cell<bool>,
    /// A write waits for the socket.
    blocked: Cell<bool>,
    /// A response waits, because the client has yet to take too much of it.
    backlogged: Cell<bool>,
    /// Since when nothing has moved while a write or a response waits.
    stuck_since: Cell<Now>,
    /// Bytes that the socket has taken.
    sent: Rc<SentBytes>,
    /// As many when that was last looked at.
    seen: Cell<u64>,
    /// True if a response is read from its provider no faster than the client takes it.
    keeps_up: Cell<bool>,
    /// True once the client took no bytes for too long: all requests in progress end with the connection.
    stalled: Cell<bool>,
    exchanges: RefCell<Vec<ExchangeGuard>>,
    /// Index of a free entry in `exchanges`; their number if none is free.
    free: Cell<usize>,
    /// The one that began last, until its task is known.
    newest: Cell<Option<usize>>,
}

/// An entry for a request in progress.
struct ExchangeGuard {
    /// The next that is free, while this is.
    free: usize,
    /// A piece of its answer waits for the client.
    waits: bool,
    /// Number of times that `waits` was set.
    turns: u32,
    /// As many when that was last looked at, and when that was.
    seen: u32,
    since: Now,
    patience: Option<Duration>,
    /// Its stream is being reset.
    given_up: bool,
    /// The task that carries its HTTP/2 stream.
    task: Option<AbortHandle>,
}

/// Held while a request is being answered.
pub struct Busy {
    activity: Rc<Activity>,
    at: usize,
    answered: Cell<bool>,
    /// Bytes of the answer that were given to HTTP.
    offered: Cell<u64>,
    /// Bytes that the socket had taken when the answer began.
    before: Cell<u64>,
}

impl Activity {
    /// A connection without a request. `sent` counts what its socket takes.
    pub fn begin(clock: Clock, limits: &Limits, sent: Rc<SentBytes>) -> Rc<Self> {
        let now = clock.now();
        let patience = limits.idle_timeout;
        let shortest = limits.header_timeout.into_iter().chain(patience).fold(NEVER, Duration::min);
        Rc::new(Self {
            clock,
            header_timeout: limits.header_timeout,
            in_flight: Cell::new(0),
            unanswered: Cell::new(0),
            used: Cell::new(false),
            head_since: Cell::new(None),
            idle_since: Cell::new(now),
            resting: Cell::new(false),
            awake_since: Cell::new(now),
            restless: Cell::new(false),
            closing: Cell::new(false),
            patience,
            shortest: Cell::new(shortest),
            earlier: Cell::new(false),
            blocked: Cell::new(false),
            backlogged: Cell::new(false),
            stuck_since: Cell::new(now),
            seen: Cell::new(sent.get()),
            sent,
            keeps_up: Cell::new(false),
            stalled: Cell::new(false),
            exchanges: RefCell::default(),
            free: Cell::new(0),
            newest: Cell::new(None),
        })
    }

    /// Returns the time for which a drain waits for the next request.
    pub fn patience(&self) -> Duration {
        let Some(first) = self.header_timeout.filter(|_| !self.used.get()) else { return FAREWELL };
        first.saturating_sub(self.clock.now().since(self.idle_since.get())).max(FAREWELL)
    }

    /// Returns whether there is a request whose response has not begun.
    pub const fn is_unanswered(&self) -> bool {
        self.unanswered.get() > 0
    }

    /// Returns whether a request is in progress.
    pub const fn is_busy(&self) -> bool {
        self.in_flight.get() > 0
    }

    /// Returns whether the head of a request has begun to arrive.
    pub const fn has_head(&self) -> bool {
        self.head_since.get().is_some()
    }

    /// The connection does not rest any more: it is to close, or its protocol keeps state between requests.
    pub fn stay_awake(&self) {
        self.restless.set(true);
    }

    /// Responses are read from their providers no faster than the client takes them: for HTTP/1.1, where one follows the
    /// other. HTTP/2 bounds each stream by itself.
    pub fn keep_up(&self) {
        self.keeps_up.set(self.sent.is_counted());
    }

    /// The connection is to close: from now on it is not idle for long.
    pub fn close(&self) {
        self.closing.set(true);
        self.idle_since.set(self.clock.now());
        self.hurry(FAREWELL);
    }

    /// The timer runs no longer than this from now on.
    fn hurry(&self, patience: Duration) {
        if patience < self.shortest.get() {
            self.shortest.set(patience);
            self.earlier.set(true);
        }
    }

    /// When to look again, or why it is over.
    fn due(&self) -> Result<Duration, ConnectionEnd> {
        let now = self.clock.now();
        if self.blocked.get() || self.backlogged.get() {
            if self.seen.replace(self.sent.get()) != self.sent.get() {
                self.stuck_since.set(now);
            }
            let patience = match self.impatience() {
                patience if self.closing.get() && !self.is_busy() => Some(patience.unwrap_or(FAREWELL).min(FAREWELL)),
                patience => patience,
            };
            let left = left(now, self.stuck_since.get(), patience, ConnectionEnd::Stalled);
            self.stalled.set(left.is_err());
            return left;
        }
        if self.is_busy() {
            return Ok(self.reset_stuck(now));
        }
        match self.head_since.get() {
            Some(since) => left(now, since, self.header_timeout, ConnectionEnd::HeadTooSlow),
            None if self.closing.get() => {
                let patience = self.patience.unwrap_or(FAREWELL).min(FAREWELL);
                left(now, self.idle_since.get(), Some(patience), ConnectionEnd::Idle)
            }
            None => {
                let idle = left(now, self.idle_since.get(), self.patience, ConnectionEnd::Idle)?;
                let quiet = now.since(self.idle_since.get()).min(now.since(self.awake_since.get()));
                match REST.checked_sub(quiet) {
                    _ if !self.may_rest() => Ok(idle),
                    Some(left) if !left.is_zero() => Ok(left.min(idle)),
                    Some(_) | None => Err(ConnectionEnd::Resting),
                }
            }
        }
    }

    /// Returns whether the connection is to rest once it is idle for a moment.
    const fn may_rest(&self) -> bool {
        !self.resting.get() && !self.restless.get()
    }

    /// The longest time for which the timer may run.
    fn longest(&self) -> Duration {
        self.shortest.get().min(if self.may_rest() { REST } else { NEVER })
    }

    /// Returns the time for which a write may wait: the shortest patience of the connection and its requests in
    /// progress.
    fn impatience(&self) -> Option<Duration> {
        let exchanges = self.exchanges.borrow();
        exchanges.iter().filter_map(|exchange| exchange.patience).chain(self.patience).min()
    }

    /// Resets streams whose client has taken nothing for too long. When to look again.
    fn reset_stuck(&self, now: Now) -> Duration {
        let mut soonest = NEVER;
        for exchange in self.exchanges.borrow_mut().iter_mut() {
            let (Some(task), Some(patience)) = (&exchange.task, exchange.patience) else { continue };
            if !exchange.waits {
                continue;
            }
            if exchange.seen != exchange.turns {
                exchange.seen = exchange.turns;
                exchange.since = now;
            }
            match left(now, exchange.since, Some(patience), ConnectionEnd::Stalled) {
                Ok(left) => soonest = soonest.min(left),
                Err(_) => {
                    exchange.given_up = true;
                    task.abort();
                }
            }
        }
        soonest
    }

    /// A write has to wait for the socket.
    fn waits(&self) {
        if !self.blocked.replace(true) {
            self.begin_wait();
        }
    }

    /// From now on, time counts against the client.
    fn begin_wait(&self) {
        self.stuck_since.set(self.clock.now());
        self.seen.set(self.sent.get());
    }

    /// Notes that no write waits for the socket any more.
    fn flows(&self) {
        if self.blocked.replace(false) && !self.is_busy() {
            self.idle_since.set(self.clock.now());
        }
    }

    fn enter(&self) -> usize {
        let mut exchanges = self.exchanges.borrow_mut();
        let at = self.free.get();
        let fresh = ExchangeGuard {
            free: at + 1,
            waits: false,
            turns: 0,
            seen: 0,
            since: self.idle_since.get(),
            patience: self.patience,
            given_up: false,
            task: None,
        };
        match exchanges.get_mut(at) {
            Some(exchange) => {
                self.free.set(exchange.free);
                *exchange = fresh;
            }
            None => {
                // HTTP/1.1 has one at a time.
                if at == 0 {
                    exchanges.reserve_exact(1);
                }
                exchanges.push(fresh);
                self.free.set(at + 1);
            }
        }
        at
    }
}

/// Returns the rest of this patience; the error `end` if it is used up.
fn left(now: Now, since: Now, patience: Option<Duration>, end: ConnectionEnd) -> Result<Duration, ConnectionEnd> {
    match patience {
        None => Ok(NEVER),
        Some(_) if end == ConnectionEnd::Stalled && planted(PlantedFault::EndlessPatience) => Ok(NEVER),
        Some(patience) => match patience.checked_sub(now.since(since)) {
            Some(left) if !left.is_zero() => Ok(left),
            Some(_) | None => Err(end),
        },
    }
}

impl Busy {
    /// Counts a request as in progress until the value is dropped.
    pub fn begin(activity: &Rc<Activity>) -> Self {
        activity.in_flight.set(activity.in_flight.get() + 1);
        activity.unanswered.set(activity.unanswered.get() + 1);
        activity.used.set(true);
        activity.head_since.set(None);
        let at = activity.enter();
        activity.newest.set(Some(at));
        let (answered, offered, before) = (Cell::new(false), Cell::new(0), Cell::new(0));
        Self { activity: activity.clone(), at, answered, offered, before }
    }

    /// The connection closes after this answer.
    pub fn stay_awake(&self) {
        self.activity.stay_awake();
    }

    /// Notes that the answer has begun.
    pub fn answered(&self) {
        if !self.answered.replace(true) {
            self.before.set(self.activity.sent.get());
            self.activity.unanswered.set(self.activity.unanswered.get() - 1);
        }
    }

    /// The client may take nothing of the answer for so long.
    pub fn bear(&self, patience: Duration) {
        self.with(|exchange| exchange.patience = Some(patience));
        self.activity.hurry(patience);
    }

    /// A piece of the answer waits for the client from now on; or, `false`, the answer for its provider.
    #[inline]
    pub fn waits(&self, waits: bool) {
        self.with(|exchange| {
            exchange.waits = waits;
            exchange.turns = exchange.turns.wrapping_add(1);
        });
    }

    /// So many bytes of the answer are given to HTTP.
    #[inline]
    pub fn offer(&self, bytes: usize) {
        self.offered.set(self.offered.get() + bytes as u64);
    }

    /// Returns whether the client has yet to take so much of the answer that its provider is to wait; the task is woken
    /// when it has taken more. Heads and framing count as taken, so the backlog is rather larger than the limit.
    #[inline]
    pub fn is_backlogged(&self, cx: &Context<'_>) -> bool {
        let sent = &self.activity.sent;
        if self.offered.get() < BACKLOG || !self.activity.keeps_up.get() {
            return false;
        }
        let backlog = self.offered.get().saturating_sub(sent.get().wrapping_sub(self.before.get()));
        let is_backlogged = backlog >= BACKLOG;
        let was_backlogged = self.activity.backlogged.replace(is_backlogged);
        if is_backlogged {
            sent.wake_next(cx.waker());
            if !was_backlogged {
                self.activity.begin_wait();
            }
        }
        is_backlogged
    }

    /// Returns whether the response ends because the client took no bytes of it.
    pub fn given_up(&self) -> bool {
        let mut given_up = self.activity.stalled.get();
        self.with(|exchange| given_up |= exchange.given_up);
        given_up
    }

    #[inline]
    fn with(&self, change: impl FnOnce(&mut ExchangeGuard)) {
        if let Some(exchange) = self.activity.exchanges.borrow_mut().get_mut(self.at) {
            change(exchange);
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.answered();
        let activity = &self.activity;
        self.with(|exchange| {
            exchange.free = activity.free.replace(self.at);
            exchange.waits = false;
            exchange.patience = None;
            exchange.task = None;
        });
        activity.backlogged.set(false);
        activity.in_flight.set(activity.in_flight.get() - 1);
        activity.idle_since.set(activity.clock.now());
    }
}

/// A future that ends when the client has kept the proxy waiting for too long. It is polled whenever the connection is,
/// so it reads the clock only when its timer has run out. The timer never runs for longer than the shortest patience
/// there is: all that begins meanwhile is due later than that.
pub struct Watchdog<'a> {
    pub activity: &'a Activity,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl<'a> Watchdog<'a> {
    /// Creates the watchdog; its timer starts at the first poll.
    pub const fn new(activity: &'a Activity) -> Self {
        Self { activity, sleep: None }
    }

    /// Returns the time for which a drain waits for the next request.
    pub fn patience(&self) -> Duration {
        self.activity.patience()
    }
}

impl Future for Watchdog<'_> {
    type Output = ConnectionEnd;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<ConnectionEnd> {
        let activity = self.activity;
        let earlier = activity.earlier.replace(false);
        if let Some(sleep) = self.sleep.as_mut().filter(|_| earlier) {
            let due = Instant::now() + activity.longest();
            if due < sleep.deadline() {
                sleep.as_mut().reset(due);
            }
        }
        loop {
            if let Some(sleep) = &mut self.sleep {
                ready!(sleep.as_mut().poll(cx));
            }
            let due = match activity.due() {
                Ok(due) => Instant::now() + due.min(activity.longest()),
                Err(end) => return Poll::Ready(end),
            };
            match &mut self.sleep {
                Some(sleep) => sleep.as_mut().reset(due),
                None => self.sleep = Some(Box::pin(tokio::time::sleep_until(due))),
            }
        }
    }
}

/// A stream that notes when a request's head begins to arrive, and when a write has to wait.
pub struct Watched<S> {
    inner: S,
    activity: Rc<Activity>,
    /// True if the connection is HTTP/1.1, so that bytes read on an idle connection begin a request's head.
    heads: bool,
    /// The first bytes, while they may yet become the preface of HTTP/2; which is read in one go or not known as such.
    first: Option<Vec<u8>>,
    /// The first byte of a later request, which was read while the connection was at rest.
    next: Option<u8>,
    /// The check of the first bytes of an HTTP/2 connection.
    opening: Opening,
}

impl<S> Watched<S> {
    /// Wraps a connection of HTTP/1.1 (`heads`) or HTTP/2. Over HTTP/1.1, the first bytes are collected until they are,
    /// or cannot be, the preface of HTTP/2.
    pub fn new(inner: S, activity: Rc<Activity>, heads: bool) -> Self {
        let first = if heads { Some(Vec::new()) } else { None };
        Self { inner, activity, heads, first, next: None, opening: Opening::default() }
    }

    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S: AsyncRead + Unpin> Watched<S> {
    /// Waits on an idle connection until there is something to do: a byte or the end has arrived, its time is over, or
    /// the process drains.
    pub async fn rest(&mut self, watchdog: &mut Watchdog<'_>, drained: Pin<&mut WaitForCancellationFuture<'_>>) {
        self.activity.resting.set(true);
        tokio::select! {
            biased;
            () = poll_fn(|cx| self.poll_next(cx)) => {}
            _ = watchdog => {}
            () = drained => {}
        }
        self.activity.resting.set(false);
        // The timer may be set for later than the next rest.
        self.activity.earlier.set(true);
        self.activity.awake_since.set(self.activity.clock.now());
    }

    /// Waits for the first byte of the next request.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.activity.has_head() {
            return Poll::Ready(());
        }
        let mut byte = [0];
        let mut buf = ReadBuf::new(&mut byte);
        // An end and an error are met again by HTTP.
        let _ = ready!(Pin::new(&mut self.inner).poll_read(cx, &mut buf));
        self.put_back(buf.filled());
        Poll::Ready(())
    }

    /// Lets bytes of the next request be read again.
    pub fn put_back(&mut self, received: &[u8]) {
        match (received, &mut self.first) {
            ([], _) => return,
            ([byte], None) => self.next = Some(*byte),
            (bytes, first) => first.get_or_insert_default().extend_from_slice(bytes),
        }
        self.activity.head_since.set(Some(self.activity.clock.now()));
    }

    /// Reads the first byte of a request, and what else has arrived.
    fn poll_after_rest(&mut self, next: u8, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> io::Result<()> {
        buf.put_slice(&[next]);
        match Pin::new(&mut self.inner).poll_read(cx, buf) {
            Poll::Ready(read) => read,
            Poll::Pending => Ok(()),
        }
    }

    /// Reads until the first bytes are, or cannot be, the preface of HTTP/2.
    fn poll_first(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let start = buf.filled().len();
        let Some(first) = &mut self.first else { return Pin::new(&mut self.inner).poll_read(cx, buf) };
        if buf.remaining() < PREFACE.len() {
            let fits = first.len().min(buf.remaining());
            buf.put_slice(first.drain(..fits).as_slice());
        } else {
            buf.put_slice(first);
            loop {
                let before = buf.filled().len();
                let read = Pin::new(&mut self.inner).poll_read(cx, buf);
                let came = buf.filled().get(start..).unwrap_or_default();
                let open = came.len() < PREFACE.len() && PREFACE.starts_with(came);
                match read {
                    Poll::Ready(Ok(())) if open && buf.filled().len() > before => {}
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Ready(Ok(())) => break,
                    Poll::Pending => {
                        if came.len() > first.len() {
                            *first = came.to_vec();
                        }
                        buf.set_filled(start);
                        return Poll::Pending;
                    }
                }
            }
        }
        self.first = None;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = match (self.next.take(), &self.first) {
            (Some(next), _) => Poll::Ready(self.poll_after_rest(next, cx, buf)),
            (None, Some(_)) => self.poll_first(cx, buf),
            (None, None) => Pin::new(&mut self.inner).poll_read(cx, buf),
        };
        let idle = self.heads && !self.activity.is_busy() && !self.activity.has_head();
        let came = buf.filled().len() > before || self.first.as_ref().is_some_and(|first| !first.is_empty());
        if idle && came {
            self.activity.head_since.set(Some(self.activity.clock.now()));
        }
        if !self.heads && !self.opening.is_over() {
            self.opening.check(buf.filled().get(before..).unwrap_or_default())?;
        }
        read
    }
}

impl<S> Watched<S> {
    /// Notes how a write went.
    #[inline]
    fn note<T>(&self, wrote: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match &wrote {
            Poll::Pending => self.activity.waits(),
            Poll::Ready(_) => self.activity.flows(),
        }
        wrote
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.note(wrote)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(cx);
        self.note(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.note(shut)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.note(wrote)
    }
}

/// Runs the tasks of h2 on this worker's own thread, and knows which of them carries which request.
#[derive(Clone)]
pub struct LocalTasks(pub Rc<Activity>);

impl<F: Future + 'static> Executor<F> for LocalTasks {
    fn execute(&self, future: F) {
        let task = tokio::task::spawn_local(async move {
            let _ = future.await;
        });
        // A request's task follows its beginning at once.
        if let Some(at) = self.0.newest.take()
            && let Some(exchange) = self.0.exchanges.borrow_mut().get_mut(at)
        {
            exchange.task = Some(task.abort_handle());
        }
    }
}
