//! The name of a token: a digest of every input of the call that fetches it.
//!
//! Two calls share a token only when all that goes into fetching it is equal: the provider's name, the endpoint, every
//! setting, each secret's value, every route variable. So a changed secret, scope or account is another key, and one
//! account's token can never be spent on another.

use std::fmt;
use std::hash::{BuildHasherDefault, Hash, Hasher};

use aws_lc_rs::digest;

use crate::base::secret::hex;

/// A SHA-256 over the length-prefixed inputs of a token call. `Display` shows its first 16 hexadecimal digits.
#[derive(Clone, Copy, Eq, Ord, PartialEq, PartialOrd)]
pub struct TokenKey([u8; 32]);

impl TokenKey {
    /// Returns the 32 bytes of the digest.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The key of these bytes; absent unless there are 32.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// Returns whether the `Display` form begins with this text.
    pub fn begins_with(&self, text: &str) -> bool {
        let digits = self.0[..8].iter().flat_map(|byte| [byte >> 4, byte & 15]);
        let digit = |digit: u8| char::from_digit(digit.into(), 16);
        text.len() <= 16 && text.chars().zip(digits).all(|(char, known)| digit(known) == Some(char))
    }

    /// Returns whether this is the `Display` form.
    pub fn is_shown_as(&self, text: &str) -> bool {
        text.len() == 16 && self.begins_with(text)
    }

    /// This key, narrowed by route variables, in their declared order.
    pub fn with<'a>(&self, vars: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut builder = KeyBuilder(digest::Context::new(&digest::SHA256));
        builder.field("key", &self.0);
        for (name, value) in vars {
            builder.field(name, value.as_bytes());
        }
        builder.finish()
    }
}

impl Hash for TokenKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let mut first = [0; 8];
        first.copy_from_slice(&self.0[..8]);
        state.write_u64(u64::from_ne_bytes(first));
    }
}

impl fmt::Display for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0[..8]))
    }
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenKey({self})")
    }
}

/// Collects the inputs of a key. Each name and value is prefixed with its length, so no two lists collide.
pub struct KeyBuilder(digest::Context);

impl KeyBuilder {
    /// Starts a key for the provider of this name.
    pub fn new(provider: &str) -> Self {
        let mut builder = Self(digest::Context::new(&digest::SHA256));
        builder.field("provider", provider.as_bytes());
        builder
    }

    /// Adds one named input; name and value are each length-prefixed.
    pub fn field(&mut self, name: &str, value: &[u8]) {
        for part in [name.as_bytes(), value] {
            self.0.update(&(part.len() as u64).to_be_bytes());
            self.0.update(part);
        }
    }

    /// Returns the digest of all inputs as a key.
    pub fn finish(self) -> TokenKey {
        let mut out = [0; 32];
        out.copy_from_slice(self.0.finish().as_ref());
        TokenKey(out)
    }
}

/// A hasher that takes a key's own first bytes: they are a digest already.
#[derive(Default)]
pub struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

/// A map by token key.
pub type KeyMap<V> = std::collections::HashMap<TokenKey, V, BuildHasherDefault<KeyHasher>>;

#[cfg(test)]
mod tests {
    use super::*;

    fn key(provider: &str, fields: &[(&str, &str)]) -> TokenKey {
        let mut builder = KeyBuilder::new(provider);
        for (name, value) in fields {
            builder.field(name, value.as_bytes());
        }
        builder.finish()
    }

    #[test]
    fn every_input_and_every_boundary_counts() {
        let base = key("scb", &[("scope", "ab"), ("id", "c")]);
        assert_eq!(base, key("scb", &[("scope", "ab"), ("id", "c")]));
        for other in [
            key("scb2", &[("scope", "ab"), ("id", "c")]),
            key("scb", &[("scope", "a"), ("id", "bc")]),
            key("scb", &[("scope", "abid"), ("", "c")]),
            key("scb", &[("id", "c"), ("scope", "ab")]),
            base.with([("account", "1")]),
        ] {
            assert_ne!(base, other);
        }
        assert_ne!(base.with([("account", "1")]), base.with([("account", "2")]));
    }
}
