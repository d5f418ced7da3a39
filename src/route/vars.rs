//! Values that a route takes from a request.

use std::sync::Arc;

use http::{HeaderMap, HeaderName};
use percent_encoding::percent_decode_str;
use regex::Regex;

use super::json::{same_but_for_case, seek};
use super::pattern::Pattern;

const CASE: &str = "a variable of the route stands in the query under a name that differs in case alone";
const MISFIT: &str = "a variable of the route has a value that does not fit";
const MISSING: &str = "a variable of the route is missing";
const TWICE: &str = "a variable of the route is given more than once";
const UNREADABLE: &str = "a variable of the route is not readable text";

/// The source of a variable's value.
#[derive(Clone, Debug)]
pub enum VarSource {
    /// The one header field of this name.
    Header(HeaderName),
    /// The string or whole number that this JSON pointer (RFC 6901) leads to in the request's body, in its reference
    /// tokens.
    Json(Vec<String>),
    /// The segment that the pattern captures of the provider's path, without the base path.
    Path(Pattern),
    /// The one query parameter of this name.
    Query(String),
    /// A constant value, independent of the request.
    Value(String),
}

/// A variable of a route.
#[derive(Clone, Debug)]
pub struct Var {
    name: Arc<str>,
    from: VarSource,
    pattern: Option<Regex>,
}

impl Var {
    /// A variable whose whole value must match `pattern`. The error is for a person.
    pub fn new(name: Arc<str>, from: VarSource, pattern: Option<&str>) -> Result<Self, String> {
        let pattern = pattern.map(whole).transpose()?;
        if let (VarSource::Value(value), Some(pattern)) = (&from, &pattern)
            && !pattern.is_match(value)
        {
            return Err("the value does not match the pattern".to_owned());
        }
        Ok(Self { name, from, pattern })
    }

    /// Returns the name that the config gives it.
    pub const fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Returns the source of its value.
    pub const fn source(&self) -> &VarSource {
        &self.from
    }

    /// Returns whether its value is in the request body.
    pub(super) const fn in_body(&self) -> bool {
        matches!(self.from, VarSource::Json(_))
    }

    /// Its value in one request. `path` is the provider's as a server reads it, `query` comes with its `?`; `body` is the whole body, where
    /// it was gathered for the sake of a variable.
    pub(super) fn read(
        &self,
        path: &str,
        query: &str,
        headers: &HeaderMap,
        body: Option<&[u8]>,
    ) -> Result<String, &'static str> {
        let value = match &self.from {
            VarSource::Header(name) => {
                let mut fields = headers.get_all(name).iter();
                let field = fields.next().ok_or(MISSING)?;
                if fields.next().is_some() {
                    return Err(TWICE);
                }
                field.to_str().map_err(|_| UNREADABLE)?.to_owned()
            }
            VarSource::Json(pointer) => seek(body.ok_or(MISSING)?, pointer)?,
            VarSource::Path(pattern) => decoded(pattern.capture(path).ok_or(MISSING)?)?,
            VarSource::Query(name) => in_query(query, name)?,
            VarSource::Value(value) => value.clone(),
        };
        if value.is_empty() {
            return Err(MISSING);
        }
        match &self.pattern {
            Some(pattern) if !pattern.is_match(&value) => Err(MISFIT),
            Some(_) | None => Ok(value),
        }
    }
}

/// The pattern, bound to the whole value. It is read alone first, so that it cannot close the group around it.
fn whole(pattern: &str) -> Result<Regex, String> {
    let explain = |error: regex::Error| match error {
        regex::Error::CompiledTooBig(_) => "the pattern is too big".to_owned(),
        other => {
            let text = other.to_string();
            let last = text.lines().last().unwrap_or_default();
            format!("not a regular expression: {}", last.trim_start_matches("error: "))
        }
    };
    Regex::new(pattern).map_err(explain)?;
    Regex::new(&format!("^(?:{pattern})$")).map_err(explain)
}

/// The value of the only parameter of this name. Names are compared decoded: two spellings are still two. Many servers
/// compare them without case, so one in other letters is refused.
fn in_query(query: &str, name: &str) -> Result<String, &'static str> {
    let mut found = None;
    for pair in query.strip_prefix('?').unwrap_or(query).split('&') {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let plus = key.replace('+', " ");
        let Ok(key) = percent_decode_str(&plus).decode_utf8() else { continue };
        if key != name && same_but_for_case(&key, name) {
            return Err(CASE);
        }
        if key == name && found.replace(value).is_some() {
            return Err(TWICE);
        }
    }
    decoded(&found.ok_or(MISSING)?.replace('+', " "))
}

fn decoded(text: &str) -> Result<String, &'static str> {
    let value = percent_decode_str(text).decode_utf8().map_err(|_| UNREADABLE)?;
    if value.chars().any(char::is_control) { Err(UNREADABLE) } else { Ok(value.into_owned()) }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn var(from: VarSource, pattern: Option<&str>) -> Var {
        Var::new("account".into(), from, pattern).unwrap()
    }

    fn header(values: &[&'static str]) -> HeaderMap {
        values.iter().map(|v| (HeaderName::from_static("x-account-id"), HeaderValue::from_static(v))).collect()
    }

    #[test]
    fn a_header_counts_when_it_comes_once_and_fits_whole() {
        let account = var(VarSource::Header(HeaderName::from_static("x-account-id")), Some("[0-9]{3}"));
        assert_eq!(account.read("/", "", &header(&["123"]), None).as_deref(), Ok("123"));
        assert_eq!(account.read("/", "", &header(&[]), None), Err(MISSING));
        assert_eq!(account.read("/", "", &header(&[""]), None), Err(MISSING));
        assert_eq!(account.read("/", "", &header(&["123", "123"]), None), Err(TWICE));
        for misfit in ["1234", "12", "a123", "123 ", "12\u{7f}"] {
            if let Ok(value) = HeaderValue::from_str(misfit) {
                let headers = HeaderMap::from_iter([(HeaderName::from_static("x-account-id"), value)]);
                assert!(account.read("/", "", &headers, None).is_err(), "{misfit:?}");
            }
        }
    }

    #[test]
    fn a_query_parameter_counts_once_however_it_is_spelled() {
        let account = var(VarSource::Query("account".to_owned()), None);
        let read = |query| account.read("/", query, &HeaderMap::new(), None);
        assert_eq!(read("?a=1&account=0%31+2").as_deref(), Ok("01 2"));
        assert_eq!(read("?account=1&account=2"), Err(TWICE));
        assert_eq!(read("?account=1&%61ccount=2"), Err(TWICE));
        assert_eq!(read("?account=1&Account=2"), Err(CASE));
        assert_eq!(read("?%41CCOUNT=2&account=1"), Err(CASE));
        assert_eq!(read("?accounts=1"), Err(MISSING));
        assert_eq!(read("?account"), Err(MISSING));
        assert_eq!(read(""), Err(MISSING));
        assert_eq!(read("?account=%ff"), Err(UNREADABLE));
        assert_eq!(read("?account=%0d%0a"), Err(UNREADABLE));
    }

    #[test]
    fn a_path_and_a_constant_give_values_too() {
        let pattern = Pattern::parse("/v1/accounts/{account}/*", Some("account")).unwrap();
        let account = var(VarSource::Path(pattern), Some("[0-9]+"));
        assert_eq!(account.read("/v1/accounts/12/x", "", &HeaderMap::new(), None).as_deref(), Ok("12"));
        assert_eq!(account.read("/v1/accounts/1%32/x", "", &HeaderMap::new(), None).as_deref(), Ok("12"));
        assert_eq!(account.read("/v1/other/12/x", "", &HeaderMap::new(), None), Err(MISSING));
        assert_eq!(account.read("/v1/accounts/x/x", "", &HeaderMap::new(), None), Err(MISFIT));
        let constant = var(VarSource::Value("7".to_owned()), None);
        assert_eq!(constant.read("/", "", &HeaderMap::new(), None).as_deref(), Ok("7"));
    }

    #[test]
    fn a_pattern_cannot_slip_out_of_its_anchors() {
        for (pattern, value) in [("a|b", "ab"), ("a|b", "xb"), ("(?m)a", "a\nb"), ("a", "a\n")] {
            let account = var(VarSource::Query("account".to_owned()), Some(pattern));
            let query = format!("?account={}", value.replace('\n', "%0a"));
            assert!(account.read("/", &query, &HeaderMap::new(), None).is_err(), "{pattern} {value:?}");
        }
        assert!(Var::new("x".into(), VarSource::Value("a".into()), Some("a)|(b")).is_err());
        assert!(Var::new("x".into(), VarSource::Value("b".into()), Some("a")).is_err());
    }
}
