//! The types that all modules share: moments, names, secrets, origins, pauses.
//!
//! No code here does I/O, except that [`time::Clock::System`] reads the machine's clocks; all modules above take a
//! [`time::Now`] as an argument. Lives on any thread.

pub mod backoff;
pub mod calendar;
pub mod coding;
pub mod counted;
pub mod draw;
pub mod http_call;
pub mod id;
pub mod origin;
pub mod pem_section;
pub mod planted;
pub mod resource_usage;
#[cfg(test)]
pub(crate) mod run_trace;
pub mod secret;
#[cfg(test)]
pub(crate) mod seed_search;
pub mod sent_bytes;
pub mod shares;
pub mod time;
pub mod vars;
pub mod working_hours;
