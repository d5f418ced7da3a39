//! The visitors of the dashboard and their sessions.
//!
//! If the config has tokens, a browser sends one once, at the login, and receives a cookie: the name of a session that
//! is kept in this process alone, for half a day, as long as its token stands in the config in force. Every form
//! carries a secret word that only the session's own pages know, so that a page of another site cannot send the form.
//! If the config has no token (on loopback), no login is needed, and there is one such word for the whole process.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};

use super::super::auth::Visitor;
use crate::base::secret::{hex, sha256};
use crate::base::time::{Deadline, Now};
use crate::config::{AdminListenerConfig, AdminToken, Role};

/// A session ends after so long.
const LIFE: Duration = Duration::from_secs(12 * 3600);
/// More sessions than this, and the oldest ends.
const MOST: usize = 64;

/// A visitor of the dashboard, and the secret word that the visitor's forms must carry.
#[derive(Clone)]
pub(super) struct SessionVisitor {
    pub(super) visitor: Visitor,
    pub(super) csrf: String,
}

impl SessionVisitor {
    /// Returns whether the visitor has the role that changes require.
    pub(super) fn may_operate(&self) -> bool {
        self.visitor.may(Role::Operate)
    }

    /// Returns whether this is the secret word of the visitor's own pages.
    pub(super) fn is_csrf_token(&self, word: &str) -> bool {
        verify_slices_are_equal(&sha256(word.as_bytes()), &sha256(self.csrf.as_bytes())).is_ok()
    }
}

/// All sessions, and the secret word for requests without a session.
pub(super) struct SessionStore {
    csrf: String,
    sessions: RefCell<VecDeque<DashboardSession>>,
}

struct DashboardSession {
    /// Of the cookie; the cookie itself is not kept.
    id: [u8; 32],
    /// Of the token that was shown.
    token: [u8; 32],
    csrf: String,
    ends: Deadline,
}

impl SessionStore {
    pub(super) fn new() -> Self {
        Self { csrf: random_token(), sessions: RefCell::default() }
    }

    /// Returns the sender of this request, known by a token or by a session; `None` if the sender has to log in.
    pub(super) fn identify(
        &self,
        admin_listener: &AdminListenerConfig,
        visitor: &Visitor,
        headers: &HeaderMap,
        now: Now,
    ) -> Option<SessionVisitor> {
        if *visitor != Visitor::Anonymous {
            return Some(SessionVisitor { visitor: visitor.clone(), csrf: self.csrf.clone() });
        }
        let id = session_id(headers)?;
        let sessions = self.sessions.borrow();
        let mut found = None;
        for session in sessions.iter() {
            if verify_slices_are_equal(&session.id, &id).is_ok() && !session.ends.passed(now) {
                found = Some(session);
            }
        }
        let session = found?;
        let token = admin_listener.tokens.iter().find(|token| token.sha256 == session.token)?;
        let visitor = Visitor::Known { name: token.name.clone(), role: token.role };
        Some(SessionVisitor { visitor, csrf: session.csrf.clone() })
    }

    /// Begins a session for the sender of this token, and returns its `Set-Cookie` field.
    pub(super) fn log_in(&self, token: &AdminToken, tls: bool, now: Now) -> Option<HeaderValue> {
        let id = random_token();
        let mut sessions = self.sessions.borrow_mut();
        sessions.retain(|session| !session.ends.passed(now));
        if sessions.len() >= MOST {
            sessions.pop_front();
        }
        let ends = Deadline::after(now, LIFE);
        sessions.push_back(DashboardSession {
            id: sha256(id.as_bytes()),
            token: token.sha256,
            csrf: random_token(),
            ends,
        });
        cookie(&id, LIFE.as_secs(), tls)
    }

    /// Ends a session: the `Set-Cookie` field that makes the browser forget it.
    pub(super) fn log_out(&self, headers: &HeaderMap, tls: bool) -> Option<HeaderValue> {
        if let Some(id) = session_id(headers) {
            self.sessions.borrow_mut().retain(|session| session.id != id);
        }
        cookie("", 0, tls)
    }
}

impl fmt::Debug for SessionStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionStore").field("sessions", &self.sessions.borrow().len()).finish_non_exhaustive()
    }
}

/// The cookie's names: with TLS one that no page in the clear can set (RFC 6265bis section 4.1.3.2).
const NAMES: [&str; 2] = ["__Host-countersign", "countersign"];

fn cookie(id: &str, age: u64, tls: bool) -> Option<HeaderValue> {
    let [safe, plain] = NAMES;
    let (name, secure) = if tls { (safe, "; Secure") } else { (plain, "") };
    let mut cookie =
        HeaderValue::try_from(format!("{name}={id}; Path=/; Max-Age={age}; HttpOnly; SameSite=Strict{secure}")).ok()?;
    cookie.set_sensitive(true);
    Some(cookie)
}

/// The digest of the session's name that a browser has sent.
fn session_id(headers: &HeaderMap) -> Option<[u8; 32]> {
    let pairs =
        headers.get_all(COOKIE).iter().filter_map(|field| field.to_str().ok()).flat_map(|field| field.split(';'));
    let mut named = pairs.filter_map(|pair| pair.trim().split_once('=')).filter(|(name, _)| NAMES.contains(name));
    named.next().map(|(_, id)| sha256(id.as_bytes()))
}

/// Draws 32 random bytes, too many to guess, in hexadecimal.
fn random_token() -> String {
    hex(&rand::random::<[u8; 32]>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::AdminBind;

    fn token(name: &str, role: Role) -> AdminToken {
        AdminToken { name: name.into(), sha256: sha256(name.as_bytes()), role }
    }

    fn admin_listener(tokens: Vec<AdminToken>) -> AdminListenerConfig {
        AdminListenerConfig {
            bind: AdminBind::new("127.0.0.1:0".parse().unwrap(), None, &[]).unwrap(),
            tls: None,
            internal: None,
            open: Vec::new(),
            tokens,
        }
    }

    fn with_cookie(set: &HeaderValue) -> HeaderMap {
        let pair = set.to_str().unwrap().split(';').next().unwrap().to_owned();
        [(COOKIE, HeaderValue::try_from(format!("other=1; {pair}")).unwrap())].into_iter().collect()
    }

    #[test]
    fn a_session_lives_as_long_as_its_token_and_half_a_day_at_most() {
        let (store, now) = (SessionStore::new(), Now::at(0, 0));
        let (read, operate) = (token("eyes", Role::Read), token("hands", Role::Operate));
        let both = admin_listener(vec![read.clone(), operate.clone()]);
        let eyes = store.log_in(&read, false, now).unwrap();
        let headers = with_cookie(&eyes);
        let known = |admin_listener: &AdminListenerConfig, now| {
            store.identify(admin_listener, &Visitor::Anonymous, &headers, now)
        };
        let visitor = known(&both, now).unwrap();
        assert!(
            !visitor.may_operate()
                && visitor.is_csrf_token(&visitor.csrf)
                && !visitor.is_csrf_token("")
                && !visitor.is_csrf_token(&store.csrf)
        );
        assert!(known(&admin_listener(vec![operate.clone()]), now).is_none(), "a reload took its token away");
        assert!(known(&both, now.plus(LIFE)).is_none());
        assert!(store.identify(&both, &Visitor::Anonymous, &HeaderMap::new(), now).is_none());
        let hands = store.log_in(&operate, true, now).unwrap();
        assert!(
            hands.to_str().unwrap().starts_with("__Host-countersign=") && hands.to_str().unwrap().ends_with("; Secure")
        );
        assert!(store.identify(&both, &Visitor::Anonymous, &with_cookie(&hands), now).unwrap().may_operate());
        store.log_out(&headers, false);
        assert!(known(&both, now).is_none());
    }

    #[test]
    fn sessions_are_bounded_and_nobody_logs_in_where_there_is_no_token() {
        let (store, now) = (SessionStore::new(), Now::at(0, 0));
        let first = store.log_in(&token("eyes", Role::Read), false, now).unwrap();
        for _ in 0..MOST {
            store.log_in(&token("eyes", Role::Read), false, now);
        }
        assert_eq!(store.sessions.borrow().len(), MOST);
        let all = admin_listener(vec![token("eyes", Role::Read)]);
        assert!(store.identify(&all, &Visitor::Anonymous, &with_cookie(&first), now).is_none(), "the oldest has ended");
        let anybody =
            store.identify(&admin_listener(Vec::new()), &Visitor::Unrestricted, &HeaderMap::new(), now).unwrap();
        assert!(anybody.may_operate() && anybody.csrf == store.csrf);
    }
}
