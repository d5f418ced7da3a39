//! The body that goes back to the client, and the end of the story.
//!
//! It holds what must happen when the answer is over, however it ends: the provider's connection goes back to the pool
//! or is closed, and the request is told once.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use hyper::body::{Body, Frame, SizeHint};
use thiserror::Error;
use tokio::time::Sleep;

use crate::base::time::Clock;
use crate::provider::RecordingCopy;
use crate::serve::connections::watchdog::Busy;
use crate::serve::exchanges::credential_scanner::{CredentialPatterns, CredentialScanner};
use crate::serve::exchanges::replay_body::{ReplayBody, RequestBody};
use crate::serve::exchanges::upgrade::Splice;
use crate::serve::modes::Tunnel;
use crate::serve::reports::request_log::RequestLog;
use crate::serve::requests::headers::Trailers;
use crate::serve::worker_state::RouteState;
use crate::upstream::{BodyError, Connection, ConnectionPool, ReceivedBody};

/// The time for which bytes that may be the beginning of a credential wait for the bytes that follow.
const HOLD: Duration = Duration::from_millis(10);
/// A piece of at most this size waits with its last bytes, so that it goes on whole.
const JOINED: usize = 4 * 1024;

/// The body sent to the client, with the work that is due at its end.
pub struct ResponseBody {
    kind: Kind,
    /// Absent once something else tells it.
    log: Option<RequestLog>,
    busy: Option<Busy>,
    /// The error with which it broke off, until the bytes before that have left.
    cut: Option<Cut>,
}

enum Kind {
    Own(Option<Bytes>),
    Stream(Box<StreamedBody>),
    Switch(Option<Switch>),
}

/// The use of a connection once it stops speaking HTTP.
pub enum Switch {
    /// Bytes both ways: a WebSocket, or a blind tunnel.
    Splice(Box<Splice>),
    /// TLS with us in a bank's stead, and HTTP in it.
    Tunnel(Box<Tunnel>),
}

/// A provider's body on its way through.
pub struct StreamedBody {
    /// Pieces that were peeked at, to be given back first.
    pub pieces: VecDeque<Bytes>,
    /// The part that was not peeked at.
    pub rest: ReceivedBody,
    /// The connection it comes over.
    pub lent: Option<Lent>,
    /// Longest silence between two pieces.
    pub patience: Duration,
    /// Timer that runs while no piece arrives.
    pub silence: Option<Pin<Box<Sleep>>>,
    /// Peeking met the end by force: the body broke off.
    pub broken: bool,
    /// Trailers that were peeked at.
    pub peeked_trailers: Option<HeaderMap>,
    /// The trailer fields that pass.
    pub trailers: Trailers,
    /// The search for credentials; `None` if there is none.
    pub screen: Option<ResponseScreen>,
    /// The copy of the exchange for a recording, if it is recorded.
    pub copy: Option<Box<RecordingCopy>>,
    /// Runs while bytes are held back.
    pub holding: Option<Pin<Box<Sleep>>>,
    /// A small piece, searched, whose last bytes are held back.
    pub waiting: Bytes,
    /// The error with which the body broke off, until `waiting` has been passed on.
    pub cut: Option<Cut>,
    /// The provider's body has told its end.
    pub finished: bool,
    /// It has no body and a head that gives a length all the same, which hyper writes only for a body.
    pub lengthy: bool,
}

/// A search for credentials, and whose they are.
pub struct ResponseScreen {
    pub patterns: Rc<CredentialPatterns>,
    /// The search in the body; absent where it cannot be searched, or was.
    pub scanner: Option<CredentialScanner>,
    /// True if a response that holds a credential is not passed on at all.
    pub blocks: bool,
    /// The route for which a finding is reported.
    pub route: Rc<RouteState>,
}

impl ResponseScreen {
    /// Looks through trailers, wherever they were read. An error: they must not pass.
    pub fn trailers(&self, trailers: &mut HeaderMap) -> Result<(), Reflected> {
        if !self.patterns.mask_fields(trailers) {
            return Ok(());
        }
        self.route.report_reflection(if self.blocks { "blocked for its trailers" } else { "masked in the trailers" });
        if self.blocks { Err(Reflected) } else { Ok(()) }
    }

    fn held(&self) -> usize {
        self.scanner.as_ref().map_or(0, CredentialScanner::held)
    }
}

/// A credential stands in what must not pass with one.
#[derive(Clone, Copy, Debug)]
pub struct Reflected;

/// A provider's connection, and where it belongs.
pub struct Lent {
    /// The pool to which the connection returns.
    pub endpoint: Rc<ConnectionPool<RequestBody>>,
    pub connection: Connection<RequestBody>,
    /// The request body, if there was one: it must have ended, too.
    pub request: Option<Rc<ReplayBody>>,
    /// For its age in the pool.
    pub clock: Clock,
}

/// The error with which a response body breaks off. Only hyper sees it, and closes the client's connection.
///
/// It has no sources: hyper would repeat the error code of a provider's stream among them to the client.
#[derive(Debug, Error)]
pub enum Cut {
    /// Reading the body from the provider failed.
    #[error("provider body: {0}")]
    Provider(BodyError),
    /// It broke off while we looked at it.
    #[error("the provider broke off")]
    Peeked,
    /// Its trailers hold a credential, and the route blocks such answers.
    #[error("its trailers hold a credential")]
    Reflected,
    /// No piece arrived within the permitted silence.
    #[error("the provider fell silent")]
    Silence,
}

impl Lent {
    /// Gives the connection back to its pool after a clean end. If the request body is not done, its stream is reset or
    /// the connection closed.
    pub fn settle(self) {
        match &self.request {
            Some(request) if !request.done() => {
                if request.abandon() {
                    self.connection.close();
                }
            }
            Some(_) | None => self.endpoint.give_back(self.connection, self.clock.now()),
        }
    }

    /// Gives up the response. A request that is still being sent is not discarded on its way: its connection closes as
    /// any other.
    fn abort(self) {
        if self.request.as_ref().is_none_or(|request| request.done()) {
            self.connection.abort();
        }
    }
}

impl ResponseBody {
    /// A body of our own.
    pub const fn own(bytes: Bytes, log: RequestLog) -> Self {
        Self { kind: Kind::Own(Some(bytes)), log: Some(log), busy: None, cut: None }
    }

    /// Wraps a provider's body for the client.
    pub fn stream(stream: StreamedBody, log: RequestLog) -> Self {
        Self { kind: Kind::Stream(Box::new(stream)), log: Some(log), busy: None, cut: None }
    }

    /// No body: after this head the connection is something else.
    pub const fn switch(switch: Switch) -> Self {
        Self { kind: Kind::Switch(Some(switch)), log: None, busy: None, cut: None }
    }

    /// Removes the body of a response that the proxy itself made. Returns the length that the body would have had;
    /// `None` for any other body.
    pub fn withhold(&mut self) -> Option<usize> {
        match &mut self.kind {
            Kind::Own(bytes) => bytes.take().map(|bytes| bytes.len()),
            Kind::Stream(_) | Kind::Switch(_) => None,
        }
    }

    /// Takes the [`Switch`] that applies to the connection once the head is out; `None` if the connection goes on with
    /// HTTP.
    pub fn take_switch(&mut self) -> Option<Switch> {
        match &mut self.kind {
            Kind::Switch(switch) => switch.take(),
            Kind::Own(_) | Kind::Stream(_) => None,
        }
    }

    /// Keeps the client's connection counted as busy until this answer is over. As long as a provider may be silent, a
    /// client may take nothing.
    pub fn hold(&mut self, busy: Busy) {
        if let Kind::Stream(stream) = &self.kind {
            busy.bear(stream.patience);
        }
        self.busy = Some(busy);
    }

    /// The whole answer went out: the provider's connection may serve again.
    fn complete(&mut self) {
        if let Some(log) = &mut self.log {
            log.record().complete = true;
        }
        if let Kind::Stream(stream) = &mut self.kind {
            if let Some(lent) = stream.lent.take() {
                lent.settle();
            }
            if let Some(copy) = stream.copy.take() {
                copy.finish();
            }
        }
    }
}

impl StreamedBody {
    fn ended(&self) -> bool {
        self.exhausted() && self.held() == 0 && self.cut.is_none() && !self.broken && self.peeked_trailers.is_none()
    }

    fn held(&self) -> usize {
        self.screen.as_ref().map_or(0, ResponseScreen::held) + self.waiting.len()
    }

    /// Returns whether no more bytes will come.
    fn exhausted(&self) -> bool {
        self.pieces.is_empty() && self.rest.is_end_stream()
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        loop {
            let Poll::Ready(next) = self.poll_raw(cx) else { return self.poll_held(cx) };
            let last = self.exhausted();
            let Some(scanner) = self.screen.as_mut().and_then(|screen| screen.scanner.as_mut()) else {
                return Poll::Ready(next);
            };
            let piece = match next {
                Some(Err(cut)) if self.waiting.is_empty() => return Poll::Ready(Some(Err(cut))),
                Some(Err(cut)) => {
                    self.cut = Some(cut);
                    return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.waiting)))));
                }
                None => Bytes::new(),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(piece) => piece,
                    Err(other) => {
                        // The bytes held back come before the trailers.
                        self.peeked_trailers = other.into_trailers().ok();
                        Bytes::new()
                    }
                },
            };
            let over = piece.is_empty();
            let (passed, found) = scanner.pass(piece, last || over);
            if scanner.held() == 0 {
                self.holding = None;
            }
            if found && let Some(screen) = &self.screen {
                screen.route.report_reflection("masked in the body");
            }
            if over && let Some(screen) = &mut self.screen {
                // The body has been searched to its end.
                screen.scanner = None;
            }
            let passed = joined(std::mem::take(&mut self.waiting), passed);
            if self.holding_back() && passed.len() <= JOINED {
                self.waiting = passed;
                continue;
            }
            if !passed.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(passed))));
            }
            if over && self.peeked_trailers.is_none() {
                return Poll::Ready(None);
            }
        }
    }

    /// Lets go of what is held back once nothing has followed it for a while.
    fn poll_held(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let scanner = self.screen.as_mut().and_then(|screen| screen.scanner.as_mut());
        let Some(scanner) = scanner.filter(|scanner| scanner.held() > 0) else { return Poll::Pending };
        let holding = self.holding.get_or_insert_with(|| Box::pin(tokio::time::sleep(HOLD)));
        ready!(holding.as_mut().poll(cx));
        self.holding = None;
        let released = joined(std::mem::take(&mut self.waiting), scanner.release());
        Poll::Ready(Some(Ok(Frame::data(released))))
    }

    fn holding_back(&self) -> bool {
        self.screen.as_ref().is_some_and(|screen| screen.held() > 0)
    }

    /// The next piece as it came.
    fn poll_raw(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        if let Some(cut) = self.cut.take() {
            return Poll::Ready(Some(Err(cut)));
        }
        if let Some(piece) = self.pieces.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        if self.broken {
            return Poll::Ready(Some(Err(Cut::Peeked)));
        }
        if let Some(trailers) = self.peeked_trailers.take() {
            return Poll::Ready(self.pass_trailers(trailers));
        }
        if self.finished {
            return Poll::Ready(None);
        }
        let Poll::Ready(next) = Pin::new(&mut self.rest).poll_frame(cx) else {
            let patience = self.patience;
            let silence = self.silence.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
            ready!(silence.as_mut().poll(cx));
            return Poll::Ready(Some(Err(Cut::Silence)));
        };
        self.silence = None;
        Poll::Ready(match next {
            None => {
                self.finished = true;
                None
            }
            Some(Err(error)) => Some(Err(Cut::Provider(error))),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(piece) => Some(Ok(Frame::data(piece))),
                Err(other) => {
                    self.finished = true;
                    other.into_trailers().ok().and_then(|trailers| self.pass_trailers(trailers))
                }
            },
        })
    }

    /// Returns those trailers that may pass; an error if the response must not pass with them.
    fn pass_trailers(&self, trailers: HeaderMap) -> Option<Result<Frame<Bytes>, Cut>> {
        let mut upstream_response = self.trailers.take(trailers)?;
        match self.screen.as_ref().map_or(Ok(()), |screen| screen.trailers(&mut upstream_response)) {
            Ok(()) => Some(Ok(Frame::trailers(upstream_response))),
            Err(Reflected) => Some(Err(Cut::Reflected)),
        }
    }
}

fn joined(one: Bytes, other: Bytes) -> Bytes {
    match (one.is_empty(), other.is_empty()) {
        (true, _) => other,
        (_, true) => one,
        (false, false) => [one, other].concat().into(),
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let answer = self.get_mut();
        if let Some(cut) = answer.cut.take() {
            return Poll::Ready(Some(Err(cut)));
        }
        let frame = match &mut answer.kind {
            Kind::Own(bytes) => bytes.take().filter(|bytes| !bytes.is_empty()).map(|bytes| Ok(Frame::data(bytes))),
            Kind::Stream(_) if answer.busy.as_ref().is_some_and(|busy| busy.is_backlogged(cx)) => return Poll::Pending,
            Kind::Stream(stream) => match stream.poll_piece(cx) {
                Poll::Ready(frame) => frame,
                Poll::Pending => {
                    answer.busy.iter().for_each(|busy| busy.waits(false));
                    return Poll::Pending;
                }
            },
            Kind::Switch(_) => None,
        };
        match frame {
            Some(Ok(frame)) => {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                if let Some(log) = &mut answer.log {
                    log.record().response_bytes += bytes as u64;
                }
                if let Kind::Stream(stream) = &mut answer.kind
                    && let Some(copy) = &mut stream.copy
                    && let Some(piece) = frame.data_ref()
                {
                    copy.piece(piece);
                }
                if let Some(busy) = &answer.busy {
                    busy.waits(true);
                    busy.offer(bytes);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(cut)) => {
                if let Kind::Stream(stream) = &mut answer.kind
                    && let Some(lent) = stream.lent.take()
                {
                    lent.connection.distrust();
                }
                // hyper drops what it has not flushed yet, the head included: let that leave first, so that the
                // client sees an answer that broke off, and not a connection that closed without one.
                answer.cut = Some(cut);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            None => {
                answer.complete();
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Own(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Kind::Stream(stream) => stream.ended() && !stream.lengthy,
            Kind::Switch(_) => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Own(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Kind::Switch(_) => SizeHint::with_exact(0),
            Kind::Stream(stream) if stream.lengthy => SizeHint::default(),
            Kind::Stream(stream) => {
                let peeked = stream.held() as u64 + stream.pieces.iter().map(|piece| piece.len() as u64).sum::<u64>();
                let rest = stream.rest.size_hint();
                let mut hint = SizeHint::new();
                hint.set_lower(rest.lower().saturating_add(peeked));
                if let Some(upper) = rest.upper() {
                    hint.set_upper(upper.saturating_add(peeked));
                }
                hint
            }
        }
    }
}

impl Drop for ResponseBody {
    /// hyper does not ask again after the last piece, so the end is seen here as well.
    fn drop(&mut self) {
        let ended = match &self.kind {
            Kind::Stream(stream) => stream.ended(),
            Kind::Own(_) | Kind::Switch(_) => self.is_end_stream(),
        };
        if self.busy.as_ref().is_some_and(Busy::given_up) {
            self.log.iter_mut().for_each(RequestLog::stalled);
        } else if ended {
            self.complete();
        }
        if !ended
            && let Kind::Stream(stream) = &mut self.kind
            && let Some(lent) = stream.lent.take()
        {
            lent.abort();
        }
    }
}
