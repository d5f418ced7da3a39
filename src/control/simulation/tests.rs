//! The seeds that are played, and the planted faults that they must find.

use std::collections::BTreeMap;
use std::env;
use std::ops::Range;

use super::bank::Fate;
use super::panics::heard;
use super::plan::{Clocks, Focus, SimulationPlan, focus};
use super::run::play;
use crate::base::planted::PlantedFault;
use crate::base::seed_search::{seed_search, seeds};

/// Runs of an ordinary test run.
const RUNS: Range<u64> = 0..2_000;
/// Seeds beyond them that have found a fault. The first two: a process took its own older token out of the store, because
/// the wall clock had been set back meanwhile. Then: a renewal under way served those who waited for it after a revocation;
/// a lock within the process ended when the wall clock was set ahead, and a refresh token was sent twice at once; a
/// token was tried again although another request had learned that it was replaced; a consent whose write was repeated was
/// put back over its own renewal by the next process.
const FOUND: [u64; 9] = [107_171, 112_534, 116_862, 158_512, 169_212, 243_061, 564_876, 611_003, 730_774];
/// A trace is shown from here backwards.
const SHOWN: usize = 150;

/// Returns whether all findings are to be listed.
fn is_survey() -> bool {
    env::var_os("COUNTERSIGN_SURVEY").is_some()
}

/// The broken promises of these seeds, up to `most`.
fn search(seeds: Range<u64>, most: usize, fault: Option<PlantedFault>, on: Option<Focus>) -> BTreeMap<u64, String> {
    seed_search(seeds, most, fault, |seed| {
        focus(on);
        let played = std::panic::catch_unwind(|| play(seed, false).broken);
        played.unwrap_or_else(|_| Some(heard().unwrap_or_else(|| "the run panicked".to_owned())))
    })
}

#[test]
fn every_seed_keeps_the_promises() {
    let seeds = seeds(RUNS);
    let most = if is_survey() { usize::MAX } else { 1 };
    let found = search(seeds.clone(), most, None, None);
    if most > 1 && !found.is_empty() {
        let lines: Vec<String> = found.iter().map(|(seed, broken)| format!("{seed}: {broken}")).collect();
        panic!("{} of {} seeds break a promise:\n{}", found.len(), seeds.end - seeds.start, lines.join("\n"));
    }
    if let Some((seed, broken)) = found.first_key_value() {
        let trace = play(*seed, true).trace;
        let shown = if seeds.end - seeds.start == 1 { trace.len() } else { SHOWN };
        let from = trace.len().saturating_sub(shown);
        panic!(
            "seed {seed}: {broken}\n{}\nreplay it with the whole trace: COUNTERSIGN_SEED={seed} cargo test --lib simulation",
            trace[from..].join("\n")
        );
    }
}

#[test]
fn seeds_that_once_found_a_fault_keep_the_promises() {
    for seed in FOUND {
        assert_eq!(play(seed, false).broken, None, "seed {seed}");
    }
}

#[test]
fn a_seed_takes_the_same_course_again() {
    for seed in 0..20 {
        let (first, second) = (play(seed, true), play(seed, true));
        assert_eq!(first.calls, second.calls);
        let differs = first.trace.iter().zip(&second.trace).position(|(one, other)| one != other);
        if let Some(at) = differs {
            panic!("seed {seed} differs at line {at}:\n{}\n{}", first.trace[at], second.trace[at]);
        }
        assert_eq!(first.trace.len(), second.trace.len());
    }
}

/// Each fault that was mended, put back, is found within so many runs. A survey says which of them find it. Some faults
/// need much bad luck at once, so their search looks where that is likely.
#[expect(clippy::print_stdout, reason = "a survey is there to be read")]
fn finds(fault: PlantedFault, runs: u64, on: Focus) {
    if is_survey() {
        let range = seeds(RUNS);
        let found = search(range.clone(), usize::MAX, Some(fault), Some(on));
        let lines: Vec<String> = found.iter().map(|(seed, broken)| format!("{fault:?} {seed}: {broken}")).collect();
        println!("{fault:?} is found by {} of {} seeds\n{}", found.len(), range.end - range.start, lines.join("\n"));
        return;
    }
    let found = search(0..runs, 1, Some(fault), Some(on));
    assert!(!found.is_empty(), "{fault:?} is not found in {runs} runs");
}

/// Replicas that lose the store when it hurts most, and nothing else.
fn outages(plan: &mut SimulationPlan) {
    let (crashes, drains, reloads, revocations) = (false, false, false, false);
    let clocks = Clocks::Right;
    *plan = SimulationPlan { shared: true, replicas: 3, storm: 200_000, outages: true, cuts: 3_000, ..plan.clone() };
    *plan = SimulationPlan { punishes: false, rotates: true, stillborn: 0, fate: 0, losses: 0, ..plan.clone() };
    *plan = SimulationPlan { crashes, drains, reloads, revocations, clocks, ..plan.clone() };
}

/// Banks that ask to be left alone, and few calls that renew what would be renewed for its own sake.
fn refusals(plan: &mut SimulationPlan) {
    let (crashes, drains, reloads, revocations) = (false, false, false, false);
    let (fates, clocks) = (vec![Fate::TooMany, Fate::Rejected], Clocks::Right);
    // One replica: others have rests of their own. Refresh tokens that live for some rounds after they are due.
    *plan =
        SimulationPlan { shared: false, replicas: 1, storm: 1_500_000, pace: 300_000, rotates: false, ..plan.clone() };
    *plan =
        SimulationPlan { fates, fate: 3_000, clocks, refusals: 0, stillborn: 0, late: 0, sluggish: 0, ..plan.clone() };
    *plan = SimulationPlan { crashes, drains, reloads, revocations, outages: false, losses: 0, ..plan.clone() };
}

/// Users who take their consent back, while replicas lose the store.
fn revocations(plan: &mut SimulationPlan) {
    *plan = SimulationPlan { shared: true, replicas: 3, storm: 200_000, pace: 1_000, outages: true, ..plan.clone() };
    *plan = SimulationPlan { revocations: true, ..plan.clone() };
}

macro_rules! finds {
    ($($name:ident: $fault:ident in $runs:literal $(where $focus:ident)?,)*) => {
        $(#[test]
        fn $name() {
            let focus: Option<Focus> = None;
            $(let focus = focus.or(Some($focus));)?
            finds(PlantedFault::$fault, $runs, focus.unwrap_or(|_| {}));
        })*
    };
}

finds! {
    a_token_that_is_dead_on_arrival_is_found: AdoptedTwice in 40,
    a_page_that_ends_renewals_is_found: BrokenRound in 200 where outages,
    a_clock_that_removes_records_is_found: ClockRemoves in 200,
    a_dead_token_that_wins_over_a_live_one_is_found: DeadWins in 200 where outages,
    an_end_without_waiting_is_found: EndsAtOnce in 400,
    a_token_that_is_ever_due_is_found: EverDue in 200,
    a_call_without_deadline_is_found: NoDeadline in 100,
    news_that_are_looked_at_once_are_found: OneLook in 200 where revocations,
    a_name_without_a_realm_is_found: RealmLess in 100,
    a_refused_token_that_stays_is_found: RefusedStays in 400,
    rests_that_are_not_kept_are_found: NoRests in 80 where refusals,
    a_rest_that_is_too_short_is_found: ShortRest in 400,
    a_refresh_token_that_is_thrown_away_is_found: ThrownAway in 400,
}
