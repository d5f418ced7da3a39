//! A client for the demo: one connection, one request, one answer.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use rustls::pki_types::ServerName;

use crate::base::time::Clock;
use crate::tls::{ClientTls, client};
use crate::upstream::{Destination, EgressPath, RequestHead, Sent};

/// Sends requests to one address, trusting one CA.
pub struct DemoClient {
    destination: Destination,
}

impl DemoClient {
    /// A courier for `localhost` at this address.
    pub fn new(address: SocketAddr, ca_pem: &str) -> Result<Self, String> {
        let tls = client(ClientTls { ca: Some(ca_pem.as_bytes()), ..ClientTls::default() })
            .map_err(|error| error.to_string())?;
        let server_name = ServerName::try_from("localhost").map_err(|error| error.to_string())?;
        let connect_timeout = Duration::from_secs(5);
        let host = Arc::from(address.ip().to_string());
        let way = EgressPath::default();
        Ok(Self {
            destination: Destination { host, port: address.port(), tls, server_name, path: way, connect_timeout },
        })
    }

    /// Sends one request and reads its whole answer.
    pub async fn send(&self, request: Request<Full<Bytes>>) -> io::Result<Response<Bytes>> {
        let opened = self.destination.open(Clock::System.now()).await;
        let mut connection = opened.map_err(|error| io::Error::other(error.to_string()))?;
        let (head, body) = request.into_parts();
        let (head, body) = match connection.send(RequestHead::of(&head), body).await {
            Sent::Answered(response) => response.into_parts(),
            Sent::Broken { error, .. } | Sent::Refused(error) => return Err(io::Error::other(error)),
            Sent::Unsent(_) => return Err(io::ErrorKind::ConnectionAborted.into()),
        };
        let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
        connection.close();
        Ok(Response::from_parts(head, body))
    }
}
