//! Judgement of the callback of a consent: it decides if the authorization code may be exchanged.
//!
//! The order of two steps makes a state single-use: *first* the store's entry is swapped for [`PendingEntry::Spent`],
//! in one atomic step for all replicas, *then* the previous content of the entry is judged. A second callback finds the
//! entry spent, regardless of the result of the first.

use std::fmt;
use std::time::Duration;

use thiserror::Error;

use crate::base::secret::SecretString;
use crate::base::time::{Deadline, Now};
use crate::token::consent::ConsentRealm;
use crate::token::consent::pending::{PendingConsent, PendingEntry, State};
use crate::token::consent::user::UserKey;

/// An authorization code that arrived. It cannot be copied: what is sent is used up.
pub struct AuthorizationCode {
    text: SecretString,
    arrived: Now,
}

impl AuthorizationCode {
    /// A code, and when it reached us.
    pub const fn new(text: SecretString, arrived: Now) -> Self {
        Self { text, arrived }
    }

    /// The code, unless `life` has passed since it arrived: then it is dropped, never to be sent.
    pub fn spend(self, life: Duration, now: Now) -> Option<SecretString> {
        (!Deadline::after(self.arrived, life).passed(now)).then_some(self.text)
    }
}

impl fmt::Debug for AuthorizationCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Code(…)")
    }
}

/// The content of a callback, as sent by a browser or an application.
#[derive(Debug)]
pub struct CallbackAnswer {
    /// Our state; `None` when what stood there cannot be one.
    pub state: Option<State>,
    /// The code, if there is one.
    pub code: Option<AuthorizationCode>,
    /// The provider's error code, where it names one that reads like a word.
    pub error: Option<String>,
    /// The issuer that says that it answers (RFC 9207).
    pub issuer: Option<String>,
}

/// The sender of a callback.
#[derive(Clone, Copy, Debug)]
pub enum ConsentOrigin<'a> {
    /// An application that received the code itself and identified itself to us; the user is whom it names.
    Application(&'a UserKey),
    /// A browser. It is not authenticated: the state is its only proof.
    Browser,
}

/// Permission to exchange a code for tokens. Only [`judge`] makes one.
#[derive(Debug)]
pub struct Consenting {
    pending: PendingConsent,
    code: AuthorizationCode,
}

impl Consenting {
    /// The consent that it belongs to.
    pub const fn pending(&self) -> &PendingConsent {
        &self.pending
    }

    /// Consumes the permission and returns its parts.
    pub fn into_parts(self) -> (PendingConsent, AuthorizationCode) {
        (self.pending, self.code)
    }
}

/// The reason for which a consent is not exchanged.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum NotExchanged {
    /// The provider's settings changed since it was started.
    #[error("the provider's settings have changed since it was started")]
    Changed,
    /// It was started too long ago.
    #[error("it was started too long ago")]
    Expired,
    /// Neither a code nor an error came back.
    #[error("neither a code nor an error came back")]
    NoCode,
    /// The response does not say that it comes from the provider's issuer (RFC 9207 section 2.4).
    #[error("the response names another issuer than the provider's, or none")]
    OtherIssuer,
    /// Another client, or another group, started it.
    #[error("another client or group started it")]
    OtherOwner,
    /// It was started for another provider.
    #[error("it was started for another provider")]
    OtherProvider,
    /// It was started for another user.
    #[error("it was started for another user")]
    OtherUser,
    /// The provider says no; with its error code, where that reads like a word (RFC 6749 section 4.1.2.1).
    #[error("the provider refuses it{}", .0.as_ref().map(|code| format!(": {code}")).unwrap_or_default())]
    Refused(Option<String>),
    /// The state was used before ([`PendingEntry::Spent`]).
    #[error("its state was used before")]
    Reused,
    /// The store has no entry for the state: the consent was never started, or it was started long ago.
    #[error("its state is not known")]
    Unknown,
}

/// The refusal of a callback: no code is exchanged.
#[derive(Debug)]
pub struct Rejection {
    pub why: NotExchanged,
    /// URL to which the browser may be redirected. `None` if the callback does not match a pending consent, or if that
    /// consent has none.
    pub return_to: Option<String>,
}

/// Judges what came back. `found` is what the store held under [`State::id`] when it was swapped for
/// [`PendingEntry::Spent`]; `provider`, `realm` and `issuer` are those of the callback's path, as they are configured now.
/// Without an `issuer` the response need not name one.
pub fn judge(
    found: Option<PendingEntry>,
    provider: &str,
    realm: &ConsentRealm,
    issuer: Option<&str>,
    asked: ConsentOrigin<'_>,
    callback: CallbackAnswer,
    now: Now,
) -> Result<Consenting, Rejection> {
    let reject = |why| Err(Rejection { why, return_to: None });
    let pending = match found {
        None => return reject(NotExchanged::Unknown),
        Some(PendingEntry::Spent { .. }) => return reject(NotExchanged::Reused),
        Some(PendingEntry::Pending(pending)) => pending,
    };
    if *pending.key.provider != *provider {
        return reject(NotExchanged::OtherProvider);
    }
    match asked {
        ConsentOrigin::Application(key) if key.owner != pending.key.owner => return reject(NotExchanged::OtherOwner),
        ConsentOrigin::Application(key) if key.provider != pending.key.provider => {
            return reject(NotExchanged::OtherProvider);
        }
        ConsentOrigin::Application(key) if key.user != pending.key.user => return reject(NotExchanged::OtherUser),
        ConsentOrigin::Application(_) | ConsentOrigin::Browser => {}
    }
    let why = if pending.expired(now) {
        NotExchanged::Expired
    } else if pending.realm != *realm {
        NotExchanged::Changed
    } else if issuer.is_some() && callback.issuer.as_deref() != issuer {
        NotExchanged::OtherIssuer
    } else {
        match (callback.code, callback.error) {
            // An error beside a code is no success.
            (_, Some(error)) => NotExchanged::Refused(Some(error).filter(|error| !error.is_empty())),
            (None, None) => NotExchanged::NoCode,
            (Some(code), None) => return Ok(Consenting { pending, code }),
        }
    };
    Err(Rejection { why, return_to: pending.return_to })
}
