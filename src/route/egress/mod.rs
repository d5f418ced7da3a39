//! The egress guard: it decides which destinations a client-named host may lead to.
//!
//! A name only stands for the addresses that DNS returns at this moment, so the guard judges the addresses, after they
//! were resolved and before any is dialled, and returns those same addresses. [`Destinations`] holds no name, so the
//! code that dials it cannot resolve again and get other addresses (DNS rebinding). An upstream that the operator
//! configured is not subject to the guard: it may be private.
//!
//! Pure, and built once per configuration: the addresses of the own listeners are an argument.

mod blocks;
#[cfg(test)]
pub(super) mod spellings;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};

use thiserror::Error;

/// Judges where a client-named host leads: to public unicast addresses, on any port, and never back to us.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    /// Our own listeners, one by one.
    own: Vec<SocketAddr>,
    /// The ports of those that listen on every local address.
    everywhere: Vec<u16>,
}

/// The addresses to dial, in the resolver's order; at least one. Only [`Guard::admit`] makes it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Destinations(Vec<SocketAddr>);

/// The reason a destination is refused. The text is for logs: a client learns only that the destination is forbidden.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum DestinationRefused {
    /// Some address is no public host's.
    #[error("{address} is no public address: {block}")]
    Block {
        /// The address.
        address: IpAddr,
        /// The description of the special block that contains the address.
        block: &'static str,
    },
    /// It is one of our own listeners.
    #[error("{0} is our own listener")]
    Loop(SocketAddr),
    /// The name has no address at all. Not forbidden, only unreachable.
    #[error("the name has no address")]
    Nothing,
}

impl Guard {
    /// A guard against calls to our own `listeners` (all of them: of every mode, and the admin one). One that is bound
    /// to the unspecified address listens on every one of the machine's `local` addresses; add to those what leads here
    /// from outside, a load balancer's address for one.
    pub fn new(listeners: &[SocketAddr], local: &[IpAddr]) -> Self {
        let mut guard = Self::default();
        for listener in listeners {
            let (address, port) = (listener.ip().to_canonical(), listener.port());
            if address.is_unspecified() {
                guard.everywhere.push(port);
                guard.own.extend(local.iter().map(|local| SocketAddr::new(local.to_canonical(), port)));
            } else {
                guard.own.push(SocketAddr::new(address, port));
            }
        }
        guard
    }

    /// Judges what a host resolved to, or the address that it is. One bad address bars all: an answer that mixes good
    /// and bad is an attempt to be dialled in the wrong place on the second try.
    pub fn admit(
        &self,
        resolved: impl IntoIterator<Item = IpAddr>,
        port: u16,
    ) -> Result<Destinations, DestinationRefused> {
        let mut addresses = Vec::new();
        for address in resolved {
            let destination = SocketAddr::new(address, port);
            self.judge(destination)?;
            addresses.push(destination);
        }
        if addresses.is_empty() { Err(DestinationRefused::Nothing) } else { Ok(Destinations(addresses)) }
    }

    /// Judges a connection once more when it is there and nothing was sent on it. `local` is our end of it: when it has
    /// the peer's address we have called our own machine, by an address that it did not have when the guard was made.
    pub fn confirm(&self, local: SocketAddr, peer: SocketAddr) -> Result<(), DestinationRefused> {
        self.judge(peer)?;
        if local.ip().to_canonical() == peer.ip().to_canonical() && self.everywhere.contains(&peer.port()) {
            return Err(DestinationRefused::Loop(peer));
        }
        Ok(())
    }

    fn judge(&self, destination: SocketAddr) -> Result<(), DestinationRefused> {
        let address = destination.ip();
        if let Some(block) = blocks::block(address) {
            return Err(DestinationRefused::Block { address, block });
        }
        if self.own.iter().any(|own| own.ip() == address && own.port() == destination.port()) {
            return Err(DestinationRefused::Loop(destination));
        }
        Ok(())
    }
}

impl Destinations {
    /// The addresses, to be tried in this order.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.0
    }
}

impl IntoIterator for Destinations {
    type Item = SocketAddr;
    type IntoIter = std::vec::IntoIter<SocketAddr>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}
