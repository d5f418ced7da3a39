//! Consents and users' tokens as records of the store.

use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use crate::base::secret::{ExposeSecret, Fingerprint, SecretBox};
use crate::base::time::Within;
use crate::store::{Error as StoreError, Kind, RecordKey, Store, StoredRecord, Version};
use crate::token::consent::{PendingConsent, PendingEntry, PlainRecord, SealError, State, UserKey, UserTokens};

/// A record is kept for so long after its last token has died, in milliseconds: a day.
const AFTERLIFE: u64 = 24 * 3600 * 1000;

/// The store is asked again so often,
const AGAIN: u32 = 10;
/// and so long after it failed.
const PAUSE: Duration = Duration::from_millis(100);
/// Time for the store, besides the call itself, while a lock is held: reading the record again, and saving the
/// response, across some outages.
const SAVING: Duration = Duration::from_secs(50);

/// The reason for which a user's tokens cannot be read.
#[derive(Debug, Error)]
pub(super) enum UserRecordError {
    /// The record of this name holds something else.
    #[error("the record user/{0} cannot be read: {1:?}")]
    Sealed(RecordKey, #[source] SealError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Returns the time for which a lock must last under which a call is made: longer than the longest call and the saving
/// of its response. Others wait that long if the holder of the lock ends without releasing it.
pub(in crate::control) const fn lease(call: Within) -> Duration {
    call.0.saturating_add(SAVING)
}

/// Returns the key of the record of a started consent.
pub(super) fn pending_key(state: &State) -> RecordKey {
    RecordKey::from(state.id().to_string().as_str())
}

/// Returns the key of the record with a user's tokens.
pub(super) fn user_key(key: &UserKey) -> RecordKey {
    RecordKey::from(&key.record_key())
}

/// Repeats a store operation that failed, so that a short outage loses no consent. The pauses are one second in total;
/// a longer outage is not waited for. The operation must tolerate being executed twice.
pub(in crate::control) async fn patiently<T, E>(ask: impl AsyncFn() -> Result<T, E>) -> Result<T, E> {
    for _ in 0..AGAIN {
        if let Ok(answer) = ask().await {
            return Ok(answer);
        }
        tokio::time::sleep(PAUSE).await;
    }
    ask().await
}

/// Tells all replicas that a record has changed, and asks the store again when it failed: one that does not hear of it
/// goes on with what it has.
pub(in crate::control) async fn announce(store: &Store, kind: Kind, key: &RecordKey) -> Result<(), StoreError> {
    patiently(async || store.announce(kind, key).await).await
}

/// Returns the time at which a user's record may be forgotten, in milliseconds since 1970. Returns `None`, which means
/// never, if the expiry of its refresh token is unknown.
pub(super) fn forget(tokens: &UserTokens) -> Option<u64> {
    let dies = match &tokens.refresh {
        Some(refresh) => refresh.expires?.max(tokens.access.expires),
        None => tokens.access.expires,
    };
    Some(dies.saturating_add(AFTERLIFE))
}

/// For the store to seal.
pub(super) fn write_record(sealed: &PlainRecord) -> SecretBox<[u8]> {
    SecretBox::new(sealed.expose_secret().clone().into_boxed_slice())
}

pub(super) fn read_entry(record: &StoredRecord) -> Option<PendingEntry> {
    match PendingEntry::open(record.value.expose_secret()) {
        Ok(entry) => Some(entry),
        Err(error) => {
            tracing::error!(?error, "a started consent cannot be read");
            None
        }
    }
}

/// Reads a started consent that waits for its callback. `None`: it was used, or cannot be read.
pub(super) fn pending_of(record: &StoredRecord) -> Option<PendingConsent> {
    match PendingEntry::open(record.value.expose_secret()) {
        Ok(PendingEntry::Pending(pending)) => Some(pending),
        Ok(PendingEntry::Spent { .. }) | Err(_) => None,
    }
}

/// A user's tokens, and which writing of them this is.
pub(super) async fn read_tokens(
    store: &Store,
    name: &RecordKey,
) -> Result<Option<(Arc<UserTokens>, Version)>, UserRecordError> {
    let Some(record) = store.load(Kind::User, name).await? else { return Ok(None) };
    Ok(Some((Arc::new(tokens_of(name, &record)?), record.version)))
}

/// Notes that an access token was refused, if the record still holds it: it is spent then, and what renews it stays.
pub(super) async fn spend_access(store: &Store, name: &RecordKey, token: Fingerprint) -> Result<(), StoreError> {
    let record = match store.load(Kind::User, name).await {
        Err(StoreError::Damaged(_)) | Ok(None) => return Ok(()),
        Ok(Some(record)) => record,
        Err(error) => return Err(error),
    };
    let Ok(tokens) = tokens_of(name, &record) else { return Ok(()) };
    if Fingerprint::of(tokens.access.token.expose_secret().as_bytes()) != token {
        return Ok(());
    }
    let spent = tokens.refused();
    store.swap(Kind::User, name, Some(record.version), &write_record(&spent.seal()), forget(&spent)).await.map(drop)
}

/// The tokens that a record of this name holds.
pub(super) fn tokens_of(name: &RecordKey, record: &StoredRecord) -> Result<UserTokens, UserRecordError> {
    let opened = UserTokens::open(record.value.expose_secret());
    opened.map_err(|error| UserRecordError::Sealed(name.clone(), error))
}
