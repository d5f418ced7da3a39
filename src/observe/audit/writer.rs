//! The one thread that seals records and writes them, so that there is one order.
//!
//! Records that it cannot write are kept and tried again, on the same file or on the file to which the path leads by
//! then. A record that reached a file in part is completed there, or reported as torn in the file with which the
//! writing goes on.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use super::chain::{Chain, Head, RecordParts};
use super::entry::{OPEN, OpenReason, RECOVERED, RecordEncoder, Torn};
use super::log_sink::{LogEnd, LogSink, OpenedLog, Whereabouts, aside};
use super::verify::Anchor;
use super::{AuditSettings, State, WriterMessage};
use crate::base::time::{Clock, Now};
use crate::observe::metrics::AuditMeters;

/// Written and synced at a time.
const DRAFT: usize = 1 << 20;
/// Interval at which records that could not be written are tried again.
const RETRY: Duration = Duration::from_millis(500);
/// Interval at which it is looked whether the file is still at its path.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// The log is told of the chain's head this often, or after this many records.
const HEAD_INTERVAL: Duration = Duration::from_secs(60);
const HEAD_RECORDS: u64 = 10_000;

/// The state of the writer's thread.
pub(super) struct Writer {
    settings: AuditSettings,
    encoder: RecordEncoder,
    clock: Clock,
    state: Arc<State>,
    meters: AuditMeters,
    chain: Chain,
    sink: Option<LogSink>,
    /// Records that are not sealed yet, in batches of lines.
    queue: VecDeque<Vec<u8>>,
    draft: PendingBatch,
    /// Number of the last record whose head was logged, and the time at which it was.
    reported: (u64, Now),
    failing: bool,
    /// The time at which the file was last looked for at its path.
    looked: Now,
    /// The file was lost, and no record says so yet.
    lost: bool,
    /// After a failed turn, the size at which it is tried again.
    rotate_at: u64,
}

/// Sealed records on their way to the file.
struct PendingBatch {
    bytes: Vec<u8>,
    written: usize,
    /// The chain before the first of them.
    from: (u64, Head),
    records: u64,
    /// Bytes of batches that it was made of.
    weight: u64,
}

impl PendingBatch {
    fn empty(chain: &Chain) -> Self {
        Self { bytes: Vec::new(), written: 0, from: (chain.last(), chain.head()), records: 0, weight: 0 }
    }

    /// Returns the chain as far as it reached the file, and the content of the records that did not reach it. Records
    /// that open a file or report a torn piece are left out: they are made anew for the next file.
    fn cut(&self) -> ((u64, Head), Vec<Vec<u8>>) {
        let mut reached = self.from;
        let mut left = Vec::new();
        let mut at = 0;
        for line in self.bytes.split_inclusive(|byte| *byte == b'\n') {
            at += line.len();
            let Some(parts) = line.strip_suffix(b"\n").and_then(RecordParts::of) else { continue };
            // A record that lacks its newline alone is whole.
            if at <= self.written + 1 {
                reached = (parts.seq, parts.head);
            } else if parts.kind().is_none_or(|kind| kind != OPEN && kind != RECOVERED) {
                left.push(parts.object());
            }
        }
        (reached, left)
    }
}

impl Writer {
    /// Opens the configured file. No bytes are written to it yet.
    pub(super) fn open(
        settings: AuditSettings,
        encoder: RecordEncoder,
        clock: Clock,
        state: Arc<State>,
        meters: AuditMeters,
    ) -> io::Result<Self> {
        let chain = Chain::after(settings.seal.clone(), 0, Head::ZERO);
        let looked = clock.now();
        let reported = (0, looked);
        let draft = PendingBatch::empty(&chain);
        let queue = VecDeque::new();
        let mut writer = Self {
            settings,
            encoder,
            clock,
            state,
            meters,
            chain,
            sink: None,
            queue,
            draft,
            reported,
            failing: false,
            looked,
            lost: false,
            rotate_at: 0,
        };
        writer.resume(None)?;
        Ok(writer)
    }

    /// Writes the first record of the process, or tries to.
    pub(super) fn begin_with(&mut self, record: Vec<u8>) {
        self.enqueue(record);
        self.flush();
        self.report_head(true);
    }

    /// Writes records until it receives a stop message, or until all senders are dropped.
    pub(super) fn run(mut self, receiver: &Receiver<WriterMessage>) {
        loop {
            let patience = if self.failing { RETRY } else { LOOK_INTERVAL };
            let mut next = match receiver.recv_timeout(patience) {
                Ok(message) => Some(message),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            let mut gathered = 0;
            while let Some(message) = next.take() {
                match message {
                    WriterMessage::Batch(batch) => {
                        gathered += batch.len();
                        self.queue.push_back(batch);
                    }
                    WriterMessage::Look => self.look(),
                    WriterMessage::Apply(settings) => self.apply(settings),
                    WriterMessage::Stop => return self.stop(receiver),
                }
                if gathered < DRAFT {
                    next = receiver.try_recv().ok();
                }
            }
            self.flush();
            if self.clock.now().since(self.looked) >= LOOK_INTERVAL {
                self.stay_in_place();
            }
            self.report_head(false);
        }
        self.stop(receiver);
    }

    fn stop(mut self, receiver: &Receiver<WriterMessage>) {
        while let Ok(message) = receiver.try_recv() {
            if let WriterMessage::Batch(batch) = message {
                self.queue.push_back(batch);
            }
        }
        self.flush();
        self.stay_in_place();
        self.enqueue(self.encoder.stop(self.clock.now()));
        self.flush();
        if self.failing {
            let left = self.queue.iter().map(|batch| batch.iter().filter(|byte| **byte == b'\n').count() as u64);
            let lost = left.sum::<u64>() + self.draft.records;
            tracing::error!(lost, "the process ends with audit records that could not be written");
        }
        self.report_head(true);
    }

    /// Writes all that is there, as long as it can be written.
    fn flush(&mut self) {
        if self.sink.is_none() && !self.replace_file() {
            return;
        }
        loop {
            if self.draft.bytes.is_empty() {
                self.seal_more();
            }
            if self.draft.bytes.is_empty() {
                return;
            }
            match self.write() {
                Ok(()) => self.written(),
                Err(error) => {
                    self.failed(&error);
                    if !self.replace_file() {
                        return;
                    }
                }
            }
        }
    }

    /// Seals the next records of the queue.
    fn seal_more(&mut self) {
        let lost = if self.failing { 0 } else { self.state.lost.swap(0, Ordering::Relaxed) };
        if lost > 0 {
            self.enqueue(self.encoder.gap(self.clock.now(), lost));
        }
        while self.draft.bytes.len() < DRAFT
            && let Some(batch) = self.queue.pop_front()
        {
            for line in batch.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                self.seal(line);
            }
            self.draft.weight += batch.len() as u64;
        }
    }

    /// A record of the writer's own.
    fn enqueue(&mut self, record: Vec<u8>) {
        self.state.queued.fetch_add(record.len() as u64, Ordering::Relaxed);
        self.queue.push_back(record);
    }

    fn seal(&mut self, object: &[u8]) {
        self.chain.seal(object, &mut self.draft.bytes);
        self.draft.records += 1;
    }

    fn write(&mut self) -> io::Result<()> {
        let sink = self.sink.as_mut().ok_or(io::ErrorKind::NotFound)?;
        while let Some(rest) = self.draft.bytes.get(self.draft.written..).filter(|rest| !rest.is_empty()) {
            match sink.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => self.draft.written += written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        sink.sync()
    }

    /// The draft is on the disk.
    fn written(&mut self) {
        self.meters.records.inc_by(self.draft.records);
        self.state.queued.fetch_sub(self.draft.weight, Ordering::Relaxed);
        self.draft = PendingBatch::empty(&self.chain);
        self.state.reached.store(Some(Arc::new(self.reached())));
        if self.failing {
            self.failing = false;
            self.state.failing.store(false, Ordering::Relaxed);
            self.meters.failing.set(0);
            tracing::warn!(to = %self.settings.to(), "audit records can be written again");
        }
        let full = self.sink.as_ref().and_then(LogSink::pages).map(|pages| pages.size);
        if let (Some(size), Some(most)) = (full, self.settings.rotate)
            && size >= most.max(self.rotate_at)
        {
            self.rotate(size, most);
        }
    }

    fn failed(&mut self, error: &io::Error) {
        if !self.failing {
            self.failing = true;
            self.state.failing.store(true, Ordering::Relaxed);
            self.meters.failing.set(1);
            let refused = !self.state.goes_on.load(Ordering::Relaxed);
            let then = if refused { "calls that need a credential are refused" } else { "calls go on unrecorded" };
            tracing::error!(to = %self.settings.to(), %error, "audit records cannot be written: {then} until they can");
        }
    }

    /// After a failure: whether the path leads somewhere else by now, where writing may go on.
    fn replace_file(&mut self) -> bool {
        match &self.sink {
            Some(sink) if sink.whereabouts() == Whereabouts::Place => false,
            Some(_) | None => self.change().is_ok(),
        }
    }

    /// Looks whether the file was moved away.
    fn look(&mut self) {
        self.flush();
        if self.sink.as_ref().is_none_or(|sink| sink.whereabouts() != Whereabouts::Place) {
            self.follow();
        }
    }

    /// Goes on at the path if the file is not there any more. A path that cannot be looked at does no harm to a file that
    /// can be written.
    fn stay_in_place(&mut self) {
        self.looked = self.clock.now();
        let Some(sink) = &self.sink else { return };
        if matches!(sink.whereabouts(), Whereabouts::Lost | Whereabouts::Moved) {
            self.follow();
            self.flush();
        }
    }

    /// Changes to the file to which the path leads, or fails until it can.
    fn follow(&mut self) {
        if let Err(error) = self.change() {
            self.failed(&error);
        }
    }

    /// Tells that the file was deleted or replaced.
    fn lose(&mut self) {
        self.lost = true;
        self.meters.files_lost.inc();
        let last = self.reached();
        tracing::error!(
            to = %self.settings.to(),
            %last,
            "the audit log was deleted or replaced while it was written to: its records up to `last` are lost, and a new \
             file begins; find out who did it, and put the file back from a backup under another name"
        );
    }

    /// Another `[audit]` is in force.
    fn apply(&mut self, settings: AuditSettings) {
        self.flush();
        let same = self.settings.path == settings.path && self.settings.seal.key() == settings.seal.key();
        self.settings = settings;
        if !same {
            self.follow();
        }
    }

    /// Leaves the current file and opens the one to which the path leads now.
    fn change(&mut self) -> io::Result<()> {
        if self.sink.as_ref().is_some_and(|sink| sink.whereabouts() == Whereabouts::Lost) {
            self.lose();
        }
        let torn = self.sink.as_ref().and_then(LogSink::torn);
        let (reached, left) = self.draft.cut();
        let weight = self.draft.weight;
        // From here on the draft begins anew, whether or not there is a file for it.
        self.sink = None;
        self.chain = Chain::after(self.settings.seal.clone(), reached.0, reached.1);
        self.draft = PendingBatch::empty(&self.chain);
        let opened = self.resume(Some((reached, torn)));
        left.iter().for_each(|object| self.seal(object));
        self.draft.weight = weight;
        opened
    }

    /// Opens the file, and goes on with what is in it or beside it. `so_far`: the chain that is to go on, and what was
    /// torn at its end; absent at the start of the process, when the file says.
    fn resume(&mut self, so_far: Option<((u64, Head), Option<Torn>)>) -> io::Result<()> {
        let (sink, found) = LogSink::open(self.settings.path.as_deref(), &self.settings.seal)?;
        let (held, torn) = match so_far {
            Some(((seq, head), torn)) if seq > 0 => (Some((seq, head)), torn),
            Some(_) | None => (None, None),
        };
        let path = self.settings.path.clone().unwrap_or_default();
        let goes_on = if self.lost { OpenReason::Lost } else { OpenReason::Moved };
        match found {
            OpenedLog::Empty => {
                self.sink = Some(sink);
                self.begin(if held.is_some() { goes_on } else { OpenReason::New }, torn.as_ref());
            }
            // Put in the place of the file, with its last record: it may be altered anywhere before that.
            OpenedLog::Ours { seq, head, .. } if self.lost && held == Some((seq, head)) => {
                drop(sink);
                aside(&path, &numbered(seq))?;
                self.open_new(OpenReason::Lost, torn.as_ref())?;
            }
            OpenedLog::Ours { seq, head, end } if held.is_none_or(|held| held == (seq, head)) => {
                self.sink = Some(sink);
                self.adopt(seq, head);
                self.go_on(&end);
            }
            OpenedLog::OtherKey { seq, head, end } if held.is_none_or(|held| held == (seq, head)) => {
                drop(sink);
                let torn = match end {
                    LogEnd::Torn(torn, _) => Some(torn),
                    LogEnd::Clean | LogEnd::NoNewline => torn,
                };
                aside(&path, &numbered(seq))?;
                self.adopt(seq, head);
                self.open_new(if self.lost { goes_on } else { OpenReason::Key }, torn.as_ref())?;
            }
            OpenedLog::Broken | OpenedLog::Ours { .. } | OpenedLog::OtherKey { .. } => {
                drop(sink);
                let kept = aside(&path, "broken")?;
                let why = if held.is_some() { goes_on } else { OpenReason::Broken };
                tracing::error!(
                    kept = %kept.display(),
                    "the audit log did not end with a record of this chain; it was kept, and a new file begins"
                );
                self.open_new(why, torn.as_ref())?;
            }
        }
        Ok(())
    }

    /// The file goes on where its last record ends.
    fn go_on(&mut self, end: &LogEnd) {
        match end {
            LogEnd::Clean => {}
            LogEnd::NoNewline => self.draft.bytes.push(b'\n'),
            LogEnd::Torn(torn, ended) => {
                tracing::warn!(bytes = torn.bytes, "the audit log ends in an incomplete record, which is recorded");
                if !ended {
                    self.draft.bytes.push(b'\n');
                }
                let record = self.encoder.recovered(self.clock.now(), torn);
                self.seal_line(&record);
            }
        }
    }

    /// A file that is there holds this chain.
    fn adopt(&mut self, seq: u64, head: Head) {
        self.chain = Chain::after(self.settings.seal.clone(), seq, head);
        self.draft = PendingBatch::empty(&self.chain);
    }

    fn open_new(&mut self, why: OpenReason, torn: Option<&Torn>) -> io::Result<()> {
        let (sink, found) = LogSink::open(self.settings.path.as_deref(), &self.settings.seal)?;
        if found != OpenedLog::Empty {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.sink = Some(sink);
        self.begin(why, torn);
        Ok(())
    }

    /// The first record of a file.
    fn begin(&mut self, why: OpenReason, torn: Option<&Torn>) {
        self.lost = false;
        let record = self.encoder.open(self.clock.now(), &self.settings.seal, why, &self.chain.head(), torn);
        self.seal_line(&record);
    }

    fn seal_line(&mut self, record: &[u8]) {
        self.seal(record.strip_suffix(b"\n").unwrap_or(record));
    }

    /// The file is full: it is moved aside, and another one begins.
    fn rotate(&mut self, size: u64, most: u64) {
        // What is at the path may be another file by now.
        if self.sink.as_ref().is_some_and(|sink| sink.whereabouts() != Whereabouts::Place) {
            self.follow();
            return;
        }
        let path = self.settings.path.clone().unwrap_or_default();
        self.report_head(true);
        match aside(&path, &numbered(self.chain.last())) {
            Ok(kept) => {
                tracing::info!(kept = %kept.display(), "the audit log begins a new file");
                self.rotate_at = 0;
                self.sink = None;
                if let Err(error) = self.open_new(OpenReason::Size, None) {
                    self.failed(&error);
                }
            }
            Err(error) => {
                self.rotate_at = size.saturating_add(most);
                tracing::warn!(%error, "the audit log is full and cannot be rotated; it keeps growing");
            }
        }
    }

    /// The last record that is on the disk.
    const fn reached(&self) -> Anchor {
        let (seq, head) = self.draft.from;
        Anchor { seq, head }
    }

    /// Tells the log how far the chain is: who removes records at its end is found out by it.
    fn report_head(&mut self, now: bool) {
        let (last, at) = self.reported;
        let Anchor { seq, .. } = self.reached();
        let new = seq.saturating_sub(last);
        let moment = self.clock.now();
        if new >= HEAD_RECORDS || new > 0 && (now || moment.since(at) >= HEAD_INTERVAL) {
            tracing::info!(to = %self.settings.to(), head = %self.reached(), "audit chain");
            self.reported = (seq, moment);
        }
    }
}

/// Digits of a [`numbered`] mark.
const MARK_DIGITS: usize = 12;

/// The mark of a file that ends with this record: marks sort as files do.
fn numbered(seq: u64) -> String {
    format!("{seq:0MARK_DIGITS$}")
}

/// Returns whether a file with this mark was moved aside while its chain went on.
pub fn is_mark_of_rotation(mark: &str) -> bool {
    mark.len() >= MARK_DIGITS && mark.bytes().all(|byte| byte.is_ascii_digit())
}
