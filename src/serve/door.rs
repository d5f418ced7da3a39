//! The way that a request came in.

use std::cell::Cell;
use std::rc::Rc;

use http::HeaderMap;

use super::admission::Ground;
use super::fault::Fault;
use super::identity::{Peer, Proven};
use crate::config::{Listener, Serves};
use crate::route::Authority;

/// The connection that a request came in on.
pub struct Door {
    /// The listener, by position.
    pub listener: usize,
    /// What the connection was believed from its start.
    pub footing: [u8; 32],
    /// Who is at the other end.
    pub peer: Rc<Peer>,
    /// What it speaks to.
    pub entry: Entry,
    /// Bytes that its socket has taken.
    pub sent: Rc<Cell<u64>>,
}

/// What a connection speaks to.
pub enum Entry {
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

impl Door {
    /// What a request through this door is judged against.
    pub fn ground<'a>(&'a self, listener: &'a Listener) -> Result<Ground<'a>, Fault> {
        match (&self.entry, &listener.serves) {
            (Entry::Callback(sni), Serves::Callback(names)) => Ok(Ground::Callback(names, sni.as_deref())),
            (Entry::Proxy, Serves::Forward(forward)) => Ok(Ground::Absolute(&forward.table)),
            (Entry::Reverse(sni), Serves::Reverse(reverse)) => Ok(Ground::Reverse(reverse, sni.as_deref())),
            (Entry::Tunnel(tunnel), Serves::Forward(forward)) => Ok(Ground::Tunnel(&forward.table, &tunnel.to)),
            (Entry::Proxy | Entry::Reverse(_) | Entry::Tunnel(_), Serves::Callback(_))
            | (Entry::Callback(_), Serves::Forward(_) | Serves::Reverse(_))
            | (Entry::Proxy | Entry::Tunnel(_), Serves::Reverse(_))
            | (Entry::Reverse(_), Serves::Forward(_)) => Err(Fault::Internal),
        }
    }
}
