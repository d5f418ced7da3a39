//! One question, one bounded answer, on a connection of its own.
//!
//! For the control plane, whose calls are rare: a fresh connection is never a stale one. Redirects are answers like any
//! other.

use std::error::Error as _;
use std::{fmt, io};

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, Request, Response, Version};
use http_body_util::{BodyExt, Full};
use thiserror::Error;
use tokio::time::timeout;

use super::connection::Sent;
use super::dial::{Destination, DialError};
use super::exchange_error::{ExchangeError, is_of_certificate};
use super::received::{BodyError, ReceivedBody};
use super::request_head::RequestHead;
use crate::base::time::{Now, Within};

/// The reason for which there is no response. Its `Display` is for the log; it contains no part of the request or the
/// response.
#[derive(Debug, Error)]
pub enum AskError {
    /// The connection could not be established.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The exchange broke off before an answer's head.
    #[error(transparent)]
    Broken(#[from] ExchangeError),
    /// The answer, of this status, broke off.
    #[error("HTTP {0}, the body broke off")]
    Cut(u16),
    /// The other side hung up before the question.
    #[error("it hung up")]
    HungUp,
    /// The whole exchange took longer than this.
    #[error("no whole answer within {} ms", .0.0.as_millis())]
    Timeout(Within),
    /// The answer, of this status, is longer than we read.
    #[error("HTTP {0}, the body is too long")]
    TooLong(u16),
    /// The response has no length, and the connection ended without TLS's close_notify: its completeness is not
    /// assured.
    #[error("HTTP {}, the body ended without a length and without close_notify", .0.answer().status().as_u16())]
    Unclosed(Unclosed),
}

/// The received part of a response without an assured end. It is usable only if the document itself shows that nothing
/// is missing.
pub struct Unclosed(Box<Response<Bytes>>);

impl Unclosed {
    /// The answer, for a reader that has seen that it is whole.
    pub fn into_answer(self) -> Response<Bytes> {
        *self.0
    }

    /// Returns the response as far as it was read.
    pub fn answer(&self) -> &Response<Bytes> {
        &self.0
    }
}

impl AskError {
    /// Returns whether the other side refused our certificate, or wants one.
    pub fn refuses_certificate(&self) -> bool {
        match self {
            AskError::Dial(DialError::Http(error)) | AskError::Broken(error) => error.refuses_certificate(),
            AskError::Dial(DialError::Tls(error)) => is_of_certificate(error),
            AskError::Dial(_)
            | AskError::Cut(_)
            | AskError::HungUp
            | AskError::Timeout(_)
            | AskError::TooLong(_)
            | AskError::Unclosed(_) => false,
        }
    }
}

impl fmt::Debug for Unclosed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the body: it may hold a token.
        f.debug_tuple("Unclosed").field(&self.0.status()).finish()
    }
}

impl Destination {
    /// Asks, and reads an answer of at most `most` bytes. The connection is closed when `within` is over.
    pub async fn ask(
        &self,
        request: Request<Full<Bytes>>,
        most: usize,
        within: Within,
        now: Now,
    ) -> Result<Response<Bytes>, AskError> {
        bounded(within, self.exchange(request, most, now)).await
    }

    async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
        most: usize,
        now: Now,
    ) -> Result<Response<Bytes>, AskError> {
        let (head, body) = request.into_parts();
        let head = RequestHead::of(&head);
        let mut connection = self.open(now).await?;
        let mut sent = connection.send(head, body.clone()).await;
        if matches!(sent, Sent::Refused(_)) {
            // It did nothing with it, and may want it over HTTP/1.1.
            connection = self.open(now).await?;
            sent = connection.send(head, body).await;
        }
        let response = match sent {
            Sent::Answered(response) => response,
            Sent::Broken { error, .. } | Sent::Refused(error) => return Err(error.into()),
            Sent::Unsent(_) => return Err(AskError::HungUp),
        };
        let answer = whole(response, most).await?;
        connection.close();
        Ok(answer)
    }
}

/// Ends an exchange that takes too long.
pub(super) async fn bounded<T>(
    within: Within,
    exchange: impl Future<Output = Result<T, AskError>>,
) -> Result<T, AskError> {
    timeout(within.0, exchange).await.unwrap_or(Err(AskError::Timeout(within)))
}

/// The trailers of an answer that was read whole, among its extensions where there are any.
#[derive(Clone, Debug)]
pub struct AnswerTrailers(pub HeaderMap);

/// Reads all of an answer of at most `most` bytes.
pub(super) async fn whole(response: Response<ReceivedBody>, most: usize) -> Result<Response<Bytes>, AskError> {
    let (mut head, mut body) = response.into_parts();
    let status = head.status.as_u16();
    let mut read = BytesMut::new();
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => {
                let piece = match frame.into_data() {
                    Ok(piece) => piece,
                    Err(other) => {
                        if let Ok(fields) = other.into_trailers() {
                            head.extensions.insert(AnswerTrailers(fields));
                        }
                        continue;
                    }
                };
                if piece.len() > most - read.len() {
                    return Err(AskError::TooLong(status));
                }
                read.extend_from_slice(&piece);
            }
            Err(error) => {
                let framed = [CONTENT_LENGTH, TRANSFER_ENCODING].iter().any(|name| head.headers.contains_key(name));
                if framed || head.version == Version::HTTP_2 || !is_missing_close(&error) {
                    return Err(AskError::Cut(status));
                }
                return Err(AskError::Unclosed(Unclosed(Box::new(Response::from_parts(head, read.freeze())))));
            }
        }
    }
    Ok(Response::from_parts(head, read.freeze()))
}

/// Returns whether a body ended because the connection was closed, in order except for TLS's missing close_notify (RFC
/// 8446 section 6.1).
fn is_missing_close(error: &BodyError) -> bool {
    let mut cause = error.source();
    while let Some(inner) = cause {
        if let Some(error) = inner.downcast_ref::<io::Error>() {
            return error.kind() == io::ErrorKind::UnexpectedEof;
        }
        cause = inner.source();
    }
    false
}
