//! Consents at the admin listener: `POST /api/v1/consents/start` and `POST /api/v1/consents/revoke`.

use http::StatusCode;
use serde::Deserialize;

use super::Admin;
use super::admin_response::{AdminResponse, json, problem};
use super::api::AdminRequest;
use super::view::{Revoked, StartedView};
use crate::base::time::rfc3339;
use crate::control::StartConsent;
use crate::token::consent::{ReturnRule, UserKey, UserName};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StartRequest {
    provider: String,
    client: String,
    user: String,
    #[serde(default)]
    return_to: Option<String>,
}

type ConsentError = (StatusCode, String);

/// Starts a user's consent, and responds with the URL that the user has to open.
pub(super) async fn start(admin: &Admin, admin_request: &AdminRequest<'_>) -> AdminResponse {
    match begin(admin, admin_request).await {
        Ok(started) => json(StatusCode::OK, &started),
        Err((status, why)) => problem(status, why),
    }
}

/// Revokes a user's consent: forgets the user's tokens, and reports whether there were any.
pub(super) async fn revoke(admin: &Admin, admin_request: &AdminRequest<'_>) -> AdminResponse {
    match forget(admin, admin_request).await {
        Ok(revoked) => json(StatusCode::OK, &revoked),
        Err((status, why)) => problem(status, why),
    }
}

fn bad(why: String) -> ConsentError {
    (StatusCode::BAD_REQUEST, why)
}

fn asked(admin_request: &AdminRequest<'_>) -> Result<StartRequest, ConsentError> {
    let wanted = "send { \"provider\": …, \"client\": …, \"user\": … }, and \"return_to\" if you like";
    serde_json::from_slice::<StartRequest>(&admin_request.body).map_err(|_| bad(wanted.to_owned()))
}

fn key(admin: &Admin, asked: &StartRequest) -> Result<UserKey, ConsentError> {
    let snapshot = admin.reloads.current();
    let clients = &snapshot.clients.all;
    let client = clients.iter().find(|client| *client.name == *asked.client);
    let client = client.ok_or_else(|| bad(format!("there is no client `{}`", asked.client.escape_debug())))?;
    let user = UserName::parse(&asked.user).map_err(|error| bad(error.to_string()))?;
    Ok(UserKey { owner: client.owner(), provider: asked.provider.as_str().into(), user })
}

pub(super) async fn begin(admin: &Admin, admin_request: &AdminRequest<'_>) -> Result<StartedView, ConsentError> {
    let asked = asked(admin_request)?;
    let key = key(admin, &asked)?;
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
    let (client, by) = (asked.client.as_str().into(), admin_request.visitor.actor().into());
    let ask = StartConsent { provider: provider.clone(), key, client, by, return_to };
    drop(snapshot);
    let started = admin.consents.start(ask).await;
    let started = started.map_err(|failure| (StatusCode::SERVICE_UNAVAILABLE, failure.inside))?;
    admin_request.done("consent start", &format!("{} for {}", asked.provider, asked.client));
    Ok(StartedView { consent_url: started.consent_url, state: started.state, expires_at: rfc3339(started.expires_at) })
}

async fn forget(admin: &Admin, admin_request: &AdminRequest<'_>) -> Result<Revoked, ConsentError> {
    let asked = asked(admin_request)?;
    let key = key(admin, &asked)?;
    let revoked = admin.consents.revoke(key, &admin_request.visitor.actor()).await;
    let revoked = revoked.map_err(|failure| (StatusCode::SERVICE_UNAVAILABLE, failure.inside))?;
    admin_request.done("consent revoke", &format!("{} for {}", asked.provider, asked.client));
    Ok(Revoked { revoked })
}
