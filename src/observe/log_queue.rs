//! Lines of the log on their way to a collector: a layer of `tracing`, and a bounded queue.
//!
//! A line never waits for the collector: one that finds the queue full is dropped and counted. Lines about the export
//! itself, and those of the libraries under it, stay out: they would be exported in turn, without end.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::log_line::field_name;
use super::trace::AttributeValue;
use crate::base::time::Clock;

/// Lines that wait to be sent, at most.
const MOST_QUEUED: usize = 4096;
/// A text of a line has at most so many bytes.
const LONGEST_TEXT: usize = 8 << 10;
/// Modules whose lines are not exported: the export, and the libraries that it uses.
const UNHEARD: [&str; 6] = ["countersign::control::export", "h2", "hyper", "hyper_util", "rustls", "tokio_rustls"];

/// The queue of this process: logging is one for the process, too.
static QUEUE: LogQueue = LogQueue::new();

/// A line of the log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LogRecord {
    /// When it was written, in nanoseconds since 1970.
    pub time: u64,
    pub level: Level,
    /// The module that wrote it.
    pub target: &'static str,
    /// The message itself.
    pub body: String,
    /// Its other fields.
    pub attributes: Vec<(&'static str, AttributeValue)>,
}

/// Lines that wait to be exported. Safe from any thread.
pub struct LogQueue {
    is_on: AtomicBool,
    records: Mutex<VecDeque<LogRecord>>,
    dropped: AtomicU64,
}

impl LogQueue {
    const fn new() -> Self {
        Self { is_on: AtomicBool::new(false), records: Mutex::new(VecDeque::new()), dropped: AtomicU64::new(0) }
    }

    /// The queue that [`LogQueueLayer`] fills.
    pub fn of_process() -> &'static Self {
        &QUEUE
    }

    /// From now on lines are queued, or are not and those that wait are forgotten.
    pub fn set(&self, is_on: bool) {
        self.is_on.store(is_on, Ordering::Relaxed);
        if !is_on {
            self.records.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
    }

    /// The oldest lines, `most` at most. Does not wait.
    pub fn take(&self, most: usize) -> Vec<LogRecord> {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let most = most.min(records.len());
        records.drain(..most).collect()
    }

    /// Returns the number of lines that found the queue full since the last call.
    pub fn dropped(&self) -> u64 {
        self.dropped.swap(0, Ordering::Relaxed)
    }

    fn hears(&self, target: &str) -> bool {
        let within =
            |module: &str| target.strip_prefix(module).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
        self.is_on.load(Ordering::Relaxed) && !UNHEARD.into_iter().any(within)
    }

    fn push(&self, record: LogRecord) {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        if records.len() < MOST_QUEUED {
            records.push_back(record);
        } else {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl fmt::Debug for LogQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LogQueue")
    }
}

/// Puts lines of the log into a queue.
pub(super) struct LogQueueLayer(pub(super) &'static LogQueue);

impl<S: Subscriber> Layer<S> for LogQueueLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        if !self.0.hears(metadata.target()) {
            return;
        }
        let time = Clock::System.now().wall.saturating_mul(1_000_000);
        let (level, target) = (*metadata.level(), metadata.target());
        let mut record = LogRecord { time, level, target, body: String::new(), attributes: Vec::new() };
        event.record(&mut RecordFields(&mut record));
        self.0.push(record);
    }
}

/// The fields of an event, added to a record.
struct RecordFields<'a>(&'a mut LogRecord);

impl RecordFields<'_> {
    fn text(&mut self, field: &Field, mut text: String) {
        if text.len() > LONGEST_TEXT {
            text.truncate(text.floor_char_boundary(LONGEST_TEXT));
        }
        match field.name() {
            "message" => self.0.body = text,
            name => self.0.attributes.push((field_name(name), text.into())),
        }
    }
}

impl Visit for RecordFields<'_> {
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.attributes.push((field_name(field.name()), value.into()));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text(field, format!("{value:?}"));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.attributes.push((field_name(field.name()), AttributeValue::Whole(value)));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value.to_owned());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.attributes.push((field_name(field.name()), value.into()));
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::prelude::*;

    use super::*;

    /// A queue of a test's own, which lives as long as the tests do.
    fn queue() -> &'static LogQueue {
        Box::leak(Box::new(LogQueue::new()))
    }

    #[test]
    fn lines_are_queued_with_their_fields_while_it_is_on() {
        let queue = queue();
        let subscriber = tracing_subscriber::registry().with(LogQueueLayer(queue));
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!("before");
            queue.set(true);
            let long = "ö".repeat(LONGEST_TEXT);
            tracing::warn!(provider = "scb", lines = 3_u64, left = -1, whole = true, long, ratio = 0.5, "of {}", 2);
            tracing::warn!(target: "countersign::control::export::offer", "telemetry export failed");
            tracing::info!(target: "hyper", "x");
            tracing::error!(target: "hyperbole", "y");
        });
        let taken = queue.take(10);
        let [first, second] = &*taken else { panic!("{taken:?}") };
        assert_eq!((first.level, &*first.body, second.target), (Level::WARN, "of 2", "hyperbole"));
        assert!(first.target.ends_with("log_queue::tests") && first.time > 1_700_000_000_000_000_000, "{first:?}");
        let told: Vec<_> = first.attributes.iter().filter(|(key, _)| *key != "long").cloned().collect();
        assert_eq!(
            told,
            [
                ("countersign.provider", "scb".to_owned().into()),
                ("lines", 3_u64.into()),
                ("left", AttributeValue::Whole(-1)),
                ("whole", true.into()),
                ("ratio", "0.5".to_owned().into()),
            ]
        );
        let long = first.attributes.iter().find(|(key, _)| *key == "long").map(|(_, value)| value.clone());
        assert_eq!(long, Some("ö".repeat(LONGEST_TEXT / 2).into()));
    }

    #[test]
    fn the_queue_has_a_bound_and_what_is_dropped_is_counted() {
        let queue = queue();
        let subscriber = tracing_subscriber::registry().with(LogQueueLayer(queue));
        queue.set(true);
        tracing::subscriber::with_default(subscriber, || {
            for number in 0..MOST_QUEUED + 3 {
                tracing::info!(number, "line");
            }
        });
        assert_eq!((queue.dropped(), queue.dropped()), (3, 0));
        assert_eq!(queue.take(5).len(), 5);
        assert_eq!(queue.take(usize::MAX).len(), MOST_QUEUED - 5);
        queue.push(LogRecord { time: 0, level: Level::INFO, target: "t", body: String::new(), attributes: Vec::new() });
        queue.set(false);
        assert!(queue.take(1).is_empty());
    }
}
