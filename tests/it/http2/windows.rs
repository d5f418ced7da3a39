//! Conversations that one frame does not make: settings, windows (RFC 9113 sections 5.2 and 6.9), and the bounds of what
//! may be open at once (section 5.1.2).

use std::time::Duration;

use bytes::Bytes;
use countersign::sim::{Bank, SimHandle};
use rustls::version::TLS13;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use super::case::{FINE, data, fields, get, last, post, whole};
use crate::client::converse;
use crate::frames::{
    ACK, COMPRESSION_ERROR, CONTINUATION, DATA, ENHANCE_YOUR_CALM, Ending, FLOW_CONTROL_ERROR, Frame, GOAWAY,
    HEADER_TABLE_SIZE, HEADERS, INITIAL_WINDOW_SIZE, Line, MAX_CONCURRENT_STREAMS, NO_ERROR, PING, PREFACE,
    PROTOCOL_ERROR, REFUSED_STREAM, RST_STREAM, SETTINGS, WINDOW_UPDATE, block, frame, settings, window_update,
};
use crate::harness::{Harness, Plan, bank};
use crate::raw_server::RawServer;

const PATIENCE: Duration = Duration::from_secs(10);

/// A proxy of one worker before this bank, whose route has these lines.
fn before(sim: &SimHandle, limits: &str, route: &str) -> Harness {
    Plan { workers: 1, limits: limits.to_owned(), ..Plan::default() }.with(sim, "bank", "", route).start()
}

/// A connection that begins with these settings.
async fn begin(stage: &Harness, values: &[(u16, u32)]) -> Line<TlsStream<TcpStream>> {
    let mut line = Line::new(stage.client.tls(&[b"h2"]).await.expect("TLS"));
    line.send([PREFACE, &settings(values)].concat()).await;
    line
}

/// Runs a conversation with a connection to an ordinary bank.
fn talk(values: &[(u16, u32)], conversation: impl AsyncFnOnce(&mut Line<TlsStream<TcpStream>>)) {
    let sim = bank(Bank::OAuth2);
    let stage = before(&sim, "", "");
    converse(async {
        let mut line = begin(&stage, values).await;
        let ended = timeout(PATIENCE, conversation(&mut line)).await;
        assert!(ended.is_ok(), "nothing more comes after {:?}", line.seen);
    });
    drop(stage);
}

/// What has come of the body on a stream.
fn received<S>(line: &Line<S>, stream: u32) -> usize {
    line.seen.iter().filter(|frame| frame.is(DATA, stream)).map(|frame| frame.payload.len()).sum()
}

/// Reads until so much of a body has come, and shows by a PING that no more follows.
async fn exactly(line: &mut Line<TlsStream<TcpStream>>, stream: u32, bytes: usize) {
    while received(line, stream) < bytes {
        assert!(line.next().await.is_some(), "it ended");
    }
    for mark in 0..3 {
        assert!(line.answers(mark).await);
    }
    assert_eq!(received(line, stream), bytes);
}

fn download(stream: u32, bytes: usize) -> Vec<u8> {
    whole(stream, &fields("GET", &format!("/bank/download?bytes={bytes}")))
}

#[test]
fn http2_settings_and_pings_are_answered_and_ours_are_ordered() {
    talk(&[], async |line| {
        line.send(frame(PING, 0, 0, b"one more")).await;
        assert!(line.until(|frame| frame.is(PING, 0)).await);
        // Section 3.4: settings first. Section 6.5.3: ours are acknowledged, and sections 6.5 and 6.7: with these.
        let ours = line.seen.first().expect("a frame");
        assert_eq!((ours.kind, ours.flags, ours.stream), (SETTINGS, 0, 0));
        let values: Vec<u16> = ours.payload.chunks(6).map(|one| u16::from_be_bytes([one[0], one[1]])).collect();
        assert!(values.contains(&MAX_CONCURRENT_STREAMS), "{values:?}");
        assert!(line.seen.contains(&Frame { kind: SETTINGS, flags: ACK, stream: 0, payload: Vec::new() }));
        let pong = line.seen.last().expect("a frame");
        assert_eq!((pong.flags, pong.payload.as_slice()), (ACK, &b"one more"[..]));
        for _ in 0..10 {
            line.send(settings(&[(INITIAL_WINDOW_SIZE, 1000)])).await;
        }
        assert!(line.answers(1).await);
        assert_eq!(line.seen.iter().filter(|frame| frame.kind == SETTINGS && frame.has(ACK)).count(), 11);
    });
}

#[test]
fn http2_requests_under_way_are_answered_after_a_clients_goaway() {
    talk(&[(INITIAL_WINDOW_SIZE, 0)], async |line| {
        line.send(download(1, 10)).await;
        assert!(line.until(|frame| frame.is(HEADERS, 1)).await);
        // Section 6.8: streams that were opened go on.
        line.send(frame(GOAWAY, 0, 0, &[0; 8])).await;
        assert!(line.answers(1).await);
        line.send(window_update(1, 10)).await;
        assert!(line.until(|frame| frame.ends(1)).await);
        assert_eq!(received(line, 1), 10);
        line.rest().await;
        let goaway = line.seen.iter().rev().find(|frame| frame.kind == GOAWAY).and_then(Frame::code);
        assert_eq!((line.ending, goaway), (Some(Ending::Closed), Some(NO_ERROR)));
    });
}

#[test]
fn http2_answers_stay_within_their_streams_window() {
    talk(&[(INITIAL_WINDOW_SIZE, 1)], async |line| {
        // Section 6.9.1: no more than the window; an update is added to it.
        line.send(download(1, 30)).await;
        exactly(line, 1, 1).await;
        line.send(window_update(1, 4)).await;
        exactly(line, 1, 5).await;
        // Section 6.9.2: another initial size moves the windows that there are.
        line.send(settings(&[(INITIAL_WINDOW_SIZE, 11)])).await;
        exactly(line, 1, 15).await;
        // Below zero, where it stays until updates lift it.
        line.send(settings(&[(INITIAL_WINDOW_SIZE, 1)])).await;
        line.send(window_update(1, 10)).await;
        exactly(line, 1, 15).await;
        line.send(window_update(1, 3)).await;
        exactly(line, 1, 18).await;
        // SETTINGS moves no window of the connection, and a stream of no window has its head and its end all the same.
        line.send(settings(&[(INITIAL_WINDOW_SIZE, 0)])).await;
        line.send(whole(3, &fields("HEAD", FINE))).await;
        assert!(line.until(|frame| frame.ends(3)).await);
        line.send(window_update(1, 100)).await;
        assert!(line.until(|frame| frame.ends(1)).await);
        assert_eq!(received(line, 1), 30);
    });
}

#[test]
fn http2_answers_stay_within_the_connections_window_and_frames_within_their_size() {
    talk(&[(INITIAL_WINDOW_SIZE, 1 << 20)], async |line| {
        line.send([download(1, 50_000), download(3, 50_000)].concat()).await;
        while received(line, 1) + received(line, 3) < 65_535 {
            assert!(line.next().await.is_some(), "it ended");
        }
        for mark in 0..3 {
            assert!(line.answers(mark).await);
        }
        assert_eq!(received(line, 1) + received(line, 3), 65_535, "section 6.9.2: the connection's own");
        // A head needs no window.
        line.send(whole(5, &fields("HEAD", FINE))).await;
        assert!(line.until(|frame| frame.ends(5)).await);
        line.send(window_update(0, 100_000)).await;
        while received(line, 1) + received(line, 3) < 100_000 {
            assert!(line.next().await.is_some(), "it ended");
        }
        assert!(line.seen.iter().all(|frame| frame.payload.len() <= 1 << 14), "section 4.2: MAX_FRAME_SIZE");
    });
}

#[test]
fn http2_blocks_of_ours_keep_to_the_clients_table() {
    talk(&[], async |line| {
        line.send(get(1)).await;
        assert!(line.until(|frame| frame.ends(1)).await);
        line.send(settings(&[(HEADER_TABLE_SIZE, 0)])).await;
        assert!(line.answers(1).await);
        line.send(get(3)).await;
        assert!(line.until(|frame| frame.is(HEADERS, 3)).await);
        // RFC 7541 section 4.2: the change is told at the beginning of the next block.
        assert_eq!(line.seen.last().expect("a frame").payload[0], 0x20);
        assert_eq!(line.seen.last().and_then(Frame::status), Some(200));
    });
}

#[test]
fn http2_answers_to_head_have_no_body() {
    talk(&[], async |line| {
        let nobody = fields("HEAD", FINE).into_iter().filter(|(name, _)| *name != "authorization").collect::<Vec<_>>();
        // Of ours and of the bank's (RFC 9110 section 9.3.2).
        let asked = [(1, 404, fields("HEAD", "/nowhere")), (3, 401, nobody), (5, 200, fields("HEAD", FINE))];
        for (stream, status, fields) in asked {
            line.send(whole(stream, &fields)).await;
            assert!(line.until(|frame| frame.ends(stream) || frame.is(RST_STREAM, stream)).await);
            let answer = line.seen.iter().find(|frame| frame.is(HEADERS, stream)).and_then(Frame::status);
            assert_eq!((answer, received(line, stream)), (Some(status), 0), "{:?}", line.seen);
            assert!(line.seen.iter().all(|frame| frame.kind != RST_STREAM), "{:?}", line.seen);
        }
    });
}

#[test]
fn http2_streams_beyond_the_limit_are_refused_and_the_others_served() {
    let sim = bank(Bank::OAuth2);
    let stage = before(&sim, "streams = 4", "");
    converse(async {
        let mut line = begin(&stage, &[]).await;
        assert!(line.answers(1).await);
        let told = [&MAX_CONCURRENT_STREAMS.to_be_bytes()[..], &4_u32.to_be_bytes()].concat();
        assert!(line.seen.first().expect("settings").payload.chunks(6).any(|one| one == told));
        for stream in [1, 3, 5, 7, 9] {
            line.send(post(stream)).await;
        }
        assert!(line.until(|frame| frame.kind == RST_STREAM).await);
        let refused = line.seen.last().expect("a frame").clone();
        assert_eq!((refused.stream, refused.code()), (9, Some(REFUSED_STREAM)), "section 5.1.2");
        // One that ends makes room.
        line.send(last(1, "x")).await;
        assert!(line.until(|frame| frame.ends(1)).await);
        line.send([post(11), last(11, "x")].concat()).await;
        assert!(line.until(|frame| frame.ends(11)).await);
        for stream in [3, 5, 7] {
            line.send(last(stream, "x")).await;
            assert!(line.until(|frame| frame.ends(stream)).await);
        }
    });
    assert_eq!(sim.resource_calls(), 5);
    drop(stage);
}

/// A bank over HTTP/2 that takes nothing of a body.
async fn taking_nothing(sim: &SimHandle) -> RawServer {
    RawServer::start(sim, &[b"h2"], &[&TLS13], |(tls, _, _)| async move {
        let mut builder = h2::server::Builder::new();
        let Ok(mut connection) = builder.initial_window_size(0).handshake::<_, Bytes>(tls).await else { return };
        let mut kept = Vec::new();
        while let Some(Ok(stream)) = connection.accept().await {
            kept.push(stream);
        }
    })
    .await
}

#[test]
fn http2_bodies_that_overrun_our_windows_are_errors() {
    let sim = bank(Bank::OAuth2);
    converse(async {
        let odd = taking_nothing(&sim).await;
        let stage = before(&sim, "", &odd.upstream());
        // Section 6.9.1, a stream's window: the stream is reset.
        let mut line = begin(&stage, &[]).await;
        line.send(post(1)).await;
        let (mut sent, mut allowed, mut all) = (0, 0, 0);
        assert!(line.until(|frame| frame.is(WINDOW_UPDATE, 0)).await);
        for frame in line.seen.iter().filter(|frame| !frame.has(ACK)) {
            let number = |at: usize| u32::from_be_bytes(frame.payload[at..at + 4].try_into().expect("four bytes"));
            match frame.kind {
                SETTINGS => {
                    let at = frame.payload.chunks(6).position(|one| one[..2] == INITIAL_WINDOW_SIZE.to_be_bytes());
                    allowed = number(at.expect("a window") * 6 + 2);
                }
                WINDOW_UPDATE => all = number(0) + 65_535,
                _ => {}
            }
        }
        assert!(allowed < all, "{allowed} and {all}");
        while sent <= allowed {
            line.send(data(1, [7; 1 << 14])).await;
            sent += 1 << 14;
        }
        assert!(line.until(|frame| matches!(frame.kind, RST_STREAM | GOAWAY)).await);
        assert_eq!(line.seen.last().and_then(Frame::code), Some(FLOW_CONTROL_ERROR));
        assert!(line.answers(2).await, "the connection serves on");
        // The connection's: it ends.
        let mut line = begin(&stage, &[]).await;
        line.send([post(1), post(3), post(5)].concat()).await;
        assert!(line.answers(1).await);
        let mut sent = 0;
        while sent <= all {
            for stream in [1, 3, 5] {
                line.send(data(stream, [7; 1 << 14])).await;
                sent += 1 << 14;
            }
        }
        line.rest().await;
        let goaway = line.seen.iter().rev().find(|frame| frame.kind == GOAWAY).and_then(Frame::code);
        assert_eq!(goaway, Some(FLOW_CONTROL_ERROR), "{:?}", line.ending);
        drop(stage);
    });
}

#[test]
fn http2_heads_that_are_too_large_are_told_so() {
    let sim = bank(Bank::OAuth2);
    let stage = before(&sim, "header_bytes = \"8KiB\"", "");
    converse(async {
        let mut line = begin(&stage, &[]).await;
        let mut large = fields("GET", FINE);
        large.push(("x-large", "y".repeat(9000)));
        line.send(whole(1, &large)).await;
        assert!(line.until(|frame| frame.is(HEADERS, 1)).await);
        // RFC 9113 section 10.5.1, RFC 6585 section 5.
        assert_eq!(line.seen.last().and_then(Frame::status), Some(431));
        line.send(get(3)).await;
        assert!(line.until(|frame| frame.ends(3)).await, "the connection serves on");
        // So large that it is not worth an answer.
        let mut line = begin(&stage, &[]).await;
        line.send(frame(HEADERS, 0, 1, &block(&[("x-large", "y".repeat(20_000))])[..1 << 14])).await;
        for _ in 0..20 {
            line.send(frame(CONTINUATION, 0, 1, &block(&[("x", "y".repeat(10_000))]))).await;
        }
        line.rest().await;
        let codes = [Some(ENHANCE_YOUR_CALM), Some(COMPRESSION_ERROR), Some(PROTOCOL_ERROR)];
        let goaway = line.seen.iter().rev().find(|frame| frame.kind == GOAWAY).and_then(Frame::code);
        assert!(codes.contains(&goaway), "{goaway:?} {:?}", line.ending);
    });
    assert_eq!(sim.resource_calls(), 1);
    drop(stage);
}
