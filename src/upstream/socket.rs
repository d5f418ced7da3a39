//! The socket of a connection, which can be examined while HTTP and TLS own it.
//!
//! [`ProbedStream`] lies below TLS: code that lends a connection can ask the kernel if the other side has closed it,
//! before any task of the connection has been notified, and if a second TLS handshake has begun. [`ByteCounter`] lies
//! above TLS: it knows if a byte of HTTP has arrived.

use std::cell::{Cell, RefCell};
use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Shutdown};
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::exchange_error::is_of_certificate;
use super::records::Records;
#[cfg(test)]
use super::simulated::End;

/// Time after which the connection ends if the other side's kernel has not accepted sent data (`TCP_USER_TIMEOUT`, RFC
/// 5482): the path is lost, or the other side has read nothing since. A provider that reads and responds slowly is not
/// affected.
const UNTAKEN: Duration = Duration::from_secs(120);
/// A silent connection is probed after this time, and that often, so that one whose path is lost ends.
const PROBED: TcpKeepalive =
    TcpKeepalive::new().with_time(Duration::from_secs(30)).with_interval(Duration::from_secs(10)).with_retries(3);

/// Options of a socket to a provider: small writes leave at once, and a lost path is noticed.
pub(super) fn set_options(stream: &TcpStream) -> io::Result<()> {
    set_tunnel_options(stream)?;
    // A kernel without it still connects; only a lost path is then noticed later.
    let _ = SockRef::from(stream).set_tcp_user_timeout(Some(UNTAKEN));
    Ok(())
}

/// Options of a socket whose bytes are not ours: it may well be that the other side does not read for long.
pub(super) fn set_tunnel_options(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let _ = SockRef::from(stream).set_tcp_keepalive(&PROBED);
    Ok(())
}

/// The TCP stream below TLS.
pub(super) struct ProbedStream {
    probe: Rc<RefCell<SocketProbe>>,
    /// The address that it is connected to, if that is known.
    pub(super) peer: Option<IpAddr>,
}

/// The transport of the bytes: TCP, or a simulated stream in tests.
enum Raw {
    Tcp(TcpStream),
    #[cfg(test)]
    Simulated(End),
}

/// Polls whichever stream it is.
macro_rules! poll_raw {
    ($raw:expr, $poll:ident($($with:expr),*)) => {
        match $raw {
            Raw::Tcp(stream) => Pin::new(stream).$poll($($with),*),
            #[cfg(test)]
            Raw::Simulated(end) => Pin::new(end).$poll($($with),*),
        }
    };
}

/// A stream, and the framing of TLS on it as long as it is looked at.
struct SocketProbe {
    stream: Raw,
    records: Option<Records>,
    renegotiated: Rc<Cell<bool>>,
}

/// A look at a socket that somebody else owns.
pub(super) struct SocketLook {
    wire: Weak<RefCell<SocketProbe>>,
    renegotiated: Rc<Cell<bool>>,
}

/// The state of a socket, as seen without reading from it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Look {
    /// The other side has closed it, or it is broken.
    Closed,
    /// Open, and nothing to read.
    Quiet,
    /// Something is there to be read.
    Speaking,
}

impl ProbedStream {
    pub(super) fn new(stream: TcpStream) -> Self {
        let peer = stream.peer_addr().ok().map(|address| address.ip());
        Self::over(Raw::Tcp(stream), peer)
    }

    #[cfg(test)]
    pub(super) fn simulated(end: End) -> Self {
        Self::over(Raw::Simulated(end), None)
    }

    fn over(stream: Raw, peer: Option<IpAddr>) -> Self {
        let wire = SocketProbe { stream, records: Some(Records::default()), renegotiated: Rc::default() };
        Self { probe: Rc::new(RefCell::new(wire)), peer }
    }

    pub(super) fn probe(&self) -> SocketLook {
        SocketLook { wire: Rc::downgrade(&self.probe), renegotiated: self.probe.borrow().renegotiated.clone() }
    }

    /// The framing of TLS tells nothing any more: there is no second handshake in this version of TLS.
    pub(super) fn stop_reading_records(&self) {
        self.probe.borrow_mut().records = None;
    }
}

impl SocketLook {
    /// Asks the kernel; never waits.
    pub(super) fn look(&self) -> Look {
        let Some(wire) = self.wire.upgrade() else { return Look::Closed };
        match &wire.borrow().stream {
            Raw::Tcp(stream) => peek(stream),
            #[cfg(test)]
            Raw::Simulated(end) => end.look(),
        }
    }

    /// Closes the connection at once, even if it is still in use.
    pub(super) fn close_now(&self) {
        let Some(wire) = self.wire.upgrade() else { return };
        match &wire.borrow().stream {
            Raw::Tcp(stream) => {
                // A socket that is closed already is what was wished for.
                let _ = SockRef::from(stream).shutdown(Shutdown::Both);
            }
            #[cfg(test)]
            Raw::Simulated(end) => end.close_now(),
        }
    }

    /// Lets the close of the connection reset it: unsent bytes are discarded, and the other side sees an error.
    pub(super) fn reset_on_close(&self) {
        let Some(wire) = self.wire.upgrade() else { return };
        match &wire.borrow().stream {
            // A socket that is closed already needs nothing more.
            Raw::Tcp(stream) => drop(SockRef::from(stream).set_linger(Some(Duration::ZERO))),
            #[cfg(test)]
            Raw::Simulated(_) => {}
        }
    }

    /// Returns whether the other side has begun a second TLS handshake.
    pub(super) fn is_renegotiated(&self) -> bool {
        self.renegotiated.get()
    }
}

/// Returns the state of a TCP stream, by a peek that never waits.
fn peek(stream: &TcpStream) -> Look {
    let mut byte = [MaybeUninit::uninit()];
    // The socket is non-blocking, as all of tokio's are.
    match SockRef::from(stream).peek(&mut byte) {
        Ok(0) => Look::Closed,
        Ok(_) if is_half_closed(stream) => Look::Closed,
        Ok(_) => Look::Speaking,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Look::Quiet,
        Err(_) => Look::Closed,
    }
}

/// Returns whether the other side has ended its half, behind bytes that were not read yet.
fn is_half_closed(stream: &TcpStream) -> bool {
    let mut polled = [PollFd::new(stream, PollFlags::RDHUP)];
    // A zero timeout: the state of the socket now.
    poll(&mut polled, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
}

impl AsyncRead for ProbedStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let wire = &mut *self.probe.borrow_mut();
        let before = buf.filled().len();
        let read = poll_raw!(&mut wire.stream, poll_read(cx, buf));
        if let Some(records) = &mut wire.records
            && records.read(buf.filled().get(before..).unwrap_or_default())
        {
            wire.renegotiated.set(true);
            wire.records = None;
        }
        read
    }
}

impl AsyncWrite for ProbedStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        poll_raw!(&mut self.probe.borrow_mut().stream, poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        poll_raw!(&mut self.probe.borrow_mut().stream, poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        poll_raw!(&mut self.probe.borrow_mut().stream, poll_shutdown(cx))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.probe.borrow().stream {
            Raw::Tcp(stream) => stream.is_write_vectored(),
            #[cfg(test)]
            Raw::Simulated(end) => end.is_write_vectored(),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        poll_raw!(&mut self.probe.borrow_mut().stream, poll_write_vectored(cx, bufs))
    }
}

/// The number of HTTP bytes that have arrived over a connection, and further state that the layers above need.
#[derive(Default)]
pub(super) struct ByteCounter {
    bytes: Cell<u64>,
    listener: Cell<Option<Waker>>,
    exchanges: Cell<u32>,
    refuses_writes: Cell<bool>,
    refuses_certificate: Cell<bool>,
    abandoned: Cell<bool>,
}

impl ByteCounter {
    /// Returns the number of bytes received so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    /// Returns whether the other side has refused our certificate, or wants one.
    pub(super) fn refuses_certificate(&self) -> bool {
        self.refuses_certificate.get()
    }

    /// Another exchange begins, over HTTP/1.1.
    pub(super) fn begin_exchange(&self) {
        self.exchanges.set(self.exchanges.get().wrapping_add(1));
    }

    /// Returns the number of exchanges begun over HTTP/1.1.
    pub(super) fn exchanges(&self) -> u32 {
        self.exchanges.get()
    }

    /// A write has failed: there will be no further exchange.
    pub(super) fn refuse_writes(&self) {
        self.refuses_writes.set(true);
    }

    /// Returns whether no write has failed so far.
    pub(super) fn takes_writes(&self) -> bool {
        !self.refuses_writes.get()
    }

    /// Its connection will not be used any more.
    pub(super) fn abandon(&self) {
        self.abandoned.set(true);
    }

    /// Returns whether the connection was abandoned: no response will be read from it any more.
    pub(super) fn is_abandoned(&self) -> bool {
        self.abandoned.get()
    }

    /// Wakes this task at the next byte, or at the end. There is one listener at a time.
    pub(super) fn wake_next(&self, waker: &Waker) {
        self.listener.set(Some(waker.clone()));
    }

    /// There is news of this connection.
    pub(super) fn wake(&self) {
        if let Some(listener) = self.listener.take() {
            listener.wake();
        }
    }
}

/// A stream whose incoming bytes are counted, and which is counted itself for as long as it lives.
pub(super) struct Counted<S> {
    inner: S,
    received: Rc<ByteCounter>,
    _open: Option<ConnectionCount>,
}

impl<S> Counted<S> {
    pub(super) fn new(inner: S, received: Rc<ByteCounter>, open: Option<ConnectionCount>) -> Self {
        Self { inner, received, _open: open }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(cx, buf);
        if read.is_ready() {
            let more = buf.filled().len().saturating_sub(before);
            self.received.bytes.set(self.received.bytes.get().saturating_add(more as u64));
            self.received.wake();
        }
        if let Poll::Ready(Err(error)) = &read
            && is_of_certificate(error)
        {
            self.received.refuses_certificate.set(true);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }
}

/// Counts a connection for as long as it is held.
pub(super) struct ConnectionCount(Rc<Cell<usize>>, Gauge);

impl ConnectionCount {
    /// Counted by us, and for the operator.
    pub(super) fn new(count: &Rc<Cell<usize>>, gauge: &Gauge) -> Self {
        count.set(count.get() + 1);
        gauge.inc();
        Self(count.clone(), gauge.clone())
    }
}

impl Drop for ConnectionCount {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
        self.1.dec();
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;
    use crate::upstream::race::tests::converse;

    #[test]
    fn an_end_is_seen_behind_bytes_that_were_not_read() {
        converse(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let stream = ProbedStream::new(TcpStream::connect(listener.local_addr().unwrap()).await.unwrap());
            let (mut peer, _) = listener.accept().await.unwrap();
            let probe = stream.probe();
            assert_eq!(probe.look(), Look::Quiet);
            peer.write_all(b"late").await.unwrap();
            while probe.look() == Look::Quiet {}
            assert_eq!(probe.look(), Look::Speaking);
            peer.shutdown().await.unwrap();
            while probe.look() == Look::Speaking {}
            assert_eq!(probe.look(), Look::Closed);
        });
    }

    #[test]
    fn a_connection_that_is_given_up_is_reset() {
        converse(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            for (given_up, seen) in [(false, Ok(0)), (true, Err(io::ErrorKind::ConnectionReset))] {
                let stream = ProbedStream::new(TcpStream::connect(listener.local_addr().unwrap()).await.unwrap());
                let (mut peer, _) = listener.accept().await.unwrap();
                if given_up {
                    stream.probe().reset_on_close();
                }
                drop(stream);
                assert_eq!(peer.read(&mut [0]).await.map_err(|error| error.kind()), seen);
            }
        });
    }
}
