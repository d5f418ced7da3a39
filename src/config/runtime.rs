//! `[runtime]`: the number of worker threads.

use crate::syntax::Fields;

use super::reader::Reader;
use super::schema::{MAY, SchemaSection, SchemaShape};
use super::spanned_text::Position;

pub(super) const KEYS: SchemaSection =
    ("runtime", &[("workers", SchemaShape::Count(1), MAY, "threads that serve requests; default: one per core")]);

/// More threads than any machine has cores.
const MOST_WORKERS: u64 = 1024;

/// Reads `[runtime]`: the number of worker threads.
pub(super) fn read(root: &Fields<'_>, reader: &Reader<'_>) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let Some(node) = root.take("runtime") else { return cores };
    let fields = Fields::new(node, "[runtime]", reader.report);
    let workers = fields.opt::<u64>("workers");
    if workers.is_some_and(|workers| !(1..=MOST_WORKERS).contains(&workers))
        && let Some(node) = fields.take("workers")
    {
        let help = format!("write 1 to {MOST_WORKERS}, or leave it out: one per core");
        Position::of(node).error(reader.report, "that many workers cannot run", help);
    }
    fields.finish();
    workers.and_then(|workers| usize::try_from(workers).ok()).unwrap_or(cores)
}
