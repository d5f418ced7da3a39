//! Properties of every path, tested on thousands of generated hostile paths.

use std::sync::Arc;

use http::{HeaderMap, Method};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::fuzzing::{reference, rules, stays_in_its_route};
use super::{Caller, ClientId, Denied, RequestTarget, RouteTable};

const PIECES: &[&str] = &[
    "/",
    "//",
    "a",
    "b",
    "bank",
    "deep",
    "v1",
    ".",
    "..",
    "...",
    "%2e",
    "%2E",
    "%2f",
    "%2F",
    "%5c",
    "\\",
    "%",
    "%25",
    "%252e",
    "%252f",
    "%25%32%65",
    "%00",
    "%0d%0a",
    "%7f",
    "%c0%ae",
    "%e0%80%af",
    ";",
    ";x=1",
    "%3b",
    "?",
    "?q=1",
    "#",
    " ",
    "\t",
    "é",
    "%C3%A9",
    "~",
    "+",
    "@",
    "*",
    "%2",
    "%zz",
    "%u002e",
    "/../",
    "/./",
    "/..;/",
    "%2e%2e%2f",
    "/bank",
    "/bank/",
    "/bank/deep",
    "bankrupt",
    "/.%2e/",
    "%25252e",
    "2e",
    "5c",
    "%61",
    "%62ank",
    "%64eep",
    "dee%70",
    "deep;x=1",
    "deep%3bx",
    "deep.",
    "deep%20",
    "de%2565p",
    "%2F%64eep",
    "%3a",
    "%7E",
];

pub(super) fn path_properties() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => vec(select(PIECES), 0..9).prop_map(|pieces| format!("/{}", pieces.concat())),
        4 => vec(select(PIECES), 0..9).prop_map(|pieces| format!("/bank/{}", pieces.concat())),
        1 => vec(select(PIECES), 0..6).prop_map(|pieces| pieces.concat()),
        1 => any::<String>(),
        1 => "/[ -~]{0,40}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    // T7, F7
    #[test]
    fn nothing_admitted_leaves_its_route(path in path_properties(), client in 0_u16..3, host in select(vec![None, Some("h.example"), Some("other")])) {
        let caller = if client == 2 { Caller::Anyone } else { Caller::Client(ClientId(client)) };
        stays_in_its_route(&path, caller, host);
    }

    #[test]
    fn plain_paths_always_find_what_the_reference_finds(segments in vec(select(vec!["bank", "deep", "v1", "a", "bankrupt", "x"]), 0..5), client in 0_u16..2) {
        let rules = rules();
        let table = RouteTable::build(rules.iter().cloned().map(Arc::new)).expect("no two are equal");
        let path = format!("/{}", segments.join("/"));
        let caller = Caller::Client(ClientId(client));
        let headers = HeaderMap::new();
        for host in [None, Some("h.example")] {
            let target = RequestTarget { method: &Method::POST, host, path_and_query: &path, headers: &headers };
            let expected = reference(&rules, caller, host, &path);
            match table.admit(caller, target) {
                Ok(admitted) => prop_assert_eq!(expected, Ok(admitted.route())),
                Err(Denied::MethodNotListed(_) | Denied::NotAllowed(_)) => prop_assert_eq!(expected, Err(true)),
                Err(refusal) => prop_assert_eq!((expected, refusal), (Err(false), Denied::NotFound)),
            }
        }
    }
}
