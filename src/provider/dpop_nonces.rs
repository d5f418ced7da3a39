//! The nonces that a provider's servers want to see in proofs (RFC 9449 section 8), by the origin that gave them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use http::{HeaderMap, HeaderName};

/// The most origins whose nonces are kept. A provider has two or three; the longest unheard of is forgotten.
const MOST_ORIGINS: usize = 16;
/// The longest nonce that is accepted, in bytes: it goes back in every proof.
const LONGEST: usize = 1024;

/// The header field that holds a nonce.
const DPOP_NONCE: HeaderName = HeaderName::from_static("dpop-nonce");

/// The role in which an origin gave a nonce. One origin may be both servers, each with nonces of its own (RFC 9449
/// section 9).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DpopServer {
    Authorization,
    Resource,
}

/// The latest nonce of each origin, shared by all threads.
#[derive(Debug, Default)]
pub struct DpopNonces(Mutex<VecDeque<KnownNonce>>);

#[derive(Debug)]
struct KnownNonce {
    server: DpopServer,
    authority: Box<str>,
    nonce: Arc<str>,
}

impl DpopNonces {
    /// Returns the nonce for the next proof to this server; `None` if it has given none.
    pub fn find(&self, server: DpopServer, authority: &str) -> Option<Arc<str>> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = known.iter().find(|known| known.server == server && *known.authority == *authority);
        found.map(|found| found.nonce.clone())
    }

    /// Takes the nonce of an answer, whatever its status is (RFC 9449 section 8.2).
    pub fn learn(&self, server: DpopServer, authority: &str, headers: &HeaderMap) {
        let Some(nonce) = nonce(headers) else { return };
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = known.iter().position(|known| known.server == server && *known.authority == *authority);
        match at {
            Some(0) if known.front().is_some_and(|first| *first.nonce == *nonce) => return,
            Some(at) => drop(known.remove(at)),
            None => known.truncate(MOST_ORIGINS - 1),
        }
        known.push_front(KnownNonce { server, authority: authority.into(), nonce: nonce.into() });
    }
}

/// Returns the nonce that an answer gives. One that is malformed, or two, are none.
pub(super) fn nonce(headers: &HeaderMap) -> Option<&str> {
    let mut given = headers.get_all(DPOP_NONCE).iter();
    let (Some(one), None) = (given.next(), given.next()) else { return None };
    // RFC 9449 section 8.1: NQCHAR of RFC 6749.
    let fits = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
    one.to_str().ok().filter(|nonce| (1..=LONGEST).contains(&nonce.len()) && nonce.bytes().all(fits))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn answer(nonces: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for nonce in nonces {
            headers.append(DPOP_NONCE, HeaderValue::from_str(nonce).expect("a header value"));
        }
        headers
    }

    #[test]
    fn the_latest_nonce_of_each_server_counts_for_that_server_alone() {
        let nonces = DpopNonces::default();
        let find = |server, authority| nonces.find(server, authority).map(|nonce| nonce.to_string());
        nonces.learn(DpopServer::Authorization, "as.example", &answer(&["one"]));
        nonces.learn(DpopServer::Resource, "as.example", &answer(&["two"]));
        nonces.learn(DpopServer::Resource, "api.example:8443", &answer(&["three"]));
        nonces.learn(DpopServer::Resource, "as.example", &answer(&["four"]));
        nonces.learn(DpopServer::Resource, "as.example", &answer(&[]));
        assert_eq!(find(DpopServer::Authorization, "as.example").as_deref(), Some("one"));
        assert_eq!(find(DpopServer::Resource, "as.example").as_deref(), Some("four"));
        assert_eq!(find(DpopServer::Resource, "api.example:8443").as_deref(), Some("three"));
        assert_eq!(find(DpopServer::Resource, "api.example"), None);
    }

    #[test]
    fn what_is_no_nonce_is_not_learned() {
        let long = "n".repeat(LONGEST + 1);
        for odd in [&["a", "b"][..], &[""], &["a b"], &["a\"b"], &["a\\b"], &[&long]] {
            let nonces = DpopNonces::default();
            nonces.learn(DpopServer::Resource, "api.example", &answer(odd));
            assert_eq!(nonces.find(DpopServer::Resource, "api.example"), None, "{odd:?}");
        }
    }

    #[test]
    fn origins_are_kept_up_to_a_limit_and_the_oldest_goes() {
        let nonces = DpopNonces::default();
        for number in 0..100 {
            nonces.learn(DpopServer::Resource, &format!("api{number}.example"), &answer(&["n"]));
            nonces.learn(DpopServer::Resource, "api0.example", &answer(&["n"]));
        }
        let kept =
            (0..100).filter(|number| nonces.find(DpopServer::Resource, &format!("api{number}.example")).is_some());
        assert_eq!(kept.collect::<Vec<_>>(), [vec![0], (85..100).collect()].concat());
    }
}
