//! The admin listener, over real sockets: who comes in, what he may do, what web pages may not, and what he is told.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use countersign::admin::TABLE;
use countersign::base::secret::ExposeSecret;
use countersign::base::time::{Clock, rfc3339};
use countersign::config::Role;
use countersign::sim::{Bank, Faults, ResponseFault, SimFault};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;

use crate::client::{PATIENCE, Whole, converse, get, post};
use crate::harness::{Harness, KEY, Plan, bank};

const EYES: &str = "eyes-of-an-operator-e2e";
const HANDS: &str = "hands-of-an-operator-e2e";

/// A door that can be reached from elsewhere.
fn exposed() -> Plan {
    let admin = format!(
        "bind = \"0.0.0.0:0\"\ntls = {{ cert = \"server.crt\", key = \"server.key\" }}\nopen = [\"livez\"]\n\
         [admin.token.eyes]\nvalue = \"{EYES}\"\nrole = \"read\"\n[admin.token.hands]\nvalue = \"{HANDS}\"\nrole = \"operate\""
    );
    Plan { admin, ..Plan::default() }
}

/// How the door is reached.
struct Way<'a> {
    stage: &'a Harness,
    tls: bool,
}

impl Way<'_> {
    fn address(&self) -> SocketAddr {
        let address = self.stage.running.admin.expect("an admin listener");
        SocketAddr::from(([127, 0, 0, 1], address.port()))
    }

    async fn sender(&self) -> http1::SendRequest<Full<Bytes>> {
        if self.tls {
            return self.stage.client.at(self.address()).http1().await;
        }
        let stream = tokio::net::TcpStream::connect(self.address()).await.expect("connected");
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
        tokio::task::spawn_local(async move { drop(connection.await) });
        sender
    }

    /// The head of an answer; its body is yet to be read.
    async fn begin(&self, method: &str, path: &str, fields: &[(&str, &str)], body: &str) -> Response<Incoming> {
        let mut request = Request::builder().method(method).uri(path);
        if !fields.iter().any(|(name, _)| *name == "host") {
            request = request.header("host", self.address().to_string());
        }
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::from(body.to_owned()))).expect("a request");
        self.sender().await.send_request(request).await.expect("an answer")
    }

    async fn ask(&self, method: &str, path: &str, fields: &[(&str, &str)]) -> Whole {
        self.send(method, path, fields, "").await
    }

    /// The whole answer; of a stream only its head.
    async fn send(&self, method: &str, path: &str, fields: &[(&str, &str)], body: &str) -> Whole {
        let response = self.begin(method, path, fields, body).await;
        if response.headers().get("content-type").is_some_and(|kind| kind == "text/event-stream") {
            let (head, _) = response.into_parts();
            return Whole { status: head.status.as_u16(), headers: head.headers, body: Bytes::new() };
        }
        Whole::read(response).await.expect("a whole answer")
    }

    async fn json(&self, path: &str, token: &str) -> Value {
        let bearer = format!("Bearer {token}");
        let fields = [("authorization", bearer.as_str())];
        let answer = self.ask("GET", path, if token.is_empty() { &[] } else { &fields }).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.json()
    }
}

fn local(stage: &Harness) -> Way<'_> {
    Way { stage, tls: false }
}

fn remote(stage: &Harness) -> Way<'_> {
    Way { stage, tls: true }
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

/// The key of the one token.
async fn key(way: &Way<'_>, token: &str) -> String {
    let tokens = way.json("/api/v1/tokens", token).await;
    tokens["tokens"][0]["key"].as_str().expect("a token").to_owned()
}

/// The requests that are kept, once there are so many: workers hand over a few times a second.
async fn kept(way: &Way<'_>, token: &str, requests: usize) -> Value {
    tokio::time::timeout(PATIENCE, async {
        loop {
            let kept = way.json("/api/v1/requests", token).await;
            if kept["requests"].as_array().expect("a list").len() >= requests {
                return kept;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("requests are kept")
}

/// The id of the newest request.
fn newest(kept: &Value) -> &str {
    kept["requests"][0]["request_id"].as_str().expect("an id")
}

#[test]
fn each_path_takes_the_role_that_the_table_says() {
    let sim = bank(Bank::Scb);
    let stage = exposed().with(&sim, "scb", "", "").start();
    converse(async {
        assert_eq!(stage.client.send(get("/scb/echo/x", KEY)).await.status, 200);
        let way = remote(&stage);
        let (key, kept) = (key(&way, EYES).await, kept(&way, EYES, 1).await);
        for line in TABLE {
            let path = line.path.replace("{key}", &key).replace("{id}", newest(&kept));
            let place = format!("{} {path}", line.method);
            let nobody = way.ask(line.method, &path, &[]).await;
            if line.path == "/livez" {
                assert_eq!(nobody.status, 200, "{place} is open");
                continue;
            }
            assert_eq!(nobody.status, 401, "{place}: {nobody:?}");
            assert_eq!(nobody.header("www-authenticate"), "Bearer realm=\"countersign\"", "{place}");
            let wrong = way.ask(line.method, &path, &[("authorization", "Bearer wrong")]).await;
            assert!(matches!(wrong.status, 401 | 429), "{place}: {wrong:?}");
            let (eyes, hands) = (bearer(EYES), bearer(HANDS));
            let looks = way.ask(line.method, &path, &[("authorization", &eyes)]).await.status;
            let refused = line.role == Role::Operate;
            assert_eq!(looks == 403, refused, "{place} with a token that reads: {looks}");
            assert!(refused || looks < 400, "{place}: {looks}");
            let acts = way.ask(line.method, &path, &[("authorization", &hands)]).await.status;
            // The bodies that some take are not there.
            assert!(acts < 300 || acts == 415 || (acts == 404 && path.contains(&key)), "{place}: {acts}");
        }
        // Wrong ones are slowed down, right ones never.
        let mut statuses = BTreeSet::new();
        for _ in 0..8 {
            let answer = way.ask("GET", "/api/v1/status", &[("authorization", "Bearer wrong")]).await;
            if answer.status == 429 {
                assert!(!answer.header("retry-after").is_empty());
            }
            statuses.insert(answer.status);
        }
        assert!(statuses.contains(&429), "{statuses:?}");
        assert_eq!(way.ask("GET", "/api/v1/status", &[("authorization", &bearer(EYES))]).await.status, 200);
    });
}

#[test]
fn every_other_method_and_path_is_refused() {
    let stage = Plan::default().start();
    converse(async {
        let way = local(&stage);
        for path in TABLE.iter().map(|line| line.path).collect::<BTreeSet<_>>() {
            let known: Vec<&str> = TABLE.iter().filter(|line| line.path == path).map(|line| line.method).collect();
            for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"] {
                if known.contains(&method) || (method == "HEAD" && known.contains(&"GET")) {
                    continue;
                }
                let answer = way.ask(method, &path.replace("{key}", "00").replace("{id}", "00"), &[]).await;
                assert_eq!(answer.status, 405, "{method} {path}");
                let allowed: Vec<&str> = answer.header("allow").split(", ").filter(|m| *m != "HEAD").collect();
                assert_eq!(allowed, known, "{method} {path}");
            }
        }
        for path in ["/nowhere", "/api", "/api/v1", "/api/v2/status", "/livez/", "//livez", "/livez/..", "/LIVEZ"] {
            assert_eq!(way.ask("GET", path, &[]).await.status, 404, "{path}");
        }
        assert_eq!(way.ask("HEAD", "/livez", &[]).await.status, 200);
        for path in ["/livez?verbose", "/readyz?verbose=1"] {
            let told = way.ask("GET", path, &[]).await;
            assert!(String::from_utf8_lossy(&told.body).ends_with("z check passed\n"), "{told:?}");
        }
    });
}

#[test]
fn a_page_of_another_site_gets_nothing_done() {
    let sim = bank(Bank::Scb);
    let stage = Plan::default().with(&sim, "scb", "", "").start();
    converse(async {
        assert_eq!(stage.client.send(get("/scb/echo/x", KEY)).await.status, 200);
        let way = local(&stage);
        let (key, before) =
            (key(&way, "").await, way.json("/api/v1/tokens", "").await["tokens"][0]["generation"].clone());
        let own = format!("http://{}", way.address());
        let port = way.address().port();
        for line in TABLE {
            let path = line.path.replace("{key}", &key).replace("{id}", "00");
            let place = format!("{} {path}", line.method);
            for host in
                ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "10.0.0.1", "[::2]", "0.0.0.0"]
            {
                let host = format!("{host}:{port}");
                assert_eq!(way.ask(line.method, &path, &[("host", &host)]).await.status, 421, "{place} as {host}");
            }
            for origin in [
                "null",
                "http://evil.example",
                &format!("http://localhost:{}", port ^ 1),
                &own.replace("http", "https"),
            ] {
                let answer = way.ask(line.method, &path, &[("origin", origin)]).await;
                assert_eq!(answer.status, 403, "{place} from {origin}");
            }
            for site in ["cross-site", "same-site"] {
                let fields = [("sec-fetch-site", site), ("origin", own.as_str())];
                assert_eq!(way.ask(line.method, &path, &fields).await.status, 403, "{place} from {site}");
                // A link may be followed; a form may not be sent.
                let visit = [("sec-fetch-site", site), ("sec-fetch-mode", "navigate")];
                let visited = way.ask(line.method, &path, &visit).await.status;
                assert_eq!(visited == 403, line.method != "GET", "{place} from {site}: {visited}");
            }
            if line.method == "POST" {
                for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""] {
                    let answer = way.send(line.method, &path, &[("content-type", kind)], "{}").await;
                    assert_eq!(answer.status, 415, "{place} as {kind}");
                }
            }
        }
        let tokens = way.json("/api/v1/tokens", "").await;
        assert_eq!(tokens["tokens"][0]["generation"], before, "nothing was done");
        assert_eq!(way.json("/api/v1/status", "").await["last_reload"]["by"], "start");
        // Our own page may.
        let fields = [("origin", own.as_str()), ("sec-fetch-site", "same-origin")];
        assert_eq!(way.ask("POST", &format!("/api/v1/tokens/{key}/refresh"), &fields).await.status, 202);
    });
}

#[test]
fn a_token_is_renewed_and_forgotten_at_an_operators_word() {
    let sim = bank(Bank::Scb);
    let stage = Plan::default().with(&sim, "scb", "", "").start();
    converse(async {
        let way = local(&stage);
        assert_eq!(way.ask("POST", "/api/v1/tokens/0011223344556677/refresh", &[]).await.status, 404);
        assert_eq!(stage.client.send(get("/scb/echo/x", KEY)).await.status, 200);
        let key = key(&way, "").await;
        let answer = way.ask("POST", &format!("/api/v1/tokens/{key}/refresh"), &[]).await;
        assert_eq!((answer.status, answer.json()["key"].as_str()), (202, Some(&*key)));
        let newer = loop {
            let token = way.json("/api/v1/tokens", "").await["tokens"][0].clone();
            if token["generation"] == 2 {
                break token;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        assert_eq!((newer["state"].as_str(), newer["fetches"]["ok"].as_u64()), (Some("live"), Some(2)));
        let answer = way.ask("DELETE", &format!("/api/v1/tokens/{key}"), &[]).await;
        assert_eq!((answer.status, answer.json()["purged"].as_bool()), (200, Some(true)));
        let empty = way.json("/api/v1/tokens", "").await["tokens"][0].clone();
        assert_eq!((empty["state"].as_str(), empty.get("fingerprint")), (Some("empty"), None), "{empty}");
        assert_eq!(stage.client.send(get("/scb/echo/x", KEY)).await.status, 200);
        assert_eq!(way.json("/api/v1/tokens", "").await["tokens"][0]["fetches"]["ok"], 3);
    });
}

#[test]
fn what_is_told_of_routes_and_providers_is_so() {
    let sim = bank(Bank::Scb);
    let stage = Plan::default().with(&sim, "scb", "", "methods = [\"GET\"]\nenforce = false").start();
    converse(async {
        let way = local(&stage);
        assert_eq!(way.json("/api/v1/providers", "").await["providers"][0]["state"], "idle");
        for _ in 0..3 {
            assert_eq!(stage.client.send(get("/scb/echo/x", KEY)).await.status, 200);
        }
        let routes = way.json("/api/v1/routes", "").await;
        let route = &routes["routes"][0];
        assert_eq!((&route["path"], &route["mode"]), (&"/scb".into(), &"observe".into()));
        assert_eq!((&route["methods"][0], &route["listeners"][0]), (&"GET".into(), &"gateway".into()));
        assert_eq!((route["open_to_everyone"].as_bool(), &route["clients"]), (Some(true), &serde_json::json!([])));
        assert_eq!((&route["requests"]["2xx"], &route["requests"]["5xx"]), (&3.into(), &0.into()));
        let provider = way.json("/api/v1/providers", "").await["providers"][0].clone();
        assert_eq!((&provider["state"], &provider["live_tokens"]), (&"live".into(), &1.into()));
        // What fails is told with its reason and its rest.
        sim.set(Faults { token: SimFault::new(ResponseFault::HtmlError(500)), ..Faults::default() });
        let key = key(&way, "").await;
        way.ask("DELETE", &format!("/api/v1/tokens/{key}"), &[]).await;
        assert_eq!(stage.client.send(get("/scb/echo/x", KEY)).await.status, 503);
        let provider = way.json("/api/v1/providers", "").await["providers"][0].clone();
        assert_eq!((&provider["state"], &provider["last_failure"]["class"]), (&"resting".into(), &"transient".into()));
        assert!(provider["rests_until"].as_str().is_some_and(|at| at.starts_with("20")), "{provider}");
        // The dashboard's first page has it, by name.
        let page = String::from_utf8(stage.admin("/").await.body.to_vec()).expect("text");
        let wrong =
            page.split("id=\"h-wrong\"").nth(1).and_then(|rest| rest.split("</section>").next()).expect("a section");
        assert!(wrong.contains("<strong>scb</strong>") && wrong.contains("asked again "), "{wrong}");
        let runbook = "/ui/runbooks/alert-CountersignTokenFetchesFail";
        assert!(wrong.contains(runbook), "{wrong}");
        let told = way.ask("GET", runbook, &[]).await;
        assert_eq!(told.status, 200);
        assert!(told.text().contains("<h1>CountersignTokenFetchesFail</h1>"), "{}", told.text());
        assert_eq!(way.ask("GET", "/ui/runbooks/nothing", &[]).await.status, 404);
        assert!(wrong.contains("; since ") && provider["failing_since"].is_string(), "{wrong}");
        // A reload ends its rest, and brings no token.
        stage.papers.edit(|config| format!("# another text\n{config}"));
        assert_eq!(way.ask("POST", "/api/v1/reload", &[]).await.status, 200);
        let provider = way.json("/api/v1/providers", "").await["providers"][0].clone();
        assert_eq!(provider["state"], "resting", "{provider}");
        assert_eq!(way.json("/api/v1/routes", "").await["routes"][0]["requests"]["5xx"], 1);
        let status = way.json("/api/v1/status", "").await;
        assert_eq!((&status["listeners"][0]["mode"], &status["store"]["kind"]), (&"reverse".into(), &"memory".into()));
        assert_eq!(status["listeners"][0]["address"], stage.address.to_string());
        assert_eq!((&status["counts"]["live_tokens"], &status["counts"]["clients"]), (&0.into(), &1.into()));
        assert!(status["certificates"][0]["days_left"].as_i64().is_some_and(|days| days >= 0), "{status}");
    });
}

#[test]
fn a_reload_changes_who_may_come_in() {
    let sim = bank(Bank::Scb);
    let stage = exposed().with(&sim, "scb", "", "").start();
    converse(async {
        let way = remote(&stage);
        let hands = bearer(HANDS);
        let hands = [("authorization", hands.as_str())];
        let eyes = bearer(EYES);
        let mut watching = way.begin("GET", "/api/v1/events", &[("authorization", &eyes)], "").await;
        assert_eq!(watching.status(), 200);
        stage.papers.edit(|config| config.replace(EYES, "other-eyes-of-an-operator"));
        let answer = way.ask("POST", "/api/v1/reload", &hands).await;
        assert_eq!((answer.status, answer.json()["by"].as_str()), (200, Some("admin:hands")), "{answer:?}");
        assert!(answer.json()["changes"].as_array().is_some_and(|changes| !changes.is_empty()), "{answer:?}");
        assert_eq!(way.ask("GET", "/api/v1/status", &[("authorization", &eyes)]).await.status, 401);
        way.json("/api/v1/status", "other-eyes-of-an-operator").await;
        // Whoever watched with it hears of the reload, and no more.
        let heard = tokio::time::timeout(PATIENCE, watching.body_mut().collect()).await;
        let heard = heard.expect("the stream ends").expect("whole").to_bytes();
        assert!(String::from_utf8_lossy(&heard).contains("event: reload\n"), "{heard:?}");
        // A bad one changes nothing, and says what is wrong.
        let digest = way.json("/api/v1/status", HANDS).await["config_digest"].clone();
        stage.papers.edit(|config| config.replace("role = \"operate\"", "role = \"rule\""));
        let answer = way.ask("POST", "/api/v1/reload", &hands).await;
        assert_eq!((answer.status, answer.header("content-type")), (422, "application/problem+json"));
        let detail = answer.json()["detail"].as_str().unwrap_or_default().to_owned();
        assert!(detail.contains("`role` cannot be `rule`") && !detail.contains(HANDS), "{detail}");
        let status = way.json("/api/v1/status", HANDS).await;
        assert_eq!((&status["last_reload"]["outcome"], &status["config_digest"]), (&"refused".into(), &digest));
        assert!(status["last_reload"]["error"].as_str().is_some_and(|error| error.contains("rule")));
        let metrics = way.ask("GET", "/metrics", &hands).await;
        let metrics = String::from_utf8_lossy(&metrics.body).into_owned();
        assert!(metrics.contains("countersign_config_last_reload_successful 0"), "{metrics}");
        // Nor may a config without tokens open a door that can be reached from elsewhere.
        stage.papers.edit(|config| {
            let (before, rest) = config.split_once("[admin]").expect("an [admin]");
            let (_, after) = rest.split_once("[runtime]").expect("a [runtime]");
            format!("{before}[admin]\nbind = \"127.0.0.1:0\"\n[runtime]{after}")
        });
        let answer = way.ask("POST", "/api/v1/reload", &hands).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let mut stream = tokio::net::TcpStream::connect(way.address()).await.expect("connected");
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let _ = stream.write_all(b"GET /api/v1/tokens HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("it is closed");
        assert_eq!(answer, b"", "nobody is served in the clear");
    });
}

/// Reads a stream until it has told all of these kinds, and returns the data of the last event of each.
async fn heard(stream: &mut Response<Incoming>, kinds: &[&str]) -> BTreeMap<String, Value> {
    let mut text = String::new();
    let reading = async {
        loop {
            let told: BTreeMap<String, Value> = text
                .split("\n\n")
                .filter_map(|event| {
                    let kind = event.lines().find_map(|line| line.strip_prefix("event: "))?;
                    let data = event.lines().find_map(|line| line.strip_prefix("data: "))?;
                    Some((kind.to_owned(), serde_json::from_str(data).ok()?))
                })
                .collect();
            if kinds.iter().all(|kind| told.contains_key(*kind)) {
                return told;
            }
            let frame = stream.body_mut().frame().await.expect("the stream goes on").expect("readable");
            text += &String::from_utf8_lossy(&frame.into_data().unwrap_or_default());
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.unwrap_or_else(|_| panic!("not all of {kinds:?} were told"))
}

#[test]
fn events_are_told_as_they_happen() {
    let sim = bank(Bank::Scb);
    let stage = Plan::default().with(&sim, "scb", "", "").start();
    converse(async {
        let way = local(&stage);
        let mut stream = way.begin("GET", "/api/v1/events", &[], "").await;
        assert_eq!(stream.headers()["content-type"], "text/event-stream");
        assert_eq!(stage.client.send(get("/scb/echo/x", KEY)).await.status, 200);
        let told = heard(&mut stream, &["token-fetched"]).await;
        let fetched = &told["token-fetched"];
        assert_eq!((&fetched["provider"], &fetched["generation"]), (&"scb".into(), &1.into()), "{told:?}");
        let token = way.json("/api/v1/tokens", "").await["tokens"][0].clone();
        assert_eq!((&fetched["key"], &fetched["fingerprint"]), (&token["key"], &token["fingerprint"]));
        // A refused token is replaced, and the request sent again.
        sim.revoke_all();
        assert_eq!(stage.client.send(post("/scb/echo/x", KEY, "{}")).await.status, 200);
        let told = heard(&mut stream, &["token-refused", "replay", "token-fetched"]).await;
        assert_eq!((&told["token-refused"]["generation"], &told["replay"]["generation"]), (&1.into(), &1.into()));
        assert_eq!(told["token-fetched"]["generation"], 2);
        // A valid one is renewed.
        let key = token["key"].as_str().expect("a key");
        way.ask("POST", &format!("/api/v1/tokens/{key}/refresh"), &[]).await;
        assert_eq!(heard(&mut stream, &["token-renewed"]).await["token-renewed"]["generation"], 3);
        // Failures with their class.
        sim.set(Faults { token: SimFault::new(ResponseFault::HtmlError(500)), ..Faults::default() });
        way.ask("POST", &format!("/api/v1/tokens/{key}/refresh"), &[]).await;
        assert_eq!(heard(&mut stream, &["token-failed"]).await["token-failed"]["outcome"], "transient");
        stage.papers.edit(|config| format!("{config}\n# changed\n"));
        assert_eq!(way.ask("POST", "/api/v1/reload", &[]).await.status, 200);
        let told = heard(&mut stream, &["reload"]).await;
        assert_eq!((&told["reload"]["by"], &told["reload"]["outcome"]), (&"admin".into(), &"applied".into()));
    });
}

#[test]
fn as_many_streams_as_there_are_places() {
    let stage = Plan::default().start();
    converse(async {
        let way = local(&stage);
        let mut streams = Vec::new();
        for _ in 0..16 {
            streams.push(way.begin("GET", "/api/v1/events", &[], "").await);
        }
        assert!(streams.iter().all(|stream| stream.status() == 200));
        assert_eq!(way.ask("GET", "/api/v1/events", &[]).await.status, 503);
        streams.clear();
        while way.ask("GET", "/api/v1/events", &[]).await.status != 200 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
}

// ── the document ─────────────────────────────────────────────────────────────────────────────────────────────────────

/// Members that no answer of [`the_document_says_what_is_answered`] has.
const UNSEEN: [&str; 55] = [
    "Consent.access_expires_at",
    "Consent.consented_at",
    "Consent.owner",
    "Consent.owner_kind",
    "Consent.provider",
    "Consent.refresh_expires_at",
    "Consent.state",
    "Consent.user",
    "Event.client",
    "Event.service",
    "Failure.cause",
    "Failure.cure",
    "KeyService.failed",
    "KeyService.reason",
    "KeyService.service",
    "KeyService.signed",
    "KeyService.since",
    "KeyService.state",
    "PendingConsent.client",
    "PendingConsent.expires_at",
    "PendingConsent.owner",
    "PendingConsent.owner_kind",
    "PendingConsent.provider",
    "PendingConsent.started_at",
    "PendingConsent.user",
    "Provider.client_certificate_days_left",
    "Provider.client_certificate_expires_at",
    "Provider.closed_until",
    "Provider.credentials",
    "Provider.shadow",
    "Request.countersign.reason",
    "Request.countersign.replay",
    "Request.countersign.tolerated",
    "Request.span_id",
    "Request.trace_id",
    "RequestDetail.countersign.reason",
    "RequestDetail.countersign.replay",
    "RequestDetail.countersign.tolerated",
    "RequestDetail.span_id",
    "RequestDetail.trace_id",
    "SecretSource.failing",
    "SecretSource.kind",
    "SecretSource.name",
    "SecretSource.reason",
    "SecretSource.secrets",
    "SecretSource.since",
    "Shadow.compared",
    "Shadow.differing",
    "Shadow.parts",
    "Shadow.profile",
    "Shadow.unseen",
    "ShadowPart.count",
    "ShadowPart.part",
    "Store.error",
    "Token.superseded",
];

/// Holds an answer against a schema. Notes which members were there.
fn fits(document: &Value, schema: &Value, value: &Value, at: &str, seen: &mut BTreeSet<String>) {
    if let Some(name) = schema["$ref"].as_str() {
        let name = name.trim_start_matches("#/components/schemas/");
        return fits(document, &document["components"]["schemas"][name], value, name, seen);
    }
    if let Some(words) = schema["enum"].as_array() {
        assert!(words.contains(value), "{at}: {value} is none of {words:?}");
    }
    match schema["type"].as_str() {
        Some("object") => {
            let Some(properties) = schema["properties"].as_object() else { return };
            let members = value.as_object().unwrap_or_else(|| panic!("{at}: {value} is no object"));
            for (name, member) in members {
                let schema = properties.get(name).unwrap_or_else(|| panic!("{at}.{name} is not in the document"));
                seen.insert(format!("{at}.{name}"));
                fits(document, schema, member, &format!("{at}.{name}"), seen);
            }
            for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                assert!(members.contains_key(name), "{at}.{name} is not in {value}");
            }
        }
        Some("array") => {
            let items = value.as_array().unwrap_or_else(|| panic!("{at}: {value} is no array"));
            items.iter().for_each(|item| fits(document, &schema["items"], item, at, seen));
        }
        Some("string") => {
            assert!(value.is_string(), "{at}: {value}");
            let is_moment = value.as_str().is_some_and(|text| text.len() == 24 && text.ends_with('Z'));
            assert!(schema["format"] != "date-time" || is_moment, "{at}: {value}");
        }
        Some("number") => assert!(value.is_number(), "{at}: {value}"),
        Some("integer") => assert!(value.is_i64() || value.is_u64(), "{at}: {value}"),
        Some("boolean") => assert!(value.is_boolean(), "{at}: {value}"),
        other => panic!("{at}: what is {other:?}?"),
    }
}

#[test]
fn the_document_says_what_is_answered() {
    let sim = bank(Bank::Scb);
    let route = "vars = { who = { header = \"x-who\" } }\nhost = \"localhost\"";
    // It is open now, and closes within a year.
    let holiday = rfc3339(Clock::System.now().wall + 100 * 86_400_000);
    let hours = format!(
        "hours = {{ zone = \"UTC\", open = [\"daily 00:00-24:00\"], holidays = [\"{}\"] }}",
        holiday.get(..10).expect("a day")
    );
    let folder = tempfile::tempdir().expect("a folder");
    let audit = format!("[audit]\nto = \"{}\"\n", folder.path().join("audit.log").display());
    let plan = Plan { config: audit, ..Plan::default() };
    let stage = plan.with(&sim, "scb", &hours, "").with(&sim, "other", "", route).start();
    converse(async {
        let way = local(&stage);
        let document = way.json("/api/v1/openapi.json", "").await;
        assert_eq!(document["openapi"], "3.1.0");
        // The same paths, methods and roles.
        let told: BTreeSet<(String, String, String)> = document["paths"]
            .as_object()
            .expect("paths")
            .iter()
            .flat_map(|(path, methods)| {
                let methods = methods.as_object().expect("methods");
                methods.iter().map(move |(method, operation)| {
                    let role = operation["x-role"].as_str().expect("a role").to_owned();
                    (path.clone(), method.to_uppercase(), role)
                })
            })
            .collect();
        let is: BTreeSet<_> =
            TABLE.iter().map(|l| (l.path.to_owned(), l.method.to_owned(), l.role.as_str().to_owned())).collect();
        assert_eq!(told, is);
        // The same members.
        let mut seen = BTreeSet::new();
        let judge = |method: &str, path: &str, answer: &Whole, seen: &mut BTreeSet<String>| {
            let operation = &document["paths"][path][method.to_lowercase()];
            let responses = &operation["responses"];
            let response = responses.get(answer.status.to_string()).unwrap_or(&responses["default"]);
            let kind = answer.header("content-type").split(';').next().unwrap_or_default().to_owned();
            let schema = &response["content"][&kind]["schema"];
            assert!(schema.is_object(), "{method} {path} answers {} with {kind}", answer.status);
            if kind.ends_with("json") {
                fits(&document, schema, &answer.json(), path, seen);
            }
        };
        let mut stream = way.begin("GET", "/api/v1/events", &[], "").await;
        assert_eq!(stage.client.send(get("/scb/echo/x", KEY)).await.status, 200);
        sim.set(Faults { token: SimFault::new(ResponseFault::HtmlError(500)), ..Faults::default() });
        assert_eq!(stage.client.send(get("/other/echo/x", KEY)).await.status, 400);
        let call = crate::client::request(
            "GET",
            "/other/echo/x",
            KEY,
            &[("x-who", "me"), ("user-agent", "erp/1")],
            Bytes::new(),
        );
        assert_eq!(stage.client.send(call).await.status, 503);
        stage.papers.edit(|config| format!("{config}\n[log]\nlevel = \"loud\"\n"));
        let asked = way.send("POST", "/api/v1/log-level", &[JSON], r#"{ "level": "debug" }"#).await;
        judge("POST", "/api/v1/log-level", &asked, &mut seen);
        let kept = kept(&way, "", 3).await;
        for line in TABLE.iter().filter(|line| line.method == "GET") {
            for request in kept["requests"].as_array().expect("a list") {
                let id = request["request_id"].as_str().expect("an id");
                let answer = way.ask(line.method, &line.path.replace("{id}", id), &[]).await;
                assert_eq!(answer.status, 200, "{}", line.path);
                judge("GET", line.path, &answer, &mut seen);
                if !line.path.contains("{id}") {
                    break;
                }
            }
        }
        let refused = way.ask("GET", "/api/v1/requests?status=x", &[]).await;
        assert_eq!(refused.status, 400);
        judge("GET", "/api/v1/requests", &refused, &mut seen);
        let key = key(&way, "").await;
        for (method, path) in
            [("POST", "/api/v1/tokens/{key}/refresh"), ("DELETE", "/api/v1/tokens/{key}"), ("POST", "/api/v1/reload")]
        {
            let answer = way.ask(method, &path.replace("{key}", &key), &[]).await;
            judge(method, path, &answer, &mut seen);
        }
        let refused = way.json("/api/v1/status", "").await;
        fits(&document, &serde_json::json!({ "$ref": "#/components/schemas/Status" }), &refused, "", &mut seen);
        let events = heard(&mut stream, &["token-fetched", "token-failed", "reload"]).await;
        for event in events.values() {
            fits(&document, &serde_json::json!({ "$ref": "#/components/schemas/Event" }), event, "", &mut seen);
        }
        // And none that there are not; requests aside.
        let schemas = document["components"]["schemas"].as_object().expect("schemas");
        let asked = ["ConsentRevoke", "ConsentRevoked", "ConsentStart", "ConsentStarted", "LogLevelSet"];
        let all: BTreeSet<String> = schemas
            .iter()
            .filter(|(name, _)| !asked.contains(&name.as_str()))
            .flat_map(|(name, schema)| {
                let members = schema["properties"].as_object().expect("members");
                members.keys().map(move |member| format!("{name}.{member}"))
            })
            .collect();
        let unseen: Vec<&String> = all.difference(&seen).collect();
        assert_eq!(unseen, UNSEEN, "these are in the document, and in no answer");
    });
}

// ── the config in force, the log level, many tokens ─────────────────────────────────────────────────────────────────

const JSON: (&str, &str) = ("content-type", "application/json");
const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

#[test]
fn the_config_in_force_is_shown_without_its_secrets() {
    let sim = bank(Bank::Scb);
    let stage = exposed().with(&sim, "scb", "", "headers = { x-key = \"canary-header-7Qd3\" }").start();
    stage.papers.put("proxy.toml", "");
    converse(async {
        let way = remote(&stage);
        let (eyes, hands) = (bearer(EYES), bearer(HANDS));
        assert_eq!(way.ask("GET", "/api/v1/config", &[("authorization", &eyes)]).await.status, 403);
        let config = way.json("/api/v1/config", HANDS).await;
        let sections = config["sections"].as_array().expect("sections");
        let named = |name: &str| sections.iter().find(|section| section["name"] == name).expect("a section");
        let text = |name: &str| named(name)["text"].as_str().expect("a text").to_owned();
        assert_eq!(named("[provider.scb]")["file"], "stage/proxy.toml");
        assert!(text("[provider.scb]").contains("application_secret = \"***\""), "{config:#}");
        assert!(text("[admin]").contains("[admin.token.eyes]\nvalue = \"***\"\nrole = \"read\""), "{config:#}");
        assert!(text("[[route]] scb").contains("headers = { x-key = \"***\" }"), "{config:#}");
        assert!(text("[client.erp]").contains("key_sha256 = [\""), "hashes stay: {config:#}");
        let kinds: Vec<(&str, bool)> = config["files"]
            .as_array()
            .expect("files")
            .iter()
            .map(|file| {
                (file["kind"].as_str().expect("a kind"), file["path"].as_str().expect("a path").starts_with('/'))
            })
            .collect();
        assert!(kinds.iter().all(|(_, absolute)| *absolute) && kinds[0].0 == "config", "{kinds:?}");
        assert!(kinds.iter().any(|(kind, _)| *kind == "credential"), "{kinds:?}");
        // The last reload's differences.
        stage.papers.edit(|config| config.replace("x-key = \"canary-header-7Qd3\"", "x-key = \"canary-other-8Rf4\""));
        assert_eq!(way.ask("POST", "/api/v1/reload", &[("authorization", &hands)]).await.status, 200);
        let config = way.json("/api/v1/config", HANDS).await;
        assert_eq!(config["last_reload"]["changes"], serde_json::json!(["changed route `scb`"]));
        let page = way.ask("GET", "/ui/config", &[("authorization", &hands)]).await.text();
        assert!(page.contains("changed route `scb`") && page.contains("[provider.scb]"), "{page}");
        let looks = way.ask("GET", "/ui/config", &[("authorization", &eyes)]).await.text();
        assert!(looks.contains("changed route `scb`") && !looks.contains("[provider.scb]"), "{looks}");
        let secret = sim.credentials().secret().expose_secret().to_owned();
        for canary in [secret.as_str(), EYES, HANDS, "canary-header-7Qd3", "canary-other-8Rf4"] {
            assert!(![config.to_string(), page.clone()].concat().contains(canary), "{canary} is shown");
        }
    });
}

#[test]
fn the_log_level_changes_for_a_while() {
    let stage = Plan::default().start();
    converse(async {
        let way = local(&stage);
        let level = async || way.json("/api/v1/log-level", "").await;
        assert_eq!(level().await, serde_json::json!({ "level": "info", "configured": "info" }));
        for wrong in ["", "{}", r#"{"level":"h2=trace"}"#, r#"{"level":"debug","for":"2h"}"#] {
            let refused = way.send("POST", "/api/v1/log-level", &[JSON], wrong).await;
            assert_eq!(refused.status, 400, "{wrong}: {refused:?}");
        }
        let set = async |body: &str| way.send("POST", "/api/v1/log-level", &[JSON], body).await;
        let told = set(r#"{"level":"debug","for":"10m"}"#).await.json();
        assert_eq!(
            (&told["level"], &told["configured"], &told["by"]),
            (&"debug".into(), &"info".into(), &"admin".into())
        );
        let status = way.json("/api/v1/status", "").await;
        assert_eq!(status["log_level"]["until"], told["until"]);
        // A reload does not end it, and is in force after it.
        stage.papers.edit(|config| format!("{config}\n[log]\nlevel = \"warn\"\n"));
        assert_eq!(way.ask("POST", "/api/v1/reload", &[]).await.status, 200);
        assert_eq!(
            (level().await["level"].clone(), level().await["configured"].clone()),
            ("debug".into(), "warn".into())
        );
        // It ends early, and by itself.
        let ended = way.ask("DELETE", "/api/v1/log-level", &[]).await.json();
        assert_eq!(ended, serde_json::json!({ "level": "warn", "configured": "warn" }));
        assert_eq!(set(r#"{"level":"trace","for":"1s"}"#).await.json()["level"], "trace");
        while level().await["level"] != "warn" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // The form: with the page's own word, and from here alone.
        let page = way.ask("GET", "/ui/config", &[]).await.text();
        let (_, rest) = page.split_once("name=\"csrf\" value=\"").expect("a form");
        let form = format!("csrf={}&level=debug&for=5m", rest.split('"').next().expect("a word"));
        assert_eq!(way.send("POST", "/ui/log-level", &[FORM], "level=debug&for=5m").await.status, 403);
        let foreign = [FORM, ("origin", "http://evil.example")];
        assert_eq!(way.send("POST", "/ui/log-level", &foreign, &form).await.status, 403);
        assert_eq!(level().await["level"], "warn");
        let done = way.send("POST", "/ui/log-level", &[FORM], &form).await;
        assert_eq!((done.status, done.header("location")), (303, "/ui/config?done=level"));
        assert_eq!(level().await["level"], "debug");
        let done = way.send("POST", "/ui/log-level", &[FORM], &format!("{form}&restore=yes")).await;
        assert_eq!((done.status, level().await["level"].clone()), (303, "warn".into()));
    });
}

#[test]
fn the_page_of_tokens_is_bounded_and_finds_each() {
    let sim = bank(Bank::Rakbank);
    let accounts = "oauth_metadata = { account_id = { var = \"account\" } }";
    let stage = Plan::default().with(&sim, "rak", accounts, "vars = { account = { header = \"x-account\" } }").start();
    converse(async {
        for account in 0..120 {
            let account = format!("01880000{account:05}");
            let path = format!("/rak/v1/accounts/{account}/transfers");
            let headers = [("x-account", account.as_str()), JSON];
            let body = format!("{{\"transaction_id\":\"T-{account}\",\"amount\":\"5.00\",\"currency\":\"AED\"}}");
            let call = crate::client::request("POST", &path, KEY, &headers, body);
            assert_eq!(stage.client.send(call).await.status, 200);
        }
        let way = local(&stage);
        let page = async |query: &str| way.ask("GET", &format!("/ui/tokens{query}"), &[]).await.text();
        let rows = |page: &str| page.matches("class=\"token\"").count();
        let first = page("").await;
        assert!(rows(&first) == 50 && first.contains("1 to 50 of 120"), "{first}");
        assert!(first.contains("href=\"/ui/tokens?p=2\"") && !first.contains(">Previous<"), "{first}");
        let last = page("?p=99").await;
        assert!(rows(&last) == 20 && last.contains("101 to 120 of 120") && !last.contains(">Next<"), "{last}");
        let found = page("?q=0188000000042").await;
        assert!(rows(&found) == 1 && found.contains("0188000000042") && found.contains("route=rak"), "{found}");
        assert_eq!(rows(&page("?q=nothing").await), 0);
        // The API has pages, too; who does not ask for one gets all.
        let listed = async |query: &str| {
            let list = way.json(&format!("/api/v1/tokens{query}"), "").await;
            let keys = list["tokens"].as_array().expect("a list").iter();
            let keys: Vec<String> = keys.map(|token| token["key"].as_str().expect("a key").to_owned()).collect();
            (keys, list["matching"].as_u64(), list["total"].as_u64())
        };
        let (all, ..) = listed("").await;
        assert!(all.len() == 120 && all.is_sorted());
        let (first, matching, total) = listed("?limit=70").await;
        assert_eq!((first.len(), matching, total), (70, Some(120), Some(120)));
        let (second, ..) = listed("?limit=70&page=2").await;
        let mut both = [first, second].concat();
        both.sort();
        assert_eq!(both, all, "two pages have each token once");
        assert_eq!(listed("?limit=70&page=3").await.0.len(), 0);
        let (found, matching, total) = listed("?q=0188000000042").await;
        assert_eq!((found.len(), matching, total), (1, Some(1), Some(120)));
        for query in ["?limit=0", "?limit=1001", "?page=0", "?page=x", "?provider=rak"] {
            let answer = way.ask("GET", &format!("/api/v1/tokens{query}"), &[]).await;
            assert_eq!(answer.status, 400, "{query}");
        }
    });
}

#[test]
fn requests_are_listed_and_one_by_one_with_their_cause() {
    let sim = bank(Bank::Scb);
    let stage = Plan::default().with_two_clients().with(&sim, "scb", "", "clients = [\"erp\"]").start();
    converse(async {
        let way = local(&stage);
        assert_eq!(stage.client.send(get("/scb/echo/1?secret=1", KEY)).await.status, 200);
        assert_eq!(stage.client.send(get("/scb/echo/2", crate::harness::OTHER_KEY)).await.status, 403);
        let lost = stage.client.send(get("/nowhere", KEY)).await;
        assert_eq!(lost.status, 404);
        let all = kept(&way, "", 3).await;
        assert_eq!((&all["matching"], &all["kept"], &all["total"]), (&3.into(), &3.into(), &3.into()));
        let statuses = |list: &Value| {
            let requests = list["requests"].as_array().expect("a list").iter();
            requests.map(|request| request["http.response.status_code"].as_u64().expect("a status")).collect::<Vec<_>>()
        };
        for (query, found) in [
            ("", &[404, 403, 200][..]),
            ("?only=errors", &[404, 403]),
            ("?fault=operator", &[403]),
            ("?client=erp&status=2xx", &[200]),
            ("?route=scb", &[403, 200]),
            ("?q=get+nowhere", &[404]),
            ("?minutes=1&limit=1", &[404]),
            ("?until=2020-01-01T00:00:00Z", &[]),
        ] {
            assert_eq!(statuses(&way.json(&format!("/api/v1/requests{query}"), "").await), found, "{query}");
        }
        // The same members as the access line has.
        let lines = stage.log.lines();
        for request in all["requests"].as_array().expect("a list") {
            let line = lines.iter().find(|line| line["request_id"] == request["request_id"]).expect("its line");
            for (name, value) in request.as_object().expect("an object") {
                assert!(
                    name == "countersign.fault" || name.ends_with("_ms") || line[name] == *value,
                    "{name}: {value}"
                );
            }
        }
        // One, by the id that its caller has.
        let id = lost.json()["instance"].as_str().expect("an id").to_owned();
        for id in [&*id, id.trim_start_matches("urn:uuid:"), &id.replace(':', "%3A")] {
            let one = way.json(&format!("/api/v1/requests/{id}"), "").await;
            assert_eq!((&one["error.type"], &one["countersign.fault"]), (&"route-not-found".into(), &"client".into()));
            assert_eq!(one["runbook"], "docs/runbooks/route-not-found.md");
            assert_eq!(one["explain"], "countersign explain --client erp --listener gateway /nowhere");
        }
        let refused = all["requests"][1]["request_id"].as_str().expect("an id").to_owned();
        let one = way.json(&format!("/api/v1/requests/{refused}"), "").await;
        assert_eq!(one["cause"][0], "The route is not open to this client: see its `clients`.");
        for (path, status) in [
            ("/api/v1/requests/00000000-0000-4000-8000-000000000000", 404),
            ("/api/v1/requests/%ff", 404),
            ("/api/v1/requests?stauts=404", 400),
            ("/api/v1/requests?limit=0", 400),
            (&*format!("/api/v1/requests?q={}", "x".repeat(10_000)), 400),
            (&*format!("/api/v1/requests?{}", "&=%ff".repeat(2_000)), 400),
        ] {
            let answer = way.ask("GET", path, &[]).await;
            assert!(answer.status == status && answer.body.len() < 1000, "{}: {answer:?}", &path[..40.min(path.len())]);
        }
    });
}

// ── the commands ─────────────────────────────────────────────────────────────────────────────────────────────────────

/// A command against a door: its exit code, and what it said.
fn run(arguments: &[&str], token: &str) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_countersign"));
    command.env_remove("COUNTERSIGN_ADMIN_TOKEN").args(arguments);
    if !token.is_empty() {
        command.env("COUNTERSIGN_ADMIN_TOKEN", token);
    }
    let ended = command.output().expect("it runs");
    let told = [ended.stdout, ended.stderr].concat();
    (ended.status.code(), String::from_utf8_lossy(&told).into_owned())
}

#[test]
fn commands_speak_to_a_door_over_tls_with_a_token() {
    let sim = bank(Bank::Scb);
    let stage = exposed().with(&sim, "scb", "", "").start();
    converse(async {
        assert_eq!(stage.client.send(get("/scb/echo/x", KEY)).await.status, 200);
    });
    let folder = tempfile::tempdir().expect("a folder");
    let ca = folder.path().join("ca.crt");
    std::fs::write(&ca, stage.authority.pem()).expect("written");
    let port = stage.running.admin.expect("an admin listener").port();
    let url = format!("https://localhost:{port}");
    let ca = ca.to_str().expect("a path");
    let door = |words: &[&str], token: &str| {
        let mut all = words.to_vec();
        all.extend(["--admin", &url, "--admin-ca", ca]);
        run(&all, token)
    };
    let (code, told) = door(&["status"], EYES);
    assert!(code == Some(0) && told.contains("gateway") && told.contains("1 of 1"), "{code:?} {told}");
    let (code, told) = door(&["status", "--json"], EYES);
    let status: Value = serde_json::from_str(&told).unwrap_or_else(|error| panic!("{error}: {told}"));
    assert_eq!((code, &status["counts"]["live_tokens"]), (Some(0), &1.into()));
    let (code, told) = door(&["token", "list"], EYES);
    assert!(code == Some(0) && told.contains("scb") && told.contains("live") && told.contains("in "), "{told}");
    let (code, told) = door(&["token", "refresh", "scb"], HANDS);
    assert!(code == Some(0) && told.contains("generation 2"), "{code:?} {told}");
    let (code, told) = door(&["token", "refresh", "scb"], EYES);
    assert!(code == Some(1) && told.contains("role = \"operate\""), "{code:?} {told}");
    let (code, told) = door(&["token", "purge", "nothing"], HANDS);
    assert!(code == Some(1) && told.contains("`nothing`"), "{code:?} {told}");
    assert_eq!(door(&["token", "purge", "scb"], HANDS).0, Some(0));
    sim.set(Faults { token: SimFault::new(ResponseFault::HtmlError(500)), ..Faults::default() });
    let (code, told) = door(&["token", "refresh", "scb"], HANDS);
    assert!(code == Some(1) && told.contains("no newer token"), "{code:?} {told}");
    stage.papers.edit(|config| format!("{config}\n# changed\n"));
    let (code, told) = door(&["reload"], HANDS);
    assert!(code == Some(0) && told.starts_with("reloaded: "), "{code:?} {told}");
    stage.papers.edit(|config| format!("{config}\nodd = 1\n"));
    let (code, told) = door(&["reload"], HANDS);
    assert!(code == Some(1) && told.contains("unknown key `odd`"), "{code:?} {told}");
    // Without the token, with a wrong one, without the CA, at the wrong door.
    let (code, told) = door(&["status"], "");
    assert!(code == Some(1) && told.contains("COUNTERSIGN_ADMIN_TOKEN"), "{code:?} {told}");
    assert_eq!(door(&["status"], "wrong").0, Some(1));
    let (code, told) = run(&["status", "--admin", &url], EYES);
    assert!(code == Some(2) && !told.contains(EYES), "{code:?} {told}");
    assert_eq!(run(&["status", "--admin", "https://localhost:1"], "").0, Some(2));
    let (code, told) = run(&["status", "--admin", "http://192.0.2.1:9901"], EYES);
    assert!(code == Some(2) && told.contains("never travels without TLS"), "{code:?} {told}");
}

#[test]
fn commands_believe_the_certificate_that_the_config_names() {
    let stage = exposed().start();
    let folder = tempfile::tempdir().expect("a folder");
    let port = stage.running.admin.expect("an admin listener").port();
    let config = folder.path().join("proxy.toml");
    let text = format!("[admin]\nbind = \"0.0.0.0:{port}\"\ntls = {{ cert = \"server.crt\", key = \"server.key\" }}\n");
    std::fs::write(&config, text).expect("written");
    let config = config.to_str().expect("a path");
    let certificate = folder.path().join("server.crt");
    std::fs::write(&certificate, stage.papers.file("server.crt")).expect("written");
    let (code, told) = run(&["status", "-c", config], EYES);
    assert!(code == Some(0) && told.contains("gateway"), "{code:?} {told}");
    assert_eq!(run(&["health", "-c", config], EYES).0, Some(0));
    assert_eq!(run(&["health", "-c", config], "").0, Some(1));
    // Another certificate, as somebody in between would have.
    std::fs::write(&certificate, stage.authority.pem()).expect("written");
    let (code, told) = run(&["status", "-c", config], EYES);
    assert!(code == Some(2) && !told.contains(EYES), "{code:?} {told}");
}
