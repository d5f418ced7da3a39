//! The ways to servers that key services and secret sources call: pooled connections over TLS, and single questions to
//! an address of the machine's own link.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use prometheus_client::metrics::gauge::Gauge;

use crate::base::http_call::{HttpCall, HttpWay, PendingAnswer};
use crate::base::time::{Clock, Within};
use crate::upstream::{Clear, ConnectionPool, Destination};

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

/// The way to an address of the machine's own link, where no TLS is spoken.
#[derive(Clone, Debug)]
pub(super) struct LinkWay(SocketAddr);

/// A question there takes no longer; the caller bounds it closer.
const LINK_TIME: Duration = Duration::from_secs(5);
/// An answer there has no more bytes.
const MOST_OF_LINK: usize = 64 << 10;

impl LinkWay {
    /// Takes an address that no router passes on: of the machine itself, or of its link. `None`: it is another.
    pub(super) fn to(address: SocketAddr) -> Option<Self> {
        let is_near = match address.ip() {
            IpAddr::V4(ip) => ip.is_loopback() || ip.is_link_local(),
            // AWS has fd00:ec2::23 and fd00:ec2::254.
            IpAddr::V6(ip) => ip.is_loopback() || matches!(ip.segments(), [0xfd00, 0xec2, ..]),
        };
        is_near.then_some(Self(address))
    }
}

impl HttpWay for LinkWay {
    fn client(&self) -> Box<dyn HttpCall> {
        Box::new(self.clone())
    }
}

impl HttpCall for LinkWay {
    fn call(&self, request: Request<Bytes>) -> PendingAnswer<'_> {
        Box::pin(async move {
            let host = self.0.ip().to_string();
            let clear = Clear { host: &host, port: self.0.port(), connect_timeout: LINK_TIME };
            let now = Clock::System.now();
            let asked = clear.ask(request.map(Full::new), MOST_OF_LINK, Within(LINK_TIME), now).await;
            asked.map_err(|error| error.to_string())
        })
    }
}
