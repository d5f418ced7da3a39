//! From a name to a verified TLS stream, within one deadline.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// An established, verified stream.
pub type TlsStream = tokio_rustls::client::TlsStream<TcpStream>;

/// Where to connect, and whom to expect there.
#[derive(Clone, Debug)]
pub struct Destination {
    /// Host to resolve; no brackets.
    pub host: Arc<str>,
    /// TCP port.
    pub port: u16,
    /// TLS settings.
    pub tls: Arc<ClientConfig>,
    /// The name that its certificate must carry.
    pub server_name: ServerName<'static>,
    /// For DNS, TCP and TLS together.
    pub connect_timeout: Duration,
}

/// Why there is no connection. Nothing of a request was sent.
#[derive(Debug)]
pub enum DialError {
    /// The name does not resolve.
    Dns(io::Error),
    /// Nobody answers there, or they hang up.
    Tcp(io::Error),
    /// Not done within the deadline.
    Timeout,
    /// No TLS that we accept: certificate, version, alert.
    Tls(io::Error),
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DialError::Dns(error) => write!(f, "dns: {error}"),
            DialError::Tcp(error) => write!(f, "tcp: {error}"),
            DialError::Timeout => f.write_str("connect timeout"),
            DialError::Tls(error) => write!(f, "tls: {error}"),
        }
    }
}

impl Destination {
    /// Resolves, connects and shakes hands.
    pub async fn dial(&self) -> Result<TlsStream, DialError> {
        match tokio::time::timeout(self.connect_timeout, self.attempt()).await {
            Ok(outcome) => outcome,
            Err(_) => Err(DialError::Timeout),
        }
    }

    async fn attempt(&self) -> Result<TlsStream, DialError> {
        let stream = self.tcp().await?;
        stream.set_nodelay(true).map_err(DialError::Tcp)?;
        let connector = TlsConnector::from(self.tls.clone());
        connector.connect(self.server_name.clone(), stream).await.map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => DialError::Tls(error),
            _ => DialError::Tcp(error),
        })
    }

    /// Tries every address in the resolver's order.
    async fn tcp(&self) -> Result<TcpStream, DialError> {
        let addresses = tokio::net::lookup_host((&*self.host, self.port)).await.map_err(DialError::Dns)?;
        let mut last = None;
        for address in addresses {
            match TcpStream::connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = Some(error),
            }
        }
        Err(match last {
            Some(error) => DialError::Tcp(error),
            None => DialError::Dns(io::Error::new(io::ErrorKind::NotFound, "no address")),
        })
    }
}
