//! Taking a table apart, key by key, and complaining about what is left.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::Arc;

use super::diagnostic::{Diagnostics, SourceText};
use super::node::{Kind, Node, Table, TableEntry};
use super::suggest;

/// A type that can be read from one value. A failed reading reports the reason and returns `None`.
pub trait FromNode: Sized {
    /// Reads the value, or reports the mistake and returns `None`.
    fn from_node(node: &Node, report: &Diagnostics) -> Option<Self>;
}

/// A table being read. Each `take`n key is known; [`Fields::finish`] reports all others as mistakes.
///
/// Dropping it without `finish` silently accepts unknown keys: do not.
#[must_use = "call `finish`, or unknown keys go unnoticed"]
pub struct Fields<'a> {
    node: &'a Node,
    table: &'a Table,
    /// The name of this table in messages: `[[route]]`, `[provider.scb]`.
    what: String,
    known: RefCell<Vec<String>>,
    missing: RefCell<Vec<MissingKey>>,
    report: &'a Diagnostics,
}

/// A mistake that was reported because keys are missing.
struct MissingKey {
    /// Any of these would do.
    keys: Vec<String>,
    span: Range<usize>,
    title: String,
}

static EMPTY: Table = Table { entries: Vec::new() };

impl<'a> Fields<'a> {
    /// Starts reading `node` as a table; reports when it is none (and then reads an empty one).
    pub fn new(node: &'a Node, what: impl Into<String>, report: &'a Diagnostics) -> Self {
        let what = what.into();
        let table = node.as_table().unwrap_or_else(|| {
            node.error(report, format!("{what} must be a table, not {}", node.kind_name()), "", None);
            &EMPTY
        });
        Self { node, table, what, known: RefCell::default(), missing: RefCell::default(), report }
    }

    /// The value of `key`, if it is there. Counts as known from now on.
    pub fn take(&self, key: &str) -> Option<&'a Node> {
        self.take_entry(key).map(|entry| &entry.value)
    }

    /// The entry of `key`, if it is there. Counts as known from now on.
    pub fn take_entry(&self, key: &str) -> Option<&'a TableEntry> {
        self.known.borrow_mut().push(key.to_owned());
        self.table.find(key)
    }

    /// An optional value. `None` also when it could not be read, which was then reported.
    pub fn opt<T: FromNode>(&self, key: &str) -> Option<T> {
        T::from_node(self.take(key)?, self.report)
    }

    /// A value with a default for its absence.
    pub fn or<T: FromNode>(&self, key: &str, default: T) -> T {
        self.opt(key).unwrap_or(default)
    }

    /// A value that must be there; `example` says what to write.
    pub fn req<T: FromNode>(&self, key: &str, example: &str) -> Option<T> {
        match self.take(key) {
            Some(node) => T::from_node(node, self.report),
            None => {
                self.missing(key, example);
                None
            }
        }
    }

    /// Reports that `key` is missing.
    pub fn missing(&self, key: &str, example: &str) {
        self.missing_one_of(&[key], example);
    }

    /// Reports that the first of these keys is missing, where any of them would do.
    pub fn missing_one_of(&self, keys: &[&str], example: &str) {
        let key = keys.first().copied().unwrap_or_default();
        let title = format!("{} has no `{key}`", self.what);
        let label = format!("`{key}` is missing here");
        self.lacks(keys, self.head(), (title, label, format!("add `{key} = {example}`")));
    }

    /// Reports a mistake of this table that any of `keys` would mend. If one of them is there, but misspelt, `finish` takes
    /// it back: the misspelt key is the one mistake. `text` is title, label and help.
    pub fn lacks(&self, keys: &[&str], span: Range<usize>, text: (String, String, String)) {
        let (title, label, help) = text;
        let keys = keys.iter().map(|key| (*key).to_owned()).collect();
        self.missing.borrow_mut().push(MissingKey { keys, span: span.clone(), title: title.clone() });
        self.error(span, title, label, Some(help));
    }

    /// Returns whether a key that nobody has taken is likely meant to be `key`.
    pub fn is_misspelt(&self, key: &str) -> bool {
        let known = self.known.borrow();
        let nearest = |entry: &TableEntry| suggest(&entry.key, known.iter().map(String::as_str)) == Some(key);
        self.unknown(&known).any(nearest)
    }

    /// Returns whether there are keys that nobody has taken.
    pub fn has_unknown(&self) -> bool {
        self.unknown(&self.known.borrow()).next().is_some()
    }

    fn unknown(&self, known: &[String]) -> impl Iterator<Item = &'a TableEntry> {
        self.table.entries.iter().filter(|entry| !known.contains(&entry.key))
    }

    /// Reports an error about `span` in this table's file.
    pub fn error(&self, span: Range<usize>, title: impl Into<String>, label: impl Into<String>, help: Option<String>) {
        self.report.error(&self.node.source, span, title, label, help);
    }

    /// The report that mistakes go to.
    pub const fn report(&self) -> &'a Diagnostics {
        self.report
    }

    /// Returns the value that was read as a table, even if it is none.
    pub const fn node(&self) -> &'a Node {
        self.node
    }

    /// The text this table stands in.
    pub const fn source(&self) -> &'a Arc<SourceText> {
        &self.node.source
    }

    /// Returns the name of this table in messages.
    pub fn what(&self) -> &str {
        &self.what
    }

    /// All entries that no key was taken for, in the order of the file. They count as known from now on.
    pub fn rest(&self) -> Vec<&'a TableEntry> {
        let mut known = self.known.borrow_mut();
        let rest: Vec<&TableEntry> = self.unknown(&known).collect();
        known.extend(rest.iter().map(|entry| entry.key.clone()));
        rest
    }

    /// Accepts all entries that no key was taken for, but for what is likely a missing key, misspelt: the names of the
    /// others are unknown.
    pub fn accept_rest(&self) {
        let meant = |entry: &&TableEntry| {
            let missing = self.missing.borrow();
            let keys = missing.iter().flat_map(|missing| missing.keys.iter().map(String::as_str));
            suggest(&entry.key, keys).is_none()
        };
        let mut known = self.known.borrow_mut();
        let rest: Vec<String> = self.unknown(&known).filter(meant).map(|entry| entry.key.clone()).collect();
        known.extend(rest);
    }

    /// Reports every key that was never taken, with the nearest known one.
    pub fn finish(self) {
        let known = self.known.borrow();
        for entry in self.unknown(&known) {
            let near = suggest(&entry.key, known.iter().map(String::as_str));
            let help = match near {
                Some(near) => {
                    self.report.note_misspelt(near);
                    let missing = self.missing.borrow();
                    for missing in missing.iter().filter(|missing| missing.keys.iter().any(|key| key == near)) {
                        // The misspelt key is the missing one: one mistake.
                        self.report.withdraw(&self.node.source, &missing.span, &missing.title);
                    }
                    format!("did you mean `{near}`?")
                }
                None => {
                    let mut names: Vec<&str> = known.iter().map(String::as_str).collect();
                    names.sort_unstable();
                    names.dedup();
                    format!("known here: {}", names.join(", "))
                }
            };
            let title = format!("unknown key `{}` in {}", entry.key, self.what);
            // Not this table's own text: a table may be put together from several.
            self.report.error(&entry.value.source, entry.key_span.clone(), title, "unknown key", Some(help));
        }
    }

    /// The first line of the table, where messages about absent keys point.
    fn head(&self) -> Range<usize> {
        let text = &self.node.source.text;
        let start = self.node.span.start.min(text.len());
        let end = text[start..].find('\n').map_or(text.len(), |at| start + at);
        start..end.min(self.node.span.end.max(start))
    }
}

fn mismatch<T>(node: &Node, report: &Diagnostics, expected: &str) -> Option<T> {
    node.error(
        report,
        format!("expected {expected}, found {}", node.kind_name()),
        format!("expected {expected}"),
        None,
    );
    None
}

impl FromNode for String {
    fn from_node(node: &Node, report: &Diagnostics) -> Option<Self> {
        match &node.kind {
            Kind::String(text) => Some(text.clone()),
            Kind::Array(_) | Kind::Boolean(_) | Kind::Float(_) | Kind::Integer(_) | Kind::Table(_) => {
                mismatch(node, report, "a string")
            }
        }
    }
}

impl FromNode for bool {
    fn from_node(node: &Node, report: &Diagnostics) -> Option<Self> {
        match &node.kind {
            Kind::Boolean(yes) => Some(*yes),
            Kind::Array(_) | Kind::Float(_) | Kind::Integer(_) | Kind::String(_) | Kind::Table(_) => {
                mismatch(node, report, "true or false")
            }
        }
    }
}

impl FromNode for u64 {
    fn from_node(node: &Node, report: &Diagnostics) -> Option<Self> {
        match &node.kind {
            Kind::Integer(number) if *number >= 0 => Some(number.unsigned_abs()),
            Kind::Integer(number) => {
                let title = format!("expected a whole number, zero or more, found {number}");
                node.error(report, title, "expected a whole number, zero or more", None);
                None
            }
            Kind::Array(_) | Kind::Boolean(_) | Kind::Float(_) | Kind::String(_) | Kind::Table(_) => {
                mismatch(node, report, "a whole number, zero or more")
            }
        }
    }
}

impl FromNode for usize {
    fn from_node(node: &Node, report: &Diagnostics) -> Option<Self> {
        u64::from_node(node, report).map(|number| usize::try_from(number).unwrap_or(usize::MAX))
    }
}

impl<T: FromNode> FromNode for Vec<T> {
    fn from_node(node: &Node, report: &Diagnostics) -> Option<Self> {
        match &node.kind {
            Kind::Array(items) => {
                let read: Vec<Option<T>> = items.iter().map(|item| T::from_node(item, report)).collect();
                read.into_iter().collect()
            }
            Kind::Boolean(_) | Kind::Float(_) | Kind::Integer(_) | Kind::String(_) | Kind::Table(_) => {
                mismatch(node, report, "an array")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mistake_is_found_in_one_reading() {
        let source = SourceText::new("proxy.toml", "bind = 7\ntimout = \"1s\"\nname = \"a\"\n");
        let report = Diagnostics::new();
        let node = Node::parse(&source, &report);
        let fields = Fields::new(&node, "[[listener]]", &report);
        assert_eq!(fields.opt::<String>("bind"), None);
        assert_eq!(fields.opt::<String>("name").as_deref(), Some("a"));
        assert_eq!(fields.opt::<String>("timeout"), None);
        assert_eq!(fields.req::<String>("mode", "\"reverse\""), None);
        fields.finish();
        let lines: Vec<String> = report.into_diagnostics().iter().map(super::super::Diagnostic::one_line).collect();
        assert_eq!(
            lines,
            [
                "proxy.toml:1:1: error: [[listener]] has no `mode`; add `mode = \"reverse\"`",
                "proxy.toml:1:8: error: expected a string, found an integer",
                "proxy.toml:2:1: error: unknown key `timout` in [[listener]]; did you mean `timeout`?",
            ]
        );
    }

    #[test]
    fn a_rendered_mistake_shows_file_line_and_caret() {
        let source = SourceText::new("proxy.toml", "# comment\ntimout = \"1s\"\n");
        let report = Diagnostics::new();
        let node = Node::parse(&source, &report);
        let fields = Fields::new(&node, "the file", &report);
        let _ = fields.opt::<String>("timeout");
        fields.finish();
        let text = report.into_diagnostics()[0].render(false);
        assert!(text.contains("proxy.toml:2:1"), "{text}");
        assert!(text.contains("^^^^^^"), "{text}");
        assert!(text.contains("did you mean `timeout`?"), "{text}");
    }

    #[test]
    fn a_misspelt_key_that_is_required_is_one_mistake() {
        let source = SourceText::new("proxy.toml", "base_ulr = \"https://bank\"\n");
        let report = Diagnostics::new();
        let node = Node::parse(&source, &report);
        let fields = Fields::new(&node, "[provider.a]", &report);
        assert_eq!(fields.req::<String>("base_url", "\"…\""), None);
        assert_eq!(fields.req::<String>("profile", "\"scb\""), None);
        fields.finish();
        let titles: Vec<String> = report.into_diagnostics().into_iter().map(|found| found.title).collect();
        assert_eq!(titles, ["[provider.a] has no `profile`", "unknown key `base_ulr` in [provider.a]"]);
    }

    #[test]
    fn syntax_errors_are_all_reported() {
        let source = SourceText::new("proxy.toml", "a = = 1\nb = \"ok\"\nc = , 1\n");
        let report = Diagnostics::new();
        let _ = Node::parse(&source, &report);
        assert!(report.errors() >= 2);
    }
}
