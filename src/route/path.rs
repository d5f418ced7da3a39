//! Paths that can be read in one way only.
//!
//! A proxy and the server behind it must agree on what a path means, or a rule that holds here is walked around there.
//! So every way in goes through [`judge`], and a path that two readers could take differently is refused. Every other is
//! forwarded byte for byte as it came, and matched as a server reads it: `%74` is `t` (RFC 3986 section 6.2.2.2), so a
//! route cannot be walked around by encoding a letter of it. Four doubts can be lifted by a route, for banks that need
//! them ([`PathRules`]). Dot segments, control characters, backslashes and overlong UTF-8 never pass, however often they
//! are encoded.

use std::borrow::Cow;

const DOT_SEGMENT: &str = "the path has a dot segment";
const ENCODED_SLASH: &str = "the path has an encoded slash";
const EMPTY_SEGMENT: &str = "the path has an empty segment";
const OVERLONG: &str = "the path has bytes that are not UTF-8 but may be read as ASCII";
const PARAMETER: &str = "the path has a parameter before a slash";
const TWICE: &str = "the path is percent-encoded twice";

/// The number of layers of percent-encoding that are decoded before a path is refused for their number alone.
const LAYERS: usize = 4;

/// A set of ambiguities ("doubts") of a path: those that a route permits (`path_rules`), or those that a path has.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct PathRules(u8);

impl PathRules {
    /// The empty set: permits no path that can be read in two ways.
    pub const STRICT: Self = Self(0);
    /// An empty segment: `//`. Some servers read it as one slash.
    pub const SLASHES: Self = Self(1);
    /// An encoded slash: `%2f`. Some servers read it as a slash.
    pub const ENCODED_SLASHES: Self = Self(2);
    /// A parameter before a slash: `/a;b=c/d`. Some servers drop it before they choose what to do.
    pub const PARAMETERS: Self = Self(4);
    /// A sequence that looks encoded once it was decoded: `%252f`. Some servers decode twice.
    pub const DOUBLE_ENCODING: Self = Self(8);
    /// Empty segments and encoded slashes: `//` and `%2f`.
    pub const LENIENT: Self = Self::SLASHES.with(Self::ENCODED_SLASHES);

    /// Returns the union of both sets.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Refuses a path with these doubts unless all of them are in this set. The error is the reason.
    pub(super) fn refuse(self, doubts: Self) -> Result<(), &'static str> {
        let reasons = [
            (Self::ENCODED_SLASHES, ENCODED_SLASH),
            (Self::SLASHES, EMPTY_SEGMENT),
            (Self::PARAMETERS, PARAMETER),
            (Self::DOUBLE_ENCODING, TWICE),
        ];
        match reasons.iter().find(|(doubt, _)| doubts.has(*doubt) && !self.has(*doubt)) {
            Some((_, reason)) => Err(reason),
            None => Ok(()),
        }
    }
}

/// A request target that passed, taken apart.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct ParsedTarget<'a> {
    /// The path as it came, from its first `/`.
    pub path: &'a str,
    /// The same as a server reads it: for everything that is compared. It has the same segments.
    pub plain: Cow<'a, str>,
    /// The query with its `?`, or nothing.
    pub query: &'a str,
    /// The ambiguities of the path, which only some routes permit.
    pub doubts: PathRules,
}

/// Judges the path and query of a request. The error is a reason to refuse it on every route.
pub(super) fn judge(target: &str) -> Result<ParsedTarget<'_>, &'static str> {
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
    Ok(ParsedTarget { path, plain: plain(path), query, doubts: walk(path)? })
}

/// Returns a path as a server reads it that decodes once: with every encoded character of printable ASCII decoded. A
/// character with another meaning once decoded stays encoded (`/`, `%`, `;`, `?`, `#`, `\`), and so does everything
/// that is not ASCII; the hexadecimal digits of such encodings become upper case.
pub(super) fn plain(path: &str) -> Cow<'_, str> {
    if !path.contains('%') {
        return Cow::Borrowed(path);
    }
    let mut out = String::with_capacity(path.len());
    let mut parts = path.split('%');
    out.push_str(parts.next().unwrap_or_default());
    for part in parts {
        match unescape(part.as_bytes()) {
            Some((byte @ b'!'..=b'~', _)) if !matches!(byte, b'/' | b'%' | b';' | b'?' | b'#' | b'\\') => {
                out.push(char::from(byte));
                out.push_str(part.get(2..).unwrap_or_default());
            }
            Some(_) => {
                out.push('%');
                out.extend(part.chars().take(2).map(|digit| digit.to_ascii_uppercase()));
                out.push_str(part.get(2..).unwrap_or_default());
            }
            None => {
                out.push('%');
                out.push_str(part);
            }
        }
    }
    Cow::Owned(out)
}

/// Returns the rest of a path after its first `segments` segments, with its slash; empty if there are no more segments.
pub(super) fn behind(path: &str, segments: usize) -> &str {
    let at = path.bytes().enumerate().filter(|(_, byte)| *byte == b'/').nth(segments);
    at.and_then(|(at, _)| path.get(at..)).unwrap_or_default()
}

/// The segment that is being walked through: how long it is, and how much of it is dots.
#[derive(Default)]
struct SegmentScan {
    length: usize,
    dots: usize,
    parameter: bool,
}

impl SegmentScan {
    /// `.` and `..` (RFC 3986 section 5.2.4), up to where a reader may stop: a slash, a parameter, the end.
    const fn is_dots(&self) -> bool {
        self.length == self.dots && (self.length == 1 || self.length == 2)
    }
}

/// One pass over the path. Answers what only some routes let pass.
fn walk(path: &str) -> Result<PathRules, &'static str> {
    let mut doubts = PathRules::STRICT;
    let mut layered = false;
    let mut segment = SegmentScan::default();
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
                    doubts = doubts.with(PathRules::PARAMETERS);
                }
                if encoded {
                    doubts = doubts.with(PathRules::ENCODED_SLASHES);
                } else if segment.length == 0 {
                    doubts = doubts.with(PathRules::SLASHES);
                }
                segment = SegmentScan::default();
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
        doubts = doubts.with(look_through(path)?);
    }
    Ok(doubts)
}

/// Decodes again and again: a reader behind us may do so too, and must find nothing that matters.
fn look_through(path: &str) -> Result<PathRules, &'static str> {
    let mut doubts = PathRules::STRICT;
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
                match inner {
                    0..=0x1f | 0x7f | b'\\' => return Err(TWICE),
                    b'.' | b'/' | b';' | b'?' | b'#' => doubts = doubts.with(PathRules::DOUBLE_ENCODING),
                    _ => {}
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
            return Ok(doubts);
        }
        let mut segments = deeper.split(|byte| *byte == b'/');
        if segments.any(|segment| matches!(segment.split(|byte| *byte == b';').next(), Some(b"." | b".."))) {
            return Err(DOT_SEGMENT);
        }
        text = deeper;
    }
    Err(TWICE)
}

/// Returns whether `byte` starts a UTF-8 sequence longer than necessary (RFC 3629 section 3), which some readers decode
/// to an ASCII character.
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
    if is_lean(path) {
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
    Cow::Owned(lean(&decoded))
}

/// The generous readings of servers that decode less often, where that may be another: what is encoded twice behind a
/// `;` is a parameter to one server, and segments of their own to the next.
pub(super) fn shallower(path: &str) -> Vec<String> {
    let mut readings = Vec::new();
    if path.contains("%25") {
        let mut decoded = path.to_owned();
        for _ in 0..LAYERS {
            readings.push(lean(&decoded));
            decoded = percent_encoding::percent_decode_str(&decoded).decode_utf8_lossy().into_owned();
        }
    }
    readings
}

/// Returns whether the most generous server reads a path unchanged.
fn is_lean(path: &str) -> bool {
    let mut before = b' ';
    for byte in path.bytes() {
        match byte {
            b'%' | b';' => return false,
            b'/' if matches!(before, b'/' | b'.') => return false,
            _ => before = byte,
        }
    }
    before != b'.' && (before != b'/' || path.len() == 1)
}

/// A path without parameters, without empty segments, without a slash, dots or blanks at the end.
fn lean(decoded: &str) -> String {
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
    out
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
    PathRules::STRICT.refuse(judge(text)?.doubts)?;
    if text.ends_with('/') {
        return Err("leave out the slash at the end: a path matches whole segments anyway");
    }
    Ok(text)
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
            "/a/%252e",
            "/%25%32%65",
            "/%25252e",
            "/a%252f%252e%252e%252fb",
            "/%2e%252e;x",
            "/a%255cb",
            "/%2500",
            "/%25252525252525252541",
            "/..;/b",
            "/.%2e;a=b/c",
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
            "/a/..;x=1/b",
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
            assert_eq!(judged.doubts, PathRules::STRICT, "{path:?}");
        }
    }

    #[test]
    fn four_doubts_are_left_to_the_route() {
        let (slashes, encoded) = (PathRules::SLASHES, PathRules::ENCODED_SLASHES);
        let (parameters, double) = (PathRules::PARAMETERS, PathRules::DOUBLE_ENCODING);
        for (path, doubts) in [
            ("/a//b", slashes),
            ("//", slashes),
            ("/a%2Fb", encoded),
            ("/a//b%2fc", slashes.with(encoded)),
            ("/a;x=1/b", parameters),
            ("/a;/b", parameters),
            ("/a;x%2fb", parameters.with(encoded)),
            ("/a%252fb", double),
            ("/a%252Eb", double),
            ("/a%25252fb", double),
            ("/a%253bx", double),
        ] {
            let judged = judge(path).unwrap_or_else(|reason| panic!("{path}: {reason}"));
            assert_eq!(judged.doubts, doubts, "{path}");
            assert!(PathRules::STRICT.refuse(doubts).is_err() && doubts.refuse(doubts).is_ok(), "{path}");
            assert_eq!(PathRules::LENIENT.refuse(doubts).is_ok(), PathRules::LENIENT.has(doubts), "{path}");
        }
    }

    #[test]
    fn what_is_compared_is_what_a_server_reads() {
        for (path, read) in [
            ("/rak/transfer", "/rak/transfer"),
            ("/rak/%74ransfer", "/rak/transfer"),
            ("/%72%61%6B/a%2Db%5f%7e", "/rak/a-b_~"),
            ("/a%3ab%40c%2b%26%3D", "/a:b@c+&="),
            ("/a%2fb%3bc%3fd%23e%25f", "/a%2Fb%3Bc%3Fd%23e%25f"),
            ("/a%2541", "/a%2541"),
            ("/%c3%a9%20x", "/%C3%A9%20x"),
        ] {
            assert_eq!(plain(path), read, "{path}");
            assert_eq!(plain(read), read, "{read}");
        }
        assert!(matches!(plain("/no/escape"), Cow::Borrowed(_)));
        assert_eq!(plain("/broken%2"), "/broken%2");
    }

    #[test]
    fn a_prefix_is_cut_off_by_its_segments() {
        assert_eq!(behind("/%61/b/c", 1), "/b/c");
        assert_eq!(behind("/a/b", 2), "");
        assert_eq!(behind("/a//b/", 2), "/b/");
        assert_eq!(behind("/a", 0), "/a");
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
