//! State machines, without I/O, from a user's consent to a user's token.
//!
//! A consent begins as a [`PendingConsent`], stored under the digest of a random [`State`] that works once. The
//! callback with that state is [`judge`]d; only a [`Consenting`] may be sent to the provider afterwards, and it cannot
//! be created in any other way. The provider's response becomes [`UserTokens`], a durable record that is renewed by a
//! rotation ([`Looking`], [`Locking`], [`Asking`], [`Saving`]): each state is a value that is consumed by its result,
//! so no refresh token is sent twice and none is used before the store has it.
//!
//! Times in records are wall-clock readings: another replica, or the same one after a restart, cannot use this
//! process's boot clock. The code that makes a lease from a record measures by both clocks from then on.

mod judge;
mod pending;
mod return_to;
mod rotation;
mod seal;
mod tokens;
mod user;

pub use judge::{AuthorizationCode, CallbackAnswer, ConsentOrigin, Consenting, NotExchanged, Rejection, judge};
pub use pending::{Challenge, CodeVerifier, PENDING_LIFE, PendingConsent, PendingEntry, State, StateId};
pub use return_to::{ReturnRule, ReturnTo};
pub use rotation::{
    Asking, Locked, Locking, LookResult, Looking, RotationEnding, RotationGoal, RotationRefusal, Saving, brings_tokens,
};
pub use seal::{PlainRecord, SealError};
pub use tokens::{Upkeep, UserAccess, UserRefresh, UserTokens};
pub use user::{BadUserName, ConsentOwner, UserKey, UserName};

/// A digest of what a user consented to: provider, endpoints, what the authorize request says. A record of another
/// realm is worth nothing: a token for the sandbox never reaches production because a config changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ConsentRealm(pub [u8; 32]);

#[cfg(test)]
mod model;
