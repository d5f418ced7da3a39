//! What can happen to a token.

use std::time::Duration;

use crate::base::time::Now;
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
        /// When its request was sent: life counts from here.
        sent: Now,
        /// How long the token lives.
        life: Duration,
    },
    /// The operator wants a new token now, resting or not.
    Forced,
    /// Something changed that may have cured the failures: a reload.
    Forgiven,
    /// A request waits for a token.
    Needed,
    /// The operator wants this token forgotten.
    Purged,
    /// The provider refused this generation, and a request waits for a newer one.
    Refused {
        /// Which.
        generation: u64,
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
    },
}
