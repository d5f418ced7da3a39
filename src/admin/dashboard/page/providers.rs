//! `/ui/providers`: the banks, and how their token endpoints are.

use askama::Template;

use super::super::super::view::{Fetches, ProviderView};
use super::super::Admin;
use super::super::format::{ShownMoment, count};
use super::{StatusBadge, Top, ends};
use crate::base::time::Now;

#[derive(Template)]
#[template(path = "providers.html")]
pub(super) struct ProvidersPage {
    top: Top,
    lines: Vec<ProviderRow>,
}

struct ProviderRow {
    view: ProviderView,
    state: StatusBadge,
    first_expiry: Option<ShownMoment>,
    rests: Option<ShownMoment>,
    closed: Option<ShownMoment>,
    /// When it closes, if it has hours and is open.
    closes: Option<ShownMoment>,
    failed: Option<(ShownMoment, &'static str, String)>,
    fetches: Vec<(&'static str, String)>,
    certificate: Option<(ShownMoment, StatusBadge)>,
    unknown_refusals: u64,
}

pub(super) async fn gather(admin: &Admin, top: Top) -> ProvidersPage {
    let now = admin.clock.now();
    let lines = admin.providers().await.providers.into_iter().map(|view| {
        let unknown_refusals = admin.metrics.unknown_refusals(&view.name);
        row(view, unknown_refusals, now)
    });
    ProvidersPage { top, lines: lines.collect() }
}

/// How a provider is, in a few words.
pub(super) fn state(view: &ProviderView) -> StatusBadge {
    match view.state {
        "idle" => StatusBadge::new("idle", "Not asked yet"),
        "live" => StatusBadge::new("good", "Issues tokens"),
        "fetching" => StatusBadge::new("busy", "Being asked"),
        "failing" => StatusBadge::new("warn", "Renewals fail"),
        "closed" => StatusBadge::new("warn", "Closed"),
        _ => StatusBadge::new("bad", "No token"),
    }
}

fn row(view: ProviderView, unknown_refusals: u64, now: Now) -> ProviderRow {
    let certificate = view.client_certificate_expires_at.as_deref().zip(view.client_certificate_days_left);
    let open = view.hours.as_ref().filter(|hours| hours.open);
    ProviderRow {
        state: state(&view),
        first_expiry: ShownMoment::maybe(view.first_expiry.as_deref(), now),
        rests: ShownMoment::maybe(view.rests_until.as_deref(), now),
        closed: ShownMoment::maybe(view.closed_until.as_deref(), now),
        closes: ShownMoment::maybe(open.and_then(|hours| hours.changes_at.as_deref()), now),
        failed: view.last_failure.as_ref().map(|f| (ShownMoment::of(&f.at, now), f.class, f.told())),
        fetches: outcomes(view.fetches),
        certificate: certificate.map(|(at, days)| ends(at, now, days)),
        unknown_refusals,
        view,
    }
}

/// Lists the outcomes of token calls with their counts, without those that never occurred.
fn outcomes(fetches: Fetches) -> Vec<(&'static str, String)> {
    let Fetches { ok, closed, consent_required, fatal, rate_limited, transient } = fetches;
    let all = [
        ("ok", ok),
        ("closed", closed),
        ("consent required", consent_required),
        ("fatal", fatal),
        ("rate-limited", rate_limited),
        ("transient", transient),
    ];
    all.into_iter().filter(|(_, number)| *number > 0).map(|(word, number)| (word, count(number))).collect()
}
