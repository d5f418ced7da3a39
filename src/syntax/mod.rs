//! Reading TOML so that every mistake is found at once and shown where it stands.
//!
//! The config file and the provider profiles are both read through this room, so both get the same diagnostics: file,
//! line, column, a caret, what to write instead. It knows shapes and spans; it does not know what a listener or a
//! bank is. YAML and JSON that other programs wrote are read by [`yaml`], within bounds. Pure; no I/O.

pub mod byte_size;
mod diagnostic;
mod fields;
mod malformed;
mod node;
pub mod yaml;

pub use diagnostic::{Diagnostic, Diagnostics, Severity, SourceText};
pub use fields::{Fields, FromNode};
pub use node::{Kind, Node, Table, TableEntry};

/// The candidate that `word` was probably meant to be, if one is near enough.
pub fn suggest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}
