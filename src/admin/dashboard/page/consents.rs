//! `/ui/consents`: who has consented, and starting a consent.

use askama::Template;

use super::super::super::view::{ConsentView, ConsentsView as Views, PendingConsentView};
use super::super::format::ShownMoment;
use super::super::session::SessionVisitor;
use super::super::{Admin, StartedHere, draw};
use super::{MOST_SHOWN, Query, StatusBadge, Top};
use crate::base::time::Now;

/// A consent that was started is shown so long after its end, in milliseconds.
const AFTERWARDS: u64 = 60_000;

#[derive(Template)]
#[template(path = "consents.html")]
pub(super) struct ConsentsPage {
    top: Top,
    providers: Vec<String>,
    clients: Vec<String>,
    begun: Vec<StartedConsentView>,
    pending: Vec<PendingRow>,
    more_pending: usize,
    lines: Vec<ConsentRow>,
    all: usize,
    more: usize,
    q: String,
    may: bool,
    csrf: String,
}

/// A consent that was started here.
struct StartedConsentView {
    begun: StartedHere,
    qr: String,
    state: StatusBadge,
    open: bool,
    left: String,
    expires: ShownMoment,
}

/// A consent that waits for its user, wherever it was started.
struct PendingRow {
    view: PendingConsentView,
    started: ShownMoment,
    expires: ShownMoment,
}

struct ConsentRow {
    view: ConsentView,
    state: StatusBadge,
    consented: ShownMoment,
    access: ShownMoment,
    refresh: Option<ShownMoment>,
}

pub(super) async fn gather(admin: &Admin, session: &SessionVisitor, top: Top, query: &Query) -> ConsentsPage {
    let (snapshot, now) = (admin.reloads.current(), admin.clock.now());
    let providers = snapshot.providers.iter().filter(|provider| provider.consents.is_some());
    let providers: Vec<String> = providers.map(|provider| provider.name.to_string()).collect();
    let clients: Vec<String> = snapshot.clients.all.iter().map(|client| client.name.to_string()).collect();
    drop(snapshot);
    let (lines, pending) = if providers.is_empty() {
        (Vec::new(), Vec::new())
    } else {
        (admin.consents.list().await, admin.consents.pending().await)
    };
    let mut dashboard = admin.dashboard.begun.borrow_mut();
    dashboard.retain(|begun| now.wall <= begun.expires.saturating_add(AFTERWARDS));
    // The address of a started consent is shown only to visitors who may start one.
    let mine = dashboard.iter().rev().filter(|_| session.may_operate());
    let begun = mine.map(|begun| {
        let given = lines.iter().any(|line| {
            *line.key.provider == *begun.provider
                && line.key.user.to_string() == begun.user
                && line.consented >= begun.at
        });
        shown(begun, given, now)
    });
    let begun = begun.collect();
    let wanted = query.wanted();
    let Views { consents: views, pending } = Views::of(&lines, &pending);
    let all = views.len();
    let fits = |view: &ConsentView| {
        let texts = [&view.user, &view.owner, &view.provider];
        wanted.is_empty() || texts.iter().any(|text| text.to_lowercase().contains(&wanted))
    };
    let mut found: Vec<_> = views.into_iter().filter(fits).collect();
    let more = found.len().saturating_sub(MOST_SHOWN);
    found.truncate(MOST_SHOWN);
    ConsentsPage {
        top,
        providers,
        clients,
        begun,
        more_pending: pending.len().saturating_sub(MOST_SHOWN),
        pending: pending.into_iter().take(MOST_SHOWN).map(|view| waiting(view, now)).collect(),
        lines: found.into_iter().map(|view| line(view, now)).collect(),
        all,
        more,
        q: query.word("q").to_owned(),
        may: session.may_operate(),
        csrf: session.csrf.clone(),
    }
}

fn shown(begun: &StartedHere, given: bool, now: Now) -> StartedConsentView {
    let open = !given && begun.expires > now.wall;
    let left = begun.expires.saturating_sub(now.wall) / 1000;
    StartedConsentView {
        qr: if open { draw::qr(&begun.url, "QR code of the consent's address") } else { String::new() },
        state: match (given, open) {
            (true, _) => StatusBadge::new("good", "Given"),
            (false, true) => StatusBadge::new("busy", "Waits for the user"),
            (false, false) => StatusBadge::new("bad", "Expired"),
        },
        open,
        left: format!("{}:{:02}", left / 60, left % 60),
        expires: ShownMoment::at(begun.expires, now),
        begun: begun.clone(),
    }
}

fn waiting(view: PendingConsentView, now: Now) -> PendingRow {
    let (started, expires) = (ShownMoment::of(&view.started_at, now), ShownMoment::of(&view.expires_at, now));
    PendingRow { view, started, expires }
}

fn line(view: ConsentView, now: Now) -> ConsentRow {
    ConsentRow {
        state: if view.state == "live" {
            StatusBadge::new("good", "Live")
        } else {
            StatusBadge::new("bad", "Consent required")
        },
        consented: ShownMoment::of(&view.consented_at, now),
        access: ShownMoment::of(&view.access_expires_at, now),
        refresh: ShownMoment::maybe(view.refresh_expires_at.as_deref(), now),
        view,
    }
}
