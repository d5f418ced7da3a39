//! A request body that can be sent twice.
//!
//! While the body streams to the provider, its pieces are also kept, within the route's limit and the process's budget.
//! If the token is refused, a second [`View`] tells the same bytes from the start and goes on with whatever the client
//! has yet to send. A body that outgrows its limit still streams; it just cannot be told again.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use crate::base::time::{Clock, Now};
use crate::observe::metrics::Level;

/// What goes out to the provider.
pub enum Outgoing {
    /// No body.
    Empty,
    /// The client's body, kept or not.
    View(View),
}

/// The process's allowance for kept bodies.
#[derive(Clone, Debug)]
pub struct Budget {
    /// Bytes kept now.
    pub level: Arc<Level>,
    /// Bytes that may be kept.
    pub limit: u64,
}

/// A client's request body, and what of it was kept. Shared by the views of one request, on one worker.
pub struct Recorder(Rc<RefCell<Tape>>);

/// One telling of the body. A newer view silences the older ones.
pub struct View {
    tape: Rc<RefCell<Tape>>,
    /// Which telling this is.
    telling: u32,
    /// The next kept piece to tell.
    next: usize,
}

struct Tape {
    source: Incoming,
    kept: Vec<Bytes>,
    kept_bytes: u64,
    trailers: Option<HeaderMap>,
    limit: u64,
    budget: Budget,
    telling: u32,
    forwarded: u64,
    moved: Now,
    clock: Clock,
    state: State,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    /// The client broke off.
    Broken,
    /// All of it arrived, and it can be told again.
    Complete,
    /// All of it arrived, but not all was kept.
    CompleteUnkept,
    /// It is still arriving and has been kept so far.
    Keeping,
    /// It is still arriving and has outgrown its limit.
    Unkept,
}

/// Why a body broke off, for the provider's connection. Never shown.
#[derive(Debug)]
pub enum Broken {
    /// The client's side failed.
    Client(hyper::Error),
    /// Another telling has begun.
    Superseded,
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Broken::Client(error) => write!(f, "client body: {error}"),
            Broken::Superseded => f.write_str("another attempt has begun"),
        }
    }
}

impl std::error::Error for Broken {}

impl Recorder {
    /// Starts with nothing told. `limit` 0 keeps nothing.
    pub fn new(source: Incoming, limit: u64, budget: Budget, clock: Clock) -> Self {
        // A body that announces more than may be kept is not kept at all.
        let keeps = limit > 0 && source.size_hint().lower() <= limit;
        Self(Rc::new(RefCell::new(Tape {
            source,
            kept: Vec::new(),
            kept_bytes: 0,
            trailers: None,
            limit,
            budget,
            telling: 0,
            forwarded: 0,
            moved: clock.now(),
            clock,
            state: if keeps { State::Keeping } else { State::Unkept },
        })))
    }

    /// Tells the body, from the start. Earlier views fail from now on.
    pub fn tell(&self) -> View {
        let mut tape = self.0.borrow_mut();
        tape.telling += 1;
        tape.forwarded = 0;
        tape.moved = tape.clock.now();
        View { tape: self.0.clone(), telling: tape.telling, next: 0 }
    }

    /// Whether the whole body can be told once more: what arrived was kept.
    pub fn retellable(&self) -> bool {
        match self.0.borrow().state {
            State::Complete | State::Keeping => true,
            State::Broken | State::CompleteUnkept | State::Unkept => false,
        }
    }

    /// Whether the client has sent all of it.
    pub fn complete(&self) -> bool {
        match self.0.borrow().state {
            State::Complete | State::CompleteUnkept => true,
            State::Broken | State::Keeping | State::Unkept => false,
        }
    }

    /// Whether the client broke off.
    pub fn broken(&self) -> bool {
        self.0.borrow().state == State::Broken
    }

    /// When the latest telling last moved on.
    pub fn moved(&self) -> Now {
        self.0.borrow().moved
    }

    /// Bytes forwarded by the latest telling.
    pub fn forwarded(&self) -> u64 {
        self.0.borrow().forwarded
    }
}

impl Tape {
    /// Keeps a piece, or gives up keeping.
    fn keep(&mut self, piece: &Bytes) {
        if self.state != State::Keeping {
            return;
        }
        let len = piece.len() as u64;
        let fits = self.kept_bytes.saturating_add(len) <= self.limit;
        if fits && self.budget.level.take(len, self.budget.limit) {
            self.kept_bytes += len;
            self.kept.push(piece.clone());
        } else {
            self.forget();
            self.state = State::Unkept;
        }
    }

    fn move_on(&mut self, bytes: usize) {
        self.forwarded += bytes as u64;
        self.moved = self.clock.now();
    }

    fn forget(&mut self) {
        self.kept = Vec::new();
        self.budget.level.give_back(self.kept_bytes);
        self.kept_bytes = 0;
    }

    fn finish(&mut self) {
        self.state = match self.state {
            State::Keeping | State::Complete => State::Complete,
            State::Unkept | State::CompleteUnkept => State::CompleteUnkept,
            State::Broken => State::Broken,
        };
    }
}

impl Drop for Tape {
    fn drop(&mut self) {
        self.forget();
    }
}

impl View {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let mut tape = self.tape.borrow_mut();
        if tape.telling != self.telling {
            return Poll::Ready(Some(Err(Broken::Superseded)));
        }
        if let Some(piece) = tape.kept.get(self.next).cloned() {
            self.next += 1;
            tape.move_on(piece.len());
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        match tape.state {
            State::Complete | State::CompleteUnkept => {
                return Poll::Ready(tape.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))));
            }
            State::Broken | State::Keeping | State::Unkept => {}
        }
        match ready!(Pin::new(&mut tape.source).poll_frame(cx)) {
            None => {
                tape.finish();
                Poll::Ready(None)
            }
            Some(Err(error)) => {
                tape.state = State::Broken;
                Poll::Ready(Some(Err(Broken::Client(error))))
            }
            Some(Ok(frame)) => match frame.into_data() {
                Ok(mut data) => {
                    let piece = data.copy_to_bytes(data.remaining());
                    tape.keep(&piece);
                    tape.move_on(piece.len());
                    // Kept or not, this view has told it.
                    self.next = tape.kept.len();
                    if tape.source.is_end_stream() {
                        tape.finish();
                    }
                    Poll::Ready(Some(Ok(Frame::data(piece))))
                }
                Err(other) => {
                    if let Some(trailers) = other.trailers_ref() {
                        tape.trailers = Some(trailers.clone());
                    }
                    tape.finish();
                    // Told now; kept for a second telling only.
                    Poll::Ready(Some(Ok(other)))
                }
            },
        }
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match self.get_mut() {
            Outgoing::Empty => Poll::Ready(None),
            Outgoing::View(view) => view.poll_piece(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Outgoing::Empty => true,
            Outgoing::View(view) => {
                let tape = view.tape.borrow();
                tape.telling == view.telling
                    && view.next >= tape.kept.len()
                    && tape.trailers.is_none()
                    && matches!(tape.state, State::Complete | State::CompleteUnkept)
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Outgoing::Empty => SizeHint::with_exact(0),
            // The length travels in the client's own Content-Length field, which hyper has checked.
            Outgoing::View(_) => SizeHint::default(),
        }
    }
}
