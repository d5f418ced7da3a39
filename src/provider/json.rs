//! Reading JSON that a stranger sent: bounded in size and depth before it is parsed.

use serde_json::Value;

use crate::provider::document_error::{DEPTH_CAP, DocumentError, SIZE_CAP};

/// Parses one JSON text in UTF-8.
pub(super) fn read(bytes: &[u8]) -> Result<Value, DocumentError> {
    if bytes.len() > SIZE_CAP {
        return Err(DocumentError::TooLong);
    }
    parse(std::str::from_utf8(bytes).map_err(|_| DocumentError::NotUtf8)?)
}

/// Parses one JSON text. A byte order mark in front of it is ignored, as RFC 8259 section 8.1 permits.
pub(super) fn parse(text: &str) -> Result<Value, DocumentError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim_ascii().is_empty() {
        return Err(DocumentError::Empty);
    }
    if depth(text.as_bytes()) > DEPTH_CAP {
        return Err(DocumentError::TooDeep);
    }
    serde_json::from_str(text).map_err(|error| DocumentError::NotJson { line: error.line(), column: error.column() })
}

/// The first of `pointers` (RFC 6901) that leads to something other than `null`.
pub(super) fn first<'a>(value: &'a Value, pointers: &[String]) -> Option<&'a Value> {
    pointers.iter().filter_map(|pointer| value.pointer(pointer)).find(|found| !found.is_null())
}

/// The deepest nesting of brackets outside of strings. Right for JSON; harmless for anything else.
fn depth(bytes: &[u8]) -> usize {
    let (mut now, mut deepest) = (0_usize, 0_usize);
    let (mut in_string, mut escaped) = (false, false);
    for byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'[' | b'{' => {
                now += 1;
                deepest = deepest.max(now);
            }
            b']' | b'}' => now = now.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn depth_counts_brackets_but_not_those_in_strings() {
        assert_eq!(depth(br#"{"a":[[]],"b":"[[[[\"[[["}"#), 3);
        let (fits, beyond) = ("[".repeat(32) + &"]".repeat(32), "[".repeat(33) + &"]".repeat(33));
        assert!(read(fits.as_bytes()).is_ok());
        assert_eq!(read(beyond.as_bytes()), Err(DocumentError::TooDeep));
        assert_eq!(read("[".repeat(60_000).as_bytes()), Err(DocumentError::TooDeep));
    }

    #[test]
    fn what_is_not_json_is_told_apart() {
        assert_eq!(read(b" \r\n"), Err(DocumentError::Empty));
        assert_eq!(read(b"<html>"), Err(DocumentError::NotJson { line: 1, column: 1 }));
        assert_eq!(read(b"{\"a\":\n1"), Err(DocumentError::NotJson { line: 2, column: 1 }));
        assert_eq!(read(b"\"\xff\""), Err(DocumentError::NotUtf8));
        assert_eq!(read(&vec![b' '; SIZE_CAP + 1]), Err(DocumentError::TooLong));
        assert!(read(b"\xef\xbb\xbf{}").is_ok());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = read(&bytes);
        }
    }
}
