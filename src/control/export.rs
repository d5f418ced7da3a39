//! The export of finished spans, of metrics and of log lines to a collector: OTLP over HTTP or gRPC, in batches.
//!
//! No request waits for it. A batch that the collector does not accept now is offered again a few times; meanwhile
//! spans and lines queue up to their bounds, and those that do not fit are dropped and counted. Metrics are values since
//! the start of the process, so the next export tells what a lost one did. Failures of the collector are logged once a
//! minute at most.

mod offer;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch::Receiver;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Reloads;
use crate::base::time::{Clock, Now};
use crate::config::{OtlpSignal, Snapshot};
use crate::observe::log_queue::LogQueue;
use crate::observe::metrics::{ExportedKind, Metrics};
use crate::observe::otlp::{
    OtlpResource, log_export, metric_batches, metric_export, points, read_metrics, trace_export,
};
use crate::observe::trace::Spans;
use offer::{Offered, offer};

/// Finished spans and log lines are looked for this often.
const LOOK: Duration = Duration::from_millis(500);
/// Maximum number of spans, data points or log lines in one export request.
const BATCH: usize = 512;
/// A batch is offered so often before it is given up.
const TRIES: u32 = 5;
/// The first pause before a batch is offered again; each one is twice as long as the one before.
const PAUSE: Duration = Duration::from_secs(1);
/// A collector may ask for no longer pause than this.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Failures are told of this often.
const COMPLAIN: Duration = Duration::from_secs(60);
/// Time allowed for exporting what remains when the process ends.
const LAST: Duration = Duration::from_secs(2);

/// The exporter of all that is exported. Runs on the control thread.
pub struct Exporter {
    spans: Spans,
    reloads: Reloads,
    metrics: Arc<Metrics>,
    clock: Clock,
}

impl Exporter {
    /// Builds an exporter of these spans, of these metrics and of the lines of the process's log. The current config
    /// determines the collectors.
    pub fn new(spans: Spans, reloads: Reloads, metrics: Arc<Metrics>, clock: Clock) -> Self {
        Self { spans, reloads, metrics, clock }
    }

    /// Exports until `end`, and then what is left, for two seconds at most.
    pub async fn run(self, end: CancellationToken) {
        let grace = async {
            end.cancelled().await;
            sleep(LAST).await;
        };
        let instance: Rc<str> = Uuid::new_v4().to_string().into();
        let Self { spans, reloads, metrics, clock } = self;
        let exporter = |signal| SignalExporter {
            signal,
            reloads: reloads.clone(),
            metrics: metrics.clone(),
            clock: clock.clone(),
            instance: instance.clone(),
            end: end.clone(),
            complained: None,
            untold: 0,
        };
        let all = async {
            tokio::join!(
                exporter(OtlpSignal::Traces).export_spans(&spans),
                exporter(OtlpSignal::Metrics).export_metrics(),
                exporter(OtlpSignal::Logs).export_logs(LogQueue::of_process()),
            )
        };
        tokio::select! {
            _ = all => {}
            () = grace => {}
        }
    }
}

/// The export of one kind of telemetry.
struct SignalExporter {
    signal: OtlpSignal,
    reloads: Reloads,
    metrics: Arc<Metrics>,
    clock: Clock,
    instance: Rc<str>,
    end: CancellationToken,
    complained: Option<Now>,
    untold: u64,
}

/// The reason for which an exporter turns to its work.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Turn {
    /// It is time.
    Due,
    /// The process ends: this is the last time.
    Last,
    /// There is another config.
    Reloaded,
}

impl SignalExporter {
    async fn export_spans(mut self, spans: &Spans) {
        let mut news = self.reloads.news();
        loop {
            let on = news.borrow_and_update().otlp.traces.is_some();
            let turn = self.turn(on.then_some(LOOK), &mut news).await;
            loop {
                self.count("dropped", spans.dropped());
                let batch = spans.take(BATCH);
                if batch.is_empty() {
                    break;
                }
                self.deliver(batch.len() as u64, |resource| trace_export(resource, &batch)).await;
            }
            if turn == Turn::Last {
                return;
            }
        }
    }

    async fn export_logs(mut self, queue: &LogQueue) {
        let mut news = self.reloads.news();
        loop {
            let on = news.borrow_and_update().otlp.logs.is_some();
            queue.set(on);
            let turn = self.turn(on.then_some(LOOK), &mut news).await;
            loop {
                self.count("dropped", queue.dropped());
                let batch = queue.take(BATCH);
                if batch.is_empty() {
                    break;
                }
                self.deliver(batch.len() as u64, |resource| log_export(resource, &batch)).await;
            }
            if turn == Turn::Last {
                return;
            }
        }
    }

    async fn export_metrics(mut self) {
        let mut exported = self.clock.now();
        let start = nanos(exported);
        let mut news = self.reloads.news();
        loop {
            let interval = news.borrow_and_update().otlp.metrics.as_ref().map(|metrics| metrics.interval);
            // Another config puts no export off.
            let passed = self.clock.now().since(exported);
            let turn = self.turn(interval.map(|interval| interval.saturating_sub(passed)), &mut news).await;
            if turn != Turn::Reloaded && interval.is_some() {
                exported = self.clock.now();
                let found = read_metrics(&self.metrics.encode(), start, nanos(exported));
                for batch in metric_batches(found, BATCH) {
                    self.deliver(points(&batch), |resource| metric_export(resource, &batch)).await;
                }
            }
            if turn == Turn::Last {
                return;
            }
        }
    }

    /// Waits until it is time to export, or for another config, or the end of the process.
    async fn turn(&self, after: Option<Duration>, news: &mut Receiver<Arc<Snapshot>>) -> Turn {
        tokio::select! {
            biased;
            () = self.end.cancelled() => Turn::Last,
            () = sleep(after.unwrap_or_default()), if after.is_some() => Turn::Due,
            changed = news.changed() => if changed.is_ok() { Turn::Reloaded } else { Turn::Last },
        }
    }

    /// Offers a batch of so many until it is taken or given up.
    async fn deliver(&mut self, count: u64, encode: impl Fn(OtlpResource<'_>) -> Vec<u8>) {
        let mut pause = PAUSE;
        for attempt in 1..=TRIES {
            // The config may change meanwhile, and with it the collector.
            let current = self.reloads.current();
            let Some(target) = current.otlp.target(self.signal) else {
                return self.count("dropped", count);
            };
            let resource =
                OtlpResource { service: &target.service, instance: &self.instance, attributes: &target.attributes };
            let (why, wished) = match offer(target, &encode(resource), self.clock.now()).await {
                Offered::Taken { rejected } => {
                    let rejected = rejected.min(count);
                    self.count("exported", count - rejected);
                    self.count("failed", rejected);
                    if rejected > 0 {
                        self.complain("it rejected some", rejected);
                    }
                    return;
                }
                Offered::Later(why, wished) if attempt < TRIES && !self.end.is_cancelled() => (why, wished),
                Offered::Later(why, _) | Offered::Never(why) => {
                    self.count("failed", count);
                    return self.complain(&why, count);
                }
            };
            self.complain(&why, 0);
            tokio::select! {
                () = sleep(wished.unwrap_or(pause).min(LONGEST_PAUSE)) => {}
                () = self.end.cancelled() => {}
            }
            pause *= 2;
        }
    }

    fn count(&self, outcome: &'static str, count: u64) {
        let kind = match self.signal {
            OtlpSignal::Logs => ExportedKind::LogRecords,
            OtlpSignal::Metrics => ExportedKind::MetricPoints,
            OtlpSignal::Traces => ExportedKind::Spans,
        };
        self.metrics.exported(kind, outcome, count);
    }

    /// Tells the operator, once a minute at most.
    fn complain(&mut self, why: &str, lost: u64) {
        self.untold += lost;
        let now = self.clock.now();
        if self.complained.is_some_and(|before| now.since(before) < COMPLAIN) {
            return;
        }
        self.complained = Some(now);
        let lost = std::mem::take(&mut self.untold);
        tracing::warn!(signal = self.signal.as_str(), why, lost, "telemetry export failed");
    }
}

/// Nanoseconds since 1970, as OTLP has times.
const fn nanos(now: Now) -> u64 {
    now.wall.saturating_mul(1_000_000)
}
