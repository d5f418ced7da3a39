//! Permission to spend one generation of a token until it expires.

use std::fmt;

use crate::base::secret::Fingerprint;
use crate::base::time::{Deadline, Now};
use crate::token::grant::CredentialHeaders;
use crate::token::key::TokenKey;

/// One generation of a token, ready to be put on requests. Immutable; shared by all workers.
pub struct Lease {
    /// Which token this is a generation of.
    pub key: TokenKey,
    /// Counts up with every token published under the key, from 1. A refusal names the generation that it saw.
    pub generation: u64,
    /// The headers to inject, ready made.
    pub headers: CredentialHeaders,
    /// When the fetch of this token was sent.
    pub issued: Now,
    /// When it must no longer be sent.
    pub expires: Deadline,
    /// For logs.
    pub fingerprint: Fingerprint,
}

impl Lease {
    /// Whether it may still be sent.
    #[inline]
    pub const fn valid(&self, now: Now) -> bool {
        !self.expires.passed(now)
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
