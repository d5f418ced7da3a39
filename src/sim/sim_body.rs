//! The body of a response, whole or spoilt.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Sleep;

use crate::sim::sim_response::Content;
use crate::sim::sim_stream::ConnectionControl;

/// Maximum size of one piece of a body in bytes, unless set otherwise.
const CHUNK: usize = 64 << 10;
static SPACES: [u8; CHUNK] = [b' '; CHUNK];
/// Time for which written data may leave before the connection breaks.
const FLUSH: Duration = Duration::from_millis(5);

/// The way in which a body ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum BodyEnding {
    /// After so many bytes, without the rest.
    Cut(u64),
    /// With RST, before its first byte.
    Reset,
    /// At its full length, without an error.
    Whole,
}

/// The body of a response, with the pauses and breaks that faults ask for.
pub(super) struct SimBody {
    content: Content,
    total: u64,
    sent: u64,
    chunk: usize,
    ending: BodyEnding,
    pause: Option<Duration>,
    asleep: Option<Pin<Box<Sleep>>>,
    /// The pause, or the flush, before the next step was slept through.
    rested: bool,
    link: Rc<ConnectionControl>,
    closes: bool,
}

impl SimBody {
    pub(super) fn new(content: Content, link: Rc<ConnectionControl>) -> Self {
        let total = match &content {
            Content::Bytes(bytes) => u64::try_from(bytes.len()).unwrap_or(u64::MAX),
            Content::Filler { length, .. } => *length,
        };
        let (chunk, ending) = (CHUNK, BodyEnding::Whole);
        Self { content, total, sent: 0, chunk, ending, pause: None, asleep: None, rested: false, link, closes: false }
    }

    /// Sets how the body ends; `cut` receives its total length in bytes.
    pub(super) fn ending(&mut self, cut: impl FnOnce(u64) -> BodyEnding) {
        self.ending = cut(self.total);
    }

    /// Goes out in pieces of so many bytes, after a pause each.
    pub(super) fn drip(&mut self, chunk: usize, pause: Duration) {
        (self.chunk, self.pause) = (chunk.clamp(1, CHUNK), Some(pause));
    }

    /// Once all is sent, the connection closes without having said so.
    pub(super) const fn closes(&mut self) {
        self.closes = true;
    }

    fn next_chunk(&mut self) -> Bytes {
        let left = usize::try_from(self.total - self.sent).unwrap_or(usize::MAX);
        let room = match self.ending {
            BodyEnding::Cut(at) => usize::try_from(at.saturating_sub(self.sent)).unwrap_or(usize::MAX),
            BodyEnding::Reset | BodyEnding::Whole => usize::MAX,
        };
        let size = left.min(room);
        let chunk = match &mut self.content {
            // Bytes in memory go out in one piece, unless they are to drip or to break.
            Content::Bytes(bytes) if self.pause.is_none() => bytes.split_to(size.min(bytes.len())),
            Content::Bytes(bytes) => bytes.split_to(size.min(self.chunk).min(bytes.len())),
            Content::Filler { .. } => Bytes::from_static(SPACES.get(..size.min(self.chunk)).unwrap_or_default()),
        };
        self.sent += u64::try_from(chunk.len()).unwrap_or(0);
        chunk
    }

    fn breaks_now(&self) -> bool {
        match self.ending {
            BodyEnding::Cut(at) => self.sent >= at,
            BodyEnding::Reset => true,
            BodyEnding::Whole => false,
        }
    }
}

impl Body for SimBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = self.get_mut();
        loop {
            if let Some(sleep) = &mut this.asleep {
                ready!(sleep.as_mut().poll(cx));
                (this.asleep, this.rested) = (None, true);
            }
            let breaks = this.breaks_now();
            if !breaks && this.sent >= this.total {
                return Poll::Ready(None);
            }
            let rest = if breaks { Some(FLUSH) } else { this.pause };
            if let Some(rest) = rest.filter(|_| !this.rested) {
                this.asleep = Some(Box::pin(tokio::time::sleep(rest)));
                continue;
            }
            this.rested = false;
            if breaks {
                if this.ending == BodyEnding::Reset {
                    this.link.reset();
                }
                return Poll::Ready(Some(Err(io::ErrorKind::ConnectionAborted.into())));
            }
            return Poll::Ready(Some(Ok(Frame::data(this.next_chunk()))));
        }
    }

    fn is_end_stream(&self) -> bool {
        self.sent >= self.total && self.ending == BodyEnding::Whole
    }

    fn size_hint(&self) -> SizeHint {
        let announced = match self.content {
            Content::Bytes(_) => true,
            Content::Filler { announced, .. } => announced,
        };
        // An empty body cannot be cut once its length was announced.
        if announced && (self.total > 0 || self.ending == BodyEnding::Whole) {
            SizeHint::with_exact(self.total - self.sent)
        } else {
            SizeHint::default()
        }
    }
}

impl Drop for SimBody {
    fn drop(&mut self) {
        if self.closes {
            self.link.closing.notify_one();
        }
    }
}
