//! Which seeds are played.

use std::collections::BTreeMap;
use std::env;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::run::play;

/// Runs of an ordinary test run.
const RUNS: Range<u64> = 0..2_000;
/// A trace is shown from here backwards.
const SHOWN: usize = 150;

fn seeds() -> Range<u64> {
    let number = |text: &str| text.trim().parse::<u64>().expect("a seed is a number");
    if let Ok(one) = env::var("COUNTERSIGN_SEED") {
        let one = number(&one);
        return one..one + 1;
    }
    match env::var("COUNTERSIGN_SEEDS") {
        Ok(range) => {
            let (from, to) = range.split_once("..").expect("COUNTERSIGN_SEEDS=FROM..TO");
            number(from)..number(to)
        }
        Err(_) => RUNS,
    }
}

/// The broken promises of these seeds, up to `most`.
fn search(seeds: Range<u64>, most: usize) -> BTreeMap<u64, String> {
    let (next, found, enough) = (AtomicU64::new(seeds.start), Mutex::new(BTreeMap::new()), AtomicBool::new(false));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !enough.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let played = std::panic::catch_unwind(|| play(seed, false).broken);
                    if let Some(broken) = played.unwrap_or_else(|_| Some("the run panicked".to_owned())) {
                        let mut found = found.lock().expect("no run panics while it holds this");
                        found.insert(seed, broken);
                        enough.fetch_or(found.len() >= most, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    found.into_inner().expect("no run panics while it holds this")
}

#[test]
fn every_seed_keeps_the_promises() {
    let seeds = seeds();
    let most = if env::var_os("COUNTERSIGN_SURVEY").is_some() { usize::MAX } else { 1 };
    let found = search(seeds.clone(), most);
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
