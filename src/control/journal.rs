//! The control thread's entries in the audit log: reloads, and the outcomes of users' consents.

use super::reload::{ReloadOutcome, Reloaded};
use crate::config::Snapshot;
use crate::observe::audit::{AuditAction, Auditor};
use crate::token::consent::{NotExchanged, UserKey};
use crate::token::failure::{Class, Failure};

/// Records a reload, and has the audit log itself follow: another path, another key, a file that was moved away.
pub fn journal_reload(audit: &Auditor, reloaded: &Reloaded, current: &Snapshot) {
    let outcome = match &reloaded.outcome {
        ReloadOutcome::Applied(_) => "ok",
        ReloadOutcome::Refused(why) => why,
    };
    let target = [("config", &*reloaded.digest)];
    audit.note(&AuditAction { actor: &reloaded.by, what: "reload", target: &target, outcome });
    match &current.audit {
        Some(wish) if reloaded.outcome.is_applied() => audit.apply(wish.clone()),
        Some(_) | None => {}
    }
    audit.look();
}

/// Records the outcome of a consent. `user` is absent if it is not known which user it belonged to.
pub(super) fn journal_consent(
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
    audit.note(&AuditAction { actor, what, target: &target, outcome });
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

/// Returns the reason for a rejected consent, in a few words for the audit log.
pub(super) const fn rejection(why: &NotExchanged) -> &'static str {
    match why {
        NotExchanged::Changed => "rejected: settings changed",
        NotExchanged::Expired => "rejected: expired",
        NotExchanged::NoCode => "rejected: no code",
        NotExchanged::OtherIssuer => "rejected: other issuer",
        NotExchanged::OtherOwner => "rejected: other client",
        NotExchanged::OtherProvider => "rejected: other provider",
        NotExchanged::OtherUser => "rejected: other user",
        NotExchanged::Refused(_) => "rejected: refused by the provider or its user",
        NotExchanged::Reused => "rejected: used before",
        NotExchanged::Unknown => "rejected: unknown",
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::base::time::Clock;
    use crate::config::{InMemory, build};
    use crate::observe::metrics::AuditMeters;

    fn snapshot(log: &Path) -> Arc<Snapshot> {
        let text = format!(
            "[[listener]]\nbind = \"127.0.0.1:0\"\nclients = \"anyone\"\n[provider.a]\nprofile = \"oauth2\"\n\
             base_url = \"https://a.example\"\ntoken_url = \"https://a.example/t\"\nclient_id = \"i\"\n\
             client_secret = {{ env = \"SECRET\" }}\n[[route]]\npath = \"/a\"\nprovider = \"a\"\n[audit]\nto = \"{}\"\n",
            log.display()
        );
        let (snapshot, found) = build(Path::new("x.toml"), text, &InMemory::new().with_env("SECRET", "s"));
        Arc::new(snapshot.unwrap_or_else(|| panic!("{found:?}")))
    }

    #[test]
    fn reloads_are_recorded_with_who_wanted_them_and_the_log_follows() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (folder.path().join("first.log"), folder.path().join("second.log"));
        let before = snapshot(&first);
        let wish = before.audit.clone().unwrap();
        let (audit, thread) = Auditor::start(wish, &before.digest, Clock::System, AuditMeters::default()).unwrap();
        let told = |by: &str, outcome| Reloaded { at: 1, by: by.into(), digest: "d1".into(), outcome };
        journal_reload(&audit, &told("signal", ReloadOutcome::Refused("proxy.toml has 1 mistake".into())), &before);
        journal_reload(&audit, &told("admin:ops", ReloadOutcome::Applied(Arc::default())), &snapshot(&second));
        audit.stop();
        thread.join().unwrap();
        let told = fs::read_to_string(&first).unwrap();
        let (signal, admin) =
            (told.find("\"actor\":\"signal\"").unwrap(), told.find("\"actor\":\"admin:ops\"").unwrap());
        assert!(signal < admin && told[signal..admin].contains("1 mistake"), "{told}");
        assert!(told[admin..].contains("\"target\":{\"config\":\"d1\"},\"outcome\":\"ok\""), "{told}");
        let next = fs::read_to_string(folder.path().join("second.log")).unwrap();
        assert!(next.contains("\"kind\":\"open\"") && next.contains("\"why\":\"moved\""), "{next}");
    }
}
