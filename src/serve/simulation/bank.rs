//! The bank: its connections, its token endpoint, and what becomes of an exchange.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use h2::server::Builder;
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::AsyncWriteExt;
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::lines::{Answer, Line, LineBreak, Own, Shared, StreamOrders, let_pass};
use super::message_reader::{MessageReader, Piece, content};
use super::plan::ExchangeFate;
use super::world::World;
use crate::upstream::simulated::{End, SimulatedNetwork, connection};

/// The bank's certificate, and its settings of TLS for HTTP/1.1 and HTTP/2.
pub(super) static TLS: LazyLock<(String, [Arc<ServerConfig>; 2])> = LazyLock::new(|| {
    let names = ["login.example", "one.example", "two.example"].map(str::to_owned);
    let mut params = CertificateParams::new(names).expect("names");
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2120, 1, 1));
    let key = KeyPair::generate().expect("a key");
    let certificate = params.self_signed(&key).expect("a certificate");
    let speaks = |protocol: &[u8]| {
        let builder = ServerConfig::builder_with_provider(crate::tls::provider());
        let builder = builder.with_safe_default_protocol_versions().expect("versions").with_no_client_auth();
        let secret = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let mut config = builder.with_single_cert(vec![certificate.der().clone()], secret).expect("a certificate");
        config.alpn_protocols = vec![protocol.to_vec()];
        // One run leaves nothing to the next.
        config.send_tls13_tickets = 0;
        Arc::new(config)
    };
    (certificate.pem(), [speaks(b"http/1.1"), speaks(b"h2")])
});

/// The simulated network, on which every connection leads to the bank.
pub(super) struct ExchangeBank(pub(super) Rc<World>);

impl SimulatedNetwork for ExchangeBank {
    fn connect(&self, host: &str) -> Pin<Box<dyn Future<Output = io::Result<End>>>> {
        let (world, login) = (self.0.clone(), host.starts_with("login"));
        Box::pin(async move {
            world.pause(if login { 0 } else { world.plan.connect }).await;
            let (ours, theirs) = connection();
            let own = world.clone();
            if login {
                tokio::task::spawn_local(async move {
                    let _ = serve_login(own, ours).await;
                });
            } else {
                world.spawn(|world| &world.at_bank, async move {
                    let _ = serve(own, ours).await;
                });
            }
            Ok(theirs)
        })
    }
}

/// The token endpoint, for one call.
async fn serve_login(world: Rc<World>, end: End) -> Option<()> {
    let mut reader = MessageReader::new(TlsAcceptor::from(TLS.1[0].clone()).accept(end).await.ok()?);
    let head = reader.head().await?;
    let mut framing = head.framing();
    while let Piece::Data(_) = reader.piece(&mut framing).await {}
    let answer = if world.chance(world.plan.login_fails) {
        "HTTP/1.1 503 Busy\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_owned()
    } else {
        let (token, life) = (world.issue(), world.plan.life);
        world.note(|| format!("token {token} is issued"));
        let body = format!(r#"{{"access_token":"token-{token}","token_type":"Bearer","expires_in":{life}}}"#);
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close";
        format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    };
    world.pause(world.plan.login).await;
    reader.io.write_all(answer.as_bytes()).await.ok()?;
    reader.io.shutdown().await.ok()
}

/// A connection to the bank itself.
async fn serve(world: Rc<World>, end: End) -> Option<()> {
    let cork = end.cork();
    let io = TlsAcceptor::from(TLS.1[usize::from(world.plan.http2)].clone()).accept(end).await.ok()?;
    if world.plan.http2 { serve_http2(world, io, cork).await } else { serve_http1(&world, io).await }
}

async fn serve_http1(world: &World, io: TlsStream<End>) -> Option<()> {
    let mut reader = MessageReader::new(io);
    loop {
        let head = reader.head().await?;
        let (request, token) = (number(head.first.get(1)?)?, number(head.get("authorization")?)?);
        let mut line = Own::new(&mut reader, head.framing());
        handle(world, &mut line, request, token).await;
        if line.broken {
            return None;
        }
        if line.over || world.chance(world.plan.closes) {
            world.pause(200).await;
            return reader.io.shutdown().await.ok();
        }
    }
}

async fn serve_http2(world: Rc<World>, io: TlsStream<End>, cork: crate::upstream::simulated::Cork) -> Option<()> {
    let most = [1, 3, 100][world.below(3) as usize];
    let mut connection = Builder::new().max_concurrent_streams(most).handshake::<_, Bytes>(io).await.ok()?;
    let orders = Rc::new(StreamOrders { cork, go_away: Notify::new(), end: Notify::new() });
    loop {
        let accepted = tokio::select! {
            biased;
            () = orders.end.notified() => return None,
            () = orders.go_away.notified() => {
                connection.graceful_shutdown();
                continue;
            }
            accepted = connection.accept() => accepted,
        };
        let (request, respond) = accepted?.ok()?;
        let token = number(request.headers().get("authorization")?.to_str().ok()?)?;
        let asked = number(request.uri().path())?;
        let mut line = Shared { body: request.into_body(), respond, answer: None, orders: orders.clone() };
        let world = world.clone();
        tokio::task::spawn_local(async move { handle(&world, &mut line, asked, token).await });
    }
}

/// The number at the end of a text.
fn number(text: &str) -> Option<usize> {
    text.rsplit(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok()
}

/// One exchange, from the head of its request.
async fn handle<L: Line>(world: &World, line: &mut L, request: usize, token: usize) {
    let at = world.deliver(request, token);
    let open = Open { world, at };
    let fate = world.fate();
    world.note(|| format!("delivery {at}: {fate:?}"));
    let holds = exchange(world, line, at, token, fate).await == Some(Unread);
    drop(open);
    if !holds {
        return;
    }
    match world.below(3) {
        0 => line.hold().await,
        1 => drop(timeout(Duration::from_secs(5), read(world, line, at, request)).await),
        _ => {
            let_pass().await;
            line.cut(LineBreak::Loud, Bytes::new()).await;
        }
    }
}

/// An exchange that the bank is not done with.
struct Open<'a> {
    world: &'a World,
    at: usize,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.world.closes(self.at);
    }
}

/// The answer is told, and the request's body was not read.
#[derive(Eq, PartialEq)]
struct Unread;

async fn exchange<L: Line>(world: &World, line: &mut L, at: usize, token: usize, fate: ExchangeFate) -> Option<Unread> {
    if fate == ExchangeFate::RefuseStream && line.turn_away() {
        world.turns_away(at);
        return None;
    }
    let breaks = match world.below(4) {
        0 | 1 => LineBreak::Quiet,
        2 => LineBreak::Loud,
        _ => LineBreak::Connection,
    };
    if fate == ExchangeFate::CloseBefore {
        line.cut(breaks, Bytes::new()).await;
        return None;
    }
    if fate == ExchangeFate::GoAway {
        line.go_away();
    }
    if fate == ExchangeFate::Interim {
        for _ in 0..2 {
            line.interim().await;
            world.pause(500).await;
        }
    }
    let revoked = world.tokens.borrow()[token].revoked;
    let early = fate == ExchangeFate::Early || (revoked && world.chance(30));
    if !early && !read(world, line, at, world.asked(at)).await {
        world.note(|| format!("delivery {at}: the request broke off"));
        line.cut(LineBreak::Loud, Bytes::new()).await;
        return None;
    }
    if fate == ExchangeFate::CloseAfter {
        line.cut(breaks, Bytes::new()).await;
        return None;
    }
    world.pause(if fate == ExchangeFate::Late { 6_000 } else { 100 }).await;
    let refuses = revoked || matches!(fate, ExchangeFate::CutRefusal | ExchangeFate::Refuse);
    world.tokens.borrow_mut()[token].revoked |= refuses && fate != ExchangeFate::CutRefusal;
    let (status, media, mut body) = match fate {
        _ if refuses => (401, "application/json", Bytes::from_static(br#"{"error":"invalid_token"}"#)),
        ExchangeFate::ServerError => (500, "text/plain", content(at, 0, world.wants(at))),
        ExchangeFate::Unknown => (401, "text/plain", content(at, 0, 20)),
        _ => (200, "application/octet-stream", content(at, 0, world.wants(at))),
    };
    let cuts = matches!(fate, ExchangeFate::Cut | ExchangeFate::CutRefusal);
    // A length that is said may be one byte more than there is.
    let length = world.chance(40).then_some(body.len() + usize::from(cuts));
    world.begins(at, status);
    if !line.head(Answer { status, delivery: at, media, length }).await {
        return None;
    }
    let reported = if cuts && world.chance(50) { world.below(body.len() as u64) as usize } else { body.len() };
    body.truncate(reported);
    let last = if cuts { body.split_off(reported / 2) } else { Bytes::new() };
    let piece = if fate == ExchangeFate::Dribble { 1 + body.len() / 3 } else { body.len().max(1) };
    world.tells(at, body.len() + last.len());
    while !body.is_empty() {
        let next = body.split_to(piece.min(body.len()));
        if body.is_empty() && !cuts {
            // If a length was announced, this is the end.
            world.reported(at);
        }
        if !line.data(next).await {
            return None;
        }
        world.pause(if fate == ExchangeFate::Dribble && !body.is_empty() { 1_500 } else { 0 }).await;
    }
    if cuts {
        line.cut(breaks, last).await;
        return None;
    }
    if line.end(fate == ExchangeFate::Trailers).await && refuses {
        world.refuses(at);
    }
    early.then_some(Unread)
}

/// Reads a request's body. Returns whether it was whole.
async fn read<L: Line>(world: &World, line: &mut L, at: usize, request: usize) -> bool {
    let mut length = 0;
    loop {
        match line.read().await {
            Piece::Data(data) => {
                if data != content(request, length, data.len()) {
                    world.broken(|| format!("request {request} arrives with another body, from byte {length} on"));
                }
                length += data.len();
            }
            Piece::Cut => return false,
            Piece::End => {
                world.read_whole(at, length);
                return true;
            }
        }
    }
}
