//! The simulated banks, each held to its documents over a real TLS connection.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use countersign::base::secret::{ExposeSecret as _, Fingerprint, hex, sha256};
use countersign::base::time::{Clock, ManualClock, Now};
use countersign::sim::{
    Bank, Close, Dialect, Expiry, Faults, Hours, LeafSpec, RefusalShape, ResponseFault, Sim, SimAuthority, SimFault,
    SimHandle, SimOptions, SuccessBody, Verbatim,
};
use countersign::tls::{ClientIdentity, ClientTls, client};

/// Nothing here takes this long; what does has failed.
const PATIENCE: Duration = Duration::from_secs(30);
const START: Now = Now::at(1_000_000, 1_764_000_000_000);

// The client's side: one connection per request unless a test holds one itself.

pub(super) struct Ask {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Ask {
    pub(super) fn new(method: &str, path: impl Into<String>) -> Self {
        let method = method.parse().expect("a method");
        Self { method, path: path.into(), headers: Vec::new(), body: Vec::new() }
    }

    fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        self
    }

    /// Another value for a header.
    fn but(self, name: &str, value: &str) -> Self {
        self.without(name).with(name, value)
    }

    fn json(mut self, body: &Value) -> Self {
        self.body = body.to_string().into_bytes();
        self.but("content-type", "application/json")
    }

    fn form(mut self, fields: &[(&str, &str)]) -> Self {
        self.body = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish().into_bytes();
        self.but("content-type", "application/x-www-form-urlencoded")
    }

    fn request(self, sim: &SimHandle, absolute: bool) -> Request<Full<Bytes>> {
        let uri = if absolute { format!("https://{}{}", sim.address(), self.path) } else { self.path };
        let mut request = Request::builder().method(self.method).uri(uri);
        if !absolute {
            request = request.header("host", sim.address().to_string());
        }
        for (name, value) in &self.headers {
            request = request.header(name.as_str(), value.as_str());
        }
        request.body(Full::new(self.body.into())).expect("a request")
    }
}

#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Reply {
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

fn tls(sim: &SimHandle, alpn: &[&[u8]]) -> Arc<ClientConfig> {
    let ca = sim.ca_pem();
    let config = client(ClientTls { ca: Some(ca.as_bytes()), ..ClientTls::default() }).expect("client TLS");
    let mut config = Arc::unwrap_or_clone(config);
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Arc::new(config)
}

async fn dial(sim: &SimHandle, config: Arc<ClientConfig>, name: &str) -> std::io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(sim.address()).await?;
    TlsConnector::from(config).connect(ServerName::try_from(name.to_owned()).expect("a name"), tcp).await
}

async fn dial_h1(sim: &SimHandle) -> TlsStream<TcpStream> {
    dial(sim, tls(sim, &[b"http/1.1"]), "127.0.0.1").await.expect("a connection")
}

type Sender1 = hyper::client::conn::http1::SendRequest<Full<Bytes>>;
type Sender2 = hyper::client::conn::http2::SendRequest<Full<Bytes>>;

async fn http1(sim: &SimHandle) -> Sender1 {
    let io = TokioIo::new(dial_h1(sim).await);
    let (sender, connection) = hyper::client::conn::http1::handshake(io).await.expect("HTTP/1.1");
    tokio::task::spawn_local(connection);
    sender
}

async fn http2(sim: &SimHandle) -> Sender2 {
    let tls = dial(sim, tls(sim, &[b"h2"]), "127.0.0.1").await.expect("a connection");
    assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (sender, connection) =
        hyper::client::conn::http2::handshake(OnThisThread, TokioIo::new(tls)).await.expect("HTTP/2");
    tokio::task::spawn_local(connection);
    sender
}

#[derive(Clone)]
struct OnThisThread;

impl<F: Future + 'static> hyper::rt::Executor<F> for OnThisThread {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move {
            future.await;
        });
    }
}

async fn read(response: hyper::Result<http::Response<hyper::body::Incoming>>) -> Result<Reply, String> {
    let (head, body) = response.map_err(|error| error.to_string())?.into_parts();
    let body = body.collect().await.map_err(|error| format!("after the head: {error}"))?.to_bytes();
    Ok(Reply { status: head.status.as_u16(), headers: head.headers, body })
}

/// What comes of a request on a connection of its own.
async fn attempt(sim: &SimHandle, ask: Ask) -> Result<Reply, String> {
    read(http1(sim).await.send_request(ask.request(sim, false)).await).await
}

pub(super) async fn send(sim: &SimHandle, ask: Ask) -> Reply {
    attempt(sim, ask).await.expect("an answer")
}

pub(super) fn run(test: impl Future<Output = ()>) {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build_local(tokio::runtime::LocalOptions::default()).expect("a runtime");
    runtime.block_on(async { tokio::time::timeout(PATIENCE, test).await.expect("in time") });
}

/// Lets others work until something is so.
async fn until(so: impl Fn() -> bool) {
    while !so() {
        tokio::task::yield_now().await;
    }
}

// The banks' side: how a well-behaved partner speaks to each.

pub(super) fn start(bank: Bank) -> (SimHandle, Arc<ManualClock>) {
    start_with(bank, SimOptions::default())
}

fn start_with(bank: Bank, options: SimOptions) -> (SimHandle, Arc<ManualClock>) {
    let hand = ManualClock::at(START);
    let options = SimOptions { clock: Clock::Manual(hand.clone()), ..options };
    (Sim::start(bank, options).expect("a simulator"), hand)
}

fn secret(sim: &SimHandle) -> String {
    sim.credentials().secret().expose_secret().to_owned()
}

fn path(url: &str) -> &str {
    url.splitn(4, '/').nth(3).map_or("/", |_| &url[url.match_indices('/').nth(2).expect("a path").0..])
}

/// A token call with nothing wrong.
fn right(sim: &SimHandle) -> Ask {
    let (id, secret) = (sim.credentials().id(), secret(sim));
    let url = sim.token_url();
    let ask = Ask::new("POST", path(&url));
    match sim.bank() {
        Bank::AbbeyCross => ask.json(&json!({ "client_id": id, "client_secret": secret })),
        Bank::Meed | Bank::OAuth2 => {
            ask.form(&[("grant_type", "client_credentials"), ("client_id", id), ("client_secret", &secret)])
        }
        Bank::Rakbank => ask
            .with("x-ibm-client-id", id)
            .with("x-ibm-client-secret", &secret)
            .with("msgid", "5b1f7a52-7b0e-4a6e-9a5b-0d5c8f1f2a10")
            .json(&json!({
                "grant_type": "client_credentials", "scope": "internal_transfers",
                "oauth_metadata": { "account_id": "0188000049916" },
            })),
        Bank::Scb => ask
            .with("resourceOwnerId", id)
            .with("requestUId", "85230887e6434fa484b24e56709c4ac4")
            .json(&json!({ "applicationKey": id, "applicationSecret": secret })),
        Bank::Described(file) => panic!("{file:?} says in its file what a token call has"),
    }
}

/// A call of the API with a token and all that the bank wants besides.
fn dressed(sim: &SimHandle, method: &str, below: &str, token: &str) -> Ask {
    let base = sim.base_url();
    let base = if sim.bank() == Bank::AbbeyCross { "" } else { path(&base) };
    let ask = Ask::new(method, format!("{base}{below}")).with("authorization", &format!("Bearer {token}"));
    match sim.bank() {
        Bank::AbbeyCross | Bank::Described(_) | Bank::Meed | Bank::OAuth2 => ask,
        Bank::Rakbank => ask.with("x-ibm-client-id", sim.credentials().id()).with("msgid", "1"),
        Bank::Scb => ask.with("resourceOwnerId", sim.credentials().id()).with("requestUId", "1"),
    }
}

async fn token(sim: &SimHandle) -> String {
    let reply = send(sim, right(sim)).await;
    assert_eq!(reply.status, 200, "{}: {:?}", sim.bank().name(), reply.body);
    let at = if sim.bank() == Bank::Scb { "/data/accessToken" } else { "/access_token" };
    reply.json().pointer(at).and_then(Value::as_str).expect("a token").to_owned()
}

// All banks.

#[test]
fn every_bank_grants_serves_and_refuses() {
    run(async {
        for bank in Bank::ALL {
            let (sim, clock) = start(bank);
            let first = token(&sim).await;
            let mut ask = dressed(&sim, "PUT", "/echo/a%20b?x=1&y=%2F", &first).with("x-one", "1");
            ask.body = b"hello".to_vec();
            let reply = send(&sim, ask).await;
            let said = reply.json();
            assert_eq!((reply.status, &said["method"], &said["query"]), (200, &json!("PUT"), &json!("x=1&y=%2F")));
            assert!(said["path"].as_str().is_some_and(|path| path.ends_with("/echo/a%20b")), "{said}");
            assert_eq!(said["body"], json!({ "length": 5, "sha256": hex(&sha256(b"hello")) }));
            assert!(said["headers"].as_array().is_some_and(|names| names.contains(&json!("x-one"))));

            for (what, ask) in [
                ("no token", dressed(&sim, "GET", "/echo", &first).without("authorization")),
                ("an unknown token", dressed(&sim, "GET", "/echo", "34362373-66e8-4db0-80e5-0755b67e51f9")),
                ("another scheme", dressed(&sim, "GET", "/echo", "").but("authorization", "Basic YTpi")),
            ] {
                assert_eq!(send(&sim, ask).await.status, 401, "{}: {what}", bank.name());
            }

            assert_eq!(sim.revoke_all(), 1);
            assert_eq!(send(&sim, dressed(&sim, "GET", "/echo", &first)).await.status, 401, "revoked");
            let second = token(&sim).await;
            assert_eq!(send(&sim, dressed(&sim, "GET", "/echo", &second)).await.status, 200);
            clock.advance(Duration::from_secs(1799));
            assert_eq!(send(&sim, dressed(&sim, "GET", "/echo", &second)).await.status, 200, "still alive");
            clock.advance(Duration::from_secs(1801));
            assert_eq!(send(&sim, dressed(&sim, "GET", "/echo", &second)).await.status, 401, "expired");

            assert_eq!(send(&sim, dressed(&sim, "GET", "/nowhere", &token(&sim).await)).await.status, 404);
            assert_eq!((sim.token_calls(), sim.tokens_issued(), sim.resource_calls()), (3, 3, 9));
            let issued: Vec<String> = sim.issued().iter().map(|token| token.expose_secret().to_owned()).collect();
            assert_eq!(issued[..2], [first.clone(), second]);
            let received = sim.received();
            let echo = received.iter().find(|one| one.method == Method::PUT).expect("the echo");
            assert_eq!((echo.bearer(), &echo.body[..], echo.aborted), (Some(first.as_str()), &b"hello"[..], false));
            assert_eq!(sim.connections(), 12);
        }
    });
}

#[test]
fn settings_can_be_pasted() {
    for bank in Bank::ALL {
        let (sim, _) = start(bank);
        let pasted: toml::Table = sim.settings_toml_as("mine", "/tmp/ca.pem").parse().expect("TOML");
        let provider = &pasted["provider"]["mine"];
        assert_eq!(provider["profile"].as_str(), Some(bank.name()));
        assert_eq!(provider["base_url"].as_str(), Some(sim.base_url().as_str()));
        let secret_name = if bank == Bank::Scb { "application_secret" } else { "client_secret" };
        assert_eq!(provider[secret_name].as_str(), Some(secret(&sim).as_str()));
        assert_eq!(provider["tls"]["ca"].as_str(), Some("/tmp/ca.pem"));
        let named = provider.get("token_url").and_then(toml::Value::as_str).map(str::to_owned);
        assert_eq!(named, matches!(bank, Bank::OAuth2 | Bank::Rakbank).then(|| sim.token_url()));
        assert!(!format!("{sim:?}{:?}", sim.credentials()).contains(&secret(&sim)));
    }
}

#[test]
fn a_life_is_told_as_asked_for() {
    run(async {
        for bank in Bank::ALL {
            let (sim, clock) = start(bank);
            let name = if bank == Bank::Scb { "expiresIn" } else { "expires_in" };
            for raw in ["-1", "\"3600\"", "3599.5", "1e400", "1764000000", "null", "{}"] {
                sim.change(|faults| faults.issue.expires_in = Expiry::Raw(raw.to_owned()));
                let text = String::from_utf8(send(&sim, right(&sim)).await.body.to_vec()).expect("text");
                assert!(text.contains(&format!("\"{name}\":{raw}")), "{text}");
            }
            sim.change(|faults| faults.issue.expires_in = Expiry::Absent);
            assert!(!String::from_utf8_lossy(&send(&sim, right(&sim)).await.body).contains(name));

            sim.set(Faults::default());
            sim.change(|faults| faults.issue.life = Some(Duration::from_secs(7)));
            let short = token(&sim).await;
            assert_eq!(send(&sim, dressed(&sim, "GET", "/echo", &short)).await.status, 200);
            clock.advance(Duration::from_secs(7));
            assert_eq!(send(&sim, dressed(&sim, "GET", "/echo", &short)).await.status, 401);

            let old = token(&sim).await;
            sim.change(|faults| faults.issue.single = true);
            let new = token(&sim).await;
            assert_eq!(send(&sim, dressed(&sim, "GET", "/echo", &old)).await.status, 401, "only the newest lives");
            assert_eq!(send(&sim, dressed(&sim, "GET", "/echo", &new)).await.status, 200);
        }
    });
}

#[test]
fn payments_count_what_was_processed() {
    run(async {
        for bank in Bank::ALL {
            let (sim, _) = start(bank);
            let live = token(&sim).await;
            let pay = |id: &str, token: &str| dressed(&sim, "POST", &format!("/payments/{id}"), token);
            assert_eq!(send(&sim, pay("a", &live)).await.json()["processed"], 1);
            assert_eq!(send(&sim, pay("b", "dead")).await.status, 401);
            sim.change(|faults| faults.resource = SimFault::once(ResponseFault::ResetBeforeAnswer));
            attempt(&sim, pay("c", &live)).await.expect_err("nobody is told");
            sim.change(|faults| faults.resource = SimFault::once(ResponseFault::Verbatim(Verbatim::bare(401, &[]))));
            assert_eq!(send(&sim, pay("d", &live)).await.status, 401);
            sim.change(|faults| faults.resource = SimFault::once(ResponseFault::HtmlError(502)));
            assert_eq!(send(&sim, pay("a", &live)).await.status, 502);
            let booked: Vec<(String, u64)> = sim.payments().into_iter().collect();
            assert_eq!(booked, [("a".to_owned(), 2), ("c".to_owned(), 1)]);
        }
    });
}

// SCB.

fn scb_code(reply: &Reply) -> (u16, i64) {
    (reply.status, reply.json().pointer("/status/code").and_then(Value::as_i64).unwrap_or(0))
}

#[test]
fn scb_answers_a_token_call_as_documented() {
    run(async {
        let (sim, _) = start(Bank::Scb);
        let (id, secret) = (sim.credentials().id().to_owned(), secret(&sim));
        assert!(id.len() == 34 && id.starts_with("l7") && secret.len() == 32);
        let reply = send(&sim, right(&sim)).await;
        assert_eq!(reply.header("content-type"), "application/json");
        let said = reply.json();
        assert_eq!(said["status"], json!({ "code": 1000, "description": "Success" }));
        let data = &said["data"];
        assert_eq!(
            data["accessToken"].as_str().map(|token| token.split('-').map(str::len).collect::<Vec<_>>()),
            Some(vec![8, 4, 4, 4, 12])
        );
        assert_eq!((&data["tokenType"], &data["expiresIn"]), (&json!("Bearer"), &json!(1800)));
        assert_eq!(data["expiresAt"], json!(START.unix_seconds() + 1800));
        assert_eq!(data.get("refreshToken"), None, "only with an authorization code");

        let body = |value: Value| right(&sim).json(&value);
        for (what, ask, expected) in [
            ("GET", Ask { method: Method::GET, ..right(&sim) }, (405, 9900)),
            ("no owner", right(&sim).without("resourceOwnerId"), (400, 9100)),
            ("no id", right(&sim).without("requestUId"), (400, 9100)),
            ("empty id", right(&sim).but("requestUId", ""), (400, 9100)),
            ("a form", right(&sim).form(&[("applicationKey", &id)]), (415, 9900)),
            ("no JSON", Ask { body: b"{".to_vec(), ..right(&sim) }, (400, 1102)),
            ("no key", body(json!({ "applicationSecret": secret })), (400, 1101)),
            ("no secret", body(json!({ "applicationKey": id })), (400, 1101)),
            ("empty secret", body(json!({ "applicationKey": id, "applicationSecret": "" })), (400, 1103)),
            ("a number", body(json!({ "applicationKey": 1, "applicationSecret": secret })), (400, 1102)),
            (
                "more",
                body(json!({ "applicationKey": id, "applicationSecret": secret, "grant_type": "x" })),
                (400, 1105),
            ),
            ("wrong key", body(json!({ "applicationKey": "l7", "applicationSecret": secret })), (401, 9500)),
            ("wrong secret", body(json!({ "applicationKey": id, "applicationSecret": "x" })), (401, 9500)),
            (
                "wrong code",
                body(json!({ "applicationKey": id, "applicationSecret": secret, "authCode": "x" })),
                (401, 9300),
            ),
        ] {
            assert_eq!(scb_code(&send(&sim, ask).await), expected, "{what}");
        }
        sim.change(|faults| faults.scb.ok_but_9700 = true);
        assert_eq!(scb_code(&send(&sim, right(&sim)).await), (200, 9700));
        assert_eq!(sim.tokens_issued(), 1);
    });
}

#[test]
fn scb_refuses_a_call_in_its_own_words() {
    run(async {
        let (sim, _) = start(Bank::Scb);
        let live = token(&sim).await;
        let call = |token: &str| dressed(&sim, "GET", "/echo", token);
        assert_eq!(scb_code(&send(&sim, call(&live).without("authorization")).await), (401, 9100));
        assert_eq!(scb_code(&send(&sim, call(&live).without("requestUId")).await), (400, 9100));
        let reply = send(&sim, call("dead")).await;
        assert_eq!(
            reply.json(),
            json!({ "status": { "code": 9300, "description": "Invalid/expired temporary token" } })
        );
        assert_eq!(reply.headers.get("www-authenticate"), None);
        let thai = send(&sim, call("dead").with("accept-language", "TH")).await.json();
        assert!(thai["status"]["description"].as_str().is_some_and(|text| !text.is_ascii()), "{thai}");
        sim.change(|faults| (faults.scb.dead_token_code, faults.scb.null_data) = (9500, true));
        let reply = send(&sim, call("dead")).await;
        assert_eq!((scb_code(&reply), reply.json().get("data")), ((401, 9500), Some(&Value::Null)));
    });
}

#[test]
fn scb_limits_calls_per_second_and_path() {
    run(async {
        let (sim, clock) = start(Bank::Scb);
        let live = token(&sim).await;
        sim.change(|faults| faults.scb.calls_per_second = Some(5));
        let mut statuses = Vec::new();
        for _ in 0..6 {
            statuses.push(send(&sim, dressed(&sim, "GET", "/echo/a", &live)).await.status);
        }
        assert_eq!(statuses, [200, 200, 200, 200, 200, 429]);
        assert_eq!(send(&sim, dressed(&sim, "GET", "/echo/b", &live)).await.status, 200, "another API");
        clock.advance(Duration::from_secs(1));
        assert_eq!(send(&sim, dressed(&sim, "GET", "/echo/a", &live)).await.status, 200);
    });
}

#[test]
fn scb_serves_its_payment_resources() {
    run(async {
        let (sim, _) = start(Bank::Scb);
        let live = token(&sim).await;
        let qr = json!({
            "qrType": "PP", "ppType": "BILLERID", "ppId": "123456789012345", "amount": "1.00",
            "ref1": "REFERENCE1", "ref2": "REFERENCE2", "ref3": "SCB",
        });
        let create = |body: &Value| dressed(&sim, "POST", "/v1/payment/qrcode/create", &live).json(body);
        let reply = send(&sim, create(&qr)).await;
        assert_eq!(scb_code(&reply), (200, 1000));
        assert!(reply.json()["data"]["qrRawData"].as_str().is_some_and(|raw| raw.starts_with("000201")));
        for (name, value, expected) in [
            ("qrType", json!("XX"), (400, 1102)),
            ("ref1", json!("lower"), (400, 1102)),
            ("amount", json!("12345678901.00"), (400, 1102)),
            ("surprise", json!(1), (400, 1105)),
        ] {
            let mut changed = qr.clone();
            changed[name] = value;
            assert_eq!(scb_code(&send(&sim, create(&changed)).await), expected, "{name}");
        }

        let link = || {
            dressed(&sim, "POST", "/v3/deeplink/transactions", &live).json(&json!({ "transactionType": "PURCHASE" }))
        };
        assert_eq!(scb_code(&send(&sim, link()).await), (501, 4101), "without its channel");
        let reply = send(&sim, link().with("channel", "scbeasy")).await;
        assert_eq!(scb_code(&reply), (201, 1000));
        let data = reply.json()["data"].clone();
        let id = data["transactionId"].as_str().expect("an id");
        assert_eq!(data["deeplinkUrl"], json!(format!("scbeasysim://purchase/{id}")));
        let reply = send(&sim, dressed(&sim, "GET", &format!("/v2/transactions/{id}"), &live)).await;
        assert_eq!((scb_code(&reply), &reply.json()["data"]["statusCode"]), ((200, 1000), &json!(0)));
        let bill = "/v1/payment/billpayment";
        for (below, expected) in [
            ("/v2/transactions/none".to_owned(), (404, 1104)),
            (format!("{bill}/transactions/1?sendingBank=014"), (404, 1104)),
            (format!("{bill}/transactions/1"), (400, 1101)),
            (format!("{bill}/inquiry?eventCode=00300100&billerId=1&transactionDate=2026-11-21"), (200, 1000)),
            (format!("{bill}/inquiry?eventCode=00300100"), (400, 1101)),
        ] {
            assert_eq!(scb_code(&send(&sim, dressed(&sim, "GET", &below, &live)).await), expected, "{below}");
        }
    });
}

#[test]
fn scb_gives_a_user_token_for_a_code_once() {
    run(async {
        let (sim, clock) = start(Bank::Scb);
        let (id, secret) = (sim.credentials().id().to_owned(), secret(&sim));
        let authorize = || {
            dressed(&sim, "GET", "/v2/oauth/authorize?app=1", "")
                .without("authorization")
                .with("apikey", &id)
                .with("apisecret", &secret)
                .with("endState", "mobile_app")
                .with("response-channel", "mobile")
        };
        assert_eq!(scb_code(&send(&sim, authorize().but("apisecret", "x")).await), (401, 9500));
        assert_eq!(scb_code(&send(&sim, authorize().without("endState")).await), (400, 9100));
        let login = async || {
            let url = send(&sim, authorize()).await.json()["data"]["callbackUrl"].as_str().expect("a URL").to_owned();
            url.strip_prefix("scbeasysim://login/").expect("a login").to_owned()
        };
        let exchange = |code: &str| {
            right(&sim).json(&json!({ "applicationKey": id, "applicationSecret": secret, "authCode": code }))
        };
        let pending = login().await;
        let code = sim.consent(&pending, "alice").expect("a code");
        assert_eq!(sim.consent(&pending, "alice"), None, "agreed to once");
        let reply = send(&sim, exchange(&code)).await;
        assert_eq!(scb_code(&reply), (200, 1000));
        let user = reply.header("resourceownerid").to_owned();
        assert!(user.len() == 32 && user != id);
        let data = reply.json()["data"].clone();
        assert_eq!(
            (&data["refreshExpiresIn"], &data["refreshExpiresAt"]),
            (&json!(3600), &json!(START.unix_seconds() + 3600))
        );
        assert_eq!(scb_code(&send(&sim, exchange(&code)).await), (401, 9300), "a code works once");

        let live = data["accessToken"].as_str().expect("a token").to_owned();
        let profile = || dressed(&sim, "GET", "/v2/customers/profile", &live);
        assert_eq!(scb_code(&send(&sim, profile()).await), (403, 9503), "the key names no user");
        assert_eq!(scb_code(&send(&sim, profile().but("resourceOwnerId", &user)).await), (200, 1000));

        let late = sim.consent(&login().await, "alice").expect("a code");
        clock.advance(Duration::from_secs(60));
        assert_eq!(scb_code(&send(&sim, exchange(&late)).await), (401, 9300), "a minute old");

        let refresh = |token: &Value| {
            dressed(&sim, "POST", "/v1/oauth/token/refresh", "")
                .without("authorization")
                .json(&json!({ "applicationKey": id, "applicationSecret": secret, "refreshToken": token }))
        };
        let renewed = send(&sim, refresh(&data["refreshToken"])).await;
        assert_eq!((scb_code(&renewed), renewed.header("resourceownerid")), ((200, 1000), user.as_str()));
        assert_eq!(scb_code(&send(&sim, refresh(&data["refreshToken"])).await), (401, 9300), "it rotates");
        clock.advance(Duration::from_secs(3600));
        let stale = &renewed.json()["data"]["refreshToken"];
        assert_eq!(scb_code(&send(&sim, refresh(stale)).await), (401, 9300), "an hour old");
    });
}

// Meed.

#[test]
fn meed_answers_word_for_word() {
    run(async {
        let (sim, _) = start(Bank::Meed);
        let (id, secret) = (sim.credentials().id().to_owned(), secret(&sim));
        assert!(id.len() == 37 && id.starts_with("meed_") && secret.len() == 64);
        let said = send(&sim, right(&sim)).await.json();
        assert_eq!((&said["token_type"], &said["expires_in"]), (&json!("Bearer"), &json!(3600)));
        let token = said["access_token"].as_str().expect("a token");
        assert!(token.starts_with("eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9."), "{token}");
        let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).expect("claims")).expect("base64");
        let claims: Value = serde_json::from_slice(&claims).expect("JSON");
        assert_eq!(claims["exp"], json!(START.unix_seconds() + 3600));

        let invalid = json!({
            "error": "invalid_request",
            "message": "grant_type, client_id, and client_secret are required and grant_type must be \"client_credentials\"",
        });
        let wrong = json!({ "error": "invalid_client", "message": "Invalid client_id or client_secret" });
        let grant = ("grant_type", "client_credentials");
        for (what, ask, expected) in [
            ("no grant type", right(&sim).form(&[("client_id", &id), ("client_secret", &secret)]), (400, &invalid)),
            (
                "another",
                right(&sim).form(&[("grant_type", "password"), ("client_id", &id), ("client_secret", &secret)]),
                (400, &invalid),
            ),
            ("no secret", right(&sim).form(&[grant, ("client_id", &id)]), (400, &invalid)),
            (
                "JSON",
                right(&sim)
                    .json(&json!({ "grant_type": "client_credentials", "client_id": id, "client_secret": secret })),
                (400, &invalid),
            ),
            ("wrong secret", right(&sim).form(&[grant, ("client_id", &id), ("client_secret", "x")]), (401, &wrong)),
            ("wrong id", right(&sim).form(&[grant, ("client_id", "x"), ("client_secret", &secret)]), (401, &wrong)),
        ] {
            let reply = send(&sim, ask).await;
            assert_eq!((reply.status, &reply.json()), expected, "{what}");
        }
        sim.change(|faults| faults.meed.media_type_415 = true);
        assert_eq!(send(&sim, right(&sim).json(&json!({}))).await.status, 415);
        sim.change(|faults| faults.meed.suspended = true);
        let reply = send(&sim, right(&sim)).await;
        let suspended = json!({ "error": "invalid_client", "message": "API application is suspended or revoked" });
        assert_eq!((reply.status, reply.json()), (401, suspended));
    });
}

#[test]
fn meed_refuses_a_token_in_three_shapes() {
    run(async {
        let (sim, _) = start(Bank::Meed);
        let live = token(&sim).await;
        assert_eq!(send(&sim, dressed(&sim, "GET", "/v1/sales", &live)).await.status, 200);
        let sale = dressed(&sim, "POST", "/v1/sales", &live).json(&json!({ "id": "S-1" }));
        assert_eq!(send(&sim, sale).await.status, 201);
        for (shape, token, error_in_challenge, error_in_body) in [
            (RefusalShape::Challenge, Some("dead"), true, Value::Null),
            (RefusalShape::Challenge, None, false, Value::Null),
            (RefusalShape::Body, Some("dead"), false, json!("invalid_token")),
            (RefusalShape::Body, None, false, json!("unauthorized")),
            (RefusalShape::Bare, Some("dead"), false, Value::Null),
        ] {
            sim.change(|faults| faults.meed.refusal = shape);
            let ask = dressed(&sim, "GET", "/v1/sales", token.unwrap_or_default());
            let reply = send(&sim, if token.is_some() { ask } else { ask.without("authorization") }).await;
            assert_eq!(reply.status, 401);
            assert_eq!(reply.header("www-authenticate").contains("invalid_token"), error_in_challenge, "{reply:?}");
            assert_eq!(reply.headers.contains_key("www-authenticate"), shape == RefusalShape::Challenge);
            assert_eq!(reply.json()["error"], error_in_body, "{reply:?}");
        }
    });
}

// AbbeyCross.

#[test]
fn abbeycross_answers_with_its_envelope() {
    run(async {
        let (sim, clock) = start(Bank::AbbeyCross);
        let (id, secret) = (sim.credentials().id().to_owned(), secret(&sim));
        for (success, at, life) in [
            (SuccessBody::Snake, "/access_token", "/expires_in"),
            (SuccessBody::Camel, "/accessToken", "/expiresIn"),
            (SuccessBody::Data, "/data/access_token", "/data/expires_in"),
            (SuccessBody::NoExpiry, "/access_token", ""),
        ] {
            sim.change(|faults| faults.abbeycross.success = success);
            let said = send(&sim, right(&sim)).await.json();
            let token = said.pointer(at).and_then(Value::as_str).expect(at).to_owned();
            let told = if life.is_empty() {
                said.as_object().is_some_and(|all| all.len() == 2)
            } else {
                said.pointer(life) == Some(&json!(1800))
            };
            assert!(told, "{said}");
            assert_eq!(send(&sim, dressed(&sim, "POST", "/v1/quotes", &token).json(&json!({}))).await.status, 201);
            assert_eq!(send(&sim, dressed(&sim, "GET", "/v1/quotes", &token)).await.status, 200);
        }
        sim.set(Faults::default());
        let body = |value: Value| right(&sim).json(&value);
        for (what, ask, expected) in [
            ("no id", body(json!({ "client_secret": secret })), (409, json!("client_id"))),
            ("no secret", body(json!({ "client_id": id })), (409, json!("client_secret"))),
            ("more", body(json!({ "client_id": id, "client_secret": secret, "scope": "x" })), (409, json!("scope"))),
            ("a form", right(&sim).form(&[("client_id", &id)]), (409, Value::Null)),
            ("wrong secret", body(json!({ "client_id": id, "client_secret": "x" })), (409, Value::Null)),
        ] {
            let reply = send(&sim, ask).await;
            let said = reply.json();
            assert_eq!((reply.status, said["parameter_name"].clone()), expected, "{what}");
            let names: Vec<&str> = said.as_object().expect("an object").keys().map(String::as_str).collect();
            assert_eq!(names, ["errorId", "code", "text", "parameter_name", "parameter_value"], "{what}");
        }
        for status in [500, 401] {
            sim.change(|faults| faults.abbeycross.wrong_credentials = status);
            assert_eq!(send(&sim, body(json!({ "client_id": id, "client_secret": "x" }))).await.status, status);
        }

        let live = token(&sim).await;
        sim.change(|faults| (faults.abbeycross.hours, faults.abbeycross.retry_after) = (Hours::Closed, Some(300)));
        let reply = send(&sim, right(&sim)).await;
        assert_eq!((reply.status, reply.header("retry-after")), (503, "300"));
        assert!(reply.json()["text"].as_str().is_some_and(|text| text.contains("non-working hours")));
        assert_eq!(send(&sim, dressed(&sim, "GET", "/v1/quotes", &live)).await.status, 200, "its tokens go on");
        sim.change(|faults| faults.abbeycross.resources_close = true);
        assert_eq!(send(&sim, dressed(&sim, "GET", "/v1/quotes", &live)).await.status, 503);

        let hour = u8::try_from(START.unix_seconds() / 3600 % 24).expect("an hour");
        sim.set(Faults::default());
        sim.change(|faults| faults.abbeycross.hours = Hours::Between(0, hour + 1));
        assert_eq!(send(&sim, right(&sim)).await.status, 200);
        clock.advance(Duration::from_secs(3600));
        let reply = send(&sim, right(&sim)).await;
        assert_eq!((reply.status, reply.headers.get("retry-after")), (503, None));

        let reply = send(&sim, dressed(&sim, "GET", "/v1/quotes", "dead")).await;
        assert_eq!((reply.status, reply.json()["code"].clone()), (401, json!("UNAUTHORIZED")));
        assert!(reply.header("www-authenticate").contains("error=\"invalid_token\""));
    });
}

// RAKBANK.

fn rak_code(reply: &Reply) -> (u16, String, String) {
    let said = reply.json();
    let text = |name: &str| said[name].as_str().unwrap_or_default().to_owned();
    (reply.status, text("response_code"), text("description"))
}

#[test]
fn rakbank_tells_its_refusals_apart() {
    run(async {
        let (sim, _) = start(Bank::Rakbank);
        let said = send(&sim, right(&sim)).await.json();
        assert_eq!((&said["token_type"], &said["scope"]), (&json!("bearer"), &json!("internal_transfers")));
        assert!(said["expires_in"].is_u64());
        let body = |change: fn(&mut Value)| {
            let mut body: Value = serde_json::from_slice(&right(&sim).body).expect("JSON");
            change(&mut body);
            right(&sim).json(&body)
        };
        let live = token(&sim).await;
        let rates = |token: &str| dressed(&sim, "POST", "/v2/fx_rates/query", token).json(&json!({}));
        for (what, ask, (status, code, words)) in [
            ("no id", right(&sim).without("x-ibm-client-id"), (401, "401", "Invalid client id or secret.")),
            ("wrong secret", right(&sim).but("x-ibm-client-secret", "x"), (401, "401", "Invalid client id or secret.")),
            ("no message id", right(&sim).without("msgid"), (422, "422002", "Header parameter missing")),
            ("basic", right(&sim).with("authorization", "Basic YTpi"), (401, "401", "client_id unauthorized")),
            (
                "no scope",
                body(|body| body.as_object_mut().map_or((), |body| drop(body.remove("scope")))),
                (422, "422001", "Property missing"),
            ),
            ("empty scope", body(|body| body["scope"] = json!("")), (422, "422001", "Property is not valid")),
            (
                "long scope",
                body(|body| body["scope"] = json!("x".repeat(501))),
                (422, "422001", "Property is not valid"),
            ),
            ("unknown scope", body(|body| body["scope"] = json!("all")), (401, "401", "Invalid scope")),
            ("more", body(|body| body["client_id"] = json!("x")), (422, "422001", "Property is not allowed")),
            ("grant", body(|body| body["grant_type"] = json!("password")), (422, "422001", "Property is not valid")),
            (
                "dead token",
                rates("dead"),
                (401, "401", "This server could not verify that you are authorized to access the URL."),
            ),
            ("wrong id", rates(&live).but("x-ibm-client-id", "x"), (401, "401", "Invalid client id or secret.")),
            ("no message id", rates(&live).without("msgid"), (422, "422002", "Header parameter missing")),
        ] {
            assert_eq!(rak_code(&send(&sim, ask).await), (status, code.to_owned(), words.to_owned()), "{what}");
        }
        assert_eq!(send(&sim, rates(&live)).await.status, 200);
        let transfer = |account: &str| {
            dressed(&sim, "POST", &format!("/v1/accounts/{account}/transfers"), &live)
                .json(&json!({ "transaction_id": "T1" }))
        };
        assert_eq!(send(&sim, transfer("0188000049916")).await.status, 200);
        assert_eq!(rak_code(&send(&sim, transfer("0188000049917")).await).1, "401001", "another account");
        assert_eq!(sim.payments().get("T1"), Some(&1));
        assert_eq!(sim.violations().len(), 0);
        assert_eq!(send(&sim, rates(&live).with("x-ibm-client-secret", "x")).await.status, 200);
        assert_eq!(sim.violations().len(), 1, "the secret belongs on token calls only");

        sim.change(|faults| faults.rakbank.not_subscribed = true);
        assert_eq!(rak_code(&send(&sim, rates(&live)).await).2, "Not registered to plan.");
    });
}

#[test]
fn rakbank_has_a_gateway_with_a_dialect() {
    run(async {
        let (sim, _) = start(Bank::Rakbank);
        sim.change(|faults| faults.rakbank.dialect = Dialect::Ibm);
        let reply = send(&sim, right(&sim).but("x-ibm-client-secret", "x")).await;
        let expected = json!({
            "httpCode": "401", "httpMessage": "Unauthorized", "moreInformation": "Invalid client id or secret.",
        });
        assert_eq!((reply.status, reply.json()), (401, expected));
        assert_eq!(reply.header("x-global-transaction-id").len(), 32);
        sim.change(|faults| faults.rakbank.not_subscribed = true);
        let expected = json!({ "error": "invalid_client", "error_description": "client_id unauthorized" });
        assert_eq!(send(&sim, right(&sim)).await.json(), expected);

        sim.set(Faults::default());
        sim.change(|faults| (faults.rakbank.token_length, faults.rakbank.spurious_429_every) = (Some(5000), Some(2)));
        let long = token(&sim).await;
        assert_eq!(long.len(), 5000);
        assert_eq!(send(&sim, right(&sim)).await.status, 429, "every second call");
        assert_eq!(send(&sim, dressed(&sim, "GET", "/echo", &long)).await.status, 200);
        assert_eq!(send(&sim, dressed(&sim, "GET", "/echo", &long)).await.status, 429);
    });
}

// The textbook.

#[test]
fn oauth2_goes_by_the_book() {
    run(async {
        let (sim, clock) = start(Bank::OAuth2);
        let (id, secret) = (sim.credentials().id().to_owned(), secret(&sim));
        let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        let basic = |id: &str, secret: &str| format!("Basic {}", STANDARD.encode(format!("{id}:{secret}")));
        let grant = ("grant_type", "client_credentials");
        let by_basic =
            |fields: &[(&str, &str)], value: &str| Ask::new("POST", "/token").form(fields).with("authorization", value);
        let good = basic(&encoded(&id), &encoded(&secret));
        let reply = send(&sim, by_basic(&[grant, ("scope", "a b")], &good)).await;
        assert_eq!((reply.status, reply.header("cache-control")), (200, "no-store"));
        assert_eq!(reply.json()["scope"], "a b");
        let scoped = reply.json()["access_token"].as_str().expect("a token").to_owned();

        sim.change(|faults| faults.oauth2.scopes = vec!["a".to_owned()]);
        let (pair, wrong) = ([("client_id", id.as_str()), ("client_secret", secret.as_str())], basic(&id, &secret));
        for (what, ask, expected) in [
            ("no encoding before base64", by_basic(&[grant], &wrong), (401, "invalid_client")),
            ("wrong secret", right(&sim).form(&[grant, pair[0], ("client_secret", "x")]), (401, "invalid_client")),
            ("no credentials", right(&sim).form(&[grant]), (401, "invalid_client")),
            ("two ways", by_basic(&[grant, pair[0], pair[1]], &good), (400, "invalid_request")),
            ("no grant type", right(&sim).form(&pair), (400, "invalid_request")),
            ("a parameter twice", right(&sim).form(&[grant, grant, pair[0], pair[1]]), (400, "invalid_request")),
            ("JSON", right(&sim).json(&json!({})), (400, "invalid_request")),
            (
                "password",
                right(&sim).form(&[("grant_type", "password"), pair[0], pair[1]]),
                (400, "unsupported_grant_type"),
            ),
            ("scope", right(&sim).form(&[grant, pair[0], pair[1], ("scope", "z")]), (400, "invalid_scope")),
        ] {
            let by_header = ask.headers.iter().any(|(name, _)| name == "authorization");
            let reply = send(&sim, ask).await;
            assert_eq!((reply.status, reply.json()["error"].as_str().unwrap_or_default()), expected, "{what}");
            let challenged = reply.header("www-authenticate").starts_with("Basic ");
            assert_eq!(challenged, by_header && reply.status == 401, "{what}: a challenge in the scheme that was used");
        }

        let ask = |token: &str| dressed(&sim, "GET", "/scoped/a", token);
        assert_eq!(send(&sim, ask(&scoped)).await.status, 200);
        let old = token(&sim).await;
        clock.advance(Duration::from_secs(1800));
        let revoked = token(&sim).await;
        clock.advance(Duration::from_secs(1800));
        sim.revoke_all();
        let narrow = token(&sim).await;
        for (what, ask, status, challenge) in [
            ("nothing", ask("").without("authorization"), 401, r#"Bearer realm="api""#),
            ("malformed", ask("a b"), 400, r#"Bearer realm="api", error="invalid_request""#),
            (
                "expired",
                ask(&old),
                401,
                r#"Bearer realm="api", error="invalid_token", error_description="The access token expired""#,
            ),
            (
                "revoked",
                ask(&revoked),
                401,
                r#"Bearer realm="api", error="invalid_token", error_description="The access token was revoked""#,
            ),
            ("narrow", ask(&narrow), 403, r#"Bearer realm="api", error="insufficient_scope", scope="a""#),
        ] {
            let reply = send(&sim, ask).await;
            assert_eq!((reply.status, reply.header("www-authenticate")), (status, challenge), "{what}");
        }
    });
}

// What goes wrong.

#[test]
fn every_trouble_shows_at_either_half() {
    run(async {
        let early = Verbatim::bare(401, &[("www-authenticate", "Bearer")]);
        let teapot = Verbatim { status: 418, headers: vec![("x-a".into(), "1".into())], body: "short".into() };
        let slow = ResponseFault::SlowBody { chunk: 1, pause: Duration::from_micros(1) };
        for of_token in [true, false] {
            let (sim, _) = start(Bank::Meed);
            let live = token(&sim).await;
            let ask = || if of_token { right(&sim) } else { dressed(&sim, "GET", "/echo", &live) };
            let trouble = async |trouble: ResponseFault| {
                let fault = SimFault::once(trouble);
                sim.change(|faults| if of_token { faults.token = fault } else { faults.resource = fault });
                let hit = attempt(&sim, ask()).await;
                assert_eq!(send(&sim, ask()).await.status, 200, "once was asked for");
                hit
            };
            for broken in [ResponseFault::ResetBeforeAnswer, ResponseFault::Garbage("\0 not HTTP\r\n\r\n".into())] {
                let error = trouble(broken.clone()).await.expect_err("no answer");
                assert!(!error.starts_with("after the head"), "{broken:?}: {error}");
            }
            for broken in [ResponseFault::ResetAfterHead, ResponseFault::CutBody] {
                let error = trouble(broken.clone()).await.expect_err("half an answer");
                assert!(error.starts_with("after the head"), "{broken:?}: {error}");
            }
            let reply = trouble(ResponseFault::HtmlError(503)).await.expect("a page");
            assert_eq!((reply.status, reply.header("content-type")), (503, "text/html"));
            let reply = trouble(ResponseFault::HugeBody(3 << 20)).await.expect("much");
            assert_eq!((reply.status, reply.body.len()), (200, 3 << 20));
            let reply = trouble(ResponseFault::DeepJson(10_000)).await.expect("depth");
            assert!(reply.body.len() == 20_000 && reply.body.starts_with(b"[[[["));
            let reply = trouble(ResponseFault::Verbatim(teapot.clone())).await.expect("a teapot");
            assert_eq!((reply.status, reply.header("x-a"), &reply.body[..]), (418, "1", &b"short"[..]));
            assert_eq!(trouble(slow.clone()).await.expect("in the end").status, 200);
            assert_eq!(trouble(ResponseFault::AnswerEarly(early.clone())).await.expect("early").status, 401);
        }
    });
}

#[test]
fn a_reset_is_a_reset_on_both_versions() {
    run(async {
        let (sim, _) = start(Bank::Meed);
        sim.change(|faults| faults.token = SimFault::new(ResponseFault::ResetBeforeAnswer));
        let mut tls = dial_h1(&sim).await;
        tls.write_all(b"POST /api/partner/v1/oauth/token HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n")
            .await
            .expect("sent");
        let error = tls.read(&mut [0; 16]).await.expect_err("no answer");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "not a clean end");
        let mut h2 = http2(&sim).await;
        read(h2.send_request(right(&sim).request(&sim, true)).await).await.expect_err("no answer");
        until(|| sim.open_connections() == 0).await;

        sim.change(|faults| faults.token = SimFault::once(ResponseFault::CutBody));
        let mut h2 = http2(&sim).await;
        let error = read(h2.send_request(right(&sim).request(&sim, true)).await).await.expect_err("half an answer");
        assert!(error.starts_with("after the head"), "{error}");
        let reply = read(h2.send_request(right(&sim).request(&sim, true)).await).await;
        assert_eq!(reply.expect("a stream broke, not the connection").status, 200);
        sim.change(|faults| faults.token = SimFault { close: Close::Announced, ..SimFault::default() });
        let reply = read(h2.send_request(right(&sim).request(&sim, true)).await).await;
        assert_eq!(reply.expect("the last answer").status, 200);
        until(|| h2.is_closed()).await;
    });
}

#[test]
fn a_fault_may_come_now_and_then_and_late() {
    run(async {
        let (sim, _) = start(Bank::Scb);
        let live = token(&sim).await;
        let fault = SimFault {
            every: Some(3),
            delay: Some(Duration::from_millis(1)),
            ..SimFault::new(ResponseFault::HtmlError(502))
        };
        sim.change(|faults| faults.resource = fault);
        let mut statuses = Vec::new();
        for _ in 0..7 {
            statuses.push(send(&sim, dressed(&sim, "GET", "/echo", &live)).await.status);
        }
        assert_eq!(statuses, [502, 200, 200, 502, 200, 200, 502]);
    });
}

#[test]
fn an_early_answer_does_not_wait_for_the_body() {
    run(async {
        let (sim, _) = start(Bank::Meed);
        sim.change(|faults| faults.resource = SimFault::new(ResponseFault::AnswerEarly(Verbatim::bare(401, &[]))));
        let mut tls = dial_h1(&sim).await;
        let head = "POST /api/partner/echo HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n12345";
        tls.write_all(head.as_bytes()).await.expect("sent");
        let mut answer = [0; 12];
        tls.read_exact(&mut answer).await.expect("an answer though the body is not done");
        assert_eq!(&answer, b"HTTP/1.1 401");
        assert_eq!(sim.received().len(), 0, "not whole yet");
        tls.write_all(b"67890").await.expect("sent");
        until(|| sim.received().len() == 1).await;
        let received = sim.received();
        assert_eq!((&received[0].body[..], received[0].aborted), (&b"1234567890"[..], false));
    });
}

#[test]
fn a_body_that_breaks_off_is_recorded_as_such() {
    run(async {
        let (sim, _) = start_with(Bank::Scb, SimOptions { record_wire: true, ..SimOptions::default() });
        let mut tls = dial_h1(&sim).await;
        let head = "POST /partners/sandbox/echo HTTP/1.1\r\nHost: a\r\nX-One: 1\r\nContent-Length: 10\r\n\r\n";
        tls.write_all(head.as_bytes()).await.expect("sent");
        tls.write_all(b"12345").await.expect("sent");
        until(|| sim.wire(1).len() == head.len() + 5).await;
        drop(tls);
        until(|| sim.received().len() == 1).await;
        let received = sim.received();
        assert!(received[0].aborted);
        assert_eq!((&received[0].body[..], received[0].body_length), (&b"12345"[..], 5));
        assert_eq!(received[0].body_sha256, sha256(b"12345"));
        assert_eq!(sim.wire(1), [head.as_bytes(), b"12345"].concat(), "byte for byte");
        assert_eq!(sim.payments().len(), 0);
    });
}

#[test]
fn connections_close_as_told() {
    run(async {
        let (sim, _) = start(Bank::Meed);
        let live = token(&sim).await;
        for (close, announced) in [(Close::Announced, true), (Close::Silent, false)] {
            sim.change(|faults| faults.resource.close = close);
            let mut connection = http1(&sim).await;
            let ask = dressed(&sim, "GET", "/echo", &live).request(&sim, false);
            let reply = read(connection.send_request(ask).await).await.expect("an answer");
            assert_eq!((reply.status, reply.header("connection") == "close"), (200, announced));
            until(|| connection.is_closed()).await;
        }
        sim.set(Faults::default());
        let mut connection = http1(&sim).await;
        let before = sim.connections();
        for _ in 0..3 {
            connection.ready().await.expect("kept alive");
            let ask = dressed(&sim, "GET", "/echo", &live).request(&sim, false);
            assert_eq!(read(connection.send_request(ask).await).await.expect("an answer").status, 200);
        }
        assert_eq!(sim.connections(), before, "one connection for all three");
    });
}

#[test]
fn answers_are_compressed_for_those_who_accept_it() {
    run(async {
        let (sim, _) = start(Bank::Scb);
        let live = token(&sim).await;
        sim.change(|faults| faults.resource.compress = true);
        for (accepted, coding) in [("gzip, deflate", "gzip"), ("deflate", "deflate"), ("gzip;q=0", ""), ("br", "")] {
            let reply = send(&sim, dressed(&sim, "GET", "/echo", &live).with("accept-encoding", accepted)).await;
            assert_eq!(reply.header("content-encoding"), coding, "{accepted}");
            let mut plain = String::new();
            let unpacked = match coding {
                "gzip" => std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&reply.body[..]), &mut plain),
                "deflate" => {
                    std::io::Read::read_to_string(&mut flate2::read::ZlibDecoder::new(&reply.body[..]), &mut plain)
                }
                _ => std::io::Read::read_to_string(&mut &reply.body[..], &mut plain),
            };
            assert!(unpacked.is_ok() && plain.contains("\"method\":\"GET\""), "{accepted}: {plain}");
        }
    });
}

#[test]
fn downloads_are_as_long_as_asked_for() {
    run(async {
        let (sim, _) = start(Bank::AbbeyCross);
        let live = token(&sim).await;
        for (query, length, announced) in
            [("bytes=0", 0, "0"), ("bytes=1000000", 1_000_000, "1000000"), ("bytes=70000&length=unknown", 70_000, "")]
        {
            let reply = send(&sim, dressed(&sim, "GET", &format!("/download?{query}"), &live)).await;
            assert_eq!((reply.status, reply.body.len(), reply.header("content-length")), (200, length, announced));
        }
        assert_eq!(send(&sim, dressed(&sim, "GET", "/download?bytes=x", &live)).await.status, 400);
    });
}

#[test]
fn a_thousand_calls_at_once_are_served() {
    run(async {
        let (sim, _) = start(Bank::Scb);
        let sim = Rc::new(sim);
        let live = Rc::new(token(&sim).await);
        let h2 = http2(&sim).await;
        let calls: Vec<_> = (0..1000)
            .map(|number| {
                let (sim, live, mut h2) = (sim.clone(), live.clone(), h2.clone());
                tokio::task::spawn_local(async move {
                    let ask = dressed(&sim, "POST", &format!("/payments/{number}"), &live);
                    read(h2.send_request(ask.request(&sim, true)).await).await.map(|reply| reply.status)
                })
            })
            .collect();
        for call in calls {
            assert_eq!(call.await.expect("no panic"), Ok(200));
        }
        assert_eq!((sim.payments().len(), sim.payments().values().sum::<u64>()), (1000, 1000));
        assert_eq!(sim.connections(), 2);
    });
}

// TLS.

#[test]
fn certificates_are_good_unless_asked_otherwise() {
    run(async {
        let now = Clock::System.now();
        let authority = SimAuthority::new("test CA", now).expect("a CA");
        let day = 24 * 3600 * 1000;
        let good = LeafSpec::server(now);
        let elsewhere = LeafSpec { names: vec!["bank.example".to_owned()], ..good.clone() };
        let expired = LeafSpec { valid_from: now.wall - 2 * day, valid_until: now.wall - day, ..good.clone() };
        let early = LeafSpec { valid_from: now.wall + day, ..good.clone() };
        let for_clients = LeafSpec { usage: countersign::sim::Usage::Client, ..good.clone() };
        for (what, leaf, accepted) in [
            ("good", &good, true),
            ("wrong name", &elsewhere, false),
            ("expired", &expired, false),
            ("not yet valid", &early, false),
            ("for clients", &for_clients, false),
        ] {
            let leaf = Some(authority.issue(leaf).expect("a leaf"));
            let options = SimOptions { authority: Some(authority.clone()), leaf, ..SimOptions::default() };
            let (sim, _) = start_with(Bank::Meed, options);
            for name in ["localhost", "127.0.0.1", "::1"] {
                let outcome = dial(&sim, tls(&sim, &[]), name).await;
                assert_eq!(outcome.is_ok(), accepted, "{what}, {name}");
            }
            until(|| sim.failed_handshakes() == if accepted { 0 } else { 3 }).await;
        }
        let (other, _) = start(Bank::Meed);
        let (sim, _) = start(Bank::Meed);
        dial(&sim, tls(&other, &[]), "localhost").await.expect_err("another CA");
    });
}

#[test]
fn a_client_certificate_can_be_required() {
    run(async {
        let now = Clock::System.now();
        let authority = SimAuthority::new("client CA", now).expect("a CA");
        let options = SimOptions { client_ca: Some(authority.pem()), only_http1: true, ..SimOptions::default() };
        let (sim, _) = start_with(Bank::Rakbank, options);
        let ca = sim.ca_pem();
        let first_byte = async |identity: Option<_>| {
            let identity = identity.map(ClientIdentity::Local);
            let config = client(ClientTls { ca: Some(ca.as_bytes()), identity, ..ClientTls::default() }).expect("TLS");
            let mut tls = dial(&sim, config, "localhost").await?;
            tls.write_all(b"GET /_sim/ HTTP/1.1\r\nhost: a\r\n\r\n").await?;
            tls.read_u8().await
        };
        first_byte(None).await.expect_err("nobody without a certificate");
        let leaf =
            |authority: &SimAuthority| authority.issue(&LeafSpec::client("erp", now)).expect("a leaf").identity();
        let stranger = SimAuthority::new("client CA", now).expect("a CA");
        first_byte(leaf(&stranger).ok()).await.expect_err("nobody with a stranger's");
        assert_eq!(first_byte(leaf(&authority).ok()).await.expect("served"), b'H');
    });
}

// The remote control.

#[test]
fn the_remote_control_shows_no_secret() {
    run(async {
        for bank in Bank::ALL {
            let (sim, _) = start(bank);
            let live = token(&sim).await;
            let reflected = dressed(&sim, "GET", &format!("/echo?t={live}"), &live).with("x-leak", &live);
            assert_eq!(send(&sim, reflected).await.status, 200);
            if bank == Bank::Rakbank {
                send(&sim, right(&sim).with("x-leak", &secret(&sim))).await;
            }
            let help = send(&sim, Ask::new("GET", "/_sim/")).await;
            assert!(
                help.header("content-type").starts_with("text/plain")
                    && help.body.starts_with(b"This is a simulated bank")
            );
            let shown = send(&sim, Ask::new("GET", "/_sim/received")).await;
            let text = String::from_utf8(shown.body.to_vec()).expect("text");
            assert!(!text.contains(&live) && !text.contains(&secret(&sim)), "{}: {text}", bank.name());
            assert!(text.contains(&format!("Bearer …{}", Fingerprint::of(live.as_bytes()))), "{text}");
            assert_eq!(
                send(&sim, Ask::new("POST", "/_sim/revoke")).await.json()["revoked"],
                json!(sim.tokens_issued())
            );
            assert_eq!(send(&sim, dressed(&sim, "GET", "/echo", &live)).await.status, 401);

            let faults = json!({ "token": { "trouble": "status", "status": 503, "headers": { "retry-after": "7" }, "times": 1 } });
            assert_eq!(send(&sim, Ask::new("POST", "/_sim/faults").json(&faults)).await.status, 200);
            let reply = send(&sim, right(&sim)).await;
            assert_eq!((reply.status, reply.header("retry-after")), (503, "7"));
            assert_eq!(send(&sim, right(&sim)).await.status, 200);
            let reply = send(&sim, Ask::new("POST", "/_sim/faults").json(&json!({ "tokn": {} }))).await;
            assert_eq!(reply.status, 400);
            assert!(String::from_utf8_lossy(&reply.body).contains("unknown field `tokn`"));
            assert_eq!(send(&sim, Ask::new("GET", "/_sim/nothing")).await.status, 404);
            assert!(!format!("{:?}", sim.received()).contains(&live));
        }
    });
}

#[test]
fn a_simulator_stops_when_dropped() {
    run(async {
        let (sim, _) = start(Bank::Scb);
        let address = sim.address();
        drop(sim);
        let error = TcpStream::connect(address).await.expect_err("nobody listens");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    });
}
