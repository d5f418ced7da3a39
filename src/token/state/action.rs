//! Actions that a token's state machine requests.

use std::sync::Arc;
use std::time::Duration;

use crate::base::time::{Deadline, Now};
use crate::token::failure::{Class, FailureCause};

/// An action to carry out now. The actions of one step are carried out in their order.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Action {
    /// Stop this fetch; what it brings is worth nothing any more.
    Abandon {
        /// Number of the fetch, as in [`Action::Fetch`].
        flight: u64,
    },
    /// Tell all who wait that there is no token.
    Deny(Denial),
    /// Start a fetch, and report it by [`Event::Fetched`](super::Event::Fetched) or [`Event::Failed`](super::Event::Failed).
    Fetch {
        /// Number by which the result is reported.
        flight: u64,
    },
    /// This generation was refused for good: its token must not be found in a store again.
    Invalidate { generation: u64 },
    /// Put the token that was just fetched on the shelf, in place of its predecessor.
    Publish {
        /// Number of the new generation, higher than all before.
        generation: u64,
        /// When its request was sent.
        issued: Now,
        /// Moment from which the token must no longer be sent.
        expires: Deadline,
        /// Before this moment a refusal need not be final; none: any refusal is.
        young_until: Option<Deadline>,
    },
    /// Log it and count it.
    Report(FailureReport),
    /// Put a token on the shelf that was there before, as a new generation: a refused generation never comes back.
    Republish {
        /// Number of the new generation, higher than all before.
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
        generation: u64,
        /// Time until the token is tried again.
        pause: Duration,
    },
    /// Take the token off the shelf.
    Withdraw { generation: u64 },
}

/// The reason for which there is no token, and the time for which retrying does not help.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Denial {
    pub class: Class,
    /// Cause of the failure, for logs.
    pub inside: Arc<str>,
    /// Time that is left of the rest.
    pub retry_after: Duration,
    /// True if the rest is voluntary: the provider neither set its length nor refused further calls.
    pub ours: bool,
}

/// Something that the operator should know.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FailureReport {
    pub class: Class,
    /// The part of the request that was at fault; `None`: that is not known.
    pub cause: Option<FailureCause>,
    /// The fetch that it ended; none when a fresh token was refused.
    pub flight: Option<u64>,
    /// Cause of the failure, for logs and the operator.
    pub inside: Arc<str>,
    /// Time for which the key rests now; zero if a fetch in progress continues.
    pub rest: Duration,
}
