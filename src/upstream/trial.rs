//! A connection made step by step, for somebody who wants to know how far it comes.
//!
//! It goes the very way of every other connection, with the same names, the same deadline and the same verification;
//! only that each step is told. Nothing is sent on it.

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
    /// One of them answers.
    Tcp,
    /// The proxy opens a tunnel.
    Proxy,
    /// A handshake, and a certificate that holds.
    Tls,
}

/// How far a connection came.
#[derive(Debug)]
pub struct ConnectTrial {
    /// The step that it came to.
    pub step: Step,
    /// What the name of whom we connect to stands for; absent: not even that is known.
    pub addresses: Option<Vec<IpAddr>>,
    /// Who answered.
    pub peer: Option<SocketAddr>,
    /// What came of it. The error is that of `step`.
    pub ended: Result<TlsSession, DialError>,
}

/// A handshake that succeeded.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TlsSession {
    /// The TLS version.
    pub version: Option<ProtocolVersion>,
    /// Whether HTTP/2 would be spoken.
    pub h2: bool,
    /// The certificates that were presented, leaf first. They hold.
    pub chain: Vec<CertificateDer<'static>>,
}

/// How far it came up to now: it outlives a deadline that strikes in between.
struct Walk {
    step: Step,
    addresses: Option<Vec<IpAddr>>,
    peer: Option<SocketAddr>,
}

impl Destination {
    /// Connects, tells how far that came, and hangs up.
    pub async fn attempt(&self, now: Now) -> ConnectTrial {
        let mut walk = Walk { step: Step::Dns, addresses: None, peer: None };
        let ended = match tokio::time::timeout(self.connect_timeout, self.walk(&mut walk, now)).await {
            Ok(ended) => ended,
            Err(_) => Err(DialError::Timeout),
        };
        let Walk { step, addresses, peer } = walk;
        ConnectTrial { step, addresses, peer, ended }
    }

    async fn walk(&self, walk: &mut Walk, now: Now) -> Result<TlsSession, DialError> {
        let proxy = self.way.proxy.as_ref();
        let (host, port) = proxy.map_or((&*self.host, self.port), |proxy| (proxy.host(), proxy.port()));
        let found = NameCache::configured().resolve(host, now).await.map_err(DialError::Dns)?;
        walk.addresses = Some(found.to_vec());
        walk.step = Step::Tcp;
        let mut stream = reach(host, port, self.way.source, now).await?;
        walk.peer = stream.peer_addr().ok();
        if let Some(proxy) = proxy {
            walk.step = Step::Proxy;
            let authority = authority(&self.host, self.port, None);
            stream = proxy.tunnel(stream, &authority).await.map_err(DialError::Proxy)?;
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
