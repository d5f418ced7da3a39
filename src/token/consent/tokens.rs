//! The tokens of one user: the durable record, and when it wants renewal.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;

use crate::base::planted::{PlantedFault, planted};
use crate::base::secret::SecretString;
use crate::base::time::{Now, millis};
use crate::token::consent::ConsentRealm;
use crate::token::consent::user::UserKey;
use crate::token::grant::{Grant, RefreshGrant, UserGrant};

/// Replicas' clocks may differ by so much, in milliseconds.
const SKEW: u64 = 60_000;

/// A user's access token with its lifetime.
#[derive(Clone)]
pub struct UserAccess {
    pub token: SecretString,
    /// When its request was sent, in milliseconds since 1970.
    pub issued: u64,
    /// When the token expires, in milliseconds since 1970.
    pub expires: u64,
}

/// A user's refresh token with its lifetime.
#[derive(Clone)]
pub struct UserRefresh {
    pub token: SecretString,
    /// When the last request that brought it, or that the provider answered without another one, was sent, in
    /// milliseconds since 1970.
    pub issued: u64,
    /// When it expires, in milliseconds since 1970; `None`: unknown until the provider refuses it.
    pub expires: Option<u64>,
}

impl UserRefresh {
    fn of(grant: RefreshGrant, sent: Now) -> Self {
        let expires = grant.life.map(|life| sent.wall.saturating_add(millis(life)));
        Self { token: grant.token, issued: sent.wall, expires }
    }

    /// The same after a renewal that brought no other one (RFC 6749 section 6). Its end stays; the next renewal for its own
    /// sake is due at half of what is left.
    fn kept(&self, sent: Now) -> Self {
        let issued = if planted(PlantedFault::EverDue) { self.issued } else { sent.wall };
        Self { issued, ..self.clone() }
    }

    /// Returns whether the refresh token may still be tried.
    fn alive(&self, now: Now) -> bool {
        self.expires.is_none_or(|expires| now.wall < expires)
    }
}

/// The times at which a user's tokens are renewed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Upkeep {
    /// Renew access this long before expiry, but never more than a fifth of its life.
    pub refresh_before: Duration,
    /// Keep the refresh token alive for this long after the user's last call; zero: not at all.
    pub keep_alive: Duration,
}

/// All that is known of one user's consent. Cheap to share; a change makes a new one.
///
/// `Debug` shows whose it is and its generation, nothing else.
#[derive(Clone)]
pub struct UserTokens {
    /// Owner, provider and user of the tokens.
    pub key: UserKey,
    /// Digest of the settings to which the user consented.
    pub realm: ConsentRealm,
    /// Counts up with every new access token. It starts at the wall clock's reading, so that a consent after a
    /// revocation is never taken for an older one.
    pub generation: u64,
    pub access: UserAccess,
    /// The refresh token; `None` once the provider has reported it as dead, or if the provider issued none.
    pub refresh: Option<UserRefresh>,
    /// User data captured from response header fields, such as SCB's `resourceOwnerId`.
    pub captured: Vec<(Arc<str>, HeaderValue)>,
    /// When the user consented, in milliseconds since 1970.
    pub consented: u64,
    /// About when the last call was made for the user, likewise.
    pub last_call: u64,
}

impl UserTokens {
    /// The record of a new consent, whose exchange was sent at `sent`. `before`: what the store holds of an older one.
    pub fn consented(
        key: UserKey,
        realm: ConsentRealm,
        fresh: UserGrant,
        sent: Now,
        before: Option<&UserTokens>,
    ) -> Self {
        let generation = before.map_or(0, |before| before.generation.saturating_add(1)).max(sent.wall);
        let UserGrant { grant, refresh } = fresh;
        Self {
            key,
            realm,
            generation,
            access: access(&grant, sent),
            refresh: refresh.map(|refresh| UserRefresh::of(refresh, sent)),
            captured: grant.captured,
            consented: sent.wall,
            last_call: sent.wall,
        }
    }

    /// Returns the record after a refresh that was sent at `sent`. Parts that the response omits stay unchanged: the
    /// refresh token (RFC 6749 section 6) and captured header fields.
    pub fn rotated(&self, fresh: UserGrant, sent: Now) -> Self {
        let UserGrant { grant, refresh } = fresh;
        let access = access(&grant, sent);
        let mut captured = grant.captured;
        for (name, value) in &self.captured {
            if !captured.iter().any(|(known, _)| known == name) {
                captured.push((name.clone(), value.clone()));
            }
        }
        Self {
            key: self.key.clone(),
            realm: self.realm,
            generation: self.generation.saturating_add(1),
            access,
            refresh: match (refresh, &self.refresh) {
                (Some(fresh), _) => Some(UserRefresh::of(fresh, sent)),
                (None, known) => known.as_ref().map(|known| known.kept(sent)),
            },
            captured,
            consented: self.consented,
            last_call: self.last_call,
        }
    }

    /// The record after an answer that brought a refresh token alone. The access token stays what it was, dead or alive,
    /// and so does the generation, which says which access token this is.
    pub fn refreshed_only(&self, refresh: RefreshGrant, sent: Now) -> Self {
        Self { refresh: Some(UserRefresh::of(refresh, sent)), ..self.clone() }
    }

    /// The record of a code exchange that brought a refresh token alone: there is no access token yet.
    pub fn consented_without_access(
        key: UserKey,
        realm: ConsentRealm,
        refresh: RefreshGrant,
        sent: Now,
        before: Option<&Self>,
    ) -> Self {
        // Dead from the start, so it is never sent: a record must have one.
        let grant = Grant {
            access_token: SecretString::from("none"),
            life: Duration::ZERO,
            captured: Vec::new(),
            odd_type: None,
        };
        Self::consented(key, realm, UserGrant { grant, refresh: Some(refresh) }, sent, before)
    }

    /// The record once its refresh token is dead: the access token lives out its life, and then the user is asked.
    pub fn bereft(&self) -> Self {
        Self { refresh: None, ..self.clone() }
    }

    /// Returns the record after the provider has refused its access token: the token counts as expired, regardless of
    /// its remaining life.
    pub fn refused(&self) -> Self {
        let UserAccess { token, issued, .. } = &self.access;
        Self { access: UserAccess { token: token.clone(), issued: *issued, expires: *issued }, ..self.clone() }
    }

    /// The record with a call at `now` noted, if that is worth a write: a twentieth of `keep_alive` has passed since the last
    /// one was noted, five minutes at most.
    pub fn touched(&self, upkeep: &Upkeep, now: Now) -> Option<Self> {
        let worth = millis(upkeep.keep_alive / 20).min(300_000);
        let due = !upkeep.keep_alive.is_zero() && now.wall.saturating_sub(self.last_call) >= worth.max(1000);
        due.then(|| Self { last_call: now.wall, ..self.clone() })
    }

    /// Returns the remaining life of the access token at `now`; zero once it has expired. A clock that was set back
    /// does not extend it.
    pub fn remaining(&self, now: Now) -> Duration {
        let UserAccess { issued, expires, .. } = &self.access;
        Duration::from_millis(expires.saturating_sub(now.wall).min(expires.saturating_sub(*issued)))
    }

    /// Returns whether the access token may be sent.
    pub fn valid(&self, now: Now) -> bool {
        !self.remaining(now).is_zero()
    }

    /// Returns the access token as the [`Grant`] from which a module builds header fields, with its remaining life;
    /// `None` once it has expired.
    pub fn grant(&self, now: Now) -> Option<Grant> {
        let life = self.remaining(now);
        let access_token = self.access.token.clone();
        (!life.is_zero()).then(|| Grant { access_token, life, captured: self.captured.clone(), odd_type: None })
    }

    /// The refresh token, while it may be tried.
    pub fn refreshable(&self, now: Now) -> Option<&UserRefresh> {
        self.refresh.as_ref().filter(|refresh| refresh.alive(now))
    }

    /// Returns whether the user must consent (again): neither token is usable.
    pub fn spent(&self, now: Now) -> bool {
        !self.valid(now) && self.refreshable(now).is_none()
    }

    /// Returns whether the remaining life of the access token is so short that a renewal should be tried.
    pub fn due(&self, upkeep: &Upkeep, now: Now) -> bool {
        let life = Duration::from_millis(self.access.expires.saturating_sub(self.access.issued));
        self.remaining(now) <= upkeep.refresh_before.min(life / 5)
    }

    /// Returns the time until the refresh token should be renewed although no call needs it; zero: now. `None`: never,
    /// because it has no expiry, is no longer usable, or because `keep_alive` will have passed by then without a call
    /// for the user.
    ///
    /// The renewal is due at half of the token's life, and up to a tenth of the life earlier by `dice` (0 to 255), so
    /// that users who consented together are not renewed together and an outage of half a life is survived. A token
    /// with an `issued` time further in the future than replicas' clocks may differ was written before the clock was
    /// set back, or by a replica with a wrong clock: it may expire long before the recorded time, and is due now.
    pub fn keep_alive_in(&self, upkeep: &Upkeep, now: Now, jitter: u8) -> Option<Duration> {
        let refresh = self.refreshable(now)?;
        let life = refresh.expires?.saturating_sub(refresh.issued);
        let ahead = refresh.issued.saturating_sub(now.wall) > SKEW.min(life / 10);
        let due = match ahead {
            true => now.wall,
            false => refresh.issued.saturating_add(life / 2 - life / 10 * u64::from(jitter) / 255),
        };
        let kept_until = self.last_call.saturating_add(millis(upkeep.keep_alive));
        (due.max(now.wall) < kept_until).then(|| Duration::from_millis(due.saturating_sub(now.wall)))
    }
}

fn access(grant: &Grant, sent: Now) -> UserAccess {
    UserAccess {
        token: grant.access_token.clone(),
        issued: sent.wall,
        expires: sent.wall.saturating_add(millis(grant.life)),
    }
}

impl fmt::Debug for UserTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserTokens")
            .field("key", &self.key)
            .field("generation", &self.generation)
            .field("refreshable", &self.refresh.is_some())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(in crate::token::consent) mod tests {
    use super::*;
    use crate::base::secret::ExposeSecret;
    use crate::token::consent::user::{ConsentOwner, UserName};

    pub(in crate::token::consent) const START: Now = Now::at(5_000, 1_700_000_000_000);
    const UPKEEP: Upkeep = Upkeep { refresh_before: seconds(60), keep_alive: seconds(12 * 3600) };

    const fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    pub(in crate::token::consent) fn key(user: &str) -> UserKey {
        UserKey {
            owner: ConsentOwner::Client("erp".into()),
            provider: "scb".into(),
            user: UserName::parse(user).expect("a name"),
        }
    }

    pub(in crate::token::consent) fn fresh(access: &str, refresh: Option<&str>, owner: Option<&str>) -> UserGrant {
        let captured = owner.map(|owner| ("owner".into(), HeaderValue::from_str(owner).expect("a value")));
        UserGrant {
            grant: Grant {
                access_token: SecretString::from(access),
                life: seconds(1800),
                captured: captured.into_iter().collect(),
                odd_type: None,
            },
            refresh: refresh.map(|token| RefreshGrant { token: SecretString::from(token), life: Some(seconds(3600)) }),
        }
    }

    fn tokens() -> UserTokens {
        UserTokens::consented(key("alice"), ConsentRealm([1; 32]), fresh("a1", Some("r1"), Some("o1")), START, None)
    }

    fn text(secret: Option<&UserRefresh>) -> Option<&str> {
        secret.map(|refresh| refresh.token.expose_secret())
    }

    #[test]
    fn an_answer_replaces_what_it_says_and_keeps_the_rest() {
        let first = tokens();
        let later = START.plus(seconds(1500));
        let second = first.rotated(fresh("a2", Some("r2"), None), later);
        assert_eq!((second.generation, text(second.refresh.as_ref())), (first.generation + 1, Some("r2")));
        assert_eq!(second.captured, first.captured, "a refresh that says nothing of the owner changes nothing");
        assert_eq!(second.remaining(later), seconds(1800));
        let third = second.rotated(fresh("a3", None, Some("o2")), later);
        assert_eq!(text(third.refresh.as_ref()), Some("r2"), "RFC 6749 section 6: it stands");
        assert_eq!(third.captured.first().map(|(_, value)| value.as_bytes()), Some(&b"o2"[..]));
        assert_eq!(third.consented, first.consented);
    }

    #[test]
    fn a_new_consent_is_newer_than_any_old_one() {
        let old = tokens();
        let again = UserTokens::consented(old.key.clone(), old.realm, fresh("b", None, None), START, Some(&old));
        assert!(again.generation > old.generation);
        let after_revocation =
            UserTokens::consented(old.key.clone(), old.realm, fresh("c", None, None), START.plus(seconds(1)), None);
        assert!(after_revocation.generation > again.generation);
    }

    #[test]
    fn a_token_dies_at_its_time_and_a_clock_set_back_gives_no_life() {
        let tokens = tokens();
        assert!(tokens.valid(START.plus(seconds(1799))) && !tokens.valid(START.plus(seconds(1800))));
        assert_eq!(tokens.remaining(Now::at(0, 0)), seconds(1800));
        assert!(tokens.grant(START.plus(seconds(1800))).is_none());
        assert!(!tokens.due(&UPKEEP, START.plus(seconds(1739))) && tokens.due(&UPKEEP, START.plus(seconds(1740))));
        assert!(tokens.refreshable(START.plus(seconds(3599))).is_some());
        assert!(tokens.refreshable(START.plus(seconds(3600))).is_none() && tokens.spent(START.plus(seconds(3600))));
        assert!(tokens.bereft().valid(START) && tokens.bereft().refreshable(START).is_none());
    }

    #[test]
    fn a_refresh_token_is_kept_alive_while_its_user_is_about() {
        let tokens = tokens();
        assert_eq!(tokens.keep_alive_in(&UPKEEP, START, 0), Some(seconds(1800)), "half of an hour");
        assert_eq!(tokens.keep_alive_in(&UPKEEP, START, 255), Some(seconds(1440)), "SCB: about 25 minutes");
        assert_eq!(tokens.keep_alive_in(&UPKEEP, START.plus(seconds(2000)), 0), Some(Duration::ZERO));
        assert_eq!(tokens.keep_alive_in(&UPKEEP, START.plus(seconds(3600)), 0), None, "it is dead");
        let brief = Upkeep { keep_alive: seconds(1000), ..UPKEEP };
        assert_eq!(tokens.keep_alive_in(&brief, START, 0), None, "nobody will have called by then");
        let never = Upkeep { keep_alive: Duration::ZERO, ..UPKEEP };
        assert_eq!(tokens.keep_alive_in(&never, START, 0), None);
        assert_eq!(tokens.bereft().keep_alive_in(&UPKEEP, START, 0), None);

        let called = tokens.touched(&brief, START.plus(seconds(900))).expect("worth a write");
        assert_eq!(called.keep_alive_in(&brief, START.plus(seconds(900)), 0), Some(seconds(900)));
        assert!(called.touched(&brief, START.plus(seconds(949))).is_none(), "not again so soon");
        assert!(called.touched(&UPKEEP, START.plus(seconds(1200))).is_some(), "after five minutes at the latest");
        assert_eq!(called.generation, tokens.generation);
    }

    #[test]
    fn a_refresh_token_that_stays_the_same_is_not_due_again_at_once() {
        let first = tokens();
        let half = START.plus(seconds(1800));
        assert_eq!(first.keep_alive_in(&UPKEEP, half, 0), Some(Duration::ZERO));
        let renewed = first.rotated(fresh("a2", None, None), half);
        assert_eq!(renewed.keep_alive_in(&UPKEEP, half, 0), Some(seconds(900)), "at half of what is left");
        assert_eq!(renewed.refresh.as_ref().and_then(|refresh| refresh.expires), Some(START.wall + 3_600_000));
    }

    #[test]
    fn a_refresh_token_from_the_future_is_due_at_once() {
        let first = tokens();
        let back = |by: u64| Now::at(START.boot, START.wall - by * 1000);
        assert_eq!(first.keep_alive_in(&UPKEEP, back(60), 0), Some(seconds(1860)), "replicas' clocks differ a little");
        assert_eq!(first.keep_alive_in(&UPKEEP, back(61), 0), Some(Duration::ZERO), "the clock was set back");
        let renewed = first.rotated(fresh("a2", Some("r2"), None), back(600));
        assert_eq!(renewed.keep_alive_in(&UPKEEP, back(600), 0), Some(seconds(1800)), "once, then it is as ever");
    }

    #[test]
    fn a_consent_without_an_access_token_has_none_to_send_and_can_be_renewed() {
        let refresh = RefreshGrant { token: SecretString::from("r1"), life: None };
        let tokens = UserTokens::consented_without_access(key("alice"), ConsentRealm([1; 32]), refresh, START, None);
        let read = UserTokens::open(tokens.seal().expose_secret()).expect("what we wrote");
        for tokens in [tokens, read] {
            assert!(!tokens.valid(START) && tokens.grant(START).is_none() && tokens.due(&UPKEEP, START));
            assert!(tokens.refreshable(START).is_some() && !tokens.spent(START));
        }
    }

    #[test]
    fn debug_shows_no_secret() {
        let shown = format!("{:?} {:?}", tokens(), fresh("a1", Some("r1"), Some("o1")));
        assert!(!shown.contains("a1") && !shown.contains("r1") && !shown.contains("o1"), "{shown}");
    }
}
