//! The OTLP encoding of spans: an `ExportTraceServiceRequest` in protobuf, and a collector's response to it.
//!
//! The messages are those that `opentelemetry-proto` has generated from the protocol's own files. No other part of the
//! OpenTelemetry libraries is used.

use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1 as resource;
use opentelemetry_proto::tonic::trace::v1 as trace;
use prost::Message;

use super::context::Context;
use super::span::{AttributeValue, Kind, Span};

/// The content type of an export, and of a collector's response.
pub const MEDIA_TYPE: &str = "application/x-protobuf";

/// The resource that exports the spans: a service and its instance.
#[derive(Clone, Copy, Debug)]
pub struct OtlpResource<'a> {
    /// Value of the attribute `service.name`.
    pub service: &'a str,
    /// `service.instance.id`: this process among replicas.
    pub instance: &'a str,
}

const SCOPE: &str = env!("CARGO_PKG_NAME");
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Flag of a span: it is known whether its parent is remote.
const HAS_IS_REMOTE: u32 = trace::SpanFlags::ContextHasIsRemoteMask as u32;
/// Flag of a span: its parent is remote.
const IS_REMOTE: u32 = trace::SpanFlags::ContextIsRemoteMask as u32;

/// The body of one export.
pub fn encode(resource: OtlpResource<'_>, spans: &[Span]) -> Vec<u8> {
    let about = [
        ("service.name", AttributeValue::from(resource.service.to_owned())),
        ("service.version", VERSION.into()),
        ("service.instance.id", AttributeValue::from(resource.instance.to_owned())),
    ];
    let scope = InstrumentationScope { name: SCOPE.to_owned(), version: VERSION.to_owned(), ..Default::default() };
    let scope_spans =
        trace::ScopeSpans { scope: Some(scope), spans: spans.iter().map(message).collect(), ..Default::default() };
    let resource = resource::Resource { attributes: pairs(&about), ..Default::default() };
    let resource_spans =
        trace::ResourceSpans { resource: Some(resource), scope_spans: vec![scope_spans], ..Default::default() };
    ExportTraceServiceRequest { resource_spans: vec![resource_spans] }.encode_to_vec()
}

/// Returns the number of spans that a collector rejected, by its response to an export that it took. A response that
/// cannot be read rejects none.
pub fn rejected(answer: &[u8]) -> u64 {
    let partial = ExportTraceServiceResponse::decode(answer).ok().and_then(|answer| answer.partial_success);
    partial.and_then(|partial| partial.rejected_spans.try_into().ok()).unwrap_or(0)
}

fn message(span: &Span) -> trace::Span {
    let remote = if span.remote { IS_REMOTE } else { 0 };
    let code = if span.failed { trace::status::StatusCode::Error } else { trace::status::StatusCode::Unset };
    trace::Span {
        trace_id: span.context.trace.bytes().to_vec(),
        span_id: span.context.span.bytes().to_vec(),
        // Empty: none.
        parent_span_id: span.parent.map(|parent| parent.bytes().to_vec()).unwrap_or_default(),
        flags: u32::from(span.context.flags) | HAS_IS_REMOTE | remote,
        name: span.name.clone().into_owned(),
        kind: kind(span.kind).into(),
        start_time_unix_nano: span.start,
        end_time_unix_nano: span.end.max(span.start),
        attributes: pairs(&span.attributes),
        links: span.links.iter().map(link).collect(),
        status: Some(trace::Status { code: code.into(), ..Default::default() }),
        ..Default::default()
    }
}

const fn kind(kind: Kind) -> trace::span::SpanKind {
    match kind {
        Kind::Client => trace::span::SpanKind::Client,
        Kind::Internal => trace::span::SpanKind::Internal,
        Kind::Server => trace::span::SpanKind::Server,
    }
}

fn link(context: &Context) -> trace::span::Link {
    trace::span::Link {
        trace_id: context.trace.bytes().to_vec(),
        span_id: context.span.bytes().to_vec(),
        flags: context.flags.into(),
        ..Default::default()
    }
}

fn pairs(pairs: &[(&'static str, AttributeValue)]) -> Vec<KeyValue> {
    let pair = |(key, value): &(&'static str, AttributeValue)| {
        let value = match value {
            AttributeValue::Flag(flag) => any_value::Value::BoolValue(*flag),
            AttributeValue::Shared(text) => any_value::Value::StringValue((**text).to_owned()),
            AttributeValue::Text(text) => any_value::Value::StringValue(text.clone().into_owned()),
            AttributeValue::Whole(number) => any_value::Value::IntValue(*number),
        };
        KeyValue { key: (*key).to_owned(), value: Some(AnyValue { value: Some(value) }), ..Default::default() }
    };
    pairs.iter().map(pair).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use opentelemetry_proto::tonic::collector::trace::v1::ExportTracePartialSuccess;

    use super::*;

    fn attribute(key: &str, value: any_value::Value) -> KeyValue {
        KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), key_strindex: 0 }
    }

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
            attributes: vec![
                ("url.path", "/scb".into()),
                ("countersign.client", (&Arc::<str>::from("erp")).into()),
                ("complete", true.into()),
                ("status", 503_u16.into()),
            ],
            links: vec![parent],
            failed: true,
        };
        let first = Span {
            parent: None,
            remote: false,
            kind: Kind::Client,
            end: 0,
            links: Vec::new(),
            failed: false,
            ..span.clone()
        };
        let written = encode(OtlpResource { service: "gate", instance: "one" }, &[span, first]);
        let read = ExportTraceServiceRequest::decode(&*written).unwrap();
        let [resource] = &*read.resource_spans else { panic!("{read:?}") };
        let text = |text: &str| any_value::Value::StringValue(text.to_owned());
        assert_eq!(
            resource.resource.as_ref().unwrap().attributes,
            [
                attribute("service.name", text("gate")),
                attribute("service.version", text(VERSION)),
                attribute("service.instance.id", text("one")),
            ]
        );
        let [scope_spans] = &*resource.scope_spans else { panic!("{read:?}") };
        assert_eq!(scope_spans.scope.as_ref().unwrap().name, "countersign");
        let trace_id = 0x4bf92f3577b34da6a3ce929d0e0e4736_u128.to_be_bytes().to_vec();
        let parent_id = 0x00f067aa0ba902b7_u64.to_be_bytes().to_vec();
        let expected = trace::Span {
            trace_id: trace_id.clone(),
            span_id: context.span.bytes().to_vec(),
            parent_span_id: parent_id.clone(),
            flags: 0x301,
            name: "GET scb".to_owned(),
            kind: 2,
            start_time_unix_nano: 1_700_000_000_123_456_789,
            end_time_unix_nano: 1_700_000_001_000_000_000,
            attributes: vec![
                attribute("url.path", text("/scb")),
                attribute("countersign.client", text("erp")),
                attribute("complete", any_value::Value::BoolValue(true)),
                attribute("status", any_value::Value::IntValue(503)),
            ],
            links: vec![trace::span::Link { trace_id, span_id: parent_id, flags: 1, ..Default::default() }],
            status: Some(trace::Status { code: 2, message: String::new() }),
            ..Default::default()
        };
        let [span, first] = &*scope_spans.spans else { panic!("{read:?}") };
        assert_eq!(*span, expected);
        let expected = trace::Span {
            parent_span_id: Vec::new(),
            flags: 0x101,
            kind: 3,
            // A span never ends before it begins.
            end_time_unix_nano: 1_700_000_000_123_456_789,
            links: Vec::new(),
            status: Some(trace::Status::default()),
            ..expected
        };
        assert_eq!(*first, expected);
    }

    #[test]
    fn what_a_collector_rejects_is_read() {
        let answer = |rejected_spans| {
            let partial = ExportTracePartialSuccess { rejected_spans, error_message: "no".to_owned() };
            ExportTraceServiceResponse { partial_success: Some(partial) }.encode_to_vec()
        };
        assert_eq!(rejected(&answer(3)), 3);
        // As the wire has it: field 1, three bytes; therein field 1, 300.
        assert_eq!(rejected(b"\x0a\x03\x08\xac\x02"), 300);
        for none in [&b""[..], &answer(0), &answer(-1), b"\x0a\x00", b"\x0a\x7f", b"\xff", b"{}", b"<html>"] {
            assert_eq!(rejected(none), 0, "{none:?}");
        }
    }
}
