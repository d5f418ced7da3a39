//! RAKBANK behind IBM API Connect: credentials in headers, tokens bound to a scope and an account, and five different
//! refusals that share the status 401.
//!
//! Two parties speak on one host: the gateway, which checks client and plan before the bank's code runs and may answer
//! in IBM's own dialect, and the bank.

use std::time::Duration;

use http::header::HeaderName;
use http::{Method, StatusCode};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::sim::call::SimCall;
use crate::sim::credentials::{Credentials, hex32};
use crate::sim::issued_tokens::Binding;
use crate::sim::member::{BankSpec, SettingLines, nothing_open};
use crate::sim::sim_response::{Object, SimResponse};
use crate::sim::sim_state::SimState;

pub(super) const MEMBER: BankSpec = BankSpec {
    name: "rakbank",
    base_path: "/sb/api",
    token_path: "/sb/api/v1/partner_auth/token",
    names_token_url: true,
    settings: SettingLines::Credentials(["client_id", "client_secret", "scope = \"internal_transfers\"\n"]),
    // Inferred: the life is unpublished; IBM's own examples show an hour.
    life: Duration::from_secs(3600),
    credentials,
    token,
    open: nothing_open,
    admit,
    resource,
    missing,
};

/// SettingLines of the RAKBANK simulator that may change while it runs.
#[derive(Clone, Debug)]
pub struct RakbankManner {
    /// The dialect of the response to a wrong client ID, of the gateway's refusal of a plan, and of a 429.
    pub dialect: Dialect,
    /// The application is not subscribed to the plan.
    pub not_subscribed: bool,
    /// The scopes that the bank grants; any other is refused with 401.
    pub scopes: Vec<String>,
    /// Every so-manieth call per path is answered 429 though no limit was reached, a known fault of the gateway.
    pub spurious_429_every: Option<u64>,
    /// Tokens are so many characters long, up to the documented 5000; absent: 64.
    pub token_length: Option<usize>,
}

impl Default for RakbankManner {
    fn default() -> Self {
        let scopes = ["internal_transfers", "fetch_fields", "transfers"].map(str::to_owned).to_vec();
        Self {
            dialect: Dialect::default(),
            not_subscribed: false,
            scopes,
            spurious_429_every: None,
            token_length: None,
        }
    }
}

/// In which words the gateway speaks.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Dialect {
    /// RAKBANK's error object: `status`, `response_code`, `response_message`, `description`.
    #[default]
    Bank,
    /// IBM API Connect's `httpCode`, `httpMessage`, `moreInformation`.
    Ibm,
}

fn credentials() -> Credentials {
    Credentials::new(hex32(), hex32())
}

/// The bank's error object: all strings, `property` only where one is at fault.
fn error(status: u16, code: &str, description: &str, property: Option<&str>) -> SimResponse {
    let status_code = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let message = match code {
        "401001" => "Invalid OAuth metadata",
        _ => status_code.canonical_reason().unwrap_or_default(),
    };
    let mut body = Map::new();
    body.insert("status".to_owned(), json!(status.to_string()));
    body.insert("response_code".to_owned(), json!(code));
    body.insert("response_message".to_owned(), json!(message));
    body.insert("description".to_owned(), json!(description));
    if let Some(property) = property {
        body.insert("property".to_owned(), json!(property));
    }
    SimResponse::json(status_code, Value::Object(body))
}

/// Builds a response of the gateway itself, in the dialect that is switched on. `httpCode` is a string.
fn gateway(call: &SimCall, status: u16, description: &str) -> SimResponse {
    match call.faults.rakbank.dialect {
        Dialect::Bank => error(status, &status.to_string(), description, None),
        Dialect::Ibm => {
            let status_code = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let message = status_code.canonical_reason().unwrap_or_default();
            let body = json!({
                "httpCode": status.to_string(), "httpMessage": message, "moreInformation": description,
            });
            SimResponse::json(status_code, body).with(HeaderName::from_static("x-global-transaction-id"), &hex32())
        }
    }
}

/// Checks what the gateway checks on every call: limits, the client, its plan, the message ID.
fn pass_gateway(desk: &SimState, call: &SimCall, with_secret: bool) -> Result<(), SimResponse> {
    if let Some(every) = call.faults.rakbank.spurious_429_every
        && desk.nth(&call.path).is_multiple_of(every.max(1))
    {
        return Err(gateway(call, 429, "Rate Limit exceeded"));
    }
    let known = call.header("x-ibm-client-id") == Some(desk.credentials.id());
    let proven =
        !with_secret || call.header("x-ibm-client-secret").is_some_and(|secret| desk.credentials.secret_is(secret));
    if !known || !proven {
        return Err(gateway(call, 401, "Invalid client id or secret."));
    }
    if call.faults.rakbank.not_subscribed {
        return Err(match (call.faults.rakbank.dialect, with_secret) {
            // IBM's native OAuth provider speaks a third dialect.
            (Dialect::Ibm, true) => SimResponse::json(
                StatusCode::UNAUTHORIZED,
                json!({ "error": "invalid_client", "error_description": "client_id unauthorized" }),
            ),
            (Dialect::Ibm, false) | (Dialect::Bank, true | false) => gateway(call, 401, "Not registered to plan."),
        });
    }
    match call.header("msgid") {
        None => Err(error(422, "422002", "Header parameter missing", Some("MsgId"))),
        Some(id) if id.len() > 50 => Err(error(422, "422002", "Header parameter is longer than 50", Some("MsgId"))),
        Some(_) => Ok(()),
    }
}

fn token(desk: &SimState, call: &SimCall) -> SimResponse {
    if call.method != Method::POST {
        return error(405, "405", "The method is not allowed", None);
    }
    // The OAuth endpoint's own refusal of Basic credentials, which this flow does not take.
    if call.header("authorization").is_some() {
        return error(401, "401", "client_id unauthorized", None);
    }
    if let Err(answer) = pass_gateway(desk, call, true) {
        return answer;
    }
    let Some(body) = call.object().filter(|_| call.is("application/json")) else {
        return error(415, "415", "The request must be a JSON object", None);
    };
    let binding = match binding(call, &body) {
        Ok(binding) => binding,
        Err(answer) => return answer,
    };
    let scope = binding.scope.clone().unwrap_or_default();
    let length = call.faults.rakbank.token_length.unwrap_or(64).min(5000);
    let issued = desk.issue(call, binding, |_| {
        let mut token = String::with_capacity(length + 32);
        while token.len() < length.max(32) {
            token.push_str(&hex32());
        }
        token.truncate(length.max(32));
        token
    });
    let body = Object::default()
        .text("token_type", "bearer")
        .text("access_token", &issued.token)
        .maybe("expires_in", call.faults.issue.expires_in.text(issued.life))
        .text("scope", &scope);
    SimResponse::json(StatusCode::OK, body.finish())
}

/// Reads the data that the token will be bound to. The request's schema allows no other members (`additionalProperties:
/// false`).
fn binding(call: &SimCall, body: &Map<String, Value>) -> Result<Binding, SimResponse> {
    let property = |text: &str, name: &str| error(422, "422001", text, Some(name));
    if let Some(extra) = body.keys().find(|name| !["grant_type", "scope", "oauth_metadata"].contains(&name.as_str())) {
        return Err(property("Property is not allowed", extra));
    }
    match body.get("grant_type").map(|value| value.as_str()) {
        Some(Some("client_credentials")) => {}
        Some(Some(_) | None) => return Err(property("Property is not valid", "grant_type")),
        None => return Err(property("Property missing", "grant_type")),
    }
    let Some(scope) = body.get("scope") else { return Err(property("Property missing", "scope")) };
    let scope = scope.as_str().filter(|scope| (1..=500).contains(&scope.chars().count()));
    let Some(scope) = scope else { return Err(property("Property is not valid", "scope")) };
    if !call.faults.rakbank.scopes.iter().any(|known| known == scope) {
        return Err(error(401, "401", "Invalid scope", None));
    }
    let metadata = match body.get("oauth_metadata") {
        None => None,
        Some(Value::Object(metadata)) => Some(Value::Object(metadata.clone()).to_string()),
        Some(_) => return Err(property("Property is not valid", "oauth_metadata")),
    };
    Ok(Binding { scope: Some(scope.to_owned()), metadata, ..Binding::default() })
}

fn admit(desk: &SimState, call: &SimCall) -> Result<Binding, SimResponse> {
    if call.headers.contains_key("x-ibm-client-secret") {
        desk.violation("the client secret was sent on a resource call");
    }
    pass_gateway(desk, call, false)?;
    let text = "This server could not verify that you are authorized to access the URL.";
    desk.standing(call).alive().ok_or_else(|| error(401, "401", text, None))
}

fn resource(desk: &SimState, call: &SimCall, binding: &Binding) -> Option<SimResponse> {
    match (call.method.as_str(), call.segments().as_slice()) {
        ("POST", ["v2", "fx_rates", "query"]) => Some(SimResponse::json(
            StatusCode::OK,
            json!({ "rates": [{ "from": "AED", "to": "USD", "buy": "3.6725", "sell": "3.6735" }] }),
        )),
        ("POST", ["v1", "accounts", account, "transfers"]) => Some(transfer(desk, call, binding, account)),
        _ => None,
    }
}

/// A transfer wants a token whose `oauth_metadata.account_id` is the account that it touches.
fn transfer(desk: &SimState, call: &SimCall, binding: &Binding, account: &str) -> SimResponse {
    let metadata = binding.metadata.as_deref().and_then(|text| serde_json::from_str::<Value>(text).ok());
    let allowed = metadata.as_ref().and_then(|metadata| metadata.get("account_id")).and_then(Value::as_str);
    if allowed != Some(account) {
        return error(401, "401001", "Invalid OAuth metadata", None);
    }
    let Some(body) = call.object() else {
        return error(422, "422001", "The request must be a JSON object", None);
    };
    let id =
        body.get("transaction_id").and_then(Value::as_str).map_or_else(|| Uuid::new_v4().to_string(), str::to_owned);
    desk.pay(&id);
    SimResponse::json(StatusCode::OK, json!({ "status": "200", "response_code": "000", "transaction_id": id }))
}

fn missing(_: &SimCall) -> SimResponse {
    error(404, "404", "No such resource", None)
}
