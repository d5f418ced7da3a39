//! `/_sim/`: the remote control for people outside the process, on the bank's own listener.
//!
//! Everything that it shows of secrets is a fingerprint.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::base::secret::{Fingerprint, hex};
use crate::base::time::rfc3339;
use crate::sim::abbeycross::Hours;
use crate::sim::call::SimEndpoint;
use crate::sim::faults::{Close, Expiry, Faults, ResponseFault, SimFault, Verbatim};
use crate::sim::received::ReceivedRequest;
use crate::sim::scb;
use crate::sim::sim_response::SimResponse;
use crate::sim::sim_state::SimState;

const HELP: &str = "\
This is a simulated bank. Beside its own API, and wanting a token like all of it, these answer below its base path:

  ANY  BASE/echo/…                says what arrived
  GET  BASE/download?bytes=N      N bytes
  POST BASE/payments/ID           books a payment; /_sim/received counts them

These want none:

  GET  /_sim/                     this page
  GET  /_sim/received             what arrived, secrets shown as fingerprints
  POST /_sim/revoke               every live token dies
  POST /_sim/consent              {\"login\": \"…\", \"user\": \"alice\"}: a user agrees (SCB); answers the code, and the
                                  URL that the bank's app opens next, if one is registered
  POST /_sim/faults               replaces what goes wrong; {} is a good day:

    {\"token\": FAULT, \"resource\": FAULT,
     \"life_seconds\": 30, \"expires_in\": any JSON, \"single\": true,
     \"closed\": true, \"suspended\": true}

    FAULT: {\"trouble\": \"cut\" | \"garbage\" | \"html\" | \"huge\" | \"reset\" | \"reset-after-head\" | \"slow\" | \"status\",
            \"status\": 503, \"headers\": {\"retry-after\": \"30\"}, \"body\": \"…\",   (for status and html)
            \"delay_ms\": 2000, \"times\": 1, \"every\": 2, \"close\": true, \"compress\": true}
";

/// Returns the response to a request below `/_sim/`.
pub(super) fn answer(desk: &SimState, method: &Method, path: &str, body: &Bytes) -> SimResponse {
    match (method.as_str(), path) {
        ("GET" | "HEAD", "/_sim/") => SimResponse::typed(StatusCode::OK, "text/plain; charset=utf-8", HELP),
        ("GET" | "HEAD", "/_sim/received") => received(desk),
        ("POST", "/_sim/revoke") => SimResponse::json(StatusCode::OK, json!({ "revoked": desk.revoke_all() })),
        ("POST", "/_sim/faults") => match serde_json::from_slice::<FaultRequest>(body) {
            Ok(wish) => match wish.faults() {
                Ok(faults) => {
                    desk.set(faults);
                    SimResponse::json(StatusCode::OK, json!({ "set": true }))
                }
                Err(mistake) => wrong(&mistake),
            },
            Err(mistake) => wrong(&mistake.to_string()),
        },
        ("POST", "/_sim/consent") => match serde_json::from_slice::<ConsentControl>(body) {
            Ok(ConsentControl { login, user }) => match scb::consent(desk, &login, Some(&user), desk.clock.now()) {
                Some(agreed) => {
                    SimResponse::json(StatusCode::OK, json!({ "code": agreed.code, "callback": agreed.callback }))
                }
                None => wrong("no such consent is pending: ask the authorize endpoint for one"),
            },
            Err(mistake) => wrong(&mistake.to_string()),
        },
        _ => SimResponse::typed(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", "GET /_sim/ says what there is\n"),
    }
}

fn wrong(mistake: &str) -> SimResponse {
    SimResponse::typed(
        StatusCode::BAD_REQUEST,
        "text/plain; charset=utf-8",
        format!("{mistake}; GET /_sim/ explains\n"),
    )
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConsentControl {
    login: String,
    user: String,
}

/// The part of [`Faults`] that can be asked for from outside.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct FaultRequest {
    token: FaultWish,
    resource: FaultWish,
    life_seconds: Option<u64>,
    #[serde(deserialize_with = "even_null")]
    expires_in: Option<Box<RawValue>>,
    single: bool,
    closed: bool,
    suspended: bool,
}

/// `null` is a wish of its own here, not the lack of one.
fn even_null<'de, D: Deserializer<'de>>(json: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(json).map(Some)
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct FaultWish {
    trouble: Option<String>,
    status: Option<u16>,
    headers: std::collections::BTreeMap<String, String>,
    body: String,
    delay_ms: u64,
    times: Option<u64>,
    every: Option<u64>,
    close: bool,
    compress: bool,
}

impl FaultRequest {
    fn faults(self) -> Result<Faults, String> {
        let mut faults = Faults { token: self.token.fault()?, resource: self.resource.fault()?, ..Faults::default() };
        faults.issue.life = self.life_seconds.map(Duration::from_secs);
        faults.issue.single = self.single;
        faults.issue.expires_in = self.expires_in.map_or(Expiry::Truth, |raw| Expiry::Raw(raw.get().to_owned()));
        faults.meed.suspended = self.suspended;
        if self.closed {
            faults.abbeycross.hours = Hours::Closed;
        }
        Ok(faults)
    }
}

impl FaultWish {
    fn fault(self) -> Result<SimFault, String> {
        let trouble = match self.trouble.as_deref() {
            None => None,
            Some("cut") => Some(ResponseFault::CutBody),
            Some("garbage") => Some(ResponseFault::Garbage(Bytes::from_static(b"\x00\x01 this is not HTTP\r\n\r\n"))),
            Some("html") => Some(ResponseFault::HtmlError(self.status.unwrap_or(502))),
            Some("huge") => Some(ResponseFault::HugeBody(64 << 20)),
            Some("reset") => Some(ResponseFault::ResetBeforeAnswer),
            Some("reset-after-head") => Some(ResponseFault::ResetAfterHead),
            Some("slow") => Some(ResponseFault::SlowBody { chunk: 1, pause: Duration::from_millis(100) }),
            Some("status") => {
                let status = self.status.ok_or("`trouble: status` wants a `status`")?;
                if !(200..600).contains(&status) {
                    return Err(format!("{status} is not a final HTTP status: write 200 to 599"));
                }
                let headers = self.headers.into_iter().collect();
                Some(ResponseFault::Verbatim(Verbatim { status, headers, body: self.body.into() }))
            }
            Some(other) => return Err(format!("there is no trouble `{other}`")),
        };
        Ok(SimFault {
            delay: (self.delay_ms > 0).then(|| Duration::from_millis(self.delay_ms)),
            trouble,
            close: if self.close { Close::Announced } else { Close::Never },
            compress: self.compress,
            times: self.times,
            every: self.every,
        })
    }
}

fn received(desk: &SimState) -> SimResponse {
    let entries: Vec<Value> = desk.received().iter().map(|one| shown(desk, one)).collect();
    SimResponse::json(StatusCode::OK, json!({ "received": entries, "payments": desk.payments() }))
}

/// A request without its secrets and without its body.
fn shown(desk: &SimState, one: &ReceivedRequest) -> Value {
    let headers: Vec<Value> = one
        .headers
        .iter()
        .map(|(name, value)| {
            json!([name.as_str(), masked(desk, name.as_str(), &String::from_utf8_lossy(value.as_bytes()))])
        })
        .collect();
    json!({
        "number": one.number, "connection": one.connection, "at": rfc3339(one.at.wall),
        "endpoint": match one.endpoint { SimEndpoint::Resource => "resource", SimEndpoint::Token => "token" },
        "version": format!("{:?}", one.version), "method": one.method.as_str(),
        "authority": one.authority, "path": desk.mask(&one.path), "query": one.query.as_deref().map(|query| desk.mask(query)),
        "headers": headers, "aborted": one.aborted,
        "body": { "length": one.body_length, "sha256": hex(&one.body_sha256) },
    })
}

/// Headers that carry credentials show scheme and fingerprint; others show their text, unless a secret stands in it.
fn masked(desk: &SimState, name: &str, value: &str) -> String {
    let fingerprint = |secret: &str| Fingerprint::of(secret.as_bytes());
    match name {
        "authorization" | "proxy-authorization" => match value.split_once(' ') {
            Some((scheme, secret)) => format!("{scheme} …{}", fingerprint(secret)),
            None => format!("…{}", fingerprint(value)),
        },
        "apisecret" | "cookie" | "x-ibm-client-secret" => format!("…{}", fingerprint(value)),
        _ => desk.mask(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_wrongly_is_refused_with_the_reason() {
        for (text, reason) in [
            (r#"{"tokn":{}}"#, "unknown field `tokn`"),
            (r#"{"token":{"trouble":"fire"}}"#, "no trouble `fire`"),
            (r#"{"token":{"trouble":"status"}}"#, "wants a `status`"),
            (r#"{"token":{"trouble":"status","status":101}}"#, "not a final"),
        ] {
            let outcome = serde_json::from_str::<FaultRequest>(text)
                .map_err(|error| error.to_string())
                .and_then(FaultRequest::faults);
            let mistake = outcome.expect_err(text);
            assert!(mistake.contains(reason), "{text}: {mistake}");
        }
        for (text, expires_in) in [
            (r#"{"expires_in":"3600"}"#, Expiry::Raw("\"3600\"".to_owned())),
            (r#"{"expires_in":null}"#, Expiry::Raw("null".to_owned())),
            ("{}", Expiry::Truth),
        ] {
            let wish: FaultRequest = serde_json::from_str(text).expect(text);
            assert_eq!(wish.faults().expect(text).issue.expires_in, expires_in, "{text}");
        }
        let wish: FaultRequest = serde_json::from_str(r#"{"resource":{"trouble":"cut"}}"#).expect("a wish");
        let faults = wish.faults().expect("faults");
        assert_eq!(faults.resource.trouble, Some(ResponseFault::CutBody));
    }
}
