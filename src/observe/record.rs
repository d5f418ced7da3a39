//! One finished request, as the access log tells it.
//!
//! Field names follow OpenTelemetry's HTTP semantic conventions where these have a word for it. Neither queries nor
//! bodies nor header values appear, but for the [name of the caller's program](UserAgent).

use std::io::Write as _;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Method};
use uuid::Uuid;
use uuid::fmt::Hyphenated;

use super::json_line::{JsonLine, key};
use crate::base::secret::Fingerprint;
use crate::base::time::{Now, Rfc3339};
use crate::observe::trace::Context;
use crate::observe::user_agent::UserAgent;

/// Everything that is told about one request. Filled in while it runs; written once, at its end.
#[derive(Clone, Debug)]
pub struct AccessRecord {
    /// When its head was complete.
    pub start: Now,
    /// Our name for it: the `instance` of error documents.
    pub id: Uuid,
    /// The span that it is: ours where it is traced, else the one that the caller named.
    pub trace: Option<Context>,
    /// Name of the listener that received it.
    pub listener: Arc<str>,
    /// The client's address, if it is known.
    pub peer: Option<IpAddr>,
    /// The program that the caller names.
    pub user_agent: Option<UserAgent>,
    /// The version of TLS between the caller and us, such as `1.3`; absent: there is none.
    pub tls: Option<&'static str>,
    /// The caller's name, once known.
    pub client: Option<Arc<str>>,
    /// Method of the request, as received.
    pub method: Method,
    /// Its path as received, without the query.
    pub path: String,
    /// Name of the route, once chosen.
    pub route: Option<Arc<str>>,
    /// Name of the provider, once chosen.
    pub provider: Option<Arc<str>>,
    /// The address that the connection to the provider leads to, once an answer came over it.
    pub upstream: Option<IpAddr>,
    /// The request id in the provider's own header that went out last.
    pub provider_id: Option<HeaderValue>,
    /// The token that was sent last: fingerprint and generation.
    pub token: Option<(Fingerprint, u64)>,
    /// The token that was sent before that, and refused by the provider.
    pub refused: Option<Spent>,
    /// The status sent to the client; absent when it hung up before.
    pub status: Option<u16>,
    /// Our own error, by its name in the error table.
    pub error: Option<&'static str>,
    /// What that error's document says.
    pub told: Option<ErrorText>,
    /// The rule or limit that a refused request does not keep, for the operator alone.
    pub reason: Option<&'static str>,
    /// The cause of a failure at the provider's end, as the log tells it; for the dashboard and the admin API alone. It
    /// may be there although the request went well in the end.
    pub cause: Option<Arc<str>>,
    /// The error that it would have been, were its route's rules enforced.
    pub tolerated: Option<&'static str>,
    /// The outcome of the replay, if the token was refused.
    pub replay: Replay,
    /// Time from the head to the end of the answer.
    pub took: Duration,
    /// Time from sending the request on to the head of the answer.
    pub upstream_took: Option<Duration>,
    /// Bytes of the request body that were forwarded.
    pub request_bytes: u64,
    /// Bytes of the response body that were forwarded.
    pub response_bytes: u64,
    /// True if the response was sent to its end.
    pub complete: bool,
}

/// The words of an error document (RFC 9457).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ErrorText {
    /// Its `title`.
    pub title: &'static str,
    /// Its `detail`.
    pub detail: &'static str,
}

/// A token that was spent, and under which request id of the provider's.
#[derive(Clone, Debug)]
pub struct Spent {
    /// Fingerprint and generation of the token.
    pub token: (Fingerprint, u64),
    /// The request id in the provider's own header.
    pub id: Option<HeaderValue>,
}

/// The outcome of the replay of a request, if its token was refused or a nonce was wanted.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Replay {
    /// Neither happened.
    #[default]
    None,
    /// It was sent again with the same token, and the nonce that the provider wanted to see in its proof.
    Challenged,
    /// The request could not be sent again.
    Impossible,
    /// It was sent again with a new token.
    Replayed,
}

impl Replay {
    /// The word for it; nothing for nothing.
    pub const fn as_str(self) -> Option<&'static str> {
        match self {
            Replay::None => None,
            Replay::Challenged => Some("challenged"),
            Replay::Impossible => Some("impossible"),
            Replay::Replayed => Some("replayed"),
        }
    }
}

impl AccessRecord {
    /// Appends the record as one line of JSON.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        let mut id = [0; Hyphenated::LENGTH];
        let mut line = JsonLine::begin(out, key!("time"), Rfc3339::of(self.start.wall).as_str());
        line.plain(key!("level"), "INFO");
        line.plain(key!("message"), "request");
        line.plain(key!("request_id"), self.id.hyphenated().encode_lower(&mut id));
        if let Some(context) = self.trace {
            line.display(key!("trace_id"), context.trace);
            line.display(key!("span_id"), context.span);
        }
        line.text(key!("countersign.listener"), &self.listener);
        if let Some(peer) = self.peer {
            line.address(key!("client.address"), peer);
        }
        line.optional(key!("user_agent.original"), self.user_agent.as_ref().map(UserAgent::as_str));
        line.optional(key!("tls.protocol.version"), self.tls);
        line.optional(key!("countersign.client"), self.client.as_deref());
        // RFC 9110 section 5.6.2: a token has no quote and no backslash.
        line.plain(key!("http.request.method"), self.method.as_str());
        line.text(key!("url.path"), &self.path);
        line.optional(key!("http.route"), self.route.as_deref());
        line.optional(key!("countersign.provider"), self.provider.as_deref());
        if let Some(upstream) = self.upstream {
            line.address(key!("network.peer.address"), upstream);
        }
        let provider_id = self.provider_id.as_ref().and_then(|id| id.to_str().ok());
        line.optional(key!("countersign.provider_request_id"), provider_id);
        if let Some((fingerprint, generation)) = self.token {
            line.hex(key!("countersign.token"), fingerprint.number());
            line.number(key!("countersign.token_generation"), generation);
        }
        if let Some(status) = self.status {
            line.number(key!("http.response.status_code"), status);
        }
        line.optional(key!("error.type"), self.error);
        line.optional(key!("countersign.reason"), self.reason);
        line.optional(key!("countersign.tolerated"), self.tolerated);
        line.optional(key!("countersign.replay"), self.replay.as_str());
        line.millis(key!("duration_ms"), self.took);
        if let Some(took) = self.upstream_took {
            line.millis(key!("upstream_ms"), took);
        }
        line.number(key!("http.request.body.size"), self.request_bytes);
        line.number(key!("http.response.body.size"), self.response_bytes);
        line.flag(key!("complete"), self.complete);
        line.end();
    }

    /// Appends the record as one line for people.
    pub fn write_text(&self, out: &mut Vec<u8>) {
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
        if let Some(reason) = self.reason {
            let _ = write!(out, " reason={reason:?}");
        }
        if let Some(upstream) = self.upstream {
            let _ = write!(out, " upstream={upstream}");
        }
        if let Some(tls) = self.tls {
            let _ = write!(out, " tls={tls}");
        }
        if let Some(user_agent) = &self.user_agent {
            let _ = write!(out, " user_agent={user_agent:?}");
        }
        if let Some(context) = self.trace {
            let _ = write!(out, " trace={}", context.trace);
        }
        let micros = self.took.as_micros();
        let _ = writeln!(out, " {}.{:03}ms id={}", micros / 1000, micros % 1000, self.id);
    }
}
