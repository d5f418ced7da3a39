//! Records in the memory of this process: gone with it.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::envelope::{claims_end, envelope_version};
use super::error::Error;
use super::record::{Kind, RecordKey, RecordName, Version};
use crate::base::time::Now;

/// More records than this are a flood, not a load.
const MOST: usize = 100_000;

#[derive(Debug, Default)]
pub(super) struct MemoryStore {
    records: BTreeMap<RecordName, Vec<u8>>,
}

impl MemoryStore {
    pub(super) fn get(&self, name: &RecordName) -> Option<Vec<u8>> {
        self.records.get(name).cloned()
    }

    pub(super) fn set(&mut self, name: &RecordName, sealed: Vec<u8>, now: Now) -> Result<(), Error> {
        if self.records.len() >= MOST && !self.records.contains_key(name) {
            self.records.retain(|_, sealed| !claims_end(sealed, now));
            if self.records.len() >= MOST {
                return Err(Error::Full(format!("memory holds {MOST} records: use a `file:` or Redis in [store]")));
            }
        }
        self.records.insert(name.clone(), sealed);
        Ok(())
    }

    pub(super) fn replace(
        &mut self,
        name: &RecordName,
        expected: Option<Version>,
        sealed: Vec<u8>,
        now: Now,
    ) -> Result<bool, Error> {
        // An expired record counts as absent, unless a version is expected.
        let found = self.records.get(name).filter(|found| expected.is_some() || !claims_end(found, now));
        if found.is_some() != expected.is_some() || found.and_then(|found| envelope_version(found)) != expected {
            return Ok(false);
        }
        self.set(name, sealed, now).map(|()| true)
    }

    pub(super) fn take(&mut self, name: &RecordName) -> Option<Vec<u8>> {
        self.records.remove(name)
    }

    /// Removes those that are still this writing of the record.
    pub(super) fn withdraw(&mut self, kind: Kind, those: &[(RecordKey, Version)]) {
        for (key, version) in those {
            let name = RecordName { kind, key: key.clone() };
            if self.records.get(&name).and_then(|found| envelope_version(found)) == Some(*version) {
                self.records.remove(&name);
            }
        }
    }

    /// The first so many of a kind, by key, behind this one.
    pub(super) fn scan(&self, kind: Kind, after: Option<&RecordKey>, most: usize) -> Vec<(RecordKey, Vec<u8>)> {
        let start = match after {
            Some(key) => Bound::Excluded(RecordName { kind, key: key.clone() }),
            None => Bound::Included(RecordName { kind, key: RecordKey::new([].as_slice()) }),
        };
        let following = self.records.range((start, Bound::Unbounded));
        following
            .take_while(|(name, _)| name.kind == kind)
            .take(most)
            .map(|(name, sealed)| (name.key.clone(), sealed.clone()))
            .collect()
    }
}
