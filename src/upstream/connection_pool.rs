//! One worker's connections to one destination: lent for an exchange, taken back if they can serve another.
//!
//! An HTTP/1.1 connection is lent to one exchange at a time and is returned only if both messages ended cleanly; in all
//! other cases it is closed by dropping it. The most recently used idle connection is lent first, so that the surplus
//! of a burst expires. An HTTP/2 connection is shared by all exchanges for which it has a stream; the next one is
//! opened when it has none left.
//!
//! Until the protocol of the destination is known, and as long as it is HTTP/2, one connection is opened at a time and
//! all exchanges wait for it. If the destination uses HTTP/1.1, each exchange that finds no idle connection opens its
//! own.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use hyper::body::Body;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::Notify;

use super::connection::{Connection, DialedConnection, H1Connection, Kind, Resend};
use super::dial::{Destination, DialError};
use super::h2_connection::{H2Connection, H2Stream};
use super::socket::{ConnectionCount, Look};
use crate::base::time::Now;

/// More connections than this to one place, per worker, and new requests are refused.
const MOST: usize = 1024;

/// A place with its connections. `B` is the request body.
pub struct ConnectionPool<B> {
    destination: Destination,
    idle_timeout: Duration,
    idle: RefCell<Vec<Idle<B>>>,
    lanes: RefCell<Vec<Rc<H2Connection<B>>>>,
    flight: RefCell<Option<Rc<SharedDial>>>,
    speaks: Cell<Option<Protocol>>,
    retired: Cell<bool>,
    open: Rc<Cell<usize>>,
    gauge: Gauge,
}

struct Idle<B> {
    own: H1Connection<B>,
    served: bool,
    since: Now,
}

/// A connection that is being opened for everybody who waits. They are woken in the order in which they came.
#[derive(Default)]
struct SharedDial {
    failed: OnceCell<Rc<DialError>>,
    over: Cell<bool>,
    landed: Notify,
}

impl SharedDial {
    /// Waits for its end, and says how that went. One that was cut short did not fail.
    async fn end(&self) -> Result<(), Rc<DialError>> {
        let landed = self.landed.notified();
        if !self.over.get() {
            landed.await;
        }
        self.failed.get().map_or(Ok(()), |error| Err(error.clone()))
    }
}

/// Ends a flight when it is dropped, also by a panic.
struct DialGuard<B> {
    endpoint: Rc<ConnectionPool<B>>,
    flight: Rc<SharedDial>,
}

impl<B> Drop for DialGuard<B> {
    fn drop(&mut self) {
        self.endpoint.flight.borrow_mut().take();
        self.flight.over.set(true);
        self.flight.landed.notify_waiters();
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Protocol {
    Http1,
    Http2,
}

/// The reason for which no connection is available.
#[derive(Clone, Debug)]
pub enum NoConnection {
    /// The connection could not be established.
    Dial(Rc<DialError>),
    /// The worker has reached its maximum of connections to the destination.
    Full,
}

impl<B> ConnectionPool<B>
where
    B: Body + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// A place without connections yet. `gauge` counts them for the operator.
    pub fn new(destination: Destination, idle_timeout: Duration, gauge: Gauge) -> Self {
        Self {
            destination,
            idle_timeout,
            idle: RefCell::default(),
            lanes: RefCell::default(),
            flight: RefCell::default(),
            speaks: Cell::default(),
            retired: Cell::default(),
            open: Rc::default(),
            gauge,
        }
    }

    /// Returns the number of connections that are open (lent or idle) or being opened.
    pub fn open(&self) -> usize {
        self.open.get()
    }

    /// Returns a connection for one exchange: a pooled one, or a new one.
    pub async fn acquire(self: &Rc<Self>, now: Now, risk: Resend) -> Result<Connection<B>, NoConnection> {
        loop {
            if let Some(connection) = self.pooled(now, risk).await {
                return Ok(connection);
            }
            let under_way = self.flight.borrow().clone();
            let alone = self.retired.get() || self.speaks.get() == Some(Protocol::Http1);
            if (alone || under_way.is_none()) && self.open.get() >= MOST {
                return Err(NoConnection::Full);
            }
            // Futures of rare paths are boxed, so that the future of every other exchange stays small.
            if alone {
                return Box::pin(self.connect(now)).await.map_err(|error| NoConnection::Dial(Rc::new(error)));
            }
            let flight = under_way.unwrap_or_else(|| self.fly(now));
            Box::pin(flight.end()).await.map_err(NoConnection::Dial)?;
        }
    }

    /// Takes back a connection whose exchange ended cleanly on both sides.
    pub fn give_back(&self, connection: Connection<B>, now: Now) {
        match connection.kind {
            Kind::Own(mut own) => {
                own.rest();
                self.keep(own, true, now);
            }
            Kind::Shared(stream) => stream.finish(now),
        }
    }

    /// Closes connections that were idle for too long.
    pub fn sweep(&self, now: Now) {
        self.idle.borrow_mut().retain(|idle| idle.own.is_open() && self.is_fresh(idle.since, now));
        self.tidy(now);
    }

    /// Keeps nothing from now on: idle connections close now, lent ones when their exchange ends. For a certificate or
    /// a way to the provider that no longer holds. Exchanges that still come get connections of their own.
    pub fn retire(&self) {
        self.retired.set(true);
        self.idle.borrow_mut().clear();
        for shared_h2 in self.lanes.borrow_mut().drain(..) {
            shared_h2.close();
        }
    }

    /// Returns a pooled connection. Connections that the other side has closed are dropped in the process, even if no
    /// local task has noticed yet.
    async fn pooled(&self, now: Now, risk: Resend) -> Option<Connection<B>> {
        loop {
            self.tidy(now);
            let Some(shared_h2) = self.lanes.borrow().iter().find(|shared_h2| shared_h2.has_room(now)).cloned() else {
                break;
            };
            match shared_h2.look() {
                Look::Closed => shared_h2.close(),
                Look::Quiet => return Some(shared(&shared_h2, now)),
                Look::Speaking => {
                    // It may be GOAWAY: first let its two tasks read and heed what has arrived.
                    tokio::task::yield_now().await;
                    tokio::task::yield_now().await;
                    if shared_h2.has_room(now) {
                        return Some(shared(&shared_h2, now));
                    }
                }
            }
        }
        let mut idle = self.idle.borrow_mut();
        while let Some(Idle { own, served, since }) = idle.pop() {
            if own.is_open() && self.is_fresh(since, now) && own.is_usable(served, risk) {
                return Some(Connection { kind: Kind::Own(own), reused: true });
            }
        }
        None
    }

    /// Opens a connection for all waiting exchanges, in a task of its own: a client that disconnects does not stop it.
    fn fly(self: &Rc<Self>, now: Now) -> Rc<SharedDial> {
        let flight = Rc::new(SharedDial::default());
        *self.flight.borrow_mut() = Some(flight.clone());
        let guard = DialGuard { endpoint: self.clone(), flight: flight.clone() };
        tokio::task::spawn_local(async move {
            let DialGuard { endpoint, flight } = &guard;
            match endpoint.connect(now).await {
                Ok(Connection { kind: Kind::Own(own), .. }) => endpoint.keep(own, false, now),
                // Its lane is in the pool.
                Ok(Connection { kind: Kind::Shared(_), .. }) => {}
                Err(error) => drop(flight.failed.set(Rc::new(error))),
            }
        });
        flight
    }

    /// Opens a connection, counts it and remembers its protocol.
    async fn connect(&self, now: Now) -> Result<Connection<B>, DialError> {
        let open = ConnectionCount::new(&self.open, &self.gauge);
        Ok(match self.destination.open_counted(now, Some(open)).await? {
            DialedConnection::Own(own) => {
                self.speaks.set(Some(Protocol::Http1));
                Connection { kind: Kind::Own(own), reused: false }
            }
            DialedConnection::Shared(shared_h2) => {
                self.speaks.set(Some(Protocol::Http2));
                if !self.retired.get() {
                    self.lanes.borrow_mut().push(shared_h2.clone());
                }
                shared(&shared_h2, now)
            }
        })
    }

    fn keep(&self, own: H1Connection<B>, served: bool, now: Now) {
        if own.is_open() && !self.retired.get() {
            self.idle.borrow_mut().push(Idle { own, served, since: now });
        }
    }

    /// Lets go of shared connections that are over or were idle for too long.
    fn tidy(&self, now: Now) {
        self.lanes.borrow_mut().retain(|shared_h2| {
            let stale = shared_h2.idle_since().is_some_and(|since| !self.is_fresh(since, now));
            shared_h2.is_open() && !stale
        });
    }

    fn is_fresh(&self, since: Now, now: Now) -> bool {
        now.since(since) < self.idle_timeout
    }
}

/// A stream of a lane.
fn shared<B>(shared_h2: &Rc<H2Connection<B>>, now: Now) -> Connection<B> {
    Connection { reused: shared_h2.has_served(), kind: Kind::Shared(H2Stream::of(shared_h2, now)) }
}
