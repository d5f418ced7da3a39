//! Calls in users' names, from the consent to the bank, over real sockets.

use std::net::SocketAddr;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use countersign::base::secret::ExposeSecret;
use countersign::config::InMemory;
use countersign::sim::{Bank, SimEndpoint, SimHandle};
use http_body_util::Full;
use serde_json::{Value, json};

use crate::client::{Client, Whole, converse, post, request};
use crate::harness::{Harness, KEY, OTHER_KEY, Plan, bank};

/// A proxy for SCB with users, its store in this folder.
pub fn start(sim: &SimHandle, folder: &Path, more: &str) -> Harness {
    start_with(sim, folder, more, InMemory::new())
}

/// The same, with files that `more` may point at.
pub fn start_with(sim: &SimHandle, folder: &Path, more: &str, files: InMemory) -> Harness {
    plan(sim, folder, more, files).start()
}

fn plan(sim: &SimHandle, folder: &Path, more: &str, files: InMemory) -> Plan {
    let consent = "[provider.scb.consent]\npublic_url = \"https://app.example\"\nreturn_to = [\"https://app.example/*\"]\n\
                   params = { endState = \"mobile_app\", response-channel = \"mobile\" }\n";
    let mut plan = Plan { files, ..Plan::default() }.with_two_clients().with(
        sim,
        "scb",
        consent,
        "clients = [\"erp\", \"treasury\"]\nas = \"user\"",
    );
    plan.clients = plan.clients.replace("[client.erp]", "[client.erp]\nusers = [\"*\"]");
    plan.clients = plan.clients.replace("[client.treasury]", "[client.treasury]\nusers = [\"alice\"]");
    plan.config += &format!(
        "[[listener]]\nname = \"callback\"\nmode = \"callback\"\nbind = \"127.0.0.1:0\"\n\
         tls = {{ cert = \"server.crt\", key = \"server.key\" }}\n\
         [store]\nurl = \"file:{}\"\nkeys = [\"{}\"]\n{more}",
        folder.join("users.redb").display(),
        STANDARD.encode([7; 32])
    );
    plan
}

pub async fn begin(client: &Client, key: &str, body: &Value) -> Whole {
    client.send(post("/.countersign/consent/scb/start", key, body.to_string())).await
}

/// The user agrees in the bank's app: the code.
pub fn agree(sim: &SimHandle, started: &Whole, user: &str) -> String {
    let url = started.json()["consent_url"].as_str().expect("a URL").to_owned();
    sim.consent(url.rsplit('/').next().expect("a login"), user).expect("a code")
}

pub async fn finish(client: &Client, key: &str, user: &str, started: &Whole, code: &str) -> Whole {
    let body = json!({ "user": user, "state": started.json()["state"], "code": code });
    client.send(post("/.countersign/consent/scb/code", key, body.to_string())).await
}

pub async fn call(client: &Client, key: &str, user: &str) -> Whole {
    client.send(request("GET", "/scb/echo/x", key, &[("countersign-user", user)], Bytes::new())).await
}

fn callback(stage: &Harness) -> (Client, SocketAddr) {
    let address = stage.running.address("callback").expect("a listener");
    (stage.client.at(address), address)
}

#[test]
fn a_user_consents_is_called_for_and_survives_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let sim = bank(Bank::Scb);
    let stage = start(&sim, folder.path(), "");
    converse(async {
        let client = &stage.client;
        let refused = call(client, KEY, "alice").await;
        assert_eq!((refused.status, refused.error().as_str()), (403, "consent-required"));
        let started = begin(client, KEY, &json!({ "user": "alice" })).await;
        assert_eq!(started.status, 200, "{started:?}");
        assert!(started.json()["state"].as_str().is_some_and(|state| state.len() >= 22), "{started:?}");
        let code = agree(&sim, &started, "alice");
        let done = finish(client, KEY, "alice", &started, &code).await;
        assert_eq!((done.status, &done.json()["consented"]), (200, &true.into()), "{done:?}");
        assert_eq!(call(client, KEY, "alice").await.status, 200);
        // Neither another client nor another user has any of it.
        assert_eq!(call(client, OTHER_KEY, "alice").await.error(), "consent-required");
        assert_eq!(call(client, OTHER_KEY, "bob").await.error(), "client-not-allowed");
        assert_eq!(call(client, KEY, "bob").await.error(), "consent-required");
        let nobody = client.send(request("GET", "/scb/echo/x", KEY, &[], Bytes::new())).await;
        assert_eq!((nobody.status, nobody.error().as_str()), (400, "malformed-request"));
    });
    let received = sim.received();
    let mine: Vec<_> = received
        .iter()
        .filter(|call| call.endpoint == SimEndpoint::Resource && call.path.ends_with("/echo/x"))
        .collect();
    assert_eq!(mine.len(), 1, "an application's token never went out in a user's stead");
    assert_eq!(mine[0].header("resourceownerid"), Some(sim.known_as("alice").as_str()));
    assert_eq!(mine[0].count("countersign-user"), 0);
    stage.stop();

    // A restart asks nobody, and a revoked token is renewed with the refresh token.
    let stage = start(&sim, folder.path(), "");
    converse(async {
        let calls = sim.token_calls();
        assert_eq!(call(&stage.client, KEY, "alice").await.status, 200);
        assert_eq!(sim.token_calls(), calls, "the token came from the store");
        sim.revoke_all();
        let answer = call(&stage.client, KEY, "alice").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(answer.header("proxy-status").contains("replayed"), "{answer:?}");
        // The user takes it back at the bank: nothing is tried for ever.
        sim.withdraw("alice");
        let refused = call(&stage.client, KEY, "alice").await;
        assert_eq!((refused.status, refused.error().as_str()), (403, "consent-required"));
        let calls = sim.token_calls();
        for _ in 0..20 {
            assert_eq!(call(&stage.client, KEY, "alice").await.error(), "consent-required");
        }
        assert_eq!(sim.token_calls(), calls, "no loop");
        // A new consent works at once.
        let started = begin(&stage.client, KEY, &json!({ "user": "alice" })).await;
        let code = agree(&sim, &started, "alice");
        assert_eq!(finish(&stage.client, KEY, "alice", &started, &code).await.status, 200);
        assert_eq!(call(&stage.client, KEY, "alice").await.status, 200);
    });
    stage.stop();
    assert_eq!(sim.violations(), Vec::<String>::new());
}

#[test]
fn a_state_works_once_for_its_own_user_and_client_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let sim = bank(Bank::Scb);
    let stage = start(&sim, folder.path(), "");
    converse(async {
        let client = &stage.client;
        for (body, expected) in [
            (json!({ "user": "" }), "malformed-request"),
            (json!({ "user": "a\u{7}b" }), "malformed-request"),
            (json!({ "user": "x".repeat(300) }), "malformed-request"),
            (json!({ "user": "alice", "return_to": "https://evil.example/" }), "malformed-request"),
            (json!({ "user": "alice", "what": 1 }), "malformed-request"),
            (json!({}), "malformed-request"),
        ] {
            assert_eq!(begin(client, KEY, &body).await.error(), expected, "{body}");
        }
        assert_eq!(begin(client, OTHER_KEY, &json!({ "user": "bob" })).await.error(), "client-not-allowed");
        assert_eq!(begin(client, "", &json!({ "user": "bob" })).await.error(), "client-unidentified");
        let unknown = client.send(post("/.countersign/consent/nobody/start", KEY, "{}")).await;
        assert_eq!(unknown.error(), "route-not-found");
        let read = client.send(request("GET", "/.countersign/consent/scb/start", KEY, &[], Bytes::new())).await;
        assert_eq!(read.status, 405);

        let started = begin(client, KEY, &json!({ "user": "alice" })).await;
        let code = agree(&sim, &started, "alice");
        // For another user, by another client: refused, and the state is used up.
        assert_eq!(finish(client, KEY, "bob", &started, &code).await.error(), "malformed-request");
        assert_eq!(finish(client, KEY, "alice", &started, &code).await.error(), "malformed-request");
        let started = begin(client, KEY, &json!({ "user": "alice" })).await;
        let code = agree(&sim, &started, "alice");
        assert_eq!(finish(client, OTHER_KEY, "alice", &started, &code).await.error(), "malformed-request");
        let forged = json!({ "user": "alice", "state": "A".repeat(43), "code": code });
        let forged = client.send(post("/.countersign/consent/scb/code", KEY, forged.to_string())).await;
        assert_eq!(forged.error(), "malformed-request");
        assert_eq!(sim.token_calls(), 0, "no code was sent");
        let started = begin(client, KEY, &json!({ "user": "alice" })).await;
        let code = agree(&sim, &started, "alice");
        assert_eq!(finish(client, KEY, "alice", &started, &code).await.status, 200);
        assert_eq!(finish(client, KEY, "alice", &started, &code).await.error(), "malformed-request", "once");
        assert_eq!(sim.token_calls(), 1);
    });
    assert_eq!(sim.violations(), Vec::<String>::new());
}

#[test]
fn a_browser_comes_back_and_is_sent_where_the_application_wants_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let sim = bank(Bank::Scb);
    sim.change(|faults| {
        faults.scb.callback_url = Some("https://app.example/.countersign/consent/scb/callback".to_owned());
    });
    let stage = start(&sim, folder.path(), "");
    converse(async {
        let (browser, _) = callback(&stage);
        let open = async |query: &str| {
            let path = format!("/.countersign/consent/scb/callback?{query}");
            let request = http::Request::get(path).header("host", "localhost").body(Full::<Bytes>::default());
            browser.send(request.expect("a request")).await
        };
        let returning = async |user: Option<&str>, return_to: Option<&str>| {
            let mut body = json!({ "user": "alice" });
            if let Some(url) = return_to {
                body["return_to"] = url.into();
            }
            let started = begin(&stage.client, KEY, &body).await;
            let url = started.json()["consent_url"].as_str().expect("a URL").to_owned();
            let back = sim.consent_callback(url.rsplit('/').next().expect("a login"), user).expect("a callback");
            back.split_once('?').expect("a query").1.to_owned()
        };
        let query = returning(Some("alice"), Some("https://app.example/done?x=1")).await;
        assert!(query.contains("cs_state="), "{query}");
        let answer = open(&query).await;
        assert_eq!((answer.status, answer.header("location")), (303, "https://app.example/done?x=1"), "{answer:?}");
        assert_eq!(answer.header("referrer-policy"), "no-referrer");
        assert_eq!(open(&query).await.status, 400, "a state works once");
        let answer = open(&returning(Some("alice"), None).await).await;
        assert_eq!((answer.status, answer.header("location")), (200, ""));
        assert_eq!(
            open(&returning(None, Some("https://app.example/done")).await).await.status,
            403,
            "the user declined"
        );
        for query in ["", "code=x", "cs_state=x&code=y", "cs_state=a&cs_state=b&code=c"] {
            assert_eq!(open(query).await.status, 400, "{query}");
        }
        assert_eq!(call(&stage.client, KEY, "alice").await.status, 200);
        // Nothing else is served there, and a HEAD uses nothing up.
        for (method, path) in [("GET", "/"), ("GET", "/scb/echo/x"), ("POST", "/.countersign/consent/scb/start")] {
            let answer = browser.send(request(method, path, KEY, &[], Bytes::new())).await;
            assert_eq!(answer.status, 404, "{method} {path}");
        }
        let head = format!("/.countersign/consent/scb/callback?{}", returning(Some("alice"), None).await);
        assert_eq!(browser.send(request("POST", &head, "", &[], Bytes::new())).await.status, 405);
    });
}

#[test]
fn an_operator_starts_lists_and_revokes_consents_at_the_command_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let sim = bank(Bank::Scb);
    let stage = start(&sim, folder.path(), "");
    let admin = format!("http://{}", stage.running.admin.expect("an admin listener"));
    let run = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_countersign"));
        let ended = command.arg("consent").args(arguments).args(["--admin", &admin]).output().expect("it runs");
        (
            ended.status.code(),
            String::from_utf8_lossy(&ended.stdout).into_owned() + &String::from_utf8_lossy(&ended.stderr),
        )
    };
    assert_eq!(run(&["list"]), (Some(0), "nobody has consented\n".to_owned()));
    let (code, told) = run(&["start", "scb", "alice", "--client", "erp", "--json"]);
    assert_eq!(code, Some(0), "{told}");
    let started: Value = serde_json::from_str(&told).expect("JSON");
    let login = started["consent_url"].as_str().and_then(|url| url.rsplit('/').next()).expect("a login");
    let code = sim.consent(login, "alice").expect("a code");
    converse(async {
        let body = json!({ "user": "alice", "state": started["state"], "code": code });
        let answer = stage.client.send(post("/.countersign/consent/scb/code", KEY, body.to_string())).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(call(&stage.client, KEY, "alice").await.status, 200);
    });
    let (_, listed) = run(&["list"]);
    assert!(listed.contains("scb       client erp  alice  live   "), "{listed}");
    assert_eq!(run(&["revoke", "scb", "alice", "--client", "erp"]).0, Some(0));
    assert_eq!(run(&["revoke", "scb", "alice", "--client", "erp"]).0, Some(1));
    let (code, told) = run(&["start", "scb", "alice", "--client", "nobody"]);
    assert!(code == Some(1) && told.contains("no client `nobody`"), "{told}");
    converse(async {
        assert_eq!(call(&stage.client, KEY, "alice").await.error(), "consent-required");
    });
    // A page in a browser gets nothing started.
    converse(async {
        let address = stage.running.admin.expect("an admin listener");
        let mut stream = tokio::net::TcpStream::connect(address).await.expect("connected");
        let body = r#"{"provider":"scb","client":"erp","user":"alice"}"#;
        let head = format!(
            "POST /api/v1/consents/start HTTP/1.1\r\nhost: {address}\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\
             connection: close\r\n\r\n{body}",
            body.len()
        );
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        stream.write_all(head.as_bytes()).await.expect("written");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("read");
        assert!(answer.starts_with("HTTP/1.1 415 "), "{answer}");
    });
}

#[test]
fn consents_that_wait_are_listed_until_their_users_agree() {
    let folder = tempfile::tempdir().expect("a folder");
    let sim = bank(Bank::Scb);
    let stage = start(&sim, folder.path(), "");
    let (alice, state) = converse(async {
        let pending = async || stage.admin("/api/v1/consents").await.json()["pending"].clone();
        assert_eq!(pending().await, json!([]));
        let alice = begin(&stage.client, KEY, &json!({ "user": "alice" })).await;
        let bob = begin(&stage.client, KEY, &json!({ "user": "bob" })).await;
        let waiting = pending().await;
        let users: Vec<&str> =
            waiting.as_array().expect("a list").iter().filter_map(|one| one["user"].as_str()).collect();
        assert_eq!(users, ["alice", "bob"], "{waiting}");
        let first = &waiting[0];
        assert_eq!(
            (&first["provider"], &first["client"], &first["owner_kind"], &first["expires_at"]),
            (&"scb".into(), &"erp".into(), &"client".into(), &alice.json()["expires_at"])
        );
        let page = stage.admin("/ui/consents").await.text();
        assert!(page.contains("Waiting for the user") && page.contains("bob"), "{page}");
        let state = bob.json()["state"].as_str().expect("a state").to_owned();
        assert!(!waiting.to_string().contains(&state) && !page.contains(&state), "a state finishes a consent");
        (alice, state)
    });
    drop(stage);
    // Another process with this store sees them, too.
    let stage = start(&sim, folder.path(), "");
    converse(async {
        let code = agree(&sim, &alice, "alice");
        assert_eq!(finish(&stage.client, KEY, "alice", &alice, &code).await.status, 200);
        let told = stage.admin("/api/v1/consents").await.json();
        assert_eq!((&told["pending"][0]["user"], &told["pending"][1]), (&"bob".into(), &Value::Null), "{told}");
        assert!(!told.to_string().contains(&state));
    });
}

/// The doors of consents belong to their listeners: `Host`, `names` and the name that TLS asked for count there as on routes.
#[test]
fn the_doors_of_consents_answer_to_their_listeners_names_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let sim = bank(Bank::Scb);
    let stage = start(&sim, folder.path(), "");
    converse(async {
        let start = "/.countersign/consent/scb/start";
        let with = |host: &'static str, mut request: http::Request<Full<Bytes>>| {
            request.headers_mut().insert("host", http::HeaderValue::from_static(host));
            request
        };
        let body = json!({ "user": "alice" }).to_string();
        for (host, status) in [("evil.example", 421), ("two hosts", 400), ("localhost", 200)] {
            let answer = stage.client.send(with(host, post(start, KEY, body.clone()))).await;
            assert_eq!(answer.status, status, "{host}");
        }
        let (browser, _) = callback(&stage);
        let back =
            |host| with(host, request("GET", "/.countersign/consent/scb/callback?cs_state=x", "", &[], Bytes::new()));
        assert_eq!(browser.send(back("evil.example")).await.status, 421);
        assert_ne!(browser.send(back("localhost")).await.status, 421);
        let other = tempfile::tempdir().expect("a folder");
        let named = start_named(&sim, other.path());
        let (browser, _) = callback(&named);
        let plain = named.client.asking_for("127.0.0.1");
        assert_eq!(
            plain.send(with("localhost", post(start, KEY, body.clone()))).await.status,
            421,
            "not among `names`"
        );
        assert_eq!(plain.send(with("gateway.corp", post(start, KEY, body.clone()))).await.status, 200);
        assert_eq!(browser.asking_for("127.0.0.1").send(back("localhost")).await.status, 421);
        assert_ne!(browser.asking_for("127.0.0.1").send(back("app.example")).await.status, 421);
    });
}

/// The same proxy, whose listeners answer to names of their own.
fn start_named(sim: &SimHandle, folder: &Path) -> Harness {
    let mut plan = plan(sim, folder, "", InMemory::new());
    plan.listener += "names = [\"gateway.corp\"]\n";
    plan.config = plan.config.replace("mode = \"callback\"\n", "mode = \"callback\"\nnames = [\"app.example\"]\n");
    plan.start()
}

/// The bank changes the application's secret between a consent and its end, and once more before the token is renewed.
#[test]
fn codes_and_refresh_tokens_are_brought_with_the_credentials_that_the_bank_accepts() {
    let folder = tempfile::tempdir().expect("a folder");
    let sim = bank(Bank::Scb);
    let first = sim.credentials().secret().expose_secret().to_owned();
    let second = "the-second-secret-of-users-0123456";
    let mut plan = plan(&sim, folder.path(), "", InMemory::new());
    plan.config = plan.config.replace(
        "[provider.scb.consent]",
        &format!("next = {{ application_secret = \"{second}\" }}\n[provider.scb.consent]"),
    );
    let stage = plan.start();
    converse(async {
        let client = &stage.client;
        sim.rotate_secrets(&[&first, second]);
        let started = begin(client, KEY, &json!({ "user": "alice" })).await;
        assert_eq!(started.status, 200, "{started:?}");
        let code = agree(&sim, &started, "alice");
        sim.rotate_secrets(&[second]);
        let done = finish(client, KEY, "alice", &started, &code).await;
        assert_eq!((done.status, &done.json()["consented"]), (200, &true.into()), "{done:?}");
        assert_eq!(call(client, KEY, "alice").await.status, 200);
        sim.rotate_secrets(&[&first]);
        sim.revoke_all();
        let renewed = call(client, KEY, "alice").await;
        assert_eq!(renewed.status, 200, "{renewed:?}");
        let told = stage.admin("/api/v1/providers").await.json();
        assert_eq!(told["providers"][0]["credentials"], "current", "it went there and back");
    });
    assert_eq!(sim.violations(), Vec::<String>::new());
}
