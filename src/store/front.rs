//! The store as its users see it.

mod walk;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::changes::{Change, ChangeNotifier, Changes, Lock, Locks};
use super::envelope::{KeyRing, claims_end, draw_version};
use super::error::{Damaged, Error};
use super::file::FileStore;
use super::memory::MemoryStore;
use super::record::{Kind, RecordKey, RecordName, StoredRecord, Version};
use super::redis::{Patience, RedisStore};
#[cfg(test)]
use super::simulated::{SharedStore, SimulatedLink, SimulatedStore};
use super::store_settings::{NAMESPACE, StoreSettings};
use crate::base::planted::{PlantedFault, planted};
use crate::base::secret::SecretBox;
use crate::base::time::Clock;

pub use self::walk::{RecordPage, Rekeyed, WalkCursor};
/// More damaged records than this are not told one by one.
const MOST_TOLD: usize = 1000;

/// Records that are sealed where they lie. Clones are the same store.
#[derive(Clone, Debug)]
pub struct Store(Rc<FrontState>);

#[derive(Debug)]
struct FrontState {
    backend: Backend,
    ring: RefCell<Arc<KeyRing>>,
    namespace: String,
    clock: Clock,
    bell: ChangeNotifier,
    locks: RefCell<Locks>,
    /// Damaged records that were told of.
    reported: RefCell<BTreeSet<Damaged>>,
}

#[derive(Debug)]
enum Backend {
    File(FileStore),
    Memory(RefCell<MemoryStore>),
    Redis(Box<RedisStore>),
    #[cfg(test)]
    Simulated(SimulatedStore),
}

impl Store {
    /// Opens a store. A file is opened now, and looked through: what cannot be read is told and set aside. Redis is
    /// connected to in the background, so that a start does not depend on it: see [`reach`](Self::reach).
    ///
    /// Must be called inside a `LocalSet`.
    pub async fn open(wish: &StoreSettings, patience: Patience, clock: Clock) -> Result<Self, Error> {
        let bell = ChangeNotifier::default();
        let (backend, ring, namespace) = match wish {
            StoreSettings::File { path, ring } => {
                (Backend::File(FileStore::open(path.clone()).await?), ring.clone(), NAMESPACE.to_owned())
            }
            StoreSettings::Memory => {
                (Backend::Memory(RefCell::default()), Arc::new(KeyRing::random()?), NAMESPACE.to_owned())
            }
            StoreSettings::Redis(redis) => {
                let backend = RedisStore::open(redis.clone(), patience, bell.clone());
                (Backend::Redis(Box::new(backend)), redis.ring.clone(), redis.namespace.clone())
            }
        };
        let (locks, reported) = (RefCell::default(), RefCell::default());
        let ring = RefCell::new(ring);
        let store = Self(Rc::new(FrontState { backend, ring, namespace, clock, bell, locks, reported }));
        if let Backend::File(file) = &store.0.backend {
            store.survey(file).await?;
        }
        Ok(store)
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
    pub(super) async fn over(file: FileStore, ring: Arc<KeyRing>) -> Result<Self, Error> {
        let (backend, namespace, clock) = (Backend::File(file), NAMESPACE.to_owned(), Clock::System);
        let (bell, locks, reported) = (ChangeNotifier::default(), RefCell::default(), RefCell::default());
        let ring = RefCell::new(ring);
        let store = Self(Rc::new(FrontState { backend, ring, namespace, clock, bell, locks, reported }));
        if let Backend::File(file) = &store.0.backend {
            store.survey(file).await?;
        }
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
        let (backend, namespace) = (Backend::Simulated(SimulatedStore::new(place, link)), NAMESPACE.to_owned());
        let (bell, locks, reported) = (ChangeNotifier::default(), RefCell::default(), RefCell::default());
        Self(Rc::new(FrontState { backend, ring: RefCell::new(ring), namespace, clock, bell, locks, reported }))
    }

    /// Sends a change to all listeners on this instance, as a connection for news would.
    #[cfg(test)]
    pub(crate) fn ring_bell(&self, change: Change) {
        self.0.bell.ring(change);
    }

    /// Waits until the store answers, or for `within`. A file or memory always does.
    pub async fn reach(&self, within: Duration) -> Result<(), Error> {
        match &self.0.backend {
            Backend::File(_) | Backend::Memory(_) => Ok(()),
            Backend::Redis(redis) => redis.reach(within).await,
            #[cfg(test)]
            Backend::Simulated(_) => Ok(()),
        }
    }

    /// Returns the kind of backend: `file`, `memory` or `redis`.
    pub fn kind(&self) -> &'static str {
        match &self.0.backend {
            Backend::File(_) => "file",
            Backend::Memory(_) => "memory",
            Backend::Redis(_) => "redis",
            #[cfg(test)]
            Backend::Simulated(place) => place.kind(),
        }
    }

    /// Returns whether records are kept when the process ends.
    pub fn outlives(&self) -> bool {
        !matches!(self.0.backend, Backend::Memory(_))
    }

    /// Returns whether other instances see what is written here.
    pub fn is_shared(&self) -> bool {
        match &self.0.backend {
            Backend::File(_) | Backend::Memory(_) => false,
            Backend::Redis(_) => true,
            #[cfg(test)]
            Backend::Simulated(place) => place.is_shared(),
        }
    }

    /// A record; absent where there is none, or where it has ended.
    pub async fn load(&self, kind: Kind, key: &RecordKey) -> Result<Option<StoredRecord>, Error> {
        let name = RecordName { kind, key: key.clone() };
        let sealed = match &self.0.backend {
            Backend::File(file) => file.get(&name).await?,
            Backend::Memory(memory) => memory.borrow().get(&name),
            Backend::Redis(redis) => redis.get(&name).await?,
            #[cfg(test)]
            Backend::Simulated(place) => place.get(&name).await?,
        };
        let Some(sealed) = sealed else { return Ok(None) };
        let record = match self.unseal(&name, &sealed) {
            Ok(record) => record,
            Err(damaged) => {
                self.set_aside(&damaged, sealed).await;
                return Err(Error::Damaged(damaged));
            }
        };
        if planted(PlantedFault::ClockRemoves) && self.has_ended(&record) {
            self.withdraw_any(&name).await?;
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
        match &self.0.backend {
            Backend::File(file) => file.set(&name, sealed).await?,
            Backend::Memory(memory) => memory.borrow_mut().set(&name, sealed, self.0.clock.now())?,
            Backend::Redis(redis) => redis.set(&name, sealed, expiry).await?,
            #[cfg(test)]
            Backend::Simulated(place) => place.set(&name, sealed, expiry).await?,
        }
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
        if self.replace(&name, expected, sealed, expiry).await? { Ok(version) } else { Err(Error::Conflict) }
    }

    /// Reads a record and removes it, in one step: of two who take, one gets it.
    pub async fn take(&self, kind: Kind, key: &RecordKey) -> Result<Option<StoredRecord>, Error> {
        let name = RecordName { kind, key: key.clone() };
        let Some(sealed) = self.withdraw_any(&name).await? else { return Ok(None) };
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
        let removed = self.withdraw_any(&RecordName { kind, key: key.clone() }).await?;
        Ok(removed.is_some_and(|sealed| !claims_end(&sealed, self.0.clock.now())))
    }

    /// Removes a record if it is still this writing of it.
    pub async fn remove_if(&self, kind: Kind, key: &RecordKey, version: Version) -> Result<(), Error> {
        match &self.0.backend {
            Backend::File(file) => file.withdraw(kind, vec![(key.clone(), version)]).await,
            Backend::Memory(memory) => {
                memory.borrow_mut().withdraw(kind, &[(key.clone(), version)]);
                Ok(())
            }
            Backend::Redis(redis) => redis.withdraw(&RecordName { kind, key: key.clone() }, version).await,
            #[cfg(test)]
            Backend::Simulated(place) => place.withdraw(kind, &[(key.clone(), version)]).await,
        }
    }

    /// Takes a lock that all instances on this store share, for at most `lease`; returns `None` while another holds it.
    ///
    /// It keeps two holders from doing the same thing at once. A holder that exceeds its lease is not stopped by it: so
    /// write with [`swap`](Self::swap), which then conflicts.
    pub async fn lock(&self, key: &RecordKey, lease: Duration) -> Result<Option<Lock>, Error> {
        self.claim(key, lease, rand::random()).await
    }

    /// Takes a lock for a caller that may ask again after an error: a lock that was granted to this claim, a number
    /// drawn at random, is granted again. Otherwise a lock whose response was lost would have no holder until its lease
    /// is over.
    pub async fn claim(&self, key: &RecordKey, lease: Duration, claim: u64) -> Result<Option<Lock>, Error> {
        match &self.0.backend {
            Backend::File(_) | Backend::Memory(_) => Ok(self.0.locks.borrow_mut().lock(key, lease, self.0.clock.now())),
            Backend::Redis(redis) => redis.lock(key, lease, claim).await,
            #[cfg(test)]
            Backend::Simulated(place) if place.is_shared() => place.lock(key, lease, claim).await,
            #[cfg(test)]
            Backend::Simulated(_) => Ok(self.0.locks.borrow_mut().lock(key, lease, self.0.clock.now())),
        }
    }

    /// Gives a lock back. Says whether it was still ours.
    pub async fn unlock(&self, lock: Lock) -> Result<bool, Error> {
        match &self.0.backend {
            Backend::File(_) | Backend::Memory(_) => Ok(self.0.locks.borrow_mut().unlock(&lock, self.0.clock.now())),
            Backend::Redis(redis) => redis.unlock(&lock).await,
            #[cfg(test)]
            Backend::Simulated(place) if place.is_shared() => place.unlock(&lock).await,
            #[cfg(test)]
            Backend::Simulated(_) => Ok(self.0.locks.borrow_mut().unlock(&lock, self.0.clock.now())),
        }
    }

    /// Tells all instances on this store, this one included, to look at a record. A hint: it may get lost, and then
    /// [`Change::Everything`] follows.
    pub async fn announce(&self, kind: Kind, key: &RecordKey) -> Result<(), Error> {
        let name = RecordName { kind, key: key.clone() };
        match &self.0.backend {
            Backend::File(_) | Backend::Memory(_) => {
                self.0.bell.ring(Change::Record(name));
                Ok(())
            }
            Backend::Redis(redis) => redis.announce(&name).await,
            #[cfg(test)]
            Backend::Simulated(place) if place.is_shared() => place.announce(&name).await,
            #[cfg(test)]
            Backend::Simulated(_) => {
                self.0.bell.ring(Change::Record(name));
                Ok(())
            }
        }
    }

    /// Subscribes to all changes that are announced from now on.
    pub fn changes(&self) -> Changes {
        let changes = self.0.bell.listen();
        if let Backend::Redis(redis) = &self.0.backend {
            redis.listen();
        }
        changes
    }

    fn unseal(&self, name: &RecordName, sealed: &[u8]) -> Result<StoredRecord, Damaged> {
        let opened = self.ring().open(&self.0.namespace, name, sealed);
        opened.map_err(|why| Damaged { name: name.clone(), why })
    }

    fn has_ended(&self, record: &StoredRecord) -> bool {
        record.expiry.is_some_and(|expiry| expiry <= self.0.clock.now().wall)
    }

    /// Tells of a damaged record, once.
    fn tell(&self, damaged: &Damaged) {
        let mut reported = self.0.reported.borrow_mut();
        if reported.len() < MOST_TOLD && reported.insert(damaged.clone()) {
            tracing::error!(record = %damaged.name, "{damaged}");
        }
    }

    /// Tells of a damaged record, and puts it where it does not stand in the way. Redis keeps it where it is: another
    /// instance may have the key.
    async fn set_aside(&self, damaged: &Damaged, sealed: Vec<u8>) {
        self.tell(damaged);
        if let Backend::File(file) = &self.0.backend
            && let Err(error) = file.set_aside(&damaged.name, sealed).await
        {
            tracing::error!(record = %damaged.name, %error, "the damaged record cannot be set aside");
        }
    }

    async fn replace(
        &self,
        name: &RecordName,
        expected: Option<Version>,
        sealed: Vec<u8>,
        expiry: Option<u64>,
    ) -> Result<bool, Error> {
        match &self.0.backend {
            Backend::File(file) => file.replace(name, expected, sealed, self.0.clock.now()).await,
            Backend::Memory(memory) => memory.borrow_mut().replace(name, expected, sealed, self.0.clock.now()),
            Backend::Redis(redis) => redis.replace(name, expected, sealed, expiry).await,
            #[cfg(test)]
            Backend::Simulated(place) => place.replace(name, expected, sealed, expiry).await,
        }
    }

    async fn withdraw_any(&self, name: &RecordName) -> Result<Option<Vec<u8>>, Error> {
        match &self.0.backend {
            Backend::File(file) => file.take(name).await,
            Backend::Memory(memory) => Ok(memory.borrow_mut().take(name)),
            Backend::Redis(redis) => redis.take(name).await,
            #[cfg(test)]
            Backend::Simulated(place) => place.take(name).await,
        }
    }
}
