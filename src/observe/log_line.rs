//! Lines of the process's own log in the dialect of access lines: the same name and form of the time, and the same escapes.

use std::fmt;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::registry::LookupSpan;

use super::json_line::without_hidden;
use crate::base::time::{Clock, Rfc3339};

/// The time of a line, in UTC with milliseconds.
pub(super) struct LineTime;

impl FormatTime for LineTime {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        writer.write_str(Rfc3339::of(Clock::System.now().wall).as_str())
    }
}

/// One JSON object a line: `time`, `level`, the fields of the event with `message` among them, `target`.
pub(super) struct JsonLines;

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut line = Map::new();
        line.insert("time".to_owned(), Rfc3339::of(Clock::System.now().wall).as_str().into());
        line.insert("level".to_owned(), event.metadata().level().as_str().into());
        event.record(&mut LineFields(&mut line));
        line.insert("target".to_owned(), event.metadata().target().into());
        let text = serde_json::to_string(&line).map_err(|_| fmt::Error)?;
        writeln!(writer, "{}", without_hidden(&text))
    }
}

/// The name of an event's field in JSON and in telemetry: that of the same thing in access lines, or in OpenTelemetry's
/// conventions. Other fields keep their name, `listener` too: what waits for a start reads it. Lines for people have the
/// short ones.
pub(super) fn field_name(field: &'static str) -> &'static str {
    match field {
        "client" => "countersign.client",
        // `error.type` is the name of an error: a text beside it would be an object and a text at once to many a store.
        "error" => "error.message",
        "host" => "server.address",
        "peer" => "client.address",
        "provider" => "countersign.provider",
        "route" => "http.route",
        "token" => "countersign.token",
        other => other,
    }
}

/// The fields of an event, added to a line.
struct LineFields<'a>(&'a mut Map<String, Value>);

impl LineFields<'_> {
    fn add(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field_name(field.name()).to_owned(), value.into());
    }
}

impl Visit for LineFields<'_> {
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, format!("{value:?}"));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value);
    }
}
