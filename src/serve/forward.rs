//! The life of a request, from its head to its answer.
//!
//! Read [`answer`] first: identify, admit, lease, dress, send, judge, at most one replay. Each step either yields what
//! the next one needs or a [`Fault`]; after a fault nothing else happens to the request.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HOST, TRANSFER_ENCODING,
};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Extensions, HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Body, Incoming};
use hyper::upgrade::OnUpgrade;
use uuid::Uuid;

use super::admit::{Declined, admit};
use super::connect;
use super::connection_context::{ConnectionContext, Ingress, Tunnel};
use super::consent;
use super::fault::Fault;
use super::headers;
use super::hop_options::{HopOptions, take_in, turn, within_bounds};
use super::identify::{IdentifyContext, IdentifyError, Peer, Proven, prove};
use super::replay_body::{ReplayBody, Ungathered};
use super::request_log::RequestLog;
use super::response_body::ResponseBody;
use super::upstream_call::{CurrentRoute, TOKEN_WAIT, TokenInUse, UpstreamCall};
use super::upstream_response::UpstreamResponse;
use super::worker_state::{RouteState, WorkerState};
use crate::base::id::{Ids, RandomIds};
use crate::base::vars::Vars;
use crate::config::Route;
use crate::control::{TokenSpec, user_spec};
use crate::observe::record::{AccessRecord, Replay};
use crate::observe::trace::{Context, TRACEPARENT, TRACESTATE, parent};
use crate::provider::SentIds;
use crate::route::{Admission, Caller, Permit};
use crate::token::lease::Lease;
use crate::upstream::ReceivedBody;

/// Maximum number of bytes of an unwanted body that are read, so that the connection can go on.
const MOST_UNWANTED: usize = 64 * 1024;
/// Maximum time for which an unwanted body is read.
const UNWANTED: Duration = Duration::from_millis(20);

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
    match &conn.entry {
        Ingress::Proxy if request.method() == Method::CONNECT => {
            return Box::pin(connect::answer(worker, conn, request)).await;
        }
        Ingress::Proxy if request.uri().authority().is_none() => {
            return closing(connect::page(&worker, &conn, request), has_body);
        }
        Ingress::Callback(_) => return closing(Box::pin(consent::callback(worker, conn, request)).await, has_body),
        Ingress::Reverse(_) if request.uri().path().starts_with(consent::PLACE) => {
            return Box::pin(consent::answer(worker, conn, request)).await;
        }
        Ingress::Proxy | Ingress::Reverse(_) | Ingress::Tunnel(_) => {}
    }
    // hyper reduces a Content-Length beside Transfer-Encoding to one meaning before we can see it. A client that meant
    // the other meaning must not get its leftover bytes read as a next request (RFC 9112 section 6.1).
    let mut last = http1 && request.headers().contains_key(TRANSFER_ENCODING);
    let mut log = RequestLog::begin(&worker, conn.listener, opening(&worker, &conn, &request));
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
            own_answer(fault, log)
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
    if let Some(rate) = &route.route.rate {
        match Box::pin(turn(rate, route.route.enforce)).await {
            Err(fault) if !route.route.enforce => log.tolerate(fault),
            done => done?,
        }
    }
    let client_sent_body = body.as_ref().is_some_and(|body| !body.is_end_stream());
    let hop = HopOptions::of(&head, route.route.websocket);
    let mut replay_body = None;
    let permit = match admission {
        Admission::Granted(permit) => permit,
        Admission::AwaitsBody(draft) => {
            let gathered = Box::pin(gather(worker, &route, body, &head.headers, log)).await.map_err(Fault::from)?;
            let permit = draft.complete(&gathered.content()).map_err(Declined::from)?;
            replay_body = Some(gathered);
            permit
        }
    };
    if route.route.request_buffering && client_sent_body && replay_body.is_none() {
        let gathered = Box::pin(gather(worker, &route, body, &head.headers, log)).await;
        replay_body = Some(gathered.map_err(|why| match why {
            Ungathered::TooLarge => Fault::BodyTooLarge,
            other => Fault::from(other),
        })?);
    }
    match within_bounds(&snapshot.clients, caller, &permit) {
        Err(fault) if !route.route.enforce => log.tolerate(fault),
        done => done?,
    }
    if permit.tolerated() {
        log.tolerate(Fault::ClientNotAllowed);
    }

    let user = match &route.route.user {
        None => None,
        Some(header) => Some(consent::named_user(&head.headers, header)?),
    };
    let spec = match user {
        None => route.token(permit.vars(), &worker.shared.clock),
        Some(user) => users_token(worker, &route, caller, user)?,
    };
    if !worker.shared.audit.ready() {
        return Err(Fault::Unaudited.into());
    }
    log.speak_of(user, permit.vars());
    let cached = worker.cached_lease(&spec.key, worker.now());
    let (lease, born_for_this, successor) = match cached {
        Some(lease) => (lease, false, None),
        None => {
            let cause = log.wait_for(TOKEN_WAIT, &route.route.provider.name);
            let obtained = Box::pin(obtain(worker, &route, &spec, permit.vars(), cause)).await?;
            let Obtained { lease, fresh, stand_in } = obtained;
            log.waited();
            let successor = stand_in.map(|before| {
                let route = std::mem::replace(&mut route, before);
                Box::new(CurrentRoute { route, vars: permit.vars().clone() })
            });
            (lease, fresh, successor)
        }
    };

    let with = RequestDress { host: &route.host, lease: &lease, vars: permit.vars(), body: client_sent_body, hop };
    let ids = dress(&mut head, &route.route, with, &mut RandomIds)?;
    let target = target(permit)?;

    match &replay_body {
        Some(gathered) if route.route.request_buffering => {
            head.headers.insert(CONTENT_LENGTH, gathered.kept_bytes().into());
        }
        None if client_sent_body => replay_body = take_in(worker, &route, body, &head.headers, log),
        Some(_) | None => {}
    }
    let spelling = spelling(&route, head.extensions);
    let (method, headers) = (head.method, head.headers);
    let call = UpstreamCall { worker, route, method, target, headers, spelling, replay_body, hop };
    let mut upstream_response = call.run(TokenInUse { spec, lease, ids, born_for_this, successor }, log).await?;
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

/// Returns the caller, or a refusal without details. In a tunnel, it is the caller that opened it.
pub(super) async fn caller(
    worker: &WorkerState,
    conn: &ConnectionContext,
    headers: &HeaderMap,
    log: &mut RequestLog,
) -> Result<Proven, Fault> {
    let listener = worker.listener(conn.listener).ok_or(Fault::Misdirected)?;
    if listener.footing != conn.footing {
        // The proof of this connection may no longer hold: on a new one the client can be asked for it again.
        return Err(Fault::Misdirected);
    }
    let clients = &worker.shared.snapshot.clients;
    let now = log.record().start;
    let as_proxy = matches!(conn.entry, Ingress::Proxy);
    let context = IdentifyContext { access: &listener.access, clients, issuers: &worker.shared.issuers, now, as_proxy };
    let known = match &conn.entry {
        Ingress::Tunnel(tunnel) => opener(worker, tunnel, context, &conn.peer).await,
        Ingress::Callback(_) | Ingress::Proxy | Ingress::Reverse(_) => prove(context, &conn.peer, headers).await,
    };
    let unidentified = if as_proxy { Fault::ClientUnidentifiedToProxy } else { Fault::ClientUnidentified };
    match known {
        Ok(known @ Proven { caller: Caller::Client(_), .. }) => {
            log.record().client = worker.name_of(known.caller);
            Ok(known)
        }
        Ok(Proven { caller: Caller::Anyone, .. }) if from_a_web_page(headers) => Err(Fault::ClientNotAllowed),
        Ok(anyone @ Proven { caller: Caller::Anyone, .. }) => Ok(anyone),
        Err(IdentifyError::NotLetIn(id)) => {
            log.record().client = worker.name_of(Caller::Client(id));
            Err(Fault::ClientNotAllowed)
        }
        Err(IdentifyError::Unknown) => Err(unidentified),
        // Wrong guesses are slowed; right credentials were accepted above, so no client is locked out by a neighbour's
        // guesses.
        Err(IdentifyError::Wrong) => match worker.shared.connection_limits.failed(conn.peer.address, now) {
            Ok(()) => Err(unidentified),
            Err(after) => Err(Fault::RateLimited(after)),
        },
    }
}

/// Returns the caller that opened a tunnel. Under a new config, and once the proof has ended, the same evidence has to
/// identify the caller again.
async fn opener(
    worker: &WorkerState,
    tunnel: &Tunnel,
    context: IdentifyContext<'_>,
    peer: &Peer,
) -> Result<Proven, IdentifyError> {
    let (serial, opener) = tunnel.opener.get();
    if serial == worker.shared.serial && opener.until.is_none_or(|until| !until.passed(context.now)) {
        return Ok(opener);
    }
    let opener = Box::pin(prove(IdentifyContext { as_proxy: true, ..context }, peer, &tunnel.claim)).await?;
    tunnel.opener.set((worker.shared.serial, opener));
    Ok(opener)
}

/// Returns whether a request comes from a web page. If callers are not identified, a page in a browser on this machine
/// must not be able to call.
pub(super) fn from_a_web_page(headers: &HeaderMap) -> bool {
    headers.contains_key(http::header::ORIGIN)
        || headers.get_all("sec-fetch-site").iter().any(|worker| worker != "none")
}

/// The values that a request is dressed with, besides its route.
pub(super) struct RequestDress<'a> {
    /// The `Host` field at the provider.
    pub host: &'a HeaderValue,
    pub lease: &'a Lease,
    pub vars: &'a Vars,
    /// True if a body follows the head.
    pub body: bool,
    /// The options that it requests for this hop.
    pub hop: HopOptions,
}

/// Strips what a client must not say, then puts on what the provider wants.
pub(super) fn dress(
    head: &mut Parts,
    route: &Route,
    with: RequestDress<'_>,
    ids: &mut dyn Ids,
) -> Result<SentIds, Fault> {
    headers::join_cookies(&mut head.headers);
    headers::strip_request_headers(&mut head.headers, &route.module, &route.consumed)
        .map_err(|_| Fault::Malformed("The Connection field names too much, or something that is no field."))?;
    if !route.provider.trace_context {
        head.headers.remove(TRACEPARENT);
        head.headers.remove(TRACESTATE);
    }
    with.hop.put_on(&mut head.headers);
    if !with.body && head.method != Method::GET && head.method != Method::HEAD {
        // Said aloud, since a missing length means something else to HTTP/1.1 providers.
        head.headers.entry(CONTENT_LENGTH).or_insert(HeaderValue::from_static("0"));
    }
    for (name, value) in &route.headers {
        head.headers.insert(name.clone(), value.clone());
    }
    if route.module.judges_bodies() {
        limit_codings(&mut head.headers);
    }
    head.headers.insert(HOST, with.host.clone());
    Ok(route.module.dress(&mut head.headers, with.lease, with.vars, ids))
}

/// The permit's path as a request target.
fn target(permit: Permit) -> Result<Uri, Fault> {
    let bytes = Bytes::from(permit.into_path_and_query());
    let target = PathAndQuery::from_maybe_shared(bytes).map_err(|_| Fault::Malformed("The path is not a path."))?;
    Ok(Uri::from(target))
}

/// The token of a user in whose name the caller may call.
fn users_token(worker: &WorkerState, route: &RouteState, caller: Caller, user: &str) -> Result<Arc<TokenSpec>, Fault> {
    let Caller::Client(id) = caller else { return Err(Fault::ClientNotAllowed) };
    let client = worker.shared.snapshot.clients.all.get(usize::from(id.0)).ok_or(Fault::Internal)?;
    let provider = &route.route.provider;
    let key = consent::user_key(client, provider, user)?;
    user_spec(provider, key, worker.shared.serial, &worker.shared.clock, &worker.shared.audit).ok_or(Fault::Internal)
}

/// A token that this worker did not hold yet.
struct Obtained {
    lease: Arc<Lease>,
    /// True if it was fetched for this request, rather than earlier for another worker's.
    fresh: bool,
    /// It is one of this route, as it was before a secret was changed.
    stand_in: Option<Rc<RouteState>>,
}

/// Requests a token from the keeper. If a secret was changed and there is no token of the new one yet, one of the old
/// secret is used meanwhile.
async fn obtain(
    worker: &Rc<WorkerState>,
    route: &Rc<RouteState>,
    spec: &Arc<TokenSpec>,
    vars: &Vars,
    cause: Option<Context>,
) -> Result<Obtained, Fault> {
    if let Some((before, lease)) = worker.inherited(route, vars, &spec.key).await {
        let (worker, route, spec) = (worker.clone(), route.clone(), spec.clone());
        tokio::task::spawn_local(async move {
            if let Ok(issued) = worker.shared.leases.need(spec).await {
                worker.remember(&issued);
                route.was_issued();
            }
        });
        return Ok(Obtained { lease, fresh: false, stand_in: Some(before) });
    }
    match worker.shared.leases.need_for(spec.clone(), cause).await {
        Ok(issued) => {
            worker.remember(&issued);
            route.was_issued();
            Ok(Obtained { lease: issued.lease, fresh: issued.fresh, stand_in: None })
        }
        Err(unavailable) => Err(Fault::from(&unavailable)),
    }
}

/// A profile that judges bodies must be able to read them.
fn limit_codings(headers: &mut HeaderMap) {
    let Some(wished) = headers.get(ACCEPT_ENCODING) else {
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        return;
    };
    let readable = ["gzip", "deflate", "identity"];
    let kept: Vec<&str> = wished
        .to_str()
        .unwrap_or("")
        .split(',')
        .map(str::trim)
        .filter(|coding| {
            let name = coding.split(';').next().unwrap_or("").trim();
            readable.iter().any(|known| name.eq_ignore_ascii_case(known))
        })
        .collect();
    let limited = if kept.is_empty() { "identity".to_owned() } else { kept.join(", ") };
    if let Ok(limited) = HeaderValue::try_from(limited) {
        headers.insert(ACCEPT_ENCODING, limited);
    }
}

/// The answer of a token endpoint that we play ourselves.
fn stub(worker: &WorkerState, route: usize, mut log: RequestLog) -> Response<ResponseBody> {
    let Some(route) = worker.route(route) else { return own_answer(Fault::Internal, log) };
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

/// Our own answer to a request.
pub(super) fn own_answer(fault: Fault, mut log: RequestLog) -> Response<ResponseBody> {
    let id = log.record().id;
    let (head, body) = fault.answer(id).into_parts();
    log.record().status = Some(head.status.as_u16());
    log.fail(fault);
    debug_assert!(head.headers.contains_key(CONTENT_TYPE), "an error document has a type");
    Response::from_parts(head, ResponseBody::own(body, log))
}

/// Answers a request with this fault before anything else is done with it.
pub(super) fn refuse<B>(
    worker: &Rc<WorkerState>,
    conn: &ConnectionContext,
    request: &Request<B>,
    fault: Fault,
) -> Response<ResponseBody> {
    own_answer(fault, RequestLog::begin(worker, conn.listener, opening(worker, conn, request)))
}

/// Builds the access record of a request from its head.
pub(super) fn opening<B>(worker: &WorkerState, conn: &ConnectionContext, request: &Request<B>) -> AccessRecord {
    AccessRecord {
        start: worker.now(),
        id: Uuid::new_v4(),
        trace: parent(request.headers()),
        listener: worker.listener(conn.listener).map_or_else(|| "".into(), |listener| listener.name.clone()),
        peer: conn.peer.address,
        client: None,
        method: request.method().clone(),
        path: request.uri().path().to_owned(),
        route: None,
        provider: None,
        provider_id: None,
        token: None,
        refused: None,
        status: None,
        error: None,
        tolerated: None,
        replay: Replay::None,
        upstream_ms: None,
        request_bytes: 0,
        response_bytes: 0,
        complete: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limited(wish: Option<&str>) -> String {
        let mut headers = HeaderMap::new();
        if let Some(wish) = wish {
            headers.insert(ACCEPT_ENCODING, wish.parse().unwrap());
        }
        limit_codings(&mut headers);
        headers[ACCEPT_ENCODING].to_str().unwrap().to_owned()
    }

    #[test]
    fn only_codings_that_we_can_read_are_asked_for() {
        assert_eq!(limited(Some("br, gzip;q=0.8, zstd, Deflate")), "gzip;q=0.8, Deflate");
        assert_eq!(limited(Some("br")), "identity");
        assert_eq!(limited(Some("*")), "identity");
        assert_eq!(limited(None), "identity");
    }

    #[test]
    fn requests_of_web_pages_are_recognised() {
        let with = |name: &str, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(http::HeaderName::try_from(name).unwrap(), value.parse().unwrap());
            from_a_web_page(&headers)
        };
        assert!(with("origin", "https://evil.example"));
        assert!(with("origin", "null"));
        assert!(with("sec-fetch-site", "cross-site"));
        assert!(!with("sec-fetch-site", "none"), "typed into the address bar");
        assert!(!with("accept", "*/*"));
    }
}
