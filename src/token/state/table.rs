//! The table: what each phase makes of each event.

use std::sync::Arc;
use std::time::Duration;

use super::{
    Action, Arrived, Event, FailureReport, Flight, History, LastFailure, SlotToken, StatePhase, TokenOrigin, TokenRest,
    TokenTrial, left,
};
use crate::base::backoff::jittered;
use crate::base::time::{Deadline, Now, millis};
use crate::token::failure::{Class, Failure};
use crate::token::grant::LIFE_CAP;
use crate::token::policy::{BIRTH, Policy, SETTLE, SUSPICION, UNCHANGED, YOUNG, postponement, rest_after};

/// One step under way: the memory it may change, the moment, and where its decisions go.
pub(super) struct TableStep<'a> {
    pub(super) past: History,
    pub(super) now: Now,
    pub(super) policy: &'a Policy,
    pub(super) jitter: u8,
    pub(super) actions: &'a mut Vec<Action>,
}

/// The table: one function per phase, one arm per event.
impl TableStep<'_> {
    /// Applies the changes since the last step that result from the clock alone.
    pub(super) fn age(&mut self, phase: StatePhase) -> StatePhase {
        let phase = match phase {
            StatePhase::Live { token, .. } if token.expires.passed(self.now) => {
                self.withdraw(token);
                self.proved();
                StatePhase::Empty
            }
            StatePhase::Live { token, renew, reserve } => {
                StatePhase::Live { token, renew, reserve: reserve.filter(|reserve| !reserve.expires.passed(self.now)) }
            }
            StatePhase::Renewing { token, flight } if token.expires.passed(self.now) => {
                self.withdraw(token);
                StatePhase::Fetching { flight }
            }
            StatePhase::Holding { token, rest } if token.expires.passed(self.now) => {
                self.withdraw(token);
                StatePhase::Resting { rest }
            }
            StatePhase::Settling { is_newly_issued, rest, serving } => self.settle(is_newly_issued, rest, serving),
            StatePhase::Empty
            | StatePhase::Fetching { .. }
            | StatePhase::Renewing { .. }
            | StatePhase::Holding { .. }
            | StatePhase::Resting { .. } => phase,
        };
        match phase {
            StatePhase::Resting { rest } if rest.over(self.now) => StatePhase::Empty,
            StatePhase::Empty
            | StatePhase::Fetching { .. }
            | StatePhase::Live { .. }
            | StatePhase::Renewing { .. }
            | StatePhase::Holding { .. }
            | StatePhase::Resting { .. }
            | StatePhase::Settling { .. } => phase,
        }
    }

    /// Applies the clock's changes to a token that is set aside, and to its predecessor that serves meanwhile.
    fn settle(&mut self, is_newly_issued: SlotToken, rest: TokenRest, serving: Option<SlotToken>) -> StatePhase {
        let serving = match serving {
            Some(serving) if serving.expires.passed(self.now) => {
                self.withdraw(serving);
                None
            }
            Some(_) | None => serving,
        };
        if is_newly_issued.expires.passed(self.now) {
            return match serving {
                Some(token) => StatePhase::Live { token, renew: self.at_once(), reserve: None },
                // Requests may be waiting for it.
                None => StatePhase::Fetching { flight: self.fetch() },
            };
        }
        if !rest.over(self.now) {
            return StatePhase::Settling { is_newly_issued, rest, serving };
        }
        let token = self.republish(is_newly_issued, TokenTrial::Second);
        let left = token.expires.remaining(self.now);
        let renew_in = self.policy.renew_in(token.expires.life_since(token.issued), left, self.jitter);
        StatePhase::Live { token, renew: Deadline::after(self.now, renew_in), reserve: serving }
    }

    pub(super) fn empty(&mut self, event: Event) -> StatePhase {
        match event {
            Event::Forced => {
                self.past.pardon();
                StatePhase::Fetching { flight: self.fetch() }
            }
            Event::Needed | Event::Refused { .. } => StatePhase::Fetching { flight: self.fetch() },
            Event::Forgiven | Event::Purged => {
                self.past.pardon();
                StatePhase::Empty
            }
            Event::Failed { .. }
            | Event::Fetched { .. }
            | Event::Proved { .. }
            | Event::RefusedAtBirth { .. }
            | Event::Suspected { .. }
            | Event::Tick { .. }
            | Event::Withdrawn { .. } => StatePhase::Empty,
        }
    }

    pub(super) fn fetching(&mut self, flight: Flight, event: Event) -> StatePhase {
        match event {
            Event::Failed { flight: number, failure } if number == flight.number => self.fetch_failed(number, &failure),
            Event::Fetched { flight: number, arrived } if number == flight.number => match self.land(&arrived, None) {
                Landing::Again => StatePhase::Fetching { flight: self.fetch() },
                Landing::Failed(failure) => self.fetch_failed(number, &failure),
                Landing::Live(phase) => phase,
            },
            Event::Tick { .. } if self.now.boot >= flight.deadline => {
                let failure = self.abandon(flight);
                self.fetch_failed(flight.number, &failure)
            }
            Event::Forgiven => {
                self.past.pardon();
                StatePhase::Fetching { flight }
            }
            // A purge does not take the fetch away from those who wait for it, and brings a new token anyway.
            Event::Failed { .. }
            | Event::Fetched { .. }
            | Event::Forced
            | Event::Needed
            | Event::Proved { .. }
            | Event::Purged
            | Event::Refused { .. }
            | Event::RefusedAtBirth { .. }
            | Event::Suspected { .. }
            | Event::Tick { .. }
            | Event::Withdrawn { .. } => StatePhase::Fetching { flight },
        }
    }

    pub(super) fn live(
        &mut self,
        token: SlotToken,
        renew: Deadline,
        reserve: Option<SlotToken>,
        event: Event,
    ) -> StatePhase {
        let reserve = self.without_refused(reserve, &event);
        let stay = StatePhase::Live { token, renew, reserve };
        match event {
            Event::Forced => {
                self.past.pardon();
                StatePhase::Renewing { token, flight: self.fetch() }
            }
            Event::Forgiven => {
                self.past.pardon();
                stay
            }
            Event::Needed => {
                self.actions.push(Action::Serve);
                stay
            }
            Event::Proved { generation } if generation == token.generation => {
                StatePhase::Live { token: SlotToken { trial: TokenTrial::Over, ..token }, renew, reserve: None }
            }
            Event::Purged => {
                self.past.pardon();
                self.withdraw(token);
                StatePhase::Empty
            }
            Event::Refused { generation, replaced } if token.is(generation) => {
                match self.set_aside(token, reserve, replaced) {
                    Some(settling) if reserve.is_some() => return settling,
                    Some(settling) => return self.wait_out(settling),
                    None => self.invalidate(token),
                }
                match reserve {
                    Some(reserve) => self.fall_back(token, reserve),
                    None if token.trial == TokenTrial::Second && !replaced => {
                        let rest = self.rest_from_birth();
                        self.deny(rest)
                    }
                    None => StatePhase::Fetching { flight: self.fetch() },
                }
            }
            Event::Refused { .. } => {
                self.actions.push(Action::Serve);
                stay
            }
            Event::RefusedAtBirth { generation } if token.is(generation) => {
                if let Some(settling) = self.set_aside(token, reserve, false) {
                    return settling;
                }
                self.bury(token);
                let rest = self.rest_from_birth();
                match reserve {
                    Some(reserve) => StatePhase::Holding { token: self.republish(reserve, TokenTrial::Over), rest },
                    None => StatePhase::Resting { rest },
                }
            }
            Event::Suspected { generation } if generation == token.generation && self.heeds_suspicion() => {
                StatePhase::Renewing { token, flight: self.fetch() }
            }
            Event::Tick { used } if renew.passed(self.now) => {
                self.proved();
                self.renew(token, reserve, used)
            }
            Event::Withdrawn { generation, replaced } if token.is(generation) => {
                if let Some(settling) = self.set_aside(token, reserve, replaced) {
                    return settling;
                }
                self.invalidate(token);
                match reserve {
                    Some(reserve) => self.fall_back(token, reserve),
                    None if self.now.since(token.published) < YOUNG => StatePhase::Empty,
                    None => StatePhase::Fetching { flight: self.fetch() },
                }
            }
            Event::Failed { .. }
            | Event::Fetched { .. }
            | Event::Proved { .. }
            | Event::RefusedAtBirth { .. }
            | Event::Suspected { .. }
            | Event::Tick { .. }
            | Event::Withdrawn { .. } => stay,
        }
    }

    pub(super) fn renewing(&mut self, token: SlotToken, flight: Flight, event: Event) -> StatePhase {
        let stay = StatePhase::Renewing { token, flight };
        match event {
            Event::Failed { flight: number, failure } if number == flight.number => {
                self.renewal_failed(token, number, &failure)
            }
            Event::Fetched { flight: number, arrived } if number == flight.number => {
                match self.land(&arrived, Some(token)) {
                    Landing::Again => StatePhase::Renewing { token, flight: self.fetch() },
                    Landing::Failed(failure) => self.renewal_failed(token, number, &failure),
                    Landing::Live(phase) => phase,
                }
            }
            Event::Forgiven => {
                self.past.pardon();
                stay
            }
            Event::Needed => {
                self.actions.push(Action::Serve);
                stay
            }
            Event::Proved { generation } if generation == token.generation => {
                StatePhase::Renewing { token: SlotToken { trial: TokenTrial::Over, ..token }, flight }
            }
            Event::Purged => {
                self.past.pardon();
                self.withdraw(token);
                self.actions.push(Action::Abandon { flight: flight.number });
                StatePhase::Empty
            }
            // A fetch of the successor is already in progress: waiting requests get its token.
            Event::Refused { generation, .. } | Event::Withdrawn { generation, .. } if token.is(generation) => {
                self.invalidate(token);
                StatePhase::Fetching { flight }
            }
            Event::Refused { .. } => {
                self.actions.push(Action::Serve);
                stay
            }
            Event::RefusedAtBirth { generation } if token.is(generation) => {
                self.bury(token);
                self.past.births = self.past.births.saturating_add(1);
                self.report_birth(Duration::ZERO);
                StatePhase::Fetching { flight }
            }
            Event::Tick { .. } if self.now.boot >= flight.deadline => {
                let failure = self.abandon(flight);
                self.renewal_failed(token, flight.number, &failure)
            }
            Event::Failed { .. }
            | Event::Fetched { .. }
            | Event::Forced
            | Event::Proved { .. }
            | Event::RefusedAtBirth { .. }
            | Event::Suspected { .. }
            | Event::Tick { .. }
            | Event::Withdrawn { .. } => stay,
        }
    }

    pub(super) fn holding(&mut self, token: SlotToken, rest: TokenRest, event: Event) -> StatePhase {
        match event {
            Event::Forced => {
                self.past.pardon();
                StatePhase::Renewing { token, flight: self.fetch() }
            }
            Event::Forgiven => {
                self.past.pardon();
                StatePhase::Live { token, renew: self.at_once(), reserve: None }
            }
            Event::Needed => {
                self.actions.push(Action::Serve);
                StatePhase::Holding { token, rest }
            }
            Event::Proved { generation } if generation == token.generation => {
                StatePhase::Holding { token: SlotToken { trial: TokenTrial::Over, ..token }, rest }
            }
            Event::Purged => {
                self.past.pardon();
                self.withdraw(token);
                StatePhase::Empty
            }
            // A refusal happens once per generation, so one try out of turn is no storm, and may save the request.
            // A provider that told us to stay away is not asked, though.
            Event::Refused { generation, .. } if token.is(generation) => {
                self.invalidate(token);
                if rest.ours || rest.over(self.now) {
                    StatePhase::Fetching { flight: self.fetch() }
                } else {
                    self.deny(rest)
                }
            }
            Event::Refused { .. } => {
                self.actions.push(Action::Serve);
                StatePhase::Holding { token, rest }
            }
            Event::RefusedAtBirth { generation } if token.is(generation) => {
                self.bury(token);
                let own = self.rest_from_birth();
                StatePhase::Resting { rest: if own.until > rest.until { own } else { rest } }
            }
            Event::Tick { used } if rest.over(self.now) => self.renew(token, None, used),
            Event::Withdrawn { generation, .. } if token.is(generation) => {
                self.invalidate(token);
                StatePhase::Resting { rest }
            }
            Event::Failed { .. }
            | Event::Fetched { .. }
            | Event::Proved { .. }
            | Event::RefusedAtBirth { .. }
            | Event::Suspected { .. }
            | Event::Tick { .. }
            | Event::Withdrawn { .. } => StatePhase::Holding { token, rest },
        }
    }

    pub(super) fn resting(&mut self, rest: TokenRest, event: Event) -> StatePhase {
        match event {
            Event::Forced => {
                self.past.pardon();
                StatePhase::Fetching { flight: self.fetch() }
            }
            Event::Forgiven | Event::Purged => {
                self.past.pardon();
                StatePhase::Empty
            }
            Event::Needed | Event::Refused { .. } => self.deny(rest),
            Event::Failed { .. }
            | Event::Fetched { .. }
            | Event::Proved { .. }
            | Event::RefusedAtBirth { .. }
            | Event::Suspected { .. }
            | Event::Tick { .. }
            | Event::Withdrawn { .. } => StatePhase::Resting { rest },
        }
    }

    pub(super) fn settling(
        &mut self,
        is_newly_issued: SlotToken,
        rest: TokenRest,
        serving: Option<SlotToken>,
        event: Event,
    ) -> StatePhase {
        match (event, serving) {
            (Event::Forced, Some(token)) => {
                self.past.pardon();
                StatePhase::Renewing { token, flight: self.fetch() }
            }
            (Event::Forced, None) => {
                self.past.pardon();
                StatePhase::Fetching { flight: self.fetch() }
            }
            (Event::Forgiven, _) => {
                self.past.pardon();
                StatePhase::Settling { is_newly_issued, rest, serving }
            }
            // Requests may be waiting: they get a new token, as those do that wait for a fetch.
            (Event::Purged, _) => {
                self.past.pardon();
                if let Some(serving) = serving {
                    self.withdraw(serving);
                    return StatePhase::Empty;
                }
                StatePhase::Fetching { flight: self.fetch() }
            }
            (Event::Refused { generation, .. }, Some(token)) if token.is(generation) => {
                self.invalidate(token);
                self.wait_out(StatePhase::Settling { is_newly_issued, rest, serving: None })
            }
            // The refusal of the newborn again, from another request, or older news.
            (Event::Needed | Event::Refused { .. }, _) => {
                self.wait_out(StatePhase::Settling { is_newly_issued, rest, serving })
            }
            (Event::RefusedAtBirth { generation } | Event::Withdrawn { generation, .. }, Some(token))
                if token.is(generation) =>
            {
                self.invalidate(token);
                StatePhase::Settling { is_newly_issued, rest, serving: None }
            }
            (Event::Proved { generation }, Some(token)) if generation == token.generation => StatePhase::Settling {
                is_newly_issued,
                rest,
                serving: Some(SlotToken { trial: TokenTrial::Over, ..token }),
            },
            (
                Event::Failed { .. }
                | Event::Fetched { .. }
                | Event::Proved { .. }
                | Event::RefusedAtBirth { .. }
                | Event::Suspected { .. }
                | Event::Tick { .. }
                | Event::Withdrawn { .. },
                _,
            ) => StatePhase::Settling { is_newly_issued, rest, serving },
        }
    }
}

/// The result of processing a token that arrived.
enum Landing {
    /// It came from a store, and is over: the provider is asked.
    Again,
    /// It is of no use.
    Failed(Failure),
    /// It is published; this is the next phase.
    Live(StatePhase),
}

/// The decisions that several phases share.
impl TableStep<'_> {
    fn fetch(&mut self) -> Flight {
        self.past.flights += 1;
        let number = self.past.flights;
        self.actions.push(Action::Fetch { flight: number });
        Flight { number, deadline: self.now.boot.saturating_add(millis(self.policy.fetch_timeout)) }
    }

    /// A token is due: fetch its successor if anybody uses it, look again later if not.
    fn renew(&mut self, token: SlotToken, reserve: Option<SlotToken>, used: bool) -> StatePhase {
        if used {
            StatePhase::Renewing { token, flight: self.fetch() }
        } else {
            let later = postponement(token.expires.remaining(self.now));
            StatePhase::Live { token, renew: Deadline::after(self.now, later), reserve }
        }
    }

    fn at_once(&self) -> Deadline {
        Deadline::after(self.now, Duration::ZERO)
    }

    /// Publishes a fetched token, unless it died on the way. `before`: the one that serves.
    fn land(&mut self, arrived: &Arrived, before: Option<SlotToken>) -> Landing {
        let Arrived { issued, origin, .. } = *arrived;
        let expires = arrived.expires.min(Deadline::after(self.now, LIFE_CAP));
        if expires.passed(self.now) {
            let adopted = matches!(origin, TokenOrigin::Adopted { .. });
            if adopted {
                self.past.arrival = None;
            }
            if adopted && !std::mem::replace(&mut self.past.hollow, true) {
                return Landing::Again;
            }
            return Landing::Failed(Failure::new(Class::Transient, "the token had expired before it arrived"));
        }
        self.past.hollow = false;
        self.past.closings = 0;
        self.past.streak = None;
        self.past.failing_since = None;
        let known_end = self.past.expires.replace(expires);
        let generation = self.next_generation();
        // The last token that arrived is not always the one that serves: it may have been refused since.
        let repeated = self.past.arrival.filter(|_| origin == TokenOrigin::Repeated);
        let arrival = repeated.unwrap_or(generation);
        self.past.arrival = Some(arrival);
        let same = before.filter(|before| repeated == Some(before.arrival));
        let trial = match (origin, same) {
            (TokenOrigin::Adopted { young: true } | TokenOrigin::Issued, _) => {
                TokenTrial::Young(Deadline::after(issued, SETTLE))
            }
            (TokenOrigin::Adopted { young: false }, _) => TokenTrial::Over,
            (TokenOrigin::Repeated, Some(same)) => same.trial,
            (TokenOrigin::Repeated, None) => TokenTrial::Second,
        };
        let (first, last) = same.map_or((generation, 0), |same| same.lineage());
        let token = SlotToken { generation, arrival, first, last, issued, published: self.now, expires, trial };
        let unchanged = origin == TokenOrigin::Repeated
            && known_end.is_some_and(|end| expires.wall() <= end.wall().saturating_add(millis(UNCHANGED)));
        let renew = if unchanged {
            // To ask sooner would bring nothing new.
            expires
        } else {
            let left = expires.remaining(self.now);
            Deadline::after(self.now, self.policy.renew_in(expires.life_since(issued), left, self.jitter))
        };
        let young_until = match trial {
            TokenTrial::Young(until) => Some(until),
            TokenTrial::Over | TokenTrial::Second => None,
        };
        self.actions.push(Action::Publish { generation, issued, expires, young_until });
        self.actions.push(Action::Serve);
        let reserve = before.filter(|_| self.policy.overlap && same.is_none());
        Landing::Live(StatePhase::Live { token, renew, reserve })
    }

    /// The reserve, unless this is late news that it was refused.
    fn without_refused(&mut self, reserve: Option<SlotToken>, event: &Event) -> Option<SlotToken> {
        let (Event::Refused { generation, .. }
        | Event::RefusedAtBirth { generation }
        | Event::Withdrawn { generation, .. }) = event
        else {
            return reserve;
        };
        let reserve = reserve?;
        if reserve.is(*generation) {
            self.actions.push(Action::Invalidate { generation: reserve.generation });
            return None;
        }
        Some(reserve)
    }

    fn next_generation(&mut self) -> u64 {
        self.past.generations += 1;
        self.past.generations
    }

    /// Puts a token that is kept on the shelf again, as a generation of its own, and serves it. As a second trial it
    /// begins anew: refusals of what it was before are accounted for.
    fn republish(&mut self, token: SlotToken, trial: TokenTrial) -> SlotToken {
        let generation = self.next_generation();
        let retried = trial == TokenTrial::Second;
        self.actions.push(Action::Republish { generation, of: token.generation, retried });
        self.actions.push(Action::Serve);
        let (first, last) = if retried { (generation, 0) } else { token.lineage() };
        SlotToken { generation, first, last, published: self.now, trial, ..token }
    }

    /// Takes a token out of use that was refused in its first moments, until it is tried again; its predecessor serves
    /// meanwhile. Returns `None` if the refusal is final.
    fn set_aside(&mut self, token: SlotToken, reserve: Option<SlotToken>, replaced: bool) -> Option<StatePhase> {
        if replaced || !token.is_newly_issued(self.now) {
            return None;
        }
        let TokenTrial::Young(young) = token.trial else { return None };
        let refusals = self.past.births.saturating_add(1);
        let pause = self.policy.settle_in(young.remaining(self.now), refusals, self.jitter);
        if token.expires.remaining(self.now) <= pause {
            return None;
        }
        self.past.births = refusals;
        self.withdraw(token);
        self.actions.push(Action::SetAside { generation: token.generation, pause });
        let inside =
            "the provider refused a token that it had just issued; the token is tried again in a moment".into();
        let until = self.now.boot.saturating_add(millis(pause));
        let rest = TokenRest { class: Class::Transient, inside, ours: true, until };
        let serving = reserve.map(|reserve| self.republish(reserve, TokenTrial::Over));
        Some(StatePhase::Settling { is_newly_issued: token, rest, serving })
    }

    /// Gives up the second trial of a token, because another request has learned that it was replaced.
    pub(super) fn give_up_trial(&mut self, newborn: SlotToken, serving: Option<SlotToken>) -> StatePhase {
        self.actions.push(Action::Invalidate { generation: newborn.generation });
        match serving {
            Some(token) if token.expires.passed(self.now) => {
                self.withdraw(token);
                StatePhase::Fetching { flight: self.fetch() }
            }
            Some(token) => {
                self.actions.push(Action::Serve);
                StatePhase::Renewing { token, flight: self.fetch() }
            }
            None => StatePhase::Fetching { flight: self.fetch() },
        }
    }

    /// Handles a request that waits while a token settles: it gets the token that serves meanwhile, or else waits for
    /// the settling token. If that would take longer than a fetch may take, the request is denied at once.
    fn wait_out(&mut self, settling: StatePhase) -> StatePhase {
        if let StatePhase::Settling { rest, serving, .. } = &settling {
            if serving.is_some() {
                self.actions.push(Action::Serve);
            } else if left(rest.until, self.now) > self.policy.fetch_timeout {
                self.actions.push(Action::Deny(rest.denial(self.now)));
            }
        }
        settling
    }

    /// A token that was never accepted was refused for good, and its predecessor lives: that serves while another one is
    /// fetched, or for as long as a rest if this one had its second trial.
    fn fall_back(&mut self, refused: SlotToken, reserve: SlotToken) -> StatePhase {
        let rest = (refused.trial == TokenTrial::Second).then(|| self.rest_from_birth());
        let token = self.republish(reserve, TokenTrial::Over);
        match rest {
            Some(rest) => StatePhase::Holding { token, rest },
            None => StatePhase::Renewing { token, flight: self.fetch() },
        }
    }

    fn abandon(&mut self, flight: Flight) -> Failure {
        self.actions.push(Action::Abandon { flight: flight.number });
        let waited = self.policy.fetch_timeout;
        Failure::new(Class::Transient, format!("no answer from the token endpoint within {waited:?}"))
    }

    fn fetch_failed(&mut self, flight: u64, failure: &Failure) -> StatePhase {
        let rest = self.rest_from(flight, failure);
        self.deny(rest)
    }

    fn renewal_failed(&mut self, token: SlotToken, flight: u64, failure: &Failure) -> StatePhase {
        StatePhase::Holding { token, rest: self.rest_from(flight, failure) }
    }

    fn deny(&mut self, rest: TokenRest) -> StatePhase {
        self.actions.push(Action::Deny(rest.denial(self.now)));
        StatePhase::Resting { rest }
    }

    fn rest_from(&mut self, flight: u64, failure: &Failure) -> TokenRest {
        let count = self.past.count(failure.class);
        let pause = rest_after(failure, count, self.jitter);
        let inside: Arc<str> = failure.inside.as_str().into();
        self.report(FailureReport {
            class: failure.class,
            cause: failure.cause,
            flight: Some(flight),
            inside: Arc::clone(&inside),
            rest: pause,
        });
        let ours = match failure.class {
            Class::Transient => failure.retry_after.is_none(),
            // A budget of our own ends the rest at a time that we know.
            Class::RateLimited => failure.exact.is_some(),
            Class::Closed | Class::Consent | Class::Fatal => false,
        };
        TokenRest { class: failure.class, inside, ours, until: self.now.boot.saturating_add(millis(pause)) }
    }

    fn rest_from_birth(&mut self) -> TokenRest {
        self.past.births = self.past.births.saturating_add(1);
        let pause = jittered(BIRTH.pause(self.past.births), self.jitter);
        let inside = self.report_birth(pause);
        TokenRest { class: Class::Transient, inside, ours: true, until: self.now.boot.saturating_add(millis(pause)) }
    }

    fn report_birth(&mut self, rest: Duration) -> Arc<str> {
        let inside: Arc<str> = "the provider refused a token that it had just issued".into();
        let (class, cause) = (Class::Transient, None);
        self.report(FailureReport { class, cause, flight: None, inside: Arc::clone(&inside), rest });
        inside
    }

    fn report(&mut self, report: FailureReport) {
        let FailureReport { class, cause, ref inside, .. } = report;
        self.past.trouble = Some(LastFailure { class, cause, inside: Arc::clone(inside), at: self.now });
        match class {
            Class::Fatal | Class::RateLimited | Class::Transient => {
                self.past.failing_since.get_or_insert(self.now);
            }
            // A user who has to consent, and a bank that sleeps at night, are no failures.
            Class::Closed | Class::Consent => {}
        }
        self.actions.push(Action::Report(report));
    }

    fn withdraw(&mut self, token: SlotToken) {
        self.actions.push(Action::Withdraw { generation: token.generation });
    }

    /// Takes a token out of use that was refused for good.
    fn bury(&mut self, token: SlotToken) {
        self.withdraw(token);
        self.actions.push(Action::Invalidate { generation: token.generation });
    }

    /// The same for one that was not refused at birth.
    fn invalidate(&mut self, token: SlotToken) {
        self.bury(token);
        self.acquit(token);
    }

    /// Resets the count of refusals at birth when a generation is refused later than at birth and has outlived the
    /// pause before it: the provider does not refuse every token that it issues. Without the second condition a busy
    /// key would never reach longer rests, because other requests use the fresh token before the request that it was
    /// fetched for reports its refusal.
    fn acquit(&mut self, token: SlotToken) {
        if self.now.since(token.published) >= BIRTH.pause(self.past.births) {
            self.past.births = 0;
        }
    }

    /// A generation lived to its renewal: it was good.
    fn proved(&mut self) {
        self.past.births = 0;
        self.past.suspicions = 0;
    }

    /// Returns whether a suspicion justifies a renewal now: true at most once per rest period.
    fn heeds_suspicion(&mut self) -> bool {
        if self.now.boot < self.past.trusted_until {
            return false;
        }
        self.past.suspicions = self.past.suspicions.saturating_add(1);
        let pause = jittered(SUSPICION.pause(self.past.suspicions), self.jitter);
        self.past.trusted_until = self.now.boot.saturating_add(millis(pause));
        true
    }
}
