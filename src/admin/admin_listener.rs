//! The connections of the admin listener: accepted, encrypted where the config says so, counted, and ended when the
//! process ends.
//!
//! Accepting and TLS handshakes have a thread of their own, so that a flood of them does not hold up the control thread,
//! which keeps the tokens. Requests are answered on the control thread. Every peer has its share of the connections, and
//! everything that is waited for has a deadline: handshakes, heads, bodies, and answers that the other side does not take.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener as StdTcpListener};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Sleep, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use super::{Admin, AdminConnection, PATIENCE, is_local};
use crate::base::shares::{Bounds, Entered, Shares};
use crate::base::time::Clock;
use crate::control::{EventKind, Reloads};
use crate::observe::metrics::{Limit, Metrics};

/// An answer of which nothing is taken for so long is given up.
const WRITE_PATIENCE: Duration = Duration::from_secs(30);
/// Time for which requests in progress may still finish when the process ends.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
/// A connection that has brought no request yet may bring one for so long then: it may be on its way. A handshake may end.
const FIRST: Duration = Duration::from_secs(1);
/// Connections. One that is older than the grace makes room for others, where there are too many.
const BOUNDS: Bounds = Bounds { most: 256, of_peer: 64, grace: Duration::from_secs(10) };
/// Maximum number of bytes that a connection buffers in each direction.
const BUFFER: usize = 64 * 1024;

/// The open admin listener, with the thread that accepts its connections and completes their handshakes.
pub struct AdminListener {
    arrivals: mpsc::Receiver<AdminArrival>,
    /// Cancelled: nothing more is accepted.
    closing: CancellationToken,
    /// Cancelled: its connections are gone, too.
    over: CancellationToken,
    thread: JoinHandle<()>,
}

/// A connection, after its handshake.
struct AdminArrival {
    stream: AdminStream,
    connection: AdminConnection,
    slot: ConnectionSlot,
}

/// A connection's place among all of them, given back when dropped.
struct ConnectionSlot {
    shares: Arc<Mutex<Shares<CancellationToken>>>,
    peer: IpAddr,
    id: u64,
    /// Cancelled: it has to make room for another one.
    ended: CancellationToken,
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        shares.leave(Some(self.peer), self.id);
    }
}

impl AdminListener {
    /// Accepts connections from now on. `alarm` is dropped as soon as the listener's thread ends, for any reason.
    pub fn open<A: Send + 'static>(
        listener: StdTcpListener,
        reloads: Reloads,
        metrics: Arc<Metrics>,
        clock: Clock,
        alarm: A,
    ) -> io::Result<Self> {
        let own = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        let (arrived, arrivals) = mpsc::channel(BOUNDS.most);
        let (closing, over) = (CancellationToken::new(), CancellationToken::new());
        let (started, starts) = std::sync::mpsc::sync_channel(1);
        let (stop, end) = (closing.clone(), over.clone());
        let thread = std::thread::Builder::new().name("admin".to_owned()).spawn(move || {
            let _alarm = alarm;
            let runtime = match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
                Ok(runtime) => runtime,
                Err(error) => return drop(started.send(Err(error))),
            };
            runtime.block_on(async move {
                let listener = match TcpListener::from_std(listener) {
                    Ok(listener) => listener,
                    Err(error) => return drop(started.send(Err(error))),
                };
                let _ = started.send(Ok(()));
                let (shares, closing) = (Arc::default(), stop.clone());
                let acceptor = Rc::new(AdminAcceptor { own, reloads, metrics, clock, shares, arrived, closing });
                tokio::select! {
                    () = accept(&acceptor, listener) => {}
                    () = stop.cancelled() => {}
                }
                // What was accepted arrives; the last handshake that ends closes the channel.
                drop(acceptor);
                // The connections' sockets belong to this runtime.
                end.cancelled().await;
            });
        })?;
        starts.recv().unwrap_or_else(|_| Err(io::Error::other("its thread ended")))?;
        Ok(Self { arrivals, closing, over, thread })
    }
}

/// The state that the accept loop and the TLS handshakes share.
struct AdminAcceptor {
    own: SocketAddr,
    reloads: Reloads,
    metrics: Arc<Metrics>,
    clock: Clock,
    shares: Arc<Mutex<Shares<CancellationToken>>>,
    arrived: mpsc::Sender<AdminArrival>,
    closing: CancellationToken,
}

async fn accept(acceptor: &Rc<AdminAcceptor>, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let peer = peer.ip().to_canonical();
                match acceptor.take_slot(peer) {
                    Some(slot) => drop(tokio::task::spawn_local(acceptor.clone().handshake(stream, peer, slot))),
                    None => acceptor.metrics.limited(Limit::Admin),
                }
            }
            Err(error) => {
                tracing::warn!(%error, "the admin listener cannot accept; resting");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

impl AdminAcceptor {
    /// Counts a connection of this peer. `None`: it, or all together, have too many.
    fn take_slot(&self, peer: IpAddr) -> Option<ConnectionSlot> {
        let ended = CancellationToken::new();
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        let id = match shares.enter(Some(peer), ended.clone(), BOUNDS, self.clock.now()) {
            Entered::Free(id) => id,
            Entered::Instead(id, oldest) => {
                oldest.cancel();
                self.metrics.limited(Limit::Admin);
                tracing::debug!(%peer, "the admin listener has too many connections; the oldest one makes room");
                id
            }
            Entered::Full => {
                tracing::debug!(%peer, "the admin listener has too many connections; this one is closed");
                return None;
            }
        };
        Some(ConnectionSlot { shares: self.shares.clone(), peer, id, ended })
    }

    /// Waits until the listener closes, and a moment longer.
    async fn closed(&self) {
        self.closing.cancelled().await;
        sleep(FIRST).await;
    }

    /// Shakes hands, where there is TLS, and hands the connection over.
    async fn handshake(self: Rc<Self>, stream: TcpStream, peer: IpAddr, slot: ConnectionSlot) {
        let _ = stream.set_nodelay(true);
        let admin_listener = self.reloads.current().admin.clone();
        let connection = |tls| AdminConnection { own: self.own, peer, tls };
        let (stream, connection) = match admin_listener.and_then(|admin_listener| admin_listener.tls) {
            Some(tls) => {
                let handshake = tokio::select! {
                    handshake = timeout(PATIENCE, TlsAcceptor::from(tls).accept(stream)) => handshake,
                    () = slot.ended.cancelled() => return,
                    () = self.closed() => return,
                };
                let Ok(Ok(stream)) = handshake else { return };
                (AdminStream::Tls(Box::new(stream)), connection(true))
            }
            // An address that other machines can reach is never served without TLS, even if a reloaded config has none.
            None if !is_local(self.own) => return,
            None => (AdminStream::Plain(stream), connection(false)),
        };
        // There is room for as many as there are places.
        let _ = self.arrived.send(AdminArrival { stream, connection, slot }).await;
    }
}

/// Answers until `end` is cancelled, and a moment longer what is under way.
pub async fn serve(admin: Rc<Admin>, admin_listener: AdminListener, end: CancellationToken) {
    let AdminListener { mut arrivals, closing, over, thread } = admin_listener;
    tokio::task::spawn_local(publish_reloads(admin.clone()));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = end.cancelled() => break,
            Some(_) = connections.join_next() => {}
            arrival = arrivals.recv() => match arrival {
                Some(arrival) => drop(connections.spawn_local(serve_connection(admin.clone(), arrival, end.clone()))),
                None => break,
            },
        }
    }
    closing.cancel();
    // Connections that were accepted before are served, too; requests that have not finished by then are cut off.
    let drained = async {
        while let Some(arrival) = arrivals.recv().await {
            connections.spawn_local(serve_connection(admin.clone(), arrival, end.clone()));
        }
        while connections.join_next().await.is_some() {}
    };
    let _ = timeout(DRAIN_TIMEOUT, drained).await;
    drop((connections, arrivals));
    over.cancel();
    let _ = thread.join();
}

/// Tells listeners of every reload.
async fn publish_reloads(admin: Rc<Admin>) {
    let mut outcomes = admin.reloads.outcomes();
    outcomes.mark_unchanged();
    while outcomes.changed().await.is_ok() {
        let reloaded = outcomes.borrow_and_update().clone();
        admin.events.tell(EventKind::Reload(reloaded));
    }
}

/// Serves one connection until it closes, has to make room for another one, or the process ends.
async fn serve_connection(admin: Rc<Admin>, arrival: AdminArrival, end: CancellationToken) {
    let AdminArrival { stream, connection, slot } = arrival;
    let begun = CancellationToken::new();
    let first = begun.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let admin = admin.clone();
        first.cancel();
        async move { Ok::<_, Infallible>(admin.answer(connection, request).await) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(PATIENCE).max_buf_size(BUFFER);
    let stream = WriteDeadlineStream { inner: stream, waiting: None };
    let serving = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(serving);
    // A broken operator's connection is the operator's news, not ours.
    tokio::select! {
        _ = &mut serving => {}
        () = slot.ended.cancelled() => {}
        () = end.cancelled() => {
            // To close without an answer is to lose a request that crosses.
            tokio::select! {
                _ = &mut serving => return,
                _ = timeout(FIRST, begun.cancelled()) => {}
            }
            serving.as_mut().graceful_shutdown();
            let _ = serving.await;
        }
    }
}

/// The byte stream of a connection, plain or with TLS.
enum AdminStream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A connection on which a write fails that has waited for too long.
struct WriteDeadlineStream {
    inner: AdminStream,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl WriteDeadlineStream {
    /// Begins to wait, goes on, or gives up.
    fn limit_wait<T>(&mut self, cx: &mut Context<'_>, wrote: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if wrote.is_ready() {
            self.waiting = None;
            return wrote;
        }
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(WRITE_PATIENCE)));
        waiting.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for WriteDeadlineStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().inner {
            AdminStream::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            AdminStream::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for WriteDeadlineStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let wrote = match &mut this.inner {
            AdminStream::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            AdminStream::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        };
        this.limit_wait(cx, wrote)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = match &mut this.inner {
            AdminStream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            AdminStream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        };
        this.limit_wait(cx, flushed)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let shut = match &mut this.inner {
            AdminStream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            AdminStream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        };
        this.limit_wait(cx, shut)
    }
}
