//! Records in the memory of this process: gone with it.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::envelope::{claimed_version, claims_end};
use super::error::Error;
use super::record::{Key, Kind, Name, Version};
use crate::base::time::Now;

/// More records than this are a flood, not a load.
const MOST: usize = 100_000;

#[derive(Debug, Default)]
pub(super) struct Memory {
    records: BTreeMap<Name, Vec<u8>>,
}

impl Memory {
    pub(super) fn get(&self, name: &Name) -> Option<Vec<u8>> {
        self.records.get(name).cloned()
    }

    pub(super) fn set(&mut self, name: &Name, sealed: Vec<u8>, now: Now) -> Result<(), Error> {
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
        name: &Name,
        expected: Option<Version>,
        sealed: Vec<u8>,
        now: Now,
    ) -> Result<bool, Error> {
        // What has ended is not there.
        let found = self.records.get(name).filter(|found| expected.is_some() || !claims_end(found, now));
        if found.is_some() != expected.is_some() || found.and_then(|found| claimed_version(found)) != expected {
            return Ok(false);
        }
        self.set(name, sealed, now).map(|()| true)
    }

    pub(super) fn take(&mut self, name: &Name) -> Option<Vec<u8>> {
        self.records.remove(name)
    }

    /// Removes those that are still this writing of the record.
    pub(super) fn withdraw(&mut self, kind: Kind, those: &[(Key, Version)]) {
        for (key, version) in those {
            let name = Name { kind, key: key.clone() };
            if self.records.get(&name).and_then(|found| claimed_version(found)) == Some(*version) {
                self.records.remove(&name);
            }
        }
    }

    /// The first so many of a kind, by key, behind this one.
    pub(super) fn scan(&self, kind: Kind, after: Option<&Key>, most: usize) -> Vec<(Key, Vec<u8>)> {
        let start = match after {
            Some(key) => Bound::Excluded(Name { kind, key: key.clone() }),
            None => Bound::Included(Name { kind, key: Key::new([].as_slice()) }),
        };
        let following = self.records.range((start, Bound::Unbounded));
        following
            .take_while(|(name, _)| name.kind == kind)
            .take(most)
            .map(|(name, sealed)| (name.key.clone(), sealed.clone()))
            .collect()
    }
}
