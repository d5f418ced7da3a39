//! The guard against the tables of `tests/fixtures/egress/`, and against everything that we can generate.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;
use proptest::sample::select;

use super::super::authority::{Authority, Malformed};
use super::super::fuzzing::embedded;
use super::spellings::spelling_lines;
use super::*;

const FORBIDDEN: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/egress/forbidden.txt"));
const PUBLIC: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/egress/public.txt"));

/// One address of every kind that an attacker is after.
const TARGETS: [Ipv4Addr; 16] = [
    Ipv4Addr::LOCALHOST,
    Ipv4Addr::new(127, 255, 255, 254),
    Ipv4Addr::UNSPECIFIED,
    Ipv4Addr::new(10, 0, 0, 1),
    Ipv4Addr::new(172, 16, 0, 1),
    Ipv4Addr::new(192, 168, 1, 1),
    Ipv4Addr::new(169, 254, 169, 254),
    Ipv4Addr::new(169, 254, 170, 2),
    Ipv4Addr::new(100, 64, 0, 1),
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(168, 63, 129, 16),
    Ipv4Addr::new(192, 0, 0, 192),
    Ipv4Addr::new(198, 18, 0, 1),
    Ipv4Addr::new(224, 0, 0, 1),
    Ipv4Addr::new(240, 0, 0, 1),
    Ipv4Addr::BROADCAST,
];

fn public() -> Vec<IpAddr> {
    spelling_lines(PUBLIC).iter().map(|line| line.parse().expect("an address")).collect()
}

/// First, last, name.
fn blocks() -> Vec<(IpAddr, IpAddr, String)> {
    let read = |line: &String| {
        let mut words = line.splitn(3, ' ');
        let mut word = || words.next().expect("three columns");
        (word().parse().expect("an address"), word().parse().expect("an address"), word().to_owned())
    };
    spelling_lines(FORBIDDEN).iter().map(read).collect()
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

fn refused(address: IpAddr) -> Option<&'static str> {
    match Guard::default().admit([address], 443) {
        Ok(_) => None,
        Err(DestinationRefused::Block { address: named, block }) => {
            assert_eq!(named, address);
            Some(block)
        }
        Err(other @ (DestinationRefused::Loop(_) | DestinationRefused::Nothing)) => panic!("{address}: {other}"),
    }
}

// T43
#[test]
fn every_block_is_refused_from_end_to_end_and_by_its_name() {
    for (first, last, name) in blocks() {
        let between = bits(first) + (bits(last) - bits(first)) / 2;
        let middle = match first {
            IpAddr::V4(_) => Ipv4Addr::from(u32::try_from(between).expect("within the block")).into(),
            IpAddr::V6(_) => Ipv6Addr::from(between).into(),
        };
        for address in [first, middle, last] {
            assert_eq!(refused(address), Some(name.as_str()), "{address}");
        }
    }
}

#[test]
fn public_addresses_are_dialled_as_they_came_on_any_port() {
    let all = public();
    for address in &all {
        assert_eq!(refused(*address), None, "{address}");
    }
    for port in [1, 22, 25, 80, 443, 65535] {
        let destinations = Guard::default().admit(all.clone(), port).expect("all are public");
        let expected: Vec<SocketAddr> = all.iter().map(|address| SocketAddr::new(*address, port)).collect();
        assert_eq!(destinations.addresses(), expected);
        assert_eq!(destinations.into_iter().collect::<Vec<_>>(), expected);
    }
}

#[test]
fn one_bad_address_bars_the_whole_answer() {
    let good: IpAddr = Ipv4Addr::new(1, 1, 1, 1).into();
    for (bad, _, _) in blocks() {
        for mixed in [vec![good, bad], vec![bad, good], vec![good, good, bad, good]] {
            assert!(
                matches!(Guard::default().admit(mixed, 443), Err(DestinationRefused::Block { address, .. }) if address == bad)
            );
        }
    }
    assert_eq!(Guard::default().admit([], 443), Err(DestinationRefused::Nothing));
}

// A21, T44
#[test]
fn our_own_listeners_are_never_called() {
    let address = |text: &str| text.parse::<IpAddr>().expect("an address");
    let socket = |text: &str| text.parse::<SocketAddr>().expect("an address and a port");
    let local = [address("127.0.0.1"), address("8.8.4.4"), address("2a00:1450::1"), address("10.0.0.5")];
    let listeners =
        ["1.1.1.1:8443", "0.0.0.0:3128", "[::]:8080", "[2606:4700::1]:9901", "[::ffff:9.9.9.9]:1"].map(socket);
    let guard = Guard::new(&listeners, &local);
    let judge = |text: &str| {
        let to = socket(text);
        guard.admit([to.ip()], to.port()).map(|_| ())
    };
    for own in [
        "1.1.1.1:8443",
        "8.8.4.4:3128",
        "[2a00:1450::1]:3128",
        "8.8.4.4:8080",
        "[2a00:1450::1]:8080",
        "[2606:4700::1]:9901",
        "9.9.9.9:1",
    ] {
        assert_eq!(judge(own), Err(DestinationRefused::Loop(socket(own))));
    }
    for other in ["1.1.1.1:443", "1.1.1.1:3128", "8.8.4.4:8443", "[2606:4700::1]:443", "8.8.8.8:3128", "9.9.9.9:443"] {
        assert_eq!(judge(other), Ok(()), "{other}");
    }
    // An address that the machine got later: our end of the connection tells.
    let confirm = |ours, peer| guard.confirm(socket(ours), socket(peer));
    assert_eq!(confirm("5.5.5.5:40000", "5.5.5.5:3128"), Err(DestinationRefused::Loop(socket("5.5.5.5:3128"))));
    assert_eq!(confirm("[2a01::1]:40000", "[2a01::1]:8080"), Err(DestinationRefused::Loop(socket("[2a01::1]:8080"))));
    assert_eq!(confirm("5.5.5.5:40000", "5.5.5.5:443"), Ok(()), "some other server of this machine");
    assert_eq!(confirm("5.5.5.5:40000", "6.6.6.6:3128"), Ok(()));
    assert!(confirm("10.0.0.5:40000", "10.0.0.6:443").is_err(), "not what was admitted");
}

/// Follows the data plane for a host that a client names: parses it, resolves it if it is a name, and judges the
/// result.
fn reached(
    authority: Result<Authority, Malformed>,
    resolve: &mut impl FnMut(&str) -> Vec<IpAddr>,
) -> Result<Destinations, String> {
    let authority = authority.map_err(|malformed| malformed.to_string())?;
    let resolved = match (authority.host().address(), authority.host().name()) {
        (Some(address), _) => vec![address],
        (None, Some(name)) => resolve(name),
        (None, None) => Vec::new(),
    };
    Guard::default().admit(resolved, authority.port()).map_err(|refused| refused.to_string())
}

// T42
#[test]
fn no_spelling_of_a_forbidden_address_is_dialled_or_resolved() {
    let spellings: BTreeSet<String> = TARGETS.into_iter().flat_map(spellings::v4).collect();
    assert!(spellings.len() >= 360, "{} spellings", spellings.len());
    let mut resolve = |name: &str| panic!("the resolver was asked for {name}");
    let mut literals = 0;
    for spelling in &spellings {
        literals += usize::from(Authority::absolute(spelling.as_bytes()).is_ok());
        for port in ["", ":80", ":443", ":8443"] {
            let target = format!("{spelling}{port}");
            let forms = [Authority::connect(target.as_bytes()), Authority::absolute(target.as_bytes())];
            for authority in forms {
                assert!(reached(authority, &mut resolve).is_err(), "{target:?} is dialled");
            }
            // As the HTTP library hands them over.
            if let Ok(uri) = target.parse::<http::Uri>()
                && let Some(authority) = uri.authority()
            {
                let authority = Authority::connect(authority.as_str().as_bytes());
                assert!(reached(authority, &mut resolve).is_err(), "CONNECT {target:?} is dialled");
            }
            if let Ok(uri) = format!("http://{target}/").parse::<http::Uri>()
                && let Some(authority) = uri.authority()
                && !authority.as_str().starts_with("bank.example")
            {
                let authority = Authority::absolute(authority.as_str().as_bytes());
                assert!(reached(authority, &mut resolve).is_err(), "GET http://{target:?}/ is dialled");
            }
        }
    }
    assert!(literals >= TARGETS.len() * 10, "the guard was asked too: {literals} plain addresses");
}

// T43
#[test]
fn names_are_judged_by_what_they_resolve_to() {
    let names = ["localhost", "127.0.0.1.nip.example", "metadata.google.internal", "localtest.me", "ip6-loopback"];
    for (address, _, _) in blocks() {
        for name in names {
            let target = format!("{name}:443");
            assert!(reached(Authority::connect(target.as_bytes()), &mut |_| vec![address]).is_err(), "{name}");
        }
    }
    let good: IpAddr = Ipv4Addr::new(1, 1, 1, 1).into();
    let found = reached(Authority::connect(b"bank.example:8443"), &mut |_| vec![good]);
    assert_eq!(found, Ok(Destinations(vec![SocketAddr::new(good, 8443)])));
}

// T43
#[test]
fn a_name_that_changes_its_mind_is_asked_once_and_taken_at_its_word() {
    let (good, bad): (IpAddr, IpAddr) = (Ipv4Addr::new(1, 1, 1, 1).into(), Ipv4Addr::LOCALHOST.into());
    let mut asked = 0_usize;
    for attempt in 0..1000 {
        let before = asked;
        let outcome = reached(Authority::connect(b"rebind.example:443"), &mut |_| {
            asked += 1;
            vec![if asked % 2 == 1 { good } else { bad }]
        });
        assert_eq!(asked, before + 1, "once");
        match outcome {
            Ok(destinations) => {
                assert_eq!(attempt % 2, 0);
                assert_eq!(destinations.addresses(), [SocketAddr::new(good, 443)]);
            }
            Err(_) => assert_eq!(attempt % 2, 1),
        }
    }
}

fn addresses() -> impl Strategy<Value = Ipv4Addr> {
    prop_oneof![any::<u32>().prop_map(Ipv4Addr::from), select(&TARGETS[..])]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_the_standard_library_knows_to_be_special_is_refused(address in addresses()) {
        let special = address.is_private() || address.is_loopback() || address.is_link_local() || address.is_multicast()
            || address.is_broadcast() || address.is_documentation() || address.is_unspecified();
        prop_assert!(!special || refused(address.into()).is_some(), "{}", address);
    }

    #[test]
    fn an_ipv4_address_within_an_ipv6_one_is_refused_public_or_not(address in addresses()) {
        for carrier in embedded(address) {
            prop_assert!(refused(carrier.into()).is_some(), "{}", carrier);
        }
    }

    #[test]
    fn only_global_unicast_passes(groups in any::<[u16; 8]>()) {
        let address = Ipv6Addr::from(groups);
        let special = address.is_loopback() || address.is_unspecified() || address.is_multicast()
            || address.is_unique_local() || address.is_unicast_link_local() || groups[0] >> 13 != 1;
        prop_assert!(!special || refused(address.into()).is_some(), "{}", address);
    }
}

proptest! {
    // Each case is some five hundred spellings.
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_spelling_of_any_ipv4_address_is_another_to_us(address in any::<u32>().prop_map(Ipv4Addr::from)) {
        for spelling in spellings::v4(address) {
            if let Ok(authority) = Authority::absolute(spelling.as_bytes()) {
                let found = authority.host().address();
                let v6 = embedded(address).into_iter().map(IpAddr::from).any(|v6| found == Some(v6));
                prop_assert!(v6 || found == Some(address.into()), "{:?} is {:?}", spelling, found);
            }
        }
    }
}
