//! Application tokens that outlive the process and are shared by replicas: a fetch with a store before and behind it.
//!
//! Before a token is fetched, the store is asked for one that is newer than the one that is known: another replica may
//! have fetched it, or this one before its restart. Who fetches holds a lock meanwhile; the others wait for what it
//! brings, and fetch for themselves when that takes too long. Whatever is wrong with the store, a token is fetched: only
//! the saving is lost. Nothing of it is on the way of a request.
//!
//! Where a new token kills the old one (`coexistence` of the profile) that would end in replicas killing each other's.
//! There a token is fetched under the lock or not at all while the store answers; while it does not, a token that lives
//! is kept, and one that died before its time is not replaced more often than once a minute.

use std::time::Duration;

use http::HeaderValue;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::consents::patiently;
use super::wire::Call;
use super::{Fetched, Known, Order as _};
use crate::base::backoff::Backoff;
use crate::base::dice::draw;
use crate::base::secret::{ExposeSecret, SecretBox, SecretString};
use crate::base::time::{Now, millis};
use crate::store::{Error, Key, Kind, Record, Store};
use crate::token::failure::{Class, Failure};
use crate::token::grant::Grant;

/// How the records of this version are written.
const VERSION: u8 = 1;
/// Another replica's fetch is looked for this often, should its word get lost.
const LOOK: Duration = Duration::from_millis(250);
/// Replicas' clocks may differ by so much, in milliseconds.
const SKEW: u64 = 60_000;
/// Without the store, a contested token that died before its time is replaced this long after it was issued, in
/// milliseconds.
const ALONE: u64 = 60_000;
/// The rests of whoever may not fetch without the store: it may be back at any moment.
const STORE: Backoff = Backoff { first: Duration::from_secs(1), ceiling: Duration::from_secs(4) };

/// What a fetch may use besides the wire.
#[derive(Clone, Debug, Default)]
pub struct Aid {
    /// Where tokens are kept; absent: nowhere.
    pub(super) store: Option<Store>,
    /// The token of which a successor is wanted.
    pub(super) known: Option<Known>,
    /// Whether that one may still be sent.
    pub(super) live: bool,
    /// The fetch ends after this long.
    pub(super) patience: Duration,
    /// A token with less than this left is not worth adopting.
    pub(super) refresh_before: Duration,
}

/// A token as it lies in the store.
#[derive(Deserialize, Serialize)]
struct Stored<'a> {
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

impl Aid {
    /// A token: a newer one that somebody else has fetched, or one of our own.
    pub(super) async fn bring(self, call: &Call) -> Result<Fetched, Failure> {
        // A store that ends with the process keeps no more than the keeper does.
        let Some(store) = self.store.clone().filter(Store::outlives) else {
            return Ok(call.fetched(call.ask().await?, false));
        };
        let key = Key::from(&call.key());
        if let Some(found) = self.look(&store, &key, call).await? {
            return Ok(found);
        }
        let claim = draw();
        let lock = async || store.claim(&key, self.patience, claim).await;
        let lock = match if is_contested(&store, call) { patiently(lock).await } else { lock().await } {
            Ok(Some(lock)) => Some(lock),
            Ok(None) => match self.wait(&store, &key, call).await {
                Some(found) => return Ok(found),
                None if is_contested(&store, call) => return Err(unstored("another replica asks for this token")),
                None => None,
            },
            Err(error) => {
                self.may_go_alone(&store, call, &error)?;
                tracing::warn!(provider = call.provider(), %error, "the store gives no lock; this replica fetches alone");
                None
            }
        };
        // Who held the lock before us may have left something.
        let adopted = if lock.is_some() { self.look(&store, &key, call).await } else { Ok(None) };
        let brought = match adopted {
            Ok(Some(found)) => Ok(found),
            Ok(None) => self.fetch(&store, &key, call).await,
            Err(failure) => Err(failure),
        };
        if let Some(lock) = lock {
            let unlock = async || store.unlock(lock.clone()).await;
            if let Err(error) = if is_contested(&store, call) { patiently(unlock).await } else { unlock().await } {
                tracing::debug!(provider = call.provider(), %error, "a lock ends by itself");
            }
        }
        brought
    }

    /// Whether another replica has put a newer token into the store than the one that is known.
    pub(super) async fn has_newer(self, call: &Call) -> bool {
        let Some(store) = self.store.clone().filter(Store::is_shared) else { return false };
        self.known.is_some()
            && self.adopt(&store, &Key::from(&call.key()), call).await.is_ok_and(|found| found.is_some())
    }

    /// What is in the store, if it is worth having. An error of the store is one of this fetch only where fetching
    /// without it could kill another replica's token.
    async fn look(&self, store: &Store, key: &Key, call: &Call) -> Result<Option<Fetched>, Failure> {
        let adopt = async || self.adopt(store, key, call).await;
        match if is_contested(store, call) { patiently(adopt).await } else { adopt().await } {
            Ok(found) => Ok(found),
            Err(error) => {
                tracing::warn!(provider = call.provider(), %error, "the store gives no token");
                self.may_go_alone(store, call, &error).map(|()| None)
            }
        }
    }

    /// Whether a token may be fetched although the store cannot be asked what other replicas have.
    fn may_go_alone(&self, store: &Store, call: &Call, error: &Error) -> Result<(), Failure> {
        if !is_contested(store, call) {
            return Ok(());
        }
        let now = call.now().wall;
        let young = |known: Known| now < known.issued.saturating_add(ALONE).min(known.expires);
        if self.live || self.known.is_some_and(young) {
            return Err(unstored(&format!("a new token might kill another replica's: {error}")));
        }
        Ok(())
    }

    async fn fetch(&self, store: &Store, key: &Key, call: &Call) -> Result<Fetched, Failure> {
        let told = call.ask().await?;
        let (grant, sent) = &told;
        let expiry = sent.wall.saturating_add(millis(grant.life));
        let sealed = seal(grant, *sent);
        let put = async || store.put(Kind::Application, key, &sealed, Some(expiry)).await;
        // Where it has killed the others' token, they need it.
        let kept = match if is_contested(store, call) { patiently(put).await } else { put().await } {
            Ok(_) => store.announce(Kind::Application, key).await,
            Err(error) => Err(error),
        };
        if let Err(error) = kept {
            tracing::warn!(provider = call.provider(), %error, "a token is not kept in the store");
        }
        Ok(call.fetched(told, false))
    }

    /// Waits for what the holder of the lock brings.
    async fn wait(&self, store: &Store, key: &Key, call: &Call) -> Option<Fetched> {
        let mut changes = store.changes();
        let looking = async {
            loop {
                if let Ok(Some(found)) = self.adopt(store, key, call).await {
                    return found;
                }
                tokio::select! {
                    biased;
                    _ = changes.next() => {}
                    () = tokio::time::sleep(LOOK) => {}
                }
            }
        };
        tokio::time::timeout(self.patience / 2, looking).await.ok()
    }

    /// The token in the store, if it is newer than the known one and worth having.
    async fn adopt(&self, store: &Store, key: &Key, call: &Call) -> Result<Option<Fetched>, Error> {
        let record = match store.load(Kind::Application, key).await {
            // Whoever writes next writes over it.
            Err(Error::Damaged(damaged)) => {
                tracing::warn!(provider = call.provider(), %damaged, "the store gives no token");
                return Ok(None);
            }
            loaded => loaded?,
        };
        Ok(record.and_then(|record| self.worth(&record, call)))
    }

    fn worth(&self, record: &Record, call: &Call) -> Option<Fetched> {
        let (grant, sent) = open(record.value.expose_secret(), call.now())?;
        let fingerprint = grant.fingerprint();
        let newer = self.known.is_none_or(|known| known.fingerprint != fingerprint && known.issued <= sent.wall);
        let left = grant.life.checked_sub(call.now().since(sent))?;
        let margin = self.refresh_before.min(grant.life / 5);
        if !newer || left <= margin {
            return None;
        }
        tracing::info!(provider = call.provider(), token = %fingerprint, left = left.as_secs(), "token found in the store");
        Some(call.fetched((grant, sent), true))
    }
}

/// Whether a token that this replica fetches may kill another's.
fn is_contested(store: &Store, call: &Call) -> bool {
    store.is_shared() && call.is_contested()
}

fn unstored(inside: &str) -> Failure {
    Failure { backoff: Some(STORE), ..Failure::new(Class::Transient, inside) }
}

fn seal(grant: &Grant, sent: Now) -> SecretBox<[u8]> {
    let hex = |value: &HeaderValue| crate::base::secret::hex(value.as_bytes());
    let stored = Stored {
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

/// The token, and when it was issued by our clocks. Nothing where it is of another version or makes no sense.
fn open(bytes: &[u8], now: Now) -> Option<(Grant, Now)> {
    let stored: Stored<'_> = serde_json::from_slice(bytes).ok().filter(|stored: &Stored<'_>| stored.v == VERSION)?;
    let elapsed = match now.wall.checked_sub(stored.issued) {
        Some(elapsed) => elapsed,
        None if stored.issued - now.wall <= SKEW => 0,
        None => return None,
    };
    // What happened before this machine started counts as well.
    let before = elapsed.saturating_sub(now.boot);
    let life = Duration::from_millis(stored.life.checked_sub(before).filter(|life| *life > 0)?);
    let sent = Now { boot: now.boot.saturating_sub(elapsed), wall: stored.issued.min(now.wall) };
    let value = |text: &str| HeaderValue::from_bytes(&unhex(text)?).ok();
    let captured: Option<Vec<_>> =
        stored.captured.iter().map(|(name, text)| Some((name.as_str().into(), value(text)?))).collect();
    Some((Grant { access_token: SecretString::from(stored.token.into_owned()), life, captured: captured? }, sent))
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().chunks(2);
    digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}
