//! What can happen to a token.

use crate::base::time::{Deadline, Now};
use crate::token::failure::Failure;

/// What happened. Flight numbers are those of [`Action::Fetch`](super::Action::Fetch), generations those of [`Action::Publish`](super::Action::Publish).
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Event {
    /// A fetch failed.
    Failed {
        /// Which.
        flight: u64,
        /// How.
        failure: Failure,
    },
    /// A fetch brought a token.
    Fetched {
        /// Which.
        flight: u64,
        /// The token.
        arrived: Arrived,
    },
    /// The operator wants a new token now, resting or not.
    Forced,
    /// Something changed that may have cured the failures: a reload.
    Forgiven,
    /// A request waits for a token.
    Needed,
    /// A call with this generation was answered, and not by a refusal.
    Proved {
        /// Which.
        generation: u64,
    },
    /// The operator wants this token forgotten.
    Purged,
    /// The provider refused this generation, and a request waits for a newer one.
    Refused {
        /// Which.
        generation: u64,
        /// Another replica's fetch has killed it, so it cannot become good any more.
        replaced: bool,
    },
    /// The provider refused this generation on the very request that it was fetched for, or on a replay.
    RefusedAtBirth {
        /// Which.
        generation: u64,
    },
    /// An answer to this generation smelled of a refusal without proving one.
    Suspected {
        /// Which.
        generation: u64,
    },
    /// Time went by.
    Tick {
        /// Whether a request used the current generation.
        used: bool,
    },
    /// The provider refused this generation, and nobody waits for a newer one.
    Withdrawn {
        /// Which.
        generation: u64,
        /// Another replica's fetch has killed it, so it cannot become good any more.
        replaced: bool,
    },
}

/// A token that a fetch brought.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Arrived {
    /// When its request was sent.
    pub issued: Now,
    /// When it dies: computed once, and judged by nothing else.
    pub expires: Deadline,
    /// Where it comes from.
    pub origin: TokenOrigin,
}

/// Where a token comes from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TokenOrigin {
    /// The store had it: the provider was not asked.
    Adopted {
        /// Another replica may have got it a moment ago.
        young: bool,
    },
    /// The provider issued it now.
    Issued,
    /// The provider was asked, and gave the last token once more.
    Repeated,
}
