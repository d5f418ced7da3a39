//! Fields that are put into the body of a call: into JSON by a pointer, into a form by a name.

use http::HeaderMap;
use http::header::CONTENT_TYPE;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::base::coding::is_coded;
use crate::provider::json_members::{put, quoted, steps};
use crate::provider::parameters::{Parameters, RenderedParameters};

/// The reason for which a field cannot be put into a body.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("{}", self.text())]
pub enum UnfitBody {
    /// It has a content coding.
    Coded,
    /// Its content type is neither JSON nor a form.
    NoFields,
    /// It is no JSON object, or what a pointer leads through is none.
    NoObject,
}

impl UnfitBody {
    /// Returns the sentence for the client.
    pub const fn text(self) -> &'static str {
        match self {
            UnfitBody::Coded => "The body has a content coding, and the provider needs fields put into it.",
            UnfitBody::NoFields => "The body is neither JSON nor a form, and the provider needs fields put into it.",
            UnfitBody::NoObject => "The body is no JSON object at the place where the provider needs a field.",
        }
    }
}

/// Puts fields into a body, in the place of others of their names.
pub(super) fn put_into(
    headers: &HeaderMap,
    body: &[u8],
    fields: &RenderedParameters,
) -> Result<Zeroizing<Vec<u8>>, UnfitBody> {
    if is_coded(headers) {
        return Err(UnfitBody::Coded);
    }
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let media = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let text = std::str::from_utf8(body).map_err(|_| UnfitBody::NoFields)?;
    if media == "application/x-www-form-urlencoded" {
        let mut names = Parameters::default();
        let mut pairs = RenderedParameters::with_capacity(fields.len());
        for (pointer, value) in fields {
            let [name] = steps(pointer).try_into().map_err(|_| UnfitBody::NoObject)?;
            names.push(name.as_str().into(), None);
            pairs.push((name.into(), value.clone()));
        }
        let form = Zeroizing::new(if text.is_empty() { String::new() } else { format!("?{text}") });
        let form = names.put_into(&form, &pairs);
        return Ok(Zeroizing::new(form.strip_prefix('?').unwrap_or(&form).as_bytes().to_vec()));
    }
    if media != "application/json" && media != "text/json" && !media.ends_with("+json") {
        return Err(UnfitBody::NoFields);
    }
    let mut text = Zeroizing::new(text.to_owned());
    for (pointer, value) in fields {
        text = put(&text, &steps(pointer), &quoted(value)).ok_or(UnfitBody::NoObject)?;
    }
    Ok(Zeroizing::new(text.as_bytes().to_vec()))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::CONTENT_ENCODING;
    use proptest::prelude::*;

    use super::*;

    fn dressed(kind: &'static str, body: &str, fields: &[(&str, &str)]) -> Result<String, UnfitBody> {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(kind))]);
        let fields = fields.iter().map(|(name, value)| ((*name).into(), Zeroizing::new((*value).to_owned()))).collect();
        put_into(&headers, body.as_bytes(), &fields).map(|body| String::from_utf8(body.to_vec()).expect("text"))
    }

    #[test]
    fn a_field_is_put_into_json_and_the_rest_stays_as_it_is_written() {
        let json = "application/json; charset=utf-8";
        for (body, pointer, out) in [
            ("{}", "/pin", r#"{"pin":"s\"1"}"#),
            (
                r#"{ "amount": 100.10, "n": 12345678901234567890 }"#,
                "/pin",
                r#"{"amount":100.10,"n":12345678901234567890,"pin":"s\"1"}"#,
            ),
            (r#"{"Pin":1,"a":[1.50, 2],"PIN":"x"}"#, "/pin", r#"{"pin":"s\"1","a":[1.50, 2]}"#),
            (r#"{"a":{"b": 1.0}}"#, "/a/pin", r#"{"a":{"b":1.0,"pin":"s\"1"}}"#),
            ("{}", "/a/b~1c", r#"{"a":{"b/c":"s\"1"}}"#),
        ] {
            assert_eq!(dressed(json, body, &[(pointer, "s\"1")]).as_deref(), Ok(out), "{body}");
        }
        for body in ["[]", "1", "", "{", "{}{}", r#"{"a":1}"#] {
            assert_eq!(dressed(json, body, &[("/a/b", "x")]), Err(UnfitBody::NoObject), "{body}");
        }
    }

    #[test]
    fn a_field_is_put_into_a_form() {
        let form = "application/x-www-form-urlencoded";
        let out = dressed(form, "a=%2F&pin=forged&b", &[("/pin", "s 1"), ("/c", "&")]);
        assert_eq!(out.as_deref(), Ok("a=%2F&b&pin=s%201&c=%26"));
        assert_eq!(dressed(form, "", &[("/pin", "1")]).as_deref(), Ok("pin=1"));
        assert_eq!(dressed(form, "a=1", &[("/a/b", "1")]), Err(UnfitBody::NoObject));
        assert_eq!(dressed("text/plain", "a", &[("/a", "1")]), Err(UnfitBody::NoFields));
    }

    #[test]
    fn a_coded_body_is_left_alone() {
        let headers = HeaderMap::from_iter([(CONTENT_ENCODING, HeaderValue::from_static("gzip"))]);
        assert_eq!(put_into(&headers, b"{}", &RenderedParameters::new()), Err(UnfitBody::Coded));
    }

    proptest! {
        #[test]
        fn any_body_is_survived_and_json_stays_json(body in r#"[{}\[\]":,a0.e\\ -]{0,40}"#) {
            if let Ok(out) = dressed("application/json", &body, &[("/a/b", "x")]) {
                let value: serde_json::Value = serde_json::from_str(&out).expect("JSON");
                prop_assert_eq!(value.pointer("/a/b").and_then(serde_json::Value::as_str), Some("x"));
            }
        }
    }
}
