//! The bank: a TLS 1.3 server that answers fast and checks that every call was dressed as it must be.
//!
//! It also plays the token endpoint of the `scb` profile. Each thread has its own sockets. A plain control port tells
//! what was seen: `GET /counts`, and `GET /reset` which forgets it first.

use std::collections::HashSet;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdTcpListener};
use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Either, Full};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, PROXY_AUTHORIZATION};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, LocalOptions};
use tokio_rustls::TlsAcceptor;

use crate::args::Args;
use crate::{Failure, job};

const STRIPES: usize = 64;

/// What was seen since the last reset.
struct Seen {
    connections: AtomicU64,
    requests: AtomicU64,
    tokens: AtomicU64,
    violations: AtomicU64,
    /// Requests at the listeners whose certificates nobody should accept.
    betrayed: AtomicU64,
    first: Mutex<Option<String>>,
    ids: Vec<Mutex<HashSet<u128>>>,
}

/// What a call must look like.
struct Rules {
    bearer: String,
    host: String,
}

impl Seen {
    fn new() -> Self {
        Self {
            connections: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            tokens: AtomicU64::new(0),
            violations: AtomicU64::new(0),
            betrayed: AtomicU64::new(0),
            first: Mutex::new(None),
            ids: (0..STRIPES).map(|_| Mutex::new(HashSet::new())).collect(),
        }
    }

    fn reset(&self) {
        for counter in [&self.connections, &self.requests, &self.tokens, &self.violations, &self.betrayed] {
            counter.store(0, Relaxed);
        }
        *lock(&self.first) = None;
        for stripe in &self.ids {
            lock(stripe).clear();
        }
    }

    fn violation(&self, what: String) {
        self.violations.fetch_add(1, Relaxed);
        lock(&self.first).get_or_insert(what);
    }

    fn tell(&self) -> String {
        serde_json::json!({
            "connections": self.connections.load(Relaxed),
            "requests": self.requests.load(Relaxed),
            "tokens": self.tokens.load(Relaxed),
            "violations": self.violations.load(Relaxed),
            "betrayed": self.betrayed.load(Relaxed),
            "first": *lock(&self.first),
        })
        .to_string()
    }

    /// Whether this id was never seen before.
    fn fresh(&self, id: u128) -> bool {
        let stripe = usize::try_from(id % STRIPES as u128).unwrap_or(0);
        self.ids.get(stripe).is_some_and(|stripe| lock(stripe).insert(id))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// `bench origin --work DIR --port P --stranger P --other P --control P --threads N`
pub fn main(mut args: Args) -> Result<(), Failure> {
    let work = args.text("work")?;
    let work = Path::new(&work);
    let port: u16 = args.parse("port")?;
    let listeners = [(port, "origin"), (args.parse("stranger")?, "stranger"), (args.parse("other")?, "other")];
    let control: u16 = args.parse("control")?;
    let threads: usize = args.parse("threads")?;
    args.end()?;
    let rules = Arc::new(Rules { bearer: format!("Bearer {}", job::token()), host: format!("localhost:{port}") });
    let seen = Arc::new(Seen::new());
    let mut doors = Vec::new();
    for (port, name) in listeners {
        doors.push((port, tls(work, name)?, name == "origin"));
    }
    let mut running = Vec::new();
    for index in 0..threads {
        let mut sockets = Vec::new();
        for (port, tls, good) in &doors {
            sockets.push((bind(*port)?, tls.clone(), *good));
        }
        let control = if index == 0 { Some(bind(control)?) } else { None };
        let (rules, seen) = (rules.clone(), seen.clone());
        running.push(std::thread::spawn(move || serve(sockets, control, rules, seen)));
    }
    for thread in running {
        thread.join().map_err(|_| "a thread of the origin panicked")??;
    }
    Ok(())
}

pub fn tls(work: &Path, name: &str) -> Result<Arc<ServerConfig>, Failure> {
    let chain = CertificateDer::pem_file_iter(work.join(format!("{name}.crt")))?.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(work.join(format!("{name}.key")))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

pub fn bind(port: u16) -> Result<StdTcpListener, Failure> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())?;
    socket.listen(4096)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn serve(
    sockets: Vec<(StdTcpListener, Arc<ServerConfig>, bool)>,
    control: Option<StdTcpListener>,
    rules: Arc<Rules>,
    seen: Arc<Seen>,
) -> Result<(), Failure> {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    runtime.block_on(async move {
        let bodies = Rc::new(Bodies::new());
        for (socket, tls, good) in sockets {
            let (socket, acceptor) = (TcpListener::from_std(socket)?, TlsAcceptor::from(tls));
            tokio::task::spawn_local(accept(socket, acceptor, good, rules.clone(), seen.clone(), bodies.clone()));
        }
        if let Some(control) = control {
            tokio::task::spawn_local(tell(TcpListener::from_std(control)?, seen.clone()));
        }
        std::future::pending::<()>().await;
        Ok(())
    })
}

struct Bodies {
    answer: Bytes,
    big: Bytes,
    token: Bytes,
}

impl Bodies {
    fn new() -> Self {
        let mut answer = String::from("{\"status\":{\"code\":1000,\"description\":\"Success\"},\"data\":\"");
        answer.push_str(&"x".repeat(job::ANSWER_BYTES - answer.len() - 2));
        answer.push_str("\"}");
        let token = serde_json::json!({
            "status": { "code": 1000, "description": "Success" },
            "data": { "accessToken": job::token(), "tokenType": "Bearer", "expiresIn": 1800 },
        });
        Self { answer: answer.into(), big: vec![b'b'; job::BIG_BYTES].into(), token: token.to_string().into() }
    }
}

async fn accept(
    socket: TcpListener,
    acceptor: TlsAcceptor,
    good: bool,
    rules: Arc<Rules>,
    seen: Arc<Seen>,
    bodies: Rc<Bodies>,
) {
    loop {
        let Ok((stream, _)) = socket.accept().await else { continue };
        seen.connections.fetch_add(1, Relaxed);
        let _ = stream.set_nodelay(true);
        let (acceptor, rules, seen, bodies) = (acceptor.clone(), rules.clone(), seen.clone(), bodies.clone());
        tokio::task::spawn_local(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let service = service_fn(move |request| {
                let (rules, seen, bodies) = (rules.clone(), seen.clone(), bodies.clone());
                async move {
                    if !good {
                        seen.betrayed.fetch_add(1, Relaxed);
                    }
                    Ok::<_, Infallible>(answer(request, &rules, &seen, &bodies).await)
                }
            });
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// The body of an answer.
type Answer = Either<Full<Bytes>, Bulk>;

/// A large body in pieces of the same bytes.
struct Bulk {
    left: u64,
    piece: Bytes,
}

impl Body for Bulk {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let length = self.left.min(self.piece.len() as u64);
        if length == 0 {
            return Poll::Ready(None);
        }
        self.left -= length;
        Poll::Ready(Some(Ok(Frame::data(self.piece.slice(..usize::try_from(length).unwrap_or(0))))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// Reads a body and drops it. Returns its length; none if it broke off.
async fn swallow(mut body: Incoming) -> Option<u64> {
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        bytes += frame.ok()?.data_ref().map_or(0, |data| data.len() as u64);
    }
    Some(bytes)
}

async fn answer(request: Request<Incoming>, rules: &Rules, seen: &Seen, bodies: &Bodies) -> Response<Answer> {
    let (head, body) = request.into_parts();
    if head.uri.path() == job::BULK {
        seen.requests.fetch_add(1, Relaxed);
        if let Err(what) = check(&head, rules, seen) {
            seen.violation(what);
        }
        if head.method != Method::POST {
            let piece = bodies.big.slice(..64 << 10);
            return Response::new(Either::Right(Bulk { left: job::BULK_BYTES, piece }));
        }
        // The last one of a window breaks off.
        if swallow(body).await.is_some_and(|length| length != job::BULK_BYTES) {
            seen.violation("a large request body of the wrong length".to_owned());
        }
        return json(bodies.answer.clone());
    }
    let body = if head.method == Method::POST { body.collect().await.ok().map(|body| body.to_bytes()) } else { None };
    if head.uri.path() == job::TOKEN_PATH {
        seen.tokens.fetch_add(1, Relaxed);
        let secret = format!("\"applicationSecret\":\"{}\"", job::SECRET);
        let right = body.is_some_and(|body| String::from_utf8_lossy(&body).contains(&secret));
        return if right { json(bodies.token.clone()) } else { status(StatusCode::UNAUTHORIZED) };
    }
    seen.requests.fetch_add(1, Relaxed);
    if let Err(what) = check(&head, rules, seen) {
        seen.violation(what);
    }
    if head.method == Method::POST && body.is_none_or(|body| body.len() != job::ANSWER_BYTES) {
        seen.violation("a request body of the wrong length".to_owned());
    }
    match head.uri.path() {
        job::ITEM | job::SIGNED => json(bodies.answer.clone()),
        job::BIG => json(bodies.big.clone()),
        job::LATE => {
            tokio::time::sleep(Duration::from_millis(job::LATE_BY)).await;
            json(bodies.answer.clone())
        }
        _ => status(StatusCode::NOT_FOUND),
    }
}

/// The right bearer once, a fresh request id, the owner, the right host, a signature where there must be one, and nothing of
/// the client's identity.
fn check(head: &hyper::http::request::Parts, rules: &Rules, seen: &Seen) -> Result<(), String> {
    let only = |name: &str| {
        let mut values = head.headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (Some(value), None) => Ok(value.as_bytes()),
            (None, _) => Err(format!("no {name}")),
            (Some(_), Some(_)) => Err(format!("more than one {name}")),
        }
    };
    if only(AUTHORIZATION.as_str())? != rules.bearer.as_bytes() {
        return Err("the wrong bearer".to_owned());
    }
    if only("resourceownerid")? != job::OWNER.as_bytes() {
        return Err("the wrong resourceOwnerId".to_owned());
    }
    if head.uri.path() == job::SIGNED {
        let signature = only(job::SIGNATURE)?;
        if signature.len() != job::SIGNATURE_LENGTH || !signature.ends_with(b"==") {
            return Err("no signature of 64 bytes".to_owned());
        }
    }
    if head.headers.contains_key(PROXY_AUTHORIZATION) {
        return Err("the client's Proxy-Authorization".to_owned());
    }
    let host = only(HOST.as_str())?;
    if host != rules.host.as_bytes() {
        return Err(format!("the wrong host: {}", String::from_utf8_lossy(host)));
    }
    let id = only("requestuid")?;
    let mut read: u128 = 0;
    let mut digits = 0;
    for digit in id.iter().filter(|byte| **byte != b'-') {
        let digit = char::from(*digit).to_digit(16).ok_or("a request id that is not hexadecimal")?;
        read = read << 4 | u128::from(digit);
        digits += 1;
    }
    if digits != 32 {
        return Err("a request id of the wrong length".to_owned());
    }
    if seen.fresh(read) { Ok(()) } else { Err("a request id for the second time".to_owned()) }
}

fn json(body: Bytes) -> Response<Answer> {
    let mut response = Response::new(Either::Left(Full::new(body)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn status(status: StatusCode) -> Response<Answer> {
    let mut response = Response::new(Either::Left(Full::default()));
    *response.status_mut() = status;
    response
}

/// The control port.
async fn tell(socket: TcpListener, seen: Arc<Seen>) {
    loop {
        let Ok((stream, _)) = socket.accept().await else { continue };
        let seen = seen.clone();
        tokio::task::spawn_local(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let told = seen.tell();
                if request.uri().path() == "/reset" {
                    seen.reset();
                }
                async move { Ok::<_, Infallible>(json(told.into())) }
            });
            let _ = http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(stream), service).await;
        });
    }
}
