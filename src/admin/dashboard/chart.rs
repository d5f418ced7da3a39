//! Charts with axes, as SVG that the server draws: widths in percent, heights in pixels, and no style. A chart is hidden
//! from screen readers; the page gives the same figures in a table beside it.

use std::fmt::Write as _;

use super::format::{ShownMoment, count, rate, took};
use crate::base::time::{Now, rfc3339};
use crate::observe::stats::RequestCounts;

/// Height of a chart in pixels, and the part of it in which bars stand.
const HEIGHT: u32 = 220;
const TOP: f64 = 14.0;
const FOOT: f64 = 196.0;
/// Room above the bars of durations, for the words of three quantiles.
const QUANTILES_TOP: f64 = 54.0;
/// Between two words of the time axis, in milliseconds: five minutes.
const TICK: u64 = 5 * 60 * 1000;
/// Words of the axis of durations, at most.
const MOST_BOUNDS: usize = 5;
/// The quantiles that are marked.
const QUANTILES: [(&str, f64); 3] = [("p50", 0.5), ("p95", 0.95), ("p99", 0.99)];

/// The time axis of a chart.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct TimeAxis {
    /// End of the last bar, in milliseconds since 1970.
    pub(super) end: u64,
    /// Time of one bar, in milliseconds.
    pub(super) bar: u64,
}

impl TimeAxis {
    /// Builds the axis of a series as [`RequestStats::series`](crate::observe::stats::RequestStats::series) sums it: the
    /// last bar is under way.
    pub(super) const fn of(now: Now, bar: u64) -> Self {
        let passed = now.boot % bar;
        Self { end: now.wall - passed + bar, bar }
    }

    /// The moment at which this bar of so many begins, in milliseconds since 1970.
    fn start(self, at: usize, bars: usize) -> u64 {
        let back = bars.saturating_sub(at) as u64;
        self.end.saturating_sub(back * self.bar)
    }
}

/// The figures of a part of the time axis, for a table.
#[derive(Debug)]
pub(super) struct TrafficSpan {
    pub(super) from: ShownMoment,
    /// Address of the page that lists the requests of this time.
    pub(super) href: String,
    pub(super) requests: String,
    pub(super) ours: String,
    pub(super) provider: String,
    pub(super) client: String,
}

/// Sums each `bars` bars of a series. The newest comes first.
pub(super) fn traffic_spans(series: &[RequestCounts], axis: TimeAxis, bars: usize, now: Now) -> Vec<TrafficSpan> {
    let span = |(at, part): (usize, &[RequestCounts])| {
        let mut sum = RequestCounts::default();
        part.iter().for_each(|tally| sum.add(tally));
        let from = axis.start(at * bars, series.len());
        TrafficSpan {
            from: ShownMoment::at(from, now),
            href: requests_of(from, from + part.len() as u64 * axis.bar),
            requests: count(sum.requests),
            ours: count(sum.ours),
            provider: count(sum.provider),
            client: count(sum.client),
        }
    };
    let mut spans: Vec<TrafficSpan> = series.chunks(bars.max(1)).enumerate().map(span).collect();
    spans.reverse();
    spans
}

/// The address of the page that lists the requests of this time.
fn requests_of(since: u64, until: u64) -> String {
    format!("/ui/requests?since={}&until={}", rfc3339(since), rfc3339(until))
}

/// Draws requests per second over time: a bar per tally, with errors at its foot by the party at fault. A bar is a link
/// to the requests of its time, for the mouse alone.
#[expect(clippy::cast_precision_loss, reason = "a picture")]
pub(super) fn draw_traffic(series: &[RequestCounts], axis: TimeAxis) -> String {
    let seconds = (axis.bar / 1000).max(1);
    let most = series.iter().map(|tally| tally.requests).max().unwrap_or(0);
    let top = ceiling(most as f64 / seconds as f64);
    let mut svg = opened("bars tall");
    for part in [0.0, 0.5, 1.0] {
        grid_line(&mut svg, FOOT - (FOOT - TOP) * part, &format!("{}/s", plain(top * part)));
    }
    let (begin, span) = (axis.start(0, series.len()), series.len() as u64 * axis.bar);
    let mut tick = begin.next_multiple_of(TICK);
    while tick <= axis.end && span > 0 {
        let moment = rfc3339(tick);
        let place = (tick - begin) as f64 / span as f64 * 100.0;
        let anchor = anchor(place);
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{place:.2}%\" x2=\"{place:.2}%\" y1=\"{TOP}\" y2=\"{FOOT}\"/>\
             <text class=\"tick\" x=\"{place:.2}%\" y=\"214\" text-anchor=\"{anchor}\" data-utc=\"{moment}\">{}</text>",
            moment.get(11..16).unwrap_or_default(),
        );
        tick += TICK;
    }
    let step = 100.0 / series.len().max(1) as f64;
    for (at, tally) in series.iter().enumerate().filter(|(_, tally)| tally.requests > 0) {
        let from = axis.start(at, series.len());
        let (left, width) = (at as f64 * step, step * 0.82);
        let _ = write!(
            svg,
            "<a href=\"{}\" tabindex=\"-1\"><title data-utc=\"{}\">{}</title>\
             <rect class=\"hit\" x=\"{left:.2}%\" y=\"{TOP}\" width=\"{step:.2}%\" height=\"{}\"/>",
            requests_of(from, from + axis.bar).replace('&', "&amp;"),
            rfc3339(from),
            told(tally, from, seconds),
            FOOT - TOP,
        );
        let tall = |requests: u64| requests as f64 / seconds as f64 / top * (FOOT - TOP);
        let well = tally.requests.saturating_sub(tally.errors());
        let mut foot = FOOT;
        for (kind, part) in tally.coloured_errors().into_iter().chain([("well", well)]) {
            if part == 0 {
                continue;
            }
            // One error among thousands is still seen.
            let part = tall(part).max(2.0).min(foot - TOP);
            foot -= part;
            let _ = write!(
                svg,
                "<rect class=\"{kind}\" x=\"{left:.2}%\" y=\"{foot:.1}\" width=\"{width:.2}%\" height=\"{part:.1}\"/>"
            );
        }
        svg.push_str("</a>");
    }
    svg.push_str("</svg>");
    svg
}

/// The figures of a bar in words.
fn told(tally: &RequestCounts, from: u64, seconds: u64) -> String {
    let moment = rfc3339(from);
    let time = moment.get(11..19).unwrap_or_default();
    let mut text = format!("{time} UTC: requests {} ({}/s)", count(tally.requests), rate(tally.requests, seconds));
    let errors = [("operator", tally.ours), ("provider", tally.provider), ("client", tally.client)];
    for (word, errors) in errors.into_iter().filter(|(_, errors)| *errors > 0) {
        let _ = write!(text, ", {word} errors {}", count(errors));
    }
    let refused = tally.refused.ours + tally.refused.client;
    if refused > 0 {
        let _ = write!(text, ", of them refused {}", count(refused));
    }
    text
}

/// Draws the distribution of durations: a bar per bucket, and a line at each of the quantiles p50, p95 and p99. Nothing
/// where there are no durations.
#[expect(clippy::cast_precision_loss, reason = "a picture")]
pub(super) fn draw_durations(tally: &RequestCounts) -> String {
    let buckets = tally.histogram();
    let Some((lowest, _)) = buckets.first().copied() else { return String::new() };
    let most = buckets.iter().map(|(_, count)| *count).max().unwrap_or(0);
    // So that half of it is a whole number.
    let top = ceiling(f64::from(most)).max(2.0);
    // So that a single bucket is no wall.
    let step = 100.0 / buckets.len().max(6) as f64;
    let mut svg = opened("bars histogram");
    for part in [0.0, 0.5, 1.0] {
        grid_line(&mut svg, FOOT - (FOOT - QUANTILES_TOP) * part, &plain(top * part));
    }
    let mut before = 0.0;
    for (at, (bound, requests)) in buckets.iter().enumerate() {
        let tall = f64::from(*requests) / top * (FOOT - QUANTILES_TOP);
        let tall = tall.max(if *requests > 0 { 2.0 } else { 0.0 });
        let left = at as f64 * step;
        let (low, high, requests) = (took(before), took(*bound), count(u64::from(*requests)));
        let from = if at == 0 { String::new() } else { format!("{low} to ") };
        let _ = write!(
            svg,
            "<g><title>{}{high}: requests {requests}</title>\
             <rect class=\"hit\" x=\"{left:.2}%\" y=\"{QUANTILES_TOP}\" width=\"{step:.2}%\" height=\"{}\"/>\
             <rect class=\"well\" x=\"{left:.2}%\" y=\"{:.1}\" width=\"{:.2}%\" height=\"{tall:.1}\"/></g>",
            if at == 0 { "up to " } else { &from },
            FOOT - QUANTILES_TOP,
            FOOT - tall,
            step * 0.86,
        );
        before = *bound;
    }
    let apart = buckets.len().div_ceil(MOST_BOUNDS).max(1);
    for (at, (bound, _)) in buckets.iter().enumerate().skip(apart - 1).step_by(apart) {
        let place = (at + 1) as f64 * step;
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{place:.2}%\" x2=\"{place:.2}%\" y1=\"{FOOT}\" y2=\"{}\"/>\
             <text class=\"tick\" x=\"{place:.2}%\" y=\"214\" text-anchor=\"{}\">{}</text>",
            FOOT + 4.0,
            anchor(place),
            took(*bound),
        );
    }
    let mut words = String::new();
    for ((name, part), line) in QUANTILES.into_iter().zip(0_u32..) {
        let Some(ms) = tally.quantile(part) else { continue };
        let at = buckets.iter().position(|(bound, _)| ms <= *bound).unwrap_or(buckets.len() - 1);
        let high = buckets.get(at).map_or(lowest, |(bound, _)| *bound);
        // The lower bound of the first bucket is not told; buckets are a third to a half wide.
        let low = at.checked_sub(1).and_then(|at| buckets.get(at)).map_or(lowest / 1.5, |(bound, _)| *bound);
        let within = ((ms - low) / (high - low)).clamp(0.0, 1.0);
        let place = (at as f64 + within) * step;
        let y = 12.0 + f64::from(line) * 14.0;
        let (shift, anchor) = if place > 70.0 { ("-4", "end") } else { ("4", "start") };
        let _ = write!(
            svg,
            "<line class=\"quantile\" x1=\"{place:.2}%\" x2=\"{place:.2}%\" y1=\"{:.0}\" y2=\"{FOOT}\"/>",
            y - 9.0,
        );
        // Words stand before all lines.
        let _ = write!(
            words,
            "<text class=\"quantile\" x=\"{place:.2}%\" dx=\"{shift}\" y=\"{y:.0}\" text-anchor=\"{anchor}\">{name} {}</text>",
            took(ms),
        );
    }
    svg.push_str(&words);
    svg.push_str("</svg>");
    svg
}

fn opened(class: &str) -> String {
    format!("<svg class=\"{class}\" width=\"100%\" height=\"{HEIGHT}\" aria-hidden=\"true\" focusable=\"false\">")
}

/// A line of the grid with its value, which stands left of the picture.
fn grid_line(svg: &mut String, y: f64, value: &str) {
    let _ = write!(
        svg,
        "<line class=\"grid\" x1=\"0\" x2=\"100%\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
         <text class=\"tick\" x=\"-8\" y=\"{:.1}\" text-anchor=\"end\">{value}</text>",
        y + 4.0
    );
}

/// The anchor of a word at this place, in percent, so that it stays inside the picture.
fn anchor(place: f64) -> &'static str {
    match place {
        ..4.0 => "start",
        96.0.. => "end",
        _ => "middle",
    }
}

/// The smallest of 1, 2 and 5 times a power of ten that is not below this value; 1 for nothing.
fn ceiling(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let power = 10_f64.powf(value.log10().floor());
    let found = [1.0, 2.0, 5.0, 10.0].into_iter().map(|digit| digit * power).find(|edge| value <= edge * 1.000_001);
    found.unwrap_or(value)
}

/// A value of an axis: `0`, `0.25`, `2.5`, `5,000`.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "for people")]
fn plain(value: f64) -> String {
    if value >= 10.0 || value.fract() == 0.0 {
        return count(value.round() as u64);
    }
    let text = format!("{value:.4}");
    text.trim_end_matches('0').to_owned()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::observe::record::Replay;
    use crate::observe::stats::Blame;

    /// 2026-11-21T12:00:03Z, seven seconds before the end of a bar.
    fn axis() -> (TimeAxis, Now) {
        let now = Now::at(53_000, 1_795_262_403_000);
        (TimeAxis::of(now, 10_000), now)
    }

    fn counts(well: u64, ours: u64) -> RequestCounts {
        let mut tally = RequestCounts::default();
        let took = Some(Duration::from_millis(3));
        (0..well).for_each(|_| tally.count(Blame::Nobody, Some(200), Replay::None, took));
        (0..ours).for_each(|_| tally.count(Blame::Ours, Some(502), Replay::None, took));
        tally
    }

    #[test]
    fn a_bar_shows_a_single_error_among_thousands_and_leads_to_its_requests() {
        let (axis, _) = axis();
        let series = [RequestCounts::default(), counts(5000, 1)];
        let svg = draw_traffic(&series, axis);
        assert!(svg.contains("class=\"ours\" x=\"50.00%\" y=\"194.0\"") && svg.contains("height=\"2.0\""), "{svg}");
        assert!(svg.contains("12:00:00 UTC: requests 5,001 (500/s), operator errors 1</title>"), "{svg}");
        let href = "/ui/requests?since=2026-11-21T12:00:00.000Z&amp;until=2026-11-21T12:00:10.000Z\" tabindex=\"-1\"";
        assert!(svg.contains(href), "{svg}");
        assert!(
            svg.contains(">1,000/s</text>") && svg.contains(">500/s</text>") && svg.contains(">0/s</text>"),
            "{svg}"
        );
        assert!(svg.contains("data-utc=\"2026-11-21T12:00:00.000Z\">12:00</text>"), "a tick each five minutes: {svg}");
        assert!(!svg.contains("style"), "no inline style");
        let mut refused = counts(10, 0);
        refused.count(Blame::Ours, Some(403), Replay::None, None);
        let svg = draw_traffic(&[refused], axis);
        assert!(svg.contains("rect class=\"refused\"") && !svg.contains("rect class=\"ours\""), "{svg}");
        assert!(svg.contains("operator errors 1, of them refused 1</title>"), "{svg}");
        assert!(draw_traffic(&[], axis).ends_with("</svg>"));
        let quarter = vec![counts(1, 0); 90];
        assert_eq!(draw_traffic(&quarter, axis).matches("class=\"tick\" x=").count(), 3 + 3);
    }

    #[test]
    fn a_table_has_the_sums_of_the_chart() {
        let (axis, now) = axis();
        let series: Vec<RequestCounts> = (0..12).map(|at| counts(u64::from(at >= 6), u64::from(at == 11))).collect();
        let spans = traffic_spans(&series, axis, 6, now);
        assert_eq!(spans.iter().map(|span| span.requests.as_str()).collect::<Vec<_>>(), ["7", "0"]);
        assert_eq!((spans[0].ours.as_str(), spans[0].client.as_str()), ("1", "0"));
        assert_eq!(spans[0].from.iso, "2026-11-21T11:59:10.000Z");
        let href = "/ui/requests?since=2026-11-21T11:59:10.000Z&until=2026-11-21T12:00:10.000Z";
        assert_eq!(spans[0].href, href);
    }

    #[test]
    fn quantiles_are_marked_where_they_lie() {
        let mut tally = RequestCounts::default();
        for micros in [70, 100, 150, 200, 300, 90_000] {
            tally.count(Blame::Nobody, Some(200), Replay::None, Some(Duration::from_micros(micros)));
        }
        let svg = draw_durations(&tally);
        for word in
            ["p50 0.", "p95 ", "p99 ", ">up to 0.096 ms: requests 1</title>", ">0.096 ms to 0.128 ms: requests 1<"]
        {
            assert!(svg.contains(word), "{word}: {svg}");
        }
        assert!(!svg.contains("style") && svg.contains("text-anchor=\"end\">p99"), "{svg}");
        assert_eq!(draw_durations(&RequestCounts::default()), "");
        assert_eq!(draw_durations(&counts(3, 0)).matches("class=\"well\"").count(), 1);
    }

    #[test]
    fn an_axis_ends_at_a_round_value() {
        assert_eq!([0.0, 0.1, 0.3, 1.0, 4.2, 10.0, 501.0].map(ceiling), [1.0, 0.1, 0.5, 1.0, 5.0, 10.0, 1000.0]);
        assert_eq!([0.0, 0.25, 2.5, 5.0, 5000.0].map(plain), ["0", "0.25", "2.5", "5", "5,000"]);
    }
}
