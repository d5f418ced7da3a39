//! Reports about a request: access record, metrics, spans, statistics; and the responses that countersign makes itself.
//!
//! | file | subject |
//! |---|---|
//! | `own_response` | responses made here |
//! | `request_log` | the access line and the counters, written exactly once |
//! | `request_spans` | spans of a traced request |
//! | `stats_collector` | a worker's counts for the dashboard |

pub(super) mod own_response;
pub(super) mod request_log;
pub(super) mod request_spans;
pub(super) mod stats_collector;
