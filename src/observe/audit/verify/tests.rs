use std::io::Write as _;
use std::time::Duration;

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::base::secret::{Fingerprint, SecretString, sha256};
use crate::base::time::{Clock, Now};
use crate::observe::audit::chain::Chain;
use crate::observe::audit::entry::{AuditAction, AuditContext, OpenReason, RecordEncoder};
use crate::observe::record::{AccessRecord, Replay};

const ENCODER: RecordEncoder = RecordEncoder { instance: Uuid::from_u128(7) };
const NOW: Now = Now::at(1, 1_760_000_000_000);

fn key(text: &str) -> Arc<ChainKey> {
    Arc::new(ChainKey::new(&SecretString::from(text)))
}

/// A chain and the file that it is written to.
struct Book {
    chain: Chain,
    text: Vec<u8>,
}

impl Book {
    fn new(seal: Seal) -> Self {
        let mut book = Self { chain: Chain::after(seal.clone(), 0, Head::ZERO), text: Vec::new() };
        book.add(&ENCODER.open(NOW, &seal, OpenReason::New, &Head::ZERO, None));
        book
    }

    fn add(&mut self, record: &[u8]) {
        self.chain.seal(record.strip_suffix(b"\n").unwrap(), &mut self.text);
    }

    fn action(&mut self, outcome: &str) {
        let action = AuditAction { actor: "admin", what: "reload", target: &[("config", "x")], outcome };
        self.add(&ENCODER.action(NOW, &action));
    }

    /// A piece of a record, and that it was recovered.
    fn tear(&mut self, piece: &[u8]) {
        self.text.extend_from_slice(piece);
        self.text.push(b'\n');
        let torn = Torn { bytes: piece.len() as u64, sha256: hex(&sha256(piece)) };
        self.add(&ENCODER.recovered(NOW, &torn));
    }

    fn anchor(&self) -> Anchor {
        Anchor { seq: self.chain.last(), head: self.chain.head() }
    }

    /// The file after this one.
    fn turned(&self, torn: Option<&Torn>) -> Self {
        let mut next = Self { chain: self.chain.clone(), text: Vec::new() };
        next.add(&ENCODER.open(NOW, self.chain.how(), OpenReason::Size, &self.chain.head(), torn));
        next
    }
}

fn sample(seal: Seal) -> Book {
    let mut book = Book::new(seal);
    book.add(&ENCODER.start(NOW, "digest"));
    book.action("ok");
    book.tear(b"{\"seq\":4,\"kind\":\"act");
    book.add(&ENCODER.gap(NOW, 3));
    book.action("refused: \"quotes\" and \u{e9}");
    book.add(&ENCODER.stop(NOW));
    book
}

fn broken(result: Result<WholeChain, ChainVerdict>) -> Break {
    match result {
        Err(ChainVerdict::Broken(broken)) => broken,
        other => panic!("{other:?}"),
    }
}

fn all(texts: &[&[u8]], keys: &[Arc<ChainKey>]) -> Result<WholeChain, ChainVerdict> {
    let mut verifier = ChainVerifier::new(keys.to_vec(), Vec::new());
    for (number, text) in texts.iter().enumerate() {
        verifier.file(&format!("file {number}"), io::Cursor::new(text))?;
    }
    verifier.finish()
}

#[test]
fn a_whole_chain_is_whole() {
    for (seal, keys) in [(Seal::Plain, vec![]), (Seal::Keyed(key("k")), vec![key("other"), key("k")])] {
        let book = sample(seal);
        let whole = verify(&book.text, keys.clone(), vec![book.anchor()]).unwrap();
        assert_eq!((whole.records, whole.first, whole.last), (7, 1, book.anchor()));
        assert_eq!((whole.recovered, whole.lost, whole.keyed), (1, 3, !keys.is_empty()));
    }
}

#[test]
fn every_flipped_bit_of_every_byte_is_found() {
    for (seal, keys) in [(Seal::Plain, vec![]), (Seal::Keyed(key("k")), vec![key("k")])] {
        let book = sample(seal);
        let mut text = book.text.clone();
        for at in 0..text.len() {
            for bit in 0..8 {
                text[at] ^= 1 << bit;
                assert!(verify(&text, keys.clone(), vec![]).is_err(), "byte {at}, bit {bit}");
                text[at] ^= 1 << bit;
            }
        }
        assert!(verify(&text, keys, vec![]).is_ok(), "and all were put back");
    }
}

#[test]
fn every_removed_doubled_or_swapped_line_is_found_where_it_is() {
    let mut book = Book::new(Seal::Plain);
    (0..6).for_each(|n| book.action(&n.to_string()));
    let lines: Vec<&[u8]> = book.text.split_inclusive(|byte| *byte == b'\n').collect();
    for at in 0..lines.len() - 1 {
        let mut less = lines.clone();
        less.remove(at);
        let found = broken(verify(&less.concat(), vec![], vec![]));
        assert_eq!(found.line, at as u64 + 1, "line {at} removed: {found:?}");
        for other in at + 1..lines.len() {
            let mut swapped = lines.clone();
            swapped.swap(at, other);
            let found = broken(verify(&swapped.concat(), vec![], vec![]));
            assert_eq!(found.line, at as u64 + 1, "lines {at} and {other} swapped: {found:?}");
        }
    }
    for at in 0..lines.len() {
        let mut more = lines.clone();
        more.insert(at, lines[at]);
        assert!(verify(&more.concat(), vec![], vec![]).is_err(), "line {at} twice");
    }
}

#[test]
fn what_is_missing_at_the_end_is_found_by_a_head_that_was_told() {
    let book = sample(Seal::Plain);
    let lines: Vec<&[u8]> = book.text.split_inclusive(|byte| *byte == b'\n').collect();
    let less = lines[..lines.len() - 1].concat();
    assert!(verify(&less, vec![], vec![]).is_ok(), "the file alone does not show it");
    let found = broken(verify(&less, vec![], vec![book.anchor()]));
    assert_eq!((found.flaw, found.seq, found.line), (ChainFlaw::End, 7, 7));
    let mut other = Book::new(Seal::Plain);
    (0..9).for_each(|_| other.action("made anew"));
    let found = broken(verify(&other.text, vec![], vec![book.anchor()]));
    assert_eq!((found.flaw, found.seq), (ChainFlaw::Other, 7));
    let next = book.turned(None);
    let early = Anchor { seq: 2, ..book.anchor() };
    assert!(matches!(verify(&next.text, vec![], vec![early]), Err(ChainVerdict::Unjudged(_))));
}

#[test]
fn the_kinds_of_damage_have_names() {
    let book = sample(Seal::Plain);
    let text = String::from_utf8(book.text.clone()).unwrap();
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let flaw = |text: String| broken(verify(text.as_bytes(), vec![], vec![])).flaw;
    assert_eq!(flaw(text.replacen("\"admin\"", "\"nimda\"", 1)), ChainFlaw::Altered);
    assert_eq!(
        flaw([&lines[..2], &lines[3..]].concat().concat()),
        ChainFlaw::Altered,
        "a torn piece now follows nothing"
    );
    assert_eq!(flaw([&lines[..5], &lines[6..]].concat().concat()), ChainFlaw::Missing);
    assert_eq!(flaw([&lines[..], &lines[1..2]].concat().concat()), ChainFlaw::Order);
    assert_eq!(flaw(lines[1..].concat()), ChainFlaw::Beginning);
    assert_eq!(flaw(String::new()), ChainFlaw::Beginning);
    assert_eq!(flaw("2026-01-01 some other log\n".to_owned()), ChainFlaw::Beginning);
    assert_eq!(flaw(text.trim_end_matches("}\n").to_owned()), ChainFlaw::Torn);
    assert_eq!(flaw([&lines[..3], &lines[4..]].concat().concat()), ChainFlaw::Missing, "the piece is gone");
    assert_eq!(flaw(format!("{text}{}", lines[0])), ChainFlaw::Order, "a first record within a file");
}

#[test]
fn a_torn_piece_must_be_the_one_that_is_told_of() {
    for piece in [&b""[..], b"x", b"{\"seq\":2,\"kind\":\"ca", b"two\nlines", b"\0\0\0\0", b"\xff\n\n"] {
        let mut book = Book::new(Seal::Plain);
        book.action("ok");
        let before = book.text.len();
        book.tear(piece);
        book.action("ok");
        let whole = verify(&book.text, vec![], vec![]).unwrap_or_else(|error| panic!("{piece:?}: {error:?}"));
        assert_eq!(whole.recovered, 1);
        for more in [&b"y"[..], b"\n"] {
            let text = [&book.text[..before], more, &book.text[before..]].concat();
            assert!(verify(&text, vec![], vec![]).is_err(), "{piece:?} after {more:?}");
        }
    }
}

#[test]
fn nobody_without_the_key_passes() {
    let book = sample(Seal::Keyed(key("the key")));
    assert!(matches!(verify(&book.text, vec![], vec![]), Err(ChainVerdict::Unjudged(_))), "it says that it needs one");
    assert!(matches!(verify(&book.text, vec![key("another")], vec![]), Err(ChainVerdict::Unjudged(_))));
    // Somebody writes the whole anew, without a key, or under the key's name with another key.
    let plain = sample(Seal::Plain);
    assert_eq!(broken(verify(&plain.text, vec![key("the key")], vec![])).flaw, ChainFlaw::Unkeyed);
    let (ours, theirs) = (key("the key"), key("another"));
    let forged = sample(Seal::Keyed(theirs.clone()));
    let forged = String::from_utf8(forged.text).unwrap().replace(theirs.name(), ours.name());
    assert_eq!(broken(verify(forged.as_bytes(), vec![ours], vec![])).flaw, ChainFlaw::Altered);
}

/// Anybody can write a file that begins so; nothing follows its first record.
#[test]
fn a_chain_that_begins_with_the_last_of_all_numbers_ends_there() {
    let mut chain = Chain::after(Seal::Plain, u64::MAX - 1, Head::ZERO);
    let mut text = Vec::new();
    let open = ENCODER.open(NOW, &Seal::Plain, OpenReason::New, &Head::ZERO, None);
    chain.seal(open.strip_suffix(b"\n").unwrap(), &mut text);
    assert_eq!(verify(&text, Vec::new(), Vec::new()).unwrap().last.seq, u64::MAX);
    let twice = [&*text, &*text].concat();
    assert_eq!(broken(verify(&twice, Vec::new(), Vec::new())).flaw, ChainFlaw::Altered);
    assert_eq!(broken(all(&[&text, &text], &[])).flaw, ChainFlaw::Missing);
}

#[test]
fn files_are_one_chain_in_their_order() {
    let seal = Seal::Keyed(key("k"));
    let keys = [key("k")];
    let first = sample(seal);
    let mut second = first.turned(None);
    second.action("ok");
    let third = second.turned(None);
    let (a, b, c) = (&first.text[..], &second.text[..], &third.text[..]);
    let whole = all(&[a, b, c], &keys).unwrap();
    assert_eq!((whole.files, whole.records, whole.last.seq), (3, 10, 10));
    assert_eq!(all(&[b, c], &keys).unwrap().first, 8, "a later file stands alone");
    for wrong in [&[a, c][..], &[b, a], &[a, a], &[c, b]] {
        let found = broken(all(wrong, &keys));
        assert_eq!((found.file.as_str(), found.line, found.flaw), ("file 1", 1, ChainFlaw::Missing));
    }
}

#[test]
fn a_file_that_ends_torn_needs_one_after_it_that_says_so() {
    let mut first = sample(Seal::Plain);
    let piece = b"{\"seq\":8,\"kind\":\"cal";
    let torn = Torn { bytes: piece.len() as u64, sha256: hex(&sha256(piece)) };
    let (silent, told) = (first.turned(None), first.turned(Some(&torn)));
    assert!(matches!(broken(all(&[&first.text, &told.text], &[])).flaw, ChainFlaw::Missing), "nothing is torn");
    first.text.extend_from_slice(piece);
    assert_eq!(broken(all(&[&first.text], &[])).flaw, ChainFlaw::Torn);
    assert_eq!(broken(all(&[&first.text, &silent.text], &[])).flaw, ChainFlaw::Torn);
    assert_eq!(all(&[&first.text, &told.text], &[]).unwrap().recovered, 2, "the sample has one of its own");
}

proptest! {
    #[test]
    fn whatever_is_in_a_file_is_judged_without_a_panic(text in prop::collection::vec(any::<u8>(), 0..400), at in 0..900_usize) {
        let _ = verify(&text, vec![], vec![]);
        let mut sample = sample(Seal::Plain).text;
        let at = at.min(sample.len());
        sample.splice(at..at, text.iter().copied());
        prop_assert!(text.is_empty() || verify(&sample, vec![], vec![]).is_err() || at == sample.len() - text.len());
    }
}

/// A long file of calls, made and looked through. `AUDIT_RECORDS=1000000` says how long, to measure by hand.
#[test]
fn a_long_file_is_looked_through() {
    let count = std::env::var("AUDIT_RECORDS").map_or(20_000, |count| count.parse().unwrap());
    let mut book = Book::new(Seal::Keyed(key("k")));
    let vars = [(Arc::from("account"), "0011223344556677".to_owned())];
    let context = AuditContext { user: None, vars: &vars, config: "0123456789abcdef0123456789abcdef" };
    let record = record();
    let mut line = Vec::new();
    for _ in 0..count {
        line.clear();
        ENCODER.call(NOW, &record, context, &mut line);
        book.add(&line);
    }
    let start = Clock::System.now();
    let whole = verify(&book.text, vec![key("k")], vec![book.anchor()]).unwrap();
    let took = Clock::System.now().since(start);
    assert_eq!((whole.records, whole.calls), (count + 1, count));
    assert!(took < Duration::from_secs(60), "{count} records of {} bytes took {took:?}", line.len());
    if std::env::var_os("AUDIT_RECORDS").is_some() {
        let _ = writeln!(io::stderr(), "{count} records of {} bytes, looked through in {took:?}", line.len());
    }
}

fn record() -> AccessRecord {
    AccessRecord {
        start: NOW,
        id: Uuid::from_u128(9),
        trace: None,
        listener: "gateway".into(),
        peer: Some([10, 1, 2, 3].into()),
        user_agent: None,
        tls: None,
        client: Some("erp".into()),
        method: http::Method::POST,
        path: "/scb/v1/payment/qrcode/create".to_owned(),
        route: Some("scb".into()),
        provider: Some("scb".into()),
        upstream: None,
        provider_id: Some(http::HeaderValue::from_static("85230887e4d84b4cad8ca1db1ad1f5b5")),
        token: Some((Fingerprint::of(b"token"), 3)),
        refused: None,
        status: Some(200),
        error: None,
        told: None,
        reason: None,
        cause: None,
        tolerated: None,
        replay: Replay::None,
        took: Duration::ZERO,
        upstream_took: Some(Duration::from_millis(140)),
        request_bytes: 312,
        response_bytes: 2048,
        complete: true,
    }
}
