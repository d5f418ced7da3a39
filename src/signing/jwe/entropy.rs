//! Random bytes for content keys, initialization vectors and ephemeral keys.

use thiserror::Error;

/// The source of random bytes failed.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("no random bytes are to be had")]
pub struct NoEntropy;

/// A source of random bytes. Production takes the cryptographic library's; a test hands out known ones.
pub trait Entropy {
    /// Fills `bytes` with random values that have not been used before.
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), NoEntropy>;
}

/// The generator of the cryptographic library.
#[derive(Clone, Copy, Debug, Default)]
pub struct LibraryEntropy;

impl Entropy for LibraryEntropy {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), NoEntropy> {
        aws_lc_rs::rand::fill(bytes).map_err(|_| NoEntropy)
    }
}
