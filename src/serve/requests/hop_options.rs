//! The conditions that a route sets before a request may go on: its turn, its body, values that the client may name;
//! and the options that the request asks for on this hop: trailers, a WebSocket.

use std::rc::Rc;
use std::time::Duration;

use http::header::TE;
use http::{HeaderMap, HeaderValue, Version};

use crate::route::Rate;
use crate::serve::exchanges::replay_body::{Intake, ReplayBody};
use crate::serve::exchanges::upgrade;
use crate::serve::fault::Fault;
use crate::serve::reports::request_log::RequestLog;
use crate::serve::requests::headers::{self, Trailers};
use crate::serve::worker_state::{RouteState, WorkerState};
use crate::upstream::ReceivedBody;

/// The options that a request asks for on this hop, to be read before the fields of this hop are removed.
#[derive(Clone, Copy)]
pub struct HopOptions {
    /// The client reads trailers (and may be sent some).
    pub te_trailers: bool,
    /// The trailers that can be sent to the client.
    pub trailers: ReadsTrailers,
    /// True if the request came over HTTP/2.
    pub http2: bool,
    /// It wants a WebSocket, and the route permits one.
    pub websocket: bool,
}

/// The trailers that a client can be sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ReadsTrailers {
    /// Those that the answer's head announces.
    Announced,
    Any,
    No,
}

impl HopOptions {
    /// Reads it from a head. `websocket` says whether the route permits one.
    pub fn of(head: &http::request::Parts, websocket: bool) -> Self {
        let te_trailers = headers::reads_trailers(&head.headers);
        let trailers = match head.version {
            Version::HTTP_2 => ReadsTrailers::Any,
            Version::HTTP_11 if te_trailers => ReadsTrailers::Announced,
            _ => ReadsTrailers::No,
        };
        let http2 = head.version == Version::HTTP_2;
        let websocket = websocket && upgrade::asked_for(&head.method, head.version, &head.headers);
        Self { te_trailers: te_trailers && trailers != ReadsTrailers::No, trailers, http2, websocket }
    }

    /// Says it again to the provider.
    pub fn put_on(self, headers: &mut HeaderMap) {
        if self.te_trailers {
            headers.insert(TE, HeaderValue::from_static("trailers"));
        }
        if self.websocket {
            upgrade::put_on(headers);
        }
    }
}

/// Wraps a request's body in a [`ReplayBody`], unless it was taken before.
pub fn take_in(
    worker: &WorkerState,
    route: &RouteState,
    body: &mut Option<ReceivedBody>,
    headers: &HeaderMap,
    log: &mut RequestLog,
) -> Option<Rc<ReplayBody>> {
    let source = body.take()?;
    let mut trailers = headers::announced(headers);
    trailers.retain(|name| !route.route.module.strips(name));
    let replay_body = Rc::new(ReplayBody::new(Intake {
        source,
        limit: route.route.replay_limit,
        budget: worker.budget(),
        min_rate: worker.shared.snapshot.limits.body_min_rate,
        trailers: Trailers::Announced(trailers),
        clock: worker.shared.clock.clone(),
    }));
    log.watch_body(&replay_body);
    Some(replay_body)
}

/// Waits for the request's turn, or refuses it if that is too far away. There is no wait if the rate is not enforced.
pub async fn turn(rate: &Rate, enforce: bool) -> Result<(), Fault> {
    let mut patience = if enforce { rate.wait } else { Duration::ZERO };
    loop {
        let Err(left) = rate.take() else { return Ok(()) };
        patience = patience.checked_sub(left).ok_or(Fault::RateLimited(left))?;
        tokio::time::sleep(left).await;
    }
}
