//! Patterns over a provider's paths: for `allow` lists and for variables that stand in a path.

use http::Method;

use super::path::plain;

/// A path pattern of whole segments: `/v1/accounts/{account}/*`.
///
/// `*` as the last segment stands for one or more segments, elsewhere for exactly one; `{name}` stands for exactly one
/// and captures it. Everything else is compared as a server reads it: `%7e` is `~`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Pattern {
    segments: Vec<PatternSegment>,
    tail: bool,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum PatternSegment {
    Any,
    Capture,
    Literal(Box<str>),
}

impl Pattern {
    /// Reads a pattern; `capture` is the one name that may stand in braces. The error is for a person.
    pub fn parse(text: &str, capture: Option<&str>) -> Result<Self, String> {
        let Some(rest) = text.strip_prefix('/') else { return Err("a path pattern starts with `/`".to_owned()) };
        let (rest, tail) = match rest.strip_suffix("/*") {
            Some(rest) => (Some(rest), true),
            None if rest == "*" => (None, true),
            None => (Some(rest), false),
        };
        let mut segments = Vec::new();
        for part in rest.into_iter().flat_map(|rest| rest.split('/')) {
            let braced = part.strip_prefix('{').and_then(|part| part.strip_suffix('}'));
            segments.push(match (part, braced) {
                ("*", _) => PatternSegment::Any,
                (_, Some(name)) if Some(name) == capture => PatternSegment::Capture,
                (_, Some(name)) => return Err(format!("nothing here is called `{name}`")),
                (_, None) if part.contains(['*', '{', '}', '?', '#', '\\']) || !part.is_ascii() => {
                    return Err(format!("`{part}` is not a plain segment; `*` and `{{name}}` stand for whole ones"));
                }
                ("." | "..", None) => return Err("dot segments never match".to_owned()),
                (_, None) => PatternSegment::Literal(plain(part).into()),
            });
        }
        let captures = segments.iter().filter(|segment| matches!(segment, PatternSegment::Capture)).count();
        match (capture, captures) {
            (Some(name), 0) => Err(format!("`{{{name}}}` stands nowhere in it")),
            (Some(name), 2..) => Err(format!("`{{{name}}}` stands in it more than once")),
            (Some(_) | None, _) => Ok(Self { segments, tail }),
        }
    }

    /// Returns whether a path (from its first `/`, as [`plain`] reads it) matches.
    pub fn matches(&self, path: &str) -> bool {
        self.walk(path).is_some()
    }

    /// The segment that stands where the braces are, if the path matches.
    pub fn capture<'p>(&self, path: &'p str) -> Option<&'p str> {
        self.walk(path).flatten()
    }

    fn walk<'p>(&self, path: &'p str) -> Option<Option<&'p str>> {
        let mut rest = path.strip_prefix('/');
        let mut captured = None;
        for segment in &self.segments {
            let (part, after) = match rest?.split_once('/') {
                Some((part, after)) => (part, Some(after)),
                None => (rest?, None),
            };
            let fits = match segment {
                PatternSegment::Any => !part.is_empty(),
                PatternSegment::Capture => {
                    captured = Some(part);
                    !part.is_empty()
                }
                PatternSegment::Literal(literal) => **literal == *part,
            };
            if !fits {
                return None;
            }
            rest = after;
        }
        let ends_well = if self.tail { rest.is_some_and(|rest| !rest.is_empty()) } else { rest.is_none() };
        ends_well.then_some(captured)
    }
}

/// One line of an `allow` list: `GET /v1/*`, or `* /v1/*` for every method.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Allow {
    method: Option<Method>,
    pattern: Pattern,
}

impl Allow {
    /// Reads a line. The error is for a person.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some((method, path)) = text.split_once(' ') else {
            return Err("write a method and a path, as in `GET /v1/*`".to_owned());
        };
        let method = match method {
            "*" => None,
            method if !method.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-') => {
                return Err(format!("`{method}` is not a method: they are written in capitals"));
            }
            method => Some(Method::from_bytes(method.as_bytes()).map_err(|_| "the method is missing".to_owned())?),
        };
        Ok(Self { method, pattern: Pattern::parse(path.trim_start(), None)? })
    }

    /// The method; absent: every method.
    pub const fn method(&self) -> Option<&Method> {
        self.method.as_ref()
    }

    /// Returns whether it allows this method on this path of the provider.
    pub fn admits(&self, method: &Method, path: &str) -> bool {
        self.method.as_ref().is_none_or(|known| known == method) && self.pattern.matches(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_one_segment_within_and_one_or_more_at_the_end() {
        for (pattern, path, fits) in [
            ("/v1/*", "/v1/a", true),
            ("/v1/*", "/v1/a/b", true),
            ("/v1/*", "/v1", false),
            ("/v1/*", "/v1/", false),
            ("/v1/*", "/v10/a", false),
            ("/v1/*/pay", "/v1/a/pay", true),
            ("/v1/*/pay", "/v1/a/b/pay", false),
            ("/v1/*/pay", "/v1//pay", false),
            ("/v1/pay", "/v1/pay", true),
            ("/v1/pay", "/v1/pay/", false),
            ("/v1/pay", "/v1/pay;x", false),
            ("/*", "/", false),
            ("/*", "/x", true),
            ("/*/*", "/x", false),
            ("/*/*", "/x/y/z", true),
            ("/", "/", true),
            ("/", "/x", false),
        ] {
            let read = Pattern::parse(pattern, None).unwrap();
            assert_eq!(read.matches(path), fits, "{pattern} {path}");
        }
    }

    #[test]
    fn a_capture_is_one_whole_segment() {
        let pattern = Pattern::parse("/v1/accounts/{account}/*", Some("account")).unwrap();
        assert_eq!(pattern.capture("/v1/accounts/123/balance"), Some("123"));
        assert_eq!(pattern.capture("/v1/accounts/123"), None);
        assert_eq!(pattern.capture("/v1/accounts//balance"), None);
        for bad in ["/v1/*", "/{other}", "/{account}/{account}", "/x{account}", "v1/{account}"] {
            assert!(Pattern::parse(bad, Some("account")).is_err(), "{bad}");
        }
    }

    // T5
    #[test]
    fn a_line_names_its_method() {
        let line = Allow::parse("GET /v1/*").unwrap();
        assert!(line.admits(&Method::GET, "/v1/a") && !line.admits(&Method::POST, "/v1/a"));
        assert!(Allow::parse("* /v1/a").unwrap().admits(&Method::DELETE, "/v1/a"));
        for bad in ["/v1/*", "get /v1", "GET v1", "GET", " /v1", "GET /a/../b", "GET /v*"] {
            assert!(Allow::parse(bad).is_err(), "{bad}");
        }
    }
}
