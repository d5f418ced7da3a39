//! What an operator may know about the tokens: ages, numbers and reasons, never a secret. And who is told of fetches.

use std::sync::Arc;
use std::time::Duration;

use super::EventKind;
use crate::base::secret::Fingerprint;
use crate::token::failure::Class;
use crate::token::key::TokenKey;
use crate::token::state::PhaseKind;

/// All keys that the keeper knows, by provider and key, at one moment. Moments are wall-clock milliseconds since 1970.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TokenTable {
    /// One line per key.
    pub lines: Vec<LedgerLine>,
}

impl TokenTable {
    /// The line of a key.
    pub fn line(&self, key: &TokenKey) -> Option<&LedgerLine> {
        self.lines.iter().find(|line| line.key == *key)
    }

    /// The key whose `Display` form this is.
    pub fn key(&self, text: &str) -> Option<TokenKey> {
        self.lines.iter().map(|line| line.key).find(|key| key.to_string() == text)
    }
}

/// One key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LedgerLine {
    /// The key.
    pub key: TokenKey,
    /// Whose it is.
    pub provider: Arc<str>,
    /// What it waits for.
    pub phase: PhaseKind,
    /// The token that is being served.
    pub token: Option<LedgerToken>,
    /// Why it rests, and for how long.
    pub rest: Option<LedgerRest>,
    /// The last failure, cured or not.
    pub last_failure: Option<LedgerFailure>,
    /// Failures in a row; closing hours do not count.
    pub failures: u32,
    /// Requests that wait for it.
    pub waiters: usize,
    /// How its fetches ended.
    pub fetches: FetchCounts,
}

/// A valid token.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LedgerToken {
    /// Its generation.
    pub generation: u64,
    /// Enough to recognise it in a log.
    pub fingerprint: Fingerprint,
    /// When its fetch was sent.
    pub issued: u64,
    /// When it dies.
    pub expires: u64,
    /// When it is due for renewal, where that is neither under way nor resting.
    pub renews: Option<u64>,
}

/// A rest.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LedgerRest {
    /// After what kind of failure.
    pub class: Class,
    /// When it ends.
    pub until: u64,
}

/// A failure.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LedgerFailure {
    /// What kind.
    pub class: Class,
    /// What happened. For the operator, not for callers.
    pub inside: Arc<str>,
    /// When.
    pub at: u64,
}

/// Fetches by outcome.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct FetchCounts {
    /// Brought a token.
    pub ok: u64,
    /// Failed with [`Class::Closed`].
    pub closed: u64,
    /// Failed with [`Class::Consent`].
    pub consent: u64,
    /// Failed with [`Class::Fatal`].
    pub fatal: u64,
    /// Failed with [`Class::RateLimited`].
    pub rate_limited: u64,
    /// Failed with [`Class::Transient`].
    pub transient: u64,
}

impl FetchCounts {
    /// Counts one more.
    pub fn count(&mut self, outcome: Result<(), Class>) {
        let counter = match outcome {
            Ok(()) => &mut self.ok,
            Err(Class::Closed) => &mut self.closed,
            Err(Class::Consent) => &mut self.consent,
            Err(Class::Fatal) => &mut self.fatal,
            Err(Class::RateLimited) => &mut self.rate_limited,
            Err(Class::Transient) => &mut self.transient,
        };
        *counter += 1;
    }

    /// All of them.
    pub const fn total(&self) -> u64 {
        self.ok + self.closed + self.consent + self.fatal + self.rate_limited + self.transient
    }
}

/// Is told how every fetch ended, on the control thread: for metrics. And what happened, for who watches. Must not block.
pub trait Observer: Send {
    /// Something happened to a token.
    fn told(&self, _what: EventKind) {}

    /// A fetch for this provider ended after `took`, with a token or with a failure of this class.
    fn fetched(&self, provider: &str, outcome: Result<(), Class>, took: Duration);
}

/// Nobody looks.
impl Observer for () {
    fn fetched(&self, _provider: &str, _outcome: Result<(), Class>, _took: Duration) {}
}
