//! Calls of one server over HTTP, for modules that do not know how it is reached.
//!
//! The config makes a [`HttpWay`] of what it says about TLS and proxies; a module that speaks to a server makes its client
//! from it, on its own thread.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use http::{Request, Response};

/// An answer on its way, or the text of what went wrong, for the log.
pub type PendingAnswer<'a> = Pin<Box<dyn Future<Output = Result<Response<Bytes>, String>> + 'a>>;

/// The way to one server: TLS, the proxy, bounds.
pub trait HttpWay: fmt::Debug + Send + Sync {
    /// Makes a client, which stays on the calling thread.
    fn client(&self) -> Box<dyn HttpCall>;
}

/// A client of one server, with connections of its own. Its caller bounds the time of a call.
pub trait HttpCall {
    /// Sends a request, whose URI is a path, and reads an answer, whose length is bounded. A request may arrive twice.
    fn call(&self, request: Request<Bytes>) -> PendingAnswer<'_>;
}
