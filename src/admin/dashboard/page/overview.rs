//! `/`: the health of the instance and its recent traffic.

use askama::Template;

use super::super::super::request_filter::RequestFilter;
use super::super::super::view::{ProviderView, StatusView};
use super::super::Admin;
use super::super::chart::{TimeAxis, TrafficSpan, draw_durations, draw_traffic, traffic_spans};
use super::super::format::{ShownMoment, count, format_span, query, rate, share, took};
use super::super::session::SessionVisitor;
use super::runbook::runbook_page;
use super::{LATELY, StatusBadge, Top, ends, quantile};
use crate::base::counted::counted;
use crate::base::time::Now;
use crate::observe::stats::{ErrorKind, RequestStats};
use crate::token::credential_slots::CredentialSlot;

/// The chart: so many bars of so many milliseconds.
const BARS: usize = 90;
const BAR: u64 = 10_000;
/// Bars of one minute.
const BARS_OF_MINUTE: usize = 6;
/// So many kinds of errors are listed.
const MOST_KINDS: usize = 6;
/// A certificate with fewer days than this is a thing that is wrong, as in alert CountersignCertificateEndsSoon.
const ENDS_SOON: i64 = 3;

#[derive(Template)]
#[template(path = "overview.html")]
pub(super) struct Overview {
    top: Top,
    health: StatusBadge,
    /// One sentence on the state of the whole.
    headline: String,
    problems: Vec<CurrentProblem>,
    rate: String,
    lately: String,
    error_share: String,
    connections: String,
    tunnels: String,
    chart: String,
    /// The figures of the chart, minute by minute.
    minutes: Vec<TrafficSpan>,
    chart_total: String,
    chart_peak: String,
    durations: String,
    /// Upper bounds of durations with their counts.
    buckets: Vec<(String, String)>,
    /// What half, 95 % and 99 % of the requests took at most, in words.
    quantiles: [String; 3],
    errors: [Blamed; 3],
    /// The most frequent errors: their number, name, status, client and route, and the address of their list.
    kinds: Vec<FrequentError>,
    status: StatusView,
    uptime: String,
    reloaded: ShownMoment,
    reload: StatusBadge,
    changes: Vec<String>,
    certificates: Vec<(String, ShownMoment, StatusBadge)>,
    may: bool,
    csrf: String,
}

/// Something that is wrong now.
struct CurrentProblem {
    /// The name that the config gives to what is affected.
    name: String,
    badge: StatusBadge,
    detail: String,
    /// The page that says more; empty if there is none.
    page: String,
    /// The runbook that says what to do.
    runbook: &'static str,
}

impl CurrentProblem {
    fn new(name: &str, badge: StatusBadge, detail: String, runbook: &'static str) -> Self {
        debug_assert!(runbook_page(runbook).is_some(), "there is no runbook {runbook}");
        Self { name: name.to_owned(), badge, detail, page: String::new(), runbook }
    }

    fn at(self, page: String) -> Self {
        Self { page, ..self }
    }
}

/// Errors that are alike.
struct FrequentError {
    number: String,
    name: String,
    /// Whose and where: `erp, route scb`.
    subject: String,
    page: String,
}

/// The errors of one party.
struct Blamed {
    /// Its word in the filter of requests.
    fault: &'static str,
    kind: &'static str,
    word: &'static str,
    meaning: &'static str,
    count: String,
    share: String,
}

/// Lists what is wrong now: banks without tokens, key services that are gone, secrets that cannot be read, a store out of
/// reach, an audit log that cannot be written or was lost, a refused config, certificates that have ended or are
/// about to.
fn problems(
    status: &StatusView,
    providers: &[ProviderView],
    errors: &[(&ErrorKind, u64)],
    now: Now,
) -> Vec<CurrentProblem> {
    let mut problems = Vec::new();
    for view in providers.iter().filter(|view| view.credentials == Some(CredentialSlot::Next.as_str())) {
        let badge = StatusBadge::new("warn", "Next credentials");
        let runbook = "alert-CountersignCredentialsPromoted";
        let detail = format!(
            "the bank refuses the current credentials, and calls use those of `[provider.{}.next]`: write them in their \
             place",
            view.name
        );
        problems.push(CurrentProblem::new(&view.name, badge, detail, runbook).at(provider_page(&view.name)));
    }
    for view in providers {
        let badge = match view.state {
            // By its calendar: that is as it should be.
            "closed" if view.hours.as_ref().is_some_and(|hours| !hours.open) => continue,
            "closed" => StatusBadge::new("warn", "Closed"),
            "failing" => StatusBadge::new("warn", "Renewals fail"),
            "resting" => StatusBadge::new("bad", "No token"),
            _ => continue,
        };
        let is_rejected = view.last_failure.as_ref().is_some_and(|failure| failure.class == "fatal");
        let runbook = match view.state {
            "closed" => "provider-closed",
            _ if is_rejected => "alert-CountersignCredentialsRejected",
            _ => "alert-CountersignTokenFetchesFail",
        };
        let mut detail = match &view.last_failure {
            Some(failure) => format!("{}, {}", failure.told(), ShownMoment::of(&failure.at, now).relative),
            None => "its token endpoint is not asked for now".to_owned(),
        };
        match view.rests_until.as_deref().or(view.closed_until.as_deref()) {
            Some(until) => detail += &format!("; asked again {}", ShownMoment::of(until, now).relative),
            None => detail += "; asked again with the next call",
        }
        if let Some(since) = &view.failing_since {
            detail += &format!("; since {}", ShownMoment::of(since, now).clock);
        }
        let is_hit = |kind: &ErrorKind| {
            let by_token = matches!(kind.error, Some("token-unavailable" | "provider-credentials-rejected"));
            by_token && kind.route.as_deref().is_some_and(|route| view.routes.iter().any(|own| own == route))
        };
        let hit: u64 = errors.iter().filter(|(kind, _)| is_hit(kind)).map(|(_, number)| number).sum();
        if hit > 0 {
            detail += &format!(
                "; {} without a token in 15 minutes",
                counted(usize::try_from(hit).unwrap_or(usize::MAX), "call")
            );
        }
        if !view.routes.is_empty() {
            detail += &format!("; routes: {}", view.routes.join(", "));
        }
        problems.push(CurrentProblem::new(&view.name, badge, detail, runbook).at(provider_page(&view.name)));
    }
    for service in status.key_services.iter().filter(|service| service.state != "closed") {
        let badge = StatusBadge::new("bad", if service.state == "halted" { "Halted" } else { "Gone" });
        let mut detail = service.reason.clone().unwrap_or_else(|| "it does not answer".to_owned());
        if let Some(since) = &service.since {
            detail += &format!("; since {}", ShownMoment::of(since, now).clock);
        }
        detail += "; calls that need its signatures are refused";
        problems.push(CurrentProblem::new(&service.service, badge, detail, "alert-CountersignKeyServiceGone"));
    }
    for source in status.secret_sources.iter().filter(|source| source.failing > 0) {
        let badge = StatusBadge::new("warn", "Not read");
        let mut detail = source.reason.clone().unwrap_or_default();
        if let Some(since) = &source.since {
            detail += &format!("; since {}", ShownMoment::of(since, now).clock);
        }
        detail += "; the last values of its secrets are in use";
        let name = format!("secret source {}", source.name);
        problems.push(CurrentProblem::new(&name, badge, detail, "alert-CountersignSecretsNotRead"));
    }
    if let Some(audit) = &status.audit {
        let mut tell = |word, detail: String| {
            let badge = StatusBadge::new("bad", word);
            problems.push(CurrentProblem::new("audit log", badge, detail, "alert-CountersignAuditFailing"));
        };
        if audit.failing {
            tell("Not written", "audit records cannot be written; the log has the reason".to_owned());
        }
        if audit.files_lost > 0 {
            tell("Lost", format!("{} was deleted or replaced while it was written to; the log says when", audit.to));
        }
    }
    if let Some(error) = &status.store.error {
        let badge = StatusBadge::new("bad", "Out of reach");
        problems.push(CurrentProblem::new("store", badge, error.clone(), "token-unavailable"));
    }
    if status.last_reload.error.is_some() {
        let badge = StatusBadge::new("bad", "Refused");
        let detail = "the config on the disk has mistakes; the one before it is in force".to_owned();
        problems.push(CurrentProblem::new("configuration", badge, detail, "alert-CountersignReloadFailed"));
    }
    for end in status.certificates.iter().filter(|end| end.days_left < ENDS_SOON) {
        let (at, badge) = ends(&end.expires_at, now, end.days_left);
        let shown = |view: &&ProviderView| view.client_certificate_expires_at.as_deref() == Some(&*end.expires_at);
        let shown_to = providers.iter().find(shown);
        let verb = if end.days_left < 0 { "ended" } else { "ends" };
        let detail = match shown_to {
            Some(view) => format!("Our certificate for {} {verb} {}", view.name, at.relative),
            None => format!("{verb} {}", at.relative),
        };
        let page = shown_to.map_or_else(String::new, |view| provider_page(&view.name));
        problems.push(CurrentProblem::new(&end.what, badge, detail, "alert-CountersignCertificateEndsSoon").at(page));
    }
    problems
}

/// Says in one sentence how the instance is.
fn headline(draining: bool, problems: &[CurrentProblem]) -> String {
    let told = |problem: &CurrentProblem| format!("{}: {}", problem.name, problem.badge.word.to_lowercase());
    match (draining, problems) {
        (true, _) => "This instance is ending.".to_owned(),
        (false, []) => "All is well.".to_owned(),
        (false, [problem]) => format!("One thing is wrong. {}.", told(problem)),
        (false, [first, second]) => format!("Two things are wrong. {}; {}.", told(first), told(second)),
        (false, [first, second, rest @ ..]) => {
            let (all, more) = (count(problems.len() as u64), rest.len());
            format!("{all} things are wrong. {}; {}; and {more} more.", told(first), told(second))
        }
    }
}

/// The place of a provider on its page.
fn provider_page(name: &str) -> String {
    format!("/ui/providers#p-{}", query(name))
}

/// The most frequent errors of the last quarter of an hour.
fn frequent_errors(request_stats: &RequestStats, now: Now) -> Vec<FrequentError> {
    let all = RequestFilter::default();
    let kinds = request_stats.kinds(now).into_iter().take(MOST_KINDS);
    let told = kinds.map(|(kind, number)| {
        let status = kind.status.map_or_else(|| "hung up".to_owned(), |status| status.to_string());
        let name = kind.error.map_or_else(|| status.clone(), |error| format!("{status} {error}"));
        let client = kind.client.as_deref().unwrap_or("no client");
        let route = kind.route.as_deref().map_or_else(|| "no route".to_owned(), |route| format!("route {route}"));
        FrequentError {
            number: count(number),
            name,
            subject: format!("{client}, {route}"),
            page: super::requests::members(&all, kind),
        }
    });
    told.collect()
}

pub(super) async fn gather(admin: &Admin, session: &SessionVisitor, top: Top) -> Overview {
    let (status, providers) = (admin.status().await, admin.providers().await.providers);
    let now = admin.clock.now();
    let request_stats = admin.dashboard.request_stats.borrow();
    let problems = problems(&status, &providers, &request_stats.kinds(now), now);
    let (minute, lately) = (request_stats.sum(now, 60_000), request_stats.sum(now, LATELY));
    let (series, axis) = (request_stats.series(now, BAR, BARS), TimeAxis::of(now, BAR));
    let blamed = |kind, fault, word, meaning, errors| Blamed {
        kind,
        fault,
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
        health: match (top.draining, problems.iter().any(|problem| problem.badge.kind == "bad"), problems.is_empty()) {
            (true, ..) => StatusBadge::new("warn", "Draining"),
            (false, true, _) => StatusBadge::new("bad", "Ready, with problems"),
            (false, false, false) => StatusBadge::new("warn", "Ready, with problems"),
            (false, false, true) => StatusBadge::new("good", "Ready"),
        },
        headline: headline(top.draining, &problems),
        problems,
        rate: rate(minute.requests, 60),
        lately: count(lately.requests),
        error_share: share(lately.errors(), lately.requests),
        connections: gauges(&|name| admin.metrics.connections(name).get()),
        tunnels: gauges(&|name| admin.metrics.tunnels(name).get()),
        chart: draw_traffic(&series, axis),
        minutes: traffic_spans(&series, axis, BARS_OF_MINUTE, now),
        chart_total: count(series.iter().map(|tally| tally.requests).sum()),
        chart_peak: rate(series.iter().map(|tally| tally.requests).max().unwrap_or(0), BAR / 1000),
        durations: draw_durations(&lately),
        buckets: lately.histogram().iter().map(|(bound, number)| (took(*bound), count(u64::from(*number)))).collect(),
        quantiles: [0.5, 0.95, 0.99].map(|part| quantile(&lately, part)),
        errors: [
            blamed("ours", "operator", "Operator", "the process, its config or its credentials", lately.ours),
            blamed("provider", "provider", "Provider", "a bank failed, or refused a token", lately.provider),
            blamed("client", "client", "Client", "what an application sent, or it hung up", lately.client),
        ],
        kinds: frequent_errors(&request_stats, now),
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
