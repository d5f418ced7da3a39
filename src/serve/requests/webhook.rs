//! Webhooks: a provider calls us, its signature is verified, and only then an application gets the call.
//!
//! A webhook has one path of one listener, for which no client is identified: the signature is the only proof. The body is
//! read whole, within its limit, before anything is done with it. No token and no secret of ours is ever near it.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ALLOW, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, EXPECT, HOST, TRAILER};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use prometheus_client::metrics::counter::Counter;
use tokio::time::timeout;

use crate::base::time::Within;
use crate::config::{Application, Webhook};
use crate::observe::metrics::{Metrics, WebhookOutcome};
use crate::provider::{OpenFailure, OpenedMessage, SignedHead, SignedRequestHead};
use crate::serve::connections::connection_context::ConnectionContext;
use crate::serve::exchanges::kept::Kept;
use crate::serve::exchanges::open_response::DIGESTS;
use crate::serve::exchanges::response_body::ResponseBody;
use crate::serve::fault::Fault;
use crate::serve::reports::own_response::{access_record, own_response};
use crate::serve::reports::request_log::RequestLog;
use crate::serve::requests::admit::clear;
use crate::serve::requests::headers;
use crate::serve::worker_state::WorkerState;
use crate::upstream::{AskError, Clear, Destination, EgressPath, ReceivedBody};

/// The header field by which the application knows which webhook was verified. A sender's own one is taken off.
const VERIFIED: HeaderName = HeaderName::from_static("countersign-webhook");

/// The longest answer of an application, in bytes.
const MOST_ANSWER: usize = 1 << 20;

/// One webhook on one worker.
pub struct WebhookState {
    webhook: Arc<Webhook>,
    outcomes: [Counter; WebhookOutcome::ALL.len()],
}

impl WebhookState {
    /// Builds the state of a webhook, with its counters.
    pub fn new(webhook: &Arc<Webhook>, metrics: &Metrics) -> Self {
        let outcomes = WebhookOutcome::ALL.map(|outcome| metrics.webhooks(&webhook.name, outcome));
        Self { webhook: webhook.clone(), outcomes }
    }

    /// Returns whether it is received on this listener, at this path.
    pub fn is_at(&self, listener: &str, path: &str) -> bool {
        *self.webhook.path == *path && *self.webhook.listener == *listener
    }

    fn count(&self, outcome: WebhookOutcome) {
        let at = WebhookOutcome::ALL.iter().position(|known| *known == outcome);
        if let Some(counter) = at.and_then(|at| self.outcomes.get(at)) {
            counter.inc();
        }
    }
}

/// Answers a request to a webhook.
pub async fn answer(
    worker: Rc<WorkerState>,
    conn: Rc<ConnectionContext>,
    webhook: Rc<WebhookState>,
    request: Request<ReceivedBody>,
) -> Response<ResponseBody> {
    let mut log = RequestLog::begin(&worker, conn.listener, access_record(&worker, &conn, &request));
    log.record().route = Some(webhook.webhook.name.clone());
    log.record().provider = Some(webhook.webhook.provider.name.clone());
    match deliver(&worker, &conn, &webhook.webhook, request, &mut log).await {
        Ok(answer) => {
            let is_taken = !answer.status().is_client_error() && !answer.status().is_server_error();
            webhook.count(if is_taken { WebhookOutcome::Delivered } else { WebhookOutcome::Rejected });
            let (mut head, body) = answer.into_parts();
            headers::strip_response(&mut head.headers);
            head.headers.remove(TRAILER);
            head.headers.remove(CONTENT_LENGTH);
            if !matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
                head.headers.insert(CONTENT_LENGTH, body.len().into());
            }
            log.record().status = Some(head.status.as_u16());
            let mut response = Response::new(ResponseBody::own(body, log));
            (*response.status_mut(), *response.headers_mut()) = (head.status, head.headers);
            response
        }
        Err(fault) => {
            webhook.count(if fault == Fault::WebhookUndelivered {
                WebhookOutcome::Undelivered
            } else if fault == Fault::WebhookUnverified {
                WebhookOutcome::Unverified
            } else {
                WebhookOutcome::Refused
            });
            let mut response = own_response(fault, log);
            if fault == Fault::MethodRefused {
                let methods: Vec<&str> = webhook.webhook.methods.iter().map(http::Method::as_str).collect();
                if let Ok(allow) = HeaderValue::try_from(methods.join(", ")) {
                    response.headers_mut().insert(ALLOW, allow);
                }
            }
            // Its body may not have been read.
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            response
        }
    }
}

/// Verifies a call, and returns the application's answer to it.
async fn deliver(
    worker: &Rc<WorkerState>,
    conn: &ConnectionContext,
    webhook: &Webhook,
    request: Request<ReceivedBody>,
    log: &mut RequestLog,
) -> Result<Response<Bytes>, Fault> {
    let (head, body) = request.into_parts();
    let listener = worker.listener(conn.listener).ok_or(Fault::Misdirected)?;
    if listener.footing != conn.footing {
        // A client certificate may have become required since.
        return Err(Fault::Misdirected);
    }
    clear(conn.ground(listener)?, &worker.shared.snapshot.limits, &head)?;
    if !webhook.methods.contains(&head.method) {
        return Err(Fault::MethodRefused);
    }
    let mut kept = Kept::new(worker.budget());
    let reading = timeout(webhook.timeout, read(body, webhook.body_limit, &mut kept));
    reading.await.unwrap_or(Err(Fault::BodyTooSlow))?;
    log.record().request_bytes = kept.bytes();
    let opened = open(worker, webhook, &head, kept.concat()).await.map_err(|failure| {
        let record = log.record();
        let (request_id, peer) = (record.id, record.peer.map(tracing::field::display));
        tracing::warn!(
            webhook = %webhook.name, provider = %webhook.provider.name, %request_id, peer, "a webhook was refused: {failure}"
        );
        if matches!(failure, OpenFailure::Busy(_)) { Fault::Overloaded } else { Fault::WebhookUnverified }
    })?;
    let request = for_application(&webhook.application, &webhook.name, head, opened)?;
    match ask(&webhook.application, request, webhook, worker).await {
        // Nothing but HTTP is spoken with a bank here.
        Ok(answer) if answer.status() == StatusCode::SWITCHING_PROTOCOLS => Err(Fault::WebhookUndelivered),
        Ok(answer) => Ok(answer),
        Err(error) => {
            tracing::warn!(webhook = %webhook.name, %error, "the application did not take a webhook");
            Err(Fault::WebhookUndelivered)
        }
    }
}

/// Reads a body of at most so many bytes.
async fn read(mut body: ReceivedBody, most: usize, kept: &mut Kept) -> Result<(), Fault> {
    while let Some(frame) = body.frame().await {
        let broken = |_| Fault::Malformed("The request body ended early.");
        let Ok(piece) = frame.map_err(broken)?.into_data() else { continue };
        if kept.bytes().saturating_add(piece.len() as u64) > most as u64 {
            return Err(Fault::BodyTooLarge);
        }
        if !kept.keep(&piece) {
            return Err(Fault::Overloaded);
        }
    }
    Ok(())
}

async fn open(
    worker: &WorkerState,
    webhook: &Webhook,
    head: &Parts,
    body: Vec<u8>,
) -> Result<OpenedMessage, OpenFailure> {
    let Some(opener) = webhook.module.webhook() else { return Err(OpenFailure::Absent) };
    let authority = head.uri.authority().map(|authority| authority.as_str().to_owned());
    let host = || head.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default().to_owned();
    let signed = SignedRequestHead {
        method: head.method.clone(),
        authority: authority.unwrap_or_else(host),
        path_and_query: head.uri.path_and_query().map_or("", PathAndQuery::as_str).to_owned(),
        headers: head.headers.clone(),
    };
    opener.open(SignedHead::Request(signed), body, webhook.body_limit, worker.now(), Within(webhook.timeout)).await
}

/// Makes the application's request of a verified one: its own fields but for those of the hop, and the opened body.
fn for_application(
    application: &Application,
    webhook: &str,
    head: Parts,
    opened: OpenedMessage,
) -> Result<Request<Full<Bytes>>, Fault> {
    let malformed = Fault::Malformed("The Connection field makes no sense.");
    let mut headers: HeaderMap = head.headers;
    headers::strip_hop_by_hop(&mut headers).map_err(|_| malformed)?;
    for name in [EXPECT, HOST, TRAILER, VERIFIED, HeaderName::from_static("proxy-authorization")] {
        headers.remove(name);
    }
    let is_opened = matches!(opened, OpenedMessage::Opened(_));
    let (body, content_type) = opened.into_body();
    if is_opened {
        // They are of another text.
        for name in DIGESTS.iter().chain([&CONTENT_ENCODING, &ETAG]) {
            headers.remove(name);
        }
    }
    if let Some(content_type) = content_type {
        headers.insert(CONTENT_TYPE, content_type);
    }
    headers.insert(CONTENT_LENGTH, body.len().into());
    let value = |text: &str| HeaderValue::from_str(text).map_err(|_| Fault::Internal);
    headers.insert(HOST, value(&application.authority)?);
    headers.insert(VERIFIED, value(webhook)?);
    let queries = [application.query.as_deref(), head.uri.query()];
    let query = queries.into_iter().flatten().collect::<Vec<_>>().join("&");
    let mark = if query.is_empty() { "" } else { "?" };
    let target = format!("{}{mark}{query}", application.path);
    let mut request = Request::new(Full::new(Bytes::copy_from_slice(&body)));
    *request.method_mut() = head.method;
    *request.uri_mut() = target.parse().map_err(|_| Fault::Malformed("The query is not a query."))?;
    *request.headers_mut() = headers;
    Ok(request)
}

async fn ask(
    application: &Application,
    request: Request<Full<Bytes>>,
    webhook: &Webhook,
    worker: &WorkerState,
) -> Result<Response<Bytes>, AskError> {
    let (within, now, connect_timeout) = (Within(webhook.timeout), worker.now(), webhook.timeout);
    let Some(tls) = &application.tls else {
        let place = Clear { host: &application.host, port: application.port, connect_timeout };
        return place.ask(request, MOST_ANSWER, within, now).await;
    };
    let destination = Destination {
        host: application.host.clone(),
        port: application.port,
        tls: tls.clone(),
        server_name: application.server_name.clone(),
        path: EgressPath::default(),
        connect_timeout,
    };
    destination.ask(request, MOST_ANSWER, within, now).await
}
