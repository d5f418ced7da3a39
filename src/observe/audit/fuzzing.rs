//! Properties of every audit log, checked by fuzzing.

use std::sync::{Arc, LazyLock};

use uuid::Uuid;

use super::chain::{Chain, ChainKey, Head, RecordParts, Seal};
use super::entry::{AuditAction, OpenReason, RecordEncoder};
use super::verify::{Anchor, ChainVerdict, WholeChain, verify};
use crate::base::secret::SecretString;
use crate::base::time::Now;

/// More records than this are not made of one input.
const MOST_RECORDS: usize = 4;

/// More of an input, in bytes, is not said by a record.
const MOST_TEXT: usize = 512;

static KEY: LazyLock<Arc<ChainKey>> = LazyLock::new(|| Arc::new(ChainKey::new(&SecretString::from("a made-up key"))));

/// Bytes: as a log, and as what records say.
pub(crate) fn audit_log(data: &[u8]) {
    for line in data.split(|byte| *byte == b'\n') {
        if let Some(parts) = RecordParts::of(line) {
            let written = [parts.body, b",\"chain\":\"", parts.head.to_string().as_bytes(), b"\"}"].concat();
            assert_eq!(written, line, "a line comes apart in one way");
            assert!(parts.kind().is_none_or(|kind| !kind.contains('"')));
        }
    }
    match verify(data, Vec::new(), Vec::new()) {
        Ok(whole) => {
            assert!(!whole.keyed && whole.files == 1 && whole.calls < whole.records);
            assert_eq!(whole.last.seq, whole.first + (whole.records - 1));
            bears_no_change(data, &[], &whole, data);
        }
        Err(ChainVerdict::Broken(found)) => {
            let lines = data.iter().filter(|byte| **byte == b'\n').count() as u64 + 1;
            assert!((1..=lines).contains(&found.line), "line {} of {lines}", found.line);
        }
        Err(ChainVerdict::Unjudged(told)) => assert!(!told.chars().any(char::is_control), "{told:?}"),
    }
    for seal in [Seal::Plain, Seal::Keyed(KEY.clone())] {
        is_read_as_it_is_written(&seal, data);
    }
}

/// Checks that a record stays one line of one chain, regardless of the untrusted text in it.
fn is_read_as_it_is_written(seal: &Seal, data: &[u8]) {
    let encoder = RecordEncoder { instance: Uuid::nil() };
    let now = Now::at(0, 1_550_131_385_000);
    let text = String::from_utf8_lossy(data);
    let text = &text[..text.floor_char_boundary(MOST_TEXT)];
    let mut records = vec![encoder.open(now, seal, OpenReason::New, &Head::ZERO, None), encoder.start(now, text)];
    for (at, line) in text.split('\n').take(MOST_RECORDS).enumerate() {
        let target = [("name", line), ("value", text)];
        let action = AuditAction { actor: line, what: "reload", target: &target[..at % 3], outcome: text };
        records.push(encoder.action(now, &action));
    }
    let mut chain = Chain::after(seal.clone(), 0, Head::ZERO);
    let mut log = Vec::new();
    for record in &records {
        let object = record.strip_suffix(b"\n").expect("a record ends its line");
        let start = log.len();
        chain.seal(object, &mut log);
        let line = log[start..].strip_suffix(b"\n").expect("a line");
        let parts = RecordParts::of(line).expect("a record");
        assert_eq!((parts.object().as_slice(), parts.head), (object, chain.head()));
        assert!(serde_json::from_slice::<serde_json::Value>(line).is_ok(), "every line is JSON");
    }
    let keys = if seal.key().is_some() { vec![KEY.clone()] } else { Vec::new() };
    let whole = verify(&log, keys.clone(), Vec::new()).unwrap_or_else(|verdict| panic!("{verdict:?}"));
    assert_eq!((whole.records, whole.first), (records.len() as u64, 1));
    assert_eq!(whole.last, Anchor { seq: chain.last(), head: chain.head() });
    assert_eq!(whole.keyed, seal.key().is_some());
    bears_no_change(&log, &keys, &whole, data);
    // A log without a key is worth nothing where one is asked for, and the other way round.
    let others = if keys.is_empty() { vec![KEY.clone()] } else { Vec::new() };
    assert!(verify(&log, others, Vec::new()).is_err());
}

/// One bit more or less, or a record less: it does not hold.
fn bears_no_change(log: &[u8], keys: &[Arc<ChainKey>], whole: &WholeChain, random: &[u8]) {
    let mut bit = random.iter().fold(random.len(), |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(*byte)));
    for _ in 0..4 {
        let mut flipped = log.to_vec();
        let at = bit / 8 % log.len();
        flipped[at] ^= 1 << (bit % 8);
        assert!(verify(&flipped, keys.to_vec(), Vec::new()).is_err(), "byte {at}, bit {}", bit % 8);
        let cut = log.get(..at).unwrap_or_default();
        let whole_but_for_its_end = log.strip_suffix(b"\n") == Some(cut);
        let held = verify(cut, keys.to_vec(), vec![whole.last]).is_ok();
        assert!(!held || whole_but_for_its_end, "cut at {at}");
        bit = bit.wrapping_mul(31).wrapping_add(7);
    }
}
