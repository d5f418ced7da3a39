//! The limits of a provider's response, and the reasons why one could not be read.

use thiserror::Error;

use crate::base::coding::Undecodable;

/// The largest body that is read, in bytes.
pub(super) const SIZE_CAP: usize = 64 * 1024;

/// The deepest nesting that is read.
pub(super) const DEPTH_CAP: usize = 32;

/// The reason a body could not be read. It may name a position in the body, never its content.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub(super) enum DocumentError {
    /// Its content coding cannot be undone.
    #[error(transparent)]
    Coded(Undecodable),
    /// A body that is empty or only white space.
    #[error("an empty body")]
    Empty,
    /// No JSON from this line and column (of bytes, both from 1) on.
    #[error("a body that is not JSON (from line {line}, column {column})")]
    NotJson { line: usize, column: usize },
    /// Not UTF-8 (RFC 8259 section 8.1).
    #[error("a body that is not UTF-8")]
    NotUtf8,
    /// No well-formed XML from this line and column (of bytes, both from 1) on.
    #[error("a body that is not XML (from line {line}, column {column})")]
    NotXml { line: usize, column: usize },
    /// Nested more levels deep than [`DEPTH_CAP`].
    #[error("a body nested deeper than {DEPTH_CAP}")]
    TooDeep,
    /// A body of more than [`SIZE_CAP`] bytes.
    #[error("a body of more than {} KiB", SIZE_CAP / 1024)]
    TooLong,
    /// XML with something that is never read, such as a document type declaration.
    #[error("XML with {0}, which is not read")]
    XmlBeyond(&'static str),
}
