//! The access log's way out: lines gather in a worker's own buffer and leave in batches.
//!
//! A worker never writes to a file or a terminal itself, so a slow disk or a stopped terminal delays no request. When
//! the writer falls so far behind that its queue is full, batches are dropped and counted, never waited for.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use super::gather::{Gather, Outlet};
use super::record::Record;
use crate::base::time::Clock;

const QUEUED_BATCHES: usize = 64;

/// Where access lines finally go.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Shape {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// The writer's thread and the way to it. Cheap to clone; the thread ends when the last clone is dropped.
#[derive(Clone)]
pub struct AccessLog {
    sender: SyncSender<Vec<u8>>,
    shape: Shape,
    dropped: Arc<AtomicU64>,
}

impl AccessLog {
    /// Starts the writer on a file, which is appended to and made if absent.
    pub fn to_file(path: &Path, shape: Shape) -> io::Result<(Self, JoinHandle<()>)> {
        let file = OpenOptions::new().append(true).create(true).open(path)?;
        Self::start(file, shape)
    }

    /// Starts the writer on any sink.
    pub fn start(sink: impl Write + Send + 'static, shape: Shape) -> io::Result<(Self, JoinHandle<()>)> {
        let (sender, receiver) = sync_channel(QUEUED_BATCHES);
        let thread = std::thread::Builder::new().name("access-log".to_owned()).spawn(move || drain(&receiver, sink))?;
        Ok((Self { sender, shape, dropped: Arc::default() }, thread))
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
        if self.sender.try_send(batch).is_err() {
            self.dropped.fetch_add(lines, Ordering::Relaxed);
        }
    }
}

/// One worker's gathering lines.
#[derive(Clone)]
pub struct Lines(Gather<AccessLog>);

impl Lines {
    /// Adds a finished request.
    pub fn push(&self, record: &Record) {
        let shape = self.0.outlet().shape;
        self.0.push(|now, buffer| match shape {
            Shape::Json => record.write_json(now, buffer),
            Shape::Text => record.write_text(now, buffer),
        });
    }

    /// Hands over what has gathered.
    pub fn flush(&self) {
        self.0.flush();
    }
}

fn drain(receiver: &Receiver<Vec<u8>>, mut sink: impl Write) {
    while let Ok(batch) = receiver.recv() {
        // A full disk must not end the process; the next batch tries again.
        let _ = sink.write_all(&batch).and_then(|()| sink.flush());
    }
}
