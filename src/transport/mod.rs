//! TLS on byte streams, for either side: of a client's connection, and of one to a provider.
//!
//! | file | subject |
//! |---|---|
//! | `client_hello` | the first message of a client, before its settings are chosen |
//! | `tls_stream` | a stream that keeps no buffers while nothing moves |

mod client_hello;
mod tls_stream;

pub use client_hello::ClientHello;
pub use tls_stream::{ClientStream, ServerStream};
