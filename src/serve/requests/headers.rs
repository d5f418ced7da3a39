//! Header fields on their way through: what is taken off in each direction.
//!
//! Strip first, then dress: a `Connection` field that names a header we inject must not remove it.

use http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, FORWARDED, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE, VIA,
};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::provider::Module;
use crate::upstream::content_length;

/// More names than this in `Connection` fields is an attack, not a message.
const MOST_CONNECTION_NAMES: usize = 20;

/// The fields that end at each hop even if `Connection` does not name them.
static HOP_BY_HOP: [HeaderName; 5] = [
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// A message whose `Connection` fields make no sense.
#[derive(Debug, Eq, PartialEq)]
pub struct BadConnectionField;

/// Takes off everything that a client must not say to a provider.
pub fn strip_request_headers(
    headers: &mut HeaderMap,
    module: &Module,
    consumed: &[HeaderName],
) -> Result<(), BadConnectionField> {
    strip_hop_by_hop(headers)?;
    let is_doomed = |name: &&HeaderName| is_forwarding(name) || module.strips(name) || consumed.contains(name);
    loop {
        // A map cannot be changed while it is read. Few names at a time need no allocation.
        let mut doomed = [const { None }; 4];
        for (place, name) in doomed.iter_mut().zip(headers.keys().filter(is_doomed)) {
            *place = Some(name.clone());
        }
        for name in doomed.iter().flatten() {
            headers.remove(name);
        }
        if doomed.contains(&None) {
            break;
        }
    }
    headers.remove(EXPECT);
    headers.remove(HOST);
    Ok(())
}

/// Takes off what ends at this hop (RFC 9110 section 7.6.1).
pub fn strip_hop_by_hop(headers: &mut HeaderMap) -> Result<(), BadConnectionField> {
    if headers.contains_key(CONNECTION) {
        let mut named = Vec::new();
        for value in headers.get_all(CONNECTION) {
            for name in value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                if name.is_empty() {
                    continue;
                }
                named.push(HeaderName::from_bytes(name).map_err(|_| BadConnectionField)?);
            }
        }
        if named.len() > MOST_CONNECTION_NAMES {
            return Err(BadConnectionField);
        }
        for name in named {
            // Framing and routing are not the client's to remove.
            if name != CONTENT_LENGTH && name != HOST {
                headers.remove(name);
            }
        }
        headers.remove(CONNECTION);
    }
    // Most messages have none, and names are compared faster than looked up.
    if headers.keys().any(|name| HOP_BY_HOP.contains(name)) {
        for name in &HOP_BY_HOP {
            headers.remove(name);
        }
    }
    Ok(())
}

/// Takes off what ends at this hop on the way back. Everything else passes untouched.
pub fn strip_response(headers: &mut HeaderMap) {
    if strip_hop_by_hop(headers).is_err() {
        headers.remove(CONNECTION);
    }
    headers.remove(PROXY_AUTHENTICATE);
}

/// Fields by which proxies speak of clients. A bank has no business with them.
fn is_forwarding(name: &HeaderName) -> bool {
    if *name == VIA || *name == FORWARDED || *name == PROXY_AUTHORIZATION {
        return true;
    }
    let name = name.as_str();
    let starts = |prefix: &str| name.len() >= prefix.len() && same_spelling(&name[..prefix.len()], prefix);
    starts("proxy-") || starts("x-forwarded-") || same_spelling(name, "forwarded")
}

/// Returns whether a lower-case field name equals `canonical`, with `_` read as `-`.
fn same_spelling(name: &str, canonical: &str) -> bool {
    name.len() == canonical.len()
        && name.bytes().zip(canonical.bytes()).all(|(a, b)| a == b || (a == b'_' && b == b'-'))
}

/// Fields that have no place in a trailer (RFC 9110 section 6.5.1): they frame, route, authenticate, or say how to read
/// what has been read already.
const NEVER_TRAILING: &[&str] = &[
    "age",
    "authorization",
    "cache-control",
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "cookie",
    "date",
    "expect",
    "expires",
    "host",
    "keep-alive",
    "location",
    "max-forwards",
    "pragma",
    "range",
    "retry-after",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "vary",
    "warning",
    "www-authenticate",
];

/// The trailer fields that a head announces and that may pass.
pub fn announced(headers: &HeaderMap) -> Vec<HeaderName> {
    let fields = headers.get_all(TRAILER).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let names = fields.filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok());
    names.filter(may_trail).collect()
}

/// The trailer fields that may pass.
#[derive(Clone, Debug, Default)]
pub enum Trailers {
    /// Those that the head announces: HTTP/1.1 has no other way to prepare a recipient for them.
    Announced(Vec<HeaderName>),
    /// All that have a place in a trailer. HTTP/2 needs no announcement, and gRPC makes none.
    Any,
    #[default]
    Dropped,
}

impl Trailers {
    /// Keeps the fields that may pass. Returns `None` if no field is left.
    pub fn take(&self, mut trailers: HeaderMap) -> Option<HeaderMap> {
        let passes = |name: &HeaderName| match self {
            Trailers::Announced(announced) => announced.contains(name),
            Trailers::Any => may_trail(name),
            Trailers::Dropped => false,
        };
        let doomed: Vec<HeaderName> = trailers.keys().filter(|name| !passes(name)).cloned().collect();
        for name in doomed {
            trailers.remove(name);
        }
        (!trailers.is_empty()).then_some(trailers)
    }
}

fn may_trail(name: &HeaderName) -> bool {
    !is_forwarding(name) && !NEVER_TRAILING.contains(&name.as_str())
}

/// Returns whether the sender of these fields reads trailers (RFC 9110 section 10.1.4).
pub fn reads_trailers(headers: &HeaderMap) -> bool {
    listed(headers, &TE, b"trailers")
}

/// Returns whether a comma-separated field lists this member, ignoring parameters.
pub fn listed(headers: &HeaderMap, name: &HeaderName, member: &[u8]) -> bool {
    let fields = headers.get_all(name).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    fields
        .map(|one| one.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii())
        .any(|one| one.eq_ignore_ascii_case(member))
}

/// Joins the cookie crumbs of h2 for an HTTP/1.1 provider (RFC 9113 section 8.2.3).
pub fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(COOKIE).iter().nth(1).is_none() {
        return;
    }
    let crumbs: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(mut whole) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        whole.set_sensitive(true);
        headers.insert(COOKIE, whole);
    }
}

/// Returns whether an HTTP/1.1 request has no `Transfer-Encoding`, or exactly one that is `chunked`.
pub fn framing_is_plain(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => true,
        (Some(only), None) => only.as_bytes().eq_ignore_ascii_case(b"chunked"),
        (Some(_), Some(_)) => false,
    }
}

/// Reports whether the framing of a provider's response can be read in one way only (RFC 9112 section 6.3): the
/// response that is passed on must not be longer or shorter than another reader takes it to be. A length that is given
/// more than once is reduced to one (RFC 9110 section 8.6).
pub fn settle_framing(headers: &mut HeaderMap) -> bool {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let Some(first) = lengths.next() else { return framing_is_plain(headers) };
    if headers.contains_key(TRANSFER_ENCODING) {
        return false;
    }
    if lengths.next().is_none() && !first.as_bytes().contains(&b',') {
        return true;
    }
    let Some(length) = content_length(headers) else { return false };
    headers.insert(CONTENT_LENGTH, length.into());
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&str, &str)]) -> HeaderMap {
        fields
            .iter()
            .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse::<HeaderValue>().unwrap()))
            .collect()
    }

    #[test]
    fn hop_by_hop_fields_and_those_that_connection_names_end_here() {
        let mut headers = map(&[
            ("connection", "close, X-Private"),
            ("x-private", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("proxy-connection", "keep-alive"),
            ("x-kept", "1"),
        ]);
        strip_hop_by_hop(&mut headers).unwrap();
        assert_eq!(headers, map(&[("x-kept", "1")]));
    }

    #[test]
    fn a_connection_field_cannot_remove_framing_and_must_be_sane() {
        let mut headers = map(&[("connection", "content-length"), ("content-length", "3")]);
        strip_hop_by_hop(&mut headers).unwrap();
        assert!(headers.contains_key("content-length"));
        assert_eq!(strip_hop_by_hop(&mut map(&[("connection", "a b")])), Err(BadConnectionField));
        let many = vec!["x"; 21].join(",");
        assert_eq!(strip_hop_by_hop(&mut map(&[("connection", &many)])), Err(BadConnectionField));
    }

    #[test]
    fn forwarding_fields_are_known_in_any_spelling() {
        for name in ["via", "forwarded", "x-forwarded-for", "x_forwarded_host", "proxy-foo", "proxy_authorization"] {
            assert!(is_forwarding(&name.parse().unwrap()), "{name}");
        }
        for name in ["x-forward", "accept", "proxyx"] {
            assert!(!is_forwarding(&name.parse().unwrap()), "{name}");
        }
    }

    #[test]
    fn only_announced_and_harmless_trailers_pass() {
        let head =
            map(&[("trailer", "X-Checksum, content-length"), ("trailer", "Authorization, x-forwarded-for, x y")]);
        let announced = announced(&head);
        assert_eq!(announced, ["x-checksum"]);
        let came = map(&[("x-checksum", "1"), ("authorization", "Bearer x"), ("content-length", "3"), ("x-more", "2")]);
        let upstream_response = Trailers::Announced(announced);
        assert_eq!(upstream_response.take(came.clone()), Some(map(&[("x-checksum", "1")])));
        assert_eq!(upstream_response.take(map(&[("x-more", "2")])), None);
        assert_eq!(Trailers::Any.take(came.clone()), Some(map(&[("x-checksum", "1"), ("x-more", "2")])));
        assert_eq!(Trailers::Dropped.take(came), None);
        assert!(reads_trailers(&map(&[("te", "gzip, Trailers;q=1")])));
        assert!(!reads_trailers(&map(&[("te", "gzip")])));
    }

    #[test]
    fn an_answer_has_one_length_and_it_is_written_once() {
        let settled = |fields: &[(&str, &str)]| {
            let mut headers = map(fields);
            settle_framing(&mut headers).then_some(headers)
        };
        let one = Some(map(&[("content-length", "3")]));
        assert_eq!(settled(&[]), Some(map(&[])));
        assert_eq!(settled(&[("content-length", "3")]), one);
        assert_eq!(settled(&[("content-length", "3"), ("content-length", "3")]), one);
        assert_eq!(settled(&[("content-length", "3, 3")]), one);
        assert_eq!(settled(&[("content-length", "3,03"), ("content-length", "3")]), one);
        assert!(settled(&[("transfer-encoding", "chunked")]).is_some());
        for wrong in [["3", "4"], ["3, 4", "3"], ["3,", "3"], ["+3", "3"], ["", "3"]] {
            assert_eq!(settled(&[("content-length", wrong[0]), ("content-length", wrong[1])]), None, "{wrong:?}");
        }
        assert_eq!(settled(&[("content-length", "3"), ("transfer-encoding", "chunked")]), None);
        assert_eq!(settled(&[("transfer-encoding", "gzip, chunked")]), None);
    }

    #[test]
    fn cookie_crumbs_become_one_field() {
        let mut headers = map(&[("cookie", "a=1"), ("cookie", "b=2")]);
        join_cookies(&mut headers);
        assert_eq!(headers, map(&[("cookie", "a=1; b=2")]));
    }

    #[test]
    fn only_one_plain_chunked_coding_is_accepted() {
        assert!(framing_is_plain(&map(&[])));
        assert!(framing_is_plain(&map(&[("transfer-encoding", "Chunked")])));
        assert!(!framing_is_plain(&map(&[("transfer-encoding", "gzip, chunked")])));
        assert!(!framing_is_plain(&map(&[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")])));
    }
}
