//! What one peer, or all peers together, may take of us before we know who they are.
//!
//! One gate serves all workers. Connections of a peer are counted exactly, under a lock that is taken when a
//! connection opens and when it closes. Failed identifications are rated in a fixed table of atomics: peers that share
//! a place in it share a rate, which costs nobody anything, since right credentials pass at any rate.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::base::time::Now;
use crate::observe::metrics::Level;

/// Failed identifications that a peer may have at once.
const BURST: u64 = 5;
/// It regains one in this many milliseconds: five a second.
const REGAIN: u64 = 200;
/// Places for failures.
const PLACES: usize = 4096;
/// Turned away connections are told of at most this often, in milliseconds.
const TELL: u64 = 1000;

/// The gate of a process.
#[derive(Debug, Default)]
pub struct Gate {
    failures: Failures,
    open: Mutex<HashMap<IpAddr, u32>>,
    handshakes: Level,
    /// Connections closed because the process had too many.
    pub floods: Excess,
    /// Connections closed because their peer had too many.
    pub crowds: Excess,
    /// Connections closed because too many handshakes were under way.
    pub rushes: Excess,
    /// Tunnels whose client did not trust us.
    pub distrusts: Excess,
}

/// One connection of a peer; gives its place back when dropped.
#[derive(Debug)]
pub struct Place {
    gate: Arc<Gate>,
    peer: IpAddr,
}

/// One handshake under way; gives its place back when dropped.
#[derive(Debug)]
pub struct Handshake(Arc<Gate>);

impl Gate {
    /// Counts a connection of this peer. `None`: it has `limit` already.
    pub fn enter(self: &Arc<Self>, peer: IpAddr, limit: usize) -> Option<Place> {
        let peer = block(peer);
        let mut open = self.open();
        let count = open.entry(peer).or_default();
        if usize::try_from(*count).unwrap_or(usize::MAX) >= limit {
            return None;
        }
        *count += 1;
        Some(Place { gate: self.clone(), peer })
    }

    /// Counts a handshake. `None`: `limit` are under way.
    pub fn shake(self: &Arc<Self>, limit: usize) -> Option<Handshake> {
        let limit = u64::try_from(limit).unwrap_or(u64::MAX);
        self.handshakes.take(1, limit).then(|| Handshake(self.clone()))
    }

    /// Notes a failed identification. An error says how long this peer should wait before it tries again.
    pub fn failed(&self, peer: Option<IpAddr>, now: Now) -> Result<(), Duration> {
        self.failures.note(peer.map(block), now)
    }

    fn open(&self) -> MutexGuard<'_, HashMap<IpAddr, u32>> {
        // A count is right at every point, whoever panicked.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.gate.open();
        if let Some(count) = open.get_mut(&self.peer) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                open.remove(&self.peer);
            }
        }
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        self.0.handshakes.give_back(1);
    }
}

/// Whom an address stands for: itself, or for IPv6 the network of 64 bits, which one host commands.
fn block(peer: IpAddr) -> IpAddr {
    match peer {
        IpAddr::V4(_) => peer,
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

/// When each place will have regained all its failures, by the boot clock (the generic cell rate algorithm).
#[derive(Debug)]
struct Failures {
    hash: RandomState,
    full_at: Box<[AtomicU64]>,
}

impl Default for Failures {
    fn default() -> Self {
        Self { hash: RandomState::new(), full_at: (0..PLACES).map(|_| AtomicU64::new(0)).collect() }
    }
}

impl Failures {
    fn note(&self, peer: Option<IpAddr>, now: Now) -> Result<(), Duration> {
        let at = usize::try_from(self.hash.hash_one(peer) % PLACES as u64).unwrap_or(0);
        let Some(place) = self.full_at.get(at) else { return Ok(()) };
        let spent = place.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full_at| {
            let next = full_at.max(now.boot).saturating_add(REGAIN);
            (next.saturating_sub(now.boot) <= BURST * REGAIN).then_some(next)
        });
        match spent {
            Ok(_) => Ok(()),
            Err(full_at) => {
                let next = full_at.saturating_add(REGAIN).saturating_sub(BURST * REGAIN);
                Err(Duration::from_millis(next.saturating_sub(now.boot)))
            }
        }
    }
}

/// Counts what was turned away, and says when it is time to tell.
#[derive(Debug, Default)]
pub struct Excess {
    untold: AtomicU64,
    told_at: AtomicU64,
}

impl Excess {
    /// Counts one more. `Some`: tell now of so many.
    pub fn note(&self, now: Now) -> Option<u64> {
        self.untold.fetch_add(1, Ordering::Relaxed);
        let told_at = self.told_at.load(Ordering::Relaxed);
        if told_at != 0 && now.boot < told_at.saturating_add(TELL) {
            return None;
        }
        let mine = self.told_at.compare_exchange(told_at, now.boot.max(1), Ordering::Relaxed, Ordering::Relaxed);
        mine.ok().map(|_| self.untold.swap(0, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Now = Now::at(50_000, 50_000);

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn five_failures_a_second_pass_and_the_sixth_waits() {
        let gate = Gate::default();
        let peer = Some(ip("192.0.2.7"));
        for _ in 0..5 {
            assert_eq!(gate.failed(peer, START), Ok(()));
        }
        assert_eq!(gate.failed(peer, START), Err(Duration::from_millis(200)));
        assert_eq!(gate.failed(peer, START), Err(Duration::from_millis(200)), "a refusal costs nothing more");
        let later = START.plus(Duration::from_millis(200));
        assert_eq!(gate.failed(peer, later), Ok(()));
        assert_eq!(gate.failed(peer, later), Err(Duration::from_millis(200)));
        let rested = START.plus(Duration::from_secs(60));
        assert_eq!((0..6).filter(|_| gate.failed(peer, rested).is_ok()).count(), 5, "rest is not saved up");
    }

    #[test]
    fn an_ipv6_network_of_64_bits_is_one_peer() {
        let gate = Gate::default();
        for host in 0..5 {
            assert_eq!(gate.failed(Some(ip(&format!("2001:db8:1:2::{host}"))), START), Ok(()));
        }
        assert!(gate.failed(Some(ip("2001:db8:1:2:ffff::1")), START).is_err());
        // Of ten other networks, all but those that share the place by chance pass.
        let passed = (0..10).filter(|n| gate.failed(Some(ip(&format!("2001:db8:2:{n}::1"))), START).is_ok()).count();
        assert!(passed >= 8);
    }

    #[test]
    fn connections_of_a_peer_are_counted_until_they_close() {
        let gate = Arc::new(Gate::default());
        let first = gate.enter(ip("192.0.2.7"), 2).unwrap();
        let _second = gate.enter(ip("192.0.2.7"), 2).unwrap();
        assert!(gate.enter(ip("192.0.2.7"), 2).is_none());
        assert!(gate.enter(ip("192.0.2.8"), 2).is_some());
        drop(first);
        let third = gate.enter(ip("192.0.2.7"), 2);
        assert!(third.is_some());
        drop((third, _second));
        assert!(gate.open().is_empty(), "no memory of who has gone");
    }

    #[test]
    fn handshakes_are_counted_until_they_end() {
        let gate = Arc::new(Gate::default());
        let first = gate.shake(1).unwrap();
        assert!(gate.shake(1).is_none());
        drop(first);
        assert!(gate.shake(1).is_some());
    }

    #[test]
    fn what_is_turned_away_is_told_once_a_second() {
        let excess = Excess::default();
        assert_eq!(excess.note(START), Some(1));
        assert_eq!(excess.note(START), None);
        assert_eq!(excess.note(START.plus(Duration::from_millis(999))), None);
        assert_eq!(excess.note(START.plus(Duration::from_millis(1000))), Some(3));
    }
}
