//! The answer to a token request: a grant, or why there is none.

use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::Value;

use crate::base::backoff::Backoff;
use crate::base::secret::{ExposeSecret, SecretString, is_wordy_secret};
use crate::base::time::Now;
use crate::provider::capture::{Capture, captures};
use crate::provider::condition::{Body, Fit, JsonTest, JudgedBody, Matcher, Statuses};
use crate::provider::document::{self, DocumentFormat};
use crate::provider::document_error::DocumentError;
use crate::provider::dpop::lacks_nonce;
use crate::provider::json;
use crate::provider::life::{LifeClaims, Unit, date};
use crate::provider::refusal::tables;
use crate::provider::values::{OneOrManyValues, Pointer, choice};
use crate::provider::xml;
use crate::syntax::{Diagnostics, Fields, Node};
use crate::token::failure::{Class, Failure, FailureCause};
use crate::token::grant::Grant;

/// The longest access token, in bytes. RAKBANK's may have 5000 characters; a header field must still carry it.
const TOKEN_CAP: usize = 16 * 1024;

/// The longest `Retry-After` that is believed.
const RETRY_CAP: Duration = Duration::from_secs(3600);

/// The rest after a page that forbids.
const PAGE_REST: Backoff = Backoff { first: Duration::from_secs(30), ceiling: Duration::from_secs(300) };

/// `[token.success]`, `[token.response]` and `[[token.failure]]` of a profile.
#[derive(Clone, Debug, Default)]
pub(super) struct TokenResponseRules {
    pub(super) success: Vec<JsonTest>,
    pub(super) format: DocumentFormat,
    pub(super) access_token: Vec<String>,
    pub(super) token_type: Vec<String>,
    /// The only types that are accepted; empty: any is.
    pub(super) accepted_types: Vec<String>,
    /// True if a token without a type is not accepted.
    wants_type: bool,
    pub(super) expires_in: Vec<String>,
    pub(super) expires_at: Vec<String>,
    pub(super) expires_in_unit: Unit,
    captures: Vec<Capture>,
    /// The life of a token whose answer names none.
    pub default_ttl: Option<Duration>,
    /// The JSON pointers to the provider's own error codes, for the logs.
    codes: Vec<String>,
    pub failures: Vec<FailureRule>,
}

/// One `[[token.failure]]` entry of a profile.
#[derive(Clone, Debug)]
pub(super) struct FailureRule {
    pub when: Matcher,
    class: Class,
    /// The part of the request that is at fault.
    cause: Option<FailureCause>,
    backoff: Option<Backoff>,
}

/// The values that a token response is read with, besides the profile.
#[derive(Clone, Copy)]
pub(super) struct ResponseContext<'a> {
    /// The name of the responding endpoint in messages.
    pub endpoint: &'static str,
    /// When the request went out.
    pub sent: Now,
    /// When the answer was there.
    pub now: Now,
    /// The lifetime that replaces the profile's `default_ttl`, if set.
    pub default_ttl: Option<Duration>,
    /// The secrets that no message may repeat.
    pub secrets: &'a [SecretString],
}

impl TokenResponseRules {
    /// Takes `success`, `response`, `failure` and `codes` from the fields of `[token]`.
    pub(super) fn read(token: &Fields<'_>) -> Self {
        let report = token.report();
        let mut answer = Self {
            success: token.or("success", OneOrManyValues(Vec::new())).0,
            codes: pointers(token, "codes"),
            failures: tables(token.take("failure"), "[[token.failure]]", report)
                .filter_map(|node| FailureRule::read(node, report))
                .collect(),
            ..Self::default()
        };
        let Some(node) = token.take("response") else {
            token.missing("response", "{ access_token = \"/access_token\" }");
            return answer;
        };
        let fields = Fields::new(node, "[token.response]", report);
        if fields.take("access_token").is_none() {
            fields.missing("access_token", "\"/access_token\"");
        }
        answer.access_token = pointers(&fields, "access_token");
        answer.token_type = pointers(&fields, "token_type");
        answer.accepted_types = fields.or("token_types", OneOrManyValues(Vec::new())).0;
        if let (true, Some(node)) = (answer.token_type.is_empty(), fields.take("token_types")) {
            let help = "add `token_type = \"/token_type\"`".to_owned();
            node.error(report, "nothing says where the token's type stands", "", Some(help));
        }
        answer.expires_in = pointers(&fields, "expires_in");
        answer.expires_at = pointers(&fields, "expires_at");
        answer.format =
            fields.take("format").and_then(|node| choice(node, report, &DocumentFormat::WORDS)).unwrap_or_default();
        answer.expires_in_unit =
            fields.take("expires_in_unit").and_then(|node| choice(node, report, &Unit::WORDS)).unwrap_or_default();
        answer.default_ttl = fields.opt("default_ttl");
        if answer.default_ttl.is_some_and(|ttl| ttl.is_zero())
            && let Some(node) = fields.take("default_ttl")
        {
            node.error(report, "a token that lives no time is of no use", "", None);
        }
        answer.captures = captures(&fields);
        answer.fits_format(token, &fields);
        fields.finish();
        answer
    }

    /// Reports a profile with proofs of possession that would take a token without one for bound (RFC 9449 section 5).
    pub(super) fn judge_bound(&mut self, node: &Node, report: &Diagnostics) {
        self.wants_type = true;
        if self.accepted_types.is_empty() || self.accepted_types.iter().any(|known| !known.eq_ignore_ascii_case("DPoP"))
        {
            let help = "say `token_type = \"/token_type\"` and `token_types = \"DPoP\"` in [token.response]".to_owned();
            node.error(report, "a token that is bound to no key would pass for one that is", "", Some(help));
        }
    }

    /// Reports pointers that lead nowhere in an answer of this format. `token`: the fields of `[token]`.
    fn fits_format(&self, token: &Fields<'_>, fields: &Fields<'_>) {
        let (fits, title, label): (fn(&str) -> bool, _, _) = match self.format {
            DocumentFormat::Form => (
                |pointer| pointer.rfind('/') == Some(0),
                "a form has flat fields",
                "write `/` and the name of one, as in `\"/access_token\"`",
            ),
            DocumentFormat::Json => return,
            DocumentFormat::Text => (str::is_empty, "a bare text has no fields", "`access_token = \"\"` is all of it"),
            DocumentFormat::Xml => (
                xml::fits,
                "no XML document has a text there",
                "name elements without prefixes from the root on, as in `\"/Envelope/Body/Token\"`; an attribute is `@name`",
            ),
        };
        let report = |fields: &Fields<'_>, key: &str, pointers: Vec<&str>| {
            if let (false, Some(node)) = (pointers.into_iter().all(fits), fields.take(key)) {
                node.error(fields.report(), title, label, None);
            }
        };
        for (key, pointers) in [
            ("access_token", &self.access_token),
            ("token_type", &self.token_type),
            ("expires_in", &self.expires_in),
            ("expires_at", &self.expires_at),
        ] {
            report(fields, key, pointers.iter().map(String::as_str).collect());
        }
        report(fields, "captures", self.captures.iter().filter_map(Capture::pointer).collect());
        let naming = self.success.iter().filter(|test| test.names_code());
        report(token, "success", naming.flat_map(JsonTest::pointers).collect());
    }

    /// The rules for a step of the login: its answer has no token, but fails in the same ways.
    pub(super) fn of_step(&self, success: Vec<JsonTest>, format: DocumentFormat) -> Self {
        Self { success, format, codes: self.codes.clone(), failures: self.failures.clone(), ..Self::default() }
    }

    /// The names under which values of a response are captured.
    pub(super) fn capture_names(&self) -> Vec<Arc<str>> {
        self.captures.iter().map(|capture| capture.name.clone()).collect()
    }

    /// Reads a token response, and returns its grant or the classified failure.
    pub(super) fn grant(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        body: &[u8],
        moment: ResponseContext<'_>,
    ) -> Result<Grant, Failure> {
        self.grant_with(status, headers, body, moment, &[], true).map(|(grant, _)| grant)
    }

    /// The body of an answer in this format that is a success.
    pub(super) fn success(
        &self,
        format: DocumentFormat,
        status: StatusCode,
        headers: &HeaderMap,
        body: &[u8],
        moment: ResponseContext<'_>,
    ) -> Result<Value, Failure> {
        let parsed = document::read(format, headers, body);
        if !status.is_success() {
            return Err(self.failure(status, headers, known(parsed), body, moment));
        }
        let value = match parsed {
            Ok(value) => value,
            Err(reason) => return Err(transient(status, headers, &format!("with {reason}"), moment)),
        };
        if !self.success.iter().all(|test| test.holds(&value)) {
            return Err(self.failure(status, headers, Body::Json(value), body, moment));
        }
        Ok(value)
    }

    /// Reads an answer that may hold more: its body without the access token comes with the grant. `more` is captured
    /// as well; unless it is `required`, it may be absent.
    pub(super) fn grant_with(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        body: &[u8],
        moment: ResponseContext<'_>,
        more: &[Capture],
        required: bool,
    ) -> Result<(Grant, Value), Failure> {
        let mut value = self.success(self.format, status, headers, body, moment)?;
        if self.format == DocumentFormat::Text && !value.is_string() {
            // JSON in the place of the token: most likely it says why there is none.
            return Err(self.failure(status, headers, Body::Json(value), body, moment));
        }
        let Some(token) = take_token(&mut value, &self.access_token) else {
            return Err(self.failure(status, headers, Body::Json(value), body, moment));
        };
        let wrong = |what: &str| Err(transient(status, headers, &format!("but {what}"), moment));
        let token = match token {
            Value::String(text) => SecretString::from(text),
            Value::Array(_) | Value::Bool(_) | Value::Null | Value::Number(_) | Value::Object(_) => {
                return wrong("the access token is no string");
            }
        };
        let text = token.expose_secret();
        if text.is_empty() || text.len() > TOKEN_CAP || !text.bytes().all(|b| b.is_ascii_graphic()) {
            return wrong("the access token is empty, too long, or holds what no header can carry");
        }
        let kind = json::first(&value, &self.token_type).map(|kind| kind.as_str().unwrap_or_default());
        if kind.is_some_and(|kind| !self.accepts(kind)) {
            return wrong("the token's type is none that the profile accepts");
        }
        if kind.is_none() && self.wants_type {
            return wrong("nothing says that the token is bound to the key");
        }
        let known = |_: &&Value| self.accepted_types.is_empty();
        let odd_type =
            json::first(&value, &self.token_type).filter(known).and_then(|kind| odd_type(kind, text, moment.secrets));
        let mut captured = Vec::with_capacity(self.captures.len() + more.len());
        let own = self.captures.iter().map(|capture| (capture, true));
        for (capture, required) in own.chain(more.iter().map(|capture| (capture, required))) {
            match capture.find(headers, &value) {
                Ok(Some(found)) => captured.push((capture.name.clone(), found)),
                Ok(None) if !required => {}
                Ok(None) => return wrong(&format!("{} is not there exactly once", capture.place())),
                Err(odd) => return wrong(&odd),
            }
        }
        let claims = LifeClaims {
            expires_in: json::first(&value, &self.expires_in),
            expires_at: json::first(&value, &self.expires_at),
            unit: self.expires_in_unit,
            token: text,
            default_ttl: moment.default_ttl.or(self.default_ttl),
            date: date(headers),
        };
        match claims.life(moment.sent, moment.now) {
            Ok(life) => Ok((Grant { access_token: token, life, captured, odd_type }, value)),
            Err(lifeless) => {
                let failure = transient(status, headers, &format!("but {}", lifeless.why), moment);
                Err(Failure { ended: lifeless.ended, ..failure })
            }
        }
    }

    /// Returns whether a token of this type may be used.
    fn accepts(&self, kind: &str) -> bool {
        self.accepted_types.is_empty() || self.accepted_types.iter().any(|known| known.eq_ignore_ascii_case(kind))
    }

    /// The first rule that fits says what kind of failure it is; otherwise the status does. `raw`: the body as it came.
    fn failure(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        content: Body,
        raw: &[u8],
        moment: ResponseContext<'_>,
    ) -> Failure {
        let body = judged(content, headers, raw, self.failures.iter().map(|rule| &rule.when));
        let rule = self.failures.iter().find(|rule| rule.when.fit(status, headers, &body) == Fit::Yes);
        let page = rule.is_none() && is_page(status, headers, &body.content);
        // The nonce has changed twice in a moment: that says nothing about the credentials.
        let is_challenge = self.wants_type && lacks_nonce(status, headers, raw);
        let usual = if page || is_challenge { Class::Transient } else { usual_class(status) };
        let class = rule.map_or(usual, |rule| rule.class);
        let mut what = if status.is_success() { "without a token".to_owned() } else { String::new() };
        if page {
            what.push_str("a page for people: something before the token endpoint refuses the call itself");
        }
        if let Body::Json(value) = &body.content {
            for pointer in &self.codes {
                if let Some(code) = value.pointer(pointer).and_then(|code| printable(code, pointer, moment.secrets)) {
                    what.push_str(if what.is_empty() { "" } else { ", " });
                    what.push_str(&format!("{}={code}", pointer.trim_start_matches('/')));
                }
            }
        }
        Failure {
            class,
            cause: rule.and_then(|rule| rule.cause),
            retry_after: retry_after(headers, moment.now),
            backoff: if page { Some(PAGE_REST) } else { rule.and_then(|rule| rule.backoff) },
            exact: None,
            ended: false,
            inside: shape(status, headers, &what, moment),
        }
    }
}

impl FailureRule {
    fn read(node: &Node, report: &Diagnostics) -> Option<Self> {
        let fields = Fields::new(node, "[[token.failure]]", report);
        let when = Matcher::read(&fields, Statuses::Any);
        let words = [Class::Closed, Class::Fatal, Class::RateLimited, Class::Transient].map(|c| (c.as_str(), c));
        let class = match fields.take("class") {
            Some(node) => choice(node, report, &words),
            None => {
                fields.missing("class", "\"fatal\"");
                None
            }
        };
        let cause = fields.take("cause").and_then(|node| choice(node, report, &FailureCause::WORDS));
        let (rest, ceiling) = (fields.opt::<Duration>("rest"), fields.opt::<Duration>("rest_ceiling"));
        if rest.is_none()
            && let Some(node) = fields.take("rest_ceiling")
        {
            node.error(report, "`rest_ceiling` needs a `rest` to grow from", "", None);
        }
        if let (Some(rest), Some(ceiling)) = (rest, ceiling)
            && ceiling < rest
            && let Some(node) = fields.take("rest_ceiling")
        {
            node.error(report, "the ceiling is lower than the rest", "", None);
        }
        fields.finish();
        let class = class?;
        let backoff =
            rest.map(|first| Backoff { first, ceiling: ceiling.unwrap_or(class.backoff().ceiling).max(first) });
        Some(Self { when, class, cause, backoff })
    }
}

/// One JSON pointer or several.
pub(super) fn pointers(fields: &Fields<'_>, key: &str) -> Vec<String> {
    fields.or(key, OneOrManyValues::<Pointer>(Vec::new())).0.into_iter().map(|pointer| pointer.0).collect()
}

/// The body of an error response as these matchers look at it. `raw`: the body as it came.
pub(super) fn judged<'a>(
    content: Body,
    headers: &HeaderMap,
    raw: &[u8],
    mut matchers: impl Iterator<Item = &'a Matcher>,
) -> JudgedBody<'static> {
    let text = matchers.any(Matcher::wants_text).then(|| document::coded_text(headers, raw)).flatten();
    JudgedBody { content, text: text.map(Into::into) }
}

/// Returns the body of an error response in the form that the failure rules test.
pub(super) fn known(parsed: Result<Value, DocumentError>) -> Body {
    match parsed {
        Ok(value) => Body::Json(value),
        Err(DocumentError::Empty) => Body::Empty,
        Err(
            DocumentError::Coded(_)
            | DocumentError::NotJson { .. }
            | DocumentError::NotUtf8
            | DocumentError::NotXml { .. }
            | DocumentError::TooDeep
            | DocumentError::TooLong
            | DocumentError::XmlBeyond(_),
        ) => Body::Unread,
    }
}

/// Takes the token out of the answer, so that no copy of it stays behind.
fn take_token(value: &mut Value, pointers: &[String]) -> Option<Value> {
    let hit = pointers.iter().find(|pointer| value.pointer(pointer).is_some_and(|found| !found.is_null()))?;
    value.pointer_mut(hit).map(Value::take)
}

/// Returns the class of failure that a status means if no rule fits.
fn usual_class(status: StatusCode) -> Class {
    match status.as_u16() {
        400 | 401 | 403 => Class::Fatal,
        429 => Class::RateLimited,
        _ => Class::Transient,
    }
}

/// Returns whether a firewall or gateway sent a 403 with a page (it wants a `User-Agent`, or another address). That is
/// no verdict on the credentials, and [`PAGE_REST`] keeps them from being sent often.
fn is_page(status: StatusCode, headers: &HeaderMap, body: &Body) -> bool {
    let kind = headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes).trim_ascii_start();
    let html = kind.get(..9).is_some_and(|kind| kind.eq_ignore_ascii_case(b"text/html"));
    status == StatusCode::FORBIDDEN && html && !matches!(body, Body::Json(_))
}

/// Returns the type of a token if it is not `Bearer`, as far as it may be shown. The profile decides what a call
/// carries, so the token is used all the same.
fn odd_type(kind: &Value, token: &str, secrets: &[SecretString]) -> Option<Box<str>> {
    let Some(word) = kind.as_str() else { return Some("(no text)".into()) };
    if word.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let shows = word.is_empty() || is_wordy_secret(word) && !tells(word, secrets) && !token.contains(word);
    Some(if shows { word.into() } else { "(not shown)".into() })
}

pub(super) fn transient(status: StatusCode, headers: &HeaderMap, what: &str, moment: ResponseContext<'_>) -> Failure {
    Failure {
        retry_after: retry_after(headers, moment.now),
        ..Failure::new(Class::Transient, shape(status, headers, what, moment))
    }
}

/// The shape of an answer: status, content type, what was odd. Never its text.
fn shape(status: StatusCode, headers: &HeaderMap, what: &str, moment: ResponseContext<'_>) -> String {
    let mut out = format!("the {} answered {}", moment.endpoint, status.as_u16());
    for (name, said) in [(CONTENT_TYPE, " "), (CONTENT_ENCODING, ", encoded as ")] {
        let Some(text) = headers.get(name).and_then(|value| value.to_str().ok()) else { continue };
        let media = text.split(';').next().unwrap_or_default().trim();
        if is_wordy_secret(media) && !tells(media, moment.secrets) {
            out.push_str(said);
            out.push_str(media);
        }
    }
    if !what.is_empty() {
        out.push_str(", ");
        out.push_str(what);
    }
    out
}

/// A code of the provider's, if it looks like one and is none of our secrets. Only where an id belongs may it be a UUID.
fn printable(value: &Value, pointer: &str, secrets: &[SecretString]) -> Option<String> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Array(_) | Value::Bool(_) | Value::Null | Value::Object(_) => return None,
    };
    let is_id = pointer.ends_with("Id") && uuid::Uuid::try_parse(&text).is_ok();
    ((is_id || is_wordy_secret(&text)) && !tells(&text, secrets)).then_some(text)
}

/// Returns whether a text contains a secret, or is a part of one of at least 8 bytes.
fn tells(text: &str, secrets: &[SecretString]) -> bool {
    secrets
        .iter()
        .map(ExposeSecret::expose_secret)
        .any(|secret| text.contains(secret) || (text.len() >= 8 && secret.contains(text)))
}

/// `Retry-After` (RFC 9110 section 10.2.3): seconds or a date, at most an hour.
fn retry_after(headers: &HeaderMap, now: Now) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let asked = if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        Duration::from_secs(text.parse().unwrap_or(u64::MAX))
    } else {
        let date = httpdate::parse_http_date(text).ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
        date.saturating_sub(Duration::from_millis(now.wall))
    };
    Some(asked.min(RETRY_CAP))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::provider::stub::STUB_TOKEN;
    use crate::syntax::{Diagnostic, SourceText};

    const SENT: Now = Now::at(1_000, 1_550_131_385_000);

    /// The rules of a `[token]`, and what is wrong with it.
    fn rules(token: &str) -> (TokenResponseRules, Vec<String>) {
        let report = Diagnostics::new();
        let node = Node::parse(&SourceText::new("bank.toml", token), &report);
        let rules = TokenResponseRules::read(&Fields::new(&node, "[token]", &report));
        (rules, report.into_diagnostics().iter().map(Diagnostic::one_line).collect())
    }

    #[test]
    fn a_pointer_that_leads_nowhere_in_its_format_is_refused_where_it_stands() {
        let base = "[response]\nformat = \"xml\"\naccess_token = \"/Answer/Token\"\n";
        for (text, place) in [
            ("[response]\nformat = \"xml\"\naccess_token = \"/access token\"", "3:16"),
            ("[response]\nformat = \"xml\"\naccess_token = [\"/A/Token\", \"/s:A/Token\"]", "3:16"),
            (&format!("{base}expires_in = \"/Answer/@life/x\""), "4:14"),
            (&format!("{base}captures = {{ node = \"/Answer/Node/00\" }}"), "4:12"),
            (&format!("success = [{{ pointer = \"/@ok\", equals = 1 }}]\n{base}"), "1:11"),
            ("[response]\nformat = \"form\"\naccess_token = \"/a\"\ncaptures = { node = \"/a/b\" }", "4:12"),
        ] {
            let (_, found) = rules(text);
            assert!(matches!(&*found, [one] if one.starts_with(&format!("bank.toml:{place}"))), "{text}: {found:?}");
        }
        // What must not be there may be a member of JSON that comes in place of XML.
        let (_, found) = rules(&format!("success = [{{ pointer = \"/error code\", absent = true }}]\n{base}"));
        assert_eq!(found, Vec::<String>::new());
    }

    #[test]
    fn a_stub_has_a_type_that_is_accepted() {
        let (mut rules, _) =
            rules("[response]\naccess_token = \"/access_token\"\ntoken_type = \"/token_type\"\ntoken_types = \"DPoP\"");
        rules.wants_type = true;
        let (_, body) = rules.stub(SENT);
        let moment = ResponseContext { endpoint: "stub", sent: SENT, now: SENT, default_ttl: None, secrets: &[] };
        let grant = rules.grant(StatusCode::OK, &HeaderMap::new(), body.as_bytes(), moment).expect("a token");
        assert_eq!(grant.access_token.expose_secret(), STUB_TOKEN);
    }

    #[test]
    fn a_stub_in_xml_is_an_answer_with_a_token() {
        let (rules, found) = rules(
            "success = [{ pointer = \"/s/@code\", equals = 0 }]\n[response]\nformat = \"xml\"\n\
             access_token = \"/s/Item/1/Token/#text\"\ntoken_type = \"/s/Item/1/Token/@type\"\nexpires_in = \"/s/Life\"",
        );
        assert_eq!(found, Vec::<String>::new());
        let (kind, body) = rules.stub(SENT);
        assert_eq!(kind, "application/xml");
        let moment = ResponseContext { endpoint: "stub", sent: SENT, now: SENT, default_ttl: None, secrets: &[] };
        let grant = rules.grant(StatusCode::OK, &HeaderMap::new(), body.as_bytes(), moment).expect("a token");
        assert_eq!((grant.access_token.expose_secret(), grant.life), (STUB_TOKEN, Duration::from_secs(3600)));
        let read = document::read(DocumentFormat::Xml, &HeaderMap::new(), body.as_bytes()).expect("XML");
        assert_eq!(read["s"]["@code"], json!("0"));
    }
}
