//! The slowest pace at which a client may send a body.
//!
//! Only the time spent waiting for the client counts. While the provider takes its time to read, the proxy does not
//! wait for the client, so back-pressure does not make a client slow.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::Sleep;

use crate::base::time::{Clock, Now};

/// A client may wait so long in all before its pace is judged.
const GRACE: Duration = Duration::from_secs(10);
/// A slow body is looked at this often.
const TICK: Duration = Duration::from_secs(1);

/// The pace of one body: bytes received against time waited.
pub struct Pace {
    /// Required bytes per second; 0: any pace is permitted.
    rate: u64,
    bytes: u64,
    waited: Duration,
    since: Option<Now>,
    alarm: Option<Pin<Box<Sleep>>>,
    clock: Clock,
}

impl Pace {
    /// Starts with no bytes received and no time waited.
    pub const fn new(rate: u64, clock: Clock) -> Self {
        Self { rate, bytes: 0, waited: Duration::ZERO, since: None, alarm: None, clock }
    }

    /// Counts received bytes and ends the current wait.
    pub fn came(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes as u64);
        if let Some(since) = self.since.take() {
            self.waited += self.clock.now().since(since);
        }
    }

    /// Drops the timer: no more bytes will follow.
    pub fn end(&mut self) {
        self.alarm = None;
    }

    /// To be polled while nothing comes. Ready once that is too slow.
    pub fn poll_too_slow(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.rate == 0 {
            return Poll::Pending;
        }
        loop {
            let Some(left) = self.left(self.clock.now()) else { return Poll::Ready(()) };
            // The alarm of an earlier wait serves on: if it rings too early, we look and set it again.
            let alarm = self.alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep(left.min(TICK))));
            ready!(alarm.as_mut().poll(cx));
            self.alarm = None;
        }
    }

    /// Returns the time for which this wait may go on; `None` if there is none left.
    fn left(&mut self, now: Now) -> Option<Duration> {
        let since = *self.since.get_or_insert(now);
        let earned = Duration::from_millis(self.bytes.saturating_mul(1000).checked_div(self.rate)?);
        let left = GRACE.saturating_add(earned).checked_sub(self.waited + now.since(since))?;
        (!left.is_zero()).then_some(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::ManualClock;

    // T38
    #[test]
    fn bytes_earn_time_beyond_the_grace_and_only_waiting_spends_it() {
        let manual = ManualClock::at(Now::at(5_000, 0));
        let mut pace = Pace::new(240, Clock::Manual(manual.clone()));
        assert_eq!(pace.left(manual.now()), Some(GRACE));
        manual.advance(Duration::from_secs(4));
        assert_eq!(pace.left(manual.now()), Some(Duration::from_secs(6)));
        pace.came(480);
        manual.advance(Duration::from_secs(1000));
        assert_eq!(pace.left(manual.now()), Some(Duration::from_secs(8)), "nobody waited meanwhile");
        manual.advance(Duration::from_millis(7_999));
        assert_eq!(pace.left(manual.now()), Some(Duration::from_millis(1)));
        manual.advance(Duration::from_millis(1));
        assert_eq!(pace.left(manual.now()), None);
    }
}
