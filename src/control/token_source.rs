//! Application tokens that outlive the process and are shared by replicas: a fetch with a store before and behind it.
//!
//! Before a token is fetched, the store is asked for one that is newer than the known one: another replica may have
//! fetched it, or this one before its restart. The replica that fetches holds a lock meanwhile; the others wait for its
//! token, and fetch for themselves if that takes too long. If the store fails, a token is fetched all the same: only
//! the saving is lost. All of this is off the path of a request.
//!
//! If a new token invalidates the old one (`coexistence` of the profile), this would end in replicas invalidating each
//! other's tokens. In that case a token is fetched under the lock or not at all while the store responds; while it does
//! not, a live token is kept, and one that became invalid before its expiry is not replaced more often than once a
//! minute.
//!
//! A stored token's end is one moment, independent of the clocks: its remaining life when it is found, by the wall
//! clock, is its life from then on, by both clocks. Replicas' clocks differ. A token whose issue lies ahead, by a
//! minute at most, was stored by a clock that is ahead of the local one by no less; it lives no longer than its whole
//! life from now, nor beyond the end that is written. One that is further ahead is not accepted.

use std::pin::pin;
use std::time::Duration;

use http::HeaderValue;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use zeroize::Zeroizing;

use super::consents::{lease, patiently};
use super::{Fetched, KnownToken, Rests, TokenHandle, Tracker};
use crate::base::backoff::Backoff;
use crate::base::draw::draw;
use crate::base::planted::{PlantedFault, planted};
use crate::base::secret::{ExposeSecret, Fingerprint, SecretBox, SecretString};
use crate::base::time::{Deadline, Now, Within, millis};
use crate::store::{Change, Changes, Error, Kind, Lock, LockAttempt, RecordKey, Store, StoredRecord};
use crate::token::call_budget::CallBudget;
use crate::token::failure::{Class, Failure};
use crate::token::grant::{CallCredentials, Grant};
use crate::token::key::TokenKey;
use crate::token::policy::UNCHANGED;

/// Version of the format of stored records.
const VERSION: u8 = 1;
/// Another replica's fetch is looked for this often, should its word get lost.
const LOOK: Duration = Duration::from_millis(250);
/// Replicas' clocks may differ by so much, in milliseconds.
const SKEW: u64 = 60_000;
/// Without the store, a contested token that died before its time is replaced this long after it was issued, in
/// milliseconds.
const ALONE: u64 = 60_000;
/// A life of no seconds is one of less than a second.
const A_SECOND: Duration = Duration::from_secs(1);
/// So often a token that comes back with nothing left is waited out.
const MOST_ENDINGS: u32 = 3;
/// A new token is served without being kept if the store takes longer than this; it is kept all the same.
const SAVED: Duration = Duration::from_millis(500);
/// Rests after a fetch that is not allowed without the store: the store may be back at any moment.
const STORE: Backoff = Backoff { first: Duration::from_secs(1), ceiling: Duration::from_secs(4) };

/// The means that a fetch may use besides the network.
#[derive(Clone, Debug, Default)]
pub struct FetchContext {
    /// The store in which tokens are kept; absent: they are not kept.
    pub(super) store: Option<Store>,
    /// The token of which a successor is wanted.
    pub(super) known: Option<KnownToken>,
    /// True if the known token may still be sent.
    pub(super) live: bool,
    /// The fetch ends after this long.
    pub(super) patience: Duration,
    /// A token with less than this left is not worth adopting.
    pub(super) refresh_before: Duration,
    /// Tokens that were refused, and that the store may still hold.
    pub(super) refused: Vec<Fingerprint>,
    /// The owner of what must not be abandoned.
    pub(super) tasks: Tracker,
    /// Users and providers that are not asked for a while.
    pub(super) rests: Rests,
    /// The way to tell that other credentials are accepted.
    pub(super) leases: Option<TokenHandle>,
}

/// The place to which a fetch's token goes; closed once the fetch is given up.
pub(super) type TokenReceiver = oneshot::Sender<Result<Fetched, Failure>>;

/// The source of a token that is not in the store: a call of the provider.
pub(super) trait TokenSource {
    /// Asks the provider. Says when the request was sent, too.
    async fn ask(&self) -> Result<(Grant, Now), Failure>;

    /// The texts that carry a token on calls.
    fn credentials(&self, grant: &Grant) -> CallCredentials;

    fn key(&self) -> TokenKey;

    /// Returns the name of the token's provider, for logs.
    fn provider(&self) -> &str;

    /// Returns whether a new token invalidates the earlier ones.
    fn is_contested(&self) -> bool;

    /// The bound on the provider's token calls; absent: there is none.
    fn budget(&self) -> Option<CallBudget> {
        None
    }

    /// Returns the current time on both clocks.
    fn now(&self) -> Now;

    /// Lets so much time pass.
    async fn sleep(&self, pause: Duration);
}

/// A token as it is written.
#[derive(Deserialize, Serialize)]
struct Written<'a> {
    v: u8,
    /// When its request was sent, in milliseconds since 1970.
    issued: u64,
    /// Its life from then, in milliseconds.
    life: u64,
    #[serde(borrow)]
    token: std::borrow::Cow<'a, str>,
    /// Captured response headers, in hexadecimal: they need not be text.
    captured: Vec<(String, String)>,
}

impl FetchContext {
    /// Brings a token and gives it to `fetch`: a newer one that another replica has fetched, or one of the provider.
    ///
    /// It goes on when `fetch` is given up. A lock that it holds is given back, and a token that has invalidated others is
    /// kept in the store.
    pub(super) async fn bring(self, source: &impl TokenSource, mut fetch: TokenReceiver) {
        let (brought, settlement) = match self.find(source, &mut fetch).await {
            Ok(found) => found,
            Err(failure) => (Err(failure), None),
        };
        let Some(settlement) = settlement else {
            let _given_up = fetch.send(brought);
            return;
        };
        let mut settling = pin!(settlement.run(source.provider()));
        let is_settled = brought.is_ok() && tokio::time::timeout(SAVED, &mut settling).await.is_ok();
        let _given_up = fetch.send(brought);
        if !is_settled {
            settling.await;
        }
    }

    /// Returns whether its store keeps tokens for longer than this process lives.
    pub(super) fn outlives(&self) -> bool {
        self.store.as_ref().is_some_and(Store::outlives)
    }

    /// Finds a token, and what is to be done in the store once it is there, or is not.
    async fn find(
        &self,
        source: &impl TokenSource,
        fetch: &mut TokenReceiver,
    ) -> Result<(Result<Fetched, Failure>, Option<Settlement>), Failure> {
        // A store that ends with the process keeps no more than the keeper does.
        let Some(store) = self.store.clone().filter(Store::outlives) else {
            let told = self.ask(source).await?;
            return Ok((Ok(issued(source, &told)), None));
        };
        let key = RecordKey::from(&source.key());
        if let Some(found) = self.look(&store, &key, source).await? {
            return Ok((Ok(found), None));
        }
        let contested = is_contested(&store, source);
        let attempt = store.lock_attempt(&key, lease(Within(self.patience)), draw());
        let lock = async || attempt.take().await;
        let lock = match if contested { patiently(lock).await } else { lock().await } {
            Ok(Some(lock)) => Some(lock),
            Ok(None) => match self.wait(&store, &key, &attempt, source).await {
                Some(PeerWait::Found(found)) => return Ok((Ok(*found), None)),
                Some(PeerWait::Lock(lock)) => Some(lock),
                None if contested => return Err(unstored("another replica asks for this token")),
                None => None,
            },
            Err(error) => {
                self.may_go_alone(&store, source, &error)?;
                let provider = source.provider();
                tracing::warn!(provider, %error, "the store gave no lock; this replica fetches alone");
                None
            }
        };
        // The previous holder of the lock may have stored a token.
        let adopted = if lock.is_some() { self.look(&store, &key, source).await } else { Ok(None) };
        let mut settlement = Settlement { store, key, contested, lock, unsaved: None };
        let brought = match adopted {
            Ok(Some(found)) => Ok(found),
            Ok(None) => match self.ask_for(contested, source, fetch).await {
                Ok(told) => {
                    settlement.unsaved = Some(Unsaved::new(&told));
                    Ok(issued(source, &told))
                }
                Err(failure) => Err(failure),
            },
            Err(failure) => Err(failure),
        };
        Ok((brought, Some(settlement)))
    }

    /// Asks the provider for a fetch that may be given up. A call that invalidates other replicas' token is not broken
    /// off, and not begun in a process that may end before it does.
    async fn ask_for(
        &self,
        contested: bool,
        source: &impl TokenSource,
        fetch: &mut TokenReceiver,
    ) -> Result<(Grant, Now), Failure> {
        let given_up = || Failure::new(Class::Transient, "the fetch was given up");
        if fetch.is_closed() {
            return Err(given_up());
        }
        if !contested {
            return tokio::select! {
                biased;
                told = self.ask(source) => told,
                () = fetch.closed() => Err(given_up()),
            };
        }
        if !self.tasks.allows(self.patience.saturating_add(SAVED)) {
            return Err(Failure::new(Class::Transient, "the process ends, and begins no call for this token"));
        }
        self.ask(source).await
    }

    /// Asks the provider. Near the end of the known token the provider may return that token once more, with no life
    /// left; then it is asked again as soon as that token has expired. A waiting request is kept waiting for no longer
    /// than a fetch may take.
    async fn ask(&self, source: &impl TokenSource) -> Result<(Grant, Now), Failure> {
        let mut endings = 0;
        loop {
            self.rests.spend(source.provider(), source.budget(), source.now())?;
            let failure = match source.ask().await {
                Err(failure) if failure.ended => failure,
                answer => return answer,
            };
            let now = source.now();
            let about_to_end = |known: &KnownToken| {
                let (now, expires, about) = (now.wall, known.expires, millis(UNCHANGED));
                (expires.saturating_sub(about)..=expires.saturating_add(about + millis(A_SECOND))).contains(&now)
            };
            let Some(known) = self.known.filter(about_to_end).filter(|_| endings < MOST_ENDINGS) else {
                return Err(failure);
            };
            endings += 1;
            let left = Duration::from_millis(known.expires.saturating_sub(now.wall));
            tracing::debug!(
                provider = source.provider(),
                "the old token came back; it is asked again once that has ended"
            );
            source.sleep(left.max(A_SECOND)).await;
        }
    }

    /// Returns whether another replica has put a newer token into the store than the known one; absent: the store does
    /// not say.
    pub(super) async fn has_newer(self, source: &impl TokenSource) -> Option<bool> {
        let Some(store) = self.store.clone().filter(|store| store.is_shared() && self.known.is_some()) else {
            return Some(false);
        };
        self.adopt(&store, &RecordKey::from(&source.key()), source).await.ok().map(|found| found.is_some())
    }

    /// Returns the token in the store, if it is worth adopting. An error of the store fails this fetch only if fetching
    /// without the store could invalidate another replica's token.
    async fn look(
        &self,
        store: &Store,
        key: &RecordKey,
        source: &impl TokenSource,
    ) -> Result<Option<Fetched>, Failure> {
        let adopt = async || self.adopt(store, key, source).await;
        match if is_contested(store, source) { patiently(adopt).await } else { adopt().await } {
            Ok(found) => Ok(found),
            Err(error) => {
                tracing::warn!(provider = source.provider(), %error, "the store could not be read for a token");
                self.may_go_alone(store, source, &error).map(|()| None)
            }
        }
    }

    /// Checks whether a token may be fetched although the store cannot be asked for the tokens of other replicas.
    fn may_go_alone(&self, store: &Store, source: &impl TokenSource, error: &Error) -> Result<(), Failure> {
        if !is_contested(store, source) {
            return Ok(());
        }
        let now = source.now().wall;
        let young = |known: KnownToken| now < known.issued.saturating_add(ALONE).min(known.expires);
        if self.live || self.known.is_some_and(young) {
            return Err(unstored(&format!("a new token might kill another replica's: {error}")));
        }
        Ok(())
    }

    /// Waits for the token of the lock's holder, or for the lock if the holder brings none. `None`: both take too long.
    async fn wait(
        &self,
        store: &Store,
        key: &RecordKey,
        attempt: &LockAttempt,
        source: &impl TokenSource,
    ) -> Option<PeerWait> {
        let mut changes = store.changes();
        let looking = async {
            loop {
                if let Ok(Some(found)) = self.adopt(store, key, source).await {
                    return PeerWait::Found(Box::new(found));
                }
                tokio::select! {
                    biased;
                    () = heard(&mut changes, key) => {}
                    () = source.sleep(LOOK) => {}
                }
                // A holder whose fetch failed has released the lock.
                if let Ok(Some(lock)) = attempt.take().await {
                    return PeerWait::Lock(lock);
                }
            }
        };
        tokio::time::timeout(self.patience / 2, looking).await.ok()
    }

    /// The token in the store, if it is newer than the known one and worth having.
    async fn adopt(&self, store: &Store, key: &RecordKey, source: &impl TokenSource) -> Result<Option<Fetched>, Error> {
        let record = match store.load(Kind::Application, key).await {
            // The next write replaces the damaged record.
            Err(Error::Damaged(damaged)) => {
                tracing::warn!(provider = source.provider(), %damaged, "the store could not be read for a token");
                return Ok(None);
            }
            loaded => loaded?,
        };
        Ok(record.and_then(|record| self.worth(store, &record, source)))
    }

    fn worth(&self, store: &Store, record: &StoredRecord, source: &impl TokenSource) -> Option<Fetched> {
        let now = source.now();
        let Stored { grant, issued, expires } = open(record.value.expose_secret(), now)?;
        let fingerprint = grant.fingerprint();
        let newer = self.known.is_none_or(|known| known.fingerprint != fingerprint && known.issued <= issued.wall);
        let mut left = expires.remaining(now);
        if planted(PlantedFault::AdoptedTwice) {
            // By the boot clock alone.
            left = grant.life.saturating_sub(now.since(issued));
        }
        let margin = self.refresh_before.min(grant.life / 5);
        if !newer || left <= margin || self.refused.contains(&fingerprint) {
            return None;
        }
        tracing::info!(
            provider = source.provider(), token = %fingerprint, left = left.as_secs(), "token found in the store"
        );
        let credentials = source.credentials(&grant);
        // In a file it is from our own last life.
        Some(Fetched { issued, expires, credentials, fingerprint, adopted: true, young: store.is_shared(), record: 0 })
    }
}

/// A new token as it is to be written, with its expiry in milliseconds since 1970.
struct Unsaved {
    sealed: SecretBox<[u8]>,
    expiry: u64,
}

impl Unsaved {
    fn new((grant, sent): &(Grant, Now)) -> Self {
        Self { sealed: seal(grant, *sent), expiry: sent.wall.saturating_add(millis(grant.life)) }
    }
}

/// The operations on the store that end a fetch.
struct Settlement {
    store: Store,
    key: RecordKey,
    contested: bool,
    lock: Option<Lock>,
    unsaved: Option<Unsaved>,
}

impl Settlement {
    /// Keeps the token, announces it, and gives the lock back: other replicas find the token before they get the lock.
    async fn run(self, provider: &str) {
        let Self { store, key, contested, lock, unsaved } = self;
        if let Some(Unsaved { sealed, expiry }) = unsaved {
            let put = async || store.put(Kind::Application, &key, &sealed, Some(expiry)).await;
            // If this fetch has invalidated the other replicas' token, they need the new one.
            let kept = match if contested { patiently(put).await } else { put().await } {
                Ok(_) => store.announce(Kind::Application, &key).await,
                Err(error) => Err(error),
            };
            if let Err(error) = kept {
                tracing::warn!(provider, %error, "a token is not kept in the store");
            }
        }
        if let Some(lock) = lock {
            let unlock = async || store.unlock(lock.clone()).await;
            if let Err(error) = if contested { patiently(unlock).await } else { unlock().await } {
                tracing::debug!(provider, %error, "a lock ends by itself");
            }
        }
    }
}

/// The result of waiting for another replica.
enum PeerWait {
    /// It has brought a token.
    Found(Box<Fetched>),
    /// It has brought none; it is our turn.
    Lock(Lock),
}

/// Waits until something is said about this token's record.
async fn heard(changes: &mut Changes, key: &RecordKey) {
    loop {
        match changes.next().await {
            Change::Everything => return,
            Change::Record(name) if name.kind == Kind::Application && name.key == *key => return,
            Change::Record(_) => {}
        }
    }
}

/// A token that the provider gave us now.
fn issued(source: &impl TokenSource, (grant, sent): &(Grant, Now)) -> Fetched {
    Fetched {
        issued: *sent,
        expires: Deadline::after(*sent, grant.life),
        credentials: source.credentials(grant),
        fingerprint: grant.fingerprint(),
        adopted: false,
        young: true,
        record: 0,
    }
}

/// Takes a refused token out of the store, if it is still the one that is there.
pub(super) async fn invalidate(store: &Store, key: &TokenKey, token: Fingerprint) -> Result<(), Error> {
    if !store.outlives() {
        return Ok(());
    }
    let key = RecordKey::from(key);
    match store.load(Kind::Application, &key).await {
        // Neither a missing nor a damaged record is ever adopted.
        Ok(None) | Err(Error::Damaged(_)) => Ok(()),
        Ok(Some(record)) if fingerprint(&record) == Some(token) => {
            store.remove_if(Kind::Application, &key, record.version).await
        }
        Ok(Some(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// The token of a record, whenever it was issued.
fn fingerprint(record: &StoredRecord) -> Option<Fingerprint> {
    read(record.value.expose_secret()).map(|written| Fingerprint::of(written.token.as_bytes()))
}

/// Returns whether a token that this replica fetches may invalidate another replica's.
fn is_contested(store: &Store, source: &impl TokenSource) -> bool {
    store.is_shared() && source.is_contested()
}

fn unstored(inside: &str) -> Failure {
    Failure { backoff: Some(STORE), ..Failure::new(Class::Transient, inside) }
}

fn seal(grant: &Grant, sent: Now) -> SecretBox<[u8]> {
    let hex = |value: &HeaderValue| crate::base::secret::hex(value.as_bytes());
    let stored = Written {
        v: VERSION,
        issued: sent.wall,
        life: millis(grant.life),
        token: grant.access_token.expose_secret().into(),
        captured: grant.captured.iter().map(|(name, value)| (name.to_string(), hex(value))).collect(),
    };
    let mut bytes = Zeroizing::new(Vec::with_capacity(grant.access_token.expose_secret().len() + 256));
    // Only a map with odd keys fails to be written.
    let _ = serde_json::to_writer(&mut *bytes, &stored);
    SecretBox::new(bytes.to_vec().into_boxed_slice())
}

/// A token that was found in the store, by our clocks.
struct Stored {
    /// The token with its whole life, not the remainder.
    grant: Grant,
    /// When its request was sent.
    issued: Now,
    /// Expiry, computed from the remaining life when the token was found.
    expires: Deadline,
}

/// Parses a record. `None` if it is malformed or of another version.
fn read(bytes: &[u8]) -> Option<Written<'_>> {
    serde_json::from_slice(bytes).ok().filter(|written: &Written<'_>| written.v == VERSION)
}

/// Parses the token of a record. `None` if it has expired or is not valid.
///
/// The remaining life is determined by the wall clock alone: the boot clock may not have run yet when the token was
/// issued. It is the whole life at most, so that a token from the future gains no time. From here on both clocks count.
fn open(bytes: &[u8], now: Now) -> Option<Stored> {
    let written = read(bytes)?;
    if written.issued.saturating_sub(now.wall) > SKEW {
        return None;
    }
    let end = written.issued.saturating_add(written.life);
    let left = end.saturating_sub(now.wall).min(written.life);
    if left == 0 {
        return None;
    }
    let value = |text: &str| HeaderValue::from_bytes(&unhex(text)?).ok();
    let captured: Option<Vec<_>> =
        written.captured.iter().map(|(name, text)| Some((name.as_str().into(), value(text)?))).collect();
    let access_token = SecretString::from(written.token.into_owned());
    let life = Duration::from_millis(written.life);
    if planted(PlantedFault::AdoptedTwice) {
        let elapsed = now.wall.saturating_sub(written.issued);
        let life = Duration::from_millis(written.life.checked_sub(elapsed.saturating_sub(now.boot))?);
        let issued = Now { boot: now.boot.saturating_sub(elapsed), wall: written.issued };
        let grant = Grant { access_token, life, captured: captured?, odd_type: None };
        return Some(Stored { grant, issued, expires: Deadline::after(issued, life) });
    }
    Some(Stored {
        grant: Grant { access_token, life, captured: captured?, odd_type: None },
        issued: now.back_to(written.issued),
        expires: Deadline::after(now, Duration::from_millis(left)),
    })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().chunks(2);
    digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

#[cfg(test)]
mod tests;
