//! The text of the conversation that shows a learned profile at work: the examples, with stand-ins for every value.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::learned_bank::LearnedBank;
use super::learned_refusal::LearnedRefusal;
use super::learned_request::{LearnedEncoding, LearnedField};
use super::learned_text::PlayedValues;
use super::toml_value::{quoted, table, toml_value};

/// Writes the conversation of a learned bank.
pub(super) fn conversation_text(bank: &LearnedBank) -> String {
    let base = bank.base_url.as_deref().unwrap_or(&bank.stand_in_base);
    let settings = bank.settings.all().iter().map(|setting| (setting.name.as_str(), quoted(&setting.stand_in)));
    let mut text = format!(
        "# Learned from examples; every value is a stand-in.\n\nabout    = {}\nbase_url = {}\nsettings = {}\n",
        quoted(&format!("{}: token, failures, call, refusals", bank.name)),
        quoted(base),
        table(settings),
    );
    text += &request(bank, base);
    let _ = write!(
        text,
        "\n[[answer]]\nstatus = 200\njson   = {}\ngrant  = {}\n",
        toml_value(&bank.answer.played()),
        table([("token", quoted("token-1")), ("life", quoted(&format!("{}s", bank.answer.played_life())))]),
    );
    for failure in &bank.failures {
        let _ = write!(
            text,
            "\n[[answer]]\nstatus  = {}\njson    = {}\nfailure = {}\n",
            failure.status,
            toml_value(&failure.played()),
            table([("class", quoted(failure.class))]),
        );
    }
    text += &call(bank);
    for (rules, verdict) in [
        (&bank.refusals.matches, Some("refused")),
        (&bank.refusals.excludes, Some("accepted")),
        (&bank.refusals.unknown, None),
    ] {
        for rule in rules {
            text += &resource(rule, verdict);
        }
    }
    text
}

fn request(bank: &LearnedBank, base: &str) -> String {
    let request = &bank.request;
    let mut values = PlayedValues::first(&bank.settings);
    values.draw(&bank.ids, &request.texts());
    let path = values.play(&request.path);
    let (path, fixed_query) = path.split_once('?').map_or((path.as_str(), None), |(path, query)| (path, Some(query)));
    let mut headers = vec![("accept".to_owned(), "application/json".to_owned())];
    let kind = match request.encoding {
        LearnedEncoding::Form => Some("application/x-www-form-urlencoded"),
        LearnedEncoding::Json => Some("application/json"),
        LearnedEncoding::Nothing | LearnedEncoding::Query => None,
    };
    headers.extend(kind.map(|kind| ("content-type".to_owned(), kind.to_owned())));
    for (name, value) in &request.headers {
        let name = name.to_ascii_lowercase();
        headers.retain(|(known, _)| *known != name);
        let value = values.play(value);
        headers.push((name, value));
    }
    if let Some((id, secret)) = &request.basic {
        let pair = format!("{}:{}", values.play(id), values.play(secret));
        headers.push(("authorization".to_owned(), format!("Basic {}", STANDARD.encode(pair))));
    }
    let mut text =
        format!("\n[request]\nmethod  = {}\nurl     = {}\n", quoted(&request.method), quoted(&format!("{base}{path}")));
    let headers = headers.iter().map(|(name, value)| (name.as_str(), quoted(value)));
    let headers = table(headers);
    let fields: Vec<(String, Value)> =
        request.body.iter().map(|(name, field)| (name.clone(), played(field, &mut values))).collect();
    let pairs = || {
        let flat = fields.iter().flat_map(|(name, value)| match value {
            Value::String(text) => vec![(name.as_str(), text.clone())],
            other => vec![(name.as_str(), other.to_string())],
        });
        form_urlencoded::Serializer::new(String::new()).extend_pairs(flat).finish()
    };
    let query = match request.encoding {
        LearnedEncoding::Query => Some(pairs()),
        _ => fixed_query.map(ToOwned::to_owned),
    };
    if let Some(query) = query {
        let _ = writeln!(text, "query   = {}", quoted(&query));
    }
    let _ = writeln!(text, "headers = {headers}");
    match request.encoding {
        LearnedEncoding::Form => {
            let _ = writeln!(text, "body    = {}", quoted(&pairs()));
        }
        LearnedEncoding::Json => {
            let object: Map<String, Value> = fields.iter().cloned().collect();
            let _ = writeln!(text, "json    = {}", toml_value(&Value::Object(object)));
        }
        LearnedEncoding::Nothing | LearnedEncoding::Query => {}
    }
    text
}

fn played(field: &LearnedField, values: &mut PlayedValues<'_>) -> Value {
    match field {
        LearnedField::Constant(value) => value.clone(),
        LearnedField::List(items) => items.iter().map(|item| played(item, values)).collect(),
        LearnedField::Object(members) => {
            Value::Object(members.iter().map(|(name, member)| (name.clone(), played(member, values))).collect())
        }
        LearnedField::Text(text) => values.play(text).into(),
    }
}

fn call(bank: &LearnedBank) -> String {
    let dress = |token: &'static str| {
        let mut values = PlayedValues::first(&bank.settings);
        values.token = token;
        let headers: Vec<(String, String)> = bank
            .call
            .headers
            .iter()
            .map(|(name, value)| (name.to_ascii_lowercase(), values.beginning(value)))
            .collect();
        let target = bank.call.query.as_ref().map(|(name, value)| format!("/?{name}={}", values.play(value)));
        (table(headers.iter().map(|(name, value)| (name.as_str(), quoted(value)))), target)
    };
    let ((first, target), (second, again)) = (dress("first-token"), dress("second-token"));
    let mut text = format!(
        "\n[[call]]\nclient   = {{ authorization = \"Bearer forged\" }}\ndressed  = {first}\nreplayed = {second}\n"
    );
    if let (Some(target), Some(again)) = (target, again) {
        let _ = write!(text, "target   = {}\nreplayed_target = {}\n", quoted(&target), quoted(&again));
    }
    text
}

fn resource(rule: &LearnedRefusal, verdict: Option<&str>) -> String {
    let verdict = verdict.unwrap_or(if rule.status == 401 { "unknown" } else { "accepted" });
    let mut text = format!("\n[[resource]]\nstatus  = {}\n", rule.status);
    if let Some(challenge) = &rule.challenge {
        let _ = writeln!(
            text,
            "headers = {}",
            table([("www-authenticate", quoted(&format!("Bearer error=\"{challenge}\"")))])
        );
    }
    if let Some(json) = rule.played() {
        let _ = writeln!(text, "json    = {}", toml_value(&json));
    }
    let _ = writeln!(text, "verdict = {}", quoted(verdict));
    text
}
