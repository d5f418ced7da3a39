//! A bank that answers what was recorded.

use std::collections::BTreeSet;

use http::StatusCode;
use http::header::HeaderName;
use serde_json::{Map, Value, json};

use super::answer::AnswerText;
use super::drawn::SettingText;
use super::{BankFile, BankText, CallText, Endpoint, TokenPlace, usual_life};
use crate::record::{CallPurpose, RecordedCall, RecordedConversation};
use crate::sim::call::SimCall;
use crate::sim::sim_response::SimResponse;
use crate::syntax::byte_size;

/// Stands for the token in a recording.
const TOKEN: &str = "{token}";
/// Stands for a segment of a path that was replaced.
const ANY: &str = "{}";
/// The most calls that an answer to an unknown one lists.
const MOST_LISTED: usize = 20;
/// Names of the token in the last answer of a login in several steps, without case and punctuation.
const TOKEN_NAMES: [&str; 5] = ["accesstoken", "token", "authtoken", "jwt", "idtoken"];

impl BankFile {
    /// The bank that recordings of one profile tell of. The error is for a person.
    pub fn of_recordings(profile: &str, recordings: &[&RecordedConversation]) -> Result<Self, String> {
        let all = || recordings.iter().flat_map(|recording| &recording.calls);
        let recorded: Vec<RecordedCall> = all().filter(|call| call.purpose == CallPurpose::Resource).cloned().collect();
        let first = recordings.first().ok_or("there is no recording")?;
        if recorded.iter().all(|call| call.asked.is_none()) {
            return Err("it has no calls with their requests: was it recorded?".to_owned());
        }
        // Stand-ins of several recordings differ, and so do their base paths if there are any in them.
        let base_path = path_of(&first.base_url).trim_end_matches('/').to_owned();
        let logins: Vec<&RecordedCall> = all()
            .filter(|call| call.purpose != CallPurpose::Resource && call.status < 300 && call.asked.is_some())
            .collect();
        let last = logins.iter().map(|call| call.purpose).max();
        let token_call = logins.iter().find(|call| Some(call.purpose) == last && token_of(call).is_some());
        let place = recorded.iter().find_map(token_place);
        if place.is_some() && token_call.is_none() {
            return Err("its calls carry a token, and no recorded answer brings one".to_owned());
        }
        let endpoint = |call: &RecordedCall, answer: AnswerText| {
            let asked = call.asked.clone().unwrap_or_default();
            let path = asked.path.strip_prefix(&base_path).map_or(asked.path.clone(), str::to_owned);
            Endpoint { method: asked.method, path, expect: Vec::new(), answer }
        };
        let token_answer = |call: &RecordedCall| {
            let token = token_of(call).unwrap_or_default();
            let json = call.json.clone().map(|json| with_places("", json, &token));
            AnswerText::recorded(
                call.status,
                &call.headers,
                json,
                call.body.as_ref().map(|text| text.replace(&token, TOKEN)),
            )
        };
        let mut open = Vec::new();
        for call in logins.iter().filter(|call| Some(call.purpose) != last) {
            let step = endpoint(call, plain(call));
            if open.iter().all(|known: &Endpoint| known.path != step.path) {
                open.push(step);
            }
        }
        let is_refusal = |call: &&RecordedCall| call.verdict.as_deref() == Some("refused");
        let text = BankText {
            base_path: base_path.clone(),
            token_url: recordings.iter().any(|recording| recording.token_url.is_some()),
            life: token_call.and_then(|call| byte_size::duration(call.life.as_deref()?)).unwrap_or_else(usual_life),
            settings: first
                .settings
                .iter()
                .map(|(name, value)| (name.clone(), SettingText::of(value, first.secrets.contains(name))))
                .chain(first.keys.iter().filter_map(|(name, key)| Some((name.clone(), SettingText::key(key)?))))
                .collect(),
            open,
            token: token_call.map(|call| endpoint(call, token_answer(call))),
            call: CallText {
                token: place,
                expect: Vec::new(),
                refused: recorded.iter().find(is_refusal).map(plain),
                answer: AnswerText::unexpected("it is not in the recording"),
                demo: None,
            },
            recorded,
        };
        let token_path = token_call.and_then(|call| Some(call.asked.as_ref()?.path.clone()));
        Ok(Self::new(profile, text, token_path.unwrap_or_default()))
    }
}

/// The path of a URL.
fn path_of(url: &str) -> &str {
    let behind = url.split_once("://").map_or(url, |(_, behind)| behind);
    behind.find('/').and_then(|at| behind.get(at..)).unwrap_or_default()
}

fn plain(call: &RecordedCall) -> AnswerText {
    AnswerText::recorded(call.status, &call.headers, call.json.clone(), call.body.clone())
}

/// The token that an answer brings.
fn token_of(call: &RecordedCall) -> Option<String> {
    fn find(value: &Value) -> Option<String> {
        let Value::Object(members) = value else { return None };
        let is_token = |name: &str| {
            let squashed: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
            TOKEN_NAMES.contains(&squashed.to_ascii_lowercase().as_str())
        };
        let here = members.iter().find_map(|(name, member)| member.as_str().filter(|_| is_token(name)));
        here.map(str::to_owned).or_else(|| members.values().find_map(find))
    }
    call.token.clone().or_else(|| find(call.json.as_ref()?)).filter(|token| !token.is_empty())
}

/// JSON with places for the token, and for times that would be over.
fn with_places(name: &str, value: Value, token: &str) -> Value {
    let lower = name.to_ascii_lowercase();
    let is_end = lower.contains("expir") || lower.contains("valid");
    let is_begin = lower.contains("issued") || lower.contains("created");
    let time = |epoch: &str| match epoch.len() {
        10 if epoch.bytes().all(|b| b.is_ascii_digit()) => Some(""),
        13 if epoch.bytes().all(|b| b.is_ascii_digit()) => Some("_ms"),
        _ => None,
    };
    match value {
        Value::String(text) if text == token => TOKEN.into(),
        Value::String(text) if text.ends_with(token) => text.replace(token, TOKEN).into(),
        Value::String(text) if is_end && text.get(4..5) == Some("-") => "{expires_rfc3339}".into(),
        Value::String(text) if is_begin && text.get(4..5) == Some("-") => "{now_rfc3339}".into(),
        Value::Number(number) if is_end && let Some(unit) = time(&number.to_string()) => {
            format!("{{expires_epoch{unit}}}").into()
        }
        Value::Array(items) => items.into_iter().map(|item| with_places(name, item, token)).collect(),
        Value::Object(members) => {
            let filled = members.into_iter().map(|(name, member)| {
                let member = with_places(&name, member, token);
                (name, member)
            });
            Value::Object(filled.collect::<Map<_, _>>())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value,
    }
}

/// Where a recorded call carries its token.
fn token_place(call: &RecordedCall) -> Option<TokenPlace> {
    let asked = call.asked.as_ref()?;
    let header = asked.headers.iter().find(|(_, value)| value.contains(TOKEN));
    let query = asked.query.iter().find(|(_, value)| value.contains(TOKEN));
    match (header, query) {
        (Some((name, value)), _) => Some(TokenPlace { header: Some(name.clone()), query: None, value: value.clone() }),
        (None, Some((name, value))) => {
            Some(TokenPlace { header: None, query: Some(name.clone()), value: value.clone() })
        }
        (None, None) => None,
    }
}

/// The answer of the recording to a call: that of the same path, or of a path of the same shape; of these one that went
/// well, to a body of the same shape. To any other call, 404 and what there is.
pub(super) fn recorded_answer(recorded: &[RecordedCall], call: &SimCall) -> SimResponse {
    let sent = serde_json::from_slice::<Value>(&call.body).ok();
    let rank = |known: &&RecordedCall| {
        let asked = known.asked.as_ref()?;
        let is_path = asked.path == call.path;
        if asked.method != call.method.as_str() || !(is_path || fits(&asked.pattern, &call.path)) {
            return None;
        }
        let same_body = asked.json.as_ref().map(names) == sent.as_ref().map(names);
        Some((is_path, known.status < 400, same_body))
    };
    // The first of the best: `max_by_key` takes the last.
    let best = recorded.iter().rev().filter(|known| rank(known).is_some()).max_by_key(rank);
    let Some(known) = best else { return unknown(recorded, call) };
    let mut answer = SimResponse::bare(StatusCode::from_u16(known.status).unwrap_or(StatusCode::OK));
    for (name, value) in &known.headers {
        if let Ok(name) = name.parse::<HeaderName>() {
            answer = answer.with(name, value);
        }
    }
    answer.content = crate::sim::sim_response::Content::Bytes(known.content().into());
    answer
}

/// Returns whether a path has the shape of a pattern.
fn fits(pattern: &str, path: &str) -> bool {
    let (mut wanted, mut found) = (pattern.split('/'), path.split('/'));
    loop {
        match (wanted.next(), found.next()) {
            (None, None) => return true,
            (Some(wanted), Some(found)) if wanted == found || wanted == ANY && !found.is_empty() => {}
            (_, _) => return false,
        }
    }
}

fn names(value: &Value) -> BTreeSet<String> {
    value.as_object().map(|members| members.keys().cloned().collect()).unwrap_or_default()
}

fn unknown(recorded: &[RecordedCall], call: &SimCall) -> SimResponse {
    let known: BTreeSet<String> =
        recorded.iter().filter(|known| known.asked.is_some()).map(RecordedCall::call).collect();
    let listed: Vec<&String> = known.iter().take(MOST_LISTED).collect();
    let asked = format!("{} {}", call.method, call.path);
    SimResponse::json(
        StatusCode::NOT_FOUND,
        json!({ "error": format!("{asked} is not in the recording"), "recorded": listed, "more": known.len() - listed.len() }),
    )
}
