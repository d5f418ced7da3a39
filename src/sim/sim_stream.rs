//! The bytes of one connection, and the ways to spoil them below HTTP.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_rustls::server::TlsStream;

use crate::sim::sim_state::SimState;

/// Between those who answer a request and the connection it came on. One thread; never locked.
#[derive(Default)]
pub(super) struct ConnectionControl {
    order: RefCell<Order>,
    /// Told when the connection shall close without a word.
    pub closing: Notify,
}

/// The action of the connection in place of regular HTTP.
#[derive(Debug, Default)]
enum Order {
    /// Write this, then hang up.
    Garbage(Bytes),
    /// No action: bytes pass through unchanged.
    #[default]
    None,
    /// Failure of every read and write, then the end of the connection with RST.
    Reset,
}

impl ConnectionControl {
    /// From now on, every read and write fails, and the connection ends with RST.
    pub(super) fn reset(&self) {
        self.order.replace(Order::Reset);
    }

    /// The next bytes to be written are these, and then no more.
    pub(super) fn garbage(&self, bytes: Bytes) {
        self.order.replace(Order::Garbage(bytes));
    }
}

/// A TLS connection under the orders of its [`ConnectionControl`].
pub(super) struct SimStream {
    tls: TlsStream<TcpStream>,
    link: Rc<ConnectionControl>,
    desk: Arc<SimState>,
    connection: u64,
}

impl SimStream {
    pub(super) const fn new(
        tls: TlsStream<TcpStream>,
        link: Rc<ConnectionControl>,
        desk: Arc<SimState>,
        connection: u64,
    ) -> Self {
        Self { tls, link, desk, connection }
    }

    fn spoil(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut order = self.link.order.borrow_mut();
        match &mut *order {
            Order::None => Poll::Ready(Ok(())),
            Order::Reset => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            Order::Garbage(bytes) => {
                while !bytes.is_empty() {
                    let written = ready!(Pin::new(&mut self.tls).poll_write(cx, bytes))?;
                    bytes.advance(written);
                }
                ready!(Pin::new(&mut self.tls).poll_flush(cx))?;
                Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
            }
        }
    }
}

impl Drop for SimStream {
    fn drop(&mut self) {
        if matches!(*self.link.order.borrow(), Order::Reset) {
            // Without lingering, closing a socket sends RST. A socket that is gone already needs none.
            let _ = self.tls.get_ref().0.set_zero_linger();
        }
    }
}

impl AsyncRead for SimStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if matches!(*this.link.order.borrow(), Order::Reset) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.tls).poll_read(cx, buffer))?;
        this.desk.tap(this.connection, buffer.filled().get(before..).unwrap_or_default());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for SimStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.spoil(cx))?;
        Pin::new(&mut this.tls).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.spoil(cx))?;
        Pin::new(&mut this.tls).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.tls.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tls).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if matches!(*this.link.order.borrow(), Order::Reset) {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut this.tls).poll_shutdown(cx)
    }
}
