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
    let fits = |told: &&RequestSample| {
        let kind = match only {
            "errors" => told.blame != Blame::Nobody,
            "replays" => told.replay != Replay::None,
            _ => true,
        };
        kind && (wanted.is_empty() || says(told, &wanted))
    };
    let mut found: Vec<_> = request_stats.recent().filter(fits).collect();
    // Workers hand over in turns; a reader wants them as they came.
    found.sort_by_key(|told| std::cmp::Reverse(told.at));
    Requests {
        top,
        lines: found.into_iter().map(|told| line(told, now)).collect(),
        total: count(request_stats.total()),
        seen: request_stats.recent().count(),
        q: query.word("q").to_owned(),
        only,
    }
}

fn says(told: &RequestSample, wanted: &str) -> bool {
    let names = [told.client.as_deref(), told.route.as_deref(), told.error];
    told.path.to_lowercase().contains(wanted)
        || told.method.as_str().to_lowercase() == wanted
        || told.status.is_some_and(|status| status.to_string() == wanted)
        || told.id.to_string().starts_with(wanted)
        || names.iter().flatten().any(|name| name.to_lowercase().contains(wanted))
}

fn line(told: &RequestSample, now: Now) -> RequestRow {
    RequestRow {
        id: told.id.to_string(),
        at: ShownMoment::at(told.at, now),
        method: told.method.to_string(),
        path: told.path.clone(),
        client: told.client.as_deref().unwrap_or("–").to_owned(),
        route: told.route.as_deref().unwrap_or("–").to_owned(),
        status: told.status.map_or_else(|| "hung up".to_owned(), |status| status.to_string()),
        result: match told.blame {
            Blame::Client => StatusBadge::new("idle", "client's error"),
            Blame::Nobody => StatusBadge::new("good", ""),
            Blame::Ours => StatusBadge::new("bad", "our error"),
            Blame::Provider => StatusBadge::new("warn", "provider's error"),
        },
        error: told.error.unwrap_or(""),
        took: lasted(told.took),
        replay: match told.replay {
            Replay::Impossible => "could not be sent again",
            Replay::None => "",
            Replay::Replayed => "sent again with a new token",
        },
    }
}
