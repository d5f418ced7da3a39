//! How we speak to a provider: always verified, never with an off switch.

use std::sync::Arc;

use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore};

use super::{Identity, certificates, provider};

/// What a provider's TLS needs.
#[derive(Debug, Default)]
pub struct ClientTls<'a> {
    /// The only CA to trust, as PEM; absent: the system's, or the bundled Mozilla list where there is none.
    pub ca: Option<&'a [u8]>,
    /// Our client certificate.
    pub identity: Option<Identity>,
    /// Refuse TLS 1.2.
    pub only_tls13: bool,
}

/// The settings for one provider's connections. ALPN offers HTTP/2 and HTTP/1.1 (RFC 7301): the
/// provider picks.
pub fn client(wish: ClientTls<'_>) -> Result<Arc<ClientConfig>, String> {
    let versions: &[_] = if wish.only_tls13 { &[&TLS13] } else { &[&TLS13, &TLS12] };
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .map_err(|_| "no common TLS version".to_owned())?
        .with_root_certificates(roots(wish.ca)?);
    let mut config = match wish.identity {
        Some(identity) => builder
            .with_client_auth_cert(identity.chain, identity.key)
            .map_err(|_| "the client certificate cannot be used".to_owned())?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn roots(ca: Option<&[u8]>) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    if let Some(pem) = ca {
        for certificate in certificates(pem)? {
            store.add(certificate).map_err(|_| "a certificate in it cannot serve as a CA".to_owned())?;
        }
        return Ok(store);
    }
    store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if store.is_empty() {
        store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    Ok(store)
}
