//! All integration tests, in one binary.

mod architecture;
mod client;
mod config;
mod flow;
mod oddbank;
mod provider;
mod sim;
mod stage;
mod tinyproxy;
mod upstream;
