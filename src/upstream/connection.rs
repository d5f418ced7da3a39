//! The connection of one exchange: an HTTP/1.1 connection of its own, or a stream of a shared HTTP/2 connection.
//!
//! Requests arrive in the form of HTTP/1.1 (origin-form target, `Host` field) and are put into the form of the
//! connection that carries them. The result of sending shows how certain it is that the provider did not process the
//! request: this decides if a request may be sent again.

use std::net::IpAddr;
use std::rc::Rc;

use http::header::HOST;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Request, Response, Uri};
use hyper::body::Body;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ProtocolVersion;
use tokio::time::timeout;

use super::dial::{Destination, DialError, authority};
use super::exchange_error::ExchangeError;
use super::h1_client::{H1Client, H1ClientError, H1Sent};
use super::h2_connection::{H2Connection, H2Stream};
use super::http1::Http1Io;
use super::origin::Origin;
use super::received::ReceivedBody;
use super::request_head::RequestHead;
use super::socket::{ByteCounter, ConnectionCount, Counted, Look, SocketLook};
use crate::base::time::Now;

/// A connection lent for one exchange.
pub struct Connection<B> {
    pub(super) kind: Kind<B>,
    /// True if the connection was idle in the pool or carried an exchange before: the other side may have closed it
    /// meanwhile.
    pub reused: bool,
}

pub(super) enum Kind<B> {
    Own(H1Connection<B>),
    Shared(H2Stream<B>),
}

/// An HTTP/1.1 connection, for one exchange at a time.
pub(super) struct H1Connection<B> {
    sender: H1Sender<B>,
    probe: SocketLook,
    received: Rc<ByteCounter>,
    authority: Authority,
    peer: Option<IpAddr>,
    /// Its exchange is over, or it has none.
    at_rest: bool,
}

/// The client that speaks HTTP/1.1 on a connection.
enum H1Sender<B> {
    /// Driven by those who use it.
    Direct(H1Client<B>),
    /// With a task of its own, over a stream that corrects heads on their way; also for the control plane.
    Hyper(http1::SendRequest<B>),
}

/// The result of dialling, by negotiated protocol.
pub(super) enum DialedConnection<B> {
    Own(H1Connection<B>),
    Shared(Rc<H2Connection<B>>),
}

/// The consequence if a pooled connection turns out to have been closed by the other side.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Resend {
    /// The request can be sent again: what the connection's own task knows is enough.
    Bearable,
    /// It cannot: the kernel is asked first.
    Unbearable,
}

/// The result of sending a request.
pub enum Sent<B> {
    /// The head of a response arrived.
    Answered(Response<ReceivedBody>),
    /// It broke off after bytes may have been sent.
    Broken {
        error: ExchangeError,
        /// The connection itself ended, and not a byte of an answer had come over it for this request.
        closed: bool,
    },
    /// The provider says that it did nothing with this request: `REFUSED_STREAM`, `HTTP_1_1_REQUIRED`, or `GOAWAY` before
    /// it (RFC 9113 sections 7 and 8.7). It can be sent on another connection, which is of the right kind then.
    Refused(ExchangeError),
    /// Not one byte was written; here is the body again.
    Unsent(B),
}

impl Destination {
    /// A new connection for one exchange, within the deadline.
    pub async fn open<B>(&self, now: Now) -> Result<Connection<B>, DialError>
    where
        B: Body + Unpin + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let kind = match self.open_counted(now, None).await? {
            DialedConnection::Own(own) => Kind::Own(own),
            DialedConnection::Shared(shared_h2) => Kind::Shared(H2Stream::of(&shared_h2, now)),
        };
        Ok(Connection { kind, reused: false })
    }

    /// The same; `open` is held for as long as the connection lives.
    pub(super) async fn open_counted<B>(
        &self,
        now: Now,
        open: Option<ConnectionCount>,
    ) -> Result<DialedConnection<B>, DialError>
    where
        B: Body + Unpin + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        match timeout(self.connect_timeout, self.begin(now, open)).await {
            Ok(opened) => opened,
            Err(_) => Err(DialError::Timeout),
        }
    }

    async fn begin<B>(&self, now: Now, open: Option<ConnectionCount>) -> Result<DialedConnection<B>, DialError>
    where
        B: Body + Unpin + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let origin = Origin::of(&self.host, self.port);
        let stream = self.dial(now, origin.takes_http2(now)).await?;
        let authority: Authority = authority(&self.host, self.port, Some(443))
            .parse()
            .map_err(|_| DialError::Dns("the host cannot stand in a URL".into()))?;
        let (socket, session) = stream.get_ref();
        let (probe, peer, h2) = (socket.probe(), socket.peer, session.alpn_protocol() == Some(b"h2"));
        if session.protocol_version() != Some(ProtocolVersion::TLSv1_2) {
            socket.stop_reading_records();
        }
        let received = Rc::new(ByteCounter::default());
        let pooled = open.is_some();
        let stream = Counted::new(stream, received.clone(), open);
        if h2 {
            let below = H2Transport { probe, received: received.clone(), authority, origin, peer };
            let begun = H2Connection::begin(TokioIo::new(stream), below, now).await;
            let failed = |error| ExchangeError::from(error).of_certificate(received.refuses_certificate());
            return begun.map(DialedConnection::Shared).map_err(|error| DialError::Http(failed(error)));
        }
        let http1 = &self.path.http1;
        if pooled && !http1.preserves_case() && !http1.drop_invalid {
            let (client, driver) = H1Client::new(stream, authority.clone(), received.clone());
            tokio::task::spawn_local(driver);
            let sender = H1Sender::Direct(client);
            return Ok(DialedConnection::Own(H1Connection { sender, probe, received, authority, peer, at_rest: true }));
        }
        let io = TokioIo::new(Http1Io::new(stream, received.clone(), http1, &self.host));
        let (sender, connection) =
            http1.builder().handshake(io).await.map_err(|error| DialError::Http(error.into()))?;
        tokio::task::spawn_local(async move {
            // Errors reach the exchange that is under way; an idle connection's end is no news.
            let _ = connection.await;
        });
        let sender = H1Sender::Hyper(sender);
        Ok(DialedConnection::Own(H1Connection { sender, probe, received, authority, peer, at_rest: true }))
    }
}

/// The inputs of an HTTP/2 connection from the layers below it.
pub(super) struct H2Transport {
    pub(super) probe: SocketLook,
    pub(super) received: Rc<ByteCounter>,
    pub(super) authority: Authority,
    pub(super) origin: Rc<Origin>,
    /// The address that it is connected to, if that is known.
    pub(super) peer: Option<IpAddr>,
}

impl<B: Body + Unpin + 'static> Connection<B> {
    /// Sends a request and waits for the head of its answer. Dropping the future ends the exchange: it closes the
    /// connection or resets the stream.
    pub async fn send(&mut self, head: RequestHead<'_>, body: B) -> Sent<B> {
        match &mut self.kind {
            Kind::Own(own) => own.send(head, body).await,
            Kind::Shared(stream) => stream.send(head.to_request(body)).await,
        }
    }
}

impl<B> Connection<B> {
    /// The address that it is connected to, if that is known: the provider's, or that of a proxy on the way.
    pub fn peer(&self) -> Option<IpAddr> {
        match &self.kind {
            Kind::Own(own) => own.peer,
            Kind::Shared(stream) => stream.peer(),
        }
    }

    /// Takes over a map that is not needed any more, for the fields of a response to come.
    pub fn reuse(&self, spare: HeaderMap) {
        if let Kind::Own(H1Connection { sender: H1Sender::Direct(client), .. }) = &self.kind {
            client.reuse(spare);
        }
    }

    /// Closes a connection of one's own after its exchange ended cleanly on both sides.
    pub fn close(self) {
        match self.kind {
            Kind::Own(mut own) => own.at_rest = true,
            Kind::Shared(stream) => stream.leave(),
        }
    }

    /// Gives up a response that is still coming. A connection of its own is reset, so that a provider which is blocked in
    /// writing hears of it at once, and not when it next probes a window of zero (RFC 9293 section 3.8.6.1).
    pub fn abort(self) {
        match self.kind {
            Kind::Own(own) => own.probe.reset_on_close(),
            Kind::Shared(stream) => drop(stream),
        }
    }

    /// Closes a connection that fell silent; one that is shared takes no new exchanges, for it may be dead as a whole.
    pub fn distrust(self) {
        match self.kind {
            Kind::Own(own) => drop(own),
            Kind::Shared(stream) => stream.distrust(),
        }
    }
}

impl<B: Body + 'static> H1Connection<B> {
    async fn send(&mut self, head: RequestHead<'_>, body: B) -> Sent<B> {
        let before = self.received.bytes();
        self.at_rest = false;
        self.received.begin_exchange();
        match &mut self.sender {
            H1Sender::Direct(client) => match client.send(head, body).await {
                H1Sent::Answered(response) => Sent::Answered(ReceivedBody::http1_response(response)),
                H1Sent::Unsent(body) => Sent::Unsent(body),
                H1Sent::Broken(error) => {
                    let closed = !matches!(error, H1ClientError::Parse(_)) && self.received.bytes() == before;
                    Sent::Broken { error: ExchangeError::new(error, self.probe.is_renegotiated()), closed }
                }
            },
            H1Sender::Hyper(sender) => match sender.try_send_request(to_http1(head, body, &self.authority)).await {
                Ok(response) => Sent::Answered(ReceivedBody::response(response)),
                Err(mut error) => match error.take_message() {
                    Some(request) => Sent::Unsent(request.into_body()),
                    None => {
                        let error = error.into_error();
                        let closed = !error.is_parse() && self.received.bytes() == before;
                        Sent::Broken { error: ExchangeError::new(error, self.probe.is_renegotiated()), closed }
                    }
                },
            },
        }
    }

    /// Its exchange ended cleanly on both sides.
    pub(super) fn rest(&mut self) {
        self.at_rest = true;
    }

    /// Returns whether the connection is open as far as its own task knows.
    pub(super) fn is_open(&self) -> bool {
        let open = match &self.sender {
            H1Sender::Direct(client) => client.is_idle(),
            H1Sender::Hyper(sender) => !sender.is_closed(),
        };
        open && self.received.takes_writes()
    }

    /// Returns whether the connection can carry a request now, as far as the kernel knows. On an idle connection that
    /// has `served`, no bytes may have arrived; on a fresh one, TLS may have sent its tickets.
    pub(super) fn is_usable(&self, served: bool, risk: Resend) -> bool {
        let look = match risk {
            Resend::Bearable => Look::Quiet,
            Resend::Unbearable => self.probe.look(),
        };
        let ready = match &self.sender {
            H1Sender::Direct(client) => client.is_idle(),
            H1Sender::Hyper(sender) => sender.is_ready(),
        };
        ready
            && match look {
                Look::Closed => false,
                Look::Quiet => true,
                Look::Speaking => !served,
            }
    }
}

impl<B> Drop for H1Connection<B> {
    /// An exchange that did not come to its end takes its connection with it at once: its task would wait for an upload
    /// that nothing may follow, and must not end it as if it were whole.
    fn drop(&mut self) {
        self.received.abandon();
        if !self.at_rest {
            self.probe.close_now();
        }
    }
}

/// Target in origin form, authority in the `Host` field.
fn to_http1<B>(head: RequestHead<'_>, body: B, authority: &Authority) -> Request<B> {
    let mut request = head.to_request(body);
    if request.uri().authority().is_some() {
        *request.uri_mut() = Uri::from(path_of(&request));
    }
    if !request.headers().contains_key(HOST)
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        request.headers_mut().insert(HOST, host);
    }
    request
}

/// Scheme and authority in the target, no `Host` field (RFC 9113 section 8.3.1). hyper removes the fields that speak of
/// a connection, and `TE` unless it says `trailers`.
pub(super) fn to_http2<B>(request: &mut Request<B>, authority: &Authority) {
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(Scheme::HTTPS);
    parts.authority = Some(authority.clone());
    parts.path_and_query = Some(path_of(request));
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
    *request.version_mut() = http::Version::HTTP_2;
    request.headers_mut().remove(HOST);
}

fn path_of<B>(request: &Request<B>) -> PathAndQuery {
    request.uri().path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_takes_the_form_of_its_connection() {
        let authority: Authority = "bank.example:8443".parse().unwrap();
        for target in ["/v1/x?y=%20", "https://other.example/v1/x?y=%20"] {
            let (head, ()) = Request::get(target).body(()).unwrap().into_parts();
            let request = to_http1(RequestHead::of(&head), (), &authority);
            assert_eq!(request.uri().to_string(), "/v1/x?y=%20");
            assert_eq!(request.headers()[HOST], "bank.example:8443");
            let mut request = RequestHead::of(&request.into_parts().0).to_request(());
            to_http2(&mut request, &authority);
            assert_eq!(request.uri().to_string(), "https://bank.example:8443/v1/x?y=%20");
            assert_eq!((request.version(), request.headers().len()), (http::Version::HTTP_2, 0));
        }
    }
}
