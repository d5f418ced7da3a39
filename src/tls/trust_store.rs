//! Files by which clients come to trust the interception CA: PEM bundles and PKCS#12 trust stores.
//!
//! Most clients take one file *instead of* the public roots (`REQUESTS_CA_BUNDLE`, Java's `trustStore`), so a useful
//! file holds both. The public roots are the system's own, whole certificates; the list that is built into this
//! program has names and keys only and cannot be written out.

use std::collections::HashSet;

use p12_keystore::{Certificate, EncryptionAlgorithm, KeyStore, KeyStoreEntry, MacAlgorithm};
use rustls::pki_types::CertificateDer;
use thiserror::Error;

use crate::base::pem_section::{CERTIFICATE, pem_text};

/// The password of the trust stores that we write. It protects nothing: everything in them is public.
pub const STORE_PASSWORD: &str = "changeit";

/// The encryption and MAC of a PKCS#12 trust store. The contents are public with both variants; the variants differ in
/// the readers that support them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Wrapping {
    /// PBES2 with AES-256 and HMAC-SHA-256: Java 8u301 and later, OpenSSL 3.
    Aes256,
    /// PBES1 with three-key triple DES and HMAC-SHA-1: every Java since 8.
    TripleDes,
}

/// The reason for which there is no PKCS#12 trust store.
#[derive(Debug, Error)]
pub enum TrustStoreError {
    #[error("the CA cannot be written as PKCS#12: {0}")]
    Ca(#[source] p12_keystore::error::Error),
    #[error("the trust store cannot be written: {0}")]
    Write(#[source] p12_keystore::error::Error),
}

/// The public roots that this system trusts (`SSL_CERT_FILE` and `SSL_CERT_DIR` count); empty where there are none.
pub fn public_roots() -> Vec<CertificateDer<'static>> {
    rustls_native_certs::load_native_certs().certs
}

/// Certificates as PEM, each once, in order.
pub fn pem<'a>(certificates: impl IntoIterator<Item = &'a CertificateDer<'static>>) -> String {
    let mut seen = HashSet::new();
    let mut text = String::new();
    for certificate in certificates {
        if !seen.insert(certificate.as_ref()) {
            continue;
        }
        text.push_str(&pem_text(CERTIFICATE, certificate));
    }
    text
}

/// A PKCS#12 trust store with our CA under the alias `countersign` and the others beside it. A public root that is
/// not strictly well-formed is left out. Fails where our own is not.
pub fn trust_store(
    ca: &CertificateDer<'static>,
    others: &[CertificateDer<'static>],
    wrapping: Wrapping,
) -> Result<Vec<u8>, TrustStoreError> {
    let mut store = KeyStore::new();
    let own = Certificate::from_der(ca).map_err(TrustStoreError::Ca)?;
    store.add_entry("countersign", KeyStoreEntry::Certificate(own));
    for (number, certificate) in others.iter().enumerate().filter(|(_, certificate)| *certificate != ca) {
        if let Ok(root) = Certificate::from_der(certificate) {
            store.add_entry(&format!("public-{number:03}"), KeyStoreEntry::Certificate(root));
        }
    }
    let (encryption, mac) = match wrapping {
        Wrapping::Aes256 => (EncryptionAlgorithm::PbeWithHmacSha256AndAes256, MacAlgorithm::HmacSha256),
        Wrapping::TripleDes => (EncryptionAlgorithm::PbeWithShaAnd3KeyTripleDesCbc, MacAlgorithm::HmacSha1),
    };
    let writer = store.writer(STORE_PASSWORD).encryption_algorithm(encryption).mac_algorithm(mac);
    // The password is public, so there is nothing to slow down; Java's own store of roots does the same.
    let writer = writer.encryption_iterations(2048).mac_iterations(2048);
    writer.write().map_err(TrustStoreError::Write)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::Now;
    use crate::tls::certificates;
    use crate::tls::mint::{Constraints, KeyKind, MintAuthority};

    fn ca() -> CertificateDer<'static> {
        let now = Now::at(0, 1_790_000_000_000);
        let (authority, ..) = MintAuthority::new(KeyKind::EcdsaP256, &Constraints::NONE, now, 1).expect("a CA");
        authority.chain()[0].clone()
    }

    #[test]
    fn a_bundle_reads_back_and_holds_each_certificate_once() {
        let (first, second) = (ca(), ca());
        let text = pem([&first, &second, &first]);
        assert_eq!(certificates(text.as_bytes()).expect("PEM"), vec![first, second]);
        assert!(text.lines().all(|line| line.len() <= 64));
    }

    #[test]
    fn a_trust_store_reads_back_in_both_wrappings() {
        let (own, other) = (ca(), ca());
        for wrapping in [Wrapping::Aes256, Wrapping::TripleDes] {
            let bytes = trust_store(&own, &[other.clone(), own.clone()], wrapping).expect("a store");
            let policy = p12_keystore::Pkcs12ImportPolicy::Strict;
            let store = KeyStore::from_pkcs12(&bytes, STORE_PASSWORD, policy).expect("readable");
            assert_eq!(store.entries_len(), 2);
            let Some(KeyStoreEntry::Certificate(read)) = store.entry("countersign") else {
                panic!("our CA is missing")
            };
            assert_eq!(read.as_der(), own.as_ref());
        }
    }
}
