//! A plain connection to a place that a client named, behind the egress guard.
//!
//! The name is resolved once. The guard judges all that it led to, and exactly those addresses are dialled; what
//! connected is judged once more before anything is sent.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use thiserror::Error;
use tokio::net::TcpStream;

use super::dial::DialError;
use super::names::NameCache;
use super::race::{STAGGER, interleave, race};
use super::socket::set_tunnel_options;
use crate::base::time::Now;
use crate::route::{Authority, DestinationRefused, Guard, Host};

/// For DNS and TCP together.
const PATIENCE: Duration = Duration::from_secs(10);

/// The reason for which there is no tunnel. No bytes were sent.
#[derive(Debug, Error)]
pub enum TunnelError {
    /// The guard refuses it. The text is for logs alone.
    #[error(transparent)]
    Barred(#[from] DestinationRefused),
    /// No connection to the destination could be established.
    #[error(transparent)]
    Dial(#[from] DialError),
}

/// Connects to `to`, if the guard lets us.
pub async fn tunnel(to: &Authority, guard: &Guard, now: Now) -> Result<TcpStream, TunnelError> {
    match tokio::time::timeout(PATIENCE, connect(to, guard, now)).await {
        Ok(connected) => connected,
        Err(_) => Err(DialError::Timeout.into()),
    }
}

async fn connect(to: &Authority, guard: &Guard, now: Now) -> Result<TcpStream, TunnelError> {
    let resolved = match to.host() {
        Host::Name(name) => {
            let found = NameCache::of_clients().resolve(name.as_str(), now).await;
            found.map_err(DialError::Dns)?.to_vec()
        }
        Host::V4(address) => vec![IpAddr::V4(*address)],
        Host::V6(address) => vec![IpAddr::V6(*address)],
    };
    let admitted = guard.admit(resolved, to.port())?;
    let addresses: Vec<IpAddr> = admitted.addresses().iter().map(SocketAddr::ip).collect();
    let port = to.port();
    let reached = race(interleave(&addresses), STAGGER, move |address| TcpStream::connect((address, port))).await;
    let stream =
        reached.map_err(|error| DialError::Tcp(error.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into())))?;
    let ends = stream.local_addr().and_then(|local| Ok((local, stream.peer_addr()?)));
    let (local, peer) = ends.map_err(DialError::Tcp)?;
    guard.confirm(local, peer)?;
    set_tunnel_options(&stream).map_err(DialError::Tcp)?;
    Ok(stream)
}
