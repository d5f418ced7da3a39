//! Connections to providers: dialled, verified, pooled, and used for one exchange at a time.
//!
//! Each worker has its own [`Endpoint`]s, so nothing here is shared or locked; the control plane dials through
//! [`Destination`] alone. This room knows addresses and certificates; it does not know tokens, routes or banks.

mod dial;
mod endpoint;

pub use dial::{Destination, DialError, TlsStream};
pub use endpoint::{Connection, Endpoint, Sent, Unsent};
