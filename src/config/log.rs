//! `[log]`: format, level and destination of the logs.

use std::path::PathBuf;

use tracing_subscriber::EnvFilter;

use crate::syntax::Fields;

use super::reader::Reader;
use super::schema::{MAY, SchemaSection, SchemaShape};
use super::spanned_text::{SpannedText, choice};

/// Settings of the `[log]` section.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LogConfig {
    /// JSON or text; absent: text on a terminal, JSON otherwise.
    pub format: Option<LogFormat>,
    /// A `tracing` filter: `info`, `debug`, …
    pub level: String,
    /// Destination of the access log lines.
    pub access: AccessLogTarget,
}

impl LogConfig {
    /// The words for levels, from few lines to many.
    pub const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

    /// Returns whether a text is a level, or a filter that has one.
    pub fn is_level(text: &str) -> bool {
        // A lone word that is no level would be taken for the name of a module, and switch everything else off.
        let plain = Self::LEVELS.contains(&text.to_ascii_lowercase().as_str()) || text.contains('=');
        plain && EnvFilter::try_new(text).is_ok()
    }
}

/// What a command line says in place of `[log]`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct LogOverride {
    pub format: Option<LogFormat>,
    /// A level for which [`LogConfig::is_level`] holds.
    pub level: Option<String>,
}

/// The format of log lines.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// Text for people, not for programs.
    Text,
}

/// The destination of access log lines.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum AccessLogTarget {
    /// A file to which the lines are appended.
    File(PathBuf),
    /// No destination: access lines are not written.
    Off,
    /// Standard error, as for the log itself.
    Stderr,
}

pub(super) const KEYS: SchemaSection = (
    "log",
    &[
        ("access", SchemaShape::Text, MAY, "where access lines go: stderr, off, or a path"),
        ("format", SchemaShape::Choice(&["json", "text"]), MAY, "default: text on a terminal, else JSON"),
        ("level", SchemaShape::Level, MAY, "info, or a filter"),
    ],
);

/// Reads `[log]`; the defaults are level `info` and access lines to standard error.
pub(super) fn read(root: &Fields<'_>, reader: &Reader<'_>) -> LogConfig {
    let mut log = LogConfig { format: None, level: "info".to_owned(), access: AccessLogTarget::Stderr };
    let Some(node) = root.take("log") else { return log };
    let fields = Fields::new(node, "[log]", reader.report);
    log.format = choice(&fields, "format", &[("json", LogFormat::Json), ("text", LogFormat::Text)]);
    if let Some(word) = fields.opt::<SpannedText>("level") {
        if LogConfig::is_level(&word.text) {
            log.level = word.text;
        } else {
            let help = format!("write one of {}", LogConfig::LEVELS.join(", "));
            word.place.error(reader.report, format!("`{}` is not a log level", word.text), help);
        }
    }
    match fields.opt::<SpannedText>("access") {
        None => {}
        Some(word) => match word.text.as_str() {
            "off" => log.access = AccessLogTarget::Off,
            "stderr" => {}
            "" | "stdout" => {
                let help = "write `\"stderr\"`, `\"off\"` or the path of a file";
                word.place.error(reader.report, "access lines cannot go there", help);
            }
            path => {
                let path = reader.resolve(path);
                reader.demand_appendable("access lines", &path, &word.place);
                log.access = AccessLogTarget::File(path);
            }
        },
    }
    fields.finish();
    log
}
