//! A message body as it arrives, with an end that its sender said.
//!
//! hyper reports the end of a body in one way for two situations: the message is whole, and its stream was reset with
//! `NO_ERROR` (RFC 9113 section 8.1 lets a server stop an upload so). The second proves nothing about the message. This
//! type tells them apart, so every body is read through it, from clients and from providers: a half message never looks
//! like a whole one.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Request, Response, Version};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use thiserror::Error;

use super::h1_client::{H1Body, H1ClientError};
use crate::base::planted::{PlantedFault, planted};

/// A body that ends only when its sender ended it.
pub struct ReceivedBody {
    body: Source,
    /// Over HTTP/2 only `END_STREAM` ends it. Over HTTP/1.1 hyper reports a connection that closes early as an error,
    /// and a body that is dropped with its connection, too.
    http2: bool,
    of_request: bool,
    state: State,
}

/// The reader of the connection that a body arrives on.
enum Source {
    H1(H1Body),
    Hyper(Incoming),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    /// Reading failed; every further read fails, too.
    Broken,
    Coming,
    /// All of it was read.
    Whole,
}

/// The reason for which a body is incomplete or invalid.
#[derive(Debug, Error)]
pub enum BodyError {
    /// Its stream was reset without an end, though without an error code.
    #[error("the stream was reset before the end of the message")]
    Cut,
    /// Malformed trailers: a client sent pseudo-header fields in them.
    #[error("malformed trailers")]
    Trailers,
    /// hyper failed to read the body.
    #[error("{0}")]
    Failed(#[source] hyper::Error),
    /// A response over HTTP/1.1 cannot be read to its end.
    #[error("{0}")]
    Http1(#[source] H1ClientError),
}

impl ReceivedBody {
    /// Wraps the body of a request.
    pub fn request(request: Request<Incoming>) -> Request<Self> {
        let http2 = request.version() == Version::HTTP_2;
        request.map(|body| Self { body: Source::Hyper(body), http2, of_request: true, state: State::Coming })
    }

    /// Wraps the body of a response.
    pub fn response(response: Response<Incoming>) -> Response<Self> {
        let http2 = response.version() == Version::HTTP_2;
        response.map(|body| Self { body: Source::Hyper(body), http2, of_request: false, state: State::Coming })
    }

    /// Wraps the body of a response that does not come through hyper.
    pub(super) fn http1_response(response: Response<H1Body>) -> Response<Self> {
        response.map(|body| Self { body: Source::H1(body), http2: false, of_request: false, state: State::Coming })
    }

    /// Returns whether a client's trailers are malformed. h2 removes pseudo-header fields from trailers instead of
    /// refusing them (RFC 9113 section 8.1); an empty section then contained only such fields, since clients send no
    /// empty one.
    fn holds_pseudo_fields(&self, frame: &Frame<Bytes>) -> bool {
        self.http2 && self.of_request && frame.trailers_ref().is_some_and(http::HeaderMap::is_empty)
    }

    /// Returns whether the end that hyper reports is the end of the message.
    fn is_whole(&self) -> bool {
        let on_trust = if self.of_request { PlantedFault::UploadOnTrust } else { PlantedFault::AnswerOnTrust };
        match &self.body {
            // It has an end that can be told from every other one.
            Source::H1(_) => true,
            Source::Hyper(body) => {
                body.is_end_stream() || (!self.http2 && body.size_hint().exact().is_none()) || planted(on_trust)
            }
        }
    }
}

impl Body for ReceivedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.state {
            State::Broken => return Poll::Ready(Some(Err(BodyError::Cut))),
            State::Coming => {}
            State::Whole => return Poll::Ready(None),
        }
        let frame = match &mut self.body {
            Source::H1(body) => ready!(body.poll_frame(cx)).map(|frame| frame.map_err(BodyError::Http1)),
            Source::Hyper(body) => ready!(Pin::new(body).poll_frame(cx)).map(|frame| frame.map_err(BodyError::Failed)),
        };
        let frame = match frame {
            Some(Ok(frame)) if frame.is_data() => return Poll::Ready(Some(Ok(frame))),
            Some(Ok(frame)) if self.holds_pseudo_fields(&frame) => Err(BodyError::Trailers),
            Some(Ok(trailers)) => Ok(Some(trailers)),
            Some(Err(error)) => Err(error),
            None if self.is_whole() => Ok(None),
            None => Err(BodyError::Cut),
        };
        self.state = if frame.is_ok() { State::Whole } else { State::Broken };
        Poll::Ready(frame.transpose())
    }

    fn is_end_stream(&self) -> bool {
        match self.state {
            State::Broken => false,
            State::Coming => match &self.body {
                Source::H1(body) => body.is_end_stream(),
                Source::Hyper(body) => body.is_end_stream(),
            },
            State::Whole => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        // Stays unknown behind the end of a body without a length: its trailers need room.
        match &self.body {
            Source::H1(body) => body.size_hint(),
            Source::Hyper(body) => body.size_hint(),
        }
    }
}
