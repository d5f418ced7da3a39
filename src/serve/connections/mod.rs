//! Client connections: acceptance, limits, TLS, HTTP, deadlines and their end.
//!
//! | file | subject |
//! |---|---|
//! | `coalesced_stream` | writes that leave together at the end of a turn of the event loop |
//! | `connection` | the life of an accepted connection |
//! | `connection_context` | the properties of a connection that its requests need |
//! | `connection_limits` | limits per process and per peer |
//! | `opening` | the first bytes of an HTTP/2 connection |
//! | `proxy_protocol` | the PROXY protocol |
//! | `tunnel` | a CONNECT tunnel, whose connection is served like any other |
//! | `watchdog` | deadlines of a connection |

pub(super) mod coalesced_stream;
pub(super) mod connection;
pub(super) mod connection_context;
pub(super) mod connection_limits;
pub(super) mod opening;
pub(super) mod proxy_protocol;
pub(super) mod tunnel;
pub(super) mod watchdog;
