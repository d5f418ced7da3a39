//! `timeouts` of a `[provider.NAME]` or a `[[route]]`.

use std::time::Duration;

use crate::syntax::Fields;

use super::schema::{DURATION, MAY, SchemaSection};
use super::spanned_text::Position;

/// Time limits of the steps of a provider call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Timeouts {
    /// DNS, TCP and TLS together.
    pub connect: Duration,
    /// Limit for a whole token call.
    pub token: Duration,
    /// From the request's end to the response's head.
    pub response: Duration,
    /// An unused connection is kept this long.
    pub idle: Duration,
    /// Between two pieces of a body.
    pub body_idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            token: Duration::from_secs(10),
            response: Duration::from_secs(60),
            idle: Duration::from_secs(20),
            body_idle: Duration::from_secs(60),
        }
    }
}

pub(super) const KEYS: SchemaSection = (
    "timeouts",
    &[
        ("body_idle", DURATION, MAY, "between two pieces of a body; 60s"),
        ("connect", DURATION, MAY, "DNS, TCP and TLS together; 5s"),
        ("idle", DURATION, MAY, "an unused connection is kept this long; 20s"),
        ("response", DURATION, MAY, "from the request's end to the head of the response; 60s"),
        ("token", DURATION, MAY, "a whole token call; 10s"),
    ],
);

/// `timeouts = { … }`, over what holds without it.
pub(super) fn read(fields: &Fields<'_>, without: Timeouts) -> Timeouts {
    let Some(node) = fields.take("timeouts") else { return without };
    let own = Fields::new(node, format!("timeouts of {}", fields.what()), fields.report());
    let read = |key: &str, without: Duration| {
        let Some(node) = own.take(key) else { return without };
        let Some(read) = own.opt::<Duration>(key) else { return without };
        if read.is_zero() {
            let title = format!("`{key}` cannot be zero: nothing is that quick");
            Position::of(node).error(fields.report(), title, "write a duration, as in `\"10s\"`, or leave it out");
        }
        read
    };
    let timeouts = Timeouts {
        connect: read("connect", without.connect),
        token: read("token", without.token),
        response: read("response", without.response),
        idle: read("idle", without.idle),
        body_idle: read("body_idle", without.body_idle),
    };
    own.finish();
    timeouts
}
