//! The data plane: from an accepted connection to an answered request.
//!
//! One thread and one single-threaded runtime per worker; nothing is shared between workers but atomics and the
//! snapshot. [`forward`] is the life of a request, readable from top to bottom; the other files are its steps. This room
//! never calls a token endpoint and never writes a log file itself.

mod admit;
mod caller;
mod cleared_request;
mod coalesced_stream;
mod connect;
mod connection;
mod connection_context;
mod connection_limits;
mod consent;
mod credential_scanner;
mod current_state;
mod dress;
pub mod fault;
mod foresee;
mod forward;
mod headers;
mod hop_options;
mod identify;
mod jwt;
mod kept;
mod opening;
mod own_response;
mod pace;
pub mod page;
mod peek;
mod proxy_protocol;
mod replay_body;
mod request_log;
mod request_spans;
mod response_body;
#[cfg(test)]
mod simulation;
mod stats_collector;
mod tunnel;
mod upgrade;
mod upstream_call;
mod upstream_response;
mod watchdog;
mod worker;
mod worker_state;

pub use connection_limits::ConnectionLimits;
pub use foresee::{Foreseen, Rejected, SampleRequest, foresee};
pub use worker::{Drain, Listening, ListeningSocket, News, Worker};
pub use worker_state::ProcessState;
