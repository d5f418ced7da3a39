//! A shadow: a second profile of a provider, whose requests are made and compared, and never sent.
//!
//! A new version of a profile runs beside the present one with real traffic. Each call is dressed by both, at the same time,
//! with the same identifiers and with one stand-in for the token, so that what differs comes of the profiles. Only the
//! names of parts are kept: a header, a query parameter, the body. What no call shows (the token request, signatures)
//! is compared once, when the config is read.

use std::collections::BTreeMap;
use std::fmt;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, StatusCode};
use uuid::Uuid;

use crate::base::id::Ids;
use crate::base::secret::{ExposeSecret, SecretString};
use crate::base::time::{Deadline, Now};
use crate::base::vars::Vars;
use crate::provider::describe::StandIn;
use crate::provider::exchange::TokenRequest;
use crate::provider::foreseen_signature::{ForeseenSignature, SampleCall};
use crate::provider::injection::CallInputs;
use crate::provider::login::sample_requests;
use crate::provider::module::Module;
use crate::provider::refusal::Verdict;
use crate::token::grant::Grant;
use crate::token::lease::{Lease, LeaseTrial};

/// So many different parts are counted; a profile has not more.
const MOST_PARTS: usize = 256;

/// At most one line in this time, in milliseconds, says that a shadow differs.
const TOLD_EVERY: u64 = 60_000;

/// The instant of what is compared when the config is read.
const SAMPLED_AT: Now = Now::at(1_000, 1_700_000_000_000);

/// Hands out the same identifier each time, so that two profiles that draw in another order, or more of them, do not
/// differ in every one.
#[derive(Clone, Copy, Debug)]
pub struct SameId;

impl Ids for SameId {
    fn fresh(&mut self) -> Uuid {
        Uuid::from_u128(0x1234_5678_9abc_4def_8123_4567_89ab_cdef)
    }
}

/// The two modules of a shadowed route, with a lease of a stand-in for each.
pub struct Shadow {
    present: (Arc<Module>, Lease),
    candidate: (Arc<Module>, Lease),
    counts: Arc<ShadowCounts>,
}

impl fmt::Debug for Shadow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shadow").field("profile", &self.counts.profile).finish_non_exhaustive()
    }
}

/// A call as one of the two profiles dresses it.
#[derive(Debug)]
pub struct DressedCall<'a> {
    pub headers: &'a HeaderMap,
    pub path_and_query: &'a str,
    pub body: DressedBody<'a>,
}

/// The body of a call as one of the two profiles makes it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DressedBody<'a> {
    /// The profile leaves it as the client sent it.
    AsSent,
    /// The profile's fields are in it.
    Made(&'a [u8]),
    /// The profile's fields cannot be put into it.
    Unfit,
}

impl Shadow {
    /// A shadow of `present`. `counts` is shared by all routes of a provider.
    pub fn new(present: Arc<Module>, candidate: Arc<Module>, counts: Arc<ShadowCounts>) -> Self {
        let with_lease = |module: Arc<Module>| {
            let lease = stand_in_lease(&module);
            (module, lease)
        };
        Self { present: with_lease(present), candidate: with_lease(candidate), counts }
    }

    /// The modules, each with its lease, the present one first.
    pub fn sides(&self) -> [(&Module, &Lease); 2] {
        [&self.present, &self.candidate].map(|(module, lease)| (&**module, lease))
    }

    pub const fn counts(&self) -> &Arc<ShadowCounts> {
        &self.counts
    }

    /// Compares the verdicts on an answer: the part that differs. `body` is what the present profile read of it, `None` if
    /// that read nothing; the shadow reads no more, so that it changes nothing.
    pub fn verdict_difference(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        body: Option<&[u8]>,
        present: Verdict,
    ) -> Option<String> {
        let ((before, _), (after, _)) = (&self.present, &self.candidate);
        let wants = after.wants_body(status, headers);
        if wants && !before.wants_body(status, headers) {
            return Some("verdict on a body that only the shadow reads".to_owned());
        }
        let found = after.judge(status, headers, body.filter(|_| wants));
        (found != present).then(|| format!("verdict {} instead of {}", found.as_str(), present.as_str()))
    }

    /// Compares what no call shows: the requests for a token, and the signatures of a made-up call.
    pub fn unseen_differences(&self) -> Vec<String> {
        let ((before, _), (after, _)) = (&self.present, &self.candidate);
        let mut parts = login_differences(before, after);
        parts.extend(signature_differences(self.sides()));
        parts.dedup();
        parts
    }
}

/// Compares a call as both profiles dress it: the names of the parts that differ, sorted.
pub fn call_differences(present: &DressedCall<'_>, candidate: &DressedCall<'_>) -> Vec<String> {
    let mut parts = header_differences("header", present.headers, candidate.headers);
    parts.extend(query_differences("query", query(present.path_and_query), query(candidate.path_and_query)));
    let path = |target: &str| target.split('?').next().unwrap_or_default().to_owned();
    if path(present.path_and_query) != path(candidate.path_and_query) {
        parts.push("path".to_owned());
    }
    if present.body != candidate.body {
        parts.push("body".to_owned());
    }
    parts
}

fn query(target: &str) -> &str {
    target.split_once('?').map_or("", |(_, query)| query)
}

fn header_differences(what: &str, present: &HeaderMap, candidate: &HeaderMap) -> Vec<String> {
    let values = |headers: &HeaderMap, name: &http::HeaderName| -> Vec<HeaderValue> {
        headers.get_all(name).iter().cloned().collect()
    };
    let mut names: Vec<&http::HeaderName> = present.keys().chain(candidate.keys()).collect();
    names.sort_unstable_by_key(|name| name.as_str());
    names.dedup();
    let differing = names.into_iter().filter(|name| values(present, name) != values(candidate, name));
    differing.map(|name| format!("{what} {name}")).collect()
}

/// Compares queries and forms: pairs with `&` between them.
fn query_differences(what: &str, present: &str, candidate: &str) -> Vec<String> {
    let pairs = |text: &str| -> BTreeMap<String, Vec<String>> {
        let mut pairs: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            pairs.entry(name.to_owned()).or_default().push(value.to_owned());
        }
        pairs
    };
    let (before, after) = (pairs(present), pairs(candidate));
    let names = before.keys().chain(after.keys().filter(|name| !before.contains_key(*name)));
    names.filter(|name| before.get(*name) != after.get(*name)).map(|name| format!("{what} {name}")).collect()
}

/// The lease of a token that no bank has issued: with it, both profiles put the same token on a call.
fn stand_in_lease(module: &Module) -> Lease {
    if let Some(standing) = module.standing_lease(SAMPLED_AT) {
        return standing;
    }
    let captured = module.profile.answer.capture_names().into_iter().filter_map(|name| {
        let value = HeaderValue::from_str(&format!("captured-{name}")).ok()?;
        Some((name, value))
    });
    let grant = Grant {
        access_token: SecretString::from("stand-in-for-a-token"),
        life: Duration::from_secs(1),
        captured: captured.collect(),
        odd_type: None,
    };
    Lease {
        key: module.key(),
        generation: 0,
        credentials: module.credentials(&grant),
        issued: SAMPLED_AT,
        expires: Deadline::after(SAMPLED_AT, grant.life),
        fingerprint: grant.fingerprint(),
        trial: LeaseTrial::default(),
    }
}

fn login_differences(present: &Module, candidate: &Module) -> Vec<String> {
    let (before, after) = (made_requests(present), made_requests(candidate));
    let mut parts = Vec::new();
    if before.len() != after.len() {
        parts.push("number of token requests".to_owned());
    }
    // Counted from the end: the last one is the token request.
    for (from_end, (before, after)) in before.iter().rev().zip(after.iter().rev()).enumerate() {
        let what = match from_end {
            0 => "token request".to_owned(),
            _ => format!("token request {from_end} before the last"),
        };
        parts.extend(request_differences(&what, before, after));
    }
    parts
}

fn made_requests(module: &Module) -> Vec<TokenRequest> {
    sample_requests(module, &Vars::none(), &mut SameId, SAMPLED_AT)
}

fn request_differences(what: &str, present: &TokenRequest, candidate: &TokenRequest) -> Vec<String> {
    let mut parts = Vec::new();
    let mut compare = |part: &str, same: bool| {
        if !same {
            parts.push(format!("{what} {part}"));
        }
    };
    compare("method", present.method == candidate.method);
    compare("url", present.url.to_string() == candidate.url.to_string());
    parts.extend(header_differences(&format!("{what} header"), &present.headers, &candidate.headers));
    let query = |request: &TokenRequest| request.query.as_ref().map(|query| query.expose_secret().to_owned());
    let queries = [present, candidate].map(|request| SecretString::from(query(request).unwrap_or_default()));
    let [before, after] = &queries;
    parts.extend(query_differences(&format!("{what} query"), before.expose_secret(), after.expose_secret()));
    let (before, after) = (present.body.expose_secret(), candidate.body.expose_secret());
    if before != after {
        parts.extend(body_differences(&format!("{what} body"), before, after));
    }
    parts
}

/// Names the fields in which two bodies differ, which are forms or JSON objects; else the body as a whole.
fn body_differences(what: &str, present: &[u8], candidate: &[u8]) -> Vec<String> {
    let object = |body: &[u8]| serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(body).ok();
    let form =
        |body: &[u8]| std::str::from_utf8(body).ok().filter(|text| !text.starts_with(['{', '<'])).map(str::to_owned);
    let mut parts = match (object(present), object(candidate), form(present), form(candidate)) {
        (Some(before), Some(after), ..) => {
            let names = before.keys().chain(after.keys().filter(|name| !before.contains_key(*name)));
            names.filter(|name| before.get(*name) != after.get(*name)).map(|name| format!("{what} {name}")).collect()
        }
        (_, _, Some(before), Some(after)) => query_differences(what, &before, &after),
        (..) => Vec::new(),
    };
    if parts.is_empty() {
        // Another order, another form.
        parts.push(what.to_owned());
    }
    parts
}

/// Compares what both would sign of a made-up call.
fn signature_differences(sides: [(&Module, &Lease); 2]) -> Vec<String> {
    let [before, after] = sides.map(|(module, _)| signatures_of(module));
    let (Ok(before), Ok(after)) = (&before, &after) else {
        // One that cannot be made for this call is compared with nothing.
        return if before.is_ok() == after.is_ok() { Vec::new() } else { vec!["signatures".to_owned()] };
    };
    let mut places: Vec<&str> = before.iter().chain(after).map(|one| one.place.as_str()).collect();
    places.sort_unstable();
    places.dedup();
    let of = |side: &[ForeseenSignature], place: &str| -> Vec<(String, String, String)> {
        let here = side.iter().filter(|one| one.place == place);
        here.map(|one| (one.form.to_owned(), one.algorithm.to_string(), one.text.clone())).collect()
    };
    let differing = places.into_iter().filter(|place| of(before, place) != of(after, place));
    differing.map(|place| format!("signature {place}")).collect()
}

fn signatures_of(module: &Module) -> Result<Vec<ForeseenSignature>, ()> {
    let (mut stand_in, lease) = StandIn::of(module, module.key());
    let vars = Vars::none();
    let with = CallInputs { lease: &lease, vars: &vars, now: SAMPLED_AT };
    let mut headers = HeaderMap::new();
    headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let sent = module.dress(&mut headers, with, &mut stand_in);
    stand_in.note(&sent);
    let call = SampleCall {
        method: &Method::POST,
        authority: "bank.example",
        path_and_query: "/sample?a=1",
        headers,
        body: b"{\"sample\":1}",
    };
    module.foresee(call, with, &sent, &mut stand_in).map(|content| content.signatures).map_err(|_| ())
}

/// What was found of a provider's shadow since the config was read, shared by all threads.
#[derive(Debug)]
pub struct ShadowCounts {
    profile: Arc<str>,
    /// The parts that no call shows.
    unseen: OnceLock<Vec<String>>,
    compared: AtomicU64,
    differing: AtomicU64,
    parts: Mutex<BTreeMap<String, u64>>,
    /// When the last line was told, in milliseconds since the boot; 0: never.
    told: AtomicU64,
}

impl ShadowCounts {
    /// Nothing yet. `profile` is the shadow's name in the config.
    pub fn new(profile: Arc<str>) -> Self {
        Self {
            profile,
            unseen: OnceLock::new(),
            compared: AtomicU64::new(0),
            differing: AtomicU64::new(0),
            parts: Mutex::default(),
            told: AtomicU64::new(0),
        }
    }

    /// Returns the name of the shadow's profile in the config.
    pub const fn profile(&self) -> &Arc<str> {
        &self.profile
    }

    /// Notes the parts that no call shows. The first word counts.
    pub fn set_unseen(&self, parts: Vec<String>) {
        let _ = self.unseen.set(parts);
    }

    /// The parts that no call shows: of the token request, and signatures.
    pub fn unseen(&self) -> &[String] {
        self.unseen.get().map(Vec::as_slice).unwrap_or_default()
    }

    /// Notes a call that was dressed by both, and the parts that differ.
    pub fn note_call(&self, parts: &[String]) {
        self.compared.fetch_add(1, Ordering::Relaxed);
        if !parts.is_empty() {
            self.differing.fetch_add(1, Ordering::Relaxed);
        }
        self.note_parts(parts);
    }

    /// Notes differing parts of a call that was noted, such as the verdict on its answer.
    pub fn note_parts(&self, parts: &[String]) {
        if parts.is_empty() {
            return;
        }
        let mut known = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        for part in parts {
            if known.len() < MOST_PARTS || known.contains_key(part) {
                *known.entry(part.clone()).or_default() += 1;
            }
        }
    }

    /// Returns whether a line about it is due: at most one a minute is.
    pub fn is_line_due(&self, now: Now) -> bool {
        let told = self.told.load(Ordering::Relaxed);
        let now = now.boot.max(1);
        let is_due = told == 0 || now.saturating_sub(told) >= TOLD_EVERY;
        is_due && self.told.compare_exchange(told, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Calls that were compared, and those of them that differ.
    pub fn calls(&self) -> (u64, u64) {
        (self.compared.load(Ordering::Relaxed), self.differing.load(Ordering::Relaxed))
    }

    /// The parts that differed, with their numbers.
    pub fn parts(&self) -> BTreeMap<String, u64> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// One line with the parts that differed so far and their numbers.
    pub fn summary(&self) -> String {
        let mut text = String::new();
        for (part, count) in self.parts() {
            let _ = write!(text, "{}{part} ({count})", if text.is_empty() { "" } else { ", " });
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::origin::BaseUrl;
    use crate::provider::module::{CallAs, Wiring};
    use crate::provider::profile::Profile;
    use crate::syntax::{Diagnostics, Fields, FromNode, Node, SourceText};

    const PRESENT: &str = r#"
        name = "bank"
        [settings.id]
        [settings.secret]
        secret = true
        [ids.request]
        kind = "uuid"
        [token.request]
        path = "/token"
        encoding = "form"
        body = { id = "{id}", secret = "{secret}" }
        [token.response]
        access_token = "/token"
        [request]
        inject = [
          { header = "authorization", value = "Bearer {token}" },
          { header = "x-id", value = "{id}" },
          { header = "x-request", value = "{id.request}" },
          { query = "key", value = "{id}" },
        ]
        [[refusal.match]]
        status = 401
        json = [{ pointer = "/error", equals = "expired" }]
    "#;

    fn module(profile: &str) -> Arc<Module> {
        let report = Diagnostics::new();
        let parsed = Profile::parse(&SourceText::new("p", profile), &report);
        let parsed = parsed.unwrap_or_else(|| panic!("{:?}", report.into_diagnostics()));
        let report = Diagnostics::new();
        let node = Node::parse(&SourceText::new("s", "id = \"me\"\nsecret = \"hush\"\n"), &report);
        let fields = Fields::new(&node, "settings", &report);
        let read = |node: &Node, report: &Diagnostics| {
            String::from_node(node, report).map(|text| (SecretString::from(text), false))
        };
        let settings = parsed.read_settings(&fields, &read).unwrap();
        fields.finish();
        let wiring = Wiring {
            name: "bank",
            base_url: BaseUrl::parse("https://bank.example").unwrap(),
            token_url: None,
            default_ttl: None,
            consent: None,
            caller: CallAs::Application,
        };
        Arc::new(Module::build(&parsed, settings, wiring).unwrap())
    }

    fn shadow(of: &str) -> Shadow {
        Shadow::new(module(PRESENT), module(of), Arc::new(ShadowCounts::new("ours/bank".into())))
    }

    /// Dresses a call by both, as a worker does.
    fn dressed(shadow: &Shadow) -> Vec<String> {
        let (vars, now) = (Vars::none(), Now::at(5, 5_000));
        let sides = shadow.sides().map(|(module, lease)| {
            let mut headers = HeaderMap::new();
            let with = CallInputs { lease, vars: &vars, now };
            let sent = module.dress(&mut headers, with, &mut SameId);
            (headers, module.target("/x?mine=1", with, &sent, &mut SameId).unwrap_or("/x?mine=1".to_owned()))
        });
        let [before, after] = &sides;
        let call = |(headers, target): &'_ (HeaderMap, String)| (headers.clone(), target.clone());
        let (before, after) = (call(before), call(after));
        call_differences(
            &DressedCall { headers: &before.0, path_and_query: &before.1, body: DressedBody::AsSent },
            &DressedCall { headers: &after.0, path_and_query: &after.1, body: DressedBody::AsSent },
        )
    }

    #[test]
    fn the_same_profile_differs_in_nothing() {
        let shadow = shadow(PRESENT);
        assert_eq!(dressed(&shadow), [""; 0]);
        assert_eq!(shadow.unseen_differences(), [""; 0]);
    }

    #[test]
    fn parts_that_differ_are_named_and_no_value_is() {
        let other = PRESENT
            .replace("\"x-id\", value = \"{id}\"", "\"x-id\", value = \"{id}-2\"")
            .replace("Bearer {token}", "Token {token}")
            .replace("{ header = \"x-request\", value = \"{id.request}\" }", "{ header = \"x-new\", value = \"{id.request}\" }, { header = \"x-request\", value = \"{id.request}\" }")
            .replace("query = \"key\"", "query = \"k\"");
        let shadow = shadow(&other);
        let found = dressed(&shadow);
        assert_eq!(found, ["header authorization", "header x-id", "header x-new", "query key", "query k"]);
        assert!(!format!("{shadow:?}").contains("hush"));
    }

    #[test]
    fn the_token_request_is_compared_without_being_sent() {
        let other = PRESENT
            .replace("path = \"/token\"\n", "path = \"/v2/token\"\n        headers = { x-new = \"1\" }\n")
            .replace("secret = \"{secret}\" }", "secret = \"{secret}\", scope = \"all\" }");
        assert_eq!(
            shadow(&other).unseen_differences(),
            ["token request url", "token request header x-new", "token request body scope"]
        );
        let json = PRESENT.replace("encoding = \"form\"", "encoding = \"json\"");
        let found = shadow(&json).unseen_differences();
        assert!(found.contains(&"token request body".to_owned()), "{found:?}");
    }

    #[test]
    fn verdicts_are_compared_over_what_the_present_profile_reads() {
        let headers = HeaderMap::new();
        let status = StatusCode::UNAUTHORIZED;
        let body = br#"{"error":"stale"}"#;
        let other = shadow(&PRESENT.replace("equals = \"expired\"", "equals = [\"expired\", \"stale\"]"));
        let judged = |shadow: &Shadow| {
            let (module, _) = shadow.sides()[0];
            let body = Some(&body[..]).filter(|_| module.wants_body(status, &headers));
            let present = module.judge(status, &headers, body);
            shadow.verdict_difference(status, &headers, body, present)
        };
        assert_eq!(judged(&other).as_deref(), Some("verdict refused instead of unknown"));
        assert_eq!(judged(&shadow(PRESENT)), None);
        let wider = shadow(&PRESENT.replace("status = 401\n", "status = [401, 403]\n"));
        let status = StatusCode::FORBIDDEN;
        let found = wider.verdict_difference(status, &headers, None, Verdict::Accepted);
        assert_eq!(found.as_deref(), Some("verdict on a body that only the shadow reads"));
    }

    #[test]
    fn counts_are_bounded_and_a_line_is_told_once_a_minute() {
        let counts = ShadowCounts::new("ours/bank".into());
        counts.note_call(&[]);
        counts.note_call(&["header a".to_owned(), "header b".to_owned()]);
        counts.note_parts(&["header b".to_owned()]);
        assert_eq!((counts.calls(), counts.summary().as_str()), ((2, 1), "header a (1), header b (2)"));
        for n in 0..1_000 {
            counts.note_parts(&[format!("header {n}")]);
        }
        assert_eq!(counts.parts().len(), MOST_PARTS);
        let at = |boot| Now::at(boot, 0);
        assert!(counts.is_line_due(at(0)) && !counts.is_line_due(at(59_000)));
        assert!(counts.is_line_due(at(60_001)) && !counts.is_line_due(at(60_002)));
    }
}
