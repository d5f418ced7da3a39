//! The rotation of a user's tokens: look, lock, ask, save. Each step takes the result of the one before.
//!
//! ```text
//!  Looking --found--> good enough ----------------------------------> Ready
//!     |               nothing alive ---------------------------------> ConsentRequired
//!     v
//!  Locking --found--> renewed meanwhile by another replica ----------> Ready
//!     |
//!     v
//!  Asking --answered--> failed --------------------------------------> Failed
//!     |
//!     v
//!  Saving --saved--> renewed ----------------------------------------> Ready
//!                    dead -------------------------------------------> ConsentRequired
//!                    a refresh token, and no access token of use ----> Failed
//! ```
//!
//! Every state is consumed by its result. An [`Asking`] exists only under the lock that replicas share, is made from a
//! record that was read under that lock, and is the only way to make a refresh call: so one refresh token is sent once.
//! The provider's result stays in [`Saving`] until the store has it, for any number of attempts; only then is it used
//! (the loss of a rotated refresh token costs the user's consent). A provider's response that a refresh token is dead
//! is saved, too, so that no replica sends the token again. Of two results for one generation the success wins: if a
//! lock was lost and another replica sent a refresh token that this replica had already spent, that replica received
//! "dead" while this one holds valid tokens.
//!
//! The driver must not drop an `Asking` or a `Saving` because a client stopped waiting: let it run to its end, and tell
//! the client to retry.

use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use crate::base::backoff::{Backoff, jittered};
use crate::base::planted::{PlantedFault, planted};
use crate::base::secret::ExposeSecret;
use crate::base::time::Now;
use crate::token::consent::tokens::{Upkeep, UserTokens};
use crate::token::consent::{ConsentRealm, UserKey};
use crate::token::credential_slots::is_refusal;
use crate::token::failure::{Class, Failure};
use crate::token::grant::{RefreshGrant, UserGrant};

/// The pauses between attempts to save.
const SAVING: Backoff = Backoff { first: Duration::from_millis(100), ceiling: Duration::from_secs(5) };

/// The rests after a store did not answer. No bank is spared by longer ones, and it may be back at any moment.
const STORE: Backoff = Backoff { first: Duration::from_secs(1), ceiling: Duration::from_secs(4) };

/// Maximum number of attempts to save. The driver limits the waiting time of every other state; this module limits
/// saving.
const SAVING_TRIES: u32 = 1000;

/// The reason for which a code exchange or a refresh brought no usable tokens.
#[derive(Debug, Error)]
pub enum RotationRefusal {
    /// The provider says that the code or the refresh token is dead. For our logs: how it says that.
    #[error("{0}")]
    Dead(String),
    /// Anything else. Asking again may help, or a person must.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// The answer is a success that brings a refresh token, but no access token that can be used. The refresh token must
    /// be saved: the one that was sent may be spent.
    #[error("{0}")]
    Unusable(#[source] Failure, RefreshGrant),
}

/// Returns whether an answer brought tokens: a new refresh token counts even if the access token beside it is of no use.
pub const fn brings_tokens(answer: &Result<UserGrant, RotationRefusal>) -> bool {
    matches!(answer, Ok(_) | Err(RotationRefusal::Unusable(..)))
}

impl RotationRefusal {
    /// Returns whether the provider refused the application's credentials: with others, the same call may succeed.
    pub const fn is_of_credentials(&self) -> bool {
        matches!(self, RotationRefusal::Failed(failure) if is_refusal(failure.class))
    }
}

/// The purpose of a rotation.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RotationGoal {
    /// The refresh token shall not die.
    KeepAlive,
    /// An access token that may be sent, newer than this generation: the one that was refused or is due; 0: any.
    Serve {
        /// Generation that the new access token must exceed.
        newer_than: u64,
    },
}

/// The result of a rotation.
#[derive(Clone, Debug)]
pub enum RotationEnding {
    /// There is no live consent: the user must be asked. For our logs: why.
    ConsentRequired(Arc<str>),
    /// No token, for another reason. The stored tokens stay as valid as before.
    Failed(Failure),
    /// These tokens are in the store.
    Ready(Arc<UserTokens>),
}

/// The key of the requested tokens, and the goal of the rotation.
#[derive(Clone, Debug)]
struct RotationJob {
    key: UserKey,
    realm: ConsentRealm,
    goal: RotationGoal,
    upkeep: Upkeep,
}

/// The use that a record has for the goal of a [`RotationJob`].
enum RefreshNeed {
    Enough,
    Nothing(&'static str),
    Refresh,
}

impl RotationJob {
    fn worth(&self, found: Option<&UserTokens>, now: Now) -> RefreshNeed {
        let Some(found) = found else { return RefreshNeed::Nothing("nobody consented") };
        // A store that mixes records up must not hand one user's token to another.
        if found.key != self.key {
            return RefreshNeed::Nothing("the record is another user's");
        }
        if found.realm != self.realm {
            return RefreshNeed::Nothing("the consent was for other settings of the provider");
        }
        let enough = match self.goal {
            RotationGoal::KeepAlive => found.keep_alive_in(&self.upkeep, now, 255).is_none_or(|wait| !wait.is_zero()),
            RotationGoal::Serve { newer_than } => {
                let newer = found.generation > newer_than && found.valid(now);
                newer && (!found.due(&self.upkeep, now) || found.refreshable(now).is_none())
            }
        };
        match (enough, found.refreshable(now)) {
            (true, _) => RefreshNeed::Enough,
            (false, Some(_)) => RefreshNeed::Refresh,
            (false, None) => RefreshNeed::Nothing("the consent has run out"),
        }
    }

    /// These tokens, if they are as good as was asked for although their renewal failed.
    fn good(&self, tokens: Arc<UserTokens>, now: Now) -> Option<RotationEnding> {
        match self.goal {
            RotationGoal::KeepAlive => None,
            RotationGoal::Serve { newer_than } => {
                (tokens.generation > newer_than && tokens.valid(now)).then_some(RotationEnding::Ready(tokens))
            }
        }
    }
}

/// Waits for the record, read without a lock.
#[derive(Debug)]
pub struct Looking(Box<RotationJob>);

/// The next step after [`Looking::found`].
#[derive(Debug)]
pub enum LookResult {
    /// The rotation ended without a lock.
    Done(RotationEnding),
    /// Take the lock that replicas share for this user, then read the record again.
    Lock(Locking),
}

/// Waits for the lock, and for the record read under it.
#[derive(Debug)]
pub struct Locking {
    job: Box<RotationJob>,
    seen: Arc<UserTokens>,
}

/// The next step after [`Locking::found`].
#[derive(Debug)]
pub enum Locked {
    /// Make the refresh call with [`Asking::tokens`].
    Ask(Asking),
    /// It is over; release the lock.
    Done(RotationEnding),
}

/// Holds the lock and the right to one refresh call, and waits for its answer.
#[derive(Debug)]
pub struct Asking {
    job: Box<RotationJob>,
    tokens: Arc<UserTokens>,
}

/// Holds the lock and what the provider answered, and waits until the store has it.
#[derive(Debug)]
pub struct Saving {
    job: Box<RotationJob>,
    before: Arc<UserTokens>,
    next: Arc<UserTokens>,
    outcome: RotationOutcome,
    tries: u32,
}

/// The kind of the provider's response to the refresh call.
#[derive(Debug)]
enum RotationOutcome {
    Dead,
    Renewed,
    Unusable(Failure),
}

impl Looking {
    /// Begins. Read the record of `key`, without a lock.
    pub fn begin(key: UserKey, realm: ConsentRealm, goal: RotationGoal, upkeep: Upkeep) -> Self {
        Self(Box::new(RotationJob { key, realm, goal, upkeep }))
    }

    /// Takes the record that was read without the lock.
    pub fn found(self, record: Option<Arc<UserTokens>>, now: Now) -> LookResult {
        match (self.0.worth(record.as_deref(), now), record) {
            (RefreshNeed::Enough, Some(record)) => LookResult::Done(RotationEnding::Ready(record)),
            (RefreshNeed::Refresh, Some(seen)) => LookResult::Lock(Locking { job: self.0, seen }),
            (RefreshNeed::Nothing(why), _) => LookResult::Done(RotationEnding::ConsentRequired(why.into())),
            (RefreshNeed::Enough | RefreshNeed::Refresh, None) => {
                LookResult::Done(RotationEnding::ConsentRequired("nobody consented".into()))
            }
        }
    }

    /// The store could not be read.
    pub fn unreadable(self, why: &str) -> RotationEnding {
        unreachable_store(why)
    }
}

impl Locking {
    /// The lock is ours, and the record was read again.
    pub fn found(self, record: Option<Arc<UserTokens>>, now: Now) -> Locked {
        match (self.job.worth(record.as_deref(), now), record) {
            (RefreshNeed::Enough, Some(record)) => Locked::Done(RotationEnding::Ready(record)),
            (RefreshNeed::Refresh, Some(tokens)) => Locked::Ask(Asking { job: self.job, tokens }),
            (RefreshNeed::Nothing(why), _) => Locked::Done(RotationEnding::ConsentRequired(why.into())),
            (RefreshNeed::Enough | RefreshNeed::Refresh, None) => {
                Locked::Done(RotationEnding::ConsentRequired("nobody consented".into()))
            }
        }
    }

    /// Ends the rotation because the lock could not be taken or the store could not be read. The access token that was
    /// read before is returned while it is valid.
    pub fn unreadable(self, why: &str, now: Now) -> RotationEnding {
        self.job.good(self.seen, now).unwrap_or_else(|| unreachable_store(why))
    }
}

impl Asking {
    /// Returns the tokens with which to make the refresh call.
    pub const fn tokens(&self) -> &Arc<UserTokens> {
        &self.tokens
    }

    /// Ends the rotation without a call, because the provider asked to wait. The current access token is returned while
    /// it is valid.
    pub fn held_up(self, failure: Failure, now: Now) -> RotationEnding {
        self.job.good(self.tokens, now).unwrap_or(RotationEnding::Failed(failure))
    }

    /// The call that was sent at `sent` was answered, or failed. A failure ends it (release the lock), and the old
    /// access token serves while it lives; anything else must be saved first.
    pub fn answered(
        self,
        answer: Result<UserGrant, RotationRefusal>,
        sent: Now,
        now: Now,
    ) -> Result<Saving, RotationEnding> {
        let Self { job, tokens } = self;
        let (mut next, outcome) = match answer {
            Ok(fresh) => (tokens.rotated(fresh, sent), RotationOutcome::Renewed),
            Err(RotationRefusal::Dead(_)) => (tokens.bereft(), RotationOutcome::Dead),
            Err(RotationRefusal::Unusable(failure, refresh)) => {
                (tokens.refreshed_only(refresh, sent), RotationOutcome::Unusable(failure))
            }
            Err(RotationRefusal::Failed(failure)) => {
                return Err(job.good(tokens, now).unwrap_or(RotationEnding::Failed(failure)));
            }
        };
        if let (RotationGoal::Serve { newer_than }, RotationOutcome::Renewed) = (job.goal, &outcome) {
            // A consent after a lost record may count from below what was delivered before.
            next.generation = next.generation.max(newer_than.saturating_add(1));
        }
        Ok(Saving { job, before: tokens, next: Arc::new(next), outcome, tries: 0 })
    }
}

impl Saving {
    /// Returns the record to write, on condition that it replaces [`Saving::over`] and no other record.
    pub const fn tokens(&self) -> &Arc<UserTokens> {
        &self.next
    }

    /// Returns the record that the store must hold at the time of the write.
    pub const fn over(&self) -> &Arc<UserTokens> {
        &self.before
    }

    /// The store has it; release the lock.
    pub fn saved(self, now: Now) -> RotationEnding {
        let otherwise = match self.outcome {
            RotationOutcome::Renewed => return RotationEnding::Ready(self.next),
            RotationOutcome::Dead => {
                RotationEnding::ConsentRequired("the provider says that the refresh token is dead".into())
            }
            RotationOutcome::Unusable(failure) => RotationEnding::Failed(failure),
        };
        // An access token that was not refused is used until it expires.
        self.job.good(self.next, now).unwrap_or(otherwise)
    }

    /// The store failed: write again after the pause. `Err`: it was tried for more than an hour; give up.
    pub fn failed(mut self, why: &str, jitter: u8) -> Result<(Self, Duration), RotationEnding> {
        self.tries += 1;
        if self.tries >= SAVING_TRIES {
            return Err(unreachable_store(why));
        }
        let pause = jittered(SAVING.pause(self.tries), jitter);
        Ok((self, pause))
    }

    /// Something else stands in the store: a new consent, a revocation, a note that a call was made, or what another
    /// replica was answered after we had lost the lock. `Err`: write again, over what stands there now. Otherwise it is
    /// over; release the lock.
    pub fn outdated(self, record: Option<Arc<UserTokens>>, now: Now) -> Result<RotationEnding, Self> {
        let Some(found) = record else {
            return Ok(RotationEnding::ConsentRequired("the consent was revoked".into()));
        };
        let same = found.key == self.before.key && found.generation == self.before.generation;
        if same && self.outranks(&found) {
            let next = self.over_again(&found);
            return Err(Self { next: Arc::new(next), before: found, ..self });
        }
        Ok(match self.job.worth(Some(&found), now) {
            RefreshNeed::Enough => RotationEnding::Ready(found),
            RefreshNeed::Nothing(why) => RotationEnding::ConsentRequired(why.into()),
            // It lives, and the next attempt will see to it.
            RefreshNeed::Refresh => {
                RotationEnding::Failed(Failure::new(Class::Transient, "another replica changed the consent"))
            }
        })
    }
}

impl Saving {
    /// Builds the record to write over `found`, which has the same generation: the parts that the provider's response
    /// contains are taken from it, all others from `found`. So an access token that was refused meanwhile stays
    /// refused.
    fn over_again(&self, found: &UserTokens) -> UserTokens {
        match self.outcome {
            RotationOutcome::Dead => found.bereft(),
            RotationOutcome::Renewed => UserTokens { last_call: found.last_call, ..UserTokens::clone(&self.next) },
            RotationOutcome::Unusable(_) => UserTokens { refresh: self.next.refresh.clone(), ..found.clone() },
        }
    }

    /// Returns whether the provider's response takes precedence over `found`, a record of the same generation.
    fn outranks(&self, found: &UserTokens) -> bool {
        if planted(PlantedFault::DeadWins) {
            return found.refresh.is_some();
        }
        let text = |tokens: &UserTokens| tokens.refresh.as_ref().map(|refresh| refresh.token.clone());
        let untouched = match (text(found), text(&self.before)) {
            (Some(found), Some(before)) => found.expose_secret() == before.expose_secret(),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        match self.outcome {
            RotationOutcome::Renewed => true,
            RotationOutcome::Unusable(_) => untouched || found.refresh.is_none(),
            RotationOutcome::Dead => untouched,
        }
    }
}

fn unreachable_store(why: &str) -> RotationEnding {
    let failure = Failure::new(Class::Transient, format!("the store of consents: {why}"));
    RotationEnding::Failed(Failure { backoff: Some(STORE), ..failure })
}
