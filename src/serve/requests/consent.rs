//! The endpoints of users' consents: an application starts one or posts a code, and browsers return from the provider.
//!
//! `POST /.countersign/consent/PROVIDER/start` and `…/code` are served on reverse listeners, for identified clients.
//! `GET /.countersign/consent/PROVIDER/callback` is served on callback listeners, for unidentified browsers: the state
//! that they bring is their only proof. The steps that follow are done by the control thread.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::base::time::rfc3339;
use crate::config::{ClientConfig, ConsentSettings, ProviderConfig};
use crate::control::{CodeSource, Finished, StartConsent, Unavailable};
use crate::provider::CompiledConsent;
use crate::route::Caller;
use crate::serve::connections::connection_context::ConnectionContext;
use crate::serve::exchanges::response_body::ResponseBody;
use crate::serve::fault::{Fault, Refusal, RefusalCause};
use crate::serve::reports::own_response::{access_record, own_response};
use crate::serve::reports::request_log::RequestLog;
use crate::serve::requests::admit::clear;
use crate::serve::requests::caller::caller;
use crate::serve::worker_state::WorkerState;
use crate::token::consent::{NotExchanged, ReturnRule, UserKey, UserName};
use crate::token::failure::Failure;
use crate::upstream::ReceivedBody;

const CONSENT: &str = "/.countersign/consent/";
/// The name of a code exchange in traces.
const EXCHANGE: &str = "consent exchange";
/// More of a request's body is not read.
const MOST_BODY: usize = 16 * 1024;

/// An operation that an application may request.
#[derive(Clone, Copy, Eq, PartialEq)]
enum ConsentAction {
    Code,
    Start,
}

/// The body of a request.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConsentRequestBody<'a> {
    user: String,
    #[serde(default)]
    return_to: Option<String>,
    #[serde(default)]
    state: Option<String>,
    /// Points into the body, which is wiped.
    #[serde(borrow, default)]
    code: Option<Cow<'a, str>>,
    /// The issuer that came with the code (RFC 9207).
    #[serde(default)]
    iss: Option<String>,
}

/// Answers a request to a reverse listener for one of countersign's own endpoints.
pub async fn answer(
    worker: Rc<WorkerState>,
    conn: Rc<ConnectionContext>,
    request: Request<ReceivedBody>,
) -> Response<ResponseBody> {
    let mut log = RequestLog::begin(&worker, conn.listener, access_record(&worker, &conn, &request));
    match serve(&worker, &conn, request, &mut log).await {
        Ok(body) => {
            log.record().status = Some(200);
            let mut response = Response::new(ResponseBody::own(Bytes::from(body.to_string()), log));
            let headers = response.headers_mut();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            response
        }
        Err(fault) => {
            let mut response = own_response(fault, log);
            if fault == Fault::MethodRefused {
                response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
            }
            // Its body may not have been read.
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            response
        }
    }
}

async fn serve(
    worker: &Rc<WorkerState>,
    conn: &ConnectionContext,
    request: Request<ReceivedBody>,
    log: &mut RequestLog,
) -> Result<serde_json::Value, Fault> {
    let (head, body) = request.into_parts();
    let caller = caller(worker, conn, &head.headers, log).await?.caller;
    let listener = worker.listener(conn.listener).ok_or(Fault::Internal)?;
    clear(conn.ground(listener)?, &worker.shared.snapshot.limits, &head)?;
    let path = head.uri.path();
    let (name, wish) = match path.strip_prefix(CONSENT).and_then(|rest| rest.split_once('/')) {
        Some((name, "start")) => (name, ConsentAction::Start),
        Some((name, "code")) => (name, ConsentAction::Code),
        Some((_, _)) | None => return Err(Fault::RouteNotFound),
    };
    if head.method != Method::POST {
        return Err(Fault::MethodRefused);
    }
    let (provider, consents, consent) = known(worker, name).ok_or(Fault::RouteNotFound)?;
    if !consents.opens.admits(caller) {
        return Err(Fault::ClientNotAllowed(Refusal::of(RefusalCause::Provider)));
    }
    let Caller::Client(id) = caller else {
        return Err(Fault::ClientNotAllowed(Refusal::of(RefusalCause::Provider)));
    };
    let client = worker.shared.snapshot.clients.all.get(usize::from(id.0)).ok_or(Fault::Internal)?;
    let body = Limited::new(body, MOST_BODY).collect().await;
    let body = Zeroizing::new(
        body.map_err(|_| Fault::Malformed("The body is too large, or ended early."))?.to_bytes().to_vec(),
    );
    let asked: ConsentRequestBody<'_> = serde_json::from_slice(&body)
        .map_err(|_| Fault::Malformed("The body is not the JSON object that is wanted; see docs/consent.md."))?;
    let key = user_key(client, provider, &asked.user)?;
    // Both ask the provider something with our credentials.
    if !worker.shared.audit.ready() {
        return Err(Fault::Unaudited);
    }
    match wish {
        ConsentAction::Start => {
            let return_to = match &asked.return_to {
                None => None,
                Some(url) => Some(ReturnRule::permit(&consents.return_to, url).map_err(|_| {
                    Fault::Malformed("`return_to` is not among the places that the provider's `return_to` allows.")
                })?),
            };
            let (client, by) = (client.name.clone(), format!("client:{}", client.name).into());
            let ask = StartConsent { provider: provider.clone(), key, client, by, return_to };
            log.wait_for("consent start", &provider.name);
            let started = worker.shared.consents.start(ask).await.map_err(|failure| unavailable(&failure))?;
            log.waited();
            Ok(serde_json::json!({
                "consent_url": started.consent_url,
                "state": started.state,
                "expires_at": rfc3339(started.expires_at),
            }))
        }
        ConsentAction::Code => {
            let (Some(state), Some(code)) = (&asked.state, &asked.code) else {
                return Err(Fault::Malformed("The body needs `user`, `state` and `code`."));
            };
            let callback = consent.posted(state, code, asked.iss.clone(), worker.now());
            let callback = callback.map_err(|_| Fault::Malformed("The code is malformed."))?;
            log.wait_for(EXCHANGE, &provider.name);
            match worker.shared.consents.finish(provider.clone(), CodeSource::Application(key), callback).await {
                Finished::Consented(_) => {
                    log.waited();
                    Ok(serde_json::json!({ "user": asked.user, "consented": true }))
                }
                Finished::Failed(failure) => Err(unavailable(&failure)),
                Finished::Rejected(why, _) => Err(rejected(&why)),
            }
        }
    }
}

/// Returns the key of the tokens that calls of this client for this user spend. The error: the user name is malformed,
/// or the client may not act for the user.
pub fn user_key(client: &ClientConfig, provider: &ProviderConfig, user: &str) -> Result<UserKey, Fault> {
    let user = UserName::parse(user).map_err(|_| {
        Fault::Malformed("A user name has 1 to 256 bytes, no control characters and no white space around it.")
    })?;
    if !client.users.include(&user) {
        return Err(Fault::ClientNotAllowed(Refusal::of(RefusalCause::User)));
    }
    Ok(UserKey { owner: client.owner(), provider: provider.name.clone(), user })
}

/// The one user whom a request names.
pub fn named_user<'a>(headers: &'a HeaderMap, header: &HeaderName) -> Result<&'a str, Fault> {
    let mut values = headers.get_all(header).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => std::str::from_utf8(value.as_bytes())
            .map_err(|_| Fault::Malformed("The header that names the user is not UTF-8.")),
        (None, _) => Err(Fault::Malformed("The request does not say for which user it is made.")),
        (Some(_), Some(_)) => Err(Fault::Malformed("The request names more than one user.")),
    }
}

fn known<'a>(
    worker: &'a WorkerState,
    name: &str,
) -> Option<(&'a Arc<ProviderConfig>, &'a ConsentSettings, &'a CompiledConsent)> {
    let provider = worker.shared.snapshot.providers.iter().find(|provider| *provider.name == *name)?;
    let consents = provider.consents.as_ref()?;
    Some((provider, consents, consents.module.consent()?))
}

fn unavailable(failure: &Failure) -> Fault {
    let (class, inside) = (failure.class, failure.inside.as_str().into());
    tracing::warn!(error = %inside, "consent request failed");
    let ours = failure.exact.is_some();
    Fault::from(&Unavailable { class, retry_after: failure.rest(1), ours, inside })
}

const fn rejected(why: &NotExchanged) -> Fault {
    match why {
        NotExchanged::Changed => Fault::Malformed("The provider's settings have changed since; start again."),
        NotExchanged::Expired => {
            Fault::Malformed("The consent was started too long ago, or its code is too old; start again.")
        }
        NotExchanged::NoCode => Fault::Malformed("There is no code."),
        NotExchanged::OtherIssuer => {
            Fault::Malformed("The response does not come from the provider's issuer: `iss` is missing, or another one.")
        }
        NotExchanged::OtherOwner | NotExchanged::OtherProvider | NotExchanged::OtherUser => {
            Fault::Malformed("This state belongs to another consent.")
        }
        NotExchanged::Refused(_) => Fault::ConsentRequired,
        NotExchanged::Reused => Fault::Malformed("This state was used before; start again."),
        NotExchanged::Unknown => Fault::Malformed("No consent with this state was started, or long ago."),
    }
}

/// Answers a request to a callback listener.
pub async fn callback(
    worker: Rc<WorkerState>,
    conn: Rc<ConnectionContext>,
    request: Request<ReceivedBody>,
) -> Response<ResponseBody> {
    let mut log = RequestLog::begin(&worker, conn.listener, access_record(&worker, &conn, &request));
    let (head, _) = request.into_parts();
    let listener = worker.listener(conn.listener).ok_or(Fault::Internal);
    let ground = listener.and_then(|listener| conn.ground(listener));
    if let Err(fault) = ground.and_then(|ground| clear(ground, &worker.shared.snapshot.limits, &head)) {
        return own_response(fault, log);
    }
    let (status, location, text) = come_back(&worker, &head, &mut log).await;
    log.record().status = Some(status.as_u16());
    let body = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>countersign</title></head><body><main><h1>{}</h1><p>{text}</p></main></body></html>\n",
        if status.is_client_error() || status.is_server_error() { "That did not work" } else { "Done" },
    );
    let mut response = Response::new(ResponseBody::own(body.into(), log));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    for (name, value) in [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CACHE_CONTROL, "no-store"),
        (CONTENT_SECURITY_POLICY, "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"),
        // The code stands in the URL.
        (REFERRER_POLICY, "no-referrer"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if let Some(location) = location.and_then(|location| HeaderValue::try_from(location).ok()) {
        headers.insert(LOCATION, location);
    }
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(ALLOW, HeaderValue::from_static("GET"));
    }
    response
}

/// Processes the return of a browser from the provider. Returns a status, the URL to redirect to, and the text of the
/// page.
async fn come_back(
    worker: &Rc<WorkerState>,
    head: &Parts,
    log: &mut RequestLog,
) -> (StatusCode, Option<String>, &'static str) {
    let bad = |status, text| (status, None, text);
    let uri = &head.uri;
    let name = uri.path().strip_prefix(CONSENT).and_then(|rest| rest.strip_suffix("/callback"));
    let Some((provider, consents, consent)) = name.and_then(|name| known(worker, name)) else {
        return bad(StatusCode::NOT_FOUND, "There is nothing here.");
    };
    // A HEAD must not use a state up.
    if head.method != Method::GET {
        return bad(StatusCode::METHOD_NOT_ALLOWED, "Only browsers that come back from the bank are expected here.");
    }
    if !worker.shared.audit.ready() {
        let text = "This cannot be worked on right now. Please reload this page in a moment.";
        return bad(StatusCode::SERVICE_UNAVAILABLE, text);
    }
    let Ok(callback) = consent.callback(uri.query().unwrap_or_default(), worker.now()) else {
        return bad(StatusCode::BAD_REQUEST, "What the bank sent cannot be read. Please start again.");
    };
    log.wait_for(EXCHANGE, &provider.name);
    match worker.shared.consents.finish(provider.clone(), CodeSource::Browser, callback).await {
        Finished::Consented(return_to) => {
            log.waited();
            let permitted = return_to.and_then(|url| ReturnRule::permit(&consents.return_to, &url).ok());
            match permitted {
                Some(url) => (StatusCode::SEE_OTHER, Some(url.as_str().to_owned()), "You are being sent back."),
                None => bad(StatusCode::OK, "You have given your consent. You may close this page."),
            }
        }
        Finished::Failed(failure) => {
            tracing::warn!(provider = %provider.name, error = %failure.inside, "consent could not be completed");
            bad(StatusCode::SERVICE_UNAVAILABLE, "The bank cannot be reached right now. Please start again later.")
        }
        // SCB sends a user who declines back without a code.
        Finished::Rejected(NotExchanged::NoCode | NotExchanged::Refused(_), _) => {
            bad(StatusCode::FORBIDDEN, "The bank says that no consent was given. You may start again.")
        }
        Finished::Rejected(..) => bad(
            StatusCode::BAD_REQUEST,
            "This consent is not known, was used already, or took too long. Please start again.",
        ),
    }
}
