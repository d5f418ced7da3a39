//! Inspection of the start of a suspicious response without taking it away from the client.
//!
//! A bounded part of the body is read, decoded if need be (for judging only) and judged; then the client gets exactly
//! the bytes that arrived. A body that cannot be decoded proves nothing.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body_util::BodyExt;
use hyper::body::Body;

use crate::base::coding::without_coding;
use crate::base::planted::{PlantedFault, planted};
use crate::upstream::ReceivedBody;

/// The limit up to which a body is inspected, before and after decoding.
pub const PEEK_BYTES: usize = 64 * 1024;

/// The start of a body, and the rest of it.
#[derive(Default)]
pub struct Peeked {
    /// The pieces that were read.
    pub pieces: Vec<Bytes>,
    /// True if the body ended within `pieces`.
    pub whole: bool,
    /// True if the body broke off while it was read.
    pub broken: bool,
    /// Trailers that followed the body.
    pub trailers: Option<HeaderMap>,
}

impl Peeked {
    /// Returns whether no more of the body is to be inspected.
    pub fn is_finished(&self) -> bool {
        self.whole || self.broken || self.pieces.iter().map(Bytes::len).sum::<usize>() >= PEEK_BYTES
    }
}

/// Reads up to [`PEEK_BYTES`] of a body, for at most `patience` in all: a body that drips is passed on unjudged.
pub async fn peek(response: &mut Response<ReceivedBody>, patience: Duration) -> Peeked {
    let body = response.body_mut();
    let mut peeked = Peeked { pieces: Vec::new(), whole: body.is_end_stream(), broken: false, trailers: None };
    let _ = tokio::time::timeout(patience, fill(body, &mut peeked)).await;
    peeked
}

async fn fill(body: &mut ReceivedBody, peeked: &mut Peeked) {
    let mut read = 0;
    while !peeked.whole && read < PEEK_BYTES {
        match body.frame().await {
            None => peeked.whole = true,
            Some(Err(_)) => {
                peeked.broken = true;
                break;
            }
            Some(Ok(frame)) => match frame.into_data() {
                Ok(piece) => {
                    read += piece.len();
                    peeked.pieces.push(piece);
                    peeked.whole = body.is_end_stream();
                }
                Err(other) => {
                    peeked.trailers = other.into_trailers().ok();
                    peeked.whole = true;
                }
            },
        }
    }
}

/// The peeked bytes as the provider's software wrote them, or nothing if they cannot be told.
pub fn decode(headers: &HeaderMap, peeked: &Peeked) -> Option<Vec<u8>> {
    if !peeked.whole && !planted(PlantedFault::HalfProof) {
        return None;
    }
    let raw: Vec<u8> = peeked.pieces.concat();
    without_coding(headers, &raw, PEEK_BYTES).ok().map(Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
    use http::header::CONTENT_ENCODING;

    use super::*;

    fn coded(coding: &str, body: Vec<u8>) -> Option<Vec<u8>> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_ENCODING, coding.parse().unwrap());
        decode(&headers, &Peeked { pieces: vec![body.into()], whole: true, broken: false, trailers: None })
    }

    #[test]
    fn gzip_and_both_kinds_of_deflate_are_read() {
        let text = br#"{"error":"invalid_token"}"#;
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(text).unwrap();
        assert_eq!(coded("GZIP", gzip.finish().unwrap()).as_deref(), Some(&text[..]));
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::fast());
        zlib.write_all(text).unwrap();
        assert_eq!(coded("deflate", zlib.finish().unwrap()).as_deref(), Some(&text[..]));
        let mut bare = DeflateEncoder::new(Vec::new(), Compression::fast());
        bare.write_all(text).unwrap();
        assert_eq!(coded("deflate", bare.finish().unwrap()).as_deref(), Some(&text[..]));
    }

    #[test]
    fn what_cannot_be_decoded_proves_nothing() {
        assert_eq!(coded("br", vec![1, 2, 3]), None);
        assert_eq!(coded("gzip", vec![1, 2, 3]), None);
        let mut bomb = GzEncoder::new(Vec::new(), Compression::best());
        bomb.write_all(&vec![b' '; 10 << 20]).unwrap();
        assert_eq!(coded("gzip", bomb.finish().unwrap()), None, "a bomb");
        let cut = Peeked { pieces: vec![Bytes::from_static(b"{}")], whole: false, broken: false, trailers: None };
        assert_eq!(decode(&HeaderMap::new(), &cut), None, "half a body");
    }
}
