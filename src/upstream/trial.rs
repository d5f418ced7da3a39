//! A connection made step by step, to find out how far it gets.
//!
//! It takes the same path as every other connection, with the same names, the same deadline and the same verification;
//! in addition each step is recorded. No request is sent on it.

use std::net::{IpAddr, SocketAddr};

use rustls::ProtocolVersion;
use rustls::pki_types::CertificateDer;

use super::dial::{Destination, DialError, authority, reach};
use super::names::NameCache;
use crate::base::time::Now;

/// A step of a connection, in their order.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Step {
    /// A name becomes addresses: the provider's, or that of the proxy on the way.
    Dns,
    /// One of the addresses accepts a TCP connection.
    Tcp,
    /// The proxy opens a tunnel.
    Proxy,
    /// A handshake, and a certificate that holds.
    Tls,
}

/// The result of a trial connection.
#[derive(Debug)]
pub struct ConnectTrial {
    /// The step that it came to.
    pub step: Step,
    /// Resolved addresses of the provider, or of the proxy on the way; `None` if the name was not resolved.
    pub addresses: Option<Vec<IpAddr>>,
    /// Address that accepted the TCP connection; `None` before that step.
    pub peer: Option<SocketAddr>,
    /// The TLS session, or the error of `step`.
    pub ended: Result<TlsSession, DialError>,
}

/// The properties of a successful TLS handshake.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TlsSession {
    pub version: Option<ProtocolVersion>,
    /// True if HTTP/2 was negotiated by ALPN.
    pub h2: bool,
    /// The certificates that were presented, leaf first. They hold.
    pub chain: Vec<CertificateDer<'static>>,
}

/// The progress so far: it remains available if the deadline passes in between.
struct TrialProgress {
    step: Step,
    addresses: Option<Vec<IpAddr>>,
    peer: Option<SocketAddr>,
}

impl Destination {
    /// Connects, tells how far that came, and hangs up.
    pub async fn attempt(&self, now: Now) -> ConnectTrial {
        let mut walk = TrialProgress { step: Step::Dns, addresses: None, peer: None };
        let ended = match tokio::time::timeout(self.connect_timeout, self.walk(&mut walk, now)).await {
            Ok(ended) => ended,
            Err(_) => Err(DialError::Timeout),
        };
        let TrialProgress { step, addresses, peer } = walk;
        ConnectTrial { step, addresses, peer, ended }
    }

    async fn walk(&self, walk: &mut TrialProgress, now: Now) -> Result<TlsSession, DialError> {
        let proxy = self.path.proxy.as_ref();
        let (host, port) = proxy.map_or((&*self.host, self.port), |proxy| (proxy.host(), proxy.port()));
        let found = NameCache::configured().resolve(host, now).await.map_err(DialError::Dns)?;
        walk.addresses = Some(found.to_vec());
        walk.step = Step::Tcp;
        let mut stream = reach(host, port, self.path.source, now).await?;
        walk.peer = stream.peer_addr().ok();
        if let Some(proxy) = proxy {
            walk.step = Step::Proxy;
            let authority = authority(&self.host, self.port, None);
            stream = proxy.tunnel(stream, &authority).await?;
        }
        walk.step = Step::Tls;
        let stream = self.shake(stream, true).await?;
        let (_, session) = stream.get_ref();
        Ok(TlsSession {
            version: session.protocol_version(),
            h2: session.alpn_protocol() == Some(b"h2"),
            chain: session.peer_certificates().unwrap_or_default().to_vec(),
        })
    }
}
