//! Private keys from files: PEM with PKCS#8, PKCS#1 or SEC1, and PKCS#12 with certificates.

use p12_keystore::{KeyStore, Pkcs12ImportPolicy};
use pkcs8::{EncryptedPrivateKeyInfoRef, PrivateKeyInfoRef};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::{PemObject as _, SectionKind};
use zeroize::Zeroizing;

use super::certificate::CertificateChain;
use super::key::KeyError;
use super::key::PrivateKey;

/// The label of an encrypted key, which the PEM reader skips.
const ENCRYPTED: (&str, &str) = ("-----BEGIN ENCRYPTED PRIVATE KEY-----", "-----END ENCRYPTED PRIVATE KEY-----");
/// The mark of keys that OpenSSL encrypted before PKCS#8.
const OLD: &[u8] = b"Proc-Type: 4,ENCRYPTED";

/// Reads the first private key of a PEM file. A key that is encrypted needs its password.
pub fn private_key(pem: &[u8], password: Option<&[u8]>) -> Result<PrivateKey, KeyError> {
    if pem.windows(OLD.len()).any(|bytes| bytes == OLD) {
        return Err(KeyError::PasswordWrong);
    }
    if let Some(encrypted) = encrypted(pem)? {
        let password = password.ok_or(KeyError::PasswordMissing)?;
        let info = EncryptedPrivateKeyInfoRef::try_from(encrypted.as_slice()).map_err(|_| KeyError::PasswordWrong)?;
        let opened = info.decrypt(password).map_err(|_| KeyError::PasswordWrong)?;
        return from_pkcs8(opened.as_bytes());
    }
    let mut none = KeyError::NoPrivateKey;
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem) {
        let (kind, der) = section.map_err(|_| KeyError::Pem)?;
        let der = Zeroizing::new(der);
        match kind {
            SectionKind::PrivateKey => return from_pkcs8(&der),
            SectionKind::RsaPrivateKey => return PrivateKey::from_rsa_pkcs1(&der),
            SectionKind::EcPrivateKey => return PrivateKey::from_ec_der(&der),
            SectionKind::PublicKey => none = KeyError::Public,
            _ => {}
        }
    }
    Err(none)
}

/// Reads a private key in DER.
pub fn private_key_der(der: &PrivateKeyDer<'_>) -> Result<PrivateKey, KeyError> {
    match der {
        PrivateKeyDer::Pkcs1(der) => PrivateKey::from_rsa_pkcs1(der.secret_pkcs1_der()),
        PrivateKeyDer::Pkcs8(der) => from_pkcs8(der.secret_pkcs8_der()),
        PrivateKeyDer::Sec1(der) => PrivateKey::from_ec_der(der.secret_sec1_der()),
        _ => Err(KeyError::Broken),
    }
}

/// Reads the private key of a PKCS#12 file (`.p12`, `.pfx`) with its certificates, its own certificate first.
pub fn pkcs12(file: &[u8], password: &str) -> Result<(PrivateKey, CertificateChain), KeyError> {
    let store = KeyStore::from_pkcs12(file, password, Pkcs12ImportPolicy::Strict);
    let store = store.map_err(|_| KeyError::PasswordWrong)?;
    let (_, chain) = store.private_key_chain().ok_or(KeyError::NoPrivateKey)?;
    let certificates = chain.certs().iter().map(|certificate| certificate.as_der().to_vec()).collect();
    let certificates = CertificateChain::new(certificates).map_err(|_| KeyError::Broken)?;
    Ok((from_pkcs8(chain.key().as_der())?, certificates))
}

/// Reads a key in PKCS#8 (RFC 5958). A key that is restricted to RSASSA-PSS is read as any RSA key.
fn from_pkcs8(der: &[u8]) -> Result<PrivateKey, KeyError> {
    let info = PrivateKeyInfoRef::try_from(der).map_err(|_| KeyError::Broken)?;
    match info.algorithm.oid.to_string().as_str() {
        "1.2.840.113549.1.1.1" | "1.2.840.113549.1.1.10" => PrivateKey::from_rsa_pkcs1(info.private_key.as_bytes()),
        "1.2.840.10045.2.1" => PrivateKey::from_ec_der(der),
        "1.3.101.112" => PrivateKey::from_ed25519_pkcs8(der),
        _ => Err(KeyError::Broken),
    }
}

/// The bytes of an encrypted key, if the file holds one.
fn encrypted(pem: &[u8]) -> Result<Option<Vec<u8>>, KeyError> {
    let text = String::from_utf8_lossy(pem);
    let Some((_, from)) = text.split_once(ENCRYPTED.0) else { return Ok(None) };
    let (inner, _) = from.split_once(ENCRYPTED.1).ok_or(KeyError::Pem)?;
    let inner: String = inner.split_whitespace().collect();
    super::encoding::TextEncoding::Base64.decode(&inner).map(Some).ok_or(KeyError::Pem)
}
