//! A forward listener over real sockets: CONNECT, what happens inside, absolute form, tunnels, and all that is refused.

mod namespace;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use countersign::base::secret::{hex, sha256};
use countersign::base::time::{Clock, ManualClock};
use countersign::sim::{Bank, SimEndpoint, SimHandle};
use countersign::tls::mint::{self, Constraints, KeyKind, NameConstraint};
use countersign::tls::{ClientTls, client};
use http::Request;
use http_body_util::Full;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use jsonwebtoken::Algorithm;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::client::{PATIENCE, Whole, converse};
use crate::clients::{Issuer, Signer};
use crate::connect_proxy::Switch;
use crate::harness::{Harness, KEY, OTHER_KEY, Plan, bank, now};

/// The bank's name. The corporate proxy alone knows where it is.
const BANK: &str = "api.bank.example";
const PLACE: &str = "api.bank.example:443";

/// A bank behind a corporate proxy, and countersign as a forward proxy in front of it.
struct Scene {
    sim: SimHandle,
    stage: Harness,
    proxy: SocketAddr,
    ca: String,
    _switch: Switch,
}

/// `listener` and `route` are more lines for them.
fn scene(listener: &str, route: &str) -> Scene {
    staged(Plan::default(), listener, route)
}

fn staged(plan: Plan, listener: &str, route: &str) -> Scene {
    let sim = bank(Bank::Scb);
    let permits = [NameConstraint::parse("bank.example").expect("a domain")];
    let constraints = Constraints::only(&permits).expect("something");
    let (_, ca, key) = mint::MintAuthority::new(KeyKind::EcdsaP256, &constraints, now(), 1).expect("a CA");
    let switch = Switch::start(PLACE, sim.address(), ("countersign", "corporate"));
    let way = format!("http_proxy = \"http://countersign:corporate@{}\"\n", switch.address);
    let mut plan = plan.with(&sim, "scb", &way, route);
    plan.config = plan
        .config
        .replace(&sim.base_url(), &format!("https://{BANK}/partners/sandbox"))
        .replace("tls = { ca = ", "tls = { server_name = \"localhost\", ca = ")
        .replace("path = \"/scb\"\n", "");
    plan.config += &format!(
        "[[listener]]\nname = \"egress\"\nmode = \"forward\"\nbind = \"127.0.0.1:0\"\n\
         intercept = {{ ca_cert = \"ca.crt\", ca_key = \"ca.key\" }}\n{listener}\n"
    );
    let key = countersign::base::secret::ExposeSecret::expose_secret(&key).to_owned();
    plan.files =
        plan.files.with_file("stage/ca.crt", ca.clone().into_bytes()).with_file("stage/ca.key", key.into_bytes());
    let stage = plan.start();
    let proxy = stage.running.address("egress").expect("a listener");
    Scene { sim, stage, proxy, ca, _switch: switch }
}

/// `Proxy-Authorization` of a client.
fn basic(name: &str, key: &str) -> String {
    format!("Proxy-Authorization: Basic {}\r\n", STANDARD.encode(format!("{name}:{key}")))
}

fn erp() -> String {
    basic("erp", KEY)
}

/// Reads a head, byte by byte, so that nothing behind it is lost.
async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8_lossy(&head).into_owned()
}

/// A CONNECT with these fields; the head of its answer, and the connection.
async fn connect(proxy: SocketAddr, to: &str, fields: &str) -> (String, TcpStream) {
    let mut stream = TcpStream::connect(proxy).await.expect("connected");
    let request = format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n{fields}\r\n");
    stream.write_all(request.as_bytes()).await.expect("written");
    let head = head(&mut stream).await;
    (head, stream)
}

async fn tunnel(proxy: SocketAddr, to: &str, fields: &str) -> TcpStream {
    let (head, stream) = connect(proxy, to, fields).await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    stream
}

/// TLS inside: asks for this name (none at all, if that is empty), trusts this CA.
async fn tls(stream: TcpStream, ca: &str, sni: &str, alpn: &[u8]) -> std::io::Result<TlsStream<TcpStream>> {
    let config = client(ClientTls { ca: Some(ca.as_bytes()), ..ClientTls::default() }).expect("a good CA");
    let mut config = (*config).clone();
    config.alpn_protocols = vec![alpn.to_vec()];
    config.enable_sni = !sni.is_empty();
    let name = if sni.is_empty() { BANK } else { sni };
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

async fn ask(stream: TlsStream<TcpStream>, request: Request<Full<Bytes>>) -> Whole {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("HTTP/1.1");
    tokio::task::spawn_local(async move {
        let _ = connection.await;
    });
    Whole::read(sender.send_request(request).await.expect("an answer")).await.expect("whole")
}

fn get(path: &str, fields: &[(&str, &str)]) -> Request<Full<Bytes>> {
    let mut request = Request::get(path);
    if !fields.iter().any(|(name, _)| *name == "host") {
        request = request.header("host", BANK);
    }
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(Full::default()).expect("a request")
}

/// One request in a tunnel of its own.
async fn through(scene: &Scene, credentials: &str, request: Request<Full<Bytes>>) -> Whole {
    let stream = tunnel(scene.proxy, PLACE, credentials).await;
    ask(tls(stream, &scene.ca, BANK, b"http/1.1").await.expect("TLS"), request).await
}

/// Bytes as they are, on a connection of their own; everything that comes back until it closes or falls silent.
async fn raw(proxy: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(proxy).await.expect("connected");
    stream.write_all(bytes).await.expect("written");
    stream.shutdown().await.expect("shut");
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
}

// T2, T12: what the application says of itself is not the bank's business.
#[test]
fn what_an_application_calls_by_the_banks_own_name_arrives_signed() {
    converse(async {
        let scene = scene("", "");
        let fields = [("authorization", "Bearer placeholder"), ("proxy-authorization", "Basic Zm9v"), ("x-own", "1")];
        let answer = through(&scene, &erp(), get("/partners/sandbox/echo/x?y=1", &fields)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!((scene.sim.token_calls(), scene.sim.resource_calls()), (1, 1));
        let received = scene.sim.received();
        let call = received.iter().find(|call| call.endpoint == SimEndpoint::Resource).expect("the call");
        assert_eq!((call.path.as_str(), call.query.as_deref()), ("/partners/sandbox/echo/x", Some("y=1")));
        assert_eq!((call.count("authorization"), call.count("proxy-authorization"), call.count("x-own")), (1, 0, 1));
        assert_eq!(scene.sim.violations(), Vec::<String>::new());
        let lines = scene.stage.stop();
        let told: Vec<_> = lines
            .iter()
            .map(|line| (line["http.request.method"].as_str(), line["url.path"].as_str(), line["http.route"].as_str()))
            .collect();
        assert!(told.contains(&(Some("CONNECT"), Some(PLACE), None)), "{told:?}");
        assert!(told.contains(&(Some("GET"), Some("/partners/sandbox/echo/x"), Some("scb"))), "{told:?}");
        assert!(lines.iter().all(|line| line["countersign.client"] == "erp"), "{lines:?}");
    });
}

#[test]
fn inside_a_tunnel_http_2_is_spoken_too_and_a_connect_in_it_is_refused() {
    converse(async {
        let scene = scene("", "");
        let stream = tunnel(scene.proxy, PLACE, &erp()).await;
        let stream = tls(stream, &scene.ca, BANK, b"h2").await.expect("TLS");
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let handshake = http2::handshake::<_, _, Full<Bytes>>(TokioExecutor::new(), TokioIo::new(stream));
        let (mut sender, connection) = handshake.await.expect("HTTP/2");
        tokio::task::spawn_local(async move {
            let _ = connection.await;
        });
        let uri = format!("https://{BANK}/partners/sandbox/echo/x");
        let request = || Request::get(&uri).body(Full::default()).expect("a request");
        for _ in 0..3 {
            let answer = Whole::read(sender.send_request(request()).await.expect("an answer")).await.expect("whole");
            assert_eq!(answer.status, 200);
        }
        let request = Request::connect("api.bank.example:443").body(Full::default()).expect("a request");
        let answer = Whole::read(sender.send_request(request).await.expect("an answer")).await.expect("whole");
        assert_eq!((answer.status, answer.error().as_str()), (400, "malformed-request"));
        assert_eq!(scene.sim.token_calls(), 1);
    });
}

// T1
#[test]
fn who_is_not_known_is_asked_in_the_way_that_programs_answer() {
    converse(async {
        let scene = scene("", "");
        let mut stream = TcpStream::connect(scene.proxy).await.expect("connected");
        for (fields, expected) in [
            (String::new(), 407),
            (basic("erp", "wrong"), 407),
            (basic("treasury", KEY), 407),
            ("Authorization: Bearer erp-key-e2e\r\n".to_owned(), 407),
            (erp(), 200),
        ] {
            let request = format!("CONNECT {PLACE} HTTP/1.1\r\nHost: {PLACE}\r\n{fields}\r\n");
            stream.write_all(request.as_bytes()).await.expect("the connection is kept for the right credentials");
            let head = head(&mut stream).await;
            assert_eq!(status(&head), expected, "{fields}: {head}");
            if expected == 407 {
                let challenges: Vec<&str> =
                    head.lines().filter(|line| line.starts_with("proxy-authenticate: ")).collect();
                assert!(challenges[0].contains("Basic realm="), "{head}");
                assert!(head.lines().next().is_some_and(|line| line.contains("client-unidentified")), "{head}");
                assert!(!head.contains("connection: close"), "{head}");
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
                let mut body = vec![0; length.parse().expect("a number")];
                stream.read_exact(&mut body).await.expect("a body");
                let body: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
                assert_eq!(body["type"], "urn:countersign:error:client-unidentified");
            }
        }
        let stream = tls(stream, &scene.ca, BANK, b"http/1.1").await.expect("TLS");
        assert_eq!(ask(stream, get("/partners/sandbox/echo/x", &[])).await.status, 200);
        assert_eq!(scene.sim.token_calls(), 1, "failures touched nothing");
    });
}

#[test]
fn old_programs_connect_with_http_1_0() {
    converse(async {
        let scene = scene("", "");
        let mut stream = TcpStream::connect(scene.proxy).await.expect("connected");
        let request = format!("CONNECT {PLACE} HTTP/1.0\r\n{}\r\n", erp());
        stream.write_all(request.as_bytes()).await.expect("written");
        let head = head(&mut stream).await;
        assert_eq!(status(&head), 200, "{head}");
        let stream = tls(stream, &scene.ca, BANK, b"http/1.1").await.expect("TLS");
        assert_eq!(ask(stream, get("/partners/sandbox/echo/x", &[])).await.status, 200);
    });
}

#[test]
fn a_refused_connect_says_why_where_programs_show_it() {
    converse(async {
        let scene = scene("", "");
        for (to, expected, why) in [
            ("other.example:443", 403, "route-not-found"),
            ("api.bank.example:8443", 403, "route-not-found"),
            ("www.api.bank.example:443", 403, "route-not-found"),
            ("127.0.0.1:443", 403, "route-not-found"),
            ("api.bank.example.:443", 400, "malformed-request"),
            ("api.bank.example", 400, "malformed-request"),
        ] {
            let (head, mut stream) = connect(scene.proxy, to, &erp()).await;
            assert_eq!(status(&head), expected, "{head}");
            assert!(head.lines().next().is_some_and(|line| line.contains(why)), "{head}");
            assert!(head.contains("connection: close") && head.contains("proxy-status: countersign; error="), "{head}");
            let mut rest = String::new();
            stream.read_to_string(&mut rest).await.expect("closed");
            assert!(rest.contains(why), "{rest}");
        }
        let other_host = format!("CONNECT {PLACE} HTTP/1.1\r\nHost: evil.example:443\r\n{}\r\n", erp());
        assert_eq!(status(&raw(scene.proxy, other_host.as_bytes()).await), 400);
        let with_body = format!("CONNECT {PLACE} HTTP/1.1\r\nHost: {PLACE}\r\nContent-Length: 5\r\n{}\r\nhello", erp());
        assert_eq!(status(&raw(scene.proxy, with_body.as_bytes()).await), 400);
        assert_eq!(scene.sim.connections(), 0);
    });
}

// T2, A20
#[test]
fn each_client_of_one_bank_has_its_own_route_and_a_stranger_is_refused_inside() {
    converse(async {
        let mut plan = Plan::default().with_two_clients();
        plan.clients += &format!(
            "[client.guest]\nkey_sha256 = [\"{}\"]\n",
            countersign::base::secret::hex(&countersign::base::secret::sha256(b"guest-key"))
        );
        let scene = staged(
            plan,
            "",
            "clients = [\"erp\"]\nheaders = { x-route = \"of-erp\" }\n[[route]]\nname = \"second\"\n\
                           provider = \"scb\"\nclients = [\"treasury\"]\nheaders = { x-route = \"of-treasury\" }",
        );
        for turn in 0..20 {
            let (who, credentials) =
                if turn % 2 == 0 { ("of-erp", erp()) } else { ("of-treasury", basic("treasury", OTHER_KEY)) };
            let answer = through(&scene, &credentials, get(&format!("/partners/sandbox/echo/{who}"), &[])).await;
            assert_eq!(answer.status, 200);
        }
        for call in scene.sim.received().iter().filter(|call| call.endpoint == SimEndpoint::Resource) {
            let who = call.path.rsplit('/').next().expect("a segment");
            assert_eq!(call.header("x-route"), Some(who));
        }
        let answer = through(&scene, &basic("guest", "guest-key"), get("/partners/sandbox/echo/x", &[])).await;
        assert_eq!((answer.status, answer.error().as_str()), (403, "client-not-allowed"));
        let answer = through(&scene, &erp(), get("/elsewhere", &[])).await;
        assert_eq!((answer.status, answer.error().as_str()), (403, "route-not-found"));
        assert_eq!(scene.sim.resource_calls(), 20);
    });
}

// T9
#[test]
fn connect_server_name_and_host_must_agree() {
    converse(async {
        let scene = scene("", "");
        let stream = tunnel(scene.proxy, PLACE, &erp()).await;
        let refused = tls(stream, &scene.ca, "evil.bank.example", b"http/1.1").await.expect_err("another name");
        assert!(refused.to_string().contains("alert"), "{refused}");
        let stream = tunnel(scene.proxy, PLACE, &erp()).await;
        let nameless = tls(stream, &scene.ca, "", b"http/1.1").await.expect("the CONNECT's name serves");
        assert_eq!(ask(nameless, get("/partners/sandbox/echo/x", &[])).await.status, 200);
        for (host, expected) in [
            ("API.bank.example:443", 200),
            ("api.bank.example:80", 421),
            ("evil.bank.example", 421),
            ("api.bank.example.", 421),
            ("127.0.0.1", 421),
        ] {
            let answer = through(&scene, &erp(), get("/partners/sandbox/echo/x", &[("host", host)])).await;
            assert_eq!(answer.status, expected, "{host}");
        }
        let inner = get(&format!("https://{BANK}/partners/sandbox/echo/x"), &[("host", "evil.bank.example")]);
        assert_eq!(through(&scene, &erp(), inner).await.status, 400, "two hosts in one request");
        assert_eq!(scene.sim.resource_calls(), 2);
    });
}

// A20, T5, T7
#[test]
fn every_rule_of_a_route_holds_inside_a_tunnel() {
    converse(async {
        let scene = scene("", "allow = [\"GET /echo/*\"]");
        for (path, expected, error) in [
            ("/partners/sandbox/echo/x", 200, ""),
            ("/partners/sandbox/v2/x", 403, "client-not-allowed"),
            ("/partners/sandbox/echo/../v2/x", 400, "malformed-request"),
            ("/partners/sandbox/echo/%2e%2e/x", 400, "malformed-request"),
            ("/partners/sandbox/echo//x", 400, "malformed-request"),
            ("/partners/sandbox/v1/oauth/token", 403, "client-not-allowed"),
        ] {
            let answer = through(&scene, &erp(), get(path, &[])).await;
            assert_eq!((answer.status, answer.error().as_str()), (expected, error), "{path}");
        }
        assert_eq!(scene.sim.resource_calls(), 1);
    });
}

// T8, T10
#[test]
fn a_plain_http_request_is_sent_on_over_tls() {
    converse(async {
        let scene = scene("", "");
        let ask = async |target: &str, host: &str, fields: &str| {
            let request = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n{fields}Connection: close\r\n\r\n");
            raw(scene.proxy, request.as_bytes()).await
        };
        for (target, host, expected) in [
            ("http://api.bank.example/partners/sandbox/echo/x", "api.bank.example", 200),
            ("http://api.bank.example:80/partners/sandbox/echo/x", "api.bank.example", 200),
            ("https://api.bank.example/partners/sandbox/echo/x", "api.bank.example", 200),
            ("http://api.bank.example/elsewhere", "api.bank.example", 403),
            ("http://api.bank.example:8080/partners/sandbox/echo/x", "api.bank.example:8080", 403),
            ("http://other.example/", "other.example", 403),
            ("http://api.bank.example/partners/sandbox/echo/x", "other.example", 400),
            ("http://user@api.bank.example/partners/sandbox/echo/x", "api.bank.example", 400),
            ("ftp://api.bank.example/partners/sandbox/echo/x", "api.bank.example", 400),
        ] {
            let answer = ask(target, host, &erp()).await;
            assert_eq!(status(&answer), expected, "{target}: {answer}");
        }
        let answer = ask("http://api.bank.example/partners/sandbox/echo/x", "api.bank.example", "").await;
        assert!(status(&answer) == 407 && answer.contains("proxy-authenticate: Basic"), "{answer}");
        assert_eq!((scene.sim.token_calls(), scene.sim.resource_calls()), (1, 3));
    });
}

#[test]
fn in_origin_form_it_shows_its_own_page_to_everybody() {
    converse(async {
        let scene = scene("", "");
        let page = raw(scene.proxy, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
        assert_eq!(status(&page), 200);
        assert!(page.contains("<h1>countersign</h1>") && page.contains(&scene.proxy.to_string()), "{page}");
        let ca = raw(scene.proxy, b"GET /ca.crt HTTP/1.0\r\n\r\n").await;
        assert!(ca.contains(scene.ca.trim()), "{ca}");
        assert_eq!(status(&raw(scene.proxy, b"GET /ca.key HTTP/1.1\r\nHost: x\r\n\r\n").await), 404);
        assert_eq!(status(&raw(scene.proxy, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").await), 405);
        assert_eq!(status(&raw(scene.proxy, b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n").await), 404);
    });
}

#[test]
fn whoever_speaks_no_tls_inside_or_distrusts_us_is_let_go() {
    converse(async {
        let scene = scene("", "");
        let mut stream = tunnel(scene.proxy, PLACE, &erp()).await;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: api.bank.example\r\n\r\n").await.expect("written");
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert!(!String::from_utf8_lossy(&answer).contains("HTTP/"), "nothing is said in the clear");
        let permits = [NameConstraint::parse("bank.example").expect("a domain")];
        let constraints = Constraints::only(&permits).expect("something");
        let (_, foreign, _) = mint::MintAuthority::new(KeyKind::EcdsaP256, &constraints, now(), 1).expect("a CA");
        let stream = tunnel(scene.proxy, PLACE, &erp()).await;
        assert!(tls(stream, &foreign, BANK, b"http/1.1").await.is_err());
        assert_eq!(scene.sim.connections(), 0);
    });
}

// A5: what is sent before our 200 goes nowhere but to us.
#[test]
fn a_client_may_say_hello_before_it_is_told_to() {
    converse(async {
        let scene = scene("", "");
        let mut early = TcpStream::connect(scene.proxy).await.expect("connected");
        let request = format!("CONNECT {PLACE} HTTP/1.1\r\nHost: {PLACE}\r\n\r\nGET http://{BANK}/x HTTP/1.1\r\n\r\n");
        early.write_all(request.as_bytes()).await.expect("written");
        let mut answer = Vec::new();
        early.shutdown().await.expect("shut");
        let _ = early.read_to_end(&mut answer).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with("HTTP/1.1 407 ") && !answer.contains(" 200 "), "{answer}");
        assert_eq!(scene.sim.connections(), 0);
    });
}

#[test]
fn a_proxy_that_asks_nobody_still_refuses_pages() {
    converse(async {
        let scene = scene("clients = \"anyone\"", "clients = \"anyone\"");
        assert_eq!(through(&scene, "", get("/partners/sandbox/echo/x", &[])).await.status, 200);
        for field in [("origin", "https://evil.example"), ("sec-fetch-site", "cross-site")] {
            let answer = through(&scene, "", get("/partners/sandbox/echo/x", &[field])).await;
            assert_eq!((answer.status, answer.error().as_str()), (403, "client-not-allowed"));
        }
        let (head, _) = connect(scene.proxy, PLACE, &basic("erp", "wrong")).await;
        assert_eq!(status(&head), 407, "credentials that are sent must be right");
    });
}

/// The lines of a table of the egress guard, its escapes undone.
fn table(name: &str) -> Vec<String> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/egress").join(name);
    let text = std::fs::read_to_string(path).expect("a table");
    let written = text.lines().filter(|line| !line.is_empty() && !line.starts_with("# "));
    written.map(unescaped).collect()
}

fn unescaped(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        let (code, behind) = match after.strip_prefix('x') {
            Some(digits) => digits.split_at(2),
            None => match after.strip_prefix("u{") {
                Some(braced) => braced.split_once('}').expect("a closed brace"),
                None => ("5c", after.strip_prefix('\\').expect("a known escape")),
            },
        };
        out.push(u32::from_str_radix(code, 16).ok().and_then(char::from_u32).expect("a character"));
        rest = behind;
    }
    out + rest
}

/// First, middle and last address of every forbidden block, as hosts.
fn forbidden() -> Vec<String> {
    let mut hosts = Vec::new();
    for line in table("forbidden.txt") {
        let mut words = line.splitn(3, ' ');
        let mut word = || words.next().expect("two addresses").parse::<IpAddr>().expect("an address");
        match (word(), word()) {
            (IpAddr::V4(first), IpAddr::V4(last)) => {
                let (low, high) = (u32::from(first), u32::from(last));
                hosts.extend([low, low + (high - low) / 2, high].map(|bits| Ipv4Addr::from(bits).to_string()));
            }
            (IpAddr::V6(first), IpAddr::V6(last)) => {
                let (low, high) = (u128::from(first), u128::from(last));
                hosts.extend([low, low + (high - low) / 2, high].map(|bits| format!("[{}]", Ipv6Addr::from(bits))));
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => panic!("two families in {line}"),
        }
    }
    hosts
}

/// A listener on every address of the machine, which counts who comes.
struct Trap {
    port: u16,
    sockets: Vec<std::net::TcpListener>,
}

impl Trap {
    fn new() -> Self {
        let first = std::net::TcpListener::bind("[::]:0").expect("a socket");
        let port = first.local_addr().expect("an address").port();
        first.set_nonblocking(true).expect("set");
        Self { port, sockets: vec![first] }
    }

    fn caught(&self) -> usize {
        self.sockets.iter().filter(|socket| socket.accept().is_ok()).count()
    }
}

// T42, T43, T44
#[test]
fn no_spelling_of_a_forbidden_address_is_dialled() {
    converse(async {
        let scene = scene("unmatched = \"tunnel\"", "");
        let trap = Trap::new();
        let own = scene.proxy.port();
        let mut spellings = table("malformed.txt");
        let malformed = spellings.len();
        spellings.extend(forbidden());
        spellings.extend(["localhost".to_owned(), "LocalHost".to_owned()]);
        assert!(spellings.len() >= 300, "{} spellings", spellings.len());
        for (at, spelling) in spellings.iter().enumerate() {
            for port in [trap.port, own] {
                let request = format!("CONNECT {spelling}:{port} HTTP/1.1\r\n{}\r\n", erp());
                let answer = raw(scene.proxy, request.as_bytes()).await;
                let told = status(&answer);
                assert!(told == 400 || (told == 403 && at >= malformed), "CONNECT {spelling:?}: {answer}");
                if told == 403 {
                    assert!(answer.contains("destination-forbidden"), "{spelling:?}: {answer}");
                }
            }
            let target = format!("http://{spelling}:{}/x", trap.port);
            let request = format!("GET {target} HTTP/1.1\r\n{}Connection: close\r\n\r\n", erp());
            let told = status(&raw(scene.proxy, request.as_bytes()).await);
            assert!(told == 400 || told == 403, "GET {target:?}: {told}");
        }
        assert_eq!((trap.caught(), scene.sim.connections()), (0, 0), "somebody was dialled");
        // The trap works.
        let probe = TcpStream::connect(("127.0.0.1", trap.port)).await.expect("connected");
        assert_eq!(trap.caught(), 1);
        drop(probe);
    });
}

#[test]
fn a_blind_tunnel_passes_bytes_as_they_are_and_ends_when_silent() {
    // The guard lets nobody to an address that a machine has by itself: the test wants a network of its own.
    namespace::alone("forward::a_blind_tunnel_passes_bytes_as_they_are_and_ends_when_silent", || {
        converse(async {
            let plan = Plan { limits: "tunnel_idle = \"1s\"".to_owned(), ..Plan::default() };
            let scene = staged(plan, "unmatched = \"tunnel\"", "");
            let listener = TcpListener::bind((namespace::PUBLIC, 0)).await.expect("a socket");
            let to = listener.local_addr().expect("an address");
            let (head, mut client) = connect(scene.proxy, &to.to_string(), &erp()).await;
            assert_eq!(status(&head), 200, "{head}");
            let (mut server, _) = listener.accept().await.expect("a connection");
            for (from, into) in [(&mut client, b"\x00hello"), (&mut server, b"\xffworld")] {
                from.write_all(into).await.expect("written");
            }
            let mut heard = [0; 6];
            server.read_exact(&mut heard).await.expect("read");
            assert_eq!(&heard, b"\x00hello");
            client.read_exact(&mut heard).await.expect("read");
            assert_eq!(&heard, b"\xffworld");
            let metrics = scene.stage.admin("/metrics").await;
            let metrics = String::from_utf8_lossy(&metrics.body).into_owned();
            assert!(metrics.contains("countersign_blind_tunnels{listener=\"egress\"} 1"), "{metrics}");
            assert!(metrics.contains("countersign_tunnels_total{listener=\"egress\",kind=\"blind\"} 1"), "{metrics}");
            assert_eq!(client.read(&mut heard).await.expect("closed"), 0, "silent for a second");
            let lines = scene.stage.stop();
            let line = lines.iter().find(|line| line["url.path"] == to.to_string().as_str()).expect("a line");
            assert_eq!((&line["http.request.body.size"], &line["http.response.body.size"]), (&6.into(), &6.into()));
        });
    });
}

#[test]
fn an_application_that_insists_on_logging_in_gets_a_token_of_no_worth() {
    converse(async {
        let route = "token_endpoint = \"stub\"\n[provider.other]\nprofile = \"oauth2\"\nclient_id = \"x\"\n\
                     client_secret = \"y\"\nbase_url = \"https://other.bank.example/api\"\n\
                     token_url = \"https://login.bank.example/oauth/token\"\n[[route]]\nname = \"other\"\n\
                     provider = \"other\"\ntoken_endpoint = \"stub\"";
        let scene = scene("", route);
        let login = |uri: &str, host: &str| {
            let request = Request::post(uri).header("host", host).header("content-type", "application/json");
            let body = r#"{"applicationKey":"placeholder","applicationSecret":"placeholder"}"#;
            request.body(Full::new(Bytes::from_static(body.as_bytes()))).expect("a request")
        };
        let answer = through(&scene, &erp(), login("/partners/sandbox/v1/oauth/token", BANK)).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"), "{answer:?}");
        let told = answer.json();
        assert_eq!((&told["status"]["code"], &told["data"]["tokenType"]), (&1000.into(), &"Bearer".into()), "{told}");
        let token = told["data"]["accessToken"].as_str().expect("a token").to_owned();
        assert!(told["data"]["expiresIn"].as_u64().is_some_and(|life| life > 60), "{told}");
        let bearer = format!("Bearer {token}");
        let answer = through(&scene, &erp(), get("/partners/sandbox/echo/x", &[("authorization", &bearer)])).await;
        assert_eq!(answer.status, 200);
        assert_eq!((scene.sim.token_calls(), scene.sim.resource_calls()), (1, 1), "the bank saw one login, ours");
        assert_eq!(scene.sim.violations(), Vec::<String>::new());
        // Its other endpoints stay closed.
        let answer = through(&scene, &erp(), login("/partners/sandbox/v2/oauth/authorize", BANK)).await;
        assert_eq!((answer.status, answer.error().as_str()), (403, "client-not-allowed"));

        // A token endpoint elsewhere is answered, too, and nothing beside it.
        let elsewhere = async |path: &str| {
            let stream = tunnel(scene.proxy, "login.bank.example:443", &erp()).await;
            let stream = tls(stream, &scene.ca, "login.bank.example", b"http/1.1").await.expect("TLS");
            ask(stream, login(path, "login.bank.example")).await
        };
        assert_eq!(elsewhere("/oauth/token").await.json()["access_token"], token);
        assert_eq!(elsewhere("/oauth/token/more").await.error(), "client-not-allowed");
        assert_eq!(elsewhere("/oauth").await.error(), "route-not-found");
        let told = scene.stage.stop();
        let stubs = told.iter().filter(|line| line["url.path"].as_str().is_some_and(|path| path.ends_with("/token")));
        assert!(stubs.into_iter().all(|line| line["http.response.status_code"] == 200), "{told:?}");
    });
}

#[test]
fn rules_that_are_not_enforced_tell_what_they_would_refuse() {
    converse(async {
        let scene =
            scene("", "enforce = false\nallow = [\"GET /echo/allowed\"]\nrate_limit = { requests = 2, per = \"1h\" }");
        for path in ["/partners/sandbox/echo/allowed", "/partners/sandbox/echo/other", "/partners/sandbox/echo/allowed"]
        {
            assert_eq!(through(&scene, &erp(), get(path, &[])).await.status, 200, "{path}");
        }
        // What is not a rule of the route's holds.
        let answer = through(&scene, &erp(), get("/partners/sandbox/v1/oauth/token", &[])).await;
        assert_eq!((answer.status, answer.error().as_str()), (403, "client-not-allowed"));
        assert_eq!(scene.sim.resource_calls(), 3);
        let lines = scene.stage.stop();
        let told: Vec<_> = lines
            .iter()
            .filter(|line| line["http.route"] == "scb" && line["http.response.status_code"] == 200)
            .map(|line| line["countersign.tolerated"].as_str())
            .collect();
        assert_eq!(told, [None, Some("client-not-allowed"), Some("rate-limited")]);
    });
}

#[test]
fn a_proxy_may_itself_be_spoken_to_over_tls() {
    converse(async {
        let scene = scene("tls = { cert = \"server.crt\", key = \"server.key\" }", "");
        let outer = scene.stage.client.at(scene.proxy);
        let mut stream = outer.tls(&[b"h2", b"http/1.1"]).await.expect("TLS");
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]), "CONNECT over HTTP/2 is not offered");
        let request = format!("CONNECT {PLACE} HTTP/1.1\r\nHost: {PLACE}\r\n{}\r\n", erp());
        stream.write_all(request.as_bytes()).await.expect("written");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.expect("a head"));
        }
        assert!(head.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&head));
        let config = client(ClientTls { ca: Some(scene.ca.as_bytes()), ..ClientTls::default() }).expect("a good CA");
        let mut config = (*config).clone();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let name = ServerName::try_from(BANK).expect("a name");
        let inner = TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("TLS in TLS");
        let (mut sender, connection) = http1::handshake(TokioIo::new(inner)).await.expect("HTTP/1.1");
        tokio::task::spawn_local(async move {
            let _ = connection.await;
        });
        let answer = sender.send_request(get("/partners/sandbox/echo/x", &[])).await.expect("an answer");
        assert_eq!(Whole::read(answer).await.expect("whole").status, 200);
    });
}

/// A folder with a CA and a config of forward mode alone.
fn folder(ca_for: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let config = "[[listener]]\nname = \"egress\"\nmode = \"forward\"\nbind = \"127.0.0.1:3128\"\n\
                  intercept = { ca_cert = \"ca.crt\", ca_key = \"ca.key\" }\n\
                  [provider.scb]\nprofile = \"scb\"\nbase_url = \"https://api.bank.example/partners/sandbox\"\n\
                  application_key = { env = \"KEY\" }\napplication_secret = { env = \"SECRET\" }\n\
                  [[route]]\nprovider = \"scb\"\ntoken_endpoint = \"stub\"\nallow = [\"GET /v1/*\"]\n\
                  [client.erp]\nkey_sha256 = [\"0000000000000000000000000000000000000000000000000000000000000000\"]\n";
    std::fs::write(folder.path().join("proxy.toml"), config).expect("written");
    let (code, told) = countersign(&folder, &["ca", "new", "--permit", ca_for, "--out", "."]);
    assert_eq!(code, Some(0), "{told}");
    folder
}

fn countersign(folder: &tempfile::TempDir, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_countersign"));
    command.args(arguments).current_dir(folder.path()).env("KEY", "a-key").env("SECRET", "a-secret");
    let ended = command.output().expect("it runs");
    let told = String::from_utf8_lossy(&ended.stdout).into_owned() + &String::from_utf8_lossy(&ended.stderr);
    (ended.status.code(), told)
}

#[test]
fn explain_takes_a_url_as_an_application_calls_it() {
    let folder = folder("bank.example");
    for (url, code, said) in [
        (
            "https://api.bank.example/partners/sandbox/v1/x",
            0,
            "goes to    GET https://api.bank.example/partners/sandbox/v1/x",
        ),
        ("http://api.bank.example/partners/sandbox/v1/x", 0, "Authorization: "),
        ("https://api.bank.example/partners/sandbox/v2/x", 1, "client-not-allowed"),
        ("https://api.bank.example/partners/sandbox/v1/oauth/token", 0, "would be answered by countersign (200)"),
        ("https://other.example/x", 1, "route-not-found"),
    ] {
        let (ended, told) = countersign(&folder, &["explain", url]);
        assert_eq!(ended, Some(code), "{url}: {told}");
        assert!(told.to_ascii_lowercase().contains(&said.to_ascii_lowercase()), "{url}: {told}");
    }
}

#[test]
fn check_names_hosts_for_which_the_ca_may_not_vouch() {
    let good = folder("bank.example");
    assert_eq!(countersign(&good, &["check"]).0, Some(0));
    let other = folder("other.example");
    let (code, told) = countersign(&other, &["check"]);
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("the CA may not vouch for `api.bank.example`") && told.contains("ca new"), "{told}");
}

#[test]
fn whoever_opened_a_tunnel_must_still_be_who_he_was_after_a_reload() {
    let scene = scene("", "");
    converse(async {
        let stream = tunnel(scene.proxy, PLACE, &erp()).await;
        let inside = tls(stream, &scene.ca, BANK, b"http/1.1").await.expect("TLS");
        let (mut sender, connection) = http1::handshake(TokioIo::new(inside)).await.expect("HTTP/1.1");
        tokio::task::spawn_local(async move { drop(connection.await) });
        let mut call = async || {
            sender.ready().await.expect("the tunnel is kept");
            let answer = sender.send_request(get("/partners/sandbox/echo/a", &[])).await.expect("an answer");
            Whole::read(answer).await.expect("whole")
        };
        assert_eq!(call().await.status, 200);
        // Another client before this one in the file: positions shift, people do not.
        let other = hex(&sha256(OTHER_KEY.as_bytes()));
        scene.stage.papers.edit(|config| {
            let config =
                config.replace("[client.erp]", &format!("[client.ant]\nkey_sha256 = [\"{other}\"]\n[client.erp]"));
            config.replace("provider = \"scb\"\n", "provider = \"scb\"\nclients = [\"erp\"]\n")
        });
        let reloaded = scene.stage.running.reloads.reload("test").await.expect("an answer");
        assert!(reloaded.outcome.is_applied(), "{reloaded:?}");
        assert_eq!(call().await.status, 200);
        // His key is not his any more.
        let (old, new) = (hex(&sha256(KEY.as_bytes())), hex(&sha256(b"another key")));
        scene.stage.papers.edit(|config| config.replace(&old, &new));
        let reloaded = scene.stage.running.reloads.reload("test").await.expect("an answer");
        assert!(reloaded.outcome.is_applied(), "{reloaded:?}");
        assert_eq!(call().await.error(), "client-unidentified");
    });
}

#[test]
fn a_tunnel_that_was_opened_with_a_token_is_closed_to_requests_when_that_ends() {
    let signer = Signer::new("a", Algorithm::ES256);
    let (issuer, socket) = Issuer::start(&[&signer]);
    let hand = ManualClock::at(Clock::System.now());
    let plan = Plan { clock: Clock::Manual(hand.clone()), clients: issuer.client(""), ..Plan::default() };
    let files = plan.files.clone().with_file("stage/issuer.crt", issuer.authority.pem());
    let scene = staged(Plan { files, ..plan }, "", "clients = [\"pod\"]");
    converse(async {
        issuer.serve(socket);
        let mut claims = issuer.claims();
        // It ends in 30 seconds: a minute is forgiven.
        claims["exp"] = (hand.now().unix_seconds() + 30).into();
        let bearer = format!("Proxy-Authorization: Bearer {}\r\n", signer.sign(&claims));
        let stream = tunnel(scene.proxy, PLACE, &bearer).await;
        let inside = tls(stream, &scene.ca, BANK, b"http/1.1").await.expect("TLS");
        let (mut sender, connection) = http1::handshake(TokioIo::new(inside)).await.expect("HTTP/1.1");
        tokio::task::spawn_local(async move { drop(connection.await) });
        let mut call = async || {
            sender.ready().await.expect("the tunnel is kept");
            let answer = sender.send_request(get("/partners/sandbox/echo/a", &[])).await.expect("an answer");
            Whole::read(answer).await.expect("whole")
        };
        assert_eq!(call().await.status, 200);
        hand.advance(Duration::from_secs(85));
        assert_eq!(call().await.status, 200, "forgiven");
        hand.advance(Duration::from_secs(10));
        assert_eq!(call().await.error(), "client-unidentified");
        let (refused, _) = connect(scene.proxy, PLACE, &bearer).await;
        assert!(refused.starts_with("HTTP/1.1 407 "), "{refused}");
    });
}
