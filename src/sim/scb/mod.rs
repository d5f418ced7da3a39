//! Siam Commercial Bank: JSON token calls, a business code in every body, two standard headers on every call.
//!
//! The token endpoint and the sample resources are here; consent of a user is in `scb/consent.rs`, the codes and their
//! words in `scb/status.rs`.

mod consent;
mod status;

use std::time::Duration;

use http::header::HeaderName;
use http::{Method, StatusCode};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::sim::call::SimCall;
use crate::sim::credentials::{Credentials, hex32};
use crate::sim::issued_tokens::Binding;
use crate::sim::member::{BankSpec, SettingLines};
use crate::sim::sim_response::{Object, SimResponse};
use crate::sim::sim_state::{BankRecord, PresentedToken, SimState};

pub(super) use consent::{consent, known_as};
use status::ScbStatus;

pub(super) const MEMBER: BankSpec = BankSpec {
    name: "scb",
    base_path: "/partners/sandbox",
    token_path: "/partners/sandbox/v1/oauth/token",
    names_token_url: false,
    settings: SettingLines::Credentials(["application_key", "application_secret", ""]),
    life: Duration::from_secs(1800),
    credentials,
    token,
    open: consent::open,
    admit,
    resource,
    missing,
};

/// SettingLines of the SCB simulator that may change while it runs.
#[derive(Clone, Debug)]
pub struct ScbManner {
    /// The business code for a dead token: 9300 (the best reading) or 9500. No capture of it is public.
    pub dead_token_code: u32,
    /// True if errors carry `"data":null` instead of no `data` member.
    pub null_data: bool,
    /// The business code for a wrong secret. The documents give 9500 for a wrong key and keep 9300 on this endpoint
    /// for authorization codes, so 9500 is the better guess (inferred).
    pub wrong_secret_code: u32,
    /// The token endpoint answers 200 with business code 9700.
    pub ok_but_9700: bool,
    /// The URL that the bank's app opens once a user agreed: the callback URL that is registered in the developer
    /// portal.
    pub callback_url: Option<String>,
    /// Authorize answers the URL of a page of the simulator instead of a deeplink: opening it is agreeing, as the user
    /// that its query names (`&user=bob`, else `user`), or declining (`&deny=1`). For tests with a browser only.
    pub page: bool,
    /// Refresh tokens are refused, as dead ones are.
    pub refuse_refresh: bool,
    /// Calls per second and path beyond which it answers 429; the sandbox's limit is 5.
    pub calls_per_second: Option<u32>,
}

impl Default for ScbManner {
    fn default() -> Self {
        Self {
            dead_token_code: 9300,
            null_data: false,
            wrong_secret_code: 9500,
            ok_but_9700: false,
            callback_url: None,
            page: false,
            refuse_refresh: false,
            calls_per_second: None,
        }
    }
}

fn credentials() -> Credentials {
    Credentials::new(format!("l7{}", hex32()), hex32())
}

/// Checks what every call must have before anything else is looked at. The response to too many calls is inferred.
fn pass_gateway(desk: &SimState, call: &SimCall) -> Result<(), SimResponse> {
    if let Some(limit) = call.faults.scb.calls_per_second
        && !desk.within_rate(&call.path, limit, call.now)
    {
        return Err(ScbStatus::TooManyCalls.answer(call));
    }
    for name in ["resourceOwnerId", "requestUId"] {
        if call.header(&name.to_ascii_lowercase()).is_none() {
            return Err(ScbStatus::StandardHeaderMissing(name).answer(call));
        }
    }
    Ok(())
}

/// The body as an object of known members, the first `required` of which must be non-empty strings.
fn read(call: &SimCall, known: &[&'static str], required: usize) -> Result<Map<String, Value>, SimResponse> {
    if !call.is("application/json") {
        return Err(ScbStatus::MediaType.answer(call));
    }
    let Some(body) = call.object() else { return Err(ScbStatus::ParameterInvalid("body").answer(call)) };
    if let Some(extra) = body.keys().find(|name| !known.contains(&name.as_str())) {
        return Err(ScbStatus::FieldUnknown(extra).answer(call));
    }
    for name in known.iter().take(required) {
        match body.get(*name) {
            None => return Err(ScbStatus::ParameterMissing(name).answer(call)),
            Some(Value::String(text)) if text.is_empty() => return Err(ScbStatus::ParameterEmpty(name).answer(call)),
            Some(Value::String(_)) => {}
            Some(_) => return Err(ScbStatus::ParameterInvalid(name).answer(call)),
        }
    }
    Ok(body)
}

fn token(desk: &SimState, call: &SimCall) -> SimResponse {
    if call.method != Method::POST {
        return ScbStatus::Method.answer(call);
    }
    match exchange(desk, call) {
        Ok(answer) | Err(answer) => answer,
    }
}

fn exchange(desk: &SimState, call: &SimCall) -> Result<SimResponse, SimResponse> {
    pass_gateway(desk, call)?;
    let known = ["applicationKey", "applicationSecret", "authCode", "state", "codeChallenge"];
    let body = read(call, &known, 2)?;
    authenticate(desk, call, &body)?;
    if call.faults.scb.ok_but_9700 {
        return Err(ScbStatus::GenericButOk.answer(call));
    }
    match body.get("authCode").and_then(Value::as_str) {
        None => Ok(granted(desk, call, None)),
        Some("") => Err(ScbStatus::ParameterEmpty("authCode").answer(call)),
        Some(code) => {
            let user = consent::redeem(desk, call, code).ok_or_else(|| ScbStatus::CodeInvalid.answer(call))?;
            Ok(granted(desk, call, Some(user)))
        }
    }
}

fn authenticate(desk: &SimState, call: &SimCall, body: &Map<String, Value>) -> Result<(), SimResponse> {
    let field = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default();
    if field("applicationKey") != desk.credentials.id() {
        return Err(ScbStatus::KeyInvalid(9500).answer(call));
    }
    if !desk.credentials.secret_is(field("applicationSecret")) {
        return Err(ScbStatus::KeyInvalid(call.faults.scb.wrong_secret_code).answer(call));
    }
    Ok(())
}

/// A new token; for a user also a refresh token, and the header that names the user from then on.
fn granted(desk: &SimState, call: &SimCall, user: Option<String>) -> SimResponse {
    let issue = &call.faults.issue;
    let binding = Binding { user: user.clone(), ..Binding::default() };
    let issued = desk.issue(call, binding, |_| Uuid::new_v4().to_string());
    let now = call.now.unix_seconds();
    let mut data = Object::default()
        .text("accessToken", &issued.token)
        .text("tokenType", "Bearer")
        .maybe("expiresIn", issue.expires_in.text(issued.life))
        .maybe("expiresAt", issue.expires_at.text(now.saturating_add(issued.life)));
    if let Some(user) = &user {
        let life = consent::REFRESH_LIFE.as_secs();
        data = data
            .text("refreshToken", &consent::refresh_token(desk, call, user))
            .raw("refreshExpiresIn", &life.to_string())
            .raw("refreshExpiresAt", &now.saturating_add(life).to_string());
    }
    let answer = SimResponse::json(StatusCode::OK, ScbStatus::Success.envelope(call, Some(&data.finish())));
    match user {
        Some(user) => answer.with(HeaderName::from_static("resourceownerid"), &user),
        None => answer,
    }
}

fn admit(desk: &SimState, call: &SimCall) -> Result<Binding, SimResponse> {
    pass_gateway(desk, call)?;
    let presented = desk.standing(call);
    let status = match presented {
        PresentedToken::Malformed | PresentedToken::Nothing => ScbStatus::AuthorizationMissing,
        PresentedToken::Token(_) => ScbStatus::TokenDead(call.faults.scb.dead_token_code),
    };
    presented.alive().ok_or_else(|| status.answer(call))
}

fn resource(desk: &SimState, call: &SimCall, binding: &Binding) -> Option<SimResponse> {
    let found = match (call.method.as_str(), call.segments().as_slice()) {
        ("POST", ["v1", "payment", "qrcode", "create"]) => qr_code(call),
        ("POST", ["v3", "deeplink", "transactions"]) => deeplink(desk, call),
        ("GET", ["v1", "payment", "billpayment", "inquiry"]) => inquiry(call),
        ("GET", ["v1", "payment", "billpayment", "transactions", _]) => slip(call),
        ("GET", ["v2", "transactions", id]) => transaction(desk, call, id),
        ("GET", ["v1" | "v2", "customers", "profile"]) => profile(call, binding),
        _ => return None,
    };
    Some(match found {
        Ok(answer) | Err(answer) => answer,
    })
}

fn success(call: &SimCall, status: StatusCode, data: &Value) -> SimResponse {
    SimResponse::json(status, ScbStatus::Success.envelope(call, Some(&data.to_string())))
}

/// QR30: a payment code for a bill.
fn qr_code(call: &SimCall) -> Result<SimResponse, SimResponse> {
    let known = [
        "qrType",
        "ppType",
        "ppId",
        "amount",
        "ref1",
        "ref2",
        "ref3",
        "merchantId",
        "terminalId",
        "invoice",
        "csExtExpiryTime",
        "csUserDefined",
        "numberOfTimes",
        "expiryDate",
    ];
    let body = read(call, &known, 1)?;
    let text = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default();
    if !["PP", "CS", "PPCS"].contains(&text("qrType")) {
        return Err(ScbStatus::ParameterInvalid("qrType").answer(call));
    }
    if text("amount").is_empty() {
        return Err(ScbStatus::ParameterMissing("amount").answer(call));
    }
    if text("amount").len() > 13 {
        return Err(ScbStatus::ParameterInvalid("amount").answer(call));
    }
    let reference = |c: u8| c.is_ascii_uppercase() || c.is_ascii_digit();
    for name in ["ref1", "ref2", "ref3"] {
        if text(name).len() > 20 || !text(name).bytes().all(reference) {
            return Err(ScbStatus::ParameterInvalid(name).answer(call));
        }
    }
    let field = |tag: &str, value: &str| format!("{tag}{:02}{value}", value.len());
    let bill = [("00", "A000000677010112"), ("01", text("ppId")), ("02", text("ref1")), ("03", text("ref2"))];
    let bill: String = bill.iter().map(|(tag, value)| field(tag, value)).collect();
    let raw = [("00", "01"), ("01", "12"), ("30", &bill), ("53", "764"), ("54", text("amount")), ("58", "TH")];
    let raw: String = raw.iter().map(|(tag, value)| field(tag, value)).collect();
    // A GIF of one pixel stands for the picture.
    let image = "R0lGODdhAQABAIAAAAAAAAAAACwAAAAAAQABAAACAkQBADs=";
    Ok(success(call, StatusCode::OK, &json!({ "qrRawData": raw, "qrImage": image })))
}

/// A payment in the bank's app. Only the channel `scbeasy` knows it.
fn deeplink(desk: &SimState, call: &SimCall) -> Result<SimResponse, SimResponse> {
    if call.header("channel") != Some("scbeasy") {
        return Err(ScbStatus::ChannelUnsupported.answer(call));
    }
    let body = call.object().ok_or_else(|| ScbStatus::ParameterInvalid("body").answer(call))?;
    if !body.contains_key("transactionType") {
        return Err(ScbStatus::ParameterMissing("transactionType").answer(call));
    }
    let id = Uuid::new_v4().to_string();
    desk.remember(id.clone(), BankRecord::Transaction);
    let data = json!({
        "transactionId": id, "deeplinkUrl": format!("scbeasysim://purchase/{id}"),
        "userRefId": call.header("resourceownerid"),
    });
    Ok(success(call, StatusCode::CREATED, &data))
}

/// Returns the status of a known transaction. It is always `statusCode` 0, pending: the simulator has no payers.
fn transaction(desk: &SimState, call: &SimCall, id: &str) -> Result<SimResponse, SimResponse> {
    match desk.recall(id) {
        Some(BankRecord::Transaction) => {
            Ok(success(call, StatusCode::OK, &json!({ "transactionId": id, "statusCode": 0 })))
        }
        Some(
            BankRecord::Code { .. } | BankRecord::Consent { .. } | BankRecord::Refresh { .. } | BankRecord::Used { .. },
        )
        | None => Err(ScbStatus::NotFound.answer(call)),
    }
}

/// Payments of a bill: there are none.
fn inquiry(call: &SimCall) -> Result<SimResponse, SimResponse> {
    for name in ["eventCode", "billerId", "transactionDate"] {
        call.parameter(name).ok_or_else(|| ScbStatus::ParameterMissing(name).answer(call))?;
    }
    Ok(success(call, StatusCode::OK, &json!([])))
}

/// A slip of a payment: there is none.
fn slip(call: &SimCall) -> Result<SimResponse, SimResponse> {
    let missing = call.parameter("sendingBank").is_none();
    Err(if missing { ScbStatus::ParameterMissing("sendingBank") } else { ScbStatus::NotFound }.answer(call))
}

/// A user's data: wants a user's token, and that user in `resourceOwnerId`.
fn profile(call: &SimCall, binding: &Binding) -> Result<SimResponse, SimResponse> {
    if binding.user.is_none() || binding.user.as_deref() != call.header("resourceownerid") {
        return Err(ScbStatus::AccessDenied.answer(call));
    }
    let profile = json!({ "profile": { "engFirstName": "Somchai", "thaiFirstName": "สมชาย", "mobile": "0800000000" } });
    Ok(success(call, StatusCode::OK, &profile))
}

fn missing(call: &SimCall) -> SimResponse {
    ScbStatus::NotFound.answer(call)
}
