//! The messages between countersign and the process that loads a PKCS#11 module: JSON, one a line.

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::key_service::device::KeyProblem;

/// The longest line that is read, in bytes: a message to be signed by Ed25519 in base64, and some more.
pub(super) const LONGEST_LINE: u64 = 24 << 20;

/// The name of a token.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum TokenName {
    Label(String),
    /// The number of its slot.
    Slot(u64),
}

/// The name of a key in a token: at least one of the two.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct TokenKeyName {
    /// `CKA_LABEL`.
    pub label: Option<String>,
    /// `CKA_ID`.
    pub id: Option<Vec<u8>>,
}

/// A mechanism of PKCS#11, over the input that it takes.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum SignMechanism {
    /// `CKM_ECDSA` over a digest.
    Ecdsa,
    /// `CKM_EDDSA` over a message.
    Eddsa,
    /// `CKM_RSA_PKCS` over a `DigestInfo`.
    RsaPkcs,
    /// `CKM_RSA_PKCS_PSS` over a digest of this many bits, with a salt of its length.
    RsaPss(u16),
}

/// A call of the module.
#[derive(Deserialize, Serialize)]
pub(super) struct ModuleRequest {
    /// The answer bears the same number.
    pub(super) number: u64,
    pub(super) call: ModuleCall,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum ModuleCall {
    /// Decrypts a wrapped key by `CKM_RSA_PKCS_OAEP`.
    Decrypt {
        key: TokenKeyName,
        #[serde(with = "octets")]
        input: Vec<u8>,
    },
    /// The first call: loads the module and logs in. The PIN is wiped when it is dropped.
    Open {
        module: String,
        token: TokenName,
        #[serde(with = "pin")]
        pin: Option<Zeroizing<String>>,
    },
    PublicKey {
        key: TokenKeyName,
    },
    Sign {
        key: TokenKeyName,
        mechanism: SignMechanism,
        #[serde(with = "octets")]
        input: Vec<u8>,
    },
}

#[derive(Deserialize, Serialize)]
pub(super) struct ModuleAnswer {
    pub(super) number: u64,
    pub(super) outcome: ModuleOutcome,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum ModuleOutcome {
    /// The token does not answer; the text says what the module said.
    Failed(String),
    Opened,
    /// A decrypted key, which is wiped when it is dropped.
    Plaintext(#[serde(with = "secret_octets")] Zeroizing<Vec<u8>>),
    PublicKey(TokenPublicKey),
    Refused(KeyProblem),
    Signature(#[serde(with = "octets")] Vec<u8>),
}

/// The public half of a key, in the attributes of PKCS#11.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum TokenPublicKey {
    /// An EC or Edwards key: `CKA_EC_PARAMS` and `CKA_EC_POINT`.
    Ec {
        #[serde(with = "octets")]
        curve: Vec<u8>,
        #[serde(with = "octets")]
        point: Vec<u8>,
    },
    Rsa {
        #[serde(with = "octets")]
        modulus: Vec<u8>,
        #[serde(with = "octets")]
        exponent: Vec<u8>,
    },
}

/// Writes a message with its line end. The line may hold a PIN, so it is wiped when it is dropped.
pub(super) fn line(message: &impl Serialize) -> Zeroizing<Vec<u8>> {
    let mut line = Zeroizing::new(serde_json::to_vec(message).expect("texts, numbers and enums always serialise"));
    line.push(b'\n');
    line
}

/// Bytes as base64.
mod octets {
    use base64::Engine as _;
    use base64::prelude::BASE64_STANDARD;
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&BASE64_STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(from)?;
        BASE64_STANDARD.decode(text).map_err(D::Error::custom)
    }
}

/// Secret bytes as base64, which keep being wiped.
mod secret_octets {
    use base64::Engine as _;
    use base64::prelude::BASE64_STANDARD;
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};
    use zeroize::Zeroizing;

    pub(super) fn serialize<S: Serializer>(bytes: &Zeroizing<Vec<u8>>, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&Zeroizing::new(BASE64_STANDARD.encode(bytes)))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Zeroizing<Vec<u8>>, D::Error> {
        let text = Zeroizing::new(String::deserialize(from)?);
        BASE64_STANDARD.decode(text.as_bytes()).map(Zeroizing::new).map_err(D::Error::custom)
    }
}

/// A PIN, which keeps being wiped.
mod pin {
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};
    use zeroize::Zeroizing;

    pub(super) fn serialize<S: Serializer>(pin: &Option<Zeroizing<String>>, to: S) -> Result<S::Ok, S::Error> {
        pin.as_ref().map(|pin| pin.as_str()).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Zeroizing<String>>, D::Error> {
        Ok(Option::<String>::deserialize(from)?.map(Zeroizing::new))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line_and_comes_back_whole() {
        let key = TokenKeyName { label: Some("a\nb\"c".to_owned()), id: Some(vec![0, 255]) };
        let call = ModuleCall::Sign { key: key.clone(), mechanism: SignMechanism::RsaPss(384), input: vec![10, 13, 0] };
        let line = line(&ModuleRequest { number: 7, call });
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
        let read: ModuleRequest = serde_json::from_slice(&line).expect("JSON");
        let ModuleCall::Sign { key: named, mechanism, input } = read.call else { panic!("another call") };
        assert_eq!((named, mechanism, input), (key, SignMechanism::RsaPss(384), vec![10, 13, 0]));
    }
}
