//! Identifiers that a profile declares: `[ids.NAME]`.
//!
//! ```text
//! [ids.external]
//! kind   = "numeric"    # or "alphanumeric", "uuid", "uuid-hex"
//! length = 18
//! fresh  = "call"
//! ```

use std::sync::Arc;

use crate::base::id::Ids;
use crate::provider::message_values::Fresh;
use crate::provider::template::is_name;
use crate::provider::values::choice;
use crate::syntax::{Diagnostics, Fields, TableEntry};

/// The fewest random characters of an identifier: of 8 digits, a thousand a day already repeat once in 200 days.
const SHORTEST: usize = 8;

/// The most characters of an identifier.
const LONGEST: usize = 64;

/// The number of characters that are made from one draw: its 122 random bits are then as good as uniform.
const CHUNK: usize = 18;

/// The form of an identifier.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum IdKind {
    /// So many capital letters and digits.
    Alphanumeric(usize),
    /// So many decimal digits.
    Digits(usize),
    /// A version 4 UUID, 36 characters.
    Uuid,
    /// A version 4 UUID, 32 hexadecimal digits.
    UuidHex,
}

/// One `[ids.NAME]` of a profile.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct IdRule {
    pub name: Arc<str>,
    pub kind: IdKind,
    /// The scope of its values; `None`: as `replay_id` of `[request]` says.
    pub fresh: Option<Fresh>,
}

impl IdRule {
    /// Reads one entry of `[ids]`.
    pub(super) fn read(entry: &TableEntry, report: &Diagnostics) -> Option<Arc<Self>> {
        if !is_name(&entry.key) {
            let title = format!("{:?} is no name for an id", entry.key);
            report.error(&entry.value.source, entry.key_span.clone(), title, "letters, digits, `_` and `-`", None);
        }
        let fields = Fields::new(&entry.value, format!("[ids.{}]", entry.key), report);
        let kinds = [
            ("alphanumeric", IdKind::Alphanumeric(0)),
            ("numeric", IdKind::Digits(0)),
            ("uuid", IdKind::Uuid),
            ("uuid-hex", IdKind::UuidHex),
        ];
        let kind = match fields.take("kind") {
            Some(node) => choice(node, report, &kinds),
            None => {
                fields.missing("kind", "\"numeric\"");
                None
            }
        };
        let (length_node, length) = (fields.take("length"), fields.opt::<u64>("length"));
        let length = length.and_then(|length| usize::try_from(length).ok());
        let sized = || match (length, length_node) {
            (Some(length), _) if (SHORTEST..=LONGEST).contains(&length) => Some(length),
            (Some(length), Some(node)) => {
                let help = if length < SHORTEST {
                    "so few random characters repeat within days; put a time before them: `{time.NAME}{id.NAME}`"
                } else {
                    "take two ids"
                };
                let title = format!("an id has {SHORTEST} to {LONGEST} characters");
                node.error(report, title, "", Some(help.to_owned()));
                None
            }
            (Some(_) | None, None) => {
                fields.missing("length", "18");
                None
            }
            (None, Some(_)) => None,
        };
        let kind = match kind {
            Some(IdKind::Alphanumeric(_)) => sized().map(IdKind::Alphanumeric),
            Some(IdKind::Digits(_)) => sized().map(IdKind::Digits),
            Some(kind @ (IdKind::Uuid | IdKind::UuidHex)) => {
                if let Some(node) = length_node {
                    node.error(report, "a UUID has a length of its own", "take it out", None);
                }
                Some(kind)
            }
            None => None,
        };
        let fresh = Fresh::take(&fields);
        fields.finish();
        Some(Arc::new(Self { name: entry.key.as_str().into(), kind: kind?, fresh }))
    }

    /// Draws a value. Letters and digits are random and independent: no two processes have to agree on them.
    pub(super) fn draw(&self, ids: &mut dyn Ids) -> Box<str> {
        match self.kind {
            IdKind::Alphanumeric(length) => characters(length, b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ", ids),
            IdKind::Digits(length) => characters(length, b"0123456789", ids),
            IdKind::Uuid => ids.fresh().hyphenated().to_string().into(),
            IdKind::UuidHex => ids.fresh().simple().to_string().into(),
        }
    }
}

fn characters(length: usize, alphabet: &[u8], ids: &mut dyn Ids) -> Box<str> {
    let mut text = String::with_capacity(length);
    while text.len() < length {
        let mut number = random_bits(ids);
        let mut chunk = [0_u8; CHUNK];
        let chunk = &mut chunk[..CHUNK.min(length - text.len())];
        for place in chunk.iter_mut().rev() {
            let digit = number % alphabet.len() as u128;
            *place = alphabet.get(digit as usize).copied().unwrap_or(b'0');
            number /= alphabet.len() as u128;
        }
        text.extend(chunk.iter().map(|byte| char::from(*byte)));
    }
    text.into()
}

/// The 122 bits of a version 4 UUID that are random, without its version and its variant (RFC 9562 section 5.4).
fn random_bits(ids: &mut dyn Ids) -> u128 {
    let bits = ids.fresh().as_u128();
    let (high, middle, low) = (bits >> 80, (bits >> 64) & 0xfff, bits & ((1 << 62) - 1));
    (high << 74) | (middle << 62) | low
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::base::id::{CountingIds, RandomIds};
    use crate::syntax::{Diagnostic, Node, SourceText};

    fn drawn(kind: IdKind, ids: &mut dyn Ids) -> Box<str> {
        IdRule { name: "a".into(), kind, fresh: None }.draw(ids)
    }

    #[test]
    fn ids_have_the_form_and_the_length_that_was_asked_for() {
        let mut ids = CountingIds::default();
        assert_eq!(&*drawn(IdKind::Digits(18), &mut ids), "000000000000000001");
        assert_eq!(&*drawn(IdKind::Digits(20), &mut ids), "00000000000000000203");
        assert_eq!(&*drawn(IdKind::Alphanumeric(8), &mut ids), "00000004");
        assert_eq!(&*drawn(IdKind::UuidHex, &mut ids), "00000000000040008000000000000005");
        for length in SHORTEST..=LONGEST {
            let digits = drawn(IdKind::Digits(length), &mut RandomIds);
            assert!(digits.len() == length && digits.bytes().all(|byte| byte.is_ascii_digit()), "{digits}");
            let letters = drawn(IdKind::Alphanumeric(length), &mut RandomIds);
            assert!(letters.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase()), "{letters}");
        }
    }

    #[test]
    fn random_ids_do_not_repeat_and_use_every_digit() {
        let many: HashSet<Box<str>> = (0..20_000).map(|_| drawn(IdKind::Digits(18), &mut RandomIds)).collect();
        assert_eq!(many.len(), 20_000);
        for place in 0..18 {
            let digits: HashSet<u8> = many.iter().filter_map(|id| id.bytes().nth(place)).collect();
            assert_eq!(digits.len(), 10, "place {place}");
        }
    }

    #[test]
    fn mistakes_in_a_declaration_are_told() {
        let found = |text: &str| {
            let report = Diagnostics::new();
            let node = Node::parse(&SourceText::new("p", text), &report);
            let fields = Fields::new(&node, "ids", &report);
            let all = fields.rest().into_iter().all(|entry| IdRule::read(entry, &report).is_some());
            fields.finish();
            let told: Vec<String> = report.into_diagnostics().iter().map(Diagnostic::one_line).collect();
            assert_eq!(all, told.is_empty(), "{told:?}");
            told.join("\n")
        };
        assert_eq!(found("[a]\nkind = \"numeric\"\nlength = 18\nfresh = \"call\"\n[b]\nkind = \"uuid\"\n"), "");
        for (text, title) in [
            ("[a]\nkind = \"numeric\"\n", "has no `length`"),
            ("[a]\nkind = \"numeric\"\nlength = 4\n", "an id has 8 to 64 characters"),
            ("[a]\nkind = \"numeric\"\nlength = 99\n", "an id has 8 to 64 characters"),
            ("[a]\nkind = \"numerc\"\nlength = 9\n", "did you mean `\"numeric\"`?"),
            ("[a]\nlength = 9\n", "has no `kind`"),
        ] {
            assert!(found(text).contains(title), "{text}");
        }
    }
}
