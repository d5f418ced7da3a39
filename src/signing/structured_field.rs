//! Structured fields (RFC 8941) as far as signatures and digests need them: dictionaries of byte sequences and inner
//! lists.

use std::fmt::Write as _;

use super::encoding::TextEncoding;
use super::encoding::base64;

/// The longest field that is read, in bytes.
const LONGEST: usize = 32 * 1024;

/// The most members, items of a list or parameters that are read.
const MOST: usize = 64;

/// A bare item (section 3.3), without decimals.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum BareItem {
    Boolean(bool),
    Bytes(Vec<u8>),
    Integer(i64),
    Text(String),
    Token(String),
}

/// ItemParameters (section 3.1.2) in their order.
pub(super) type ItemParameters = Vec<(String, BareItem)>;

/// An item with its parameters (section 3.3).
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct FieldItem {
    pub(super) value: BareItem,
    pub(super) parameters: ItemParameters,
}

/// The value of a key of a dictionary (section 3.2).
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Member {
    InnerList(Vec<FieldItem>, ItemParameters),
    Item(FieldItem),
}

/// Reads a dictionary. `None` for a text that is none, is longer than 32 KiB or 64 members, has a decimal, or names a key twice: the
/// RFC takes the last of equal keys, and a signature must not depend on the choice of a reader.
pub(super) fn dictionary(text: &str) -> Option<Vec<(String, Member)>> {
    if text.len() > LONGEST || !text.is_ascii() {
        return None;
    }
    let mut reader = StructuredFieldReader(text.trim_matches(' '));
    let mut members: Vec<(String, Member)> = Vec::new();
    while !reader.0.is_empty() {
        let key = reader.key()?;
        let member = if reader.take('=') {
            reader.member()?
        } else {
            Member::Item(FieldItem { value: BareItem::Boolean(true), parameters: reader.parameters()? })
        };
        if members.len() == MOST || members.iter().any(|(known, _)| *known == key) {
            return None;
        }
        members.push((key, member));
        reader.skip(&[' ', '\t']);
        if reader.0.is_empty() {
            break;
        }
        if !reader.take(',') {
            return None;
        }
        reader.skip(&[' ', '\t']);
        if reader.0.is_empty() {
            return None;
        }
    }
    Some(members)
}

/// Reads an item, such as a component identifier of RFC 9421.
pub(super) fn item(text: &str) -> Option<FieldItem> {
    if text.len() > LONGEST || !text.is_ascii() {
        return None;
    }
    let mut reader = StructuredFieldReader(text);
    let item = reader.item()?;
    reader.0.is_empty().then_some(item)
}

/// Writes a bare item; texts must be ASCII without control characters, which [`is_text`] tells.
pub(super) fn write_item(out: &mut String, item: &BareItem) {
    match item {
        BareItem::Boolean(true) => out.push_str("?1"),
        BareItem::Boolean(false) => out.push_str("?0"),
        BareItem::Bytes(bytes) => {
            write!(out, ":{}:", base64(bytes)).expect("a String takes all");
        }
        BareItem::Integer(number) => write!(out, "{number}").expect("a String takes all"),
        BareItem::Text(text) => {
            out.push('"');
            for letter in text.chars() {
                if matches!(letter, '"' | '\\') {
                    out.push('\\');
                }
                out.push(letter);
            }
            out.push('"');
        }
        BareItem::Token(token) => out.push_str(token),
    }
}

/// Writes parameters; those that are true are written by their names alone.
pub(super) fn write_parameters(out: &mut String, parameters: &ItemParameters) {
    for (name, value) in parameters {
        out.push(';');
        out.push_str(name);
        if *value != BareItem::Boolean(true) {
            out.push('=');
            write_item(out, value);
        }
    }
}

/// Returns whether a text can be a string of a structured field (section 3.3.3).
pub(super) fn is_text(text: &str) -> bool {
    text.bytes().all(|byte| (0x20..0x7f).contains(&byte))
}

/// Returns whether a text can be a key (section 3.1.2), such as a signature's label.
pub(super) fn is_key(text: &str) -> bool {
    let mut reader = StructuredFieldReader(text);
    text.is_ascii() && reader.key().is_some() && reader.0.is_empty()
}

struct StructuredFieldReader<'a>(&'a str);

impl StructuredFieldReader<'_> {
    fn take(&mut self, wanted: char) -> bool {
        match self.0.strip_prefix(wanted) {
            Some(rest) => {
                self.0 = rest;
                true
            }
            None => false,
        }
    }

    fn skip(&mut self, letters: &[char]) {
        self.0 = self.0.trim_start_matches(letters);
    }

    /// Takes the letters up to the first that does not belong.
    fn run(&mut self, belongs: impl Fn(u8) -> bool) -> String {
        let end = self.0.bytes().position(|byte| !belongs(byte)).unwrap_or(self.0.len());
        let (run, rest) = self.0.split_at(end);
        self.0 = rest;
        run.to_owned()
    }

    fn key(&mut self) -> Option<String> {
        let starts = self.0.bytes().next().is_some_and(|first| first.is_ascii_lowercase() || first == b'*');
        let belongs = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-.*".contains(&byte);
        starts.then(|| self.run(belongs))
    }

    fn member(&mut self) -> Option<Member> {
        if !self.take('(') {
            return self.item().map(Member::Item);
        }
        let mut items = Vec::new();
        loop {
            self.skip(&[' ']);
            if self.take(')') {
                return Some(Member::InnerList(items, self.parameters()?));
            }
            items.push(self.item()?);
            if items.len() > MOST || !self.0.starts_with([' ', ')']) {
                return None;
            }
        }
    }

    fn item(&mut self) -> Option<FieldItem> {
        Some(FieldItem { value: self.bare()?, parameters: self.parameters()? })
    }

    fn parameters(&mut self) -> Option<ItemParameters> {
        let mut parameters: ItemParameters = Vec::new();
        while self.take(';') {
            self.skip(&[' ']);
            let name = self.key()?;
            let value = if self.take('=') { self.bare()? } else { BareItem::Boolean(true) };
            if parameters.len() == MOST || parameters.iter().any(|(known, _)| *known == name) {
                return None;
            }
            parameters.push((name, value));
        }
        Some(parameters)
    }

    fn bare(&mut self) -> Option<BareItem> {
        match self.0.bytes().next()? {
            b'"' => self.text(),
            b':' => {
                let (encoded, rest) = self.0[1..].split_once(':')?;
                self.0 = rest;
                TextEncoding::Base64.decode(encoded).map(BareItem::Bytes)
            }
            b'?' => {
                self.take('?');
                if self.take('1') {
                    Some(BareItem::Boolean(true))
                } else {
                    self.take('0').then_some(BareItem::Boolean(false))
                }
            }
            b'-' | b'0'..=b'9' => {
                let sign = if self.take('-') { -1 } else { 1 };
                let digits = self.run(|byte| byte.is_ascii_digit() || byte == b'.');
                // An integer has 15 digits at most (section 3.3.1), and decimals occur in no field that is read here.
                let number: i64 = (digits.len() <= 15).then(|| digits.parse().ok())??;
                Some(BareItem::Integer(sign * number))
            }
            first if first.is_ascii_alphabetic() || first == b'*' => {
                let belongs = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&byte);
                Some(BareItem::Token(self.run(belongs)))
            }
            _ => None,
        }
    }

    fn text(&mut self) -> Option<BareItem> {
        self.take('"');
        let mut text = String::new();
        let mut letters = self.0.char_indices();
        while let Some((at, letter)) = letters.next() {
            match letter {
                '"' => {
                    self.0 = &self.0[at + 1..];
                    return Some(BareItem::Text(text));
                }
                '\\' => text.push(letters.next().map(|(_, next)| next).filter(|next| matches!(next, '"' | '\\'))?),
                ' '..='~' => text.push(letter),
                _ => return None,
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_dictionary_is_written_as_it_was_read() {
        let text = r#"a=("x";k="\"\\" y);created=-12;tag="t";on, b=:AQI=:, c, d=?0"#;
        let members = dictionary(text).unwrap();
        assert_eq!(members.len(), 4);
        let Member::InnerList(items, parameters) = &members[0].1 else { panic!("an inner list") };
        let mut out = String::new();
        write_item(&mut out, &items[0].value);
        write_parameters(&mut out, &items[0].parameters);
        write_parameters(&mut out, parameters);
        assert_eq!(out, r#""x";k="\"\\";created=-12;tag="t";on"#);
        assert_eq!(members[2].1, Member::Item(FieldItem { value: BareItem::Boolean(true), parameters: Vec::new() }));
    }

    #[test]
    fn malformed_and_ambiguous_dictionaries_are_refused() {
        for text in [
            "a=1,",
            "a=1 b=2",
            "A=1",
            "a=1, a=2",
            "a=(\"x\"\"y\")",
            "a=(\"x\"",
            "a=\"x",
            "a=:AQ:",
            "a=1.5",
            "a=é",
            "a=1234567890123456",
            "a=;b;b",
            "a=(x);k=1;k=2",
            "a=\"\\x\"",
            "a=-",
            "a=?2",
            "=1",
        ] {
            assert_eq!(dictionary(text), None, "{text}");
        }
        assert_eq!(dictionary(" ").map(|members| members.len()), Some(0));
        assert_eq!(dictionary(&"a".repeat(LONGEST + 1)), None);
        let keys = |most: usize| (0..most).map(|at| format!("k{at}")).collect::<Vec<_>>();
        assert!(dictionary(&keys(MOST).join(",")).is_some() && dictionary(&keys(MOST + 1).join(",")).is_none());
        assert!(item(&format!("a;{}", keys(MOST).join(";"))).is_some());
        assert!(item(&format!("a;{}", keys(MOST + 1).join(";"))).is_none());
        assert!(dictionary(&format!("a=({})", keys(MOST).join(" "))).is_some());
        assert!(dictionary(&format!("a=({})", keys(MOST + 1).join(" "))).is_none());
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,60}", near in "[a-c=();,:\"\\\\ ?01-]{0,40}") {
            for text in [text, near] {
                let _ = dictionary(&text);
                let _ = item(&text);
                let _ = is_key(&text);
            }
        }

        #[test]
        fn texts_come_back(text in "[ -~]{0,30}") {
            let mut out = String::new();
            write_item(&mut out, &BareItem::Text(text.clone()));
            prop_assert_eq!(item(&out), Some(FieldItem { value: BareItem::Text(text), parameters: Vec::new() }));
        }
    }
}
