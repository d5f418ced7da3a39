//! Looking a chain through: the inverse of sealing it, one line at a time.
//!
//! The first record that does not hold ends it. Files that are given together are one chain, in their order.

use std::fmt;
use std::io::{self, BufRead, Read as _};
use std::sync::Arc;

use aws_lc_rs::digest;
use serde::Deserialize;

use super::chain::{ChainKey, Head, RecordParts, Seal};
use super::entry::{FORMAT, LOST, OPEN, RECOVERED, Torn};
use crate::base::secret::hex;

/// No record is longer, in bytes.
const LONGEST_LINE: u64 = 1 << 20;

/// A number and the head that the record of that number must have: `SEQ:HASH`, as the log tells them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Anchor {
    /// The number of the record in its chain.
    pub seq: u64,
    /// The head that this record must have.
    pub head: Head,
}

impl Anchor {
    /// Reads `SEQ:HASH`; returns `None` for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        let (seq, head) = text.split_once(':')?;
        Some(Self { seq: seq.parse().ok()?, head: Head::parse(head.as_bytes())? })
    }
}

impl fmt::Display for Anchor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.seq, self.head)
    }
}

/// The kind of flaw that breaks a chain.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ChainFlaw {
    /// It is not as it was written.
    Altered,
    /// The file does not begin as every file does: its first records are missing, or it is no audit log.
    Beginning,
    /// The records up to a head that was told are missing at the end.
    End,
    /// Records are missing before it.
    Missing,
    /// It stands behind records that were written later.
    Order,
    /// It is another record than the one that had this number when the head was told.
    Other,
    /// It is a piece of a record, and none after it says so.
    Torn,
    /// The file is not sealed under a key, though one was given.
    Unkeyed,
}

impl ChainFlaw {
    /// Returns the flaw as one lower-case word.
    pub const fn as_str(self) -> &'static str {
        match self {
            ChainFlaw::Altered => "altered",
            ChainFlaw::Beginning => "beginning",
            ChainFlaw::End => "end",
            ChainFlaw::Missing => "missing",
            ChainFlaw::Order => "order",
            ChainFlaw::Other => "other",
            ChainFlaw::Torn => "torn",
            ChainFlaw::Unkeyed => "unkeyed",
        }
    }
}

/// The first place where a chain is broken.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Break {
    /// The file's name, as given to [`ChainVerifier::file`].
    pub file: String,
    /// The line in it, from 1.
    pub line: u64,
    /// The number that the record there has, or should have.
    pub seq: u64,
    /// The kind of flaw that was found.
    pub flaw: ChainFlaw,
    /// The same in a sentence.
    pub told: String,
}

/// The reason for which a chain is not whole, or cannot be judged.
#[derive(Debug)]
pub enum ChainVerdict {
    /// The chain is broken at this place.
    Broken(Break),
    /// It cannot be judged; the text says why, and what to do.
    Unjudged(String),
}

/// The content of a chain that is whole.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WholeChain {
    /// Number of files that were read.
    pub files: u64,
    /// Number of records in all files.
    pub records: u64,
    /// Number of records that describe calls.
    pub calls: u64,
    /// The number of the first.
    pub first: u64,
    /// Number and head of the last record.
    pub last: Anchor,
    /// Torn pieces that records after them tell of.
    pub recovered: u64,
    /// Records that were lost before they could be written, as gaps tell.
    pub lost: u64,
    /// True if all of it is sealed under a key.
    pub keyed: bool,
}

/// A chain that is being looked through.
pub struct ChainVerifier {
    keys: Vec<Arc<ChainKey>>,
    anchors: Vec<Anchor>,
    so_far: Option<WholeChain>,
    /// Pieces of records, at the end of what was read.
    pieces: Option<ChainFiles>,
    /// File and line of the last record.
    place: (String, u64),
    /// The records before the first file are missing, and were no operator's to delete.
    lost: Option<Break>,
}

struct ChainFiles {
    file: String,
    line: u64,
    bytes: u64,
    digest: digest::Context,
}

#[derive(Deserialize)]
struct ReadOpen {
    format: u32,
    method: String,
    #[serde(default)]
    key: Option<String>,
    #[serde(default)]
    why: Option<String>,
    before: String,
    #[serde(default)]
    torn: Option<Torn>,
}

#[derive(Deserialize)]
struct ReadRecovered {
    torn: Torn,
}

#[derive(Deserialize)]
struct ReadGap {
    lost: u64,
}

impl ChainFiles {
    fn at(file: &str, line: u64) -> Self {
        Self { file: file.to_owned(), line, bytes: 0, digest: digest::Context::new(&digest::SHA256) }
    }

    fn add(&mut self, line: &[u8], more: bool) {
        if more {
            self.bytes += 1;
            self.digest.update(b"\n");
        }
        self.bytes += line.len() as u64;
        self.digest.update(line);
    }

    fn are(&self, torn: &Torn) -> bool {
        self.bytes == torn.bytes && hex(self.digest.clone().finish().as_ref()) == torn.sha256
    }
}

impl ChainVerifier {
    /// Starts with nothing read. Each keyed file names its key, so there may be several.
    pub fn new(keys: Vec<Arc<ChainKey>>, anchors: Vec<Anchor>) -> Self {
        Self { keys, anchors, so_far: None, pieces: None, place: (String::new(), 0), lost: None }
    }

    /// Reads the next file of the chain.
    pub fn file(&mut self, name: &str, mut reader: impl BufRead) -> Result<(), ChainVerdict> {
        let mut line = Vec::new();
        let mut seal = None;
        let mut number = 0;
        loop {
            line.clear();
            let read = reader.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line);
            let read = read.map_err(|error| ChainVerdict::Unjudged(format!("{name} cannot be read: {error}")))?;
            if read == 0 {
                break;
            }
            number += 1;
            let ended = line.last() == Some(&b'\n');
            if ended {
                line.pop();
            } else if read as u64 == LONGEST_LINE {
                return Err(self.broken(name, number, ChainFlaw::Altered, "this line is longer than any record"));
            }
            match &seal {
                None => seal = Some(self.begin(name, &line)?),
                Some(seal) => self.next(seal, name, number, &line)?,
            }
        }
        if seal.is_none() {
            return Err(self.broken(
                name,
                1,
                ChainFlaw::Beginning,
                "the file is empty: not even its first record is there",
            ));
        }
        Ok(())
    }

    /// Ends the verification after all files were read, and returns the content of the chain if it is whole.
    pub fn finish(mut self) -> Result<WholeChain, ChainVerdict> {
        if let Some(pieces) = self.pieces.take() {
            let told = "it ends in a piece of a record: a crash left it, or somebody is writing just now";
            return Err(self.broken(&pieces.file, pieces.line, ChainFlaw::Torn, told));
        }
        // Any other flaw comes first: this one stays for as long as the file is kept.
        if let Some(lost) = self.lost.take() {
            return Err(ChainVerdict::Broken(lost));
        }
        let Some(whole) = self.so_far.take() else {
            return Err(ChainVerdict::Unjudged("no file was given".to_owned()));
        };
        for anchor in &self.anchors {
            if anchor.seq < whole.first {
                let told = format!("record {} stands in a file before those that were given", anchor.seq);
                return Err(ChainVerdict::Unjudged(told));
            }
            if anchor.seq > whole.last.seq {
                let (missing, (file, line)) = (whole.last.seq + 1, self.place);
                let told = match anchor.seq {
                    last if last == missing => format!("record {last} is missing after it"),
                    last => format!("records {missing} to {last} are missing after it"),
                };
                return Err(ChainVerdict::Broken(Break { file, line, seq: missing, flaw: ChainFlaw::End, told }));
            }
        }
        Ok(whole)
    }

    /// The first line of a file says how the others are bound, and to what.
    fn begin(&mut self, name: &str, line: &[u8]) -> Result<Seal, ChainVerdict> {
        let bad = |told: &str| self.broken(name, 1, ChainFlaw::Beginning, told);
        let parts = RecordParts::of(line).filter(|parts| parts.kind() == Some(OPEN));
        let parts = parts.ok_or_else(|| bad("no audit log begins so: its first records are missing or altered"))?;
        let open = serde_json::from_slice::<ReadOpen>(line).ok().filter(|open| open.format == FORMAT);
        let open = open.ok_or_else(|| bad("the first record is not of a format that this version knows"))?;
        let before = Head::parse(open.before.as_bytes()).ok_or_else(|| bad("the first record is not as it was"))?;
        let seal = match (open.method.as_str(), &open.key) {
            ("sha256", None) if self.keys.is_empty() => Seal::Plain,
            ("sha256", None) => {
                let told = "it is not sealed under a key, though one was given: anybody may have written it";
                return Err(self.broken(name, 1, ChainFlaw::Unkeyed, told));
            }
            ("hmac-sha256", Some(_)) if self.keys.is_empty() => {
                return Err(ChainVerdict::Unjudged(format!(
                    "{name} is sealed under a key: name it with --key-file, --key-env or -c"
                )));
            }
            ("hmac-sha256", Some(key)) => match self.keys.iter().find(|known| known.name() == key) {
                Some(known) => Seal::Keyed(known.clone()),
                None => {
                    let shown: String = key.chars().filter(char::is_ascii_hexdigit).take(16).collect();
                    return Err(ChainVerdict::Unjudged(format!(
                        "{name} is sealed under the key called {shown}, which is none of those given"
                    )));
                }
            },
            _ => return Err(bad("the first record is not as it was")),
        };
        if seal.head(&before, parts.body) != parts.head {
            return Err(self.broken(name, 1, ChainFlaw::Altered, "the record is not as it was written"));
        }
        if let Some(so_far) = &self.so_far {
            let last = so_far.last;
            if before != last.head || last.seq.checked_add(1) != Some(parts.seq) {
                let told = format!(
                    "the file does not follow {}, which ends with record {}: one is missing between them, or they \
                     were given in another order",
                    self.place.0, last.seq
                );
                return Err(self.broken(name, 1, ChainFlaw::Missing, &told));
            }
            match (self.pieces.take(), &open.torn) {
                (None, None) => {}
                (Some(pieces), Some(torn)) if pieces.are(torn) => {}
                (Some(pieces), _) => {
                    let told = "it is a piece of a record, and the next file does not tell of it";
                    return Err(self.broken(&pieces.file, pieces.line, ChainFlaw::Torn, told));
                }
                (None, Some(_)) => {
                    let told = "it tells of a piece of a record at the end of the file before, which is not there";
                    return Err(self.broken(name, 1, ChainFlaw::Missing, told));
                }
            }
        } else if parts.seq == 0 {
            return Err(bad("the first record is not as it was"));
        } else if open.why.as_deref() == Some(LOST) {
            let (file, last) = (name.to_owned(), parts.seq - 1);
            let told = format!(
                "the file before it was deleted or replaced while it was written to: records up to {last} are missing"
            );
            self.lost = Some(Break { file, line: 1, seq: parts.seq, flaw: ChainFlaw::Missing, told });
        }
        let keyed = seal.key().is_some();
        let so_far = self.so_far.get_or_insert(WholeChain {
            files: 0,
            records: 0,
            calls: 0,
            first: parts.seq,
            last: Anchor { seq: 0, head: Head::ZERO },
            recovered: 0,
            lost: 0,
            keyed,
        });
        so_far.files += 1;
        so_far.keyed &= keyed;
        so_far.recovered += u64::from(open.torn.is_some());
        self.holds(name, 1, &parts)?;
        Ok(seal)
    }

    fn next(&mut self, seal: &Seal, name: &str, number: u64, line: &[u8]) -> Result<(), ChainVerdict> {
        let Some(parts) = RecordParts::of(line) else {
            let more = self.pieces.is_some();
            self.pieces.get_or_insert_with(|| ChainFiles::at(name, number)).add(line, more);
            return Ok(());
        };
        let before = self.last();
        let pieces = self.pieces.take();
        let true_next =
            before.seq.checked_add(1) == Some(parts.seq) && seal.head(&before.head, parts.body) == parts.head;
        let kind = parts.kind();
        if let Some(pieces) = pieces {
            let told = serde_json::from_slice::<ReadRecovered>(line).ok();
            let covered = true_next && kind == Some(RECOVERED) && told.is_some_and(|told| pieces.are(&told.torn));
            if !covered {
                let told = "this is no record, and none after it tells of a torn one";
                return Err(self.broken(&pieces.file, pieces.line, ChainFlaw::Altered, told));
            }
            if let Some(so_far) = &mut self.so_far {
                so_far.recovered += 1;
            }
            return self.holds(name, number, &parts);
        }
        if !true_next {
            let seq = before.seq.saturating_add(1);
            let (flaw, told) = if parts.seq == seq {
                (ChainFlaw::Altered, "the record is not as it was written".to_owned())
            } else if parts.seq > seq {
                let last = parts.seq - 1;
                let gap = if last == seq { format!("{seq} is") } else { format!("{seq} to {last} are") };
                (ChainFlaw::Missing, format!("here stands record {}: {gap} missing before it", parts.seq))
            } else {
                (ChainFlaw::Order, format!("here stands record {} once more, or out of its place", parts.seq))
            };
            return Err(self.broken(name, number, flaw, &told));
        }
        match kind {
            Some(OPEN) => {
                return Err(self.broken(
                    name,
                    number,
                    ChainFlaw::Order,
                    "the first record of a file stands within one",
                ));
            }
            Some(RECOVERED) => {
                let told = "it tells of a torn record before it, which is not there";
                return Err(self.broken(name, number, ChainFlaw::Missing, told));
            }
            Some("call") => {
                if let Some(so_far) = &mut self.so_far {
                    so_far.calls += 1;
                }
            }
            Some("gap") => {
                if let (Some(so_far), Ok(gap)) = (&mut self.so_far, serde_json::from_slice::<ReadGap>(line)) {
                    so_far.lost = so_far.lost.saturating_add(gap.lost);
                }
            }
            Some(_) | None => {}
        }
        self.holds(name, number, &parts)
    }

    /// The record is the next one.
    fn holds(&mut self, name: &str, number: u64, parts: &RecordParts<'_>) -> Result<(), ChainVerdict> {
        if self.anchors.iter().any(|anchor| anchor.seq == parts.seq && anchor.head != parts.head) {
            let told = "another record had this number when its head was told: the chain was made anew";
            return Err(self.broken(name, number, ChainFlaw::Other, told));
        }
        if let Some(so_far) = &mut self.so_far {
            so_far.records += 1;
            so_far.last = Anchor { seq: parts.seq, head: parts.head };
        }
        if self.place.0 != name {
            name.clone_into(&mut self.place.0);
        }
        self.place.1 = number;
        Ok(())
    }

    fn last(&self) -> Anchor {
        self.so_far.as_ref().map_or(Anchor { seq: 0, head: Head::ZERO }, |so_far| so_far.last)
    }

    fn broken(&self, file: &str, line: u64, flaw: ChainFlaw, told: &str) -> ChainVerdict {
        let seq = self.last().seq.saturating_add(1);
        ChainVerdict::Broken(Break { file: file.to_owned(), line, seq, flaw, told: told.to_owned() })
    }
}

/// Verifies a chain that is given as one text.
pub fn verify(text: &[u8], keys: Vec<Arc<ChainKey>>, anchors: Vec<Anchor>) -> Result<WholeChain, ChainVerdict> {
    let mut verifier = ChainVerifier::new(keys, anchors);
    verifier.file("the audit log", io::Cursor::new(text))?;
    verifier.finish()
}

#[cfg(test)]
mod tests;
