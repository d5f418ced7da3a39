//! Durations and sizes as people write them.

use std::time::Duration;

use super::diagnostic::Diagnostics;
use super::fields::FromNode;
use super::node::Node;

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
            let help = "a number with a unit: `\"250ms\"`, `\"30s\"`, `\"5m\"`, `\"1h30m\"`";
            node.error(report, "not a duration", "expected a duration", Some(help.to_owned()));
        }
        read
    }
}

/// A number of bytes, read from a string with a unit such as `"64KiB"`, or from the integer 0.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ByteSize(pub u64);

impl FromNode for ByteSize {
    fn from_node(node: &Node, report: &Diagnostics) -> Option<Self> {
        let zero = matches!(node.kind, super::node::Kind::Integer(0));
        let read = if zero { Some(0) } else { node.as_str().and_then(size) };
        if read.is_none() {
            let help = "a number with a unit: `\"512B\"`, `\"64KiB\"`, `\"10MiB\"`";
            node.error(report, "not a size", "expected a size", Some(help.to_owned()));
        }
        read.map(ByteSize)
    }
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
}
