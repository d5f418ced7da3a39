//! Requests that a forward listener answers itself: a CONNECT, and its own page.
//!
//! A CONNECT to a destination with a route is accepted for any caller that the listener admits, and intercepted: a
//! refusal is sent inside TLS, where programs show it. Any other CONNECT is refused, or tunnelled blind behind the
//! guard. Programs discard the body of a refused CONNECT, so its reason phrase gives the reason.

use std::cell::Cell;
use std::rc::Rc;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, PROXY_AUTHORIZATION, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use hyper::ext::ReasonPhrase;

use crate::observe::metrics::{Limit, TunnelKind};
use crate::route::{Authority, Caller, ForwardTarget, Malformed};
use crate::serve::connections::connection_context::ConnectionContext;
use crate::serve::exchanges::response_body::{ResponseBody, Switch};
use crate::serve::exchanges::upgrade::{Splice, UpgradeCount, UpgradedConnection};
use crate::serve::fault::Fault;
use crate::serve::modes::{RoutingTarget, Tunnel};
use crate::serve::reports::own_response::{access_record, own_response};
use crate::serve::reports::request_log::RequestLog;
use crate::serve::requests::admit::clear;
use crate::serve::requests::caller::caller;
use crate::serve::worker_state::WorkerState;
use crate::upstream::{ReceivedBody, TunnelError, tunnel};

/// Answers a CONNECT. After a 200, the connection is what [`ResponseBody::take_switch`] says.
pub async fn answer(
    worker: Rc<WorkerState>,
    conn: Rc<ConnectionContext>,
    request: Request<ReceivedBody>,
) -> Response<ResponseBody> {
    let mut record = access_record(&worker, &conn, &request);
    // A target that is not an authority is not logged: it may hold a password.
    record.path = target(&request).map_or_else(|_| String::new(), |to| to.to_string());
    let mut log = RequestLog::begin(&worker, conn.listener, record);
    match open(&worker, &conn, &request, &mut log).await {
        Ok(ConnectGrant::Blind(line, listener)) => {
            worker.shared.metrics.tunnelled(listener, TunnelKind::Blind);
            log.record().status = Some(200);
            let limits = &worker.shared.snapshot.limits;
            let open = UpgradeCount::new(worker.shared.metrics.tunnels(listener));
            let (idle, lifetime, clock) = (limits.tunnel_idle, limits.tunnel_lifetime, log.clock());
            accept(Switch::Splice(Box::new(Splice { provider: line, log, idle, lifetime, clock, open })))
        }
        Ok(ConnectGrant::Intercepted(tunnel, listener)) => {
            worker.shared.metrics.tunnelled(listener, TunnelKind::Intercepted);
            log.record().status = Some(200);
            log.record().complete = true;
            accept(Switch::Tunnel(Box::new(tunnel)))
        }
        Err(fault) => {
            let listener = worker.listener(conn.listener).map_or("", |listener| &listener.name);
            worker.shared.metrics.tunnelled(listener, TunnelKind::Refused);
            refuse(fault, log)
        }
    }
}

/// Answers a request in origin form, which is for the proxy itself. The caller is not identified.
pub fn page(
    worker: &Rc<WorkerState>,
    conn: &ConnectionContext,
    request: Request<ReceivedBody>,
) -> Response<ResponseBody> {
    let mut log = RequestLog::begin(worker, conn.listener, access_record(worker, conn, &request));
    let (asked, _) = request.into_parts();
    if let Err(fault) = clear(RoutingTarget::Page, &worker.shared.snapshot.limits, &asked) {
        return own_response(fault, log);
    }
    let Some(Some(page)) = worker.shared.pages.get(conn.listener) else { return own_response(Fault::Internal, log) };
    let (head, body) = page.answer(&asked.method, asked.uri.path()).into_parts();
    log.record().status = Some(head.status.as_u16());
    Response::from_parts(head, ResponseBody::own(body, log))
}

/// The result of an accepted CONNECT, with the listener's name.
enum ConnectGrant<'a> {
    /// A line to the place that it named, by the listener of this name.
    Blind(UpgradedConnection, &'a str),
    /// A tunnel to us in that place's stead, by the listener of this name.
    Intercepted(Tunnel, &'a str),
}

async fn open<'a>(
    worker: &'a WorkerState,
    conn: &ConnectionContext,
    request: &Request<ReceivedBody>,
    log: &mut RequestLog,
) -> Result<ConnectGrant<'a>, Fault> {
    let listener = worker.listener(conn.listener).ok_or(Fault::Misdirected)?;
    let forward = listener.forward().ok_or(Fault::Internal)?;
    let opener = caller(worker, conn, request.headers(), log).await?;
    let to = named(request)?;
    if forward.table.intercepts(&to) {
        let claim = claim(request.headers());
        return Ok(ConnectGrant::Intercepted(
            Tunnel { opener: Cell::new((worker.shared.serial, opener)), claim, to },
            &listener.name,
        ));
    }
    if !forward.tunnels {
        return Err(Fault::DestinationUnrouted);
    }
    // A client may name hosts whose names take long to resolve, or that never answer.
    let opening = worker.shared.connection_limits.open_tunnel(conn.peer.address, worker.now());
    let Some(_opening) = opening else {
        worker.shared.metrics.limited(Limit::Tunnels);
        return Err(Fault::Overloaded);
    };
    let line = blind(worker, opener.caller, &to).await?;
    Ok(ConnectGrant::Blind(line, &listener.name))
}

/// Returns the caller's `Proxy-Authorization` fields, marked as sensitive.
fn claim(headers: &HeaderMap) -> HeaderMap {
    let said = headers.get_all(PROXY_AUTHORIZATION).iter().cloned();
    said.map(|mut value| {
        value.set_sensitive(true);
        (PROXY_AUTHORIZATION, value)
    })
    .collect()
}

/// The one place that a CONNECT names. It has no body (RFC 9110 section 9.3.6), and a `Host` that agrees.
fn named(request: &Request<ReceivedBody>) -> Result<Authority, Fault> {
    let to = target(request)?;
    let headers = request.headers();
    let mut hosts = headers.get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(Fault::Malformed("There is more than one Host field."));
    }
    // Clients write the host with its port, or alone.
    let agrees = |host: &HeaderValue| {
        host.to_str().is_ok_and(|host| {
            ForwardTarget::Tunnel(&to).agrees(host) || host.eq_ignore_ascii_case(&to.host().to_string())
        })
    };
    if host.is_some_and(|host| !agrees(host)) {
        return Err(Fault::Malformed("The Host field and the request target name different hosts."));
    }
    let has_body = headers.contains_key(TRANSFER_ENCODING)
        || headers.get_all(CONTENT_LENGTH).iter().any(|length| length.as_bytes() != b"0");
    if has_body {
        return Err(Fault::Malformed("A CONNECT has no body."));
    }
    Ok(to)
}

/// The target of a CONNECT (RFC 9112 section 3.2.3).
fn target(request: &Request<ReceivedBody>) -> Result<Authority, Fault> {
    let uri = request.uri();
    if uri.scheme().is_some() || uri.path_and_query().is_some() {
        return Err(Fault::Malformed("The target of a CONNECT is a host and a port, and nothing else."));
    }
    let target = uri.authority().map_or("", http::uri::Authority::as_str);
    Authority::connect(target.as_bytes()).map_err(|Malformed(why)| Fault::Malformed(why))
}

/// A line to a place without a route, if the guard lets it.
async fn blind(worker: &WorkerState, caller: Caller, to: &Authority) -> Result<UpgradedConnection, Fault> {
    let connected = tunnel(to, &worker.shared.guard, worker.now()).await;
    let stream = connected.map_err(|error| {
        tracing::warn!(%to, client = worker.name_of(caller).as_deref(), %error, "no tunnel");
        match error {
            TunnelError::Barred(_) => Fault::DestinationForbidden,
            TunnelError::Dial(error) => Fault::from(&error),
        }
    })?;
    Ok(UpgradedConnection::new(stream))
}

fn accept(switch: Switch) -> Response<ResponseBody> {
    Response::new(ResponseBody::switch(switch))
}

fn refuse(fault: Fault, mut log: RequestLog) -> Response<ResponseBody> {
    let row = fault.row();
    let id = log.record().id;
    let canonical = row.status.canonical_reason().unwrap_or_default();
    let reason = Bytes::from(format!("{canonical} - {}: {} (request {id})", row.name, row.title));
    let mut response = own_response(fault, log);
    if let Ok(reason) = ReasonPhrase::try_from(reason) {
        response.extensions_mut().insert(reason);
    }
    // With the right credentials the same connection may ask again; after anything else it is of no use.
    if response.status() != StatusCode::PROXY_AUTHENTICATION_REQUIRED {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
