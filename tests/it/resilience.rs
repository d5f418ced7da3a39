//! What clients and banks may do to each other without harm to anybody else: hang up, read slowly, break off. And the
//! one thing that must never happen whatever breaks: a payment that is made twice.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use bytes::Bytes;
use countersign::base::secret::{hex, sha256};
use countersign::base::time::{Clock, Stopwatch};
use countersign::sim::{
    self, Bank, Close, Faults, LeafSpec, ResponseFault, Sim, SimAuthority, SimFault, SimHandle, Verbatim,
};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use tokio::io::AsyncWriteExt;

use crate::client::{Client, Whole, converse, get, post};
use crate::harness::{Harness, KEY, Plan, bank};
use crate::secrets::Process;

/// Waits until it is so; says what never was.
async fn until(what: &str, mut so: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}

/// The bytes of a GET.
fn bytes(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {KEY}\r\n\r\n").into_bytes()
}

// T30
#[test]
fn who_hangs_up_while_a_token_is_fetched_cancels_nobody() {
    let sim = bank(Bank::Scb);
    sim.change(|faults| faults.token.delay = Some(Duration::from_millis(600)));
    let stage = Plan { workers: 1, ..Plan::default() }.with(&sim, "scb", "", "").start();
    converse(async {
        // The one whose request started the fetch goes first.
        let mut leader = stage.client.tls(&[b"http/1.1"]).await.expect("TLS");
        leader.write_all(&bytes("/scb/echo/leader")).await.expect("written");
        until("the fetch began", || sim.token_calls() == 1).await;
        let mut followers = Vec::new();
        for _ in 0..10 {
            let client = stage.client.clone();
            followers.push(tokio::task::spawn_local(async move { client.send(get("/scb/echo/follower", KEY)).await }));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        drop(leader);
        for follower in followers {
            let answer = follower.await.expect("no panic");
            assert_eq!(answer.status, 200, "{answer:?}");
        }
    });
    assert_eq!((sim.token_calls(), sim.resource_calls()), (1, 10), "the one who left is not sent on");
    let lines = stage.stop();
    let left: Vec<_> = lines.iter().filter(|line| line["url.path"] == "/scb/echo/leader").collect();
    assert_eq!(left.len(), 1, "it is told, once");
    assert_eq!((left[0]["complete"].as_bool(), left[0]["http.response.status_code"].as_u64()), (Some(false), None));
}

// T30
#[test]
fn a_fetch_that_everybody_left_still_ends_and_serves_the_next() {
    let sim = bank(Bank::Scb);
    sim.change(|faults| faults.token.delay = Some(Duration::from_millis(300)));
    let stage = Plan { workers: 1, ..Plan::default() }.with(&sim, "scb", "", "").start();
    converse(async {
        for _ in 0..5 {
            let mut one = stage.client.tls(&[b"http/1.1"]).await.expect("TLS");
            one.write_all(&bytes("/scb/echo/left")).await.expect("written");
            until("the fetch began", || sim.token_calls() == 1).await;
        }
        for _ in 0..200 {
            if stage.running.leases.ledger().await.lines.iter().any(|line| line.token.is_some()) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let watch = Stopwatch::start();
        assert_eq!(stage.client.send(get("/scb/echo/next", KEY)).await.status, 200);
        assert!(watch.elapsed() < Duration::from_millis(250), "the token was there: {:?}", watch.elapsed());
    });
    assert_eq!((sim.token_calls(), sim.resource_calls()), (1, 1));
}

#[test]
fn who_hangs_up_in_the_middle_of_an_answer_ends_the_banks_work_too() {
    let options = sim::SimOptions { only_http1: true, ..sim::SimOptions::default() };
    let sim = Sim::start(Bank::OAuth2, options).expect("a simulator");
    let stage = Plan { workers: 1, ..Plan::default() }.with(&sim, "oauth2", "", "").start();
    converse(async {
        assert_eq!(stage.client.send(get("/oauth2/echo/warm", KEY)).await.status, 200);
        // HTTP/1.1: the connection goes.
        let mut sender = stage.client.http1::<Full<Bytes>>().await;
        let asked = get("/oauth2/download?bytes=400000000&h1", KEY);
        let mut body = sender.send_request(asked).await.expect("an answer").into_body();
        read_some(&mut body).await;
        assert_eq!(sim.open_connections(), 1);
        drop((body, sender));
        until("the bank's connection closed", || sim.open_connections() == 0).await;
        // HTTP/2: the stream goes, the connection stays.
        let mut sender = stage.client.http2().await;
        let asked = |query: &str| {
            let request = http::Request::get(format!("https://localhost/oauth2/download?{query}"));
            request.header("authorization", format!("Bearer {KEY}")).body(Full::new(Bytes::new())).expect("a request")
        };
        let mut body = sender.send_request(asked("bytes=400000000&h2")).await.expect("an answer").into_body();
        read_some(&mut body).await;
        drop(body);
        until("the bank's connection closed", || sim.open_connections() == 0).await;
        let next = sender.send_request(asked("bytes=1000")).await.expect("an answer");
        assert_eq!(Whole::read(next).await.expect("whole").body.len(), 1000, "the connection serves on");
    });
    let lines = stage.stop();
    let cut: Vec<_> = lines.iter().filter(|line| line["complete"] == false).collect();
    assert_eq!(cut.len(), 2, "{lines:#?}");
    for line in cut {
        assert_eq!(line["http.response.status_code"], 200);
        let sent = line["http.response.body.size"].as_u64().expect("a size");
        assert!((1..100_000_000).contains(&sent), "{sent} bytes were taken from the bank");
    }
}

/// Reads a little of a body.
async fn read_some(body: &mut Incoming) {
    let mut read = 0;
    while read < 100_000 {
        let frame = body.frame().await.expect("more").expect("whole");
        read += frame.data_ref().map_or(0, Bytes::len);
    }
}

/// The real binary before one bank, for its memory is its own.
async fn process(sim: &SimHandle, folder: &tempfile::TempDir) -> (Process, Client) {
    let now = Clock::System.now();
    let authority = SimAuthority::new("test CA", now).expect("a CA");
    let leaf = authority.issue(&LeafSpec::server(now)).expect("a leaf");
    let config = format!(
        "[[listener]]\nname = \"gateway\"\nbind = \"127.0.0.1:0\"\ntls = {{ cert = \"s.crt\", key = \"s.key\" }}\n\
         [client.erp]\nkey_sha256 = [\"{}\"]\n[runtime]\nworkers = 2\n{}\
         [[route]]\nname = \"bank\"\npath = \"/bank\"\nprovider = \"bank\"\n",
        hex(&sha256(KEY.as_bytes())),
        sim.settings_toml_as("bank", "bank.crt")
    );
    for (name, text) in
        [("s.crt", &leaf.cert_pem), ("s.key", &leaf.key_pem), ("bank.crt", &sim.ca_pem()), ("proxy.toml", &config)]
    {
        fs::write(folder.path().join(name), text).expect("written");
    }
    let process = Process::start(&["run"], folder.path());
    let client = Client::new(process.address("gateway").await, authority.pem());
    (process, client)
}

#[test]
fn clients_that_read_slowly_cost_no_memory() {
    let sim = bank(Bank::OAuth2);
    let folder = tempfile::tempdir().expect("a folder");
    converse(async {
        let (process, client) = process(&sim, &folder).await;
        let warm = client.send(get("/bank/download?bytes=30000000", KEY)).await;
        assert_eq!(warm.body.len(), 30_000_000);
        let before = process.resident();
        // Twelve times 200 MB, over both protocols, of which nobody reads more than the beginning.
        let mut held = Vec::new();
        for _ in 0..6 {
            let mut sender = client.http1::<Full<Bytes>>().await;
            let answer = sender.send_request(get("/bank/download?bytes=200000000", KEY)).await.expect("an answer");
            let mut body = answer.into_body();
            read_some(&mut body).await;
            held.push(body);
        }
        let sender = client.http2().await;
        for _ in 0..6 {
            let request = http::Request::get("https://localhost/bank/download?bytes=200000000");
            let request = request.header("authorization", format!("Bearer {KEY}")).body(Full::new(Bytes::new()));
            let mut sender = sender.clone();
            let answer = sender.send_request(request.expect("a request")).await.expect("an answer");
            held.push(answer.into_body());
        }
        // What fits into buffers gets into them at once; whoever buffers more goes on filling.
        let mut most = 0;
        for _ in 0..8 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            most = most.max(process.resident().saturating_sub(before));
        }
        assert!(most < 48 << 20, "{} MiB more for 2.4 GB that nobody reads", most >> 20);
        // Others are served meanwhile.
        assert_eq!(client.send(get("/bank/echo/x", KEY)).await.status, 200);
        drop(held);
    });
}

/// What goes wrong, one after the other, on either leg.
fn weather() -> Vec<(&'static str, Faults)> {
    let refusal = Verbatim::json(401, r#"{"status":{"code":9300,"description":"x"}}"#);
    let on_resource = |trouble: ResponseFault| Faults {
        resource: SimFault { every: Some(2), ..SimFault::new(trouble) },
        ..Faults::default()
    };
    let on_token = |trouble: ResponseFault| Faults {
        token: SimFault { times: Some(1), ..SimFault::new(trouble) },
        ..Faults::default()
    };
    let closing = |close| Faults { resource: SimFault { close, ..SimFault::default() }, ..Faults::default() };
    vec![
        ("a good day", Faults::default()),
        ("resets before the answer", on_resource(ResponseFault::ResetBeforeAnswer)),
        ("resets after the head", on_resource(ResponseFault::ResetAfterHead)),
        ("cut bodies", on_resource(ResponseFault::CutBody)),
        ("garbage", on_resource(ResponseFault::Garbage(Bytes::from_static(b"\x15\x03\x03\x00\x02\x02\x28")))),
        ("nothing at all", on_resource(ResponseFault::Garbage(Bytes::new()))),
        ("pages of a gateway", on_resource(ResponseFault::HtmlError(502))),
        ("busy", on_resource(ResponseFault::Verbatim(Verbatim::bare(503, &[("retry-after", "1")])))),
        ("too many", on_resource(ResponseFault::Verbatim(Verbatim::bare(429, &[("retry-after", "1")])))),
        ("refusals before the body was read", on_resource(ResponseFault::AnswerEarly(refusal.clone()))),
        ("refusals", on_resource(ResponseFault::Verbatim(refusal))),
        ("connections closed silently", closing(Close::Silent)),
        ("connections closed aloud", closing(Close::Announced)),
        (
            "answers that come too late",
            Faults {
                resource: SimFault { delay: Some(Duration::from_secs(3)), every: Some(4), ..SimFault::default() },
                ..Faults::default()
            },
        ),
        ("a token endpoint that resets", on_token(ResponseFault::ResetBeforeAnswer)),
        ("a token endpoint that talks garbage", on_token(ResponseFault::Garbage(Bytes::from_static(b"no HTTP")))),
        ("a token endpoint that breaks off", on_token(ResponseFault::CutBody)),
        ("a token endpoint that is down", on_token(ResponseFault::HtmlError(503))),
    ]
}

/// How one payment ended for its caller.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Told {
    /// This status, with the whole answer.
    Status(u16),
    /// A head, and then the connection was cut: the caller knows that something is wrong.
    Cut,
}

async fn pay(client: &Client, id: &str) -> Told {
    let mut sender = client.http1().await;
    let body = format!("{{\"id\":\"{id}\",\"amount\":\"5.00\",\"pad\":\"{}\"}}", "x".repeat(20_000));
    let answer = sender.send_request(post(&format!("/scb/payments/{id}"), KEY, body)).await;
    let Ok(answer) = answer else { panic!("{id} was never answered") };
    let status = answer.status().as_u16();
    match Whole::read(answer).await {
        Ok(_) => Told::Status(status),
        Err(_) => Told::Cut,
    }
}

// T22, T23, T24: F14 on a small scale.
#[test]
fn no_payment_is_made_twice_whatever_breaks() {
    const AT_ONCE: usize = 9;
    let sim = bank(Bank::Scb);
    let stage: Harness =
        Plan::default().with(&sim, "scb", "timeouts = { response = \"1s\", token = \"2s\" }", "").start();
    let mut told = BTreeMap::new();
    converse(async {
        for (round, (what, faults)) in weather().into_iter().chain(weather()).enumerate() {
            // The key rests after some of it; nobody here wants to wait.
            stage.forgive();
            sim.set(faults);
            if round % 3 != 0 || what.contains("token endpoint") {
                sim.revoke_all();
            }
            let mut calls = Vec::new();
            for n in 0..AT_ONCE {
                let (client, id) = (stage.client.clone(), format!("P-{round}-{n}"));
                calls.push(tokio::task::spawn_local(async move { (pay(&client, &id).await, id) }));
            }
            for call in calls {
                let (how, id) = call.await.expect("answered");
                told.insert(id, (how, what));
            }
        }
    });
    let made = sim.payments();
    let twice: Vec<_> = made.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "{twice:?}: {:?}", twice.iter().map(|(id, _)| told.get(*id)).collect::<Vec<_>>());
    assert!(told.len() >= 300, "{}", told.len());
    let mut kinds: BTreeMap<Told, usize> = BTreeMap::new();
    for (id, (how, what)) in &told {
        *kinds.entry(*how).or_default() += 1;
        let times = made.get(id).copied().unwrap_or(0);
        match how {
            Told::Status(200) => assert_eq!(times, 1, "{id} ({what}) was told that it is done"),
            Told::Status(400..=499) => assert_eq!(times, 0, "{id} ({what}) was told that it is refused"),
            Told::Status(_) | Told::Cut => {}
        }
    }
    // The weather was as bad as it should be.
    for how in [200, 401, 429, 502, 503, 504].map(Told::Status).into_iter().chain([Told::Cut]) {
        assert!(kinds.contains_key(&how), "nothing ended like {how:?}: {kinds:?}");
    }
    let lines = stage.stop();
    assert_eq!(lines.len(), told.len(), "each is told in the log, once");
    assert!(lines.iter().any(|line| line["countersign.replay"] == "replayed"));
}

// T39
#[test]
fn streams_that_are_reset_at_once_cost_nobody_else_anything() {
    let sim = bank(Bank::Scb);
    sim.change(|faults| faults.resource.delay = Some(Duration::from_millis(20)));
    let stage = Plan { workers: 1, ..Plan::default() }.with(&sim, "scb", "", "").start();
    converse(async {
        assert_eq!(stage.client.send(get("/scb/echo/warm", KEY)).await.status, 200);
        let client = stage.client.clone();
        let attack = tokio::task::spawn_local(async move {
            let mut sender = client.http2().await;
            for n in 0..500 {
                let request = http::Request::get(format!("https://localhost/scb/echo/reset-{n}"));
                let request = request.header("authorization", format!("Bearer {KEY}"));
                let request = request.body(Full::new(Bytes::new())).expect("a request");
                if sender.ready().await.is_err() {
                    // We are shown the door, which is as good.
                    sender = client.http2().await;
                }
                let answer = tokio::time::timeout(Duration::from_millis(1), sender.send_request(request)).await;
                drop(answer);
            }
        });
        let mut slowest = Duration::ZERO;
        let mut calls = 0;
        while !attack.is_finished() || calls < 20 {
            let watch = Stopwatch::start();
            assert_eq!(stage.client.send(get("/scb/echo/bystander", KEY)).await.status, 200);
            slowest = slowest.max(watch.elapsed());
            calls += 1;
        }
        attack.await.expect("no panic");
        assert!(slowest < Duration::from_secs(3), "a bystander waited {slowest:?}");
        // Nothing of the attack stays behind.
        for _ in 0..500 {
            let metrics = String::from_utf8(stage.admin("/metrics").await.body.to_vec()).expect("text");
            let open =
                metrics.lines().find_map(|line| line.strip_prefix("countersign_connections{listener=\"gateway\"} "));
            if open == Some("0") {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let metrics = String::from_utf8(stage.admin("/metrics").await.body.to_vec()).expect("text");
        assert!(metrics.contains("countersign_connections{listener=\"gateway\"} 0"), "{metrics}");
    });
    let lines = stage.stop();
    let reset = lines.iter().filter(|line| line["url.path"].as_str().is_some_and(|path| path.contains("reset")));
    assert!(reset.clone().count() >= 100, "{} of them arrived", reset.count());
}

#[test]
fn clients_that_hang_up_right_after_asking_leave_nothing_behind() {
    const GONE: usize = 30;
    let sim = bank(Bank::Scb);
    sim.change(|faults| faults.resource.delay = Some(Duration::from_millis(500)));
    let stage = Plan { workers: 1, ..Plan::default() }.with(&sim, "scb", "", "").start();
    converse(async {
        assert_eq!(stage.client.send(get("/scb/echo/warm", KEY)).await.status, 200);
        for n in 0..GONE {
            let before = sim.resource_calls();
            let mut one = stage.client.tls(&[b"http/1.1"]).await.expect("TLS");
            one.write_all(&bytes(&format!("/scb/echo/gone-{n}"))).await.expect("written");
            until("it reached the bank", || sim.resource_calls() > before).await;
        }
        let answer = stage.client.send(get("/scb/echo/after", KEY)).await;
        assert_eq!(answer.status, 200);
        until("all but idle connections closed", || sim.open_connections() <= 2).await;
    });
    assert_eq!(sim.token_calls(), 1);
    let lines = stage.stop();
    let gone = lines.iter().filter(|line| line["url.path"].as_str().is_some_and(|path| path.contains("gone")));
    let gone: Vec<_> = gone.collect();
    assert_eq!(gone.len(), GONE, "each is told, once");
    assert!(gone.iter().all(|line| line["complete"] == false && line["http.response.status_code"].is_null()));
}

// T40
#[test]
fn a_bank_that_falls_silent_is_cut_and_one_that_is_merely_slow_is_not() {
    let sim = bank(Bank::OAuth2);
    let more = "timeouts = { body_idle = \"400ms\", response = \"400ms\" }";
    let stage = Plan { workers: 1, ..Plan::default() }.with(&sim, "oauth2", more, "").start();
    converse(async {
        assert_eq!(stage.client.send(get("/oauth2/echo/warm", KEY)).await.status, 200);
        let slow = SimFault::new(ResponseFault::SlowBody { chunk: 40, pause: Duration::from_millis(150) });
        sim.change(|faults| faults.resource = slow);
        // About two seconds for the whole of it: there is no limit on that.
        let whole =
            stage.client.send(get("/oauth2/echo/slow?pad=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", KEY)).await;
        assert_eq!(whole.status, 200);
        let silent = SimFault::new(ResponseFault::SlowBody { chunk: 40, pause: Duration::from_secs(20) });
        sim.change(|faults| faults.resource = silent);
        let watch = Stopwatch::start();
        let mut sender = stage.client.http1::<Full<Bytes>>().await;
        let answer = sender.send_request(get("/oauth2/echo/silent", KEY)).await.expect("a head");
        assert!(Whole::read(answer).await.is_err(), "half an answer must not look whole");
        assert!(watch.elapsed() < Duration::from_secs(5), "{:?}", watch.elapsed());
        until("the bank's connection closed", || sim.open_connections() == 0).await;
    });
    let lines = stage.stop();
    assert_eq!(lines.iter().map(|line| line["complete"] == true).collect::<Vec<_>>(), [true, true, false]);
}

#[test]
fn connections_beyond_the_limit_are_closed_and_those_within_are_served() {
    let sim = bank(Bank::Scb);
    let plan = Plan { workers: 1, limits: "connections = 3".to_owned(), ..Plan::default() };
    let stage = plan.with(&sim, "scb", "", "").start();
    converse(async {
        let first = stage.client.tls(&[b"http/1.1"]).await.expect("TLS");
        let second = stage.client.tls(&[b"http/1.1"]).await.expect("TLS");
        let mut third = stage.client.http1().await;
        assert!(stage.client.tls(&[b"http/1.1"]).await.is_err(), "the fourth is one too many");
        let answer = third.send_request(get("/scb/echo/x", KEY)).await.expect("an answer");
        assert_eq!(answer.status(), 200);
        drop((first, second));
        for _ in 0..500 {
            if stage.client.tls(&[b"http/1.1"]).await.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(stage.client.send(get("/scb/echo/x", KEY)).await.status, 200, "there is room again");
    });
}

/// A bank by hand: says `early` when a connection is made, `first` to the first request of all, then `HONEST`.
async fn scripted(authority: &SimAuthority, early: &'static str, first: &'static str) -> std::net::SocketAddr {
    let leaf = authority.issue(&LeafSpec::server(Clock::System.now())).expect("a leaf");
    let identity = leaf.identity().expect("an identity");
    let config = rustls::ServerConfig::builder_with_provider(countersign::tls::provider())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(identity.chain, identity.key)
        .expect("a certificate");
    let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("an address");
    let told = std::rc::Rc::new(std::cell::Cell::new(false));
    tokio::task::spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, told) = (acceptor.clone(), told.clone());
            tokio::task::spawn_local(async move {
                let mut tls = acceptor.accept(stream).await.expect("TLS");
                if !told.get() {
                    tls.write_all(early.as_bytes()).await.expect("written");
                }
                let mut piece = [0; 8192];
                // Each request is small enough to come in one piece.
                while tokio::io::AsyncReadExt::read(&mut tls, &mut piece).await.is_ok_and(|read| read > 0) {
                    let answer = if told.replace(true) { HONEST } else { first };
                    if tls.write_all(answer.as_bytes()).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    address
}

const HONEST: &str = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nhonest";

// T17, A13: what a bank says unasked is an answer to nobody.
#[test]
fn an_answer_that_nobody_asked_for_is_given_to_nobody() {
    let poison = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison";
    let behind = |first: &str| -> &'static str { Box::leak(format!("{first}{poison}").into_boxed_str()) };
    let plain = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    let now = Clock::System.now();
    let authority = SimAuthority::new("bank CA", now).expect("a CA");
    for (what, method, early, first) in [
        ("before any request", "GET", behind(""), plain),
        ("behind a whole answer", "GET", "", behind(plain)),
        (
            "behind the last chunk",
            "GET",
            "",
            behind("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
        ),
        ("as the body of a HEAD", "HEAD", "", behind("HTTP/1.1 200 OK\r\ncontent-length: 45\r\n\r\n")),
        ("as the body of a 204", "GET", "", behind("HTTP/1.1 204 No Content\r\n\r\n")),
        ("as the body of a 304", "GET", "", behind("HTTP/1.1 304 Not Modified\r\n\r\n")),
        ("behind an empty answer", "GET", "", behind("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")),
        (
            "between two framings",
            "GET",
            "",
            behind("HTTP/1.1 200 OK\r\ncontent-length: 60\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
        ),
    ] {
        let options = countersign::sim::SimOptions { authority: Some(authority.clone()), ..Default::default() };
        let sim = countersign::sim::Sim::start(Bank::OAuth2, options).expect("a simulator");
        converse(async {
            let address = scripted(&authority, early, first).await;
            let mut plan = Plan { workers: 1, ..Plan::default() }.with(&sim, "bank", "", "");
            plan.config = plan
                .config
                .replace(&format!("base_url = \"{}\"", sim.base_url()), &format!("base_url = \"https://{address}\""));
            let stage = plan.start();
            let mut sender = stage.client.http1().await;
            for n in 0..4 {
                sender.ready().await.expect("kept alive");
                let method = if n == 0 { method } else { "GET" };
                let asked = crate::client::request(method, "/bank/x", KEY, &[], Bytes::new());
                let answer = sender.send_request(asked).await.unwrap_or_else(|error| panic!("{what}, {n}: {error}"));
                let framings =
                    ["content-length", "transfer-encoding"].map(|name| answer.headers().get_all(name).iter().count());
                assert!(framings.iter().sum::<usize>() <= 1, "{what}: {:?}", answer.headers());
                let status = answer.status().as_u16();
                let body = Whole::read(answer).await.map(|whole| whole.body).unwrap_or_default();
                // Who answers before he was asked answers the first who asks; but nobody after him.
                let allowed = n == 0 && !early.is_empty();
                let poisoned = body.windows(6).any(|window| window == b"poison");
                assert!(!poisoned || allowed, "{what}, request {n}: {status} {body:?}");
                if n == 3 {
                    assert_eq!((status, &body[..]), (200, &b"honest"[..]), "{what}: all is well again");
                }
            }
        });
    }
}
