//! HTTP/2 and HPACK to the letter: what RFC 9113 and RFC 7541 have a server do, and a client, when the other side breaks
//! their rules. Each case names its section.
//!
//! The protocol's errors are h2's to find; that it finds them, that nothing of them gets through, and that a connection
//! serves on where the RFC says so, is ours to know.

mod bank;
mod case;
mod floods;
mod framing;
mod hpack;
mod messages;
mod windows;

use std::sync::Arc;

use countersign::sim::{Bank, ReceivedRequest};

use self::case::{Case, FINE, NEVER};
use crate::client::{converse, get};
use crate::harness::{KEY, Plan, bank};

/// Plays all cases before one proxy, whose only worker must serve as ever after them. No request that breaks a rule may
/// have reached the bank, or, where it broke it only after its head, not as a whole one.
fn play(cases: impl IntoIterator<Item = Case>) -> Vec<Arc<ReceivedRequest>> {
    let sim = bank(Bank::OAuth2);
    let stage = Plan { workers: 1, ..Plan::default() }.with(&sim, "bank", "", "").start();
    let broken = converse(async {
        let mut broken = Vec::new();
        for case in cases {
            broken.extend(case.run(&stage).await.err());
        }
        assert_eq!(stage.client.send(get(FINE, KEY)).await.status, 200, "the proxy serves on");
        broken
    });
    assert!(broken.is_empty(), "{} cases:\n{}", broken.len(), broken.join("\n"));
    let came = |path: &str| {
        let path = path.replace("/bank", "/api");
        sim.received().into_iter().filter(|request| request.path == path).collect::<Vec<_>>()
    };
    assert!(!came(FINE).is_empty());
    assert!(came(NEVER).iter().all(|request| request.aborted), "{:?}", came(NEVER));
    drop(stage);
    came(FINE)
}

#[test]
fn http2_connections_begin_and_are_framed_as_the_rfc_says() {
    play(framing::beginning().into_iter().chain(framing::format()).chain(framing::continuation()));
}

#[test]
fn http2_frames_of_each_kind_are_held_to_their_rules() {
    let cases = framing::data_and_headers().into_iter().chain(framing::priority_and_reset());
    play(cases.chain(framing::of_settings()).chain(framing::push_ping_goaway()).chain(framing::window_updates()));
}

#[test]
fn http2_streams_take_the_frames_of_their_states_alone() {
    play(framing::states());
}

#[test]
fn http2_requests_that_are_malformed_reach_no_bank() {
    play(messages::of_fields().into_iter().chain(messages::of_lengths()).chain(messages::of_trailers()));
}

#[test]
fn http2_blocks_that_cannot_be_read_end_their_connection() {
    let came = play(hpack::good().into_iter().chain(hpack::bad()));
    let fields: Vec<_> = came.iter().filter_map(|request| request.header("custom-key")).collect();
    assert_eq!(fields, ["custom-value"; 5], "they were decoded, also from the table");
}
