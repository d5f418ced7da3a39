//! Clients that cost more than they pay for (RFC 9113 section 10.5).

use std::time::Duration;

use countersign::sim::Bank;
use tokio::time::timeout;

use super::case::{FINE, NEVER, data, fields, never_with, open, post, whole};
use crate::client::{converse, get};
use crate::frames::{
    CANCEL, CONTINUATION, ENHANCE_YOUR_CALM, Frame, GOAWAY, HEADERS, INITIAL_WINDOW_SIZE, Line, PING, PREFACE, block,
    frame, reset, settings,
};
use crate::harness::{KEY, Plan, bank};

/// Presses these bytes on the proxy as often as this, and reads what it says at the end.
fn flood(opening: &[u8], piece: impl Fn(u32) -> Vec<u8>, times: u32) -> Option<u32> {
    let sim = bank(Bank::OAuth2);
    let stage = Plan { workers: 1, ..Plan::default() }.with(&sim, "bank", "", "").start();
    let code = converse(async {
        let mut line = Line::new(stage.client.tls(&[b"h2"]).await.expect("TLS"));
        line.send([PREFACE, &settings(&[]), opening].concat()).await;
        for at in 0..times {
            line.send(piece(at)).await;
        }
        timeout(Duration::from_secs(10), line.rest()).await.expect("the connection ends");
        assert_eq!(stage.client.send(get(FINE, KEY)).await.status, 200, "the proxy serves on");
        line.seen.iter().rev().find(|frame| frame.kind == GOAWAY).and_then(Frame::code)
    });
    let never = NEVER.replace("/bank", "/api");
    assert!(sim.received().iter().all(|request| request.path != never || request.aborted));
    drop(stage);
    code
}

#[test]
fn http2_clients_that_open_and_reset_streams_are_told_to_calm_down() {
    let piece = |at: u32| [post(2 * at + 1), reset(2 * at + 1, CANCEL)].concat();
    assert_eq!(flood(&[], |at| (0..50).flat_map(|more| piece(50 * at + more)).collect(), 100), Some(ENHANCE_YOUR_CALM));
}

#[test]
fn http2_clients_that_send_one_malformed_request_after_another_are_told_to_calm_down() {
    let malformed = |at: u32| whole(2 * at + 1, &never_with(&[("connection", "close")]));
    assert_eq!(flood(&[], malformed, 1100), Some(ENHANCE_YOUR_CALM));
}

#[test]
fn http2_bodies_in_frames_of_nothing_are_told_to_calm_down() {
    let head = open(1, &fields("POST", NEVER));
    assert_eq!(flood(&head, |_| data(1, "").repeat(100), 300), Some(ENHANCE_YOUR_CALM));
}

#[test]
fn http2_heads_without_an_end_are_told_to_calm_down() {
    let head = frame(HEADERS, 0, 1, &block(&never_with(&[])));
    assert_eq!(flood(&head, |_| frame(CONTINUATION, 0, 1, &[]), 200), Some(ENHANCE_YOUR_CALM));
}

#[test]
fn http2_clients_that_read_no_answers_to_their_frames_are_not_read_any_further() {
    let sim = bank(Bank::OAuth2);
    let stage = Plan { workers: 1, ..Plan::default() }.with(&sim, "bank", "", "").start();
    converse(async {
        for piece in [frame(PING, 0, 0, &[7; 8]), settings(&[(INITIAL_WINDOW_SIZE, 1000)])] {
            let mut line = Line::new(stage.client.tls(&[b"h2"]).await.expect("TLS"));
            line.send([PREFACE, &settings(&[])].concat()).await;
            let most = 64 << 20;
            let taken = line.press(&piece.repeat(600), most, Duration::from_millis(500)).await;
            assert!(taken < most, "it took {taken} bytes");
            assert_eq!(stage.client.send(get(FINE, KEY)).await.status, 200, "the proxy serves on");
        }
    });
    drop(stage);
}
