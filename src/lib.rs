//! countersign: the egress proxy that signs an application's calls to bank APIs.
//!
//! Modules by layer, from the top; a module imports from lower layers only:
//!
//! - [`cli`]: one file per command
//! - [`app`]: the running process: start, reload, hand-over, end
//! - [`serve`] data plane · [`admin`] admin listener, API and dashboard · [`sim`] bank simulators
//! - [`control`]: the token keeper and users' consents, on the control thread
//! - [`config`]: from `proxy.toml` to an immutable snapshot · [`learn`]: from examples of a bank's calls to a profile
//! - [`provider`] auth modules as data · [`store`] tokens at rest · [`tls`] · [`upstream`] connections to providers ·
//!   [`secret_source`] servers that keep secrets
//! - [`route`] routing and permission · [`token`] the life of a token · [`signing`] keys and signatures · [`observe`]
//!   logs, metrics, traces, audit log
//! - [`base`] shared types · [`syntax`] TOML with diagnostics
//!
//! `docs/architecture.md` follows a request through them.

pub mod admin;
pub mod app;
pub mod base;
pub mod cli;
pub mod config;
pub mod control;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod key_service;
pub mod learn;
pub mod observe;
pub mod provider;
pub mod record;
pub mod route;
pub mod secret_source;
pub mod serve;
pub mod signing;
pub mod sim;
pub mod store;
pub mod syntax;
pub mod tls;
pub mod token;
pub mod transport;
pub mod upstream;
