//! In-memory streams in place of sockets, for simulations: a pair of ends, and the network that connections lead to.
//!
//! They behave as TCP does in all respects that matter to the layers above: an end that is dropped with unread bytes
//! resets the connection, data that has arrived can still be read after a reset, and one side can close before the
//! other. Written bytes arrive at once, unless the end is corked: then they arrive together when the cork is drawn.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::socket::Look;
use crate::base::sent_bytes::SentBytes;

/// Capacity of one direction, in bytes.
const ROOM: usize = 64 * 1024;

/// A network that replaces the real one in simulations.
pub(crate) trait SimulatedNetwork {
    /// Connects to a host; yields the client's end.
    fn connect(&self, host: &str) -> Pin<Box<dyn Future<Output = io::Result<End>>>>;
}

thread_local! {
    static NETWORK: RefCell<Option<Rc<dyn SimulatedNetwork>>> = const { RefCell::new(None) };
}

/// Connections of this thread lead here from now on; `None`: to the real network.
pub(crate) fn set_network(network: Option<Rc<dyn SimulatedNetwork>>) {
    NETWORK.set(network);
}

pub(super) fn network() -> Option<Rc<dyn SimulatedNetwork>> {
    NETWORK.with_borrow(Option::clone)
}

/// One direction of a simulated connection, with its unread bytes.
#[derive(Default)]
struct Way {
    bytes: VecDeque<u8>,
    corked: bool,
    /// True once no more bytes will be written.
    closed: bool,
    /// True once the bytes are no longer read.
    abandoned: bool,
    /// It was reset: told when what has arrived is read.
    reset: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Way {
    fn wake(&mut self) {
        for waker in self.reader.take().into_iter().chain(self.writer.take()) {
            waker.wake();
        }
    }
}

/// One end of a connection.
pub(crate) struct End {
    incoming: Rc<RefCell<Way>>,
    outgoing: Rc<RefCell<Way>>,
    sent: Rc<SentBytes>,
}

/// Creates a connection and returns both ends.
pub(crate) fn connection() -> (End, End) {
    let (one, other) = (Rc::<RefCell<Way>>::default(), Rc::<RefCell<Way>>::default());
    let end = |incoming: &Rc<RefCell<Way>>, outgoing: &Rc<RefCell<Way>>| End {
        incoming: incoming.clone(),
        outgoing: outgoing.clone(),
        sent: Rc::default(),
    };
    (end(&one, &other), end(&other, &one))
}

/// Holds back what an end writes, until it is drawn.
pub(crate) struct Cork(Rc<RefCell<Way>>);

impl Cork {
    /// Holds back all bytes that were not read yet.
    pub(crate) fn put(&self) {
        self.0.borrow_mut().corked = true;
    }

    /// Releases the bytes that were held back.
    pub(crate) fn draw(&self) {
        let mut path = self.0.borrow_mut();
        path.corked = false;
        path.wake();
    }
}

impl End {
    /// A cork for what is written here.
    pub(crate) fn cork(&self) -> Cork {
        Cork(self.outgoing.clone())
    }

    /// Counts the bytes that were taken.
    pub(crate) fn sent(&self) -> Rc<SentBytes> {
        self.sent.begin();
        self.sent.clone()
    }

    /// Returns the state of the incoming direction.
    pub(super) fn look(&self) -> Look {
        let path = self.incoming.borrow();
        match (path.corked || path.bytes.is_empty(), path.closed || path.reset) {
            (false, _) => Look::Speaking,
            (true, true) => Look::Closed,
            (true, false) => Look::Quiet,
        }
    }

    /// Closes both directions, even if the end is still in use.
    pub(super) fn close_now(&self) {
        let mut outgoing = self.outgoing.borrow_mut();
        outgoing.closed = true;
        outgoing.wake();
        drop(outgoing);
        let mut incoming = self.incoming.borrow_mut();
        (incoming.closed, incoming.abandoned) = (true, true);
        incoming.wake();
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let mut incoming = self.incoming.borrow_mut();
        let unread = !incoming.bytes.is_empty() && !incoming.closed;
        incoming.abandoned = true;
        incoming.wake();
        drop(incoming);
        let mut outgoing = self.outgoing.borrow_mut();
        (outgoing.closed, outgoing.corked) = (true, false);
        outgoing.reset |= unread;
        outgoing.wake();
    }
}

impl AsyncRead for End {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let path = &mut *self.incoming.borrow_mut();
        if path.corked || (path.bytes.is_empty() && !path.closed && !path.reset) {
            path.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        if path.bytes.is_empty() {
            return Poll::Ready(if path.reset { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(()) });
        }
        let (piece, _) = path.bytes.as_slices();
        let length = piece.len().min(buf.remaining());
        buf.put_slice(&piece[..length]);
        path.bytes.drain(..length);
        if let Some(writer) = path.writer.take() {
            writer.wake();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for End {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let path = &mut *self.outgoing.borrow_mut();
        if path.abandoned || path.closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let length = buf.len().min(ROOM.saturating_sub(path.bytes.len()));
        if length == 0 && !buf.is_empty() {
            path.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        path.bytes.extend(&buf[..length]);
        self.sent.add(length);
        if !path.corked
            && let Some(reader) = path.reader.take()
        {
            reader.wake();
        }
        Poll::Ready(Ok(length))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut path = self.outgoing.borrow_mut();
        path.closed = true;
        path.wake();
        Poll::Ready(Ok(()))
    }
}
