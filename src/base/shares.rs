//! Fair shares of a limited resource: handshakes in progress, connections to the admin listener.
//!
//! One peer may have all of it as long as no other asks for a place. Once it is used up, the peer with the most gives
//! its oldest place to a newcomer that has less, and a place that is older than a grace period makes room for any peer.
//! So a peer that takes everything and stays silent keeps no other peer out, and a burst of honest peers is not cut
//! down to a fixed share.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use super::time::Now;

/// Places, by the peer that holds them. `H` ends what holds a place.
#[derive(Debug)]
pub struct Shares<H> {
    held: HashMap<Option<IpAddr>, VecDeque<ShareHeld<H>>>,
    total: usize,
    next: u64,
}

#[derive(Debug)]
struct ShareHeld<H> {
    id: u64,
    since: Now,
    handle: H,
}

/// The limits on the number of places, and the grace period.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Maximum number of places of all peers together.
    pub most: usize,
    /// Maximum number of places of one peer.
    pub of_peer: usize,
    /// Age from which a place makes room for any peer.
    pub grace: Duration,
}

/// The result of asking for a place.
#[derive(Debug, Eq, PartialEq)]
pub enum Entered<H> {
    /// There was one: its number, to be given back by.
    Free(u64),
    /// There is one instead of an older one, which is to be ended.
    Instead(u64, H),
    /// No place is free, and none has to make room.
    Full,
}

impl<H> Default for Shares<H> {
    fn default() -> Self {
        Self { held: HashMap::new(), total: 0, next: 0 }
    }
}

impl<H> Shares<H> {
    /// Takes a place for this peer (none: its address is not known), within these bounds.
    pub fn enter(&mut self, peer: Option<IpAddr>, handle: H, bounds: Bounds, now: Now) -> Entered<H> {
        let peer = peer.map(network);
        let own = self.held.get(&peer).map_or(0, VecDeque::len);
        let ended = if own >= bounds.of_peer {
            self.oldest_of(peer, bounds.grace, now)
        } else if self.total >= bounds.most {
            self.oldest_of_most(own, bounds.grace, now)
        } else {
            None
        };
        if ended.is_none() && (own >= bounds.of_peer || self.total >= bounds.most) {
            return Entered::Full;
        }
        let id = self.next;
        self.next += 1;
        self.total += 1;
        self.held.entry(peer).or_default().push_back(ShareHeld { id, since: now, handle });
        match ended {
            None => Entered::Free(id),
            Some(ended) => Entered::Instead(id, ended),
        }
    }

    /// Gives a place back. One that made room has none to give.
    pub fn leave(&mut self, peer: Option<IpAddr>, id: u64) {
        let peer = peer.map(network);
        let Some(held) = self.held.get_mut(&peer) else { return };
        let before = held.len();
        held.retain(|held| held.id != id);
        self.total -= before - held.len();
        if held.is_empty() {
            self.held.remove(&peer);
        }
    }

    /// Places that this peer holds.
    pub fn of(&self, peer: Option<IpAddr>) -> usize {
        self.held.get(&peer.map(network)).map_or(0, VecDeque::len)
    }

    /// Places that are held in all.
    pub const fn total(&self) -> usize {
        self.total
    }

    /// Takes the oldest place of this peer, if it is older than `grace`.
    fn oldest_of(&mut self, peer: Option<IpAddr>, grace: Duration, now: Now) -> Option<H> {
        let held = self.held.get_mut(&peer)?;
        if now.since(held.front()?.since) < grace {
            return None;
        }
        let oldest = held.pop_front()?;
        self.total -= 1;
        if held.is_empty() {
            self.held.remove(&peer);
        }
        Some(oldest.handle)
    }

    /// Takes the oldest place of the peer that has the most, if that is fair to it beside a peer that has `own`.
    fn oldest_of_most(&mut self, own: usize, grace: Duration, now: Now) -> Option<H> {
        let age = |held: &VecDeque<ShareHeld<H>>| held.front().map_or(Duration::ZERO, |oldest| now.since(oldest.since));
        let (most, held) = self.held.iter().max_by_key(|(_, held)| (held.len(), age(held)))?;
        let grace = if held.len() > own + 1 { Duration::ZERO } else { grace };
        self.oldest_of(*most, grace, now)
    }
}

/// The network that an address stands for: itself, or for IPv6 its 64 bits, which one host commands.
pub fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(1);

    fn at(millis: u64) -> Now {
        Now::at(millis, millis)
    }

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    const fn of(most: usize) -> Bounds {
        Bounds { most, of_peer: usize::MAX, grace: GRACE }
    }

    /// Shares of four, all with one peer.
    fn taken() -> Shares<u32> {
        let mut shares = Shares::default();
        for n in 0..4 {
            assert_eq!(shares.enter(ip("192.0.2.9"), n, of(4), at(0)), Entered::Free(u64::from(n)));
        }
        shares
    }

    #[test]
    fn one_peer_may_have_all_and_gives_its_oldest_to_another() {
        let mut shares = taken();
        assert_eq!(shares.enter(ip("192.0.2.1"), 10, of(4), at(1)), Entered::Instead(4, 0));
        assert_eq!(shares.enter(ip("192.0.2.1"), 11, of(4), at(1)), Entered::Instead(5, 1));
        assert_eq!((shares.of(ip("192.0.2.9")), shares.of(ip("192.0.2.1"))), (2, 2));
        assert_eq!(shares.enter(ip("192.0.2.1"), 12, of(4), at(1)), Entered::Full, "no peer has more than it");
        assert_eq!(shares.enter(ip("192.0.2.9"), 13, of(4), at(1)), Entered::Full);
        shares.leave(ip("192.0.2.9"), 0);
        assert_eq!((shares.of(ip("192.0.2.9")), shares.total()), (2, 4), "what made room is gone already");
    }

    #[test]
    fn what_is_older_than_the_grace_makes_room_for_anybody() {
        let mut shares = taken();
        assert_eq!(shares.enter(ip("192.0.2.9"), 10, of(4), at(999)), Entered::Full);
        assert_eq!(shares.enter(ip("192.0.2.9"), 10, of(4), at(1000)), Entered::Instead(4, 0));
        let mut scattered = Shares::default();
        for (n, peer) in ["192.0.2.1", "192.0.2.2", "192.0.2.3"].into_iter().enumerate() {
            scattered.enter(ip(peer), n, of(3), at(n as u64));
        }
        assert_eq!(scattered.enter(ip("192.0.2.4"), 9, of(3), at(500)), Entered::Full, "one each is fair");
        assert_eq!(scattered.enter(ip("192.0.2.4"), 9, of(3), at(1000)), Entered::Instead(3, 0));
    }

    #[test]
    fn one_peers_own_bound_holds_where_there_is_room() {
        let mut shares = Shares::default();
        let bounds = Bounds { most: 9, of_peer: 2, grace: GRACE };
        for n in 0..2_u32 {
            assert_eq!(shares.enter(ip("192.0.2.9"), n, bounds, at(0)), Entered::Free(u64::from(n)));
        }
        assert_eq!(shares.enter(ip("192.0.2.9"), 2, bounds, at(0)), Entered::Full);
        assert_eq!(shares.enter(ip("192.0.2.8"), 3, bounds, at(0)), Entered::Free(2));
        assert_eq!(shares.enter(ip("192.0.2.9"), 4, bounds, at(1000)), Entered::Instead(3, 0));
        assert_eq!((shares.of(ip("192.0.2.9")), shares.total()), (2, 3));
    }

    #[test]
    fn places_are_given_back_and_nothing_is_remembered_of_those_who_left() {
        let mut shares = taken();
        for id in 0..4 {
            shares.leave(ip("192.0.2.9"), id);
        }
        assert!(shares.held.is_empty() && shares.total() == 0);
        shares.leave(ip("192.0.2.9"), 0);
        assert_eq!(shares.total(), 0);
        assert_eq!(shares.enter(None, 1, of(0), at(0)), Entered::Full, "no place is none for anybody");
    }

    #[test]
    fn an_ipv6_network_of_64_bits_is_one_peer() {
        let mut shares = Shares::default();
        for host in 1..=3 {
            shares.enter(ip(&format!("2001:db8::{host}")), host, of(8), at(0));
        }
        assert_eq!(shares.of(ip("2001:db8::ffff")), 3);
        assert_eq!(shares.of(ip("2001:db8:0:1::1")), 0);
        shares.enter(ip("::ffff:192.0.2.1"), 4, of(8), at(0));
        assert_eq!(shares.of(ip("192.0.2.1")), 1);
    }
}
