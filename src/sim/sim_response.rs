//! The responses of a bank, before any fault is applied to them.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderValue, StatusCode};
use serde_json::Value;

/// The content of an answer.
#[derive(Debug)]
pub(super) enum Content {
    Bytes(Bytes),
    /// So many spaces, made while they are sent (JSON may begin with any number of them). `announced`: with a
    /// `Content-Length`.
    Filler {
        length: u64,
        announced: bool,
    },
}

impl Content {
    /// Returns the content for a response to HEAD: the length, if it would be announced, and no bytes.
    pub(super) fn withheld(&self) -> (Option<u64>, Self) {
        let length = match self {
            Content::Bytes(bytes) => u64::try_from(bytes.len()).ok(),
            Content::Filler { length, announced } => announced.then_some(*length),
        };
        (length, Content::Bytes(Bytes::new()))
    }
}

/// A response of the bank, before any fault is applied to it.
#[derive(Debug)]
pub(super) struct SimResponse {
    pub status: StatusCode,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub content: Content,
}

impl SimResponse {
    /// Builds a response without header fields and content.
    pub(super) fn bare(status: StatusCode) -> Self {
        Self { status, headers: Vec::new(), content: Content::Bytes(Bytes::new()) }
    }

    /// Builds a response of type `application/json` with this text.
    pub(super) fn json(status: StatusCode, body: impl ToString) -> Self {
        Self::typed(status, "application/json", body.to_string())
    }

    /// Content of some media type.
    pub(super) fn typed(status: StatusCode, media_type: &'static str, body: impl Into<Bytes>) -> Self {
        let answer = Self { status, headers: Vec::new(), content: Content::Bytes(body.into()) };
        answer.with(CONTENT_TYPE, media_type)
    }

    /// The answer with one more header field. A value that no header can carry is left out.
    pub(super) fn with(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.push((name, value));
        }
        self
    }

    /// Marks the response as one that no cache may store (RFC 6749 section 5.1).
    pub(super) fn unstored(self) -> Self {
        self.with(http::header::CACHE_CONTROL, "no-store").with(http::header::PRAGMA, "no-cache")
    }
}

/// A JSON object, written member by member, because some simulated values are no JSON values that a library would
/// write: `1e400`, or nothing at all.
#[derive(Default)]
pub(super) struct Object(String);

impl Object {
    pub(super) fn text(self, name: &str, value: &str) -> Self {
        self.raw(name, &Value::from(value).to_string())
    }

    pub(super) fn raw(mut self, name: &str, json: &str) -> Self {
        if !self.0.is_empty() {
            self.0.push(',');
        }
        self.0.push_str(&Value::from(name).to_string());
        self.0.push(':');
        self.0.push_str(json);
        self
    }

    /// A member that may be left out.
    pub(super) fn maybe(self, name: &str, json: Option<String>) -> Self {
        match json {
            Some(json) => self.raw(name, &json),
            None => self,
        }
    }

    pub(super) fn finish(self) -> String {
        format!("{{{}}}", self.0)
    }
}
