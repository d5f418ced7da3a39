//! Recent requests: what the access log says of them, and no more.

use serde::Serialize;

/// A list of recent requests, the latest first.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Requests {
    pub requests: Vec<RequestView>,
}

/// One finished request: metadata only. Never a query, a header or a body.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct RequestView {
    /// When its head was complete.
    pub at: String,
    pub request_id: String,
    pub listener: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    pub method: String,
    /// As it was received, without the query.
    pub path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// Absent: the client hung up before an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Our own error, by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<&'static str>,
    pub duration_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream_ms: Option<u64>,
    /// `replayed`, or `impossible` where the token was refused and the request could not be sent again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replay: Option<&'static str>,
    /// The fingerprint of the token that was spent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_generation: Option<u64>,
    /// Whether the answer went out to its end.
    pub complete: bool,
}
