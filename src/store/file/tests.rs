//! The faults of a disk under a store: failure at any write, loss of power at any write, a full disk, damaged bytes.

use std::io;
use std::sync::{Arc, Mutex};

use redb::StorageBackend;

use super::super::envelope::KeyRing;
use super::super::record::{Kind, RecordKey, RecordName, Version};
use super::opening::open_on;
use super::reopening_db::ReopeningDb;
use crate::base::secret::SecretBox;
use crate::base::time::Now;
use crate::store::Error;

/// A disk in memory, with its moods.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    bytes: Vec<u8>,
    /// The content at the last sync: a crash may leave no more.
    synced: Vec<u8>,
    /// Writes and syncs that still succeed; absent: all.
    left: Option<usize>,
    /// True once a write has failed for lack of power: later writes store nothing.
    dark: bool,
    /// No longer than this.
    room: Option<u64>,
}

impl Disk {
    fn holding(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new(State { synced: bytes.clone(), bytes, ..State::default() })))
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        self.0.lock().expect("unpoisoned").bytes.clone()
    }

    /// Power fails after so many more writes; the last of them is done by half.
    fn fail_after(&self, left: Option<usize>) {
        let mut state = self.0.lock().expect("unpoisoned");
        (state.left, state.dark) = (left, false);
    }

    fn step(&self) -> io::Result<()> {
        let mut state = self.0.lock().expect("unpoisoned");
        match &mut state.left {
            None => Ok(()),
            Some(0) => Err(io::Error::other("no power")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
        }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().expect("unpoisoned").bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.0.lock().expect("unpoisoned");
        let from = usize::try_from(offset).expect("small");
        let bytes = state.bytes.get(from..from + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.step()?;
        let mut state = self.0.lock().expect("unpoisoned");
        if state.room.is_some_and(|room| len > room) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        state.bytes.resize(usize::try_from(len).expect("small"), 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.step()?;
        let mut state = self.0.lock().expect("unpoisoned");
        state.synced = state.bytes.clone();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let lost = self.0.lock().expect("unpoisoned").dark;
        let done = self.step();
        let mut state = self.0.lock().expect("unpoisoned");
        let from = usize::try_from(offset).expect("small");
        let kept = match &done {
            Ok(()) => data.len(),
            Err(_) if lost => 0,
            Err(_) => data.len() / 2,
        };
        state.dark = done.is_err();
        if let Some(place) = state.bytes.get_mut(from..from + kept) {
            place.copy_from_slice(&data[..kept]);
        }
        done
    }
}

pub(super) fn reopening(disk: &(impl StorageBackend + Clone)) -> ReopeningDb {
    let disk = disk.clone();
    ReopeningDb::new(Box::new(move || open_on(disk.clone())))
}

fn name(text: &str) -> RecordName {
    RecordName { kind: Kind::User, key: RecordKey::from(text) }
}

/// Some bytes that look like an envelope of this version.
fn sealed(version: u64, value: &[u8]) -> Vec<u8> {
    let ring = KeyRing::random().expect("a ring");
    ring.seal("ns", &name("alice"), &SecretBox::from(value.to_vec()), Version(version), None).expect("sealed")
}

// T31: a crash at any write leaves old or new, whole.
#[test]
fn power_may_fail_at_any_write() {
    let disk = Disk::default();
    let (old, new, other) = (sealed(1, b"old token"), sealed(2, b"the new token"), sealed(3, b"another"));
    {
        let mut database = reopening(&disk);
        database.set(&name("alice"), &old).expect("written");
        database.set(&name("bob"), &other).expect("written");
    }
    let before = disk.bytes();
    let (mut saw_old, mut saw_new) = (0, 0);
    for writes in 0.. {
        let disk = Disk::holding(before.clone());
        let mut first = reopening(&disk);
        first.ready().expect("opens");
        disk.fail_after(Some(writes));
        let reported = first.replace(&name("alice"), Some(Version(1)), &new, Now::at(0, 0));
        // A crash leaves the bytes that are on the disk at this moment, possibly without those that were not synced.
        let left = [disk.bytes(), disk.0.lock().expect("unpoisoned").synced.clone()];
        drop(first);
        for left in left {
            let mut second = reopening(&Disk::holding(left));
            let found = second.get(&name("alice")).unwrap_or_else(|error| panic!("after {writes} writes: {error}"));
            let found = found.expect("there is a record");
            assert!(found == old || found == new, "after {writes} writes: neither old nor new");
            assert_eq!(second.get(&name("bob")).expect("readable").as_ref(), Some(&other));
            if reported == Ok(true) {
                assert_eq!(found, new, "what was told to be written is there");
            }
            if found == old { saw_old += 1 } else { saw_new += 1 }
        }
        if reported == Ok(true) {
            break;
        }
        assert!(matches!(reported, Err(Error::Unavailable(_))), "{reported:?}");
        assert!(writes < 1000, "it never succeeds");
    }
    assert!(saw_old > 1 && saw_new > 0, "{saw_old} {saw_new}: the disk failed nowhere");
}

// T33: errors are told, nothing is torn, and it goes on when the disk does.
#[test]
fn a_disk_that_fails_and_comes_back_is_used_again() {
    let disk = Disk::default();
    let mut database = reopening(&disk);
    let (old, new) = (sealed(1, b"old"), sealed(2, b"new"));
    database.set(&name("alice"), &old).expect("written");
    disk.fail_after(Some(0));
    assert!(matches!(database.set(&name("alice"), &new), Err(Error::Unavailable(_))));
    assert!(matches!(database.set(&name("alice"), &new), Err(Error::Unavailable(_))), "still failing");
    disk.fail_after(None);
    assert_eq!(database.get(&name("alice")), Ok(Some(old)));
    database.set(&name("alice"), &new).expect("written again");
    assert_eq!(database.get(&name("alice")), Ok(Some(new)));
}

// T33.
#[test]
fn a_full_disk_is_told_as_such_and_what_is_there_stays() {
    let disk = Disk::default();
    let mut database = reopening(&disk);
    let old = sealed(1, b"old");
    database.set(&name("alice"), &old).expect("written");
    let room = disk.bytes().len() as u64;
    disk.0.lock().expect("unpoisoned").room = Some(room);
    let large = vec![7; 512 << 10];
    let mut full = None;
    for number in 0..200 {
        if let Err(error) = database.set(&name(&format!("user-{number}")), &large) {
            full = Some(error);
            break;
        }
    }
    assert!(matches!(full, Some(Error::Full(_))), "{full:?}");
    assert_eq!(database.get(&name("alice")), Ok(Some(old.clone())));
    disk.0.lock().expect("unpoisoned").room = None;
    database.set(&name("carol"), &large).expect("there is room again");
    assert_eq!(database.get(&name("alice")), Ok(Some(old)));
}
