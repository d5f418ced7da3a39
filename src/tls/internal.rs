//! `tls = "internal"`: a CA inside the process, and the certificates that it issues for the listeners.
//!
//! The CA lives in memory and for as long as the process. A client that is to trust it must take its certificate from
//! the log of this start. Its leaves are short-lived and replaced long before they expire, without touching a
//! connection.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType, date_time_ymd,
};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use thiserror::Error;

use super::provider;
use crate::base::secret::{hex, sha256};
use crate::base::time::{Deadline, Now, millis};

/// Time before "now" at which a certificate starts, to allow for clocks that differ a little.
const LEEWAY: Duration = Duration::from_secs(3600);
/// The lifetime of a listener's certificate.
const LEAF_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);
/// The lifetime of the CA: longer than that of any process.
const CA_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// The reason for which the internal CA or a certificate of it cannot be made.
#[derive(Debug, Error, PartialEq)]
pub enum InternalCaError {
    /// A certificate, or the key for one, cannot be made.
    #[error(transparent)]
    Certificate(#[from] rcgen::Error),
    /// TLS does not take the key.
    #[error(transparent)]
    Key(#[from] rustls::Error),
    #[error("`{0}` cannot stand in a certificate")]
    Name(String),
}

/// A listener's place for a certificate of our own CA. Empty, and so refusing every handshake, until the first is made.
pub struct Internal {
    names: Vec<String>,
    made: ArcSwapOption<InternalCertificate>,
}

struct InternalCertificate {
    certified: Arc<CertifiedKey>,
    renew: Deadline,
}

/// A CA with an ECDSA P-256 key that never leaves memory.
pub struct InternalCa(CertifiedIssuer<'static, KeyPair>);

impl Internal {
    /// For these host names and addresses, and always for this machine's own.
    pub fn new(mut names: Vec<String>) -> Arc<Self> {
        for own in ["localhost", "127.0.0.1", "::1"] {
            if !names.iter().any(|name| name == own) {
                names.push(own.to_owned());
            }
        }
        Arc::new(Self { names, made: ArcSwapOption::empty() })
    }
}

impl ResolvesServerCert for Internal {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.made.load().as_ref().map(|made| made.certified.clone())
    }
}

impl fmt::Debug for Internal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Internal").field("names", &self.names).finish_non_exhaustive()
    }
}

impl InternalCa {
    /// A new CA. Fails only where the machine has no randomness.
    pub fn new(now: Now) -> Result<Self, InternalCaError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = named("countersign internal CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        set_validity(&mut params, now, CA_LIFE);
        Ok(Self(CertifiedIssuer::self_signed(params, new_key()?)?))
    }

    /// Makes a certificate for `internal`, if it has none or half of its life is over. Says whether it did.
    pub fn renew(&self, internal: &Internal, now: Now) -> Result<bool, InternalCaError> {
        if internal.made.load().as_ref().is_some_and(|made| !made.renew.passed(now)) {
            return Ok(false);
        }
        let mut params = CertificateParams::default();
        params.distinguished_name = named("countersign");
        params.subject_alt_names = internal.names.iter().map(|name| alternative(name)).collect::<Result<_, _>>()?;
        // Only with this does the leaf carry a subject key identifier.
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        set_validity(&mut params, now, LEAF_LIFE);
        let key = new_key()?;
        let leaf = params.signed_by(&key, &self.0)?;
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let signer = provider().key_provider.load_private_key(private)?;
        let certified = Arc::new(CertifiedKey::new(vec![leaf.der().clone()], signer));
        internal
            .made
            .store(Some(Arc::new(InternalCertificate { certified, renew: Deadline::after(now, LEAF_LIFE / 2) })));
        Ok(true)
    }

    /// Returns the CA's certificate as PEM.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// The SHA-256 of the CA's certificate (DER), in lower-case hexadecimal.
    pub fn fingerprint(&self) -> String {
        hex(&sha256(self.0.der()))
    }
}

impl fmt::Debug for InternalCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InternalCa")
    }
}

fn new_key() -> Result<KeyPair, rcgen::Error> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

fn alternative(name: &str) -> Result<SanType, InternalCaError> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    name.try_into().map(SanType::DnsName).map_err(|_| InternalCaError::Name(name.to_owned()))
}

/// Sets the validity. (The type of the fields is of a crate that we do not name.)
fn set_validity(params: &mut CertificateParams, now: Now, life: Duration) {
    let start = now.wall.saturating_sub(millis(LEEWAY)) / 1000;
    params.not_before = date_time_ymd(1970, 1, 1) + Duration::from_secs(start);
    params.not_after = date_time_ymd(1970, 1, 1) + Duration::from_secs(now.plus(life).unix_seconds());
}

#[cfg(test)]
mod tests {
    use x509_parser::parse_x509_certificate;
    use x509_parser::prelude::{GeneralName, ParsedExtension};

    use super::*;

    const START: Now = Now::at(0, 1_795_000_000_000);

    #[test]
    fn a_leaf_is_made_once_and_renewed_at_half_of_its_life() {
        let ca = InternalCa::new(START).unwrap();
        let internal = Internal::new(vec!["gateway.corp".to_owned(), "127.0.0.1".to_owned()]);
        assert_eq!(ca.renew(&internal, START), Ok(true));
        assert_eq!(ca.renew(&internal, START), Ok(false));
        assert_eq!(ca.renew(&internal, START.plus(LEAF_LIFE / 2 - Duration::from_secs(1))), Ok(false));
        let first = internal.made.load_full().unwrap().certified.clone();
        assert_eq!(ca.renew(&internal, START.plus(LEAF_LIFE / 2)), Ok(true));
        let second = internal.made.load_full().unwrap().certified.clone();
        assert_ne!(first.cert, second.cert);
    }

    #[test]
    fn a_leaf_carries_what_strict_verifiers_ask_for() {
        let ca = InternalCa::new(START).unwrap();
        let internal = Internal::new(vec!["gateway.corp".to_owned()]);
        ca.renew(&internal, START).unwrap();
        let certified = internal.made.load_full().unwrap().certified.clone();
        let (_, leaf) = parse_x509_certificate(&certified.cert[0]).unwrap();
        let names = &leaf.subject_alternative_name().unwrap().unwrap().value.general_names;
        assert_eq!(names[..2], [GeneralName::DNSName("gateway.corp"), GeneralName::DNSName("localhost")]);
        assert_eq!(names.len(), 4);
        assert!(leaf.extended_key_usage().unwrap().unwrap().value.server_auth && !leaf.is_ca());
        let has =
            |wanted: fn(&ParsedExtension<'_>) -> bool| leaf.extensions().iter().any(|e| wanted(e.parsed_extension()));
        assert!(has(|e| matches!(e, ParsedExtension::AuthorityKeyIdentifier(_))));
        assert!(has(|e| matches!(e, ParsedExtension::SubjectKeyIdentifier(_))));
        assert_eq!(leaf.validity().not_after.timestamp(), 1_795_000_000 + 7 * 24 * 3600);
        assert_eq!(ca.fingerprint().len(), 64);
        assert!(ca.pem().starts_with("-----BEGIN CERTIFICATE-----"));
    }
}
