//! Properties of every path and authority that a client may name, checked by fuzzing and by the tests of this module.
//!
//! Each property is checked in the slow and obvious way, never with the code that implements it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, LazyLock};

use http::{HeaderMap, Method};

use super::host::{Buffer, host_name};
use super::path::{behind, configured_prefix, generous, judge, plain};
use super::{
    Admission, Admitted, Authority, Caller, ClientId, Denied, DestinationRefused, Guard, Host, Opens, PathRules,
    RequestTarget, RouteRule, RouteTable,
};

/// An endpoint of the provider that no route may reach.
const RESERVED: [&[u8]; 2] = [b"oauth", b"token"];

/// A request target: judged, looked up, and taken for a route's configured path.
pub(crate) fn path(data: &[u8]) {
    let Ok(target) = std::str::from_utf8(data) else { return };
    prefix(target);
    if let Ok(judged) = judge(target) {
        assert_eq!([judged.path, judged.query].concat(), target, "nothing is lost");
        has_one_meaning(judged.path, judged.doubts == PathRules::STRICT);
        let read = generous(judged.path);
        assert_eq!(generous(&read), read, "the generous reading is an end");
        assert_eq!(plain(&judged.plain), judged.plain, "and so is the plain one");
    }
    for caller in [Caller::Anyone, Caller::Client(ClientId(0)), Caller::Client(ClientId(1))] {
        for host in [None, Some("H.example:443"), Some("other")] {
            stays_in_its_route(target, caller, host);
        }
    }
}

/// The path of a route as a config writes it: what passes there can be asked for.
fn prefix(text: &str) {
    let Ok(prefix) = configured_prefix(text) else { return };
    assert!(prefix.is_empty() || prefix == text, "{text:?} became {prefix:?}");
    for path in [prefix.to_owned(), format!("{prefix}/x")].iter().filter(|path| !path.is_empty()) {
        assert_eq!(judge(path).map(|judged| judged.doubts), Ok(PathRules::STRICT), "{path:?} cannot be asked for");
    }
}

/// A path that passed means the same to every reader, however often it decodes, before or after it takes it apart.
fn has_one_meaning(path: &str, strict: bool) {
    let slashes = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'/').count();
    for reading in decodings(path) {
        assert!(!has_dot_segment(&reading), "{path:?} hides a dot segment");
        let harmful = |byte: &u8| *byte < 0x20 || *byte == 0x7f || *byte == b'\\';
        assert!(!reading.iter().any(harmful), "{path:?} hides a control character or backslash");
        assert!(!has_long_ascii(&reading), "{path:?} hides ASCII in an overlong sequence");
        assert!(!strict || slashes(&reading) == slashes(path.as_bytes()), "{path:?} hides a slash");
    }
    if strict {
        assert!(!path.contains("//"), "{path:?} has an empty segment");
        // A bank decodes once: it may do so for the path as a whole, or segment by segment.
        let whole: Vec<u8> = percent_encoding::percent_decode_str(path).collect();
        let whole: Vec<&[u8]> = whole.split(|byte| *byte == b'/').collect();
        let apart: Vec<Vec<u8>> =
            path.split('/').map(|segment| percent_encoding::percent_decode_str(segment).collect()).collect();
        assert_eq!(whole, apart, "{path:?} has two readings");
    }
}

/// A path that is let through leaves neither its route nor its upstream, and reaches nothing reserved.
pub(super) fn stays_in_its_route(path: &str, caller: Caller, host: Option<&str>) {
    static TABLE: LazyLock<(Vec<RouteRule>, RouteTable)> = LazyLock::new(|| {
        let rules = rules();
        let table = RouteTable::build(rules.iter().cloned().map(Arc::new)).expect("no two are equal");
        (rules, table)
    });
    let (rules, table) = &*TABLE;
    let headers = HeaderMap::new();
    let target = RequestTarget { method: &Method::GET, host, path_and_query: path, headers: &headers };
    let asked = path.split('?').next().unwrap_or_default();
    let known = host.map(|host| host.split(':').next().unwrap_or_default().to_ascii_lowercase());
    let expected = reference(rules, caller, known.as_deref(), &plain(asked));
    match table.admit(caller, target) {
        Ok(Admission::Admitted(admitted)) => {
            assert_eq!(expected, Ok(admitted.route()), "{path:?}");
            is_what_was_asked(&rules[admitted.route()], &admitted, path);
            for read in readings(asked) {
                let route = reference(rules, caller, known.as_deref(), &read);
                assert!(route.is_err() || route == Ok(admitted.route()), "{asked} is {read} to a bank");
            }
        }
        Ok(Admission::AwaitsBody(_)) => panic!("no rule has variables"),
        Err(Denied::Malformed(_)) => {}
        Err(Denied::MethodNotListed(_) | Denied::NotAllowed(_) | Denied::NotListed(_)) => {
            assert_eq!(expected, Err(true), "{path:?}")
        }
        Err(Denied::NotFound) => assert!(path == "*" || expected == Err(false), "{path:?}"),
        Err(Denied::Reserved(route)) => {
            assert_eq!(expected, Ok(route), "{path:?}");
            assert!(is_reserved(rules[route].below(asked)), "{path:?} is not reserved");
        }
        Err(refusal @ (Denied::MethodRefused | Denied::Stub(_))) => panic!("{path:?}: {refusal:?}"),
    }
}

fn is_what_was_asked(rule: &RouteRule, admitted: &Admitted, path: &str) {
    let apart = |text: &str| match text.split_once('?') {
        Some((path, query)) => (path.to_owned(), Some(query.to_owned())),
        None => (text.to_owned(), None),
    };
    let ((asked, asked_query), (sent, query)) = (apart(path), apart(admitted.path_and_query()));
    assert_eq!(query, asked_query, "the query is untouched");
    assert!(sent == *rule.base || sent.starts_with(&format!("{}/", rule.base)), "{path:?} left the upstream: {sent:?}");
    let below = rule.below(&asked);
    assert_eq!(sent.strip_prefix(&*rule.base), Some(below), "what was matched is what is sent");
    has_one_meaning(&sent, rule.path_rules == PathRules::STRICT);
    assert!(!is_reserved(below), "{path:?} reaches what is reserved");
}

impl RouteRule {
    /// Returns the part of a path matched by this rule that is sent after the base path.
    fn below<'a>(&self, path: &'a str) -> &'a str {
        behind(path, if self.strip { self.prefix.split('/').count() - 1 } else { 0 })
    }
}

/// Returns whether some reading of a path is reserved, ignoring parameters, empty segments, case, and dots and blanks
/// at the end of a segment.
fn is_reserved(path: &str) -> bool {
    decodings(path).iter().any(|reading| {
        let segments = reading.split(|byte| *byte == b'/').map(|segment| {
            let name = segment.split(|byte| *byte == b';').next().unwrap_or_default();
            let kept = name.iter().rposition(|byte| !matches!(byte, b'.' | b' ')).map_or(0, |at| at + 1);
            name.get(..kept).unwrap_or_default().to_ascii_lowercase()
        });
        segments.filter(|segment| !segment.is_empty()).eq(RESERVED)
    })
}

/// Seven routes that differ in host, prefix, clients and strictness.
pub(super) fn rules() -> Vec<RouteRule> {
    let rule = |route, host: Option<&str>, prefix: &str, base: &str, clients: &[u16]| RouteRule {
        route,
        host: host.map(Arc::from),
        prefix: prefix.into(),
        methods: Vec::new(),
        opens: if clients.is_empty() {
            Opens::Everyone
        } else {
            Opens::Only(clients.iter().copied().map(ClientId).collect())
        },
        strip: route % 2 == 0,
        base: base.into(),
        allow: Vec::new(),
        vars: Vec::new(),
        path_rules: match route {
            2 => PathRules::LENIENT,
            5 | 6 => PathRules::LENIENT.with(PathRules::PARAMETERS).with(PathRules::DOUBLE_ENCODING),
            _ => PathRules::STRICT,
        },
        reserved: Arc::new(|path| path.eq_ignore_ascii_case("/oauth/token")),
        stub: None,
        enforce: true,
    };
    vec![
        rule(0, None, "/bank", "/up/zero", &[0]),
        rule(1, None, "/bank", "/up/one", &[1]),
        rule(2, None, "/bank/deep", "/up/two", &[0]),
        rule(3, None, "/a", "/up/three", &[]),
        rule(4, Some("h.example"), "/bank", "/up/four", &[1]),
        rule(5, Some("h.example"), "/bank/v1", "/up/five", &[]),
        rule(6, Some("h.example"), "", "/up/six", &[0]),
    ]
}

/// The route that a path belongs to; the error says whether there is one for other clients.
pub(super) fn reference(rules: &[RouteRule], caller: Caller, host: Option<&str>, path: &str) -> Result<usize, bool> {
    let matches = |rule: &&RouteRule| {
        (rule.host.is_none() || rule.host.as_deref() == host)
            && (path == &*rule.prefix || path.starts_with(&format!("{}/", rule.prefix)))
    };
    let matching: Vec<&RouteRule> = rules.iter().filter(matches).collect();
    matching
        .iter()
        .filter(|rule| rule.opens.admits(caller))
        .max_by_key(|rule| (rule.host.is_some(), rule.prefix.len()))
        .map(|rule| rule.route)
        .ok_or(!matching.is_empty())
}

/// All that could be made of a path by decoding it as often as it changes.
fn decodings(path: &str) -> Vec<Vec<u8>> {
    let mut all = vec![path.as_bytes().to_vec()];
    loop {
        let last = all.last().cloned().unwrap_or_default();
        let next: Vec<u8> = percent_encoding::percent_decode(&last).collect();
        if next == last {
            return all;
        }
        all.push(next);
    }
}

/// The paths that banks may make of one: decoded once or more often; with or without parameters, empty segments, and
/// dots and blanks at the ends of names.
fn readings(path: &str) -> Vec<String> {
    let mut all = Vec::new();
    // Every bank decodes at least what stands for itself.
    let decoded = decodings(path).into_iter().skip(1).map(|decoded| String::from_utf8_lossy(&decoded).into_owned());
    for decoded in decoded.chain([plain(path).into_owned()]) {
        for (parameters, slashes, ends) in (0..8).map(|bits| (bits & 1 == 0, bits & 2 == 0, bits & 4 == 0)) {
            let segments = decoded.split('/').skip(1).map(|segment| {
                let plain = if parameters { segment } else { segment.split(';').next().unwrap_or(segment) };
                if ends { plain } else { plain.trim_end_matches(['.', ' ']) }
            });
            let kept = segments.filter(|segment| slashes || !segment.is_empty());
            all.push(kept.map(|segment| format!("/{segment}")).collect());
        }
    }
    all
}

fn has_dot_segment(bytes: &[u8]) -> bool {
    bytes
        .split(|byte| matches!(byte, b'/' | b'\\'))
        .map(|segment| segment.split(|byte| *byte == b';').next().unwrap_or(segment))
        .any(|segment| segment == b"." || segment == b"..")
}

/// Returns whether a UTF-8 reader that does not check the length of sequences finds ASCII in an overlong one.
fn has_long_ascii(bytes: &[u8]) -> bool {
    let value = |sequence: &[u8], lead: u8| {
        sequence[1..].iter().fold(u32::from(sequence[0] & lead), |value, byte| value << 6 | u32::from(byte & 0x3f))
    };
    let is_ascii = |length: usize, mark: u8, lead: u8| {
        bytes.windows(length).any(|sequence| {
            let begins = sequence[0] & !lead == mark;
            begins && sequence[1..].iter().all(|byte| byte & 0xc0 == 0x80) && value(sequence, lead) < 0x80
        })
    };
    is_ascii(2, 0xc0, 0x1f) || is_ascii(3, 0xe0, 0x0f) || is_ascii(4, 0xf0, 0x07)
}

/// The target of a CONNECT or an absolute URL's authority, and, on a second line, a `Host` to compare it with.
pub(crate) fn authority(data: &[u8]) {
    let (named, host) = match data.iter().position(|byte| *byte == b'\n') {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => (data, data),
    };
    let (connect, absolute, inner) = (Authority::connect(named), Authority::absolute(named), Authority::inner(named));
    assert_eq!(absolute.as_ref().map(Authority::host), inner.as_ref().map(Authority::host));
    if connect.is_ok() {
        assert_eq!((&connect, &connect), (&absolute, &inner), "a port that is named is the port");
    }
    if let (Ok(authority), Ok(named)) = (&absolute, std::str::from_utf8(named)) {
        has_one_reading(named, authority);
        authority.host().address().into_iter().for_each(|address| is_guarded(address, authority.port()));
    }
    let Ok(host) = std::str::from_utf8(host) else { return };
    if let Ok(place) = &absolute {
        let same = Authority::absolute(host.as_bytes()).as_ref() == Ok(place);
        assert_eq!(place.is_host_of_http(host), same, "{place} and {host:?}");
    }
    if let Ok(place) = &inner {
        let same = Authority::inner(host.as_bytes()).as_ref() == Ok(place);
        assert_eq!(place.is_host_of_https(host), same, "{place} and {host:?}");
    }
    if let Ok(known) = Buffer::new().read(host) {
        assert!(known.is_empty() || host_name(host).is_ok_and(|name| name.eq_ignore_ascii_case(known)));
        assert!(!known.ends_with('.') && !known.contains(|c: char| c.is_ascii_uppercase() || c.is_ascii_control()));
    }
    if let Ok(place) = Authority::inner(host.as_bytes()) {
        let name = host_name(host).expect("a stricter reader knows it");
        assert!(place.host().name().is_none_or(|known| known.eq_ignore_ascii_case(name)), "{host:?}");
    }
}

/// An authority that passed is read alike by the standard library, by the HTTP library, by TLS, and by readers that take
/// every number for an address.
pub(super) fn has_one_reading(named: &str, authority: &Authority) {
    assert_eq!(Authority::connect(authority.to_string().as_bytes()).as_ref(), Ok(authority), "shown and read");
    let end = if named.starts_with('[') { named.find(']').map(|at| at + 1) } else { named.find(':') };
    let host = &named[..end.unwrap_or(named.len())];
    match authority.host() {
        Host::V4(address) => {
            assert_eq!(host.parse(), Ok(*address), "the standard library agrees");
            assert_eq!(lenient_v4(host), Some(*address), "and so does the most lenient reader");
        }
        Host::V6(address) => assert_eq!(host.trim_matches(['[', ']']).parse(), Ok(*address)),
        Host::Name(name) => {
            assert_eq!(lenient_v4(host), None, "to some reader {host} is an address");
            assert!(host.parse::<IpAddr>().is_err());
            assert_eq!(name.as_str(), host.to_ascii_lowercase());
            assert!(rustls::pki_types::ServerName::try_from(name.as_str()).is_ok(), "TLS does not know {host}");
        }
    }
    let uri = http::Uri::builder().scheme("http").authority(authority.to_string()).path_and_query("/").build();
    let uri = uri.expect("what passes here passes as a URL");
    assert_eq!(uri.port_u16(), Some(authority.port()));
    assert_eq!(uri.host(), Some(authority.host().to_string().as_str()), "the HTTP library agrees");
}

/// An address that a client names is a public one, or refused in each form that carries it.
fn is_guarded(address: IpAddr, port: u16) {
    let place = SocketAddr::new(address, port);
    match (Guard::default().admit([address], port), address) {
        (Ok(destinations), _) => {
            assert_eq!(destinations.addresses(), [place]);
            let own = Guard::new(&[place], &[]);
            assert_eq!(
                own.admit([address], port),
                Err(DestinationRefused::Loop(place)),
                "our own listener is never dialled"
            );
            let private = match address {
                IpAddr::V4(v4) => v4.is_private() || v4.is_link_local() || v4.is_broadcast() || v4.is_documentation(),
                IpAddr::V6(v6) => v6.is_unique_local() || v6.is_unicast_link_local() || v6.to_ipv4().is_some(),
            };
            assert!(!private && !address.is_loopback() && !address.is_multicast() && !address.is_unspecified());
        }
        (Err(_), IpAddr::V4(v4)) => {
            for carrier in embedded(v4) {
                assert!(Guard::default().admit([carrier.into()], port).is_err(), "{carrier} carries {v4}");
            }
        }
        (Err(_), IpAddr::V6(_)) => {}
    }
}

/// Returns the address that the most lenient reader makes of a text: `inet_aton` as in 4.2BSD (one to four parts,
/// decimal, octal or hexadecimal, the last one filling the remaining bytes), hexadecimal without digits as in the
/// WHATWG URL standard, and a dot at the end ignored.
pub(super) fn lenient_v4(text: &str) -> Option<Ipv4Addr> {
    let parts: Vec<u64> = text.strip_suffix('.').unwrap_or(text).split('.').map(number).collect::<Option<_>>()?;
    let (last, first) = parts.split_last()?;
    if first.len() > 3 || first.iter().any(|part| *part > 255) || *last >= 1 << (8 * (4 - first.len())) {
        return None;
    }
    let high = first.iter().zip([24, 16, 8]).map(|(part, shift)| part << shift).sum::<u64>();
    u32::try_from(high + last).ok().map(Ipv4Addr::from)
}

fn number(text: &str) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    let plain = |digits: &str, radix| {
        if digits.starts_with('+') { None } else { u64::from_str_radix(digits, radix).ok() }
    };
    match (lower.strip_prefix("0x"), lower.strip_prefix('0')) {
        (Some(""), _) | (None, Some("")) => Some(0),
        (Some(digits), _) => plain(digits, 16),
        (None, Some(digits)) => plain(digits, 8).or_else(|| plain(digits, 10)),
        (None, None) => plain(&lower, 10),
    }
}

/// IPv6 addresses that carry an IPv4 address to a translator, a tunnel or the own network stack.
pub(super) fn embedded(address: Ipv4Addr) -> Vec<Ipv6Addr> {
    let [a, b, c, d] = address.octets().map(u16::from);
    let (high, low) = (a << 8 | b, c << 8 | d);
    vec![
        address.to_ipv6_mapped(),
        address.to_ipv6_compatible(),
        Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, high, low),
        Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
        Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, high, low),
        Ipv6Addr::new(0x64, 0xff9b, 1, high, c, d << 8, 0, 0),
        Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 0),
        Ipv6Addr::new(0x2002, high, low, 1, 0, 0, high, low),
        Ipv6Addr::new(0x2001, 0, 0x4136, 0xe378, 0x8000, 0x63bf, !high, !low),
        Ipv6Addr::new(0x2001, 0, high, low, 0, 0, 0xffff, 0xffff),
        Ipv6Addr::new(0x2606, 0x4700, 0, 0, 0, 0x5efe, high, low),
        Ipv6Addr::new(0x2606, 0x4700, 0, 0, 0x0200, 0x5efe, high, low),
        Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0x5efe, high, low),
    ]
}
