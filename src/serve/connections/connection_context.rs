//! The way that a request came in.

use std::rc::Rc;

use crate::base::sent_bytes::SentBytes;
use crate::config::ListenerConfig;
use crate::serve::fault::Fault;
use crate::serve::modes::{Ingress, RoutingTarget};
use crate::serve::requests::identify::Peer;

/// The connection that a request came in on.
pub struct ConnectionContext {
    /// The listener's position in the config.
    pub listener: usize,
    /// The [`ListenerConfig::footing`] of its listener at the time when the connection was opened.
    pub footing: [u8; 32],
    /// The identity of the other end, as far as the connection shows it.
    pub peer: Rc<Peer>,
    pub entry: Ingress,
    /// The version of its TLS, such as `1.3`; absent: it has none.
    pub tls_version: Option<&'static str>,
    /// Bytes that its socket has taken.
    pub sent: Rc<SentBytes>,
}

impl ConnectionContext {
    /// Returns the routes and names that a request on this connection is judged against; [`Fault::Internal`] if the
    /// listener has another mode.
    pub fn ground<'a>(&'a self, listener: &'a ListenerConfig) -> Result<RoutingTarget<'a>, Fault> {
        self.entry.target(&listener.mode)
    }
}
