//! Leaf certificates for hosts that we intercept, made on demand.
//!
//! A [`Mint`] holds an [`MintAuthority`] (the interception CA), one leaf key for the whole process, and the leaves minted
//! so far. Finding a leaf takes no lock: the map is immutable and swapped whole. Making one is led by a single thread
//! at a time, which also makes it once however many ask. A leaf takes tens of microseconds with an ECDSA CA and about
//! one millisecond with RSA, so the others simply wait. Knows nothing of routes: who asks has decided that the host
//! is one we may intercept. Lives on any thread.

mod authority;
mod authority_key;
mod constraints;

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use aws_lc_rs::rand;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, SanType, SerialNumber, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::sign::{CertifiedKey, SigningKey};
use thiserror::Error;

use super::provider;
use crate::base::time::{Now, rfc3339};
use crate::signing::signer::SigningError;

pub use authority::{CaError, Facts, KeyKind, MintAuthority};
pub use authority_key::AUTHORITY_ALGORITHMS;
pub use constraints::{Constraints, NameConstraint, NameConstraintError};

/// A leaf starts this many seconds before it is made, against clocks that differ a little.
const LEEWAY: u64 = 3600;
/// A leaf's whole life ends at most this many seconds after it is made.
const LIFE: u64 = 7 * 24 * 3600;
/// No more leaves are kept; the least recently used one makes room.
const CAPACITY: usize = 1000;
/// The longest common name that X.509 permits (RFC 5280 appendix A.1, `ub-common-name`).
const LONGEST_COMMON_NAME: usize = 64;

/// The reason for which there is no certificate for a host.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum MintError {
    /// The CA's validity has ended; seconds since 1970.
    #[error("the interception CA ended at {}: make a new one with `countersign ca new`", day(*.0))]
    AuthorityEnded(u64),
    /// The CA's validity has not begun; seconds since 1970.
    #[error("the interception CA is valid from {} only: check this machine's clock", day(*.0))]
    AuthorityNotYet(u64),
    /// The key of the CA is elsewhere, and there was no signature.
    #[error("no certificate could be signed by the key of the interception CA: {0}")]
    KeyService(SigningError),
    /// TLS does not take the key of the leaves.
    #[error("no certificate could be signed: {0}")]
    Key(#[from] rustls::Error),
    #[error("`{}` is not a host name or address", .0.escape_debug())]
    NotAName(String),
    /// The CA may not vouch for this host.
    #[error(
        "the interception CA may not vouch for `{host}` (it may for {permitted}): make one that may with \
         `countersign ca new --permit`, and have clients trust it"
    )]
    OutsideConstraints {
        /// The DNS name in lower case, or the address without brackets.
        host: String,
        /// The names that the CA may vouch for, as text for display.
        permitted: String,
    },
    #[error("no certificate could be signed: the system gives no randomness")]
    Randomness,
    /// The cryptographic library refused.
    #[error("no certificate could be signed: {0}")]
    Signing(#[from] rcgen::Error),
}

fn day(seconds: u64) -> String {
    rfc3339(seconds.saturating_mul(1000))
}

/// Makes and keeps leaf certificates. Shared by all workers.
pub struct Mint {
    authority: MintAuthority,
    key: KeyPair,
    signer: Arc<dyn SigningKey>,
    leaves: ArcSwap<Leaves>,
    making: Mutex<()>,
}

type Leaves = HashMap<Arc<str>, Arc<MintedLeaf>>;

/// One host's certificate, and when it is good: from, until (seconds since 1970) on the wall clock.
struct MintedLeaf {
    certified: Arc<CertifiedKey>,
    good_from: u64,
    good_until: u64,
    /// Seconds on the boot clock; coarse, so that many workers rarely write it.
    last_used: AtomicU64,
}

impl MintedLeaf {
    const fn is_good(&self, now: Now) -> bool {
        let now = now.unix_seconds();
        self.good_from <= now && now < self.good_until
    }

    fn touch(&self, now: Now) {
        let seconds = now.boot / 1000;
        if self.last_used.load(Ordering::Relaxed) != seconds {
            self.last_used.store(seconds, Ordering::Relaxed);
        }
    }
}

impl fmt::Debug for Mint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mint").field("authority", &self.authority).finish_non_exhaustive()
    }
}

impl Mint {
    /// Creates a mint with a fresh leaf key (ECDSA P-256, independent of the CA's key). Fails only if the machine has
    /// no randomness.
    pub fn new(authority: MintAuthority) -> Result<Self, MintError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let signer = provider().key_provider.load_private_key(der)?;
        Ok(Self { authority, key, signer, leaves: ArcSwap::default(), making: Mutex::new(()) })
    }

    /// The certificate to show for `host`: a DNS name or an IP address (in brackets or not), without a port. The
    /// chain is the leaf and the CA's own certificates. With a key elsewhere, a new one is waited for.
    pub fn certified(&self, host: &str, now: Now) -> Result<Arc<CertifiedKey>, MintError> {
        if let Some(found) = self.find(host, now) {
            return Ok(found);
        }
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        let name = bare.strip_suffix('.').unwrap_or(bare).to_ascii_lowercase();
        let subject = ServerName::try_from(name.as_str()).map_err(|_| MintError::NotAName(host.to_owned()))?;
        let subject = match subject {
            ServerName::IpAddress(address) => LeafSubject::Address(IpAddr::from(address)),
            ServerName::DnsName(_) | _ => LeafSubject::Domain(&name),
        };
        // No panic inside can leave the map half-changed, so a poisoned lock is as good as any.
        let lead = || self.making.lock().unwrap_or_else(PoisonError::into_inner);
        // Nobody leads while a signature is waited for: hosts do not wait for each other, and one may be signed twice.
        let is_remote = self.authority.is_remote();
        let mut leader = (!is_remote).then(lead);
        if let Some(found) = self.find(&name, now) {
            return Ok(found);
        }
        let leaf = Arc::new(self.make(&name, subject, now)?);
        let _leader = leader.take().unwrap_or_else(lead);
        let certified = Arc::clone(&leaf.certified);
        self.keep(name.into(), leaf, now);
        Ok(certified)
    }

    /// Returns the CA that signs the leaves.
    pub const fn authority(&self) -> &MintAuthority {
        &self.authority
    }

    /// Returns the number of leaves that are kept.
    pub fn kept(&self) -> usize {
        self.leaves.load().len()
    }

    /// Returns the certificate that is kept for a host, in the form in which it was named first or in lower case.
    pub fn find(&self, name: &str, now: Now) -> Option<Arc<CertifiedKey>> {
        let leaves = self.leaves.load();
        let leaf = leaves.get(name).filter(|leaf| leaf.is_good(now))?;
        leaf.touch(now);
        Some(Arc::clone(&leaf.certified))
    }

    /// Called by the leader alone.
    fn keep(&self, name: Arc<str>, leaf: Arc<MintedLeaf>, now: Now) {
        leaf.touch(now);
        let mut leaves = Leaves::clone(&self.leaves.load());
        if leaves.len() >= CAPACITY && !leaves.contains_key(&name) {
            let oldest = leaves.iter().min_by_key(|(_, leaf)| leaf.last_used.load(Ordering::Relaxed));
            if let Some(oldest) = oldest.map(|(name, _)| Arc::clone(name)) {
                leaves.remove(&oldest);
            }
        }
        leaves.insert(name, leaf);
        self.leaves.store(Arc::new(leaves));
    }

    fn make(&self, name: &str, subject: LeafSubject<'_>, now: Now) -> Result<MintedLeaf, MintError> {
        let permitted = match subject {
            LeafSubject::Address(address) => self.authority.permits_address(address),
            LeafSubject::Domain(domain) => self.authority.permits_domain(domain),
        };
        if !permitted {
            let permitted = self.authority.constraints().to_string();
            return Err(MintError::OutsideConstraints { host: name.to_owned(), permitted });
        }
        let validity = Validity::of(&self.authority, now)?;
        let mut params = CertificateParams::default();
        params.serial_number = Some(serial()?);
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common_name(name, subject));
        params.subject_alt_names = vec![match subject {
            LeafSubject::Address(address) => SanType::IpAddress(address),
            LeafSubject::Domain(domain) => SanType::DnsName(domain.try_into()?),
        }];
        // Explicit, because only then does the leaf carry a subject key identifier.
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        validity.write(&mut params);
        let mut chain: Vec<CertificateDer<'static>> = vec![self.authority.sign(&params, &self.key)?];
        chain.extend(self.authority.chain().iter().cloned());
        Ok(MintedLeaf {
            certified: Arc::new(CertifiedKey::new(chain, Arc::clone(&self.signer))),
            good_from: validity.from,
            good_until: validity.renew,
            last_used: AtomicU64::new(0),
        })
    }
}

#[derive(Clone, Copy)]
enum LeafSubject<'a> {
    Address(IpAddr),
    Domain(&'a str),
}

/// A leaf's first and last second, and the one from which a new leaf is made.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Validity {
    from: u64,
    until: u64,
    renew: u64,
}

impl Validity {
    /// Never beyond the CA's own. A leaf is renewed when less than a third of its life is left, unless the CA's end
    /// bounds it: then a new one would live no longer.
    fn of(authority: &MintAuthority, now: Now) -> Result<Self, MintError> {
        let (first, last) = authority.validity();
        let now = now.unix_seconds();
        if now < first {
            return Err(MintError::AuthorityNotYet(first));
        }
        if now >= last {
            return Err(MintError::AuthorityEnded(last));
        }
        let from = now.saturating_sub(LEEWAY).max(first);
        let until = now.saturating_add(LIFE - LEEWAY).min(last);
        let renew = if until == last { until } else { until - (until - from) / 3 };
        Ok(Self { from, until, renew })
    }

    /// (The type of the fields is of a crate that we do not name.)
    fn write(self, params: &mut CertificateParams) {
        params.not_before = date_time_ymd(1970, 1, 1) + Duration::from_secs(self.from);
        params.not_after = date_time_ymd(1970, 1, 1) + Duration::from_secs(self.until);
    }
}

/// Random, because all leaves share one key: browsers refuse two certificates of one issuer with the same number.
fn serial() -> Result<SerialNumber, MintError> {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes).map_err(|_| MintError::Randomness)?;
    // Positive, and never zero (RFC 5280 section 4.1.2.2).
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

/// The host itself where it fits. OpenSSL takes a dotted common name for a DNS name and holds it against the CA's
/// constraints, so an address does not stand there.
fn common_name<'a>(name: &'a str, subject: LeafSubject<'_>) -> &'a str {
    match subject {
        LeafSubject::Domain(_) if name.len() <= LONGEST_COMMON_NAME => name,
        LeafSubject::Address(_) | LeafSubject::Domain(_) => "countersign leaf",
    }
}

#[cfg(test)]
mod tests;
