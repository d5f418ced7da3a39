//! The one connection to a Redis, and its circuit breaker.
//!
//! A task makes the connection and restores it; no caller ever does. A caller that finds the link up sends its request;
//! one that finds it down gets an error at once; one that finds it undecided waits, but never longer than an operation
//! may take. A caller that has waited in vain takes the link down for all, so an unreachable Redis costs one wait per
//! rest.

use std::cell::Cell;
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{AsyncConnectionConfig, RedisConnectionInfo, RedisError, RedisResult, cmd};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;

use super::super::changes::{Change, ChangeNotifier};
use super::super::error::Error;
use super::super::store_settings::RedisSettings;
use super::Patience;
use super::verdict::{RedisVerdict, judge};
use crate::base::backoff::jittered;
use crate::base::secret::ExposeSecret;

/// A Redis and how long it is waited for.
#[derive(Debug)]
pub(super) struct RedisTarget {
    pub(super) settings: RedisSettings,
    pub(super) patience: Patience,
}

/// The byte stream to a Redis, with or without TLS.
pub(super) trait RedisStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> RedisStream for T {}

impl RedisTarget {
    /// Returns `host:port` for messages, with an IPv6 address in brackets.
    pub(super) fn address(&self) -> String {
        let RedisSettings { host, port, .. } = &self.settings;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }

    /// Returns a connected stream, TLS included. The caller bounds the time.
    pub(super) async fn dial(&self) -> Result<Box<dyn RedisStream>, RedisVerdict> {
        let settings = &self.settings;
        let broken = |what: String| RedisVerdict::Broken(format!("the store at {} {what}", self.address()));
        let stream = TcpStream::connect((settings.host.as_str(), settings.port)).await;
        let stream = stream.map_err(|error| broken(format!("cannot be reached: {}", error.kind())))?;
        // It costs latency only.
        let _ = stream.set_nodelay(true);
        let Some((tls, name)) = &settings.tls else { return Ok(Box::new(stream)) };
        match TlsConnector::from(tls.clone()).connect(name.clone(), stream).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(error) => {
                let why = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
                let why = why.map_or_else(|| error.kind().to_string(), ToString::to_string);
                Err(broken(format!("fails in TLS: {why}; see `tls` in [store]")))
            }
        }
    }

    /// Builds the settings that a connection starts with: database, user and password.
    pub(super) fn greeting(&self) -> RedisConnectionInfo {
        let settings = &self.settings;
        let mut greeting = RedisConnectionInfo::default().set_db(settings.database.into()).set_skip_set_lib_name();
        if let Some(username) = &settings.username {
            greeting = greeting.set_username(username);
        }
        if let Some(password) = &settings.password {
            greeting = greeting.set_password(password.expose_secret());
        }
        greeting
    }

    pub(super) fn judge(&self, error: &RedisError) -> RedisVerdict {
        judge(&self.address(), error)
    }

    pub(super) fn silent(&self, waited: Duration) -> RedisVerdict {
        RedisVerdict::Broken(format!(
            "the store at {} does not answer within {} ms",
            self.address(),
            waited.as_millis()
        ))
    }

    /// The pause after so many failures in a row.
    pub(super) fn rest(&self, failures: u32) -> Duration {
        jittered(self.patience.rest.pause(failures), rand::random())
    }
}

#[derive(Clone)]
enum LinkPhase {
    /// The reason for which requests are refused.
    Down(RedisVerdict),
    /// The state in which a connection is being made and callers wait for the outcome.
    Trying,
    /// Questions may be asked. The number tells connections apart.
    Up(MultiplexedConnection, u64),
}

struct LinkState {
    target: Arc<RedisTarget>,
    notifier: ChangeNotifier,
    phase: watch::Sender<LinkPhase>,
    /// True once the connection has answered a request.
    proved: Cell<bool>,
}

/// Dropping it ends the connection.
pub(super) struct RedisLink {
    shared: Rc<LinkState>,
    _task: JoinSet<()>,
}

impl RedisLink {
    pub(super) fn open(target: Arc<RedisTarget>, notifier: ChangeNotifier) -> Self {
        let (phase, proved) = (watch::Sender::new(LinkPhase::Trying), Cell::new(false));
        let shared = Rc::new(LinkState { target, notifier, phase, proved });
        let mut task = JoinSet::new();
        task.spawn_local(keep(shared.clone()));
        Self { shared, _task: task }
    }

    /// Waits until it is up, however often that is tried.
    pub(super) async fn reach(&self, within: Duration) -> Result<(), Error> {
        let mut phases = self.shared.phase.subscribe();
        if timeout(within, phases.wait_for(|phase| matches!(phase, LinkPhase::Up(..)))).await.is_ok() {
            return Ok(());
        }
        let phase = self.shared.phase.borrow().clone();
        match phase {
            LinkPhase::Up(..) => Ok(()),
            LinkPhase::Down(why) => Err(why.into_error()),
            LinkPhase::Trying => Err(self.shared.target.silent(within).into_error()),
        }
    }

    /// Asks, and has an answer in time, or a verdict.
    pub(super) async fn ask<T>(
        &self,
        question: impl AsyncFnOnce(&mut MultiplexedConnection) -> RedisResult<T>,
    ) -> Result<T, RedisVerdict> {
        let shared = &self.shared;
        let patience = shared.target.patience.operation;
        let asking = Cell::new(None);
        let answer = async {
            let (mut connection, number) = shared.connection().await?;
            asking.set(Some(number));
            question(&mut connection).await.map_err(|error| shared.target.judge(&error))
        };
        let answer = timeout(patience, answer).await.unwrap_or_else(|_| Err(shared.target.silent(patience)));
        match &answer {
            Err(verdict @ RedisVerdict::Broken(_)) => shared.take_down(asking.get(), verdict),
            Err(RedisVerdict::Full(_) | RedisVerdict::Refused(_) | RedisVerdict::WrongType) | Ok(_) => {
                shared.proved.set(true)
            }
        }
        answer
    }
}

impl LinkState {
    async fn connection(&self) -> Result<(MultiplexedConnection, u64), RedisVerdict> {
        let mut phases = self.phase.subscribe();
        match &*phases.wait_for(|phase| !matches!(phase, LinkPhase::Trying)).await.map_err(|_| self.closed())? {
            LinkPhase::Down(why) => Err(why.clone()),
            LinkPhase::Trying => Err(self.closed()),
            LinkPhase::Up(connection, number) => Ok((connection.clone(), *number)),
        }
    }

    /// Takes the link down, so that no other caller uses this connection or waits for one.
    fn take_down(&self, asked: Option<u64>, verdict: &RedisVerdict) {
        let taken = self.phase.send_if_modified(|phase| {
            let same = match (&*phase, asked) {
                (LinkPhase::Up(_, number), Some(asked)) => *number == asked,
                (LinkPhase::Trying, None) => true,
                (LinkPhase::Down(_) | LinkPhase::Trying | LinkPhase::Up(..), _) => false,
            };
            if same {
                *phase = LinkPhase::Down(verdict.clone());
            }
            same
        });
        if taken {
            tracing::warn!("{}", verdict.clone().into_error());
        }
    }

    fn closed(&self) -> RedisVerdict {
        RedisVerdict::Broken("the store was closed".to_owned())
    }
}

/// Makes the connection, carries it, and makes it again.
async fn keep(shared: Rc<LinkState>) {
    let (target, mut failures) = (&shared.target, 0_u32);
    for number in 0_u64.. {
        let connected = timeout(target.patience.connect, connect(target)).await;
        match connected.unwrap_or_else(|_| Err(target.silent(target.patience.connect))) {
            Ok((connection, driver)) => {
                shared.proved.set(false);
                let mut phases = shared.phase.subscribe();
                let before = shared.phase.send_replace(LinkPhase::Up(connection, number));
                if matches!(before, LinkPhase::Down(_)) {
                    tracing::info!(store = target.address(), "the store answers again");
                }
                // News that came while nothing could be read led nowhere.
                shared.notifier.notify(Change::Everything);
                let closed = tokio::select! {
                    () = driver => true,
                    _ = phases.wait_for(|phase| !matches!(phase, LinkPhase::Up(..))) => false,
                };
                if shared.proved.get() {
                    failures = 0;
                }
                if closed && failures == 0 {
                    // As a server does that restarts, or that tidies up. Callers wait a moment for the next one.
                    shared.phase.send_if_modified(|phase| {
                        let up = matches!(phase, LinkPhase::Up(..));
                        if up {
                            *phase = LinkPhase::Trying;
                        }
                        up
                    });
                    failures = 1;
                    continue;
                }
                let closed =
                    RedisVerdict::Broken(format!("the store at {} has closed the connection", target.address()));
                shared.take_down(Some(number), &closed);
            }
            Err(verdict) => {
                let reported = matches!(&*shared.phase.borrow(), LinkPhase::Down(before) if *before == verdict);
                shared.phase.send_replace(LinkPhase::Down(verdict.clone()));
                if !reported {
                    tracing::warn!("{}", verdict.into_error());
                }
            }
        }
        failures = failures.saturating_add(1);
        sleep(target.rest(failures)).await;
    }
}

/// The future that drives a connection; the connection ends with it.
type RedisDriver = Pin<Box<dyn Future<Output = ()>>>;

/// A connection that has answered once, and what carries it.
async fn connect(target: &RedisTarget) -> Result<(MultiplexedConnection, RedisDriver), RedisVerdict> {
    let wire = target.dial().await?;
    let config = AsyncConnectionConfig::new().set_response_timeout(None);
    let made = MultiplexedConnection::new_with_config(&target.greeting(), wire, config).await;
    let (mut connection, driver) = made.map_err(|error| target.judge(&error))?;
    let mut driver: RedisDriver = Box::pin(driver);
    let answered = async { cmd("PING").query_async::<String>(&mut connection).await };
    let answered = tokio::select! {
        answered = answered => answered.map_err(|error| target.judge(&error)),
        () = &mut driver => Err(RedisVerdict::Broken(format!("the store at {} has closed the connection", target.address()))),
    };
    match answered?.as_str() {
        "PONG" => Ok((connection, driver)),
        _ => Err(RedisVerdict::Broken(format!("the store at {} does not speak as Redis does", target.address()))),
    }
}

impl fmt::Debug for RedisLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisLink").field("target", &self.shared.target).finish_non_exhaustive()
    }
}
