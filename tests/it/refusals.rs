//! Every error name, by every way that leads to it: what the client is told, what the log is told, and that nothing was
//! dialled where the refusal came first. Requests are written as bytes, since most of them no client library would send.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use countersign::base::time::Clock;
use countersign::sim::{Bank, Hours, ResponseFault, SimAuthority, SimFault, SimHandle, Verbatim};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

use crate::client::{PATIENCE, converse, get, request};
use crate::harness::{Harness, KEY, OTHER_KEY, Plan, bank};
use crate::token_endpoint::{bad_leaves, bank_and_impostor};

/// Stands in every request somewhere; no answer of ours may repeat it.
const MARK: &str = "zz-mark-zz";

/// An answer as it came over the wire.
#[derive(Debug)]
struct Bare {
    status: u16,
    head: String,
    body: String,
}

impl Bare {
    /// Reads one answer: to the end of the body that its head announces.
    async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Self {
        let mut bytes = Vec::new();
        let mut piece = [0; 4096];
        loop {
            if let Some(found) = Self::parse(&bytes) {
                return found;
            }
            match tokio::time::timeout(PATIENCE, stream.read(&mut piece)).await.expect("an answer in time") {
                Ok(read) if read > 0 => bytes.extend_from_slice(&piece[..read]),
                Ok(_) | Err(_) => break,
            }
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        Self { status, head: head.to_owned(), body: body.to_owned() }
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let (head, body) = text.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        let answer = Self { status, head: head.to_owned(), body: body.to_owned() };
        let length: usize = answer.header("content-length").parse().ok()?;
        (body.len() >= length).then_some(answer)
    }

    fn headers(&self, name: &str) -> Vec<&str> {
        let lines = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        lines.filter(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).collect()
    }

    fn header(&self, name: &str) -> &str {
        self.headers(name).first().copied().unwrap_or("")
    }

    /// Checks that this is an error document of ours and answers its name and request id.
    fn problem(&self, what: &str) -> (String, String) {
        assert_eq!(self.header("content-type"), "application/problem+json", "{what}: {self:?}");
        let json: Value = serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("{what}: {self:?}"));
        let members: Vec<&str> = json.as_object().expect("an object").keys().map(String::as_str).collect();
        assert_eq!(members, ["type", "title", "status", "detail", "instance"], "{what}");
        let text = |member: &str| json[member].as_str().expect("text").to_owned();
        assert!(!text("title").is_empty() && !text("detail").is_empty(), "{what}");
        assert_eq!(json["status"], self.status, "{what}");
        let statuses = self.headers("proxy-status");
        assert!(statuses.len() == 1 && statuses[0].starts_with("countersign; error="), "{what}: {self:?}");
        assert!(!self.body.contains(MARK) && !self.head.contains(MARK), "{what}: repeats the request: {self:?}");
        let challenges = self.headers("www-authenticate");
        if self.status == 401 {
            assert!(
                challenges.len() == 2 && challenges[0].starts_with("Bearer ") && challenges[1].starts_with("Basic ")
            );
        } else {
            assert!(challenges.is_empty(), "{what}: {challenges:?}");
        }
        let name = text("type").strip_prefix("urn:countersign:error:").expect("a name of ours").to_owned();
        (name, text("instance").strip_prefix("urn:uuid:").expect("an id").to_owned())
    }
}

/// A request's bytes. `more` are whole lines.
fn bytes(method: &str, target: &str, key: &str, more: &str) -> Vec<u8> {
    let key = if key.is_empty() { String::new() } else { format!("authorization: Bearer {key}\r\n") };
    format!("{method} {target} HTTP/1.1\r\nhost: localhost\r\n{key}{more}x-note: {MARK}\r\n\r\n").into_bytes()
}

fn basic(text: &str) -> String {
    format!("authorization: Basic {}\r\n", STANDARD.encode(text))
}

/// What must come of a request.
#[derive(Clone, Copy, Debug)]
enum Expect {
    /// An error document of ours.
    Ours(u16, &'static str),
    /// The parser's own refusal: a status and no body.
    Parser(u16),
}
use Expect::{Ours, Parser};

const STRANGER: Expect = Ours(401, "client-unidentified");
const NOT_YOU: Expect = Ours(403, "client-not-allowed");
const NOWHERE: Expect = Ours(404, "route-not-found");
const ELSEWHERE: Expect = Ours(421, "misdirected-request");
const AMBIGUOUS: Expect = Ours(400, "malformed-request");

struct Row {
    what: String,
    bytes: Vec<u8>,
    expect: Expect,
}

fn row(what: impl Into<String>, bytes: impl Into<Vec<u8>>, expect: Expect) -> Row {
    Row { what: what.into(), bytes: bytes.into(), expect }
}

/// Sends each row on a connection of its own and checks what comes; then checks that the log tells the same.
fn refuse_all(stage: Harness, listener: &str, sims: &[&SimHandle], rows: &[Row]) {
    let address = stage.running.address(listener).expect("a listener");
    let client = stage.client.at(address);
    let mut told = BTreeMap::new();
    converse(async {
        for (host, Row { what, bytes, expect }) in (1..=250).cycle().zip(rows) {
            // Each from an address of its own: wrong credentials from one address are slowed.
            let client = client.calling_from(host);
            let mut stream = client.tls(&[b"http/1.1"]).await.expect("TLS");
            stream.write_all(bytes).await.expect("written");
            let answer = Bare::read(&mut stream).await;
            match *expect {
                Ours(status, name) => {
                    assert_eq!(answer.status, status, "{what}: {answer:?}");
                    let (found, id) = answer.problem(what);
                    assert_eq!(found, name, "{what}: {answer:?}");
                    told.insert(id, (what.clone(), status, name));
                }
                Parser(status) => {
                    assert_eq!((answer.status, answer.body.as_str()), (status, ""), "{what}: {answer:?}");
                }
            }
        }
    });
    for sim in sims {
        assert_eq!(sim.connections(), 0, "{:?} was dialled", sim.bank());
    }
    let lines = stage.stop();
    assert_eq!(lines.len(), told.len(), "one line per request that we answered");
    for line in lines {
        let id = line["request_id"].as_str().expect("an id");
        let (what, status, name) = told.get(id).unwrap_or_else(|| panic!("nobody was told of {line}"));
        assert_eq!(line["http.response.status_code"], *status, "{what}: {line}");
        assert_eq!(line["error.type"], *name, "{what}: {line}");
        assert!(line["countersign.token"].is_null(), "{what}: no token was touched: {line}");
        assert_eq!(line["complete"], true, "{what}: {line}");
    }
}

/// Clients `erp`, `treasury` and `far` (right key, wrong network), and routes with every kind of rule.
fn fortress() -> (SimHandle, SimHandle, Plan) {
    let (scb, rak) = (bank(Bank::Scb), bank(Bank::Rakbank));
    let var =
        |from: &str| format!("clients = [\"erp\"]\nvars = {{ account = {{ {from}, pattern = \"[0-9]{{13}}\" }} }}");
    let metadata = "oauth_metadata = { account_id = { var = \"account\" } }";
    let mut plan = Plan::default()
        .with_two_clients()
        .with(&scb, "scb", "", "clients = [\"erp\"]")
        .with(&scb, "theirs", "", "clients = [\"treasury\"]")
        .with(&scb, "narrow", "", "clients = [\"erp\"]\nallow = [\"GET /v1/*\", \"POST /v1/payment/qrcode/create\"]")
        .with(&scb, "reads", "", "clients = [\"erp\"]\nmethods = [\"GET\"]")
        .with(&rak, "by-header", metadata, &var("header = \"x-account\""))
        .with(&rak, "by-query", metadata, &var("query = \"account\""))
        .with(&rak, "by-path", metadata, &var("path = \"/accounts/{account}/*\""));
    let far = countersign::base::secret::hex(&countersign::base::secret::sha256(b"far-key-e2e"));
    plan.clients += &format!("[client.far]\nkey_sha256 = [\"{far}\"]\nnetworks = [\"10.99.0.0/16\"]\n");
    plan.listener += "\n[[listener]]\nname = \"others\"\nbind = \"127.0.0.1:0\"\nclients = [\"treasury\"]\n\
                      tls = { cert = \"server.crt\", key = \"server.key\" }\n";
    (scb, rak, plan)
}

// T1
#[test]
fn who_is_not_known_is_told_how_to_be() {
    let (scb, rak, plan) = fortress();
    let plain = |more: &str| bytes("GET", &format!("/scb/{MARK}"), "", more);
    let right = format!("proxy-authorization: Bearer {KEY}\r\n");
    let rows = vec![
        row("no credentials", plain(""), STRANGER),
        row("no credentials, unknown path", bytes("GET", "/nowhere", "", ""), STRANGER),
        row("no credentials, ambiguous path", bytes("GET", "/scb/../x", "", ""), STRANGER),
        row("a wrong key", bytes("GET", "/scb/x", MARK, ""), STRANGER),
        row("a key in capitals", bytes("GET", "/scb/x", &KEY.to_uppercase(), ""), STRANGER),
        row("half a key", bytes("GET", "/scb/x", &KEY[..5], ""), STRANGER),
        row(
            "the key's hash",
            bytes(
                "GET",
                "/scb/x",
                &countersign::base::secret::hex(&countersign::base::secret::sha256(KEY.as_bytes())),
                "",
            ),
            STRANGER,
        ),
        row("an empty Bearer", plain("authorization: Bearer \r\n"), STRANGER),
        row("a bare Bearer", plain("authorization: Bearer\r\n"), STRANGER),
        row("an empty field", plain("authorization:\r\n"), STRANGER),
        row("the key alone", plain(&format!("authorization: {KEY}\r\n")), STRANGER),
        row("another scheme", plain(&format!("authorization: Token {KEY}\r\n")), STRANGER),
        row("a long scheme", plain(&format!("authorization: Bearerer {KEY}\r\n")), STRANGER),
        row("Digest", plain("authorization: Digest username=\"erp\", response=\"x\"\r\n"), STRANGER),
        row("Basic under another client's name", plain(&basic(&format!("treasury:{KEY}"))), STRANGER),
        row("Basic under no name", plain(&basic(&format!(":{KEY}"))), STRANGER),
        row("Basic without a colon", plain(&basic(KEY)), STRANGER),
        row("Basic with a wrong key", plain(&basic("erp:nope")), STRANGER),
        row("Basic with an empty key", plain(&basic("erp:")), STRANGER),
        row("Basic that is no base64", plain("authorization: Basic %%%\r\n"), STRANGER),
        row(
            "bytes outside ASCII",
            [&b"GET /scb/x HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer \xff\xfe\r\n\r\n"[..]].concat(),
            STRANGER,
        ),
        row("from a network that is not the client's", bytes("GET", "/scb/x", "far-key-e2e", ""), STRANGER),
        row(
            "a right key, and a wrong one for the proxy",
            bytes("GET", "/scb/x", KEY, "proxy-authorization: Bearer nope\r\n"),
            STRANGER,
        ),
        row("two keys for the proxy", plain(&format!("{right}proxy-authorization: Bearer nope\r\n")), STRANGER),
        row("two keys", bytes("GET", "/scb/x", KEY, "authorization: Bearer nope\r\n"), STRANGER),
        row("OPTIONS *", bytes("OPTIONS", "*", "", ""), STRANGER),
        row(
            "CORS preflight",
            bytes("OPTIONS", "/scb/x", "", "origin: https://evil.example\r\naccess-control-request-method: POST\r\n"),
            STRANGER,
        ),
    ];
    refuse_all(plan.start(), "gateway", &[&scb, &rak], &rows);
}

// T2, T5
#[test]
fn who_is_known_still_goes_only_where_allowed() {
    let (scb, rak, plan) = fortress();
    let as_erp = |method: &str, path: &str| bytes(method, path, KEY, "");
    let mut rows = vec![
        row("another client's route", as_erp("GET", "/theirs/x"), NOT_YOU),
        row("another client's route, written otherwise", as_erp("GET", "/theirs"), NOT_YOU),
        row("the other way round", bytes("GET", "/scb/x", OTHER_KEY, ""), NOT_YOU),
        row("by Basic", bytes("GET", "/theirs/x", "", &basic(&format!("erp:{KEY}"))), NOT_YOU),
        row("a path off the list", as_erp("GET", "/narrow/v2/x"), NOT_YOU),
        row("the list's prefix alone", as_erp("GET", "/narrow/v1"), NOT_YOU),
        row("a name that begins like it", as_erp("GET", "/narrow/v10/x"), NOT_YOU),
        row("another method", as_erp("POST", "/narrow/v1/x"), NOT_YOU),
        row("a method in lower case", as_erp("get", "/narrow/v1/x"), NOT_YOU),
        row("more than the listed path", as_erp("POST", "/narrow/v1/payment/qrcode/create/x"), NOT_YOU),
        row("the listed path in capitals", as_erp("POST", "/narrow/v1/payment/qrcode/CREATE"), NOT_YOU),
        row("a method that the route does not take", as_erp("POST", "/reads/x"), NOT_YOU),
    ];
    for spelling in [
        "/scb/v1/oauth/token",
        "/scb/v1/oauth/token?x=1",
        "/scb/v1/oauth/token/",
        "/scb/v1/oauth/%74oken",
        "/scb/v1/oauth/%74%6f%6b%65%6e",
        "/scb/v1/oauth/token;jsessionid=1",
        "/scb/v1/oauth/token%3bx",
        "/scb/v1/OAuth/Token",
        "/scb/v1/oauth/token/refresh",
        "/scb/v1/oauth/authorize",
        "/scb/v2/oauth/authorize?x",
    ] {
        for method in ["GET", "POST", "PUT"] {
            rows.push(row(format!("{method} {spelling}"), as_erp(method, spelling), NOT_YOU));
        }
    }
    refuse_all(plan.start(), "gateway", &[&scb, &rak], &rows);

    let (scb, rak, plan) = fortress();
    let others = [row("a listener for others", as_erp("GET", "/scb/x"), NOT_YOU)];
    refuse_all(plan.start(), "others", &[&scb, &rak], &others);
}

// T4
#[test]
fn a_web_page_may_not_call_even_where_anyone_may() {
    let scb = bank(Bank::Scb);
    let mut plan = Plan::default().with(&scb, "scb", "", "");
    plan.clients = String::new();
    plan.listener = "clients = \"anyone\"".to_owned();
    let with = |more: &str| bytes("POST", "/scb/x", "", more);
    let rows = [
        row("an Origin", with("origin: https://evil.example\r\n"), NOT_YOU),
        row("a null Origin", with("origin: null\r\n"), NOT_YOU),
        row("cross-site", with("sec-fetch-site: cross-site\r\n"), NOT_YOU),
        row("same-site", with("sec-fetch-site: same-site\r\n"), NOT_YOU),
        row("two of them", with("sec-fetch-site: none\r\nsec-fetch-site: cross-site\r\n"), NOT_YOU),
        row("a preflight", bytes("OPTIONS", "/scb/x", "", "origin: https://evil.example\r\n"), NOT_YOU),
        row("a wrong key for the proxy", with("proxy-authorization: Bearer nope\r\n"), STRANGER),
    ];
    refuse_all(plan.start(), "gateway", &[&scb], &rows);
}

// T7, T8, T13, T14, T16
#[test]
fn what_can_be_read_in_two_ways_is_refused_and_what_leads_nowhere_is_not_found() {
    let (scb, rak, plan) = fortress();
    let mut rows = Vec::new();
    for path in [
        "/scb/.",
        "/scb/..",
        "/scb/./x",
        "/scb/../theirs/x",
        "/scb/%2e%2e/theirs",
        "/scb/%2E%2E/theirs",
        "/scb/.%2e/x",
        "/scb/a%2fb",
        "/scb/a%2Fb",
        "/scb%2fx",
        "/%73cb%2f..%2ftheirs",
        "/scb/a%5cb",
        "/scb//x",
        "//scb/x",
        "/scb/x//",
        "/scb/%00",
        "/scb/%0a",
        "/scb/%0d%0ahost:%20evil",
        "/scb/%7f",
        "/scb/a;x=1/b",
        "/scb;x/y",
        "/scb/..;/theirs",
        "/scb/%252e%252e/theirs",
        "/scb/%252f",
        "/scb/%25252e",
        "/scb/%c0%ae%c0%ae/x",
        "/scb/%e0%80%af",
        "/scb/%",
        "/scb/%2",
        "/scb/%zz",
        "/scb/%u002e",
        "/theirs/../scb/x",
        "/nowhere/../scb/x",
        "/..",
        "/.",
    ] {
        rows.push(row(path, bytes("GET", path, KEY, ""), AMBIGUOUS));
    }
    // What these mean is settled by the HTTP parser.
    for path in ["/scb/a b", "/scb/\u{1}", "/scb/\u{7f}", "/scb/a\tb"] {
        rows.push(row(format!("{path:?}"), bytes("GET", path, KEY, ""), Parser(400)));
    }
    for path in ["/nowhere", "/sc", "/scbx/y", "/SCB/x", "/%73cbx/x", "/", "/?x=/scb/x"] {
        rows.push(row(path, bytes("GET", path, KEY, ""), NOWHERE));
    }
    rows.push(row("OPTIONS *", bytes("OPTIONS", "*", KEY, ""), NOWHERE));
    let with = |more: &str| bytes("GET", "/scb/x", KEY, more);
    let headed = |head: &str| format!("{head}\r\nauthorization: Bearer {KEY}\r\nx-note: {MARK}\r\n\r\n").into_bytes();
    rows.extend([
        row("two Hosts", with("host: localhost\r\n"), AMBIGUOUS),
        row("two different Hosts", with("host: evil.example\r\n"), AMBIGUOUS),
        row("no Host", headed("GET /scb/x HTTP/1.1"), AMBIGUOUS),
        row("an empty Host", headed("GET /scb/x HTTP/1.1\r\nhost:"), AMBIGUOUS),
        row("a Host with user information", headed("GET /scb/x HTTP/1.1\r\nhost: erp@localhost"), AMBIGUOUS),
        row("a Host with a path", headed("GET /scb/x HTTP/1.1\r\nhost: localhost/x"), AMBIGUOUS),
        row("a Host with a space", headed("GET /scb/x HTTP/1.1\r\nhost: local host"), AMBIGUOUS),
        row("a Host list", headed("GET /scb/x HTTP/1.1\r\nhost: localhost, evil.example"), AMBIGUOUS),
        row("a Host with a bad port", headed("GET /scb/x HTTP/1.1\r\nhost: localhost:99999x"), AMBIGUOUS),
        row("a Host that ends in a dot", headed("GET /scb/x HTTP/1.1\r\nhost: 127.0.0.1."), AMBIGUOUS),
        row(
            "a target of another host",
            headed("GET https://evil.example/scb/x HTTP/1.1\r\nhost: localhost"),
            AMBIGUOUS,
        ),
        row(
            "a target with user information",
            headed("GET https://a@localhost/scb/x HTTP/1.1\r\nhost: localhost"),
            AMBIGUOUS,
        ),
        row(
            "a target with another port",
            headed("GET https://localhost:1/scb/x HTTP/1.1\r\nhost: localhost"),
            AMBIGUOUS,
        ),
        row("CONNECT", headed("CONNECT localhost:443 HTTP/1.1\r\nhost: localhost:443"), AMBIGUOUS),
        row("CONNECT in disguise", headed("CONNECT localhost:443 HTTP/1.1\r\nhost: localhost"), AMBIGUOUS),
        row("a Host unlike the server name", headed("GET /scb/x HTTP/1.1\r\nhost: evil.example"), ELSEWHERE),
        row("a Host below the server name", headed("GET /scb/x HTTP/1.1\r\nhost: a.localhost"), ELSEWHERE),
        row("a dotted Host unlike the server name", headed("GET /scb/x HTTP/1.1\r\nhost: localhost."), AMBIGUOUS),
        row("an expectation", with("expect: the-impossible\r\n"), Ours(417, "malformed-request")),
        row("two expectations", with("expect: 100-continue\r\nexpect: x\r\n"), Ours(417, "malformed-request")),
        row("TRACE", bytes("TRACE", "/scb/x", KEY, ""), Ours(405, "malformed-request")),
        row("TRACK", bytes("TRACK", "/scb/x", KEY, ""), Ours(405, "malformed-request")),
        row("trace", bytes("trace", "/scb/x", KEY, ""), Ours(405, "malformed-request")),
        row("an odd coding", with("transfer-encoding: gzip, chunked\r\n"), AMBIGUOUS),
        row("two codings", with("transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n"), AMBIGUOUS),
        row("a coding that is not the last", with("transfer-encoding: chunked, gzip\r\n"), Parser(400)),
        row("two lengths", with("content-length: 1\r\ncontent-length: 2\r\n"), Parser(400)),
        row("a length with a sign", with("content-length: +1\r\n"), Parser(400)),
        row("a negative length", with("content-length: -1\r\n"), Parser(400)),
        row("a length list", with("content-length: 1, 1\r\n"), Parser(400)),
        row("an empty length", with("content-length:\r\n"), Parser(400)),
        row("a space before the colon", with("x-a : 1\r\n"), Parser(400)),
        row("an empty field name", with(": 1\r\n"), Parser(400)),
        row("a folded field", with("x-a: 1\r\n 2\r\n"), Parser(400)),
        row("NUL in a field", with("x-a: 1\0\r\n"), Parser(400)),
        row("a bare CR in a field", with("x-a: 1\r2\r\n"), Parser(400)),
        row("no variable in the header", bytes("GET", "/by-header/x", KEY, ""), AMBIGUOUS),
        row("a misfit in the header", bytes("GET", "/by-header/x", KEY, &format!("x-account: {MARK}\r\n")), AMBIGUOUS),
        row(
            "two in the header",
            bytes("GET", "/by-header/x", KEY, "x-account: 0188000049916\r\nx-account: 0188000049917\r\n"),
            AMBIGUOUS,
        ),
        row(
            "a list in the header",
            bytes("GET", "/by-header/x", KEY, "x-account: 0188000049916,0188000049917\r\n"),
            AMBIGUOUS,
        ),
        row("no variable in the query", bytes("GET", "/by-query/x?y=1", KEY, ""), AMBIGUOUS),
        row("a misfit in the query", bytes("GET", &format!("/by-query/x?account={MARK}"), KEY, ""), AMBIGUOUS),
        row("a newline behind the value", bytes("GET", "/by-query/x?account=0188000049916%0a", KEY, ""), AMBIGUOUS),
        row(
            "two in the query",
            bytes("GET", "/by-query/x?account=0188000049916&account=0188000049916", KEY, ""),
            AMBIGUOUS,
        ),
        row(
            "two spellings in the query",
            bytes("GET", "/by-query/x?account=0188000049916&%61ccount=0188000049917", KEY, ""),
            AMBIGUOUS,
        ),
        row("no variable in the path", bytes("GET", "/by-path/accounts", KEY, ""), AMBIGUOUS),
        row("a misfit in the path", bytes("GET", "/by-path/accounts/1/x", KEY, ""), AMBIGUOUS),
    ]);
    refuse_all(plan.start(), "gateway", &[&scb, &rak], &rows);
}

// T13: a Connection field is judged once the route and its token are known, and the token alone is fetched.
#[test]
fn a_connection_field_that_makes_no_sense_is_refused_before_anything_is_sent() {
    let scb = bank(Bank::Scb);
    let stage = Plan::default().with(&scb, "scb", "", "").start();
    let many = (0..21).map(|n| format!("x-{n}")).collect::<Vec<_>>().join(", ");
    converse(async {
        for field in ["a b", "x-\u{e9}", "@", &many] {
            let mut stream = stage.client.tls(&[b"http/1.1"]).await.expect("TLS");
            let request = bytes("GET", "/scb/echo/x", KEY, &format!("connection: {field}\r\n"));
            stream.write_all(&request).await.expect("written");
            let answer = Bare::read(&mut stream).await;
            assert_eq!((answer.status, answer.problem(field).0.as_str()), (400, "malformed-request"), "{field}");
        }
    });
    assert_eq!(scb.resource_calls(), 0);
}

// T15: over h2 there is no parser in front of us that knows about hosts and paths.
#[test]
fn the_same_refusals_hold_over_h2() {
    let (scb, rak, plan) = fortress();
    let stage = plan.start();
    converse(async {
        let key = format!("Bearer {KEY}");
        for (what, method, uri, more, status, name) in [
            ("a dot segment", "GET", "https://localhost/scb/../theirs", None, 400, "malformed-request"),
            ("an encoded slash", "GET", "https://localhost/scb/a%2fb", None, 400, "malformed-request"),
            (
                "a Host unlike the authority",
                "GET",
                "https://localhost/scb/x",
                Some("evil.example"),
                400,
                "malformed-request",
            ),
            ("another authority", "GET", "https://evil.example/scb/x", None, 421, "misdirected-request"),
            ("TRACE", "TRACE", "https://localhost/scb/x", None, 405, "malformed-request"),
            ("nowhere", "GET", "https://localhost/nowhere", None, 404, "route-not-found"),
            ("another client's route", "GET", "https://localhost/theirs/x", None, 403, "client-not-allowed"),
            ("the token endpoint", "POST", "https://localhost/scb/v1/oauth/%74oken", None, 403, "client-not-allowed"),
        ] {
            let mut sender = stage.client.http2().await;
            let mut request = http::Request::builder().method(method).uri(uri).header("authorization", &key);
            if let Some(host) = more {
                request = request.header("host", host);
            }
            let request = request.body(http_body_util::Full::new(Bytes::new())).expect("a request");
            let answer = sender.send_request(request).await.expect("an answer");
            let answer = crate::client::Whole::read(answer).await.expect("whole");
            assert_eq!((answer.status, answer.error().as_str()), (status, name), "{what}: {answer:?}");
        }
    });
    assert_eq!(scb.connections() + rak.connections(), 0);
}

#[test]
fn the_access_line_says_which_route_was_meant_and_why_it_was_refused() {
    let sim = bank(Bank::Scb);
    let route = "allow = [\"GET /echo/*\"]\nmethods = [\"GET\", \"POST\"]\nclients = [\"erp\"]";
    let stage = Plan::default().with_two_clients().with(&sim, "scb", "", route).start();
    converse(async {
        let delete = request("DELETE", "/scb/echo/x", KEY, &[], Bytes::new());
        for request in [get("/scb/v9/x", KEY), delete, get("/scb/echo/x", OTHER_KEY)] {
            let answer = stage.client.send(request).await;
            assert_eq!((answer.status, answer.error().as_str()), (403, "client-not-allowed"));
        }
    });
    let lines = stage.stop();
    assert!(lines.len() == 3 && lines.iter().all(|line| line["http.route"] == "scb"), "{lines:#?}");
    for word in ["`allow`", "`methods`", "`clients`"] {
        let tells = |line: &&Value| line["countersign.reason"].as_str().is_some_and(|reason| reason.contains(word));
        assert_eq!(lines.iter().filter(tells).count(), 1, "{word}: {lines:#?}");
    }
}

// T8, T9: TLS says which host is meant, or nothing; and without TLS nobody is heard at all.
#[test]
fn a_server_name_binds_the_host_and_no_server_name_binds_nothing() {
    let scb = bank(Bank::Scb);
    let stage = Plan::default().with(&scb, "scb", "", "").start();
    converse(async {
        let head = |host: &str| {
            format!("GET /scb/echo/x HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {KEY}\r\n\r\n").into_bytes()
        };
        // An address is no server name: then the Host is not compared.
        for (asked, host, status) in [
            ("localhost", "localhost", 200),
            ("localhost", "LOCALHOST:8443", 200),
            ("localhost", "127.0.0.1", 200),
            ("localhost", "[::1]:8443", 200),
            ("localhost", "bank.example", 421),
            ("127.0.0.1", "bank.example", 200),
            ("127.0.0.1", "localhost", 200),
        ] {
            let mut stream = stage.client.asking_for(asked).tls(&[b"http/1.1"]).await.expect("TLS");
            stream.write_all(&head(host)).await.expect("written");
            let answer = Bare::read(&mut stream).await;
            assert_eq!(answer.status, status, "{asked} and {host}: {answer:?}");
        }
        let before = scb.resource_calls();
        let mut plain = tokio::net::TcpStream::connect(stage.address).await.expect("connected");
        plain.write_all(&head("localhost")).await.expect("written");
        let mut answer = Vec::new();
        let _reset = plain.read_to_end(&mut answer).await;
        assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
        assert_eq!(scb.resource_calls(), before);
    });
}

// T14: judged by what arrives at the bank: one message at the most, and never the one that was hidden in another.
#[test]
fn a_message_hidden_in_another_never_arrives() {
    let scb = bank(Bank::Scb);
    let stage = Plan { workers: 1, ..Plan::default() }.with(&scb, "scb", "", "").start();
    let hidden = format!("GET /scb/echo/{MARK} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {KEY}\r\n\r\n");
    let chunked = "transfer-encoding: chunked\r\n";
    let length = hidden.len();
    // The fields after the head's beginning, and what follows the head.
    let tricks: Vec<(&str, String, String)> = vec![
        (
            "a length before chunks",
            format!("content-length: {}\r\n{chunked}", length + 5),
            format!("0\r\n\r\n{hidden}"),
        ),
        (
            "a length behind chunks",
            format!("{chunked}content-length: {}\r\n", length + 5),
            format!("0\r\n\r\n{hidden}"),
        ),
        (
            "a short length beside chunks",
            format!("content-length: 4\r\n{chunked}"),
            format!("{length:x}\r\n{hidden}\r\n0\r\n\r\n"),
        ),
        ("a length of nothing beside chunks", format!("content-length: 0\r\n{chunked}"), format!("0\r\n\r\n{hidden}")),
        (
            "a space behind the coding",
            "transfer-encoding: chunked \r\ncontent-length: 3\r\n".to_owned(),
            format!("0\r\n\r\n{hidden}"),
        ),
        (
            "a tab before the coding",
            "transfer-encoding:\tchunked\r\ncontent-length: 3\r\n".to_owned(),
            format!("0\r\n\r\n{hidden}"),
        ),
        (
            "an odd name of the coding",
            "transfer-encoding: xchunked\r\ncontent-length: 5\r\n".to_owned(),
            format!("0\r\n\r\n{hidden}"),
        ),
        ("an underscore", format!("transfer_encoding: chunked\r\ncontent-length: {length}\r\n"), hidden.clone()),
        ("a chunk size with a sign", chunked.to_owned(), format!("+0\r\n\r\n{hidden}")),
        ("a chunk size with 0x", chunked.to_owned(), format!("0x0\r\n\r\n{hidden}")),
        ("a chunk size with a minus", chunked.to_owned(), format!("-1\r\n\r\n{hidden}")),
        ("a chunk size beyond 64 bits", chunked.to_owned(), format!("10000000000000000\r\n{hidden}")),
        ("a chunk without a size", chunked.to_owned(), format!("\r\n{hidden}")),
        ("a chunk with a wrong end", chunked.to_owned(), format!("1\r\naXX0\r\n\r\n{hidden}")),
        ("a chunk that ends in LF", chunked.to_owned(), format!("1\r\na\n0\r\n\r\n{hidden}")),
        ("a size that ends in LF", chunked.to_owned(), format!("1\na\r\n0\r\n\r\n{hidden}")),
        ("an extension with a newline", chunked.to_owned(), format!("1;a=\nb\r\na\r\n0\r\n\r\n{hidden}")),
        ("framing in a trailer", chunked.to_owned(), format!("0\r\ncontent-length: {length}\r\n\r\n{hidden}")),
        (
            "a body on a GET in disguise",
            format!("content-length: {length}\r\nx-http-method-override: GET\r\n"),
            hidden.clone(),
        ),
        (
            "an upgrade",
            "connection: upgrade\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\ncontent-length: 0\r\n".to_owned(),
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
        ),
    ];
    converse(async {
        assert_eq!(stage.client.send(get("/scb/echo/warm", KEY)).await.status, 200);
        for version in ["1.1", "1.0"] {
            for (what, fields, rest) in &tricks {
                let what = format!("{what}, HTTP/{version}");
                scb.forget_received();
                let head = format!(
                    "POST /scb/echo/outer HTTP/{version}\r\nhost: localhost\r\nauthorization: Bearer {KEY}\r\n"
                );
                let answer =
                    stage.client.raw(format!("{head}{fields}\r\n{rest}").as_bytes(), Duration::from_millis(150)).await;
                let answers = answer.windows(9).filter(|window| window.starts_with(b"HTTP/1.")).count();
                let text = String::from_utf8_lossy(&answer);
                // A well-framed message may be followed by another one: with an honest length, it is none of ours.
                assert!(answers <= 2, "{what}: {text}");
                let received = scb.received();
                let whole: Vec<_> = received.iter().filter(|arrival| !arrival.aborted).collect();
                assert!(whole.len() <= 1, "{what}: {whole:?}");
                for arrival in &received {
                    assert!(arrival.path.ends_with("/echo/outer"), "{what}: {} arrived", arrival.path);
                    let framings = arrival.count("content-length") + arrival.count("transfer-encoding");
                    assert!(framings <= 1, "{what}: {:?}", arrival.headers);
                    assert_eq!(arrival.count("upgrade"), 0, "{what}");
                }
            }
        }
    });
}

// T38
#[test]
fn a_request_beyond_our_limits_is_refused_by_the_right_status() {
    let (scb, rak, plan) = fortress();
    let long = format!("/scb/{}", "a".repeat(8 * 1024));
    let many: String = (0..101).map(|n| format!("x-{n}: 1\r\n")).collect();
    let big = format!("x-big: {}\r\n", "b".repeat(33 * 1024));
    let query = format!("/scb/x?{}", "q".repeat(8 * 1024));
    let rows = [
        row("a long path", bytes("GET", &long, KEY, ""), Ours(414, "overloaded")),
        row("a long query", bytes("GET", &query, KEY, ""), Ours(414, "overloaded")),
        row("many fields", bytes("GET", "/scb/x", KEY, &many), Parser(431)),
        row("a big head", bytes("GET", "/scb/x", KEY, &big), Parser(431)),
        row(
            "a big head without an end",
            [&b"GET /scb/x HTTP/1.1\r\nx-a: "[..], &vec![b'a'; 40 * 1024]].concat(),
            Parser(431),
        ),
    ];
    refuse_all(plan.start(), "gateway", &[&scb, &rak], &rows);

    let scb = bank(Bank::Scb);
    let plan = Plan { limits: "header_timeout = \"300ms\"".to_owned(), ..Plan::default() };
    let rows = [
        row("half a head", &b"GET /scb/x HTTP/1.1\r\nhost: loc"[..], Parser(408)),
        row("one byte", &b"G"[..], Parser(408)),
    ];
    refuse_all(plan.with(&scb, "scb", "", "").start(), "gateway", &[&scb], &rows);
}

/// One call, whose error document is checked.
async fn failed(stage: &Harness, what: &str, method: &str, status: u16, name: &str) -> Bare {
    let mut stream = stage.client.tls(&[b"http/1.1"]).await.expect("TLS");
    let request = bytes(method, &format!("/bank/echo/{MARK}"), KEY, "content-length: 0\r\n");
    stream.write_all(&request).await.expect("written");
    let answer = Bare::read(&mut stream).await;
    assert_eq!(answer.status, status, "{what}: {answer:?}");
    assert_eq!(answer.problem(what).0, name, "{what}: {answer:?}");
    answer
}

/// A stage whose provider `bank` has its token endpoint at the simulator and its resources at this URL.
fn with_base_url(sim: &SimHandle, base_url: &str, more: &str) -> Plan {
    let mut plan = Plan { workers: 1, ..Plan::default() }.with(sim, "bank", more, "");
    plan.config =
        plan.config.replace(&format!("base_url = \"{}\"", sim.base_url()), &format!("base_url = \"{base_url}\""));
    plan
}

// T20
#[test]
fn a_bank_that_cannot_prove_who_it_is_never_sees_a_token() {
    let home = SimAuthority::new("home CA", Clock::System.now()).expect("a CA");
    for (what, leaf) in bad_leaves(&home) {
        let (sim, impostor) = bank_and_impostor(&home, leaf);
        let stage = with_base_url(&sim, &impostor.base_url(), "").start();
        converse(async {
            let answer = failed(&stage, what, "POST", 502, "upstream-tls").await;
            assert_eq!(answer.header("proxy-status"), "countersign; error=tls_certificate_error", "{what}");
        });
        assert!(impostor.connections() >= 1, "{what}: it was dialled");
        assert_eq!((impostor.resource_calls(), impostor.token_calls()), (0, 0), "{what}: it saw no request");
    }
}

#[test]
fn a_bank_that_is_not_there_is_unreachable_or_too_slow() {
    let sim = bank(Bank::OAuth2);
    let mute = TcpListener::bind("127.0.0.1:0").expect("a port");
    let gone = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let at = |address: std::net::SocketAddr| format!("https://{address}");
    let quick = "timeouts = { connect = \"300ms\" }";
    for (what, url, status, name, error) in [
        ("refused", at(gone), 502, "upstream-unreachable", "destination_unavailable"),
        ("unresolvable", "https://no-such-bank.invalid".to_owned(), 502, "upstream-unreachable", "dns_error"),
        ("mute", at(mute.local_addr().expect("an address")), 504, "upstream-timeout", "connection_timeout"),
    ] {
        // A name may take its time to be unknown.
        let stage = with_base_url(&sim, &url, if what == "unresolvable" { "" } else { quick }).start();
        converse(async {
            let answer = failed(&stage, what, "POST", status, name).await;
            assert_eq!(answer.header("proxy-status"), format!("countersign; error={error}"), "{what}");
        });
        let line = stage.stop().pop().expect("a line");
        assert_eq!((line["error.type"].as_str(), line["complete"].as_bool()), (Some(name), Some(true)), "{what}");
    }
}

// T17, T22
#[test]
fn an_answer_that_is_no_answer_is_told_as_such_and_never_asked_for_twice() {
    let sim = bank(Bank::OAuth2);
    let plan = Plan { workers: 1, ..Plan::default() };
    let stage = plan.with(&sim, "bank", "timeouts = { response = \"300ms\" }", "").start();
    let ok = "HTTP/1.1 200 OK\r\n";
    let garbage: Vec<(&str, String)> = vec![
        ("not HTTP", "220 mail.bank.example ESMTP\r\n".to_owned()),
        ("another protocol", "HTTP/9.9 200 OK\r\n\r\n".to_owned()),
        ("half a status line", "HTTP/1.1 2".to_owned()),
        ("a status of two digits", "HTTP/1.1 20 OK\r\n\r\n".to_owned()),
        ("a status below all", "HTTP/1.1 099 OK\r\n\r\n".to_owned()),
        ("half a head", format!("{ok}content-le")),
        ("two lengths", format!("{ok}content-length: 2\r\ncontent-length: 3\r\n\r\nabc")),
        ("two framings", format!("{ok}content-length: 60\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n")),
        ("a length that is none", format!("{ok}content-length: x\r\n\r\n")),
        ("a negative length", format!("{ok}content-length: -1\r\n\r\n")),
        ("a space before the colon", format!("{ok}x-a : 1\r\ncontent-length: 0\r\n\r\n")),
        ("NUL in a field", format!("{ok}x-a: \0\r\ncontent-length: 0\r\n\r\n")),
        ("a head without end", format!("{ok}x-a: {}", "a".repeat(600_000))),
        ("too many fields", format!("{ok}{}\r\n", "x-a: 1\r\n".repeat(2000))),
        (
            "an unasked upgrade",
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n".to_owned(),
        ),
        ("nothing", String::new()),
    ];
    converse(async {
        assert_eq!(stage.client.send(get("/bank/echo/warm", KEY)).await.status, 200);
        let mut troubles: Vec<(&str, SimFault, u16, &str, &str)> = garbage
            .into_iter()
            .map(|(what, text)| {
                (
                    what,
                    SimFault::new(ResponseFault::Garbage(text.into())),
                    502,
                    "upstream-protocol",
                    "http_protocol_error",
                )
            })
            .collect();
        let reset = SimFault::new(ResponseFault::ResetBeforeAnswer);
        troubles.push(("a reset", reset, 502, "upstream-protocol", "http_protocol_error"));
        let slow = SimFault { delay: Some(Duration::from_secs(20)), ..SimFault::default() };
        troubles.push(("too slow", slow, 504, "upstream-timeout", "http_response_timeout"));
        for (what, fault, status, name, error) in troubles {
            sim.change(|faults| faults.resource = fault);
            let before = sim.resource_calls();
            let answer = failed(&stage, what, "POST", status, name).await;
            assert_eq!(answer.header("proxy-status"), format!("countersign; error={error}"), "{what}");
            assert_eq!(sim.resource_calls() - before, 1, "{what}: sent once");
        }
    });
    assert_eq!(sim.token_calls(), 1);
}

#[test]
fn the_errors_of_the_token_endpoint_are_documents_of_the_same_kind() {
    let html = SimFault::new(ResponseFault::HtmlError(500));
    let refused = SimFault::new(ResponseFault::Verbatim(Verbatim::json(401, format!(r#"{{"error":"{MARK}"}}"#))));
    for (kind, fault, hours, status, name) in [
        (Bank::OAuth2, html, Hours::Always, 503, "token-unavailable"),
        (Bank::OAuth2, refused, Hours::Always, 502, "provider-credentials-rejected"),
        (Bank::AbbeyCross, SimFault::default(), Hours::Closed, 503, "provider-closed"),
    ] {
        let sim = bank(kind);
        sim.change(|faults| {
            faults.token = fault;
            faults.abbeycross.hours = hours;
        });
        let stage = Plan::default().with(&sim, "bank", "", "").start();
        converse(async {
            let answer = failed(&stage, name, "GET", status, name).await;
            assert!(answer.header("retry-after").parse::<u64>().is_ok_and(|seconds| seconds >= 1), "{answer:?}");
        });
        assert_eq!(sim.resource_calls(), 0);
    }
}
