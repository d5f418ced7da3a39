//! The names in a certificate: of a client, and of a server.

use rustls::client::verify_server_name;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::ParsedCertificate;
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;

/// A name that a certificate carries, and that a config may ask for.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum CertName {
    /// The subject's common name, where it has exactly one.
    CommonName(String),
    /// A DNS name among the subject alternative names, in lower case.
    Dns(String),
    /// A URI among the subject alternative names, byte for byte.
    Uri(String),
}

/// The identity that a verified certificate states for its owner.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LeafIdentity {
    /// URIs, then DNS names, then the common name.
    pub names: Vec<CertName>,
    /// The last second at which it is valid, since 1970.
    pub until: u64,
}

/// Reads a certificate that was verified before. `None`: it cannot be read.
pub fn leaf(der: &CertificateDer<'_>) -> Option<LeafIdentity> {
    let (_, certificate) = parse_x509_certificate(der).ok()?;
    let mut names = Vec::new();
    let mut hosts = Vec::new();
    if let Some(alternatives) = certificate.subject_alternative_name().ok()? {
        for name in &alternatives.value.general_names {
            if let GeneralName::URI(uri) = name {
                names.push(CertName::Uri((*uri).to_owned()));
            } else if let GeneralName::DNSName(host) = name {
                hosts.push(CertName::Dns(host.to_ascii_lowercase()));
            }
        }
    }
    names.append(&mut hosts);
    let mut common = certificate.subject().iter_common_name();
    if let (Some(name), None) = (common.next(), common.next())
        && let Ok(name) = name.as_str()
    {
        names.push(CertName::CommonName(name.to_owned()));
    }
    let until = u64::try_from(certificate.validity().not_after.timestamp()).ok()?;
    Some(LeafIdentity { names, until })
}

/// Returns whether clients accept a server with this certificate under `host`, a name or an address (RFC 9525). `None`:
/// the certificate, or the host, cannot be read.
pub fn is_for_host(der: &CertificateDer<'_>, host: &str) -> Option<bool> {
    let name = ServerName::try_from(host).ok()?;
    let certificate = ParsedCertificate::try_from(der).ok()?;
    Some(verify_server_name(&certificate, &name).is_ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType, date_time_ymd};

    use super::*;

    fn made(common: &[&str], san: &[SanType]) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for name in common {
            params.distinguished_name.push(DnType::CommonName, *name);
        }
        params.subject_alt_names = san.to_vec();
        params.not_after = date_time_ymd(2030, 1, 1);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    #[test]
    fn names_are_read_in_the_order_of_their_weight() {
        let san =
            [SanType::DnsName("ERP.corp".try_into().unwrap()), SanType::URI("spiffe://corp/erp".try_into().unwrap())];
        let read = leaf(&made(&["erp"], &san)).unwrap();
        let names = [
            CertName::Uri("spiffe://corp/erp".to_owned()),
            CertName::Dns("erp.corp".to_owned()),
            CertName::CommonName("erp".to_owned()),
        ];
        assert_eq!(read.names, names);
        assert_eq!(read.until, 1_893_456_000);
        assert_eq!(leaf(&made(&[], &[])).unwrap().names, []);
    }

    #[test]
    fn a_server_is_accepted_under_the_names_of_its_certificate() {
        let san =
            [SanType::DnsName("*.corp.example".try_into().unwrap()), SanType::IpAddress("127.0.0.1".parse().unwrap())];
        let der = made(&["other.example"], &san);
        for (host, is_for) in [
            ("gateway.corp.example", Some(true)),
            ("a.gateway.corp.example", Some(false)),
            ("other.example", Some(false)),
            ("127.0.0.1", Some(true)),
            ("::1", Some(false)),
            ("no host", None),
        ] {
            assert_eq!(is_for_host(&der, host), is_for, "{host}");
        }
        assert_eq!(is_for_host(&CertificateDer::from(vec![1]), "gateway.corp.example"), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_bytes_make_it_panic(at in any::<u16>(), junk in proptest::collection::vec(any::<u8>(), 0..8)) {
            let mut der = made(&["erp"], &[SanType::URI("spiffe://corp/erp".try_into().unwrap())]).to_vec();
            let at = usize::from(at) % der.len();
            let end = (at + junk.len()).min(der.len());
            der.splice(at..end, junk);
            let _ = leaf(&CertificateDer::from(der));
        }
    }
}
