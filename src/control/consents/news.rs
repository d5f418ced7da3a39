//! What other replicas did with users' consents: heard of, and looked at in the store.
//!
//! A user who consents anew or takes it back does so at one replica; the others hold that user's token, or rest because
//! there was none. News are hints, so what counts is what the store says; where it says nothing, nothing changes.

use super::records::read_tokens;
use crate::control::Leases;
use crate::store::{Change, Key, Kind, Name, Store};
use crate::token::key::TokenKey;

/// Listens and looks. Never ends, unless nobody else writes to the store.
pub(super) async fn follow(store: Store, leases: Leases) {
    if !store.is_shared() {
        return;
    }
    let mut changes = store.changes();
    loop {
        match changes.next().await {
            // The connection for news was made: what was said before may have been missed.
            Change::Everything => {
                for key in leases.users().await {
                    look(&store, &leases, key).await;
                }
            }
            Change::Record(Name { kind: Kind::User, key }) => {
                if let Some(key) = TokenKey::from_bytes(key.as_bytes()) {
                    look(&store, &leases, key).await;
                }
            }
            // A token that another replica fetched: where it has killed ours, it takes its place at once.
            Change::Record(Name { kind: Kind::Application, key }) => {
                if let Some(key) = TokenKey::from_bytes(key.as_bytes()) {
                    leases.heard(key).await;
                }
            }
            Change::Record(Name { kind: Kind::Pending, .. }) => {}
        }
    }
}

async fn look(store: &Store, leases: &Leases, key: TokenKey) {
    match read_tokens(store, &Key::from(&key)).await {
        Ok(record) => leases.moved(key, record.map(|(tokens, _)| tokens.generation)).await,
        Err(error) => tracing::debug!(%key, %error, "a changed consent cannot be looked at"),
    }
}
