//! All integration tests, in one binary.

mod architecture;
mod client;
mod config;
mod flow;
mod provider;
mod readings;
mod sim;
mod stage;
