//! The rate limit of a route: the number of requests in a period, counted by this instance for all its workers.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{self, Reference as _};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

use crate::base::time::Clock;

/// A limit of requests. Up to `requests` pass at once; then one each `per / requests`.
pub struct Rate {
    limiter: RateLimiter<NotKeyed, InMemoryState, Boot, NoOpMiddleware<Nanos>>,
    clock: Boot,
    /// Maximum time for which a request may be held until its turn.
    pub wait: Duration,
}

impl Rate {
    /// So many requests per time. `None` if either is zero.
    pub fn new(requests: u32, per: Duration, wait: Duration, clock: Clock) -> Option<Self> {
        let burst = NonZeroU32::new(requests)?;
        let quota = Quota::with_period(per.checked_div(requests)?)?.allow_burst(burst);
        let clock = Boot(clock);
        Some(Self { limiter: RateLimiter::direct_with_clock(quota, clock.clone()), clock, wait })
    }

    /// Takes a turn, or says how long it is until one is free.
    pub fn take(&self) -> Result<(), Duration> {
        self.limiter.check().map_err(|not_yet| {
            let left = not_yet.earliest_possible().duration_since(clock::Clock::now(&self.clock));
            Duration::from(left)
        })
    }
}

impl fmt::Debug for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rate").field("wait", &self.wait).finish_non_exhaustive()
    }
}

/// The boot clock, as the limiter wants it.
#[derive(Clone, Debug)]
struct Boot(Clock);

impl clock::Clock for Boot {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        Nanos::from(Duration::from_millis(self.0.now().boot))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::{ManualClock, Now};

    #[test]
    fn a_burst_passes_and_then_one_in_each_share_of_the_time() {
        let manual = ManualClock::at(Now::at(1_000_000, 0));
        let rate = Rate::new(5, Duration::from_secs(1), Duration::ZERO, Clock::Manual(manual.clone())).expect("a rate");
        for _ in 0..5 {
            assert_eq!(rate.take(), Ok(()));
        }
        assert_eq!(rate.take(), Err(Duration::from_millis(200)));
        manual.advance(Duration::from_millis(150));
        assert_eq!(rate.take(), Err(Duration::from_millis(50)));
        manual.advance(Duration::from_millis(50));
        assert_eq!(rate.take(), Ok(()));
        assert_eq!(rate.take(), Err(Duration::from_millis(200)));
        manual.advance(Duration::from_secs(60));
        assert_eq!((0..9).filter(|_| rate.take().is_ok()).count(), 5, "nothing is saved up");
    }

    #[test]
    fn nothing_in_a_time_is_no_rate() {
        let make = |requests, per| Rate::new(requests, per, Duration::ZERO, Clock::System);
        assert!(make(0, Duration::from_secs(1)).is_none());
        assert!(make(5, Duration::ZERO).is_none());
    }
}
