//! Keys that stand in for those of a provider's settings, so that a recording can be played: made for it, and good for nothing.

use rcgen::{
    CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256,
};
use zeroize::Zeroizing;

use crate::signing::algorithm::KeyType;

/// A private key in PEM, with a certificate that it signed itself.
pub(super) struct StandInKey {
    pub pem: Zeroizing<String>,
    pub certificate: String,
}

/// The word for a type of keys in a recording; `None`: such a key has no stand-in.
pub(super) const fn key_word(kind: KeyType) -> Option<&'static str> {
    match kind {
        KeyType::Ed25519 => Some("ed25519"),
        KeyType::P256 => Some("p256"),
        KeyType::P384 => Some("p384"),
        KeyType::Rsa => Some("rsa"),
        KeyType::Secret => None,
    }
}

impl StandInKey {
    /// Makes a key of this type; `None`: there is none of the type.
    pub(super) fn draw(kind: KeyType) -> Option<Self> {
        let algorithm = match kind {
            KeyType::Ed25519 => &PKCS_ED25519,
            KeyType::P256 => &PKCS_ECDSA_P256_SHA256,
            KeyType::P384 => &PKCS_ECDSA_P384_SHA384,
            KeyType::Rsa => &PKCS_RSA_SHA256,
            KeyType::Secret => return None,
        };
        let pair = KeyPair::generate_for(algorithm).ok()?;
        let certificate = CertificateParams::new(Vec::new()).ok()?.self_signed(&pair).ok()?.pem();
        Some(Self { pem: Zeroizing::new(pair.serialize_pem()), certificate })
    }
}
