//! The life of a request, from its head to its answer.
//!
//! Read [`answer`] first: identify, admit, lease, dress, send, judge, at most one replay. Each step either yields what
//! the next one needs or a [`Fault`]; after a fault nothing else happens to the request.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, TRANSFER_ENCODING};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Extensions, HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, Version};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Body, Incoming};
use hyper::upgrade::OnUpgrade;

use crate::base::id::RandomIds;
use crate::observe::metrics::ProviderLimit;
use crate::route::Admission;
use crate::serve::connections::connection_context::ConnectionContext;
use crate::serve::exchanges::replay_body::{ReplayBody, Ungathered};
use crate::serve::exchanges::response_body::ResponseBody;
use crate::serve::exchanges::upstream_call::{TOKEN_WAIT, TokenInUse, UpstreamCall};
use crate::serve::exchanges::upstream_response::UpstreamResponse;
use crate::serve::fault::Fault;
use crate::serve::modes::RequestHandler;
use crate::serve::reports::own_response::{access_record, own_response};
use crate::serve::reports::request_log::RequestLog;
use crate::serve::requests::admit::{Declined, admit};
use crate::serve::requests::caller::caller;
use crate::serve::requests::connect;
use crate::serve::requests::consent;
use crate::serve::requests::dress::{RequestDress, dress, dress_body, dressed_target};
use crate::serve::requests::hop_options::{HopOptions, take_in, turn};
use crate::serve::requests::permit::{Obtained, Permit};
use crate::serve::requests::quota::spend_quotas;
use crate::serve::requests::shadow::ShadowedCall;
use crate::serve::requests::webhook;
use crate::serve::worker_state::{RouteState, WorkerState};
use crate::upstream::ReceivedBody;

/// Maximum number of bytes of an unwanted body that are read, so that the connection can go on.
const MOST_UNWANTED: usize = 64 * 1024;
/// Maximum time for which an unwanted body is read.
const UNWANTED: Duration = Duration::from_millis(20);

/// The limits that a 429 may stand for, as the operator is told.
const RATE_LIMIT: &str = "the route's `rate_limit` is reached";
const QUOTA: &str = "a `quota` of the provider is spent until its next window";

/// Answers one request. Never fails: a fault is an answer, too.
pub async fn answer(
    worker: Rc<WorkerState>,
    conn: Rc<ConnectionContext>,
    request: Request<Incoming>,
) -> Response<ResponseBody> {
    let request = ReceivedBody::request(request);
    let http1 = request.version() != Version::HTTP_2;
    let has_body = http1 && !request.body().is_end_stream();
    // Rare cases are boxed futures of their own, so that every other request needs no room for them.
    if let Some(webhook) = worker.webhook(conn.listener, request.uri().path()).cloned() {
        let last = http1 && request.headers().contains_key(TRANSFER_ENCODING);
        return closing(Box::pin(webhook::answer(worker, conn, webhook, request)).await, last);
    }
    match conn.entry.handler(&request) {
        RequestHandler::Callback => return closing(Box::pin(consent::callback(worker, conn, request)).await, has_body),
        RequestHandler::Connect => return Box::pin(connect::answer(worker, conn, request)).await,
        RequestHandler::Consent => return Box::pin(consent::answer(worker, conn, request)).await,
        RequestHandler::Page => return closing(connect::page(&worker, &conn, request), has_body),
        RequestHandler::Route => {}
    }
    // hyper reduces a Content-Length beside Transfer-Encoding to one meaning before we can see it. A client that meant
    // the other meaning must not get its leftover bytes read as a next request (RFC 9112 section 6.1).
    let mut last = http1 && request.headers().contains_key(TRANSFER_ENCODING);
    let mut log = RequestLog::begin(&worker, conn.listener, access_record(&worker, &conn, &request));
    let (head, body) = request.into_parts();
    let (mut body, may_read) = (Some(body), !head.headers.contains_key(EXPECT));
    let outcome = forward(&worker, &conn, head, &mut body, &mut log).await;
    if has_body {
        // hyper closes a connection whose request it cannot read to its end. Its client is told (RFC 9112 section 9.6).
        last |= match &outcome {
            Err(Declined::Fault(fault)) if fault.closes() => true,
            Err(_) if may_read && !last => !Box::pin(read_on(body, &log)).await,
            Ok(_) | Err(_) => !log.body().is_some_and(|body| body.arrived()),
        };
    }
    let response = match outcome {
        Ok(upstream_response) if upstream_response.response.status() == StatusCode::SWITCHING_PROTOCOLS => {
            Box::pin(upstream_response.switch(log)).await
        }
        Ok(upstream_response) => upstream_response.into_response(log),
        Err(Declined::Fault(fault)) => {
            last |= http1 && fault.closes();
            own_response(fault, log)
        }
        Err(Declined::Stub(route)) => stub(&worker, route, log),
    };
    closing(response, last)
}

/// Says that the connection closes after this answer, if it does.
fn closing(mut response: Response<ResponseBody>, closes: bool) -> Response<ResponseBody> {
    if closes {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Reads a body that is no longer wanted, if it is short and most likely received already. Returns whether it came to
/// its end.
async fn read_on(body: Option<ReceivedBody>, log: &RequestLog) -> bool {
    let reading = async {
        match (body, log.body()) {
            (Some(body), _) => Limited::new(body, MOST_UNWANTED).collect().await.is_ok(),
            (None, Some(replay_body)) => replay_body.read_on(MOST_UNWANTED).await,
            (None, None) => false,
        }
    };
    tokio::time::timeout(UNWANTED, reading).await.unwrap_or(false)
}

async fn forward(
    worker: &Rc<WorkerState>,
    conn: &ConnectionContext,
    mut head: Parts,
    body: &mut Option<ReceivedBody>,
    log: &mut RequestLog,
) -> Result<UpstreamResponse, Declined> {
    let caller = caller(worker, conn, &head.headers, log).await?.caller;
    let snapshot = &worker.shared.snapshot;
    let listener = worker.listener(conn.listener).ok_or(Fault::Internal)?;
    let admission = admit(conn.ground(listener)?, &snapshot.limits, caller, &head)?;
    let mut route = worker.route(admission.route()).ok_or(Fault::Internal)?.clone();
    log.follow(&route);
    // Outside the provider's hours nothing is asked of it, nor waited for.
    if let Some(opens_in) = route.route.provider.hours.as_ref().and_then(|hours| hours.opens_in(worker.now())) {
        worker.shared.metrics.provider_limited(&route.route.provider.name, ProviderLimit::Hours);
        return Err(Fault::ProviderClosed(opens_in).into());
    }
    if let Some(rate) = &route.route.rate {
        match Box::pin(turn(rate, route.route.enforce)).await {
            Err(fault) if !route.route.enforce => log.tolerate(fault),
            Err(fault) => {
                log.exceeds(RATE_LIMIT);
                return Err(fault.into());
            }
            Ok(()) => {}
        }
    }
    let client_sent_body = body.as_ref().is_some_and(|body| !body.is_end_stream());
    let hop = HopOptions::of(&head, route.route.websocket);
    let mut replay_body = None;
    let admitted = match admission {
        Admission::Admitted(admitted) => admitted,
        Admission::AwaitsBody(draft) => {
            let gathered = Box::pin(gather(worker, &route, body, &head.headers, log)).await.map_err(Fault::from)?;
            let admitted = draft.complete(&gathered.content()).map_err(Declined::from)?;
            replay_body = Some(gathered);
            admitted
        }
    };
    let module = &route.route.module;
    let buffers = route.route.request_buffering || module.wants_whole_body();
    if buffers && client_sent_body && replay_body.is_none() {
        let gathered = Box::pin(gather(worker, &route, body, &head.headers, log)).await;
        replay_body = Some(gathered.map_err(|why| match why {
            Ungathered::TooLarge => Fault::BodyTooLarge,
            other => Fault::from(other),
        })?);
    }
    let (mut permit, path_and_query) = Permit::authorize(worker, &route, caller, admitted, &head.headers, log)?;
    if !route.quotas.is_empty() {
        match Box::pin(spend_quotas(worker, &route, caller, &permit)).await {
            Ok(()) => {}
            Err(fault) if !route.route.enforce => log.tolerate(fault),
            Err(fault) => {
                log.exceeds(QUOTA);
                worker.shared.metrics.provider_limited(&route.route.provider.name, ProviderLimit::Quota);
                return Err(fault.into());
            }
        }
    }
    let mut now = worker.now();
    let cached = worker.cached_lease(&permit, now);
    let (lease, fetched_for_this, current_route) = match cached {
        Some(lease) => (lease, false, None),
        None => {
            let cause = log.wait_for(TOKEN_WAIT, &route.route.provider.name);
            let Obtained { lease, fresh, previous, other } =
                Box::pin(permit.obtain(worker, &route, cause, log)).await?;
            log.waited();
            now = worker.now();
            if let Some(other) = other {
                route = other;
            }
            let current_route = previous.map(|previous| std::mem::replace(&mut route, previous));
            (lease, fresh, current_route)
        }
    };

    let shadowed = ShadowedCall::begin(&route.route, &head, replay_body.as_deref());
    let with = RequestDress { host: &route.host, lease: &lease, vars: permit.vars(), now, body: client_sent_body, hop };
    let inputs = with.inputs();
    let ids = dress(&mut head, &route.route, with, &mut RandomIds)?;
    let target = target(path_and_query)?;
    let dressed_target = dressed_target(&target, &route.route, inputs, &ids, &mut RandomIds)?;
    if let Some(gathered) = &replay_body {
        dress_body(gathered, &mut head.headers, &route.route, inputs, &ids, &mut RandomIds)?;
    }
    if let Some(shadowed) = shadowed {
        shadowed.compare(worker, &route.route, &target, with);
    }

    match &replay_body {
        Some(gathered) if route.route.request_buffering || route.route.module.wants_whole_body() => {
            head.headers.insert(CONTENT_LENGTH, gathered.kept_bytes().into());
        }
        None if client_sent_body => replay_body = take_in(worker, &route, body, &head.headers, log),
        Some(_) | None => {}
    }
    let spelling = spelling(&route, head.extensions);
    let (method, headers) = (head.method, head.headers);
    let call = UpstreamCall { worker, route, method, target, dressed_target, headers, spelling, replay_body, hop };
    let mut upstream_response =
        call.run(TokenInUse { permit, lease, ids, taken: now, fetched_for_this, current_route }, log).await?;
    upstream_response.screen().await?;
    Ok(upstream_response)
}

/// Takes in the whole body of a request before anything else is done with it.
async fn gather(
    worker: &WorkerState,
    route: &RouteState,
    body: &mut Option<ReceivedBody>,
    headers: &HeaderMap,
    log: &mut RequestLog,
) -> Result<Rc<ReplayBody>, Ungathered> {
    let replay_body = take_in(worker, route, body, headers, log).ok_or(Ungathered::Broken)?;
    replay_body.gather().await?;
    Ok(replay_body)
}

/// Returns the client's spelling of field names, as hyper keeps it, if the provider is to receive it.
fn spelling(route: &RouteState, mut extensions: Extensions) -> Extensions {
    if !route.route.provider.way.http1.preserves_case() {
        return Extensions::new();
    }
    extensions.remove::<OnUpgrade>();
    extensions
}

/// Parses path and query as a request target.
fn target(path_and_query: String) -> Result<Uri, Fault> {
    let bytes = Bytes::from(path_and_query);
    let target = PathAndQuery::from_maybe_shared(bytes).map_err(|_| Fault::Malformed("The path is not a path."))?;
    Ok(Uri::from(target))
}

/// The answer of a token endpoint that we play ourselves.
fn stub(worker: &WorkerState, route: usize, mut log: RequestLog) -> Response<ResponseBody> {
    let Some(route) = worker.route(route) else { return own_response(Fault::Internal, log) };
    log.follow(route);
    log.record().status = Some(200);
    let (kind, body) = route.route.module.stub(worker.now());
    let mut response = Response::new(ResponseBody::own(body.into(), log));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    // As RFC 6749 section 5.1 wants it of every answer with a token.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
