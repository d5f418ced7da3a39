//! A client for the demo: one connection, one request, one answer.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;

use crate::tls::{ClientTls, client};
use crate::upstream::Destination;

/// Sends requests to one address, trusting one CA.
pub struct Courier {
    destination: Destination,
}

impl Courier {
    /// A courier for `localhost` at this address.
    pub fn new(address: SocketAddr, ca_pem: &str) -> Result<Self, String> {
        let tls = client(ClientTls { ca: Some(ca_pem.as_bytes()), ..ClientTls::default() })?;
        let server_name = ServerName::try_from("localhost").map_err(|error| error.to_string())?;
        let connect_timeout = Duration::from_secs(5);
        let host = Arc::from(address.ip().to_string());
        Ok(Self { destination: Destination { host, port: address.port(), tls, server_name, connect_timeout } })
    }

    /// Sends one request and reads its whole answer.
    pub async fn send(&self, request: Request<Full<Bytes>>) -> io::Result<Response<Bytes>> {
        let stream = self.destination.dial().await.map_err(|error| io::Error::other(error.to_string()))?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(io::Error::other)?;
        tokio::task::spawn_local(async move {
            // The exchange below sees the same error.
            let _ = connection.await;
        });
        let (head, body) = sender.send_request(request).await.map_err(io::Error::other)?.into_parts();
        let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
        Ok(Response::from_parts(head, body))
    }
}
