//! What the control thread tells the audit log: reloads, and what becomes of users' consents.

use std::sync::Arc;

use tokio::sync::watch;

use super::reload::{Outcome, Reloaded};
use crate::config::Snapshot;
use crate::observe::audit::{Action, Auditor};
use crate::token::consent::{UserKey, Why};
use crate::token::failure::{Class, Failure};

/// Records every reload, and has the audit log itself follow: another path, another key, a file that was moved away.
/// Ends with whoever reloads.
pub async fn record_reloads(
    audit: Auditor,
    mut outcomes: watch::Receiver<Arc<Reloaded>>,
    current: watch::Receiver<Arc<Snapshot>>,
) {
    let audited = current.borrow().audit.is_some();
    while outcomes.changed().await.is_ok() {
        let reloaded = outcomes.borrow_and_update().clone();
        let outcome = match &reloaded.outcome {
            Outcome::Applied(_) => "ok",
            Outcome::Refused(why) => why,
        };
        let target = [("config", &*reloaded.digest)];
        audit.note(&Action { actor: &reloaded.by, what: "reload", target: &target, outcome });
        let wish = current.borrow().audit.clone();
        if wish.is_some() != audited {
            tracing::warn!("whether there is an audit log is decided at the start: [audit] takes a restart");
        }
        match wish {
            Some(wish) if reloaded.outcome.is_applied() => audit.apply(wish),
            Some(_) | None => {}
        }
        audit.look();
    }
}

/// Records what became of a consent. `user` is absent where nobody knows whose it was.
pub(super) fn record_consent(
    audit: &Auditor,
    actor: &str,
    what: &'static str,
    provider: &str,
    user: Option<&UserKey>,
    outcome: &str,
) {
    let mut target = vec![("provider", provider)];
    if let Some(key) = user {
        target.extend([(key.owner.kind(), key.owner.name()), ("user", key.user.as_str())]);
    }
    audit.note(&Action { actor, what, target: &target, outcome });
}

/// A failure in a word.
pub(super) const fn failure(failure: &Failure) -> &'static str {
    match failure.class {
        Class::Closed => "failed: closed",
        Class::Consent => "failed: consent",
        Class::Fatal => "failed: fatal",
        Class::RateLimited => "failed: rate-limited",
        Class::Transient => "failed: transient",
    }
}

/// Why nothing came of a consent, in a word.
pub(super) const fn rejection(why: &Why) -> &'static str {
    match why {
        Why::Changed => "rejected: settings changed",
        Why::Expired => "rejected: expired",
        Why::NoCode => "rejected: no code",
        Why::OtherOwner => "rejected: other client",
        Why::OtherProvider => "rejected: other provider",
        Why::OtherUser => "rejected: other user",
        Why::Refused(_) => "rejected: refused by the provider or its user",
        Why::Reused => "rejected: used before",
        Why::Unknown => "rejected: unknown",
    }
}
