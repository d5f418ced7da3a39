//! Metrics in OTLP: an `ExportMetricsServiceRequest`, made of the text of `/metrics`.
//!
//! The text is what one place encodes, so an export cannot differ from a scrape. Names stay as they are, `_total`
//! included: a receiver that turns them into Prometheus's form adds no second one. A counter is a cumulative, monotonic
//! sum since the start of the process, an info a sum that is not monotonic (as OpenTelemetry's specification of
//! compatibility with Prometheus has it), a histogram has the counts of each bucket instead of all below.

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1 as metrics;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use prost::Message;

use super::resource::{OtlpResource, attribute, scope};

const CUMULATIVE: i32 = metrics::AggregationTemporality::Cumulative as i32;
/// The end of the name of what is in seconds.
const SECONDS: &str = "_seconds";

/// One line of the text with a value.
struct Sample<'a> {
    name: &'a str,
    labels: Vec<(&'a str, String)>,
    value: &'a str,
}

/// Reads the OpenMetrics text that [`Metrics::encode`](crate::observe::metrics::Metrics::encode) writes. Times are in
/// nanoseconds since 1970: the start of the process, and now. Metrics without a sample are left out, and so are lines of
/// another form.
pub fn read_metrics(text: &str, start: u64, now: u64) -> Vec<metrics::Metric> {
    let mut found: Vec<metrics::Metric> = Vec::new();
    let (mut help, mut kind) = (("", ""), ("", ""));
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ').unwrap_or((rest, ""));
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            kind = rest.split_once(' ').unwrap_or((rest, ""));
        } else if let Some(sample) = Sample::read(line) {
            let (base, kind) = kind;
            let Some(suffix) = sample.name.strip_prefix(base).filter(|_| !base.is_empty()) else { continue };
            let name = if kind == "histogram" { base } else { sample.name };
            if found.last().is_none_or(|metric| metric.name != name) {
                let Some(data) = empty(kind) else { continue };
                found.push(metrics::Metric {
                    name: name.to_owned(),
                    description: if help.0 == base { help.1.to_owned() } else { String::new() },
                    unit: if base.ends_with(SECONDS) { "s".to_owned() } else { String::new() },
                    data: Some(data),
                    ..Default::default()
                });
            }
            match found.last_mut().and_then(|metric| metric.data.as_mut()) {
                Some(Data::Gauge(gauge)) => gauge.data_points.extend(sample.point(0, now)),
                Some(Data::Sum(sum)) => sum.data_points.extend(sample.point(start, now)),
                Some(Data::Histogram(histogram)) => sample.count(suffix, histogram, (start, now)),
                Some(Data::ExponentialHistogram(_) | Data::Summary(_)) | None => {}
            }
        }
    }
    found.retain(|metric| count(metric) > 0);
    for metric in &mut found {
        if let Some(Data::Histogram(histogram)) = &mut metric.data {
            histogram.data_points.iter_mut().for_each(part_buckets);
        }
    }
    found
}

/// Parts metrics into batches of at most `most` data points, which is not 0. A metric with more is in several.
pub fn metric_batches(found: Vec<metrics::Metric>, most: usize) -> Vec<Vec<metrics::Metric>> {
    let (mut batches, mut batch, mut room) = (Vec::new(), Vec::new(), most);
    for mut metric in found.into_iter().filter(|metric| count(metric) > 0) {
        loop {
            if room == 0 {
                batches.push(std::mem::take(&mut batch));
                room = most;
            }
            let Some(rest) = split_off(&mut metric, room) else { break };
            batch.push(std::mem::replace(&mut metric, rest));
            room = 0;
        }
        room -= count(&metric);
        batch.push(metric);
    }
    if !batch.is_empty() {
        batches.push(batch);
    }
    batches
}

/// The message that exports these metrics.
pub fn metric_export(resource: OtlpResource<'_>, batch: &[metrics::Metric]) -> Vec<u8> {
    let scope_metrics = metrics::ScopeMetrics { scope: Some(scope()), metrics: batch.to_vec(), ..Default::default() };
    let resource_metrics = metrics::ResourceMetrics {
        resource: Some(resource.message()),
        scope_metrics: vec![scope_metrics],
        ..Default::default()
    };
    ExportMetricsServiceRequest { resource_metrics: vec![resource_metrics] }.encode_to_vec()
}

/// Returns the number of data points in these metrics.
pub fn points(batch: &[metrics::Metric]) -> u64 {
    batch.iter().map(|metric| count(metric) as u64).sum()
}

fn count(metric: &metrics::Metric) -> usize {
    match &metric.data {
        Some(Data::Gauge(gauge)) => gauge.data_points.len(),
        Some(Data::Sum(sum)) => sum.data_points.len(),
        Some(Data::Histogram(histogram)) => histogram.data_points.len(),
        Some(Data::ExponentialHistogram(_) | Data::Summary(_)) | None => 0,
    }
}

/// Takes the points beyond `most` out of a metric, into another one of the same kind.
fn split_off(metric: &mut metrics::Metric, most: usize) -> Option<metrics::Metric> {
    if count(metric) <= most {
        return None;
    }
    let data = match metric.data.as_mut()? {
        Data::Gauge(gauge) => Data::Gauge(metrics::Gauge { data_points: gauge.data_points.split_off(most) }),
        Data::Sum(sum) => Data::Sum(metrics::Sum { data_points: sum.data_points.split_off(most), ..*sum }),
        Data::Histogram(histogram) => {
            let data_points = histogram.data_points.split_off(most);
            Data::Histogram(metrics::Histogram { data_points, ..*histogram })
        }
        Data::ExponentialHistogram(_) | Data::Summary(_) => return None,
    };
    let (name, description, unit) = (metric.name.clone(), metric.description.clone(), metric.unit.clone());
    Some(metrics::Metric { name, description, unit, data: Some(data), ..Default::default() })
}

/// The form of a kind of metric, without a point.
fn empty(kind: &str) -> Option<Data> {
    let sum = |is_monotonic| {
        Data::Sum(metrics::Sum { data_points: Vec::new(), aggregation_temporality: CUMULATIVE, is_monotonic })
    };
    match kind {
        "counter" => Some(sum(true)),
        "info" => Some(sum(false)),
        "gauge" => Some(Data::Gauge(metrics::Gauge::default())),
        "histogram" => {
            let histogram = metrics::Histogram { data_points: Vec::new(), aggregation_temporality: CUMULATIVE };
            Some(Data::Histogram(histogram))
        }
        _ => None,
    }
}

/// Turns the counts of all observations up to each bound into those of each bucket.
fn part_buckets(point: &mut metrics::HistogramDataPoint) {
    let mut before = 0;
    for count in &mut point.bucket_counts {
        let below = std::mem::replace(&mut before, *count);
        *count = count.saturating_sub(below);
    }
}

impl<'a> Sample<'a> {
    /// Reads `name{label="value",…} value`, with or without labels.
    fn read(line: &'a str) -> Option<Self> {
        let end = line.find(['{', ' '])?;
        let (name, mut rest) = line.split_at(end);
        if name.is_empty() || name.starts_with('#') {
            return None;
        }
        let mut labels = Vec::new();
        if let Some(inner) = rest.strip_prefix('{') {
            rest = inner;
            while !rest.starts_with('}') {
                let (key, quoted) = rest.trim_start_matches(',').split_once("=\"")?;
                let (text, after) = unquoted(quoted)?;
                labels.push((key, text));
                rest = after;
            }
            rest = rest.strip_prefix('}')?;
        }
        Some(Self { name, labels, value: rest.trim() })
    }

    fn attributes(&self) -> Vec<KeyValue> {
        let labels = self.labels.iter().filter(|(key, _)| *key != "le");
        labels.map(|(key, value)| attribute(key, value.clone())).collect()
    }

    /// A point with its value; `start` is 0 for what has none.
    fn point(&self, start: u64, now: u64) -> Option<metrics::NumberDataPoint> {
        let whole = self.value.parse().map(Value::AsInt);
        let value = whole.or_else(|_| self.value.parse().map(Value::AsDouble)).ok()?;
        Some(metrics::NumberDataPoint {
            attributes: self.attributes(),
            start_time_unix_nano: start,
            time_unix_nano: now,
            value: Some(value),
            ..Default::default()
        })
    }

    /// Adds what the sample says to the point of its labels. Buckets hold the counts of all below, until they are parted.
    fn count(&self, suffix: &str, histogram: &mut metrics::Histogram, (start, now): (u64, u64)) {
        let attributes = self.attributes();
        if histogram.data_points.last().is_none_or(|point| point.attributes != attributes) {
            histogram.data_points.push(metrics::HistogramDataPoint {
                attributes,
                start_time_unix_nano: start,
                time_unix_nano: now,
                ..Default::default()
            });
        }
        let Some(point) = histogram.data_points.last_mut() else { return };
        match suffix {
            "_sum" => point.sum = self.value.parse().ok(),
            "_count" => point.count = self.value.parse().unwrap_or_default(),
            "_bucket" => {
                let bound = self.labels.iter().find(|(key, _)| *key == "le").and_then(|(_, bound)| bound.parse().ok());
                let (Some(bound), Ok(count)) = (bound, self.value.parse()) else { return };
                point.bucket_counts.push(count);
                // The last bucket has no bound.
                point.explicit_bounds.extend(Some(bound).filter(|bound: &f64| bound.is_finite()));
            }
            _ => {}
        }
    }
}

/// The text up to the quote that ends it, without escapes, and the rest.
fn unquoted(quoted: &str) -> Option<(String, &str)> {
    let mut text = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((text, quoted.get(at + 1..)?)),
            '\\' => match chars.next()?.1 {
                'n' => text.push('\n'),
                other => text.push(other),
            },
            other => text.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::observe::metrics::Metrics;

    const START: u64 = 1_000;
    const NOW: u64 = 9_000;

    fn named<'a>(found: &'a [metrics::Metric], name: &str) -> &'a metrics::Metric {
        found.iter().find(|metric| metric.name == name).unwrap_or_else(|| panic!("{name} in {found:#?}"))
    }

    fn told(pairs: &[(&str, &str)]) -> Vec<KeyValue> {
        pairs.iter().map(|(key, value)| attribute(key, (*value).to_owned())).collect()
    }

    #[test]
    fn each_kind_of_metric_takes_its_form() {
        let own = Arc::new(Metrics::new());
        let meters = own.route("gateway", "scb", "scb");
        meters.finished(200, Duration::from_millis(3));
        meters.finished(200, Duration::from_millis(3));
        meters.finished(502, Duration::from_secs(100));
        own.tokens("scb", 2, Some(1_700_000_000));
        let found = read_metrics(&own.encode(), START, NOW);

        let requests = named(&found, "countersign_requests_total");
        assert_eq!((&*requests.description, &*requests.unit), ("Requests answered.", ""));
        let Some(Data::Sum(sum)) = &requests.data else { panic!("{requests:?}") };
        assert_eq!((sum.is_monotonic, sum.aggregation_temporality), (true, 2));
        let expected = |status: &str, count| metrics::NumberDataPoint {
            attributes: told(&[("listener", "gateway"), ("route", "scb"), ("status", status)]),
            start_time_unix_nano: START,
            time_unix_nano: NOW,
            value: Some(Value::AsInt(count)),
            ..Default::default()
        };
        let mut points = sum.data_points.clone();
        points.sort_by_key(|point| format!("{point:?}"));
        assert_eq!(points, [expected("200", 2), expected("502", 1)]);

        let expiry = named(&found, "countersign_token_expiry_timestamp_seconds");
        let Some(Data::Gauge(gauge)) = &expiry.data else { panic!("{expiry:?}") };
        assert_eq!((&*expiry.unit, gauge.data_points[0].start_time_unix_nano), ("s", 0));
        assert_eq!(gauge.data_points[0].value, Some(Value::AsInt(1_700_000_000)));

        let durations = named(&found, "countersign_request_duration_seconds");
        let Some(Data::Histogram(histogram)) = &durations.data else { panic!("{durations:?}") };
        let [point] = &*histogram.data_points else { panic!("{histogram:?}") };
        assert_eq!((histogram.aggregation_temporality, point.count, point.sum), (2, 3, Some(100.006)));
        assert_eq!((point.attributes.clone(), &*durations.unit), (told(&[("route", "scb")]), "s"));
        assert_eq!((point.explicit_bounds.len(), point.bucket_counts.len()), (14, 15), "{point:?}");
        assert_eq!((point.explicit_bounds[0], point.explicit_bounds[13]), (0.0005, 60.0));
        assert_eq!((point.bucket_counts[3], point.bucket_counts[14], point.bucket_counts.iter().sum()), (2, 1, 3_u64));

        let build = named(&found, "countersign_build_info");
        let Some(Data::Sum(sum)) = &build.data else { panic!("{build:?}") };
        assert!(!sum.is_monotonic);
        // None without a point, and none twice.
        assert!(found.iter().all(|metric| count(metric) > 0));
        assert!(found.iter().all(|metric| found.iter().filter(|other| other.name == metric.name).count() == 1));
    }

    #[test]
    fn labels_are_read_without_their_escapes() {
        let text =
            "# HELP x Some x.\n# TYPE x gauge\nx{a=\"q\\\"b\\\\c\\nd}, e=\",b=\"\"} 1.5\nx 2\nx{a=\"open\n# EOF\n";
        let found = read_metrics(text, START, NOW);
        let Some(Data::Gauge(gauge)) = &named(&found, "x").data else { panic!("{found:?}") };
        assert_eq!(gauge.data_points.len(), 2);
        assert_eq!(gauge.data_points[0].attributes, told(&[("a", "q\"b\\c\nd}, e="), ("b", "")]));
        assert_eq!(gauge.data_points[0].value, Some(Value::AsDouble(1.5)));
    }

    proptest! {
        #[test]
        fn batches_hold_every_point_once_and_no_more_than_they_may(sizes in proptest::collection::vec(0_usize..40, 0..6), most in 1_usize..50) {
            let metric = |(at, size): (usize, &usize)| metrics::Metric {
                name: format!("m{at}"),
                data: Some(Data::Sum(metrics::Sum {
                    data_points: (0..*size as u64)
                        .map(|time_unix_nano| metrics::NumberDataPoint { time_unix_nano, ..Default::default() })
                        .collect(),
                    aggregation_temporality: CUMULATIVE,
                    is_monotonic: true,
                })),
                ..Default::default()
            };
            let all: Vec<metrics::Metric> = sizes.iter().enumerate().map(metric).collect();
            let flat = |batch: &[metrics::Metric]| -> Vec<(String, u64)> {
                let points = batch.iter().flat_map(|metric| match &metric.data {
                    Some(Data::Sum(sum)) if sum.is_monotonic && sum.aggregation_temporality == CUMULATIVE => {
                        sum.data_points.iter().map(|point| (metric.name.clone(), point.time_unix_nano)).collect()
                    }
                    _ => Vec::new(),
                });
                points.collect()
            };
            let batches = metric_batches(all.clone(), most);
            prop_assert!(batches.iter().all(|batch| (1..=most as u64).contains(&points(batch))));
            prop_assert_eq!(batches.iter().flat_map(|batch| flat(batch)).collect::<Vec<_>>(), flat(&all));
            prop_assert!(batches.len() <= sizes.iter().sum::<usize>().div_ceil(most));
        }
    }
}
