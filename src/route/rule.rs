//! One route, as far as matching goes.

use std::fmt;
use std::sync::Arc;

use http::Method;

use super::admission::{Caller, ClientId};
use super::path::PathRules;
use super::pattern::Allow;
use super::vars::Var;

/// To whom a route is open.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Opens {
    /// To every caller, identified or not.
    Everyone,
    /// Open to these identified clients alone.
    Only(Vec<ClientId>),
}

impl Opens {
    /// Returns whether this caller may use the route.
    pub fn admits(&self, caller: Caller) -> bool {
        match (self, caller) {
            (Opens::Everyone, Caller::Anyone | Caller::Client(_)) => true,
            (Opens::Only(_), Caller::Anyone) => false,
            (Opens::Only(clients), Caller::Client(client)) => clients.contains(&client),
        }
    }

    /// To whom either is open.
    pub fn joined(&self, other: &Self) -> Self {
        match (self, other) {
            (Opens::Everyone, _) | (_, Opens::Everyone) => Opens::Everyone,
            (Opens::Only(clients), Opens::Only(others)) => {
                let more = others.iter().filter(|other| !clients.contains(other));
                Opens::Only(clients.iter().chain(more).copied().collect())
            }
        }
    }

    /// Returns whether some caller may use both.
    pub fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Opens::Everyone, Opens::Everyone) => true,
            (Opens::Everyone, Opens::Only(clients)) | (Opens::Only(clients), Opens::Everyone) => !clients.is_empty(),
            (Opens::Only(clients), Opens::Only(others)) => clients.iter().any(|client| others.contains(client)),
        }
    }
}

/// Says which of the provider's paths no route may reach: handed the path behind the upstream's base path, as the most
/// generous server would read it.
pub type Reserved = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// The conditions under which a route matches, and its rewriting of the path.
#[derive(Clone)]
pub struct RouteRule {
    /// The route, as an index into the config's routes.
    pub route: usize,
    /// The host that it is for, in lower case and without port; absent: any.
    pub host: Option<Arc<str>>,
    /// Whole leading segments: empty, or `/like/this` (see [`super::configured_prefix`]).
    pub prefix: Arc<str>,
    /// The methods that it is for; empty: any.
    pub methods: Vec<Method>,
    /// The callers that may use the route.
    pub opens: Opens,
    /// True if the prefix is removed before forwarding.
    pub strip: bool,
    /// The base path of the upstream: empty, or `/like/this`.
    pub base: Arc<str>,
    /// The provider's paths that it may reach, judged without the base path; empty: all.
    pub allow: Vec<Allow>,
    /// Its variables, in their declared order.
    pub vars: Vec<Var>,
    /// The ambiguities of a path that the route permits.
    pub path_rules: PathRules,
    /// The provider's paths that it must not reach.
    pub reserved: Reserved,
    /// Those of them that are answered here instead: the token endpoint, for applications that insist on logging in.
    pub stub: Option<Reserved>,
    /// True if `allow` refuses requests. If false, a request that it would refuse passes, and the admission records it.
    pub enforce: bool,
}

impl RouteRule {
    /// Returns whether the rule applies to this method.
    pub(super) fn takes(&self, method: &Method) -> bool {
        self.methods.is_empty() || self.methods.contains(method)
    }

    /// Returns whether one request of one caller could match both rules, host and path being equal.
    pub(super) fn clashes(&self, other: &Self) -> bool {
        let methods =
            self.methods.is_empty() || other.methods.is_empty() || self.methods.iter().any(|m| other.takes(m));
        methods && self.opens.overlaps(&other.opens)
    }
}

impl fmt::Debug for RouteRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RouteRule")
            .field("route", &self.route)
            .field("host", &self.host)
            .field("prefix", &self.prefix)
            .field("opens", &self.opens)
            .finish_non_exhaustive()
    }
}
