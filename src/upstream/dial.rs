//! From a name to a verified TLS stream.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{AlertDescription, ClientConfig, OtherError};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream};

use super::exchange_error::ExchangeError;
use super::http1::{Http1, Http1Io};
use super::names::NameCache;
use super::proxy::{ForwardProxy, ProxyError};
use super::race::{STAGGER, interleave, race};
use super::socket::{ByteCounter, ProbedStream, set_options};
use crate::base::time::Now;
use crate::signing::signer::SigningError;
use crate::transport::{BlockingThreads, ClientStream};

/// A TLS stream with a verified certificate.
pub(super) type ProviderStream = ClientStream<ProbedStream>;

/// The host, port and TLS settings of a connection, the path to it, and the expected server name.
#[derive(Clone, Debug)]
pub struct Destination {
    /// Host to resolve; no brackets.
    pub host: Arc<str>,
    pub port: u16,
    /// TLS settings; its ALPN names say what we offer to speak.
    pub tls: Arc<ClientConfig>,
    /// The name that its certificate must carry.
    pub server_name: ServerName<'static>,
    /// Proxy, source address and HTTP/1.1 settings.
    pub path: EgressPath,
    /// For DNS, TCP, the proxy and TLS together, and the settings of HTTP/2.
    pub connect_timeout: Duration,
}

/// The path to a provider. The default is a direct connection, from any address.
#[derive(Clone, Debug, Default)]
pub struct EgressPath {
    /// The corporate proxy that leads there.
    pub proxy: Option<Arc<ForwardProxy>>,
    /// The address that connections come from.
    pub source: Option<IpAddr>,
    /// Settings of HTTP/1.1 to the provider.
    pub http1: Http1,
    /// The threads on which handshakes wait for a signature, where the key of the client certificate is in a key service.
    pub signing_threads: Option<BlockingThreads>,
}

/// The reason for which there is no connection. No part of a request was sent.
#[derive(Debug, Error)]
pub enum DialError {
    /// The name does not resolve; the text says why.
    #[error("dns: {0}")]
    Dns(Rc<str>),
    /// TLS is fine, but the provider breaks the protocol that it picked.
    #[error("http: {0}")]
    Http(#[source] ExchangeError),
    /// The corporate proxy gives no tunnel.
    #[error("http_proxy: {0}")]
    Proxy(#[from] ProxyError),
    /// The key service that holds the key of the client certificate did not sign the handshake.
    #[error("client certificate: {0}")]
    Signer(#[source] SigningError),
    /// No connection can be made from the configured source address.
    #[error("source_address: {0}")]
    Source(#[source] io::Error),
    /// The host does not accept the connection, or closes it.
    #[error("tcp: {0}")]
    Tcp(#[source] io::Error),
    /// Not done within the deadline.
    #[error("connect timeout")]
    Timeout,
    /// No TLS that we accept: certificate, version, alert.
    #[error("tls: {}{}", .0, if is_handshake_failure(.0) { NOTHING_SHARED } else { "" })]
    Tls(#[source] io::Error),
}

/// The most frequent cause of the alert `handshake_failure` (RFC 5246 section 7.2.2), for the log.
const NOTHING_SHARED: &str = "; most likely no cipher suite is shared: offered are TLS 1.3, and TLS 1.2 with ECDHE and \
                              AES-GCM or ChaCha20-Poly1305, but neither RSA nor DHE key exchange and no CBC. Else the \
                              provider wants a client certificate, or another `tls.key_exchange`";

/// Returns whether the other side only reports that the handshake has failed, or has selected parameters that are not
/// supported.
fn is_handshake_failure(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(
        inner,
        Some(rustls::Error::AlertReceived(AlertDescription::HandshakeFailure) | rustls::Error::PeerIncompatible(_))
    )
}

/// Returns the reason for which our side of a handshake was not signed, if that is what ended it.
fn unsigned(error: &io::Error) -> Option<SigningError> {
    match error.get_ref()?.downcast_ref()? {
        rustls::Error::Other(OtherError(inner)) => inner.downcast_ref::<SigningError>().cloned(),
        _ => None,
    }
}

impl Destination {
    /// A verified stream without HTTP on it, within the deadline: for what leaves HTTP behind.
    pub async fn stream(&self, now: Now) -> Result<ClientStream<TcpStream>, DialError> {
        match tokio::time::timeout(self.connect_timeout, async { self.shake(self.connect(now).await?, true).await })
            .await
        {
            Ok(stream) => stream,
            Err(_) => Err(DialError::Timeout),
        }
    }

    /// A stream for one exchange over HTTP/1.1 that this is spoken on as the provider wants it.
    pub fn over_http1<S>(&self, stream: S) -> impl AsyncRead + AsyncWrite + Unpin + use<S>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let received = Rc::new(ByteCounter::default());
        received.begin_exchange();
        Http1Io::new(stream, received, &self.path.http1, &self.host)
    }

    /// Resolves, connects and shakes hands; `http2` says whether that is offered. The caller sets the deadline.
    pub(super) async fn dial(&self, now: Now, http2: bool) -> Result<ProviderStream, DialError> {
        #[cfg(test)]
        if let Some(network) = super::simulated::network() {
            let end = network.connect(&self.host).await.map_err(DialError::Tcp)?;
            return self.shake(ProbedStream::simulated(end), http2).await;
        }
        let stream = self.connect(now).await?;
        self.shake(ProbedStream::new(stream), http2).await
    }

    /// A TCP connection, through the proxy if there is one.
    async fn connect(&self, now: Now) -> Result<TcpStream, DialError> {
        let Some(proxy) = &self.path.proxy else {
            return reach(&self.host, self.port, self.path.source, now).await;
        };
        let reached = reach(proxy.host(), proxy.port(), self.path.source, now).await;
        let stream = reached.map_err(|error| match error {
            DialError::Dns(_) | DialError::Tcp(_) => ProxyError::Unreachable(Box::new(error)).into(),
            other => other,
        })?;
        let authority = authority(&self.host, self.port, None);
        Ok(proxy.tunnel(stream, &authority).await?)
    }

    pub(super) async fn shake<S>(&self, stream: S, http2: bool) -> Result<ClientStream<S>, DialError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let alpn = (!http2).then(|| vec![b"http/1.1".to_vec()]);
        let (tls, name) = (self.tls.clone(), self.server_name.clone());
        let shaken = match &self.path.signing_threads {
            None => ClientStream::connect(tls, name, alpn, stream).await,
            Some(threads) => ClientStream::connect_on(threads, tls, name, alpn, stream).await,
        };
        shaken.map_err(|error| match (error.kind(), unsigned(&error)) {
            (_, Some(error)) => DialError::Signer(error),
            (io::ErrorKind::InvalidData, None) => DialError::Tls(error),
            (_, None) => DialError::Tcp(error),
        })
    }
}

/// `host:port` with the brackets that an IPv6 address needs; without the port where it is `default`.
pub(super) fn authority(host: &str, port: u16, default: Option<u16>) -> String {
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    if default == Some(port) { host } else { format!("{host}:{port}") }
}

/// A TCP connection to whichever address of `host` answers first.
pub(super) async fn reach(host: &str, port: u16, source: Option<IpAddr>, now: Now) -> Result<TcpStream, DialError> {
    let found = NameCache::configured().resolve(host, now).await.map_err(DialError::Dns)?;
    let addresses = from_source(interleave(&found), source)?;
    let reached = race(addresses, STAGGER, |address| connect(SocketAddr::new(address, port), source)).await;
    let stream = reached.map_err(|error| match error {
        // The bind is part of connecting; an address that is not ours is not the provider's fault.
        Some(error) if error.kind() == io::ErrorKind::AddrNotAvailable && source.is_some() => DialError::Source(error),
        Some(error) => DialError::Tcp(error),
        None => DialError::Dns("the name has no address".into()),
    })?;
    set_options(&stream).map_err(DialError::Tcp)?;
    Ok(stream)
}

/// The addresses that the source address can reach: those of its family.
fn from_source(addresses: Vec<IpAddr>, source: Option<IpAddr>) -> Result<Vec<IpAddr>, DialError> {
    let Some(source) = source else { return Ok(addresses) };
    let same: Vec<IpAddr> = addresses.into_iter().filter(|address| address.is_ipv4() == source.is_ipv4()).collect();
    if same.is_empty() {
        let family = if source.is_ipv4() { "IPv4" } else { "IPv6" };
        let why = format!("{source} reaches {family} addresses only, and the host has none");
        return Err(DialError::Source(io::Error::new(io::ErrorKind::AddrNotAvailable, why)));
    }
    Ok(same)
}

async fn connect(address: SocketAddr, source: Option<IpAddr>) -> io::Result<TcpStream> {
    let Some(source) = source else { return TcpStream::connect(address).await };
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.bind(SocketAddr::new(source, 0))?;
    socket.connect(address).await
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::upstream::race::tests::converse;

    #[test]
    fn an_authority_has_brackets_and_a_port_where_they_are_needed() {
        assert_eq!(authority("bank.example", 443, Some(443)), "bank.example");
        assert_eq!(authority("bank.example", 443, None), "bank.example:443");
        assert_eq!(authority("::1", 8443, Some(443)), "[::1]:8443");
    }

    #[test]
    fn addresses_of_the_other_family_are_skipped() {
        let both: Vec<IpAddr> = vec!["::1".parse().unwrap(), "10.0.0.1".parse().unwrap()];
        let v4 = "10.0.0.5".parse().ok();
        assert_eq!(from_source(both.clone(), v4).unwrap(), both[1..]);
        assert_eq!(from_source(both.clone(), None).unwrap(), both);
        let error = from_source(both[..1].to_vec(), v4).unwrap_err();
        assert_eq!(error.to_string(), "source_address: 10.0.0.5 reaches IPv4 addresses only, and the host has none");
    }

    #[test]
    fn a_connection_comes_from_its_source_address() {
        converse(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let (now, source) = (Now::at(0, 0), "127.0.0.7".parse().ok());
            let stream = reach("127.0.0.1", port, source, now).await.unwrap();
            let (_, peer) = listener.accept().await.unwrap();
            assert_eq!(peer.ip().to_string(), "127.0.0.7");
            drop(stream);
            // An address of the documentation's own, which no interface has.
            let error = reach("127.0.0.1", port, "192.0.2.1".parse().ok(), now).await.unwrap_err();
            assert!(matches!(error, DialError::Source(_)), "{error}");
        });
    }

    #[test]
    fn a_second_address_serves_where_the_first_is_closed() {
        converse(async {
            let listener = TcpListener::bind("127.0.0.2:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            // No server listens on the same port of the first two addresses.
            let addresses = ["::1", "127.0.0.3", "127.0.0.2"].map(|address| address.parse().unwrap());
            let stream = race(interleave(&addresses), STAGGER, |address| connect(SocketAddr::new(address, port), None));
            assert_eq!(stream.await.unwrap().peer_addr().unwrap().ip().to_string(), "127.0.0.2");
        });
    }
}
