//! JSON of unknown origin, bounded in depth and in number of values before it is parsed.

use serde_json::Value;

use crate::syntax::yaml;

/// The deepest nesting of an example.
pub(super) const DEEPEST: usize = 64;
/// The most values of one example: each costs memory, however short its text is.
const MOST_VALUES: usize = 1_000_000;

/// Parses one JSON text, of which the size is bounded by the caller. The error says nothing of the content.
pub(super) fn parse_bounded_json(text: &str) -> Result<Value, String> {
    let whole = text.strip_prefix('\u{feff}').unwrap_or(text);
    judge_shape(whole.as_bytes(), whole.len())?;
    serde_json::from_str(whole).map_err(|error| format!("no JSON (line {}, column {})", error.line(), error.column()))
}

/// Parses one document of YAML, of which the size is bounded by the caller. The error says nothing of the content.
pub(super) fn parse_bounded_yaml(text: &str) -> Result<Value, String> {
    let line = |why: String| {
        why.split(':').next().filter(|start| start.starts_with("line ")).unwrap_or("too large or deep").to_owned()
    };
    let value = yaml::read(text).map_err(|why| format!("no YAML within the bounds ({})", line(why)))?;
    if depth(&value) > DEEPEST {
        return Err(format!("it is nested deeper than {DEEPEST} levels"));
    }
    Ok(value)
}

/// The depth of a value; its reader has bounded it.
fn depth(value: &Value) -> usize {
    let below = match value {
        Value::Array(items) => items.iter().map(depth).max(),
        Value::Object(members) => members.values().map(depth).max(),
        Value::Bool(_) | Value::Null | Value::Number(_) | Value::String(_) => return 0,
    };
    1 + below.unwrap_or(0)
}

/// Parses the JSON value with which a text begins. Returns the value and its length in bytes; if there is none within the
/// bounds, the number of bytes that were looked at.
pub(super) fn parse_json_prefix(text: &str) -> Result<(Value, usize), usize> {
    let end = value_end(text.as_bytes())?;
    judge_shape(text.as_bytes(), end).map_err(|_| end)?;
    let value = text.get(..end).and_then(|whole| serde_json::from_str(whole).ok()).ok_or(end)?;
    Ok((value, end))
}

/// A walk over the brackets of JSON, outside of its strings.
#[derive(Default)]
struct BracketWalk {
    depth: usize,
    values: usize,
    in_string: bool,
    escaped: bool,
}

impl BracketWalk {
    fn step(&mut self, byte: u8) {
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' if self.in_string => self.escaped = true,
            b'"' => self.in_string = !self.in_string,
            _ if self.in_string => {}
            b'[' | b'{' => {
                self.depth += 1;
                self.values += 1;
            }
            b']' | b'}' => self.depth = self.depth.saturating_sub(1),
            b',' => self.values += 1,
            _ => {}
        }
    }
}

fn judge_shape(bytes: &[u8], end: usize) -> Result<(), String> {
    let mut walk = BracketWalk::default();
    for byte in bytes.iter().take(end) {
        walk.step(*byte);
        if walk.depth > DEEPEST {
            return Err(format!("it is nested deeper than {DEEPEST} levels"));
        }
        if walk.values > MOST_VALUES {
            return Err(format!("it has more than {MOST_VALUES} values"));
        }
    }
    Ok(())
}

/// The end of the object or list with which a text begins; if there is none, the number of bytes that were looked at.
fn value_end(bytes: &[u8]) -> Result<usize, usize> {
    let mut walk = BracketWalk::default();
    for (at, byte) in bytes.iter().enumerate() {
        walk.step(*byte);
        if walk.depth > DEEPEST || walk.values > MOST_VALUES || (at == 0 && walk.depth == 0) {
            return Err(at + 1);
        }
        if walk.depth == 0 && !walk.in_string {
            return Ok(at + 1);
        }
    }
    Err(bytes.len())
}

/// Returns a member of an object by its keys, one below the other.
pub(super) fn at<'a>(value: &'a Value, keys: &[&str]) -> Option<&'a Value> {
    keys.iter().try_fold(value, |value, key| value.get(key))
}

/// Returns the text of a member; empty if there is none.
pub(super) fn text_at<'a>(value: &'a Value, keys: &[&str]) -> &'a str {
    at(value, keys).and_then(Value::as_str).unwrap_or_default()
}

/// Returns the items of a list; none if it is no list.
pub(super) fn items_at<'a>(value: &'a Value, keys: &[&str]) -> &'a [Value] {
    at(value, keys).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_and_count_are_bounded_before_parsing() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(parse_bounded_json(&nested(DEEPEST)).is_ok());
        assert!(parse_bounded_json(&nested(DEEPEST + 1)).unwrap_err().contains("nested"));
        assert!(parse_bounded_json(&"[".repeat(1 << 20)).unwrap_err().contains("nested"));
        let many = format!("[{}0]", "0,".repeat(MOST_VALUES));
        assert!(parse_bounded_json(&many).unwrap_err().contains("values"));
        assert!(parse_bounded_json("{\"a\":\"[[[[\"}").is_ok());
        assert!(!parse_bounded_json("{\"secret\" canary}").unwrap_err().contains("canary"), "content is not shown");
    }

    #[test]
    fn a_value_ends_where_its_bracket_closes() {
        let (value, end) = parse_json_prefix("{\"a\":\"}\"} and more").expect("a value");
        assert_eq!((value["a"].as_str(), end), (Some("}"), 9));
        assert!(parse_json_prefix("{\"a\":").is_err());
        assert!(parse_json_prefix("text").is_err());
    }
}
