//! The decision whether a key service is asked, as a pure machine.
//!
//! ```text
//!            3 failures in a row, or its process ended          a trial failed
//!   Closed ─────────────────────────────────────────▶ Open ◀───────────────────┐
//!     ▲                                                │ its rest is over       │
//!     │                    a trial worked              ▼                        │
//!     └───────────────────────────────────────────── Trying ────────────────────┘
//!                                                      │ the trial was refused for good
//!                                                      ▼
//!                                                    Halted
//! ```
//!
//! A trial asks nothing for a request, so no payment waits for one.

use std::time::Duration;

use crate::base::backoff::Backoff;
use crate::base::time::Now;

/// Failures in a row that open it.
const MOST_FAILURES: u32 = 3;
/// The rests between trials. With a trial's own second, a service that is back is in use within four seconds.
const REST: Backoff = Backoff { first: Duration::from_millis(100), ceiling: Duration::from_secs(2) };

/// The state of a breaker.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Breaker {
    /// The service is asked.
    Closed {
        /// Failures since its last answer.
        failures: u32,
    },
    /// It is not tried any more: it has refused what it was opened with, and each more trial might lock a token.
    Halted {
        /// When it opened.
        since: Now,
    },
    /// The service is not asked.
    Open {
        since: Now,
        /// Trials that have failed.
        trials: u32,
        /// When the next trial is due.
        due: Now,
    },
    /// A trial is under way.
    Trying { since: Now, trials: u32 },
}

/// The events of a key service.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BreakerEvent {
    /// It answered, be it with a refusal of one request.
    Answered,
    /// Its process or connection is gone for certain.
    Ended,
    /// It did not answer as it should, or not in time.
    Failed,
    /// A trial begins.
    TrialBegan,
    /// A trial failed.
    TrialFailed,
    /// A trial was refused for a reason that no further trial changes, as a wrong PIN.
    TrialRefused,
    /// A trial worked.
    TrialWorked,
}

impl Breaker {
    /// A service that has not failed yet.
    pub const fn closed() -> Self {
        Breaker::Closed { failures: 0 }
    }

    /// Returns whether signatures may be asked for.
    pub const fn admits(self) -> bool {
        matches!(self, Breaker::Closed { .. })
    }

    /// Returns how long it takes until a trial is due; `None` if none is.
    pub fn trial_in(self, now: Now) -> Option<Duration> {
        match self {
            Breaker::Open { due, .. } => Some(due.since(now)),
            Breaker::Closed { .. } | Breaker::Halted { .. } | Breaker::Trying { .. } => None,
        }
    }

    /// Returns when it opened; `None` while it is closed.
    pub const fn open_since(self) -> Option<Now> {
        match self {
            Breaker::Closed { .. } => None,
            Breaker::Halted { since } | Breaker::Open { since, .. } | Breaker::Trying { since, .. } => Some(since),
        }
    }

    /// The state after an event. What is told late of a service that is not asked any more changes nothing: a trial
    /// decides.
    #[must_use]
    pub fn step(self, event: BreakerEvent, now: Now) -> Self {
        match (self, event) {
            (Breaker::Closed { .. }, BreakerEvent::Answered) => Breaker::closed(),
            (Breaker::Closed { failures }, BreakerEvent::Failed) if failures + 1 < MOST_FAILURES => {
                Breaker::Closed { failures: failures + 1 }
            }
            (Breaker::Closed { .. }, BreakerEvent::Ended | BreakerEvent::Failed) => opened(now, 0, now),
            (Breaker::Open { since, trials, .. }, BreakerEvent::TrialBegan) => Breaker::Trying { since, trials },
            (Breaker::Trying { since, trials }, BreakerEvent::TrialFailed) => {
                opened(since, trials.saturating_add(1), now)
            }
            (Breaker::Trying { since, .. }, BreakerEvent::TrialRefused) => Breaker::Halted { since },
            (Breaker::Trying { .. }, BreakerEvent::TrialWorked) => Breaker::closed(),
            (
                Breaker::Closed { .. },
                BreakerEvent::TrialBegan
                | BreakerEvent::TrialFailed
                | BreakerEvent::TrialRefused
                | BreakerEvent::TrialWorked,
            )
            | (
                Breaker::Halted { .. },
                BreakerEvent::Answered
                | BreakerEvent::Ended
                | BreakerEvent::Failed
                | BreakerEvent::TrialBegan
                | BreakerEvent::TrialFailed
                | BreakerEvent::TrialRefused
                | BreakerEvent::TrialWorked,
            )
            | (
                Breaker::Open { .. },
                BreakerEvent::Answered
                | BreakerEvent::Ended
                | BreakerEvent::Failed
                | BreakerEvent::TrialFailed
                | BreakerEvent::TrialRefused
                | BreakerEvent::TrialWorked,
            )
            | (
                Breaker::Trying { .. },
                BreakerEvent::Answered | BreakerEvent::Ended | BreakerEvent::Failed | BreakerEvent::TrialBegan,
            ) => self,
        }
    }
}

/// An open breaker after so many failed trials.
fn opened(since: Now, trials: u32, now: Now) -> Breaker {
    Breaker::Open { since, trials, due: now.plus(REST.pause(trials.saturating_add(1))) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(millis: u64) -> Now {
        Now::at(millis, 1_700_000_000_000 + millis)
    }

    fn after(events: &[BreakerEvent]) -> Breaker {
        events.iter().fold(Breaker::closed(), |breaker, event| breaker.step(*event, at(0)))
    }

    #[test]
    fn three_failures_in_a_row_open_it_and_an_answer_between_them_does_not_count() {
        use BreakerEvent::{Answered, Failed};
        assert!(after(&[Failed, Failed]).admits());
        assert!(after(&[Failed, Failed, Answered, Failed, Failed]).admits());
        assert!(!after(&[Failed, Failed, Failed]).admits());
    }

    #[test]
    fn a_service_that_has_ended_is_not_asked_again_before_a_trial() {
        let open = after(&[BreakerEvent::Ended]);
        assert!(!open.admits());
        assert_eq!(open.open_since(), Some(at(0)));
        assert_eq!(open.step(BreakerEvent::Answered, at(1)), open, "a late answer");
        let tried = open.step(BreakerEvent::TrialBegan, at(100)).step(BreakerEvent::TrialWorked, at(150));
        assert_eq!(tried, Breaker::closed());
    }

    #[test]
    fn trials_come_soon_and_never_more_than_two_seconds_apart() {
        let mut breaker = after(&[BreakerEvent::Ended]);
        let mut rests = Vec::new();
        let mut now = at(0);
        for _ in 0..8 {
            let rest = breaker.trial_in(now).expect("a trial is due");
            rests.push(rest.as_millis());
            now = now.plus(rest);
            breaker = breaker.step(BreakerEvent::TrialBegan, now);
            assert_eq!(breaker.trial_in(now), None, "one trial at a time");
            breaker = breaker.step(BreakerEvent::TrialFailed, now);
        }
        assert_eq!(rests, [100, 200, 400, 800, 1600, 2000, 2000, 2000]);
        assert_eq!(breaker.open_since(), Some(at(0)));
    }

    #[test]
    fn a_wrong_pin_is_not_tried_again() {
        let halted = after(&[BreakerEvent::Ended, BreakerEvent::TrialBegan, BreakerEvent::TrialRefused]);
        assert_eq!((halted.admits(), halted.trial_in(at(u64::MAX / 2))), (false, None));
    }

    const EVENTS: [BreakerEvent; 7] = [
        BreakerEvent::Answered,
        BreakerEvent::Ended,
        BreakerEvent::Failed,
        BreakerEvent::TrialBegan,
        BreakerEvent::TrialFailed,
        BreakerEvent::TrialRefused,
        BreakerEvent::TrialWorked,
    ];

    proptest! {
        /// Once open, it closes by a trial that worked alone; while open, a trial is due within two seconds.
        #[test]
        fn only_a_trial_closes_it(drawn in proptest::collection::vec((0_usize..7, 0_u64..5_000), 0..60)) {
            let (mut breaker, mut now) = (Breaker::closed(), at(0));
            for (event, passed) in drawn {
                now = now.plus(Duration::from_millis(passed));
                let next = breaker.step(EVENTS[event], now);
                if next.admits() && !breaker.admits() {
                    prop_assert_eq!(EVENTS[event], BreakerEvent::TrialWorked);
                    let was_tried = matches!(breaker, Breaker::Trying { .. });
                    prop_assert!(was_tried);
                }
                if let Some(rest) = next.trial_in(now) {
                    prop_assert!(rest <= Duration::from_secs(2));
                }
                breaker = next;
            }
        }
    }
}
