//! The errors of a store, in its own terms.

use std::fmt;

use super::record::RecordName;

/// The reason for which an operation failed. Texts are for the operator; they hold no value of a record and no secret.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Error {
    /// Somebody else has written meanwhile: read again.
    Conflict,
    /// This record cannot be believed; others can. It is told once in the log.
    Damaged(Damaged),
    /// There is no room: nothing was written.
    Full(String),
    /// The store cannot be used now. It is unknown if a write was done; reading again shows it.
    Unavailable(String),
}

impl Error {
    /// Returns whether the store is sound but another process has its file open.
    pub fn is_in_use(&self) -> bool {
        match self {
            Self::Unavailable(why) => why.contains(super::file::IN_USE),
            Self::Conflict | Self::Damaged(_) | Self::Full(_) => false,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Conflict => f.write_str("somebody else has written the record meanwhile"),
            Self::Damaged(damaged) => damaged.fmt(f),
            Self::Full(why) | Self::Unavailable(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for Error {}

/// A record that cannot be believed.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Damaged {
    /// The kind and key of the damaged record.
    pub name: RecordName,
    /// The kind of damage to the record.
    pub why: Damage,
}

impl fmt::Display for Damaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the record {} cannot be read: {}", self.name, self.why)
    }
}

/// The kinds of damage to a record.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Damage {
    /// It was cut, changed, or put there from another place.
    Altered,
    /// It is sealed under a key that is not among ours.
    ForeignKey,
    /// A later version of countersign wrote it.
    NewerFormat,
    /// A value that is not a record at all.
    WrongType,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Altered => "it was cut, altered or moved",
            Self::ForeignKey => "it is sealed under a key that is not in `keys` of [store]",
            Self::NewerFormat => "a later version of countersign wrote it",
            Self::WrongType => "what lies there was not written by countersign",
        })
    }
}
