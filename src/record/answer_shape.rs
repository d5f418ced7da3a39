//! The shape of answers: which fields, members and codes they have, and of which types.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::recorded_call::RecordedCall;

/// Members that hold the code of an error or of an outcome, without case and punctuation.
const CODES: [&str; 9] =
    ["error", "errorcode", "errcode", "statuscode", "responsecode", "respcode", "resultcode", "rc", "code"];

/// What the answers of one call with one status have in common, and what only some of them have.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct AnswerShape {
    /// Names of header fields.
    pub fields: BTreeSet<String>,
    /// Types by member, as in `/data/*/amount`.
    pub members: BTreeMap<String, BTreeSet<&'static str>>,
    /// Codes of errors and outcomes.
    pub codes: BTreeSet<String>,
    /// Lives of tokens.
    pub lives: BTreeSet<String>,
}

/// Shapes by call and status.
pub type AnswerShapes = BTreeMap<String, BTreeMap<u16, AnswerShape>>;

impl AnswerShape {
    /// The shape of one answer.
    pub fn of(call: &RecordedCall) -> Self {
        let mut shape = Self::default();
        shape.fields.extend(call.headers.iter().map(|(name, _)| name.to_ascii_lowercase()));
        match (&call.json, &call.body) {
            (Some(json), _) => {
                members(json, String::new(), &mut shape.members);
                shape.codes.extend(error_code(json));
            }
            (None, Some(_)) => drop(shape.members.insert(String::new(), BTreeSet::from(["text"]))),
            (None, None) if call.unread => {}
            (None, None) => drop(shape.members.insert(String::new(), BTreeSet::from(["nothing"]))),
        }
        shape.lives.extend(call.life.clone());
        shape
    }

    /// Adds what another answer has.
    pub fn join(&mut self, other: Self) {
        self.fields.extend(other.fields);
        for (name, types) in other.members {
            self.members.entry(name).or_default().extend(types);
        }
        self.codes.extend(other.codes);
        self.lives.extend(other.lives);
    }

    /// Says what `other` has that this has not, and what it has otherwise. Names and types only.
    pub fn news(&self, other: &Self) -> Vec<String> {
        let mut news = Vec::new();
        news.extend(other.fields.difference(&self.fields).map(|name| format!("the header field `{name}` is new")));
        for (name, types) in &other.members {
            match self.members.get(name) {
                None if !is_below_new(name, &other.members, &self.members) => {
                    news.push(format!("`{}` ({}) is new", shown(name), joined(types)));
                }
                Some(known) if !is_covered(known, types) => {
                    news.push(format!("`{}` was {} and is {}", shown(name), joined(known), joined(types)));
                }
                None | Some(_) => {}
            }
        }
        news.extend(other.codes.difference(&self.codes).map(|code| format!("the code `{code}` is new")));
        news
    }
}

/// Returns whether the member above is new itself, which says enough.
fn is_below_new(
    name: &str,
    found: &BTreeMap<String, BTreeSet<&'static str>>,
    known: &BTreeMap<String, BTreeSet<&'static str>>,
) -> bool {
    name.rsplit_once('/').is_some_and(|(above, _)| found.contains_key(above) && !known.contains_key(above))
}

/// A member that may be absent or null is no other one.
fn is_covered(known: &BTreeSet<&'static str>, types: &BTreeSet<&'static str>) -> bool {
    types.iter().all(|kind| *kind == "null" || known.contains(kind)) || known.iter().all(|kind| *kind == "null")
}

pub(super) fn joined(types: &BTreeSet<&'static str>) -> String {
    types.iter().copied().collect::<Vec<_>>().join(" or ")
}

pub(super) fn shown(name: &str) -> &str {
    if name.is_empty() { "the body" } else { name }
}

fn members(value: &Value, at: String, into: &mut BTreeMap<String, BTreeSet<&'static str>>) {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    into.entry(at.clone()).or_default().insert(kind);
    match value {
        Value::Array(items) => items.iter().for_each(|item| members(item, format!("{at}/*"), into)),
        Value::Object(found) => found.iter().for_each(|(name, member)| members(member, format!("{at}/{name}"), into)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The code of an error or an outcome in a body: the first that a search from the outside in finds.
pub fn error_code(value: &Value) -> Option<String> {
    let Value::Object(found) = value else {
        return match value {
            Value::Array(items) => items.first().and_then(error_code),
            _ => None,
        };
    };
    let code = |(name, member): (&String, &Value)| {
        let squashed: String =
            name.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
        let known = CODES.contains(&squashed.as_str());
        match member {
            Value::String(text) if known && text.len() <= 64 => Some(text.clone()),
            Value::Number(number) if known => Some(number.to_string()),
            _ => None,
        }
    };
    found.iter().find_map(code).or_else(|| found.values().find_map(error_code))
}

/// The shapes of calls. `by_request`: calls are told apart by method and path.
pub fn shapes<'a>(calls: impl IntoIterator<Item = &'a RecordedCall>, by_request: bool) -> AnswerShapes {
    let mut shapes = AnswerShapes::new();
    for call in calls {
        let name = if by_request { call.call() } else { RecordedCall { asked: None, ..call.clone() }.call() };
        shapes.entry(name).or_default().entry(call.status).or_default().join(AnswerShape::of(call));
    }
    shapes
}
