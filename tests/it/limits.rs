//! What one peer may cost: answers that it does not take, handshakes that it does not finish, heads, the admin listener.
//! And how a connection ends that is closed as planned.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use countersign::sim::{self, Bank, Sim};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::client::{Whole, converse, get};
use crate::frames::{Ending, GOAWAY, Line, NO_ERROR, PREFACE, SETTINGS, frame};
use crate::harness::{Harness, KEY, Plan, bank};

const PATIENCE: Duration = Duration::from_secs(10);

/// A request over HTTP/2.
fn over_http2(path: &str, key: &str) -> http::Request<Full<Bytes>> {
    let request = http::Request::get(format!("https://localhost{path}"));
    let request = if key.is_empty() { request } else { request.header("authorization", format!("Bearer {key}")) };
    request.body(Full::default()).expect("a request")
}

/// A plain connection from this host of the loopback network.
async fn connect(address: SocketAddr, host: u8) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind((Ipv4Addr::new(127, 0, 7, host), 0).into()).expect("bound");
    socket.connect(address).await.expect("connected")
}

/// What a limit has ended.
async fn limited(stage: &Harness, limit: &str) -> u64 {
    let metrics = stage.admin("/metrics").await;
    let text = String::from_utf8(metrics.body.to_vec()).expect("text");
    let name = format!("countersign_limited_total{{limit=\"{limit}\"}} ");
    let value = text.lines().find_map(|line| line.strip_prefix(&name)).unwrap_or_else(|| panic!("no {name}"));
    value.parse().expect("a number")
}

async fn until(what: &str, mut so: impl AsyncFnMut() -> bool) {
    for _ in 0..500 {
        if so().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what} did not happen");
}

#[test]
fn an_answer_that_its_client_does_not_take_is_given_up_with_the_banks_connection() {
    let options = sim::SimOptions { only_http1: true, ..sim::SimOptions::default() };
    let sim = Sim::start(Bank::OAuth2, options).expect("a simulator");
    let plan = Plan { limits: "header_timeout = \"300ms\"".to_owned(), workers: 1, ..Plan::default() };
    let stage = plan.with(&sim, "bank", "timeouts = { body_idle = \"300ms\" }", "").start();
    converse(async {
        assert_eq!(stage.client.send(get("/bank/echo/warm", KEY)).await.status, 200);
        let mut stuck = stage.client.tls(&[b"http/1.1"]).await.expect("TLS");
        let ask = format!(
            "GET /bank/download?bytes=90000000 HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {KEY}\r\n\r\n"
        );
        stuck.write_all(ask.as_bytes()).await.expect("written");
        until("the bank's connection closed", async || sim.open_connections() == 0).await;
        // Over HTTP/2 the stream goes, and the connection serves on.
        let mut sender = stage.client.http2().await;
        let answer = sender.send_request(over_http2("/bank/download?bytes=90000000", KEY)).await.expect("an answer");
        until("the stream was reset", async || limited(&stage, "client_stalled").await == 2).await;
        until("the bank's connection closed", async || sim.open_connections() == 0).await;
        let next = sender.send_request(over_http2("/bank/download?bytes=1000", KEY)).await.expect("an answer");
        assert_eq!(Whole::read(next).await.expect("whole").body.len(), 1000);
        assert!(Whole::read(answer).await.is_err(), "half an answer must not look whole");
        drop(stuck);
    });
    let lines = stage.stop();
    let told: Vec<_> = lines.iter().filter(|line| line["error.type"] == "client-stalled").collect();
    assert_eq!(told.len(), 2, "{lines:#?}");
    assert!(told.iter().all(|line| line["complete"] == false && line["http.response.status_code"] == 200));
}

#[test]
fn a_slow_reader_that_reads_is_served_to_the_end() {
    let sim = bank(Bank::OAuth2);
    let plan = Plan { limits: "header_timeout = \"200ms\"".to_owned(), ..Plan::default() };
    let stage = plan.with(&sim, "bank", "timeouts = { body_idle = \"400ms\" }", "").start();
    converse(async {
        for http2 in [false, true] {
            let mut body = if http2 {
                let mut sender = stage.client.http2().await;
                let asked = over_http2("/bank/download?bytes=12000000", KEY);
                sender.send_request(asked).await.expect("an answer").into_body()
            } else {
                let mut sender = stage.client.http1::<Full<Bytes>>().await;
                let asked = get("/bank/download?bytes=12000000", KEY);
                sender.send_request(asked).await.expect("an answer").into_body()
            };
            // Two seconds for the whole of it, and never a pause of `body_idle`.
            let (mut read, mut rest) = (0, 0);
            while let Some(frame) = body.frame().await {
                read += frame.expect("the answer goes on").data_ref().map_or(0, Bytes::len);
                if read >= rest {
                    rest += 600_000;
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
            assert_eq!(read, 12_000_000, "over HTTP/2: {http2}");
        }
    });
    assert!(stage.stop().iter().all(|line| line["complete"] == true));
}

#[test]
fn a_refusal_that_never_fits_into_the_clients_window_keeps_no_connection() {
    let sim = bank(Bank::OAuth2);
    let plan = Plan { limits: "header_timeout = \"200ms\"\nidle_timeout = \"200ms\"".to_owned(), ..Plan::default() };
    let stage = plan.with(&sim, "bank", "", "").start();
    converse(async {
        let stream = stage.client.tls(&[b"h2"]).await.expect("TLS");
        let handshake = h2::client::Builder::new().initial_window_size(0).handshake::<_, Bytes>(stream).await;
        let (mut sender, connection) = handshake.expect("HTTP/2");
        let closed = tokio::task::spawn_local(connection);
        let (head, body) = over_http2("/bank/x", "").into_parts();
        drop(body);
        let (answer, _) = sender.send_request(http::Request::from_parts(head, ()), true).expect("sent");
        let answer = timeout(PATIENCE, answer).await.expect("in time").expect("a head");
        assert_eq!(answer.status(), 401);
        let _ = timeout(PATIENCE, closed).await.expect("the connection ends");
        drop(answer);
    });
    let lines = stage.stop();
    assert_eq!((lines.len(), &lines[0]["complete"]), (1, &serde_json::json!(false)));
    assert_eq!(lines[0]["error.type"], "client-unidentified");
}

#[test]
fn a_head_has_as_many_fields_over_http2_as_over_http1() {
    let sim = bank(Bank::OAuth2);
    let plan = Plan { limits: "headers = 20".to_owned(), ..Plan::default() };
    let stage = plan.with(&sim, "bank", "", "").start();
    converse(async {
        let mut sender = stage.client.http2().await;
        let mut ask = async |fields: usize, cookies: usize| {
            let mut request = over_http2("/bank/echo/x", KEY);
            for n in 0..fields {
                let name = http::HeaderName::try_from(format!("x-{n}")).expect("a name");
                request.headers_mut().insert(name, http::HeaderValue::from_static("v"));
            }
            for _ in 0..cookies {
                request.headers_mut().append("cookie", http::HeaderValue::from_static("a=b"));
            }
            Whole::read(sender.send_request(request).await.expect("an answer")).await.expect("whole")
        };
        assert_eq!(ask(19, 0).await.status, 200);
        let refused = ask(20, 0).await;
        assert_eq!((refused.status, refused.error().as_str()), (431, "overloaded"));
        assert_eq!(ask(18, 30).await.status, 200, "a cookie may come in pieces");
    });
    assert_eq!(sim.resource_calls(), 2);
}

#[test]
fn handshakes_that_one_peer_leaves_unfinished_keep_no_other_out() {
    let sim = bank(Bank::OAuth2);
    let plan = Plan { limits: "handshakes = 4\nheader_timeout = \"30s\"".to_owned(), ..Plan::default() };
    let stage = plan.with(&sim, "bank", "", "").start();
    converse(async {
        let mut silent = Vec::new();
        for _ in 0..4 {
            silent.push(connect(stage.address, 9).await);
        }
        // They are accepted by two workers, in any order.
        tokio::time::sleep(Duration::from_millis(100)).await;
        for _ in 0..6 {
            assert_eq!(stage.client.calling_from(2).send(get("/bank/echo/x", KEY)).await.status, 200);
        }
        let mut end = [0; 1];
        let mut closed = 0;
        for stream in &mut silent {
            closed += u32::from(timeout(Duration::from_millis(50), stream.read(&mut end)).await.is_ok());
        }
        assert_eq!(closed, 1, "one place was all that was needed");
        assert!(limited(&stage, "handshakes").await >= 1);
    });
}

#[test]
fn a_connection_that_was_idle_ends_with_a_word() {
    let sim = bank(Bank::OAuth2);
    let plan = Plan { limits: "header_timeout = \"200ms\"\nidle_timeout = \"200ms\"".to_owned(), ..Plan::default() };
    let stage = plan.with(&sim, "bank", "", "").start();
    converse(async {
        let mut one = stage.client.tls(&[b"http/1.1"]).await.expect("TLS");
        let mut end = Vec::new();
        let read = timeout(PATIENCE, one.read_to_end(&mut end)).await.expect("in time");
        assert_eq!(read.expect("close_notify"), 0);
        let mut two = Line::new(stage.client.tls(&[b"h2"]).await.expect("TLS"));
        two.send([PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await;
        timeout(PATIENCE, two.rest()).await.expect("in time");
        assert_eq!(two.ending, Some(Ending::Closed));
        let goaway = two.seen.iter().rev().find(|frame| frame.kind == GOAWAY).expect("GOAWAY");
        assert_eq!(goaway.code(), Some(NO_ERROR));
    });
}

/// A stage with a listener without TLS.
fn with_plain_listener() -> (sim::SimHandle, Harness, SocketAddr) {
    let sim = bank(Bank::OAuth2);
    let plain = "[[listener]]\nname = \"plain\"\nbind = \"127.0.0.1:0\"\n".to_owned();
    let stage = Plan { config: plain, ..Plan::default() }.with(&sim, "bank", "", "").start();
    let address = stage.running.address("plain").expect("a listener");
    (sim, stage, address)
}

#[test]
fn http2_is_known_by_its_preface_where_there_is_no_tls() {
    let (_sim, _stage, address) = with_plain_listener();
    converse(async {
        let stream = TcpStream::connect(address).await.expect("connected");
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2");
        tokio::task::spawn_local(connection);
        for _ in 0..2 {
            let request = http::Request::get(format!("http://{address}/bank/echo/x"));
            let request = request.header("authorization", format!("Bearer {KEY}")).body(Full::<Bytes>::default());
            let answer = sender.send_request(request.expect("a request")).await.expect("an answer");
            assert_eq!(Whole::read(answer).await.expect("whole").status, 200);
        }
        // The preface may come in pieces, and what begins like it may be HTTP/1.1.
        let mut slow = TcpStream::connect(address).await.expect("connected");
        for piece in [&PREFACE[..1], &PREFACE[1..18], &PREFACE[18..], &frame(SETTINGS, 0, 0, &[])] {
            slow.write_all(piece).await.expect("written");
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        let mut head = [0; 9];
        timeout(PATIENCE, slow.read_exact(&mut head)).await.expect("in time").expect("settings");
        assert_eq!(head[3], SETTINGS);
        let mut posts = TcpStream::connect(address).await.expect("connected");
        for piece in ["P", "OST /bank/none HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n"] {
            posts.write_all(piece.as_bytes()).await.expect("written");
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        let mut status = [0; 12];
        timeout(PATIENCE, posts.read_exact(&mut status)).await.expect("in time").expect("an answer");
        assert_eq!(&status, b"HTTP/1.1 401");
    });
}

#[test]
fn http2_where_it_was_not_agreed_on_is_told_to_speak_http1() {
    let sim = bank(Bank::OAuth2);
    let stage = Plan::default().with(&sim, "bank", "", "").start();
    converse(async {
        let mut line = Line::new(stage.client.tls(&[b"http/1.1"]).await.expect("TLS"));
        line.send([PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await;
        timeout(PATIENCE, line.rest()).await.expect("in time");
        assert_eq!(line.ending, Some(Ending::Closed));
        let seen: Vec<_> = line.seen.iter().map(|frame| (frame.kind, frame.payload.as_slice())).collect();
        assert_eq!(seen, [(SETTINGS, &[][..]), (GOAWAY, &[0, 0, 0, 0, 0, 0, 0, 0x0d])]);
    });
}

#[test]
fn log_ins_that_do_not_come_keep_no_probe_out() {
    let sim = bank(Bank::OAuth2);
    let stage = Plan::default().with(&sim, "bank", "", "").start();
    let address = stage.running.admin.expect("an admin listener");
    converse(async {
        let login = format!(
            "POST /ui/login HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/x-www-form-urlencoded\r\n\
             content-length: 10000\r\n\r\na"
        );
        let mut held = Vec::new();
        for host in 1..=4 {
            for _ in 0..64 {
                let mut stream = connect(address, host).await;
                stream.write_all(login.as_bytes()).await.expect("written");
                held.push(stream);
            }
        }
        let mut answer = [0; 12];
        let mut late = connect(address, 1).await;
        let closed = timeout(PATIENCE, late.read(&mut answer)).await.expect("in time");
        assert!(closed.is_ok_and(|read| read == 0), "one peer has its share and no more");
        for _ in 0..3 {
            let mut probe = connect(address, 9).await;
            let ask = format!("GET /readyz HTTP/1.1\r\nhost: {address}\r\n\r\n");
            probe.write_all(ask.as_bytes()).await.expect("written");
            timeout(PATIENCE, probe.read_exact(&mut answer)).await.expect("in time").expect("an answer");
            assert_eq!(&answer, b"HTTP/1.1 200");
        }
    });
}
