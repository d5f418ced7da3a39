//! The chain: every record is bound to all records before it.
//!
//! A sealed record is one line, `{"seq":N,…,"chain":"HEAD"}`. Its head is the digest of the head before it (32 bytes)
//! followed by the line's own bytes in front of `,"chain":`; HMAC-SHA-256 (RFC 2104) if there is a key, SHA-256
//! otherwise. Apart from its kind, the content of a record is not interpreted in this module. `docs/audit.md` describes
//! the same for those who verify the chain with other tools.

use std::fmt;
use std::io::Write as _;
use std::sync::Arc;

use aws_lc_rs::{digest, hmac};

use crate::base::secret::{ExposeSecret, SecretString, hex};

const FIRST: &[u8] = b"{\"seq\":";
const MARK: &[u8] = b",\"chain\":\"";
const LAST: &[u8] = b"\"}";
/// Number of hexadecimal digits in the text form of a head.
const HEAD_TEXT: usize = 64;

/// The digest at the end of a record, to which the next record is bound.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Head([u8; 32]);

impl Head {
    /// Before the first record of all.
    pub const ZERO: Self = Self([0; 32]);

    /// Reads 64 lower-case hexadecimal digits: every head has one spelling.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let text: &[u8; HEAD_TEXT] = text.try_into().ok()?;
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let mut out = [0; 32];
        for (byte, pair) in out.iter_mut().zip(text.chunks_exact(2)) {
            let [high, low] = pair else { return None };
            *byte = digit(*high)? << 4 | digit(*low)?;
        }
        Some(Self(out))
    }
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

/// A key of a chain. `Debug` shows its name alone.
pub struct ChainKey {
    chain: hmac::Key,
    values: hmac::Key,
    name: String,
}

impl ChainKey {
    /// The key of these bytes, as they are.
    pub fn new(secret: &SecretString) -> Self {
        let chain = hmac::Key::new(hmac::HMAC_SHA256, secret.expose_secret().as_bytes());
        let derived = hmac::sign(&chain, b"countersign audit values");
        let name = hex(&hmac::sign(&chain, b"countersign audit key").as_ref()[..8]);
        let values = hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref());
        Self { chain, values, name }
    }

    /// Returns the key's name in audit files: 16 hexadecimal digits from which the key cannot be derived.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Debug for ChainKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ChainKey").field(&self.name).finish()
    }
}

/// The method that binds records to each other.
#[derive(Clone, Debug)]
pub enum Seal {
    /// By a key: who does not have it can make no record.
    Keyed(Arc<ChainKey>),
    /// By a digest that anybody can make.
    Plain,
}

impl Seal {
    /// The method as files name it.
    pub const fn method(&self) -> &'static str {
        match self {
            Seal::Keyed(_) => "hmac-sha256",
            Seal::Plain => "sha256",
        }
    }

    /// The key's name, if there is one.
    pub fn key(&self) -> Option<&str> {
        match self {
            Seal::Keyed(key) => Some(key.name()),
            Seal::Plain => None,
        }
    }

    /// The head of a record with these bytes in front of its `,"chain":`.
    pub fn head(&self, before: &Head, body: &[u8]) -> Head {
        let mut out = [0; 32];
        match self {
            Seal::Keyed(key) => {
                let mut context = hmac::Context::with_key(&key.chain);
                context.update(&before.0);
                context.update(body);
                out.copy_from_slice(context.sign().as_ref());
            }
            Seal::Plain => {
                let mut context = digest::Context::new(&digest::SHA256);
                context.update(&before.0);
                context.update(body);
                out.copy_from_slice(context.finish().as_ref());
            }
        }
        Head(out)
    }

    /// Sixteen hexadecimal digits that are equal for equal values of one name and tell nothing else to who does not
    /// have the key. Without a key, a value out of few can be found by trying them all.
    pub fn hide(&self, name: &str, value: &str) -> String {
        let text = format!("{name}={value}");
        match self {
            Seal::Keyed(key) => hex(&hmac::sign(&key.values, text.as_bytes()).as_ref()[..8]),
            Seal::Plain => hex(&digest::digest(&digest::SHA256, text.as_bytes()).as_ref()[..8]),
        }
    }
}

/// A chain to which records are appended: its seal, and the number and head of its last record.
#[derive(Clone, Debug)]
pub struct Chain {
    seal: Seal,
    last: u64,
    head: Head,
}

impl Chain {
    /// A chain whose last record is number `last`, with this head; 0 and [`Head::ZERO`]: there is none yet.
    pub const fn after(seal: Seal, last: u64, head: Head) -> Self {
        Self { seal, last, head }
    }

    /// Appends a record to `out`, as a line. `object` is what it says: a JSON object with at least one member.
    pub fn seal(&mut self, object: &[u8], out: &mut Vec<u8>) {
        self.last += 1;
        let start = out.len();
        let members = object.strip_prefix(b"{").and_then(|rest| rest.strip_suffix(b"}")).unwrap_or(object);
        // Writing to a Vec cannot fail.
        let _ = write!(out, "{{\"seq\":{},", self.last);
        out.extend_from_slice(members);
        self.head = self.seal.head(&self.head, &out[start..]);
        out.extend_from_slice(MARK);
        let _ = write!(out, "{}", self.head);
        out.extend_from_slice(LAST);
        out.push(b'\n');
    }

    /// The number of its last record.
    pub const fn last(&self) -> u64 {
        self.last
    }

    /// Returns the head of its last record; [`Head::ZERO`] if there is none yet.
    pub const fn head(&self) -> Head {
        self.head
    }

    /// Returns the method that binds its records.
    pub const fn how(&self) -> &Seal {
        &self.seal
    }
}

/// A line that has the shape of a record, true or not.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RecordParts<'a> {
    /// The record's number, as the line states it.
    pub seq: u64,
    /// The bytes from which the head is computed, together with the head before.
    pub body: &'a [u8],
    /// The head that it says.
    pub head: Head,
}

impl<'a> RecordParts<'a> {
    /// Takes a line apart, without its newline.
    pub fn of(line: &'a [u8]) -> Option<Self> {
        let rest = line.strip_suffix(LAST)?;
        let (rest, head) = rest.split_at_checked(rest.len().checked_sub(HEAD_TEXT)?)?;
        let body = rest.strip_suffix(MARK)?;
        let head = Head::parse(head)?;
        let number = body.strip_prefix(FIRST)?;
        let end = number.iter().position(|byte| *byte == b',')?;
        let seq = std::str::from_utf8(&number[..end]).ok()?.parse().ok()?;
        Some(Self { seq, body, head })
    }

    /// Returns the record's JSON object as it was before it was sealed.
    pub fn object(&self) -> Vec<u8> {
        let end = self.body.iter().position(|byte| *byte == b',').unwrap_or(self.body.len());
        let members = self.body.get(end + 1..).unwrap_or_default();
        [b"{", members, b"}"].concat()
    }

    /// The word after `"kind":`, which is the first that a record says.
    pub fn kind(&self) -> Option<&'a str> {
        let end = self.body.iter().position(|byte| *byte == b',')?;
        let rest = self.body.get(end + 1..)?.strip_prefix(b"\"kind\":\"")?;
        let end = rest.iter().position(|byte| *byte == b'"')?;
        std::str::from_utf8(&rest[..end]).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_apart_as_it_was_put_together() {
        let mut chain = Chain::after(Seal::Plain, 6, Head::ZERO);
        let mut out = Vec::new();
        chain.seal(b"{\"kind\":\"call\",\"n\":1}", &mut out);
        let line = out.strip_suffix(b"\n").unwrap();
        let parts = RecordParts::of(line).unwrap();
        assert_eq!((parts.seq, parts.kind(), parts.head), (7, Some("call"), chain.head()));
        assert_eq!(parts.body, b"{\"seq\":7,\"kind\":\"call\",\"n\":1");
        assert_eq!(parts.object(), b"{\"kind\":\"call\",\"n\":1}");
        assert_eq!(Seal::Plain.head(&Head::ZERO, parts.body), parts.head);
        assert!(serde_json::from_slice::<serde_json::Value>(line).is_ok());
    }

    #[test]
    fn heads_have_one_spelling() {
        let text = "0123456789abcdef".repeat(4);
        assert_eq!(Head::parse(text.as_bytes()).unwrap().to_string(), text);
        for wrong in [text.to_uppercase(), text[1..].to_owned(), format!("{text}0"), text.replace('a', "g")] {
            assert_eq!(Head::parse(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn keys_tell_records_names_and_values_apart_and_show_nothing() {
        let key = |text: &str| Seal::Keyed(Arc::new(ChainKey::new(&SecretString::from(text))));
        let (one, other) = (key("one-key-of-an-audit-log"), key("another-key-of-an-audit-log"));
        assert_ne!(one.head(&Head::ZERO, b"x"), other.head(&Head::ZERO, b"x"));
        assert_ne!(one.head(&Head::ZERO, b"x"), Seal::Plain.head(&Head::ZERO, b"x"));
        assert_ne!(one.key(), other.key());
        assert_eq!(one.hide("account", "1"), one.hide("account", "1"));
        assert_ne!(one.hide("account", "1"), other.hide("account", "1"));
        assert_ne!(one.hide("account", "1"), one.hide("user", "1"));
        assert!(!format!("{one:?}").contains("one-key"));
    }
}
