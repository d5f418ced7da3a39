//! The requests that arrived at a bank, kept for later checks.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Version};

use crate::base::time::Now;
use crate::sim::call::SimEndpoint;

/// The most bytes of one body that are kept; length and hash are always of the whole.
pub(super) const BODY_KEPT: usize = 2 << 20;
/// The most bytes of all bodies together that are kept.
const BODIES_KEPT: usize = 64 << 20;

/// One request as it arrived. Its `Debug` shows no header value and no body.
pub struct ReceivedRequest {
    /// Counts up from 0, in the order in which bodies were complete (or broke off).
    pub number: u64,
    /// The accepted connection that carried it, counted from 1.
    pub connection: u64,
    /// When it was complete, by the simulator's clock.
    pub at: Now,
    /// The half of the bank that it was for: the token endpoint or a resource.
    pub endpoint: SimEndpoint,
    /// The protocol version: HTTP/1.0, HTTP/1.1 or HTTP/2.
    pub version: Version,
    pub method: Method,
    /// Its path as received, percent-encoding and all.
    pub path: String,
    /// Its query without the `?`.
    pub query: Option<String>,
    /// Its authority: the `Host` field, or `:authority`.
    pub authority: Option<String>,
    /// Header fields in the order of their first appearance; the parser puts repeated fields side by side and writes
    /// names in lower case. The bytes themselves are in [`crate::sim::SimHandle::wire`].
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub trailers: Vec<(HeaderName, HeaderValue)>,
    /// The body's first two mebibytes.
    pub body: Bytes,
    /// The body's whole length in bytes; of an aborted one, what had arrived.
    pub body_length: u64,
    /// SHA-256 of the body, or of what had arrived of it.
    pub body_sha256: [u8; 32],
    /// True if the body broke off before its end.
    pub aborted: bool,
}

impl ReceivedRequest {
    /// The first value of a header, if it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).and_then(|(_, value)| value.to_str().ok())
    }

    /// Returns how often a header field appears.
    pub fn count(&self, name: &str) -> usize {
        self.headers.iter().filter(|(known, _)| known == name).count()
    }

    /// The token in its one `Authorization: Bearer` field.
    pub fn bearer(&self) -> Option<&str> {
        self.header("authorization").and_then(|value| value.strip_prefix("Bearer "))
    }
}

impl fmt::Debug for ReceivedRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceivedRequest")
            .field("number", &self.number)
            .field("connection", &self.connection)
            .field("method", &self.method)
            .field("path", &self.path)
            .field("headers", &self.headers.iter().map(|(name, _)| name).collect::<Vec<_>>())
            .field("body_length", &self.body_length)
            .field("aborted", &self.aborted)
            .finish_non_exhaustive()
    }
}

/// The last requests, bounded in number and in bytes.
pub(super) struct ReceivedLog {
    entries: VecDeque<Arc<ReceivedRequest>>,
    limit: usize,
    bytes: usize,
    next: u64,
}

impl ReceivedLog {
    pub(super) const fn new(limit: usize) -> Self {
        Self { entries: VecDeque::new(), limit, bytes: 0, next: 0 }
    }

    pub(super) fn push(&mut self, mut received: ReceivedRequest) {
        received.number = self.next;
        self.next += 1;
        self.bytes += received.body.len();
        self.entries.push_back(Arc::new(received));
        while self.entries.len() > self.limit || self.bytes > BODIES_KEPT {
            let Some(oldest) = self.entries.pop_front() else { break };
            self.bytes -= oldest.body.len();
        }
    }

    pub(super) fn all(&self) -> Vec<Arc<ReceivedRequest>> {
        self.entries.iter().cloned().collect()
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.bytes = 0;
    }
}
