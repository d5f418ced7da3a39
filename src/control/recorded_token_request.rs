//! What a recording says of a token request: where it went. Its fields are not recorded.

use std::sync::Arc;

use bytes::Bytes;
use http::response::Parts;
use http::{HeaderMap, Method};

use crate::base::secret::SecretString;
use crate::base::time::Now;
use crate::provider::{Module, RecordedExchange, RecordedKind, Recording, RecordingCopy, TokenRequest};

/// The place of a token request.
pub(super) struct RecordedTokenRequest {
    method: Method,
    path: String,
}

impl RecordedTokenRequest {
    pub(super) fn of(request: &TokenRequest) -> Self {
        let path = request.url.path();
        Self { method: request.method.clone(), path: if path.is_empty() { "/" } else { path }.to_owned() }
    }

    /// Hands the exchange to the recording. `step`: the number of steps of the login before it.
    pub(super) fn record(
        self,
        recording: &Recording,
        module: &Arc<Module>,
        step: usize,
        (head, body): (&Parts, &Bytes),
        now: Now,
    ) {
        let place = ["token", "step 1", "step 2", "step 3", "step 4"].get(step).copied().unwrap_or("step");
        let Some(turn) = recording.begin(place, &self.method, head.status, now) else { return };
        let exchange = RecordedExchange {
            module: module.clone(),
            kind: RecordedKind::Token { step },
            method: self.method,
            target: SecretString::from(self.path),
            request_headers: HeaderMap::new(),
            request_body: None,
            credentials: Vec::new(),
            status: head.status,
            headers: head.headers.clone(),
            body: None,
            at: now,
        };
        let mut copy = RecordingCopy::new(turn, Box::new(exchange));
        copy.piece(body);
        copy.finish();
    }
}
