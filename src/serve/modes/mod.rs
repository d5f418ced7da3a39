//! The modes of listeners, as their connections and requests see them; each in a file of its own.
//!
//! A connection comes in by an [`Ingress`], which says how its requests begin. A request that is for a route or for
//! countersign itself is judged against a [`RoutingTarget`].
//!
//! | file | subject |
//! |---|---|
//! | `callback` | a callback listener |
//! | `forward` | a forward listener outside of any tunnel, and its own page |
//! | `reverse` | a reverse listener |
//! | `server_names` | the hosts of a listener that has names |
//! | `tunnel` | an intercepted tunnel through a forward listener |

mod callback;
mod forward;
mod reverse;
mod server_names;
mod tunnel;

use http::Request;
use http::request::Parts;

use crate::config::ListenerMode;
use crate::route::{Admission, Authority, Caller, Denied, RequestTarget};
use crate::serve::fault::Fault;
use forward::check_page_host;

pub use callback::{CallbackIngress, CallbackTarget};
pub use forward::{AbsoluteTarget, ForwardIngress, ForwardRoutes};
pub use reverse::{ReverseIngress, ReverseTarget};
pub use tunnel::{Tunnel, TunnelRoutes};

/// The kind of endpoint that a connection reaches.
pub enum Ingress {
    Callback(CallbackIngress),
    /// A forward listener itself, outside of any tunnel.
    Forward(ForwardIngress),
    Reverse(ReverseIngress),
    /// The provider as its client sees it, inside an intercepted tunnel through a forward listener.
    Tunnel(Tunnel),
}

impl Ingress {
    /// Returns the ingress of a connection to a listener of this mode. `sni`: the name that TLS asked for.
    pub fn of(mode: &ListenerMode, sni: Option<String>) -> Self {
        match mode {
            ListenerMode::Callback(_) => Ingress::Callback(CallbackIngress { sni }),
            ListenerMode::Forward(_) => Ingress::Forward(ForwardIngress),
            ListenerMode::Reverse(_) => Ingress::Reverse(ReverseIngress { sni }),
        }
    }

    /// Decides what answers a request.
    pub fn handler<B>(&self, request: &Request<B>) -> RequestHandler {
        match self {
            Ingress::Callback(_) => RequestHandler::Callback,
            Ingress::Forward(ingress) => ingress.handler(request),
            Ingress::Reverse(ingress) => ingress.handler(request),
            Ingress::Tunnel(_) => RequestHandler::Route,
        }
    }

    /// Returns the routes and names that a request is judged against; [`Fault::Internal`] if the listener has another
    /// mode.
    pub fn target<'a>(&'a self, mode: &'a ListenerMode) -> Result<RoutingTarget<'a>, Fault> {
        let target = match self {
            Ingress::Callback(ingress) => mode.callback().map(|mode| RoutingTarget::Callback(ingress.target(mode))),
            Ingress::Forward(_) => mode.forward().map(|mode| RoutingTarget::Absolute(ForwardRoutes(&mode.table))),
            Ingress::Reverse(ingress) => mode.reverse().map(|mode| RoutingTarget::Reverse(ingress.target(mode))),
            Ingress::Tunnel(tunnel) => mode.forward().map(|mode| RoutingTarget::Tunnel(tunnel.target(mode))),
        };
        target.ok_or(Fault::Internal)
    }

    /// Returns whether the client knows us as its proxy, so that `Authorization` is meant for the provider and a caller
    /// without credentials is answered with 407.
    pub const fn is_proxy(&self) -> bool {
        match self {
            Ingress::Forward(_) => true,
            Ingress::Callback(_) | Ingress::Reverse(_) | Ingress::Tunnel(_) => false,
        }
    }

    /// The tunnel whose opener is the caller of every request; `None`: each request identifies its caller.
    pub const fn tunnel(&self) -> Option<&Tunnel> {
        match self {
            Ingress::Tunnel(tunnel) => Some(tunnel),
            Ingress::Callback(_) | Ingress::Forward(_) | Ingress::Reverse(_) => None,
        }
    }

    /// Returns whether a connection without TLS may begin with the preface of HTTP/2 (RFC 9113 section 3.3).
    pub const fn speaks_h2_without_tls(&self) -> bool {
        match self {
            Ingress::Callback(_) | Ingress::Reverse(_) => true,
            Ingress::Forward(_) | Ingress::Tunnel(_) => false,
        }
    }
}

/// The code that answers a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RequestHandler {
    /// The return of a browser from a consent.
    Callback,
    /// CONNECT.
    Connect,
    /// The endpoints of consents.
    Consent,
    /// A forward listener's own page.
    Page,
    /// The routes of the listener.
    Route,
}

/// The routes and names that a request's target is judged against.
#[derive(Clone, Copy)]
pub enum RoutingTarget<'a> {
    /// The routes of a forward listener, which the target names in absolute form.
    Absolute(ForwardRoutes<'a>),
    Callback(CallbackTarget<'a>),
    /// A forward listener's own page.
    Page,
    Reverse(ReverseTarget<'a>),
    /// The routes of a forward listener, inside a tunnel.
    Tunnel(TunnelRoutes<'a>),
}

impl<'a> RoutingTarget<'a> {
    /// Returns the target of a request that is never sent. `sni`: the name that TLS would ask for; `to`: the end of the
    /// tunnel that it would come through. `None`: the mode has no routes.
    pub fn sample(mode: &'a ListenerMode, sni: Option<&'a str>, to: Option<&'a Authority>) -> Option<Self> {
        match mode {
            ListenerMode::Callback(_) => None,
            ListenerMode::Forward(forward) => Some(match to {
                Some(to) => RoutingTarget::Tunnel(TunnelRoutes { table: &forward.table, to }),
                None => RoutingTarget::Absolute(ForwardRoutes(&forward.table)),
            }),
            ListenerMode::Reverse(reverse) => Some(RoutingTarget::Reverse(ReverseTarget { listener: reverse, sni })),
        }
    }

    /// Returns whether the request target has a scheme.
    pub const fn is_absolute(self) -> bool {
        match self {
            RoutingTarget::Absolute(_) => true,
            RoutingTarget::Callback(_) | RoutingTarget::Page | RoutingTarget::Reverse(_) | RoutingTarget::Tunnel(_) => {
                false
            }
        }
    }

    /// Checks that the one host that a request names belongs here. Returns the place that a target in absolute form
    /// names.
    pub fn check_host(self, head: &Parts, host: Option<&str>) -> Result<Option<AbsoluteTarget>, Fault> {
        match self {
            RoutingTarget::Absolute(_) => return AbsoluteTarget::read(head, host).map(Some),
            RoutingTarget::Callback(target) => target.check_host(host)?,
            RoutingTarget::Page => check_page_host(host)?,
            RoutingTarget::Reverse(target) => target.check_host(host)?,
            RoutingTarget::Tunnel(routes) => routes.check_host(host)?,
        }
        Ok(None)
    }

    /// Finds the route of a request. `place` is the result of [`RoutingTarget::check_host`].
    pub fn admit(
        self,
        caller: Caller,
        place: Option<&AbsoluteTarget>,
        target: RequestTarget<'_>,
    ) -> Result<Admission, Denied> {
        match self {
            RoutingTarget::Absolute(routes) => routes.admit(caller, place, target),
            // Neither has routes.
            RoutingTarget::Callback(_) | RoutingTarget::Page => Err(Denied::NotFound),
            RoutingTarget::Reverse(reverse) => reverse.listener.table.admit(caller, target),
            RoutingTarget::Tunnel(routes) => routes.admit(caller, target),
        }
    }

    /// The fault of a request without a route.
    pub const fn unrouted(self) -> Fault {
        match self {
            RoutingTarget::Absolute(_) | RoutingTarget::Tunnel(_) => Fault::DestinationUnrouted,
            RoutingTarget::Callback(_) | RoutingTarget::Page | RoutingTarget::Reverse(_) => Fault::RouteNotFound,
        }
    }
}
