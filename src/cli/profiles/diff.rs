//! `countersign profiles diff`: the difference between two profiles by meaning.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use serde_json::{Value, json};

use super::found_profile::{FoundProfile, Unusable, mistakes};
use super::{add_provenance, complain, print};
use crate::base::counted::counted;
use crate::provider::{Basis, Profile, ProfileChange, profile_changes};
use crate::syntax::Diagnostics;

/// A value is cut after this many characters where a person reads it.
const WIDEST: usize = 160;

/// Compares two profiles. 0: they say the same, 1: they do not, 2: one of them cannot be read.
pub(super) fn diff(old: &str, new: &str, config: &Path, as_json: bool) -> ExitCode {
    match compare(old, new, config, as_json) {
        Ok((sides, changes)) => {
            print(&if as_json { answer_json(&sides, &changes) } else { answer(&sides, &changes) });
            ExitCode::from(u8::from(!changes.is_empty()))
        }
        Err((why, _)) => {
            complain(&why);
            ExitCode::from(2)
        }
    }
}

/// The two profiles with the words that named them.
type Sides = [(String, Arc<Profile>); 2];

fn compare(old: &str, new: &str, config: &Path, as_json: bool) -> Result<(Sides, Vec<ProfileChange>), Unusable> {
    let (before, after) = (FoundProfile::find(old, Some(config))?, FoundProfile::find(new, Some(config))?);
    let sides = [(old.to_owned(), before.parse(as_json)?), (new.to_owned(), after.parse(as_json)?)];
    let report = Diagnostics::new();
    match profile_changes(before.text(), after.text(), &report) {
        Some(changes) => Ok((sides, changes)),
        None => Err((mistakes(&format!("{old} or {new}"), report, as_json), 2)),
    }
}

fn answer(sides: &Sides, changes: &[ProfileChange]) -> String {
    let side = |(named, profile): &(String, Arc<Profile>)| {
        let provenance = profile.provenance();
        let version = if provenance.version.is_empty() { "no version" } else { &provenance.version };
        let open = profile.unconfirmed().len();
        format!("{named} ({version}, {}, {open} unconfirmed)", provenance.basis.map_or("basis not said", Basis::as_str))
    };
    let [old, new] = sides;
    let mut text = format!("from {}\nto   {}\n", side(old), side(new));
    // In the order in which each consequence is met first, text for people last.
    let mut meanings: Vec<&str> = Vec::new();
    for change in changes.iter().filter(|change| !change.meaning.is_empty()) {
        if !meanings.contains(&change.meaning) {
            meanings.push(change.meaning);
        }
    }
    let open = changes.iter().filter(|change| !change.meaning.is_empty()).count();
    if open < changes.len() {
        meanings.push("");
    }
    for meaning in meanings {
        let _ = writeln!(text, "\n{}:", if meaning.is_empty() { "only text for people" } else { meaning });
        for change in changes.iter().filter(|change| change.meaning == meaning) {
            let _ = writeln!(text, "  {:<8} {}{}", change.kind.as_str(), change.path, sides_of(change));
        }
    }
    let total = counted(changes.len(), "difference");
    text + &match (changes.len(), open) {
        (0, _) => "\nThey say the same.\n".to_owned(),
        (_, 0) => format!("\n{total}, none of which changes what countersign does.\n"),
        (_, open) => format!(
            "\n{total}, {open} of which may change what is sent or accepted. With another profile every token is fetched anew.\n"
        ),
    }
}

fn sides_of(change: &ProfileChange) -> String {
    match (&change.old, &change.new) {
        (Some(old), Some(new)) => format!(": {} → {}", cut(old), cut(new)),
        (Some(one), None) | (None, Some(one)) => format!(": {}", cut(one)),
        (None, None) => String::new(),
    }
}

fn cut(value: &str) -> String {
    match value.char_indices().nth(WIDEST) {
        Some((at, _)) => format!("{}…", value.get(..at).unwrap_or_default()),
        None => value.to_owned(),
    }
}

fn answer_json(sides: &Sides, changes: &[ProfileChange]) -> String {
    let side = |(named, profile): &(String, Arc<Profile>)| {
        let mut value = json!({ "named": named, "name": profile.name() });
        add_provenance(&mut value, profile);
        value
    };
    let change = |change: &ProfileChange| -> Value {
        json!({
            "path": change.path,
            "change": change.kind.as_str(),
            "old": change.old,
            "new": change.new,
            "meaning": Some(change.meaning).filter(|meaning| !meaning.is_empty()),
        })
    };
    let [old, new] = sides;
    let changes: Vec<Value> = changes.iter().map(change).collect();
    let value = json!({ "equal": changes.is_empty(), "old": side(old), "new": side(new), "changes": changes });
    format!("{value:#}\n")
}
