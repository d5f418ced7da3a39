//! A forward listener outside of any tunnel: requests in absolute form, CONNECT, and its own page.

use http::request::Parts;
use http::{Method, Request};

use super::RequestHandler;
use crate::route::{self, Admission, Authority, Caller, Denied, ForwardTable, ForwardTarget, RequestTarget};
use crate::serve::fault::Fault;

/// A connection to a forward listener.
pub struct ForwardIngress;

impl ForwardIngress {
    pub(super) fn handler<B>(&self, request: &Request<B>) -> RequestHandler {
        if request.method() == Method::CONNECT {
            RequestHandler::Connect
        } else if request.uri().authority().is_none() {
            RequestHandler::Page
        } else {
            RequestHandler::Route
        }
    }
}

/// The routes of a forward listener.
#[derive(Clone, Copy)]
pub struct ForwardRoutes<'a>(pub(super) &'a ForwardTable);

impl ForwardRoutes<'_> {
    pub(super) fn admit(
        self,
        caller: Caller,
        place: Option<&AbsoluteTarget>,
        target: RequestTarget<'_>,
    ) -> Result<Admission, Denied> {
        let place = place.ok_or(Denied::NotFound)?;
        self.0.admit(caller, place.asked(), RequestTarget { host: None, ..target })
    }
}

/// The place that a target in absolute form names, by its scheme.
pub enum AbsoluteTarget {
    Http(Authority),
    /// Some clients write it to a proxy, instead of opening a tunnel.
    Https(Authority),
}

impl AbsoluteTarget {
    /// Reads the target of a request, with which the `Host` field must agree.
    pub(super) fn read(head: &Parts, host: Option<&str>) -> Result<Self, Fault> {
        let authority = head.uri.authority().map_or("", http::uri::Authority::as_str).as_bytes();
        let malformed = |route::Malformed(why)| Fault::Malformed(why);
        let place = match head.uri.scheme_str() {
            Some("http") => AbsoluteTarget::Http(Authority::absolute(authority).map_err(malformed)?),
            Some("https") => AbsoluteTarget::Https(Authority::inner(authority).map_err(malformed)?),
            Some(_) | None => return Err(Fault::Malformed("The request target is neither http nor https.")),
        };
        if host.is_some_and(|host| !place.asked().agrees(host)) {
            return Err(Fault::Malformed("The Host field and the request target name different hosts."));
        }
        Ok(place)
    }

    const fn asked(&self) -> ForwardTarget<'_> {
        match self {
            AbsoluteTarget::Http(authority) => ForwardTarget::Absolute(authority),
            AbsoluteTarget::Https(authority) => ForwardTarget::Tunnel(authority),
        }
    }
}

/// Checks the host of a request for the listener's own page. Any host name is accepted for the proxy itself, but there
/// must not be two, and it must be a host.
pub(super) fn check_page_host(host: Option<&str>) -> Result<(), Fault> {
    host.map(route::host_name).transpose().map_err(Fault::Malformed).map(drop)
}
