//! Values in TOML, as a person would write them.

use serde_json::Value;

/// Writes a text in quotes.
pub fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// Writes a key: bare where TOML permits it.
pub(super) fn key(name: &str) -> String {
    let is_bare = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if is_bare { name.to_owned() } else { quoted(name) }
}

/// Writes a text, or a list of several.
pub fn one_or_many(texts: &[String]) -> String {
    match texts {
        [one] => quoted(one),
        many => format!("[{}]", many.iter().map(|text| quoted(text)).collect::<Vec<_>>().join(", ")),
    }
}

/// Writes a table of texts in one line.
pub fn table<'a>(pairs: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let members: Vec<String> = pairs.into_iter().map(|(name, value)| format!("{} = {value}", key(name))).collect();
    if members.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", members.join(", ")) }
}

/// Writes JSON as TOML has it. `null` has no form there and becomes an empty text.
pub fn toml_value(value: &Value) -> String {
    match value {
        Value::Null => "\"\"".to_owned(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(text) => quoted(text),
        Value::Array(items) => format!("[{}]", items.iter().map(toml_value).collect::<Vec<_>>().join(", ")),
        Value::Object(members) => table(members.iter().map(|(name, member)| (name.as_str(), toml_value(member)))),
    }
}
