//! Bad days, by the thousand: the whole control plane in a world that is made of faults.
//!
//! A run is drawn from its seed: up to three replicas, each with clocks of its own, share a store; banks answer, or late,
//! or nonsense, or never; users consent and take it back; clients call, and report what was refused. Processes are killed
//! between any two steps, end politely, start on machines that have just booted, and read other configs. The code under
//! test is the real one: [`Keeper`](super::Keeper), [`Registry`](super::Registry), what keeps consents alive and follows
//! news, the modules, the store's front with its envelopes. Made up are the banks' end of the network
//! ([`network`](super::wire)), the place behind the store's front, the clocks and the dice.
//!
//! Time is tokio's, and stands still while anything can be done: so a run of ten minutes takes some milliseconds, and the
//! same seed takes the same course. After each step the promises are checked, by what the banks know: what is broken first
//! ends the run. In the end the faults stop, and whatever is still not well is a finding, too.
//!
//! ```text
//! cargo test --lib simulation                          800 runs
//! COUNTERSIGN_SEED=17 cargo test --lib simulation      run 17, with the whole trace
//! COUNTERSIGN_SEEDS=0..1000000 cargo test --release --lib simulation
//! ```

mod bank;
mod client;
mod link;
mod network;
mod panics;
mod plan;
mod process;
mod run;
mod settings;
mod tests;
mod user;
mod world;

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

/// Whether no call waits for what runs now.
fn is_upkeep() -> bool {
    UPKEEP.try_with(|()| ()).is_ok()
}

/// The simulated network, where this thread runs a simulation.
pub(super) fn network() -> Option<Rc<Network>> {
    NETWORK.with_borrow(Option::clone)
}
