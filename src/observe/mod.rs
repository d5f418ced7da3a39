//! What the outside may know of what happened inside: one line per request, counters, the log, the audit log.
//!
//! Nothing in this room is ever handed a secret but the audit log's own key: tokens arrive as fingerprints and
//! generations, paths without queries.
//! Counters are atomics that were resolved before the request came.

pub mod access;
pub mod audit;
mod gather;
mod json_line;
pub mod logging;
pub mod metrics;
pub mod once;
pub mod record;
pub mod sight;
pub mod trace;
