//! The named properties of a token's life.

use super::*;
use crate::token::failure::Failure;
use crate::token::policy::SETTLE;

const POLICY: Policy =
    Policy { refresh_before: Duration::from_secs(60), fetch_timeout: Duration::from_secs(10), overlap: true };
const LIFE: Duration = Duration::from_secs(1800);
const START: Now = Now::at(1_000_000, 1_700_000_000_000);

/// A token that was asked for now.
fn issued(now: Now, life: Duration) -> Arrived {
    Arrived { issued: now, expires: Deadline::after(now, life), origin: TokenOrigin::Issued }
}

const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// A slot with a clock in its hand.
struct SlotHarness {
    slot: TokenState,
    now: Now,
    jitter: u8,
    fetches: Vec<u64>,
}

impl SlotHarness {
    fn new() -> Self {
        Self { slot: TokenState::default(), now: START, jitter: 0, fetches: Vec::new() }
    }

    /// A desk whose slot holds generation 1, just published.
    fn live() -> Self {
        let mut harness = Self::new();
        harness.tell(Event::Needed);
        harness.bring(LIFE);
        harness
    }

    fn tell(&mut self, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        self.slot = std::mem::take(&mut self.slot).step(event, self.now, &POLICY, self.jitter, &mut actions);
        for action in &actions {
            if let Action::Fetch { flight } = action {
                self.fetches.push(*flight);
            }
        }
        actions
    }

    fn later(&mut self, seconds: u64) {
        self.now = self.now.plus(Duration::from_secs(seconds));
    }

    fn flight(&self) -> u64 {
        *self.fetches.last().expect("a fetch was started")
    }

    /// The latest fetch brings a token.
    fn bring(&mut self, life: Duration) -> Vec<Action> {
        self.arrive(issued(self.now, life))
    }

    /// The latest fetch brings this.
    fn arrive(&mut self, arrived: Arrived) -> Vec<Action> {
        let flight = self.flight();
        self.tell(Event::Fetched { flight, arrived })
    }

    /// The provider refuses what it was sent.
    fn refuse(&mut self, generation: u64) -> Vec<Action> {
        self.tell(Event::Refused { generation, replaced: false })
    }

    /// A desk whose slot holds generation 1, which is no newborn any more.
    fn settled() -> Self {
        let mut harness = Self::live();
        harness.later(5);
        harness
    }

    /// The latest fetch fails.
    fn fail(&mut self, class: Class) -> Vec<Action> {
        let flight = self.flight();
        self.tell(Event::Failed { flight, failure: Failure::new(class, "because") })
    }

    fn tick(&mut self) -> Vec<Action> {
        self.tell(Event::Tick { used: true })
    }

    /// Returns the class and the seconds in `retry_after` with which a request is denied now.
    fn denied(&mut self) -> Option<(Class, u64)> {
        let answer = self.tell(Event::Needed);
        let [Action::Deny(denial)] = answer.as_slice() else { return None };
        Some((denial.class, denial.retry_after.as_secs()))
    }

    /// Forward to the renewal of a live token, and into it.
    fn renewing() -> Self {
        let mut harness = Self::live();
        harness.later(1740);
        assert_eq!(harness.tick(), [Action::Fetch { flight: 2 }]);
        harness
    }

    fn holding(class: Class) -> Self {
        let mut harness = Self::renewing();
        harness.fail(class);
        assert_eq!(harness.slot.waiting(), PhaseKind::Holding);
        harness
    }
}

/// Returns the actions for a generation that was refused for good.
fn dead(generation: u64) -> Vec<Action> {
    vec![Action::Withdraw { generation }, Action::Invalidate { generation }]
}

#[test]
fn many_needs_cause_one_fetch() {
    let mut harness = SlotHarness::new();
    for _ in 0..1000 {
        harness.tell(Event::Needed);
    }
    assert_eq!(harness.fetches, [1]);
    let young_until = Some(Deadline::after(START, SETTLE));
    let published =
        Action::Publish { generation: 1, issued: START, expires: Deadline::after(START, LIFE), young_until };
    assert_eq!(harness.bring(LIFE), [published, Action::Serve]);
    assert_eq!(harness.tell(Event::Needed), [Action::Serve]);
}

#[test]
fn a_storm_of_refusals_of_one_generation_causes_one_refresh() {
    let mut harness = SlotHarness::settled();
    let first = harness.refuse(1);
    assert_eq!(first, [dead(1), vec![Action::Fetch { flight: 2 }]].concat());
    for _ in 0..1000 {
        assert_eq!(harness.refuse(1), []);
    }
    harness.bring(LIFE);
    for _ in 0..1000 {
        assert_eq!(harness.refuse(1), [Action::Serve], "late: the newer one, at once");
    }
    assert_eq!(harness.fetches, [1, 2]);
}

#[test]
fn late_news_about_an_old_generation_changes_nothing() {
    let mut harness = SlotHarness::settled();
    harness.refuse(1);
    harness.bring(LIFE);
    let news = [
        Event::RefusedAtBirth { generation: 1 },
        Event::Withdrawn { generation: 1, replaced: false },
        Event::Suspected { generation: 1 },
        Event::Refused { generation: 1, replaced: false },
    ];
    for event in news {
        let answer = if matches!(event, Event::Refused { .. }) { vec![Action::Serve] } else { vec![] };
        assert_eq!(harness.tell(event), answer);
        assert_eq!((harness.slot.waiting(), harness.slot.generation()), (PhaseKind::Live, 2));
    }
}

#[test]
fn the_answer_of_an_abandoned_fetch_changes_nothing() {
    let mut harness = SlotHarness::new();
    harness.tell(Event::Needed);
    harness.later(10);
    harness.tick();
    assert_eq!(harness.bring(LIFE), [], "abandoned, resting");
    harness.later(2);
    harness.tell(Event::Needed);
    assert_eq!(harness.fetches, [1, 2]);
    assert_eq!(harness.tell(Event::Fetched { flight: 1, arrived: issued(harness.now, LIFE) }), []);
    assert_eq!(harness.tell(Event::Failed { flight: 1, failure: Failure::new(Class::Fatal, "late") }), []);
    assert_eq!(harness.slot.waiting(), PhaseKind::Fetching);
}

#[test]
fn renewal_starts_before_expiry_and_is_spread_by_dice() {
    let mut harness = SlotHarness::live();
    assert_eq!(harness.slot.wait(harness.now), Some(Duration::from_secs(1740)));
    harness.later(1739);
    assert_eq!(harness.tick(), []);
    harness.later(1);
    assert_eq!(harness.tick(), [Action::Fetch { flight: 2 }]);
    assert_eq!(harness.tell(Event::Needed), [Action::Serve], "the old one serves meanwhile");
    harness.jitter = 255;
    harness.bring(LIFE);
    assert_eq!(harness.slot.renews(), Some(Deadline::after(harness.now, seconds(1710))));
}

#[test]
fn a_failed_early_renewal_keeps_the_old_token() {
    let mut harness = SlotHarness::holding(Class::Transient);
    assert_eq!(harness.tell(Event::Needed), [Action::Serve]);
    harness.later(1);
    assert_eq!(harness.tick(), [Action::Fetch { flight: 3 }], "tried again after the rest");
    harness.fail(Class::Transient);
    harness.later(1);
    assert_eq!(harness.tick(), [], "the second rest is longer");
    harness.later(1);
    harness.tick();
    harness.bring(LIFE);
    assert_eq!((harness.slot.waiting(), harness.slot.generation(), harness.slot.failures()), (PhaseKind::Live, 2, 0));
}

#[test]
fn an_expired_token_is_never_served() {
    let mut harness = SlotHarness::live();
    harness.later(1800);
    assert_eq!(harness.tell(Event::Needed), [Action::Withdraw { generation: 1 }, Action::Fetch { flight: 2 }]);

    let mut harness = SlotHarness::renewing();
    harness.later(9);
    harness.now.wall += 60_000;
    assert_eq!(harness.tell(Event::Needed), [Action::Withdraw { generation: 1 }], "waits for the flight under way");
    assert_eq!((harness.slot.waiting(), harness.slot.flight()), (PhaseKind::Fetching, Some(2)));

    let mut harness = SlotHarness::holding(Class::Closed);
    harness.later(60);
    let answer = harness.tell(Event::Needed);
    let [Action::Withdraw { generation: 1 }, Action::Deny(denial)] = answer.as_slice() else {
        panic!("withdrawn and denied: {answer:?}");
    };
    assert_eq!((denial.class, denial.retry_after), (Class::Closed, Duration::from_secs(240)));
}

#[test]
fn one_refused_during_early_renewal_is_withdrawn_at_once_and_its_flight_awaited() {
    let mut harness = SlotHarness::renewing();
    assert_eq!(harness.refuse(1), dead(1));
    assert_eq!(harness.tell(Event::Needed), []);
    assert!(matches!(harness.bring(LIFE).as_slice(), [Action::Publish { generation: 2, .. }, Action::Serve]));
    assert_eq!(harness.fetches, [1, 2]);
}

#[test]
fn one_refused_while_its_renewal_rests_is_withdrawn_and_fetched_unless_told_to_stay_away() {
    let mut harness = SlotHarness::holding(Class::Transient);
    let answer = harness.refuse(1);
    assert_eq!(answer, [dead(1), vec![Action::Fetch { flight: 3 }]].concat());

    let mut harness = SlotHarness::renewing();
    let failure = Failure { retry_after: Some(Duration::from_secs(20)), ..Failure::new(Class::Transient, "busy") };
    harness.tell(Event::Failed { flight: 2, failure });
    let answer = harness.refuse(1);
    assert!(matches!(answer.as_slice(), [.., Action::Deny(_)]) && answer.starts_with(&dead(1)), "{answer:?}");

    for class in [Class::Closed, Class::Fatal, Class::RateLimited] {
        let mut harness = SlotHarness::holding(class);
        let answer = harness.refuse(1);
        assert!(matches!(answer.as_slice(), [.., Action::Deny(_)]) && answer.starts_with(&dead(1)), "{answer:?}");
        assert_eq!(harness.slot.waiting(), PhaseKind::Resting);
    }
}

#[test]
fn a_token_refused_at_birth_rests_instead_of_looping() {
    let mut harness = SlotHarness::live();
    for (generation, pause) in [(1, 1), (2, 2), (3, 4), (4, 8), (5, 16), (6, 32), (7, 60), (8, 60)] {
        // The bank took its time.
        harness.later(3);
        let answer = harness.tell(Event::RefusedAtBirth { generation });
        assert!(
            answer.starts_with(&dead(generation)) && matches!(answer.last(), Some(Action::Report(_))),
            "{answer:?}"
        );
        assert_eq!(harness.denied(), Some((Class::Transient, pause)));
        harness.later(pause);
        harness.tell(Event::Needed);
        harness.bring(LIFE);
    }
    harness.later(1740);
    harness.tick();
    harness.bring(LIFE);
    harness.later(60);
    harness.tell(Event::RefusedAtBirth { generation: 10 });
    assert_eq!(harness.denied(), Some((Class::Transient, 1)), "a generation lived to its renewal: the count is gone");
}

#[test]
fn a_token_that_is_refused_in_its_first_moments_is_tried_again_before_it_is_called_dead() {
    let mut harness = SlotHarness::live();
    let aside = [Action::Withdraw { generation: 1 }, Action::SetAside { generation: 1, pause: SETTLE }];
    assert_eq!(harness.refuse(1), aside);
    assert_eq!((harness.slot.waiting(), harness.slot.wait(harness.now)), (PhaseKind::Settling, Some(SETTLE)));
    for _ in 0..100 {
        assert_eq!(harness.refuse(1), [], "a storm waits for the same moment");
        assert_eq!(harness.tell(Event::Needed), []);
        assert_eq!(harness.tell(Event::RefusedAtBirth { generation: 1 }), []);
        assert_eq!(harness.tell(Event::Withdrawn { generation: 1, replaced: false }), []);
    }
    harness.later(3);
    let again = [Action::Republish { generation: 2, of: 1, retried: true }, Action::Serve];
    assert_eq!(harness.tick(), again);
    assert_eq!(harness.refuse(1), [Action::Serve], "late news of what it was before");
    assert_eq!((harness.slot.waiting(), harness.fetches.len()), (PhaseKind::Live, 1));
    assert_eq!(harness.slot.renews(), Some(Deadline::after(START, seconds(1740))), "by its whole life");
    harness.later(1740);
    harness.tick();
    harness.bring(LIFE);
    harness.later(1);
    harness.tell(Event::Proved { generation: 3 });
    harness.refuse(3);
    harness.bring(LIFE);
    assert!(harness.refuse(4).contains(&Action::SetAside { generation: 4, pause: SETTLE }), "the count is gone");
}

#[test]
fn a_token_that_is_refused_again_after_it_settled_is_dead_and_the_key_rests() {
    let mut pauses = Vec::new();
    let mut harness = SlotHarness::new();
    for _ in 0..4 {
        harness.tell(Event::Needed);
        harness.bring(LIFE);
        let young = harness.slot.generation();
        let answer = harness.refuse(young);
        let [Action::Withdraw { .. }, Action::SetAside { pause, .. }, ..] = answer.as_slice() else {
            panic!("set aside: {answer:?}");
        };
        let pause = *pause;
        harness.now = harness.now.plus(pause);
        harness.tick();
        let answer = harness.refuse(young + 1);
        let (rest, before) = answer.split_last().expect("actions");
        assert!(before.starts_with(&dead(young + 1)) && matches!(before.last(), Some(Action::Report(_))), "{before:?}");
        let Action::Deny(denial) = rest else { panic!("no fetch could help: {rest:?}") };
        pauses.push((pause.as_secs(), denial.retry_after.as_secs()));
        harness.now = harness.now.plus(denial.retry_after);
    }
    assert_eq!(pauses, [(3, 2), (4, 8), (16, 32), (60, 60)], "both grow, so a slow provider gets its time in the end");
}

#[test]
fn whoever_waits_for_a_token_to_settle_waits_no_longer_than_for_a_fetch() {
    let mut harness = SlotHarness::new();
    for _ in 0..2 {
        harness.tell(Event::Needed);
        harness.bring(LIFE);
        harness.refuse(harness.slot.generation());
        harness.later(4);
        harness.tick();
        harness.tell(Event::RefusedAtBirth { generation: harness.slot.generation() });
        harness.later(8);
    }
    harness.tell(Event::Needed);
    harness.bring(LIFE);
    let answer = harness.refuse(harness.slot.generation());
    let [Action::Withdraw { .. }, Action::SetAside { pause, .. }, Action::Deny(denial)] = answer.as_slice() else {
        panic!("told at once: {answer:?}");
    };
    assert_eq!((*pause, denial.retry_after), (seconds(16), seconds(16)));
    harness.later(7);
    assert_eq!(harness.tell(Event::Needed), [], "by now it is worth the wait");
    harness.later(9);
    assert!(harness.tick().contains(&Action::Serve));
}

#[test]
fn a_token_that_was_accepted_replaced_or_is_about_to_end_does_not_settle() {
    let mut harness = SlotHarness::live();
    harness.tell(Event::Proved { generation: 1 });
    assert_eq!(harness.refuse(1), [dead(1), vec![Action::Fetch { flight: 2 }]].concat());

    for event in [Event::Refused { generation: 1, replaced: true }, Event::Withdrawn { generation: 1, replaced: true }]
    {
        let mut harness = SlotHarness::live();
        assert!(harness.tell(event).starts_with(&dead(1)), "another replica killed it");
    }

    for event in [Event::Refused { generation: 1, replaced: true }, Event::Withdrawn { generation: 1, replaced: true }]
    {
        let mut harness = SlotHarness::live();
        harness.refuse(1);
        assert!(harness.tell(event).contains(&Action::Fetch { flight: 2 }), "it waits for a second trial no more");
    }

    let mut harness = SlotHarness::new();
    harness.tell(Event::Needed);
    harness.bring(seconds(3));
    assert_eq!(harness.refuse(1), [dead(1), vec![Action::Fetch { flight: 2 }]].concat(), "it would be over by then");

    let mut harness = SlotHarness::new();
    harness.tell(Event::Needed);
    let adopted = Arrived { origin: TokenOrigin::Adopted { young: false }, ..issued(harness.now, LIFE) };
    harness.arrive(adopted);
    assert_eq!(harness.refuse(1), [dead(1), vec![Action::Fetch { flight: 2 }]].concat(), "an old one of a file");
}

#[test]
fn the_operator_and_the_clock_end_the_wait_of_a_token_that_settles() {
    let settling = || {
        let mut harness = SlotHarness::live();
        harness.refuse(1);
        harness
    };
    for event in [Event::Forced, Event::Purged] {
        let mut harness = settling();
        assert_eq!(harness.tell(event), [Action::Fetch { flight: 2 }], "those who wait get a new one");
        assert!(matches!(harness.bring(LIFE).as_slice(), [Action::Publish { .. }, Action::Serve]));
    }
    let mut harness = settling();
    harness.now.wall += 86_400_000;
    assert_eq!(harness.tick(), [Action::Fetch { flight: 2 }], "it is over by the wall clock");
    let mut harness = settling();
    for event in [Event::Forgiven, Event::Suspected { generation: 1 }, Event::Proved { generation: 1 }] {
        assert_eq!(harness.tell(event), []);
    }
    assert_eq!(harness.tell(Event::Failed { flight: 1, failure: Failure::new(Class::Fatal, "late") }), []);
    assert_eq!(harness.tell(Event::Fetched { flight: 1, arrived: issued(harness.now, LIFE) }), []);
    assert_eq!(harness.slot.waiting(), PhaseKind::Settling);
}

/// A desk whose token was renewed a moment ago: generation 1 lives for a minute still, 2 was never accepted.
fn renewed() -> SlotHarness {
    let mut harness = SlotHarness::renewing();
    harness.bring(LIFE);
    assert!(harness.slot.keeps(1));
    harness
}

#[test]
fn the_old_token_serves_while_a_renewed_one_is_refused() {
    let mut harness = renewed();
    let back = [
        Action::Withdraw { generation: 2 },
        Action::SetAside { generation: 2, pause: SETTLE },
        Action::Republish { generation: 3, of: 1, retried: false },
        Action::Serve,
    ];
    assert_eq!(harness.refuse(2), back, "nobody waits");
    assert_eq!(harness.tell(Event::Needed), [Action::Serve]);
    harness.later(3);
    let again = [Action::Republish { generation: 4, of: 2, retried: true }, Action::Serve];
    assert_eq!(harness.tick(), again);
    assert!(harness.slot.keeps(3), "until the new one has proved itself");
    let answer = harness.refuse(4);
    assert!(answer.starts_with(&dead(4)) && answer.ends_with(&[Action::Serve]), "{answer:?}");
    assert_eq!(
        (harness.slot.waiting(), harness.fetches.len()),
        (PhaseKind::Holding, 2),
        "the old one again; the rest is long"
    );
}

#[test]
fn an_old_token_is_let_go_when_the_new_one_is_accepted_or_it_ends_or_is_refused_itself() {
    let mut harness = renewed();
    harness.tell(Event::Proved { generation: 1 });
    assert!(harness.slot.keeps(1), "news of the old one");
    harness.tell(Event::Proved { generation: 2 });
    assert!(!harness.slot.keeps(1));

    let mut harness = renewed();
    assert_eq!(harness.slot.wait(harness.now), Some(seconds(60)));
    harness.later(60);
    harness.tick();
    assert!(!harness.slot.keeps(1));

    let mut harness = renewed();
    assert_eq!(harness.refuse(1), [Action::Invalidate { generation: 1 }, Action::Serve], "late news of it");
    assert!(!harness.slot.keeps(1));

    let mut harness = renewed();
    harness.refuse(2);
    assert_eq!(harness.refuse(1), dead(3), "the same token, under the number that it had; the new one settles");
    assert_eq!(harness.slot.waiting(), PhaseKind::Settling);
    harness.later(3);
    assert_eq!(harness.tick(), [Action::Republish { generation: 4, of: 2, retried: true }, Action::Serve]);
}

#[test]
fn an_old_token_serves_while_its_unproved_successor_is_replaced() {
    for event in [
        Event::Refused { generation: 2, replaced: false },
        Event::Withdrawn { generation: 2, replaced: false },
        Event::RefusedAtBirth { generation: 2 },
    ] {
        let mut harness = renewed();
        harness.later(20);
        let answer = harness.tell(event);
        assert!(answer.starts_with(&dead(2)), "{answer:?}");
        assert!(answer.contains(&Action::Republish { generation: 3, of: 1, retried: false }), "{answer:?}");
        assert!(matches!(harness.slot.waiting(), PhaseKind::Renewing | PhaseKind::Holding));
        assert_eq!(harness.tell(Event::Needed), [Action::Serve]);
    }
}

#[test]
fn where_a_new_token_ends_the_old_one_nothing_is_kept() {
    let policy = Policy { overlap: false, ..POLICY };
    let mut harness = SlotHarness::renewing();
    let (flight, mut actions) = (harness.flight(), Vec::new());
    let event = Event::Fetched { flight, arrived: issued(harness.now, LIFE) };
    harness.slot = harness.slot.step(event, harness.now, &policy, 0, &mut actions);
    assert!(!harness.slot.keeps(1));
}

#[test]
fn a_token_that_comes_back_unchanged_is_asked_for_again_only_once_it_has_ended() {
    let mut harness = SlotHarness::renewing();
    let same = |harness: &SlotHarness, left: u64| Arrived {
        origin: TokenOrigin::Repeated,
        ..issued(harness.now, seconds(left))
    };
    let answer = harness.arrive(same(&harness, 60));
    assert!(matches!(answer.as_slice(), [Action::Publish { generation: 2, .. }, Action::Serve]), "{answer:?}");
    harness.later(59);
    assert_eq!(harness.tick(), []);
    harness.later(1);
    assert_eq!(harness.tell(Event::Needed), [Action::Withdraw { generation: 2 }, Action::Fetch { flight: 3 }]);

    let mut harness = SlotHarness::renewing();
    harness.tell(Event::Proved { generation: 1 });
    let arrived = same(&harness, 1800);
    harness.arrive(arrived);
    assert!(!harness.slot.keeps(1), "it is no successor of itself");
    assert_eq!(harness.refuse(1), [dead(2), vec![Action::Fetch { flight: 3 }]].concat(), "news of any of its numbers");

    let mut harness = SlotHarness::renewing();
    let arrived = same(&harness, 1800);
    harness.arrive(arrived);
    harness.later(1740);
    assert_eq!(harness.tick(), [Action::Fetch { flight: 3 }], "one whose life was extended is renewed as ever");
}

#[test]
fn a_refused_token_that_is_handed_out_again_gets_one_more_chance_and_no_second_fetch() {
    let mut harness = SlotHarness::settled();
    harness.refuse(1);
    harness.arrive(Arrived { origin: TokenOrigin::Repeated, ..issued(harness.now, LIFE) });
    let answer = harness.refuse(2);
    assert!(answer.starts_with(&dead(2)) && matches!(answer.last(), Some(Action::Deny(_))), "{answer:?}");
}

#[test]
fn a_refused_token_that_is_handed_out_again_is_not_taken_for_the_one_that_serves_meanwhile() {
    let again = |harness: &SlotHarness| Arrived { origin: TokenOrigin::Repeated, ..issued(harness.now, LIFE) };
    let mut harness = renewed();
    harness.later(20);
    harness.refuse(2);
    assert_eq!(harness.slot.waiting(), PhaseKind::Renewing, "the old one serves as generation 3");
    harness.arrive(again(&harness));
    assert!(harness.slot.keeps(3), "it stays in reserve");
    assert_eq!(harness.refuse(1), [Action::Invalidate { generation: 3 }, Action::Serve], "late news of the old one");

    let mut harness = renewed();
    harness.later(20);
    harness.refuse(2);
    harness.arrive(again(&harness));
    let answer = harness.refuse(4);
    assert!(answer.contains(&Action::Republish { generation: 5, of: 3, retried: false }), "{answer:?}");
    assert_eq!(harness.slot.waiting(), PhaseKind::Holding, "what came back is refused for good; the rest is long");
}

#[test]
fn a_stored_token_that_is_over_leads_to_a_fetch_at_once_and_never_to_a_loop() {
    let over = |harness: &SlotHarness| Arrived {
        issued: START,
        expires: Deadline::after(harness.now, Duration::ZERO),
        origin: TokenOrigin::Adopted { young: false },
    };
    let mut harness = SlotHarness::new();
    harness.tell(Event::Needed);
    harness.arrive(over(&harness));
    assert_eq!((harness.fetches.as_slice(), harness.slot.waiting()), ([1, 2].as_slice(), PhaseKind::Fetching));
    let answer = harness.arrive(over(&harness));
    assert!(matches!(answer.as_slice(), [Action::Report(_), Action::Deny(_)]), "{answer:?}");

    let mut harness = SlotHarness::renewing();
    harness.arrive(over(&harness));
    assert_eq!((harness.fetches.len(), harness.slot.waiting()), (3, PhaseKind::Renewing));
    assert!(harness.bring(LIFE).contains(&Action::Serve));
}

#[test]
fn a_refusal_that_is_not_at_birth_ends_the_doubling_once_the_token_proved_good() {
    let refuse_late = |lived: u64| {
        let mut harness = SlotHarness::settled();
        harness.tell(Event::RefusedAtBirth { generation: 1 });
        harness.later(1);
        harness.tell(Event::Needed);
        harness.bring(LIFE);
        harness.tell(Event::Proved { generation: 2 });
        harness.later(lived);
        let answer = harness.refuse(2);
        assert!(matches!(answer.last(), Some(Action::Fetch { .. })), "fetched either way");
        harness.bring(LIFE);
        harness.later(3);
        harness.tell(Event::RefusedAtBirth { generation: 3 });
        harness.denied()
    };
    assert_eq!(refuse_late(1), Some((Class::Transient, 1)));
    assert_eq!(refuse_late(0), Some((Class::Transient, 2)), "a bystander met the bad token first");
}

#[test]
fn a_hung_fetch_ends_by_its_deadline() {
    let mut harness = SlotHarness::new();
    harness.tell(Event::Needed);
    assert_eq!(harness.slot.wait(harness.now), Some(Duration::from_secs(10)));
    harness.later(9);
    assert_eq!(harness.tick(), []);
    harness.later(1);
    let answer = harness.tick();
    let [Action::Abandon { flight: 1 }, Action::Report(report), Action::Deny(denial)] = answer.as_slice() else {
        panic!("abandoned and denied: {answer:?}");
    };
    assert_eq!((report.class, report.flight, denial.retry_after), (Class::Transient, Some(1), Duration::from_secs(1)));
    assert!(denial.inside.contains("10s"), "{}", denial.inside);

    let mut harness = SlotHarness::renewing();
    harness.later(10);
    harness.tick();
    assert_eq!(harness.slot.waiting(), PhaseKind::Holding, "a hung renewal costs nobody anything");
}

#[test]
fn each_class_rests_by_its_own_measure_and_says_so_at_once() {
    for (class, pauses) in [
        (Class::Fatal, [300, 600, 1200, 2400, 3600, 3600]),
        (Class::Closed, [300, 600, 900, 900, 900, 900]),
        (Class::RateLimited, [30, 60, 120, 240, 300, 300]),
        (Class::Transient, [1, 2, 4, 8, 16, 30]),
    ] {
        let mut harness = SlotHarness::new();
        for pause in pauses {
            harness.tell(Event::Needed);
            harness.fail(class);
            assert_eq!(harness.denied(), Some((class, pause)));
            harness.later(pause - 1);
            assert_eq!(harness.denied(), Some((class, 1)), "the time left");
            harness.later(1);
        }
        let counted = if class == Class::Closed { 0 } else { 6 };
        assert_eq!(harness.slot.failures(), counted, "{class:?}: closing hours are no failures");
    }
}

#[test]
fn nobody_asks_after_a_rest_until_somebody_needs_a_token() {
    let mut harness = SlotHarness::new();
    harness.tell(Event::Needed);
    harness.fail(Class::Transient);
    harness.later(3600);
    assert_eq!(harness.tick(), []);
    assert_eq!((harness.slot.waiting(), harness.slot.wait(harness.now)), (PhaseKind::Empty, None));
    assert_eq!(harness.tell(Event::Needed), [Action::Fetch { flight: 2 }]);
}

#[test]
fn the_provider_is_never_asked_sooner_than_it_said() {
    for jitter in [0, 255] {
        let mut harness = SlotHarness::new();
        harness.jitter = jitter;
        harness.tell(Event::Needed);
        let mut failure = Failure::new(Class::RateLimited, "slow down");
        failure.retry_after = Some(Duration::from_secs(120));
        harness.tell(Event::Failed { flight: 1, failure });
        harness.later(119);
        assert!(harness.denied().is_some());
        assert_eq!(harness.fetches, [1]);
    }
}

#[test]
fn an_unused_token_is_not_renewed_for_ever() {
    let mut harness = SlotHarness::live();
    let mut ticks = 0;
    while let Some(wait) = harness.slot.wait(harness.now) {
        harness.now = harness.now.plus(wait);
        harness.tell(Event::Tick { used: false });
        ticks += 1;
        assert!(ticks < 30, "no busy loop");
    }
    assert_eq!((harness.slot.waiting(), harness.fetches.len()), (PhaseKind::Empty, 1));

    let mut harness = SlotHarness::live();
    harness.later(1740);
    harness.tell(Event::Tick { used: false });
    harness.later(15);
    assert_eq!(harness.tick(), [Action::Fetch { flight: 2 }], "used again before it died");
}

#[test]
fn a_suspicion_renews_once_per_rest_period_and_keeps_serving() {
    let mut harness = SlotHarness::live();
    assert_eq!(harness.tell(Event::Suspected { generation: 1 }), [Action::Fetch { flight: 2 }]);
    assert_eq!(harness.tell(Event::Needed), [Action::Serve]);
    harness.bring(LIFE);
    for _ in 0..100 {
        assert_eq!(harness.tell(Event::Suspected { generation: 2 }), []);
    }
    harness.later(60);
    assert_eq!(harness.tell(Event::Suspected { generation: 2 }), [Action::Fetch { flight: 3 }]);
    harness.bring(LIFE);
    harness.later(60);
    assert_eq!(harness.tell(Event::Suspected { generation: 3 }), [], "suspicion that helps nothing is heeded less");
}

#[test]
fn a_refusal_that_nobody_waits_out_renews_in_the_background_unless_the_token_was_fresh() {
    let mut harness = SlotHarness::live();
    harness.later(5);
    let answer = harness.tell(Event::Withdrawn { generation: 1, replaced: false });
    assert_eq!(answer, [dead(1), vec![Action::Fetch { flight: 2 }]].concat());
    harness.bring(LIFE);
    harness.tell(Event::Proved { generation: 2 });
    assert_eq!(harness.tell(Event::Withdrawn { generation: 2, replaced: false }), dead(2));
    assert_eq!(harness.tell(Event::Needed), [Action::Fetch { flight: 3 }]);
}

#[test]
fn a_token_that_died_on_the_way_is_a_failure() {
    let mut harness = SlotHarness::new();
    harness.tell(Event::Needed);
    let sent = harness.now;
    harness.later(5);
    let answer = harness.arrive(issued(sent, Duration::from_secs(5)));
    assert!(matches!(answer.as_slice(), [Action::Report(_), Action::Deny(_)]), "{answer:?}");
}

#[test]
fn no_life_is_believed_beyond_the_cap() {
    let mut harness = SlotHarness::new();
    harness.tell(Event::Needed);
    harness.bring(Duration::MAX);
    harness.later(24 * 3600);
    assert!(harness.tell(Event::Needed).contains(&Action::Withdraw { generation: 1 }));
}

#[test]
fn the_operator_ends_a_rest_and_forgets_a_token() {
    let mut harness = SlotHarness::new();
    harness.tell(Event::Needed);
    harness.fail(Class::Fatal);
    assert_eq!(harness.tell(Event::Forced), [Action::Fetch { flight: 2 }]);
    harness.fail(Class::Fatal);
    assert_eq!(harness.denied(), Some((Class::Fatal, 300)), "counted anew");
    harness.tell(Event::Forgiven);
    assert_eq!(harness.tell(Event::Needed), [Action::Fetch { flight: 3 }]);
    harness.bring(LIFE);
    assert_eq!(harness.tell(Event::Purged), [Action::Withdraw { generation: 1 }]);
    assert_eq!(harness.slot.waiting(), PhaseKind::Empty);

    let mut harness = SlotHarness::renewing();
    assert_eq!(harness.tell(Event::Purged), [Action::Withdraw { generation: 1 }, Action::Abandon { flight: 2 }]);
    assert_eq!(harness.bring(LIFE), []);

    let mut harness = SlotHarness::holding(Class::Closed);
    assert_eq!(harness.tell(Event::Forgiven), []);
    assert_eq!(harness.tick(), [Action::Fetch { flight: 3 }], "a reload may have cured it");
}

/// T29: a jump of either clock costs one fetch at most, and a token never outlives the stricter clock.
#[test]
fn clock_jumps_cause_no_storm() {
    for jump in [3_600_000_i64, -3_600_000, 86_400_000, -86_400_000] {
        let mut harness = SlotHarness::live();
        harness.now.wall = harness.now.wall.saturating_add_signed(jump);
        for _ in 0..100 {
            harness.tick();
            harness.tell(Event::Needed);
            if harness.slot.waiting() == PhaseKind::Fetching {
                harness.bring(LIFE);
            }
        }
        assert_eq!(harness.fetches.len(), if jump > 0 { 2 } else { 1 });
        harness.later(1740);
        harness.tick();
        assert_eq!(harness.slot.waiting(), PhaseKind::Renewing, "and life goes on by the boot clock");
        harness.later(60);
        harness.tick();
        assert!(matches!(harness.slot.waiting(), PhaseKind::Fetching | PhaseKind::Resting | PhaseKind::Empty));
    }
}

#[test]
fn setting_the_wall_clock_neither_kills_a_fetch_nor_ends_a_rest() {
    let mut harness = SlotHarness::new();
    harness.tell(Event::Needed);
    harness.now.wall += 86_400_000;
    assert_eq!(harness.tick(), []);
    harness.fail(Class::Fatal);
    harness.now.wall += 86_400_000;
    assert!(harness.denied().is_some());
}

#[test]
fn a_key_that_comes_back_does_not_repeat_generations() {
    let mut slot = TokenState::starting_after(7);
    let mut actions = Vec::new();
    slot = slot.step(Event::Needed, START, &POLICY, 0, &mut actions);
    slot = slot.step(Event::Fetched { flight: 1, arrived: issued(START, LIFE) }, START, &POLICY, 0, &mut actions);
    assert_eq!(slot.generation(), 8);
}

#[test]
fn a_key_fails_until_a_token_arrives_or_it_is_purged_and_not_until_it_is_forgiven() {
    let mut harness = SlotHarness::new();
    harness.tell(Event::Needed);
    harness.fail(Class::Consent);
    assert_eq!(harness.slot.failing_since(), None);
    harness.tell(Event::Forced);
    harness.fail(Class::Transient);
    let since = harness.slot.failing_since().expect("it fails");
    harness.later(60);
    harness.tell(Event::Forced);
    harness.fail(Class::RateLimited);
    harness.tell(Event::Forgiven);
    assert_eq!(harness.slot.failing_since(), Some(since));
    harness.tell(Event::Needed);
    harness.bring(seconds(3600));
    assert_eq!(harness.slot.failing_since(), None);
    harness.tell(Event::Purged);
    harness.tell(Event::Needed);
    harness.fail(Class::Transient);
    harness.tell(Event::Purged);
    assert_eq!(harness.slot.failing_since(), None);
}
