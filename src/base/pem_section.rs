//! Sections of PEM files (RFC 7468): those that the library's reader skips, what people's files have besides, and writing
//! one.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use thiserror::Error;
use zeroize::Zeroizing;

/// The byte order mark in UTF-8.
const MARK: &[u8] = b"\xef\xbb\xbf";
/// The mark of keys that OpenSSL encrypted before PKCS#8 (RFC 1421 section 4.6.1.1).
const OLD: &[u8] = b"Proc-Type: 4,ENCRYPTED";

/// The label of a certificate (RFC 7468 section 5).
pub const CERTIFICATE: &str = "CERTIFICATE";
/// The label of a key in PKCS#8 (RFC 7468 section 10).
pub const PRIVATE_KEY: &str = "PRIVATE KEY";
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

/// Writes one section, in lines of 64 characters.
pub fn pem_text(label: &str, content: &[u8]) -> Zeroizing<String> {
    let encoded = Zeroizing::new(STANDARD.encode(content));
    // Enough room for all of it: a text that grew would leave its pieces behind.
    let mut text = Zeroizing::new(String::with_capacity(encoded.len() + encoded.len() / 64 + 2 * label.len() + 40));
    text.extend(["-----BEGIN ", label, "-----\n"]);
    let mut rest = encoded.as_str();
    while let Some((line, behind)) = rest.split_at_checked(rest.len().min(64)).filter(|(line, _)| !line.is_empty()) {
        text.extend([line, "\n"]);
        rest = behind;
    }
    text.extend(["-----END ", label, "-----\n"]);
    text
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
    fn what_is_written_is_read_again_and_has_room_from_the_start() {
        for length in [0, 1, 47, 48, 49, 4096] {
            let content: Vec<u8> = (0..=u8::MAX).cycle().take(length).collect();
            let text = pem_text("A", &content);
            assert_eq!(pem_section(text.as_bytes(), "A").expect("a section").expect("base64").as_slice(), content);
            assert!(text.lines().all(|line| line.len() <= 64) && text.ends_with("-----END A-----\n"), "{text:?}");
            let encoded = content.len().div_ceil(3) * 4;
            assert_eq!(text.capacity(), encoded + encoded / 64 + 42, "it did not grow");
        }
    }

    #[test]
    fn marks_are_taken_out_wherever_they_stand() {
        assert_eq!(&*without_marks("\u{feff}a\u{feff}\u{feff}b".as_bytes()), b"ab");
        assert!(matches!(without_marks(b"ab"), Cow::Borrowed(b"ab")));
    }
}
