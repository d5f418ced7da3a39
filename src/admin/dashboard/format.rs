//! Numbers, durations and moments as people read them.

use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::base::time::{Now, rfc3339};

/// A moment, to be shown three ways.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct ShownMoment {
    /// The moment in RFC 3339, in UTC and with milliseconds.
    pub(super) iso: String,
    /// `12:03:05`, with the date where that is not today's. UTC.
    pub(super) clock: String,
    /// `12 s ago`, `in 3 min 5 s`.
    pub(super) relative: String,
    /// True if the moment does not lie in the future.
    pub(super) past: bool,
}

impl ShownMoment {
    /// Builds it from a moment in milliseconds since 1970.
    pub(super) fn at(wall: u64, now: Now) -> Self {
        let (iso, today) = (rfc3339(wall), rfc3339(now.wall));
        let time = iso.get(11..19).unwrap_or_default();
        let date = iso.get(..10).unwrap_or_default();
        let clock = if today.starts_with(date) { time.to_owned() } else { format!("{date} {time}") };
        let past = wall <= now.wall;
        let relative = match wall.abs_diff(now.wall) / 1000 {
            0 => "now".to_owned(),
            seconds if past => format!("{} ago", format_span(seconds)),
            seconds => format!("in {}", format_span(seconds)),
        };
        Self { iso, clock, relative, past }
    }

    /// Of a view's RFC 3339 text.
    pub(super) fn of(text: &str, now: Now) -> Self {
        Self::at(millis_of(text).unwrap_or(0), now)
    }

    /// The same, where there may be none.
    pub(super) fn maybe(text: Option<&str>, now: Now) -> Option<Self> {
        text.map(|text| Self::of(text, now))
    }
}

/// Milliseconds since 1970 of what [`rfc3339`] has written.
pub(super) fn millis_of(text: &str) -> Option<u64> {
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<u64>().ok();
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    // Days since 1970-01-01, of years that begin in March.
    let shifted = year.checked_sub(u64::from(month <= 2))?;
    let (era, of_era) = (shifted / 400, shifted % 400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day.checked_sub(1)?;
    let days = (era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year).checked_sub(719_468)?;
    let seconds = days * 86_400 + number(11, 13)? * 3600 + number(14, 16)? * 60 + number(17, 19)?;
    Some(seconds * 1000 + number(20, 23).unwrap_or(0))
}

/// `12 s`, `3 min 5 s`, `2 h 4 min`, `3 d 4 h`.
pub(super) fn format_span(seconds: u64) -> String {
    let two = |big: u64, one: &str, small: u64, other: &str| match small {
        0 => format!("{big} {one}"),
        small => format!("{big} {one} {small} {other}"),
    };
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => two(seconds / 60, "min", seconds % 60, "s"),
        3600..86_400 => two(seconds / 3600, "h", seconds % 3600 / 60, "min"),
        _ => two(seconds / 86_400, "d", seconds % 86_400 / 3600, "h"),
    }
}

/// Formats a number with thousands separators: `12,345`.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut shown = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// Formats a rate per second: `0`, `0.3`, `12.4`, `1,240`.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "for people")]
pub(super) fn rate(number: u64, seconds: u64) -> String {
    let rate = number as f64 / seconds.max(1) as f64;
    match rate {
        _ if number == 0 => "0".to_owned(),
        ..0.01 => "<0.01".to_owned(),
        ..0.1 => format!("{rate:.2}"),
        ..100.0 => format!("{rate:.1}"),
        _ => count(rate.round() as u64),
    }
}

/// A part of a whole: `0 %`, `<0.1 %`, `2.4 %`.
#[expect(clippy::cast_precision_loss, reason = "for people")]
pub(super) fn share(part: u64, whole: u64) -> String {
    let percent = part as f64 * 100.0 / whole.max(1) as f64;
    match percent {
        _ if part == 0 => "0 %".to_owned(),
        ..0.1 => "<0.1 %".to_owned(),
        ..10.0 => format!("{percent:.1} %"),
        _ => format!("{percent:.0} %"),
    }
}

/// Milliseconds: `0.034 ms`, `3.4 ms`, `12 ms`, `1.2 s`.
pub(super) fn took(ms: f64) -> String {
    match ms {
        // Three figures, so that neighbours among short ones differ.
        ..0.9995 => format!("{ms:.3} ms"),
        ..9.95 => format!("{ms:.1} ms"),
        ..999.5 => format!("{ms:.0} ms"),
        ..59_950.0 => format!("{:.1} s", ms / 1000.0),
        _ => format!("{:.0} s", ms / 1000.0),
    }
}

/// The same of a duration.
pub(super) fn lasted(duration: Duration) -> String {
    took(duration.as_secs_f64() * 1000.0)
}

/// A text as the value of a URL's query (RFC 3986).
pub(super) fn query(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// The beginning of a long text.
pub(super) fn head(text: &str, most: usize) -> String {
    let mut shown: String = text.chars().take(most).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_as_they_were_written() {
        for wall in [0, 951_782_400_000, 1_550_133_185_042, 1_709_164_800_000, 1_735_689_599_999, 4_107_542_400_000] {
            assert_eq!(millis_of(&rfc3339(wall)), Some(wall), "{}", rfc3339(wall));
        }
        assert_eq!((millis_of(""), millis_of("0000-01-01T00:00:00.000Z"), millis_of("2026-xx")), (None, None, None));
    }

    #[test]
    fn moments_are_told_from_now() {
        let now = Now::at(0, millis_of("2026-11-21T12:00:00.000Z").unwrap());
        let told = |text: &str| ShownMoment::of(text, now);
        assert_eq!(told("2026-11-21T11:59:48.500Z").relative, "11 s ago");
        assert_eq!(
            (told("2026-11-21T12:03:05.000Z").relative, told("2026-11-21T12:03:05.000Z").past),
            ("in 3 min 5 s".into(), false)
        );
        assert_eq!(told("2026-11-21T12:00:00.400Z").relative, "now");
        assert_eq!(told("2026-11-21T12:03:05.000Z").clock, "12:03:05");
        assert_eq!(told("2026-11-24T12:03:05.000Z").clock, "2026-11-24 12:03:05");
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!([0, 999, 1000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(
            [(0, 60), (1, 600), (3, 60), (75, 6), (123_456, 10)].map(|(n, s)| rate(n, s)),
            ["0", "<0.01", "0.05", "12.5", "12,346"]
        );
        assert_eq!([(0, 5), (1, 5000), (1, 41), (1, 2)].map(|(n, s)| share(n, s)), ["0 %", "<0.1 %", "2.4 %", "50 %"]);
        assert_eq!(["a b/c&d", "scb"].map(query), ["a%20b%2Fc%26d", "scb"]);
        assert_eq!([0.034, 3.44, 12.3, 1234.0, 75_000.0].map(took), ["0.034 ms", "3.4 ms", "12 ms", "1.2 s", "75 s"]);
        assert_eq!([5, 60, 185, 7440, 273_600].map(format_span), ["5 s", "1 min", "3 min 5 s", "2 h 4 min", "3 d 4 h"]);
        assert_eq!((head("abc", 3), head("äbcd", 3)), ("abc".to_owned(), "äbc…".to_owned()));
    }
}
