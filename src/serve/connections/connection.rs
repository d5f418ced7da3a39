//! One client's connection, from the TLS handshake to its close.
//!
//! A [`watchdog`](crate::serve::connections::watchdog) enforces its time limits. Buffers are bounded in each direction, so that a client
//! that does not read costs little until its time is over.
//!
//! A planned close is announced: for HTTP/2 by GOAWAY (RFC 9113 section 6.8), for HTTP/1.1 by `connection: close` on a
//! response, for TLS by close_notify. When the process drains, no request is lost; a connection without a next request
//! is closed after two seconds. Bytes that a client still sends while its connection closes are read for a moment: a
//! close with unread bytes would reset the connection, and discard a response that is still in transit (RFC 9112
//! section 9.6).
//!
//! HTTP/2 is negotiated in TLS, or recognised by its preface on a connection without TLS (RFC 9113 section 3.3).

use std::cell::Cell;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::header::{CONNECTION, CONTENT_LENGTH, COOKIE};
use http::{Method, Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::{CommonState, ProtocolVersion, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, timeout};
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

use crate::base::sent_bytes::SentBytes;
use crate::config::{Limits, ListenerConfig};
use crate::observe::metrics::Limit;
use crate::serve::connections::coalesced_stream::CoalescedStream;
use crate::serve::connections::connection_context::ConnectionContext;
use crate::serve::connections::connection_limits::{Handshake, PeerConnection};
use crate::serve::connections::proxy_protocol::{self, ProxiedFor};
use crate::serve::connections::tunnel::{self, Rewound};
use crate::serve::connections::watchdog::{Activity, Busy, ConnectionEnd, FAREWELL, LocalTasks, Watchdog, Watched};
use crate::serve::current_state::CurrentState;
use crate::serve::exchanges::response_body::{ResponseBody, Switch};
use crate::serve::fault::Fault;
use crate::serve::forward;
use crate::serve::modes::Ingress;
use crate::serve::reports::own_response::refuse;
use crate::serve::requests::identify::Peer;
use crate::serve::worker_state::WorkerState;
use crate::tls::leaf;
use crate::transport::{ClientHello, ServerStream};

/// The bytes that HTTP/1.1 may buffer in each direction, or the limit of a request's head if that is larger.
const BUFFER: usize = 64 * 1024;
/// The same, where heads are not bounded.
const UNBOUNDED: usize = 400 * 1024;
/// The bytes of its response that one stream of HTTP/2 may buffer.
const STREAM_BUFFER: usize = 16 * 1024;
/// The flow-control windows for received bytes: of one HTTP/2 stream, and of a whole connection.
const STREAM_WINDOW: u32 = 512 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// Time for which a client's bytes are still read after a response broke off. Our side is not closed before it ends: a
/// proper close would make a response that is delimited by the end of its connection look complete. So the client waits
/// for this time.
const BREAK: Duration = Duration::from_millis(50);

/// A connection that was just accepted.
pub enum Accepted {
    /// A TCP connection, with the address of its peer.
    Tcp(TcpStream, IpAddr),
    Unix(UnixStream),
}

/// Serves one accepted connection until it closes, or until it is idle after `drain` was cancelled.
pub async fn serve(current: Rc<CurrentState>, listener: usize, arrival: Accepted, drain: CancellationToken) {
    // Boxed, so that the state of opening does not stay with the connection.
    let Some(opened) = Box::pin(open(current.worker(), listener, arrival)).await else { return };
    let (_place, conn) = (opened.place, opened.conn);
    match opened.transport {
        Transport::Tcp(Secured::Plain(stream)) => {
            serve_http(current, stream, conn, AcceptedProtocol::Plain, drain).await;
        }
        Transport::Tcp(Secured::Tls(stream, protocol)) => serve_http(current, stream, conn, protocol, drain).await,
        Transport::Unix(Secured::Plain(stream)) => {
            Box::pin(serve_http(current, stream, conn, AcceptedProtocol::Plain, drain)).await;
        }
        Transport::Unix(Secured::Tls(stream, protocol)) => {
            Box::pin(serve_http(current, stream, conn, protocol, drain)).await;
        }
    }
}

/// A connection that is ready for HTTP.
struct Opened {
    transport: Transport,
    conn: Rc<ConnectionContext>,
    /// Counts it among those of its peer.
    place: Option<PeerConnection>,
}

enum Transport {
    Tcp(Secured<CoalescedStream>),
    Unix(Secured<UnixStream>),
}

/// What is below HTTP on a stream.
enum Secured<S> {
    Plain(S),
    Tls(Box<ServerStream<S>>, AcceptedProtocol),
}

/// Does all that comes before HTTP. `None`: there is no connection any more.
async fn open(worker: Rc<WorkerState>, listener: usize, arrival: Accepted) -> Option<Opened> {
    match arrival {
        Accepted::Tcp(mut stream, peer) => {
            let _ = stream.set_nodelay(true);
            let address = whom(&worker, listener, &mut stream, peer).await?;
            let place = place(&worker, listener, address).ok()?;
            let peer = Peer { address, ..Peer::default() };
            let sent = Rc::default();
            let stream = CoalescedStream::new(stream, Rc::clone(&sent));
            let (secured, conn) = secure(&worker, listener, stream, peer, sent).await?;
            Some(Opened { transport: Transport::Tcp(secured), conn, place })
        }
        Accepted::Unix(stream) => {
            let uid = stream.peer_cred().ok().map(|peer| peer.uid());
            let peer = Peer { uid, ..Peer::default() };
            let (secured, conn) = secure(&worker, listener, stream, peer, Rc::default()).await?;
            Some(Opened { transport: Transport::Unix(secured), conn, place: None })
        }
    }
}

/// Returns the client's address: that of the peer, or the one that a balancer names by the PROXY protocol. `None`: the
/// connection is to be closed; `Some(None)`: the address is unknown.
async fn whom(worker: &WorkerState, listener: usize, stream: &mut TcpStream, peer: IpAddr) -> Option<Option<IpAddr>> {
    let config = worker.listener(listener)?;
    if !config.is_proxy(peer) {
        return Some(Some(peer));
    }
    let patience = worker.shared.snapshot.limits.header_timeout.unwrap_or(Duration::MAX);
    match timeout(patience, proxy_protocol::read_proxy_protocol(stream)).await {
        Ok(Ok(ProxiedFor::At(address))) => Some(Some(address)),
        Ok(Ok(ProxiedFor::Itself)) => Some(Some(peer)),
        Ok(Ok(ProxiedFor::Unknown)) => Some(None),
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
fn place(worker: &WorkerState, listener: usize, address: Option<IpAddr>) -> Result<Option<PeerConnection>, ()> {
    let limit = worker.shared.snapshot.limits.connections_per_peer;
    let (Some(limit), Some(address)) = (limit, address) else { return Ok(None) };
    let place = worker.shared.connection_limits.enter(address, limit);
    if place.is_none() {
        worker.shared.metrics.limited(Limit::ConnectionsPerPeer);
    }
    if place.is_none()
        && let Some(closed) = worker.shared.connection_limits.crowds.note(worker.now())
    {
        let listener = worker.listener(listener).map(|config| config.name.clone());
        tracing::warn!(
            listener = listener.as_deref(), peer = %address, limit, closed,
            "a peer has too many connections; new ones are closed"
        );
    }
    place.map(Some).ok_or(())
}

/// Performs the TLS handshake, if the listener has TLS. `None`: there is no connection any more.
async fn secure<S>(
    worker: &WorkerState,
    listener: usize,
    stream: S,
    peer: Peer,
    sent: Rc<SentBytes>,
) -> Option<(Secured<S>, Rc<ConnectionContext>)>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let config = worker.listener(listener)?;
    let footing = config.footing;
    let Some(tls) = &config.tls else {
        let entry = Ingress::of(&config.mode, None);
        let conn = ConnectionContext { listener, footing, peer: Rc::new(peer), entry, tls_version: None, sent };
        return Some((Secured::Plain(stream), Rc::new(conn)));
    };
    let (stream, sni) = accept_tls(worker, config, tls, stream, peer.address).await?;
    let session = stream.get_ref().1;
    let certificate = session.peer_certificates().and_then(|chain| leaf(chain.first()?));
    let protocol = if session.alpn_protocol() == Some(b"h2") { AcceptedProtocol::TlsH2 } else { AcceptedProtocol::Tls };
    let tls_version = version_of(session);
    let peer = Rc::new(Peer { certificate, ..peer });
    let conn = ConnectionContext { listener, footing, peer, entry: Ingress::of(&config.mode, sni), tls_version, sent };
    Some((Secured::Tls(stream, protocol), Rc::new(conn)))
}

/// The version that a TLS session speaks, as OpenTelemetry writes it.
pub(in crate::serve) fn version_of(session: &CommonState) -> Option<&'static str> {
    match session.protocol_version()? {
        ProtocolVersion::TLSv1_2 => Some("1.2"),
        ProtocolVersion::TLSv1_3 => Some("1.3"),
        _ => None,
    }
}

/// The TLS handshake, and the server name that the client asks for. `None`: there is no connection any more.
async fn accept_tls<S>(
    worker: &WorkerState,
    config: &ListenerConfig,
    tls: &Arc<ServerConfig>,
    stream: S,
    peer: Option<IpAddr>,
) -> Option<(Box<ServerStream<S>>, Option<String>)>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let under_way = begin_handshake(worker, &config.name, peer)?;
    let handshake = async {
        let mut hello = ClientHello::read(stream).await?;
        let server_name = hello.server_name.take();
        Ok::<_, io::Error>((hello.accept(Arc::clone(tls)).await?, server_name))
    };
    let patience = worker.shared.snapshot.limits.header_timeout.unwrap_or(Duration::MAX);
    let accepted_tls = tokio::select! {
        biased;
        accepted_tls = timeout(patience, handshake) => accepted_tls,
        () = under_way.ended() => return None,
    };
    match accepted_tls {
        Ok(Ok((stream, server_name))) => Some((Box::new(stream), server_name)),
        Ok(Err(error)) => {
            let peer = peer.map(tracing::field::display);
            tracing::debug!(listener = %config.name, peer, %error, "TLS handshake failed");
            None
        }
        Err(_) => {
            worker.shared.metrics.limited(Limit::HeaderTimeout);
            None
        }
    }
}

/// Counts a handshake. `None`: there are too many, and its connection is to be closed.
pub(in crate::serve) fn begin_handshake(
    worker: &WorkerState,
    listener: &str,
    peer: Option<IpAddr>,
) -> Option<Handshake> {
    let limit = worker.shared.snapshot.limits.handshakes;
    let now = worker.now();
    let under_way = worker.shared.connection_limits.accept_tls(peer, limit, now);
    if under_way.as_ref().is_none_or(|handshake| handshake.instead) {
        worker.shared.metrics.limited(Limit::Handshakes);
        if let Some(closed) = worker.shared.connection_limits.rushes.note(now) {
            let peer = peer.map(tracing::field::display);
            tracing::warn!(
                listener,
                limit,
                closed,
                peer,
                "too many handshakes at once: the oldest of the peer with the most, or new ones are closed"
            );
        }
    }
    under_way
}

/// The transport below HTTP, and the version of HTTP.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AcceptedProtocol {
    Plain,
    Tls,
    TlsH2,
}

/// Serves HTTP until the connection closes, or stops speaking it and then closes.
pub async fn serve_http<S>(
    current: Rc<CurrentState>,
    stream: S,
    conn: Rc<ConnectionContext>,
    protocol: AcceptedProtocol,
    drain: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    if protocol == AcceptedProtocol::TlsH2 {
        return Box::pin(serve_http2(current, stream, conn, drain)).await;
    }
    let worker = current.worker();
    let limits = worker.shared.snapshot.limits;
    let keeps_spelling = worker.shared.snapshot.providers.iter().any(|provider| provider.way.http1.preserves_case());
    let activity = Activity::begin(worker.shared.clock.clone(), &limits, conn.sent.clone());
    drop(worker);
    activity.keep_up();
    let busy = activity.clone();
    // Set when the connection is to stop speaking HTTP.
    let switch: Rc<Cell<Option<Switch>>> = Rc::default();
    let switched = switch.clone();
    let (present, ingress) = (current.clone(), conn.clone());
    let service = service_fn(move |request| {
        let guard = Busy::begin(&busy);
        let (worker, conn, switch) = (present.worker(), ingress.clone(), switch.clone());
        async move {
            let mut response = forward::answer(worker, conn, request).await;
            guard.answered();
            if response.headers().contains_key(CONNECTION) {
                // It closes, perhaps before the request has ended.
                guard.stay_awake();
            }
            if let Some(wanted) = response.body_mut().take_switch() {
                switch.set(Some(wanted));
            }
            response.body_mut().hold(guard);
            Ok::<_, Infallible>(response)
        }
    });
    let mut builder = http1::Builder::new();
    builder.preserve_header_case(keeps_spelling);
    builder.max_headers(if limits.headers == 0 { 1024 } else { limits.headers });
    if limits.header_bytes == 0 {
        builder.max_buf_size(UNBOUNDED);
    } else {
        builder.max_buf_size(BUFFER.max(limits.header_bytes)).max_header_size(limits.header_bytes);
    }
    // Over plain TCP a client may close its half when it has said all, and still gets its answer; one that is gone is
    // noticed when we write. Over TLS, who closes is gone: what was not sent on yet is not sent any more.
    builder.half_close(protocol == AcceptedProtocol::Plain);
    let ended = |served: hyper::Result<()>| match served {
        Err(error) if error.is_parse_version_h2() => ConnectionEnd::Preface,
        Err(error) if error.is_user() => ConnectionEnd::BrokenOff,
        Err(_) | Ok(()) => ConnectionEnd::Closed,
    };
    let mut io = Watched::new(stream, activity.clone(), true);
    let mut watchdog = Watchdog::new(&activity);
    let mut drained = pin!(drain.cancelled());
    let (connection, end) = loop {
        io.rest(&mut watchdog, drained.as_mut()).await;
        // Boxed, so that a connection at rest does not need the room.
        let mut connection = Box::new(builder.serve_connection(TokioIo::new(io), service.clone()));
        let finish = |connection: Pin<&mut http1::Connection<_, _>>| connection.graceful_shutdown();
        let end =
            watch(&mut *connection, ended, finish, &mut watchdog, drained.as_mut(), CloseManner::WithAnAnswer).await;
        if end != ConnectionEnd::Resting {
            break (connection, end);
        }
        let parts = connection.into_parts();
        io = parts.io.into_inner();
        io.put_back(&parts.read_buf);
    };
    note(&current.worker(), &conn, &activity, end);
    match switched.take() {
        Some(Switch::Splice(splice)) => {
            let parts = connection.into_parts();
            return Box::pin(splice.run(parts.io.into_inner().into_inner(), parts.read_buf)).await;
        }
        Some(Switch::Tunnel(tunnel)) => {
            let parts = connection.into_parts();
            let stream = Box::new(parts.io.into_inner().into_inner());
            let stream = Rewound { early: parts.read_buf, stream };
            return Box::pin(tunnel::serve(current, conn, *tunnel, stream, drain.clone())).await;
        }
        None => {}
    }
    match end {
        // The parser waits for the rest of a head that will not come: say so in its stead.
        ConnectionEnd::HeadTooSlow => Box::pin(dismiss(connection.into_parts().io.into_inner())).await,
        ConnectionEnd::Preface => {
            let parts = connection.into_parts();
            let stream = Box::new(parts.io.into_inner().into_inner());
            let stream = Rewound { early: parts.read_buf, stream };
            if protocol == AcceptedProtocol::Plain && conn.entry.speaks_h2_without_tls() {
                Box::pin(serve_http2(current, stream, conn, drain.clone())).await;
            } else {
                Box::pin(turn_away_http2(stream)).await;
            }
        }
        ConnectionEnd::BrokenOff => Box::pin(linger(connection.into_parts().io.into_inner(), BREAK)).await,
        ConnectionEnd::Closed => Box::pin(linger(connection.into_parts().io.into_inner(), FAREWELL)).await,
        ConnectionEnd::Idle | ConnectionEnd::Resting | ConnectionEnd::Stalled => {}
    }
}

/// Serves HTTP/2 until the connection closes.
async fn serve_http2<S>(current: Rc<CurrentState>, stream: S, conn: Rc<ConnectionContext>, drain: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let worker = current.worker();
    let limits = worker.shared.snapshot.limits;
    let activity = Activity::begin(worker.shared.clock.clone(), &limits, conn.sent.clone());
    drop(worker);
    activity.stay_awake();
    let io = TokioIo::new(Watched::new(stream, activity.clone(), false));
    let busy = activity.clone();
    let (present, ingress, most_fields) = (current.clone(), conn.clone(), limits.headers);
    let service = service_fn(move |request: Request<Incoming>| {
        let guard = Busy::begin(&busy);
        let (worker, conn) = (present.worker(), ingress.clone());
        let bodiless = request.method() == Method::HEAD;
        async move {
            let mut response = if has_too_many_fields(&request, most_fields) {
                refuse(&worker, &conn, &request, Fault::TooManyFields)
            } else {
                forward::answer(worker, conn, request).await
            };
            if bodiless {
                withhold_body(&mut response);
            }
            guard.answered();
            response.body_mut().hold(guard);
            Ok::<_, Infallible>(response)
        }
    });
    let mut builder = http2::Builder::new(LocalTasks(activity.clone()));
    builder.max_concurrent_streams(limits.streams).max_header_list_size(header_list_size(&limits));
    builder.max_send_buf_size(STREAM_BUFFER);
    builder.initial_stream_window_size(STREAM_WINDOW).initial_connection_window_size(CONNECTION_WINDOW);
    let mut connection = Box::pin(builder.serve_connection(io, service));
    let ended = |_: hyper::Result<()>| ConnectionEnd::Closed;
    let finish = |connection: Pin<&mut Pin<Box<http2::Connection<_, _, _>>>>| {
        connection.get_mut().as_mut().graceful_shutdown();
    };
    let mut watchdog = Watchdog::new(&activity);
    let drained = pin!(drain.cancelled());
    let end = watch(&mut connection, ended, finish, &mut watchdog, drained, CloseManner::AtOnce).await;
    note(&current.worker(), &conn, &activity, end);
}

/// Counts a connection that ended at a limit, where no request's own record does.
fn note(worker: &WorkerState, conn: &ConnectionContext, activity: &Activity, end: ConnectionEnd) {
    let limit = match end {
        ConnectionEnd::HeadTooSlow => Limit::HeaderTimeout,
        ConnectionEnd::Stalled if !activity.is_busy() => Limit::ClientStalled,
        ConnectionEnd::BrokenOff
        | ConnectionEnd::Closed
        | ConnectionEnd::Idle
        | ConnectionEnd::Preface
        | ConnectionEnd::Resting
        | ConnectionEnd::Stalled => return,
    };
    worker.shared.metrics.limited(limit);
    let listener = worker.listener(conn.listener).map(|config| config.name.clone());
    let peer = conn.peer.address.map(tracing::field::display);
    tracing::debug!(listener = listener.as_deref(), peer, ?end, "a connection is given up");
}

/// Takes the body off an answer of our own to a HEAD (RFC 9110 section 9.3.2). hyper does that over HTTP/1.1 alone, and a
/// client of HTTP/2 takes an answer for a broken one that has a body all the same.
fn withhold_body(response: &mut Response<ResponseBody>) {
    if let Some(length) = response.body_mut().withhold() {
        response.headers_mut().entry(CONTENT_LENGTH).or_insert_with(|| length.into());
    }
}

/// Returns whether a request over HTTP/2 has more fields than a head may have; over HTTP/1.1 the parser counts them.
/// Cookies count as one: HTTP/2 lets a client split them (RFC 9113 section 8.2.3).
fn has_too_many_fields(request: &Request<Incoming>, most: usize) -> bool {
    let fields = request.headers();
    most != 0 && fields.len() > most && fields.len() - fields.get_all(COOKIE).iter().skip(1).count() > most
}

/// Tells a client of HTTP/2 that only HTTP/1.1 is spoken here: empty settings, then GOAWAY with HTTP_1_1_REQUIRED (RFC
/// 9113 sections 6.5, 6.8 and 7).
async fn turn_away_http2(mut stream: Rewound) {
    const GOODBYE: [u8; 26] = [
        0, 0, 0, 4, 0, 0, 0, 0, 0, // SETTINGS
        0, 0, 8, 7, 0, 0, 0, 0, 0, // GOAWAY
        0, 0, 0, 0, 0, 0, 0, 0x0d, // no stream was processed; HTTP_1_1_REQUIRED
    ];
    let said = async {
        stream.write_all(&GOODBYE).await?;
        stream.shutdown().await
    };
    if let Ok(Ok(())) = timeout(FAREWELL, said).await {
        linger(stream, FAREWELL).await;
    }
}

/// Reads on for a moment on a connection that we have closed on our side, or are about to.
async fn linger(mut stream: impl AsyncRead + Unpin, moment: Duration) {
    let mut unread = [0; 1024];
    let drained = async { while stream.read(&mut unread).await.is_ok_and(|read| read > 0) {} };
    let _ = timeout(moment, drained).await;
}

/// Tells a client that its request's head took too long.
async fn dismiss(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let farewell = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    let said = async {
        stream.write_all(farewell).await?;
        stream.shutdown().await
    };
    if let Ok(Ok(())) = timeout(FAREWELL, said).await {
        linger(stream, FAREWELL).await;
    }
}

fn header_list_size(limits: &Limits) -> u32 {
    if limits.header_bytes == 0 { u32::MAX } else { u32::try_from(limits.header_bytes).unwrap_or(u32::MAX) }
}

/// The way in which a connection announces that the process drains.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum CloseManner {
    /// The protocol has a word for it that crosses no request (GOAWAY, RFC 9113 section 6.8).
    AtOnce,
    /// Only an answer can say it (`connection: close`, RFC 9112 section 9.6).
    WithAnAnswer,
}

/// Drives a connection, asks it to finish when the process drains or no request comes any more, and gives up on it when
/// the client keeps us waiting. It ends at rest, too: without a request for a moment.
async fn watch<C, O>(
    connection: &mut C,
    ended: impl Fn(O) -> ConnectionEnd,
    finish: impl Fn(Pin<&mut C>),
    watchdog: &mut Watchdog<'_>,
    drained: Pin<&mut WaitForCancellationFuture<'_>>,
    manner: CloseManner,
) -> ConnectionEnd
where
    C: Future<Output = O> + Unpin,
{
    let activity = watchdog.activity;
    let drains = tokio::select! {
        biased;
        output = &mut *connection => return ended(output),
        end = &mut *watchdog => match end {
            ConnectionEnd::Idle => false,
            end => return end,
        },
        () = drained => true,
    };
    activity.stay_awake();
    if drains
        && manner == CloseManner::WithAnAnswer
        && let Some(end) = Box::pin(next_request(connection, &ended, watchdog)).await
    {
        return end;
    }
    activity.close();
    finish(Pin::new(&mut *connection));
    tokio::select! {
        biased;
        output = connection => ended(output),
        end = watchdog => end,
    }
}

/// Waits until a request is there whose answer has not begun, or until none has come for a while. Something: the
/// connection ended meanwhile.
async fn next_request<C: Future + Unpin>(
    connection: &mut C,
    ended: &impl Fn(C::Output) -> ConnectionEnd,
    watchdog: &mut Watchdog<'_>,
) -> Option<ConnectionEnd> {
    let mut patience = std::pin::pin!(tokio::time::sleep(watchdog.patience()));
    let mut busy = false;
    poll_fn(|cx| {
        if let Poll::Ready(output) = Pin::new(&mut *connection).poll(cx) {
            return Poll::Ready(Some(ended(output)));
        }
        let activity = watchdog.activity;
        if activity.is_unanswered() {
            return Poll::Ready(None);
        }
        if let Poll::Ready(end) = Pin::new(&mut *watchdog).poll(cx) {
            return Poll::Ready(Some(end).filter(|end| *end != ConnectionEnd::Idle));
        }
        if activity.is_busy() {
            // The head of its answer is on its way already, without the word.
            busy = true;
            return Poll::Pending;
        }
        if std::mem::take(&mut busy) {
            patience.as_mut().reset(Instant::now() + FAREWELL);
        }
        // A head that has begun is waited for by the watchdog.
        if patience.as_mut().poll(cx).is_ready() && !activity.has_head() {
            return Poll::Ready(None);
        }
        Poll::Pending
    })
    .await
}
