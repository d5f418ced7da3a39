//! The store: what it promises in every place, and what each place may do to it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign::base::secret::{ExposeSecret, SecretBox, SecretString};
use countersign::base::time::{Clock, ManualClock, Now, Stopwatch};
use countersign::config::{InMemory, MachineFiles, Storage, build};
use countersign::sim::{LeafSpec, SimAuthority};
use countersign::store::{
    Change, Damage, Error, IamLogin, IamService, KeyRing, Kind, Patience, RecordKey, RedisAddress, RedisLogin,
    RedisSettings, RedisTopology, SealingKey, Store, StoreSettings, StoreUrl,
};
use futures_util::future::join_all;
use tokio::task::LocalSet;

use crate::client::PATIENCE;
use crate::redis_group::{ClusterGroup, SERVICE, SentinelGroup};
use crate::redis_server::{Mood, RedisServer, Relay};

const VALUE: &[u8] = b"canary-refresh-token-7Hq2";
const LEASE: Duration = Duration::from_secs(60);

fn local<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let test = async { tokio::time::timeout(PATIENCE * 2, test).await.expect("the test hangs") };
    LocalSet::new().block_on(&runtime, test)
}

fn secret(bytes: &[u8]) -> SecretBox<[u8]> {
    SecretBox::from(bytes.to_vec())
}

fn base64(byte: u8) -> String {
    STANDARD.encode([byte; 32])
}

fn ring(bytes: &[u8]) -> Arc<KeyRing> {
    let key = |byte: &u8| SealingKey::from_base64(&SecretString::from(base64(*byte))).expect("a key");
    Arc::new(KeyRing::new(key(&bytes[0]), bytes[1..].iter().map(key).collect()))
}

fn in_file(path: &Path, keys: &[u8]) -> StoreSettings {
    StoreSettings::File { path: path.to_owned(), ring: ring(keys) }
}

fn redis(port: u16) -> RedisSettings {
    RedisSettings {
        topology: RedisTopology::Single(RedisAddress { host: "127.0.0.1".to_owned(), port }),
        database: 0,
        tls: None,
        login: RedisLogin::Nobody,
        sentinel_login: RedisLogin::Nobody,
        namespace: "countersign".to_owned(),
        wait_replicas: 0,
        ring: ring(&[1]),
    }
}

fn password(username: Option<&str>, password: &str) -> RedisLogin {
    let password = SecretString::from(password.to_owned());
    RedisLogin::Password { username: username.map(str::to_owned), password }
}

/// What `url` of `[store]` leads to.
fn led_to(url: &str) -> RedisSettings {
    let StoreUrl::Redis { topology, database, .. } = StoreUrl::parse(url).expect("a URL") else { panic!("no Redis") };
    RedisSettings { topology, database, wait_replicas: 1, ..redis(0) }
}

/// Longer than any loaded machine needs, with short rests.
fn patient() -> Patience {
    let mut patience = Patience::of_a_person();
    patience.rest.first = Duration::from_millis(5);
    patience.rest.ceiling = Duration::from_millis(20);
    patience
}

async fn open(wish: &StoreSettings) -> Store {
    let store = Store::open(wish, patient(), Clock::System).await.unwrap_or_else(|error| panic!("{error}"));
    store.reach(PATIENCE).await.unwrap_or_else(|error| panic!("{error}"));
    store
}

async fn refused(wish: &StoreSettings) -> String {
    match Store::open(wish, patient(), Clock::System).await {
        Ok(_) => panic!("it opens"),
        Err(Error::Unavailable(why)) => why,
        Err(other) => panic!("{other:?}"),
    }
}

async fn value(store: &Store, kind: Kind, key: &str) -> Option<Vec<u8>> {
    let record = store.load(kind, &RecordKey::from(key)).await.unwrap_or_else(|error| panic!("{error}"))?;
    Some(record.value.expose_secret().to_vec())
}

/// What every place promises.
async fn contract(store: &Store) {
    let (key, new) = (RecordKey::from("acme/scb/alice:x"), secret(b"new"));
    let later = Clock::System.now().wall + 3_600_000;
    assert!(store.load(Kind::User, &key).await.expect("asked").is_none());
    // Put, and read in every detail.
    let first = store.put(Kind::User, &key, &secret(VALUE), Some(later)).await.expect("put");
    let record = store.load(Kind::User, &key).await.expect("asked").expect("there");
    assert_eq!(record.value.expose_secret(), VALUE);
    assert_eq!((record.version, record.expiry), (first, Some(later)));
    assert!(store.load(Kind::Pending, &key).await.expect("asked").is_none(), "kinds are apart");
    // T31: of two who rotate, one wins, and the loser reads again.
    let second = store.swap(Kind::User, &key, Some(first), &new, Some(later)).await.expect("swapped");
    assert_ne!(first, second);
    let lost = store.swap(Kind::User, &key, Some(first), &secret(b"lost"), None).await;
    assert_eq!(lost.expect_err("it was written meanwhile"), Error::Conflict);
    assert_eq!(store.swap(Kind::User, &key, None, &new, None).await.expect_err("there is one"), Error::Conflict);
    assert_eq!(value(store, Kind::User, "acme/scb/alice:x").await.as_deref(), Some(b"new".as_slice()));
    let bob = RecordKey::from("bob");
    assert_eq!(store.swap(Kind::User, &bob, Some(first), &new, None).await.expect_err("none"), Error::Conflict);
    let version = store.swap(Kind::User, &bob, None, &secret(b""), None).await.expect("the first");
    assert_eq!(value(store, Kind::User, "bob").await.as_deref(), Some(b"".as_slice()), "an empty value is one");
    // A record that was removed and came back is another.
    assert!(store.remove(Kind::User, &bob).await.expect("removed"));
    assert!(!store.remove(Kind::User, &bob).await.expect("nothing to remove"));
    store.put(Kind::User, &bob, &new, None).await.expect("put");
    assert_eq!(store.swap(Kind::User, &bob, Some(version), &new, None).await.expect_err("other"), Error::Conflict);
    // Any bytes make a key.
    let bytes = RecordKey::new([0_u8, 255, b':', b'*', b'\n'].as_slice());
    store.put(Kind::Application, &bytes, &new, None).await.expect("put");
    assert_eq!(store.list(Kind::Application).await.expect("listed").entries[0].key, bytes);
    let users = store.list(Kind::User).await.expect("listed");
    let keys: Vec<String> = users.entries.iter().map(|entry| entry.key.to_string()).collect();
    assert_eq!(keys, ["acme/scb/alice:x", "bob"]);
    assert_eq!((users.entries[0].expiry, users.entries[1].expiry), (Some(later), None));
    assert_eq!((users.entries[0].version, users.damaged.len()), (second, 0));
    // Taken once.
    let state = RecordKey::from("state");
    store.put(Kind::Pending, &state, &secret(VALUE), Some(later)).await.expect("put");
    let taken = store.take(Kind::Pending, &state).await.expect("taken").expect("there");
    assert_eq!(taken.value.expose_secret(), VALUE);
    assert!(store.take(Kind::Pending, &state).await.expect("asked").is_none());
    // What has ended is not there.
    store.put(Kind::Pending, &state, &secret(VALUE), Some(1)).await.expect("put");
    assert!(store.load(Kind::Pending, &state).await.expect("asked").is_none());
    store.put(Kind::Pending, &state, &secret(VALUE), Some(1)).await.expect("put");
    assert!(store.take(Kind::Pending, &state).await.expect("asked").is_none());
    store.put(Kind::Pending, &state, &secret(VALUE), Some(1)).await.expect("put");
    assert_eq!(store.list(Kind::Pending).await.expect("listed").entries, []);
    store.swap(Kind::Pending, &state, None, &new, None).await.expect("its place is free");
    assert!(store.remove(Kind::Pending, &state).await.expect("removed"));
    // Locks exclude, and their numbers grow.
    let lock = store.lock(&key, LEASE).await.expect("asked").expect("free");
    assert!(store.lock(&key, LEASE).await.expect("asked").is_none());
    let other = store.lock(&bob, LEASE).await.expect("asked").expect("another key is free");
    let before = lock.fence;
    assert!(other.fence > before);
    assert!(store.unlock(lock).await.expect("asked"));
    let lock = store.lock(&key, LEASE).await.expect("asked").expect("free again");
    assert!(lock.fence > before);
    assert!(store.unlock(lock).await.expect("asked") && store.unlock(other).await.expect("asked"));
    // Too much is refused before it is sent.
    let large = secret(&vec![0; (1 << 20) + 1]);
    assert!(matches!(store.put(Kind::User, &key, &large, None).await, Err(Error::Full(_))));
}

/// Walks through a thousand records while others write.
async fn walked(store: &Store) {
    let name = |number: u32| RecordKey::from(format!("user-{number:04}").as_str());
    for number in 0..1000 {
        store.put(Kind::User, &name(number), &secret(&number.to_be_bytes()), None).await.expect("put");
    }
    store.put(Kind::Pending, &name(1), &secret(VALUE), None).await.expect("put");
    store.put(Kind::Application, &name(1), &secret(VALUE), None).await.expect("put");
    let (mut seen, mut from, mut pages) = (std::collections::BTreeSet::new(), None, 0);
    loop {
        let page = store.page(Kind::User, from.as_ref()).await.expect("a page");
        assert!(page.records.len() <= 600 && page.damaged.is_empty(), "{}", page.records.len());
        for (key, record) in page.records {
            let text = key.to_string();
            if text.starts_with("user-") {
                let number: u32 = text.trim_start_matches("user-").parse().expect("a number");
                assert_eq!(record.value.expose_secret(), number.to_be_bytes());
                seen.insert(number);
            }
        }
        // One goes that may or may not be told, and one comes; nobody else is missed for it.
        store.remove(Kind::User, &name(3 * pages)).await.expect("removed");
        store
            .put(Kind::User, &RecordKey::from(format!("later-{pages}").as_str()), &secret(b""), None)
            .await
            .expect("put");
        pages += 1;
        from = page.next;
        if from.is_none() {
            break;
        }
    }
    assert!(pages >= 4, "{pages} pages");
    let missed: Vec<u32> = (0..1000).filter(|number| !seen.contains(number) && number % 3 != 0).collect();
    assert_eq!(missed, Vec::<u32>::new());
    let gone = (0..pages).map(|page| 3 * page).filter(|number| *number < 1000).count();
    let listed = store.list(Kind::User).await.expect("listed").entries;
    assert_eq!(listed.iter().filter(|entry| entry.key.to_string().starts_with("user-")).count(), 1000 - gone);
    assert!(listed.is_sorted_by(|a, b| a.key < b.key));
}

#[test]
fn a_store_is_looked_through_a_page_at_a_time() {
    let (folder, server) = (tempfile::tempdir().expect("a folder"), RedisServer::start());
    local(async {
        walked(&open(&StoreSettings::Memory).await).await;
        walked(&open(&in_file(&folder.path().join("a.redb"), &[1])).await).await;
        walked(&open(&StoreSettings::Redis(redis(server.port))).await).await;
    });
}

#[test]
fn memory_keeps_the_contract() {
    local(async {
        let store = open(&StoreSettings::Memory).await;
        contract(&store).await;
        assert!(!store.is_shared());
        let mut changes = store.changes();
        store.announce(Kind::User, &RecordKey::from("alice")).await.expect("announced");
        assert!(matches!(changes.next().await, Change::Record(name) if name.to_string() == "user/alice"));
        let again = open(&StoreSettings::Memory).await;
        assert_eq!(value(&again, Kind::User, "bob").await, None, "another store in memory is another");
    });
}

/// A day, in milliseconds.
const DAY: u64 = 24 * 3_600_000;

#[test]
fn what_has_ended_lies_there_unread_until_it_is_swept() {
    let folder = tempfile::tempdir().expect("a folder");
    local(async {
        let now = Clock::System.now().wall;
        for wish in [StoreSettings::Memory, in_file(&folder.path().join("a.redb"), &[1])] {
            let store = open(&wish).await;
            for (kind, name, ends) in [
                (Kind::Application, "long ago", Some(now - 3 * DAY)),
                (Kind::Pending, "long ago", Some(now - 2 * DAY)),
                (Kind::User, "a moment ago", Some(now - 1000)),
                (Kind::User, "alive", Some(now + DAY)),
                (Kind::User, "for ever", None),
            ] {
                store.put(kind, &RecordKey::from(name), &secret(VALUE), ends).await.expect("put");
            }
            let store = if wish.outlives() {
                // A start removes nothing.
                drop(store);
                open(&wish).await
            } else {
                store
            };
            for name in ["long ago", "a moment ago"] {
                for kind in Kind::ALL {
                    assert_eq!(value(&store, kind, name).await, None);
                }
            }
            let listed = store.list(Kind::User).await.expect("listed").entries;
            assert_eq!(listed.iter().map(|entry| entry.key.to_string()).collect::<Vec<_>>().len(), 2);
            assert_eq!(store.sweep(now - DAY).await, Ok(2), "reading has removed nothing");
            assert_eq!(store.sweep(now - DAY).await, Ok(0));
            assert_eq!(value(&store, Kind::User, "alive").await.as_deref(), Some(VALUE));
            assert_eq!(value(&store, Kind::User, "for ever").await.as_deref(), Some(VALUE));
            assert!(
                !store.remove(Kind::User, &RecordKey::from("a moment ago")).await.expect("removed"),
                "it had ended"
            );
            assert_eq!(store.sweep(u64::MAX).await, Ok(1));
        }
    });
}

#[test]
fn a_replica_whose_clock_is_ahead_takes_nothing_from_the_others() {
    let server = RedisServer::start();
    local(async {
        let wish = StoreSettings::Redis(redis(server.port));
        let now = Clock::System.now();
        let ahead = Clock::Manual(ManualClock::at(Now::at(now.boot, now.wall + 26 * 3_600_000)));
        let (right, wrong) = (open(&wish).await, Store::open(&wish, patient(), ahead).await.expect("opens"));
        right.put(Kind::User, &RecordKey::from("alice"), &secret(VALUE), Some(now.wall + DAY)).await.expect("put");
        assert_eq!(value(&wrong, Kind::User, "alice").await, None, "over, by its clock");
        assert_eq!(wrong.list(Kind::User).await.expect("listed").entries, []);
        assert_eq!(wrong.sweep(u64::MAX).await, Ok(0));
        assert_eq!(value(&right, Kind::User, "alice").await.as_deref(), Some(VALUE));
    });
}

#[test]
fn a_lease_that_is_over_frees_its_lock_and_is_no_longer_ours() {
    local(async {
        let hand = ManualClock::at(Now::at(0, 1_790_000_000_000));
        let store = Store::open(&StoreSettings::Memory, patient(), Clock::Manual(hand.clone())).await.expect("opens");
        let key = RecordKey::from("a");
        let slept = store.lock(&key, LEASE).await.expect("asked").expect("free");
        hand.advance(LEASE);
        let next = store.lock(&key, LEASE).await.expect("asked").expect("free again");
        assert!(next.fence > slept.fence);
        assert!(!store.unlock(slept).await.expect("asked"), "it is another's now");
        assert!(store.lock(&key, LEASE).await.expect("asked").is_none());
    });
}

#[test]
fn a_file_keeps_the_contract_and_outlives_its_process() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.redb");
    local(async {
        let wish = in_file(&path, &[1]);
        let store = open(&wish).await;
        contract(&store).await;
        drop(store);
        let store = open(&wish).await;
        assert_eq!(value(&store, Kind::User, "bob").await.as_deref(), Some(b"new".as_slice()));
        store.put(Kind::User, &RecordKey::from("carol"), &secret(VALUE), None).await.expect("put");
    });
    let mode = fs::metadata(&path).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let names: Vec<_> =
        fs::read_dir(folder.path()).expect("readable").map(|entry| entry.expect("one").file_name()).collect();
    assert_eq!(names, ["a.redb"], "nothing is left beside it");
    let bytes = fs::read(&path).expect("readable");
    assert!(bytes.windows(5).any(|part| part == b"carol"), "keys are there to be found");
    assert!(!bytes.windows(6).any(|part| part == b"canary"), "values are not");
}

#[test]
fn a_file_that_others_may_read_is_closed_to_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.redb");
    local(async {
        drop(open(&in_file(&path, &[1])).await);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("set");
        drop(open(&in_file(&path, &[1])).await);
    });
    assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_file_that_cannot_be_used_says_why() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.redb");
    local(async {
        let store = open(&in_file(&path, &[1])).await;
        let why = refused(&in_file(&path, &[1])).await;
        assert!(why.contains("in use by another process") && why.contains("a.redb"), "{why}");
        drop(store);
        // Cut to nothing: told, not started anew.
        let empty = folder.path().join("empty");
        fs::write(&empty, "").expect("written");
        assert!(refused(&in_file(&empty, &[1])).await.contains("is empty"));
        let other = folder.path().join("other");
        fs::write(&other, vec![b'x'; 8192]).expect("written");
        let why = refused(&in_file(&other, &[1])).await;
        assert!(why.contains("damaged or not a store"), "{why}");
        assert_eq!(fs::read(&other).expect("there"), vec![b'x'; 8192], "it was not touched");
        let why = refused(&in_file(&other.join("a.redb"), &[1])).await;
        assert!(why.contains("other/a.redb"), "a file stands where its folder would be: {why}");
        let why = refused(&in_file(folder.path(), &[1])).await;
        assert!(why.contains("is no file"), "{why}");
    });
}

#[test]
fn the_folder_of_a_file_is_made_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().expect("a folder");
    let made = folder.path().join("var/lib");
    local(async { drop(open(&in_file(&made.join("a.redb"), &[1])).await) });
    assert_eq!(fs::metadata(&made).expect("it is there").permissions().mode() & 0o777, 0o700);
}

#[test]
fn a_file_of_a_later_version_is_left_as_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.redb");
    {
        let about = redb::TableDefinition::<&str, u64>::new("about");
        let database = redb::Database::create(&path).expect("made");
        let writing = database.begin_write().expect("begun");
        writing.open_table(about).expect("a table").insert("schema", 2).expect("written");
        writing.commit().expect("committed");
    }
    let before = fs::read(&path).expect("there");
    let why = local(refused(&in_file(&path, &[1])));
    assert!(why.contains("later version") && why.contains("schema 2"), "{why}");
    assert!(fs::read(&path).expect("there") == before, "it was written to");
    // And one that is another program's altogether.
    let path = folder.path().join("b.redb");
    drop(redb::Database::create(&path).expect("made"));
    let why = local(refused(&in_file(&path, &[1])));
    assert!(why.contains("not a store of countersign"), "{why}");
}

/// Changes records as somebody with the file in hand would.
fn meddle(path: &Path, change: impl FnOnce(&mut redb::Table<'_, (&'static str, &'static [u8]), &'static [u8]>)) {
    let records = redb::TableDefinition::<(&str, &[u8]), &[u8]>::new("records");
    let database = redb::Database::open(path).expect("opens");
    let writing = database.begin_write().expect("begun");
    change(&mut writing.open_table(records).expect("a table"));
    writing.commit().expect("committed");
}

// T32: told by name, kept aside, the others serve.
#[test]
fn a_damaged_record_is_told_by_name_and_set_aside_and_the_others_serve() {
    use redb::ReadableTable as _;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.redb");
    local(async {
        let store = open(&in_file(&path, &[1])).await;
        for user in ["alice", "bob", "carol", "dave", "erin"] {
            store.put(Kind::User, &RecordKey::from(user), &secret(user.as_bytes()), None).await.expect("put");
        }
        drop(store);
        meddle(&path, |records| {
            let read = |records: &redb::Table<'_, (&'static str, &'static [u8]), &'static [u8]>, user: &str| {
                records.get(("user", user.as_bytes())).expect("readable").expect("there").value().to_vec()
            };
            // Swapped, cut short, emptied.
            let (alice, bob, carol) = (read(records, "alice"), read(records, "bob"), read(records, "carol"));
            let mut write =
                |user: &str, bytes: &[u8]| drop(records.insert(("user", user.as_bytes()), bytes).expect("written"));
            write("alice", &bob);
            write("bob", &alice);
            write("carol", &carol[..carol.len() - 1]);
            write("dave", b"");
        });
        let store = open(&in_file(&path, &[1])).await;
        let listing = store.list(Kind::User).await.expect("listed");
        let damaged: Vec<String> = listing.damaged.iter().map(ToString::to_string).collect();
        let told = |user| format!("the record user/{user} cannot be read: it was cut, altered or moved");
        assert_eq!(damaged, ["alice", "bob", "carol", "dave"].map(told));
        assert_eq!(value(&store, Kind::User, "erin").await.as_deref(), Some(b"erin".as_slice()));
        assert_eq!(value(&store, Kind::User, "alice").await, None, "it stands in nobody's way");
        store.put(Kind::User, &RecordKey::from("alice"), &secret(b"new"), None).await.expect("put");
        drop(store);
        let store = open(&in_file(&path, &[1])).await;
        assert_eq!(value(&store, Kind::User, "alice").await.as_deref(), Some(b"new".as_slice()));
        let listing = store.list(Kind::User).await.expect("listed");
        assert_eq!((listing.entries.len(), listing.damaged.len()), (2, 4), "what was set aside is kept");
    });
}

// T32, F18: the same for a real file that `src/store/file/damage.rs` does for each byte and each length.
#[test]
fn a_file_that_was_cut_or_altered_is_refused_or_reads_as_it_was_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.redb");
    local(async {
        let store = open(&in_file(&path, &[1])).await;
        store.put(Kind::User, &RecordKey::from("alice"), &secret(VALUE), None).await.expect("put");
    });
    let whole = fs::read(&path).expect("readable");
    let (mut refused, mut read) = (0, 0);
    let flips = (0..320).step_by(7).chain((320..whole.len()).step_by(331)).map(|at| (at, whole.len()));
    for (at, len) in flips.chain((1..whole.len()).step_by(397).map(|len| (len, len))) {
        let mut bytes = whole[..len].to_vec();
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= 0xff;
        }
        fs::write(&path, &bytes).expect("written");
        local(async {
            match Store::open(&in_file(&path, &[1]), patient(), Clock::System).await {
                Ok(store) => {
                    assert!(len == whole.len(), "cut at {len}");
                    assert_eq!(value(&store, Kind::User, "alice").await.as_deref(), Some(VALUE), "at {at}");
                    read += 1;
                }
                Err(Error::Unavailable(why)) => {
                    assert!(why.contains("damaged") || why.contains("later version"), "{at} of {len}: {why}");
                    assert!(fs::read(&path).expect("readable") == bytes, "{at} of {len}: it was written to");
                    refused += 1;
                }
                Err(other) => panic!("{at} of {len}: {other}"),
            }
        });
    }
    assert!(refused > 100 && read > 50, "{refused} {read}");
}

// T32: a key that was left out is no reason to lose what it sealed.
#[test]
fn records_of_another_key_are_set_aside_and_return_with_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.redb");
    local(async {
        let store = open(&in_file(&path, &[1])).await;
        store.put(Kind::User, &RecordKey::from("alice"), &secret(VALUE), None).await.expect("put");
        drop(store);
        let store = open(&in_file(&path, &[2])).await;
        let listing = store.list(Kind::User).await.expect("listed");
        assert_eq!(listing.entries, []);
        assert_eq!(listing.damaged[0].why, Damage::ForeignKey);
        assert_eq!(value(&store, Kind::User, "alice").await, None);
        drop(store);
        let store = open(&in_file(&path, &[2, 1])).await;
        assert_eq!(value(&store, Kind::User, "alice").await.as_deref(), Some(VALUE));
        let done = store.rekey().await.expect("sealed anew");
        assert_eq!((done.resealed, done.already, done.damaged.len()), (1, 0, 0));
        assert_eq!(store.rekey().await.expect("again").already, 1);
        drop(store);
        let store = open(&in_file(&path, &[2])).await;
        assert_eq!(value(&store, Kind::User, "alice").await.as_deref(), Some(VALUE), "the old key may go");
    });
}

#[test]
fn redis_keeps_the_contract_and_shares_it() {
    let server = RedisServer::start();
    local(async {
        let wish = StoreSettings::Redis(redis(server.port));
        let (one, two) = (open(&wish).await, open(&wish).await);
        contract(&one).await;
        assert!(one.is_shared());
        // Both see the same.
        let alice = RecordKey::from("alice");
        let version = one.put(Kind::User, &alice, &secret(VALUE), None).await.expect("put");
        assert_eq!(value(&two, Kind::User, "alice").await.as_deref(), Some(VALUE));
        two.swap(Kind::User, &alice, Some(version), &secret(b"rotated"), None).await.expect("swapped");
        let late = one.swap(Kind::User, &alice, Some(version), &secret(b"late"), None).await;
        assert_eq!(late.expect_err("the other was first"), Error::Conflict);
        // Locks exclude across instances, and fencing numbers grow even where Redis has lost all.
        let lock = one.lock(&alice, LEASE).await.expect("asked").expect("free");
        assert!(two.lock(&alice, LEASE).await.expect("asked").is_none());
        assert_eq!(server.cli(&["FLUSHALL"]), "OK");
        let next = two.lock(&alice, LEASE).await.expect("asked").expect("free");
        assert!(next.fence > lock.fence);
        assert!(!one.unlock(lock).await.expect("asked"), "it is the other's now");
        assert!(one.lock(&alice, LEASE).await.expect("asked").is_none());
        assert!(two.unlock(next).await.expect("asked"));
        // A short lease ends by itself.
        let short = one.lock(&alice, Duration::from_millis(1)).await.expect("asked").expect("free");
        let longer = loop {
            if let Some(lock) = two.lock(&alice, LEASE).await.expect("asked") {
                break lock;
            }
        };
        assert!(longer.fence > short.fence);
        // Values do not show.
        one.put(Kind::User, &alice, &secret(VALUE), None).await.expect("put");
        let dump = server.dump();
        assert!(dump.windows(5).any(|part| part == b"alice") && !dump.windows(6).any(|part| part == b"canary"));
    });
}

#[test]
fn namespaces_on_one_redis_are_apart_even_for_whoever_copies() {
    let server = RedisServer::start();
    local(async {
        let mut other = redis(server.port);
        other.namespace = "other".to_owned();
        let (one, two) =
            (open(&StoreSettings::Redis(redis(server.port))).await, open(&StoreSettings::Redis(other)).await);
        one.put(Kind::User, &RecordKey::from("alice"), &secret(VALUE), None).await.expect("put");
        assert_eq!(value(&two, Kind::User, "alice").await, None);
        assert_eq!(two.list(Kind::User).await.expect("listed").entries, []);
        assert_eq!(server.cli(&["COPY", "countersign:user:alice", "other:user:alice"]), "1");
        let copied = two.load(Kind::User, &RecordKey::from("alice")).await.expect_err("it belongs elsewhere");
        assert!(matches!(&copied, Error::Damaged(damaged) if damaged.why == Damage::Altered), "{copied}");
        assert!(copied.to_string().contains("user/alice"), "{copied}");
        // It is left there, told, and may be written over.
        assert_eq!(two.list(Kind::User).await.expect("listed").damaged.len(), 1);
        two.put(Kind::User, &RecordKey::from("alice"), &secret(b"own"), None).await.expect("put");
        assert_eq!(value(&two, Kind::User, "alice").await.as_deref(), Some(b"own".as_slice()));
    });
}

#[test]
fn news_arrive_and_a_broken_connection_tells_to_look_at_everything() {
    let server = RedisServer::start();
    local(async {
        let relay = Relay::before(server.port, Mood::Pass).await;
        let one = open(&StoreSettings::Redis(redis(server.port))).await;
        let two = open(&StoreSettings::Redis(redis(relay.address.port()))).await;
        let mut changes = two.changes();
        let listeners = async |count: char| {
            while !server.cli(&["PUBSUB", "NUMSUB", "countersign:changes"]).ends_with(count) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        // Each connection that is made tells to look at everything: the one for news, and the one for records.
        let record = async |changes: &mut countersign::store::Changes| {
            let mut everything = 0;
            loop {
                match changes.next().await {
                    Change::Everything => everything += 1,
                    Change::Record(name) => return (everything, name.to_string()),
                }
            }
        };
        listeners('1').await;
        two.reach(Duration::from_secs(5)).await.expect("up");
        one.announce(Kind::User, &RecordKey::from("alice")).await.expect("announced");
        // The first of them may have come before anything was listened to.
        let (everything, name) = record(&mut changes).await;
        assert!((1..=2).contains(&everything) && name == "user/alice", "{everything} {name}");
        // Nonsense on the channel moves nobody.
        server.cli(&["PUBLISH", "countersign:changes", "nobody:x"]);
        relay.turn(Mood::Refuse);
        listeners('0').await;
        relay.turn(Mood::Pass);
        listeners('1').await;
        // The one for records comes back by itself, too.
        two.reach(Duration::from_secs(5)).await.expect("up again");
        one.announce(Kind::Pending, &RecordKey::from("s")).await.expect("announced");
        let (everything, name) = record(&mut changes).await;
        assert_eq!((everything, name.as_str()), (2, "pending/s"));
    });
}

// T34: bounded time, a clear word, and it goes on without a restart.
#[test]
fn a_redis_in_trouble_costs_one_short_wait_and_comes_back() {
    let server = RedisServer::start();
    local(async {
        let relay = Relay::before(server.port, Mood::Pass).await;
        let mut patience = patient();
        (patience.operation, patience.connect) = (Duration::from_millis(200), Duration::from_millis(500));
        let wish = StoreSettings::Redis(redis(relay.address.port()));
        let store = Store::open(&wish, patience, Clock::System).await.expect("opens");
        store.reach(PATIENCE).await.expect("reached");
        let alice = RecordKey::from("alice");
        store.put(Kind::User, &alice, &secret(VALUE), None).await.expect("put");
        for (mood, word) in [
            (Mood::Silent, "does not answer within 200 ms"),
            (Mood::Refuse, ""),
            (Mood::Garbage, ""),
            (Mood::Silent, ""),
        ] {
            relay.turn(mood);
            let watch = Stopwatch::start();
            let why = store.load(Kind::User, &alice).await.expect_err("it is in trouble");
            assert!(matches!(&why, Error::Unavailable(why) if why.contains(word)), "{mood:?}: {why}");
            assert!(why.to_string().contains(&relay.address.to_string()), "{why}");
            // A hundred more wait for nothing.
            for _ in 0..100 {
                assert!(store.put(Kind::User, &alice, &secret(b"lost"), None).await.is_err());
            }
            assert!(watch.elapsed() < Duration::from_secs(5), "{mood:?}: {:?}", watch.elapsed());
            relay.turn(Mood::Pass);
            store.reach(PATIENCE).await.expect("it has come back");
            assert_eq!(value(&store, Kind::User, "alice").await.as_deref(), Some(VALUE));
        }
    });
}

#[test]
fn a_lock_whose_answer_was_lost_is_given_back_once_nobody_waits_for_it() {
    let server = RedisServer::start();
    local(async {
        let relay = Relay::before(server.port, Mood::Pass).await;
        let mut patience = patient();
        patience.operation = Duration::from_secs(1);
        let wish = StoreSettings::Redis(redis(relay.address.port()));
        let store = Store::open(&wish, patience, Clock::System).await.expect("opens");
        let other = open(&StoreSettings::Redis(redis(server.port))).await;
        let alice = RecordKey::from("alice");
        let free = async || {
            let freed = async {
                loop {
                    if let Some(lock) = other.lock(&alice, LEASE).await.expect("asked") {
                        return lock;
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            let lock =
                tokio::time::timeout(Duration::from_secs(20), freed).await.expect("long before its lease is over");
            assert!(other.unlock(lock).await.expect("asked"));
        };
        // Redis knows the script from now on.
        let lock = store.lock(&alice, LEASE).await.expect("asked").expect("free");
        assert!(store.unlock(lock).await.expect("asked"));
        // Given up after an answer that never came, or while it is waited for.
        for waits in [true, false] {
            store.reach(PATIENCE).await.expect("reached");
            let attempt = store.lock_attempt(&alice, LEASE, 7);
            relay.turn(Mood::Mute);
            if waits {
                attempt.take().await.expect_err("no answer");
            } else {
                let held = async {
                    while server.cli(&["EXISTS", "countersign:lock:alice"]) == "0" {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                };
                tokio::select! {
                    biased;
                    _ = attempt.take() => panic!("no answer"),
                    () = held => {}
                }
            }
            assert_eq!(server.cli(&["EXISTS", "countersign:lock:alice"]), "1", "granted, and nobody knows");
            relay.turn(Mood::Pass);
            // Asked again, it is granted again.
            store.reach(PATIENCE).await.expect("reached");
            if waits {
                let lock = attempt.take().await.expect("asked").expect("its own");
                assert!(store.unlock(lock).await.expect("asked"));
                relay.turn(Mood::Mute);
                attempt.take().await.expect_err("no answer");
                relay.turn(Mood::Pass);
            }
            drop(attempt);
            free().await;
        }
    });
}

#[test]
fn a_redis_that_was_never_there_does_not_hold_up_a_start() {
    local(async {
        let relay = Relay::before(1, Mood::Silent).await;
        let wish = StoreSettings::Redis(redis(relay.address.port()));
        let watch = Stopwatch::start();
        let store = Store::open(&wish, Patience::default(), Clock::System).await.expect("opens");
        for _ in 0..100 {
            let why = store.load(Kind::User, &RecordKey::from("a")).await.expect_err("nobody is there");
            assert!(why.to_string().contains("does not answer within 30 ms"), "{why}");
        }
        // Each alone would have waited 30 ms.
        assert!(watch.elapsed() < Duration::from_millis(2500), "{:?}", watch.elapsed());
        assert!(*relay.accepted.lock().expect("unpoisoned") <= 3, "a caller makes no connection");
    });
}

#[test]
fn a_redis_that_restarts_is_found_again() {
    let server = RedisServer::start();
    local(async {
        let store = open(&StoreSettings::Redis(redis(server.port))).await;
        store.put(Kind::User, &RecordKey::from("alice"), &secret(VALUE), None).await.expect("put");
        assert_eq!(server.cli(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]), "1");
        store.reach(PATIENCE).await.expect("there again");
        // The question may meet the end of the old connection.
        let mut found = None;
        while found.is_none() {
            found = store.load(Kind::User, &RecordKey::from("alice")).await.ok().flatten();
            tokio::task::yield_now().await;
        }
        // Scripts are loaded again where they were lost.
        assert_eq!(server.cli(&["SCRIPT", "FLUSH"]), "OK");
        let version = found.map(|record| record.version);
        store.swap(Kind::User, &RecordKey::from("alice"), version, &secret(b"new"), None).await.expect("swapped");
    });
}

// T34: NOAUTH, wrong type, evicted, full.
#[test]
fn what_a_redis_refuses_is_told_in_words_that_help() {
    let server = RedisServer::start();
    local(async {
        let wish = StoreSettings::Redis(redis(server.port));
        let store = open(&wish).await;
        let alice = RecordKey::from("alice");
        let version = store.put(Kind::User, &alice, &secret(VALUE), None).await.expect("put");
        // Evicted.
        assert_eq!(server.cli(&["DEL", "countersign:user:alice"]), "1");
        assert_eq!(value(&store, Kind::User, "alice").await, None);
        let gone = store.swap(Kind::User, &alice, Some(version), &secret(b"x"), None).await;
        assert_eq!(gone.expect_err("it is gone"), Error::Conflict);
        // Something else lies there.
        assert_eq!(server.cli(&["LPUSH", "countersign:user:alice", "x"]), "1");
        for error in [
            store.load(Kind::User, &alice).await.expect_err("a list"),
            store.swap(Kind::User, &alice, None, &secret(b"x"), None).await.expect_err("a list"),
        ] {
            assert!(matches!(&error, Error::Damaged(damaged) if damaged.why == Damage::WrongType), "{error}");
        }
        store.put(Kind::User, &alice, &secret(VALUE), None).await.expect("written over");
        // Full.
        assert_eq!(server.cli(&["CONFIG", "SET", "maxmemory", "1"]), "OK");
        for error in [
            store.put(Kind::User, &alice, &secret(b"x"), None).await.expect_err("full"),
            store.swap(Kind::User, &RecordKey::from("new"), None, &secret(b"x"), None).await.expect_err("full"),
        ] {
            assert!(matches!(&error, Error::Full(why) if why.contains("maxmemory")), "{error:?}");
        }
        assert_eq!(value(&store, Kind::User, "alice").await.as_deref(), Some(VALUE), "reading goes on");
        assert_eq!(server.cli(&["CONFIG", "SET", "maxmemory", "0"]), "OK");
        store.put(Kind::User, &alice, &secret(b"x"), None).await.expect("there is room again");
        // A failover: it takes no writes any more, and then it does.
        assert_eq!(server.cli(&["REPLICAOF", "127.0.0.1", "1"]), "OK");
        let why = store.put(Kind::User, &alice, &secret(b"x"), None).await.expect_err("a replica");
        assert!(why.to_string().contains("READONLY"), "{why}");
        assert_eq!(server.cli(&["REPLICAOF", "NO", "ONE"]), "OK");
        store.reach(PATIENCE).await.expect("connected anew");
        store.put(Kind::User, &alice, &secret(b"x"), None).await.expect("it is a master again");
        // Credentials are wanted from now on.
        assert_eq!(server.cli(&["CONFIG", "SET", "requirepass", "canary-redis-password"]), "OK");
        let other = Store::open(&wish, patient(), Clock::System).await.expect("opens");
        let why = other.reach(Duration::from_millis(300)).await.expect_err("nobody knows us");
        assert!(why.to_string().contains("asks for credentials"), "{why}");
        let mut wrong = redis(server.port);
        wrong.login = password(None, "canary-wrong-password");
        assert!(!format!("{wrong:?}").contains("canary"));
        let other = Store::open(&StoreSettings::Redis(wrong.clone()), patient(), Clock::System).await.expect("opens");
        let why = other.reach(Duration::from_millis(300)).await.expect_err("nobody knows us");
        assert!(why.to_string().contains("refuses our credentials") && !why.to_string().contains("canary"), "{why}");
        wrong.login = password(None, "canary-redis-password");
        let right = open(&StoreSettings::Redis(wrong)).await;
        assert_eq!(value(&right, Kind::User, "alice").await.as_deref(), Some(b"x".as_slice()));
    });
}

/// The rule that docs/store.md tells operators to write.
fn acl_rule() -> String {
    let manual =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/store.md")).expect("docs/store.md");
    let rule = manual.lines().find(|line| line.starts_with("user countersign ")).expect("the manual has the rule");
    rule.to_owned()
}

#[test]
fn an_acl_user_needs_no_more_than_the_manual_says() {
    let rule = acl_rule().replace("PASSWORD", "canary-acl-password");
    let server = RedisServer::with(&format!("{rule}\nuser default on nopass ~* &* +@all"), &[]);
    local(async {
        let mut wish = redis(server.port);
        wish.login = password(Some("countersign"), "canary-acl-password");
        let store = open(&StoreSettings::Redis(wish.clone())).await;
        contract(&store).await;
        let mut changes = store.changes();
        assert_eq!(changes.next().await, Change::Everything);
        store.announce(Kind::User, &RecordKey::from("a")).await.expect("announced");
        assert!(matches!(changes.next().await, Change::Record(_)));
        wish.namespace = "elsewhere".to_owned();
        let outside = open(&StoreSettings::Redis(wish)).await;
        let why = outside.put(Kind::User, &RecordKey::from("a"), &secret(b"x"), None).await.expect_err("not its place");
        assert!(why.to_string().contains("does not permit"), "{why}");
    });
}

/// The rule for one kind of Redis that docs/store.md tells operators to add to.
fn acl_words(after: &str) -> String {
    let manual =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/store.md")).expect("docs/store.md");
    let line = manual.lines().find(|line| line.contains(after)).unwrap_or_else(|| panic!("the manual says `{after}`"));
    let (_, words) = line.split_once(after).expect("found");
    words.split('`').nth(1).expect("in backquotes").to_owned()
}

/// The config of a user for the tests, with the rights that the manual names, and one of a master for its replicas.
fn acl(more: &str) -> String {
    let rule = acl_rule().replace("PASSWORD", "canary-acl-password");
    format!("{rule} {more}\nuser default on nopass ~* &* +@all")
}

#[test]
fn a_cluster_keeps_the_contract_for_a_user_with_the_rights_of_the_manual() {
    let group = ClusterGroup::start(false, &acl(&acl_words("in a Cluster add")), &[]);
    local(async {
        let mut wish = led_to(&format!("redis+cluster://{}", group.place()));
        (wish.login, wish.wait_replicas) = (password(Some("countersign"), "canary-acl-password"), 0);
        let wish = StoreSettings::Redis(wish);
        let (one, two) = (open(&wish).await, open(&wish).await);
        contract(&one).await;
        for node in &group.nodes {
            assert_eq!(node.cli(&["FLUSHALL"]), "OK");
        }
        walked(&two).await;
        // News come, wherever the record lies.
        let mut changes = two.changes();
        assert_eq!(changes.next().await, Change::Everything);
        let told = async |changes: &mut countersign::store::Changes| loop {
            if let Change::Record(name) = changes.next().await {
                return name.to_string();
            }
        };
        let listening =
            || group.nodes.iter().any(|node| node.cli(&["PUBSUB", "NUMSUB", "countersign:changes"]).ends_with('1'));
        while !listening() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        for key in ["a", "b", "c", "d"] {
            one.announce(Kind::User, &RecordKey::from(key)).await.expect("announced");
            assert_eq!(told(&mut changes).await, format!("user/{key}"));
        }
        // Locks have their two keys in one slot, whatever bytes a key has.
        for key in [b"alice".as_slice(), b"{", b"}x", b"{}", b"a{b}c", &[0, 255, b'{', 1, b'}']] {
            let key = RecordKey::new(key);
            let lock = one.lock(&key, LEASE).await.expect("asked").expect("free");
            assert!(two.lock(&key, LEASE).await.expect("asked").is_none());
            assert!(one.unlock(lock).await.expect("asked"));
        }
    });
}

#[test]
fn a_slot_that_moves_is_followed() {
    let group = ClusterGroup::start(false, "", &[]);
    let [from, to] = [&group.nodes[0], &group.nodes[1]];
    // The slot of `countersign:user:u0` and so on: any record that lies at the first node.
    let named = (0..).map(|number| format!("u{number}"));
    let mut mine = named.filter(|user| {
        let slot: u16 = from.cli(&["CLUSTER", "KEYSLOT", &format!("countersign:user:{user}")]).parse().expect("a slot");
        slot <= 5460
    });
    let user = mine.next().expect("one of them");
    let slot = from.cli(&["CLUSTER", "KEYSLOT", &format!("countersign:user:{user}")]);
    let [source, destination] = [from, to].map(|node| node.cli(&["CLUSTER", "MYID"]));
    local(async {
        let store = open(&StoreSettings::Redis(led_to(&format!("redis+cluster://{}", group.place())))).await;
        let key = RecordKey::from(user.as_str());
        let version = store.put(Kind::User, &key, &secret(VALUE), None).await.expect("put");
        assert_eq!(to.cli(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &source]), "OK");
        assert_eq!(from.cli(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &destination]), "OK");
        assert_eq!(value(&store, Kind::User, &user).await.as_deref(), Some(VALUE), "still where it was");
        let port = to.port.to_string();
        assert_eq!(from.cli(&["MIGRATE", "127.0.0.1", &port, &format!("countersign:user:{user}"), "0", "1000"]), "OK");
        // Asked for with ASKING; a script that the node does not know is loaded there.
        assert_eq!(value(&store, Kind::User, &user).await.as_deref(), Some(VALUE), "asked for");
        let version = store.swap(Kind::User, &key, Some(version), &secret(b"b"), None).await.expect("swapped");
        for node in [to, from] {
            assert_eq!(node.cli(&["CLUSTER", "SETSLOT", &slot, "NODE", &destination]), "OK");
        }
        // Moved.
        store.swap(Kind::User, &key, Some(version), &secret(b"c"), None).await.expect("swapped");
        assert_eq!(value(&store, Kind::User, &user).await.as_deref(), Some(b"c".as_slice()));
        let users = store.list(Kind::User).await.expect("listed");
        assert_eq!(users.entries.len(), 1);
    });
}

#[test]
fn one_address_of_a_cluster_is_told_to_be_one() {
    let group = ClusterGroup::start(false, "", &[]);
    local(async {
        let store = open(&StoreSettings::Redis(redis(group.nodes[0].port))).await;
        for user in 0..50 {
            if let Err(error) = store.load(Kind::User, &RecordKey::from(format!("u{user}").as_str())).await {
                assert!(error.to_string().contains("`redis+cluster://"), "{error}");
                return;
            }
        }
        panic!("all of them lie there");
    });
}

/// Certificates for a Redis with TLS, in a folder, and its config.
fn tls_folder() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let now = Clock::System.now();
    let authority = SimAuthority::new("redis CA", now).expect("a CA");
    let (server, client) = (
        authority.issue(&LeafSpec::server(now)).expect("a leaf"),
        authority.issue(&LeafSpec::client("countersign", now)).expect("a leaf"),
    );
    for (name, text) in [
        ("ca.crt", authority.pem()),
        ("server.crt", server.cert_pem),
        ("server.key", server.key_pem),
        ("client.crt", client.cert_pem),
        ("client.key", client.key_pem),
        ("store.key", base64(1)),
    ] {
        fs::write(folder.path().join(name), text).expect("written");
    }
    let at = folder.path().display();
    let config = format!(
        "port 0\ntls-port {{port}}\ntls-cert-file {at}/server.crt\ntls-key-file {at}/server.key\n\
         tls-client-cert-file {at}/client.crt\ntls-client-key-file {at}/client.key\n\
         tls-ca-cert-file {at}/ca.crt\ntls-auth-clients yes\n"
    );
    (folder, config)
}

#[test]
fn sentinels_and_their_master_want_tls_a_certificate_and_users_with_the_rights_of_the_manual() {
    let (folder, tls) = tls_folder();
    let at = folder.path().display().to_string();
    let [ca, cert, key] = ["ca.crt", "client.crt", "client.key"].map(|file| format!("{at}/{file}"));
    let tools = ["--tls", "--cacert", &ca, "--cert", &cert, "--key", &key];
    let servers = format!("{tls}{}", acl(&acl_words("With Sentinels add")));
    let rights = acl_words("A user of the Sentinels needs");
    let watching = format!("{tls}user watch on >canary-sentinel-password {rights}\nuser default on nopass ~* &* +@all");
    let mut group = SentinelGroup::start([&servers, &watching], &tools);
    let identity = "tls = { ca = \"ca.crt\", client_cert = \"client.crt\", client_key = \"client.key\" }";
    let text = format!(
        "[store]\nurl = \"rediss+sentinel://{}\"\nkeys = [{{ file = \"store.key\" }}]\nusername = \"countersign\"\n\
         password = \"canary-acl-password\"\n{identity}\n\
         sentinel = {{ username = \"watch\", password = \"canary-sentinel-password\" }}",
        group.place()
    );
    let wish = wished(&text, folder.path());
    local(async {
        let store = open(&wish).await;
        contract(&store).await;
        let alice = RecordKey::from("alice");
        store.put(Kind::User, &alice, &secret(VALUE), None).await.expect("put");
        let mut changes = store.changes();
        assert_eq!(changes.next().await, Change::Everything);
        // The master dies: another is found, with what was written.
        group.servers[0].kill();
        assert!(store.load(Kind::User, &alice).await.is_err());
        store.reach(PATIENCE).await.expect("another master");
        assert_eq!(value(&store, Kind::User, "alice").await.as_deref(), Some(VALUE));
        store.put(Kind::User, &alice, &secret(b"new"), None).await.expect("it takes writes");
        // And news come from there.
        while changes.next().await != Change::Everything {}
        let listening = || {
            group.servers[1..].iter().any(|one| one.cli(&["PUBSUB", "NUMSUB", "countersign:changes"]).ends_with('1'))
        };
        while !listening() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        store.announce(Kind::User, &alice).await.expect("announced");
        while !matches!(changes.next().await, Change::Record(_)) {}
    });
    // Sentinels that do not know us.
    let StoreSettings::Redis(redis) = wish else { panic!("a Redis") };
    for (login, word) in
        [(password(Some("watch"), "canary-wrong"), "refuses our credentials"), (RedisLogin::Nobody, "")]
    {
        let wish = StoreSettings::Redis(RedisSettings { sentinel_login: login.clone(), ..redis.clone() });
        local(async {
            let other = Store::open(&wish, patient(), Clock::System).await.expect("opens");
            let reached = other.reach(Duration::from_millis(800)).await;
            // The default user of these Sentinels is open.
            assert_eq!(reached.is_ok(), matches!(login, RedisLogin::Nobody), "{reached:?}");
            let told = reached.err().map(|error| error.to_string()).unwrap_or_default();
            assert!(told.contains(word) && !told.contains("canary"), "{told}");
        });
    }
}

#[test]
fn a_master_that_is_replaced_while_it_lives_is_left_and_a_name_that_nobody_knows_is_told() {
    let group = SentinelGroup::start(["", ""], &[]);
    let url = format!("redis+sentinel://{}", group.place());
    local(async {
        let unknown = url.replace(SERVICE, "other");
        let store =
            Store::open(&StoreSettings::Redis(led_to(&unknown)), patient(), Clock::System).await.expect("opens");
        let why = store.reach(Duration::from_millis(500)).await.expect_err("nobody knows it");
        assert!(why.to_string().contains("knows no master of this name"), "{why}");
        let store = open(&StoreSettings::Redis(led_to(&url))).await;
        let alice = RecordKey::from("alice");
        let version = store.put(Kind::User, &alice, &secret(VALUE), None).await.expect("put");
        assert_eq!(group.sentinels[0].cli(&["SENTINEL", "FAILOVER", SERVICE]), "OK");
        group.servers[0].until(&["ROLE"], |told| told.starts_with("slave"));
        // A question may meet the end of the old connection, and its answer get lost; writes go to the new master then.
        for _ in 0..500 {
            match store.swap(Kind::User, &alice, Some(version), &secret(b"new"), None).await {
                Ok(_) | Err(Error::Conflict) => break,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
        assert_eq!(value(&store, Kind::User, "alice").await.as_deref(), Some(b"new".as_slice()));
        let masters = group.servers.iter().filter(|one| one.cli(&["ROLE"]).starts_with("master"));
        let values: Vec<String> = masters.map(|one| one.cli(&["EXISTS", "countersign:user:alice"])).collect();
        assert_eq!(values, ["1"]);
    });
}

#[test]
fn replicas_are_waited_for_where_a_write_matters_and_only_for_a_moment() {
    let server = RedisServer::start();
    let waits = |server: &RedisServer| {
        let told = server.cli(&["INFO", "commandstats"]);
        let calls = told.lines().find_map(|line| line.strip_prefix("cmdstat_wait:calls="));
        calls.and_then(|calls| calls.split(',').next()).map_or(0, |calls| calls.parse::<u32>().expect("a number"))
    };
    local(async {
        let wish = StoreSettings::Redis(RedisSettings { wait_replicas: 1, ..redis(server.port) });
        // Nobody copies: the writes stand, and one of them has waited, also where many come at once.
        let store = open(&wish).await;
        let keys: Vec<_> = (0..50).map(|user| RecordKey::from(format!("u{user}").as_str())).collect();
        let value = secret(VALUE);
        for written in join_all(keys.iter().map(|key| store.put(Kind::User, key, &value, None))).await {
            written.expect("put");
        }
        assert_eq!(waits(&server), 1);
        let copy = RedisServer::with(&format!("repl-diskless-sync-delay 0\nreplicaof 127.0.0.1 {}", server.port), &[]);
        copy.until(&["INFO", "replication"], |told| told.contains("master_link_status:up"));
        let hand = ManualClock::at(Now::at(0, 1_790_000_000_000));
        let store = Store::open(&wish, patient(), Clock::Manual(hand.clone())).await.expect("opens");
        store.reach(PATIENCE).await.expect("reached");
        let before = waits(&server);
        let alice = RecordKey::from("alice");
        // A busy machine may take longer than the moment, after which none is waited for in some seconds.
        let mut in_time = 0;
        let mut copied = |place: &str, there: &str| {
            in_time += usize::from(copy.cli(&["EXISTS", place]) == there);
            hand.advance(Duration::from_secs(6));
        };
        for _ in 0..20 {
            store.put(Kind::User, &alice, &secret(VALUE), None).await.expect("put");
            store.put(Kind::Application, &alice, &secret(VALUE), None).await.expect("put");
            copied("countersign:user:alice", "1");
            assert!(store.remove(Kind::User, &alice).await.expect("removed"));
            copied("countersign:user:alice", "0");
            let lock = store.lock(&alice, LEASE).await.expect("asked").expect("free");
            copied("countersign:lock:alice", "1");
            assert!(store.unlock(lock).await.expect("asked"));
        }
        assert!(in_time > 30, "{in_time} of 60 are there when they are answered");
        assert_eq!(waits(&server) - before, 60, "records of users and locks alone");
    });
}

#[test]
fn what_a_redis_has_lost_is_written_again_and_nothing_else_is_undone() {
    let server = RedisServer::start();
    local(async {
        let store = open(&StoreSettings::Redis(redis(server.port))).await;
        let place = |user: &str| format!("countersign:user:{user}");
        let mut versions = std::collections::BTreeMap::new();
        for user in ["lost", "gone", "newer", "back"] {
            let version = store.put(Kind::User, &RecordKey::from(user), &secret(b"old"), None).await.expect("put");
            versions.insert(user, version);
            assert_eq!(server.cli(&["COPY", &place(user), &format!("saved:{user}")]), "1");
        }
        // Two writes behind each other, and removals.
        for text in [b"next".as_slice(), b"last"] {
            for user in ["lost", "newer"] {
                let key = RecordKey::from(user);
                let version = store.swap(Kind::User, &key, versions.get(user).copied(), &secret(text), None).await;
                versions.insert(user, version.expect("swapped"));
            }
        }
        assert!(store.remove(Kind::User, &RecordKey::from("gone")).await.expect("removed"));
        assert!(store.remove(Kind::User, &RecordKey::from("back")).await.expect("removed"));
        // Another writes meanwhile: what it wrote stays.
        let other = open(&StoreSettings::Redis(redis(server.port))).await;
        other.put(Kind::User, &RecordKey::from("newer"), &secret(b"another's"), None).await.expect("put");
        other.put(Kind::User, &RecordKey::from("back"), &secret(b"consented anew"), None).await.expect("put");
        // As after a failover to a replica that was behind.
        for user in ["lost", "gone"] {
            assert_eq!(server.cli(&["COPY", &format!("saved:{user}"), &place(user), "REPLACE"]), "1");
        }
        assert_eq!(value(&store, Kind::User, "lost").await.as_deref(), Some(b"old".as_slice()));
        server.cli(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
        let found = async |user: &str| match store.load(Kind::User, &RecordKey::from(user)).await {
            Ok(record) => record.map(|record| record.value.expose_secret().to_vec()),
            Err(_) => Some(b"no answer".to_vec()),
        };
        while found("lost").await.as_deref() != Some(b"last".as_slice()) || found("gone").await.is_some() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(found("newer").await.as_deref(), Some(b"another's".as_slice()));
        assert_eq!(found("back").await.as_deref(), Some(b"consented anew".as_slice()));
    });
}

#[test]
fn a_lock_that_could_not_be_given_back_is_given_back_as_soon_as_it_can() {
    let server = RedisServer::start();
    local(async {
        let relay = Relay::before(server.port, Mood::Pass).await;
        let one = open(&StoreSettings::Redis(redis(relay.address.port()))).await;
        let two = open(&StoreSettings::Redis(redis(server.port))).await;
        let alice = RecordKey::from("alice");
        let lock = one.lock(&alice, LEASE).await.expect("asked").expect("free");
        relay.turn(Mood::Refuse);
        one.unlock(lock).await.expect_err("nobody is there");
        assert!(two.lock(&alice, LEASE).await.expect("asked").is_none());
        relay.turn(Mood::Pass);
        while two.lock(&alice, LEASE).await.expect("asked").is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
}

#[test]
fn a_token_of_aws_is_the_password_and_is_shown_again_before_it_ends() {
    let login = IamLogin {
        service: IamService::ElastiCache,
        name: "tokens".to_owned(),
        region: "eu-central-1".to_owned(),
        username: "countersign".to_owned(),
        access_key_id: "AKIDEXAMPLE".to_owned(),
        secret_access_key: SecretString::from("canary-aws-secret".to_owned()),
        session_token: None,
    };
    let manual = ManualClock::at(Now::at(1_000, 1_790_000_000_000));
    let server = RedisServer::start();
    let rights = acl_rule();
    let rights: Vec<&str> = rights.split_whitespace().filter(|word| !word.starts_with('>')).collect();
    // What is a password now, and nothing else.
    let takes = |token: &SecretString| {
        let hashed = format!(">{}", token.expose_secret());
        let mut words = vec!["ACL", "SETUSER", "countersign", "resetpass", &hashed];
        words.extend(&rights[2..]);
        assert_eq!(server.cli(&words), "OK");
    };
    let denied = || server.cli(&["ACL", "LOG"]).matches("auth").count();
    local(async {
        let mut wish = redis(server.port);
        wish.login = RedisLogin::Iam(Arc::new(login.clone()));
        takes(&login.token(manual.now()));
        let mut patience = patient();
        patience.authenticated = Duration::from_millis(100);
        let store =
            Store::open(&StoreSettings::Redis(wish), patience, Clock::Manual(manual.clone())).await.expect("opens");
        store.reach(PATIENCE).await.expect("let in");
        store.put(Kind::User, &RecordKey::from("alice"), &secret(VALUE), None).await.expect("put");
        let mut changes = store.changes();
        assert_eq!(changes.next().await, Change::Everything);
        let auths = || {
            let told = server.cli(&["INFO", "commandstats"]);
            let calls = told.lines().find_map(|line| line.strip_prefix("cmdstat_auth:calls="));
            calls.and_then(|calls| calls.split(',').next()).map_or(0, |calls| calls.parse::<u32>().expect("a number"))
        };
        let before = auths();
        while auths() < before + 3 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(denied(), 0, "each time with what is a password now");
        // A quarter of an hour later it is another: the one before is not shown any more.
        manual.advance(Duration::from_secs(900));
        takes(&login.token(manual.now()));
        store.reach(PATIENCE).await.expect("still there");
        while server.cli(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]) == "0" {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        store.reach(PATIENCE).await.expect("let in again");
        let before = auths();
        while auths() < before + 3 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        store.reach(PATIENCE).await.expect("still there");
    });
}

/// A config with this `[store]`.
fn config(store: &str) -> String {
    format!(
        "[[listener]]\nbind = \"127.0.0.1:0\"\n\n[provider.other]\nprofile = \"oauth2\"\n\
         base_url = \"https://api.other.example\"\ntoken_url = \"https://api.other.example/token\"\n\
         client_id = \"id\"\nclient_secret = {{ env = \"SECRET\" }}\n\n[client.erp]\n\
         key_sha256 = [\"8f1d3c6b5a7e90241bd4c0f6a2e8751993d60b4c7fe2a815d03b9c6e47f1a258\"]\n\n\
         [[route]]\npath = \"/other\"\nprovider = \"other\"\n\n{store}\n"
    )
}

fn wished(store: &str, folder: &Path) -> StoreSettings {
    storage(store, folder).settings
}

fn storage(store: &str, folder: &Path) -> Storage {
    let files = Redirected(folder.to_owned());
    let (snapshot, told) = build(&folder.join("proxy.toml"), config(store), &files);
    let told: Vec<String> = told.iter().map(countersign::syntax::Diagnostic::one_line).collect();
    snapshot.unwrap_or_else(|| panic!("{told:#?}")).store.clone()
}

/// The disk, with the variable that [`config`] wants.
struct Redirected(std::path::PathBuf);

impl countersign::config::Files for Redirected {
    fn read(&self, path: &Path) -> std::io::Result<Vec<u8>> {
        MachineFiles.read(path)
    }

    fn env(&self, name: &str) -> Option<String> {
        (name == "SECRET").then(|| self.0.display().to_string())
    }
}

#[test]
fn a_redis_behind_tls_is_verified_and_sees_our_certificate() {
    let folder = tempfile::tempdir().expect("a folder");
    let now = Clock::System.now();
    let authority = SimAuthority::new("redis CA", now).expect("a CA");
    let (server, client) = (
        authority.issue(&LeafSpec::server(now)).expect("a leaf"),
        authority.issue(&LeafSpec::client("countersign", now)).expect("a leaf"),
    );
    let stranger = SimAuthority::new("another CA", now).expect("a CA");
    for (name, text) in [
        ("ca.crt", authority.pem()),
        ("other.crt", stranger.pem()),
        ("server.crt", server.cert_pem),
        ("server.key", server.key_pem),
        ("client.crt", client.cert_pem),
        ("client.key", client.key_pem),
        ("store.key", base64(1)),
    ] {
        fs::write(folder.path().join(name), text).expect("written");
    }
    let at = folder.path().display();
    let config = format!(
        "port 0\ntls-port {{port}}\ntls-cert-file {at}/server.crt\ntls-key-file {at}/server.key\n\
         tls-ca-cert-file {at}/ca.crt\ntls-auth-clients yes"
    );
    let server = RedisServer::with(&config, &[]);
    let store = |host: &str, tls: &str| {
        let port = server.port;
        let text = format!("[store]\nurl = \"rediss://{host}:{port}/0\"\nkeys = [{{ file = \"store.key\" }}]\n{tls}");
        wished(&text, folder.path())
    };
    let identity = "client_cert = \"client.crt\", client_key = \"client.key\"";
    local(async {
        for host in ["localhost", "127.0.0.1"] {
            let store = open(&store(host, &format!("tls = {{ ca = \"ca.crt\", {identity} }}"))).await;
            store.put(Kind::User, &RecordKey::from("alice"), &secret(VALUE), None).await.expect("put");
            let mut changes = store.changes();
            assert_eq!(changes.next().await, Change::Everything);
        }
        for tls in [
            format!("tls = {{ ca = \"other.crt\", {identity} }}"),
            "tls = { ca = \"ca.crt\" }".to_owned(),
            String::new(),
        ] {
            let store = Store::open(&store("localhost", &tls), patient(), Clock::System).await.expect("opens");
            let why = store.reach(Duration::from_millis(500)).await.expect_err("no such TLS");
            assert!(matches!(why, Error::Unavailable(_)), "{why:?}");
        }
    });
}

#[test]
fn the_config_says_what_the_store_is() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("a.key"), base64(1) + "\n").expect("written");
    fs::write(folder.path().join("b.key"), base64(2)).expect("written");
    assert!(matches!(wished("", folder.path()), StoreSettings::Memory));
    assert!(matches!(wished("[store]\nephemeral = true", folder.path()), StoreSettings::Memory));
    let keys = "keys = [{ file = \"b.key\" }, { file = \"a.key\" }]";
    let StoreSettings::File { path, ring: read } =
        wished(&format!("[store]\nurl = \"file:var/a.redb\"\n{keys}"), folder.path())
    else {
        panic!("it is no file")
    };
    assert_eq!(path, folder.path().join("var/a.redb"));
    assert_eq!(read.first().id(), ring(&[2]).first().id(), "the first writes");
    let text = format!(
        "[store]\nurl = \"redis://cache.corp:7000/3\"\n{keys}\nusername = \"cs\"\npassword = {{ env = \"SECRET\" }}\nnamespace = \"pay\""
    );
    let StoreSettings::Redis(redis) = wished(&text, folder.path()) else { panic!("it is no Redis") };
    assert_eq!((redis.topology.to_string().as_str(), redis.database), ("cache.corp:7000", 3));
    assert_eq!((redis.namespace.as_str(), redis.wait_replicas), ("pay", 0));
    assert!(matches!(&redis.login, RedisLogin::Password { username, .. } if username.as_deref() == Some("cs")));
    assert!(redis.tls.is_none());
    let text = format!(
        "[store]\nurl = \"redis+sentinel://a,b:7/main/2\"\n{keys}\nsentinel = {{ username = \"watch\", password = {{ env = \"SECRET\" }} }}"
    );
    let StoreSettings::Redis(redis) = wished(&text, folder.path()) else { panic!("it is no Redis") };
    assert_eq!((redis.topology.to_string().as_str(), redis.database), ("a:26379,b:7/main", 2));
    assert!(
        matches!(&redis.sentinel_login, RedisLogin::Password { username, .. } if username.as_deref() == Some("watch"))
    );
    assert!(matches!(redis.login, RedisLogin::Nobody) && redis.wait_replicas == 1);
    let text = format!(
        "[store]\nurl = \"rediss+cluster://clustercfg.corp\"\n{keys}\nusername = \"cs\"\nwait_replicas = 2\n\
         iam = {{ service = \"memorydb\", name = \"tokens\", region = \"eu-central-1\", access_key_id = \"AKIDEXAMPLE\", \
         secret_access_key = {{ env = \"SECRET\" }} }}"
    );
    let StoreSettings::Redis(redis) = wished(&text, folder.path()) else { panic!("it is no Redis") };
    let RedisLogin::Iam(iam) = &redis.login else { panic!("{:?}", redis.login) };
    assert_eq!((iam.name.as_str(), iam.username.as_str(), iam.service), ("tokens", "cs", IamService::MemoryDb));
    assert!(redis.tls.is_some() && redis.wait_replicas == 2);
}

#[test]
fn a_store_is_another_one_as_soon_as_anything_about_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("a.key"), base64(1)).expect("written");
    fs::write(folder.path().join("b.key"), base64(2)).expect("written");
    let id = |store: &str| storage(&format!("[store]\n{store}"), folder.path()).id;
    let (a, b) = ("{ file = \"a.key\" }", "{ file = \"b.key\" }");
    let redis = |more: &str| format!("url = \"redis://h\"\nkeys = [{a}]\n{more}");
    let all = [
        "url = \"memory:\"".to_owned(),
        format!("url = \"file:a\"\nkeys = [{a}]"),
        format!("url = \"file:b\"\nkeys = [{a}]"),
        redis(""),
        redis("namespace = \"x\""),
        redis("password = \"x\""),
        redis("username = \"x\"\npassword = \"x\""),
        redis("").replace("h\"", "h/1\""),
        redis("").replace("h\"", "h:1\""),
        redis("").replace("redis:", "rediss:"),
        redis("").replace("redis:", "redis+cluster:"),
        redis("").replace("redis:", "redis+sentinel:").replace("h\"", "h/main\""),
        redis("sentinel = { password = \"x\" }").replace("redis:", "redis+sentinel:").replace("h\"", "h/main\""),
        redis("wait_replicas = 1"),
    ];
    let ids: std::collections::BTreeSet<_> = all.iter().map(|store| id(store)).collect();
    assert_eq!(ids.len(), all.len());
    assert_eq!(id(&all[0]), storage("", folder.path()).id);
    assert_eq!(id(&redis("")), id(&redis("namespace = \"countersign\"")));
    let other = format!("url = \"file:a\"\nkeys = [{b}, {a}]");
    assert_eq!(id(&all[1]), id(&other), "a reload gives the open store its new keys");
}

#[test]
fn rekey_seals_what_is_there_under_the_first_key() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| folder.path().join(name);
    fs::write(file("a.key"), base64(1)).expect("written");
    fs::write(file("b.key"), base64(2)).expect("written");
    let rekey = |store: &str, more: &[&str]| {
        fs::write(file("proxy.toml"), config(store)).expect("written");
        let mut command = Command::new(env!("CARGO_BIN_EXE_countersign"));
        command.args(["store", "rekey", "-c"]).arg(file("proxy.toml")).args(more).env("SECRET", "s");
        let told = command.output().expect("it runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (told.status.code(), text(&told.stdout), text(&told.stderr))
    };
    let of = |url: &str, keys: &str| format!("[store]\nurl = \"{url}\"\nkeys = [{keys}]");
    let (old, new) = ("{ file = \"a.key\" }", "{ file = \"b.key\" }");
    let both = of("file:a.redb", &format!("{new}, {old}"));
    // Nothing to do.
    let (code, _, err) = rekey("", &[]);
    assert!(code == Some(2) && err.contains("in memory"), "{err}");
    let (code, _, err) = rekey(&both, &[]);
    assert!(code == Some(2) && err.contains("no store at") && !file("a.redb").exists(), "{err}");
    // A file.
    local(async {
        let store = open(&in_file(&file("a.redb"), &[1])).await;
        for user in ["alice", "bob"] {
            store.put(Kind::User, &RecordKey::from(user), &secret(VALUE), None).await.expect("put");
        }
        let (code, _, err) = rekey(&both, &[]);
        assert!(code == Some(1) && err.contains("in use by another process"), "{err}");
    });
    let id = ring(&[2]).first().id();
    let (code, out, err) = rekey(&both, &[]);
    assert_eq!((code, out, err), (Some(0), format!("2 records sealed under key {id} now, 0 before\n"), String::new()));
    let (code, out, _) = rekey(&both, &["--json"]);
    let out: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(code, Some(0));
    assert_eq!(out, serde_json::json!({ "key": id, "resealed": 0, "already": 2, "moved": 0, "damaged": [] }));
    // The old key alone opens none of them, and they are told by name.
    let (code, _, err) = rekey(&of("file:a.redb", old), &[]);
    assert!(code == Some(1) && err.contains("user/alice") && err.contains("not in `keys`"), "{err}");
    let (code, ..) = rekey(&of("file:a.redb", new), &[]);
    assert_eq!(code, Some(0), "what was set aside has returned");
    // Redis.
    let server = RedisServer::start();
    let url = format!("redis://127.0.0.1:{}", server.port);
    local(async {
        let store = open(&StoreSettings::Redis(redis(server.port))).await;
        let later = Clock::System.now().wall + 3_600_000;
        store.put(Kind::User, &RecordKey::from("alice"), &secret(VALUE), Some(later)).await.expect("put");
    });
    let (code, out, err) = rekey(&of(&url, &format!("{new}, {old}")), &[]);
    assert!(code == Some(0) && out.starts_with("1 record sealed"), "{out}{err}");
    assert_ne!(server.cli(&["PTTL", "countersign:user:alice"]), "-1", "its end is kept");
    drop(server);
    let (code, _, err) = rekey(&of(&url, new), &[]);
    assert!(code == Some(1) && err.contains("cannot be reached"), "{err}");
}

#[test]
fn check_says_what_is_wrong_with_keys() {
    let files = InMemory::new().with_env("SECRET", "s").with_env("SHORT", "AQEB").with_env("GOOD", base64(1));
    let told = |store: &str| {
        let (_, told) = build(Path::new("proxy.toml"), config(store), &files);
        for found in &told {
            assert!(!found.render(false).contains("AQEB"), "a key is shown");
        }
        told.iter().map(countersign::syntax::Diagnostic::one_line).collect::<Vec<_>>().join("\n")
    };
    let file = |keys: &str| format!("[store]\nurl = \"file:a.redb\"\nkeys = [{keys}]");
    assert_eq!(told(&file("{ env = \"GOOD\" }")), "");
    assert!(told(&file("{ env = \"SHORT\" }")).contains("it has 3 bytes instead of 32"));
    assert!(told(&file("{ env = \"SECRET\" }")).contains("it is not base64"));
    assert!(told(&file("{ env = \"GOOD\" }, { env = \"GOOD\" }")).contains("is in the list already"));
    assert!(told(&file(&format!("\"{}\"", base64(1)))).contains("stands in the config file"));
    assert!(told("[store]\nurl = \"file:a.redb\"").contains("has no `keys`"));
    assert!(told("[store]\nurl = \"memory:\"\nkeys = [{ env = \"GOOD\" }]").contains("has no use for `keys`"));
}
