//! Events that a token's state machine receives.

use crate::base::time::{Deadline, Now};
use crate::token::failure::Failure;

/// An event in the life of a token. Flight numbers are those of [`Action::Fetch`](super::Action::Fetch), generations
/// those of [`Action::Publish`](super::Action::Publish).
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Event {
    /// A fetch ended without a usable token.
    Failed { flight: u64, failure: Failure },
    /// A fetch brought a token.
    Fetched { flight: u64, arrived: Arrived },
    /// The operator wants a new token now, resting or not.
    Forced,
    /// Something changed that may have cured the failures: a reload.
    Forgiven,
    /// A request waits for a token.
    Needed,
    /// A call with this generation was answered, and not by a refusal.
    Proved { generation: u64 },
    /// The operator wants this token forgotten.
    Purged,
    /// The provider refused this generation, and a request waits for a newer one.
    Refused {
        generation: u64,
        /// Another replica's fetch has killed it, so it cannot become good any more.
        replaced: bool,
    },
    /// The provider refused this generation on the very request that it was fetched for, or on a replay.
    RefusedAtBirth { generation: u64 },
    /// An answer to this generation smelled of a refusal without proving one.
    Suspected { generation: u64 },
    /// Time has passed: renewals and deadlines are checked.
    Tick {
        /// True if a request used the current generation.
        used: bool,
    },
    /// The provider refused this generation, and no request waits for a newer one.
    Withdrawn {
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
    pub origin: TokenOrigin,
}

/// The source of a token that a fetch brought.
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
