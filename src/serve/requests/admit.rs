//! Before a token is thought of: a request's form, the one host that it names, and its route.

use http::header::{EXPECT, HOST};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Version};

use crate::config::Limits;
use crate::route::{Admission, Caller, Denied, RequestTarget};
use crate::serve::fault::{Fault, Refusal, RefusalCause};
use crate::serve::modes::{AbsoluteTarget, RoutingTarget};
use crate::serve::requests::headers;

/// A response that is given here instead of by a provider.
#[derive(Clone, Copy, Debug)]
pub enum Declined {
    Fault(Fault),
    /// By the stub of this route's provider, with a worthless token.
    Stub(usize),
}

impl From<Fault> for Declined {
    fn from(fault: Fault) -> Self {
        Declined::Fault(fault)
    }
}

impl From<Denied> for Declined {
    fn from(refusal: Denied) -> Self {
        let not_allowed = |refusal| Declined::Fault(Fault::ClientNotAllowed(refusal));
        match refusal {
            Denied::Malformed(why) => Declined::Fault(Fault::Malformed(why)),
            Denied::MethodNotListed(route) => not_allowed(Refusal::at(route, RefusalCause::Method)),
            Denied::MethodRefused => Declined::Fault(Fault::MethodRefused),
            Denied::NotAllowed(Some(route)) => not_allowed(Refusal::at(route, RefusalCause::Client)),
            Denied::NotAllowed(None) => not_allowed(Refusal::of(RefusalCause::Routes)),
            Denied::NotFound => Declined::Fault(Fault::RouteNotFound),
            Denied::NotListed(route) => not_allowed(Refusal::at(route, RefusalCause::Path)),
            Denied::Reserved(_) => Declined::Fault(Fault::ReservedEndpoint),
            Denied::Stub(route) => Declined::Stub(route),
        }
    }
}

/// A request whose form was checked and whose host belongs to the listener or tunnel that received it. Only [`clear`]
/// makes it: every handler of a request, for a route or for an endpoint of countersign itself, obtains one first (a
/// CONNECT has checks of its own).
pub struct AdmittedForm<'a> {
    host: Option<&'a str>,
    place: Option<AbsoluteTarget>,
    path_and_query: &'a str,
}

/// Checks the form of a request, and that the one host that it names belongs on this ground.
pub fn clear<'a>(ground: RoutingTarget<'_>, limits: &Limits, head: &'a Parts) -> Result<AdmittedForm<'a>, Fault> {
    let host = host(head, ground.is_absolute())?;
    let place = ground.check_host(head, host)?;
    let path_and_query = head.uri.path_and_query().map_or("", PathAndQuery::as_str);
    let limit = limits.uri_bytes;
    if limit != 0 && path_and_query.len() > limit {
        return Err(Fault::UriTooLong);
    }
    if !headers::framing_is_plain(&head.headers) {
        return Err(Fault::Malformed("Transfer-Encoding must be exactly `chunked`."));
    }
    // A list (RFC 9110 section 10.1.1), of which empty members say nothing.
    let members = head.headers.get_all(EXPECT).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let mut expected = members.map(<[u8]>::trim_ascii).filter(|member| !member.is_empty());
    if !expected.all(|member| member.eq_ignore_ascii_case(b"100-continue")) {
        return Err(Fault::Expectation);
    }
    Ok(AdmittedForm { host, place, path_and_query })
}

/// Checks the request's form and finds its route.
pub fn admit(ground: RoutingTarget<'_>, limits: &Limits, caller: Caller, head: &Parts) -> Result<Admission, Declined> {
    let AdmittedForm { host, place, path_and_query } = clear(ground, limits, head)?;
    if head.method == Method::CONNECT {
        return Err(Fault::Malformed("This is no place for a CONNECT; send an ordinary request.").into());
    }
    let target = RequestTarget { method: &head.method, host, path_and_query, headers: &head.headers };
    ground.admit(caller, place.as_ref(), target).map_err(|refusal| match refusal {
        Denied::NotFound => Declined::Fault(ground.unrouted()),
        other => Declined::from(other),
    })
}

/// Returns the one host that a request names: `Host`, `:authority`, or the authority of an absolute target. The route
/// table judges whether it is a host at all. A target with a scheme (`absolute`) has a default port, so there the two
/// are compared later.
fn host(head: &Parts, absolute: bool) -> Result<Option<&str>, Fault> {
    let mut fields = head.headers.get_all(HOST).iter();
    let field = fields.next();
    if fields.next().is_some() {
        return Err(Fault::Malformed("There is more than one Host field."));
    }
    let field = match field.map(HeaderValue::to_str) {
        Some(Ok(field)) => Some(field),
        Some(Err(_)) => return Err(Fault::Malformed("The Host field is not a host.")),
        None => None,
    };
    let authority = head.uri.authority().map(http::uri::Authority::as_str);
    match (authority, field) {
        (Some(authority), Some(field)) if !absolute && !authority.eq_ignore_ascii_case(field) => {
            Err(Fault::Malformed("The Host field and the request target name different hosts."))
        }
        (Some(_), Some(field)) => Ok(Some(field)),
        (Some(host), None) | (None, Some(host)) => Ok(Some(host)),
        (None, None) if head.version == Version::HTTP_10 => Ok(None),
        (None, None) => Err(Fault::Malformed("The Host field is missing.")),
    }
}
