//! A worker's own end: requests counted per route until they are handed over.

use std::sync::Arc;

use http::Method;

use super::request_counts::{Blame, RequestCounts};
use super::request_sample::{ErrorKind, RequestSample};
use crate::observe::record::AccessRecord;

/// Of each batch, so many requests that went well are told one by one.
const MOST_SUCCESSES: usize = 12;
/// And so many that did not.
const MOST_FAILURES: usize = 24;
/// And so many of those that are alike.
const MOST_ALIKE: u64 = 6;
/// So many kinds of errors are counted.
const MOST_KINDS: usize = 32;

/// The counts and samples of one worker since its last handover.
#[derive(Debug, Default)]
pub struct StatsBatch {
    /// By route; an empty name stands for requests that found none.
    pub tallies: Vec<(Arc<str>, RequestCounts)>,
    /// Errors by their kind.
    pub kinds: Vec<(ErrorKind, u64)>,
    /// Some of the requests, in the order in which they ended.
    pub samples: Vec<RequestSample>,
}

/// The counts and samples that gather on a worker.
#[derive(Debug)]
pub struct PendingStats {
    /// One per route, in the order of the config, and one more for requests without a route.
    tallies: Vec<(Arc<str>, RequestCounts)>,
    kinds: Vec<(ErrorKind, u64)>,
    samples: Vec<RequestSample>,
    successes: usize,
    failures: usize,
    empty: bool,
}

impl PendingStats {
    /// Creates empty counts for these routes.
    pub fn new(routes: impl Iterator<Item = Arc<str>>) -> Self {
        let tallies = routes.chain([Arc::from("")]).map(|name| (name, RequestCounts::default())).collect();
        Self { tallies, kinds: Vec::new(), samples: Vec::new(), successes: 0, failures: 0, empty: true }
    }

    /// Counts a finished request of the route at this position; none: it found none. Says whether it is the first
    /// since the last [`PendingStats::take`].
    #[inline]
    pub fn see(&mut self, route: Option<usize>, record: &AccessRecord, blame: Blame) -> bool {
        let last = self.tallies.len() - 1;
        if let Some((_, tally)) = self.tallies.get_mut(route.unwrap_or(last)) {
            let lasting = record.method == Method::CONNECT || record.status == Some(101);
            tally.count(blame, record.status, record.replay, (!lasting).then_some(record.took));
        }
        let (samples, most, alike) = if blame == Blame::Nobody {
            (&mut self.successes, MOST_SUCCESSES, 0)
        } else {
            (&mut self.failures, MOST_FAILURES, count_kind(&mut self.kinds, record, blame))
        };
        if *samples < most && alike <= MOST_ALIKE {
            *samples += 1;
            self.samples.push(RequestSample::of(record, blame));
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
        Some(StatsBatch { tallies, kinds: std::mem::take(&mut self.kinds), samples: std::mem::take(&mut self.samples) })
    }
}

/// Counts an error by its kind. Returns how many of that kind there are now; 1 if no more kinds are counted.
fn count_kind(kinds: &mut Vec<(ErrorKind, u64)>, record: &AccessRecord, blame: Blame) -> u64 {
    if let Some((_, number)) = kinds.iter_mut().find(|(kind, _)| kind.fits(record, blame)) {
        *number += 1;
        return *number;
    }
    if kinds.len() < MOST_KINDS {
        kinds.push((ErrorKind::of(record, blame), 1));
    }
    1
}

#[cfg(test)]
mod tests {
    use super::super::request_sample::tests_record;
    use super::*;

    #[test]
    fn all_are_counted_and_some_are_told_errors_with_a_share_of_their_own() {
        let mut pending = PendingStats::new(["pay", "read"].map(Arc::from).into_iter());
        assert!(pending.take().is_none());
        let record = tests_record("/x");
        assert!(pending.see(Some(0), &record, Blame::Nobody), "the first wakes the one who hands over");
        for _ in 1..1000 {
            assert!(!pending.see(Some(0), &record, Blame::Nobody));
        }
        pending.see(None, &record, Blame::Client);
        pending.see(Some(9), &record, Blame::Client);
        let batch = pending.take().unwrap();
        let counted: Vec<_> = batch.tallies.iter().map(|(name, tally)| (&**name, tally.requests)).collect();
        assert_eq!(counted, [("pay", 1000), ("", 1)]);
        assert_eq!((batch.samples.len(), batch.samples.last().unwrap().blame), (MOST_SUCCESSES + 2, Blame::Client));
        assert!(pending.take().is_none());
    }

    #[test]
    fn many_errors_of_one_kind_leave_room_for_others() {
        let mut pending = PendingStats::new(["pay"].map(Arc::from).into_iter());
        let limited = AccessRecord { status: Some(429), error: Some("rate-limited"), ..tests_record("/x") };
        for _ in 0..1204 {
            pending.see(Some(0), &limited, Blame::Client);
        }
        let other = AccessRecord { status: Some(404), ..limited.clone() };
        pending.see(Some(0), &other, Blame::Client);
        let batch = pending.take().unwrap();
        let told: Vec<_> = batch.kinds.iter().map(|(kind, number)| (kind.status, *number)).collect();
        assert_eq!(told, [(Some(429), 1204), (Some(404), 1)]);
        let sampled = |status| batch.samples.iter().filter(|sample| sample.record.status == Some(status)).count();
        assert_eq!((sampled(429), sampled(404)), (usize::try_from(MOST_ALIKE).unwrap(), 1));
        // Kinds are bounded, too: their names come from requests.
        for client in 0..1000 {
            let client = Some(client.to_string().into());
            pending.see(Some(0), &AccessRecord { client, ..limited.clone() }, Blame::Client);
        }
        let batch = pending.take().unwrap();
        assert_eq!((batch.kinds.len(), batch.samples.len()), (MOST_KINDS, MOST_FAILURES));
    }
}
