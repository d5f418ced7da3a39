//! TLS inside an intercepted tunnel, which the client believes to lead to its bank.
//!
//! The settings are made once; each tunnel adds the certificate of the host that its CONNECT named. Sessions are
//! resumed for the same server name only, which rustls ensures.

use std::fmt;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};

use super::mint::{Mint, MintAuthority, MintError};
use super::{TlsConfigError, provider};
use crate::base::time::Now;
use crate::signing::signer::SigningError;
use crate::transport::BlockingThreads;

/// The certificates that wait for a signature of the CA at a time.
const MINTING_THREADS: usize = 16;

/// The TLS settings and the mint with which one forward listener intercepts.
pub struct Interception {
    mint: Arc<Mint>,
    base: ServerConfig,
    /// The threads on which signatures are waited for, if the key of the CA is elsewhere.
    threads: Option<BlockingThreads>,
}

/// A resolver that presents the same certificate to every client; `None`: the handshake fails.
#[derive(Debug)]
struct FixedCertificate(Option<Arc<CertifiedKey>>);

impl ResolvesServerCert for FixedCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.clone()
    }
}

impl Interception {
    /// TLS 1.2 and 1.3, h2 and HTTP/1.1 by ALPN, session tickets. Fails only where the machine has no randomness.
    pub fn new(authority: MintAuthority) -> Result<Self, TlsConfigError> {
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(TlsConfigError::Versions)?;
        let mut base = builder.with_no_client_auth().with_cert_resolver(Arc::new(FixedCertificate(None)));
        base.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        base.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().map_err(TlsConfigError::Tickets)?;
        let threads = authority.is_remote().then(|| BlockingThreads::new(MINTING_THREADS));
        Ok(Self { mint: Arc::new(Mint::new(authority)?), base, threads })
    }

    /// The settings for a tunnel to this host (a DNS name, or an address, in brackets or not). A certificate that the
    /// CA signs elsewhere is made beside the event loop.
    pub async fn settings(&self, host: &str, now: Now) -> Result<Arc<ServerConfig>, MintError> {
        let certified = match &self.threads {
            None => self.mint.certified(host, now)?,
            Some(threads) => match self.mint.find(host, now) {
                Some(kept) => kept,
                None => {
                    let (mint, host) = (self.mint.clone(), host.to_owned());
                    let made = threads.run(move || mint.certified(&host, now)).await;
                    made.map_err(|error| MintError::KeyService(SigningError::Unavailable(error.to_string())))??
                }
            },
        };
        let mut settings = self.base.clone();
        settings.cert_resolver = Arc::new(FixedCertificate(Some(certified)));
        Ok(Arc::new(settings))
    }

    /// Settings that end a handshake with an alert: there is no certificate for the name that was asked for.
    pub fn refusal(&self) -> Arc<ServerConfig> {
        Arc::new(self.base.clone())
    }

    /// Returns the CA that signs its certificates.
    pub fn authority(&self) -> &MintAuthority {
        self.mint.authority()
    }
}

impl fmt::Debug for Interception {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Interception").field("mint", &self.mint).finish_non_exhaustive()
    }
}
