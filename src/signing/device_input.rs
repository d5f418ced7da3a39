//! The bytes that a device or key service signs: the digest of a message, in the form that the algorithm wants.
//!
//! Messages are hashed here, so that they may be of any length and do not leave the process.

use super::algorithm::SigningAlgorithm;
use super::digest::DigestAlgorithm;

/// DER of the `DigestInfo` of each hash, up to the digest itself (RFC 8017 section 9.2, note 1).
const SHA_256_INFO: [u8; 19] = *b"\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20";
const SHA_384_INFO: [u8; 19] = *b"\x30\x41\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02\x05\x00\x04\x30";
const SHA_512_INFO: [u8; 19] = *b"\x30\x51\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x03\x05\x00\x04\x40";

/// The input of a signature that is made elsewhere.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum DeviceInput {
    /// The digest of the message.
    Digest(DigestAlgorithm, Vec<u8>),
    /// The message itself: Ed25519 has no form over a digest that JOSE knows (RFC 8032 section 4).
    Message(Vec<u8>),
}

impl DeviceInput {
    /// Prepares a message. `None` for authentication codes, which are made of secrets in memory.
    pub fn of(algorithm: SigningAlgorithm, message: &[u8]) -> Option<Self> {
        let hash = match algorithm {
            SigningAlgorithm::EdDsa => return Some(DeviceInput::Message(message.to_vec())),
            SigningAlgorithm::Es256 | SigningAlgorithm::Ps256 | SigningAlgorithm::Rs256 => DigestAlgorithm::Sha256,
            SigningAlgorithm::Es384 | SigningAlgorithm::Ps384 | SigningAlgorithm::Rs384 => DigestAlgorithm::Sha384,
            SigningAlgorithm::Ps512 | SigningAlgorithm::Rs512 => DigestAlgorithm::Sha512,
            SigningAlgorithm::Hs256 | SigningAlgorithm::Hs384 | SigningAlgorithm::Hs512 => return None,
        };
        Some(DeviceInput::Digest(hash, hash.of(message)))
    }

    /// Returns the digest or the message.
    pub fn bytes(&self) -> &[u8] {
        match self {
            DeviceInput::Digest(_, bytes) | DeviceInput::Message(bytes) => bytes,
        }
    }

    /// Returns the `DigestInfo` that RSASSA-PKCS1-v1_5 signs (RFC 8017 section 9.2); a message as it is.
    pub fn digest_info(&self) -> Vec<u8> {
        match self {
            DeviceInput::Digest(DigestAlgorithm::Sha256, digest) => [&SHA_256_INFO, digest.as_slice()].concat(),
            DeviceInput::Digest(DigestAlgorithm::Sha384, digest) => [&SHA_384_INFO, digest.as_slice()].concat(),
            DeviceInput::Digest(DigestAlgorithm::Sha512, digest) => [&SHA_512_INFO, digest.as_slice()].concat(),
            DeviceInput::Message(message) => message.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_info_names_its_hash_and_its_lengths() {
        for (algorithm, length) in
            [(SigningAlgorithm::Rs256, 32), (SigningAlgorithm::Rs384, 48), (SigningAlgorithm::Rs512, 64)]
        {
            let input = DeviceInput::of(algorithm, b"message").expect("an RSA input");
            let info = input.digest_info();
            assert_eq!(input.bytes().len(), length);
            assert_eq!(info.len(), 19 + length);
            assert_eq!(usize::from(info[1]), info.len() - 2, "{algorithm}");
            assert_eq!(usize::from(info[18]), length, "{algorithm}");
        }
        assert_eq!(DeviceInput::of(SigningAlgorithm::EdDsa, b"m"), Some(DeviceInput::Message(b"m".to_vec())));
        assert_eq!(DeviceInput::of(SigningAlgorithm::Hs256, b"m"), None);
    }
}
