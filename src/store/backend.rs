//! The backends of a store, and their differences: no other file of this module tells one from another.

use std::cell::RefCell;
use std::time::Duration;

use super::changes::{Change, ChangeNotifier, Claim, Lock, Locks};
use super::error::Error;
use super::file::FileStore;
use super::memory::MemoryStore;
use super::quota_call::QuotaCall;
use super::record::{Kind, RecordKey, RecordName, Version};
use super::redis::{Patience, RedisStore, ScanPlace};
#[cfg(test)]
use super::simulated::SimulatedStore;
use super::store_settings::StoreSettings;
use crate::base::time::Clock;

/// A place of sealed records. It opens no seal and judges no expiry, except where a write depends on it.
#[derive(Debug)]
pub(super) enum Backend {
    File(FileStore),
    Memory(RefCell<MemoryStore>),
    Redis(Box<RedisStore>),
    #[cfg(test)]
    Simulated(SimulatedStore),
}

/// The position at which a walk continues.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WalkCursor(WalkPosition);

/// A place in the order that a backend has.
#[derive(Clone, Debug, Eq, PartialEq)]
enum WalkPosition {
    /// The position behind this key, in key order.
    After(RecordKey),
    /// Where a walk through Redis goes on.
    Scan(ScanPlace),
}

/// The records of a page, still sealed, and the position at which the walk continues.
pub(super) type SealedPage = (Vec<(RecordKey, Vec<u8>)>, Option<WalkCursor>);

impl Backend {
    /// Opens a file now; connects to a Redis in the background, whose announcements then go to `notifier`.
    pub(super) async fn open(
        settings: &StoreSettings,
        patience: Patience,
        clock: Clock,
        notifier: ChangeNotifier,
    ) -> Result<Self, Error> {
        Ok(match settings {
            StoreSettings::File { path, .. } => Self::File(FileStore::open(path.clone()).await?),
            StoreSettings::Memory => Self::Memory(RefCell::default()),
            StoreSettings::Redis(redis) => {
                Self::Redis(Box::new(RedisStore::open(redis.clone(), patience, clock, notifier)))
            }
        })
    }

    /// Waits until the backend answers, or for `within`.
    pub(super) async fn reach(&self, within: Duration) -> Result<(), Error> {
        match self {
            Self::File(_) | Self::Memory(_) => Ok(()),
            Self::Redis(redis) => redis.reach(within).await,
            #[cfg(test)]
            Self::Simulated(_) => Ok(()),
        }
    }

    /// Returns its kind, as [`StoreSettings::kind`] does.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::File(_) => "file",
            Self::Memory(_) => "memory",
            Self::Redis(_) => "redis",
            #[cfg(test)]
            Self::Simulated(simulated) => simulated.kind(),
        }
    }

    /// Returns whether records are kept when the process ends.
    pub(super) fn outlives(&self) -> bool {
        match self {
            Self::File(_) | Self::Redis(_) => true,
            Self::Memory(_) => false,
            #[cfg(test)]
            Self::Simulated(_) => true,
        }
    }

    /// Returns whether other instances see what is written here.
    pub(super) fn is_shared(&self) -> bool {
        match self {
            Self::File(_) | Self::Memory(_) => false,
            Self::Redis(_) => true,
            #[cfg(test)]
            Self::Simulated(simulated) => simulated.is_shared(),
        }
    }

    /// Returns whether the backend removes expired records by itself.
    pub(super) fn removes_expired(&self) -> bool {
        match self {
            Self::File(_) | Self::Memory(_) => false,
            Self::Redis(_) => true,
            #[cfg(test)]
            Self::Simulated(_) => false,
        }
    }

    /// Returns whether damaged records are moved to a place of their own. Such a store is looked through when it is
    /// opened.
    pub(super) fn sets_aside(&self) -> bool {
        match self {
            Self::File(_) => true,
            Self::Memory(_) | Self::Redis(_) => false,
            #[cfg(test)]
            Self::Simulated(_) => false,
        }
    }

    pub(super) async fn get(&self, name: &RecordName) -> Result<Option<Vec<u8>>, Error> {
        match self {
            Self::File(file) => file.get(name).await,
            Self::Memory(memory) => Ok(memory.borrow().get(name)),
            Self::Redis(redis) => redis.get(name).await,
            #[cfg(test)]
            Self::Simulated(simulated) => simulated.get(name).await,
        }
    }

    pub(super) async fn set(
        &self,
        name: &RecordName,
        sealed: Vec<u8>,
        expiry: Option<u64>,
        clock: &Clock,
    ) -> Result<(), Error> {
        match self {
            Self::File(file) => file.set(name, sealed).await,
            Self::Memory(memory) => memory.borrow_mut().set(name, sealed, clock.now()),
            Self::Redis(redis) => redis.set(name, sealed, expiry).await,
            #[cfg(test)]
            Self::Simulated(simulated) => simulated.set(name, sealed, expiry).await,
        }
    }

    /// Writes a record if `expected` is there; `None`: if nothing is, or an expired record. Returns whether it did.
    pub(super) async fn replace(
        &self,
        name: &RecordName,
        expected: Option<Version>,
        sealed: Vec<u8>,
        expiry: Option<u64>,
        clock: &Clock,
    ) -> Result<bool, Error> {
        match self {
            Self::File(file) => file.replace(name, expected, sealed, clock.now()).await,
            Self::Memory(memory) => memory.borrow_mut().replace(name, expected, sealed, clock.now()),
            Self::Redis(redis) => redis.replace(name, expected, sealed, expiry).await,
            #[cfg(test)]
            Self::Simulated(simulated) => simulated.replace(name, expected, sealed, expiry).await,
        }
    }

    /// Reads a record and removes it, in one step.
    pub(super) async fn take(&self, name: &RecordName) -> Result<Option<Vec<u8>>, Error> {
        match self {
            Self::File(file) => file.take(name).await,
            Self::Memory(memory) => Ok(memory.borrow_mut().take(name)),
            Self::Redis(redis) => redis.take(name).await,
            #[cfg(test)]
            Self::Simulated(simulated) => simulated.take(name).await,
        }
    }

    /// Removes those records that still have this version.
    pub(super) async fn withdraw(&self, kind: Kind, those: Vec<(RecordKey, Version)>) -> Result<(), Error> {
        match self {
            Self::File(_) if those.is_empty() => Ok(()),
            Self::File(file) => file.withdraw(kind, those).await,
            Self::Memory(memory) => {
                memory.borrow_mut().withdraw(kind, &those);
                Ok(())
            }
            Self::Redis(redis) => {
                for (key, version) in those {
                    redis.withdraw(&RecordName { kind, key }, version).await?;
                }
                Ok(())
            }
            #[cfg(test)]
            Self::Simulated(simulated) => simulated.withdraw(kind, &those).await,
        }
    }

    /// Returns the next records of a kind, `most` or about so many.
    pub(super) async fn scan(&self, kind: Kind, from: Option<&WalkCursor>, most: usize) -> Result<SealedPage, Error> {
        let (after, place) = match from {
            None => (None, ScanPlace::default()),
            Some(WalkCursor(WalkPosition::After(key))) => (Some(key), ScanPlace::default()),
            Some(WalkCursor(WalkPosition::Scan(place))) => (None, *place),
        };
        let found = match self {
            Self::File(file) => file.scan(kind, after, most).await?,
            Self::Memory(memory) => memory.borrow().scan(kind, after, most),
            Self::Redis(redis) => {
                let (found, next) = redis.scan(kind, place, most).await?;
                return Ok((found, next.map(|place| WalkCursor(WalkPosition::Scan(place)))));
            }
            #[cfg(test)]
            Self::Simulated(simulated) => simulated.scan(kind, after, most).await?,
        };
        let last = found.last().filter(|_| found.len() == most);
        let next = last.map(|(key, _)| WalkCursor(WalkPosition::After(key.clone())));
        Ok((found, next))
    }

    /// Returns the records that were set aside, still sealed.
    pub(super) async fn aside(&self) -> Result<Vec<(RecordName, Vec<u8>)>, Error> {
        match self {
            Self::File(file) => file.aside().await,
            Self::Memory(_) | Self::Redis(_) => Ok(Vec::new()),
            #[cfg(test)]
            Self::Simulated(_) => Ok(Vec::new()),
        }
    }

    /// Moves a damaged record aside. Redis keeps it where it is: another instance may have the key.
    pub(super) async fn set_aside(&self, name: &RecordName, sealed: Vec<u8>) -> Result<(), Error> {
        match self {
            Self::File(file) => file.set_aside(name, sealed).await,
            Self::Memory(_) | Self::Redis(_) => Ok(()),
            #[cfg(test)]
            Self::Simulated(_) => Ok(()),
        }
    }

    /// Moves a record back that was set aside, unless another has taken its place. Returns whether it did.
    pub(super) async fn restore(&self, name: &RecordName) -> Result<bool, Error> {
        match self {
            Self::File(file) => file.restore(name).await,
            Self::Memory(_) | Self::Redis(_) => Ok(false),
            #[cfg(test)]
            Self::Simulated(_) => Ok(false),
        }
    }

    /// Takes a lock among all instances, or among the tasks of this process if it alone uses the store.
    pub(super) async fn lock(
        &self,
        claim: &Claim,
        lease: Duration,
        local: &RefCell<Locks>,
        clock: &Clock,
    ) -> Result<Option<Lock>, Error> {
        match self {
            Self::File(_) | Self::Memory(_) => Ok(local.borrow_mut().lock(claim, lease, clock.now())),
            Self::Redis(redis) => redis.lock(claim, lease).await,
            #[cfg(test)]
            Self::Simulated(simulated) if simulated.is_shared() => simulated.lock(claim, lease).await,
            #[cfg(test)]
            Self::Simulated(_) => Ok(local.borrow_mut().lock(claim, lease, clock.now())),
        }
    }

    /// Gives a lock back. Returns whether it was still held.
    pub(super) async fn unlock(&self, lock: &Lock, local: &RefCell<Locks>, clock: &Clock) -> Result<bool, Error> {
        match self {
            Self::File(_) | Self::Memory(_) => Ok(local.borrow_mut().unlock(lock, clock.now())),
            Self::Redis(redis) => redis.unlock(lock).await,
            #[cfg(test)]
            Self::Simulated(simulated) if simulated.is_shared() => simulated.unlock(lock).await,
            #[cfg(test)]
            Self::Simulated(_) => Ok(local.borrow_mut().unlock(lock, clock.now())),
        }
    }

    /// Gives the lock of a claim back in the background, should it hold one. Within this process no answer gets lost.
    pub(super) fn leave_lock(&self, claim: &Claim) {
        match self {
            Self::File(_) | Self::Memory(_) => {}
            Self::Redis(redis) => redis.leave_lock(claim),
            #[cfg(test)]
            Self::Simulated(simulated) => simulated.leave_lock(claim),
        }
    }

    /// Counts requests in a window that all instances share; there is none where the store is not shared.
    pub(super) async fn claim_quota(&self, key: &str, claim: &QuotaCall) -> Result<(u64, u64), Error> {
        match self {
            Self::File(_) | Self::Memory(_) => Err(Error::Unavailable("the store is not shared".to_owned())),
            Self::Redis(redis) => redis.claim_quota(key, claim).await,
            #[cfg(test)]
            Self::Simulated(_) => Err(Error::Unavailable("the simulated store has no quotas".to_owned())),
        }
    }

    /// Announces a changed record to all instances, or to the tasks of this process if it alone uses the store.
    pub(super) async fn announce(&self, name: RecordName, local: &ChangeNotifier) -> Result<(), Error> {
        match self {
            Self::File(_) | Self::Memory(_) => {
                local.notify(Change::Record(name));
                Ok(())
            }
            Self::Redis(redis) => redis.announce(&name).await,
            #[cfg(test)]
            Self::Simulated(simulated) if simulated.is_shared() => simulated.announce(&name).await,
            #[cfg(test)]
            Self::Simulated(_) => {
                local.notify(Change::Record(name));
                Ok(())
            }
        }
    }

    /// Begins to receive the announcements of other instances, once.
    pub(super) fn listen(&self) {
        match self {
            Self::File(_) | Self::Memory(_) => {}
            Self::Redis(redis) => redis.listen(),
            #[cfg(test)]
            Self::Simulated(_) => {}
        }
    }
}
