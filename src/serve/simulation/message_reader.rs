//! HTTP/1.1 as both ends of a simulation read it: by hand, so that they can break off anywhere and know what was whole.

use std::sync::LazyLock;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// The result of reading on in a body.
#[derive(Debug)]
pub(super) enum Piece {
    Data(Bytes),
    End,
    Cut,
}

/// The framing by which the end of a body is found.
#[derive(Clone, Copy, Debug)]
pub(super) enum Framing {
    Chunked,
    Length(usize),
}

pub(super) struct MessageHead {
    /// The words of its first line.
    pub(super) first: Vec<String>,
    fields: Vec<(String, String)>,
}

impl MessageHead {
    /// Returns the first value of a field; `name` is in lower case.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Returns the framing of its body. The messages read here come from the proxy, which never writes a body without a
    /// length.
    pub(super) fn framing(&self) -> Framing {
        if self.get("transfer-encoding").is_some() {
            return Framing::Chunked;
        }
        Framing::Length(self.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0))
    }
}

/// A stream, and what was read ahead.
pub(super) struct MessageReader<S> {
    pub(super) io: S,
    ahead: BytesMut,
}

impl<S: AsyncRead + Unpin> MessageReader<S> {
    pub(super) fn new(io: S) -> Self {
        Self { io, ahead: BytesMut::new() }
    }

    /// Reads more; `false`: nothing will come.
    async fn more(&mut self) -> bool {
        self.io.read_buf(&mut self.ahead).await.is_ok_and(|read| read > 0)
    }

    /// A line, without its end.
    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.ahead.windows(2).position(|two| two == b"\r\n") {
                let line = self.ahead.split_to(end + 2);
                return Some(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            if !self.more().await {
                return None;
            }
        }
    }

    /// The next message's head. `None`: there is none.
    pub(super) async fn head(&mut self) -> Option<MessageHead> {
        let first = self.line().await?.split(' ').map(str::to_owned).collect();
        let mut fields = Vec::new();
        loop {
            let line = self.line().await?;
            let Some((name, value)) = line.split_once(':') else { return Some(MessageHead { first, fields }) };
            fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    /// The next piece of a body.
    pub(super) async fn piece(&mut self, framing: &mut Framing) -> Piece {
        self.whole_piece(framing).await.unwrap_or(Piece::Cut)
    }

    async fn whole_piece(&mut self, framing: &mut Framing) -> Option<Piece> {
        match framing {
            Framing::Length(0) => Some(Piece::End),
            Framing::Length(left) => {
                if self.ahead.is_empty() && !self.more().await {
                    return None;
                }
                let data = self.ahead.split_to(self.ahead.len().min(*left)).freeze();
                *left -= data.len();
                Some(Piece::Data(data))
            }
            Framing::Chunked => {
                let line = self.line().await?;
                let length = usize::from_str_radix(line.split(';').next()?, 16).ok()?;
                if length == 0 {
                    while !self.line().await?.is_empty() {}
                    *framing = Framing::Length(0);
                    return Some(Piece::End);
                }
                while self.ahead.len() < length + 2 {
                    if !self.more().await {
                        return None;
                    }
                }
                let data = self.ahead.split_to(length).freeze();
                let _end = self.ahead.split_to(2);
                Some(Piece::Data(data))
            }
        }
    }
}

/// Encodes data as one chunk of the chunked transfer coding.
pub(super) fn chunk(data: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", data.len()).as_bytes(), data, b"\r\n"].concat()
}

/// The text of which all bodies are pieces. It does not repeat itself within one of them.
static TEXT: LazyLock<Bytes> = LazyLock::new(|| (0..80_000_u64).flat_map(|at| (at << 20 | at).to_le_bytes()).collect());

/// So many bytes of this message's body, from here on.
pub(super) fn content(message: usize, from: usize, length: usize) -> Bytes {
    let start = message * 37 % 1_000 + from;
    TEXT.slice(start.min(TEXT.len())..(start + length).min(TEXT.len()))
}
