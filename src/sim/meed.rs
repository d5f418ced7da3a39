//! Meed's partner API: form-encoded token calls, signed tokens, errors with a `message`.

use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::WWW_AUTHENTICATE;
use http::{Method, StatusCode};
use serde_json::json;

use crate::sim::call::SimCall;
use crate::sim::credentials::{Credentials, hex32};
use crate::sim::issued_tokens::Binding;
use crate::sim::member::{BankSpec, SettingLines, nothing_open};
use crate::sim::sim_response::{Object, SimResponse};
use crate::sim::sim_state::{PresentedToken, SimState};

pub(super) const MEMBER: BankSpec = BankSpec {
    name: "meed",
    base_path: "/api/partner",
    token_path: "/api/partner/v1/oauth/token",
    names_token_url: false,
    settings: SettingLines::Credentials(["client_id", "client_secret", ""]),
    life: Duration::from_secs(3600),
    credentials,
    token,
    open: nothing_open,
    admit,
    resource,
    missing,
};

/// SettingLines of the Meed simulator that may change while it runs.
#[derive(Clone, Debug, Default)]
pub struct MeedManner {
    /// The application is suspended or revoked.
    pub suspended: bool,
    /// A token call that is not form-encoded is answered 415 instead of 400.
    pub media_type_415: bool,
    /// The form in which a resource refuses a token. The document does not specify it; these are the three likely forms
    /// (inferred).
    pub refusal: RefusalShape,
}

/// The form of a resource's response to an invalid token.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum RefusalShape {
    /// Status 401 with neither body nor challenge.
    Bare,
    /// 401 with the body of the token endpoint's errors: `error` and `message`.
    Body,
    /// 401 with the challenge of RFC 6750 section 3 and no body.
    #[default]
    Challenge,
}

fn credentials() -> Credentials {
    Credentials::new(format!("meed_{}", hex32()), format!("{}{}", hex32(), hex32()))
}

fn error(status: StatusCode, error: &str, message: &str) -> SimResponse {
    SimResponse::json(status, json!({ "error": error, "message": message }))
}

fn token(desk: &SimState, call: &SimCall) -> SimResponse {
    if call.method != Method::POST {
        return error(StatusCode::METHOD_NOT_ALLOWED, "invalid_request", "Method Not Allowed");
    }
    let is_form = call.is("application/x-www-form-urlencoded");
    if !is_form && call.faults.meed.media_type_415 {
        return error(StatusCode::UNSUPPORTED_MEDIA_TYPE, "invalid_request", "Unsupported Media Type");
    }
    let field = |name: &str| {
        let found = form_urlencoded::parse(&call.body).find(|(known, _)| known == name);
        found.map(|(_, value)| value.into_owned()).filter(|value| is_form && !value.is_empty())
    };
    let (Some(grant_type), Some(id), Some(secret)) = (field("grant_type"), field("client_id"), field("client_secret"))
    else {
        return incomplete();
    };
    if grant_type != "client_credentials" {
        return incomplete();
    }
    if id != desk.credentials.id() || !desk.credentials.secret_is(&secret) {
        return error(StatusCode::UNAUTHORIZED, "invalid_client", "Invalid client_id or client_secret");
    }
    if call.faults.meed.suspended {
        return error(StatusCode::UNAUTHORIZED, "invalid_client", "API application is suspended or revoked");
    }
    let issued = desk.issue(call, Binding::default(), |life| signed(desk, call.now.unix_seconds(), life));
    let body = Object::default()
        .text("access_token", &issued.token)
        .text("token_type", "Bearer")
        .maybe("expires_in", call.faults.issue.expires_in.text(issued.life));
    SimResponse::json(StatusCode::OK, body.finish()).unstored()
}

fn incomplete() -> SimResponse {
    error(
        StatusCode::BAD_REQUEST,
        "invalid_request",
        "grant_type, client_id, and client_secret are required and grant_type must be \"client_credentials\"",
    )
}

/// A JSON Web Token signed with HS256 (RFC 7519, RFC 7518 section 3.2). `jti` makes each one its own.
fn signed(desk: &SimState, now: u64, life: u64) -> String {
    let claims = json!({
        "sub": desk.credentials.id(), "iat": now, "exp": now.saturating_add(life), "jti": hex32(),
    });
    let head = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
    let input = format!("{head}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
    let signature = hmac::sign(&desk.signing_key, input.as_bytes());
    format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
}

fn admit(desk: &SimState, call: &SimCall) -> Result<Binding, SimResponse> {
    let presented = desk.standing(call);
    let none = matches!(presented, PresentedToken::Nothing);
    presented.alive().ok_or_else(|| match call.faults.meed.refusal {
        RefusalShape::Bare => SimResponse::bare(StatusCode::UNAUTHORIZED),
        // Without credentials there is no token to call invalid (RFC 6750 section 3.1).
        RefusalShape::Body if none => {
            error(StatusCode::UNAUTHORIZED, "unauthorized", "Authorization header is required")
        }
        RefusalShape::Body => {
            error(StatusCode::UNAUTHORIZED, "invalid_token", "Access token is invalid or has expired")
        }
        RefusalShape::Challenge if none => {
            SimResponse::bare(StatusCode::UNAUTHORIZED).with(WWW_AUTHENTICATE, r#"Bearer realm="partner""#)
        }
        RefusalShape::Challenge => SimResponse::bare(StatusCode::UNAUTHORIZED).with(
            WWW_AUTHENTICATE,
            r#"Bearer realm="partner", error="invalid_token", error_description="The access token is invalid or has expired""#,
        ),
    })
}

fn resource(_: &SimState, call: &SimCall, _: &Binding) -> Option<SimResponse> {
    match (call.method.as_str(), call.below.as_str()) {
        ("GET", "/v1/sales") => Some(SimResponse::json(
            StatusCode::OK,
            json!({ "data": [{ "id": "S-1001", "total": "120.00", "currency": "THB" }], "next": null }),
        )),
        ("POST", "/v1/sales") => Some(match call.object() {
            Some(sale) => {
                let id = sale.get("id").cloned().unwrap_or_else(|| json!(format!("S-{}", hex32())));
                SimResponse::json(StatusCode::CREATED, json!({ "data": { "id": id, "status": "recorded" } }))
            }
            None => error(StatusCode::BAD_REQUEST, "invalid_request", "The body must be a JSON object"),
        }),
        _ => None,
    }
}

fn missing(_: &SimCall) -> SimResponse {
    error(StatusCode::NOT_FOUND, "not_found", "No such resource")
}
