//! The store as its users see it.

mod record_page;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::backend::Backend;
#[cfg(test)]
use super::changes::Change;
use super::changes::{ChangeNotifier, Changes, Claim, Lock, Locks};
use super::envelope::{KeyRing, claims_end, draw_version};
use super::error::{Damaged, Error};
use super::lock_attempt::LockAttempt;
use super::quota_call::QuotaCall;
use super::record::{Kind, RecordKey, RecordName, StoredRecord, Version};
use super::redis::Patience;
#[cfg(test)]
use super::simulated::{SharedStore, SimulatedLink, SimulatedStore};
#[cfg(test)]
use super::store_settings::NAMESPACE;
use super::store_settings::StoreSettings;
use crate::base::planted::{PlantedFault, planted};
use crate::base::secret::SecretBox;
use crate::base::time::Clock;

pub use self::record_page::{RecordPage, Rekeyed};

/// More damaged records than this are not reported one by one.
const MOST_REPORTED: usize = 1000;

/// Records that are sealed where they lie. Clones are the same store.
#[derive(Clone, Debug)]
pub struct Store(Rc<FrontState>);

#[derive(Debug)]
struct FrontState {
    backend: Backend,
    ring: RefCell<Arc<KeyRing>>,
    namespace: String,
    clock: Clock,
    notifier: ChangeNotifier,
    locks: RefCell<Locks>,
    /// Damaged records that were reported.
    reported: RefCell<BTreeSet<Damaged>>,
}

impl Store {
    /// Opens a store. A file is opened now, and looked through: what cannot be read is told and set aside. Redis is
    /// connected to in the background, so that a start does not depend on it: see [`reach`](Self::reach).
    ///
    /// Must be called inside a `LocalSet`.
    pub async fn open(settings: &StoreSettings, patience: Patience, clock: Clock) -> Result<Self, Error> {
        let notifier = ChangeNotifier::default();
        let backend = Backend::open(settings, patience, clock.clone(), notifier.clone()).await?;
        let ring = match settings.ring() {
            Some(ring) => ring.clone(),
            None => Arc::new(KeyRing::random()?),
        };
        let store = Self::new(backend, ring, settings.namespace(), clock, notifier);
        store.survey().await?;
        Ok(store)
    }

    fn new(backend: Backend, ring: Arc<KeyRing>, namespace: &str, clock: Clock, notifier: ChangeNotifier) -> Self {
        let (ring, namespace) = (RefCell::new(ring), namespace.to_owned());
        let (locks, reported) = (RefCell::default(), RefCell::default());
        Self(Rc::new(FrontState { backend, ring, namespace, clock, notifier, locks, reported }))
    }

    /// Replaces the keys: from now on records are sealed with the first of these keys, and read with any of them. A
    /// record that none of them opens is damaged until its key is back.
    pub fn turn(&self, ring: Arc<KeyRing>) {
        *self.0.ring.borrow_mut() = ring;
    }

    fn ring(&self) -> Arc<KeyRing> {
        self.0.ring.borrow().clone()
    }

    /// A store in a file that is no file: for tests of what a disk may do.
    #[cfg(test)]
    pub(super) async fn over(backend: Backend, ring: Arc<KeyRing>) -> Result<Self, Error> {
        let store = Self::new(backend, ring, NAMESPACE, Clock::System, ChangeNotifier::default());
        store.survey().await?;
        Ok(store)
    }

    /// A store in a simulated place, behind a simulated link.
    #[cfg(test)]
    pub(crate) fn simulated(
        place: Rc<SharedStore>,
        link: Rc<dyn SimulatedLink>,
        ring: Arc<KeyRing>,
        clock: Clock,
    ) -> Self {
        let backend = Backend::Simulated(SimulatedStore::new(place, link));
        Self::new(backend, ring, NAMESPACE, clock, ChangeNotifier::default())
    }

    /// Sends a change to all listeners on this instance, as a connection for news would.
    #[cfg(test)]
    pub(crate) fn notify(&self, change: Change) {
        self.0.notifier.notify(change);
    }

    /// Waits until the store answers, or for `within`. A file or memory always does.
    pub async fn reach(&self, within: Duration) -> Result<(), Error> {
        self.0.backend.reach(within).await
    }

    /// Returns the kind of backend: `file`, `memory` or `redis`.
    pub fn kind(&self) -> &'static str {
        self.0.backend.kind()
    }

    /// Returns whether records are kept when the process ends.
    pub fn outlives(&self) -> bool {
        self.0.backend.outlives()
    }

    /// Returns whether other instances see what is written here.
    pub fn is_shared(&self) -> bool {
        self.0.backend.is_shared()
    }

    /// A record; absent where there is none, or where it has ended.
    pub async fn load(&self, kind: Kind, key: &RecordKey) -> Result<Option<StoredRecord>, Error> {
        let name = RecordName { kind, key: key.clone() };
        let sealed = self.0.backend.get(&name).await?;
        let Some(sealed) = sealed else { return Ok(None) };
        let record = match self.unseal(&name, &sealed) {
            Ok(record) => record,
            Err(damaged) => {
                self.set_aside(&damaged, sealed).await;
                return Err(Error::Damaged(damaged));
            }
        };
        if planted(PlantedFault::ClockRemoves) && self.has_ended(&record) {
            self.0.backend.take(&name).await?;
        }
        // It stays where it is: our clock may be wrong, and Redis and `sweep` see to it.
        Ok(Some(record).filter(|record| !self.has_ended(record)))
    }

    /// Writes a record and replaces any earlier one. `expiry` is in milliseconds since 1970. When it returns, the
    /// record is as durable as the backend makes it: a file is synced; Redis keeps what it is configured to.
    pub async fn put(
        &self,
        kind: Kind,
        key: &RecordKey,
        value: &SecretBox<[u8]>,
        expiry: Option<u64>,
    ) -> Result<Version, Error> {
        let name = RecordName { kind, key: key.clone() };
        let version = draw_version()?;
        let sealed = self.ring().seal(&self.0.namespace, &name, value, version, expiry)?;
        self.0.backend.set(&name, sealed, expiry, &self.0.clock).await?;
        Ok(version)
    }

    /// Writes a record if `expected` is what is there; `None`: if nothing is, or what has ended. Else [`Error::Conflict`].
    pub async fn swap(
        &self,
        kind: Kind,
        key: &RecordKey,
        expected: Option<Version>,
        value: &SecretBox<[u8]>,
        expiry: Option<u64>,
    ) -> Result<Version, Error> {
        let name = RecordName { kind, key: key.clone() };
        let version = draw_version()?;
        let sealed = self.ring().seal(&self.0.namespace, &name, value, version, expiry)?;
        if self.0.backend.replace(&name, expected, sealed, expiry, &self.0.clock).await? {
            Ok(version)
        } else {
            Err(Error::Conflict)
        }
    }

    /// Reads a record and removes it, in one step: of two who take, one gets it.
    pub async fn take(&self, kind: Kind, key: &RecordKey) -> Result<Option<StoredRecord>, Error> {
        let name = RecordName { kind, key: key.clone() };
        let Some(sealed) = self.0.backend.take(&name).await? else { return Ok(None) };
        match self.unseal(&name, &sealed) {
            Ok(record) => Ok(Some(record).filter(|record| !self.has_ended(record))),
            Err(damaged) => {
                self.set_aside(&damaged, sealed).await;
                Err(Error::Damaged(damaged))
            }
        }
    }

    /// Removes a record, read or not. Says whether there was one that had not ended.
    pub async fn remove(&self, kind: Kind, key: &RecordKey) -> Result<bool, Error> {
        let removed = self.0.backend.take(&RecordName { kind, key: key.clone() }).await?;
        Ok(removed.is_some_and(|sealed| !claims_end(&sealed, self.0.clock.now())))
    }

    /// Removes a record if it is still this writing of it.
    pub async fn remove_if(&self, kind: Kind, key: &RecordKey, version: Version) -> Result<(), Error> {
        self.0.backend.withdraw(kind, vec![(key.clone(), version)]).await
    }

    /// Takes a lock that all instances on this store share, for at most `lease`; returns `None` while another holds it.
    ///
    /// It keeps two holders from doing the same thing at once. A holder that exceeds its lease is not stopped by it: so
    /// write with [`swap`](Self::swap), which then conflicts.
    pub async fn lock(&self, key: &RecordKey, lease: Duration) -> Result<Option<Lock>, Error> {
        self.lock_attempt(key, lease, rand::random()).take().await
    }

    /// Prepares to take such a lock, for a caller that may ask more than once. The number is drawn at random.
    pub fn lock_attempt(&self, key: &RecordKey, lease: Duration, number: u64) -> LockAttempt {
        LockAttempt::new(self.clone(), key.clone(), lease, number)
    }

    pub(super) async fn take_lock(&self, claim: &Claim, lease: Duration) -> Result<Option<Lock>, Error> {
        self.0.backend.lock(claim, lease, &self.0.locks, &self.0.clock).await
    }

    /// Gives the lock of a claim back in the background, should it hold one.
    pub(super) fn leave_lock(&self, claim: &Claim) {
        self.0.backend.leave_lock(claim);
    }

    /// Gives a lock back. Says whether it was still ours.
    pub async fn unlock(&self, lock: Lock) -> Result<bool, Error> {
        self.0.backend.unlock(&lock, &self.0.locks, &self.0.clock).await
    }

    /// Counts requests in a window that all instances on this store share. Returns how many of those that are wanted were
    /// granted, and how many the window counts now.
    pub async fn claim_quota(&self, key: &str, claim: &QuotaCall) -> Result<(u64, u64), Error> {
        self.0.backend.claim_quota(key, claim).await
    }

    /// Tells all instances on this store, this one included, to look at a record. A hint: it may get lost, and then
    /// [`Change::Everything`] follows.
    pub async fn announce(&self, kind: Kind, key: &RecordKey) -> Result<(), Error> {
        self.0.backend.announce(RecordName { kind, key: key.clone() }, &self.0.notifier).await
    }

    /// Subscribes to all changes that are announced from now on.
    pub fn changes(&self) -> Changes {
        let changes = self.0.notifier.listen();
        self.0.backend.listen();
        changes
    }

    fn unseal(&self, name: &RecordName, sealed: &[u8]) -> Result<StoredRecord, Damaged> {
        let opened = self.ring().open(&self.0.namespace, name, sealed);
        opened.map_err(|why| Damaged { name: name.clone(), why })
    }

    fn has_ended(&self, record: &StoredRecord) -> bool {
        record.expiry.is_some_and(|expiry| expiry <= self.0.clock.now().wall)
    }

    /// Logs a damaged record, once.
    fn report(&self, damaged: &Damaged) {
        let mut reported = self.0.reported.borrow_mut();
        if reported.len() < MOST_REPORTED && reported.insert(damaged.clone()) {
            tracing::error!(record = %damaged.name, "{damaged}");
        }
    }

    /// Logs a damaged record, and moves it aside if the backend has a place for such records.
    async fn set_aside(&self, damaged: &Damaged, sealed: Vec<u8>) {
        self.report(damaged);
        if let Err(error) = self.0.backend.set_aside(&damaged.name, sealed).await {
            tracing::error!(record = %damaged.name, %error, "the damaged record cannot be moved aside");
        }
    }
}
