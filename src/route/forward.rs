//! All routes of one forward listener, and the one decision made with them.
//!
//! In forward mode a client asks for the provider's own URL, so a route matches by its upstream: the origin, and the
//! base path as a prefix on whole segments. Each origin has a [`RouteTable`] whose prefixes are the base paths, cut off for
//! the judgement and put back for the request, so that everything else (paths, allow lists, variables, guarded
//! endpoints, clients) is decided by the same code as in reverse mode, and what is sent is what came. A route's own
//! `path`, `host` and `strip` speak of reverse listeners and do not count here.

use std::collections::HashMap;
use std::sync::Arc;

use crate::base::origin::BaseUrl;

use super::admission::{Admission, Caller, Denied, RequestTarget};
use super::authority::{Authority, Malformed};
use super::rule::RouteRule;
use super::table::{Clash, RouteTable};

/// All routes of one forward listener, ready for matching.
#[derive(Debug, Default)]
pub struct ForwardTable {
    origins: HashMap<Authority, RouteTable>,
}

/// The form in which a client names the destination that it wants to reach.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ForwardTarget<'a> {
    /// In absolute form: `GET http://bank/x`. It is sent on over `https` all the same.
    Absolute(&'a Authority),
    /// Inside the tunnel that a CONNECT to this authority opened.
    Tunnel(&'a Authority),
}

/// A reason why routes cannot be served together. Indices are into the config's routes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RouteConflict {
    /// Two that one request of one client could mean alike.
    Clash(Clash),
    /// One whose upstream has a host that no client can name, with the reason.
    Unnameable(usize, Malformed),
}

impl ForwardTable {
    /// Hangs up all rules of a listener, each under its route's upstream. All flaws are named.
    pub fn build(rules: impl IntoIterator<Item = (BaseUrl, Arc<RouteRule>)>) -> Result<Self, Vec<RouteConflict>> {
        let mut grouped: HashMap<Authority, Vec<Arc<RouteRule>>> = HashMap::new();
        let mut flaws = Vec::new();
        for (upstream, rule) in rules {
            match Authority::of(&upstream) {
                Ok(authority) => grouped.entry(authority).or_default().push(Arc::new(under(&upstream, &rule))),
                Err(reason) => flaws.push(RouteConflict::Unnameable(rule.route, reason)),
            }
        }
        let mut origins = HashMap::with_capacity(grouped.len());
        for (authority, rules) in grouped {
            match RouteTable::build(rules) {
                Ok(table) => drop(origins.insert(authority, table)),
                Err(clashes) => flaws.extend(clashes.into_iter().map(RouteConflict::Clash)),
            }
        }
        flaws.sort_by_key(|flaw| match flaw {
            RouteConflict::Clash(clash) => clash.second,
            RouteConflict::Unnameable(route, _) => *route,
        });
        if flaws.is_empty() { Ok(Self { origins }) } else { Err(flaws) }
    }

    /// The places with a route, of whichever client: the only ones that are ever intercepted.
    pub fn origins(&self) -> impl Iterator<Item = &Authority> {
        self.origins.keys()
    }

    /// All rules, in no order. Their prefixes are the base paths of their upstreams.
    pub fn rules(&self) -> Vec<&RouteRule> {
        self.origins.values().flat_map(RouteTable::rules).collect()
    }

    /// Returns whether a CONNECT to this authority is intercepted: some route of some client leads there. A client
    /// without such a route is accepted too, and is refused inside TLS, where it can read the reason.
    pub fn intercepts(&self, authority: &Authority) -> bool {
        self.origins.contains_key(authority)
    }

    /// Decides about one request, as [`RouteTable::admit`] does. The path for the provider is the path as it was received.
    ///
    /// If the target names a host (its `Host` or `:authority`), it must be the requested destination, including the
    /// port. A caller that wants to respond to a mismatch with 421 checks [`ForwardTarget::agrees`] first.
    pub fn admit(
        &self,
        caller: Caller,
        asked: ForwardTarget<'_>,
        target: RequestTarget<'_>,
    ) -> Result<Admission, Denied> {
        if target.host.is_some_and(|host| !asked.agrees(host)) {
            return Err(Denied::Malformed("the host is not the one that the target names"));
        }
        self.find(asked).ok_or(Denied::NotFound)?.admit(caller, target)
    }

    /// The routes of the place that was asked for.
    ///
    /// `http://bank/` and `http://bank:80/` mean the bank's own port, 443: no provider is called in the clear, and what
    /// the application has configured is only the wrong scheme. Any other port is meant as it stands.
    fn find(&self, asked: ForwardTarget<'_>) -> Option<&RouteTable> {
        match asked {
            ForwardTarget::Absolute(authority) if authority.is_http() => {
                self.origins.get(&authority.on_https()).or_else(|| self.origins.get(authority))
            }
            ForwardTarget::Absolute(authority) | ForwardTarget::Tunnel(authority) => self.origins.get(authority),
        }
    }
}

impl ForwardTarget<'_> {
    /// Returns whether a `Host` field (or `:authority`) names this destination, including the port (RFC 9112 section
    /// 3.2.2). A field that could be read in two ways names no destination.
    pub fn agrees(self, host: &str) -> bool {
        match self {
            ForwardTarget::Absolute(authority) => authority.is_host_of_http(host),
            ForwardTarget::Tunnel(authority) => authority.is_host_of_https(host),
        }
    }
}

/// The rule as it hangs in the table of its upstream's origin.
fn under(upstream: &BaseUrl, rule: &RouteRule) -> RouteRule {
    RouteRule { host: None, prefix: upstream.path().into(), base: upstream.path().into(), strip: true, ..rule.clone() }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, HeaderValue, Method};
    use proptest::prelude::*;

    use super::super::path::plain;
    use super::super::properties::path_properties;
    use super::super::{Allow, ClientId, Opens, PathRules, Pattern, Var, VarSource};
    use super::*;

    const ERP: Caller = Caller::Client(ClientId(0));
    const TREASURY: Caller = Caller::Client(ClientId(1));

    /// A route as it may stand in a file that serves reverse listeners too.
    fn rule(route: usize) -> RouteRule {
        RouteRule {
            route,
            host: Some("gateway.corp".into()),
            prefix: "/reverse".into(),
            methods: Vec::new(),
            opens: Opens::Everyone,
            strip: false,
            base: "/to-be-replaced".into(),
            allow: Vec::new(),
            vars: Vec::new(),
            path_rules: PathRules::STRICT,
            reserved: Arc::new(|_| false),
            stub: None,
            enforce: true,
        }
    }

    fn only(rule: RouteRule, clients: &[u16]) -> RouteRule {
        RouteRule { opens: Opens::Only(clients.iter().copied().map(ClientId).collect()), ..rule }
    }

    fn build(rules: impl IntoIterator<Item = (&'static str, RouteRule)>) -> Result<ForwardTable, Vec<RouteConflict>> {
        let read = |(url, rule)| (BaseUrl::parse(url).expect("a good URL"), Arc::new(rule));
        ForwardTable::build(rules.into_iter().map(read))
    }

    fn table(rules: impl IntoIterator<Item = (&'static str, RouteRule)>) -> ForwardTable {
        build(rules).expect("no flaw")
    }

    fn admit(
        table: &ForwardTable,
        caller: Caller,
        asked: ForwardTarget<'_>,
        path: &str,
    ) -> Result<(usize, String), Denied> {
        let headers = HeaderMap::new();
        let target = RequestTarget { method: &Method::GET, host: None, path_and_query: path, headers: &headers };
        table.admit(caller, asked, target).map(|admitted| (admitted.route(), admitted.path_and_query().to_owned()))
    }

    /// A request through a tunnel.
    fn inside(table: &ForwardTable, caller: Caller, to: &str, path: &str) -> Result<(usize, String), Denied> {
        let authority = Authority::connect(to.as_bytes()).expect("well-formed");
        admit(table, caller, ForwardTarget::Tunnel(&authority), path)
    }

    /// A request in absolute form.
    fn absolute(table: &ForwardTable, to: &str, path: &str) -> Result<(usize, String), Denied> {
        let authority = Authority::absolute(to.as_bytes()).expect("well-formed");
        admit(table, ERP, ForwardTarget::Absolute(&authority), path)
    }

    fn to(route: usize, path: &str) -> Result<(usize, String), Denied> {
        Ok((route, path.to_owned()))
    }

    #[test]
    fn the_longest_base_path_of_the_origin_wins_and_the_path_is_sent_as_it_came() {
        let table = table([
            ("https://bank.example/partners", rule(0)),
            ("https://bank.example/partners/sandbox", rule(1)),
            ("https://other.example", rule(2)),
            ("https://bank.example:8443/partners", rule(3)),
        ]);
        let ask = |to, path| inside(&table, ERP, to, path);
        for path in ["/partners", "/partners/", "/partners?q", "/partners/v1/x?y=%2e%2e&z", "/partners/sandboxes"] {
            assert_eq!(ask("bank.example:443", path), to(0, path));
            assert_eq!(ask("BANK.Example:8443", path), to(3, path));
        }
        assert_eq!(ask("bank.example:443", "/%70artners/x"), to(0, "/%70artners/x"), "encoded letters, as they came");
        for path in ["/partners/sandbox", "/partners/sandbox/", "/partners/sandbox/v1%20x?", "/partner%73/s%61ndbox/x"]
        {
            assert_eq!(ask("bank.example:443", path), to(1, path));
        }
        for path in ["/", "/?q", "/partners/v1", "/a%25b"] {
            assert_eq!(ask("other.example:443", path), to(2, path));
        }
        for (place, path) in [
            ("bank.example:443", "/"),
            ("bank.example:443", "/Partners/x"),
            ("bank.example:443", "/partnersx"),
            ("bank.example:443", "/reverse/x"),
            ("bank.example:8443", "/x"),
            ("other.example:8443", "/"),
            ("sub.bank.example:443", "/partners"),
            ("example:443", "/partners"),
        ] {
            assert_eq!(ask(place, path), Err(Denied::NotFound), "{place}{path}");
        }
    }

    #[test]
    fn only_places_with_a_route_are_intercepted_whosever_it_is() {
        let table = table([
            ("https://bank.example/base", only(rule(0), &[1])),
            ("https://BANK.example/other", only(rule(1), &[1])),
            ("https://[0:0::1]:8443", rule(2)),
        ]);
        for (place, expected) in [
            ("bank.example:443", true),
            ("Bank.EXAMPLE:443", true),
            ("[::1]:8443", true),
            ("[0::0001]:8443", true),
            ("bank.example:80", false),
            ("bank.example:8443", false),
            ("[::1]:443", false),
            ("www.bank.example:443", false),
            ("bank.example.evil.example:443", false),
            ("127.0.0.1:443", false),
        ] {
            let authority = Authority::connect(place.as_bytes()).expect("well-formed");
            assert_eq!(table.intercepts(&authority), expected, "{place}");
        }
        let mut origins: Vec<String> = table.origins().map(Authority::to_string).collect();
        origins.sort();
        assert_eq!(origins, ["[::1]:8443", "bank.example:443"]);
        assert_eq!(inside(&table, ERP, "bank.example:443", "/base/x"), Err(Denied::NotAllowed(Some(0))));
        assert!(!ForwardTable::default().intercepts(&Authority::connect(b"bank.example:443").expect("well-formed")));
    }

    // T2
    #[test]
    fn two_clients_of_one_bank_each_get_their_own_route() {
        let table = table([
            ("https://bank.example/base", only(rule(0), &[0])),
            ("https://bank.example/base", only(rule(1), &[1])),
            ("https://bank.example/base/deep", only(rule(2), &[1])),
        ]);
        let ask = |caller, path| inside(&table, caller, "bank.example:443", path);
        assert_eq!(ask(ERP, "/base/deep/x"), to(0, "/base/deep/x"));
        assert_eq!(ask(TREASURY, "/base/deep/x"), to(2, "/base/deep/x"));
        assert_eq!(ask(TREASURY, "/base/x"), to(1, "/base/x"));
        assert_eq!(ask(Caller::Client(ClientId(2)), "/base/x"), Err(Denied::NotAllowed(None)), "two were meant");
        assert_eq!(ask(Caller::Anyone, "/base/deep"), Err(Denied::NotAllowed(Some(2))));
        assert_eq!(ask(ERP, "/elsewhere"), Err(Denied::NotFound));
    }

    // T10
    #[test]
    fn a_plain_http_url_means_the_banks_own_port() {
        let table = table([("https://bank.example/base", rule(0)), ("https://odd.example:8443", rule(1))]);
        for place in ["bank.example", "bank.example:80", "bank.example:443", "BANK.example"] {
            assert_eq!(absolute(&table, place, "/base/x?y"), to(0, "/base/x?y"), "{place}");
        }
        assert_eq!(absolute(&table, "odd.example:8443", "/x"), to(1, "/x"));
        for place in ["odd.example", "odd.example:80", "odd.example:443", "bank.example:8080", "bank.example:8443"] {
            assert_eq!(absolute(&table, place, "/base/x"), Err(Denied::NotFound), "{place}");
        }
        assert_eq!(inside(&table, ERP, "bank.example:80", "/base/x"), Err(Denied::NotFound), "a tunnel means its port");
        let both = super::tests::table([("https://bank.example:80", rule(0)), ("https://bank.example", rule(1))]);
        assert_eq!(absolute(&both, "bank.example", "/x"), to(1, "/x"));
        let odd = super::tests::table([("https://bank.example:80", rule(0))]);
        assert_eq!(absolute(&odd, "bank.example", "/x"), to(0, "/x"));
    }

    // T8, T9
    #[test]
    fn the_host_field_names_the_place_that_was_asked_for() {
        let table = table([("https://bank.example", rule(0)), ("https://[::1]:8443", rule(1))]);
        let authority = |text: &str| Authority::connect(text.as_bytes()).expect("well-formed");
        let (bank, http, odd) = (authority("bank.example:443"), authority("bank.example:80"), authority("[::1]:8443"));
        for (asked, host, agrees) in [
            (ForwardTarget::Tunnel(&bank), "bank.example", true),
            (ForwardTarget::Tunnel(&bank), "BANK.example:443", true),
            (ForwardTarget::Tunnel(&bank), "bank.example:80", false),
            (ForwardTarget::Tunnel(&bank), "bank.example:", false),
            (ForwardTarget::Tunnel(&bank), "bank.example:0443", false),
            (ForwardTarget::Tunnel(&bank), "bank.example:+443", false),
            (ForwardTarget::Tunnel(&bank), "bank.example.", false),
            (ForwardTarget::Tunnel(&bank), "evil.example", false),
            (ForwardTarget::Tunnel(&bank), "bank.example@evil.example", false),
            (ForwardTarget::Tunnel(&bank), "bank.example:443:443", false),
            (ForwardTarget::Tunnel(&bank), "bank.example,bank.example", false),
            (ForwardTarget::Tunnel(&bank), "", false),
            (ForwardTarget::Tunnel(&bank), "[::1]", false),
            (ForwardTarget::Tunnel(&odd), "[::1]:8443", true),
            (ForwardTarget::Tunnel(&odd), "[0:0::1]:8443", true),
            (ForwardTarget::Tunnel(&odd), "[::1]", false),
            (ForwardTarget::Tunnel(&odd), "::1", false),
            (ForwardTarget::Absolute(&http), "bank.example", true),
            (ForwardTarget::Absolute(&http), "bank.example:80", true),
            (ForwardTarget::Absolute(&http), "bank.example:443", false),
            (ForwardTarget::Absolute(&bank), "bank.example", false),
            (ForwardTarget::Absolute(&bank), "bank.example:443", true),
        ] {
            assert_eq!(asked.agrees(host), agrees, "{asked:?} {host:?}");
            let headers = HeaderMap::new();
            let target =
                RequestTarget { method: &Method::GET, host: Some(host), path_and_query: "/x", headers: &headers };
            match table.admit(ERP, asked, target) {
                Ok(admitted) => assert!(agrees, "{asked:?} {host:?} was admitted to {}", admitted.route()),
                Err(refusal) => assert!(!agrees && matches!(refusal, Denied::Malformed(_)), "{host:?}: {refusal:?}"),
            }
        }
    }

    // T5, T7, T16
    #[test]
    fn everything_else_is_decided_as_in_reverse_mode() {
        let allow = ["GET /v1/*", "POST /v1/pay"].map(|line| Allow::parse(line).expect("a good line")).to_vec();
        let pattern = Pattern::parse("/v1/accounts/{account}/*", Some("account")).expect("a good pattern");
        let vars = vec![Var::new("account".into(), VarSource::Path(pattern), Some("[0-9]+")).expect("a good variable")];
        let table = table([
            ("https://scb.example/partners/sandbox", RouteRule { allow, ..rule(0) }),
            ("https://rak.example/sb/api", RouteRule { vars, ..rule(1) }),
            ("https://meed.example/api", RouteRule { reserved: Arc::new(|path| path == "/oauth/token"), ..rule(2) }),
            ("https://soft.example/api", RouteRule { path_rules: PathRules::LENIENT, ..rule(3) }),
            ("https://root.example", RouteRule { reserved: Arc::new(|path| path == "/oauth/token"), ..rule(4) }),
        ]);
        let ask = |to, path| inside(&table, ERP, to, path);
        assert_eq!(ask("scb.example:443", "/partners/sandbox/v1/x"), to(0, "/partners/sandbox/v1/x"));
        assert_eq!(ask("scb.example:443", "/partners/sandbox/v2/x"), Err(Denied::NotListed(0)));
        assert_eq!(ask("scb.example:443", "/partners/sandbox"), Err(Denied::NotListed(0)));
        assert_eq!(ask("soft.example:443", "/api/a//b%2Fc"), to(3, "/api/a//b%2Fc"));
        for path in ["/api/oauth/token", "/api/oauth/%74oken?x", "/api/oauth/token/", "/api/oauth/token;a=b"] {
            assert_eq!(ask("meed.example:443", path), Err(Denied::Reserved(2)), "{path}");
        }
        assert_eq!(ask("root.example:443", "/oauth/%74oken"), Err(Denied::Reserved(4)));
        for path in ["/api/../x", "/api/%2e%2e/x", "/api//x", "//api/x", "/api/%2fx", "/api\\x", "/api/x#y", "x", ""] {
            assert!(matches!(ask("meed.example:443", path), Err(Denied::Malformed(_))), "{path}");
        }
        assert_eq!(ask("meed.example:443", "*"), Err(Denied::NotFound));
        let headers = HeaderMap::from_iter([(HeaderName::from_static("x-y"), HeaderValue::from_static("z"))]);
        let rak = Authority::connect(b"rak.example:443").expect("well-formed");
        let path_and_query = "/sb/api/v1/accounts/0188/balance?x";
        let target =
            RequestTarget { method: &Method::GET, host: Some("rak.example"), path_and_query, headers: &headers };
        let Ok(Admission::Admitted(admitted)) = table.admit(ERP, ForwardTarget::Tunnel(&rak), target) else {
            panic!("it was to be granted");
        };
        assert_eq!(admitted.path_and_query(), path_and_query);
        assert_eq!(admitted.vars().iter().collect::<Vec<_>>(), [("account", "0188")]);
        let trace = RequestTarget { method: &Method::TRACE, ..target };
        assert_eq!(table.admit(ERP, ForwardTarget::Tunnel(&rak), trace).map(|_| ()), Err(Denied::MethodRefused));
    }

    #[test]
    fn equal_upstreams_for_one_client_and_hosts_that_nobody_can_name_are_flaws() {
        let flaws = |rules: [(&'static str, RouteRule); 2]| build(rules).map(|_| ());
        let clash = Err(vec![RouteConflict::Clash(Clash { first: 0, second: 1 })]);
        assert_eq!(flaws([("https://a.example/x", rule(0)), ("https://A.example:443/x/", rule(1))]), clash);
        assert_eq!(flaws([("https://a.example/x", rule(0)), ("https://a.example/x", only(rule(1), &[1]))]), clash);
        assert_eq!(flaws([("https://a.example/x", rule(0)), ("https://a.example/y", rule(1))]), Ok(()));
        assert_eq!(flaws([("https://a.example/x", rule(0)), ("https://a.example:8443/x", rule(1))]), Ok(()));
        assert_eq!(
            flaws([("https://a.example", only(rule(0), &[0])), ("https://a.example", only(rule(1), &[1]))]),
            Ok(())
        );
        let get = |rule| RouteRule { methods: vec![Method::GET], ..rule };
        let post = |rule| RouteRule { methods: vec![Method::POST], ..rule };
        assert_eq!(flaws([("https://a.example", get(rule(0))), ("https://a.example", post(rule(1)))]), Ok(()));
        let found = build([
            ("https://b.example", rule(0)),
            ("https://a.example./x", rule(1)),
            ("https://c.example", rule(2)),
            ("https://c.example", rule(3)),
            ("https://b.example", rule(4)),
        ]);
        let found = found.expect_err("three flaws");
        let reason = Malformed("the host ends in a dot");
        let clash = |first, second| RouteConflict::Clash(Clash { first, second });
        assert_eq!(found, [RouteConflict::Unnameable(1, reason), clash(2, 3), clash(0, 4)], "by the later route");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

        // T7
        #[test]
        fn what_is_admitted_is_sent_as_it_came_below_its_upstream(path in path_properties(), client in 0_u16..3) {
            let table = table([
                ("https://bank.example/bank", only(rule(0), &[0])),
                ("https://bank.example/bank", only(rule(1), &[1])),
                ("https://bank.example/bank/deep", only(rule(2), &[0])),
                ("https://bank.example/a", RouteRule { path_rules: PathRules::LENIENT, ..rule(3) }),
                ("https://bank.example", only(rule(4), &[1])),
            ]);
            let bases = ["/bank", "/bank", "/bank/deep", "/a", ""];
            let caller = if client == 2 { Caller::Anyone } else { Caller::Client(ClientId(client)) };
            if let Ok((route, sent)) = inside(&table, caller, "bank.example:443", &path) {
                prop_assert_eq!(&sent, &path, "as it came");
                let asked = plain(path.split('?').next().unwrap_or_default());
                let below = |base: &str| *asked == *base || asked.starts_with(&format!("{base}/"));
                prop_assert!(below(bases[route]), "{} left {}", path, bases[route]);
                prop_assert!(route != 4 || !["/bank", "/a"].into_iter().any(below), "a longer one would have won");
            }
        }
    }
}
