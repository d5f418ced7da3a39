//! Who knocks at the door: names that TLS and HTTP disagree about, and clients that keep it waiting.

use std::time::Duration;

use countersign::sim::Bank;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::client::{converse, get};
use crate::harness::{KEY, Plan, bank};

/// The status line's code of a raw answer.
fn status(answer: &[u8]) -> u16 {
    std::str::from_utf8(answer.get(9..12).unwrap_or(b"0")).ok().and_then(|code| code.parse().ok()).unwrap_or(0)
}

#[test]
fn a_host_unlike_the_name_that_tls_asked_for_is_misdirected() {
    let sim = bank(Bank::Scb);
    let stage = Plan::default().with(&sim, "scb", "", "").start();
    converse(async {
        let mut other = get("/scb/echo/x", KEY);
        other.headers_mut().insert("host", http::HeaderValue::from_static("other.example"));
        let answer = stage.client.send(other).await;
        assert_eq!((answer.status, answer.error().as_str()), (421, "misdirected-request"));
        let mut address = get("/scb/echo/x", KEY);
        let host = http::HeaderValue::try_from(stage.address.to_string()).expect("a host");
        address.headers_mut().insert("host", host);
        assert_eq!(stage.client.asking_for("localhost").send(address).await.status, 200, "an address is not compared");
        assert_eq!(stage.client.asking_for("127.0.0.1").send(get("/scb/echo/x", KEY)).await.status, 200, "no SNI");
    });
}

#[test]
fn a_client_that_never_finishes_its_head_is_told_and_closed() {
    let sim = bank(Bank::Scb);
    let plan = Plan { limits: "header_timeout = \"300ms\"\nidle_timeout = \"600ms\"".to_owned(), ..Plan::default() };
    let stage = plan.with(&sim, "scb", "", "").start();
    converse(async {
        let answer = stage.client.raw(b"GET /scb/x HTTP/1.1\r\nhost: loc", Duration::from_secs(5)).await;
        assert_eq!(status(&answer), 408, "{}", String::from_utf8_lossy(&answer));
        let silent = stage.client.raw(b"", Duration::from_secs(5)).await;
        assert!(silent.is_empty(), "an idle connection is just closed");
        // Nor may a client dawdle in the TLS handshake.
        let mut stream = TcpStream::connect(stage.address).await.expect("connected");
        let mut end = [0; 1];
        let closed = tokio::time::timeout(Duration::from_secs(5), stream.read(&mut end));
        assert!(closed.await.expect("closed in time").is_ok_and(|read| read == 0));
    });
}
