//! The parts of a request that signatures cover.

use std::borrow::Cow;
use std::fmt;

use http::HeaderMap;
use percent_encoding::percent_decode_str;

/// A request as a signature sees it. All texts are those that go on the wire.
#[derive(Clone, Copy)]
pub struct RequestParts<'a> {
    /// The method, such as `POST`.
    pub method: &'a str,
    /// `http` or `https`.
    pub scheme: &'a str,
    /// The host, with its port unless it is the scheme's own.
    pub authority: &'a str,
    /// The path, percent-encoded; empty or `/` for none.
    pub path: &'a str,
    /// The query without its question mark, percent-encoded.
    pub query: Option<&'a str>,
    pub headers: &'a HeaderMap,
}

impl RequestParts<'_> {
    /// Returns the path, which is never empty (RFC 9421 section 2.2.6).
    pub fn path(&self) -> &str {
        if self.path.is_empty() { "/" } else { self.path }
    }

    /// Returns path and query, the origin form of the request target (RFC 9112 section 3.2.1).
    pub fn origin_form(&self) -> String {
        match self.query {
            Some(query) => format!("{}?{query}", self.path()),
            None => self.path().to_owned(),
        }
    }

    /// Returns the authority as signatures cover it: in lower case, without the scheme's own port (RFC 9421 section
    /// 2.2.3).
    pub fn normal_authority(&self) -> String {
        let authority = self.authority.to_ascii_lowercase();
        let scheme = self.scheme.to_ascii_lowercase();
        let own = match scheme.as_str() {
            "http" => ":80",
            "https" => ":443",
            _ => return authority,
        };
        authority.strip_suffix(own).map(ToOwned::to_owned).unwrap_or(authority)
    }

    /// Returns the address (RFC 9421 section 2.2.2).
    pub fn target_uri(&self) -> String {
        format!("{}://{}{}", self.scheme.to_ascii_lowercase(), self.normal_authority(), self.origin_form())
    }
}

/// Leaves out query and header fields: they may hold credentials.
impl fmt::Debug for RequestParts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("RequestParts");
        shown.field("method", &self.method).field("authority", &self.authority).finish_non_exhaustive()
    }
}

/// The names and values of a query or form, decoded; a plus sign is a space. Bytes that are no UTF-8 are refused.
pub(super) fn decoded_pairs(query: &str) -> Option<Vec<(String, String)>> {
    let decoded = |text: &str| {
        let spaced = text.replace('+', " ");
        percent_decode_str(&spaced).decode_utf8().ok().map(Cow::into_owned)
    };
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(n, v)| Some((decoded(n)?, decoded(v)?)))
        .collect()
}

/// The values of a header field, each without whitespace around, joined by a comma and a space. `None` if the field is
/// missing or has bytes other than visible ASCII, spaces and tabs. A `HeaderMap` has no folded lines.
pub(super) fn field_value(headers: &HeaderMap, name: &str) -> Option<String> {
    let values =
        headers.get_all(name).iter().map(|value| value.to_str().ok().map(|text| text.trim_matches([' ', '\t'])));
    let values: Vec<&str> = values.collect::<Option<_>>()?;
    (!values.is_empty()).then(|| values.join(", "))
}
