//! JSON without whitespace between its tokens, and otherwise byte for byte the same.
//!
//! Some banks sign the digest of a body in this form. A body that was read and written again would not do: numbers and
//! escapes have several spellings, and the bank takes the digest of the spelling that it received.

use serde::de::IgnoredAny;
use thiserror::Error;

/// The reason for which a body has no such form.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum MinifyError {
    /// It is not JSON, or is nested more than 128 deep.
    #[error("a body that is not JSON")]
    Malformed,
    /// It is longer than the limit.
    #[error("a body that is longer than is read")]
    TooLong,
}

/// Removes the whitespace outside of strings from a JSON text of at most `most` bytes, in linear time.
pub fn minified_json(json: &[u8], most: usize) -> Result<Vec<u8>, MinifyError> {
    if json.len() > most {
        return Err(MinifyError::TooLong);
    }
    serde_json::from_slice::<IgnoredAny>(json).map_err(|_| MinifyError::Malformed)?;
    let mut in_string = false;
    let mut is_escaped = false;
    let mut out = Vec::with_capacity(json.len());
    for byte in json {
        if in_string {
            in_string = is_escaped || *byte != b'"';
            is_escaped = !is_escaped && *byte == b'\\';
        } else if matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
            continue;
        } else {
            in_string = *byte == b'"';
        }
        out.push(*byte);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    const MOST: usize = 1000;

    #[test]
    fn whitespace_goes_and_every_spelling_stays() {
        for (json, minified) in [
            (
                "{ \"a\" : [ 1.0e+00 , \"x y\\\" \\\\\" , \"\\u00e9\" ]\r\n\t}",
                "{\"a\":[1.0e+00,\"x y\\\" \\\\\",\"\\u00e9\"]}",
            ),
            (" \"é  \" ", "\"é  \""),
            ("\n1\n", "1"),
            ("{\"a\":1,\"a\":2}", "{\"a\":1,\"a\":2}"),
        ] {
            assert_eq!(minified_json(json.as_bytes(), MOST).as_deref(), Ok(minified.as_bytes()));
        }
    }

    #[test]
    fn other_text_and_long_text_are_refused() {
        for text in ["", "{", "{\"a\":1}}", "tru e", "1 2", "\"a", "{'a':1}", "\u{feff}{}", "[1,]"] {
            assert_eq!(minified_json(text.as_bytes(), MOST), Err(MinifyError::Malformed), "{text}");
        }
        assert_eq!(minified_json(&[b'['; MOST], MOST), Err(MinifyError::Malformed));
        assert_eq!(minified_json(&[b' '; MOST + 1], MOST), Err(MinifyError::TooLong));
        assert_eq!(minified_json(b"\xff", MOST), Err(MinifyError::Malformed));
    }

    proptest! {
        #[test]
        fn the_value_stays_and_nothing_is_left_to_remove(
            bytes in proptest::collection::vec(any::<u8>(), 0..60),
            text in "[\\[\\]{}\":, \\\\a1\n\t]{0,40}",
            strings in proptest::collection::vec(".{0,12}", 0..6),
        ) {
            let _ = minified_json(&bytes, MOST);
            if let Ok(minified) = minified_json(text.as_bytes(), MOST) {
                let again = minified_json(&minified, MOST);
                prop_assert_eq!(again.as_ref(), Ok(&minified));
            }
            let pretty = serde_json::to_vec_pretty(&strings).unwrap();
            let minified = minified_json(&pretty, 10_000).unwrap();
            prop_assert_eq!(&minified, &serde_json::to_vec(&strings).unwrap());
            prop_assert_eq!(serde_json::from_slice::<Value>(&minified).unwrap(), serde_json::from_slice::<Value>(&pretty).unwrap());
        }
    }
}
