//! Work that must not be abandoned, and how a process that ends waits for it.
//!
//! A refresh call that was sent brings a token that cannot be asked for again; so does a code exchange. Each runs in a task
//! that belongs to the [`Tracker`], so no caller's patience, no deadline and no error of a look-through ends it. A process
//! that drains begins no call that may outlast the drain, and waits for those that it has begun.
//!
//! Clones are the same tracker. It lives on the control thread.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::base::planted::{PlantedFault, planted};

/// The owner of work that must not be abandoned.
#[derive(Clone, Default)]
pub struct Tracker(Rc<TrackerState>);

#[derive(Default)]
struct TrackerState {
    running: RefCell<BTreeMap<u64, Work>>,
    last: Cell<u64>,
    end: Cell<TrackerDeadline>,
    idle: Notify,
    /// For what a test does to it.
    #[cfg(test)]
    handles: RefCell<Vec<tokio::task::AbortHandle>>,
}

/// Until when calls may take.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum TrackerDeadline {
    /// The process ends at this moment.
    At(Instant),
    /// No task can be started any more.
    Closed,
    /// The process has no end scheduled.
    #[default]
    Open,
}

/// The description of a task, for the operator. It contains no secrets.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Work {
    /// The operation, named as in the audit log.
    pub what: &'static str,
    /// Name of the provider that the task concerns.
    pub provider: Arc<str>,
}

impl Tracker {
    /// Runs this to its end in a local task. Once the tracker is closed it is dropped instead: says whether it was begun.
    pub fn spawn(&self, work: Work, task: impl Future<Output = ()> + 'static) -> bool {
        if self.0.end.get() == TrackerDeadline::Closed {
            return false;
        }
        let number = self.0.last.get() + 1;
        self.0.last.set(number);
        self.0.running.borrow_mut().insert(number, work);
        let entry = TaskEntry { tracker: self.clone(), number };
        let handle = tokio::task::spawn_local(async move {
            let _entry = entry;
            task.await;
        });
        #[cfg(test)]
        self.0.handles.borrow_mut().push(handle.abort_handle());
        drop(handle);
        true
    }

    /// Returns whether a call that takes at most `longest` may start: in a process that is ending, only if it ends
    /// before the process does.
    pub fn allows(&self, longest: Duration) -> bool {
        match self.0.end.get() {
            TrackerDeadline::Open => true,
            TrackerDeadline::At(end) => Instant::now().checked_add(longest).is_some_and(|done| done <= end),
            TrackerDeadline::Closed => false,
        }
    }

    /// Returns whether the process continues: otherwise only work that a request waits for may start.
    pub fn is_open(&self) -> bool {
        self.0.end.get() == TrackerDeadline::Open
    }

    /// The process ends at this moment.
    pub fn close_at(&self, end: Instant) {
        if self.0.end.get() != TrackerDeadline::Closed {
            self.0.end.set(TrackerDeadline::At(end));
        }
    }

    /// Refuses new tasks, and waits for the running ones until `end` at most. Returns those that still run then, which
    /// are lost with the process.
    pub async fn finish(&self, end: Instant) -> Vec<Work> {
        self.0.end.set(TrackerDeadline::Closed);
        let idle = async {
            // One waiter at a time: `notify_one` leaves a permit for a waiter that comes too late to hear it.
            while !self.0.running.borrow().is_empty() {
                self.0.idle.notified().await;
            }
        };
        if !planted(PlantedFault::EndsAtOnce) {
            let _late = timeout_at(end, idle).await;
        }
        self.0.running.borrow().values().cloned().collect()
    }

    #[cfg(test)]
    pub(super) fn abort(&self) {
        for handle in self.0.handles.borrow_mut().drain(..) {
            handle.abort();
        }
    }

    #[cfg(test)]
    pub(super) fn running(&self) -> usize {
        self.0.running.borrow().len()
    }
}

/// A running task's entry. Dropped with the task, however that ends.
struct TaskEntry {
    tracker: Tracker,
    number: u64,
}

impl Drop for TaskEntry {
    fn drop(&mut self) {
        let inner = &self.tracker.0;
        inner.running.borrow_mut().remove(&self.number);
        if inner.running.borrow().is_empty() {
            inner.idle.notify_one();
        }
    }
}

impl fmt::Debug for Tracker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let running = self.0.running.borrow().len();
        f.debug_struct("Tracker").field("running", &running).field("end", &self.0.end.get()).finish()
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.what, self.provider)
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::{LocalSet, yield_now};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn work() -> Work {
        Work { what: "token.renew", provider: "bank".into() }
    }

    fn run(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        LocalSet::new().block_on(&runtime, test);
    }

    #[test]
    fn the_end_waits_for_what_was_begun_and_begins_nothing() {
        run(async {
            let (tracker, gate) = (Tracker::default(), Rc::new(Notify::new()));
            for _ in 0..2 {
                let gate = gate.clone();
                assert!(tracker.spawn(work(), async move { gate.notified().await }));
            }
            let ended = Rc::new(Cell::new(false));
            let (known, waits) = (ended.clone(), tracker.clone());
            let waiting = tokio::task::spawn_local(async move {
                let lost = waits.finish(Instant::now() + SECOND * 30).await;
                known.set(true);
                lost
            });
            for left in [2, 1] {
                for _ in 0..10 {
                    yield_now().await;
                }
                assert_eq!((tracker.running(), ended.get()), (left, false));
                gate.notify_one();
            }
            assert_eq!(waiting.await.unwrap(), []);
            assert!(!tracker.spawn(work(), async {}) && !tracker.allows(Duration::ZERO) && !tracker.is_open());
        });
    }

    #[test]
    fn what_takes_too_long_is_named_and_a_panic_is_an_end() {
        run(async {
            let tracker = Tracker::default();
            tracker.spawn(work(), std::future::pending());
            tracker.spawn(Work { what: "consent.finish", ..work() }, async { panic!("a bug of ours") });
            for _ in 0..10 {
                yield_now().await;
            }
            let lost = tracker.finish(Instant::now()).await;
            assert_eq!(lost.iter().map(ToString::to_string).collect::<Vec<_>>(), ["token.renew at bank"]);
        });
    }

    #[test]
    fn a_process_that_ends_begins_no_call_that_may_outlast_it() {
        run(async {
            let tracker = Tracker::default();
            assert!(tracker.is_open() && tracker.allows(SECOND * 3600));
            tracker.close_at(Instant::now() + SECOND * 3600);
            assert!(!tracker.is_open() && tracker.allows(SECOND * 1800) && !tracker.allows(SECOND * 3601));
            assert!(tracker.spawn(work(), async {}), "who waits may still be told that there is nothing");
        });
    }
}
