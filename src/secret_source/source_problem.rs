//! The words in which a source of secrets fails.

use thiserror::Error;

/// The part of a config that a problem is about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SourcePart {
    /// The token, role or keys that the source is asked with.
    Credentials,
    /// A field of one secret.
    Field,
    /// One secret: its name, its version, the right to read it.
    Secret,
    /// The server as a whole: its address, its certificate, its answers.
    Server,
}

/// The reason for which there is no secret: what is wrong, and what to do about it. Neither text holds a secret.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("{what}{}{cure}", if .cure.is_empty() { "" } else { "; " })]
pub struct SourceProblem {
    pub part: SourcePart,
    pub what: String,
    pub cure: String,
}

impl SourceProblem {
    pub(super) fn new(part: SourcePart, what: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { part, what: what.into(), cure: cure.into() }
    }

    pub(super) fn server(what: impl Into<String>, cure: impl Into<String>) -> Self {
        Self::new(SourcePart::Server, what, cure)
    }

    /// Returns whether every other secret of the same source would meet it as well.
    pub const fn is_of_source(&self) -> bool {
        match self.part {
            SourcePart::Credentials | SourcePart::Server => true,
            SourcePart::Field | SourcePart::Secret => false,
        }
    }
}
