//! Records in a Redis that several instances share.
//!
//! Every key and channel begins with the namespace: `countersign:user:alice`, `countersign:lock:…`,
//! `countersign:fence`, `countersign:changes`. An operation that must be one step is one command or one script. Redis
//! 6.2 or later; one instance of it, or anything that stands behind one address: not a cluster of shards.

mod link;
mod listen;
mod script;
mod verdict;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ::redis::{FromRedisValue, RedisResult, cmd};
use tokio::task::JoinSet;

use self::link::{RedisLink, RedisTarget};
use self::script::Scripts;
use self::verdict::RedisVerdict;
use super::changes::{ChangeNotifier, Lock};
use super::error::{Damage, Damaged, Error};
use super::quota_call::QuotaCall;
use super::record::{Kind, RecordKey, RecordName, Version};
use super::store_settings::RedisSettings;
use crate::base::backoff::Backoff;
use crate::base::time::millis;

/// The time limits for a Redis.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Patience {
    /// A whole operation, as its caller sees it.
    pub operation: Duration,
    /// Making a connection, in the background: DNS, TCP, TLS, credentials, a first answer.
    pub connect: Duration,
    /// After a failure the Redis is left alone for so long; meanwhile callers are told at once.
    pub rest: Backoff,
}

impl Default for Patience {
    /// For serving: requests must not feel it.
    fn default() -> Self {
        let rest = Backoff { first: Duration::from_millis(250), ceiling: Duration::from_secs(4) };
        Self { operation: Duration::from_millis(30), connect: Duration::from_secs(2), rest }
    }
}

impl Patience {
    /// For a command that somebody waits for.
    pub fn of_a_person() -> Self {
        Self { operation: Duration::from_secs(5), connect: Duration::from_secs(5), ..Self::default() }
    }
}

#[derive(Debug)]
pub(super) struct RedisStore {
    namespace: String,
    link: RedisLink,
    scripts: Scripts,
    notifier: ChangeNotifier,
    target: Arc<RedisTarget>,
    listener: std::cell::RefCell<JoinSet<()>>,
}

impl RedisStore {
    pub(super) fn open(settings: RedisSettings, patience: Patience, notifier: ChangeNotifier) -> Self {
        let namespace = settings.namespace.clone();
        let target = Arc::new(RedisTarget { settings, patience });
        let link = RedisLink::open(target.clone(), notifier.clone());
        Self { namespace, link, scripts: Scripts::new(), notifier, target, listener: Default::default() }
    }

    pub(super) async fn reach(&self, within: Duration) -> Result<(), Error> {
        self.link.reach(within).await
    }

    pub(super) async fn get(&self, name: &RecordName) -> Result<Option<Vec<u8>>, Error> {
        self.query(cmd("GET").arg(self.place(name))).await.map_err(|verdict| of(name, verdict))
    }

    pub(super) async fn set(&self, name: &RecordName, sealed: Vec<u8>, expiry: Option<u64>) -> Result<(), Error> {
        let mut set = cmd("SET");
        set.arg(self.place(name)).arg(sealed);
        if let Some(expiry) = expiry {
            set.arg("PXAT").arg(expiry);
        }
        self.query(&set).await.map_err(|verdict| of(name, verdict))
    }

    pub(super) async fn replace(
        &self,
        name: &RecordName,
        expected: Option<Version>,
        sealed: Vec<u8>,
        expiry: Option<u64>,
    ) -> Result<bool, Error> {
        let expected = expected.map_or(Vec::new(), |version| version.0.to_be_bytes().to_vec());
        let mut call = self.scripts.replace.key(self.place(name));
        call.arg(expected).arg(sealed).arg(expiry.unwrap_or_default());
        let replaced = self.link.ask(async |redis| call.invoke_async(redis).await).await;
        replaced.map_err(|verdict| of(name, verdict))
    }

    pub(super) async fn take(&self, name: &RecordName) -> Result<Option<Vec<u8>>, Error> {
        self.query(cmd("GETDEL").arg(self.place(name))).await.map_err(|verdict| of(name, verdict))
    }

    /// Removes a record if it is still this writing of it.
    pub(super) async fn withdraw(&self, name: &RecordName, version: Version) -> Result<(), Error> {
        let mut call = self.scripts.withdraw.key(self.place(name));
        call.arg(version.0.to_be_bytes().as_slice());
        let withdrawn = self.link.ask(async |redis| call.invoke_async::<i64>(redis).await).await;
        withdrawn.map(drop).map_err(|verdict| of(name, verdict))
    }

    /// Some of a kind, and where it goes on; 0: nowhere. A record may come twice.
    pub(super) async fn scan(
        &self,
        kind: Kind,
        cursor: u64,
        about: usize,
    ) -> Result<(Vec<(RecordKey, Vec<u8>)>, u64), Error> {
        let prefix = format!("{}:{}:", self.namespace, kind.name());
        let mut scan = cmd("SCAN");
        // No character of a namespace means anything in a pattern.
        scan.arg(cursor).arg("MATCH").arg(format!("{prefix}*")).arg("COUNT").arg(about);
        let (next, places): (u64, BTreeSet<Vec<u8>>) = self.query(&scan).await.map_err(RedisVerdict::into_error)?;
        let places: Vec<Vec<u8>> = places.into_iter().collect();
        let mut found = Vec::new();
        // A scan that meets a long chain brings more than it was asked for.
        for part in places.chunks(about) {
            let sealed: Vec<Option<Vec<u8>>> =
                self.query(cmd("MGET").arg(part)).await.map_err(RedisVerdict::into_error)?;
            for (place, sealed) in part.iter().zip(sealed) {
                if let (Some(key), Some(sealed)) = (place.strip_prefix(prefix.as_bytes()), sealed) {
                    found.push((RecordKey::new(key), sealed));
                }
            }
        }
        Ok((found, next))
    }

    pub(super) async fn lock(&self, key: &RecordKey, lease: Duration, claim: u64) -> Result<Option<Lock>, Error> {
        let mut call = self.scripts.lock.key(self.lock_place(key));
        call.key(format!("{}:fence", self.namespace)).arg(millis(lease).max(1)).arg(format!("{claim:016x}"));
        let fence: u64 =
            self.link.ask(async |redis| call.invoke_async(redis).await).await.map_err(RedisVerdict::into_error)?;
        Ok((fence != 0).then(|| Lock { key: key.clone(), fence }))
    }

    pub(super) async fn unlock(&self, lock: &Lock) -> Result<bool, Error> {
        let mut call = self.scripts.unlock.key(self.lock_place(&lock.key));
        call.arg(lock.fence);
        self.link.ask(async |redis| call.invoke_async(redis).await).await.map_err(RedisVerdict::into_error)
    }

    /// Counts requests in a window that ends at `until`. Its count stays for an hour longer: the server's clock may be
    /// ahead.
    pub(super) async fn claim_quota(&self, key: &str, claim: &QuotaCall) -> Result<(u64, u64), Error> {
        let mut call = self.scripts.count.key(format!("{}:quota:{key}", self.namespace));
        let QuotaCall { debt, want, limit, until } = *claim;
        call.arg(debt).arg(want).arg(limit).arg(until.saturating_add(3_600_000));
        self.link.ask(async |redis| call.invoke_async(redis).await).await.map_err(RedisVerdict::into_error)
    }

    pub(super) async fn announce(&self, name: &RecordName) -> Result<(), Error> {
        let mut publish = cmd("PUBLISH");
        publish.arg(listen::channel(&self.namespace)).arg(listen::news(name));
        self.query::<i64>(&publish).await.map(drop).map_err(RedisVerdict::into_error)
    }

    /// Begins to listen for news, once.
    pub(super) fn listen(&self) {
        let mut listener = self.listener.borrow_mut();
        if listener.is_empty() {
            listener.spawn_local(listen::listen(self.target.clone(), self.notifier.clone()));
        }
    }

    async fn query<T: FromRedisValue>(&self, command: &::redis::Cmd) -> Result<T, RedisVerdict> {
        self.link.ask(async |redis| -> RedisResult<T> { command.query_async(redis).await }).await
    }

    fn place(&self, name: &RecordName) -> Vec<u8> {
        let prefix = format!("{}:{}:", self.namespace, name.kind.name());
        [prefix.as_bytes(), name.key.as_bytes()].concat()
    }

    fn lock_place(&self, key: &RecordKey) -> Vec<u8> {
        let prefix = format!("{}:lock:", self.namespace);
        [prefix.as_bytes(), key.as_bytes()].concat()
    }
}

/// Converts a verdict about one record into an error.
fn of(name: &RecordName, verdict: RedisVerdict) -> Error {
    match verdict {
        RedisVerdict::WrongType => Error::Damaged(Damaged { name: name.clone(), why: Damage::WrongType }),
        RedisVerdict::Broken(_) | RedisVerdict::Full(_) | RedisVerdict::Refused(_) => verdict.into_error(),
    }
}
