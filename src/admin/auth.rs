//! The identity of a visitor, and the role that limits what the visitor may do.
//!
//! If the config has no token (on loopback alone), every sender on the machine may do everything. If it has tokens, one
//! is sent as `Authorization: Bearer …`, and its role limits what it may do. Tokens are compared by their SHA-256, all
//! of them and in constant time. A peer that sends wrong tokens is slowed down; right ones are accepted at any rate.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use http::HeaderMap;
use http::header::AUTHORIZATION;

use crate::base::secret::sha256;
use crate::base::shares::network;
use crate::base::time::Now;
use crate::config::{AdminListenerConfig, AdminToken, Role};

/// Wrong tokens that a peer may show at once.
const BURST: u64 = 5;
/// It regains one in this many milliseconds.
const REGAIN: u64 = 1000;
/// Peers whose wrong tokens are remembered.
const MOST_PEERS: usize = 4096;
/// Maximum number of open event streams, live pages of the dashboard included.
pub(super) const MOST_STREAMS: u32 = 16;

/// The identity of the sender of a request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Visitor {
    /// A sender on this machine, from which no token is required because the config has none.
    Unrestricted,
    /// A sender that has presented this configured token.
    Known { name: Arc<str>, role: Role },
    /// Somebody without a token, or with a wrong one.
    Anonymous,
}

impl Visitor {
    /// Returns whether the visitor has at least this role.
    pub(crate) fn may(&self, needed: Role) -> bool {
        match self {
            Visitor::Unrestricted => true,
            Visitor::Known { role, .. } => *role >= needed,
            Visitor::Anonymous => false,
        }
    }

    /// Returns the name that logs, audit records and reloads use for the visitor: `admin`, or `admin:` and the name of
    /// the token.
    pub(crate) fn actor(&self) -> String {
        match self {
            Visitor::Unrestricted | Visitor::Anonymous => "admin".to_owned(),
            Visitor::Known { name, .. } => format!("admin:{name}"),
        }
    }
}

/// Reads the visitor from the `Authorization` field. Fails if the field holds a wrong token, or none in a known form.
pub(super) fn authenticate(admin_listener: &AdminListenerConfig, headers: &HeaderMap) -> Result<Visitor, WrongToken> {
    if admin_listener.tokens.is_empty() {
        return Ok(Visitor::Unrestricted);
    }
    let mut fields = headers.get_all(AUTHORIZATION).iter();
    let Some(field) = fields.next() else { return Ok(Visitor::Anonymous) };
    let bearer = field.as_bytes().split_at_checked(7).filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"bearer "));
    let shown = bearer.map(|(_, token)| token.trim_ascii()).filter(|_| fields.next().is_none());
    let token = shown.and_then(|shown| find(admin_listener, shown)).ok_or(WrongToken)?;
    Ok(Visitor::Known { name: token.name.clone(), role: token.role })
}

/// A wrong token was shown.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct WrongToken;

/// The token of this value. Looks at all of them, whichever it is.
pub(crate) fn find<'a>(admin_listener: &'a AdminListenerConfig, shown: &[u8]) -> Option<&'a AdminToken> {
    let shown = sha256(shown);
    let mut found = None;
    for token in &admin_listener.tokens {
        if verify_slices_are_equal(&token.sha256, &shown).is_ok() {
            found = Some(token);
        }
    }
    found
}

/// The admin listener's memory of each peer's wrong tokens, and its count of open streams.
#[derive(Clone, Debug, Default)]
pub struct AdminAuthorizer(Rc<AttemptMemory>);

#[derive(Debug, Default)]
struct AttemptMemory {
    /// When each peer will have regained all its failures, by the boot clock (the generic cell rate algorithm).
    failures: RefCell<HashMap<IpAddr, u64>>,
    streams: Cell<u32>,
}

/// One stream of events; gives its place back when dropped.
pub(super) struct StreamSlot(AdminAuthorizer);

impl AdminAuthorizer {
    /// Notes a wrong token. An error says how long this peer should wait before it tries again.
    pub(crate) fn note_failure(&self, peer: IpAddr, now: Now) -> Result<(), Duration> {
        let mut failures = self.0.failures.borrow_mut();
        if failures.len() >= MOST_PEERS {
            failures.retain(|_, full_at| *full_at > now.boot);
        }
        if failures.len() >= MOST_PEERS {
            failures.clear();
        }
        let full_at = failures.entry(network(peer)).or_default();
        let next = (*full_at).max(now.boot).saturating_add(REGAIN);
        let ahead = next.saturating_sub(now.boot);
        if ahead > BURST * REGAIN {
            return Err(Duration::from_millis(ahead - BURST * REGAIN));
        }
        *full_at = next;
        Ok(())
    }

    /// Counts a stream of events. `None`: there are too many.
    pub(super) fn take_stream_slot(&self) -> Option<StreamSlot> {
        let streams = self.0.streams.get();
        if streams >= MOST_STREAMS {
            return None;
        }
        self.0.streams.set(streams + 1);
        Some(StreamSlot(self.clone()))
    }
}

impl Drop for StreamSlot {
    fn drop(&mut self) {
        let streams = &self.0.0.streams;
        streams.set(streams.get().saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::config::AdminBind;

    fn admin_listener() -> AdminListenerConfig {
        let token =
            |name: &str, value: &str, role| AdminToken { name: name.into(), sha256: sha256(value.as_bytes()), role };
        AdminListenerConfig {
            bind: AdminBind::new("127.0.0.1:0".parse().unwrap(), None, &[]).unwrap(),
            tls: None,
            internal: None,
            open: Vec::new(),
            tokens: vec![token("eyes", "look", Role::Read), token("hands", "touch", Role::Operate)],
        }
    }

    fn shown(fields: &[&str]) -> Result<Visitor, WrongToken> {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(AUTHORIZATION, HeaderValue::from_str(field).unwrap());
        }
        authenticate(&admin_listener(), &headers)
    }

    #[test]
    fn a_token_is_known_by_its_value_alone() {
        let eyes = Visitor::Known { name: "eyes".into(), role: Role::Read };
        assert_eq!(shown(&["Bearer look"]), Ok(eyes.clone()));
        assert_eq!(shown(&["bearer  look"]), Ok(eyes.clone()));
        assert!(eyes.may(Role::Read) && !eyes.may(Role::Operate));
        assert_eq!(shown(&["Bearer touch"]).unwrap().actor(), "admin:hands");
        assert_eq!(shown(&[]), Ok(Visitor::Anonymous));
        for wrong in ["Bearer", "Bearer ", "Bearer Look", "Bearer look look", "Basic bG9vaw==", "look", "Bearer eyes"] {
            assert_eq!(shown(&[wrong]), Err(WrongToken), "{wrong}");
        }
        assert_eq!(shown(&["Bearer look", "Bearer touch"]), Err(WrongToken), "two fields are none");
        assert_eq!(
            authenticate(&AdminListenerConfig { tokens: Vec::new(), ..admin_listener() }, &HeaderMap::new()),
            Ok(Visitor::Unrestricted)
        );
    }

    #[test]
    fn five_wrong_tokens_pass_and_the_sixth_waits() {
        let (authorizer, now) = (AdminAuthorizer::default(), Now::at(50_000, 50_000));
        let peer: IpAddr = "192.0.2.7".parse().unwrap();
        assert_eq!((0..6).filter(|_| authorizer.note_failure(peer, now).is_ok()).count(), 5);
        assert_eq!(authorizer.note_failure(peer, now), Err(Duration::from_secs(1)));
        assert_eq!(authorizer.note_failure("192.0.2.8".parse().unwrap(), now), Ok(()), "another peer");
        assert_eq!(authorizer.note_failure(peer, now.plus(Duration::from_secs(1))), Ok(()));
    }

    #[test]
    fn places_are_given_back() {
        let authorizer = AdminAuthorizer::default();
        let streams: Vec<_> = (0..MOST_STREAMS).filter_map(|_| authorizer.take_stream_slot()).collect();
        assert!(streams.len() == 16 && authorizer.take_stream_slot().is_none());
        drop(streams);
        assert!(authorizer.take_stream_slot().is_some());
    }
}
