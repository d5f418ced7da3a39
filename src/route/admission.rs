//! The decision of a route table about a request: admitted, admitted once its body was read, or denied.

use std::sync::Arc;

use http::{HeaderMap, Method};

use crate::base::vars::Vars;

use super::rule::RouteRule;

/// A client's position in the config.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ClientId(pub u16);

/// The caller of a request, as far as it was identified.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Caller {
    /// A caller that did not have to identify itself (`clients = "anyone"`).
    Anyone,
    /// An identified client, by its position.
    Client(ClientId),
}

/// The parts of a request that decide about its route, before any decision.
#[derive(Clone, Copy, Debug)]
pub struct RequestTarget<'a> {
    /// The method of the request, as received.
    pub method: &'a Method,
    /// The host it names, lower-case or not; a port is ignored. Absent where HTTP/1.0 names none.
    pub host: Option<&'a str>,
    /// Path and query exactly as received: `/scb/v1/x?y=z`.
    pub path_and_query: &'a str,
    /// Its header fields, for variables.
    pub headers: &'a HeaderMap,
}

/// A request admitted to one route. Only [`super::RouteTable::admit`] makes it, or [`AdmissionDraft::complete`] from its
/// result. It is no permission to spend a token yet: the data plane authorizes the request first.
#[derive(Debug)]
pub struct Admitted {
    route: usize,
    path_and_query: String,
    vars: Vars,
    tolerated: bool,
}

impl Admitted {
    /// For this room alone, once everything was decided.
    pub(super) const fn new(route: usize, path_and_query: String, vars: Vars, tolerated: bool) -> Self {
        Self { route, path_and_query, vars, tolerated }
    }

    /// The route, as an index into the config's routes.
    pub const fn route(&self) -> usize {
        self.route
    }

    /// Returns the request target for the provider: base path, remaining path and query.
    pub fn path_and_query(&self) -> &str {
        &self.path_and_query
    }

    /// Returns whether the route's `allow` would have refused the request, were it enforced.
    pub const fn tolerated(&self) -> bool {
        self.tolerated
    }

    /// Returns the request target for the provider, and the route's variables with this request's values.
    pub fn into_parts(self) -> (String, Vars) {
        (self.path_and_query, self.vars)
    }

    /// The route's variables with this request's values.
    pub const fn vars(&self) -> &Vars {
        &self.vars
    }
}

/// A request that may pass, as far as its head goes.
#[derive(Debug)]
pub enum Admission {
    /// A variable of the route stands in the body: it is admitted once the body was read.
    AwaitsBody(AdmissionDraft),
    /// The request is admitted.
    Admitted(Admitted),
}

impl Admission {
    /// The route, as an index into the config's routes.
    pub fn route(&self) -> usize {
        match self {
            Admission::AwaitsBody(draft) => draft.route(),
            Admission::Admitted(admitted) => admitted.route(),
        }
    }

    /// Returns the request target for the provider: base path, remaining path and query.
    pub fn path_and_query(&self) -> &str {
        match self {
            Admission::AwaitsBody(draft) => &draft.path_and_query,
            Admission::Admitted(admitted) => admitted.path_and_query(),
        }
    }
}

/// An admission that still needs a value from the body.
#[derive(Debug)]
pub struct AdmissionDraft {
    pub(super) rule: Arc<RouteRule>,
    pub(super) path_and_query: String,
    /// The values of the route's other variables, in their order.
    pub(super) read: Vec<Option<String>>,
    pub(super) tolerated: bool,
}

impl AdmissionDraft {
    /// The route, as an index into the config's routes.
    pub fn route(&self) -> usize {
        self.rule.route
    }

    /// Admits the request, once the whole body has been gathered.
    pub fn complete(self, body: &[u8]) -> Result<Admitted, Denied> {
        let mut vars = Vars::none();
        let nothing = HeaderMap::new();
        for (var, read) in self.rule.vars.iter().zip(self.read) {
            let value = match read {
                Some(value) => value,
                None => var.read("", "", &nothing, Some(body)).map_err(Denied::Malformed)?,
            };
            vars.push(var.name().clone(), value);
        }
        Ok(Admitted::new(self.rule.route, self.path_and_query, vars, self.tolerated))
    }
}

/// The reason a request was not admitted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Denied {
    /// The path can be read in two ways, or a variable's value does not fit.
    Malformed(&'static str),
    /// The one route that is meant does not take the method.
    MethodNotListed(usize),
    /// A method that no route carries: `TRACE`, `TRACK` or `CONNECT`.
    MethodRefused,
    /// Something matches, but nothing that this client may use. The route, where exactly one was meant.
    NotAllowed(Option<usize>),
    /// No route of any client matches.
    NotFound,
    /// The route has no line for the method and path in its `allow`.
    NotListed(usize),
    /// The provider's own token or consent endpoint.
    Reserved(usize),
    /// The provider's token endpoint, which this route answers itself.
    Stub(usize),
}
