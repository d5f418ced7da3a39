//! Getting a user's token: look, lock, ask, save, each the answer to the one before.
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
//! Every state is used up by its answer. An [`Asking`] exists only under the lock that replicas share, made from a
//! record that was read under it, and it holds the only way to a refresh call: so one refresh token is sent once. What
//! was answered is [`Saving`] until the store has it, however often that takes; only then is it used (a rotated
//! refresh token that is lost costs the user's consent). That the provider called a refresh token dead is saved, too:
//! so no replica asks with it again. Of two answers for one generation a success counts: where a lock was lost, and
//! another replica sent a refresh token that we had spent, it heard "dead" while we hold what works.
//!
//! Whoever drives this must not abandon an `Asking` or a `Saving` because a caller grew tired: let it run, and tell
//! the caller to come back.

use std::sync::Arc;
use std::time::Duration;

use crate::base::backoff::{Backoff, jittered};
use crate::base::planted::{PlantedFault, planted};
use crate::base::secret::ExposeSecret;
use crate::base::time::Now;
use crate::token::consent::tokens::{Upkeep, UserTokens};
use crate::token::consent::{ConsentRealm, UserKey};
use crate::token::failure::{Class, Failure};
use crate::token::grant::{RefreshGrant, UserGrant};

/// The pauses between attempts to save.
const SAVING: Backoff = Backoff { first: Duration::from_millis(100), ceiling: Duration::from_secs(5) };

/// The rests after a store did not answer. No bank is spared by longer ones, and it may be back at any moment.
const STORE: Backoff = Backoff { first: Duration::from_secs(1), ceiling: Duration::from_secs(4) };

/// How long a state other than `Saving` is worth waiting for is the driver's business; how long saving is tried, ours.
const SAVING_TRIES: u32 = 1000;

/// Why a code exchange or a refresh brought nothing.
#[derive(Debug)]
pub enum RotationRefusal {
    /// The provider says that the code or the refresh token is dead. For our logs: how it says that.
    Dead(String),
    /// Anything else. Asking again may help, or a person must.
    Failed(Failure),
    /// The answer is a success that brings a refresh token, but no access token that can be used. The refresh token must
    /// be saved: the one that was sent may be spent.
    Unusable(Failure, RefreshGrant),
}

/// What is wanted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Goal {
    /// The refresh token shall not die.
    KeepAlive,
    /// An access token that may be sent, newer than this generation: the one that was refused or is due; 0: any.
    Serve {
        /// The generation.
        newer_than: u64,
    },
}

/// How it ended.
#[derive(Clone, Debug)]
pub enum RotationEnding {
    /// There is no live consent: the user must be asked. For our logs: why.
    ConsentRequired(Arc<str>),
    /// No token, for another reason. What was there before stays as good as it was.
    Failed(Failure),
    /// These tokens are in the store.
    Ready(Arc<UserTokens>),
}

/// Whose tokens are wanted, and for what.
#[derive(Clone, Debug)]
struct RotationJob {
    key: UserKey,
    realm: ConsentRealm,
    goal: Goal,
    upkeep: Upkeep,
}

/// What a record is good for.
enum Worth {
    Enough,
    Nothing(&'static str),
    Refresh,
}

impl RotationJob {
    fn worth(&self, found: Option<&UserTokens>, now: Now) -> Worth {
        let Some(found) = found else { return Worth::Nothing("nobody consented") };
        // A store that mixes records up must not hand one user's token to another.
        if found.key != self.key {
            return Worth::Nothing("the record is another user's");
        }
        if found.realm != self.realm {
            return Worth::Nothing("the consent was for other settings of the provider");
        }
        let enough = match self.goal {
            Goal::KeepAlive => found.keep_alive_in(&self.upkeep, now, 255).is_none_or(|wait| !wait.is_zero()),
            Goal::Serve { newer_than } => {
                let newer = found.generation > newer_than && found.valid(now);
                newer && (!found.due(&self.upkeep, now) || found.refreshable(now).is_none())
            }
        };
        match (enough, found.refreshable(now)) {
            (true, _) => Worth::Enough,
            (false, Some(_)) => Worth::Refresh,
            (false, None) => Worth::Nothing("the consent has run out"),
        }
    }

    /// These tokens, if they are as good as was asked for although their renewal failed.
    fn good(&self, tokens: Arc<UserTokens>, now: Now) -> Option<RotationEnding> {
        match self.goal {
            Goal::KeepAlive => None,
            Goal::Serve { newer_than } => {
                (tokens.generation > newer_than && tokens.valid(now)).then_some(RotationEnding::Ready(tokens))
            }
        }
    }
}

/// Waits for the record, read without a lock.
#[derive(Debug)]
pub struct Looking(Box<RotationJob>);

/// What came of looking.
#[derive(Debug)]
pub enum LookResult {
    /// It is over.
    Done(RotationEnding),
    /// Take the lock that replicas share for this user, then read the record again.
    Lock(Locking),
}

/// Waits for the lock, and for the record read under it.
#[derive(Debug)]
pub struct Locking {
    errand: Box<RotationJob>,
    seen: Arc<UserTokens>,
}

/// What came of locking.
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
    errand: Box<RotationJob>,
    tokens: Arc<UserTokens>,
}

/// Holds the lock and what the provider answered, and waits until the store has it.
#[derive(Debug)]
pub struct Saving {
    errand: Box<RotationJob>,
    before: Arc<UserTokens>,
    next: Arc<UserTokens>,
    outcome: RotationOutcome,
    tries: u32,
}

/// What the provider answered.
#[derive(Debug)]
enum RotationOutcome {
    Dead,
    Renewed,
    Unusable(Failure),
}

impl Looking {
    /// Begins. Read the record of `key`, without a lock.
    pub fn begin(key: UserKey, realm: ConsentRealm, goal: Goal, upkeep: Upkeep) -> Self {
        Self(Box::new(RotationJob { key, realm, goal, upkeep }))
    }

    /// The record was read.
    pub fn found(self, record: Option<Arc<UserTokens>>, now: Now) -> LookResult {
        match (self.0.worth(record.as_deref(), now), record) {
            (Worth::Enough, Some(record)) => LookResult::Done(RotationEnding::Ready(record)),
            (Worth::Refresh, Some(seen)) => LookResult::Lock(Locking { errand: self.0, seen }),
            (Worth::Nothing(why), _) => LookResult::Done(RotationEnding::ConsentRequired(why.into())),
            (Worth::Enough | Worth::Refresh, None) => {
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
        match (self.errand.worth(record.as_deref(), now), record) {
            (Worth::Enough, Some(record)) => Locked::Done(RotationEnding::Ready(record)),
            (Worth::Refresh, Some(tokens)) => Locked::Ask(Asking { errand: self.errand, tokens }),
            (Worth::Nothing(why), _) => Locked::Done(RotationEnding::ConsentRequired(why.into())),
            (Worth::Enough | Worth::Refresh, None) => {
                Locked::Done(RotationEnding::ConsentRequired("nobody consented".into()))
            }
        }
    }

    /// The lock could not be had, or the store not be read. What was seen before serves while it lives.
    pub fn unreadable(self, why: &str, now: Now) -> RotationEnding {
        self.errand.good(self.seen, now).unwrap_or_else(|| unreachable_store(why))
    }
}

impl Asking {
    /// What to make the refresh call with.
    pub const fn tokens(&self) -> &Arc<UserTokens> {
        &self.tokens
    }

    /// The provider asked to be left alone: nothing is sent. What is there serves while it lives.
    pub fn held_up(self, failure: Failure, now: Now) -> RotationEnding {
        self.errand.good(self.tokens, now).unwrap_or(RotationEnding::Failed(failure))
    }

    /// The call that was sent at `sent` was answered, or failed. A failure ends it (release the lock), and the old
    /// access token serves while it lives; anything else must be saved first.
    pub fn answered(
        self,
        answer: Result<UserGrant, RotationRefusal>,
        sent: Now,
        now: Now,
    ) -> Result<Saving, RotationEnding> {
        let Self { errand, tokens } = self;
        let (mut next, outcome) = match answer {
            Ok(fresh) => (tokens.rotated(fresh, sent), RotationOutcome::Renewed),
            Err(RotationRefusal::Dead(_)) => (tokens.bereft(), RotationOutcome::Dead),
            Err(RotationRefusal::Unusable(failure, refresh)) => {
                (tokens.refreshed_only(refresh, sent), RotationOutcome::Unusable(failure))
            }
            Err(RotationRefusal::Failed(failure)) => {
                return Err(errand.good(tokens, now).unwrap_or(RotationEnding::Failed(failure)));
            }
        };
        if let (Goal::Serve { newer_than }, RotationOutcome::Renewed) = (errand.goal, &outcome) {
            // A consent after a lost record may count from below what was delivered before.
            next.generation = next.generation.max(newer_than.saturating_add(1));
        }
        Ok(Saving { errand, before: tokens, next: Arc::new(next), outcome, tries: 0 })
    }
}

impl Saving {
    /// What to write, in place of [`Saving::over`] and of nothing else.
    pub const fn tokens(&self) -> &Arc<UserTokens> {
        &self.next
    }

    /// What must stand in the store when it is written.
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
        // An access token that nobody refused lives out its life.
        self.errand.good(self.next, now).unwrap_or(otherwise)
    }

    /// The store failed: write again after the pause. `Err`: it was tried for more than an hour; give up.
    pub fn failed(mut self, why: &str, dice: u8) -> Result<(Self, Duration), RotationEnding> {
        self.tries += 1;
        if self.tries >= SAVING_TRIES {
            return Err(unreachable_store(why));
        }
        let pause = jittered(SAVING.pause(self.tries), dice);
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
        Ok(match self.errand.worth(Some(&found), now) {
            Worth::Enough => RotationEnding::Ready(found),
            Worth::Nothing(why) => RotationEnding::ConsentRequired(why.into()),
            // It lives, and the next attempt will see to it.
            Worth::Refresh => {
                RotationEnding::Failed(Failure::new(Class::Transient, "another replica changed the consent"))
            }
        })
    }
}

impl Saving {
    /// What to write over this record of the same generation: what was answered is taken from the answer, and everything
    /// else from what stands there now. So an access token that was refused meanwhile stays refused.
    fn over_again(&self, found: &UserTokens) -> UserTokens {
        match self.outcome {
            RotationOutcome::Dead => found.bereft(),
            RotationOutcome::Renewed => UserTokens { last_call: found.last_call, ..UserTokens::clone(&self.next) },
            RotationOutcome::Unusable(_) => UserTokens { refresh: self.next.refresh.clone(), ..found.clone() },
        }
    }

    /// Whether what was answered counts for more than this record of the same generation.
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
