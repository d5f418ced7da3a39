//! When to renew and how long to rest: the numbers of a token's life, and the arithmetic on them.

use std::time::Duration;

use crate::base::backoff::{Backoff, jittered};
use crate::token::failure::Failure;

/// The pauses after a token was refused the moment it was first used, by refusals in a row.
pub const BIRTH: Backoff = Backoff { first: Duration::from_secs(1), ceiling: Duration::from_secs(60) };

/// A token that is younger than this and was never accepted may be refused because the API does not know it yet: its
/// clock is behind the issuer's, or tokens take a moment to reach every server. It is tried again once it is as old.
pub const SETTLE: Duration = Duration::from_secs(3);

/// A token that was refused in its first moments is not tried again sooner than this.
pub const SETTLE_PAUSE: Duration = Duration::from_secs(1);

/// A token that comes back with no more than this added to its end has come back unchanged: lives are told in whole
/// seconds, and calls take a moment.
pub const UNCHANGED: Duration = Duration::from_secs(2);

/// The pauses between renewals that only a suspicion asks for, by such renewals in a row.
pub const SUSPICION: Backoff = Backoff { first: Duration::from_secs(60), ceiling: Duration::from_secs(960) };

/// A token that is refused sooner than this after it was published earns no renewal in the background: the next
/// request asks for one, and finds out at once whether that is refused too.
pub const YOUNG: Duration = Duration::from_secs(1);

/// The renewal settings of one token.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Policy {
    /// Renew this long before expiry, but never more than a fifth of the life.
    pub refresh_before: Duration,
    /// A fetch that gave no answer for this long is abandoned.
    pub fetch_timeout: Duration,
    /// True if the old token stays valid when a new one is issued. The old token is then kept until the provider has
    /// accepted the new one.
    pub overlap: bool,
}

impl Policy {
    /// Returns the time for which a token is set aside that was refused `now`, in its first moments, of which `young`
    /// are left. `refusals`: number of such tokens in a row, this one included.
    pub fn settle_in(&self, young: Duration, refusals: u32, jitter: u8) -> Duration {
        let first = young.max(SETTLE_PAUSE).min(self.fetch_timeout);
        first.max(jittered(BIRTH.pause(refusals), jitter))
    }

    /// Returns the time until the renewal of a token that was given `life` and has `remaining` of it left.
    ///
    /// It ends a margin before expiry, and up to half a margin earlier by `dice`, so that tokens issued at the same
    /// time are not renewed together. At least half of the remaining life is used, so that a provider that issues
    /// nearly expired tokens is not called without a pause.
    pub fn renew_in(&self, life: Duration, remaining: Duration, jitter: u8) -> Duration {
        let margin = self.refresh_before.min(life / 5);
        let extra = margin / 2 * u32::from(jitter) / 255;
        remaining.saturating_sub(margin + extra).max(remaining / 2)
    }
}

/// Returns the time until the next check of a token that is due for renewal but is not used.
pub fn postponement(remaining: Duration) -> Duration {
    (remaining / 4).max(Duration::from_secs(1))
}

/// Returns the rest after the `failures`-th failure of this class in a row, jitter included. Never shorter than the
/// provider's `Retry-After`, and never shorter than without it. A time that is known exactly has no jitter: what waits for
/// it is one fetch for each key.
pub fn rest_after(failure: &Failure, failures: u32, jitter: u8) -> Duration {
    let rest = failure.rest(failures);
    if failure.exact.is_some() { rest } else { jittered(rest, jitter) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::backoff::Backoff;
    use crate::token::failure::{Class, ExactRest};

    const fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn renewal_starts_a_margin_before_expiry_and_is_spread() {
        let policy = Policy { refresh_before: seconds(60), fetch_timeout: seconds(10), overlap: true };
        assert_eq!(policy.renew_in(seconds(1800), seconds(1800), 0), seconds(1740));
        assert_eq!(policy.renew_in(seconds(1800), seconds(1800), 255), seconds(1710));
        assert_eq!(policy.renew_in(seconds(1800), seconds(1795), 0), seconds(1735), "counted from when it was sent");
        assert_eq!(policy.renew_in(seconds(100), seconds(100), 0), seconds(80), "a fifth of the life at most");
    }

    #[test]
    fn a_nearly_dead_token_is_half_used_before_it_is_renewed() {
        let policy = Policy { refresh_before: seconds(60), fetch_timeout: seconds(10), overlap: true };
        assert_eq!(policy.renew_in(seconds(300), seconds(20), 0), seconds(10));
        assert_eq!(policy.renew_in(Duration::ZERO, Duration::ZERO, 255), Duration::ZERO);
    }

    /// Asked for below, at and above the own pause: in each class, and for each failure in a row.
    #[test]
    fn retry_after_is_a_floor_and_never_a_ceiling() {
        for class in [Class::Closed, Class::Consent, Class::Fatal, Class::RateLimited, Class::Transient] {
            let quiet = Failure::new(class, "down");
            for failures in [1, 2, 3, 9, u32::MAX] {
                let own = rest_after(&quiet, failures, 0);
                for asked in [seconds(0), own / 2, own, own + seconds(7), seconds(3600)] {
                    let told = Failure { retry_after: Some(asked), ..quiet.clone() };
                    assert_eq!(rest_after(&told, failures, 0), own.max(asked), "{class:?}, {failures}, {asked:?}");
                    assert!(rest_after(&told, failures, 255) >= own.max(asked), "jitter only lengthens");
                }
            }
        }
        let backoff = Some(Backoff { first: seconds(5), ceiling: seconds(20) });
        let failure =
            Failure { backoff, retry_after: Some(seconds(1)), ..Failure::new(Class::RateLimited, "slow down") };
        let pauses: Vec<u64> = (1..5).map(|n| rest_after(&failure, n, 0).as_secs()).collect();
        assert_eq!(pauses, [5, 10, 20, 20], "the profile's own pause doubles on, whatever the provider says");
    }

    #[test]
    fn a_rest_that_is_known_exactly_is_kept_to() {
        for class in [Class::Closed, Class::RateLimited] {
            let known = Failure { exact: Some(ExactRest::of(seconds(7))), ..Failure::new(class, "closed") };
            assert_eq!([rest_after(&known, 1, 255), rest_after(&known, 9, 0)], [seconds(7); 2], "{class:?}");
            let told = Failure { retry_after: Some(seconds(60)), ..known };
            assert_eq!(rest_after(&told, 1, 255), seconds(60), "the provider's own time is a floor");
        }
    }

    #[test]
    fn a_token_refused_at_birth_is_set_aside_until_it_is_old_enough() {
        let policy = Policy { refresh_before: seconds(60), fetch_timeout: seconds(10), overlap: true };
        assert_eq!(policy.settle_in(seconds(3), 1, 0), seconds(3));
        assert_eq!(policy.settle_in(Duration::ZERO, 1, 0), seconds(1), "never at once");
        assert_eq!(policy.settle_in(seconds(3), 3, 0), seconds(4), "longer, the more such tokens in a row");
        assert_eq!(policy.settle_in(seconds(3), 99, 0), seconds(60));
        let hasty = Policy { fetch_timeout: seconds(2), ..policy };
        assert_eq!(hasty.settle_in(seconds(3), 1, 0), seconds(2), "nobody waits longer than for a fetch");
    }
}
