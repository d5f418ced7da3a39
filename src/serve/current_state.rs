//! The state that a worker serves now. A new config replaces its [`WorkerState`] as a whole, between two requests; a
//! request in progress ends with the one in which it began.
//!
//! Connections outlive configs. Each obtains the current state here for every request. Only connections that were made
//! on another footing than their listener has now (other client CAs, another mode) are asked to finish, and requests
//! that they still send are directed to a new connection.

use std::cell::RefCell;
use std::rc::Rc;

use tokio_util::sync::CancellationToken;

use crate::serve::worker_state::{ProcessState, WorkerState};

/// One worker's present. Lives on the worker's thread.
pub struct CurrentState {
    worker: RefCell<Rc<WorkerState>>,
    /// Cancelled when the connections of the listener at this position are to finish.
    drains: RefCell<Vec<CancellationToken>>,
    /// Cancelled when the connections of all listeners are to finish.
    drain: CancellationToken,
}

impl CurrentState {
    /// Creates the state that a worker starts with.
    pub fn begin(worker: Rc<WorkerState>, drain: CancellationToken) -> Rc<Self> {
        let drains = worker.shared.listeners.iter().map(|_| drain.child_token()).collect();
        Rc::new(Self { worker: RefCell::new(worker), drains: RefCell::new(drains), drain })
    }

    /// Returns the state for a new request.
    #[inline]
    pub fn worker(&self) -> Rc<WorkerState> {
        self.worker.borrow().clone()
    }

    /// Tells a connection of the listener at this position to finish.
    pub fn conn(&self, listener: usize) -> CancellationToken {
        self.drains.borrow().get(listener).unwrap_or(&self.drain).clone()
    }

    /// From now on this holds.
    pub fn turn(&self, shared: ProcessState) {
        let before = self.worker();
        let after = WorkerState::succeed(&before, shared);
        for (at, conn) in self.drains.borrow_mut().iter_mut().enumerate() {
            if before.footing(at) != after.footing(at) {
                std::mem::replace(conn, self.drain.child_token()).cancel();
            }
        }
        *self.worker.borrow_mut() = after;
    }
}
