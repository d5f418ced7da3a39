//! One worker: a thread, a single-threaded runtime, its own listening sockets.
//!
//! The kernel spreads new TCP connections over the workers (`SO_REUSEPORT`), so no connection is handed between
//! threads. Unix sockets have no such mechanism: there all workers accept from one socket, and the first that is awake
//! takes the next connection. Local clients open few, so the wake-ups in vain cost less than handing connections from
//! one worker to another. The same goes for TCP sockets that were inherited and are fewer than the workers.
//!
//! Clients that were admitted to a socket's queue before the drain are served: accepting goes on for a moment, for
//! handshakes in progress, and ends with a check that finds the queue empty.

use std::convert::Infallible;
use std::io;
use std::net::TcpListener as StdTcpListener;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::base::resource_usage::ResourceUsage;
use crate::observe::access::AccessLog;
use crate::observe::metrics::Limit;
use crate::serve::connections::connection::{self, Accepted};
use crate::serve::current_state::CurrentState;
use crate::serve::worker_state::{ProcessState, WorkerState};

/// Idle provider connections are looked through this often.
const SWEEP: Duration = Duration::from_secs(5);
/// After the process ran out of file descriptors, accepting rests this long.
const ACCEPT_REST: Duration = Duration::from_millis(100);
/// A drain still accepts for this long: clients have heard from the kernel that they are welcome, and their last word
/// is on its way.
const SETTLE: Duration = Duration::from_millis(100);
/// More than a socket's queue holds; others who accept from the same socket fill it while we empty it.
const MOST_QUEUED: usize = 8192;

/// A listening socket of one worker.
#[derive(Debug)]
pub struct ListeningSocket {
    /// The listener that it belongs to, by position.
    pub listener: usize,
    /// The socket itself: bound, listening and non-blocking.
    pub socket: Listening,
}

/// A socket that accepts connections.
#[derive(Debug)]
pub enum Listening {
    /// At an address; each worker has one of its own, unless fewer were inherited.
    Tcp(StdTcpListener),
    /// At a path; all workers have the same.
    Unix(StdUnixListener),
}

/// The same on the worker's runtime.
enum Acceptor {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Acceptor {
    fn new(socket: Listening) -> io::Result<Self> {
        match socket {
            Listening::Tcp(socket) => TcpListener::from_std(socket).map(Acceptor::Tcp),
            Listening::Unix(socket) => UnixListener::from_std(socket).map(Acceptor::Unix),
        }
    }

    async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Acceptor::Tcp(socket) => {
                let (stream, peer) = socket.accept().await?;
                Ok(Accepted::Tcp(stream, peer.ip().to_canonical()))
            }
            Acceptor::Unix(socket) => Ok(Accepted::Unix(socket.accept().await?.0)),
        }
    }

    /// Back to a plain socket: the runtime may not have heard yet of all that is queued.
    fn into_std(self) -> io::Result<Listening> {
        match self {
            Acceptor::Tcp(socket) => socket.into_std().map(Listening::Tcp),
            Acceptor::Unix(socket) => socket.into_std().map(Listening::Unix),
        }
    }
}

impl Listening {
    /// The next connection in the queue; `WouldBlock` when there is none.
    fn queued(&self) -> io::Result<Accepted> {
        match self {
            Listening::Tcp(socket) => {
                let (stream, peer) = socket.accept()?;
                stream.set_nonblocking(true)?;
                Ok(Accepted::Tcp(TcpStream::from_std(stream)?, peer.ip().to_canonical()))
            }
            Listening::Unix(socket) => {
                let (stream, _) = socket.accept()?;
                stream.set_nonblocking(true)?;
                Ok(Accepted::Unix(UnixStream::from_std(stream)?))
            }
        }
    }
}

/// The signals that end the process: first no new connections, then no old ones.
#[derive(Clone, Debug, Default)]
pub struct Drain {
    /// Cancelled: accept no more, finish what is under way.
    pub begin: CancellationToken,
    /// Cancelled: give up on what is left.
    pub end: CancellationToken,
}

/// All that a worker needs; moved to its thread.
pub struct Worker {
    /// The state that all workers share.
    pub shared: ProcessState,
    /// The listening sockets that this worker accepts from.
    pub sockets: Vec<ListeningSocket>,
    /// The log that access lines are written to.
    pub access: AccessLog,
    /// The signals on which this worker stops serving.
    pub drain: Drain,
    /// The channel on which new configs arrive.
    pub news: mpsc::UnboundedReceiver<News>,
}

/// A new config on its way to a worker.
pub struct News {
    /// The state that workers share under the new config.
    pub shared: ProcessState,
    /// Dropped when the worker serves by it.
    pub done: mpsc::Sender<Infallible>,
}

impl Worker {
    /// Serves on the calling thread until drained.
    pub fn run(self) -> io::Result<()> {
        let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
        runtime.block_on(self.serve())
    }

    async fn serve(self) -> io::Result<()> {
        let lines = self.access.lines(self.shared.clock.clone());
        let current = CurrentState::begin(WorkerState::new(self.shared, lines), self.drain.begin.clone());
        let mut accepting = JoinSet::new();
        let connections = TaskTracker::new();
        for ListeningSocket { listener, socket } in self.sockets {
            let socket = Acceptor::new(socket)?;
            accepting.spawn_local(accept(current.clone(), listener, socket, connections.clone(), self.drain.clone()));
        }
        let swept = current.clone();
        let mut sweeper = tokio::task::spawn_local(async move {
            loop {
                tokio::time::sleep(SWEEP).await;
                swept.worker().sweep();
            }
        });
        let (turned, mut news) = (current.clone(), self.news);
        let mut turner = tokio::task::spawn_local(async move {
            while let Some(News { shared, done: _done }) = news.recv().await {
                turned.turn(shared);
            }
            std::future::pending::<Infallible>().await
        });
        // None of these ends before the drain. A socket that is not accepted from goes on taking in its share of the
        // connections, so a worker without one of them must not go on.
        let died = tokio::select! {
            () = self.drain.begin.cancelled() => None,
            Some(ended) = accepting.join_next() => Some(("accepting", ended.err())),
            ended = &mut sweeper => Some(("looking through connections", ended.err())),
            ended = &mut turner => Some(("taking new configs", ended.err())),
        };
        if let Some((what, why)) = died {
            let why = why.map_or_else(|| "it ended".to_owned(), |error| error.to_string());
            return Err(io::Error::other(format!("{what} failed: {why}")));
        }
        while accepting.join_next().await.is_some() {}
        connections.close();
        tokio::select! {
            () = connections.wait() => {}
            () = self.drain.end.cancelled() => {}
        }
        sweeper.abort();
        turner.abort();
        current.worker().flush();
        Ok(())
    }
}

async fn accept(current: Rc<CurrentState>, listener: usize, socket: Acceptor, connections: TaskTracker, drain: Drain) {
    let reception = ListenerLoop::new(current, listener, connections);
    let mut end = pin!(async {
        drain.begin.cancelled().await;
        tokio::select! {
            () = tokio::time::sleep(SETTLE) => {}
            () = drain.end.cancelled() => {}
        }
    });
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            () = &mut end => break,
        };
        match accepted {
            Ok(arrival) => reception.receive(arrival),
            Err(error) if is_no_listener(&error) => {
                tracing::error!(listener = reception.name.as_deref(), %error, "the socket does not listen any more");
                return;
            }
            Err(error) => {
                if out_of_resources(&error) {
                    tracing::error!(%error, "cannot accept; resting");
                    tokio::time::sleep(ACCEPT_REST).await;
                }
            }
        }
    }
    let Ok(socket) = socket.into_std() else { return };
    for _ in 0..MOST_QUEUED {
        match socket.queued() {
            Ok(arrival) => reception.receive(arrival),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) if out_of_resources(&error) => {
                tracing::error!(%error, "cannot accept while draining; waiting connections are closed");
                return;
            }
            // That one had gone already.
            Err(_) => {}
        }
    }
}

/// The state that is needed to accept the connections of one listener.
struct ListenerLoop {
    current: Rc<CurrentState>,
    listener: usize,
    name: Option<std::sync::Arc<str>>,
    open: prometheus_client::metrics::gauge::Gauge,
    connections: TaskTracker,
}

impl ListenerLoop {
    fn new(current: Rc<CurrentState>, listener: usize, connections: TaskTracker) -> Self {
        let name = current.worker().listener(listener).map(|config| config.name.clone());
        let open = current.worker().shared.metrics.connections(name.as_deref().unwrap_or_default());
        Self { current, listener, name, open, connections }
    }

    /// Serves a connection, or closes it where there are too many.
    fn receive(&self, arrival: Accepted) {
        let (worker, listener) = (self.current.worker(), self.listener);
        if worker.listener(listener).is_none() {
            // The config has no such listener any more. Its address stays ours, in case it comes back.
            return;
        }
        let limit = worker.shared.snapshot.limits.connections.map_or(u64::MAX, |limit| limit as u64);
        if !worker.shared.connections.try_acquire(1, limit) {
            worker.shared.metrics.limited(Limit::Connections);
            if let Some(closed) = worker.shared.connection_limits.floods.note(worker.now()) {
                let listener = self.name.as_deref();
                tracing::warn!(listener, limit, closed, "too many connections; new ones are closed");
            }
            return;
        }
        let guard = OpenConnection { usage: worker.shared.connections.clone(), gauge: self.open.clone() };
        guard.gauge.inc();
        let (current, drain) = (self.current.clone(), self.current.conn(listener));
        self.connections.spawn_local(async move {
            connection::serve(current, listener, arrival, drain).await;
            drop(guard);
        });
    }
}

/// Errors that another try at once would only repeat: descriptors or memory have run out.
fn out_of_resources(error: &io::Error) -> bool {
    const EMFILE: i32 = 24;
    const ENFILE: i32 = 23;
    const ENOBUFS: i32 = 105;
    const ENOMEM: i32 = 12;
    matches!(error.raw_os_error(), Some(EMFILE | ENFILE | ENOBUFS | ENOMEM))
}

/// Errors of a socket that will never accept again: it is closed, shut, or none.
fn is_no_listener(error: &io::Error) -> bool {
    const EBADF: i32 = 9;
    const EINVAL: i32 = 22;
    const ENOTSOCK: i32 = 88;
    matches!(error.raw_os_error(), Some(EBADF | EINVAL | ENOTSOCK))
}

/// Counts a client connection for as long as it lives.
struct OpenConnection {
    usage: Arc<ResourceUsage>,
    gauge: prometheus_client::metrics::gauge::Gauge,
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.usage.release(1);
        self.gauge.dec();
    }
}
