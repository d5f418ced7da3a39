//! What happens to a request as HTTP: what passes, what is taken off, what is refused.

use std::collections::BTreeSet;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use countersign::base::secret::{ExposeSecret, hex, sha256};
use countersign::base::time::{Clock, Hand};
use countersign::sim::{Bank, Close, Endpoint, Fault, Faults, SimHandle, Trouble, Verbatim};
use http_body_util::{BodyExt, Full};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::{Whole, converse, get, post, request};
use crate::stage::{KEY, OTHER_KEY, Plan, Stage, bank};
use crate::teller::Teller;

/// Long enough for an answer, short enough for a connection that stays open.
const BREATH: Duration = Duration::from_millis(700);

/// A textbook bank, with this said of its route.
fn plain(route: &str) -> (SimHandle, Stage) {
    let sim = bank(Bank::OAuth2);
    let stage = Plan::default().with(&sim, "bank", "", route).start();
    (sim, stage)
}

/// A stage whose route leads to a script.
fn told(sim: &SimHandle, teller: &Teller, route: &str) -> Stage {
    let route = format!("upstream = \"{}\"\n{route}", teller.base_url);
    Plan { workers: 1, ..Plan::default() }.with(sim, "bank", "", &route).start()
}

/// A request's bytes, with our key.
fn raw(method: &str, path: &str, version: &str, fields: &str, body: &str) -> Vec<u8> {
    let fields: String = fields.lines().map(|line| format!("{line}\r\n")).collect();
    format!("{method} {path} {version}\r\nhost: localhost\r\nauthorization: Bearer {KEY}\r\n{fields}\r\n{body}").into_bytes()
}

async fn raw_text(stage: &Stage, bytes: &[u8]) -> String {
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
        let teller = Teller::saying(
            &sim,
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-checksum, set-cookie\r\n\r\n\
             5\r\nhello\r\n0\r\nx-checksum: abc\r\nset-cookie: a=b\r\nx-unannounced: 1\r\n\r\n",
        )
        .await;
        let stage = told(&sim, &teller, "");
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
        assert_eq!((trailers.len(), trailers["x-checksum"].as_bytes()), (1, &b"abc"[..]));
        let heads = teller.heads.borrow();
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
        let teller = Teller::saying(
            &sim,
            format!(
                "HTTP/1.1 401 Unauthorized\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\
                 trailer: x-checksum\r\n\r\n{:x}\r\n{body}\r\n0\r\nx-checksum: abc\r\n\r\n",
                body.len()
            ),
        )
        .await;
        let stage = told(&sim, &teller, "");
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
        ] {
            let answer = raw_text(&stage, &bytes).await;
            assert_eq!(status(&answer), expected, "{name}: {answer}");
        }
        let refusing = Faults { token: Fault::new(Trouble::HtmlError(500)), ..Faults::default() };
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
fn interim_answers_end_here_and_a_flood_of_them_ends_the_exchange() {
    let sim = bank(Bank::OAuth2);
    let stage = converse(async {
        let teller = Teller::start(&sim, |head, mut line| async move {
            let count = if head.starts_with("GET /few") { 32 } else { 33 };
            for _ in 0..count {
                line.write_all(b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n").await.ok()?;
            }
            line.write_all(b"HTTP/1.1 102 Processing\r\n\r\n"[..if count == 32 { 0 } else { 27 }].as_ref()).await.ok()?;
            line.flush().await.ok()?;
            if count == 32 {
                line.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.ok()?;
            }
            Some(line)
        })
        .await;
        let stage = told(&sim, &teller, "");
        let few = raw_text(&stage, &raw("GET", "/bank/few", "HTTP/1.1", "", "")).await;
        assert_eq!(status(&few), 200, "{few}");
        assert!(!few.contains("103"), "{few}");
        let flood = stage.client.send(get("/bank/many", KEY)).await;
        assert_eq!((flood.status, flood.error().as_str()), (502, "upstream-protocol"));
        stage
    });
    drop(stage);
}

#[test]
fn a_switch_of_protocols_that_nobody_asked_for_is_no_answer() {
    let sim = bank(Bank::OAuth2);
    let stage = converse(async {
        let teller = Teller::saying(
            &sim,
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        )
        .await;
        let stage = told(&sim, &teller, "");
        let plain = stage.client.send(get("/bank/x", KEY)).await;
        assert_eq!((plain.status, plain.error().as_str()), (502, "upstream-protocol"));
        let asked = [("connection", "upgrade"), ("upgrade", "websocket"), ("sec-websocket-key", "dGVzdA==")];
        let upgrade = stage.client.send(request("GET", "/bank/x", KEY, &asked, "")).await;
        assert_eq!((upgrade.status, upgrade.error().as_str()), (502, "upstream-protocol"), "the route permits none");
        assert!(teller.heads.borrow().iter().all(|head| !head.to_ascii_lowercase().contains("\r\nupgrade:")));
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
async fn echo_teller(sim: &SimHandle, refusals: u32) -> Teller {
    let left = std::rc::Rc::new(std::cell::Cell::new(refusals));
    Teller::start(sim, move |head, mut line| {
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
    let stage = converse(async {
        let teller = echo_teller(&sim, 0).await;
        let stage = told(&sim, &teller, "upgrade = [\"websocket\"]");
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
        assert_eq!(teller.connections.get(), 1);
        let bearer = format!("\r\nauthorization: Bearer {}\r\n", sim.issued()[0].expose_secret());
        assert!(teller.heads.borrow()[0].contains(&bearer));
        // Its connection is nobody else's.
        let mut again = stage.client.tls(&[b"http/1.1"]).await.expect("TLS");
        again.write_all(&raw("GET", "/bank/ws/echo", "HTTP/1.1", WEBSOCKET, "")).await.expect("written");
        again.read_exact(&mut [0; 12]).await.expect("an answer");
        assert_eq!(teller.connections.get(), 2);
        stage
    });
    let lines = stage.stop();
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
        let teller = echo_teller(&sim, 1).await;
        let route = format!(
            "upgrade = [\"websocket\"]\ntimeouts = {{ body_idle = \"300ms\" }}\n[[route]]\nname = \"warm\"\npath = \"/warm\"\nprovider = \"bank\"\n"
        );
        let stage = told(&sim, &teller, &route);
        assert_eq!(stage.client.send(get("/warm/echo/x", KEY)).await.status, 200, "the token is at hand");
        // Both sides are silent: the connection ends by itself.
        let ask = raw("GET", "/bank/ws/echo", "HTTP/1.1", WEBSOCKET, "");
        let bytes = stage.client.raw(&ask, Duration::from_secs(20)).await;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        assert_eq!(status(&text), 101, "{text}");
        assert!(text.ends_with("\r\n\r\nwelcome"), "{text}");
        assert_eq!(teller.heads.borrow().len(), 2);
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
        assert_eq!(status(&raw_text(&stage, modern.as_bytes()).await), 401, "nobody is told more before they are known");
        let modern = format!("GET /bank/echo/x HTTP/1.1\r\nauthorization: Bearer {KEY}\r\n\r\n");
        assert_eq!(status(&raw_text(&stage, modern.as_bytes()).await), 400, "HTTP/1.1 names a host");
    });
    let arrivals = sim.received();
    assert!(arrivals.iter().all(|arrival| arrival.version != http::Version::HTTP_10));
    drop(stage);
}

#[test]
fn a_client_that_said_all_it_had_to_say_still_gets_its_answer() {
    let (sim, stage) = plain("");
    sim.change(|faults| faults.resource.delay = Some(Duration::from_millis(200)));
    converse(async {
        for body in ["", "hello"] {
            let mut stream = stage.client.tls(&[b"http/1.1"]).await.expect("TLS");
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
