//! Putting the rooms together: sockets, the control thread, the workers. And taking them apart again.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{mpsc, watch as observed};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::access_sink::{access_sink, line_shape};
use super::alarm::Alarm;
use super::boot_error::BootError;
use super::control_thread::{ControlTasks, StopSignal, count_from_zero, start_control_thread};
use super::forward_pages::forward_pages;
use super::inherited::Inherited;
use super::process_ca::ProcessCa;
use super::recordings::Recordings;
use super::reload::{ConfigSource, Reloader, slots};
use super::sockets::{OpenError, OpenedSockets, Sockets};
use crate::base::time::Clock;
use crate::config::{Bind, Snapshot};
use crate::control::{ConsentHandle, Issuers, QuotaBook, Reloads, StatsSender, TokenHandle};
use crate::observe::access::AccessLog;
use crate::observe::audit::Auditor;
use crate::observe::logging::LogLevels;
use crate::observe::metrics::Metrics;
use crate::observe::trace::Tracer;
use crate::route::Guard;
use crate::serve::{Drain, ListeningSocket, ProcessState, Worker};

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

/// A running instance of countersign, with its sockets and threads.
pub struct Running {
    /// Each listener's name and real address, Unix sockets apart.
    pub listeners: Vec<(Arc<str>, SocketAddr)>,
    /// The admin listener's real address.
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
        metrics.config_in_force(options.clock.now().wall);
        count_from_zero(&metrics, &snapshot);
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
        let admin_listener = match snapshot.admin.as_ref().map(|admin| admin.bind.address()) {
            Some(bind) => Some(sockets.open_admin(bind).map_err(failed("[admin]".to_owned(), Bind::Tcp(bind)))?),
            None => None,
        };
        sockets.settle();
        let admin = admin_listener.as_ref().map(TcpListener::local_addr).transpose().map_err(BootError::Admin)?;

        let own: Vec<SocketAddr> = listeners.iter().map(|(_, address)| *address).chain(admin).collect();
        // The addresses that an unspecified address stands for are checked when a tunnel is connected, before anything
        // is sent on it.
        let guard = Arc::new(Guard::new(&own, &[]));
        let names: Arc<[Arc<str>]> = snapshot.listeners.iter().map(|listener| listener.name.clone()).collect();
        let slots = slots(&snapshot, &names);
        let pages = forward_pages(&slots, &listeners).map_err(BootError::Page)?;
        let ca = Arc::new(ProcessCa::default());
        ca.certify(&snapshot, options.clock.now()).map_err(BootError::Certificate)?;
        let (issuers, fetcher) = Issuers::open(options.clock.clone());
        issuers.prepare(&snapshot.clients.issuers, options.clock.now());
        let (leases, inbox) = TokenHandle::open();
        let (consents, registry) = ConsentHandle::open();
        let (quotas, quota_claims) = QuotaBook::open(snapshot.store.settings.is_shared());
        let (stats_sender, stats_receiver) = StatsSender::open();
        let (reloads, reloading) = Reloads::open(snapshot.clone(), options.clock.now().wall);
        let (tracer, spans) = Tracer::open();
        tracer.set(snapshot.otlp.sample());
        let mut recordings = Recordings::default();
        recordings.turn(&snapshot, &metrics, options.clock.now());
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
            quotas,
            serial: 0,
        };
        let (senders, receivers): (Vec<_>, Vec<_>) = per_worker.iter().map(|_| mpsc::unbounded_channel()).unzip();
        let reloader = Reloader {
            reloading,
            source: options.source,
            shared: shared.clone(),
            addresses: listeners.clone(),
            names,
            ca: ca.clone(),
            workers: senders,
            access: access.clone(),
            text,
            levels: LogLevels::new(&shared.snapshot.log.level),
            recordings,
        };
        let succeeded = CancellationToken::new();
        let watches = options.watches;
        let follows = succeeded.clone();
        let parts = ControlTasks {
            inbox,
            registry,
            fetcher,
            stats_receiver,
            quota_claims,
            reloader,
            spans,
            watches,
            succeeded: follows,
        };
        let (draining, control_end) = (CancellationToken::new(), CancellationToken::new());
        let (ends, known_end) = observed::channel(None);
        let drain = Drain::default();
        let (failing, failed) = observed::channel(None);
        let end = StopSignal { now: control_end.clone(), at: known_end };
        let alarm = Alarm { failed: failing, ending: drain.begin.clone(), unready: draining.clone() };
        let control = start_control_thread(&shared, &reloads, admin_listener, parts, listeners.clone(), &alarm, end)?;
        let paths: Vec<_> =
            shared.snapshot.listeners.iter().filter(|l| matches!(l.bind, Bind::Unix(_))).cloned().collect();
        let mut workers = Vec::new();
        for (index, (sockets, news)) in per_worker.into_iter().zip(receivers).enumerate() {
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
            if shared.snapshot.admin.as_ref().is_some_and(|admin| admin.tokens.is_empty()) {
                let message = "the admin listener asks for no token: every user and program of this machine may use it";
                tracing::info!(%address, "{message}");
            }
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
