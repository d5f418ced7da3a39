//! The actions of the pages' forms. Each responds with the page that the browser shows next, or with a redirect to it.

use std::rc::Rc;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderValue, StatusCode};
use hyper::body::Incoming;

use super::super::api::{self, AdminRequest};
use super::super::auth::find;
use super::super::consent;
use super::super::gather;
use super::super::log_level as level;
use super::super::table::AdminCall;
use super::format::{millis_of, query};
use super::page::Query;
use super::session::SessionVisitor;
use super::{Admin, AdminConnection};
use super::{LOGIN, MOST_STARTED, StartedHere, login, notice, see_other, see_other_with};
use crate::admin::admin_response::{AdminResponse, problem};
use crate::observe::audit::AuditAction;

/// Does what a form asks.
pub(super) async fn act(
    admin: &Rc<Admin>,
    connection: AdminConnection,
    session: Option<SessionVisitor>,
    head: &Parts,
    body: Incoming,
) -> AdminResponse {
    let kind = head.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if kind.split(';').next().is_none_or(|kind| kind.trim() != "application/x-www-form-urlencoded") {
        return problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, "this is for the dashboard's forms; programs use /api/v1/");
    }
    let body = match gather(body).await {
        Ok(body) => body,
        Err(refused) => return refused,
    };
    let form = Query::parse_bytes(&body);
    let path = head.uri.path();
    if path == LOGIN {
        return log_in(admin, connection, &form);
    }
    let Some(session) = session else { return see_other(LOGIN) };
    if !session.is_csrf_token(form.word("csrf")) {
        let text = "It came from a page that is too old, or not from here. Nothing was done: load the page anew and try again.";
        return notice(admin, &session, StatusCode::FORBIDDEN, "This form is not known", text);
    }
    if path == "/ui/logout" {
        return see_other_with(LOGIN, admin.dashboard.sessions.log_out(&head.headers, connection.tls));
    }
    if !session.may_operate() {
        let text = "Your token may only look. This takes one with role = \"operate\".";
        return notice(admin, &session, StatusCode::FORBIDDEN, "You may not do this", text);
    }
    let admin_request =
        AdminRequest { visitor: &session.visitor, peer: connection.peer, head, key: None, body: Bytes::new() };
    match path {
        "/ui/tokens/refresh" => token(admin, &session, admin_request, &form, AdminCall::Refresh).await,
        "/ui/tokens/purge" => token(admin, &session, admin_request, &form, AdminCall::Purge).await,
        "/ui/reload" => {
            // The page shows what came of it.
            let reloaded = api::answer(admin, AdminCall::Reload, admin_request).await;
            see_other(if reloaded.status() == StatusCode::SERVICE_UNAVAILABLE {
                "/?done=ending"
            } else {
                "/?done=reload"
            })
        }
        "/ui/log-level" => log_level(admin, &session, admin_request, &form),
        "/ui/consents/start" => start(admin, &session, admin_request, &form).await,
        "/ui/consents/revoke" => revoke(admin, &session, &admin_request, &form).await,
        _ => notice(admin, &session, StatusCode::NOT_FOUND, "There is no such page", ""),
    }
}

fn log_in(admin: &Admin, connection: AdminConnection, form: &Query) -> AdminResponse {
    let snapshot = admin.reloads.current();
    let Some(admin_listener) = snapshot.admin.as_ref() else { return see_other(LOGIN) };
    if admin_listener.tokens.is_empty() {
        return see_other("/");
    }
    let now = admin.clock.now();
    match find(admin_listener, form.word("token").trim().as_bytes()) {
        Some(token) => {
            let actor = format!("admin:{}", token.name);
            let target = [("peer", connection.peer.to_string())];
            let target = target.each_ref().map(|(name, value)| (*name, value.as_str()));
            admin.audit.note(&AuditAction { actor: &actor, what: "login", target: &target, outcome: "ok" });
            tracing::info!(by = %token.name, peer = %connection.peer, action = "login", "operator logged in to the dashboard");
            see_other_with("/", admin.dashboard.sessions.log_in(token, connection.tls, now))
        }
        None => match admin.authorizer.note_failure(connection.peer, now) {
            Ok(()) => {
                tracing::warn!(peer = %connection.peer, "wrong admin token");
                login(admin, StatusCode::UNAUTHORIZED, "This is not the value of any [admin.token].")
            }
            Err(wait) => {
                let mut answer =
                    login(admin, StatusCode::TOO_MANY_REQUESTS, "Too many wrong tokens. Try again in a moment.");
                answer.headers_mut().insert("retry-after", HeaderValue::from(wait.as_secs() + 1));
                answer
            }
        },
    }
}

async fn token(
    admin: &Rc<Admin>,
    session: &SessionVisitor,
    admin_request: AdminRequest<'_>,
    form: &Query,
    ask: AdminCall,
) -> AdminResponse {
    let key = form.word("key");
    let done = api::answer(admin, ask, AdminRequest { key: Some(key), ..admin_request }).await;
    if !done.status().is_success() {
        let text = "It may have been forgotten meanwhile.";
        return notice(admin, session, StatusCode::NOT_FOUND, "There is no such token", text);
    }
    // A known key is hexadecimal.
    let word = if ask == AdminCall::Refresh { "refresh" } else { "purge" };
    // Back to the page of the table that the form stood on.
    let (page, searched) = (form.word("p").parse::<usize>().unwrap_or(1), query(form.word("q")));
    see_other(&format!("/ui/tokens?done={word}&p={page}&q={searched}#t-{key}"))
}

/// Sets the log level for a while, or goes back to the config's.
fn log_level(
    admin: &Rc<Admin>,
    session: &SessionVisitor,
    admin_request: AdminRequest<'_>,
    form: &Query,
) -> AdminResponse {
    let (done, word) = if form.word("restore").is_empty() {
        let asked = serde_json::json!({ "level": form.word("level"), "for": form.word("for") });
        let admin_request = AdminRequest { body: asked.to_string().into(), ..admin_request };
        (level::begin(admin, &admin_request), "level")
    } else {
        (level::end(admin, &admin_request), "config-level")
    };
    match done {
        Ok(_) => see_other(&format!("/ui/config?done={word}")),
        Err((status, why)) => notice(admin, session, status, "The log level was not set", &why),
    }
}

async fn start(
    admin: &Rc<Admin>,
    session: &SessionVisitor,
    admin_request: AdminRequest<'_>,
    form: &Query,
) -> AdminResponse {
    let [provider, client, user] = ["provider", "client", "user"].map(|name| form.word(name).to_owned());
    let asked = serde_json::json!({ "provider": provider, "client": client, "user": user });
    let admin_request = AdminRequest { body: asked.to_string().into(), ..admin_request };
    match consent::begin(admin, &admin_request).await {
        Ok(started) => {
            let at = admin.clock.now().wall;
            let mut begun = admin.dashboard.begun.borrow_mut();
            let number = begun.back().map_or(1, |last| last.number + 1);
            if begun.len() >= MOST_STARTED {
                begun.pop_front();
            }
            let expires = millis_of(&started.expires_at).unwrap_or(at);
            begun.push_back(StartedHere { number, provider, client, user, url: started.consent_url, at, expires });
            see_other(&format!("/ui/consents?done=start#c-{number}"))
        }
        Err((status, why)) => notice(admin, session, status, "The consent was not started", &why),
    }
}

async fn revoke(
    admin: &Rc<Admin>,
    session: &SessionVisitor,
    admin_request: &AdminRequest<'_>,
    form: &Query,
) -> AdminResponse {
    let lines = admin.consents.list().await;
    let meant = lines.into_iter().find(|line| {
        let key = &line.key;
        *key.provider == *form.word("provider")
            && key.owner.kind() == form.word("owner_kind")
            && key.owner.name() == form.word("owner")
            && key.user.to_string() == form.word("user")
    });
    let Some(line) = meant else {
        return notice(
            admin,
            session,
            StatusCode::NOT_FOUND,
            "There is no such consent",
            "It may have been revoked meanwhile.",
        );
    };
    let subject = format!("{} for {}", line.key.provider, line.key.owner.name());
    match admin.consents.revoke(line.key, &admin_request.visitor.actor()).await {
        Ok(_) => {
            admin_request.done("consent revoke", &subject);
            see_other("/ui/consents?done=revoke")
        }
        Err(failure) => {
            notice(admin, session, StatusCode::SERVICE_UNAVAILABLE, "The consent was not revoked", &failure.inside)
        }
    }
}
