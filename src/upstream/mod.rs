//! Connections to providers: dialled, verified, pooled, and lent for one exchange at a time.
//!
//! Each worker has its own [`ConnectionPool`]s, so nothing here is shared or locked; the control plane opens connections of
//! its own, one a question, through [`Destination::ask`]. Both speak HTTP/1.1 or HTTP/2, whichever the provider
//! picks, and both go the same [`EgressPath`]: from a source address, through a corporate proxy. This room knows addresses and
//! certificates; it does not know tokens, routes or banks. Where a client names the place itself, [`tunnel`] asks the guard. It lives on whatever thread dials, and stays on it.
//!
//! From the wire up: [`names`] and [`race`] find an address that answers, [`proxy`] tunnels, [`dial`] shakes hands,
//! [`http1`] lies between TLS and HTTP/1.1, [`connection`] and [`h2_connection`] carry exchanges over HTTP/1.1 and HTTP/2,
//! [`connection_pool`] decides which one is lent.

mod ask;
mod clear;
mod connection;
mod connection_pool;
mod dial;
mod exchange_error;
mod h2_connection;
mod http1;
mod names;
mod origin;
mod proxy;
mod race;
mod received;
mod records;
#[cfg(test)]
pub(crate) mod simulated;
mod socket;
mod trial;
mod tunnel;

pub use ask::{AskError, Unclosed};
pub use clear::Clear;
pub use connection::{Connection, Resend, Sent, Unsent};
pub use connection_pool::{ConnectionPool, NoConnection};
pub use dial::{Destination, DialError, EgressPath};
pub use exchange_error::ExchangeError;
pub use http1::{Http1, Spellings};
pub use proxy::{ForwardProxy, ProxyError};
pub use received::{BodyError, ReceivedBody};
pub use trial::{ConnectTrial, Step, TlsSession};
pub use tunnel::{TunnelError, tunnel};
