//! `hours` of a `[provider.NAME]`: when it is open.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::base::calendar::{Calendar, Holiday, OpeningRule, Zone};
use crate::base::time::Now;
use crate::base::working_hours::WorkingHours;
use crate::syntax::{Diagnostics, Fields, FromNode, Kind, Node};

use super::reader::Reader;
use super::schema::{DURATION, MAY, MUST, SchemaSection, SchemaShape};
use super::spanned_text::{Position, SpannedText};

/// Lines of `open`, and holidays: no calendar needs more.
const MOST_RULES: usize = 100;
const MOST_HOLIDAYS: usize = 4096;
/// Tokens are fetched no longer than this before an opening.
const MOST_PREWARM: Duration = Duration::from_secs(3600);

pub(super) const KEYS: SchemaSection = (
    "hours",
    &[
        (
            "holidays",
            SchemaShape::TextOrTexts,
            MAY,
            "days without opening, as in 2026-12-05; or the path of a file with one on each line",
        ),
        ("open", SchemaShape::Texts, MUST, "days and times of opening, as in mon-fri 08:00-20:00"),
        ("prewarm", DURATION, MAY, "tokens are fetched this long before an opening; 0s"),
        ("zone", SchemaShape::Text, MUST, "the time zone, as in Asia/Bangkok"),
    ],
);

/// Reads `hours`; `None` if it is absent or has a mistake, which is reported.
pub(super) fn read_hours(fields: &Fields<'_>, reader: &Reader<'_>) -> Option<Arc<WorkingHours>> {
    let node = fields.take("hours")?;
    let report = reader.report;
    let own = Fields::new(node, format!("hours of {}", fields.what()), report);
    let zone = own.req::<SpannedText>("zone", "\"Asia/Bangkok\"").and_then(|word| zone(&word, report));
    let rules = own.req::<Vec<SpannedText>>("open", "[\"mon-fri 08:00-20:00\"]");
    let rules = rules.and_then(|words| rules_of(&own, &words, report));
    let holidays = own.take("holidays").map_or_else(|| Some(BTreeSet::new()), |node| holidays(node, reader));
    let prewarm = own.or("prewarm", Duration::ZERO);
    if let Some(node) = own.take("prewarm").filter(|_| prewarm > MOST_PREWARM) {
        Position::of(node).error(
            report,
            "tokens are fetched an hour before an opening at most",
            "write `\"1h\"` or less",
        );
        return None;
    }
    own.finish();
    Some(Arc::new(WorkingHours::new(Calendar::new(zone?, &rules?, holidays?), prewarm)))
}

pub(super) fn zone(word: &SpannedText, report: &Diagnostics) -> Option<Zone> {
    let found = Zone::find(&word.text);
    if found.is_none() {
        let help = "write a name of the IANA database, as in `\"Asia/Bangkok\"`, `\"Europe/Berlin\"` or `\"UTC\"`";
        word.place.error(report, format!("there is no time zone called `{}`", word.text.escape_debug()), help);
    }
    found
}

fn rules_of(own: &Fields<'_>, words: &[SpannedText], report: &Diagnostics) -> Option<Vec<OpeningRule>> {
    let place = || own.take("open").map(Position::of);
    if words.is_empty() {
        let help = "write when it is open, as in `[\"mon-fri 08:00-20:00\"]`, or leave out `hours`";
        place()?.error(report, "a provider that never opens cannot be called", help);
        return None;
    }
    if words.len() > MOST_RULES {
        place()?.error(report, format!("there are more than {MOST_RULES} lines of opening hours"), "join some of them");
        return None;
    }
    let read = |word: &SpannedText| match OpeningRule::parse(&word.text) {
        Ok(rule) => Some(rule),
        Err(why) => {
            word.place.error(report, format!("`{}` says no opening hours", word.text.escape_debug()), why);
            None
        }
    };
    let rules: Vec<Option<OpeningRule>> = words.iter().map(read).collect();
    rules.into_iter().collect()
}

/// Reads a list of days, or the file that has one on each line. `#` begins a comment.
fn holidays(node: &Node, reader: &Reader<'_>) -> Option<BTreeSet<Holiday>> {
    let report = reader.report;
    let words = match &node.kind {
        Kind::String(path) => {
            let word = SpannedText { text: path.clone(), place: Position::of(node) };
            let text = reader.text_file(&word)?;
            let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
            let named = |(at, line): (usize, &str)| {
                (format!("line {} of `{path}`", at + 1), line.to_owned(), word.place.clone())
            };
            let lines = lines.enumerate().filter(|(_, line)| !line.is_empty());
            lines.map(named).collect::<Vec<_>>()
        }
        Kind::Array(_) | Kind::Boolean(_) | Kind::Float(_) | Kind::Integer(_) | Kind::Table(_) => {
            let words = Vec::<SpannedText>::from_node(node, report)?;
            words.into_iter().map(|word| (format!("`{}`", word.text.escape_debug()), word.text, word.place)).collect()
        }
    };
    if words.len() > MOST_HOLIDAYS {
        let help = "take out the days that are over";
        Position::of(node).error(report, format!("there are more than {MOST_HOLIDAYS} holidays"), help);
        return None;
    }
    let read = |(what, text, place): &(String, String, Position)| {
        let day = Holiday::parse(text);
        if day.is_none() {
            place.error(report, format!("{what} is no day of the calendar"), "write it as in `2026-12-05`");
        }
        day
    };
    let read: Vec<Option<Holiday>> = words.iter().map(read).collect();
    let days: BTreeSet<Holiday> = read.into_iter().collect::<Option<_>>()?;
    let passed = |now: Now| days.last().is_some_and(|last| last.is_before(now.wall));
    if reader.now().is_some_and(passed) {
        let help = "add the days to come; without them the provider counts as open on each";
        Position::of(node).warning(report, "all holidays are over", help);
    }
    Some(days)
}
