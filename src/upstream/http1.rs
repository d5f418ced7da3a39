//! Settings of HTTP/1.1, and the stream layer that a connection needs if hyper speaks it: a response remains readable
//! after a failed write, and heads can be corrected.
//!
//! **An early response.** A provider may respond from a request's head alone and close with the body unread. Then the
//! next write fails, while the response is in the kernel's buffer, to be read (RFC 9112 section 9.6 tells servers to
//! prevent that, and many do not). hyper gives a connection up at a failed write. So [`Http1Io`] withholds the failure:
//! no more of the upload is requested, all data that has arrived is read, and only then is the failure reported. The
//! connection is not lent again.
//!
//! **Names as they were written.** hyper writes names of fields in lower case, or as another hyper has read them. Names
//! that the profile wrote in another case are put in as the head passes ([`Spellings`]); the length of the head stays.
//!
//! **Malformed lines.** With [`Http1::drop_invalid`], lines of a response's head that are not valid fields are removed
//! before hyper, which refuses them, reads it. hyper checks the remaining head as strictly as ever. A line that could
//! affect the length of the message stays, and so the response is refused.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use hyper::client::conn::http1;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::socket::ByteCounter;
use crate::base::secret::is_wordy_secret;

/// Fields of an answer's head; over HTTP/2 its size alone is limited.
pub const MOST_FIELDS: usize = 512;
/// Maximum number of bytes that HTTP/1.1 may buffer in each direction, and of a response's head: data that a client
/// does not read stays with the provider.
pub(super) const BUFFER: usize = 32 * 1024;
/// Read at a time while a head is awaited.
const PIECE: usize = 8 << 10;

/// HTTP/1.1 settings for a provider. The default is the strictest.
#[derive(Clone, Debug, Default)]
pub struct Http1 {
    /// Names of fields go out as the client and the profile wrote them; these are the profile's. Absent: in lower case.
    pub spellings: Option<Arc<Spellings>>,
    /// Malformed lines of an answer's head are dropped, and a folded one is joined.
    pub drop_invalid: bool,
}

impl Http1 {
    /// Returns whether names of fields are sent as they were written.
    pub const fn preserves_case(&self) -> bool {
        self.spellings.is_some()
    }

    /// Returns a hyper builder with these settings and this module's limits.
    pub fn builder(&self) -> http1::Builder {
        let mut builder = http1::Builder::new();
        builder.max_headers(MOST_FIELDS).max_buf_size(BUFFER);
        // A name whose spelling is not known (of our own, or of a client that speaks HTTP/2) looks as most would write it.
        builder.title_case_headers(self.preserves_case());
        builder
    }
}

/// Names of fields as they were written, each known by its lower case.
#[derive(Debug, Default)]
pub struct Spellings(HashMap<Box<str>, Box<str>>);

impl Spellings {
    /// These spellings; of two of one name the first counts.
    pub fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let mut known = HashMap::new();
        for name in names {
            known.entry(name.to_ascii_lowercase().into_boxed_str()).or_insert_with(|| Box::from(name));
        }
        Self(known)
    }

    /// Writes the known names of a head in their spelling.
    fn apply(&self, head: &mut [u8]) {
        for line in head.split_mut(|byte| *byte == b'\n').skip(1) {
            let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
            let name = &mut line[..colon];
            let lower = std::str::from_utf8(name).map(str::to_ascii_lowercase).unwrap_or_default();
            if let Some(known) = self.0.get(lower.as_str()) {
                name.copy_from_slice(known.as_bytes());
            }
        }
    }
}

/// A stream below hyper's HTTP/1.1 client.
pub(super) struct Http1Io<S> {
    inner: S,
    received: Rc<ByteCounter>,
    /// The error of a failed write; `None` while writing is possible.
    broken: Option<WriteFailed>,
    heads: Option<Box<Heads>>,
}

/// A failed write that is withheld until all arrived data was read.
struct WriteFailed {
    error: io::Error,
    /// Everything that had arrived was read.
    read_out: bool,
}

/// Heads on their way, where something is to be done to them.
struct Heads {
    host: Arc<str>,
    http1: Http1,
    /// The exchange whose request's head was put right.
    written: u32,
    /// That head, as far as it has not left.
    leaving: Vec<u8>,
    left: usize,
    /// The exchange whose answer's head was put right.
    read: u32,
    /// An answer's head, as far as it has come.
    coming: Vec<u8>,
    /// Bytes that hyper has not read yet: corrected heads, and received data behind them.
    ready: Vec<u8>,
    taken: usize,
    /// A dropped line was told of on this connection.
    reported: bool,
}

impl<S> Http1Io<S> {
    pub(super) fn new(inner: S, received: Rc<ByteCounter>, http1: &Http1, host: &Arc<str>) -> Self {
        let needed = http1.preserves_case() || http1.drop_invalid;
        let heads = needed.then(|| {
            Box::new(Heads {
                host: host.clone(),
                http1: http1.clone(),
                written: 0,
                leaving: Vec::new(),
                left: 0,
                read: 0,
                coming: Vec::new(),
                ready: Vec::new(),
                taken: 0,
                reported: false,
            })
        });
        Self { inner, received, broken: None, heads }
    }

    /// Processes the result of a write: a failure is withheld for now.
    fn wrote(&mut self, written: Poll<io::Result<usize>>, cx: &Context<'_>) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Err(error)) if is_hang_up(&error) && !self.received.is_abandoned() => {
                self.received.refuse_writes();
                self.broken = Some(WriteFailed { error, read_out: false });
                // The data that has arrived is to be read now.
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            other => other,
        }
    }

    /// Returns the withheld failure, once all arrived data was read or the connection was abandoned; pending before
    /// that.
    fn failure(&self) -> Option<Poll<io::Error>> {
        let WriteFailed { error, read_out } = self.broken.as_ref()?;
        Some(if *read_out || self.received.is_abandoned() {
            Poll::Ready(io::Error::new(error.kind(), error.to_string()))
        } else {
            Poll::Pending
        })
    }
}

/// Returns whether a failed write means that the other side has ended the connection.
pub(super) fn is_hang_up(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::NotConnected
    )
}

impl<S: AsyncRead + Unpin> AsyncRead for Http1Io<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let io = self.get_mut();
        let before = buf.filled().len();
        let read = match &mut io.heads {
            Some(heads) if heads.http1.drop_invalid => heads.poll_read(&mut io.inner, io.received.exchanges(), cx, buf),
            Some(_) | None => Pin::new(&mut io.inner).poll_read(cx, buf),
        };
        if let (Some(broken), Poll::Ready(ended)) = (&mut io.broken, &read) {
            broken.read_out |= ended.is_err() || (buf.filled().len() == before && buf.remaining() > 0);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Http1Io<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let io = self.get_mut();
        if let Some(failure) = io.failure() {
            return failure.map(Err);
        }
        let written = match &mut io.heads {
            Some(heads) if heads.http1.preserves_case() => {
                heads.poll_write(&mut io.inner, io.received.exchanges(), cx, buf)
            }
            Some(_) | None => Pin::new(&mut io.inner).poll_write(cx, buf),
        };
        io.wrote(written, cx)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let io = self.get_mut();
        match io.failure() {
            Some(failure) => failure.map(Err),
            None => {
                let flushed = Pin::new(&mut io.inner).poll_flush(cx).map_ok(|()| 0);
                io.wrote(flushed, cx).map_ok(drop)
            }
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let io = self.get_mut();
        if let Some(failure) = io.failure() {
            return failure.map(Err);
        }
        let exchanges = io.received.exchanges();
        let written = match &mut io.heads {
            Some(heads) if heads.has_head_to_write(exchanges) => {
                let first = bufs.iter().find(|buf| !buf.is_empty()).map_or(&[][..], |buf| buf);
                heads.poll_write(&mut io.inner, exchanges, cx, first)
            }
            Some(_) | None => Pin::new(&mut io.inner).poll_write_vectored(cx, bufs),
        };
        io.wrote(written, cx)
    }
}

impl Heads {
    fn has_head_to_write(&self, exchanges: u32) -> bool {
        self.http1.preserves_case() && (self.written != exchanges || !self.leaving.is_empty())
    }

    /// Writes with the names of a request's head in their spelling. hyper writes a head whole, before anything else.
    fn poll_write<S: AsyncWrite + Unpin>(
        &mut self,
        inner: &mut S,
        exchanges: u32,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.written != exchanges
            && let Some(spellings) = &self.http1.spellings
        {
            self.written = exchanges;
            self.leaving = buf[..head_end(buf).unwrap_or(buf.len())].to_vec();
            self.left = 0;
            spellings.apply(&mut self.leaving);
        }
        if self.leaving.is_empty() {
            return Pin::new(inner).poll_write(cx, buf);
        }
        let written = ready!(Pin::new(inner).poll_write(cx, &self.leaving[self.left..]))?;
        self.left += written;
        if self.left == self.leaving.len() {
            self.leaving = Vec::new();
        }
        Poll::Ready(Ok(written))
    }

    /// Reads, with an answer's head put right.
    fn poll_read<S: AsyncRead + Unpin>(
        &mut self,
        inner: &mut S,
        exchanges: u32,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            if self.taken < self.ready.len() {
                let len = buf.remaining().min(self.ready.len() - self.taken);
                buf.put_slice(&self.ready[self.taken..self.taken + len]);
                self.taken += len;
                if self.taken == self.ready.len() {
                    (self.ready, self.taken) = (Vec::new(), 0);
                }
                return Poll::Ready(Ok(()));
            }
            if self.read == exchanges {
                return Pin::new(inner).poll_read(cx, buf);
            }
            let mut piece = [0; PIECE];
            let mut piece = ReadBuf::new(&mut piece);
            ready!(Pin::new(&mut *inner).poll_read(cx, &mut piece))?;
            if piece.filled().is_empty() {
                // The end; what has come of a head is for hyper to judge.
                self.read = exchanges;
                (self.ready, self.taken) = (std::mem::take(&mut self.coming), 0);
                if self.ready.is_empty() {
                    return Poll::Ready(Ok(()));
                }
                continue;
            }
            self.coming.extend_from_slice(piece.filled());
            self.advance(exchanges);
        }
    }

    /// Lets whole heads pass; behind the last of them, everything.
    fn advance(&mut self, exchanges: u32) {
        while let Some(end) = head_end(&self.coming) {
            let rest = self.coming.split_off(end);
            let head = std::mem::replace(&mut self.coming, rest);
            let Mended { head, dropped } = mend(&head);
            if let Some((line, why)) = dropped.first()
                && !std::mem::replace(&mut self.reported, true)
            {
                tracing::warn!(host = %self.host, line, why, lines = dropped.len(), "malformed response header line dropped");
            }
            self.ready.extend_from_slice(&head);
            if !is_interim(&head) {
                self.read = exchanges;
                self.ready.append(&mut self.coming);
                return;
            }
        }
        if self.coming.len() > BUFFER {
            // Too long, which hyper says.
            self.read = exchanges;
            self.ready.append(&mut self.coming);
        }
    }
}

/// Returns the end of the first head, its empty line included; `None` if it is incomplete.
fn head_end(bytes: &[u8]) -> Option<usize> {
    let mut line = 0;
    while let Some(at) = bytes[line..].iter().position(|byte| *byte == b'\n') {
        let end = line + at;
        if line > 0 && bytes[line..end].iter().all(|byte| *byte == b'\r') {
            return Some(end + 1);
        }
        line = end + 1;
    }
    None
}

/// Returns whether another head follows: 1xx, except for 101.
fn is_interim(head: &[u8]) -> bool {
    let status = head.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
    status.first() == Some(&b'1') && !status.starts_with(b"101")
}

/// A head put right, and what of each dropped line may be shown, with the reason.
struct Mended {
    head: Vec<u8>,
    dropped: Vec<(String, &'static str)>,
}

fn mend(head: &[u8]) -> Mended {
    let mut mended = Mended { head: Vec::with_capacity(head.len()), dropped: Vec::new() };
    let mut lines = head.split_inclusive(|byte| *byte == b'\n');
    mended.head.extend_from_slice(lines.next().unwrap_or_default());
    // True if the previous line was kept; a folded line continues it.
    let mut kept = false;
    for whole in lines {
        let line = whole.strip_suffix(b"\n").unwrap_or(whole);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.first().is_some_and(|byte| matches!(byte, b' ' | b'\t')) {
            if kept {
                // RFC 9112 section 5.2: replaced by a blank.
                let end = mended.head.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n')).map_or(0, |at| at + 1);
                let ending = mended.head.split_off(end);
                mended.head.push(b' ');
                mended.head.extend_from_slice(line.trim_ascii());
                mended.head.extend_from_slice(&ending);
                mended.dropped.push((shown(line), "folded: joined with the line before"));
            } else {
                mended.dropped.push((shown(line), "it continues a line that was dropped"));
            }
            continue;
        }
        let flaw = if line.is_empty() { None } else { flaw(line) };
        kept = flaw.is_none() || frames(line);
        match flaw {
            Some(why) if !kept => mended.dropped.push((shown(line), why)),
            Some(_) | None => mended.head.extend_from_slice(whole),
        }
    }
    mended
}

/// Returns the defect of a line, if there is one (RFC 9112 section 5, RFC 9110 section 5).
fn flaw(line: &[u8]) -> Option<&'static str> {
    let Some(colon) = line.iter().position(|byte| *byte == b':') else { return Some("it has no colon") };
    let (name, value) = line.split_at(colon);
    if name.is_empty() {
        return Some("it has no name");
    }
    if name.ends_with(b" ") || name.ends_with(b"\t") {
        return Some("a blank before the colon");
    }
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    if !name.iter().all(is_token) {
        return Some("its name is malformed");
    }
    let is_text = |byte: &u8| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f);
    if !value.iter().all(is_text) {
        return Some("a control character in its value");
    }
    None
}

/// Returns whether a malformed line may concern the length of the message or its connection: without it the response
/// could have another meaning.
fn frames(line: &[u8]) -> bool {
    let letters: Vec<u8> = line.iter().filter(|byte| byte.is_ascii_alphabetic()).map(u8::to_ascii_lowercase).collect();
    ["contentlength", "transferencoding", "connection"].iter().any(|name| letters.starts_with(name.as_bytes()))
}

/// Returns the part of a line that may be logged: its name, or its first word, as long as that cannot be a secret.
fn shown(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let text = text.trim();
    let name = match text.split_once(':') {
        Some((name, _)) => name.trim(),
        None => text.split_whitespace().next().unwrap_or_default(),
    };
    let plain = !name.is_empty() && name.split(' ').all(is_wordy_secret);
    if plain { name.to_owned() } else { "…".to_owned() }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::upstream::race::tests::converse;

    fn mended(lines: &str) -> (String, Vec<(String, &'static str)>) {
        let Mended { head, dropped } = mend(format!("HTTP/1.1 200 OK\r\n{lines}\r\n").as_bytes());
        let head = String::from_utf8(head).unwrap();
        let head = head.strip_prefix("HTTP/1.1 200 OK\r\n").and_then(|head| head.strip_suffix("\r\n")).unwrap();
        (head.to_owned(), dropped)
    }

    #[test]
    fn a_head_without_a_flaw_stays_as_it_is() {
        let lines = "Content-Length: 2\r\nx-a:\r\nX_b: \u{e9}\tc\n";
        assert_eq!(mended(lines), (lines.to_owned(), Vec::new()));
    }

    #[test]
    fn malformed_lines_are_dropped_and_named_without_their_values() {
        for (line, name) in [
            ("X-Node : a\r\n", "X-Node"),
            ("X-Frame-Options SAMEORIGIN\r\n", "X-Frame-Options"),
            ("Secured by Firewall: x\r\n", "Secured by Firewall"),
            (": x\r\n", "…"),
            ("X-Nul: a\0b\r\n", "X-Nul"),
            ("eyJhbGciOiJIUzI1NiJ9eyJzdWIiOiIxIn0 : x\r\n", "…"),
        ] {
            let (head, dropped) = mended(&format!("A: 1\r\n{line}Content-Length: 2\r\n"));
            assert_eq!(head, "A: 1\r\nContent-Length: 2\r\n", "{line:?}");
            assert_eq!(dropped.len(), 1);
            assert_eq!(dropped[0].0, name);
        }
    }

    #[test]
    fn a_folded_line_is_joined_unless_it_continues_a_dropped_one() {
        assert_eq!(mended("X-Long: a\r\n  b\r\n\tc\r\nY: 1\r\n").0, "X-Long: a b c\r\nY: 1\r\n");
        assert_eq!(mended("X Long: a\r\n b\r\nY: 1\r\n").0, "Y: 1\r\n");
        assert_eq!(mended(" b\r\nY: 1\r\n").0, "Y: 1\r\n");
    }

    #[test]
    fn what_could_frame_the_message_is_left_for_the_strict_parser_to_refuse() {
        for line in
            ["Content-Length : 2\r\n", "Transfer-Encoding chunked\r\n", "Content Length: 2\r\n", "connection\t: x\r\n"]
        {
            assert_eq!(mended(line), (line.to_owned(), Vec::new()));
        }
    }

    #[test]
    fn names_are_written_as_they_are_known() {
        let spellings = Spellings::new(["X-Bank-Key", "requestUId", "REQUESTUID"]);
        let mut head = b"POST /a HTTP/1.1\r\nx-bank-key: x-bank-key: 1\r\nRequestuid: 7\r\nhost: b\r\n\r\n".to_vec();
        spellings.apply(&mut head);
        assert_eq!(head, b"POST /a HTTP/1.1\r\nX-Bank-Key: x-bank-key: 1\r\nrequestUId: 7\r\nhost: b\r\n\r\n");
    }

    /// A stream that takes a few bytes at a time and then fails, while an answer lies ready.
    struct Odd {
        takes: usize,
        wrote: Vec<u8>,
        answer: VecDeque<u8>,
        most: usize,
    }

    impl AsyncRead for Odd {
        fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            let len = self.answer.len().min(buf.remaining()).min(self.most);
            let piece: Vec<u8> = self.answer.drain(..len).collect();
            buf.put_slice(&piece);
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Odd {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            let len = buf.len().min(self.most).min(self.takes);
            if len == 0 {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            self.takes -= len;
            self.wrote.extend_from_slice(&buf[..len]);
            Poll::Ready(Ok(len))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn odd(takes: usize, answer: &str, most: usize, http1: &Http1) -> (Http1Io<Odd>, Rc<ByteCounter>) {
        let received = Rc::new(ByteCounter::default());
        let odd = Odd { takes, wrote: Vec::new(), answer: answer.bytes().collect(), most };
        (Http1Io::new(odd, received.clone(), http1, &"bank.example".into()), received)
    }

    #[test]
    fn a_failed_write_is_told_when_the_answer_was_read() {
        converse(async {
            let (mut io, received) = odd(4, "answer", 3, &Http1::default());
            assert!(io.write_all(b"head").await.is_ok() && received.takes_writes());
            let waker = std::task::Waker::noop();
            let cx = &mut Context::from_waker(waker);
            assert!(Pin::new(&mut io).poll_write(cx, b"body").is_pending());
            assert!(!received.takes_writes(), "it is not lent again");
            assert!(Pin::new(&mut io).poll_flush(cx).is_pending());
            let mut answer = String::new();
            io.read_to_string(&mut answer).await.unwrap();
            assert_eq!(answer, "answer");
            assert_eq!(io.write(b"body").await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
            // If the connection is abandoned, the failure is reported at once.
            let (mut io, received) = odd(0, "answer", 3, &Http1::default());
            assert!(Pin::new(&mut io).poll_write(cx, b"head").is_pending());
            received.abandon();
            assert!(matches!(Pin::new(&mut io).poll_write(cx, b"head"), Poll::Ready(Err(_))));
            let (mut io, received) = odd(0, "answer", 3, &Http1::default());
            received.abandon();
            assert!(matches!(Pin::new(&mut io).poll_write(cx, b"head"), Poll::Ready(Err(_))));
        });
    }

    #[test]
    fn heads_are_put_right_in_whatever_pieces_they_travel_and_bodies_never() {
        converse(async {
            let head =
                "HTTP/1.1 100 Continue\r\nX a: 1\r\n\r\nHTTP/1.1 200 OK\r\nX-Node : a\r\nContent-Length: 9\r\n\r\n";
            let right = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n";
            let body = "X b: 1\r\n\r";
            for most in [1, 2, 7, 4096] {
                let spellings = Some(Arc::new(Spellings::new(["X-Bank-Key"])));
                let http1 = Http1 { spellings, drop_invalid: true };
                let (mut io, received) = odd(usize::MAX, &format!("{head}{body}"), most, &http1);
                received.begin_exchange();
                let request = "POST / HTTP/1.1\r\nx-bank-key: 1\r\n\r\n";
                let bufs = [io::IoSlice::new(request.as_bytes()), io::IoSlice::new(b"x-bank-key: 1")];
                let mut whole: Vec<u8> = bufs.iter().flat_map(|buf| buf.to_vec()).collect();
                let head_len = request.len();
                while !whole.is_empty() {
                    // hyper offers what is left of the head as the first of several pieces.
                    let first = whole.len().saturating_sub(b"x-bank-key: 1".len()).min(head_len);
                    let (one, two) = whole.split_at(first);
                    let bufs = [io::IoSlice::new(one), io::IoSlice::new(two)];
                    let len = io.write_vectored(&bufs).await.unwrap();
                    whole.drain(..len);
                }
                assert_eq!(
                    io.inner.wrote, b"POST / HTTP/1.1\r\nX-Bank-Key: 1\r\n\r\nx-bank-key: 1",
                    "{most} at a time"
                );
                let mut answer = String::new();
                io.read_to_string(&mut answer).await.unwrap();
                assert_eq!(answer, format!("{right}{body}"), "{most} at a time");
            }
        });
    }

    #[test]
    fn the_end_of_a_head_is_found() {
        assert_eq!(head_end(b"HTTP/1.1 200 OK\r\nA: 1\r\n\r\nbody"), Some(25));
        assert_eq!(head_end(b"HTTP/1.1 200 OK\nA: 1\n\nbody"), Some(22));
        assert_eq!(head_end(b"HTTP/1.1 200 OK\r\nA: 1\r\n"), None);
        assert!(is_interim(b"HTTP/1.1 103 Early Hints\r\n\r\n") && !is_interim(b"HTTP/1.1 101 Switching\r\n\r\n"));
        assert!(!is_interim(b"HTTP/1.1 200 OK\r\n\r\n"));
    }
}
