//! The pages: each gathers what it shows into a struct of texts, which its template lays out.

mod config;
mod consents;
mod overview;
mod providers;
mod request;
mod requests;
mod routes;
mod runbook;
mod setup;
mod tokens;

use askama::Template;

use super::super::view::ReloadView;
use super::format::ShownMoment;
use super::session::SessionVisitor;
use super::{Admin, rendered};
use crate::base::time::Now;

/// Longer lists are cut, and say so.
const MOST_SHOWN: usize = 200;
/// The longest name and the longest value of a query's parameter, in bytes.
const MOST_NAME: usize = 32;
const MOST_VALUE: usize = 2048;
/// Length of the period that pages call "lately", in milliseconds.
const LATELY: u64 = 5 * 60 * 1000;

/// A page of the dashboard, at a path of its own.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum DashboardPage {
    Overview,
    Routes,
    Tokens,
    Providers,
    Consents,
    Requests,
    Setup,
    Config,
}

impl DashboardPage {
    /// All, in the order of the menu.
    pub(super) const ALL: [DashboardPage; 8] = [
        DashboardPage::Overview,
        DashboardPage::Routes,
        DashboardPage::Tokens,
        DashboardPage::Providers,
        DashboardPage::Consents,
        DashboardPage::Requests,
        DashboardPage::Setup,
        DashboardPage::Config,
    ];

    pub(super) const fn path(self) -> &'static str {
        match self {
            DashboardPage::Overview => "/",
            DashboardPage::Routes => "/ui/routes",
            DashboardPage::Tokens => "/ui/tokens",
            DashboardPage::Providers => "/ui/providers",
            DashboardPage::Consents => "/ui/consents",
            DashboardPage::Requests => "/ui/requests",
            DashboardPage::Setup => "/ui/setup",
            DashboardPage::Config => "/ui/config",
        }
    }

    pub(super) const fn title(self) -> &'static str {
        match self {
            DashboardPage::Overview => "Overview",
            DashboardPage::Routes => "Routes",
            DashboardPage::Tokens => "Tokens",
            DashboardPage::Providers => "Providers",
            DashboardPage::Consents => "Consents",
            DashboardPage::Requests => "Requests",
            DashboardPage::Setup => "Set-up",
            DashboardPage::Config => "Config",
        }
    }

    pub(super) fn at(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|page| page.path() == path)
    }

    /// Renders the middle of the page as it is now.
    pub(super) async fn middle(self, admin: &Admin, session: &SessionVisitor, query: &Query) -> String {
        let top = Top::of(admin, query);
        match self {
            DashboardPage::Overview => rendered(&overview::gather(admin, session, top).await),
            DashboardPage::Routes => rendered(&routes::gather(admin, top)),
            DashboardPage::Tokens => rendered(&tokens::gather(admin, session, top, query).await),
            DashboardPage::Providers => rendered(&providers::gather(admin, top).await),
            DashboardPage::Consents => rendered(&consents::gather(admin, session, top, query).await),
            DashboardPage::Requests => rendered(&requests::gather(admin, top, query)),
            DashboardPage::Setup => rendered(&setup::gather(admin, session, top)),
            DashboardPage::Config => rendered(&config::gather(admin, session, top, query)),
        }
    }
}

/// Renders the middle of the page of one request; `None` if it is not kept.
pub(super) async fn request(admin: &Admin, id: &str, query: &Query) -> Option<String> {
    Some(rendered(&request::gather(admin, Top::of(admin, query), id).await?))
}

/// Renders the middle of a runbook; `None` if there is none of this name.
pub(super) fn runbook(admin: &Admin, name: &str, query: &Query) -> Option<String> {
    Some(rendered(&runbook::gather(Top::of(admin, query), name)?))
}

/// The part above every page: the state of the instance as a whole.
#[derive(Template)]
#[template(path = "top.html")]
struct Top {
    now: ShownMoment,
    draining: bool,
    /// The config that was refused, until one is taken.
    refused: Option<RefusedAction>,
    /// Sentence about the result of the form that was just sent; empty if there was none.
    done: &'static str,
}

struct RefusedAction {
    at: ShownMoment,
    by: String,
    error: String,
}

impl Top {
    fn of(admin: &Admin, query: &Query) -> Self {
        let now = admin.clock.now();
        let last = ReloadView::of(&admin.reloads.last());
        let at = ShownMoment::of(&last.at, now);
        let applied = last.error.is_none();
        let refused = last.error.map(|error| RefusedAction { at, by: last.by, error });
        // A known word of the query selects a fixed text, so no part of a URL ends up in a page.
        let done = match query.word("done") {
            "config-level" => "The log level is the config’s again.",
            "ending" => "This instance is ending and does not reload any more.",
            "level" => "The log level is set. It ends by itself.",
            "purge" => "The token is forgotten. The next request that needs it fetches a new one.",
            "refresh" => "A new token was asked for. The old one serves until it is there.",
            "reload" if applied => "The config was read anew and is in force.",
            "revoke" => "The consent is revoked: the user's tokens are forgotten here.",
            "start" => "The consent is started. Its code is below.",
            _ => "",
        };
        Self { now: ShownMoment::at(now.wall, now), draining: admin.draining.get(), refused, done }
    }
}

/// A state in one word, with a mark and a colour for it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct StatusBadge {
    /// `good`, `busy`, `warn`, `bad` or `idle`: the colour and the mark.
    kind: &'static str,
    word: &'static str,
}

impl StatusBadge {
    const fn new(kind: &'static str, word: &'static str) -> Self {
        Self { kind, word }
    }

    /// A shape for each colour, for those who do not tell them apart.
    const fn mark(&self) -> &'static str {
        match self.kind.as_bytes() {
            b"good" => "●",
            b"busy" => "◐",
            b"warn" => "▲",
            b"bad" => "■",
            _ => "○",
        }
    }
}

/// Describes the state of a certificate that expires in this many days.
const fn validity(days: i64) -> StatusBadge {
    match days {
        ..0 => StatusBadge::new("bad", "expired"),
        0..7 => StatusBadge::new("bad", "ends soon"),
        7..30 => StatusBadge::new("warn", "ends soon"),
        30.. => StatusBadge::new("good", "valid"),
    }
}

/// The parameters of a URL's query or of a form, at most 16. Long values of a URL are cut.
#[derive(Clone, Debug, Default)]
pub(in crate::admin) struct Query(Vec<(String, String)>);

impl Query {
    pub(in crate::admin) fn parse(text: &str) -> Self {
        let mut query = Self::parse_bytes(text.as_bytes());
        query.0.retain(|(name, _)| name.len() <= MOST_NAME);
        for (_, value) in &mut query.0 {
            value.truncate(value.floor_char_boundary(MOST_VALUE));
        }
        query
    }

    pub(super) fn parse_bytes(bytes: &[u8]) -> Self {
        Self(form_urlencoded::parse(bytes).into_owned().take(16).collect())
    }

    /// The value of this name; empty where there is none.
    pub(in crate::admin) fn word(&self, name: &str) -> &str {
        self.0.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    /// The names of its parameters.
    pub(in crate::admin) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| &**name)
    }

    /// Returns the search text in lower case; empty if there is none.
    fn wanted(&self) -> String {
        self.word("q").trim().to_lowercase()
    }

    /// Returns the address of the live stream of a page with this query.
    pub(super) fn live(&self, page: DashboardPage) -> String {
        let place = format!("{}?", super::live::PLACE);
        let begins = place.len();
        let mut query = form_urlencoded::Serializer::for_suffix(place, begins);
        query.append_pair("page", page.path());
        for (name, value) in &self.0 {
            if name != "page" {
                query.append_pair(name, value);
            }
        }
        query.finish()
    }
}

/// Milliseconds of a quantile, for people.
fn quantile(tally: &crate::observe::stats::RequestCounts, part: f64) -> String {
    tally.quantile(part).map_or_else(|| "–".to_owned(), super::format::took)
}

/// Whole days and what they mean, for a certificate that ends at this moment.
fn ends(text: &str, now: Now, days: i64) -> (ShownMoment, StatusBadge) {
    (ShownMoment::of(text, now), validity(days))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_found_by_their_paths_and_queries_stay_what_they_are() {
        for page in DashboardPage::ALL {
            assert_eq!(DashboardPage::at(page.path()), Some(page));
        }
        assert_eq!(DashboardPage::at("/ui/"), None);
        let query = Query::parse("q=%3Cscript%3E%22&only=errors&page=other");
        assert_eq!((query.word("q"), query.word("only"), query.word("none")), ("<script>\"", "errors", ""));
        let live = query.live(DashboardPage::Requests);
        assert_eq!(live, "/ui/live?page=%2Fui%2Frequests&q=%3Cscript%3E%22&only=errors");
    }
}
