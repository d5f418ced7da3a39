//! The settings that a profile gets: one for each value of the examples that is no constant.

use super::plain_text::{is_placeholder, name_words, words_of};
use crate::base::secret::{ExposeSecret, SecretString};
use crate::provider::PROVIDER_KEYS;

/// A setting of the learned profile.
#[derive(Clone, Debug)]
pub struct LearnedSetting {
    /// Its name in `[provider.NAME]`.
    pub name: String,
    /// True if it is never shown.
    pub secret: bool,
    /// A few words for people.
    pub description: String,
    /// A plain value that holds unless the config says another.
    pub default: Option<String>,
    /// The value in the conversation, in the place of the real one.
    pub stand_in: String,
    /// The value of the examples.
    raw: SecretString,
}

/// All settings, in the order in which they were found.
#[derive(Clone, Debug, Default)]
pub(super) struct SettingBook {
    settings: Vec<LearnedSetting>,
}

/// Placeholders, which are no names for settings, as keys of every `[provider.NAME]` are none.
const PLACEHOLDERS: [&str; 7] = ["now_epoch", "now_epoch_ms", "now_rfc3339", "token", "uuid", "uuid_hex", "method"];

/// Returns whether a setting cannot have this name.
fn is_taken(name: &str) -> bool {
    PROVIDER_KEYS.contains(&name) || PLACEHOLDERS.contains(&name)
}

/// Values shorter than this are not taken for the same only because they are equal.
const TELLING: usize = 4;

impl SettingBook {
    /// The name of the setting for a value that stands at `field`. Equal values, and placeholders with the same words,
    /// are one setting.
    pub(super) fn setting_for(&mut self, field: &str, value: &str, secret: bool) -> String {
        if let Some(known) = self.settings.iter_mut().find(|known| is_same(known.raw.expose_secret(), value)) {
            if secret && !known.secret {
                known.secret = true;
                known.default = None;
            }
            return known.name.clone();
        }
        let name = self.free_name(field);
        let number = self.settings.iter().filter(|known| known.secret).count() + 1;
        let stand_in = if secret { format!("secret-{number}") } else { format!("{}-1", name.replace('_', "-")) };
        self.settings.push(LearnedSetting {
            description: format!("{} of the bank's requests", name.replace('_', " ")),
            name: name.clone(),
            secret,
            default: None,
            stand_in,
            raw: SecretString::from(value),
        });
        name
    }

    /// The same with a plain value that holds unless the config says another.
    pub(super) fn setting_with_default(&mut self, field: &str, value: &str) -> String {
        let name = self.setting_for(field, value, false);
        if let Some(setting) = self.settings.iter_mut().find(|known| known.name == name && !known.secret) {
            setting.default = Some(value.to_owned());
            setting.stand_in = value.to_owned();
        }
        name
    }

    fn free_name(&self, field: &str) -> String {
        let words: Vec<String> = name_words(field).into_iter().skip_while(|word| word == "x").collect();
        let mut name: String = words.join("_").chars().take(40).collect();
        if !name.starts_with(|c: char| c.is_ascii_alphabetic()) || is_taken(&name) {
            name = format!("bank_{name}").trim_end_matches('_').to_owned();
        }
        let is_free = |name: &str| !self.settings.iter().any(|known| known.name == name);
        if is_free(&name) {
            return name;
        }
        (2..).map(|number| format!("{name}_{number}")).find(|name| is_free(name)).unwrap_or(name)
    }

    /// The settings, in the order in which they were found.
    pub(super) fn all(&self) -> &[LearnedSetting] {
        &self.settings
    }

    /// The stand-in of a setting; empty if there is none of this name.
    pub(super) fn stand_in(&self, name: &str) -> &str {
        self.settings.iter().find(|known| known.name == name).map_or("", |known| known.stand_in.as_str())
    }

    /// Returns whether a setting is a secret.
    pub(super) fn is_secret(&self, name: &str) -> bool {
        self.settings.iter().any(|known| known.name == name && known.secret)
    }

    /// The setting whose value in the examples is this one.
    pub(super) fn of_value(&self, value: &str) -> Option<&LearnedSetting> {
        self.settings.iter().find(|known| is_same(known.raw.expose_secret(), value))
    }

    /// Returns whether one of these texts is the value of a secret setting, as when an earlier answer brought it.
    pub(super) fn comes_from(&self, texts: &[&str]) -> Option<&str> {
        let secrets = self.settings.iter().filter(|known| known.secret && !is_placeholder(known.raw.expose_secret()));
        secrets.filter(|known| texts.contains(&known.raw.expose_secret())).map(|known| known.name.as_str()).next()
    }
}

fn is_same(one: &str, other: &str) -> bool {
    if is_placeholder(one) && is_placeholder(other) {
        let words = words_of(one);
        return !words.is_empty() && words == words_of(other);
    }
    one == other && one.len() >= TELLING
}
