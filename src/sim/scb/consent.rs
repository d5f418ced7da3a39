//! SCB's way to a user's token: a deeplink, a code that lives a minute and works once, rotating refresh tokens.
//!
//! The bank's app, in which the user would agree, is played by [`consent`].

use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::base::secret::{hex, sha256};
use crate::base::time::Now;
use crate::sim::answer::Answer;
use crate::sim::call::Call;
use crate::sim::desk::{Desk, Record};
use crate::sim::scb::{Status, authenticate, granted, pass_gateway, read, success};

/// How long an authorization code lives.
const CODE_LIFE: Duration = Duration::from_secs(60);
/// How long a refresh token lives.
pub(super) const REFRESH_LIFE: Duration = Duration::from_secs(3600);

/// The user agrees in the app: answers the code that the app hands to the caller's own page. `login` is the last part
/// of the `callbackUrl` that authorize answered; each can be agreed to once.
pub(in crate::sim) fn consent(desk: &Desk, login: &str, user: &str, now: Now) -> Option<String> {
    match desk.forget(login) {
        Some(Record::Consent) => {}
        Some(Record::Code { .. } | Record::Refresh { .. } | Record::Transaction) | None => return None,
    }
    let code = Uuid::new_v4().to_string();
    // A user is known to a partner by a hash only.
    let user = hex(&sha256(user.as_bytes())).get(..32).unwrap_or_default().to_owned();
    desk.remember(code.clone(), Record::Code { user, given: now });
    Some(code)
}

/// Authorize and refresh, which ask for the application's credentials and not for a token.
pub(super) fn open(desk: &Desk, call: &Call) -> Option<Answer> {
    let answer = match call.below.as_str() {
        "/v2/oauth/authorize" => authorize(desk, call),
        "/v1/oauth/token/refresh" => refresh(desk, call),
        _ => return None,
    };
    Some(match answer {
        Ok(answer) | Err(answer) => answer,
    })
}

/// Credentials travel in headers here, under names of their own, on a GET.
fn authorize(desk: &Desk, call: &Call) -> Result<Answer, Answer> {
    if call.method != Method::GET {
        return Err(Status::Method.answer(call));
    }
    pass_gateway(desk, call)?;
    for name in ["apikey", "apisecret", "endState", "response-channel"] {
        if call.header(&name.to_ascii_lowercase()).is_none() {
            return Err(Status::StandardHeaderMissing(name).answer(call));
        }
    }
    let right = call.header("apikey") == Some(desk.credentials.id())
        && call.header("apisecret").is_some_and(|secret| desk.credentials.secret_is(secret));
    if !right {
        return Err(Status::KeyInvalid(9500).answer(call));
    }
    if call.query.as_ref().is_some_and(|query| query.len() > 255) {
        return Err(Status::ParameterInvalid("query").answer(call));
    }
    let login = Uuid::new_v4().to_string();
    desk.remember(login.clone(), Record::Consent);
    Ok(success(call, StatusCode::OK, &json!({ "callbackUrl": format!("scbeasysim://login/{login}") })))
}

fn refresh(desk: &Desk, call: &Call) -> Result<Answer, Answer> {
    if call.method != Method::POST {
        return Err(Status::Method.answer(call));
    }
    pass_gateway(desk, call)?;
    let body = read(call, &["applicationKey", "applicationSecret", "refreshToken"], 3)?;
    authenticate(desk, call, &body)?;
    let token = body.get("refreshToken").and_then(Value::as_str).unwrap_or_default();
    match desk.forget(token) {
        Some(Record::Refresh { user, given }) if call.now.since(given) < REFRESH_LIFE => {
            Ok(granted(desk, call, Some(user)))
        }
        Some(Record::Code { .. } | Record::Consent | Record::Refresh { .. } | Record::Transaction) | None => {
            Err(Status::TokenDead(9300).answer(call))
        }
    }
}

/// Whose code it is, if it is a minute old at most. It works once.
pub(super) fn redeem(desk: &Desk, call: &Call, code: &str) -> Option<String> {
    match desk.forget(code) {
        Some(Record::Code { user, given }) if call.now.since(given) < CODE_LIFE => Some(user),
        Some(Record::Code { .. } | Record::Consent | Record::Refresh { .. } | Record::Transaction) | None => None,
    }
}

/// A new refresh token of this user.
pub(super) fn refresh_token(desk: &Desk, call: &Call, user: &str) -> String {
    let token = Uuid::new_v4().to_string();
    desk.remember(token.clone(), Record::Refresh { user: user.to_owned(), given: call.now });
    token
}
