//! The tokens that a bank has issued, and the standing of each.
//!
//! Tokens are stored under their SHA-256, so the ledger itself holds no credential; the last few issued ones are kept
//! as secrets for tests that check what was presented.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use crate::base::secret::{ExposeSecret, Fingerprint, SecretString, sha256};
use crate::base::time::{Deadline, Now};

/// Tokens remembered before the dead ones are forgotten.
const KEPT: usize = 20_000;
/// Issued tokens kept in the clear for tests.
const SHOWN: usize = 1024;

/// The data that a token was issued for.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Binding {
    /// The requested scope, unchanged; `None` if none was requested.
    pub scope: Option<String>,
    /// RAKBANK's `oauth_metadata`, as JSON text.
    pub metadata: Option<String>,
    /// The user who consented, where one did.
    pub user: Option<String>,
    /// The thumbprint of the key to which the token is bound, where it is (RFC 9449 section 6).
    pub jkt: Option<String>,
}

/// The standing of a presented token.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum TokenStanding {
    /// It may be spent on this.
    Alive(Binding),
    Expired,
    /// It was withdrawn before its time.
    Revoked,
    /// Never issued, or long forgotten.
    Unknown,
}

struct IssuedToken {
    binding: Binding,
    expires: Deadline,
    revoked: bool,
}

/// All tokens of one simulator.
#[derive(Default)]
pub(super) struct IssuedTokens {
    entries: HashMap<[u8; 32], IssuedToken>,
    issued: VecDeque<SecretString>,
    count: u64,
}

impl IssuedTokens {
    /// Files a new token. With `single`, older ones of the same binding die.
    pub(super) fn issue(&mut self, token: &str, binding: Binding, now: Now, life: Duration, single: bool) {
        if self.entries.len() >= KEPT {
            self.entries.retain(|_, entry| !entry.revoked && !entry.expires.passed(now));
        }
        if single {
            for entry in self.entries.values_mut().filter(|entry| entry.binding == binding) {
                entry.revoked = true;
            }
        }
        let expires = Deadline::after(now, life);
        self.entries.insert(sha256(token.as_bytes()), IssuedToken { binding, expires, revoked: false });
        self.count += 1;
        if self.issued.len() >= SHOWN {
            self.issued.pop_front();
        }
        self.issued.push_back(SecretString::from(token));
    }

    /// Every live token dies. Answers how many did.
    pub(super) fn revoke_all(&mut self, now: Now) -> usize {
        let alive = self.entries.values_mut().filter(|entry| !entry.revoked && !entry.expires.passed(now));
        alive.map(|entry| entry.revoked = true).count()
    }

    /// Every live token of this user dies. Answers how many did.
    pub(super) fn revoke_user(&mut self, user: &str, now: Now) -> usize {
        let alive = self.entries.values_mut().filter(|entry| !entry.revoked && !entry.expires.passed(now));
        let own = alive.filter(|entry| entry.binding.user.as_deref() == Some(user));
        own.map(|entry| entry.revoked = true).count()
    }

    pub(super) fn standing(&self, token: &str, now: Now) -> TokenStanding {
        match self.entries.get(&sha256(token.as_bytes())) {
            None => TokenStanding::Unknown,
            Some(entry) if entry.revoked => TokenStanding::Revoked,
            Some(entry) if entry.expires.passed(now) => TokenStanding::Expired,
            Some(entry) => TokenStanding::Alive(entry.binding.clone()),
        }
    }

    pub(super) fn issued(&self) -> Vec<SecretString> {
        self.issued.iter().cloned().collect()
    }

    pub(super) const fn count(&self) -> u64 {
        self.count
    }

    /// `text` with every token that stands in it replaced by its fingerprint.
    pub(super) fn mask(&self, text: &str) -> String {
        let mut masked = text.to_owned();
        for token in self.issued.iter().map(ExposeSecret::expose_secret) {
            if masked.contains(token) {
                masked = masked.replace(token, &format!("‹token {}›", Fingerprint::of(token.as_bytes())));
            }
        }
        masked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_lives_until_its_time_or_its_revocation() {
        let (start, life) = (Now::at(0, 0), Duration::from_secs(10));
        let mut ledger = IssuedTokens::default();
        ledger.issue("a", Binding::default(), start, life, false);
        assert_eq!(ledger.standing("a", start), TokenStanding::Alive(Binding::default()));
        assert_eq!(ledger.standing("b", start), TokenStanding::Unknown);
        assert_eq!(ledger.standing("a", start.plus(life)), TokenStanding::Expired);
        ledger.issue("b", Binding::default(), start, life, true);
        assert_eq!(
            ledger.standing("a", start),
            TokenStanding::Revoked,
            "a single token coexists with none of its binding"
        );
        assert_eq!(ledger.revoke_all(start), 1);
        assert_eq!(ledger.standing("b", start), TokenStanding::Revoked);
        assert_eq!(ledger.mask("see b: x").find("b:"), None);
    }
}
