//! Consents and users' tokens as records of the store.

use std::sync::Arc;
use std::time::Duration;

use crate::base::secret::{ExposeSecret, Fingerprint, SecretBox};
use crate::base::time::Within;
use crate::store::{Error, Kind, RecordKey, Store, StoredRecord, Version};
use crate::token::consent::{PendingEntry, PlainRecord, State, UserKey, UserTokens};

/// A record is kept for so long after its last token has died, in milliseconds: a day.
const AFTERLIFE: u64 = 24 * 3600 * 1000;

/// The store is asked again so often,
const AGAIN: u32 = 10;
/// and so long after it failed.
const PAUSE: Duration = Duration::from_millis(100);
/// What the store may take, besides the call itself, while a lock is held: reading the record again, and saving what was
/// answered, over some outages.
const SAVING: Duration = Duration::from_secs(50);

/// How long a lock must last under which a call is made: longer than the longest call, and than its answer needs to be
/// saved. It is what others wait if its holder dies.
pub(in crate::control) const fn lease(call: Within) -> Duration {
    call.0.saturating_add(SAVING)
}

/// Where a started consent is filed.
pub(super) fn pending_key(state: &State) -> RecordKey {
    RecordKey::from(state.id().to_string().as_str())
}

/// Where a user's tokens are.
pub(super) fn user_key(key: &UserKey) -> RecordKey {
    RecordKey::from(&key.record_key())
}

/// Asks the store again when it failed: a moment's silence costs nobody a consent. A second at most, and a store that is
/// away for longer is not waited for. What is asked must bear being asked twice.
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
pub(in crate::control) async fn announce(store: &Store, kind: Kind, key: &RecordKey) -> Result<(), Error> {
    patiently(async || store.announce(kind, key).await).await
}

/// When a user's record may be forgotten, in milliseconds since 1970. Never, where nobody knows when its refresh token
/// dies.
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

/// A user's tokens, and which writing of them this is.
pub(super) async fn read_tokens(store: &Store, name: &RecordKey) -> Result<Option<(Arc<UserTokens>, Version)>, String> {
    let record = store.load(Kind::User, name).await.map_err(|error| error.to_string())?;
    let Some(record) = record else { return Ok(None) };
    Ok(Some((Arc::new(tokens_of(name, &record)?), record.version)))
}

/// Notes that an access token was refused, if the record still holds it: it is spent then, and what renews it stays.
pub(super) async fn spend_access(store: &Store, name: &RecordKey, token: Fingerprint) -> Result<(), Error> {
    let record = match store.load(Kind::User, name).await {
        Err(Error::Damaged(_)) | Ok(None) => return Ok(()),
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
pub(super) fn tokens_of(name: &RecordKey, record: &StoredRecord) -> Result<UserTokens, String> {
    let opened = UserTokens::open(record.value.expose_secret());
    opened.map_err(|error| format!("the record user/{name} cannot be read: {error:?}"))
}
