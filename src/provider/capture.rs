//! Values that are kept of an answer under a name: `captures` of a token answer, of a consent's, of a login's step.

use std::sync::Arc;

use http::header::SET_COOKIE;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

use crate::provider::document::is_doubtful;
use crate::provider::template::is_name;
use crate::provider::values::{FieldName, Pointer};
use crate::syntax::{Diagnostics, Fields, FromNode, Kind, Node, TableEntry};

/// One entry of `captures`.
#[derive(Clone, Debug)]
pub(super) struct Capture {
    pub name: Arc<str>,
    source: CaptureSource,
}

/// The place of a captured value in an answer.
#[derive(Clone, Debug)]
enum CaptureSource {
    /// The value of the one cookie of this name that `Set-Cookie` sets.
    Cookie(String),
    /// The one header of this name.
    Header(HeaderName),
    /// The text or number to which this JSON pointer leads.
    Pointer(String),
}

/// Reads the `captures` table of a response.
pub(super) fn captures(fields: &Fields<'_>) -> Vec<Capture> {
    let Some(node) = fields.take("captures") else { return Vec::new() };
    let report = fields.report();
    let inner = Fields::new(node, format!("{} captures", fields.what()), report);
    let read = |entry: &&TableEntry| {
        let source = CaptureSource::from_node(&entry.value, report);
        if !is_name(&entry.key) {
            let title = format!("{:?} cannot be the name of a capture", entry.key);
            report.error(&entry.value.source, entry.key_span.clone(), title, "", None);
            return None;
        }
        Some(Capture { name: entry.key.as_str().into(), source: source? })
    };
    let captures = inner.rest().iter().filter_map(read).collect();
    inner.finish();
    captures
}

impl FromNode for CaptureSource {
    fn from_node(node: &Node, report: &Diagnostics) -> Option<Self> {
        match &node.kind {
            Kind::String(text) if text.starts_with('/') => Some(CaptureSource::Pointer(text.clone())),
            Kind::String(_) => FieldName::from_node(node, report).map(|name| CaptureSource::Header(name.0)),
            Kind::Table(_) => {
                let fields = Fields::new(node, "a capture", report);
                let cookie = fields.opt::<String>("cookie").map(CaptureSource::Cookie);
                let header = fields.opt::<FieldName>("header").map(|name| CaptureSource::Header(name.0));
                let pointer = fields.opt::<Pointer>("pointer").map(|pointer| CaptureSource::Pointer(pointer.0));
                let said = ["cookie", "header", "pointer"].iter().filter(|key| fields.take(key).is_some()).count();
                if said != 1 {
                    let help = "write `{ cookie = \"NAME\" }`, `{ header = \"NAME\" }` or `{ pointer = \"/NAME\" }`";
                    node.error(report, "a capture has one source", "", Some(help.to_owned()));
                    return None;
                }
                fields.finish();
                cookie.or(header).or(pointer)
            }
            Kind::Array(_) | Kind::Boolean(_) | Kind::Float(_) | Kind::Integer(_) => {
                let help = "a header's name, a JSON pointer, or `{ cookie = \"NAME\" }`".to_owned();
                node.error(report, "a capture names a place in the answer", "", Some(help));
                None
            }
        }
    }
}

impl Capture {
    /// Finds the value in an answer, sensitive; `Ok(None)` if it is not there at all. The error says what is wrong with it,
    /// without quoting the answer.
    pub(super) fn find(&self, headers: &HeaderMap, value: &Value) -> Result<Option<HeaderValue>, String> {
        let found = match &self.source {
            CaptureSource::Cookie(name) => {
                let cookies = headers.get_all(SET_COOKIE).iter().filter_map(|line| cookie(line.as_bytes(), name));
                one(cookies.map(HeaderValue::from_bytes), || format!("the cookie `{name}`"))?
                    .transpose()
                    .map_err(|_| format!("the cookie `{name}` holds what no header can carry"))?
            }
            CaptureSource::Header(name) => {
                one(headers.get_all(name).iter().cloned(), || format!("the header `{name}`"))?
            }
            CaptureSource::Pointer(pointer) => {
                let text = match value.pointer(pointer) {
                    None | Some(Value::Null) => return Ok(None),
                    Some(found @ Value::String(text)) if !text.is_empty() && !is_doubtful(found) => text.clone(),
                    Some(Value::Number(number)) => number.to_string(),
                    Some(Value::Array(_) | Value::Bool(_) | Value::Object(_) | Value::String(_)) => {
                        return Err(format!("the value at `{pointer}` is no text"));
                    }
                };
                let value = HeaderValue::from_str(&text);
                Some(value.map_err(|_| format!("the value at `{pointer}` holds what no header can carry"))?)
            }
        };
        Ok(found.map(|mut found| {
            found.set_sensitive(true);
            found
        }))
    }

    /// Returns the JSON pointer to its place, if that is in the body.
    pub(super) fn pointer(&self) -> Option<&str> {
        match &self.source {
            CaptureSource::Cookie(_) | CaptureSource::Header(_) => None,
            CaptureSource::Pointer(pointer) => Some(pointer),
        }
    }

    /// Returns the name of its place for messages.
    pub(super) fn place(&self) -> String {
        match &self.source {
            CaptureSource::Cookie(name) => format!("the cookie `{name}`"),
            CaptureSource::Header(name) => format!("the header `{name}`"),
            CaptureSource::Pointer(pointer) => format!("the value at `{pointer}`"),
        }
    }
}

/// The only one of these; an error if there are several.
fn one<T>(mut all: impl Iterator<Item = T>, what: impl Fn() -> String) -> Result<Option<T>, String> {
    match (all.next(), all.next()) {
        (found, None) => Ok(found),
        (_, Some(_)) => Err(format!("{} is not there exactly once", what())),
    }
}

/// The value of a `Set-Cookie` field, if it sets the cookie of this name (RFC 6265 section 5.2).
fn cookie<'a>(field: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let pair = field.split(|byte| *byte == b';').next()?;
    let at = pair.iter().position(|byte| *byte == b'=')?;
    let (own, value) = (pair.get(..at)?.trim_ascii(), pair.get(at + 1..)?.trim_ascii());
    (own == name.as_bytes() && !value.is_empty()).then_some(value)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(source: CaptureSource, headers: &[(&'static str, &'static str)]) -> Result<Option<String>, String> {
        let headers =
            headers.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        let headers: HeaderMap = headers.collect();
        let capture = Capture { name: "a".into(), source };
        let found = capture.find(&headers, &json!({ "a": { "b": "x", "n": 7, "l": [], "e": "" } }))?;
        assert!(found.as_ref().is_none_or(HeaderValue::is_sensitive));
        Ok(found.map(|value| value.to_str().expect("text").to_owned()))
    }

    #[test]
    fn one_cookie_is_found_among_others() {
        let lines = [("set-cookie", "JSESSIONID=9; Path=/"), ("set-cookie", " NODE = n1=x ; Path=/; Secure")];
        let cookie = || CaptureSource::Cookie("NODE".to_owned());
        assert_eq!(found(cookie(), &lines), Ok(Some("n1=x".to_owned())));
        assert_eq!(found(cookie(), &lines[..1]), Ok(None));
        assert_eq!(found(cookie(), &[("set-cookie", "NODE=; Max-Age=0")]), Ok(None), "it is taken away");
        assert_eq!(found(cookie(), &[("set-cookie", "a; NODE=b"), ("cookie", "NODE=b")]), Ok(None));
        let twice = [("set-cookie", "NODE=a"), ("set-cookie", "NODE=b")];
        assert_eq!(found(cookie(), &twice), Err("the cookie `NODE` is not there exactly once".to_owned()));
    }

    #[test]
    fn a_pointer_leads_to_a_text_or_a_number() {
        let at = |pointer: &str| found(CaptureSource::Pointer(pointer.to_owned()), &[]);
        assert_eq!(at("/a/b"), Ok(Some("x".to_owned())));
        assert_eq!(at("/a/n"), Ok(Some("7".to_owned())));
        assert_eq!(at("/a/c"), Ok(None));
        for pointer in ["/a", "/a/l", "/a/e"] {
            assert_eq!(at(pointer), Err(format!("the value at `{pointer}` is no text")));
        }
    }
}
