//! A finished span.

use std::borrow::Cow;
use std::sync::Arc;

use super::context::{Context, SpanId};

/// A finished span, as it goes to a collector.
#[derive(Clone, Debug)]
pub struct Span {
    /// Which one.
    pub context: Context,
    /// Whose child; absent: the first of its trace.
    pub parent: Option<SpanId>,
    /// Whether the parent is another process's.
    pub remote: bool,
    /// Which side of what.
    pub kind: Kind,
    /// What it is called: few different ones, and nothing of a client's choosing.
    pub name: Cow<'static, str>,
    /// When it began, in nanoseconds since 1970.
    pub start: u64,
    /// When it ended, likewise.
    pub end: u64,
    /// What is told of it.
    pub attributes: Vec<(&'static str, AttributeValue)>,
    /// Other spans that waited for it.
    pub links: Vec<Context>,
    /// Whether it failed.
    pub failed: bool,
}

/// Which side of what a span is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// A request that was made.
    Client,
    /// Within the process.
    Internal,
    /// A request that came.
    Server,
}

/// The value of an attribute.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum AttributeValue {
    /// True or false.
    Flag(bool),
    /// A text.
    Text(Cow<'static, str>),
    /// A text that is somebody else's, too.
    Shared(Arc<str>),
    /// A number.
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
