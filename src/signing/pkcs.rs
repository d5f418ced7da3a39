//! Private keys in the forms of PKCS and OpenSSL: PEM with PKCS#8, PKCS#1 or SEC1, and PKCS#12 with certificates.

use p12_keystore::{KeyStore, Pkcs12ImportPolicy};
use pkcs8::{EncryptedPrivateKeyInfoRef, PrivateKeyInfoRef};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::{PemObject as _, SectionKind};
use zeroize::Zeroizing;

use super::certificate::CertificateChain;
use super::key::KeyError;
use super::key::PrivateKey;
use crate::base::pem_section::{ENCRYPTED_PRIVATE_KEY, has_old_encryption, pem_section, without_marks};

/// Reads the first private key of a PEM file. A key that is encrypted needs its password.
pub fn private_key(pem: &[u8], password: Option<&[u8]>) -> Result<PrivateKey, KeyError> {
    let pem = &*Zeroizing::new(without_marks(pem).into_owned());
    if has_old_encryption(pem) {
        return Err(KeyError::OldEncryption);
    }
    if let Some(encrypted) = section(pem, ENCRYPTED_PRIVATE_KEY)? {
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
    let (key, certificates) = pkcs12_parts(file, password)?;
    let certificates = CertificateChain::new(certificates).map_err(|_| KeyError::Broken)?;
    Ok((from_pkcs8(&key)?, certificates))
}

/// A private key in PKCS#8, and its certificates in DER, its own first.
pub type Pkcs12Parts = (Zeroizing<Vec<u8>>, Vec<Vec<u8>>);

/// Opens a PKCS#12 file.
pub fn pkcs12_parts(file: &[u8], password: &str) -> Result<Pkcs12Parts, KeyError> {
    let store = KeyStore::from_pkcs12(file, password, Pkcs12ImportPolicy::Strict);
    let store = store.map_err(|_| KeyError::PasswordWrong)?;
    let (_, chain) = store.private_key_chain().ok_or(KeyError::NoPrivateKey)?;
    let certificates = chain.certs().iter().map(|certificate| certificate.as_der().to_vec()).collect();
    Ok((Zeroizing::new(chain.key().as_der().to_vec()), certificates))
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

/// The bytes of the first section with this label; `None`: there is none.
pub(super) fn section(pem: &[u8], label: &str) -> Result<Option<Zeroizing<Vec<u8>>>, KeyError> {
    pem_section(pem, label).transpose().map_err(|_| KeyError::Pem)
}

#[cfg(test)]
mod tests {
    use super::super::algorithm::KeyType;
    use super::super::public_key::PublicKey;
    use super::*;

    const PASSWORD: Option<&[u8]> = Some(b"open sesame");

    #[test]
    fn every_form_of_openssl_is_read() {
        let rsa = private_key(include_bytes!("../../tests/fixtures/signing/rsa-pkcs8.pem"), None).unwrap();
        assert_eq!(rsa.key_type(), KeyType::Rsa);
        let pkcs1 = private_key(include_bytes!("../../tests/fixtures/signing/rsa-pkcs1.pem"), None).unwrap();
        let opened = include_bytes!("../../tests/fixtures/signing/rsa-encrypted.pem");
        let opened = private_key(opened, PASSWORD).unwrap();
        assert!(pkcs1.public() == rsa.public() && opened.public() == rsa.public());
        let pss = private_key(include_bytes!("../../tests/fixtures/signing/rsa-pss-pkcs8.pem"), None).unwrap();
        let pss_public =
            PublicKey::from_pem(include_bytes!("../../tests/fixtures/signing/rsa-pss-public.pem")).unwrap();
        assert_eq!((pss.key_type(), pss.public()), (KeyType::Rsa, &pss_public));
        for pem in [
            &include_bytes!("../../tests/fixtures/signing/rsa-public.pem")[..],
            include_bytes!("../../tests/fixtures/signing/rsa-public-pkcs1.pem"),
            include_bytes!("../../tests/fixtures/signing/certificate.pem"),
        ] {
            assert_eq!(PublicKey::from_pem(pem).as_ref(), Ok(rsa.public()));
        }
        let p384 = private_key(include_bytes!("../../tests/fixtures/signing/p384-pkcs8.pem"), None).unwrap();
        let sec1 = private_key(include_bytes!("../../tests/fixtures/signing/p384-sec1.pem"), None).unwrap();
        assert_eq!((p384.key_type(), sec1.public()), (KeyType::P384, p384.public()));
        let marked = format!("\u{feff}{}", include_str!("../../tests/fixtures/signing/p384-sec1.pem"));
        assert!(private_key(marked.as_bytes(), None).is_ok());
        let p256 = private_key(include_bytes!("../../tests/fixtures/signing/p256-sec1.pem"), None).unwrap();
        assert_eq!(p256.key_type(), KeyType::P256);
    }

    #[test]
    fn pkcs12_brings_its_certificates_the_keys_own_first() {
        let file = include_bytes!("../../tests/fixtures/signing/key.p12");
        let (key, chain) = pkcs12(file, "open sesame").unwrap();
        assert_eq!(chain.public_key().as_ref(), Ok(key.public()));
        assert_eq!(chain.psd2_key_id(), "SN=9FA1,CA=CN=D-TRUST CA 2-1 2015,O=D-Trust GmbH,C=DE");
        assert_eq!(chain.x5c().len(), 2);
        let alone = CertificateChain::from_pem(include_bytes!("../../tests/fixtures/signing/certificate.pem")).unwrap();
        assert_eq!(alone.own(), chain.own());
        assert_eq!(pkcs12(file, "wrong").unwrap_err(), KeyError::PasswordWrong);
    }

    #[test]
    fn keys_that_cannot_sign_are_told_apart() {
        let read = |pem: &[u8], password| private_key(pem, password).unwrap_err();
        let encrypted = include_bytes!("../../tests/fixtures/signing/rsa-encrypted.pem");
        assert_eq!(read(encrypted, None), KeyError::PasswordMissing);
        assert_eq!(read(encrypted, Some(b"wrong")), KeyError::PasswordWrong);
        let old = include_bytes!("../../tests/fixtures/signing/rsa-old-encryption.pem");
        assert_eq!(read(old, PASSWORD), KeyError::OldEncryption);
        assert_eq!(read(include_bytes!("../../tests/fixtures/signing/rsa-1024.pem"), None), KeyError::Short);
        assert_eq!(read(include_bytes!("../../tests/fixtures/signing/p521-pkcs8.pem"), None), KeyError::Curve);
        assert_eq!(read(include_bytes!("../../tests/fixtures/signing/rsa-public.pem"), None), KeyError::Public);
        let certificate = include_bytes!("../../tests/fixtures/signing/certificate.pem");
        assert_eq!(read(certificate, None), KeyError::NoPrivateKey);
        let broken = b"-----BEGIN PRIVATE KEY-----\n?\n-----END PRIVATE KEY-----\n";
        assert_eq!(read(broken, None), KeyError::Pem);
    }
}
