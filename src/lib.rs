//! countersign: the egress proxy that signs an application's calls to bank APIs.
//!
//! Rooms, from the top floor down; a room knows only the floors below it:
//!
//! - [`cli`]: one file per command; `cli::boot` puts the rooms together
//! - [`serve`] the data plane · [`admin`] the operator's door · [`sim`] the simulated banks
//! - [`control`]: the tokens' keeper, on its own thread
//! - [`config`]: from `proxy.toml` to an immutable snapshot
//! - [`provider`] auth modules as data · [`tls`] · [`upstream`] connections to banks
//! - [`route`] who may call what · [`token`] a token's life · [`observe`] logs and metrics
//! - [`base`] words · [`syntax`] TOML with diagnostics
//!
//! `docs/architecture.md` tells the life of a request through them.

pub mod admin;
pub mod base;
pub mod cli;
pub mod config;
pub mod control;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod observe;
pub mod provider;
pub mod route;
pub mod serve;
pub mod sim;
pub mod store;
pub mod syntax;
pub mod tls;
pub mod token;
pub mod upstream;
