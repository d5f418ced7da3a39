//! The small values that a profile is written in: header names, statuses, JSON pointers, patterns, choices.

use http::{HeaderName, Method};
use regex::Regex;

use crate::syntax::{Diagnostics, FromNode, Kind, Node, TableEntry, suggest};

/// One value where a list may stand: `"/a"` is `["/a"]`.
#[derive(Clone, Debug, Default)]
pub(super) struct OneOrManyValues<T>(pub Vec<T>);

impl<T: FromNode> FromNode for OneOrManyValues<T> {
    fn from_node(node: &Node, report: &Diagnostics) -> Option<Self> {
        match &node.kind {
            Kind::Array(_) => Vec::from_node(node, report).map(Self),
            Kind::Boolean(_) | Kind::Float(_) | Kind::Integer(_) | Kind::String(_) | Kind::Table(_) => {
                T::from_node(node, report).map(|one| Self(vec![one]))
            }
        }
    }
}

/// A JSON pointer (RFC 6901): empty, or `/…`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Pointer(pub String);

impl FromNode for Pointer {
    fn from_node(node: &Node, report: &Diagnostics) -> Option<Self> {
        let text = String::from_node(node, report)?;
        if text.is_empty() || text.starts_with('/') {
            return Some(Self(text));
        }
        let help = format!("write `\"/{}\"`", text.replace('.', "/"));
        node.error(report, "a JSON pointer starts with `/`", "not a JSON pointer", Some(help));
        None
    }
}

/// An HTTP status that is written as a number.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct StatusNumber(pub u16);

impl FromNode for StatusNumber {
    fn from_node(node: &Node, report: &Diagnostics) -> Option<Self> {
        let read = match &node.kind {
            Kind::Integer(number) => u16::try_from(*number).ok().filter(|number| (200..=599).contains(number)),
            Kind::Array(_) | Kind::Boolean(_) | Kind::Float(_) | Kind::String(_) | Kind::Table(_) => None,
        };
        if read.is_none() {
            node.error(report, "not an HTTP status", "expected a number from 200 to 599", None);
        }
        read.map(Self)
    }
}

/// The name of a header that a profile may set. Framing and connection headers are ours alone.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct FieldName(pub HeaderName);

/// The header fields that belong to the connection or the framing, never to a profile (RFC 9110 sections 7.6.1 and
/// 8.6).
const FRAMING: [&str; 9] =
    ["connection", "content-length", "expect", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"];

impl FieldName {
    /// Reads the key of an entry as a header name.
    pub(super) fn of_key(entry: &TableEntry, report: &Diagnostics) -> Option<Self> {
        Self::check(&entry.key)
            .map_err(|title| report.error(&entry.value.source, entry.key_span.clone(), title, "", None))
            .ok()
    }

    fn check(text: &str) -> Result<Self, String> {
        let name = HeaderName::from_bytes(text.as_bytes()).map_err(|_| format!("{text:?} is not a header name"))?;
        if FRAMING.contains(&name.as_str()) || name.as_str().starts_with("proxy-") {
            return Err(format!("`{name}` belongs to the connection; a profile cannot set it"));
        }
        Ok(Self(name))
    }
}

impl FromNode for FieldName {
    fn from_node(node: &Node, report: &Diagnostics) -> Option<Self> {
        let text = String::from_node(node, report)?;
        Self::check(&text).map_err(|title| node.error(report, title, "", None)).ok()
    }
}

/// A regular expression that the whole value must match.
#[derive(Clone, Debug)]
pub(super) struct WholeMatch {
    /// As it was written, for messages.
    pub(super) text: String,
    regex: Regex,
}

impl WholeMatch {
    /// Returns whether the whole of `value` matches.
    pub(super) fn fits(&self, value: &str) -> bool {
        self.regex.is_match(value)
    }
}

impl FromNode for WholeMatch {
    fn from_node(node: &Node, report: &Diagnostics) -> Option<Self> {
        let text = String::from_node(node, report)?;
        let regex = compile(node, &text, &format!(r"\A(?:{text})\z"), report)?;
        Some(Self { text, regex })
    }
}

/// A regular expression that is looked for anywhere in a value.
#[derive(Clone, Debug)]
pub(super) struct Anywhere(pub Regex);

impl FromNode for Anywhere {
    fn from_node(node: &Node, report: &Diagnostics) -> Option<Self> {
        let text = String::from_node(node, report)?;
        compile(node, &text, &text, report).map(Self)
    }
}

/// `bare` is compiled first, so that a stray parenthesis cannot escape from the group around it.
fn compile(node: &Node, bare: &str, wrapped: &str, report: &Diagnostics) -> Option<Regex> {
    match Regex::new(bare).and_then(|_| Regex::new(wrapped)) {
        Ok(regex) => Some(regex),
        Err(error) => {
            let last = error.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
            let help = "the syntax is that of the Rust crate `regex`: no look-around, no back-references";
            node.error(report, "not a regular expression", last, Some(help.to_owned()));
            None
        }
    }
}

/// Reads a request method: DELETE, GET, POST or PUT.
pub(super) fn method(node: &Node, report: &Diagnostics) -> Option<Method> {
    choice(
        node,
        report,
        &[("DELETE", Method::DELETE), ("GET", Method::GET), ("POST", Method::POST), ("PUT", Method::PUT)],
    )
}

/// One of a few words.
pub(super) fn choice<T: Clone>(node: &Node, report: &Diagnostics, words: &[(&str, T)]) -> Option<T> {
    let text = String::from_node(node, report)?;
    let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| value.clone());
    if found.is_none() {
        let help = match suggest(&text, words.iter().map(|(word, _)| *word)) {
            Some(near) => format!("did you mean `\"{near}\"`?"),
            None => {
                let all: Vec<String> = words.iter().map(|(word, _)| format!("`\"{word}\"`")).collect();
                format!("write one of {}", all.join(", "))
            }
        };
        node.error(report, format!("`{text}` is not known here"), "unknown word", Some(help));
    }
    found
}
