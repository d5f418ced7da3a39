//! Signed tokens as proof of who calls (JSON Web Token, RFC 7519; best practice, RFC 8725).
//!
//! Only signatures by a public key of a configured issuer count, in four algorithms; issuer, audience and subject must
//! be the ones of a client, letter by letter. A connection remembers the last token that it saw, so that a signature
//! is checked once and not with every request.

use std::cell::RefCell;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use crate::base::time::{Deadline, Now};
use crate::config::Clients;
use crate::control::{Issuers, Signature};
use crate::route::ClientId;

/// Clocks may differ by so many seconds.
const LEEWAY: u64 = 60;
/// A token that was good is looked at again after this time, in case that its key was withdrawn.
const REMEMBER: Duration = Duration::from_secs(10 * 60);
/// The maximum length of a token, in bytes.
const LONGEST: usize = 16 * 1024;

/// The last good token of a connection.
#[derive(Debug, Default)]
pub struct Recent(RefCell<Option<Box<Good>>>);

/// The verified contents of a good token. It names no client: another config may know others.
#[derive(Debug)]
struct Good {
    digest: [u8; 32],
    issuer: [u8; 32],
    claims: JwtClaims,
    at: Now,
}

#[derive(Deserialize)]
struct JwtHeader {
    alg: Algorithm,
    kid: Option<String>,
    crit: Option<IgnoredAny>,
}

#[derive(Debug, Deserialize)]
struct JwtClaims {
    iss: String,
    sub: String,
    aud: Audience,
    /// Seconds since 1970, perhaps with a fraction.
    exp: f64,
    nbf: Option<f64>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Audience {
    Many(Vec<String>),
    One(String),
}

/// Finds whose token this is, and until when that may be believed. `digest` is its SHA-256.
pub async fn owner(
    clients: &Clients,
    issuers: &Issuers,
    recent: &Recent,
    token: &str,
    digest: &[u8; 32],
    now: Now,
) -> Option<(ClientId, Deadline)> {
    if clients.jwt.is_empty() || token.len() > LONGEST {
        return None;
    }
    if let Some(good) = &*recent.0.borrow()
        && good.digest == *digest
        && now.since(good.at) < REMEMBER
        && good.claims.hold(now)
    {
        let until = good.claims.ends(now).min(Deadline::after(good.at, REMEMBER));
        return Some((named(clients, &good.issuer, &good.claims)?, until));
    }
    let (message, signature) = token.rsplit_once('.')?;
    let (header, payload) = message.split_once('.')?;
    let header: JwtHeader = part(header)?;
    let listed = matches!(header.alg, Algorithm::RS256 | Algorithm::PS256 | Algorithm::ES256 | Algorithm::EdDSA);
    // A critical extension is one that we do not know (RFC 7515 section 4.1.11).
    if !listed || header.crit.is_some() {
        return None;
    }
    let claims: JwtClaims = part(payload)?;
    if !claims.hold(now) {
        return None;
    }
    let signature = Signature { algorithm: header.alg, key_id: header.kid.as_deref(), message, signature };
    for issuer in clients.issuers.iter().filter(|issuer| issuer.name == claims.iss) {
        // A token that belongs to no client costs no signature check and no fetch.
        let Some(client) = named(clients, &issuer.id, &claims) else { continue };
        let mut held = issuers.keys(issuer, now);
        if !held.as_ref().is_some_and(|held| held.keys.knows(&signature)) {
            held = issuers.newer(issuer, held.as_ref(), now).await;
        }
        if held.is_some_and(|held| held.keys.verifies(&signature)) {
            let until = claims.ends(now).min(Deadline::after(now, REMEMBER));
            *recent.0.borrow_mut() = Some(Box::new(Good { digest: *digest, issuer: issuer.id, claims, at: now }));
            return Some((client, until));
        }
    }
    None
}

/// The client with these claims.
fn named(clients: &Clients, issuer: &[u8; 32], claims: &JwtClaims) -> Option<ClientId> {
    let rule = clients
        .jwt
        .iter()
        .find(|rule| rule.issuer.id == *issuer && rule.subject == claims.sub && claims.aud.names(&rule.audience))?;
    Some(rule.client)
}

fn part<T: DeserializeOwned>(text: &str) -> Option<T> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()
}

impl JwtClaims {
    /// When they end, seen from `now`, or [`REMEMBER`] later if that is earlier.
    fn ends(&self, now: Now) -> Deadline {
        #[expect(clippy::cast_precision_loss, reason = "milliseconds of this era are exact in a float")]
        let left = self.exp + (LEEWAY as f64) - now.wall as f64 / 1000.0;
        Deadline::after(now, Duration::from_secs_f64(left.clamp(0.0, REMEMBER.as_secs_f64())))
    }

    /// Returns whether the token is neither too early nor too late, within [`LEEWAY`].
    fn hold(&self, now: Now) -> bool {
        #[expect(clippy::cast_precision_loss, reason = "seconds of this era are exact in a float")]
        let seconds = |count: u64| count as f64;
        let now = now.unix_seconds();
        seconds(now.saturating_sub(LEEWAY)) < self.exp
            && self.nbf.is_none_or(|start| start <= seconds(now.saturating_add(LEEWAY)))
    }
}

impl Audience {
    fn names(&self, wanted: &str) -> bool {
        match self {
            Audience::Many(names) => names.iter().any(|name| name == wanted),
            Audience::One(name) => name == wanted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(exp: f64, nbf: Option<f64>) -> JwtClaims {
        JwtClaims { iss: String::new(), sub: String::new(), aud: Audience::One(String::new()), exp, nbf }
    }

    #[test]
    fn a_minute_of_difference_is_forgiven_and_no_more() {
        let now = Now::at(0, 1_795_000_000_000);
        assert!(claims(1_795_000_001.5, None).hold(now));
        assert!(claims(1_794_999_941.0, None).hold(now), "59 s late");
        assert!(!claims(1_794_999_940.0, None).hold(now), "60 s late");
        assert!(claims(1_795_000_500.0, Some(1_795_000_060.0)).hold(now), "60 s early");
        assert!(!claims(1_795_000_500.0, Some(1_795_000_061.0)).hold(now), "61 s early");
        assert!(!claims(-1e300, None).hold(now) && claims(1e300, None).hold(now));
    }

    #[test]
    fn claims_end_with_their_exp_and_the_leeway() {
        let now = Now::at(0, 1_795_000_000_500);
        let end = claims(1_794_999_950.0, None).ends(now);
        assert!(!end.passed(Now::at(9_499, 1_795_000_009_999)) && end.passed(Now::at(0, 1_795_000_010_000)));
        assert!(claims(-1e300, None).ends(now).passed(now));
        assert_eq!(claims(1e300, None).ends(now), Deadline::after(now, REMEMBER));
    }

    #[test]
    fn parts_that_are_not_to_the_letter_are_nothing() {
        let encode = |json: &str| URL_SAFE_NO_PAD.encode(json);
        assert!(part::<JwtHeader>(&encode(r#"{"alg":"ES256","kid":"a"}"#)).is_some());
        for wrong in [r#"{"alg":"none"}"#, r#"{"kid":"a"}"#, r#"{"alg":"ES256","alg":"HS256"}"#, "", "[]", "\u{0}"] {
            assert!(part::<JwtHeader>(&encode(wrong)).is_none(), "{wrong}");
        }
        assert!(part::<JwtHeader>("e30=").is_none() && part::<JwtHeader>("???").is_none());
        for wrong in [r#"{"iss":"a","sub":"b","aud":"c"}"#, r#"{"iss":"a","sub":"b","aud":"c","exp":"9"}"#] {
            assert!(part::<JwtClaims>(&encode(wrong)).is_none(), "{wrong}");
        }
    }
}
