//! This machine's clock against a provider's `Date`.

use super::finding::{Finding, span};
use crate::base::time::{Now, rfc3339};

/// More than so many seconds are told.
const NOTABLE: u64 = 30;
/// More than so many fail: signed requests are refused, tokens seem to end too early or too late.
const TOO_MUCH: u64 = 300;

/// Compares the clocks. `date`: milliseconds since 1970, in whole seconds, read at some moment from `sent` to `received`.
pub(super) fn judge_clock(date: Option<u64>, sent: Now, received: Now) -> Finding {
    let Some(date) = date else {
        return Finding::skipped("clock", "the answer has no `Date` to compare this machine's clock with", None);
    };
    // The provider's clock showed `date` up to a second before the next one: what lies in between is no difference.
    let behind = date.saturating_sub(received.wall) / 1000;
    let ahead = sent.wall.saturating_sub(date.saturating_add(1000)) / 1000;
    let off = behind.max(ahead);
    let signed = i64::try_from(off).unwrap_or(i64::MAX) * if behind > 0 { -1 } else { 1 };
    let side = if behind > 0 { "behind" } else { "ahead of" };
    let detail = format!(
        "this machine's clock is {} {side} the provider's (here {}, there {})",
        span(off),
        moment(received.wall),
        moment(date)
    );
    let help = "set the clock, best by NTP: `timedatectl set-ntp true`, or chrony with a time server of your network";
    let found = match off {
        0..=NOTABLE => Finding::fine("clock", format!("within {} of the provider's", span(off.max(1)))),
        _ if off <= TOO_MUCH => Finding::warned("clock", detail, help),
        _ => Finding::failed("clock", detail, help),
    };
    found.with("skew_seconds", signed)
}

/// Formats milliseconds since 1970 to the second: `2026-01-31T12:00:00Z`.
pub(super) fn moment(wall: u64) -> String {
    rfc3339(wall / 1000 * 1000).replace(".000Z", "Z")
}

#[cfg(test)]
mod tests {
    use super::super::finding::Mark;
    use super::*;

    const DATE: u64 = 1_790_000_000_000;

    /// The verdict on a clock that showed these differences from the provider's when asking and when answered.
    fn found(sent: i64, received: i64) -> (Mark, i64) {
        let at = |off: i64| Now::at(0, DATE.checked_add_signed(off * 1000).unwrap());
        let found = judge_clock(Some(DATE), at(sent), at(received));
        (found.mark, found.figures["skew_seconds"].as_i64().unwrap())
    }

    #[test]
    fn a_difference_is_judged_by_its_size_and_named_by_its_side() {
        assert_eq!(found(0, 0), (Mark::Fine, 0));
        assert_eq!(found(31, 31), (Mark::Fine, 30));
        assert_eq!(found(32, 32), (Mark::Warned, 31));
        assert_eq!(found(-30, -30), (Mark::Fine, -30));
        assert_eq!(found(-31, -31), (Mark::Warned, -31));
        assert_eq!(found(301, 301), (Mark::Warned, 300));
        assert_eq!(found(302, 302), (Mark::Failed, 301));
        assert_eq!(found(-301, -301), (Mark::Failed, -301));
        let told = judge_clock(Some(DATE), Now::at(0, DATE - 600_000), Now::at(0, DATE - 600_000)).detail;
        assert!(told.contains("10 min behind"), "{told}");
    }

    #[test]
    fn a_slow_answer_is_no_difference() {
        assert_eq!(found(-40, 0), (Mark::Fine, 0));
        assert_eq!(found(-400, 1), (Mark::Fine, 0));
        assert_eq!(found(-1, 400), (Mark::Fine, 0));
    }

    #[test]
    fn without_a_date_nothing_is_judged() {
        assert_eq!(judge_clock(None, Now::at(0, 0), Now::at(0, 0)).mark, Mark::Skipped);
    }
}
