//! Permission to spend one generation of a token until it expires.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::base::secret::Fingerprint;
use crate::base::time::{Deadline, Now};
use crate::token::grant::CallCredentials;
use crate::token::key::TokenKey;

/// One generation of a token, ready to be put on requests. Immutable; shared by all workers.
pub struct Lease {
    /// Key of the token of which this is a generation.
    pub key: TokenKey,
    /// Counts up with every token published under the key, from 1. A refusal names the generation that it saw. 0: it is
    /// no token but a static credential, which nothing replaces.
    pub generation: u64,
    /// The texts to inject, ready made.
    pub credentials: CallCredentials,
    /// When the fetch of this token was sent.
    pub issued: Now,
    /// When it must no longer be sent.
    pub expires: Deadline,
    /// Fingerprint that identifies the token in logs.
    pub fingerprint: Fingerprint,
    /// The token's trial, which ends once the provider has accepted it.
    pub trial: LeaseTrial,
}

/// The trial of a new token: an API that does not know the token yet may refuse it for a moment.
#[derive(Debug, Default)]
pub struct LeaseTrial {
    /// A refusal before this moment need not be final; absent: any refusal is.
    until: Option<Deadline>,
    /// A call with it was answered, and not by a refusal.
    passed: AtomicBool,
}

impl LeaseTrial {
    /// A trial that lasts until then, or until the token is accepted.
    pub const fn until(end: Deadline) -> Self {
        Self { until: Some(end), passed: AtomicBool::new(false) }
    }
}

impl Lease {
    /// Returns whether it stands for a static credential.
    #[inline]
    pub const fn is_standing(&self) -> bool {
        self.generation == 0
    }

    /// Returns whether the lease may still be sent.
    #[inline]
    pub const fn valid(&self, now: Now) -> bool {
        !self.expires.passed(now)
    }

    /// The provider accepted it. Written once: later calls only read.
    #[inline]
    pub fn prove(&self) {
        if !self.trial.passed.load(Ordering::Relaxed) {
            self.trial.passed.store(true, Ordering::Relaxed);
        }
    }

    /// Returns whether the provider has accepted the token.
    pub fn proved(&self) -> bool {
        self.trial.passed.load(Ordering::Relaxed)
    }

    /// Returns whether a refusal at `now` may only mean that the API does not know the token yet.
    pub fn is_newly_issued(&self, now: Now) -> bool {
        !self.proved() && self.trial.until.is_some_and(|until| !until.passed(now))
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("key", &self.key)
            .field("generation", &self.generation)
            .field("token", &self.fingerprint)
            .finish_non_exhaustive()
    }
}
