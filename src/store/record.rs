//! The data of a record: its kind and key, its value, its expiry and its version.

use std::fmt;

use crate::base::secret::{SecretBox, hex};
use crate::token::key::TokenKey;

/// The kind of a record. Kinds are separate: equal keys of two kinds are two records.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Kind {
    /// An application's access token, under its token key.
    Application,
    /// A consent that was started and waits for its callback; taken once.
    Pending,
    /// One user's consent, with its access and refresh token.
    User,
}

impl Kind {
    /// All kinds, in alphabetical order.
    pub const ALL: [Self; 3] = [Self::Application, Self::Pending, Self::User];

    /// Its name, in file, in Redis and in messages: lower-case letters. Never changed once released.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Application => "application",
            Self::Pending => "pending",
            Self::User => "user",
        }
    }

    /// The kind of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// A record's key within its kind: a digest, or a text. It is not sealed: anyone who reads the file or Redis sees it.
#[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct RecordKey(Box<[u8]>);

impl RecordKey {
    /// A key of these bytes.
    pub fn new(bytes: impl Into<Box<[u8]>>) -> Self {
        Self(bytes.into())
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<&TokenKey> for RecordKey {
    fn from(key: &TokenKey) -> Self {
        Self::new(key.as_bytes().as_slice())
    }
}

impl From<&str> for RecordKey {
    fn from(text: &str) -> Self {
        Self::new(text.as_bytes())
    }
}

/// A plain text as it is; else the first 16 hexadecimal digits, as a [`TokenKey`] shows itself.
impl fmt::Display for RecordKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match std::str::from_utf8(&self.0) {
            Ok(text) if (1..=128).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic()) => {
                f.write_str(text)
            }
            Ok(_) | Err(_) => f.write_str(&hex(self.0.get(..8).unwrap_or(&self.0))),
        }
    }
}

impl fmt::Debug for RecordKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}

/// A record's kind and key. `Display` is `user/alice`.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct RecordName {
    pub kind: Kind,
    pub key: RecordKey,
}

impl fmt::Display for RecordName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind.name(), self.key)
    }
}

/// One writing of a record: drawn anew by every write, so that [`swap`](super::Store::swap) sees any other write. It
/// says nothing of order.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Version(pub(super) u64);

/// A record as it was read.
#[derive(Debug)]
pub struct StoredRecord {
    /// The value as it was written, unsealed.
    pub value: SecretBox<[u8]>,
    /// When it ends, in milliseconds since 1970; absent: never.
    pub expiry: Option<u64>,
    /// The version that identifies the write it came from.
    pub version: Version,
}

/// A record as a listing shows it, without its value.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RecordEntry {
    pub key: RecordKey,
    /// When it ends, in milliseconds since 1970; absent: never.
    pub expiry: Option<u64>,
    /// The version of the record when it was listed.
    pub version: Version,
}

/// The records of one kind, by key.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Listing {
    /// Those that can be read and have not ended.
    pub entries: Vec<RecordEntry>,
    /// Those that cannot be read, set aside or left where they are.
    pub damaged: Vec<super::Damaged>,
}
