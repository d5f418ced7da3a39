//! Banks that break the rules of HTTP/2 when they answer. The application gets an error or a broken answer, never a whole
//! one that is wrong, and the payment is sent once.

use std::cell::Cell;
use std::fmt::Write as _;
use std::rc::Rc;
use std::time::Duration;

use countersign::sim::{Bank, SimHandle};
use http_body_util::BodyExt;
use rustls::version::TLS13;
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use crate::client::{Whole, converse, get, post};
use crate::frames::{
    ACK, CONTINUATION, DATA, ENABLE_PUSH, END_HEADERS, END_STREAM, GOAWAY, HEADERS, INITIAL_WINDOW_SIZE, Line,
    MAX_FRAME_SIZE, NO_ERROR, PADDED, PING, PREFACE, PRIORITY, PROTOCOL_ERROR, PUSH_PROMISE, RST_STREAM, SETTINGS,
    block, frame, reset, settings, window_update,
};
use crate::harness::{KEY, Plan, bank};
use crate::raw_server::RawServer;

/// A case that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the application must see of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Seen {
    /// 502 `upstream-protocol`.
    Fault,
    /// An answer that breaks off.
    Broken,
    /// Either: the head may have been passed on when the rule was broken, or not yet.
    FaultOrBroken,
    /// A good answer: the rule lets that be.
    Good,
}

/// What a bank says to the one request that it gets, which is a POST on stream 1.
struct Answer {
    section: &'static str,
    name: &'static str,
    said: Vec<u8>,
    seen: Seen,
}

fn says(section: &'static str, name: &'static str, said: impl IntoIterator<Item = Vec<u8>>, seen: Seen) -> Answer {
    Answer { section, name, said: said.into_iter().flatten().collect(), seen }
}

/// `:status: 200`, an entry of HPACK's static table.
const OK: u8 = 0x88;

fn head(flags: u8, fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, flags | END_HEADERS, 1, &[&[OK], block(fields).as_slice()].concat())
}

fn data(flags: u8, bytes: &[u8]) -> Vec<u8> {
    frame(DATA, flags, 1, bytes)
}

fn bare(flags: u8, block: &[u8]) -> Vec<u8> {
    frame(HEADERS, flags | END_HEADERS, 1, block)
}

fn of_messages() -> Vec<Answer> {
    let ok = || head(0, &[]);
    let five = || head(0, &[("content-length", "5")]);
    let end = || data(END_STREAM, b"good");
    vec![
        says("8.1", "a good answer", [ok(), end()], Seen::Good),
        says("8.1", "DATA before the head", [end()], Seen::Fault),
        says(
            "8.1",
            "trailers that do not end it",
            [ok(), data(0, b"x"), bare(0, &block(&[("x-late", "1")]))],
            Seen::FaultOrBroken,
        ),
        says("8.1", "an interim answer that ends it", [bare(END_STREAM, &[0x08, 3, b'1', b'0', b'3'])], Seen::Fault),
        says("8.1.1", "a longer body than it says", [five(), data(END_STREAM, b"abcdef")], Seen::FaultOrBroken),
        says("8.1.1", "a shorter body than it says", [five(), data(END_STREAM, b"abcd")], Seen::FaultOrBroken),
        says(
            "8.1.1",
            "a shorter body in two pieces",
            [five(), data(0, b"ab"), data(END_STREAM, b"cd")],
            Seen::FaultOrBroken,
        ),
        says("8.1.1", "a length and no body", [head(END_STREAM, &[("content-length", "5")])], Seen::Fault),
        says(
            "8.1.1",
            "two lengths",
            [head(0, &[("content-length", "4"), ("content-length", "5")]), end()],
            Seen::Fault,
        ),
        says("8.1.1", "a length that is no number", [head(0, &[("content-length", "4x")]), end()], Seen::Fault),
        says("8.2", "an upper-case name", [head(0, &[("X-Name", "1")]), end()], Seen::Fault),
        says("8.2.1", "a value with LF", [head(0, &[("x-name", "a\nb: c")]), end()], Seen::Fault),
        says("8.2.2", "Connection", [head(0, &[("connection", "close")]), end()], Seen::Fault),
        says("8.2.2", "Transfer-Encoding", [head(0, &[("transfer-encoding", "chunked")]), end()], Seen::Fault),
        says("8.3", "an unknown pseudo-header field", [head(0, &[(":what", "1")]), end()], Seen::Fault),
        says(
            "8.3",
            ":status behind other fields",
            [bare(0, &[block(&[("x", "1")]), vec![OK]].concat()), end()],
            Seen::Fault,
        ),
        says("8.3", ":status twice", [bare(0, &[OK, OK]), end()], Seen::Fault),
        says("8.3.2", "no :status", [bare(0, &block(&[("x", "1")])), end()], Seen::Fault),
        says("8.3.2", "a :status that is no number", [bare(0, &[0x08, 3, b'2', b'0', b'x']), end()], Seen::Fault),
        says("8.6", "101, which HTTP/2 has not", [bare(0, &[0x08, 3, b'1', b'0', b'1']), end()], Seen::Fault),
        says("8.1", "RST_STREAM instead of an answer", [reset(1, PROTOCOL_ERROR)], Seen::Fault),
        says(
            "8.1",
            "RST_STREAM with NO_ERROR instead of an end",
            [ok(), data(0, b"x"), reset(1, NO_ERROR)],
            Seen::FaultOrBroken,
        ),
    ]
}

fn of_frames() -> Vec<Answer> {
    let ok = || head(0, &[]);
    let end = || data(END_STREAM, b"good");
    let ping = |flags: u8, stream: u32, length: usize| frame(PING, flags, stream, &vec![0; length]);
    let pushed =
        [&2_u32.to_be_bytes()[..], &block(&[(":method", "GET"), (":path", "/"), (":scheme", "https")])].concat();
    vec![
        says("4.1", "an unknown kind of frame", [frame(0xfe, 0xff, 1, b"what"), ok(), end()], Seen::Good),
        says("4.2", "DATA of 16385 bytes", [ok(), data(END_STREAM, &[7; 16385])], Seen::FaultOrBroken),
        says("4.2", "HEADERS of 16385 bytes", [bare(END_STREAM, &[OK; 16385])], Seen::Fault),
        says("4.3", "another frame in a block", [frame(HEADERS, 0, 1, &[OK]), ping(0, 0, 8), end()], Seen::Fault),
        says("4.3", "a block that cannot be read", [bare(0, &[OK, 0x80]), end()], Seen::Fault),
        says(
            "5.1",
            "an answer on a stream that nobody opened",
            [frame(HEADERS, END_STREAM | END_HEADERS, 3, &[OK])],
            Seen::Fault,
        ),
        says(
            "5.1",
            "DATA on a stream that nobody opened",
            [ok(), frame(DATA, END_STREAM, 3, b"good")],
            Seen::FaultOrBroken,
        ),
        says("5.1", "DATA on a stream of its own", [ok(), frame(DATA, END_STREAM, 2, b"good")], Seen::FaultOrBroken),
        says("5.1", "RST_STREAM on a stream that nobody opened", [reset(3, NO_ERROR)], Seen::Fault),
        says(
            "5.1.1",
            "HEADERS on a stream of its own",
            [frame(HEADERS, END_STREAM | END_HEADERS, 2, &[OK])],
            Seen::Fault,
        ),
        says("6.1", "DATA on stream 0", [frame(DATA, 0, 0, b"good")], Seen::Fault),
        says(
            "6.1",
            "padding as long as DATA",
            [ok(), frame(DATA, END_STREAM | PADDED, 1, b"\x05good")],
            Seen::FaultOrBroken,
        ),
        says("6.1", "DATA with padding", [ok(), frame(DATA, END_STREAM | PADDED, 1, b"\x02good\0\0")], Seen::Good),
        says("6.3", "PRIORITY on stream 0", [frame(PRIORITY, 0, 0, &[0, 0, 0, 1, 9])], Seen::Fault),
        says("6.4", "RST_STREAM of 3 bytes", [frame(RST_STREAM, 0, 1, &[0; 3])], Seen::Fault),
        says("6.5", "SETTINGS of 5 bytes", [frame(SETTINGS, 0, 0, &[0; 5])], Seen::Fault),
        says("6.5", "an ACK with a payload", [frame(SETTINGS, ACK, 0, &[0; 6])], Seen::Fault),
        says("6.5.2", "ENABLE_PUSH of 2", [settings(&[(ENABLE_PUSH, 2)])], Seen::Fault),
        says("6.5.2", "INITIAL_WINDOW_SIZE of 2^31", [settings(&[(INITIAL_WINDOW_SIZE, 1 << 31)])], Seen::Fault),
        says("6.5.2", "MAX_FRAME_SIZE of 2^24", [settings(&[(MAX_FRAME_SIZE, 1 << 24)])], Seen::Fault),
        says(
            "6.6",
            "PUSH_PROMISE, which we have switched off",
            [frame(PUSH_PROMISE, END_HEADERS, 1, &pushed)],
            Seen::Fault,
        ),
        says("6.7", "PING of 7 bytes", [ping(0, 0, 7)], Seen::Fault),
        says("6.7", "PING on a stream", [ping(0, 1, 8)], Seen::Fault),
        says("6.7", "an ACK that nobody asked for", [ping(ACK, 0, 8), ok(), end()], Seen::Good),
        says("6.8", "GOAWAY on a stream", [frame(GOAWAY, 0, 1, &[0; 8])], Seen::Fault),
        says(
            "6.8",
            "GOAWAY that names this stream, then its answer",
            [frame(GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0]), ok(), end()],
            Seen::Good,
        ),
        says("6.9", "an increment of 0", [window_update(0, 0)], Seen::Fault),
        says("6.9.1", "a window of 2^31", [window_update(0, (1 << 31) - 1)], Seen::Fault),
        says("6.10", "CONTINUATION of nothing", [frame(CONTINUATION, END_HEADERS, 1, &[OK])], Seen::Fault),
        says(
            "6.10",
            "a head in three frames",
            [
                frame(HEADERS, 0, 1, &[OK]),
                frame(CONTINUATION, 0, 1, &block(&[("x", "1")])),
                frame(CONTINUATION, END_HEADERS, 1, &[]),
                end(),
            ],
            Seen::Good,
        ),
        says(
            "10.5.1",
            "a head of 1 MiB",
            {
                let field = block(&[("x", "y".repeat(16_000))]);
                let more = (0..64).map(move |_| frame(CONTINUATION, 0, 1, &field));
                [frame(HEADERS, END_STREAM, 1, &[OK])].into_iter().chain(more)
            },
            Seen::Fault,
        ),
    ]
}

/// A bank that says this to each whole request. Counts requests.
async fn saying(sim: &SimHandle, said: Vec<u8>) -> (RawServer, Rc<Cell<usize>>) {
    let (requests, said): (Rc<Cell<usize>>, Rc<[u8]>) = (Rc::default(), said.into());
    let counted = requests.clone();
    let odd = RawServer::start(sim, &[b"h2"], &[&TLS13], move |(mut tls, _, _)| {
        let (requests, said) = (counted.clone(), said.clone());
        async move {
            let mut preface = [0; PREFACE.len()];
            if tls.read_exact(&mut preface).await.is_err() || preface != PREFACE {
                return;
            }
            let mut line = Line::new(tls);
            line.send(settings(&[])).await;
            while let Some(frame) = line.next().await {
                let whole = frame.ends(frame.stream);
                requests.set(requests.get() + usize::from(frame.kind == HEADERS));
                if whole {
                    line.send(&said).await;
                }
            }
        }
    })
    .await;
    (odd, requests)
}

#[test]
fn http2_answers_that_break_the_rules_are_no_answers_and_payments_are_sent_once() {
    converse(async {
        let sim = bank(Bank::OAuth2);
        let mut cases = Vec::new();
        let mut config = String::new();
        for (number, answer) in of_messages().into_iter().chain(of_frames()).enumerate() {
            let (odd, requests) = saying(&sim, answer.said.clone()).await;
            let name = format!("case{number}");
            let _ = writeln!(
                config,
                "[[route]]\nname = \"{name}\"\npath = \"/{name}\"\nprovider = \"bank\"\n{}",
                odd.upstream()
            );
            cases.push((answer, format!("/{name}/pay"), requests));
        }
        let stage = Plan { workers: 1, ..Plan::default() }.with(&sim, "bank", "", &config).start();
        let mut wrong = Vec::new();
        for (answer, path, requests) in cases {
            let Answer { section, name, seen: wanted, .. } = answer;
            let mut sender = stage.client.http1().await;
            let asking = async {
                let response = sender.send_request(post(&path, KEY, "{\"pay\":1}")).await.expect("an answer");
                let status = response.status().as_u16();
                let trailing = response.headers().clone();
                match response.into_body().collect().await {
                    Err(_) => (Some(Seen::Broken), String::new()),
                    Ok(body) => {
                        let whole = Whole { status, headers: trailing, body: body.to_bytes() };
                        let told = format!("{status} {} {:?}", whole.error(), whole.body);
                        let seen = match (status, whole.error().as_str()) {
                            (502, "upstream-protocol") => Some(Seen::Fault),
                            (200, "") if &*whole.body == b"good" => Some(Seen::Good),
                            _ => None,
                        };
                        (seen, told)
                    }
                }
            };
            let Ok((seen, told)) = timeout(PATIENCE, asking).await else {
                wrong.push(format!("RFC 9113 section {section}, {name}: no answer"));
                continue;
            };
            let either = wanted == Seen::FaultOrBroken && matches!(seen, Some(Seen::Fault | Seen::Broken));
            if seen != Some(wanted) && !either {
                wrong.push(format!("RFC 9113 section {section}, {name}: {seen:?} instead of {wanted:?}: {told}"));
            }
            if requests.get() != 1 {
                wrong.push(format!("RFC 9113 section {section}, {name}: sent {} times", requests.get()));
            }
        }
        assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
        assert_eq!(stage.client.send(get("/bank/echo/x", KEY)).await.status, 200, "the proxy serves on");
        drop(stage);
    });
}

/// A bank that greets each connection with this.
async fn greeting(sim: &SimHandle, said: &'static [u8]) -> (RawServer, Rc<Cell<usize>>) {
    let requests: Rc<Cell<usize>> = Rc::default();
    let counted = requests.clone();
    let odd = RawServer::start(sim, &[b"h2"], &[&TLS13], move |(mut tls, _, _)| {
        let requests = counted.clone();
        async move {
            let mut preface = [0; PREFACE.len()];
            if tls.read_exact(&mut preface).await.is_err() {
                return;
            }
            let mut line = Line::new(tls);
            line.send(said).await;
            while let Some(frame) = line.next().await {
                requests.set(requests.get() + usize::from(frame.kind == HEADERS));
            }
        }
    })
    .await;
    (odd, requests)
}

#[test]
fn http2_connections_that_a_bank_does_not_begin_well_carry_no_request() {
    const PING_FIRST: &[u8] = &[0, 0, 8, PING, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0];
    const LARGE: &[u8] = &[0xff, 0xff, 0xff, SETTINGS, 0, 0, 0, 0, 0];
    const ODD: &[u8] = &[0, 0, 6, SETTINGS, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 1];
    converse(async {
        let sim = bank(Bank::OAuth2);
        for (name, said) in [
            ("HTTP/1.1", &b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n"[..]),
            ("another frame", PING_FIRST),
            ("a frame that is too large", LARGE),
            ("MAX_FRAME_SIZE of 1", ODD),
        ] {
            let (odd, requests) = greeting(&sim, said).await;
            let route = format!("{}\ntimeouts = {{ connect = \"1s\", response = \"1s\" }}", odd.upstream());
            let stage = Plan { workers: 1, ..Plan::default() }.with(&sim, "bank", "", &route).start();
            let answer = stage.client.send(post("/bank/pay", KEY, "{\"pay\":1}")).await;
            assert_eq!((answer.status, requests.get()), (502, 0), "RFC 9113 section 3.4, {name}: {answer:?}");
            drop(stage);
        }
    });
}

#[test]
fn http2_banks_that_flood_us_with_settings_are_not_read_any_further() {
    converse(async {
        let sim = bank(Bank::OAuth2);
        let taken: Rc<Cell<Option<usize>>> = Rc::default();
        let noted = taken.clone();
        let most = 64 << 20;
        let odd = RawServer::start(&sim, &[b"h2"], &[&TLS13], move |(mut tls, _, _)| {
            let noted = noted.clone();
            async move {
                let mut preface = [0; PREFACE.len()];
                if tls.read_exact(&mut preface).await.is_err() {
                    return;
                }
                let mut line = Line::new(tls);
                let flood = settings(&[(INITIAL_WINDOW_SIZE, 1000)]).repeat(600);
                noted.set(Some(line.press(&flood, most, Duration::from_millis(500)).await));
            }
        })
        .await;
        let route = format!("{}\ntimeouts = {{ response = \"20s\" }}", odd.upstream());
        let stage = Plan { workers: 1, ..Plan::default() }.with(&sim, "bank", "", &route).start();
        let answer = timeout(PATIENCE * 2, stage.client.send(post("/bank/pay", KEY, "{\"pay\":1}"))).await;
        assert_eq!(answer.expect("in time").status, 502, "it hung up");
        let taken = taken.get().expect("it was called");
        assert!(taken < most, "it took {taken} bytes");
        drop(stage);
    });
}
