//! Plays every conversation in `tests/fixtures/provider/<profile>/*.toml` against its profile.
//!
//! A conversation gives settings, then says what must happen: the token request that is made, what each token answer
//! becomes, how a call is dressed and replayed, what each answer of the bank means. Identifiers count up from one in
//! each step; the token is `first-token`, on the replay `second-token`. `docs/adding-a-provider.md` has the format.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use countersign::base::id::CountingIds;
use countersign::base::origin::BaseUrl;
use countersign::base::secret::{ExposeSecret, SecretString};
use countersign::base::time::{Deadline, Now};
use countersign::base::vars::Vars;
use countersign::provider::{Module, Profile, Settings, Verdict, Wiring};
use countersign::syntax::{Fields, FromNode, Node, Report, Source, units};
use countersign::token::grant::Grant;
use countersign::token::lease::Lease;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Conversation {
    #[serde(rename = "about")]
    _about: String,
    /// A profile of the conversation's own, instead of the built-in one that its folder is named for.
    profile: Option<String>,
    #[serde(default = "base_url")]
    base_url: String,
    token_url: Option<String>,
    default_ttl: Option<String>,
    #[serde(rename = "settings", default)]
    _settings: toml::Table,
    #[serde(default)]
    vars: BTreeMap<String, String>,
    /// Seconds since 1970 at which the token request is sent.
    #[serde(default = "sent")]
    now: u64,
    request: Option<Request>,
    #[serde(default)]
    answer: Vec<Answer>,
    #[serde(default)]
    call: Vec<Call>,
    #[serde(default)]
    resource: Vec<Resource>,
    /// Provider paths that no route may reach.
    #[serde(default)]
    guarded: Vec<String>,
    #[serde(default)]
    open: Vec<String>,
}

fn base_url() -> String {
    "https://bank.example".to_owned()
}

const fn sent() -> u64 {
    1_550_131_385
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    method: String,
    url: String,
    query: Option<String>,
    headers: BTreeMap<String, String>,
    body: Option<String>,
    json: Option<toml::Table>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    #[serde(rename = "about", default)]
    _about: String,
    status: u16,
    #[serde(default)]
    headers: BTreeMap<String, OneOrMany>,
    body: Option<String>,
    json: Option<toml::Table>,
    took: Option<String>,
    grant: Option<Granted>,
    failure: Option<Failed>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Granted {
    token: String,
    life: String,
    /// The headers made from it, if they are looked at.
    headers: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Failed {
    class: String,
    retry_after: Option<String>,
    rest: Option<String>,
    rest_ceiling: Option<String>,
    inside: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Call {
    #[serde(rename = "about", default)]
    _about: String,
    #[serde(default)]
    client: BTreeMap<String, OneOrMany>,
    dressed: BTreeMap<String, String>,
    replayed: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Resource {
    #[serde(rename = "about", default)]
    _about: String,
    status: u16,
    #[serde(default)]
    headers: BTreeMap<String, OneOrMany>,
    body: Option<String>,
    json: Option<toml::Table>,
    /// The body could not be read.
    #[serde(default)]
    unread: bool,
    wants_body: Option<bool>,
    verdict: String,
}

#[derive(Clone, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    Many(Vec<String>),
    One(String),
}

fn headers(table: &BTreeMap<String, OneOrMany>, json: bool) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if json {
        headers.insert("content-type", HeaderValue::from_static("application/json"));
    }
    for (name, values) in table {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a header name");
        headers.remove(&name);
        let values = match values {
            OneOrMany::Many(values) => values.clone(),
            OneOrMany::One(value) => vec![value.clone()],
        };
        for value in values {
            headers.append(name.clone(), HeaderValue::from_str(&value).expect("a header value"));
        }
    }
    headers
}

fn body(body: Option<&String>, json: Option<&toml::Table>) -> Vec<u8> {
    match (body, json) {
        (None, None) => Vec::new(),
        (Some(text), None) => text.clone().into_bytes(),
        (None, Some(json)) => serde_json::to_vec(json).expect("JSON"),
        (Some(_), Some(_)) => panic!("`body` and `json` at once"),
    }
}

/// Lower-case names with all their values.
fn shown(headers: &HeaderMap) -> BTreeMap<String, String> {
    let mut shown: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in headers {
        let value = value.to_str().expect("visible ASCII");
        shown.entry(name.to_string()).and_modify(|old| *old = format!("{old} | {value}")).or_insert(value.to_owned());
    }
    shown
}

fn lower(table: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    table.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone())).collect()
}

fn duration(text: &str) -> Duration {
    units::duration(text).unwrap_or_else(|| panic!("{text:?} is no duration"))
}

fn literal(node: &Node, report: &Report) -> Option<(SecretString, bool)> {
    String::from_node(node, report).map(|text| (SecretString::from(text), true))
}

fn settings(profile: &Profile, source: &Arc<Source>, report: &Report) -> Option<Settings> {
    let node = Node::parse(source, report);
    let empty = Node { kind: countersign::syntax::Kind::Table(Default::default()), ..node.clone() };
    let table = node.as_table().and_then(|table| table.find("settings")).map_or(&empty, |entry| &entry.value);
    let fields = Fields::new(table, "[settings]", report);
    let settings = profile.read_settings(&fields, &literal);
    fields.finish();
    settings
}

struct Stage {
    wrong: Vec<String>,
}

impl Stage {
    fn same<T: PartialEq + std::fmt::Debug>(&mut self, what: &str, found: T, expected: T) {
        if found != expected {
            self.wrong.push(format!("{what}\n      found    {found:?}\n      expected {expected:?}"));
        }
    }
}

fn play(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).expect("a readable fixture");
    let folder = path.parent().and_then(Path::file_name).and_then(|name| name.to_str()).expect("a folder");
    play_text(&path.display().to_string(), &text, &|| Profile::builtin(folder))
}

/// Plays a conversation; `otherwise` is the profile of one that brings none.
fn play_text(name: &str, text: &str, otherwise: &dyn Fn() -> Option<Arc<Profile>>) -> Vec<String> {
    let play: Conversation = match toml::from_str(text) {
        Ok(play) => play,
        Err(error) => return vec![error.to_string()],
    };
    let source = Source::new(name, text);
    let report = Report::new();
    let profile = match &play.profile {
        Some(text) => Profile::parse(&Source::new("profile", text.clone()), &report),
        None => otherwise(),
    };
    let settings = profile.as_ref().and_then(|profile| settings(profile, &source, &report));
    if report.errors() > 0 {
        return report.into_diagnostics().iter().map(|diagnostic| diagnostic.render(false)).collect();
    }
    let (profile, settings) = (profile.expect("a profile"), settings.expect("settings"));
    let wiring = Wiring {
        name: "bank",
        base_url: BaseUrl::parse(&play.base_url).expect("a URL"),
        token_url: play.token_url.as_ref().map(|url| BaseUrl::parse(url).expect("a URL")),
        default_ttl: play.default_ttl.as_deref().map(duration),
    };
    let module = match Module::build(&profile, settings, wiring) {
        Ok(module) => module,
        Err(error) => return vec![error],
    };
    let mut vars = Vars::none();
    for (name, value) in &play.vars {
        vars.push(name.as_str().into(), value.clone());
    }
    let mut stage = Stage { wrong: Vec::new() };
    let sent = Now::at(77_000, play.now * 1000);
    if let Some(expected) = &play.request {
        request(&mut stage, &module, &vars, sent, expected);
    }
    for (at, answer) in play.answer.iter().enumerate() {
        token_answer(&mut stage, &module, sent, at + 1, answer);
    }
    for (at, call) in play.call.iter().enumerate() {
        dress(&mut stage, &module, &vars, sent, at + 1, call);
    }
    for (at, resource) in play.resource.iter().enumerate() {
        judge(&mut stage, &module, at + 1, resource);
    }
    for (paths, guarded) in [(&play.guarded, true), (&play.open, false)] {
        for path in paths {
            stage.same(&format!("guarding {path}"), module.guards(path), guarded);
        }
    }
    stage.wrong
}

fn request(stage: &mut Stage, module: &Module, vars: &Vars, sent: Now, expected: &Request) {
    let made = module.token_request(vars, &mut CountingIds::default(), sent);
    stage.same("method", made.method.as_str(), &expected.method);
    stage.same("URL", made.url.to_string(), expected.url.clone());
    stage.same("query", made.query.as_ref().map(|query| query.expose_secret().to_owned()), expected.query.clone());
    stage.same("token headers", shown(&made.headers), lower(&expected.headers));
    let body = String::from_utf8(made.body.expose_secret().clone()).expect("UTF-8");
    match &expected.json {
        Some(json) => {
            let found: serde_json::Value = serde_json::from_str(&body).expect("JSON");
            stage.same("token body", found, serde_json::to_value(json).expect("JSON"));
        }
        None => stage.same("token body", body, expected.body.clone().unwrap_or_default()),
    }
}

fn token_answer(stage: &mut Stage, module: &Module, sent: Now, at: usize, answer: &Answer) {
    let what = |part: &str| format!("answer {at}: {part}");
    let now = sent.plus(answer.took.as_deref().map_or(Duration::from_millis(20), duration));
    let status = StatusCode::from_u16(answer.status).expect("a status");
    let body = body(answer.body.as_ref(), answer.json.as_ref());
    let result = module.token_answer(status, &headers(&answer.headers, answer.json.is_some()), &body, sent, now);
    match (&answer.grant, &answer.failure, result) {
        (Some(expected), None, Ok(grant)) => {
            stage.same(&what("token"), grant.access_token.expose_secret(), expected.token.as_str());
            stage.same(&what("life"), grant.life, duration(&expected.life));
            if let Some(expected) = &expected.headers {
                let credentials = module.credentials(&grant);
                assert!(credentials.iter().all(|(_, value)| value.is_sensitive()), "a credential is always sensitive");
                stage.same(&what("headers"), shown(&credentials.into_iter().collect()), lower(expected));
            }
        }
        (None, Some(expected), Err(failure)) => {
            stage.same(&what("class"), failure.class.as_str(), &expected.class);
            stage.same(&what("retry_after"), failure.retry_after, expected.retry_after.as_deref().map(duration));
            stage.same(&what("rest"), failure.backoff.map(|b| b.first), expected.rest.as_deref().map(duration));
            if let Some(ceiling) = &expected.rest_ceiling {
                stage.same(&what("rest_ceiling"), failure.backoff.map(|b| b.ceiling), Some(duration(ceiling)));
            }
            if let Some(inside) = &expected.inside {
                stage.same(&what("inside"), failure.inside.as_str(), inside);
            }
            for secret in module.secrets() {
                assert!(!failure.inside.contains(secret), "a failure's text names a secret");
            }
        }
        (_, _, Ok(grant)) => stage.wrong.push(format!("answer {at}: unexpected {grant:?}")),
        (_, _, Err(failure)) => stage.wrong.push(format!("answer {at}: unexpected {failure:?}")),
    }
}

fn lease(module: &Module, token: &str, sent: Now) -> Lease {
    let life = Duration::from_secs(60);
    let grant = Grant { access_token: SecretString::from(token), life, captured: Vec::new() };
    Lease {
        key: module.key(),
        generation: 1,
        headers: module.credentials(&grant),
        issued: sent,
        expires: Deadline::after(sent, life),
        fingerprint: grant.fingerprint(),
    }
}

fn dress(stage: &mut Stage, module: &Module, vars: &Vars, sent: Now, at: usize, call: &Call) {
    let mut ids = CountingIds::default();
    let mut made = HeaderMap::new();
    for (name, value) in &headers(&call.client, false) {
        if !module.strips(name) {
            made.append(name.clone(), value.clone());
        }
    }
    let ids_sent = module.dress(&mut made, &lease(module, "first-token", sent), vars, &mut ids);
    stage.same(&format!("call {at}: dressed"), shown(&made), lower(&call.dressed));
    for (name, value) in ids_sent.iter() {
        stage.same(&format!("call {at}: the id {name} that was reported"), made.get(name), Some(value));
    }
    if let Some(replayed) = &call.replayed {
        let again = module.redress(&mut made, &lease(module, "second-token", sent), &ids_sent, &mut ids);
        stage.same(&format!("call {at}: replayed"), shown(&made), lower(replayed));
        for (name, value) in again.iter() {
            stage.same(&format!("call {at}: the id {name} of the replay"), made.get(name), Some(value));
        }
    }
}

fn judge(stage: &mut Stage, module: &Module, at: usize, resource: &Resource) {
    let status = StatusCode::from_u16(resource.status).expect("a status");
    let headers = headers(&resource.headers, resource.json.is_some());
    let body = body(resource.body.as_ref(), resource.json.as_ref());
    let wants = module.wants_body(status, &headers);
    if let Some(expected) = resource.wants_body {
        stage.same(&format!("resource {at}: wants_body"), wants, expected);
    }
    // A body that is not wanted is not given: the verdict must stand without it.
    let given = (wants && !resource.unread).then_some(body.as_slice());
    let verdict = match module.judge(status, &headers, given) {
        Verdict::Accepted => "accepted",
        Verdict::Refused => "refused",
        Verdict::Unknown => "unknown",
    };
    stage.same(&format!("resource {at}: verdict"), verdict, &resource.verdict);
}

fn conversations() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/provider");
    let folders = fs::read_dir(root).expect("the fixtures").map(|entry| entry.expect("an entry").path());
    let mut files: Vec<PathBuf> = folders
        .flat_map(|folder| fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    files.sort();
    files
}

#[test]
fn every_conversation_goes_as_written() {
    let mut failed = String::new();
    for path in conversations() {
        for wrong in play(&path) {
            failed.push_str(&format!("\n  {}\n    {wrong}", path.display()));
        }
    }
    assert!(failed.is_empty(), "{failed}");
}

#[test]
fn every_built_in_profile_has_conversations_and_a_section_in_the_docs() {
    let docs = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/providers.md")).expect("the docs");
    let played = conversations();
    for name in Profile::builtin_names() {
        let own = played.iter().filter(|path| path.parent().is_some_and(|folder| folder.ends_with(name))).count();
        assert!(own >= 3, "profile {name} has {own} conversations");
        assert!(docs.contains(&format!("\n## `{name}`")), "docs/providers.md has no section `{name}`");
    }
}

/// The first TOML block after a marker.
fn block<'a>(docs: &'a str, marker: &str) -> &'a str {
    let (_, after) = docs.split_once(marker).expect("the marker");
    let (_, block) = after.split_once("```toml\n").expect("a block");
    block.split_once("```").expect("the block's end").0
}

#[test]
fn the_example_in_the_docs_works() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/adding-a-provider.md");
    let docs = fs::read_to_string(path).expect("the docs");
    let report = Report::new();
    let profile = Profile::parse(&Source::new("docs", block(&docs, "<!-- test: profile -->")), &report);
    let wrong = play_text("docs", block(&docs, "<!-- test: conversation -->"), &|| profile.clone());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let extended = Profile::parse(&Source::new("docs", block(&docs, "## Extending a profile")), &report);
    assert!(extended.is_some(), "{:?}", report.into_diagnostics());
}

#[test]
fn every_profile_in_the_docs_shows_settings_that_it_takes() {
    let docs = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/providers.md")).expect("the docs");
    for name in Profile::builtin_names() {
        let profile = Profile::builtin(name).expect("a profile");
        let report = Report::new();
        let node = Node::parse(&Source::new("docs", block(&docs, &format!("\n## `{name}`"))), &report);
        let tables = node.as_table().and_then(|table| table.find("provider")).expect("[provider.…]");
        let entry = tables.value.as_table().and_then(|table| table.entries.first()).expect("a name");
        let fields = Fields::new(&entry.value, "the example", &report);
        for common in ["profile", "environment", "base_url", "token_url"] {
            let _ = fields.take(common);
        }
        let read = |node: &Node, _: &Report| {
            Some((SecretString::from(node.as_str().filter(|text| text.is_ascii()).unwrap_or("a-value")), false))
        };
        let settings = profile.read_settings(&fields, &read);
        fields.finish();
        let found: Vec<String> = report.into_diagnostics().iter().map(|diagnostic| diagnostic.one_line()).collect();
        assert!(settings.is_some() && found.is_empty(), "{name}: {found:?}");
    }
}
