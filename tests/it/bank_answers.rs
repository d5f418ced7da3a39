//! Token endpoints as real banks run them: behind compressing gateways and firewalls, with ends that nobody vouches for;
//! and refusals under other labels. End to end, over real sockets.

use std::io::Write as _;

use countersign::sim::Bank;
use flate2::Compression;
use flate2::write::GzEncoder;
use rustls::version::TLS13;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::client::{converse, get, post};
use crate::harness::{KEY, Plan, bank};
use crate::raw_server::{Call, RawServer, Seen, honest};

/// How a connection ends after the answer.
#[derive(Clone, Copy)]
enum End {
    /// FIN alone.
    Dropped,
    /// close_notify, then FIN.
    Said,
}

async fn answered((mut tls, number, book): Call, answer: Vec<u8>, end: End) {
    let mut read = Vec::new();
    let mut piece = [0; 4096];
    let head = loop {
        match tls.read(&mut piece).await {
            Ok(0) | Err(_) => return,
            Ok(more) => read.extend_from_slice(&piece[..more]),
        }
        let text = String::from_utf8_lossy(&read).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
        if body.len() >= length.unwrap_or(0) {
            break head.to_owned();
        }
    };
    let fields = head.lines().skip(1).filter_map(|line| line.split_once(": "));
    let field = |(name, value): (&str, &str)| {
        let name: http::HeaderName = name.parse().expect("a name");
        (name, value.parse().expect("a value"))
    };
    let (method, uri) = (http::Method::POST, http::Uri::from_static("/token"));
    let seen = Seen { connection: number, method, uri, headers: fields.map(field).collect(), body: Vec::new() };
    book.seen.borrow_mut().push(seen);
    let _ = tls.write_all(&answer).await;
    let _ = tls.flush().await;
    match end {
        End::Said => drop(tls.shutdown().await),
        End::Dropped => {
            let (mut tcp, _) = tls.into_inner();
            let _ = tcp.shutdown().await;
            // The rest is read, so that nothing of the answer is lost to a reset.
            while tcp.read(&mut piece).await.is_ok_and(|more| more > 0) {}
        }
    }
}

const JSON: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";
const GRANT: &str = "{\"access_token\":\"tok-1\",\"token_type\":\"Bearer\",\"expires_in\":600}";

/// What became of a call: its status, its error, the token that the API saw, and the head of the token call.
struct Outcome {
    status: u16,
    error: String,
    token: Option<String>,
    asked: http::HeaderMap,
}

/// Calls an API whose token endpoint answers with these bytes.
fn call(answer: impl Into<Vec<u8>>, end: End, more: &str) -> Outcome {
    let answer = answer.into();
    converse(async {
        let sim = bank(Bank::OAuth2);
        let play = move |call| answered(call, answer.clone(), end);
        let tokens = RawServer::start(&sim, &[b"http/1.1"], &[&TLS13], play).await;
        let api = RawServer::start(&sim, &[b"h2"], &[&TLS13], honest).await;
        let mut plan = Plan::default().with(&sim, "bank", more, &api.upstream());
        let (real, odd) = (sim.token_url(), format!("https://{}/token", tokens.address));
        assert!(plan.config.contains(&real), "{}", plan.config);
        plan.config = plan.config.replace(&real, &odd);
        let stage = plan.start();
        let answer = stage.client.send(post("/bank/x", KEY, "{}")).await;
        let seen = api.book.seen.borrow();
        let token = seen.first().map(|seen| seen.headers["authorization"].to_str().expect("text").to_owned());
        let asked = tokens.book.seen.borrow().first().expect("a token call").headers.clone();
        Outcome { status: answer.status, error: answer.error(), token, asked }
    })
}

fn json(fields: &str, body: &[u8]) -> Vec<u8> {
    [format!("{JSON}{fields}content-length: {}\r\n\r\n", body.len()).as_bytes(), body].concat()
}

#[test]
fn our_own_calls_say_who_they_are_and_want_nothing_encoded() {
    let ours = call(json("", GRANT.as_bytes()), End::Said, "");
    assert_eq!((ours.status, ours.token.as_deref()), (200, Some("Bearer tok-1")));
    assert_eq!(ours.asked["user-agent"], concat!("countersign/", env!("CARGO_PKG_VERSION")));
    assert_eq!(ours.asked["accept-encoding"], "identity");
    let named = call(json("", GRANT.as_bytes()), End::Said, "user_agent = \"acme-pay/7\"");
    assert_eq!(named.asked["user-agent"], "acme-pay/7");
}

#[test]
fn a_compressed_token_answer_is_read_and_a_bomb_is_not() {
    let gzip = |text: &[u8]| {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
        gzip.write_all(text).and_then(|()| gzip.finish()).expect("a Vec takes all")
    };
    let coded = "content-encoding: gzip\r\n";
    let read = call(json(coded, &gzip(GRANT.as_bytes())), End::Said, "");
    assert_eq!((read.status, read.token.as_deref()), (200, Some("Bearer tok-1")));
    let mut bomb = GRANT.as_bytes().to_vec();
    bomb.resize(8 << 20, b' ');
    let bomb = call(json(coded, &gzip(&bomb)), End::Said, "");
    assert_eq!((bomb.status, bomb.error.as_str(), bomb.token), (503, "token-unavailable", None));
}

#[test]
fn an_end_that_nobody_vouches_for_counts_where_the_document_is_whole() {
    let open = |body: &str| format!("{JSON}connection: close\r\n\r\n{body}");
    for (what, answer, end, used) in [
        ("said", open(GRANT), End::Said, true),
        ("whole, without close_notify", open(GRANT), End::Dropped, true),
        ("cut", open(&GRANT[..GRANT.len() - 1]), End::Dropped, false),
        ("cut to nothing", open(""), End::Dropped, false),
        ("shorter than its length", format!("{JSON}content-length: 999\r\n\r\n{GRANT}"), End::Dropped, false),
        (
            "chunks without the last",
            format!("{JSON}transfer-encoding: chunked\r\n\r\n{:x}\r\n{GRANT}\r\n", GRANT.len()),
            End::Dropped,
            false,
        ),
    ] {
        let outcome = call(answer, end, "");
        assert_eq!(outcome.token.is_some(), used, "{what}");
        assert_eq!(outcome.status, if used { 200 } else { 503 }, "{what}");
    }
}

#[test]
fn an_odd_token_type_is_used() {
    for word in ["BearerToken", "", "N_A", "mac", "two words"] {
        let body = GRANT.replace("Bearer", word);
        let outcome = call(json("", body.as_bytes()), End::Said, "");
        assert_eq!((outcome.status, outcome.token.as_deref()), (200, Some("Bearer tok-1")), "{word:?}");
    }
}

#[test]
fn a_wrong_secret_is_fatal_with_any_status_and_a_firewalls_page_is_not() {
    let wrong = call(json("", br#"{"error":"invalid_client"}"#), End::Said, "");
    assert_eq!((wrong.status, wrong.error.as_str()), (502, "provider-credentials-rejected"));
    let page = "<html>Access denied</html>";
    let head = format!("HTTP/1.1 403 Forbidden\r\ncontent-type: text/html\r\ncontent-length: {}\r\n\r\n", page.len());
    let page = call(head + page, End::Said, "");
    assert_eq!((page.status, page.error.as_str()), (503, "token-unavailable"));
}

#[test]
fn a_longer_route_keeps_its_rules_however_its_letters_are_written() {
    let sim = bank(Bank::OAuth2);
    let deeper = "strip = true\n[[route]]\nname = \"deep\"\npath = \"/bank/echo/pay\"\nprovider = \"bank\"\n\
                  rate_limit = { requests = 1, per = \"1h\" }";
    let stage = Plan::default().with(&sim, "bank", "", deeper).start();
    converse(async {
        let status = async |path: &str| stage.client.send(get(path, KEY)).await.status;
        assert_eq!(status("/bank/echo/p").await, 200);
        assert_ne!(status("/bank/echo/pay/x").await, 429);
        for spelling in ["/bank/echo/%70ay/x", "/bank/%65cho/pa%79/x", "/b%61nk/echo/pay"] {
            assert_eq!(status(spelling).await, 429, "{spelling}");
        }
        for spelling in ["/bank/echo/pay;a/x", "/bank/echo/pay;a", "/bank/echo/pay./x", "/bank/echo/%2570ay"] {
            assert_eq!(status(spelling).await, 400, "{spelling}");
        }
    });
    drop(stage);
}
