//! `record` of a `[provider.NAME]`: where its exchanges are recorded, without a secret.

use crate::provider::RecordSettings;
use crate::syntax::Fields;

use super::reader::Reader;
use super::schema::{MAY, MUST, SchemaSection, SchemaShape};
use super::spanned_text::{Position, SpannedText};

/// The usual number of exchanges of one call with one kind of answer.
const PER_CALL: usize = 2;
/// The usual number of exchanges in all, and the most.
const EXCHANGES: usize = 200;
const MOST_EXCHANGES: usize = 2000;

pub(super) const KEYS: SchemaSection = (
    "record",
    &[
        ("exchanges", SchemaShape::Count(1), MAY, "the most exchanges of a recording, up to 2000; 200"),
        ("folder", SchemaShape::Text, MUST, "where recordings go; made if it is not there"),
        (
            "keep",
            SchemaShape::Texts,
            MAY,
            "words of paths, and names of members with plain values, that may be written",
        ),
        ("per_call", SchemaShape::Count(1), MAY, "the most exchanges of one call with one status and code; 2"),
    ],
);

/// Reads `record`. That it is there is worth a warning: it is meant for a while.
pub(super) fn read_record(fields: &Fields<'_>, reader: &Reader<'_>) -> Option<RecordSettings> {
    let node = fields.take("record")?;
    let report = reader.report;
    let own = Fields::new(node, format!("record of {}", fields.what()), report);
    let folder = own.req::<SpannedText>("folder", "\"recordings\"");
    let count = |key: &str, usual: usize| {
        let Some(node) = own.take(key) else { return usual };
        let Some(count) = own.opt::<usize>(key) else { return usual };
        if !(1..=MOST_EXCHANGES).contains(&count) {
            let title = format!("`{key}` is a number from 1 to {MOST_EXCHANGES}");
            Position::of(node).error(report, title, format!("leave it out for {usual}"));
        }
        count
    };
    let (per_call, exchanges) = (count("per_call", PER_CALL), count("exchanges", EXCHANGES));
    let keep = own.or("keep", Vec::new());
    own.finish();
    let word = folder?;
    if word.text.is_empty() {
        word.place.error(report, "`folder` is empty", "write a path, as in `\"recordings\"`");
        return None;
    }
    let folder = reader.resolve(&word.text);
    if let Err(why) = reader.creatable(&folder.join("recording.toml")) {
        let title = format!("nothing can be recorded in `{}`: {why}", word.text);
        word.place.warning(report, title, "let the user who runs countersign write there, or name another folder");
    }
    let title = format!("traffic is recorded in `{}`, with stand-ins for what is secret", word.text);
    Position::head(node).warning(report, title, "remove `record` and reload when the recording is done");
    Some(RecordSettings { folder, per_call, exchanges, keep })
}
