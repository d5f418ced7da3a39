//! Times that a profile declares: `[times.NAME]`, a form and an offset from UTC.
//!
//! ```text
//! [times.stamp]
//! format = "%Y%m%d%H%M%S"    # or a word: "rfc3339", "rfc3339-seconds", "http-date", "epoch", "epoch-ms"
//! zone   = "+03:00"
//! ```

use std::fmt::Write;
use std::sync::Arc;

use crate::base::time::CivilTime;
use crate::provider::message_values::{Fresh, MessageValues};
use crate::provider::template::is_name;
use crate::syntax::{Diagnostics, Fields, FromNode, Node, TableEntry, suggest};

/// The words that stand for a form, with the pattern that they abbreviate.
const WORDS: [(&str, &str); 5] = [
    ("epoch", "%s"),
    ("epoch-ms", "%s%3f"),
    ("http-date", "%a, %d %b %Y %H:%M:%S GMT"),
    ("rfc3339", "%Y-%m-%dT%H:%M:%S.%3fZ"),
    ("rfc3339-seconds", "%Y-%m-%dT%H:%M:%SZ"),
];

/// The farthest offset from UTC that is in use, in minutes.
const FARTHEST: i32 = 14 * 60;

const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// A piece of a time's form.
#[derive(Clone, Debug, Eq, PartialEq)]
enum TimePiece {
    Day,
    DayName,
    DayOfYear,
    /// Seconds since 1970.
    Epoch,
    Hour,
    Literal(String),
    Millisecond,
    Minute,
    Month,
    MonthName,
    /// The offset from UTC, with a colon or without.
    Offset {
        colon: bool,
    },
    Second,
    Year,
    /// The last two digits of the year.
    YearOfCentury,
    /// `Z`, or an offset with a colon where one was declared (RFC 3339 section 5.6).
    Zone,
}

/// The pieces that a pattern names with `%`.
static SPECIFIERS: [(&str, TimePiece); 15] = [
    ("3f", TimePiece::Millisecond),
    (":z", TimePiece::Offset { colon: true }),
    ("H", TimePiece::Hour),
    ("M", TimePiece::Minute),
    ("S", TimePiece::Second),
    ("Y", TimePiece::Year),
    ("a", TimePiece::DayName),
    ("b", TimePiece::MonthName),
    ("d", TimePiece::Day),
    ("j", TimePiece::DayOfYear),
    ("m", TimePiece::Month),
    ("s", TimePiece::Epoch),
    ("y", TimePiece::YearOfCentury),
    ("z", TimePiece::Offset { colon: false }),
    ("%", TimePiece::Literal(String::new())),
];

/// One `[times.NAME]` of a profile, or a time that every profile knows.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct TimeRule {
    pieces: Vec<TimePiece>,
    /// Minutes east of UTC; `None`: UTC, written as `Z`.
    zone: Option<i32>,
    pub fresh: Fresh,
}

impl TimeRule {
    /// Returns the time of a placeholder that needs no declaration.
    pub(super) fn builtin(placeholder: &str) -> Option<Arc<Self>> {
        let word = match placeholder {
            "now_epoch" => "epoch",
            "now_epoch_ms" => "epoch-ms",
            "now_rfc3339" => "rfc3339",
            _ => return None,
        };
        let (_, pattern) = WORDS.iter().find(|(known, _)| *known == word)?;
        Some(Arc::new(Self { pieces: pieces(pattern).ok()?, zone: None, fresh: Fresh::Attempt }))
    }

    /// Reads one entry of `[times]`, with its name.
    pub(super) fn read(entry: &TableEntry, report: &Diagnostics) -> Option<(Arc<str>, Arc<Self>)> {
        if !is_name(&entry.key) {
            let title = format!("{:?} is no name for a time", entry.key);
            report.error(&entry.value.source, entry.key_span.clone(), title, "letters, digits, `_` and `-`", None);
        }
        let fields = Fields::new(&entry.value, format!("[times.{}]", entry.key), report);
        let zone_node = fields.take("zone");
        let zone = zone_node.and_then(|node| zone(node, report));
        let pieces = match fields.take("format") {
            Some(node) => String::from_node(node, report).and_then(|text| form(node, &text, zone_node, report)),
            None => {
                fields.missing("format", "\"%Y%m%d%H%M%S\"");
                None
            }
        };
        let fresh = Fresh::take(&fields).unwrap_or(Fresh::Attempt);
        fields.finish();
        Some((entry.key.as_str().into(), Arc::new(Self { pieces: pieces?, zone: zone.flatten(), fresh })))
    }

    /// Appends the time of a message.
    pub(super) fn write(&self, values: &MessageValues, out: &mut String) {
        let wall = values.instant(self.fresh).wall;
        let minutes = self.zone.unwrap_or(0);
        let time = CivilTime::of(wall, minutes);
        for piece in &self.pieces {
            // Writing to a string cannot fail.
            let _ = match piece {
                TimePiece::Day => write!(out, "{:02}", time.day),
                TimePiece::DayName => out.write_str(DAYS.get(time.weekday).copied().unwrap_or_default()),
                TimePiece::DayOfYear => write!(out, "{:03}", time.day_of_year),
                TimePiece::Epoch => write!(out, "{}", wall / 1000),
                TimePiece::Hour => write!(out, "{:02}", time.hour),
                TimePiece::Literal(text) => out.write_str(text),
                TimePiece::Millisecond => write!(out, "{:03}", time.millisecond),
                TimePiece::Minute => write!(out, "{:02}", time.minute),
                TimePiece::Month => write!(out, "{:02}", time.month),
                TimePiece::MonthName => {
                    let name = usize::try_from(time.month - 1).ok().and_then(|month| MONTHS.get(month));
                    out.write_str(name.copied().unwrap_or_default())
                }
                TimePiece::Offset { colon } => offset(minutes, *colon, out),
                TimePiece::Second => write!(out, "{:02}", time.second),
                TimePiece::Year => write!(out, "{:04}", time.year),
                TimePiece::YearOfCentury => write!(out, "{:02}", time.year % 100),
                TimePiece::Zone => match self.zone {
                    Some(minutes) => offset(minutes, true, out),
                    None => out.write_str("Z"),
                },
            };
        }
    }
}

fn offset(minutes: i32, colon: bool, out: &mut String) -> std::fmt::Result {
    let (sign, minutes) = (if minutes < 0 { '-' } else { '+' }, minutes.unsigned_abs());
    write!(out, "{sign}{:02}{}{:02}", minutes / 60, if colon { ":" } else { "" }, minutes % 60)
}

/// Reads `format`: a word, or a pattern.
fn form(node: &Node, text: &str, zone: Option<&Node>, report: &Diagnostics) -> Option<Vec<TimePiece>> {
    if let Some((word, pattern)) = WORDS.iter().find(|(word, _)| *word == text) {
        if let (Some(zone), false) = (zone, word.starts_with("rfc3339")) {
            let title = format!("a time of the form `{word}` has no zone");
            zone.error(report, title, "take it out", None);
        }
        let mut read = pieces(pattern).ok()?;
        // The last letter of these two is the zone.
        if word.starts_with("rfc3339") {
            read.pop();
            read.push(TimePiece::Zone);
        }
        return Some(read);
    }
    if !text.contains('%') {
        let help = match suggest(text, WORDS.iter().map(|(word, _)| *word)) {
            Some(near) => format!("did you mean `\"{near}\"`?"),
            None => {
                let words: Vec<&str> = WORDS.iter().map(|(word, _)| *word).collect();
                format!("write a pattern such as `\"%Y%m%d%H%M%S\"`, or one of {}", words.join(", "))
            }
        };
        node.error(report, format!("`{text}` is no form of a time"), "", Some(help));
        return None;
    }
    if !text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) || text.trim() != text {
        node.error(report, "a time is written in visible ASCII, without spaces around it", "", None);
        return None;
    }
    pieces(text)
        .map_err(|unknown| {
            let known: Vec<String> = SPECIFIERS.iter().map(|(name, _)| format!("%{name}")).collect();
            let title = format!("`%{unknown}` is no part of a time");
            node.error(report, title, "", Some(format!("known are {}", known.join(" "))));
        })
        .ok()
}

/// Takes a pattern apart. The error is the part behind a `%` that is not known.
fn pieces(pattern: &str) -> Result<Vec<TimePiece>, String> {
    let mut pieces = Vec::new();
    let mut literal = String::new();
    let mut rest = pattern;
    while let Some((before, after)) = rest.split_once('%') {
        literal.push_str(before);
        let found = SPECIFIERS.iter().find_map(|(name, piece)| Some((piece, after.strip_prefix(name)?)));
        let Some((piece, after)) = found else {
            return Err(after.chars().take(1).collect());
        };
        if let TimePiece::Literal(_) = piece {
            literal.push('%');
        } else {
            if !literal.is_empty() {
                pieces.push(TimePiece::Literal(std::mem::take(&mut literal)));
            }
            pieces.push(piece.clone());
        }
        rest = after;
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        pieces.push(TimePiece::Literal(literal));
    }
    Ok(pieces)
}

/// Reads `zone`: `Z`, or an offset such as `+07:00`. `None` within: UTC.
fn zone(node: &Node, report: &Diagnostics) -> Option<Option<i32>> {
    let text = String::from_node(node, report)?;
    if text == "Z" {
        return Some(None);
    }
    let minutes = || {
        let (hours, minutes) = text.strip_prefix(['+', '-'])?.split_once(':')?;
        let two = |text: &str| {
            let digits = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| text.parse::<i32>().ok()).flatten()
        };
        let (hours, minutes) = (two(hours)?, two(minutes).filter(|minutes| *minutes < 60)?);
        let all = hours * 60 + minutes;
        (all <= FARTHEST).then_some(if text.starts_with('-') { -all } else { all })
    };
    let found = minutes();
    if found.is_none() {
        let help = "write an offset, as in `\"+07:00\"`, or `\"Z\"`; zones with a summer time have no fixed one";
        node.error(report, format!("`{text}` is no offset from UTC"), "", Some(help.to_owned()));
    }
    found.map(Some)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::id::CountingIds;
    use crate::base::time::Now;
    use crate::syntax::{Diagnostic, SourceText};

    fn read(text: &str) -> Result<Arc<TimeRule>, String> {
        let report = Diagnostics::new();
        let node = Node::parse(&SourceText::new("p", text), &report);
        let fields = Fields::new(&node, "times", &report);
        let rule = fields.rest().into_iter().find_map(|entry| TimeRule::read(entry, &report));
        fields.finish();
        let errors = report.errors();
        let told: Vec<String> = report.into_diagnostics().iter().map(Diagnostic::one_line).collect();
        rule.filter(|_| errors == 0).map(|(_, rule)| rule).ok_or(told.join("\n"))
    }

    fn shown(rule: &TimeRule, wall: u64) -> String {
        let values = MessageValues::first(&[], &mut CountingIds::default(), Now::at(0, wall));
        let mut text = String::new();
        rule.write(&values, &mut text);
        text
    }

    #[test]
    fn times_are_written_as_banks_want_them() {
        let wall = 1_795_251_600_123;
        for (keys, text) in [
            ("format = \"%Y%m%d%H%M%S\"\nzone = \"+03:00\"", "20261121120000"),
            ("format = \"rfc3339\"", "2026-11-21T09:00:00.123Z"),
            ("format = \"rfc3339\"\nzone = \"+07:00\"", "2026-11-21T16:00:00.123+07:00"),
            ("format = \"rfc3339-seconds\"\nzone = \"+07:00\"", "2026-11-21T16:00:00+07:00"),
            ("format = \"rfc3339-seconds\"\nzone = \"-09:30\"", "2026-11-20T23:30:00-09:30"),
            ("format = \"rfc3339-seconds\"\nzone = \"Z\"", "2026-11-21T09:00:00Z"),
            ("format = \"rfc3339-seconds\"\nzone = \"+00:00\"", "2026-11-21T09:00:00+00:00"),
            ("format = \"http-date\"", "Sat, 21 Nov 2026 09:00:00 GMT"),
            ("format = \"epoch\"", "1795251600"),
            ("format = \"epoch-ms\"", "1795251600123"),
            ("format = \"%y%j 100%% %z\"\nzone = \"+05:30\"", "26325 100% +0530"),
        ] {
            let rule = read(&format!("[a]\n{keys}\n")).unwrap_or_else(|told| panic!("{keys}: {told}"));
            assert_eq!(shown(&rule, wall), text, "{keys}");
        }
        for (placeholder, text) in [
            ("now_epoch", "1795251600"),
            ("now_epoch_ms", "1795251600123"),
            ("now_rfc3339", "2026-11-21T09:00:00.123Z"),
        ] {
            assert_eq!(TimeRule::builtin(placeholder).map(|rule| shown(&rule, wall)).as_deref(), Some(text));
        }
    }

    #[test]
    fn an_http_date_is_one_that_is_read_as_such() {
        let rule = read("[a]\nformat = \"http-date\"").expect("a good time");
        for wall in (0..4_102_444_800_000_u64).step_by(86_400_000 * 13 + 1_234_567) {
            let read = httpdate::parse_http_date(&shown(&rule, wall)).expect("a date");
            let read = read.duration_since(std::time::UNIX_EPOCH).expect("a date since 1970");
            assert_eq!(read.as_secs(), wall / 1000);
        }
    }

    #[test]
    fn mistakes_in_a_declaration_are_told() {
        for (keys, title) in [
            ("zone = \"Z\"", "has no `format`"),
            ("format = \"rfc339\"", "did you mean `\"rfc3339\"`?"),
            ("format = \"%Y%q\"", "`%q` is no part of a time"),
            ("format = \"%Y%\"", "`%` is no part of a time"),
            ("format = \"%Y\\n\"", "visible ASCII"),
            ("format = \"epoch\"\nzone = \"+07:00\"", "a time of the form `epoch` has no zone"),
            ("format = \"http-date\"\nzone = \"+07:00\"", "has no zone"),
            ("format = \"%Y\"\nzone = \"Asia/Bangkok\"", "`Asia/Bangkok` is no offset from UTC"),
            ("format = \"%Y\"\nzone = \"+7:00\"", "is no offset"),
            ("format = \"%Y\"\nzone = \"+15:00\"", "is no offset"),
            ("format = \"%Y\"\nfresh = \"cal\"", "did you mean `\"call\"`?"),
        ] {
            let told = read(&format!("[a]\n{keys}\n")).expect_err(keys);
            assert!(told.contains(title), "{keys}: {told}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_patterns_never_panic(pattern in "[%a-zA-Z0-9: ]{0,20}", wall in any::<u64>()) {
            if let Ok(pieces) = pieces(&pattern) {
                shown(&TimeRule { pieces, zone: Some(-570), fresh: Fresh::Attempt }, wall);
            }
        }
    }
}
