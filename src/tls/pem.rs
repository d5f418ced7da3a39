//! PEM as people have it: every file of certificates and keys is read here.
//!
//! A byte order mark, which some editors write, is skipped wherever it stands: files are joined, too. Keys that a bank
//! hands out are often encrypted (PKCS#8, RFC 5958); with their password they are read like others.

use pkcs8::EncryptedPrivateKeyInfoRef;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::base::pem_section::{ENCRYPTED_PRIVATE_KEY, has_old_encryption, pem_section, without_marks};

/// The reason for which a PEM file cannot be used. The parsers' errors quote lines of the file, so they are no sources.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum PemError {
    #[error("not well-formed PEM")]
    Malformed,
    #[error("no certificate in PEM form found")]
    NoCertificate,
    #[error("no private key in PEM form found")]
    NoPrivateKey,
    /// The key is encrypted as OpenSSL did before PKCS#8.
    #[error(
        "the private key is encrypted in an old form that is not read here; `openssl pkcs8 -topk8 -in KEY \
         -out NEW` asks for its password and encrypts it in today's form"
    )]
    OldEncryption,
    #[error(
        "the private key is encrypted, and its password is not given; `openssl pkcs8 -in KEY \
         -out NEW` writes it without encryption"
    )]
    PasswordMissing,
    #[error("the private key cannot be decrypted: its password is wrong")]
    PasswordWrong,
    #[error(
        "the private key is encrypted in a way that is not read here; `openssl pkcs8 -topk8 -v2 aes-256-cbc \
         -in KEY -out NEW` asks for its password and encrypts it in a common one"
    )]
    UnknownEncryption,
}

/// A form in which certificates and keys are handed out that is not read here.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ForeignForm {
    /// One certificate or key in DER (ITU-T X.690).
    Der,
    /// Certificates and a key together, PKCS#12 (RFC 7292).
    Pkcs12,
}

/// Recognises a file that is in another form than PEM.
pub fn foreign_form(bytes: &[u8]) -> Option<ForeignForm> {
    let [0x30, length, rest @ ..] = bytes else { return None };
    // The long form: so many bytes of length follow.
    let behind = rest.get(usize::from(length & 0x7f) * usize::from(length >> 7)..)?;
    match behind {
        [0x02, 0x01, 0x03, ..] => Some(ForeignForm::Pkcs12),
        [0x30 | 0x02, ..] => Some(ForeignForm::Der),
        _ => None,
    }
}

/// All certificates of a PEM file; at least one.
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&without_marks(pem)).collect();
    match read {
        Ok(chain) if chain.is_empty() => Err(PemError::NoCertificate),
        Ok(chain) => Ok(chain),
        Err(_) => Err(PemError::Malformed),
    }
}

/// The first private key of a PEM file (PKCS#8, PKCS#1 or SEC1); one that is encrypted needs its password.
pub(super) fn private_key(pem: &[u8], password: Option<&[u8]>) -> Result<PrivateKeyDer<'static>, PemError> {
    let pem = Zeroizing::new(without_marks(pem).into_owned());
    if has_old_encryption(&pem) {
        return Err(PemError::OldEncryption);
    }
    match (pem_section(&pem, ENCRYPTED_PRIVATE_KEY), password) {
        (Some(key), Some(password)) => decrypt(&key.map_err(|_| PemError::Malformed)?, password),
        (Some(_), None) => Err(PemError::PasswordMissing),
        (None, _) => PrivateKeyDer::from_pem_slice(&pem).map_err(|_| PemError::NoPrivateKey),
    }
}

/// Returns whether a PEM file holds an encrypted PKCS#8 key, the form that a password can open here.
pub fn is_encrypted(pem: &[u8]) -> bool {
    pem_section(&without_marks(pem), ENCRYPTED_PRIVATE_KEY).is_some()
}

fn decrypt(key: &[u8], password: &[u8]) -> Result<PrivateKeyDer<'static>, PemError> {
    let info = EncryptedPrivateKeyInfoRef::try_from(key).map_err(|_| PemError::UnknownEncryption)?;
    if info.encryption_algorithm.pbes2().is_none() {
        return Err(PemError::UnknownEncryption);
    }
    let opened = info.decrypt(password).map_err(|_| PemError::PasswordWrong)?;
    Ok(PrivatePkcs8KeyDer::from(opened.as_bytes().to_vec()).into())
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use pkcs8::EncryptedPrivateKeyInfo;
    use pkcs8::der::Encode as _;
    use pkcs8::der::asn1::OctetStringRef;
    use pkcs8::pkcs5::pbes2::{EncryptionScheme, Kdf, Parameters, Pbkdf2Params, Pbkdf2Prf};
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    const PASSWORD: &[u8] = b"open sesame";

    fn certificate() -> String {
        CertificateParams::default().self_signed(&KeyPair::generate().unwrap()).unwrap().pem()
    }

    /// A key, in the clear and encrypted.
    fn keys(prf: Pbkdf2Prf, encryption: EncryptionScheme) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let kdf = Kdf::Pbkdf2(Pbkdf2Params { prf, ..Pbkdf2Params::hmac_sha256(10, &[7; 8]).unwrap() });
        let parameters = Parameters { kdf, encryption };
        let data = parameters.encrypt(PASSWORD, &key.serialize_der()).unwrap();
        let encrypted_data = OctetStringRef::new(&data).unwrap();
        let info = EncryptedPrivateKeyInfo { encryption_algorithm: parameters.into(), encrypted_data };
        let text = STANDARD.encode(info.to_der().unwrap());
        (
            key.serialize_pem(),
            format!(
                "Bag Attributes\n-----BEGIN {label}-----\n{text}\n-----END {label}-----\n",
                label = ENCRYPTED_PRIVATE_KEY
            ),
        )
    }

    #[test]
    fn byte_order_marks_are_skipped_wherever_files_were_joined() {
        let (one, two) = (certificate(), certificate());
        let joined = format!("\u{feff}{one}\u{feff}{two}");
        assert_eq!(certificates(joined.as_bytes()).unwrap(), certificates(format!("{one}{two}").as_bytes()).unwrap());
        let key = KeyPair::generate().unwrap().serialize_pem();
        assert!(private_key(format!("\u{feff}{key}").as_bytes(), None).is_ok());
    }

    #[test]
    fn an_encrypted_key_is_read_with_its_password_and_named_without() {
        // The schemes that OpenSSL uses today, and those of long ago.
        let today = keys(Pbkdf2Prf::HmacWithSha256, EncryptionScheme::Aes256Cbc { iv: [3; 16] });
        let old = keys(Pbkdf2Prf::HmacWithSha1, EncryptionScheme::DesEde3Cbc { iv: [3; 8] });
        for (plain, key) in [today, old] {
            let plain = private_key(plain.as_bytes(), None).unwrap();
            assert!(is_encrypted(key.as_bytes()));
            assert_eq!(private_key(key.as_bytes(), Some(PASSWORD)).unwrap(), plain);
            assert!(
                private_key(key.as_bytes(), None).unwrap_err().to_string().contains("is encrypted, and its password")
            );
            assert!(private_key(key.as_bytes(), Some(b"wrong")).unwrap_err().to_string().contains("password is wrong"));
            let marked = format!("\u{feff}{}", key.replace('\n', "\r\n"));
            assert_eq!(private_key(marked.as_bytes(), Some(PASSWORD)).unwrap(), plain);
            assert!(private_key(key.replace("MI", "?").as_bytes(), Some(PASSWORD)).is_err());
        }
        let plain = KeyPair::generate().unwrap().serialize_pem();
        assert!(!is_encrypted(plain.as_bytes()) && private_key(plain.as_bytes(), Some(PASSWORD)).is_ok());
        let old = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n";
        assert!(private_key(old.as_bytes(), Some(PASSWORD)).unwrap_err().to_string().contains("old form"));
        assert!(private_key(certificate().as_bytes(), None).unwrap_err().to_string().contains("no private key"));
    }

    #[test]
    fn files_in_other_forms_are_recognised() {
        assert_eq!(foreign_form(b"-----BEGIN CERTIFICATE-----"), None);
        assert_eq!(foreign_form(&[0x30, 0x82, 1, 0, 0x30, 0x82]), Some(ForeignForm::Der), "a certificate");
        assert_eq!(foreign_form(&[0x30, 0x77, 0x02, 0x01, 0x01, 0x04]), Some(ForeignForm::Der), "a key");
        assert_eq!(foreign_form(&[0x30, 0x82, 9, 0, 0x02, 0x01, 0x03, 0x30]), Some(ForeignForm::Pkcs12));
        for bytes in [&b""[..], b"0", b"0\xff", b"0\x82\x01", b"00000000"] {
            let _ = foreign_form(bytes);
        }
    }
}
