//! What a token's machine wants done.

use std::sync::Arc;
use std::time::Duration;

use crate::base::time::{Deadline, Now};
use crate::token::failure::Class;

/// What to do now, in this order.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Action {
    /// Stop this fetch; what it brings is worth nothing any more.
    Abandon {
        /// Which.
        flight: u64,
    },
    /// Tell all who wait that there is no token.
    Deny(Denial),
    /// Start a fetch, and report it by [`Event::Fetched`](super::Event::Fetched) or [`Event::Failed`](super::Event::Failed).
    Fetch {
        /// Under this number.
        flight: u64,
    },
    /// This generation was refused for good: its token must not be found in a store again.
    Invalidate {
        /// Which.
        generation: u64,
    },
    /// Put the token that was just fetched on the shelf, in place of its predecessor.
    Publish {
        /// As this generation.
        generation: u64,
        /// When its request was sent.
        issued: Now,
        /// When it dies.
        expires: Deadline,
        /// Before this moment a refusal need not be final; none: any refusal is.
        young_until: Option<Deadline>,
    },
    /// Log it and count it.
    Report(FailureReport),
    /// Put a token on the shelf that was there before, as a new generation: a refused generation never comes back.
    Republish {
        /// As this generation.
        generation: u64,
        /// The generation that it was.
        of: u64,
        /// It was refused in its first moments, and is tried again.
        retried: bool,
    },
    /// Give all who wait the token on the shelf.
    Serve,
    /// This generation was refused in its first moments: it is kept, and tried again.
    SetAside {
        /// Which.
        generation: u64,
        /// After this long.
        pause: Duration,
    },
    /// Take the token off the shelf.
    Withdraw {
        /// Which.
        generation: u64,
    },
}

/// Why there is no token, and for how long it is no use to ask.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Denial {
    /// What kind of failure.
    pub class: Class,
    /// For our logs.
    pub inside: Arc<str>,
    /// The rest's remainder.
    pub retry_after: Duration,
}

/// Something that the operator should know.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FailureReport {
    /// What kind of failure.
    pub class: Class,
    /// The fetch that it ended; none when a fresh token was refused.
    pub flight: Option<u64>,
    /// What happened.
    pub inside: Arc<str>,
    /// How long the key rests now; zero when a fetch under way goes on.
    pub rest: Duration,
}
