//! TLS towards a provider: always verified, with no switch to turn verification off.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::crypto::aws_lc_rs::kx_group;
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::SingleCertAndKey;
use rustls::version::{TLS12, TLS13};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use x509_parser::parse_x509_certificate;

use super::{Identity, SignerKey, TlsConfigError, certificates, provider};

/// The input for the TLS settings of a provider.
#[derive(Debug, Default)]
pub struct ClientTls<'a> {
    /// The only CA to trust, as PEM; absent: the system's, or the bundled Mozilla list where there is none.
    pub ca: Option<&'a [u8]>,
    /// The client certificate to present; `None`: none is presented.
    pub identity: Option<ClientIdentity>,
    /// True if TLS 1.2 is refused.
    pub only_tls13: bool,
    /// True if HTTP/2 is not offered.
    pub only_http1: bool,
    /// The groups to offer for the key exchange, of [`KEY_EXCHANGES`]; none: the usual ones.
    pub key_exchange: Vec<&'static str>,
}

/// A client certificate with its key.
#[derive(Debug)]
pub enum ClientIdentity {
    /// The key is in memory.
    Local(Identity),
    /// The key stays elsewhere; the chain is in DER, leaf first. Handshakes wait for its signatures, so they belong on
    /// threads that may.
    Remote(Vec<CertificateDer<'static>>, SignerKey),
}

impl ClientIdentity {
    /// Returns whether it can be presented in TLS 1.3.
    fn fits_tls13(&self) -> bool {
        match self {
            ClientIdentity::Local(_) => true,
            ClientIdentity::Remote(_, key) => key.signs_tls13(),
        }
    }
}

/// The groups that can be offered, by their names (RFC 8446 section 4.2.7), the usual ones in their order. The first is
/// a hybrid with ML-KEM, which makes the first message about 1200 bytes longer.
pub const KEY_EXCHANGES: [&str; 5] = ["x25519mlkem768", "x25519", "secp256r1", "secp384r1", "secp256r1mlkem768"];

fn group(name: &str) -> Option<&'static dyn SupportedKxGroup> {
    Some(match name {
        "secp256r1" => kx_group::SECP256R1,
        "secp256r1mlkem768" => kx_group::SECP256R1MLKEM768,
        "secp384r1" => kx_group::SECP384R1,
        "x25519" => kx_group::X25519,
        "x25519mlkem768" => kx_group::X25519MLKEM768,
        _ => return None,
    })
}

/// The settings for one provider's connections. ALPN offers HTTP/2 and HTTP/1.1 (RFC 7301): the
/// provider picks.
pub fn client(wish: ClientTls<'_>) -> Result<Arc<ClientConfig>, TlsConfigError> {
    // Without a signature of TLS 1.3, the certificate could not be presented there.
    let fits_tls13 = wish.identity.as_ref().is_none_or(ClientIdentity::fits_tls13);
    let versions: &[_] = match (wish.only_tls13, fits_tls13) {
        (true, _) => &[&TLS13],
        (false, true) => &[&TLS13, &TLS12],
        (false, false) => &[&TLS12],
    };
    let mut provider = provider();
    if !wish.key_exchange.is_empty() {
        let kx_groups = wish.key_exchange.iter().filter_map(|name| group(name)).collect();
        provider = Arc::new(CryptoProvider { kx_groups, ..CryptoProvider::clone(&provider) });
    }
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)
        .map_err(TlsConfigError::Versions)?;
    let roots = roots(wish.ca)?;
    let builder = match wish.ca {
        None => builder.with_root_certificates(roots),
        Some(pem) => {
            let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
            let inner = inner.map_err(TlsConfigError::CaVerifier)?;
            let verifier = NamedCertificate { named: certificates(pem)?, inner };
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
        }
    };
    let mut config = match wish.identity {
        Some(ClientIdentity::Local(identity)) => {
            builder.with_client_auth_cert(identity.chain, identity.key).map_err(TlsConfigError::ClientCertificate)?
        }
        Some(ClientIdentity::Remote(chain, key)) => {
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key.certified(chain))))
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = if wish.only_http1 { Vec::new() } else { vec![b"h2".to_vec()] };
    config.alpn_protocols.push(b"http/1.1".to_vec());
    Ok(Arc::new(config))
}

/// A verifier that trusts what the CAs vouch for, and a certificate that was named itself: a self-signed certificate
/// that calls itself a CA, as `openssl req -x509` makes it, may not stand at the end of a path (RFC 5280 section 6.1),
/// yet a config that names that very file means it. Its names and dates are checked all the same.
#[derive(Debug)]
struct NamedCertificate {
    named: Vec<CertificateDer<'static>>,
    inner: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for NamedCertificate {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if !self.named.contains(end_entity) {
            return self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        }
        lasts(end_entity, now)?;
        verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// Checks whether a certificate is valid at this time (RFC 5280 section 4.1.2.5).
fn lasts(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), CertificateError> {
    let (_, read) = parse_x509_certificate(certificate).map_err(|_| CertificateError::BadEncoding)?;
    let seconds = |at: i64| UnixTime::since_unix_epoch(std::time::Duration::from_secs(u64::try_from(at).unwrap_or(0)));
    let not_before = seconds(read.validity().not_before.timestamp());
    let not_after = seconds(read.validity().not_after.timestamp());
    if now.as_secs() < not_before.as_secs() {
        return Err(CertificateError::NotValidYetContext { time: now, not_before });
    }
    if now.as_secs() > not_after.as_secs() {
        return Err(CertificateError::ExpiredContext { time: now, not_after });
    }
    Ok(())
}

fn roots(ca: Option<&[u8]>) -> Result<RootCertStore, TlsConfigError> {
    let mut store = RootCertStore::empty();
    if let Some(pem) = ca {
        for certificate in certificates(pem)? {
            store.add(certificate).map_err(TlsConfigError::Ca)?;
        }
        return Ok(store);
    }
    store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if store.is_empty() {
        store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    Ok(store)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, date_time_ymd};

    use super::*;
    use crate::signing::algorithm::SigningAlgorithm;

    fn self_signed(name: &str) -> (String, CertificateDer<'static>) {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        (params.not_before, params.not_after) = (date_time_ymd(2025, 1, 1), date_time_ymd(2026, 1, 1));
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        (certificate.pem(), certificate.der().clone())
    }

    fn verifier(pem: &str) -> NamedCertificate {
        let inner =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots(Some(pem.as_bytes())).unwrap()), provider());
        NamedCertificate { named: certificates(pem.as_bytes()).unwrap(), inner: inner.build().unwrap() }
    }

    #[test]
    fn a_named_certificate_is_trusted_for_its_names_and_while_it_lasts() {
        let (pem, named) = self_signed("uat.bank.example");
        let (_, other) = self_signed("uat.bank.example");
        let verifier = verifier(&pem);
        // 2025-06-01, 2024-12-31, 2026-01-02.
        let (during, before, after) = (1_748_736_000, 1_735_603_200, 1_767_312_000);
        let verify = |certificate: &CertificateDer<'_>, name: &'static str, at: u64| {
            let (name, now) =
                (ServerName::try_from(name).unwrap(), UnixTime::since_unix_epoch(Duration::from_secs(at)));
            verifier.verify_server_cert(certificate, &[], &name, &[], now)
        };
        assert!(verify(&named, "uat.bank.example", during).is_ok());
        let refused = |error: Error, what: &str| assert!(format!("{error:?}").contains(what), "{error:?}");
        refused(verify(&named, "other.example", during).unwrap_err(), "NotValidForName");
        refused(verify(&named, "uat.bank.example", before).unwrap_err(), "NotValidYet");
        refused(verify(&named, "uat.bank.example", after).unwrap_err(), "Expired");
        assert!(verify(&other, "uat.bank.example", during).is_err(), "the same names are not the same certificate");
    }

    #[test]
    fn a_key_without_signatures_of_tls13_is_shown_in_tls12_alone() {
        let key = crate::signing::pkcs::private_key(include_bytes!("../../tests/fixtures/signing/rsa-pkcs8.pem"), None);
        let signer = Arc::new(crate::signing::key::SigningKey::Private(key.unwrap()));
        for (algorithm, has_tls13) in [(SigningAlgorithm::Rs256, false), (SigningAlgorithm::Ps256, true)] {
            let key = SignerKey::new(signer.clone(), vec![algorithm]);
            let identity = Some(ClientIdentity::Remote(vec![self_signed("client").1], key));
            let config = client(ClientTls { identity, ..ClientTls::default() }).unwrap();
            let mut hello = Vec::new();
            let name = ServerName::try_from("bank.example").unwrap();
            rustls::ClientConnection::new(config, name).unwrap().write_tls(&mut hello).unwrap();
            // A hello of TLS 1.3 has a key share of ML-KEM, which makes it long.
            let tls13 = hello.len() > 1000;
            assert_eq!(tls13, has_tls13, "{algorithm}");
        }
    }

    #[test]
    fn what_is_offered_is_what_was_wished_for() {
        let made = |wish| client(wish).unwrap();
        let groups = |config: &ClientConfig| -> Vec<String> {
            config.crypto_provider().kx_groups.iter().map(|group| format!("{:?}", group.name())).collect()
        };
        let usual = made(ClientTls::default());
        assert_eq!(usual.alpn_protocols, [&b"h2"[..], b"http/1.1"]);
        let usual: Vec<String> = groups(&usual).iter().map(|name| name.to_lowercase()).collect();
        assert_eq!(usual, KEY_EXCHANGES[..4]);
        let wished =
            made(ClientTls { only_http1: true, key_exchange: vec!["x25519", "secp256r1"], ..ClientTls::default() });
        assert_eq!(wished.alpn_protocols, [b"http/1.1"]);
        assert_eq!(groups(&wished), ["X25519", "secp256r1"]);
        assert!(KEY_EXCHANGES.iter().all(|name| group(name).is_some()));
    }
}
