//! The process's own log, through `tracing`: text for people, JSON for machines, always to standard error.

use std::io::IsTerminal;
use std::sync::OnceLock;

use tracing_subscriber::prelude::*;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

/// The filter of this process, once logging has started.
static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// Whether lines should be text: as asked, else text on a terminal and JSON otherwise.
pub fn is_text(asked: Option<bool>) -> bool {
    asked.unwrap_or_else(|| std::io::stderr().is_terminal())
}

/// Starts logging for the process. A second start changes nothing.
///
/// The third-party crates below us log message heads at `debug` and `trace`, and those hold credentials: they are kept
/// at `info` whatever `level` says.
pub fn start_logging(level: &str, text: bool) -> Result<(), String> {
    let (filter, handle) = reload::Layer::new(filter(level)?);
    let registry = tracing_subscriber::registry().with(filter);
    let started = if text {
        let layer = fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
        registry.with(layer.with_target(false)).try_init()
    } else {
        registry.with(fmt::layer().json().flatten_event(true).with_writer(std::io::stderr)).try_init()
    };
    if started.is_ok() {
        let _ = FILTER.set(handle);
    }
    Ok(())
}

/// From now on this level counts. Nothing happens where nobody logs.
pub fn set_level(level: &str) -> Result<(), String> {
    match FILTER.get() {
        Some(handle) => handle.reload(filter(level)?).map_err(|error| format!("log level: {error}")),
        None => Ok(()),
    }
}

fn filter(level: &str) -> Result<EnvFilter, String> {
    let filter = EnvFilter::try_new(level).map_err(|error| format!("log level: {error}"))?;
    let quiet = ["hyper=info", "hyper_util=info", "h2=info", "rustls=info", "tokio_rustls=info"];
    let mut filter = filter;
    for directive in quiet {
        filter = filter.add_directive(directive.parse().map_err(|_| "log level".to_owned())?);
    }
    Ok(filter)
}
