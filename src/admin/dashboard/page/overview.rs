//! `/`: the health of the instance and its recent traffic.

use askama::Template;

use super::super::super::view::StatusView;
use super::super::Admin;
use super::super::draw;
use super::super::format::{ShownMoment, count, format_span, rate, share, took};
use super::super::session::SessionVisitor;
use super::{LATELY, StatusBadge, Top, ends, quantile};

/// The chart: so many bars of so many milliseconds.
const BARS: usize = 90;
const BAR: u64 = 10_000;

#[derive(Template)]
#[template(path = "overview.html")]
pub(super) struct Overview {
    top: Top,
    health: StatusBadge,
    rate: String,
    lately: String,
    error_share: String,
    quantiles: [(&'static str, String); 3],
    connections: String,
    tunnels: String,
    chart: String,
    chart_total: String,
    chart_peak: String,
    histogram: String,
    quickest: String,
    slowest: String,
    errors: [Blamed; 3],
    status: StatusView,
    uptime: String,
    reloaded: ShownMoment,
    reload: StatusBadge,
    changes: Vec<String>,
    certificates: Vec<(String, ShownMoment, StatusBadge)>,
    may: bool,
    csrf: String,
}

/// Errors by whose fault they are.
struct Blamed {
    kind: &'static str,
    word: &'static str,
    meaning: &'static str,
    count: String,
    share: String,
}

pub(super) async fn gather(admin: &Admin, session: &SessionVisitor, top: Top) -> Overview {
    let status = admin.status().await;
    let now = admin.clock.now();
    let request_stats = admin.dashboard.request_stats.borrow();
    let (minute, lately) = (request_stats.sum(now, 60_000), request_stats.sum(now, LATELY));
    let series = request_stats.series(now, BAR, BARS);
    let buckets = lately.histogram();
    let blamed = |kind, word, meaning, errors| Blamed {
        kind,
        word,
        meaning,
        count: count(errors),
        share: share(errors, lately.requests),
    };
    let gauges = |read: &dyn Fn(&str) -> i64| {
        let sum: i64 = status.listeners.iter().map(|listener| read(&listener.name)).sum();
        count(u64::try_from(sum).unwrap_or(0))
    };
    let certificates = status.certificates.iter().take(8).map(|end| {
        let (at, pill) = ends(&end.expires_at, now, end.days_left);
        (end.what.clone(), at, pill)
    });
    Overview {
        health: if top.draining { StatusBadge::new("warn", "Draining") } else { StatusBadge::new("good", "Ready") },
        rate: rate(minute.requests, 60),
        lately: count(lately.requests),
        error_share: share(lately.errors(), lately.requests),
        quantiles: [("p50", 0.5), ("p95", 0.95), ("p99", 0.99)].map(|(name, part)| (name, quantile(&lately, part))),
        connections: gauges(&|name| admin.metrics.connections(name).get()),
        tunnels: gauges(&|name| admin.metrics.tunnels(name).get()),
        chart: draw::draw_bars(&series, 120, "tall"),
        chart_total: count(series.iter().map(|tally| tally.requests).sum()),
        chart_peak: rate(series.iter().map(|tally| tally.requests).max().unwrap_or(0), BAR / 1000),
        histogram: if buckets.is_empty() { String::new() } else { draw::draw_histogram(&lately, 90) },
        quickest: buckets.first().map_or_else(String::new, |(bound, _)| format!("up to {}", took(*bound))),
        slowest: buckets.last().map_or_else(String::new, |(bound, _)| took(*bound)),
        errors: [
            blamed("ours", "Ours", "countersign, its config or its credentials", lately.ours),
            blamed("provider", "Provider", "a bank failed, or refused a token", lately.provider),
            blamed("client", "Client", "what an application sent, or it hung up", lately.client),
        ],
        uptime: format_span(status.uptime_seconds),
        reloaded: ShownMoment::of(&status.last_reload.at, now),
        reload: if status.last_reload.error.is_none() {
            StatusBadge::new("good", "applied")
        } else {
            StatusBadge::new("bad", "refused")
        },
        changes: status.last_reload.changes.iter().take(20).cloned().collect(),
        certificates: certificates.collect(),
        may: session.may_operate(),
        csrf: session.csrf.clone(),
        status,
        top,
    }
}
