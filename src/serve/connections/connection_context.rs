//! The way that a request came in.

use std::cell::Cell;
use std::rc::Rc;

use http::HeaderMap;

use crate::config::{ListenerConfig, ListenerMode};
use crate::route::Authority;
use crate::serve::fault::Fault;
use crate::serve::requests::admit::RoutingTarget;
use crate::serve::requests::identify::{Peer, Proven};

/// The connection that a request came in on.
pub struct ConnectionContext {
    /// The listener's position in the config.
    pub listener: usize,
    /// The [`ListenerConfig::footing`] of its listener at the time when the connection was opened.
    pub footing: [u8; 32],
    /// The identity of the other end, as far as the connection shows it.
    pub peer: Rc<Peer>,
    pub entry: Ingress,
    /// Bytes that its socket has taken.
    pub sent: Rc<Cell<u64>>,
}

/// The kind of endpoint that a connection reaches.
pub enum Ingress {
    /// A callback listener; the name that TLS asked for.
    Callback(Option<String>),
    /// A forward listener itself, outside of any tunnel.
    Proxy,
    /// A reverse listener; the name that TLS asked for.
    Reverse(Option<String>),
    /// The provider as its client sees it, inside an intercepted tunnel through a forward listener.
    Tunnel(Tunnel),
}

/// A CONNECT tunnel whose TLS is terminated here.
pub struct Tunnel {
    /// The caller that opened it, and the serial of the config under which it was identified.
    pub opener: Cell<(u64, Proven)>,
    /// The `Proxy-Authorization` fields of the CONNECT. Under a new config, and when the proof ends, they must still
    /// identify the caller.
    pub claim: HeaderMap,
    /// The authority that the CONNECT named.
    pub to: Authority,
}

impl ConnectionContext {
    /// Returns the routes and names that a request on this connection is judged against; [`Fault::Internal`] if the
    /// listener has another mode.
    pub fn ground<'a>(&'a self, listener: &'a ListenerConfig) -> Result<RoutingTarget<'a>, Fault> {
        match (&self.entry, &listener.mode) {
            (Ingress::Callback(sni), ListenerMode::Callback(callback)) => {
                Ok(RoutingTarget::Callback(&callback.names, sni.as_deref()))
            }
            (Ingress::Proxy, ListenerMode::Forward(forward)) => Ok(RoutingTarget::Absolute(&forward.table)),
            (Ingress::Reverse(sni), ListenerMode::Reverse(reverse)) => {
                Ok(RoutingTarget::Reverse(reverse, sni.as_deref()))
            }
            (Ingress::Tunnel(tunnel), ListenerMode::Forward(forward)) => {
                Ok(RoutingTarget::Tunnel(&forward.table, &tunnel.to))
            }
            (Ingress::Proxy | Ingress::Reverse(_) | Ingress::Tunnel(_), ListenerMode::Callback(_))
            | (Ingress::Callback(_), ListenerMode::Forward(_) | ListenerMode::Reverse(_))
            | (Ingress::Proxy | Ingress::Tunnel(_), ListenerMode::Reverse(_))
            | (Ingress::Reverse(_), ListenerMode::Forward(_)) => Err(Fault::Internal),
        }
    }
}
