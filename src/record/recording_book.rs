//! A recording in the making: it takes exchanges, scrubs them, and says the text of the conversation.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use regex::Regex;
use zeroize::Zeroizing;

use super::answer_shape::{AnswerShape, AnswerShapes, error_code};
use super::harmless::ScrubTrust;
use super::recorded_call::{AskedCall, CallPurpose, RecordedCall};
use super::scrubber::{ScrubbedBody, Scrubber};
use super::stand_in_key::{StandInKey, key_word};
use crate::base::coding::without_coding;
use crate::base::secret::{ExposeSecret, SecretString};
use crate::base::time::{Now, rfc3339};
use crate::learn::{is_plain_text, quoted, table};
use crate::provider::{
    LoginProgress, MOST_RECORDED_BODY, Module, RecordSettings, RecordedExchange, RecordedKind, RecordedSetting,
    RecordedValue, Verdict,
};
use crate::token::failure::{Failure, FailureCause};

/// The most bytes of one conversation file.
const MOST_TEXT: usize = 4 * 1024 * 1024;
/// The most differences that are told in one recording.
const MOST_TOLD: usize = 256;
/// The bank's host in what is written.
const HOST: &str = "https://bank.example";

/// What became of an exchange.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum TakenExchange {
    /// It is in the recording.
    Written,
    /// There are enough of its kind, or enough in all.
    Known,
    /// It might have told a secret.
    Withheld,
}

/// A recording of one provider.
pub(super) struct RecordingBook {
    provider: Arc<str>,
    /// The name of the file, without its extension.
    stem: String,
    settings: RecordSettings,
    scrubber: Scrubber,
    /// Files that the conversation names: names and contents.
    files: Vec<(String, Zeroizing<String>)>,
    /// The beginning of the file, as soon as there is an exchange.
    head: Option<String>,
    /// The time of the first exchange.
    began: Now,
    parts: String,
    counts: HashMap<String, usize>,
    taken: usize,
    shapes: AnswerShapes,
    told: BTreeSet<String>,
    /// Modules whose settings are known.
    known: HashSet<usize>,
}

impl RecordingBook {
    /// An empty recording. `shapes`: those of earlier recordings. `secrets`: what must not be written.
    pub(super) fn new(
        provider: Arc<str>,
        stem: String,
        settings: RecordSettings,
        key: &[u8; 32],
        secrets: &[SecretString],
        shapes: AnswerShapes,
    ) -> Self {
        let mut scrubber = Scrubber::new(key, &settings.keep);
        secrets.iter().for_each(|secret| scrubber.know(secret));
        Self {
            provider,
            stem,
            settings,
            scrubber,
            files: Vec::new(),
            head: None,
            began: Now::at(0, 0),
            parts: String::new(),
            counts: HashMap::new(),
            taken: 0,
            shapes,
            told: BTreeSet::new(),
            known: HashSet::new(),
        }
    }

    /// The whole text; `None` as long as there is no exchange.
    pub(super) fn text(&self) -> Option<String> {
        self.head.as_ref().map(|head| format!("{head}{}", self.parts))
    }

    /// Takes the files that the conversation names, to be written beside it.
    pub(super) fn take_files(&mut self) -> Vec<(String, Zeroizing<String>)> {
        std::mem::take(&mut self.files)
    }

    /// Takes an exchange. Also answers how its answer differs from all before of the same call, each difference once.
    pub(super) fn take(&mut self, exchange: &RecordedExchange) -> (TakenExchange, Vec<String>) {
        let module = &exchange.module;
        if self.known.insert(Arc::as_ptr(module) as usize) {
            for (text, is_secret) in module.setting_texts() {
                if is_secret || !is_plain_text(text.expose_secret()) {
                    self.scrubber.know(&text);
                } else {
                    self.scrubber.know_setting(text.expose_secret());
                }
            }
        }
        exchange.credentials.iter().for_each(|secret| self.scrubber.know(secret));
        if self.head.is_none() {
            self.began = exchange.at;
        }
        let call = self.scrubbed(exchange);
        let news = self.news(&call);
        let code = call.json.as_ref().and_then(error_code).unwrap_or_default();
        let key = format!("{:?} {} {} {code}", call.purpose, call.call(), call.status);
        let count = self.counts.get(&key).copied().unwrap_or(0);
        if count >= self.settings.per_call || self.taken >= self.settings.exchanges || self.parts.len() >= MOST_TEXT {
            return (TakenExchange::Known, news);
        }
        let text = call.text();
        if self.scrubber.leaks(&text) {
            return (TakenExchange::Withheld, Vec::new());
        }
        if self.head.is_none() {
            let head = self.head(module);
            if self.scrubber.leaks(&head) {
                return (TakenExchange::Withheld, Vec::new());
            }
            self.head = Some(head);
        }
        self.counts.insert(key, count + 1);
        self.taken += 1;
        self.parts += &text;
        (TakenExchange::Written, news)
    }

    /// What is new in an answer, and remembers it. The first answer of a call has nothing new.
    fn news(&mut self, call: &RecordedCall) -> Vec<String> {
        let (name, shape) = (call.call(), AnswerShape::of(call));
        let is_first = !self.shapes.contains_key(&name);
        // Calls whose paths have ever new words in them must not fill the memory.
        if is_first && self.shapes.len() >= 1024 {
            return Vec::new();
        }
        let answers = self.shapes.entry(name.clone()).or_default();
        let found = match answers.get(&call.status) {
            Some(known) => known.news(&shape),
            None if is_first => Vec::new(),
            None => vec![format!("status {} is new", call.status)],
        };
        answers.entry(call.status).or_default().join(shape);
        let mut news = Vec::new();
        for line in found {
            let line = format!("{name}: {}: {line}", call.status);
            if self.told.len() < MOST_TOLD && !self.scrubber.leaks(&line) && self.told.insert(line.clone()) {
                news.push(line);
            }
        }
        news
    }

    fn scrubbed(&mut self, exchange: &RecordedExchange) -> RecordedCall {
        let scrubber = &mut self.scrubber;
        let (purpose, trust) = match exchange.kind {
            RecordedKind::Token { step } if exchange.module.login_steps() > 0 => {
                (CallPurpose::Step(step), ScrubTrust::Token)
            }
            RecordedKind::Token { .. } => (CallPurpose::Token, ScrubTrust::Token),
            RecordedKind::Resource(_) => (CallPurpose::Resource, ScrubTrust::Resource),
        };
        let target = exchange.target.expose_secret();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let own = match exchange.kind {
            RecordedKind::Token { .. } => path,
            RecordedKind::Resource(_) => exchange.module.base_url().path(),
        };
        let (path, pattern) = scrubber.path(path, own);
        let kind = |headers: &HeaderMap| {
            headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
        };
        let sent = match &exchange.request_body {
            Some(body) => scrubber.body(&kind(&exchange.request_headers), body, ScrubTrust::Resource),
            None => ScrubbedBody::Empty,
        };
        let (json, body) = match sent {
            ScrubbedBody::Json(value) => (Some(value), None),
            ScrubbedBody::Text(text) => (None, Some(text)),
            ScrubbedBody::Empty | ScrubbedBody::LeftOut(_) => (None, None),
        };
        let asked = AskedCall {
            method: exchange.method.as_str().to_owned(),
            path,
            pattern,
            query: scrubber.query(query, &exchange.credentials),
            headers: scrubber.fields(&exchange.request_headers, &exchange.credentials),
            json,
            body,
        };
        let raw = exchange.body.as_ref().map(|raw| without_coding(&exchange.headers, raw, MOST_RECORDED_BODY));
        let body = match raw {
            None => ScrubbedBody::LeftOut("it is too long or broke off"),
            Some(Err(_)) => ScrubbedBody::LeftOut("it cannot be decoded"),
            Some(Ok(body)) => scrubber.body(&kind(&exchange.headers), &body, trust),
        };
        let call = RecordedCall {
            purpose,
            about: format!("{} {} answers {}", asked.method, asked.pattern, exchange.status.as_u16()),
            asked: Some(asked),
            status: exchange.status.as_u16(),
            headers: scrubber.fields(&exchange.headers, &exchange.credentials),
            json: None,
            body: None,
            unread: false,
            life: None,
            token: None,
            verdict: None,
            expected: String::new(),
        };
        self.expecting(call.with_body(body), exchange)
    }

    /// Says what must come of an answer, as the module judges what is left of it.
    fn expecting(&self, mut call: RecordedCall, exchange: &RecordedExchange) -> RecordedCall {
        let (module, head, content) = (&exchange.module, call.head(), call.content());
        match exchange.kind {
            RecordedKind::Token { .. } if call.purpose == CallPurpose::Token => {
                let sent = Now::at(77_000, self.began.wall / 1000 * 1000);
                let received = sent.plus(Duration::from_millis(20));
                let read = LoginProgress::default().answer(module, exchange.status, &head, &content, sent, received);
                match read {
                    Ok(Some(grant)) => {
                        let life = duration(grant.life);
                        let entries = [("token", quoted(grant.access_token.expose_secret())), ("life", quoted(&life))];
                        call.expected = format!("grant   = {}\n", table(entries));
                        call.life = Some(life);
                    }
                    Ok(None) => {}
                    Err(failure) => {
                        call.expected = format!("failure = {}\n", failed(&failure));
                        if granted(exchange, sent, received) {
                            call.about += "; it granted a token, by something that is left out";
                        }
                    }
                }
            }
            RecordedKind::Token { .. } => {}
            RecordedKind::Resource(found) => {
                let (verdict, lines) = judged(module, exchange.status, &head, &content, call.unread);
                call.expected = lines;
                call.verdict = Some(word(verdict).to_owned());
                if verdict != found {
                    let _ = write!(call.about, "; it was {}, by something that is left out", word(found));
                }
            }
        }
        call
    }

    /// The stand-in for a setting that is a text.
    fn setting(&mut self, value: &str, is_secret: bool, pattern: Option<&str>) -> String {
        let pattern = pattern.and_then(|pattern| Regex::new(&format!("^(?:{pattern})$")).ok());
        let other = self.scrubber.stand_in(value);
        let fits = pattern.as_ref().is_none_or(|pattern| pattern.is_match(&other));
        // A word out of few, such as a region.
        if !is_secret && !fits && is_plain_text(value) { value.to_owned() } else { other }
    }

    /// The beginning of the file.
    fn head(&mut self, module: &Module) -> String {
        let provider = self.provider.clone();
        let (base, _) = self.scrubber.path(module.base_url().path(), module.base_url().path());
        let (mut settings, mut secrets, mut keys) = (Vec::new(), Vec::new(), Vec::new());
        let mut is_whole = true;
        for RecordedSetting { name, value } in module.recorded_settings() {
            match value {
                RecordedValue::Text { value, secret, pattern, default } => {
                    let value = value.expose_secret();
                    if default.as_deref() == Some(value) {
                        continue;
                    }
                    settings.push((name.to_string(), quoted(&self.setting(value, secret, pattern.as_deref()))));
                    if secret {
                        secrets.push(quoted(&name));
                    }
                }
                RecordedValue::Key { kind, id, certificate } => {
                    let (Some(word), Some(key)) = (key_word(kind), StandInKey::draw(kind)) else {
                        is_whole = false;
                        continue;
                    };
                    let file = format!("{}-{name}.pem", self.stem);
                    let mut entries = vec![("file", quoted(&file))];
                    self.files.push((file, key.pem));
                    if certificate {
                        let file = format!("{}-{name}.crt", self.stem);
                        entries.push(("certificate", quoted(&file)));
                        self.files.push((file, key.certificate.into()));
                    }
                    entries.extend(id.map(|id| ("id", quoted(&self.scrubber.stand_in(id.expose_secret())))));
                    settings.push((name.to_string(), table(entries)));
                    keys.push((name.to_string(), quoted(word)));
                }
                RecordedValue::Other => is_whole = false,
            }
        }
        let mut text = "# Recorded from traffic; whatever may be secret or personal is a stand-in.\n".to_owned();
        if !is_whole {
            text += "# The profile has settings without stand-ins. To play this, write them into `settings`.\n";
        }
        let began = rfc3339(self.began.wall);
        let _ = write!(
            text,
            "\nabout    = {}\nrecorded = {}\nbase_url = {}\n",
            quoted(&format!("recorded: {provider}")),
            table([
                ("provider", quoted(&provider)),
                ("profile", quoted(module.profile_name())),
                ("secrets", format!("[{}]", secrets.join(", "))),
                ("keys", table(keys.iter().map(|(name, word)| (name.as_str(), word.clone())))),
                ("began", quoted(&began)),
            ]),
            quoted(&format!("{HOST}{base}")),
        );
        if module.wants_token_url()
            && let Some(url) = module.token_url()
        {
            let (path, _) = self.scrubber.path(url.path(), url.path());
            let _ = writeln!(text, "token_url = {}", quoted(&format!("{HOST}{path}")));
        }
        if let Some(life) = module.default_life() {
            let _ = writeln!(text, "default_ttl = {}", quoted(&duration(life)));
        }
        let _ = writeln!(text, "now      = {}", self.began.wall / 1000);
        let settings = settings.iter().map(|(name, value)| (name.as_str(), value.clone()));
        let _ = writeln!(text, "settings = {}", table(settings));
        text
    }
}

/// Returns whether an answer of the token endpoint granted a token, as it came.
fn granted(exchange: &RecordedExchange, sent: Now, received: Now) -> bool {
    let content =
        exchange.body.as_ref().and_then(|raw| without_coding(&exchange.headers, raw, MOST_RECORDED_BODY).ok());
    let content = content.unwrap_or_default();
    let module = &exchange.module;
    let read = LoginProgress::default().answer(module, exchange.status, &exchange.headers, &content, sent, received);
    matches!(read, Ok(Some(_)))
}

/// The verdict on an answer, and the lines that say it.
fn judged(module: &Module, status: StatusCode, head: &HeaderMap, content: &[u8], unread: bool) -> (Verdict, String) {
    if module.opener(status).is_some() {
        // It was opened before it was recorded; what is left cannot be opened again.
        return (module.judge(status, head, None), "unopened = true\nverdict = \"accepted\"\n".to_owned());
    }
    let given = (module.wants_body(status, head) && !unread).then_some(content);
    let verdict = module.judge(status, head, given);
    let unread = if unread { "unread  = true\n" } else { "" };
    (verdict, format!("{unread}verdict = \"{}\"\n", word(verdict)))
}

const fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Accepted => "accepted",
        Verdict::Challenged => "challenged",
        Verdict::Refused => "refused",
        Verdict::Unknown => "unknown",
    }
}

fn duration(time: Duration) -> String {
    match time.subsec_millis() {
        0 => format!("{}s", time.as_secs()),
        _ => format!("{}ms", time.as_millis()),
    }
}

fn failed(failure: &Failure) -> String {
    let mut entries = vec![("class", quoted(failure.class.as_str()))];
    entries.extend(failure.cause.map(|cause| ("cause", quoted(FailureCause::as_str(cause)))));
    entries.extend(failure.retry_after.map(|after| ("retry_after", quoted(&duration(after)))));
    if let Some(backoff) = &failure.backoff {
        entries.push(("rest", quoted(&duration(backoff.first))));
        entries.push(("rest_ceiling", quoted(&duration(backoff.ceiling))));
    }
    table(entries)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use http::Method;
    use zeroize::Zeroizing;

    use super::*;
    use crate::config::{InMemory, build};

    const CONFIG: &str = r#"
[[listener]]
name = "g"
bind = "127.0.0.1:0"
clients = "anyone"
[[route]]
name = "r"
path = "/r"
provider = "p"
[provider.p]
profile = "meed"
base_url = "https://meed.example/api"
client_id = "acme-client-01"
client_secret = "accounts answers"
"#;

    fn book(settings: RecordSettings) -> (RecordingBook, Arc<Module>) {
        let (snapshot, found) = build(Path::new("proxy.toml"), CONFIG.to_owned(), &InMemory::new());
        let snapshot = snapshot.unwrap_or_else(|| panic!("{found:?}"));
        let module = snapshot.routes[0].module.clone();
        (RecordingBook::new("p".into(), "p-1".to_owned(), settings, &[3; 32], &[], AnswerShapes::new()), module)
    }

    fn settings() -> RecordSettings {
        RecordSettings { folder: "r".into(), per_call: 2, exchanges: 3, keep: Vec::new() }
    }

    fn exchange(module: &Arc<Module>, target: &str, status: u16, body: &str) -> RecordedExchange {
        RecordedExchange {
            module: module.clone(),
            kind: RecordedKind::Resource(Verdict::Accepted),
            method: Method::GET,
            target: target.into(),
            request_headers: HeaderMap::new(),
            request_body: None,
            credentials: Vec::new(),
            status: StatusCode::from_u16(status).unwrap(),
            headers: HeaderMap::new(),
            body: Some(Zeroizing::new(body.as_bytes().to_vec())),
            at: Now::at(1, 1_700_000_000_000),
        }
    }

    #[test]
    fn a_few_of_each_kind_are_written_and_no_more_than_there_may_be() {
        let (mut book, module) = book(settings());
        assert_eq!(book.text(), None);
        let mut take = |target: &str, status, body: &str| book.take(&exchange(&module, target, status, body)).0;
        assert_eq!(take("/api/cards/77", 200, "{}"), TakenExchange::Written);
        assert_eq!(take("/api/cards/78", 200, "{}"), TakenExchange::Written);
        assert_eq!(take("/api/cards/79", 200, "{}"), TakenExchange::Known, "two of a kind");
        assert_eq!(take("/api/cards/79", 404, r#"{"code":"E1"}"#), TakenExchange::Written, "another kind");
        assert_eq!(take("/api/cards/79", 404, r#"{"code":"E2"}"#), TakenExchange::Known, "three in all");
        let text = book.text().expect("a text");
        assert_eq!(text.matches("[[resource]]").count(), 3, "{text}");
        assert!(!text.contains("acme-client-01") && !text.contains("meed.example"), "{text}");
    }

    #[test]
    fn an_exchange_whose_kept_words_make_a_secret_is_withheld() {
        let (mut book, module) = book(settings());
        assert_eq!(book.take(&exchange(&module, "/api/accounts", 200, "{}")).0, TakenExchange::Withheld);
        assert_eq!(book.text(), None);
        assert_eq!(book.take(&exchange(&module, "/api/payments", 200, "{}")).0, TakenExchange::Written);
    }

    #[test]
    fn another_shape_is_told_once_and_by_names_alone() {
        let (mut book, module) = book(settings());
        let mut news = |body: &str| book.take(&exchange(&module, "/api/cards", 200, body)).1;
        assert_eq!(news(r#"{"a":1,"b":null}"#), Vec::<String>::new(), "the first of its call");
        assert_eq!(news(r#"{"a":2,"b":"x"}"#), Vec::<String>::new(), "what was null may be anything");
        let told = news(r#"{"a":"Jane Doe 0188000049916","c":{"d":1}}"#);
        assert_eq!(
            told,
            ["GET /api/cards: 200: `/a` was number and is string", "GET /api/cards: 200: `/c` (object) is new"]
        );
        assert_eq!(news(r#"{"a":"x","c":{"d":1}}"#), Vec::<String>::new(), "once");
    }

    #[test]
    fn an_answer_that_is_too_long_or_no_text_is_recorded_without_its_body() {
        let (mut book, module) = book(settings());
        let long = RecordedExchange { body: None, ..exchange(&module, "/api/cards", 200, "") };
        assert_eq!(book.take(&long).0, TakenExchange::Written);
        let binary = RecordedExchange {
            body: Some(Zeroizing::new(vec![0xff, 0xd8])),
            ..exchange(&module, "/api/files", 200, "")
        };
        assert_eq!(book.take(&binary).0, TakenExchange::Written);
        let text = book.text().expect("a text");
        assert_eq!(text.matches("unread  = true").count(), 2, "{text}");
    }
}
