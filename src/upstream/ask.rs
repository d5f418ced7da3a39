//! One question, one bounded answer, on a connection of its own.
//!
//! For the control plane, whose calls are rare: a fresh connection is never a stale one. Redirects are answers like any
//! other.

use std::fmt;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use tokio::time::timeout;

use super::connection::Sent;
use super::dial::{Destination, DialError};
use crate::base::time::{Now, Within};

/// Why there is no answer. Its `Display` is for the log; it holds nothing of either message.
#[derive(Debug)]
pub enum AskError {
    /// There is no connection.
    Dial(DialError),
    /// The exchange broke off before an answer's head.
    Broken(hyper::Error),
    /// The answer, of this status, broke off.
    Cut(u16),
    /// The other side hung up before the question.
    HungUp,
    /// The whole exchange took longer than this.
    Timeout(Within),
    /// The answer, of this status, is longer than we read.
    TooLong(u16),
}

impl fmt::Display for AskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AskError::Dial(error) => error.fmt(f),
            AskError::Broken(error) => error.fmt(f),
            AskError::Cut(status) => write!(f, "HTTP {status}, the body broke off"),
            AskError::HungUp => f.write_str("it hung up"),
            AskError::Timeout(Within(limit)) => write!(f, "no whole answer within {} ms", limit.as_millis()),
            AskError::TooLong(status) => write!(f, "HTTP {status}, the body is too long"),
        }
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
        let mut connection = self.open(now).await.map_err(AskError::Dial)?;
        let response = match connection.send(request).await {
            Sent::Answered(response) => response,
            Sent::Broken { error, .. } | Sent::Refused(error) => return Err(AskError::Broken(error)),
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

/// Reads all of an answer of at most `most` bytes.
pub(super) async fn whole(response: Response<Incoming>, most: usize) -> Result<Response<Bytes>, AskError> {
    let (head, body) = response.into_parts();
    match Limited::new(body, most).collect().await {
        Ok(body) => Ok(Response::from_parts(head, body.to_bytes())),
        Err(error) if error.is::<LengthLimitError>() => Err(AskError::TooLong(head.status.as_u16())),
        Err(_) => Err(AskError::Cut(head.status.as_u16())),
    }
}
