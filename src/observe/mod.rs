//! The information on requests that may leave the process: one line per request, counters, the log, the audit log.
//!
//! No secret reaches this module but the audit log's own key: tokens arrive as fingerprints and generations, paths
//! without queries. Counters are atomics that were resolved before the request arrived.

pub mod access;
pub mod audit;
mod gather;
pub mod journal;
mod json_line;
mod log_line;
pub mod log_queue;
pub mod logging;
pub mod metrics;
pub mod once;
#[cfg(feature = "otlp")]
pub mod otlp;
pub mod record;
pub mod stats;
pub mod trace;
pub mod user_agent;
