//! Before a token is thought of: a request's form, the one host that it names, and its route.

use std::net::IpAddr;

use http::header::{EXPECT, HOST};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Version};

use crate::config::{Limits, ReverseListener, ServerNames};
use crate::route::{self, Admission, Authority, Caller, Denied, ForwardTable, RequestTarget};
use crate::serve::fault::Fault;
use crate::serve::requests::headers;

/// The routes and names that a request's target is judged against.
#[derive(Clone, Copy)]
pub enum RoutingTarget<'a> {
    /// The routes of a forward listener, which the target names in absolute form.
    Absolute(&'a ForwardTable),
    /// A callback listener with these names, and the name that TLS asked for.
    Callback(&'a ServerNames, Option<&'a str>),
    /// A forward listener's own page.
    Page,
    /// The routes of a reverse listener, and the name that TLS asked for.
    Reverse(&'a ReverseListener, Option<&'a str>),
    /// The routes of a forward listener, in a tunnel to this place.
    Tunnel(&'a ForwardTable, &'a Authority),
}

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
        match refusal {
            Denied::Malformed(why) => Declined::Fault(Fault::Malformed(why)),
            Denied::MethodRefused => Declined::Fault(Fault::MethodRefused),
            Denied::NotAllowed(_) => Declined::Fault(Fault::ClientNotAllowed),
            Denied::NotFound => Declined::Fault(Fault::RouteNotFound),
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
    let host = host(head, matches!(ground, RoutingTarget::Absolute(_)))?;
    let place = match ground {
        RoutingTarget::Absolute(_) => Some(named(head, host)?),
        RoutingTarget::Callback(names, sni) => {
            belongs(names, sni, host)?;
            None
        }
        RoutingTarget::Page => {
            // Any host name is accepted for the proxy itself, but there must not be two, and it must be a host.
            host.map(route::host_name).transpose().map_err(Fault::Malformed)?;
            None
        }
        RoutingTarget::Reverse(reverse, sni) => {
            belongs(&reverse.names, sni, host)?;
            None
        }
        RoutingTarget::Tunnel(_, to) => {
            // CONNECT, TLS and Host speak of one place; the first two were compared before TLS was spoken.
            if host.is_some_and(|host| !route::ForwardTarget::Tunnel(to).agrees(host)) {
                return Err(Fault::Misdirected);
            }
            None
        }
    };
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
    let forward = |refusal: Denied| match refusal {
        Denied::NotFound => Declined::Fault(Fault::DestinationUnrouted),
        other => Declined::from(other),
    };
    match ground {
        RoutingTarget::Absolute(table) => {
            let place = place.as_ref().ok_or(Fault::Internal)?;
            table.admit(caller, place.asked(), RequestTarget { host: None, ..target }).map_err(forward)
        }
        // Neither has routes.
        RoutingTarget::Callback(..) | RoutingTarget::Page => Err(Fault::RouteNotFound.into()),
        RoutingTarget::Reverse(reverse, _) => Ok(reverse.table.admit(caller, target)?),
        RoutingTarget::Tunnel(table, to) => table
            .admit(caller, route::ForwardTarget::Tunnel(to), RequestTarget { host: None, ..target })
            .map_err(forward),
    }
}

/// Checks that a request to this host, over TLS that asked for this name, belongs on a listener with these names.
fn belongs(names: &ServerNames, sni: Option<&str>, host: Option<&str>) -> Result<(), Fault> {
    let named = host.map(route::host_name).transpose().map_err(Fault::Malformed)?;
    if !names.include(host) {
        return Err(Fault::Misdirected);
    }
    if let (Some(named), Some(sni)) = (named, sni) {
        let is_address = named.starts_with('[') || named.parse::<IpAddr>().is_ok();
        if !is_address && !named.eq_ignore_ascii_case(sni) {
            return Err(Fault::Misdirected);
        }
    }
    Ok(())
}

/// The place that a target in absolute form names, by its scheme.
enum AbsoluteTarget {
    Http(Authority),
    /// Some clients write it to a proxy, instead of opening a tunnel.
    Https(Authority),
}

impl AbsoluteTarget {
    const fn asked(&self) -> route::ForwardTarget<'_> {
        match self {
            AbsoluteTarget::Http(authority) => route::ForwardTarget::Absolute(authority),
            AbsoluteTarget::Https(authority) => route::ForwardTarget::Tunnel(authority),
        }
    }
}

fn named(head: &Parts, host: Option<&str>) -> Result<AbsoluteTarget, Fault> {
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
