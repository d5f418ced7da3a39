//! Lines of the log in OTLP: an `ExportLogsServiceRequest`.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, any_value};
use opentelemetry_proto::tonic::logs::v1 as logs;
use opentelemetry_proto::tonic::logs::v1::SeverityNumber;
use prost::Message;
use tracing::Level;

use super::resource::{OtlpResource, attribute, scope};
use super::trace_export::pairs;
use crate::observe::log_queue::LogRecord;

/// The message that exports lines of the log.
pub fn log_export(resource: OtlpResource<'_>, records: &[LogRecord]) -> Vec<u8> {
    let scope_logs = logs::ScopeLogs {
        scope: Some(scope()),
        log_records: records.iter().map(message).collect(),
        ..Default::default()
    };
    let resource_logs =
        logs::ResourceLogs { resource: Some(resource.message()), scope_logs: vec![scope_logs], ..Default::default() };
    ExportLogsServiceRequest { resource_logs: vec![resource_logs] }.encode_to_vec()
}

fn message(record: &LogRecord) -> logs::LogRecord {
    let mut attributes = pairs(&record.attributes);
    attributes.push(attribute("target", record.target.to_owned()));
    logs::LogRecord {
        time_unix_nano: record.time,
        observed_time_unix_nano: record.time,
        severity_number: severity(record.level).into(),
        severity_text: record.level.as_str().to_owned(),
        body: Some(AnyValue { value: Some(any_value::Value::StringValue(record.body.clone())) }),
        attributes,
        ..Default::default()
    }
}

/// The first number of each level's range.
fn severity(level: Level) -> SeverityNumber {
    match level {
        Level::ERROR => SeverityNumber::Error,
        Level::WARN => SeverityNumber::Warn,
        Level::INFO => SeverityNumber::Info,
        Level::DEBUG => SeverityNumber::Debug,
        _ => SeverityNumber::Trace,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_record_with_a_severity_a_body_and_attributes() {
        let record = LogRecord {
            time: 1_700_000_000_123_000_000,
            level: Level::WARN,
            target: "countersign::app",
            body: "something".to_owned(),
            attributes: vec![("provider", "scb".into()), ("lines", 3_u64.into())],
        };
        let resource = OtlpResource { service: "gate", instance: "one", attributes: &[] };
        let read = ExportLogsServiceRequest::decode(&*log_export(resource, &[record])).unwrap();
        let record = &read.resource_logs[0].scope_logs[0].log_records[0];
        assert_eq!(read.resource_logs[0].resource, Some(resource.message()));
        assert_eq!((record.severity_number, &*record.severity_text), (13, "WARN"));
        assert_eq!(record.time_unix_nano, 1_700_000_000_123_000_000);
        let text = |text: &str| any_value::Value::StringValue(text.to_owned());
        assert_eq!(record.body.as_ref().unwrap().value, Some(text("something")));
        let told: Vec<_> =
            record.attributes.iter().map(|one| (&*one.key, one.value.clone().unwrap().value.unwrap())).collect();
        assert_eq!(
            told,
            [("provider", text("scb")), ("lines", any_value::Value::IntValue(3)), ("target", text("countersign::app"))]
        );
        let numbers = [Level::TRACE, Level::DEBUG, Level::INFO, Level::ERROR].map(|level| severity(level) as i32);
        assert_eq!(numbers, [1, 5, 9, 17]);
    }
}
