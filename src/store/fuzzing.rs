//! The invariants of every record in a store, tested by fuzzing.

use std::sync::LazyLock;

use crate::base::secret::{ExposeSecret, SecretBox, SecretString};
use crate::token::consent::{PendingEntry, UserTokens};

use super::envelope::{claimed_expiry, envelope_version};
use super::{KeyRing, Kind, RecordKey, RecordName, SealingKey, Version};

const NAMESPACE: &str = "ns";

/// Format, key id, version and expiry.
const HEADER: usize = 25;

static RING: LazyLock<KeyRing> = LazyLock::new(|| {
    // Made up: 32 bytes of one value each.
    let key = |text: &str| SealingKey::from_base64(&SecretString::from(text)).expect("a key");
    let first = key("AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=");
    KeyRing::new(first, vec![key("AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=")])
});

/// Bytes: as a whole record that somebody put into the store, as the end of one, as a value, as a key.
pub(crate) fn sealed_record(data: &[u8]) {
    let name = RecordName { kind: Kind::User, key: RecordKey::from("alice") };
    // Records of the kept corpus were sealed under these keys. Any other record that opens was forged.
    if let Ok(record) = RING.open(NAMESPACE, &name, data) {
        bears_no_change(&name, data, data);
        let again = RING.seal(NAMESPACE, &name, &record.value, record.version, record.expiry).expect("it fits");
        let reopened = RING.open(NAMESPACE, &name, &again).expect("just sealed");
        assert_eq!(reopened.value.expose_secret(), record.value.expose_secret());
        assert_eq!((reopened.version, reopened.expiry), (record.version, record.expiry));
    }
    is_read_as_it_is_written(data);
    is_kept(data);
    let key = String::from_utf8_lossy(data);
    match SealingKey::from_base64(&SecretString::from(key.as_ref())) {
        Ok(read) => assert_eq!(read.id().len(), 16),
        Err(reported) => {
            assert!(key.trim().len() < 24 || !reported.contains(key.trim()), "the key is told: {reported}")
        }
    }
}

/// A value comes back from its place, and from no other.
fn is_kept(data: &[u8]) {
    let (number, value) = data.split_at_checked(8).unwrap_or((&[], data));
    let number = number.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    let key: Box<[u8]> = value.iter().copied().take_while(|byte| *byte != b'\n').take(64).collect();
    let name = RecordName { kind: Kind::ALL[value.len() % Kind::ALL.len()], key: RecordKey::new(key) };
    let (version, expiry) = (Version(number), Some(number.rotate_left(32)).filter(|expiry| *expiry != 0));
    let secret = SecretBox::from(value.to_vec());
    let sealed = RING.seal(NAMESPACE, &name, &secret, version, expiry).expect("it fits");
    assert!(RING.is_first(&sealed));
    assert_eq!((envelope_version(&sealed), claimed_expiry(&sealed)), (Some(version), expiry));
    assert!(value.len() < 8 || !sealed[HEADER..].windows(value.len()).any(|part| part == value), "the value lies open");
    let record = RING.open(NAMESPACE, &name, &sealed).expect("just sealed");
    assert_eq!(record.value.expose_secret(), value);
    assert_eq!((record.version, record.expiry), (version, expiry));
    bears_no_change(&name, &sealed, data);
    let other = RecordName { kind: name.kind, key: RecordKey::new([name.key.as_bytes(), b"x"].concat()) };
    assert!(RING.open(NAMESPACE, &other, &sealed).is_err(), "it opens under another key");
    assert!(RING.open("n", &name, &sealed).is_err(), "it opens in another namespace");
    let forged = [&sealed[..HEADER], data].concat();
    assert!(RING.open(NAMESPACE, &name, &forged).is_err(), "it opens without its tag");
}

/// One bit more or less, one byte more or less, another kind: it does not open.
fn bears_no_change(name: &RecordName, sealed: &[u8], random: &[u8]) {
    let mut bit = random.iter().fold(random.len(), |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(*byte)));
    for _ in 0..8 {
        let mut flipped = sealed.to_vec();
        let at = bit / 8 % sealed.len();
        flipped[at] ^= 1 << (bit % 8);
        assert!(RING.open(NAMESPACE, name, &flipped).is_err(), "byte {at}, bit {}", bit % 8);
        assert!(RING.open(NAMESPACE, name, &sealed[..at]).is_err(), "cut at {at}");
        bit = bit.wrapping_mul(31).wrapping_add(7);
    }
    assert!(RING.open(NAMESPACE, name, &[sealed, b"x"].concat()).is_err(), "a byte behind it");
    for kind in Kind::ALL.into_iter().filter(|kind| *kind != name.kind) {
        let other = RecordName { kind, key: name.key.clone() };
        assert!(RING.open(NAMESPACE, &other, sealed).is_err(), "it opens as a record of another kind");
    }
}

/// Checks that the content of an opened record is written as it was read.
fn is_read_as_it_is_written(value: &[u8]) {
    if let Ok(entry) = PendingEntry::open(value) {
        let written = entry.seal();
        let again = PendingEntry::open(written.expose_secret()).expect("just written").seal();
        assert_eq!(again.expose_secret(), written.expose_secret());
    }
    if let Ok(tokens) = UserTokens::open(value) {
        let written = tokens.seal();
        let again = UserTokens::open(written.expose_secret()).expect("just written").seal();
        assert_eq!(again.expose_secret(), written.expose_secret());
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    /// No fuzzer finds a record that opens; so the corpus keeps two. `COUNTERSIGN_BLESS=1` seals others.
    #[test]
    fn the_corpus_has_records_that_open() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus/sealed_record");
        let name = RecordName { kind: Kind::User, key: RecordKey::from("alice") };
        for (file, value, expiry) in [("sealed-short", "v", None), ("sealed-long", "{\"v\":1,\"spent\":0}", Some(9))] {
            let path = folder.join(file);
            if std::env::var_os("COUNTERSIGN_BLESS").is_some() {
                let value = SecretBox::from(value.as_bytes().to_vec());
                let sealed = RING.seal(NAMESPACE, &name, &value, Version(7), expiry).unwrap();
                fs::write(&path, sealed).unwrap();
            }
            let record = RING.open(NAMESPACE, &name, &fs::read(path).unwrap()).unwrap();
            assert_eq!((record.value.expose_secret(), record.expiry), (value.as_bytes(), expiry));
        }
    }
}
