//! The reasons for which the process does not start.

use std::io::{self, ErrorKind};

use thiserror::Error;

use crate::config::Bind;
use crate::serve::page::ForwardPageError;
use crate::tls::InternalCaError;

/// The reason for which the process did not start.
#[derive(Debug, Error)]
pub enum BootError {
    /// The admin listener cannot be served.
    #[error("cannot serve the admin listener: {0}")]
    Admin(#[source] io::Error),
    /// The access log's file cannot be opened.
    #[error("cannot open the access log: {0}")]
    AccessLog(#[source] io::Error),
    /// The audit log at this path cannot be opened.
    #[error("cannot open the audit log {0}: {1}; it must be a file that this process alone appends to")]
    Audit(String, #[source] io::Error),
    /// An address cannot be bound for the listener of this name.
    #[error("{0} cannot listen on {1}: {2}{cure}", cure = bind_cure(.1, .2))]
    Bind(String, Bind, #[source] io::Error),
    /// A certificate of the internal CA cannot be made.
    #[error("a certificate cannot be made: {0}")]
    Certificate(#[source] InternalCaError),
    /// An inherited socket is of no use: the listener that it was meant for, and the reason.
    #[error("{0}: {1}")]
    Inherited(String, String),
    /// The page of a forward listener cannot be made.
    #[error("a certificate cannot be made: {0}")]
    Page(#[source] ForwardPageError),
    /// The store cannot be opened. The text gives the reason and the cure.
    #[error("cannot open the store: {0}")]
    Store(String),
    /// A thread cannot be started.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] io::Error),
}

/// Says what to do about an address that cannot be bound, where the reason tells it.
fn bind_cure(bind: &Bind, error: &io::Error) -> &'static str {
    match (error.kind(), bind) {
        (ErrorKind::AddrInUse, _) => "; is another process there?",
        (ErrorKind::NotFound, Bind::Unix(_)) => "; its folder does not exist: make it",
        (ErrorKind::PermissionDenied, Bind::Unix(_)) => {
            "; its folder must be writable for the user who runs countersign"
        }
        (ErrorKind::PermissionDenied, Bind::Tcp(_)) => "; ports below 1024 take the capability CAP_NET_BIND_SERVICE",
        (ErrorKind::AddrNotAvailable, Bind::Tcp(_)) => "; no interface of this machine has that address",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cure_belongs_to_the_reason() {
        let told =
            |bind: Bind, kind: ErrorKind| BootError::Bind("listener `a`".to_owned(), bind, kind.into()).to_string();
        let tcp = || Bind::Tcp(std::net::SocketAddr::from(([127, 0, 0, 1], 80)));
        let unix = || Bind::Unix("/run/nowhere/x.sock".into());
        assert!(told(tcp(), ErrorKind::AddrInUse).ends_with("is another process there?"));
        assert!(told(unix(), ErrorKind::NotFound).ends_with("its folder does not exist: make it"));
        for other in [told(unix(), ErrorKind::NotFound), told(tcp(), ErrorKind::OutOfMemory)] {
            assert!(!other.contains("another process"), "{other}");
        }
    }
}
