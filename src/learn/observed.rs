//! Calls as examples show them: requests, and the answers to them. Values may be secrets, so nothing here is `Debug`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::bounded_json::parse_bounded_json;
use super::plain_text::is_placeholder;

/// The longest body that is looked at, in bytes, and the most of headers and of a URL: those of token calls are small, and
/// a request is kept once for each of its answers.
const LONGEST: usize = 64 << 10;

/// Returns whether a document is short enough to be looked at.
pub(super) fn is_short(document: &Value) -> bool {
    document.to_string().len() <= LONGEST
}

/// A request, and one answer to it.
#[derive(Clone)]
pub(super) struct ObservedExchange {
    pub request: ObservedRequest,
    pub answer: Option<ObservedAnswer>,
}

/// A request as an example shows it.
#[derive(Clone, Default)]
pub(super) struct ObservedRequest {
    pub method: String,
    /// Scheme and authority; `None` if the example has a placeholder or nothing there.
    pub origin: Option<String>,
    /// Path, which starts with `/`.
    pub path: String,
    pub query: Vec<(String, String)>,
    pub headers: Vec<(String, String)>,
    /// The pair of HTTP Basic, wherever the example has it.
    pub basic: Option<(String, String)>,
    pub body: ObservedBody,
    /// A part of it that examples of this form cannot say, in a few words of ours.
    pub unknown: Option<&'static str>,
}

/// The body of a request.
#[derive(Clone, Default)]
pub(super) enum ObservedBody {
    Form(Vec<(String, String)>),
    Json(Value),
    #[default]
    Nothing,
    /// Something else: XML, multipart, binary.
    Other,
}

/// An answer as an example shows it.
#[derive(Clone, Default)]
pub(super) struct ObservedAnswer {
    pub status: Option<u16>,
    pub headers: Vec<(String, String)>,
    pub json: Option<Value>,
    /// True if there certainly is no body.
    pub is_empty: bool,
    /// True if there is a body that is no JSON, or a long one.
    pub is_other: bool,
    /// The example's words about this answer. They may be anything, and are never copied.
    pub label: String,
    /// A code from a table of errors, whose place in the body is not shown.
    pub code: Option<String>,
}

impl ObservedRequest {
    /// Takes a request's parts together. `url` may be a placeholder with a path.
    pub(super) fn new(method: &str, url: &str, headers: Vec<(String, String)>) -> Self {
        let mut request = Self { method: method.to_ascii_uppercase(), ..Self::default() };
        request.take_url(if url.len() <= LONGEST { url } else { "" });
        let mut length = 0;
        for (name, value) in headers {
            length += name.len() + value.len();
            if length > LONGEST {
                break;
            }
            match basic_pair(&name, &value) {
                Some(pair) => request.basic = Some(pair),
                None => request.headers.push((name, value)),
            }
        }
        request
    }

    fn take_url(&mut self, url: &str) {
        let url = url.trim().trim_matches(['"', '\'', '<']);
        let url = url.split('#').next().unwrap_or_default();
        let (before_query, query) = url.split_once('?').unwrap_or((url, ""));
        self.query = pairs(query);
        let (authority, path) = match before_query.split_once("://") {
            Some((scheme, rest)) => {
                let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
                let known = ["http", "https"].contains(&scheme.to_ascii_lowercase().as_str());
                (known.then_some((scheme, authority)), path)
            }
            // A variable stands for the origin, as in `{{baseUrl}}/token` and `$BASE/token`; or there is the path alone.
            None => {
                let from = before_query.find("}}").map_or(0, |at| at + 2);
                let rest = before_query.get(from..).unwrap_or_default();
                (None, rest.split_once('/').map_or("", |(_, path)| path))
            }
        };
        if let Some((scheme, authority)) = authority {
            let host = match authority.rsplit_once('@') {
                Some((user, host)) => {
                    let (id, secret) = user.split_once(':').unwrap_or((user, ""));
                    self.basic = Some((id.to_owned(), secret.to_owned()));
                    host
                }
                None => authority,
            };
            let is_host = !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-:[]".contains(&b));
            self.origin = is_host.then(|| format!("{}://{}", scheme.to_ascii_lowercase(), host.to_ascii_lowercase()));
        }
        self.path = format!("/{path}");
    }

    /// The first header of this name.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Takes a body by its content type, or by its look where there is none.
    pub(super) fn take_body(&mut self, text: &str) {
        let trimmed = text.trim();
        if trimmed.is_empty() {
            return;
        }
        if trimmed.len() > LONGEST {
            self.body = ObservedBody::Other;
            return;
        }
        let kind = self.header("content-type").unwrap_or_default().to_ascii_lowercase();
        let looks_like_json = trimmed.starts_with(['{', '[']);
        self.body = if kind.contains("json") || (looks_like_json && !kind.contains("form")) {
            parse_bounded_json(trimmed).map_or(ObservedBody::Other, ObservedBody::Json)
        } else if kind.contains("urlencoded") || (kind.is_empty() && trimmed.contains('=') && !trimmed.starts_with('<'))
        {
            ObservedBody::Form(pairs(trimmed))
        } else {
            ObservedBody::Other
        };
    }

    /// The number of values that it sends, as a measure of how much an example tells.
    pub(super) fn weight(&self) -> usize {
        let body = match &self.body {
            ObservedBody::Form(pairs) => pairs.len(),
            ObservedBody::Json(value) => value.as_object().map_or(1, |members| members.len()),
            ObservedBody::Nothing | ObservedBody::Other => 0,
        };
        self.headers.len() + self.query.len() + body + usize::from(self.basic.is_some()) * 2
    }

    /// The value of a field of the body or of the query.
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        let of = |pairs: &'_ [(String, String)]| pairs.iter().position(|(known, _)| known == name);
        match &self.body {
            ObservedBody::Form(pairs) => {
                if let Some((_, value)) = of(pairs).and_then(|at| pairs.get(at)) {
                    return Some(value);
                }
            }
            ObservedBody::Json(value) => {
                if let Some(value) = value.get(name).and_then(Value::as_str) {
                    return Some(value);
                }
            }
            ObservedBody::Nothing | ObservedBody::Other => {}
        }
        of(&self.query).and_then(|at| self.query.get(at)).map(|(_, value)| value.as_str())
    }
}

impl ObservedAnswer {
    /// Returns whether it may be a success.
    pub(super) fn is_success(&self) -> bool {
        self.status.is_none_or(|status| (200..=299).contains(&status))
    }

    /// Takes a body: JSON, nothing, or something that is not looked at.
    pub(super) fn take_body(&mut self, text: &str) {
        let trimmed = text.trim();
        self.is_empty = trimmed.is_empty();
        if trimmed.starts_with(['{', '[']) && trimmed.len() <= LONGEST {
            self.json = parse_bounded_json(trimmed).ok();
        }
        self.is_other = !self.is_empty && self.json.is_none();
    }

    /// The first header of this name.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// The fields of a form or a query. Placeholders in braces stay as they are.
pub(super) fn pairs(text: &str) -> Vec<(String, String)> {
    let decoded = form_urlencoded::parse(text.as_bytes());
    decoded.filter(|(name, _)| !name.is_empty()).map(|(name, value)| (name.into_owned(), value.into_owned())).collect()
}

/// The pair of a header with HTTP Basic (RFC 7617). A placeholder for it becomes placeholders for both halves.
fn basic_pair(name: &str, value: &str) -> Option<(String, String)> {
    let (scheme, rest) = value.trim().split_once(' ')?;
    if !name.eq_ignore_ascii_case("authorization") || !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = STANDARD.decode(rest.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    match decoded.as_deref().and_then(|text| text.split_once(':')) {
        Some((id, secret)) => Some((id.to_owned(), secret.to_owned())),
        None if is_placeholder(rest) || rest.contains(['<', '{', '(', '$', '…']) || rest.contains("...") => {
            Some(("<client_id>".to_owned(), "<client_secret>".to_owned()))
        }
        // Shortened or cut: the scheme says enough.
        None => Some(("<client_id>".to_owned(), "<client_secret>".to_owned())),
    }
}
