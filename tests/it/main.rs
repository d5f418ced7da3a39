//! All integration tests, in one binary.

mod architecture;
mod client;
mod clients;
mod commands;
mod config;
mod door;
mod flow;
mod oddbank;
mod provider;
mod refusals;
mod secrets;
mod sight;
mod sim;
mod stage;
mod tinyproxy;
mod token_endpoint;
mod upstream;
