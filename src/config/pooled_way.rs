//! The way to a server that key services and secret sources call: pooled connections, bounded answers.

use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use prometheus_client::metrics::gauge::Gauge;

use crate::base::http_call::{HttpCall, HttpWay, PendingAnswer};
use crate::base::time::Clock;
use crate::upstream::{ConnectionPool, Destination};

/// An unused connection is kept for so long.
const IDLE: Duration = Duration::from_secs(20);

/// The way to a server.
#[derive(Clone)]
pub(super) struct PooledWay {
    pub(super) destination: Destination,
    /// The longest answer that is read, in bytes.
    pub(super) most: usize,
}

impl HttpWay for PooledWay {
    fn client(&self) -> Box<dyn HttpCall> {
        let pool = Rc::new(ConnectionPool::new(self.destination.clone(), IDLE, Gauge::default()));
        Box::new(PooledClient { pool, most: self.most })
    }
}

impl fmt::Debug for PooledWay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PooledWay({}:{})", self.destination.host, self.destination.port)
    }
}

/// Calls of a server over pooled connections.
struct PooledClient {
    pool: Rc<ConnectionPool<Full<Bytes>>>,
    most: usize,
}

impl HttpCall for PooledClient {
    fn call(&self, request: Request<Bytes>) -> PendingAnswer<'_> {
        Box::pin(async move {
            let asked = self.pool.ask(request.map(Full::new), self.most, Clock::System.now()).await;
            asked.map_err(|error| error.to_string())
        })
    }
}
