//! Answers: documents, problems (RFC 9457), and streams.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::Stream;
use http::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Body, Frame, SizeHint};
use serde::Serialize;

/// The body of an answer.
pub(crate) enum AdminContent {
    /// A body that is produced while it is sent.
    Stream(Pin<Box<dyn Stream<Item = Bytes>>>),
    /// A complete body that is already in memory.
    Whole(Full<Bytes>),
}

pub(crate) type AdminResponse = Response<AdminContent>;

impl Body for AdminContent {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        match &mut *self {
            AdminContent::Stream(stream) => {
                stream.as_mut().poll_next(cx).map(|next| next.map(|bytes| Ok(Frame::data(bytes))))
            }
            AdminContent::Whole(whole) => Pin::new(whole).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            AdminContent::Stream(_) => false,
            AdminContent::Whole(whole) => whole.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            AdminContent::Stream(_) => SizeHint::default(),
            AdminContent::Whole(whole) => whole.size_hint(),
        }
    }
}

/// Builds a response of server-sent events (WHATWG HTML section 9.2), sent as they occur. Its header fields forbid
/// caches and reverse proxies to store or buffer it.
pub(crate) fn event_stream(events: impl Stream<Item = Bytes> + 'static) -> AdminResponse {
    let mut answer = Response::new(AdminContent::Stream(Box::pin(events)));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    answer
}

/// Builds a response of this media type. Its header fields forbid caches to store it, and browsers to guess another
/// type.
pub(crate) fn typed(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> AdminResponse {
    let mut answer = Response::new(AdminContent::Whole(Full::new(body.into())));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    answer
}

pub(crate) fn text(status: StatusCode, text: impl Into<Bytes>) -> AdminResponse {
    typed(status, "text/plain; charset=utf-8", text)
}

pub(crate) fn json(status: StatusCode, view: &impl Serialize) -> AdminResponse {
    // Views are structs of texts and numbers, which can always be written.
    let mut body = serde_json::to_vec_pretty(view).unwrap_or_default();
    body.push(b'\n');
    typed(status, "application/json", body)
}

/// The reason for a refusal, as an `application/problem+json` document.
#[derive(Debug, Serialize)]
pub(crate) struct Problem {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    detail: String,
}

/// Builds a refusal with its reason. It contains no data of a client except what this request itself has sent.
pub(crate) fn problem(status: StatusCode, detail: impl Into<String>) -> AdminResponse {
    let title = status.canonical_reason().unwrap_or_default();
    let problem = Problem { r#type: "about:blank", title, status: status.as_u16(), detail: detail.into() };
    let mut answer = json(status, &problem);
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    answer
}

/// 405, with the methods that there are.
pub(super) fn other_method(methods: &str) -> AdminResponse {
    let mut answer = problem(StatusCode::METHOD_NOT_ALLOWED, format!("here goes {methods}"));
    if let Ok(methods) = HeaderValue::from_str(methods) {
        answer.headers_mut().insert(ALLOW, methods);
    }
    answer
}

/// 401: a token is needed, or another one.
pub(super) fn unauthorized(mistaken: bool) -> AdminResponse {
    let (challenge, detail) = if mistaken {
        ("Bearer realm=\"countersign\", error=\"invalid_token\"", "no [admin.token] has this value")
    } else {
        ("Bearer realm=\"countersign\"", "show the value of an [admin.token] as `Authorization: Bearer …`")
    };
    let mut answer = problem(StatusCode::UNAUTHORIZED, detail);
    answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    answer
}

/// The same answer, as the last one of its connection.
pub(super) fn last(mut answer: AdminResponse) -> AdminResponse {
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}

/// An answer to be asked for again in so many seconds.
pub(super) fn later(status: StatusCode, detail: &str, seconds: u64) -> AdminResponse {
    let mut answer = problem(status, detail);
    answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
    answer
}
