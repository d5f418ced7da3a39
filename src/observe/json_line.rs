//! A flat JSON object on one line (RFC 8259), appended to a buffer field by field.
//!
//! For lines that every request writes: a text that needs no escapes is copied as it is. One that does is written by
//! `serde_json`.

use std::borrow::Cow;
use std::fmt::{self, Display};
use std::io::Write as _;
use std::net::IpAddr;
use std::time::Duration;

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
        if is_plain(value.as_bytes()) {
            return self.plain(key, value);
        }
        self.out.extend_from_slice(key.0.as_bytes());
        // Writing to memory does not fail; were it to, the line stays JSON.
        let text = serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned());
        self.out.extend_from_slice(without_hidden(&text).as_bytes());
    }

    /// Appends a member with a string that has no character that JSON escapes.
    pub fn plain(&mut self, key: Key, value: &str) {
        self.out.extend_from_slice(key.0.as_bytes());
        self.out.push(b'"');
        self.out.extend_from_slice(value.as_bytes());
        self.out.push(b'"');
    }

    /// Appends a member with a number of 32 bits as eight hexadecimal digits.
    pub fn hex(&mut self, key: Key, value: u32) {
        let digit = |place: u32| b"0123456789abcdef"[(value >> (28 - 4 * place) & 15) as usize];
        let digits: [u8; 8] = std::array::from_fn(|place| digit(place as u32));
        self.out.extend_from_slice(key.0.as_bytes());
        self.out.push(b'"');
        self.out.extend_from_slice(&digits);
        self.out.push(b'"');
    }

    /// Appends a member with an address.
    pub fn address(&mut self, key: Key, value: IpAddr) {
        let IpAddr::V4(value) = value else { return self.display(key, value) };
        self.out.extend_from_slice(key.0.as_bytes());
        for (place, octet) in value.octets().into_iter().enumerate() {
            self.out.push(if place == 0 { b'"' } else { b'.' });
            self.out.extend_from_slice(itoa::Buffer::new().format(octet).as_bytes());
        }
        self.out.push(b'"');
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

    /// Appends a member with a duration in milliseconds, to the microsecond.
    pub fn millis(&mut self, key: Key, value: Duration) {
        self.out.extend_from_slice(key.0.as_bytes());
        let micros = u64::try_from(value.as_micros()).unwrap_or(u64::MAX);
        let digit = |place: u64| b"0123456789"[(micros / place % 10) as usize];
        self.out.extend_from_slice(itoa::Buffer::new().format(micros / 1000).as_bytes());
        self.out.extend_from_slice(&[b'.', digit(100), digit(10), digit(1)]);
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

/// Escapes, in JSON, the characters that its grammar lets pass and that do something to a terminal or to the order of a
/// line: DEL, the controls of C1, and those that turn or break lines.
pub(super) fn without_hidden(json: &str) -> Cow<'_, str> {
    let is_hidden = |c: char| matches!(c, '\u{7f}'..='\u{9f}' | '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if !json.contains(is_hidden) {
        return Cow::Borrowed(json);
    }
    let mut text = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if is_hidden(c) {
            let _ = fmt::Write::write_fmt(&mut text, format_args!("\\u{:04x}", u32::from(c)));
        } else {
            text.push(c);
        }
    }
    Cow::Owned(text)
}

/// Returns whether a text has only bytes that are written as they are: ASCII that JSON does not escape, without DEL. Eight
/// bytes are looked at together.
fn is_plain(text: &[u8]) -> bool {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const TOPS: u64 = ONES << 7;
    // The top bit of each byte that is 0 is set; above the first of them it may be set for others, too.
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word & TOPS;
    let escapes = |word: u64| {
        let controls = word.wrapping_sub(ONES * 0x20) & !word & TOPS;
        let quotes = zeros(word ^ (ONES * b'"' as u64)) | zeros(word ^ (ONES * b'\\' as u64));
        controls | quotes | zeros(word ^ (ONES * 0x7f)) | word & TOPS
    };
    let (words, rest) = text.as_chunks::<8>();
    let mut last = [b' '; 8];
    last[..rest.len()].copy_from_slice(rest);
    let found = words.iter().fold(0, |found, word| found | escapes(u64::from_ne_bytes(*word)));
    found | escapes(u64::from_ne_bytes(last)) == 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    proptest! {
        #[test]
        fn whatever_a_text_holds_comes_back(first in any::<String>(), odd in "[\\x00-\\x7f]{0,40}", number in any::<u64>(), address in any::<IpAddr>()) {
            let mut out = b"before".to_vec();
            let mut line = JsonLine::begin(&mut out, key!("time"), &first);
            line.text(key!("url.path"), &odd);
            line.optional(key!("absent"), None);
            line.number(key!("n"), number);
            line.flag(key!("yes"), true);
            line.display(key!("shown"), 7);
            line.hex(key!("hex"), number as u32);
            line.address(key!("address"), address);
            line.millis(key!("took"), Duration::from_micros(u64::from(number as u32)));
            line.end();
            let text = std::str::from_utf8(&out).unwrap().strip_prefix("before").unwrap();
            prop_assert_eq!(text.find('\n'), Some(text.len() - 1));
            let read: Value = serde_json::from_str(text).unwrap();
            let hex = format!("{:08x}", number as u32);
            let address = address.to_string();
            let took = f64::from(number as u32) / 1000.0;
            prop_assert!((read["took"].as_f64().unwrap() - took).abs() < 0.000_1);
            let took = read["took"].clone();
            prop_assert_eq!(read, json!({
                "time": first, "url.path": odd, "n": number, "yes": true, "shown": "7", "hex": hex, "address": address,
                "took": took
            }));
            let hidden = text.contains(['\u{7f}', '\u{9b}', '\u{202e}', '\u{2066}']);
            prop_assert!(!hidden);
        }

        #[test]
        fn a_text_is_plain_if_it_has_no_byte_that_is_escaped(text in proptest::collection::vec(any::<u8>(), 0..40)) {
            let escaped = |byte: &u8| !(b' '..0x7f).contains(byte) || matches!(byte, b'"' | b'\\');
            prop_assert_eq!(is_plain(&text), !text.iter().any(escaped));
        }
    }

    #[test]
    fn characters_that_a_terminal_obeys_are_escaped() {
        let mut out = Vec::new();
        let mut line = JsonLine::begin(&mut out, key!("a"), "\u{9b}31m\u{202e}x\u{7f}");
        line.text(key!("b"), "für ไทย");
        line.end();
        let expected = "{\"a\":\"\\u009b31m\\u202ex\\u007f\",\"b\":\"für ไทย\"}\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
