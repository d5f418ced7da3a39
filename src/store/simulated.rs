//! A place for records that several simulated replicas share, and the faulty link that leads to it.
//!
//! It does what Redis does, or a file, with one difference: each operation goes over a [`Link`] of the simulation, twice.
//! On its way there it may be lost, and then nothing was done; on its way back, and then it was done all the same.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use super::changes::{Claim, Lock};
use super::envelope::claimed_expiry;
use super::error::Error;
use super::memory::MemoryStore;
use super::record::{Kind, RecordKey, RecordName, Version};
use crate::base::time::{Clock, Now, millis};

/// A leg of an operation's way.
pub(crate) type Leg<'a> = Pin<Box<dyn Future<Output = Result<(), Error>> + 'a>>;

/// The way from one replica to the place.
pub(crate) trait SimulatedLink: fmt::Debug {
    /// An operation goes to the place. An error: it never arrives.
    fn there<'a>(&'a self, what: &'static str, key: Option<&'a RecordKey>) -> Leg<'a>;

    /// Its answer comes back. An error: it was done, and the caller does not know.
    fn back<'a>(&'a self, what: &'static str, key: Option<&'a RecordKey>) -> Leg<'a>;

    /// News that the place passes on to every replica.
    fn announce(&self, name: &RecordName);
}

/// A lock as Redis holds it.
#[derive(Debug)]
struct SimulatedLock {
    fence: u64,
    claim: u64,
    until: u64,
}

/// The records and locks that all replicas see.
#[derive(Debug)]
pub(crate) struct SharedStore {
    records: RefCell<MemoryStore>,
    locks: RefCell<BTreeMap<RecordKey, SimulatedLock>>,
    fence: Cell<u64>,
    clock: Clock,
    shared: bool,
}

impl SharedStore {
    /// Like a Redis with this clock, or like a file, which one process at a time has.
    pub(crate) fn new(clock: Clock, shared: bool) -> Rc<Self> {
        Rc::new(Self { records: RefCell::default(), locks: RefCell::default(), fence: Cell::new(0), clock, shared })
    }

    /// Returns the number of locks that are held and have not expired.
    pub(crate) fn locks(&self) -> usize {
        let now = self.now().boot;
        self.locks.borrow().values().filter(|held| held.until > now).count()
    }

    fn now(&self) -> Now {
        self.clock.now()
    }

    fn unlock(&self, claim: &Claim) -> bool {
        let (now, mut locks) = (self.now().boot, self.locks.borrow_mut());
        let ours = locks.get(&claim.key).is_some_and(|held| held.claim == claim.number && held.until > now);
        if ours {
            locks.remove(&claim.key);
        }
        ours
    }

    /// Redis removes what has ended, by its own clock; a file keeps it.
    fn expire(&self, name: &RecordName) {
        let mut records = self.records.borrow_mut();
        let ended = |sealed: Vec<u8>| claimed_expiry(&sealed).is_some_and(|expiry| expiry <= self.now().wall);
        if self.shared && records.get(name).is_some_and(ended) {
            records.take(name);
        }
    }
}

/// One replica's end of it.
#[derive(Debug)]
pub(super) struct SimulatedStore {
    place: Rc<SharedStore>,
    link: Rc<dyn SimulatedLink>,
}

impl SimulatedStore {
    pub(super) fn new(place: Rc<SharedStore>, link: Rc<dyn SimulatedLink>) -> Self {
        Self { place, link }
    }

    pub(super) fn kind(&self) -> &'static str {
        if self.place.shared { "redis" } else { "file" }
    }

    pub(super) fn is_shared(&self) -> bool {
        self.place.shared
    }

    async fn ask<T>(
        &self,
        what: &'static str,
        key: Option<&RecordKey>,
        done: impl FnOnce(&SharedStore) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.link.there(what, key).await?;
        let answer = done(&self.place)?;
        self.link.back(what, key).await?;
        Ok(answer)
    }

    pub(super) async fn get(&self, name: &RecordName) -> Result<Option<Vec<u8>>, Error> {
        let get = |place: &SharedStore| {
            place.expire(name);
            Ok(place.records.borrow().get(name))
        };
        self.ask("get", Some(&name.key), get).await
    }

    pub(super) async fn set(&self, name: &RecordName, sealed: Vec<u8>, _: Option<u64>) -> Result<(), Error> {
        let set = |place: &SharedStore| place.records.borrow_mut().set(name, sealed, place.now());
        self.ask("set", Some(&name.key), set).await
    }

    /// An answer that got lost leaves the version that was written to be seen: so who asks again learns that it was done.
    pub(super) async fn replace(
        &self,
        name: &RecordName,
        expected: Option<Version>,
        sealed: Vec<u8>,
        _: Option<u64>,
    ) -> Result<bool, Error> {
        let replace = |place: &SharedStore| {
            place.expire(name);
            place.records.borrow_mut().replace(name, expected, sealed, place.now())
        };
        self.ask("replace", Some(&name.key), replace).await
    }

    pub(super) async fn take(&self, name: &RecordName) -> Result<Option<Vec<u8>>, Error> {
        let take = |place: &SharedStore| {
            place.expire(name);
            Ok(place.records.borrow_mut().take(name))
        };
        self.ask("take", Some(&name.key), take).await
    }

    pub(super) async fn withdraw(&self, kind: Kind, those: &[(RecordKey, Version)]) -> Result<(), Error> {
        let withdraw = |place: &SharedStore| {
            place.records.borrow_mut().withdraw(kind, those);
            Ok(())
        };
        self.ask("withdraw", None, withdraw).await
    }

    pub(super) async fn scan(
        &self,
        kind: Kind,
        after: Option<&RecordKey>,
        most: usize,
    ) -> Result<Vec<(RecordKey, Vec<u8>)>, Error> {
        self.ask("scan", None, |place| Ok(place.records.borrow().scan(kind, after, most))).await
    }

    /// A claim that was granted is granted again, as Redis's script does.
    pub(super) async fn lock(&self, claim: &Claim, lease: Duration) -> Result<Option<Lock>, Error> {
        let Claim { key, number } = claim;
        let lock = |place: &SharedStore| {
            let (now, mut locks) = (place.now().boot, place.locks.borrow_mut());
            let until = now + millis(lease).max(1);
            match locks.get(key).filter(|held| held.until > now) {
                Some(held) if held.claim == *number => Ok(Some(Lock { claim: claim.clone(), fence: held.fence })),
                Some(_) => Ok(None),
                None => {
                    place.fence.set(place.fence.get() + 1);
                    let fence = place.fence.get();
                    locks.insert(key.clone(), SimulatedLock { fence, claim: *number, until });
                    Ok(Some(Lock { claim: claim.clone(), fence }))
                }
            }
        };
        self.ask("lock", Some(key), lock).await
    }

    pub(super) async fn unlock(&self, lock: &Lock) -> Result<bool, Error> {
        let unlock = |place: &SharedStore| Ok(place.unlock(&lock.claim));
        self.ask("unlock", Some(&lock.claim.key), unlock).await
    }

    /// As soon as it is left: when the link is whole again, is not simulated.
    pub(super) fn leave_lock(&self, claim: &Claim) {
        self.place.unlock(claim);
    }

    pub(super) async fn announce(&self, name: &RecordName) -> Result<(), Error> {
        let announce = |_: &SharedStore| {
            self.link.announce(name);
            Ok(())
        };
        self.ask("announce", Some(&name.key), announce).await
    }
}
