//! How clients speak to us.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::version::{TLS12, TLS13};

use super::{Identity, provider};

/// The settings of a listener: TLS 1.2 and 1.3, h2 and HTTP/1.1 by ALPN, session tickets.
pub fn server(identity: Identity, only_tls13: bool) -> Result<Arc<ServerConfig>, String> {
    let versions: &[_] = if only_tls13 { &[&TLS13] } else { &[&TLS13, &TLS12] };
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .map_err(|_| "no common TLS version".to_owned())?
        .with_no_client_auth()
        .with_single_cert(identity.chain, identity.key)
        .map_err(|_| "the certificate cannot be used".to_owned())?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().map_err(|_| "no session tickets".to_owned())?;
    Ok(Arc::new(config))
}
