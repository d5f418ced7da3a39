//! Tables for people: columns that stand under each other, and moments that say how long ago they are.

use super::color::Tone;
use crate::base::time::{Now, rfc3339};

/// Rows under their heads, each column as wide as its widest cell, two spaces apart.
pub(super) fn table(heads: &[&str], rows: &[Vec<String>]) -> String {
    painted_table(heads, rows, &|_, _| None)
}

/// The same, with colours for the cells that `tone` gives one, by their column.
pub(super) fn painted_table(
    heads: &[&str],
    rows: &[Vec<String>],
    tone: &dyn Fn(usize, &str) -> Option<Tone>,
) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(heads.get(column).map(|head| head.len())).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>, tone: &dyn Fn(usize, &str) -> Option<Tone>| {
        let mut text = String::new();
        for (column, (cell, width)) in cells.zip(&widths).enumerate() {
            let blanks = " ".repeat(width.saturating_sub(cell.chars().count()) + 2);
            text += &tone(column, cell).map_or_else(|| cell.to_owned(), |tone| tone.paint(cell, true));
            text += &blanks;
        }
        format!("{}\n", text.trim_end())
    };
    let mut text = line(&mut heads.iter().copied(), &|_, _| None);
    for row in rows {
        text += &line(&mut row.iter().map(String::as_str), tone);
    }
    text
}

/// A length of time in its two largest units: `3 h 12 min`.
pub(super) fn length(seconds: u64) -> String {
    let units = [("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)];
    let mut left = seconds;
    let mut parts = Vec::new();
    for (unit, size) in units {
        let count = left / size;
        left %= size;
        if count > 0 {
            parts.push(format!("{count} {unit}"));
        } else if !parts.is_empty() {
            break;
        }
        if parts.len() == 2 {
            break;
        }
    }
    if parts.is_empty() { "0 s".to_owned() } else { parts.join(" ") }
}

/// A moment as the API writes it, seen from `now`: `in 55 min (2026-11-21T08:30:00Z)`.
pub(super) fn moment(text: &str, now: Now) -> String {
    let Some(at) = read(text) else { return text.to_owned() };
    let short = rfc3339(at).replace(".000Z", "Z");
    let short = short.split_once('.').map_or(short.clone(), |(seconds, _)| format!("{seconds}Z"));
    if at >= now.wall {
        format!("in {} ({short})", length((at - now.wall) / 1000))
    } else {
        format!("{} ago ({short})", length((now.wall - at) / 1000))
    }
}

/// Milliseconds since 1970 of `2026-11-21T08:30:00.123Z`, the only form that the API writes.
fn read(text: &str) -> Option<u64> {
    if text.len() != 24 || !text.is_ascii() {
        return None;
    }
    let part = |from: usize, to: usize| text.get(from..to)?.parse::<u64>().ok();
    let (year, month, day) = (part(0, 4)?, part(5, 7)?, part(8, 10)?);
    let (hour, minute, second, millis) = (part(11, 13)?, part(14, 16)?, part(17, 19)?, part(20, 23)?);
    if year < 1970 || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Days since 1970 (proleptic Gregorian calendar); the year begins in March.
    let shifted = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (shifted / 400, shifted % 400);
    let of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    Some((((days * 24 + hour) * 60 + minute) * 60 + second) * 1000 + millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_as_they_are_written() {
        for at in [0, 1_550_133_185_042, 1_709_164_800_000, 1_709_251_199_999, 4_102_444_800_000] {
            assert_eq!(read(&rfc3339(at)), Some(at), "{}", rfc3339(at));
        }
        for text in ["", "2026-11-21", "2026-13-21T08:30:00.123Z", "1969-11-21T08:30:00.123Z", "2026-11-21T08:30:00.1é"]
        {
            assert_eq!(read(text), None, "{text}");
        }
        let now = Now::at(0, 1_709_164_800_000);
        assert_eq!(moment("2024-02-29T00:10:05.500Z", now), "in 10 min 5 s (2024-02-29T00:10:05Z)");
        assert_eq!(moment("2024-02-28T00:00:00.000Z", now), "1 d ago (2024-02-28T00:00:00Z)");
        assert_eq!(moment("?", now), "?");
    }

    #[test]
    fn a_length_has_two_units_at_most() {
        let told = [0, 59, 60, 3599, 3600, 3660, 90_061].map(length);
        assert_eq!(told, ["0 s", "59 s", "1 min", "59 min 59 s", "1 h", "1 h 1 min", "1 d 1 h"]);
    }

    #[test]
    fn columns_stand_under_each_other() {
        let rows = vec![vec!["scb".to_owned(), "live".to_owned()], vec!["rakbank".to_owned(), String::new()]];
        assert_eq!(table(&["NAME", "STATE"], &rows), "NAME     STATE\nscb      live\nrakbank\n");
    }
}
