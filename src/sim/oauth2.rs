//! A provider as the standards define it: the client credentials grant of RFC 6749 section 4.4, bearer tokens of RFC
//! 6750. Users consent in `oauth2/consent.rs`.
//!
//! Its credentials hold characters that have a meaning in a form and in Basic authentication, so that a missing
//! encoding step is detected.

mod consent;
mod dpop;

use std::borrow::Cow;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{Method, StatusCode};
use serde_json::json;

use crate::sim::call::{Bearer, SimCall};
use crate::sim::credentials::{Credentials, hex32};
use crate::sim::issued_tokens::{Binding, TokenStanding};
use crate::sim::member::{BankSpec, SettingLines};
use crate::sim::oauth2::dpop::thumbprint;
use crate::sim::sim_response::{Object, SimResponse};
use crate::sim::sim_state::{PresentedToken, SimState};

pub(super) const MEMBER: BankSpec = BankSpec {
    name: "oauth2",
    base_path: "/api",
    token_path: "/token",
    names_token_url: true,
    settings: SettingLines::Credentials(["client_id", "client_secret", ""]),
    life: Duration::from_secs(3600),
    credentials,
    token,
    open: consent::open_consent,
    admit,
    resource,
    missing,
};

pub use self::dpop::DpopManner;

/// SettingLines of the textbook provider that may change while it runs.
#[derive(Clone, Debug, Default)]
pub struct OAuth2Manner {
    /// The scopes it grants; empty: any.
    pub scopes: Vec<String>,
    /// The URIs to which browsers may be redirected; empty: any.
    pub redirect_uris: Vec<String>,
    /// The user who agrees when the authorize page is opened, unless its query says `login_hint`.
    pub user: Option<String>,
    /// True if the user declines: authorize redirects with `access_denied`.
    pub deny: bool,
    /// Authorization codes without PKCE are given, too.
    pub without_pkce: bool,
    /// A refresh token may be used more than once, and no new one is given (RFC 6749 section 6 permits both).
    pub lasting_refresh: bool,
    /// True if a refresh token works until its successor is used: a lost response then costs nothing (RFC 9700 section
    /// 4.14.2 leaves that to the provider).
    pub refresh_grace: bool,
    /// Refresh tokens are refused, as dead ones are.
    pub refuse_refresh: bool,
    /// The lifetime of a refresh token, which the response states; `None`: unlimited, and not stated.
    pub refresh_life: Option<Duration>,
    /// Its demands on proofs of possession; `None`: its tokens are bearer tokens.
    pub dpop: Option<DpopManner>,
    /// Authorization requests must be pushed (RFC 9126).
    pub only_pushed: bool,
    /// The issuer that authorization responses name (RFC 9207).
    pub issuer: Option<String>,
}

fn credentials() -> Credentials {
    Credentials::new(format!("app:{}", hex32()), format!("{}+/=&%:é", hex32()))
}

fn error(status: StatusCode, error: &str, description: &str) -> SimResponse {
    SimResponse::json(status, json!({ "error": error, "error_description": description })).unstored()
}

fn invalid(description: &str) -> SimResponse {
    error(StatusCode::BAD_REQUEST, "invalid_request", description)
}

fn token(desk: &SimState, call: &SimCall) -> SimResponse {
    with_nonce(call, false, answer_token(desk, call))
}

/// Puts the current nonce on an answer of the API, or of the authorization server, if the provider wants one.
pub(super) fn with_nonce(call: &SimCall, is_api: bool, answer: SimResponse) -> SimResponse {
    match &call.faults.oauth2.dpop {
        Some(manner) => manner.give(is_api, answer),
        None => answer,
    }
}

/// The key that the proof of a token call shows, where the provider wants one.
fn bound_to(desk: &SimState, call: &SimCall) -> Result<Option<String>, SimResponse> {
    let manner = call.faults.oauth2.dpop.as_ref();
    let jkt = manner.map(|manner| thumbprint(desk, call, manner, None)).transpose();
    jkt.map_err(|bad| bad.at_token_endpoint())
}

fn answer_token(desk: &SimState, call: &SimCall) -> SimResponse {
    if call.method != Method::POST {
        return error(StatusCode::METHOD_NOT_ALLOWED, "invalid_request", "the method must be POST");
    }
    if !call.is("application/x-www-form-urlencoded") {
        return invalid("the body must be application/x-www-form-urlencoded");
    }
    let fields: Vec<(Cow<'_, str>, Cow<'_, str>)> = form_urlencoded::parse(&call.body).collect();
    // Section 3.2: a parameter without a value counts as left out; none may come twice.
    let field = |name: &str| fields.iter().find(|(known, value)| known == name && !value.is_empty()).map(|(_, v)| &**v);
    let repeated = fields.iter().enumerate().any(|(at, (name, _))| fields.iter().skip(at + 1).any(|(n, _)| n == name));
    if repeated {
        return invalid("a parameter is repeated");
    }
    let Some(grant_type) = field("grant_type") else { return invalid("grant_type is missing") };
    if let Err(answer) = authenticated(desk, call, field("client_id"), field("client_secret")) {
        return answer;
    }
    let jkt = match bound_to(desk, call) {
        Ok(jkt) => jkt,
        Err(answer) => return answer,
    };
    let who = match grant_type {
        "client_credentials" => None,
        "authorization_code" => match consent::redeem(desk, call, field) {
            Ok(who) => Some(who),
            Err(answer) => return answer,
        },
        "refresh_token" => match consent::renew(desk, call, field) {
            Ok(who) => Some(who),
            Err(answer) => return answer,
        },
        _ => return error(StatusCode::BAD_REQUEST, "unsupported_grant_type", "the grant type is not supported"),
    };
    if let Some(who) = who {
        return consent::granted(desk, call, who, jkt);
    }
    let scope = field("scope").map(str::to_owned);
    let known = &call.faults.oauth2.scopes;
    let asked = scope.as_deref().unwrap_or_default();
    if !known.is_empty() && asked.split(' ').any(|one| !one.is_empty() && !known.iter().any(|name| name == one)) {
        return error(StatusCode::BAD_REQUEST, "invalid_scope", "the scope is unknown");
    }
    let token_type = if jkt.is_some() { "DPoP" } else { "Bearer" };
    let binding = Binding { scope: scope.clone(), jkt, ..Binding::default() };
    let issued = desk.issue(call, binding, |_| format!("{}.{}", hex32(), hex32()));
    let body = Object::default()
        .text("access_token", &issued.token)
        .text("token_type", token_type)
        .maybe("expires_in", call.faults.issue.expires_in.text(issued.life))
        .maybe("scope", scope.map(|scope| json!(scope).to_string()));
    SimResponse::json(StatusCode::OK, body.finish()).unstored()
}

/// RFC 6749 section 2.3.1: either Basic, both halves form-encoded before base64, or both in the body; never both ways.
fn authenticated(desk: &SimState, call: &SimCall, id: Option<&str>, secret: Option<&str>) -> Result<(), SimResponse> {
    let basic = call.headers.contains_key(AUTHORIZATION);
    let refused = || {
        let answer = error(StatusCode::UNAUTHORIZED, "invalid_client", "client authentication failed");
        // Section 5.2: a challenge in the scheme that the client used.
        if basic { answer.with(WWW_AUTHENTICATE, r#"Basic realm="token""#) } else { answer }
    };
    let right = if basic {
        if secret.is_some() {
            return Err(invalid("two ways of client authentication in one request"));
        }
        let field = call.header("authorization").unwrap_or_default();
        let encoded = field.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("basic"));
        let pair = encoded.and_then(|(_, pair)| STANDARD.decode(pair.trim()).ok());
        let pair = pair.and_then(|pair| String::from_utf8(pair).ok());
        let (id, secret) = pair.as_deref().and_then(|pair| pair.split_once(':')).ok_or_else(refused)?;
        is_client(desk, &form_decoded(id), &form_decoded(secret))
    } else {
        match (id, secret) {
            (Some(id), Some(secret)) => is_client(desk, id, secret),
            (Some(_) | None, None) | (None, Some(_)) => false,
        }
    };
    if right { Ok(()) } else { Err(refused()) }
}

fn is_client(desk: &SimState, id: &str, secret: &str) -> bool {
    id == desk.credentials.id() && desk.credentials.secret_is(secret)
}

fn form_decoded(text: &str) -> String {
    let spaced = text.replace('+', " ");
    percent_encoding::percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
}

fn admit(desk: &SimState, call: &SimCall) -> Result<Binding, SimResponse> {
    match &call.faults.oauth2.dpop {
        None => admit_bearer(desk, call),
        Some(manner) => admit_bound(desk, call, manner).map_err(|answer| with_nonce(call, true, answer)),
    }
}

/// RFC 9449 section 7.1: the token, and a proof for it by the key that it is bound to.
fn admit_bound(desk: &SimState, call: &SimCall, manner: &DpopManner) -> Result<Binding, SimResponse> {
    let refused = || {
        let challenge = r#"DPoP error="invalid_token", algs="ES256""#;
        SimResponse::bare(StatusCode::UNAUTHORIZED).with(WWW_AUTHENTICATE, challenge)
    };
    let Bearer::Token(token) = call.presented("DPoP") else { return Err(refused()) };
    let jkt = thumbprint(desk, call, manner, Some(token)).map_err(|bad| bad.at_api())?;
    let binding = desk.standing_of(call, Bearer::Token(token)).alive().ok_or_else(refused)?;
    if binding.jkt.as_ref() == Some(&jkt) { Ok(binding) } else { Err(refused()) }
}

/// RFC 6750 section 3: a challenge on every refusal, an error code only where a token was presented.
fn admit_bearer(desk: &SimState, call: &SimCall) -> Result<Binding, SimResponse> {
    let challenge = |status, text: &str| {
        let value =
            if text.is_empty() { r#"Bearer realm="api""#.to_owned() } else { format!(r#"Bearer realm="api", {text}"#) };
        Err(SimResponse::bare(status).with(WWW_AUTHENTICATE, &value))
    };
    let invalid_token = |why: &str| {
        challenge(
            StatusCode::UNAUTHORIZED,
            &format!(r#"error="invalid_token", error_description="The access token {why}""#),
        )
    };
    match desk.standing(call) {
        PresentedToken::Malformed => challenge(StatusCode::BAD_REQUEST, r#"error="invalid_request""#),
        PresentedToken::Nothing => challenge(StatusCode::UNAUTHORIZED, ""),
        PresentedToken::Token(TokenStanding::Alive(binding)) => Ok(binding),
        PresentedToken::Token(TokenStanding::Expired) => invalid_token("expired"),
        PresentedToken::Token(TokenStanding::Revoked) => invalid_token("was revoked"),
        PresentedToken::Token(TokenStanding::Unknown) => invalid_token("is unknown"),
    }
}

/// `GET /scoped/{scope}` wants a token of that scope; `/v1/accounts` wants any; `/v1/me` says whose it is.
fn resource(_: &SimState, call: &SimCall, binding: &Binding) -> Option<SimResponse> {
    if call.below == "/v1/me" && call.method == Method::GET {
        return Some(SimResponse::json(StatusCode::OK, json!({ "user": binding.user })));
    }
    if call.below == "/v1/accounts" && call.method == Method::GET {
        return Some(SimResponse::json(StatusCode::OK, json!({ "accounts": [{ "id": "1", "balance": "100.00" }] })));
    }
    let wanted = call.below.strip_prefix("/scoped/")?;
    let held = binding.scope.as_deref().unwrap_or_default();
    if held.split(' ').any(|scope| scope == wanted) {
        return Some(SimResponse::json(StatusCode::OK, json!({ "scope": held })));
    }
    let value = format!(r#"Bearer realm="api", error="insufficient_scope", scope="{wanted}""#);
    Some(SimResponse::bare(StatusCode::FORBIDDEN).with(WWW_AUTHENTICATE, &value))
}

fn missing(_: &SimCall) -> SimResponse {
    SimResponse::json(StatusCode::NOT_FOUND, json!({ "error": "not_found" }))
}
