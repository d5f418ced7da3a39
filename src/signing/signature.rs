//! Signatures, and the two forms in which ECDSA signatures travel.

use super::algorithm::KeyType;
use super::algorithm::SigningAlgorithm;
use super::encoding::TextEncoding;

/// A signature or message authentication code in the form of JOSE: an ECDSA signature is `r || s`, each as long as the
/// curve's field (RFC 7518 section 3.4).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DigitalSignature {
    algorithm: SigningAlgorithm,
    bytes: Vec<u8>,
}

impl DigitalSignature {
    /// Takes a signature in the form of JOSE from a device or key service. `None` if it is not as long as the algorithm's
    /// signatures are.
    pub fn from_jose(algorithm: SigningAlgorithm, bytes: Vec<u8>) -> Option<Self> {
        let fits = match algorithm {
            SigningAlgorithm::EdDsa | SigningAlgorithm::Es256 | SigningAlgorithm::Hs512 => bytes.len() == 64,
            SigningAlgorithm::Es384 => bytes.len() == 96,
            SigningAlgorithm::Hs256 => bytes.len() == 32,
            SigningAlgorithm::Hs384 => bytes.len() == 48,
            SigningAlgorithm::Ps256
            | SigningAlgorithm::Ps384
            | SigningAlgorithm::Ps512
            | SigningAlgorithm::Rs256
            | SigningAlgorithm::Rs384
            | SigningAlgorithm::Rs512 => (256..=1024).contains(&bytes.len()),
        };
        fits.then_some(Self { algorithm, bytes })
    }

    /// A signature that the cryptographic library made.
    pub(super) const fn new(algorithm: SigningAlgorithm, bytes: Vec<u8>) -> Self {
        Self { algorithm, bytes }
    }

    /// Reads an ECDSA signature in DER, the form that devices and key services return. `None` if it is no such
    /// signature or the algorithm is not ECDSA.
    pub fn from_der(algorithm: SigningAlgorithm, der: &[u8]) -> Option<Self> {
        let field = field_len(algorithm)?;
        let (body, rest) = element(der, SEQUENCE)?;
        let (r, behind) = element(body, INTEGER)?;
        let (s, end) = element(behind, INTEGER)?;
        if !rest.is_empty() || !end.is_empty() {
            return None;
        }
        let mut bytes = vec![0; 2 * field];
        let (into_r, into_s) = bytes.split_at_mut(field);
        place(r, into_r)?;
        place(s, into_s)?;
        Some(Self { algorithm, bytes })
    }

    /// Returns the algorithm that made it.
    pub const fn algorithm(&self) -> SigningAlgorithm {
        self.algorithm
    }

    /// Returns the bytes in the form of JOSE.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the bytes with ECDSA signatures in DER (RFC 3279 section 2.2.3); other signatures have one form only.
    pub fn to_der(&self) -> Vec<u8> {
        let Some(field) = field_len(self.algorithm) else { return self.bytes.clone() };
        let (r, s) = self.bytes.split_at(field.min(self.bytes.len()));
        let body = [integer(r), integer(s)].concat();
        // Both integers of P-384 take 102 bytes at most: the short form of a length suffices.
        [vec![SEQUENCE, body.len() as u8], body].concat()
    }

    /// Encodes the bytes in the form of JOSE as text.
    pub fn text(&self, encoding: TextEncoding) -> String {
        encoding.encode(&self.bytes)
    }
}

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;

/// The length of the field of an ECDSA algorithm's curve, in bytes.
const fn field_len(algorithm: SigningAlgorithm) -> Option<usize> {
    match algorithm.key_type() {
        KeyType::P256 => Some(32),
        KeyType::P384 => Some(48),
        KeyType::Ed25519 | KeyType::Rsa | KeyType::Secret => None,
    }
}

/// The content of a DER element with a length below 128, and the bytes behind it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&[found, len], behind) = der.split_first_chunk::<2>()?;
    (found == tag && len < 0x80).then(|| behind.split_at_checked(usize::from(len)))?
}

/// Puts a DER integer into a field of fixed length.
fn place(integer: &[u8], field: &mut [u8]) -> Option<()> {
    let digits = match integer {
        [] => return None,
        [0, next, ..] if *next < 0x80 => return None,
        [0, digits @ ..] => digits,
        [first, ..] if *first >= 0x80 => return None,
        digits => digits,
    };
    let start = field.len().checked_sub(digits.len())?;
    field.get_mut(start..)?.copy_from_slice(digits);
    Some(())
}

/// A number as a DER integer: without leading zeros, except one if the sign bit would be set.
fn integer(number: &[u8]) -> Vec<u8> {
    let start = number.iter().position(|byte| *byte != 0).unwrap_or(number.len());
    let digits = &number[start..];
    let padded = digits.first().is_none_or(|first| *first >= 0x80);
    let mut out = vec![INTEGER, (digits.len() + usize::from(padded)) as u8];
    out.extend(padded.then_some(0));
    out.extend_from_slice(digits);
    out
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING};
    use aws_lc_rs::signature::{EcdsaKeyPair, KeyPair as _, UnparsedPublicKey};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_librarys_der_comes_back_byte_for_byte() {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, pair.public_key());
        for _ in 0..300 {
            let der = pair.sign(&SystemRandom::new(), b"message").unwrap();
            let read = DigitalSignature::from_der(SigningAlgorithm::Es256, der.as_ref()).unwrap();
            assert_eq!(read.bytes().len(), 64);
            assert_eq!(read.to_der(), der.as_ref());
            assert!(public.verify(b"message", &read.to_der()).is_ok());
        }
    }

    #[test]
    fn numbers_with_a_second_spelling_are_refused() {
        let read = |der: &[u8]| DigitalSignature::from_der(SigningAlgorithm::Es256, der).is_some();
        assert!(read(&[0x30, 6, 2, 1, 1, 2, 1, 1]));
        assert!(read(&[0x30, 7, 2, 2, 0, 0x80, 2, 1, 1]));
        for der in [
            &[0x30, 7, 2, 2, 0, 1, 2, 1, 1][..],
            &[0x30, 6, 2, 1, 0x80, 2, 1, 1],
            &[0x30, 5, 2, 0, 2, 1, 1],
            &[0x30, 7, 2, 1, 1, 2, 1, 1, 0],
            &[0x30, 6, 2, 1, 1, 2, 1, 1, 0],
            &[0x30, 0x81, 6, 2, 1, 1, 2, 1, 1],
        ] {
            assert!(!read(der), "{der:?}");
        }
        let long = [&[0x30, 38, 2, 33][..], &[1; 33], &[2, 1, 1]].concat();
        assert!(!read(&long), "longer than the field");
    }

    #[test]
    fn a_signature_of_a_device_has_the_length_of_its_algorithm() {
        for (algorithm, length) in [
            (SigningAlgorithm::EdDsa, 64),
            (SigningAlgorithm::Es256, 64),
            (SigningAlgorithm::Es384, 96),
            (SigningAlgorithm::Hs384, 48),
            (SigningAlgorithm::Ps256, 256),
        ] {
            assert!(DigitalSignature::from_jose(algorithm, vec![1; length]).is_some());
            assert!(DigitalSignature::from_jose(algorithm, vec![1; length - 1]).is_none());
        }
    }

    proptest! {
        #[test]
        fn both_forms_say_the_same(bytes in proptest::collection::vec(prop_oneof![Just(0_u8), any::<u8>()], 64)) {
            let signature = DigitalSignature::new(SigningAlgorithm::Es256, bytes);
            prop_assert_eq!(DigitalSignature::from_der(SigningAlgorithm::Es256, &signature.to_der()), Some(signature));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..120), length in any::<u8>()) {
            let _ = DigitalSignature::from_der(SigningAlgorithm::Es384, &bytes);
            let framed = [&[SEQUENCE, length, INTEGER, length / 2][..], &bytes].concat();
            let _ = DigitalSignature::from_der(SigningAlgorithm::Es256, &framed);
            let _ = DigitalSignature::new(SigningAlgorithm::Es256, bytes).to_der();
        }
    }
}
