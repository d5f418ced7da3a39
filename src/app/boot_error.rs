//! The reasons for which the process does not start.

use std::io;

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
    #[error("{0} cannot listen on {1}: {2}; is another process there?")]
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
