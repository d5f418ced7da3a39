//! HTTP/1.1 to a provider, driven by the tasks that use it.
//!
//! A connection carries one exchange at a time. The request is written and the head of its response read in the task
//! that sends it; the response's body is read in the task that takes it. A task of the connection's own ([`drive`])
//! sleeps through that. It watches the connection while that is idle, goes on with an upload that is not over when its
//! response begins, and takes leave of the other side at the end: no exchange needs a channel or another task's turn.
//!
//! **The end.** A connection is idle again only if both messages ended as they should and not a byte followed them. In
//! all other cases it is closed: with close_notify after a whole exchange, and without it in the midst of one, so that
//! half a message never looks like a whole one.
//!
//! **An early response.** A provider may respond from a request's head alone and close with the body unread. Then a
//! write fails, while the response is in the kernel's buffer, to be read (RFC 9112 section 9.6). So no more is written
//! after a failed write, and reading goes on.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::error::Error as StdError;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::buf::Chain;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::response::Parts;
use http::uri::Authority;
use http::{HeaderMap, Method, Response};
use hyper::body::{Body, Frame, SizeHint};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use super::h1_codec::{
    BodyDecoder, DecodedPart, H1CodecError, HeadParser, RequestFraming, asks_to_close, chunk_line, last_chunk,
    write_head,
};
use super::http1::{BUFFER, is_hang_up};
use super::request_head::RequestHead;
use super::socket::ByteCounter;

/// Bytes for which room is made at first; the room doubles as long as reading fills it,
const FIRST_READ: usize = 8 * 1024;
/// up to the longest record of TLS (RFC 8446 section 5.1): a read brings no more.
const MOST_READ: usize = 16 * 1024;
/// Pieces of a request's body that wait to be written.
const MOST_SEGMENTS: usize = 16;

/// The reason for which an exchange over HTTP/1.1 broke off. `Display` names it in the words of hyper.
#[derive(Debug, Error)]
pub enum H1ClientError {
    /// The response's body is malformed, or was cut short.
    #[error("error reading a body from connection")]
    Body(#[source] H1CodecError),
    /// Reading the response's body failed.
    #[error("error reading a body from connection")]
    BodyRead(#[source] io::Error),
    /// The connection ended before the response did, or its exchange was given up.
    #[error("connection closed before message completed")]
    Incomplete,
    /// The response's head is malformed.
    #[error("{0}")]
    Parse(H1CodecError),
    /// Reading the response's head failed.
    #[error("connection error")]
    Read(#[source] io::Error),
    /// The request's body failed.
    #[error("error from user's Body stream")]
    RequestBody(#[source] Box<dyn StdError + Send + Sync>),
    /// The request's body is shorter or longer than its length says.
    #[error("user body write aborted")]
    RequestLength,
    /// Writing the request failed.
    #[error("error writing a body to connection")]
    Write(#[source] io::Error),
}

/// A connection, for one exchange at a time. It closes when it is dropped.
pub(super) struct H1Client<B>(Rc<dyn H1Exchange<B>>);

/// The result of sending a request.
pub(super) enum H1Sent<B> {
    Answered(Response<H1Body>),
    Broken(H1ClientError),
    /// Not one byte was written; here is its body again.
    Unsent(B),
}

/// A connection over any stream, as its senders see it.
trait H1Exchange<B>: H1Incoming {
    /// Sends a request with this body if the body is there, and waits for the response's head.
    fn poll_send(&self, head: RequestHead<'_>, body: &mut Option<B>, cx: &mut Context<'_>) -> Poll<HeadSent<B>>;
    /// Takes over a map that is not needed any more.
    fn reuse(&self, spare: HeaderMap);
    fn is_idle(&self) -> bool;
    /// Begins to close an idle connection.
    fn finish(&self);
}

/// A connection over any stream, as the reader of a response sees it.
trait H1Incoming {
    fn poll_frame(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, H1ClientError>>>;
    /// Closes the connection without a word.
    fn close(&self);
}

enum HeadSent<B> {
    /// The head of the response, and its length, if a length tells it.
    Answered(Parts, Option<u64>),
    Broken(H1ClientError),
    Unsent(B),
}

impl<B> H1Client<B> {
    /// Takes a stream on which no exchange is under way; `authority` is the one of requests that name none. The future
    /// is the connection's own task, and ends with it.
    pub(super) fn new<S>(
        io: S,
        authority: Authority,
        received: Rc<ByteCounter>,
    ) -> (Self, impl Future<Output = ()> + use<S, B>)
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
        B: Body + Unpin + 'static,
        B::Error: Into<Box<dyn StdError + Send + Sync>>,
    {
        let connection = Rc::new(RefCell::new(H1Connecting {
            io: Some(io),
            authority,
            phase: Phase::Idle,
            method: Method::GET,
            parser: HeadParser::default(),
            incoming: BytesMut::new(),
            room: FIRST_READ,
            upload: RequestUpload::none(),
            keep_alive: true,
            received,
            driver: None,
            reader: None,
            failed: None,
        }));
        let driven = connection.clone();
        (Self(connection), poll_fn(move |cx| driven.borrow_mut().poll_drive(cx)))
    }

    /// Returns whether the connection can carry another exchange, as far as the process knows.
    pub(super) fn is_idle(&self) -> bool {
        self.0.is_idle()
    }

    /// Takes over a map that is not needed any more, for the fields of a response to come.
    pub(super) fn reuse(&self, spare: HeaderMap) {
        self.0.reuse(spare);
    }

    /// Sends a request and waits for the head of its response.
    pub(super) async fn send(&self, head: RequestHead<'_>, body: B) -> H1Sent<B> {
        let mut body = Some(body);
        match poll_fn(|cx| self.0.poll_send(head, &mut body, cx)).await {
            HeadSent::Answered(parts, Some(0)) => {
                H1Sent::Answered(Response::from_parts(parts, H1Body { connection: None, left: Some(0), whole: true }))
            }
            HeadSent::Answered(parts, left) => {
                let connection: Rc<dyn H1Incoming> = self.0.clone();
                H1Sent::Answered(Response::from_parts(
                    parts,
                    H1Body { connection: Some(connection), left, whole: false },
                ))
            }
            HeadSent::Broken(error) => H1Sent::Broken(error),
            HeadSent::Unsent(body) => H1Sent::Unsent(body),
        }
    }
}

impl<B> Drop for H1Client<B> {
    fn drop(&mut self) {
        if self.0.is_idle() {
            self.0.finish();
        } else {
            self.0.close();
        }
    }
}

/// The body of a response. Dropped before its end, it closes the connection.
pub(super) struct H1Body {
    /// Absent once the body has ended, well or not.
    connection: Option<Rc<dyn H1Incoming>>,
    /// The bytes that are still to come, if a length tells them.
    left: Option<u64>,
    /// All of it was read.
    whole: bool,
}

impl H1Body {
    /// The next frame; `None`: the body is whole.
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, H1ClientError>>> {
        let Some(connection) = &self.connection else {
            return Poll::Ready((!self.whole).then_some(Err(H1ClientError::Incomplete)));
        };
        let frame = ready!(connection.poll_frame(cx));
        let (ended, whole) = match &frame {
            Some(Ok(frame)) => match (frame.data_ref(), &mut self.left) {
                (Some(data), Some(left)) => {
                    *left = left.saturating_sub(data.len() as u64);
                    (*left == 0, *left == 0)
                }
                (Some(_), None) => (false, false),
                // Trailers are the last.
                (None, _) => (true, true),
            },
            Some(Err(_)) => (true, false),
            None => (true, true),
        };
        if ended {
            (self.connection, self.whole) = (None, whole);
        }
        Poll::Ready(frame)
    }

    /// Returns whether the body is known to be over.
    pub(super) fn is_end_stream(&self) -> bool {
        self.whole && self.left == Some(0)
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Drop for H1Body {
    fn drop(&mut self) {
        if let Some(connection) = &self.connection {
            connection.close();
        }
    }
}

/// A connection with its exchange.
struct H1Connecting<S, B: Body> {
    /// Absent once the connection is closed.
    io: Option<S>,
    /// The authority of a request without `Host`.
    authority: Authority,
    phase: Phase,
    /// The method of the request under way.
    method: Method,
    parser: HeadParser,
    /// Bytes that arrived and were not used yet.
    incoming: BytesMut,
    /// Bytes for which room is made before reading.
    room: usize,
    upload: RequestUpload<B>,
    /// Another exchange may follow this one.
    keep_alive: bool,
    received: Rc<ByteCounter>,
    /// Wakes the connection's own task.
    driver: Option<Waker>,
    /// Wakes the reader of a response whose request is still being written by the connection's own task.
    reader: Option<Waker>,
    /// The error that the reader of the response is yet to hear of.
    failed: Option<H1ClientError>,
}

#[derive(Debug, Eq, PartialEq)]
enum Phase {
    /// The response's body is being read.
    Body(BodyDecoder),
    Closed,
    /// Both sides are done; the other one is told so.
    Closing,
    /// The response's head is awaited.
    Head,
    /// There is no exchange.
    Idle,
    /// The response is over, the request is not.
    Over,
}

impl<S, B> H1Connecting<S, B>
where
    S: AsyncRead + AsyncWrite + Unpin,
    B: Body + Unpin,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    /// Begins with a request. A body that comes back was not begun with: the connection is not idle any more.
    fn begin(&mut self, head: RequestHead<'_>, body: B, cx: &mut Context<'_>) -> Option<B> {
        if self.phase == Phase::Idle {
            self.watch(cx);
        }
        if self.phase != Phase::Idle {
            return Some(body);
        }
        self.keep_alive = !asks_to_close(head.headers);
        let (framing, fields) = RequestFraming::settle(head.method, head.headers, &body);
        self.upload.begin(framing, body);
        write_head(&mut self.upload.head, head, &self.authority, &fields);
        self.parser.begin();
        self.method = head.method.clone();
        self.room = FIRST_READ;
        self.failed = None;
        self.phase = Phase::Head;
        None
    }

    fn poll_response(&mut self, cx: &mut Context<'_>) -> Poll<Result<(Parts, Option<u64>), H1ClientError>> {
        while self.phase == Phase::Head {
            match self.parser.parse(&mut self.incoming, &self.method) {
                Ok(Some(head)) => {
                    self.keep_alive &= head.keep_alive;
                    let length = head.body.exact();
                    self.phase = Phase::Body(head.body);
                    if length == Some(0) {
                        self.end_response();
                    }
                    if !self.upload.is_over() {
                        self.wake_driver();
                    }
                    return Poll::Ready(Ok((head.parts, length)));
                }
                Ok(None) => {}
                Err(error) => return Poll::Ready(Err(H1ClientError::Parse(error))),
            }
            match self.poll_read(cx) {
                Poll::Pending => return self.poll_upload(cx),
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(H1ClientError::Incomplete)),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(H1ClientError::Read(error))),
            }
        }
        Poll::Ready(Err(H1ClientError::Incomplete))
    }

    /// Writes while the response is awaited. Only an error makes it ready.
    fn poll_upload<T>(&mut self, cx: &mut Context<'_>) -> Poll<Result<T, H1ClientError>> {
        match self.poll_write(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending => {
                self.flush(cx);
                Poll::Pending
            }
        }
    }

    /// Lets TLS send what it has to say of its own while a read waits: the other side may wait for it, too, as for the
    /// refusal of a renegotiation (RFC 5246 section 7.2.2).
    fn flush(&mut self, cx: &mut Context<'_>) {
        if let Some(io) = &mut self.io {
            // The read that waits meets the same error.
            let _ = Pin::new(io).poll_flush(cx);
        }
    }

    /// Writes on; ready when all of the request was written, or no more of it can be.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), H1ClientError>> {
        let Some(io) = &mut self.io else { return Poll::Ready(Ok(())) };
        match ready!(self.upload.poll_write(io, cx)) {
            Err(H1ClientError::Write(error)) if is_hang_up(&error) => {
                self.upload.progress = UploadProgress::Refused;
                self.received.refuse_writes();
                // The bytes that have arrived are to be read now.
                cx.waker().wake_by_ref();
                Poll::Ready(Ok(()))
            }
            written => Poll::Ready(written),
        }
    }

    /// Reads into `incoming`; 0 is the end of the stream.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some(io) = &mut self.io else { return Poll::Ready(Err(io::ErrorKind::NotConnected.into())) };
        if self.incoming.capacity() - self.incoming.len() < self.room / 2 {
            self.incoming.reserve(self.room);
        }
        let room = (self.incoming.capacity() - self.incoming.len()).min(BUFFER.saturating_sub(self.incoming.len()));
        let mut into = (&mut self.incoming).limit(room);
        let read = ready!(pin!(io.read_buf(&mut into)).poll(cx))?;
        if read == room {
            self.room = (self.room * 2).min(MOST_READ);
        }
        Poll::Ready(Ok(read))
    }

    /// Reads from an idle connection, on which nothing but its end may arrive.
    fn watch(&mut self, cx: &mut Context<'_>) {
        match self.poll_read(cx) {
            Poll::Pending => {}
            Poll::Ready(Ok(0)) => self.finish(),
            Poll::Ready(Ok(_) | Err(_)) => self.close(),
        }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, H1ClientError>>> {
        loop {
            let Phase::Body(decoder) = &mut self.phase else {
                return Poll::Ready(Some(Err(self.failed.take().unwrap_or(H1ClientError::Incomplete))));
            };
            let frame = match decoder.decode(&mut self.incoming) {
                Ok(DecodedPart::Data(data)) => {
                    if *decoder == BodyDecoder::Done {
                        self.end_response();
                    }
                    Some(Ok(Frame::data(data)))
                }
                Ok(DecodedPart::End) => {
                    self.end_response();
                    None
                }
                Ok(DecodedPart::Trailers(trailers)) => {
                    self.end_response();
                    Some(Ok(Frame::trailers(trailers)))
                }
                Ok(DecodedPart::More) => match self.poll_read(cx) {
                    Poll::Pending => {
                        self.flush(cx);
                        if !self.upload.is_over() {
                            self.reader = Some(cx.waker().clone());
                        }
                        return Poll::Pending;
                    }
                    Poll::Ready(Ok(0)) => {
                        if let Phase::Body(decoder) = &mut self.phase
                            && let Err(error) = decoder.end()
                        {
                            Some(Err(H1ClientError::Body(error)))
                        } else {
                            continue;
                        }
                    }
                    Poll::Ready(Ok(_)) => continue,
                    Poll::Ready(Err(error)) => Some(Err(H1ClientError::BodyRead(error))),
                },
                Err(error) => Some(Err(H1ClientError::Body(error))),
            };
            if matches!(frame, Some(Err(_))) {
                self.close();
            }
            return Poll::Ready(frame);
        }
    }

    fn end_response(&mut self) {
        self.phase = Phase::Over;
        self.settle();
    }

    /// Makes the connection idle, or closes it, once both messages are over.
    fn settle(&mut self) {
        if self.phase != Phase::Over || !self.upload.is_sent() {
            return;
        }
        if !self.incoming.is_empty() {
            // It says more than it was asked.
            self.close();
        } else if !self.keep_alive {
            self.finish();
        } else {
            self.phase = Phase::Idle;
            if let Some(driver) = self.driver.clone() {
                self.watch(&mut Context::from_waker(&driver));
            }
        }
    }

    /// The turn of the connection's own task; ready when the connection is closed.
    fn poll_drive(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.driver.as_ref().is_some_and(|driver| driver.will_wake(cx.waker())) {
            self.driver = Some(cx.waker().clone());
        }
        if self.phase == Phase::Idle {
            self.watch(cx);
        }
        if matches!(self.phase, Phase::Body(_) | Phase::Over) && !self.upload.is_over() {
            match self.poll_write(cx) {
                Poll::Ready(Ok(())) => self.settle(),
                Poll::Ready(Err(error)) => {
                    self.close();
                    self.failed = Some(error);
                }
                Poll::Pending => {}
            }
        }
        match (&self.phase, &mut self.io) {
            (Phase::Closing, Some(io)) => {
                // It is closed in either case.
                let _ = ready!(Pin::new(io).poll_shutdown(cx));
                self.close();
                Poll::Ready(())
            }
            (Phase::Closed, _) | (_, None) => Poll::Ready(()),
            (Phase::Body(_) | Phase::Head | Phase::Idle | Phase::Over, Some(_)) => Poll::Pending,
        }
    }
}

impl<S, B: Body> H1Connecting<S, B> {
    /// Closes the connection, and says so to the other side.
    fn finish(&mut self) {
        self.phase = Phase::Closing;
        self.wake_driver();
    }

    /// Closes the connection without a word.
    fn close(&mut self) {
        self.phase = Phase::Closed;
        self.io = None;
        self.upload = RequestUpload::none();
        self.wake_driver();
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    fn wake_driver(&self) {
        if let Some(driver) = &self.driver {
            driver.wake_by_ref();
        }
    }
}

impl<S, B> H1Exchange<B> for RefCell<H1Connecting<S, B>>
where
    S: AsyncRead + AsyncWrite + Unpin,
    B: Body + Unpin,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    fn poll_send(&self, head: RequestHead<'_>, body: &mut Option<B>, cx: &mut Context<'_>) -> Poll<HeadSent<B>> {
        let mut connection = self.borrow_mut();
        let polled = match body.take() {
            Some(body) => match connection.begin(head, body, cx) {
                // No response has come yet, as was just seen.
                None => connection.poll_upload(cx),
                Some(body) => return Poll::Ready(HeadSent::Unsent(body)),
            },
            None => connection.poll_response(cx),
        };
        match ready!(polled) {
            Ok((parts, length)) => Poll::Ready(HeadSent::Answered(parts, length)),
            Err(error) => {
                connection.close();
                Poll::Ready(HeadSent::Broken(error))
            }
        }
    }

    fn reuse(&self, spare: HeaderMap) {
        self.borrow_mut().parser.reuse(spare);
    }

    fn is_idle(&self) -> bool {
        self.borrow().phase == Phase::Idle
    }

    fn finish(&self) {
        self.borrow_mut().finish();
    }
}

impl<S, B> H1Incoming for RefCell<H1Connecting<S, B>>
where
    S: AsyncRead + AsyncWrite + Unpin,
    B: Body + Unpin,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    fn poll_frame(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, H1ClientError>>> {
        self.borrow_mut().poll_frame(cx)
    }

    fn close(&self) {
        let mut connection = self.borrow_mut();
        // One that takes its leave is left to do so.
        if connection.phase != Phase::Closing {
            connection.close();
        }
    }
}

/// A request on its way out.
struct RequestUpload<B: Body> {
    head: Vec<u8>,
    /// Bytes of the head that were written.
    head_written: usize,
    /// Pieces of the body that wait to be written.
    segments: VecDeque<UploadSegment<B::Data>>,
    /// Bytes of all of them.
    waiting: usize,
    /// The body, until its end.
    body: Option<B>,
    framing: RequestFraming,
    progress: UploadProgress,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum UploadProgress {
    /// The other side takes no more of it.
    Refused,
    Sending,
    /// All of it was written.
    Sent,
}

/// A piece of a body as it is written.
enum UploadSegment<D> {
    Data(Chain<Chain<Bytes, D>, Bytes>),
    Text(Bytes),
}

impl<D: Buf> UploadSegment<D> {
    fn remaining(&self) -> usize {
        match self {
            UploadSegment::Data(data) => data.remaining(),
            UploadSegment::Text(text) => text.len(),
        }
    }

    fn advance(&mut self, count: usize) {
        match self {
            UploadSegment::Data(data) => data.advance(count),
            UploadSegment::Text(text) => text.advance(count),
        }
    }

    fn slices<'a>(&'a self, into: &mut [io::IoSlice<'a>]) -> usize {
        match self {
            UploadSegment::Data(data) => data.chunks_vectored(into),
            UploadSegment::Text(text) => text.chunks_vectored(into),
        }
    }
}

impl<B: Body> RequestUpload<B> {
    const fn none() -> Self {
        Self {
            head: Vec::new(),
            head_written: 0,
            segments: VecDeque::new(),
            waiting: 0,
            body: None,
            framing: RequestFraming::Length(0),
            progress: UploadProgress::Sent,
        }
    }

    /// Takes a body; the head is to be written into `head` next.
    fn begin(&mut self, framing: RequestFraming, body: B) {
        self.head.clear();
        (self.head_written, self.waiting) = (0, 0);
        self.segments.clear();
        self.body = (framing != RequestFraming::Length(0)).then_some(body);
        self.framing = framing;
        self.progress = UploadProgress::Sending;
    }

    fn is_sent(&self) -> bool {
        self.progress == UploadProgress::Sent
    }

    /// Returns whether nothing more will be written.
    fn is_over(&self) -> bool {
        self.progress != UploadProgress::Sending
    }
}

impl<B> RequestUpload<B>
where
    B: Body + Unpin,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    fn poll_write<S: AsyncWrite + Unpin>(
        &mut self,
        io: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), H1ClientError>> {
        while self.progress == UploadProgress::Sending {
            self.fill(cx)?;
            if self.head_written == self.head.len() && self.segments.is_empty() {
                ready!(Pin::new(&mut *io).poll_flush(cx)).map_err(H1ClientError::Write)?;
                if self.body.is_some() {
                    return Poll::Pending;
                }
                self.progress = UploadProgress::Sent;
                break;
            }
            match ready!(self.poll_write_some(io, cx)) {
                Ok(0) => return Poll::Ready(Err(H1ClientError::Write(io::ErrorKind::WriteZero.into()))),
                Ok(written) => self.advance(written),
                Err(error) => return Poll::Ready(Err(H1ClientError::Write(error))),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Takes pieces of the body until it has none now, or enough of them wait.
    fn fill(&mut self, cx: &mut Context<'_>) -> Result<(), H1ClientError> {
        while self.segments.len() < MOST_SEGMENTS && self.waiting < BUFFER {
            let Some(body) = &mut self.body else { break };
            let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(cx) else { break };
            let frame = match frame {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => return Err(H1ClientError::RequestBody(error.into())),
                None => {
                    self.end_body(None)?;
                    break;
                }
            };
            let last = body.is_end_stream();
            match frame.into_data() {
                Ok(data) => {
                    self.push_data(data)?;
                    if last {
                        self.end_body(None)?;
                    }
                }
                Err(other) => {
                    if let Ok(trailers) = other.into_trailers() {
                        self.end_body(Some(trailers))?;
                    }
                }
            }
        }
        Ok(())
    }

    fn push_data(&mut self, data: B::Data) -> Result<(), H1ClientError> {
        let length = data.remaining();
        if length == 0 {
            return Ok(());
        }
        let (before, after) = match &mut self.framing {
            RequestFraming::Chunked(_) => (chunk_line(length), Bytes::from_static(b"\r\n")),
            RequestFraming::Length(left) => {
                *left = left.checked_sub(length as u64).ok_or(H1ClientError::RequestLength)?;
                if *left == 0 {
                    self.body = None;
                }
                (Bytes::new(), Bytes::new())
            }
        };
        self.push(UploadSegment::Data(before.chain(data).chain(after)));
        Ok(())
    }

    /// Ends a body that has told its end. One that is shorter than its length says is an error.
    fn end_body(&mut self, trailers: Option<HeaderMap>) -> Result<(), H1ClientError> {
        self.body = None;
        let last = match &self.framing {
            RequestFraming::Chunked(announced) => last_chunk(announced, &trailers.unwrap_or_default()),
            RequestFraming::Length(0) => return Ok(()),
            RequestFraming::Length(_) => return Err(H1ClientError::RequestLength),
        };
        self.push(UploadSegment::Text(last));
        Ok(())
    }

    fn push(&mut self, segment: UploadSegment<B::Data>) {
        self.waiting += segment.remaining();
        self.segments.push_back(segment);
    }

    fn poll_write_some<S: AsyncWrite + Unpin>(&self, io: &mut S, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let head = &self.head[self.head_written..];
        if self.segments.is_empty() {
            return Pin::new(io).poll_write(cx, head);
        }
        let mut slices = [io::IoSlice::new(&[]); 1 + 3 * MOST_SEGMENTS];
        slices[0] = io::IoSlice::new(head);
        let mut count = usize::from(!head.is_empty());
        for segment in &self.segments {
            count += segment.slices(slices.get_mut(count..).unwrap_or_default());
        }
        Pin::new(io).poll_write_vectored(cx, &slices[..count])
    }

    /// Drops the bytes that were written. A piece exists until all of it was.
    fn advance(&mut self, written: usize) {
        let of_head = written.min(self.head.len() - self.head_written);
        self.head_written += of_head;
        let mut rest = written - of_head;
        self.waiting -= rest;
        while let Some(first) = self.segments.front_mut() {
            let length = first.remaining();
            if rest < length {
                first.advance(rest);
                break;
            }
            rest -= length;
            self.segments.pop_front();
        }
    }
}

#[cfg(test)]
mod tests;
