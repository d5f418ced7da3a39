//! `/ui/tokens`: each token's state, from its issue to its expiry, a page of them at a time.

use askama::Template;

use super::super::super::view::TokenView;
use super::super::Admin;
use super::super::draw::{self, LifeBar};
use super::super::format::{ShownMoment, count, format_span, head};
use super::super::session::SessionVisitor;
use super::{Query, StatusBadge, Top};
use crate::base::time::Now;
use crate::config::Snapshot;
use crate::control::{LedgerLine, TokenPage, TokenPageQuery, TokenSearch, TokenSubject};
use crate::token::state::PhaseKind;

/// Rows of one page.
const PAGE: usize = 50;
/// Routes that are named in a row, and that are looked at for it.
const MOST_NAMED: usize = 4;
const MOST_ROUTES: usize = 200;
/// Characters of a user or of a variable's value.
const MOST_VALUE: usize = 60;

#[derive(Template)]
#[template(path = "tokens.html")]
pub(super) struct TokensPage {
    top: Top,
    lines: Vec<TokenRow>,
    all: String,
    found: String,
    /// Places of the first and the last row among those found, from 1.
    first: String,
    last: String,
    /// Number of this page, from 1, and those of its neighbours.
    number: usize,
    previous: Option<usize>,
    next: Option<usize>,
    is_searched: bool,
    is_searchable: bool,
    q: String,
    may: bool,
    csrf: String,
}

struct TokenRow {
    view: TokenView,
    state: StatusBadge,
    alive: Option<Alive>,
    /// The user, with the client or group that has the consent.
    user: Option<(String, String)>,
    vars: Vec<(String, String)>,
    routes: Vec<String>,
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
    let (search, number) = (TokenSearch::parse(query.word("q"), |phase| state(phase).word), query.word("p"));
    let (is_searched, number) = (search.is_some(), number.parse().unwrap_or(1));
    let TokenPage { rows, number, pages, found, all } =
        admin.leases.page(TokenPageQuery { search, number, size: PAGE }).await;
    let (snapshot, now, skipped) = (admin.reloads.current(), admin.clock.now(), (number - 1) * PAGE);
    TokensPage {
        top,
        first: count((skipped + 1) as u64),
        last: count((skipped + rows.len()) as u64),
        lines: rows.into_iter().map(|(line, subject)| row(&line, subject, &snapshot, now)).collect(),
        all: count(all as u64),
        found: count(found as u64),
        number,
        previous: (number > 1).then(|| number - 1),
        next: (number < pages).then_some(number + 1),
        is_searched,
        is_searchable: all > 5 || is_searched,
        q: query.word("q").to_owned(),
        may: session.may_operate(),
        csrf: session.csrf.clone(),
    }
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

/// Names the routes that use this token by the config in force, a few at most.
fn routes(line: &LedgerLine, subject: &TokenSubject, snapshot: &Snapshot, now: Now) -> Vec<String> {
    let of_provider = snapshot.routes.iter().filter(|route| route.provider.name == line.provider).take(MOST_ROUTES);
    let uses = of_provider.filter(|route| match &subject.user {
        Some(_) => route.user.is_some(),
        None => {
            let (active, other) = route.by_slot(now);
            let fits = |key| key == line.key;
            let by_slot = [Some(active), other];
            route.user.is_none() && by_slot.into_iter().flatten().any(|one| fits(one.module.key_for(&subject.vars)))
        }
    });
    uses.take(MOST_NAMED).map(|route| route.name.to_string()).collect()
}

fn row(line: &LedgerLine, subject: TokenSubject, snapshot: &Snapshot, now: Now) -> TokenRow {
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
        routes: routes(line, &subject, snapshot, now),
        vars: subject.vars.iter().map(|(name, value)| (name.to_owned(), head(value, MOST_VALUE))).collect(),
        user: subject
            .user
            .map(|user| (head(user.user.as_str(), MOST_VALUE), format!("{} {}", user.owner.kind(), user.owner.name()))),
        rests: line.rest.as_ref().map(|rest| ShownMoment::at(rest.until, now)),
        failed: failed.map(|failure| (ShownMoment::of(&failure.at, now), failure.class, failure.told())),
        fetched: count(line.fetches.ok),
        failed_fetches: line.fetches.total() - line.fetches.ok,
        view,
    }
}
