//! Spans in OTLP: an `ExportTraceServiceRequest`.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1 as trace;
use prost::Message;

use super::resource::{OtlpResource, pair, scope};
use crate::observe::trace::{AttributeValue, Context, Kind, Span};

/// Flag of a span: it is known whether its parent is remote.
const HAS_IS_REMOTE: u32 = trace::SpanFlags::ContextHasIsRemoteMask as u32;
/// Flag of a span: its parent is remote.
const IS_REMOTE: u32 = trace::SpanFlags::ContextIsRemoteMask as u32;

/// The message that exports spans.
pub fn trace_export(resource: OtlpResource<'_>, spans: &[Span]) -> Vec<u8> {
    let scope_spans =
        trace::ScopeSpans { scope: Some(scope()), spans: spans.iter().map(message).collect(), ..Default::default() };
    let resource_spans = trace::ResourceSpans {
        resource: Some(resource.message()),
        scope_spans: vec![scope_spans],
        ..Default::default()
    };
    ExportTraceServiceRequest { resource_spans: vec![resource_spans] }.encode_to_vec()
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

/// Attributes as the protocol has them.
pub(super) fn pairs(pairs: &[(&'static str, AttributeValue)]) -> Vec<KeyValue> {
    pairs.iter().map(|(key, told)| pair(key, value(told))).collect()
}

fn value(value: &AttributeValue) -> any_value::Value {
    match value {
        AttributeValue::Flag(flag) => any_value::Value::BoolValue(*flag),
        AttributeValue::Shared(text) => any_value::Value::StringValue((**text).to_owned()),
        AttributeValue::Text(text) => any_value::Value::StringValue(text.clone().into_owned()),
        AttributeValue::Whole(number) => any_value::Value::IntValue(*number),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use opentelemetry_proto::tonic::common::v1::AnyValue;

    use super::super::resource::VERSION;
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
        let written = trace_export(OtlpResource { service: "gate", instance: "one", attributes: &[] }, &[span, first]);
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
}
