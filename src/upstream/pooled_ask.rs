//! One question, one bounded answer, over pooled connections.
//!
//! For questions that come often and may arrive twice, such as signatures of a key management service.

use std::rc::Rc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use thiserror::Error;

use super::ask::{AskError, whole};
use super::connection::{Resend, Sent};
use super::connection_pool::{ConnectionPool, NoConnection};
use super::dial::DialError;
use super::request_head::RequestHead;
use crate::base::time::Now;

/// The reason for which there is no response. Its `Display` is for the log.
#[derive(Debug, Error)]
pub enum PooledAskError {
    #[error(transparent)]
    Ask(#[from] AskError),
    /// The connection could not be established; others may have waited for the same.
    #[error("{0}")]
    Dial(Rc<DialError>),
    #[error("too many connections to it are open")]
    Full,
}

impl ConnectionPool<Full<Bytes>> {
    /// Asks, and reads an answer of at most `most` bytes. A connection that turns out to have been closed meanwhile is
    /// replaced once. The caller bounds the time.
    pub async fn ask(
        self: &Rc<Self>,
        request: Request<Full<Bytes>>,
        most: usize,
        now: Now,
    ) -> Result<Response<Bytes>, PooledAskError> {
        let (head, body) = request.into_parts();
        let mut is_second = false;
        loop {
            let mut connection = self.acquire(now, Resend::Unbearable).await.map_err(|error| match error {
                NoConnection::Dial(error) => PooledAskError::Dial(error),
                NoConnection::Full => PooledAskError::Full,
            })?;
            let may_repeat = connection.reused && !is_second;
            is_second = true;
            match connection.send(RequestHead::of(&head), body.clone()).await {
                Sent::Answered(response) => {
                    let answer = whole(response, most).await?;
                    self.give_back(connection, now);
                    return Ok(answer);
                }
                Sent::Broken { .. } | Sent::Refused(_) | Sent::Unsent(_) if may_repeat => {}
                Sent::Broken { error, .. } | Sent::Refused(error) => return Err(AskError::Broken(error).into()),
                Sent::Unsent(_) => return Err(AskError::HungUp.into()),
            }
        }
    }
}
