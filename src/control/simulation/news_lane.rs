//! The way from one process to the store: slow, lossy, down for a while; and the news that come over it.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;

use super::simulation_world::Simulation;
use crate::base::planted::{PlantedFault, planted};
use crate::store::simulated::{Leg, SimulatedLink};
use crate::store::{Change, Error, RecordKey, RecordName, Store};

/// An operation may take so long, in milliseconds.
const OPERATION: u64 = 30;
/// A link that broke rests for so long at least, and at most.
const REST: (u64, u64) = (250, 4_000);

/// The way of one process.
pub(super) struct NewsLane {
    world: Rc<Simulation>,
    process: u32,
    store: RefCell<Option<Store>>,
    /// Time before which operations fail, in milliseconds of the run.
    down: Cell<u64>,
    /// News are lost until then.
    deaf: Cell<u64>,
    /// Time since which both work, in milliseconds of the run.
    whole: Cell<u64>,
}

impl NewsLane {
    pub(super) fn new(world: Rc<Simulation>, process: u32) -> Rc<Self> {
        let now = world.now();
        let (down, deaf, whole) = (Cell::new(0), Cell::new(0), Cell::new(now));
        Rc::new(Self { world, process, store: RefCell::default(), down, deaf, whole })
    }

    /// Sets the store that passes news on to its listeners.
    pub(super) fn attach(&self, store: Store) {
        *self.store.borrow_mut() = Some(store);
    }

    /// Since when operations and news have been going through without a break; the future, while they are not.
    pub(super) fn whole_since(&self) -> u64 {
        self.whole.get().max(self.down.get()).max(self.deaf.get())
    }

    /// Breaks for this long, in milliseconds. Operations and news come back apart from each other.
    pub(super) fn cut(self: &Rc<Self>, operations: u64, news: u64) {
        let now = self.world.now();
        self.world.note(|| {
            format!("process {}: the store is away for {operations} ms, its news for {news} ms", self.process)
        });
        self.down.set(self.down.get().max(now + operations));
        self.lose_news(news);
        let (lane, back) = (self.clone(), self.down.get());
        self.world.spawn(async move {
            tokio::time::sleep(std::time::Duration::from_millis(back.saturating_sub(now))).await;
            // A connection that is made anew says so, and all is looked at.
            if lane.down.get() <= lane.world.now() && !planted(PlantedFault::OneLook) {
                lane.tell(Change::Everything);
            }
        });
    }

    /// Ends all outages within two seconds from now.
    pub(super) fn heal(self: &Rc<Self>) {
        let soon = self.world.now() + 2_000;
        if self.down.get() > soon || self.deaf.get() > soon {
            self.down.set(self.down.get().min(soon));
            self.deaf.set(self.deaf.get().min(soon));
            self.lose_news(2_000);
        }
    }

    fn lose_news(self: &Rc<Self>, for_so_long: u64) {
        let now = self.world.now();
        self.deaf.set(self.deaf.get().max(now + for_so_long));
        let lane = self.clone();
        self.world.spawn(async move {
            let back = lane.deaf.get();
            tokio::time::sleep(std::time::Duration::from_millis(back.saturating_sub(now))).await;
            if lane.deaf.get() <= lane.world.now() {
                lane.world.note(|| format!("process {}: news come again", lane.process));
                lane.tell(Change::Everything);
            }
        });
    }

    fn tell(&self, change: Change) {
        if let Some(store) = &*self.store.borrow() {
            store.notify(change);
        }
    }

    /// One operation in vain breaks the link for all, as the breaker does.
    fn fail(&self, why: &str) -> Error {
        let now = self.world.now();
        if self.world.plan.shared {
            let rest = self.world.between(REST.0, REST.1) / if self.world.chance(70) { 8 } else { 1 };
            self.down.set(self.down.get().max(now + rest));
        }
        self.whole.set(now);
        self.world.note(|| format!("process {}: {why}", self.process));
        Error::Unavailable(why.to_owned())
    }

    fn is_down(&self) -> bool {
        self.world.now() < self.down.get()
    }
}

impl fmt::Debug for NewsLane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NewsLane")
    }
}

impl SimulatedLink for NewsLane {
    fn there<'a>(&'a self, what: &'static str, key: Option<&'a RecordKey>) -> Leg<'a> {
        Box::pin(async move {
            let world = &self.world;
            if self.is_down() {
                return Err(Error::Unavailable("the store rests".to_owned()));
            }
            if world.strikes(world.plan.sluggish) {
                world.pause(5, OPERATION + 10).await;
            } else {
                world.pause(0, 3).await;
            }
            if world.strikes(world.plan.losses) {
                return Err(self.fail(&format!("{what} {key:?} is lost")));
            }
            if self.is_down() {
                return Err(Error::Unavailable("the store went away".to_owned()));
            }
            if let Some(process) = super::process::current() {
                process.perhaps_die().await;
            }
            Ok(())
        })
    }

    fn back<'a>(&'a self, what: &'static str, key: Option<&'a RecordKey>) -> Leg<'a> {
        Box::pin(async move {
            let world = &self.world;
            if let Some(process) = super::process::current() {
                process.perhaps_die().await;
            }
            world.pause(0, 2).await;
            if world.strikes(world.plan.losses) {
                return Err(self.fail(&format!("the answer to {what} {key:?} is lost")));
            }
            if self.is_down() {
                return Err(Error::Unavailable("the store went away".to_owned()));
            }
            if what != "get" && what != "scan" && what != "lock" && what != "unlock" {
                world.note(|| format!("process {}: {what} {key:?}", self.process));
            }
            Ok(())
        })
    }

    fn announce(&self, name: &RecordName) {
        let world = &self.world;
        for process in world.processes.borrow().iter() {
            let times = 1 + u64::from(world.strikes(world.plan.sluggish));
            for _ in 0..times {
                let late = world.strikes(world.plan.sluggish);
                let (own, process, name) = (world.clone(), process.clone(), name.clone());
                world.spawn(async move {
                    own.pause(0, if late { 500 } else { 10 }).await;
                    // News sent while the connection is broken are lost.
                    if own.now() >= process.lane.deaf.get() {
                        process.lane.tell(Change::Record(name));
                    }
                });
            }
        }
    }
}
