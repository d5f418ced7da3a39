//! Simulated clients, some of which break off, stall or send slowly.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use h2::client::SendRequest;
use http::{HeaderMap, HeaderValue, Method, Request};
use tokio::io::AsyncWriteExt;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::lines::let_pass;
use super::message_reader::{Framing, MessageReader, Piece, chunk, content};
use super::plan::Manner;
use super::world::{STALLED, World};
use crate::serve::connections::connection::{AcceptedProtocol, serve_http};
use crate::serve::connections::connection_context::ConnectionContext;
use crate::serve::current_state::CurrentState as Present;
use crate::serve::modes::{Ingress, ReverseIngress};
use crate::serve::requests::identify::Peer;
use crate::upstream::simulated::{Cork, End, connection};

/// A request has an end within this: all that its client and its bank may take, and every timeout in its way.
const BOUND: Duration = Duration::from_secs(120);

/// The proxy's listener as simulated clients reach it.
pub(super) struct Front {
    pub(super) world: Rc<World>,
    pub(super) present: Rc<Present>,
}

impl Front {
    fn connect(&self, wire: AcceptedProtocol) -> End {
        let (ours, theirs) = connection();
        let footing = self.present.worker().footing(0).expect("a listener");
        let peer = Rc::new(Peer::default());
        let entry = Ingress::Reverse(ReverseIngress { sni: None });
        let door =
            Rc::new(ConnectionContext { listener: 0, footing, peer, entry, tls_version: None, sent: theirs.sent() });
        let serving = serve_http(self.present.clone(), theirs, door, wire, CancellationToken::new());
        self.world.spawn(|world| &world.at_front, serving);
        ours
    }
}

/// A request to be made.
#[derive(Clone, Copy)]
struct PlannedRequest {
    request: usize,
    /// Length of the body in bytes.
    length: usize,
    manner: Manner,
    /// Its route: bodies stream, or are taken in first.
    route: &'static str,
}

impl PlannedRequest {
    fn draw(world: &World, manner: Manner) -> Self {
        let payment = world.chance(80);
        let length = if payment { world.length() } else { 0 };
        let wants = if manner == Manner::Stall { world.large() } else { world.length() };
        let request = world.ask(payment, length, wants);
        world.note(|| format!("request {request}, of {length} bytes: {manner:?}"));
        Self { request, length, manner, route: if world.chance(70) { "bank" } else { "kept" } }
    }

    const fn method(self) -> Method {
        if self.length > 0 { Method::POST } else { Method::GET }
    }

    /// Its body in pieces, and how many of them are sent.
    fn pieces(self, world: &World) -> (Vec<Bytes>, usize) {
        let size = self.length.div_ceil(1 + world.below(4) as usize).max(1);
        let whole = content(self.request, 0, self.length);
        let pieces: Vec<Bytes> =
            (0..self.length).step_by(size).map(|at| whole.slice(at..self.length.min(at + size))).collect();
        let sent = match self.manner {
            Manner::Abort | Manner::AbortQuietly => world.below(pieces.len().max(1) as u64) as usize,
            _ => pieces.len(),
        };
        (pieces, sent)
    }
}

/// Ends what takes too long: promise 5.
async fn bounded<T>(world: &World, wish: PlannedRequest, what: impl Future<Output = T>) -> Option<T> {
    let done = timeout(BOUND, what).await.ok();
    if done.is_none() {
        world.broken(|| format!("request {} has no end", wish.request));
    }
    world.leave(wish.request, "is over");
    done
}

/// A client's connection of HTTP/1.1, made again where it was closed.
pub(super) async fn over_http1(front: Rc<Front>) {
    let world = &front.world;
    let mut open = None;
    let mut left = world.plan.requests;
    while left > 0 {
        world.think().await;
        let wire = if world.chance(50) { AcceptedProtocol::Plain } else { AcceptedProtocol::Tls };
        let mut reader = open.take().unwrap_or_else(|| MessageReader::new(front.connect(wire)));
        let manner = world.manner();
        let count = if manner == Manner::Pipeline { 2 } else { 1 };
        left = left.saturating_sub(count);
        let wishes: Vec<PlannedRequest> = (0..count).map(|_| PlannedRequest::draw(world, manner)).collect();
        let mut goes_on = true;
        for wish in &wishes {
            goes_on = goes_on && bounded_send(world, &mut reader, *wish).await;
        }
        for wish in &wishes {
            goes_on = goes_on && bounded(world, *wish, receive(world, &mut reader, *wish)).await == Some(true);
            world.leave(wish.request, "is over");
        }
        open = goes_on.then_some(reader);
    }
}

/// Sends a request; `false`: its connection is not to be used any more. A client that cannot go on writing reads.
async fn bounded_send(world: &World, reader: &mut MessageReader<End>, wish: PlannedRequest) -> bool {
    timeout(Duration::from_secs(10), send(world, &mut reader.io, wish)).await.unwrap_or(true)
}

async fn send(world: &World, io: &mut End, wish: PlannedRequest) -> bool {
    let PlannedRequest { request, length, manner, route } = wish;
    let chunked = length > 0 && world.chance(40);
    let framing = match length {
        0 => String::new(),
        _ if chunked => "transfer-encoding: chunked\r\n".to_owned(),
        _ => format!("content-length: {length}\r\n"),
    };
    let head =
        format!("{} /{route}/{request} HTTP/1.1\r\nhost: gateway\r\nte: trailers\r\nconnection: te", wish.method());
    let head = format!("{head}\r\n{framing}\r\n");
    let (pieces, sent) = wish.pieces(world);
    if length == 0 || (manner == Manner::Abort && world.chance(20)) {
        return io.write_all(head.as_bytes()).await.is_ok() && length == 0;
    }
    let mut ahead = head.into_bytes();
    for (at, piece) in pieces.iter().take(sent).enumerate() {
        if at + 1 == sent && sent < pieces.len() {
            // By then it is on its way to the bank.
            world.pause(5_000).await;
        }
        ahead.extend_from_slice(&if chunked { chunk(piece).into() } else { piece.clone() });
        if at + 1 == pieces.len() {
            world.finish(request);
            ahead.extend_from_slice(if chunked { b"0\r\n\r\n" } else { b"" });
        }
        if io.write_all(&std::mem::take(&mut ahead)).await.is_err() {
            return true;
        }
        world.pause(if manner == Manner::Dribble { 900 } else { 0 }).await;
    }
    match manner {
        Manner::Abort => {
            let _ = io.write_all(&ahead).await;
            world.leave(request, "aborts");
            false
        }
        Manner::AbortQuietly => {
            world.leave(request, "closes its half");
            io.write_all(&ahead).await.is_ok() && io.shutdown().await.is_ok()
        }
        _ => true,
    }
}

/// Reads an answer; `false`: there is none, or it was the last one.
async fn receive(world: &World, reader: &mut MessageReader<End>, wish: PlannedRequest) -> bool {
    let PlannedRequest { request, manner, .. } = wish;
    match manner {
        Manner::Leave if world.chance(50) => {
            world.pause(1_000).await;
            return false;
        }
        Manner::Stall => stall(world, request).await,
        _ => {}
    }
    let head = loop {
        match reader.head().await {
            None => return false,
            Some(head) if head.first.get(1).is_some_and(|status| status.starts_with('1')) => {}
            Some(head) => break head,
        }
    };
    let status = head.first.get(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let delivery = head.get("x-delivery").and_then(|delivery| delivery.parse().ok());
    let (mut framing, mut length): (Framing, usize) = (head.framing(), 0);
    loop {
        match reader.piece(&mut framing).await {
            Piece::Data(data) => {
                check(world, wish, (status, delivery), length, &data);
                length += data.len();
                if manner == Manner::Leave {
                    return false;
                }
            }
            Piece::Cut => return false,
            Piece::End => {
                world.answered(request, status, delivery, length);
                return head.get("connection") != Some("close");
            }
        }
    }
}

/// Checks whether a piece of a response is what the bank has sent.
fn check(world: &World, wish: PlannedRequest, answer: (u16, Option<usize>), from: usize, data: &Bytes) {
    if let (200 | 500, Some(delivery)) = answer
        && *data != content(delivery, from, data.len())
    {
        world.broken(|| format!("request {} gets another body than the bank told, from byte {from} on", wish.request));
    }
}

/// Reads nothing for so long that the answer must have been given up.
async fn stall(world: &World, request: usize) {
    sleep(Duration::from_millis(STALLED)).await;
    let held = world.held(Some(request));
    if held > 0 {
        world.broken(|| format!("{held} exchanges are held for request {request}, whose client reads nothing"));
    }
}

/// A client's connection of HTTP/2, with requests side by side.
pub(super) async fn over_http2(front: Rc<Front>) {
    let world = &front.world;
    let end = front.connect(if world.chance(50) { AcceptedProtocol::Plain } else { AcceptedProtocol::TlsH2 });
    let cork = Rc::new(end.cork());
    let Ok((h2, connection)) = h2::client::handshake(end).await else { return };
    tokio::task::spawn_local(async move { drop(connection.await) });
    for _ in 0..world.plan.requests {
        world.think().await;
        let wish = PlannedRequest::draw(world, world.manner());
        let (own, h2, cork) = (world.clone(), h2.clone(), cork.clone());
        let asking = async move {
            let _ = bounded(&own, wish, ask(&own, h2, wish, &cork)).await;
        };
        if world.chance(50) {
            asking.await;
        } else {
            world.spawn(|world| &world.clients, asking);
        }
    }
}

async fn ask(world: &World, h2: SendRequest<Bytes>, wish: PlannedRequest, cork: &Cork) -> Option<()> {
    let PlannedRequest { request, length, manner, route } = wish;
    let mut h2 = h2.ready().await.ok()?;
    let head = Request::builder().method(wish.method()).uri(format!("https://gateway/{route}/{request}"));
    let head = head.header("te", "trailers").body(()).ok()?;
    let (answer, mut body) = h2.send_request(head, length == 0).ok()?;
    drop(h2);
    let (pieces, sent) = wish.pieces(world);
    let trailers = world.chance(20);
    for (at, piece) in pieces.iter().take(sent).enumerate() {
        let last = at + 1 == pieces.len();
        if last {
            world.finish(request);
        }
        if at + 1 == sent && !last {
            // By then it is on its way to the bank. The last piece arrives together with what follows.
            world.pause(5_000).await;
            cork.put();
        }
        let taken = body.send_data(piece.clone(), last && !trailers);
        if last && trailers && taken.is_ok() {
            let _ = body.send_trailers(HeaderMap::from_iter([(X_SUM, HeaderValue::from_static("1"))]));
        }
        let_pass().await;
        world.pause(if manner == Manner::Dribble { 900 } else { 0 }).await;
    }
    if length > 0 && sent < pieces.len() {
        world.leave(request, "aborts");
        body.send_reset(if manner == Manner::AbortQuietly { Reason::NO_ERROR } else { Reason::CANCEL });
        let_pass().await;
        cork.draw();
        return None;
    }
    match manner {
        Manner::Leave if world.chance(50) => {
            world.pause(1_000).await;
            return None;
        }
        Manner::Stall => {
            stall(world, request).await;
            return None;
        }
        _ => {}
    }
    let (head, mut answer) = answer.await.ok()?.into_parts();
    let (status, reported) = (head.status.as_u16(), head.headers.get("x-delivery"));
    let delivery = reported.and_then(|reported| reported.to_str().ok()?.parse().ok());
    let mut length = 0;
    while let Some(data) = answer.data().await {
        let data = data.ok()?;
        check(world, wish, (status, delivery), length, &data);
        length += data.len();
        let _ = answer.flow_control().release_capacity(data.len());
        if manner == Manner::Leave {
            return None;
        }
    }
    answer.trailers().await.ok()?;
    world.answered(request, status, delivery, length);
    Some(())
}

const X_SUM: http::HeaderName = http::HeaderName::from_static("x-sum");
