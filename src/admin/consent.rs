//! Consents at the operator's door: `POST /api/v1/consents/start` and `POST /api/v1/consents/revoke`.
//!
//! A page in a browser must not reach them: beside the `Host` field, the content type must be JSON, which no form sends
//! and no foreign page may send without being asked first.

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, ORIGIN};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use serde::Deserialize;

use super::{Admin, text, typed};
use crate::base::time::rfc3339;
use crate::control::Beginning;
use crate::token::consent::{ReturnRule, UserKey, UserName};

pub(super) const START: &str = "/api/v1/consents/start";
pub(super) const REVOKE: &str = "/api/v1/consents/revoke";
/// As whom the audit log knows whoever comes through this door.
const ACTOR: &str = "admin";
const MOST_BODY: usize = 16 * 1024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    provider: String,
    client: String,
    user: String,
    #[serde(default)]
    return_to: Option<String>,
}

pub(super) async fn answer(admin: &Admin, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let starts = request.uri().path() == START;
    if request.method() != Method::POST {
        let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "POST it\n");
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
        return refused;
    }
    let is_json = request.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == "application/json");
    if !is_json || request.headers().contains_key(ORIGIN) {
        return text(StatusCode::UNSUPPORTED_MEDIA_TYPE, "send application/json, and not from a page\n");
    }
    let Ok(body) = Limited::new(request.into_body(), MOST_BODY).collect().await else {
        return text(StatusCode::PAYLOAD_TOO_LARGE, "16 KiB are the most\n");
    };
    let Ok(asked) = serde_json::from_slice::<Asked>(&body.to_bytes()) else {
        let wanted = "send { \"provider\": …, \"client\": …, \"user\": … }, and \"return_to\" if you like\n";
        return text(StatusCode::BAD_REQUEST, wanted);
    };
    let done = if starts { start(admin, &asked).await } else { revoke(admin, &asked).await };
    match done {
        Ok(answer) => typed(StatusCode::OK, "application/json", answer.to_string().into_bytes()),
        Err((status, why)) => text(status, &format!("{why}\n")),
    }
}

type Refused = (StatusCode, String);

fn key(admin: &Admin, asked: &Asked) -> Result<UserKey, Refused> {
    let bad = |why: String| (StatusCode::BAD_REQUEST, why);
    let snapshot = admin.reloads.current();
    let clients = &snapshot.clients.all;
    let client = clients.iter().find(|client| *client.name == *asked.client);
    let client = client.ok_or_else(|| bad(format!("there is no client `{}`", asked.client.escape_debug())))?;
    let user = UserName::parse(&asked.user).map_err(|error| bad(error.to_string()))?;
    Ok(UserKey { owner: client.owner(), provider: asked.provider.as_str().into(), user })
}

async fn start(admin: &Admin, asked: &Asked) -> Result<serde_json::Value, Refused> {
    let bad = |why: String| (StatusCode::BAD_REQUEST, why);
    let key = key(admin, asked)?;
    let snapshot = admin.reloads.current();
    let providers = &snapshot.providers;
    let provider = providers.iter().find(|provider| *provider.name == *asked.provider);
    let known = provider.and_then(|provider| Some((provider, provider.consents.as_ref()?)));
    let (provider, consents) =
        known.ok_or_else(|| bad(format!("there is no provider `{}` with a consent", asked.provider.escape_debug())))?;
    let return_to = match &asked.return_to {
        None => None,
        Some(url) => Some(ReturnRule::permit(&consents.return_to, url).map_err(bad)?),
    };
    let (client, by) = (asked.client.as_str().into(), ACTOR.into());
    let ask = Beginning { provider: provider.clone(), key, client, by, return_to };
    let started = admin.consents.start(ask).await;
    let started = started.map_err(|failure| (StatusCode::SERVICE_UNAVAILABLE, failure.inside))?;
    Ok(serde_json::json!({
        "consent_url": started.consent_url,
        "state": started.state,
        "expires_at": rfc3339(started.expires_at),
    }))
}

async fn revoke(admin: &Admin, asked: &Asked) -> Result<serde_json::Value, Refused> {
    let key = key(admin, asked)?;
    let revoked = admin.consents.revoke(key, ACTOR).await;
    let revoked = revoked.map_err(|failure| (StatusCode::SERVICE_UNAVAILABLE, failure.inside))?;
    Ok(serde_json::json!({ "revoked": revoked }))
}
