//! One worker's connections to one place: borrowed for an exchange, given back if they can serve another.
//!
//! A connection is lent to one exchange at a time. It comes back only when both messages ended cleanly; everything
//! else is closed by dropping it. The freshest idle connection is lent first, so that a burst's surplus ages out.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use prometheus_client::metrics::gauge::Gauge;

use super::dial::{Destination, DialError};
use crate::base::time::Now;

/// A place with its idle connections. `B` is the request body.
pub struct Endpoint<B> {
    destination: Destination,
    idle_timeout: Duration,
    idle: RefCell<Vec<Idle<B>>>,
    open: Rc<Cell<usize>>,
    gauge: Gauge,
}

struct Idle<B> {
    sender: SendRequest<B>,
    since: Now,
}

/// A connection lent for one exchange.
pub struct Connection<B> {
    sender: SendRequest<B>,
    /// Whether it served an exchange before: then the other side may have closed it meanwhile.
    pub reused: bool,
}

/// What came of sending a request.
pub enum Sent<B> {
    /// An answer's head arrived.
    Answered(Response<Incoming>),
    /// The connection broke after bytes may have been sent.
    Broken(hyper::Error),
    /// Not one byte was written; here is the request again.
    Unsent(Unsent<B>),
}

/// A request that was certainly not sent.
pub struct Unsent<B>(pub Request<B>);

impl<B> Endpoint<B>
where
    B: Body + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// A place without connections yet. `gauge` counts them for the operator.
    pub fn new(destination: Destination, idle_timeout: Duration, gauge: Gauge) -> Self {
        Self { destination, idle_timeout, idle: RefCell::default(), open: Rc::default(), gauge }
    }

    /// How many connections are open, lent or idle.
    pub fn open(&self) -> usize {
        self.open.get()
    }

    /// An idle connection, the freshest first; closed and stale ones are dropped on the way.
    pub fn reuse(&self, now: Now) -> Option<Connection<B>> {
        let mut idle = self.idle.borrow_mut();
        while let Some(candidate) = idle.pop() {
            let usable = candidate.sender.is_ready() && !candidate.sender.is_closed();
            if usable && now.since(candidate.since) < self.idle_timeout {
                return Some(Connection { sender: candidate.sender, reused: true });
            }
        }
        None
    }

    /// A new connection.
    pub async fn connect(&self) -> Result<Connection<B>, DialError> {
        let stream = self.destination.dial().await?;
        let handshake = http1::Builder::new().handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(|error| DialError::Tcp(std::io::Error::other(error)))?;
        let open = OpenGuard::new(&self.open, &self.gauge);
        tokio::task::spawn_local(async move {
            // Errors reach the exchange that is under way; an idle connection's end is no news.
            let _ = connection.await;
            drop(open);
        });
        Ok(Connection { sender, reused: false })
    }

    /// Takes back a connection whose exchange ended cleanly on both sides.
    pub fn give_back(&self, connection: Connection<B>, now: Now) {
        if !connection.sender.is_closed() {
            self.idle.borrow_mut().push(Idle { sender: connection.sender, since: now });
        }
    }

    /// Closes connections that were idle for too long.
    pub fn sweep(&self, now: Now) {
        let stays = |idle: &Idle<B>| !idle.sender.is_closed() && now.since(idle.since) < self.idle_timeout;
        self.idle.borrow_mut().retain(stays);
    }
}

impl<B: Body + 'static> Connection<B> {
    /// Sends a request and waits for the head of its answer. Dropping the future closes the connection.
    pub async fn send(&mut self, request: Request<B>) -> Sent<B> {
        match self.sender.try_send_request(request).await {
            Ok(response) => Sent::Answered(response),
            Err(mut error) => match error.take_message() {
                Some(request) => Sent::Unsent(Unsent(request)),
                None => Sent::Broken(error.into_error()),
            },
        }
    }
}

/// Counts a connection for as long as its task lives.
struct OpenGuard(Rc<Cell<usize>>, Gauge);

impl OpenGuard {
    fn new(open: &Rc<Cell<usize>>, gauge: &Gauge) -> Self {
        open.set(open.get() + 1);
        gauge.inc();
        Self(open.clone(), gauge.clone())
    }
}

impl Drop for OpenGuard {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
        self.1.dec();
    }
}
