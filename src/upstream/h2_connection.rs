//! A shared HTTP/2 connection, and its streams.
//!
//! A connection is ready once the provider's settings have arrived, so that it never opens more streams than are
//! allowed (`SETTINGS_MAX_CONCURRENT_STREAMS`, RFC 9113 section 5.1.2). It takes no new streams once the provider has
//! sent GOAWAY or refused a stream, or an exchange on it ended before its request body did: the rest of that body
//! cannot be reliably cancelled while its stream exists, so the connection closes when its other streams are done.
//!
//! A network path can be lost without notice. So a PING (RFC 9113 section 6.7) is sent if exchanges wait on a
//! connection and no bytes arrive, and the connection takes no new streams until a response arrives. Exchanges that
//! already wait on it keep waiting: a provider that responds late but correctly must not be cut off, and the kernel's
//! timeout ends a lost path.

use std::cell::{Cell, RefCell};
use std::error::Error as _;
use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Request;
use http::uri::Authority;
use hyper::body::{Body, Frame, SizeHint};
use hyper::client::conn::http2;
use hyper::rt::Executor;
use hyper_util::rt::{TokioIo, TokioTimer};

use super::connection::{H2Transport, Sent, to_http2};
use super::dial::ProviderStream;
use super::exchange_error::ExchangeError;
use super::origin::Origin;
use super::received::ReceivedBody;
use super::socket::{ByteCounter, Counted, Look, SocketLook};
use crate::base::planted::{PlantedFault, planted};
use crate::base::time::Now;

/// Flow-control window of one stream for received data, in bytes: data that a client does not read stays with the
/// provider.
const STREAM_WINDOW: u32 = 256 << 10;
/// Maximum number of streams of one connection, even if the provider allows more: the windows of that many streams fit
/// into the connection's own, so that slow clients never use up the window that the other streams need.
const MOST_STREAMS: u32 = 100;
/// Bytes of a response's head.
const MOST_HEAD: u32 = 64 << 10;
/// A lane with streams is asked for a sign of life when nothing has come for this long. When it is busy, never.
const ASKED_AFTER: Duration = Duration::from_secs(3);
/// It takes no new streams when nothing has come for this long, the answer to that included.
const SILENT_AFTER: Duration = Duration::from_secs(6);
/// hyper ends a connection that owes an answer to a PING for so long. That is not for it to decide, so: never.
const NEVER: Duration = Duration::from_secs(24 * 3600);

type Io = TokioIo<Counted<ProviderStream>>;
/// A connection for as long as it lives.
type H2Driver<B> = Rc<RefCell<Option<http2::Connection<Io, Upload<B>, LocalExecutor>>>>;

/// The error that ended a connection.
type Ending = Rc<Cell<Option<hyper::Error>>>;

/// An HTTP/2 connection that several exchanges share.
pub(super) struct H2Connection<B> {
    sender: RefCell<http2::SendRequest<Upload<B>>>,
    /// Maximum number of concurrent streams that the provider allows; `None` once the connection is over.
    most: Box<dyn Fn() -> Option<usize>>,
    probe: SocketLook,
    received: Rc<ByteCounter>,
    authority: Authority,
    origin: Rc<Origin>,
    peer: Option<IpAddr>,
    streams: Cell<usize>,
    /// Bytes that had come when we last looked, and since when there were no more of them while streams were open.
    quiet: Cell<(u64, Now)>,
    /// True if it takes no new streams.
    closing: Cell<bool>,
    /// True if it holds a stream that only closing the connection can end.
    stuck: Cell<bool>,
    served: Cell<bool>,
    since: Cell<Now>,
}

/// One exchange on a lane.
pub(super) struct H2Stream<B> {
    shared_h2: Rc<H2Connection<B>>,
    /// True while hyper holds the request body; `None` without a body, and once no more of it can follow.
    uploading: Option<Rc<Cell<bool>>>,
}

/// A request body with a guard that shows if hyper still holds it. The body's own state does not suffice: a body may be
/// complete while the provider takes no more of it and never will.
struct Upload<B> {
    body: B,
    _held: Option<UploadGuard>,
}

struct UploadGuard(Rc<Cell<bool>>);

impl Drop for UploadGuard {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

impl<B: Body + Unpin> Body for Upload<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B> H2Connection<B>
where
    B: Body + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// Shakes hands and waits for the provider's settings.
    pub(super) async fn begin(io: Io, below: H2Transport, now: Now) -> hyper::Result<Rc<Self>> {
        let H2Transport { probe, received, authority, origin, peer } = below;
        let mut builder = http2::Builder::new(LocalExecutor);
        builder.initial_stream_window_size(STREAM_WINDOW).initial_connection_window_size(STREAM_WINDOW * MOST_STREAMS);
        // No streams until its settings allow some.
        builder.initial_max_send_streams(0).max_header_list_size(MOST_HEAD);
        builder.timer(TokioTimer::new()).keep_alive_interval(ASKED_AFTER).keep_alive_timeout(NEVER);
        let (mut sender, connection) = builder.handshake(io).await?;
        let driver: H2Driver<B> = Rc::new(RefCell::new(Some(connection)));
        let ending = Ending::default();
        tokio::task::spawn_local(drive(driver.clone(), ending.clone(), received.clone(), origin.clone(), now));
        let most = move || Some(driver.borrow().as_ref()?.current_max_send_streams());
        poll_fn(|cx| {
            received.wake_next(cx.waker());
            match most() {
                None => Poll::Ready(()),
                Some(0) => Poll::Pending,
                Some(_) => Poll::Ready(()),
            }
        })
        .await;
        // What ended the connection says more than that it is closed: an alert of TLS 1.3 about our certificate comes now.
        sender.ready().await.map_err(|closed| ending.take().unwrap_or(closed))?;
        Ok(Rc::new(Self {
            sender: RefCell::new(sender),
            most: Box::new(most),
            probe,
            quiet: Cell::new((received.bytes(), now)),
            received,
            authority,
            origin,
            peer,
            streams: Cell::new(0),
            closing: Cell::new(false),
            stuck: Cell::new(false),
            served: Cell::new(false),
            since: Cell::new(now),
        }))
    }
}

/// Polls a connection to its end; how it ended reaches its exchanges, and what it says of HTTP/2 at large is kept.
async fn drive<B>(driver: H2Driver<B>, ending: Ending, received: Rc<ByteCounter>, origin: Rc<Origin>, now: Now)
where
    B: Body + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let ended = poll_fn(|cx| match driver.borrow_mut().as_mut() {
        Some(connection) => Pin::new(connection).poll(cx),
        None => Poll::Ready(Ok(())),
    })
    .await;
    if let Err(error) = ended {
        let wants_http1 =
            |error: &h2::Error| error.is_remote() && error.reason() == Some(h2::Reason::HTTP_1_1_REQUIRED);
        if h2_error(&error).is_some_and(wants_http1) {
            origin.wants_http1(now);
        }
        ending.set(Some(error));
    }
    driver.borrow_mut().take();
    received.wake();
}

impl<B> H2Connection<B> {
    /// No new streams from now on.
    pub(super) fn close(&self) {
        self.closing.set(true);
    }

    /// Returns whether the connection may ever take another stream.
    pub(super) fn is_open(&self) -> bool {
        !self.closing.get() && !self.origin.is_http1() && !self.sender.borrow().is_closed()
    }

    /// Returns whether the connection takes another stream now.
    pub(super) fn has_room(&self, now: Now) -> bool {
        let streams = self.streams.get();
        self.is_open()
            && streams < MOST_STREAMS as usize
            && (self.most)().is_some_and(|most| streams < most)
            && !self.is_silent(now)
    }

    /// Returns whether exchanges wait on the connection and no byte has arrived for [`SILENT_AFTER`], in spite of a
    /// PING.
    fn is_silent(&self, now: Now) -> bool {
        let (bytes, since) = self.quiet.get();
        if self.streams.get() == 0 || self.received.bytes() != bytes {
            self.quiet.set((self.received.bytes(), now));
            return false;
        }
        now.since(since) >= SILENT_AFTER
    }

    /// Returns the time of the last clean end of an exchange, or else of the connection's creation, if no exchange is
    /// in progress.
    pub(super) fn idle_since(&self) -> Option<Now> {
        (self.streams.get() == 0).then(|| self.since.get())
    }

    /// Returns whether it has carried an exchange to its end.
    pub(super) fn has_served(&self) -> bool {
        self.served.get()
    }

    /// Returns the state of its socket. While exchanges are in progress, arriving data is being read anyway, and the
    /// state is [`Look::Quiet`].
    pub(super) fn look(&self) -> Look {
        if self.streams.get() > 0 { Look::Quiet } else { self.probe.look() }
    }
}

impl<B> H2Stream<B> {
    /// The address that its connection leads to, if that is known.
    pub(super) fn peer(&self) -> Option<IpAddr> {
        self.shared_h2.peer
    }

    /// One more stream, which counts from now on.
    pub(super) fn of(shared_h2: &Rc<H2Connection<B>>, now: Now) -> Self {
        if shared_h2.streams.get() == 0 {
            shared_h2.quiet.set((shared_h2.received.bytes(), now));
        }
        shared_h2.streams.set(shared_h2.streams.get() + 1);
        Self { shared_h2: shared_h2.clone(), uploading: None }
    }

    /// The provider kept it waiting for too long: the whole connection may be dead, so nothing new goes over it.
    pub(super) fn distrust(&self) {
        self.shared_h2.close();
    }

    /// The exchange ended cleanly on both sides. Should hyper hold its body all the same, the lane is not lent again.
    pub(super) fn finish(self, now: Now) {
        self.shared_h2.served.set(true);
        self.shared_h2.since.set(now);
    }

    /// The exchange is over, and nothing more of its body can follow: all of it was sent, or it was called back.
    pub(super) fn leave(mut self) {
        self.uploading = None;
    }

    fn is_uploading(&self) -> bool {
        self.uploading.as_ref().is_some_and(|held| held.get()) && !planted(PlantedFault::UploadLeft)
    }
}

impl<B: Body + Unpin + 'static> H2Stream<B> {
    pub(super) async fn send(&mut self, mut request: Request<B>) -> Sent<B> {
        to_http2(&mut request, &self.shared_h2.authority);
        // Without a body there is nothing to be held.
        self.uploading = (!request.body().is_end_stream()).then(|| Rc::new(Cell::new(true)));
        let held = self.uploading.clone().map(UploadGuard);
        let request = request.map(|body| Upload { body, _held: held });
        let sending = self.shared_h2.sender.borrow_mut().try_send_request(request);
        let mut failed = match sending.await {
            Ok(response) => return Sent::Answered(ReceivedBody::response(response)),
            Err(failed) => failed,
        };
        if let Some(request) = failed.take_message() {
            self.shared_h2.close();
            return Sent::Unsent(request.into_body().body);
        }
        let error = failed.into_error();
        let verdict = verdict(h2_error(&error));
        let error = ExchangeError::new(error, self.shared_h2.probe.is_renegotiated());
        match verdict {
            StreamVerdict::ConnectionLost => Sent::Broken { error, closed: true },
            StreamVerdict::NotProcessed => {
                self.uploading = None;
                self.shared_h2.close();
                Sent::Refused(error)
            }
            StreamVerdict::NotOverHttp2 => {
                self.uploading = None;
                let (_, now) = self.shared_h2.quiet.get();
                self.shared_h2.origin.wants_http1(now);
                Sent::Refused(error)
            }
            StreamVerdict::StreamLost => Sent::Broken { error, closed: false },
        }
    }
}

impl<B> Drop for H2Stream<B> {
    fn drop(&mut self) {
        let shared_h2 = &self.shared_h2;
        shared_h2.streams.set(shared_h2.streams.get() - 1);
        if self.is_uploading() {
            shared_h2.close();
            shared_h2.stuck.set(true);
        }
        if shared_h2.stuck.get() && shared_h2.streams.get() == 0 {
            shared_h2.probe.close_now();
        }
    }
}

/// The consequence of an error for a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum StreamVerdict {
    ConnectionLost,
    /// It is to be sent over HTTP/1.1.
    NotOverHttp2,
    NotProcessed,
    StreamLost,
}

/// The error of h2 below one of hyper; an error of input or output has none.
fn h2_error(error: &hyper::Error) -> Option<&h2::Error> {
    error.source()?.downcast_ref()
}

/// h2 puts `GOAWAY` only on streams above the last one that it names, and on those not yet opened.
fn verdict(error: Option<&h2::Error>) -> StreamVerdict {
    match error {
        None => StreamVerdict::ConnectionLost,
        Some(error) if error.is_remote() && error.reason() == Some(h2::Reason::HTTP_1_1_REQUIRED) => {
            StreamVerdict::NotOverHttp2
        }
        Some(error) if error.is_remote() && error.is_go_away() => StreamVerdict::NotProcessed,
        Some(error) if error.is_remote() && error.reason() == Some(h2::Reason::REFUSED_STREAM) => {
            StreamVerdict::NotProcessed
        }
        Some(error) if error.is_io() => StreamVerdict::ConnectionLost,
        Some(_) => StreamVerdict::StreamLost,
    }
}

/// Runs the tasks of h2 on the thread of their connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct LocalExecutor;

impl<F: Future + 'static> Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move {
            let _ = future.await;
        });
    }
}
