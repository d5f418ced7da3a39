//! The process's own log, through `tracing`: text for people, JSON for machines, always to standard error; with
//! priorities where that is the journal.

use std::io::IsTerminal;
use std::sync::OnceLock;

use thiserror::Error;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::prelude::*;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

use super::journal::{self, JournalLines};
use super::log_line::{JsonLines, LineTime};

/// The filter of this process, once logging has started.
static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// The reason for which a log level is not in force.
#[derive(Debug, Error)]
pub enum LogLevelError {
    #[error("log level: {0}")]
    Malformed(#[from] ParseError),
    #[error("log level: {0}")]
    Reload(#[from] reload::Error),
}

/// Returns whether lines are written as text: as requested, otherwise as text on a terminal and as JSON elsewhere.
pub fn is_text(asked: Option<bool>) -> bool {
    asked.unwrap_or_else(|| std::io::stderr().is_terminal())
}

/// Starts logging for the process. A second start changes nothing.
///
/// The HTTP and TLS crates log message heads at `debug` and `trace`, and those hold credentials: these crates are kept
/// at `info` regardless of `level`.
pub fn start_logging(level: &str, text: bool) -> Result<(), LogLevelError> {
    let (filter, handle) = reload::Layer::new(filter(level)?);
    let registry = tracing_subscriber::registry().with(filter);
    let journal = journal::stderr_is_journal();
    let started = if text {
        let format = fmt::format().with_target(false).with_timer(LineTime);
        let layer = fmt::layer().event_format(JournalLines::new(format, journal)).with_writer(std::io::stderr);
        registry.with(layer.with_ansi(std::io::stderr().is_terminal())).try_init()
    } else {
        let format = JournalLines::new(JsonLines, journal);
        registry.with(fmt::layer().event_format(format).with_writer(std::io::stderr)).try_init()
    };
    if started.is_ok() {
        let _ = FILTER.set(handle);
    }
    Ok(())
}

/// Sets the log level from now on. Does nothing if logging was not started.
pub fn set_level(level: &str) -> Result<(), LogLevelError> {
    match FILTER.get() {
        Some(handle) => Ok(handle.reload(filter(level)?)?),
        None => Ok(()),
    }
}

fn filter(level: &str) -> Result<EnvFilter, LogLevelError> {
    let filter = EnvFilter::try_new(level)?;
    let quiet = ["hyper=info", "hyper_util=info", "h2=info", "rustls=info", "tokio_rustls=info"];
    let mut filter = filter;
    for directive in quiet {
        filter = filter.add_directive(directive.parse()?);
    }
    Ok(filter)
}
