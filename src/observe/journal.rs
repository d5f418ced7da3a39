//! Priorities of log lines for the journal of systemd.
//!
//! A service manager that connects standard error to its journal says so in `JOURNAL_STREAM` (systemd.exec(5)). The journal
//! then takes a priority off the beginning of each line, `<4>` for a warning (sd-daemon(3)), whatever follows: so lines
//! of JSON have it, too, and are JSON again where they are read.

use std::borrow::Cow;
use std::fmt;
use std::io;

use rustix::fs::fstat;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::registry::LookupSpan;

/// The variable with the device and inode of the stream that is the journal, as in `8:1234`.
const VARIABLE: &str = "JOURNAL_STREAM";

/// Returns whether standard error is the journal.
pub(super) fn stderr_is_journal() -> bool {
    let stream = std::env::var(VARIABLE).unwrap_or_default();
    fstat(io::stderr()).is_ok_and(|stderr| is_stream(&stream, stderr.st_dev, stderr.st_ino))
}

/// Returns whether the value of the variable means this file.
fn is_stream(value: &str, device: u64, inode: u64) -> bool {
    let parts = value.split_once(':').map(|(device, inode)| (device.parse(), inode.parse()));
    parts == Some((Ok(device), Ok(inode)))
}

/// The priority of a level (syslog(3)).
const fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

/// A text with this priority before each line: each is an entry of its own in the journal.
fn behind_priority(level: Level, text: &str) -> String {
    let priority = priority(level);
    text.split_inclusive('\n').map(|line| format!("<{priority}>{line}")).collect()
}

/// A text for standard error outside the log: with priorities if that is the journal, or else as it is.
pub fn for_stderr(level: Level, text: &str) -> Cow<'_, str> {
    if stderr_is_journal() { behind_priority(level, text).into() } else { text.into() }
}

/// Lines of another format, each behind its priority where they go to the journal.
pub(super) struct JournalLines<F> {
    format: F,
    has_priorities: bool,
}

impl<F> JournalLines<F> {
    pub(super) const fn new(format: F, has_priorities: bool) -> Self {
        Self { format, has_priorities }
    }
}

impl<S, N, F> FormatEvent<S, N> for JournalLines<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        if !self.has_priorities {
            return self.format.format_event(context, writer, event);
        }
        let mut text = String::new();
        self.format.format_event(context, Writer::new(&mut text), event)?;
        writer.write_str(&behind_priority(*event.metadata().level(), &text))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::prelude::*;

    use super::*;
    use crate::observe::log_line::JsonLines;

    #[test]
    fn the_journal_is_the_stream_of_that_device_and_inode() {
        assert!(is_stream("8:1234", 8, 1234));
        for value in ["", "8", "8:", "8:1235", "9:1234", "8:1234:1", "x:1234"] {
            assert!(!is_stream(value, 8, 1234), "{value}");
        }
    }

    /// Lines that one subscriber wrote.
    fn written(has_priorities: bool, log: impl FnOnce()) -> String {
        #[derive(Clone, Default)]
        struct Kept(Arc<Mutex<Vec<u8>>>);
        impl io::Write for Kept {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().unwrap().extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let kept = Kept::default();
        let own = kept.clone();
        let format = JournalLines::new(JsonLines, has_priorities);
        let layer = tracing_subscriber::fmt::layer().event_format(format).with_writer(move || own.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), log);
        let bytes = kept.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_line_stands_behind_the_priority_of_its_level() {
        let text = written(true, || {
            tracing::error!("a");
            tracing::warn!("b");
            tracing::info!("c");
            tracing::debug!("d");
        });
        let begins: Vec<&str> = text.lines().filter_map(|line| line.get(..4)).collect();
        assert_eq!(begins, ["<3>{", "<4>{", "<6>{", "<7>{"], "{text}");
        assert!(written(false, || tracing::error!("a")).starts_with('{'));
    }
}
