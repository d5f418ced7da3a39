//! The text of a learned profile.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::learned_answer::RESPONSE;
use super::learned_bank::{Guess, LearnedBank};
use super::learned_call::CALL;
use super::learned_refusal::{LearnedRefusal, REFUSAL};
use super::learned_request::{LearnedEncoding, LearnedField, REQUEST};
use super::learned_text::{LearnedPiece, LearnedText};
use super::toml_value::{key, one_or_many, quoted, table, toml_value};

/// Writes the profile of a learned bank.
pub(super) fn profile_text(bank: &LearnedBank) -> String {
    let writer = ProfileWriter { bank };
    let mut text = writer.head();
    text += &writer.settings();
    text += &writer.generated();
    text += &writer.request();
    text += &writer.answer();
    text += &writer.failures();
    text += &writer.call();
    text += &writer.refusals();
    text
}

struct ProfileWriter<'a> {
    bank: &'a LearnedBank,
}

impl ProfileWriter<'_> {
    fn head(&self) -> String {
        let LearnedBank { name, basis, seen, .. } = self.bank;
        let mut text = format!(
            "# {name}: learned from examples by `countersign learn`. Look it through before it is used: what no example\n\
             # proves is marked with \"Guessed\".\n\n\
             name    = {}\ntitle   = {}\nbasis   = {}\nsources = [{}]\n",
            quoted(name),
            quoted(&format!("{name}, learned from examples")),
            quoted(basis),
            quoted(&format!("examples: {seen}")),
        );
        text += &self.remarks("base_url");
        text
    }

    /// Comments with the guesses about a place.
    fn remarks(&self, place: &str) -> String {
        let of_place = self.bank.guesses.iter().filter(|guess| guess.place == place);
        let line = |Guess { about, confirmed, .. }: &Guess| {
            format!("# {}: {about}.\n", if *confirmed { "Confirmed when it was learned" } else { "Guessed" })
        };
        of_place.map(line).collect()
    }

    fn settings(&self) -> String {
        let mut text = String::new();
        for setting in self.bank.settings.all() {
            let _ = write!(text, "\n[settings.{}]\ndescription = {}\n", setting.name, quoted(&setting.description));
            if setting.secret {
                text += "secret      = true\n";
            }
            if let Some(default) = &setting.default {
                let _ = writeln!(text, "default     = {}", quoted(default));
            }
        }
        text
    }

    fn generated(&self) -> String {
        let mut text = String::new();
        for time in &self.bank.times {
            let _ = write!(
                text,
                "\n[times.{}]\nformat = {}\nzone   = {}\n",
                time.name,
                quoted(time.format),
                quoted(&time.zone)
            );
        }
        for id in &self.bank.ids {
            let _ = write!(text, "\n[ids.{}]\nkind   = {}\n", id.name, quoted(id.kind));
            if let Some(length) = id.length {
                let _ = writeln!(text, "length = {length}");
            }
            let _ = writeln!(text, "fresh  = {}", quoted(if id.per_call { "call" } else { "attempt" }));
        }
        text
    }

    fn request(&self) -> String {
        let request = &self.bank.request;
        let mut text = format!("\n{}[token.request]\n", self.remarks(REQUEST));
        if request.method != "POST" {
            let _ = writeln!(text, "method   = {}", quoted(&request.method));
        }
        let encoding = match request.encoding {
            LearnedEncoding::Form => "form",
            LearnedEncoding::Json => "json",
            LearnedEncoding::Nothing => "none",
            LearnedEncoding::Query => "query",
        };
        let _ = write!(text, "path     = {}\nencoding = {}\n", quoted(&request.path.template()), quoted(encoding));
        if let Some((id, secret)) = &request.basic {
            let auth = [
                ("mechanism", quoted("basic")),
                ("id", quoted(&id.template())),
                ("secret", quoted(&secret.template())),
                ("form_encode", "false".to_owned()),
            ];
            let _ = writeln!(text, "client_auth = {}", table(auth));
        }
        if !request.headers.is_empty() {
            text += "\n[token.request.headers]\n";
            for (name, value) in &request.headers {
                let _ = writeln!(text, "{} = {}", key(name), quoted(&value.template()));
            }
        }
        if !request.body.is_empty() {
            text += "\n[token.request.body]\n";
            for (name, field) in &request.body {
                let _ = writeln!(text, "{} = {}", key(name), field_text(field));
            }
        }
        text
    }

    fn answer(&self) -> String {
        let answer = &self.bank.answer;
        let mut text = String::new();
        if answer.success.is_some() || !answer.codes.is_empty() {
            let _ = write!(text, "\n{}[token]\n", self.remarks("token"));
        }
        if let Some((pointer, value)) = &answer.success {
            let mut says = vec![("pointer", quoted(pointer)), ("equals", toml_value(value))];
            // An answer with a token that lacks a guessed code is one all the same.
            if self.bank.guesses.iter().any(|guess| guess.place == "token") {
                says.push(("absent", "true".to_owned()));
            }
            // `true` and `false` are words in a condition, too.
            let _ = writeln!(text, "success = [{}]", table(says));
        }
        if !answer.codes.is_empty() {
            let codes: Vec<String> = answer.codes.iter().map(|code| quoted(code)).collect();
            let _ = writeln!(text, "codes   = [{}]", codes.join(", "));
        }
        let _ = write!(text, "\n{}[token.response]\n", self.remarks(RESPONSE));
        let lists = [
            ("access_token", &answer.access_token),
            ("token_type", &answer.token_type),
            ("expires_in", &answer.expires_in),
            ("expires_at", &answer.expires_at),
        ];
        for (name, pointers) in lists.into_iter().filter(|(_, pointers)| !pointers.is_empty()) {
            let _ = writeln!(text, "{name:<12} = {}", one_or_many(pointers));
        }
        if answer.in_milliseconds {
            text += "expires_in_unit = \"ms\"\n";
        }
        if answer.lacks_life {
            text += "default_ttl  = \"5m\"\n";
        }
        text
    }

    fn failures(&self) -> String {
        // One rule for each class and place; those of a status alone only where the class is not the usual one.
        let mut by_code: BTreeMap<(bool, &str, &str), Vec<&str>> = BTreeMap::new();
        let mut text = String::new();
        for failure in self.bank.failures.iter() {
            match &failure.code {
                Some((pointer, code)) if failure.class != "closed" => {
                    let codes = by_code.entry((failure.guessed, failure.class, pointer)).or_default();
                    if !codes.contains(&code.as_str()) {
                        codes.push(code);
                    }
                }
                _ if !failure.is_usual() => {
                    let _ = write!(
                        text,
                        "\n[[token.failure]]\nstatus = {}\nclass  = {}\n",
                        failure.status,
                        quoted(failure.class)
                    );
                    text += GUESSED_CLASS;
                }
                _ => {}
            }
        }
        for ((guessed, class, pointer), codes) in by_code {
            let codes: Vec<String> = codes.into_iter().map(ToOwned::to_owned).collect();
            let condition = table([("pointer", quoted(pointer)), ("equals", one_or_many(&codes))]);
            let _ = write!(text, "\n[[token.failure]]\njson  = [{condition}]\nclass = {}\n", quoted(class));
            if guessed {
                text += GUESSED_CLASS;
            }
        }
        text
    }

    fn call(&self) -> String {
        let call = &self.bank.call;
        let mut text = format!("\n{}[request]\ninject = [\n", self.remarks(CALL));
        if let Some((name, value)) = &call.query {
            let _ = writeln!(text, "  {{ query = {}, value = {} }},", quoted(name), quoted(&value.template()));
        }
        for (name, value) in &call.headers {
            let mut says = vec![("header", quoted(name)), ("value", quoted(&value.template()))];
            if has_id(value) {
                says.extend([("client", quoted("keep")), ("pattern", quoted("[!-~]{1,64}"))]);
            }
            let _ = writeln!(text, "  {},", table(says));
        }
        text += "]\n";
        text
    }

    fn refusals(&self) -> String {
        let mut text = format!("\n{}", self.remarks(REFUSAL));
        let confirmed = self.bank.is_confirmed(REFUSAL);
        for rule in &self.bank.refusals.excludes {
            text += &refusal_text("exclude", rule, confirmed);
        }
        for rule in &self.bank.refusals.matches {
            text += &refusal_text("match", rule, confirmed);
        }
        text
    }
}

/// Marks a class that was told from words.
const GUESSED_CLASS: &str =
    "confirmed = false\nnote      = \"guessed: the class is told from the words of the example\"\n";

/// Returns whether a client's own value of this header may stay.
pub(super) fn has_id(value: &LearnedText) -> bool {
    value.0.iter().any(|piece| matches!(piece, LearnedPiece::Id(_) | LearnedPiece::Uuid | LearnedPiece::UuidHex))
}

fn field_text(field: &LearnedField) -> String {
    match field {
        LearnedField::Constant(value) => toml_value(value),
        LearnedField::List(items) => format!("[{}]", items.iter().map(field_text).collect::<Vec<_>>().join(", ")),
        LearnedField::Object(members) => {
            table(members.iter().map(|(name, member)| (name.as_str(), field_text(member))))
        }
        LearnedField::Text(text) => quoted(&text.template()),
    }
}

fn refusal_text(list: &str, rule: &LearnedRefusal, confirmed: bool) -> String {
    let mut text = format!("[[refusal.{list}]]\nstatus = {}\n", rule.status);
    if let Some(challenge) = &rule.challenge {
        let _ = writeln!(text, "challenge_error = {}", quoted(challenge));
    }
    let code = rule.code.iter().map(|(pointer, code)| table([("pointer", quoted(pointer)), ("equals", quoted(code))]));
    let phrase = rule.phrase.iter();
    let phrase =
        phrase.map(|(pointer, phrase)| table([("pointer", quoted(pointer)), ("matches", quoted(phrase.pattern))]));
    let json: Vec<String> = code.chain(phrase).collect();
    if !json.is_empty() {
        let _ = writeln!(text, "json   = [{}]", json.join(", "));
    }
    if rule.bare {
        text += "bare   = true\n";
    }
    if rule.guessed {
        let note = if rule.bare {
            "guessed: the example has no body, and a missing permission may look the same"
        } else {
            "guessed: the place that RFC 6750 section 3 gives it; no example shows a refused token"
        };
        if confirmed {
            let _ = writeln!(text, "note   = {}", quoted("confirmed when it was learned"));
        } else {
            let _ = write!(text, "confirmed = false\nnote      = {}\n", quoted(note));
        }
    }
    text + "\n"
}
