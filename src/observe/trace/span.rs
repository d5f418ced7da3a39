//! Finished spans and the values of their attributes.

use std::borrow::Cow;
use std::sync::Arc;

use super::context::{Context, SpanId};

/// A finished span, as it goes to a collector.
#[derive(Clone, Debug)]
pub struct Span {
    /// Ids of the span and its trace, with their flags.
    pub context: Context,
    /// Id of the parent span; absent: the first span of its trace.
    pub parent: Option<SpanId>,
    /// True if the parent span belongs to another process.
    pub remote: bool,
    /// The role of the span: client, server or internal.
    pub kind: Kind,
    /// The name of the span: one of few, and never a text that a client chose.
    pub name: Cow<'static, str>,
    /// When it began, in nanoseconds since 1970.
    pub start: u64,
    /// Time at which it ended, in nanoseconds since 1970.
    pub end: u64,
    /// Keys and values that describe the span.
    pub attributes: Vec<(&'static str, AttributeValue)>,
    /// Other spans that waited for it.
    pub links: Vec<Context>,
    /// True if the work failed: the span's status is an error.
    pub failed: bool,
}

/// The role of a span.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// A request that was made.
    Client,
    /// Work within the process itself.
    Internal,
    /// A request that was received.
    Server,
}

/// The value of an attribute.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum AttributeValue {
    /// A boolean, sent as OTLP's `BoolValue`.
    Flag(bool),
    /// A text that is static or owned.
    Text(Cow<'static, str>),
    /// A text that is somebody else's, too.
    Shared(Arc<str>),
    /// An integer, sent as OTLP's `IntValue`.
    Whole(i64),
}

impl Span {
    /// Tells something more of it.
    pub fn tell(&mut self, key: &'static str, value: impl Into<AttributeValue>) {
        self.attributes.push((key, value.into()));
    }
}

impl From<bool> for AttributeValue {
    fn from(flag: bool) -> Self {
        AttributeValue::Flag(flag)
    }
}

impl From<&'static str> for AttributeValue {
    fn from(text: &'static str) -> Self {
        AttributeValue::Text(text.into())
    }
}

impl From<String> for AttributeValue {
    fn from(text: String) -> Self {
        AttributeValue::Text(text.into())
    }
}

impl From<&Arc<str>> for AttributeValue {
    fn from(text: &Arc<str>) -> Self {
        AttributeValue::Shared(text.clone())
    }
}

impl From<u64> for AttributeValue {
    fn from(number: u64) -> Self {
        AttributeValue::Whole(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<u16> for AttributeValue {
    fn from(number: u16) -> Self {
        AttributeValue::Whole(number.into())
    }
}
