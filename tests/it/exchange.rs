//! One exchange with a provider on a bad day: messages that are cut, tokens that end while a request waits, answers that
//! come early, bodies that drip, trailers.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use countersign::base::time::{Clock, ManualClock};
use countersign::sim::{Bank, ResponseFault, SimFault, SimHandle};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use rustls::version::TLS13;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use crate::client::{Whole, converse, get, post};
use crate::frames::{DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, RST_STREAM, SETTINGS, block, frame};
use crate::harness::{Harness, KEY, Plan, bank};
use crate::raw_server::{Call, RawServer, honest, read, respond};
use crate::scripted_server::ScriptedSource;

/// A proxy of one worker to this bank, whose route has these lines.
fn before(sim: &SimHandle, route: &str) -> Harness {
    Plan { workers: 1, ..Plan::default() }.with(sim, "bank", "", route).start()
}

async fn odd<F: Future<Output = ()> + 'static>(
    sim: &SimHandle,
    alpn: &[u8],
    play: impl Fn(Call) -> F + 'static,
) -> RawServer {
    RawServer::start(sim, &[alpn], &[&TLS13], play).await
}

/// Waits for something that another task does.
async fn until(so: impl Fn() -> bool) {
    let waiting = async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), waiting).await.expect("it happens in time");
}

/// A client's connection preface, and the head of a POST on stream 1 whose body follows.
fn opening(path: &str) -> Vec<u8> {
    let key = format!("Bearer {KEY}");
    let head = block(&[
        (":method", "POST"),
        (":scheme", "https"),
        (":authority", "localhost"),
        (":path", path),
        ("authorization", &key),
        ("content-type", "application/x-ndjson"),
    ]);
    let mut bytes = PREFACE.to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, &[]));
    bytes.extend(frame(HEADERS, END_HEADERS, 1, &head));
    bytes
}

/// A bank over HTTP/1.1 that notes how each chunked message ended: whole, or not.
async fn noting(sim: &SimHandle) -> (RawServer, Rc<RefCell<Vec<bool>>>, Rc<Cell<usize>>) {
    let (ends, bytes): (Rc<RefCell<Vec<bool>>>, Rc<Cell<usize>>) = Default::default();
    let (noted, counted) = (ends.clone(), bytes.clone());
    let bank = odd(sim, b"http/1.1", move |(mut tls, _, _)| {
        let (noted, counted) = (noted.clone(), counted.clone());
        async move {
            let mut came = Vec::new();
            let whole = loop {
                let mut piece = [0; 4096];
                match tls.read(&mut piece).await {
                    Ok(0) | Err(_) => break false,
                    Ok(read) => came.extend_from_slice(&piece[..read]),
                }
                counted.set(came.len());
                if came.ends_with(b"\r\n0\r\n\r\n") {
                    break true;
                }
            };
            if !came.is_empty() {
                noted.borrow_mut().push(whole);
            }
            let _ = tls.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        }
    })
    .await;
    (bank, ends, bytes)
}

// Ends.

#[test]
fn an_upload_that_is_aborted_without_an_error_never_looks_whole() {
    converse(async {
        let sim = bank(Bank::OAuth2);
        let (odd, ends, bytes) = noting(&sim).await;
        let stage = before(&sim, &odd.upstream());
        let mut tls = stage.client.tls(&[b"h2"]).await.expect("TLS");
        tls.write_all(&opening("/bank/pay")).await.expect("written");
        tls.write_all(&frame(DATA, 0, 1, b"{\"pay\":1}\n")).await.expect("written");
        until(|| bytes.get() > 0).await;
        // A piece and the reset together: both are there when the body is next asked for.
        let mut last = frame(DATA, 0, 1, b"{\"pay\":2}\n");
        last.extend(frame(RST_STREAM, 0, 1, &0_u32.to_be_bytes()));
        tls.write_all(&last).await.expect("written");
        until(|| !ends.borrow().is_empty()).await;
        assert_eq!(*ends.borrow(), [false]);
        drop(tls);
        assert_eq!(stage.stop()[0]["complete"], false);
    });
}

#[test]
fn half_a_body_that_is_gathered_first_is_not_sent_at_all() {
    converse(async {
        let sim = bank(Bank::OAuth2);
        let stage = before(&sim, "request_buffering = true");
        let mut tls = stage.client.tls(&[b"h2"]).await.expect("TLS");
        let mut bytes = opening("/bank/echo/pay");
        bytes.extend(frame(DATA, 0, 1, b"{\"pay\":1}\n"));
        bytes.extend(frame(RST_STREAM, 0, 1, &0_u32.to_be_bytes()));
        tls.write_all(&bytes).await.expect("written");
        until(|| stage.log.text().contains("/bank/echo/pay")).await;
        assert_eq!((sim.token_calls(), sim.resource_calls()), (0, 0));
        drop(stage);
    });
}

/// A bank over HTTP/2 that answers with this head and body and resets the stream with `NO_ERROR` in place of an end.
async fn cutting(sim: &SimHandle, status: u16, body: &'static str) -> RawServer {
    odd(sim, b"h2", move |(tls, number, book)| async move {
        let Ok(mut connection) = h2::server::handshake(tls).await else { return };
        while let Some(Ok((request, mut answer))) = connection.accept().await {
            let book = book.clone();
            tokio::task::spawn_local(async move {
                let seen = read(number, request).await;
                book.seen.borrow_mut().push(seen);
                let mut head = Response::new(());
                *head.status_mut() = StatusCode::from_u16(status).expect("a status");
                head.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
                let mut sent = answer.send_response(head, false).expect("sent");
                sent.send_data(Bytes::from_static(body.as_bytes()), false).expect("sent");
                // The reset would overtake what is not on the wire yet.
                tokio::time::sleep(Duration::from_millis(100)).await;
                sent.send_reset(h2::Reason::NO_ERROR);
            });
        }
    })
    .await
}

#[test]
fn an_answer_that_is_cut_without_an_error_is_a_broken_one() {
    converse(async {
        let sim = bank(Bank::OAuth2);
        let odd = cutting(&sim, 200, "{\"line\":1}\n").await;
        let stage = before(&sim, &odd.upstream());
        let mut sender = stage.client.http1().await;
        let response = sender.send_request(get("/bank/x", KEY)).await.expect("an answer");
        assert_eq!(response.status(), 200);
        let body = tokio::time::timeout(Duration::from_millis(1500), response.into_body().collect());
        assert!(body.await.expect("this is told at once").is_err(), "the end is missing");
        assert_eq!(stage.stop()[0]["complete"], false);
    });
}

#[test]
fn a_refusal_that_is_cut_proves_nothing_and_the_payment_is_sent_once() {
    converse(async {
        let sim = bank(Bank::Scb);
        // To the last byte what SCB says of an expired token, but for the end.
        let odd = cutting(&sim, 401, "{\"status\":{\"code\":9300,\"description\":\"expired\"}}").await;
        let other = "[[route]]\nname = \"warm\"\npath = \"/warm\"\nprovider = \"bank\"";
        let stage = before(&sim, &format!("{}\n{other}", odd.upstream()));
        assert_eq!(stage.client.send(get("/warm/echo/x", KEY)).await.status, 200);
        let mut sender = stage.client.http1().await;
        let answer = sender.send_request(post("/bank/pay", KEY, "{\"pay\":1}")).await.expect("an answer");
        assert_eq!(answer.status(), 401);
        assert!(answer.into_body().collect().await.is_err());
        assert_eq!(odd.book.seen.borrow().len(), 1, "the payment was sent once");
        assert!(sim.token_calls() <= 2, "a suspicion earns one renewal in the background");
        drop(stage);
    });
}

// Tokens that end while a request waits for its connection.

/// Holds connections to a bank back until it is told to let them go on.
struct Barrier {
    upstream: String,
    arrived: Rc<Cell<usize>>,
    opens: Rc<Notify>,
}

impl Barrier {
    async fn before(sim: &SimHandle) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let (bank, here) = (sim.address().port(), listener.local_addr().expect("an address").port());
        let url = sim.base_url().replace(&format!(":{bank}"), &format!(":{here}"));
        let upstream = format!("upstream = \"{url}\"");
        let (arrived, opens): (Rc<Cell<usize>>, Rc<Notify>) = Default::default();
        let (counted, opened, to) = (arrived.clone(), opens.clone(), sim.address());
        tokio::task::spawn_local(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                counted.set(counted.get() + 1);
                let opened = opened.clone();
                tokio::task::spawn_local(async move {
                    opened.notified().await;
                    let mut bank = TcpStream::connect(to).await.expect("connected");
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut bank).await;
                });
            }
        });
        Self { upstream, arrived, opens }
    }
}

/// A proxy with a route that goes straight to the bank, and one behind a barrier. The first token has been fetched.
async fn slow_and_fast(sim: &SimHandle, barrier: &Barrier, clock: Clock) -> Harness {
    let fast = "[[route]]\nname = \"fast\"\npath = \"/fast\"\nprovider = \"bank\"";
    let plan = Plan { workers: 1, clock, ..Plan::default() };
    let stage = plan.with(sim, "bank", "", &format!("{}\n{fast}", barrier.upstream)).start();
    assert_eq!(stage.client.send(get("/fast/echo/x", KEY)).await.status, 200);
    stage
}

#[test]
fn a_token_that_expires_while_a_request_connects_is_not_sent() {
    converse(async {
        let hand = ManualClock::at(Clock::System.now());
        let sim = bank(Bank::OAuth2);
        let barrier = Barrier::before(&sim).await;
        let stage = slow_and_fast(&sim, &barrier, Clock::Manual(hand.clone())).await;
        let asking = stage.client.send(post("/bank/echo/slow", KEY, "{}"));
        let meanwhile = async {
            until(|| barrier.arrived.get() == 1).await;
            sim.change(|faults| faults.token = SimFault::new(ResponseFault::HtmlError(503)));
            hand.advance(Duration::from_secs(365 * 24 * 3600));
            barrier.opens.notify_one();
        };
        let (answer, ()) = tokio::join!(asking, meanwhile);
        assert_eq!((answer.status, answer.error().as_str()), (503, "token-unavailable"), "{answer:?}");
        assert_eq!(sim.resource_calls(), 1, "the first call alone");
        drop(stage);
    });
}

#[test]
fn a_token_that_is_refused_while_another_request_connects_is_not_sent_again() {
    converse(async {
        let sim = bank(Bank::OAuth2);
        let barrier = Barrier::before(&sim).await;
        let stage = slow_and_fast(&sim, &barrier, Clock::System).await;
        let asking = stage.client.send(post("/bank/echo/slow", KEY, "{}"));
        let meanwhile = async {
            until(|| barrier.arrived.get() == 1).await;
            sim.revoke_all();
            let replayed = stage.client.send(post("/fast/echo/y", KEY, "{}")).await;
            assert!(replayed.header("proxy-status").contains("replayed"), "{replayed:?}");
            barrier.opens.notify_one();
        };
        let (answer, ()) = tokio::join!(asking, meanwhile);
        assert_eq!((answer.status, answer.header("proxy-status")), (200, ""), "{answer:?}");
        assert_eq!((sim.token_calls(), sim.resource_calls()), (2, 4), "two calls, a refusal and its replay");
        let lines = stage.stop();
        let slow = lines.iter().find(|line| line["url.path"] == "/bank/echo/slow").expect("a line");
        assert_eq!(slow["countersign.token_generation"], 2);
    });
}

// What was certainly not processed.

#[test]
fn the_first_post_of_all_is_sent_again_when_it_was_turned_away() {
    converse(async {
        let sim = bank(Bank::OAuth2);
        let turned = Rc::new(Cell::new(0));
        let counted = turned.clone();
        let odd = odd(&sim, b"h2", move |(tls, number, book)| {
            let counted = counted.clone();
            async move {
                let Ok(mut connection) = h2::server::handshake(tls).await else { return };
                while let Some(Ok((request, mut answer))) = connection.accept().await {
                    counted.set(counted.get() + 1);
                    if counted.get() == 1 {
                        answer.send_reset(h2::Reason::REFUSED_STREAM);
                        continue;
                    }
                    let book = book.clone();
                    tokio::task::spawn_local(async move {
                        let seen = read(number, request).await;
                        book.seen.borrow_mut().push(seen);
                        respond(answer, "ok");
                    });
                }
            }
        })
        .await;
        let stage = before(&sim, &odd.upstream());
        assert_eq!(stage.client.send(post("/bank/pay", KEY, "{\"pay\":1}")).await.status, 200);
        assert_eq!((turned.get(), &*odd.book.seen.borrow()[0].body), (2, &b"{\"pay\":1}"[..]));
        drop(stage);
    });
}

// Early answers.

/// A bank over HTTP/2 that answers from the head alone and never reads a body. Its streams are kept, so that none of them is
/// reset from its side; `over` counts closed connections, and `resets` notes what the client's side reset with.
async fn early(sim: &SimHandle, window: u32, over: Rc<Cell<usize>>, resets: Rc<RefCell<Vec<h2::Reason>>>) -> RawServer {
    odd(sim, b"h2", move |(tls, _, _)| {
        let (over, resets) = (over.clone(), resets.clone());
        async move {
            let mut builder = h2::server::Builder::new();
            let Ok(mut connection) = builder.initial_window_size(window).handshake::<_, Bytes>(tls).await else {
                return;
            };
            while let Some(Ok((request, mut answer))) = connection.accept().await {
                let (resets, mut body) = (resets.clone(), request.into_body());
                let _ = answer.send_response(Response::new(()), true);
                tokio::task::spawn_local(async move {
                    while let Some(piece) = body.data().await {
                        if let Err(error) = piece {
                            resets.borrow_mut().extend(error.reason());
                            return;
                        }
                    }
                });
            }
            over.set(over.get() + 1);
        }
    })
    .await
}

#[test]
fn an_early_answer_leaves_no_upload_behind_that_cannot_move() {
    converse(async {
        let sim = bank(Bank::OAuth2);
        let (over, resets) = Default::default();
        let odd = early(&sim, 100, Rc::clone(&over), resets).await;
        let stage = before(&sim, &format!("{}\nrequest_buffering = true", odd.upstream()));
        assert_eq!(stage.client.send(post("/bank/pay", KEY, vec![b'x'; 90_000])).await.status, 200);
        until(|| over.get() > 0).await;
        drop(stage);
    });
}

#[test]
fn an_early_answer_resets_an_upload_whose_client_is_still_sending() {
    converse(async {
        let sim = bank(Bank::OAuth2);
        let (over, resets): (Rc<Cell<usize>>, Rc<RefCell<Vec<h2::Reason>>>) = Default::default();
        let odd = early(&sim, 65_535, over.clone(), resets.clone()).await;
        let stage = before(&sim, &odd.upstream());
        let (pieces, body) = tokio::sync::mpsc::unbounded_channel::<Result<Frame<Bytes>, std::io::Error>>();
        pieces.send(Ok(Frame::data(Bytes::from_static(b"begun")))).expect("open");
        let body = futures_util::stream::unfold(body, |mut body| async move { Some((body.recv().await?, body)) });
        let request = Request::post("/bank/pay").header("host", "localhost");
        let request = request.header("authorization", format!("Bearer {KEY}"));
        let mut sender = stage.client.http1().await;
        let request = request.body(StreamBody::new(Box::pin(body))).expect("a request");
        let answer = sender.send_request(request).await.expect("an answer");
        assert_eq!((answer.status(), answer.headers()["connection"].as_bytes()), (StatusCode::OK, &b"close"[..]));
        let _ = answer.into_body().collect().await;
        until(|| !resets.borrow().is_empty()).await;
        assert_eq!(*resets.borrow(), [h2::Reason::CANCEL]);
        assert_eq!(stage.client.send(get("/bank/x", KEY)).await.status, 200);
        assert_eq!((odd.book.connections.get(), over.get()), (1, 0), "the connection serves on");
        drop((pieces, stage));
    });
}

#[test]
fn an_answer_of_ours_says_whether_the_connection_goes_on() {
    let sim = bank(Bank::OAuth2);
    let stage = before(&sim, "");
    converse(async {
        let head = |length: usize| {
            format!(
                "POST /nowhere HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {KEY}\r\ncontent-length: {length}\r\n"
            )
        };
        let mut kept = stage.client.tls(&[b"http/1.1"]).await.expect("TLS");
        for _ in 0..2 {
            kept.write_all(format!("{}\r\nhello", head(5)).as_bytes()).await.expect("written");
            let answer = one_head(&mut kept).await;
            assert!(answer.starts_with("HTTP/1.1 404 ") && !answer.contains("connection: close"), "{answer}");
            let _ = one_body(&mut kept, &answer).await;
        }
        for more in ["\r\nhel", "expect: 100-continue\r\n\r\n"] {
            let mut closed = stage.client.tls(&[b"http/1.1"]).await.expect("TLS");
            closed.write_all(format!("{}{more}", head(60_000)).as_bytes()).await.expect("written");
            let answer = one_head(&mut closed).await;
            assert!(answer.starts_with("HTTP/1.1 404 ") && answer.contains("connection: close\r\n"), "{answer}");
        }
    });
    drop(stage);
}

async fn one_head(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("a head"));
    }
    String::from_utf8(head).expect("text").to_ascii_lowercase().replacen("http", "HTTP", 1)
}

async fn one_body(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), head: &str) -> Vec<u8> {
    let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()).expect("a length");
    let mut body = vec![0; length.parse().expect("a number")];
    stream.read_exact(&mut body).await.expect("a body");
    body
}

// Bodies that drip, and lengths.

#[test]
fn a_suspicious_answer_that_drips_is_passed_on_after_one_deadline() {
    converse(async {
        let sim = bank(Bank::Scb);
        let scripted = ScriptedSource::start(&sim, |_, mut line| async move {
            let head = "HTTP/1.1 401 Unauthorized\r\ncontent-type: application/json\r\ncontent-length: 60000\r\n\r\n";
            line.write_all(head.as_bytes()).await.ok()?;
            while line.write_all(b" ").await.is_ok() && line.flush().await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            None
        })
        .await;
        let stage =
            before(&sim, &format!("upstream = \"{}\"\ntimeouts = {{ body_idle = \"300ms\" }}", scripted.base_url));
        let mut sender = stage.client.http1().await;
        let asked = sender.send_request(get("/bank/x", KEY));
        let answer = tokio::time::timeout(Duration::from_secs(5), asked).await.expect("in time").expect("an answer");
        assert_eq!(answer.status(), 401);
        drop((answer, stage));
    });
}

#[test]
fn a_length_is_written_once_and_a_304_keeps_the_one_it_has() {
    converse(async {
        let sim = bank(Bank::OAuth2);
        let twice = ScriptedSource::saying(&sim, "HTTP/1.1 200 OK\r\ncontent-length: 2, 2\r\n\r\nok").await;
        let stage = before(&sim, &format!("upstream = \"{}\"", twice.base_url));
        let answer = stage.client.send(get("/bank/x", KEY)).await;
        assert_eq!((answer.status, answer.header("content-length"), &*answer.body), (200, "2", &b"ok"[..]));
        drop(stage);
        let unmodified = "HTTP/1.1 304 Not Modified\r\ncontent-length: 1234\r\netag: \"a\"\r\n\r\n";
        let scripted = ScriptedSource::saying(&sim, unmodified).await;
        let stage = before(&sim, &format!("upstream = \"{}\"", scripted.base_url));
        let mut sender = stage.client.http1().await;
        for _ in 0..2 {
            sender.ready().await.expect("the connection is kept");
            let answer = Whole::read(sender.send_request(get("/bank/x", KEY)).await.expect("an answer")).await;
            let answer = answer.expect("whole");
            assert_eq!((answer.status, answer.header("content-length"), answer.body.len()), (304, "1234", 0));
        }
        assert_eq!(scripted.connections.get(), 1, "the bank's connection is kept as well");
        assert!(stage.stop().iter().all(|line| line["complete"] == true));
    });
}

#[test]
fn a_route_gathers_bodies_and_sends_them_with_a_length() {
    let sim = bank(Bank::OAuth2);
    let stage = before(&sim, "request_buffering = true\nreplay_limit = \"1KiB\"");
    converse(async {
        let chunked = |body: &str| {
            format!(
                "POST /bank/echo/x HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {KEY}\r\n\
                 transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n{:x}\r\n{}\r\n0\r\n\r\n",
                &body[..2],
                body.len() - 2,
                &body[2..]
            )
        };
        let answer = stage.client.raw(chunked("{\"pay\":1}").as_bytes(), Duration::from_millis(700)).await;
        assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
        let arrival = sim.received().pop().expect("a call");
        assert_eq!((arrival.header("content-length"), &*arrival.body), (Some("9"), &b"{\"pay\":1}"[..]));
        assert_eq!(arrival.header("transfer-encoding"), None);
        let large = stage.client.send(post("/bank/echo/x", KEY, vec![b'x'; 2000])).await;
        assert_eq!((large.status, large.error().as_str()), (413, "malformed-request"));
        assert_eq!(sim.resource_calls(), 1, "nothing of it was sent");
    });
    drop(stage);
}

// Trailers.

#[test]
fn trailers_reach_http_2_unannounced_and_are_searched_wherever_they_are_read() {
    converse(async {
        let sim = bank(Bank::OAuth2);
        let scripted = ScriptedSource::start(&sim, |head, mut line| async move {
            let token = head.split("authorization: Bearer ").nth(1)?.lines().next()?.to_owned();
            let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-echo\r\n\r\n5\r\nfirst\r\n";
            line.write_all(head.as_bytes()).await.ok()?;
            line.flush().await.ok()?;
            tokio::time::sleep(Duration::from_millis(50)).await;
            line.write_all(format!("0\r\nx-echo: Bearer {token}\r\ngrpc-status: 0\r\n\r\n").as_bytes()).await.ok()?;
            line.flush().await.ok()?;
            Some(line)
        })
        .await;
        let blocking = format!(
            "[[route]]\nname = \"b\"\npath = \"/b\"\nprovider = \"bank\"\nupstream = \"{}\"\nreflection = \"block\"",
            scripted.base_url
        );
        let stage = before(&sim, &format!("upstream = \"{}\"\n{blocking}", scripted.base_url));
        let mut sender = stage.client.http2().await;
        let ask = |path: &str| {
            let asked =
                Request::get(format!("https://localhost{path}")).header("authorization", format!("Bearer {KEY}"));
            asked.body(Full::new(Bytes::new())).expect("a request")
        };
        let whole = sender.send_request(ask("/bank/x")).await.expect("an answer").collect().await.expect("whole");
        let trailers = whole.trailers().expect("trailers").clone();
        let token = countersign::base::secret::ExposeSecret::expose_secret(&sim.issued()[0]).to_owned();
        assert_eq!(trailers["grpc-status"], "0");
        assert_eq!(trailers["x-echo"], format!("Bearer {}", "*".repeat(token.len())));
        assert_eq!(whole.to_bytes(), "first");
        let raw = format!(
            "GET /bank/x HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {KEY}\r\nte: trailers\r\nconnection: te, close\r\n\r\n"
        );
        let answer = String::from_utf8(stage.client.raw(raw.as_bytes(), Duration::from_secs(5)).await).expect("text");
        assert!(answer.contains("x-echo: Bearer ***") && !answer.contains(&token), "{answer}");
        // Here the trailers were read while the body was searched, so the whole answer can be refused.
        let blocked = sender.send_request(ask("/b/x")).await.expect("an answer");
        assert_eq!(blocked.status(), 502);
        drop(stage);
    });
}

#[test]
fn pseudo_header_fields_in_a_clients_trailers_are_malformed() {
    converse(async {
        let sim = bank(Bank::OAuth2);
        let (odd, ends, bytes) = noting(&sim).await;
        let stage = before(&sim, &odd.upstream());
        let mut tls = stage.client.tls(&[b"h2"]).await.expect("TLS");
        tls.write_all(&opening("/bank/pay")).await.expect("written");
        tls.write_all(&frame(DATA, 0, 1, b"test")).await.expect("written");
        until(|| bytes.get() > 0).await;
        let trailers = frame(HEADERS, END_STREAM | END_HEADERS, 1, &block(&[(":path", "/other")]));
        tls.write_all(&trailers).await.expect("written");
        until(|| !ends.borrow().is_empty()).await;
        assert_eq!(*ends.borrow(), [false], "it did not arrive as a good one");
        until(|| stage.log.text().contains("/bank/pay")).await;
        assert_eq!(stage.stop()[0]["http.response.status_code"], 400);
    });
}

// Live streams.

#[test]
fn a_live_stream_is_not_delayed_by_what_may_be_the_beginning_of_a_token() {
    converse(async {
        let sim = bank(Bank::OAuth2);
        let go = Rc::new(Notify::new());
        let gone = go.clone();
        let scripted = ScriptedSource::start(&sim, move |head, mut line| {
            let gone = gone.clone();
            async move {
                let token = head.split("authorization: Bearer ").nth(1)?.lines().next()?.to_owned();
                let (front, back) = token.split_at(3);
                let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
                line.write_all(format!("{head}9\r\nevent {front}\r\n").as_bytes()).await.ok()?;
                line.flush().await.ok()?;
                gone.notified().await;
                line.write_all(format!("{:x}\r\n{back}!\r\n0\r\n\r\n", back.len() + 1).as_bytes()).await.ok()?;
                line.flush().await.ok()?;
                Some(line)
            }
        })
        .await;
        let stage = before(&sim, &format!("upstream = \"{}\"", scripted.base_url));
        let mut sender = stage.client.http1().await;
        let mut body = sender.send_request(get("/bank/events", KEY)).await.expect("an answer").into_body();
        let first = body.frame().await.expect("a piece").expect("whole").into_data().expect("data");
        let token = countersign::base::secret::ExposeSecret::expose_secret(&sim.issued()[0]).to_owned();
        assert_eq!(first, format!("event {}", &token[..3]), "it came whole, before the next was sent");
        go.notify_one();
        let rest = body.collect().await.expect("whole").to_bytes();
        assert_eq!(rest, format!("{}!", "*".repeat(token.len() - 3)), "the rest of the token is masked");
        drop(stage);
    });
}

#[test]
fn a_body_that_ends_as_it_should_is_whole_over_http_2_as_well() {
    converse(async {
        let sim = bank(Bank::OAuth2);
        let odd = odd(&sim, b"h2", honest).await;
        let stage = before(&sim, &odd.upstream());
        for path in ["/bank/a", "/bank/b"] {
            assert_eq!(&*stage.client.send(post(path, KEY, "{\"pay\":1}")).await.body, b"ok");
        }
        assert_eq!(odd.book.seen.borrow().len(), 2);
        assert_eq!(odd.book.connections.get(), 1, "one connection carries both");
        assert!(stage.stop().iter().all(|line| line["complete"] == true));
    });
}
