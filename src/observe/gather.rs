//! Buffers for the lines of workers: each worker gathers lines in a buffer of its own and hands them over in batches.
//!
//! A worker never writes to a file or a terminal itself: it hands batches to an `Outlet`, at the latest 20 milliseconds
//! after the first line of each.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;

use crate::base::time::{Clock, Now};

/// A batch of a busy worker. Each one wakes the writer, which may have to take the worker's core for it.
const BATCH_BYTES: usize = 64 * 1024;
/// Room for the line that fills a batch.
const LAST_LINE: usize = 2 * 1024;
/// Room for the first lines of a batch.
const FIRST_LINES: usize = 2 * 1024;
const GATHER: Duration = Duration::from_millis(20);

/// The destination of batches. Taking one must not wait for anything.
pub trait Outlet: 'static {
    /// Takes whole lines, and how many they are.
    fn take(&self, batch: Vec<u8>, lines: u64);
}

/// One worker's gathering lines. Cheap to clone; the last clone hands over what is left.
pub struct Gather<O: Outlet>(Rc<Gathered<O>>);

struct Gathered<O: Outlet> {
    outlet: O,
    buffer: RefCell<Vec<u8>>,
    lines: Cell<u64>,
    filled: Notify,
    clock: Clock,
}

impl<O: Outlet> Gather<O> {
    /// An empty buffer. Its flushing runs in a local task for as long as the buffer lives.
    pub fn new(outlet: O, clock: Clock) -> Self {
        let (buffer, lines) = (RefCell::default(), Cell::default());
        let inner = Rc::new(Gathered { outlet, buffer, lines, filled: Notify::new(), clock });
        let flusher = Rc::downgrade(&inner);
        tokio::task::spawn_local(async move {
            loop {
                let Some(gathered) = flusher.upgrade() else { return };
                gathered.filled.notified().await;
                tokio::time::sleep(GATHER).await;
                gathered.flush();
            }
        });
        Self(inner)
    }

    /// Returns the destination of its batches.
    pub fn outlet(&self) -> &O {
        &self.0.outlet
    }

    /// Adds the line that `write` appends.
    pub fn push(&self, write: impl FnOnce(Now, &mut Vec<u8>)) {
        let gathered = &*self.0;
        let now = gathered.clock.now();
        let (before, after) = {
            let mut buffer = gathered.buffer.borrow_mut();
            let before = buffer.len();
            if before == 0 {
                // Lines of a quiet worker: the buffer does not grow step by step.
                buffer.reserve(FIRST_LINES);
            }
            write(now, &mut buffer);
            (before, buffer.len())
        };
        gathered.lines.set(gathered.lines.get() + 1);
        if after >= BATCH_BYTES {
            gathered.flush();
            // After a full batch another one is likely: the buffer is allocated at once, so that it does not grow step
            // by step.
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

impl<O: Outlet> Clone for Gather<O> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<O: Outlet> Gathered<O> {
    fn flush(&self) {
        let full = std::mem::take(&mut *self.buffer.borrow_mut());
        if !full.is_empty() {
            self.outlet.take(full, self.lines.take());
        }
    }
}

impl<O: Outlet> Drop for Gathered<O> {
    fn drop(&mut self) {
        self.flush();
    }
}
