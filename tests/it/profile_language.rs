//! Profiles of one's own, end to end: static credentials, logins in steps, values that are made for each call, fields in
//! queries and bodies, refusals by a code.

use std::time::Duration;

use bytes::Bytes;
use countersign::sim::{Bank, SimHandle};
use http::{Response, StatusCode};
use rustls::version::TLS13;
use tokio::time::Instant;

use crate::client::{Whole, converse, get, request};
use crate::harness::{Harness, KEY, Plan, bank};
use crate::raw_server::{Call, RawServer, Seen, read};

/// A response: its status, its fields, its body.
type Reply = (u16, Vec<(&'static str, &'static str)>, String);

/// A bank that keeps every request and answers as told.
async fn server(sim: &SimHandle, reply: impl Fn(&Seen) -> Reply + Clone + 'static) -> RawServer {
    let play = move |(tls, number, book): Call| {
        let reply = reply.clone();
        async move {
            let Ok(mut connection) = h2::server::handshake(tls).await else { return };
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                let (book, reply) = (book.clone(), reply.clone());
                tokio::task::spawn_local(async move {
                    let seen = read(number, request).await;
                    let (status, fields, body) = reply(&seen);
                    book.seen.borrow_mut().push(seen);
                    let mut response = Response::new(());
                    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
                    for (name, value) in fields {
                        response.headers_mut().append(name, value.parse().expect("a value"));
                    }
                    response
                        .headers_mut()
                        .entry("content-type")
                        .or_insert("application/json".parse().expect("a value"));
                    if let Ok(mut sending) = respond.send_response(response, false) {
                        let _ = sending.send_data(Bytes::from(body), true);
                    }
                });
            }
        }
    };
    RawServer::start(sim, &[b"h2"], &[&TLS13], play).await
}

fn stage(sim: &SimHandle, server: &RawServer, profile: &str, settings: &str) -> Harness {
    let mut plan = Plan::default();
    let files = plan.files.with_file("stage/ca.crt", sim.ca_pem().into_bytes());
    plan.files = files.with_file("stage/own.toml", profile.as_bytes().to_vec());
    plan.config = format!(
        "[provider.bank]\nprofile = \"own.toml\"\nbase_url = \"https://{}\"\n{settings}\n\
         [provider.bank.tls]\nca = \"ca.crt\"\n\
         [[route]]\nname = \"bank\"\npath = \"/bank\"\nprovider = \"bank\"\nreplay_limit = \"1KiB\"\n",
        server.address
    );
    plan.start()
}

async fn send(stage: &Harness, kind: &str, body: &str) -> Whole {
    stage.client.send(request("POST", "/bank/pay", KEY, &[("content-type", kind)], body.to_owned())).await
}

fn ok(_: &Seen) -> Reply {
    (200, Vec::new(), "{}".to_owned())
}

const STATIC: &str = r#"
name = "static"
[settings.api_key]
secret = true
[request]
inject = [
  { header = "x-api-key", value = "{api_key}" },
  { query = "key", value = "{api_key}" },
  { cookie = "key", value = "{api_key}" },
]
"#;

#[test]
fn a_static_credential_goes_on_every_call_and_a_new_one_with_the_next() {
    converse(async {
        let sim = bank(Bank::OAuth2);
        let reply = |seen: &Seen| {
            let status = if seen.uri.path() == "/denied" { 401 } else { 200 };
            (status, Vec::new(), format!("{{\"you\":{:?}}}", seen.headers["x-api-key"].to_str().expect("text")))
        };
        let server = server(&sim, reply).await;
        let stage = stage(&sim, &server, STATIC, "api_key = \"the-first-key\"");
        let forged = [("x_api_key", "forged"), ("cookie", "a=b; KEY=forged")];
        let answer = stage.client.send(request("GET", "/bank/a?KEY=forged&b=%2F", KEY, &forged, "")).await;
        assert_eq!((answer.status, answer.json()["you"].as_str()), (200, Some("*************")), "masked");
        assert_eq!(stage.client.send(get("/bank/denied", KEY)).await.status, 401);
        stage.papers.edit(|config| config.replace("the-first-key", "the-second-key"));
        let reloaded = stage.admin_post("/api/v1/reload", "").await;
        assert_eq!(reloaded.status, 200, "{}", reloaded.error());
        assert_eq!(stage.client.send(get("/bank/b", KEY)).await.status, 200);
        let tokens = stage.admin("/api/v1/tokens").await;
        assert!(!String::from_utf8_lossy(&tokens.body).contains("\"bank\""), "no token is known of it");
        let seen = server.book.seen.borrow();
        let told: Vec<(&str, &str, &str)> = seen
            .iter()
            .map(|seen| {
                let text = |name: &str| seen.headers[name].to_str().expect("text");
                (seen.uri.path_and_query().expect("a path").as_str(), text("x-api-key"), text("cookie"))
            })
            .collect();
        assert_eq!(
            told,
            [
                ("/a?b=%2F&key=the-first-key", "the-first-key", "a=b; key=the-first-key"),
                ("/denied?key=the-first-key", "the-first-key", "key=the-first-key"),
                ("/b?key=the-second-key", "the-second-key", "key=the-second-key"),
            ]
        );
        drop(seen);
        let lines = format!("{:?}", stage.stop());
        assert!(!lines.contains("the-first-key") && !lines.contains("the-second-key"), "{lines}");
    });
}

const STEPS: &str = r#"
name = "hops"
[settings.password]
secret = true
[ids.payment]
kind = "numeric"
length = 18
fresh = "call"
[times.stamp]
format = "epoch-ms"
[[token.steps]]
method = "GET"
path = "/challenge"
encoding = "none"
captures = { challenge = "/challenge", node = { cookie = "NODE" } }
[token.request]
path = "/login?version=2"
encoding = "form"
headers = { x-node = "{step.node}" }
body = { challenge = "{step.challenge}", password = "{password}" }
[token.response]
access_token = "/access_token"
[request]
inject = [
  { query = "access_token", value = "{token}" },
  { header = "idempotency-key", value = "{id.payment}" },
  { body = "/auth/pin", value = "{password}" },
  { body = "/auth/at", value = "{time.stamp}" },
]
[[refusal.match]]
status = 200
json = [{ pointer = "/code", equals = "DEAD" }]
confirmed = true
"#;

fn login(seen: &Seen) -> Option<Reply> {
    match seen.uri.path() {
        "/challenge" => Some((200, vec![("set-cookie", "NODE=n7; Path=/")], "{\"challenge\":\"c-1\"}".to_owned())),
        "/login" => {
            let right = seen.headers.get("x-node").is_some_and(|node| node == "n7")
                && seen.uri.query() == Some("version=2")
                && seen.body == b"challenge=c-1&password=s3cr3t-s3cr3t";
            Some((if right { 200 } else { 403 }, Vec::new(), "{\"access_token\":\"token-1234\"}".to_owned()))
        }
        _ => None,
    }
}

#[test]
fn a_login_in_steps_leads_to_calls_whose_replay_is_the_same_payment() {
    converse(async {
        let sim = bank(Bank::OAuth2);
        let refused = std::rc::Rc::new(std::cell::Cell::new(false));
        let reply = move |seen: &Seen| {
            login(seen).unwrap_or_else(|| match refused.replace(true) {
                false => (200, Vec::new(), "{\"code\":\"DEAD\"}".to_owned()),
                true => ok(seen),
            })
        };
        let server = server(&sim, reply).await;
        let stage = stage(&sim, &server, STEPS, "password = \"s3cr3t-s3cr3t\"");
        let body = "{\"amount\":100.10,\"auth\":{\"PIN\":\"forged\"}}";
        assert_eq!(send(&stage, "application/json", body).await.status, 200);
        assert_eq!(send(&stage, "application/json", "[]").await.status, 400);
        assert_eq!(send(&stage, "text/plain", "hello").await.status, 400);
        assert_eq!(send(&stage, "application/json", &format!("{{\"a\":\"{}\"}}", "x".repeat(2000))).await.status, 413);
        let seen = server.book.seen.borrow();
        let calls: Vec<&Seen> = seen.iter().filter(|seen| seen.uri.path() == "/pay").collect();
        let [first, second] = calls.as_slice() else { panic!("a call and its replay, not {calls:?}") };
        assert_eq!(first.headers["idempotency-key"], second.headers["idempotency-key"]);
        assert_eq!(first.headers["idempotency-key"].len(), 18);
        let mut times = Vec::new();
        for call in calls {
            assert_eq!(call.uri.query(), Some("access_token=token-1234"));
            assert_eq!(call.headers["content-length"].to_str().expect("text"), call.body.len().to_string());
            let text = String::from_utf8(call.body.clone()).expect("text");
            assert!(text.starts_with("{\"amount\":100.10,\"auth\":{\"pin\":\"s3cr3t-s3cr3t\",\"at\":\""), "{text}");
            times.push(text);
        }
        drop(seen);
        let lines = format!("{:?}", stage.stop());
        assert!(!lines.contains("token-1234") && !lines.contains("s3cr3t"), "{lines}");
    });
}

#[test]
fn the_steps_of_a_login_share_the_time_of_one_token_call() {
    converse(async {
        let sim = bank(Bank::OAuth2);
        let play = |(tls, number, book): Call| async move {
            let Ok(mut connection) = h2::server::handshake(tls).await else { return };
            while let Some(Ok((request, respond))) = connection.accept().await {
                let book = book.clone();
                tokio::task::spawn_local(async move {
                    let seen = read(number, request).await;
                    tokio::time::sleep(Duration::from_millis(700)).await;
                    let text = login(&seen).map_or_else(String::new, |(_, _, body)| body);
                    book.seen.borrow_mut().push(seen);
                    crate::raw_server::respond(respond, &text);
                });
            }
        };
        let server = RawServer::start(&sim, &[b"h2"], &[&TLS13], play).await;
        let steps = STEPS.replace(", node = { cookie = \"NODE\" }", "").replace("{step.node}", "n7");
        let settings = "password = \"s3cr3t-s3cr3t\"\ntimeouts = { token = \"1s\" }";
        let stage = stage(&sim, &server, &steps, settings);
        let begun = Instant::now();
        assert_eq!(stage.client.send(get("/bank/a", KEY)).await.status, 503);
        assert!(begun.elapsed() < Duration::from_millis(1390), "{:?}", begun.elapsed());
        assert!(server.book.seen.borrow().iter().all(|seen| seen.uri.path() != "/a"));
    });
}
