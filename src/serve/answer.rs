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

use bytes::{Buf, Bytes};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::Sleep;

use super::connection::Busy;
use super::replay::{Outgoing, Recorder};
use super::tale::Tale;
use crate::base::time::Clock;
use crate::upstream::{Connection, Endpoint};

/// A response body.
pub struct Answer {
    kind: Kind,
    tale: Tale,
    busy: Option<Busy>,
    /// How it broke off, until what went before has left.
    cut: Option<Cut>,
}

enum Kind {
    Own(Option<Bytes>),
    Stream(Box<Stream>),
}

/// A provider's body on its way through.
pub struct Stream {
    /// Pieces that were peeked at, to be given back first.
    pub pieces: VecDeque<Bytes>,
    /// The rest.
    pub rest: Incoming,
    /// The connection it comes over.
    pub lent: Option<Lent>,
    /// Longest silence between two pieces.
    pub patience: Duration,
    /// Runs while nothing comes.
    pub silence: Option<Pin<Box<Sleep>>>,
    /// Peeking met the end by force: the body broke off.
    pub broken: bool,
}

/// A provider's connection, and where it belongs.
pub struct Lent {
    /// Its pool.
    pub endpoint: Rc<Endpoint<Outgoing>>,
    /// The connection.
    pub connection: Connection<Outgoing>,
    /// The request body, if there was one: it must have ended, too.
    pub request: Option<Rc<Recorder>>,
    /// For its age in the pool.
    pub clock: Clock,
}

/// Why a response body broke off. Only hyper sees it, and closes the client's connection.
#[derive(Debug)]
pub enum Cut {
    /// The provider's side failed.
    Provider(hyper::Error),
    /// It broke off while we looked at it.
    Peeked,
    /// Nothing came for too long.
    Silence,
}

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Cut::Provider(error) => write!(f, "provider body: {error}"),
            Cut::Peeked => f.write_str("the provider broke off"),
            Cut::Silence => f.write_str("the provider fell silent"),
        }
    }
}

impl std::error::Error for Cut {}

impl Lent {
    /// Gives the connection back after a clean end; closes it where the request is still under way.
    pub fn settle(self) {
        let request_ended = self.request.as_ref().is_none_or(|request| request.complete());
        if request_ended {
            self.endpoint.give_back(self.connection, self.clock.now());
        }
    }
}

impl Answer {
    /// A body of our own.
    pub const fn own(bytes: Bytes, tale: Tale) -> Self {
        Self { kind: Kind::Own(Some(bytes)), tale, busy: None, cut: None }
    }

    /// A provider's body.
    pub fn stream(stream: Stream, tale: Tale) -> Self {
        Self { kind: Kind::Stream(Box::new(stream)), tale, busy: None, cut: None }
    }

    /// Keeps the client's connection counted as busy until this answer is over.
    pub fn hold(&mut self, busy: Busy) {
        self.busy = Some(busy);
    }

    /// The whole answer went out: the provider's connection may serve again.
    fn complete(&mut self) {
        self.tale.record().complete = true;
        if let Kind::Stream(stream) = &mut self.kind
            && let Some(lent) = stream.lent.take()
        {
            lent.settle();
        }
    }
}

impl Stream {
    fn ended(&self) -> bool {
        self.pieces.is_empty() && !self.broken && self.rest.is_end_stream()
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        if let Some(piece) = self.pieces.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        if self.broken {
            return Poll::Ready(Some(Err(Cut::Peeked)));
        }
        let Poll::Ready(next) = Pin::new(&mut self.rest).poll_frame(cx) else {
            let patience = self.patience;
            let silence = self.silence.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
            ready!(silence.as_mut().poll(cx));
            return Poll::Ready(Some(Err(Cut::Silence)));
        };
        self.silence = None;
        Poll::Ready(next.map(|frame| {
            frame.map_err(Cut::Provider).map(|frame| frame.map_data(|mut data| data.copy_to_bytes(data.remaining())))
        }))
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let answer = self.get_mut();
        if let Some(cut) = answer.cut.take() {
            return Poll::Ready(Some(Err(cut)));
        }
        let frame = match &mut answer.kind {
            Kind::Own(bytes) => bytes.take().filter(|bytes| !bytes.is_empty()).map(|bytes| Ok(Frame::data(bytes))),
            Kind::Stream(stream) => ready!(stream.poll_piece(cx)),
        };
        match frame {
            Some(Ok(frame)) => {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                answer.tale.record().response_bytes += bytes as u64;
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(cut)) => {
                if let Kind::Stream(stream) = &mut answer.kind {
                    stream.lent = None;
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
            Kind::Stream(stream) => stream.ended(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Own(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Kind::Stream(stream) => {
                let peeked: u64 = stream.pieces.iter().map(|piece| piece.len() as u64).sum();
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

impl Drop for Answer {
    /// hyper does not ask again after the last piece, so the end is seen here as well.
    fn drop(&mut self) {
        if self.is_end_stream() {
            self.complete();
        }
    }
}
