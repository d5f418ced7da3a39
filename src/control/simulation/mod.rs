//! A simulation of the whole control plane under faults, in thousands of runs.
//!
//! A run is drawn from its seed: up to three replicas, each with clocks of its own, share a store; banks respond,
//! respond late, send nonsense, or never respond; users give consent and revoke it; clients make calls and report
//! refused tokens. Processes are killed between any two steps, drain and end, start on machines that have just booted,
//! and read other configs. The code under test is the real one: [`Keeper`](super::Keeper),
//! [`Registry`](super::Registry), the upkeep of consents and the handling of news, the modules, the store's front with
//! its envelopes. Simulated are the banks' end of the network ([`network`](mod@network)), the storage behind the
//! store's front, the clocks and the random numbers.
//!
//! Time is tokio's, and stands still while any task can run: so a run of ten minutes takes some milliseconds, and the
//! same seed takes the same course. After each step the promises are checked against the banks' records: the first
//! broken promise ends the run. At the end the faults stop, and anything that still does not work is a finding, too.
//!
//! ```text
//! cargo test --lib simulation                          2,000 runs
//! COUNTERSIGN_SEED=17 cargo test --lib simulation      run 17, with the whole trace
//! COUNTERSIGN_SEEDS=0..1000000 cargo test --release --lib simulation
//! ```

mod bank;
mod client;
mod network;
mod news_lane;
mod panics;
mod plan;
mod process;
mod run;
mod settings;
mod simulation_world;
mod tests;
mod user;

use std::cell::RefCell;
use std::rc::Rc;

pub(super) use network::Network;

thread_local! {
    static NETWORK: RefCell<Option<Rc<Network>>> = const { RefCell::new(None) };
}

tokio::task_local! {
    static UPKEEP: ();
}

/// Marks what this does as done to keep a consent alive: it has rests of its own.
pub(super) fn as_upkeep<T>(task: impl Future<Output = T>) -> impl Future<Output = T> {
    UPKEEP.scope((), task)
}

/// Returns whether the current code runs as upkeep, for which no call waits.
fn is_upkeep() -> bool {
    UPKEEP.try_with(|()| ()).is_ok()
}

/// The simulated network, where this thread runs a simulation.
pub(super) fn network() -> Option<Rc<Network>> {
    NETWORK.with_borrow(Option::clone)
}
