//! What a worker serves by now. A new config replaces its [`WorkerState`] as a whole, between two requests; a request under
//! way ends in the one that it began in.
//!
//! Connections outlive configs. Each asks here, request by request, for the site that holds. Only those that were made
//! on another footing than their listener has now (other CAs of clients, another way to be spoken to) are asked to
//! finish, and what they still send is sent away to a new connection.

use std::cell::RefCell;
use std::rc::Rc;

use tokio_util::sync::CancellationToken;

use super::worker_state::{ProcessState, WorkerState};

/// One worker's present. Lives on the worker's thread.
pub struct CurrentState {
    site: RefCell<Rc<WorkerState>>,
    /// Cancelled when the connections of the listener at this position are to finish.
    doors: RefCell<Vec<CancellationToken>>,
    /// Cancelled when all are.
    drain: CancellationToken,
}

impl CurrentState {
    /// The first one.
    pub fn begin(site: Rc<WorkerState>, drain: CancellationToken) -> Rc<Self> {
        let doors = site.shared.listeners.iter().map(|_| drain.child_token()).collect();
        Rc::new(Self { site: RefCell::new(site), doors: RefCell::new(doors), drain })
    }

    /// What holds now.
    #[inline]
    pub fn site(&self) -> Rc<WorkerState> {
        self.site.borrow().clone()
    }

    /// Tells a connection of the listener at this position to finish.
    pub fn door(&self, listener: usize) -> CancellationToken {
        self.doors.borrow().get(listener).unwrap_or(&self.drain).clone()
    }

    /// From now on this holds.
    pub fn turn(&self, shared: ProcessState) {
        let before = self.site();
        let after = WorkerState::succeed(&before, shared);
        for (at, door) in self.doors.borrow_mut().iter_mut().enumerate() {
            if before.footing(at) != after.footing(at) {
                std::mem::replace(door, self.drain.child_token()).cancel();
            }
        }
        *self.site.borrow_mut() = after;
    }
}
