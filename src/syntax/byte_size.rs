//! Durations and sizes as people write them.

use std::time::Duration;

use super::diagnostic::Diagnostics;
use super::fields::FromNode;
use super::node::{Kind, Node};

/// A duration: `"250ms"`, `"30s"`, `"5m"`, `"1h30m"`, `"2d"`.
pub fn duration(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut rest = text;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let unit = match &rest[..letters] {
            "ms" => Duration::from_millis(1),
            "s" => Duration::from_secs(1),
            "m" => Duration::from_secs(60),
            "h" => Duration::from_secs(3600),
            "d" => Duration::from_secs(86_400),
            _ => return None,
        };
        rest = &rest[letters..];
        total = total.checked_add(unit.checked_mul(u32::try_from(number).ok()?)?)?;
    }
    Some(total)
}

/// A size in bytes: `"512B"`, `"64KiB"`, `"10MiB"`, `"1GiB"`.
pub fn size(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let number: u64 = text[..digits].parse().ok()?;
    let unit = match &text[digits..] {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(unit)
}

impl FromNode for Duration {
    fn from_node(node: &Node, report: &Diagnostics) -> Option<Self> {
        let read = node.as_str().and_then(duration);
        if read.is_none() {
            let help = match likely_duration(&node.kind) {
                Some(likely) => format!("did you mean `\"{likely}\"`?"),
                None => "a number with a unit: `\"250ms\"`, `\"30s\"`, `\"5m\"`, `\"1h30m\"`".to_owned(),
            };
            node.error(report, "not a duration", "expected a duration", Some(help));
        }
        read
    }
}

/// A number of bytes, read from a string with a unit such as `"64KiB"`, or from the integer 0.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ByteSize(pub u64);

impl FromNode for ByteSize {
    fn from_node(node: &Node, report: &Diagnostics) -> Option<Self> {
        let zero = matches!(node.kind, Kind::Integer(0));
        let read = if zero { Some(0) } else { node.as_str().and_then(size) };
        if read.is_none() {
            let help = match likely_size(&node.kind) {
                Some(likely) => format!("did you mean `\"{likely}\"`?"),
                None => "a number with a unit: `\"512B\"`, `\"64KiB\"`, `\"10MiB\"`".to_owned(),
            };
            node.error(report, "not a size", "expected a size", Some(help));
        }
        read.map(ByteSize)
    }
}

/// The duration that a value without a unit, or with another word for it, likely means.
fn likely_duration(kind: &Kind) -> Option<String> {
    likely(kind, |unit| match unit {
        "" | "sec" | "secs" | "second" | "seconds" => Some("s"),
        "msec" | "msecs" | "millisecond" | "milliseconds" => Some("ms"),
        "min" | "mins" | "minute" | "minutes" => Some("m"),
        "hr" | "hrs" | "hour" | "hours" => Some("h"),
        "day" | "days" => Some("d"),
        "ms" => Some("ms"),
        "s" => Some("s"),
        "m" => Some("m"),
        "h" => Some("h"),
        "d" => Some("d"),
        _ => None,
    })
}

/// The size that a value without a unit, or with a decimal one, likely means.
fn likely_size(kind: &Kind) -> Option<String> {
    likely(kind, |unit| match unit {
        "" | "b" | "byte" | "bytes" => Some("B"),
        "k" | "kb" | "ki" | "kib" => Some("KiB"),
        "m" | "mb" | "mi" | "mib" => Some("MiB"),
        "g" | "gb" | "gi" | "gib" => Some("GiB"),
        _ => None,
    })
}

/// The number of a value, with the unit that `unit` knows for what stands behind it.
fn likely(kind: &Kind, unit: impl Fn(&str) -> Option<&'static str>) -> Option<String> {
    let text = match kind {
        Kind::Integer(number) if *number > 0 => number.to_string(),
        Kind::String(text) => text.trim().to_ascii_lowercase(),
        Kind::Array(_) | Kind::Boolean(_) | Kind::Float(_) | Kind::Integer(_) | Kind::Table(_) => return None,
    };
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, behind) = text.split_at_checked(digits).filter(|(number, _)| (1..=12).contains(&number.len()))?;
    Some(format!("{number}{}", unit(behind.trim())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_are_read_with_their_units_only() {
        assert_eq!(duration("1h30m"), Some(Duration::from_secs(5400)));
        assert_eq!(duration("250ms"), Some(Duration::from_millis(250)));
        for bad in ["", "30", "s", "1w", "1 s", "-1s", "99999999999999999999s", "1.5s"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
        assert_eq!(size("64KiB"), Some(65_536));
        for bad in ["", "64", "64KB", "KiB", "99999999999GiB", "1.5MiB"] {
            assert_eq!(size(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_likely_unit_is_named() {
        let text = |text: &str| Kind::String(text.to_owned());
        for (kind, likely) in [
            (Kind::Integer(5), Some("5s")),
            (text("5"), Some("5s")),
            (text("5 s"), Some("5s")),
            (text("90sec"), Some("90s")),
            (text("2 minutes"), Some("2m")),
            (text("1w"), None),
            (text("soon"), None),
            (Kind::Integer(-5), None),
        ] {
            assert_eq!(likely_duration(&kind).as_deref(), likely, "{kind:?}");
            assert!(likely.is_none_or(|likely| duration(likely).is_some()));
        }
        for (kind, likely) in
            [(text("32KB"), Some("32KiB")), (text("1 mb"), Some("1MiB")), (Kind::Integer(64), Some("64B"))]
        {
            assert_eq!(likely_size(&kind).as_deref(), likely, "{kind:?}");
            assert!(likely.is_none_or(|likely| size(likely).is_some()));
        }
    }
}
