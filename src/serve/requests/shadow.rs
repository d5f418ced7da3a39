//! The shadow of a call: it is dressed by both profiles of its provider, and what differs is counted by name.
//!
//! Nothing of it is sent, and nothing of what is sent depends on it.

use std::sync::Arc;

use http::Uri;
use http::request::Parts;
use http::uri::PathAndQuery;
use zeroize::Zeroizing;

use crate::base::time::Now;
use crate::config::Route;
use crate::provider::{DressedBody, DressedCall, SameId, Shadow, call_differences};
use crate::serve::exchanges::replay_body::ReplayBody;
use crate::serve::requests::dress::{RequestDress, dress_by};
use crate::serve::worker_state::WorkerState;

/// A call as the client made it, to be dressed by both profiles.
pub(in crate::serve) struct ShadowedCall {
    shadow: Arc<Shadow>,
    head: Parts,
    /// The client's body, if it was gathered and one of the profiles puts fields into it.
    content: Option<Zeroizing<Vec<u8>>>,
}

impl ShadowedCall {
    /// Keeps a call before it is dressed; `None`: its provider has no shadow.
    #[inline]
    pub(in crate::serve) fn begin(route: &Route, head: &Parts, body: Option<&ReplayBody>) -> Option<Box<Self>> {
        let shadow = route.shadow.as_ref()?;
        let changes = shadow.sides().iter().any(|(module, _)| module.changes_body());
        let content = body.filter(|body| changes && body.kept_bytes() > 0).map(|body| Zeroizing::new(body.content()));
        Some(Box::new(Self { shadow: shadow.clone(), head: head.clone(), content }))
    }

    /// Dresses it by both, and counts what differs. `with` is what the call itself was dressed with.
    pub(in crate::serve) fn compare(
        self: Box<Self>,
        worker: &WorkerState,
        route: &Route,
        target: &Uri,
        with: RequestDress<'_>,
    ) {
        let path_and_query = target.path_and_query().map_or("/", PathAndQuery::as_str);
        let dressed = self.shadow.sides().map(|(module, lease)| {
            let mut head = self.head.clone();
            let with = RequestDress { lease, ..with };
            let inputs = with.inputs();
            let sent = dress_by(module, &mut head, route, with, &mut SameId).ok()?;
            let target = module.target(path_and_query, inputs, &sent, &mut SameId);
            let body = match &self.content {
                Some(content) => {
                    let made = module.body(&head.headers, content, inputs, &sent, &mut SameId);
                    made.map(|made| made.map_err(|_| ()))
                }
                // It passes unread, whatever the shadow would put into it.
                None if with.body && module.changes_body() => Some(Err(())),
                None => None,
            };
            Some((head.headers, target.unwrap_or_else(|| path_and_query.to_owned()), body))
        });
        let parts = match &dressed {
            [Some(present), Some(candidate)] => {
                let [present, candidate] = [present, candidate].map(|(headers, path_and_query, body)| DressedCall {
                    headers,
                    path_and_query,
                    body: match body {
                        None => DressedBody::AsSent,
                        Some(Ok(made)) => DressedBody::Made(made),
                        Some(Err(())) => DressedBody::Unfit,
                    },
                });
                call_differences(&present, &candidate)
            }
            [None, None] => Vec::new(),
            [Some(_), None] | [None, Some(_)] => vec!["head".to_owned()],
        };
        self.shadow.counts().note_call(&parts);
        worker.shared.metrics.shadow_call(&route.provider.name);
        tell(worker, route, &self.shadow, &parts, with.now);
    }
}

/// Counts parts that differ, and says so in the log, once a minute at most.
pub(in crate::serve) fn tell(worker: &WorkerState, route: &Route, shadow: &Shadow, parts: &[String], now: Now) {
    if parts.is_empty() {
        return;
    }
    let provider = &route.provider.name;
    for part in parts {
        worker.shared.metrics.shadow_difference(provider, part);
    }
    let counts = shadow.counts();
    if counts.is_line_due(now) {
        let ((compared, differing), profile) = (counts.calls(), counts.profile());
        let parts = counts.summary();
        tracing::warn!(%provider, route = %route.name, shadow = %profile, compared, differing, %parts, "the shadow profile differs");
    }
}
