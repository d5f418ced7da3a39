//! The faults of a simulator, and their timing: settings that may change while it runs.
//!
//! [`Faults`] is one plain value, replaced as a whole; every request sees one of them from beginning to end. A fault on
//! the *way back* (a reset, a cut body, a slow one) leaves the bank's work done: a payment was booked although the
//! client is not notified. A fault for which [`ResponseFault::processed`] is false stands *instead* of the bank and
//! leaves it undone.

use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;

use crate::base::secret::SecretString;
use crate::sim::abbeycross::AbbeyCrossManner;
use crate::sim::call::SimEndpoint;
use crate::sim::meed::MeedManner;
use crate::sim::oauth2::OAuth2Manner;
use crate::sim::rakbank::RakbankManner;
use crate::sim::scb::ScbManner;

/// Everything about a simulator that can be changed while it runs. The default is a bank on a good day.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// The fault that requests to the token endpoint meet.
    pub token: SimFault,
    /// The fault that all other requests meet.
    pub resource: SimFault,
    /// The properties of newly issued tokens.
    pub issue: Issue,
    /// The settings that only AbbeyCross has.
    pub abbeycross: AbbeyCrossManner,
    /// The settings that only Meed has.
    pub meed: MeedManner,
    /// The textbook provider's own switches.
    pub oauth2: OAuth2Manner,
    /// The settings that only RAKBANK has.
    pub rakbank: RakbankManner,
    /// The settings that only SCB has.
    pub scb: ScbManner,
}

impl Faults {
    /// The fault of one half.
    pub const fn of(&self, endpoint: SimEndpoint) -> &SimFault {
        match endpoint {
            SimEndpoint::Resource => &self.resource,
            SimEndpoint::Token => &self.token,
        }
    }
}

/// The faults from one setting to the next, with the number of requests that met them. A request that holds it sees the
/// same faults from beginning to end.
pub(super) struct Spell {
    faults: Faults,
    arrivals: [AtomicU64; 2],
}

impl Spell {
    pub(super) fn new(faults: Faults) -> Self {
        Self { faults, arrivals: [AtomicU64::new(0), AtomicU64::new(0)] }
    }

    /// Counts a request in. Answers the fault of its half and whether it hits.
    pub(super) fn meet(&self, endpoint: SimEndpoint) -> (&SimFault, bool) {
        let fault = self.faults.of(endpoint);
        let arrivals = match endpoint {
            SimEndpoint::Resource => &self.arrivals[0],
            SimEndpoint::Token => &self.arrivals[1],
        };
        (fault, fault.hits(arrivals.fetch_add(1, Ordering::Relaxed)))
    }
}

impl Deref for Spell {
    type Target = Faults;

    fn deref(&self) -> &Faults {
        &self.faults
    }
}

/// The fault that requests to one half of a bank meet.
#[derive(Clone, Debug, Default)]
pub struct SimFault {
    /// Wait so long before the answer, after the work is done.
    pub delay: Option<Duration>,
    /// The fault of the response; `None`: the response is sent as it is.
    pub trouble: Option<ResponseFault>,
    /// The treatment of the connection after the response.
    pub close: Close,
    /// Compress answers (gzip, else deflate) for clients that accept it.
    pub compress: bool,
    /// Only the first so many requests after this was set are hit, delay and trouble alike.
    pub times: Option<u64>,
    /// Only every so-manieth of them is hit, from the first.
    pub every: Option<u64>,
}

impl SimFault {
    /// Creates a fault that hits every request with this trouble.
    pub fn new(trouble: ResponseFault) -> Self {
        Self { trouble: Some(trouble), ..Self::default() }
    }

    /// Creates a fault that hits only the first request with this trouble.
    pub fn once(trouble: ResponseFault) -> Self {
        Self { trouble: Some(trouble), times: Some(1), ..Self::default() }
    }

    /// Returns whether the request with number `arrival` (from 0) since this was set is hit.
    pub(super) fn hits(&self, arrival: u64) -> bool {
        let of_every = arrival.is_multiple_of(self.every.unwrap_or(1).max(1));
        of_every && self.times.is_none_or(|times| arrival / self.every.unwrap_or(1).max(1) < times)
    }
}

/// A fault of a response or of its delivery.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ResponseFault {
    /// Answer with this before the request's body was read.
    AnswerEarly(Verbatim),
    /// Announce the whole answer, send half of it, and close.
    CutBody,
    /// 200 with so many nested JSON arrays.
    DeepJson(usize),
    /// These bytes instead of HTTP, then close.
    Garbage(Bytes),
    /// An HTML page with this status, as gateways in front of banks send it.
    HtmlError(u16),
    /// 200 with so many bytes of what claims to be JSON.
    HugeBody(u64),
    /// Send the head, then reset the connection (RST).
    ResetAfterHead,
    /// Do the work, then reset the connection (RST) without a word.
    ResetBeforeAnswer,
    /// Send the body in pieces of `chunk` bytes with a `pause` before each.
    SlowBody {
        /// Size of one piece, in bytes.
        chunk: usize,
        /// Time to wait before each piece.
        pause: Duration,
    },
    /// This answer, to the letter.
    Verbatim(Verbatim),
}

/// An answer given to the letter.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Verbatim {
    /// The status code; one that HTTP does not have becomes 500.
    pub status: u16,
    /// Header fields; those that HTTP cannot carry are left out.
    pub headers: Vec<(String, String)>,
    /// The content of the response; may be empty.
    pub body: Bytes,
}

impl Verbatim {
    /// A status with a JSON body.
    pub fn json(status: u16, body: impl Into<Bytes>) -> Self {
        Self { status, headers: vec![("content-type".to_owned(), "application/json".to_owned())], body: body.into() }
    }

    /// A status with header fields and no body.
    pub fn bare(status: u16, headers: &[(&str, &str)]) -> Self {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Self { status, headers, body: Bytes::new() }
    }
}

impl ResponseFault {
    /// Returns whether the bank does its work all the same. It does not if the response is sent early, nor if a
    /// [`ResponseFault::Verbatim`] 4xx stands in its place, which reports as much.
    pub fn processed(&self) -> bool {
        match self {
            ResponseFault::AnswerEarly(_) => false,
            ResponseFault::Verbatim(verbatim) => !(400..500).contains(&verbatim.status),
            ResponseFault::CutBody
            | ResponseFault::DeepJson(_)
            | ResponseFault::Garbage(_)
            | ResponseFault::HtmlError(_)
            | ResponseFault::HugeBody(_)
            | ResponseFault::ResetAfterHead
            | ResponseFault::ResetBeforeAnswer
            | ResponseFault::SlowBody { .. } => true,
        }
    }
}

/// The treatment of a connection after a response.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Close {
    /// `Connection: close`, then close. Over h2: GOAWAY.
    Announced,
    /// The connection stays open for further requests.
    #[default]
    Never,
    /// Closed without a word in the answer: a pooled connection goes stale.
    Silent,
}

/// The properties of newly issued tokens.
#[derive(Clone, Debug, Default)]
pub struct Issue {
    /// Their lifetime; `None`: the bank's usual one.
    pub life: Option<Duration>,
    /// The lifetime that the token response states.
    pub expires_in: Expiry,
    /// The end of the lifetime that SCB's `expiresAt` states.
    pub expires_at: Expiry,
    /// A new token revokes the older ones (of the same scope, metadata and user).
    pub single: bool,
    /// The token's text, instead of a fresh one.
    pub token: Option<SecretString>,
}

/// The statement of a response about a token's lifetime.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Expiry {
    /// The response has no such field.
    Absent,
    /// This JSON text, right or wrong: `-1`, `"3600"`, `3599.5`, `null`, `1e400`.
    Raw(String),
    /// The truth, as a number of seconds.
    #[default]
    Truth,
}

impl Expiry {
    /// The JSON text to send, if any.
    pub(super) fn text(&self, truth: u64) -> Option<String> {
        match self {
            Expiry::Absent => None,
            Expiry::Raw(text) => Some(text.clone()),
            Expiry::Truth => Some(truth.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_hits_as_often_as_it_says() {
        let hits = |fault: SimFault| (0..6).filter(|arrival| fault.hits(*arrival)).collect::<Vec<u64>>();
        assert_eq!(hits(SimFault::default()), [0, 1, 2, 3, 4, 5]);
        assert_eq!(hits(SimFault { times: Some(2), ..SimFault::default() }), [0, 1]);
        assert_eq!(hits(SimFault { every: Some(3), ..SimFault::default() }), [0, 3]);
        assert_eq!(hits(SimFault { every: Some(2), times: Some(2), ..SimFault::default() }), [0, 2]);
        assert_eq!(hits(SimFault { every: Some(0), ..SimFault::default() }).len(), 6, "zero is taken for one");
    }
}
