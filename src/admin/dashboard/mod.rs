//! The dashboard: pages for people, at `/` and below `/ui/`.
//!
//! Pages are rendered here, whole, from the same views as the API's responses, and work without a script: links, and
//! forms that respond with a page. A script (`assets/dashboard.js`) adds the live updates: it listens to `/ui/live`,
//! which renders the middle of the page anew each second, and replaces the parts that differ. No script or style is
//! inline and none comes from elsewhere, so a strict Content-Security-Policy applies to every page.
//!
//! It must not know sockets or requests of banks; its figures about traffic come from
//! [`RequestStats`](crate::observe::stats::RequestStats). Lives on the control thread.

mod act;
mod assets;
mod chart;
mod draw;
mod format;
mod live;
mod page;
mod session;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;

use askama::Template;
use http::header::{CONTENT_SECURITY_POLICY, LOCATION, REFERRER_POLICY, SET_COOKIE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use hyper::body::Incoming;

use self::page::DashboardPage;
pub(super) use self::page::Query;
use self::session::{SessionStore, SessionVisitor};
use super::admin_response::{AdminResponse, other_method, problem, typed};
use super::auth::Visitor;
use super::request_cause::UNKNOWN_REQUEST;
use super::{Admin, AdminConnection, origin};
use crate::observe::stats::RequestStats;

const HTML: &str = "text/html; charset=utf-8";
const LOGIN: &str = "/ui/login";
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      frame-ancestors 'none'; form-action 'self'; base-uri 'none'";
/// Consents that were started here and are still shown.
const MOST_STARTED: usize = 20;

/// The state of the dashboard besides what the API shows: traffic statistics, sessions, and the consents that were
/// started here.
pub struct Dashboard {
    pub(super) request_stats: Rc<RefCell<RequestStats>>,
    sessions: SessionStore,
    begun: RefCell<VecDeque<StartedHere>>,
}

/// A consent that somebody started here.
#[derive(Clone, Debug)]
struct StartedHere {
    number: u64,
    provider: String,
    client: String,
    user: String,
    url: String,
    /// Moment of the start, in milliseconds since 1970; likewise `expires`.
    at: u64,
    expires: u64,
}

impl Dashboard {
    /// Builds a dashboard that shows these traffic statistics.
    pub fn new(request_stats: Rc<RefCell<RequestStats>>) -> Self {
        Self { request_stats, sessions: SessionStore::new(), begun: RefCell::default() }
    }
}

impl fmt::Debug for Dashboard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dashboard").field("sessions", &self.sessions).finish_non_exhaustive()
    }
}

/// The frame around the middle of every page.
#[derive(Template)]
#[template(path = "shell.html")]
struct PageFrame<'a> {
    title: &'a str,
    here: Option<DashboardPage>,
    live: &'a str,
    instance: &'a str,
    session: Option<&'a SessionVisitor>,
    named: &'a str,
    main: &'a str,
}

#[derive(Template)]
#[template(path = "login.html")]
struct Login<'a> {
    why: &'a str,
}

#[derive(Template)]
#[template(path = "notice.html")]
struct Notice<'a> {
    title: &'a str,
    text: &'a str,
}

/// Returns whether the dashboard serves this path.
pub(super) fn is_ours(path: &str) -> bool {
    path == "/" || path == "/favicon.ico" || path.starts_with("/ui/")
}

/// Answers one request. `visitor` is what the `Authorization` field says.
pub(super) async fn answer(
    admin: &Rc<Admin>,
    connection: AdminConnection,
    visitor: &Visitor,
    head: &Parts,
    body: Incoming,
) -> AdminResponse {
    let path = head.uri.path();
    if origin::must_be_near(&head.method, &head.headers) && origin::is_foreign_origin(&head.headers, connection.tls) {
        return problem(StatusCode::FORBIDDEN, "a page of another site sends this; nothing was done");
    }
    let session = identify(admin, visitor, &head.headers);
    if head.method == Method::POST {
        return act::act(admin, connection, session, head, body).await;
    }
    if head.method != Method::GET && head.method != Method::HEAD {
        return other_method("GET, HEAD");
    }
    if let Some(asset) = assets::answer(path, &head.headers) {
        return asset;
    }
    let query = Query::parse(head.uri.query().unwrap_or_default());
    match (DashboardPage::at(path), session) {
        (_, _) if path == "/favicon.ico" => see_other(assets::icon()),
        (_, None) if path == LOGIN => login(admin, StatusCode::OK, ""),
        (_, Some(_)) if path == LOGIN => see_other("/"),
        (_, None) if path == live::PLACE => problem(StatusCode::UNAUTHORIZED, "log in first"),
        (_, None) => see_other(LOGIN),
        (_, Some(_)) if path == live::PLACE => live::begin(admin, visitor, head, query),
        (Some(page), Some(session)) => show(admin, page, &session, &query).await,
        (None, Some(session)) => match (path.strip_prefix("/ui/requests/"), path.strip_prefix("/ui/runbooks/")) {
            (Some(id), _) => show_request(admin, id, &session, &query).await,
            (None, Some(name)) => show_runbook(admin, name, &session, &query),
            (None, None) => notice(admin, &session, StatusCode::NOT_FOUND, "There is no such page", ""),
        },
    }
}

fn identify(admin: &Admin, visitor: &Visitor, headers: &HeaderMap) -> Option<SessionVisitor> {
    let snapshot = admin.reloads.current();
    admin.dashboard.sessions.identify(snapshot.admin.as_ref()?, visitor, headers, admin.clock.now())
}

/// Renders a whole page, with the address of its live stream.
async fn show(admin: &Admin, page: DashboardPage, session: &SessionVisitor, query: &Query) -> AdminResponse {
    let main = page.middle(admin, session, query).await;
    let live = query.live(page);
    shell(admin, StatusCode::OK, page.title(), Some(page), &live, Some(session), &main)
}

/// Renders the page of one request, which stands still: the request is over.
async fn show_request(admin: &Admin, id: &str, session: &SessionVisitor, query: &Query) -> AdminResponse {
    match page::request(admin, id, query).await {
        Some(main) => shell(admin, StatusCode::OK, "Request", Some(DashboardPage::Requests), "", Some(session), &main),
        None => notice(admin, session, StatusCode::NOT_FOUND, "This request is not kept here", UNKNOWN_REQUEST),
    }
}

/// Renders a page of the manual.
fn show_runbook(admin: &Admin, name: &str, session: &SessionVisitor, query: &Query) -> AdminResponse {
    match page::runbook(admin, name, query) {
        Some(main) => shell(admin, StatusCode::OK, "Runbook", None, "", Some(session), &main),
        None => notice(admin, session, StatusCode::NOT_FOUND, "There is no such runbook", ""),
    }
}

/// A page that says one thing.
fn notice(admin: &Admin, session: &SessionVisitor, status: StatusCode, title: &str, text: &str) -> AdminResponse {
    shell(admin, status, title, None, "", Some(session), &rendered(&Notice { title, text }))
}

fn login(admin: &Admin, status: StatusCode, why: &str) -> AdminResponse {
    shell(admin, status, "Log in", None, "", None, &rendered(&Login { why }))
}

fn shell(
    admin: &Admin,
    status: StatusCode,
    title: &str,
    here: Option<DashboardPage>,
    live: &str,
    session: Option<&SessionVisitor>,
    main: &str,
) -> AdminResponse {
    let named = match session.map(|session| &session.visitor) {
        Some(Visitor::Known { name, .. }) => &**name,
        Some(Visitor::Unrestricted | Visitor::Anonymous) | None => "",
    };
    let page = rendered(&PageFrame { title, here, live, instance: &admin.instance, session, named, main });
    let mut answer = typed(status, HTML, page);
    let headers = answer.headers_mut();
    for (name, value) in [
        (CONTENT_SECURITY_POLICY, POLICY),
        // Not `no-referrer`: with that, browsers send forms with `Origin: null`.
        (REFERRER_POLICY, "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=()"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    answer
}

/// Redirects the browser to `place` with status 303.
fn see_other(place: &str) -> AdminResponse {
    let mut answer = typed(StatusCode::SEE_OTHER, "text/plain; charset=utf-8", "");
    if let Ok(place) = HeaderValue::from_str(place) {
        answer.headers_mut().insert(LOCATION, place);
    }
    answer
}

/// The same, with a cookie.
fn see_other_with(place: &str, cookie: Option<HeaderValue>) -> AdminResponse {
    let mut answer = see_other(place);
    if let Some(cookie) = cookie {
        answer.headers_mut().insert(SET_COOKIE, cookie);
    }
    answer
}

/// A template as text. Writing to a string does not fail, and the templates call nothing that does.
fn rendered(template: &impl Template) -> String {
    template.render().unwrap_or_else(|error| format!("this page cannot be made: {error}"))
}
