//! Counts of requests, and their durations.

use std::time::Duration;

use crate::observe::record::Replay;

/// Two buckets per doubling, from 64 µs to 67 s, and one at either end.
const BUCKETS: usize = 42;
const LOWEST_OCTAVE: u32 = 6;

/// The party at fault for a response: the one that has to act.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Blame {
    /// The client is at fault.
    Client,
    /// No party: the request went well.
    Nobody,
    /// The operator is: the process, its config or its credentials.
    Ours,
    /// The provider is at fault.
    Provider,
}

impl Blame {
    /// Returns the party at fault for a provider's own response, by its status: the provider for its own failures (5xx)
    /// and for a refused token (401), the client for all other refusals (4xx).
    pub const fn of_status(status: u16) -> Self {
        match status {
            401 | 500.. => Blame::Provider,
            400..=499 => Blame::Client,
            0..=399 => Blame::Nobody,
        }
    }

    /// Returns whether such an error is the refusal of a request by a rule or a limit: something that was meant to be so.
    pub const fn is_refusal(self, status: Option<u16>) -> bool {
        matches!((self, status), (Blame::Ours, Some(400..=499)) | (Blame::Client, Some(403 | 429)))
    }

    /// In one word, as the table of errors has it; nothing where all is well.
    pub const fn as_str(self) -> Option<&'static str> {
        match self {
            Blame::Client => Some("client"),
            Blame::Nobody => None,
            Blame::Ours => Some("operator"),
            Blame::Provider => Some("provider"),
        }
    }
}

/// Counts of refused requests, by the party that has to act.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Refused {
    /// Those that only a change of the settings lets pass.
    pub ours: u64,
    /// Those that the caller must not make, or not so often.
    pub client: u64,
}

/// Counts of requests, and a histogram of their durations.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RequestCounts {
    /// All finished requests, with or without errors.
    pub requests: u64,
    /// Errors of the proxy or its operator.
    pub ours: u64,
    /// Errors that are the provider's.
    pub provider: u64,
    /// Errors that are the caller's.
    pub client: u64,
    /// Those of the operator's and of the caller's errors that are [refusals](Blame::is_refusal).
    pub refused: Refused,
    /// Requests that were sent again with a new token.
    pub replays: u64,
    durations: [u32; BUCKETS],
}

impl Default for RequestCounts {
    fn default() -> Self {
        let refused = Refused::default();
        Self { requests: 0, ours: 0, provider: 0, client: 0, refused, replays: 0, durations: [0; BUCKETS] }
    }
}

impl RequestCounts {
    /// Counts one request. One without a duration (a tunnel, a WebSocket) is not among the quantiles.
    #[inline]
    pub fn count(&mut self, blame: Blame, status: Option<u16>, replay: Replay, took: Option<Duration>) {
        self.requests += 1;
        let refused = u64::from(blame.is_refusal(status));
        match blame {
            Blame::Client => {
                self.client += 1;
                self.refused.client += refused;
            }
            Blame::Nobody => {}
            Blame::Ours => {
                self.ours += 1;
                self.refused.ours += refused;
            }
            Blame::Provider => self.provider += 1,
        }
        self.replays += u64::from(matches!(replay, Replay::Challenged | Replay::Replayed));
        if let Some(count) = took.and_then(|took| self.durations.get_mut(bucket(took))) {
            *count = count.saturating_add(1);
        }
    }

    /// Adds the counts and durations of `other`.
    pub fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.ours += other.ours;
        self.provider += other.provider;
        self.client += other.client;
        self.refused.ours += other.refused.ours;
        self.refused.client += other.refused.client;
        self.replays += other.replays;
        for (own, more) in self.durations.iter_mut().zip(&other.durations) {
            *own = own.saturating_add(*more);
        }
    }

    /// Returns the number of all errors, regardless of fault.
    pub const fn errors(&self) -> u64 {
        self.ours + self.provider + self.client
    }

    /// The errors by the colour that a picture has for them, with its class: refusals are not among their party's.
    pub const fn coloured_errors(&self) -> [(&'static str, u64); 4] {
        let Refused { ours, client } = self.refused;
        [
            ("ours", self.ours.saturating_sub(ours)),
            ("provider", self.provider),
            ("refused", ours + client),
            ("client", self.client.saturating_sub(client)),
        ]
    }

    /// The duration, in milliseconds, within which this part (0 to 1) of the requests ended; absent where there are
    /// none. Right to within a quarter of itself.
    pub fn quantile(&self, part: f64) -> Option<f64> {
        let all: u64 = self.durations.iter().map(|count| u64::from(*count)).sum();
        if all == 0 {
            return None;
        }
        #[expect(clippy::cast_precision_loss, reason = "a count of requests in a quarter of an hour")]
        let wanted = (all as f64 * part).max(1.0);
        let mut before = 0.0;
        for (index, count) in self.durations.iter().enumerate().filter(|(_, count)| **count > 0) {
            let count = f64::from(*count);
            if before + count >= wanted {
                let (low, high) = bounds(index);
                return Some(low + (high - low) * ((wanted - before) / count));
            }
            before += count;
        }
        None
    }

    /// The histogram: upper bounds in milliseconds with their counts, from the first that is not zero to the last.
    pub fn histogram(&self) -> Vec<(f64, u32)> {
        let first = self.durations.iter().position(|count| *count > 0);
        let last = self.durations.iter().rposition(|count| *count > 0);
        let (Some(first), Some(last)) = (first, last) else { return Vec::new() };
        let span = self.durations.iter().enumerate().skip(first).take(last - first + 1);
        span.map(|(index, count)| (bounds(index).1, *count)).collect()
    }
}

/// The bucket of a duration: its highest bit, and the one below.
fn bucket(took: Duration) -> usize {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    if micros < 1 << LOWEST_OCTAVE {
        return 0;
    }
    let octave = 63 - micros.leading_zeros();
    let upper = usize::from(micros >> (octave - 1) & 1 == 1);
    (1 + (octave - LOWEST_OCTAVE) as usize * 2 + upper).min(BUCKETS - 1)
}

/// Returns the lower and the upper bound of a bucket, in milliseconds.
fn bounds(index: usize) -> (f64, f64) {
    let edge = |step: usize| {
        let octave = f64::from(1_u32 << LOWEST_OCTAVE) * 2_f64.powi(i32::try_from(step / 2).unwrap_or(i32::MAX));
        octave * if step % 2 == 1 { 1.5 } else { 1.0 } / 1000.0
    };
    match index {
        0 => (0.0, edge(0)),
        index => (edge(index - 1), edge(index)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_near_the_truth() {
        let mut tally = RequestCounts::default();
        for ms in 1..=1000 {
            tally.count(Blame::Nobody, Some(200), Replay::None, Some(Duration::from_millis(ms)));
        }
        for (part, truth) in [(0.5, 500.0), (0.95, 950.0), (0.99, 990.0)] {
            let samples = tally.quantile(part).unwrap();
            assert!((samples - truth).abs() < truth / 4.0, "{part}: {samples}");
        }
        assert_eq!(RequestCounts::default().quantile(0.5), None);
        assert_eq!(tally.histogram().iter().map(|(_, count)| *count).sum::<u32>(), 1000);
    }

    #[test]
    fn every_duration_has_a_bucket_that_holds_it() {
        for micros in (0..40).flat_map(|bit| [(1_u64 << bit) - 1, 1 << bit, (1 << bit) + (1 << bit) / 2]) {
            let index = bucket(Duration::from_micros(micros));
            let (low, high) = bounds(index);
            let ms = micros as f64 / 1000.0;
            assert!(low <= ms && (ms < high || index == BUCKETS - 1), "{micros} in {index}: {low}..{high}");
        }
        assert_eq!(bucket(Duration::MAX), BUCKETS - 1);
    }

    #[test]
    fn blame_and_sums() {
        let mut tally = RequestCounts::default();
        for status in [200, 304, 401, 404, 422, 500, 503] {
            tally.count(Blame::of_status(status), Some(status), Replay::None, None);
        }
        tally.count(Blame::Ours, Some(502), Replay::Replayed, Some(Duration::ZERO));
        let mut sum = tally.clone();
        sum.add(&tally);
        assert_eq!((sum.requests, sum.ours, sum.provider, sum.client, sum.replays), (16, 2, 6, 4, 2));
        assert_eq!((sum.errors(), tally.errors()), (12, 6));
        // A refusal is its party's error, and has a colour of its own.
        for (blame, status) in [(Blame::Ours, 403), (Blame::Client, 403), (Blame::Client, 429), (Blame::Provider, 429)]
        {
            tally.count(blame, Some(status), Replay::None, None);
        }
        assert_eq!((tally.ours, tally.provider, tally.client), (2, 4, 4));
        assert_eq!(tally.coloured_errors(), [("ours", 1), ("provider", 4), ("refused", 3), ("client", 2)]);
    }
}
