//! When to renew and how long to rest: the numbers of a token's life, and the arithmetic on them.

use std::time::Duration;

use crate::base::backoff::{Backoff, jittered};
use crate::token::failure::{Class, Failure};

/// The pauses after a token was refused the moment it was first used, by refusals in a row.
pub const BIRTH: Backoff = Backoff { first: Duration::from_secs(1), ceiling: Duration::from_secs(60) };

/// The pauses between renewals that only a suspicion asks for, by such renewals in a row.
pub const SUSPICION: Backoff = Backoff { first: Duration::from_secs(60), ceiling: Duration::from_secs(960) };

/// A token that is refused sooner than this after it was published earns no renewal in the background: the next
/// request asks for one, and finds out at once whether that is refused too.
pub const YOUNG: Duration = Duration::from_secs(1);

/// What one token's owner asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Policy {
    /// Renew this long before expiry, but never more than a fifth of the life.
    pub refresh_before: Duration,
    /// A fetch that gave no answer for this long is abandoned.
    pub fetch_timeout: Duration,
}

impl Policy {
    /// How long to wait with the renewal of a token that was given `life` and has `remaining` of it left.
    ///
    /// It ends a margin before expiry, and up to half a margin earlier by `dice`, so that tokens of one birthday are
    /// not renewed together. At least half of what remains is used, so that a provider which hands out nearly dead
    /// tokens is not asked without a pause.
    pub fn renew_in(&self, life: Duration, remaining: Duration, dice: u8) -> Duration {
        let margin = self.refresh_before.min(life / 5);
        let jitter = margin / 2 * u32::from(dice) / 255;
        remaining.saturating_sub(margin + jitter).max(remaining / 2)
    }
}

/// How long to look away from a token that is due for renewal but that nobody uses.
pub fn postponement(remaining: Duration) -> Duration {
    (remaining / 4).max(Duration::from_secs(1))
}

/// How long to rest after the `failures`-th failure of this class in a row, jitter included. Never shorter than the
/// provider's `Retry-After`; after rejected credentials never shorter than their own pause either, whatever the
/// provider says.
pub fn rest_after(failure: &Failure, failures: u32, dice: u8) -> Duration {
    let asked = failure.rest(failures);
    let rest = match failure.class {
        Class::Fatal => asked.max(failure.backoff.unwrap_or(failure.class.backoff()).pause(failures)),
        Class::Closed | Class::Consent | Class::RateLimited | Class::Transient => asked,
    };
    jittered(rest, dice)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn renewal_starts_a_margin_before_expiry_and_is_spread() {
        let policy = Policy { refresh_before: seconds(60), fetch_timeout: seconds(10) };
        assert_eq!(policy.renew_in(seconds(1800), seconds(1800), 0), seconds(1740));
        assert_eq!(policy.renew_in(seconds(1800), seconds(1800), 255), seconds(1710));
        assert_eq!(policy.renew_in(seconds(1800), seconds(1795), 0), seconds(1735), "counted from when it was sent");
        assert_eq!(policy.renew_in(seconds(100), seconds(100), 0), seconds(80), "a fifth of the life at most");
    }

    #[test]
    fn a_nearly_dead_token_is_half_used_before_it_is_renewed() {
        let policy = Policy { refresh_before: seconds(60), fetch_timeout: seconds(10) };
        assert_eq!(policy.renew_in(seconds(300), seconds(20), 0), seconds(10));
        assert_eq!(policy.renew_in(Duration::ZERO, Duration::ZERO, 255), Duration::ZERO);
    }

    #[test]
    fn retry_after_is_a_floor_and_rejected_credentials_keep_their_own() {
        let mut failure = Failure::new(Class::Transient, "down");
        failure.retry_after = Some(seconds(100));
        assert_eq!(rest_after(&failure, 1, 0), seconds(100));
        assert_eq!(rest_after(&failure, 1, 255), seconds(120));
        failure.class = Class::Fatal;
        failure.retry_after = Some(seconds(2));
        assert_eq!(rest_after(&failure, 1, 0), seconds(300));
        assert_eq!(rest_after(&failure, 9, 0), seconds(3600));
    }
}
