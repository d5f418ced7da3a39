//! SCB's way to a user's token: a deeplink, a code that is valid for one minute and works once, rotating refresh
//! tokens.
//!
//! [`consent`] stands for the bank's app, in which the user would agree; [`page`] does so for callers with a browser.
//! The query of the authorize request comes back with the callback; `code`, `state` and `status` are the bank's own and
//! overwrite parameters of these names. The values of `state` and `status` are inferred.

use std::time::Duration;

use http::header::LOCATION;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::base::secret::{hex, sha256};
use crate::base::time::Now;
use crate::sim::call::SimCall;
use crate::sim::scb::{ScbStatus, authenticate, granted, pass_gateway, read, success};
use crate::sim::sim_response::SimResponse;
use crate::sim::sim_state::{BankRecord, SimState, Terms};

/// The lifetime of an authorization code.
const CODE_LIFE: Duration = Duration::from_secs(60);
/// The lifetime of a refresh token.
pub(super) const REFRESH_LIFE: Duration = Duration::from_secs(3600);
/// Keys of the query that the bank overwrites.
const OVERWRITTEN: [&str; 3] = ["code", "state", "status"];

/// The user's decision on a pending consent.
pub(in crate::sim) struct Agreed {
    /// The authorization code; none when the user declined.
    pub code: Option<String>,
    /// The URL that the app opens next; `None` if no callback URL is registered.
    pub callback: Option<String>,
}

/// A user is known to a partner by a hash only.
pub(in crate::sim) fn known_as(user: &str) -> String {
    hex(&sha256(user.as_bytes())).get(..32).unwrap_or_default().to_owned()
}

/// The user agrees in the app (or, without a name, declines): answers what the app hands to the caller's own page.
/// `login` is the last part of the `callbackUrl` that authorize answered; each can be answered once.
pub(in crate::sim) fn consent(desk: &SimState, login: &str, user: Option<&str>, now: Now) -> Option<Agreed> {
    let query = match desk.forget(login)? {
        BankRecord::Consent { query } => query,
        other @ (BankRecord::Code { .. }
        | BankRecord::Refresh { .. }
        | BankRecord::Transaction
        | BankRecord::Used { .. }) => {
            desk.remember(login.to_owned(), other);
            return None;
        }
    };
    let code = user.map(|user| {
        let code = Uuid::new_v4().to_string();
        desk.remember(code.clone(), BankRecord::Code { user: known_as(user), given: now, terms: Terms::default() });
        code
    });
    let callback = desk.faults().scb.callback_url.as_ref().map(|registered| {
        let mut pairs = form_urlencoded::Serializer::new(String::new());
        let free = form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| !OVERWRITTEN.contains(&&**name));
        pairs.extend_pairs(free);
        if let Some(code) = &code {
            pairs.append_pair("code", code);
        }
        pairs.append_pair("state", &Uuid::new_v4().simple().to_string());
        pairs.append_pair("status", if code.is_some() { "success" } else { "cancel" });
        format!("{registered}{}{}", if registered.contains('?') { '&' } else { '?' }, pairs.finish())
    });
    Some(Agreed { code, callback })
}

/// `GET …/login/{id}`: what a browser opens where `page` is set. It is sent on to the registered callback.
fn page(desk: &SimState, call: &SimCall, login: &str) -> SimResponse {
    let name = call.parameter("user").unwrap_or_else(|| "user".to_owned());
    let user = call.parameter("deny").is_none().then_some(name.as_str());
    let text = |status, text: &str| SimResponse::typed(status, "text/plain; charset=utf-8", format!("{text}\n"));
    match consent(desk, login, user, call.now) {
        None => text(StatusCode::NOT_FOUND, "nothing of the kind is pending"),
        Some(Agreed { callback: Some(callback), .. }) => SimResponse::bare(StatusCode::FOUND).with(LOCATION, &callback),
        Some(Agreed { callback: None, .. }) => text(StatusCode::OK, "no callback URL is registered"),
    }
}

/// Authorize and refresh, which ask for the application's credentials and not for a token, and the page.
pub(super) fn open(desk: &SimState, call: &SimCall) -> Option<SimResponse> {
    let answer = match call.below.as_str() {
        "/v2/oauth/authorize" => authorize(desk, call),
        "/v1/oauth/token/refresh" => refresh(desk, call),
        other if call.faults.scb.page => Ok(page(desk, call, other.strip_prefix("/login/")?)),
        _ => return None,
    };
    Some(match answer {
        Ok(answer) | Err(answer) => answer,
    })
}

/// Credentials travel in headers here, under names of their own, on a GET.
fn authorize(desk: &SimState, call: &SimCall) -> Result<SimResponse, SimResponse> {
    if call.method != Method::GET {
        return Err(ScbStatus::Method.answer(call));
    }
    pass_gateway(desk, call)?;
    for name in ["apikey", "apisecret", "endState", "response-channel"] {
        if call.header(&name.to_ascii_lowercase()).is_none() {
            return Err(ScbStatus::StandardHeaderMissing(name).answer(call));
        }
    }
    let right = call.header("apikey") == Some(desk.credentials.id())
        && call.header("apisecret").is_some_and(|secret| desk.credentials.secret_is(secret));
    if !right {
        return Err(ScbStatus::KeyInvalid(9500).answer(call));
    }
    for (name, known) in [("endState", ["mobile_app", "mobile_web"]), ("response-channel", ["mobile", "mobile_mma"])] {
        if !call.header(&name.to_ascii_lowercase()).is_some_and(|value| known.contains(&value)) {
            return Err(ScbStatus::ParameterInvalid(name).answer(call));
        }
    }
    let query = call.query.clone().unwrap_or_default();
    if query.len() > 255 {
        return Err(ScbStatus::ParameterInvalid("query").answer(call));
    }
    let login = Uuid::new_v4().to_string();
    desk.remember(login.clone(), BankRecord::Consent { query });
    let url = if call.faults.scb.page {
        format!("https://{}{}/login/{login}", call.authority, desk.member.base_path)
    } else {
        format!("scbeasysim://login/{login}")
    };
    Ok(success(call, StatusCode::OK, &json!({ "callbackUrl": url })))
}

fn refresh(desk: &SimState, call: &SimCall) -> Result<SimResponse, SimResponse> {
    if call.method != Method::POST {
        return Err(ScbStatus::Method.answer(call));
    }
    pass_gateway(desk, call)?;
    let body = read(call, &["applicationKey", "applicationSecret", "refreshToken"], 3)?;
    authenticate(desk, call, &body)?;
    let token = body.get("refreshToken").and_then(Value::as_str).unwrap_or_default();
    if call.faults.scb.refuse_refresh {
        return Err(ScbStatus::TokenDead(9300).answer(call));
    }
    match desk.recall(token) {
        Some(BankRecord::Refresh { user, given, .. }) if call.now.since(given) < REFRESH_LIFE => {
            desk.remember(token.to_owned(), BankRecord::Used { user: user.clone() });
            Ok(granted(desk, call, Some(user)))
        }
        Some(BankRecord::Used { .. }) => {
            desk.violation("a refresh token was used twice");
            Err(ScbStatus::TokenDead(9300).answer(call))
        }
        Some(
            BankRecord::Code { .. } | BankRecord::Consent { .. } | BankRecord::Refresh { .. } | BankRecord::Transaction,
        )
        | None => Err(ScbStatus::TokenDead(9300).answer(call)),
    }
}

/// Redeems a code: returns its user if it is less than a minute old. It works once.
pub(super) fn redeem(desk: &SimState, call: &SimCall, code: &str) -> Option<String> {
    match desk.recall(code) {
        Some(BankRecord::Code { user, given, .. }) => {
            desk.remember(code.to_owned(), BankRecord::Used { user: user.clone() });
            if call.now.since(given) < CODE_LIFE {
                return Some(user);
            }
            desk.violation("an authorization code was sent too late");
            None
        }
        Some(BankRecord::Used { .. }) => {
            desk.violation("an authorization code was sent twice");
            None
        }
        Some(BankRecord::Consent { .. } | BankRecord::Refresh { .. } | BankRecord::Transaction) | None => None,
    }
}

/// A new refresh token of this user.
pub(super) fn refresh_token(desk: &SimState, call: &SimCall, user: &str) -> String {
    let token = Uuid::new_v4().to_string();
    let record = BankRecord::Refresh { user: user.to_owned(), given: call.now, terms: Terms::default() };
    desk.remember(token.clone(), record);
    token
}
