//! One export: the call of a collector over HTTP or gRPC, and the meaning of its answer.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, RETRY_AFTER, TE, USER_AGENT};
use http::{HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body_util::Full;

use super::super::token_call::AGENT;
use crate::base::time::{Now, Within};
use crate::config::{OtlpProtocol, OtlpTarget};
use crate::observe::otlp::grpc::{GRPC_MEDIA_TYPE, GRPC_TIMEOUT, GrpcStatus, frame, timeout_value, unframe};
use crate::observe::otlp::{MEDIA_TYPE, rejected};
use crate::upstream::{AnswerTrailers, AskError, Clear, Destination, EgressPath};

/// More of an answer than this is not read.
const MOST_ANSWER: usize = 64 * 1024;

/// The result of offering a batch to the collector.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Offered {
    /// It is there; so many of it were not wanted.
    Taken { rejected: u64 },
    /// It may be taken later, perhaps after this long.
    Later(String, Option<Duration>),
    /// It will never be taken.
    Never(String),
}

/// Offers a message to the collector once.
pub(super) async fn offer(target: &OtlpTarget, message: &[u8], now: Now) -> Offered {
    let request = match request(target, message) {
        Ok(request) => request,
        Err(error) => return Offered::Never(error.to_string()),
    };
    match ask(target, request, now).await {
        Ok(answer) => match target.protocol {
            OtlpProtocol::Grpc => grpc_verdict(&answer),
            OtlpProtocol::HttpProtobuf => http_verdict(&answer),
        },
        Err(AskError::Timeout(_)) => Offered::Later("it does not answer".to_owned(), None),
        Err(error) => Offered::Later(error.to_string(), None),
    }
}

async fn ask(target: &OtlpTarget, request: Request<Full<Bytes>>, now: Now) -> Result<Response<Bytes>, AskError> {
    let url = &target.url;
    let connect_timeout = target.timeout / 2;
    let within = Within(target.timeout);
    match (&target.tls, target.protocol) {
        (None, protocol) => {
            let place = Clear { host: url.bare_host(), port: url.port(), connect_timeout };
            match protocol {
                OtlpProtocol::Grpc => place.ask_http2(request, MOST_ANSWER, within, now).await,
                OtlpProtocol::HttpProtobuf => place.ask(request, MOST_ANSWER, within, now).await,
            }
        }
        (Some(tls), _) => {
            let place = Destination {
                host: url.bare_host().into(),
                port: url.port(),
                tls: tls.clone(),
                server_name: url.server_name().clone(),
                path: EgressPath::default(),
                connect_timeout,
            };
            place.ask(request, MOST_ANSWER, within, now).await
        }
    }
}

fn request(target: &OtlpTarget, message: &[u8]) -> Result<Request<Full<Bytes>>, http::Error> {
    let authority = target.url.authority();
    let request = Request::builder().method(Method::POST).header(USER_AGENT, HeaderValue::from_static(AGENT));
    let (request, body) = match target.protocol {
        OtlpProtocol::Grpc => {
            let scheme = if target.tls.is_some() { "https" } else { "http" };
            let request = request
                .uri(format!("{scheme}://{authority}{}", target.path))
                .header(CONTENT_TYPE, GRPC_MEDIA_TYPE)
                .header(TE, "trailers")
                .header(GRPC_TIMEOUT, timeout_value(target.timeout));
            (request, frame(message))
        }
        OtlpProtocol::HttpProtobuf => {
            let request = request
                .uri(&*target.path)
                .header(HOST, authority)
                .header(CONTENT_TYPE, MEDIA_TYPE)
                .header(CONTENT_LENGTH, message.len());
            (request, message.to_vec())
        }
    };
    let mut request = request.body(Full::new(Bytes::from(body)))?;
    request.headers_mut().extend(target.headers.iter().cloned());
    Ok(request)
}

fn http_verdict(answer: &Response<Bytes>) -> Offered {
    let status = answer.status();
    match status {
        _ if status.is_success() => Offered::Taken { rejected: rejected(answer.body()) },
        // Those that OTLP calls retryable.
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => {
            let wished = answer.headers().get(RETRY_AFTER).and_then(|after| after.to_str().ok()?.parse().ok());
            Offered::Later(format!("HTTP {}", status.as_u16()), wished.map(Duration::from_secs))
        }
        _ => Offered::Never(format!("HTTP {}", status.as_u16())),
    }
}

fn grpc_verdict(answer: &Response<Bytes>) -> Offered {
    if answer.version() != Version::HTTP_2 {
        return Offered::Never("it does not speak HTTP/2, which gRPC needs".to_owned());
    }
    let trailers = answer.extensions().get::<AnswerTrailers>().map(|trailers| &trailers.0);
    let status = GrpcStatus::of(answer.status(), answer.headers(), trailers);
    if status.is_ok() {
        return Offered::Taken { rejected: unframe(answer.body()).map_or(0, rejected) };
    }
    let why = format!("gRPC status {}", status.name());
    if status.is_retryable() { Offered::Later(why, status.delay) } else { Offered::Never(why) }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    fn answer(version: Version, status: u16, trailers: &[(&'static str, &'static str)]) -> Response<Bytes> {
        // What OTLP answers if it took all but three: field 1, two bytes; therein field 1, 3.
        let body = Bytes::from_static(b"\0\0\0\0\x04\x0a\x02\x08\x03");
        let mut answer = Response::builder().version(version).status(status).body(body).unwrap();
        let fields: HeaderMap = trailers
            .iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect();
        answer.extensions_mut().insert(AnswerTrailers(fields));
        answer
    }

    #[test]
    fn an_answer_over_grpc_is_judged_by_its_trailers() {
        let judged = |status, trailers: &[(&'static str, &'static str)]| {
            grpc_verdict(&answer(Version::HTTP_2, status, trailers))
        };
        assert_eq!(judged(200, &[("grpc-status", "0")]), Offered::Taken { rejected: 3 });
        let message = [("grpc-status", "14"), ("grpc-message", "canary")];
        assert_eq!(judged(200, &message), Offered::Later("gRPC status UNAVAILABLE".to_owned(), None));
        assert_eq!(judged(200, &[("grpc-status", "16")]), Offered::Never("gRPC status UNAUTHENTICATED".to_owned()));
        assert_eq!(judged(200, &[]), Offered::Never("gRPC status UNKNOWN".to_owned()));
        let other = grpc_verdict(&answer(Version::HTTP_11, 200, &[("grpc-status", "0")]));
        assert!(matches!(other, Offered::Never(_)), "{other:?}");
    }
}
