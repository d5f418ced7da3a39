//! What the admin API says, in types of its own: a change inside never changes the API by accident.
//!
//! Every moment is written twice where a person has a use for it: as RFC 3339 in UTC, and as whole seconds from now or
//! until now, so that a reader needs no clock of his own. An absent member is left out, never null. Nothing here can
//! hold a secret: tokens appear as fingerprints, generations and ages.

#![expect(unused_imports, dead_code, reason = "the dashboard and the events are about to use the rest")]

mod consent;
mod event;
mod provider;
mod request;
mod route;
mod status;
mod token;

pub(crate) use consent::{ConsentView, Consents, Revoked, Started};
pub(crate) use event::EventView;
pub(crate) use provider::{FailureView, ProviderView, Providers};
pub(crate) use request::{RequestView, Requests};
pub(crate) use route::{RouteView, Routes, StatusClasses};
pub(crate) use status::{CertificateView, Counts, ListenerView, ReloadView, Status, StoreView};
pub(crate) use token::{Fetches, Purged, TokenView, Tokens};
