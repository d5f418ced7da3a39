//! The messages of HTTP/1.1 as a client writes and reads them (RFC 9112), without a connection.
//!
//! A request's head is written into one buffer, its framing chosen as hyper's client chooses it. A response's head and
//! body are read from the buffer that the bytes arrived in, in whatever pieces, and are slices of that buffer.
//!
//! A message that could be read in two ways is refused: a length beside a transfer coding, different lengths, any
//! transfer coding but one `chunked`, a bare CR, a folded line, a blank before a colon, a malformed chunk. `httparse`
//! reads the lines of a head; everything that concerns the length of a message is decided here.

use std::mem::MaybeUninit;

use bytes::{Buf, Bytes, BytesMut};
use http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HOST,
    MAX_FORWARDS, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING,
};
use http::response::Parts;
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Version};
use hyper::body::Body;
use thiserror::Error;

use super::http1::{BUFFER, MOST_FIELDS};
use super::request_head::RequestHead;

/// Fields for which there is room on the stack; a head with more of them is read once more.
const USUAL_FIELDS: usize = 64;
/// The most digits of a chunk's size.
const MOST_DIGITS: u8 = 16;
/// Bytes of chunk extensions, over the whole body.
const MOST_EXTENSION: usize = 16 * 1024;
/// The limit for all lines of a trailer section together, in bytes.
const MOST_TRAILERS: usize = 16 * 1024;
/// Fields that a request's trailers must not have (RFC 9110 section 6.5.1).
const NEVER_IN_TRAILERS: [HeaderName; 12] = [
    AUTHORIZATION,
    CACHE_CONTROL,
    CONTENT_ENCODING,
    CONTENT_LENGTH,
    CONTENT_RANGE,
    CONTENT_TYPE,
    HOST,
    MAX_FORWARDS,
    SET_COOKIE,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
];

/// The reason for which a response cannot be read.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum H1CodecError {
    /// The connection ended before the body did.
    #[error("end of file before message length reached")]
    BodyCut,
    /// A line of a chunk is malformed.
    #[error("invalid chunk line")]
    Chunk,
    /// There are more chunk extensions than are skipped.
    #[error("chunk extensions over limit")]
    ChunkExtensions,
    /// The size of a chunk has too many digits.
    #[error("invalid chunk size: overflow")]
    ChunkSize,
    /// The length is no number, or there are several.
    #[error("invalid content-length parsed")]
    ContentLength,
    /// A field, or the line that the head begins with, is malformed.
    #[error("invalid HTTP header parsed")]
    Head,
    /// The status is no number of three digits.
    #[error("invalid HTTP status-code parsed")]
    Status,
    /// The head has more bytes or fields than are read.
    #[error("message head is too large")]
    TooLarge,
    /// A trailer section is malformed.
    #[error("invalid chunk trailers")]
    Trailers,
    /// A trailer section has more bytes or fields than are read.
    #[error("chunk trailers over limit")]
    TrailersTooLarge,
    /// The end of the body could be read in two ways, or only from the end of the connection.
    #[error("unexpected transfer-encoding parsed")]
    TransferEncoding,
    /// Another protocol follows, for which no request has asked.
    #[error("another protocol was switched to unasked")]
    Upgrade,
    /// Neither HTTP/1.1 nor HTTP/1.0.
    #[error("invalid HTTP version parsed")]
    Version,
}

impl From<httparse::Error> for H1CodecError {
    fn from(error: httparse::Error) -> Self {
        match error {
            httparse::Error::HeaderName
            | httparse::Error::HeaderValue
            | httparse::Error::NewLine
            | httparse::Error::Token => H1CodecError::Head,
            httparse::Error::Status => H1CodecError::Status,
            httparse::Error::TooManyHeaders => H1CodecError::TooLarge,
            httparse::Error::Version => H1CodecError::Version,
        }
    }
}

/// The framing of a request's body.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum RequestFraming {
    /// Chunks, and the trailer fields that were announced.
    Chunked(Vec<HeaderName>),
    /// The bytes that are still to be sent.
    Length(u64),
}

/// The difference between the fields of a head that tell the framing, and those that are sent.
#[derive(Debug, Default, Eq, PartialEq)]
pub(super) struct FramingFields {
    /// Is not sent.
    omitted: Option<HeaderName>,
    /// Is sent besides.
    added: Option<(HeaderName, HeaderValue)>,
}

impl RequestFraming {
    /// Decides how the end of a request's body is told, and which fields tell it. As with hyper's client, the fields
    /// count for more than the body's own length, and a body of unknown length is not sent with GET, HEAD and CONNECT.
    pub(super) fn settle(method: &Method, headers: &HeaderMap, body: &impl Body) -> (Self, FramingFields) {
        const CHUNKED: HeaderValue = HeaderValue::from_static("chunked");
        if body.is_end_stream() {
            return (Self::Length(0), FramingFields { omitted: Some(TRANSFER_ENCODING), added: None });
        }
        if headers.contains_key(TRANSFER_ENCODING) {
            let added = (!ends_chunked(headers)).then_some((TRANSFER_ENCODING, CHUNKED));
            return (Self::Chunked(announced(headers)), FramingFields { omitted: Some(CONTENT_LENGTH), added });
        }
        if let Some(length) = content_length(headers) {
            return (Self::Length(length), FramingFields::default());
        }
        let (framing, added) = match body.size_hint().exact() {
            Some(length) => (Self::Length(length), Some((CONTENT_LENGTH, length.into()))),
            None if matches!(*method, Method::GET | Method::HEAD | Method::CONNECT) => {
                return (Self::Length(0), FramingFields::default());
            }
            None => (Self::Chunked(announced(headers)), Some((TRANSFER_ENCODING, CHUNKED))),
        };
        (framing, FramingFields { omitted: Some(CONTENT_LENGTH), added })
    }
}

/// Writes the head of a request, its `Host` field first (RFC 9112 section 3.2); `authority` is that of a head without
/// one.
pub(super) fn write_head(into: &mut Vec<u8>, head: RequestHead<'_>, authority: &Authority, framing: &FramingFields) {
    into.extend_from_slice(head.method.as_str().as_bytes());
    into.push(b' ');
    into.extend_from_slice(head.target.path_and_query().map_or("/", PathAndQuery::as_str).as_bytes());
    into.extend_from_slice(b" HTTP/1.1\r\n");
    let mut hosts = head.headers.get_all(HOST).iter().peekable();
    if hosts.peek().is_none() {
        write_field(into, &HOST, authority.as_str().as_bytes());
    }
    for host in hosts {
        write_field(into, &HOST, host.as_bytes());
    }
    for (name, value) in head.headers {
        if *name != HOST && framing.omitted.as_ref() != Some(name) {
            write_field(into, name, value.as_bytes());
        }
    }
    if let Some((name, value)) = &framing.added {
        write_field(into, name, value.as_bytes());
    }
    into.extend_from_slice(b"\r\n");
}

fn write_field(into: &mut Vec<u8>, name: &HeaderName, value: &[u8]) {
    into.extend_from_slice(name.as_str().as_bytes());
    into.extend_from_slice(b": ");
    into.extend_from_slice(value);
    into.extend_from_slice(b"\r\n");
}

/// The line before a chunk of this length.
pub(super) fn chunk_line(length: usize) -> Bytes {
    Bytes::from(format!("{length:X}\r\n"))
}

/// The last chunk of a body with a trailer section of those fields that were announced.
pub(super) fn last_chunk(announced: &[HeaderName], trailers: &HeaderMap) -> Bytes {
    let mut last = b"0\r\n".to_vec();
    for (name, value) in trailers {
        if announced.contains(name) && !NEVER_IN_TRAILERS.contains(name) {
            write_field(&mut last, name, value.as_bytes());
        }
    }
    last.extend_from_slice(b"\r\n");
    last.into()
}

/// The trailer fields that `Trailer` names.
fn announced(headers: &HeaderMap) -> Vec<HeaderName> {
    let lines = headers.get_all(TRAILER).iter().filter_map(|value| value.to_str().ok());
    let names = lines.flat_map(|line| line.split(','));
    names.filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok()).collect()
}

fn ends_chunked(headers: &HeaderMap) -> bool {
    let last = headers.get_all(TRANSFER_ENCODING).iter().next_back();
    let coding = last.and_then(|value| value.as_bytes().rsplit(|byte| *byte == b',').next());
    coding.is_some_and(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"chunked"))
}

/// The length that all members of all `Content-Length` fields agree on (RFC 9110 section 8.6).
pub fn content_length(headers: &HeaderMap) -> Option<u64> {
    let members = headers.get_all(CONTENT_LENGTH).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let mut lengths = members.map(|member| {
        let member = member.trim_ascii();
        let digits = std::str::from_utf8(member).ok().filter(|_| member.iter().all(u8::is_ascii_digit))?;
        digits.parse::<u64>().ok()
    });
    let first = lengths.next()??;
    lengths.all(|other| other == Some(first)).then_some(first)
}

/// Returns whether a `Connection` field asks for the connection's end (RFC 9112 section 9.6).
pub(super) fn asks_to_close(headers: &HeaderMap) -> bool {
    let members = headers.get_all(CONNECTION).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    members.map(<[u8]>::trim_ascii).any(|member| member.eq_ignore_ascii_case(b"close"))
}

/// The head of a final response.
#[derive(Debug)]
pub(super) struct ResponseHead {
    pub(super) parts: Parts,
    pub(super) body: BodyDecoder,
    /// Another request may follow on the connection. Never after HTTP/1.0, nor if the connection's end ends the body.
    pub(super) keep_alive: bool,
}

/// Reads the heads of responses, of each exchange in turn.
#[derive(Debug, Default)]
pub(super) struct HeadParser {
    /// Bytes that were searched for the end of the head in vain.
    searched: usize,
    /// An empty map whose allocations the next head takes over.
    spare: HeaderMap,
}

impl HeadParser {
    /// Begins with another exchange.
    pub(super) fn begin(&mut self) {
        self.searched = 0;
    }

    /// Takes over a map that is not needed any more.
    pub(super) fn reuse(&mut self, mut spare: HeaderMap) {
        spare.clear();
        self.spare = spare;
    }

    /// Takes the head of the response to a request of this method from the front of `incoming`, and interim responses
    /// before it. `None`: more bytes are needed.
    pub(super) fn parse(
        &mut self,
        incoming: &mut BytesMut,
        method: &Method,
    ) -> Result<Option<ResponseHead>, H1CodecError> {
        while !incoming.is_empty() {
            let Some(end) = head_end(incoming, self.searched) else {
                if self.searched == 0 {
                    // Bytes that can never become a head are refused at once.
                    with_head(incoming, |_, _| Ok(()))?;
                }
                self.searched = incoming.len();
                return if incoming.len() < BUFFER { Ok(None) } else { Err(H1CodecError::TooLarge) };
            };
            if end > BUFFER {
                return Err(H1CodecError::TooLarge);
            }
            self.searched = 0;
            let head = incoming.split_to(end).freeze();
            let read = with_head(&head, |response, length| {
                if length != Some(head.len()) {
                    return Err(H1CodecError::Head);
                }
                read_head(response, &head, method, &mut self.spare)
            })?;
            if read.is_some() {
                return Ok(read);
            }
        }
        Ok(None)
    }
}

/// Returns the end of a head, its empty line included; `None` if it is incomplete. The first `searched` bytes hold none.
/// Empty lines in front of a head are part of it.
fn head_end(bytes: &[u8], searched: usize) -> Option<usize> {
    let blank = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    let from = blank.max(searched.saturating_sub(3));
    memchr::memchr_iter(b'\n', &bytes[from..]).find_map(|at| {
        let next = from + at + 1;
        match &bytes[next..] {
            [b'\n', ..] => Some(next + 1),
            [b'\r', b'\n', ..] => Some(next + 2),
            _ => None,
        }
    })
}

/// Gives `read` the lines of a head and its length; without a length it is incomplete.
fn with_head<T>(
    head: &[u8],
    read: impl FnOnce(&httparse::Response<'_, '_>, Option<usize>) -> Result<T, H1CodecError>,
) -> Result<T, H1CodecError> {
    let config = httparse::ParserConfig::default();
    let mut usual = [const { MaybeUninit::uninit() }; USUAL_FIELDS];
    let mut response = httparse::Response::new(&mut []);
    let mut parsed = config.parse_response_with_uninit_headers(&mut response, head, &mut usual);
    let mut many = Vec::new();
    if parsed == Err(httparse::Error::TooManyHeaders) {
        many.resize(MOST_FIELDS, MaybeUninit::uninit());
        response = httparse::Response::new(&mut []);
        parsed = config.parse_response_with_uninit_headers(&mut response, head, &mut many);
    }
    match parsed? {
        httparse::Status::Complete(length) => read(&response, Some(length)),
        httparse::Status::Partial => read(&response, None),
    }
}

/// Reads a whole head; `None`: it is an interim response.
fn read_head(
    response: &httparse::Response<'_, '_>,
    head: &Bytes,
    method: &Method,
    spare: &mut HeaderMap,
) -> Result<Option<ResponseHead>, H1CodecError> {
    let status = response.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(H1CodecError::Status)?;
    if status == StatusCode::SWITCHING_PROTOCOLS || (*method == Method::CONNECT && status.is_success()) {
        return Err(H1CodecError::Upgrade);
    }
    if status.is_informational() {
        return Ok(None);
    }
    let mut headers = std::mem::take(spare);
    headers.reserve(response.headers.len());
    for field in response.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| H1CodecError::Head)?;
        let value = HeaderValue::from_maybe_shared(head.slice_ref(field.value)).map_err(|_| H1CodecError::Head)?;
        headers.append(name, value);
    }
    let version = if response.version == Some(1) { Version::HTTP_11 } else { Version::HTTP_10 };
    let body = if *method == Method::HEAD || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        BodyDecoder::Done
    } else {
        BodyDecoder::of(&headers, version)?
    };
    let keep_alive = version == Version::HTTP_11 && body != BodyDecoder::UntilClose && !asks_to_close(&headers);
    let (mut parts, ()) = Response::new(()).into_parts();
    (parts.status, parts.version, parts.headers) = (status, version, headers);
    Ok(Some(ResponseHead { parts, body, keep_alive }))
}

/// A reader of a response's body (RFC 9112 section 6).
#[derive(Debug, Eq, PartialEq)]
pub(super) enum BodyDecoder {
    Chunked(Box<ChunkedDecoder>),
    /// All of it was read.
    Done,
    /// The bytes that are still to come.
    Length(u64),
    /// The end of the connection ends it.
    UntilClose,
}

/// The next part of a body.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum DecodedPart {
    Data(Bytes),
    End,
    /// All bytes were used up, and more are needed.
    More,
    Trailers(HeaderMap),
}

/// The place within a body in chunks (RFC 9112 section 7.1).
#[derive(Debug, Eq, PartialEq)]
pub(super) struct ChunkedDecoder {
    state: ChunkState,
    /// The size of the chunk, as far as it was read; then its bytes that are still to come.
    left: u64,
    digits: u8,
    /// Bytes of extensions, and of blanks, in all chunks so far.
    extension: usize,
    /// Whole lines of the trailer section, and the beginning of one.
    trailers: Vec<u8>,
    fields: usize,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum ChunkState {
    Data,
    DataCr,
    DataLf,
    /// Behind the last chunk, or a line of the trailer section.
    End,
    EndLf,
    Extension,
    Size,
    /// A blank behind the size.
    SizeBlank,
    SizeLf,
    Trailer,
    TrailerLf,
}

impl BodyDecoder {
    fn of(headers: &HeaderMap, version: Version) -> Result<Self, H1CodecError> {
        let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
        let has_length = headers.contains_key(CONTENT_LENGTH);
        match (codings.next(), codings.next()) {
            (None, _) if !has_length => Ok(Self::UntilClose),
            (None, _) => match content_length(headers) {
                // The two highest numbers mean something else to other readers.
                Some(length) if length < u64::MAX - 1 => {
                    Ok(if length == 0 { Self::Done } else { Self::Length(length) })
                }
                Some(_) => Err(H1CodecError::TooLarge),
                None => Err(H1CodecError::ContentLength),
            },
            (Some(only), None)
                if version == Version::HTTP_11 && !has_length && only.as_bytes().eq_ignore_ascii_case(b"chunked") =>
            {
                Ok(Self::Chunked(Box::new(ChunkedDecoder {
                    state: ChunkState::Size,
                    left: 0,
                    digits: 0,
                    extension: 0,
                    trailers: Vec::new(),
                    fields: 0,
                })))
            }
            (Some(_), _) => Err(H1CodecError::TransferEncoding),
        }
    }

    /// Returns the bytes that are still to come, if a length says so.
    pub(super) fn exact(&self) -> Option<u64> {
        match self {
            Self::Chunked(_) | Self::UntilClose => None,
            Self::Done => Some(0),
            Self::Length(left) => Some(*left),
        }
    }

    /// Takes the next part of the body from the front of `incoming`.
    pub(super) fn decode(&mut self, incoming: &mut BytesMut) -> Result<DecodedPart, H1CodecError> {
        match self {
            Self::Chunked(chunked) => {
                let decoded = chunked.decode(incoming);
                if matches!(decoded, Ok(DecodedPart::End | DecodedPart::Trailers(_))) {
                    *self = Self::Done;
                }
                decoded
            }
            Self::Done => Ok(DecodedPart::End),
            Self::Length(_) | Self::UntilClose if incoming.is_empty() => Ok(DecodedPart::More),
            Self::Length(left) => {
                let data = take(incoming, *left);
                *left -= data.len() as u64;
                if *left == 0 {
                    *self = Self::Done;
                }
                Ok(DecodedPart::Data(data))
            }
            Self::UntilClose => Ok(DecodedPart::Data(incoming.split().freeze())),
        }
    }

    /// Learns that the connection has ended, in order, and that no more bytes will come.
    pub(super) fn end(&mut self) -> Result<(), H1CodecError> {
        match self {
            Self::Chunked(_) | Self::Length(_) => Err(H1CodecError::BodyCut),
            Self::Done | Self::UntilClose => {
                *self = Self::Done;
                Ok(())
            }
        }
    }
}

/// The first bytes, as many as there are of so many.
fn take(incoming: &mut BytesMut, most: u64) -> Bytes {
    let length = usize::try_from(most).unwrap_or(usize::MAX).min(incoming.len());
    incoming.split_to(length).freeze()
}

impl ChunkedDecoder {
    fn decode(&mut self, incoming: &mut BytesMut) -> Result<DecodedPart, H1CodecError> {
        let mut used = 0;
        while let Some(byte) = incoming.get(used).copied() {
            if self.state == ChunkState::Data {
                incoming.advance(used);
                let data = take(incoming, self.left);
                self.left -= data.len() as u64;
                if self.left == 0 {
                    self.state = ChunkState::DataCr;
                }
                return Ok(DecodedPart::Data(data));
            }
            used += 1;
            if let Some(end) = self.step(byte)? {
                incoming.advance(used);
                return Ok(end);
            }
        }
        incoming.clear();
        Ok(DecodedPart::More)
    }

    /// Reads a byte that is not data; answers at the end of the body.
    fn step(&mut self, byte: u8) -> Result<Option<DecodedPart>, H1CodecError> {
        self.state = match (self.state, byte) {
            (ChunkState::Size, byte) if byte.is_ascii_hexdigit() => {
                if self.digits == MOST_DIGITS {
                    return Err(H1CodecError::ChunkSize);
                }
                self.digits += 1;
                let digit = char::from(byte).to_digit(16).map_or(0, u64::from);
                self.left = self.left << 4 | digit;
                ChunkState::Size
            }
            (ChunkState::Size, _) if self.digits == 0 => return Err(H1CodecError::Chunk),
            (ChunkState::Size | ChunkState::SizeBlank, b'\t' | b' ') => self.skip(ChunkState::SizeBlank)?,
            (ChunkState::Size | ChunkState::SizeBlank, b';') => ChunkState::Extension,
            (ChunkState::Extension | ChunkState::Size | ChunkState::SizeBlank, b'\r') => ChunkState::SizeLf,
            (ChunkState::Extension, byte) if byte != b'\n' => self.skip(ChunkState::Extension)?,
            (ChunkState::SizeLf, b'\n') => {
                self.digits = 0;
                if self.left == 0 { ChunkState::End } else { ChunkState::Data }
            }
            (ChunkState::DataCr, b'\r') => ChunkState::DataLf,
            (ChunkState::DataLf, b'\n') => ChunkState::Size,
            (ChunkState::End, b'\r') => ChunkState::EndLf,
            (ChunkState::EndLf, b'\n') => return self.finish().map(Some),
            (ChunkState::Trailer, b'\r') => ChunkState::TrailerLf,
            (ChunkState::End | ChunkState::Trailer, byte) if byte != b'\n' => {
                self.keep(&[byte])?;
                ChunkState::Trailer
            }
            (ChunkState::TrailerLf, b'\n') => {
                self.fields += 1;
                if self.fields > MOST_FIELDS {
                    return Err(H1CodecError::TrailersTooLarge);
                }
                self.keep(b"\r\n")?;
                ChunkState::End
            }
            (ChunkState::End | ChunkState::EndLf | ChunkState::Trailer | ChunkState::TrailerLf, _) => {
                return Err(H1CodecError::Trailers);
            }
            (
                ChunkState::Data
                | ChunkState::DataCr
                | ChunkState::DataLf
                | ChunkState::Extension
                | ChunkState::Size
                | ChunkState::SizeBlank
                | ChunkState::SizeLf,
                _,
            ) => return Err(H1CodecError::Chunk),
        };
        Ok(None)
    }

    fn skip(&mut self, next: ChunkState) -> Result<ChunkState, H1CodecError> {
        self.extension += 1;
        if self.extension < MOST_EXTENSION { Ok(next) } else { Err(H1CodecError::ChunkExtensions) }
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<(), H1CodecError> {
        self.trailers.extend_from_slice(bytes);
        // The two bytes of the empty line at the end count, too.
        if self.trailers.len() + 2 < MOST_TRAILERS { Ok(()) } else { Err(H1CodecError::TrailersTooLarge) }
    }

    fn finish(&mut self) -> Result<DecodedPart, H1CodecError> {
        if self.trailers.is_empty() {
            return Ok(DecodedPart::End);
        }
        self.trailers.extend_from_slice(b"\r\n");
        let mut fields = vec![httparse::EMPTY_HEADER; self.fields];
        let parsed = httparse::parse_headers(&self.trailers, &mut fields).map_err(|_| H1CodecError::Trailers)?;
        let httparse::Status::Complete((length, fields)) = parsed else { return Err(H1CodecError::Trailers) };
        if length != self.trailers.len() {
            return Err(H1CodecError::Trailers);
        }
        let mut trailers = HeaderMap::with_capacity(fields.len());
        for field in fields {
            let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| H1CodecError::Trailers)?;
            let value = HeaderValue::from_bytes(field.value).map_err(|_| H1CodecError::Trailers)?;
            trailers.append(name, value);
        }
        Ok(DecodedPart::Trailers(trailers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(head: &str) -> Result<Option<ResponseHead>, H1CodecError> {
        HeadParser::default().parse(&mut BytesMut::from(head), &Method::GET)
    }

    /// Decodes a body that arrives in pieces of one size.
    fn decoded(body: &str, size: usize) -> Result<(String, Option<HeaderMap>, usize), H1CodecError> {
        let headers = HeaderMap::from_iter([(TRANSFER_ENCODING, HeaderValue::from_static("chunked"))]);
        let mut decoder = BodyDecoder::of(&headers, Version::HTTP_11)?;
        let (mut incoming, mut data) = (BytesMut::new(), Vec::new());
        let mut pieces = body.as_bytes().chunks(size);
        loop {
            match decoder.decode(&mut incoming)? {
                DecodedPart::Data(piece) => data.extend_from_slice(&piece),
                DecodedPart::End => break Ok((String::from_utf8(data).unwrap(), None, incoming.len())),
                DecodedPart::More => match pieces.next() {
                    Some(piece) => incoming.extend_from_slice(piece),
                    None => decoder.end()?,
                },
                DecodedPart::Trailers(trailers) => {
                    break Ok((String::from_utf8(data).unwrap(), Some(trailers), incoming.len()));
                }
            }
        }
    }

    #[test]
    fn bodies_in_chunks_are_read_in_whatever_pieces() {
        let body = "4\r\nWiki\r\n00000006;a=\"b\"\r\npedia \r\nD \t; x\r\nin \r\n\r\nchunks\r\n0\r\n";
        for size in [1, 2, 3, 7, 4096] {
            let whole = Ok(("Wikipedia in \r\n\r\nchunks".to_owned(), None, 0));
            assert_eq!(decoded(&format!("{body}\r\n"), size), whole, "{size}");
            let (_, trailers, left) = decoded(&format!("{body}X-Sum: 1\r\nx-b:\r\n\r\n"), size).unwrap();
            let trailers = trailers.unwrap();
            assert_eq!((trailers["x-sum"].as_bytes(), trailers["x-b"].as_bytes(), left), (&b"1"[..], &b""[..], 0));
            assert_eq!(decoded(body, size), Err(H1CodecError::BodyCut));
        }
        assert_eq!(decoded("0\r\n\r\nHTTP", 4096), Ok((String::new(), None, 4)));
    }

    #[test]
    fn malformed_chunks_are_refused() {
        for (body, error) in [
            ("\r\n", H1CodecError::Chunk),
            ("x\r\n", H1CodecError::Chunk),
            ("0x1\r\na\r\n", H1CodecError::Chunk),
            ("-1\r\na\r\n", H1CodecError::Chunk),
            (" 1\r\na\r\n", H1CodecError::Chunk),
            ("1 1\r\na\r\n", H1CodecError::Chunk),
            ("1\na\r\n", H1CodecError::Chunk),
            ("1\r\r\na\r\n", H1CodecError::Chunk),
            ("1;a\nb\r\na\r\n", H1CodecError::Chunk),
            ("1\r\nab\r\n", H1CodecError::Chunk),
            ("1\r\na\n0\r\n\r\n", H1CodecError::Chunk),
            ("1\r\na\r0\r\n\r\n", H1CodecError::Chunk),
            ("00000000000000001\r\na\r\n", H1CodecError::ChunkSize),
            ("0\r\n\n", H1CodecError::Trailers),
            ("0\r\n\r\r\n", H1CodecError::Trailers),
            ("0\r\nx y: 1\r\n\r\n", H1CodecError::Trailers),
            ("0\r\nx: 1\r\n folded\r\n\r\n", H1CodecError::Trailers),
            ("0\r\nx: 1\ny: 1\r\n\r\n", H1CodecError::Trailers),
            ("0\r\nx : 1\r\n\r\n", H1CodecError::Trailers),
        ] {
            assert_eq!(decoded(body, 4096), Err(error), "{body:?}");
        }
        let many = |count: usize| decoded(&format!("0\r\n{}\r\n", "x: 1\r\n".repeat(count)), 4096);
        assert_eq!(many(MOST_FIELDS).unwrap().1.unwrap().len(), MOST_FIELDS);
        assert_eq!(many(MOST_FIELDS + 1), Err(H1CodecError::TrailersTooLarge));
        let long = |prefix: &str| decoded(&format!("{prefix}{}", "x".repeat(MOST_TRAILERS)), 4096);
        assert_eq!(long("0\r\nx: "), Err(H1CodecError::TrailersTooLarge));
        assert_eq!(long("1;"), Err(H1CodecError::ChunkExtensions));
        assert_eq!(decoded(&format!("1{}", " ".repeat(MOST_EXTENSION)), 4096), Err(H1CodecError::ChunkExtensions));
    }

    #[test]
    fn the_end_of_a_body_is_told_in_one_way_only() {
        let body = |fields: &str| {
            let head = parsed(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n"))?;
            head.map(|head| head.body).ok_or(H1CodecError::Head)
        };
        assert_eq!(body("content-length: 2\r\n"), Ok(BodyDecoder::Length(2)));
        assert_eq!(body("content-length: 2\r\nContent-Length: 2 , 2\r\n"), Ok(BodyDecoder::Length(2)));
        assert_eq!(body("content-length: 0\r\n"), Ok(BodyDecoder::Done));
        assert_eq!(body(""), Ok(BodyDecoder::UntilClose));
        assert!(matches!(body("transfer-encoding: Chunked\r\n"), Ok(BodyDecoder::Chunked(_))));
        for fields in [
            "content-length: 2\r\ncontent-length: 3\r\n",
            "content-length: +2\r\n",
            "content-length: 2,\r\n",
            "content-length:\r\n",
            "content-length: 99999999999999999999\r\n",
        ] {
            assert_eq!(body(fields), Err(H1CodecError::ContentLength), "{fields:?}");
        }
        for fields in [
            "content-length: 2\r\ntransfer-encoding: chunked\r\n",
            "transfer-encoding: gzip, chunked\r\n",
            "transfer-encoding: chunked, gzip\r\n",
            "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
            "transfer-encoding: identity\r\n",
            "transfer-encoding:\r\n",
        ] {
            assert_eq!(body(fields), Err(H1CodecError::TransferEncoding), "{fields:?}");
        }
        let old = parsed("HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
        assert_eq!(old.unwrap_err(), H1CodecError::TransferEncoding);
    }

    #[test]
    fn heads_are_read_in_whatever_pieces_and_interim_ones_skipped() {
        let heads = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\n\
                     HTTP/1.1 200 OK\r\nX-A: 1\r\nx-a:  2 \r\ncontent-length: 4\r\n\r\nbody";
        for size in [1, 2, 5, 4096] {
            let (mut parser, mut incoming) = (HeadParser::default(), BytesMut::new());
            let mut pieces = heads.as_bytes().chunks(size);
            let head = loop {
                match parser.parse(&mut incoming, &Method::GET).unwrap() {
                    Some(head) => break head,
                    None => incoming.extend_from_slice(pieces.next().unwrap()),
                }
            };
            assert_eq!(head.parts.status, StatusCode::OK);
            let values: Vec<_> = head.parts.headers.get_all("x-a").iter().map(HeaderValue::as_bytes).collect();
            assert_eq!((values, head.body.exact(), head.keep_alive), (vec![&b"1"[..], b"2"], Some(4), true));
        }
    }

    #[test]
    fn malformed_heads_are_refused_at_once() {
        for (head, error) in [
            ("SSH-2.0-x\r\n", H1CodecError::Version),
            ("HTTP/2.0 200 OK\r\n", H1CodecError::Version),
            ("HTTP/1.1 2x0 OK\r\n", H1CodecError::Status),
            ("HTTP/1.1 200 OK\r\nx : 1\r\n\r\n", H1CodecError::Head),
            ("HTTP/1.1 200 OK\r\nx: 1\r\n folded\r\n\r\n", H1CodecError::Head),
            ("HTTP/1.1 200 OK\r\nx: a\rb\r\n\r\n", H1CodecError::Head),
            ("HTTP/1.1 200 OK\r\nno colon\r\n\r\n", H1CodecError::Head),
            ("HTTP/1.1 101 Switching Protocols\r\n\r\n", H1CodecError::Upgrade),
        ] {
            assert_eq!(parsed(head).unwrap_err(), error, "{head:?}");
        }
        assert!(parsed("HTTP/1.1 200 OK\r\nx: 1\r\n").unwrap().is_none());
        assert_eq!(head_end(b"\r\n\nHTTP/1.1 200 OK\n\nbody", 0), Some(20));
        assert_eq!(head_end(b"HTTP/1.1 200 OK\r\nx:1\r\n\r\n", 22), Some(24));
    }
}
