//! AbbeyCross: a token call without a grant type, five-field errors, and opening hours.
//!
//! Its documents know 200, 409, 500 and 503 for the token call, and say nothing about the body of a 200.

use std::time::Duration;

use http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::base::time::{Now, rfc3339};
use crate::sim::call::SimCall;
use crate::sim::credentials::{Credentials, hex32};
use crate::sim::issued_tokens::Binding;
use crate::sim::member::{BankSpec, SettingLines, nothing_open};
use crate::sim::sim_response::{Object, SimResponse};
use crate::sim::sim_state::{PresentedToken, SimState};

pub(super) const MEMBER: BankSpec = BankSpec {
    name: "abbeycross",
    base_path: "",
    token_path: "/v1/oauth/token",
    names_token_url: false,
    settings: SettingLines::Credentials(["client_id", "client_secret", ""]),
    // Inferred: the documents promise an expiry and do not say which.
    life: Duration::from_secs(1800),
    credentials,
    token,
    open: nothing_open,
    admit,
    resource,
    missing,
};

/// The settings that only the simulated AbbeyCross has.
#[derive(Clone, Debug)]
pub struct AbbeyCrossManner {
    /// The hours at which AbbeyCross is open.
    pub hours: Hours,
    /// The `Retry-After` of a closed AbbeyCross, in seconds; `None`: no such field. Its documents promise none.
    pub retry_after: Option<u64>,
    /// Resources close, too, and not only the token endpoint (inferred).
    pub resources_close: bool,
    /// The status for wrong credentials: 409 (the likeliest of the documented ones), 500 or 401.
    pub wrong_credentials: u16,
    /// The fields of a 200 from the token endpoint.
    pub success: SuccessBody,
}

impl Default for AbbeyCrossManner {
    fn default() -> Self {
        Self {
            hours: Hours::default(),
            retry_after: None,
            resources_close: false,
            wrong_credentials: 409,
            success: SuccessBody::default(),
        }
    }
}

/// When a platform is open.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Hours {
    /// Open at every hour of the day.
    #[default]
    Always,
    /// From the first full hour (UTC) until the second, by the simulator's clock.
    Between(u8, u8),
    /// Closed, regardless of the simulator's clock.
    Closed,
}

impl Hours {
    fn open(self, now: Now) -> bool {
        let hour = now.unix_seconds() / 3600 % 24;
        match self {
            Hours::Always => true,
            Hours::Between(from, until) => (u64::from(from)..u64::from(until)).contains(&hour),
            Hours::Closed => false,
        }
    }
}

/// The fields of the token response: the documents show an empty object.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum SuccessBody {
    /// The fields `accessToken`, `tokenType` and `expiresIn`.
    Camel,
    /// The usual fields inside an object `data`: `data.access_token` and so on.
    Data,
    /// `access_token` alone, without an expiry.
    NoExpiry,
    /// The fields `access_token`, `token_type`, `expires_in` and `scope`.
    #[default]
    Snake,
}

fn credentials() -> Credentials {
    Credentials::new(Uuid::new_v4().to_string(), format!("{}{}", hex32(), hex32()))
}

/// The one error body. The value of a secret parameter is never repeated.
fn error(status: StatusCode, code: &str, text: &str, parameter: Option<&str>) -> SimResponse {
    let body = json!({
        "errorId": Uuid::new_v4().to_string(), "code": code, "text": text,
        "parameter_name": parameter, "parameter_value": Value::Null,
    });
    SimResponse::json(status, body)
}

fn closed(call: &SimCall) -> Option<SimResponse> {
    let manner = &call.faults.abbeycross;
    if manner.hours.open(call.now) {
        return None;
    }
    let text = "The server is currently unavailable due to non-working hours. Please try again later.";
    let answer = error(StatusCode::SERVICE_UNAVAILABLE, "NON_WORKING_HOURS", text, None);
    Some(match manner.retry_after {
        Some(seconds) => answer.with(RETRY_AFTER, &seconds.to_string()),
        None => answer,
    })
}

fn token(desk: &SimState, call: &SimCall) -> SimResponse {
    if let Some(answer) = closed(call) {
        return answer;
    }
    // Inferred: of the documented statuses, 409 is the only one for a request that is wrong in itself.
    let conflict = |text: &str, parameter| error(StatusCode::CONFLICT, "VALIDATION", text, parameter);
    if call.method != Method::POST {
        return error(StatusCode::METHOD_NOT_ALLOWED, "METHOD", "Method not allowed.", None);
    }
    let Some(body) = call.object().filter(|_| call.is("application/json")) else {
        return conflict("A JSON object is required.", None);
    };
    if let Some(extra) = body.keys().find(|name| !["client_id", "client_secret"].contains(&name.as_str())) {
        return conflict("Unknown parameter.", Some(extra));
    }
    let field = |name: &str| body.get(name).and_then(Value::as_str).filter(|value| !value.is_empty());
    let Some(id) = field("client_id") else {
        return conflict("Required parameter is missing.", Some("client_id"));
    };
    let Some(secret) = field("client_secret") else {
        return conflict("Required parameter is missing.", Some("client_secret"));
    };
    if id != desk.credentials.id() || !desk.credentials.secret_is(secret) {
        let status = StatusCode::from_u16(call.faults.abbeycross.wrong_credentials).unwrap_or(StatusCode::CONFLICT);
        let text = if status == StatusCode::INTERNAL_SERVER_ERROR {
            "Internal server error."
        } else {
            "Action could not be completed because of conflict."
        };
        return error(status, "CREDENTIALS", text, None);
    }
    let issued = desk.issue(call, Binding::default(), |_| format!("abx.{}{}", hex32(), hex32()));
    let life = call.faults.issue.expires_in.text(issued.life);
    let snake = Object::default().text("access_token", &issued.token).text("token_type", "Bearer");
    let body = match call.faults.abbeycross.success {
        SuccessBody::Camel => {
            let camel = Object::default().text("accessToken", &issued.token).text("tokenType", "Bearer");
            camel.maybe("expiresIn", life).finish()
        }
        SuccessBody::Data => Object::default().raw("data", &snake.maybe("expires_in", life).finish()).finish(),
        SuccessBody::NoExpiry => snake.finish(),
        SuccessBody::Snake => snake.maybe("expires_in", life).text("scope", "api").finish(),
    };
    SimResponse::json(StatusCode::OK, body)
}

/// Inferred: the documents are silent on a refused token. A challenge by the book, and the usual error body.
fn admit(desk: &SimState, call: &SimCall) -> Result<Binding, SimResponse> {
    if call.faults.abbeycross.resources_close
        && let Some(answer) = closed(call)
    {
        return Err(answer);
    }
    let presented = desk.standing(call);
    let challenge = match presented {
        PresentedToken::Nothing => r#"Bearer realm="abbeycross""#,
        PresentedToken::Malformed | PresentedToken::Token(_) => r#"Bearer realm="abbeycross", error="invalid_token""#,
    };
    presented.alive().ok_or_else(|| {
        let answer = error(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "Access token is missing or not valid.", None);
        answer.with(WWW_AUTHENTICATE, challenge)
    })
}

fn resource(_: &SimState, call: &SimCall, _: &Binding) -> Option<SimResponse> {
    match (call.method.as_str(), call.below.as_str()) {
        ("GET", "/v1/quotes") => Some(SimResponse::json(StatusCode::OK, json!([quote(call, "EUR", "USD")]))),
        ("POST", "/v1/quotes") => Some(match call.object() {
            Some(asked) => {
                let text = |name: &str| asked.get(name).and_then(Value::as_str).unwrap_or("EUR").to_owned();
                SimResponse::json(StatusCode::CREATED, quote(call, &text("sell_currency"), &text("buy_currency")))
            }
            None => error(StatusCode::CONFLICT, "VALIDATION", "A JSON object is required.", None),
        }),
        _ => None,
    }
}

fn quote(call: &SimCall, sell: &str, buy: &str) -> Value {
    json!({
        "quote_id": Uuid::new_v4().to_string(), "sell_currency": sell, "buy_currency": buy, "rate": "1.0842",
        "expires_at": rfc3339(call.now.plus(Duration::from_secs(30)).wall),
    })
}

fn missing(_: &SimCall) -> SimResponse {
    error(StatusCode::NOT_FOUND, "NOT_FOUND", "No such resource.", None)
}
