//! Signature algorithms by their JOSE names (RFC 7518 section 3.1, RFC 8037), and the keys that fit them.

use std::fmt;

use thiserror::Error;

/// An algorithm of digital signatures or message authentication codes, named as in JOSE: `Es…` is ECDSA, `Hs…` HMAC,
/// `Ps…` RSASSA-PSS with a salt as long as the hash, `Rs…` RSASSA-PKCS1-v1_5, and the number that of SHA-2. `none` is
/// none of them.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum SigningAlgorithm {
    /// EdDSA on Curve25519 only: Ed25519.
    EdDsa,
    Es256,
    Es384,
    Hs256,
    Hs384,
    Hs512,
    Ps256,
    Ps384,
    Ps512,
    Rs256,
    Rs384,
    Rs512,
}

/// The error for a name that no algorithm has.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum UnknownAlgorithm {
    /// The name is `none`: an unsigned message.
    #[error("\"none\" leaves a message unsigned and cannot be chosen; write \"PS256\" or \"ES256\"")]
    Unsigned,
    #[error(
        "write \"EdDSA\", \"ES256\", \"ES384\", \"HS256\", \"HS384\", \"HS512\", \"PS256\", \"PS384\", \"PS512\", \
         \"RS256\", \"RS384\" or \"RS512\""
    )]
    Unknown,
}

/// A kind of key; an algorithm fits exactly one.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum KeyType {
    Ed25519,
    /// An EC key on the curve P-256.
    P256,
    /// An EC key on the curve P-384.
    P384,
    /// An RSA key of 2048 bits or more.
    Rsa,
    Secret,
}

impl fmt::Display for KeyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            KeyType::Ed25519 => "an Ed25519 key",
            KeyType::P256 => "an EC key on P-256",
            KeyType::P384 => "an EC key on P-384",
            KeyType::Rsa => "an RSA key",
            KeyType::Secret => "a shared secret",
        })
    }
}

impl SigningAlgorithm {
    pub const ALL: [SigningAlgorithm; 12] = [
        SigningAlgorithm::EdDsa,
        SigningAlgorithm::Es256,
        SigningAlgorithm::Es384,
        SigningAlgorithm::Hs256,
        SigningAlgorithm::Hs384,
        SigningAlgorithm::Hs512,
        SigningAlgorithm::Ps256,
        SigningAlgorithm::Ps384,
        SigningAlgorithm::Ps512,
        SigningAlgorithm::Rs256,
        SigningAlgorithm::Rs384,
        SigningAlgorithm::Rs512,
    ];

    /// Reads a JOSE name, such as `PS256`. The error says what to write instead.
    pub fn parse(name: &str) -> Result<Self, UnknownAlgorithm> {
        match Self::ALL.into_iter().find(|algorithm| algorithm.name() == name) {
            Some(algorithm) => Ok(algorithm),
            None if name.eq_ignore_ascii_case("none") => Err(UnknownAlgorithm::Unsigned),
            None => Err(UnknownAlgorithm::Unknown),
        }
    }

    /// Returns the JOSE name, the value of `alg`.
    pub const fn name(self) -> &'static str {
        match self {
            SigningAlgorithm::EdDsa => "EdDSA",
            SigningAlgorithm::Es256 => "ES256",
            SigningAlgorithm::Es384 => "ES384",
            SigningAlgorithm::Hs256 => "HS256",
            SigningAlgorithm::Hs384 => "HS384",
            SigningAlgorithm::Hs512 => "HS512",
            SigningAlgorithm::Ps256 => "PS256",
            SigningAlgorithm::Ps384 => "PS384",
            SigningAlgorithm::Ps512 => "PS512",
            SigningAlgorithm::Rs256 => "RS256",
            SigningAlgorithm::Rs384 => "RS384",
            SigningAlgorithm::Rs512 => "RS512",
        }
    }

    /// Returns the name in the registry of HTTP signature algorithms (RFC 9421 section 6.2.2), which has some of them.
    pub const fn http_name(self) -> Option<&'static str> {
        match self {
            SigningAlgorithm::EdDsa => Some("ed25519"),
            SigningAlgorithm::Es256 => Some("ecdsa-p256-sha256"),
            SigningAlgorithm::Es384 => Some("ecdsa-p384-sha384"),
            SigningAlgorithm::Hs256 => Some("hmac-sha256"),
            SigningAlgorithm::Ps512 => Some("rsa-pss-sha512"),
            SigningAlgorithm::Rs256 => Some("rsa-v1_5-sha256"),
            SigningAlgorithm::Hs384
            | SigningAlgorithm::Hs512
            | SigningAlgorithm::Ps256
            | SigningAlgorithm::Ps384
            | SigningAlgorithm::Rs384
            | SigningAlgorithm::Rs512 => None,
        }
    }

    /// Returns the kind of key that fits.
    pub const fn key_type(self) -> KeyType {
        match self {
            SigningAlgorithm::EdDsa => KeyType::Ed25519,
            SigningAlgorithm::Es256 => KeyType::P256,
            SigningAlgorithm::Es384 => KeyType::P384,
            SigningAlgorithm::Hs256 | SigningAlgorithm::Hs384 | SigningAlgorithm::Hs512 => KeyType::Secret,
            SigningAlgorithm::Ps256
            | SigningAlgorithm::Ps384
            | SigningAlgorithm::Ps512
            | SigningAlgorithm::Rs256
            | SigningAlgorithm::Rs384
            | SigningAlgorithm::Rs512 => KeyType::Rsa,
        }
    }
}

impl fmt::Display for SigningAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written_and_none_is_no_algorithm() {
        for algorithm in SigningAlgorithm::ALL {
            assert_eq!(SigningAlgorithm::parse(algorithm.name()), Ok(algorithm));
        }
        for name in ["none", "None", "NONE"] {
            assert_eq!(SigningAlgorithm::parse(name), Err(UnknownAlgorithm::Unsigned));
        }
        let error = SigningAlgorithm::parse("rs256").unwrap_err().to_string();
        assert!(SigningAlgorithm::ALL.iter().all(|algorithm| error.contains(algorithm.name())), "{error}");
    }
}
