//! The data plane: from an accepted connection to an answered request.
//!
//! One thread and one single-threaded runtime per worker; nothing is shared between workers but atomics and the
//! snapshot. [`flow`] is the life of a request, readable from top to bottom; the other files are its steps. This room
//! never calls a token endpoint and never writes a log file itself.

mod admission;
mod answer;
mod clearance;
mod connect;
mod connection;
mod consent;
mod door;
mod errand;
mod eye;
pub mod fault;
mod flow;
mod foresee;
mod gate;
mod headers;
mod identity;
mod jwt;
mod kept;
mod opening;
mod outbox;
mod pace;
pub mod page;
mod passage;
mod passing;
mod peek;
mod preface;
mod reflection;
mod replay;
#[cfg(test)]
mod simulation;
mod site;
mod tale;
mod trail;
mod tunnel;
mod upgrade;
mod watchdog;
mod worker;
mod world;

pub use foresee::{Foreseen, Rejected, SampleRequest, foresee};
pub use gate::ConnectionLimits;
pub use site::ProcessState;
pub use worker::{Drain, Listening, ListeningSocket, News, Worker};
