//! What happens to a request as HTTP: what passes, what is taken off, what is refused.

use std::collections::BTreeSet;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use countersign::base::secret::{ExposeSecret, hex, sha256};
use countersign::base::time::{Clock, ManualClock};
use countersign::sim::{Bank, Faults, ResponseFault, Sim, SimFault, SimHandle, SimOptions, Verbatim};
use http_body_util::{BodyExt, Full};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::{Whole, converse, get, post, request};
use crate::harness::{Harness, KEY, Plan, bank};
use crate::scripted_server::ScriptedSource;

/// Long enough for an answer, short enough for a connection that stays open.
const BREATH: Duration = Duration::from_millis(700);

/// A textbook bank, with this said of its route.
fn plain(route: &str) -> (SimHandle, Harness) {
    let sim = bank(Bank::OAuth2);
    let stage = Plan::default().with(&sim, "bank", "", route).start();
    (sim, stage)
}

/// A stage whose route leads to a script.
fn told(sim: &SimHandle, scripted: &ScriptedSource, route: &str) -> Harness {
    let route = format!("upstream = \"{}\"\n{route}", scripted.base_url);
    Plan { workers: 1, ..Plan::default() }.with(sim, "bank", "", &route).start()
}

/// A request's bytes, with our key.
fn raw(method: &str, path: &str, version: &str, fields: &str, body: &str) -> Vec<u8> {
    let fields: String = fields.lines().map(|line| format!("{line}\r\n")).collect();
    format!("{method} {path} {version}\r\nhost: localhost\r\nauthorization: Bearer {KEY}\r\n{fields}\r\n{body}")
        .into_bytes()
}

async fn raw_text(stage: &Harness, bytes: &[u8]) -> String {
    String::from_utf8_lossy(&stage.client.raw(bytes, BREATH).await).into_owned()
}

/// The status of the first final answer in these bytes; 0: none.
fn status(answer: &str) -> u16 {
    answer.get(9..12).and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

#[test]
fn response_trailers_pass_where_announced_and_wanted() {
    let sim = bank(Bank::OAuth2);
    let stage = converse(async {
        let scripted = ScriptedSource::saying(
            &sim,
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-checksum, set-cookie\r\n\r\n\
             5\r\nhello\r\n0\r\nx-checksum: abc\r\nset-cookie: a=b\r\nx-unannounced: 1\r\n\r\n",
        )
        .await;
        let stage = told(&sim, &scripted, "");
        let wanted = raw_text(&stage, &raw("GET", "/bank/x", "HTTP/1.1", "te: trailers", "")).await;
        assert!(wanted.ends_with("\r\n5\r\nhello\r\n0\r\nx-checksum: abc\r\n\r\n"), "{wanted}");
        assert!(wanted.contains("\r\ntrailer: x-checksum, set-cookie\r\n"), "{wanted}");
        let unwanted = raw_text(&stage, &raw("GET", "/bank/x", "HTTP/1.1", "", "")).await;
        assert!(unwanted.ends_with("\r\n5\r\nhello\r\n0\r\n\r\n"), "{unwanted}");
        assert!(!unwanted.contains("trailer:"), "{unwanted}");
        let old = raw_text(&stage, &raw("GET", "/bank/x", "HTTP/1.0", "te: trailers", "")).await;
        assert!(old.ends_with("\r\n\r\nhello") && !old.contains("chunked"), "{old}");
        let mut sender = stage.client.http2().await;
        let asked = http::Request::get("https://localhost/bank/x").header("authorization", format!("Bearer {KEY}"));
        let asked = asked.body(Full::new(Bytes::new())).expect("a request");
        let collected = sender.send_request(asked).await.expect("an answer").collect().await.expect("whole");
        let trailers = collected.trailers().expect("trailers").clone();
        assert_eq!((trailers.len(), trailers["x-checksum"].as_bytes()), (2, &b"abc"[..]));
        assert_eq!(trailers["x-unannounced"], "1", "HTTP/2 needs no announcement");
        let heads = scripted.heads.borrow();
        let te: Vec<bool> = heads.iter().map(|head| head.contains("\r\nte: trailers\r\n")).collect();
        assert_eq!(te, [true, false, false, false], "{heads:?}");
        stage
    });
    drop(stage);
}

#[test]
fn trailers_of_a_judged_answer_are_kept() {
    let sim = bank(Bank::Scb);
    let stage = converse(async {
        let body = "{\"status\":{\"code\":1234}}";
        let scripted = ScriptedSource::saying(
            &sim,
            format!(
                "HTTP/1.1 401 Unauthorized\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\
                 trailer: x-checksum\r\n\r\n{:x}\r\n{body}\r\n0\r\nx-checksum: abc\r\n\r\n",
                body.len()
            ),
        )
        .await;
        let stage = told(&sim, &scripted, "");
        let answer = raw_text(&stage, &raw("GET", "/bank/x", "HTTP/1.1", "te: trailers", "")).await;
        assert_eq!(status(&answer), 401);
        assert!(answer.ends_with(&format!("{body}\r\n0\r\nx-checksum: abc\r\n\r\n")), "{answer}");
        stage
    });
    drop(stage);
}

#[test]
fn request_trailers_pass_where_announced_and_are_replayed() {
    let (sim, stage) = plain("");
    converse(async {
        assert_eq!(stage.client.send(get("/bank/echo/warm", KEY)).await.status, 200);
        sim.revoke_all();
        let body = "5\r\nhello\r\n0\r\nx-checksum: abc\r\nauthorization: Bearer forged\r\nx-unannounced: 1\r\n\r\n";
        let fields = "transfer-encoding: chunked\ntrailer: x-checksum, authorization\nte: trailers";
        let answer = raw_text(&stage, &raw("POST", "/bank/echo/t", "HTTP/1.1", fields, body)).await;
        assert_eq!(status(&answer), 200, "{answer}");
        assert!(answer.contains("replayed"), "{answer}");
    });
    let arrivals: Vec<_> = sim.received().into_iter().filter(|arrival| arrival.path.ends_with("/t")).collect();
    assert_eq!(arrivals.len(), 2);
    for arrival in arrivals {
        let trailers: Vec<&str> = arrival.trailers.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!((&trailers[..], &arrival.body[..]), (&["x-checksum"][..], &b"hello"[..]));
        assert_eq!(arrival.header("te"), Some("trailers"));
    }
    drop(stage);
}

#[test]
fn an_expectation_is_met_only_once_all_is_in_order() {
    let (sim, stage) = plain("methods = [\"POST\"]\nrate_limit = { requests = 2, per = \"1h\" }");
    converse(async {
        let fields = "expect: 100-continue\ncontent-length: 5";
        let ask = |method: &str, fields: &str| raw(method, "/bank/echo/x", "HTTP/1.1", fields, "");
        let stranger = String::from_utf8(ask("POST", fields)).expect("text").replace(KEY, "wrong");
        for (name, bytes, expected) in [
            ("no client", stranger.into_bytes(), 401),
            ("no route", raw("POST", "/other", "HTTP/1.1", fields, ""), 404),
            ("not this method", ask("PUT", fields), 403),
            ("another expectation", ask("POST", "expect: a-miracle\ncontent-length: 5"), 417),
            ("two expectations", ask("POST", "expect: 100-continue\nexpect: x\ncontent-length: 5"), 417),
            ("a list", ask("POST", "expect: 100-continue, x\ncontent-length: 5"), 417),
        ] {
            let answer = raw_text(&stage, &bytes).await;
            assert_eq!(status(&answer), expected, "{name}: {answer}");
        }
        let refusing = Faults { token: SimFault::new(ResponseFault::HtmlError(500)), ..Faults::default() };
        sim.set(refusing);
        let answer = raw_text(&stage, &ask("POST", fields)).await;
        assert_eq!(status(&answer), 503, "no token, no 100: {answer}");
        assert_eq!(sim.resource_calls(), 0);
    });
    drop(stage);
    let (sim, stage) = plain("");
    converse(async {
        let mut stream = stage.client.tls(&[b"http/1.1"]).await.expect("TLS");
        let fields = "expect: 100-Continue\ncontent-length: 5\nconnection: close";
        stream.write_all(&raw("POST", "/bank/echo/x", "HTTP/1.1", fields, "")).await.expect("written");
        let mut interim = [0; 25];
        stream.read_exact(&mut interim).await.expect("the 100");
        assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
        stream.write_all(b"hello").await.expect("written");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        assert_eq!(status(&answer), 200, "{answer}");
    });
    let arrivals = sim.received();
    let arrival = arrivals.last().expect("it arrived");
    assert_eq!((arrival.count("expect"), &arrival.body[..]), (0, &b"hello"[..]));
    drop(stage);
}

// T17
#[test]
fn interim_answers_end_here_and_a_flood_of_them_ends_at_the_deadline() {
    let sim = bank(Bank::OAuth2);
    let stage = converse(async {
        let scripted = ScriptedSource::start(&sim, |head, mut line| async move {
            let few = head.starts_with("GET /few");
            for _ in 0..if few { 32 } else { 10_000 } {
                line.write_all(b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n").await.ok()?;
                if !few {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
            line.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.ok()?;
            Some(line)
        })
        .await;
        let stage = told(&sim, &scripted, "timeouts = { response = \"500ms\" }");
        let few = raw_text(&stage, &raw("GET", "/bank/few", "HTTP/1.1", "", "")).await;
        assert_eq!(status(&few), 200, "{few}");
        assert!(!few.contains("103"), "{few}");
        let flood = stage.client.send(get("/bank/many", KEY)).await;
        assert_eq!((flood.status, flood.error().as_str()), (504, "upstream-timeout"));
        stage
    });
    drop(stage);
}

#[test]
fn a_switch_of_protocols_that_nobody_asked_for_is_no_answer() {
    let sim = bank(Bank::OAuth2);
    let stage = converse(async {
        let scripted = ScriptedSource::saying(
            &sim,
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        )
        .await;
        let stage = told(&sim, &scripted, "");
        let plain = stage.client.send(get("/bank/x", KEY)).await;
        assert_eq!((plain.status, plain.error().as_str()), (502, "upstream-protocol"));
        let asked = [("connection", "upgrade"), ("upgrade", "websocket"), ("sec-websocket-key", "dGVzdA==")];
        let upgrade = stage.client.send(request("GET", "/bank/x", KEY, &asked, "")).await;
        assert_eq!((upgrade.status, upgrade.error().as_str()), (502, "upstream-protocol"), "the route permits none");
        assert!(scripted.heads.borrow().iter().all(|head| !head.to_ascii_lowercase().contains("\r\nupgrade:")));
        stage
    });
    drop(stage);
}

/// The `Sec-WebSocket-Accept` for a key (RFC 6455 section 4.2.2).
fn accept(key: &str) -> String {
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes()))
}

/// A bank's WebSocket: grants it to this token only, greets at once, then echoes until the end.
async fn echo_teller(sim: &SimHandle, refusals: u32) -> ScriptedSource {
    let left = std::rc::Rc::new(std::cell::Cell::new(refusals));
    ScriptedSource::start(sim, move |head, mut line| {
        let left = left.clone();
        async move {
            if left.get() > 0 {
                left.set(left.get() - 1);
                let body = "{\"error\":\"invalid_token\"}";
                let refusal = format!(
                    "HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Bearer error=\"invalid_token\"\r\n\
                     content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
                    body.len()
                );
                line.write_all(refusal.as_bytes()).await.ok()?;
                return Some(line);
            }
            let key = head.lines().find_map(|field| field.strip_prefix("sec-websocket-key: ")).unwrap_or_default();
            let fine = head.contains("\r\nupgrade: websocket\r\n") && head.contains("\r\nconnection: upgrade\r\n");
            assert!(fine, "{head}");
            let grant = format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Accept: {}\r\n\r\nwelcome",
                accept(key)
            );
            line.write_all(grant.as_bytes()).await.ok()?;
            let mut buffer = vec![0; 8192];
            loop {
                line.flush().await.ok()?;
                match line.read(&mut buffer).await.ok()? {
                    0 => break,
                    read => line.write_all(&buffer[..read]).await.ok()?,
                }
            }
            line.shutdown().await.ok()?;
            None
        }
    })
    .await
}

const WEBSOCKET: &str =
    "connection: Upgrade\nupgrade: websocket\nsec-websocket-version: 13\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==";

#[test]
fn a_websocket_passes_both_ways_and_is_told_at_its_end() {
    let sim = bank(Bank::OAuth2);
    let lines = converse(async {
        let scripted = echo_teller(&sim, 0).await;
        let stage = told(&sim, &scripted, "upgrade = [\"websocket\"]");
        let mut stream = stage.client.tls(&[b"http/1.1"]).await.expect("TLS");
        let mut ask = raw("GET", "/bank/ws/echo", "HTTP/1.1", WEBSOCKET, "");
        ask.extend_from_slice(b"early");
        stream.write_all(&ask).await.expect("written");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.expect("a head"));
        }
        let head = String::from_utf8(head).expect("text").to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 101 "), "{head}");
        assert!(head.contains("\r\nupgrade: websocket\r\n") && head.contains("\r\nconnection: upgrade\r\n"), "{head}");
        let expected = accept("dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(expected, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", "the RFC's own example");
        assert!(head.contains(&format!("sec-websocket-accept: {}", expected.to_ascii_lowercase())), "{head}");
        let mut greeting = [0; 12];
        stream.read_exact(&mut greeting).await.expect("what came before anything else");
        assert_eq!(BTreeSet::from(greeting), BTreeSet::from(*b"welcomeearly"));
        // More than all buffers on the way hold: both directions must move at once.
        let sent: Vec<u8> = (0..3_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 11) as u8).collect();
        let (mut reads, mut writes) = tokio::io::split(stream);
        let expected = sha256(&sent);
        let writing = async {
            writes.write_all(&sent).await.expect("written");
            writes.shutdown().await.expect("ended");
        };
        let reading = async {
            let mut back = Vec::new();
            reads.read_to_end(&mut back).await.expect("read");
            back
        };
        let ((), back) = tokio::join!(writing, reading);
        assert_eq!((back.len(), sha256(&back)), (3_000_000, expected));
        assert_eq!(scripted.connections.get(), 1);
        let bearer = format!("\r\nauthorization: Bearer {}\r\n", sim.issued()[0].expose_secret());
        assert!(scripted.heads.borrow()[0].contains(&bearer));
        // Its connection is nobody else's.
        let mut again = stage.client.tls(&[b"http/1.1"]).await.expect("TLS");
        again.write_all(&raw("GET", "/bank/ws/echo", "HTTP/1.1", WEBSOCKET, "")).await.expect("written");
        again.read_exact(&mut [0; 12]).await.expect("an answer");
        assert_eq!(scripted.connections.get(), 2);
        // It is still open when the process ends.
        let lines = stage.stop();
        let _ = again.read_to_end(&mut Vec::new()).await;
        lines
    });
    assert_eq!(lines[0]["http.response.status_code"], 101);
    assert_eq!(lines[0]["http.request.body.size"], 3_000_005);
    assert_eq!(lines[0]["http.response.body.size"], 3_000_012);
    assert_eq!(lines[0]["complete"], true);
    assert_eq!(lines.len(), 2, "the one that was cut off is told, too: {lines:?}");
    assert_eq!(lines[1]["http.response.status_code"], 101);
}

#[test]
fn a_websocket_whose_token_is_refused_is_asked_for_once_more() {
    let sim = bank(Bank::OAuth2);
    let stage = converse(async {
        let scripted = echo_teller(&sim, 1).await;
        let route = "upgrade = [\"websocket\"]\ntimeouts = { body_idle = \"300ms\" }\n\
            [[route]]\nname = \"warm\"\npath = \"/warm\"\nprovider = \"bank\"\n";
        let stage = told(&sim, &scripted, route);
        assert_eq!(stage.client.send(get("/warm/echo/x", KEY)).await.status, 200, "the token is at hand");
        // Both sides are silent: the connection ends by itself.
        let ask = raw("GET", "/bank/ws/echo", "HTTP/1.1", WEBSOCKET, "");
        let bytes = stage.client.raw(&ask, Duration::from_secs(20)).await;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        assert_eq!(status(&text), 101, "{text}");
        assert!(text.ends_with("\r\n\r\nwelcome"), "{text}");
        assert_eq!(scripted.heads.borrow().len(), 2);
        stage
    });
    let lines = stage.stop();
    assert_eq!((&lines[1]["countersign.replay"], &lines[1]["complete"]), (&"replayed".into(), &false.into()));
}

#[test]
fn a_provider_that_grants_no_websocket_answers_as_usual() {
    let (sim, stage) = plain("upgrade = [\"websocket\"]");
    converse(async {
        let answer = raw_text(&stage, &raw("GET", "/bank/echo/x", "HTTP/1.1", WEBSOCKET, "")).await;
        assert_eq!(status(&answer), 200, "{answer}");
        let mut sender = stage.client.http1().await;
        for _ in 0..3 {
            sender.ready().await.expect("kept alive");
            let answer = Whole::read(sender.send_request(get("/bank/echo/y", KEY)).await.expect("answer")).await;
            assert_eq!(answer.expect("whole").status, 200);
        }
    });
    assert!(sim.received().iter().filter(|arrival| arrival.path.ends_with("/y")).all(|a| a.count("upgrade") == 0));
    drop(stage);
}

#[test]
fn old_clients_get_what_they_understand() {
    let (sim, stage) = plain("");
    converse(async {
        let without_host = format!("GET /bank/echo/x HTTP/1.0\r\nauthorization: Bearer {KEY}\r\n\r\n");
        let answer = raw_text(&stage, without_host.as_bytes()).await;
        assert_eq!(status(&answer), 200, "{answer}");
        let bytes = stage
            .client
            .raw(&raw("GET", "/bank/download?bytes=100000&length=unknown", "HTTP/1.0", "", ""), Duration::from_secs(20))
            .await;
        let text = String::from_utf8(bytes).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        assert!(!head.to_ascii_lowercase().contains("transfer-encoding"), "{head}");
        assert_eq!(body.len(), 100_000, "de-chunked, and closed at its end");
        // Kept alive when asked to, where the length is known.
        let mut both = raw("GET", "/bank/echo/x", "HTTP/1.0", "connection: keep-alive", "");
        both.extend(raw("GET", "/bank/echo/y", "HTTP/1.0", "", ""));
        let text = raw_text(&stage, &both).await;
        assert_eq!(text.matches("HTTP/1.0 200").count(), 2, "{text}");
        // HTTP/1.0 knows no chunks (T14).
        let chunked = raw("POST", "/bank/echo/z", "HTTP/1.0", "transfer-encoding: chunked", "0\r\n\r\n");
        assert_eq!(status(&raw_text(&stage, &chunked).await), 400);
        let modern = "GET /bank/echo/x HTTP/1.1\r\n\r\n";
        assert_eq!(
            status(&raw_text(&stage, modern.as_bytes()).await),
            401,
            "nobody is told more before they are known"
        );
        let modern = format!("GET /bank/echo/x HTTP/1.1\r\nauthorization: Bearer {KEY}\r\n\r\n");
        assert_eq!(status(&raw_text(&stage, modern.as_bytes()).await), 400, "HTTP/1.1 names a host");
    });
    let arrivals = sim.received();
    assert!(arrivals.iter().all(|arrival| arrival.version != http::Version::HTTP_10));
    drop(stage);
}

#[test]
fn a_client_that_said_all_it_had_to_say_still_gets_its_answer() {
    let sim = bank(Bank::OAuth2);
    let mut plan = Plan::default().with(&sim, "bank", "", "");
    plan.config += "[[listener]]\nname = \"plain\"\nbind = \"127.0.0.1:0\"\n";
    let stage = plan.start();
    sim.change(|faults| faults.resource.delay = Some(Duration::from_millis(200)));
    converse(async {
        for body in ["", "hello"] {
            let address = stage.running.address("plain").expect("a listener");
            let mut stream = tokio::net::TcpStream::connect(address).await.expect("connected");
            let fields = format!("content-length: {}", body.len());
            stream.write_all(&raw("POST", "/bank/echo/x", "HTTP/1.1", &fields, body)).await.expect("written");
            stream.shutdown().await.expect("half-closed");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.expect("an answer, then the end");
            assert_eq!(status(&answer), 200, "{answer}");
        }
        // One that is gone for good is noticed, and told.
        let mut stream = stage.client.tls(&[b"http/1.1"]).await.expect("TLS");
        let path = "/bank/download?bytes=200000000";
        stream.write_all(&raw("GET", path, "HTTP/1.1", "", "")).await.expect("written");
        stream.read_exact(&mut [0; 1000]).await.expect("it begins");
        drop(stream);
        while !stage.log.text().contains("/bank/download") {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    let lines = stage.stop();
    assert_eq!(lines[2]["complete"], false);
}

/// What must come of a framing trick.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Fate {
    /// Refused before anything was sent on; the connection closed.
    Refused,
    /// One message arrived, with this body; the connection closed, so that nothing behind it was read.
    One(&'static str),
    /// A plain message after all: it arrives with this body, and what follows is a request of its own.
    Plain(&'static str),
}

/// Framing tricks, each with what must come of it. `~` in a text is the smuggled request.
#[rustfmt::skip]
const TRICKS: &[(&str, &str, &str, Fate)] = &[
    // name, the fields behind Host and Authorization, the bytes behind the head, the fate
    ("plain length", "content-length: 5\r\n", "hello~", Fate::Plain("hello")),
    ("plain chunks", "transfer-encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n~", Fate::One("hello")),
    ("CL.TE", "content-length: 5\r\ntransfer-encoding: chunked\r\n", "0\r\n\r\n~", Fate::One("")),
    ("TE.CL", "transfer-encoding: chunked\r\ncontent-length: 5\r\n", "0\r\n\r\n~", Fate::One("")),
    ("CL.TE with a body", "content-length: 100\r\ntransfer-encoding: chunked\r\n", "2\r\nhi\r\n0\r\n\r\n~", Fate::One("hi")),
    ("CL.TE in capitals", "CONTENT-LENGTH: 5\r\nTRANSFER-ENCODING: CHUNKED\r\n", "0\r\n\r\n~", Fate::One("")),
    ("two lengths", "content-length: 5\r\ncontent-length: 0\r\n", "hello~", Fate::Refused),
    ("two equal lengths", "content-length: 5\r\ncontent-length: 5\r\n", "hello~", Fate::Plain("hello")),
    ("a list of lengths", "content-length: 5, 5\r\n", "hello~", Fate::Refused),
    ("a list of other lengths", "content-length: 5, 0\r\n", "hello~", Fate::Refused),
    ("a length with a plus", "content-length: +5\r\n", "hello~", Fate::Refused),
    ("a negative length", "content-length: -5\r\n", "hello~", Fate::Refused),
    ("a hexadecimal length", "content-length: 0x5\r\n", "hello~", Fate::Refused),
    ("a length with a fraction", "content-length: 5.0\r\n", "hello~", Fate::Refused),
    ("a length of nothing", "content-length: \r\n", "~", Fate::Refused),
    ("a length with a blank inside", "content-length: 1 0\r\n", "hello~", Fate::Refused),
    ("a length in words", "content-length: five\r\n", "hello~", Fate::Refused),
    ("a length beyond 64 bits", "content-length: 18446744073709551621\r\n", "hello~", Fate::Refused),
    ("a length of -1 in 64 bits", "content-length: 18446744073709551615\r\n", "hello~", Fate::Refused),
    ("a length with an underscore", "content_length: 5\r\n", "~", Fate::Plain("")),
    ("a length with a vertical tab", "content-length: \x0b5\r\n", "hello~", Fate::Refused),
    ("a length with a NUL", "content-length: 5\0\r\n", "hello~", Fate::Refused),
    ("TE twice", "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n", "0\r\n\r\n~", Fate::Refused),
    ("TE twice in one", "transfer-encoding: chunked, chunked\r\n", "0\r\n\r\n~", Fate::Refused),
    ("TE identity", "transfer-encoding: identity\r\n", "~", Fate::Refused),
    ("TE identity then chunked", "transfer-encoding: identity, chunked\r\n", "0\r\n\r\n~", Fate::Refused),
    ("TE chunked then identity", "transfer-encoding: chunked, identity\r\n", "0\r\n\r\n~", Fate::Refused),
    ("TE gzip, chunked", "transfer-encoding: gzip, chunked\r\n", "0\r\n\r\n~", Fate::Refused),
    ("TE with a parameter", "transfer-encoding: chunked;q=1\r\n", "0\r\n\r\n~", Fate::Refused),
    ("TE in quotes", "transfer-encoding: \"chunked\"\r\n", "0\r\n\r\n~", Fate::Refused),
    ("TE xchunked", "transfer-encoding: xchunked\r\n", "0\r\n\r\n~", Fate::Refused),
    ("TE chunkedx", "transfer-encoding: chunkedx\r\n", "0\r\n\r\n~", Fate::Refused),
    ("TE of nothing", "transfer-encoding: \r\n", "0\r\n\r\n~", Fate::Refused),
    ("TE with a comma before", "transfer-encoding: ,chunked\r\n", "0\r\n\r\n~", Fate::Refused),
    ("TE with a tab before", "transfer-encoding:\tchunked\r\n", "0\r\n\r\n~", Fate::One("")),
    ("TE with a vertical tab", "transfer-encoding: \x0bchunked\r\n", "0\r\n\r\n~", Fate::Refused),
    ("TE with a NUL", "transfer-encoding: chunked\0\r\n", "0\r\n\r\n~", Fate::Refused),
    ("TE folded", "transfer-encoding:\r\n chunked\r\n", "0\r\n\r\n~", Fate::Refused),
    ("TE with an underscore", "transfer_encoding: chunked\r\n", "~", Fate::Plain("")),
    ("TE with an underscore and a length", "transfer_encoding: chunked\r\ncontent-length: 5\r\n", "hello~", Fate::Plain("hello")),
    ("TE with a blank before the colon", "transfer-encoding : chunked\r\n", "0\r\n\r\n~", Fate::Refused),
    ("CL with a blank before the colon", "content-length : 5\r\n", "hello~", Fate::Refused),
    ("TE with a tab before the colon", "transfer-encoding\t: chunked\r\n", "0\r\n\r\n~", Fate::Refused),
    ("TE behind a blank", " transfer-encoding: chunked\r\n", "0\r\n\r\n~", Fate::Refused),
    ("TE behind a bare CR", "x: y\rtransfer-encoding: chunked\r\n", "0\r\n\r\n~", Fate::Refused),
    ("TE behind a bare LF", "x: y\ntransfer-encoding: chunked\r\n", "0\r\n\r\n~", Fate::One("")),
    ("CL named by Connection", "connection: content-length\r\ncontent-length: 5\r\n", "hello~", Fate::Plain("hello")),
    ("TE named by Connection", "connection: transfer-encoding\r\ntransfer-encoding: chunked\r\n", "2\r\nhi\r\n0\r\n\r\n~", Fate::One("hi")),
    ("a folded field", "x-a: 1\r\n content-length: 5\r\n", "hello~", Fate::Refused),
    ("a field without a name", ": x\r\n", "~", Fate::Refused),
    ("a field without a colon", "content-length\r\n", "~", Fate::Refused),
    ("a NUL in a name", "x\0y: 1\r\n", "~", Fate::Refused),
    ("a NUL in a value", "x-a: 1\x002\r\n", "~", Fate::Refused),
    ("a bare CR in a value", "x-a: 1\r2\r\n", "~", Fate::Refused),
    ("a bare CR at a value's end", "x-a: 1\r\r\n", "~", Fate::Refused),
    ("a chunk size with a sign", "transfer-encoding: chunked\r\n", "+5\r\nhello\r\n0\r\n\r\n~", Fate::Refused),
    ("a negative chunk size", "transfer-encoding: chunked\r\n", "-5\r\nhello\r\n0\r\n\r\n~", Fate::Refused),
    ("a chunk size with 0x", "transfer-encoding: chunked\r\n", "0x5\r\nhello\r\n0\r\n\r\n~", Fate::Refused),
    ("a chunk size with an underscore", "transfer-encoding: chunked\r\n", "0_5\r\nhello\r\n0\r\n\r\n~", Fate::Refused),
    ("a chunk size of nothing", "transfer-encoding: chunked\r\n", "\r\nhello\r\n0\r\n\r\n~", Fate::Refused),
    ("a chunk size beyond 64 bits", "transfer-encoding: chunked\r\n", "10000000000000005\r\nhello\r\n0\r\n\r\n~", Fate::Refused),
    ("a chunk size that is no number", "transfer-encoding: chunked\r\n", "z\r\nhello\r\n0\r\n\r\n~", Fate::Refused),
    ("a blank inside a chunk size", "transfer-encoding: chunked\r\n", "0 5\r\nhello\r\n0\r\n\r\n~", Fate::Refused),
    ("a blank before a chunk size", "transfer-encoding: chunked\r\n", " 5\r\nhello\r\n0\r\n\r\n~", Fate::Refused),
    ("a bare LF behind a chunk size", "transfer-encoding: chunked\r\n", "5\nhello\r\n0\r\n\r\n~", Fate::Refused),
    ("a bare CR behind a chunk size", "transfer-encoding: chunked\r\n", "5\rhello\r\n0\r\n\r\n~", Fate::Refused),
    ("a bare LF behind a chunk", "transfer-encoding: chunked\r\n", "5\r\nhello\n0\r\n\r\n~", Fate::Refused),
    ("no end behind a chunk", "transfer-encoding: chunked\r\n", "5\r\nhello0\r\n\r\n~", Fate::Refused),
    ("a chunk longer than it says", "transfer-encoding: chunked\r\n", "4\r\nhello\r\n0\r\n\r\n~", Fate::Refused),
    ("a bare LF in a chunk extension", "transfer-encoding: chunked\r\n", "5;a\nhello\r\n0\r\n\r\n~", Fate::Refused),
    ("a chunk extension", "transfer-encoding: chunked\r\n", "5;a=b\r\nhello\r\n0\r\n\r\n~", Fate::One("hello")),
    ("leading zeros of a chunk size", "transfer-encoding: chunked\r\n", "0005\r\nhello\r\n0\r\n\r\n~", Fate::One("hello")),
    ("a length in the trailer", "transfer-encoding: chunked\r\ntrailer: content-length\r\n", "5\r\nhello\r\n0\r\ncontent-length: 90\r\n\r\n~", Fate::One("hello")),
    ("TE in the trailer", "transfer-encoding: chunked\r\ntrailer: transfer-encoding\r\n", "5\r\nhello\r\n0\r\ntransfer-encoding: x\r\n\r\n~", Fate::One("hello")),
    ("a token in the trailer", "transfer-encoding: chunked\r\ntrailer: authorization\r\n", "5\r\nhello\r\n0\r\nauthorization: x\r\n\r\n~", Fate::One("hello")),
    ("two hosts", "host: evil.example\r\n", "~", Fate::Refused),
    ("two equal hosts", "host: localhost\r\n", "~", Fate::Refused),
    ("Connection that lists nonsense", "connection: a b\r\n", "~", Fate::Refused),
    ("Connection that lists too much", "connection: a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q,r,s,t,u\r\n", "~", Fate::Refused),
];

// T14, T40: judged by the bytes that arrive at the provider.
#[test]
fn framing_tricks_are_refused_or_become_one_message() {
    assert!(TRICKS.len() >= 60);
    let sim = Sim::start(Bank::OAuth2, SimOptions { record_wire: true, only_http1: true, ..SimOptions::default() })
        .expect("a simulator");
    let stage = Plan { workers: 1, ..Plan::default() }.with(&sim, "bank", "", "").start();
    let smuggled = format!(
        "POST /bank/echo/smuggled HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {KEY}\r\ncontent-length: 0\r\n\r\n"
    );
    let mut wrong = Vec::new();
    converse(async {
        assert_eq!(stage.client.send(get("/bank/echo/warm", KEY)).await.status, 200);
        for (at, (name, fields, behind, fate)) in TRICKS.iter().enumerate() {
            let head = format!(
                "POST /bank/echo/t{at} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {KEY}\r\n{fields}\r\n"
            );
            let before = sim.received().len();
            let bytes = [head.as_bytes(), behind.replace('~', &smuggled).as_bytes()].concat();
            let mut stream = stage.client.tls(&[b"http/1.1"]).await.expect("TLS");
            stream.write_all(&bytes).await.expect("written");
            let mut answer = Vec::new();
            let closed =
                tokio::time::timeout(Duration::from_millis(250), stream.read_to_end(&mut answer)).await.is_ok();
            let answer = String::from_utf8_lossy(&answer).into_owned();
            // A refused body may have begun to arrive: it must break off there.
            let came: Vec<_> = sim.received().into_iter().skip(before).filter(|arrival| !arrival.aborted).collect();
            let bodies: Vec<(bool, String)> = came
                .iter()
                .map(|arrival| {
                    (arrival.path.ends_with("smuggled"), String::from_utf8_lossy(&arrival.body).into_owned())
                })
                .collect();
            let one = |body: &str| (false, body.to_owned());
            let fine = match fate {
                Fate::Refused => closed && bodies.is_empty() && matches!(status(&answer), 0 | 400..=599),
                Fate::One(body) => closed && bodies == [one(body)] && status(&answer) == 200,
                Fate::Plain(body) => bodies == [one(body), (true, String::new())] && status(&answer) == 200,
            };
            if !fine {
                wrong.push(format!(
                    "{name}: {fate:?}, but closed: {closed}, arrived: {bodies:?}, answer: {answer:.60?}"
                ));
            }
        }
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // What was sent on is our own writing: no trick is left in it.
    for connection in 1..=sim.connections() {
        let wire = String::from_utf8_lossy(&sim.wire(connection)).to_ascii_lowercase();
        for message in wire.split("http/1.1\r\n").skip(1) {
            let head = message.split("\r\n\r\n").next().unwrap_or("");
            let count = |name: &str| head.lines().filter(|line| line.starts_with(name)).count();
            assert!(count("content-length:") + count("transfer-encoding:") <= 1, "{head}");
            assert!(!head.contains("content_length") || count("content-length:") == 1, "{head}");
        }
        assert!(!wire.contains("\r\ncontent-length: 90") && !wire.contains("authorization: x\r\n"), "{wire}");
    }
    drop(stage);
}

// T7, T12
#[test]
fn the_token_endpoint_is_out_of_reach_in_any_spelling() {
    for (kind, token_path) in [(Bank::Scb, "/v1/oauth/token"), (Bank::OAuth2, "/token"), (Bank::Meed, "/oauth/token")] {
        let sim = bank(kind);
        let token_path = sim.token_url().strip_prefix(&sim.base_url()).map_or(token_path.to_owned(), str::to_owned);
        // Where it lies outside of the base path, a route to the host itself must not reach it either.
        let origin = format!("https://{}", sim.address());
        let whole = sim.token_url().strip_prefix(&origin).expect("on this host").to_owned();
        let open = format!(
            "path_rules = \"lenient\"\n[[route]]\nname = \"host\"\npath = \"/host\"\nprovider = \"bank\"\nupstream = \"{origin}\"\npath_rules = \"lenient\""
        );
        let stage = Plan::default().with(&sim, "bank", "", &open).start();
        converse(async {
            let mut targets = vec![format!("/host{whole}")];
            if sim.token_url().starts_with(&sim.base_url()) {
                targets.push(format!("/bank{token_path}"));
            }
            for target in targets {
                let (front, last) = target.rsplit_once('/').expect("a path");
                let upper = last.to_ascii_uppercase();
                for spelling in [
                    target.clone(),
                    format!("{target}/"),
                    format!("{target}?x=1"),
                    format!("{front}/%74{}", &last[1..]),
                    format!("{front}/%2574{}", &last[1..]),
                    format!("{front}//{last}"),
                    format!("{front}%2f{last}"),
                    format!("{front}%2F{last}"),
                    format!("{front}/./{last}"),
                    format!("{front}/x/../{last}"),
                    format!("{front}/%2e/{last}"),
                    format!("{front}/{last};a=b"),
                    format!("{front}/{last}%20"),
                    format!("{front}/{last}."),
                    format!("{front}/{last}%00"),
                    format!("{front}\\{last}"),
                    format!("{front}/{upper}"),
                ] {
                    let answer = raw_text(
                        &stage,
                        &raw("POST", &spelling, "HTTP/1.1", "content-length: 0\nconnection: close", ""),
                    )
                    .await;
                    assert!(matches!(status(&answer), 400 | 403), "{kind:?} {spelling}: {answer}");
                }
            }
            assert_eq!(sim.token_calls(), 0, "{kind:?}");
        });
        assert_eq!(sim.resource_calls(), 0, "{kind:?}");
        drop(stage);
    }
}

#[test]
fn routes_keep_to_their_listeners_hosts_and_paths() {
    let sim = bank(Bank::OAuth2);
    let more = "listeners = [\"gateway\"]\n\
        [[route]]\nname = \"named\"\nhost = \"bank.example\"\nprovider = \"bank\"\n\
        [[route]]\nname = \"kept\"\npath = \"/echo\"\nstrip = false\nprovider = \"bank\"\n\
        [[route]]\nname = \"inner\"\npath = \"/inner\"\nprovider = \"bank\"\nlisteners = [\"inner\"]\n";
    let mut plan = Plan::default().with(&sim, "bank", "", more);
    plan.config += "\n[[listener]]\nname = \"inner\"\nbind = \"127.0.0.1:0\"\n";
    let stage = plan.start();
    let inner = stage.running.address("inner").expect("a second listener");
    converse(async {
        let kept = stage.client.send(get("/echo/kept", KEY)).await;
        assert_eq!((kept.status, kept.json()["path"].as_str()), (200, Some("/api/echo/kept")));
        assert_eq!(stage.client.send(get("/inner/echo/x", KEY)).await.error(), "route-not-found");
        let mut named = get("/echo/named?a", KEY);
        named.headers_mut().insert("host", "Bank.Example:8443".parse().expect("a host"));
        // TLS was asked for another name.
        assert_eq!(stage.client.send(named.clone()).await.error(), "misdirected-request");
        let over_http = |request: http::Request<Full<Bytes>>| async move {
            let stream = tokio::net::TcpStream::connect(inner).await.expect("connected");
            let io = hyper_util::rt::TokioIo::new(stream);
            let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.expect("HTTP");
            tokio::task::spawn_local(async move {
                let _ = connection.await;
            });
            Whole::read(sender.send_request(request).await.expect("an answer")).await.expect("whole")
        };
        let answer = over_http(named).await;
        assert_eq!((answer.status, answer.json()["path"].as_str()), (200, Some("/api/echo/named")), "{answer:?}");
        assert_eq!(over_http(get("/inner/echo/x", KEY)).await.status, 200);
        assert_eq!(over_http(get("/bank/echo/x", KEY)).await.error(), "route-not-found");
    });
    drop(stage);
}

// T12, T13
#[test]
fn what_a_client_must_not_say_is_taken_off_in_any_spelling() {
    let (sim, stage) = plain("headers = { channel = \"scbeasy\" }");
    let gone = [
        "Via",
        "FORWARDED",
        "x-forwarded-for",
        "X_Forwarded_For",
        "x-forwarded_host",
        "X-Forwarded-Proto",
        "proxy-connection",
        "Proxy-Foo",
        "proxy_authorization",
        "Keep-Alive",
        "Upgrade",
        "x-secret",
    ];
    converse(async {
        let mut fields: String = gone.iter().map(|name| format!("{name}: 1\n")).collect();
        fields += "connection: x-secret, authorization, channel\nchannel: forged\nx-kept: a\nx-kept: b";
        let fields = fields.replace("proxy_authorization: 1\n", "proxy_authorization: Bearer forged\n");
        let answer = raw_text(&stage, &raw("GET", "/bank/echo/x", "HTTP/1.1", &fields, "")).await;
        assert_eq!(status(&answer), 200, "{answer}");
    });
    let arrivals = sim.received();
    let arrival = arrivals.last().expect("it arrived");
    for name in gone {
        assert_eq!(arrival.count(&name.to_ascii_lowercase()), 0, "{name}");
    }
    assert_eq!((arrival.count("authorization"), arrival.count("channel"), arrival.count("x-kept")), (1, 1, 2));
    assert_eq!(arrival.header("channel"), Some("scbeasy"));
    assert_eq!(arrival.bearer(), Some(sim.issued()[0].expose_secret()));
    drop(stage);
}

#[test]
fn methods_that_echo_are_never_forwarded() {
    let (sim, stage) = plain("");
    converse(async {
        for method in ["TRACE", "TRACK", "trace"] {
            let answer = raw_text(&stage, &raw(method, "/bank/echo/x", "HTTP/1.1", "connection: close", "")).await;
            assert_eq!(status(&answer), 405, "{method}: {answer}");
            assert!(answer.contains("\r\nallow: "), "{answer}");
        }
        let connect = format!(
            "CONNECT bank.example:443 HTTP/1.1\r\nhost: bank.example:443\r\nauthorization: Bearer {KEY}\r\n\r\n"
        );
        let answer = raw_text(&stage, connect.as_bytes()).await;
        assert!(matches!(status(&answer), 400..=499), "{answer}");
        let star = raw_text(&stage, &raw("OPTIONS", "*", "HTTP/1.1", "connection: close", "")).await;
        assert_eq!(status(&star), 404, "{star}");
        let h2c = "connection: upgrade, http2-settings\nupgrade: h2c\nhttp2-settings: AAMAAABkAAQAoAAAAAIAAAAA";
        let answer = raw_text(&stage, &raw("GET", "/bank/echo/x", "HTTP/1.1", h2c, "")).await;
        assert_eq!(status(&answer), 200, "{answer}");
    });
    let arrivals = sim.received();
    let arrival = arrivals.last().expect("it arrived");
    assert_eq!(arrival.count("upgrade") + arrival.count("http2-settings"), 0);
    assert_eq!(sim.resource_calls(), 1);
    drop(stage);
}

#[test]
fn a_redirect_and_the_providers_own_fields_pass_untouched() {
    let (sim, stage) = plain("");
    converse(async {
        let headers = [
            ("location", "https://elsewhere.example/next?x=1"),
            ("server", "bank/1.0"),
            ("set-cookie", "a=b; HttpOnly"),
            ("date", "Tue, 15 Nov 1994 08:12:31 GMT"),
            ("www-authenticate", "Negotiate"),
            ("connection", "x-hop"),
            ("x-hop", "1"),
            ("keep-alive", "timeout=5"),
        ];
        sim.change(|faults| faults.resource = SimFault::new(ResponseFault::Verbatim(Verbatim::bare(302, &headers))));
        let answer = stage.client.send(get("/bank/x", KEY)).await;
        assert_eq!(answer.status, 302);
        for (name, value) in &headers[..5] {
            assert_eq!(answer.headers.get_all(*name).iter().count(), 1, "{name}");
            assert_eq!(answer.header(name), *value);
        }
        for name in ["connection", "x-hop", "keep-alive"] {
            assert_eq!(answer.header(name), "", "{name}");
        }
        assert_eq!(sim.resource_calls(), 1, "not followed");
    });
    drop(stage);
}

/// A RAKBANK whose account stands in the body.
fn by_body(route: &str, clients: &str) -> (SimHandle, Harness) {
    let sim = bank(Bank::Rakbank);
    let mut plan = Plan::default().with(
        &sim,
        "rak",
        "oauth_metadata = { account_id = { var = \"account\" } }",
        &format!("vars = {{ account = {{ json = \"/debit/account\", pattern = \"[0-9]{{13}}\" }} }}\n{route}"),
    );
    plan.clients += clients;
    (sim, plan.start())
}

#[test]
fn a_variable_in_the_body_picks_the_token_and_the_body_passes_byte_for_byte() {
    let (sim, stage) = by_body("replay_limit = \"2KiB\"", "");
    converse(async {
        let body = "{ \"debit\" : {\"account\":\"0188000049916\"}, \"x\": 1.50, \"y\":\"\\u0041\" }\n";
        let first = stage.client.send(post("/rak/echo/a", KEY, body)).await;
        assert_eq!(first.status, 200, "{first:?}");
        let number = stage.client.send(post("/rak/echo/b", KEY, "{\"debit\":{\"account\":1188000049916}}")).await;
        assert_eq!((number.status, sim.token_calls()), (200, 2), "one token per account");
        sim.revoke_all();
        let replayed = stage.client.send(post("/rak/echo/c", KEY, body)).await;
        assert_eq!(replayed.status, 200);
        assert!(replayed.header("proxy-status").contains("replayed"), "{replayed:?}");
        let calls = (sim.token_calls(), sim.resource_calls());
        let large = format!("{{\"debit\":{{\"account\":\"0188000049916\"}},\"x\":\"{}\"}}", "x".repeat(4000));
        let deep = format!("{{\"x\":{}}}", "[".repeat(1900));
        for (name, body) in [
            ("nothing", ""),
            ("not JSON", "debit=1"),
            ("no such value", "{}"),
            ("null", "{\"debit\":{\"account\":null}}"),
            ("a misfit", "{\"debit\":{\"account\":\"188000049916\"}}"),
            ("twice", "{\"debit\":{\"account\":\"0188000049916\",\"account\":\"0188000049917\"}}"),
            ("two texts", "{\"debit\":{\"account\":\"0188000049916\"}} {}"),
            ("deep", &deep),
            ("large", &large),
        ] {
            let answer = stage.client.send(post("/rak/echo/x", KEY, body.to_owned())).await;
            assert_eq!((answer.status, answer.error().as_str()), (400, "malformed-request"), "{name}: {answer:?}");
            assert!(!answer.body.windows(6).any(|part| part == b"018800"), "{name}");
            let says_size = answer.json()["detail"].as_str().is_some_and(|detail| detail.contains("larger than"));
            assert_eq!(says_size, name == "large");
        }
        // The same without a length.
        let chunked = format!("{:x}\r\n{large}\r\n0\r\n\r\n", large.len());
        let answer =
            raw_text(&stage, &raw("POST", "/rak/echo/x", "HTTP/1.1", "transfer-encoding: chunked", &chunked)).await;
        assert_eq!(status(&answer), 400, "{answer}");
        assert_eq!((sim.token_calls(), sim.resource_calls()), calls, "nothing was spent");
    });
    let arrivals = sim.received();
    let bodies =
        |end: &str| arrivals.iter().filter(|a| a.path.ends_with(end)).map(|a| a.body.clone()).collect::<Vec<_>>();
    let body = "{ \"debit\" : {\"account\":\"0188000049916\"}, \"x\": 1.50, \"y\":\"\\u0041\" }\n";
    assert_eq!(bodies("/echo/a"), [body]);
    assert_eq!(bodies("/echo/c"), [body, body]);
    drop(stage);
}

#[test]
fn a_client_may_name_only_the_values_it_was_given() {
    let bound = "vars = { account = [\"0188000049916\"] }\n";
    let (sim, stage) = by_body("", bound);
    converse(async {
        let account = |account: &str| post("/rak/echo/x", KEY, format!("{{\"debit\":{{\"account\":\"{account}\"}}}}"));
        assert_eq!(stage.client.send(account("0188000049916")).await.status, 200);
        let other = stage.client.send(account("0188000049917")).await;
        assert_eq!((other.status, other.error().as_str()), (403, "client-not-allowed"));
        assert_eq!((sim.token_calls(), sim.resource_calls()), (1, 1));
    });
    drop(stage);
}

#[test]
fn a_routes_limit_holds_requests_and_then_refuses_them() {
    let (sim, stage) = plain(
        "rate_limit = { requests = 2, per = \"600ms\", wait = \"700ms\" }\n[[route]]\nname = \"free\"\npath = \"/free\"\nprovider = \"bank\"",
    );
    converse(async {
        assert_eq!(stage.client.send(get("/free/echo/warm", KEY)).await.status, 200);
        let mut calls = Vec::new();
        for n in 0..8 {
            let client = stage.client.clone();
            calls
                .push(tokio::task::spawn_local(async move { client.send(get(&format!("/bank/echo/{n}"), KEY)).await }));
        }
        let mut passed = 0;
        for call in calls {
            let answer = call.await.expect("no panic");
            if answer.status == 200 {
                passed += 1;
                continue;
            }
            assert_eq!((answer.status, answer.error().as_str()), (429, "rate-limited"));
            assert!(answer.header("retry-after").parse::<u64>().is_ok_and(|seconds| seconds >= 1));
        }
        // Two at once, then one each 300 ms within the wait.
        assert!((3..=6).contains(&passed), "{passed} passed");
        assert_eq!(sim.resource_calls(), 1 + passed);
        assert_eq!(stage.client.send(get("/free/echo/x", KEY)).await.status, 200, "another route is as free as before");
    });
    drop(stage);
}

// T38
#[test]
fn heads_and_targets_are_bounded() {
    // Over h2, the bank's own limits are lower.
    let sim = Sim::start(Bank::OAuth2, SimOptions { only_http1: true, ..SimOptions::default() }).expect("a simulator");
    let stage = Plan::default().with(&sim, "bank", "", "").start();
    converse(async {
        let many: String = (0..120).map(|n| format!("x-{n}: 1\n")).collect();
        let answer = raw_text(&stage, &raw("GET", "/bank/echo/x", "HTTP/1.1", &many, "")).await;
        assert_eq!(status(&answer), 431, "{answer}");
        let large = format!("x-large: {}", "x".repeat(33 << 10));
        let answer = raw_text(&stage, &raw("GET", "/bank/echo/x", "HTTP/1.1", &large, "")).await;
        assert_eq!(status(&answer), 431, "{answer}");
        let fits = format!("x-large: {}", "x".repeat(30 << 10));
        assert_eq!(status(&raw_text(&stage, &raw("GET", "/bank/echo/x", "HTTP/1.1", &fits, "")).await), 200);
        let long = format!("/bank/echo/x?{}", "x".repeat(8 << 10));
        let answer = stage.client.send(get(&long, KEY)).await;
        assert_eq!((answer.status, answer.error().as_str()), (414, "overloaded"));
        let fits = format!("/bank/echo/x?{}", "x".repeat(8000));
        assert_eq!(stage.client.send(get(&fits, KEY)).await.status, 200);
        let mut sender = stage.client.http2().await;
        let asked =
            http::Request::get(format!("https://localhost{long}")).header("authorization", format!("Bearer {KEY}"));
        let asked = asked.body(Full::new(Bytes::new())).expect("a request");
        assert_eq!(sender.send_request(asked).await.expect("an answer").status(), 414);
    });
    assert_eq!(sim.resource_calls(), 2);
    drop(stage);
    let sim = bank(Bank::OAuth2);
    let stage =
        Plan { limits: "header_timeout = \"300ms\"".to_owned(), ..Plan::default() }.with(&sim, "bank", "", "").start();
    converse(async {
        let half = format!("GET /bank/echo/x HTTP/1.1\r\nauthorization: Bearer {KEY}\r\n");
        let answer = stage.client.raw(half.as_bytes(), Duration::from_secs(20)).await;
        assert_eq!(status(&String::from_utf8_lossy(&answer)), 408);
    });
    drop(stage);
}

// T38, T40
#[test]
fn a_body_that_comes_too_slowly_is_given_up() {
    let hand = ManualClock::at(Clock::System.now());
    let sim = bank(Bank::OAuth2);
    let plan = Plan { clock: Clock::Manual(hand.clone()), workers: 1, ..Plan::default() };
    let stage = plan.with(&sim, "bank", "", "").start();
    converse(async {
        assert_eq!(stage.client.send(get("/bank/echo/warm", KEY)).await.status, 200);
        let mut stream = stage.client.tls(&[b"http/1.1"]).await.expect("TLS");
        stream
            .write_all(&raw("POST", "/bank/payments/SLOW", "HTTP/1.1", "content-length: 100000", "begun"))
            .await
            .expect("written");
        let mut answer = String::new();
        let reading = stream.read_to_string(&mut answer);
        let moving = async {
            // The request must be under way before its time runs.
            while sim.open_connections() == 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            loop {
                tokio::time::sleep(Duration::from_millis(200)).await;
                hand.advance(Duration::from_secs(4));
            }
        };
        tokio::select! {
            read = reading => { read.expect("an answer, then the end"); }
            () = moving => {}
        }
        assert_eq!(status(&answer), 408, "{answer}");
        assert!(
            answer.contains("urn:countersign:error:overloaded") && answer.contains("\r\nconnection: close\r\n"),
            "{answer}"
        );
    });
    assert!(sim.payments().is_empty());
    let lines = stage.stop();
    assert_eq!(lines[1]["http.response.status_code"], 408);
}

#[test]
fn bodies_beyond_the_processs_budget_stream_and_cannot_be_replayed() {
    let sim = bank(Bank::OAuth2);
    let stage =
        Plan { limits: "buffered_bytes = \"300KiB\"".to_owned(), ..Plan::default() }.with(&sim, "bank", "", "").start();
    let body = vec![7_u8; 200 << 10];
    converse(async {
        assert_eq!(stage.client.send(get("/bank/echo/warm", KEY)).await.status, 200);
        // One holds most of the budget while it waits for the rest of its body.
        let mut holder = stage.client.tls(&[b"http/1.1"]).await.expect("TLS");
        holder
            .write_all(&raw("POST", "/bank/echo/held", "HTTP/1.1", &format!("content-length: {}", body.len() + 1), ""))
            .await
            .expect("written");
        holder.write_all(&body).await.expect("written");
        holder.flush().await.expect("flushed");
        tokio::time::sleep(Duration::from_millis(300)).await;
        sim.revoke_all();
        let second = stage.client.send(post("/bank/echo/second", KEY, body.clone())).await;
        assert_eq!(second.status, 401, "it streamed, and was refused");
        assert!(second.header("proxy-status").contains("not-replayed"), "{second:?}");
        holder.write_all(b"!").await.expect("written");
        let mut head = [0; 12];
        holder.read_exact(&mut head).await.expect("an answer");
        assert_eq!(&head, b"HTTP/1.1 200", "the first was replayed");
        drop(holder);
        sim.revoke_all();
        let third = stage.client.send(post("/bank/echo/third", KEY, body.clone())).await;
        assert_eq!(third.status, 200, "the budget is free again");
        assert_eq!(third.json()["body"]["sha256"], hex(&sha256(&body)));
    });
    drop(stage);
}

/// An answer that holds a bank's token in its head and in its body.
fn echo_of(token: &str, coding: &str) -> Verbatim {
    let mut headers =
        vec![("content-type".to_owned(), "text/plain".to_owned()), ("x-debug".to_owned(), format!("tok={token}"))];
    if !coding.is_empty() {
        headers.push(("content-encoding".to_owned(), coding.to_owned()));
    }
    Verbatim { status: 200, headers, body: format!("before {token} after").into() }
}

// T17
#[test]
fn an_echoed_credential_is_masked_blocked_or_left_as_the_route_says() {
    for (reflection, expected) in [("", 200), ("reflection = \"block\"", 502), ("reflection = \"off\"", 200)] {
        let (sim, stage) = plain(reflection);
        converse(async {
            assert_eq!(stage.client.send(get("/bank/echo/warm", KEY)).await.status, 200);
            let token = sim.issued()[0].expose_secret().to_owned();
            let stars = "*".repeat(token.len());
            sim.change(|faults| faults.resource = SimFault::new(ResponseFault::Verbatim(echo_of(&token, ""))));
            let answer = stage.client.send(get("/bank/x", KEY)).await;
            assert_eq!(answer.status, expected, "{reflection}: {answer:?}");
            let body = String::from_utf8_lossy(&answer.body).into_owned();
            match reflection {
                "" => {
                    assert_eq!(body, format!("before {stars} after"));
                    assert_eq!(answer.header("x-debug"), format!("tok={stars}"));
                    // In drops, so that it never comes in one piece.
                    sim.change(|faults| {
                        faults.resource =
                            SimFault::new(ResponseFault::SlowBody { chunk: 7, pause: Duration::from_millis(1) });
                    });
                    let whole = stage.client.send(get("/bank/download?bytes=200", KEY)).await;
                    assert_eq!(whole.body.len(), 200);
                    let secret = sim.credentials().secret().expose_secret();
                    let verbatim = Verbatim {
                        status: 200,
                        headers: Vec::new(),
                        body: STANDARD.encode(format!("id:{secret}")).into(),
                    };
                    sim.change(|faults| faults.resource = SimFault::new(ResponseFault::Verbatim(verbatim)));
                    let coded = stage.client.send(get("/bank/x", KEY)).await;
                    assert!(String::from_utf8_lossy(&coded.body).contains("********"), "{coded:?}");
                    // What cannot be read is passed as it came.
                    sim.change(|faults| {
                        faults.resource = SimFault::new(ResponseFault::Verbatim(Verbatim {
                            headers: vec![("content-encoding".into(), "br".into())],
                            ..echo_of(&token, "")
                        }))
                    });
                    let packed = stage.client.send(get("/bank/x", KEY)).await;
                    assert!(String::from_utf8_lossy(&packed.body).contains(&token));
                }
                "reflection = \"off\"" => {
                    assert!(body.contains(&token) && answer.header("x-debug").contains(&token));
                }
                _ => {
                    assert_eq!(answer.error(), "upstream-protocol");
                    assert!(!body.contains(&token));
                    let only_body = Verbatim { headers: Vec::new(), ..echo_of(&token, "") };
                    sim.change(|faults| faults.resource = SimFault::new(ResponseFault::Verbatim(only_body)));
                    assert_eq!(stage.client.send(get("/bank/x", KEY)).await.error(), "upstream-protocol");
                    sim.set(Faults::default());
                    let fine = stage.client.send(get("/bank/download?bytes=300000", KEY)).await;
                    assert_eq!((fine.status, fine.body.len()), (200, 300_000), "nothing to block");
                }
            }
            let metrics = String::from_utf8_lossy(&stage.admin("/metrics").await.body).into_owned();
            let counted =
                metrics.lines().find_map(|line| line.strip_prefix("countersign_reflections_total{provider=\"bank\"} "));
            assert_eq!(counted.is_some_and(|count| count != "0"), reflection != "reflection = \"off\"", "{counted:?}");
        });
        let text = stage.log.text();
        assert!(!text.contains(sim.issued()[0].expose_secret()));
        drop(stage);
    }
}

// T17
#[test]
fn an_answer_with_two_lengths_is_refused_and_leftover_bytes_are_never_read_as_an_answer() {
    let chunks = "5\r\nhello\r\n0\r\n\r\n";
    let evil = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil";
    let bad = [
        format!("HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n{chunks}"),
        format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n{chunks}"),
        format!("HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n{chunks}"),
        format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n{chunks}"),
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!".to_owned(),
        "HTTP/1.1 200 OK\r\ncontent-length: 5, 6\r\n\r\nhello!".to_owned(),
        "HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\nhello".to_owned(),
        "HTTP/1.1 200 OK\r\nx: a\0b\r\ncontent-length: 0\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nx : a\r\ncontent-length: 0\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nx: a\r\n folded\r\ncontent-length: 0\r\n\r\n".to_owned(),
        "HTTP/9.9 200 OK\r\ncontent-length: 0\r\n\r\n".to_owned(),
        "hello".to_owned(),
    ];
    let over = [
        ("GET", format!("HTTP/1.1 204 No Content\r\n\r\n{evil}"), 204),
        ("GET", format!("HTTP/1.1 304 Not Modified\r\ncontent-length: 40\r\n\r\n{evil}"), 304),
        ("HEAD", format!("HTTP/1.1 200 OK\r\ncontent-length: 40\r\n\r\n{evil}"), 200),
        ("GET", format!("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok{evil}"), 200),
        ("GET", format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n{evil}"), 200),
    ];
    let sim = bank(Bank::OAuth2);
    let (all_bad, all_over) = (bad.clone(), over.clone());
    let stages = converse(async {
        let scripted = ScriptedSource::start(&sim, move |head, mut line| {
            let number =
                |prefix: &str| head.split(prefix).nth(1).and_then(|rest| rest.split(' ').next()?.parse::<usize>().ok());
            let answer = match (number("/bad"), number("/over")) {
                (Some(n), _) => all_bad[n].clone(),
                (_, Some(n)) => all_over[n].1.clone(),
                (None, None) => "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nfine".to_owned(),
            };
            async move {
                line.write_all(answer.as_bytes()).await.ok()?;
                line.flush().await.ok()?;
                if answer == "hello" { None } else { Some(line) }
            }
        })
        .await;
        let stage = told(&sim, &scripted, "");
        for (n, text) in bad.iter().enumerate() {
            let answer = stage.client.send(post(&format!("/bank/bad{n}"), KEY, "{}")).await;
            assert_eq!((answer.status, answer.error().as_str()), (502, "upstream-protocol"), "{text}: {answer:?}");
        }
        for (n, (method, text, expected)) in over.iter().enumerate() {
            let answer = stage.client.send(request(method, &format!("/bank/over{n}"), KEY, &[], "")).await;
            assert_eq!(answer.status, *expected, "{text}");
            assert!(!answer.body.windows(4).any(|part| part == b"evil"), "{text}");
            for _ in 0..3 {
                let next = stage.client.send(get("/bank/next", KEY)).await;
                assert_eq!((next.status, &next.body[..]), (200, &b"fine"[..]), "after {text}");
            }
        }
        stage
    });
    drop(stages);
}

// T17
#[test]
fn an_echo_in_pieces_is_masked_and_events_are_not_held_back() {
    let sim = bank(Bank::OAuth2);
    let stage = converse(async {
        let go = std::rc::Rc::new(tokio::sync::Notify::new());
        let gone = go.clone();
        let scripted = ScriptedSource::start(&sim, move |head, mut line| {
            let gone = gone.clone();
            async move {
                let token = head.split("authorization: Bearer ").nth(1)?.lines().next()?.to_owned();
                line.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nd\r\ndata: hello\n\n\r\n")
                    .await
                    .ok()?;
                line.flush().await.ok()?;
                gone.notified().await;
                let (front, back) = token.split_at(token.len() / 2);
                // Pieces that come together: what begins in one and ends in the next is hidden as a whole.
                let pieces = ["data: ", front, back, "\n\n"].map(|piece| format!("{:x}\r\n{piece}\r\n", piece.len()));
                line.write_all(format!("{}0\r\n\r\n", pieces.concat()).as_bytes()).await.ok()?;
                line.flush().await.ok()?;
                Some(line)
            }
        })
        .await;
        let stage = told(&sim, &scripted, "");
        let mut sender = stage.client.http1().await;
        let mut body = sender.send_request(get("/bank/events", KEY)).await.expect("an answer").into_body();
        let first = body.frame().await.expect("a piece").expect("whole").into_data().expect("data");
        assert_eq!(first, "data: hello\n\n", "it came before the next was sent");
        go.notify_one();
        let rest = body.collect().await.expect("whole").to_bytes();
        let token = sim.issued()[0].expose_secret().len();
        assert_eq!(rest, format!("data: {}\n\n", "*".repeat(token)));
        stage
    });
    drop(stage);
}

// T40
#[test]
fn a_bank_that_hangs_holds_up_no_other() {
    let (hanging, quick) = (bank(Bank::OAuth2), bank(Bank::Meed));
    hanging.change(|faults| faults.resource.delay = Some(Duration::from_secs(20)));
    let plan = Plan { workers: 1, ..Plan::default() };
    let stage = plan.with(&hanging, "hanging", "", "").with(&quick, "quick", "", "").start();
    converse(async {
        let mut waiting = Vec::new();
        for _ in 0..200 {
            let client = stage.client.clone();
            waiting
                .push(tokio::task::spawn_local(async move { client.send(get("/hanging/echo/x", KEY)).await.status }));
        }
        while hanging.resource_calls() < 200 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        for _ in 0..20 {
            assert_eq!(stage.client.send(get("/quick/echo/x", KEY)).await.status, 200);
        }
        assert!(waiting.iter().all(|call| !call.is_finished()), "they still wait");
        waiting.iter().for_each(|call| call.abort());
    });
    drop(stage);
}

#[test]
fn requests_are_answered_in_their_order_in_whatever_pieces_they_arrive() {
    let (_sim, stage) = plain("");
    let mut requests = Vec::new();
    for n in 1..=6 {
        let body = "b".repeat(n * 7);
        let fields = if n % 2 == 0 { format!("content-length: {}\n", body.len()) } else { String::new() };
        let (method, body) = if n % 2 == 0 { ("POST", body.as_str()) } else { ("GET", "") };
        let last = if n == 6 { "connection: close\n" } else { "" };
        requests.extend(raw(method, &format!("/bank/echo/{n}"), "HTTP/1.1", &format!("{fields}{last}"), body));
    }
    converse(async {
        // A pause between pieces lets the connection be idle there, in the midst of a head, or of a body.
        for size in [1, 3, 40, 97, 150, 400, requests.len()] {
            let mut stream = stage.client.tls(&[b"http/1.1"]).await.expect("TLS");
            let read = async {
                for piece in requests.chunks(size) {
                    stream.write_all(piece).await.expect("written");
                    tokio::time::sleep(Duration::from_millis(if size > 3 { 20 } else { 1 })).await;
                }
                let mut answers = String::new();
                stream.read_to_string(&mut answers).await.expect("an end");
                answers
            };
            let answers = tokio::time::timeout(Duration::from_secs(30), read).await.expect("in time");
            let told: Vec<(u16, usize)> = answers
                .split("HTTP/1.1 ")
                .skip(1)
                .map(|answer| {
                    let (_, body) = answer.split_once("\r\n\r\n").expect("a head");
                    let body: serde_json::Value = serde_json::from_str(body).expect("the echo");
                    let number = body["path"].as_str().and_then(|path| path.rsplit('/').next()?.parse().ok());
                    assert_eq!(&answer[..3], "200");
                    (number.expect("a number"), body["body"]["length"].as_u64().expect("a length") as usize)
                })
                .collect();
            assert_eq!(told, [(1, 0), (2, 14), (3, 0), (4, 28), (5, 0), (6, 42)], "{size} bytes at a time");
        }
    });
}
