//! All integration tests, in one binary.

mod architecture;
mod client;
mod clients;
mod commands;
mod config;
mod door;
mod flow;
mod forward;
mod http;
mod mutations;
mod oddbank;
mod provider;
mod real_clients;
mod refusals;
mod resilience;
mod secrets;
mod sight;
mod sim;
mod stage;
mod stored;
mod switch;
mod teller;
mod tinyproxy;
mod token_endpoint;
mod trust;
mod upstream;
