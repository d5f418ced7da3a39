//! A provider's response as a tree of values: content coding, charset and format undone.
//!
//! Token responses come as JSON, as XML, as a form, or as bare text; refusals are JSON. All of them may be written in
//! another charset than UTF-8. Bytes that cannot be decoded for certain become U+FFFD in the text: a value with that
//! character in it is not known.

use std::borrow::Cow;

use http::HeaderMap;
use http::header::CONTENT_TYPE;
use serde_json::{Map, Value};

use crate::base::coding::{Undecodable, without_coding};
use crate::provider::document_error::{DocumentError, SIZE_CAP};
use crate::provider::json;
use crate::provider::xml;

/// The format of a token endpoint's responses: `format` of `[token.response]`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum DocumentFormat {
    /// `application/x-www-form-urlencoded`; what begins with `{` is JSON all the same.
    Form,
    #[default]
    Json,
    /// The token alone; what begins with `{`, `[` or `"` is JSON all the same.
    Text,
    /// A document of XML 1.0; what begins with `{` is JSON all the same.
    Xml,
}

impl DocumentFormat {
    /// The words for it in a profile.
    pub(super) const WORDS: [(&'static str, Self); 4] = [
        ("form", DocumentFormat::Form),
        ("json", DocumentFormat::Json),
        ("text", DocumentFormat::Text),
        ("xml", DocumentFormat::Xml),
    ];

    /// Returns the value of `Accept` for this format. A server that has no JSON may respond with 406 to a client that
    /// accepts nothing else.
    pub(super) const fn accept(self) -> &'static str {
        match self {
            DocumentFormat::Form | DocumentFormat::Text | DocumentFormat::Xml => "*/*",
            DocumentFormat::Json => "application/json",
        }
    }
}

/// Reads a body as it came.
pub(super) fn read(format: DocumentFormat, headers: &HeaderMap, body: &[u8]) -> Result<Value, DocumentError> {
    let plain = without_coding(headers, body, SIZE_CAP).map_err(|why| match why {
        Undecodable::TooLong => DocumentError::TooLong,
        Undecodable::Broken | Undecodable::Unknown => DocumentError::Coded(why),
    })?;
    let text = text(headers, &plain)?;
    match format {
        DocumentFormat::Form => form(&text),
        DocumentFormat::Json => json::parse(&text),
        DocumentFormat::Text => bare(&text),
        DocumentFormat::Xml => xml(&text),
    }
}

/// Reads a body without its content coding as JSON.
pub(super) fn read_json(headers: &HeaderMap, plain: &[u8]) -> Result<Value, DocumentError> {
    if plain.len() > SIZE_CAP {
        return Err(DocumentError::TooLong);
    }
    json::parse(&text(headers, plain)?)
}

/// The text of a body as it came; `None` if it is too long or cannot be decoded.
pub(super) fn coded_text(headers: &HeaderMap, body: &[u8]) -> Option<String> {
    let plain = without_coding(headers, body, SIZE_CAP).ok()?;
    text(headers, &plain).ok().map(Cow::into_owned)
}

/// The text of a body without its content coding; `None` if it is too long.
pub(super) fn text_of<'a>(headers: &HeaderMap, plain: &'a [u8]) -> Option<Cow<'a, str>> {
    if plain.len() > SIZE_CAP {
        return None;
    }
    text(headers, plain).ok()
}

/// Returns whether a body is one whole JSON object, list or text, or one whole XML document: no part can be missing at
/// the end of it. For responses whose end is not guaranteed by their framing.
pub fn is_whole(headers: &HeaderMap, body: &[u8]) -> bool {
    let is_whole_json = |value| match value {
        Value::Array(_) | Value::Object(_) | Value::String(_) => true,
        Value::Bool(_) | Value::Null | Value::Number(_) => false,
    };
    read(DocumentFormat::Json, headers, body).is_ok_and(is_whole_json)
        || read(DocumentFormat::Xml, headers, body).is_ok()
}

/// Returns whether the value is not known for certain.
pub(super) fn is_doubtful(value: &Value) -> bool {
    value.as_str().is_some_and(|text| text.contains(char::REPLACEMENT_CHARACTER))
}

/// The text of a body. The charset counts where it is ISO-8859-1 or windows-1252; otherwise the text is UTF-8
/// (RFC 8259 section 8.1), and what is not becomes U+FFFD.
fn text<'a>(headers: &HeaderMap, plain: &'a [u8]) -> Result<Cow<'a, str>, DocumentError> {
    if is_western(headers) && !plain.starts_with(b"\xef\xbb\xbf") {
        return Ok(Cow::Owned(plain.iter().map(|byte| western(*byte)).collect()));
    }
    if let Ok(text) = std::str::from_utf8(plain) {
        return Ok(Cow::Borrowed(text));
    }
    // In some charsets of two bytes a backslash is the second half of a character. It must not escape what follows.
    let mut half = false;
    for chunk in plain.utf8_chunks() {
        if half && chunk.valid().starts_with('\\') {
            return Err(DocumentError::NotUtf8);
        }
        half = !chunk.invalid().is_empty();
    }
    Ok(String::from_utf8_lossy(plain))
}

/// Returns whether the content type names one of the two charsets of western Europe. ISO-8859-1 is read as
/// windows-1252, as in the WHATWG's Encoding Standard: they differ in control characters that no text holds.
fn is_western(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()) else { return false };
    let charset = value.split(';').skip(1).find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("charset").then(|| value.trim().trim_matches(['"', '\'']))
    });
    let names = ["iso-8859-1", "iso8859-1", "iso_8859-1", "latin1", "windows-1252", "cp1252"];
    charset.is_some_and(|charset| names.iter().any(|name| charset.eq_ignore_ascii_case(name)))
}

/// Returns the character of a byte in windows-1252.
fn western(byte: u8) -> char {
    const UPPER: [char; 32] = [
        '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž', '\u{8f}', '\u{90}', '‘',
        '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}', 'ž', 'Ÿ',
    ];
    let upper = byte.checked_sub(0x80).and_then(|at| UPPER.get(usize::from(at)));
    upper.copied().unwrap_or(char::from(byte))
}

/// The fields of a form. One that stands there twice becomes a list, which is no value for anything.
fn form(text: &str) -> Result<Value, DocumentError> {
    let text = without_mark(text);
    if text.is_empty() {
        return Err(DocumentError::Empty);
    }
    if text.starts_with('{') {
        return json::parse(text);
    }
    let mut fields = Map::new();
    for (name, value) in form_urlencoded::parse(text.as_bytes()) {
        let value = Value::String(value.into_owned());
        match fields.entry(name) {
            serde_json::map::Entry::Occupied(mut known) => {
                let before = known.get_mut().take();
                known.insert(Value::Array(vec![before, value]));
            }
            serde_json::map::Entry::Vacant(free) => drop(free.insert(value)),
        }
    }
    Ok(Value::Object(fields))
}

/// A text that is one value. A page is none.
fn bare(text: &str) -> Result<Value, DocumentError> {
    let text = without_mark(text);
    match text.as_bytes().first() {
        None => Err(DocumentError::Empty),
        Some(b'"' | b'[' | b'{') => json::parse(text),
        Some(b'<') => Err(DocumentError::NotJson { line: 1, column: 1 }),
        Some(_) => Ok(Value::String(text.to_owned())),
    }
}

/// A document of XML; errors may be JSON.
fn xml(text: &str) -> Result<Value, DocumentError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim_ascii().starts_with('{') { json::parse(text) } else { xml::parse(text) }
}

fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text).trim_ascii()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    fn typed(kind: &str) -> HeaderMap {
        headers(&[("content-type", kind)])
    }

    #[test]
    fn the_charset_of_western_europe_is_honoured() {
        let latin = b"{\"name\":\"Raz\xf3n \x80\"}";
        for kind in [
            "application/json;charset=ISO-8859-1",
            "application/json; Charset=\"windows-1252\"",
            "x/y;a=b; charset = latin1",
        ] {
            assert_eq!(read_json(&typed(kind), latin), Ok(json!({ "name": "Razón €" })), "{kind}");
        }
        let utf8 = "\u{feff}{\"name\":\"Razón\"}".as_bytes();
        assert_eq!(
            read_json(&typed("application/json;charset=ISO-8859-1"), utf8),
            Ok(json!({ "name": "Razón" })),
            "a mark"
        );
        assert_eq!(read_json(&typed("application/json;charset=utf-8"), utf8), Ok(json!({ "name": "Razón" })));
    }

    #[test]
    fn what_is_no_utf8_is_replaced_and_its_value_is_known_to_be_doubtful() {
        let odd = b"{\"token\":\"t\",\"name\":\"\xa1\xca\xc3\"}";
        for kind in ["application/json", "application/json; charset=tis-620", "application/json;charset=UTF-8"] {
            let value = read_json(&typed(kind), odd).expect(kind);
            assert!(!is_doubtful(&value["token"]) && is_doubtful(&value["name"]), "{kind}: {value}");
        }
        // Shift_JIS: the second byte of 0x95 0x5C is no backslash.
        assert_eq!(
            read_json(&typed("application/json"), b"{\"a\":\"\x95\\\",\"b\":\"c\"}"),
            Err(DocumentError::NotUtf8)
        );
    }

    #[test]
    fn a_form_is_a_flat_object_and_a_field_that_comes_twice_is_no_value() {
        let form = |text: &str| read(DocumentFormat::Form, &HeaderMap::new(), text.as_bytes());
        assert_eq!(
            form("access_token=a%2Bb&expires_in=3600&x=1+2\r\n"),
            Ok(json!({ "access_token": "a+b", "expires_in": "3600", "x": "1 2" }))
        );
        assert_eq!(form("a=1&a=2"), Ok(json!({ "a": ["1", "2"] })));
        assert_eq!(form("{\"error\":\"x\"}"), Ok(json!({ "error": "x" })), "an error may be JSON");
        assert_eq!(form(" \r\n"), Err(DocumentError::Empty));
    }

    #[test]
    fn a_bare_text_is_the_value_and_a_page_is_none() {
        let text = |text: &str| read(DocumentFormat::Text, &HeaderMap::new(), text.as_bytes());
        assert_eq!(text("eyJ.x.y\n"), Ok(json!("eyJ.x.y")));
        assert_eq!(text("\"quoted\""), Ok(json!("quoted")));
        assert_eq!(text("{\"error\":\"invalid_client\"}"), Ok(json!({ "error": "invalid_client" })));
        assert!(matches!(text("<html>"), Err(DocumentError::NotJson { .. })));
        assert_eq!(text(""), Err(DocumentError::Empty));
    }

    #[test]
    fn xml_is_read_in_its_charset_and_errors_may_be_json() {
        let xml = |headers: &HeaderMap, body: &[u8]| read(DocumentFormat::Xml, headers, body);
        let none = HeaderMap::new();
        assert_eq!(xml(&none, "\u{feff}\n<?xml version='1.0'?><a>é</a>".as_bytes()), Ok(json!({ "a": "é" })));
        assert_eq!(xml(&typed("text/xml; charset=iso-8859-1"), b"<a>\xe9</a>"), Ok(json!({ "a": "é" })));
        assert!(xml(&none, b"<a>\xe9</a>").is_ok_and(|value| is_doubtful(&value["a"])));
        assert_eq!(xml(&none, b" {\"error\":\"x\"}"), Ok(json!({ "error": "x" })));
        assert_eq!(xml(&none, b"\n"), Err(DocumentError::Empty));
        assert_eq!(xml(&none, &vec![b' '; SIZE_CAP + 1]), Err(DocumentError::TooLong));
    }

    #[test]
    fn a_content_coding_is_undone_within_the_limit() {
        let gzip = |text: &[u8]| {
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
            gzip.write_all(text).and_then(|()| gzip.finish()).unwrap()
        };
        let coded = headers(&[("content-encoding", "gzip")]);
        assert_eq!(read(DocumentFormat::Json, &coded, &gzip(b"{\"a\":1}")), Ok(json!({ "a": 1 })));
        assert_eq!(read(DocumentFormat::Json, &coded, &gzip(&vec![b' '; 10 << 20])), Err(DocumentError::TooLong));
        assert_eq!(read(DocumentFormat::Json, &coded, b"{}"), Err(DocumentError::Coded(Undecodable::Broken)));
        let unknown = headers(&[("content-encoding", "br")]);
        assert_eq!(read(DocumentFormat::Json, &unknown, b"{}"), Err(DocumentError::Coded(Undecodable::Unknown)));
    }

    #[test]
    fn only_what_tells_its_own_end_is_whole() {
        let whole = |text: &str| is_whole(&HeaderMap::new(), text.as_bytes());
        for text in ["{\"access_token\":\"t\"}", "[1]", "\"t\"", " {} \n", "<?xml version='1.0'?><a>t</a>", "<a/>"] {
            assert!(whole(text), "{text}");
        }
        for text in ["", "{\"access_token\":\"t\"", "12", "true", "access_token=t", "\"t", "{} {", "<a>t</a", "<a>t"] {
            assert!(!whole(text), "{text}");
        }
    }

    proptest! {
        /// A JSON object that is cut anywhere is never taken for a whole one.
        #[test]
        fn a_cut_object_is_never_whole(token in "[ -~]{0,40}", life in any::<u32>(), at in 0_usize..100) {
            let text = json!({ "access_token": token, "expires_in": life }).to_string();
            prop_assert!(is_whole(&HeaderMap::new(), text.as_bytes()));
            let cut = text.get(..at.min(text.len() - 1)).unwrap_or_default();
            prop_assert!(!is_whole(&HeaderMap::new(), cut.as_bytes()));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in "application/json(;charset=(iso-8859-1|utf-8|x))?", coding in "(gzip|deflate|)") {
            let headers = headers(&[("content-type", &kind), ("content-encoding", &coding)]);
            for format in [DocumentFormat::Form, DocumentFormat::Json, DocumentFormat::Text, DocumentFormat::Xml] {
                let _ = read(format, &headers, &bytes);
            }
        }
    }
}
