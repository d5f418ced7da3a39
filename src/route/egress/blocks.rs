//! The addresses that no client-named host may lead to, block by block, with the source of each.
//!
//! The lists follow the IANA special-purpose address registries for IPv4 and IPv6 (RFC 6890, RFC 8190) as a whole: a
//! block that stands there is refused even where it is marked as globally reachable, because no bank lives in one.
//! IPv6 beyond `2000::/3`, all that IANA has opened for global unicast (RFC 4291 section 2.4), is refused unnamed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

/// Returns a description of the address if it is anything but a public host's own address.
pub(super) fn block(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => V4.iter().find(|(net, _)| net.contains(&address)).map(|(_, name)| *name),
        IpAddr::V6(address) => {
            let listed = V6.iter().find(|(net, _)| net.contains(&address)).map(|(_, name)| *name);
            listed.or_else(|| is_isatap(address).then_some("an IPv4 address in an IPv6 one (ISATAP)"))
        }
    }
}

/// Returns whether an interface identifier carries an IPv4 address to tunnel to: `::5efe:a.b.c.d` or
/// `::200:5efe:a.b.c.d` under any prefix (RFC 5214 section 6.1). The IPv4 address itself does not matter: no server is
/// published under such an address.
const fn is_isatap(address: Ipv6Addr) -> bool {
    matches!(address.segments(), [_, _, _, _, 0 | 0x0200, 0x5efe, _, _])
}

const fn v4(a: u8, b: u8, c: u8, d: u8, length: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length)
}

/// A block by its first four groups; the others are zero.
const fn v6(a: u16, b: u16, c: u16, d: u16, length: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0), length)
}

/// In numeric order; the first that fits gives the name.
const V4: &[(Ipv4Net, &str)] = &[
    // RFC 791 section 3.2; 0.0.0.0 reaches the own host on many systems.
    (v4(0, 0, 0, 0, 8), "this network"),
    // RFC 1918 section 3.
    (v4(10, 0, 0, 0, 8), "private"),
    // RFC 6598. Holds 100.100.100.200, the metadata service of Alibaba Cloud.
    (v4(100, 64, 0, 0, 10), "shared with a carrier's NAT"),
    // RFC 1122 section 3.2.1.3.
    (v4(127, 0, 0, 0, 8), "loopback"),
    // A public address, but in every machine of Azure its platform answers there ("What is IP address 168.63.129.16?").
    (v4(168, 63, 129, 16, 32), "a cloud's own service"),
    // The metadata service of most clouds; a name of its own within the next block.
    (v4(169, 254, 169, 254, 32), "a cloud's metadata service"),
    // RFC 3927 section 2.1. Holds 169.254.170.2 (containers on AWS) and 169.254.0.23 (Tencent Cloud) as well.
    (v4(169, 254, 0, 0, 16), "link-local"),
    // RFC 1918 section 3.
    (v4(172, 16, 0, 0, 12), "private"),
    // RFC 6890 section 2.1. Holds 192.0.0.192, the metadata service of Oracle's older cloud, and DS-Lite (RFC 6333).
    (v4(192, 0, 0, 0, 24), "for protocols"),
    // RFC 5737 section 3 (TEST-NET-1).
    (v4(192, 0, 2, 0, 24), "for documentation"),
    // RFC 7535 (AS112).
    (v4(192, 31, 196, 0, 24), "a sink of DNS"),
    // RFC 7450 (AMT).
    (v4(192, 52, 193, 0, 24), "a multicast relay"),
    // RFC 7526, once RFC 3068.
    (v4(192, 88, 99, 0, 24), "a 6to4 relay"),
    // RFC 1918 section 3.
    (v4(192, 168, 0, 0, 16), "private"),
    // RFC 7534 (AS112).
    (v4(192, 175, 48, 0, 24), "a sink of DNS"),
    // RFC 2544 appendix C.2.2.
    (v4(198, 18, 0, 0, 15), "for benchmarks"),
    // RFC 5737 section 3 (TEST-NET-2 and TEST-NET-3).
    (v4(198, 51, 100, 0, 24), "for documentation"),
    (v4(203, 0, 113, 0, 24), "for documentation"),
    // RFC 5771.
    (v4(224, 0, 0, 0, 4), "multicast"),
    // RFC 919 section 7, RFC 8190.
    (v4(255, 255, 255, 255, 32), "broadcast"),
    // RFC 1112 section 4.
    (v4(240, 0, 0, 0, 4), "reserved"),
];

/// The IPv6 blocks that are refused; the first that fits gives the name. An address that embeds an IPv4 address is
/// refused regardless of that address: its destination is decided by a translator or tunnel that cannot be seen from
/// here. (A NAT64 with a prefix of the operator's own, RFC 6052 section 2.2, looks like any other network and cannot be
/// recognised.)
const V6: &[(Ipv6Net, &str)] = &[
    // RFC 4291 section 2.5.2.
    (v6(0, 0, 0, 0, 128), "unspecified"),
    // RFC 4291 section 2.5.3.
    (Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128), "loopback"),
    // RFC 4291 section 2.5.5.2.
    (Ipv6Net::new_assert(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96), "an IPv4 address in an IPv6 one (mapped)"),
    // RFC 4291 section 2.5.5.1.
    (v6(0, 0, 0, 0, 96), "an IPv4 address in an IPv6 one (compatible)"),
    // RFC 2765 section 2.1: ::ffff:0:a.b.c.d.
    (
        Ipv6Net::new_assert(Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, 0, 0), 96),
        "an IPv4 address in an IPv6 one (translated)",
    ),
    // RFC 6052 section 2.1.
    (v6(0x64, 0xff9b, 0, 0, 96), "an IPv4 address in an IPv6 one (NAT64)"),
    // RFC 8215.
    (v6(0x64, 0xff9b, 1, 0, 48), "an IPv4 address in an IPv6 one (local NAT64)"),
    // RFC 6666.
    (v6(0x100, 0, 0, 0, 64), "for discarding"),
    // RFC 9780.
    (v6(0x100, 0, 0, 1, 64), "a dummy prefix"),
    // RFC 4380 section 2.6.
    (v6(0x2001, 0, 0, 0, 32), "an IPv4 address in an IPv6 one (Teredo)"),
    // RFC 5180.
    (v6(0x2001, 2, 0, 0, 48), "for benchmarks"),
    // RFC 4843, RFC 7343 (ORCHID and its second version).
    (v6(0x2001, 0x10, 0, 0, 28), "a hash, not a place (ORCHID)"),
    (v6(0x2001, 0x20, 0, 0, 28), "a hash, not a place (ORCHID)"),
    // RFC 2928. Holds AMT (RFC 7450), AS112 (RFC 7535), DRIP (RFC 9374) and anycast of protocols (RFC 7723).
    (v6(0x2001, 0, 0, 0, 23), "for protocols"),
    // RFC 3849.
    (v6(0x2001, 0xdb8, 0, 0, 32), "for documentation"),
    // RFC 3056 section 2.
    (v6(0x2002, 0, 0, 0, 16), "an IPv4 address in an IPv6 one (6to4)"),
    // RFC 7534 (AS112).
    (v6(0x2620, 0x4f, 0x8000, 0, 48), "a sink of DNS"),
    // RFC 3701: the 6bone, given back.
    (v6(0x3ffe, 0, 0, 0, 16), "not assigned"),
    // RFC 9637.
    (v6(0x3fff, 0, 0, 0, 20), "for documentation"),
    // RFC 9602.
    (v6(0x5f00, 0, 0, 0, 16), "for segment routing"),
    // RFC 4193 section 3.1. Holds fd00:ec2::254, the metadata service of AWS, and fd20:ce::254, that of Google Cloud.
    (v6(0xfc00, 0, 0, 0, 7), "private (unique local)"),
    // RFC 4291 section 2.5.6.
    (v6(0xfe80, 0, 0, 0, 10), "link-local"),
    // RFC 3879 section 4.
    (v6(0xfec0, 0, 0, 0, 10), "site-local"),
    // RFC 4291 section 2.7.
    (v6(0xff00, 0, 0, 0, 8), "multicast"),
    // RFC 4291 section 2.4: beside 2000::/3, nothing is open for global unicast.
    (v6(0, 0, 0, 0, 3), "not assigned"),
    (v6(0x4000, 0, 0, 0, 2), "not assigned"),
    (v6(0x8000, 0, 0, 0, 1), "not assigned"),
];
