//! Secrets, and what may be said about them.
//!
//! A secret is a `secrecy` value from the moment it is read. What may be shown is a [`Fingerprint`]: enough to tell
//! two secrets apart in a log, too little to guess one.

use std::fmt;

use aws_lc_rs::digest;
pub use secrecy::{ExposeSecret, SecretBox, SecretString};

/// The first eight hexadecimal digits of a secret's SHA-256.
#[derive(Clone, Copy, Eq, Hash, PartialEq)]
pub struct Fingerprint(u32);

impl Fingerprint {
    /// The fingerprint of some secret bytes.
    pub fn of(secret: &[u8]) -> Self {
        let hash = sha256(secret);
        Self(u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

/// SHA-256 of `bytes`.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    out
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    let mut out = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _ = write!(out, "{byte:02x}");
    }
    out
}
