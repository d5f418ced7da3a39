//! The last look at a token before it goes out.
//!
//! A lease is taken early, and a request may wait long for its connection: meanwhile the token can expire, be refused to
//! another request, or be withdrawn. So requests are sent through this file alone (`tests/it/architecture.rs` sees to
//! it), and what it sends was looked at with the connection in hand.

use std::future::Future;

use http::Response;
use hyper::body::Incoming;
use hyper::client::conn::http1;

use crate::serve::exchanges::replay_body::RequestBody;
use crate::serve::worker_state::WorkerState;
use crate::token::lease::Lease;
use crate::upstream::{Connection, RequestHead, Sent};

/// A request whose token may be sent now.
pub struct ClearedRequest<'a> {
    head: RequestHead<'a>,
    body: RequestBody,
}

impl<'a> ClearedRequest<'a> {
    /// Looks at the lease that the request was dressed with. `None`: it must not go out with that.
    pub fn check(worker: &WorkerState, lease: &Lease, head: RequestHead<'a>, body: RequestBody) -> Option<Self> {
        worker.may_send(lease, worker.now()).then_some(Self { head, body })
    }

    /// Sends it on a connection of a pool.
    pub fn send(self, connection: &mut Connection<RequestBody>) -> impl Future<Output = Sent<RequestBody>> {
        connection.send(self.head, self.body)
    }

    /// Sends it on a connection of its own.
    pub fn send_alone(
        self,
        sender: &mut http1::SendRequest<RequestBody>,
    ) -> impl Future<Output = hyper::Result<Response<Incoming>>> + use<> {
        sender.send_request(self.head.to_request(self.body))
    }
}
