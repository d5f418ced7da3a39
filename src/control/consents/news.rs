//! Changes to tokens by other replicas: received as notifications, and checked in the store.
//!
//! A user who consents anew, or revokes a consent, does so at one replica; the others hold that user's token, or rest
//! because there was none. Notifications are hints, so the content of the store counts. If the store does not respond,
//! a key stays on the list until it was checked: a revocation must not get lost because the store failed for a moment.

use std::collections::BTreeSet;
use std::time::Duration;

use super::records::tokens_of;
use crate::base::backoff::Backoff;
use crate::base::planted::{PlantedFault, planted};
use crate::control::TokenHandle;
use crate::store::{Change, Changes, Error, Kind, RecordKey, RecordName, Store};
use crate::token::key::TokenKey;

/// The pauses between looks at a store that does not answer.
const AGAIN: Backoff = Backoff { first: Duration::from_millis(100), ceiling: Duration::from_secs(1) };

/// An entry of the list of keys to be checked.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Item {
    /// An application's token that another replica may have replaced, by its own key.
    Application(TokenKey),
    /// A user's record, by its key.
    User(TokenKey),
}

/// Receives notifications and checks the store. Never ends, unless no other process writes to the store.
pub(super) async fn follow_news(store: Store, leases: TokenHandle) {
    if !store.is_shared() {
        return;
    }
    let mut changes = store.changes();
    let (mut open, mut failures) = (BTreeSet::new(), 0_u32);
    loop {
        if let Some(change) = next(&mut changes, failures, open.is_empty()).await {
            note(change, &leases, &mut open).await;
        }
        // An entry that was checked is removed; after an error the store is left alone for a moment.
        failures = if look_at_all(&store, &leases, &mut open).await { 0 } else { failures.saturating_add(1) };
    }
}

/// The next news, or nothing once it is time to look again.
async fn next(changes: &mut Changes, failures: u32, nothing_open: bool) -> Option<Change> {
    if nothing_open {
        return Some(changes.next().await);
    }
    tokio::time::timeout(AGAIN.pause(failures), changes.next()).await.ok()
}

async fn note(change: Change, leases: &TokenHandle, open: &mut BTreeSet<Item>) {
    match change {
        // A connection was made: what was said before may have been missed.
        Change::Everything => {
            open.extend(leases.users().await.into_iter().map(Item::User));
            open.extend(leases.contested().await.into_iter().map(Item::Application));
        }
        Change::Record(RecordName { kind, key }) => {
            if let Some(key) = TokenKey::from_bytes(key.as_bytes()) {
                match kind {
                    Kind::User => drop(open.insert(Item::User(key))),
                    Kind::Application => drop(open.insert(Item::Application(key))),
                    Kind::Pending => {}
                }
            }
        }
    }
}

/// Says whether nothing is left.
async fn look_at_all(store: &Store, leases: &TokenHandle, open: &mut BTreeSet<Item>) -> bool {
    let items: Vec<Item> = open.iter().copied().collect();
    for item in items {
        let looked = match item {
            // If another replica's token has invalidated the local one, it replaces the local one at once.
            Item::Application(key) => leases.heard(key).await,
            Item::User(key) => look(store, leases, key).await,
        };
        if !looked && !planted(PlantedFault::OneLook) {
            return false;
        }
        open.remove(&item);
    }
    true
}

async fn look(store: &Store, leases: &TokenHandle, key: TokenKey) -> bool {
    let name = RecordKey::from(&key);
    let generation = match store.load(Kind::User, &name).await {
        Ok(None) => None,
        Ok(Some(record)) => match tokens_of(&name, &record) {
            Ok(tokens) => Some(tokens.generation),
            // Looking again tells no more.
            Err(_) => return true,
        },
        Err(Error::Damaged(_)) => return true,
        Err(error) => {
            tracing::debug!(%key, %error, "a changed consent cannot be looked at yet");
            return false;
        }
    };
    leases.record_changed(key, generation).await;
    true
}
