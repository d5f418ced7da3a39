//! The framing of TLS records, read from below TLS to detect a second handshake by the other side.
//!
//! rustls declines a renegotiation of TLS 1.2 (RFC 5246 section 7.4.1.1) and does not report it; most servers then
//! close the connection, which looks like any other broken connection. The types of records are not encrypted: in TLS
//! 1.2 the other side sends ChangeCipherSpec, one handshake record (Finished), and further handshake records only for a
//! renegotiation.

/// `ChangeCipherSpec` (RFC 5246 section 6.2.1).
const CHANGE_CIPHER_SPEC: u8 = 20;
/// The record type `handshake` (RFC 5246 section 6.2.1).
const HANDSHAKE: u8 = 22;
/// Bytes of a record's header: type, version, length.
const HEADER: usize = 5;

/// The records that came in so far.
#[derive(Debug, Default)]
pub(super) struct Records {
    header: [u8; HEADER],
    /// Bytes of the header that are there.
    have: usize,
    /// Bytes of the body that are still to come.
    body: usize,
    /// Handshake records since ChangeCipherSpec; `None` before it.
    after: Option<u8>,
}

impl Records {
    /// Reads on. Answers whether a second handshake has begun.
    pub(super) fn read(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            if self.body > 0 {
                let skipped = self.body.min(bytes.len());
                self.body -= skipped;
                bytes = &bytes[skipped..];
                continue;
            }
            self.header[self.have] = bytes[0];
            self.have += 1;
            bytes = &bytes[1..];
            if self.have == HEADER {
                self.have = 0;
                self.body = usize::from(u16::from_be_bytes([self.header[3], self.header[4]]));
                match (self.header[0], self.after) {
                    (CHANGE_CIPHER_SPEC, None) => self.after = Some(0),
                    (HANDSHAKE, Some(count)) => self.after = Some(count.saturating_add(1)),
                    _ => {}
                }
            }
        }
        self.after.is_some_and(|count| count > 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u8, length: u8) -> Vec<u8> {
        let mut record = vec![kind, 3, 3, 0, length];
        record.resize(HEADER + usize::from(length), kind);
        record
    }

    #[test]
    fn a_handshake_record_after_finished_is_a_renegotiation() {
        let first = [record(22, 90), record(22, 200), record(20, 1), record(22, 40), record(23, 60)].concat();
        let second = [first.clone(), record(22, 28)].concat();
        for size in [1, 3, 5, 64, 4096] {
            let read = |bytes: &[u8]| {
                let mut records = Records::default();
                bytes.chunks(size).fold(false, |_, piece| records.read(piece))
            };
            assert!(!read(&first), "in pieces of {size}");
            assert!(read(&second), "in pieces of {size}");
        }
    }

    #[test]
    fn a_second_hello_of_tls_1_3_is_none() {
        let mut records = Records::default();
        assert!(
            !records.read(&[record(22, 90), record(20, 1), record(22, 90), record(23, 255), record(23, 9)].concat())
        );
    }
}
