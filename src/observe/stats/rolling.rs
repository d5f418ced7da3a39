//! The statistics themselves: slots of time that come and go.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::pending_stats::StatsBatch;
use super::request_counts::{Blame, RequestCounts};
use super::request_sample::{ErrorKind, RequestSample};
use crate::base::time::Now;

/// Time for which requests are remembered, in milliseconds.
const MEMORY: u64 = 15 * 60 * 1000;
/// One slot of the whole, and one of a route.
const WHOLE_SLOT: u64 = 1000;
const ROUTE_SLOT: u64 = 10_000;
/// The most routes that are remembered one by one: names of earlier configs linger until they are a memory old.
const MOST_ROUTES: usize = 4096;
/// One slot of a kind of errors.
const KIND_SLOT: u64 = 60_000;
/// The most kinds of errors that are counted.
const MOST_KINDS: usize = 256;
/// So many requests are remembered one by one, and so many errors that are alike.
const RECENT: usize = 1000;
const MOST_ALIKE: usize = 100;

/// Slots in the order of time; those without requests are missing.
#[derive(Debug)]
struct RollingWindow {
    width: u64,
    slots: VecDeque<(u64, RequestCounts)>,
}

impl RollingWindow {
    const fn new(width: u64) -> Self {
        Self { width, slots: VecDeque::new() }
    }

    fn add(&mut self, now: u64, tally: &RequestCounts) {
        let slot = now / self.width;
        match self.slots.back_mut() {
            Some((last, sum)) if *last >= slot => sum.add(tally),
            Some(_) | None => self.slots.push_back((slot, tally.clone())),
        }
        self.forget(now);
    }

    fn forget(&mut self, now: u64) {
        let first = now.saturating_sub(MEMORY) / self.width;
        while self.slots.front().is_some_and(|(slot, _)| *slot < first) {
            self.slots.pop_front();
        }
    }

    fn sum(&self, now: Now, back: u64) -> RequestCounts {
        let first = now.boot.saturating_sub(back) / self.width;
        let mut sum = RequestCounts::default();
        for (_, tally) in self.slots.iter().rev().take_while(|(slot, _)| *slot > first) {
            sum.add(tally);
        }
        sum
    }

    /// `count` sums of `each` milliseconds, a multiple of the width. The last one is under way: so what was summed once
    /// stays what it is.
    fn series(&self, now: Now, each: u64, count: usize) -> Vec<RequestCounts> {
        let mut series = vec![RequestCounts::default(); count];
        let end = (now.boot / each + 1) * each;
        for (slot, tally) in &self.slots {
            let Some(age) = end.checked_sub(slot * self.width).and_then(|age| age.checked_sub(1)) else { continue };
            let back = usize::try_from(age / each).unwrap_or(usize::MAX);
            if let Some(sum) = count.checked_sub(1 + back).and_then(|at| series.get_mut(at)) {
                sum.add(tally);
            }
        }
        series
    }
}

/// Statistics of the requests of this process in the last quarter of an hour.
#[derive(Debug)]
pub struct RequestStats {
    whole: RollingWindow,
    routes: BTreeMap<Arc<str>, RollingWindow>,
    /// By kind: the slot of a minute, and the errors in it.
    kinds: BTreeMap<ErrorKind, VecDeque<(u64, u64)>>,
    recent: VecDeque<RequestSample>,
    /// All requests since the start.
    total: u64,
}

impl Default for RequestStats {
    fn default() -> Self {
        Self {
            whole: RollingWindow::new(WHOLE_SLOT),
            routes: BTreeMap::new(),
            kinds: BTreeMap::new(),
            recent: VecDeque::new(),
            total: 0,
        }
    }
}

impl RequestStats {
    /// Adds what a worker has handed over at this moment.
    pub fn add(&mut self, now: Now, batch: StatsBatch) {
        for (name, tally) in batch.tallies {
            self.total += tally.requests;
            self.whole.add(now.boot, &tally);
            if !self.routes.contains_key(&name) && self.routes.len() >= MOST_ROUTES {
                self.routes.retain(|_, window| {
                    window.forget(now.boot);
                    !window.slots.is_empty()
                });
            }
            if self.routes.len() < MOST_ROUTES || self.routes.contains_key(&name) {
                self.routes.entry(name).or_insert_with(|| RollingWindow::new(ROUTE_SLOT)).add(now.boot, &tally);
            }
        }
        for (kind, number) in batch.kinds {
            self.count_kind(now.boot, kind, number);
        }
        for sample in batch.samples {
            self.keep(sample);
        }
    }

    fn count_kind(&mut self, now: u64, kind: ErrorKind, number: u64) {
        let (slot, first) = (now / KIND_SLOT, now.saturating_sub(MEMORY) / KIND_SLOT);
        if !self.kinds.contains_key(&kind) && self.kinds.len() >= MOST_KINDS {
            self.kinds.retain(|_, slots| slots.back().is_some_and(|(slot, _)| *slot >= first));
            if self.kinds.len() >= MOST_KINDS {
                return;
            }
        }
        let slots = self.kinds.entry(kind).or_default();
        match slots.back_mut() {
            Some((last, sum)) if *last >= slot => *sum += number,
            Some(_) | None => slots.push_back((slot, number)),
        }
        while slots.front().is_some_and(|(slot, _)| *slot < first) {
            slots.pop_front();
        }
    }

    fn keep(&mut self, sample: RequestSample) {
        // One kind of errors is one line; it does not drive out the others.
        let mut alike = self.recent.iter().enumerate().filter(|(_, other)| other.is_like(&sample)).map(|(at, _)| at);
        if let Some(oldest) = alike.next().filter(|_| alike.count() + 1 >= MOST_ALIKE) {
            self.recent.remove(oldest);
        }
        if self.recent.len() >= RECENT {
            // Requests that went well are dropped first.
            let oldest = self.recent.iter().take(RECENT / 2).position(|sample| sample.blame == Blame::Nobody);
            self.recent.remove(oldest.unwrap_or(0));
        }
        self.recent.push_back(sample);
    }

    /// The sum of the last `back` milliseconds.
    pub fn sum(&self, now: Now, back: u64) -> RequestCounts {
        self.whole.sum(now, back)
    }

    /// `count` sums of `each` milliseconds (whole seconds), the oldest first; the last one is under way.
    pub fn series(&self, now: Now, each: u64, count: usize) -> Vec<RequestCounts> {
        self.whole.series(now, each, count)
    }

    /// The sum of a route's last `back` milliseconds (in steps of ten seconds); an empty name: of requests without a
    /// route.
    pub fn route(&self, name: &str, now: Now, back: u64) -> RequestCounts {
        self.routes.get(name).map(|window| window.sum(now, back)).unwrap_or_default()
    }

    /// The same for one route; `each` in steps of ten seconds.
    pub fn route_series(&self, name: &str, now: Now, each: u64, count: usize) -> Vec<RequestCounts> {
        match self.routes.get(name) {
            Some(window) => window.series(now, each, count),
            None => vec![RequestCounts::default(); count],
        }
    }

    /// Number of errors of this kind in the last 15 minutes (in steps of a minute); 0 if the kind is not counted.
    pub fn number_of(&self, kind: &ErrorKind, now: Now) -> u64 {
        let first = now.boot.saturating_sub(MEMORY) / KIND_SLOT;
        let slots = self.kinds.get(kind).into_iter().flatten();
        slots.filter(|(slot, _)| *slot >= first).map(|(_, number)| number).sum()
    }

    /// The kinds of errors of the last 15 minutes with their numbers, the most frequent first.
    pub fn kinds(&self, now: Now) -> Vec<(&ErrorKind, u64)> {
        let numbers = self.kinds.keys().map(|kind| (kind, self.number_of(kind, now)));
        let mut kinds: Vec<_> = numbers.filter(|(_, number)| *number > 0).collect();
        kinds.sort_by_key(|(_, number)| std::cmp::Reverse(*number));
        kinds
    }

    /// Some of the last requests, the newest first.
    pub fn recent(&self) -> impl Iterator<Item = &RequestSample> {
        self.recent.iter().rev()
    }

    /// All requests since the start.
    pub const fn total(&self) -> u64 {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::request_sample::tests_record;
    use super::*;
    use crate::observe::record::{AccessRecord, Replay};

    fn batch(route: &str, requests: usize, blame: Blame) -> StatsBatch {
        let mut tally = RequestCounts::default();
        // None is like another.
        let record = |at: usize| AccessRecord { client: Some(at.to_string().into()), ..tests_record("/x") };
        let samples = (0..requests).map(|at| RequestSample::of(&record(at), blame)).collect();
        for _ in 0..requests {
            tally.count(blame, None, Replay::None, Some(Duration::from_millis(5)));
        }
        StatsBatch { tallies: vec![(route.into(), tally)], kinds: Vec::new(), samples }
    }

    fn at(seconds: u64) -> Now {
        Now::at(seconds * 1000, seconds * 1000)
    }

    #[test]
    fn sums_cover_their_time_and_what_is_old_is_forgotten() {
        let mut sight = RequestStats::default();
        sight.add(at(1000), batch("pay", 3, Blame::Nobody));
        sight.add(at(1001), batch("", 2, Blame::Client));
        assert_eq!(sight.sum(at(1001), 60_000).requests, 5);
        assert_eq!((sight.route("pay", at(1001), 60_000).requests, sight.route("", at(1001), 60_000).client), (3, 2));
        assert_eq!(sight.sum(at(1001), 1000).requests, 2, "the last second alone");
        assert_eq!(sight.sum(at(1100), 60_000).requests, 0);
        sight.add(at(1000 + 901), batch("pay", 1, Blame::Nobody));
        assert_eq!(sight.whole.slots.len(), 2, "the first slot is forgotten");
        assert_eq!(sight.total(), 6);
    }

    #[test]
    fn a_series_ends_with_what_is_under_way() {
        let mut sight = RequestStats::default();
        for (second, requests) in [(100, 1), (104, 2), (105, 4), (109, 8), (110, 16)] {
            sight.add(at(second), batch("pay", requests, Blame::Nobody));
        }
        let series = |now| sight.series(now, 5000, 3).iter().map(|tally| tally.requests).collect::<Vec<_>>();
        assert_eq!(series(at(110)), [3, 12, 16]);
        assert_eq!(series(at(114)), [3, 12, 16], "nothing moves before its time");
        assert_eq!(series(at(115)), [12, 16, 0]);
    }

    #[test]
    fn the_ring_is_bounded_and_keeps_errors_longer() {
        let mut sight = RequestStats::default();
        sight.add(at(1), batch("pay", 1, Blame::Ours));
        for _ in 0..3 {
            sight.add(at(1), batch("pay", RECENT, Blame::Nobody));
        }
        assert_eq!(sight.recent().count(), RECENT);
        assert!(sight.recent().any(|samples| samples.blame == Blame::Ours));
        for _ in 0..3 {
            sight.add(at(1), batch("pay", RECENT, Blame::Provider));
        }
        assert!(sight.recent().all(|samples| samples.blame == Blame::Provider), "nothing is kept for ever");
    }

    #[test]
    fn errors_of_one_kind_are_counted_and_keep_no_others_out() {
        let mut sight = RequestStats::default();
        let record = AccessRecord { status: Some(429), error: Some("rate-limited"), ..tests_record("/x") };
        let limited = RequestSample::of(&record, Blame::Client);
        let kind = limited.kind().unwrap();
        sight.add(at(1), batch("pay", 1, Blame::Ours));
        for second in 0..10 {
            let samples = vec![limited.clone(); RECENT];
            sight.add(at(1 + second), StatsBatch { kinds: vec![(kind.clone(), 1204)], samples, ..Default::default() });
        }
        assert_eq!((sight.recent().count(), sight.number_of(&kind, at(11))), (MOST_ALIKE + 1, 12_040));
        assert!(sight.recent().any(|sample| sample.blame == Blame::Ours));
        assert_eq!(sight.number_of(&kind, at(11 + 16 * 60)), 0, "that was long ago");
        for client in 0..MOST_KINDS + 10 {
            let kind = ErrorKind { client: Some(client.to_string().into()), ..kind.clone() };
            sight.add(at(20), StatsBatch { kinds: vec![(kind, 1)], ..Default::default() });
        }
        assert_eq!(sight.kinds.len(), MOST_KINDS);
        sight.add(at(10_000), StatsBatch { kinds: vec![(kind, 1)], ..Default::default() });
        assert_eq!(sight.kinds.len(), MOST_KINDS, "this one was known");
        let other = ErrorKind { blame: Blame::Provider, ..limited.kind().unwrap() };
        sight.add(at(10_000), StatsBatch { kinds: vec![(other, 1)], ..Default::default() });
        assert_eq!(sight.kinds.len(), 2, "the old ones made room");
    }

    #[test]
    fn names_are_bounded() {
        let mut sight = RequestStats::default();
        for name in 0..MOST_ROUTES + 10 {
            sight.add(at(1), batch(&name.to_string(), 1, Blame::Nobody));
        }
        assert_eq!(sight.routes.len(), MOST_ROUTES);
        sight.add(at(10_000), batch("new", 1, Blame::Nobody));
        assert_eq!(sight.routes.len(), 1, "the old ones made room");
    }
}
