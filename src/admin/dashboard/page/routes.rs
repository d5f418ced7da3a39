//! `/ui/routes`: what leads where, and how it goes there.

use askama::Template;

use super::super::super::view::RouteView;
use super::super::Admin;
use super::super::draw;
use super::super::format::{count, rate, share};
use super::{LATELY, MOST_SHOWN, StatusBadge, Top, quantile};
use crate::base::time::Now;
use crate::observe::stats::{RequestCounts, RequestStats};

const BARS: usize = 45;
const BAR: u64 = 20_000;

#[derive(Template)]
#[template(path = "routes.html")]
pub(super) struct RoutesPage {
    top: Top,
    lines: Vec<RouteRow>,
    more: usize,
    /// Requests that found no route.
    lost: Option<RouteTraffic>,
}

struct RouteRow {
    name: String,
    matches: String,
    provider: String,
    upstream: String,
    /// The clients that may use it; empty: every caller that is let in.
    clients: Vec<String>,
    on_behalf: bool,
    mode: StatusBadge,
    listeners: String,
    traffic: RouteTraffic,
}

struct RouteTraffic {
    rate: String,
    requests: String,
    errors: u64,
    error_share: String,
    p50: String,
    p95: String,
    replays: String,
    spark: String,
}

impl RouteTraffic {
    fn of(request_stats: &RequestStats, name: &str, now: Now) -> Self {
        let lately: RequestCounts = request_stats.route(name, now, LATELY);
        Self {
            rate: rate(lately.requests, LATELY / 1000),
            requests: count(lately.requests),
            errors: lately.errors(),
            error_share: share(lately.errors(), lately.requests),
            p50: quantile(&lately, 0.5),
            p95: quantile(&lately, 0.95),
            replays: count(lately.replays),
            spark: draw::draw_bars(&request_stats.route_series(name, now, BAR, BARS), 28, "spark"),
        }
    }
}

pub(super) fn gather(admin: &Admin, top: Top) -> RoutesPage {
    let (routes, request_stats, now) =
        (admin.routes().routes, admin.dashboard.request_stats.borrow(), admin.clock.now());
    let more = routes.len().saturating_sub(MOST_SHOWN);
    let line = |route: &RouteView| RouteRow {
        name: route.name.clone(),
        matches: matches(route),
        provider: route.provider.clone(),
        upstream: route.upstream.clone(),
        clients: if route.open_to_everyone { Vec::new() } else { route.clients.clone() },
        on_behalf: route.r#as == "user",
        mode: if route.mode == "enforce" {
            StatusBadge::new("good", "enforces")
        } else {
            StatusBadge::new("warn", "only reports")
        },
        listeners: route.listeners.join(", "),
        traffic: RouteTraffic::of(&request_stats, &route.name, now),
    };
    let lines = routes.iter().take(MOST_SHOWN).map(line).collect();
    let lost =
        (request_stats.route("", now, 15 * 60 * 1000).requests > 0).then(|| RouteTraffic::of(&request_stats, "", now));
    RoutesPage { top, lines, more, lost }
}

/// Describes the requests that a route matches: `GET, POST pay.example/scb`.
fn matches(route: &RouteView) -> String {
    let methods = if route.methods.is_empty() { "any method".to_owned() } else { route.methods.join(", ") };
    let place = match (&route.host, &route.path) {
        (None, None) => route.upstream.clone(),
        (host, path) => format!("{}{}", host.as_deref().unwrap_or(""), path.as_deref().unwrap_or("/")),
    };
    format!("{methods} {place}")
}
