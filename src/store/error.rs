//! The errors of a store, in its own terms.

use thiserror::Error as ThisError;

use super::record::RecordName;

/// The reason for which an operation failed. Texts are for the operator; they hold no value of a record and no secret.
#[derive(Clone, Debug, Eq, PartialEq, ThisError)]
pub enum Error {
    /// Somebody else has written meanwhile: read again.
    #[error("somebody else has written the record meanwhile")]
    Conflict,
    /// This record cannot be believed; others can. It is told once in the log.
    #[error(transparent)]
    Damaged(Damaged),
    /// There is no room: nothing was written.
    #[error("{0}")]
    Full(String),
    /// The store cannot be used now. It is unknown if a write was done; reading again shows it.
    #[error("{0}")]
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

/// A record that cannot be believed.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, ThisError)]
#[error("the record {name} cannot be read: {why}")]
pub struct Damaged {
    /// The kind and key of the damaged record.
    pub name: RecordName,
    /// The kind of damage to the record.
    pub why: Damage,
}

/// The kinds of damage to a record.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, ThisError)]
pub enum Damage {
    /// It was cut, changed, or put there from another place.
    #[error("it was cut, altered or moved")]
    Altered,
    /// It is sealed under a key that is not among ours.
    #[error("it is sealed under a key that is not in `keys` of [store]")]
    ForeignKey,
    /// A later version of countersign wrote it.
    #[error("a later version of countersign wrote it")]
    NewerFormat,
    /// A value that is not a record at all.
    #[error("what lies there was not written by countersign")]
    WrongType,
}
