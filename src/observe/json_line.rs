//! A flat JSON object on one line (RFC 8259), appended to a buffer field by field.
//!
//! For lines that every request writes: a text that needs no escapes is copied as it is. One that does is written by
//! `serde_json`.

use std::fmt::Display;
use std::io::Write as _;

/// A member's name with all that precedes its value. Made by [`key!`].
#[derive(Clone, Copy)]
pub struct Key(pub(super) &'static str);

/// Writes the [`Key`] of a name that needs no escapes.
macro_rules! key {
    ($name:literal) => {
        $crate::observe::json_line::Key(concat!(",\"", $name, "\":"))
    };
}
pub(super) use key;

/// An object that is being written.
pub struct JsonLine<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> JsonLine<'a> {
    /// Begins an object with its first member.
    pub fn begin(out: &'a mut Vec<u8>, key: Key, value: &str) -> Self {
        out.push(b'{');
        let mut line = Self { out };
        line.text(Key(key.0.trim_start_matches(',')), value);
        line
    }

    /// Appends a member with a string, escaped if necessary.
    pub fn text(&mut self, key: Key, value: &str) {
        self.out.extend_from_slice(key.0.as_bytes());
        // Every byte is looked at, without a branch for each.
        if value.bytes().fold(true, |plain, byte| plain & (byte >= b' ') & (byte != b'"') & (byte != b'\\')) {
            self.out.push(b'"');
            self.out.extend_from_slice(value.as_bytes());
            self.out.push(b'"');
        } else if serde_json::to_writer(&mut *self.out, value).is_err() {
            // Writing to memory does not fail; were it to, the line stays JSON.
            self.out.extend_from_slice(b"null");
        }
    }

    /// Appends a string, where there is one.
    pub fn optional(&mut self, key: Key, value: Option<&str>) {
        if let Some(value) = value {
            self.text(key, value);
        }
    }

    /// Appends what is displayed without a character that JSON escapes.
    pub fn display(&mut self, key: Key, value: impl Display) {
        self.out.extend_from_slice(key.0.as_bytes());
        let _ = write!(self.out, "\"{value}\"");
    }

    /// Appends a member with an integer.
    pub fn number(&mut self, key: Key, value: impl itoa::Integer) {
        self.out.extend_from_slice(key.0.as_bytes());
        self.out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    }

    /// Appends a member with a boolean.
    pub fn flag(&mut self, key: Key, value: bool) {
        self.out.extend_from_slice(key.0.as_bytes());
        self.out.extend_from_slice(if value { b"true" } else { b"false" });
    }

    /// Ends the object, and the line.
    pub fn end(self) {
        self.out.extend_from_slice(b"}\n");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    proptest! {
        #[test]
        fn whatever_a_text_holds_comes_back(first in any::<String>(), odd in "[\\x00-\\x7f]{0,40}", number in any::<u64>()) {
            let mut out = b"before".to_vec();
            let mut line = JsonLine::begin(&mut out, key!("time"), &first);
            line.text(key!("url.path"), &odd);
            line.optional(key!("absent"), None);
            line.number(key!("n"), number);
            line.flag(key!("yes"), true);
            line.display(key!("shown"), 7);
            line.end();
            let text = std::str::from_utf8(&out).unwrap().strip_prefix("before").unwrap();
            prop_assert_eq!(text.find('\n'), Some(text.len() - 1));
            let read: Value = serde_json::from_str(text).unwrap();
            prop_assert_eq!(read, json!({ "time": first, "url.path": odd, "n": number, "yes": true, "shown": "7" }));
        }
    }
}
