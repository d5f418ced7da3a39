//! The one envelope around every record, wherever it lies.
//!
//! ```text
//! format (1) ▸ key id (8) ▸ version (8) ▸ expiry (8) ▸ nonce (12) ▸ AES-256-GCM ciphertext and tag (16)
//! ```
//!
//! Numbers are big-endian; an expiry of 0 is none. The associated data is the schema, the namespace, the kind, the key
//! and the header, each behind its length: so a record that was altered, or that was copied from another place, does
//! not open. The nonce is drawn anew for each writing (NIST SP 800-38D section 8.2.2: safe for 2³² writings under a
//! key). The key id tells which key to try; it is the start of a digest and gives nothing away.

use std::fmt;
use std::ops::Range;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::rand;
use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use zeroize::Zeroizing;

use super::error::{Damage, Error};
use super::record::{RecordName, StoredRecord, Version};
use crate::base::secret::{ExposeSecret, SecretBox, SecretString, hex, sha256};
use crate::base::time::Now;

/// The number of the record layout and of its binding; part of the authenticated data. A change of either gets another
/// number.
pub(super) const SCHEMA: u64 = 1;
/// The largest value that is kept, in bytes.
pub const LARGEST: usize = 1 << 20;

const FORMAT: u8 = 1;
const KEY_ID: Range<usize> = 1..9;
/// The position of the version in an envelope: scripts compare it in place.
pub(super) const VERSION: Range<usize> = 9..17;
const EXPIRY: Range<usize> = 17..25;
const NONCE: Range<usize> = 25..25 + NONCE_LEN;
const TAG: usize = 16;

const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A key that records are sealed under.
pub struct SealingKey {
    id: [u8; 8],
    key: RandomizedNonceKey,
}

impl SealingKey {
    /// The key of these 32 bytes in base64 (RFC 4648 section 4), as `openssl rand -base64 32` writes them. The error is
    /// for a person and quotes nothing.
    pub fn from_base64(text: &SecretString) -> Result<Self, String> {
        let decoded = LENIENT.decode(text.expose_secret().trim());
        let bytes = Zeroizing::new(decoded.map_err(|_| "it is not base64".to_owned())?);
        if bytes.len() != 32 {
            return Err(format!("it has {} bytes instead of 32", bytes.len()));
        }
        Self::new(&bytes)
    }

    /// The key of these 32 bytes. The error is for a person and quotes nothing.
    pub fn from_bytes(bytes: &SecretBox<[u8]>) -> Result<Self, String> {
        match bytes.expose_secret().len() {
            32 => Self::new(bytes.expose_secret()),
            other => Err(format!("it has {other} bytes instead of 32")),
        }
    }

    /// Generates a random key, which exists in this process only.
    fn random() -> Result<Self, String> {
        let mut bytes = Zeroizing::new([0; 32]);
        rand::fill(bytes.as_mut_slice()).map_err(|_| "the system gives no randomness".to_owned())?;
        Self::new(bytes.as_slice())
    }

    fn new(bytes: &[u8]) -> Result<Self, String> {
        let digest = sha256(&Zeroizing::new([b"countersign store key id\0".as_slice(), bytes].concat()));
        let id = digest.first_chunk().copied().unwrap_or_default();
        let key = RandomizedNonceKey::new(&AES_256_GCM, bytes).map_err(|_| "it cannot be a key".to_owned())?;
        Ok(Self { id, key })
    }

    /// Its name in envelopes and messages: 16 hexadecimal digits.
    pub fn id(&self) -> String {
        hex(&self.id)
    }
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealingKey({})", self.id())
    }
}

/// The keys that are in use: the first seals, each opens.
#[derive(Debug)]
pub struct KeyRing {
    first: SealingKey,
    others: Vec<SealingKey>,
}

impl KeyRing {
    /// A ring of these keys.
    pub const fn new(first: SealingKey, others: Vec<SealingKey>) -> Self {
        Self { first, others }
    }

    /// A ring of one key that lives as long as the process.
    pub(super) fn random() -> Result<Self, Error> {
        Ok(Self::new(SealingKey::random().map_err(Error::Unavailable)?, Vec::new()))
    }

    /// Returns the key that seals new records.
    pub const fn first(&self) -> &SealingKey {
        &self.first
    }

    /// The names of all keys, the first one first.
    pub fn ids(&self) -> impl Iterator<Item = String> {
        std::iter::once(&self.first).chain(&self.others).map(SealingKey::id)
    }

    /// Returns whether the first key sealed it, according to its key ID.
    pub(super) fn is_first(&self, sealed: &[u8]) -> bool {
        sealed.get(KEY_ID) == Some(self.first.id.as_slice())
    }

    /// Seals a value for its place.
    pub(super) fn seal(
        &self,
        namespace: &str,
        name: &RecordName,
        value: &SecretBox<[u8]>,
        version: Version,
        expiry: Option<u64>,
    ) -> Result<Vec<u8>, Error> {
        let value = value.expose_secret();
        if value.len() > LARGEST {
            return Err(Error::Full(format!("a record may have {LARGEST} bytes; {name} has {}", value.len())));
        }
        let mut header = [0; NONCE.start];
        header[0] = FORMAT;
        header[KEY_ID].copy_from_slice(&self.first.id);
        header[VERSION].copy_from_slice(&version.0.to_be_bytes());
        header[EXPIRY].copy_from_slice(&expiry.unwrap_or_default().to_be_bytes());
        // Room for the tag at once: growing would leave a copy of the value behind.
        let mut body = Vec::with_capacity(value.len() + TAG);
        body.extend_from_slice(value);
        let bound = Aad::from(bound_to(namespace, name, &header));
        let nonce = self.first.key.seal_in_place_append_tag(bound, &mut body);
        let nonce = nonce.map_err(|_| Error::Unavailable("the record cannot be sealed".to_owned()))?;
        Ok([header.as_slice(), nonce.as_ref(), &body].concat())
    }

    /// Opens what lies at this place.
    pub(super) fn open(&self, namespace: &str, name: &RecordName, sealed: &[u8]) -> Result<StoredRecord, Damage> {
        match sealed.first() {
            Some(&FORMAT) => {}
            Some(later) if *later > FORMAT => return Err(Damage::NewerFormat),
            Some(_) | None => return Err(Damage::Altered),
        }
        let (header, nonce, body) = parts(sealed).ok_or(Damage::Altered)?;
        let mut keys = std::iter::once(&self.first).chain(&self.others);
        let key = keys.find(|key| key.id == header[KEY_ID]).ok_or(Damage::ForeignKey)?;
        let mut body = Zeroizing::new(body.to_vec());
        let bound = Aad::from(bound_to(namespace, name, header));
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| Damage::Altered)?;
        let value = key.key.open_in_place(nonce, bound, &mut body).map_err(|_| Damage::Altered)?;
        let value = SecretBox::from(value.to_vec());
        let expiry = Some(number(header, EXPIRY)).filter(|expiry| *expiry != 0);
        Ok(StoredRecord { value, expiry, version: Version(number(header, VERSION)) })
    }
}

/// A version that was never drawn before, nor ever will be.
pub(super) fn draw_version() -> Result<Version, Error> {
    let mut bytes = [0; 8];
    rand::fill(&mut bytes).map_err(|_| Error::Unavailable("the system gives no randomness".to_owned()))?;
    Ok(Version(u64::from_be_bytes(bytes)))
}

/// The version that an envelope claims; believed only by comparing it.
pub(super) fn envelope_version(sealed: &[u8]) -> Option<Version> {
    Some(Version(u64::from_be_bytes(sealed.get(VERSION)?.try_into().ok()?)))
}

/// Returns whether an envelope claims that its expiry has passed.
pub(super) fn claims_end(sealed: &[u8], now: Now) -> bool {
    claimed_expiry(sealed).is_some_and(|expiry| expiry <= now.wall)
}

/// When an envelope claims to end, in milliseconds since 1970.
pub(super) fn claimed_expiry(sealed: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(sealed.get(EXPIRY)?.try_into().ok()?)).filter(|expiry| *expiry != 0)
}

/// Header, nonce, and ciphertext with tag.
fn parts(sealed: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let body = sealed.get(NONCE.end..).filter(|body| body.len() >= TAG)?;
    Some((sealed.get(..NONCE.start)?, sealed.get(NONCE)?, body))
}

fn number(header: &[u8], at: Range<usize>) -> u64 {
    header.get(at).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_be_bytes)
}

/// Builds the data that an envelope is bound to. Each part follows its length, so no two places give the same bytes.
fn bound_to(namespace: &str, name: &RecordName, header: &[u8]) -> Vec<u8> {
    let schema = SCHEMA.to_be_bytes();
    let parts = [
        b"countersign store".as_slice(),
        &schema,
        namespace.as_bytes(),
        name.kind.name().as_bytes(),
        name.key.as_bytes(),
        header,
    ];
    let mut bound = Vec::new();
    for part in parts {
        bound.extend_from_slice(&(part.len() as u64).to_be_bytes());
        bound.extend_from_slice(part);
    }
    bound
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::record::{Kind, RecordKey};

    fn key(byte: u8) -> SealingKey {
        SealingKey::new(&[byte; 32]).expect("a key")
    }

    fn ring(bytes: &[u8]) -> KeyRing {
        KeyRing::new(key(bytes[0]), bytes[1..].iter().map(|byte| key(*byte)).collect())
    }

    fn name(kind: Kind, text: &str) -> RecordName {
        RecordName { kind, key: RecordKey::from(text) }
    }

    fn secret(bytes: &[u8]) -> SecretBox<[u8]> {
        SecretBox::from(bytes.to_vec())
    }

    fn sealed(ring: &KeyRing, name: &RecordName, value: &[u8]) -> Vec<u8> {
        ring.seal("ns", name, &secret(value), Version(7), Some(9)).expect("sealed")
    }

    proptest! {
        #[test]
        fn what_was_sealed_opens_at_its_place(
            value in proptest::collection::vec(any::<u8>(), 0..200), text in ".{0,20}", version: u64, expiry in 1_u64..,
        ) {
            let (ring, name) = (ring(&[1]), name(Kind::User, &text));
            let sealed = ring.seal("ns", &name, &secret(&value), Version(version), Some(expiry)).expect("sealed");
            let record = ring.open("ns", &name, &sealed).expect("opens");
            prop_assert_eq!(record.value.expose_secret(), &value[..]);
            prop_assert_eq!((record.version, record.expiry), (Version(version), Some(expiry)));
            prop_assert_eq!((envelope_version(&sealed), claimed_expiry(&sealed)), (Some(Version(version)), Some(expiry)));
        }

        #[test]
        fn any_bytes_are_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            let name = name(Kind::User, "a");
            prop_assert!(ring(&[1]).open("ns", &name, &bytes).is_err());
            // With the right format and key id before them, too.
            let first = sealed(&ring(&[1]), &name, b"x");
            let bytes = [&first[..KEY_ID.end], &bytes].concat();
            prop_assert!(ring(&[1]).open("ns", &name, &bytes).is_err());
        }
    }

    // T32, A3.
    #[test]
    fn every_bit_counts_and_so_does_the_length() {
        let (ring, name) = (ring(&[1, 2]), name(Kind::User, "alice"));
        let sealed = sealed(&ring, &name, b"a refresh token");
        for at in 0..sealed.len() {
            for bit in 0..8 {
                let mut flipped = sealed.clone();
                flipped[at] ^= 1 << bit;
                assert!(ring.open("ns", &name, &flipped).is_err(), "byte {at}, bit {bit}");
            }
            assert!(ring.open("ns", &name, &sealed[..at]).is_err(), "cut at {at}");
        }
        assert!(ring.open("ns", &name, &[&sealed[..], b"x"].concat()).is_err());
        assert!(ring.open("ns", &name, &sealed).is_ok());
    }

    // A3: lengths stand before the parts, so `ab` + `c` is not `a` + `bc`.
    #[test]
    fn a_record_opens_nowhere_else() {
        let ring = ring(&[1]);
        let own = name(Kind::User, "bc");
        let moved = ring.seal("a", &own, &secret(b"v"), Version(1), None).expect("sealed");
        for (namespace, kind, text) in
            [("a", Kind::User, "b"), ("a", Kind::Application, "bc"), ("b", Kind::User, "bc"), ("ab", Kind::User, "c")]
        {
            let elsewhere = ring.open(namespace, &name(kind, text), &moved);
            assert!(matches!(elsewhere, Err(Damage::Altered)), "{namespace} {kind:?} {text}");
        }
        assert!(ring.open("a", &own, &moved).is_ok());
    }

    #[test]
    fn two_keys_live_while_one_takes_over() {
        let own = name(Kind::Application, "a");
        let old = sealed(&ring(&[1]), &own, b"v");
        let both = ring(&[2, 1]);
        assert!(both.open("ns", &own, &old).is_ok() && !both.is_first(&old));
        let new = sealed(&both, &own, b"v");
        assert!(both.is_first(&new) && ring(&[2]).open("ns", &own, &new).is_ok());
        assert!(matches!(ring(&[2]).open("ns", &own, &old), Err(Damage::ForeignKey)));
        let later = [&[FORMAT + 1], &new[1..]].concat();
        assert!(matches!(both.open("ns", &own, &later), Err(Damage::NewerFormat)));
    }

    #[test]
    fn equal_values_look_different_and_none_shows() {
        let (ring, own) = (ring(&[1]), name(Kind::User, "a"));
        let (one, two) = (sealed(&ring, &own, b"canary-refresh-token"), sealed(&ring, &own, b"canary-refresh-token"));
        assert_ne!(one, two);
        assert!(!one.windows(6).any(|part| part == b"canary"));
    }

    #[test]
    fn a_key_is_32_bytes_of_base64_and_never_shown() {
        let read = |text: &str| SealingKey::from_base64(&SecretString::from(text.to_owned())).map(|key| key.id());
        let padded = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
        assert_eq!(read(padded), Ok(key(1).id()));
        assert_eq!(read(&padded[..43]), Ok(key(1).id()), "without padding");
        assert_eq!(read("AQEB"), Err("it has 3 bytes instead of 32".to_owned()));
        assert_eq!(read("not base64!"), Err("it is not base64".to_owned()));
        assert_eq!(format!("{:?}", key(1)), format!("SealingKey({})", key(1).id()));
        assert!(!key(1).id().contains("01010101"));
    }

    #[test]
    fn what_is_too_large_is_refused() {
        let (ring, own) = (ring(&[1]), name(Kind::User, "a"));
        let large = secret(&vec![0; LARGEST + 1]);
        assert!(matches!(ring.seal("ns", &own, &large, Version(1), None), Err(Error::Full(_))));
    }
}
