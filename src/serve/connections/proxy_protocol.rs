//! The PROXY protocol: the preface that a load balancer sends before it passes a client's bytes on.
//!
//! Both versions, by the specification of HAProxy ("The PROXY protocol", 2020/03/05). Only peers that the config names
//! are believed, and they must send it; the bytes of all others are never inspected. A preface that is not exactly
//! right closes the connection, since a guess would let a client choose its own address.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// The first twelve bytes of version 2 (section 2.2).
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The longest line of version 1, with its end (section 2.1).
const LONGEST_LINE: usize = 107;
/// The longest body of version 2 that we read: addresses, and far more extensions than any balancer sends.
const LONGEST_BODY: usize = 4096;
/// So much is looked at in one go.
const GLANCE: usize = 512;

/// For whom the peer speaks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ProxiedFor {
    /// For a client at this address.
    At(IpAddr),
    /// For itself, such as for a health check.
    Itself,
    /// For somebody whose address it does not know, or who has none.
    Unknown,
}

/// The classification of the bytes received so far.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Parsed {
    /// A whole preface of this length.
    Done(usize, ProxiedFor),
    /// The beginning of one: all of them belong to it.
    Part,
    /// Neither a preface nor the beginning of one.
    Wrong,
}

/// Reads the preface, and not a byte more.
pub async fn read_proxy_protocol(stream: &mut TcpStream) -> io::Result<ProxiedFor> {
    let mut seen = Vec::new();
    let mut glance = [0; GLANCE];
    loop {
        let more = stream.peek(&mut glance).await?;
        if more == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let before = seen.len();
        seen.extend_from_slice(glance.get(..more).unwrap_or_default());
        let (taken, origin) = match parse(&seen) {
            Parsed::Done(length, origin) => (length.saturating_sub(before), Some(origin)),
            Parsed::Part => (more, None),
            Parsed::Wrong => return Err(io::Error::new(io::ErrorKind::InvalidData, "no PROXY protocol")),
        };
        // The bytes were just peeked at, and no other task reads from this stream.
        stream.read_exact(glance.get_mut(..taken).unwrap_or_default()).await?;
        if let Some(origin) = origin {
            return Ok(origin);
        }
    }
}

fn parse(bytes: &[u8]) -> Parsed {
    let head = bytes.get(..SIGNATURE.len()).unwrap_or(bytes);
    if SIGNATURE.starts_with(head) {
        return binary(bytes);
    }
    if b"PROXY ".starts_with(bytes.get(..6).unwrap_or(bytes)) {
        return line(bytes);
    }
    Parsed::Wrong
}

/// Version 1: `PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n`.
fn line(bytes: &[u8]) -> Parsed {
    let within = bytes.get(..LONGEST_LINE).unwrap_or(bytes);
    let Some(end) = within.iter().position(|byte| *byte == b'\n') else {
        return if bytes.len() < LONGEST_LINE { Parsed::Part } else { Parsed::Wrong };
    };
    let text = within.get(..end).and_then(|line| line.strip_suffix(b"\r"));
    let Some(text) = text.and_then(|line| std::str::from_utf8(line).ok()) else { return Parsed::Wrong };
    let mut words = text.split(' ');
    let origin = match (words.next(), words.next()) {
        // The rest of the line is ignored.
        (Some("PROXY"), Some("UNKNOWN")) => return Parsed::Done(end + 1, ProxiedFor::Unknown),
        (Some("PROXY"), Some("TCP4")) => addresses::<Ipv4Addr>(&mut words).map(IpAddr::V4),
        (Some("PROXY"), Some("TCP6")) => addresses::<Ipv6Addr>(&mut words).map(IpAddr::V6),
        (Some(_) | None, Some(_) | None) => None,
    };
    match (origin, words.next()) {
        (Some(source), None) => Parsed::Done(end + 1, ProxiedFor::At(source.to_canonical())),
        (Some(_) | None, Some(_) | None) => Parsed::Wrong,
    }
}

/// Both addresses and both ports of a line; the client's address.
fn addresses<'a, A: std::str::FromStr>(words: &mut impl Iterator<Item = &'a str>) -> Option<A> {
    let source: A = words.next()?.parse().ok()?;
    let _destination: A = words.next()?.parse().ok()?;
    for _ in 0..2 {
        let port = words.next()?;
        let plain = port == "0" || !port.starts_with('0');
        if !plain || !port.bytes().all(|byte| byte.is_ascii_digit()) || port.parse::<u16>().is_err() {
            return None;
        }
    }
    Some(source)
}

/// Version 2: signature, version and command, family and transport, length, addresses, extensions.
fn binary(bytes: &[u8]) -> Parsed {
    let Some([command, family, high, low]) = bytes.get(12..16).and_then(|head| <[u8; 4]>::try_from(head).ok()) else {
        // The byte with version and command may suffice to reject the preface.
        return match bytes.get(12) {
            Some(command) if command >> 4 != 2 => Parsed::Wrong,
            Some(_) | None => Parsed::Part,
        };
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if command >> 4 != 2 || length > LONGEST_BODY {
        return Parsed::Wrong;
    }
    let whole = 16 + length;
    let addresses = bytes.get(16..whole);
    // Extensions follow the addresses and are skipped.
    let (least, family) = match (command & 0xf, family) {
        (0, _) => (0, Family::Own),
        (1, 0x00) => (0, Family::Nameless),
        (1, 0x11) => (12, Family::V4),
        (1, 0x21) => (36, Family::V6),
        (1, 0x31) => (216, Family::Nameless),
        // Datagrams do not come in over a stream; the rest is not assigned.
        (_, _) => return Parsed::Wrong,
    };
    if length < least {
        return Parsed::Wrong;
    }
    let Some(addresses) = addresses else { return Parsed::Part };
    let origin = match family {
        Family::Nameless => Some(ProxiedFor::Unknown),
        Family::Own => Some(ProxiedFor::Itself),
        Family::V4 => first::<4>(addresses).map(|source| ProxiedFor::At(IpAddr::from(source))),
        Family::V6 => first::<16>(addresses).map(|source| ProxiedFor::At(IpAddr::from(source).to_canonical())),
    };
    origin.map_or(Parsed::Wrong, |origin| Parsed::Done(whole, origin))
}

enum Family {
    Nameless,
    Own,
    V4,
    V6,
}

fn first<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    bytes.get(..N)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> ProxiedFor {
        ProxiedFor::At(text.parse().unwrap())
    }

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [SIGNATURE.as_slice(), &[command, family], &length, body].concat()
    }

    #[test]
    fn lines_are_read_to_the_letter() {
        for (text, origin) in [
            ("PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n", at("192.0.2.1")),
            ("PROXY TCP6 2001:db8::1 ::1 65535 0\r\n", at("2001:db8::1")),
            ("PROXY TCP6 ::ffff:192.0.2.1 ::1 1 1\r\n", at("192.0.2.1")),
            ("PROXY UNKNOWN\r\n", ProxiedFor::Unknown),
            ("PROXY UNKNOWN ffff::1 whatever this is 1\r\n", ProxiedFor::Unknown),
        ] {
            let with_more = format!("{text}GET / HTTP/1.1\r\n");
            assert_eq!(parse(with_more.as_bytes()), Parsed::Done(text.len(), origin), "{text:?}");
            for cut in 0..text.len() {
                assert_eq!(parse(&text.as_bytes()[..cut]), Parsed::Part, "{text:?} cut at {cut}");
            }
        }
        for wrong in [
            "GET / HTTP/1.1\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\n",
            "PROXY  TCP4 192.0.2.1 198.51.100.1 56324 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443 \r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 056 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 +56 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 65536 443\r\n",
            "PROXY TCP4 192.0.2.01 198.51.100.1 1 443\r\n",
            "PROXY TCP4 ::1 ::1 1 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 1\r\n",
            "PROXY TCP7 192.0.2.1 198.51.100.1 1 1\r\n",
            "PROXY\r\n",
            "proxy UNKNOWN\r\n",
        ] {
            assert_eq!(parse(wrong.as_bytes()), Parsed::Wrong, "{wrong:?}");
        }
        let long = format!("PROXY UNKNOWN {}", "x".repeat(LONGEST_LINE));
        assert_eq!(parse(long.as_bytes()), Parsed::Wrong);
    }

    #[test]
    fn the_binary_form_is_read_to_the_byte() {
        let four = [192, 0, 2, 1, 198, 51, 100, 1, 0xdc, 4, 1, 0xbb];
        let mut six = [0; 36];
        six[..16].copy_from_slice(&"2001:db8::1".parse::<Ipv6Addr>().unwrap().octets());
        let extended = [four.as_slice(), &[3, 0, 4, 1, 2, 3, 4]].concat();
        for (bytes, origin) in [
            (v2(0x21, 0x11, &four), at("192.0.2.1")),
            (v2(0x21, 0x11, &extended), at("192.0.2.1")),
            (v2(0x21, 0x21, &six), at("2001:db8::1")),
            (v2(0x21, 0x31, &[7; 216]), ProxiedFor::Unknown),
            (v2(0x21, 0x00, &[]), ProxiedFor::Unknown),
            (v2(0x20, 0x00, &[]), ProxiedFor::Itself),
            (v2(0x20, 0x11, &four), ProxiedFor::Itself),
        ] {
            let with_more = [bytes.as_slice(), b"GET /"].concat();
            assert_eq!(parse(&with_more), Parsed::Done(bytes.len(), origin), "{bytes:?}");
            for cut in 0..bytes.len() {
                assert_eq!(parse(&bytes[..cut]), Parsed::Part, "{bytes:?} cut at {cut}");
            }
        }
        for wrong in [
            v2(0x11, 0x11, &four),
            v2(0x22, 0x11, &four),
            v2(0x21, 0x12, &four),
            v2(0x21, 0x41, &four),
            v2(0x21, 0x11, &four[..11]),
            v2(0x21, 0x21, &four),
            v2(0x21, 0x00, &[0; LONGEST_BODY + 1]),
        ] {
            assert_eq!(parse(&wrong), Parsed::Wrong, "{wrong:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_bytes_make_it_panic(
            start in prop_oneof![Just(&b""[..]), Just(&b"PROXY TCP4 "[..]), Just(&SIGNATURE[..]), Just(&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0"[..])],
            rest in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let bytes = [start, &rest].concat();
            match parse(&bytes) {
                Parsed::Done(length, _) => {
                    prop_assert!(length <= bytes.len());
                    for cut in 0..length {
                        prop_assert_eq!(parse(&bytes[..cut]), Parsed::Part);
                    }
                }
                Parsed::Part => prop_assert!(bytes.len() < 16 + LONGEST_BODY),
                Parsed::Wrong => {}
            }
        }
    }
}
