//! A callback listener: browsers come back to it from a consent.

use super::server_names::belongs;
use crate::config::CallbackListener;
use crate::serve::fault::Fault;

/// A connection to a callback listener.
pub struct CallbackIngress {
    /// The name that TLS asked for.
    pub sni: Option<String>,
}

impl CallbackIngress {
    pub(super) fn target<'a>(&'a self, listener: &'a CallbackListener) -> CallbackTarget<'a> {
        CallbackTarget { listener, sni: self.sni.as_deref() }
    }
}

/// A callback listener, and the name that TLS asked for.
#[derive(Clone, Copy)]
pub struct CallbackTarget<'a> {
    listener: &'a CallbackListener,
    sni: Option<&'a str>,
}

impl CallbackTarget<'_> {
    pub(super) fn check_host(self, host: Option<&str>) -> Result<(), Fault> {
        belongs(&self.listener.names, self.sni, host)
    }
}
