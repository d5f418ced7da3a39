//! The data plane: from an accepted connection to an answered request.
//!
//! One thread and one single-threaded runtime per worker; nothing is shared between workers but atomics and the
//! snapshot. [`flow`] is the life of a request, readable from top to bottom; the other files are its steps. This room
//! never calls a token endpoint and never writes a log file itself.

mod answer;
mod connection;
pub mod fault;
mod flow;
mod headers;
mod identity;
pub mod page;
mod peek;
mod replay;
mod site;
mod tale;
mod worker;

pub use site::Shared;
pub use worker::{Drain, Socket, Worker};
