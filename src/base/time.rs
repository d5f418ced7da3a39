//! Moments, taken on two clocks at once.
//!
//! A token expires at the earlier of two readings: the *boot* clock (`CLOCK_BOOTTIME`, which runs on while a machine
//! sleeps and never jumps) and the *wall* clock (which may be set forward). Turning one clock back does not extend a
//! token's life. This file is the only place that reads a clock; all other code receives a [`Now`].

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Seconds by which the clock of a signer may be ahead of ours.
pub const CLOCK_TOLERANCE: u64 = 60;

/// One moment on both clocks, in milliseconds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Now {
    /// Milliseconds since the machine booted, sleep included.
    pub boot: u64,
    /// Reading of the wall clock: milliseconds since 1970-01-01T00:00:00Z.
    pub wall: u64,
}

impl Now {
    /// A moment with both readings given: for tests and simulations.
    pub const fn at(boot: u64, wall: u64) -> Self {
        Self { boot, wall }
    }

    /// This moment, `later` on both clocks.
    pub fn plus(self, later: Duration) -> Self {
        let later = millis(later);
        Self { boot: self.boot.saturating_add(later), wall: self.wall.saturating_add(later) }
    }

    /// The moment at which the wall clock showed `wall`, or this one if that lies ahead. Before the machine's start the
    /// boot clock reads 0.
    pub const fn back_to(self, wall: u64) -> Self {
        let wall = if wall < self.wall { wall } else { self.wall };
        Self { boot: self.boot.saturating_sub(self.wall - wall), wall }
    }

    /// This moment, `earlier` on both clocks.
    pub fn minus(self, earlier: Duration) -> Self {
        let earlier = millis(earlier);
        Self { boot: self.boot.saturating_sub(earlier), wall: self.wall.saturating_sub(earlier) }
    }

    /// Time since `earlier` by the boot clock; zero when `earlier` lies ahead.
    pub fn since(self, earlier: Now) -> Duration {
        Duration::from_millis(self.boot.saturating_sub(earlier.boot))
    }

    /// Returns the reading of the wall clock in whole seconds since 1970.
    pub const fn unix_seconds(self) -> u64 {
        self.wall / 1000
    }
}

/// A moment by which something ends. It has passed as soon as *either* clock says so.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Deadline {
    boot: u64,
    wall: u64,
}

impl Deadline {
    /// The deadline `life` after `start`.
    pub fn after(start: Now, life: Duration) -> Self {
        let end = start.plus(life);
        Self { boot: end.boot, wall: end.wall }
    }

    /// Returns whether either clock has reached it.
    #[inline]
    pub const fn passed(self, now: Now) -> bool {
        now.boot >= self.boot || now.wall >= self.wall
    }

    /// Time left, by the clock that says less; zero once passed.
    pub fn remaining(self, now: Now) -> Duration {
        Duration::from_millis(self.boot.saturating_sub(now.boot).min(self.wall.saturating_sub(now.wall)))
    }

    /// The whole time from `start` on, by the wall clock: the boot clock may not have run yet at `start`.
    pub const fn life_since(self, start: Now) -> Duration {
        Duration::from_millis(self.wall.saturating_sub(start.wall))
    }

    /// The wall-clock reading, in milliseconds since 1970.
    pub const fn wall(self) -> u64 {
        self.wall
    }

    /// The end of what does not end.
    pub const fn never() -> Self {
        Self { boot: u64::MAX, wall: u64::MAX }
    }

    /// The earlier of two deadlines, on each clock.
    pub fn min(self, other: Self) -> Self {
        Self { boot: self.boot.min(other.boot), wall: self.wall.min(other.wall) }
    }
}

/// The time limit of a whole call to a peer: connecting, sending, the head of its response and the body.
///
/// The callee enforces it. It is part of the callee's signature, so that a call without a deadline does not compile.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Within(pub Duration);

/// The source of moments: the machine's clocks, or a clock that a test controls.
#[derive(Clone, Debug, Default)]
pub enum Clock {
    /// The clocks of the machine: `CLOCK_BOOTTIME` and `CLOCK_REALTIME`.
    #[default]
    System,
    /// A clock that moves only when told to.
    Manual(Arc<ManualClock>),
    /// A clock that a simulation drives.
    #[cfg(test)]
    Simulated(Arc<dyn SimulatedClock>),
}

/// A simulated clock: it runs, but not in step with the machine's.
#[cfg(test)]
pub trait SimulatedClock: std::fmt::Debug + Send + Sync {
    /// Returns the readings of both clocks.
    fn now(&self) -> Now;
}

impl Clock {
    /// Both clocks. That the wall clock was set is noticed within 20 milliseconds.
    #[inline]
    pub fn now(&self) -> Now {
        match self {
            Clock::System => {
                let boot = read(rustix::time::ClockId::Boottime);
                Now { boot, wall: wall_time(boot) }
            }
            Clock::Manual(manual) => manual.now(),
            #[cfg(test)]
            Clock::Simulated(simulated) => simulated.now(),
        }
    }
}

/// A clock for tests: it stands still until moved.
#[derive(Debug, Default)]
pub struct ManualClock {
    boot: AtomicU64,
    wall: AtomicU64,
}

impl ManualClock {
    /// A clock that stands at `start`.
    pub fn at(start: Now) -> Arc<Self> {
        Arc::new(Self { boot: AtomicU64::new(start.boot), wall: AtomicU64::new(start.wall) })
    }

    /// Moves both clocks on by `by`.
    pub fn advance(&self, by: Duration) {
        self.boot.fetch_add(millis(by), Ordering::SeqCst);
        self.wall.fetch_add(millis(by), Ordering::SeqCst);
    }

    /// Sets the wall clock alone, as an operator or NTP would.
    pub fn set_wall(&self, wall: u64) {
        self.wall.store(wall, Ordering::SeqCst);
    }

    /// Returns the current readings of both clocks.
    pub fn now(&self) -> Now {
        Now { boot: self.boot.load(Ordering::SeqCst), wall: self.wall.load(Ordering::SeqCst) }
    }
}

/// Measures how long something took, for histograms. Decisions are made on [`Now`], never on this.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(u64);

impl Stopwatch {
    /// Starts a measurement on the monotonic clock (`CLOCK_MONOTONIC`).
    #[inline]
    pub fn start() -> Self {
        Self(nanos(rustix::time::ClockId::Monotonic))
    }

    /// Returns the time since the start, with nanosecond resolution.
    #[inline]
    pub fn elapsed(self) -> Duration {
        Duration::from_nanos(nanos(rustix::time::ClockId::Monotonic).saturating_sub(self.0))
    }
}

/// Converts a duration to whole milliseconds, saturating at `u64::MAX`.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Time in milliseconds for which a thread assumes that the wall clock was not set.
const BELIEVED: u64 = 20;

/// The wall clock, given what the boot clock says now. A request asks for the time often: so the wall clock itself is
/// read every [`BELIEVED`] milliseconds, and runs along with the boot clock in between.
#[inline]
fn wall_time(boot: u64) -> u64 {
    thread_local! {
        /// When both were read, and by how much the wall clock is ahead.
        static AHEAD: Cell<Option<(u64, u64)>> = const { Cell::new(None) };
    }
    match AHEAD.get() {
        Some((at, ahead)) if boot.saturating_sub(at) < BELIEVED => boot.wrapping_add(ahead),
        Some(_) | None => {
            let wall = read(rustix::time::ClockId::Realtime);
            AHEAD.set(Some((boot, wall.wrapping_sub(boot))));
            wall
        }
    }
}

#[inline]
fn read(clock: rustix::time::ClockId) -> u64 {
    nanos(clock) / 1_000_000
}

#[inline]
fn nanos(clock: rustix::time::ClockId) -> u64 {
    let spec = rustix::time::clock_gettime(clock);
    let seconds = u64::try_from(spec.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(spec.tv_nsec).unwrap_or(0))
}

/// The last millisecond of the year 9999.
const LAST: u64 = 253_402_300_799_999;

/// `2026-11-21T08:30:00.123Z` (RFC 3339) for a wall-clock reading in milliseconds since 1970.
pub fn rfc3339(wall: u64) -> String {
    Rfc3339::of(wall).as_str().to_owned()
}

/// The same text without an allocation. A moment after the year 9999 is shown as the last millisecond of that year.
#[derive(Clone, Copy, Debug)]
pub struct Rfc3339([u8; 24]);

impl Rfc3339 {
    /// For a wall-clock reading in milliseconds since 1970.
    pub fn of(wall: u64) -> Self {
        let wall = wall.min(LAST);
        let (days, in_day) = (wall / 86_400_000, wall % 86_400_000);
        let (year, month, day) = civil(days);
        let mut text = *b"0000-00-00T00:00:00.000Z";
        let mut put = |at: usize, width: usize, mut number: u64| {
            for digit in text.iter_mut().skip(at).take(width).rev() {
                *digit = b'0' + (number % 10) as u8;
                number /= 10;
            }
        };
        put(0, 4, year);
        put(5, 2, month);
        put(8, 2, day);
        put(11, 2, in_day / 3_600_000);
        put(14, 2, in_day / 60_000 % 60);
        put(17, 2, in_day / 1000 % 60);
        put(20, 3, in_day % 1000);
        Self(text)
    }

    /// Returns the text in UTC, with milliseconds.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// Milliseconds since 1970 of a date in RFC 3339 section 5.6: `2026-11-21T08:30:00.123Z`, `2026-11-21 15:30:00+07:00`.
/// The colon in the offset may be missing, as ISO 8601 allows. `None` for what is no date, has no offset, or lies before
/// 1970.
pub fn of_rfc3339(text: &str) -> Option<u64> {
    let number = |from: usize, to: usize| {
        let digits = text.get(from..to).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
        digits.parse::<u64>().ok()
    };
    let is = |at: usize, wanted: &[u8]| text.as_bytes().get(at).is_some_and(|byte| wanted.contains(byte));
    let marks = is(4, b"-") && is(7, b"-") && is(10, b"Tt ") && is(13, b":") && is(16, b":");
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    // A leap second is the last second of its minute.
    if !marks || year < 1970 || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let days = days_of(year, month, day)?;
    let rest = text.get(19..)?;
    let fraction = rest.strip_prefix('.').map_or("", |rest| {
        let end = rest.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(rest.len());
        rest.get(..end).unwrap_or_default()
    });
    if rest.starts_with('.') && fraction.is_empty() {
        return None;
    }
    let offset = rest.get(if fraction.is_empty() { 0 } else { fraction.len() + 1 }..)?;
    let mut millis = 0;
    for digit in fraction.bytes().chain(*b"000").take(3) {
        millis = millis * 10 + u64::from(digit - b'0');
    }
    let local = ((days * 24 + hour) * 60 + minute) * 60_000 + second.min(59) * 1000 + millis;
    let two = |text: &str| {
        let digits = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse::<u64>().ok()).flatten()
    };
    match (offset.get(..1)?, offset.get(1..)?) {
        ("Z" | "z", "") => Some(local),
        (sign @ ("+" | "-"), rest) => {
            let (hours, minutes) = (two(rest.get(..2)?)?, two(rest.get(2..)?.trim_start_matches(':'))?);
            if !matches!(rest.len(), 4 | 5) || hours > 23 || minutes > 59 {
                return None;
            }
            let ahead = (hours * 60 + minutes) * 60_000;
            if sign == "+" { local.checked_sub(ahead) } else { Some(local + ahead) }
        }
        _ => None,
    }
}

/// A moment as calendars and clocks show it at a fixed offset from UTC.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct CivilTime {
    /// The year, from 1970 to 9999.
    pub year: u64,
    /// The month, from 1.
    pub month: u64,
    /// The day of the month, from 1.
    pub day: u64,
    /// The day of the year, from 1.
    pub day_of_year: u64,
    /// The days since Sunday, from 0.
    pub weekday: usize,
    /// The hour, from 0 to 23.
    pub hour: u64,
    /// The minute of the hour.
    pub minute: u64,
    /// The second of the minute.
    pub second: u64,
    /// The millisecond of the second.
    pub millisecond: u64,
}

impl CivilTime {
    /// For a wall-clock reading in milliseconds since 1970, so many minutes east of UTC. A moment outside the years 1970
    /// to 9999 is shown as the nearest one in them.
    pub fn of(wall: u64, minutes_east: i32) -> Self {
        let local = wall.min(LAST).saturating_add_signed(i64::from(minutes_east) * 60_000).min(LAST);
        let (days, in_day) = (local / 86_400_000, local % 86_400_000);
        let (year, month, day) = civil(days);
        let new_year = days_of(year, 1, 1).unwrap_or(days);
        Self {
            year,
            month,
            day,
            day_of_year: days - new_year.min(days) + 1,
            // 1970-01-01 was a Thursday.
            weekday: ((days + 4) % 7) as usize,
            hour: in_day / 3_600_000,
            minute: in_day / 60_000 % 60,
            second: in_day / 1000 % 60,
            millisecond: in_day % 1000,
        }
    }
}

/// Days from 1970-01-01 to a date that exists.
fn days_of(year: u64, month: u64, day: u64) -> Option<u64> {
    // About where it lies; the calendar is kept in one place.
    let about = (year - 1970) * 365 + (year - 1969) / 4 + (month.checked_sub(1)?) * 30;
    (about.saturating_sub(70)..about + 45).find(|days| civil(*days) == (year, month, day))
}

/// Year, month and day of a count of days since 1970-01-01 (proleptic Gregorian calendar).
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_passes_on_the_first_clock_that_reaches_it() {
        let start = Now::at(1_000, 5_000);
        let end = Deadline::after(start, Duration::from_secs(1));
        assert!(!end.passed(Now::at(1_999, 5_999)));
        assert!(end.passed(Now::at(2_000, 0)), "the boot clock is enough");
        assert!(end.passed(Now::at(0, 6_000)), "the wall clock is enough");
        assert_eq!(end.remaining(Now::at(1_200, 5_900)), Duration::from_millis(100));
    }

    #[test]
    fn instants_are_written_as_rfc_3339() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(1_550_133_185_042), "2019-02-14T08:33:05.042Z");
        assert_eq!(rfc3339(1_709_164_800_000), "2024-02-29T00:00:00.000Z");
        assert_eq!(rfc3339(u64::MAX), "9999-12-31T23:59:59.999Z");
    }

    #[test]
    fn a_moment_is_shown_by_the_calendar_of_its_offset() {
        let eve = 1_709_164_799_999;
        let shown = |time: CivilTime| (time.year, time.month, time.day, time.hour, time.minute, time.weekday);
        assert_eq!(shown(CivilTime::of(eve, 0)), (2024, 2, 28, 23, 59, 3));
        assert_eq!(shown(CivilTime::of(eve, 420)), (2024, 2, 29, 6, 59, 4));
        assert_eq!(shown(CivilTime::of(eve, -570)), (2024, 2, 28, 14, 29, 3));
        assert_eq!(shown(CivilTime::of(0, -60)), (1970, 1, 1, 0, 0, 4), "nothing lies before 1970");
        assert_eq!(CivilTime::of(u64::MAX, 840).year, 9999);
        assert_eq!(CivilTime::of(1_735_603_200_000, 0).day_of_year, 366);
        for wall in (0..LAST).step_by(86_400_000 * 31 - 12_345) {
            let time = CivilTime::of(wall, 0);
            let text = format!("{:04}-{:02}-{:02}T{:02}", time.year, time.month, time.day, time.hour);
            assert!(rfc3339(wall).starts_with(&text), "{wall}");
            assert!((1..=366).contains(&time.day_of_year), "{wall}");
        }
    }

    #[test]
    fn instants_are_read_as_rfc_3339() {
        for (text, wall) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2019-02-14T08:33:05.042Z", 1_550_133_185_042),
            ("2019-02-14t08:33:05.0429999z", 1_550_133_185_042),
            ("2019-02-14 15:33:05+07:00", 1_550_133_185_000),
            ("2019-02-14T15:33:05+0700", 1_550_133_185_000),
            ("2019-02-13T23:03:05.5-09:30", 1_550_133_185_500),
            ("2024-02-29T00:00:00-00:00", 1_709_164_800_000),
            ("2016-12-31T23:59:60Z", 1_483_228_799_000),
            ("9999-12-31T23:59:59.999Z", 253_402_300_799_999),
        ] {
            assert_eq!(of_rfc3339(text), Some(wall), "{text}");
        }
        for wall in (0..253_402_300_800_000_u64).step_by(86_400_000 * 31 - 12_345) {
            assert_eq!(of_rfc3339(&rfc3339(wall)), Some(wall));
        }
        for text in [
            "",
            "2019-02-14",
            "2019-02-14T08:33:05",
            "2019-02-14T08:33Z",
            "2019-02-30T08:33:05Z",
            "2023-02-29T00:00:00Z",
            "2019-13-01T00:00:00Z",
            "2019-00-01T00:00:00Z",
            "2019-01-00T00:00:00Z",
            "2019-02-14T24:00:00Z",
            "2019-02-14T08:60:00Z",
            "2019-02-14T08:33:05.Z",
            "2019-02-14T08:33:05Z ",
            "2019-02-14T08:33:05+7:00",
            "2019-02-14T08:33:05+07:0",
            "2019-02-14T08:33:05+07::00",
            "2019-02-14T08:33:05+24:00",
            "1969-12-31T23:59:59Z",
            "1970-01-01T00:00:00+01:00",
            "+019-02-14T08:33:05Z",
            "2019-02-14T08:33:05\u{e9}",
            "éééééééééééééééééééé",
        ] {
            assert_eq!(of_rfc3339(text), None, "{text}");
        }
    }

    #[test]
    fn the_system_clock_moves_forward() {
        let clock = Clock::System;
        let (first, second) = (clock.now(), clock.now());
        assert!(second.boot >= first.boot && first.wall > 1_700_000_000_000);
    }
}
