//! Requests that are malformed, and some that only look like it: RFC 9113 section 8.

use super::case::{
    Case, FINE, Fields, NEVER, data, fields, last, never_where, never_with, never_without, open, rfc9113, whole,
};
use crate::frames::{END_HEADERS, HEADERS, PROTOCOL_ERROR, block, frame};

/// A request with these fields at its end.
fn fine_with(more: &[(&'static str, &str)]) -> Fields {
    let more = more.iter().map(|(name, value)| (*name, (*value).to_owned()));
    fields("GET", FINE).into_iter().chain(more).collect()
}

/// The head of a POST that must not arrive whole.
fn never_posted(more: &[(&'static str, &str)]) -> Vec<u8> {
    let more = more.iter().map(|(name, value)| (*name, (*value).to_owned()));
    open(1, &fields("POST", NEVER).into_iter().chain(more).collect::<Fields>())
}

fn posted(more: &[(&'static str, &str)]) -> Vec<u8> {
    let more = more.iter().map(|(name, value)| (*name, (*value).to_owned()));
    open(1, &fields("POST", FINE).into_iter().chain(more).collect::<Fields>())
}

fn trailers(name: &'static str, value: &str) -> Vec<u8> {
    whole(1, &[(name, value.to_owned())])
}

pub fn of_fields() -> Vec<Case> {
    let malformed = |section, name, fields: Fields| rfc9113(section, name, whole(1, &fields)).malformed(1);
    let mut late = never_without(":path");
    late.push((":path", NEVER.to_owned()));
    let twice = |name: &'static str| {
        let value = never_with(&[]).into_iter().find(|(other, _)| *other == name).expect("a field");
        [vec![value], never_with(&[])].concat()
    };
    vec![
        malformed("8.2", "an upper-case name", never_with(&[("X-Name", "1")])),
        malformed("8.2", "an upper-case letter in a name", never_with(&[("x-namE", "1")])),
        malformed("8.2.1", "a name with a blank", never_with(&[("x name", "1")])),
        malformed("8.2.1", "a name with a colon", never_with(&[("x:name", "1")])),
        malformed("8.2.1", "a name with a control character", never_with(&[("x\x01name", "1")])),
        malformed("8.2.1", "a name beyond ASCII", never_with(&[("x-n\u{e9}", "1")])),
        malformed("8.2.1", "an empty name", never_with(&[("", "1")])),
        malformed("8.2.1", "a value with NUL", never_with(&[("x-name", "a\0b")])),
        malformed("8.2.1", "a value with CR", never_with(&[("x-name", "a\rb")])),
        malformed("8.2.1", "a value with LF", never_with(&[("x-name", "a\nx-other: b")])),
        malformed("8.2.2", "Connection", never_with(&[("connection", "close")])),
        malformed("8.2.2", "Keep-Alive", never_with(&[("keep-alive", "timeout=5")])),
        malformed("8.2.2", "Proxy-Connection", never_with(&[("proxy-connection", "keep-alive")])),
        malformed("8.2.2", "Transfer-Encoding", never_with(&[("transfer-encoding", "chunked")])),
        malformed("8.2.2", "Upgrade", never_with(&[("upgrade", "h2c")])),
        malformed("8.2.2", "TE other than trailers", never_with(&[("te", "trailers, gzip")])),
        rfc9113("8.2.2", "TE: trailers", whole(1, &fine_with(&[("te", "trailers")]))).answer(1, 200),
        rfc9113("8.2.3", "a cookie in pieces", whole(1, &fine_with(&[("cookie", "a=1"), ("cookie", "b=2")])))
            .answer(1, 200),
        malformed("8.3", "an unknown pseudo-header field", [vec![(":what", "1".to_owned())], never_with(&[])].concat()),
        malformed("8.3", "the pseudo-header field of an answer", {
            [vec![(":status", "200".to_owned())], never_with(&[])].concat()
        }),
        malformed("8.3", "a pseudo-header field behind others", late),
        malformed("8.3", ":method twice", twice(":method")),
        malformed("8.3", ":scheme twice", twice(":scheme")),
        malformed("8.3", ":authority twice", twice(":authority")),
        malformed("8.3", ":path twice", twice(":path")),
        malformed("8.3.1", "no :method", never_without(":method")),
        malformed("8.3.1", "no :scheme", never_without(":scheme")),
        malformed("8.3.1", "no :path", never_without(":path")),
        malformed("8.3.1", "an empty :path", never_where(":path", "")),
        malformed("8.3.1", "an empty :method", never_where(":method", "")),
        malformed("8.3.1", "a :path that does not begin with a slash", never_where(":path", "bank/echo/never")),
        malformed("8.3.1", "a :path in absolute form", never_where(":path", "https://localhost/bank/echo/never")),
        malformed("8.3.1", "a :path with a blank", never_where(":path", "/bank/echo/never x")),
        // The fragment is cut off where the target is parsed, before anybody reads it; it is never sent on.
        rfc9113("8.3.1", "a :path with a fragment", whole(1, &fields("GET", &format!("{FINE}#x")))).answer(1, 200),
        malformed("8.3.1", "userinfo in :authority", never_where(":authority", "me@localhost")),
        malformed("8.3.1", "an :authority that is none", never_where(":authority", "local host")),
        malformed("8.3.1", "another Host than :authority", never_with(&[("host", "elsewhere")])),
        rfc9113("8.3.1", "Host as :authority", whole(1, &fine_with(&[("host", "localhost")]))).answer(1, 200),
        malformed("8.3.1", "no authority at all", never_without(":authority")),
        malformed("8.5", "CONNECT with :scheme and :path", never_where(":method", "CONNECT")),
        malformed("8.5", "CONNECT without :authority", {
            never_where(":method", "CONNECT")
                .into_iter()
                .filter(|(name, _)| [":method", "authorization"].contains(name))
                .collect()
        }),
        malformed("8.5", ":protocol, which was not announced (RFC 8441 section 4)", {
            [vec![(":protocol", "websocket".to_owned())], never_where(":method", "CONNECT")].concat()
        }),
        malformed("8.5", ":protocol without CONNECT", {
            [vec![(":protocol", "websocket".to_owned())], never_with(&[])].concat()
        }),
    ]
}

pub fn of_lengths() -> Vec<Case> {
    let five = &[("content-length", "5")];
    vec![
        rfc9113("8.1.1", "a body as long as it says", [posted(five), data(1, "ab"), last(1, "cde")].concat())
            .answer(1, 200),
        rfc9113("8.1.1", "padding does not count", {
            [posted(five), frame(crate::frames::DATA, 0x9, 1, b"\x03abcde\0\0\0")].concat()
        })
        .answer(1, 200),
        rfc9113("8.1.1", "a longer body", [never_posted(five), last(1, "abcdef")].concat()).malformed(1),
        rfc9113("8.1.1", "a shorter body", [never_posted(five), last(1, "abcd")].concat()).malformed(1),
        rfc9113("8.1.1", "a longer body in two pieces", [never_posted(five), data(1, "abc"), last(1, "def")].concat())
            .malformed(1),
        rfc9113("8.1.1", "a shorter body in two pieces", [never_posted(five), data(1, "ab"), last(1, "cd")].concat())
            .malformed(1),
        rfc9113(
            "8.1.1",
            "a shorter body that ends with nothing",
            [never_posted(five), data(1, "abcd"), last(1, "")].concat(),
        )
        .malformed(1),
        rfc9113(
            "8.1.1",
            "a shorter body with trailers",
            [never_posted(five), data(1, "ab"), trailers("x-late", "1")].concat(),
        )
        .malformed(1),
        rfc9113("8.1.1", "a length and no body", whole(1, &never_with(five))).malformed(1),
        rfc9113("8.1.1", "two lengths", [never_posted(&[five[0], ("content-length", "6")]), last(1, "abcde")].concat())
            .malformed(1),
        rfc9113(
            "8.1.1",
            "a length that is no number",
            [never_posted(&[("content-length", "five")]), last(1, "abcde")].concat(),
        )
        .malformed(1),
        rfc9113(
            "8.1.1",
            "a length with a sign",
            [never_posted(&[("content-length", "+5")]), last(1, "abcde")].concat(),
        )
        .malformed(1),
        rfc9113("8.1.1", "a length below zero", [never_posted(&[("content-length", "-1")]), last(1, "")].concat())
            .malformed(1),
        rfc9113("8.1.1", "a length that no counter holds", {
            [never_posted(&[("content-length", "18446744073709551621")]), last(1, "abcde")].concat()
        })
        .malformed(1),
    ]
}

pub fn of_trailers() -> Vec<Case> {
    vec![
        rfc9113("8.1", "trailers", [posted(&[]), data(1, "x"), trailers("x-late", "1")].concat()).answer(1, 200),
        rfc9113("8.1", "trailers that end nothing", {
            [never_posted(&[]), data(1, "x"), frame(HEADERS, END_HEADERS, 1, &block(&[("x-late", "1")]))].concat()
        })
        .malformed(1),
        rfc9113("8.1", "a second head instead of trailers", {
            [never_posted(&[]), open(1, &fields("POST", NEVER)), last(1, "x")].concat()
        })
        .malformed(1),
        rfc9113("8.1", "DATA behind trailers", {
            [never_posted(&[]), data(1, "x"), trailers("X-Late", "1"), data(1, "y")].concat()
        })
        .reset(1, &[PROTOCOL_ERROR]),
        rfc9113(
            "8.1",
            "a pseudo-header field in trailers",
            [never_posted(&[]), data(1, "x"), trailers(":path", "/x")].concat(),
        )
        .malformed(1),
        rfc9113("8.1", "an unknown pseudo-header field in trailers", {
            [never_posted(&[]), data(1, "x"), trailers(":what", "1")].concat()
        })
        .malformed(1),
        rfc9113("8.1", "a pseudo-header field of an answer in trailers", {
            [never_posted(&[]), data(1, "x"), trailers(":status", "200")].concat()
        })
        .malformed(1),
        // h2 takes these off and shows the rest, so what is left serves.
        rfc9113("8.1", "a pseudo-header field in trailers beside others", {
            let both = [(":path", "/x".to_owned()), ("x-late", "1".to_owned())];
            [posted(&[]), data(1, "x"), whole(1, &both)].concat()
        })
        .answer(1, 200),
        // These cannot be told from a section that held pseudo-header fields alone. Clients send DATA instead.
        rfc9113(
            "8.1",
            "a section of trailers that is empty",
            [never_posted(&[]), data(1, "x"), whole(1, &[])].concat(),
        )
        .malformed(1),
        rfc9113(
            "8.2",
            "an upper-case name in trailers",
            [never_posted(&[]), data(1, "x"), trailers("X-Late", "1")].concat(),
        )
        .malformed(1),
        rfc9113("8.2.2", "Connection in trailers", {
            [never_posted(&[]), data(1, "x"), trailers("connection", "close")].concat()
        })
        .malformed(1),
    ]
}
