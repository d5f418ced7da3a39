//! Connections to providers: dialled, verified, pooled, and lent for one exchange at a time.
//!
//! Each worker has its own [`ConnectionPool`]s, so nothing here is shared or locked; the control plane opens
//! connections of its own, one per request, through [`Destination::ask`]. Both use HTTP/1.1 or HTTP/2, as the provider
//! selects, and both use the same [`EgressPath`]: from a source address, through a corporate proxy. This module knows
//! addresses and certificates; it does not know tokens, routes or banks. If the client names the destination itself,
//! [`tunnel`] asks the guard. Connections belong to the thread that dials them, and stay on it.
//!
//! From the wire up: [`names`] and [`race`] find an address that responds, [`proxy`] tunnels, [`dial`] performs the
//! handshake, [`h1_client`] and its [`h1_codec`] speak HTTP/1.1 on pooled connections and [`http1`] lies between TLS and
//! hyper on the others, [`connection`] and [`h2_connection`] carry exchanges over HTTP/1.1 and HTTP/2,
//! [`connection_pool`] decides which one is lent.

mod ask;
mod clear;
mod connection;
mod connection_pool;
mod dial;
mod exchange_error;
mod h1_client;
mod h1_codec;
mod h2_connection;
mod http1;
mod names;
mod origin;
mod pooled_ask;
mod proxy;
mod race;
mod received;
mod records;
mod request_head;
#[cfg(test)]
pub(crate) mod simulated;
mod socket;
mod trial;
mod tunnel;

pub use ask::{AnswerTrailers, AskError, Unclosed};
pub use clear::Clear;
pub use connection::{Connection, Resend, Sent};
pub use connection_pool::{ConnectionPool, NoConnection};
pub use dial::{Destination, DialError, EgressPath};
pub use exchange_error::ExchangeError;
pub use h1_codec::content_length;
pub use http1::{Http1, Spellings};
pub use proxy::{ForwardProxy, ProxyError};
pub use received::{BodyError, ReceivedBody};
pub use request_head::RequestHead;
pub use trial::{ConnectTrial, Step, TlsSession};
pub use tunnel::{TunnelError, tunnel};
