//! Key management (RFC 7518 section 4): the ways of the content key to the recipient.

use aws_lc_rs::agreement;
use aws_lc_rs::agreement::UnparsedPublicKey;
use aws_lc_rs::digest;
use aws_lc_rs::key_wrap;
use aws_lc_rs::key_wrap::{AesKek, KeyWrap as _};
use aws_lc_rs::rsa::{OAEP_SHA256_MGF1SHA256, OaepPrivateDecryptingKey, OaepPublicEncryptingKey};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::super::algorithm::KeyType;
use super::super::encoding::from_base64url;
use super::super::jwk;
use super::super::public_key::PublicKey;
use super::ContentEncryption;
use super::DecryptionKey;
use super::EncryptionKey;
use super::Entropy;
use super::JweError;

/// Draws of an ephemeral key before its source is given up. One in four billion is no number of P-256.
const DRAWS: usize = 8;

/// A way by which the content key reaches the recipient.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum KeyManagement {
    /// The content key is wrapped by AES-128 with a shared key.
    A128Kw,
    /// The content key is wrapped by AES-256 with a shared key.
    A256Kw,
    /// The shared key is the content key.
    Direct,
    /// The content key is agreed on by elliptic curve Diffie-Hellman with an ephemeral key.
    EcdhEs,
    /// The key that wraps the content key by AES-128 is agreed on.
    EcdhEsA128Kw,
    /// The key that wraps the content key by AES-256 is agreed on.
    EcdhEsA256Kw,
    /// The content key is encrypted by RSAES-OAEP with SHA-256.
    RsaOaep256,
}

/// A content key and all that travels to the recipient.
pub(super) struct MadeKey {
    pub(super) content_key: Zeroizing<Vec<u8>>,
    pub(super) encrypted_key: Vec<u8>,
    pub(super) ephemeral: Option<PublicKey>,
}

impl KeyManagement {
    /// Reads a JOSE name. The error says what to write instead.
    pub fn parse(name: &str) -> Result<Self, &'static str> {
        let all = [
            Self::A128Kw,
            Self::A256Kw,
            Self::Direct,
            Self::EcdhEs,
            Self::EcdhEsA128Kw,
            Self::EcdhEsA256Kw,
            Self::RsaOaep256,
        ];
        let found = all.into_iter().find(|management| management.name() == name);
        found.ok_or(
            "write \"RSA-OAEP-256\", \"ECDH-ES\", \"ECDH-ES+A128KW\", \"ECDH-ES+A256KW\", \"A128KW\", \"A256KW\" \
             or \"dir\"",
        )
    }

    /// Returns the JOSE name, the value of `alg`.
    pub const fn name(self) -> &'static str {
        match self {
            KeyManagement::A128Kw => "A128KW",
            KeyManagement::A256Kw => "A256KW",
            KeyManagement::Direct => "dir",
            KeyManagement::EcdhEs => "ECDH-ES",
            KeyManagement::EcdhEsA128Kw => "ECDH-ES+A128KW",
            KeyManagement::EcdhEsA256Kw => "ECDH-ES+A256KW",
            KeyManagement::RsaOaep256 => "RSA-OAEP-256",
        }
    }

    /// Returns whether keys of this kind go with it.
    pub const fn takes(self, key: KeyType) -> bool {
        match self {
            KeyManagement::A128Kw | KeyManagement::A256Kw | KeyManagement::Direct => matches!(key, KeyType::Secret),
            KeyManagement::EcdhEs | KeyManagement::EcdhEsA128Kw | KeyManagement::EcdhEsA256Kw => {
                matches!(key, KeyType::P256 | KeyType::P384)
            }
            KeyManagement::RsaOaep256 => matches!(key, KeyType::Rsa),
        }
    }

    /// Returns a few words for the keys that go with it.
    pub const fn key(self) -> &'static str {
        match self {
            KeyManagement::A128Kw | KeyManagement::A256Kw | KeyManagement::Direct => "a shared secret",
            KeyManagement::EcdhEs | KeyManagement::EcdhEsA128Kw | KeyManagement::EcdhEsA256Kw => {
                "an EC key (P-256 or P-384)"
            }
            KeyManagement::RsaOaep256 => "an RSA key",
        }
    }

    pub(super) fn encrypt_key(
        self,
        encryption: ContentEncryption,
        header: &Map<String, Value>,
        key: EncryptionKey<'_>,
        entropy: &mut dyn Entropy,
    ) -> Result<MadeKey, JweError> {
        let mut made = MadeKey { content_key: Zeroizing::new(Vec::new()), encrypted_key: Vec::new(), ephemeral: None };
        match (self, key) {
            (KeyManagement::Direct, EncryptionKey::Secret(secret)) => {
                made.content_key = secret.with_bytes(|bytes| Zeroizing::new(bytes.to_vec()));
                let fits = made.content_key.len() == encryption.key_len();
                return if fits { Ok(made) } else { Err(JweError::Key) };
            }
            (KeyManagement::A128Kw | KeyManagement::A256Kw, EncryptionKey::Secret(secret)) => {
                made.content_key = drawn(encryption.key_len(), entropy)?;
                let wrapped = secret.with_bytes(|kek| self.wrap(kek, &made.content_key));
                made.encrypted_key = wrapped.ok_or(JweError::Key)?;
            }
            (
                KeyManagement::EcdhEs | KeyManagement::EcdhEsA128Kw | KeyManagement::EcdhEsA256Kw,
                EncryptionKey::Public(recipient),
            ) => {
                let (ephemeral, public) = draw_ephemeral(recipient.key_type(), entropy)?;
                let agreed = self.agree(encryption, header, &ephemeral, recipient).ok_or(JweError::Failed)?;
                made.ephemeral = Some(public);
                if self == KeyManagement::EcdhEs {
                    made.content_key = agreed;
                } else {
                    made.content_key = drawn(encryption.key_len(), entropy)?;
                    made.encrypted_key = self.wrap(&agreed, &made.content_key).ok_or(JweError::Failed)?;
                }
            }
            (KeyManagement::RsaOaep256, EncryptionKey::Public(recipient)) => {
                let rsa = recipient.rsa_encryption().ok_or(JweError::Key)?;
                let rsa = OaepPublicEncryptingKey::new(rsa).map_err(|_| JweError::Key)?;
                made.content_key = drawn(encryption.key_len(), entropy)?;
                let mut out = vec![0; rsa.ciphertext_size()];
                let written = rsa.encrypt(&OAEP_SHA256_MGF1SHA256, &made.content_key, &mut out, None);
                made.encrypted_key = written.map_err(|_| JweError::Failed)?.to_vec();
            }
            (
                KeyManagement::A128Kw
                | KeyManagement::A256Kw
                | KeyManagement::Direct
                | KeyManagement::EcdhEs
                | KeyManagement::EcdhEsA128Kw
                | KeyManagement::EcdhEsA256Kw
                | KeyManagement::RsaOaep256,
                _,
            ) => return Err(JweError::Key),
        }
        Ok(made)
    }

    /// Opens the content key; `None` whatever the reason.
    pub(super) fn decrypt_key(
        self,
        encryption: ContentEncryption,
        header: &Map<String, Value>,
        encrypted: &[u8],
        key: DecryptionKey<'_>,
    ) -> Option<Zeroizing<Vec<u8>>> {
        let content_key = match (self, key) {
            (KeyManagement::Direct, DecryptionKey::Secret(secret)) => {
                encrypted.is_empty().then(|| secret.with_bytes(|bytes| Zeroizing::new(bytes.to_vec())))?
            }
            (KeyManagement::A128Kw | KeyManagement::A256Kw, DecryptionKey::Secret(secret)) => {
                secret.with_bytes(|kek| self.unwrap_key(kek, encrypted))?
            }
            (
                KeyManagement::EcdhEs | KeyManagement::EcdhEsA128Kw | KeyManagement::EcdhEsA256Kw,
                DecryptionKey::Private(private),
            ) => {
                let ephemeral = jwk::public_key(header.get("epk")?.to_string().as_bytes()).ok()?;
                if ephemeral.key_type() != private.key_type() {
                    return None;
                }
                let agreed = self.agree(encryption, header, &private.agreement()?, &ephemeral)?;
                match self {
                    KeyManagement::EcdhEs => Some(agreed).filter(|_| encrypted.is_empty())?,
                    KeyManagement::A128Kw
                    | KeyManagement::A256Kw
                    | KeyManagement::Direct
                    | KeyManagement::EcdhEsA128Kw
                    | KeyManagement::EcdhEsA256Kw
                    | KeyManagement::RsaOaep256 => self.unwrap_key(&agreed, encrypted)?,
                }
            }
            (KeyManagement::RsaOaep256, DecryptionKey::Private(private)) => {
                let rsa = OaepPrivateDecryptingKey::new(private.rsa_decryption()?).ok()?;
                let mut out = Zeroizing::new(vec![0; rsa.min_output_size()]);
                let length = rsa.decrypt(&OAEP_SHA256_MGF1SHA256, encrypted, &mut out, None).ok()?.len();
                out.truncate(length);
                out
            }
            (
                KeyManagement::A128Kw
                | KeyManagement::A256Kw
                | KeyManagement::Direct
                | KeyManagement::EcdhEs
                | KeyManagement::EcdhEsA128Kw
                | KeyManagement::EcdhEsA256Kw
                | KeyManagement::RsaOaep256,
                _,
            ) => return None,
        };
        (content_key.len() == encryption.key_len()).then_some(content_key)
    }

    /// Agrees on a key and derives it (RFC 7518 section 4.6.2).
    fn agree(
        self,
        encryption: ContentEncryption,
        header: &Map<String, Value>,
        private: &agreement::PrivateKey,
        public: &PublicKey,
    ) -> Option<Zeroizing<Vec<u8>>> {
        let (name, length) = match self {
            KeyManagement::EcdhEs => (encryption.name(), encryption.key_len()),
            KeyManagement::EcdhEsA128Kw => (self.name(), 16),
            KeyManagement::EcdhEsA256Kw => (self.name(), 32),
            KeyManagement::A128Kw | KeyManagement::A256Kw | KeyManagement::Direct | KeyManagement::RsaOaep256 => {
                return None;
            }
        };
        let party = |member: &str| match header.get(member) {
            Some(value) => from_base64url(value.as_str()?),
            None => Some(Vec::new()),
        };
        let (apu, apv) = (party("apu")?, party("apv")?);
        let point = UnparsedPublicKey::new(private.algorithm(), public.point()?);
        agreement::agree(private, point, (), |shared| Ok(concat_kdf(shared, name, &apu, &apv, length))).ok()
    }

    fn wrap(self, key: &[u8], content_key: &[u8]) -> Option<Vec<u8>> {
        let mut out = vec![0; content_key.len() + 8];
        let length = self.kek(key)?.wrap(content_key, &mut out).ok()?.len();
        out.truncate(length);
        Some(out)
    }

    fn unwrap_key(self, key: &[u8], wrapped: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let mut out = Zeroizing::new(vec![0; wrapped.len().checked_sub(8)?]);
        let length = self.kek(key)?.unwrap(wrapped, &mut out).ok()?.len();
        out.truncate(length);
        Some(out)
    }

    fn kek(self, key: &[u8]) -> Option<AesKek> {
        let cipher = match self {
            KeyManagement::A128Kw | KeyManagement::EcdhEsA128Kw => &key_wrap::AES_128,
            KeyManagement::A256Kw | KeyManagement::EcdhEsA256Kw => &key_wrap::AES_256,
            KeyManagement::Direct | KeyManagement::EcdhEs | KeyManagement::RsaOaep256 => return None,
        };
        AesKek::new(cipher, key).ok()
    }
}

fn drawn(length: usize, entropy: &mut dyn Entropy) -> Result<Zeroizing<Vec<u8>>, JweError> {
    let mut bytes = Zeroizing::new(vec![0; length]);
    entropy.fill(&mut bytes)?;
    Ok(bytes)
}

/// Draws an ephemeral key on a curve.
fn draw_ephemeral(curve: KeyType, entropy: &mut dyn Entropy) -> Result<(agreement::PrivateKey, PublicKey), JweError> {
    let (algorithm, length) = match curve {
        KeyType::P256 => (&agreement::ECDH_P256, 32),
        KeyType::P384 => (&agreement::ECDH_P384, 48),
        KeyType::Ed25519 | KeyType::Rsa | KeyType::Secret => return Err(JweError::Key),
    };
    for _ in 0..DRAWS {
        let scalar = drawn(length, entropy)?;
        if let Ok(private) = agreement::PrivateKey::from_private_key(algorithm, &scalar) {
            let point = private.compute_public_key().map_err(|_| JweError::Failed)?;
            let public = PublicKey::ec(curve, point.as_ref()).map_err(|_| JweError::Failed)?;
            return Ok((private, public));
        }
    }
    Err(JweError::Failed)
}

/// Derives a key of at most 64 bytes by the Concat KDF with SHA-256 (NIST SP 800-56A, RFC 7518 section 4.6.2).
pub(super) fn concat_kdf(shared: &[u8], algorithm: &str, apu: &[u8], apv: &[u8], length: usize) -> Zeroizing<Vec<u8>> {
    let mut derived = Zeroizing::new(Vec::with_capacity(length.next_multiple_of(32)));
    let mut round = 1_u32;
    while derived.len() < length {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(&round.to_be_bytes());
        context.update(shared);
        for part in [algorithm.as_bytes(), apu, apv] {
            context.update(&(part.len() as u32).to_be_bytes());
            context.update(part);
        }
        context.update(&(length as u32 * 8).to_be_bytes());
        derived.extend_from_slice(context.finish().as_ref());
        round += 1;
    }
    derived.truncate(length);
    derived
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::super::encoding::base64url;
    use super::super::super::key::SigningKey;
    use super::*;

    /// RFC 7518 appendix C.
    #[test]
    fn the_agreement_of_rfc_7518_is_reproduced_by_both_sides() {
        let alice = json!({"kty": "EC", "crv": "P-256", "x": "gI0GAILBdu7T53akrFmMyGcsF3n5dO7MmwNBHKW5SV0",
            "y": "SLW_xSffzlPWrHEVI30DHM_4egVwt3NQqeUD7nMFpps", "d": "0_NxaRPUMQoAJt50Gz8YiTr8gRTwyEaCumd-MToTmIo"});
        let bob = json!({"kty": "EC", "crv": "P-256", "x": "weNJy2HscCSM6AEDTDg04biOvhFhyyWvOHQfeF_PxMQ",
            "y": "e8lnCO-AlStT-NJVX-crhB7QRYhiix03illJOVAOyck", "d": "VEmDZpDXXK8p8N0Cndsxs924q6nS1RXFASRl6BfUqdw"});
        let header = json!({"apu": "QWxpY2U", "apv": "Qm9i"});
        for (own, other) in [(&alice, &bob), (&bob, &alice)] {
            let SigningKey::Private(own) = jwk::signing_key(own.to_string().as_bytes()).unwrap() else {
                panic!("private")
            };
            let other = jwk::public_key(other.to_string().as_bytes()).unwrap();
            let header = header.as_object().unwrap();
            let private = own.agreement().unwrap();
            let agreed = KeyManagement::EcdhEs.agree(ContentEncryption::A128Gcm, header, &private, &other);
            assert_eq!(base64url(&agreed.unwrap()), "VqqN6vgjbSBcIijNcacQGg");
        }
    }

    #[test]
    fn a_scalar_outside_of_the_curve_is_drawn_again() {
        struct Draws(usize);
        impl Entropy for Draws {
            fn fill(&mut self, bytes: &mut [u8]) -> Result<(), super::super::NoEntropy> {
                bytes.fill(if self.0 == 0 { 1 } else { 0xff });
                self.0 = self.0.saturating_sub(1);
                Ok(())
            }
        }
        assert!(draw_ephemeral(KeyType::P256, &mut Draws(2)).is_ok());
        assert!(matches!(draw_ephemeral(KeyType::P384, &mut Draws(DRAWS)), Err(JweError::Failed)));
        assert!(matches!(draw_ephemeral(KeyType::Rsa, &mut Draws(0)), Err(JweError::Key)));
    }
}
