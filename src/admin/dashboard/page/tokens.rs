//! `/ui/tokens`: each token's state, from its issue to its expiry, a page of them at a time.

use std::cmp::Reverse;

use askama::Template;

use super::super::super::view::TokenView;
use super::super::Admin;
use super::super::draw::{self, LifeBar};
use super::super::format::{ShownMoment, count, format_span, head};
use super::super::session::SessionVisitor;
use super::{Query, StatusBadge, Top};
use crate::base::time::Now;
use crate::config::Snapshot;
use crate::control::{LedgerLine, TokenSubject};
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
    let (ledger, now, wanted) = (admin.leases.ledger().await, admin.clock.now(), query.wanted());
    // A search looks at users and values, too; without one only those of the page are asked for.
    let subjects = if wanted.is_empty() {
        Vec::new()
    } else {
        admin.leases.subjects(ledger.lines.iter().map(|line| line.key).collect()).await
    };
    let mut found: Vec<&LedgerLine> = if wanted.is_empty() {
        ledger.lines.iter().collect()
    } else {
        let lines = ledger.lines.iter().enumerate();
        let fitting = lines.filter(|(at, line)| mentions(line, subjects.get(*at), &wanted));
        fitting.map(|(_, line)| line).collect()
    };
    found.sort_by_cached_key(|line| urgency(line));
    let pages = found.len().div_ceil(PAGE).max(1);
    let number = query.word("p").parse::<usize>().unwrap_or(1).clamp(1, pages);
    let skipped = (number - 1) * PAGE;
    let shown: Vec<&LedgerLine> = found.iter().skip(skipped).take(PAGE).copied().collect();
    let subjects = admin.leases.subjects(shown.iter().map(|line| line.key).collect()).await;
    let snapshot = admin.reloads.current();
    let rows = shown.iter().enumerate();
    let rows = rows.map(|(at, line)| row(line, subjects.get(at).cloned().unwrap_or_default(), &snapshot, now));
    TokensPage {
        top,
        lines: rows.collect(),
        all: count(ledger.lines.len() as u64),
        found: count(found.len() as u64),
        first: count((skipped + 1) as u64),
        last: count((skipped + shown.len()) as u64),
        number,
        previous: (number > 1).then(|| number - 1),
        next: (number < pages).then_some(number + 1),
        is_searched: !wanted.is_empty(),
        is_searchable: ledger.lines.len() > 5 || !wanted.is_empty(),
        q: query.word("q").to_owned(),
        may: session.may_operate(),
        csrf: session.csrf.clone(),
    }
}

/// Returns whether a key fits the search: by provider, key, state, user or the value of a variable.
fn mentions(line: &LedgerLine, subject: Option<&TokenSubject>, wanted: &str) -> bool {
    let has = |text: &str| text.to_lowercase().contains(wanted);
    has(&line.provider)
        || has(state(line.state()).word)
        || line.key.to_string().starts_with(wanted)
        || subject.is_some_and(|subject| {
            let user = subject.user.as_ref().is_some_and(|user| has(user.user.as_str()) || has(user.owner.name()));
            user || subject.vars.iter().any(|(_, value)| has(value))
        })
}

/// Orders the keys: those that somebody has to look at first, then the tokens that end soonest, then keys without one.
fn urgency(line: &LedgerLine) -> (Reverse<bool>, u64) {
    let ends = line.token.as_ref().map_or(u64::MAX, |token| token.expires);
    (Reverse(is_failing(line.state())), ends)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::secret::Fingerprint;
    use crate::base::vars::Vars;
    use crate::control::{FetchCounts, LedgerToken};
    use crate::token::consent::{ConsentOwner, UserKey, UserName};
    use crate::token::key::KeyBuilder;

    fn line(phase: PhaseKind, expires: Option<u64>) -> LedgerLine {
        let fingerprint = Fingerprint::of(b"token");
        LedgerLine {
            key: KeyBuilder::new("bank").finish(),
            provider: "bank".into(),
            phase,
            token: expires.map(|expires| LedgerToken { generation: 1, fingerprint, issued: 0, expires, renews: None }),
            rest: None,
            last_failure: None,
            failures: 0,
            failing_since: None,
            waiters: 0,
            fetches: FetchCounts::default(),
        }
    }

    #[test]
    fn failing_tokens_come_first_and_then_those_that_end_soonest() {
        let mut lines = [
            line(PhaseKind::Empty, None),
            line(PhaseKind::Live, Some(3000)),
            line(PhaseKind::Resting, None),
            line(PhaseKind::Renewing, Some(1000)),
            line(PhaseKind::Holding, Some(9000)),
        ];
        lines.sort_by_cached_key(urgency);
        let order = lines.map(|line| line.phase);
        let wanted = [PhaseKind::Holding, PhaseKind::Resting, PhaseKind::Renewing, PhaseKind::Live, PhaseKind::Empty];
        assert_eq!(order, wanted);
    }

    #[test]
    fn a_token_is_found_by_its_user_and_by_its_values() {
        let line = line(PhaseKind::Live, Some(1));
        let mut vars = Vars::none();
        vars.push("account".into(), "TH-0042".to_owned());
        let owner = ConsentOwner::Client("erp".into());
        let user = Some(UserKey { owner, provider: "bank".into(), user: UserName::parse("Zoë").unwrap() });
        let subject = TokenSubject { user, vars };
        for found in ["bank", "live", "th-0042", "zoë", "erp", &line.key.to_string()[..6]] {
            assert!(mentions(&line, Some(&subject), found), "{found}");
        }
        for missed in ["th-0043", "account", "resting"] {
            assert!(!mentions(&line, Some(&subject), missed), "{missed}");
        }
        assert!(!mentions(&line, None, "zoë"));
    }
}
