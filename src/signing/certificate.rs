//! Statements of a signature about its certificate: `x5c`, thumbprints, and the key identifier of PSD2.

use std::fmt::Write as _;

use aws_lc_rs::digest;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use thiserror::Error;
use x509_parser::asn1_rs::ToDer as _;
use x509_parser::certificate::X509Certificate;
use x509_parser::objects::{oid_registry, oid2abbrev};
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

use super::encoding::base64;
use super::encoding::base64url;
use super::key::KeyError;
use super::public_key::PublicKey;
use crate::base::secret::hex;
use crate::base::secret::sha256;

/// The reason for which certificates cannot be used.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum CertificateError {
    #[error("no certificate found")]
    None,
    #[error("a certificate that cannot be read")]
    Broken,
}

/// A certificate with those of its issuers, its own first; at least one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CertificateChain(Vec<Vec<u8>>);

impl CertificateChain {
    /// A chain of certificates in DER, the signer's own first.
    pub fn new(chain: Vec<Vec<u8>>) -> Result<Self, CertificateError> {
        if chain.is_empty() {
            return Err(CertificateError::None);
        }
        let readable = |der: &Vec<u8>| x509_parser::parse_x509_certificate(der).is_ok_and(|(rest, _)| rest.is_empty());
        if chain.iter().all(readable) { Ok(Self(chain)) } else { Err(CertificateError::Broken) }
    }

    /// Reads the certificates of a PEM file.
    pub fn from_pem(pem: &[u8]) -> Result<Self, CertificateError> {
        let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        Self::new(read.map_err(|_| CertificateError::Broken)?.into_iter().map(|der| der.to_vec()).collect())
    }

    /// Returns the signer's own certificate in DER.
    pub fn own(&self) -> &[u8] {
        &self.0[0]
    }

    /// Returns the public key of the signer's own certificate.
    pub fn public_key(&self) -> Result<PublicKey, KeyError> {
        PublicKey::from_certificate(self.own())
    }

    /// Returns the values of `x5c` (RFC 7515 section 4.1.6): each certificate's DER in base64 with padding.
    pub fn x5c(&self) -> Vec<String> {
        self.0.iter().map(|der| base64(der)).collect()
    }

    /// Returns `x5t` (RFC 7515 section 4.1.7): the SHA-1 of the signer's own certificate.
    pub fn x5t(&self) -> String {
        base64url(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, self.own()).as_ref())
    }

    /// Returns `x5t#S256` (RFC 7515 section 4.1.8): the SHA-256 of the signer's own certificate.
    pub fn x5t_s256(&self) -> String {
        base64url(&sha256(self.own()))
    }

    /// Returns the SHA-256 of the signer's own certificate in lower-case hexadecimal digits.
    pub fn sha256_hex(&self) -> String {
        hex(&sha256(self.own()))
    }

    /// Returns the serial number in upper-case hexadecimal digits, without leading zeros.
    pub fn serial(&self) -> String {
        let digits = hex(self.parsed().raw_serial()).to_ascii_uppercase();
        let digits = digits.trim_start_matches('0');
        if digits.is_empty() { "0".to_owned() } else { digits.to_owned() }
    }

    /// Returns the serial number in decimal digits.
    pub fn serial_decimal(&self) -> String {
        self.parsed().serial.to_string()
    }

    /// Returns the issuer's distinguished name as RFC 4514 writes it: `CN=CA,O=Bank,C=DE`.
    pub fn issuer(&self) -> String {
        distinguished_name(self.parsed().issuer())
    }

    /// Returns the subject's distinguished name as RFC 4514 writes it.
    pub fn subject(&self) -> String {
        distinguished_name(self.parsed().subject())
    }

    /// Returns the last second, since 1970, in which the signer's own certificate is valid.
    pub fn valid_until(&self) -> i64 {
        self.parsed().validity().not_after.timestamp()
    }

    /// Returns whether the signer's own certificate is over at this second since 1970.
    pub fn has_expired(&self, unix_seconds: u64) -> bool {
        u64::try_from(self.valid_until()).unwrap_or(0) < unix_seconds
    }

    /// Returns the key identifier that Berlin Group banks ask for: `SN=9FA1,CA=CN=CA,O=Bank,C=DE`.
    pub fn psd2_key_id(&self) -> String {
        format!("SN={},CA={}", self.serial(), self.issuer())
    }

    fn parsed(&self) -> X509Certificate<'_> {
        let (_, certificate) = x509_parser::parse_x509_certificate(self.own()).expect("`new` has read the certificate");
        certificate
    }
}

/// Writes a name in the order of RFC 4514 section 2.1: the most specific part first.
fn distinguished_name(name: &X509Name<'_>) -> String {
    let parts: Vec<_> = name.iter().collect();
    let part = |attributes: Vec<String>| attributes.join("+");
    let written = parts.iter().rev().map(|attributes| part(attributes.iter().map(attribute).collect()));
    written.collect::<Vec<_>>().join(",")
}

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> String {
    let identifier = attribute.attr_type();
    let name = match oid2abbrev(identifier, oid_registry()) {
        Ok(abbreviation) => Some(abbreviation),
        // The attribute in which certificates of PSD2 hold an authorization number (ETSI EN 319 412-1).
        Err(_) if identifier.to_id_string() == "2.5.4.97" => Some("organizationIdentifier"),
        Err(_) => None,
    };
    match (name, attribute.as_str()) {
        (Some(name), Ok(value)) => format!("{name}={}", escaped(value)),
        // RFC 4514 section 2.4: the value's encoding in hexadecimal digits.
        (_, _) => {
            let encoding = attribute.attr_value().to_der_vec().unwrap_or_default();
            format!("{}=#{}", name.unwrap_or(&identifier.to_id_string()), hex(&encoding))
        }
    }
}

/// Escapes a value as RFC 4514 section 2.4 says.
fn escaped(value: &str) -> String {
    let last = value.chars().count().saturating_sub(1);
    let mut out = String::with_capacity(value.len());
    for (at, letter) in value.chars().enumerate() {
        match letter {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => out.extend(['\\', letter]),
            '#' if at == 0 => out.push_str("\\#"),
            ' ' if at == 0 || at == last => out.push_str("\\ "),
            control if control.is_control() => {
                let mut bytes = [0; 4];
                for byte in control.encode_utf8(&mut bytes).bytes() {
                    write!(out, "\\{byte:02x}").expect("a String takes all");
                }
            }
            _ => out.push(letter),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, DnValue, KeyPair, SerialNumber};

    use super::*;

    fn chain(serial: &[u8], common_name: &str) -> CertificateChain {
        let mut params = CertificateParams::default();
        params.serial_number = Some(SerialNumber::from_slice(serial));
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, value) in
            [(DnType::CountryName, "DE"), (DnType::OrganizationName, "D-Trust GmbH"), (DnType::CommonName, common_name)]
        {
            params.distinguished_name.push(kind, DnValue::Utf8String(value.to_owned()));
        }
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        CertificateChain::from_pem(certificate.pem().as_bytes()).unwrap()
    }

    #[test]
    fn the_key_identifier_of_psd2_names_serial_and_issuer() {
        let chain = chain(&[0x9f, 0xa1], "D-TRUST CA 2-1 2015");
        assert_eq!(chain.psd2_key_id(), "SN=9FA1,CA=CN=D-TRUST CA 2-1 2015,O=D-Trust GmbH,C=DE");
        assert_eq!(chain.serial_decimal(), "40865");
        assert_eq!(chain.x5c(), [base64(chain.own())]);
        assert_eq!((chain.x5t().len(), chain.x5t_s256().len()), (27, 43));
        assert!(chain.public_key().is_ok());
    }

    #[test]
    fn letters_with_a_meaning_are_escaped_in_names() {
        let issuer = chain(&[1], " #a, \"b\"+c\n ").issuer();
        assert_eq!(issuer, "CN=\\ #a\\, \\\"b\\\"\\+c\\0a\\ ,O=D-Trust GmbH,C=DE");
    }

    #[test]
    fn attributes_have_their_names_or_their_numbers() {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CustomDnType(vec![2, 5, 4, 97]), "PSDDE-BAFIN-123456");
        params.distinguished_name.push(DnType::CustomDnType(vec![1, 2, 3, 4]), "ab");
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let chain = CertificateChain::from_pem(certificate.pem().as_bytes()).unwrap();
        assert_eq!(chain.subject(), "1.2.3.4=#0c026162,organizationIdentifier=PSDDE-BAFIN-123456");
    }

    #[test]
    fn no_and_broken_certificates_are_told_apart() {
        assert_eq!(CertificateChain::from_pem(b"text"), Err(CertificateError::None));
        let broken = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert_eq!(CertificateChain::from_pem(broken), Err(CertificateError::Broken));
    }
}
