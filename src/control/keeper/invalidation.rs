//! The removal of refused tokens from the store.
//!
//! A token that a provider refused must not be found again after a restart or by another replica. The keeper ensures
//! this, not the request that met the refusal: removal is retried until the store accepts it, or until the token would
//! have expired anyway. Until then no fetch of this process adopts such a token.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use crate::base::backoff::Backoff;
use crate::base::planted::{PlantedFault, planted};
use crate::base::secret::Fingerprint;
use crate::base::time::{Clock, Deadline};
use crate::control::TokenSpec;
use crate::store::Store;
use crate::token::key::{KeyMap, TokenKey};

/// The pauses between two tries.
const AGAIN: Backoff = Backoff { first: Duration::from_millis(100), ceiling: Duration::from_secs(5) };
/// So many are tried for at a time. Beyond, a token is only remembered by its key.
const MOST: usize = 10_000;
/// At the end, the store gets so long to take what is left.
const LAST: Duration = Duration::from_secs(2);

type Pending = Rc<RefCell<KeyMap<Vec<Fingerprint>>>>;

/// Tokens that were refused, and that the store may still hold.
#[derive(Default)]
pub(super) struct Invalidations {
    pending: Pending,
    tasks: JoinSet<()>,
}

impl Invalidations {
    /// This token of `spec` was refused for good; it would have lived until `expires`.
    pub(super) fn add(
        &mut self,
        store: Option<&Store>,
        clock: &Clock,
        spec: Arc<TokenSpec>,
        (token, expires): (Fingerprint, Deadline),
    ) {
        let Some(store) = store.cloned().filter(|_| !planted(PlantedFault::RefusedStays)) else { return };
        while self.tasks.try_join_next().is_some() {}
        if self.tasks.len() >= MOST {
            tracing::warn!(provider = %spec.provider, key = %spec.key, %token, "a refused token may be in the store still");
            return;
        }
        self.pending.borrow_mut().entry(spec.key).or_default().push(token);
        let (pending, clock) = (Rc::clone(&self.pending), clock.clone());
        self.tasks.spawn_local(async move {
            let mut tries = 0;
            while !expires.passed(clock.now()) {
                match spec.procedure.invalidate(store.clone(), token).await {
                    Ok(()) => break,
                    Err(error) => {
                        tries += 1;
                        if tries == 1 {
                            let (provider, key) = (&spec.provider, spec.key);
                            tracing::warn!(%provider, %key, %token, %error, "a refused token is still in the store");
                        }
                        tokio::time::sleep(AGAIN.pause(tries)).await;
                    }
                }
            }
            forget(&pending, &spec.key, token);
        });
    }

    /// The tokens of this key that must not be adopted.
    pub(super) fn of(&self, key: &TokenKey) -> Vec<Fingerprint> {
        self.pending.borrow().get(key).cloned().unwrap_or_default()
    }

    /// Gives the store a last chance.
    pub(super) async fn finish(mut self) {
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(LAST, all).await.is_err() {
            tracing::warn!("refused tokens could not be recorded in the store");
        }
    }
}

fn forget(pending: &Pending, key: &TokenKey, token: Fingerprint) {
    let mut pending = pending.borrow_mut();
    if let Some(tokens) = pending.get_mut(key) {
        if let Some(at) = tokens.iter().position(|known| *known == token) {
            tokens.swap_remove(at);
        }
        if tokens.is_empty() {
            pending.remove(key);
        }
    }
}
