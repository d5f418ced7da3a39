//! `include`: a config in several files.
//!
//! The files are read as if they were one: lists of tables go on, `[provider.NAME]`, `[client.NAME]`, `[profile_pack.NAME]`
//! and `[secret_source.NAME]` gather, and everything else stands in one file only. Every value keeps its place, so messages name the right file. Relative paths
//! start at the folder of the config itself, whichever file they stand in.

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use glob::{MatchOptions, Pattern};
use toml::{Table as PlainTable, Value};

use crate::syntax::{Diagnostics, Kind, Node, SourceText, Table, TableEntry};

use super::files::Files;
use super::reader::{Reader, reason, utf8};
use super::spanned_text::{Position, SpannedText};

/// More files than this are a mistake.
const MOST_FILES: usize = 1000;

/// A `*` does not stand for a dot at the beginning: so neither editors' files nor the links of Kubernetes are meant.
const HOW: MatchOptions =
    MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };

/// Adds what `include` names to the config. The texts that were read, and whether all of them could be parsed.
pub(super) fn gather_includes(root: &mut Node, files: &dyn Files, reader: &Reader<'_>) -> (Vec<Arc<SourceText>>, bool) {
    let mut texts = Vec::new();
    let mut whole = true;
    let own = PathBuf::from(&root.source.name);
    let Some(patterns) = take(root) else { return (texts, whole) };
    let Kind::Array(patterns) = &patterns.value.kind else {
        let help = "write `include = [\"conf.d/*.toml\"]`";
        Position::of(&patterns.value).error(reader.report, "`include` is a list of patterns", help);
        return (texts, whole);
    };
    let mut seen: Vec<PathBuf> = Vec::new();
    for pattern in patterns {
        let Some(word) = <SpannedText as crate::syntax::FromNode>::from_node(pattern, reader.report) else { continue };
        for path in named(&word, files, reader) {
            if seen.contains(&path) {
                continue;
            }
            if path == own {
                // A pattern that fits the config, too, means the others.
                if !is_wild(&word.text) {
                    word.place.error(reader.report, "the config includes itself", "take it out: it is read anyway");
                }
                continue;
            }
            seen.push(path.clone());
            if seen.len() > MOST_FILES {
                word.place.error(reader.report, format!("more than {MOST_FILES} files"), "name fewer");
                return (texts, whole);
            }
            let bytes = match files.read(&path) {
                Ok(bytes) => bytes,
                Err(error) => {
                    let title = format!("`{}` cannot be read: {}", path.display(), reason(&error));
                    word.place.error(reader.report, title, "relative paths start at the config file");
                    continue;
                }
            };
            let text = match utf8(bytes) {
                Ok(text) => text,
                Err(why) => {
                    let title = format!("`{}` {why}", path.display());
                    word.place.error(reader.report, title, "a config is a TOML file");
                    continue;
                }
            };
            reader.included(&path, text.as_bytes());
            let source = SourceText::new(path.display().to_string(), text);
            let (part, parsed) = Node::parse_whole(&source, reader.report);
            whole &= parsed;
            merge(root, part, reader.report);
            texts.push(source);
        }
    }
    (texts, whole)
}

/// Reads the plain contents of a config and of the files that it includes, for a command that needs a few names from it
/// and none of its secrets. Checks nothing: unsuitable content is left out, and `check` reports it. The error is for a
/// person.
pub fn sketch(path: &Path, files: &dyn Files) -> Result<PlainTable, String> {
    let mut whole = read_plain(path, files)?;
    let Some(Value::Array(patterns)) = whole.remove("include") else { return Ok(whole) };
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut seen: Vec<PathBuf> = Vec::new();
    for pattern in patterns.iter().filter_map(Value::as_str) {
        for found in matching(&folder.join(pattern), files) {
            if found != path && !seen.contains(&found) && seen.len() < MOST_FILES {
                gather_plain(&mut whole, read_plain(&found, files)?);
                seen.push(found);
            }
        }
    }
    Ok(whole)
}

fn read_plain(path: &Path, files: &dyn Files) -> Result<PlainTable, String> {
    let shown = path.display();
    let bytes = files.read_config(path).map_err(|error| format!("{shown} cannot be read: {}", reason(&error)))?;
    let text = utf8(bytes).map_err(|why| format!("{shown} {why}; a config is a TOML file"))?;
    text.parse().map_err(|_| format!("{shown} is not well-formed TOML; `countersign check` shows where"))
}

/// The files that one pattern names.
fn matching(whole: &Path, files: &dyn Files) -> Vec<PathBuf> {
    let (Some(folder), Some(name)) = (whole.parent(), whole.file_name().and_then(|name| name.to_str())) else {
        return Vec::new();
    };
    if !is_wild(name) {
        return vec![whole.to_owned()];
    }
    let Ok(pattern) = Pattern::new(name) else { return Vec::new() };
    fitting(&pattern, files.list(folder).unwrap_or_default())
}

fn gather_plain(whole: &mut PlainTable, part: PlainTable) {
    for (key, value) in part {
        match (whole.get_mut(&key), value) {
            (None, value) => drop(whole.insert(key, value)),
            (Some(Value::Array(items)), Value::Array(more)) => items.extend(more),
            (Some(Value::Table(table)), Value::Table(more)) => {
                for (name, value) in more {
                    table.entry(name).or_insert(value);
                }
            }
            (Some(_), _) => {}
        }
    }
}

/// Returns whether a name is a pattern for several files.
fn is_wild(name: &str) -> bool {
    name.contains(['*', '?', '['])
}

/// Those of these files that a pattern means, in the order of their names.
fn fitting(pattern: &Pattern, mut files: Vec<PathBuf>) -> Vec<PathBuf> {
    files.retain(|path| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| pattern.matches_with(name, HOW))
    });
    files.sort();
    files
}

/// Takes `include` out of the config.
fn take(root: &mut Node) -> Option<TableEntry> {
    let Kind::Table(table) = &mut root.kind else { return None };
    let at = table.entries.iter().position(|entry| entry.key == "include")?;
    Some(table.entries.remove(at))
}

/// The files of a pattern, in the order of their names. Only the file's own name may have `*`, `?` and `[…]`.
fn named(word: &SpannedText, files: &dyn Files, reader: &Reader<'_>) -> Vec<PathBuf> {
    let whole = reader.resolve(&word.text);
    let (folder, name) = (whole.parent().unwrap_or(Path::new("")), whole.file_name().and_then(|name| name.to_str()));
    let Some(name) = name.filter(|_| matches!(whole.components().next_back(), Some(Component::Normal(_)))) else {
        word.place.error(reader.report, format!("`{}` names no file", word.text), "as in `\"conf.d/*.toml\"`");
        return Vec::new();
    };
    if folder
        .to_str()
        .is_none_or(|_| is_wild(Path::new(&word.text).parent().and_then(Path::to_str).unwrap_or_default()))
    {
        let help = "only the name of the file may have `*`, `?` and `[…]`, as in `\"conf.d/*.toml\"`";
        word.place.error(reader.report, format!("`{}` names many folders", word.text), help);
        return Vec::new();
    }
    if !is_wild(name) {
        return vec![whole];
    }
    let pattern = match Pattern::new(name) {
        Ok(pattern) => pattern,
        Err(error) => {
            word.place.error(reader.report, format!("`{name}` is no pattern: {}", error.msg), "as in `\"*.toml\"`");
            return Vec::new();
        }
    };
    match files.list(folder) {
        Ok(found) => {
            reader.looked_into(folder, &found);
            fitting(&pattern, found)
        }
        Err(error) => {
            let title = format!("`{}` cannot be looked into: {}", folder.display(), reason(&error));
            word.place.error(reader.report, title, "relative paths start at the config file");
            Vec::new()
        }
    }
}

/// Merges the sections of one included file into `root`.
fn merge(root: &mut Node, part: Node, report: &Diagnostics) {
    let (Kind::Table(into), Kind::Table(from)) = (&mut root.kind, part.kind) else { return };
    for entry in from.entries {
        let position = Position::new(&entry.value.source, entry.key_span.clone());
        if entry.key == "include" {
            position.error(report, "only the config itself includes files", "take it out");
            continue;
        }
        let known = into.entries.iter_mut().find(|known| known.key == entry.key);
        let Some(known) = known else {
            into.entries.push(entry);
            continue;
        };
        match (&mut known.value.kind, entry.value.kind) {
            (Kind::Array(items), Kind::Array(more)) if matches!(&*entry.key, "listener" | "route") => {
                items.extend(more)
            }
            (Kind::Table(table), Kind::Table(more))
                if matches!(&*entry.key, "client" | "profile_pack" | "provider" | "secret_source") =>
            {
                add(table, more, &entry.key, report);
            }
            (
                Kind::Array(_)
                | Kind::Boolean(_)
                | Kind::Float(_)
                | Kind::Integer(_)
                | Kind::String(_)
                | Kind::Table(_),
                _,
            ) => {
                let title = format!("`{}` stands in `{}` already", entry.key, known.value.source.name);
                position.error(report, title, "keep one of them");
            }
        }
    }
}

/// Adds named tables; a name that exists already is a mistake.
fn add(table: &mut Table, more: Table, key: &str, report: &Diagnostics) {
    for named in more.entries {
        match table.entries.iter().find(|known| known.key == named.key) {
            None => table.entries.push(named),
            Some(known) => {
                let title = format!("[{key}.{}] stands in `{}` already", named.key, known.value.source.name);
                let position = Position::new(&named.value.source, named.key_span.clone());
                position.error(report, title, "keep one of them, or give one another name");
            }
        }
    }
}
