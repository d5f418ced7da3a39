//! The way that a request came in.

use std::cell::Cell;
use std::rc::Rc;

use http::HeaderMap;

use super::admit::RoutingTarget;
use super::fault::Fault;
use super::identify::{Peer, Proven};
use crate::config::{ListenerConfig, Serves};
use crate::route::Authority;

/// The connection that a request came in on.
pub struct ConnectionContext {
    /// The listener, by position.
    pub listener: usize,
    /// What the connection was believed from its start.
    pub footing: [u8; 32],
    /// Who is at the other end.
    pub peer: Rc<Peer>,
    /// What it speaks to.
    pub entry: Ingress,
    /// Bytes that its socket has taken.
    pub sent: Rc<Cell<u64>>,
}

/// What a connection speaks to.
pub enum Ingress {
    /// A callback listener; the name that TLS asked for.
    Callback(Option<String>),
    /// A forward listener itself.
    Proxy,
    /// A reverse listener; the name that TLS asked for.
    Reverse(Option<String>),
    /// What it takes for a bank, in a tunnel through a forward listener.
    Tunnel(Tunnel),
}

/// An intercepted tunnel.
pub struct Tunnel {
    /// Who opened it, as the config of this serial sees it.
    pub opener: Cell<(u64, Proven)>,
    /// How it said so. Under a new config, and when the proof ends, it must still be true.
    pub claim: HeaderMap,
    /// Where its client believes to be.
    pub to: Authority,
}

impl ConnectionContext {
    /// What a request through this door is judged against.
    pub fn ground<'a>(&'a self, listener: &'a ListenerConfig) -> Result<RoutingTarget<'a>, Fault> {
        match (&self.entry, &listener.serves) {
            (Ingress::Callback(sni), Serves::Callback(names)) => Ok(RoutingTarget::Callback(names, sni.as_deref())),
            (Ingress::Proxy, Serves::Forward(forward)) => Ok(RoutingTarget::Absolute(&forward.table)),
            (Ingress::Reverse(sni), Serves::Reverse(reverse)) => Ok(RoutingTarget::Reverse(reverse, sni.as_deref())),
            (Ingress::Tunnel(tunnel), Serves::Forward(forward)) => {
                Ok(RoutingTarget::Tunnel(&forward.table, &tunnel.to))
            }
            (Ingress::Proxy | Ingress::Reverse(_) | Ingress::Tunnel(_), Serves::Callback(_))
            | (Ingress::Callback(_), Serves::Forward(_) | Serves::Reverse(_))
            | (Ingress::Proxy | Ingress::Tunnel(_), Serves::Reverse(_))
            | (Ingress::Reverse(_), Serves::Forward(_)) => Err(Fault::Internal),
        }
    }
}
