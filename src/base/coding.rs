//! Content codings (RFC 9110 section 8.4), undone within a limit.

use std::borrow::Cow;
use std::io::Read;

use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use http::HeaderMap;
use http::header::CONTENT_ENCODING;
use thiserror::Error;

/// The reason for which a body cannot be decoded.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum Undecodable {
    /// It is not what its coding says, or breaks off.
    #[error("a body that is not encoded as its head says")]
    Broken,
    /// It decodes to more than the limit.
    #[error("a body that decodes to more than is read")]
    TooLong,
    /// Its coding is none that is read here, or there are several.
    #[error("a body in a coding that is not read here")]
    Unknown,
}

/// Returns whether a body has a content coding, so that its bytes are not those of its content.
pub fn is_coded(headers: &HeaderMap) -> bool {
    headers.get_all(CONTENT_ENCODING).iter().any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"))
}

/// The body as the sender's software wrote it: `raw` without its content coding, at most `limit` bytes.
pub fn without_coding<'a>(headers: &HeaderMap, raw: &'a [u8], limit: usize) -> Result<Cow<'a, [u8]>, Undecodable> {
    let mut codings = headers.get_all(CONTENT_ENCODING).iter();
    let coding = codings.next();
    if codings.next().is_some() {
        return Err(Undecodable::Unknown);
    }
    let coding = coding.map_or(Vec::new(), |coding| coding.as_bytes().trim_ascii().to_ascii_lowercase());
    match coding.as_slice() {
        b"identity" | b"" if raw.len() > limit => Err(Undecodable::TooLong),
        b"identity" | b"" => Ok(Cow::Borrowed(raw)),
        b"gzip" | b"x-gzip" => inflate(MultiGzDecoder::new(raw), limit).map(Cow::Owned),
        // RFC 9110 section 8.4.1.2 says zlib; some servers send bare deflate.
        b"deflate" => match inflate(ZlibDecoder::new(raw), limit) {
            Err(Undecodable::Broken) => inflate(DeflateDecoder::new(raw), limit),
            done => done,
        }
        .map(Cow::Owned),
        _ => Err(Undecodable::Unknown),
    }
}

/// Decodes at most `limit` bytes: a small body that stands for a huge one costs no more than that.
fn inflate(decoder: impl Read, limit: usize) -> Result<Vec<u8>, Undecodable> {
    let mut out = Vec::new();
    decoder.take(limit as u64 + 1).read_to_end(&mut out).map_err(|_| Undecodable::Broken)?;
    if out.len() > limit { Err(Undecodable::TooLong) } else { Ok(out) }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
    use proptest::prelude::*;

    use super::*;

    const LIMIT: usize = 1000;

    fn coded(coding: &str, raw: &[u8]) -> Result<Vec<u8>, Undecodable> {
        let headers = HeaderMap::from_iter([(CONTENT_ENCODING, coding.parse().expect("a value"))]);
        without_coding(&headers, raw, LIMIT).map(Cow::into_owned)
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
        gzip.write_all(text).and_then(|()| gzip.finish()).expect("a Vec takes all")
    }

    #[test]
    fn gzip_and_both_kinds_of_deflate_are_read() {
        let text = br#"{"access_token":"t"}"#;
        assert_eq!(coded("GZIP", &gzip(text)).as_deref(), Ok(&text[..]));
        assert_eq!(coded("x-gzip", &gzip(text)).as_deref(), Ok(&text[..]));
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::fast());
        let zlib = zlib.write_all(text).and_then(|()| zlib.finish()).expect("a Vec takes all");
        assert_eq!(coded("deflate", &zlib).as_deref(), Ok(&text[..]));
        let mut bare = DeflateEncoder::new(Vec::new(), Compression::fast());
        let bare = bare.write_all(text).and_then(|()| bare.finish()).expect("a Vec takes all");
        assert_eq!(coded("deflate", &bare).as_deref(), Ok(&text[..]));
        assert_eq!(coded("identity", text).as_deref(), Ok(&text[..]));
        assert_eq!(without_coding(&HeaderMap::new(), text, LIMIT).as_deref(), Ok(&text[..]));
    }

    #[test]
    fn what_is_broken_unknown_or_a_bomb_is_told_apart() {
        let whole = gzip(b"some text");
        assert_eq!(coded("gzip", &whole[..whole.len() - 3]), Err(Undecodable::Broken), "it breaks off");
        assert_eq!(coded("gzip", b"plain"), Err(Undecodable::Broken));
        assert_eq!(coded("br", b"x"), Err(Undecodable::Unknown));
        assert_eq!(coded("gzip, gzip", &whole), Err(Undecodable::Unknown));
        assert_eq!(coded("gzip", &gzip(&vec![b' '; 10 << 20])), Err(Undecodable::TooLong));
        assert_eq!(coded("identity", &[b' '; LIMIT + 1]), Err(Undecodable::TooLong));
        assert!(coded("gzip", &gzip(&[b' '; LIMIT])).is_ok());
        let mut twice = HeaderMap::new();
        twice.append(CONTENT_ENCODING, http::HeaderValue::from_static("gzip"));
        twice.append(CONTENT_ENCODING, http::HeaderValue::from_static("gzip"));
        assert_eq!(without_coding(&twice, &whole, LIMIT), Err(Undecodable::Unknown));
    }

    proptest! {
        #[test]
        fn nothing_decodes_to_more_than_the_limit(raw in proptest::collection::vec(any::<u8>(), 0..300), coding in "gzip|deflate|identity|br|") {
            if let Ok(body) = coded(&coding, &raw) {
                prop_assert!(body.len() <= LIMIT);
            }
        }
    }
}
