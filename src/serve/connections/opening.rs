//! The first frame of a client's HTTP/2 connection: SETTINGS, which belongs to the preface (RFC 9113 section 3.4). h2
//! compares the 24 bytes before it and takes any frame behind them.

use std::io;

/// The bytes with which an HTTP/2 connection begins (RFC 9113 section 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The kind of a SETTINGS frame (RFC 9113 section 6.5), and its flag ACK.
const SETTINGS: u8 = 4;
const ACK: u8 = 1;
/// The head of a frame (RFC 9113 section 4.1): length, kind, flags, stream.
const HEAD: usize = 9;

/// The number of bytes of a connection's opening that have been checked.
#[derive(Debug, Default)]
pub struct Opening(usize);

impl Opening {
    /// Returns whether the opening has been checked to its end.
    pub const fn is_over(&self) -> bool {
        self.0 >= PREFACE.len() + HEAD
    }

    /// Looks at bytes that have come. An error: they are not how a connection begins.
    pub fn check(&mut self, came: &[u8]) -> io::Result<()> {
        for byte in came {
            let fits = match self.0.checked_sub(PREFACE.len()) {
                // h2 sees to these, and lengths may be any.
                None | Some(0..3) => true,
                Some(3) => *byte == SETTINGS,
                Some(4) => byte & ACK == 0,
                // The stream identifier is 0; the reserved bit is ignored.
                Some(5) => byte & 0x7f == 0,
                Some(6..HEAD) => *byte == 0,
                Some(_) => break,
            };
            if !fits {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "no SETTINGS behind the preface"));
            }
            self.0 += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_begins_with_settings() {
        let good = [&[0, 0, 6, 4, 0, 0, 0, 0, 0][..], &[0, 1, 0x80, 0x80, 1, 1, 4, 5]].concat();
        let bad: [[u8; 9]; 6] = [
            [0, 0, 8, 6, 0, 0, 0, 0, 0],
            [0, 0, 0, 4, 1, 0, 0, 0, 0],
            [0, 0, 0, 4, 0, 0, 0, 0, 1],
            [0, 0, 0, 4, 0, 1, 0, 0, 0],
            [0, 0, 0, 0, 0, 0, 0, 0, 0],
            [b'G', b'E', b'T', b' ', b'/', b' ', b'H', b'T', b'T'],
        ];
        for cut in 0..PREFACE.len() + HEAD {
            let read = |frame: &[u8]| {
                let bytes = [PREFACE, frame].concat();
                let (one, two) = bytes.split_at(cut);
                let mut opening = Opening::default();
                opening.check(one).and_then(|()| opening.check(two)).map(|()| opening.is_over())
            };
            assert!(read(&good).is_ok_and(|over| over), "cut at {cut}");
            assert!(read(&good[..8]).is_ok_and(|over| !over), "cut at {cut}");
            for frame in &bad {
                assert!(read(frame).is_err(), "{frame:?} cut at {cut}");
            }
        }
    }
}
