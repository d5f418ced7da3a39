//! All integration tests, in one binary.

mod architecture;
mod client;
mod config;
mod door;
mod flow;
mod provider;
mod refusals;
mod secrets;
mod sight;
mod sim;
mod stage;
mod token_endpoint;
