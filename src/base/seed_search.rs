//! The search of a simulator for seeds whose run breaks a promise.

use std::collections::BTreeMap;
use std::env;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::planted::{PlantedFault, bed};

/// Reads which seeds are to be played: `COUNTERSIGN_SEED=n`, `COUNTERSIGN_SEEDS=from..to`, or those of an ordinary test run.
pub(crate) fn seeds(ordinary: Range<u64>) -> Range<u64> {
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
        Err(_) => ordinary,
    }
}

/// Returns the broken promises of these seeds, up to `most`, with a fault put back or without. `play` plays a seed and says
/// what was broken. A planted fault is found where nothing is broken without it.
pub(crate) fn seed_search(
    seeds: Range<u64>,
    most: usize,
    fault: Option<PlantedFault>,
    play: impl Fn(u64) -> Option<String> + Sync,
) -> BTreeMap<u64, String> {
    let (next, found, enough) = (AtomicU64::new(seeds.start), Mutex::new(BTreeMap::new()), AtomicBool::new(false));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let broken = |seed, fault| {
        bed::plant(fault);
        let played = catch_unwind(AssertUnwindSafe(|| play(seed)));
        played.unwrap_or_else(|_| Some("the run panicked".to_owned()))
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !enough.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let here = broken(seed, fault);
                    if let Some(what) = here.filter(|_| fault.is_none() || broken(seed, None).is_none()) {
                        let mut found = found.lock().expect("no run panics while it holds this");
                        found.insert(seed, what);
                        enough.fetch_or(found.len() >= most, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    found.into_inner().expect("no run panics while it holds this")
}
