//! `/ui/requests`: some of the last requests, metadata only.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use askama::Template;

use super::super::super::request_filter::{FilterPart, NO_NAME, RequestFilter};
use super::super::Admin;
use super::super::format::{ShownMoment, count, lasted};
use super::{MOST_SHOWN, Query, StatusBadge, Top};
use crate::base::time::Now;
use crate::observe::record::Replay;
use crate::observe::stats::{Blame, ErrorKind, RequestSample, RequestStats};

/// The most values of one part of the filter that are offered.
const MOST_CHIPS: usize = 8;

#[derive(Template)]
#[template(path = "requests.html")]
pub(super) struct Requests {
    top: Top,
    lines: Vec<RequestRow>,
    /// Lines that fit and are not shown.
    more: usize,
    total: String,
    seen: usize,
    q: String,
    only: String,
    /// The filter's other parts, which the form sends along.
    kept: Vec<(&'static str, String)>,
    chips: Vec<ChipRow>,
    /// The mistake in the filter; empty if there is none.
    mistaken: String,
    is_filtered: bool,
}

/// The values of one part of the filter.
struct ChipRow {
    name: &'static str,
    chips: Vec<FilterChip>,
}

/// A value by which the list can be narrowed, or is.
struct FilterChip {
    word: String,
    number: String,
    href: String,
    is_on: bool,
}

struct RequestRow {
    id: String,
    at: ShownMoment,
    method: String,
    path: String,
    client: String,
    route: String,
    provider: String,
    status: String,
    result: StatusBadge,
    error: &'static str,
    reason: &'static str,
    took: String,
    replay: &'static str,
    /// The number of errors that are alike, and the address of their list; `None` for a request that stands for itself.
    alike: Option<(String, String)>,
}

pub(super) fn gather(admin: &Admin, top: Top, query: &Query) -> Requests {
    let (request_stats, now) = (admin.dashboard.request_stats.borrow(), admin.clock.now());
    let (filter, mistaken) = match RequestFilter::parse(query, now) {
        Ok(filter) => (filter, String::new()),
        Err(error) => (RequestFilter::default(), error.to_string()),
    };
    let is_each = !query.word("each").is_empty();
    let mut lines = match (mistaken.is_empty(), is_each) {
        (false, _) => Vec::new(),
        (true, true) => found(&request_stats, &filter).into_iter().map(|sample| line(sample, now)).collect(),
        (true, false) => grouped(&request_stats, &filter, now),
    };
    let more = lines.len().saturating_sub(MOST_SHOWN);
    lines.truncate(MOST_SHOWN);
    let in_form = [FilterPart::Text, FilterPart::Only];
    let others = filter.asked().filter(|(part, _)| !in_form.contains(part));
    let mut kept: Vec<_> = others.map(|(part, value)| (part.name(), value.to_owned())).collect();
    if is_each {
        kept.push(("each", "1".to_owned()));
    }
    Requests {
        top,
        lines,
        more,
        total: count(request_stats.total()),
        seen: request_stats.recent().count(),
        q: filter.value(FilterPart::Text).to_owned(),
        only: filter.value(FilterPart::Only).to_owned(),
        kept,
        chips: chips(&request_stats, &filter),
        is_filtered: !filter.is_empty() || is_each,
        mistaken,
    }
}

/// Those that fit. Workers hand over in turns; a reader wants them as they came.
fn found<'a>(request_stats: &'a RequestStats, filter: &RequestFilter) -> Vec<&'a RequestSample> {
    let mut found: Vec<_> = request_stats.recent().filter(|sample| filter.fits(sample)).collect();
    found.sort_by_key(|sample| Reverse(sample.record.start.wall));
    found
}

/// The same, where errors that are alike are one line: the newest stands for all.
fn grouped(request_stats: &RequestStats, filter: &RequestFilter, now: Now) -> Vec<RequestRow> {
    let mut lines: Vec<(RequestRow, Option<ErrorKind>)> = Vec::new();
    let mut kinds: BTreeMap<ErrorKind, u64> = BTreeMap::new();
    for sample in found(request_stats, filter) {
        let kind = sample.kind();
        let alike = kind.as_ref().map_or(1, |kind| {
            let number = kinds.entry(kind.clone()).or_default();
            *number += 1;
            *number
        });
        if alike == 1 {
            lines.push((line(sample, now), kind));
        }
    }
    // All are counted, and only some kept.
    let number = |kind: &ErrorKind| {
        let kept = kinds.get(kind).copied().unwrap_or_default();
        if filter.is_of_kinds() { request_stats.number_of(kind, now).max(kept) } else { kept }
    };
    let alike = |(mut line, kind): (RequestRow, Option<ErrorKind>)| {
        let number = kind.as_ref().map_or(0, number);
        line.alike = kind.filter(|_| number > 1).map(|kind| (count(number), members(filter, &kind)));
        line
    };
    lines.into_iter().map(alike).collect()
}

/// Returns the address of the list of errors of one kind, one by one.
pub(super) fn members(filter: &RequestFilter, kind: &ErrorKind) -> String {
    let status = kind.status.map_or_else(|| "none".to_owned(), |status| status.to_string());
    let query = filter.query_with(&[
        (FilterPart::Fault, kind.blame.as_str().unwrap_or_default()),
        (FilterPart::Error, kind.error.unwrap_or(NO_NAME)),
        (FilterPart::Status, &status),
        (FilterPart::Client, kind.client.as_deref().unwrap_or(NO_NAME)),
        (FilterPart::Route, kind.route.as_deref().unwrap_or(NO_NAME)),
    ]);
    format!("/ui/requests?{query}&each=1")
}

/// The values by which the list can be narrowed. Each number is that of the kept requests that the list would have.
fn chips(request_stats: &RequestStats, filter: &RequestFilter) -> Vec<ChipRow> {
    let class = |sample: &RequestSample| match sample.record.status {
        None => "none".to_owned(),
        Some(status) => format!("{}xx", status / 100),
    };
    let name = |name: Option<&str>| name.unwrap_or_default().to_owned();
    let value = |part: FilterPart, sample: &RequestSample| match part {
        FilterPart::Fault => name(sample.blame.as_str()),
        FilterPart::Status => class(sample),
        FilterPart::Error => name(sample.record.error),
        FilterPart::Client => name(sample.record.client.as_deref()),
        FilterPart::Route => name(sample.record.route.as_deref()),
        FilterPart::Provider => name(sample.record.provider.as_deref()),
        FilterPart::Text | FilterPart::Only | FilterPart::Minutes | FilterPart::Since | FilterPart::Until => {
            String::new()
        }
    };
    let row = |title: &'static str, part: FilterPart| {
        let asked = filter.value(part);
        let mut numbers: BTreeMap<String, u64> = BTreeMap::new();
        for sample in request_stats.recent().filter(|sample| filter.fits_but(sample, Some(part))) {
            *numbers.entry(value(part, sample)).or_default() += 1;
        }
        numbers.remove("");
        if !asked.is_empty() {
            numbers.entry(asked.to_owned()).or_default();
        }
        let mut numbers: Vec<_> = numbers.into_iter().collect();
        numbers.sort_by_key(|(word, number)| (word != asked, Reverse(*number)));
        let chips = numbers.into_iter().take(MOST_CHIPS).map(|(word, number)| {
            let is_on = word == asked;
            let query = filter.query_with(&[(part, if is_on { "" } else { &*word })]);
            let number = if number == 0 { String::new() } else { count(number) };
            FilterChip { href: format!("/ui/requests?{query}"), word, number, is_on }
        });
        ChipRow { name: title, chips: chips.collect() }
    };
    let mut rows = vec![
        row("Fault", FilterPart::Fault),
        row("Status", FilterPart::Status),
        row("Error", FilterPart::Error),
        row("Client", FilterPart::Client),
        row("Route", FilterPart::Route),
        row("Provider", FilterPart::Provider),
    ];
    let asked = filter.value(FilterPart::Minutes);
    let times = [("5", "5 min"), ("15", "15 min"), ("60", "1 h")].map(|(minutes, word)| {
        let is_on = minutes == asked;
        let query = filter.query_with(&[(FilterPart::Minutes, if is_on { "" } else { minutes })]);
        FilterChip { word: word.to_owned(), number: String::new(), href: format!("/ui/requests?{query}"), is_on }
    });
    rows.push(ChipRow { name: "Last", chips: times.into() });
    rows.retain(|row| !row.chips.is_empty());
    rows
}

/// The party that has to act, with its colour.
pub(super) const fn result(sample: &RequestSample) -> StatusBadge {
    match (sample.blame, sample.record.status) {
        // It did what the settings say.
        (Blame::Client, status) if Blame::Client.is_refusal(status) => StatusBadge::new("warn", "client: refused"),
        (Blame::Ours, status) if Blame::Ours.is_refusal(status) => StatusBadge::new("warn", "operator: settings"),
        (Blame::Client, _) => StatusBadge::new("idle", "client’s error"),
        (Blame::Nobody, _) => StatusBadge::new("good", ""),
        (Blame::Ours, _) => StatusBadge::new("bad", "operator’s error"),
        (Blame::Provider, _) => StatusBadge::new("warn", "provider’s error"),
    }
}

fn line(sample: &RequestSample, now: Now) -> RequestRow {
    let record = &sample.record;
    let name = |name: &Option<std::sync::Arc<str>>| name.as_deref().unwrap_or_default().to_owned();
    RequestRow {
        id: record.id.to_string(),
        at: ShownMoment::at(record.start.wall, now),
        method: record.method.to_string(),
        path: record.path.clone(),
        client: name(&record.client),
        route: name(&record.route),
        provider: name(&record.provider),
        status: record.status.map_or_else(|| "hung up".to_owned(), |status| status.to_string()),
        result: result(sample),
        error: record.error.unwrap_or(""),
        reason: record.reason.unwrap_or(""),
        took: lasted(record.took),
        replay: match record.replay {
            Replay::Challenged => "sent again with a nonce",
            Replay::Impossible => "could not be sent again",
            Replay::None => "",
            Replay::Replayed => "sent again with a new token",
        },
        alike: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::record::AccessRecord;
    use crate::observe::stats::{StatsBatch, sample_record};

    fn stats(samples: Vec<RequestSample>, kinds: Vec<(ErrorKind, u64)>) -> RequestStats {
        let mut request_stats = RequestStats::default();
        request_stats.add(Now::at(1000, 1000), StatsBatch { tallies: Vec::new(), kinds, samples });
        request_stats
    }

    fn filter(query: &str) -> RequestFilter {
        RequestFilter::parse(&Query::parse(query), Now::at(2000, 2000)).unwrap()
    }

    #[test]
    fn equal_errors_are_one_line_with_their_number_and_a_link_to_them() {
        let record = AccessRecord {
            status: Some(429),
            error: Some("rate-limited"),
            client: Some("erp".into()),
            ..sample_record("/pay")
        };
        let limited = RequestSample::of(&record, Blame::Client);
        let mut samples = vec![limited.clone(); 50];
        samples.push(RequestSample::of(&sample_record("/ok"), Blame::Nobody));
        samples.push(RequestSample::of(&sample_record("/ok"), Blame::Nobody));
        let request_stats = stats(samples, vec![(limited.kind().unwrap(), 1204)]);
        let now = Now::at(2000, 2000);
        let lines = grouped(&request_stats, &filter(""), now);
        let told: Vec<_> = lines.iter().map(|line| line.alike.as_ref().map(|(number, _)| &**number)).collect();
        assert_eq!(told.iter().flatten().collect::<Vec<_>>(), [&"1,204"], "what went well stands for itself");
        assert_eq!(told.len(), 3);
        let link = "/ui/requests?fault=client&client=erp&route=-&error=rate-limited&status=429&each=1";
        assert_eq!(lines.iter().find_map(|line| line.alike.as_ref()).unwrap().1, link);
        let members = filter(link.split_once('?').unwrap().1);
        assert_eq!(found(&request_stats, &members).len(), 50);
        let narrower = grouped(&request_stats, &filter("q=pay"), now);
        assert_eq!(narrower[0].alike.as_ref().unwrap().0, "50", "of the kept ones");
    }

    #[test]
    fn chips_narrow_the_list_and_widen_it_again() {
        let record = |status, client: &str| AccessRecord {
            status: Some(status),
            client: Some(client.into()),
            ..sample_record("/x")
        };
        let samples = vec![
            RequestSample::of(&record(200, "erp"), Blame::Nobody),
            RequestSample::of(&record(503, "erp"), Blame::Provider),
            RequestSample::of(&record(503, "treasury"), Blame::Provider),
        ];
        let request_stats = stats(samples, Vec::new());
        let told = |query: &str, name: &str| {
            let rows = chips(&request_stats, &filter(query));
            let row = rows.into_iter().find(|row| row.name == name).expect("a row of chips");
            let told = |chip: FilterChip| format!("{} {} {} {}", chip.word, chip.number, chip.is_on, chip.href);
            row.chips.into_iter().map(told).collect::<Vec<_>>()
        };
        let found = ["5xx 2 false /ui/requests?status=5xx", "2xx 1 false /ui/requests?status=2xx"];
        assert_eq!(told("", "Status"), found);
        let found = ["erp 1 true /ui/requests?status=5xx", "treasury 1 false /ui/requests?client=treasury&status=5xx"];
        assert_eq!(told("status=5xx&client=erp", "Client"), found);
        assert_eq!(told("client=gone", "Client")[0], "gone  true /ui/requests?");
    }
}
