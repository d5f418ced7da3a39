//! One finished request, as the access log tells it.
//!
//! Field names follow OpenTelemetry's HTTP semantic conventions where these have a word for it. Neither queries nor
//! bodies nor header values appear.

use std::fmt::Display;
use std::io::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderValue, Method};
use serde::{Serialize, Serializer};
use uuid::Uuid;

use crate::base::secret::Fingerprint;
use crate::base::time::{Now, Rfc3339};
use crate::observe::trace::{Context, SpanId, TraceId};

/// Everything that is told about one request. Filled in while it runs; written once, at its end.
#[derive(Clone, Debug)]
pub struct AccessRecord {
    /// When its head was complete.
    pub start: Now,
    /// Our name for it: the `instance` of error documents.
    pub id: Uuid,
    /// The span that it is: ours where it is traced, else the one that the caller named.
    pub trace: Option<Context>,
    /// Which listener it came in on.
    pub listener: Arc<str>,
    /// The caller's address.
    pub peer: Option<IpAddr>,
    /// The caller's name, once known.
    pub client: Option<Arc<str>>,
    /// Its method.
    pub method: Method,
    /// Its path as received, without the query.
    pub path: String,
    /// The route, once chosen.
    pub route: Option<Arc<str>>,
    /// The provider, once chosen.
    pub provider: Option<Arc<str>>,
    /// The request id in the provider's own header that went out last.
    pub provider_id: Option<HeaderValue>,
    /// Which token was spent last: fingerprint and generation.
    pub token: Option<(Fingerprint, u64)>,
    /// What was spent before that, and refused.
    pub refused: Option<Spent>,
    /// The status sent to the client; absent when it hung up before.
    pub status: Option<u16>,
    /// Our own error, by its name in the error table.
    pub error: Option<&'static str>,
    /// The error that it would have been, were its route's rules enforced.
    pub tolerated: Option<&'static str>,
    /// Whether it was replayed, or why not.
    pub replay: Replay,
    /// Milliseconds from sending the request on to the head of the answer.
    pub upstream_ms: Option<u64>,
    /// Bytes of the request body that were forwarded.
    pub request_bytes: u64,
    /// Bytes of the response body that were forwarded.
    pub response_bytes: u64,
    /// Whether the response went out to its end.
    pub complete: bool,
}

/// A token that was spent, and under which request id of the provider's.
#[derive(Clone, Debug)]
pub struct Spent {
    /// Fingerprint and generation.
    pub token: (Fingerprint, u64),
    /// The request id in the provider's own header.
    pub id: Option<HeaderValue>,
}

/// What became of a refused token's request.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Replay {
    /// The token was not refused.
    #[default]
    None,
    /// The provider refused the token, and the request could not be sent again.
    Impossible,
    /// It was sent again with a new token.
    Replayed,
}

#[derive(Serialize)]
struct AccessLine<'a> {
    time: &'a str,
    level: &'static str,
    message: &'static str,
    request_id: Uuid,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<DisplayId<TraceId>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    span_id: Option<DisplayId<SpanId>>,
    #[serde(rename = "countersign.listener")]
    listener: &'a str,
    #[serde(rename = "client.address", skip_serializing_if = "Option::is_none")]
    peer: Option<IpAddr>,
    #[serde(rename = "countersign.client", skip_serializing_if = "Option::is_none")]
    client: Option<&'a str>,
    #[serde(rename = "http.request.method")]
    method: &'a str,
    #[serde(rename = "url.path")]
    path: &'a str,
    #[serde(rename = "http.route", skip_serializing_if = "Option::is_none")]
    route: Option<&'a str>,
    #[serde(rename = "countersign.provider", skip_serializing_if = "Option::is_none")]
    provider: Option<&'a str>,
    #[serde(rename = "countersign.provider_request_id", skip_serializing_if = "Option::is_none")]
    provider_id: Option<&'a str>,
    #[serde(rename = "countersign.token", skip_serializing_if = "Option::is_none")]
    token: Option<DisplayId<Fingerprint>>,
    #[serde(rename = "countersign.token_generation", skip_serializing_if = "Option::is_none")]
    generation: Option<u64>,
    #[serde(rename = "http.response.status_code", skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(rename = "error.type", skip_serializing_if = "Option::is_none")]
    error: Option<&'static str>,
    #[serde(rename = "countersign.tolerated", skip_serializing_if = "Option::is_none")]
    tolerated: Option<&'static str>,
    #[serde(rename = "countersign.replay", skip_serializing_if = "Option::is_none")]
    replay: Option<&'static str>,
    duration_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream_ms: Option<u64>,
    #[serde(rename = "http.request.body.size")]
    request_bytes: u64,
    #[serde(rename = "http.response.body.size")]
    response_bytes: u64,
    complete: bool,
}

/// A fingerprint or an identifier, written without an allocation.
struct DisplayId<T>(T);

impl<T: Display> Serialize for DisplayId<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl Replay {
    /// The word for it; nothing for nothing.
    pub const fn as_str(self) -> Option<&'static str> {
        match self {
            Replay::None => None,
            Replay::Impossible => Some("impossible"),
            Replay::Replayed => Some("replayed"),
        }
    }
}

impl AccessRecord {
    /// Appends the record as one line of JSON.
    pub fn write_json(&self, end: Now, out: &mut Vec<u8>) {
        let time = Rfc3339::of(self.start.wall);
        let line = AccessLine {
            time: time.as_str(),
            level: "INFO",
            message: "request",
            request_id: self.id,
            trace_id: self.trace.map(|context| DisplayId(context.trace)),
            span_id: self.trace.map(|context| DisplayId(context.span)),
            listener: &self.listener,
            peer: self.peer,
            client: self.client.as_deref(),
            method: self.method.as_str(),
            path: &self.path,
            route: self.route.as_deref(),
            provider: self.provider.as_deref(),
            provider_id: self.provider_id.as_ref().and_then(|id| id.to_str().ok()),
            token: self.token.map(|(fingerprint, _)| DisplayId(fingerprint)),
            generation: self.token.map(|(_, generation)| generation),
            status: self.status,
            error: self.error,
            tolerated: self.tolerated,
            replay: self.replay.as_str(),
            duration_ms: millis(end, self.start),
            upstream_ms: self.upstream_ms,
            request_bytes: self.request_bytes,
            response_bytes: self.response_bytes,
            complete: self.complete,
        };
        if serde_json::to_writer(&mut *out, &line).is_ok() {
            out.push(b'\n');
        }
    }

    /// Appends the record as one line for people.
    pub fn write_text(&self, end: Now, out: &mut Vec<u8>) {
        let time = Rfc3339::of(self.start.wall);
        let time = time.as_str();
        let status = self.status.map_or_else(|| "hung-up".to_owned(), |status| status.to_string());
        // The path is printed escaped: a client must not be able to write to the operator's terminal.
        let path = self.path.escape_debug();
        let _ = write!(out, "{time} {status} {} {path}", self.method);
        for (word, value) in [("client", &self.client), ("route", &self.route), ("provider", &self.provider)] {
            if let Some(value) = value {
                let _ = write!(out, " {word}={value}");
            }
        }
        if let Some((fingerprint, generation)) = self.token {
            let _ = write!(out, " token={fingerprint}#{generation}");
        }
        if let Some(replay) = self.replay.as_str() {
            let _ = write!(out, " replay={replay}");
        }
        if let Some(tolerated) = self.tolerated {
            let _ = write!(out, " tolerated={tolerated}");
        }
        if let Some(error) = self.error {
            let _ = write!(out, " error={error}");
        }
        if let Some(context) = self.trace {
            let _ = write!(out, " trace={}", context.trace);
        }
        let _ = writeln!(out, " {}ms id={}", millis(end, self.start), self.id);
    }
}

fn millis(end: Now, start: Now) -> u64 {
    end.boot.saturating_sub(start.boot)
}
