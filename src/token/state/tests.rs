//! The named properties of a token's life.

use super::*;
use crate::token::failure::Failure;

const POLICY: Policy = Policy { refresh_before: Duration::from_secs(60), fetch_timeout: Duration::from_secs(10) };
const LIFE: Duration = Duration::from_secs(1800);
const START: Now = Now::at(1_000_000, 1_700_000_000_000);

/// A slot with a clock in its hand.
struct Desk {
    slot: Slot,
    now: Now,
    dice: u8,
    fetches: Vec<u64>,
}

impl Desk {
    fn new() -> Self {
        Self { slot: Slot::default(), now: START, dice: 0, fetches: Vec::new() }
    }

    /// A desk whose slot holds generation 1, just published.
    fn live() -> Self {
        let mut desk = Self::new();
        desk.tell(Event::Needed);
        desk.bring(LIFE);
        desk
    }

    fn tell(&mut self, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        self.slot = std::mem::take(&mut self.slot).step(event, self.now, &POLICY, self.dice, &mut actions);
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
        let (flight, sent) = (self.flight(), self.now);
        self.tell(Event::Fetched { flight, sent, life })
    }

    /// The latest fetch fails.
    fn fail(&mut self, class: Class) -> Vec<Action> {
        let flight = self.flight();
        self.tell(Event::Failed { flight, failure: Failure::new(class, "because") })
    }

    fn tick(&mut self) -> Vec<Action> {
        self.tell(Event::Tick { used: true })
    }

    /// How long somebody who asks now is told to wait.
    fn denied(&mut self) -> Option<(Class, u64)> {
        let answer = self.tell(Event::Needed);
        let [Action::Deny(denial)] = answer.as_slice() else { return None };
        Some((denial.class, denial.retry_after.as_secs()))
    }

    /// Forward to the renewal of a live token, and into it.
    fn renewing() -> Self {
        let mut desk = Self::live();
        desk.later(1740);
        assert_eq!(desk.tick(), [Action::Fetch { flight: 2 }]);
        desk
    }

    fn holding(class: Class) -> Self {
        let mut desk = Self::renewing();
        desk.fail(class);
        assert_eq!(desk.slot.waiting(), Waiting::Holding);
        desk
    }
}

#[test]
fn many_needs_cause_one_fetch() {
    let mut desk = Desk::new();
    for _ in 0..1000 {
        desk.tell(Event::Needed);
    }
    assert_eq!(desk.fetches, [1]);
    let published = Action::Publish { generation: 1, issued: START, expires: Deadline::after(START, LIFE) };
    assert_eq!(desk.bring(LIFE), [published, Action::Serve]);
    assert_eq!(desk.tell(Event::Needed), [Action::Serve]);
}

#[test]
fn a_storm_of_refusals_of_one_generation_causes_one_refresh() {
    let mut desk = Desk::live();
    let first = desk.tell(Event::Refused { generation: 1 });
    assert_eq!(first, [Action::Withdraw { generation: 1 }, Action::Fetch { flight: 2 }]);
    for _ in 0..1000 {
        assert_eq!(desk.tell(Event::Refused { generation: 1 }), []);
    }
    desk.bring(LIFE);
    for _ in 0..1000 {
        assert_eq!(desk.tell(Event::Refused { generation: 1 }), [Action::Serve], "late: the newer one, at once");
    }
    assert_eq!(desk.fetches, [1, 2]);
}

#[test]
fn late_news_about_an_old_generation_changes_nothing() {
    let mut desk = Desk::live();
    desk.tell(Event::Refused { generation: 1 });
    desk.bring(LIFE);
    let news = [
        Event::RefusedAtBirth { generation: 1 },
        Event::Withdrawn { generation: 1 },
        Event::Suspected { generation: 1 },
        Event::Refused { generation: 1 },
    ];
    for event in news {
        let answer = if matches!(event, Event::Refused { .. }) { vec![Action::Serve] } else { vec![] };
        assert_eq!(desk.tell(event), answer);
        assert_eq!((desk.slot.waiting(), desk.slot.generation()), (Waiting::Live, 2));
    }
}

#[test]
fn the_answer_of_an_abandoned_fetch_changes_nothing() {
    let mut desk = Desk::new();
    desk.tell(Event::Needed);
    desk.later(10);
    desk.tick();
    assert_eq!(desk.bring(LIFE), [], "abandoned, resting");
    desk.later(2);
    desk.tell(Event::Needed);
    assert_eq!(desk.fetches, [1, 2]);
    assert_eq!(desk.tell(Event::Fetched { flight: 1, sent: desk.now, life: LIFE }), []);
    assert_eq!(desk.tell(Event::Failed { flight: 1, failure: Failure::new(Class::Fatal, "late") }), []);
    assert_eq!(desk.slot.waiting(), Waiting::Fetching);
}

#[test]
fn renewal_starts_before_expiry_and_is_spread_by_dice() {
    let mut desk = Desk::live();
    assert_eq!(desk.slot.wait(desk.now), Some(Duration::from_secs(1740)));
    desk.later(1739);
    assert_eq!(desk.tick(), []);
    desk.later(1);
    assert_eq!(desk.tick(), [Action::Fetch { flight: 2 }]);
    assert_eq!(desk.tell(Event::Needed), [Action::Serve], "the old one serves meanwhile");
    desk.dice = 255;
    desk.bring(LIFE);
    assert_eq!(desk.slot.wait(desk.now), Some(Duration::from_secs(1710)));
}

#[test]
fn a_failed_early_renewal_keeps_the_old_token() {
    let mut desk = Desk::holding(Class::Transient);
    assert_eq!(desk.tell(Event::Needed), [Action::Serve]);
    desk.later(1);
    assert_eq!(desk.tick(), [Action::Fetch { flight: 3 }], "tried again after the rest");
    desk.fail(Class::Transient);
    desk.later(1);
    assert_eq!(desk.tick(), [], "the second rest is longer");
    desk.later(1);
    desk.tick();
    desk.bring(LIFE);
    assert_eq!((desk.slot.waiting(), desk.slot.generation(), desk.slot.failures()), (Waiting::Live, 2, 0));
}

#[test]
fn an_expired_token_is_never_served() {
    let mut desk = Desk::live();
    desk.later(1800);
    assert_eq!(desk.tell(Event::Needed), [Action::Withdraw { generation: 1 }, Action::Fetch { flight: 2 }]);

    let mut desk = Desk::renewing();
    desk.later(9);
    desk.now.wall += 60_000;
    assert_eq!(desk.tell(Event::Needed), [Action::Withdraw { generation: 1 }], "waits for the flight under way");
    assert_eq!((desk.slot.waiting(), desk.slot.flight()), (Waiting::Fetching, Some(2)));

    let mut desk = Desk::holding(Class::Closed);
    desk.later(60);
    let answer = desk.tell(Event::Needed);
    let [Action::Withdraw { generation: 1 }, Action::Deny(denial)] = answer.as_slice() else {
        panic!("withdrawn and denied: {answer:?}");
    };
    assert_eq!((denial.class, denial.retry_after), (Class::Closed, Duration::from_secs(240)));
}

#[test]
fn one_refused_during_early_renewal_is_withdrawn_at_once_and_its_flight_awaited() {
    let mut desk = Desk::renewing();
    assert_eq!(desk.tell(Event::Refused { generation: 1 }), [Action::Withdraw { generation: 1 }]);
    assert_eq!(desk.tell(Event::Needed), []);
    assert!(matches!(desk.bring(LIFE).as_slice(), [Action::Publish { generation: 2, .. }, Action::Serve]));
    assert_eq!(desk.fetches, [1, 2]);
}

#[test]
fn one_refused_while_its_renewal_rests_is_withdrawn_and_fetched_unless_told_to_stay_away() {
    let mut desk = Desk::holding(Class::Transient);
    let answer = desk.tell(Event::Refused { generation: 1 });
    assert_eq!(answer, [Action::Withdraw { generation: 1 }, Action::Fetch { flight: 3 }]);

    let mut desk = Desk::renewing();
    let failure = Failure { retry_after: Some(Duration::from_secs(20)), ..Failure::new(Class::Transient, "busy") };
    desk.tell(Event::Failed { flight: 2, failure });
    let answer = desk.tell(Event::Refused { generation: 1 });
    assert!(matches!(answer.as_slice(), [Action::Withdraw { generation: 1 }, Action::Deny(_)]), "{answer:?}");

    for class in [Class::Closed, Class::Fatal, Class::RateLimited] {
        let mut desk = Desk::holding(class);
        let answer = desk.tell(Event::Refused { generation: 1 });
        assert!(matches!(answer.as_slice(), [Action::Withdraw { generation: 1 }, Action::Deny(_)]), "{answer:?}");
        assert_eq!(desk.slot.waiting(), Waiting::Resting);
    }
}

#[test]
fn a_token_refused_at_birth_rests_instead_of_looping() {
    let mut desk = Desk::live();
    for (generation, pause) in [(1, 1), (2, 2), (3, 4), (4, 8), (5, 16), (6, 32), (7, 60), (8, 60)] {
        let answer = desk.tell(Event::RefusedAtBirth { generation });
        assert!(matches!(answer.as_slice(), [Action::Withdraw { .. }, Action::Report(_)]), "{answer:?}");
        assert_eq!(desk.denied(), Some((Class::Transient, pause)));
        desk.later(pause);
        desk.tell(Event::Needed);
        desk.bring(LIFE);
    }
    desk.later(1740);
    desk.tick();
    desk.bring(LIFE);
    desk.tell(Event::RefusedAtBirth { generation: 10 });
    assert_eq!(desk.denied(), Some((Class::Transient, 1)), "a generation lived to its renewal: the count is gone");
}

#[test]
fn a_refusal_that_is_not_at_birth_ends_the_doubling_once_the_token_proved_good() {
    let refuse_late = |lived: u64| {
        let mut desk = Desk::live();
        desk.tell(Event::RefusedAtBirth { generation: 1 });
        desk.later(1);
        desk.tell(Event::Needed);
        desk.bring(LIFE);
        desk.later(lived);
        let answer = desk.tell(Event::Refused { generation: 2 });
        assert!(matches!(answer.as_slice(), [Action::Withdraw { .. }, Action::Fetch { .. }]), "fetched either way");
        desk.bring(LIFE);
        desk.tell(Event::RefusedAtBirth { generation: 3 });
        desk.denied()
    };
    assert_eq!(refuse_late(1), Some((Class::Transient, 1)));
    assert_eq!(refuse_late(0), Some((Class::Transient, 2)), "a bystander met the bad token first");
}

#[test]
fn a_hung_fetch_ends_by_its_deadline() {
    let mut desk = Desk::new();
    desk.tell(Event::Needed);
    assert_eq!(desk.slot.wait(desk.now), Some(Duration::from_secs(10)));
    desk.later(9);
    assert_eq!(desk.tick(), []);
    desk.later(1);
    let answer = desk.tick();
    let [Action::Abandon { flight: 1 }, Action::Report(report), Action::Deny(denial)] = answer.as_slice() else {
        panic!("abandoned and denied: {answer:?}");
    };
    assert_eq!((report.class, report.flight, denial.retry_after), (Class::Transient, Some(1), Duration::from_secs(1)));
    assert!(denial.inside.contains("10s"), "{}", denial.inside);

    let mut desk = Desk::renewing();
    desk.later(10);
    desk.tick();
    assert_eq!(desk.slot.waiting(), Waiting::Holding, "a hung renewal costs nobody anything");
}

#[test]
fn each_class_rests_by_its_own_measure_and_says_so_at_once() {
    for (class, pauses) in [
        (Class::Fatal, [300, 600, 1200, 2400, 3600, 3600]),
        (Class::Closed, [300, 600, 900, 900, 900, 900]),
        (Class::RateLimited, [30, 60, 120, 240, 300, 300]),
        (Class::Transient, [1, 2, 4, 8, 16, 30]),
    ] {
        let mut desk = Desk::new();
        for pause in pauses {
            desk.tell(Event::Needed);
            desk.fail(class);
            assert_eq!(desk.denied(), Some((class, pause)));
            desk.later(pause - 1);
            assert_eq!(desk.denied(), Some((class, 1)), "the time left");
            desk.later(1);
        }
        let counted = if class == Class::Closed { 0 } else { 6 };
        assert_eq!(desk.slot.failures(), counted, "{class:?}: closing hours are no failures");
    }
}

#[test]
fn nobody_asks_after_a_rest_until_somebody_needs_a_token() {
    let mut desk = Desk::new();
    desk.tell(Event::Needed);
    desk.fail(Class::Transient);
    desk.later(3600);
    assert_eq!(desk.tick(), []);
    assert_eq!((desk.slot.waiting(), desk.slot.wait(desk.now)), (Waiting::Empty, None));
    assert_eq!(desk.tell(Event::Needed), [Action::Fetch { flight: 2 }]);
}

#[test]
fn the_provider_is_never_asked_sooner_than_it_said() {
    for dice in [0, 255] {
        let mut desk = Desk::new();
        desk.dice = dice;
        desk.tell(Event::Needed);
        let mut failure = Failure::new(Class::RateLimited, "slow down");
        failure.retry_after = Some(Duration::from_secs(120));
        desk.tell(Event::Failed { flight: 1, failure });
        desk.later(119);
        assert!(desk.denied().is_some());
        assert_eq!(desk.fetches, [1]);
    }
}

#[test]
fn an_unused_token_is_not_renewed_for_ever() {
    let mut desk = Desk::live();
    let mut ticks = 0;
    while let Some(wait) = desk.slot.wait(desk.now) {
        desk.now = desk.now.plus(wait);
        desk.tell(Event::Tick { used: false });
        ticks += 1;
        assert!(ticks < 30, "no busy loop");
    }
    assert_eq!((desk.slot.waiting(), desk.fetches.len()), (Waiting::Empty, 1));

    let mut desk = Desk::live();
    desk.later(1740);
    desk.tell(Event::Tick { used: false });
    desk.later(15);
    assert_eq!(desk.tick(), [Action::Fetch { flight: 2 }], "used again before it died");
}

#[test]
fn a_suspicion_renews_once_per_rest_period_and_keeps_serving() {
    let mut desk = Desk::live();
    assert_eq!(desk.tell(Event::Suspected { generation: 1 }), [Action::Fetch { flight: 2 }]);
    assert_eq!(desk.tell(Event::Needed), [Action::Serve]);
    desk.bring(LIFE);
    for _ in 0..100 {
        assert_eq!(desk.tell(Event::Suspected { generation: 2 }), []);
    }
    desk.later(60);
    assert_eq!(desk.tell(Event::Suspected { generation: 2 }), [Action::Fetch { flight: 3 }]);
    desk.bring(LIFE);
    desk.later(60);
    assert_eq!(desk.tell(Event::Suspected { generation: 3 }), [], "suspicion that helps nothing is heeded less");
}

#[test]
fn a_refusal_that_nobody_waits_out_renews_in_the_background_unless_the_token_was_fresh() {
    let mut desk = Desk::live();
    desk.later(5);
    let answer = desk.tell(Event::Withdrawn { generation: 1 });
    assert_eq!(answer, [Action::Withdraw { generation: 1 }, Action::Fetch { flight: 2 }]);
    desk.bring(LIFE);
    assert_eq!(desk.tell(Event::Withdrawn { generation: 2 }), [Action::Withdraw { generation: 2 }]);
    assert_eq!(desk.tell(Event::Needed), [Action::Fetch { flight: 3 }]);
}

#[test]
fn a_token_that_died_on_the_way_is_a_failure() {
    let mut desk = Desk::new();
    desk.tell(Event::Needed);
    let sent = desk.now;
    desk.later(5);
    let answer = desk.tell(Event::Fetched { flight: 1, sent, life: Duration::from_secs(5) });
    assert!(matches!(answer.as_slice(), [Action::Report(_), Action::Deny(_)]), "{answer:?}");
}

#[test]
fn no_life_is_believed_beyond_the_cap() {
    let mut desk = Desk::new();
    desk.tell(Event::Needed);
    desk.bring(Duration::MAX);
    desk.later(24 * 3600);
    assert!(desk.tell(Event::Needed).contains(&Action::Withdraw { generation: 1 }));
}

#[test]
fn the_operator_ends_a_rest_and_forgets_a_token() {
    let mut desk = Desk::new();
    desk.tell(Event::Needed);
    desk.fail(Class::Fatal);
    assert_eq!(desk.tell(Event::Forced), [Action::Fetch { flight: 2 }]);
    desk.fail(Class::Fatal);
    assert_eq!(desk.denied(), Some((Class::Fatal, 300)), "counted anew");
    desk.tell(Event::Forgiven);
    assert_eq!(desk.tell(Event::Needed), [Action::Fetch { flight: 3 }]);
    desk.bring(LIFE);
    assert_eq!(desk.tell(Event::Purged), [Action::Withdraw { generation: 1 }]);
    assert_eq!(desk.slot.waiting(), Waiting::Empty);

    let mut desk = Desk::renewing();
    assert_eq!(desk.tell(Event::Purged), [Action::Withdraw { generation: 1 }, Action::Abandon { flight: 2 }]);
    assert_eq!(desk.bring(LIFE), []);

    let mut desk = Desk::holding(Class::Closed);
    assert_eq!(desk.tell(Event::Forgiven), []);
    assert_eq!(desk.tick(), [Action::Fetch { flight: 3 }], "a reload may have cured it");
}

/// T29: a jump of either clock costs one fetch at most, and a token never outlives the stricter clock.
#[test]
fn clock_jumps_cause_no_storm() {
    for jump in [3_600_000_i64, -3_600_000, 86_400_000, -86_400_000] {
        let mut desk = Desk::live();
        desk.now.wall = desk.now.wall.saturating_add_signed(jump);
        for _ in 0..100 {
            desk.tick();
            desk.tell(Event::Needed);
            if desk.slot.waiting() == Waiting::Fetching {
                desk.bring(LIFE);
            }
        }
        assert_eq!(desk.fetches.len(), if jump > 0 { 2 } else { 1 });
        desk.later(1740);
        desk.tick();
        assert_eq!(desk.slot.waiting(), Waiting::Renewing, "and life goes on by the boot clock");
        desk.later(60);
        desk.tick();
        assert!(matches!(desk.slot.waiting(), Waiting::Fetching | Waiting::Resting | Waiting::Empty));
    }
}

#[test]
fn setting_the_wall_clock_neither_kills_a_fetch_nor_ends_a_rest() {
    let mut desk = Desk::new();
    desk.tell(Event::Needed);
    desk.now.wall += 86_400_000;
    assert_eq!(desk.tick(), []);
    desk.fail(Class::Fatal);
    desk.now.wall += 86_400_000;
    assert!(desk.denied().is_some());
}

#[test]
fn a_key_that_comes_back_does_not_repeat_generations() {
    let mut slot = Slot::starting_after(7);
    let mut actions = Vec::new();
    slot = slot.step(Event::Needed, START, &POLICY, 0, &mut actions);
    slot = slot.step(Event::Fetched { flight: 1, sent: START, life: LIFE }, START, &POLICY, 0, &mut actions);
    assert_eq!(slot.generation(), 8);
}
