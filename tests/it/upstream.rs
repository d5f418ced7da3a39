//! The way to a provider: HTTP/2 and HTTP/1.1, pooled connections that die, corporate proxies, addresses.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use countersign::base::time::{Clock, Now, Stopwatch};
use countersign::config::{Snapshot, build};
use countersign::sim::{
    self, Bank, Close, LeafSpec, ResponseFault, Sim, SimAuthority, SimFault, SimHandle, SimLeaf, Verbatim,
};
use countersign::tls::{ClientTls, client};
use countersign::upstream::{Connection, ConnectionPool, Destination, EgressPath, RequestHead, Resend, Sent};
use http::{Request, StatusCode, Uri, Version};
use http_body_util::{BodyExt, Full};
use prometheus_client::metrics::gauge::Gauge;
use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::{converse, get, post, request};
use crate::harness::{Harness, KEY, Plan, now};
use crate::raw_server::{RawServer, honest, read, respond};
use crate::tinyproxy::TinyProxy;

/// A simulator that speaks HTTP/1.1 alone, or HTTP/2 as well.
fn bank_over(version: Version) -> SimHandle {
    let options = sim::SimOptions { only_http1: version == Version::HTTP_11, ..sim::SimOptions::default() };
    Sim::start(Bank::OAuth2, options).expect("a simulator")
}

const BOTH: [Version; 2] = [Version::HTTP_11, Version::HTTP_2];

/// A proxy of one worker to this bank; the route gets `route`.
fn before(sim: &SimHandle, more: &str, route: &str) -> Harness {
    Plan { workers: 1, ..Plan::default() }.with(sim, "oauth2", more, route).start()
}

/// A proxy to this odd bank that has its token at hand: bodies of requests are kept from now on.
async fn warm(sim: &SimHandle, odd: &RawServer) -> Harness {
    let other = "[[route]]\nname = \"warm\"\npath = \"/warm\"\nprovider = \"oauth2\"";
    let stage = before(sim, "", &format!("{}\n{other}", odd.upstream()));
    assert_eq!(stage.client.send(get("/warm/echo/x", KEY)).await.status, 200);
    stage
}

async fn until(so: impl Fn() -> bool) {
    while !so() {
        tokio::task::yield_now().await;
    }
}

// HTTP/2 and HTTP/1.1.

#[test]
fn a_provider_is_spoken_to_in_what_it_picks_and_replays_hold_in_both() {
    for version in BOTH {
        let sim = bank_over(version);
        let stage = before(&sim, "", "");
        converse(async {
            let body = vec![7_u8; 200_000];
            assert_eq!(stage.client.send(post("/oauth2/echo/a", KEY, body.clone())).await.status, 200);
            sim.revoke_all();
            let replayed = stage.client.send(post("/oauth2/echo/b", KEY, body)).await;
            assert_eq!((replayed.status, replayed.json()["body"]["length"].as_u64()), (200, Some(200_000)));
        });
        assert_eq!(sim.received().len(), 5, "two tokens, three calls");
        for arrival in sim.received() {
            assert_eq!(arrival.version, version, "{}", arrival.path);
            assert_eq!(arrival.authority.as_deref(), Some(sim.address().to_string().as_str()));
        }
        assert_eq!(sim.violations(), Vec::<String>::new());
        drop(stage);
    }
}

#[test]
fn many_exchanges_share_one_http_2_connection_and_dial_it_once() {
    let sim = bank_over(Version::HTTP_2);
    let stage = before(&sim, "", "");
    converse(async {
        let mut sender = stage.client.http2().await;
        let mut sent = Vec::new();
        for _ in 0..60 {
            let request =
                Request::get("https://localhost/oauth2/echo/x").header("authorization", format!("Bearer {KEY}"));
            sent.push(sender.send_request(request.body(Full::new(Bytes::new())).expect("a request")));
            sender.ready().await.expect("open");
        }
        for answer in sent {
            assert_eq!(answer.await.expect("an answer").status(), 200);
        }
    });
    assert_eq!(sim.resource_calls(), 60);
    assert_eq!(sim.connections(), 2, "one for the token, one for everything else");
    drop(stage);
}

#[test]
fn fields_of_a_connection_and_the_host_field_never_enter_http_2() {
    converse(async {
        let sim = bank_over(Version::HTTP_2);
        let odd = RawServer::start(&sim, &[b"h2"], &[&TLS13], honest).await;
        let stage = before(&sim, "", &odd.upstream());
        let headers = [("te", "trailers"), ("connection", "te, x-gone"), ("x-gone", "1"), ("x-kept", "1")];
        let answer = stage.client.send(request("POST", "/oauth2/a?b=%20", KEY, &headers, "{}")).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let seen = odd.book.seen.borrow()[0].clone();
        assert_eq!(seen.uri.to_string(), format!("https://{}/a?b=%20", odd.address));
        assert_eq!((seen.method.as_str(), &*seen.body), ("POST", &b"{}"[..]));
        for gone in ["host", "connection", "x-gone", "transfer-encoding", "keep-alive", "upgrade"] {
            assert!(!seen.headers.contains_key(gone), "{gone}");
        }
        assert!(seen.headers.contains_key("x-kept"));
        assert!(seen.headers.get("te").is_none_or(|te| te == "trailers"));
    });
}

#[test]
fn when_streams_run_out_another_connection_is_opened() {
    converse(async {
        let sim = bank_over(Version::HTTP_2);
        // Nobody is answered before all six are there: so they must all be under way at the same time.
        let (all, _) = tokio::sync::watch::channel(0_usize);
        let all = Rc::new(all);
        let odd = RawServer::start(&sim, &[b"h2"], &[&TLS13], move |(tls, number, book)| {
            let all = all.clone();
            async move {
                let mut builder = h2::server::Builder::new();
                let Ok(mut connection) = builder.max_concurrent_streams(2).handshake(tls).await else { return };
                while let Some(Ok((request, answer))) = connection.accept().await {
                    let (book, all) = (book.clone(), all.clone());
                    tokio::task::spawn_local(async move {
                        let seen = read(number, request).await;
                        book.seen.borrow_mut().push(seen);
                        all.send_modify(|arrived| *arrived += 1);
                        let _ = all.subscribe().wait_for(|arrived| *arrived >= 6).await;
                        respond(answer, "ok");
                    });
                }
            }
        })
        .await;
        let stage = before(&sim, "", &odd.upstream());
        let one = || async { stage.client.send(get("/oauth2/x", KEY)).await.status };
        let answers = tokio::join!(one(), one(), one(), one(), one(), one());
        assert_eq!(answers, (200, 200, 200, 200, 200, 200));
        assert_eq!(odd.book.connections.get(), 3);
        let seen = odd.book.seen.borrow();
        let on = |number: usize| seen.iter().filter(|seen| seen.connection == number).count();
        assert_eq!((on(1), on(2), on(3)), (2, 2, 2));
    });
}

#[test]
fn slow_readers_never_use_up_what_the_others_on_their_connection_need() {
    converse(async {
        let sim = bank_over(Version::HTTP_2);
        let odd = RawServer::start(&sim, &[b"h2"], &[&TLS13], |(tls, number, book)| async move {
            let Ok(mut connection) = h2::server::handshake(tls).await else { return };
            while let Some(Ok((request, answer))) = connection.accept().await {
                let text = if request.uri().path() == "/big" { "x".repeat(1 << 20) } else { "ok".to_owned() };
                let seen = read(number, request).await;
                book.seen.borrow_mut().push(seen);
                respond(answer, &text);
            }
        })
        .await;
        let to = Destination { port: odd.address.port(), ..place(&sim, EgressPath::default()) };
        let endpoint = Rc::new(ConnectionPool::new(to, Duration::from_secs(20), Gauge::default()));
        let mut unread = Vec::new();
        for path in std::iter::repeat_n("/big", 99).chain(["/small"]) {
            let mut connection = endpoint.acquire(Now::at(0, 0), Resend::Unbearable).await.expect("a connection");
            let request = Request::get(path).body(Full::<Bytes>::default()).expect("a request");
            let Sent::Answered(response) = send(&mut connection, request).await else { panic!("no answer") };
            if path == "/small" {
                assert_eq!(response.into_body().collect().await.expect("a body").to_bytes(), "ok");
                break;
            }
            unread.push((connection, response));
        }
        assert_eq!((unread.len(), odd.book.connections.get()), (99, 1));
        let body = unread.pop().expect("one of them").1.into_body().collect().await.expect("a body").to_bytes();
        assert_eq!(body.len(), 1 << 20, "and they get it all");
    });
}

#[test]
fn a_connection_that_fell_silent_takes_no_new_exchanges() {
    converse(async {
        let sim = bank_over(Version::HTTP_2);
        let odd = RawServer::start(&sim, &[b"h2"], &[&TLS13], |(tls, number, book)| async move {
            if number > 1 {
                return honest((tls, number, book)).await;
            }
            let Ok(mut connection) = h2::server::handshake(tls).await else { return };
            let mut unanswered = Vec::new();
            while let Some(Ok(request)) = connection.accept().await {
                unanswered.push(request);
            }
        })
        .await;
        let stage = before(&sim, "", &format!("{}\ntimeouts = {{ response = \"50ms\" }}", odd.upstream()));
        assert_eq!(stage.client.send(get("/oauth2/x", KEY)).await.error(), "upstream-timeout");
        assert_eq!(stage.client.send(get("/oauth2/x", KEY)).await.status, 200);
        assert_eq!(odd.book.connections.get(), 2);
    });
}

// What may be sent again, and what not.

#[test]
fn a_refused_stream_goes_on_another_connection_with_its_whole_body() {
    converse(async {
        let sim = bank_over(Version::HTTP_2);
        let odd = RawServer::start(&sim, &[b"h2"], &[&TLS13], |(tls, number, book)| async move {
            if number > 1 {
                return honest((tls, number, book)).await;
            }
            let Ok(mut connection) = h2::server::handshake(tls).await else { return };
            while let Some(Ok((_, mut answer))) = connection.accept().await {
                answer.send_reset(h2::Reason::REFUSED_STREAM);
            }
        })
        .await;
        let stage = warm(&sim, &odd).await;
        let body = vec![9_u8; 300_000];
        let answer = stage.client.send(post("/oauth2/pay", KEY, body.clone())).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let seen = odd.book.seen.borrow();
        assert_eq!((seen.len(), seen[0].body == body, odd.book.connections.get()), (1, true, 2));
    });
}

#[test]
fn a_provider_that_refuses_every_stream_is_given_up_on() {
    converse(async {
        let sim = bank_over(Version::HTTP_2);
        let odd = RawServer::start(&sim, &[b"h2"], &[&TLS13], |(tls, _, _)| async move {
            let Ok(mut connection) = h2::server::handshake(tls).await else { return };
            while let Some(Ok((_, mut answer))) = connection.accept().await {
                answer.send_reset(h2::Reason::REFUSED_STREAM);
            }
        })
        .await;
        let stage = warm(&sim, &odd).await;
        let answer = stage.client.send(post("/oauth2/pay", KEY, "{}")).await;
        assert_eq!((answer.status, answer.error()), (502, "upstream-unreachable".to_owned()));
        assert_eq!(odd.book.connections.get(), 3);
    });
}

/// An HTTP/2 connection played by hand: says its settings, and GOAWAY up to stream `last` once a request has come.
async fn goes_away(mut tls: tokio_rustls::server::TlsStream<tokio::net::TcpStream>, last: u8) {
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let acknowledged = [0, 0, 0, 4, 1, 0, 0, 0, 0];
    let goaway = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, last, 0, 0, 0, 0];
    let mut preface = [0; 24];
    if tls.read_exact(&mut preface).await.is_err() || tls.write_all(&settings).await.is_err() {
        return;
    }
    let _ = tls.write_all(&acknowledged).await;
    let mut head = [0; 9];
    while tls.read_exact(&mut head).await.is_ok() {
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let mut payload = vec![0; length];
        if tls.read_exact(&mut payload).await.is_err() {
            return;
        }
        let is_headers = head[3] == 1;
        if is_headers {
            let _ = tls.write_all(&goaway).await;
            let _ = tls.shutdown().await;
            return;
        }
    }
}

#[test]
fn a_request_that_goaway_leaves_out_is_sent_again_and_one_that_it_names_is_not() {
    for (last, sent_again) in [(0, true), (1, false)] {
        converse(async {
            let sim = bank_over(Version::HTTP_2);
            let odd = RawServer::start(&sim, &[b"h2"], &[&TLS13], move |(tls, number, book)| async move {
                if number > 1 { honest((tls, number, book)).await } else { goes_away(tls, last).await }
            })
            .await;
            let stage = warm(&sim, &odd).await;
            let answer = stage.client.send(post("/oauth2/pay", KEY, "{}")).await;
            let seen = odd.book.seen.borrow().len();
            if sent_again {
                assert_eq!((answer.status, seen), (200, 1), "{answer:?}");
            } else {
                assert_eq!((answer.error(), seen), ("upstream-protocol".to_owned(), 0), "{answer:?}");
            }
        });
    }
}

#[test]
fn a_stream_that_the_provider_reset_is_not_sent_again_not_even_a_get() {
    converse(async {
        let sim = bank_over(Version::HTTP_2);
        let odd = RawServer::start(&sim, &[b"h2"], &[&TLS13], |(tls, number, book)| async move {
            let Ok(mut connection) = h2::server::handshake(tls).await else { return };
            while let Some(Ok((request, mut answer))) = connection.accept().await {
                let resets = request.uri().path() == "/reset";
                let seen = read(number, request).await;
                book.seen.borrow_mut().push(seen);
                if resets { answer.send_reset(h2::Reason::INTERNAL_ERROR) } else { respond(answer, "ok") }
            }
        })
        .await;
        let stage = before(&sim, "", &odd.upstream());
        assert_eq!(stage.client.send(get("/oauth2/warm", KEY)).await.status, 200);
        assert_eq!(stage.client.send(get("/oauth2/reset", KEY)).await.error(), "upstream-protocol");
        assert_eq!(odd.book.seen.borrow().len(), 2);
        assert_eq!(stage.client.send(get("/oauth2/warm", KEY)).await.status, 200);
        assert_eq!(odd.book.connections.get(), 1, "the connection outlives its stream");
    });
}

#[test]
fn a_get_is_sent_again_where_a_reused_connection_broke_and_a_post_never() {
    for version in BOTH {
        let sim = bank_over(version);
        let stage = before(&sim, "", "");
        converse(async {
            for (request, answered, arrivals) in
                [(get("/oauth2/echo/x", KEY), 200, 2), (post("/oauth2/echo/x", KEY, "{}"), 502, 1)]
            {
                assert_eq!(stage.client.send(get("/oauth2/echo/warm", KEY)).await.status, 200);
                sim.change(|faults| faults.resource = SimFault::once(ResponseFault::ResetBeforeAnswer));
                let earlier = sim.resource_calls();
                assert_eq!(stage.client.send(request).await.status, answered, "{version:?}");
                assert_eq!(sim.resource_calls() - earlier, arrivals, "{version:?}");
            }
        });
        drop(stage);
    }
}

#[test]
fn posts_never_fail_on_connections_that_the_bank_closed_while_they_lay_idle() {
    for version in BOTH {
        for close in [Close::Silent, Close::Announced] {
            let sim = bank_over(version);
            let stage = before(&sim, "", "");
            sim.change(|faults| faults.resource.close = close);
            converse(async {
                for _ in 0..25 {
                    let answer = stage.client.send(post("/oauth2/echo/pay", KEY, "{}")).await;
                    assert_eq!(answer.status, 200, "{version:?} {close:?}: {answer:?}");
                    until(|| sim.open_connections() == 0).await;
                }
            });
            drop(stage);
        }
    }
}

#[test]
fn whatever_goes_wrong_a_payment_is_made_at_most_once() {
    let troubles = [
        ResponseFault::ResetBeforeAnswer,
        ResponseFault::ResetAfterHead,
        ResponseFault::CutBody,
        ResponseFault::Garbage(Bytes::from_static(b"\x16\x03nonsense")),
        ResponseFault::Verbatim(Verbatim::json(500, "{}")),
        ResponseFault::HtmlError(503),
    ];
    for version in BOTH {
        let options = sim::SimOptions { only_http1: version == Version::HTTP_11, ..sim::SimOptions::default() };
        let sim = Sim::start(Bank::Scb, options).expect("a simulator");
        let stage = Plan { workers: 1, ..Plan::default() }.with(&sim, "scb", "", "").start();
        converse(async {
            for (n, trouble) in troubles.iter().enumerate() {
                for close in [Close::Never, Close::Silent, Close::Announced] {
                    assert_eq!(stage.client.send(get("/scb/echo/warm", KEY)).await.status, 200);
                    let trouble = Some(trouble.clone());
                    sim.change(|faults| faults.resource = SimFault { trouble, close, ..SimFault::default() });
                    let mut sender = stage.client.http1().await;
                    let path = format!("/scb/payments/{n}{close:?}");
                    // The answer may be an error or break off; what counts is what the bank did.
                    if let Ok(response) = sender.send_request(post(&path, KEY, "{}")).await {
                        let _ = response.into_body().collect().await;
                    }
                    sim.change(|faults| faults.resource = SimFault::default());
                }
            }
        });
        let payments = sim.payments();
        assert_eq!(payments.len(), 18, "{version:?}");
        assert!(payments.values().all(|times| *times == 1), "{version:?}: {payments:?}");
        drop(stage);
    }
}

// A pool alone, on this thread.

fn place(sim: &SimHandle, way: EgressPath) -> Destination {
    let ca = sim.ca_pem();
    Destination {
        host: sim.address().ip().to_string().into(),
        port: sim.address().port(),
        tls: client(ClientTls { ca: Some(ca.as_bytes()), ..ClientTls::default() }).expect("TLS"),
        server_name: "localhost".try_into().expect("a name"),
        path: way,
        connect_timeout: Duration::from_secs(10),
    }
}

fn pool(sim: &SimHandle) -> (Rc<ConnectionPool<Full<Bytes>>>, Gauge) {
    let gauge = Gauge::default();
    (Rc::new(ConnectionPool::new(place(sim, EgressPath::default()), Duration::from_secs(20), gauge.clone())), gauge)
}

async fn send(connection: &mut Connection<Full<Bytes>>, request: Request<Full<Bytes>>) -> Sent<Full<Bytes>> {
    let (head, body) = request.into_parts();
    connection.send(RequestHead::of(&head), body).await
}

/// One whole exchange; the simulator refuses it for want of a token, which is an answer, too.
async fn exchange(sim: &SimHandle, connection: &mut Connection<Full<Bytes>>) {
    let url: Uri = format!("{}/echo/x", sim.base_url()).parse().expect("a URL");
    let request = Request::get(url.path()).body(Full::default()).expect("a request");
    let Sent::Answered(response) = send(connection, request).await else { panic!("no answer") };
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    response.into_body().collect().await.expect("a body");
}

/// Lends a connection once, waits until the bank has closed it, and asks for one again. The wait blocks the runtime:
/// nothing but the kernel learns of the close.
async fn lend_across_a_close(
    endpoint: &Rc<ConnectionPool<Full<Bytes>>>,
    path: &str,
    is_closed: impl Fn() -> bool,
) -> bool {
    let now = Clock::System.now();
    let mut first = endpoint.acquire(now, Resend::Unbearable).await.expect("a connection");
    let request = Request::get(path).body(Full::default()).expect("a request");
    let Sent::Answered(response) = send(&mut first, request).await else { panic!("no answer") };
    response.into_body().collect().await.expect("a body");
    endpoint.give_back(first, now);
    while !is_closed() {
        std::thread::yield_now();
    }
    // On a busy machine the kernel needs a moment more to bring the news across.
    let watch = Stopwatch::start();
    loop {
        let second = endpoint.acquire(now, Resend::Unbearable).await.expect("a connection");
        if !second.reused || watch.elapsed() > Duration::from_secs(5) {
            return second.reused;
        }
        endpoint.give_back(second, now);
        std::thread::yield_now();
    }
}

#[test]
fn a_closed_http_1_connection_is_not_lent_even_if_no_task_of_ours_was_told() {
    let sim = bank_over(Version::HTTP_11);
    sim.change(|faults| faults.resource.close = Close::Silent);
    converse(async {
        let (endpoint, _) = pool(&sim);
        let reused = lend_across_a_close(&endpoint, "/x", || sim.open_connections() == 0).await;
        assert_eq!((reused, sim.connections()), (false, 2));
    });
}

#[test]
fn a_closed_http_2_connection_is_not_lent_even_if_no_task_of_ours_was_told() {
    let sim = bank_over(Version::HTTP_2);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let (tell, address) = std::sync::mpsc::channel();
    let (finish, finished) = tokio::sync::oneshot::channel::<()>();
    let closed = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // A bank on a thread of its own that hangs up without GOAWAY when told to.
        let (sim, closed) = (&sim, &closed);
        scope.spawn(move || {
            converse(async {
                let (over, done) = tokio::sync::oneshot::channel();
                let ends = RefCell::new(Some((stopped, over)));
                let odd = RawServer::start(sim, &[b"h2"], &[&TLS13], move |call| {
                    let ends = ends.borrow_mut().take();
                    async move {
                        let Some((mut stopped, over)) = ends else { return honest(call).await };
                        let Ok(mut connection) = h2::server::handshake(call.0).await else { return };
                        loop {
                            tokio::select! {
                                Some(Ok((_, answer))) = connection.accept() => respond(answer, "ok"),
                                _ = &mut stopped => break,
                            }
                        }
                        drop(connection);
                        let _ = over.send(());
                    }
                })
                .await;
                tell.send(odd.address).expect("heard");
                let _ = done.await;
                closed.store(true, Ordering::SeqCst);
                let _ = finished.await;
            });
        });
        let address = address.recv().expect("an address");
        converse(async {
            let to = Destination { port: address.port(), ..place(sim, EgressPath::default()) };
            let endpoint = Rc::new(ConnectionPool::new(to, Duration::from_secs(20), Gauge::default()));
            let stop = Cell::new(Some(stop));
            let is_closed = || {
                stop.take().map(|stop| stop.send(()));
                closed.load(Ordering::SeqCst)
            };
            assert!(!lend_across_a_close(&endpoint, "/x", is_closed).await);
        });
        drop(finish);
    });
}

#[test]
fn a_pool_lends_again_what_came_back_and_drops_what_lay_too_long() {
    for version in BOTH {
        let sim = bank_over(version);
        converse(async {
            let now = Now::at(0, 0);
            let (endpoint, gauge) = pool(&sim);
            for (later, connections) in [(0, 1), (19, 1), (38, 1), (58, 2)] {
                let now = now.plus(Duration::from_secs(later));
                let mut connection = endpoint.acquire(now, Resend::Unbearable).await.expect("a connection");
                exchange(&sim, &mut connection).await;
                endpoint.give_back(connection, now);
                assert_eq!(sim.connections(), connections, "{version:?} after {later} s");
            }
            endpoint.sweep(now.plus(Duration::from_secs(100)));
            until(|| endpoint.open() == 0 && gauge.get() == 0).await;
            until(|| sim.open_connections() == 0).await;
        });
    }
}

#[test]
fn a_retired_pool_closes_what_is_idle_now_and_what_is_lent_when_it_comes_back() {
    for version in BOTH {
        let sim = bank_over(version);
        converse(async {
            let now = Clock::System.now();
            let (endpoint, _) = pool(&sim);
            let mut lent = endpoint.acquire(now, Resend::Unbearable).await.expect("a connection");
            let mut idle = endpoint.acquire(now, Resend::Unbearable).await.expect("a connection");
            exchange(&sim, &mut idle).await;
            endpoint.give_back(idle, now);
            endpoint.retire();
            // Over HTTP/2 both were streams of one connection, which serves the one that is left.
            until(|| sim.open_connections() == 1).await;
            exchange(&sim, &mut lent).await;
            endpoint.give_back(lent, now);
            until(|| sim.open_connections() == 0).await;
            let mut late = endpoint.acquire(now, Resend::Unbearable).await.expect("a connection");
            exchange(&sim, &mut late).await;
            endpoint.give_back(late, now);
            until(|| endpoint.open() == 0 && sim.open_connections() == 0).await;
        });
    }
}

#[test]
fn a_cold_herd_waits_for_one_connection_and_then_each_has_what_it_needs() {
    for (version, connections) in [(Version::HTTP_11, 12), (Version::HTTP_2, 1)] {
        let sim = bank_over(version);
        converse(async {
            let now = Clock::System.now();
            let (endpoint, _) = pool(&sim);
            let mut herd = tokio::task::JoinSet::new();
            for _ in 0..12 {
                let endpoint = endpoint.clone();
                herd.spawn_local(async move { endpoint.acquire(now, Resend::Unbearable).await.expect("a connection") });
            }
            let mut lent = Vec::new();
            while let Some(connection) = herd.join_next().await {
                lent.push(connection.expect("it went well"));
            }
            for connection in &mut lent {
                exchange(&sim, connection).await;
            }
            assert_eq!(sim.connections(), connections, "{version:?}");
            assert_eq!(endpoint.open() as u64, connections);
        });
    }
}

#[test]
fn a_herd_before_a_closed_port_is_told_of_one_failure() {
    let sim = bank_over(Version::HTTP_2);
    let (endpoint, _) = pool(&sim);
    drop(sim);
    converse(async {
        let now = Clock::System.now();
        let (first, second) =
            tokio::join!(endpoint.acquire(now, Resend::Unbearable), endpoint.acquire(now, Resend::Unbearable));
        assert!(first.is_err() && second.is_err());
        assert_eq!(endpoint.open(), 0);
    });
}

// Certificates.

/// The lines of a stage's one provider, with more in `tls`.
fn with_tls(mut plan: Plan, more: &str) -> Plan {
    plan.config = plan.config.replace("tls = { ca = \"oauth2-ca.crt\" }", &format!("tls = {{ {more} }}"));
    plan
}

#[test]
fn server_name_is_asked_for_and_verified_on_both_legs() {
    let authority = SimAuthority::new("a CA", now()).expect("a CA");
    let leaf = LeafSpec { names: vec!["api.bank.test".to_owned()], ..LeafSpec::server(now()) };
    let leaf = authority.issue(&leaf).expect("a leaf");
    let options = sim::SimOptions { authority: Some(authority), leaf: Some(leaf), ..sim::SimOptions::default() };
    let sim = Sim::start(Bank::OAuth2, options).expect("a simulator");
    for (tls, status) in
        [("ca = \"oauth2-ca.crt\", server_name = \"api.bank.test\"", 200), ("ca = \"oauth2-ca.crt\"", 503)]
    {
        let earlier = sim.received().len();
        let stage = with_tls(Plan::default().with(&sim, "oauth2", "", ""), tls).start();
        converse(async {
            let answer = stage.client.send(get("/oauth2/echo/x", KEY)).await;
            assert_eq!(answer.status, status, "{answer:?}");
        });
        drop(stage);
        let arrived = sim.received().len() - earlier;
        assert_eq!(arrived, if status == 200 { 2 } else { 0 }, "nothing is sent to whom we do not know");
    }
}

#[test]
fn min_version_refuses_an_older_tls() {
    converse(async {
        let sim = bank_over(Version::HTTP_2);
        let odd = RawServer::start(&sim, &[b"h2"], &[&TLS12], honest).await;
        for (more, error) in [("", ""), (", min_version = \"1.3\"", "upstream-tls")] {
            let plan = Plan::default().with(&sim, "oauth2", "", &odd.upstream());
            let stage = with_tls(plan, &format!("ca = \"oauth2-ca.crt\"{more}")).start();
            let answer = stage.client.send(get("/oauth2/x", KEY)).await;
            assert_eq!(answer.error(), error, "{answer:?}");
        }
        assert_eq!(odd.book.seen.borrow().len(), 1);
    });
}

#[test]
fn a_provider_of_another_ca_is_told_nothing() {
    let sim = bank_over(Version::HTTP_2);
    let other = bank_over(Version::HTTP_2);
    let stage = before(&sim, "", &format!("upstream = \"https://{}\"", other.address()));
    converse(async {
        let answer = stage.client.send(post("/oauth2/pay", KEY, "{}")).await;
        assert_eq!((answer.status, answer.error()), (502, "upstream-tls".to_owned()));
        until(|| other.failed_handshakes() == 1).await;
    });
    assert_eq!(other.received().len(), 0);
    drop(stage);
}

// Addresses.

#[test]
fn a_provider_on_ipv6_is_reached_directly_and_through_a_proxy() {
    let options = sim::SimOptions { bind: "[::1]:0".parse().expect("an address"), ..sim::SimOptions::default() };
    let sim = Sim::start(Bank::OAuth2, options).expect("a simulator");
    let proxy = TinyProxy::start(None, &[]);
    for more in [String::new(), format!("http_proxy = \"http://127.0.0.1:{}\"", proxy.port)] {
        let stage = before(&sim, &more, "");
        converse(async {
            let answer = stage.client.send(get("/oauth2/echo/x", KEY)).await;
            assert_eq!(answer.status, 200, "{answer:?}");
        });
        drop(stage);
    }
    assert_eq!(proxy.tunnels_to(sim.address().port()), 2);
}

#[test]
fn both_legs_come_from_the_source_address() {
    converse(async {
        let sim = bank_over(Version::HTTP_2);
        let odd = RawServer::start(&sim, &[b"h2"], &[&TLS13], honest).await;
        let stage = before(&sim, "source_address = \"127.0.0.9\"", &odd.upstream());
        assert_eq!(stage.client.send(get("/oauth2/x", KEY)).await.status, 200);
        assert_eq!(odd.book.peers.borrow()[0].ip().to_string(), "127.0.0.9");
        drop(stage);
        // Both legs are spoken for: an address of the other family cannot even fetch a token.
        let stage = before(&sim, "source_address = \"::1\"", "");
        let answer = stage.client.send(get("/oauth2/x", KEY)).await;
        assert_eq!(answer.error(), "token-unavailable");
        assert_eq!(sim.token_calls(), 1);
    });
}

// Corporate proxies.

/// A simulator that wants a client certificate or none, and the file names and contents for the client's side.
fn strict_bank(mtls: bool) -> (SimHandle, Option<SimLeaf>) {
    let clients = SimAuthority::new("client CA", now()).expect("a CA");
    let leaf = clients.issue(&LeafSpec::client("countersign", now())).expect("a leaf");
    let options = sim::SimOptions { client_ca: mtls.then(|| clients.pem()), ..sim::SimOptions::default() };
    (Sim::start(Bank::OAuth2, options).expect("a simulator"), mtls.then_some(leaf))
}

fn plan_through(sim: &SimHandle, leaf: Option<&SimLeaf>, way: &str) -> Plan {
    let mut plan = Plan { workers: 1, ..Plan::default() }.with(sim, "oauth2", way, "");
    if let Some(leaf) = leaf {
        plan.files = plan.files.with_file("stage/app.crt", leaf.cert_pem.clone().into_bytes());
        plan.files = plan.files.with_file("stage/app.key", leaf.key_pem.clone().into_bytes());
        let tls = "ca = \"oauth2-ca.crt\", client_cert = \"app.crt\", client_key = \"app.key\"";
        plan = with_tls(plan, tls);
    }
    plan
}

#[test]
fn every_way_carries_both_legs_with_and_without_a_client_certificate() {
    let open = TinyProxy::start(None, &[]);
    let closed = TinyProxy::start(Some(("corp", "pr0xy-p4ss")), &[]);
    for mtls in [false, true] {
        for way in [None, Some((&open, "")), Some((&closed, "corp:pr0xy-p4ss@"))] {
            let (sim, leaf) = strict_bank(mtls);
            let lines = way.map(|(proxy, user)| format!("http_proxy = \"http://{user}127.0.0.1:{}\"", proxy.port));
            let stage = plan_through(&sim, leaf.as_ref(), &lines.clone().unwrap_or_default()).start();
            converse(async {
                for n in 0..3 {
                    let answer = stage.client.send(post("/oauth2/echo/x", KEY, "{}")).await;
                    assert_eq!(answer.status, 200, "mTLS {mtls}, {lines:?}, call {n}: {answer:?}");
                }
            });
            assert_eq!((sim.token_calls(), sim.resource_calls(), sim.connections()), (1, 3, 2));
            if let Some((proxy, _)) = way {
                assert_eq!(proxy.tunnels_to(sim.address().port()), 2, "a tunnel for each leg");
            }
            let leaked = stage.log.text().contains("pr0xy-p4ss");
            drop(stage);
            assert!(!leaked);
        }
    }
}

#[test]
fn without_its_client_certificate_no_way_leads_in() {
    let proxy = TinyProxy::start(None, &[]);
    for way in [String::new(), format!("http_proxy = \"http://127.0.0.1:{}\"", proxy.port)] {
        let (sim, _) = strict_bank(true);
        let stage = plan_through(&sim, None, &way).start();
        converse(async {
            let answer = stage.client.send(get("/oauth2/echo/x", KEY)).await;
            assert_eq!(answer.error(), "token-unavailable", "{answer:?}");
        });
        assert_eq!(sim.received().len(), 0);
        drop(stage);
    }
}

#[test]
fn a_proxy_that_refuses_stops_either_leg_and_the_bank_hears_nothing() {
    let closed = TinyProxy::start(Some(("corp", "pr0xy-p4ss")), &[]);
    for user in ["", "corp:wrong@"] {
        let sim = bank_over(Version::HTTP_2);
        let stage = before(&sim, &format!("http_proxy = \"http://{user}127.0.0.1:{}\"", closed.port), "");
        converse(async {
            let answer = stage.client.send(get("/oauth2/echo/x", KEY)).await;
            assert_eq!((answer.status, answer.error()), (503, "token-unavailable".to_owned()));
        });
        assert_eq!(sim.connections(), 0);
        drop(stage);
    }
    // One that opens tunnels to the token endpoint alone.
    let (sim, other) = (bank_over(Version::HTTP_2), bank_over(Version::HTTP_2));
    let narrow = TinyProxy::start(None, &[sim.address().port()]);
    let route = format!("upstream = \"https://{}\"", other.address());
    let stage = before(&sim, &format!("http_proxy = \"http://127.0.0.1:{}\"", narrow.port), &route);
    converse(async {
        let answer = stage.client.send(post("/oauth2/pay", KEY, "{}")).await;
        assert_eq!((answer.status, answer.error()), (502, "upstream-unreachable".to_owned()));
    });
    assert_eq!((sim.token_calls(), other.connections()), (1, 0));
    drop(stage);
}

#[test]
fn through_a_proxy_the_providers_certificate_still_decides() {
    let proxy = TinyProxy::start(None, &[]);
    let (sim, other) = (bank_over(Version::HTTP_2), bank_over(Version::HTTP_2));
    let route = format!("upstream = \"https://{}\"", other.address());
    let stage = before(&sim, &format!("http_proxy = \"http://127.0.0.1:{}\"", proxy.port), &route);
    converse(async {
        let answer = stage.client.send(post("/oauth2/pay", KEY, "{}")).await;
        assert_eq!((answer.status, answer.error()), (502, "upstream-tls".to_owned()));
    });
    assert_eq!(other.received().len(), 0);
    drop(stage);
}

#[test]
fn a_way_may_be_a_secret_from_elsewhere_and_makes_connections_of_its_own() {
    let sim = bank_over(Version::HTTP_2);
    let read = |way: &str| {
        let mut plan = Plan::default().with(&sim, "oauth2", way, "");
        plan.files = plan.files.with_file("stage/way.txt", "http://corp:pr0xy-p4ss@proxy.test:8080\n");
        let files = plan.files.with_env("WAY", "http://corp:pr0xy-p4ss@proxy.test:8080");
        let config =
            format!("[[listener]]\nname = \"gateway\"\nbind = \"127.0.0.1:0\"\n{}\n{}", plan.clients, plan.config);
        let (snapshot, found) = build(Path::new("stage/proxy.toml"), config, &files);
        let told: String = found.iter().map(|found| found.render(false)).collect();
        assert!(!told.contains("pr0xy"), "{told}");
        let snapshot = snapshot.unwrap_or_else(|| panic!("{told}"));
        assert!(!format!("{snapshot:?}").contains("pr0xy"));
        (snapshot, told)
    };
    let (direct, _) = read("");
    let (from_env, quiet) = read("http_proxy = { env = \"WAY\" }");
    let (from_file, _) = read("http_proxy = { file = \"way.txt\" }");
    let (literal, told) = read("http_proxy = \"http://corp:pr0xy-p4ss@proxy.test:8080\"");
    let (bound, _) = read("source_address = \"127.0.0.9\"");
    assert!(told.contains("the proxy's credentials stand in the config file") && !quiet.contains("http_proxy"));
    let way = from_env.providers[0].way.proxy.clone().expect("a proxy");
    assert_eq!((way.host(), way.port(), way.has_credentials()), ("proxy.test", 8080, true));
    assert_eq!(bound.providers[0].way.source, "127.0.0.9".parse().ok());
    let id = |snapshot: &Snapshot| snapshot.providers[0].transport_id;
    assert_eq!((id(&from_env), id(&from_env)), (id(&from_file), id(&literal)));
    assert!(id(&direct) != id(&from_env) && id(&direct) != id(&bound) && id(&bound) != id(&from_env));
}
