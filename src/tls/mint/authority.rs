//! The interception CA: made once, then loaded from its two PEM files.
//!
//! It signs leaves itself (path length 0) and nothing else. Anything that a loaded CA lacks to satisfy strict verifiers
//! is found when it is loaded, not when the first client fails.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rand;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, date_time_ymd,
};
use rustls::pki_types::CertificateDer;
use secrecy::SecretString;
use thiserror::Error;
use x509_parser::certificate::X509Certificate;
use x509_parser::error::X509Error;
use x509_parser::extensions::ParsedExtension;
use x509_parser::public_key::PublicKey;
use x509_parser::{nom, parse_x509_certificate};

use super::authority_key::{AuthorityKey, RemoteAuthorityKey};
use super::constraints::{Constraints, NameConstraintError};
use super::{LEEWAY, MintError, serial};
use crate::base::secret::{hex, sha256};
use crate::base::time::{Now, rfc3339};
use crate::signing::algorithm::SigningAlgorithm;
use crate::signing::public_key::PublicKey as SignerPublicKey;
use crate::signing::signer::Signer;
use crate::tls::certificates;
use crate::tls::pem::{PemError, private_key};

/// The reason for which a CA cannot be made or loaded. It quotes no input.
#[derive(Debug, Error)]
pub enum CaError {
    #[error(transparent)]
    Constraints(#[from] NameConstraintError),
    #[error("the private key does not belong to the certificate")]
    ForeignKey,
    #[error("the private key is neither ECDSA nor RSA")]
    KeyKind(#[source] rcgen::Error),
    /// A certificate, or the key for one, cannot be made.
    #[error(transparent)]
    Make(#[from] rcgen::Error),
    #[error(transparent)]
    Mint(#[from] MintError),
    #[error("it may not sign certificates: its key usage lacks `keyCertSign`")]
    NoCertSign,
    #[error("it has no subject key identifier, so strict clients would refuse what it signs")]
    NoKeyIdentifier,
    #[error("it is a certificate of a server or a client, not of a CA")]
    NotACa,
    #[error("it is not an X.509 certificate")]
    NotX509(#[source] nom::Err<X509Error>),
    #[error(transparent)]
    Pem(#[from] PemError),
    #[error("the system gives no randomness")]
    Randomness,
    #[error("a key of a key service signs as a CA by RSA, or by ECDSA on P-256 or P-384")]
    RemoteKeyKind,
    /// What it issues would not name it.
    #[error("its subject is of a form that cannot be repeated; use a CA with a plain common name")]
    Subject,
}

/// The kind of key that a new CA has.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum KeyKind {
    /// ECDSA P-256: small and fast, read by everything since Java 8.
    #[default]
    EcdsaP256,
    /// RSA with 2048 bits, for very old clients.
    Rsa2048,
}

/// A CA that can sign. Its key never leaves it but through [`MintAuthority::new_key`].
pub struct MintAuthority {
    issuer: Issuer<'static, AuthorityKey>,
    /// Its own certificate first, then what it was issued by, as its file has them.
    chain: Vec<CertificateDer<'static>>,
    constraints: Constraints,
    /// Those of the certificates above its own.
    above: Vec<Constraints>,
    /// Seconds since 1970; the tightest of the chain.
    validity: (u64, u64),
}

impl fmt::Debug for MintAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MintAuthority").field("validity", &self.validity).finish_non_exhaustive()
    }
}

impl MintAuthority {
    /// A new CA, valid from an hour before `now` for `years` years. Its subject is unique, so that two of them can be
    /// told apart in a trust store. Answers the certificate and the key too, both PEM, to be written down.
    pub fn new(
        kind: KeyKind,
        constraints: &Constraints,
        now: Now,
        years: u32,
    ) -> Result<(Self, String, SecretString), CaError> {
        let key = match kind {
            KeyKind::EcdsaP256 => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256),
            KeyKind::Rsa2048 => KeyPair::generate_for(&PKCS_RSA_SHA256),
        }?;
        let mut suffix = [0; 4];
        rand::fill(&mut suffix).map_err(|_| CaError::Randomness)?;
        let day = rfc3339(now.wall);
        let day = day.split('T').next().unwrap_or_default();
        let mut params = CertificateParams::default();
        params.serial_number = Some(serial()?);
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "countersign");
        params.distinguished_name.push(DnType::CommonName, format!("countersign CA {day} {}", hex(&suffix)));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.name_constraints = constraints.extension();
        let from = now.unix_seconds().saturating_sub(LEEWAY);
        // A year is 365 days here. X.509 knows no instant after the year 9999.
        let life = u64::from(years.clamp(1, 100)) * 365 * 24 * 3600;
        params.not_before = date_time_ymd(1970, 1, 1) + Duration::from_secs(from);
        params.not_after = date_time_ymd(1970, 1, 1) + Duration::from_secs(from.saturating_add(life));
        let certificate = params.self_signed(&key)?.pem();
        let key = key.serialize_pem();
        let authority = Self::from_pem(certificate.as_bytes(), key.as_bytes())?;
        Ok((authority, certificate, SecretString::from(key)))
    }

    /// Loads a CA from a certificate (then the chain above it, if it is an intermediate one) and its key (PKCS#8,
    /// PKCS#1 or SEC1), both PEM.
    pub fn from_pem(certificate: &[u8], key: &[u8]) -> Result<Self, CaError> {
        Self::of(certificate, |own| {
            let key = private_key(key, None)?;
            let key = KeyPair::try_from(&key).map_err(CaError::KeyKind)?;
            let fits = rcgen::PublicKeyData::subject_public_key_info(&key) == readable(own)?.public_key().raw;
            if fits { Ok(AuthorityKey::Local(key)) } else { Err(CaError::ForeignKey) }
        })
    }

    /// Loads a CA whose key `signer` holds, which signs by this algorithm of [`super::AUTHORITY_ALGORITHMS`].
    pub fn elsewhere(
        certificate: &[u8],
        signer: Arc<dyn Signer>,
        algorithm: SigningAlgorithm,
    ) -> Result<Self, CaError> {
        Self::of(certificate, |own| {
            let public = SignerPublicKey::from_certificate(own).map_err(|_| CaError::RemoteKeyKind)?;
            if signer.public_key() != Some(public) {
                return Err(CaError::ForeignKey);
            }
            let content = readable(own)?.public_key().subject_public_key.data.to_vec();
            let key = RemoteAuthorityKey::new(signer, algorithm, content);
            key.map(AuthorityKey::Remote).ok_or(CaError::RemoteKeyKind)
        })
    }

    /// Loads and checks the certificates, and then the key of the first one.
    fn of(
        certificate: &[u8],
        key: impl FnOnce(&CertificateDer<'_>) -> Result<AuthorityKey, CaError>,
    ) -> Result<Self, CaError> {
        let chain = certificates(certificate)?;
        let mut constraints = Vec::new();
        let mut validity = (0, u64::MAX);
        for certificate in &chain {
            let read = readable(certificate)?;
            check_ca(&read)?;
            constraints.push(Constraints::read(&read)?);
            let (from, until) = (read.validity().not_before.timestamp(), read.validity().not_after.timestamp());
            validity.0 = validity.0.max(u64::try_from(from).unwrap_or(0));
            validity.1 = validity.1.min(u64::try_from(until).unwrap_or(0));
        }
        let own = chain.first().ok_or(PemError::NoCertificate)?;
        let key = key(own)?;
        check_subject(own)?;
        let issuer = Issuer::from_ca_cert_der(own, key).map_err(|_| CaError::Subject)?;
        let mut constraints = constraints.into_iter();
        let own = constraints.next().unwrap_or_default();
        Ok(Self { issuer, chain, constraints: own, above: constraints.collect(), validity })
    }

    /// Signs a certificate for the public half of `key`. With a key elsewhere it waits for the signature.
    pub(super) fn sign(&self, params: &CertificateParams, key: &KeyPair) -> Result<CertificateDer<'static>, MintError> {
        match params.signed_by(key, &self.issuer) {
            Ok(made) => Ok(made.into()),
            Err(error) => Err(self.issuer.key().failure().map_or(MintError::Signing(error), MintError::KeyService)),
        }
    }

    /// Returns whether its key is elsewhere, so that its signatures are waited for.
    pub fn is_remote(&self) -> bool {
        self.issuer.key().is_remote()
    }

    /// Its own certificate first, then what it was issued by, as its file has them.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// The first and the last second of what it signs, since 1970.
    pub const fn validity(&self) -> (u64, u64) {
        self.validity
    }

    /// Returns the name constraints of its own certificate.
    pub const fn constraints(&self) -> &Constraints {
        &self.constraints
    }

    /// Returns whether it may vouch for a host of this name: lower case, without a trailing dot.
    pub fn permits_domain(&self, domain: &str) -> bool {
        let mut all = std::iter::once(&self.constraints).chain(&self.above);
        all.all(|constraints| constraints.permits_domain(domain))
    }

    /// Returns whether it may vouch for a host at this address.
    pub fn permits_address(&self, address: IpAddr) -> bool {
        let mut all = std::iter::once(&self.constraints).chain(&self.above);
        all.all(|constraints| constraints.permits_address(address))
    }

    /// Returns whether it may vouch for `host`: a DNS name or an address, in brackets or not.
    pub fn permits(&self, host: &str) -> bool {
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        match bare.parse() {
            Ok(address) => self.permits_address(address),
            Err(_) => self.permits_domain(&bare.strip_suffix('.').unwrap_or(bare).to_ascii_lowercase()),
        }
    }
}

/// Checks whether the issuer of what a CA signs would be its subject, byte for byte: the certificate builder knows the
/// common forms of a name only. The trial is signed by another key.
fn check_subject(own: &CertificateDer<'static>) -> Result<(), CaError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let issuer = Issuer::from_ca_cert_der(own, &key).map_err(|_| CaError::Subject)?;
    let trial = CertificateDer::from(CertificateParams::default().signed_by(&key, &issuer)?);
    let same = readable(&trial)?.issuer().as_raw() == readable(own)?.subject().as_raw();
    if same { Ok(()) } else { Err(CaError::Subject) }
}

/// The facts about a CA certificate that an operator needs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Facts {
    /// The subject's distinguished name, as text for display.
    pub subject: String,
    /// SHA-256 of the certificate, lower-case hexadecimal.
    pub fingerprint: String,
    /// First second of its validity, in seconds since 1970.
    pub from: u64,
    /// Last second of its validity, in seconds since 1970.
    pub until: u64,
    /// The constraints on the names that it may vouch for.
    pub constraints: Constraints,
    /// The kind of its key, for people.
    pub key: String,
}

impl Facts {
    /// Reads the first certificate of a PEM file; the key is not needed.
    pub fn read(pem: &[u8]) -> Result<Self, CaError> {
        let chain = certificates(pem)?;
        let own = chain.first().ok_or(PemError::NoCertificate)?;
        let read = readable(own)?;
        check_ca(&read)?;
        let key = match read.public_key().parsed() {
            Ok(PublicKey::EC(point)) => format!("ECDSA, {} bits", point.key_size()),
            Ok(PublicKey::RSA(key)) => format!("RSA, {} bits", key.key_size()),
            Ok(_) | Err(_) => "of another kind".to_owned(),
        };
        Ok(Self {
            subject: read.subject().to_string(),
            fingerprint: hex(&sha256(own)),
            from: u64::try_from(read.validity().not_before.timestamp()).unwrap_or(0),
            until: u64::try_from(read.validity().not_after.timestamp()).unwrap_or(0),
            constraints: Constraints::read(&read)?,
            key,
        })
    }

    /// Whole days until it ends; zero once it has.
    pub fn days_left(&self, now: Now) -> u64 {
        self.until.saturating_sub(now.unix_seconds()) / (24 * 3600)
    }
}

fn readable<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, CaError> {
    parse_x509_certificate(der).map(|(_, read)| read).map_err(CaError::NotX509)
}

/// Without these, strict verifiers (OpenSSL with `-x509_strict`, Python 3.13) refuse every leaf.
fn check_ca(certificate: &X509Certificate<'_>) -> Result<(), CaError> {
    if !certificate.is_ca() {
        return Err(CaError::NotACa);
    }
    let usage = certificate.key_usage().ok().flatten();
    if !usage.is_some_and(|usage| usage.value.key_cert_sign()) {
        return Err(CaError::NoCertSign);
    }
    let is_identifier = |extension: &ParsedExtension<'_>| matches!(extension, ParsedExtension::SubjectKeyIdentifier(_));
    if !certificate.extensions().iter().any(|extension| is_identifier(extension.parsed_extension())) {
        return Err(CaError::NoKeyIdentifier);
    }
    // The certificate builder panics over an empty part of a name.
    if certificate.subject().iter().any(|part| part.iter().next().is_none()) {
        return Err(CaError::Subject);
    }
    Ok(())
}
