//! The process's own log, through `tracing`: text for people, JSON for machines, always to standard error; with
//! priorities where that is the journal.

use std::fmt::{Display, Formatter, Result as FmtResult};
use std::io::IsTerminal;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use thiserror::Error;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::prelude::*;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

use super::journal::{self, JournalLines};
use super::log_line::{JsonLines, LineTime};
use super::log_queue::{LogQueue, LogQueueLayer};

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
    let registry = tracing_subscriber::registry().with(filter).with(LogQueueLayer(LogQueue::of_process()));
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

/// Sets the log level from now on. Does nothing if logging was not started, but the level must be one.
fn set_level(level: &str) -> Result<(), LogLevelError> {
    let filter = filter(level)?;
    match FILTER.get() {
        Some(handle) => Ok(handle.reload(filter)?),
        None => Ok(()),
    }
}

/// A level that may be set while the process runs: `error`, `warn`, `info`, `debug` or `trace`, or such levels of single
/// modules of countersign, as in `countersign::control=debug,countersign=info`. Other crates are left out: their message
/// heads hold credentials.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LogLevel(String);

impl LogLevel {
    /// The levels without a module, from the quietest.
    pub const WORDS: [&'static str; 5] = ["error", "warn", "info", "debug", "trace"];
    /// Length in bytes of the longest text that is read.
    const LONGEST: usize = 256;

    /// Parses a level. `None`: it is none of the permitted ones.
    pub fn parse(text: &str) -> Option<Self> {
        let is_module = |name: &str| {
            name.split("::").all(|part| {
                !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
            })
        };
        let is_own = |directive: &str| {
            directive.split_once('=').is_some_and(|(name, level)| {
                (name == "countersign" || name.starts_with("countersign::"))
                    && is_module(name)
                    && Self::WORDS.contains(&level)
            })
        };
        let known = Self::WORDS.contains(&text) || (text.len() <= Self::LONGEST && text.split(',').all(is_own));
        known.then(|| Self(text.to_owned()))
    }

    /// The text, as a filter of `tracing`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Display for LogLevel {
    fn fmt(&self, f: &mut Formatter<'_>) -> FmtResult {
        f.write_str(&self.0)
    }
}

/// A level that an operator has set for a while.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TemporaryLevel {
    /// The level that is in force meanwhile.
    pub level: LogLevel,
    /// End of its time, in milliseconds since 1970.
    pub until: u64,
    /// The operator: `admin`, or `admin:` and the name of a token.
    pub by: Arc<str>,
}

/// The level of the log: that of the config, and a temporary one that goes before it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LogLevels(Arc<Mutex<LevelState>>);

#[derive(Debug)]
struct LevelState {
    configured: String,
    temporary: Option<TemporaryLevel>,
    /// Counts the temporary levels, so that the end of one does not end the next.
    serial: u64,
}

impl LogLevels {
    /// Begins with the level of the config, which is in force already.
    pub fn new(configured: &str) -> Self {
        Self(Arc::new(Mutex::new(LevelState { configured: configured.to_owned(), temporary: None, serial: 0 })))
    }

    /// Returns the level of the config.
    pub fn configured(&self) -> String {
        self.state().configured.clone()
    }

    /// Returns the temporary level, if one is in force.
    pub fn temporary(&self) -> Option<TemporaryLevel> {
        self.state().temporary.clone()
    }

    /// Takes the level of a new config. It is in force at once, unless there is a temporary one: then after that.
    pub fn configure(&self, level: &str) -> Result<(), LogLevelError> {
        let mut state = self.state();
        match &state.temporary {
            None => set_level(level)?,
            Some(_) => drop(filter(level)?),
        }
        level.clone_into(&mut state.configured);
        Ok(())
    }

    /// Puts a temporary level in force, in place of an earlier one. Returns its number, by which
    /// [`restore`](Self::restore) ends it.
    pub fn set(&self, temporary: TemporaryLevel) -> Result<u64, LogLevelError> {
        let mut state = self.state();
        set_level(temporary.level.as_str())?;
        state.serial += 1;
        state.temporary = Some(temporary);
        Ok(state.serial)
    }

    /// Goes back to the level of the config. With a number, only if the temporary level of this number is still in
    /// force. Returns the level that is in force from now on; `None`: nothing was changed.
    pub fn restore(&self, serial: Option<u64>) -> Result<Option<String>, LogLevelError> {
        let mut state = self.state();
        if state.temporary.is_none() || serial.is_some_and(|serial| serial != state.serial) {
            return Ok(None);
        }
        set_level(&state.configured)?;
        state.temporary = None;
        Ok(Some(state.configured.clone()))
    }

    fn state(&self) -> MutexGuard<'_, LevelState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn temporary(level: &str) -> TemporaryLevel {
        TemporaryLevel { level: LogLevel::parse(level).unwrap(), until: 9000, by: "admin".into() }
    }

    #[test]
    fn a_level_concerns_this_program_alone() {
        for level in
            ["error", "debug", "trace", "countersign=debug", "countersign::control::keeper=trace,countersign=warn"]
        {
            assert_eq!(LogLevel::parse(level).unwrap().as_str(), level);
        }
        let long = vec!["countersign=debug"; 100].join(",");
        for none in [
            "",
            "off",
            "loud",
            "DEBUG",
            "debug,info",
            "hyper=trace",
            "countersign=debug,h2=trace",
            "countersigns=debug",
            "countersign::=debug",
            "countersign[{token=x}]=debug",
            "countersign",
            &long,
        ] {
            assert_eq!(LogLevel::parse(none), None, "{none}");
        }
    }

    #[test]
    fn a_temporary_level_goes_before_the_configured_one_until_it_ends() {
        let levels = LogLevels::new("info");
        assert_eq!((levels.configured().as_str(), levels.temporary()), ("info", None));
        assert_eq!(levels.restore(None).unwrap(), None, "there is none");
        let first = levels.set(temporary("debug")).unwrap();
        levels.configure("warn").unwrap();
        assert_eq!(levels.temporary(), Some(temporary("debug")), "a reload does not end it");
        assert!(levels.configure("a=b=c").is_err());
        let second = levels.set(temporary("trace")).unwrap();
        assert_eq!(levels.restore(Some(first)).unwrap(), None, "the end of the first is not that of the second");
        assert_eq!(levels.temporary(), Some(temporary("trace")));
        assert_eq!(levels.restore(Some(second)).unwrap().as_deref(), Some("warn"));
        assert_eq!((levels.configured().as_str(), levels.temporary()), ("warn", None));
        levels.set(temporary("debug")).unwrap();
        assert_eq!(levels.restore(None).unwrap().as_deref(), Some("warn"));
    }
}
