//! The content of a certificate, for a person to read. It proves nothing: the certificate need not have been verified.

use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;
use x509_parser::x509::X509Name;

/// More characters of a name than this are not shown.
const LONGEST: usize = 120;
/// More names than this are not shown.
const MOST_NAMES: usize = 8;

/// One certificate. Its texts never hold control characters, even if the certificate does.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Paper {
    /// The owner: the common name, or else the organisation, or else the whole name.
    pub subject: String,
    /// The issuer, in the same form as the owner.
    pub issuer: String,
    /// The hosts that it is for, as it writes them; the first few.
    pub names: Vec<String>,
    /// The first second at which it is valid, since 1970.
    pub from: i64,
    /// The last second at which it is valid, since 1970.
    pub until: i64,
    /// True if it names itself as its issuer.
    pub own_issuer: bool,
}

/// Reads a certificate. `None`: it cannot be read.
pub fn paper(der: &CertificateDer<'_>) -> Option<Paper> {
    let (_, certificate) = parse_x509_certificate(der).ok()?;
    let mut names = Vec::new();
    if let Ok(Some(alternatives)) = certificate.subject_alternative_name() {
        for name in alternatives.value.general_names.iter().take(MOST_NAMES) {
            if let GeneralName::DNSName(host) = name {
                names.push(plain(host));
            } else if let GeneralName::IPAddress(bytes) = name {
                names.extend(address(bytes));
            }
        }
    }
    Some(Paper {
        subject: called(certificate.subject()),
        issuer: called(certificate.issuer()),
        names,
        from: certificate.validity().not_before.timestamp(),
        until: certificate.validity().not_after.timestamp(),
        own_issuer: certificate.subject().as_raw() == certificate.issuer().as_raw(),
    })
}

fn called(name: &X509Name<'_>) -> String {
    let common = name.iter_common_name().next().and_then(|name| name.as_str().ok());
    let organisation = || name.iter_organization().next().and_then(|name| name.as_str().ok());
    match common.or_else(organisation) {
        Some(text) if !text.trim().is_empty() => plain(text),
        Some(_) | None => plain(&name.to_string()),
    }
}

fn address(bytes: &[u8]) -> Option<String> {
    let v4 = <[u8; 4]>::try_from(bytes).map(|v4| std::net::IpAddr::from(v4).to_string());
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(|v6| std::net::IpAddr::from(v6).to_string())).ok()
}

/// A stranger's text, so that it can do nothing to a terminal.
fn plain(text: &str) -> String {
    let safe = |c: char| if c.is_control() || ('\u{200b}'..='\u{206f}').contains(&c) { '?' } else { c };
    text.chars().take(LONGEST).map(safe).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    #[test]
    fn a_certificate_tells_its_names_and_nothing_to_a_terminal() {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "ev\u{1b}[2Jil \u{202e}host");
        params.subject_alt_names =
            vec![SanType::DnsName("a.example".try_into().unwrap()), SanType::IpAddress("::1".parse().unwrap())];
        let key = KeyPair::generate().unwrap();
        let read = paper(params.self_signed(&key).unwrap().der()).unwrap();
        assert_eq!(read.subject, "ev?[2Jil ?host");
        assert_eq!(read.names, ["a.example", "::1"]);
        assert!(read.own_issuer && read.issuer == read.subject && read.from < read.until);
    }

    #[test]
    fn without_a_common_name_the_organisation_or_the_whole_is_told() {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CountryName, "TH");
        let key = KeyPair::generate().unwrap();
        assert_eq!(paper(params.clone().self_signed(&key).unwrap().der()).unwrap().subject, "C=TH");
        params.distinguished_name.push(DnType::OrganizationName, "Bank");
        assert_eq!(paper(params.self_signed(&key).unwrap().der()).unwrap().subject, "Bank");
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = paper(&CertificateDer::from(bytes));
        }
    }
}
