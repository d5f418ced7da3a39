//! Inspection of a handshake: the certificates that the peer presents, its request for a client certificate, and the
//! one that we present.
//!
//! A refused certificate must be seen before its refusal can be explained to a person. So there are settings that keep
//! what is presented and then refuse it in every case: the handshake ends before any byte of our own data could follow
//! it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use rustls::client::ResolvesClientCert;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme};

/// The chain that was presented in a handshake, leaf first; empty before, and if none was presented so far.
#[derive(Clone, Debug, Default)]
pub struct PresentedChain(Arc<OnceLock<Vec<CertificateDer<'static>>>>);

impl PresentedChain {
    /// Returns the certificates as they were sent. They are not verified.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        self.0.get().map_or(&[], Vec::as_slice)
    }
}

/// A flag that records a request of the other side for our client certificate.
#[derive(Clone, Debug, Default)]
pub struct Demand(Arc<AtomicBool>);

impl Demand {
    /// Returns whether a certificate was requested in any handshake so far.
    pub fn made(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Derives settings that keep what is presented. No handshake succeeds with them, and our own certificate is never
/// presented.
pub fn onlooker(config: &ClientConfig) -> (Arc<ClientConfig>, PresentedChain) {
    let presented = PresentedChain::default();
    let schemes = schemes(config);
    let mut config = config.clone();
    config.resumption = Resumption::disabled();
    config.client_auth_cert_resolver = Arc::new(NoClientCertificate);
    config.dangerous().set_certificate_verifier(Arc::new(ChainRecorder { presented: presented.clone(), schemes }));
    (Arc::new(config), presented)
}

/// Derives settings, verification included, that also record whether the other side requests our client certificate.
pub fn attentive(config: &ClientConfig) -> (Arc<ClientConfig>, Demand) {
    let demand = Demand::default();
    let mut config = config.clone();
    // A resumed session asks for nothing.
    config.resumption = Resumption::disabled();
    let inner = config.client_auth_cert_resolver.clone();
    config.client_auth_cert_resolver = Arc::new(DemandRecorder { inner, demand: demand.clone() });
    (Arc::new(config), demand)
}

/// Derives settings for inspection without the key shares that make the first message long (hybrids with ML-KEM);
/// `None` if the given settings offer no such hybrids, or nothing else. No handshake succeeds with them, and no
/// certificate of our own is presented.
pub fn short_onlooker(config: &ClientConfig) -> Option<(Arc<ClientConfig>, PresentedChain)> {
    let provider = config.crypto_provider();
    let is_short = |group: &&'static dyn SupportedKxGroup| !format!("{:?}", group.name()).contains("MLKEM");
    let kx_groups: Vec<_> = provider.kx_groups.iter().copied().filter(is_short).collect();
    if kx_groups.is_empty() || kx_groups.len() == provider.kx_groups.len() {
        return None;
    }
    let presented = PresentedChain::default();
    let onlooker = ChainRecorder { presented: presented.clone(), schemes: schemes(config) };
    let provider = CryptoProvider { kx_groups, ..CryptoProvider::clone(provider) };
    let builder = ClientConfig::builder_with_provider(Arc::new(provider)).with_safe_default_protocol_versions().ok()?;
    let mut short = builder
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(onlooker))
        .with_client_cert_resolver(Arc::new(NoClientCertificate));
    short.resumption = Resumption::disabled();
    short.alpn_protocols.clone_from(&config.alpn_protocols);
    Some((Arc::new(short), presented))
}

/// The certificate that we would show with these settings, leaf first; empty: none.
pub fn own_chain(config: &ClientConfig) -> Vec<CertificateDer<'static>> {
    let own = config.client_auth_cert_resolver.resolve(&[], &schemes(config));
    own.map_or(Vec::new(), |own| own.cert.clone())
}

fn schemes(config: &ClientConfig) -> Vec<SignatureScheme> {
    config.crypto_provider().signature_verification_algorithms.supported_schemes()
}

/// Keeps what is presented, and refuses it.
#[derive(Debug)]
struct ChainRecorder {
    presented: PresentedChain,
    schemes: Vec<SignatureScheme>,
}

const REFUSED: Error = Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure);

impl ServerCertVerifier for ChainRecorder {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let chain = std::iter::once(end_entity).chain(intermediates);
        // A second handshake with the same settings presents nothing new.
        let _ = self.presented.0.set(chain.map(|one| one.clone().into_owned()).collect());
        Err(REFUSED)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(REFUSED)
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(REFUSED)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}

/// A resolver that never presents a client certificate.
#[derive(Debug)]
struct NoClientCertificate;

impl ResolvesClientCert for NoClientCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

/// Answers as `inner`, and remembers that it was asked.
#[derive(Debug)]
struct DemandRecorder {
    inner: Arc<dyn ResolvesClientCert>,
    demand: Demand,
}

impl ResolvesClientCert for DemandRecorder {
    fn resolve(&self, hints: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.demand.0.store(true, Ordering::Relaxed);
        self.inner.resolve(hints, schemes)
    }

    fn only_raw_public_keys(&self) -> bool {
        self.inner.only_raw_public_keys()
    }

    fn has_certs(&self) -> bool {
        self.inner.has_certs()
    }
}
