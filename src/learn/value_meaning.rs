//! The meaning of a request's values: constants, settings, and what is made for each message.

use http::HeaderName;

use super::learned_text::{BuiltinTime, LearnedPiece, LearnedText};
use super::plain_text::{is_placeholder, is_plain_text, name_words, squashed};
use super::setting_book::SettingBook;
use crate::base::time::of_rfc3339;
use crate::token::grant::CallPlace;

/// A declaration of `[times]`: its name, format and zone.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct LearnedTime {
    pub name: String,
    pub format: &'static str,
    /// `Z`, or an offset such as `+07:00`.
    pub zone: String,
}

/// A declaration of `[ids]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct LearnedId {
    pub name: String,
    pub kind: &'static str,
    /// Characters, of the kinds that have no fixed length.
    pub length: Option<usize>,
    /// True: a replay carries the same.
    pub per_call: bool,
}

/// The place at which a value stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum ValuePlace {
    /// A header or a field of the token call.
    TokenCall,
    /// A header of a call of the API.
    ApiCall,
}

/// All that values of requests become: settings, times, ids, and remarks on what was guessed.
#[derive(Clone, Debug, Default)]
pub(super) struct ValueMeanings {
    pub settings: SettingBook,
    pub times: Vec<LearnedTime>,
    pub ids: Vec<LearnedId>,
    /// Guesses: the place in the profile, and the sentence about it.
    pub guesses: Vec<(&'static str, String)>,
    /// True if a field of the same request is called a secret: then a key beside it is only an identifier.
    pub has_secret_beside: bool,
}

/// Returns whether a name says that its value is a secret.
pub(super) fn is_secret_name(name: &str) -> bool {
    const PARTS: [&str; 20] = [
        "secret",
        "password",
        "passwd",
        "passphrase",
        "passcode",
        "pwd",
        "privatekey",
        "apikey",
        "accesskey",
        "subscriptionkey",
        "token",
        "assertion",
        "credential",
        "signature",
        "cookie",
        "session",
        "authorization",
        "jwt",
        "hmac",
        "auth_key",
    ];
    let plain = squashed(name);
    let words = name_words(name);
    let is_type = plain.ends_with("type") || plain.ends_with("method") || plain.ends_with("url");
    !is_type
        && (PARTS.iter().any(|part| plain.contains(part))
            || plain.ends_with("key")
            || plain.ends_with("hash")
            || words.iter().any(|word| ["pin", "mpin", "otp", "key", "cert", "certificate"].contains(&word.as_str())))
}

/// Returns whether a name says that its value names somebody or something.
fn is_identity_name(name: &str) -> bool {
    const WORDS: [&str; 27] = [
        "id",
        "ids",
        "uid",
        "user",
        "username",
        "login",
        "email",
        "mail",
        "account",
        "partner",
        "merchant",
        "company",
        "corporate",
        "corp",
        "customer",
        "client",
        "consumer",
        "owner",
        "tenant",
        "phone",
        "mobile",
        "msisdn",
        "number",
        "no",
        "org",
        "organization",
        "subscription",
    ];
    let words = name_words(name);
    let is_named = words.iter().any(|word| WORDS.contains(&word.as_str()));
    is_named || squashed(name).ends_with("id") || squashed(name).ends_with("username")
}

/// Returns whether a name says that its value is another one in each message.
pub(super) fn is_fresh_name(name: &str) -> bool {
    const WORDS: [&str; 21] = [
        "request",
        "req",
        "message",
        "msg",
        "msgid",
        "trace",
        "traceid",
        "correlation",
        "transaction",
        "txn",
        "nonce",
        "jti",
        "guid",
        "uuid",
        "reference",
        "ref",
        "interaction",
        "span",
        "unique",
        "external",
        "conversation",
    ];
    let words = name_words(name);
    let is_named = words.iter().any(|word| WORDS.contains(&word.as_str()));
    let is_person =
        words.iter().any(|word| ["client", "consumer", "user", "app", "owner", "partner"].contains(&word.as_str()));
    is_named && !is_person
}

/// Returns whether an id of this name only follows a message, so that a replay carries a new one. All others may be what
/// the bank knows a payment by.
pub(super) fn is_trace_name(name: &str) -> bool {
    const WORDS: [&str; 10] =
        ["request", "req", "message", "msg", "msgid", "trace", "traceid", "correlation", "span", "interaction"];
    let words = name_words(name);
    !names_payment(name)
        && words.iter().any(|word| WORDS.contains(&word.as_str()))
        && !words.iter().any(|word| ["reference", "ref", "payment", "transaction"].contains(&word.as_str()))
}

/// Returns whether a name says that the bank knows a payment by the value.
fn names_payment(name: &str) -> bool {
    HeaderName::from_bytes(name.as_bytes()).is_ok_and(|name| CallPlace::Header(name).names_payment())
}

fn is_time_name(name: &str) -> bool {
    const WORDS: [&str; 7] = ["timestamp", "time", "date", "datetime", "ts", "stamp", "iat"];
    name_words(name).iter().any(|word| WORDS.contains(&word.as_str()))
}

/// Names whose plain values are words of a protocol.
fn is_protocol_name(name: &str) -> bool {
    const NAMES: [&str; 9] = [
        "granttype",
        "responsetype",
        "contenttype",
        "accept",
        "acceptlanguage",
        "apiversion",
        "version",
        "clientassertiontype",
        "requestedtokentype",
    ];
    NAMES.contains(&squashed(name).trim_start_matches('x'))
}

/// Names whose plain values are choices of whoever calls.
fn is_choice_name(name: &str) -> bool {
    ["scope", "scopes", "audience", "resource"].contains(&squashed(name).as_str())
}

fn is_uuid(value: &str) -> bool {
    let groups: Vec<usize> = value.split('-').map(str::len).collect();
    groups == [8, 4, 4, 4, 12] && value.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
}

fn is_uuid_hex(value: &str) -> bool {
    value.len() == 32 && value.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Returns whether a placeholder asks for a value that is made for each message, such as `$(uuidgen)`.
fn asks_for_uuid(value: &str) -> bool {
    let plain = squashed(value);
    is_placeholder(value) && ["uuid", "guid"].iter().any(|word| plain.contains(word))
}

impl ValueMeanings {
    /// Notes a guess, once.
    pub(super) fn guess(&mut self, place: &'static str, about: String) {
        let guess = (place, about);
        if !self.guesses.contains(&guess) {
            self.guesses.push(guess);
        }
    }

    /// The meaning of the value at the header or field `name`. `section`: the place in the profile, for remarks.
    pub(super) fn of(&mut self, name: &str, value: &str, place: ValuePlace, section: &'static str) -> LearnedText {
        // The name of a payment's identity may hold "key" or "client": it is another one for each payment even so.
        if asks_for_uuid(value) || names_payment(name) || (is_fresh_name(name) && !is_secret_name(name)) {
            return self.fresh_id(name, value, place, section);
        }
        if is_time_name(name)
            && !is_secret_name(name)
            && let Some(time) = self.time(value)
        {
            self.guess(section, format!("`{name}` is the time of the message"));
            return time;
        }
        let squashed_name = squashed(name);
        let is_paired = self.has_secret_beside && squashed_name.ends_with("key") && !squashed_name.contains("secret");
        if is_secret_name(name) && !is_paired {
            return self.secret(name, value);
        }
        if is_paired {
            self.guess(section, format!("`{name}` is an identifier, not a secret: there is a secret beside it"));
            return self.plain_setting(name, value);
        }
        if let Some(known) = self.settings.of_value(value) {
            return LearnedText::of(LearnedPiece::Setting(known.name.clone()));
        }
        if is_placeholder(value) || (is_identity_name(name) && !is_protocol_name(name)) {
            return self.plain_setting(name, value);
        }
        if is_uuid(value) && place == ValuePlace::ApiCall {
            return self.fresh_id(name, value, place, section);
        }
        if is_choice_name(name) && is_plain_text(value) {
            return LearnedText::of(LearnedPiece::Setting(self.settings.setting_with_default(name, value)));
        }
        if is_plain_text(value) {
            if !is_protocol_name(name) {
                self.guess(section, format!("`{name}` has the same value in every request"));
            }
            return LearnedText::literal(value);
        }
        self.guess(
            section,
            format!("the value of `{name}` is not explained: it is taken for a secret that stays the same"),
        );
        self.secret(name, value)
    }

    /// A secret setting. A scheme in front of it, as in `Bearer …`, stays a constant.
    pub(super) fn secret(&mut self, name: &str, value: &str) -> LearnedText {
        match value.split_once(' ') {
            Some((scheme, rest)) if is_scheme(scheme) && !rest.trim().is_empty() => {
                let setting = self.settings.setting_for(name, rest.trim(), true);
                LearnedText(vec![LearnedPiece::Literal(format!("{scheme} ")), LearnedPiece::Setting(setting)])
            }
            Some(_) | None => LearnedText::of(LearnedPiece::Setting(self.settings.setting_for(name, value, true))),
        }
    }

    fn plain_setting(&mut self, name: &str, value: &str) -> LearnedText {
        LearnedText::of(LearnedPiece::Setting(self.settings.setting_for(name, value, false)))
    }

    fn fresh_id(&mut self, name: &str, value: &str, place: ValuePlace, section: &'static str) -> LearnedText {
        let is_digits = value.len() >= 8 && value.bytes().all(|b| b.is_ascii_digit());
        let (kind, length) = match value {
            _ if is_digits && value.len() <= 64 => ("numeric", Some(value.len())),
            _ if is_uuid_hex(value) => ("uuid-hex", None),
            _ => ("uuid", None),
        };
        let per_call = place == ValuePlace::ApiCall && !is_trace_name(name);
        let scope = match (place, per_call) {
            (ValuePlace::TokenCall, _) => "",
            (ValuePlace::ApiCall, true) => ", and the same on a replay",
            (ValuePlace::ApiCall, false) => ", also on a replay",
        };
        self.guess(section, format!("`{name}` is a fresh id for every request ({kind}){scope}"));
        match (kind, per_call) {
            ("uuid", false) => LearnedText::of(LearnedPiece::Uuid),
            ("uuid-hex", false) => LearnedText::of(LearnedPiece::UuidHex),
            _ => {
                let words = name_words(name);
                let words = words.iter().filter(|word| *word != "x" && *word != "id").map(String::as_str);
                let base: String = words.collect::<Vec<_>>().join("_");
                let base = if base.is_empty() { "call".to_owned() } else { base };
                let wanted = LearnedId { name: base.clone(), kind, length, per_call };
                let id = match self.ids.iter().find(|known| known.name == base) {
                    Some(known) if *known == wanted => known.clone(),
                    Some(_) => LearnedId { name: format!("{base}_{}", self.ids.len() + 1), ..wanted },
                    None => wanted,
                };
                if !self.ids.contains(&id) {
                    self.ids.push(id.clone());
                }
                LearnedText::of(LearnedPiece::Id(id.name))
            }
        }
    }

    /// The form of a time; `None` if the value is none.
    fn time(&mut self, value: &str) -> Option<LearnedText> {
        let value = value.trim();
        let is_digits = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
        let builtin = |form| Some(LearnedText::of(LearnedPiece::Now(form)));
        if is_digits && value.len() == 10 {
            return builtin(BuiltinTime::Epoch);
        }
        if is_digits && value.len() == 13 {
            return builtin(BuiltinTime::EpochMs);
        }
        if is_digits && value.len() == 14 && value.starts_with("20") {
            return Some(self.declared("%Y%m%d%H%M%S", "Z", "20190214080305".to_owned()));
        }
        if value.ends_with(" GMT") && value.len() == 29 {
            return Some(self.declared("http-date", "Z", "Thu, 14 Feb 2019 08:03:05 GMT".to_owned()));
        }
        if is_placeholder(value) && (value.starts_with("$(") || value.starts_with("{{$")) {
            return builtin(BuiltinTime::Rfc3339);
        }
        of_rfc3339(value)?;
        let zone = zone_of(value)?;
        if value.contains('.') && zone == "Z" {
            return builtin(BuiltinTime::Rfc3339);
        }
        let format = if value.contains('.') { "rfc3339" } else { "rfc3339-seconds" };
        let fraction = if value.contains('.') { ".000" } else { "" };
        let played = format!("{}{fraction}{zone}", shifted(&zone));
        Some(self.declared(format, &zone, played))
    }

    fn declared(&mut self, format: &'static str, zone: &str, played: String) -> LearnedText {
        let known = self.times.iter().find(|known| known.format == format && known.zone == zone).cloned();
        let time = known.unwrap_or_else(|| {
            let name = match self.times.len() {
                0 => "stamp".to_owned(),
                others => format!("stamp_{}", others + 1),
            };
            let time = LearnedTime { name, format, zone: zone.to_owned() };
            self.times.push(time.clone());
            time
        });
        LearnedText::of(LearnedPiece::Time(time.name, played))
    }
}

/// Returns whether a word in front of a credential is a scheme (RFC 9110 section 11.1), not a part of the credential.
fn is_scheme(word: &str) -> bool {
    let known = ["bearer", "basic", "token", "apikey", "api-key", "key", "dpop", "jwt", "oauth", "oauth2", "sso-key"];
    known.contains(&word.to_ascii_lowercase().as_str())
}

/// The zone of a time in RFC 3339; `None` if it is not one of whole hours or quarters.
fn zone_of(value: &str) -> Option<String> {
    if value.ends_with(['Z', 'z']) {
        return Some("Z".to_owned());
    }
    let zone = value.get(value.len().checked_sub(6)?..)?;
    let is_zone = zone.starts_with(['+', '-']) && zone.bytes().filter(|b| *b == b':').count() == 1;
    is_zone.then(|| zone.to_owned())
}

/// The date and time of a conversation's request in a zone.
fn shifted(zone: &str) -> String {
    let minutes = |text: &str| {
        let (hours, minutes) = text.split_once(':').unwrap_or((text, "0"));
        hours.parse::<i32>().unwrap_or(0) * 60 + minutes.parse::<i32>().unwrap_or(0)
    };
    let east = match (zone.strip_prefix('+'), zone.strip_prefix('-')) {
        (Some(ahead), _) => minutes(ahead),
        (None, Some(behind)) => -minutes(behind),
        (None, None) => 0,
    };
    let total = 8 * 60 + 3 + east;
    let (day, of_day) = (14 + total.div_euclid(1440), total.rem_euclid(1440));
    format!("2019-02-{day:02}T{:02}:{:02}:05", of_day / 60, of_day % 60)
}
