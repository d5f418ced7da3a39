//! Pauses that grow and never fall into step.

use std::time::Duration;

/// A pause that doubles with every failure up to a ceiling.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Backoff {
    /// Pause after the first failure, without jitter.
    pub first: Duration,
    /// Upper limit of the pause, without jitter.
    pub ceiling: Duration,
}

impl Backoff {
    /// The pause after `failures` failures in a row (1 is the first), without jitter.
    pub fn pause(self, failures: u32) -> Duration {
        let doubled =
            self.first.saturating_mul(1_u32.checked_shl(failures.saturating_sub(1).min(31)).unwrap_or(u32::MAX));
        doubled.min(self.ceiling)
    }
}

/// `base` lengthened by up to a fifth: `dice` (0 to 255, drawn by the caller) says how much.
///
/// It never shortens, so that a provider's `Retry-After` stays a floor.
pub fn jittered(base: Duration, dice: u8) -> Duration {
    base + base / 5 * u32::from(dice) / 255
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_to_the_ceiling() {
        let backoff = Backoff { first: Duration::from_secs(1), ceiling: Duration::from_secs(30) };
        let pauses: Vec<u64> = (1..8).map(|n| backoff.pause(n).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(backoff.pause(u32::MAX), Duration::from_secs(30));
    }

    #[test]
    fn jitter_only_lengthens_and_by_a_fifth_at_most() {
        let base = Duration::from_secs(10);
        assert_eq!(jittered(base, 0), base);
        assert_eq!(jittered(base, 255), Duration::from_secs(12));
    }
}
