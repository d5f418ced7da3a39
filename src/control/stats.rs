//! The workers' observations, on their way to the dashboard's statistics.
//!
//! Workers never wait: if the control thread has fallen behind, a batch is dropped.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

use tokio::sync::mpsc;

use crate::base::time::Clock;
use crate::observe::stats::{RequestStats, StatsBatch};

/// More batches than this do not wait to be added up.
const QUEUED: usize = 256;

/// The workers' end. Cheap to clone.
#[derive(Clone)]
pub struct StatsSender(mpsc::Sender<StatsBatch>);

/// The control thread's end, which adds up the workers' batches.
pub struct StatsReceiver(mpsc::Receiver<StatsBatch>);

impl StatsSender {
    /// Creates the workers' end and the control thread's end.
    pub fn open() -> (Self, StatsReceiver) {
        let (sender, receiver) = mpsc::channel(QUEUED);
        (Self(sender), StatsReceiver(receiver))
    }

    /// Hands over what a worker has gathered.
    pub fn tell(&self, batch: StatsBatch) {
        // Statistics may have gaps; requests may not wait.
        let _ = self.0.try_send(batch);
    }
}

impl StatsReceiver {
    /// Adds everything up until the last worker has gone.
    pub async fn run(mut self, clock: Clock, request_stats: Rc<RefCell<RequestStats>>) {
        while let Some(batch) = self.0.recv().await {
            request_stats.borrow_mut().add(clock.now(), batch);
        }
    }
}

impl fmt::Debug for StatsSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sights")
    }
}

impl fmt::Debug for StatsReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gazing")
    }
}
