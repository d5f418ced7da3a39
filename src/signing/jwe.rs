//! JSON Web Encryption in compact form (RFC 7516).
//!
//! Both algorithms are pinned by the caller. The error of a refused message tells no reason, and one whose content key
//! cannot be opened takes the same steps as one whose content is forged (RFC 7516 section 11.5).

mod content;
mod entropy;
mod key_management;

pub use content::ContentEncryption;
pub use entropy::{Entropy, LibraryEntropy, NoEntropy};
pub use key_management::KeyManagement;

use std::fmt;

use serde_json::{Map, Value};
use thiserror::Error;
use zeroize::Zeroizing;

use super::encoding::base64url;
use super::encoding::from_base64url;
use super::key::PrivateKey;
use super::public_key::PublicKey;
use super::shared_secret::SharedSecret;

/// The pair of algorithms that encrypt a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct JweRecipe {
    /// The way of the content key to the recipient, `alg`.
    pub management: KeyManagement,
    /// The encryption of the content, `enc`.
    pub encryption: ContentEncryption,
}

/// The key for which a message is encrypted.
#[derive(Clone, Copy, Debug)]
pub enum EncryptionKey<'a> {
    Public(&'a PublicKey),
    /// A key that both sides know.
    Secret(&'a SharedSecret),
}

/// The key that opens a message.
#[derive(Clone, Copy, Debug)]
pub enum DecryptionKey<'a> {
    Private(&'a PrivateKey),
    /// A key that both sides know.
    Secret(&'a SharedSecret),
}

/// The reason for which a message cannot be encrypted.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum JweError {
    #[error("the cryptographic library refused to encrypt")]
    Failed,
    #[error(
        "the members alg, enc, epk, zip and crit cannot be chosen; alg, enc and epk may be null, to give them a place"
    )]
    Header,
    #[error("the key does not fit the algorithm, or has another length than it needs")]
    Key,
    #[error(transparent)]
    NoEntropy(#[from] NoEntropy),
}

/// A message was refused. The reason is not told: it would help only the forger.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("no message that this key opens")]
pub struct JweRefused;

/// A message that was opened.
pub struct DecryptedJwe {
    /// The members of the header.
    pub header: Map<String, Value>,
    pub plaintext: Zeroizing<Vec<u8>>,
}

/// Shows the header's names only: the content may be secret.
impl fmt::Debug for DecryptedJwe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DecryptedJwe").field("header", &self.header.keys()).finish_non_exhaustive()
    }
}

/// Encrypts a content. The header has `alg` and `enc` first, then `members` in their order (`kid`, `cty`, `apu`, `apv`
/// and others); `alg`, `enc` and `epk` may stand among them as null, to give them a place. A signed message inside is
/// marked by `cty` with the value `JWT`.
pub fn encrypt(
    recipe: JweRecipe,
    members: &Map<String, Value>,
    content: &[u8],
    key: EncryptionKey<'_>,
    entropy: &mut dyn Entropy,
) -> Result<String, JweError> {
    let mut header = opening(recipe, members)?;
    let made = recipe.management.encrypt_key(recipe.encryption, &header, key, entropy)?;
    match made.ephemeral {
        Some(ephemeral) => {
            header.insert("epk".to_owned(), Value::Object(ephemeral.to_jwk()));
        }
        None if header.contains_key("epk") => return Err(JweError::Header),
        None => {}
    }
    let header = base64url(Value::Object(header).to_string().as_bytes());
    let mut iv = vec![0; recipe.encryption.iv_len()];
    entropy.fill(&mut iv)?;
    let sealed = recipe.encryption.seal(&made.content_key, &iv, header.as_bytes(), content);
    let (ciphertext, tag) = sealed.ok_or(JweError::Failed)?;
    let parts = [&made.encrypted_key, &iv, &ciphertext, &tag].map(|part| base64url(part));
    Ok(format!("{header}.{}", parts.join(".")))
}

/// Opens a message of at most `most` bytes.
pub fn decrypt(
    message: &str,
    recipe: JweRecipe,
    key: DecryptionKey<'_>,
    most: usize,
) -> Result<DecryptedJwe, JweRefused> {
    let opened = || {
        if message.len() > most {
            return None;
        }
        let mut parts = message.split('.');
        let (header, encrypted_key) = (parts.next()?, from_base64url(parts.next()?)?);
        let (iv, ciphertext, tag) =
            (from_base64url(parts.next()?)?, from_base64url(parts.next()?)?, from_base64url(parts.next()?)?);
        if parts.next().is_some() {
            return None;
        }
        let members: Map<String, Value> = serde_json::from_slice(&from_base64url(header)?).ok()?;
        let is = |name: &str, value: &str| members.get(name).and_then(Value::as_str) == Some(value);
        let is_pinned = is("alg", recipe.management.name()) && is("enc", recipe.encryption.name());
        if !is_pinned || members.contains_key("zip") || members.contains_key("crit") {
            return None;
        }
        let content_key = recipe.management.decrypt_key(recipe.encryption, &members, &encrypted_key, key);
        let is_opened = content_key.is_some();
        // A key of zeros in place of one that could not be opened: the content is then looked at all the same.
        let content_key = content_key.unwrap_or_else(|| Zeroizing::new(vec![0; recipe.encryption.key_len()]));
        let plaintext = recipe.encryption.open(&content_key, &iv, header.as_bytes(), &ciphertext, &tag);
        let plaintext = plaintext.filter(|_| is_opened)?;
        Some(DecryptedJwe { header: members, plaintext })
    };
    opened().ok_or(JweRefused)
}

/// The header without the ephemeral key.
fn opening(recipe: JweRecipe, members: &Map<String, Value>) -> Result<Map<String, Value>, JweError> {
    let pinned = [("alg", recipe.management.name()), ("enc", recipe.encryption.name())];
    let is_placeholder = |name: &str| members.get(name).is_none_or(Value::is_null);
    let is_free = ["zip", "crit"].iter().all(|name| !members.contains_key(*name));
    if !is_free || !["alg", "enc", "epk"].into_iter().all(is_placeholder) {
        return Err(JweError::Header);
    }
    let missing = pinned.iter().filter(|(name, _)| !members.contains_key(*name));
    let mut header: Map<String, Value> =
        missing.map(|(name, value)| ((*name).to_owned(), Value::from(*value))).collect();
    header.extend(members.clone());
    for (name, value) in pinned {
        header.insert(name.to_owned(), Value::from(value));
    }
    Ok(header)
}

#[cfg(test)]
mod tests;
