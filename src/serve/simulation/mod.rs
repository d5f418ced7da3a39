//! Bad days of the data plane, by the thousand: clients that break off, banks that do, and tokens that end meanwhile.
//!
//! A run is drawn from its seed: some clients speak HTTP/1.1 or HTTP/2 with the real server code; what they ask for goes
//! through the real flow, the real keeper and the real upstream code, TLS included, to a bank of HTTP/1.1 or HTTP/2. Made up
//! are the wires ([`simulated`](crate::upstream::simulated)), the clock, the dice and both ends: they keep books of what
//! they have sent and seen, and promises are checked against those ([`World`](world::World)):
//!
//! 1. A payment reaches the bank again only if it was certainly not processed before.
//! 2. The bank never takes for whole what a client did not finish.
//! 3. A client never takes for whole what the bank did not finish.
//! 4. No token leaves that has expired, or that is known to be refused.
//! 5. Every request has an end in time.
//! 6. In the end nothing is left: no connection, no exchange, no memory for replays.
//!
//! Time is tokio's and stands still while anything can be done, so a run takes some milliseconds, and the same seed takes
//! the same course. The control plane has a simulator of its own (`control/simulation`).
//!
//! ```text
//! cargo test --lib exchanges                                                 all of it
//! COUNTERSIGN_SEED=17 cargo test --lib exchanges::every                      run 17, with the whole trace
//! COUNTERSIGN_SEEDS=0..100000 cargo test --release --lib exchanges::every    a range
//! ```

mod bank;
mod client;
mod exchanges;
mod lines;
mod message_reader;
mod plan;
mod run;
mod world;
