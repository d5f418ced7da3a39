//! Activation of a new config without a lost request.
//!
//! The config is read and checked as a whole on a separate thread; then certificates, pages and issuers are prepared;
//! only then is every worker notified, and the reload is complete when all of them serve by it. Until then nothing has
//! changed, so a bad config changes nothing. Settings that a reload cannot change while the process runs (listening
//! addresses, the number of workers, the store, the format of the log itself) stay as they are, and are reported.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::mpsc;

use super::access_sink::access_sink;
use super::control_thread::count_from_zero;
use super::forward_pages::forward_pages;
use super::process_ca::ProcessCa;
use super::recordings::Recordings;
use crate::base::vars::Vars;
use crate::config::{ListenerConfig, LogConfig, Snapshot};
use crate::control::{
    ReloadOutcome, ReloadRequest, ReloadScope, Reloaded, Reloading, journal_reload, modules_in_force, token_spec,
};
use crate::observe::access::{AccessLog, AccessLogBusy};
use crate::observe::logging::{LogLevelError, LogLevels};
use crate::serve::page::ForwardPageError;
use crate::serve::{News, ProcessState};
use crate::store::{KeyRing, Store};
use crate::tls::InternalCaError;

/// A worker that does not turn to a new config within this time is not waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// Reads a config: everything anew, or, if there is a snapshot, its text as it was with new certificates and secrets.
/// The error is what is wrong, for a person.
pub type ConfigSource = Arc<dyn Fn(Option<&Snapshot>) -> Result<Box<Snapshot>, String> + Send + Sync>;

/// The reason for which a new config is not used.
#[derive(Debug, Error)]
enum ReloadError {
    #[error("the access log cannot be opened: {0}")]
    AccessLog(#[source] io::Error),
    #[error(transparent)]
    AccessLogBusy(#[from] AccessLogBusy),
    #[error(transparent)]
    Certificate(#[from] InternalCaError),
    /// It cannot be read. The text says what is wrong with it, for a person.
    #[error("{0}")]
    Config(String),
    #[error(transparent)]
    LogLevel(#[from] LogLevelError),
    #[error(transparent)]
    Page(#[from] ForwardPageError),
}

/// The task that reloads the config. It lives on the control thread.
pub(super) struct Reloader {
    /// Receiver of reload requests, with the senders of the last outcome and of the config in force.
    pub(super) reloading: Reloading,
    /// The source of configs; `None`: there is none, so the first config is never replaced.
    pub(super) source: Option<ConfigSource>,
    /// The state that the workers share now.
    pub(super) shared: ProcessState,
    /// The real addresses of listeners, by name.
    pub(super) addresses: Vec<(Arc<str>, SocketAddr)>,
    /// The names of the listeners whose sockets are open, in their order.
    pub(super) names: Arc<[Arc<str>]>,
    /// The CA of `tls = "internal"`.
    pub(super) ca: Arc<ProcessCa>,
    /// The current destination of access lines.
    pub(super) access: AccessLog,
    /// Access lines are for people where the config leaves it open.
    pub(super) text: bool,
    /// The level of the log.
    pub(super) levels: LogLevels,
    /// The recordings that run.
    pub(super) recordings: Recordings,
    /// The ways to the workers.
    pub(super) workers: Vec<mpsc::UnboundedSender<News>>,
}

impl Reloader {
    /// Reloads the config on each request. Returns when no requester is left.
    ///
    /// `store` is the open store.
    pub(super) async fn run(mut self, store: Store) {
        while let Some(ReloadRequest { scope, by, answer }) = self.reloading.asks.recv().await {
            let outcome = match self.read(scope).await {
                Ok(snapshot) => self.apply(snapshot, &store).await,
                Err(why) => Err(why),
            };
            let outcome = match outcome {
                Ok(changes) => {
                    tracing::info!(%by, digest = self.shared.snapshot.digest, ?changes, "the config was reloaded");
                    ReloadOutcome::Applied(changes.into())
                }
                Err(why) => {
                    self.shared.metrics.reload_failed();
                    tracing::error!(%by, "the new config is rejected, the old one stays:\n{why}");
                    ReloadOutcome::Refused(why.to_string().into())
                }
            };
            let digest = self.shared.snapshot.digest.as_str().into();
            let reloaded = Reloaded { at: self.shared.clock.now().wall, by, digest, outcome };
            journal_reload(&self.shared.audit, &reloaded, &self.shared.snapshot);
            self.reloading.last.send_replace(Arc::new(reloaded.clone()));
            let _hung_up = answer.send(reloaded);
        }
    }

    async fn read(&self, scope: ReloadScope) -> Result<Box<Snapshot>, ReloadError> {
        let Some(source) = self.source.clone() else {
            return Err(ReloadError::Config("this process has no config file".to_owned()));
        };
        let now = self.shared.snapshot.clone();
        let reading = tokio::task::spawn_blocking(move || match scope {
            ReloadScope::Everything => source(None),
            ReloadScope::Secrets => source(Some(&now)),
        });
        let read = reading.await.unwrap_or_else(|_| Err("the config could not be read, by a bug of ours".to_owned()));
        read.map_err(ReloadError::Config)
    }

    /// Puts a config in force. Returns the changes, or the reason for which it cannot be applied.
    async fn apply(&mut self, snapshot: Box<Snapshot>, store: &Store) -> Result<Vec<String>, ReloadError> {
        let before = self.shared.snapshot.clone();
        if snapshot.sources.fingerprint == before.sources.fingerprint {
            self.shared.metrics.configured(before.certificates.iter().map(|end| (end.what.as_str(), end.at)));
            return Ok(Vec::new());
        }
        let now = self.shared.clock.now();
        let mut changes = snapshot.sources.changes(&before.sources);
        changes.extend(self.beyond_reach(&before, &snapshot));
        self.ca.certify(&snapshot, now)?;
        let snapshot: Arc<Snapshot> = Arc::from(snapshot);
        follow_promotions(&before, &snapshot);
        let listeners = slots(&snapshot, &self.names);
        let pages = forward_pages(&listeners, &self.addresses)?;
        let told = |log: &LogConfig| (log.format, log.access.clone());
        let sink = if told(&snapshot.log) == told(&before.log) {
            None
        } else {
            let opened = access_sink(&snapshot.log, self.text, &self.shared.clock);
            Some(opened.map_err(ReloadError::AccessLog)?)
        };
        if snapshot.log.level != before.log.level {
            self.levels.configure(&snapshot.log.level)?;
        }
        if let Some((sink, shape)) = sink
            && let Err(busy) = self.access.turn(sink, shape)
        {
            // A refused reload leaves the level as it was.
            self.levels.configure(&before.log.level)?;
            return Err(busy.into());
        }
        self.shared.tracer.set(snapshot.otlp.sample());
        let ids = |ring: &Arc<KeyRing>| ring.ids().collect::<Vec<_>>();
        if let (Some(old), Some(new)) = (before.store.settings.ring(), snapshot.store.settings.ring())
            && before.store.id == snapshot.store.id
            && ids(old) != ids(new)
        {
            store.turn(new.clone());
        }
        self.shared.issuers.prepare(&snapshot.clients.issuers, now);
        self.recordings.turn(&snapshot, &self.shared.metrics, now);
        let serial = self.shared.serial + 1;
        self.shared = ProcessState { snapshot: snapshot.clone(), listeners, pages, serial, ..self.shared.clone() };
        self.shared.metrics.providers_come(snapshot.providers.iter().map(|provider| &*provider.name));
        let (done, mut all_done) = mpsc::channel::<Infallible>(1);
        for worker in &self.workers {
            // A worker that has ended serves nothing any more.
            let _ended = worker.send(News { shared: self.shared.clone(), done: done.clone() });
        }
        drop(done);
        if tokio::time::timeout(PATIENCE, all_done.recv()).await.is_err() {
            tracing::warn!("a worker has not applied the new config yet");
        }
        self.shared.metrics.configured(snapshot.certificates.iter().map(|end| (end.what.as_str(), end.at)));
        self.shared.metrics.config_in_force(self.shared.clock.now().wall);
        count_from_zero(&self.shared.metrics, &snapshot);
        self.reloading.current.send_replace(snapshot.clone());
        let stays = |name: &str| snapshot.providers.iter().any(|provider| *provider.name == *name);
        let went = before.providers.iter().map(|provider| &*provider.name).filter(|name| !stays(name));
        self.shared.metrics.providers_go(went);
        self.shared.leases.reloaded(modules_in_force(&snapshot));
        self.fetch_ahead(&before, &snapshot);
        Ok(changes)
    }

    /// A changed secret fetches first: the old token serves until there is a new one.
    fn fetch_ahead(&self, before: &Snapshot, after: &Snapshot) {
        let now = self.shared.clock.now();
        let old = before.routes.iter().map(|route| (&*route.name, &route.by_slot(now).0.module));
        let old: HashMap<&str, _> = old.collect();
        let routes = after.routes.iter().map(|route| route.by_slot(now).0);
        for route in routes.filter(|route| route.user.is_none() && !route.module.is_standing()) {
            let Some(module) = old.get(&*route.name) else { continue };
            if module.identity() != route.module.identity() || module.key() == route.module.key() {
                continue;
            }
            let spec = token_spec(route, Vars::none(), &self.shared.clock, self.shared.serial);
            // With variables there is a token for each value: those are fetched when they are asked for.
            if spec.key == route.module.key() && !route.module.has_vars() {
                let leases = self.shared.leases.clone();
                tokio::task::spawn_local(async move { drop(leases.need(spec).await) });
            }
        }
    }

    /// Lists, and logs as warnings, the changes that take effect only after a restart.
    fn beyond_reach(&self, before: &Snapshot, after: &Snapshot) -> Vec<String> {
        let mut lines = Vec::new();
        let mut stays = |what: String| {
            tracing::warn!("{what} only after a restart");
            lines.push(format!("{what} only after a restart"));
        };
        for listener in &after.listeners {
            let known = before.listeners.iter().find(|known| known.name == listener.name);
            if !self.names.contains(&listener.name) {
                stays(format!("listener `{}` is served", listener.name));
            } else if known.is_some_and(|known| known.bind != listener.bind) {
                stays(format!("listener `{}` moves to {}", listener.name, listener.bind));
            }
        }
        let place = |snapshot: &Snapshot| snapshot.admin.as_ref().map(|admin_listener| admin_listener.bind);
        if place(before) != place(after) {
            stays("the address of [admin] changes".to_owned());
        }
        if before.audit.is_some() != after.audit.is_some() {
            stays("[audit] comes or goes".to_owned());
        }
        if before.store.id != after.store.id {
            stays("[store] moves or is reached otherwise".to_owned());
        }
        if before.limits.tokens != after.limits.tokens {
            stays("`tokens` of [limits] changes".to_owned());
        }
        if before.workers != after.workers {
            stays("the number of workers changes".to_owned());
        }
        if before.log.format != after.log.format {
            stays("the format of the log itself changes".to_owned());
        }
        lines
    }
}

/// Providers whose credentials stay as they are go on with the slot that was promoted.
fn follow_promotions(before: &Snapshot, after: &Snapshot) {
    for route in &after.routes {
        let same = before.routes.iter().find(|known| known.name == route.name && known.has_credentials_of(route));
        if let Some(known) = same
            && let (Some(slots), Some(earlier)) = (&route.provider.slots, &known.provider.slots)
        {
            slots.follow(earlier);
        }
    }
}

/// The listeners in the order of their sockets.
pub(super) fn slots(snapshot: &Snapshot, names: &[Arc<str>]) -> Arc<[Option<Arc<ListenerConfig>>]> {
    let named = |name: &Arc<str>| snapshot.listeners.iter().find(|listener| listener.name == *name).cloned();
    names.iter().map(named).collect()
}
