//! A certificate authority in memory, strict enough for the pickiest verifiers.
//!
//! Leaves carry authority and subject key identifiers, key usages and a bounded life (RFC 5280 section 4.2), because
//! rustls, OpenSSL's strict mode and Python 3.13 each insist on some of them.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType, date_time_ymd,
};

use crate::base::secret::ExposeSecret;
use crate::base::time::{Now, millis};
use crate::sim::sim_memory::SimMemory;
use crate::tls::{Identity, TlsConfigError};

/// Place of the CA's key in a memory.
const CA_KEY: &str = "ca/key";

/// The time before "now" at which a certificate's validity starts, against clocks that differ a little.
const LEEWAY: Duration = Duration::from_secs(3600);
/// The lifetime of the simulator's certificates: longer than that of which `check --live` warns.
const LIFE: Duration = Duration::from_secs(90 * 24 * 3600);

/// A CA with an ECDSA P-256 key, which leaves the process in a [`SimMemory`] alone. Cheap to clone.
#[derive(Clone)]
pub struct SimAuthority(Arc<CertifiedIssuer<'static, KeyPair>>);

impl std::fmt::Debug for SimAuthority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SimAuthority")
    }
}

/// The purpose of a leaf certificate (RFC 5280 section 4.2.1.12).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Usage {
    /// Authentication of a TLS client (`clientAuth`).
    Client,
    /// Authentication of a TLS server (`serverAuth`).
    Server,
}

/// The contents of a leaf certificate. Start from [`LeafSpec::server`] or [`LeafSpec::client`] and change a field.
#[derive(Clone, Debug)]
pub struct LeafSpec {
    /// The common name in the certificate's subject.
    pub common_name: String,
    /// Subject alternative names: IP addresses, URIs (with `://`), else DNS names.
    pub names: Vec<String>,
    /// The only extended key usage of the certificate.
    pub usage: Usage,
    /// Start of validity, in milliseconds since 1970.
    pub valid_from: u64,
    /// End of validity, in milliseconds since 1970.
    pub valid_until: u64,
}

impl LeafSpec {
    /// A server certificate for this machine: `localhost`, `127.0.0.1` and `::1`, valid for 90 days.
    pub fn server(now: Now) -> Self {
        let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
        Self::new("localhost".to_owned(), names, Usage::Server, now)
    }

    /// A client certificate for one name (a DNS name or a URI such as `spiffe://corp/erp`), valid for 90 days.
    pub fn client(name: &str, now: Now) -> Self {
        Self::new(name.to_owned(), vec![name.to_owned()], Usage::Client, now)
    }

    fn new(common_name: String, names: Vec<String>, usage: Usage, now: Now) -> Self {
        let valid_from = now.wall.saturating_sub(millis(LEEWAY));
        Self { common_name, names, usage, valid_from, valid_until: now.plus(LIFE).wall }
    }
}

/// A leaf certificate with its key, in PEM.
pub struct SimLeaf {
    /// The certificate alone; the CA signs it directly.
    pub cert_pem: String,
    /// Its private key as PKCS#8, in PEM.
    pub key_pem: String,
}

impl std::fmt::Debug for SimLeaf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimLeaf").finish_non_exhaustive()
    }
}

impl SimLeaf {
    /// The pair as `rustls` wants it.
    pub fn identity(&self) -> Result<Identity, TlsConfigError> {
        Identity::from_pem(self.cert_pem.as_bytes(), self.key_pem.as_bytes())
    }
}

impl SimAuthority {
    /// A new CA of this name, valid from an hour ago for 90 days. Fails only where the machine has no randomness.
    pub fn new(name: &str, now: Now) -> Result<Self, String> {
        Self::lasting(name, now, LIFE)
    }

    /// The same, valid for so long.
    pub fn lasting(name: &str, now: Now, life: Duration) -> Result<Self, String> {
        Self::signed(authority(name, now, life), new_key()?)
    }

    /// The same with the key that is remembered, if there is one: who trusts that CA trusts what this one issues.
    pub fn remembered(name: &str, now: Now, memory: &SimMemory) -> Result<Self, String> {
        let pem = memory.try_recall(CA_KEY, || new_key().map(|key| key.serialize_pem()))?;
        let key = KeyPair::from_pem(pem.expose_secret()).map_err(|error| format!("{CA_KEY}: {error}"))?;
        Self::signed(authority(name, now, LIFE), key)
    }

    fn signed(params: CertificateParams, key: KeyPair) -> Result<Self, String> {
        let issuer = CertifiedIssuer::self_signed(params, key).map_err(|error| error.to_string())?;
        Ok(Self(Arc::new(issuer)))
    }

    /// Returns the CA's certificate in PEM.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// Issues a leaf certificate with a fresh key. Fails on a name that no certificate can carry.
    pub fn issue(&self, spec: &LeafSpec) -> Result<SimLeaf, String> {
        let mut params = CertificateParams::default();
        params.distinguished_name = named(&spec.common_name);
        params.subject_alt_names = spec.names.iter().map(|name| alternative(name)).collect::<Result<_, _>>()?;
        // Only with this does the leaf carry a subject key identifier.
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![match spec.usage {
            Usage::Client => ExtendedKeyUsagePurpose::ClientAuth,
            Usage::Server => ExtendedKeyUsagePurpose::ServerAuth,
        }];
        set_validity(&mut params, spec.valid_from, spec.valid_until);
        let key = new_key()?;
        let certificate = params.signed_by(&key, &self.0).map_err(|error| error.to_string())?;
        Ok(SimLeaf { cert_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }
}

/// The certificate of a CA that issues leaves alone.
fn authority(name: &str, now: Now, life: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_validity(&mut params, now.wall.saturating_sub(millis(LEEWAY)), now.plus(life).wall);
    params
}

fn new_key() -> Result<KeyPair, String> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|error| error.to_string())
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

fn alternative(name: &str) -> Result<SanType, String> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let text = name.try_into().map_err(|_| format!("`{name}` cannot stand in a certificate: write it in ASCII"))?;
    Ok(if name.contains("://") { SanType::URI(text) } else { SanType::DnsName(text) })
}

/// Sets the validity, in milliseconds since 1970. (The type of the fields is of a crate that we do not name.)
fn set_validity(params: &mut CertificateParams, from: u64, until: u64) {
    params.not_before = date_time_ymd(1970, 1, 1) + Duration::from_secs(from / 1000);
    params.not_after = date_time_ymd(1970, 1, 1) + Duration::from_secs(until / 1000);
}

#[cfg(test)]
mod tests {
    use x509_parser::pem::parse_x509_pem;
    use x509_parser::prelude::{GeneralName, ParsedExtension};

    use super::*;

    #[test]
    fn a_leaf_carries_what_strict_verifiers_ask_for() {
        let now = Now::at(0, 1_764_000_000_000);
        let authority = SimAuthority::new("test CA", now).expect("a CA");
        let leaf = authority.issue(&LeafSpec::server(now)).expect("a leaf");
        let (_, ca) = parse_x509_pem(authority.pem().as_bytes()).expect("PEM");
        let (_, leaf) = parse_x509_pem(leaf.cert_pem.as_bytes()).expect("PEM");
        let (ca, leaf) = (ca.parse_x509().expect("X.509"), leaf.parse_x509().expect("X.509"));
        let key_id = |certificate: &x509_parser::certificate::X509Certificate<'_>| {
            certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
                _ => None,
            })
        };
        let issuer_id = leaf.extensions().iter().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.as_ref().map(|id| id.0.to_vec()),
            _ => None,
        });
        assert!(key_id(&leaf).is_some() && issuer_id.is_some() && issuer_id == key_id(&ca));
        let constraints = ca.basic_constraints().expect("well-formed").expect("present");
        assert_eq!((constraints.value.ca, constraints.value.path_len_constraint), (true, Some(0)));
        assert!(ca.key_usage().expect("well-formed").expect("present").value.key_cert_sign());
        assert!(!leaf.is_ca());
        let usage = leaf.extended_key_usage().expect("well-formed").expect("present");
        assert!(usage.value.server_auth && !usage.value.client_auth);
        let names = leaf.subject_alternative_name().expect("well-formed").expect("present");
        assert_eq!(names.value.general_names.len(), 3);
        assert_eq!(names.value.general_names[0], GeneralName::DNSName("localhost"));
        assert_eq!(leaf.validity().not_before.timestamp(), 1_764_000_000 - 3600);
        assert_eq!(leaf.validity().not_after.timestamp(), 1_764_000_000 + 90 * 24 * 3600);
    }
}
