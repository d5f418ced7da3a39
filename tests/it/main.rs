//! All integration tests, in one binary.

mod architecture;
mod client;
mod config;
mod flow;
mod mutations;
mod provider;
mod refusals;
mod resilience;
mod secrets;
mod sim;
mod stage;
mod token_endpoint;
