//! TLS settings, made from PEM bytes: who we trust, who we are, which versions.
//!
//! Certificates are read by `config/`; this room turns them into `rustls` values once. It does no I/O but reading the
//! system's trust store. The cryptographic provider is always named, never taken from a process-wide default.

mod client;
mod intercept;
mod internal;
mod leaf;
pub mod mint;
mod paper;
mod pem;
mod pin;
mod presented_chain;
mod server;
mod signer_key;
mod tls_config_error;
pub mod trust;
pub mod trust_store;

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

pub use client::{ClientIdentity, ClientTls, KEY_EXCHANGES, client};
pub use intercept::Interception;
pub use internal::{Internal, InternalCa, InternalCaError};
pub use leaf::{CertName, LeafIdentity, is_for_host, leaf};
pub use paper::{Paper, paper};
pub use pem::{ForeignForm, PemError, certificates, foreign_form, is_encrypted};
pub use pin::pinned;
pub use presented_chain::{Demand, PresentedChain, attentive, onlooker, own_chain, short_onlooker};
pub use server::{Certificate, ClientCa, ServerTls, server};
pub use signer_key::{SIGNER_ALGORITHMS, SignerKey};
pub use tls_config_error::TlsConfigError;

/// aws-lc-rs, with post-quantum key exchange preferred.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// A certificate chain with its key.
#[derive(Debug)]
pub struct Identity {
    /// The certificate chain in DER, leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
}

impl Identity {
    /// Reads a PEM chain and a PEM key (PKCS#8, PKCS#1 or SEC1).
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, TlsConfigError> {
        Self::from_encrypted_pem(chain, key, None)
    }

    /// The same; the key may be encrypted under this password.
    pub fn from_encrypted_pem(chain: &[u8], key: &[u8], password: Option<&[u8]>) -> Result<Self, TlsConfigError> {
        Self::matching(certificates(chain)?, pem::private_key(key, password)?)
    }

    /// Takes a chain and a key in PKCS#8 (RFC 5958).
    pub fn from_pkcs8(chain: Vec<CertificateDer<'static>>, key: &[u8]) -> Result<Self, TlsConfigError> {
        Self::matching(chain, PrivatePkcs8KeyDer::from(key.to_vec()).into())
    }

    fn matching(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Self, TlsConfigError> {
        let provider = provider();
        let signer = provider.key_provider.load_private_key(key.clone_key());
        let signer = signer.map_err(TlsConfigError::KeyKind)?;
        let certified = rustls::sign::CertifiedKey::new(chain.clone(), signer);
        match certified.keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(Self { chain, key }),
            Err(error @ rustls::Error::InconsistentKeys(_)) => Err(TlsConfigError::ForeignKey(error)),
            Err(error) => Err(TlsConfigError::Certificate(error)),
        }
    }
}

/// The ends of certificates in DER, in seconds since 1970.
pub fn der_expiries(certificates: &[Vec<u8>]) -> Vec<i64> {
    let certificates = certificates.iter().map(|der| CertificateDer::from(der.as_slice()));
    certificates.filter_map(|certificate| end_of(&certificate)).collect()
}

/// When the first of a PEM file's certificates ends, in seconds since 1970; absent where there is none to read.
pub fn first_expiry(pem: &[u8]) -> Option<i64> {
    expiries(pem).into_iter().min()
}

/// When the last of a PEM file's certificates ends, in seconds since 1970; absent where there is none to read.
pub fn last_expiry(pem: &[u8]) -> Option<i64> {
    expiries(pem).into_iter().max()
}

fn expiries(pem: &[u8]) -> Vec<i64> {
    certificates(pem).iter().flatten().filter_map(end_of).collect()
}

fn end_of(certificate: &CertificateDer<'_>) -> Option<i64> {
    let (_, read) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Some(read.validity().not_after.timestamp())
}
