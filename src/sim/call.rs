//! One request as a bank's code sees it: whole, with the moment at which it arrived.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method};

use crate::base::time::Now;
use crate::sim::faults::Spell;

/// The half of a bank that a request is for.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum SimEndpoint {
    /// Anything that a token is spent on.
    Resource,
    /// The endpoint that issues tokens, including refreshes.
    Token,
}

/// A request that has arrived to its end.
pub(super) struct SimCall {
    pub method: Method,
    /// The path as received, base path included.
    pub path: String,
    /// The path below the bank's base path, with its leading slash; the whole path where it lies elsewhere.
    pub below: String,
    pub query: Option<String>,
    /// The `Host` field, or `:authority`.
    pub authority: String,
    pub headers: HeaderMap,
    /// The body, up to the recording limit.
    pub body: Bytes,
    pub body_length: u64,
    pub body_sha256: [u8; 32],
    pub now: Now,
    pub faults: Arc<Spell>,
}

/// The content of the `Authorization` field (RFC 6750 section 2.1), under one scheme.
pub(super) enum Bearer<'a> {
    /// No field, or another scheme.
    Absent,
    /// More than one field, or no token after the scheme.
    Malformed,
    Token(&'a str),
}

impl SimCall {
    /// A header's value, if it is there once or more and the first one is text that is not empty.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim).filter(|value| !value.is_empty())
    }

    pub(super) fn bearer(&self) -> Bearer<'_> {
        self.presented("Bearer")
    }

    /// The token under this authentication scheme.
    pub(super) fn presented(&self, wanted: &str) -> Bearer<'_> {
        let mut fields = self.headers.get_all(http::header::AUTHORIZATION).iter();
        let (Some(first), second) = (fields.next(), fields.next()) else { return Bearer::Absent };
        if second.is_some() {
            return Bearer::Malformed;
        }
        let Some((scheme, token)) = first.to_str().ok().and_then(|text| text.split_once(' ')) else {
            return if first.as_bytes().eq_ignore_ascii_case(wanted.as_bytes()) {
                Bearer::Malformed
            } else {
                Bearer::Absent
            };
        };
        if !scheme.eq_ignore_ascii_case(wanted) {
            return Bearer::Absent;
        }
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~+/=".contains(&b);
        if token.is_empty() || !token.bytes().all(plain) { Bearer::Malformed } else { Bearer::Token(token) }
    }

    /// Returns whether the body is declared as this media type, parameters aside.
    pub(super) fn is(&self, media_type: &str) -> bool {
        let declared = self.header("content-type").unwrap_or_default();
        declared.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(media_type)
    }

    /// The body as a JSON object.
    pub(super) fn object(&self) -> Option<serde_json::Map<String, serde_json::Value>> {
        serde_json::from_slice(&self.body).ok()
    }

    /// The first value of a query parameter.
    pub(super) fn parameter(&self, name: &str) -> Option<String> {
        let query = self.query.as_deref().unwrap_or_default();
        form_urlencoded::parse(query.as_bytes()).find(|(known, _)| known == name).map(|(_, value)| value.into_owned())
    }

    /// The path below the base, in segments.
    pub(super) fn segments(&self) -> Vec<&str> {
        self.below.trim_start_matches('/').split('/').collect()
    }
}
