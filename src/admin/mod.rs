//! The operator's interface: health, metrics, the API, the dashboard. Lives on the control thread; connections are
//! accepted on a thread of their own ([`admin_listener`]).
//!
//! A request passes these checks, in this order: the `Host` field ([`origin`]), the visitor's identity ([`auth`]), the
//! endpoint ([`table`]), the visitor's role, the site that a browser has the request from ([`origin`] again), the form
//! of a body. Then it is carried out ([`api`]).
//!
//! Its responses are view types of its own ([`view`]), made from fingerprints; no token is within its reach. Access is
//! decided by the config in force, request by request, so a reload takes effect at once. It must not know listeners'
//! traffic: its figures about requests are counters that other modules maintain.

mod admin_listener;
mod admin_response;
mod api;
mod auth;
mod consent;
pub mod dashboard;
mod event_subscriber;
mod log_level;
pub(crate) mod origin;
mod request_cause;
mod request_filter;
mod table;
pub(crate) mod view;
mod views;

use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use tokio::time::timeout;

pub use self::admin_listener::{AdminListener, serve};
use self::admin_response::{AdminResponse, last, later, other_method, problem, unauthorized};
use self::api::AdminRequest;
pub use self::auth::AdminAuthorizer;
use self::auth::{Visitor, authenticate};
pub use self::log_level::LogLevelSwitch;
pub use self::table::{ApiEndpoint, TABLE};
use self::table::{EndpointMatch, RequestBodyRule};
use crate::base::time::{Clock, Now};
use crate::config::{AdminListenerConfig, PublicEndpoints};
use crate::control::{ConsentHandle, Events, Reloads, TokenHandle};
use crate::observe::audit::Auditor;
use crate::observe::metrics::Metrics;
use crate::store::Store;

const MOST_BODY: usize = 16 * 1024;
/// A handshake, a request's head, and its body must each be there after so long.
const PATIENCE: Duration = Duration::from_secs(10);

/// The state that the admin listener shows, and the handles by which it changes it.
pub struct Admin {
    /// Handle to the token keeper, to list, refresh and purge tokens.
    pub leases: TokenHandle,
    /// All metrics of this process, for `/metrics`.
    pub metrics: Arc<Metrics>,
    /// Source of the current moment on both clocks.
    pub clock: Clock,
    /// True once the process is draining or a part of it has failed: `/readyz` then responds with 503.
    pub draining: Rc<Cell<bool>>,
    /// Handle to users' consents, to list, start and revoke them.
    pub consents: ConsentHandle,
    /// The configuration, and how reloads went.
    pub reloads: Reloads,
    /// The store of records, asked here for its kind and health.
    pub store: Store,
    /// The events of the process, which `/api/v1/events` streams.
    pub events: Events,
    /// The audit log in which operators' changes are recorded.
    pub audit: Auditor,
    /// The level of the log, which operators may change for a while.
    pub log_level: LogLevelSwitch,
    /// Bound address of each TCP listener, by the listener's name.
    pub addresses: Vec<(Arc<str>, SocketAddr)>,
    /// This process among its replicas.
    pub instance: Arc<str>,
    /// Moment at which the process started, on both clocks.
    pub started: Now,
    /// Memory of each peer's wrong tokens, and the count of open streams.
    pub authorizer: AdminAuthorizer,
    /// State of the dashboard, which serves pages for people.
    pub dashboard: dashboard::Dashboard,
}

/// The connection that a request came in on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AdminConnection {
    /// Local address at which the connection was accepted.
    pub own: SocketAddr,
    /// IP address of the peer, in canonical form.
    pub peer: IpAddr,
    pub tls: bool,
}

impl Admin {
    async fn answer(self: Rc<Self>, connection: AdminConnection, request: Request<Incoming>) -> AdminResponse {
        let (head, body) = request.into_parts();
        if !origin::names_us(connection.own, &head.headers) {
            return problem(StatusCode::MISDIRECTED_REQUEST, "the Host field must name this address or localhost");
        }
        let snapshot = self.reloads.current();
        let Some(admin_listener) = snapshot.admin.as_ref().filter(|admin_listener| is_safe(connection, admin_listener))
        else {
            let detail = "the config has no [admin] any more that could be opened at this address; restart to move it";
            return problem(StatusCode::FORBIDDEN, detail);
        };
        let visitor = match authenticate(admin_listener, &head.headers) {
            Ok(visitor) => visitor,
            Err(_) => return self.wrong_token(connection.peer),
        };
        if dashboard::is_ours(head.uri.path()) {
            drop(snapshot);
            return dashboard::answer(&self, connection, &visitor, &head, body).await;
        }
        let found = table::find(&head.method, head.uri.path());
        let (endpoint, key) = match found {
            EndpointMatch::Endpoint(endpoint, key) if is_open(admin_listener, connection, endpoint) => (endpoint, key),
            _ if visitor == Visitor::Anonymous => return unauthorized(false),
            EndpointMatch::Endpoint(endpoint, key) => (endpoint, key),
            EndpointMatch::Methods(methods) => return other_method(&methods),
            EndpointMatch::Nothing => {
                return problem(StatusCode::NOT_FOUND, "there is no such path; /api/v1/openapi.json has all");
            }
        };
        let open = is_open(admin_listener, connection, endpoint);
        drop(snapshot);
        if !open && !visitor.may(endpoint.role) {
            let detail = format!("the token of {} may only look; this takes `role = \"operate\"`", visitor.actor());
            return problem(StatusCode::FORBIDDEN, detail);
        }
        if origin::must_be_near(&head.method, &head.headers) && origin::is_foreign_origin(&head.headers, connection.tls)
        {
            return problem(StatusCode::FORBIDDEN, "a page of another site sends this; nothing was done");
        }
        let body = match read_body(endpoint.body, &head, body).await {
            Ok(body) => body,
            Err(refused) => return refused,
        };
        let admin_request = AdminRequest { visitor: &visitor, peer: connection.peer, head: &head, key, body };
        api::answer(&self, endpoint.call, admin_request).await
    }

    /// A wrong token: slower and slower, and told of.
    fn wrong_token(&self, peer: IpAddr) -> AdminResponse {
        match self.authorizer.note_failure(peer, self.clock.now()) {
            Ok(()) => {
                tracing::warn!(%peer, "wrong admin token");
                unauthorized(true)
            }
            Err(wait) => later(
                StatusCode::TOO_MANY_REQUESTS,
                "too many wrong tokens; a valid one is still accepted",
                wait.as_secs() + 1,
            ),
        }
    }
}

/// Returns whether the config in force may be served at the address that was bound at the start: it may have been
/// written for another one.
fn is_safe(connection: AdminConnection, admin_listener: &AdminListenerConfig) -> bool {
    is_local(connection.own) || (connection.tls && !admin_listener.tokens.is_empty())
}

fn is_local(own: SocketAddr) -> bool {
    own.ip().to_canonical().is_loopback()
}

/// Returns whether this endpoint needs no token. Probes on this machine need none.
fn is_open(admin_listener: &AdminListenerConfig, connection: AdminConnection, endpoint: &ApiEndpoint) -> bool {
    endpoint.public.is_some_and(|name| {
        admin_listener.open.contains(&name) || (is_local(connection.own) && name != PublicEndpoints::Metrics)
    })
}

/// The body of a request that takes one. A form cannot send it: the media type must be JSON wherever one is named.
async fn read_body(rule: RequestBodyRule, head: &http::request::Parts, body: Incoming) -> Result<Bytes, AdminResponse> {
    if rule == RequestBodyRule::Ignored {
        return Ok(Bytes::new());
    }
    let kind = head.headers.get(CONTENT_TYPE).map(|kind| kind.to_str().unwrap_or_default());
    let is_json = kind
        .map(|kind| kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json")));
    if is_json == Some(false) || (is_json.is_none() && rule == RequestBodyRule::Required) {
        return Err(problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, "send it as application/json"));
    }
    gather(body).await
}

/// Reads a request's body, within its bounds of size and time.
async fn gather(body: Incoming) -> Result<Bytes, AdminResponse> {
    match timeout(PATIENCE, Limited::new(body, MOST_BODY).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(_)) => Err(problem(StatusCode::PAYLOAD_TOO_LARGE, "16 KiB are the most")),
        Err(_) => Err(last(problem(StatusCode::REQUEST_TIMEOUT, "the body must be there within 10 seconds"))),
    }
}
