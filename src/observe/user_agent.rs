//! The program that a client names in its `User-Agent` (RFC 9110 section 10.1.5), as far as a log may have it.

use std::fmt;

use http::HeaderValue;

/// Length at which it is cut, in bytes.
const MOST: usize = 128;
/// A word of letters and digits of this length may be a key or a token.
const SECRET_WORD: usize = 20;

/// A text of visible ASCII, at most 128 bytes, without a word that looks like a secret. Held in place: a record of a
/// request keeps neither an allocation nor the buffer of its head for it.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct UserAgent {
    length: u8,
    bytes: [u8; MOST],
}

impl UserAgent {
    /// Reads the field's value. `None`: it is empty, no text, or has a word that could be a secret, whole or cut.
    pub fn parse(value: &HeaderValue) -> Option<Self> {
        let text = value.as_bytes();
        let is_text = text.iter().all(|byte| matches!(byte, b' '..=b'~'));
        if text.is_empty() || !is_text || text.split(|byte| !is_of_word(*byte)).any(is_mixture) {
            return None;
        }
        let length = text.len().min(MOST);
        let mut bytes = [0; MOST];
        bytes.get_mut(..length)?.copy_from_slice(text.get(..length)?);
        Some(Self { length: u8::try_from(length).ok()?, bytes })
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        let text = self.bytes.get(..usize::from(self.length)).unwrap_or_default();
        std::str::from_utf8(text).unwrap_or_default()
    }
}

impl fmt::Debug for UserAgent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// Returns whether a byte is one of those that keys, tokens and their encodings are made of.
const fn is_of_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'=' | b'+')
}

/// Returns whether a word is a long mixture of letters and digits, as keys and tokens are and names of programs are not.
fn is_mixture(word: &[u8]) -> bool {
    word.len() >= SECRET_WORD && word.iter().any(u8::is_ascii_digit) && word.iter().any(u8::is_ascii_alphabetic)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &[u8]) -> Option<String> {
        UserAgent::parse(&HeaderValue::from_bytes(text).unwrap()).map(|agent| agent.as_str().to_owned())
    }

    #[test]
    fn programs_are_named_and_secrets_are_not() {
        for program in [
            "curl/8.5.0",
            "python-requests/2.31.0",
            "payments-reconciliation-service/4",
            "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0",
            "Apache-HttpClient/5.3 (Java/21.0.1) \"quoted\\\"",
        ] {
            assert_eq!(shown(program.as_bytes()).as_deref(), Some(program));
        }
        for hidden in [
            "",
            "erp 0a763d084bb01c80cae587619373b788",
            "Bearer eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.e30.x",
            "fe0744eb-e9a4-47d7-a407-5210443af875",
            "key=MGE3NjNkMDg0YmIwMWM4MGNhZTU4NzYxOTM3NmI3ODg=",
            "tab\there",
            "für ไทย",
        ] {
            assert_eq!(shown(hidden.as_bytes()), None, "{hidden}");
        }
    }

    #[test]
    fn a_long_one_is_cut_and_judged_as_a_whole() {
        let long = "a ".repeat(100);
        assert_eq!(shown(long.as_bytes()).as_deref(), Some(&long[..128]));
        // Of a secret no beginning is shown, although the cut would leave too little of it to be one.
        let long = format!("{} 0a763d084bb01c80cae587619373b788", "a ".repeat(60));
        assert_eq!(shown(long.as_bytes()), None);
    }
}
