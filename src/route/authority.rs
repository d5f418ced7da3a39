//! The host and port that a client of a forward listener names, in the one form that all readers interpret alike.
//!
//! Programs disagree about what an address is: `127.1`, `0x7f000001`, `2130706433` and `１２７.0.0.1` are loopback to some
//! and names to others. The host that is checked here must be the one that is resolved and dialled later, so nothing
//! but the case of letters is changed: a spelling that any reader could take for another host is refused and never
//! resolved. The accepted forms are a DNS name in ASCII, kept in lower case, an IPv4 address in four decimal parts (RFC
//! 6943 section 3.1.1 gives the reason for this restriction), or an IPv6 address in brackets (RFC 3986 section 3.2.2),
//! each with a port.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use thiserror::Error;

use crate::base::origin::BaseUrl;

use super::admission::Denied;

/// The longest name, without a dot at its end (RFC 1035 section 2.3.4).
const LONGEST_NAME: usize = 253;

/// The longest label (RFC 1035 section 2.3.4).
const LONGEST_LABEL: usize = 63;

/// Windows reads the labels before this as an IPv6 address, without asking any server.
const WINDOWS_LITERAL: &str = "ipv6-literal.net";

/// The port of `http`, in a URL that names none.
const HTTP: u16 = 80;

/// The port of `https`, in a `Host` field that names none.
const HTTPS: u16 = 443;

/// The reason an authority is refused, as a text for people. Always a 400, because the intended host is unknown.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("{0}")]
pub struct Malformed(pub &'static str);

impl From<Malformed> for Denied {
    fn from(malformed: Malformed) -> Self {
        Denied::Malformed(malformed.0)
    }
}

/// A DNS name in lower-case ASCII without a dot at its end, which is no address in any notation.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct DnsName(Arc<str>);

impl DnsName {
    /// Returns the name, without a trailing dot.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A host that can be read in one way only.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Host {
    /// A name, which a resolver turns into addresses.
    Name(DnsName),
    /// An IPv4 address, which needs no resolver.
    V4(Ipv4Addr),
    /// An IPv6 address, shown in brackets.
    V6(Ipv6Addr),
}

impl Host {
    /// The address, where it is one: nothing is resolved then.
    pub const fn address(&self) -> Option<IpAddr> {
        match self {
            Host::Name(_) => None,
            Host::V4(address) => Some(IpAddr::V4(*address)),
            Host::V6(address) => Some(IpAddr::V6(*address)),
        }
    }

    /// The name, where it is one: to be resolved, and to be compared with the SNI.
    pub fn name(&self) -> Option<&str> {
        match self {
            Host::Name(name) => Some(name.as_str()),
            Host::V4(_) | Host::V6(_) => None,
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Name(name) => f.write_str(name.as_str()),
            Host::V4(address) => address.fmt(f),
            Host::V6(address) => write!(f, "[{address}]"),
        }
    }
}

/// A host with its port. Shown as `host:port`, in the form that [`Authority::connect`] reads.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Authority {
    host: Host,
    port: u16,
}

impl Authority {
    /// Reads the target of a CONNECT, which must name its port (RFC 9110 section 9.3.6).
    pub fn connect(target: &[u8]) -> Result<Self, Malformed> {
        read(target, None)
    }

    /// Reads the authority of an absolute-form `http` target (RFC 9112 section 3.2.2); its port is 80 unless it says
    /// otherwise.
    pub fn absolute(authority: &[u8]) -> Result<Self, Malformed> {
        read(authority, Some(HTTP))
    }

    /// Reads the `Host` or `:authority` of a request inside a tunnel: an `https` one, whose port is 443 unless it says
    /// otherwise.
    pub fn inner(host: &[u8]) -> Result<Self, Malformed> {
        read(host, Some(HTTPS))
    }

    /// The place where an upstream lives. A configured host that no client can name is an error.
    pub fn of(url: &BaseUrl) -> Result<Self, Malformed> {
        read(url.authority().as_bytes(), Some(HTTPS))
    }

    /// The same host on the port of `https`.
    pub(super) fn on_https(&self) -> Self {
        Self { host: self.host.clone(), port: HTTPS }
    }

    /// Returns whether the `Host` of an absolute-form `http` request names this authority.
    pub(super) fn is_host_of_http(&self, host: &str) -> bool {
        self.is_named(host, HTTP)
    }

    /// Returns whether the `Host` or `:authority` of a request inside a tunnel names this authority.
    pub(super) fn is_host_of_https(&self, host: &str) -> bool {
        self.is_named(host, HTTPS)
    }

    /// Asked once per request: takes nothing from the heap for names.
    fn is_named(&self, text: &str, default_port: u16) -> bool {
        let Some(name) = self.host.name() else {
            return read(text.as_bytes(), Some(default_port)).as_ref() == Ok(self);
        };
        let (host, digits) = text.split_once(':').map_or((text, None), |(host, digits)| (host, Some(digits)));
        host.eq_ignore_ascii_case(name) && digits.map_or(Ok(default_port), port) == Ok(self.port)
    }

    /// Returns the host without the port.
    pub const fn host(&self) -> &Host {
        &self.host
    }

    /// Returns the port, which is never 0.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Returns whether the port is that of `http`, named or implied.
    pub(super) const fn is_http(&self) -> bool {
        self.port == HTTP
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

fn read(bytes: &[u8], default_port: Option<u16>) -> Result<Authority, Malformed> {
    for byte in bytes {
        judge(*byte)?;
    }
    let text = std::str::from_utf8(bytes).map_err(|_| Malformed("the authority is not ASCII"))?;
    let (host, rest) = match text.strip_prefix('[') {
        Some(bracketed) => {
            let (inner, rest) = bracketed.split_once(']').ok_or(Malformed("the host's bracket is not closed"))?;
            (Host::V6(v6(inner)?), rest)
        }
        None => {
            let (name, rest) = text.split_at_checked(text.find(':').unwrap_or(text.len())).unwrap_or((text, ""));
            (name_or_v4(name)?, rest)
        }
    };
    let port = match (rest.strip_prefix(':'), default_port) {
        (Some(digits), _) => port(digits)?,
        (None, _) if !rest.is_empty() => return Err(Malformed("something other than a port follows the host")),
        (None, Some(port)) => port,
        (None, None) => return Err(Malformed("the port is missing")),
    };
    Ok(Authority { host, port })
}

/// Checks that a byte may occur in an authority at all, in any position.
const fn judge(byte: u8) -> Result<(), Malformed> {
    Err(Malformed(match byte {
        b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'.' | b'_' | b':' | b'[' | b']' => return Ok(()),
        b'@' => "the authority has user information",
        b'%' => "the authority has a percent sign: an encoding or an IPv6 zone",
        b'\\' => "the authority has a backslash",
        b'/' | b'?' | b'#' => "the authority has a path, a query or a fragment",
        0..=b' ' | 0x7f => "the authority has a control character or space",
        0x80.. => "the authority is not ASCII",
        _ => "the authority has a character that no host has",
    }))
}

/// The digits of a port as everybody reads them: no sign, no leading zero, not 0.
fn port(digits: &str) -> Result<u16, Malformed> {
    let plain = digits.bytes().all(|digit| digit.is_ascii_digit()) && !digits.starts_with('0');
    match digits.parse() {
        Ok(port) if plain => Ok(port),
        Ok(_) | Err(_) => Err(Malformed("the port is not a number from 1 to 65535")),
    }
}

fn v6(text: &str) -> Result<Ipv6Addr, Malformed> {
    text.parse().map_err(|_| Malformed("what stands in brackets is not an IPv6 address"))
}

fn name_or_v4(text: &str) -> Result<Host, Malformed> {
    if text.is_empty() {
        return Err(Malformed("the host is empty"));
    }
    if text.ends_with('.') {
        return Err(Malformed("the host ends in a dot"));
    }
    if text.len() > LONGEST_NAME {
        return Err(Malformed("the host is longer than any name"));
    }
    let mut last = "";
    for label in text.split('.') {
        if label.is_empty() {
            return Err(Malformed("the host has an empty label"));
        }
        if label.len() > LONGEST_LABEL {
            return Err(Malformed("a label of the host is longer than any"));
        }
        // Besides RFC 1123 section 2.1: `xn--localhost-` is `localhost` to lenient readers of punycode.
        if label.starts_with('-') || label.ends_with('-') {
            return Err(Malformed("a label of the host starts or ends with a hyphen"));
        }
        // An underscore is no letter of host names, but names with it are resolved, and no reader takes it for more.
        if label.contains(['[', ']']) {
            return Err(Malformed("the host has a bracket in a name"));
        }
        last = label;
    }
    if is_number(last) {
        // If the last label is a number, the whole is meant as an address (WHATWG URL section 3.5, "ends in a number"),
        // and only this one spelling means the same to all readers. The standard library refuses leading zeros.
        let address = text.parse().map(Host::V4);
        return address.map_err(|_| Malformed("the host is a number, but not an address in four plain decimal parts"));
    }
    let name = text.to_ascii_lowercase();
    if name.strip_suffix(WINDOWS_LITERAL).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')) {
        return Err(Malformed("the host is an IPv6 address in Windows' notation"));
    }
    Ok(Host::Name(DnsName(name.into())))
}

/// Returns whether some reader takes a label for a number: digits, or a radix prefix with digits of that radix (even
/// none of them). `0x` and a leading zero are the prefixes of C; scripts that parse each part with their own language
/// know `0o` and `0b` too.
fn is_number(label: &str) -> bool {
    let (digits, radix) = match label.as_bytes() {
        [b'0', b'x' | b'X', digits @ ..] => (digits, 16),
        [b'0', b'o' | b'O', digits @ ..] => (digits, 8),
        [b'0', b'b' | b'B', digits @ ..] => (digits, 2),
        digits => (digits, 10),
    };
    digits.iter().all(|digit| char::from(*digit).is_digit(radix))
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::super::egress::spellings::spelling_lines;
    use super::super::fuzzing::has_one_reading;
    use super::*;

    fn shown(result: Result<Authority, Malformed>) -> Result<String, &'static str> {
        result.map(|authority| authority.to_string()).map_err(|malformed| malformed.0)
    }

    #[test]
    fn a_port_is_required_given_or_assumed() {
        assert_eq!(shown(Authority::connect(b"Bank.Example:8443")).as_deref(), Ok("bank.example:8443"));
        assert_eq!(shown(Authority::connect(b"bank.example")), Err("the port is missing"));
        assert_eq!(shown(Authority::connect(b"[2600::1]")), Err("the port is missing"));
        assert_eq!(shown(Authority::absolute(b"bank.example")).as_deref(), Ok("bank.example:80"));
        assert_eq!(shown(Authority::absolute(b"bank.example:443")).as_deref(), Ok("bank.example:443"));
        assert_eq!(shown(Authority::inner(b"bank.example")).as_deref(), Ok("bank.example:443"));
        assert_eq!(shown(Authority::inner(b"[::1]:80")).as_deref(), Ok("[::1]:80"));
    }

    #[test]
    fn an_upstream_has_the_authority_that_clients_name() {
        let of = |url| shown(Authority::of(&BaseUrl::parse(url).unwrap()));
        assert_eq!(of("https://API.bank.example/base").as_deref(), Ok("api.bank.example:443"));
        assert_eq!(of("https://[0:0::0001]:8443").as_deref(), Ok("[::1]:8443"));
        assert_eq!(of("https://127.0.0.1:8443/x").as_deref(), Ok("127.0.0.1:8443"));
    }

    // T8
    #[test]
    fn what_can_be_read_in_two_ways_is_refused_in_every_form() {
        for line in
            spelling_lines(include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/egress/malformed.txt")))
        {
            for read in [Authority::connect, Authority::absolute, Authority::inner] {
                assert!(read(line.as_bytes()).is_err(), "{line:?} passed as {:?}", read(line.as_bytes()));
                let with_port = format!("{line}:443");
                assert!(read(with_port.as_bytes()).is_err(), "{with_port:?} passed");
            }
        }
        assert!(Authority::connect(b"bank.example\xff:443").is_err(), "not UTF-8");
        let long = |labels: usize, label: usize| vec!["a".repeat(label); labels].join(".");
        assert!(Authority::absolute(long(1, 63).as_bytes()).is_ok());
        assert!(Authority::absolute(long(1, 64).as_bytes()).is_err(), "a label of 64");
        assert!(Authority::absolute(long(127, 1).as_bytes()).is_ok(), "a name of 253");
        assert!(Authority::absolute(format!("{}a", long(127, 1)).as_bytes()).is_err(), "a name of 254");
    }

    #[test]
    fn ports_have_one_spelling() {
        for port in ["", "0", "00", "+443", "-1", "0443", "65536", "99999999999", "0x1bb", "44 3", "443 ", "1e3", "a"] {
            let target = format!("bank.example:{port}");
            assert!(Authority::connect(target.as_bytes()).is_err(), "{target}");
            assert!(Authority::absolute(target.as_bytes()).is_err(), "{target}");
            assert!(Authority::absolute(format!("[2600::1]:{port}").as_bytes()).is_err(), "[2600::1]:{port}");
        }
        for target in ["bank.example:443:443", "bank.example::443", "[::1]:1:1", "[::1]443", "[::1]x:443", ":443", ""] {
            assert!(Authority::connect(target.as_bytes()).is_err(), "{target}");
        }
        assert!(Authority::connect(b"bank.example:65535").is_ok());
        assert!(Authority::connect(b"bank.example:1").is_ok());
    }

    #[test]
    fn plain_names_and_addresses_pass() {
        for line in
            spelling_lines(include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/egress/well-formed.txt")))
        {
            let (text, canonical) = line.split_once(' ').expect("two columns");
            let authority = Authority::absolute(text.as_bytes()).unwrap_or_else(|reason| panic!("{text}: {reason}"));
            assert_eq!(authority.host().to_string(), canonical, "{text}");
            assert_eq!(authority.host().name().is_some(), authority.host().address().is_none());
        }
    }

    const PIECES: &[&str] = &[
        "127",
        "0",
        "1",
        "255",
        "256",
        "010",
        "0x7f",
        "0x",
        "0X1",
        "08",
        ".",
        "..",
        ":",
        "::",
        "[",
        "]",
        "a",
        "bank",
        "xn--",
        "-",
        "_",
        "%",
        "@",
        "\0",
        " ",
        "\\",
        "/",
        "443",
        ":443",
        "ffff",
        "::ffff:",
        "fe80::1",
        "１",
        "．",
        "。",
        "2130706433",
        "4294967296",
        "Example",
        "+",
        "v1.",
        "0.0.1",
    ];

    fn texts() -> impl Strategy<Value = String> {
        prop_oneof![
            4 => vec(select(PIECES), 0..9).prop_map(|pieces| pieces.concat()),
            3 => vec(select(&["127", "0", "1", "255", "256", "010", "0x7f", "0x", "0xFF", "08", "65535"][..]), 1..6)
                .prop_map(|parts| parts.join(".")),
            1 => any::<[u16; 8]>().prop_map(|parts| format!("[{}]", Ipv6Addr::from(parts))),
            1 => any::<u32>().prop_map(|bits| Ipv4Addr::from(bits).to_string()),
            1 => "[ -~]{0,30}",
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_bytes_make_it_panic(bytes in vec(any::<u8>(), 0..300)) {
            for read in [Authority::connect, Authority::absolute, Authority::inner] {
                if let Ok(authority) = read(&bytes) {
                    prop_assert_eq!(Authority::connect(authority.to_string().as_bytes()), Ok(authority));
                }
            }
        }

        #[test]
        fn what_passes_has_one_reading(text in texts(), port in select(&["", ":443", ":1"][..])) {
            let named = format!("{text}{port}");
            if let Ok(authority) = Authority::absolute(named.as_bytes()) {
                has_one_reading(&named, &authority);
            }
        }
    }
}
