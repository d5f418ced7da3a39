//! The reading of the token answer: where the token and its life stand, and how a success is known.

use serde_json::{Map, Value};

use super::observed::ObservedAnswer;
use super::plain_text::{is_placeholder, is_plain_text, squashed};
use super::sorted_exchanges::{PointedValue, pointed_values, token_place};
use super::value_meaning::ValueMeanings;
use crate::base::time::of_rfc3339;

/// The section of the profile, for remarks.
pub(super) const RESPONSE: &str = "token.response";

/// The places in the token answer.
#[derive(Clone, Debug, Default)]
pub(super) struct LearnedAnswer {
    /// JSON pointers to the token, tried in their order.
    pub access_token: Vec<String>,
    pub token_type: Vec<String>,
    /// The word of the type in the examples.
    pub type_word: Option<String>,
    pub expires_in: Vec<String>,
    pub in_milliseconds: bool,
    /// The number of the example, if it is one of seconds or milliseconds.
    pub life: Option<u64>,
    pub expires_at: Vec<String>,
    pub date: Option<DateForm>,
    /// A place and its value in a success.
    pub success: Option<(String, Value)>,
    /// Places of codes, for the log.
    pub codes: Vec<String>,
    /// True if no answer names a life.
    pub lacks_life: bool,
}

/// The form of a date in an answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum DateForm {
    Milliseconds,
    Rfc3339,
    Seconds,
}

/// Returns whether a name is that of a code, which may be shown.
pub(super) fn is_code_name(name: &str) -> bool {
    const NAMES: [&str; 14] = [
        "code",
        "error",
        "errorcode",
        "statuscode",
        "responsecode",
        "resultcode",
        "returncode",
        "rc",
        "errcode",
        "reasoncode",
        "httpcode",
        "faultcode",
        "type",
        "name",
    ];
    NAMES.contains(&squashed(name).as_str())
}

/// Returns a code of an answer if it is plain: words and numbers.
pub(super) fn plain_code(value: &Value) -> Option<String> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Array(_) | Value::Bool(_) | Value::Null | Value::Object(_) => return None,
    };
    let short = text.len() <= 64 && !text.contains(' ') && !is_placeholder(&text);
    let is_number = text.len() <= 8 && text.bytes().all(|b| b.is_ascii_digit());
    (short && (is_number || is_plain_text(&text))).then_some(text)
}

impl LearnedAnswer {
    /// Learns from the answers of the token endpoint. Without one that has a token, the usual names are guessed.
    pub(super) fn learn(answers: &[&ObservedAnswer], meanings: &mut ValueMeanings) -> Self {
        let with_token = answers.iter().filter(|answer| answer.is_success()).find_map(|answer| {
            let json = answer.json.as_ref()?;
            Some((json, token_place(json)?.0))
        });
        let Some((json, place)) = with_token else { return Self::guessed(meanings) };
        let values = pointed_values(json);
        let mut learned = Self { access_token: vec![place], ..Self::default() };
        let named = |names: &[&str]| values.iter().find(|found| names.contains(&squashed(found.name).as_str()));
        if let Some(kind) = named(&["tokentype"]) {
            learned.token_type.push(kind.pointer.clone());
            learned.type_word =
                kind.value.as_str().filter(|word| is_plain_text(word) && word.len() <= 20).map(ToOwned::to_owned);
        }
        learned.take_life(&values, meanings);
        learned.take_success(&values, answers, meanings);
        learned
    }

    fn guessed(meanings: &mut ValueMeanings) -> Self {
        meanings.guess(RESPONSE, "no example shows an answer with a token: these are the usual names".to_owned());
        let all = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Self {
            access_token: all(&["/access_token", "/accessToken", "/token", "/data/access_token", "/data/accessToken"]),
            token_type: all(&["/token_type", "/tokenType"]),
            expires_in: all(&["/expires_in", "/expiresIn", "/data/expires_in", "/data/expiresIn"]),
            life: Some(1800),
            lacks_life: true,
            ..Self::default()
        }
    }

    fn take_life(&mut self, values: &[PointedValue<'_>], meanings: &mut ValueMeanings) {
        for found in values {
            let name = squashed(found.name);
            let is_refresh = name.contains("refresh") || name.contains("id_token") || name.starts_with("ext");
            let speaks = ["expire", "expiry", "expiration", "ttl", "validity", "validfor", "validuntil", "lifetime"]
                .iter()
                .any(|word| name.contains(word));
            if is_refresh || !speaks {
                continue;
            }
            if name.contains("minute") || name.contains("hour") || name.contains("day") {
                meanings.guess(
                    RESPONSE,
                    format!("`{}` counts in another unit than seconds, so it is not read", found.name),
                );
                continue;
            }
            let number = number(found.value);
            let is_date = found.value.as_str().is_some_and(|text| of_rfc3339(text).is_some());
            match number {
                _ if is_date && self.expires_at.is_empty() => self.take_date(found, DateForm::Rfc3339),
                Some(number) if number >= 1_000_000_000_000 && self.expires_at.is_empty() => {
                    self.take_date(found, DateForm::Milliseconds);
                }
                Some(number) if number >= 1_000_000_000 && self.expires_at.is_empty() => {
                    self.take_date(found, DateForm::Seconds);
                }
                Some(number) if number < 1_000_000_000 && self.expires_in.is_empty() => {
                    self.expires_in.push(found.pointer.clone());
                    self.in_milliseconds =
                        name.ends_with("ms") || name.contains("milli") || (number >= 200_000 && number % 1000 == 0);
                    if self.in_milliseconds {
                        meanings.guess(
                            RESPONSE,
                            format!("`{}` counts milliseconds: the number of the example is large", found.name),
                        );
                    }
                    self.life = Some(number).filter(|number| *number > 0);
                }
                None if found.value.as_str().is_some_and(is_placeholder) && self.expires_in.is_empty() => {
                    meanings.guess(RESPONSE, format!("`{}` is a number of seconds", found.name));
                    self.expires_in.push(found.pointer.clone());
                    self.life = Some(1800);
                }
                Some(_) | None => {}
            }
        }
        if self.expires_in.is_empty() && self.expires_at.is_empty() {
            self.lacks_life = true;
            meanings.guess(
                RESPONSE,
                "no answer names a life: 5 minutes, unless the token is a JWT with an `exp`; ask the bank".to_owned(),
            );
        }
    }

    fn take_date(&mut self, found: &PointedValue<'_>, form: DateForm) {
        self.expires_at.push(found.pointer.clone());
        self.date = Some(form);
    }

    fn take_success(&mut self, values: &[PointedValue<'_>], answers: &[&ObservedAnswer], meanings: &mut ValueMeanings) {
        let others: Vec<&Value> = answers
            .iter()
            .filter_map(|answer| answer.json.as_ref())
            .filter(|json| token_place(json).is_none())
            .collect();
        let differs = |found: &&PointedValue<'_>| {
            others.iter().any(|other| other.pointer(&found.pointer).is_some_and(|value| value != found.value))
        };
        let is_code = |found: &&PointedValue<'_>| {
            is_code_name(found.name) || ["status", "success"].contains(&squashed(found.name).as_str())
        };
        let is_shown = |found: &&PointedValue<'_>| found.value.is_boolean() || plain_code(found.value).is_some();
        let likely = |found: &&PointedValue<'_>| {
            let name = squashed(found.name);
            found.value.is_boolean() && name == "success" || name.ends_with("code") && plain_code(found.value).is_some()
        };
        let codes = || values.iter().filter(is_code).filter(is_shown);
        let proven = codes().find(differs);
        if let Some(found) = proven.or_else(|| codes().find(likely)) {
            self.codes.push(found.pointer.clone());
            self.success = Some((found.pointer.clone(), found.value.clone()));
            if proven.is_none() {
                meanings.guess("token", format!("`{}` has another value when there is no token", found.pointer));
            }
        }
    }

    /// A success as the conversation has it: the places that are read, and stand-ins for the rest.
    pub(super) fn played(&self) -> Value {
        let mut answer = Value::Object(Map::new());
        put(&mut answer, self.access_token.first(), "token-1".into());
        put(&mut answer, self.token_type.first(), self.type_word.as_deref().unwrap_or("Bearer").into());
        put(&mut answer, self.expires_in.first(), self.life.unwrap_or(1800).into());
        let date = match self.date {
            Some(DateForm::Milliseconds) => Value::from(1_550_133_185_000_u64),
            Some(DateForm::Seconds) => Value::from(1_550_133_185_u64),
            Some(DateForm::Rfc3339) => Value::from("2019-02-14T08:33:05Z"),
            None => Value::Null,
        };
        put(&mut answer, self.expires_at.first().filter(|_| !date.is_null()), date);
        if let Some((pointer, value)) = &self.success {
            put(&mut answer, Some(pointer), value.clone());
        }
        answer
    }

    /// The life that the conversation's success gives, in seconds.
    pub(super) fn played_life(&self) -> u64 {
        let seconds = match (self.expires_in.is_empty(), self.date) {
            (false, _) if self.in_milliseconds => self.life.unwrap_or(1_800_000) / 1000,
            (false, _) => self.life.unwrap_or(1800),
            (true, Some(_)) => 1800,
            (true, None) => 300,
        };
        seconds.min(24 * 3600)
    }
}

/// A number, or the number in a text.
fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => text.trim().parse().ok(),
        Value::Array(_) | Value::Bool(_) | Value::Null | Value::Object(_) => None,
    }
}

/// Puts a value at a pointer of an object, and makes the objects on the way.
pub(super) fn put(document: &mut Value, pointer: Option<&String>, value: Value) {
    let Some(pointer) = pointer else { return };
    let mut place = document;
    for name in pointer.split('/').skip(1) {
        if !place.is_object() {
            *place = Value::Object(Map::new());
        }
        let Value::Object(members) = place else { return };
        place = members.entry(name.to_owned()).or_insert(Value::Null);
    }
    *place = value;
}
