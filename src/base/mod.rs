//! Words that every room speaks: moments, names, secrets, origins, pauses.
//!
//! Nothing here does I/O, except that [`time::Clock::System`] reads the machine's clocks; everything above takes a
//! [`time::Now`] as an argument. Lives on any thread.

pub mod backoff;
pub mod coding;
pub mod draw;
pub mod id;
pub mod origin;
pub mod planted;
pub mod secret;
#[cfg(test)]
pub(crate) mod seed_search;
pub mod shares;
pub mod time;
pub mod vars;
