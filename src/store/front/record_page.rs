//! Looking through a store: a page at a time, so that nothing grows with the number of records, and everything else on
//! the control thread has its turn in between.

use std::collections::BTreeMap;

use super::Store;
use crate::base::planted::{PlantedFault, planted};
use crate::store::backend::WalkCursor;
use crate::store::error::{Damaged, Error};
use crate::store::record::{Kind, Listing, RecordEntry, RecordKey, RecordName, StoredRecord};

/// Records of one page, as many as are opened without a pause: a millisecond or two.
const PAGE: usize = 256;

/// Some records of one kind. A record that is there all the while comes at least once; one that is written, removed or
/// made meanwhile may come or not. From Redis it may come twice.
#[derive(Debug, Default)]
pub struct RecordPage {
    /// Those that can be read and have not ended, in no order.
    pub records: Vec<(RecordKey, StoredRecord)>,
    /// Those that cannot be read.
    pub damaged: Vec<Damaged>,
    /// The beginning of the next page; `None`: this is the last one.
    pub next: Option<WalkCursor>,
}

/// The result of a re-encryption.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Rekeyed {
    /// Records that are under the first key now.
    pub resealed: usize,
    /// Records that were under the first key already.
    pub already: usize,
    /// Records that somebody wrote meanwhile: another run finds them.
    pub moved: usize,
    /// Records that cannot be read.
    pub damaged: Vec<Damaged>,
}

impl Store {
    /// Returns the next records of a kind, some hundreds at a time. Expired records are left out. An error concerns
    /// this page alone: it may be requested again.
    pub async fn page(&self, kind: Kind, from: Option<&WalkCursor>) -> Result<RecordPage, Error> {
        let (found, next) = self.0.backend.scan(kind, from, PAGE).await?;
        let mut page = RecordPage { next, ..RecordPage::default() };
        for (key, sealed) in found {
            let name = RecordName { kind, key };
            match self.unseal(&name, &sealed) {
                Ok(record) if self.has_ended(&record) => {
                    if planted(PlantedFault::ClockRemoves) {
                        self.0.backend.take(&name).await?;
                    }
                }
                Ok(record) => page.records.push((name.key, record)),
                Err(damaged) => {
                    self.set_aside(&damaged, sealed).await;
                    page.damaged.push(damaged);
                }
            }
        }
        // Memory never waits, and a file's thread may be faster than its question.
        tokio::task::yield_now().await;
        Ok(page)
    }

    /// Removes what ended before this moment, in milliseconds since 1970, a page in one step. Redis does so by itself. Says
    /// how many there were.
    pub async fn sweep(&self, before: u64) -> Result<usize, Error> {
        if self.0.backend.removes_expired() {
            return Ok(0);
        }
        let mut count = 0;
        for kind in Kind::ALL {
            let mut from = None;
            loop {
                let (found, next) = self.0.backend.scan(kind, from.as_ref(), PAGE).await?;
                // An unreadable record is left to its next reader.
                let read = found
                    .into_iter()
                    .map(|(key, sealed)| (self.unseal(&RecordName { kind, key: key.clone() }, &sealed), key));
                let read = read.filter_map(|(record, key)| Some((key, record.ok()?)));
                let ended = read.filter(|(_, record)| record.expiry.is_some_and(|expiry| expiry < before));
                let ended: Vec<_> = ended.map(|(key, record)| (key, record.version)).collect();
                count += ended.len();
                self.0.backend.withdraw(kind, ended).await?;
                tokio::task::yield_now().await;
                from = next;
                if from.is_none() {
                    break;
                }
            }
        }
        Ok(count)
    }

    /// All records of a kind, without their values. It grows with their number: to look at each, use
    /// [`page`](Self::page).
    pub async fn list(&self, kind: Kind) -> Result<Listing, Error> {
        let (mut entries, mut damaged, mut from) = (BTreeMap::new(), Vec::new(), None);
        loop {
            let page = self.page(kind, from.as_ref()).await?;
            damaged.extend(page.damaged);
            entries.extend(page.records.into_iter().map(|(key, record)| (key, (record.expiry, record.version))));
            from = page.next;
            if from.is_none() {
                break;
            }
        }
        damaged.extend(self.aside().await?.into_iter().filter(|damaged| damaged.name.kind == kind));
        damaged.sort();
        damaged.dedup();
        let entries = entries.into_iter().map(|(key, (expiry, version))| RecordEntry { key, expiry, version });
        Ok(Listing { entries: entries.collect(), damaged })
    }

    /// Seals every record under the first key, each in one step, while others go on reading and writing.
    pub async fn rekey(&self) -> Result<Rekeyed, Error> {
        let mut done = Rekeyed::default();
        for kind in Kind::ALL {
            let mut from = None;
            loop {
                let (found, next) = self.0.backend.scan(kind, from.as_ref(), PAGE).await?;
                for (key, sealed) in found {
                    self.reseal(&RecordName { kind, key }, &sealed, &mut done).await?;
                }
                from = next;
                if from.is_none() {
                    break;
                }
            }
        }
        done.damaged.extend(self.aside().await?);
        done.damaged.sort();
        done.damaged.dedup();
        Ok(done)
    }

    async fn reseal(&self, name: &RecordName, sealed: &[u8], done: &mut Rekeyed) -> Result<(), Error> {
        match self.unseal(name, sealed) {
            Ok(_) if self.ring().is_first(sealed) => done.already += 1,
            Ok(StoredRecord { value, expiry, version }) => {
                let renewed = self.ring().seal(&self.0.namespace, name, &value, version, expiry)?;
                // The value is unchanged, so the version stays the same, and no swap fails because of this write.
                match self.0.backend.replace(name, Some(version), renewed, expiry, &self.0.clock).await? {
                    true => done.resealed += 1,
                    false => done.moved += 1,
                }
            }
            Err(damaged) => done.damaged.push(damaged),
        }
        Ok(())
    }

    /// Looks through a store that was just opened, if damaged records have a place of their own: what cannot be read is
    /// set aside, and what was set aside and can be read now, because its key has come back, returns.
    pub(super) async fn survey(&self) -> Result<(), Error> {
        if !self.0.backend.sets_aside() {
            return Ok(());
        }
        for (name, sealed) in self.0.backend.aside().await? {
            if self.unseal(&name, &sealed).is_ok() && self.0.backend.restore(&name).await? {
                tracing::info!(record = %name, "a record of the store can be read again");
            }
        }
        for kind in Kind::ALL {
            let mut from = None;
            loop {
                from = self.page(kind, from.as_ref()).await?.next;
                if from.is_none() {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Returns the records that were set aside and still cannot be read.
    async fn aside(&self) -> Result<Vec<Damaged>, Error> {
        let aside = self.0.backend.aside().await?;
        Ok(aside.into_iter().filter_map(|(name, sealed)| self.unseal(&name, &sealed).err()).collect())
    }
}
