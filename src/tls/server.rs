//! TLS towards the clients of a listener.

use std::sync::Arc;

use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig};

use super::{Identity, Internal, TlsConfigError, certificates, provider};

/// The input for the TLS settings of a listener.
pub struct ServerTls<'a> {
    /// The certificate that the listener presents to clients.
    pub certificate: Certificate,
    /// The CAs whose client certificates are accepted; `None`: no client certificate is requested.
    pub client_ca: Option<ClientCa<'a>>,
    /// True if TLS 1.2 is refused.
    pub only_tls13: bool,
    /// True if HTTP/2 is offered beside HTTP/1.1.
    pub h2: bool,
}

/// The source of a listener's certificate.
pub enum Certificate {
    /// From our own CA, made anew while we run.
    Internal(Arc<Internal>),
    /// A certificate chain and key from files.
    Own(Identity),
}

/// The CAs that are trusted to identify clients.
pub struct ClientCa<'a> {
    /// One or more CA certificates, as PEM.
    pub pem: &'a [u8],
    /// True if a client without a certificate is refused in the handshake.
    pub required: bool,
}

/// Builds the settings of a listener: TLS 1.2 and 1.3, HTTP by ALPN, session tickets.
///
/// A resumed session repeats the client's certificate without checking it again: code that reads it has to check its
/// dates. Tickets never outlive these settings, so another `client_ca` starts from nothing.
pub fn server(wish: ServerTls<'_>) -> Result<Arc<ServerConfig>, TlsConfigError> {
    let versions: &[_] = if wish.only_tls13 { &[&TLS13] } else { &[&TLS13, &TLS12] };
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .map_err(TlsConfigError::Versions)?;
    let builder = match wish.client_ca {
        Some(ca) => builder.with_client_cert_verifier(verifier(&ca)?),
        None => builder.with_no_client_auth(),
    };
    let mut config = match wish.certificate {
        Certificate::Internal(internal) => builder.with_cert_resolver(internal),
        Certificate::Own(identity) => {
            builder.with_single_cert(identity.chain, identity.key).map_err(TlsConfigError::Certificate)?
        }
    };
    config.alpn_protocols = if wish.h2 { vec![b"h2".to_vec()] } else { Vec::new() };
    config.alpn_protocols.push(b"http/1.1".to_vec());
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().map_err(TlsConfigError::Tickets)?;
    Ok(Arc::new(config))
}

fn verifier(ca: &ClientCa<'_>) -> Result<Arc<dyn ClientCertVerifier>, TlsConfigError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca.pem)? {
        roots.add(certificate).map_err(TlsConfigError::Ca)?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
    let builder = if ca.required { builder } else { builder.allow_unauthenticated() };
    builder.build().map_err(TlsConfigError::ClientCa)
}
