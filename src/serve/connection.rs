//! One client's connection, from the TLS handshake to its close.
//!
//! A watchdog holds it to three times: the handshake, a request's head once its first byte came, and the silence
//! between requests. It keeps one timer per connection and looks at the clock only when that has run out, so that a
//! request on a busy connection touches no timer at all.
//!
//! When the process drains, nobody's request is lost: HTTP/2 is told by GOAWAY, and HTTP/1.1 by `connection: close` on
//! the next answer. A connection without a next request is closed after two seconds.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, Sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use super::answer::Switch;
use super::door::{Door, Entry};
use super::flow;
use super::gate::Place;
use super::identity::Peer;
use super::outbox::Outbox;
use super::preface::{self, Origin};
use super::site::Site;
use super::tunnel::{self, Rewound};
use super::world::World;
use crate::base::time::{Clock, Now};
use crate::config::{Limits, Listener, Serves};
use crate::tls::leaf;

/// A drain gives so much time to a connection's next request: one that was sent while we did not know of it yet is
/// answered, and its answer says that it is the last. Who was let in has as long as always for handshake and first request.
const FAREWELL: Duration = Duration::from_secs(2);

/// A connection that was just accepted.
pub enum Arrival {
    /// From this address.
    Tcp(TcpStream, IpAddr),
    /// From this machine.
    Unix(UnixStream),
}

/// Serves one accepted connection until it closes, or until it is idle after `drain` was cancelled.
pub async fn serve(world: Rc<World>, listener: usize, arrival: Arrival, drain: CancellationToken) {
    let site = world.site();
    match arrival {
        Arrival::Tcp(mut stream, peer) => {
            let _ = stream.set_nodelay(true);
            let Some(address) = whom(&site, listener, &mut stream, peer).await else { return };
            let Ok(_place) = place(&site, listener, address) else { return };
            let peer = Peer { address, ..Peer::default() };
            greet(world, site, listener, Outbox::new(stream), peer, drain).await;
        }
        Arrival::Unix(stream) => {
            let uid = stream.peer_cred().ok().map(|peer| peer.uid());
            Box::pin(greet(world, site, listener, stream, Peer { uid, ..Peer::default() }, drain)).await;
        }
    }
}

/// Whose connection it is: the peer's, or that of the client for whom a balancer speaks. `None`: it is to be closed.
async fn whom(site: &Site, listener: usize, stream: &mut TcpStream, peer: IpAddr) -> Option<Option<IpAddr>> {
    let config = site.listener(listener)?;
    if !config.is_proxy(peer) {
        return Some(Some(peer));
    }
    let patience = site.shared.snapshot.limits.header_timeout.unwrap_or(Duration::MAX);
    match timeout(patience, preface::read(stream)).await {
        Ok(Ok(Origin::At(address))) => Some(Some(address)),
        Ok(Ok(Origin::Itself)) => Some(Some(peer)),
        Ok(Ok(Origin::Unknown)) => Some(None),
        Ok(Err(error)) => {
            tracing::debug!(listener = %config.name, %peer, %error, "refused: the PROXY protocol is required");
            None
        }
        Err(_) => {
            tracing::debug!(listener = %config.name, %peer, "refused: the PROXY protocol came too late");
            None
        }
    }
}

/// Counts a connection of this address. An error: it has too many, and this one is to be closed.
fn place(site: &Site, listener: usize, address: Option<IpAddr>) -> Result<Option<Place>, ()> {
    let limit = site.shared.snapshot.limits.connections_per_peer;
    let (Some(limit), Some(address)) = (limit, address) else { return Ok(None) };
    let place = site.shared.gate.enter(address, limit);
    if place.is_none()
        && let Some(closed) = site.shared.gate.crowds.note(site.now())
    {
        let listener = site.listener(listener).map(|config| config.name.clone());
        tracing::warn!(
            listener = listener.as_deref(), peer = %address, limit, closed,
            "a peer has too many connections; new ones are closed"
        );
    }
    place.map(Some).ok_or(())
}

/// Shakes hands, where the listener has TLS, and serves. What a connection needs only for a while lives in boxes of its
/// own, so that an idle one is small.
async fn greet<S>(world: Rc<World>, site: Rc<Site>, listener: usize, stream: S, peer: Peer, drain: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let Some(config) = site.listener(listener).cloned() else { return };
    let footing = config.footing;
    let Some(tls) = &config.tls else {
        let door = Door { listener, footing, peer: Rc::new(peer), entry: entry(&config, None) };
        drop(site);
        return serve_http(world, stream, door, Wire::Plain, drain).await;
    };
    let shaken = Box::pin(shake(&site, &config, tls, stream, peer.address)).await;
    drop(site);
    let Some(stream) = shaken else { return };
    let session = stream.get_ref().1;
    let certificate = session.peer_certificates().and_then(|chain| leaf(chain.first()?));
    let sni = session.server_name().map(str::to_owned);
    let wire = if session.alpn_protocol() == Some(b"h2") { Wire::TlsH2 } else { Wire::Tls };
    let peer = Rc::new(Peer { certificate, ..peer });
    let door = Door { listener, footing, peer, entry: entry(&config, sni) };
    drop(config);
    serve_http(world, stream, door, wire, drain).await;
}

/// What a connection to this listener speaks to.
fn entry(config: &Listener, sni: Option<String>) -> Entry {
    match config.serves {
        Serves::Callback => Entry::Callback,
        Serves::Forward(_) => Entry::Proxy,
        Serves::Reverse(_) => Entry::Reverse(sni),
    }
}

/// The TLS handshake. `None`: there is no connection any more.
async fn shake<S>(
    site: &Site,
    config: &Listener,
    tls: &Arc<ServerConfig>,
    stream: S,
    peer: Option<IpAddr>,
) -> Option<Box<TlsStream<S>>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let limit = site.shared.snapshot.limits.handshakes.unwrap_or(usize::MAX);
    let Some(_under_way) = site.shared.gate.shake(limit) else {
        if let Some(closed) = site.shared.gate.rushes.note(site.now()) {
            tracing::warn!(listener = %config.name, limit, closed, "too many handshakes at once; new connections are closed");
        }
        return None;
    };
    let handshake = TlsAcceptor::from(Arc::clone(tls)).accept(stream);
    let patience = site.shared.snapshot.limits.header_timeout.unwrap_or(Duration::MAX);
    match timeout(patience, handshake).await {
        Ok(Ok(stream)) => Some(Box::new(stream)),
        Ok(Err(error)) => {
            tracing::debug!(listener = %config.name, ?peer, %error, "TLS handshake failed");
            None
        }
        Err(_) => None,
    }
}

/// What lies under HTTP, and which HTTP it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Wire {
    Plain,
    Tls,
    TlsH2,
}

/// Serves HTTP until the connection closes, or stops speaking it and then closes.
pub async fn serve_http<S>(world: Rc<World>, stream: S, door: Door, wire: Wire, drain: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let site = world.site();
    let limits = site.shared.snapshot.limits;
    let keeps_spelling = site.shared.snapshot.providers.iter().any(|provider| provider.way.http1.preserves_case());
    let h2 = wire == Wire::TlsH2;
    let door = Rc::new(door);
    let activity = Activity::begin(site.shared.clock.clone());
    drop(site);
    let io = TokioIo::new(Watched { inner: stream, activity: activity.clone(), heads: !h2 });
    let busy = activity.clone();
    // Set when the connection is to stop speaking HTTP.
    let switch: Rc<Cell<Option<Switch>>> = Rc::default();
    let switched = switch.clone();
    let (present, way_in) = (world.clone(), door.clone());
    let service = service_fn(move |request| {
        let guard = Busy::begin(&busy);
        let (site, door, switch) = (present.site(), way_in.clone(), switch.clone());
        async move {
            let mut response = flow::answer(site, door, request).await;
            guard.answered();
            if let Some(wanted) = response.body_mut().take_switch() {
                switch.set(Some(wanted));
            }
            response.body_mut().hold(guard);
            Ok::<_, Infallible>(response)
        }
    });
    if h2 {
        let mut builder = http2::Builder::new(LocalTasks);
        builder.max_concurrent_streams(limits.streams).max_header_list_size(header_list_size(&limits));
        let mut connection = Box::pin(builder.serve_connection(io, service));
        watch(
            &mut connection,
            |connection| connection.get_mut().as_mut().graceful_shutdown(),
            &activity,
            &limits,
            &drain,
            Manner::AtOnce,
        )
        .await;
        return;
    }
    let mut builder = http1::Builder::new();
    builder.preserve_header_case(keeps_spelling);
    builder.max_headers(if limits.headers == 0 { 1024 } else { limits.headers });
    if limits.header_bytes != 0 {
        builder.max_header_size(limits.header_bytes);
    }
    // Over plain TCP a client may close its half when it has said all, and still gets its answer; one that is gone is
    // noticed when we write. Over TLS, who closes is gone: what was not sent on yet is not sent any more.
    builder.half_close(wire == Wire::Plain);
    let mut connection = builder.serve_connection(io, service);
    let end = watch(
        &mut connection,
        |connection| connection.graceful_shutdown(),
        &activity,
        &limits,
        &drain,
        Manner::WithAnAnswer,
    )
    .await;
    match switched.take() {
        Some(Switch::Splice(splice)) => {
            let parts = connection.into_parts();
            return Box::pin(splice.run(parts.io.into_inner().inner, parts.read_buf)).await;
        }
        Some(Switch::Tunnel(tunnel)) => {
            let parts = connection.into_parts();
            let stream = Rewound { early: parts.read_buf, stream: Box::new(parts.io.into_inner().inner) };
            return Box::pin(tunnel::serve(world, door, *tunnel, stream, drain)).await;
        }
        None => {}
    }
    if end == End::HeadTooSlow {
        // The parser waits for the rest of a head that will not come: say so in its stead.
        Box::pin(dismiss(connection.into_parts().io.into_inner().inner)).await;
    }
}

/// Tells a client that its request's head took too long.
async fn dismiss(mut stream: impl AsyncWrite + Unpin) {
    let farewell = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    let said = async {
        stream.write_all(farewell).await?;
        stream.shutdown().await
    };
    let _ = timeout(Duration::from_secs(1), said).await;
}

fn header_list_size(limits: &Limits) -> u32 {
    if limits.header_bytes == 0 { u32::MAX } else { u32::try_from(limits.header_bytes).unwrap_or(u32::MAX) }
}

/// Why a connection is over.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum End {
    Closed,
    HeadTooSlow,
    Idle,
}

/// How a connection is told that the process drains.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Manner {
    /// The protocol has a word for it that crosses no request (GOAWAY, RFC 9113 section 6.8).
    AtOnce,
    /// Only an answer can say it (`connection: close`, RFC 9112 section 9.6).
    WithAnAnswer,
}

/// Drives a connection, asks it to finish when the process drains, and gives up on it when it keeps us waiting.
async fn watch<C, O>(
    mut connection: &mut C,
    finish: impl Fn(Pin<&mut C>),
    activity: &Activity,
    limits: &Limits,
    drain: &CancellationToken,
    manner: Manner,
) -> End
where
    C: Future<Output = O> + Unpin,
{
    let mut watchdog = Watchdog { activity, limits, sleep: None };
    tokio::select! {
        biased;
        _ = &mut connection => return End::Closed,
        end = &mut watchdog => return end,
        () = drain.cancelled() => {}
    }
    if manner == Manner::WithAnAnswer
        && let Some(end) = Box::pin(next_request(connection, &mut watchdog)).await
    {
        return end;
    }
    finish(Pin::new(&mut *connection));
    tokio::select! {
        _ = &mut connection => End::Closed,
        end = &mut watchdog => end,
    }
}

/// Waits until a request is there whose answer has not begun, or until none has come for a while. Something: the
/// connection ended meanwhile.
async fn next_request<C: Future + Unpin>(connection: &mut C, watchdog: &mut Watchdog<'_>) -> Option<End> {
    let mut patience = std::pin::pin!(tokio::time::sleep(watchdog.activity.patience(watchdog.limits)));
    let mut busy = false;
    poll_fn(|cx| {
        if Pin::new(&mut *connection).poll(cx).is_ready() {
            return Poll::Ready(Some(End::Closed));
        }
        let activity = watchdog.activity;
        if activity.unanswered.get() > 0 {
            return Poll::Ready(None);
        }
        if let Poll::Ready(end) = Pin::new(&mut *watchdog).poll(cx) {
            return Poll::Ready(Some(end));
        }
        if activity.in_flight.get() > 0 {
            // The head of its answer is on its way already, without the word.
            busy = true;
            return Poll::Pending;
        }
        if std::mem::take(&mut busy) {
            patience.as_mut().reset(Instant::now() + FAREWELL);
        }
        // A head that has begun is waited for by the watchdog.
        if patience.as_mut().poll(cx).is_ready() && activity.head_since.get().is_none() {
            return Poll::Ready(None);
        }
        Poll::Pending
    })
    .await
}

/// What a connection is doing.
pub struct Activity {
    clock: Clock,
    in_flight: Cell<u32>,
    /// Those among them whose answer has not begun.
    unanswered: Cell<u32>,
    /// Whether there was a request.
    used: Cell<bool>,
    head_since: Cell<Option<Now>>,
    idle_since: Cell<Now>,
}

/// Held while a request is being answered.
pub struct Busy {
    activity: Rc<Activity>,
    answered: Cell<bool>,
}

impl Activity {
    fn begin(clock: Clock) -> Rc<Self> {
        let now = clock.now();
        let (in_flight, unanswered, used) = (Cell::new(0), Cell::new(0), Cell::new(false));
        Rc::new(Self { clock, in_flight, unanswered, used, head_since: Cell::new(None), idle_since: Cell::new(now) })
    }

    /// How long a drain waits for the next request.
    fn patience(&self, limits: &Limits) -> Duration {
        let Some(first) = limits.header_timeout.filter(|_| !self.used.get()) else { return FAREWELL };
        first.saturating_sub(self.clock.now().since(self.idle_since.get())).max(FAREWELL)
    }

    /// When to look again, or why it is over.
    fn due(&self, limits: &Limits) -> Result<Duration, End> {
        let now = self.clock.now();
        let left = |since: Now, limit: Option<Duration>, end: End| match limit {
            None => Ok(Duration::from_secs(3600)),
            Some(limit) => match limit.checked_sub(now.since(since)) {
                Some(left) if !left.is_zero() => Ok(left),
                Some(_) | None => Err(end),
            },
        };
        if self.in_flight.get() > 0 {
            return Ok(limits.idle_timeout.unwrap_or(Duration::from_secs(3600)));
        }
        match self.head_since.get() {
            Some(since) => left(since, limits.header_timeout, End::HeadTooSlow),
            None => left(self.idle_since.get(), limits.idle_timeout, End::Idle),
        }
    }
}

impl Busy {
    fn begin(activity: &Rc<Activity>) -> Self {
        activity.in_flight.set(activity.in_flight.get() + 1);
        activity.unanswered.set(activity.unanswered.get() + 1);
        activity.used.set(true);
        activity.head_since.set(None);
        Self { activity: activity.clone(), answered: Cell::new(false) }
    }

    /// Notes that the answer has begun.
    fn answered(&self) {
        if !self.answered.replace(true) {
            self.activity.unanswered.set(self.activity.unanswered.get() - 1);
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.answered();
        self.activity.in_flight.set(self.activity.in_flight.get() - 1);
        self.activity.idle_since.set(self.activity.clock.now());
    }
}

/// Ends when the client has kept us waiting for too long. Polled whenever the connection is, so it reads the clock only
/// when its timer has run out. The timer never runs for longer than the shortest patience there is: whatever begins
/// meanwhile is due later than that.
struct Watchdog<'a> {
    activity: &'a Activity,
    limits: &'a Limits,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Future for Watchdog<'_> {
    type Output = End;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<End> {
        loop {
            if let Some(sleep) = &mut self.sleep {
                ready!(sleep.as_mut().poll(cx));
            }
            let due = match self.activity.due(self.limits) {
                Ok(due) => due,
                Err(end) => return Poll::Ready(end),
            };
            let shortest =
                self.limits.header_timeout.into_iter().chain(self.limits.idle_timeout).fold(due, Duration::min);
            let due = Instant::now() + shortest;
            match &mut self.sleep {
                Some(sleep) => sleep.as_mut().reset(due),
                None => self.sleep = Some(Box::pin(tokio::time::sleep_until(due))),
            }
        }
    }
}

/// A stream that notes when a request's head begins to arrive.
struct Watched<S> {
    inner: S,
    activity: Rc<Activity>,
    heads: bool,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(cx, buf);
        let idle = self.heads && self.activity.in_flight.get() == 0 && self.activity.head_since.get().is_none();
        if idle && buf.filled().len() > before {
            self.activity.head_since.set(Some(self.activity.clock.now()));
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
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

/// Runs the tasks of h2 on this worker's own thread.
#[derive(Clone, Copy)]
struct LocalTasks;

impl<F: Future + 'static> Executor<F> for LocalTasks {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move {
            let _ = future.await;
        });
    }
}
