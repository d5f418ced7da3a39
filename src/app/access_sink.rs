//! The destination and format of access lines.

use std::io;

use crate::base::time::Clock;
use crate::config::{AccessLogTarget, LogConfig, LogFormat};
use crate::observe::access::{AccessSink, Followed, Sink};

/// Returns the format of access lines. `text`: they are for people if the config leaves it open.
pub(super) fn line_shape(log: &LogConfig, text: bool) -> AccessSink {
    match log.format {
        Some(LogFormat::Json) => AccessSink::Json,
        Some(LogFormat::Text) => AccessSink::Text,
        None if text => AccessSink::Text,
        None => AccessSink::Json,
    }
}

/// Opens the destination of access lines, and returns it with their format. `text`: they are for people if the config
/// leaves it open.
pub(super) fn access_sink(log: &LogConfig, text: bool, clock: &Clock) -> io::Result<(Sink, AccessSink)> {
    let shape = line_shape(log, text);
    Ok(match &log.access {
        AccessLogTarget::File(path) => (Box::new(Followed::open(path, clock.clone())?), shape),
        AccessLogTarget::Off => (Box::new(io::sink()), AccessSink::Off),
        AccessLogTarget::Stderr => (Box::new(io::stderr()), shape),
    })
}
