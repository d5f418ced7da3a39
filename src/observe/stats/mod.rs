//! Rolling statistics for the dashboard: what went through in the last quarter of an hour.
//!
//! A worker counts each finished request into a [`RequestCounts`] of its own, one per route, and hands over what has gathered
//! a few times a second as a [`StatsBatch`]; the control thread adds the batches up in a [`RequestStats`]. So a request costs a few
//! additions, and neither a lock nor an allocation. Of single requests only a sample is kept ([`RequestSample`]): metadata, never
//! a query, a body or a header's value. Errors are counted by their kind besides ([`ErrorKind`]), so that many equal ones
//! are one line, and keep no other out of the sample.

mod pending_stats;
mod request_counts;
mod request_sample;
mod rolling;

pub use pending_stats::{PendingStats, StatsBatch};
pub use request_counts::{Blame, RequestCounts};
pub use request_sample::{ErrorKind, RequestSample};
pub use rolling::RequestStats;

#[cfg(test)]
pub(crate) use request_sample::tests_record as sample_record;
