//! OTLP, the protocol of OpenTelemetry: what a collector is sent, and its answers, without a connection.
//!
//! The messages are those that `opentelemetry-proto` has generated from the protocol's own files; no other part of the
//! OpenTelemetry libraries is used. An export is one message: finished spans, the metrics as `/metrics` shows them, or
//! lines of the log. It travels as the body of an HTTP request, or in the [`grpc`] framing of a unary call. This module
//! knows neither a config nor a network; whoever sends the bytes says which resource exports them.

pub mod grpc;
mod log_export;
mod metric_export;
mod resource;
mod trace_export;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;

pub use log_export::log_export;
pub use metric_export::{metric_batches, metric_export, points, read_metrics};
pub use resource::OtlpResource;
pub use trace_export::trace_export;

/// The content type of an export over HTTP, and of a collector's response.
pub const MEDIA_TYPE: &str = "application/x-protobuf";

/// Returns the number of spans, data points or log records that a collector rejected, by its response to an export that
/// it took. A response that cannot be read rejects none.
pub fn rejected(answer: &[u8]) -> u64 {
    // The responses to all three are alike on the wire: a `partial_success` with a number in front.
    let partial = ExportTraceServiceResponse::decode(answer).ok().and_then(|answer| answer.partial_success);
    partial.and_then(|partial| partial.rejected_spans.try_into().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsPartialSuccess, ExportLogsServiceResponse};
    use opentelemetry_proto::tonic::collector::metrics::v1::{
        ExportMetricsPartialSuccess, ExportMetricsServiceResponse,
    };
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTracePartialSuccess;

    use super::*;

    #[test]
    fn what_a_collector_rejects_is_read() {
        let answer = |rejected_spans| {
            let partial = ExportTracePartialSuccess { rejected_spans, error_message: "no".to_owned() };
            ExportTraceServiceResponse { partial_success: Some(partial) }.encode_to_vec()
        };
        assert_eq!(rejected(&answer(3)), 3);
        let partial = ExportMetricsPartialSuccess { rejected_data_points: 4, error_message: "no".to_owned() };
        assert_eq!(rejected(&ExportMetricsServiceResponse { partial_success: Some(partial) }.encode_to_vec()), 4);
        let partial = ExportLogsPartialSuccess { rejected_log_records: 5, error_message: "no".to_owned() };
        assert_eq!(rejected(&ExportLogsServiceResponse { partial_success: Some(partial) }.encode_to_vec()), 5);
        // As the wire has it: field 1, three bytes; therein field 1, 300.
        assert_eq!(rejected(b"\x0a\x03\x08\xac\x02"), 300);
        for none in [&b""[..], &answer(0), &answer(-1), b"\x0a\x00", b"\x0a\x7f", b"\xff", b"{}", b"<html>"] {
            assert_eq!(rejected(none), 0, "{none:?}");
        }
    }
}
