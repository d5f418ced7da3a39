//! All that examples teach about a bank, and the texts that come of it.

use super::conversation_text::conversation_text;
use super::example_format::read_examples;
use super::leak_check::LeakCheck;
use super::learned_answer::LearnedAnswer;
use super::learned_call::LearnedCall;
use super::learned_failure::{LearnedFailure, is_code_of_token_endpoint};
use super::learned_refusal::{LearnedRefusals, REFUSAL};
use super::learned_request::{LearnedRequest, is_plain_segment};
use super::observed::{ObservedAnswer, ObservedExchange, ObservedRequest};
use super::plain_text::is_plain_text;
use super::profile_text::profile_text;
use super::setting_book::{LearnedSetting, SettingBook};
use super::sorted_exchanges::sort_exchanges;
use super::value_meaning::{LearnedId, LearnedTime, ValueMeanings};

/// A statement of the profile that no example proves.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Guess {
    /// The place in the profile, such as `token.request`.
    pub place: &'static str,
    /// One sentence about it, without any value of the examples.
    pub about: String,
    /// True if a person has confirmed it.
    pub confirmed: bool,
}

/// A bank as the examples show it.
#[derive(Debug)]
pub struct LearnedBank {
    pub(super) name: String,
    /// Where its facts come from, in the words of a profile.
    pub(super) basis: &'static str,
    /// The number of exchanges, by the form of the examples.
    pub(super) seen: String,
    pub(super) base_url: Option<String>,
    /// Stands for it where no example shows it: a host that nobody has, with the path that the examples share.
    pub(super) stand_in_base: String,
    pub(super) settings: SettingBook,
    pub(super) times: Vec<LearnedTime>,
    pub(super) ids: Vec<LearnedId>,
    pub(super) request: LearnedRequest,
    pub(super) answer: LearnedAnswer,
    pub(super) failures: Vec<LearnedFailure>,
    pub(super) call: LearnedCall,
    pub(super) refusals: LearnedRefusals,
    pub(super) guesses: Vec<Guess>,
    omitted: Vec<String>,
    leaks: LeakCheck,
}

/// Stands for an origin that no example shows.
const UNKNOWN_ORIGIN: &str = "https://bank.example";

/// The most failures of a token endpoint that a profile tells apart.
const MOST_FAILURES: usize = 100;

/// Learns a bank from examples: the contents of files. `name`: that of the profile; the host gives one otherwise.
///
/// The error is for a person, and shows nothing of the examples.
pub fn learn(examples: &[&[u8]], name: Option<&str>) -> Result<LearnedBank, String> {
    let read = read_examples(examples)?;
    let sorted = sort_exchanges(&read.exchanges)?;
    let (mut meanings, mut omitted) = (ValueMeanings::default(), read.remarks);
    if sorted.other_grants > 0 {
        omitted.push(
            "token calls of other grants were left out: users' consents are written by hand ([consent])".to_owned(),
        );
    }
    if let Some(why) = sorted.request.unknown {
        return Err(why.to_owned());
    }
    let origin =
        sorted.request.origin.clone().or_else(|| sorted.api.iter().find_map(|call| call.request.origin.clone()));
    let base_path = base_path(sorted.request, &sorted.api);
    let requests: Vec<&ObservedRequest> = sorted.token.iter().map(|exchange| &exchange.request).collect();
    let request = LearnedRequest::learn(sorted.request, &requests, &base_path, &mut meanings, &mut omitted)?;
    let token_answers: Vec<&ObservedAnswer> =
        sorted.token.iter().filter_map(|exchange| exchange.answer.as_ref()).collect();
    let mut answer = LearnedAnswer::learn(&token_answers, &mut meanings);
    if token_answers.iter().any(|answer| answer.is_other && answer.is_success()) {
        omitted.push("an answer of the token call is no JSON: write `format` of [token.response] by hand".to_owned());
    }
    let success_at = answer.success.as_ref().map(|(pointer, _)| pointer.clone());
    let api_answers: Vec<&ObservedAnswer> = sorted.api.iter().filter_map(|exchange| exchange.answer.as_ref()).collect();
    // Notes show errors of the token call below the last command, whatever that is.
    let misplaced = api_answers.iter().filter(|answer| names_token_error(answer));
    let mut failures: Vec<LearnedFailure> = Vec::new();
    for answer in token_answers.iter().chain(misplaced) {
        if failures.len() >= MOST_FAILURES {
            break;
        }
        let failure = LearnedFailure::learn(answer, success_at.as_ref());
        failures.extend(failure.filter(|failure| !failures.contains(failure)));
    }
    for failure in &failures {
        if let Some((pointer, _)) = failure.code.as_ref().filter(|(pointer, _)| !answer.codes.contains(pointer)) {
            answer.codes.push(pointer.clone());
        }
    }
    let call = LearnedCall::learn(&sorted.api, &sorted.tokens, &request.headers, &mut meanings, &mut omitted);
    let refusals = LearnedRefusals::learn(&api_answers, success_at.as_ref());
    if refusals.matches.iter().any(|rule| rule.guessed) {
        meanings.guess(REFUSAL, "no example shows an answer to a dead token that can be told from others".to_owned());
    }
    omitted.extend(refusals.omitted.iter().cloned());
    note_steps(&read.exchanges, &sorted.token, &meanings.settings, &mut omitted);
    let base_url =
        origin.as_deref().filter(|origin| is_plain_origin(origin)).map(|origin| format!("{origin}{base_path}"));
    let stand_in_base = format!("{UNKNOWN_ORIGIN}{base_path}");
    if base_url.is_none() {
        let about = format!("{stand_in_base} stands for the base URL, of which the examples do not show the host");
        meanings.guess("base_url", about);
    }
    omitted.sort();
    omitted.dedup();
    let name = name
        .map(ToOwned::to_owned)
        .or_else(|| origin.as_deref().and_then(name_of_host))
        .unwrap_or_else(|| "bank".to_owned());
    let guesses = meanings.guesses.into_iter().map(|(place, about)| Guess { place, about, confirmed: false }).collect();
    let mut bank = LearnedBank {
        name,
        basis: read.basis,
        seen: read.seen,
        base_url,
        stand_in_base,
        settings: meanings.settings,
        times: meanings.times,
        ids: meanings.ids,
        request,
        answer,
        failures,
        call,
        refusals,
        guesses,
        omitted,
        leaks: LeakCheck::default(),
    };
    bank.leaks = LeakCheck::of(&read.exchanges, &bank.settings, &bank.own_words());
    Ok(bank)
}

/// Returns whether an answer has an error that only a token endpoint gives.
fn names_token_error(answer: &ObservedAnswer) -> bool {
    let code = answer.json.as_ref().and_then(|json| json.get("error")).and_then(serde_json::Value::as_str);
    code.is_some_and(|code| is_code_of_token_endpoint(code) || code == "invalid_request")
}

/// The segments that the paths of the token call and of all calls have in common.
fn base_path(request: &ObservedRequest, api: &[&ObservedExchange]) -> String {
    if api.is_empty() {
        return String::new();
    }
    let mut common: Vec<&str> = request.path.split('/').collect();
    // The last segment is the endpoint's own.
    common.pop();
    for exchange in api {
        let same =
            common.iter().zip(exchange.request.path.split('/')).take_while(|(one, other)| **one == *other).count();
        common.truncate(same);
    }
    let plain = common.iter().take_while(|segment| segment.is_empty() || is_plain_segment(segment)).count();
    common.truncate(plain);
    common.join("/").trim_end_matches('/').to_owned()
}

/// Notes where a value of the token call comes from an earlier answer.
fn note_steps(
    all: &[ObservedExchange],
    token: &[&ObservedExchange],
    settings: &SettingBook,
    omitted: &mut Vec<String>,
) {
    let is_token_call = |exchange: &ObservedExchange| token.iter().any(|known| std::ptr::eq(*known, exchange));
    for exchange in all.iter().filter(|exchange| !is_token_call(exchange)) {
        let Some(json) = exchange.answer.as_ref().and_then(|answer| answer.json.as_ref()) else { continue };
        let values = super::sorted_exchanges::pointed_values(json);
        let texts: Vec<&str> =
            values.iter().filter_map(|found| found.value.as_str()).filter(|text| text.len() >= 8).collect();
        if let Some(setting) = settings.comes_from(&texts) {
            omitted.push(format!("`{setting}` comes from an earlier answer: write that call as [[token.steps]]"));
        }
    }
}

/// Returns whether scheme and host of a URL may be shown.
fn is_plain_origin(origin: &str) -> bool {
    let host = origin.strip_prefix("https://").unwrap_or_default();
    !host.is_empty() && is_plain_text(host) && host.len() <= 100
}

/// A name for the bank: the label of its registered domain.
fn name_of_host(origin: &str) -> Option<String> {
    let host = origin.split_once("://")?.1.split(':').next()?;
    if !is_plain_text(host) || host.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return None;
    }
    let labels: Vec<&str> = host.split('.').collect();
    let short = ["com", "co", "net", "org", "gov", "ac", "or", "go", "in"];
    let at = labels.len().checked_sub(2)?;
    let at = if short.contains(labels.get(at)?) && at > 0 { at - 1 } else { at };
    let label = labels.get(at)?;
    let is_name = !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    is_name.then(|| (*label).to_owned())
}

impl LearnedBank {
    /// The name of the profile.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The base URL; `None` if the examples show none that may be copied.
    pub fn base_url(&self) -> Option<&str> {
        self.base_url.as_deref()
    }

    /// Stands for the base URL where no example shows it.
    pub fn stand_in_base(&self) -> &str {
        &self.stand_in_base
    }

    /// The settings of `[provider.NAME]`.
    pub fn settings(&self) -> &[LearnedSetting] {
        self.settings.all()
    }

    /// The statements that no example proves. A person may confirm them.
    pub fn guesses(&self) -> &[Guess] {
        &self.guesses
    }

    /// Notes that a person has confirmed the guess of this number.
    pub fn confirm(&mut self, number: usize) {
        if let Some(guess) = self.guesses.get_mut(number) {
            guess.confirmed = true;
        }
    }

    /// Parts of the examples that did not go into the profile, one sentence each.
    pub fn omitted(&self) -> &[String] {
        &self.omitted
    }

    /// Returns one line on the examples: how many exchanges, in which form.
    pub fn seen(&self) -> &str {
        &self.seen
    }

    /// Writes the profile. The error says that a value of the examples would be in it.
    pub fn profile(&self) -> Result<String, String> {
        self.leaks.pass(profile_text(self))
    }

    /// Writes the conversation. The error says that a value of the examples would be in it.
    pub fn conversation(&self) -> Result<String, String> {
        self.leaks.pass(conversation_text(self))
    }

    /// Passes a text that is about to be shown, unless a value of the examples is in it.
    pub fn cleared(&self, text: String) -> Result<String, String> {
        self.leaks.pass(text)
    }

    /// Returns whether a refusal rule that no example proves was confirmed.
    pub(super) fn is_confirmed(&self, place: &str) -> bool {
        let mut of_place = self.guesses.iter().filter(|guess| guess.place == place).peekable();
        of_place.peek().is_some() && of_place.all(|guess| guess.confirmed)
    }

    /// Texts that were found plain, so that they may be in the profile although they are values, too.
    fn own_words(&self) -> Vec<String> {
        use super::learned_text::LearnedPiece;
        let texts = self.request.texts().into_iter().chain(self.call.headers.iter().map(|(_, text)| text));
        let literals = texts.chain([&self.request.path]).flat_map(|text| &text.0).filter_map(|piece| match piece {
            LearnedPiece::Literal(text) => Some(text.trim().to_owned()),
            _ => None,
        });
        let defaults = self.settings.all().iter().filter_map(|setting| setting.default.clone());
        let codes = self.failures.iter().filter_map(|failure| failure.code.clone());
        let refusals = self.refusals.matches.iter().chain(&self.refusals.excludes).chain(&self.refusals.unknown);
        let codes = codes.chain(refusals.filter_map(|rule| rule.code.clone())).map(|(_, code)| code);
        let kind = self.answer.type_word.clone();
        let success = self.answer.success.as_ref().and_then(|(_, value)| value.as_str().map(ToOwned::to_owned));
        literals.chain(defaults).chain(codes).chain(kind).chain(success).collect()
    }
}
