//! Failures to obtain a token, in classes that decide the next step.

use std::num::NonZeroU64;
use std::time::Duration;

use thiserror::Error;

use crate::base::backoff::Backoff;
use crate::base::planted::{PlantedFault, planted};
use crate::base::time::millis;

/// The class of a failed token call.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Class {
    /// The provider says that it is outside its working hours. Not a fault; asked again at opening.
    Closed,
    /// The user has not consented, or the consent has ended. Only the user can help; no further token call is made.
    Consent,
    /// The provider refuses our application's credentials. Asking again soon cannot help.
    Fatal,
    /// The provider says that we ask too often.
    RateLimited,
    /// Unreachable, too slow, or an answer that makes no sense. Asking again may help.
    Transient,
}

impl Class {
    /// Every class, once.
    pub const ALL: [Class; 5] = [Class::Closed, Class::Consent, Class::Fatal, Class::RateLimited, Class::Transient];

    /// The word for it in metrics, logs and the admin API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Class::Closed => "closed",
            Class::Consent => "consent-required",
            Class::Fatal => "fatal",
            Class::RateLimited => "rate-limited",
            Class::Transient => "transient",
        }
    }

    /// Returns the rest after a failure of this class, if neither the profile nor the provider names one.
    pub const fn backoff(self) -> Backoff {
        let (first, ceiling) = match self {
            Class::Closed => (300, 900),
            Class::Consent => (1, 5),
            Class::Fatal => (300, 3600),
            Class::RateLimited => (30, 300),
            Class::Transient => (1, 30),
        };
        Backoff { first: Duration::from_secs(first), ceiling: Duration::from_secs(ceiling) }
    }
}

/// The part of a request that the provider did not accept, where its profile can tell.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum FailureCause {
    /// A time in the request is too far from the provider's own.
    Clock,
    /// The application's id or secret.
    Credentials,
    /// A key or certificate that the provider does not know.
    Key,
    /// A signature that is not of the text that the provider computes; it knows the key.
    Signature,
}

impl FailureCause {
    /// Every cause with its word in a profile and in the admin API.
    pub const WORDS: [(&'static str, FailureCause); 4] = [
        ("clock", FailureCause::Clock),
        ("credentials", FailureCause::Credentials),
        ("key", FailureCause::Key),
        ("signature", FailureCause::Signature),
    ];

    /// The word for it in profiles and in the admin API.
    pub const fn as_str(self) -> &'static str {
        match self {
            FailureCause::Clock => "clock",
            FailureCause::Credentials => "credentials",
            FailureCause::Key => "key",
            FailureCause::Signature => "signature",
        }
    }

    /// A sentence on what to do about it.
    pub const fn cure(self) -> &'static str {
        match self {
            FailureCause::Clock => {
                "the bank finds a time in the request too old or in the future: set this machine's clock"
            }
            FailureCause::Credentials => {
                "the bank does not accept the application's id or secret: compare them with what it gave, letter by letter"
            }
            FailureCause::Key => {
                "the bank does not know the key or certificate: compare its id and thumbprint with the bank's portal"
            }
            FailureCause::Signature => {
                "the bank knows the key but computes another text; `countersign explain` shows ours"
            }
        }
    }
}

/// A rest that ends at a known moment. At least a millisecond, and small: failures travel in results.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ExactRest(NonZeroU64);

impl ExactRest {
    /// A rest of this length, in whole milliseconds.
    pub fn of(left: Duration) -> Self {
        Self(NonZeroU64::new(millis(left)).unwrap_or(NonZeroU64::MIN))
    }

    /// Returns its length.
    pub const fn duration(self) -> Duration {
        Duration::from_millis(self.0.get())
    }
}

/// A failed token call, and the settings of the rest that follows it.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("{inside}")]
pub struct Failure {
    pub class: Class,
    /// The part of the request that was at fault; `None`: the profile cannot tell.
    pub cause: Option<FailureCause>,
    /// The provider's `Retry-After`, clamped to an hour.
    pub retry_after: Option<Duration>,
    /// The rest that the profile asks for instead of the class's own.
    pub backoff: Option<Backoff>,
    /// The time until the next call may be made, where countersign itself knows it: until the provider opens, or until a
    /// budget has room again. Without jitter.
    pub exact: Option<ExactRest>,
    /// The provider did hand out a token, with nothing left of its life. Near the end of the last token's life that is
    /// the same token once more: its successor follows within a second.
    pub ended: bool,
    /// For our logs and the operator: what happened, without any secret and without free text of the provider.
    pub inside: String,
}

impl Failure {
    /// A failure of this class, with the class's own rest.
    pub fn new(class: Class, inside: impl Into<String>) -> Self {
        Self { class, cause: None, retry_after: None, backoff: None, exact: None, ended: false, inside: inside.into() }
    }

    /// Returns the rest after `failures` of these in a row, before jitter: the class's or the profile's own pause, and
    /// no less than `Retry-After`, which is a floor for every class and shortens nothing (RFC 9110 section 10.2.3). An exact
    /// time takes the place of the pause.
    pub fn rest(&self, failures: u32) -> Duration {
        let exact = self.exact.map(ExactRest::duration);
        let own = exact.unwrap_or_else(|| self.backoff.unwrap_or(self.class.backoff()).pause(failures));
        if planted(PlantedFault::ShortRest) {
            return self.retry_after.map_or(own, |asked| asked.max(Duration::from_secs(1)));
        }
        own.max(self.retry_after.unwrap_or_default())
    }
}
