//! Who is calling: a key in the request, or the network it comes from.
//!
//! The strongest evidence wins. A key is looked up by its SHA-256 and compared in constant time; a failure touches no
//! provider state and says nothing about which part was wrong.

use std::net::IpAddr;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, PROXY_AUTHORIZATION};
use http::{HeaderMap, HeaderValue};

use crate::base::secret::sha256;
use crate::config::{Access, Clients};
use crate::route::{Caller, ClientId};

/// The caller could not be identified, or is not let in by this listener.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stranger {
    /// Identified, but this listener is for others.
    NotLetIn(ClientId),
    /// No or wrong credentials.
    Unknown,
}

/// Identifies the caller of one request.
pub fn identify(access: &Access, clients: &Clients, peer: IpAddr, headers: &HeaderMap) -> Result<Caller, Stranger> {
    // Proxy-Authorization is meant for us and nobody else: wrong is wrong, whatever else speaks for the caller.
    if let Some(claim) = headers.get(PROXY_AUTHORIZATION) {
        let client = by_key(clients, claim).filter(|id| reaches(clients, *id, peer)).ok_or(Stranger::Unknown)?;
        return let_in(access, client);
    }
    let by_authorization = match access {
        Access::Anyone => None,
        Access::Identified | Access::Listed(_) => headers.get(AUTHORIZATION).and_then(|claim| by_key(clients, claim)),
    };
    let client = by_authorization.filter(|id| reaches(clients, *id, peer)).or_else(|| by_network(clients, peer));
    match (client, access) {
        (_, Access::Anyone) => Ok(Caller::Anyone),
        (Some(client), Access::Identified | Access::Listed(_)) => let_in(access, client),
        (None, Access::Identified | Access::Listed(_)) => Err(Stranger::Unknown),
    }
}

fn let_in(access: &Access, client: ClientId) -> Result<Caller, Stranger> {
    match access {
        Access::Anyone | Access::Identified => Ok(Caller::Client(client)),
        Access::Listed(listed) if listed.contains(&client) => Ok(Caller::Client(client)),
        Access::Listed(_) => Err(Stranger::NotLetIn(client)),
    }
}

/// Reads `Bearer KEY` or `Basic base64(name:KEY)` and finds whose key it is.
fn by_key(clients: &Clients, claim: &HeaderValue) -> Option<ClientId> {
    let claim = claim.to_str().ok()?;
    let (scheme, rest) = claim.split_once(' ')?;
    let rest = rest.trim_start_matches(' ');
    if scheme.eq_ignore_ascii_case("bearer") {
        return owner(clients, rest.as_bytes());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = STANDARD.decode(rest).ok()?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    let (name, key) = decoded.split_at(colon);
    let id = owner(clients, key.get(1..)?)?;
    let known = clients.all.get(usize::from(id.0))?;
    (known.name.as_bytes() == name).then_some(id)
}

fn owner(clients: &Clients, key: &[u8]) -> Option<ClientId> {
    let digest = sha256(key);
    let (known, id) = clients.by_key.get_key_value(&digest)?;
    verify_slices_are_equal(known, &digest).ok()?;
    Some(*id)
}

/// Whether a client may call from there.
fn reaches(clients: &Clients, id: ClientId, peer: IpAddr) -> bool {
    clients.all.get(usize::from(id.0)).is_some_and(|client| {
        client.networks.is_empty() || client.networks.iter().any(|network| network.contains(&peer))
    })
}

/// The client whose network alone identifies it.
fn by_network(clients: &Clients, peer: IpAddr) -> Option<ClientId> {
    let at = clients
        .all
        .iter()
        .position(|client| client.networks_only && client.networks.iter().any(|network| network.contains(&peer)))?;
    u16::try_from(at).ok().map(ClientId)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Client;

    fn clients() -> Clients {
        let client = |name: &str, networks: &[&str], networks_only| Client {
            name: name.into(),
            networks: networks.iter().map(|text| text.parse().unwrap()).collect(),
            networks_only,
            vars: Vec::new(),
        };
        let mut made = Clients {
            all: vec![
                client("erp", &[], false),
                client("treasury", &["10.1.0.0/16"], false),
                client("batch", &["192.168.7.0/24"], true),
            ],
            ..Clients::default()
        };
        made.by_key.insert(sha256(b"erp-key"), ClientId(0));
        made.by_key.insert(sha256(b"treasury-key"), ClientId(1));
        made
    }

    fn call(access: &Access, peer: &str, fields: &[(http::HeaderName, &str)]) -> Result<Caller, Stranger> {
        let headers = fields.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
        identify(access, &clients(), peer.parse().unwrap(), &headers)
    }

    fn basic(text: &str) -> String {
        format!("Basic {}", STANDARD.encode(text))
    }

    #[test]
    fn a_key_identifies_as_bearer_or_basic_under_its_own_name_only() {
        let erp = Ok(Caller::Client(ClientId(0)));
        let strict = Access::Identified;
        assert_eq!(call(&strict, "127.0.0.1", &[(AUTHORIZATION, "Bearer erp-key")]), erp);
        assert_eq!(call(&strict, "127.0.0.1", &[(AUTHORIZATION, "bearer  erp-key")]), erp);
        assert_eq!(call(&strict, "127.0.0.1", &[(AUTHORIZATION, &basic("erp:erp-key"))]), erp);
        assert_eq!(call(&strict, "127.0.0.1", &[(PROXY_AUTHORIZATION, &basic("erp:erp-key"))]), erp);
        for wrong in ["Bearer nope", "Bearer ", "erp-key", "Basic !!!", &basic("treasury:erp-key"), &basic("erp")] {
            assert_eq!(call(&strict, "127.0.0.1", &[(AUTHORIZATION, wrong)]), Err(Stranger::Unknown), "{wrong}");
        }
        assert_eq!(call(&strict, "127.0.0.1", &[]), Err(Stranger::Unknown));
    }

    #[test]
    fn a_network_restricts_a_key_and_identifies_alone_only_when_told_to() {
        let strict = Access::Identified;
        let key = [(AUTHORIZATION, "Bearer treasury-key")];
        assert_eq!(call(&strict, "10.1.2.3", &key), Ok(Caller::Client(ClientId(1))));
        assert_eq!(call(&strict, "10.2.2.3", &key), Err(Stranger::Unknown));
        assert_eq!(call(&strict, "10.1.2.3", &[]), Err(Stranger::Unknown));
        assert_eq!(call(&strict, "192.168.7.9", &[]), Ok(Caller::Client(ClientId(2))));
        let foreign = [(AUTHORIZATION, "Bearer somebody-elses-token")];
        assert_eq!(call(&strict, "192.168.7.9", &foreign), Ok(Caller::Client(ClientId(2))), "not ours: ignored");
    }

    #[test]
    fn proxy_authorization_must_be_right_even_where_anyone_may_call() {
        let wrong = [(PROXY_AUTHORIZATION, "Bearer nope")];
        assert_eq!(call(&Access::Anyone, "127.0.0.1", &wrong), Err(Stranger::Unknown));
        assert_eq!(call(&Access::Anyone, "127.0.0.1", &[(AUTHORIZATION, "Bearer nope")]), Ok(Caller::Anyone));
        assert_eq!(call(&Access::Identified, "192.168.7.9", &wrong), Err(Stranger::Unknown));
    }

    #[test]
    fn a_listener_for_others_does_not_let_in() {
        let others = Access::Listed(vec![ClientId(1)]);
        let erp = [(AUTHORIZATION, "Bearer erp-key")];
        assert_eq!(call(&others, "127.0.0.1", &erp), Err(Stranger::NotLetIn(ClientId(0))));
    }
}
