//! A Redis as a config names it: one server, Sentinels that know the master, or a Cluster.

use std::fmt;
use std::sync::Arc;

use super::envelope::KeyRing;
use super::redis_login::RedisLogin;

/// A Redis, and what it wants to see of us.
#[derive(Clone, Debug)]
pub struct RedisSettings {
    pub topology: RedisTopology,
    /// The number of the database; 0 in a Cluster.
    pub database: u32,
    /// TLS settings, for Sentinels as well; absent: plain TCP. A certificate is verified for the host that was connected to.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    pub login: RedisLogin,
    /// What Sentinels are shown.
    pub sentinel_login: RedisLogin,
    /// The prefix of every key and channel: letters, digits, `-`, `_` and `.`.
    pub namespace: String,
    /// How many replicas of Redis are waited for after a write that must not get lost, and after a lock.
    pub wait_replicas: u32,
    /// The keys that seal and open its records.
    pub ring: Arc<KeyRing>,
}

/// The way from addresses to the Redis that takes a write.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum RedisTopology {
    /// Some nodes of a Cluster, which name the others.
    Cluster(Vec<RedisAddress>),
    /// Sentinels that know the master of a service.
    Sentinel {
        sentinels: Vec<RedisAddress>,
        /// The name of the master in the configuration of the Sentinels.
        service: String,
    },
    /// One server, or one address that moves with the master.
    Single(RedisAddress),
}

/// Addresses behind each other, separated by commas; of Sentinels with the service behind a slash.
impl fmt::Display for RedisTopology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let joined =
            |addresses: &[RedisAddress]| addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        match self {
            Self::Cluster(seeds) => f.write_str(&joined(seeds)),
            Self::Sentinel { sentinels, service } => write!(f, "{}/{service}", joined(sentinels)),
            Self::Single(address) => address.fmt(f),
        }
    }
}

/// A host and a port. `Display` is `host:port`, with an IPv6 address in brackets.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct RedisAddress {
    /// Host name or address, without brackets.
    pub host: String,
    pub port: u16,
}

impl fmt::Display for RedisAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}
