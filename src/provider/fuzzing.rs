//! Properties of every profile, and of every response of a bank, checked by fuzzing.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::Value;
use zeroize::Zeroizing;

use super::challenge::{self, BEARER, KIN};
use super::condition::may_hold_json;
use super::consent::{CompiledConsent, ConsentWiring};
use super::document::{self, DocumentFormat};
use super::document_error::DocumentError;
use super::json;
use super::{CallAs, CallInputs, FileContent, LoginProgress, Module, Profile, ReadValue, StandIn, Verdict, Wiring};
use crate::base::id::CountingIds;
use crate::base::origin::BaseUrl;
use crate::base::secret::{ExposeSecret, SecretString, is_wordy_secret};
use crate::base::time::Now;
use crate::base::vars::Vars;
use crate::syntax::{Diagnostic, Diagnostics, Fields, FromNode, Node, SourceText};
use crate::token::consent::RotationRefusal;
use crate::token::failure::Failure;
use crate::token::grant::{CallPlace, Grant, LIFE_CAP, UserGrant};

/// The secret of every module here, as the conversations in `tests/fixtures` have it.
const SECRET: &str = "s3cr3t-s3cr3t";

/// When token requests went out, and when their answers were there.
const SENT: Now = Now::at(77_000, 1_550_131_385_000);
const HERE: Now = Now::at(77_020, 1_550_131_385_020);

/// Longer texts of a stranger, in bytes, are never told.
const LONGEST_TOLD: usize = 64;

/// The settings of the built-in profiles that are fuzzed.
const SETTINGS: [(&str, &str); 6] = [
    ("abbeycross", "client_id = \"abx\"\nclient_secret = \"s3cr3t-s3cr3t\""),
    (
        "fapi2",
        "client_id = \"app\"\nissuer = \"https://login.bank.example\"\nsigning_algorithm = \"ES256\"\n\
         signing_key = { file = \"ec.pem\", id = \"k1\" }\ndpop_key = { file = \"ec.pem\" }",
    ),
    ("meed", "client_id = \"meed_0\"\nclient_secret = \"s3cr3t-s3cr3t\""),
    ("oauth2", "client_id = \"app\"\nclient_secret = \"s3cr3t-s3cr3t\"\nscope = \"payments offline\""),
    ("rakbank", "client_id = \"rak\"\nclient_secret = \"s3cr3t-s3cr3t\"\nscope = \"internal_transfers\""),
    ("scb", "application_key = \"l7-key\"\napplication_secret = \"s3cr3t-s3cr3t\""),
];

/// A profile whose token endpoint answers in XML; for all else it is `oauth2`.
const XML: &str = r#"
name = "xml"
extends = "oauth2"
[token]
codes = ["/Answer/Error/@code"]
[token.response]
format = "xml"
access_token = ["/Answer/Token/#text", "/Answer/Token"]
token_type = "/Answer/Token/@type"
expires_in = "/Answer/Life"
captures = { node = "/Answer/Node/0" }
[[token.failure]]
json = [{ pointer = "/Answer/Error/@code", equals = "E1" }]
class = "fatal"
[consent.response]
refresh_token = "/Answer/Refresh"
"#;

/// The built-in profiles as modules, with users where they know any; and [`XML`].
static BANKS: LazyLock<Vec<(&str, Module)>> = LazyLock::new(|| {
    let build = |name: &'static str| {
        let like = if name == "xml" { "oauth2" } else { name };
        let (_, settings) = SETTINGS.iter().find(|(known, _)| *known == like).expect("settings for each profile");
        let own = || Profile::parse(&SourceText::new("xml.toml", XML), &Diagnostics::new());
        let profile = Profile::builtin(name).or_else(own).expect("a built-in profile");
        (name, module(&profile, settings).expect("good settings").expect("a good module"))
    };
    SETTINGS.iter().map(|(name, _)| *name).chain(["xml"]).map(build).collect()
});

fn url(text: &str) -> BaseUrl {
    BaseUrl::parse(text).expect("a good URL")
}

/// Values as they stand there, and one key in every file.
struct Literals;

impl ReadValue for Literals {
    fn value(&self, node: &Node, report: &Diagnostics) -> Option<(SecretString, bool)> {
        String::from_node(node, report).map(|text| (SecretString::from(text), false))
    }

    fn file(&self, _: &Node, _: FileContent, _: &Diagnostics) -> Option<Zeroizing<Vec<u8>>> {
        Some(Zeroizing::new(include_bytes!("../../tests/fixtures/signing/p256-sec1.pem").to_vec()))
    }

    fn unix_seconds(&self) -> u64 {
        0
    }
}

/// A profile with settings; `None` where they are not what it declares.
fn module(profile: &Arc<Profile>, settings: &str) -> Option<Result<Module, String>> {
    let report = Diagnostics::new();
    let node = Node::parse(&SourceText::new("settings", settings), &report);
    let fields = Fields::new(&node, "settings", &report);
    let settings = profile.read_settings(&fields, &Literals);
    fields.finish();
    let params = profile.read_consent_params(None, &report);
    if report.errors() > 0 || profile.knows_users() && params.is_none() {
        return None;
    }
    let consent = params.map(|params| ConsentWiring {
        public_url: url("https://gateway.example"),
        authorize_url: profile.wants_authorize_url().then(|| url("https://login.bank.example/authorize")),
        par_url: (profile.name() == "fapi2").then(|| url("https://login.bank.example/par")),
        params,
    });
    let wiring = Wiring {
        name: "bank",
        base_url: url("https://bank.example/api"),
        token_url: match &profile.plan {
            Some(plan) if plan.own_url(settings.as_ref()?, &url("https://bank.example/api")).is_none() => {
                Some(url("https://login.bank.example/token").into())
            }
            Some(_) | None => None,
        },
        default_ttl: None,
        consent,
        caller: CallAs::Application,
    };
    Some(Module::build(profile, settings?, wiring))
}

/// Checks the text of a profile, and the module that is built from it.
pub(crate) fn profile(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let source = SourceText::new("bank.toml", text);
    let read = || {
        let report = Diagnostics::new();
        let profile = Profile::parse(&source, &report);
        let errors = report.errors();
        let told = report.into_diagnostics().iter().map(told).collect::<String>();
        (profile, errors, told)
    };
    let ((profile, errors, told), (again, ..)) = (read(), read());
    assert_eq!(profile.is_some(), errors == 0, "there is a profile exactly when there is no mistake: {told}");
    let Some(profile) = profile else { return };
    assert!(again.is_some_and(|again| again.digest == profile.digest), "the same text, the same profile");
    // A value for each setting that must be given.
    let value = |at: usize, pattern: Option<&str>| match pattern {
        None if at == 0 => SECRET.to_owned(),
        None => format!("{SECRET}-{at}"),
        Some(pattern) if pattern.contains("post") => "post".to_owned(),
        Some(_) => "s3cr3t".to_owned(),
    };
    let declared = profile.declared();
    let required = declared.iter().filter(|setting| setting.required && !setting.table).enumerate();
    let settings: String = required
        .map(|(at, setting)| format!("{} = {:?}\n", setting.name, value(at, setting.pattern.as_deref())))
        .collect();
    let Some(built) = module(&profile, &settings) else { return };
    let module = match built {
        Ok(module) => module,
        Err(told) => return assert!(text.contains("s3cr3t") || !told.contains("s3cr3t"), "a secret is told: {told}"),
    };
    let request = LoginProgress::default().request(&module, &Vars::none(), &mut CountingIds::default(), SENT);
    assert_eq!(request.is_none(), module.is_standing(), "a static credential, and no other, needs no request");
    let headers = request.as_ref().map(|request| &request.headers);
    let shown = format!("{module:?} {request:?} {headers:?}");
    assert!(text.contains("s3cr3t") || !shown.contains("s3cr3t"), "a secret is shown: {shown}");
    let (mut stand_in, lease) = StandIn::of(&module, module.key());
    assert!(lease.credentials.iter().all(|(place, value)| is_guarded(&module, place) && value.is_sensitive()));
    let mut headers = HeaderMap::new();
    let with = CallInputs { lease: &lease, vars: &Vars::none(), now: SENT };
    let ids = module.dress(&mut headers, with, &mut stand_in);
    let target = module.target("/a?b=c", with, &ids, &mut stand_in);
    assert!(target.is_none_or(|target| target.starts_with("/a") && target.bytes().all(|b| b.is_ascii_graphic())));
    let dressed: Vec<HeaderName> = headers.keys().cloned().collect();
    module.redress(&mut headers, with, &ids, &mut stand_in);
    assert_eq!(headers.keys().cloned().collect::<Vec<_>>(), dressed, "a replay carries what the first call did");
    for status in [200, 302, 400, 401, 403, 404, 429, 500, 503] {
        for body in [None, Some(&b""[..]), Some(b"{}"), Some(b"{\"error\":\"invalid_token\"}")] {
            let status = StatusCode::from_u16(status).expect("a status");
            is_judged(&module, status, &HeaderMap::new(), body);
        }
    }
}

fn told(found: &Diagnostic) -> String {
    assert!(!found.title.is_empty() && found.span.start <= found.span.end);
    format!("{}\n{}\n", found.render(false), found.one_line())
}

/// An answer as text: the profile and the status, header fields, an empty line, the body.
struct RawResponse<'a> {
    module: &'static Module,
    status: StatusCode,
    headers: HeaderMap,
    body: &'a [u8],
}

impl<'a> RawResponse<'a> {
    fn read(data: &'a [u8]) -> Option<Self> {
        let (head, body) = match data.windows(2).position(|pair| pair == b"\n\n") {
            Some(at) => (&data[..at], &data[at + 2..]),
            None => (data, &b""[..]),
        };
        let mut lines = std::str::from_utf8(head).ok()?.split('\n');
        let (name, status) = lines.next()?.split_once(' ')?;
        let (_, module) = BANKS.iter().find(|(known, _)| *known == name)?;
        let mut headers = HeaderMap::new();
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value.trim())) {
                headers.append(name, value);
            }
        }
        Some(Self { module, status: StatusCode::from_bytes(status.as_bytes()).ok()?, headers, body })
    }

    /// Its body as JSON and in the format of the module's token endpoint, content coding and charset undone.
    fn read_all(&self) -> Vec<Value> {
        let formats = [DocumentFormat::Json, self.module.profile.answer.format];
        formats.into_iter().filter_map(|format| document::read(format, &self.headers, self.body).ok()).collect()
    }
}

/// The answer of a token endpoint: to the application's request, and to those that a user's consent makes.
pub(crate) fn token_answer(data: &[u8]) {
    let Some(answer) = RawResponse::read(data) else { return };
    let RawResponse { module, status, ref headers, body } = answer;
    let read = || {
        let answer = LoginProgress::default().answer(module, status, headers, body, SENT, HERE);
        answer.map(|grant| grant.expect("no built-in profile has a step before its token request"))
    };
    match (read(), read()) {
        (Ok(grant), Ok(again)) => {
            is_granted(&answer, &grant);
            assert_eq!(grant.access_token.expose_secret(), again.access_token.expose_secret());
            assert_eq!(grant.life, again.life);
            carries(module, &grant);
        }
        (Err(failure), Err(again)) => {
            assert_eq!(failure, again);
            is_told_well(&answer, &failure);
        }
        (Ok(_), Err(_)) | (Err(_), Ok(_)) => panic!("the same answer, another result"),
    }
    let Some(consent) = module.consent() else { return };
    match consent.authorize_answer(status, headers, body, SENT, HERE) {
        Ok(link) => {
            assert!(status.is_success() && says(&answer, &link), "nobody said {link:?}");
            assert!(link.len() <= 4096 && link.bytes().all(|byte| byte.is_ascii_graphic()));
            let scheme = link.split(':').next().unwrap_or_default().to_ascii_lowercase();
            assert!(!["data", "file", "http", "javascript"].contains(&scheme.as_str()), "{link}");
        }
        Err(failure) => is_told_well(&answer, &failure),
    }
    for read in [CompiledConsent::exchange_answer, CompiledConsent::refresh_answer] {
        match read(consent, status, headers, body, SENT, HERE) {
            Ok(UserGrant { grant, refresh }) => {
                is_granted(&answer, &grant);
                for token in refresh.iter().map(|refresh| refresh.token.expose_secret()) {
                    assert!(!token.is_empty() && says(&answer, token), "nobody said this refresh token");
                }
            }
            Err(RotationRefusal::Dead(told)) => is_harmless(&answer, &told),
            Err(RotationRefusal::Failed(failure)) => is_told_well(&answer, &failure),
            Err(RotationRefusal::Unusable(failure, refresh)) => {
                let token = refresh.token.expose_secret();
                assert!(status.is_success() && !token.is_empty(), "a refresh token of a failure");
                assert!(says(&answer, token), "nobody said this refresh token");
                is_told_well(&answer, &failure);
            }
        }
    }
    is_called_back(consent, body);
}

fn is_granted(answer: &RawResponse<'_>, grant: &Grant) {
    assert!(answer.status.is_success(), "a token with {}", answer.status);
    let token = grant.access_token.expose_secret();
    assert!(!token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()), "no header carries {token:?}");
    assert!(says(answer, token), "nobody said this token");
    assert!(!grant.life.is_zero() && grant.life <= LIFE_CAP, "it lives {:?}", grant.life);
    assert!(grant.captured.iter().all(|(_, value)| value.is_sensitive()));
    grant.odd_type.iter().for_each(|told| is_harmless(answer, told));
    assert!(token.len() < 24 || !format!("{grant:?}").contains(token), "the token is shown");
}

/// The application's token is put on calls, and is what no client may put there.
fn carries(module: &Module, grant: &Grant) {
    let token = grant.access_token.expose_secret();
    let credentials = module.credentials(grant);
    assert!(credentials.iter().all(|(place, value)| value.is_sensitive() && is_guarded(module, place)));
    let held = |value: &HeaderValue| value.to_str().is_ok_and(|value| value.ends_with(token));
    assert!(credentials.iter().any(|(_, value)| held(value)), "no header holds the token");
}

/// Returns whether no client can put a value at this place.
fn is_guarded(module: &Module, place: &CallPlace) -> bool {
    match place {
        CallPlace::Header(name) => module.strips(name),
        // Those of the client are taken off as ours are put on.
        CallPlace::Body(_) | CallPlace::Cookie(_) | CallPlace::Query(_) | CallPlace::Signature => true,
    }
}

fn is_told_well(answer: &RawResponse<'_>, failure: &Failure) {
    assert!(failure.retry_after.is_none_or(|after| after <= Duration::from_secs(3600)));
    is_harmless(answer, &failure.inside);
}

/// A message holds no secret, and no text of a stranger but words.
fn is_harmless(answer: &RawResponse<'_>, told: &str) {
    assert!(!told.contains(SECRET), "a secret is told: {told}");
    assert!(!told.chars().any(char::is_control) && told.len() < 1024, "{told:?}");
    let body = answer.read_all();
    let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    for text in body.iter().flat_map(strings).filter(|text| text.len() >= 24 && plain(text)) {
        let known = is_wordy_secret(text) || uuid::Uuid::try_parse(text).is_ok();
        assert!(known && text.len() <= LONGEST_TOLD || !told.contains(text), "a stranger's text is told: {told}");
    }
}

/// All texts in a JSON value.
fn strings(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) => vec![text],
        Value::Array(items) => items.iter().flat_map(strings).collect(),
        Value::Object(members) => members.values().flat_map(strings).collect(),
        Value::Bool(_) | Value::Null | Value::Number(_) => Vec::new(),
    }
}

/// Returns whether a response has this text in its body.
fn says(answer: &RawResponse<'_>, wanted: &str) -> bool {
    answer.read_all().iter().any(|value| strings(value).contains(&wanted))
}

/// A body, taken for what a browser brings back: its order does not count, and nothing of it is shown but words.
fn is_called_back(consent: &CompiledConsent, query: &[u8]) {
    let Ok(query) = std::str::from_utf8(query) else { return };
    let turned = query.split('&').rev().collect::<Vec<_>>().join("&");
    match (consent.callback(query, HERE), consent.callback(&turned, HERE)) {
        (Ok(one), Ok(other)) => {
            assert!(one.state == other.state && one.error == other.error);
            assert_eq!(one.code.is_some(), other.code.is_some());
            assert!(one.error.is_none_or(|error| error.is_empty() || is_wordy_secret(&error)));
        }
        (Err(_), Err(_)) => {}
        (Ok(_), Err(_)) | (Err(_), Ok(_)) => panic!("another order, another result: {query:?}"),
    }
}

/// A bank's answer to a call, and what it means for the token.
pub(crate) fn refusal(data: &[u8]) {
    let Some(RawResponse { module, status, headers, body }) = RawResponse::read(data) else { return };
    let wanted = module.wants_body(status, &headers);
    let verdict = is_judged(module, status, &headers, wanted.then_some(body));
    if !wanted || headers.contains_key(CONTENT_LENGTH) {
        return;
    }
    // A refusal that is proven without the body must be proven with it, too: a body that is cut off is one that was not
    // read.
    let unread = is_judged(module, status, &headers, None);
    let proven = unread == Verdict::Refused && may_hold_json(&headers);
    assert!(!proven || verdict == Verdict::Refused, "the body takes the proof back");
    // In another charset than UTF-8 the same JSON is written in other bytes.
    let in_utf8 = !headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().contains(&b'='));
    if let (Ok(value), true) = (json::read(body), in_utf8) {
        let written = serde_json::to_vec(&value).expect("it was read");
        for same in [written.clone(), [b" \n", &*written, b"\t"].concat()] {
            assert_eq!(is_judged(module, status, &headers, Some(&same)), verdict, "the same JSON, another verdict");
        }
    }
}

/// Only a 4xx refuses a token of a built-in profile, by what its head or its whole body says.
fn is_judged(module: &Module, status: StatusCode, headers: &HeaderMap, body: Option<&[u8]>) -> Verdict {
    let verdict = module.judge(status, headers, body);
    assert_eq!(verdict, module.judge(status, headers, body), "the same answer, another verdict");
    // A profile of one's own may look at any header field, and know codes beside other statuses.
    let built_in = BANKS.iter().any(|(_, bank)| std::ptr::eq(bank, module));
    match verdict {
        Verdict::Accepted => {}
        Verdict::Refused => {
            assert!(status.is_client_error() || !built_in, "{status} refuses a token");
            assert!(!status.is_redirection(), "{status} refuses a token");
            let by_head = !challenge::errors(headers, &[&KIN[..], &["DPoP"]].concat()).is_empty();
            let length = || headers.get(CONTENT_LENGTH)?.to_str().ok()?.trim().parse::<u64>().ok();
            let by_body = match body {
                Some(body) => matches!(document::read_json(headers, body), Ok(_) | Err(DocumentError::Empty)),
                None => length() == Some(0) || !may_hold_json(headers),
            };
            assert!(by_head || by_body || !built_in, "nothing proves that the token was refused");
        }
        Verdict::Challenged => {
            assert!(status.is_client_error(), "{status} asks for nothing");
            let has_nonce = status == StatusCode::UNAUTHORIZED && headers.contains_key("dpop-nonce");
            assert!(has_nonce || !built_in, "no nonce to send");
        }
        Verdict::Unknown => assert_eq!(status, StatusCode::UNAUTHORIZED),
    }
    assert!(status.is_client_error() || !built_in || !module.wants_body(status, headers));
    verdict
}

/// The values of `WWW-Authenticate` fields, a line each.
pub(crate) fn challenge(data: &[u8]) {
    let errors = |values: &[&HeaderValue]| {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(WWW_AUTHENTICATE, (*value).clone());
        }
        challenge::errors(&headers, &[BEARER])
    };
    let joined = |before: &[u8], value: &HeaderValue, behind: &[u8]| {
        HeaderValue::from_bytes(&[before, value.as_bytes(), behind].concat()).expect("both can stand in a header")
    };
    let values: Vec<HeaderValue> =
        data.split(|byte| *byte == b'\n').filter_map(|line| HeaderValue::from_bytes(line).ok()).collect();
    let mut all = Vec::new();
    for value in &values {
        let found = errors(&[value]);
        let lower = value.as_bytes().to_ascii_lowercase();
        let has = |word: &[u8]| lower.windows(word.len()).any(|part| part == word);
        assert!(found.is_empty() || has(b"bearer") && has(b"error"), "{value:?} says nothing of {found:?}");
        if let Some(read) = by_the_book(value.as_bytes()) {
            assert_eq!(found, read, "{value:?} is well-formed");
        }
        let behind = joined(b"Basic realm=\"x\", ", value, b"");
        assert_eq!(errors(&[&behind]), found, "another challenge before it changes nothing");
        let before = joined(b"", value, b", Bearer error=\"x\"");
        assert!(errors(&[&before]).starts_with(&found), "another challenge behind it takes nothing away");
        all.extend(found);
    }
    assert_eq!(errors(&values.iter().collect::<Vec<_>>()), all, "fields are read one by one");
}

/// The errors of all Bearer challenges of a field that RFC 9110 section 11.6.1 allows; `None` for any other.
fn by_the_book(field: &[u8]) -> Option<Vec<String>> {
    let token = |text: &[u8]| -> usize {
        text.iter().take_while(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b)).count()
    };
    let spaces = |text: &[u8]| text.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    // The name and the value of an auth-param that begins here, and its length.
    let param = |text: &[u8]| -> Option<(Vec<u8>, Vec<u8>, usize)> {
        let name = token(text);
        let equals = name + spaces(text.get(name..)?);
        if name == 0 || text.get(equals) != Some(&b'=') {
            return None;
        }
        let start = equals + 1 + spaces(text.get(equals + 1..)?);
        if text.get(start) != Some(&b'"') {
            let length = token(text.get(start..)?);
            let value = text.get(start..start + length)?.to_vec();
            return (length > 0).then(|| (text[..name].to_vec(), value, start + length));
        }
        let (mut value, mut at) = (Vec::new(), start + 1);
        loop {
            match text.get(at)? {
                b'"' => return Some((text[..name].to_vec(), value, at + 1)),
                b'\\' => {
                    value.push(*text.get(at + 1)?);
                    at += 2;
                }
                byte => {
                    value.push(*byte);
                    at += 1;
                }
            }
        }
    };
    let mut found = Vec::new();
    // The scheme of the challenge that is being read, and whether it may have parameters.
    let mut scheme: Option<(Vec<u8>, bool)> = None;
    let mut rest = field;
    loop {
        rest = &rest[spaces(rest)..];
        if !rest.is_empty() && rest[0] != b',' {
            let mut here = param(rest);
            if here.is_none() {
                let length = token(rest);
                let (name, behind) = rest.split_at_checked(length).filter(|(name, _)| !name.is_empty())?;
                let gap = behind.iter().take_while(|byte| **byte == b' ').count();
                scheme = Some((name.to_ascii_lowercase(), true));
                rest = &behind[gap..];
                let ends = rest.is_empty() || rest[0] == b',';
                if !ends && gap == 0 {
                    return None;
                }
                here = if ends { None } else { param(rest) };
                if !ends && here.is_none() {
                    let is_token68 = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(byte);
                    let letters = rest.iter().take_while(|byte| is_token68(byte)).count();
                    let length = letters + rest[letters..].iter().take_while(|byte| **byte == b'=').count();
                    if letters == 0 {
                        return None;
                    }
                    rest = &rest[length..];
                    scheme = Some((Vec::new(), false));
                }
            }
            if let Some((name, value, length)) = here {
                let (scheme, _) = scheme.as_ref().filter(|(_, params)| *params)?;
                if scheme == b"bearer" && name.eq_ignore_ascii_case(b"error") {
                    found.push(String::from_utf8_lossy(&value).into_owned());
                }
                rest = &rest[length..];
            }
            rest = &rest[spaces(rest)..];
        }
        match rest.split_first() {
            None => return Some(found),
            Some((b',', behind)) => rest = behind,
            Some(_) => return None,
        }
    }
}
