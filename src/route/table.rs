//! All routes of one listener, and the one decision made with them.
//!
//! Routes hang in one tree of path segments per host and one for those without a host. A search walks down the path's
//! own segments once, so it costs what the path is long, not how many routes there are, and takes nothing from the
//! heap until a request is admitted.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use http::Method;

use crate::base::vars::Vars;

use super::admission::{Admission, AdmissionDraft, Admitted, Caller, Denied, RequestTarget};
use super::host::Buffer;
use super::path::{PathRules, behind, generous, judge, plain, shallower};
use super::refused_method;
use super::rule::RouteRule;
use super::vars::Var;

const TWO_ROUTES: &str = "the path leads to one route or to another, by how it is read";

/// All routes of one listener, ready for matching.
#[derive(Debug, Default)]
pub struct RouteTable {
    hosts: HashMap<Box<str>, Tree>,
    anywhere: Tree,
}

/// Two routes that one request of one client could mean alike, as indices into the config's routes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Clash {
    /// The one that was declared first.
    pub first: usize,
    /// The route that was declared later.
    pub second: usize,
}

#[derive(Debug, Default)]
struct Tree {
    here: Vec<Arc<RouteRule>>,
    below: HashMap<Box<str>, Tree>,
}

/// The result of a search in one tree.
struct RouteMatch<'t> {
    /// The deepest rule that is open.
    open: Option<&'t Arc<RouteRule>>,
    /// The deepest place with rules that match but are closed.
    closed: Option<&'t Tree>,
}

impl RouteTable {
    /// Hangs up all rules of a listener. Two that could be meant by one request are an error, all of which are named.
    pub fn build(rules: impl IntoIterator<Item = Arc<RouteRule>>) -> Result<Self, Vec<Clash>> {
        let mut table = Self::default();
        let mut clashes = Vec::new();
        for rule in rules {
            let mut tree = match &rule.host {
                Some(host) => table.hosts.entry((**host).into()).or_default(),
                None => &mut table.anywhere,
            };
            for segment in plain(&rule.prefix).split('/').skip(1) {
                tree = tree.below.entry(segment.into()).or_default();
            }
            let known = tree.here.iter().filter(|known| known.clashes(&rule));
            clashes.extend(known.map(|known| Clash { first: known.route, second: rule.route }));
            tree.here.push(rule);
        }
        if clashes.is_empty() { Ok(table) } else { Err(clashes) }
    }

    /// Decides about one request. The only maker of [`Admitted`]s and of [`AdmissionDraft`]s.
    pub fn admit(&self, caller: Caller, target: RequestTarget<'_>) -> Result<Admission, Denied> {
        let RequestTarget { method, host, path_and_query, headers } = target;
        if refused_method(method) {
            return Err(Denied::MethodRefused);
        }
        if path_and_query == "*" {
            return Err(Denied::NotFound);
        }
        let judged = judge(path_and_query).map_err(Denied::Malformed)?;
        let mut buffer = Buffer::new();
        let host = host.map(|host| buffer.read(host)).transpose().map_err(Denied::Malformed)?;
        let rule = match self.find(caller, method, host, &judged.plain) {
            Ok(rule) => {
                rule.path_rules.refuse(judged.doubts).map_err(Denied::Malformed)?;
                rule
            }
            Err(refusal) => {
                PathRules::STRICT.refuse(judged.doubts).map_err(Denied::Malformed)?;
                return Err(refusal);
            }
        };
        // A server that reads more generously must not find a place for which another route has rules.
        let elsewhere = |read: &str| self.find(caller, method, host, read).is_ok_and(|other| other.route != rule.route);
        if let Cow::Owned(read) = generous(judged.path)
            && (elsewhere(&read) || shallower(judged.path).iter().any(|read| elsewhere(read)))
        {
            return Err(Denied::Malformed(TWO_ROUTES));
        }
        // The forwarded path is cut from the path as received; the compared path, from the path as a server reads it.
        let (rest, read) = if rule.strip {
            let segments = rule.prefix.split('/').count() - 1;
            (behind(judged.path, segments), behind(&judged.plain, segments))
        } else {
            (judged.path, &*judged.plain)
        };
        let whole = |rest| if str::is_empty(rest) { "/" } else { rest };
        let (path, read) = (whole(rest), whole(read));
        let plain = generous(path);
        if rule.stub.as_ref().is_some_and(|stub| stub(&plain)) {
            return Err(Denied::Stub(rule.route));
        }
        if (rule.reserved)(&plain) || shallower(path).iter().any(|read| (rule.reserved)(read)) {
            return Err(Denied::Reserved(rule.route));
        }
        let tolerated = !rule.allow.is_empty() && !rule.allow.iter().any(|line| line.admits(method, read));
        if tolerated && rule.enforce {
            return Err(Denied::NotListed(rule.route));
        }
        let path_and_query = if rule.strip && rule.base == rule.prefix {
            // The base path to add equals the prefix that was cut off, so the path is sent as received.
            [judged.path, judged.query].concat()
        } else {
            let start = if rule.base.is_empty() { path } else { rest };
            [&*rule.base, start, judged.query].concat()
        };
        let value = |var: &Var| var.read(read, judged.query, headers, None).map_err(Denied::Malformed);
        if rule.vars.iter().any(Var::in_body) {
            let early = |var: &Var| if var.in_body() { Ok(None) } else { value(var).map(Some) };
            let read: Result<Vec<Option<String>>, Denied> = rule.vars.iter().map(early).collect();
            return Ok(Admission::AwaitsBody(AdmissionDraft {
                rule: rule.clone(),
                path_and_query,
                read: read?,
                tolerated,
            }));
        }
        let mut vars = Vars::none();
        for var in &rule.vars {
            vars.push(var.name().clone(), value(var)?);
        }
        Ok(Admission::Admitted(Admitted::new(rule.route, path_and_query, vars, tolerated)))
    }

    /// All rules, in no order.
    pub fn rules(&self) -> Vec<&RouteRule> {
        let mut rules = Vec::new();
        for tree in self.hosts.values().chain([&self.anywhere]) {
            tree.gather(&mut rules);
        }
        rules
    }

    /// The rule that a request takes: of its host before of none, the longest prefix among those open to the caller.
    fn find(&self, caller: Caller, method: &Method, host: Option<&str>, path: &str) -> Result<&Arc<RouteRule>, Denied> {
        let named = host.and_then(|host| self.hosts.get(host)).map(|tree| tree.search(caller, method, path));
        if let Some(RouteMatch { open: Some(rule), .. }) = named {
            return Ok(rule);
        }
        let anywhere = self.anywhere.search(caller, method, path);
        if let Some(rule) = anywhere.open {
            return Ok(rule);
        }
        match named.and_then(|found| found.closed).or(anywhere.closed) {
            Some(Tree { here, .. }) => Err(match here.as_slice() {
                [only] if only.opens.admits(caller) => Denied::MethodNotListed(only.route),
                [only] => Denied::NotAllowed(Some(only.route)),
                _ => Denied::NotAllowed(None),
            }),
            None => Err(Denied::NotFound),
        }
    }
}

impl Tree {
    fn gather<'t>(&'t self, rules: &mut Vec<&'t RouteRule>) {
        rules.extend(self.here.iter().map(|rule| &**rule));
        self.below.values().for_each(|tree| tree.gather(rules));
    }

    fn search(&self, caller: Caller, method: &Method, path: &str) -> RouteMatch<'_> {
        let mut found = RouteMatch { open: None, closed: None };
        let mut tree = self;
        let mut segments = path.split('/').skip(1);
        loop {
            match tree.here.iter().find(|rule| rule.opens.admits(caller) && rule.takes(method)) {
                Some(rule) => found.open = Some(rule),
                None if !tree.here.is_empty() => found.closed = Some(tree),
                None => {}
            }
            match segments.next().and_then(|segment| tree.below.get(segment)) {
                Some(below) => tree = below,
                None => return found,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, HeaderValue};

    use super::super::{Allow, ClientId, Opens, Pattern, Var, VarSource};
    use super::*;

    const ERP: Caller = Caller::Client(ClientId(0));
    const TREASURY: Caller = Caller::Client(ClientId(1));

    fn rule(route: usize, prefix: &str, base: &str) -> RouteRule {
        RouteRule {
            route,
            host: None,
            prefix: prefix.into(),
            methods: Vec::new(),
            opens: Opens::Everyone,
            strip: true,
            base: base.into(),
            allow: Vec::new(),
            vars: Vec::new(),
            path_rules: PathRules::STRICT,
            reserved: Arc::new(|_| false),
            stub: None,
            enforce: true,
        }
    }

    fn table(rules: impl IntoIterator<Item = RouteRule>) -> RouteTable {
        RouteTable::build(rules.into_iter().map(Arc::new)).expect("no two are equal")
    }

    fn ask(
        table: &RouteTable,
        caller: Caller,
        method: &Method,
        host: Option<&str>,
        path: &str,
    ) -> Result<(usize, String), Denied> {
        let headers = HeaderMap::new();
        table
            .admit(caller, RequestTarget { method, host, path_and_query: path, headers: &headers })
            .map(granted)
            .map(|admitted| (admitted.route(), admitted.path_and_query().to_owned()))
    }

    fn granted(admission: Admission) -> Admitted {
        match admission {
            Admission::Admitted(admitted) => admitted,
            Admission::AwaitsBody(draft) => panic!("{draft:?}"),
        }
    }

    fn get(table: &RouteTable, path: &str) -> Result<(usize, String), Denied> {
        ask(table, ERP, &Method::GET, Some("proxy"), path)
    }

    fn to(route: usize, path: &str) -> Result<(usize, String), Denied> {
        Ok((route, path.to_owned()))
    }

    #[test]
    fn the_longest_prefix_on_whole_segments_wins_and_is_removed() {
        let table = table([rule(0, "/scb", "/base"), rule(1, "/scb/v2", ""), rule(2, "/meed", "")]);
        assert_eq!(get(&table, "/scb/v1/x?y=%2e%2e&z"), to(0, "/base/v1/x?y=%2e%2e&z"));
        assert_eq!(get(&table, "/scb/v2/x"), to(1, "/x"));
        assert_eq!(get(&table, "/scb/v20/x"), to(0, "/base/v20/x"));
        assert_eq!(get(&table, "/scb"), to(0, "/base"));
        assert_eq!(get(&table, "/scb?q"), to(0, "/base?q"));
        assert_eq!(get(&table, "/scb/"), to(0, "/base/"));
        assert_eq!(get(&table, "/meed"), to(2, "/"));
        assert_eq!(get(&table, "/meed?q=1"), to(2, "/?q=1"));
        assert_eq!(get(&table, "/%73cb/x%74"), to(0, "/base/x%74"), "an encoded letter is that letter");
        assert_eq!(get(&table, "/sc%62/%76%32/x"), to(1, "/x"), "also in a longer route");
        for path in ["/", "/scbx", "/SCB/v1", "/%73cbx/x", "/other"] {
            assert_eq!(get(&table, path), Err(Denied::NotFound), "{path}");
        }
    }

    #[test]
    fn the_prefix_stays_when_asked_to() {
        let table = table([RouteRule { strip: false, ..rule(0, "/v1", "/base") }, rule(1, "", "")]);
        assert_eq!(get(&table, "/v1/x"), to(0, "/base/v1/x"));
        assert_eq!(get(&table, "/v2/x"), to(1, "/v2/x"));
        assert_eq!(get(&table, "/"), to(1, "/"));
    }

    // T2
    #[test]
    fn only_routes_open_to_the_caller_compete() {
        let only = |id| Opens::Only(vec![ClientId(id)]);
        let table = table([
            RouteRule { opens: only(0), ..rule(0, "/bank", "/erp") },
            RouteRule { opens: only(1), ..rule(1, "/bank", "/treasury") },
            RouteRule { opens: only(1), ..rule(2, "/bank/deep", "/deep") },
            RouteRule { opens: only(1), ..rule(3, "/vault", "") },
        ]);
        let ask = |caller, path| ask(&table, caller, &Method::GET, None, path);
        assert_eq!(ask(ERP, "/bank/deep/x"), to(0, "/erp/deep/x"));
        assert_eq!(ask(TREASURY, "/bank/deep/x"), to(2, "/deep/x"));
        assert_eq!(ask(TREASURY, "/bank/x"), to(1, "/treasury/x"));
        assert_eq!(ask(ERP, "/vault"), Err(Denied::NotAllowed(Some(3))));
        assert_eq!(ask(Caller::Anyone, "/bank/x"), Err(Denied::NotAllowed(None)), "two were meant");
        assert_eq!(ask(ERP, "/nothing"), Err(Denied::NotFound));
    }

    #[test]
    fn a_host_beats_none_and_is_compared_without_case_and_port() {
        let table = table([
            RouteRule { host: Some("bank.example".into()), ..rule(0, "/a", "/host") },
            rule(1, "/a/deeper", "/any"),
            RouteRule { host: Some("closed.example".into()), opens: Opens::Only(vec![]), ..rule(2, "", "") },
        ]);
        let ask = |host, path| ask(&table, ERP, &Method::GET, host, path);
        assert_eq!(ask(Some("BANK.example:8443"), "/a/deeper"), to(0, "/host/deeper"));
        assert_eq!(ask(Some("other.example"), "/a/deeper"), to(1, "/any"));
        assert_eq!(ask(None, "/a/deeper"), to(1, "/any"));
        assert_eq!(ask(Some("closed.example"), "/a/deeper"), to(1, "/any"), "the closed one does not compete");
        assert_eq!(ask(Some("closed.example"), "/b"), Err(Denied::NotAllowed(Some(2))));
        assert_eq!(ask(Some("bank.example"), "/b"), Err(Denied::NotFound));
        assert!(matches!(ask(Some("bank.example."), "/a"), Err(Denied::Malformed(_))));
        assert!(matches!(ask(Some(""), "/a"), Err(Denied::Malformed(_))));
    }

    // T5, T16
    #[test]
    fn methods_are_part_of_the_match_and_some_never_pass() {
        let table = table([
            RouteRule { methods: vec![Method::GET], ..rule(0, "/a", "/read") },
            RouteRule { methods: vec![Method::POST], ..rule(1, "/a", "/write") },
            RouteRule { methods: vec![Method::GET], ..rule(2, "/b", "") },
        ]);
        let ask = |method: &Method, path| ask(&table, ERP, method, None, path);
        assert_eq!(ask(&Method::GET, "/a"), to(0, "/read"));
        assert_eq!(ask(&Method::POST, "/a"), to(1, "/write"));
        assert_eq!(ask(&Method::POST, "/b"), Err(Denied::MethodNotListed(2)));
        for method in ["TRACE", "TRACK", "trace", "CONNECT"] {
            assert_eq!(ask(&Method::from_bytes(method.as_bytes()).unwrap(), "/a"), Err(Denied::MethodRefused));
        }
    }

    // A4
    #[test]
    fn targets_without_a_path_never_match() {
        let table = table([rule(0, "", "")]);
        assert_eq!(ask(&table, ERP, &Method::OPTIONS, None, "*"), Err(Denied::NotFound));
        for target in ["", "bank:443", "http://bank/x", "?x", "**"] {
            assert!(matches!(get(&table, target), Err(Denied::Malformed(_))), "{target}");
        }
        assert_eq!(ask(&table, ERP, &Method::CONNECT, None, "bank:443"), Err(Denied::MethodRefused));
    }

    #[test]
    fn a_lenient_route_permits_two_doubts_and_no_more() {
        let table = table([
            RouteRule { path_rules: PathRules::LENIENT, ..rule(0, "/soft", "/base") },
            rule(1, "/hard", "/base"),
        ]);
        assert_eq!(get(&table, "/soft/a//b%2Fc"), to(0, "/base/a//b%2Fc"));
        for path in [
            "/hard/a//b",
            "/hard/a%2fb",
            "/nowhere//x",
            "//soft/a",
            "/soft/%2e%2e",
            "/soft/a%5cb",
            "/soft%2f..%2fx",
            "/soft/%252f",
        ] {
            assert!(matches!(get(&table, path), Err(Denied::Malformed(_))), "{path}");
        }
    }

    #[test]
    fn a_longer_route_is_not_walked_around_by_another_spelling() {
        let all = PathRules::LENIENT.with(PathRules::PARAMETERS).with(PathRules::DOUBLE_ENCODING);
        let deep = || rule(1, "/rak/transfer", "/deep");
        let strict = table([rule(0, "/rak", "/all"), deep()]);
        for path in ["/rak/%74ransfer/do", "/%72ak/transfe%72/do", "/rak/transfer/do"] {
            assert_eq!(get(&strict, path), to(1, "/deep/do"), "{path}");
        }
        let soft = table([RouteRule { path_rules: all, ..rule(0, "/rak", "/all") }, deep()]);
        for path in [
            "/rak//transfer/do",
            "/rak%2ftransfer/do",
            "/rak/transfer%2fdo",
            "/rak;x=1/transfer/do",
            "/rak/transfer;x/do",
            "/rak/transfer;x",
            "/rak/transfer%3bx",
            "/rak/%2574ransfer/do",
            "/rak/transfer%252fdo",
            "/rak/transfer;x%252fdo",
            "/rak;x%252fy/transfer/do",
            "/rak/transfer./do",
            "/rak/transfer%20/do",
        ] {
            for table in [&soft, &strict] {
                assert!(matches!(get(table, path), Err(Denied::Malformed(_) | Denied::NotFound)), "{path}");
            }
        }
        assert_eq!(get(&soft, "/rak/a;x=1/b%252Fc%2F/d//e"), to(0, "/all/a;x=1/b%252Fc%2F/d//e"));
    }

    #[test]
    fn patterns_are_compared_with_what_a_server_reads() {
        let allow = ["GET /v1/a:b", "GET /v1/x%7ey/*"].map(|line| Allow::parse(line).unwrap()).to_vec();
        let table = table([RouteRule { allow, ..rule(0, "/scb", "") }]);
        for path in ["/scb/v1/a:b", "/scb/v1/a%3Ab", "/scb/%761/%61:b", "/scb/v1/x~y/z", "/scb/v1/x%7Ey/z"] {
            let sent = path.strip_prefix("/scb").expect("the prefix");
            assert_eq!(get(&table, path), to(0, sent), "{path}");
        }
        assert_eq!(get(&table, "/scb/v1/a%2541"), Err(Denied::NotListed(0)));
    }

    // T5
    #[test]
    fn an_allow_list_is_judged_on_the_providers_path() {
        let allow = ["GET /v1/*", "POST /v1/payment/qrcode/create"].map(|line| Allow::parse(line).unwrap()).to_vec();
        let table = table([RouteRule { allow, ..rule(0, "/scb", "/partners/sandbox") }]);
        assert_eq!(get(&table, "/scb/v1/x/y"), to(0, "/partners/sandbox/v1/x/y"));
        assert_eq!(get(&table, "/scb/v2/x"), Err(Denied::NotListed(0)));
        assert_eq!(get(&table, "/scb"), Err(Denied::NotListed(0)));
        let post = |path| ask(&table, ERP, &Method::POST, None, path);
        assert!(post("/scb/v1/payment/qrcode/create?x=1").is_ok());
        assert_eq!(post("/scb/v1/x"), Err(Denied::NotListed(0)));
    }

    #[test]
    fn the_providers_token_endpoint_is_out_of_reach_in_any_spelling() {
        let reserved: super::super::Reserved = Arc::new(|path| path == "/v1/oauth/token");
        let path_rules = PathRules::LENIENT.with(PathRules::DOUBLE_ENCODING);
        let table = table([RouteRule { reserved, path_rules, ..rule(0, "/scb", "/base") }]);
        for path in [
            "/scb/v1/oauth/token",
            "/scb/v1/oauth/token/",
            "/scb/v1/oauth/%74oken?x",
            "/scb/v1//oauth/token",
            "/scb/v1/oauth%2ftoken",
            "/scb/v1/oauth/token;a=b",
            "/scb/v1/oauth/%2574oken",
            "/scb/v1/oauth%252ftoken",
            "/scb/v1/oauth/token;a%252fb",
            "/scb/v1/oauth/token%3ba%252fb",
        ] {
            assert_eq!(get(&table, path), Err(Denied::Reserved(0)), "{path}");
        }
        assert!(get(&table, "/scb/v1/oauth/tokens").is_ok());
    }

    #[test]
    fn variables_are_read_or_the_request_is_refused() {
        let pattern = Pattern::parse("/v1/accounts/{account}/*", Some("account")).unwrap();
        let vars = vec![
            Var::new("account".into(), VarSource::Path(pattern), Some("[0-9]+")).unwrap(),
            Var::new("user".into(), VarSource::Header(HeaderName::from_static("x-user")), None).unwrap(),
        ];
        let table = table([RouteRule { vars, ..rule(0, "/rak", "/sb/api") }]);
        let headers = HeaderMap::from_iter([(HeaderName::from_static("x-user"), HeaderValue::from_static("alice"))]);
        let target =
            |path_and_query| RequestTarget { method: &Method::GET, host: None, path_and_query, headers: &headers };
        let admitted = table.admit(ERP, target("/rak/v1/accounts/0188/balance?x")).map(granted).unwrap();
        assert_eq!(admitted.path_and_query(), "/sb/api/v1/accounts/0188/balance?x");
        assert_eq!(admitted.vars().iter().collect::<Vec<_>>(), [("account", "0188"), ("user", "alice")]);
        assert!(matches!(table.admit(ERP, target("/rak/v1/other")), Err(Denied::Malformed(_))));
        assert!(matches!(get(&table, "/rak/v1/accounts/1/x"), Err(Denied::Malformed(_))), "no header");
    }

    #[test]
    fn a_variable_in_the_body_keeps_the_permit_back_until_it_was_read() {
        let vars = vec![
            Var::new("account".into(), VarSource::Json(vec!["debit".into()]), Some("[0-9]+")).unwrap(),
            Var::new("user".into(), VarSource::Query("user".into()), None).unwrap(),
        ];
        let table = table([RouteRule { vars, ..rule(7, "/rak", "/api") }]);
        let headers = HeaderMap::new();
        let ask = |path_and_query| {
            let target = RequestTarget { method: &Method::POST, host: None, path_and_query, headers: &headers };
            table.admit(ERP, target)
        };
        let draft = || match ask("/rak/pay?user=alice") {
            Ok(Admission::AwaitsBody(draft)) => draft,
            other => panic!("{other:?}"),
        };
        assert_eq!(draft().route(), 7);
        let admitted = draft().complete(b"{\"debit\":\"0188\"}").unwrap();
        assert_eq!(admitted.path_and_query(), "/api/pay?user=alice");
        assert_eq!(admitted.vars().iter().collect::<Vec<_>>(), [("account", "0188"), ("user", "alice")]);
        for body in ["{\"debit\":\"x\"}", "{}", "", "debit=1"] {
            assert!(matches!(draft().complete(body.as_bytes()), Err(Denied::Malformed(_))), "{body}");
        }
        assert!(matches!(ask("/rak/pay"), Err(Denied::Malformed(_))), "the rest is judged at once");
    }

    #[test]
    fn equal_routes_for_one_client_are_named() {
        let only = |ids: &[u16]| Opens::Only(ids.iter().copied().map(ClientId).collect());
        let build = |a: RouteRule, b: RouteRule| RouteTable::build([Arc::new(a), Arc::new(b)]).map(|_| ());
        let clash = Err(vec![Clash { first: 0, second: 1 }]);
        assert_eq!(build(rule(0, "/a", ""), rule(1, "/a", "/other")), clash);
        let (left, right) = (
            RouteRule { opens: only(&[0, 1]), ..rule(0, "/a", "") },
            RouteRule { opens: only(&[1]), ..rule(1, "/a", "") },
        );
        assert_eq!(build(left.clone(), right), clash);
        assert_eq!(build(left.clone(), RouteRule { opens: only(&[2]), ..rule(1, "/a", "") }), Ok(()));
        assert_eq!(build(left.clone(), RouteRule { host: Some("h".into()), ..rule(1, "/a", "") }), Ok(()));
        assert_eq!(build(left, rule(1, "/a", "")), clash);
    }

    #[test]
    fn a_thousand_routes_are_told_apart() {
        let table = table((0..1000).map(|n| rule(n, &format!("/bank-{n}/v1"), &format!("/base-{n}"))));
        for n in 0..1000 {
            assert_eq!(get(&table, &format!("/bank-{n}/v1/x")), to(n, &format!("/base-{n}/x")));
        }
        assert_eq!(get(&table, "/bank-1000/v1/x"), Err(Denied::NotFound));
    }
}
