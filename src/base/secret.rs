//! Secrets, and the parts of them that may be shown.
//!
//! A secret is a `secrecy` value from the moment it is read. Its [`Fingerprint`] may be shown: enough to distinguish
//! two secrets in a log, too little to guess one. Text from outside may hold a secret that is not known here: of such
//! text, only what [is wordy](is_wordy_secret) may be shown.

use std::fmt;

use aws_lc_rs::digest;
pub use secrecy::{ExposeSecret, SecretBox, SecretString};

/// The first eight hexadecimal digits of a secret's SHA-256.
#[derive(Clone, Copy, Eq, Hash, PartialEq)]
pub struct Fingerprint(u32);

impl Fingerprint {
    /// The fingerprint of some secret bytes.
    pub fn of(secret: &[u8]) -> Self {
        let hash = sha256(secret);
        Self(u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]))
    }

    /// Returns the number that its digits stand for.
    pub const fn number(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

/// Computes the SHA-256 digest of `bytes`.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    out
}

/// Encodes bytes as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    let mut out = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _ = write!(out, "{byte:02x}");
    }
    out
}

/// Returns whether a text from outside consists of words and numbers, as error codes, media types and field names do.
///
/// Tokens and encoded secrets look like long mixtures of letters and digits, and a provider may repeat one in the most
/// unlikely place; so such text is never shown. At most 64 bytes.
pub fn is_wordy_secret(text: &str) -> bool {
    let is_pure = |word: &str| {
        let pure = |longest: usize, kind: fn(&u8) -> bool| word.len() <= longest && word.as_bytes().iter().all(kind);
        pure(24, u8::is_ascii_alphabetic) || pure(16, u8::is_ascii_digit)
    };
    let is_mixed = |word: &str| word.len() <= 8 && word.as_bytes().iter().all(u8::is_ascii_alphanumeric);
    let words = || text.split(['.', '_', '-', '/', '+']);
    // One may be mixed, as in `x-b3-traceid`; several are a UUID with luck in its groups.
    (1..=64).contains(&text.len())
        && words().all(|word| is_pure(word) || is_mixed(word))
        && words().filter(|word| !is_pure(word)).count() <= 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_names_are_wordy_and_tokens_are_not() {
        for word in [
            "9300",
            "invalid_client",
            "WRONG_USER",
            "E1042",
            "application/problem+json",
            "x-request-id",
            "x-b3-traceid",
            "p0",
        ] {
            assert!(is_wordy_secret(word), "{word}");
        }
        for token in [
            "",
            "a b",
            "two\nlines",
            "0a763d084bb01c80cae587619373b788",
            "fe0744eb-e9a4-47d7-a407-5210443af875",
            "5e353dfd-626c-4faa-b76b-521044398752",
            "MGE3NjNkMDg0YmIwMWM4MGNhZTU4NzYxOTM3NmI3ODg",
            "eyJhbGciOiJIUzI1NiJ9.eyJleHAiOjF9.c2ln",
            "averyveryverylongwordofletters",
            "aaaa-aaaa-aaaa-aaaa-aaaa-aaaa-aaaa-aaaa-aaaa-aaaa-aaaa-aaaa-aaaa-aaaa",
        ] {
            assert!(!is_wordy_secret(token), "{token}");
        }
    }
}
