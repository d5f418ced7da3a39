//! Sections of PEM files (RFC 7468) that the library's reader skips, and what people's files have besides.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use thiserror::Error;
use zeroize::Zeroizing;

/// The byte order mark in UTF-8.
const MARK: &[u8] = b"\xef\xbb\xbf";
/// The mark of keys that OpenSSL encrypted before PKCS#8 (RFC 1421 section 4.6.1.1).
const OLD: &[u8] = b"Proc-Type: 4,ENCRYPTED";

/// The label of a key that a password opens (RFC 7468 section 11).
pub const ENCRYPTED_PRIVATE_KEY: &str = "ENCRYPTED PRIVATE KEY";

/// A section has no end, or its text is no base64.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("not well-formed PEM")]
pub struct BrokenSection;

/// The bytes of the first section with this label; `None`: there is none.
pub fn pem_section(pem: &[u8], label: &str) -> Option<Result<Zeroizing<Vec<u8>>, BrokenSection>> {
    let text = String::from_utf8_lossy(pem);
    let (_, from) = text.split_once(&format!("-----BEGIN {label}-----"))?;
    let Some((inner, _)) = from.split_once(&format!("-----END {label}-----")) else { return Some(Err(BrokenSection)) };
    let inner: Zeroizing<String> = Zeroizing::new(inner.split_whitespace().collect());
    Some(STANDARD.decode(inner.as_bytes()).map(Zeroizing::new).map_err(|_| BrokenSection))
}

/// The same file without byte order marks, which some editors write: files are joined, so they may stand anywhere.
pub fn without_marks(pem: &[u8]) -> Cow<'_, [u8]> {
    if !holds(pem, MARK) {
        return Cow::Borrowed(pem);
    }
    let mut kept = Vec::with_capacity(pem.len());
    let mut rest = pem;
    while let [first, behind @ ..] = rest {
        rest = rest.strip_prefix(MARK).unwrap_or_else(|| {
            kept.push(*first);
            behind
        });
    }
    Cow::Owned(kept)
}

/// Returns whether a file holds a key that OpenSSL encrypted in its old form, which is not read here.
pub fn has_old_encryption(pem: &[u8]) -> bool {
    holds(pem, OLD)
}

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    memchr::memmem::find(bytes, part).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_section_of_a_label_is_found_in_any_layout() {
        let pem = b"text\r\n-----BEGIN A-----\r\naGVs\r\n bG8=\r\n-----END A-----\n-----BEGIN A-----\n-----END A-----";
        assert_eq!(pem_section(pem, "A").expect("a section").expect("base64").as_slice(), b"hello");
        assert!(pem_section(pem, "B").is_none());
        for broken in ["-----BEGIN A-----\naGVsbG8=", "-----BEGIN A-----\n?\n-----END A-----"] {
            assert_eq!(pem_section(broken.as_bytes(), "A"), Some(Err(BrokenSection)), "{broken}");
        }
    }

    #[test]
    fn marks_are_taken_out_wherever_they_stand() {
        assert_eq!(&*without_marks("\u{feff}a\u{feff}\u{feff}b".as_bytes()), b"ab");
        assert!(matches!(without_marks(b"ab"), Cow::Borrowed(b"ab")));
    }
}
