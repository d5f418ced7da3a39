//! The record of one simulated run: its trace, and the first promise that it broke.

use std::cell::RefCell;

/// The trace of a run, kept on demand, with its first violation. Moments are in milliseconds since the run's start.
pub(crate) struct RunTrace {
    lines: Option<RefCell<Vec<String>>>,
    violation: RefCell<Option<String>>,
}

impl RunTrace {
    /// Begins a record, with a trace if `traced`.
    pub(crate) fn new(traced: bool) -> Self {
        Self { lines: traced.then(RefCell::default), violation: RefCell::default() }
    }

    /// Writes a line of the trace.
    pub(crate) fn note(&self, now: u64, line: impl FnOnce() -> String) {
        if let Some(lines) = &self.lines {
            lines.borrow_mut().push(format!("{:>5}.{:03}  {}", now / 1000, now % 1000, line()));
        }
    }

    /// Records a broken promise; only the first one is kept.
    pub(crate) fn broken(&self, now: u64, what: impl FnOnce() -> String) {
        if !self.is_broken() {
            let what = what();
            self.note(now, || format!("BROKEN: {what}"));
            *self.violation.borrow_mut() = Some(what);
        }
    }

    /// Returns whether a promise was broken.
    pub(crate) fn is_broken(&self) -> bool {
        self.violation.borrow().is_some()
    }

    /// Returns the first broken promise, if any, and the trace.
    pub(crate) fn outcome(&self) -> (Option<String>, Vec<String>) {
        let lines = self.lines.as_ref().map_or_else(Vec::new, |lines| lines.borrow().clone());
        (self.violation.borrow().clone(), lines)
    }
}
