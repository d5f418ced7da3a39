//! The credentials that a bank gives to an application at onboarding: an identifier and a secret.
//!
//! They are drawn afresh at every start, in the shape that the bank really uses, so that they are not mistaken for real
//! ones that leaked.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::base::secret::{ExposeSecret, Fingerprint, SecretString, hex};

/// An application's identifier and secret. `Debug` shows the identifier and a fingerprint.
#[derive(Clone)]
pub struct Credentials {
    id: String,
    secret: SecretString,
    /// A second secret, once the bank has handed one out.
    second: OnceLock<SecretString>,
    /// The only secrets that are accepted, once the bank has rotated them.
    rotated: Arc<Mutex<Option<Vec<SecretString>>>>,
}

impl Credentials {
    /// Creates credentials from an identifier and a secret that are given.
    pub fn new(id: impl Into<String>, secret: impl Into<String>) -> Self {
        let (secret, second) = (SecretString::from(secret.into()), OnceLock::new());
        Self { id: id.into(), secret, second, rotated: Arc::default() }
    }

    /// The API key or client id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The API secret or client secret.
    pub const fn secret(&self) -> &SecretString {
        &self.secret
    }

    /// From now on these secrets are accepted, and no others.
    pub(super) fn rotate(&self, accepted: Vec<SecretString>) {
        *self.rotated.lock().unwrap_or_else(PoisonError::into_inner) = Some(accepted);
    }

    pub(super) fn secret_is(&self, presented: &str) -> bool {
        if let Some(accepted) = &*self.rotated.lock().unwrap_or_else(PoisonError::into_inner) {
            return accepted.iter().any(|secret| secret.expose_secret() == presented);
        }
        let second = self.second.get().is_some_and(|second| second.expose_secret() == presented);
        second || self.secret.expose_secret() == presented
    }

    pub(super) fn second(&self) -> &SecretString {
        self.second.get_or_init(|| SecretString::from(hex32()))
    }

    /// `text` with the secret, wherever it stands in it, replaced by its fingerprint.
    pub(super) fn mask(&self, text: &str) -> String {
        let second = self.second.get().map(|second| text.replace(second.expose_secret(), "‹second secret›"));
        let mut text = second.unwrap_or_else(|| text.to_owned());
        for secret in self.rotated.lock().unwrap_or_else(PoisonError::into_inner).iter().flatten() {
            text = text.replace(
                secret.expose_secret(),
                &format!("‹secret {}›", Fingerprint::of(secret.expose_secret().as_bytes())),
            );
        }
        text.replace(self.secret.expose_secret(), &format!("‹secret {}›", self.fingerprint()))
    }

    /// The secret as a TOML string, for lines that a person pastes.
    pub(super) fn secret_toml(&self) -> String {
        toml::Value::String(self.secret.expose_secret().to_owned()).to_string()
    }

    pub(super) fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(self.secret.expose_secret().as_bytes())
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("id", &self.id).field("secret", &self.fingerprint()).finish()
    }
}

/// Returns 32 random hexadecimal digits (128 bits).
pub(super) fn hex32() -> String {
    hex(&rand::random::<[u8; 16]>())
}
