//! HTTP/2 by hand: frames that no library sends, and a connection that shows each frame that it receives.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

// Kinds of frames (RFC 9113 section 6).
pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

// Flags.
pub const ACK: u8 = 0x1;
pub const END_STREAM: u8 = 0x1;
pub const END_HEADERS: u8 = 0x4;
pub const PADDED: u8 = 0x8;
pub const PRIORITIZED: u8 = 0x20;

// Settings (RFC 9113 section 6.5.2, RFC 8441 section 3).
pub const HEADER_TABLE_SIZE: u16 = 1;
pub const ENABLE_PUSH: u16 = 2;
pub const MAX_CONCURRENT_STREAMS: u16 = 3;
pub const INITIAL_WINDOW_SIZE: u16 = 4;
pub const MAX_FRAME_SIZE: u16 = 5;
pub const ENABLE_CONNECT_PROTOCOL: u16 = 8;

// Error codes (RFC 9113 section 7).
pub const NO_ERROR: u32 = 0x0;
pub const PROTOCOL_ERROR: u32 = 0x1;
pub const FLOW_CONTROL_ERROR: u32 = 0x3;
pub const STREAM_CLOSED: u32 = 0x5;
pub const FRAME_SIZE_ERROR: u32 = 0x6;
pub const REFUSED_STREAM: u32 = 0x7;
pub const CANCEL: u32 = 0x8;
pub const COMPRESSION_ERROR: u32 = 0x9;
pub const ENHANCE_YOUR_CALM: u32 = 0xb;

/// A frame (RFC 9113 section 4.1).
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(payload.len()).expect("short").to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Header fields as literals without indexing (RFC 7541 section 6.2.2).
pub fn block<N: AsRef<[u8]>, V: AsRef<[u8]>>(fields: &[(N, V)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name.as_ref(), value.as_ref()] {
            block.extend(length(text.len()));
            block.extend(text);
        }
    }
    block
}

/// The length of a string without Huffman coding (RFC 7541 sections 5.1 and 5.2).
pub fn length(length: usize) -> Vec<u8> {
    const PREFIX: usize = 0x7f;
    let Some(mut rest) = length.checked_sub(PREFIX) else { return vec![u8::try_from(length).expect("below 127")] };
    let mut bytes = vec![0x7f];
    while rest >= 0x80 {
        bytes.push(u8::try_from(rest % 0x80).expect("seven bits") | 0x80);
        rest /= 0x80;
    }
    bytes.push(u8::try_from(rest).expect("seven bits"));
    bytes
}

/// SETTINGS with these values.
pub fn settings(values: &[(u16, u32)]) -> Vec<u8> {
    let payload: Vec<u8> =
        values.iter().flat_map(|(name, value)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect();
    frame(SETTINGS, 0, 0, &payload)
}

pub fn window_update(stream: u32, increment: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &increment.to_be_bytes())
}

pub fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &code.to_be_bytes())
}

/// A frame as it was received.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    /// Reads one. `None`: the other side closed the connection as it should.
    pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Self>> {
        let mut head = [0; 9];
        if stream.read(&mut head[..1]).await? == 0 {
            return Ok(None);
        }
        stream.read_exact(&mut head[1..]).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).expect("a length")];
        stream.read_exact(&mut payload).await?;
        let number = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Ok(Some(Self { kind: head[3], flags: head[4], stream: number, payload }))
    }

    /// Whether it has this flag.
    pub const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Whether it is of this kind and stream.
    pub const fn is(&self, kind: u8, stream: u32) -> bool {
        self.kind == kind && self.stream == stream
    }

    /// Whether it ends the message on this stream.
    pub const fn ends(&self, stream: u32) -> bool {
        self.stream == stream && matches!(self.kind, DATA | HEADERS) && self.has(END_STREAM)
    }

    /// The error code of RST_STREAM or GOAWAY.
    pub fn code(&self) -> Option<u32> {
        let at = match self.kind {
            RST_STREAM => 0,
            GOAWAY => 4,
            _ => return None,
        };
        Some(u32::from_be_bytes(self.payload.get(at..at + 4)?.try_into().ok()?))
    }

    /// The status of an answer, if its block begins as h2 writes it: with an entry of the static table, or a literal
    /// that has its name from there (RFC 7541 appendix A).
    pub fn status(&self) -> Option<u16> {
        match *self.payload.as_slice() {
            [indexed @ 0x88..=0x8e, ..] => Some([200, 204, 206, 304, 400, 404, 500][usize::from(indexed - 0x88)]),
            [0x08 | 0x48, length, ref rest @ ..] => {
                let text = rest.get(..usize::from(length & 0x7f))?;
                if length & 0x80 == 0 { std::str::from_utf8(text).ok()?.parse().ok() } else { digits(text) }
            }
            // A change of the dynamic table's size comes first.
            [0x20..=0x3e, ref rest @ ..] => Self { payload: rest.to_vec(), ..self.clone() }.status(),
            _ => None,
        }
    }
}

/// Three digits in Huffman's code (RFC 7541 appendix B): five bits for 0 to 2, six for the others.
fn digits(code: &[u8]) -> Option<u16> {
    let mut bits = code.iter().flat_map(|byte| (0..8).rev().map(move |at| u16::from(byte >> at & 1)));
    let mut number = 0;
    for _ in 0..3 {
        let five = bits.by_ref().take(5).fold(0, |sum, bit| sum << 1 | bit);
        number = number * 10 + if five < 3 { five } else { (five << 1 | bits.next()?).checked_sub(0x16)? };
    }
    Some(number)
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ending {
    /// With close_notify.
    Closed,
    /// Without: reset, or cut.
    Broken,
}

/// A connection whose frames are written and read by hand. SETTINGS and PING are answered.
pub struct Line<S> {
    stream: S,
    /// What has come.
    pub seen: Vec<Frame>,
    /// How it ended, once it has.
    pub ending: Option<Ending>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Line<S> {
    /// A connection on which nothing was said yet.
    pub const fn new(stream: S) -> Self {
        Self { stream, seen: Vec::new(), ending: None }
    }

    /// Sends bytes. That they do not arrive is to be seen by what comes back.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref()).await;
        let _ = self.stream.flush().await;
    }

    /// Sends bytes in pieces, reading nothing, until the other side takes no more for a while. How many it took.
    pub async fn press(&mut self, piece: &[u8], most: usize, patience: Duration) -> usize {
        let mut sent = 0;
        while sent < most {
            match timeout(patience, self.stream.write(piece)).await {
                Ok(Ok(taken)) => sent += taken,
                Ok(Err(_)) | Err(_) => break,
            }
        }
        sent
    }

    /// The next frame. `None`: the connection is over.
    pub async fn next(&mut self) -> Option<&Frame> {
        if self.ending.is_some() {
            return None;
        }
        let frame = match Frame::read(&mut self.stream).await {
            Ok(Some(frame)) => frame,
            Ok(None) => {
                self.ending = Some(Ending::Closed);
                return None;
            }
            Err(_) => {
                self.ending = Some(Ending::Broken);
                return None;
            }
        };
        if matches!(frame.kind, SETTINGS | PING) && !frame.has(ACK) {
            let echo = if frame.kind == PING { frame.payload.as_slice() } else { &[] };
            self.send(self::frame(frame.kind, ACK, 0, echo)).await;
        }
        self.seen.push(frame);
        self.seen.last()
    }

    /// Reads on until a frame is like this. `false`: the connection ended before.
    pub async fn until(&mut self, like: impl Fn(&Frame) -> bool) -> bool {
        while let Some(frame) = self.next().await {
            if like(frame) {
                return true;
            }
        }
        false
    }

    /// Whether the connection serves: a PING is answered.
    pub async fn answers(&mut self, mark: u8) -> bool {
        self.send(frame(PING, 0, 0, &[mark; 8])).await;
        self.until(|frame| frame.is(PING, 0) && frame.has(ACK) && frame.payload == [mark; 8]).await
    }

    /// Reads to the end.
    pub async fn rest(&mut self) {
        while self.next().await.is_some() {}
    }
}
