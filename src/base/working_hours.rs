//! The hours in which a provider may be called, as requests and the keeper ask for them.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::calendar::{Calendar, CalendarSpan};
use super::time::Now;

/// A state without a known end is looked up again after this long, in milliseconds.
const LOOK: u64 = 3_600_000;

/// The opening hours of a provider, with the time before an opening from which tokens are fetched.
#[derive(Debug)]
pub struct WorkingHours {
    calendar: Calendar,
    prewarm: Duration,
    /// The span that was looked up last: requests read it without a lock.
    current: ArcSwap<KnownSpan>,
}

/// A span, and the part of it in which it is known to hold.
#[derive(Clone, Copy, Debug)]
struct KnownSpan {
    from: u64,
    to: u64,
    span: CalendarSpan,
}

impl WorkingHours {
    /// Hours by a calendar. From `prewarm` before each opening on, tokens may be fetched.
    pub fn new(calendar: Calendar, prewarm: Duration) -> Self {
        let nothing = KnownSpan { from: 0, to: 0, span: CalendarSpan { is_open: false, until: None } };
        Self { calendar, prewarm, current: ArcSwap::from(Arc::new(nothing)) }
    }

    /// The calendar that they follow.
    pub const fn calendar(&self) -> &Calendar {
        &self.calendar
    }

    /// Returns the state now and its end.
    pub fn span(&self, now: Now) -> CalendarSpan {
        let known = self.current.load();
        if (known.from..known.to).contains(&now.wall) {
            return known.span;
        }
        let span = self.calendar.span(now.wall);
        let to = span.until.unwrap_or_else(|| now.wall.saturating_add(LOOK));
        self.current.store(Arc::new(KnownSpan { from: now.wall, to, span }));
        span
    }

    /// Returns the time until the provider opens; `None`: it is open. More than a year counts as a day.
    pub fn opens_in(&self, now: Now) -> Option<Duration> {
        let span = self.span(now);
        let left = span.until.map_or(24 * LOOK, |until| until.saturating_sub(now.wall));
        (!span.is_open).then(|| Duration::from_millis(left.max(1)))
    }

    /// Returns the time until tokens may be fetched; `None`: they may be fetched now.
    pub fn fetches_in(&self, now: Now) -> Option<Duration> {
        self.opens_in(now)?.checked_sub(self.prewarm).filter(|left| !left.is_zero())
    }

    /// Returns whether the provider is closed and a token that was last used at the boot clock's second `last_used`
    /// was in use while it was open.
    pub fn expects_use(&self, last_used: u64, now: Now) -> bool {
        if last_used == 0 || self.opens_in(now).is_none() {
            return false;
        }
        let Some(opened) = self.calendar.last_opening(now.wall) else { return false };
        let ago = now.wall.saturating_sub(opened);
        // Uses are known by the second.
        last_used.saturating_add(1).saturating_mul(1000) > now.boot.saturating_sub(ago)
    }

    /// Says in words that it is closed, and until when.
    pub fn reason(&self, now: Now) -> String {
        match self.span(now).until {
            Some(until) => format!("outside the provider's `hours`; it opens at {}", self.calendar.zone().text(until)),
            None => "outside the provider's `hours`; no opening is in sight".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::base::calendar::{OpeningRule, Zone};
    use crate::base::time::of_rfc3339;

    fn hours(prewarm: u64) -> WorkingHours {
        let rule = OpeningRule::parse("mon-fri 08:00-20:00").expect("a rule");
        let zone = Zone::find("Asia/Bangkok").expect("a zone");
        WorkingHours::new(Calendar::new(zone, &[rule], BTreeSet::new()), Duration::from_secs(prewarm))
    }

    fn at(text: &str) -> Now {
        Now::at(1_000_000_000, of_rfc3339(text).expect("a time"))
    }

    #[test]
    fn what_was_looked_up_holds_for_its_span_and_no_longer() {
        let hours = hours(0);
        let seconds = |text: &str| hours.opens_in(at(text)).map(|left| left.as_secs());
        assert_eq!(seconds("2026-12-04T19:59:59+07:00"), None);
        assert_eq!(seconds("2026-12-04T20:00:00+07:00"), Some(60 * 3600));
        assert_eq!(seconds("2026-12-07T07:59:59+07:00"), Some(1));
        assert_eq!(seconds("2026-12-07T08:00:00+07:00"), None);
        assert_eq!(seconds("2026-12-06T08:00:00+07:00"), Some(24 * 3600), "the clock was set back");
        assert_eq!(
            hours.reason(at("2026-12-06T08:00:00+07:00")),
            "outside the provider's `hours`; it opens at 2026-12-07T08:00:00+07:00"
        );
    }

    #[test]
    fn tokens_are_fetched_a_while_before_the_opening() {
        let hours = hours(120);
        let seconds = |text: &str| hours.fetches_in(at(text)).map(|left| left.as_secs());
        assert_eq!(seconds("2026-12-07T07:00:00+07:00"), Some(58 * 60));
        assert_eq!(seconds("2026-12-07T07:57:59+07:00"), Some(1));
        assert_eq!(seconds("2026-12-07T07:58:00+07:00"), None);
        assert_eq!(seconds("2026-12-07T12:00:00+07:00"), None);
    }

    #[test]
    fn use_is_expected_of_what_was_used_in_the_last_opening() {
        let hours = hours(120);
        let now = at("2026-12-07T07:58:00+07:00");
        // It opened on Friday at 08:00, 71 h 58 min ago.
        let opened = now.boot / 1000 - (72 * 3600 - 120);
        assert!(hours.expects_use(opened, now) && hours.expects_use(opened + 3600, now));
        assert!(!hours.expects_use(opened - 2, now) && !hours.expects_use(0, now));
        assert!(!hours.expects_use(opened, at("2026-12-07T08:00:00+07:00")), "it is open");
    }
}
