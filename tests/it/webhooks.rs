//! Webhooks: what a bank signed reaches the application, and nothing else does.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;

use bytes::Bytes;
use countersign::base::time::Clock;
use countersign::signing::algorithm::SigningAlgorithm;
use countersign::signing::encoding::TextEncoding;
use countersign::signing::jwe::{ContentEncryption, EncryptionKey, JweRecipe, KeyManagement, LibraryEntropy, encrypt};
use countersign::signing::jws::{JwsHeader, PayloadForm};
use countersign::signing::key::SigningKey;
use countersign::signing::pkcs;
use countersign::signing::shared_secret::SharedSecret;
use countersign::sim::{Bank, SimHandle};
use http::request::Parts;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpListener;
use zeroize::Zeroizing;

use crate::client::{PATIENCE, Whole, converse, get};
use crate::harness::{Harness, KEY, Plan, bank};

const SECRET: &str = "a-secret-for-webhooks";
const OURS: &[u8] = include_bytes!("../fixtures/signing/rsa-pkcs8.pem");
const BANKS: &[u8] = include_bytes!("../fixtures/signing/p256-sec1.pem");

const TEXT: &str = r#"
name = "calling"
extends = "oauth2"

[settings.webhook_secret]
secret = true

[[webhook.signature]]
key       = "webhook_secret"
algorithm = "HS256"
text      = "{method}:{path_and_query}:{header.x-time}:{body}"
header    = "x-signature"
encoding  = "hex"
time      = { header = "x-time", format = "epoch" }
max_age   = "2m"
"#;

/// An application behind countersign.
#[derive(Clone)]
struct App {
    address: SocketAddr,
    seen: Rc<RefCell<Vec<(Parts, Bytes)>>>,
    status: Rc<Cell<u16>>,
}

impl App {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("an address");
        let app = Self { address, seen: Rc::default(), status: Rc::new(Cell::new(202)) };
        let serving = app.clone();
        tokio::task::spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let app = serving.clone();
                let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                    let app = app.clone();
                    async move {
                        let (head, body) = request.into_parts();
                        let body = body.collect().await.expect("a whole body").to_bytes();
                        app.seen.borrow_mut().push((head, body));
                        let mut response = Response::new(Full::new(Bytes::from_static(b"{\"taken\":true}")));
                        *response.status_mut() = app.status.get().try_into().expect("a status");
                        response.headers_mut().insert("x-from", "app".parse().expect("a value"));
                        response.headers_mut().insert("keep-alive", "timeout=5".parse().expect("a value"));
                        Ok::<_, Infallible>(response)
                    }
                });
                tokio::task::spawn_local(async move {
                    // Whoever hangs up is not our concern.
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        app
    }

    fn calls(&self) -> usize {
        self.seen.borrow().len()
    }
}

fn stage(sim: &SimHandle, to: &str, profile: &str, settings: &str) -> Harness {
    let mut plan = Plan { workers: 1, ..Plan::default() };
    plan.files = plan.files.with_file("stage/ours.pem", OURS);
    plan.files = plan.files.with_file("stage/bank.jwks", include_str!("../fixtures/signing/bank.jwks"));
    let mut plan = plan.with_profile(sim, profile, settings, "");
    plan.config += &format!(
        "[[webhook]]\nname = \"bank-events\"\nlistener = \"gateway\"\npath = \"/hooks/bank\"\nprovider = \"bank\"\n\
         to = \"{to}\"\nbody_limit = \"4KiB\"\n"
    );
    plan.start()
}

fn now() -> u64 {
    Clock::System.now().unix_seconds()
}

fn mac(text: &str) -> String {
    let secret = SharedSecret::as_issued(Zeroizing::new(SECRET.as_bytes().to_vec())).expect("a secret");
    let made = SigningKey::Secret(secret).sign(SigningAlgorithm::Hs256, text.as_bytes()).expect("a code");
    made.text(TextEncoding::Hex)
}

fn call(method: &str, path: &str, fields: &[(&str, &str)], body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    let mut request = Request::builder().method(method).uri(path).header("host", "localhost");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(Full::new(body.into())).expect("a request")
}

/// A call as the bank makes it, so many seconds ago.
fn signed(path: &str, body: &str, age: u64) -> Request<Full<Bytes>> {
    let at = (now() - age).to_string();
    let code = mac(&format!("POST:{path}:{at}:{body}"));
    let fields = [("x-time", at.as_str()), ("x-signature", &code), ("content-type", "application/json")];
    call("POST", path, &fields, body.to_owned())
}

async fn metrics(stage: &Harness) -> String {
    String::from_utf8_lossy(&stage.admin("/metrics").await.body).into_owned()
}

fn assert_error(answer: &Whole, status: u16, name: &str) {
    assert_eq!((answer.status, answer.error().as_str()), (status, name), "{answer:?}");
    assert_eq!(answer.headers["content-type"], "application/problem+json");
}

#[test]
fn what_the_bank_signed_reaches_the_application_and_its_answer_goes_back() {
    converse(async {
        let (sim, app) = (bank(Bank::OAuth2), App::start().await);
        let to = format!("http://{}/bank-events?from=bank", app.address);
        let stage = stage(&sim, &to, TEXT, &format!("webhook_secret = \"{SECRET}\"\n"));
        let mut request = signed("/hooks/bank?id=7", "{\"event\":1}", 0);
        let headers = request.headers_mut();
        headers.insert("x-event", "payment.booked".parse().expect("a value"));
        headers.insert("countersign-webhook", "forged".parse().expect("a value"));
        headers.insert("connection", "x-hop".parse().expect("a value"));
        headers.insert("x-hop", "1".parse().expect("a value"));
        let answer = stage.client.send(request).await;
        assert_eq!((answer.status, &*answer.body), (202, &b"{\"taken\":true}"[..]), "{answer:?}");
        assert_eq!((answer.header("x-from"), answer.headers.get("keep-alive")), ("app", None));
        {
            let seen = app.seen.borrow();
            let [(head, body)] = seen.as_slice() else { panic!("one call: {seen:?}") };
            assert_eq!(
                (head.method.as_str(), head.uri.to_string()),
                ("POST", "/bank-events?from=bank&id=7".to_owned())
            );
            assert_eq!(&**body, b"{\"event\":1}");
            let values = |name: &str| -> Vec<_> {
                head.headers.get_all(name).iter().map(|value| value.to_str().expect("text").to_owned()).collect()
            };
            assert_eq!(values("x-event"), ["payment.booked"]);
            assert_eq!(values("countersign-webhook"), ["bank-events"], "the sender's own is taken off");
            assert_eq!(values("host"), [app.address.to_string()]);
            assert_eq!(values("x-hop"), Vec::<String>::new());
            assert_eq!(
                (values("content-length"), values("content-type")),
                (vec!["11".into()], vec!["application/json".into()])
            );
            assert_eq!(values("authorization"), Vec::<String>::new(), "no token is near it");
        }
        app.status.set(409);
        let answer = stage.client.send(signed("/hooks/bank", "{}", 0)).await;
        assert_eq!(answer.status, 409, "the application's own answer");
        let metrics = metrics(&stage).await;
        for (outcome, count) in [("delivered", 1), ("rejected", 1), ("unverified", 0), ("refused", 0)] {
            let line = format!("countersign_webhooks_total{{webhook=\"bank-events\",outcome=\"{outcome}\"}} {count}");
            assert!(metrics.contains(&line), "{line}\nin\n{metrics}");
        }
        assert_eq!(sim.resource_calls(), 0);
        let lines = stage.stop();
        let line = lines.iter().find(|line| line["http.response.status_code"] == 202).expect("a line");
        assert_eq!(
            (&line["http.route"], &line["countersign.provider"]),
            (&json!("bank-events"), &json!("bank")),
            "{line}"
        );
    });
}

#[test]
fn what_the_bank_did_not_sign_reaches_nobody() {
    converse(async {
        let (sim, app) = (bank(Bank::OAuth2), App::start().await);
        let to = format!("http://{}/bank-events", app.address);
        let stage = stage(&sim, &to, TEXT, &format!("webhook_secret = \"{SECRET}\"\n"));
        let good = |path: &str| signed(path, "{\"event\":1}", 0);
        let with = |name: &'static str, value: &str| {
            let mut request = good("/hooks/bank");
            request.headers_mut().insert(name, value.parse().expect("a value"));
            request
        };
        let without = |name: &str| {
            let mut request = good("/hooks/bank");
            request.headers_mut().remove(name);
            request
        };
        let other_path = {
            let mut request = good("/hooks/bank?id=8");
            *request.uri_mut() = "/hooks/bank?id=9".parse().expect("a target");
            request
        };
        let twice = {
            let mut request = good("/hooks/bank");
            let value = request.headers()["x-signature"].clone();
            request.headers_mut().append("x-signature", value);
            request
        };
        let refused = [
            ("unsigned", without("x-signature")),
            ("untimed", without("x-time")),
            ("another time", with("x-time", &(now() + 1).to_string())),
            ("another code", with("x-signature", &mac("another text"))),
            ("twice", twice),
            ("another query", other_path),
            (
                "another body",
                call("POST", "/hooks/bank", &[("x-time", &now().to_string()), ("x-signature", &mac(""))], "{}"),
            ),
            ("an old call", signed("/hooks/bank", "{}", 130)),
            ("a client's key", call("POST", "/hooks/bank", &[("authorization", &format!("Bearer {KEY}"))], "{}")),
        ];
        let count = refused.len();
        for (kind, request) in refused {
            let answer = stage.client.send(request).await;
            assert_eq!((answer.status, answer.error().as_str()), (403, "webhook-unverified"), "{kind}");
        }
        assert_eq!(app.calls(), 0);
        // Neither its path nor its listener lets anybody in without credentials.
        for path in ["/hooks/bank/", "/hooks/bank/x", "/hooks", "/hooks/%62ank", "/bank/payments/1"] {
            assert_error(&stage.client.send(good(path)).await, 401, "client-unidentified");
        }
        assert_error(&stage.client.send(get("/hooks/bank/x", KEY)).await, 404, "route-not-found");
        let answer = stage.client.send(get("/hooks/bank", KEY)).await;
        assert_error(&answer, 405, "malformed-request");
        assert_eq!(answer.headers["allow"], "POST");
        let large = signed("/hooks/bank", &"x".repeat(4097), 0);
        assert_error(&stage.client.send(large).await, 413, "malformed-request");
        assert_eq!((app.calls(), sim.resource_calls()), (0, 0));
        let metrics = metrics(&stage).await;
        for (outcome, count) in [("delivered", 0), ("unverified", count), ("refused", 2), ("undelivered", 0)] {
            let line = format!("countersign_webhooks_total{{webhook=\"bank-events\",outcome=\"{outcome}\"}} {count}");
            assert!(metrics.contains(&line), "{line}\nin\n{metrics}");
        }
    });
}

/// Whoever only calls the bank needs no key for its webhooks, and a webhook without one is no webhook.
#[test]
fn a_webhook_needs_its_keys_and_calls_do_not() {
    converse(async {
        let sim = bank(Bank::OAuth2);
        let profile = TEXT.replace("secret = true\n", "secret = true\noptional = true\n");
        let mut plan = Plan { workers: 1, ..Plan::default() }.with_profile(&sim, &profile, "", "");
        plan.config += "# the end\n";
        let stage = plan.start();
        stage.client.send(get("/bank/payments/1", KEY)).await;
        assert_eq!(sim.resource_calls(), 1);
        let hook = "[[webhook]]\nname = \"events\"\nlistener = \"gateway\"\npath = \"/hooks\"\nprovider = \"bank\"\n\
                    to = \"http://127.0.0.1:9/\"\n";
        stage.papers.edit(|text| text.replace("# the end\n", hook));
        let answer = stage.admin_post("/api/v1/reload", "").await;
        let told = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(answer.status != 200 && told.contains("verifies no webhooks"), "{told}");
    });
}

#[test]
fn an_application_that_is_not_there_is_told_to_the_bank_as_a_failure() {
    converse(async {
        let sim = bank(Bank::OAuth2);
        let unbound = TcpListener::bind("127.0.0.1:0").await.expect("bound").local_addr().expect("an address");
        let stage = stage(&sim, &format!("http://{unbound}"), TEXT, &format!("webhook_secret = \"{SECRET}\"\n"));
        assert_error(&stage.client.send(signed("/hooks/bank", "{}", 0)).await, 502, "webhook-undelivered");
        assert!(metrics(&stage).await.contains("{webhook=\"bank-events\",outcome=\"undelivered\"} 1"));
    });
}

#[test]
fn a_callback_listener_has_webhooks_and_nothing_else_and_a_reload_takes_them_away() {
    converse(async {
        let (sim, app) = (bank(Bank::OAuth2), App::start().await);
        let mut plan = Plan { workers: 1, ..Plan::default() };
        plan = plan.with_profile(&sim, TEXT, &format!("webhook_secret = \"{SECRET}\"\n"), "");
        let hook = format!(
            "[[webhook]]\nname = \"events\"\nlistener = \"public\"\npath = \"/bank\"\nprovider = \"bank\"\n\
             to = \"http://{}/\"\nmethods = [\"POST\", \"PUT\"]\n",
            app.address
        );
        plan.config += &format!(
            "[[listener]]\nname = \"public\"\nmode = \"callback\"\nbind = \"127.0.0.1:0\"\n\
             tls = {{ cert = \"server.crt\", key = \"server.key\" }}\n{hook}"
        );
        let stage = plan.start();
        let public = stage.client.at(stage.running.address("public").expect("a listener"));
        // The path of a route on another listener is no matter.
        assert_eq!(public.send(signed("/bank", "{}", 0)).await.status, 202);
        for path in ["/bank/payments/1", "/", "/.countersign/consent/bank/start"] {
            assert_eq!(public.send(signed(path, "{}", 0)).await.status, 404, "{path}");
        }
        assert_error(&stage.client.send(signed("/bank", "{}", 0)).await, 401, "client-unidentified");
        let answer = public.send(call("DELETE", "/bank", &[], "")).await;
        assert_eq!((answer.status, answer.header("allow")), (405, "POST, PUT"));
        stage.papers.edit(|text| text.replace(&hook, ""));
        assert_eq!(stage.admin_post("/api/v1/reload", "").await.status, 200);
        assert_eq!(public.send(signed("/bank", "{}", 0)).await.status, 404);
        assert_eq!(app.calls(), 1);
    });
}

/// A request with `Transfer-Encoding` and `Content-Length` may have another one hidden in it.
#[test]
fn a_chunked_call_is_the_last_one_of_its_connection() {
    converse(async {
        let (sim, app) = (bank(Bank::OAuth2), App::start().await);
        let stage = stage(&sim, &format!("http://{}/", app.address), TEXT, &format!("webhook_secret = \"{SECRET}\"\n"));
        let at = now().to_string();
        let code = mac(&format!("POST:/hooks/bank:{at}:{{}}"));
        let bytes = format!(
            "POST /hooks/bank HTTP/1.1\r\nhost: localhost\r\nx-time: {at}\r\nx-signature: {code}\r\n\
             transfer-encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\nGET /bank/x HTTP/1.1\r\nhost: localhost\r\n\r\n"
        );
        let answers = String::from_utf8_lossy(&stage.client.raw(bytes.as_bytes(), PATIENCE).await).into_owned();
        assert_eq!((answers.matches("HTTP/1.1 ").count(), app.calls()), (1, 1), "{answers}");
        assert!(answers.starts_with("HTTP/1.1 202"), "{answers}");
    });
}

const SEALED: &str = r#"
name = "sealed-calls"
extends = "oauth2"

[settings.opening_key]
kind = "key"
[settings.bank_key]
kind = "public-key"

[[webhook.jose]]
form       = "jwe"
key        = "opening_key"
algorithm  = "RSA-OAEP-256"
encryption = "A256GCM"

[[webhook.jose]]
form      = "jws"
key       = "bank_key"
algorithm = "ES256"
"#;

#[test]
fn a_sealed_call_reaches_the_application_opened() {
    converse(async {
        let (sim, app) = (bank(Bank::OAuth2), App::start().await);
        let settings = "opening_key = { file = \"ours.pem\", id = \"ours-1\" }\nbank_key = { jwks = \"bank.jwks\" }\n";
        let stage = stage(&sim, &format!("http://{}/events", app.address), SEALED, settings);
        let members = |value: serde_json::Value| value.as_object().expect("an object").clone();
        let bank = SigningKey::Private(pkcs::private_key(BANKS, None).expect("a key"));
        let header = JwsHeader::new(SigningAlgorithm::Es256, members(json!({"kid": "bank-1"}))).expect("a header");
        let unsigned = header.over(b"{\"event\":1}", PayloadForm::Attached).expect("a message");
        let signature = bank.sign(SigningAlgorithm::Es256, unsigned.input()).expect("a signature");
        let ours = pkcs::private_key(OURS, None).expect("a key");
        let recipe = JweRecipe { management: KeyManagement::RsaOaep256, encryption: ContentEncryption::A256Gcm };
        let sealed = |content: &str| {
            let key = EncryptionKey::Public(ours.public());
            encrypt(recipe, &members(json!({"kid": "ours-1"})), content.as_bytes(), key, &mut LibraryEntropy)
                .expect("a message")
        };
        let fields = [("content-type", "application/jose"), ("digest", "SHA-256=abc")];
        let good = sealed(&unsigned.complete(&signature).expect("a message"));
        let answer = stage.client.send(call("POST", "/hooks/bank", &fields, good)).await;
        assert_eq!(answer.status, 202, "{answer:?}");
        let answer = stage.client.send(call("POST", "/hooks/bank", &fields, sealed("{\"event\":2}"))).await;
        assert_error(&answer, 403, "webhook-unverified");
        let seen = app.seen.borrow();
        let [(head, body)] = seen.as_slice() else { panic!("one call: {seen:?}") };
        assert_eq!(
            (&**body, &head.headers["content-type"]),
            (&b"{\"event\":1}"[..], &"application/json".parse().expect("a value"))
        );
        assert_eq!(
            (head.headers.get("digest"), &head.headers["content-length"]),
            (None, &"11".parse().expect("a value"))
        );
    });
}
