//! Moments, taken on two clocks at once.
//!
//! A token dies at the earlier of two readings: the *boot* clock (`CLOCK_BOOTTIME`, which runs on while a machine
//! sleeps and never jumps) and the *wall* clock (which somebody may set forward). Whoever turns one clock back gains
//! no life. This file is the only place that reads a clock; all other code is handed a [`Now`].

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// One moment on both clocks, in milliseconds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Now {
    /// Milliseconds since the machine booted, sleep included.
    pub boot: u64,
    /// Milliseconds since 1970-01-01T00:00:00Z.
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

    /// Time since `earlier` by the boot clock; zero when `earlier` lies ahead.
    pub fn since(self, earlier: Now) -> Duration {
        Duration::from_millis(self.boot.saturating_sub(earlier.boot))
    }

    /// Whole seconds since 1970.
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

    /// Whether either clock has reached it.
    #[inline]
    pub const fn passed(self, now: Now) -> bool {
        now.boot >= self.boot || now.wall >= self.wall
    }

    /// Time left, by the clock that says less; zero once passed.
    pub fn remaining(self, now: Now) -> Duration {
        Duration::from_millis(self.boot.saturating_sub(now.boot).min(self.wall.saturating_sub(now.wall)))
    }

    /// The wall-clock reading, in milliseconds since 1970.
    pub const fn wall(self) -> u64 {
        self.wall
    }

    /// The earlier of two deadlines, on each clock.
    pub fn min(self, other: Self) -> Self {
        Self { boot: self.boot.min(other.boot), wall: self.wall.min(other.wall) }
    }
}

/// Where moments come from: the machine, or a test's hand.
#[derive(Clone, Debug, Default)]
pub enum Clock {
    /// The machine's clocks.
    #[default]
    System,
    /// A clock that moves only when told to.
    Hand(Arc<Hand>),
    /// A clock that a simulation drives.
    #[cfg(test)]
    Simulated(Arc<dyn Simulated>),
}

/// What a simulated clock shows: it runs, but not in step with the machine's.
#[cfg(test)]
pub trait Simulated: std::fmt::Debug + Send + Sync {
    /// Both readings.
    fn now(&self) -> Now;
}

impl Clock {
    /// Both clocks. That the wall clock was set is noticed within 20 milliseconds.
    #[inline]
    pub fn now(&self) -> Now {
        match self {
            Clock::System => {
                let boot = read(rustix::time::ClockId::Boottime);
                Now { boot, wall: wall(boot) }
            }
            Clock::Hand(hand) => hand.now(),
            #[cfg(test)]
            Clock::Simulated(simulated) => simulated.now(),
        }
    }
}

/// A clock for tests: it stands still until moved.
#[derive(Debug, Default)]
pub struct Hand {
    boot: AtomicU64,
    wall: AtomicU64,
}

impl Hand {
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

    /// What both clocks show.
    pub fn now(&self) -> Now {
        Now { boot: self.boot.load(Ordering::SeqCst), wall: self.wall.load(Ordering::SeqCst) }
    }
}

/// Measures how long something took, for histograms. Decisions are made on [`Now`], never on this.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(u64);

impl Stopwatch {
    /// Starts it (`CLOCK_MONOTONIC`).
    #[inline]
    pub fn start() -> Self {
        Self(nanos(rustix::time::ClockId::Monotonic))
    }

    /// Time since the start.
    #[inline]
    pub fn elapsed(self) -> Duration {
        Duration::from_nanos(nanos(rustix::time::ClockId::Monotonic).saturating_sub(self.0))
    }
}

/// Whole milliseconds, saturating.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// How long a thread believes that the wall clock was not set.
const BELIEVED: u64 = 20;

/// The wall clock, given what the boot clock says now. A request asks for the time often: so the wall clock itself is
/// read every [`BELIEVED`] milliseconds, and runs along with the boot clock in between.
#[inline]
fn wall(boot: u64) -> u64 {
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

/// `2026-11-21T08:30:00.123Z` (RFC 3339) for a wall-clock reading in milliseconds since 1970.
pub fn rfc3339(wall: u64) -> String {
    Rfc3339::of(wall).as_str().to_owned()
}

/// The same text without an allocation. What lies behind the year 9999 is shown as its last millisecond.
#[derive(Clone, Copy, Debug)]
pub struct Rfc3339([u8; 24]);

impl Rfc3339 {
    /// For a wall-clock reading in milliseconds since 1970.
    pub fn of(wall: u64) -> Self {
        const LAST: u64 = 253_402_300_799_999;
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

    /// The text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
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
    fn the_system_clock_moves_forward() {
        let clock = Clock::System;
        let (first, second) = (clock.now(), clock.now());
        assert!(second.boot >= first.boot && first.wall > 1_700_000_000_000);
    }
}
