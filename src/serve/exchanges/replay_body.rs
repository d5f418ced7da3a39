//! A request body that can be sent twice.
//!
//! While the body streams to the provider, its pieces are also kept, within the route's limit and the process's budget.
//! If the token is refused, a second [`View`] sends the same bytes from the start and goes on with the part that the
//! client has yet to send. A body that outgrows its limit still streams, but cannot be sent again.
//!
//! A view is done when it has yielded its end *and* the connection has written every piece of it: only then may the
//! connection carry another request. A view that is not done when the exchange is over is abandoned, and its stream is
//! reset.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};
use hyper::body::{Body, Frame, SizeHint};
use thiserror::Error;

use crate::base::time::{Clock, Now};
use crate::serve::exchanges::kept::{Budget, Kept, ReplayCursor};
use crate::serve::exchanges::pace::Pace;
use crate::serve::requests::headers::Trailers;
use crate::upstream::{BodyError, ReceivedBody};

/// The body of a request to the provider.
pub enum RequestBody {
    Empty,
    /// The client's body, kept or not.
    View(View),
}

/// A body that comes in, and how it is to be taken.
pub struct Intake {
    pub source: ReceivedBody,
    /// The most bytes that are kept; 0 keeps nothing.
    pub limit: u64,
    pub budget: Budget,
    /// The slowest pace, in bytes per second; 0: any.
    pub min_rate: u64,
    /// The trailer fields that pass.
    pub trailers: Trailers,
    /// The clock by which pace and progress are measured.
    pub clock: Clock,
}

/// A client's request body, and what of it was kept. Shared by the views of one request, on one worker.
pub struct ReplayBody(Rc<RefCell<ReplayBuffer>>);

/// One telling of the body. A newer view silences the older ones.
pub struct View {
    buffer: Rc<RefCell<ReplayBuffer>>,
    /// The number of this view, which fails once the body's `telling` is higher.
    telling: u32,
    /// The next kept piece to tell.
    next: ReplayCursor,
    /// True once the end was reached, so that trailers are sent only once.
    ended: bool,
}

/// A piece of a body on its way to the provider. It exists until the connection has written it.
pub struct ReplayPiece {
    bytes: Bytes,
    _under_way: Arc<()>,
}

struct ReplayBuffer {
    source: ReceivedBody,
    kept: Kept,
    /// What the client sent, if another content is told in its place.
    original: Option<Box<OriginalBody>>,
    trailers: Option<HeaderMap>,
    upstream_response: Trailers,
    pace: Pace,
    limit: u64,
    telling: u32,
    /// The latest telling has told its end.
    reported: bool,
    /// Shared by all pieces that no connection has written yet.
    under_way: Arc<()>,
    /// The latest telling waits for the client, and this wakes its connection.
    waiting: Option<Waker>,
    forwarded: u64,
    moved: Now,
    clock: Clock,
    /// True once a piece of data has arrived.
    begun: bool,
    /// It was not kept for want of room in the process's allowance.
    crowded: bool,
    state: State,
}

/// The body as the client sent it.
struct OriginalBody {
    kept: Kept,
    content_type: Option<HeaderValue>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    /// The client's body broke off before its end.
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

/// The error with which a body breaks off on the provider's connection. Never shown.
#[derive(Debug, Error)]
pub enum BodyBroken {
    /// Reading the body from the client failed. It is no source: hyper would repeat the error code of the client's stream
    /// among the sources to the provider.
    #[error("client body: {0}")]
    Client(BodyError),
    /// The client sent more slowly than the minimum pace.
    #[error("the client body came too slowly")]
    Slow,
    /// Another view has begun, or the rest of the body is no longer wanted. Over HTTP/2 the stream is reset with this
    /// error.
    #[error("the exchange is over, or another attempt has begun")]
    Superseded(#[source] h2::Error),
}

/// The reason for which a whole body is not available.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ungathered {
    /// The client's body broke off before its end.
    Broken,
    /// The process keeps as much as it may.
    Crowded,
    /// More came than may be kept.
    TooLarge,
    /// The client sent more slowly than the minimum pace.
    TooSlow,
}

impl ReplayBody {
    /// Creates the body, of which no piece has been sent yet.
    pub fn new(intake: Intake) -> Self {
        let Intake { source, limit, budget, min_rate, trailers, clock } = intake;
        // A body that announces more than may be kept is not kept at all.
        let keeps = limit > 0 && source.size_hint().lower() <= limit;
        Self(Rc::new(RefCell::new(ReplayBuffer {
            source,
            kept: Kept::new(budget),
            original: None,
            trailers: None,
            upstream_response: trailers,
            pace: Pace::new(min_rate, clock.clone()),
            limit,
            telling: 0,
            reported: false,
            under_way: Arc::default(),
            waiting: None,
            forwarded: 0,
            moved: clock.now(),
            clock,
            begun: false,
            crowded: false,
            state: if keeps { State::Keeping } else { State::Unkept },
        })))
    }

    /// Takes the whole body in before anything of it is told. It can be told afterwards, if all of it was kept.
    pub async fn gather(&self) -> Result<(), Ungathered> {
        std::future::poll_fn(|cx| {
            let mut buffer = self.0.borrow_mut();
            loop {
                match buffer.state {
                    State::Complete => return Poll::Ready(Ok(())),
                    State::CompleteUnkept if !buffer.begun => return Poll::Ready(Ok(())),
                    State::CompleteUnkept | State::Unkept if buffer.crowded => {
                        return Poll::Ready(Err(Ungathered::Crowded));
                    }
                    State::CompleteUnkept | State::Unkept => return Poll::Ready(Err(Ungathered::TooLarge)),
                    State::Broken => return Poll::Ready(Err(Ungathered::Broken)),
                    State::TooSlow => return Poll::Ready(Err(Ungathered::TooSlow)),
                    State::Keeping => {}
                }
                let _ = ready!(buffer.poll_source(cx));
            }
        })
        .await
    }

    /// Reads the rest of a body that is no longer wanted, and stops once it has read more than `most` bytes. Returns
    /// whether the body came to its end.
    pub async fn read_on(&self, most: usize) -> bool {
        // The bytes that are read here never reach a provider, so no view may go on after them.
        self.supersede();
        let mut read = 0;
        std::future::poll_fn(|cx| {
            let mut buffer = self.0.borrow_mut();
            buffer.kept.forget();
            if buffer.state == State::Keeping {
                buffer.state = State::Unkept;
            }
            while !buffer.is_complete() && read <= most {
                match ready!(buffer.poll_source(cx)) {
                    Ok(piece) => read += piece.map_or(0, |piece| piece.len()),
                    Err(_) => return Poll::Ready(false),
                }
            }
            Poll::Ready(buffer.is_complete())
        })
        .await
    }

    /// The bytes that are told: those that were kept, or what was put in their place.
    pub fn content(&self) -> Vec<u8> {
        self.0.borrow().kept.concat()
    }

    /// Puts another content in the place of a gathered one, for the tellings that follow, and its length and type on the
    /// head. `false`: the process keeps as much as it may, and the body is lost.
    #[must_use]
    pub fn replace(&self, content: &Bytes, content_type: Option<HeaderValue>, headers: &mut HeaderMap) -> bool {
        self.supersede();
        let mut buffer = self.0.borrow_mut();
        let empty = Kept::new(buffer.kept.budget().clone());
        let told = std::mem::replace(&mut buffer.kept, empty);
        if buffer.original.is_none() {
            let content_type = headers.get(CONTENT_TYPE).cloned();
            buffer.original = Some(Box::new(OriginalBody { kept: told, content_type }));
        }
        if let Some(content_type) = content_type {
            headers.insert(CONTENT_TYPE, content_type);
        }
        headers.insert(CONTENT_LENGTH, content.len().into());
        buffer.kept.keep(content)
    }

    /// Puts back what the client sent, and its length and type, for one more attempt.
    pub fn restore(&self, headers: &mut HeaderMap) {
        let Some(original) = self.0.borrow_mut().original.take() else { return };
        self.supersede();
        let OriginalBody { kept, content_type } = *original;
        match content_type {
            Some(content_type) => headers.insert(CONTENT_TYPE, content_type),
            None => headers.remove(CONTENT_TYPE),
        };
        headers.insert(CONTENT_LENGTH, kept.bytes().into());
        self.0.borrow_mut().kept = kept;
    }

    /// Returns the number of bytes that were kept.
    pub fn kept_bytes(&self) -> u64 {
        self.0.borrow().kept.bytes()
    }

    /// Tells the body, from the start. Earlier views fail from now on.
    pub fn tell(&self) -> View {
        self.supersede();
        let mut buffer = self.0.borrow_mut();
        buffer.forwarded = 0;
        buffer.moved = buffer.clock.now();
        buffer.reported =
            buffer.is_complete() && buffer.kept.ends_at(ReplayCursor::default()) && buffer.trailers.is_none();
        View { buffer: self.0.clone(), telling: buffer.telling, next: ReplayCursor::default(), ended: false }
    }

    /// Silences the latest telling. Says whether that ends its stream for certain: it does if the telling was waiting
    /// for the client, and not if the connection still holds a piece that it cannot write.
    pub fn abandon(&self) -> bool {
        self.supersede()
    }

    fn supersede(&self) -> bool {
        let mut buffer = self.0.borrow_mut();
        buffer.telling += 1;
        let waiting = buffer.waiting.take();
        drop(buffer);
        let waited = waiting.is_some();
        if let Some(waiting) = waiting {
            waiting.wake();
        }
        waited
    }

    /// Returns whether the whole body can be sent once more: the bytes that arrived were kept, or none have arrived
    /// yet.
    pub fn retellable(&self) -> bool {
        self.not_replayable().is_none()
    }

    /// Returns the reason for which the body cannot be sent once more; `None` if it can.
    pub fn not_replayable(&self) -> Option<Ungathered> {
        let buffer = self.0.borrow();
        match buffer.state {
            State::Broken => Some(Ungathered::Broken),
            State::Complete | State::Keeping => None,
            State::CompleteUnkept | State::Unkept if !buffer.begun => None,
            State::CompleteUnkept | State::Unkept if buffer.crowded => Some(Ungathered::Crowded),
            State::CompleteUnkept | State::Unkept => Some(Ungathered::TooLarge),
            State::TooSlow => Some(Ungathered::TooSlow),
        }
    }

    /// Returns whether the client has sent all of it.
    pub fn arrived(&self) -> bool {
        self.0.borrow().is_complete()
    }

    /// Returns whether the latest view is done: it has yielded its end, and the connection has written every piece of
    /// it.
    pub fn done(&self) -> bool {
        let buffer = self.0.borrow();
        buffer.reported && Arc::strong_count(&buffer.under_way) == 1
    }

    /// Returns the client's failure if the body will never be whole.
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

impl ReplayBuffer {
    /// Keeps a piece, or gives up keeping.
    fn keep(&mut self, piece: &Bytes) {
        if self.state != State::Keeping {
            return;
        }
        let fits = self.kept.bytes().saturating_add(piece.len() as u64) <= self.limit;
        self.crowded = fits && !self.kept.keep(piece);
        if !fits || self.crowded {
            self.kept.forget();
            self.state = State::Unkept;
        }
    }

    fn is_complete(&self) -> bool {
        match self.state {
            State::Complete | State::CompleteUnkept => true,
            State::Broken | State::Keeping | State::TooSlow | State::Unkept => false,
        }
    }

    /// A piece for the connection, which counts as under way until it is written.
    fn send(&mut self, bytes: Bytes) -> Frame<ReplayPiece> {
        self.forwarded += bytes.len() as u64;
        self.moved = self.clock.now();
        Frame::data(ReplayPiece { bytes, _under_way: self.under_way.clone() })
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
    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, BodyBroken>> {
        let Poll::Ready(next) = Pin::new(&mut self.source).poll_frame(cx) else {
            ready!(self.pace.poll_too_slow(cx));
            self.state = State::TooSlow;
            return Poll::Ready(Err(BodyBroken::Slow));
        };
        Poll::Ready(match next {
            None => {
                self.finish();
                Ok(None)
            }
            Some(Err(error)) => {
                self.state = State::Broken;
                Err(BodyBroken::Client(error))
            }
            Some(Ok(frame)) => match frame.into_data() {
                Ok(piece) => {
                    self.begun = true;
                    self.pace.came(piece.len());
                    self.keep(&piece);
                    if self.source.is_end_stream() {
                        self.finish();
                    }
                    Ok(Some(piece))
                }
                Err(other) => {
                    let trailers = other.into_trailers().ok();
                    self.trailers = trailers.and_then(|trailers| self.upstream_response.take(trailers));
                    self.finish();
                    Ok(None)
                }
            },
        })
    }
}

impl View {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<ReplayPiece>, BodyBroken>>> {
        let buffer = &mut *self.buffer.borrow_mut();
        if buffer.telling != self.telling {
            return Poll::Ready(Some(Err(BodyBroken::Superseded(h2::Reason::CANCEL.into()))));
        }
        buffer.waiting = None;
        if let Some(piece) = buffer.kept.next(&mut self.next) {
            buffer.reported = buffer.kept.ends_at(self.next) && buffer.trailers.is_none() && buffer.is_complete();
            return Poll::Ready(Some(Ok(buffer.send(piece))));
        }
        let piece = match buffer.state {
            State::Broken => return Poll::Ready(Some(Err(BodyBroken::Client(BodyError::Cut)))),
            State::Complete | State::CompleteUnkept => None,
            State::Keeping | State::Unkept => match buffer.poll_source(cx) {
                Poll::Pending => {
                    buffer.waiting = Some(cx.waker().clone());
                    return Poll::Pending;
                }
                Poll::Ready(Ok(piece)) => piece,
                Poll::Ready(Err(broken)) => return Poll::Ready(Some(Err(broken))),
            },
            State::TooSlow => return Poll::Ready(Some(Err(BodyBroken::Slow))),
        };
        if let Some(piece) = piece {
            // Kept or not, this view has told it.
            self.next = buffer.kept.end();
            buffer.reported = buffer.is_complete();
            return Poll::Ready(Some(Ok(buffer.send(piece))));
        }
        buffer.reported = true;
        let ended = std::mem::replace(&mut self.ended, true);
        Poll::Ready(buffer.trailers.clone().filter(|_| !ended).map(|trailers| Ok(Frame::trailers(trailers))))
    }
}

impl Buf for ReplayPiece {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }

    fn copy_to_bytes(&mut self, len: usize) -> Bytes {
        self.bytes.copy_to_bytes(len)
    }
}

impl Drop for ReplayBody {
    /// Ends the latest view: the request is over, and the rest of the client's body is not waited for.
    fn drop(&mut self) {
        self.supersede();
    }
}

impl Body for RequestBody {
    type Data = ReplayPiece;
    type Error = BodyBroken;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<ReplayPiece>, BodyBroken>>> {
        match self.get_mut() {
            RequestBody::Empty => Poll::Ready(None),
            RequestBody::View(view) => view.poll_piece(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            RequestBody::Empty => true,
            RequestBody::View(view) => {
                let buffer = view.buffer.borrow();
                buffer.telling == view.telling
                    && buffer.kept.ends_at(view.next)
                    && (view.ended || buffer.trailers.is_none())
                    && buffer.is_complete()
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            RequestBody::Empty => SizeHint::with_exact(0),
            // The length travels in the client's own Content-Length field, which hyper has checked.
            RequestBody::View(_) => SizeHint::default(),
        }
    }
}
