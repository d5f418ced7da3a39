//! An owned TOML tree in which every key and value knows where it stands.

use std::ops::Range;
use std::sync::Arc;

use toml::de::{DeTable, DeValue};

use super::diagnostic::{Diagnostics, SourceText};
use super::malformed::{SyntaxError, report_errors};

/// A value and its place.
#[derive(Clone, Debug)]
pub struct Node {
    /// The text it was read from.
    pub source: Arc<SourceText>,
    /// The bytes it takes there.
    pub span: Range<usize>,
    /// The content of the value, by its type.
    pub kind: Kind,
}

/// The content of a value. A date is reported, and read as a string: no key takes one.
#[derive(Clone, Debug)]
pub enum Kind {
    Array(Vec<Node>),
    Boolean(bool),
    Float(f64),
    /// An integer; one that does not fit into `i64` is reported, and read as the largest.
    Integer(i64),
    /// A string; also a date, as text.
    String(String),
    /// An inline table `{…}`, or one made of `[…]` headers.
    Table(Table),
}

/// A table's entries, in the order of the file.
#[derive(Clone, Debug, Default)]
pub struct Table {
    pub entries: Vec<TableEntry>,
}

/// A key with its value.
#[derive(Clone, Debug)]
pub struct TableEntry {
    /// The decoded key, without its quotes.
    pub key: String,
    /// The byte range of the key in its source text.
    pub key_span: Range<usize>,
    pub value: Node,
}

impl Table {
    /// Returns the entry of `key`, if there is one.
    pub fn find(&self, key: &str) -> Option<&TableEntry> {
        self.entries.iter().find(|entry| entry.key == key)
    }
}

impl Node {
    /// Parses a whole file. All syntax errors go to `report`; what could be read comes back.
    pub fn parse(source: &Arc<SourceText>, report: &Diagnostics) -> Node {
        Self::parse_whole(source, report).0
    }

    /// Parses a whole file as [`Node::parse`] does. The flag says whether the text is well-formed.
    pub fn parse_whole(source: &Arc<SourceText>, report: &Diagnostics) -> (Node, bool) {
        let (table, errors) = DeTable::parse_recoverable(&source.text);
        let errors: Vec<SyntaxError> = errors
            .iter()
            .map(|error| SyntaxError {
                span: error.span().unwrap_or(0..0),
                message: error.message().trim().replace('\n', ", "),
            })
            .collect();
        let well_formed = errors.is_empty();
        if !well_formed {
            report_errors(source, errors, report);
        }
        let span = table.span();
        let kind = Kind::Table(own_table(source, table.into_inner(), report));
        (Node { source: source.clone(), span, kind }, well_formed)
    }

    /// The table, if it is one.
    pub fn as_table(&self) -> Option<&Table> {
        match &self.kind {
            Kind::Table(table) => Some(table),
            Kind::Array(_) | Kind::Boolean(_) | Kind::Float(_) | Kind::Integer(_) | Kind::String(_) => None,
        }
    }

    /// The string, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        match &self.kind {
            Kind::String(text) => Some(text),
            Kind::Array(_) | Kind::Boolean(_) | Kind::Float(_) | Kind::Integer(_) | Kind::Table(_) => None,
        }
    }

    /// Returns the type of the value with its article: `a string`.
    pub fn kind_name(&self) -> &'static str {
        match &self.kind {
            Kind::Array(_) => "an array",
            Kind::Boolean(_) => "a boolean",
            Kind::Float(_) => "a float",
            Kind::Integer(_) => "an integer",
            Kind::String(_) => "a string",
            Kind::Table(_) => "a table",
        }
    }

    /// Reports an error about this value.
    pub fn error(
        &self,
        report: &Diagnostics,
        title: impl Into<String>,
        label: impl Into<String>,
        help: Option<String>,
    ) {
        report.error(&self.source, self.span.clone(), title, label, help);
    }

    /// Reports a warning about this value.
    pub fn warning(
        &self,
        report: &Diagnostics,
        title: impl Into<String>,
        label: impl Into<String>,
        help: Option<String>,
    ) {
        report.warning(&self.source, self.span.clone(), title, label, help);
    }
}

fn own_table(source: &Arc<SourceText>, table: DeTable<'_>, report: &Diagnostics) -> Table {
    let mut entries: Vec<TableEntry> = table
        .into_iter()
        .map(|(key, value)| TableEntry {
            key_span: key.span(),
            key: key.into_inner().into_owned(),
            value: own(source, value.span(), value.into_inner(), report),
        })
        .collect();
    entries.sort_by_key(|entry| entry.key_span.start);
    Table { entries }
}

fn own(source: &Arc<SourceText>, span: Range<usize>, value: DeValue<'_>, report: &Diagnostics) -> Node {
    // Neither message quotes the value: it may be a secret that lacks its quotes.
    let refuse = |title: &str, help: &str| report.error(source, span.clone(), title, "", Some(help.to_owned()));
    let kind = match value {
        DeValue::String(text) => Kind::String(text.into_owned()),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Kind::Integer(number),
            Err(_) => {
                refuse("this number is too large", "9223372036854775807 is the largest; a text stands in quotes");
                Kind::Integer(i64::MAX)
            }
        },
        DeValue::Float(number) => Kind::Float(number.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(yes) => Kind::Boolean(yes),
        DeValue::Datetime(date) => {
            refuse("a date without quotes is no value here", "put it in quotes, which make it a text");
            Kind::String(date.to_string())
        }
        DeValue::Array(items) => {
            Kind::Array(items.into_iter().map(|item| own(source, item.span(), item.into_inner(), report)).collect())
        }
        DeValue::Table(table) => Kind::Table(own_table(source, table, report)),
    };
    Node { source: source.clone(), span, kind }
}
