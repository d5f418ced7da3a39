//! Names of users, and the owners and keys of their tokens.

use std::fmt;
use std::sync::Arc;

use thiserror::Error;

use crate::base::planted::{PlantedFault, planted};
use crate::token::consent::ConsentRealm;
use crate::token::key::{KeyBuilder, TokenKey};

/// The longest user name, in bytes.
const LONGEST: usize = 256;

/// A user's name, as the application says it: 1 to 256 bytes of UTF-8 without control characters, line separators or
/// outer white space.
///
/// It is compared byte for byte and never normalised. Names belong to the application; a normal form could make one
/// of two that it keeps apart, and hand one user's token to the other. An application that spells one user in two
/// ways is told that the second has not consented, which is the harmless mistake.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct UserName(Arc<str>);

/// The reason for which a text is not a valid user name.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum BadUserName {
    /// It holds a control character or a line separator.
    #[error("a user name has no control characters and no line breaks")]
    Control,
    #[error("a user name is not empty")]
    Empty,
    /// It is longer than 256 bytes.
    #[error("a user name has 256 bytes at most")]
    TooLong,
    /// White space at its beginning or end: a header would lose it, a JSON text would not.
    #[error("a user name neither begins nor ends with white space")]
    OuterSpace,
}

impl UserName {
    /// Parses a user name; the error names the rule that it breaks.
    pub fn parse(text: &str) -> Result<Self, BadUserName> {
        if text.is_empty() {
            return Err(BadUserName::Empty);
        }
        if text.len() > LONGEST {
            return Err(BadUserName::TooLong);
        }
        if text.chars().any(|c| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')) {
            return Err(BadUserName::Control);
        }
        if text.trim().len() != text.len() {
            return Err(BadUserName::OuterSpace);
        }
        Ok(Self(text.into()))
    }

    /// Returns the name exactly as the application sent it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// To whom a consent was given.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum ConsentOwner {
    /// A single client, by its name.
    Client(Arc<str>),
    /// All clients of one `consent_group`.
    Group(Arc<str>),
}

impl ConsentOwner {
    /// Returns the kind of the owner: `"client"` or `"group"`.
    pub const fn kind(&self) -> &'static str {
        match self {
            ConsentOwner::Client(_) => "client",
            ConsentOwner::Group(_) => "group",
        }
    }

    /// The client's or the group's name.
    pub fn name(&self) -> &str {
        match self {
            ConsentOwner::Client(name) | ConsentOwner::Group(name) => name,
        }
    }
}

/// The key of a user's tokens: the owner that may use them, the provider, and the user who consented.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct UserKey {
    /// Client or group that may use the tokens.
    pub owner: ConsentOwner,
    /// The provider's name in `proxy.toml`.
    pub provider: Arc<str>,
    /// User who gave the consent, as named by the application.
    pub user: UserName,
}

impl UserKey {
    /// The key of the user's record in a store, so that no name of a user stands there in the clear. Never equal to a key
    /// of an application's token. It is none of a token: see [`lease_key`](Self::lease_key).
    pub fn record_key(&self) -> TokenKey {
        self.fields().finish()
    }

    /// The key of the user's access token with the keeper and on the shelf. The realm is part of it, so a token of one
    /// bank is not found by a config that names another.
    pub fn lease_key(&self, realm: ConsentRealm) -> TokenKey {
        let mut key = self.fields();
        if !planted(PlantedFault::RealmLess) {
            key.field("realm", &realm.0);
        }
        key.finish()
    }

    fn fields(&self) -> KeyBuilder {
        let mut key = KeyBuilder::new(&self.provider);
        key.field("as", b"user");
        key.field(self.owner.kind(), self.owner.name().as_bytes());
        key.field("user", self.user.as_str().as_bytes());
        key
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(owner: ConsentOwner, provider: &str, user: &str) -> TokenKey {
        UserKey { owner, provider: provider.into(), user: UserName::parse(user).expect("a name") }.record_key()
    }

    #[test]
    fn names_that_a_header_or_a_log_would_bend_are_refused() {
        for (text, wrong) in [
            ("", BadUserName::Empty),
            ("a\nb", BadUserName::Control),
            ("a\u{0}", BadUserName::Control),
            ("a\u{7f}b", BadUserName::Control),
            ("a\u{85}b", BadUserName::Control),
            ("a\u{2028}b", BadUserName::Control),
            (" a", BadUserName::OuterSpace),
            ("a\u{a0}", BadUserName::OuterSpace),
        ] {
            assert_eq!(UserName::parse(text), Err(wrong), "{text:?}");
        }
        assert_eq!(UserName::parse(&"a".repeat(257)), Err(BadUserName::TooLong));
        for text in ["a", "alice@app.example", "Ann Lee", "ส้ม", &"a".repeat(256)] {
            assert_eq!(UserName::parse(text).expect(text).as_str(), text);
        }
    }

    #[test]
    fn names_that_only_look_alike_are_different_users() {
        let client = || ConsentOwner::Client("erp".into());
        assert_ne!(key(client(), "scb", "\u{e9}"), key(client(), "scb", "e\u{301}"));
        assert_ne!(key(client(), "scb", "alice"), key(client(), "scb", "Alice"));
    }

    #[test]
    fn a_token_of_another_bank_has_another_key() {
        let owner = ConsentOwner::Client("erp".into());
        let alice = UserKey { owner, provider: "scb".into(), user: UserName::parse("alice").expect("a name") };
        let (one, other) = (alice.lease_key(ConsentRealm([1; 32])), alice.lease_key(ConsentRealm([2; 32])));
        assert!(one != other && one != alice.record_key() && other != alice.record_key());
    }

    proptest! {
        #[test]
        fn every_part_of_the_key_counts(
            names in proptest::collection::vec("[ab:/]{1,3}", 6), groups in any::<(bool, bool)>(),
        ) {
            let owner = |group: bool, name: &str| if group { ConsentOwner::Group(name.into()) } else { ConsentOwner::Client(name.into()) };
            let one = (owner(groups.0, &names[0]), &names[1], &names[2]);
            let other = (owner(groups.1, &names[3]), &names[4], &names[5]);
            let keys = (key(one.0.clone(), one.1, one.2), key(other.0.clone(), other.1, other.2));
            prop_assert_eq!(one == other, keys.0 == keys.1);
        }
    }
}
