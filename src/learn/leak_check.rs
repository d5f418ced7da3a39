//! The last look at a text before it is written or shown: no value of the examples is in it that must not be.

use super::observed::{ObservedBody, ObservedExchange};
use super::plain_text::{is_placeholder, is_plain_text};
use super::setting_book::SettingBook;
use crate::base::secret::{ExposeSecret, SecretString};
use serde_json::Value;

/// Values shorter than this are found everywhere by accident.
const TELLING: usize = 6;
/// The most values that are looked for.
const MOST: usize = 200_000;

/// All values of the examples that are no plain constants, and the values of secrets.
#[derive(Default)]
pub(super) struct LeakCheck {
    values: Vec<SecretString>,
}

impl std::fmt::Debug for LeakCheck {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LeakCheck").field("values", &self.values.len()).finish()
    }
}

impl LeakCheck {
    /// Gathers the values. `own`: texts that were found plain and are said on purpose.
    pub(super) fn of(exchanges: &[ObservedExchange], settings: &SettingBook, own: &[String]) -> Self {
        let mut found = Vec::new();
        for exchange in exchanges {
            let request = &exchange.request;
            let pairs = request.headers.iter().chain(&request.query);
            found.extend(pairs.map(|(_, value)| value.as_str()));
            found.extend(request.basic.iter().flat_map(|(id, secret)| [id.as_str(), secret.as_str()]));
            match &request.body {
                ObservedBody::Form(pairs) => found.extend(pairs.iter().map(|(_, value)| value.as_str())),
                ObservedBody::Json(value) => texts(value, &mut found),
                ObservedBody::Nothing | ObservedBody::Other => {}
            }
            if let Some(answer) = &exchange.answer {
                found.extend(answer.headers.iter().map(|(_, value)| value.as_str()));
                answer.json.iter().for_each(|json| texts(json, &mut found));
            }
        }
        let is_secret = |value: &str| {
            let by_setting = settings.of_value(value).is_some_and(|setting| setting.secret);
            by_setting || !is_plain_text(value)
        };
        let mut values: Vec<&str> = found
            .into_iter()
            .flat_map(|value| {
                // Behind a scheme, as in `Bearer …`.
                [Some(value), value.split_once(' ').map(|(_, rest)| rest)]
            })
            .flatten()
            .map(str::trim)
            .filter(|value| value.len() >= TELLING && !is_placeholder(value) && is_secret(value))
            .filter(|value| !own.iter().any(|own| own == value))
            .collect();
        values.sort_unstable();
        values.dedup();
        values.truncate(MOST + 1);
        Self { values: values.into_iter().map(SecretString::from).collect() }
    }

    /// Passes a text in which none of the values is.
    pub(super) fn pass(&self, text: String) -> Result<String, String> {
        if self.values.len() > MOST {
            return Err(format!("the examples have more than {MOST} values: cut them down to the calls that matter"));
        }
        let shown =
            |value: &SecretString| value.expose_secret().len() <= text.len() && text.contains(value.expose_secret());
        if self.values.iter().any(shown) {
            return Err(
                "a value of the examples would be in what is written, so nothing is; put a placeholder such as \
                        `<client secret>` in the place of every secret, and try again"
                    .to_owned(),
            );
        }
        Ok(text)
    }
}

fn texts<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::String(text) => found.push(text),
        Value::Array(items) => items.iter().for_each(|item| texts(item, found)),
        Value::Object(members) => members.values().for_each(|member| texts(member, found)),
        Value::Bool(_) | Value::Null | Value::Number(_) => {}
    }
}
