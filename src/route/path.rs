//! Paths that can be read in one way only.
//!
//! A proxy and the server behind it must agree on what a path means, or a rule that holds here is walked around there.
//! So a path is not cleaned up: one that two readers could take differently is refused, and every other is forwarded
//! byte for byte as it was matched. Two doubts can be lifted by a route, for banks that need them: an empty segment
//! (`//`) and an encoded slash (`%2f`). Everything else never passes.

use std::borrow::Cow;

const DOT_SEGMENT: &str = "the path has a dot segment";
const ENCODED_SLASH: &str = "the path has an encoded slash";
const EMPTY_SEGMENT: &str = "the path has an empty segment";
const OVERLONG: &str = "the path has bytes that are not UTF-8 but may be read as ASCII";
const TWICE: &str = "the path is percent-encoded twice";

/// How many layers of percent-encoding are looked through before a path is refused for their number alone.
const LAYERS: usize = 4;

/// How strict a route is about paths (`path_rules`).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum PathRules {
    /// `//` and `%2f` pass.
    Lenient,
    /// Nothing that can be read in two ways passes.
    #[default]
    Strict,
}

/// A request target that passed, taken apart.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Judged<'a> {
    /// The path, from its first `/`.
    pub path: &'a str,
    /// The query with its `?`, or nothing.
    pub query: &'a str,
    /// What only a lenient route lets pass.
    pub doubt: Option<&'static str>,
}

/// Judges the path and query of a request. The error is the reason to refuse it whatever the route says.
pub(super) fn judge(target: &str) -> Result<Judged<'_>, &'static str> {
    if !target.starts_with('/') {
        return Err("the request target is not a path");
    }
    let (path, query) = target.find('?').map_or((target, ""), |at| target.split_at(at));
    for byte in query.bytes() {
        match byte {
            0..=b' ' | 0x7f => return Err("the query has a raw control character or space"),
            b'#' => return Err("the target has a fragment"),
            _ => {}
        }
    }
    Ok(Judged { path, query, doubt: walk(path)? })
}

/// The segment that is being walked through: how long it is, and how much of it is dots.
#[derive(Default)]
struct Segment {
    length: usize,
    dots: usize,
    parameter: bool,
}

impl Segment {
    /// `.` and `..` (RFC 3986 section 5.2.4), up to where a reader may stop: a slash, a parameter, the end.
    const fn is_dots(&self) -> bool {
        self.length == self.dots && (self.length == 1 || self.length == 2)
    }
}

/// One pass over the path. Answers what only a lenient route lets pass.
fn walk(path: &str) -> Result<Option<&'static str>, &'static str> {
    let mut doubt = None;
    let mut layered = false;
    let mut segment = Segment::default();
    // The leading slash was seen by the caller.
    let mut rest = path.as_bytes().split_first().map_or(&[][..], |(_, rest)| rest);
    while let Some((&first, after)) = rest.split_first() {
        let (byte, encoded) = if first == b'%' {
            let (byte, after) = unescape(after).ok_or("the path has a broken percent-encoding")?;
            rest = after;
            (byte, true)
        } else {
            rest = after;
            (first, false)
        };
        match byte {
            0..=0x1f | 0x7f if encoded => return Err("the path has an encoded control character"),
            0..=b' ' | 0x7f if !encoded => return Err("the path has a raw control character or space"),
            0x80.. if !encoded => return Err("the path has a raw character outside ASCII"),
            b'\\' => return Err("the path has a backslash"),
            b'#' if !encoded => return Err("the target has a fragment"),
            0x80.. if overlong(byte, unescape_at(rest)) => return Err(OVERLONG),
            b'/' => {
                if segment.is_dots() {
                    return Err(DOT_SEGMENT);
                }
                if segment.parameter {
                    return Err("the path has a parameter before a slash");
                }
                if encoded {
                    doubt = Some(ENCODED_SLASH);
                } else if segment.length == 0 {
                    doubt = doubt.or(Some(EMPTY_SEGMENT));
                }
                segment = Segment::default();
                continue;
            }
            b';' => {
                if segment.is_dots() {
                    return Err(DOT_SEGMENT);
                }
                segment.parameter |= !encoded;
            }
            b'.' => segment.dots += 1,
            b'%' => layered = true,
            _ => {}
        }
        segment.length += 1;
    }
    if segment.is_dots() {
        return Err(DOT_SEGMENT);
    }
    if layered {
        look_through(path)?;
    }
    Ok(doubt)
}

/// Decodes again and again: a reader behind us may do so too, and must find nothing that matters.
fn look_through(path: &str) -> Result<(), &'static str> {
    let mut text: Vec<u8> = percent_encoding::percent_decode_str(path).collect();
    for _ in 0..LAYERS {
        let mut deeper = Vec::with_capacity(text.len());
        let mut found = false;
        let mut rest = text.as_slice();
        while let Some((&first, mut after)) = rest.split_first() {
            let mut byte = first;
            if first == b'%'
                && let Some((inner, behind)) = unescape(after)
            {
                if matches!(inner, 0..=0x1f | 0x7f | b'.' | b'/' | b'\\' | b';' | b'?' | b'#') {
                    return Err(TWICE);
                }
                (byte, after, found) = (inner, behind, true);
            }
            deeper.push(byte);
            rest = after;
        }
        let followed = deeper.iter().skip(1).copied().map(Some).chain([None]);
        if deeper.iter().zip(followed).any(|(byte, next)| overlong(*byte, next)) {
            return Err(OVERLONG);
        }
        if !found {
            return Ok(());
        }
        text = deeper;
    }
    Err(TWICE)
}

/// Whether `byte` starts a UTF-8 sequence longer than need be (RFC 3629 section 3), which some readers take for the
/// ASCII character that it hides.
const fn overlong(byte: u8, next: Option<u8>) -> bool {
    match byte {
        0xc0 | 0xc1 | 0xf8.. => true,
        0xe0 => matches!(next, Some(0x80..=0x9f)),
        0xf0 => matches!(next, Some(0x80..=0x8f)),
        _ => false,
    }
}

/// The byte that two hexadecimal digits stand for, and what comes behind them.
fn unescape(after_percent: &[u8]) -> Option<(u8, &[u8])> {
    let (digits, rest) = after_percent.split_first_chunk::<2>()?;
    let value = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    Some((value(digits[0])? << 4 | value(digits[1])?, rest))
}

/// The byte that is encoded right here, if one is.
fn unescape_at(bytes: &[u8]) -> Option<u8> {
    unescape(bytes.strip_prefix(b"%")?).map(|(byte, _)| byte)
}

/// A path as the most generous server would read it: decoded, without parameters, without empty segments, without a
/// slash, dots or blanks at the end. For lists of what must *not* be reached, never for what is forwarded.
pub(super) fn generous(path: &str) -> Cow<'_, str> {
    let slashes = path.contains("//") || path.len() > 1 && path.ends_with('/');
    let dots = path.contains("./") || path.ends_with('.');
    if !path.contains(['%', ';']) && !slashes && !dots {
        return Cow::Borrowed(path);
    }
    let mut decoded = path.to_owned();
    for _ in 0..=LAYERS {
        let next = percent_encoding::percent_decode_str(&decoded).decode_utf8_lossy().into_owned();
        if next == decoded {
            break;
        }
        decoded = next;
    }
    let mut out = String::with_capacity(decoded.len());
    for segment in decoded.split('/') {
        // Some servers know no names that end in a dot or a blank, and drop both.
        let plain = segment.split(';').next().unwrap_or(segment).trim_end_matches(['.', ' ']);
        if !plain.is_empty() {
            out.push('/');
            out.push_str(plain);
        }
    }
    if out.is_empty() {
        out.push('/');
    }
    Cow::Owned(out)
}

/// Reads the `path` of a `[[route]]`: whole, plain segments. `/` (every path) becomes the empty prefix.
///
/// The error says what is wrong, for a person.
pub fn configured_prefix(text: &str) -> Result<&str, &'static str> {
    if !text.starts_with('/') {
        return Err("a path starts with `/`");
    }
    if text.contains(['?', '%', ';', '*', '{', '}']) {
        return Err("a route's path is plain: no `?`, `%`, `;`, `*` or braces");
    }
    if text == "/" {
        return Ok("");
    }
    match judge(text)?.doubt {
        Some(doubt) => Err(doubt),
        None if text.ends_with('/') => Err("leave out the slash at the end: a path matches whole segments anyway"),
        None => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // T7
    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        for path in [
            "",
            "*",
            "scb",
            "http://bank/x",
            "bank:443",
            "/.",
            "/..",
            "/a/./b",
            "/a/../b",
            "/a/..",
            "/a/.",
            "/%2e",
            "/%2E%2e/x",
            "/.%2e",
            "/a/%2e./b",
            "/a\\b",
            "/a%5cb",
            "/a%5Cb",
            "/a%00",
            "/a%0a",
            "/a%0D%0A",
            "/a%1f",
            "/a%7f",
            "/a b",
            "/a\tb",
            "/a\0",
            "/é",
            "/%",
            "/%2",
            "/%zz",
            "/%u002e",
            "/a%c0%aeb",
            "/%c0%af",
            "/%e0%80%af",
            "/%f0%80%80%ae",
            "/%252e%252e/x",
            "/a%252fb",
            "/a%252Eb",
            "/%25%32%65",
            "/%25252e",
            "/a%255cb",
            "/%2500",
            "/%25252525252525252541",
            "/a;x=1/b",
            "/a;/b",
            "/..;/b",
            "/..;x",
            "/..%3bx",
            "/a#b",
            "/a?b#c",
            "/a?b c",
            "/a?\r\n",
            "/a%2f../b",
            "/a%2f..%2fb",
            "/a%2f%2e%2e",
            "//..",
            "/a;x%2fb",
            "/%25c0%25ae",
        ] {
            assert!(judge(path).is_err(), "{path:?} passed");
        }
    }

    #[test]
    fn what_has_one_reading_passes_untouched() {
        for path in [
            "/",
            "/scb",
            "/scb/",
            "/a.b",
            "/.well-known/x",
            "/...",
            "/a/..b",
            "/a%20b",
            "/a%C3%A9",
            "/%E0%B8%81",
            "/a;x=1",
            "/a%3bb/c",
            "/a+b",
            "/a@b:c",
            "/a%25",
            "/100%25/x",
            "/a%2520b",
            "/~x",
            "/a?b=/../c",
            "/a?x=%2e%2e%2f",
            "/?",
            "/a?é",
        ] {
            let judged = judge(path).unwrap_or_else(|reason| panic!("{path:?}: {reason}"));
            assert_eq!(format!("{}{}", judged.path, judged.query), path);
            assert_eq!(judged.doubt, None, "{path:?}");
        }
    }

    #[test]
    fn two_doubts_are_left_to_the_route() {
        assert_eq!(judge("/a//b").map(|j| j.doubt), Ok(Some(EMPTY_SEGMENT)));
        assert_eq!(judge("//").map(|j| j.doubt), Ok(Some(EMPTY_SEGMENT)));
        assert_eq!(judge("/a%2Fb").map(|j| j.doubt), Ok(Some(ENCODED_SLASH)));
    }

    #[test]
    fn the_generous_reading_undoes_every_disguise() {
        for disguise in [
            "/v1/oauth/token",
            "/v1/oauth/%74oken",
            "/v1//oauth/token/",
            "/v1/oauth%2ftoken",
            "/v1/oauth/token;x",
            "/v1/oauth/%2574oken",
        ] {
            assert_eq!(generous(disguise), "/v1/oauth/token", "{disguise}");
        }
        assert_eq!(generous("/"), "/");
        assert_eq!(generous("//"), "/");
    }

    #[test]
    fn a_configured_prefix_is_plain() {
        assert_eq!(configured_prefix("/"), Ok(""));
        assert_eq!(configured_prefix("/scb/v1"), Ok("/scb/v1"));
        for bad in ["", "scb", "/scb/", "/a//b", "/a/../b", "/a%20b", "/a?b", "/a/*", "/é", "/a b"] {
            assert!(configured_prefix(bad).is_err(), "{bad}");
        }
    }
}
