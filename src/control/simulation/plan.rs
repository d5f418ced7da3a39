//! The faults of a run, and their rates.
//!
//! A run has a random few of them: if everything fails at once, most faults hide each other.

use std::cell::Cell;

use super::bank::Fate;
use crate::base::draw::seeded::Generator;

/// An adjustment of plans, for a search that targets certain faults.
pub(super) type Focus = fn(&mut SimulationPlan);

thread_local! {
    static FOCUS: Cell<Option<Focus>> = const { Cell::new(None) };
}

/// All plans of this thread are bent so from now on.
pub(super) fn focus(on: Option<Focus>) {
    FOCUS.set(on);
}

/// The error of the replicas' wall clocks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Clocks {
    /// All wall clocks are right, to the millisecond.
    Right,
    /// Some seconds, and set at times.
    Seconds,
    /// Some minutes, and set at times.
    Minutes,
    /// One replica is more than a day ahead.
    Day,
}

/// The faults of one run. Rates count in 10,000 times.
#[derive(Clone, Debug)]
pub(super) struct SimulationPlan {
    /// Number of replicas that share the store.
    pub(super) replicas: usize,
    /// True if the store is like Redis; else it is like a file, with one replica.
    pub(super) shared: bool,
    /// Time for which faults happen, in milliseconds.
    pub(super) storm: u64,
    /// Maximum time between two steps, in milliseconds.
    pub(super) pace: u64,
    /// Possible fates of a call to a bank, and the rate of calls that meet one.
    pub(super) fates: Vec<Fate>,
    pub(super) fate: u64,
    /// True if the use of a spent refresh token ends the consent.
    pub(super) punishes: bool,
    /// True if a refresh brings a new refresh token.
    pub(super) rotates: bool,
    /// Calls that are refused although their token should be valid.
    pub(super) refusals: u64,
    /// Tokens that are refused from the beginning.
    pub(super) stillborn: u64,
    /// Tokens that the bank's servers do not know for some seconds.
    pub(super) late: u64,
    /// Operations of the store that are lost on the way there, or back.
    pub(super) losses: u64,
    /// Outages of the link between one replica and the store.
    pub(super) outages: bool,
    /// Outages that begin the moment a bank has answered.
    pub(super) cuts: u64,
    /// Slow operations, and news that come twice or late.
    pub(super) sluggish: u64,
    pub(super) crashes: bool,
    pub(super) drains: bool,
    pub(super) reloads: bool,
    pub(super) revocations: bool,
    /// True if processes may start on machines that have just booted.
    pub(super) fresh_boots: bool,
    pub(super) clocks: Clocks,
}

impl SimulationPlan {
    /// Draws a plan at random, adjusted by this thread's focus if one is set.
    pub(super) fn draw(random: &mut Generator) -> Self {
        let mut below = |end: u64| random.next() % end;
        let shared = below(4) > 0;
        let replicas = if shared { 1 + below(3) as usize } else { 1 };
        let all = Fate::FAULTS;
        let some = 1 + below(4);
        let fates = (0..some).map(|_| all[below(all.len() as u64) as usize]).collect();
        let mut one_of = |rates: &[u64]| rates[below(rates.len() as u64) as usize];
        let mut plan = Self {
            shared,
            replicas,
            storm: one_of(&[50_000, 100_000, 200_000]),
            pace: one_of(&[1_000, 3_000, 8_000]),
            fates,
            fate: one_of(&[0, 300, 1_500, 4_000]),
            punishes: one_of(&[0, 1]) == 1,
            rotates: one_of(&[0, 1, 1, 1]) == 1,
            refusals: one_of(&[0, 0, 300, 1_000]),
            stillborn: one_of(&[0, 0, 0, 2_000]),
            late: one_of(&[0, 0, 0, 3_000]),
            losses: one_of(&[0, 0, 20, 200]),
            outages: one_of(&[0, 0, 1]) == 1,
            cuts: one_of(&[0, 500, 1_500]),
            sluggish: one_of(&[0, 100, 1_000]),
            crashes: one_of(&[0, 0, 1]) == 1,
            drains: one_of(&[0, 0, 1]) == 1,
            reloads: one_of(&[0, 0, 1]) == 1,
            revocations: one_of(&[0, 1]) == 1,
            fresh_boots: one_of(&[0, 1]) == 1,
            clocks: match one_of(&[0, 0, 0, 0, 1, 2, 3]) {
                0 => Clocks::Right,
                1 => Clocks::Seconds,
                2 => Clocks::Minutes,
                _ => Clocks::Day,
            },
        };
        if let Some(focus) = FOCUS.get() {
            focus(&mut plan);
        }
        plan
    }
}
