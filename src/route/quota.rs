//! The quotas of a provider: so many requests in a window of time, counted apart for each value of some dimensions.
//!
//! Windows are aligned: a day's begins at midnight in the quota's zone, shorter ones at multiples of their length since
//! 1970. So replicas need not agree on anything but the time. [`QuotaCount`] is one count, pure: it takes requests out of
//! what it was granted, and says when more should be asked for. A process on its own grants itself all that a window has.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::base::calendar::Zone;
use crate::base::secret::{hex, sha256};
use crate::base::time::{Now, millis};

/// The milliseconds of a day.
const DAY: u64 = 86_400_000;

/// Counts that one quota keeps in a window; beyond, all others are counted as one.
const MOST_KEYS: usize = 65_536;

/// A count whose store is gone asks it again after this long, in milliseconds.
const ALONE: u64 = 1000;

/// A property of requests by which a quota counts them apart.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum QuotaDimension {
    /// The client that calls.
    Client,
    /// The user in whose name it calls.
    User,
    /// The value of a route's variable.
    Var(Arc<str>),
}

impl QuotaDimension {
    /// Reads `client`, `user` or `var:NAME`.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "client" => Some(Self::Client),
            "user" => Some(Self::User),
            other => other.strip_prefix("var:").filter(|name| !name.is_empty()).map(|name| Self::Var(name.into())),
        }
    }
}

impl fmt::Display for QuotaDimension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client => f.write_str("client"),
            Self::User => f.write_str("user"),
            Self::Var(name) => write!(f, "var:{name}"),
        }
    }
}

/// A window of a quota, in milliseconds since 1970; `until` is the first one after it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct QuotaWindow {
    pub from: u64,
    pub until: u64,
}

impl QuotaWindow {
    const fn has(self, wall: u64) -> bool {
        self.from <= wall && wall < self.until
    }
}

/// A quota as the config says it.
#[derive(Clone, Debug)]
pub struct QuotaRule {
    /// Requests in a window, at least 1.
    pub requests: u64,
    per: u64,
    /// The dimensions of its counts; none: all requests are counted as one.
    pub by: Vec<QuotaDimension>,
    zone: Zone,
    identity: Arc<str>,
}

impl QuotaRule {
    /// A quota of a provider. `None` if windows of this length cannot be aligned: only a day, or a part of one that
    /// divides it, can.
    pub fn new(provider: &str, requests: u64, per: Duration, by: Vec<QuotaDimension>, zone: Zone) -> Option<Self> {
        let per = millis(per);
        if !(1000..=DAY).contains(&per) || !DAY.is_multiple_of(per) {
            return None;
        }
        let dimensions: Vec<String> = by.iter().map(ToString::to_string).collect();
        let inputs = format!("{provider}\n{per}\n{}\n{}", dimensions.join("\n"), zone.name());
        let digest = hex(&sha256(inputs.as_bytes()));
        let identity = format!("{provider}:{}", digest.get(..16).unwrap_or_default()).into();
        Some(Self { requests, per, by, zone, identity })
    }

    /// Names its counts: quotas that differ in their number of requests only have the same.
    pub const fn identity(&self) -> &Arc<str> {
        &self.identity
    }

    /// Returns the window of a moment.
    pub fn window(&self, wall: u64) -> QuotaWindow {
        let aligned = || {
            let from = wall - wall % self.per;
            QuotaWindow { from, until: from.saturating_add(self.per) }
        };
        if self.per < DAY {
            return aligned();
        }
        let day = |wall| self.zone.day(wall).map(|(from, until)| QuotaWindow { from, until });
        match day(wall) {
            // The clock went back over midnight: the new day has begun, and its date is not shown again yet.
            Some(before) if before.until <= wall => day(before.until + DAY / 2).unwrap_or_else(aligned),
            Some(day) => day,
            None => aligned(),
        }
    }

    /// The key of a request's count. The values stand in the order of [`Self::by`].
    pub fn key<'a>(&self, values: impl IntoIterator<Item = &'a [u8]>) -> QuotaKey {
        let mut inputs = Vec::new();
        for value in values {
            inputs.extend(u64::try_from(value.len()).unwrap_or(u64::MAX).to_be_bytes());
            inputs.extend(value);
        }
        QuotaKey(sha256(&inputs).first_chunk().copied().unwrap_or_default())
    }
}

/// A count of a quota: a digest of the values of its dimensions.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct QuotaKey([u8; 16]);

impl fmt::Display for QuotaKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

/// A wish for more of a shared window.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct QuotaClaim {
    /// The window that it is about.
    pub window: QuotaWindow,
    /// The count that it is for.
    pub key: QuotaKey,
    /// Requests that were made without a grant, and are counted whether or not the window has room.
    pub debt: u64,
    /// Requests that are wanted.
    pub want: u64,
    /// Requests that the window has in all.
    pub limit: u64,
}

/// The result of taking a request out of a quota.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum QuotaTurn {
    /// The window has no more; this is the time until the next one.
    Refused(Duration),
    /// It is taken. More should be asked for, if there is a claim.
    Taken(Option<QuotaClaim>),
    /// Nothing is granted, and it has to be asked for first; no claim: another request has done so.
    Waits(Option<QuotaClaim>),
}

/// One count in one window.
#[derive(Clone, Copy, Debug, Default)]
struct QuotaCount {
    /// Requests that were taken.
    used: u64,
    /// Requests that may be taken.
    granted: u64,
    /// Requests that the shared window has counted as this process's.
    counted: u64,
    /// Requests of other processes, as far as it is known.
    others: u64,
    /// A claim is under way.
    asks: bool,
    /// The shared window has no more to grant.
    is_full: bool,
    /// The store is gone; asked again at this millisecond of the boot clock.
    alone: Option<u64>,
}

impl QuotaCount {
    /// The block that is claimed at a time: a sixteenth of what seems to be left, and a twentieth of all at most. So little
    /// is stranded at one process when the window comes to its end.
    fn block(&self, limit: u64) -> u64 {
        let left = limit.saturating_sub(self.others.saturating_add(self.counted));
        (left / 16).min(limit / 20).max(1)
    }

    fn claim(&mut self, limit: u64, now: Now) -> Option<(u64, u64)> {
        if self.asks || self.is_full || self.alone.is_some_and(|until| now.boot < until) {
            return None;
        }
        self.asks = true;
        Some((self.used.saturating_sub(self.counted), self.block(limit)))
    }

    fn granted(&mut self, debt: u64, granted: u64, total: u64) {
        self.counted = self.counted.saturating_add(debt).saturating_add(granted);
        self.granted = self.counted;
        self.others = total.saturating_sub(self.counted);
        self.is_full = granted == 0;
        (self.asks, self.alone) = (false, None);
    }

    /// Goes on without the store: with all that the window had left when it was last known.
    fn go_alone(&mut self, limit: u64, now: Now) {
        self.granted = self.granted.max(limit.saturating_sub(self.others));
        (self.asks, self.alone) = (false, Some(now.boot.saturating_add(ALONE)));
    }
}

/// The counts of one quota, for all workers of a process.
#[derive(Debug)]
pub struct QuotaCounters {
    /// True if its windows are shared by replicas, and what they have must be claimed.
    is_shared: bool,
    counts: Mutex<WindowCounts>,
}

#[derive(Debug, Default)]
struct WindowCounts {
    window: QuotaWindow,
    by_key: HashMap<QuotaKey, QuotaCount>,
}

impl WindowCounts {
    /// The count of a key. When there are too many, the others share one, so that neither memory nor requests are
    /// without bound.
    fn count(&mut self, key: QuotaKey) -> (QuotaKey, &mut QuotaCount) {
        let is_known = self.by_key.contains_key(&key) || self.by_key.len() < MOST_KEYS;
        let key = if is_known { key } else { QuotaKey::default() };
        (key, self.by_key.entry(key).or_default())
    }
}

impl QuotaCounters {
    /// Counters without any count yet.
    pub fn new(is_shared: bool) -> Self {
        Self { is_shared, counts: Mutex::default() }
    }

    /// Takes a request.
    pub fn take(&self, rule: &QuotaRule, key: QuotaKey, now: Now) -> QuotaTurn {
        let mut counts = self.lock();
        // A clock that is set back a little stays in its window: a new one would forget what was used.
        let is_back = now.wall < counts.window.from && counts.window.from - now.wall < rule.per;
        if !counts.window.has(now.wall) && !is_back {
            *counts = WindowCounts { window: rule.window(now.wall), by_key: HashMap::new() };
        }
        let window = counts.window;
        let refused = QuotaTurn::Refused(Duration::from_millis(window.until.saturating_sub(now.wall).max(1)));
        let (key, count) = counts.count(key);
        let limit = rule.requests;
        if !self.is_shared {
            count.granted = limit;
        }
        let is_free = count.used < count.granted.min(limit);
        count.used += u64::from(is_free);
        let is_low = self.is_shared
            && (count.alone.is_some() || count.granted.saturating_sub(count.used) <= count.block(limit) / 2);
        let claim = if is_low { count.claim(limit, now) } else { None };
        let claim = claim.map(|(debt, want)| QuotaClaim { window, key, debt, want, limit });
        match (is_free, claim) {
            (true, claim) => QuotaTurn::Taken(claim),
            (false, None) if !count.asks => refused,
            (false, claim) => QuotaTurn::Waits(claim),
        }
    }

    /// Gives a request back that was taken and is not made.
    pub fn give_back(&self, key: QuotaKey, now: Now) {
        let mut counts = self.lock();
        if counts.window.has(now.wall) {
            let (_, count) = counts.count(key);
            count.used = count.used.saturating_sub(1);
        }
    }

    /// A claim was granted, in whole, in part or not at all; the window counts `total` requests of all processes.
    pub fn granted(&self, claim: &QuotaClaim, granted: u64, total: u64) {
        self.with(claim, |count| count.granted(claim.debt, granted, total));
    }

    /// A claim could not be made: the store is gone.
    pub fn go_alone(&self, claim: &QuotaClaim, now: Now) {
        self.with(claim, |count| count.go_alone(claim.limit, now));
    }

    fn with(&self, claim: &QuotaClaim, change: impl FnOnce(&mut QuotaCount)) {
        let mut counts = self.lock();
        if counts.window == claim.window
            && let Some(count) = counts.by_key.get_mut(&claim.key)
        {
            change(count);
        }
    }

    fn lock(&self) -> MutexGuard<'_, WindowCounts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::time::of_rfc3339;

    fn rule(requests: u64, seconds: u64, zone: &str) -> QuotaRule {
        let zone = Zone::find(zone).expect("a zone");
        QuotaRule::new("bank", requests, Duration::from_secs(seconds), vec![QuotaDimension::Client], zone)
            .expect("a rule")
    }

    fn at(text: &str) -> Now {
        Now::at(1_000_000_000, of_rfc3339(text).expect("a time"))
    }

    fn key(name: &str) -> QuotaKey {
        rule(1, 60, "UTC").key([name.as_bytes()])
    }

    #[test]
    fn a_window_has_so_many_requests_for_each_value() {
        let (rule, counters) = (rule(2, 60, "UTC"), QuotaCounters::new(false));
        let take =
            |name: &str, seconds: &str| counters.take(&rule, key(name), at(&format!("2026-12-04T12:00:{seconds}Z")));
        assert_eq!((take("a", "10"), take("a", "20")), (QuotaTurn::Taken(None), QuotaTurn::Taken(None)));
        assert_eq!(take("a", "45"), QuotaTurn::Refused(Duration::from_secs(15)));
        assert_eq!(take("b", "45"), QuotaTurn::Taken(None), "another client");
        counters.give_back(key("a"), at("2026-12-04T12:00:50Z"));
        assert_eq!(
            (take("a", "51"), take("a", "51")),
            (QuotaTurn::Taken(None), QuotaTurn::Refused(Duration::from_secs(9)))
        );
        let next = at("2026-12-04T12:01:00Z");
        assert_eq!(counters.take(&rule, key("a"), next), QuotaTurn::Taken(None));
        counters.take(&rule, key("a"), next);
        let back = at("2026-12-04T12:00:59Z");
        assert_eq!(
            counters.take(&rule, key("a"), back),
            QuotaTurn::Refused(Duration::from_secs(61)),
            "set back a little"
        );
    }

    #[test]
    fn a_smaller_quota_of_a_reload_holds_at_once() {
        let counters = QuotaCounters::new(false);
        let (large, small) = (rule(5, 60, "UTC"), rule(2, 60, "UTC"));
        assert_eq!(large.identity(), small.identity());
        let now = at("2026-12-04T12:00:00Z");
        for _ in 0..3 {
            assert_eq!(counters.take(&large, key("a"), now), QuotaTurn::Taken(None));
        }
        assert!(matches!(counters.take(&small, key("a"), now), QuotaTurn::Refused(_)));
    }

    #[test]
    fn a_day_begins_at_midnight_of_its_zone() {
        let day = rule(1, 86_400, "America/New_York");
        let window = day.window(at("2026-03-08T12:00:00-04:00").wall);
        assert_eq!(
            window,
            QuotaWindow { from: at("2026-03-08T00:00:00-05:00").wall, until: at("2026-03-09T00:00:00-04:00").wall }
        );
        assert_eq!(window.until - window.from, 23 * 3_600_000);
        let cairo = rule(1, 86_400, "Africa/Cairo");
        let whole =
            QuotaWindow { from: at("2026-10-29T00:00:00+03:00").wall, until: at("2026-10-30T00:00:00+02:00").wall };
        for twice in ["2026-10-29T23:30:00+03:00", "2026-10-29T23:30:00+02:00"] {
            assert_eq!(cairo.window(at(twice).wall), whole);
        }
        // Its clock went from 00:01 back to 23:01 of the day before.
        let st_johns = rule(1, 86_400, "America/St_Johns");
        let day =
            QuotaWindow { from: at("2006-10-29T00:00:00-02:30").wall, until: at("2006-10-30T00:00:00-03:30").wall };
        for text in ["2006-10-29T00:00:30-02:30", "2006-10-28T23:15:00-03:30", "2006-10-29T12:00:00-03:30"] {
            assert_eq!(st_johns.window(at(text).wall), day, "{text}");
        }
        let hour = rule(1, 3600, "Asia/Kolkata");
        assert_eq!(hour.window(at("2026-12-04T12:34:00Z").wall).from, at("2026-12-04T12:00:00Z").wall);
        for seconds in [0, 7, 7200 * 13, 2 * 86_400] {
            let none = QuotaRule::new("bank", 1, Duration::from_secs(seconds), Vec::new(), Zone::utc());
            assert!(none.is_none(), "{seconds}");
        }
    }

    #[test]
    fn values_do_not_run_into_each_other() {
        let rule = rule(1, 60, "UTC");
        assert_ne!(rule.key([b"ab".as_slice(), b"c".as_slice()]), rule.key([b"a".as_slice(), b"bc".as_slice()]));
        assert_eq!(QuotaDimension::parse("var:account"), Some(QuotaDimension::Var("account".into())));
        assert_eq!((QuotaDimension::parse("var:"), QuotaDimension::parse("acount")), (None, None));
    }

    #[test]
    fn what_is_too_much_to_be_counted_apart_is_counted_together() {
        let (rule, counters) = (rule(1, 60, "UTC"), QuotaCounters::new(false));
        let now = at("2026-12-04T12:00:00Z");
        for n in 0..MOST_KEYS {
            assert_eq!(counters.take(&rule, key(&n.to_string()), now), QuotaTurn::Taken(None));
        }
        assert_eq!(counters.take(&rule, key("one more"), now), QuotaTurn::Taken(None));
        assert!(matches!(counters.take(&rule, key("another"), now), QuotaTurn::Refused(_)), "they share one count");
    }

    /// A window that replicas share, as the store's script keeps it.
    #[derive(Default)]
    struct Shared(u64);

    impl Shared {
        fn answer(&mut self, claim: &QuotaClaim) -> (u64, u64) {
            let before = self.0 + claim.debt;
            let granted = claim.want.min(claim.limit.saturating_sub(before));
            self.0 = before + granted;
            (granted, self.0)
        }
    }

    #[test]
    fn a_process_whose_store_is_gone_counts_alone_and_owes_what_it_took() {
        let (rule, counters, mut shared) = (rule(10, 60, "UTC"), QuotaCounters::new(true), Shared(6));
        let now = at("2026-12-04T12:00:00Z");
        let QuotaTurn::Waits(Some(claim)) = counters.take(&rule, key("a"), now) else {
            panic!("nothing is granted yet")
        };
        assert_eq!(counters.take(&rule, key("a"), now), QuotaTurn::Waits(None), "one claim at a time");
        let (granted, total) = shared.answer(&claim);
        counters.granted(&claim, granted, total);
        let QuotaTurn::Taken(Some(claim)) = counters.take(&rule, key("a"), now) else { panic!("one is granted") };
        counters.go_alone(&claim, now);
        let taken =
            (0..9).take_while(|_| matches!(counters.take(&rule, key("a"), now), QuotaTurn::Taken(None))).count();
        assert_eq!(taken, 3, "six were used by others when it was last known");
        assert!(matches!(counters.take(&rule, key("a"), now), QuotaTurn::Refused(_)));
        let later = now.plus(Duration::from_secs(1));
        let QuotaTurn::Waits(Some(claim)) = counters.take(&rule, key("a"), later) else { panic!("it is asked again") };
        assert_eq!(claim.debt, 3);
        let (granted, total) = shared.answer(&claim);
        counters.granted(&claim, granted, total);
        assert_eq!((granted, total), (0, 10));
        assert!(matches!(counters.take(&rule, key("a"), later), QuotaTurn::Refused(_)));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

        /// Replicas on one store never take more than the window has, and leave no more than a block each.
        #[test]
        fn replicas_share_a_window(
            limit in 1_u64..400,
            turns in prop::collection::vec(0_usize..3, 0..900),
        ) {
            let rule = rule(limit, 60, "UTC");
            let replicas = [(); 3].map(|()| QuotaCounters::new(true));
            let (mut shared, mut taken, now) = (Shared::default(), 0, at("2026-12-04T12:00:00Z"));
            let asked = u64::try_from(turns.len()).expect("few");
            for turn in turns {
                let counters = &replicas[turn];
                loop {
                    let turn = counters.take(&rule, key("a"), now);
                    if let QuotaTurn::Taken(Some(claim)) | QuotaTurn::Waits(Some(claim)) = turn {
                        let (granted, total) = shared.answer(&claim);
                        counters.granted(&claim, granted, total);
                    }
                    match turn {
                        QuotaTurn::Taken(_) => break taken += 1,
                        QuotaTurn::Refused(_) => break,
                        QuotaTurn::Waits(_) => {}
                    }
                }
            }
            prop_assert!(taken <= limit && shared.0 <= limit);
            prop_assert!(taken >= asked.min(limit).saturating_sub(3 * (limit / 20).max(1)), "{taken} of {asked}");
        }
    }
}
