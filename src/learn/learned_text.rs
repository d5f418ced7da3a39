//! Texts of a learned request: pieces that become a template in the profile, and a value in the conversation.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::setting_book::SettingBook;
use super::value_meaning::LearnedId;

/// A piece of a header's or a field's value.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum LearnedPiece {
    /// An id of `[ids]` by its name.
    Id(String),
    /// A plain constant.
    Literal(String),
    /// The time of the message; a form that is built in.
    Now(BuiltinTime),
    Setting(String),
    /// A time of `[times]` by its name, and its text in the conversation.
    Time(String, String),
    Token,
    Uuid,
    UuidHex,
}

/// The forms of a time for which there is a placeholder.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum BuiltinTime {
    Epoch,
    EpochMs,
    Rfc3339,
}

/// A value, piece by piece.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct LearnedText(pub Vec<LearnedPiece>);

impl LearnedText {
    /// A text of one piece.
    pub(super) fn of(piece: LearnedPiece) -> Self {
        Self(vec![piece])
    }

    /// A constant text. The caller has made sure that it is plain.
    pub(super) fn literal(text: &str) -> Self {
        Self::of(LearnedPiece::Literal(text.to_owned()))
    }

    /// The template of the profile language.
    pub(super) fn template(&self) -> String {
        let mut text = String::new();
        for piece in &self.0 {
            let _ = match piece {
                LearnedPiece::Id(name) => write!(text, "{{id.{name}}}"),
                LearnedPiece::Literal(literal) => write!(text, "{}", literal.replace('{', "{{").replace('}', "}}")),
                LearnedPiece::Now(BuiltinTime::Epoch) => write!(text, "{{now_epoch}}"),
                LearnedPiece::Now(BuiltinTime::EpochMs) => write!(text, "{{now_epoch_ms}}"),
                LearnedPiece::Now(BuiltinTime::Rfc3339) => write!(text, "{{now_rfc3339}}"),
                LearnedPiece::Setting(name) => write!(text, "{{{name}}}"),
                LearnedPiece::Time(name, _) => write!(text, "{{time.{name}}}"),
                LearnedPiece::Token => write!(text, "{{token}}"),
                LearnedPiece::Uuid => write!(text, "{{uuid}}"),
                LearnedPiece::UuidHex => write!(text, "{{uuid_hex}}"),
            };
        }
        text
    }

    /// Returns whether every message has another one.
    pub(super) fn is_fresh(&self) -> bool {
        self.0.iter().any(|piece| match piece {
            LearnedPiece::Id(_)
            | LearnedPiece::Now(_)
            | LearnedPiece::Time(..)
            | LearnedPiece::Uuid
            | LearnedPiece::UuidHex => true,
            LearnedPiece::Literal(_) | LearnedPiece::Setting(_) | LearnedPiece::Token => false,
        })
    }

    /// The settings in it.
    pub(super) fn settings(&self) -> impl Iterator<Item = &str> {
        self.0
            .iter()
            .filter_map(|piece| if let LearnedPiece::Setting(name) = piece { Some(name.as_str()) } else { None })
    }
}

/// The values of a message in a conversation, where identifiers count up.
pub(super) struct PlayedValues<'a> {
    pub settings: &'a SettingBook,
    pub token: &'static str,
    /// Seconds behind the time of the conversation.
    pub later: u64,
    counted: u64,
    /// The values of `[ids]`, by name.
    ids: BTreeMap<String, String>,
}

/// The digits of an id that one counted identifier gives.
const DIGITS_AT_ONCE: usize = 18;

/// The time at which the token request of a conversation is sent, in seconds since 1970.
const SENT: u64 = 1_550_131_385;

impl<'a> PlayedValues<'a> {
    /// The values of the first attempt.
    pub(super) fn first(settings: &'a SettingBook) -> Self {
        Self { settings, token: "first-token", later: 0, counted: 0, ids: BTreeMap::new() }
    }

    /// Draws the declared ids that these texts name: before all other identifiers, in the order of their names.
    pub(super) fn draw(&mut self, declared: &[LearnedId], texts: &[&LearnedText]) {
        let is_named = |id: &&LearnedId| texts.iter().any(|text| text.0.contains(&LearnedPiece::Id(id.name.clone())));
        let mut named: Vec<&LearnedId> = declared.iter().filter(is_named).collect();
        named.sort_by(|one, other| one.name.cmp(&other.name));
        for id in named {
            let mut value = String::new();
            match id.length {
                Some(length) => {
                    while value.len() < length {
                        self.counted += 1;
                        let width = DIGITS_AT_ONCE.min(length - value.len());
                        let _ = write!(value, "{:0width$}", self.counted);
                    }
                }
                None => value = "…".to_owned(),
            }
            self.ids.insert(id.name.clone(), value);
        }
    }

    /// The text that comes out. One that ends with `…` is the beginning.
    pub(super) fn play(&mut self, text: &LearnedText) -> String {
        let mut out = String::new();
        for piece in &text.0 {
            let at = SENT + self.later;
            let _ = match piece {
                LearnedPiece::Id(name) => match self.ids.get(name) {
                    Some(value) => write!(out, "{value}"),
                    None => {
                        out.push('…');
                        return out;
                    }
                },
                LearnedPiece::Literal(literal) => write!(out, "{literal}"),
                LearnedPiece::Now(BuiltinTime::Epoch) => write!(out, "{at}"),
                LearnedPiece::Now(BuiltinTime::EpochMs) => write!(out, "{at}000"),
                LearnedPiece::Now(BuiltinTime::Rfc3339) => write!(out, "2019-02-14T08:03:0{}.000Z", 5 + self.later % 5),
                LearnedPiece::Setting(name) => write!(out, "{}", self.settings.stand_in(name)),
                LearnedPiece::Time(_, played) => write!(out, "{played}"),
                LearnedPiece::Token => write!(out, "{}", self.token),
                LearnedPiece::Uuid => {
                    self.counted += 1;
                    write!(out, "00000000-0000-4000-8000-{:012x}", self.counted)
                }
                LearnedPiece::UuidHex => {
                    self.counted += 1;
                    write!(out, "00000000000040008000{:012x}", self.counted)
                }
            };
        }
        out
    }

    /// The beginning of the text that comes out, where identifiers and times do not matter.
    pub(super) fn beginning(&mut self, text: &LearnedText) -> String {
        if text.is_fresh() { "…".to_owned() } else { self.play(text) }
    }
}
