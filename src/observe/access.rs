//! The output path of the access log: lines gather in a worker's own buffer and leave in batches.
//!
//! A worker never writes to a file or a terminal itself, so a slow disk or a stopped terminal delays no request. If the
//! writer falls so far behind that its queue is full, batches are dropped and counted; no worker waits for it.
//!
//! For log rotation it is enough to move the file away: while lines arrive, the writer checks every few seconds whether
//! its path still leads to the file that it writes, and opens a new one if not.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use thiserror::Error;

use super::gather::{Gather, Outlet};
use super::record::AccessRecord;
use crate::base::time::{Clock, Now};

const QUEUED_BATCHES: usize = 64;
/// A path is followed this often, while lines come.
const LOOK: Duration = Duration::from_secs(5);

/// The format of the access log, or no access log at all.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AccessSink {
    /// One JSON object a line.
    Json,
    /// No access lines are written.
    Off,
    /// One line of text per request, for people to read.
    Text,
}

impl AccessSink {
    const ALL: [AccessSink; 3] = [AccessSink::Json, AccessSink::Off, AccessSink::Text];
}

/// The destination to which the writer's thread writes the lines.
pub type Sink = Box<dyn Write + Send>;

/// A message to the writer's thread.
enum AccessJob {
    Lines(Vec<u8>),
    Turn(Sink),
}

/// The writer's queue is full, or the writer has ended.
#[derive(Clone, Copy, Debug, Error)]
#[error("the access log is too busy to be turned elsewhere")]
pub struct AccessLogBusy;

/// The writer's thread and the way to it. Cheap to clone; the thread ends when the last clone is dropped.
#[derive(Clone)]
pub struct AccessLog {
    sender: SyncSender<AccessJob>,
    shape: Arc<AtomicU8>,
    dropped: Arc<AtomicU64>,
}

impl AccessLog {
    /// Starts the writer's thread; returns an error if the thread cannot be spawned.
    pub fn start(sink: Sink, shape: AccessSink) -> io::Result<(Self, JoinHandle<()>)> {
        let (sender, receiver) = sync_channel(QUEUED_BATCHES);
        let thread = std::thread::Builder::new().name("access-log".to_owned()).spawn(move || drain(&receiver, sink))?;
        let shape = Arc::new(AtomicU8::new(shape as u8));
        Ok((Self { sender, shape, dropped: Arc::default() }, thread))
    }

    /// Sends the lines that follow to `sink`, in the format `shape`. Batches that are queued already go to the previous
    /// sink. Returns an error if the writer's queue is full or the writer has ended.
    pub fn turn(&self, sink: Sink, shape: AccessSink) -> Result<(), AccessLogBusy> {
        self.sender.try_send(AccessJob::Turn(sink)).map_err(|_| AccessLogBusy)?;
        self.shape.store(shape as u8, Ordering::Relaxed);
        Ok(())
    }

    fn shape(&self) -> AccessSink {
        let shape = self.shape.load(Ordering::Relaxed);
        AccessSink::ALL.into_iter().find(|known| *known as u8 == shape).unwrap_or(AccessSink::Off)
    }

    /// A worker's own end. Its flushing runs in a local task for as long as the worker lives.
    pub fn lines(&self, clock: Clock) -> Lines {
        Lines(Gather::new(self.clone(), clock))
    }

    /// Lines lost because the writer was too slow.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl Outlet for AccessLog {
    fn take(&self, batch: Vec<u8>, lines: u64) {
        if self.sender.try_send(AccessJob::Lines(batch)).is_err() {
            self.dropped.fetch_add(lines, Ordering::Relaxed);
        }
    }
}

/// The access lines that one worker has gathered and not yet handed to the writer.
#[derive(Clone)]
pub struct Lines(Gather<AccessLog>);

impl Lines {
    /// Adds the line of a finished request, in the format in force; adds none if the log is off.
    pub fn push(&self, record: &AccessRecord) {
        match self.0.outlet().shape() {
            AccessSink::Json => self.0.push(|_, buffer| record.write_json(buffer)),
            AccessSink::Off => {}
            AccessSink::Text => self.0.push(|_, buffer| record.write_text(buffer)),
        }
    }

    /// Hands over what has gathered.
    pub fn flush(&self) {
        self.0.flush();
    }
}

fn drain(receiver: &Receiver<AccessJob>, mut sink: Sink) {
    while let Ok(job) = receiver.recv() {
        match job {
            // A full disk must not end the process; the next batch tries again.
            AccessJob::Lines(batch) => drop(sink.write_all(&batch).and_then(|()| sink.flush())),
            AccessJob::Turn(other) => sink = other,
        }
    }
}

/// A file that is written to by its path, wherever that leads by then.
pub struct Followed {
    path: PathBuf,
    file: File,
    looked: Now,
    clock: Clock,
}

impl Followed {
    /// Opens the file to append to it, and makes it if absent.
    pub fn open(path: &Path, clock: Clock) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), file: append(path)?, looked: clock.now(), clock })
    }

    /// Opens the file anew if the path leads elsewhere.
    fn look(&mut self) -> io::Result<()> {
        let now = self.clock.now();
        if now.since(self.looked) < LOOK {
            return Ok(());
        }
        self.looked = now;
        let place = |file: std::fs::Metadata| (file.dev(), file.ino());
        let ours = self.file.metadata().map(place)?;
        if std::fs::metadata(&self.path).map(place).ok() != Some(ours) {
            self.file = append(&self.path)?;
        }
        Ok(())
    }
}

impl Write for Followed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Better into the old file than nowhere.
        let _ = self.look();
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::ManualClock;

    #[test]
    fn a_file_that_was_moved_away_is_opened_anew() {
        let folder = tempfile::tempdir().unwrap();
        let (path, moved) = (folder.path().join("access.log"), folder.path().join("access.log.1"));
        let manual = ManualClock::at(Now::at(1_000_000, 0));
        let mut file = Followed::open(&path, Clock::Manual(manual.clone())).unwrap();
        file.write_all(b"one\n").unwrap();
        std::fs::rename(&path, &moved).unwrap();
        file.write_all(b"two\n").unwrap();
        manual.advance(LOOK);
        file.write_all(b"three\n").unwrap();
        manual.advance(LOOK);
        file.write_all(b"four\n").unwrap();
        assert_eq!(std::fs::read_to_string(&moved).unwrap(), "one\ntwo\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "three\nfour\n");
    }
}
