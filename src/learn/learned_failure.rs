//! Failures of the token endpoint, from the error answers in the examples.

use serde_json::{Map, Value};

use super::learned_answer::{is_code_name, plain_code, put};
use super::observed::ObservedAnswer;
use super::sorted_exchanges::{pointed_values, token_place};

/// A `[[token.failure]]`, or a failure that needs no rule.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct LearnedFailure {
    pub status: u16,
    /// The place of the code, and the code.
    pub code: Option<(String, String)>,
    /// The class in the words of a profile.
    pub class: &'static str,
    /// True if the class was guessed from words, not from the status or a code of RFC 6749.
    pub guessed: bool,
}

/// Codes of RFC 6749 section 5.2, and others that say the same.
const FATAL: [&str; 8] = [
    "invalid_client",
    "invalid_request",
    "invalid_grant",
    "invalid_scope",
    "unauthorized_client",
    "unsupported_grant_type",
    "access_denied",
    "invalid_credentials",
];

/// Returns whether a code belongs to a token endpoint, wherever an example shows it.
pub(super) fn is_code_of_token_endpoint(code: &str) -> bool {
    ["invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type", "invalid_scope"]
        .contains(&code)
}

/// The place of the code in an error answer, and the code. `at`: the place where a success has its code.
pub(super) fn code_of(answer: &ObservedAnswer, at: Option<&String>) -> Option<(String, String)> {
    let Some(json) = &answer.json else {
        return answer
            .code
            .clone()
            .filter(|code| plain_code(&code.as_str().into()).is_some())
            .and_then(|code| Some((at?.clone(), code)));
    };
    let known = at.and_then(|pointer| Some((pointer.clone(), plain_code(json.pointer(pointer)?)?)));
    known.or_else(|| {
        let values = pointed_values(json);
        // A code that is a word or longer than a status tells more than a status that is repeated.
        let codes = || values.iter().filter(|found| is_code_name(found.name));
        let repeats = |code: &str| answer.status.is_some_and(|status| code == status.to_string());
        let of = |skip: bool| {
            codes().find_map(|found| {
                let code = plain_code(found.value).filter(|code| !skip || !repeats(code))?;
                Some((found.pointer.clone(), code))
            })
        };
        of(true).or_else(|| of(false))
    })
}

/// All words of an answer, in small letters, for looking at: they are never copied.
pub(super) fn words_of_answer(answer: &ObservedAnswer) -> String {
    let mut text = answer.label.to_lowercase();
    for found in answer.json.iter().flat_map(pointed_values).take(100) {
        if let Some(value) = found.value.as_str() {
            text.push(' ');
            text.push_str(&value.to_lowercase());
        }
    }
    text.extend(answer.header("www-authenticate").map(|value| format!(" {}", value.to_lowercase())));
    text
}

impl LearnedFailure {
    /// Learns from one answer; `None` if it is a success or tells nothing.
    pub(super) fn learn(answer: &ObservedAnswer, code_at: Option<&String>) -> Option<Self> {
        if answer.is_success() && answer.json.as_ref().is_some_and(|json| token_place(json).is_some()) {
            return None;
        }
        let code = code_of(answer, code_at);
        let status = match (answer.status, &code) {
            (Some(status), _) => status,
            (None, Some((_, code))) if code == "invalid_client" => 401,
            (None, Some(_)) => 400,
            (None, None) => return None,
        };
        if status < 300 && code.is_none() || (300..400).contains(&status) {
            return None;
        }
        let words = words_of_answer(answer);
        let says = |all: &[&str]| all.iter().any(|word| words.contains(word));
        let is_known = code.as_ref().is_some_and(|(_, code)| FATAL.contains(&code.as_str()));
        let (class, guessed) = match status {
            _ if says(&["working hours", "business hours", "non-working", "maintenance window"]) => ("closed", true),
            _ if is_known => ("fatal", false),
            429 => ("rate-limited", false),
            400 | 401 | 403 => ("fatal", false),
            500..=599 => ("transient", false),
            _ if says(&["rate limit", "too many", "quota", "throttl"]) => ("rate-limited", true),
            _ if says(&["invalid", "denied", "unauthor", "missing", "credential", "client", "secret", "not found"]) => {
                ("fatal", true)
            }
            _ => ("transient", true),
        };
        Some(Self { status, code, class, guessed })
    }

    /// Returns whether the class follows from the status without any rule.
    pub(super) fn is_usual(&self) -> bool {
        let usual = match self.status {
            400 | 401 | 403 => "fatal",
            429 => "rate-limited",
            _ => "transient",
        };
        self.class == usual
    }

    /// The answer as the conversation has it.
    pub(super) fn played(&self) -> Value {
        let mut answer = Value::Object(Map::new());
        if let Some((pointer, code)) = &self.code {
            put(&mut answer, Some(pointer), code.as_str().into());
        }
        answer
    }
}
