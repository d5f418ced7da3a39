//! All integration tests, in one binary.

mod architecture;
mod client;
mod config;
mod flow;
mod http;
mod provider;
mod sim;
mod stage;
mod teller;
