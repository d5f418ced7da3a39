//! All integration tests, in one binary.

mod architecture;
mod client;
mod clients;
mod commands;
mod config;
mod door;
mod flow;
mod http;
mod mutations;
mod oddbank;
mod provider;
mod real_clients;
mod redis_server;
mod refusals;
mod resilience;
mod secrets;
mod sight;
mod sim;
mod stage;
mod store;
mod teller;
mod tinyproxy;
mod token_endpoint;
mod trust;
mod upstream;
