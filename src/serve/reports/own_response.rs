//! Responses that countersign makes itself, and the access record that a request begins with.

use std::rc::Rc;
use std::time::Duration;

use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{Request, Response};
use uuid::Uuid;

use crate::observe::record::{AccessRecord, Replay};
use crate::observe::trace::parent;
use crate::observe::user_agent::UserAgent;
use crate::serve::connections::connection_context::ConnectionContext;
use crate::serve::exchanges::response_body::ResponseBody;
use crate::serve::fault::Fault;
use crate::serve::reports::request_log::RequestLog;
use crate::serve::worker_state::WorkerState;

/// Our own answer to a request.
pub(in crate::serve) fn own_response(fault: Fault, mut log: RequestLog) -> Response<ResponseBody> {
    let id = log.record().id;
    let (head, body) = fault.answer(id).into_parts();
    log.record().status = Some(head.status.as_u16());
    log.fail(fault);
    debug_assert!(head.headers.contains_key(CONTENT_TYPE), "an error document has a type");
    Response::from_parts(head, ResponseBody::own(body, log))
}

/// Answers a request with this fault before anything else is done with it.
pub(in crate::serve) fn refuse<B>(
    worker: &Rc<WorkerState>,
    conn: &ConnectionContext,
    request: &Request<B>,
    fault: Fault,
) -> Response<ResponseBody> {
    own_response(fault, RequestLog::begin(worker, conn.listener, access_record(worker, conn, request)))
}

/// Builds the access record of a request from its head.
pub(in crate::serve) fn access_record<B>(
    worker: &WorkerState,
    conn: &ConnectionContext,
    request: &Request<B>,
) -> AccessRecord {
    AccessRecord {
        start: worker.now(),
        id: Uuid::new_v4(),
        trace: parent(request.headers()),
        listener: worker.listener(conn.listener).map_or_else(|| "".into(), |listener| listener.name.clone()),
        peer: conn.peer.address,
        user_agent: request.headers().get(USER_AGENT).and_then(UserAgent::parse),
        tls: conn.tls_version,
        client: None,
        method: request.method().clone(),
        path: request.uri().path().to_owned(),
        route: None,
        provider: None,
        upstream: None,
        provider_id: None,
        token: None,
        refused: None,
        status: None,
        error: None,
        told: None,
        reason: None,
        cause: None,
        tolerated: None,
        replay: Replay::None,
        took: Duration::ZERO,
        upstream_took: None,
        request_bytes: 0,
        response_bytes: 0,
        complete: false,
    }
}
