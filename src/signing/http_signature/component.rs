//! Covered components (RFC 9421 section 2): their identifiers, and their values in a message.

use http::HeaderMap;
use http::HeaderName;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::super::encoding::base64;
use super::super::request_parts;
use super::super::request_parts::RequestParts;
use super::super::structured_field;
use super::super::structured_field::{BareItem, FieldItem};
use super::BaseError;
use super::HttpMessage;

/// All letters but those that the form encoding leaves as they are.
const FORM: &AsciiSet = &NON_ALPHANUMERIC.remove(b'*').remove(b'-').remove(b'.').remove(b'_');

/// A component that a signature covers: a header field, or a part of the request or response derived from it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CoveredComponent {
    kind: Kind,
    /// As it was read: its parameters keep their order.
    identifier: FieldItem,
    of_request: bool,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Kind {
    Authority,
    /// A header field, and whether each of its values is written as a byte sequence (`;bs`).
    Field(HeaderName, bool),
    Method,
    Path,
    Query,
    /// A query parameter by its encoded name.
    QueryParam(String),
    RequestTarget,
    Scheme,
    Status,
    TargetUri,
}

impl CoveredComponent {
    /// Reads an identifier as it stands in `Signature-Input`; the name may also stand without its quotation marks:
    /// `"content-digest"`, `@method`, `@query-param;name="id"`, `date;req`.
    pub fn parse(text: &str) -> Result<Self, BaseError> {
        let unknown = || BaseError::Identifier(text.chars().filter(char::is_ascii_graphic).take(80).collect());
        let quoted = if text.starts_with('"') {
            text.to_owned()
        } else {
            let (name, parameters) = text.split_at(text.find(';').unwrap_or(text.len()));
            format!("\"{name}\"{parameters}")
        };
        let item = structured_field::item(&quoted).ok_or_else(unknown)?;
        Self::from_item(item).ok_or_else(unknown)
    }

    /// Reads an identifier. `None` for a name or parameter that is not supported.
    pub(super) fn from_item(identifier: FieldItem) -> Option<Self> {
        let BareItem::Text(name) = &identifier.value else { return None };
        let (mut of_request, mut as_bytes, mut query_name) = (false, false, None);
        for parameter in &identifier.parameters {
            match (parameter.0.as_str(), &parameter.1) {
                ("req", BareItem::Boolean(true)) => of_request = true,
                ("bs", BareItem::Boolean(true)) => as_bytes = true,
                ("name", BareItem::Text(name)) => query_name = Some(name.clone()),
                _ => return None,
            }
        }
        let kind = match (name.as_str(), query_name) {
            ("@query-param", Some(name)) => Kind::QueryParam(name),
            (_, Some(_)) => return None,
            ("@authority", None) => Kind::Authority,
            ("@method", None) => Kind::Method,
            ("@path", None) => Kind::Path,
            ("@query", None) => Kind::Query,
            ("@request-target", None) => Kind::RequestTarget,
            ("@scheme", None) => Kind::Scheme,
            ("@status", None) if !of_request => Kind::Status,
            ("@target-uri", None) => Kind::TargetUri,
            (field, None) => {
                let is_lower = !field.bytes().any(|byte| byte.is_ascii_uppercase());
                let name = HeaderName::try_from(field).ok().filter(|_| is_lower)?;
                Kind::Field(name, as_bytes)
            }
        };
        let may_be_bytes = matches!(kind, Kind::Field(..)) || !as_bytes;
        may_be_bytes.then_some(Self { kind, identifier, of_request })
    }

    /// Returns the identifier as `Signature-Input` and the signature base hold it.
    pub fn identifier(&self) -> String {
        let mut out = String::new();
        structured_field::write_item(&mut out, &self.identifier.value);
        structured_field::write_parameters(&mut out, &self.identifier.parameters);
        out
    }

    /// Returns whether a request has such a component, or with `answer` a response.
    pub fn is_of(&self, answer: bool) -> bool {
        match (answer, self.of_request, &self.kind) {
            (true, true, _) | (_, false, Kind::Field(..)) => true,
            (false, true, _) | (false, false, Kind::Status) => false,
            (answer, false, kind) => answer == matches!(kind, Kind::Status),
        }
    }

    /// Returns the header field of the message itself that it covers, if it covers one.
    pub fn own_field(&self) -> Option<&HeaderName> {
        if let (Kind::Field(name, _), false) = (&self.kind, self.of_request) { Some(name) } else { None }
    }

    /// Returns whether both identify the same component: the order of parameters does not count (section 2).
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.kind == other.kind && self.of_request == other.of_request
    }

    /// Returns the value in a message; `None` if it has none that can be covered.
    pub(super) fn value(&self, message: &HttpMessage<'_>) -> Option<String> {
        match (message, self.of_request) {
            (HttpMessage::Request(request), false) => self.of_parts(request),
            (HttpMessage::Request(_), true) => None,
            (HttpMessage::Response { request, .. }, true) => self.of_parts(request.as_ref()?),
            (HttpMessage::Response { status, headers, .. }, false) => match &self.kind {
                Kind::Status => Some(status.to_string()),
                Kind::Field(name, as_bytes) => field(headers, name, *as_bytes),
                Kind::Authority
                | Kind::Method
                | Kind::Path
                | Kind::Query
                | Kind::QueryParam(_)
                | Kind::RequestTarget
                | Kind::Scheme
                | Kind::TargetUri => None,
            },
        }
    }

    fn of_parts(&self, request: &RequestParts<'_>) -> Option<String> {
        let value = match &self.kind {
            Kind::Authority => request.normal_authority(),
            Kind::Field(name, as_bytes) => field(request.headers, name, *as_bytes)?,
            Kind::Method => request.method.to_owned(),
            Kind::Path => request.path().to_owned(),
            // Section 2.2.7: an absent query is a question mark alone.
            Kind::Query => format!("?{}", request.query.unwrap_or_default()),
            Kind::QueryParam(name) => query_parameter(request.query?, name)?,
            Kind::RequestTarget => request.origin_form(),
            Kind::Scheme => request.scheme.to_ascii_lowercase(),
            Kind::Status => return None,
            Kind::TargetUri => request.target_uri(),
        };
        // A line break would start a line of the signature base.
        value.bytes().all(|byte| byte == b'\t' || (0x20..0x7f).contains(&byte)).then_some(value)
    }
}

/// The value of a header field (section 2.1), or with `;bs` each of its lines as a byte sequence (section 2.1.3).
fn field(headers: &HeaderMap, name: &HeaderName, as_bytes: bool) -> Option<String> {
    if !as_bytes {
        return request_parts::field_value(headers, name.as_str());
    }
    let lines = headers.get_all(name).iter();
    let lines: Vec<_> = lines.map(|line| format!(":{}:", base64(line.as_bytes().trim_ascii()))).collect();
    (!lines.is_empty()).then(|| lines.join(", "))
}

/// The value of a query parameter, decoded and encoded again (section 2.2.8). A name that occurs twice has none.
fn query_parameter(query: &str, wanted: &str) -> Option<String> {
    let encoded = |text: &str| utf8_percent_encode(text, FORM).to_string();
    let mut found = request_parts::decoded_pairs(query)?.into_iter().filter(|(name, _)| encoded(name) == wanted);
    let (_, value) = found.next()?;
    found.next().is_none().then(|| encoded(&value))
}
