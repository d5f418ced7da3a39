//! One HTTP/1.1 exchange over an open stream, as cheap as can be.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Mode, Plan};
use crate::job;

/// A verified TLS connection to the proxy, or through its tunnel.
pub async fn open(plan: &Plan) -> io::Result<TlsStream<TcpStream>> {
    let socket = TcpSocket::new_v4()?;
    if matches!(plan.mode, Mode::Stall | Mode::StallH2) {
        // Else the kernel takes most of a download in the place of a reader that stalls.
        socket.set_recv_buffer_size(64 << 10)?;
    }
    let mut stream = socket.connect(plan.address).await?;
    stream.set_nodelay(true)?;
    if let Some(target) = &plan.connect {
        connect(&mut stream, target, &plan.basic).await?;
    }
    TlsConnector::from(plan.tls.clone()).connect(plan.name.clone(), stream).await
}

/// Asks a forward proxy for a tunnel. It has nothing to say after its answer: in TLS the client begins.
async fn connect(stream: &mut TcpStream, target: &str, basic: &str) -> io::Result<()> {
    let ask = format!(
        "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nProxy-Authorization: Basic {basic}\r\nUser-Agent: bench/1\r\n\r\n"
    );
    stream.write_all(ask.as_bytes()).await?;
    let mut buffer = [0; 4096];
    let (end, have) = read_head(stream, &mut buffer).await?;
    let seen = buffer.get(..have).unwrap_or_default();
    let granted = seen.get(..12).is_some_and(|line| line.starts_with(b"HTTP/1.") && line.ends_with(b" 200"));
    if granted && end == have { Ok(()) } else { Err(refusal(seen)) }
}

/// Reads until a head is there. Returns where it ends, its empty line included, and how much was read.
async fn read_head(stream: &mut (impl AsyncRead + Unpin), buffer: &mut [u8]) -> io::Result<(usize, usize)> {
    let mut have = 0;
    loop {
        let read = stream.read(buffer.get_mut(have..).unwrap_or_default()).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        have += read;
        let seen = buffer.get(..have).unwrap_or_default();
        if let Some(end) = seen.windows(4).position(|four| four == b"\r\n\r\n") {
            return Ok((end + 4, have));
        }
    }
}

/// What stands in the first line of an answer that is not the one wanted.
fn refusal(head: &[u8]) -> io::Error {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    io::Error::other(String::from_utf8_lossy(line).into_owned())
}

/// Bytes of a request's body that are written at once.
const PIECE: usize = 64 << 10;
/// Digits of the key of a token.
const DIGITS: usize = 8;

/// A request as it is written.
pub struct Written {
    /// Its head, and its body if that is short.
    bytes: Vec<u8>,
    /// Bytes of a long body.
    bulk: usize,
    /// Where the key of a token stands in the head.
    key: Option<usize>,
    keys: u64,
}

impl Written {
    /// Names the next key of a token.
    pub fn turn(&mut self) {
        static TURN: AtomicU64 = AtomicU64::new(0);
        let Some(at) = self.key else { return };
        let digits = format!("{:0DIGITS$}", TURN.fetch_add(1, Relaxed) % self.keys);
        if let Some(place) = self.bytes.get_mut(at..at + DIGITS) {
            place.copy_from_slice(digits.as_bytes());
        }
    }

    async fn write(&self, stream: &mut TlsStream<TcpStream>) -> io::Result<()> {
        stream.write_all(&self.bytes).await?;
        let mut left = self.bulk;
        let piece = if left == 0 { Vec::new() } else { vec![b'p'; PIECE] };
        while left > 0 {
            let length = left.min(PIECE);
            stream.write_all(piece.get(..length).unwrap_or_default()).await?;
            left -= length;
        }
        stream.flush().await
    }
}

/// The bytes of the request. Its `Authorization` is the client's key, which must not reach the bank.
pub fn request(plan: &Plan) -> Written {
    let method = if plan.post > 0 { "POST" } else { "GET" };
    let mut text = format!(
        "{method} {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: bench/1\r\nAccept: application/json\r\n\
         Authorization: Bearer {}\r\n",
        plan.path,
        plan.connect.as_deref().unwrap_or("localhost"),
        job::CLIENT_KEY
    );
    if plan.post > 0 {
        text.push_str(&format!("Content-Type: application/json\r\nContent-Length: {}\r\n", plan.post));
    }
    let key = (plan.keys > 1).then(|| {
        text.push_str(job::ACCOUNT);
        text.push_str(": ");
        let at = text.len();
        text.push_str(&"0".repeat(DIGITS));
        text.push_str("\r\n");
        at
    });
    text.push_str("\r\n");
    let bulk = if plan.post > PIECE { plan.post } else { 0 };
    text.push_str(&"p".repeat(plan.post - bulk));
    Written { bytes: text.into_bytes(), bulk, key, keys: plan.keys }
}

/// Sends the request and reads the head of its answer and what came with it.
pub async fn begin(stream: &mut TlsStream<TcpStream>, request: &Written) -> io::Result<()> {
    request.write(stream).await?;
    let mut buffer = [0; 4096];
    let (end, have) = read_head(stream, &mut buffer).await?;
    length(buffer.get(..end).unwrap_or_default())?;
    if end == have && stream.read(&mut buffer).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

/// Sends the request and reads the whole answer. The number of body bytes; anything but a 200 with a length fails.
pub async fn exchange(stream: &mut TlsStream<TcpStream>, request: &Written, buffer: &mut [u8]) -> io::Result<u64> {
    request.write(stream).await?;
    let (head, have) = read_head(stream, buffer).await?;
    let body = length(buffer.get(..head).unwrap_or_default())?;
    let mut left = (head as u64 + body).saturating_sub(have as u64);
    while left > 0 {
        let read = stream.read(buffer).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        left = left.saturating_sub(read as u64);
    }
    Ok(body)
}

fn length(head: &[u8]) -> io::Result<u64> {
    if !head.starts_with(b"HTTP/1.1 200") {
        return Err(refusal(head));
    }
    for line in head.split(|byte| *byte == b'\n') {
        let Some((name, value)) = line.split_at_checked(15) else { continue };
        if name.eq_ignore_ascii_case(b"content-length:") {
            let text = std::str::from_utf8(value.trim_ascii()).unwrap_or_default();
            return text.parse().map_err(io::Error::other);
        }
    }
    Err(io::Error::other("an answer without a length"))
}
