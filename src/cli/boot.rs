//! Putting the rooms together: sockets, the control thread, the workers. And taking them apart again.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, watch as observed};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::inherited::Inherited;
use super::process_ca::{self, ProcessCa};
use super::reload::{ConfigSource, Reloader, slots};
use super::sockets::{OpenError, OpenedSockets, Sockets};
use super::{supervisor, watch};
use crate::admin::dashboard::Dashboard;
use crate::admin::{self, Admin, AdminAuthorizer};
use crate::base::secret::hex;
use crate::base::time::Clock;
use crate::config::{AccessLogTarget as AccessWish, Bind, ListenerConfig, LogConfig, LogFormat, Snapshot};
#[cfg(feature = "otlp")]
use crate::control::Exporter;
use crate::control::{
    ConsentHandle, ConsentService, EventKind, Events, Fetcher, Inbox, Issuers, Keeper, Limits as KeeperLimits,
    Observer, Registry, Reloads, Rests, StatsReceiver, StatsSender, TokenHandle, Tracker,
};
use crate::observe::access::{AccessLog, AccessSink, Followed, Sink};
use crate::observe::audit::Auditor;
use crate::observe::metrics::Metrics;
use crate::observe::stats::RequestStats;
use crate::observe::trace::{Spans, Tracer};
use crate::route::Guard;
use crate::serve::page::ForwardPage;
use crate::serve::{Drain, ListeningSocket, ProcessState, Worker};
use crate::store::{Patience, Store};
use crate::tls::trust_store::public_roots;
use crate::token::failure::Class;

/// The options that a caller may choose besides the config.
pub struct BootOptions {
    /// The clocks; a test moves its own.
    pub clock: Clock,
    /// Access lines for people rather than machines, when the config leaves it open.
    pub text_access_log: bool,
    /// Access lines go here instead of where the config says.
    pub access_sink: Option<Box<dyn io::Write + Send>>,
    /// Source from which a reload reads the config; if absent, a reload has no source.
    pub source: Option<ConfigSource>,
    /// True if the files behind the config are watched for changes.
    pub watches: bool,
    /// Sockets that somebody else opened for us.
    pub inherited: Inherited,
}

impl Default for BootOptions {
    fn default() -> Self {
        Self {
            clock: Clock::System,
            text_access_log: false,
            access_sink: None,
            source: None,
            watches: false,
            inherited: Inherited::default(),
        }
    }
}

/// The reason for which the process did not start.
#[derive(Debug)]
pub enum BootError {
    /// The admin listener cannot be served.
    Admin(io::Error),
    /// The access log's file cannot be opened.
    AccessLog(io::Error),
    /// The audit log cannot be opened.
    Audit(String, io::Error),
    /// An address cannot be bound.
    Bind(String, Bind, io::Error),
    /// A certificate of our own CA cannot be made.
    Certificate(String),
    /// A socket that somebody else opened is of no use: for whom, and why.
    Inherited(String, String),
    /// The store cannot be opened. The text says why, and what to do.
    Store(String),
    /// A thread cannot be started.
    Thread(io::Error),
}

impl fmt::Display for BootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BootError::Admin(error) => write!(f, "cannot serve the admin listener: {error}"),
            BootError::AccessLog(error) => write!(f, "cannot open the access log: {error}"),
            BootError::Audit(path, error) => write!(
                f,
                "cannot open the audit log {path}: {error}; it must be a file that this process alone appends to"
            ),
            BootError::Bind(name, address, error) => {
                write!(f, "{name} cannot listen on {address}: {error}; is another process there?")
            }
            BootError::Certificate(error) => write!(f, "a certificate cannot be made: {error}"),
            BootError::Inherited(name, error) => write!(f, "{name}: {error}"),
            BootError::Store(error) => write!(f, "cannot open the store: {error}"),
            BootError::Thread(error) => write!(f, "cannot start a thread: {error}"),
        }
    }
}

impl std::error::Error for BootError {}

/// The signal that a part of the process has ended unasked. The rest could not serve as it should: a listening socket
/// that is not accepted from receives its share of the connections all the same, and without the token keeper no token
/// is renewed.
#[derive(Clone)]
struct Alarm {
    failed: observed::Sender<Option<Arc<str>>>,
    /// Cancelled when parts may end without an alarm.
    ending: CancellationToken,
    /// Cancelled: the process says that it is not ready.
    unready: CancellationToken,
}

/// Held by a part for as long as it runs, and dropped also when it panics.
struct VitalGuard {
    alarm: Alarm,
    what: Arc<str>,
}

impl Alarm {
    fn vital(&self, what: impl Into<Arc<str>>) -> VitalGuard {
        VitalGuard { alarm: self.clone(), what: what.into() }
    }

    /// Runs a part in a task of its own.
    fn spawn(&self, what: &'static str, part: impl Future<Output = ()> + 'static) -> tokio::task::JoinHandle<()> {
        let vital = self.vital(what);
        tokio::task::spawn_local(async move {
            let _vital = vital;
            part.await;
        })
    }
}

impl Drop for VitalGuard {
    fn drop(&mut self) {
        if !self.alarm.ending.is_cancelled() {
            self.alarm.unready.cancel();
            // The first one counts.
            self.alarm.failed.send_if_modified(|failed| {
                let first = failed.is_none();
                failed.get_or_insert_with(|| self.what.clone());
                first
            });
        }
    }
}

/// A running instance of countersign, with its sockets and threads.
pub struct Running {
    /// Each listener's name and real address, Unix sockets apart.
    pub listeners: Vec<(Arc<str>, SocketAddr)>,
    /// The admin door's real address.
    pub admin: Option<SocketAddr>,
    /// Handle to the token keeper of this instance.
    pub leases: TokenHandle,
    /// Handle to the users' consents of this instance.
    pub consents: ConsentHandle,
    /// The config in force, and the way to another.
    pub reloads: Reloads,
    /// The CA behind `tls = "internal"`.
    pub ca: Arc<ProcessCa>,
    sockets: Sockets,
    drain: Drain,
    failed: observed::Receiver<Option<Arc<str>>>,
    succeeded: CancellationToken,
    draining: CancellationToken,
    control_end: CancellationToken,
    /// When the drain is over: work that must not be abandoned is waited for until then.
    ends: observed::Sender<Option<Instant>>,
    workers: Vec<JoinHandle<()>>,
    control: Option<JoinHandle<()>>,
    access: Option<JoinHandle<()>>,
    audit: Auditor,
    audit_thread: Option<JoinHandle<()>>,
}

impl Running {
    /// Binds, starts every thread, and says where it listens.
    pub fn start(snapshot: Snapshot, options: BootOptions) -> Result<Self, BootError> {
        let snapshot = Arc::new(snapshot);
        let metrics = Arc::new(Metrics::new());
        metrics.configured(snapshot.certificates.iter().map(|end| (end.what.as_str(), end.at)));
        let text = options.text_access_log;
        let (sink, shape) = match options.access_sink {
            // A caller that passes its own sink gets all lines, even if the config turns them off.
            Some(sink) => (sink, line_shape(&snapshot.log, text)),
            None => access_sink(&snapshot.log, text, &options.clock).map_err(BootError::AccessLog)?,
        };
        let (access, access_thread) = AccessLog::start(sink, shape).map_err(BootError::AccessLog)?;
        let (audit, audit_thread) = audit_log(&snapshot, &options.clock, &metrics)?;
        let mut per_worker: Vec<Vec<ListeningSocket>> = (0..snapshot.workers.max(1)).map(|_| Vec::new()).collect();
        let mut listeners = Vec::new();
        let mut sockets = Sockets::new(options.inherited);
        let failed = |name: String, bind: Bind| {
            |error| match error {
                OpenError::Bind(error) => BootError::Bind(name, bind, error),
                OpenError::Inherited(error) => BootError::Inherited(name, error),
            }
        };
        for (index, listener) in snapshot.listeners.iter().enumerate() {
            let opened = sockets.open(&listener.name, &listener.bind, per_worker.len());
            let failed = failed(format!("listener `{}`", listener.name), listener.bind.clone());
            let OpenedSockets { address, sockets } = opened.map_err(failed)?;
            listeners.extend(address.map(|address| (listener.name.clone(), address)));
            for (worker, share) in per_worker.iter_mut().zip(sockets) {
                worker.extend(share.into_iter().map(|socket| ListeningSocket { listener: index, socket }));
            }
        }
        let admin_listener = match snapshot.admin.as_ref().map(|admin| admin.bind) {
            Some(bind) => Some(sockets.open_door(bind).map_err(failed("[admin]".to_owned(), Bind::Tcp(bind)))?),
            None => None,
        };
        sockets.settle();
        let admin = admin_listener.as_ref().and_then(|admin_listener| admin_listener.local_addr().ok());

        let own: Vec<SocketAddr> = listeners.iter().map(|(_, address)| *address).chain(admin).collect();
        // The addresses that an unspecified address stands for are checked when a tunnel is connected, before anything
        // is sent on it.
        let guard = Arc::new(Guard::new(&own, &[]));
        let names: Arc<[Arc<str>]> = snapshot.listeners.iter().map(|listener| listener.name.clone()).collect();
        let slots = slots(&snapshot, &names);
        let pages = pages(&slots, &listeners).map_err(BootError::Certificate)?;
        let ca = Arc::new(ProcessCa::default());
        ca.certify(&snapshot, options.clock.now()).map_err(BootError::Certificate)?;
        let (issuers, fetcher) = Issuers::open(options.clock.clone());
        issuers.prepare(&snapshot.clients.issuers, options.clock.now());
        let (leases, inbox) = TokenHandle::open();
        let (consents, registry) = ConsentHandle::open();
        let (stats_sender, gazing) = StatsSender::open();
        let (reloads, reloading) = Reloads::open(snapshot.clone(), options.clock.now().wall);
        let (tracer, spans) = Tracer::open();
        tracer.set(snapshot.tracing.as_ref().map(|tracing| tracing.sample));
        let shared = ProcessState {
            snapshot,
            tracer,
            leases: leases.clone(),
            clock: options.clock.clone(),
            metrics,
            buffered: Arc::default(),
            connections: Arc::default(),
            connection_limits: Arc::default(),
            issuers,
            consents: consents.clone(),
            guard,
            pages,
            audit: audit.clone(),
            listeners: slots,
            stats_sender: admin_listener.is_some().then_some(stats_sender),
            serial: 0,
        };
        let (tellers, hearers): (Vec<_>, Vec<_>) = per_worker.iter().map(|_| mpsc::unbounded_channel()).unzip();
        let reloader = Reloader {
            reloading,
            source: options.source,
            shared: shared.clone(),
            addresses: listeners.clone(),
            names,
            ca: ca.clone(),
            workers: tellers,
            access: access.clone(),
            text,
        };
        let succeeded = CancellationToken::new();
        let watches = options.watches;
        let follows = succeeded.clone();
        let chores = Chores { inbox, registry, fetcher, gazing, reloader, spans, watches, succeeded: follows };
        let (draining, control_end) = (CancellationToken::new(), CancellationToken::new());
        let (ends, known_end) = observed::channel(None);
        let drain = Drain::default();
        let (failing, failed) = observed::channel(None);
        let end = StopSignal { now: control_end.clone(), at: known_end };
        let alarm = Alarm { failed: failing, ending: drain.begin.clone(), unready: draining.clone() };
        let control = start_control(&shared, &reloads, admin_listener, chores, listeners.clone(), &alarm, end)?;
        let paths: Vec<_> =
            shared.snapshot.listeners.iter().filter(|l| matches!(l.bind, Bind::Unix(_))).cloned().collect();
        let mut workers = Vec::new();
        for (index, (sockets, news)) in per_worker.into_iter().zip(hearers).enumerate() {
            let (access, drain) = (access.clone(), drain.clone());
            let worker = Worker { shared: shared.clone(), sockets, access, drain, news };
            let vital = alarm.vital(format!("worker {index}"));
            let thread = std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
                let _vital = vital;
                if let Err(error) = worker.run() {
                    tracing::error!(%error, "a worker ended");
                }
            });
            workers.push(thread.map_err(BootError::Thread)?);
        }
        for (name, address) in &listeners {
            tracing::info!(listener = %name, %address, "listening");
        }
        for listener in paths {
            tracing::info!(listener = %listener.name, address = %listener.bind, "listening");
        }
        if let Some(address) = admin {
            tracing::info!(%address, "admin listening");
        }
        Ok(Self {
            listeners,
            admin,
            leases,
            consents,
            reloads,
            ca,
            sockets,
            drain,
            failed,
            succeeded,
            draining,
            control_end,
            ends,
            workers,
            control: Some(control),
            access: Some(access_thread),
            audit,
            audit_thread,
        })
    }

    /// The real address of a listener.
    pub fn address(&self, name: &str) -> Option<SocketAddr> {
        self.listeners.iter().find(|(known, _)| **known == *name).map(|(_, address)| *address)
    }

    /// Waits until a part of the process has ended unasked; says which. The process is to end, too: it cannot serve as it
    /// should.
    pub fn failure(&self) -> impl Future<Output = Arc<str>> + use<> {
        let mut failed = self.failed.clone();
        async move {
            match failed.wait_for(Option::is_some).await {
                Ok(what) => what.clone().unwrap_or_default(),
                // All parts ended as they were asked to.
                Err(_) => std::future::pending().await,
            }
        }
    }

    /// Says that it is not ready any more, goes on for `delay`, then accepts nothing, lets requests finish for at most
    /// `limit`, and ends.
    pub fn drain(mut self, delay: Duration, limit: Duration) {
        self.draining.cancel();
        std::thread::sleep(delay);
        self.sockets.close();
        self.finish_requests(limit);
    }

    /// Leaves all sockets to the process that accepts from them now, lets requests finish for at most `limit`, and ends.
    pub fn make_way(mut self, limit: Duration) {
        self.succeeded.cancel();
        self.sockets.leave();
        self.finish_requests(limit);
    }

    /// Tells the process before us, if there is one, that we serve in its place.
    pub fn take_over(&mut self) -> io::Result<()> {
        self.sockets.take_over()
    }

    /// Handles on the listening sockets for a successor, each with its name.
    pub fn sockets_for_a_successor(&self) -> io::Result<Vec<(String, OwnedFd)>> {
        self.sockets.for_a_successor()
    }

    fn finish_requests(mut self, limit: Duration) {
        self.ends.send_replace(Instant::now().checked_add(limit));
        self.drain.begin.cancel();
        let end = self.drain.end.clone();
        let (done, waits) = sync_channel::<()>(1);
        let timer = std::thread::spawn(move || {
            // Ends at the limit, or as soon as `done` is dropped.
            let _ = waits.recv_timeout(limit);
            end.cancel();
        });
        self.join_workers();
        drop(done);
        let _ = timer.join();
        self.finish();
    }

    fn join_workers(&mut self) {
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
    }

    fn finish(&mut self) {
        self.control_end.cancel();
        if let Some(control) = self.control.take() {
            let _ = control.join();
        }
        self.audit.stop();
        if let Some(audit) = self.audit_thread.take() {
            let _ = audit.join();
        }
        if let Some(access) = self.access.take() {
            let _ = access.join();
        }
    }
}

impl Drop for Running {
    /// Ends at once: for tests and failed starts. `drain` is the polite way.
    fn drop(&mut self) {
        self.drain.begin.cancel();
        self.drain.end.cancel();
        self.join_workers();
        self.finish();
    }
}

/// The forward listeners' own pages.
pub(super) fn pages(
    slots: &[Option<Arc<ListenerConfig>>],
    addresses: &[(Arc<str>, SocketAddr)],
) -> Result<Arc<[Option<ForwardPage>]>, String> {
    let listeners = slots.iter();
    let roots = if listeners.clone().flatten().any(|listener| listener.forward().is_some()) {
        public_roots()
    } else {
        Vec::new()
    };
    let page = |slot: &Option<Arc<ListenerConfig>>| {
        let Some(listener) = slot else { return Ok(None) };
        let Some(forward) = listener.forward() else { return Ok(None) };
        let scheme = if listener.tls.is_some() { "https" } else { "http" };
        let bound = addresses.iter().find(|(name, _)| *name == listener.name).map(|(_, address)| address.to_string());
        let proxy = bound.map_or_else(|| listener.bind.to_string(), |address| format!("{scheme}://{address}"));
        ForwardPage::new(forward.interception.authority().chain(), &roots, &proxy).map(Some)
    };
    listeners.map(page).collect()
}

/// Tells the metrics how token calls ended, and who watches what happened.
struct Count(Arc<Metrics>, Events);

impl Observer for Count {
    fn fetched(&self, provider: &str, outcome: Result<(), Class>, took: Duration) {
        self.0.token_fetched(provider, outcome.map_or_else(Class::as_str, |()| "ok"), took);
    }

    fn told(&self, what: EventKind) {
        self.1.tell(what);
    }
}

/// The other parts and channels that the control thread takes over and runs.
struct Chores {
    inbox: Inbox,
    registry: Registry,
    fetcher: Fetcher,
    gazing: StatsReceiver,
    reloader: Reloader,
    spans: Spans,
    watches: bool,
    succeeded: CancellationToken,
}

/// The signals that announce the end of the process to the control thread.
struct StopSignal {
    /// Cancelled once the workers have ended.
    now: CancellationToken,
    /// When the drain is over, once that is known.
    at: observed::Receiver<Option<Instant>>,
}

/// Tells the tracker when the process ends.
async fn tell_end(mut at: observed::Receiver<Option<Instant>>, tasks: Tracker) {
    if let Ok(known) = at.wait_for(Option::is_some).await
        && let Some(end) = *known
    {
        tasks.close_at(end);
    }
}

/// Waits for what must not be abandoned, until the drain is over, and says what is lost.
async fn finish_work(tasks: &Tracker, at: &observed::Receiver<Option<Instant>>) {
    let end = at.borrow().unwrap_or_else(Instant::now);
    for lost in tasks.finish(end).await {
        tracing::error!(work = %lost, "the drain is over before this was done: a token that it brings is lost, and its user may have to consent again");
    }
}

fn start_control(
    shared: &ProcessState,
    reloads: &Reloads,
    admin_listener: Option<TcpListener>,
    chores: Chores,
    addresses: Vec<(Arc<str>, SocketAddr)>,
    alarm: &Alarm,
    ending: StopSignal,
) -> Result<JoinHandle<()>, BootError> {
    let ProcessState { leases, consents, metrics, clock, tracer, .. } = shared.clone();
    let wish = shared.snapshot.store.wish.clone();
    let reloads = reloads.clone();
    let StopSignal { now: end, at: ends } = ending;
    let (alarm, draining) = (alarm.clone(), alarm.unready.clone());
    let (started, waits) = sync_channel(1);
    let thread = std::thread::Builder::new().name("control".to_owned()).spawn(move || {
        let _vital = alarm.vital("the control thread");
        let runtime = match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
            Ok(runtime) => runtime,
            Err(error) => {
                let _ = started.send(Err(BootError::Thread(error)));
                return;
            }
        };
        runtime.block_on(async move {
            let store = match Store::open(&wish, Patience::default(), clock.clone()).await {
                Ok(store) => store,
                Err(error) => {
                    let _ = started.send(Err(BootError::Store(error.to_string())));
                    return;
                }
            };
            let opened = admin_listener.map(|admin_listener| {
                let vital = alarm.vital("the admin listener");
                admin::AdminListener::open(admin_listener, reloads.clone(), metrics.clone(), clock.clone(), vital)
            });
            let admin_listener = match opened.transpose() {
                Ok(admin_listener) => admin_listener,
                Err(error) => {
                    let _ = started.send(Err(BootError::Admin(error)));
                    return;
                }
            };
            let _ = started.send(Ok(()));
            let events = Events::open(clock.clone());
            let observer = Box::new(Count(metrics.clone(), events.clone()));
            let Chores { inbox, registry, fetcher, gazing, reloader, spans, watches, succeeded } = chores;
            let keys = reloads.current().limits.tokens.unwrap_or(usize::MAX);
            let limits = KeeperLimits { keys, ..KeeperLimits::default() };
            let (tasks, rests) = (Tracker::default(), Rests::default());
            tokio::task::spawn_local(tell_end(ends.clone(), tasks.clone()));
            let keeper = Keeper::behind(inbox, clock.clone(), limits, observer, Some(store.clone()));
            let keeper = keeper.with_renewals(tasks.clone(), rests.clone());
            let keeping = alarm.spawn("the token keeper", keeper.traced(tracer).run());
            let keeper = leases.clone();
            let exporting = export(spans, &reloads, &metrics, &clock, &end);
            let audit = reloader.shared.audit.clone();
            let desk = ConsentService {
                store: store.clone(),
                clock: clock.clone(),
                leases: leases.clone(),
                events: events.clone(),
                audit: audit.clone(),
                tasks: tasks.clone(),
                rests,
            };
            let (kept, consenting) = (store, registry.run(desk, metrics.clone(), reloads.clone()));
            alarm.spawn("the keeper of consents", consenting);
            alarm.spawn("the fetcher of issuers' keys", fetcher.run());
            let current = reloads.clone();
            tokio::task::spawn_local(process_ca::keep(reloader.ca.clone(), clock.clone(), move || current.current()));
            alarm.spawn("the reloader", reloader.run(kept.clone()));
            if watches {
                tokio::task::spawn_local(watch::watch(reloads.clone()));
            }
            if let Some(beat) = supervisor::heartbeat() {
                let succeeded = succeeded.clone();
                tokio::task::spawn_local(async move { succeeded.run_until_cancelled(beat).await });
            }
            if let Some(admin_listener) = admin_listener {
                let flag = Rc::new(std::cell::Cell::new(false));
                let raised = flag.clone();
                tokio::task::spawn_local(async move {
                    draining.cancelled().await;
                    raised.set(true);
                });
                let request_stats = Rc::new(RefCell::new(RequestStats::default()));
                tokio::task::spawn_local(gazing.run(clock.clone(), request_stats.clone()));
                let started = clock.now();
                let shows = Admin {
                    leases,
                    metrics,
                    clock,
                    draining: flag,
                    consents,
                    reloads,
                    store: kept,
                    addresses,
                    instance: instance(),
                    started,
                    events,
                    dashboard: Dashboard::new(request_stats),
                    audit,
                    authorizer: AdminAuthorizer::default(),
                };
                let closing = end.child_token();
                let serving = tokio::task::spawn_local(admin::serve(Rc::new(shows), admin_listener, closing.clone()));
                tokio::select! {
                    () = succeeded.cancelled() => closing.cancel(),
                    () = end.cancelled() => {}
                }
                // The door is left to a process that takes our place; what is under way there is finished.
                let _ = serving.await;
            }
            end.cancelled().await;
            tokio::join!(finish_work(&tasks, &ends), exporting);
            keeper.shutdown();
            // A token that was refused must not be found again by the next process.
            let _ended = keeping.await;
        });
    });
    let thread = thread.map_err(BootError::Thread)?;
    match waits.recv() {
        Ok(Ok(())) => Ok(thread),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(BootError::Thread(io::Error::other("the control thread ended"))),
    }
}

/// Sends spans on until the end. Ends when the last ones are sent.
#[cfg(feature = "otlp")]
fn export(
    spans: Spans,
    reloads: &Reloads,
    metrics: &Arc<Metrics>,
    clock: &Clock,
    end: &CancellationToken,
) -> impl Future<Output = ()> + use<> {
    let exporter = Exporter::new(spans, reloads.clone(), metrics.clone(), clock.clone());
    let task = tokio::task::spawn_local(exporter.run(end.clone()));
    async move { drop(task.await) }
}

/// No config of this build wants spans.
#[cfg(not(feature = "otlp"))]
fn export(
    _: Spans,
    _: &Reloads,
    _: &Arc<Metrics>,
    _: &Clock,
    _: &CancellationToken,
) -> impl Future<Output = ()> + use<> {
    std::future::ready(())
}

/// A name for this process, drawn at its start.
fn instance() -> Arc<str> {
    hex(&rand::random::<[u8; 4]>()).into()
}

/// Returns the format of access lines. `text`: they are for people if the config leaves it open.
fn line_shape(log: &LogConfig, text: bool) -> AccessSink {
    match log.format {
        Some(LogFormat::Json) => AccessSink::Json,
        Some(LogFormat::Text) => AccessSink::Text,
        None if text => AccessSink::Text,
        None => AccessSink::Json,
    }
}

/// Opens the destination of access lines, and returns it with their format. `text`: they are for people if the config
/// leaves it open.
pub(super) fn access_sink(log: &LogConfig, text: bool, clock: &Clock) -> io::Result<(Sink, AccessSink)> {
    let shape = line_shape(log, text);
    Ok(match &log.access {
        AccessWish::File(path) => (Box::new(Followed::open(path, clock.clone())?), shape),
        AccessWish::Off => (Box::new(io::sink()), AccessSink::Off),
        AccessWish::Stderr => (Box::new(io::stderr()), shape),
    })
}

fn audit_log(
    snapshot: &Snapshot,
    clock: &Clock,
    metrics: &Metrics,
) -> Result<(Auditor, Option<JoinHandle<()>>), BootError> {
    let Some(wish) = snapshot.audit.clone() else { return Ok((Auditor::off(), None)) };
    let to = wish.path.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
    let started = Auditor::start(wish, &snapshot.digest, clock.clone(), metrics.audit());
    started.map(|(audit, thread)| (audit, Some(thread))).map_err(|error| BootError::Audit(to, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alarm() -> (Alarm, observed::Receiver<Option<Arc<str>>>) {
        let (failing, failed) = observed::channel(None);
        let alarm = Alarm { failed: failing, ending: CancellationToken::new(), unready: CancellationToken::new() };
        (alarm, failed)
    }

    #[test]
    fn a_part_that_dies_is_told_of_and_the_process_is_not_ready_any_more() {
        let (alarm, failed) = alarm();
        let vital = alarm.vital("worker 0");
        let other = alarm.vital("worker 1");
        assert!(!alarm.unready.is_cancelled() && failed.borrow().is_none());
        let died = std::thread::spawn(move || {
            let _vital = vital;
            panic!("a fault of ours");
        });
        assert!(died.join().is_err());
        drop(other);
        assert!(alarm.unready.is_cancelled());
        assert_eq!(failed.borrow().as_deref(), Some("worker 0"), "the first one counts");
    }

    #[test]
    fn a_part_that_ends_when_it_is_told_to_is_no_failure() {
        let (alarm, failed) = alarm();
        let vital = alarm.vital("worker 0");
        alarm.ending.cancel();
        drop(vital);
        assert!(failed.borrow().is_none() && !alarm.unready.is_cancelled());
    }
}
