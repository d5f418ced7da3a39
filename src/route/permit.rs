//! The question, the leave, and the reasons for a no.

use http::{HeaderMap, Method};

use crate::base::vars::Vars;

/// A client's position in the config.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ClientId(pub u16);

/// Who is calling.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Caller {
    /// Nobody was asked (`clients = "anyone"`).
    Anyone,
    /// An identified client.
    Client(ClientId),
}

/// What a request asks for, before anything was decided.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// Its method.
    pub method: &'a Method,
    /// The host it names, lower-case or not; a port is ignored. Absent where HTTP/1.0 names none.
    pub host: Option<&'a str>,
    /// Path and query exactly as received: `/scb/v1/x?y=z`.
    pub path_and_query: &'a str,
    /// Its header fields, for variables.
    pub headers: &'a HeaderMap,
}

/// Leave to make one request on one route. Only [`super::Table::admit`] makes it; without it there is no token.
#[derive(Debug)]
pub struct Permit {
    route: usize,
    path_and_query: String,
    vars: Vars,
}

impl Permit {
    /// For the table alone, once everything was decided.
    pub(super) const fn new(route: usize, path_and_query: String, vars: Vars) -> Self {
        Self { route, path_and_query, vars }
    }

    /// The route, as an index into the config's routes.
    pub const fn route(&self) -> usize {
        self.route
    }

    /// What to ask the provider for: base path, remaining path and query.
    pub fn path_and_query(&self) -> &str {
        &self.path_and_query
    }

    /// The route's variables with this request's values.
    pub const fn vars(&self) -> &Vars {
        &self.vars
    }
}

/// Why a request was not admitted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refusal {
    /// The path can be read in two ways, or a variable's value does not fit.
    Malformed(&'static str),
    /// `TRACE` and its kin.
    MethodRefused,
    /// Something matches, but nothing that this client may use. The route, where exactly one was meant.
    NotAllowed(Option<usize>),
    /// Nothing matches.
    NotFound,
    /// The provider's own token or consent endpoint.
    Reserved(usize),
}
