//! TLS on a byte stream, without buffers of its own while nothing moves.
//!
//! It drives rustls's unbuffered connections. Bytes are read into a buffer that all connections of a thread share, and
//! decrypted there; sealed bytes are written from another one. What a connection keeps between two turns is what it
//! must: a part of a record, plaintext that its reader did not take, ciphertext that the socket did not take. At rest
//! that is nothing.
//!
//! **Records.** Written bytes are gathered until a flush, or until they fill a record (RFC 8446 section 5.1): the frames
//! of one turn travel in one record. Who writes must flush.
//!
//! **The end.** An end of the stream without close_notify is an error, [`io::ErrorKind::UnexpectedEof`] (RFC 8446 section
//! 6.1): it may have been cut off by anybody. A violation of the protocol is [`io::ErrorKind::InvalidData`] with the
//! [`rustls::Error`] inside; the alert is sent as far as the socket takes it.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::pki_types::ServerName;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus, WriteTraffic};
use rustls::{ClientConfig, CommonState, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::blocking_threads::BlockingThreads;

/// The longest plaintext of a record (RFC 8446 section 5.1).
const RECORD: usize = 16 * 1024;
/// The longest record on the wire, with its header (RFC 5246 section 6.2.3).
const WIRE: usize = 5 + RECORD + 2048;
/// What a record has besides its plaintext, in bytes: no cipher suite has more.
const OVERHEAD: usize = 64;
/// Bytes that are sealed at a time at most, for one write to the socket.
const MOST_SEALED: usize = 2 * RECORD;
/// Bytes for which there is room at least in each read.
const LEAST_READ: usize = 4 * 1024;
/// Received bytes that may wait for the rest of a handshake message; rustls bounds the message itself.
const MOST_INCOMING: usize = 128 * 1024;
/// A scratch buffer that is longer is not kept.
const MOST_SCRATCH: usize = 3 * WIRE;
/// Buffers of each kind that a thread keeps: a turn uses as many as it has streams inside of each other, and one for each
/// stream that was written to and not flushed yet.
const SPARES: usize = 16;

thread_local! {
    /// For received and for sealed bytes; each is filled with bytes that mean nothing.
    static SCRATCH: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
    /// For written bytes; empty.
    static GATHERED: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// A server's side.
pub type ServerStream<S> = TlsStream<S, UnbufferedServerConnection>;
/// A client's side.
pub type ClientStream<S> = TlsStream<S, UnbufferedClientConnection>;

/// A stream that speaks TLS. Made by a handshake, so application data may flow.
pub struct TlsStream<S, C> {
    io: S,
    session: C,
    /// Received bytes that were not decrypted yet.
    incoming: Vec<u8>,
    /// `incoming` may hold a whole record: it is decrypted before more is read.
    holds_record: bool,
    /// Decrypted bytes that were not taken yet.
    plaintext: Remainder,
    /// Written bytes that wait for a flush.
    gathered: Vec<u8>,
    /// Sealed bytes that the socket did not take yet.
    unsent: Remainder,
    /// The other side has said that it sends no more.
    ended: bool,
    /// We have said so.
    closed: bool,
}

/// Bytes of which some were used.
#[derive(Default)]
struct Remainder {
    bytes: Vec<u8>,
    used: usize,
}

impl Remainder {
    fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    fn rest(&self) -> &[u8] {
        self.bytes.get(self.used..).unwrap_or_default()
    }

    /// Adds bytes at the end.
    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Drops bytes at the beginning; the memory goes with the last one.
    fn take(&mut self, count: usize) {
        self.used += count;
        if self.used >= self.bytes.len() {
            *self = Self::default();
        }
    }
}

/// A connection of rustls, of either side.
pub trait UnbufferedSession: Unpin {
    /// The state of this side.
    type Data;

    /// Processes received bytes up to the next event.
    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;

    /// The state that both sides have.
    fn state(&self) -> &CommonState;
}

impl UnbufferedSession for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, ClientConnectionData> {
        self.process_tls_records(incoming)
    }

    fn state(&self) -> &CommonState {
        self
    }
}

impl UnbufferedSession for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, ServerConnectionData> {
        self.process_tls_records(incoming)
    }

    fn state(&self) -> &CommonState {
        self
    }
}

/// The reason for which processing stopped.
#[derive(Debug)]
enum ProcessStop {
    /// The reader's buffer is full.
    Full,
    /// All of it was processed; application data may be written.
    Writable,
    /// All of it was processed; more must be received first.
    Waiting,
    /// Both sides have closed.
    Closed,
    Failed(rustls::Error),
}

impl<S: AsyncRead + AsyncWrite + Unpin> ClientStream<S> {
    /// Connects as a client; `alpn` replaces the protocols that the settings offer.
    ///
    /// # Errors
    /// `InvalidData` with a [`rustls::Error`] inside: the handshake failed. All others: the stream did.
    pub async fn connect(
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
        alpn: Option<Vec<Vec<u8>>>,
        io: S,
    ) -> io::Result<Self> {
        Self::new(io, client_session(config, name, alpn)?, Vec::new()).shake().await
    }

    /// Connects with settings whose private key is in a key service: all that may sign is computed on these threads.
    ///
    /// # Errors
    /// Those of [`ClientStream::connect`]; a signature that was not made is a [`rustls::Error::Other`].
    pub async fn connect_on(
        threads: &BlockingThreads,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
        alpn: Option<Vec<Vec<u8>>>,
        io: S,
    ) -> io::Result<Self> {
        Self::new(io, client_session(config, name, alpn)?, Vec::new()).shake_on(threads).await
    }
}

/// A client's session; `alpn` replaces the protocols that the settings offer.
fn client_session(
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    alpn: Option<Vec<Vec<u8>>>,
) -> io::Result<UnbufferedClientConnection> {
    let session = match alpn {
        Some(alpn) => UnbufferedClientConnection::new_with_alpn(config, name, alpn),
        None => UnbufferedClientConnection::new(config, name),
    };
    session.map_err(invalid)
}

impl<S: AsyncRead + AsyncWrite + Unpin> ServerStream<S> {
    /// Accepts a client whose first bytes were read already. The errors are those of [`ClientStream::connect`].
    pub(super) async fn accept(config: Arc<ServerConfig>, io: S, received: Vec<u8>) -> io::Result<Self> {
        let session = UnbufferedServerConnection::new(config).map_err(invalid)?;
        Self::new(io, session, received).shake().await
    }
}

impl<S, C: UnbufferedSession> TlsStream<S, C> {
    fn new(io: S, session: C, received: Vec<u8>) -> Self {
        Self {
            io,
            session,
            holds_record: !received.is_empty(),
            incoming: received,
            plaintext: Remainder::default(),
            gathered: Vec::new(),
            unsent: Remainder::default(),
            ended: false,
            closed: false,
        }
    }

    /// The stream below, and the outcome of the handshake.
    pub fn get_ref(&self) -> (&S, &CommonState) {
        (&self.io, self.session.state())
    }
}

impl<S, C> TlsStream<S, C>
where
    S: AsyncRead + AsyncWrite + Unpin,
    C: UnbufferedSession,
{
    /// Completes the handshake.
    async fn shake(mut self) -> io::Result<Self> {
        poll_fn(|cx| self.poll_handshake(cx)).await?;
        Ok(self)
    }

    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if let Err(error) = self.process_incoming(|_| {}) {
                return Poll::Ready(Err(self.fail(cx, error)));
            }
            // Both sides may write at once, so it reads on while the socket takes nothing.
            let sent = match self.poll_send(cx)? {
                Poll::Ready(()) => Pin::new(&mut self.io).poll_flush(cx)?,
                Poll::Pending => Poll::Pending,
            };
            if !self.session.state().is_handshaking() {
                return sent.map(Ok);
            }
            if ready!(self.poll_receive(cx, None))? == 0 {
                return Poll::Ready(Err(handshake_eof()));
            }
        }
    }

    /// Completes the handshake; what was received is processed on these threads, since that may sign.
    async fn shake_on(mut self, threads: &BlockingThreads) -> io::Result<Self>
    where
        C: Send + 'static,
    {
        // The first message of a client is signed by nobody.
        let mut processed = self.process_incoming(|_| {}).map(drop);
        loop {
            if let Err(error) = processed {
                return Err(poll_fn(|cx| Poll::Ready(self.fail(cx, error.clone()))).await);
            }
            if poll_fn(|cx| self.poll_exchange(cx)).await? {
                return Ok(self);
            }
            let Self { io, session, incoming, plaintext, unsent, ended, .. } = self;
            let step = HandshakeStep { session, incoming, plaintext, unsent, ended };
            let (step, result) = threads.run(move || step.process()).await?;
            processed = result;
            let HandshakeStep { session, incoming, plaintext, unsent, ended } = step;
            self = Self { incoming, plaintext, unsent, ended, ..Self::new(io, session, Vec::new()) };
        }
    }

    /// Sends what is sealed, and receives once without processing it. True: all was sent, and the handshake is done.
    fn poll_exchange(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let sent = match self.poll_send(cx)? {
            Poll::Ready(()) => Pin::new(&mut self.io).poll_flush(cx)?,
            Poll::Pending => Poll::Pending,
        };
        if !self.session.state().is_handshaking() {
            return sent.map(|()| Ok(true));
        }
        let kept = self.incoming.len();
        if kept > MOST_INCOMING {
            return Poll::Ready(Err(too_long()));
        }
        self.incoming.resize(kept + LEAST_READ, 0);
        let mut unread = ReadBuf::new(self.incoming.get_mut(kept..).unwrap_or_default());
        let read = Pin::new(&mut self.io).poll_read(cx, &mut unread).map_ok(|()| unread.filled().len());
        let received = if let Poll::Ready(Ok(received)) = read { received } else { 0 };
        self.incoming.truncate(kept + received);
        match ready!(read)? {
            0 => Poll::Ready(Err(handshake_eof())),
            _ => Poll::Ready(Ok(false)),
        }
    }

    /// Reads from the stream once and decrypts what came, into `into` as far as that has room. Returns the number of
    /// bytes that were received; 0 at the end of the stream.
    fn poll_receive(&mut self, cx: &mut Context<'_>, into: Option<&mut ReadBuf<'_>>) -> Poll<io::Result<usize>> {
        let kept = self.incoming.len();
        if kept > MOST_INCOMING {
            return Poll::Ready(Err(too_long()));
        }
        let mut buffer = take_scratch();
        if buffer.len() < kept + LEAST_READ {
            buffer.resize(kept + LEAST_READ, 0);
        }
        let mut unread = ReadBuf::new(&mut buffer[kept..]);
        let read = Pin::new(&mut self.io).poll_read(cx, &mut unread).map_ok(|()| unread.filled().len());
        let mut failed = None;
        if let Poll::Ready(Ok(received @ 1..)) = read {
            buffer[..kept].copy_from_slice(&self.incoming);
            let received = &mut buffer[..kept + received];
            let mut plaintext = Plaintext { into, rest: &mut self.plaintext };
            let (used, stop) =
                process(&mut self.session, received, &mut plaintext, &mut self.unsent, &mut self.ended, |_| {});
            let rest = &received[used..];
            if rest.is_empty() {
                self.incoming = Vec::new();
            } else {
                self.incoming.clear();
                self.incoming.extend_from_slice(rest);
            }
            self.holds_record = matches!(stop, ProcessStop::Full) && !rest.is_empty();
            if let ProcessStop::Failed(error) = stop {
                failed = Some(error);
            }
        }
        keep_scratch(buffer);
        match failed {
            Some(error) => Poll::Ready(Err(self.fail(cx, error))),
            None => read,
        }
    }

    /// Processes all that was received earlier, and writes by `write` if application data may be written.
    fn process_incoming(
        &mut self,
        write: impl FnMut(&mut WriteTraffic<'_, C::Data>),
    ) -> Result<ProcessStop, rustls::Error> {
        let mut plaintext = Plaintext { into: None, rest: &mut self.plaintext };
        let (used, stop) =
            process(&mut self.session, &mut self.incoming, &mut plaintext, &mut self.unsent, &mut self.ended, write);
        self.incoming.drain(..used.min(self.incoming.len()));
        if self.incoming.is_empty() {
            self.incoming = Vec::new();
        }
        self.holds_record = false;
        match stop {
            ProcessStop::Failed(error) => Err(error),
            stop => Ok(stop),
        }
    }

    /// Sends the alert, as far as the socket takes it, and returns the error.
    fn fail(&mut self, cx: &mut Context<'_>, error: rustls::Error) -> io::Error {
        // The error that is told is the first one.
        let _ = self.poll_send(cx).is_ready() && Pin::new(&mut self.io).poll_flush(cx).is_ready();
        invalid(error)
    }

    /// Sends sealed bytes that the socket did not take before.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            match ready!(Pin::new(&mut self.io).poll_write(cx, self.unsent.rest()))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => self.unsent.take(sent),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Lets `write` make sealed bytes, `most` of them, and sends what the socket takes.
    fn write_traffic(
        &mut self,
        cx: &mut Context<'_>,
        most: usize,
        mut write: impl FnMut(&mut WriteTraffic<'_, C::Data>, &mut [u8]) -> Result<usize, EncryptError>,
    ) -> io::Result<()> {
        let mut buffer = take_scratch();
        if buffer.len() < most {
            buffer.resize(most, 0);
        }
        let mut sealed = None;
        let stop = self.process_incoming(|traffic| sealed = Some(write(traffic, &mut buffer)));
        let sent = match (stop, sealed) {
            (Err(error), _) => Err(self.fail(cx, error)),
            (Ok(_), Some(Ok(length))) => self.send(cx, buffer.get(..length).unwrap_or_default()),
            (Ok(_), Some(Err(error))) => Err(io::Error::other(error)),
            (Ok(_), None) => Err(io::ErrorKind::BrokenPipe.into()),
        };
        keep_scratch(buffer);
        sent
    }

    /// Sends sealed bytes behind those that wait, and keeps what the socket does not take.
    fn send(&mut self, cx: &mut Context<'_>, mut sealed: &[u8]) -> io::Result<()> {
        if let Poll::Ready(sent) = self.poll_send(cx) {
            sent?;
            while !sealed.is_empty() {
                match Pin::new(&mut self.io).poll_write(cx, sealed) {
                    Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                    Poll::Ready(Ok(sent)) => sealed = sealed.get(sent..).unwrap_or_default(),
                    Poll::Ready(Err(error)) => return Err(error),
                    Poll::Pending => break,
                }
            }
        }
        if !sealed.is_empty() {
            self.unsent.push(sealed);
        }
        Ok(())
    }

    /// Seals what was gathered.
    fn seal_gathered(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let gathered = std::mem::take(&mut self.gathered);
        let sealed = self.seal(cx, &[IoSlice::new(&gathered)]);
        keep_gathered(gathered);
        sealed.map(drop)
    }

    /// Gathers bytes for the next record. Returns how many it took.
    fn gather(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> io::Result<usize> {
        if self.gathered.capacity() == 0 {
            self.gathered = take_gathered();
        }
        let taken = bytes.len().min(RECORD - self.gathered.len());
        self.gathered.extend_from_slice(bytes.get(..taken).unwrap_or_default());
        if self.gathered.len() == RECORD {
            self.seal_gathered(cx)?;
        }
        Ok(taken)
    }

    /// Takes what is written: seals it at once if it fills records, gathers it otherwise. Returns how many bytes it took.
    fn write(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let total: usize = bufs.iter().map(|buf| buf.len()).sum();
        if total >= RECORD {
            self.seal_gathered(cx)?;
            return self.seal(cx, bufs);
        }
        let mut written = 0;
        for buf in bufs.iter().filter(|buf| !buf.is_empty()) {
            let taken = self.gather(cx, buf)?;
            written += taken;
            if taken < buf.len() {
                break;
            }
        }
        Ok(written)
    }

    /// Seals these bytes, up to [`MOST_SEALED`], and sends what the socket takes in one write. The rest is kept.
    fn seal(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let total: usize = bufs.iter().map(|buf| buf.len()).sum();
        // Each buffer has records of its own.
        let most = total.min(MOST_SEALED) + (bufs.len() + MOST_SEALED / RECORD) * OVERHEAD;
        let mut written = 0;
        self.write_traffic(cx, most, |traffic, into| {
            let mut length = 0;
            written = 0;
            for buf in bufs {
                let piece = buf.get(..buf.len().min(MOST_SEALED - written)).unwrap_or_default();
                length += traffic.encrypt(piece, into.get_mut(length..).unwrap_or_default())?;
                written += piece.len();
            }
            Ok(length)
        })?;
        Ok(written)
    }
}

/// The part of a stream that a step of a handshake needs, without its socket.
struct HandshakeStep<C> {
    session: C,
    incoming: Vec<u8>,
    plaintext: Remainder,
    unsent: Remainder,
    ended: bool,
}

impl<C: UnbufferedSession> HandshakeStep<C> {
    /// Processes all that was received. May sign, and wait for that.
    fn process(mut self) -> (Self, Result<(), rustls::Error>) {
        let mut plaintext = Plaintext { into: None, rest: &mut self.plaintext };
        let (used, stop) =
            process(&mut self.session, &mut self.incoming, &mut plaintext, &mut self.unsent, &mut self.ended, |_| {});
        self.incoming.drain(..used.min(self.incoming.len()));
        if self.incoming.is_empty() {
            self.incoming = Vec::new();
        }
        let processed = if let ProcessStop::Failed(error) = stop { Err(error) } else { Ok(()) };
        (self, processed)
    }
}

/// The place of decrypted bytes: the reader's buffer, and what does not fit into it.
struct Plaintext<'a, 'b, 'c> {
    into: Option<&'a mut ReadBuf<'b>>,
    rest: &'c mut Remainder,
}

impl Plaintext<'_, '_, '_> {
    fn push(&mut self, bytes: &[u8]) {
        let fits = match &mut self.into {
            Some(into) if self.rest.is_empty() => {
                let fits = bytes.len().min(into.remaining());
                into.put_slice(bytes.get(..fits).unwrap_or_default());
                fits
            }
            _ => 0,
        };
        if let Some(rest) = bytes.get(fits..).filter(|rest| !rest.is_empty()) {
            self.rest.push(rest);
        }
    }

    /// Returns whether the reader's buffer takes no more. Without one, all that was received is decrypted: a few records,
    /// which may stand between a writer and its turn.
    fn is_full(&self) -> bool {
        self.into.as_ref().is_some_and(|into| into.remaining() == 0)
    }
}

/// Processes received bytes: decrypts them, answers what the protocol asks for, and lets `write` write once, if
/// application data may be written. Returns how many bytes were used, and why it stopped.
fn process<C: UnbufferedSession>(
    session: &mut C,
    incoming: &mut [u8],
    plaintext: &mut Plaintext<'_, '_, '_>,
    unsent: &mut Remainder,
    ended: &mut bool,
    mut write: impl FnMut(&mut WriteTraffic<'_, C::Data>),
) -> (usize, ProcessStop) {
    let mut used = 0;
    loop {
        let UnbufferedStatus { mut discard, state } = session.process(incoming.get_mut(used..).unwrap_or_default());
        let stop = match state {
            Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                let mut failed = None;
                while let Some(record) = traffic.next_record() {
                    match record {
                        Ok(record) => {
                            discard += record.discard;
                            plaintext.push(record.payload);
                        }
                        Err(error) => failed = Some(ProcessStop::Failed(error)),
                    }
                }
                failed.or_else(|| plaintext.is_full().then_some(ProcessStop::Full))
            }
            Ok(ConnectionState::EncodeTlsData(mut data)) => encode(&mut data, unsent),
            Ok(ConnectionState::TransmitTlsData(sent)) => {
                // They are in `unsent`, ahead of all that follows.
                sent.done();
                None
            }
            Ok(ConnectionState::PeerClosed) => {
                *ended = true;
                None
            }
            Ok(ConnectionState::Closed) => Some(ProcessStop::Closed),
            Ok(ConnectionState::BlockedHandshake) => Some(ProcessStop::Waiting),
            Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                write(&mut traffic);
                Some(ProcessStop::Writable)
            }
            // Early data are not offered.
            Ok(_) => Some(ProcessStop::Failed(rustls::Error::General("an unknown state of TLS".to_owned()))),
            Err(error) => Some(ProcessStop::Failed(error)),
        };
        used += discard;
        match stop {
            None => {}
            Some(ProcessStop::Failed(error)) => {
                // The alert, if there is one to be sent.
                let UnbufferedStatus { state, .. } = session.process(incoming.get_mut(used..).unwrap_or_default());
                if let Ok(ConnectionState::EncodeTlsData(mut data)) = state {
                    let _ = encode(&mut data, unsent);
                }
                return (used, ProcessStop::Failed(error));
            }
            Some(stop) => return (used, stop),
        }
    }
}

/// Puts a message of the protocol behind the bytes that wait to be sent. Something: it could not be encoded.
fn encode<D>(data: &mut EncodeTlsData<'_, D>, unsent: &mut Remainder) -> Option<ProcessStop> {
    let begin = unsent.bytes.len();
    let encoded = match data.encode(&mut []) {
        Err(EncodeError::InsufficientSize(size)) => {
            unsent.bytes.resize(begin + size.required_size, 0);
            data.encode(unsent.bytes.get_mut(begin..).unwrap_or_default())
        }
        encoded => encoded,
    };
    match encoded {
        Ok(length) => {
            unsent.bytes.truncate(begin + length);
            None
        }
        Err(error) => Some(ProcessStop::Failed(rustls::Error::General(error.to_string()))),
    }
}

/// A buffer of [`WIRE`] bytes at least.
fn take_scratch() -> Vec<u8> {
    SCRATCH.with_borrow_mut(Vec::pop).unwrap_or_else(|| vec![0; WIRE])
}

fn keep_scratch(buffer: Vec<u8>) {
    SCRATCH.with_borrow_mut(|buffers| {
        if buffers.len() < SPARES && (WIRE..=MOST_SCRATCH).contains(&buffer.len()) {
            buffers.push(buffer);
        }
    });
}

fn take_gathered() -> Vec<u8> {
    GATHERED.with_borrow_mut(Vec::pop).unwrap_or_else(|| Vec::with_capacity(RECORD))
}

fn keep_gathered(mut buffer: Vec<u8>) {
    GATHERED.with_borrow_mut(|buffers| {
        if buffers.len() < SPARES {
            buffer.clear();
            buffers.push(buffer);
        }
    });
}

fn too_long() -> io::Error {
    invalid(rustls::Error::General("a handshake message is too long".to_owned()))
}

fn handshake_eof() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "tls handshake eof")
}

pub(super) fn invalid(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl<S, C> AsyncRead for TlsStream<S, C>
where
    S: AsyncRead + AsyncWrite + Unpin,
    C: UnbufferedSession,
{
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        loop {
            if !this.plaintext.is_empty() {
                let taken = this.plaintext.rest().len().min(buf.remaining());
                buf.put_slice(this.plaintext.rest().get(..taken).unwrap_or_default());
                this.plaintext.take(taken);
            }
            if buf.filled().len() > before || buf.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            if this.holds_record {
                if let Err(error) = this.process_incoming(|_| {}) {
                    return Poll::Ready(Err(this.fail(cx, error)));
                }
                continue;
            }
            if this.ended {
                return Poll::Ready(Ok(()));
            }
            if ready!(this.poll_receive(cx, Some(&mut *buf)))? == 0 {
                let why = "peer closed connection without sending TLS close_notify";
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, why)));
            }
            if !this.unsent.is_empty() {
                // The protocol's own answer. A socket that does not take it now takes it with the next write.
                let _ = this.poll_send(cx);
            }
        }
    }
}

impl<S, C> AsyncWrite for TlsStream<S, C>
where
    S: AsyncRead + AsyncWrite + Unpin,
    C: UnbufferedSession,
{
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_send(cx))?;
        Poll::Ready(this.write(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.seal_gathered(cx)?;
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.closed {
            this.closed = true;
            this.seal_gathered(cx)?;
            this.write_traffic(cx, WIRE, |traffic, into| traffic.queue_close_notify(into))?;
        }
        ready!(this.poll_send(cx))?;
        match ready!(Pin::new(&mut this.io).poll_shutdown(cx)) {
            // The other side was faster.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            shut => Poll::Ready(shut),
        }
    }
}

#[cfg(test)]
mod tests;
