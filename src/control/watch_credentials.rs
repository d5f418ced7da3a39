//! Trial of a provider's other credentials as soon as a renewal is refused, while the old token still serves.

use tokio::sync::broadcast::error::RecvError;

use super::{EventKind, Events, Reloads, TokenHandle, token_spec};
use crate::base::time::Clock;
use crate::base::vars::Vars;
use crate::provider::CallAs;
use crate::token::credential_slots::is_refusal;

/// Hears of refused renewals until there are no more events. A token without route variables is fetched with the other
/// credentials at once; others are when a request wants them.
pub async fn watch_credentials(events: Events, reloads: Reloads, leases: TokenHandle, clock: Clock) {
    let mut heard = events.listen();
    loop {
        let event = match heard.recv().await {
            Ok(event) => event,
            Err(RecvError::Lagged(_)) => continue,
            Err(RecvError::Closed) => return,
        };
        let EventKind::TokenFailed { key, class, .. } = &event.what else { continue };
        if !is_refusal(*class) {
            continue;
        }
        let snapshot = reloads.current();
        let now = clock.now();
        let mut slots = snapshot.routes.iter().map(|route| route.by_slot(now)).filter_map(|(active, other)| {
            let other = other.filter(|_| active.module.caller() == CallAs::Application)?;
            [active, other].iter().any(|route| route.module.key() == *key).then_some((active, other))
        });
        let Some((active, other)) = slots.next() else { continue };
        if other.module.key() == *key {
            // Somebody asked for it who began before it was left. It must not rest when the provider goes back to it. The
            // token in use may have been refused just now: then the next one shows which credentials are accepted.
            let is_served = leases.at_hand(active.module.key()).await.is_some()
                || !active.module.has_vars() && leases.need(token_spec(active, Vars::none(), &clock, 0)).await.is_ok();
            if is_served {
                leases.promote(&active.provider);
            }
            continue;
        }
        if other.module.has_vars() {
            continue;
        }
        // A request of the config in force takes the place of this spec with its own.
        if leases.need(token_spec(other, Vars::none(), &clock, 0)).await.is_ok() {
            leases.promote(&other.provider);
        }
    }
}
