//! The table: what each phase makes of each event.

use std::sync::Arc;
use std::time::Duration;

use super::{Action, Event, Flight, Past, Phase, Report, Rest, Token, Trouble};
use crate::base::backoff::jittered;
use crate::base::time::{Deadline, Now, millis};
use crate::token::failure::{Class, Failure};
use crate::token::grant::LIFE_CAP;
use crate::token::policy::{BIRTH, Policy, SUSPICION, YOUNG, postponement, rest_after};

/// One step under way: the memory it may change, the moment, and where its decisions go.
pub(super) struct Turn<'a> {
    pub(super) past: Past,
    pub(super) now: Now,
    pub(super) policy: &'a Policy,
    pub(super) dice: u8,
    pub(super) actions: &'a mut Vec<Action>,
}

/// The table: one function per phase, one arm per event.
impl Turn<'_> {
    /// What the clock alone has changed since the last step.
    pub(super) fn age(&mut self, phase: Phase) -> Phase {
        let phase = match phase {
            Phase::Live { token, .. } if token.expires.passed(self.now) => {
                self.withdraw(token);
                self.proved();
                Phase::Empty
            }
            Phase::Renewing { token, flight } if token.expires.passed(self.now) => {
                self.withdraw(token);
                Phase::Fetching { flight }
            }
            Phase::Holding { token, rest } if token.expires.passed(self.now) => {
                self.withdraw(token);
                Phase::Resting { rest }
            }
            Phase::Empty
            | Phase::Fetching { .. }
            | Phase::Live { .. }
            | Phase::Renewing { .. }
            | Phase::Holding { .. }
            | Phase::Resting { .. } => phase,
        };
        match phase {
            Phase::Resting { rest } if rest.over(self.now) => Phase::Empty,
            Phase::Empty
            | Phase::Fetching { .. }
            | Phase::Live { .. }
            | Phase::Renewing { .. }
            | Phase::Holding { .. }
            | Phase::Resting { .. } => phase,
        }
    }

    pub(super) fn empty(&mut self, event: Event) -> Phase {
        match event {
            Event::Forced => {
                self.past.pardon();
                Phase::Fetching { flight: self.fetch() }
            }
            Event::Needed | Event::Refused { .. } => Phase::Fetching { flight: self.fetch() },
            Event::Forgiven | Event::Purged => {
                self.past.pardon();
                Phase::Empty
            }
            Event::Failed { .. }
            | Event::Fetched { .. }
            | Event::RefusedAtBirth { .. }
            | Event::Suspected { .. }
            | Event::Tick { .. }
            | Event::Withdrawn { .. } => Phase::Empty,
        }
    }

    pub(super) fn fetching(&mut self, flight: Flight, event: Event) -> Phase {
        match event {
            Event::Failed { flight: number, failure } if number == flight.number => self.fetch_failed(number, &failure),
            Event::Fetched { flight: number, sent, life } if number == flight.number => {
                self.land(sent, life).unwrap_or_else(|failure| self.fetch_failed(number, &failure))
            }
            Event::Tick { .. } if self.now.boot >= flight.deadline => {
                let failure = self.abandon(flight);
                self.fetch_failed(flight.number, &failure)
            }
            Event::Forgiven => {
                self.past.pardon();
                Phase::Fetching { flight }
            }
            // A purge does not take the fetch away from those who wait for it, and brings a new token anyway.
            Event::Failed { .. }
            | Event::Fetched { .. }
            | Event::Forced
            | Event::Needed
            | Event::Purged
            | Event::Refused { .. }
            | Event::RefusedAtBirth { .. }
            | Event::Suspected { .. }
            | Event::Tick { .. }
            | Event::Withdrawn { .. } => Phase::Fetching { flight },
        }
    }

    pub(super) fn live(&mut self, token: Token, renew: Deadline, event: Event) -> Phase {
        let stay = Phase::Live { token, renew };
        match event {
            Event::Forced => {
                self.past.pardon();
                Phase::Renewing { token, flight: self.fetch() }
            }
            Event::Forgiven => {
                self.past.pardon();
                stay
            }
            Event::Needed => {
                self.actions.push(Action::Serve);
                stay
            }
            Event::Purged => {
                self.past.pardon();
                self.withdraw(token);
                Phase::Empty
            }
            Event::Refused { generation } if generation == token.generation => {
                self.withdraw(token);
                self.acquit(token);
                Phase::Fetching { flight: self.fetch() }
            }
            Event::Refused { .. } => {
                self.actions.push(Action::Serve);
                stay
            }
            Event::RefusedAtBirth { generation } if generation == token.generation => {
                self.withdraw(token);
                let rest = self.rest_from_birth();
                Phase::Resting { rest }
            }
            Event::Suspected { generation } if generation == token.generation && self.heeds_suspicion() => {
                Phase::Renewing { token, flight: self.fetch() }
            }
            Event::Tick { used } if renew.passed(self.now) => {
                self.proved();
                self.renew(token, used)
            }
            Event::Withdrawn { generation } if generation == token.generation => {
                self.withdraw(token);
                self.acquit(token);
                if self.now.since(token.published) < YOUNG {
                    Phase::Empty
                } else {
                    Phase::Fetching { flight: self.fetch() }
                }
            }
            Event::Failed { .. }
            | Event::Fetched { .. }
            | Event::RefusedAtBirth { .. }
            | Event::Suspected { .. }
            | Event::Tick { .. }
            | Event::Withdrawn { .. } => stay,
        }
    }

    pub(super) fn renewing(&mut self, token: Token, flight: Flight, event: Event) -> Phase {
        let stay = Phase::Renewing { token, flight };
        match event {
            Event::Failed { flight: number, failure } if number == flight.number => {
                self.renewal_failed(token, number, &failure)
            }
            Event::Fetched { flight: number, sent, life } if number == flight.number => {
                self.land(sent, life).unwrap_or_else(|failure| self.renewal_failed(token, number, &failure))
            }
            Event::Forgiven => {
                self.past.pardon();
                stay
            }
            Event::Needed => {
                self.actions.push(Action::Serve);
                stay
            }
            Event::Purged => {
                self.past.pardon();
                self.withdraw(token);
                self.actions.push(Action::Abandon { flight: flight.number });
                Phase::Empty
            }
            // The successor is under way already: whoever waits gets that.
            Event::Refused { generation } | Event::Withdrawn { generation } if generation == token.generation => {
                self.withdraw(token);
                self.acquit(token);
                Phase::Fetching { flight }
            }
            Event::Refused { .. } => {
                self.actions.push(Action::Serve);
                stay
            }
            Event::RefusedAtBirth { generation } if generation == token.generation => {
                self.withdraw(token);
                self.past.births = self.past.births.saturating_add(1);
                self.report_birth(Duration::ZERO);
                Phase::Fetching { flight }
            }
            Event::Tick { .. } if self.now.boot >= flight.deadline => {
                let failure = self.abandon(flight);
                self.renewal_failed(token, flight.number, &failure)
            }
            Event::Failed { .. }
            | Event::Fetched { .. }
            | Event::Forced
            | Event::RefusedAtBirth { .. }
            | Event::Suspected { .. }
            | Event::Tick { .. }
            | Event::Withdrawn { .. } => stay,
        }
    }

    pub(super) fn holding(&mut self, token: Token, rest: Rest, event: Event) -> Phase {
        match event {
            Event::Forced => {
                self.past.pardon();
                Phase::Renewing { token, flight: self.fetch() }
            }
            Event::Forgiven => {
                self.past.pardon();
                Phase::Live { token, renew: Deadline::after(self.now, Duration::ZERO) }
            }
            Event::Needed => {
                self.actions.push(Action::Serve);
                Phase::Holding { token, rest }
            }
            Event::Purged => {
                self.past.pardon();
                self.withdraw(token);
                Phase::Empty
            }
            // A refusal happens once per generation, so one try out of turn is no storm, and may save the request.
            // A provider that told us to stay away is not asked, though.
            Event::Refused { generation } if generation == token.generation => {
                self.withdraw(token);
                self.acquit(token);
                if rest.ours || rest.over(self.now) {
                    Phase::Fetching { flight: self.fetch() }
                } else {
                    self.deny(rest)
                }
            }
            Event::Refused { .. } => {
                self.actions.push(Action::Serve);
                Phase::Holding { token, rest }
            }
            Event::RefusedAtBirth { generation } if generation == token.generation => {
                self.withdraw(token);
                let own = self.rest_from_birth();
                Phase::Resting { rest: if own.until > rest.until { own } else { rest } }
            }
            Event::Tick { used } if rest.over(self.now) => self.renew(token, used),
            Event::Withdrawn { generation } if generation == token.generation => {
                self.withdraw(token);
                self.acquit(token);
                Phase::Resting { rest }
            }
            Event::Failed { .. }
            | Event::Fetched { .. }
            | Event::RefusedAtBirth { .. }
            | Event::Suspected { .. }
            | Event::Tick { .. }
            | Event::Withdrawn { .. } => Phase::Holding { token, rest },
        }
    }

    pub(super) fn resting(&mut self, rest: Rest, event: Event) -> Phase {
        match event {
            Event::Forced => {
                self.past.pardon();
                Phase::Fetching { flight: self.fetch() }
            }
            Event::Forgiven | Event::Purged => {
                self.past.pardon();
                Phase::Empty
            }
            Event::Needed | Event::Refused { .. } => self.deny(rest),
            Event::Failed { .. }
            | Event::Fetched { .. }
            | Event::RefusedAtBirth { .. }
            | Event::Suspected { .. }
            | Event::Tick { .. }
            | Event::Withdrawn { .. } => Phase::Resting { rest },
        }
    }
}

/// The decisions that several phases share.
impl Turn<'_> {
    fn fetch(&mut self) -> Flight {
        self.past.flights += 1;
        let number = self.past.flights;
        self.actions.push(Action::Fetch { flight: number });
        Flight { number, deadline: self.now.boot.saturating_add(millis(self.policy.fetch_timeout)) }
    }

    /// A token is due: fetch its successor if anybody uses it, look again later if not.
    fn renew(&mut self, token: Token, used: bool) -> Phase {
        if used {
            Phase::Renewing { token, flight: self.fetch() }
        } else {
            let later = postponement(token.expires.remaining(self.now));
            Phase::Live { token, renew: Deadline::after(self.now, later) }
        }
    }

    /// Publishes a fetched token, unless it died on the way.
    fn land(&mut self, sent: Now, life: Duration) -> Result<Phase, Failure> {
        let life = life.min(LIFE_CAP);
        let expires = Deadline::after(sent, life);
        if expires.passed(self.now) {
            return Err(Failure::new(Class::Transient, "the token had expired before it arrived"));
        }
        self.past.closings = 0;
        self.past.streak = None;
        self.past.generations += 1;
        let generation = self.past.generations;
        let renew_in = self.policy.renew_in(life, expires.remaining(self.now), self.dice);
        self.actions.push(Action::Publish { generation, issued: sent, expires });
        self.actions.push(Action::Serve);
        let token = Token { generation, published: self.now, expires };
        Ok(Phase::Live { token, renew: Deadline::after(self.now, renew_in) })
    }

    fn abandon(&mut self, flight: Flight) -> Failure {
        self.actions.push(Action::Abandon { flight: flight.number });
        let waited = self.policy.fetch_timeout;
        Failure::new(Class::Transient, format!("no answer from the token endpoint within {waited:?}"))
    }

    fn fetch_failed(&mut self, flight: u64, failure: &Failure) -> Phase {
        let rest = self.rest_from(flight, failure);
        self.deny(rest)
    }

    fn renewal_failed(&mut self, token: Token, flight: u64, failure: &Failure) -> Phase {
        Phase::Holding { token, rest: self.rest_from(flight, failure) }
    }

    fn deny(&mut self, rest: Rest) -> Phase {
        self.actions.push(Action::Deny(rest.denial(self.now)));
        Phase::Resting { rest }
    }

    fn rest_from(&mut self, flight: u64, failure: &Failure) -> Rest {
        let count = self.past.count(failure.class);
        let pause = rest_after(failure, count, self.dice);
        let inside: Arc<str> = failure.inside.as_str().into();
        self.report(Report { class: failure.class, flight: Some(flight), inside: Arc::clone(&inside), rest: pause });
        let ours = match failure.class {
            Class::Transient => failure.retry_after.is_none(),
            Class::Closed | Class::Consent | Class::Fatal | Class::RateLimited => false,
        };
        Rest { class: failure.class, inside, ours, until: self.now.boot.saturating_add(millis(pause)) }
    }

    fn rest_from_birth(&mut self) -> Rest {
        self.past.births = self.past.births.saturating_add(1);
        let pause = jittered(BIRTH.pause(self.past.births), self.dice);
        let inside = self.report_birth(pause);
        Rest { class: Class::Transient, inside, ours: true, until: self.now.boot.saturating_add(millis(pause)) }
    }

    fn report_birth(&mut self, rest: Duration) -> Arc<str> {
        let inside: Arc<str> = "the provider refused a token that it had just issued".into();
        self.report(Report { class: Class::Transient, flight: None, inside: Arc::clone(&inside), rest });
        inside
    }

    fn report(&mut self, report: Report) {
        self.past.trouble = Some(Trouble { class: report.class, inside: Arc::clone(&report.inside), at: self.now });
        self.actions.push(Action::Report(report));
    }

    fn withdraw(&mut self, token: Token) {
        self.actions.push(Action::Withdraw { generation: token.generation });
    }

    /// A generation was refused, but not at birth. That clears the provider of refusing whatever it issues, if the
    /// generation outlived the pause before it; else a busy key, where others meet the fresh token before the request
    /// that it was fetched for reports its refusal, would never come to longer rests.
    fn acquit(&mut self, token: Token) {
        if self.now.since(token.published) >= BIRTH.pause(self.past.births) {
            self.past.births = 0;
        }
    }

    /// A generation lived to its renewal: it was good.
    fn proved(&mut self) {
        self.past.births = 0;
        self.past.suspicions = 0;
    }

    /// Whether a suspicion is worth a renewal now. Says yes once per rest period.
    fn heeds_suspicion(&mut self) -> bool {
        if self.now.boot < self.past.trusted_until {
            return false;
        }
        self.past.suspicions = self.past.suspicions.saturating_add(1);
        let pause = jittered(SUSPICION.pause(self.past.suspicions), self.dice);
        self.past.trusted_until = self.now.boot.saturating_add(millis(pause));
        true
    }
}
