//! One worker's eye for the dashboard: finished requests are counted, and handed over a few times a second.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use crate::control::StatsSender;
use crate::observe::record::AccessRecord;
use crate::observe::stats::{Blame, PendingStats};

/// Time for which a worker gathers counts before it hands them over.
const GATHER: Duration = Duration::from_millis(200);

/// The counts of a worker for the routes of one configuration.
pub struct StatsCollector(Rc<CollectorState>);

struct CollectorState {
    pending: RefCell<PendingStats>,
    stats_sender: StatsSender,
    woken: Rc<Notify>,
}

impl StatsCollector {
    /// Opens it for these routes. Its handing over runs in a local task for as long as it is open.
    pub fn open(stats_sender: StatsSender, routes: impl Iterator<Item = Arc<str>>) -> Self {
        let woken = Rc::new(Notify::new());
        let seeing = Rc::new(CollectorState {
            pending: RefCell::new(PendingStats::new(routes)),
            stats_sender,
            woken: woken.clone(),
        });
        let open = Rc::downgrade(&seeing);
        tokio::task::spawn_local(async move {
            loop {
                woken.notified().await;
                tokio::time::sleep(GATHER).await;
                let Some(seeing) = open.upgrade() else { return };
                seeing.hand_over();
            }
        });
        Self(seeing)
    }

    /// Counts a finished request of the route at this position; none: it found none.
    #[inline]
    pub fn see(&self, route: Option<usize>, record: &AccessRecord, blame: Blame) {
        if self.0.pending.borrow_mut().see(route, record, blame) {
            self.0.woken.notify_one();
        }
    }

    /// Hands over at once what has gathered.
    pub fn hand_over(&self) {
        self.0.hand_over();
    }
}

impl CollectorState {
    fn hand_over(&self) {
        let batch = self.pending.borrow_mut().take();
        if let Some(batch) = batch {
            self.stats_sender.tell(batch);
        }
    }
}

impl Drop for CollectorState {
    fn drop(&mut self) {
        self.hand_over();
        // Its task sees that it is gone.
        self.woken.notify_one();
    }
}

impl fmt::Debug for StatsCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Eye")
    }
}
