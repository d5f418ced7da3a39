//! The data plane: from an accepted connection to an answered request.
//!
//! One thread and one single-threaded runtime per worker; workers share only atomics and the snapshot. No code here calls
//! a token endpoint or writes a log file.
//!
//! [`forward`] is the life of a request, readable from top to bottom; the other files are its steps:
//!
//! | file or folder | subject |
//! |---|---|
//! | `worker`, `worker_state`, `current_state` | a thread, the state that it owns, the state in force |
//! | `connections` | acceptance, limits, TLS, HTTP, deadlines |
//! | `forward` | the steps of a request in their order |
//! | `requests` | identification, routing, header fields, consent endpoints, CONNECT |
//! | `exchanges` | bodies, the call to the provider, its replay, the response |
//! | `reports` | access record, metrics, spans, statistics |
//! | `fault` | every error that a client can see |
//! | `modes` | the modes of listeners, as connections and requests see them |
//! | `page` | the page of a forward listener about itself |
//! | `future_size` | a test of sizes |
//! | `simulation` | tests of bad days |

mod connections;
mod current_state;
mod exchanges;
pub mod fault;
mod forward;
#[cfg(test)]
mod future_size;
mod modes;
pub mod page;
mod reports;
mod requests;
#[cfg(test)]
mod simulation;
mod worker;
mod worker_state;

pub use connections::connection_limits::ConnectionLimits;
pub use requests::foresee::{Foreseen, Rejected, SampleRequest, foresee};
pub use worker::{Drain, Listening, ListeningSocket, News, Worker};
pub use worker_state::ProcessState;
