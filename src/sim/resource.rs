//! Resources that every bank has here, so that tests and people need not know each bank's API.
//!
//! `ANY /echo/…` says what arrived, `GET /download?bytes=N` sends N bytes (`&length=unknown` without saying how many),
//! `POST /payments/{id}` books a payment. All lie below the bank's base path and want what any of its resources want.

use http::StatusCode;
use serde_json::json;

use crate::base::secret::hex;
use crate::sim::call::SimCall;
use crate::sim::oauth2::with_nonce;
use crate::sim::sim_response::{Content, SimResponse};
use crate::sim::sim_state::SimState;

/// The answer to any call that is not for the token endpoint.
pub(super) fn answer_resource(desk: &SimState, call: &SimCall) -> SimResponse {
    let member = desk.member;
    if let Some(answer) = (member.open)(desk, call) {
        return answer;
    }
    let binding = match (member.admit)(desk, call) {
        Ok(binding) => binding,
        Err(refusal) => return refusal,
    };
    let answer = match call.segments().as_slice() {
        ["echo", ..] => echo(call),
        ["download"] => download(call),
        ["payments", id] if call.method == http::Method::POST => {
            let processed = desk.pay(id);
            SimResponse::json(StatusCode::OK, json!({ "id": id, "processed": processed }))
        }
        _ => (member.resource)(desk, call, &binding).unwrap_or_else(|| (member.missing)(call)),
    };
    with_nonce(call, true, answer)
}

/// Names of headers only: an echo must not repeat a credential.
fn echo(call: &SimCall) -> SimResponse {
    let names: Vec<&str> = call.headers.keys().map(http::HeaderName::as_str).collect();
    let body = json!({
        "method": call.method.as_str(), "path": call.path, "query": call.query, "headers": names,
        "body": { "length": call.body_length, "sha256": hex(&call.body_sha256) },
    });
    SimResponse::json(StatusCode::OK, body)
}

fn download(call: &SimCall) -> SimResponse {
    let Some(length) = call.parameter("bytes").and_then(|bytes| bytes.parse().ok()) else {
        return SimResponse::typed(StatusCode::BAD_REQUEST, "text/plain", "say how many: ?bytes=N\n");
    };
    let announced = call.parameter("length").is_none_or(|length| length != "unknown");
    let mut answer = SimResponse::typed(StatusCode::OK, "application/octet-stream", "");
    answer.content = Content::Filler { length, announced };
    answer
}
