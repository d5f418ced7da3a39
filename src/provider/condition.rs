//! Conditions on an answer: its status, its challenge, its headers, its body.
//!
//! All that one [`Matcher`] says must hold. A body that could not be read leaves a condition on it *unsure*: it proves
//! nothing, neither that an answer is a refusal nor that an exclusion does not apply.

use std::borrow::Cow;

use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, StatusCode};
use serde_json::Value;

use crate::provider::challenge::{BEARER, KIN, errors};
use crate::provider::document::{is_doubtful, read_json, text_of};
use crate::provider::document_error::DocumentError;
use crate::provider::values::{Anywhere, FieldName, OneOrManyValues, Pointer, StatusNumber};
use crate::syntax::{Diagnostics, Fields, FromNode, Kind, Node};

/// The degree to which a response fits a matcher. Of several conditions the one that fits least counts.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Fit {
    No,
    /// It may: the body is not known.
    Unsure,
    Yes,
}

/// The known content of a response's body.
#[derive(Debug)]
pub(super) enum Body {
    Empty,
    Json(Value),
    /// Content that is certainly not JSON.
    Other,
    /// It was not read, or breaks off, or cannot be what it says it is.
    Unread,
}

/// The body of a response as conditions look at it: what is known of it, and its text.
#[derive(Debug)]
pub(super) struct JudgedBody<'a> {
    pub content: Body,
    /// Its text, whole; `None` if no condition wants it, or it was not read.
    pub text: Option<Cow<'a, str>>,
}

impl<'a> JudgedBody<'a> {
    /// Reads a body without its content coding. `None`: the body was not read.
    pub(super) fn read(headers: &HeaderMap, body: Option<&'a [u8]>, wants_text: bool) -> Self {
        let text = body.filter(|_| wants_text).and_then(|bytes| text_of(headers, bytes));
        Self { content: Body::read(headers, body), text }
    }
}

impl Body {
    /// Reads a body as far as its content can be known. `None`: the body was not read.
    pub(super) fn read(headers: &HeaderMap, body: Option<&[u8]>) -> Self {
        let length = content_length(headers);
        let Some(bytes) = body else {
            return match length {
                Some(0) => Body::Empty,
                Some(_) | None if !may_hold_json(headers) => Body::Other,
                Some(_) | None => Body::Unread,
            };
        };
        match read_json(headers, bytes) {
            // Many a plain text is JSON by accident; an object or a list is meant.
            Ok(value) if may_be_json(headers) || value.is_object() || value.is_array() => Body::Json(value),
            Ok(_) => Body::Other,
            // The answer to a HEAD announces a body that it does not have: who knows what it would say.
            Err(DocumentError::Empty) if length.is_none_or(|length| length == bytes.len() as u64) => Body::Empty,
            Err(DocumentError::Coded(_) | DocumentError::Empty | DocumentError::TooLong) => Body::Unread,
            Err(
                DocumentError::NotJson { .. }
                | DocumentError::NotUtf8
                | DocumentError::NotXml { .. }
                | DocumentError::TooDeep
                | DocumentError::XmlBeyond(_),
            ) => {
                if says_json(headers) || opens_json(bytes) {
                    Body::Unread
                } else {
                    Body::Other
                }
            }
        }
    }
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
}

fn says_json(headers: &HeaderMap) -> bool {
    headers.contains_key(CONTENT_TYPE) && may_be_json(headers)
}

/// Returns whether a body begins like JSON, even if the rest of it is not.
fn opens_json(bytes: &[u8]) -> bool {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes).trim_ascii_start();
    matches!(bytes.first(), Some(b'{' | b'['))
}

fn media(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(CONTENT_TYPE)?;
    Some(value.as_bytes().split(|b| *b == b';').next().unwrap_or_default().trim_ascii())
}

/// Returns whether the content type is JSON (`application/json`, `text/json`, anything `+json`) or absent.
fn may_be_json(headers: &HeaderMap) -> bool {
    let Some(media) = media(headers) else { return true };
    let ends = |suffix: &[u8]| {
        media
            .len()
            .checked_sub(suffix.len())
            .and_then(|at| media.get(at..))
            .is_some_and(|end| end.eq_ignore_ascii_case(suffix))
    };
    media.is_empty() || ends(b"/json") || ends(b"+json")
}

/// Returns whether the body may be JSON: many servers label it `text/plain` or `text/html`. Content types of images,
/// sounds, videos and streams are believed.
pub(super) fn may_hold_json(headers: &HeaderMap) -> bool {
    let Some(media) = media(headers) else { return true };
    let never: [&[u8]; 7] =
        [b"audio/", b"font/", b"image/", b"multipart/", b"text/css", b"text/event-stream", b"video/"];
    !never.iter().any(|start| media.get(..start.len()).is_some_and(|own| own.eq_ignore_ascii_case(start)))
}

/// Returns whether a body may be empty: its length is announced as zero, or not announced.
pub(super) fn may_be_empty(headers: &HeaderMap) -> bool {
    content_length(headers).is_none_or(|length| length == 0)
}

/// A text that a value must be equal to. A number and its digits in a string are equal: banks send both.
#[derive(Clone, Debug)]
pub(super) struct Expected {
    text: String,
    number: Option<f64>,
}

impl Expected {
    /// A value that is equal to it: a number, where it is one.
    fn value(&self) -> Value {
        serde_json::from_str(&self.text).ok().filter(Value::is_number).unwrap_or_else(|| self.text.clone().into())
    }

    fn equals(&self, value: &Value) -> bool {
        match value {
            Value::String(text) => *text == self.text,
            Value::Number(number) => self.number.is_some() && number.as_f64() == self.number,
            Value::Bool(yes) => self.text == if *yes { "true" } else { "false" },
            Value::Array(_) | Value::Null | Value::Object(_) => false,
        }
    }
}

impl FromNode for Expected {
    fn from_node(node: &Node, report: &Diagnostics) -> Option<Self> {
        let text = match &node.kind {
            Kind::String(text) => text.clone(),
            Kind::Integer(number) => number.to_string(),
            Kind::Float(number) => number.to_string(),
            Kind::Boolean(yes) => yes.to_string(),
            Kind::Array(_) | Kind::Table(_) => {
                node.error(report, "expected a text, a number, true or false", "", None);
                return None;
            }
        };
        let number = text.parse().ok().filter(|number: &f64| number.is_finite());
        Some(Self { text, number })
    }
}

/// The requirements on a value. Any one of these is enough.
#[derive(Clone, Debug)]
struct ConditionTest {
    equals: Vec<Expected>,
    matches: Option<Anywhere>,
    absent: bool,
}

impl ConditionTest {
    fn read(fields: &Fields<'_>) -> Self {
        let test = Self {
            equals: fields.or("equals", OneOrManyValues(Vec::new())).0,
            matches: fields.opt("matches"),
            absent: fields.or("absent", false),
        };
        let said = ["equals", "matches", "absent"].iter().any(|key| fields.take(key).is_some());
        if !said {
            let help = "add `equals = […]`, `matches = \"…\"` or `absent = true`".to_owned();
            fields.node().error(fields.report(), format!("{} asks for nothing", fields.what()), "", Some(help));
        }
        test
    }

    fn holds_json(&self, value: &Value) -> bool {
        self.equals.iter().any(|expected| expected.equals(value))
            || self.matches.as_ref().is_some_and(|matches| match value {
                Value::String(text) => matches.0.is_match(text),
                Value::Number(number) => matches.0.is_match(&number.to_string()),
                Value::Array(_) | Value::Bool(_) | Value::Null | Value::Object(_) => false,
            })
    }

    fn holds_text(&self, value: &str) -> bool {
        self.equals.iter().any(|expected| expected.text == value)
            || self.matches.as_ref().is_some_and(|matches| matches.0.is_match(value))
    }
}

/// A condition on a JSON value.
#[derive(Clone, Debug)]
pub(super) struct JsonTest {
    pointers: Vec<String>,
    test: ConditionTest,
}

impl JsonTest {
    /// A place and a value for it with which this holds, where it asks for one.
    pub(super) fn example(&self) -> Option<(&str, Value)> {
        Some((self.pointers.first()?, self.test.equals.first()?.value()))
    }

    /// Returns the JSON pointers to the values that it looks at.
    pub(super) fn pointers(&self) -> impl Iterator<Item = &str> {
        self.pointers.iter().map(String::as_str)
    }

    /// Returns whether it holds only where a value stands that it names.
    pub(super) fn names_code(&self) -> bool {
        let ConditionTest { equals, matches, absent } = &self.test;
        !absent && (!equals.is_empty() || matches.is_some())
    }

    /// Returns the degree to which it fits: a value with characters that could not be read proves nothing.
    fn fit(&self, value: &Value) -> Fit {
        let doubtful = self.pointers.iter().filter_map(|pointer| value.pointer(pointer)).any(is_doubtful);
        match self.holds(value) {
            _ if doubtful => Fit::Unsure,
            true => Fit::Yes,
            false => Fit::No,
        }
    }

    /// Returns whether it holds for one of its pointers. `null` counts as absent.
    pub(super) fn holds(&self, value: &Value) -> bool {
        let mut found = self.pointers.iter().filter_map(|p| value.pointer(p)).filter(|v| !v.is_null()).peekable();
        if found.peek().is_none() { self.test.absent } else { found.any(|value| self.test.holds_json(value)) }
    }
}

impl FromNode for JsonTest {
    fn from_node(node: &Node, report: &Diagnostics) -> Option<Self> {
        let fields = Fields::new(node, "the JSON condition", report);
        let pointers = fields.req::<OneOrManyValues<Pointer>>("pointer", "\"/error\"");
        let test = ConditionTest::read(&fields);
        fields.finish();
        let pointers = pointers?.0.into_iter().map(|pointer| pointer.0).collect();
        Some(Self { pointers, test })
    }
}

/// A condition on a response header.
#[derive(Clone, Debug)]
struct HeaderTest {
    name: HeaderName,
    test: ConditionTest,
}

impl HeaderTest {
    fn holds(&self, headers: &HeaderMap) -> bool {
        let mut found = headers.get_all(&self.name).iter().peekable();
        if found.peek().is_none() {
            return self.test.absent;
        }
        found.any(|value| value.to_str().is_ok_and(|value| self.test.holds_text(value)))
    }
}

impl FromNode for HeaderTest {
    fn from_node(node: &Node, report: &Diagnostics) -> Option<Self> {
        let fields = Fields::new(node, "the header condition", report);
        let name = fields.req::<FieldName>("name", "\"x-error\"");
        let test = ConditionTest::read(&fields);
        fields.finish();
        Some(Self { name: name?.0, test })
    }
}

/// A condition on the text of a body.
#[derive(Clone, Debug)]
struct BodyTest(Anywhere);

impl FromNode for BodyTest {
    fn from_node(node: &Node, report: &Diagnostics) -> Option<Self> {
        let fields = Fields::new(node, "the body condition", report);
        let matches = fields.req::<Anywhere>("matches", "\"token (has )?expired\"");
        fields.finish();
        matches.map(Self)
    }
}

/// The statuses that a matcher may name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Statuses {
    /// Any, or none at all.
    Any,
    /// At least one, from 400 to 499: only such an answer can prove that nothing was processed. Others but redirects are
    /// allowed where the JSON has a code, and the profile says that the provider confirms it.
    ClientErrors,
}

/// Conditions on an answer, all of which must hold.
#[derive(Clone, Debug)]
pub(super) struct Matcher {
    pub statuses: Vec<u16>,
    challenge_error: Option<String>,
    /// The schemes whose challenges count.
    schemes: Vec<String>,
    headers: Vec<HeaderTest>,
    json: Vec<JsonTest>,
    /// One of them is enough.
    body: Vec<BodyTest>,
    bare: bool,
    /// A remark on the matcher's source, for readers.
    pub note: String,
    /// True if a public source or the bank confirms it.
    pub confirmed: bool,
}

impl Matcher {
    /// Takes a matcher's keys from `fields`; the caller finishes them.
    pub(super) fn read(fields: &Fields<'_>, allowed: Statuses) -> Self {
        let report = fields.report();
        let status_node = fields.take("status");
        let statuses = status_node.and_then(|node| OneOrManyValues::<StatusNumber>::from_node(node, report));
        let statuses: Vec<u16> = statuses.map_or(Vec::new(), |many| many.0.into_iter().map(|s| s.0).collect());
        let schemes = fields.or("challenge_scheme", OneOrManyValues(vec![BEARER.to_owned()])).0;
        let matcher = Self {
            statuses,
            challenge_error: fields.opt("challenge_error"),
            schemes,
            headers: fields.or("header", OneOrManyValues(Vec::new())).0,
            json: fields.or("json", OneOrManyValues(Vec::new())).0,
            body: fields.or("body", OneOrManyValues(Vec::new())).0,
            bare: fields.or("bare", false),
            note: fields.or("note", String::new()),
            confirmed: fields.or("confirmed", true),
        };
        if allowed == Statuses::ClientErrors {
            match status_node {
                None => fields.missing("status", "[401]"),
                Some(node) => matcher.judge_statuses(node, fields),
            }
        }
        if matcher.bare && !(matcher.json.is_empty() && matcher.body.is_empty()) {
            let title = "an answer that is `bare` has no body to look into";
            fields.node().error(report, title, "", Some("make two matchers of it".to_owned()));
        }
        if let (None, Some(node)) = (&matcher.challenge_error, fields.take("challenge_scheme")) {
            node.error(report, "`challenge_scheme` says whose `challenge_error` counts", "there is none", None);
        }
        let says = ["challenge_error", "header", "json", "body", "bare"].iter().any(|key| fields.take(key).is_some());
        if allowed == Statuses::ClientErrors && !says {
            let title = format!("{} would match every such answer", fields.what());
            let help = "add `challenge_error`, `header`, `json`, `body` or `bare = true`".to_owned();
            fields.node().error(report, title, "", Some(help));
        }
        matcher
    }

    /// Reports statuses that prove nothing. A 5xx or a 2xx may come from a request that was processed, so the provider
    /// must say in writing that the code in the body means it was not.
    fn judge_statuses(&self, node: &Node, fields: &Fields<'_>) {
        let is_client_error = |status: &u16| (400..=499).contains(status);
        if self.statuses.iter().all(is_client_error) {
            return;
        }
        let title = "only a 4xx can prove that a token was refused";
        let help = if self.statuses.iter().any(|status| (300..=399).contains(status)) {
            "a redirect never proves that nothing was processed"
        } else if !self.json.iter().any(JsonTest::names_code) {
            "another status counts only with a code in the body: add `json = [{ pointer = \"/code\", equals = \"…\" }]`"
        } else if fields.take("confirmed").is_none() || !self.confirmed {
            "if the provider says in writing that nothing was processed then, add `confirmed = true`"
        } else {
            return;
        };
        node.error(fields.report(), title, "", Some(help.to_owned()));
    }

    /// Returns the JSON pointers of each of its conditions on values.
    pub(super) fn json_pointers(&self) -> Vec<Vec<&str>> {
        self.json.iter().map(|test| test.pointers().collect()).collect()
    }

    /// Returns whether it has any condition at all.
    pub(super) fn says_something(&self) -> bool {
        let asks = self.challenge_error.is_some() || !self.headers.is_empty() || self.looks_inside();
        asks || self.bare || !self.statuses.is_empty()
    }

    /// Returns whether it inspects the content of a body, as JSON or as text.
    pub(super) const fn looks_inside(&self) -> bool {
        !self.json.is_empty() || self.wants_text()
    }

    /// Returns whether it inspects the body as text.
    pub(super) const fn wants_text(&self) -> bool {
        !self.body.is_empty()
    }

    /// Returns whether it requires that there is no body.
    pub(super) const fn wants_emptiness(&self) -> bool {
        self.bare
    }

    /// Returns whether it applies to this status.
    pub(super) fn concerns(&self, status: StatusCode) -> bool {
        self.statuses.is_empty() || self.statuses.contains(&status.as_u16())
    }

    /// Returns the degree to which a response fits. Headers are tested first: they need no body.
    pub(super) fn fit(&self, status: StatusCode, headers: &HeaderMap, body: &JudgedBody<'_>) -> Fit {
        if !self.concerns(status) || !self.headers.iter().all(|test| test.holds(headers)) {
            return Fit::No;
        }
        if let Some(wanted) = &self.challenge_error
            && !errors(headers, &self.schemes).iter().any(|error| error.eq_ignore_ascii_case(wanted))
        {
            return Fit::No;
        }
        if self.bare && !errors(headers, &KIN).is_empty() {
            return Fit::No;
        }
        let holds = |yes: bool| if yes { Fit::Yes } else { Fit::No };
        let by_content = match &body.content {
            Body::Empty => holds(self.json.is_empty()),
            Body::Json(_) if self.bare => Fit::No,
            Body::Json(value) => self.json.iter().map(|test| test.fit(value)).min().unwrap_or(Fit::Yes),
            Body::Other => holds(!self.bare && self.json.is_empty()),
            Body::Unread if self.json.is_empty() && !self.bare => Fit::Yes,
            Body::Unread => Fit::Unsure,
        };
        by_content.min(self.fit_text(body))
    }

    /// Returns the degree to which the text of a body fits. A text with characters that could not be read proves nothing.
    fn fit_text(&self, body: &JudgedBody<'_>) -> Fit {
        if !self.wants_text() {
            return Fit::Yes;
        }
        match (&body.content, &body.text) {
            (Body::Empty, _) => Fit::No,
            (Body::Json(_) | Body::Other | Body::Unread, Some(text)) => {
                match self.body.iter().any(|test| test.0.0.is_match(text)) {
                    _ if text.contains(char::REPLACEMENT_CHARACTER) => Fit::Unsure,
                    true => Fit::Yes,
                    false => Fit::No,
                }
            }
            (Body::Other, None) => Fit::No,
            (Body::Json(_) | Body::Unread, None) => Fit::Unsure,
        }
    }
}
