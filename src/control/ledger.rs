//! The operator's view of the tokens: ages, numbers and reasons, never a secret. Also the observer of fetches.

use std::sync::Arc;
use std::time::Duration;

use super::EventKind;
use crate::base::secret::Fingerprint;
use crate::base::vars::Vars;
use crate::token::consent::UserKey;
use crate::token::failure::{Class, FailureCause};
use crate::token::key::TokenKey;
use crate::token::state::PhaseKind;

/// All keys that the keeper knows, by provider and key, at one moment. Moments are wall-clock milliseconds since 1970.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TokenTable {
    /// One line per key, ordered by provider and key.
    pub lines: Vec<LedgerLine>,
}

impl TokenTable {
    /// The line of a key.
    pub fn line(&self, key: &TokenKey) -> Option<&LedgerLine> {
        self.lines.iter().find(|line| line.key == *key)
    }
}

/// The state of one key at one moment.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LedgerLine {
    /// Key under which the keeper holds the token.
    pub key: TokenKey,
    /// Name of the provider that the token belongs to.
    pub provider: Arc<str>,
    /// True if it is one of a former secret, which the config in force no longer has.
    pub superseded: bool,
    /// Phase of the key's state machine, such as fetching or resting.
    pub phase: PhaseKind,
    /// The token that is being served.
    pub token: Option<LedgerToken>,
    /// The reason for the current rest and its end; absent: the key does not rest.
    pub rest: Option<LedgerRest>,
    /// The last failure, cured or not.
    pub last_failure: Option<LedgerFailure>,
    /// Failures in a row; closing hours do not count.
    pub failures: u32,
    /// When its fetches began to fail, in milliseconds since 1970; absent: the last one brought a token.
    pub failing_since: Option<u64>,
    /// Requests that wait for it.
    pub waiters: usize,
    /// Counts of the key's fetches by outcome.
    pub fetches: FetchCounts,
}

impl LedgerLine {
    /// Returns the state of the key as an operator is [told](PhaseKind::told) it.
    pub fn state(&self) -> PhaseKind {
        self.phase.told(self.failing_since.is_some())
    }
}

/// The tokens of one provider, summed up.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ProviderTokens {
    /// Number of keys.
    pub keys: usize,
    /// Number of tokens that are being served.
    pub live: usize,
    /// When the first of those expires, in milliseconds since 1970.
    pub first_expiry: Option<u64>,
    /// When the last rest ends that is not for closing hours.
    pub rests_until: Option<u64>,
    /// When the last rest ends that is for closing hours.
    pub closed_until: Option<u64>,
    /// The latest failure, cured or not.
    pub last_failure: Option<LedgerFailure>,
    /// When the first of those keys began to fail that fail now.
    pub failing_since: Option<u64>,
    /// Fetches of all keys by outcome.
    pub fetches: FetchCounts,
    /// The states of its keys, a bit each.
    states: u8,
}

impl ProviderTokens {
    /// Adds one key. Of a superseded one only the fetches count.
    pub fn add(&mut self, line: LedgerLine) {
        self.fetches.add(&line.fetches);
        if line.superseded {
            return;
        }
        let first = |known: Option<u64>, at: Option<u64>| known.into_iter().chain(at).min();
        self.states |= 1 << line.state() as u8;
        self.keys += 1;
        self.live += usize::from(line.token.is_some());
        self.first_expiry = first(self.first_expiry, line.token.map(|token| token.expires));
        self.failing_since = first(self.failing_since, line.failing_since);
        if let Some(rest) = line.rest {
            let is_closed = rest.class == Class::Closed;
            let known = if is_closed { &mut self.closed_until } else { &mut self.rests_until };
            *known = (*known).max(Some(rest.until));
        }
        if line.last_failure.as_ref().map(|failure| failure.at) >= self.last_failure.as_ref().map(|failure| failure.at)
        {
            self.last_failure = line.last_failure;
        }
    }

    /// Returns whether a key is in one of these states.
    pub fn has_any(&self, states: &[PhaseKind]) -> bool {
        states.iter().any(|state| self.states & 1 << *state as u8 != 0)
    }
}

/// The user and the values that a token is for. Both are empty for a token that a whole route shares. Not a part of a
/// [`LedgerLine`], so that a table of many keys copies none of them.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TokenSubject {
    /// The user whose consent it comes from; absent: it is an application's.
    pub user: Option<UserKey>,
    /// Route variables with their values, such as an account.
    pub vars: Vars,
}

/// A valid token, without its secret value.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LedgerToken {
    /// Generation under which the token is published.
    pub generation: u64,
    /// Enough to recognise it in a log.
    pub fingerprint: Fingerprint,
    /// When its fetch was sent.
    pub issued: u64,
    /// Expiry, in milliseconds since 1970.
    pub expires: u64,
    /// When it is due for renewal, where that is neither under way nor resting.
    pub renews: Option<u64>,
}

/// The rest of a key after a failure.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LedgerRest {
    /// After what kind of failure.
    pub class: Class,
    /// End of the rest, in milliseconds since 1970.
    pub until: u64,
}

/// The last failure of a key, cured or not.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LedgerFailure {
    /// Class of the failure, as in logs and metrics.
    pub class: Class,
    /// The part of the request that was at fault; `None`: that is not known.
    pub cause: Option<FailureCause>,
    /// Description of the failure. For the operator, not for callers.
    pub inside: Arc<str>,
    /// Time of the failure, in milliseconds since 1970.
    pub at: u64,
}

/// Numbers of fetches by outcome: a token, or a class of failure.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct FetchCounts {
    /// Number of fetches that brought a token.
    pub ok: u64,
    /// Number of fetches that failed with [`Class::Closed`].
    pub closed: u64,
    /// Number of fetches that failed with [`Class::Consent`].
    pub consent: u64,
    /// Number of fetches that failed with [`Class::Fatal`].
    pub fatal: u64,
    /// Number of fetches that failed with [`Class::RateLimited`].
    pub rate_limited: u64,
    /// Number of fetches that failed with [`Class::Transient`].
    pub transient: u64,
}

impl FetchCounts {
    /// Counts one more fetch with this outcome.
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

    /// Adds the fetches of another key.
    pub const fn add(&mut self, other: &Self) {
        self.ok += other.ok;
        self.closed += other.closed;
        self.consent += other.consent;
        self.fatal += other.fatal;
        self.rate_limited += other.rate_limited;
        self.transient += other.transient;
    }

    /// Returns the number of all fetches, failed ones included.
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

/// An observer that ignores all reports.
impl Observer for () {
    fn fetched(&self, _provider: &str, _outcome: Result<(), Class>, _took: Duration) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::key::KeyBuilder;

    #[test]
    fn a_key_whose_fetches_fail_is_never_told_as_one_that_nobody_asked_for() {
        let line = |phase, failing_since| LedgerLine {
            key: KeyBuilder::new("bank").finish(),
            provider: "bank".into(),
            superseded: false,
            phase,
            token: None,
            rest: None,
            last_failure: None,
            failures: 0,
            failing_since,
            waiters: 0,
            fetches: FetchCounts::default(),
        };
        assert_eq!(line(PhaseKind::Empty, None).state(), PhaseKind::Empty);
        assert_eq!(line(PhaseKind::Empty, Some(1)).state(), PhaseKind::Resting);
        assert_eq!(line(PhaseKind::Fetching, Some(1)).state(), PhaseKind::Fetching);
    }
}
