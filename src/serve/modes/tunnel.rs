//! An intercepted tunnel through a forward listener.

use std::cell::Cell;

use http::HeaderMap;

use crate::config::ForwardListener;
use crate::route::{Admission, Authority, Caller, Denied, ForwardTable, ForwardTarget, RequestTarget};
use crate::serve::fault::Fault;
use crate::serve::requests::identify::Proven;

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

impl Tunnel {
    pub(super) fn target<'a>(&'a self, listener: &'a ForwardListener) -> TunnelRoutes<'a> {
        TunnelRoutes { table: &listener.table, to: &self.to }
    }
}

/// The routes of a forward listener, in a tunnel to this place.
#[derive(Clone, Copy)]
pub struct TunnelRoutes<'a> {
    pub(super) table: &'a ForwardTable,
    pub(super) to: &'a Authority,
}

impl TunnelRoutes<'_> {
    /// CONNECT, TLS and Host speak of one place; the first two were compared before TLS was spoken.
    pub(super) fn check_host(self, host: Option<&str>) -> Result<(), Fault> {
        if host.is_some_and(|host| !ForwardTarget::Tunnel(self.to).agrees(host)) {
            return Err(Fault::Misdirected);
        }
        Ok(())
    }

    pub(super) fn admit(self, caller: Caller, target: RequestTarget<'_>) -> Result<Admission, Denied> {
        self.table.admit(caller, ForwardTarget::Tunnel(self.to), RequestTarget { host: None, ..target })
    }
}
