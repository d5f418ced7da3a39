//! The routes of a config, from which the table of each listener is built.

use std::sync::Arc;

use crate::base::origin::BaseUrl;
use crate::config::spanned_text::Position;
use crate::route::{Clash, Malformed, RouteRule};
use crate::syntax::Diagnostics;

/// All routes, and the conflicts between them that were found so far. Routes that one request could mean alike are
/// reported once per pair.
pub(in crate::config) struct ServedRoutes<'a> {
    pub(in crate::config) routes: Vec<ServedRoute<'a>>,
    pub(super) report: &'a Diagnostics,
    reported: Vec<Clash>,
    unnameable: Vec<(usize, Malformed)>,
}

/// A route, as far as the tables of listeners need it; what could not be read is absent.
pub(in crate::config) struct ServedRoute<'a> {
    pub(in crate::config) name: &'a str,
    pub(in crate::config) head: &'a Position,
    /// Position for messages about the route's match.
    pub(in crate::config) matched: &'a Position,
    /// Indices of the listeners that serve it.
    pub(in crate::config) listeners: &'a [usize],
    pub(in crate::config) upstream: Option<&'a BaseUrl>,
    pub(in crate::config) rule: Option<Arc<RouteRule>>,
    /// The token endpoint that the route answers itself, as a place of its own for forward listeners.
    pub(in crate::config) token_place: Option<(BaseUrl, RouteRule)>,
}

impl<'a> ServedRoutes<'a> {
    pub(in crate::config) fn new(routes: impl IntoIterator<Item = ServedRoute<'a>>, report: &'a Diagnostics) -> Self {
        let routes = routes.into_iter().collect();
        Self { routes, report, reported: Vec::new(), unnameable: Vec::new() }
    }

    /// The routes that are served on the listener at this index.
    pub(super) fn on(&self, listener: usize) -> impl Iterator<Item = &ServedRoute<'a>> {
        self.routes.iter().filter(move |route| route.listeners.contains(&listener))
    }

    /// Reports two routes that one request could mean alike, unless another listener has.
    pub(super) fn report_clash(&mut self, clash: Clash, help: &str) {
        if let (Some(first), Some(second), false) =
            (self.routes.get(clash.first), self.routes.get(clash.second), self.reported.contains(&clash))
        {
            let title = format!("routes `{}` and `{}` match the same requests", first.name, second.name);
            second.matched.error(self.report, title, help);
            self.reported.push(clash);
        }
    }

    /// Takes note of a route whose upstream no client of a forward listener can name.
    pub(super) fn note_unnameable(&mut self, route: usize, why: Malformed) {
        if !self.unnameable.contains(&(route, why)) {
            self.unnameable.push((route, why));
        }
    }

    /// Reports what was noted while the tables were built.
    pub(in crate::config) fn finish(self) {
        for (route, why) in self.unnameable {
            if let Some(route) = self.routes.get(route) {
                let title =
                    format!("no client of a forward listener can name the upstream of route `{}`: {why}", route.name);
                route.head.error(
                    self.report,
                    title,
                    "write its host in plain lower-case ASCII, without a dot at the end",
                );
            }
        }
    }
}
