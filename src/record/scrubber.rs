//! Takes everything out of a message that may be secret or somebody's, and leaves its shape.
//!
//! What is written as it came is on a list ([`HarmlessNames`]) and plain and holds no secret that the process knows; every
//! other value is replaced by a stand-in of its shape. The last look ([`Scrubber::leaks`]) is at the text that is about to
//! be written.

use std::collections::VecDeque;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use http::HeaderMap;
use serde_json::{Map, Number, Value};
use zeroize::Zeroizing;

use super::harmless::{HarmlessNames, ScrubTrust};
use super::stand_in::{LONGEST, StandIns, cut};
use super::xml_leaves::with_xml_leaves;
use crate::base::secret::{ExposeSecret, SecretString, hex};
use crate::learn::{is_plain_name, is_plain_text};

/// Secrets shorter than this are found everywhere by accident; a value that is one of them is replaced all the same.
const TELLING: usize = 6;
/// The most spellings of secrets, and the most replaced values, that are looked for.
const MOST: usize = 4096;
/// The most members of a list that are written.
const MOST_ITEMS: usize = 8;
/// The most header fields or parameters that are written of one message.
const MOST_FIELDS: usize = 64;
/// The longest value of a header field, in bytes.
const LONGEST_FIELD: usize = 512;
/// Stands for the token in what is written.
pub(super) const TOKEN_PLACE: &str = "{token}";
/// Stands for a segment of a path that was replaced.
pub(super) const ANY_SEGMENT: &str = "{}";

/// Fields that say something about one connection or one moment.
const PASSING: [&str; 10] = [
    "connection",
    "content-encoding",
    "content-length",
    "date",
    "host",
    "keep-alive",
    "proxy-status",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
/// Fields whose plain values are kept.
const PLAIN_FIELDS: [&str; 9] = [
    "accept",
    "accept-encoding",
    "allow",
    "cache-control",
    "content-language",
    "content-type",
    "pragma",
    "retry-after",
    "vary",
];
/// Parameters of a challenge whose plain values are kept (RFC 6750 section 3).
const CHALLENGE: [&str; 4] = ["algs", "charset", "error", "scope"];

/// A body without what was secret in it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum ScrubbedBody {
    Empty,
    Json(Value),
    /// A form, XML, or a text of which only the shape is left.
    Text(String),
    /// It is not written, for this reason.
    LeftOut(&'static str),
}

/// Takes secrets and personal data out of messages. Its key is drawn for one recording and kept nowhere else.
pub(super) struct Scrubber {
    stand_ins: StandIns,
    names: HarmlessNames,
    /// Spellings of secrets, in small letters.
    secrets: VecDeque<Zeroizing<String>>,
    /// Values of settings that are not secret, in small letters.
    settings: VecDeque<Zeroizing<String>>,
    /// Values that were replaced and are not plain, in small letters.
    replaced: VecDeque<Zeroizing<String>>,
}

impl Scrubber {
    pub(super) fn new(key: &[u8; 32], keep: &[String]) -> Self {
        Self {
            stand_ins: StandIns::new(key),
            names: HarmlessNames::with(keep),
            secrets: VecDeque::new(),
            settings: VecDeque::new(),
            replaced: VecDeque::new(),
        }
    }

    /// Remembers a secret in the ways in which it may be written.
    pub(super) fn know(&mut self, secret: &SecretString) {
        let secret = secret.expose_secret();
        if secret.len() < 4 {
            return;
        }
        let json = serde_json::to_string(secret).unwrap_or_default();
        let spellings = [
            secret.to_owned(),
            form_urlencoded::byte_serialize(secret.as_bytes()).collect(),
            percent_encoded(secret),
            json.trim_matches('"').to_owned(),
            STANDARD_NO_PAD.encode(secret),
            URL_SAFE_NO_PAD.encode(secret),
            hex(secret.as_bytes()),
        ];
        for spelling in spellings {
            remember(&mut self.secrets, spelling);
        }
    }

    /// Returns whether a text holds a secret, or a value that was to be replaced.
    pub(super) fn leaks(&self, text: &str) -> bool {
        let text = text.to_ascii_lowercase();
        let mut sought = self.secrets.iter().chain(&self.replaced).filter(|value| value.len() >= TELLING);
        sought.any(|value| text.contains(value.as_str()))
    }

    fn holds_secret(&self, text: &str) -> bool {
        let text = text.to_ascii_lowercase();
        self.secrets.iter().any(|secret| text == **secret || secret.len() >= TELLING && text.contains(secret.as_str()))
    }

    /// A stand-in for a value.
    pub(super) fn stand_in(&mut self, value: &str) -> String {
        // The parts of a long value that is no text of words are its own secrets.
        if value.len() >= TELLING && value.len() <= LONGEST && !is_plain_text(value) {
            remember(&mut self.replaced, value.to_owned());
        }
        self.stand_ins.of(value)
    }

    /// A name of a member, a field or a parameter, as it is if it is plain.
    fn name(&mut self, name: &str) -> String {
        if is_plain_name(name) && !self.holds_secret(name) { name.to_owned() } else { self.stand_in(name) }
    }

    /// The value of a member.
    pub(super) fn value(&mut self, name: &str, value: &str, depth: usize, trust: ScrubTrust) -> String {
        if value.is_empty() || self.names.member(name, value, depth, trust) && !self.holds_secret(value) {
            value.to_owned()
        } else {
            self.stand_in(value)
        }
    }

    /// Remembers the value of a setting that is not secret: where a path of the config has it, it is replaced.
    pub(super) fn know_setting(&mut self, text: &str) {
        remember(&mut self.settings, text.to_owned());
    }

    /// Returns whether a segment of a path that stands in a profile or a config may be written.
    fn is_own_segment(&self, segment: &str) -> bool {
        let is_setting = self.settings.iter().any(|setting| setting.eq_ignore_ascii_case(segment));
        // Several words may have a digit each, as in `b2b-oauth2`.
        let mut words = segment.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
        segment.is_ascii() && segment.len() <= 64 && words.all(is_plain_text) && !is_setting
    }

    /// A path, and the same with [`ANY_SEGMENT`] for what was replaced. Segments of the beginning that it shares with `own`, a
    /// path of the profile or the config, are kept if they are plain.
    pub(super) fn path(&mut self, path: &str, own: &str) -> (String, String) {
        let (mut written, mut pattern) = (Vec::new(), Vec::new());
        let mut own = own.split('/');
        let mut is_own = true;
        for segment in path.split('/') {
            is_own &= own.next() == Some(segment);
            let decoded = percent_encoding::percent_decode_str(segment).decode_utf8_lossy().into_owned();
            let is_harmless = self.names.path_segment(segment) || is_own && self.is_own_segment(segment);
            if decoded == segment && is_harmless && !self.holds_secret(segment) {
                written.push(segment.to_owned());
                pattern.push(segment.to_owned());
            } else {
                written.push(percent_encoded(&self.stand_in(&decoded)));
                pattern.push(ANY_SEGMENT.to_owned());
            }
        }
        if self.holds_secret(&written.join("/")) {
            // A secret with slashes in it: no segment is kept.
            for (segment, pattern) in path.split('/').zip(&mut pattern).filter(|(segment, _)| !segment.is_empty()) {
                self.stand_in(segment);
                *pattern = ANY_SEGMENT.to_owned();
            }
            let all = path.split('/').map(|segment| percent_encoded(&self.stand_ins.of(segment)));
            written = all.collect();
        }
        (written.join("/"), pattern.join("/"))
    }

    /// The parameters of a query. `credentials` become [`TOKEN_PLACE`].
    pub(super) fn query(&mut self, query: &str, credentials: &[SecretString]) -> Vec<(String, String)> {
        let pairs = form_urlencoded::parse(query.as_bytes()).take(MOST_FIELDS);
        pairs
            .map(|(name, value)| {
                if credentials.iter().any(|credential| credential.expose_secret() == value) {
                    return (self.name(&name), TOKEN_PLACE.to_owned());
                }
                (self.name(&name), self.value(&name, &value, 0, ScrubTrust::Resource))
            })
            .collect()
    }

    /// The fields of a message's head, in order.
    pub(super) fn fields(&mut self, headers: &HeaderMap, credentials: &[SecretString]) -> Vec<(String, String)> {
        let mut fields = Vec::new();
        for (name, value) in headers.iter().take(MOST_FIELDS) {
            let name = name.as_str();
            if PASSING.contains(&name) || !is_plain_name(name) || self.holds_secret(name) {
                continue;
            }
            let value = value.to_str().unwrap_or_default();
            let carried = |credential: &&SecretString| value.ends_with(credential.expose_secret());
            // The shortest is the token without its scheme.
            let token = credentials.iter().filter(carried).min_by_key(|credential| credential.expose_secret().len());
            let value = match token {
                Some(token) => self.carrying(value, token),
                None => self.field(name, value),
            };
            fields.push((name.to_owned(), value));
        }
        fields
    }

    /// The value of a field that ends with a token.
    fn carrying(&mut self, value: &str, token: &SecretString) -> String {
        let before = value.strip_suffix(token.expose_secret()).unwrap_or_default();
        let scheme = before.trim_end();
        let is_plain =
            !scheme.is_empty() && scheme.bytes().all(|b| b.is_ascii_alphabetic()) && !self.holds_secret(scheme);
        if is_plain { format!("{scheme} {TOKEN_PLACE}") } else { TOKEN_PLACE.to_owned() }
    }

    fn field(&mut self, name: &str, value: &str) -> String {
        let value = cut(value, LONGEST_FIELD);
        if name == "www-authenticate" {
            return self.challenge(value);
        }
        if name == "content-type" {
            let mut parts = value.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default();
            let charset = parts.find(|part| part.to_ascii_lowercase().starts_with("charset="));
            let kept = [Some(media), charset].into_iter().flatten().collect::<Vec<_>>().join("; ");
            if is_media_type(media)
                && !self.holds_secret(&kept)
                && charset.is_none_or(|charset| charset.len() <= 24 && is_plain_text(charset))
            {
                return kept;
            }
        }
        let is_delay = name == "retry-after" && value.len() <= 6 && value.bytes().all(|b| b.is_ascii_digit());
        if is_delay || PLAIN_FIELDS.contains(&name) && is_plain_text(value) && !self.holds_secret(value) {
            return value.to_owned();
        }
        self.value(name, value, 0, ScrubTrust::Resource)
    }

    /// A challenge (RFC 9110 section 11.6.1): its scheme, the names of its parameters, and what its error is called.
    fn challenge(&mut self, value: &str) -> String {
        let (scheme, rest) = value.split_once(' ').unwrap_or((value, ""));
        if !scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            || !is_plain_text(scheme)
            || self.holds_secret(scheme)
        {
            return self.stand_in(value);
        }
        let mut written = Vec::new();
        for parameter in parameters(rest) {
            let Some((name, value)) = parameter.split_once('=') else { continue };
            let (name, value) = (name.trim(), value.trim().trim_matches('"'));
            let is_kept = CHALLENGE.contains(&name) && is_plain_text(value) && !self.holds_secret(value);
            let value = if is_kept { value.to_owned() } else { self.stand_in(value) };
            written.push(format!("{}=\"{}\"", self.name(name), value.replace(['"', '\\'], "_")));
        }
        if written.is_empty() { scheme.to_owned() } else { format!("{scheme} {}", written.join(", ")) }
    }

    /// A body without its content coding.
    pub(super) fn body(&mut self, content_type: &str, body: &[u8], trust: ScrubTrust) -> ScrubbedBody {
        let Ok(text) = std::str::from_utf8(body) else { return ScrubbedBody::LeftOut("it is no text") };
        let begins = text.trim_start().bytes().next();
        let media = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match begins {
            None => ScrubbedBody::Empty,
            Some(b'{' | b'[') if let Ok(value) = serde_json::from_str::<Value>(text) => {
                ScrubbedBody::Json(self.json("", value, 0, trust))
            }
            _ if media.ends_with("json") => match serde_json::from_str::<Value>(text) {
                Ok(value) => ScrubbedBody::Json(self.json("", value, 0, trust)),
                Err(_) => ScrubbedBody::Text(self.stand_in(text)),
            },
            _ if media == "application/x-www-form-urlencoded" => ScrubbedBody::Text(self.form(text, trust)),
            Some(b'<') => match with_xml_leaves(text, |name, value| self.value(name, value, 1, trust)) {
                Some(text) => ScrubbedBody::Text(text),
                None => ScrubbedBody::Text(self.stand_in(text)),
            },
            Some(_) => ScrubbedBody::Text(self.stand_in(text)),
        }
    }

    fn form(&mut self, text: &str, trust: ScrubTrust) -> String {
        let mut written = form_urlencoded::Serializer::new(String::new());
        for (name, value) in form_urlencoded::parse(text.as_bytes()).take(MOST_FIELDS) {
            let value = self.value(&name, &value, 0, trust);
            written.append_pair(&self.name(&name), &value);
        }
        written.finish()
    }

    fn json(&mut self, name: &str, value: Value, depth: usize, trust: ScrubTrust) -> Value {
        match value {
            Value::Null | Value::Bool(_) => value,
            Value::String(text) => Value::String(self.value(name, &text, depth.saturating_sub(1), trust)),
            Value::Number(number) => Value::Number(self.number(name, number, depth.saturating_sub(1), trust)),
            Value::Array(items) => {
                items.into_iter().take(MOST_ITEMS).map(|item| self.json(name, item, depth, trust)).collect()
            }
            Value::Object(members) => {
                let mut written = Map::new();
                for (name, member) in members {
                    let member = self.json(&name, member, depth + 1, trust);
                    written.insert(self.name(&name), member);
                }
                Value::Object(written)
            }
        }
    }

    fn number(&mut self, name: &str, number: Number, depth: usize, trust: ScrubTrust) -> Number {
        let text = number.to_string();
        if self.names.member(name, &text, depth, trust) && !self.holds_secret(&text) {
            return number;
        }
        // A number in another notation, or one beyond what is exact, is any other.
        let other = if text.contains(['e', 'E']) { "1.5".to_owned() } else { self.stand_in(&text) };
        let is_whole = |number: &Number| number.is_i64() || number.is_u64();
        match serde_json::from_str::<Number>(&other) {
            Ok(other) if is_whole(&number) == is_whole(&other) => other,
            // Too great a number of as many digits.
            Ok(_) => serde_json::from_str(&lowered(&other)).unwrap_or(Number::from(1)),
            Err(_) => Number::from(1),
        }
    }
}

/// Remembers a text in small letters, and forgets the oldest beyond [`MOST`].
fn remember(known: &mut VecDeque<Zeroizing<String>>, text: String) {
    let text = Zeroizing::new(text);
    let text = Zeroizing::new(text.to_ascii_lowercase());
    if known.contains(&text) {
        return;
    }
    if known.len() >= MOST {
        known.pop_front();
    }
    known.push_back(text);
}

/// A number with a one as its first digit.
fn lowered(number: &str) -> String {
    let first = number.find(|c: char| c.is_ascii_digit());
    number.char_indices().map(|(at, c)| if Some(at) == first { '1' } else { c }).collect()
}

fn is_media_type(text: &str) -> bool {
    text.len() <= 100
        && text.split_once('/').is_some_and(|(first, second)| !first.is_empty() && !second.is_empty())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"/.+-_".contains(&b))
        && is_plain_text(text)
}

/// The parameters of a challenge, split at commas outside quotes.
fn parameters(text: &str) -> Vec<&str> {
    let mut is_quoted = false;
    text.split(|c| {
        if c == '"' {
            is_quoted = !is_quoted;
        }
        c == ',' && !is_quoted
    })
    .collect()
}

/// Percent-encoding of everything but unreserved characters (RFC 3986 section 2.3).
pub(super) fn percent_encoded(text: &str) -> String {
    const KEPT: &percent_encoding::AsciiSet =
        &percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    percent_encoding::utf8_percent_encode(text, KEPT).to_string()
}

#[cfg(test)]
mod tests;
