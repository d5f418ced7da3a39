//! TLS on byte streams, for either side: of a client's connection, and of one to a provider.
//!
//! | file | subject |
//! |---|---|
//! | `blocking_threads` | threads on which a handshake waits for a key service |
//! | `client_hello` | the first message of a client, before its settings are chosen |
//! | `tls_stream` | a stream that keeps no buffers while nothing moves |

mod blocking_threads;
mod client_hello;
mod tls_stream;

pub use blocking_threads::BlockingThreads;
pub use client_hello::ClientHello;
pub use tls_stream::{ClientStream, ServerStream};
