//! What a bank gave to an application at onboarding: an identifier and a secret.
//!
//! Drawn afresh at every start, in the shape that the bank really uses, so that nobody mistakes them for real ones
//! that leaked.

use crate::base::secret::{ExposeSecret, Fingerprint, SecretString, hex};

/// An application's identifier and secret. `Debug` shows the identifier and a fingerprint.
#[derive(Clone)]
pub struct Credentials {
    id: String,
    secret: SecretString,
}

impl Credentials {
    /// These very credentials.
    pub fn new(id: impl Into<String>, secret: impl Into<String>) -> Self {
        Self { id: id.into(), secret: SecretString::from(secret.into()) }
    }

    /// The API key or client id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The API secret or client secret.
    pub const fn secret(&self) -> &SecretString {
        &self.secret
    }

    pub(super) fn secret_is(&self, presented: &str) -> bool {
        self.secret.expose_secret() == presented
    }

    /// `text` with the secret, wherever it stands in it, replaced by its fingerprint.
    pub(super) fn mask(&self, text: &str) -> String {
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

/// 32 random hexadecimal digits.
pub(super) fn hex32() -> String {
    hex(&rand::random::<[u8; 16]>())
}
