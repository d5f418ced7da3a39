//! Requests that were broken at random, from a fixed seed: the proxy answers, refuses or hangs up, never fails; and what
//! reaches the bank is always one clean request below its base path, signed with the live token.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use countersign::base::secret::ExposeSecret;
use countersign::sim::{Bank, Sim, SimEndpoint, SimHandle, SimOptions};

use crate::client::{Client, converse, get};
use crate::harness::{KEY, Plan};

/// How many broken requests, and how many at once.
const CASES: usize = 1200;
const AT_ONCE: usize = 24;

/// What is put into a request somewhere.
const PIECES: [&str; 36] = [
    "\r\n",
    "\n",
    "\r",
    "\0",
    " ",
    "\t",
    ":",
    ";",
    "%2e%2e/",
    "../",
    "//",
    "%2f",
    "%5c",
    "\\",
    "%00",
    "%",
    "?",
    "#",
    "@",
    "*",
    "\u{e9}",
    "\r\nhost: evil.example",
    "\r\nhost:",
    "\r\ncontent-length: 3",
    "\r\ncontent-length: 99999999999999999999",
    "\r\ntransfer-encoding: chunked",
    "\r\ntransfer-encoding: identity",
    "\r\nconnection: authorization, requestuid",
    "\r\nauthorization: Bearer nope",
    "\r\nproxy-authorization: Basic ZXJwOng=",
    "\r\nexpect: 100-continue",
    "\r\nupgrade: websocket",
    "\r\n\r\n",
    "https://evil.example",
    "HTTP/1.0",
    "TRACE ",
];

/// A small generator (xorshift), so that a failure can be repeated by its number.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % sides.max(1) as u64).expect("small")
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let common = format!("host: localhost\r\nauthorization: Bearer {KEY}\r\nconnection: close\r\n");
    let absolute = format!("https://localhost/scb/echo/a HTTP/1.1\r\n{common}\r\n");
    [
        format!("GET /scb/echo/a?b=c HTTP/1.1\r\n{common}accept: */*\r\ncookie: a=1\r\n\r\n"),
        format!("POST /scb/echo/a HTTP/1.1\r\n{common}content-type: application/json\r\ncontent-length: 7\r\n\r\n{{\"a\":1}}"),
        format!("POST /scb/echo/a HTTP/1.1\r\n{common}transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n"),
        format!("PUT /scb/echo/a;v=1 HTTP/1.1\r\n{common}requestuid: 0123456789abcdef\r\ncontent-length: 0\r\n\r\n"),
        format!("GET {absolute}"),
        format!("HEAD /scb/download?bytes=10 HTTP/1.1\r\n{common}x-forwarded-for: 10.0.0.1\r\nvia: 1.1 x\r\n\r\n"),
        format!("OPTIONS * HTTP/1.1\r\n{common}\r\n"),
        format!("POST /scb/payments/P1 HTTP/1.0\r\n{common}content-length: 2\r\n\r\n{{}}"),
    ]
    .map(String::into_bytes)
    .to_vec()
}

/// One to four changes: a bit, a byte, a span, a piece, the end.
fn broken(mut bytes: Vec<u8>, dice: &mut Dice) -> Vec<u8> {
    for _ in 0..=dice.roll(4) {
        let at = dice.roll(bytes.len());
        match dice.roll(7) {
            _ if bytes.is_empty() => {}
            0 => bytes[at] ^= 1 << dice.roll(8),
            1 => drop(bytes.remove(at)),
            2 => bytes.insert(at, bytes[at]),
            3 => bytes.truncate(at),
            4 => {
                let end = (at + dice.roll(40)).min(bytes.len());
                let span = bytes[at..end].to_vec();
                let to = dice.roll(bytes.len());
                bytes.splice(to..to, span);
            }
            _ => {
                let piece = PIECES[dice.roll(PIECES.len())].bytes();
                bytes.splice(at..at, piece);
            }
        }
    }
    bytes
}

async fn send(client: Client, bytes: Vec<u8>) -> (Vec<u8>, Vec<u8>) {
    let answer = client.raw(&bytes, Duration::from_millis(60)).await;
    (bytes, answer)
}

/// Counts the panics on workers' threads; those of tests are reported as ever.
fn watch_for_panics() -> Arc<AtomicUsize> {
    let panics = Arc::new(AtomicUsize::new(0));
    let (counted, usual) = (panics.clone(), std::panic::take_hook());
    std::panic::set_hook(Box::new(move |info| {
        if std::thread::current().name().is_some_and(|name| name.starts_with("worker-") || name == "control") {
            counted.fetch_add(1, Ordering::SeqCst);
        }
        usual(info);
    }));
    panics
}

/// What is wrong with what arrived.
fn judged(sim: &SimHandle) -> String {
    let token = sim.issued().pop().expect("a token");
    let mut wrong = String::new();
    for arrival in sim.received() {
        if arrival.endpoint == SimEndpoint::Token {
            continue;
        }
        // As a generous server would read it.
        let path = percent_encoding::percent_decode_str(&arrival.path).decode_utf8_lossy().into_owned();
        let below = path.strip_prefix("/partners/sandbox").filter(|rest| rest.is_empty() || rest.starts_with('/'));
        let strange = path.contains(['\\', '\0'])
            || path.contains("//")
            || path.split('/').any(|segment| matches!(segment.split(';').next(), Some("." | "..")));
        let clean = below.is_some()
            && !strange
            && arrival.count("authorization") == 1
            && arrival.bearer() == Some(token.expose_secret())
            && arrival.count("requestuid") == 1
            && arrival.count("resourceownerid") == 1
            && arrival.count("host") == 1
            && arrival.count("content-length") + arrival.count("transfer-encoding") <= 1
            && ["proxy-authorization", "via", "x-forwarded-for", "upgrade", "expect"]
                .iter()
                .all(|name| arrival.count(name) == 0)
            && arrival.authority.as_deref() == Some(sim.address().to_string().as_str());
        if !clean {
            let _ = writeln!(wrong, "{} {} {arrival:?}", arrival.method, arrival.path);
        }
    }
    wrong
}

// F3, F7 on a small scale.
#[test]
fn a_broken_request_never_breaks_the_proxy_nor_reaches_the_bank_unclean() {
    let panics = watch_for_panics();
    let options = SimOptions { only_http1: true, ..SimOptions::default() };
    let sim: SimHandle = Sim::start(Bank::Scb, options).expect("a simulator");
    let stage = Plan::default().with(&sim, "scb", "", "").start();
    converse(async {
        assert_eq!(stage.client.send(get("/scb/echo/warm", KEY)).await.status, 200);
        let mut dice = Dice(0x5eed_0000_c0ff_ee14);
        let seeds = seeds();
        let (mut served, mut refused) = (0, 0);
        for _ in 0..CASES / AT_ONCE {
            let batch: Vec<_> = (0..AT_ONCE)
                .map(|n| {
                    let bytes = broken(seeds[n % seeds.len()].clone(), &mut dice);
                    tokio::task::spawn_local(send(stage.client.clone(), bytes))
                })
                .collect();
            for one in batch {
                let (bytes, answer) = one.await.expect("no panic");
                let (request, text) = (String::from_utf8_lossy(&bytes), String::from_utf8_lossy(&answer));
                let status: u16 = text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
                assert!(!text.contains(":error:internal") && status != 500, "{request}\n---\n{text}");
                assert!(answer.is_empty() || text.starts_with("HTTP/1."), "{request}\n---\n{text}");
                match status {
                    200..=299 => served += 1,
                    400..=499 => refused += 1,
                    _ => {}
                }
            }
        }
        assert!(served > CASES / 20 && refused > CASES / 4, "{served} served, {refused} refused");
        assert_eq!(stage.client.send(get("/scb/echo/after", KEY)).await.status, 200);
    });
    assert_eq!(judged(&sim), "");
    assert_eq!(sim.token_calls(), 1, "no broken request costs a token call");
    assert_eq!(panics.load(Ordering::SeqCst), 0, "a worker panicked");
}
