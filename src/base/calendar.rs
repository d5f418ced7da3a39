//! Weekly opening hours in a time zone, with holidays: pure, every question comes with its moment.
//!
//! The local clock decides. An opening begins at the first moment at which the local clock shows its time or a later one,
//! and ends likewise. So when clocks go forward over 02:30, what opens at 02:30 opens at the moment of the change; and
//! when they go back over 01:30, it opens and closes at the first 01:30. A time that is skipped whole does not occur.

use std::collections::BTreeSet;

use jiff::Timestamp;
use jiff::ZonedDateTime;
use jiff::civil::{Date, DateTime, Weekday};
use jiff::tz::{AmbiguousOffset, TimeZone};

/// Minutes of a day.
const DAY: u16 = 24 * 60;

/// Days that are looked at for the next change. A calendar that does not change for longer counts as one that never does.
const HORIZON: usize = 400;

/// An opening that goes on for longer, in milliseconds, went on to the horizon.
const NEVER: u64 = 380 * 86_400_000;

/// A day ends at the latest so many milliseconds after it has ended in UTC.
const DAYS_APART: u64 = 12 * 3_600_000;

/// The days of the week as the rules write them.
const WEEKDAYS: [(&str, Weekday); 7] = [
    ("mon", Weekday::Monday),
    ("tue", Weekday::Tuesday),
    ("wed", Weekday::Wednesday),
    ("thu", Weekday::Thursday),
    ("fri", Weekday::Friday),
    ("sat", Weekday::Saturday),
    ("sun", Weekday::Sunday),
];

/// A time zone by its name in the IANA database. The machine's own tables are preferred over those of the program.
#[derive(Clone, Debug, PartialEq)]
pub struct Zone(TimeZone);

impl Zone {
    /// Finds a zone by its name, as in `Asia/Bangkok`.
    pub fn find(name: &str) -> Option<Self> {
        TimeZone::get(name).ok().filter(|zone| zone.iana_name().is_some()).map(Self)
    }

    /// Returns its name in the IANA database.
    pub fn name(&self) -> &str {
        self.0.iana_name().unwrap_or("UTC")
    }

    /// Coordinated Universal Time.
    pub const fn utc() -> Self {
        Self(TimeZone::UTC)
    }

    /// Returns the first moment at which the local clock shows midnight of the day of `wall`, or later, and the same for
    /// the day after it; both in milliseconds since 1970.
    pub fn day(&self, wall: u64) -> Option<(u64, u64)> {
        let today = self.local(wall)?.date();
        Some((self.instant(today, 0)?, self.instant(today, DAY)?))
    }

    /// The time in this zone, as in `2026-12-07T08:00:00+07:00`.
    pub fn text(&self, wall: u64) -> String {
        let shown = timestamp(wall).map(|at| ZonedDateTime::new(at, self.0.clone()));
        shown.map_or_else(|| "-".to_owned(), |at| at.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string())
    }

    fn local(&self, wall: u64) -> Option<DateTime> {
        Some(self.0.to_datetime(timestamp(wall)?))
    }

    /// The first moment at which the local clock shows this minute of this day, or a later one.
    fn instant(&self, date: Date, minute: u16) -> Option<u64> {
        let date = if minute >= DAY { date.tomorrow().ok()? } else { date };
        let minute = minute % DAY;
        let wanted = date.at(i8::try_from(minute / 60).ok()?, i8::try_from(minute % 60).ok()?, 0, 0);
        let found = match self.0.to_ambiguous_timestamp(wanted).offset() {
            AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(wanted).ok()?,
            AmbiguousOffset::Fold { before, .. } => before.to_timestamp(wanted).ok()?,
            AmbiguousOffset::Gap { after, .. } => {
                let earlier = after.to_timestamp(wanted).ok()?;
                let mut changes = self.0.following(earlier).map(|change| change.timestamp());
                changes.find(|at| self.0.to_datetime(*at) >= wanted)?
            }
        };
        u64::try_from(found.as_millisecond()).ok()
    }
}

fn timestamp(wall: u64) -> Option<Timestamp> {
    Timestamp::from_millisecond(i64::try_from(wall).ok()?).ok()
}

/// One line of opening hours: days of the week, and from when to when on each.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct OpeningRule {
    /// The days on which it begins, Monday first.
    days: [bool; 7],
    /// Minute of the day at which it begins.
    from: u16,
    /// Minute at which it ends; more than a day's if it ends on the next day.
    to: u16,
}

impl OpeningRule {
    /// Reads `mon-fri 08:00-20:00`. Days are a list of days and ranges (`mon,wed,fri-sun`), or `daily`. An end that is
    /// not after the beginning lies on the next day; `24:00` is the end of the day. The error says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut words = text.split_ascii_whitespace();
        let (Some(days), Some(times), None) = (words.next(), words.next(), words.next()) else {
            return Err("write days and times, as in `\"mon-fri 08:00-20:00\"`".to_owned());
        };
        let Some((from, to)) = times.split_once('-') else {
            return Err(format!("`{times}` has no end: write it as in `08:00-20:00`"));
        };
        let (from, to) = (minute(from)?, minute(to)?);
        if from == DAY {
            return Err("no day begins at 24:00: write `00:00` of the next".to_owned());
        }
        if from == to {
            return Err("an opening of no length: a whole day is `00:00-24:00`".to_owned());
        }
        Ok(Self { days: weekdays(days)?, from, to: if to < from { to + DAY } else { to } })
    }

    /// The minutes of a day on which it is open, given that it may have begun the day before.
    fn on(&self, weekday: usize) -> impl Iterator<Item = (u16, u16)> {
        let begins = |weekday: usize| self.days.get(weekday % 7).copied().unwrap_or(false);
        let own = begins(weekday).then_some((self.from, self.to.min(DAY)));
        let late = (begins(weekday + 6) && self.to > DAY).then(|| (0, self.to - DAY));
        late.into_iter().chain(own)
    }
}

/// Reads a time of the day, as in `08:00`, into minutes.
fn minute(text: &str) -> Result<u16, String> {
    let wrong = || format!("`{text}` is no time of a day: write it as in `08:00`");
    let number = |text: &str| {
        let plain = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| text.parse::<u16>().ok()).flatten()
    };
    let (hours, minutes) = text.split_once(':').ok_or_else(wrong)?;
    let (hours, minutes) = (number(hours).ok_or_else(wrong)?, number(minutes).ok_or_else(wrong)?);
    let read = hours * 60 + minutes;
    if minutes > 59 || read > DAY { Err(wrong()) } else { Ok(read) }
}

fn weekdays(text: &str) -> Result<[bool; 7], String> {
    if text == "daily" {
        return Ok([true; 7]);
    }
    let at = |word: &str| {
        let found = WEEKDAYS.iter().position(|(name, _)| *name == word);
        found.ok_or_else(|| {
            format!("`{word}` is no day: write `mon`, `tue`, `wed`, `thu`, `fri`, `sat`, `sun` or `daily`")
        })
    };
    let mut days = [false; 7];
    for range in text.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (at(first)?, at(last)?);
        // `sat-mon` goes over the end of the week.
        let length = (last + 7 - first) % 7;
        for (weekday, day) in days.iter_mut().enumerate() {
            *day |= (weekday + 7 - first) % 7 <= length;
        }
    }
    Ok(days)
}

/// A day without any opening.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Holiday(Date);

impl Holiday {
    /// Reads a day of the calendar, as in `2026-12-05`.
    pub fn parse(text: &str) -> Option<Self> {
        let plain = text.len() == 10 && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
        plain.then(|| text.parse().ok()).flatten().map(Self)
    }

    /// Returns whether the day is over everywhere on earth at a reading of the wall clock.
    pub fn is_before(self, wall: u64) -> bool {
        Zone::utc().local(wall.saturating_sub(DAYS_APART)).is_some_and(|now| self.0 < now.date())
    }
}

/// A time for which a calendar does not change.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct CalendarSpan {
    /// True if it is a time of opening.
    pub is_open: bool,
    /// The first millisecond since 1970 after it; `None`: no change is known for more than a year.
    pub until: Option<u64>,
}

/// Weekly hours without those of holidays.
#[derive(Clone, Debug, PartialEq)]
pub struct Calendar {
    zone: Zone,
    /// Minutes of each day of the week, Monday first: sorted, and apart from each other.
    week: [Vec<(u16, u16)>; 7],
    holidays: BTreeSet<Holiday>,
}

impl Calendar {
    /// A calendar of these rules. A holiday is closed from midnight to midnight, also where an opening began the evening
    /// before.
    pub fn new(zone: Zone, rules: &[OpeningRule], holidays: BTreeSet<Holiday>) -> Self {
        let week = std::array::from_fn(|weekday| {
            let mut found: Vec<(u16, u16)> = rules.iter().flat_map(|rule| rule.on(weekday)).collect();
            found.sort_unstable();
            let mut merged: Vec<(u16, u16)> = Vec::new();
            for (from, to) in found {
                match merged.last_mut() {
                    Some((_, end)) if from <= *end => *end = to.max(*end),
                    Some(_) | None => merged.push((from, to)),
                }
            }
            merged
        });
        Self { zone, week, holidays }
    }

    /// The zone whose clock decides.
    pub const fn zone(&self) -> &Zone {
        &self.zone
    }

    /// Returns whether it is open at a reading of the wall clock, in milliseconds since 1970.
    pub fn is_open(&self, wall: u64) -> bool {
        self.span(wall).is_open
    }

    /// Returns when it opens or closes next, in milliseconds since 1970; `None`: not for more than a year.
    pub fn next_change(&self, wall: u64) -> Option<u64> {
        self.span(wall).until
    }

    /// Returns the state at this moment and its end.
    pub fn span(&self, wall: u64) -> CalendarSpan {
        let closed = CalendarSpan { is_open: false, until: None };
        let Some(today) = self.zone.local(wall).map(DateTime::date) else { return closed };
        // After a change of the clocks around midnight the openings of two days may lie between the dates.
        let Ok(first) = today.yesterday() else { return closed };
        let mut run: Option<(u64, u64)> = None;
        for (from, to) in first.series(jiff::Span::new().days(1)).take(HORIZON).flat_map(|date| self.openings(date)) {
            if to <= wall || from >= to {
                continue;
            }
            run = match run {
                None if from > wall => return CalendarSpan { is_open: false, until: Some(from) },
                None => Some((from, to)),
                Some((begun, end)) if from <= end => Some((begun, end.max(to))),
                Some((_, end)) => return CalendarSpan { is_open: true, until: Some(end) },
            };
        }
        match run {
            // It went on to the horizon.
            Some((_, end)) if end > wall.saturating_add(NEVER) => CalendarSpan { is_open: true, until: None },
            Some((_, end)) => CalendarSpan { is_open: true, until: Some(end) },
            None => closed,
        }
    }

    /// Returns when the opening began that holds at this moment, or the last one before it; `None`: there was none for
    /// more than a year. Of an opening that has gone on for longer, a moment more than a year ago.
    pub fn last_opening(&self, wall: u64) -> Option<u64> {
        let tomorrow = self.zone.local(wall)?.date().tomorrow().ok()?;
        let mut run: Option<u64> = None;
        for date in tomorrow.series(jiff::Span::new().days(-1)).take(HORIZON) {
            let mut openings: Vec<(u64, u64)> = self.openings(date).collect();
            openings.reverse();
            for (from, to) in openings {
                if from > wall || from >= to {
                    continue;
                }
                match run {
                    Some(begun) if to < begun => return Some(begun),
                    Some(_) | None => run = Some(from),
                }
            }
        }
        run
    }

    /// The openings of one day, in order.
    fn openings(&self, date: Date) -> impl Iterator<Item = (u64, u64)> {
        let weekday = usize::from(date.weekday().to_monday_zero_offset().unsigned_abs());
        let minutes = if self.holidays.contains(&Holiday(date)) { None } else { self.week.get(weekday) };
        let instant = move |minute| self.zone.instant(date, minute);
        minutes.into_iter().flatten().filter_map(move |(from, to)| Some((instant(*from)?, instant(*to)?)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> u64 {
        u64::try_from(text.parse::<Timestamp>().expect("a time").as_millisecond()).expect("after 1970")
    }

    fn calendar(zone: &str, rules: &[&str], holidays: &[&str]) -> Calendar {
        let rules: Vec<OpeningRule> = rules.iter().map(|rule| OpeningRule::parse(rule).expect("a rule")).collect();
        let holidays = holidays.iter().map(|day| Holiday::parse(day).expect("a day")).collect();
        Calendar::new(Zone::find(zone).expect("a zone"), &rules, holidays)
    }

    /// The next `count` changes from a moment on, each with the state that it brings.
    fn changes(calendar: &Calendar, from: &str, count: usize) -> Vec<(bool, String)> {
        let mut now = at(from);
        let mut found = Vec::new();
        while found.len() < count {
            let Some(next) = calendar.next_change(now) else { break };
            found.push((calendar.is_open(next), calendar.zone().text(next)));
            now = next;
        }
        found
    }

    fn open(text: &str) -> (bool, String) {
        (true, text.to_owned())
    }

    fn closed(text: &str) -> (bool, String) {
        (false, text.to_owned())
    }

    #[test]
    fn a_bank_opens_on_weekdays_and_on_saturday_morning() {
        let bank = calendar("Asia/Bangkok", &["mon-fri 08:00-20:00", "sat 09:00-13:00"], &["2026-12-07"]);
        assert!(!bank.is_open(at("2026-12-04T07:59:59+07:00")) && bank.is_open(at("2026-12-04T08:00:00+07:00")));
        let expected = [
            closed("2026-12-04T20:00:00+07:00"),
            open("2026-12-05T09:00:00+07:00"),
            closed("2026-12-05T13:00:00+07:00"),
            open("2026-12-08T08:00:00+07:00"),
        ];
        assert_eq!(changes(&bank, "2026-12-04T12:00:00+07:00", 4), expected, "Monday is a holiday");
        assert_eq!(bank.last_opening(at("2026-12-08T07:00:00+07:00")), Some(at("2026-12-05T09:00:00+07:00")));
        assert_eq!(bank.last_opening(at("2026-12-05T10:00:00+07:00")), Some(at("2026-12-05T09:00:00+07:00")));
    }

    #[test]
    fn an_opening_over_midnight_ends_on_the_next_day_and_a_holiday_cuts_it() {
        let night = calendar("UTC", &["fri 22:00-06:00"], &[]);
        let expected = [open("2026-12-04T22:00:00+00:00"), closed("2026-12-05T06:00:00+00:00")];
        assert_eq!(changes(&night, "2026-12-04T12:00:00Z", 2), expected);
        assert_eq!(night.last_opening(at("2026-12-05T03:00:00Z")), Some(at("2026-12-04T22:00:00Z")), "one opening");
        let cut = calendar("UTC", &["fri 22:00-06:00"], &["2026-12-05"]);
        let expected = [open("2026-12-04T22:00:00+00:00"), closed("2026-12-05T00:00:00+00:00")];
        assert_eq!(changes(&cut, "2026-12-04T12:00:00Z", 2), expected);
        let from_midnight = calendar("UTC", &["fri 22:00-06:00"], &["2026-12-04"]);
        let expected = [open("2026-12-05T00:00:00+00:00"), closed("2026-12-05T06:00:00+00:00")];
        assert_eq!(changes(&from_midnight, "2026-12-04T12:00:00Z", 2), expected);
    }

    #[test]
    fn days_that_touch_are_one_opening() {
        let whole = calendar("Europe/Berlin", &["mon-fri 00:00-24:00", "sat 00:00-06:00"], &[]);
        let expected = [closed("2026-12-05T06:00:00+01:00"), open("2026-12-07T00:00:00+01:00")];
        assert_eq!(changes(&whole, "2026-12-01T12:00:00+01:00", 2), expected);
        assert_eq!(whole.last_opening(at("2026-12-04T12:00:00+01:00")), Some(at("2026-11-30T00:00:00+01:00")));
    }

    #[test]
    fn what_is_always_open_changes_on_holidays_alone() {
        let always = calendar("Asia/Tokyo", &["daily 00:00-24:00"], &[]);
        assert_eq!(always.span(at("2026-12-04T12:00:00Z")), CalendarSpan { is_open: true, until: None });
        let once = calendar("Asia/Tokyo", &["daily 00:00-24:00"], &["2027-01-01"]);
        let expected = [closed("2027-01-01T00:00:00+09:00"), open("2027-01-02T00:00:00+09:00")];
        assert_eq!(changes(&once, "2026-12-04T12:00:00Z", 3), expected);
    }

    /// New York, 2026-03-08: 02:00 becomes 03:00. 2026-11-01: 02:00 becomes 01:00.
    #[test]
    fn the_local_clock_decides_when_it_is_changed() {
        let skipped = calendar("America/New_York", &["sun 02:30-05:00"], &[]);
        let expected = [open("2026-03-08T03:00:00-04:00"), closed("2026-03-08T05:00:00-04:00")];
        assert_eq!(changes(&skipped, "2026-03-08T00:00:00-05:00", 2), expected);
        let ends_in_gap = calendar("America/New_York", &["sun 01:00-02:30"], &[]);
        let expected = [open("2026-03-08T01:00:00-05:00"), closed("2026-03-08T03:00:00-04:00")];
        assert_eq!(changes(&ends_in_gap, "2026-03-08T00:00:00-05:00", 2), expected);
        let wholly_skipped = calendar("America/New_York", &["sun 02:10-02:40"], &[]);
        let expected = [open("2026-03-15T02:10:00-04:00")];
        assert_eq!(changes(&wholly_skipped, "2026-03-08T00:00:00-05:00", 1), expected);
        let repeated = calendar("America/New_York", &["sun 00:30-01:30"], &[]);
        let expected =
            [open("2026-11-01T00:30:00-04:00"), closed("2026-11-01T01:30:00-04:00"), open("2026-11-08T00:30:00-05:00")];
        assert_eq!(changes(&repeated, "2026-11-01T00:00:00-04:00", 3), expected, "closed for good at the first 01:30");
        let over = calendar("America/New_York", &["sat 22:00-04:00"], &[]);
        let (from, to) = (at("2026-10-31T22:00:00-04:00"), at("2026-11-01T04:00:00-05:00"));
        assert_eq!(over.next_change(from), Some(to));
        assert_eq!(to - from, 7 * 3_600_000, "an hour more");
    }

    /// Cairo, 2026-04-24: 00:00 becomes 01:00, so that the day begins an hour late. 2026-10-30: 00:00 becomes 23:00.
    #[test]
    fn a_midnight_that_is_skipped_or_repeated_is_the_first_moment_of_its_day() {
        let day = calendar("Africa/Cairo", &["thu-fri 00:00-24:00"], &["2026-04-23", "2026-10-30"]);
        let expected = [open("2026-04-24T01:00:00+03:00"), closed("2026-04-25T00:00:00+03:00")];
        assert_eq!(changes(&day, "2026-04-23T12:00:00+02:00", 2), expected);
        let expected = [closed("2026-10-30T00:00:00+02:00"), open("2026-11-05T00:00:00+02:00")];
        assert_eq!(changes(&day, "2026-10-29T12:00:00+03:00", 2), expected, "the hour before midnight is twice there");
        assert!(day.is_open(at("2026-10-29T23:30:00+02:00")));
    }

    #[test]
    fn a_leap_day_is_a_day() {
        let bank = calendar("UTC", &["mon-fri 08:00-16:00"], &["2028-02-29"]);
        let expected = [closed("2028-02-28T16:00:00+00:00"), open("2028-03-01T08:00:00+00:00")];
        assert_eq!(changes(&bank, "2028-02-28T12:00:00Z", 2), expected);
        assert_eq!(Holiday::parse("2027-02-29"), None);
    }

    #[test]
    fn a_year_of_holidays_does_not_end_in_sight() {
        let first: Date = "2026-01-01".parse().expect("a date");
        let holidays = first.series(jiff::Span::new().days(1)).take(500).map(Holiday).collect();
        let bank = Calendar::new(Zone::utc(), &[OpeningRule::parse("daily 08:00-16:00").expect("a rule")], holidays);
        assert_eq!(bank.span(at("2026-01-02T12:00:00Z")), CalendarSpan { is_open: false, until: None });
        assert_eq!(bank.last_opening(at("2025-12-31T20:00:00Z")), Some(at("2025-12-31T08:00:00Z")));
    }

    #[test]
    fn mistakes_in_rules_say_what_to_write() {
        for (text, wanted) in [
            ("", "write days and times"),
            ("mon", "write days and times"),
            ("mon 08:00-20:00 x", "write days and times"),
            ("mo 08:00-20:00", "`mo` is no day"),
            ("mon- 08:00-20:00", "`` is no day"),
            ("Mon 08:00-20:00", "`Mon` is no day"),
            ("mon 8:00-20:00", "`8:00` is no time of a day"),
            ("mon 08:00", "has no end"),
            ("mon 08:60-20:00", "`08:60` is no time"),
            ("mon 08:00-24:01", "`24:01` is no time"),
            ("mon +8:00-20:00", "`+8:00` is no time"),
            ("mon 24:00-20:00", "no day begins at 24:00"),
            ("mon 08:00-08:00", "no length"),
        ] {
            let told = OpeningRule::parse(text).expect_err(text);
            assert!(told.contains(wanted), "{text}: {told}");
        }
        for text in ["2026-1-1", "2026-02-30", "20260101", "2026-12-05T00:00:00", ""] {
            assert_eq!(Holiday::parse(text), None, "{text}");
        }
        for name in ["Asia/Bankok", "", "../../etc/passwd", "EST5EDT,M3.2.0,M11.1.0"] {
            assert!(Zone::find(name).is_none(), "{name}");
        }
    }

    fn rule() -> impl Strategy<Value = OpeningRule> {
        let days = proptest::array::uniform7(any::<bool>());
        (days, 0..DAY, 1..=DAY).prop_filter_map("a length", |(days, from, length)| {
            days.contains(&true).then_some(OpeningRule { days, from, to: from + length })
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        /// The state at each moment is what the local clock says, but for the repeated hours of a change back, and it
        /// holds up to the next change.
        #[test]
        fn the_state_is_what_the_local_clock_says(
            zone in prop::sample::select(vec![
                "Asia/Bangkok", "America/New_York", "Europe/Berlin", "Australia/Lord_Howe", "Africa/Cairo", "Pacific/Apia",
            ]),
            rules in prop::collection::vec(rule(), 1..4),
            holidays in prop::collection::btree_set(0..800_i32, 0..8),
            seconds in 1_262_304_000_u64..1_893_456_000,
        ) {
            let zone = Zone::find(zone).expect("a zone");
            let wall = seconds * 1000;
            let today = zone.local(wall).expect("a date").date();
            let holidays: BTreeSet<Holiday> = holidays
                .into_iter()
                .filter_map(|days| today.checked_add(jiff::Span::new().days(days - 10)).ok().map(Holiday))
                .collect();
            let calendar = Calendar::new(zone.clone(), &rules, holidays.clone());
            let span = calendar.span(wall);
            let naive = |wall: u64| {
                let local = zone.local(wall).expect("a date");
                let minute = u16::try_from(local.hour()).expect("small") * 60 + u16::try_from(local.minute()).expect("small");
                let weekday = usize::try_from(local.weekday().to_monday_zero_offset()).expect("small");
                let within = |(from, to): (u16, u16)| from <= minute && minute < to;
                !holidays.contains(&Holiday(local.date())) && rules.iter().flat_map(|rule| rule.on(weekday)).any(within)
            };
            // Where the clock goes back within a few hours, the first time counts: the test looks elsewhere.
            let repeats = |wall: u64| {
                let (before, after) = (zone.local(wall - 5 * 3_600_000), zone.local(wall + 5 * 3_600_000));
                let passed = after.expect("a date").duration_since(before.expect("a date"));
                passed < jiff::SignedDuration::from_hours(10)
            };
            if !repeats(wall) {
                prop_assert_eq!(span.is_open, naive(wall), "{}", zone.text(wall));
            }
            if let Some(until) = span.until {
                prop_assert!(until > wall);
                prop_assert_ne!(calendar.is_open(until), span.is_open, "a change is a change");
                for share in 1..8 {
                    let between = wall + (until - wall) / 8 * share;
                    prop_assert_eq!(calendar.span(between), span, "no change before it");
                    prop_assert!(repeats(between) || naive(between) == span.is_open, "{}", zone.text(between));
                }
            }
            if let Some(began) = calendar.last_opening(wall) {
                prop_assert!(began <= wall && calendar.is_open(began));
                prop_assert!(wall - began > NEVER || !calendar.is_open(began - 1), "{}", zone.text(began));
            } else {
                prop_assert!(!span.is_open);
            }
        }
    }
}
