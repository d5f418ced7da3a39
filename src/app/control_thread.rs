//! The control thread: it owns the store, the token keeper, consents, reloads and the admin listener.

use std::cell::RefCell;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::watch as observed;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::alarm::Alarm;
use super::boot_error::BootError;
use super::reload::Reloader;
use super::{process_ca, supervisor, watch};
use crate::admin::dashboard::Dashboard;
use crate::admin::{self, Admin, AdminAuthorizer, LogLevelSwitch};
use crate::base::secret::hex;
use crate::base::time::Clock;
use crate::config::Snapshot;
#[cfg(feature = "otlp")]
use crate::control::Exporter;
use crate::control::{
    ConsentService, EventKind, Events, Fetcher, Inbox, Keeper, Limits as KeeperLimits, Observer, QuotaClaims, Registry,
    Reloads, Rests, StatsReceiver, Tracker, watch_credentials, watch_key_services,
};
use crate::observe::metrics::Metrics;
use crate::observe::stats::RequestStats;
use crate::observe::trace::Spans;
use crate::serve::ProcessState;
use crate::store::{Patience, Store};
use crate::token::failure::Class;

/// The outcome of a token call that brought a token, in metrics.
const FETCHED: &str = "ok";

/// Has everything that may happen to the providers of this config counted from zero.
pub(super) fn count_from_zero(metrics: &Metrics, snapshot: &Snapshot) {
    for provider in &snapshot.providers {
        metrics.token_calls_begin(&provider.name, Class::ALL.map(Class::as_str).into_iter().chain([FETCHED]));
        if provider.next.is_some() {
            metrics.credentials_wait(&provider.name);
        }
    }
}

/// Tells the metrics how token calls ended and which credentials were promoted, and who watches what happened.
struct Count(Arc<Metrics>, Events);

impl Observer for Count {
    fn fetched(&self, provider: &str, outcome: Result<(), Class>, took: Duration) {
        self.0.token_fetched(provider, outcome.map_or_else(Class::as_str, |()| FETCHED), took);
    }

    fn told(&self, what: EventKind) {
        if let EventKind::CredentialsPromoted { provider, slot } = &what {
            self.0.credentials_promoted(provider, slot.as_str());
        }
        self.1.tell(what);
    }
}

/// The other parts and channels that the control thread takes over and runs.
pub(super) struct ControlTasks {
    pub(super) inbox: Inbox,
    pub(super) registry: Registry,
    pub(super) fetcher: Fetcher,
    pub(super) stats_receiver: StatsReceiver,
    pub(super) quota_claims: QuotaClaims,
    pub(super) reloader: Reloader,
    pub(super) spans: Spans,
    pub(super) watches: bool,
    pub(super) succeeded: CancellationToken,
}

/// The signals that announce the end of the process to the control thread.
pub(super) struct StopSignal {
    /// Cancelled once the workers have ended.
    pub(super) now: CancellationToken,
    /// When the drain is over, once that is known.
    pub(super) at: observed::Receiver<Option<Instant>>,
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

/// Starts the thread. Returns once the store and the admin listener are open.
pub(super) fn start_control_thread(
    shared: &ProcessState,
    reloads: &Reloads,
    admin_listener: Option<TcpListener>,
    parts: ControlTasks,
    addresses: Vec<(Arc<str>, SocketAddr)>,
    alarm: &Alarm,
    ending: StopSignal,
) -> Result<JoinHandle<()>, BootError> {
    let ProcessState { leases, consents, metrics, clock, tracer, .. } = shared.clone();
    let wish = shared.snapshot.store.settings.clone();
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
            let ControlTasks {
                inbox,
                registry,
                fetcher,
                stats_receiver,
                quota_claims,
                reloader,
                spans,
                watches,
                succeeded,
            } = parts;
            let keys = reloads.current().limits.tokens.unwrap_or(usize::MAX);
            let limits = KeeperLimits { keys, ..KeeperLimits::default() };
            let (tasks, rests) = (Tracker::default(), Rests::default());
            tokio::task::spawn_local(tell_end(ends.clone(), tasks.clone()));
            let keeper = Keeper::behind(inbox, clock.clone(), limits, observer, Some(store.clone()));
            let keeper = keeper.with_renewals(tasks.clone(), rests.clone()).with_promotions(leases.clone());
            let keeping = alarm.spawn("the token keeper", keeper.traced(tracer).run());
            let keeper = leases.clone();
            let exporting = export(spans, &reloads, &metrics, &clock, &end);
            let (audit, levels) = (reloader.shared.audit.clone(), reloader.levels.clone());
            let service = ConsentService {
                store: store.clone(),
                clock: clock.clone(),
                leases: leases.clone(),
                events: events.clone(),
                audit: audit.clone(),
                tasks: tasks.clone(),
                rests,
            };
            let (kept, consenting) = (store, registry.run(service, metrics.clone(), reloads.clone()));
            alarm.spawn("the keeper of consents", consenting);
            alarm.spawn("the fetcher of issuers' keys", fetcher.run());
            alarm.spawn("the keeper of quotas", quota_claims.run(kept.clone(), clock.clone()));
            tokio::task::spawn_local(watch_key_services(metrics.clone(), events.clone()));
            let watching = watch_credentials(events.clone(), reloads.clone(), leases.clone(), clock.clone());
            tokio::task::spawn_local(watching);
            let current = reloads.clone();
            tokio::task::spawn_local(process_ca::keep(reloader.ca.clone(), clock.clone(), move || current.current()));
            alarm.spawn("the reloader", reloader.run(kept.clone()));
            if watches {
                tokio::task::spawn_local(watch::watch(reloads.clone(), metrics.clone()));
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
                tokio::task::spawn_local(stats_receiver.run(clock.clone(), request_stats.clone()));
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
                    log_level: LogLevelSwitch::new(levels),
                    authorizer: AdminAuthorizer::default(),
                };
                let closing = end.child_token();
                let serving = tokio::task::spawn_local(admin::serve(Rc::new(shows), admin_listener, closing.clone()));
                tokio::select! {
                    () = succeeded.cancelled() => closing.cancel(),
                    () = end.cancelled() => {}
                }
                // The admin listener is left to a process that takes our place; what is under way there is finished.
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
