//! Records in a Redis that several instances share: one server, the master that Sentinels name, or a Cluster.
//!
//! Every key and channel begins with the namespace: `countersign:user:alice`, `countersign:lock:…`,
//! `countersign:fence`, `countersign:changes`. An operation that must be one step is one command or one script. A script
//! with two keys, that of locks, has them in one slot of a Cluster by a hash tag: `countersign:lock:{1a2b}:…` and
//! `countersign:fence:{1a2b}`. The names of records are the same everywhere. Redis 6.2 or later, or Valkey.
//!
//! Redis copies writes to its replicas after it has answered them. What must not get lost, locks and users' records, is
//! waited for on `wait_replicas` replicas, and the last writes are repeated where a new connection finds them lost.

mod cluster;
mod left_locks;
mod link;
mod listen;
mod recent_writes;
mod redis_call;
mod redis_target;
mod script;
mod sentinel;
mod slot_map;
mod verdict;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use ::redis::{Cmd, FromRedisValue, cmd};
use futures_util::future::join_all;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use self::cluster::RedisCluster;
use self::left_locks::{LeftLocks, give_back};
use self::link::{LinkPlace, RedisLink};
use self::recent_writes::{RecentWrite, RecentWrites};
use self::redis_call::RedisCall;
use self::redis_target::RedisTarget;
use self::script::Scripts;
use self::slot_map::hash_tag;
use self::verdict::RedisVerdict;
use super::changes::{ChangeNotifier, Claim, Lock};
use super::envelope::envelope_version;
use super::error::{Damage, Damaged, Error};
use super::quota_call::QuotaCall;
use super::record::{Kind, RecordKey, RecordName, Version};
use super::redis_settings::{RedisAddress, RedisSettings, RedisTopology};
use crate::base::backoff::Backoff;
use crate::base::counted::counted;
use crate::base::time::{Clock, millis};

/// After a connection was made, lost writes are looked for at once, and again after these pauses: where another process
/// has to write first.
const REPAIRS: [Duration; 3] = [Duration::ZERO, Duration::from_secs(1), Duration::from_secs(3)];

/// The time limits for a Redis.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Patience {
    /// A whole operation, as its caller sees it.
    pub operation: Duration,
    /// Making a connection, in the background: DNS, TCP, TLS, credentials, a first answer.
    pub connect: Duration,
    /// After a failure the Redis is left alone for so long; meanwhile callers are told at once.
    pub rest: Backoff,
    /// A connection whose credentials end is shown fresh ones this often.
    pub authenticated: Duration,
}

impl Default for Patience {
    /// For serving: requests must not feel it.
    fn default() -> Self {
        let rest = Backoff { first: Duration::from_millis(250), ceiling: Duration::from_secs(4) };
        Self {
            operation: Duration::from_millis(30),
            connect: Duration::from_secs(2),
            rest,
            // AWS ends a connection 12 hours after it has last seen a token.
            authenticated: Duration::from_secs(6 * 3600),
        }
    }
}

impl Patience {
    /// For a command that somebody waits for.
    pub fn of_a_person() -> Self {
        Self { operation: Duration::from_secs(5), connect: Duration::from_secs(5), ..Self::default() }
    }
}

/// The connections to the servers.
#[derive(Debug)]
enum RedisWay {
    Cluster(RedisCluster),
    Link(RedisLink),
}

/// What both callers and the task that repairs need.
#[derive(Debug)]
struct RedisAccess {
    namespace: String,
    way: RedisWay,
    scripts: Scripts,
    recent: RecentWrites,
    left: LeftLocks,
}

#[derive(Debug)]
pub(super) struct RedisStore {
    access: Rc<RedisAccess>,
    notifier: ChangeNotifier,
    target: Rc<RedisTarget>,
    listener: RefCell<JoinSet<()>>,
    _tasks: JoinSet<()>,
}

/// A place in a walk: the master, counted in the order of slots, and the cursor of its `SCAN`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct ScanPlace {
    master: usize,
    cursor: u64,
}

impl RedisStore {
    pub(super) fn open(settings: RedisSettings, patience: Patience, clock: Clock, notifier: ChangeNotifier) -> Self {
        let (namespace, topology) = (settings.namespace.clone(), settings.topology.clone());
        let target = Rc::new(RedisTarget { settings, patience, clock });
        let made = watch::Sender::new(0);
        let connections = made.subscribe();
        let link = |place| RedisWay::Link(RedisLink::open(target.clone(), place, notifier.clone(), made.clone()));
        let way = match topology {
            RedisTopology::Cluster(seeds) => {
                let channel = listen::channel(&namespace);
                let (target, notifier, made) = (target.clone(), notifier.clone(), made.clone());
                RedisWay::Cluster(RedisCluster::open(target, seeds, &channel, notifier, made))
            }
            RedisTopology::Sentinel { sentinels, service } => link(LinkPlace::Master { sentinels, service }),
            RedisTopology::Single(address) => link(LinkPlace::Node(address)),
        };
        let access = Rc::new(RedisAccess {
            namespace,
            way,
            scripts: Scripts::new(),
            recent: RecentWrites::default(),
            left: LeftLocks::default(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn_local(repair(access.clone(), connections));
        tasks.spawn_local(give_back(access.clone()));
        Self { access, notifier, target, listener: Default::default(), _tasks: tasks }
    }

    pub(super) async fn reach(&self, within: Duration) -> Result<(), Error> {
        match &self.access.way {
            RedisWay::Cluster(cluster) => cluster.reach(within).await,
            RedisWay::Link(link) => link.reach(within).await,
        }
    }

    pub(super) async fn get(&self, name: &RecordName) -> Result<Option<Vec<u8>>, Error> {
        let (access, place) = (&self.access, self.access.place(name));
        access.ask(&place, &RedisCall::command(get(&place))).await.map_err(|verdict| of(name, verdict))
    }

    pub(super) async fn set(&self, name: &RecordName, sealed: Vec<u8>, expiry: Option<u64>) -> Result<(), Error> {
        let place = self.access.place(name);
        let mut set = cmd("SET");
        set.arg(&place).arg(sealed);
        if let Some(expiry) = expiry {
            set.arg("PXAT").arg(expiry);
        }
        let call = RedisCall::command(set).replicated(matters(name));
        self.access.ask(&place, &call).await.map_err(|verdict| of(name, verdict))
    }

    pub(super) async fn replace(
        &self,
        name: &RecordName,
        expected: Option<Version>,
        sealed: Vec<u8>,
        expiry: Option<u64>,
    ) -> Result<bool, Error> {
        let replaced = self.access.replace(name, expected, &sealed, expiry, matters(name)).await;
        let replaced = replaced.map_err(|verdict| of(name, verdict))?;
        if let (true, true, Some(before)) = (replaced, matters(name), expected) {
            let written = Some((sealed, expiry));
            self.access.recent.note(RecentWrite { name: name.clone(), before, written });
        }
        Ok(replaced)
    }

    pub(super) async fn take(&self, name: &RecordName) -> Result<Option<Vec<u8>>, Error> {
        let place = self.access.place(name);
        let mut take = cmd("GETDEL");
        take.arg(&place);
        let call = RedisCall::command(take).replicated(matters(name));
        let taken: Option<Vec<u8>> = self.access.ask(&place, &call).await.map_err(|verdict| of(name, verdict))?;
        if let Some(before) = taken.as_deref().and_then(envelope_version) {
            self.removed(name, before);
        }
        Ok(taken)
    }

    /// Removes a record if it is still this writing of it.
    pub(super) async fn withdraw(&self, name: &RecordName, version: Version) -> Result<(), Error> {
        let removed = self.access.withdraw(name, version, matters(name)).await.map_err(|verdict| of(name, verdict))?;
        if removed {
            self.removed(name, version);
        }
        Ok(())
    }

    fn removed(&self, name: &RecordName, before: Version) {
        if matters(name) {
            self.access.recent.note(RecentWrite { name: name.clone(), before, written: None });
        }
    }

    /// Some of a kind, and where it goes on. A record may come twice; one that a failover or a move of slots meets in a
    /// walk may be left out of it.
    pub(super) async fn scan(
        &self,
        kind: Kind,
        from: ScanPlace,
        about: usize,
    ) -> Result<(Vec<(RecordKey, Vec<u8>)>, Option<ScanPlace>), Error> {
        let prefix = format!("{}:{}:", self.access.namespace, kind.name());
        let mut scan = cmd("SCAN");
        // No character of a namespace means anything in a pattern.
        scan.arg(from.cursor).arg("MATCH").arg(format!("{prefix}*")).arg("COUNT").arg(about);
        let scanned = self.access.ask_master(from.master, &RedisCall::command(scan)).await;
        let Some((cursor, places)) = scanned.map_err(RedisVerdict::into_error)? else { return Ok((Vec::new(), None)) };
        let places: BTreeSet<Vec<u8>> = places;
        let places: Vec<Vec<u8>> = places.into_iter().collect();
        let mut found = Vec::new();
        // A scan that meets a long chain brings more than it was asked for.
        for part in places.chunks(about) {
            let sealed = self.access.get_all(part).await.map_err(RedisVerdict::into_error)?;
            for (place, sealed) in part.iter().zip(sealed) {
                if let (Some(key), Some(sealed)) = (place.strip_prefix(prefix.as_bytes()), sealed) {
                    found.push((RecordKey::new(key), sealed));
                }
            }
        }
        let next = match cursor {
            0 => ScanPlace { master: from.master + 1, cursor: 0 },
            cursor => ScanPlace { cursor, ..from },
        };
        Ok((found, (next.master < self.access.masters()).then_some(next)))
    }

    pub(super) async fn lock(&self, claim: &Claim, lease: Duration) -> Result<Option<Lock>, Error> {
        let [lock, fence] = self.access.lock_places(&claim.key);
        let call = RedisCall::script(&self.access.scripts.lock, &[&lock, &fence]);
        let call = call.arg(millis(lease).max(1)).arg(claim_text(claim)).replicated(true);
        let fence: u64 = self.access.ask(&lock, &call).await.map_err(RedisVerdict::into_error)?;
        Ok((fence != 0).then(|| Lock { claim: claim.clone(), fence }))
    }

    pub(super) async fn unlock(&self, lock: &Lock) -> Result<bool, Error> {
        let unlocked = self.access.unlock(&lock.claim).await;
        match &unlocked {
            Ok(_) => self.access.left.remove(&lock.claim),
            Err(_) => self.access.left.add(&lock.claim),
        }
        unlocked.map_err(RedisVerdict::into_error)
    }

    pub(super) fn leave_lock(&self, claim: &Claim) {
        self.access.left.add(claim);
    }

    /// Counts requests in a window that ends at `until`. Its count stays for an hour longer: the server's clock may be
    /// ahead.
    pub(super) async fn claim_quota(&self, key: &str, claim: &QuotaCall) -> Result<(u64, u64), Error> {
        let place = format!("{}:quota:{key}", self.access.namespace).into_bytes();
        let QuotaCall { debt, want, limit, until } = *claim;
        let call = RedisCall::script(&self.access.scripts.count, &[&place]);
        let call = call.arg(debt).arg(want).arg(limit).arg(until.saturating_add(3_600_000));
        self.access.ask(&place, &call).await.map_err(RedisVerdict::into_error)
    }

    pub(super) async fn announce(&self, name: &RecordName) -> Result<(), Error> {
        let channel = listen::channel(&self.access.namespace);
        let mut publish = cmd("PUBLISH");
        publish.arg(&channel).arg(listen::news(name));
        // The channel's slot says where listeners are.
        let told = self.access.ask::<i64>(channel.as_bytes(), &RedisCall::command(publish)).await;
        told.map(drop).map_err(RedisVerdict::into_error)
    }

    /// Begins to listen for news, once.
    pub(super) fn listen(&self) {
        let mut listener = self.listener.borrow_mut();
        if listener.is_empty() {
            listener.spawn_local(listen::listen(self.target.clone(), self.access.news_at(), self.notifier.clone()));
        }
    }
}

impl RedisAccess {
    /// Asks the server that a key belongs to.
    async fn ask<T: FromRedisValue>(&self, key: &[u8], call: &RedisCall<'_>) -> Result<T, RedisVerdict> {
        match &self.way {
            RedisWay::Cluster(cluster) => cluster.ask(key, call).await,
            RedisWay::Link(link) => link.ask(call).await,
        }
    }

    /// Asks a master by its number; `None` if there are not so many.
    async fn ask_master<T: FromRedisValue>(
        &self,
        number: usize,
        call: &RedisCall<'_>,
    ) -> Result<Option<T>, RedisVerdict> {
        match &self.way {
            RedisWay::Cluster(cluster) => match cluster.masters().await?.get(number) {
                Some(master) => cluster.ask_node(master, call).await.map(Some),
                None => Ok(None),
            },
            RedisWay::Link(link) => link.ask(call).await.map(Some),
        }
    }

    /// Returns the number of masters.
    fn masters(&self) -> usize {
        match &self.way {
            RedisWay::Cluster(cluster) => cluster.known_masters().len(),
            RedisWay::Link(_) => 1,
        }
    }

    /// Returns the values of keys, in their order.
    async fn get_all(&self, places: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, RedisVerdict> {
        match &self.way {
            RedisWay::Cluster(cluster) => {
                let calls: Vec<_> = places.iter().map(|place| RedisCall::command(get(place))).collect();
                let asked = places.iter().zip(&calls).map(|(place, call)| cluster.ask(place, call));
                join_all(asked).await.into_iter().collect()
            }
            RedisWay::Link(_) if places.is_empty() => Ok(Vec::new()),
            RedisWay::Link(link) => {
                let mut get = cmd("MGET");
                get.arg(places);
                link.ask(&RedisCall::command(get)).await
            }
        }
    }

    async fn replace(
        &self,
        name: &RecordName,
        expected: Option<Version>,
        sealed: &[u8],
        expiry: Option<u64>,
        replicated: bool,
    ) -> Result<bool, RedisVerdict> {
        let expected = expected.map_or(Vec::new(), |version| version.0.to_be_bytes().to_vec());
        let place = self.place(name);
        let call = RedisCall::script(&self.scripts.replace, &[&place]);
        let call = call.arg(expected).arg(sealed).arg(expiry.unwrap_or_default()).replicated(replicated);
        self.ask(&place, &call).await
    }

    async fn withdraw(&self, name: &RecordName, version: Version, replicated: bool) -> Result<bool, RedisVerdict> {
        let place = self.place(name);
        let call = RedisCall::script(&self.scripts.withdraw, &[&place]);
        let call = call.arg(version.0.to_be_bytes().as_slice()).replicated(replicated);
        self.ask(&place, &call).await
    }

    /// Gives a lock back. One that another claim has taken since stays.
    async fn unlock(&self, claim: &Claim) -> Result<bool, RedisVerdict> {
        let [place, _] = self.lock_places(&claim.key);
        let call = RedisCall::script(&self.scripts.unlock, &[&place]).arg(claim_text(claim));
        self.ask(&place, &call).await
    }

    /// Repeats the writes that were lost. Returns how many those were.
    async fn repeat_lost(&self) -> Result<usize, RedisVerdict> {
        let mut repeated = 0;
        for write in self.recent.all() {
            let RecentWrite { name, before, written } = &*write;
            let was_lost = match written {
                Some((sealed, expiry)) => self.replace(name, Some(*before), sealed, *expiry, false).await?,
                None => self.withdraw(name, *before, false).await?,
            };
            repeated += usize::from(was_lost);
        }
        Ok(repeated)
    }

    fn news_at(&self) -> watch::Receiver<Option<RedisAddress>> {
        match &self.way {
            RedisWay::Cluster(cluster) => cluster.news_at(),
            RedisWay::Link(link) => link.at(),
        }
    }

    fn place(&self, name: &RecordName) -> Vec<u8> {
        let prefix = format!("{}:{}:", self.namespace, name.kind.name());
        [prefix.as_bytes(), name.key.as_bytes()].concat()
    }

    /// Returns the keys of a lock and of the last fencing number.
    fn lock_places(&self, key: &RecordKey) -> [Vec<u8>; 2] {
        let namespace = &self.namespace;
        let (prefix, fence) = match &self.way {
            RedisWay::Cluster(_) => {
                let tag = hash_tag(key.as_bytes());
                (format!("{namespace}:lock:{tag}:"), format!("{namespace}:fence:{tag}"))
            }
            RedisWay::Link(_) => (format!("{namespace}:lock:"), format!("{namespace}:fence")),
        };
        [[prefix.as_bytes(), key.as_bytes()].concat(), fence.into_bytes()]
    }
}

/// Looks for lost writes whenever a connection was made.
async fn repair(access: Rc<RedisAccess>, mut connections: watch::Receiver<u64>) {
    while connections.changed().await.is_ok() {
        for pause in REPAIRS {
            sleep(pause).await;
            match access.repeat_lost().await {
                Ok(0) => {}
                Ok(lost) => tracing::warn!("the store had lost {}: repeated", counted(lost, "write")),
                // The next connection leads here again.
                Err(_) => break,
            }
        }
    }
}

fn claim_text(claim: &Claim) -> String {
    format!("{:016x}", claim.number)
}

fn get(place: &[u8]) -> Cmd {
    let mut get = cmd("GET");
    get.arg(place);
    get
}

/// Returns whether a record must not get lost: nobody but the user can bring a consent back.
fn matters(name: &RecordName) -> bool {
    match name.kind {
        Kind::User => true,
        Kind::Application | Kind::Pending => false,
    }
}

/// Converts a verdict about one record into an error.
fn of(name: &RecordName, verdict: RedisVerdict) -> Error {
    match verdict {
        RedisVerdict::WrongType => Error::Damaged(Damaged { name: name.clone(), why: Damage::WrongType }),
        RedisVerdict::Broken(_)
        | RedisVerdict::Elsewhere { .. }
        | RedisVerdict::Full(_)
        | RedisVerdict::NotNow(_)
        | RedisVerdict::Refused(_) => verdict.into_error(),
    }
}
