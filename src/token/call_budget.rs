//! The number of token calls that a provider gets in a time: an exact count over a window that slides.

use std::collections::VecDeque;
use std::time::Duration;

use crate::base::time::{Now, millis};

/// A bound on token calls: in no span of `per` are there more than `calls`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct CallBudget {
    /// Number of calls, at least 1.
    pub calls: usize,
    /// Length of the span.
    pub per: Duration,
}

/// The calls of the last span, by the boot clock: setting the wall clock gives no calls.
#[derive(Clone, Debug, Default)]
pub struct SpentCalls(VecDeque<u64>);

impl SpentCalls {
    /// Takes a call out of the budget, or says how long it is until there is one.
    pub fn take(&mut self, budget: CallBudget, now: Now) -> Result<(), Duration> {
        self.forget(budget, now);
        // After a reload there may be more of them than the budget has.
        let excess = self.0.len().checked_sub(budget.calls);
        let frees = excess.and_then(|excess| self.0.get(excess)).map(|at| at.saturating_add(millis(budget.per)));
        match frees {
            Some(frees) => Err(Duration::from_millis(frees.saturating_sub(now.boot))),
            None => {
                self.0.push_back(now.boot);
                Ok(())
            }
        }
    }

    /// Counts a call that is made whether or not there is one left.
    pub fn note(&mut self, budget: CallBudget, now: Now) {
        self.forget(budget, now);
        self.0.push_back(now.boot);
        // So many decide when the next one is free.
        let excess = self.0.len().saturating_sub(budget.calls);
        self.0.drain(..excess);
    }

    fn forget(&mut self, budget: CallBudget, now: Now) {
        let begin = now.boot.saturating_sub(millis(budget.per));
        while self.0.front().is_some_and(|at| *at <= begin && now.boot >= millis(budget.per)) {
            self.0.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: Now = Now::at(10_000_000, 1_700_000_000_000);

    #[test]
    fn calls_come_back_one_by_one_as_they_leave_the_span() {
        let budget = CallBudget { calls: 2, per: Duration::from_secs(60) };
        let mut spent = SpentCalls::default();
        let at = |seconds| START.plus(Duration::from_secs(seconds));
        assert_eq!((spent.take(budget, at(0)), spent.take(budget, at(20))), (Ok(()), Ok(())));
        assert_eq!(spent.take(budget, at(21)), Err(Duration::from_secs(39)));
        assert_eq!(spent.take(budget, at(60)), Ok(()), "at the very moment that was told");
        assert_eq!(spent.take(budget, at(60)), Err(Duration::from_secs(20)));
        let less = CallBudget { calls: 1, ..budget };
        assert_eq!(spent.take(less, at(61)), Err(Duration::from_secs(59)), "a reload has made it smaller");
        spent.note(budget, at(62));
        assert_eq!(spent.take(budget, at(63)), Err(Duration::from_secs(57)), "what must be called counts");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

        /// In no span are there more calls than the budget has, and a refused caller that comes when it was told to gets one.
        #[test]
        fn no_span_has_more_calls(
            calls in 1_usize..5,
            per in 1_u64..50,
            pauses in prop::collection::vec(0_u64..30, 1..60),
        ) {
            let budget = CallBudget { calls, per: Duration::from_millis(per) };
            let (mut spent, mut now, mut made) = (SpentCalls::default(), START, Vec::new());
            for pause in pauses {
                now = now.plus(Duration::from_millis(pause));
                match spent.take(budget, now) {
                    Ok(()) => made.push(now.boot),
                    Err(left) => {
                        prop_assert!(!left.is_zero());
                        let mut early = spent.clone();
                        let before = now.plus(left).minus(Duration::from_millis(1));
                        prop_assert!(early.take(budget, before).is_err(), "no sooner than that");
                        let mut then = spent.clone();
                        prop_assert_eq!(then.take(budget, now.plus(left)), Ok(()));
                    }
                }
                prop_assert!(made.iter().filter(|at| **at + per > now.boot).count() <= calls);
            }
        }
    }
}
