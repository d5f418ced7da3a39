//! Identification of the caller: by a certificate, the user at the other end of a socket, a key or signed token, or the
//! network.
//!
//! The strongest evidence wins. Facts that the connection itself proves are read once, when it opens, and kept in
//! [`Peer`]; the client that they identify is looked up per request, so that a new config needs no new connections. A
//! key is looked up by its SHA-256 and compared in constant time; a failure touches no provider state and does not
//! reveal which part was wrong.

use std::net::IpAddr;
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, PROXY_AUTHORIZATION};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::base::secret::sha256;
use crate::base::time::{Deadline, Now};
use crate::config::{Clients, ListenerAccess};
use crate::control::Issuers;
use crate::route::{Caller, ClientId};
use crate::serve::requests::jwt::{self, Recent};
use crate::tls::LeafIdentity;

/// The other end of a connection, as far as the connection tells.
#[derive(Debug, Default)]
pub struct Peer {
    /// Its address, or the one that a trusted balancer reports; absent: it has none, or it is not known.
    pub address: Option<IpAddr>,
    /// The certificate that TLS verified.
    pub certificate: Option<LeafIdentity>,
    /// The user at the other end of a Unix socket.
    pub uid: Option<u32>,
    /// The last signed token that came over it.
    pub recent: Recent,
}

/// The caller could not be identified, or is not let in by this listener.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum IdentifyError {
    /// Identified, but this listener is for others.
    NotLetIn(ClientId),
    /// No evidence identifies the caller, and no credentials were sent.
    Unknown,
    /// Credentials were sent, but they identify no client.
    Wrong,
}

/// Against what a request is held.
#[derive(Clone, Copy)]
pub struct IdentifyContext<'a> {
    pub access: &'a ListenerAccess,
    pub clients: &'a Clients,
    /// The cached public keys of the token issuers.
    pub issuers: &'a Issuers,
    pub now: Now,
    /// We are the proxy that the caller was told of: `Authorization` is meant for the provider, not for us.
    pub as_proxy: bool,
}

/// A caller, and the time until which its proof holds. Code that remembers the caller has to identify it again then.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Proven {
    pub caller: Caller,
    /// When the proof ends; absent: it holds as long as the config.
    pub until: Option<Deadline>,
}

/// A client, and how long its proof holds.
type IdentifiedClient = (ClientId, Option<Deadline>);

/// Identifies the caller of one request. Waits only for the keys of a token's issuer, and only where there are none yet.
pub async fn identify(context: IdentifyContext<'_>, peer: &Peer, headers: &HeaderMap) -> Result<Caller, IdentifyError> {
    prove(context, peer, headers).await.map(|proven| proven.caller)
}

/// The same, with the end of the proof.
pub async fn prove(context: IdentifyContext<'_>, peer: &Peer, headers: &HeaderMap) -> Result<Proven, IdentifyError> {
    let IdentifyContext { access, clients, .. } = context;
    let shown = by_certificate(context, peer).or_else(|| by_uid(clients, peer).map(|client| (client, None)));
    // Proxy-Authorization is meant for countersign alone: if it is wrong, the request is refused, even if other
    // evidence identifies the caller.
    if headers.contains_key(PROXY_AUTHORIZATION) {
        let (named, claim_ends) =
            by_claim(context, peer, headers, &PROXY_AUTHORIZATION).await.ok_or(IdentifyError::Wrong)?;
        let (client, ends) = shown.unwrap_or((named, None));
        return accept(access, (client, earlier(ends, claim_ends)));
    }
    if *access == ListenerAccess::Anyone {
        return Ok(Proven { caller: Caller::Anyone, until: None });
    }
    if let Some(client) = shown {
        return accept(access, client);
    }
    let claimed = !context.as_proxy && headers.contains_key(AUTHORIZATION);
    let named = if claimed { by_claim(context, peer, headers, &AUTHORIZATION).await } else { None };
    match named.or_else(|| by_network(clients, peer).map(|client| (client, None))) {
        Some(client) => accept(access, client),
        None if claimed => Err(IdentifyError::Wrong),
        None => Err(IdentifyError::Unknown),
    }
}

fn accept(access: &ListenerAccess, (client, until): IdentifiedClient) -> Result<Proven, IdentifyError> {
    let_in(access, client).map(|caller| Proven { caller, until })
}

fn earlier(one: Option<Deadline>, other: Option<Deadline>) -> Option<Deadline> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (only, None) | (None, only) => only,
    }
}

/// Returns the client as the caller if this listener is open to it, otherwise [`IdentifyError::NotLetIn`].
pub(in crate::serve) fn let_in(access: &ListenerAccess, client: ClientId) -> Result<Caller, IdentifyError> {
    match access {
        ListenerAccess::Anyone | ListenerAccess::Identified => Ok(Caller::Client(client)),
        ListenerAccess::Listed(listed) if listed.contains(&client) => Ok(Caller::Client(client)),
        ListenerAccess::Listed(_) => Err(IdentifyError::NotLetIn(client)),
    }
}

/// The client that the verified certificate names: by URI, then DNS name, then common name.
fn by_certificate(context: IdentifyContext<'_>, peer: &Peer) -> Option<IdentifiedClient> {
    let leaf = peer.certificate.as_ref()?;
    if context.now.unix_seconds() > leaf.until {
        return None;
    }
    let named = leaf.names.iter().find_map(|name| context.clients.by_certificate.get(name).copied());
    // It counts in the second that it names, and is looked at again within a day.
    let left = leaf.until.saturating_add(1).saturating_mul(1000).saturating_sub(context.now.wall);
    let until = Deadline::after(context.now, Duration::from_millis(left).min(Duration::from_secs(24 * 3600)));
    named.filter(|id| reaches(context.clients, *id, peer)).map(|id| (id, Some(until)))
}

fn by_uid(clients: &Clients, peer: &Peer) -> Option<ClientId> {
    clients.by_uid.get(&peer.uid?).copied().filter(|id| reaches(clients, *id, peer))
}

/// Reads the one field of this name, `Bearer KEY`, `Bearer TOKEN` or `Basic base64(name:KEY)`, and finds whose it is.
async fn by_claim(
    context: IdentifyContext<'_>,
    peer: &Peer,
    headers: &HeaderMap,
    field: &HeaderName,
) -> Option<IdentifiedClient> {
    let mut fields = headers.get_all(field).iter();
    let (claim, None) = (fields.next()?, fields.next()) else { return None };
    let (scheme, rest) = scheme(claim)?;
    let named = if scheme.eq_ignore_ascii_case("bearer") {
        let digest = sha256(rest.as_bytes());
        match owner(context.clients, &digest) {
            Some(id) => (id, None),
            None => {
                let signed = jwt::owner(context.clients, context.issuers, &peer.recent, rest, &digest, context.now);
                let (id, until) = Box::pin(signed).await?;
                (id, Some(until))
            }
        }
    } else if scheme.eq_ignore_ascii_case("basic") {
        (by_basic(context.clients, rest)?, None)
    } else {
        return None;
    };
    Some(named).filter(|(id, _)| reaches(context.clients, *id, peer))
}

fn scheme(claim: &HeaderValue) -> Option<(&str, &str)> {
    let (scheme, rest) = claim.to_str().ok()?.split_once(' ')?;
    Some((scheme, rest.trim_start_matches(' ')))
}

fn by_basic(clients: &Clients, encoded: &str) -> Option<ClientId> {
    let decoded = STANDARD.decode(encoded).ok()?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    let (name, key) = decoded.split_at(colon);
    let id = owner(clients, &sha256(key.get(1..)?))?;
    let known = clients.all.get(usize::from(id.0))?;
    (known.name.as_bytes() == name).then_some(id)
}

/// Returns the client whose key has this digest.
fn owner(clients: &Clients, digest: &[u8; 32]) -> Option<ClientId> {
    let (known, id) = clients.by_key.get_key_value(digest)?;
    verify_slices_are_equal(known, digest).ok()?;
    Some(*id)
}

/// Returns whether a client may call from the peer's address. A peer without an address is in no network.
fn reaches(clients: &Clients, id: ClientId, peer: &Peer) -> bool {
    let contains = |address| move |network: &ipnet::IpNet| network.contains(&address);
    clients.all.get(usize::from(id.0)).is_some_and(|client| {
        let networks = &client.networks;
        networks.is_empty() || peer.address.is_some_and(|address: IpAddr| networks.iter().any(contains(address)))
    })
}

/// The client whose network alone identifies it.
fn by_network(clients: &Clients, peer: &Peer) -> Option<ClientId> {
    let address = peer.address?;
    let within = |network: &ipnet::IpNet| network.contains(&address);
    let at = clients.all.iter().position(|client| client.networks_only && client.networks.iter().any(within))?;
    u16::try_from(at).ok().map(ClientId)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::base::time::Clock;
    use crate::config::ClientConfig;
    use crate::tls::CertName;

    fn clients() -> Clients {
        let client = |name: &str, networks: &[&str], networks_only| ClientConfig {
            name: name.into(),
            networks: networks.iter().map(|text| text.parse().unwrap()).collect(),
            networks_only,
            vars: Vec::new(),
            users: crate::config::Users::Only(Vec::new()),
            consent_group: None,
        };
        let mut made = Clients {
            all: vec![
                client("erp", &[], false),
                client("treasury", &["10.1.0.0/16"], false),
                client("batch", &["192.168.7.0/24"], true),
                client("audit", &["10.1.0.0/16"], false),
            ],
            ..Clients::default()
        };
        made.by_key.insert(sha256(b"erp-key"), ClientId(0));
        made.by_key.insert(sha256(b"erp-key-2"), ClientId(0));
        made.by_key.insert(sha256(b"treasury-key"), ClientId(1));
        made.by_certificate.insert(CertName::Uri("spiffe://corp/erp".to_owned()), ClientId(0));
        made.by_certificate.insert(CertName::CommonName("audit".to_owned()), ClientId(3));
        made.by_uid.insert(1001, ClientId(0));
        made
    }

    fn call(access: &ListenerAccess, peer: &str, fields: &[(http::HeaderName, &str)]) -> Result<Caller, IdentifyError> {
        from(access, &Peer { address: peer.parse().ok(), ..Peer::default() }, fields)
    }

    fn from(
        access: &ListenerAccess,
        peer: &Peer,
        fields: &[(http::HeaderName, &str)],
    ) -> Result<Caller, IdentifyError> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(name, value.parse().unwrap());
        }
        let (issuers, _fetcher) = Issuers::open(Clock::System);
        let context = IdentifyContext {
            access,
            clients: &clients(),
            issuers: &issuers,
            now: Now::at(0, 1_795_000_000_000),
            as_proxy: false,
        };
        identify(context, peer, &headers).now_or_never().unwrap()
    }

    fn basic(text: &str) -> String {
        format!("Basic {}", STANDARD.encode(text))
    }

    #[test]
    fn a_key_identifies_as_bearer_or_basic_under_its_own_name_only() {
        let erp = Ok(Caller::Client(ClientId(0)));
        let strict = ListenerAccess::Identified;
        assert_eq!(call(&strict, "127.0.0.1", &[(AUTHORIZATION, "Bearer erp-key")]), erp);
        assert_eq!(call(&strict, "127.0.0.1", &[(AUTHORIZATION, "bearer  erp-key")]), erp);
        assert_eq!(call(&strict, "127.0.0.1", &[(AUTHORIZATION, &basic("erp:erp-key"))]), erp);
        assert_eq!(call(&strict, "127.0.0.1", &[(PROXY_AUTHORIZATION, &basic("erp:erp-key"))]), erp);
        for wrong in ["Bearer nope", "Bearer ", "erp-key", "Basic !!!", &basic("treasury:erp-key"), &basic("erp")] {
            assert_eq!(call(&strict, "127.0.0.1", &[(AUTHORIZATION, wrong)]), Err(IdentifyError::Wrong), "{wrong}");
        }
        assert_eq!(call(&strict, "127.0.0.1", &[]), Err(IdentifyError::Unknown));
    }

    #[test]
    fn a_network_restricts_a_key_and_identifies_alone_only_when_told_to() {
        let strict = ListenerAccess::Identified;
        let key = [(AUTHORIZATION, "Bearer treasury-key")];
        assert_eq!(call(&strict, "10.1.2.3", &key), Ok(Caller::Client(ClientId(1))));
        assert_eq!(call(&strict, "10.2.2.3", &key), Err(IdentifyError::Wrong));
        assert_eq!(call(&strict, "10.1.2.3", &[]), Err(IdentifyError::Unknown));
        assert_eq!(call(&strict, "192.168.7.9", &[]), Ok(Caller::Client(ClientId(2))));
        let foreign = [(AUTHORIZATION, "Bearer somebody-elses-token")];
        assert_eq!(call(&strict, "192.168.7.9", &foreign), Ok(Caller::Client(ClientId(2))), "not ours: ignored");
    }

    #[test]
    fn proxy_authorization_must_be_right_even_where_anyone_may_call() {
        let wrong = [(PROXY_AUTHORIZATION, "Bearer nope")];
        assert_eq!(call(&ListenerAccess::Anyone, "127.0.0.1", &wrong), Err(IdentifyError::Wrong));
        assert_eq!(call(&ListenerAccess::Anyone, "127.0.0.1", &[(AUTHORIZATION, "Bearer nope")]), Ok(Caller::Anyone));
        assert_eq!(call(&ListenerAccess::Identified, "192.168.7.9", &wrong), Err(IdentifyError::Wrong));
    }

    #[test]
    fn a_listener_for_others_does_not_let_in() {
        let others = ListenerAccess::Listed(vec![ClientId(1)]);
        let erp = [(AUTHORIZATION, "Bearer erp-key")];
        assert_eq!(call(&others, "127.0.0.1", &erp), Err(IdentifyError::NotLetIn(ClientId(0))));
    }

    #[test]
    fn both_keys_count_while_one_replaces_the_other() {
        for key in ["Bearer erp-key", "Bearer erp-key-2"] {
            assert_eq!(
                call(&ListenerAccess::Identified, "127.0.0.1", &[(AUTHORIZATION, key)]),
                Ok(Caller::Client(ClientId(0)))
            );
        }
    }

    #[test]
    fn two_credentials_in_one_request_are_none() {
        let twice = |name: HeaderName| [(name.clone(), "Bearer erp-key"), (name, "Bearer erp-key")];
        let strict = ListenerAccess::Identified;
        assert_eq!(call(&strict, "127.0.0.1", &twice(AUTHORIZATION)), Err(IdentifyError::Wrong));
        assert_eq!(call(&strict, "127.0.0.1", &twice(PROXY_AUTHORIZATION)), Err(IdentifyError::Wrong));
    }

    fn shown(names: &[CertName], until: u64, address: &str) -> Peer {
        let certificate = Some(LeafIdentity { names: names.to_vec(), until });
        Peer { address: address.parse().ok(), certificate, ..Peer::default() }
    }

    #[test]
    fn a_certificate_beats_a_key_and_must_still_be_valid() {
        let erp = CertName::Uri("spiffe://corp/erp".to_owned());
        let strict = ListenerAccess::Identified;
        let treasury = [(AUTHORIZATION, "Bearer treasury-key")];
        let good = shown(std::slice::from_ref(&erp), 1_795_000_000, "10.1.2.3");
        assert_eq!(from(&strict, &good, &[]), Ok(Caller::Client(ClientId(0))));
        assert_eq!(from(&strict, &good, &treasury), Ok(Caller::Client(ClientId(0))));
        assert_eq!(
            from(&strict, &good, &[(AUTHORIZATION, "Bearer of-somebody-else")]),
            Ok(Caller::Client(ClientId(0)))
        );
        assert_eq!(from(&strict, &good, &[(PROXY_AUTHORIZATION, "Bearer nope")]), Err(IdentifyError::Wrong));
        let expired = shown(&[erp], 1_794_999_999, "10.1.2.3");
        assert_eq!(from(&strict, &expired, &[]), Err(IdentifyError::Unknown));
        assert_eq!(from(&strict, &expired, &treasury), Ok(Caller::Client(ClientId(1))));
        for other in [CertName::Dns("spiffe://corp/erp".to_owned()), CertName::Uri("spiffe://corp/erp/x".to_owned())] {
            assert_eq!(from(&strict, &shown(&[other], u64::MAX, "10.1.2.3"), &[]), Err(IdentifyError::Unknown));
        }
    }

    #[test]
    fn a_proof_by_certificate_ends_with_it_and_one_by_key_does_not() {
        let now = Now::at(0, 1_795_000_000_000);
        let prove = |peer: &Peer, fields: &[(http::HeaderName, &str)]| {
            let headers: HeaderMap =
                fields.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
            let (issuers, _fetcher) = Issuers::open(Clock::System);
            let (access, clients) = (&ListenerAccess::Identified, &clients());
            let context = IdentifyContext { access, clients, issuers: &issuers, now, as_proxy: false };
            prove(context, peer, &headers).now_or_never().unwrap().unwrap().until
        };
        let erp = [CertName::Uri("spiffe://corp/erp".to_owned())];
        let until = prove(&shown(&erp, 1_795_000_009, "10.1.2.3"), &[]).expect("an end");
        assert!(!until.passed(Now::at(9_999, 1_795_000_009_999)));
        assert!(until.passed(Now::at(10_000, 0)) && until.passed(Now::at(0, 1_795_000_010_000)), "either clock");
        assert!(prove(&shown(&erp, u64::MAX, "10.1.2.3"), &[]).is_some(), "it is looked at again some day");
        let key = [(PROXY_AUTHORIZATION, "Bearer treasury-key")];
        assert_eq!(prove(&shown(&erp, 1_795_000_009, "10.1.2.3"), &key), Some(until), "both have to hold");
        assert_eq!(prove(&shown(&[], 1_795_000_009, "10.1.2.3"), &key), None);
    }

    #[test]
    fn a_network_restricts_a_certificate_and_who_has_no_address_is_in_none() {
        let audit = [CertName::CommonName("audit".to_owned())];
        let strict = ListenerAccess::Identified;
        assert_eq!(from(&strict, &shown(&audit, u64::MAX, "10.1.2.3"), &[]), Ok(Caller::Client(ClientId(3))));
        assert_eq!(from(&strict, &shown(&audit, u64::MAX, "10.2.2.3"), &[]), Err(IdentifyError::Unknown));
        assert_eq!(from(&strict, &shown(&audit, u64::MAX, "-"), &[]), Err(IdentifyError::Unknown));
        let treasury = [(AUTHORIZATION, "Bearer treasury-key")];
        assert_eq!(from(&strict, &Peer::default(), &treasury), Err(IdentifyError::Wrong));
    }

    #[test]
    fn a_local_user_is_a_client() {
        let strict = ListenerAccess::Identified;
        let user = |uid| Peer { uid: Some(uid), ..Peer::default() };
        assert_eq!(from(&strict, &user(1001), &[]), Ok(Caller::Client(ClientId(0))));
        assert_eq!(from(&strict, &user(1002), &[]), Err(IdentifyError::Unknown));
        assert_eq!(from(&strict, &user(0), &[]), Err(IdentifyError::Unknown), "root is nobody special");
    }
}
