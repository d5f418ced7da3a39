//! A consent that was asked for and not yet given.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use crate::base::secret::{ExposeSecret, Fingerprint, SecretString, hex, sha256};
use crate::base::time::{Now, millis};
use crate::token::consent::ConsentRealm;
use crate::token::consent::user::{ConsentOwner, UserKey, UserName};

/// Time that a user has to consent.
pub const PENDING_LIFE: Duration = Duration::from_secs(600);

/// Characters of 32 random bytes in base64url.
const LENGTH: usize = 43;

/// The identifier of one consent, which cannot be guessed: 256 random bits, 43 characters of base64url (RFC 6749
/// section 10.12). Any holder of the state may finish the consent, so `Debug` shows a fingerprint.
#[derive(Clone, Eq, PartialEq)]
pub struct State(String);

impl State {
    /// A state of these bytes, which must be random.
    pub fn from_random(bytes: [u8; 32]) -> Self {
        Self(BASE64_URL_SAFE_NO_PAD.encode(bytes))
    }

    /// Parses the state of a callback; `None` if it does not have the form of a state (43 characters of base64url).
    pub fn parse(text: &str) -> Option<Self> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        (text.len() == LENGTH && text.bytes().all(plain)).then(|| Self(text.to_owned()))
    }

    /// The text, for URLs and for the application.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Under which name it is filed.
    pub fn id(&self) -> StateId {
        StateId(sha256(self.0.as_bytes()))
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "State({})", Fingerprint::of(self.0.as_bytes()))
    }
}

/// A state's digest: who reads the store's keys learns no state that still works. `Display`: 64 hexadecimal digits.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct StateId([u8; 32]);

impl fmt::Display for StateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for StateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StateId({self})")
    }
}

/// The `code_verifier` of RFC 7636 section 4.1: 43 characters, 256 random bits.
#[derive(Clone)]
pub struct CodeVerifier(SecretString);

/// The `code_challenge` of a verifier by `S256` (RFC 7636 section 4.2). No secret.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Challenge(String);

impl CodeVerifier {
    /// A verifier of these bytes, which must be random.
    pub fn from_random(bytes: [u8; 32]) -> Self {
        Self(SecretString::from(BASE64_URL_SAFE_NO_PAD.encode(bytes)))
    }

    /// Restores a verifier from a stored record.
    pub(super) const fn from_text(text: SecretString) -> Self {
        Self(text)
    }

    /// Returns the `code_challenge` for the authorization request.
    pub fn challenge(&self) -> Challenge {
        Challenge(BASE64_URL_SAFE_NO_PAD.encode(sha256(self.0.expose_secret().as_bytes())))
    }

    /// Returns the `code_verifier` for the code exchange.
    pub const fn secret(&self) -> &SecretString {
        &self.0
    }
}

impl fmt::Debug for CodeVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier(…)")
    }
}

impl Challenge {
    /// The text: 43 characters of base64url.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A consent that was started: everything that its end must agree with. Filed under [`State::id`].
#[derive(Clone, Debug)]
pub struct PendingConsent {
    /// Owner, provider and user of the tokens that result.
    pub key: UserKey,
    /// The client that started it.
    pub client: Arc<str>,
    /// Digest of the provider settings for which it was started.
    pub realm: ConsentRealm,
    /// URL to which the browser is redirected at the end. Check it again with
    /// [`ReturnRule::permit`](super::ReturnRule::permit) at that time: the rules may have changed.
    pub return_to: Option<String>,
    /// Proof that the exchange is made by the party that started the consent (RFC 7636).
    pub verifier: CodeVerifier,
    /// When it was started, in milliseconds since 1970.
    pub started: u64,
}

impl PendingConsent {
    /// Creates a pending consent that starts at `now`.
    pub fn start(
        key: UserKey,
        client: Arc<str>,
        realm: ConsentRealm,
        return_to: Option<&super::ReturnTo>,
        verifier: CodeVerifier,
        now: Now,
    ) -> Self {
        let return_to = return_to.map(|to| to.as_str().to_owned());
        Self { key, client, realm, return_to, verifier, started: now.wall }
    }

    /// When it ends, in milliseconds since 1970.
    pub fn expires(&self) -> u64 {
        self.started.saturating_add(millis(PENDING_LIFE))
    }

    /// Returns whether the consent has expired. It also counts as expired if `now` is so early that a clock must have
    /// been set back.
    pub fn expired(&self, now: Now) -> bool {
        let back = now.wall.saturating_add(millis(PENDING_LIFE)) < self.started;
        now.wall >= self.expires() || back
    }

    pub const fn user(&self) -> &UserName {
        &self.key.user
    }

    /// Returns the client or group that may use the resulting tokens.
    pub const fn owner(&self) -> &ConsentOwner {
        &self.key.owner
    }
}

/// The entry that the store holds for a state.
#[derive(Clone, Debug)]
pub enum PendingEntry {
    /// A consent that waits for its callback.
    Pending(PendingConsent),
    /// It was used. Kept until the consent would have expired, so that a second use is told from a guess.
    Spent {
        /// When, in milliseconds since 1970.
        at: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7636 appendix B.
    #[test]
    fn the_challenge_is_that_of_the_rfc() {
        let bytes = [
            116, 24, 223, 180, 151, 153, 224, 37, 79, 250, 96, 125, 216, 173, 187, 186, 22, 212, 37, 77, 105, 214, 191,
            240, 91, 88, 5, 88, 83, 132, 141, 121,
        ];
        let verifier = CodeVerifier::from_random(bytes);
        assert_eq!(verifier.secret().expose_secret(), "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");
        assert_eq!(verifier.challenge().as_str(), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
        assert!(!format!("{verifier:?}").contains("dBjf"));
    }

    #[test]
    fn only_what_could_be_a_state_is_looked_up() {
        let state = State::from_random([251; 32]);
        assert_eq!(State::parse(state.as_str()), Some(state.clone()));
        for odd in ["", "x", &"a".repeat(44), &format!("{} ", "a".repeat(42)), &"é".repeat(22)] {
            assert_eq!(State::parse(odd), None, "{odd:?}");
        }
        assert!(!format!("{state:?} {}", state.id()).contains(state.as_str()));
    }
}
