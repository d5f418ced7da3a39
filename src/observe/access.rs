//! The access log's way out: lines gather in a worker's own buffer and leave in batches.
//!
//! A worker never writes to a file or a terminal itself, so a slow disk or a stopped terminal delays no request. When
//! the writer falls so far behind that its queue is full, batches are dropped and counted, never waited for.

use std::cell::{Cell, RefCell};
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::Notify;

use super::record::Record;
use crate::base::time::Clock;

/// A batch of a busy worker. Each one wakes the writer, which may have to take the worker's core for it.
const BATCH_BYTES: usize = 64 * 1024;
/// Room for the line that fills a batch.
const LAST_LINE: usize = 2 * 1024;
const QUEUED_BATCHES: usize = 64;
const GATHER: Duration = Duration::from_millis(20);

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
        let (buffer, lines) = (RefCell::default(), Cell::default());
        let inner = Rc::new(Gathered { log: self.clone(), buffer, lines, filled: Notify::new(), clock });
        let flusher = Rc::downgrade(&inner);
        tokio::task::spawn_local(async move {
            loop {
                let Some(gathered) = flusher.upgrade() else { return };
                gathered.filled.notified().await;
                tokio::time::sleep(GATHER).await;
                gathered.flush();
            }
        });
        Lines(inner)
    }

    /// Lines lost because the writer was too slow.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// One worker's gathering lines.
#[derive(Clone)]
pub struct Lines(Rc<Gathered>);

struct Gathered {
    log: AccessLog,
    buffer: RefCell<Vec<u8>>,
    lines: Cell<u64>,
    filled: Notify,
    clock: Clock,
}

impl Lines {
    /// Adds a finished request.
    pub fn push(&self, record: &Record) {
        let gathered = &*self.0;
        let now = gathered.clock.now();
        let (before, after) = {
            let mut buffer = gathered.buffer.borrow_mut();
            let before = buffer.len();
            match gathered.log.shape {
                Shape::Json => record.write_json(now, &mut buffer),
                Shape::Text => record.write_text(now, &mut buffer),
            }
            (before, buffer.len())
        };
        gathered.lines.set(gathered.lines.get() + 1);
        if after >= BATCH_BYTES {
            gathered.flush();
            // Where one batch was filled, another one will be: it does not grow step by step.
            gathered.buffer.borrow_mut().reserve(BATCH_BYTES + LAST_LINE);
        } else if before == 0 {
            gathered.filled.notify_one();
        }
    }

    /// Hands over what has gathered.
    pub fn flush(&self) {
        self.0.flush();
    }
}

impl Gathered {
    fn flush(&self) {
        let full = std::mem::take(&mut *self.buffer.borrow_mut());
        if full.is_empty() {
            return;
        }
        let lines = self.lines.take();
        if self.log.sender.try_send(full).is_err() {
            self.log.dropped.fetch_add(lines, Ordering::Relaxed);
        }
    }
}

impl Drop for Gathered {
    fn drop(&mut self) {
        self.flush();
    }
}

fn drain(receiver: &Receiver<Vec<u8>>, mut sink: impl Write) {
    while let Ok(batch) = receiver.recv() {
        // A full disk must not end the process; the next batch tries again.
        let _ = sink.write_all(&batch).and_then(|()| sink.flush());
    }
}
