//! `[audit]`: where calls and actions are recorded.

use std::sync::Arc;

use crate::base::secret::ExposeSecret;
use crate::observe::audit::{AuditSettings, ChainKey, Seal};
use crate::syntax::byte_size::ByteSize;
use crate::syntax::{Fields, Node};

use super::log::{AccessLogTarget, LogConfig};
use super::reader::Reader;
use super::schema::{MAY, MUST, SchemaSection, SchemaShape};
use super::spanned_text::{Position, SpannedText, choice};

pub(super) const KEYS: SchemaSection = (
    "audit",
    &[
        ("key", SchemaShape::Source, MAY, "makes the chain one that only its holder can make; 32 characters or more"),
        (
            "on_failure",
            SchemaShape::Choice(&["refuse", "continue"]),
            MAY,
            "what becomes of calls while records cannot be written; refuse",
        ),
        ("rotate", SchemaShape::Size, MAY, "begins a new file at this size; 100MiB; 0: never"),
        ("to", SchemaShape::Text, MUST, "path of the file, or stdout"),
    ],
);

/// A file of records that is moved aside at this size is small enough to look at, and to look through in a second.
const ROTATE: u64 = 100 << 20;
/// Smaller files would hold little more than their own beginning.
const LEAST_ROTATE: u64 = 64 << 10;
/// 128 bits, if it is written in hexadecimal.
const LEAST_KEY: usize = 32;

/// Reads `[audit]`. Mistakes are reported; the returned value is then unusable.
pub(super) fn read(root: &Fields<'_>, log: &LogConfig, reader: &Reader<'_>) -> Option<AuditSettings> {
    let node = root.take("audit")?;
    let fields = Fields::new(node, "[audit]", reader.report);
    let to = fields.req::<SpannedText>("to", "\"var/audit.log\"");
    let path = to.as_ref().and_then(|word| match word.text.as_str() {
        "stdout" => None,
        "" | "off" | "stderr" => {
            let help = "write the path of a file, or `\"stdout\"`; leave the section out for none";
            word.place.error(reader.report, "audit records cannot go there", help);
            None
        }
        path => Some(reader.resolve(path)),
    });
    if let (Some(path), Some(word)) = (&path, &to) {
        if log.access == AccessLogTarget::File(path.clone()) {
            let title = "the access log is the same file, and would break the chain";
            word.place.error(reader.report, title, "give each a file of its own");
        } else {
            reader.demand_appendable("audit records", path, &word.place);
        }
    }
    let key = fields.take("key");
    let seal = match key {
        None => {
            let help = "add `key = { file = \"audit.key\" }`; `openssl rand -hex 32` makes one";
            let title = "the audit log has no key: whoever can write the file can make its whole chain anew";
            Position::head(node).warning(reader.report, title, help);
            Seal::Plain
        }
        Some(node) => chain_key(node, reader).map_or(Seal::Plain, |key| Seal::Keyed(Arc::new(key))),
    };
    let goes_on = choice(&fields, "on_failure", &[("refuse", false), ("continue", true)]).unwrap_or(false);
    let rotate = fields.opt::<ByteSize>("rotate").map_or(ROTATE, |size| size.0);
    if (1..LEAST_ROTATE).contains(&rotate)
        && let Some(node) = fields.take("rotate")
    {
        Position::of(node).error(reader.report, "files that small are not worth it", "write `\"64KiB\"` or more, or 0");
    }
    fields.finish();
    to.map(|_| AuditSettings { path, seal, goes_on, rotate: Some(rotate).filter(|rotate| *rotate > 0) })
}

fn chain_key(node: &Node, reader: &Reader<'_>) -> Option<ChainKey> {
    let (text, literal) = reader.value(node, reader.report)?;
    // It may be the key itself, so it is shown in no message.
    let shown = if literal { Position::of(node).redacted() } else { Position::of(node) };
    if literal {
        let help = "write `key = { env = \"NAME\" }` or `{ file = \"path\" }`";
        shown.warning(reader.report, "the audit log's key stands in the config file", help);
    }
    if text.expose_secret().len() < LEAST_KEY {
        let help = "`openssl rand -hex 32` makes one";
        shown.error(reader.report, format!("a key of fewer than {LEAST_KEY} characters can be guessed"), help);
        return None;
    }
    Some(ChainKey::new(&text))
}
