//! The audit log: one record per call that used a credential, and one per action of an operator, an application or the
//! process itself, in a chain that shows whether any was altered, removed or moved.
//!
//! Workers and the control thread report what happened ([`Auditor`], [`AuditLines`]); one writer's thread numbers,
//! binds and writes it ([`chain`], `writer`); [`verify`] reads it again. No reporting thread waits for the disk: if so
//! configured, calls are refused beforehand while records cannot be written. The only secret in this module is the
//! chain's own key.

pub mod chain;
pub mod entry;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod lines;
mod log_sink;
pub mod verify;
mod writer;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use arc_swap::{ArcSwap, ArcSwapOption};
use uuid::Uuid;

pub use chain::{ChainKey, Head, Seal};
pub use entry::{AuditAction, AuditContext};
pub use lines::AuditLines;
pub use writer::is_mark_of_rotation;

use self::entry::RecordEncoder;
use self::verify::Anchor;
use self::writer::Writer;
use super::gather::Outlet;
use super::metrics::AuditMeters;
use crate::base::time::Clock;

/// More than this, in bytes, is not kept waiting for the disk: calls are refused, or records lost.
const MOST_QUEUED: u64 = 8 << 20;

/// The destination of records, and the settings for writing them.
#[derive(Clone, Debug)]
pub struct AuditSettings {
    /// The file; absent: standard output.
    pub path: Option<PathBuf>,
    /// The method that binds the records.
    pub seal: Seal,
    /// True if calls go on while records cannot be written.
    pub goes_on: bool,
    /// A file that is at least so long, in bytes, is moved aside; absent: none is.
    pub rotate: Option<u64>,
}

impl AuditSettings {
    /// Returns the destination of records as text for people.
    fn to(&self) -> String {
        self.path.as_ref().map_or_else(|| "standard output".to_owned(), |path| path.display().to_string())
    }
}

/// The state of an audit log, for people.
#[derive(Clone, Debug)]
pub struct AuditReport {
    /// The file, or `standard output`.
    pub to: String,
    /// The last record that this process has on the disk.
    pub head: Option<Anchor>,
    /// True while records cannot be written.
    pub failing: bool,
    /// Files that were deleted or replaced while this process wrote to them.
    pub files_lost: u64,
}

/// The state of the writer, shared with all threads that report records.
#[derive(Debug, Default)]
struct State {
    /// True while records cannot be written.
    failing: AtomicBool,
    /// Calls go on even so.
    goes_on: AtomicBool,
    /// Bytes that were handed over and are not on the disk.
    queued: AtomicU64,
    /// Records that were lost since the last one that says so.
    lost: AtomicU64,
    /// The last record that this process has on the disk.
    reached: ArcSwapOption<Anchor>,
}

/// A message to the writer's thread.
enum WriterMessage {
    Apply(AuditSettings),
    Batch(Vec<u8>),
    Look,
    Stop,
}

/// The way to the audit log, if there is one. Cheap to clone; anybody on any thread may say something.
#[derive(Clone, Default)]
pub struct Auditor(Option<Arc<WriterHandle>>);

struct WriterHandle {
    sender: Sender<WriterMessage>,
    state: Arc<State>,
    encoder: RecordEncoder,
    seal: ArcSwap<Seal>,
    /// The destination, as text for people.
    to: ArcSwap<String>,
    clock: Clock,
    meters: AuditMeters,
}

impl Auditor {
    /// No audit log: everything is allowed, nothing is told.
    pub const fn off() -> Self {
        Self(None)
    }

    /// Opens the log and starts its writer. `config` is the digest of the config in force.
    pub fn start(
        settings: AuditSettings,
        config: &str,
        clock: Clock,
        meters: AuditMeters,
    ) -> io::Result<(Self, JoinHandle<()>)> {
        let (sender, receiver): (Sender<WriterMessage>, Receiver<WriterMessage>) = channel();
        let state = Arc::new(State::default());
        state.goes_on.store(settings.goes_on, Ordering::Relaxed);
        let encoder = RecordEncoder { instance: Uuid::now_v7() };
        let seal = ArcSwap::from_pointee(settings.seal.clone());
        let to = ArcSwap::from_pointee(settings.to());
        let mut writer = Writer::open(settings, encoder, clock.clone(), state.clone(), meters.clone())?;
        // The first record is written before any call can arrive, so that it is known by then whether records can be
        // written.
        writer.begin_with(encoder.start(clock.now(), config));
        let thread = std::thread::Builder::new().name("audit-log".to_owned()).spawn(move || writer.run(&receiver))?;
        let handle = WriterHandle { sender, state, encoder, seal, to, clock, meters };
        Ok((Self(Some(Arc::new(handle))), thread))
    }

    /// Returns whether a credential may be used: its use will be recorded, or calls go on without records. Costs two
    /// relaxed loads while records can be written.
    #[inline]
    pub fn ready(&self) -> bool {
        self.0.as_ref().is_none_or(|handle| handle.ready())
    }

    /// The state of the log; `None` without one.
    pub fn report(&self) -> Option<AuditReport> {
        self.0.as_ref().map(|handle| AuditReport {
            to: handle.to.load().to_string(),
            head: handle.state.reached.load().as_deref().copied(),
            failing: handle.meters.failing.get() != 0,
            files_lost: handle.meters.files_lost.get(),
        })
    }

    /// Records an action; does nothing without a log.
    pub fn note(&self, action: &AuditAction<'_>) {
        if let Some(handle) = &self.0 {
            handle.take(handle.encoder.action(handle.clock.now(), action), 1);
        }
    }

    /// A worker's own end, for calls. Must be called on the worker's runtime.
    pub fn lines(&self) -> Option<AuditLines> {
        self.0.clone().map(AuditLines::new)
    }

    /// A value that must not be readable in the log, but comparable: see [`Seal::hide`]. Empty without a log.
    pub fn hide(&self, name: &str, value: &str) -> String {
        self.0.as_ref().map(|handle| handle.seal.load().hide(name, value)).unwrap_or_default()
    }

    /// Looks whether the file was moved away, as log rotation does, and begins a new one if so.
    pub fn look(&self) {
        self.send(WriterMessage::Look);
    }

    /// Another `[audit]` is in force. Does nothing without a log: whether there is one is decided at the start.
    pub fn apply(&self, settings: AuditSettings) {
        if let Some(handle) = &self.0 {
            handle.state.goes_on.store(settings.goes_on, Ordering::Relaxed);
            handle.seal.store(Arc::new(settings.seal.clone()));
            handle.to.store(Arc::new(settings.to()));
        }
        self.send(WriterMessage::Apply(settings));
    }

    /// Tells the writer to write the remaining records and to end its thread; to be called when no more records will
    /// follow.
    pub fn stop(&self) {
        self.send(WriterMessage::Stop);
    }

    fn send(&self, message: WriterMessage) {
        if let Some(handle) = &self.0 {
            // A writer that has stopped needs no news.
            let _gone = handle.sender.send(message);
        }
    }
}

impl fmt::Debug for Auditor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Auditor").field(&self.0.is_some()).finish()
    }
}

impl WriterHandle {
    fn ready(&self) -> bool {
        let state = &self.state;
        let fine = !state.failing.load(Ordering::Relaxed) && state.queued.load(Ordering::Relaxed) <= MOST_QUEUED;
        fine || state.goes_on.load(Ordering::Relaxed)
    }
}

impl Outlet for Arc<WriterHandle> {
    fn take(&self, batch: Vec<u8>, lines: u64) {
        (**self).take(batch, lines);
    }
}

impl WriterHandle {
    /// Hands records over to the writer. If its queue is full, they are lost if calls go on without records; otherwise
    /// they are kept, and no call is admitted until there is room.
    fn take(&self, batch: Vec<u8>, lines: u64) {
        let (state, bytes) = (&self.state, batch.len() as u64);
        let full = state.queued.load(Ordering::Relaxed) > MOST_QUEUED;
        if full && state.goes_on.load(Ordering::Relaxed) {
            state.lost.fetch_add(lines, Ordering::Relaxed);
            self.meters.lost.inc_by(lines);
            return;
        }
        state.queued.fetch_add(bytes, Ordering::Relaxed);
        if self.sender.send(WriterMessage::Batch(batch)).is_err() {
            // The writer has stopped: the process is ending, or the writer failed in an unforeseen way.
            state.failing.store(true, Ordering::Relaxed);
            self.meters.lost.inc_by(lines);
        }
    }
}

#[cfg(test)]
mod tests;
