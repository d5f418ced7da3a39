//! The signal that a part of the process has ended unasked.

use std::sync::Arc;

use tokio::sync::watch as observed;
use tokio_util::sync::CancellationToken;

/// The signal that a part of the process has ended unasked. The rest could not serve as it should: a listening socket
/// that is not accepted from receives its share of the connections all the same, and without the token keeper no token
/// is renewed.
#[derive(Clone)]
pub(super) struct Alarm {
    pub(super) failed: observed::Sender<Option<Arc<str>>>,
    /// Cancelled when parts may end without an alarm.
    pub(super) ending: CancellationToken,
    /// Cancelled: the process says that it is not ready.
    pub(super) unready: CancellationToken,
}

/// Held by a part for as long as it runs, and dropped also when it panics.
pub(super) struct VitalGuard {
    alarm: Alarm,
    what: Arc<str>,
}

impl Alarm {
    /// Guards a part that must not end before the process does.
    pub(super) fn vital(&self, what: impl Into<Arc<str>>) -> VitalGuard {
        VitalGuard { alarm: self.clone(), what: what.into() }
    }

    /// Runs a part in a task of its own.
    pub(super) fn spawn(
        &self,
        what: &'static str,
        part: impl Future<Output = ()> + 'static,
    ) -> tokio::task::JoinHandle<()> {
        let vital = self.vital(what);
        tokio::task::spawn_local(async move {
            let _vital = vital;
            part.await;
        })
    }
}

impl Drop for VitalGuard {
    fn drop(&mut self) {
        if !self.alarm.ending.is_cancelled() {
            self.alarm.unready.cancel();
            // The first one counts.
            self.alarm.failed.send_if_modified(|failed| {
                let first = failed.is_none();
                failed.get_or_insert_with(|| self.what.clone());
                first
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alarm() -> (Alarm, observed::Receiver<Option<Arc<str>>>) {
        let (failing, failed) = observed::channel(None);
        let alarm = Alarm { failed: failing, ending: CancellationToken::new(), unready: CancellationToken::new() };
        (alarm, failed)
    }

    #[test]
    fn a_part_that_dies_is_told_of_and_the_process_is_not_ready_any_more() {
        let (alarm, failed) = alarm();
        let vital = alarm.vital("worker 0");
        let other = alarm.vital("worker 1");
        assert!(!alarm.unready.is_cancelled() && failed.borrow().is_none());
        let died = std::thread::spawn(move || {
            let _vital = vital;
            panic!("a fault of ours");
        });
        assert!(died.join().is_err());
        drop(other);
        assert!(alarm.unready.is_cancelled());
        assert_eq!(failed.borrow().as_deref(), Some("worker 0"), "the first one counts");
    }

    #[test]
    fn a_part_that_ends_when_it_is_told_to_is_no_failure() {
        let (alarm, failed) = alarm();
        let vital = alarm.vital("worker 0");
        alarm.ending.cancel();
        drop(vital);
        assert!(failed.borrow().is_none() && !alarm.unready.is_cancelled());
    }
}
