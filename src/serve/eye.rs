//! One worker's eye for the dashboard: finished requests are counted, and handed over a few times a second.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use crate::control::Sights;
use crate::observe::record::AccessRecord;
use crate::observe::sight::{Blame, Glance};

/// Time for which a worker gathers counts before it hands them over.
const GATHER: Duration = Duration::from_millis(200);

/// The counts of a worker for the routes of one configuration.
pub struct Eye(Rc<Seeing>);

struct Seeing {
    glance: RefCell<Glance>,
    sights: Sights,
    woken: Rc<Notify>,
}

impl Eye {
    /// Opens it for these routes. Its handing over runs in a local task for as long as it is open.
    pub fn open(sights: Sights, routes: impl Iterator<Item = Arc<str>>) -> Self {
        let woken = Rc::new(Notify::new());
        let seeing = Rc::new(Seeing { glance: RefCell::new(Glance::new(routes)), sights, woken: woken.clone() });
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
    pub fn see(&self, route: Option<usize>, record: &AccessRecord, blame: Blame, took: Duration) {
        if self.0.glance.borrow_mut().see(route, record, blame, took) {
            self.0.woken.notify_one();
        }
    }

    /// Hands over at once what has gathered.
    pub fn hand_over(&self) {
        self.0.hand_over();
    }
}

impl Seeing {
    fn hand_over(&self) {
        let batch = self.glance.borrow_mut().take();
        if let Some(batch) = batch {
            self.sights.tell(batch);
        }
    }
}

impl Drop for Seeing {
    fn drop(&mut self) {
        self.hand_over();
        // Its task sees that it is gone.
        self.woken.notify_one();
    }
}

impl fmt::Debug for Eye {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Eye")
    }
}
