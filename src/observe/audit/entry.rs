//! The content of audit records. `docs/audit.md` explains every member.
//!
//! A record is built without its number and head; the writer adds those, in the one order that the chain has.

use std::net::IpAddr;
use std::sync::Arc;

use serde::{Serialize, Serializer};
use uuid::Uuid;

use super::chain::{Head, Seal};
use crate::base::secret::Fingerprint;
use crate::base::time::{Now, Rfc3339, millis};
use crate::observe::record::{AccessRecord, Replay};

/// The format of these records. Members may be added without a new number.
pub const FORMAT: u32 = 1;
/// More of a path is not told; no chain needs it.
const LONGEST_PATH: usize = 8 * 1024;
/// The same for why something failed.
const LONGEST_OUTCOME: usize = 4 * 1024;

/// [`OpenReason::Lost`] as records say it.
pub const LOST: &str = "lost";
/// The first record of every file.
pub const OPEN: &str = "open";
/// Says that a torn piece of a record stands before it.
pub const RECOVERED: &str = "recovered";

/// The reason for beginning a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OpenReason {
    /// The previous file does not end with a valid record: a chain of its own begins.
    Broken,
    /// Another key is in force.
    Key,
    /// The file before it was deleted or replaced while it was written to.
    Lost,
    /// The file before it was moved away, or another path is configured.
    Moved,
    /// There was no file to continue, or it was empty.
    New,
    /// The file before it was full.
    Size,
}

/// A piece of a record that a crash or a full disk left behind.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, serde::Deserialize)]
pub struct Torn {
    /// Its length, the newline after it not counted.
    pub bytes: u64,
    /// SHA-256 of the piece without that newline, in hexadecimal.
    pub sha256: String,
}

/// An action of an operator, an application or the process itself, besides calls.
#[derive(Clone, Copy, Debug)]
pub struct AuditAction<'a> {
    /// The actor: `client:NAME`, `admin`, `admin:NAME`, `browser`, `signal`, …
    pub actor: &'a str,
    /// The action: `consent.start`, `reload`, …
    pub what: &'static str,
    /// To what, by names and values. No secrets.
    pub target: &'a [(&'static str, &'a str)],
    /// The result: `ok`, or the reason for a failure, in a word or a line. No secrets.
    pub outcome: &'a str,
}

/// The content of a call's record that the access log does not have.
#[derive(Clone, Copy, Debug)]
pub struct AuditContext<'a> {
    /// In whose name it was made.
    pub user: Option<&'a str>,
    /// Names of route variables, with their values hidden by `Seal::hide`.
    pub vars: &'a [(Arc<str>, String)],
    /// The digest of the config that it was judged by.
    pub config: &'a str,
}

/// The members with which every record begins.
#[derive(Serialize)]
struct Common<'a> {
    kind: &'static str,
    instance: Uuid,
    time: &'a str,
}

#[derive(Serialize)]
struct OpenEntry<'a> {
    #[serde(flatten)]
    common: Common<'a>,
    format: u32,
    method: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    why: OpenReason,
    before: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    torn: Option<&'a Torn>,
}

#[derive(Serialize)]
struct Recovered<'a> {
    #[serde(flatten)]
    common: Common<'a>,
    torn: &'a Torn,
}

#[derive(Serialize)]
struct Start<'a> {
    #[serde(flatten)]
    common: Common<'a>,
    version: &'static str,
    config: &'a str,
}

#[derive(Serialize)]
struct Gap<'a> {
    #[serde(flatten)]
    common: Common<'a>,
    lost: u64,
}

#[derive(Serialize)]
struct Done<'a> {
    #[serde(flatten)]
    common: Common<'a>,
    actor: &'a str,
    action: &'static str,
    #[serde(serialize_with = "members")]
    target: &'a [(&'static str, &'a str)],
    outcome: &'a str,
}

#[derive(Serialize)]
struct CallEntry<'a> {
    kind: &'static str,
    instance: Uuid,
    time: &'a str,
    duration_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream_ms: Option<u64>,
    request_id: Uuid,
    listener: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    method: &'a str,
    path: &'a str,
    #[serde(skip_serializing_if = "is_false")]
    path_cut: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    provider: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    provider_request_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<DisplayFingerprint>,
    #[serde(skip_serializing_if = "Option::is_none")]
    generation: Option<u64>,
    replayed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<RefusedEntry<'a>>,
    #[serde(skip_serializing_if = "<[_]>::is_empty", serialize_with = "members")]
    vars: &'a [(Arc<str>, String)],
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'static str>,
    request_bytes: u64,
    response_bytes: u64,
    complete: bool,
    config: &'a str,
}

/// The attempt before a replay.
#[derive(Serialize)]
struct RefusedEntry<'a> {
    token: DisplayFingerprint,
    generation: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    provider_request_id: Option<&'a str>,
}

/// A fingerprint, written without an allocation.
struct DisplayFingerprint(Fingerprint);

impl Serialize for DisplayFingerprint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

fn members<S: Serializer, K: AsRef<str>, V: AsRef<str>>(pairs: &&[(K, V)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(pairs.iter().map(|(name, value)| (name.as_ref(), value.as_ref())))
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_false(flag: &bool) -> bool {
    !*flag
}

fn write(record: &impl Serialize, out: &mut Vec<u8>) {
    let start = out.len();
    // Serialization should not fail: no record has an unusual key, and a Vec takes all bytes. But half a record would
    // be worse than none.
    if serde_json::to_writer(&mut *out, record).is_err() {
        out.truncate(start);
    }
}

/// The builder of one process's records: it holds the content that they have in common.
#[derive(Clone, Copy, Debug)]
pub struct RecordEncoder {
    /// This run of the process.
    pub instance: Uuid,
}

impl RecordEncoder {
    /// The first record of a file.
    pub fn open(self, now: Now, seal: &Seal, why: OpenReason, before: &Head, torn: Option<&Torn>) -> Vec<u8> {
        let time = Rfc3339::of(now.wall);
        let common = self.common(OPEN, &time);
        let (method, key, before) = (seal.method(), seal.key(), before.to_string());
        made(&OpenEntry { common, format: FORMAT, method, key, why, before, torn })
    }

    /// A torn piece stands before this record.
    pub fn recovered(self, now: Now, torn: &Torn) -> Vec<u8> {
        made(&Recovered { common: self.common(RECOVERED, &Rfc3339::of(now.wall)), torn })
    }

    /// Builds the record of the start of the process.
    pub fn start(self, now: Now, config: &str) -> Vec<u8> {
        let version = env!("CARGO_PKG_VERSION");
        made(&Start { common: self.common("start", &Rfc3339::of(now.wall)), version, config })
    }

    /// The process ends as it should.
    pub fn stop(self, now: Now) -> Vec<u8> {
        made(&self.common("stop", &Rfc3339::of(now.wall)))
    }

    /// So many records were lost before this one.
    pub fn gap(self, now: Now, lost: u64) -> Vec<u8> {
        made(&Gap { common: self.common("gap", &Rfc3339::of(now.wall)), lost })
    }

    /// Builds the record of an action; its outcome is cut at 4 KiB.
    pub fn action(self, now: Now, action: &AuditAction<'_>) -> Vec<u8> {
        let time = Rfc3339::of(now.wall);
        let AuditAction { actor, what, target, outcome } = *action;
        let outcome = shortened(outcome, LONGEST_OUTCOME);
        made(&Done { common: self.common("action", &time), actor, action: what, target, outcome })
    }

    /// Appends a call, as a line.
    pub fn call(self, end: Now, record: &AccessRecord, context: AuditContext<'_>, out: &mut Vec<u8>) {
        let time = Rfc3339::of(record.start.wall);
        let path = shortened(&record.path, LONGEST_PATH);
        let call = CallEntry {
            kind: "call",
            instance: self.instance,
            time: time.as_str(),
            duration_ms: end.boot.saturating_sub(record.start.boot),
            upstream_ms: record.upstream_took.map(millis),
            request_id: record.id,
            listener: &record.listener,
            address: record.peer,
            client: record.client.as_deref(),
            user: context.user,
            method: record.method.as_str(),
            path,
            path_cut: path.len() < record.path.len(),
            route: record.route.as_deref(),
            provider: record.provider.as_deref(),
            provider_request_id: record.provider_id.as_ref().and_then(|id| id.to_str().ok()),
            token: record.token.map(|(fingerprint, _)| DisplayFingerprint(fingerprint)),
            generation: record.token.map(|(_, generation)| generation),
            replayed: matches!(record.replay, Replay::Challenged | Replay::Replayed),
            refused: record.refused.as_ref().map(|spent| RefusedEntry {
                token: DisplayFingerprint(spent.token.0),
                generation: spent.token.1,
                provider_request_id: spent.id.as_ref().and_then(|id| id.to_str().ok()),
            }),
            vars: context.vars,
            status: record.status,
            error: record.error,
            request_bytes: record.request_bytes,
            response_bytes: record.response_bytes,
            complete: record.complete,
            config: context.config.get(..16).unwrap_or(context.config),
        };
        write(&call, out);
        out.push(b'\n');
    }

    fn common<'a>(self, kind: &'static str, time: &'a Rfc3339) -> Common<'a> {
        Common { kind, instance: self.instance, time: time.as_str() }
    }
}

fn made(record: &impl Serialize) -> Vec<u8> {
    let mut out = Vec::new();
    write(record, &mut out);
    out.push(b'\n');
    out
}

/// The beginning of a text that is too long.
fn shortened(text: &str, longest: usize) -> &str {
    text.get(..text.floor_char_boundary(longest)).unwrap_or_default()
}
