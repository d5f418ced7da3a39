//! What holds for every path, tried on thousands that were made to do harm.

use std::sync::Arc;

use http::{HeaderMap, Method};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::path::{behind, plain};
use super::{Caller, ClientId, Opens, PathRules, Refusal, Rule, Table, Target};

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

pub(super) fn paths() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => vec(select(PIECES), 0..9).prop_map(|pieces| format!("/{}", pieces.concat())),
        4 => vec(select(PIECES), 0..9).prop_map(|pieces| format!("/bank/{}", pieces.concat())),
        1 => vec(select(PIECES), 0..6).prop_map(|pieces| pieces.concat()),
        1 => any::<String>(),
        1 => "/[ -~]{0,40}",
    ]
}

fn rules() -> Vec<Rule> {
    let rule = |route, host: Option<&str>, prefix: &str, base: &str, clients: &[u16]| Rule {
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
            2 | 6 => PathRules::LENIENT,
            5 => PathRules::LENIENT.with(PathRules::PARAMETERS).with(PathRules::DOUBLE_ENCODING),
            _ => PathRules::STRICT,
        },
        reserved: Arc::new(|_| false),
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

/// All that could be made of a path by decoding it as often as it changes, and by taking `\` for `/`.
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

/// The same choice, made the slow and obvious way.
fn reference(rules: &[Rule], caller: Caller, host: Option<&str>, path: &str) -> Result<usize, bool> {
    let matches = |rule: &&Rule| {
        (rule.host.is_none() || rule.host.as_deref() == host)
            && (path == &*rule.prefix || path.starts_with(&format!("{}/", rule.prefix)))
    };
    let matching: Vec<&Rule> = rules.iter().filter(matches).collect();
    matching
        .iter()
        .filter(|rule| rule.opens.admits(caller))
        .max_by_key(|rule| (rule.host.is_some(), rule.prefix.len()))
        .map(|rule| rule.route)
        .ok_or(!matching.is_empty())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    // T7, F7
    #[test]
    fn nothing_admitted_leaves_its_route(path in paths(), client in 0_u16..3, host in select(vec![None, Some("h.example"), Some("other")])) {
        let rules = rules();
        let table = Table::build(rules.iter().cloned().map(Arc::new)).expect("no two are equal");
        let caller = if client == 2 { Caller::Anyone } else { Caller::Client(ClientId(client)) };
        let headers = HeaderMap::new();
        let target = Target { method: &Method::GET, host, path_and_query: &path, headers: &headers };
        let asked = path.split('?').next().unwrap_or_default();
        match table.admit(caller, target) {
            Ok(permit) => {
                let rule = &rules[permit.route()];
                let forwarded = permit.path_and_query();
                let (forwarded_path, query) = forwarded.split_once('?').map_or((forwarded, None), |(p, q)| (p, Some(q)));
                prop_assert_eq!(query, path.split_once('?').map(|(_, query)| query), "the query is untouched");
                let below = format!("{}/", rule.base);
                prop_assert!(forwarded_path == &*rule.base || forwarded_path.starts_with(&below), "left the upstream");
                let cut = if rule.strip { rule.prefix.split('/').count() - 1 } else { 0 };
                let expected = behind(asked, cut);
                prop_assert_eq!(forwarded_path.strip_prefix(&*rule.base), Some(expected), "what was matched is what is sent");
                for decoded in decodings(forwarded_path) {
                    prop_assert!(!has_dot_segment(&decoded), "{} hides a dot segment", forwarded_path);
                    prop_assert!(!decoded.iter().any(|byte| *byte < 0x20 || *byte == 0x7f || *byte == b'\\'), "{}", forwarded_path);
                }
                if rule.path_rules == PathRules::STRICT {
                    let slashes = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'/').count();
                    prop_assert!(!forwarded_path.contains("//"));
                    for decoded in decodings(forwarded_path) {
                        prop_assert_eq!(slashes(&decoded), slashes(forwarded_path.as_bytes()), "{} hides a slash", forwarded_path);
                    }
                }
                prop_assert_eq!(reference(&rules, caller, host, &plain(asked)), Ok(permit.route()));
                for read in readings(asked) {
                    let route = reference(&rules, caller, host, &read);
                    prop_assert!(route.is_err() || route == Ok(permit.route()), "{} is {} to a bank", asked, read);
                }
            }
            Err(Refusal::Malformed(_)) => {}
            Err(Refusal::NotAllowed(_)) => prop_assert_eq!(reference(&rules, caller, host, &plain(asked)), Err(true)),
            Err(Refusal::NotFound) => prop_assert!(path == "*" || reference(&rules, caller, host, &plain(asked)) == Err(false)),
            Err(refusal @ (Refusal::MethodRefused | Refusal::Reserved(_) | Refusal::Stub(_))) => prop_assert!(false, "{:?}", refusal),
        }
    }

    #[test]
    fn plain_paths_always_find_what_the_reference_finds(segments in vec(select(vec!["bank", "deep", "v1", "a", "bankrupt", "x"]), 0..5), client in 0_u16..2) {
        let rules = rules();
        let table = Table::build(rules.iter().cloned().map(Arc::new)).expect("no two are equal");
        let path = format!("/{}", segments.join("/"));
        let caller = Caller::Client(ClientId(client));
        let headers = HeaderMap::new();
        for host in [None, Some("h.example")] {
            let target = Target { method: &Method::POST, host, path_and_query: &path, headers: &headers };
            let expected = reference(&rules, caller, host, &path);
            match table.admit(caller, target) {
                Ok(permit) => prop_assert_eq!(expected, Ok(permit.route())),
                Err(Refusal::NotAllowed(_)) => prop_assert_eq!(expected, Err(true)),
                Err(refusal) => prop_assert_eq!((expected, refusal), (Err(false), Refusal::NotFound)),
            }
        }
    }
}
