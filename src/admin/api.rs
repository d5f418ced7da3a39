//! The actions behind the paths of the endpoint table.

use std::net::IpAddr;
use std::rc::Rc;

use bytes::Bytes;
use http::StatusCode;
use http::request::Parts;
use serde::Serialize;

use super::admin_response::{AdminResponse, json, later, problem, text, typed};
use super::auth::Visitor;
use super::dashboard::Query;
use super::request_cause::UNKNOWN_REQUEST;
use super::request_filter::{FilterPart, RequestFilter};
use super::table::AdminCall;
use super::view::{Purged, ReloadView, TokenView, TokensView};
use super::{Admin, consent, event_subscriber, log_level};
use crate::config::Role;
use crate::control::{LedgerLine, ReloadOutcome, TokenPageQuery, TokenSearch};
use crate::observe::audit::AuditAction;
use crate::token::state::PhaseKind;

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const OPENAPI: &str = include_str!("../../docs/openapi.json");

/// One request that may be answered.
pub(super) struct AdminRequest<'a> {
    pub(super) visitor: &'a Visitor,
    pub(super) peer: IpAddr,
    pub(super) head: &'a Parts,
    /// The key or id in the path.
    pub(super) key: Option<&'a str>,
    /// The body; empty where none is taken.
    pub(super) body: Bytes,
}

/// Carries out the call and returns its response. The visitor's role has been checked before.
pub(super) async fn answer(admin: &Rc<Admin>, call: AdminCall, admin_request: AdminRequest<'_>) -> AdminResponse {
    match call {
        AdminCall::Config => shown(&admin.config()),
        AdminCall::ConsentRevoke => consent::revoke(admin, &admin_request).await,
        AdminCall::ConsentStart => consent::start(admin, &admin_request).await,
        AdminCall::Consents => shown(&admin.consents().await),
        AdminCall::Events => event_subscriber::begin(admin, &admin_request.head.headers),
        AdminCall::Livez => text(
            StatusCode::OK,
            if is_verbose(&admin_request) { "[+]process alive\nlivez check passed\n" } else { "ok\n" },
        ),
        AdminCall::LogLevel => shown(&admin.log_level()),
        AdminCall::LogLevelRestore => log_level::restore(admin, &admin_request),
        AdminCall::LogLevelSet => log_level::set(admin, &admin_request),
        AdminCall::Metrics => metrics(admin).await,
        AdminCall::OpenApi => typed(StatusCode::OK, "application/json", OPENAPI),
        AdminCall::Providers => shown(&admin.providers().await),
        AdminCall::Purge => purge(admin, &admin_request).await,
        AdminCall::Readyz => ready(admin, &admin_request),
        AdminCall::Refresh => refresh(admin, &admin_request).await,
        AdminCall::Reload => reload(admin, &admin_request).await,
        AdminCall::Request => request(admin, &admin_request).await,
        AdminCall::Requests => requests(admin, &admin_request),
        AdminCall::Routes => shown(&admin.routes()),
        AdminCall::Status => shown(&admin.status().await),
        AdminCall::Tokens => tokens(admin, &admin_request).await,
    }
}

fn shown(view: &impl Serialize) -> AdminResponse {
    json(StatusCode::OK, view)
}

/// Returns whether the response should list each check, as Kubernetes requests it with `verbose`.
fn is_verbose(admin_request: &AdminRequest<'_>) -> bool {
    let query = admin_request.head.uri.query().unwrap_or_default();
    query.split('&').any(|key| key == "verbose" || key.starts_with("verbose="))
}

fn ready(admin: &Admin, admin_request: &AdminRequest<'_>) -> AdminResponse {
    let draining = admin.draining.get();
    let status = if draining { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    if !is_verbose(admin_request) {
        return text(status, if draining { "draining\n" } else { "ok\n" });
    }
    let drain = if draining { "[-]drain under way" } else { "[+]drain not begun" };
    let verdict = if draining { "readyz check failed" } else { "readyz check passed" };
    // The digest of the config is shown only to visitors with the role `Role::Read`.
    let digest = if admin_request.visitor.may(Role::Read) {
        format!(" {}", admin.reloads.current().digest)
    } else {
        String::new()
    };
    text(status, format!("[+]config{digest} loaded\n[+]listeners bound\n{drain}\n{verdict}\n"))
}

/// The longest list of requests, and the usual one.
const MOST_REQUESTS: usize = 1000;
const USUAL_REQUESTS: usize = 100;

/// The longest page of tokens, the usual one, and the greatest number of a page.
const MOST_TOKENS: usize = 1000;
const USUAL_TOKENS: usize = 100;
const MOST_PAGES: usize = 1_000_000;

/// Some of the last requests, the newest first: those that fit the query.
fn requests(admin: &Admin, admin_request: &AdminRequest<'_>) -> AdminResponse {
    let query = Query::parse(admin_request.head.uri.query().unwrap_or_default());
    let known = |name: &str| name == "limit" || FilterPart::ALL.iter().any(|part| part.name() == name);
    if !query.names().all(known) {
        let names: Vec<&str> = FilterPart::ALL.iter().map(|part| part.name()).collect();
        return problem(StatusCode::BAD_REQUEST, format!("the parameters are limit, {}", names.join(", ")));
    }
    let limit = match query.word("limit") {
        "" => Some(USUAL_REQUESTS),
        limit => limit.parse().ok().filter(|limit| (1..=MOST_REQUESTS).contains(limit)),
    };
    let Some(limit) = limit else {
        return problem(StatusCode::BAD_REQUEST, "`limit` takes a whole number from 1 to 1000");
    };
    match RequestFilter::parse(&query, admin.clock.now()) {
        Ok(filter) => shown(&admin.requests(&filter, limit)),
        Err(error) => problem(StatusCode::BAD_REQUEST, error.to_string()),
    }
}

/// Every token by provider and key; or, if the query asks for some, a page of them in the order of the dashboard.
async fn tokens(admin: &Admin, admin_request: &AdminRequest<'_>) -> AdminResponse {
    let query = Query::parse(admin_request.head.uri.query().unwrap_or_default());
    if !query.names().all(|name| matches!(name, "limit" | "page" | "q")) {
        return problem(StatusCode::BAD_REQUEST, "the parameters are limit, page, q");
    }
    let number = |name: &str, usual: usize, most: usize| match query.word(name) {
        "" => Some(usual),
        text => text.parse().ok().filter(|number| (1..=most).contains(number)),
    };
    let Some(size) = number("limit", USUAL_TOKENS, MOST_TOKENS) else {
        return problem(StatusCode::BAD_REQUEST, "`limit` takes a whole number from 1 to 1000");
    };
    let Some(number) = number("page", 1, MOST_PAGES) else {
        return problem(StatusCode::BAD_REQUEST, "`page` takes a whole number from 1 to 1000000");
    };
    if query.names().next().is_none() {
        return shown(&admin.tokens().await);
    }
    let search = TokenSearch::parse(query.word("q"), PhaseKind::as_str);
    let page = admin.leases.page(TokenPageQuery { search, number, size }).await;
    // Here a page beyond the last is empty: who reads page after page is done then.
    let rows = if page.number == number { &*page.rows } else { &[] };
    let now = admin.clock.now();
    let tokens = rows.iter().map(|(line, _)| TokenView::of(line, now)).collect();
    shown(&TokensView { tokens, matching: page.found, total: page.all })
}

/// One of the last requests, with the cause of its failure.
async fn request(admin: &Admin, admin_request: &AdminRequest<'_>) -> AdminResponse {
    match admin.request(admin_request.key.unwrap_or_default()).await {
        Some(view) => shown(&view),
        None => problem(StatusCode::NOT_FOUND, UNKNOWN_REQUEST),
    }
}

async fn metrics(admin: &Admin) -> AdminResponse {
    let summary = admin.leases.summary().await;
    for provider in &admin.reloads.current().providers {
        let (live, first) = summary.get(&provider.name).map_or((0, None), |tokens| (tokens.live, tokens.first_expiry));
        let live = i64::try_from(live).unwrap_or(i64::MAX);
        let first = first.map(|at| i64::try_from(at / 1000).unwrap_or(i64::MAX));
        admin.metrics.tokens(&provider.name, live, first);
    }
    typed(StatusCode::OK, OPENMETRICS, admin.metrics.encode())
}

/// Fetches a new token in the background. Answers the token as it is now.
async fn refresh(admin: &Admin, admin_request: &AdminRequest<'_>) -> AdminResponse {
    let Some(LedgerLine { key, .. }) = admin.leases.line(admin_request.key.unwrap_or_default()).await else {
        return unknown_key();
    };
    // It is fetched with credentials.
    if !admin.audit.ready() {
        return later(StatusCode::SERVICE_UNAVAILABLE, "the audit log cannot be written; the log says why", 1);
    }
    if !admin.leases.refresh(key).await {
        return unknown_key();
    }
    record(admin, admin_request, "token.refresh", &key.to_string());
    admin_request.done("token refresh", &key.to_string());
    let line = admin.leases.line(&key.to_string()).await;
    line.map_or_else(unknown_key, |line| json(StatusCode::ACCEPTED, &TokenView::of(&line, admin.clock.now())))
}

/// Forgets a token, and its failures.
async fn purge(admin: &Admin, admin_request: &AdminRequest<'_>) -> AdminResponse {
    let Some(LedgerLine { key, .. }) = admin.leases.line(admin_request.key.unwrap_or_default()).await else {
        return unknown_key();
    };
    if !admin.leases.purge(key).await {
        return unknown_key();
    }
    record(admin, admin_request, "token.purge", &key.to_string());
    admin_request.done("token purge", &key.to_string());
    shown(&Purged { key: key.to_string(), purged: true })
}

/// Tells the audit log what was done to a token. Consents and reloads are recorded by those who do them.
fn record(admin: &Admin, admin_request: &AdminRequest<'_>, what: &'static str, key: &str) {
    let (actor, target) = (admin_request.visitor.actor(), [("token_key", key)]);
    admin.audit.note(&AuditAction { actor: &actor, what, target: &target, outcome: "ok" });
}

fn unknown_key() -> AdminResponse {
    problem(StatusCode::NOT_FOUND, "there is no such token; GET /api/v1/tokens shows the keys that there are")
}

/// Reloads the config. The response is 422 if the config was refused, and 503 if the instance is ending.
async fn reload(admin: &Admin, admin_request: &AdminRequest<'_>) -> AdminResponse {
    let Some(reloaded) = admin.reloads.reload(&admin_request.visitor.actor()).await else {
        return later(StatusCode::SERVICE_UNAVAILABLE, "this instance does not reload now: it is ending", 1);
    };
    admin_request.done("reload", if reloaded.outcome.is_applied() { "applied" } else { "refused" });
    match &reloaded.outcome {
        ReloadOutcome::Applied(_) => shown(&ReloadView::of(&reloaded)),
        ReloadOutcome::Refused(why) => problem(StatusCode::UNPROCESSABLE_ENTITY, &**why),
    }
}

impl AdminRequest<'_> {
    /// Everything that an operator changes passes here once it is done: who did what, to what. Never a secret.
    pub(super) fn done(&self, action: &'static str, subject: &str) {
        tracing::info!(by = self.visitor.actor(), peer = %self.peer, action, subject, "operator action");
    }
}
