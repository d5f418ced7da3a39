//! Values with their place, so that a mistake found late still points at the right word.

use std::ops::Range;
use std::sync::Arc;

use crate::syntax::{Diagnostics, Fields, FromNode, Kind, Node, SourceText, suggest};

use super::redact::{redacted, secret_parts, string_at, url_credentials};

/// A span of a source text, for messages.
#[derive(Clone, Debug)]
pub(super) struct Position {
    source: Arc<SourceText>,
    span: Range<usize>,
}

impl Position {
    pub(super) fn new(source: &Arc<SourceText>, span: Range<usize>) -> Self {
        Self { source: source.clone(), span }
    }

    pub(super) fn of(node: &Node) -> Self {
        Self::new(&node.source, node.span.clone())
    }

    /// The first line of a table, which a message about the whole of it points at.
    pub(super) fn head(node: &Node) -> Self {
        let start = node.span.start.min(node.source.text.len());
        let line = node.source.text.get(start..node.span.end).and_then(|text| text.lines().next());
        Self::new(&node.source, start..start + line.map_or(0, str::len))
    }

    pub(super) fn text(&self) -> &str {
        self.source.text.get(self.span.clone()).unwrap_or_default()
    }

    /// The same place in a text where stars stand in it: for a value that may be secret.
    pub(super) fn redacted(&self) -> Self {
        let (mut secret, end) = secret_parts(&self.source.text, self.span.start, "");
        // Whatever is no value is secret as a whole.
        secret.extend((end < self.span.end).then_some(end..self.span.end));
        self.with_stars(secret)
    }

    /// The same place, with stars for the credentials and the query of the URL there.
    pub(super) fn without_credentials(&self) -> Self {
        let (content, _) = string_at(&self.source.text, self.span.start);
        let url = self.source.text.get(content.clone()).unwrap_or_default();
        let shift = |span: Range<usize>| content.start + span.start..content.start + span.end;
        self.with_stars(url_credentials(url).into_iter().map(shift))
    }

    fn with_stars(&self, secret: impl IntoIterator<Item = Range<usize>>) -> Self {
        Self { source: redacted(&self.source, secret), span: self.span.clone() }
    }

    pub(super) fn error(&self, report: &Diagnostics, title: impl Into<String>, help: impl Into<String>) {
        report.error(&self.source, self.span.clone(), title, "", Some(help.into()));
    }

    pub(super) fn warning(&self, report: &Diagnostics, title: impl Into<String>, help: impl Into<String>) {
        report.warning(&self.source, self.span.clone(), title, "", Some(help.into()));
    }
}

/// A string with its place.
#[derive(Clone, Debug)]
pub(super) struct SpannedText {
    pub(super) text: String,
    pub(super) place: Position,
}

impl FromNode for SpannedText {
    fn from_node(node: &Node, report: &Diagnostics) -> Option<Self> {
        Some(Self { text: String::from_node(node, report)?, place: Position::of(node) })
    }
}

impl SpannedText {
    /// The position of this name among `names`; reports an unknown one with the nearest that exists.
    pub(super) fn find<'a>(
        &self,
        what: &str,
        names: impl Iterator<Item = &'a str> + Clone,
        report: &Diagnostics,
    ) -> Option<usize> {
        let found = names.clone().position(|name| name == self.text);
        if found.is_none() {
            let help = match suggest(&self.text, names.clone()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => match names.collect::<Vec<_>>() {
                    known if known.is_empty() => format!("this file has no {what} at all"),
                    known => format!("there are: {}", known.join(", ")),
                },
            };
            self.place.error(report, format!("there is no {what} called `{}`", self.text), help);
        }
        found
    }

    /// Reports a name that logs, metrics or Basic credentials could not carry.
    pub(super) fn judge_name(&self, report: &Diagnostics) {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if self.text.is_empty() || self.text.len() > 64 || !self.text.bytes().all(plain) {
            let help = "names are 1 to 64 letters, digits, `-`, `_` and `.`";
            self.place.error(report, format!("`{}` cannot be a name", self.text), help);
        }
    }
}

/// The clients that are permitted: `"anyone"`, or a list of clients.
#[derive(Clone, Debug)]
pub(super) enum PermittedClients {
    Anyone(Position),
    Listed(Vec<SpannedText>),
}

impl FromNode for PermittedClients {
    fn from_node(node: &Node, report: &Diagnostics) -> Option<Self> {
        let position = Position::of(node);
        match &node.kind {
            Kind::String(text) if text == "anyone" => Some(PermittedClients::Anyone(position)),
            Kind::String(text) => {
                position.error(report, "expected a list of clients", format!("write `[\"{text}\"]`, or `\"anyone\"`"));
                None
            }
            Kind::Array(items) if items.is_empty() => {
                position.error(report, "an empty list lets nobody in", "name some clients, or write `\"anyone\"`");
                None
            }
            Kind::Array(_) => Some(PermittedClients::Listed(Vec::from_node(node, report)?)),
            Kind::Boolean(_) | Kind::Float(_) | Kind::Integer(_) | Kind::Table(_) => {
                position.error(report, "expected a list of clients", "write `[\"erp\"]`, or `\"anyone\"`");
                None
            }
        }
    }
}

/// A word out of a closed list; reports any other.
pub(super) fn choice<T: Copy>(fields: &Fields<'_>, key: &str, choices: &[(&str, T)]) -> Option<T> {
    let word = fields.opt::<SpannedText>(key)?;
    let found = choices.iter().find(|(name, _)| *name == word.text).map(|(_, value)| *value);
    if found.is_none() {
        let names: Vec<String> = choices.iter().map(|(name, _)| format!("`\"{name}\"`")).collect();
        let help = match (suggest(&word.text, choices.iter().map(|(name, _)| *name)), names.as_slice()) {
            (Some(near), _) => format!("did you mean `{near}`?"),
            (None, [only]) => format!("write {only}: this version has nothing else"),
            (None, _) => format!("write {}", names.join(" or ")),
        };
        word.place.error(fields.report(), format!("`{key}` cannot be `{}`", word.text), help);
    }
    found
}
