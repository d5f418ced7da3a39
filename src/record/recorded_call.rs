//! One call of a recording: as it is written into a conversation, and as it is read from one.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::Value;

use super::scrubber::ScrubbedBody;
use crate::learn::{one_or_many, quoted, table, toml_value};

/// What a call was for.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum CallPurpose {
    /// It brought a token, or failed to.
    Token,
    /// A call of a login of several steps, by the number of steps before it.
    Step(usize),
    /// A call with a token.
    Resource,
}

/// The request of a call. Nothing in it is secret.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct AskedCall {
    pub method: String,
    /// The path, with stand-ins.
    pub path: String,
    /// The path with `{}` for each segment that is a stand-in.
    pub pattern: String,
    pub query: Vec<(String, String)>,
    /// Header fields; `{token}` stands for the token.
    pub headers: Vec<(String, String)>,
    pub json: Option<Value>,
    pub body: Option<String>,
}

/// A call and its answer. Nothing in it is secret.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordedCall {
    pub purpose: CallPurpose,
    pub about: String,
    /// Absent in a conversation that was not recorded.
    pub asked: Option<AskedCall>,
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub json: Option<Value>,
    pub body: Option<String>,
    /// The body is not known.
    pub unread: bool,
    /// The life of the token that it brought, as a duration of a config.
    pub life: Option<String>,
    /// The token that it brought: a stand-in.
    pub token: Option<String>,
    /// What it proved about the token that was spent.
    pub verdict: Option<String>,
    /// The lines that say what must come of it.
    pub expected: String,
}

/// Returns whether TOML can say this value as it is.
fn is_toml(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(_) | Value::String(_) => true,
        Value::Number(number) => number.is_i64() || number.is_f64(),
        Value::Array(items) => items.iter().all(is_toml),
        Value::Object(members) => members.values().all(is_toml),
    }
}

/// The key and the value of a body, if there is one.
fn body_entry(json: Option<&Value>, body: Option<&String>) -> Option<(&'static str, String)> {
    match (json, body) {
        (Some(value @ Value::Object(_)), _) if is_toml(value) => Some(("json", toml_value(value))),
        (Some(value), _) => Some(("body", quoted(&value.to_string()))),
        (None, Some(text)) => Some(("body", quoted(text))),
        (None, None) => None,
    }
}

/// Fields of a head as a table; a name that comes twice has a list.
fn field_table(fields: &[(String, String)]) -> String {
    let mut grouped: Vec<(&str, Vec<String>)> = Vec::new();
    for (name, value) in fields {
        match grouped.iter_mut().find(|(known, _)| known == name) {
            Some((_, values)) => values.push(value.clone()),
            None => grouped.push((name, vec![value.clone()])),
        }
    }
    table(grouped.iter().map(|(name, values)| (*name, one_or_many(values))))
}

impl RecordedCall {
    /// The call as a part of a conversation file.
    pub fn text(&self) -> String {
        let part = match self.purpose {
            CallPurpose::Token => "answer",
            CallPurpose::Step(_) => "login",
            CallPurpose::Resource => "resource",
        };
        let mut text = format!("\n[[{part}]]\n");
        if !self.about.is_empty() {
            let _ = writeln!(text, "about   = {}", quoted(&self.about));
        }
        if let Some(asked) = &self.asked {
            let mut entries = vec![
                ("method", quoted(&asked.method)),
                ("path", quoted(&asked.path)),
                ("pattern", quoted(&asked.pattern)),
                ("query", field_table(&asked.query)),
                ("headers", field_table(&asked.headers)),
            ];
            entries.extend(body_entry(asked.json.as_ref(), asked.body.as_ref()));
            if let CallPurpose::Step(step) = self.purpose {
                entries.push(("step", step.to_string()));
            }
            let _ = writeln!(text, "asked   = {}", table(entries));
        }
        let _ = writeln!(text, "status  = {}", self.status);
        let _ = writeln!(text, "headers = {}", field_table(&self.headers));
        if let Some((name, value)) = body_entry(self.json.as_ref(), self.body.as_ref()) {
            let _ = writeln!(text, "{name}    = {value}");
        }
        text + &self.expected
    }

    /// The body's bytes, as a player of the conversation makes them.
    pub fn content(&self) -> Vec<u8> {
        match (&self.json, &self.body) {
            (Some(json), _) => serde_json::to_vec(json).unwrap_or_default(),
            (None, Some(text)) => text.clone().into_bytes(),
            (None, None) => Vec::new(),
        }
    }

    /// The answer's head, as a player of the conversation makes it.
    pub fn head(&self) -> HeaderMap {
        let mut head = HeaderMap::new();
        for (name, value) in &self.headers {
            if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value)) {
                head.append(name, value);
            }
        }
        head
    }

    /// Puts a scrubbed body in.
    pub(super) fn with_body(mut self, body: ScrubbedBody) -> Self {
        match body {
            ScrubbedBody::Empty => {}
            ScrubbedBody::Json(value) => self.json = Some(value),
            ScrubbedBody::Text(text) => self.body = Some(text),
            ScrubbedBody::LeftOut(why) => {
                self.unread = true;
                let _ = write!(self.about, "; its body is left out: {why}");
            }
        }
        self
    }

    /// What it is a call of: method and path of the request, if that was recorded, and its purpose.
    pub fn call(&self) -> String {
        match (&self.asked, self.purpose) {
            (Some(asked), _) => format!("{} {}", asked.method, asked.pattern),
            (None, CallPurpose::Token | CallPurpose::Step(_)) => "the token call".to_owned(),
            (None, CallPurpose::Resource) => "a call".to_owned(),
        }
    }
}

/// A setting that is a private key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RecordedKey {
    /// `rsa`, `p256`, `p384` or `ed25519`.
    pub kind: String,
    /// Its name at the bank: a stand-in.
    pub id: Option<String>,
    /// True if there is a certificate.
    pub certificate: bool,
}

/// The calls of one conversation file.
#[derive(Clone, Debug)]
pub struct RecordedConversation {
    /// The name of the provider that it was recorded of; empty: it was not recorded.
    pub provider: String,
    /// The name of the profile that the provider had; empty: it was not recorded.
    pub profile: String,
    pub base_url: String,
    pub token_url: Option<String>,
    /// Text settings with stand-ins.
    pub settings: BTreeMap<String, String>,
    /// The names of the settings that are secret.
    pub secrets: Vec<String>,
    /// Settings that are keys.
    pub keys: BTreeMap<String, RecordedKey>,
    pub calls: Vec<RecordedCall>,
}

#[derive(Deserialize)]
struct FileText {
    #[serde(default)]
    recorded: RecordedText,
    #[serde(default)]
    base_url: String,
    token_url: Option<String>,
    #[serde(default)]
    settings: toml::Table,
    #[serde(default)]
    answer: Vec<RecordedCallText>,
    #[serde(default)]
    login: Vec<RecordedCallText>,
    #[serde(default)]
    resource: Vec<RecordedCallText>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RecordedText {
    #[serde(default)]
    provider: String,
    #[serde(default)]
    profile: String,
    #[serde(default)]
    secrets: Vec<String>,
    #[serde(default)]
    keys: BTreeMap<String, String>,
    #[serde(rename = "began", default)]
    _began: String,
}

#[derive(Deserialize)]
struct RecordedCallText {
    #[serde(default)]
    about: String,
    asked: Option<AskedText>,
    status: u16,
    #[serde(default)]
    headers: BTreeMap<String, FieldValues>,
    json: Option<toml::Table>,
    body: Option<String>,
    #[serde(default)]
    unread: bool,
    grant: Option<GrantText>,
    verdict: Option<String>,
}

#[derive(Deserialize)]
struct GrantText {
    token: String,
    life: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AskedText {
    method: String,
    path: String,
    pattern: String,
    #[serde(default)]
    query: BTreeMap<String, FieldValues>,
    #[serde(default)]
    headers: BTreeMap<String, FieldValues>,
    json: Option<toml::Table>,
    body: Option<String>,
    #[serde(default)]
    step: usize,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum FieldValues {
    Many(Vec<String>),
    One(String),
}

fn fields(table: BTreeMap<String, FieldValues>) -> Vec<(String, String)> {
    let values = |values| match values {
        FieldValues::Many(values) => values,
        FieldValues::One(value) => vec![value],
    };
    table.into_iter().flat_map(|(name, all)| values(all).into_iter().map(move |value| (name.clone(), value))).collect()
}

/// A body as it is read: JSON wherever it can be.
fn body(json: Option<toml::Table>, body: Option<String>) -> (Option<Value>, Option<String>) {
    match (json.and_then(|json| serde_json::to_value(json).ok()), body) {
        (Some(json), _) => (Some(json), None),
        (None, Some(text)) => match serde_json::from_str::<Value>(&text) {
            Ok(value @ (Value::Array(_) | Value::Object(_))) => (Some(value), None),
            Ok(_) | Err(_) => (None, Some(text)),
        },
        (None, None) => (None, None),
    }
}

impl RecordedCallText {
    fn read(self, purpose: CallPurpose) -> RecordedCall {
        let (json, text) = body(self.json, self.body);
        let mut purpose = purpose;
        let asked = self.asked.map(|asked| {
            if let CallPurpose::Step(step) = &mut purpose {
                *step = asked.step;
            }
            let (json, body) = body(asked.json, asked.body);
            AskedCall {
                method: asked.method,
                path: asked.path,
                pattern: asked.pattern,
                query: fields(asked.query),
                headers: fields(asked.headers),
                json,
                body,
            }
        });
        RecordedCall {
            purpose,
            about: self.about,
            asked,
            status: self.status,
            headers: fields(self.headers),
            json,
            body: text,
            unread: self.unread,
            life: self.grant.as_ref().map(|grant| grant.life.clone()),
            token: self.grant.map(|grant| grant.token),
            verdict: self.verdict,
            expected: String::new(),
        }
    }
}

impl RecordedConversation {
    /// Reads a conversation file, recorded or not. The error is for a person.
    pub fn parse(text: &str) -> Result<Self, String> {
        let file: FileText = toml::from_str(text).map_err(|error| error.to_string())?;
        let calls = file.answer.into_iter().map(|call| call.read(CallPurpose::Token));
        let calls = calls.chain(file.login.into_iter().map(|call| call.read(CallPurpose::Step(0))));
        let calls = calls.chain(file.resource.into_iter().map(|call| call.read(CallPurpose::Resource))).collect();
        let key = |(name, kind): (String, String)| {
            let table = file.settings.get(&name).and_then(toml::Value::as_table);
            let text = |member: &str| table.and_then(|table| table.get(member)?.as_str().map(str::to_owned));
            let (id, certificate) = (text("id"), text("certificate").is_some());
            (name, RecordedKey { kind, id, certificate })
        };
        let keys = file.recorded.keys.into_iter().map(key).collect();
        let settings =
            file.settings.into_iter().filter_map(|(name, value)| Some((name, value.as_str()?.to_owned()))).collect();
        Ok(Self {
            provider: file.recorded.provider,
            profile: file.recorded.profile,
            base_url: file.base_url,
            token_url: file.token_url,
            settings,
            secrets: file.recorded.secrets,
            keys,
            calls,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let call = |purpose, json: Option<Value>, body: Option<&str>| RecordedCall {
            purpose,
            about: "a \"call\"".to_owned(),
            asked: Some(AskedCall {
                method: "GET".to_owned(),
                path: "/v1/accounts/x".to_owned(),
                pattern: "/v1/accounts/{}".to_owned(),
                query: vec![("page".to_owned(), "2".to_owned())],
                headers: vec![("authorization".to_owned(), "Bearer {token}".to_owned())],
                json: None,
                body: Some("a=b".to_owned()),
            }),
            status: 200,
            headers: vec![("a".to_owned(), "1".to_owned()), ("a".to_owned(), "2".to_owned())],
            json,
            body: body.map(str::to_owned),
            unread: false,
            life: None,
            token: None,
            verdict: None,
            expected: String::new(),
        };
        let calls = [
            call(CallPurpose::Token, Some(json!({"a": {"b": [1, 2.5, "x"]}, "c": true})), None),
            call(CallPurpose::Step(1), Some(json!({"n": null, "big": 18446744073709551615_u64})), None),
            call(CallPurpose::Resource, Some(json!([{"a": 1}])), None),
            call(CallPurpose::Resource, None, Some("<a/>\n\"")),
            call(CallPurpose::Resource, None, None),
        ];
        let text: String = calls.iter().map(RecordedCall::text).collect();
        let text = format!("about = \"x\"\nrecorded = {{ provider = \"p\", profile = \"scb\" }}\n{text}");
        let read = RecordedConversation::parse(&text).expect("it is read");
        assert_eq!(read.calls, calls);
        assert_eq!((read.provider.as_str(), read.profile.as_str()), ("p", "scb"));
    }
}
