//! Traces: the spans of the process's work, and the queue of finished spans.
//!
//! A [`Context`] is the content of `traceparent`. A [`Tracer`] decides which requests are traced and takes finished
//! [`Span`]s; it never blocks and never grows beyond its bound. Other modules take the spans out and send them, so this
//! module does not depend on a network. Spans are built from the data that the access log may contain, never from
//! header values.

mod context;
mod span;
mod tracer;

pub use context::{Context, SpanId, TRACEPARENT, TRACESTATE, TraceId, parent};
pub use span::{AttributeValue, Kind, Span};
pub use tracer::{Spans, Tracer};
