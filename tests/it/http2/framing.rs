//! Preface, frames, and each kind of frame: RFC 9113 sections 3.4, 4 and 6.

use super::case::{Case, FINE, NEVER, Step, data, fields, get, last, never_with, open, post, rfc9113, whole};
use crate::frames::{
    ACK, CONTINUATION, DATA, ENABLE_CONNECT_PROTOCOL, ENABLE_PUSH, END_HEADERS, END_STREAM, FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR, GOAWAY, HEADERS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, NO_ERROR, PADDED, PING, PREFACE,
    PRIORITIZED, PRIORITY, PROTOCOL_ERROR, PUSH_PROMISE, RST_STREAM, SETTINGS, STREAM_CLOSED, WINDOW_UPDATE, block,
    frame, settings, window_update,
};

/// A kind of frame that nobody has defined.
const UNKNOWN: u8 = 0xfe;

/// The block of a good request, and of one that must not reach the bank.
fn fine() -> Vec<u8> {
    block(&fields("GET", FINE))
}

fn never() -> Vec<u8> {
    block(&never_with(&[]))
}

/// HEADERS of a GET whose block is not at its end.
fn begun(stream: u32, block: &[u8]) -> Vec<u8> {
    frame(HEADERS, END_STREAM, stream, block)
}

fn continued(flags: u8, stream: u32, block: &[u8]) -> Vec<u8> {
    frame(CONTINUATION, flags, stream, block)
}

pub fn beginning() -> Vec<Case> {
    vec![
        rfc9113("3.4", "preface and settings, then a request", get(1)).answer(1, 200),
        rfc9113("3.4", "a request in one piece with the preface", [PREFACE, &settings(&[]), &get(1)].concat())
            .bare()
            .answer(1, 200),
        rfc9113("3.4", "another preface", b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n".to_vec())
            .bare()
            .closed(&[PROTOCOL_ERROR]),
        rfc9113(
            "3.4",
            "a request of HTTP/1.1",
            format!("GET {NEVER} HTTP/1.1\r\nhost: localhost\r\n\r\n").into_bytes(),
        )
        .bare()
        .closed(&[PROTOCOL_ERROR]),
        rfc9113(
            "3.4",
            "a request instead of settings behind the preface",
            [PREFACE, &whole(1, &never_with(&[]))].concat(),
        )
        .bare()
        .closed(&[PROTOCOL_ERROR]),
        rfc9113("3.4", "an ACK instead of settings behind the preface", {
            [PREFACE, &frame(SETTINGS, ACK, 0, &[]), &whole(1, &never_with(&[]))].concat()
        })
        .bare()
        .closed(&[PROTOCOL_ERROR]),
    ]
}

pub fn format() -> Vec<Case> {
    let mut reserved_bit = frame(PING, 0, 0, &[7; 8]);
    reserved_bit[5] = 0x80;
    vec![
        rfc9113("4.1", "an unknown kind of frame", [frame(UNKNOWN, 0xff, 0, b"what"), get(1)].concat()).answer(1, 200),
        rfc9113(
            "4.1",
            "an unknown kind of frame on a stream",
            [post(1), frame(UNKNOWN, 0, 1, b"x"), last(1, "x")].concat(),
        )
        .answer(1, 200),
        rfc9113("4.1", "flags that have no meaning", frame(PING, 0xfe, 0, &[0; 8])).ignored(),
        rfc9113("4.1", "the reserved bit", reserved_bit).ignored(),
        rfc9113("4.2", "DATA of 16384 bytes", [post(1), last(1, [7; 16384])].concat()).answer(1, 200),
        rfc9113("4.2", "DATA of 16385 bytes", [open(1, &fields("POST", NEVER)), last(1, [7; 16385])].concat())
            .reset(1, &[FRAME_SIZE_ERROR]),
        rfc9113("4.2", "HEADERS of 16385 bytes", frame(HEADERS, END_STREAM | END_HEADERS, 1, &[0; 16385]))
            .goaway(&[FRAME_SIZE_ERROR]),
        rfc9113("4.2", "SETTINGS of 16386 bytes", settings(&[(0xff, 0); 2731])).goaway(&[FRAME_SIZE_ERROR]),
        rfc9113("4.2", "an unknown frame of 16385 bytes", frame(UNKNOWN, 0, 0, &[0; 16385]))
            .goaway(&[FRAME_SIZE_ERROR]),
        rfc9113("4.2", "a length that is announced alone", vec![0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1])
            .goaway(&[FRAME_SIZE_ERROR]),
        rfc9113("4.3", "PRIORITY in a block", [begun(1, &never()), frame(PRIORITY, 0, 1, &[0; 5])].concat())
            .goaway(&[PROTOCOL_ERROR]),
        rfc9113("4.3", "HEADERS of another stream in a block", [begun(1, &never()), get(3)].concat())
            .goaway(&[PROTOCOL_ERROR]),
        rfc9113("4.3", "DATA in a block", [frame(HEADERS, 0, 1, &never()), data(1, "x")].concat())
            .goaway(&[PROTOCOL_ERROR]),
        rfc9113("4.3", "PING in a block", [begun(1, &never()), frame(PING, 0, 0, &[0; 8])].concat())
            .goaway(&[PROTOCOL_ERROR]),
        rfc9113("5.5", "an unknown frame in a block", [begun(1, &never()), frame(UNKNOWN, 0, 1, &[])].concat())
            .goaway(&[PROTOCOL_ERROR]),
    ]
}

pub fn data_and_headers() -> Vec<Case> {
    let padded = |flags: u8, pad: u8, payload: &[u8], padding: usize| {
        [frame(HEADERS, flags | PADDED, 1, &[&[pad], payload, &vec![0; padding]].concat())].concat()
    };
    let prioritized = |dependency: u32, block: &[u8]| {
        let flags = END_STREAM | END_HEADERS | PRIORITIZED;
        frame(HEADERS, flags, 1, &[&dependency.to_be_bytes()[..], &[200], block].concat())
    };
    let whole = END_STREAM | END_HEADERS;
    let post_never = || open(1, &fields("POST", NEVER));
    vec![
        rfc9113("6.1", "DATA with padding", [post(1), frame(DATA, END_STREAM | PADDED, 1, b"\x03abc\0\0\0")].concat())
            .answer(1, 200),
        rfc9113(
            "6.1",
            "DATA of nothing but padding",
            [post(1), frame(DATA, PADDED, 1, b"\x02\0\0"), last(1, "x")].concat(),
        )
        .answer(1, 200),
        rfc9113("6.1", "empty DATA at the end", [post(1), data(1, "x"), last(1, "")].concat()).answer(1, 200),
        rfc9113("6.1", "DATA on stream 0", data(0, "x")).goaway(&[PROTOCOL_ERROR]),
        rfc9113(
            "6.1",
            "padding as long as DATA",
            [post_never(), frame(DATA, END_STREAM | PADDED, 1, b"\x04abc")].concat(),
        )
        .goaway(&[PROTOCOL_ERROR]),
        rfc9113(
            "6.1",
            "padding longer than DATA",
            [post_never(), frame(DATA, END_STREAM | PADDED, 1, b"\xffabc")].concat(),
        )
        .goaway(&[PROTOCOL_ERROR]),
        rfc9113("6.1", "PADDED without a length", [post_never(), frame(DATA, END_STREAM | PADDED, 1, b"")].concat())
            .goaway(&[FRAME_SIZE_ERROR, PROTOCOL_ERROR]),
        rfc9113("6.2", "HEADERS with padding", padded(whole, 9, &fine(), 9)).answer(1, 200),
        rfc9113("6.2", "HEADERS on stream 0", frame(HEADERS, whole, 0, &never())).goaway(&[PROTOCOL_ERROR]),
        rfc9113("6.2", "padding longer than the block", padded(whole, 255, &[0x82, 0x84, 0x87], 0))
            .goaway(&[PROTOCOL_ERROR]),
        rfc9113("6.2", "PADDED without a length", frame(HEADERS, whole | PADDED, 1, &[]))
            .goaway(&[FRAME_SIZE_ERROR, PROTOCOL_ERROR]),
        rfc9113("6.2", "a priority that is too short", frame(HEADERS, whole | PRIORITIZED, 1, &[0; 4]))
            .goaway(&[FRAME_SIZE_ERROR, PROTOCOL_ERROR]),
        rfc9113("6.2", "HEADERS with a priority", prioritized(3, &fine())).answer(1, 200),
        rfc9113("6.2", "HEADERS with an exclusive priority", prioritized(0x8000_0000, &fine())).answer(1, 200),
        rfc9113("6.2", "padding and priority", {
            let payload = [&[2, 0, 0, 0, 0, 16][..], &fine(), &[0; 2]].concat();
            frame(HEADERS, whole | PADDED | PRIORITIZED, 1, &payload)
        })
        .answer(1, 200),
        // RFC 7540 section 5.3.1 had this as an error, which RFC 9113 neither asks for nor forbids.
        rfc9113("5.3", "HEADERS that depend on themselves", prioritized(1, &never())).reset(1, &[PROTOCOL_ERROR]),
    ]
}

pub fn priority_and_reset() -> Vec<Case> {
    let reset = |stream: u32, payload: &[u8]| frame(RST_STREAM, 0, stream, payload);
    let post_never = || open(1, &fields("POST", NEVER));
    vec![
        rfc9113("6.3", "PRIORITY on an idle stream", [frame(PRIORITY, 0, 3, &[0, 0, 0, 1, 9]), get(1)].concat())
            .answer(1, 200),
        rfc9113(
            "6.3",
            "PRIORITY on an open stream",
            [post(1), frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 9]), last(1, "x")].concat(),
        )
        .answer(1, 200),
        rfc9113(
            "6.3",
            "PRIORITY on a closed stream",
            [Step::Send(get(1)), Step::Ended(1), Step::Send(frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 9]))],
        )
        .ignored(),
        rfc9113("6.3", "PRIORITY on stream 0", frame(PRIORITY, 0, 0, &[0, 0, 0, 1, 9])).goaway(&[PROTOCOL_ERROR]),
        rfc9113("6.3", "PRIORITY of 4 bytes", [post_never(), frame(PRIORITY, 0, 1, &[0; 4])].concat())
            .reset(1, &[FRAME_SIZE_ERROR])
            .but_h2_names_no_code_of_its_own(),
        rfc9113("6.3", "PRIORITY of 6 bytes", [post_never(), frame(PRIORITY, 0, 1, &[0; 6])].concat())
            .reset(1, &[FRAME_SIZE_ERROR])
            .but_h2_names_no_code_of_its_own(),
        // As above: an error of RFC 7540.
        rfc9113(
            "5.3",
            "PRIORITY of a stream on itself",
            [post_never(), frame(PRIORITY, 0, 1, &[0, 0, 0, 1, 9])].concat(),
        )
        .reset(1, &[PROTOCOL_ERROR]),
        rfc9113("6.4", "RST_STREAM on stream 0", reset(0, &[0, 0, 0, 8])).goaway(&[PROTOCOL_ERROR]),
        rfc9113("6.4", "RST_STREAM on an idle stream", reset(1, &[0, 0, 0, 8])).goaway(&[PROTOCOL_ERROR]),
        rfc9113("6.4", "RST_STREAM of 3 bytes", [post_never(), reset(1, &[0; 3])].concat())
            .goaway(&[FRAME_SIZE_ERROR])
            .but_h2_names_no_code_of_its_own(),
        rfc9113("6.4", "RST_STREAM of 5 bytes", [post_never(), reset(1, &[0; 5])].concat())
            .goaway(&[FRAME_SIZE_ERROR])
            .but_h2_names_no_code_of_its_own(),
        rfc9113("6.4", "RST_STREAM with an unknown code", [post_never(), reset(1, &[0xff; 4])].concat()).ignored(),
        rfc9113(
            "6.4",
            "RST_STREAM on a closed stream",
            [Step::Send(get(1)), Step::Ended(1), Step::Send(reset(1, &[0, 0, 0, 8]))],
        )
        .ignored(),
    ]
}

pub fn of_settings() -> Vec<Case> {
    vec![
        rfc9113(
            "6.5",
            "an ACK with a payload",
            [Step::Settled, Step::Send(settings(&[])), Step::Send(frame(SETTINGS, ACK, 0, &[0; 6]))],
        )
        .goaway(&[FRAME_SIZE_ERROR])
        .but_h2_names_no_code_of_its_own(),
        rfc9113("6.5", "SETTINGS on a stream", frame(SETTINGS, 0, 1, &[])).goaway(&[PROTOCOL_ERROR]),
        rfc9113("6.5", "SETTINGS of 5 bytes", frame(SETTINGS, 0, 0, &[0; 5]))
            .goaway(&[FRAME_SIZE_ERROR])
            .but_h2_names_no_code_of_its_own(),
        rfc9113("6.5.2", "ENABLE_PUSH of 2", settings(&[(ENABLE_PUSH, 2)])).goaway(&[PROTOCOL_ERROR]),
        rfc9113("6.5.2", "ENABLE_PUSH of 0", [settings(&[(ENABLE_PUSH, 0)]), get(1)].concat()).answer(1, 200),
        rfc9113("6.5.2", "INITIAL_WINDOW_SIZE of 2^31", settings(&[(INITIAL_WINDOW_SIZE, 1 << 31)]))
            .goaway(&[FLOW_CONTROL_ERROR])
            .but_h2_names_no_code_of_its_own(),
        rfc9113(
            "6.5.2",
            "INITIAL_WINDOW_SIZE of 2^31-1",
            [settings(&[(INITIAL_WINDOW_SIZE, (1 << 31) - 1)]), get(1)].concat(),
        )
        .answer(1, 200),
        rfc9113("6.5.2", "MAX_FRAME_SIZE of 2^14-1", settings(&[(MAX_FRAME_SIZE, (1 << 14) - 1)]))
            .goaway(&[PROTOCOL_ERROR]),
        rfc9113("6.5.2", "MAX_FRAME_SIZE of 2^24", settings(&[(MAX_FRAME_SIZE, 1 << 24)])).goaway(&[PROTOCOL_ERROR]),
        rfc9113("6.5.2", "MAX_FRAME_SIZE of 2^24-1", [settings(&[(MAX_FRAME_SIZE, (1 << 24) - 1)]), get(1)].concat())
            .answer(1, 200),
        rfc9113("6.5.2", "an unknown setting", [settings(&[(0x99, 7)]), get(1)].concat()).answer(1, 200),
        rfc9113(
            "6.5.2",
            "ENABLE_CONNECT_PROTOCOL of 2 (RFC 8441 section 3)",
            settings(&[(ENABLE_CONNECT_PROTOCOL, 2)]),
        )
        .goaway(&[PROTOCOL_ERROR]),
        rfc9113("6.5.3", "a good value behind a bad one", settings(&[(ENABLE_PUSH, 2), (ENABLE_PUSH, 0)]))
            .goaway(&[PROTOCOL_ERROR]),
        rfc9113(
            "6.5.3",
            "the last of several values counts",
            [
                Step::Send([settings(&[(INITIAL_WINDOW_SIZE, 0), (INITIAL_WINDOW_SIZE, 65_535)]), get(1)].concat()),
                Step::Ended(1),
            ],
        )
        .ignored(),
    ]
}

pub fn push_ping_goaway() -> Vec<Case> {
    let goaway = |stream: u32, payload: &[u8]| frame(GOAWAY, 0, stream, payload);
    vec![
        rfc9113("8.4", "PUSH_PROMISE of a client", {
            let promise = [&2_u32.to_be_bytes()[..], &never()].concat();
            [open(1, &fields("POST", NEVER)), frame(PUSH_PROMISE, END_HEADERS, 1, &promise)].concat()
        })
        .goaway(&[PROTOCOL_ERROR]),
        rfc9113("6.6", "PUSH_PROMISE on stream 0", frame(PUSH_PROMISE, END_HEADERS, 0, &[0, 0, 0, 2]))
            .goaway(&[PROTOCOL_ERROR]),
        rfc9113("6.7", "an ACK that nobody asked for", frame(PING, ACK, 0, &[9; 8])).ignored(),
        rfc9113("6.7", "PING on a stream", frame(PING, 0, 1, &[0; 8])).goaway(&[PROTOCOL_ERROR]),
        rfc9113("6.7", "PING of 7 bytes", frame(PING, 0, 0, &[0; 7]))
            .goaway(&[FRAME_SIZE_ERROR])
            .but_h2_names_no_code_of_its_own(),
        rfc9113("6.7", "PING of 9 bytes", frame(PING, 0, 0, &[0; 9]))
            .goaway(&[FRAME_SIZE_ERROR])
            .but_h2_names_no_code_of_its_own(),
        rfc9113("6.8", "GOAWAY on a stream", goaway(1, &[0; 8])).goaway(&[PROTOCOL_ERROR]),
        rfc9113("6.8", "GOAWAY of 7 bytes", goaway(0, &[0; 7]))
            .goaway(&[FRAME_SIZE_ERROR])
            .but_h2_names_no_code_of_its_own(),
        rfc9113("6.8", "GOAWAY while nothing is under way", goaway(0, b"\0\0\0\0\0\0\0\0bye")).goaway(&[NO_ERROR]),
        rfc9113("7", "GOAWAY with an unknown code", goaway(0, &[0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]))
            .goaway(&[NO_ERROR]),
    ]
}

pub fn window_updates() -> Vec<Case> {
    let most = (1 << 31) - 1;
    // Its answer waits for a window, so the stream stays.
    let waiting = || {
        let head = settings(&[(INITIAL_WINDOW_SIZE, 0)]);
        [head, whole(1, &fields("GET", "/bank/download?bytes=10"))].concat()
    };
    let update = |stream: u32, payload: &[u8]| frame(WINDOW_UPDATE, 0, stream, payload);
    vec![
        rfc9113("6.9", "an increment of 0", window_update(0, 0)).goaway(&[PROTOCOL_ERROR]),
        rfc9113(
            "6.9",
            "an increment of 0 on a stream",
            [Step::Send(waiting()), Step::Begun(1), Step::Send(window_update(1, 0))],
        )
        .reset(1, &[PROTOCOL_ERROR]),
        rfc9113("6.9", "WINDOW_UPDATE of 3 bytes", update(0, &[0; 3]))
            .goaway(&[FRAME_SIZE_ERROR])
            .but_h2_names_no_code_of_its_own(),
        rfc9113("6.9", "WINDOW_UPDATE of 5 bytes", update(0, &[0, 0, 0, 1, 0]))
            .goaway(&[FRAME_SIZE_ERROR])
            .but_h2_names_no_code_of_its_own(),
        rfc9113("6.9", "the reserved bit of an increment", update(0, &[0x80, 0, 0, 1])).ignored(),
        rfc9113("6.9.1", "a window of 2^31", window_update(0, most)).goaway(&[FLOW_CONTROL_ERROR]),
        rfc9113("6.9.1", "a window of 2^31-1", [window_update(0, most - 65_535), get(1)].concat()).answer(1, 200),
        rfc9113(
            "6.9.1",
            "a window of 2^31 on a stream",
            [
                Step::Send(waiting()),
                Step::Begun(1),
                Step::Send([settings(&[(INITIAL_WINDOW_SIZE, 1)]), window_update(1, most)].concat()),
            ],
        )
        .reset(1, &[FLOW_CONTROL_ERROR]),
        rfc9113(
            "6.9.2",
            "a window of 2^31 by SETTINGS",
            [
                Step::Send(
                    [settings(&[(INITIAL_WINDOW_SIZE, 0)]), whole(1, &fields("GET", "/bank/download?bytes=400000000"))]
                        .concat(),
                ),
                Step::Begun(1),
                Step::Send([window_update(1, most), settings(&[(INITIAL_WINDOW_SIZE, most)])].concat()),
            ],
        )
        .goaway(&[FLOW_CONTROL_ERROR]),
        rfc9113(
            "6.9",
            "WINDOW_UPDATE on a closed stream",
            [Step::Send(get(1)), Step::Ended(1), Step::Send(window_update(1, 100))],
        )
        .ignored(),
    ]
}

pub fn continuation() -> Vec<Case> {
    let (fine, never) = (fine(), never());
    vec![
        rfc9113("6.10", "a block in three frames", {
            [begun(1, &fine[..3]), continued(0, 1, &fine[3..30]), continued(END_HEADERS, 1, &fine[30..])].concat()
        })
        .answer(1, 200),
        rfc9113("6.10", "an empty CONTINUATION at the end", [begun(1, &fine), continued(END_HEADERS, 1, &[])].concat())
            .answer(1, 200),
        rfc9113("6.10", "CONTINUATION of nothing", continued(END_HEADERS, 1, &never)).goaway(&[PROTOCOL_ERROR]),
        rfc9113("6.10", "CONTINUATION on stream 0", [begun(1, &never), continued(END_HEADERS, 0, &[])].concat())
            .goaway(&[PROTOCOL_ERROR]),
        rfc9113("6.10", "CONTINUATION of another stream", [begun(1, &never), continued(END_HEADERS, 3, &[])].concat())
            .goaway(&[PROTOCOL_ERROR]),
        rfc9113("6.10", "CONTINUATION behind the end of a block", {
            [open(1, &fields("POST", NEVER)), continued(END_HEADERS, 1, &never)].concat()
        })
        .goaway(&[PROTOCOL_ERROR]),
        rfc9113("6.10", "CONTINUATION behind the end of a continued block", {
            let head = frame(HEADERS, 0, 1, &block(&fields("POST", NEVER)));
            [head, continued(END_HEADERS, 1, &[]), continued(END_HEADERS, 1, &[])].concat()
        })
        .goaway(&[PROTOCOL_ERROR]),
        rfc9113("6.10", "CONTINUATION behind DATA", {
            [open(1, &fields("POST", NEVER)), data(1, "x"), continued(END_HEADERS, 1, &never)].concat()
        })
        .goaway(&[PROTOCOL_ERROR]),
    ]
}

/// States of streams: RFC 9113 section 5.1.
pub fn states() -> Vec<Case> {
    // Its answer waits for a window, so the stream stays half-closed (remote).
    let half_closed = || {
        let head = settings(&[(INITIAL_WINDOW_SIZE, 0)]);
        Step::Send([head, whole(1, &fields("GET", "/bank/download?bytes=10"))].concat())
    };
    let reset = || [open(1, &fields("POST", NEVER)), crate::frames::reset(1, crate::frames::CANCEL)].concat();
    let trailers = || whole(1, &[("x-late", "1".to_owned())]);
    vec![
        rfc9113("5.1", "DATA on an idle stream", data(1, "x")).goaway(&[PROTOCOL_ERROR]),
        rfc9113("5.1", "WINDOW_UPDATE on an idle stream", window_update(1, 1)).goaway(&[PROTOCOL_ERROR]),
        rfc9113("5.1", "DATA on a half-closed stream", [half_closed(), Step::Begun(1), Step::Send(data(1, "x"))])
            .reset(1, &[STREAM_CLOSED])
            .but_h2_names_no_code_of_its_own(),
        rfc9113("5.1", "HEADERS on a half-closed stream", [half_closed(), Step::Begun(1), Step::Send(trailers())])
            .reset(1, &[STREAM_CLOSED])
            .but_h2_names_no_code_of_its_own(),
        rfc9113(
            "5.1",
            "CONTINUATION on a half-closed stream",
            [half_closed(), Step::Begun(1), Step::Send(continued(END_HEADERS, 1, &[]))],
        )
        .goaway(&[PROTOCOL_ERROR]),
        rfc9113(
            "5.1",
            "PRIORITY and WINDOW_UPDATE on a half-closed stream",
            [
                half_closed(),
                Step::Begun(1),
                Step::Send([frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1]), window_update(1, 10)].concat()),
                Step::Ended(1),
            ],
        )
        .ignored(),
        rfc9113(
            "5.1",
            "RST_STREAM on a half-closed stream",
            [half_closed(), Step::Begun(1), Step::Send(crate::frames::reset(1, crate::frames::CANCEL))],
        )
        .ignored(),
        rfc9113("5.1", "DATA on a stream that was reset", [reset(), data(1, "x")].concat()).reset(1, &[STREAM_CLOSED]),
        // A number that was used is wrong as well (section 5.1.1).
        rfc9113("5.1", "HEADERS on a stream that was reset", [reset(), trailers()].concat())
            .reset(1, &[STREAM_CLOSED, PROTOCOL_ERROR]),
        rfc9113("5.1", "CONTINUATION on a stream that was reset", [reset(), continued(END_HEADERS, 1, &[])].concat())
            .goaway(&[STREAM_CLOSED, PROTOCOL_ERROR]),
        rfc9113("5.1", "DATA on a stream that ended", [Step::Send(get(1)), Step::Ended(1), Step::Send(data(1, "x"))])
            .reset(1, &[STREAM_CLOSED]),
        rfc9113("5.1", "HEADERS on a stream that ended", [Step::Send(get(1)), Step::Ended(1), Step::Send(trailers())])
            .reset(1, &[STREAM_CLOSED, PROTOCOL_ERROR]),
        rfc9113(
            "5.1",
            "CONTINUATION on a stream that ended",
            [Step::Send(get(1)), Step::Ended(1), Step::Send(continued(END_HEADERS, 1, &[]))],
        )
        .goaway(&[STREAM_CLOSED, PROTOCOL_ERROR]),
        rfc9113("5.1.1", "an even stream", whole(2, &never_with(&[]))).goaway(&[PROTOCOL_ERROR]),
        rfc9113("5.1.1", "a stream below the last one", [get(5), whole(3, &never_with(&[]))].concat())
            .goaway(&[PROTOCOL_ERROR]),
        rfc9113("5.1.1", "numbers that are left out", [get(5), get(7), get(101)].concat()).answer(101, 200),
    ]
}
