//! A response of the admin listener that goes on: server-sent events (WHATWG HTML section 9.2) in a chunked body (RFC 9112
//! section 7.1).

use std::io::{self, BufRead, BufReader, ErrorKind, Read};

/// A longer line of a head, a chunk's size or an event is none of ours.
const LONGEST_LINE: u64 = 64 << 10;

/// The events of a response, one by one.
pub(super) struct EventStream(BufReader<Box<dyn Read>>);

impl EventStream {
    /// Reads the head of a response. Returns the status with the body behind it.
    pub(super) fn begin(wire: impl Read + 'static) -> io::Result<(u16, Self)> {
        let mut wire = BufReader::new(wire);
        let wrong = || io::Error::other("that is not HTTP");
        let first = line(&mut wire)?.ok_or_else(wrong)?;
        let status = first.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok()).ok_or_else(wrong)?;
        let mut is_chunked = false;
        let mut length = None;
        while let Some(field) = line(&mut wire)?.filter(|field| !field.is_empty()) {
            let Some((name, value)) = field.split_once(':') else { return Err(wrong()) };
            is_chunked |= name.eq_ignore_ascii_case("transfer-encoding") && value.trim() == "chunked";
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().ok();
            }
        }
        let body: Box<dyn Read> = match (is_chunked, length) {
            (true, _) => Box::new(ChunkedBody { wire, left: 0, has_ended: false }),
            (false, Some(length)) => Box::new(wire.take(length)),
            (false, None) => Box::new(wire),
        };
        Ok((status, Self(BufReader::new(body))))
    }

    /// The data of the next event; `None` at the end of the stream. Comments, which keep it open, are skipped.
    pub(super) fn next_event(&mut self) -> io::Result<Option<String>> {
        let mut data = String::new();
        loop {
            match line(&mut self.0)? {
                None => return Ok(None),
                Some(text) if text.is_empty() && !data.is_empty() => return Ok(Some(data)),
                Some(text) => {
                    if let Some(more) = text.strip_prefix("data:") {
                        data += more.strip_prefix(' ').unwrap_or(more);
                    }
                }
            }
        }
    }

    /// The rest of the body as text, if it is one.
    pub(super) fn rest(self) -> String {
        let mut text = String::new();
        // Half of an answer is better than none.
        let _ = self.0.take(LONGEST_LINE).read_to_string(&mut text);
        text
    }
}

/// The next line, without its end; `None` at the end of the wire.
fn line(from: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut bytes = Vec::new();
    from.take(LONGEST_LINE).read_until(b'\n', &mut bytes)?;
    if bytes.is_empty() {
        return Ok(None);
    }
    if bytes.pop() != Some(b'\n') {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    if bytes.last() == Some(&b'\r') {
        bytes.pop();
    }
    String::from_utf8(bytes).map(Some).map_err(io::Error::other)
}

/// The content of a chunked body.
struct ChunkedBody<R> {
    wire: R,
    /// Bytes of the chunk that are to come.
    left: u64,
    has_ended: bool,
}

impl<R: BufRead> Read for ChunkedBody<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let broken = || io::Error::from(ErrorKind::UnexpectedEof);
        if self.has_ended || into.is_empty() {
            return Ok(0);
        }
        if self.left == 0 {
            let size = line(&mut self.wire)?.ok_or_else(broken)?;
            let digits = size.split(';').next().unwrap_or_default().trim();
            self.left = u64::from_str_radix(digits, 16).map_err(io::Error::other)?;
            if self.left == 0 {
                self.has_ended = true;
                return Ok(0);
            }
        }
        let read = (&mut self.wire).take(self.left).read(into)?;
        if read == 0 {
            return Err(broken());
        }
        self.left -= read as u64;
        if self.left == 0 {
            // The line end behind the chunk.
            line(&mut self.wire)?.ok_or_else(broken)?;
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(body: &str) -> (u16, EventStream) {
        let text = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{body}");
        EventStream::begin(io::Cursor::new(text.into_bytes())).expect("a head")
    }

    fn chunk(text: &str) -> String {
        format!("{:x}\r\n{text}\r\n", text.len())
    }

    #[test]
    fn events_are_read_across_chunks_and_comments_are_skipped() {
        let body =
            [chunk(":\n\n"), chunk("event: reload\nda"), chunk("ta: {\"a\":1}\n\nevent: x\ndata: 2\n\n")].concat();
        let (status, mut events) = stream(&(body.clone() + "0\r\n\r\n"));
        assert_eq!(status, 200);
        assert_eq!(events.next_event().unwrap().as_deref(), Some("{\"a\":1}"));
        assert_eq!(events.next_event().unwrap().as_deref(), Some("2"));
        assert_eq!(events.next_event().unwrap(), None);
        // A connection that breaks off is no end.
        let (_, mut events) = stream(&body);
        assert!(events.next_event().is_ok() && events.next_event().is_ok());
        assert!(events.next_event().is_err());
    }

    #[test]
    fn a_body_of_known_length_is_read_to_its_end() {
        let text = "HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\n{}{}";
        let (status, events) = EventStream::begin(io::Cursor::new(text.as_bytes().to_vec())).unwrap();
        assert_eq!((status, events.rest()), (401, "{}".to_owned()));
        for bad in ["", "SSH-2.0-x\r\n\r\n", "HTTP/1.1 200 OK\r\nno field\r\n\r\n", "HTTP/1.1 2"] {
            assert!(EventStream::begin(io::Cursor::new(bad.as_bytes().to_vec())).is_err(), "{bad}");
        }
        assert!(stream("zz\r\n").1.next_event().is_err());
    }
}
