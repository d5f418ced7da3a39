//! `/ui/tokens`: each token's state, from its issue to its expiry.

use askama::Template;

use super::super::super::view::TokenView;
use super::super::Admin;
use super::super::draw::{self, LifeBar};
use super::super::format::{ShownMoment, count, format_span};
use super::super::session::SessionVisitor;
use super::{MOST_SHOWN, Query, StatusBadge, Top};
use crate::base::time::Now;
use crate::control::LedgerLine;
use crate::token::state::PhaseKind;

#[derive(Template)]
#[template(path = "tokens.html")]
pub(super) struct TokensPage {
    top: Top,
    lines: Vec<TokenRow>,
    all: usize,
    more: usize,
    q: String,
    may: bool,
    csrf: String,
}

struct TokenRow {
    view: TokenView,
    state: StatusBadge,
    alive: Option<Alive>,
    rests: Option<ShownMoment>,
    failed: Option<(ShownMoment, &'static str, String)>,
    fetched: String,
    failed_fetches: u64,
}

struct Alive {
    bar: String,
    generation: u64,
    fingerprint: String,
    age: String,
    issued: ShownMoment,
    renews: Option<ShownMoment>,
    expires: ShownMoment,
}

pub(super) async fn gather(admin: &Admin, session: &SessionVisitor, top: Top, query: &Query) -> TokensPage {
    let (ledger, now, wanted) = (admin.leases.ledger().await, admin.clock.now(), query.wanted());
    let fits = |line: &&LedgerLine| {
        wanted.is_empty()
            || line.provider.to_lowercase().contains(&wanted)
            || line.key.to_string().starts_with(&wanted)
            || state(line.state()).word.to_lowercase().contains(&wanted)
    };
    let mut found: Vec<_> = ledger.lines.iter().filter(fits).collect();
    // Those that somebody has to look at stand above the others, each in the order of the table.
    found.sort_by_key(|line| !is_failing(line.state()));
    TokensPage {
        top,
        all: ledger.lines.len(),
        more: found.len().saturating_sub(MOST_SHOWN),
        lines: found.into_iter().take(MOST_SHOWN).map(|line| row(line, now)).collect(),
        q: query.word("q").to_owned(),
        may: session.may_operate(),
        csrf: session.csrf.clone(),
    }
}

const fn is_failing(phase: PhaseKind) -> bool {
    matches!(phase, PhaseKind::Holding | PhaseKind::Resting)
}

const fn state(phase: PhaseKind) -> StatusBadge {
    match phase {
        PhaseKind::Empty => StatusBadge::new("idle", "No token"),
        PhaseKind::Fetching => StatusBadge::new("busy", "Fetching"),
        PhaseKind::Live => StatusBadge::new("good", "Live"),
        PhaseKind::Renewing => StatusBadge::new("busy", "Renewing"),
        PhaseKind::Holding => StatusBadge::new("warn", "Live, renewal failed"),
        PhaseKind::Resting => StatusBadge::new("bad", "Resting"),
        PhaseKind::Settling => StatusBadge::new("busy", "Refused when new, tried again"),
    }
}

fn row(line: &LedgerLine, now: Now) -> TokenRow {
    let view = TokenView::of(line, now);
    let alive = line.token.as_ref().map(|token| Alive {
        bar: draw::timeline(LifeBar {
            issued: token.issued,
            renews: token.renews,
            expires: token.expires,
            now: now.wall,
        }),
        generation: token.generation,
        fingerprint: token.fingerprint.to_string(),
        age: format_span(now.wall.saturating_sub(token.issued) / 1000),
        issued: ShownMoment::at(token.issued, now),
        renews: token.renews.map(|at| ShownMoment::at(at, now)),
        expires: ShownMoment::at(token.expires, now),
    });
    let failed = view.last_failure.as_ref();
    TokenRow {
        state: state(line.state()),
        alive,
        rests: line.rest.as_ref().map(|rest| ShownMoment::at(rest.until, now)),
        failed: failed.map(|failure| (ShownMoment::of(&failure.at, now), failure.class, failure.told())),
        fetched: count(line.fetches.ok),
        failed_fetches: line.fetches.total() - line.fetches.ok,
        view,
    }
}
