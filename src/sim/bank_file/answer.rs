//! Answers that a file says.

use std::collections::BTreeMap;

use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderName};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::text::Values;
use crate::sim::call::SimCall;
use crate::sim::sim_response::SimResponse;
use crate::sim::sim_state::Issued;

/// An answer with places to fill.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AnswerText {
    #[serde(default = "success")]
    status: u16,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    json: Option<Value>,
    form: Option<BTreeMap<String, String>>,
    text: Option<String>,
}

const fn success() -> u16 {
    200
}

impl AnswerText {
    /// An answer that was recorded: JSON with places in it, or a text.
    pub(super) fn recorded(
        status: u16,
        headers: &[(String, String)],
        json: Option<Value>,
        text: Option<String>,
    ) -> Self {
        Self { status, headers: headers.iter().cloned().collect(), json, form: None, text }
    }

    /// An answer for a check that says none.
    pub(super) fn unexpected(what: &str) -> Self {
        let json = serde_json::json!({ "error": format!("the request is not as expected: {what}") });
        Self { status: 400, headers: BTreeMap::new(), json: Some(json), form: None, text: None }
    }

    pub(super) fn fill(&self, call: &SimCall, values: Values<'_>, issued: Option<&Issued>) -> SimResponse {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut answer = if let Some(json) = &self.json {
            SimResponse::json(status, self.json(json, call, values, issued).unwrap_or_default())
        } else if let Some(form) = &self.form {
            let mut fields = form_urlencoded::Serializer::new(String::new());
            fields.extend_pairs(form.iter().map(|(name, value)| (name, values.fill(value, call, issued))));
            SimResponse::typed(status, "application/x-www-form-urlencoded", fields.finish())
        } else if let Some(text) = &self.text {
            SimResponse::typed(status, "text/plain; charset=utf-8", values.fill(text, call, issued))
        } else {
            SimResponse::bare(status)
        };
        for (name, value) in &self.headers {
            if let Ok(name) = name.parse::<HeaderName>() {
                answer.headers.retain(|(known, _)| *known != CONTENT_TYPE || name != CONTENT_TYPE);
                answer = answer.with(name, &values.fill(value, call, issued));
            }
        }
        answer
    }

    /// Fills the texts of a value; a text that is a life alone becomes a number. `None`: faults leave the life out.
    fn json(&self, value: &Value, call: &SimCall, values: Values<'_>, issued: Option<&Issued>) -> Option<Value> {
        Some(match value {
            // A life that is a text in JSON.
            Value::Object(members) if members.get("life_text").is_some_and(|wanted| *wanted == true) => {
                Value::String(call.faults.issue.expires_in.text(issued.map_or(0, |issued| issued.life))?)
            }
            Value::Object(members) => {
                let filled = members
                    .iter()
                    .filter_map(|(name, value)| Some((name.clone(), self.json(value, call, values, issued)?)));
                Value::Object(filled.collect::<Map<_, _>>())
            }
            Value::Array(items) => {
                Value::Array(items.iter().filter_map(|item| self.json(item, call, values, issued)).collect())
            }
            Value::String(text) if text == "{life}" => {
                let life = call.faults.issue.expires_in.text(issued.map_or(0, |issued| issued.life))?;
                match serde_json::from_str(&life) {
                    Ok(number) => number,
                    Err(_) => Value::String(life),
                }
            }
            Value::String(text) => {
                let filled = values.fill(text, call, issued);
                let is_number =
                    ["{life_ms}", "{expires_epoch}", "{expires_epoch_ms}", "{now_epoch}"].contains(&text.as_str());
                match filled.parse::<u64>() {
                    Ok(number) if is_number => number.into(),
                    Ok(_) | Err(_) => Value::String(filled),
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
        })
    }
}
