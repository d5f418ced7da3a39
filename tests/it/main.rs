//! All integration tests, in one binary.

mod architecture;
mod client;
mod config;
mod flow;
mod provider;
mod readings;
mod sight;
mod sim;
mod stage;
mod trust;
