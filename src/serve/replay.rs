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
use http::{HeaderMap, HeaderName};
use hyper::body::{Body, Frame, Incoming, SizeHint};

use super::headers::passing_trailers;
use super::kept::{Cursor, Kept};
use super::pace::Pace;
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

/// A body that comes in, and how it is to be taken.
pub struct Intake {
    /// The body.
    pub source: Incoming,
    /// The most bytes that are kept; 0 keeps nothing.
    pub limit: u64,
    /// The process's allowance.
    pub budget: Budget,
    /// The slowest pace, in bytes per second; 0: any.
    pub min_rate: u64,
    /// The trailer fields that pass.
    pub trailers: Vec<HeaderName>,
    /// For its pace.
    pub clock: Clock,
}

/// A client's request body, and what of it was kept. Shared by the views of one request, on one worker.
pub struct Recorder(Rc<RefCell<Tape>>);

/// One telling of the body. A newer view silences the older ones.
pub struct View {
    tape: Rc<RefCell<Tape>>,
    /// Which telling this is.
    telling: u32,
    /// The next kept piece to tell.
    next: Cursor,
    /// Whether its trailers were told.
    ended: bool,
}

struct Tape {
    source: Incoming,
    kept: Kept,
    trailers: Option<HeaderMap>,
    announced: Vec<HeaderName>,
    pace: Pace,
    limit: u64,
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
    /// It came too slowly and was given up.
    TooSlow,
    /// It is still arriving and has outgrown its limit.
    Unkept,
}

/// Why a body broke off, for the provider's connection. Never shown.
#[derive(Debug)]
pub enum Broken {
    /// The client's side failed.
    Client(hyper::Error),
    /// It came too slowly.
    Slow,
    /// Another telling has begun.
    Superseded,
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Broken::Client(error) => write!(f, "client body: {error}"),
            Broken::Slow => f.write_str("the client body came too slowly"),
            Broken::Superseded => f.write_str("another attempt has begun"),
        }
    }
}

impl std::error::Error for Broken {}

/// Why there is no whole body.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ungathered {
    /// The client broke off.
    Broken,
    /// More came than may be kept.
    TooLarge,
    /// It came too slowly.
    TooSlow,
}

impl Recorder {
    /// Starts with nothing told.
    pub fn new(intake: Intake) -> Self {
        let Intake { source, limit, budget, min_rate, trailers, clock } = intake;
        // A body that announces more than may be kept is not kept at all.
        let keeps = limit > 0 && source.size_hint().lower() <= limit;
        Self(Rc::new(RefCell::new(Tape {
            source,
            kept: Kept::new(budget),
            trailers: None,
            announced: trailers,
            pace: Pace::new(min_rate, clock.clone()),
            limit,
            telling: 0,
            forwarded: 0,
            moved: clock.now(),
            clock,
            state: if keeps { State::Keeping } else { State::Unkept },
        })))
    }

    /// Takes the whole body in before anything of it is told. It can be told afterwards, if all of it was kept.
    pub async fn gather(&self) -> Result<Vec<u8>, Ungathered> {
        std::future::poll_fn(|cx| {
            let mut tape = self.0.borrow_mut();
            loop {
                match tape.state {
                    State::Complete => return Poll::Ready(Ok(tape.kept.concat())),
                    State::CompleteUnkept | State::Unkept => return Poll::Ready(Err(Ungathered::TooLarge)),
                    State::Broken => return Poll::Ready(Err(Ungathered::Broken)),
                    State::TooSlow => return Poll::Ready(Err(Ungathered::TooSlow)),
                    State::Keeping => {}
                }
                let _ = ready!(tape.poll_source(cx));
            }
        })
        .await
    }

    /// Tells the body, from the start. Earlier views fail from now on.
    pub fn tell(&self) -> View {
        let mut tape = self.0.borrow_mut();
        tape.telling += 1;
        tape.forwarded = 0;
        tape.moved = tape.clock.now();
        View { tape: self.0.clone(), telling: tape.telling, next: Cursor::default(), ended: false }
    }

    /// Whether the whole body can be told once more: what arrived was kept.
    pub fn retellable(&self) -> bool {
        match self.0.borrow().state {
            State::Complete | State::Keeping => true,
            State::Broken | State::CompleteUnkept | State::TooSlow | State::Unkept => false,
        }
    }

    /// Whether the client has sent all of it.
    pub fn complete(&self) -> bool {
        match self.0.borrow().state {
            State::Complete | State::CompleteUnkept => true,
            State::Broken | State::Keeping | State::TooSlow | State::Unkept => false,
        }
    }

    /// What the client did wrong, if the body will never be whole.
    pub fn fault(&self) -> Option<Ungathered> {
        match self.0.borrow().state {
            State::Broken => Some(Ungathered::Broken),
            State::TooSlow => Some(Ungathered::TooSlow),
            State::Complete | State::CompleteUnkept | State::Keeping | State::Unkept => None,
        }
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
        let fits = self.kept.bytes().saturating_add(piece.len() as u64) <= self.limit;
        if !fits || !self.kept.keep(piece) {
            self.kept.forget();
            self.state = State::Unkept;
        }
    }

    fn move_on(&mut self, bytes: usize) {
        self.forwarded += bytes as u64;
        self.moved = self.clock.now();
    }

    fn finish(&mut self) {
        self.pace.end();
        self.state = match self.state {
            State::Keeping | State::Complete => State::Complete,
            State::Unkept | State::CompleteUnkept => State::CompleteUnkept,
            State::Broken => State::Broken,
            State::TooSlow => State::TooSlow,
        };
    }

    /// The next of what the client sends: kept if it may be. Trailers are kept, not answered.
    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Broken>> {
        let Poll::Ready(next) = Pin::new(&mut self.source).poll_frame(cx) else {
            ready!(self.pace.poll_too_slow(cx));
            self.state = State::TooSlow;
            return Poll::Ready(Err(Broken::Slow));
        };
        Poll::Ready(match next {
            None => {
                self.finish();
                Ok(None)
            }
            Some(Err(error)) => {
                self.state = State::Broken;
                Err(Broken::Client(error))
            }
            Some(Ok(frame)) => match frame.into_data() {
                Ok(mut data) => {
                    let piece = data.copy_to_bytes(data.remaining());
                    self.pace.came(piece.len());
                    self.keep(&piece);
                    if self.source.is_end_stream() {
                        self.finish();
                    }
                    Ok(Some(piece))
                }
                Err(other) => {
                    let trailers = other.into_trailers().ok();
                    self.trailers = trailers.and_then(|trailers| passing_trailers(trailers, &self.announced));
                    self.finish();
                    Ok(None)
                }
            },
        })
    }
}

impl View {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let mut tape = self.tape.borrow_mut();
        if tape.telling != self.telling {
            return Poll::Ready(Some(Err(Broken::Superseded)));
        }
        if let Some(piece) = tape.kept.next(&mut self.next) {
            tape.move_on(piece.len());
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        let piece = match tape.state {
            State::Complete | State::CompleteUnkept => None,
            State::TooSlow => return Poll::Ready(Some(Err(Broken::Slow))),
            State::Broken | State::Keeping | State::Unkept => match ready!(tape.poll_source(cx)) {
                Ok(piece) => piece,
                Err(broken) => return Poll::Ready(Some(Err(broken))),
            },
        };
        if let Some(piece) = piece {
            tape.move_on(piece.len());
            // Kept or not, this view has told it.
            self.next = tape.kept.end();
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        let ended = std::mem::replace(&mut self.ended, true);
        Poll::Ready(tape.trailers.clone().filter(|_| !ended).map(|trailers| Ok(Frame::trailers(trailers))))
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
                    && tape.kept.ends_at(view.next)
                    && (view.ended || tape.trailers.is_none())
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
