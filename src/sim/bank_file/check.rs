//! What a bank demands of a request, one demand at a time.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use regex::Regex;
use serde::Deserialize;

use super::answer::AnswerText;
use super::proof::{Jws, Jwt, SignedText};
use super::text::Values;
use crate::sim::call::SimCall;
use crate::sim::sim_response::SimResponse;

/// One demand, with the answer to a request that does not meet it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Check {
    header: Option<String>,
    query: Option<String>,
    /// A field of a form, or a pointer into JSON (RFC 6901).
    field: Option<String>,
    /// The identifier and the secret of Basic credentials.
    basic: Option<[String; 2]>,
    signature: Option<SignedText>,
    jwt: Option<Jwt>,
    jws: Option<Jws>,
    equals: Option<String>,
    matches: Option<String>,
    #[serde(rename = "else")]
    otherwise: Option<AnswerText>,
}

impl Check {
    /// The answer of the first check that fails.
    pub(super) fn first_failure(checks: &[Check], call: &SimCall, values: Values<'_>) -> Option<SimResponse> {
        let failed = checks.iter().find(|check| !check.holds(call, values))?;
        let answer = failed.otherwise.clone().unwrap_or_else(|| AnswerText::unexpected(&failed.subject()));
        Some(answer.fill(call, values, None))
    }

    /// Finds what the types of the format do not rule out; `settings` are the names of the bank's.
    pub(super) fn judge(&self, settings: &[&str]) -> Result<(), String> {
        let places = [&self.header, &self.query, &self.field].into_iter().flatten().count();
        let proofs = usize::from(self.basic.is_some())
            + usize::from(self.signature.is_some())
            + usize::from(self.jwt.is_some())
            + usize::from(self.jws.is_some());
        if places + proofs != 1 {
            return Err(format!("a check is about one thing; this one names {}: {}", places + proofs, self.subject()));
        }
        if let Some(pattern) = &self.matches {
            Regex::new(pattern).map_err(|error| format!("`matches` of {}: {error}", self.subject()))?;
        }
        let keys = [
            self.signature.as_ref().map(|signature| signature.key.as_str()),
            self.jwt.as_ref().map(|jwt| jwt.key.as_str()),
            self.jws.as_ref().map(|jws| jws.key.as_str()),
        ];
        match keys.into_iter().flatten().find(|key| !settings.contains(key)) {
            Some(key) => Err(format!("`key = \"{key}\"` is none of the bank's settings")),
            None => Ok(()),
        }
    }

    /// The thing that the check is about.
    fn subject(&self) -> String {
        match (&self.header, &self.query, &self.field) {
            (Some(name), _, _) => format!("header {name}"),
            (_, Some(name), _) => format!("query parameter {name}"),
            (_, _, Some(name)) => format!("field {name}"),
            (None, None, None) if self.basic.is_some() => "Basic credentials".to_owned(),
            (None, None, None) => "signature".to_owned(),
        }
    }

    fn holds(&self, call: &SimCall, values: Values<'_>) -> bool {
        if let Some([id, secret]) = &self.basic {
            let wanted = format!("{}:{}", values.fill(id, call, None), values.fill(secret, call, None));
            let encoded = call.header("authorization").and_then(|field| field.strip_prefix("Basic "));
            return encoded == Some(&*BASE64_STANDARD.encode(wanted));
        }
        if let Some(signature) = &self.signature {
            return signature.is_valid(call, values);
        }
        if let Some(jwt) = &self.jwt {
            return jwt.is_valid(call, values);
        }
        if let Some(jws) = &self.jws {
            return jws.is_valid(call, values);
        }
        let found = place(call, self.header.as_deref(), self.query.as_deref(), self.field.as_deref());
        let Some(found) = found else { return false };
        let equal = self.equals.as_ref().is_none_or(|wanted| values.fill(wanted, call, None) == found);
        let pattern = self
            .matches
            .as_ref()
            .is_none_or(|pattern| Regex::new(pattern).is_ok_and(|pattern| pattern.is_match(&found)));
        equal && pattern
    }
}

/// The text in a place of a call.
pub(super) fn place(call: &SimCall, header: Option<&str>, query: Option<&str>, field: Option<&str>) -> Option<String> {
    match (header, query, field) {
        (Some(name), _, _) => call.header(name).map(str::to_owned),
        (_, Some(name), _) => call.parameter(name),
        (_, _, Some(pointer)) if pointer.starts_with('/') => {
            let body: serde_json::Value = serde_json::from_slice(&call.body).ok()?;
            let found = body.pointer(pointer)?;
            Some(found.as_str().map_or_else(|| found.to_string(), str::to_owned))
        }
        (_, _, Some(name)) => {
            let mut fields = form_urlencoded::parse(&call.body);
            fields.find(|(known, _)| known == name).map(|(_, value)| value.into_owned())
        }
        (None, None, None) => None,
    }
}
