//! All integration tests, in one binary.

mod architecture;
mod client;
mod commands;
mod config;
mod flow;
mod provider;
mod sim;
mod stage;
