//! Counts as a person writes them.

/// Formats a count with its noun, with an `s` unless the count is 1: `1 route`, `2 routes`.
pub fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}
