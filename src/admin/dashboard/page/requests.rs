//! `/ui/requests`: some of the last requests, metadata only.

use askama::Template;

use super::super::Admin;
use super::super::format::{ShownMoment, count, lasted};
use super::{Query, StatusBadge, Top};
use crate::base::time::Now;
use crate::observe::record::Replay;
use crate::observe::stats::{Blame, RequestSample};

#[derive(Template)]
#[template(path = "requests.html")]
pub(super) struct Requests {
    top: Top,
    lines: Vec<RequestRow>,
    total: String,
    seen: usize,
    q: String,
    only: &'static str,
}

struct RequestRow {
    id: String,
    at: ShownMoment,
    method: String,
    path: String,
    client: String,
    route: String,
    status: String,
    result: StatusBadge,
    error: &'static str,
    reason: &'static str,
    took: String,
    replay: &'static str,
}

pub(super) fn gather(admin: &Admin, top: Top, query: &Query) -> Requests {
    let (request_stats, now, wanted) = (admin.dashboard.request_stats.borrow(), admin.clock.now(), query.wanted());
    let only = match query.word("only") {
        "errors" => "errors",
        "replays" => "replays",
        _ => "",
    };
    let fits = |sample: &&RequestSample| {
        let kind = match only {
            "errors" => sample.blame != Blame::Nobody,
            "replays" => sample.replay != Replay::None,
            _ => true,
        };
        kind && (wanted.is_empty() || mentions(sample, &wanted))
    };
    let mut found: Vec<_> = request_stats.recent().filter(fits).collect();
    // Workers hand over in turns; a reader wants them as they came.
    found.sort_by_key(|sample| std::cmp::Reverse(sample.at));
    Requests {
        top,
        lines: found.into_iter().map(|sample| line(sample, now)).collect(),
        total: count(request_stats.total()),
        seen: request_stats.recent().count(),
        q: query.word("q").to_owned(),
        only,
    }
}

/// Returns whether each of the words fits something of the request.
fn mentions(sample: &RequestSample, wanted: &str) -> bool {
    wanted.split_whitespace().all(|word| mentions_word(sample, word.strip_prefix("urn:uuid:").unwrap_or(word)))
}

fn mentions_word(sample: &RequestSample, wanted: &str) -> bool {
    let names = [sample.client.as_deref(), sample.route.as_deref(), sample.provider.as_deref(), sample.error];
    sample.path.to_lowercase().contains(wanted)
        || sample.method.as_str().to_lowercase() == wanted
        || sample.status.is_some_and(|status| status.to_string() == wanted)
        || sample.id.to_string().starts_with(wanted)
        || names.iter().flatten().any(|name| name.to_lowercase().contains(wanted))
}

fn line(sample: &RequestSample, now: Now) -> RequestRow {
    RequestRow {
        id: sample.id.to_string(),
        at: ShownMoment::at(sample.at, now),
        method: sample.method.to_string(),
        path: sample.path.clone(),
        client: sample.client.as_deref().unwrap_or("–").to_owned(),
        route: sample.route.as_deref().unwrap_or("–").to_owned(),
        status: sample.status.map_or_else(|| "hung up".to_owned(), |status| status.to_string()),
        result: match sample.blame {
            Blame::Client => StatusBadge::new("idle", "client’s error"),
            Blame::Nobody => StatusBadge::new("good", ""),
            Blame::Ours => StatusBadge::new("bad", "countersign’s error"),
            Blame::Provider => StatusBadge::new("warn", "provider’s error"),
        },
        error: sample.error.unwrap_or(""),
        reason: sample.reason.unwrap_or(""),
        took: lasted(sample.took),
        replay: match sample.replay {
            Replay::Challenged => "sent again with a nonce",
            Replay::Impossible => "could not be sent again",
            Replay::None => "",
            Replay::Replayed => "sent again with a new token",
        },
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::Method;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_request_is_found_by_its_id_as_callers_have_it_and_by_several_words() {
        let sample = RequestSample {
            at: 0,
            took: Duration::ZERO,
            id: Uuid::from_u128(0x6b12_06cd_2f7c_4df3_a48b_348e_73a1_3bdc),
            method: Method::GET,
            path: "/nowhere/ABC".to_owned(),
            client: Some("treasury".into()),
            route: None,
            provider: Some("meed".into()),
            status: Some(404),
            error: Some("route-not-found"),
            reason: None,
            blame: Blame::Client,
            replay: Replay::None,
        };
        for found in
            ["urn:uuid:6b1206cd-2f7c-4df3-a48b-348e73a13bdc", "6b12", "get 404", "treasury  /abc", "not-found", "meed"]
        {
            assert!(mentions(&sample, found), "{found}");
        }
        for missed in ["get 503", "post 404", "urn:uuid:7b12", "erp"] {
            assert!(!mentions(&sample, missed), "{missed}");
        }
    }
}
