//! Random sequences of events, with late, duplicated and reordered responses and clock jumps, checked against
//! invariants that must always hold. The model knows only the actions that were carried out, as an observer does.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::*;
use crate::base::time::millis;
use crate::token::failure::Failure;

const POLICY: Policy =
    Policy { refresh_before: Duration::from_secs(60), fetch_timeout: Duration::from_secs(10), overlap: true };

#[derive(Clone, Debug)]
enum Move {
    /// An answer of the flight so many before the latest: stale, doubled or current.
    Answer {
        back: u64,
        sent_ago: u64,
        result: Result<(u64, TokenOrigin), (Class, Option<u64>)>,
    },
    Force,
    Forgive,
    Jump(i64),
    /// News about the generation so many before the latest.
    News {
        back: u64,
        kind: Kind,
    },
    Need,
    Pass(u64),
    Purge,
    Tick {
        used: bool,
    },
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    AtBirth,
    Proved,
    Refused { replaced: bool },
    Suspected,
    Withdrawn { replaced: bool },
}

fn class() -> impl Strategy<Value = Class> {
    prop_oneof![Just(Class::Closed), Just(Class::Fatal), Just(Class::RateLimited), Just(Class::Transient)]
}

fn moves() -> impl Strategy<Value = Move> {
    let kind = prop_oneof![
        2 => Just(Kind::AtBirth),
        2 => Just(Kind::Proved),
        3 => prop::bool::weighted(0.2).prop_map(|replaced| Kind::Refused { replaced }),
        1 => Just(Kind::Suspected),
        2 => prop::bool::weighted(0.2).prop_map(|replaced| Kind::Withdrawn { replaced }),
    ];
    let origin = prop_oneof![
        4 => Just(TokenOrigin::Issued),
        1 => any::<bool>().prop_map(|young| TokenOrigin::Adopted { young }),
        1 => Just(TokenOrigin::Repeated),
    ];
    let life = prop_oneof![0..5_000_u64, Just(60_000), Just(1_800_000), Just(u64::MAX)];
    let result = prop_oneof![
        3 => (life, origin).prop_map(Ok),
        2 => (class(), proptest::option::of(1..4000_u64)).prop_map(Err),
    ];
    prop_oneof![
        6 => (prop_oneof![4 => Just(0), 1 => 0..4_u64], 0..3_000_u64, result)
            .prop_map(|(back, sent_ago, result)| Move::Answer { back, sent_ago, result }),
        1 => Just(Move::Force),
        1 => Just(Move::Forgive),
        1 => prop_oneof![Just(3_600_000), Just(-3_600_000), Just(86_400_000), Just(-86_400_000)].prop_map(Move::Jump),
        5 => (prop_oneof![3 => Just(0), 1 => 0..3_u64], kind).prop_map(|(back, kind)| Move::News { back, kind }),
        6 => Just(Move::Need),
        5 => prop_oneof![0..2_000_u64, 0..70_000_u64, 0..2_000_000_u64].prop_map(Move::Pass),
        1 => Just(Move::Purge),
        5 => any::<bool>().prop_map(|used| Move::Tick { used }),
    ]
}

/// One token as an observer knows it.
#[derive(Clone, Debug)]
struct ObservedToken {
    /// Before this moment a refusal is not final.
    young_until: Option<Deadline>,
    /// It was refused in that time, at this moment of the boot clock.
    excused: Option<u64>,
    /// Refusals of generations before this one are accounted for.
    since: u64,
    dead: bool,
}

/// The state machine under test, and all that an observer knows of it.
struct ModelObserver {
    slot: TokenState,
    now: Now,
    flight: Option<(u64, u64)>,
    last_flight: u64,
    shelf: Option<(u64, Deadline)>,
    published: u64,
    refused: HashSet<u64>,
    /// Index in `lives` of the token of each generation.
    tokens: HashMap<u64, usize>,
    /// Deadline of each token, by its index in `lives`.
    ends: HashMap<usize, Deadline>,
    lives: Vec<ObservedToken>,
    /// The token that arrived last.
    latest: usize,
    /// Generations that those who wait must not be given.
    waiters: Vec<u64>,
    /// No fetch before this moment of the boot clock, unless excused; after what; and whether the pause is ours.
    rest: Option<(u64, Class, bool)>,
}

impl ModelObserver {
    fn new() -> Self {
        Self {
            slot: TokenState::default(),
            now: Now::at(1_000_000_000, 1_700_000_000_000),
            flight: None,
            last_flight: 0,
            shelf: None,
            published: 0,
            refused: HashSet::new(),
            tokens: HashMap::new(),
            ends: HashMap::new(),
            lives: Vec::new(),
            latest: 0,
            waiters: Vec::new(),
            rest: None,
        }
    }

    fn play(&mut self, step: &Move, jitter: u8) {
        let event = match step {
            Move::Answer { back, sent_ago, result } => {
                let flight = self.last_flight.saturating_sub(*back);
                match result {
                    Ok((life, origin)) => {
                        let issued = Now::at(self.now.boot - sent_ago, self.now.wall - sent_ago);
                        let expires = Deadline::after(issued, Duration::from_millis(*life));
                        // Before the first token, none can be adopted or repeated.
                        let origin = if self.lives.is_empty() { TokenOrigin::Issued } else { *origin };
                        Event::Fetched { flight, arrived: Arrived { issued, expires, origin } }
                    }
                    Err((class, retry_after)) => {
                        let mut failure = Failure::new(*class, "because");
                        failure.retry_after = retry_after.map(Duration::from_secs);
                        Event::Failed { flight, failure }
                    }
                }
            }
            Move::Force => Event::Forced,
            Move::Forgive => Event::Forgiven,
            Move::Jump(by) => {
                self.now.wall = self.now.wall.saturating_add_signed(*by);
                return;
            }
            Move::News { back, kind } => {
                let generation = self.published.saturating_sub(*back);
                match kind {
                    Kind::AtBirth => Event::RefusedAtBirth { generation },
                    Kind::Proved => Event::Proved { generation },
                    Kind::Refused { replaced } => Event::Refused { generation, replaced: *replaced },
                    Kind::Suspected => Event::Suspected { generation },
                    Kind::Withdrawn { replaced } => Event::Withdrawn { generation, replaced: *replaced },
                }
            }
            Move::Need => Event::Needed,
            Move::Pass(by) => {
                self.now = self.now.plus(Duration::from_millis(*by));
                return;
            }
            Move::Purge => Event::Purged,
            Move::Tick { used } => Event::Tick { used: *used },
        };
        self.tell(event, jitter);
    }

    fn tell(&mut self, event: Event, jitter: u8) {
        let before = self.slot.waiting();
        match &event {
            Event::Needed => self.waiters.push(0),
            Event::Refused { generation, replaced } => {
                self.refuse(*generation, *replaced);
                self.waiters.push(*generation);
            }
            Event::RefusedAtBirth { generation } => self.refuse(*generation, false),
            Event::Withdrawn { generation, replaced } => self.refuse(*generation, *replaced),
            Event::Proved { generation } => {
                // The acceptance of a generation that is not published comes too late to count.
                let current = self.shelf.is_some_and(|(shelf, _)| shelf == *generation);
                if let Some(token) = self.tokens.get(generation).filter(|_| current) {
                    self.lives[*token].young_until = None;
                }
            }
            Event::Forced | Event::Forgiven | Event::Purged => self.rest = None,
            Event::Failed { .. } | Event::Fetched { .. } | Event::Suspected { .. } | Event::Tick { .. } => {}
        }
        let answered = if let Event::Failed { flight, .. } | Event::Fetched { flight, .. } = &event {
            self.flight.is_some_and(|(open, _)| open == *flight)
        } else {
            false
        };
        if answered {
            self.flight = None;
        }
        if let Event::Fetched { arrived, .. } = &event
            && answered
            && matches!(arrived.origin, TokenOrigin::Adopted { .. })
            && arrived.expires.passed(self.now)
        {
            // The keeper knows it from now on: a repeated token is this one.
            self.latest = self.lives.len();
            self.lives.push(ObservedToken { young_until: None, excused: None, since: 0, dead: false });
        }
        let mut actions = Vec::new();
        self.slot = std::mem::take(&mut self.slot).step(event.clone(), self.now, &POLICY, jitter, &mut actions);
        for action in actions {
            self.carry_out(action, &event, before, answered);
        }
        self.check(&event);
    }

    /// A refusal, as the onlooker judges it: final, unless the token is young and was not refused before.
    fn refuse(&mut self, generation: u64, replaced: bool) {
        self.refused.insert(generation);
        let Some(token) = self.tokens.get(&generation) else { return };
        let life = &mut self.lives[*token];
        if generation < life.since {
            return;
        }
        let young = life.young_until.is_some_and(|until| !until.passed(self.now)) && !replaced;
        if life.excused.is_some() && !replaced {
            // The same refusal once more, from other requests, until it is tried again.
        } else if young {
            life.excused = Some(self.now.boot);
        } else {
            life.dead = true;
        }
    }

    fn carry_out(&mut self, action: Action, event: &Event, before: PhaseKind, answered: bool) {
        match action {
            Action::Abandon { flight } => {
                assert_eq!(self.flight.map(|(open, _)| open), Some(flight), "only what flies is abandoned");
                self.flight = None;
            }
            Action::Deny(denial) => {
                if self.slot.waiting() == PhaseKind::Settling {
                    assert!(denial.retry_after > POLICY.fetch_timeout, "denied what was worth the wait");
                } else {
                    let (until, class, _) = self.rest.expect("denied only during a rest");
                    assert!(denial.class == class || denial.class == Class::Transient);
                    assert!(
                        self.now.boot + millis(denial.retry_after) >= until.min(self.now.boot + 1),
                        "the time left"
                    );
                }
                self.waiters.clear();
            }
            Action::Fetch { flight } => {
                assert_eq!(self.flight, None, "one fetch at a time");
                assert_eq!(flight, self.last_flight + 1);
                let excused = matches!(event, Event::Refused { .. }) && before == PhaseKind::Holding;
                if let Some((until, _, ours)) = self.rest.take() {
                    assert!(self.now.boot >= until || excused && ours, "a rest is respected");
                }
                self.flight = Some((flight, self.now.boot));
                self.last_flight = flight;
            }
            Action::Invalidate { generation } => {
                assert!(self.was_refused(generation));
            }
            Action::Publish { generation, expires, young_until, .. } => {
                assert!(answered, "only the flight under way is published");
                assert!(generation > self.published, "generations only rise");
                assert!(!expires.passed(self.now));
                let Event::Fetched { arrived, .. } = event else { panic!("published for {event:?}") };
                if arrived.origin == TokenOrigin::Repeated {
                    // After its end, or a refusal, the provider says that it is good after all: it had its trial.
                    let serves = self.shelf.is_some_and(|(shelf, _)| self.tokens[&shelf] == self.latest);
                    let life = &mut self.lives[self.latest];
                    if !serves {
                        *life = ObservedToken { since: generation, dead: false, excused: None, young_until: None };
                    }
                } else {
                    self.latest = self.lives.len();
                    self.lives.push(ObservedToken { young_until, excused: None, since: 0, dead: false });
                }
                self.tokens.insert(generation, self.latest);
                self.ends.insert(self.latest, expires);
                self.published = generation;
                self.shelf = Some((generation, expires));
                self.rest = None;
            }
            Action::Report(report) => {
                let until = self.now.boot + millis(report.rest);
                let asked = if let Event::Failed { failure, .. } = event { failure.retry_after } else { None };
                assert!(asked.is_none_or(|asked| report.rest >= asked), "never sooner than Retry-After");
                if !report.rest.is_zero() && self.rest.is_none_or(|(other, ..)| other < until) {
                    self.rest = Some((until, report.class, report.class == Class::Transient && asked.is_none()));
                }
            }
            Action::Republish { generation, of, retried } => {
                assert!(generation > self.published, "generations only rise");
                let (token, was_refused) = (self.tokens[&of], self.was_refused(of));
                let life = &mut self.lives[token];
                assert!(!life.dead, "what was refused for good stays away");
                assert_eq!(retried, life.excused.is_some() && was_refused, "only what was refused when new");
                if retried {
                    let refused = life.excused.take().expect("refused");
                    assert!(self.now.boot >= refused + 1000, "not at once");
                    *life = ObservedToken { young_until: None, excused: None, since: generation, dead: false };
                }
                self.tokens.insert(generation, token);
                self.published = generation;
                self.shelf = Some((generation, self.ends[&token]));
            }
            Action::SetAside { generation, .. } => {
                assert_eq!(self.shelf, None, "withdrawn before");
                assert!(self.was_refused(generation));
            }
            Action::Serve => {
                let (generation, expires) = self.shelf.expect("there is something to serve");
                assert!(!expires.passed(self.now), "never expired");
                assert!(!self.refused.contains(&generation), "never refused");
                assert!(self.waiters.iter().all(|refused| *refused != generation));
                self.waiters.clear();
            }
            Action::Withdraw { generation } => {
                assert_eq!(self.shelf.map(|(current, _)| current), Some(generation));
                self.shelf = None;
            }
        }
    }

    /// Returns whether the token of this generation was refused under any of its generation numbers.
    fn was_refused(&self, generation: u64) -> bool {
        self.refused.iter().any(|refused| self.tokens.get(refused) == self.tokens.get(&generation))
    }

    fn check(&self, event: &Event) {
        assert_eq!(self.slot.flight(), self.flight.map(|(flight, _)| flight), "slot and onlooker agree");
        let has_token = match self.slot.waiting() {
            PhaseKind::Live | PhaseKind::Renewing | PhaseKind::Holding => true,
            PhaseKind::Empty | PhaseKind::Fetching | PhaseKind::Resting => false,
            // Its predecessor may serve.
            PhaseKind::Settling => self.shelf.is_some(),
        };
        assert_eq!(self.shelf.is_some(), has_token);
        if let Some((generation, expires)) = self.shelf {
            assert!(!expires.passed(self.now) && !self.refused.contains(&generation), "nothing dead on the shelf");
            assert!(!self.lives[self.tokens[&generation]].dead, "not under another number either");
        }
        if !self.waiters.is_empty() && self.slot.waiting() == PhaseKind::Settling {
            let wait = self.slot.wait(self.now).expect("it ends");
            assert!(wait <= POLICY.fetch_timeout, "who waits, waits for no longer than a fetch takes");
        } else if !self.waiters.is_empty() {
            let (_, since) = self.flight.expect("who waits, waits for a fetch");
            let wait = self.slot.wait(self.now).expect("and it has a deadline");
            assert!(self.now.boot + millis(wait) <= since + millis(POLICY.fetch_timeout).max(self.now.boot - since));
        }
        if matches!(event, Event::Tick { .. }) {
            assert_ne!(self.slot.wait(self.now), Some(Duration::ZERO), "a tick leaves nothing due: no busy loop");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens(moves in proptest::collection::vec((moves(), any::<u8>()), 1..200)) {
        let mut world = ModelObserver::new();
        for (step, jitter) in &moves {
            world.play(step, *jitter);
        }
        // Left alone, with a provider that never answers: everybody is answered, and it comes to rest.
        let mut ticks = 0;
        while let Some(wait) = world.slot.wait(world.now) {
            world.now = world.now.plus(wait);
            world.tell(Event::Tick { used: false }, 0);
            ticks += 1;
            prop_assert!(ticks < 100, "comes to rest");
        }
        prop_assert!(world.waiters.is_empty());
        prop_assert_eq!(world.slot.waiting(), PhaseKind::Empty);
        // And it is not broken: once its rest is over, somebody who needs a token gets one.
        world.tell(Event::Needed, 0);
        world.play(&Move::Answer { back: 0, sent_ago: 0, result: Ok((1_800_000, TokenOrigin::Issued)) }, 0);
        prop_assert_eq!(world.slot.waiting(), PhaseKind::Live);
    }
}

/// A token from the store that had ended is the one that arrived last: the same from the provider is not the one that serves.
#[test]
fn a_repeated_token_is_the_ended_one_that_was_adopted_before_it() {
    let mut world = ModelObserver::new();
    let answer = |sent_ago, life, origin| Move::Answer { back: 0, sent_ago, result: Ok((life, origin)) };
    let moves = [
        Move::Force,
        answer(0, 1, TokenOrigin::Issued),
        Move::Force,
        answer(1041, 0, TokenOrigin::Adopted { young: false }),
        answer(0, 1, TokenOrigin::Repeated),
        Move::News { back: 0, kind: Kind::AtBirth },
    ];
    for step in &moves {
        world.play(step, 0);
    }
    assert_eq!(world.slot.waiting(), PhaseKind::Holding, "its predecessor serves");
}
