//! One mistake, and the list of all of them.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

/// A text with the name under which messages speak of it.
#[derive(Debug)]
pub struct SourceText {
    /// The path as the user wrote it, or `profile scb`.
    pub name: String,
    pub text: String,
}

impl SourceText {
    /// Wraps a text with the name that messages use for it.
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Arc<Self> {
        Arc::new(Self { name: name.into(), text: text.into() })
    }

    /// One-based line and column (in characters) of a byte offset.
    pub fn position(&self, offset: usize) -> (usize, usize) {
        let before = &self.text.as_bytes()[..offset.min(self.text.len())];
        let line = before.iter().filter(|b| **b == b'\n').count() + 1;
        let start = before.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        (line, String::from_utf8_lossy(&before[start..]).chars().count() + 1)
    }
}

/// The severity of a mistake: only an error makes the config unusable.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Severity {
    /// The config cannot be used.
    Error,
    /// It can, but somebody will regret it.
    Warning,
}

/// A mistake: what, where, and what to do about it.
#[derive(Clone, Debug)]
pub struct Diagnostic {
    pub severity: Severity,
    /// The text that it is in.
    pub source: Arc<SourceText>,
    /// The bytes that it is about.
    pub span: Range<usize>,
    /// The mistake, as a sentence without a full stop.
    pub title: String,
    /// A few words beside the caret; may be empty.
    pub label: String,
    /// The advice, as a sentence without a full stop.
    pub help: Option<String>,
}

impl Diagnostic {
    /// The mistake as a person reads it: title, file, line, column, the line itself with a caret, the help.
    pub fn render(&self, color: bool) -> String {
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let len = self.source.text.len();
        let start = self.span.start.min(len);
        let span = start..self.span.end.clamp(start, len);
        let mut snippet = Snippet::source(&self.source.text).path(&self.source.name);
        let annotation = AnnotationKind::Primary.span(span);
        snippet = snippet.annotation(if self.label.is_empty() { annotation } else { annotation.label(&self.label) });
        let mut group = level.primary_title(&self.title).element(snippet);
        if let Some(help) = &self.help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        renderer.render(&[group])
    }

    /// `proxy.toml:3:9: error: title; help`, for a log line.
    pub fn one_line(&self) -> String {
        let (line, column) = self.source.position(self.span.start);
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let help = self.help.as_ref().map_or(String::new(), |help| format!("; {help}"));
        format!("{}:{line}:{column}: {severity}: {}{help}", self.source.name, self.title)
    }
}

/// Collects every mistake of one reading.
#[derive(Debug, Default)]
pub struct Diagnostics {
    found: RefCell<Vec<Diagnostic>>,
    /// The keys that unknown ones are likely meant to be.
    misspelt: RefCell<Vec<String>>,
}

impl Diagnostics {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn push(&self, diagnostic: Diagnostic) {
        self.found.borrow_mut().push(diagnostic);
    }

    /// Adds an error about `span`.
    pub fn error(
        &self,
        source: &Arc<SourceText>,
        span: Range<usize>,
        title: impl Into<String>,
        label: impl Into<String>,
        help: Option<String>,
    ) {
        let (source, title, label) = (source.clone(), title.into(), label.into());
        self.push(Diagnostic { severity: Severity::Error, source, span, title, label, help });
    }

    /// Adds a warning about `span`.
    pub fn warning(
        &self,
        source: &Arc<SourceText>,
        span: Range<usize>,
        title: impl Into<String>,
        label: impl Into<String>,
        help: Option<String>,
    ) {
        let (source, title, label) = (source.clone(), title.into(), label.into());
        self.push(Diagnostic { severity: Severity::Warning, source, span, title, label, help });
    }

    /// Takes back the mistakes with this title at this place, because a better one tells the cause.
    pub(super) fn withdraw(&self, source: &Arc<SourceText>, span: &Range<usize>, title: &str) {
        let is_meant =
            |found: &Diagnostic| found.title == title && found.span == *span && Arc::ptr_eq(&found.source, source);
        self.found.borrow_mut().retain(|found| !is_meant(found));
    }

    /// Takes note of an unknown key that is likely meant to be `key`.
    pub(super) fn note_misspelt(&self, key: &str) {
        self.misspelt.borrow_mut().push(key.to_owned());
    }

    /// Returns whether a table has an unknown key that is likely meant to be `key`: what follows from the lack of it need
    /// not be told.
    pub fn has_misspelt(&self, key: &str) -> bool {
        self.misspelt.borrow().iter().any(|misspelt| misspelt == key)
    }

    /// Adds what another reading of the same texts found, but for what is known already.
    pub fn join(&self, other: Diagnostics) {
        for found in other.into_diagnostics() {
            let is_same = |known: &Diagnostic| {
                known.title == found.title && known.source.name == found.source.name && known.span == found.span
            };
            let known = self.found.borrow().iter().any(is_same);
            if !known {
                self.push(found);
            }
        }
    }

    /// Returns the number of errors found so far, without warnings.
    pub fn errors(&self) -> usize {
        self.found.borrow().iter().filter(|d| d.severity == Severity::Error).count()
    }

    /// Everything found, in the order of the files' lines.
    pub fn into_diagnostics(self) -> Vec<Diagnostic> {
        let mut found = self.found.into_inner();
        found.sort_by(|a, b| (&a.source.name, a.span.start).cmp(&(&b.source.name, b.span.start)));
        found
    }
}
