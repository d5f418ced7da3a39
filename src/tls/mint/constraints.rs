//! The names that a CA may vouch for (RFC 5280 section 4.2.1.10).
//!
//! A name-constrained CA limits the harm of a stolen key to the banks' own hosts. Constraints apply to each kind of
//! name separately: a CA that permits DNS names only would still be good for every IP address. So the constraints made
//! here always cover both kinds.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use rcgen::{CidrSubnet, GeneralSubtree, NameConstraints};
use thiserror::Error;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, GeneralSubtree as ReadSubtree};

/// A domain under which no host exists (RFC 2606 section 2): permitting it alone permits no DNS name.
const NOWHERE: &str = "invalid";

/// The reason for which there are no name constraints.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum NameConstraintError {
    #[error("nothing is permitted: name a domain")]
    Nothing,
    #[error("`{}` is not a domain: write it like `bank.example`", .0.escape_debug())]
    NotADomain(String),
    /// Constraints of a certificate that cannot be read are not guessed.
    #[error("its name constraints cannot be read")]
    Unreadable,
}

/// One thing that a CA may vouch for.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum NameConstraint {
    /// The addresses of this network.
    Addresses(IpNet),
    /// This domain and all below it: lower-case ASCII, no dot at either end.
    Domain(String),
}

impl NameConstraint {
    /// Reads `bank.example`, `.bank.example`, `*.bank.example`, `10.0.0.1` or `10.0.0.0/8`.
    pub fn parse(text: &str) -> Result<Self, NameConstraintError> {
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        if let Ok(address) = bare.parse::<IpAddr>() {
            return Ok(NameConstraint::Addresses(IpNet::from(address)));
        }
        if let Ok(net) = bare.parse::<IpNet>() {
            return Ok(NameConstraint::Addresses(net.trunc()));
        }
        let domain = bare.strip_prefix("*.").or_else(|| bare.strip_prefix('.')).unwrap_or(bare);
        let domain = domain.strip_suffix('.').unwrap_or(domain).to_ascii_lowercase();
        let label = |label: &str| {
            let plain = label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
            plain && !label.is_empty() && label.len() <= 63
        };
        if domain.len() > 253 || !domain.split('.').all(label) {
            return Err(NameConstraintError::NotADomain(text.to_owned()));
        }
        Ok(NameConstraint::Domain(domain))
    }
}

impl fmt::Display for NameConstraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NameConstraint::Addresses(net) if net.prefix_len() == net.max_prefix_len() => write!(f, "{}", net.addr()),
            NameConstraint::Addresses(net) => write!(f, "{net}"),
            NameConstraint::Domain(domain) => f.write_str(domain),
        }
    }
}

/// The name constraints of one CA certificate. Without any, it may vouch for anything.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Constraints {
    permitted: Vec<NameConstraint>,
    excluded: Vec<NameConstraint>,
    /// An excluded DNS subtree that is empty: it covers every DNS name.
    excludes_all_domains: bool,
}

impl Constraints {
    /// None: it may vouch for anything.
    pub const NONE: Self = Self { permitted: Vec::new(), excluded: Vec::new(), excludes_all_domains: false };

    /// Constraints that permit this and nothing else.
    pub fn only(permits: &[NameConstraint]) -> Result<Self, NameConstraintError> {
        if permits.is_empty() {
            return Err(NameConstraintError::Nothing);
        }
        let mut permitted = permits.to_vec();
        permitted.sort();
        permitted.dedup();
        let any = |test: fn(&NameConstraint) -> bool| permits.iter().any(test);
        if !any(|permit| matches!(permit, NameConstraint::Domain(_))) {
            permitted.push(NameConstraint::Domain(NOWHERE.to_owned()));
        }
        let mut excluded = Vec::new();
        if !any(|permit| matches!(permit, NameConstraint::Addresses(IpNet::V4(_)))) {
            excluded.push(NameConstraint::Addresses(IpNet::V4(Ipv4Net::default())));
        }
        if !any(|permit| matches!(permit, NameConstraint::Addresses(IpNet::V6(_)))) {
            excluded.push(NameConstraint::Addresses(IpNet::V6(Ipv6Net::default())));
        }
        Ok(Self { permitted, excluded, excludes_all_domains: false })
    }

    /// Reads them from a certificate.
    pub(super) fn read(certificate: &X509Certificate<'_>) -> Result<Self, NameConstraintError> {
        let found = certificate.name_constraints().map_err(|_| NameConstraintError::Unreadable)?;
        let Some(found) = found else { return Ok(Self::default()) };
        let mut read = Self::default();
        for subtree in found.value.permitted_subtrees.iter().flatten() {
            // An empty permitted subtree permits every DNS name: the same as none.
            if let Some(permit) = one(subtree, &mut false)? {
                read.permitted.push(permit);
            }
        }
        for subtree in found.value.excluded_subtrees.iter().flatten() {
            if let Some(permit) = one(subtree, &mut read.excludes_all_domains)? {
                read.excluded.push(permit);
            }
        }
        Ok(read)
    }

    /// Returns whether there are no constraints at all.
    pub fn is_empty(&self) -> bool {
        self.permitted.is_empty() && self.excluded.is_empty() && !self.excludes_all_domains
    }

    /// Returns the permitted subtrees, and those that are excluded from them.
    pub fn subtrees(&self) -> (&[NameConstraint], &[NameConstraint]) {
        (&self.permitted, &self.excluded)
    }

    /// Returns whether a host of this name may be vouched for. `domain` is lower case, without a trailing dot.
    pub fn permits_domain(&self, domain: &str) -> bool {
        let holds = |permit: &NameConstraint| match permit {
            NameConstraint::Addresses(_) => None,
            NameConstraint::Domain(parent) => Some(covers(parent, domain)),
        };
        !self.excludes_all_domains && self.judge(holds)
    }

    /// Returns whether a host at this address may be vouched for.
    pub fn permits_address(&self, address: IpAddr) -> bool {
        let holds = |permit: &NameConstraint| match permit {
            NameConstraint::Addresses(net) => Some(net.contains(&address)),
            NameConstraint::Domain(_) => None,
        };
        self.judge(holds)
    }

    /// `holds` says nothing about subtrees of another kind.
    fn judge(&self, holds: impl Fn(&NameConstraint) -> Option<bool>) -> bool {
        let mut permitted = self.permitted.iter().filter_map(&holds).peekable();
        let is_permitted = permitted.peek().is_none() || permitted.any(|held| held);
        is_permitted && !self.excluded.iter().filter_map(&holds).any(|held| held)
    }

    /// As they go into a certificate; absent where there are none.
    pub(super) fn extension(&self) -> Option<NameConstraints> {
        let subtrees = |permits: &[NameConstraint]| {
            let subtree = |permit: &NameConstraint| match permit {
                NameConstraint::Addresses(net) => {
                    GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(net.addr(), net.prefix_len()))
                }
                NameConstraint::Domain(domain) => GeneralSubtree::DnsName(domain.clone()),
            };
            permits.iter().map(subtree).collect()
        };
        (!self.is_empty()).then(|| NameConstraints {
            permitted_subtrees: subtrees(&self.permitted),
            excluded_subtrees: subtrees(&self.excluded),
        })
    }
}

impl fmt::Display for Constraints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("any host");
        }
        let list =
            |permits: &[NameConstraint]| permits.iter().map(NameConstraint::to_string).collect::<Vec<_>>().join(", ");
        let named: Vec<NameConstraint> = self
            .permitted
            .iter()
            .filter(|permit| **permit != NameConstraint::Domain(NOWHERE.to_owned()))
            .cloned()
            .collect();
        f.write_str(&if named.is_empty() { "nothing named".to_owned() } else { list(&named) })?;
        let excluded = list(&self.excluded);
        if excluded == "0.0.0.0/0, ::/0" {
            return f.write_str("; no IP addresses");
        }
        if excluded.is_empty() { Ok(()) } else { write!(f, "; not {excluded}") }
    }
}

/// A domain constraint covers the domain and all below it.
fn covers(parent: &str, domain: &str) -> bool {
    let below = domain.strip_suffix(parent);
    below.is_some_and(|below| below.is_empty() || below.ends_with('.'))
}

/// One subtree. Kinds of names that a server's certificate does not carry say nothing to us.
fn one(subtree: &ReadSubtree<'_>, all_domains: &mut bool) -> Result<Option<NameConstraint>, NameConstraintError> {
    match &subtree.base {
        GeneralName::DNSName("") => {
            *all_domains = true;
            Ok(None)
        }
        GeneralName::DNSName(domain) => {
            NameConstraint::parse(domain).map(Some).map_err(|_| NameConstraintError::Unreadable)
        }
        GeneralName::IPAddress(bytes) => {
            let net = network(bytes).ok_or(NameConstraintError::Unreadable)?;
            Ok(Some(NameConstraint::Addresses(net)))
        }
        // A certificate issued here names a DNS name or an address, nothing else.
        GeneralName::DirectoryName(_) | GeneralName::RFC822Name(_) | GeneralName::URI(_) => Ok(None),
        GeneralName::EDIPartyName(_)
        | GeneralName::Invalid(..)
        | GeneralName::OtherName(..)
        | GeneralName::RegisteredID(_)
        | GeneralName::X400Address(_) => Err(NameConstraintError::Unreadable),
    }
}

/// An address and a mask of the same length.
fn network(bytes: &[u8]) -> Option<IpNet> {
    let (address, mask) = bytes.split_at_checked(bytes.len() / 2)?;
    if let (Ok(address), Ok(mask)) = (<[u8; 4]>::try_from(address), <[u8; 4]>::try_from(mask)) {
        return Ipv4Net::with_netmask(Ipv4Addr::from(address), Ipv4Addr::from(mask)).ok().map(IpNet::V4);
    }
    let (address, mask) = (<[u8; 16]>::try_from(address).ok()?, <[u8; 16]>::try_from(mask).ok()?);
    Ipv6Net::with_netmask(Ipv6Addr::from(address), Ipv6Addr::from(mask)).ok().map(IpNet::V6)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(texts: &[&str]) -> Constraints {
        let permits: Vec<NameConstraint> = texts.iter().map(|text| NameConstraint::parse(text).expect(text)).collect();
        Constraints::only(&permits).expect("something is permitted")
    }

    #[test]
    fn a_domain_covers_itself_and_what_is_below_it() {
        let bank = only(&["*.Bank.example", "10.0.0.0/8"]);
        for (host, permitted) in [
            ("bank.example", true),
            ("api.bank.example", true),
            ("a.b.bank.example", true),
            ("notbank.example", false),
            ("example", false),
            ("bank.example.evil", false),
        ] {
            assert_eq!(bank.permits_domain(host), permitted, "{host}");
        }
        assert!(bank.permits_address("10.1.2.3".parse().expect("an address")));
        assert!(!bank.permits_address("11.1.2.3".parse().expect("an address")));
        assert!(!bank.permits_address("::1".parse().expect("an address")), "the other family is not left open");
    }

    #[test]
    fn a_kind_of_name_that_is_not_permitted_is_closed() {
        assert!(!only(&["bank.example"]).permits_address("127.0.0.1".parse().expect("an address")));
        assert!(!only(&["127.0.0.1"]).permits_domain("bank.example"));
        assert!(Constraints::default().permits_domain("bank.example"));
        assert!(Constraints::only(&[]).is_err());
    }

    #[test]
    fn what_is_no_domain_is_refused() {
        for text in ["", ".", "*", "a..b", "bank example", "bänk.example", "10.0.0.0/33", "https://bank.example"] {
            assert!(NameConstraint::parse(text).is_err(), "{text}");
        }
        assert_eq!(NameConstraint::parse("[::1]").expect("an address").to_string(), "::1");
        assert_eq!(only(&["b.example", "a.example", "b.example"]).to_string(), "a.example, b.example; no IP addresses");
    }
}
