//! All integration tests, in one binary.

mod architecture;
mod client;
mod clients;
mod config;
mod flow;
mod provider;
mod sim;
mod stage;
