//! One HTTP/1.1 exchange over an open stream, as cheap as can be.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Plan;
use crate::job;

/// A verified TLS connection to the proxy.
pub async fn open(plan: &Plan) -> io::Result<TlsStream<TcpStream>> {
    let address: SocketAddr = plan.address;
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    TlsConnector::from(plan.tls.clone()).connect(plan.name.clone(), stream).await
}

/// The bytes of the request. Its `Authorization` is the client's key, which must not reach the bank.
pub fn request(plan: &Plan) -> Vec<u8> {
    let method = if plan.post > 0 { "POST" } else { "GET" };
    let mut text = format!(
        "{method} {} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench/1\r\nAccept: application/json\r\n\
         Authorization: Bearer {}\r\n",
        plan.path,
        job::CLIENT_KEY
    );
    if plan.post > 0 {
        text.push_str(&format!("Content-Type: application/json\r\nContent-Length: {}\r\n", plan.post));
    }
    text.push_str("\r\n");
    text.push_str(&"p".repeat(plan.post));
    text.into_bytes()
}

/// Sends the request and reads the whole answer. The number of body bytes; anything but a 200 with a length fails.
pub async fn exchange(stream: &mut TlsStream<TcpStream>, request: &[u8], buffer: &mut [u8]) -> io::Result<u64> {
    stream.write_all(request).await?;
    stream.flush().await?;
    let mut have = 0;
    let (head, body) = loop {
        let read = stream.read(buffer.get_mut(have..).unwrap_or_default()).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        have += read;
        let seen = buffer.get(..have).unwrap_or_default();
        if let Some(end) = seen.windows(4).position(|four| four == b"\r\n\r\n") {
            break (end + 4, length(seen.get(..end).unwrap_or_default())?);
        }
    };
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
        let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
        return Err(io::Error::other(String::from_utf8_lossy(line).into_owned()));
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
