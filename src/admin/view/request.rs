//! `GET /api/v1/requests`: some of the last requests, with the names of the access log.

use serde::Serialize;

use crate::base::time::rfc3339;
use crate::observe::stats::RequestSample;

/// The response body of `GET /api/v1/requests`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct RequestsView {
    /// Those that fit, the newest first.
    pub requests: Vec<RequestView>,
    /// Number of kept requests that fit; there may be more than are listed.
    pub matching: usize,
    /// Number of requests that are kept.
    pub kept: usize,
    /// Number of requests since the start.
    pub total: u64,
}

/// One request. The members are those of its access line, where that has them.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct RequestView {
    pub time: String,
    pub request_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub span_id: Option<String>,
    #[serde(rename = "countersign.listener")]
    pub listener: String,
    #[serde(rename = "client.address", skip_serializing_if = "Option::is_none")]
    pub client_address: Option<String>,
    /// The program that the caller names; absent where that could be a secret.
    #[serde(rename = "user_agent.original", skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
    #[serde(rename = "tls.protocol.version", skip_serializing_if = "Option::is_none")]
    pub tls: Option<&'static str>,
    #[serde(rename = "countersign.client", skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    #[serde(rename = "http.request.method")]
    pub method: String,
    /// Without the query, and cut where it is long.
    #[serde(rename = "url.path")]
    pub path: String,
    #[serde(rename = "http.route", skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    #[serde(rename = "countersign.provider", skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    #[serde(rename = "network.peer.address", skip_serializing_if = "Option::is_none")]
    pub upstream_address: Option<String>,
    #[serde(rename = "countersign.provider_request_id", skip_serializing_if = "Option::is_none")]
    pub provider_request_id: Option<String>,
    /// The fingerprint of the token that was sent last.
    #[serde(rename = "countersign.token", skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    #[serde(rename = "countersign.token_generation", skip_serializing_if = "Option::is_none")]
    pub token_generation: Option<u64>,
    #[serde(rename = "http.response.status_code", skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    #[serde(rename = "error.type", skip_serializing_if = "Option::is_none")]
    pub error: Option<&'static str>,
    /// The party that has to act if it failed: `client`, `operator` or `provider`.
    #[serde(rename = "countersign.fault", skip_serializing_if = "Option::is_none")]
    pub fault: Option<&'static str>,
    #[serde(rename = "countersign.reason", skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    #[serde(rename = "countersign.tolerated", skip_serializing_if = "Option::is_none")]
    pub tolerated: Option<&'static str>,
    #[serde(rename = "countersign.replay", skip_serializing_if = "Option::is_none")]
    pub replay: Option<&'static str>,
    pub duration_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream_ms: Option<f64>,
    #[serde(rename = "http.request.body.size")]
    pub request_bytes: u64,
    #[serde(rename = "http.response.body.size")]
    pub response_bytes: u64,
    pub complete: bool,
}

/// The response body of `GET /api/v1/requests/{id}`: one request, and what is known of the cause of its failure.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct RequestDetailView {
    #[serde(flatten)]
    pub request: RequestView,
    /// What happened and why, in sentences, the most telling first.
    pub cause: Vec<String>,
    /// The page of the documentation about its error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runbook: Option<String>,
    /// Key of the token that was sent, if that is still the current one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_key: Option<String>,
    /// The command that explains such a request by the config; absent: none does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub explain: Option<String>,
}

impl RequestView {
    pub(crate) fn of(sample: &RequestSample) -> Self {
        let record = &sample.record;
        let text = |name: &Option<std::sync::Arc<str>>| name.as_deref().map(str::to_owned);
        let provider_id = record.provider_id.as_ref().and_then(|id| id.to_str().ok());
        Self {
            time: rfc3339(record.start.wall),
            request_id: record.id.to_string(),
            trace_id: record.trace.map(|context| context.trace.to_string()),
            span_id: record.trace.map(|context| context.span.to_string()),
            listener: record.listener.to_string(),
            client_address: record.peer.map(|peer| peer.to_string()),
            user_agent: record.user_agent.map(|agent| agent.as_str().to_owned()),
            tls: record.tls,
            client: text(&record.client),
            method: record.method.to_string(),
            path: record.path.clone(),
            route: text(&record.route),
            provider: text(&record.provider),
            upstream_address: record.upstream.map(|address| address.to_string()),
            provider_request_id: provider_id.map(str::to_owned),
            token: record.token.map(|(fingerprint, _)| fingerprint.to_string()),
            token_generation: record.token.map(|(_, generation)| generation),
            status: record.status,
            error: record.error,
            fault: sample.blame.as_str(),
            reason: record.reason,
            tolerated: record.tolerated,
            replay: record.replay.as_str(),
            duration_ms: record.took.as_secs_f64() * 1000.0,
            upstream_ms: record.upstream_took.map(|took| took.as_secs_f64() * 1000.0),
            request_bytes: record.request_bytes,
            response_bytes: record.response_bytes,
            complete: record.complete,
        }
    }
}
