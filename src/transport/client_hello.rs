//! The first message of a client, read before it is known with which settings it is answered.

use std::io;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::tls_stream::{ServerStream, invalid};

/// A ClientHello (RFC 8446 section 4.1.2) that was read from a stream.
pub struct ClientHello<S> {
    io: S,
    /// All bytes that were read.
    received: Vec<u8>,
    /// The server name that it asks for (RFC 6066 section 3).
    pub server_name: Option<String>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> ClientHello<S> {
    /// Reads it.
    ///
    /// # Errors
    /// `InvalidData` with a [`rustls::Error`] inside: it is none. `UnexpectedEof`: the stream ended before. All others:
    /// the stream failed.
    pub async fn read(mut io: S) -> io::Result<Self> {
        let (mut acceptor, mut received) = (Acceptor::default(), Vec::with_capacity(1024));
        loop {
            let before = received.len();
            if io.read_buf(&mut received).await? == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "tls handshake eof"));
            }
            let mut unread = received.get(before..).unwrap_or_default();
            while !unread.is_empty() {
                acceptor.read_tls(&mut unread)?;
                match acceptor.accept() {
                    Ok(Some(accepted)) => {
                        let server_name = accepted.client_hello().server_name().map(str::to_owned);
                        return Ok(Self { io, received, server_name });
                    }
                    Ok(None) => {}
                    Err((error, mut alert)) => {
                        let mut sealed = Vec::new();
                        alert.write(&mut sealed)?;
                        // The error that is told is the first one.
                        let _ = io.write_all(&sealed).await.is_ok() && io.flush().await.is_ok();
                        return Err(invalid(error));
                    }
                }
            }
        }
    }

    /// Completes the handshake with these settings.
    ///
    /// # Errors
    /// `InvalidData` with a [`rustls::Error`] inside: the handshake failed. All others: the stream did.
    pub async fn accept(self, config: Arc<ServerConfig>) -> io::Result<ServerStream<S>> {
        ServerStream::accept(config, self.io, self.received).await
    }
}
