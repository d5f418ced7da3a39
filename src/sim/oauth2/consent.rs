//! Authorization codes as the standards define them: RFC 6749 section 4.1 with PKCE (RFC 7636), refresh tokens that
//! rotate (RFC 9700 section 4.14.2).
//!
//! There is no login form: a request for the authorize page acts as the user that `login_hint` or the manner names, who
//! agrees at once, or declines.

use std::borrow::Cow;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::header::LOCATION;
use http::{Method, StatusCode};

use crate::base::secret::sha256;
use crate::sim::call::SimCall;
use crate::sim::credentials::hex32;
use crate::sim::issued_tokens::Binding;
use crate::sim::oauth2::{authenticated, bound_to, error, invalid, with_nonce};
use crate::sim::sim_response::{Object, SimResponse};
use crate::sim::sim_state::{BankRecord, SimState, Terms};

/// The lifetime of an authorization code.
const CODE_LIFE: Duration = Duration::from_secs(60);

/// The user who gets tokens, and the terms of the grant. `refresh`: the refresh token that stays valid, if one does.
pub(super) struct Grantee {
    user: String,
    terms: Terms,
    refresh: Option<String>,
}

/// Handles `/authorize` (GET only) and `/par` (POST only) below the base path; returns `None` for any other path.
pub(super) fn open_consent(desk: &SimState, call: &SimCall) -> Option<SimResponse> {
    match call.below.as_str() {
        "/authorize" => Some(authorize(desk, call)),
        "/par" if call.method == Method::POST => {
            Some(with_nonce(call, false, push(desk, call).unwrap_or_else(|refused| refused)))
        }
        _ => None,
    }
}

/// RFC 9126 section 2: the client authenticates and leaves its request; it gets a name for that, which works once.
fn push(desk: &SimState, call: &SimCall) -> Result<SimResponse, SimResponse> {
    let fields: Vec<(Cow<'_, str>, Cow<'_, str>)> = form_urlencoded::parse(&call.body).collect();
    let field = |name: &str| fields.iter().find(|(known, _)| known == name).map(|(_, value)| &**value);
    authenticated(desk, call, field("client_id"), field("client_secret"))?;
    bound_to(desk, call)?;
    if field("request_uri").is_some() {
        return Err(invalid("request_uri cannot be pushed"));
    }
    let request_uri = format!("urn:ietf:params:oauth:request_uri:{}", hex32());
    let query = String::from_utf8_lossy(&call.body).into_owned();
    desk.remember(request_uri.clone(), BankRecord::Consent { query });
    let body = Object::default().text("request_uri", &request_uri).maybe("expires_in", Some("60".to_owned()));
    Ok(SimResponse::json(StatusCode::CREATED, body.finish()).unstored())
}

fn authorize(desk: &SimState, call: &SimCall) -> SimResponse {
    let manner = &call.faults.oauth2;
    let text =
        |text: &str| SimResponse::typed(StatusCode::BAD_REQUEST, "text/plain; charset=utf-8", format!("{text}\n"));
    if call.method != Method::GET {
        return text("the method must be GET");
    }
    // Section 4.1.2.1: what is wrong with client or redirect URI is told to the user, never sent anywhere.
    let pushed = call.parameter("request_uri").map(|name| desk.forget(&name));
    let query = match pushed {
        Some(Some(BankRecord::Consent { query })) => query,
        Some(_) => return text("the request_uri is unknown, or was used"),
        None if manner.only_pushed => return text("authorization requests must be pushed"),
        None => call.query.clone().unwrap_or_default(),
    };
    let parameter = |name: &str| {
        let found = form_urlencoded::parse(query.as_bytes()).find(|(known, _)| known == name);
        found.map(|(_, value)| value.into_owned())
    };
    if call.parameter("client_id").as_deref() != Some(desk.credentials.id()) {
        return text("the client is unknown");
    }
    let Some(redirect_uri) = parameter("redirect_uri") else { return text("redirect_uri is missing") };
    if !manner.redirect_uris.is_empty() && !manner.redirect_uris.contains(&redirect_uri) {
        return text("the redirect URI is not registered");
    }
    let back = |pairs: &[(&str, &str)]| {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(pairs);
        if let Some(state) = parameter("state") {
            query.append_pair("state", &state);
        }
        if let Some(issuer) = &manner.issuer {
            query.append_pair("iss", issuer);
        }
        let joint = if redirect_uri.contains('?') { '&' } else { '?' };
        SimResponse::bare(StatusCode::FOUND).with(LOCATION, &format!("{redirect_uri}{joint}{}", query.finish()))
    };
    if parameter("response_type").as_deref() != Some("code") {
        return back(&[("error", "unsupported_response_type")]);
    }
    let challenge = parameter("code_challenge").unwrap_or_default();
    let method = parameter("code_challenge_method");
    let right = challenge.len() == 43 && method.as_deref() == Some("S256");
    let without = challenge.is_empty() && manner.without_pkce;
    if !right && !without {
        return back(&[("error", "invalid_request"), ("error_description", "code challenge required")]);
    }
    if manner.deny {
        return back(&[("error", "access_denied")]);
    }
    let hint = parameter("login_hint").or_else(|| manner.user.clone());
    let user = hint.unwrap_or_else(|| "user".to_owned());
    let code = hex32();
    let terms =
        Terms { scope: parameter("scope"), redirect_uri: redirect_uri.clone(), challenge, came_for: String::new() };
    desk.remember(code.clone(), BankRecord::Code { user, given: call.now, terms });
    back(&[("code", &code)])
}

fn invalid_grant(why: &str) -> SimResponse {
    error(StatusCode::BAD_REQUEST, "invalid_grant", why)
}

/// Redeems an authorization code and returns its grant. A code works once: a second use revokes all tokens of its user.
pub(super) fn redeem<'a>(
    desk: &SimState,
    call: &SimCall,
    field: impl Fn(&str) -> Option<&'a str>,
) -> Result<Grantee, SimResponse> {
    let code = field("code").ok_or_else(|| invalid("code is missing"))?;
    let (user, given, terms) = match desk.recall(code) {
        Some(BankRecord::Code { user, given, terms }) => (user, given, terms),
        Some(BankRecord::Used { user }) => {
            // Section 4.1.2: all that came of it is revoked.
            desk.withdraw(&user);
            desk.violation("an authorization code was sent twice");
            return Err(invalid_grant("the code was used before"));
        }
        Some(BankRecord::Consent { .. } | BankRecord::Refresh { .. } | BankRecord::Transaction) | None => {
            return Err(invalid_grant("the code is unknown"));
        }
    };
    desk.remember(code.to_owned(), BankRecord::Used { user: user.clone() });
    if call.now.since(given) >= CODE_LIFE {
        desk.violation("an authorization code was sent too late");
        return Err(invalid_grant("the code has expired"));
    }
    if field("redirect_uri") != Some(&terms.redirect_uri) {
        return Err(invalid_grant("the redirect URI is another"));
    }
    let proof = field("code_verifier").map(|verifier| BASE64_URL_SAFE_NO_PAD.encode(sha256(verifier.as_bytes())));
    if proof.unwrap_or_default() != terms.challenge {
        return Err(invalid_grant("the code verifier does not fit the challenge"));
    }
    Ok(Grantee { user, terms, refresh: None })
}

/// A refresh token for tokens.
pub(super) fn renew<'a>(
    desk: &SimState,
    call: &SimCall,
    field: impl Fn(&str) -> Option<&'a str>,
) -> Result<Grantee, SimResponse> {
    let manner = &call.faults.oauth2;
    let token = field("refresh_token").ok_or_else(|| invalid("refresh_token is missing"))?;
    if manner.refuse_refresh {
        return Err(invalid_grant("the refresh token is dead"));
    }
    match desk.recall(token) {
        Some(BankRecord::Refresh { user, given, mut terms }) => {
            if manner.refresh_life.is_some_and(|life| call.now.since(given) >= life) {
                return Err(invalid_grant("the refresh token has expired"));
            }
            let stands = manner.lasting_refresh.then(|| token.to_owned());
            let spent = match (&stands, manner.refresh_grace) {
                (Some(_), _) => String::new(),
                (None, false) => token.to_owned(),
                // Use of this refresh token proves that the client received it: its predecessor is spent now, and it
                // stays valid until its successor is used.
                (None, true) => std::mem::replace(&mut terms.came_for, token.to_owned()),
            };
            if !spent.is_empty() {
                desk.remember(spent, BankRecord::Used { user: user.clone() });
            }
            Ok(Grantee { user, terms, refresh: stands })
        }
        Some(BankRecord::Used { user }) => {
            desk.withdraw(&user);
            desk.violation("a refresh token was used twice");
            Err(invalid_grant("the refresh token was used before"))
        }
        Some(BankRecord::Code { .. } | BankRecord::Consent { .. } | BankRecord::Transaction) | None => {
            Err(invalid_grant("the refresh token is unknown"))
        }
    }
}

/// New tokens of a user.
pub(super) fn granted(desk: &SimState, call: &SimCall, who: Grantee, jkt: Option<String>) -> SimResponse {
    let Grantee { user, terms, refresh } = who;
    let token_type = if jkt.is_some() { "DPoP" } else { "Bearer" };
    let binding = Binding { scope: terms.scope.clone(), user: Some(user.clone()), jkt, ..Binding::default() };
    let issued = desk.issue(call, binding, |_| format!("{}.{}", hex32(), hex32()));
    let mut body = Object::default()
        .text("access_token", &issued.token)
        .text("token_type", token_type)
        .maybe("expires_in", call.faults.issue.expires_in.text(issued.life));
    if refresh.is_none() {
        let token = hex32();
        body = body.text("refresh_token", &token);
        let life = call.faults.oauth2.refresh_life;
        body = body.maybe("refresh_expires_in", life.map(|life| life.as_secs().to_string()));
        desk.remember(token, BankRecord::Refresh { user, given: call.now, terms });
    }
    SimResponse::json(StatusCode::OK, body.finish()).unstored()
}
