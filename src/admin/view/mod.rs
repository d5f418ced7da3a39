//! The view types of the admin API. They are its own, so a change inside never changes the API by accident.
//!
//! Every moment is given twice if a person has a use for it: as RFC 3339 in UTC, and as whole seconds from now or until
//! now, so that a reader needs no clock. An absent member is left out, never null. A view cannot hold a secret: tokens
//! appear as fingerprints, generations and ages.

mod config;
mod consent;
mod event;
mod log_level;
mod provider;
mod request;
mod route;
mod status;
mod token;

pub(crate) use config::*;
pub(crate) use consent::*;
pub(crate) use event::*;
pub(crate) use log_level::*;
pub(crate) use provider::*;
pub(crate) use request::*;
pub(crate) use route::*;
pub(crate) use status::*;
pub(crate) use token::*;
