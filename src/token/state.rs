//! The life of one token as a state machine that consumes itself.
//!
//! ```text
//!             needed              fetched          due, and used
//!     Empty ----------> Fetching ---------> Live ----------------> Renewing
//!       ^                   |                ^                      |    ^
//!       | rest is over      | failed         |  fetched             |    | rest is over,
//!       |                   v                +----------------------+    | and used
//!       +----------------- Resting                           failed |    |
//!                                                                   v    |
//!                                                                  Holding
//!
//!     expired:  Live -> Empty     Renewing -> Fetching   Holding -> Resting
//!     refused:  Live -> Fetching  Renewing -> Fetching   Holding -> Fetching, or Resting if told to stay away
//!     refused at birth:  Live, Holding -> Resting        Renewing -> Fetching
//!     refused in its first moments:  Live -> Settling -> Live
//! ```
//!
//! An API may not know a token yet that was just issued. So a token that was never accepted and is younger than
//! [`SETTLE`](crate::token::policy::SETTLE) is not discarded when it is refused: it is withdrawn, and published again
//! as a new generation after a pause; a second refusal is final. Meanwhile its predecessor serves if that is still
//! valid: after a renewal the predecessor is kept in *reserve* until its successor was accepted. At any age, a token
//! that was never accepted is replaced by the reserve when it is refused.
//!
//! A phase is named for the event that it waits for. Every phase handles every event by name; there is no wildcard arm.
//! The machine holds no secret: a token is a generation number with a deadline, and its header fields stay with the
//! keeper. Changes that follow from the clock alone (a token expired, a rest is over) are applied before any event is
//! handled, so no arm ever receives an expired token, nor a rest without a token that has ended.
//!
//! Expiry is judged by both clocks ([`Deadline`]). Flights and rests end by the boot clock alone: setting the wall
//! clock must neither abort a fetch that is in progress nor shorten the rest that a provider asked for.

use std::sync::Arc;
use std::time::Duration;

use crate::base::time::{Deadline, Now};
use crate::token::failure::{Class, FailureCause};
use crate::token::policy::Policy;

mod action;
mod event;
mod table;

pub use action::{Action, Denial, FailureReport};
pub use event::{Arrived, Event, TokenOrigin};
use table::TableStep;

/// The last failure, for the operator. Success does not erase it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LastFailure {
    pub class: Class,
    /// The part of the request that was at fault; `None`: that is not known.
    pub cause: Option<FailureCause>,
    /// Cause of the failure, for the operator.
    pub inside: Arc<str>,
    /// When the failure was reported.
    pub at: Now,
}

/// The phase of a token's state machine, for the operator. Variants are in the order of a token's life.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum PhaseKind {
    /// No token, and none was requested.
    Empty,
    /// No token; a fetch is under way.
    Fetching,
    /// A valid token; no fetch is in progress.
    Live,
    /// A valid token, and a fetch of its successor under way.
    Renewing,
    /// A valid token whose renewal failed; resting.
    Holding,
    /// No token, and a rest after a failure.
    Resting,
    /// A token that was refused in its first moments, set aside until it is tried again.
    Settling,
}

impl PhaseKind {
    /// All, in the order of a token's life.
    pub const ALL: [PhaseKind; 7] = [
        PhaseKind::Empty,
        PhaseKind::Fetching,
        PhaseKind::Live,
        PhaseKind::Renewing,
        PhaseKind::Holding,
        PhaseKind::Resting,
        PhaseKind::Settling,
    ];

    /// Returns whether somebody has to look at such a token: its last fetch has failed.
    pub const fn is_failing(self) -> bool {
        matches!(self, PhaseKind::Holding | PhaseKind::Resting)
    }

    /// Returns the phase as an operator is told it. A key without a token whose last fetches have failed is at rest
    /// until the next call fetches, also where the time of its rest is over or a reload has ended it.
    pub const fn told(self, is_without_success: bool) -> Self {
        match self {
            PhaseKind::Empty if is_without_success => PhaseKind::Resting,
            phase => phase,
        }
    }

    /// The word for it in logs and the admin API.
    pub const fn as_str(self) -> &'static str {
        match self {
            PhaseKind::Empty => "empty",
            PhaseKind::Fetching => "fetching",
            PhaseKind::Live => "live",
            PhaseKind::Renewing => "renewing",
            PhaseKind::Holding => "holding",
            PhaseKind::Resting => "resting",
            PhaseKind::Settling => "settling",
        }
    }
}

/// One token's state: what it waits for, and what it remembers.
#[derive(Clone, Debug)]
pub struct TokenState {
    phase: StatePhase,
    past: History,
}

#[derive(Clone, Debug)]
enum StatePhase {
    Empty,
    Fetching { flight: Flight },
    Live { token: SlotToken, renew: Deadline, reserve: Option<SlotToken> },
    Renewing { token: SlotToken, flight: Flight },
    Holding { token: SlotToken, rest: TokenRest },
    Resting { rest: TokenRest },
    Settling { is_newly_issued: SlotToken, rest: TokenRest, serving: Option<SlotToken> },
}

/// A token as its last generation was published.
#[derive(Clone, Copy, Debug)]
struct SlotToken {
    generation: u64,
    /// The generation that it arrived as; the same for each time that the provider or the machine brought it back.
    arrival: u64,
    /// The first of the generations before this one that were the same token; this one if there was none.
    first: u64,
    /// Those up to here were; none if this one is the first.
    last: u64,
    issued: Now,
    published: Now,
    expires: Deadline,
    trial: TokenTrial,
}

/// The provider's acceptance of a token, as far as it is known.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum TokenTrial {
    /// It was accepted, or is so old that it should be: a refusal is final.
    Over,
    /// It was refused before, or handed out again: a refusal is final, and says that fetching does not help.
    Second,
    /// A refusal before this moment need not be final.
    Young(Deadline),
}

impl SlotToken {
    /// Returns whether events about this generation concern this token.
    const fn is(&self, generation: u64) -> bool {
        generation == self.generation || (self.first <= generation && generation <= self.last)
    }

    /// The generations that were this token, with `self` among them: for its next one.
    const fn lineage(&self) -> (u64, u64) {
        let direct = self.last + 1 == self.generation && self.first <= self.last;
        (if direct { self.first } else { self.generation }, self.generation)
    }

    /// Returns whether the token was never accepted and is in its first moments.
    const fn is_newly_issued(&self, now: Now) -> bool {
        match self.trial {
            TokenTrial::Young(until) => !until.passed(now),
            TokenTrial::Over | TokenTrial::Second => false,
        }
    }
}

/// A fetch under way, and the boot-clock millisecond at which we stop waiting for it.
#[derive(Clone, Copy, Debug)]
struct Flight {
    number: u64,
    deadline: u64,
}

/// A pause after a failure, up to a boot-clock millisecond.
#[derive(Clone, Debug)]
struct TokenRest {
    class: Class,
    inside: Arc<str>,
    /// True if the pause is voluntary: the provider neither set its length nor refused further calls.
    ours: bool,
    until: u64,
}

impl TokenRest {
    const fn over(&self, now: Now) -> bool {
        now.boot >= self.until
    }

    fn denial(&self, now: Now) -> Denial {
        let (inside, retry_after) = (Arc::clone(&self.inside), left(self.until, now));
        Denial { class: self.class, inside, retry_after, ours: self.ours }
    }
}

/// The state that is kept across phases.
#[derive(Clone, Debug, Default)]
struct History {
    /// The [arrival](SlotToken::arrival) of the last token that arrived; none while the last one was over.
    arrival: Option<u64>,
    /// Refusals of fresh tokens, without one in between that proved good.
    births: u32,
    /// Answers of [`Class::Closed`] in a row. Kept apart: a bank that sleeps at night has not failed.
    closings: u32,
    /// The last number given to a flight.
    flights: u64,
    /// The last number given to a published token.
    generations: u64,
    /// When the last token that arrived dies.
    expires: Option<Deadline>,
    /// The last token of a store that arrived was over.
    hollow: bool,
    /// Failures in a row, and of which class; another class starts anew.
    streak: Option<(Class, u32)>,
    /// Renewals in a row that a suspicion asked for.
    suspicions: u32,
    /// Suspicion is ignored until this boot-clock millisecond.
    trusted_until: u64,
    trouble: Option<LastFailure>,
    /// The first failure since a token arrived. Kept when failures are forgiven: no token has come by that.
    failing_since: Option<Now>,
}

impl History {
    /// Forgets failures, so that the next one rests as if it were the first.
    fn pardon(&mut self) {
        self.births = 0;
        self.closings = 0;
        self.streak = None;
    }

    /// Adds a failure; says how many of its class came in a row.
    fn count(&mut self, class: Class) -> u32 {
        match class {
            Class::Closed => {
                self.closings = self.closings.saturating_add(1);
                self.closings
            }
            Class::Consent | Class::Fatal | Class::RateLimited | Class::Transient => {
                let before = self.streak.map_or(0, |(last, count)| if last == class { count } else { 0 });
                let count = before.saturating_add(1);
                self.closings = 0;
                self.streak = Some((class, count));
                count
            }
        }
    }
}

impl Default for TokenState {
    fn default() -> Self {
        Self::starting_after(0)
    }
}

impl TokenState {
    /// An empty slot whose first token will be generation `generation + 1`. When a key was forgotten and comes back,
    /// late news about its former life must not meet an equal number.
    pub fn starting_after(generation: u64) -> Self {
        Self { phase: StatePhase::Empty, past: History { generations: generation, ..History::default() } }
    }

    /// Takes one event at the moment `now`, appends what is to be done to `actions`, and becomes what it is then.
    /// `dice` (0 to 255, drawn by the caller) spreads renewals and rests.
    #[must_use]
    pub fn step(self, event: Event, now: Now, policy: &Policy, jitter: u8, actions: &mut Vec<Action>) -> Self {
        let mut turn = TableStep { past: self.past, now, policy, jitter, actions };
        if matches!(event, Event::Purged) {
            turn.past.failing_since = None;
        }
        let phase = match (self.phase, &event) {
            // This counts before the time that has passed: by that, the token might be due for its second trial.
            (
                StatePhase::Settling { is_newly_issued, serving, .. },
                Event::Refused { generation, replaced: true } | Event::Withdrawn { generation, replaced: true },
            ) if is_newly_issued.is(*generation) => {
                return Self { phase: turn.give_up_trial(is_newly_issued, serving), past: turn.past };
            }
            (phase, _) => turn.age(phase),
        };
        let phase = match phase {
            StatePhase::Empty => turn.empty(event),
            StatePhase::Fetching { flight } => turn.fetching(flight, event),
            StatePhase::Live { token, renew, reserve } => turn.live(token, renew, reserve, event),
            StatePhase::Renewing { token, flight } => turn.renewing(token, flight, event),
            StatePhase::Holding { token, rest } => turn.holding(token, rest, event),
            StatePhase::Resting { rest } => turn.resting(rest, event),
            StatePhase::Settling { is_newly_issued, rest, serving } => {
                turn.settling(is_newly_issued, rest, serving, event)
            }
        };
        Self { phase, past: turn.past }
    }

    /// Returns the time until an [`Event::Tick`] has an effect; `None` if only a request can cause a change.
    pub fn wait(&self, now: Now) -> Option<Duration> {
        match &self.phase {
            StatePhase::Empty => None,
            StatePhase::Fetching { flight } => Some(left(flight.deadline, now)),
            StatePhase::Live { token, renew, reserve } => {
                let ends = reserve.map_or(token.expires, |reserve| reserve.expires.min(token.expires));
                Some(renew.min(ends).remaining(now))
            }
            StatePhase::Renewing { token, flight } => {
                Some(token.expires.remaining(now).min(left(flight.deadline, now)))
            }
            StatePhase::Holding { token, rest } => Some(token.expires.remaining(now).min(left(rest.until, now))),
            StatePhase::Resting { rest } => Some(left(rest.until, now)),
            StatePhase::Settling { is_newly_issued, rest, serving } => {
                let ends =
                    serving.map_or(is_newly_issued.expires, |serving| serving.expires.min(is_newly_issued.expires));
                Some(ends.remaining(now).min(left(rest.until, now)))
            }
        }
    }

    /// Returns whether this generation is kept although it is not published.
    pub fn keeps(&self, generation: u64) -> bool {
        match &self.phase {
            StatePhase::Live { reserve, .. } => reserve.is_some_and(|reserve| reserve.generation == generation),
            StatePhase::Settling { is_newly_issued, .. } => is_newly_issued.generation == generation,
            StatePhase::Empty
            | StatePhase::Fetching { .. }
            | StatePhase::Renewing { .. }
            | StatePhase::Holding { .. }
            | StatePhase::Resting { .. } => false,
        }
    }

    /// Returns the phase as a [`PhaseKind`].
    pub const fn waiting(&self) -> PhaseKind {
        match self.phase {
            StatePhase::Empty => PhaseKind::Empty,
            StatePhase::Fetching { .. } => PhaseKind::Fetching,
            StatePhase::Live { .. } => PhaseKind::Live,
            StatePhase::Renewing { .. } => PhaseKind::Renewing,
            StatePhase::Holding { .. } => PhaseKind::Holding,
            StatePhase::Resting { .. } => PhaseKind::Resting,
            StatePhase::Settling { .. } => PhaseKind::Settling,
        }
    }

    /// The number of the fetch under way.
    pub const fn flight(&self) -> Option<u64> {
        match self.phase {
            StatePhase::Fetching { flight } | StatePhase::Renewing { flight, .. } => Some(flight.number),
            StatePhase::Empty
            | StatePhase::Live { .. }
            | StatePhase::Holding { .. }
            | StatePhase::Resting { .. }
            | StatePhase::Settling { .. } => None,
        }
    }

    /// When the renewal of a live token is due.
    pub const fn renews(&self) -> Option<Deadline> {
        match self.phase {
            StatePhase::Live { renew, .. } => Some(renew),
            StatePhase::Empty
            | StatePhase::Fetching { .. }
            | StatePhase::Renewing { .. }
            | StatePhase::Holding { .. }
            | StatePhase::Resting { .. }
            | StatePhase::Settling { .. } => None,
        }
    }

    /// Returns the cause of the current rest and its remaining time; `None` if there is no rest.
    pub fn rest(&self, now: Now) -> Option<Denial> {
        match &self.phase {
            StatePhase::Holding { rest, .. } | StatePhase::Resting { rest } | StatePhase::Settling { rest, .. } => {
                Some(rest.denial(now))
            }
            StatePhase::Empty | StatePhase::Fetching { .. } | StatePhase::Live { .. } | StatePhase::Renewing { .. } => {
                None
            }
        }
    }

    /// The last generation that was published, live or not; 0 before the first.
    pub const fn generation(&self) -> u64 {
        self.past.generations
    }

    /// Failures in a row since the last success; closing hours do not count.
    pub fn failures(&self) -> u32 {
        self.past.streak.map_or(0, |(_, count)| count)
    }

    /// The first failure since a token arrived or the key was purged; closing hours and missing consents do not count.
    pub const fn failing_since(&self) -> Option<Now> {
        self.past.failing_since
    }

    /// The last failure, if there ever was one.
    pub const fn trouble(&self) -> Option<&LastFailure> {
        self.past.trouble.as_ref()
    }
}

fn left(until: u64, now: Now) -> Duration {
    Duration::from_millis(until.saturating_sub(now.boot))
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
