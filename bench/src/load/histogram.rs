//! Latencies in buckets: exact to 1.6 percent, a few kilobytes.

const BITS: u32 = 6;
const PER_OCTAVE: usize = 1 << BITS;

/// Counts of nanoseconds.
pub struct Histogram {
    counts: Vec<u64>,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; PER_OCTAVE * (64 - BITS as usize + 1)] }
    }
}

impl Histogram {
    /// Takes a value down.
    pub fn record(&mut self, nanos: u64) {
        if let Some(count) = self.counts.get_mut(bucket(nanos)) {
            *count += 1;
        }
    }

    /// Takes all of another one down.
    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
    }

    /// The middle of the bucket where this share of the values ends; 0 without values.
    pub fn quantile(&self, share: f64) -> f64 {
        let total: u64 = self.counts.iter().sum();
        let wanted = (total as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if *count > 0 && seen >= wanted {
                return middle(bucket);
            }
        }
        0.0
    }
}

fn bucket(value: u64) -> usize {
    let octave = (u64::BITS - value.leading_zeros()).saturating_sub(BITS + 1);
    ((octave as usize) << BITS) + (value >> octave) as usize
}

fn middle(bucket: usize) -> f64 {
    if bucket < 2 * PER_OCTAVE {
        return bucket as f64;
    }
    let octave = (bucket >> BITS) - 1;
    let low = ((bucket - (octave << BITS)) as u64) << octave;
    low as f64 + (1u64 << octave) as f64 / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_comes_back_within_two_percent() {
        for value in [1, 63, 64, 127, 128, 1000, 123_456, 98_765_432, 60_000_000_000_u64] {
            let mut histogram = Histogram::default();
            histogram.record(value);
            let read = histogram.quantile(0.5);
            assert!((read - value as f64).abs() <= value as f64 * 0.02, "{value} came back as {read}");
        }
    }

    #[test]
    fn quantiles_are_in_order() {
        let mut histogram = Histogram::default();
        (1..=1000).for_each(|value| histogram.record(value * 1000));
        let (p50, p99) = (histogram.quantile(0.5), histogram.quantile(0.99));
        assert!((490_000.0..510_000.0).contains(&p50), "{p50}");
        assert!((975_000.0..1_005_000.0).contains(&p99), "{p99}");
    }
}
