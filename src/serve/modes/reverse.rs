//! A reverse listener: it stands in the provider's place.

use http::Request;

use super::RequestHandler;
use super::server_names::belongs;
use crate::config::ReverseListener;
use crate::serve::fault::Fault;

/// The path prefix of countersign's own endpoints, for which no route is asked.
const ENDPOINT_PREFIX: &str = "/.countersign/";

/// A connection to a reverse listener.
pub struct ReverseIngress {
    /// The name that TLS asked for.
    pub sni: Option<String>,
}

impl ReverseIngress {
    pub(super) fn handler<B>(&self, request: &Request<B>) -> RequestHandler {
        if request.uri().path().starts_with(ENDPOINT_PREFIX) { RequestHandler::Consent } else { RequestHandler::Route }
    }

    pub(super) fn target<'a>(&'a self, listener: &'a ReverseListener) -> ReverseTarget<'a> {
        ReverseTarget { listener, sni: self.sni.as_deref() }
    }
}

/// The routes of a reverse listener, and the name that TLS asked for.
#[derive(Clone, Copy)]
pub struct ReverseTarget<'a> {
    pub(super) listener: &'a ReverseListener,
    pub(super) sni: Option<&'a str>,
}

impl ReverseTarget<'_> {
    pub(super) fn check_host(self, host: Option<&str>) -> Result<(), Fault> {
        belongs(&self.listener.names, self.sni, host)
    }
}
