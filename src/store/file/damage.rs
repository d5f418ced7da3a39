//! Exhaustive damage tests: every byte of a small store's file is flipped, and the file is cut at every length.
//!
//! Only three outcomes are permitted: the store reports that it cannot be used, or it names the records that it lost,
//! or every record reads as it was written. redb itself may panic over corrupt pages; that must appear as the first
//! outcome.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use redb::StorageBackend;
use tokio::task::LocalSet;

use super::FileStore;
use super::overlay::OverlayStorage;
use crate::base::secret::{ExposeSecret, SecretBox};
use crate::store::backend::Backend;
use crate::store::envelope::KeyRing;
use crate::store::{Error, Kind, RecordKey, Store};

const USERS: [&str; 3] = ["alice", "bob", "carol"];

/// Phrases of which the error about an unusable file must contain one. The data that marks the file as a store may be
/// damaged, too.
const CLEAR: [&str; 4] =
    ["damaged", "has another file format", "is not a store of countersign", "was written by a later version"];

/// Bytes at the start of a file that hold its layout and the position of its last two commits.
const HEADER: usize = 320;

/// A disk over a picture that many share.
type DamagedDisk = OverlayStorage<Arc<Vec<u8>>>;

fn flipped(picture: &Arc<Vec<u8>>, at: usize, mask: u8) -> DamagedDisk {
    let disk = OverlayStorage::of(picture.clone()).expect("in memory");
    disk.write(at as u64, &[picture[at] ^ mask]).expect("in memory");
    disk
}

fn cut(picture: &Arc<Vec<u8>>, len: usize) -> DamagedDisk {
    let disk = OverlayStorage::of(picture.clone()).expect("in memory");
    disk.set_len(len as u64).expect("in memory");
    disk
}

fn bytes(disk: &DamagedDisk) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(disk.len().expect("in memory")).expect("small")];
    disk.read(0, &mut bytes).expect("in memory");
    bytes
}

fn value(user: &str) -> Vec<u8> {
    format!("the refresh token of {user}").into_bytes()
}

/// The outcome that a user of the store meets.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum DamageOutcome {
    /// Every record reads as it was written.
    Whole,
    /// Records are named as damaged, and the others read.
    Named,
    /// The store says that it cannot be used.
    Refused,
    /// A record is missing, and no error reports it.
    Vanished,
}

/// Opens it, lists it, reads every record, writes one.
async fn visit(disk: &DamagedDisk, ring: &Arc<KeyRing>) -> Result<DamageOutcome, String> {
    let refused = |error: &Error| match error {
        Error::Unavailable(why) if CLEAR.iter().any(|clear| why.contains(clear)) => Ok(DamageOutcome::Refused),
        other => Err(format!("an unclear word: {other}")),
    };
    let before = bytes(disk);
    let opened = match FileStore::with(super::tests::reopening(disk)).await {
        Ok(file) => Store::over(Backend::File(file), ring.clone()).await,
        Err(error) => Err(error),
    };
    let store = match opened {
        Ok(store) => store,
        Err(error) if bytes(disk) == before => return refused(&error),
        Err(error) => return Err(format!("it was written to: {error}")),
    };
    let listing = match store.list(Kind::User).await {
        Ok(listing) => listing,
        Err(error) => return refused(&error),
    };
    let mut met = if listing.damaged.is_empty() { DamageOutcome::Whole } else { DamageOutcome::Named };
    for user in USERS {
        let key = RecordKey::from(user);
        match store.load(Kind::User, &key).await {
            Ok(Some(record)) if record.value.expose_secret() == value(user) => {}
            Ok(Some(_)) => return Err(format!("another's value for {user}")),
            Ok(None) if listing.damaged.iter().any(|damaged| damaged.name.key == key) => {}
            Ok(None) => met = met.max(DamageOutcome::Vanished),
            Err(Error::Damaged(_)) => met = met.max(DamageOutcome::Named),
            Err(error) => return refused(&error),
        }
    }
    let dave = RecordKey::from("dave");
    match store.put(Kind::User, &dave, &SecretBox::from(value("dave")), None).await {
        Ok(_) => match store.load(Kind::User, &dave).await {
            Ok(Some(record)) if record.value.expose_secret() == value("dave") => Ok(met),
            Ok(_) => Err("what was written is not there".to_owned()),
            Err(error) => refused(&error),
        },
        Err(error) => refused(&error),
    }
}

/// A store of three users in a file that was closed properly, and its key.
fn picture() -> (Arc<Vec<u8>>, Arc<KeyRing>) {
    let ring = Arc::new(KeyRing::random().expect("a ring"));
    let disk = super::tests::Disk::default();
    local(async {
        let file = FileStore::with(super::tests::reopening(&disk)).await.expect("opens");
        let store = Store::over(Backend::File(file), ring.clone()).await.expect("opens");
        for user in USERS {
            store.put(Kind::User, &RecordKey::from(user), &SecretBox::from(value(user)), None).await.expect("put");
        }
    });
    let picture = Arc::new(disk.bytes());
    assert_eq!(local(visit(&cut(&picture, picture.len()), &ring)), Ok(DamageOutcome::Whole));
    (picture, ring)
}

fn local<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    LocalSet::new().block_on(&runtime, work)
}

/// Visits each of them, on every core. Returns how often each outcome was met.
fn visit_all(
    all: Range<usize>,
    ring: &Arc<KeyRing>,
    disk: impl Fn(usize) -> DamagedDisk + Sync,
) -> BTreeMap<DamageOutcome, usize> {
    let (next, met) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                local(async {
                    while let Some(at) = all.clone().nth(next.fetch_add(1, Ordering::Relaxed)) {
                        let here = visit(&disk(at), ring).await.unwrap_or_else(|why| panic!("at {at}: {why}"));
                        assert_ne!(here, DamageOutcome::Vanished, "at {at}");
                        *met.lock().expect("unpoisoned").entry(here).or_default() += 1;
                    }
                });
            });
        }
    });
    met.into_inner().expect("unpoisoned")
}

// T32, F18.
#[test]
fn every_byte_of_a_file_may_be_flipped_once() {
    let (picture, ring) = picture();
    // All of its bits, in the header each alone as well: flags stand there.
    let met = visit_all(0..picture.len(), &ring, |at| flipped(&picture, at, 0xff));
    let bits = visit_all(0..HEADER * 8, &ring, |at| flipped(&picture, at / 8, 1 << (at % 8)));
    assert!(met.get(&DamageOutcome::Refused).is_some_and(|refused| *refused > 1000), "{met:?}: nothing was damaged");
    assert!(met.get(&DamageOutcome::Whole).is_some_and(|whole| *whole > 1000), "{met:?}: it reads more than it needs");
    assert!(bits.get(&DamageOutcome::Refused).is_some_and(|refused| *refused > 1000), "{bits:?}");
}

// T32, F18. A file of no bytes is refused before it is opened: see `a_file_that_cannot_be_used_says_why`.
#[test]
fn a_file_may_be_cut_anywhere() {
    let (picture, ring) = picture();
    let met = visit_all(1..picture.len(), &ring, |len| cut(&picture, len));
    assert_eq!(met, BTreeMap::from([(DamageOutcome::Refused, picture.len() - 1)]));
}
