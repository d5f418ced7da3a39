//! Traces: which span a piece of work is, and the queue that finished spans leave by.
//!
//! A [`Context`] is what travels in `traceparent`. A [`Tracer`] decides who is traced and takes finished [`Span`]s; it
//! never blocks and never grows beyond its bound. Who takes them out and sends them on is somebody else's business, so
//! nothing here knows of a network. Spans are built from what the access log may tell, never from header values.

mod context;
#[cfg(feature = "otlp")]
pub mod otlp;
mod span;
mod tracer;

pub use context::{Context, SpanId, TRACEPARENT, TRACESTATE, TraceId, parent};
pub use span::{AttributeValue, Kind, Span};
pub use tracer::{Spans, Tracer};
