//! The filter of recent requests, which the dashboard's page and the API share: what a query asks for, and which
//! requests fit.

use super::dashboard::Query;
use crate::base::time::{Now, of_rfc3339};
use crate::observe::record::Replay;
use crate::observe::stats::{Blame, RequestSample};

/// The longest text to search for, in bytes.
const MOST_TEXT: usize = 256;
/// The longest name.
const MOST_NAME: usize = 128;
/// The longest time to look back, in minutes: a day.
const MOST_MINUTES: u64 = 24 * 60;

/// In place of a name: requests without one.
pub(super) const NO_NAME: &str = "-";

/// What requests must be like to be shown. Parts that are not asked for fit all.
#[derive(Clone, Debug, Default)]
pub(super) struct RequestFilter {
    /// In lower case; each must be found.
    words: Vec<String>,
    only: Option<OnlyRequests>,
    fault: Option<Blame>,
    status: Option<(u16, u16)>,
    /// Milliseconds since 1970.
    since: Option<u64>,
    until: Option<u64>,
    /// The parts that were asked for, as the query has them, in the order of [`FilterPart::ALL`].
    asked: Vec<(FilterPart, String)>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum OnlyRequests {
    Errors,
    Replays,
}

/// A parameter of the filter.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum FilterPart {
    Text,
    Only,
    Fault,
    Client,
    Route,
    Provider,
    Error,
    Status,
    Minutes,
    Since,
    Until,
}

impl FilterPart {
    pub(super) const ALL: [Self; 11] = [
        Self::Text,
        Self::Only,
        Self::Fault,
        Self::Client,
        Self::Route,
        Self::Provider,
        Self::Error,
        Self::Status,
        Self::Minutes,
        Self::Since,
        Self::Until,
    ];

    /// The parameter's name in a query.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Text => "q",
            Self::Only => "only",
            Self::Fault => "fault",
            Self::Client => "client",
            Self::Route => "route",
            Self::Provider => "provider",
            Self::Error => "error",
            Self::Status => "status",
            Self::Minutes => "minutes",
            Self::Since => "since",
            Self::Until => "until",
        }
    }

    /// The values that it takes.
    const fn wanted(self) -> &'static str {
        match self {
            Self::Text => "at most 256 bytes of text",
            Self::Only => "`errors` or `replays`",
            Self::Fault => "`client`, `operator` or `provider`",
            Self::Client | Self::Route | Self::Provider => "a name from the config, or `-` for requests without one",
            Self::Error => "the name of an error, such as `rate-limited`, or `-` for requests without one",
            Self::Status => "a status such as `404`, a class such as `4xx`, or `none` for callers that hung up",
            Self::Minutes => "a whole number from 1 to 1440",
            Self::Since | Self::Until => "a date in RFC 3339, such as 2026-11-21T08:30:00Z",
        }
    }
}

/// A value that a parameter does not take. Its text tells which values it does, and repeats nothing of the query.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{}` takes {}", .0.name(), .0.wanted())]
pub(super) struct FilterError(FilterPart);

impl RequestFilter {
    /// Reads it from a query. Other parameters are not looked at.
    pub(super) fn parse(query: &Query, now: Now) -> Result<Self, FilterError> {
        let mut filter = Self::default();
        for part in FilterPart::ALL {
            let text = query.word(part.name()).trim();
            if !text.is_empty() {
                filter.ask(part, text, now).ok_or(FilterError(part))?;
                filter.asked.push((part, text.to_owned()));
            }
        }
        Ok(filter)
    }

    fn ask(&mut self, part: FilterPart, text: &str, now: Now) -> Option<()> {
        let most = if part == FilterPart::Text { MOST_TEXT } else { MOST_NAME };
        if text.len() > most {
            return None;
        }
        match part {
            FilterPart::Text => self.words = text.to_lowercase().split_whitespace().map(str::to_owned).collect(),
            FilterPart::Only => {
                self.only = Some(match text {
                    "errors" => OnlyRequests::Errors,
                    "replays" => OnlyRequests::Replays,
                    _ => return None,
                });
            }
            FilterPart::Fault => {
                let all = [Blame::Client, Blame::Ours, Blame::Provider];
                self.fault = Some(all.into_iter().find(|blame| blame.as_str() == Some(text))?);
            }
            // Compared as they are: see `names`.
            FilterPart::Client | FilterPart::Route | FilterPart::Provider | FilterPart::Error => {}
            FilterPart::Status => self.status = Some(statuses(text)?),
            FilterPart::Minutes => {
                let minutes = text.parse().ok().filter(|minutes| (1..=MOST_MINUTES).contains(minutes))?;
                self.since = Some(now.wall.saturating_sub(minutes * 60_000));
            }
            FilterPart::Since => self.since = self.since.max(Some(of_rfc3339(text)?)),
            FilterPart::Until => self.until = Some(of_rfc3339(text)?),
        }
        Some(())
    }

    /// The value that was asked for; empty if none was.
    pub(super) fn value(&self, part: FilterPart) -> &str {
        self.asked.iter().find(|(known, _)| *known == part).map_or("", |(_, value)| value)
    }

    /// Returns whether nothing is asked for.
    pub(super) const fn is_empty(&self) -> bool {
        self.asked.is_empty()
    }

    /// Returns whether all that is asked for are parts that errors of a kind have in common.
    pub(super) fn is_of_kinds(&self) -> bool {
        let others =
            [FilterPart::Text, FilterPart::Provider, FilterPart::Minutes, FilterPart::Since, FilterPart::Until];
        self.only != Some(OnlyRequests::Replays) && self.asked.iter().all(|(part, _)| !others.contains(part))
    }

    /// The parts that were asked for, as names and values of a query.
    pub(super) fn asked(&self) -> impl Iterator<Item = (FilterPart, &str)> {
        self.asked.iter().map(|(part, value)| (*part, &**value))
    }

    /// Builds the query of this filter with other values of some parts; an empty value leaves a part out.
    pub(super) fn query_with(&self, others: &[(FilterPart, &str)]) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        for known in FilterPart::ALL {
            let other = others.iter().find(|(part, _)| *part == known);
            let value = other.map_or(self.value(known), |(_, value)| value);
            if !value.is_empty() {
                query.append_pair(known.name(), value);
            }
        }
        query.finish()
    }

    /// Returns whether the request is one that was asked for.
    pub(super) fn fits(&self, sample: &RequestSample) -> bool {
        self.fits_but(sample, None)
    }

    /// The same, whatever one part asks for.
    pub(super) fn fits_but(&self, sample: &RequestSample, but: Option<FilterPart>) -> bool {
        let record = &sample.record;
        let asks = |part: FilterPart| but != Some(part);
        let names = |part: FilterPart, name: Option<&str>| {
            let wanted = self.value(part);
            !asks(part) || wanted.is_empty() || name == Some(wanted).filter(|wanted| *wanted != NO_NAME)
        };
        let status = record.status.unwrap_or(0);
        self.only.is_none_or(|only| match only {
            OnlyRequests::Errors => sample.blame != Blame::Nobody,
            OnlyRequests::Replays => record.replay != Replay::None,
        }) && self.fault.is_none_or(|fault| !asks(FilterPart::Fault) || fault == sample.blame)
            && names(FilterPart::Client, record.client.as_deref())
            && names(FilterPart::Route, record.route.as_deref())
            && names(FilterPart::Provider, record.provider.as_deref())
            && names(FilterPart::Error, record.error)
            && self.status.is_none_or(|(low, high)| !asks(FilterPart::Status) || (low <= status && status <= high))
            && self.since.is_none_or(|since| since <= record.start.wall)
            && self.until.is_none_or(|until| record.start.wall <= until)
            && self.words.iter().all(|word| mentions(sample, word.strip_prefix("urn:uuid:").unwrap_or(word)))
    }
}

/// The first and the last status of `404`, `4xx` or `none`.
fn statuses(text: &str) -> Option<(u16, u16)> {
    if text == "none" {
        return Some((0, 0));
    }
    if let Some(class) = text.strip_suffix("xx") {
        let class: u16 = class.parse().ok().filter(|class| (1..=5).contains(class))?;
        return Some((class * 100, class * 100 + 99));
    }
    let status = text.parse().ok().filter(|status| (100..=599).contains(status))?;
    Some((status, status))
}

/// Returns whether a word fits something of the request.
fn mentions(sample: &RequestSample, word: &str) -> bool {
    let record = &sample.record;
    let names = [record.client.as_deref(), record.route.as_deref(), record.provider.as_deref(), record.error];
    record.path.to_lowercase().contains(word)
        || record.method.as_str().eq_ignore_ascii_case(word)
        || record.status.is_some_and(|status| status.to_string() == word)
        || record.id.to_string().starts_with(word)
        || record.trace.is_some_and(|context| context.trace.to_string() == word)
        || names.iter().flatten().any(|name| name.to_lowercase().contains(word))
}

#[cfg(test)]
mod tests {
    use http::Method;
    use uuid::Uuid;

    use super::*;
    use crate::observe::record::AccessRecord;
    use crate::observe::stats::sample_record;

    fn sample() -> RequestSample {
        let record = AccessRecord {
            start: Now::at(0, 1_000_000_000),
            id: Uuid::from_u128(0x6b12_06cd_2f7c_4df3_a48b_348e_73a1_3bdc),
            method: Method::GET,
            client: Some("treasury".into()),
            route: Some("pay".into()),
            provider: Some("meed".into()),
            status: Some(404),
            error: Some("route-not-found"),
            ..sample_record("/nowhere/ABC")
        };
        RequestSample::of(&record, Blame::Client)
    }

    fn filter(query: &str) -> Result<RequestFilter, FilterError> {
        RequestFilter::parse(&Query::parse(query), Now::at(0, 1_000_060_000))
    }

    #[test]
    fn a_request_is_found_by_its_id_as_callers_have_it_and_by_several_words() {
        let found = |text: &str| {
            let query = form_urlencoded::Serializer::new(String::new()).append_pair("q", text).finish();
            filter(&query).unwrap().fits(&sample())
        };
        for text in
            ["urn:uuid:6b1206cd-2f7c-4df3-a48b-348e73a13bdc", "6b12", "get 404", "treasury  /abc", "not-found", "meed"]
        {
            assert!(found(text), "{text}");
        }
        for text in ["get 503", "post 404", "urn:uuid:7b12", "erp"] {
            assert!(!found(text), "{text}");
        }
    }

    #[test]
    fn each_part_alone_and_with_others() {
        for query in [
            "",
            "only=errors",
            "fault=client",
            "client=treasury&route=pay&provider=meed",
            "error=route-not-found",
            "status=404",
            "status=4xx",
            "minutes=1",
            "since=1970-01-12T13:46:40Z&until=1970-01-12T13:46:40Z",
            "each=1&done=reload",
        ] {
            assert!(filter(query).unwrap().fits(&sample()), "{query}");
        }
        for query in [
            "only=replays",
            "fault=operator",
            "client=treas",
            "client=-",
            "error=-",
            "client=treasury&route=read",
            "error=rate-limited",
            "status=403",
            "status=5xx",
            "status=none",
            "since=1970-01-12T13:46:41Z",
            "until=1970-01-12T13:46:39Z",
            "minutes=1&since=1970-01-12T13:46:41Z",
        ] {
            assert!(!filter(query).unwrap().fits(&sample()), "{query}");
        }
    }

    #[test]
    fn anything_else_is_refused_in_words_that_do_not_repeat_it() {
        let long = "x".repeat(10_000);
        for part in FilterPart::ALL {
            let error = filter(&format!("{}={long}", part.name())).unwrap_err().to_string();
            assert!(error.starts_with(&format!("`{}` takes ", part.name())) && error.len() < 120, "{error}");
        }
        for query in ["only=x", "fault=ours", "status=99", "status=9xx", "minutes=0", "since=yesterday", "until=1"] {
            assert!(filter(query).is_err(), "{query}");
        }
        // Noise of any size is read as no filter, or refused.
        let noise: String = (0..10_000_u32).map(|at| char::from((at * 7 % 94 + 33) as u8)).collect();
        let _ = filter(&noise);
        assert_eq!(filter("status=4xx&q=a b").unwrap().query_with(&[(FilterPart::Status, "")]), "q=a+b");
        assert_eq!(filter("q=a").unwrap().query_with(&[(FilterPart::Client, "é&x")]), "q=a&client=%C3%A9%26x");
    }
}
