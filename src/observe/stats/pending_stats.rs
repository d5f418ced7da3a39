//! A worker's own end: requests counted per route until they are handed over.

use std::sync::Arc;
use std::time::Duration;

use http::Method;

use super::request_counts::{Blame, RequestCounts, RequestSample};
use crate::observe::record::AccessRecord;

/// Of each batch, so many requests that went well are told one by one.
const MOST_SUCCESSES: usize = 12;
/// And so many that did not.
const MOST_FAILURES: usize = 12;

/// The counts and samples of one worker since its last handover.
#[derive(Debug, Default)]
pub struct StatsBatch {
    /// By route; an empty name stands for requests that found none.
    pub tallies: Vec<(Arc<str>, RequestCounts)>,
    /// Some of the requests, in the order in which they ended.
    pub samples: Vec<RequestSample>,
}

/// The counts and samples that gather on a worker.
#[derive(Debug)]
pub struct PendingStats {
    /// One per route, in the order of the config, and one more for requests without a route.
    tallies: Vec<(Arc<str>, RequestCounts)>,
    samples: Vec<RequestSample>,
    successes: usize,
    failures: usize,
    empty: bool,
}

impl PendingStats {
    /// Creates empty counts for these routes.
    pub fn new(routes: impl Iterator<Item = Arc<str>>) -> Self {
        let tallies = routes.chain([Arc::from("")]).map(|name| (name, RequestCounts::default())).collect();
        Self { tallies, samples: Vec::new(), successes: 0, failures: 0, empty: true }
    }

    /// Counts a finished request of the route at this position; none: it found none. Says whether it is the first
    /// since the last [`PendingStats::take`].
    #[inline]
    pub fn see(&mut self, route: Option<usize>, record: &AccessRecord, blame: Blame, took: Duration) -> bool {
        let last = self.tallies.len() - 1;
        if let Some((_, tally)) = self.tallies.get_mut(route.unwrap_or(last)) {
            let lasting = record.method == Method::CONNECT || record.status == Some(101);
            tally.count(blame, record.replay, (!lasting).then_some(took));
        }
        let (samples, most) = if blame == Blame::Nobody {
            (&mut self.successes, MOST_SUCCESSES)
        } else {
            (&mut self.failures, MOST_FAILURES)
        };
        if *samples < most {
            *samples += 1;
            self.samples.push(RequestSample::of(record, blame, took));
        }
        std::mem::replace(&mut self.empty, false)
    }

    /// Takes the gathered counts and samples; `None` if no request was counted.
    pub fn take(&mut self) -> Option<StatsBatch> {
        if std::mem::replace(&mut self.empty, true) {
            return None;
        }
        (self.successes, self.failures) = (0, 0);
        let seen = self.tallies.iter_mut().filter(|(_, tally)| tally.requests > 0);
        let tallies = seen.map(|(name, tally)| (name.clone(), std::mem::take(tally))).collect();
        Some(StatsBatch { tallies, samples: std::mem::take(&mut self.samples) })
    }
}

#[cfg(test)]
mod tests {
    use super::super::request_counts::tests_record;
    use super::*;

    #[test]
    fn all_are_counted_and_some_are_told_errors_with_a_share_of_their_own() {
        let mut pending = PendingStats::new(["pay", "read"].map(Arc::from).into_iter());
        assert!(pending.take().is_none());
        let record = tests_record("/x");
        assert!(pending.see(Some(0), &record, Blame::Nobody, Duration::ZERO), "the first wakes the one who hands over");
        for _ in 1..1000 {
            assert!(!pending.see(Some(0), &record, Blame::Nobody, Duration::ZERO));
        }
        pending.see(None, &record, Blame::Client, Duration::ZERO);
        pending.see(Some(9), &record, Blame::Client, Duration::ZERO);
        let batch = pending.take().unwrap();
        let counted: Vec<_> = batch.tallies.iter().map(|(name, tally)| (&**name, tally.requests)).collect();
        assert_eq!(counted, [("pay", 1000), ("", 1)]);
        assert_eq!((batch.samples.len(), batch.samples.last().unwrap().blame), (MOST_SUCCESSES + 2, Blame::Client));
        assert!(pending.take().is_none());
    }
}
