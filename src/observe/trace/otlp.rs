//! Spans as OTLP writes them: an `ExportTraceServiceRequest` in its JSON encoding (OTLP 1.x, "JSON Protobuf Encoding":
//! names in lower camel case, ids in hexadecimal, 64-bit numbers as texts, enums as numbers).

use std::fmt::Display;

use serde::ser::SerializeSeq;
use serde::{Serialize, Serializer};

use super::context::Context;
use super::span::{Span, Value};

/// Who tells.
#[derive(Clone, Copy, Debug)]
pub struct Resource<'a> {
    /// `service.name`.
    pub service: &'a str,
    /// `service.instance.id`: this process among replicas.
    pub instance: &'a str,
}

const SCOPE: &str = env!("CARGO_PKG_NAME");
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// `SpanFlags`: whether the parent is remote is known.
const HAS_IS_REMOTE: u32 = 0x100;
/// `SpanFlags`: it is.
const IS_REMOTE: u32 = 0x200;
/// `STATUS_CODE_ERROR`.
const ERROR: u8 = 2;

/// The body of one export.
pub fn encode(resource: Resource<'_>, spans: &[Span]) -> Vec<u8> {
    let about = [
        ("service.name", Value::from(resource.service.to_owned())),
        ("service.version", VERSION.into()),
        ("service.instance.id", Value::from(resource.instance.to_owned())),
    ];
    let scope_spans = [ScopeSpans { scope: Scope { name: SCOPE, version: VERSION }, spans: Each(spans) }];
    let whole =
        Request { resource_spans: [ResourceSpans { resource: About { attributes: Pairs(&about) }, scope_spans }] };
    // Texts and numbers can always be written.
    serde_json::to_vec(&whole).unwrap_or_default()
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    resource_spans: [ResourceSpans<'a>; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ResourceSpans<'a> {
    resource: About<'a>,
    scope_spans: [ScopeSpans<'a>; 1],
}

#[derive(Serialize)]
struct About<'a> {
    attributes: Pairs<'a>,
}

#[derive(Serialize)]
struct ScopeSpans<'a> {
    scope: Scope,
    spans: Each<'a>,
}

#[derive(Serialize)]
struct Scope {
    name: &'static str,
    version: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    #[serde(serialize_with = "text")]
    trace_id: super::TraceId,
    #[serde(serialize_with = "text")]
    span_id: super::SpanId,
    #[serde(serialize_with = "maybe", skip_serializing_if = "Option::is_none")]
    parent_span_id: Option<super::SpanId>,
    flags: u32,
    name: &'a str,
    kind: u8,
    #[serde(serialize_with = "text")]
    start_time_unix_nano: u64,
    #[serde(serialize_with = "text")]
    end_time_unix_nano: u64,
    attributes: Pairs<'a>,
    #[serde(skip_serializing_if = "Links::is_empty")]
    links: Links<'a>,
    status: Status,
}

#[derive(Serialize)]
struct Status {
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u8>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Link {
    #[serde(serialize_with = "text")]
    trace_id: super::TraceId,
    #[serde(serialize_with = "text")]
    span_id: super::SpanId,
    flags: u32,
}

#[derive(Serialize)]
struct Pair<'a> {
    key: &'a str,
    value: Held<'a>,
}

#[derive(Serialize)]
enum Held<'a> {
    #[serde(rename = "boolValue")]
    Flag(bool),
    #[serde(rename = "stringValue")]
    Text(&'a str),
    #[serde(rename = "intValue")]
    Whole(#[serde(serialize_with = "text")] i64),
}

struct Each<'a>(&'a [Span]);
struct Pairs<'a>(&'a [(&'static str, Value)]);
struct Links<'a>(&'a [Context]);

impl Links<'_> {
    const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Each<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.0.len()))?;
        for span in self.0 {
            let remote = if span.remote { IS_REMOTE } else { 0 };
            list.serialize_element(&Line {
                trace_id: span.context.trace,
                span_id: span.context.span,
                parent_span_id: span.parent,
                flags: u32::from(span.context.flags) | HAS_IS_REMOTE | remote,
                name: &span.name,
                kind: span.kind as u8,
                start_time_unix_nano: span.start,
                end_time_unix_nano: span.end.max(span.start),
                attributes: Pairs(&span.attributes),
                links: Links(&span.links),
                status: Status { code: span.failed.then_some(ERROR) },
            })?;
        }
        list.end()
    }
}

impl Serialize for Pairs<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|(key, value)| Pair {
            key,
            value: match value {
                Value::Flag(flag) => Held::Flag(*flag),
                Value::Shared(text) => Held::Text(text),
                Value::Text(text) => Held::Text(text),
                Value::Whole(number) => Held::Whole(*number),
            },
        }))
    }
}

impl Serialize for Links<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let link = |one: &Context| Link { trace_id: one.trace, span_id: one.span, flags: u32::from(one.flags) };
        serializer.collect_seq(self.0.iter().map(link))
    }
}

fn text<S: Serializer>(value: &impl Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

fn maybe<S: Serializer>(value: &Option<super::SpanId>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => serializer.collect_str(value),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::observe::trace::Kind;

    #[test]
    fn spans_are_written_as_the_protocol_wants_them() {
        let parent = Context::parse(b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").unwrap();
        let context = parent.sibling();
        let span = Span {
            context,
            parent: Some(parent.span),
            remote: true,
            kind: Kind::Server,
            name: "GET scb".into(),
            start: 1_700_000_000_123_456_789,
            end: 1_700_000_001_000_000_000,
            attributes: vec![("url.path", "/scb".into()), ("complete", true.into()), ("status", 503_u16.into())],
            links: vec![parent],
            failed: true,
        };
        let written = encode(Resource { service: "gate", instance: "one" }, &[span]);
        let read: serde_json::Value = serde_json::from_slice(&written).unwrap();
        let resource = &read["resourceSpans"][0];
        assert_eq!(
            resource["resource"]["attributes"][0],
            json!({ "key": "service.name", "value": { "stringValue": "gate" } })
        );
        assert_eq!(resource["scopeSpans"][0]["scope"]["name"], "countersign");
        assert_eq!(
            resource["scopeSpans"][0]["spans"],
            json!([{
                "traceId": "4bf92f3577b34da6a3ce929d0e0e4736",
                "spanId": context.span.to_string(),
                "parentSpanId": "00f067aa0ba902b7",
                "flags": 0x301,
                "name": "GET scb",
                "kind": 2,
                "startTimeUnixNano": "1700000000123456789",
                "endTimeUnixNano": "1700000001000000000",
                "attributes": [
                    { "key": "url.path", "value": { "stringValue": "/scb" } },
                    { "key": "complete", "value": { "boolValue": true } },
                    { "key": "status", "value": { "intValue": "503" } },
                ],
                "links": [
                    { "traceId": "4bf92f3577b34da6a3ce929d0e0e4736", "spanId": "00f067aa0ba902b7", "flags": 1 },
                ],
                "status": { "code": 2 },
            }])
        );
    }
}
