//! One unary call of gRPC over HTTP/2, without a connection: the framing of its message, and the status of its answer.
//!
//! After "gRPC over HTTP2" of the gRPC project. Messages are not compressed, and none is expected to be.

use std::time::Duration;

use base64::Engine;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use http::{HeaderMap, HeaderName, StatusCode};
use prost::Message;

/// The content type of a call with messages in protobuf.
pub const GRPC_MEDIA_TYPE: &str = "application/grpc";
/// The field with the time that a call may take.
pub const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// Details of a status: a `google.rpc.Status`, in base64.
const GRPC_STATUS_DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");
/// The type of the detail that says when to try again.
const RETRY_INFO: &str = "type.googleapis.com/google.rpc.RetryInfo";
/// The flag of an uncompressed message, and the length of a message in four bytes.
const PREFIX: usize = 5;
/// The names of the status codes, each at its number.
const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];
/// Senders may pad base64 or not; receivers take both.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The status that a call ended with. The text that may come with it is not kept: it may repeat what was sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct GrpcStatus {
    code: u32,
    /// The pause before the call may be made again, where the other side says so.
    pub delay: Option<Duration>,
}

/// `google.rpc.Status`, as far as it matters here.
#[derive(Clone, PartialEq, Message)]
struct StatusDetails {
    #[prost(message, repeated, tag = "3")]
    details: Vec<StatusDetail>,
}

/// `google.protobuf.Any`: a message and its type.
#[derive(Clone, PartialEq, Message)]
struct StatusDetail {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `google.rpc.RetryInfo`, the detail with a pause.
#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<RetryDelay>,
}

/// `google.protobuf.Duration`, in seconds and nanoseconds.
#[derive(Clone, PartialEq, Message)]
struct RetryDelay {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

/// A message with its prefix, as the body of a request. A message has less than 4 GiB.
pub fn frame(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    let mut body = Vec::with_capacity(PREFIX + message.len());
    body.push(0);
    body.extend_from_slice(&length.to_be_bytes());
    body.extend_from_slice(message);
    body
}

/// The one message of a body; `None` if it is anything else.
pub fn unframe(body: &[u8]) -> Option<&[u8]> {
    let (prefix, message) = body.split_at_checked(PREFIX)?;
    let [0, length @ ..] = prefix else { return None };
    let length = u32::from_be_bytes(length.try_into().ok()?);
    (u32::try_from(message.len()) == Ok(length)).then_some(message)
}

/// The value of [`GRPC_TIMEOUT`], in milliseconds; eight digits at most.
pub fn timeout_value(timeout: Duration) -> String {
    format!("{}m", timeout.as_millis().clamp(1, 99_999_999))
}

impl GrpcStatus {
    /// Reads the status of an answer: in its trailers, or in its head where there is nothing else. Without either, the
    /// status of HTTP decides, as gRPC maps it.
    pub fn of(http: StatusCode, head: &HeaderMap, trailers: Option<&HeaderMap>) -> Self {
        let place = trailers.filter(|trailers| trailers.contains_key(GRPC_STATUS)).unwrap_or(head);
        let code = place.get(GRPC_STATUS).and_then(|code| code.to_str().ok()?.parse().ok());
        let code = code.unwrap_or(match http {
            StatusCode::BAD_REQUEST => 13,
            StatusCode::UNAUTHORIZED => 16,
            StatusCode::FORBIDDEN => 7,
            StatusCode::NOT_FOUND => 12,
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => 14,
            _ => 2,
        });
        Self { code, delay: delay(place) }
    }

    /// Returns whether the call succeeded.
    pub const fn is_ok(self) -> bool {
        self.code == 0
    }

    /// Returns whether OTLP has the same export sent again. `RESOURCE_EXHAUSTED` is final unless the other side names a
    /// pause.
    pub const fn is_retryable(self) -> bool {
        matches!(self.code, 1 | 4 | 10 | 11 | 14 | 15) || self.code == 8 && self.delay.is_some()
    }

    /// The name of its code.
    pub fn name(self) -> &'static str {
        usize::try_from(self.code).ok().and_then(|code| CODES.get(code)).copied().unwrap_or("of an unknown code")
    }
}

/// The pause of a `RetryInfo` among the details.
fn delay(place: &HeaderMap) -> Option<Duration> {
    let details = BASE64.decode(place.get(GRPC_STATUS_DETAILS)?.as_bytes()).ok()?;
    let details = StatusDetails::decode(&*details).ok()?.details;
    let info = details.iter().find(|detail| detail.type_url == RETRY_INFO)?;
    let RetryDelay { seconds, nanos } = RetryInfo::decode(&*info.value).ok()?.retry_delay?;
    let (seconds, nanos) = (u64::try_from(seconds).ok()?, u32::try_from(nanos).ok()?);
    (nanos < 1_000_000_000).then(|| Duration::new(seconds, nanos))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn fields(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()))
            .collect()
    }

    proptest! {
        #[test]
        fn a_message_comes_back_out_of_its_frame_and_half_of_it_does_not(message in proptest::collection::vec(any::<u8>(), 0..300), cut in 0_usize..305) {
            let body = frame(&message);
            prop_assert_eq!(unframe(&body), Some(&message[..]));
            if cut < body.len() {
                prop_assert_eq!(unframe(&body[..cut]), None);
            }
        }

        #[test]
        fn no_details_are_too_odd(details in "[ -~]{0,60}", code in "[ -~]{0,6}") {
            let head = fields(&[("grpc-status", &code), ("grpc-status-details-bin", &details)]);
            let _ = GrpcStatus::of(StatusCode::OK, &head, None).name();
        }
    }

    #[test]
    fn frames_are_as_grpc_has_them() {
        assert_eq!(frame(b"abc"), b"\0\0\0\0\x03abc");
        for bad in [&b"\x01\0\0\0\x03abc"[..], b"\0\0\0\0\x03abcd", b"\0\0\0\0\x01a\0\0\0\0\0", b""] {
            assert_eq!(unframe(bad), None, "{bad:?}");
        }
        assert_eq!(timeout_value(Duration::from_secs(10)), "10000m");
        assert_eq!(timeout_value(Duration::from_secs(u64::MAX)), "99999999m");
    }

    #[test]
    fn a_status_is_read_from_trailers_or_head_and_else_from_http() {
        let status = |http: u16, head: &[(&'static str, &str)], trailers: Option<&[(&'static str, &str)]>| {
            let http = StatusCode::from_u16(http).unwrap();
            let status = GrpcStatus::of(http, &fields(head), trailers.map(fields).as_ref());
            (status.name(), status.is_ok(), status.is_retryable())
        };
        assert_eq!(status(200, &[], Some(&[("grpc-status", "0")])), ("OK", true, false));
        assert_eq!(status(200, &[("grpc-status", "14")], None), ("UNAVAILABLE", false, true));
        assert_eq!(
            status(200, &[("grpc-status", "0")], Some(&[("grpc-status", "3")])),
            ("INVALID_ARGUMENT", false, false)
        );
        assert_eq!(status(200, &[], None), ("UNKNOWN", false, false), "half an answer is none");
        assert_eq!(status(503, &[], None), ("UNAVAILABLE", false, true));
        assert_eq!(status(404, &[], None), ("UNIMPLEMENTED", false, false));
        assert_eq!(status(200, &[("grpc-status", "99")], None), ("of an unknown code", false, false));
        let again: Vec<u32> = (0..17).filter(|code| GrpcStatus { code: *code, delay: None }.is_retryable()).collect();
        assert_eq!(again, [1, 4, 10, 11, 14, 15], "those that OTLP calls retryable");
    }

    #[test]
    fn resources_are_exhausted_for_as_long_as_the_details_say() {
        let detail = |type_url: &str, delay: RetryDelay| {
            let value = RetryInfo { retry_delay: Some(delay) }.encode_to_vec();
            let details = vec![StatusDetail { type_url: type_url.to_owned(), value }];
            base64::engine::general_purpose::STANDARD_NO_PAD.encode(StatusDetails { details }.encode_to_vec())
        };
        let status = |details: &str| {
            let trailers = fields(&[("grpc-status", "8"), ("grpc-status-details-bin", details)]);
            GrpcStatus::of(StatusCode::OK, &HeaderMap::new(), Some(&trailers))
        };
        let told = status(&detail(RETRY_INFO, RetryDelay { seconds: 2, nanos: 500_000_000 }));
        assert_eq!((told.delay, told.is_retryable()), (Some(Duration::from_millis(2500)), true));
        // As the wire has it: code 8, and a detail of 7 s.
        let wire = "CAgaMAoodHlwZS5nb29nbGVhcGlzLmNvbS9nb29nbGUucnBjLlJldHJ5SW5mbxIECgIIBw==";
        assert_eq!(status(wire).delay, Some(Duration::from_secs(7)));
        for bad in [
            detail("type.googleapis.com/google.rpc.Help", RetryDelay { seconds: 2, nanos: 0 }),
            detail(RETRY_INFO, RetryDelay { seconds: -2, nanos: 0 }),
            detail(RETRY_INFO, RetryDelay { seconds: 2, nanos: i32::MAX }),
            "?".to_owned(),
            String::new(),
        ] {
            assert_eq!((status(&bad).delay, status(&bad).is_retryable()), (None, false), "{bad}");
        }
    }
}
