//! Content encryption (RFC 7518 section 5).

use aws_lc_rs::aead;
use aws_lc_rs::aead::{Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher;
use aws_lc_rs::cipher::{
    DecryptionContext, EncryptionContext, PaddedBlockDecryptingKey, PaddedBlockEncryptingKey, UnboundCipherKey,
};
use aws_lc_rs::constant_time;
use aws_lc_rs::hmac;
use zeroize::Zeroizing;

/// The length of all tags, in bytes.
const TAG: usize = 16;

/// A way to encrypt and authenticate content.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ContentEncryption {
    /// AES-128 in CBC mode with HMAC-SHA-256.
    A128CbcHs256,
    A128Gcm,
    A256Gcm,
}

impl ContentEncryption {
    /// Reads a JOSE name. The error says what to write instead.
    pub fn parse(name: &str) -> Result<Self, &'static str> {
        let all = [Self::A128CbcHs256, Self::A128Gcm, Self::A256Gcm];
        let found = all.into_iter().find(|encryption| encryption.name() == name);
        found.ok_or("write \"A128CBC-HS256\", \"A128GCM\" or \"A256GCM\"")
    }

    /// Returns the JOSE name, the value of `enc`.
    pub const fn name(self) -> &'static str {
        match self {
            ContentEncryption::A128CbcHs256 => "A128CBC-HS256",
            ContentEncryption::A128Gcm => "A128GCM",
            ContentEncryption::A256Gcm => "A256GCM",
        }
    }

    pub(super) const fn key_len(self) -> usize {
        match self {
            ContentEncryption::A128Gcm => 16,
            ContentEncryption::A128CbcHs256 | ContentEncryption::A256Gcm => 32,
        }
    }

    pub(super) const fn iv_len(self) -> usize {
        match self {
            ContentEncryption::A128CbcHs256 => 16,
            ContentEncryption::A128Gcm | ContentEncryption::A256Gcm => 12,
        }
    }

    /// Encrypts `content`; returns ciphertext and tag.
    pub(super) fn seal(self, key: &[u8], iv: &[u8], aad: &[u8], content: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
        let mut text = content.to_vec();
        let Some(gcm) = self.gcm() else {
            let (mac, encryption) = key.split_at_checked(16)?;
            let encryption = UnboundCipherKey::new(&cipher::AES_128, encryption).ok()?;
            let iv: [u8; 16] = iv.try_into().ok()?;
            let context = EncryptionContext::Iv128((&iv).into());
            PaddedBlockEncryptingKey::cbc_pkcs7(encryption).ok()?.less_safe_encrypt(&mut text, context).ok()?;
            let tag = cbc_tag(mac, aad, &iv, &text);
            return Some((text, tag));
        };
        let key = LessSafeKey::new(UnboundKey::new(gcm, key).ok()?);
        let nonce = Nonce::try_assume_unique_for_key(iv).ok()?;
        let tag = key.seal_in_place_separate_tag(nonce, Aad::from(aad), &mut text).ok()?;
        Some((text, tag.as_ref().to_vec()))
    }

    /// Decrypts `ciphertext` once its tag is right; the tag is compared in constant time.
    pub(super) fn open(
        self,
        key: &[u8],
        iv: &[u8],
        aad: &[u8],
        ciphertext: &[u8],
        tag: &[u8],
    ) -> Option<Zeroizing<Vec<u8>>> {
        if tag.len() != TAG || iv.len() != self.iv_len() || key.len() != self.key_len() {
            return None;
        }
        let mut text = Zeroizing::new(ciphertext.to_vec());
        let length = if let Some(gcm) = self.gcm() {
            let key = LessSafeKey::new(UnboundKey::new(gcm, key).ok()?);
            let nonce = Nonce::try_assume_unique_for_key(iv).ok()?;
            text.extend_from_slice(tag);
            key.open_in_place(nonce, Aad::from(aad), &mut text).ok()?.len()
        } else {
            let (mac, encryption) = key.split_at_checked(16)?;
            constant_time::verify_slices_are_equal(&cbc_tag(mac, aad, iv, ciphertext), tag).ok()?;
            let encryption = UnboundCipherKey::new(&cipher::AES_128, encryption).ok()?;
            let iv: [u8; 16] = iv.try_into().ok()?;
            let context = DecryptionContext::Iv128((&iv).into());
            PaddedBlockDecryptingKey::cbc_pkcs7(encryption).ok()?.decrypt(&mut text, context).ok()?.len()
        };
        text.truncate(length);
        Some(text)
    }

    const fn gcm(self) -> Option<&'static aead::Algorithm> {
        match self {
            ContentEncryption::A128CbcHs256 => None,
            ContentEncryption::A128Gcm => Some(&aead::AES_128_GCM),
            ContentEncryption::A256Gcm => Some(&aead::AES_256_GCM),
        }
    }
}

/// The tag of `A128CBC-HS256` (RFC 7518 section 5.2.2.1).
fn cbc_tag(key: &[u8], aad: &[u8], iv: &[u8], ciphertext: &[u8]) -> Vec<u8> {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
    context.update(aad);
    context.update(iv);
    context.update(ciphertext);
    context.update(&(aad.len() as u64 * 8).to_be_bytes());
    context.sign().as_ref()[..TAG].to_vec()
}
