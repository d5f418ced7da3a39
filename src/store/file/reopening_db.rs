//! The operations on the thread of the file: each method is one transaction, done as a whole or not at all.

use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};

use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};

use super::super::envelope::{claims_end, envelope_version};
use super::super::error::Error;
use super::super::record::{Kind, RecordKey, RecordName, Version};
use crate::base::time::Now;

type SealedBytes = TableDefinition<'static, (&'static str, &'static [u8]), &'static [u8]>;

/// The metadata of the file, such as its schema number.
pub(super) const ABOUT: TableDefinition<'static, &'static str, u64> = TableDefinition::new("about");
/// Sealed records by kind and key.
pub(super) const RECORDS: SealedBytes = TableDefinition::new("records");
/// Records that could not be read, kept until their key is available.
pub(super) const ASIDE: SealedBytes = TableDefinition::new("aside");

const DAMAGED: &str = "the file of the store is damaged: restore it, or put it aside to start anew";

pub(super) type OpenFn = Box<dyn FnMut() -> Result<Database, Error> + Send>;

/// A database that is opened again after the disk has failed.
pub(super) struct ReopeningDb {
    open: OpenFn,
    database: Option<Database>,
}

impl ReopeningDb {
    pub(super) fn new(open: OpenFn) -> Self {
        Self { open, database: None }
    }

    /// Opens it, if it is not open.
    pub(super) fn ready(&mut self) -> Result<(), Error> {
        self.with(|_| Ok(()))
    }

    pub(super) fn get(&mut self, name: &RecordName) -> Result<Option<Vec<u8>>, Error> {
        self.with(|database| {
            let records = database.begin_read()?.open_table(RECORDS)?;
            Ok(records.get(at(name))?.map(|found| found.value().to_vec()))
        })
    }

    pub(super) fn set(&mut self, name: &RecordName, sealed: &[u8]) -> Result<(), Error> {
        self.with(|database| {
            let writing = database.begin_write()?;
            writing.open_table(RECORDS)?.insert(at(name), sealed)?;
            Ok(writing.commit()?)
        })
    }

    pub(super) fn replace(
        &mut self,
        name: &RecordName,
        expected: Option<Version>,
        sealed: &[u8],
        now: Now,
    ) -> Result<bool, Error> {
        self.with(|database| {
            let writing = database.begin_write()?;
            {
                let mut records = writing.open_table(RECORDS)?;
                // An expired record counts as absent, unless a version is expected.
                let there = |sealed: &[u8]| expected.is_some() || !claims_end(sealed, now);
                let found = records.get(at(name))?.filter(|found| there(found.value()));
                if found.map(|found| envelope_version(found.value())) != expected.map(Some) {
                    return Ok(false);
                }
                records.insert(at(name), sealed)?;
            }
            writing.commit()?;
            Ok(true)
        })
    }

    pub(super) fn take(&mut self, name: &RecordName) -> Result<Option<Vec<u8>>, Error> {
        self.with(|database| {
            let writing = database.begin_write()?;
            let found = writing.open_table(RECORDS)?.remove(at(name))?.map(|found| found.value().to_vec());
            writing.commit()?;
            Ok(found)
        })
    }

    pub(super) fn withdraw(&mut self, kind: Kind, those: &[(RecordKey, Version)]) -> Result<(), Error> {
        self.with(|database| {
            let writing = database.begin_write()?;
            {
                let mut records = writing.open_table(RECORDS)?;
                for (key, version) in those {
                    let place = (kind.name(), key.as_bytes());
                    let found = records.get(place)?.and_then(|found| envelope_version(found.value()));
                    if found == Some(*version) {
                        records.remove(place)?;
                    }
                }
            }
            Ok(writing.commit()?)
        })
    }

    pub(super) fn scan(
        &mut self,
        kind: Kind,
        after: Option<&RecordKey>,
        most: usize,
    ) -> Result<Vec<(RecordKey, Vec<u8>)>, Error> {
        self.with(|database| {
            let records = database.begin_read()?.open_table(RECORDS)?;
            let start = match after {
                Some(key) => Bound::Excluded((kind.name(), key.as_bytes())),
                None => Bound::Included((kind.name(), [].as_slice())),
            };
            let mut found = Vec::new();
            for entry in records.range::<(&str, &[u8])>((start, Bound::Unbounded))?.take(most) {
                let (place, sealed) = entry?;
                let (name, key) = place.value();
                if name != kind.name() {
                    break;
                }
                found.push((RecordKey::new(key), sealed.value().to_vec()));
            }
            Ok(found)
        })
    }

    pub(super) fn aside(&mut self) -> Result<Vec<(RecordName, Vec<u8>)>, Error> {
        self.with(|database| {
            let aside = database.begin_read()?.open_table(ASIDE)?;
            let mut found = Vec::new();
            for entry in aside.iter()? {
                let (place, sealed) = entry?;
                let (kind, key) = place.value();
                if let Some(kind) = Kind::named(kind) {
                    found.push((RecordName { kind, key: RecordKey::new(key) }, sealed.value().to_vec()));
                }
            }
            Ok(found)
        })
    }

    pub(super) fn set_aside(&mut self, name: &RecordName, sealed: &[u8]) -> Result<(), Error> {
        self.with(|database| {
            let writing = database.begin_write()?;
            writing.open_table(ASIDE)?.insert(at(name), sealed)?;
            {
                let mut records = writing.open_table(RECORDS)?;
                let same = records.get(at(name))?.is_some_and(|found| found.value() == sealed);
                if same {
                    records.remove(at(name))?;
                }
            }
            Ok(writing.commit()?)
        })
    }

    pub(super) fn restore(&mut self, name: &RecordName) -> Result<bool, Error> {
        self.with(|database| {
            let writing = database.begin_write()?;
            {
                let (mut records, mut aside) = (writing.open_table(RECORDS)?, writing.open_table(ASIDE)?);
                let Some(sealed) = aside.remove(at(name))?.map(|found| found.value().to_vec()) else {
                    return Ok(false);
                };
                if records.get(at(name))?.is_some() {
                    return Ok(false);
                }
                records.insert(at(name), sealed.as_slice())?;
            }
            writing.commit()?;
            Ok(true)
        })
    }

    fn with<T>(&mut self, work: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, Error> {
        let (open, kept) = (&mut self.open, self.database.take());
        // A corrupt page misleads redb, at times into a panic: that is damage like any other.
        let done = catch_unwind(AssertUnwindSafe(|| {
            let database = match kept {
                Some(database) => database,
                None => open()?,
            };
            match work(&database) {
                Ok(done) => Ok((done, database)),
                Err(error) => Err(said(&error)),
            }
        }));
        // Only a database that did what it was asked to is kept: after a failure redb wants to be opened again.
        let (done, database) = done.unwrap_or_else(|_| Err(Error::Unavailable(DAMAGED.to_owned())))?;
        self.database = Some(database);
        Ok(done)
    }
}

fn at(name: &RecordName) -> (&'static str, &[u8]) {
    (name.kind.name(), name.key.as_bytes())
}

fn said(error: &redb::Error) -> Error {
    use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull, UnexpectedEof};
    match error {
        redb::Error::Io(error) if matches!(error.kind(), FileTooLarge | QuotaExceeded | StorageFull) => {
            Error::Full(format!("the disk has no room for the store: {}", error.kind()))
        }
        redb::Error::Io(error) if error.kind() == UnexpectedEof => Error::Unavailable(DAMAGED.to_owned()),
        redb::Error::Io(error) => Error::Unavailable(format!("the disk of the store fails: {}", error.kind())),
        redb::Error::Corrupted(_) => Error::Unavailable(DAMAGED.to_owned()),
        other => {
            tracing::debug!(error = %other, "redb refuses");
            Error::Unavailable("the file of the store cannot be used".to_owned())
        }
    }
}
