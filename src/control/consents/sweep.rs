//! Removal of records that ended long ago, from a store that does not remove them by itself.
//!
//! A wall clock may be wrong, by days at times, and a removal is final. So a record is removed a day after its end, and
//! only once both clocks have advanced at the same pace for an hour: a clock that is set, forwards or back, restarts
//! the hour. An ended record is never read, swept or not.

use std::time::Duration;

use crate::base::time::{Now, millis};
use crate::store::Store;

/// A record stays for so long after its end.
const GRACE: Duration = Duration::from_secs(24 * 3600);
/// Between two sweeps, and before the first one.
const PAUSE: Duration = Duration::from_secs(3600);
/// By so much the clocks may drift apart within a pause.
const DRIFT: Duration = Duration::from_secs(60);

/// The periodic removal of ended records from a store.
#[derive(Debug, Default)]
pub(super) struct Sweeper {
    /// Since when the clocks go evenly, and nothing was swept.
    since: Option<Now>,
}

impl Sweeper {
    /// Sweeps, if it is time.
    pub(super) async fn round(&mut self, store: &Store, now: Now) {
        let Some(before) = self.due(now) else { return };
        match store.sweep(before).await {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "records that have long ended were removed from the store"),
            Err(error) => tracing::warn!(%error, "records that have long ended stay in the store"),
        }
    }

    /// Returns the moment before which a record must have ended to be removed now, in milliseconds since 1970; `None`:
    /// no removal is due.
    fn due(&mut self, now: Now) -> Option<u64> {
        let since = *self.since.get_or_insert(now);
        let passed = now.boot.saturating_sub(since.boot);
        let expected = since.wall.saturating_add(passed);
        if expected.abs_diff(now.wall) > millis(DRIFT) {
            self.since = Some(now);
            return None;
        }
        if passed < millis(PAUSE) {
            return None;
        }
        self.since = Some(now);
        Some(now.wall.saturating_sub(millis(GRACE)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_set_removes_nothing() {
        let hour = Duration::from_secs(3600);
        let start = Now::at(1_000, 1_700_000_000_000);
        let mut sweeper = Sweeper::default();
        assert_eq!(sweeper.due(start), None);
        assert_eq!(sweeper.due(start.plus(hour / 2)), None);
        let ahead = |now: Now| Now::at(now.boot, now.wall + 26 * 3_600_000);
        assert_eq!(sweeper.due(ahead(start.plus(hour))), None, "a jump begins the hour anew");
        assert_eq!(sweeper.due(start.plus(hour + hour / 2)), None, "and back");
        let later = start.plus(hour * 5 / 2);
        assert_eq!(sweeper.due(later), Some(later.wall - 24 * 3_600_000));
        assert_eq!(sweeper.due(later.plus(hour / 2)), None);
        assert!(sweeper.due(later.plus(hour)).is_some());
    }
}
