//! The number of bytes that a client's socket has taken, for those who must not run ahead of it.

use std::cell::Cell;
use std::task::Waker;

/// Counts the bytes that a socket has taken. One task at a time can wait for more.
#[derive(Default)]
pub struct SentBytes {
    bytes: Cell<u64>,
    /// True once a stream counts here; without one, the number says nothing.
    counted: Cell<bool>,
    waiter: Cell<Option<Waker>>,
}

impl SentBytes {
    /// Returns the number of bytes so far.
    pub const fn get(&self) -> u64 {
        self.bytes.get()
    }

    /// Returns whether anybody counts.
    pub const fn is_counted(&self) -> bool {
        self.counted.get()
    }

    /// Notes that a stream counts here from now on.
    pub fn begin(&self) {
        self.counted.set(true);
    }

    /// The socket has taken so many more.
    pub fn add(&self, bytes: usize) {
        self.bytes.set(self.bytes.get().wrapping_add(bytes as u64));
        if let Some(waiter) = self.waiter.take() {
            waiter.wake();
        }
    }

    /// Wakes this task once the socket takes more.
    pub fn wake_next(&self, waker: &Waker) {
        self.waiter.set(Some(waker.clone()));
    }
}
