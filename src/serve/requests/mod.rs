//! Requests, from their head to the permission to call a provider, and the endpoints that countersign serves itself.
//!
//! | file | subject |
//! |---|---|
//! | `admit` | form, host and route of a request |
//! | `caller` | the caller of a request |
//! | `connect` | CONNECT |
//! | `consent` | consent endpoints |
//! | `dress` | header fields on their way to the provider |
//! | `foresee` | the outcome of a request without sending it |
//! | `headers` | fields that end at this hop |
//! | `hop_options` | TE, Upgrade and other options for this hop |
//! | `identify` | proofs of identity |
//! | `jwt` | identification by a signed token |
//! | `permit` | permission after all authorisation, and the way to a lease |
//! | `shadow` | a second profile's call, compared and never sent |
//! | `webhook` | calls by a provider, verified for an application |

pub(super) mod admit;
pub(super) mod caller;
pub(super) mod connect;
pub(super) mod consent;
pub(super) mod dress;
pub(super) mod foresee;
pub(super) mod headers;
pub(super) mod hop_options;
pub(super) mod identify;
pub(super) mod jwt;
pub(super) mod permit;
pub(super) mod quota;
pub(super) mod shadow;
pub(super) mod webhook;
