//! Which faults a run has, and how often.
//!
//! A run has a random few of them: where everything fails at once, most faults hide each other.

use std::cell::Cell;

use super::bank::Fate;
use crate::base::draw::seeded::Generator;

/// Where a search looks closely.
pub(super) type Focus = fn(&mut SimulationPlan);

thread_local! {
    static FOCUS: Cell<Option<Focus>> = const { Cell::new(None) };
}

/// All plans of this thread are bent so from now on.
pub(super) fn focus(on: Option<Focus>) {
    FOCUS.set(on);
}

/// How wrong wall clocks are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Clocks {
    /// Right, to the millisecond.
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
    /// Replicas on one store.
    pub(super) replicas: usize,
    /// Whether the store is like Redis; else like a file, of one replica.
    pub(super) shared: bool,
    /// How many milliseconds faults happen for.
    pub(super) storm: u64,
    /// How long things happen after each other, in milliseconds at most.
    pub(super) pace: u64,
    /// What may become of a call to a bank, and how often something does.
    pub(super) fates: Vec<Fate>,
    pub(super) fate: u64,
    /// Whether the use of a spent refresh token kills the consent.
    pub(super) punishes: bool,
    /// Whether a refresh brings a new refresh token.
    pub(super) rotates: bool,
    /// Whether tokens are refused although they should be good.
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
    /// Whether processes start on machines that have just booted.
    pub(super) fresh_boots: bool,
    pub(super) clocks: Clocks,
}

impl SimulationPlan {
    /// Draws one.
    pub(super) fn draw(dice: &mut Generator) -> Self {
        let mut below = |end: u64| dice.next() % end;
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
