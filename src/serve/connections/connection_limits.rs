//! Limits on the resources that one peer, or all peers together, may take before they are identified.
//!
//! One [`ConnectionLimits`] serves all workers. Connections of a peer and handshakes are counted exactly, under locks
//! that are taken when one begins and when it ends. Failed identifications are rate-limited in a fixed table of
//! atomics: peers that share a slot in it share a rate, which does no harm, since right credentials pass at any rate.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::base::shares::{Bounds, Entered, Shares, network};
use crate::base::time::Now;

/// Failed identifications that a peer may have at once.
const BURST: u64 = 5;
/// It regains one in this many milliseconds: five a second.
const REGAIN: u64 = 200;
/// The number of slots for failed identifications.
const PLACES: usize = 4096;
/// Turned away connections are told of at most this often, in milliseconds.
const TELL: u64 = 1000;
/// A handshake that is older than this makes room for anybody's, where there are too many.
const GRACE: Duration = Duration::from_secs(1);
/// Tunnels that are being opened to hosts that clients name: in all, and by one peer. Each may wait for a resolver.
const MOST_OPENINGS: usize = 128;
const MOST_OPENINGS_OF_PEER: usize = 32;

/// The gate of a process.
#[derive(Debug, Default)]
pub struct ConnectionLimits {
    failures: Failures,
    open: Mutex<HashMap<IpAddr, u32>>,
    handshakes: Mutex<Shares<CancellationToken>>,
    openings: Mutex<Shares<()>>,
    /// Connections closed because the process had too many.
    pub floods: Excess,
    /// Connections closed because their peer had too many.
    pub crowds: Excess,
    /// Connections closed because too many handshakes were under way.
    pub rushes: Excess,
    /// Tunnels whose client did not trust us.
    pub distrusts: Excess,
    /// Clients that took nothing of their answers.
    pub stalls: Excess,
}

/// One connection of a peer; gives its place back when dropped.
#[derive(Debug)]
pub struct PeerConnection {
    connection_limits: Arc<ConnectionLimits>,
    peer: IpAddr,
}

/// One handshake under way; gives its place back when dropped.
#[derive(Debug)]
pub struct Handshake {
    /// Absent where nothing is counted.
    place: Option<(Arc<ConnectionLimits>, Option<IpAddr>, u64)>,
    ends: CancellationToken,
    /// True if it took the place of an older handshake.
    pub instead: bool,
}

impl Handshake {
    /// Ends when this handshake has to make room for another one.
    pub async fn ended(&self) {
        self.ends.cancelled().await;
    }
}

/// One tunnel that is being opened; gives its place back when dropped.
#[derive(Debug)]
pub struct HandshakeGuard(Arc<ConnectionLimits>, Option<IpAddr>, u64);

impl ConnectionLimits {
    /// Counts a connection of this peer. `None`: it has `limit` already.
    pub fn enter(self: &Arc<Self>, peer: IpAddr, limit: usize) -> Option<PeerConnection> {
        let peer = network(peer);
        let mut open = self.open();
        let count = open.entry(peer).or_default();
        if usize::try_from(*count).unwrap_or(usize::MAX) >= limit {
            return None;
        }
        *count += 1;
        Some(PeerConnection { connection_limits: self.clone(), peer })
    }

    /// Counts a handshake of this peer. `None`: `limit` are under way, and none of them has to make room.
    pub fn accept_tls(self: &Arc<Self>, peer: Option<IpAddr>, limit: Option<usize>, now: Now) -> Option<Handshake> {
        let ends = CancellationToken::new();
        let Some(limit) = limit else { return Some(Handshake { place: None, ends, instead: false }) };
        let bounds = Bounds { most: limit, of_peer: usize::MAX, grace: GRACE };
        let (id, instead) = match locked(&self.handshakes).enter(peer, ends.clone(), bounds, now) {
            Entered::Free(id) => (id, false),
            Entered::Instead(id, oldest) => {
                oldest.cancel();
                (id, true)
            }
            Entered::Full => return None,
        };
        Some(Handshake { place: Some((self.clone(), peer, id)), ends, instead })
    }

    /// Counts a tunnel that this peer opens to a host that it names. `None`: it, or all together, open too many.
    pub fn open_tunnel(self: &Arc<Self>, peer: Option<IpAddr>, now: Now) -> Option<HandshakeGuard> {
        // The opening of a tunnel cannot be cancelled, so no entry makes room for another.
        let bounds = Bounds { most: MOST_OPENINGS, of_peer: MOST_OPENINGS_OF_PEER, grace: Duration::MAX };
        let mut openings = locked(&self.openings);
        if openings.total() >= bounds.most {
            return None;
        }
        match openings.enter(peer, (), bounds, now) {
            Entered::Free(id) | Entered::Instead(id, ()) => Some(HandshakeGuard(self.clone(), peer, id)),
            Entered::Full => None,
        }
    }

    /// Notes a failed identification. An error says how long this peer should wait before it tries again.
    pub fn failed(&self, peer: Option<IpAddr>, now: Now) -> Result<(), Duration> {
        self.failures.note(peer.map(network), now)
    }

    fn open(&self) -> MutexGuard<'_, HashMap<IpAddr, u32>> {
        locked(&self.open)
    }
}

/// Locks the counts even after a panic: they are right at every point.
fn locked<T>(counts: &Mutex<T>) -> MutexGuard<'_, T> {
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for PeerConnection {
    fn drop(&mut self) {
        let mut open = self.connection_limits.open();
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
        if let Some((connection_limits, peer, id)) = &self.place {
            locked(&connection_limits.handshakes).leave(*peer, *id);
        }
    }
}

impl Drop for HandshakeGuard {
    fn drop(&mut self) {
        let Self(connection_limits, peer, id) = self;
        locked(&connection_limits.openings).leave(*peer, *id);
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
        let connection_limits = ConnectionLimits::default();
        let peer = Some(ip("192.0.2.7"));
        for _ in 0..5 {
            assert_eq!(connection_limits.failed(peer, START), Ok(()));
        }
        assert_eq!(connection_limits.failed(peer, START), Err(Duration::from_millis(200)));
        assert_eq!(
            connection_limits.failed(peer, START),
            Err(Duration::from_millis(200)),
            "a refusal costs nothing more"
        );
        let later = START.plus(Duration::from_millis(200));
        assert_eq!(connection_limits.failed(peer, later), Ok(()));
        assert_eq!(connection_limits.failed(peer, later), Err(Duration::from_millis(200)));
        let rested = START.plus(Duration::from_secs(60));
        assert_eq!(
            (0..6).filter(|_| connection_limits.failed(peer, rested).is_ok()).count(),
            5,
            "rest is not saved up"
        );
    }

    #[test]
    fn an_ipv6_network_of_64_bits_is_one_peer() {
        let connection_limits = ConnectionLimits::default();
        for host in 0..5 {
            assert_eq!(connection_limits.failed(Some(ip(&format!("2001:db8:1:2::{host}"))), START), Ok(()));
        }
        assert!(connection_limits.failed(Some(ip("2001:db8:1:2:ffff::1")), START).is_err());
        // Of ten other networks, all but those that share the place by chance pass.
        let passed = (0..10)
            .filter(|n| connection_limits.failed(Some(ip(&format!("2001:db8:2:{n}::1"))), START).is_ok())
            .count();
        assert!(passed >= 8);
    }

    #[test]
    fn connections_of_a_peer_are_counted_until_they_close() {
        let connection_limits = Arc::new(ConnectionLimits::default());
        let first = connection_limits.enter(ip("192.0.2.7"), 2).unwrap();
        let _second = connection_limits.enter(ip("192.0.2.7"), 2).unwrap();
        assert!(connection_limits.enter(ip("192.0.2.7"), 2).is_none());
        assert!(connection_limits.enter(ip("192.0.2.8"), 2).is_some());
        drop(first);
        let third = connection_limits.enter(ip("192.0.2.7"), 2);
        assert!(third.is_some());
        drop((third, _second));
        assert!(connection_limits.open().is_empty(), "no memory of who has gone");
    }

    #[test]
    fn a_silent_peers_oldest_handshake_makes_room_for_another_peer() {
        let connection_limits = Arc::new(ConnectionLimits::default());
        let (silent, other) = (Some(ip("192.0.2.9")), Some(ip("192.0.2.1")));
        let mut held: Vec<_> = (0..4).map(|_| connection_limits.accept_tls(silent, Some(4), START).unwrap()).collect();
        assert!(connection_limits.accept_tls(silent, Some(4), START).is_none(), "it has them all");
        let came = connection_limits.accept_tls(other, Some(4), START).unwrap();
        assert!(came.instead && held[0].ends.is_cancelled() && !held[1].ends.is_cancelled());
        drop(held.remove(0));
        assert!(connection_limits.accept_tls(silent, Some(4), START).is_none(), "what made room has none to give back");
        drop((came, held));
        assert!(!connection_limits.accept_tls(silent, Some(1), START).unwrap().instead);
        assert!(connection_limits.accept_tls(silent, None, START).is_some());
    }

    #[test]
    fn tunnels_that_are_being_opened_have_a_share_per_peer() {
        let connection_limits = Arc::new(ConnectionLimits::default());
        let greedy = Some(ip("192.0.2.9"));
        let held: Vec<_> = std::iter::from_fn(|| connection_limits.open_tunnel(greedy, START)).collect();
        assert_eq!(held.len(), MOST_OPENINGS_OF_PEER);
        assert!(connection_limits.open_tunnel(Some(ip("192.0.2.1")), START).is_some());
        drop(held);
        assert!(connection_limits.open_tunnel(greedy, START).is_some());
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
