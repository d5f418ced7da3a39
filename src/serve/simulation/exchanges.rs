//! Tests that run the simulation with many seeds.

use std::collections::BTreeMap;
use std::env;
use std::ops::Range;

use super::run::play;
use crate::base::planted::PlantedFault;
use crate::base::seed_search::{seed_search, seeds};

/// Runs of an ordinary test run.
const RUNS: Range<u64> = 0..300;
/// A trace is shown from here backwards.
const SHOWN: usize = 150;

/// Returns the number of findings after which a search stops: one, or no limit with `COUNTERSIGN_SURVEY`.
fn most() -> usize {
    if env::var_os("COUNTERSIGN_SURVEY").is_some() { usize::MAX } else { 1 }
}

fn lines(found: &BTreeMap<u64, String>) -> String {
    found.iter().map(|(seed, broken)| format!("{seed}: {broken}\n")).collect()
}

/// The broken promises of these seeds, up to `most`.
fn search(seeds: Range<u64>, most: usize, fault: Option<PlantedFault>) -> BTreeMap<u64, String> {
    seed_search(seeds, most, fault, |seed| play(seed, false).broken)
}

#[test]
fn every_exchange_keeps_the_promises() {
    let seeds = seeds(RUNS);
    let found = search(seeds.clone(), most(), None);
    if most() > 1 && !found.is_empty() {
        panic!("{} of {} seeds break a promise:\n{}", found.len(), seeds.end - seeds.start, lines(&found));
    }
    if let Some((seed, broken)) = found.first_key_value() {
        let trace = play(*seed, true).trace;
        let shown = if seeds.end - seeds.start == 1 { trace.len() } else { SHOWN };
        let from = trace.len().saturating_sub(shown);
        panic!(
            "seed {seed}: {broken}\n{}\nreplay it with the whole trace: COUNTERSIGN_SEED={seed} cargo test --lib exchanges::every",
            trace[from..].join("\n")
        );
    }
}

#[test]
fn an_exchange_takes_the_same_course_again() {
    for seed in 0..10 {
        let (first, second) = (play(seed, true).trace, play(seed, true).trace);
        let differs = first.iter().zip(&second).position(|(one, other)| one != other);
        if let Some(at) = differs {
            panic!("seed {seed} differs at line {at}:\n{}\n{}", first[at], second[at]);
        }
        assert_eq!(first.len(), second.len());
    }
}

/// Each fault that was mended, put back, is found within so many runs.
fn finds(fault: PlantedFault, runs: u64) {
    let found = search(0..runs, most(), Some(fault));
    assert!(!found.is_empty(), "{fault:?} is not found in {runs} runs");
    assert!(most() == 1, "{fault:?} is found by {} of {runs} runs:\n{}", found.len(), lines(&found));
}

macro_rules! finds {
    ($(fn $name:ident() { $fault:ident in $runs:literal })*) => {
        $(#[test]
        fn $name() {
            finds(PlantedFault::$fault, $runs);
        })*
    };
}

finds! {
    fn an_upload_whose_end_is_taken_on_trust_is_found() { UploadOnTrust in 400 }
    fn an_answer_whose_end_is_taken_on_trust_is_found() { AnswerOnTrust in 400 }
    fn a_cut_refusal_that_counts_is_found() { HalfProof in 400 }
    fn a_token_whose_end_is_looked_at_too_early_is_found() { ExpiresUnseen in 400 }
    fn a_refusal_that_is_looked_at_too_early_is_found() { RefusedUnseen in 400 }
    fn an_answer_that_waits_for_ever_is_found() { EndlessPatience in 400 }
    fn an_upload_that_is_left_behind_is_found() { UploadLeft in 400 }
}
