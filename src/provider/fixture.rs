//! Playing conversations: the tests of a profile, which are data like itself.
//!
//! A conversation gives settings, then says what must happen: the token request that is made, what each token answer
//! becomes, how a call is dressed and replayed, what each answer of the bank means. Identifiers count up from one in
//! each step; the token is `first-token`, on the replay, a second later, `second-token`.

mod consent;
mod conversation;
mod webhook;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::thread::Thread;
use std::time::Duration;

use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderValue, Method};
use zeroize::Zeroizing;

use self::conversation::{
    ClientCall, Conversation, ExpectedRequest, FailedAnswer, LoginStepAnswer, ResourceAnswer, TokenAnswer, body,
    duration, headers, maybe_duration, status,
};
use crate::base::id::CountingIds;
use crate::base::origin::{BaseUrl, EndpointUrl};
use crate::base::secret::{ExposeSecret, SecretString};
use crate::base::time::{Deadline, Now, Within};
use crate::base::vars::Vars;
use crate::provider::compiled_jose::JoseBody;
use crate::provider::compiled_verification::SignedHead;
use crate::provider::consent::ConsentWiring;
use crate::provider::exchange::TokenRequest;
use crate::provider::injection::{CallInputs, SentIds};
use crate::provider::login::LoginProgress;
use crate::provider::module::{CallAs, Module, UnsignedCall, Wiring};
use crate::provider::profile::Profile;
use crate::provider::refusal::Verdict;
use crate::provider::setting::{FileContent, ReadValue, Settings};
use crate::signing::jwe::{Entropy, NoEntropy};
use crate::syntax::{Diagnostics, Fields, FromNode, Kind, Node, SourceText};
use crate::token::failure::{Failure, FailureCause};
use crate::token::grant::Grant;
use crate::token::lease::{Lease, LeaseTrial};

/// Plays a conversation against `profile`, unless it brings one of its own. `name` is for messages.
///
/// Answers everything that did not go as written; nothing, if all did.
pub fn play(name: &str, text: &str, profile: Option<&Arc<Profile>>) -> Vec<String> {
    let mut stage = FixtureRun { wrong: Vec::new() };
    if let Err(why) = stage.play(name, text, profile) {
        stage.wrong.push(why);
    }
    stage.wrong
}

struct FixtureRun {
    wrong: Vec<String>,
}

impl FixtureRun {
    fn same<T: PartialEq + Debug>(&mut self, what: &str, found: T, expected: T) {
        if found != expected {
            self.wrong.push(format!("{what}\n  found    {found:?}\n  expected {expected:?}"));
        }
    }

    /// Notes a step that could not be taken, and goes on.
    fn step(&mut self, what: &str, taken: Result<(), String>) {
        if let Err(why) = taken {
            self.wrong.push(format!("{what}: {why}"));
        }
    }

    fn play(&mut self, name: &str, text: &str, profile: Option<&Arc<Profile>>) -> Result<(), String> {
        let play: Conversation = toml::from_str(text).map_err(|error| error.to_string())?;
        let module = module(&play, &SourceText::new(name, text), profile, CallAs::Application)?;
        let mut vars = Vars::none();
        for (name, value) in &play.vars {
            vars.push(name.as_str().into(), value.clone());
        }
        let sent = Now::at(77_000, play.now.saturating_mul(1000));
        let (mut login, mut ids) = (LoginProgress::default(), CountingIds::default());
        for (at, step) in (1..).zip(&play.step) {
            let what = format!("step {at}");
            let taken = self.login_step(&what, &module, &mut login, (&vars, &mut ids, sent), step);
            self.step(&what, taken);
        }
        if let Some(expected) = &play.request {
            match login.request(&module, &vars, &mut ids, sent) {
                Some(made) => {
                    let taken = self.same_request(made, expected);
                    self.step("the token request", taken);
                }
                None => self.step("the token request", Err("the profile has no [token]".to_owned())),
            }
        }
        for (at, answer) in (1..).zip(&play.answer) {
            let what = format!("answer {at}");
            let taken = self.token_answer(&what, &module, &mut login, sent, answer);
            self.step(&what, taken);
        }
        for (at, call) in (1..).zip(&play.call) {
            let what = format!("call {at}");
            let taken = self.dress(&what, &module, &vars, sent, call);
            self.step(&what, taken);
        }
        for (at, resource) in (1..).zip(&play.resource) {
            let what = format!("resource {at}");
            let taken = self.judge(&what, &module, resource, sent);
            self.step(&what, taken);
        }
        for (at, call) in (1..).zip(&play.webhook) {
            let what = format!("webhook {at}");
            let taken = webhook::play_webhook(self, &what, &module, call, sent);
            self.step(&what, taken);
        }
        if let Some(consent) = &play.consent {
            let taken = consent::play_consent(self, &play, consent, &SourceText::new(name, text), profile, sent);
            self.step("the consent", taken);
        }
        for (paths, guarded) in [(&play.guarded, true), (&play.open, false)] {
            for path in paths {
                self.same(&format!("guarding {path}"), module.guards(path), guarded);
            }
        }
        Ok(())
    }

    fn login_step(
        &mut self,
        what: &str,
        module: &Module,
        login: &mut LoginProgress,
        (vars, ids, sent): (&Vars, &mut CountingIds, Now),
        step: &LoginStepAnswer,
    ) -> Result<(), String> {
        let made = login.request(module, vars, ids, sent).ok_or("the profile has no [token]")?;
        self.same_request(made, &step.request)?;
        let body = body(step.body.as_ref(), step.json.as_ref())?;
        let headers = headers(&step.headers, step.json.is_some())?;
        match (login.answer(module, status(step.status)?, &headers, &body, sent, sent), &step.failure) {
            (Ok(None), None) => Ok(()),
            (Ok(Some(grant)), _) => Err(format!("unexpected token: {grant:?}")),
            (Err(failure), Some(expected)) => self.failed(what, module, expected, &failure),
            (Err(failure), None) => Err(format!("unexpected failure: {failure:?}")),
            (Ok(None), Some(_)) => Err("it did not fail".to_owned()),
        }
    }

    fn same_request(&mut self, made: TokenRequest, expected: &ExpectedRequest) -> Result<(), String> {
        let mut ids = CountingIds::default();
        let made = finished(made.signed(None, &mut ids, PATIENCE)).map_err(|failure| failure.to_string())?;
        self.same("method", made.method.as_str(), &expected.method);
        self.same("URL", made.url.to_string(), expected.url.clone());
        self.same("query", made.query.as_ref().map(|query| query.expose_secret().to_owned()), expected.query.clone());
        self.same_headers("token headers", shown(&made.headers), lower(&expected.headers));
        let body = String::from_utf8(made.body.expose_secret().clone()).map_err(|_| "the body is not text")?;
        match &expected.json {
            Some(json) => {
                let found: serde_json::Value =
                    serde_json::from_str(&body).map_err(|_| format!("the body is not JSON: {body:?}"))?;
                let json = serde_json::to_value(json).map_err(|error| format!("`json`: {error}"))?;
                self.same("token body", found, json);
            }
            None => self.same("token body", body, expected.body.clone().unwrap_or_default()),
        }
        Ok(())
    }

    fn token_answer(
        &mut self,
        what: &str,
        module: &Module,
        login: &mut LoginProgress,
        sent: Now,
        answer: &TokenAnswer,
    ) -> Result<(), String> {
        let about = |part: &str| format!("{what}: {part}");
        let took = maybe_duration(answer.took.as_ref())?.unwrap_or(Duration::from_millis(20));
        let body = body(answer.body.as_ref(), answer.json.as_ref())?;
        let headers = headers(&answer.headers, answer.json.is_some())?;
        let result = login.answer(module, status(answer.status)?, &headers, &body, sent, sent.plus(took));
        let result = result.map(|grant| grant.ok_or("a step is due before the token request: write it as [[step]]"));
        let result = match result {
            Ok(grant) => Ok(grant?),
            Err(failure) => Err(failure),
        };
        match (&answer.grant, &answer.failure, result) {
            (Some(expected), None, Ok(grant)) => {
                self.same(&about("token"), grant.access_token.expose_secret(), expected.token.as_str());
                self.same(&about("life"), grant.life, duration(&expected.life)?);
                if let Some(expected) = &expected.headers {
                    let credentials = module.credentials(&grant);
                    let sensitive = credentials.iter().all(|(_, value)| value.is_sensitive());
                    self.same(&about("every credential is sensitive"), sensitive, true);
                    let named =
                        credentials.into_iter().map(|(place, value)| (place.to_string().to_ascii_lowercase(), value));
                    self.same(&about("headers"), shown_pairs(named), lower(expected));
                }
            }
            (None, Some(expected), Err(failure)) => self.failed(what, module, expected, &failure)?,
            (Some(_), Some(_), _) => return Err("`grant` and `failure` at once: keep one".to_owned()),
            (_, _, Ok(grant)) => return Err(format!("unexpected token: {grant:?}")),
            (_, _, Err(failure)) => return Err(format!("unexpected failure: {failure:?}")),
        }
        Ok(())
    }

    fn failed(
        &mut self,
        what: &str,
        module: &Module,
        expected: &FailedAnswer,
        failure: &Failure,
    ) -> Result<(), String> {
        let about = |part: &str| format!("{what}: {part}");
        self.same(&about("class"), failure.class.as_str(), expected.class.as_str());
        self.same(&about("cause"), failure.cause.map(FailureCause::as_str), expected.cause.as_deref());
        self.same(&about("retry_after"), failure.retry_after, maybe_duration(expected.retry_after.as_ref())?);
        let rest = maybe_duration(expected.rest.as_ref())?;
        self.same(&about("rest"), failure.backoff.map(|backoff| backoff.first), rest);
        if let Some(ceiling) = &expected.rest_ceiling {
            let ceiling = Some(duration(ceiling)?);
            self.same(&about("rest_ceiling"), failure.backoff.map(|backoff| backoff.ceiling), ceiling);
        }
        if let Some(inside) = &expected.inside {
            self.same(&about("inside"), failure.inside.as_str(), inside);
        }
        let told = module.secrets().any(|secret| failure.inside.contains(secret));
        self.same(&about("the failure's text names a secret"), told, false);
        Ok(())
    }

    fn dress(&mut self, what: &str, module: &Module, vars: &Vars, sent: Now, call: &ClientCall) -> Result<(), String> {
        let mut ids = CountingIds::default();
        let mut made = HeaderMap::new();
        for (name, value) in &headers(&call.client, false)? {
            if !module.strips(name) {
                made.append(name.clone(), value.clone());
            }
        }
        let leased =
            |token, at| if module.is_standing() { module.standing_lease(at) } else { Some(lease(module, token, at)) };
        let first = leased("first-token", sent).ok_or("it has no lease")?;
        let with = CallInputs { lease: &first, vars, now: sent };
        let ids_sent = module.dress(&mut made, with, &mut ids);
        let content = call.body.as_deref().unwrap_or_default().as_bytes();
        let put_on = |made: &HeaderMap, with, sent: &SentIds, ids: &mut CountingIds| match module
            .body(made, content, with, sent, ids)
        {
            None => Ok(content.to_vec()),
            Some(dressed) => dressed.map(|dressed| dressed.to_vec()).map_err(|unfit| unfit.to_string()),
        };
        let mut target = module.target(&call.path, with, &ids_sent, &mut ids).unwrap_or_else(|| call.path.clone());
        let mut body = put_on(&made, with, &ids_sent, &mut ids)?;
        sign(module, call, (&mut made, &mut target, &mut body), with, &ids_sent, &mut ids)?;
        self.same_headers(&format!("{what}: dressed"), shown(&made), lower(&call.dressed));
        if let Some(expected) = &call.target {
            self.same(&format!("{what}: target"), &target, expected);
        }
        for (name, value) in ids_sent.iter() {
            self.same(&format!("{what}: the id {name} that was reported"), made.get(name), Some(value));
        }
        if let Some(expected) = &call.sent_body {
            self.same_body(&format!("{what}: sent_body"), &body, expected);
        }
        if let Some(replayed) = &call.replayed {
            let later = sent.plus(Duration::from_secs(1));
            let second = leased("second-token", later).ok_or("it has no lease")?;
            let with = CallInputs { lease: &second, vars, now: later };
            let again = module.redress(&mut made, with, &ids_sent, &mut ids);
            let mut target = module.target(&call.path, with, &again, &mut ids).unwrap_or_else(|| call.path.clone());
            let mut body = put_on(&made, with, &again, &mut ids)?;
            sign(module, call, (&mut made, &mut target, &mut body), with, &again, &mut ids)?;
            if let Some(expected) = &call.replayed_body {
                self.same_body(&format!("{what}: replayed_body"), &body, expected);
            }
            if let Some(expected) = &call.replayed_target {
                self.same(&format!("{what}: replayed_target"), &target, expected);
            }
            self.same_headers(&format!("{what}: replayed"), shown(&made), lower(replayed));
            for (name, value) in again.iter() {
                self.same(&format!("{what}: the id {name} of the replay"), made.get(name), Some(value));
            }
        }
        Ok(())
    }

    /// Compares a body. An expected one that ends with `…` is the beginning of the body.
    fn same_body(&mut self, what: &str, found: &[u8], expected: &str) {
        let found = String::from_utf8_lossy(found);
        match expected.strip_suffix('…') {
            Some(begins) if found.starts_with(begins) => {}
            Some(_) | None => self.same(what, &*found, expected),
        }
    }

    /// Compares header fields. An expected value that ends with `…` is the beginning of the value, for signatures that
    /// are different each time.
    fn same_headers(&mut self, what: &str, mut found: BTreeMap<String, String>, expected: BTreeMap<String, String>) {
        for (name, value) in &mut found {
            let begins = expected.get(name).and_then(|expected| expected.strip_suffix('…'));
            if let Some(begins) = begins.filter(|begins| value.starts_with(begins)) {
                *value = format!("{begins}…");
            }
        }
        self.same(what, found, expected);
    }

    fn judge(&mut self, what: &str, module: &Module, resource: &ResourceAnswer, sent: Now) -> Result<(), String> {
        let status = status(resource.status)?;
        let headers = headers(&resource.headers, resource.json.is_some())?;
        let mut body = body(resource.body.as_ref(), resource.json.as_ref())?;
        if let Some(opener) = module.opener(status) {
            let most = body.len();
            let head = SignedHead::Answer { status, headers: headers.clone(), request: None };
            let opened = finished(opener.open(head, body, most, sent, PATIENCE));
            self.same(&format!("{what}: unopened"), opened.is_err(), resource.unopened);
            let Ok(opened) = opened else { return Ok(()) };
            body = opened.into_body().0.to_vec();
            if let Some(expected) = &resource.opened {
                self.same(&format!("{what}: opened"), &*String::from_utf8_lossy(&body), expected.as_str());
            }
        }
        let wants = module.wants_body(status, &headers);
        if let Some(expected) = resource.wants_body {
            self.same(&format!("{what}: wants_body"), wants, expected);
        }
        // A body that is not wanted is not given: the verdict must stand without it.
        let given = (wants && !resource.unread).then_some(body.as_slice());
        let verdict = match module.judge(status, &headers, given) {
            Verdict::Accepted => "accepted",
            Verdict::Challenged => "challenged",
            Verdict::Refused => "refused",
            Verdict::Unknown => "unknown",
        };
        self.same(&format!("{what}: verdict"), verdict, resource.verdict.as_str());
        Ok(())
    }
}

/// The patience with signatures.
const PATIENCE: Within = Within(Duration::from_secs(60));

/// Random bytes of a conversation: they count up from one.
#[derive(Clone, Default)]
struct CountingEntropy(u8);

impl Entropy for CountingEntropy {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), NoEntropy> {
        for byte in bytes {
            self.0 = self.0.wrapping_add(1);
            *byte = self.0;
        }
        Ok(())
    }
}

/// Signs and encrypts a dressed call, if its profile asks for that.
fn sign(
    module: &Module,
    call: &ClientCall,
    (headers, path_and_query, body): (&mut HeaderMap, &mut String, &mut Vec<u8>),
    with: CallInputs<'_>,
    sent: &SentIds,
    ids: &mut CountingIds,
) -> Result<(), String> {
    if !module.signs() {
        return Ok(());
    }
    let method = Method::from_bytes(call.method.as_bytes()).map_err(|_| format!("`{}` is no method", call.method))?;
    let authority = module.base_url().authority();
    let host = HeaderValue::try_from(&authority).map_err(|_| format!("`{authority}` is no host"))?;
    headers.insert(HOST, host);
    if module.protects_body() && !body.is_empty() {
        let call = UnsignedCall { method: &method, authority: &authority, path_and_query, headers, body, nonce: None };
        let made = finished(module.protect(call, with, sent, (ids, &CountingEntropy::default()), PATIENCE));
        let JoseBody { content, content_type } = made.map_err(|failure| failure.to_string())?;
        *body = content.to_vec();
        if let Some(content_type) = content_type {
            headers.insert(CONTENT_TYPE, content_type);
        }
    }
    let unsigned = UnsignedCall { method: &method, authority: &authority, path_and_query, headers, body, nonce: None };
    let signed = finished(module.sign(unsigned, with, sent, ids, PATIENCE));
    headers.remove(HOST);
    signed.map_err(|failure| failure.to_string())
}

/// Waits on this thread for a signature that another one makes.
fn finished<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

/// The world of a conversation: its values are made up, and the files that it names lie beside it.
struct Beside {
    folder: PathBuf,
}

impl ReadValue for Beside {
    fn value(&self, node: &Node, report: &Diagnostics) -> Option<(SecretString, bool)> {
        // A literal is no cause for a warning here.
        String::from_node(node, report).map(|text| (SecretString::from(text), false))
    }

    fn file(&self, node: &Node, _: FileContent, report: &Diagnostics) -> Option<Zeroizing<Vec<u8>>> {
        let path = self.folder.join(String::from_node(node, report)?);
        match std::fs::read(&path) {
            Ok(bytes) => Some(Zeroizing::new(bytes)),
            Err(_) => {
                let help = "paths start at the conversation".to_owned();
                node.error(report, format!("`{}` cannot be read", path.display()), "", Some(help));
                None
            }
        }
    }

    /// All values are made up, and stand in the conversation itself.
    fn secret_example(&self, _: &str) -> String {
        "\"any text\"".to_owned()
    }

    /// Certificates of tests do not expire.
    fn unix_seconds(&self) -> u64 {
        0
    }
}

/// The module that a conversation is about.
fn module(
    play: &Conversation,
    source: &Arc<SourceText>,
    profile: Option<&Arc<Profile>>,
    caller: CallAs,
) -> Result<Module, String> {
    let report = Diagnostics::new();
    let profile = match &play.profile {
        Some(text) => Profile::parse(&SourceText::new("profile", text.clone()), &report),
        None => profile.cloned(),
    };
    let settings = profile.as_ref().and_then(|profile| settings(profile, source, &report));
    let params = profile.as_ref().and_then(|profile| consent::params(profile, source, &report));
    if report.errors() > 0 {
        let found = report.into_diagnostics();
        let shown: Vec<String> = found.iter().map(|diagnostic| diagnostic.render(false)).collect();
        return Err(shown.join("\n\n"));
    }
    let (profile, settings) = profile.zip(settings).ok_or("it has no profile: add `profile`, or name one")?;
    let unusable = |text: &String, why: String| format!("`{text}` is not a usable URL: {why}");
    let url = |text: &String| BaseUrl::parse(text).map_err(|why| unusable(text, why));
    let endpoint = |text: &String| EndpointUrl::parse(text).map_err(|why| unusable(text, why));
    let wiring = Wiring {
        name: "bank",
        base_url: url(&play.base_url)?,
        token_url: play.token_url.as_ref().map(endpoint).transpose()?,
        default_ttl: maybe_duration(play.default_ttl.as_ref())?,
        consent: match &play.consent {
            Some(consent) => Some(ConsentWiring {
                public_url: url(&consent.public_url)?,
                authorize_url: consent.authorize_url.as_ref().map(url).transpose()?,
                par_url: consent.par_url.as_ref().map(url).transpose()?,
                params: params.unwrap_or_default(),
            }),
            None => None,
        },
        caller,
    };
    Module::build(&profile, settings, wiring)
}

fn settings(profile: &Profile, source: &Arc<SourceText>, report: &Diagnostics) -> Option<Settings> {
    let node = Node::parse(source, report);
    let empty = Node { kind: Kind::Table(Default::default()), ..node.clone() };
    let table = node.as_table().and_then(|table| table.find("settings")).map_or(&empty, |entry| &entry.value);
    let fields = Fields::new(table, "[settings]", report);
    let folder = Path::new(&source.name).parent().unwrap_or(Path::new("")).to_owned();
    let settings = profile.read_settings(&fields, &Beside { folder });
    fields.finish();
    settings
}

fn lease(module: &Module, token: &str, sent: Now) -> Lease {
    let life = Duration::from_secs(60);
    let captured = consent::captured(module);
    let grant = Grant { access_token: SecretString::from(token), life, captured, odd_type: None };
    Lease {
        key: module.key(),
        generation: 1,
        credentials: module.credentials(&grant),
        issued: sent,
        expires: Deadline::after(sent, life),
        fingerprint: grant.fingerprint(),
        trial: LeaseTrial::default(),
    }
}

/// Lower-case names with all their values.
fn shown(headers: &HeaderMap) -> BTreeMap<String, String> {
    shown_pairs(headers.iter().map(|(name, value)| (name.to_string(), value.clone())))
}

fn shown_pairs(pairs: impl Iterator<Item = (String, HeaderValue)>) -> BTreeMap<String, String> {
    let mut shown: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in pairs {
        let value = String::from_utf8_lossy(value.as_bytes());
        let entry = shown.entry(name);
        entry.and_modify(|old| *old = format!("{old} | {value}")).or_insert_with(|| value.clone().into_owned());
    }
    shown
}

fn lower(table: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    table.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone())).collect()
}
