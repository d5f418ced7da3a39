//! Connections that stop speaking HTTP: WebSockets, where a route permits them, and blind tunnels.
//!
//! Such a call has a provider's connection of its own, over HTTP/1.1, that never sees a pool. Only the provider's 101
//! ends HTTP, on both sides at once. Then bytes are copied both ways as they come: what one side does not take, the
//! other is not asked for. When both have been silent for the route's `body_idle`, or one side has taken nothing for as
//! long of what waits for it, the connection is closed.

use std::cell::Cell;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, SEC_WEBSOCKET_KEY, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Version};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use prometheus_client::metrics::gauge::Gauge;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::oneshot;

use crate::base::time::{Clock, Now};
use crate::serve::exchanges::cleared_request::ClearedRequest;
use crate::serve::exchanges::replay_body::RequestBody;
use crate::serve::fault::Fault;
use crate::serve::reports::request_log::RequestLog;
use crate::serve::requests::headers::listed;
use crate::upstream::{Destination, ExchangeError, ReceivedBody};

const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");
/// Copied at a time, in each direction.
const BUFFER: usize = 16 * 1024;

/// Returns whether a request asks for a WebSocket (RFC 6455 section 4.1), over HTTP/1.1.
pub fn asked_for(method: &Method, version: Version, headers: &HeaderMap) -> bool {
    let bodiless = !headers.contains_key(TRANSFER_ENCODING)
        && headers.get_all(CONTENT_LENGTH).iter().all(|length| length.as_bytes() == b"0");
    *method == Method::GET
        && bodiless
        && version == Version::HTTP_11
        && listed(headers, &CONNECTION, b"upgrade")
        && listed(headers, &UPGRADE, b"websocket")
        && headers.contains_key(SEC_WEBSOCKET_KEY)
}

/// Puts on what asks for a WebSocket, or grants it: to be called when the fields of the other hop are off.
pub fn put_on(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, WEBSOCKET);
}

/// A connection over any kind of transport.
pub trait Duplex: AsyncRead + AsyncWrite + Unpin {}

impl<S: AsyncRead + AsyncWrite + Unpin> Duplex for S {}

/// A provider's connection that stopped speaking HTTP.
pub struct UpgradedConnection {
    stream: Box<dyn Duplex>,
    /// Bytes that the provider sent right after its response.
    early: Bytes,
}

impl UpgradedConnection {
    /// A connection that never spoke HTTP.
    pub fn new(stream: impl Duplex + 'static) -> Self {
        Self { stream: Box::new(stream), early: Bytes::new() }
    }
}

/// The receiver of the connection once HTTP has ended on it.
pub type Turning = oneshot::Receiver<UpgradedConnection>;

/// A connection for one call alone, which has yet to be made.
pub struct DedicatedConnection {
    sender: http1::SendRequest<RequestBody>,
    turning: Turning,
    host: Arc<str>,
    /// The address that it is connected to, if that is known.
    pub peer: Option<IpAddr>,
}

/// Opens a connection for one call alone.
pub async fn connect(destination: &Destination, gauge: Gauge, now: Now) -> Result<DedicatedConnection, Fault> {
    let host = &*destination.host;
    let stream = destination.stream(now).await.map_err(|error| {
        tracing::warn!(host, %error, "cannot connect");
        Fault::from(&error)
    })?;
    let peer = stream.get_ref().0.peer_addr().ok().map(|address| address.ip());
    let stream: Box<dyn Duplex> = Box::new(destination.over_http1(stream));
    let handshake = destination.path.http1.builder().handshake(TokioIo::new(stream)).await;
    let (sender, mut connection) = handshake.map_err(|error| broken_off(host, error))?;
    let open = UpgradeCount::new(gauge);
    let (turn, turning) = oneshot::channel();
    tokio::task::spawn_local(async move {
        // Errors reach the exchange. If HTTP ended well, the caller may wait for the connection.
        if (&mut connection).await.is_ok() {
            let parts = connection.into_parts();
            let _ = turn.send(UpgradedConnection { stream: parts.io.into_inner(), early: parts.read_buf });
        }
        drop(open);
    });
    Ok(DedicatedConnection { sender, turning, host: destination.host.clone(), peer })
}

impl DedicatedConnection {
    /// Sends the call and waits for the head of its answer.
    pub async fn send(
        mut self,
        message: ClearedRequest<'_>,
        patience: Duration,
    ) -> Result<(Response<ReceivedBody>, Turning), Fault> {
        match tokio::time::timeout(patience, message.send_alone(&mut self.sender)).await {
            Ok(Ok(response)) => Ok((ReceivedBody::response(response), self.turning)),
            Ok(Err(error)) => Err(broken_off(&self.host, error)),
            Err(_) => Err(Fault::UpstreamResponseTimeout),
        }
    }
}

fn broken_off(host: &str, error: hyper::Error) -> Fault {
    let error = ExchangeError::from(error);
    tracing::warn!(host, %error, "exchange broke off");
    Fault::UpstreamProtocol
}

/// Returns the provider's end of a granted WebSocket. A 101 that was not requested, or that switches to another
/// protocol, is an error.
pub async fn grant(response: &Response<ReceivedBody>, turning: Option<Turning>) -> Result<UpgradedConnection, Fault> {
    let switches = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    match turning {
        Some(turning) if switches && listed(response.headers(), &UPGRADE, b"websocket") => {
            turning.await.map_err(|_| Fault::UpstreamProtocol)
        }
        Some(_) | None => Err(Fault::UpstreamProtocol),
    }
}

/// A WebSocket or a tunnel whose client has yet to hear of it.
pub struct Splice {
    pub provider: UpgradedConnection,
    /// The request's log, completed when the connection ends.
    pub log: RequestLog,
    /// The longest time without a byte either way.
    pub idle: Option<Duration>,
    /// The longest time in all.
    pub lifetime: Option<Duration>,
    /// The clock by which `idle` is measured.
    pub clock: Clock,
    /// Counts the provider's connection until it is dropped.
    pub open: UpgradeCount,
}

/// The traffic of a connection in both directions.
struct UpgradeTraffic {
    to_provider: Direction,
    to_client: Direction,
    clock: Clock,
}

/// The traffic in one direction.
struct Direction {
    bytes: Cell<u64>,
    moved: Cell<Now>,
    /// Since when a piece waits to be taken.
    waits_since: Cell<Option<Now>>,
}

impl Direction {
    const fn new(now: Now) -> Self {
        Self { bytes: Cell::new(0), moved: Cell::new(now), waits_since: Cell::new(None) }
    }
}

impl UpgradeTraffic {
    /// For how long nothing has moved either way, or one side has taken nothing of what waits for it.
    fn quiet(&self) -> Duration {
        let now = self.clock.now();
        let ways = [&self.to_provider, &self.to_client];
        let silent = ways.iter().map(|way| now.since(way.moved.get())).min().unwrap_or_default();
        let stuck = ways.iter().filter_map(|way| way.waits_since.get()).map(|since| now.since(since)).max();
        silent.max(stuck.unwrap_or_default())
    }
}

impl Splice {
    /// Copies until both sides have ended, one fails, or both are silent. `early` came before the client knew.
    pub async fn run(mut self, client: impl AsyncRead + AsyncWrite, early: Bytes) {
        let now = self.clock.now();
        let (to_provider, to_client) = (Direction::new(now), Direction::new(now));
        let traffic = UpgradeTraffic { to_provider, to_client, clock: self.clock.clone() };
        // If the worker gives up on us, the numbers so far are told all the same.
        let mut reported = TrafficReport { log: &mut self.log, traffic: &traffic };
        let (client_reads, client_writes) = tokio::io::split(client);
        let UpgradedConnection { stream, early: greeting } = self.provider;
        let (provider_reads, provider_writes) = tokio::io::split(stream);
        let both = async {
            let there = pump(client_reads, provider_writes, early, &traffic.to_provider, &traffic.clock);
            let back = pump(provider_reads, client_writes, greeting, &traffic.to_client, &traffic.clock);
            tokio::try_join!(there, back).is_ok()
        };
        let clean = tokio::select! {
            clean = both => clean,
            () = silence(&traffic, self.idle) => false,
            () = end(self.lifetime) => false,
        };
        reported.log.record().complete = clean;
        reported.tell();
        drop(self.open);
    }
}

/// Writes the numbers into the record, also when the copying is dropped.
struct TrafficReport<'a> {
    log: &'a mut RequestLog,
    traffic: &'a UpgradeTraffic,
}

impl TrafficReport<'_> {
    fn tell(&mut self) {
        let record = self.log.record();
        record.request_bytes = self.traffic.to_provider.bytes.get();
        record.response_bytes = self.traffic.to_client.bytes.get();
    }
}

impl Drop for TrafficReport<'_> {
    fn drop(&mut self) {
        self.tell();
    }
}

/// Copies one way until its end, and passes the end on.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    early: Bytes,
    way: &Direction,
    clock: &Clock,
) -> io::Result<()> {
    pass(&mut to, &early, way, clock).await?;
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = from.read(&mut buffer).await?;
        let Some(piece) = buffer.get(..read).filter(|piece| !piece.is_empty()) else { break };
        pass(&mut to, piece, way, clock).await?;
    }
    to.shutdown().await
}

/// Writes and flushes a piece, and counts it once it has been taken.
async fn pass(to: &mut (impl AsyncWrite + Unpin), piece: &[u8], way: &Direction, clock: &Clock) -> io::Result<()> {
    if piece.is_empty() {
        return Ok(());
    }
    way.waits_since.set(Some(clock.now()));
    to.write_all(piece).await?;
    to.flush().await?;
    way.waits_since.set(None);
    way.bytes.set(way.bytes.get().saturating_add(piece.len() as u64));
    way.moved.set(clock.now());
    Ok(())
}

/// Ends when nothing has moved, or one side has taken nothing, for so long.
async fn silence(traffic: &UpgradeTraffic, longest: Option<Duration>) {
    let Some(longest) = longest else { return std::future::pending().await };
    let mut left = longest;
    loop {
        tokio::time::sleep(left).await;
        match longest.checked_sub(traffic.quiet()) {
            Some(more) if !more.is_zero() => left = more,
            Some(_) | None => return,
        }
    }
}

/// Ends after so long; never without a limit.
async fn end(lifetime: Option<Duration>) {
    match lifetime {
        Some(lifetime) => tokio::time::sleep(lifetime).await,
        None => std::future::pending().await,
    }
}

/// Counts a provider's connection for as long as it lives.
pub struct UpgradeCount(Gauge);

impl UpgradeCount {
    /// Increments the gauge; dropping the value decrements it.
    pub fn new(gauge: Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for UpgradeCount {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_handshake_over_http_1_1_asks_for_a_websocket() {
        let ask = |method, version, without: &str| {
            let fields =
                [("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket"), ("sec-websocket-key", "dGVzdA==")];
            let headers: HeaderMap = fields
                .iter()
                .filter(|(name, _)| *name != without)
                .map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_static(value)))
                .collect();
            asked_for(&method, version, &headers)
        };
        assert!(ask(Method::GET, Version::HTTP_11, ""));
        assert!(!ask(Method::POST, Version::HTTP_11, ""));
        assert!(!ask(Method::GET, Version::HTTP_10, ""));
        assert!(!ask(Method::GET, Version::HTTP_2, ""));
        for without in ["connection", "upgrade", "sec-websocket-key"] {
            assert!(!ask(Method::GET, Version::HTTP_11, without), "{without}");
        }
    }
}
