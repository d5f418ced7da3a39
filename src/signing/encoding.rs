//! Bytes as text: the encodings in which signatures, digests and certificates travel.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};

use crate::base::secret::hex;

/// An encoding of bytes as ASCII text (RFC 4648).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TextEncoding {
    Base64,
    Base64Unpadded,
    Base64Url,
    /// Base64url without padding, as in JOSE.
    Base64UrlUnpadded,
    Hex,
    HexUpper,
}

impl TextEncoding {
    /// Every encoding with its word, in the order of the error of [`TextEncoding::parse`].
    const WORDS: [(&'static str, TextEncoding); 6] = [
        ("base64", TextEncoding::Base64),
        ("base64-unpadded", TextEncoding::Base64Unpadded),
        ("base64url", TextEncoding::Base64UrlUnpadded),
        ("base64url-padded", TextEncoding::Base64Url),
        ("hex", TextEncoding::Hex),
        ("hex-upper", TextEncoding::HexUpper),
    ];

    /// Reads the word of an encoding. The error says what to write instead.
    pub fn parse(word: &str) -> Result<Self, &'static str> {
        let found = Self::WORDS.iter().find(|(known, _)| *known == word);
        found.map(|(_, encoding)| *encoding).ok_or(
            "write \"base64\", \"base64-unpadded\", \"base64url\", \"base64url-padded\", \"hex\" or \"hex-upper\"",
        )
    }

    pub fn encode(self, bytes: &[u8]) -> String {
        match self {
            TextEncoding::Base64 => STANDARD.encode(bytes),
            TextEncoding::Base64Unpadded => STANDARD_NO_PAD.encode(bytes),
            TextEncoding::Base64Url => URL_SAFE.encode(bytes),
            TextEncoding::Base64UrlUnpadded => URL_SAFE_NO_PAD.encode(bytes),
            TextEncoding::Hex => hex(bytes),
            TextEncoding::HexUpper => hex(bytes).to_ascii_uppercase(),
        }
    }

    /// Decodes `text`; `None` for what this encoding does not write. Hexadecimal digits are read in both cases.
    pub fn decode(self, text: &str) -> Option<Vec<u8>> {
        match self {
            TextEncoding::Base64 => STANDARD.decode(text).ok(),
            TextEncoding::Base64Unpadded => STANDARD_NO_PAD.decode(text).ok(),
            TextEncoding::Base64Url => URL_SAFE.decode(text).ok(),
            TextEncoding::Base64UrlUnpadded => URL_SAFE_NO_PAD.decode(text).ok(),
            TextEncoding::Hex | TextEncoding::HexUpper => unhex(text),
        }
    }
}

/// Encodes bytes in base64 with padding.
pub fn base64(bytes: &[u8]) -> String {
    TextEncoding::Base64.encode(bytes)
}

/// Encodes bytes in base64url without padding, the form of all parts of JOSE messages.
pub fn base64url(bytes: &[u8]) -> String {
    TextEncoding::Base64UrlUnpadded.encode(bytes)
}

pub fn from_base64url(text: &str) -> Option<Vec<u8>> {
    TextEncoding::Base64UrlUnpadded.decode(text)
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pair = |pair: &[u8]| Some(digit(*pair.first()?)? << 4 | digit(*pair.get(1)?)?);
    text.as_bytes().chunks(2).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_encoding_has_its_word() {
        let bytes = [0xfb, 0xef, 0xff, 0x01];
        for (word, text) in [
            ("base64", "++//AQ=="),
            ("base64-unpadded", "++//AQ"),
            ("base64url", "--__AQ"),
            ("base64url-padded", "--__AQ=="),
            ("hex", "fbefff01"),
            ("hex-upper", "FBEFFF01"),
        ] {
            let encoding = TextEncoding::parse(word).unwrap();
            assert_eq!(encoding.encode(&bytes), text);
            assert_eq!(encoding.decode(text).as_deref(), Some(&bytes[..]));
        }
        assert!(TextEncoding::parse("base32").unwrap_err().contains("\"base64\""));
    }

    #[test]
    fn odd_digits_foreign_letters_and_stray_bits_are_refused() {
        for (encoding, text) in [
            (TextEncoding::Hex, "abc"),
            (TextEncoding::Hex, "g0"),
            (TextEncoding::Hex, "+1"),
            (TextEncoding::Base64, "AQ"),
            (TextEncoding::Base64UrlUnpadded, "AQ=="),
            (TextEncoding::Base64UrlUnpadded, "AR"),
            (TextEncoding::Base64UrlUnpadded, "a b"),
        ] {
            assert_eq!(encoding.decode(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn decoding_undoes_encoding_and_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..80), text in ".{0,40}") {
            for (_, encoding) in TextEncoding::WORDS {
                let decoded = encoding.decode(&encoding.encode(&bytes));
                prop_assert_eq!(decoded.as_deref(), Some(&bytes[..]));
                let _ = encoding.decode(&text);
            }
        }
    }
}
