//! Refusals: which errors of the API prove that the token is dead, and which do not.
//!
//! An error that could also mean missing permission or wrong credentials is none: a new token would not help, and would be
//! fetched for ever.

use serde_json::{Map, Value};

use super::learned_answer::put;
use super::learned_failure::{code_of, is_code_of_token_endpoint, words_of_answer};
use super::observed::ObservedAnswer;
use super::sorted_exchanges::pointed_values;

/// The section of the profile, for remarks.
pub(super) const REFUSAL: &str = "refusal";

/// One condition of `[refusal]`, and the answer that shows it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct LearnedRefusal {
    pub status: u16,
    /// The `error` of a `Bearer` challenge.
    pub challenge: Option<String>,
    /// The place of a code, and the code.
    pub code: Option<(String, String)>,
    /// The place of a sentence, and the pattern of ours that it fits.
    pub phrase: Option<(String, &'static Phrase)>,
    pub bare: bool,
    /// True if no example proves it.
    pub guessed: bool,
}

/// Words by which a sentence is told from others; a pattern and a text of ours that fits it.
#[derive(Debug, PartialEq)]
pub(super) struct Phrase {
    /// Words that an example has, in small letters.
    words: &'static [&'static str],
    pub pattern: &'static str,
    pub example: &'static str,
}

/// Phrases of a dead token.
const DEAD: [Phrase; 5] = [
    Phrase { words: &["expired"], pattern: "(?i)expired", example: "expired" },
    Phrase { words: &["invalid", "token"], pattern: "(?i)invalid.*token|token.*invalid", example: "invalid token" },
    Phrase { words: &["not valid", "token"], pattern: "(?i)token.*not valid", example: "token not valid" },
    Phrase { words: &["revoked"], pattern: "(?i)revoked", example: "revoked" },
    Phrase { words: &["inactive", "token"], pattern: "(?i)token.*inactive|inactive.*token", example: "inactive token" },
];

/// Phrases that a new token does not mend.
const ALIVE: [Phrase; 8] = [
    Phrase { words: &["scope"], pattern: "(?i)scope", example: "scope" },
    Phrase { words: &["permission"], pattern: "(?i)permission", example: "permission" },
    Phrase { words: &["subscri"], pattern: "(?i)subscri", example: "subscription" },
    Phrase { words: &["client id"], pattern: "(?i)client id", example: "client id" },
    Phrase { words: &["credential"], pattern: "(?i)credential", example: "credentials" },
    Phrase { words: &["signature"], pattern: "(?i)signature", example: "signature" },
    Phrase { words: &["not registered"], pattern: "(?i)not registered", example: "not registered" },
    Phrase { words: &["forbidden"], pattern: "(?i)forbidden", example: "forbidden" },
];

/// The lists of `[refusal]`, and answers that no rule knows.
#[derive(Clone, Debug, Default)]
pub(super) struct LearnedRefusals {
    pub matches: Vec<LearnedRefusal>,
    pub excludes: Vec<LearnedRefusal>,
    /// Answers of which the profile says nothing.
    pub unknown: Vec<LearnedRefusal>,
    pub omitted: Vec<String>,
}

/// The most error answers that are compared with each other.
const MOST_ERRORS: usize = 200;

/// An error answer of the API, as far as it is looked at.
struct ErrorAnswer<'a> {
    answer: &'a ObservedAnswer,
    status: u16,
    challenge: Option<String>,
    code: Option<(String, String)>,
    is_dead: bool,
}

impl LearnedRefusals {
    /// Learns from the error answers of the API. `code_at`: the place where the bank has its codes.
    pub(super) fn learn(answers: &[&ObservedAnswer], code_at: Option<&String>) -> Self {
        let errors: Vec<ErrorAnswer<'_>> =
            answers.iter().filter_map(|answer| ErrorAnswer::read(answer, code_at)).take(MOST_ERRORS).collect();
        let mut learned = Self::default();
        for error in &errors {
            let rule = error.rule(&errors, &mut learned.omitted);
            let list = match (&rule, error.is_dead) {
                (Some(_), true) => &mut learned.matches,
                (Some(_), false) => &mut learned.excludes,
                (None, _) => &mut learned.unknown,
            };
            let rule = rule.unwrap_or_else(|| error.bare_rule());
            if !list.contains(&rule) {
                list.push(rule);
            }
        }
        if learned.matches.is_empty() {
            learned.matches.push(LearnedRefusal {
                status: 401,
                challenge: Some("invalid_token".to_owned()),
                code: None,
                phrase: None,
                bare: false,
                guessed: true,
            });
        }
        // What the same answer would be, were it excluded, is never refused.
        let excluded = learned.excludes.clone();
        learned.matches.retain(|rule| !excluded.contains(rule));
        learned
    }
}

impl<'a> ErrorAnswer<'a> {
    fn read(answer: &'a ObservedAnswer, code_at: Option<&String>) -> Option<Self> {
        let challenge = answer.header("www-authenticate").and_then(challenge_error);
        let status = answer.status.or_else(|| challenge.is_some().then_some(401))?;
        if !(400..=499).contains(&status) {
            return None;
        }
        let code = code_of(answer, code_at);
        let words = words_of_answer(answer);
        let by_code = code.as_ref().map(|(_, code)| code.to_ascii_lowercase()).unwrap_or_default();
        let says = |text: &str, phrases: &[Phrase]| {
            phrases.iter().any(|phrase| phrase.words.iter().all(|word| text.contains(word)))
        };
        let all = format!("{words} {}", by_code.replace(['_', '-', '.'], " "));
        let names_client = is_code_of_token_endpoint(&by_code)
            || ["insufficient", "access_denied", "forbidden", "invalid_client"]
                .iter()
                .any(|word| by_code.contains(word));
        let is_dead = [401, 403, 404, 498, 419].contains(&status)
            && !names_client
            && challenge.as_deref() != Some("insufficient_scope")
            && (challenge.as_deref() == Some("invalid_token") || says(&all, &DEAD))
            && (!says(&all, &ALIVE) || all.contains("token"));
        Some(Self { answer, status, challenge, code, is_dead })
    }

    /// The rule by which this answer is told from those of the other kind; `None` if there is none.
    fn rule(&self, all: &[Self], omitted: &mut Vec<String>) -> Option<LearnedRefusal> {
        let of_other_kind =
            |rule: &LearnedRefusal| all.iter().any(|other| other.is_dead != self.is_dead && rule.fits(other));
        let plain = LearnedRefusal { challenge: self.challenge.clone(), code: None, ..self.bare_rule() };
        let by_challenge = plain.challenge.is_some().then(|| LearnedRefusal { bare: false, ..plain.clone() });
        let by_code = self.code.clone().filter(|(_, code)| self.is_dead || *code != self.status.to_string());
        let by_code =
            by_code.map(|code| LearnedRefusal { code: Some(code), challenge: None, bare: false, ..plain.clone() });
        let phrase = self.phrase(if self.is_dead { &DEAD } else { &ALIVE });
        let by_phrase = phrase.map(|phrase| LearnedRefusal {
            phrase: Some(phrase),
            code: self.code.clone(),
            challenge: None,
            bare: false,
            ..plain.clone()
        });
        // A code that only repeats the status says as little as the status.
        let says_little = |rule: &LearnedRefusal| {
            let code = rule.code.as_ref().map(|(_, code)| code.to_ascii_lowercase()).unwrap_or_default();
            rule.phrase.is_none()
                && rule.challenge.is_none()
                && (code == self.status.to_string() || code.starts_with("unauthor") || code == "forbidden")
        };
        let candidates = [by_challenge, by_code, by_phrase];
        let fit =
            candidates.into_iter().flatten().find(|rule| !(of_other_kind(rule) || self.is_dead && says_little(rule)));
        if let Some(rule) = fit {
            return Some(rule);
        }
        let is_bare = self.answer.json.is_none() && self.answer.is_empty && self.challenge.is_none();
        let rule = LearnedRefusal { bare: true, guessed: true, ..self.bare_rule() };
        if is_bare && self.is_dead && !of_other_kind(&rule) {
            return Some(rule);
        }
        if self.is_dead {
            omitted.push(format!(
                "a {} that the examples call a dead token cannot be told from other errors: it passes to the application",
                self.status
            ));
        }
        None
    }

    fn bare_rule(&self) -> LearnedRefusal {
        LearnedRefusal {
            status: self.status,
            challenge: None,
            code: self.code.clone().filter(|_| self.answer.json.is_some()),
            phrase: None,
            bare: false,
            guessed: false,
        }
    }

    fn phrase(&self, phrases: &'static [Phrase]) -> Option<(String, &'static Phrase)> {
        let values: Vec<(String, String)> = self
            .answer
            .json
            .iter()
            .flat_map(pointed_values)
            .filter_map(|found| Some((found.pointer, found.value.as_str()?.to_lowercase())))
            .collect();
        phrases.iter().find_map(|phrase| {
            let (pointer, _) = values.iter().find(|(_, text)| phrase.words.iter().all(|word| text.contains(word)))?;
            Some((pointer.clone(), phrase))
        })
    }
}

impl LearnedRefusal {
    /// Returns whether an answer fits this rule.
    fn fits(&self, other: &ErrorAnswer<'_>) -> bool {
        let text_at = |pointer: &str| {
            other
                .answer
                .json
                .as_ref()
                .and_then(|json| json.pointer(pointer))
                .and_then(Value::as_str)
                .map(str::to_lowercase)
        };
        self.status == other.status
            && self.challenge.as_ref().is_none_or(|wanted| other.challenge.as_ref() == Some(wanted))
            && self.code.as_ref().is_none_or(|wanted| other.code.as_ref() == Some(wanted))
            && self.phrase.as_ref().is_none_or(|(pointer, phrase)| {
                text_at(pointer).is_some_and(|text| phrase.words.iter().all(|word| text.contains(word)))
            })
            && (!self.bare || other.answer.json.is_none() && other.challenge.is_none())
    }

    /// The body of an answer that fits, as the conversation has it; `None` if it has none.
    pub(super) fn played(&self) -> Option<Value> {
        let mut answer = Value::Object(Map::new());
        if let Some((pointer, code)) = &self.code {
            put(&mut answer, Some(pointer), code.as_str().into());
        }
        if let Some((pointer, phrase)) = &self.phrase {
            put(&mut answer, Some(pointer), phrase.example.into());
        }
        (self.code.is_some() || self.phrase.is_some()).then_some(answer)
    }
}

/// The `error` of a challenge (RFC 6750 section 3), if it is one of the three that the RFC knows.
fn challenge_error(value: &str) -> Option<String> {
    let value = value.to_ascii_lowercase();
    let known = ["invalid_token", "insufficient_scope", "invalid_request"];
    let found = known
        .iter()
        .find(|error| value.contains(&format!("error=\"{error}\"")) || value.contains(&format!("error={error}")));
    found.map(|error| (*error).to_owned())
}
