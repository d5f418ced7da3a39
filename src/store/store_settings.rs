//! The place of a store and the way to reach it, as a config requests it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::ServerName;

use super::envelope::KeyRing;
use crate::base::secret::SecretString;

/// The namespace of a store that names none.
pub const NAMESPACE: &str = "countersign";

/// The backend that a store is to use.
#[derive(Clone, Debug, Default)]
pub enum StoreSettings {
    /// A file on this machine.
    File {
        path: PathBuf,
        /// The keys that seal and open its records.
        ring: Arc<KeyRing>,
    },
    /// The memory of this process.
    #[default]
    Memory,
    /// A Redis that several instances share.
    Redis(RedisSettings),
}

impl StoreSettings {
    /// Returns the keys that records are sealed with; `None`: a key that lives as long as the process.
    pub fn ring(&self) -> Option<&Arc<KeyRing>> {
        match self {
            StoreSettings::File { ring, .. } => Some(ring),
            StoreSettings::Memory => None,
            StoreSettings::Redis(redis) => Some(&redis.ring),
        }
    }

    /// Returns the word for its kind in reports and the admin API: `file`, `memory` or `redis`.
    pub fn kind(&self) -> &'static str {
        match self {
            StoreSettings::File { .. } => "file",
            StoreSettings::Memory => "memory",
            StoreSettings::Redis(_) => "redis",
        }
    }

    /// Returns whether records are kept when the process ends.
    pub fn outlives(&self) -> bool {
        match self {
            StoreSettings::File { .. } | StoreSettings::Redis(_) => true,
            StoreSettings::Memory => false,
        }
    }

    /// Returns whether other instances see what is written there.
    pub fn is_shared(&self) -> bool {
        match self {
            StoreSettings::Redis(_) => true,
            StoreSettings::File { .. } | StoreSettings::Memory => false,
        }
    }

    /// Returns the file of a store that one process at a time can have open.
    pub fn file(&self) -> Option<&Path> {
        match self {
            StoreSettings::File { path, .. } => Some(path),
            StoreSettings::Memory | StoreSettings::Redis(_) => None,
        }
    }

    /// Returns `host:port` of a store on a server.
    pub fn address(&self) -> Option<String> {
        match self {
            StoreSettings::File { .. } | StoreSettings::Memory => None,
            StoreSettings::Redis(redis) => Some(format!("{}:{}", redis.host, redis.port)),
        }
    }

    /// Returns the namespace of its records.
    pub(super) fn namespace(&self) -> &str {
        match self {
            StoreSettings::File { .. } | StoreSettings::Memory => NAMESPACE,
            StoreSettings::Redis(redis) => &redis.namespace,
        }
    }
}

/// A Redis, and what it wants to see of us.
#[derive(Clone, Debug)]
pub struct RedisSettings {
    /// Host name or address, without brackets.
    pub host: String,
    pub port: u16,
    /// The number of the database.
    pub database: u32,
    /// TLS settings and the name in the certificate; absent: plain TCP.
    pub tls: Option<(Arc<rustls::ClientConfig>, ServerName<'static>)>,
    /// Our ACL user; absent: the default one.
    pub username: Option<String>,
    /// Our password; absent: none is asked for.
    pub password: Option<SecretString>,
    /// The prefix of every key and channel: letters, digits, `-`, `_` and `.`.
    pub namespace: String,
    /// The keys that seal and open its records.
    pub ring: Arc<KeyRing>,
}

/// The parsed `url` of a store.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum StoreUrl {
    /// `file:PATH`, as it is written.
    File(String),
    /// The URL `memory:`, with nothing after the colon.
    Memory,
    /// `redis://HOST[:PORT][/DATABASE]`, or `rediss://` with TLS.
    Redis {
        /// True for `rediss://`, false for `redis://`.
        tls: bool,
        /// Host name or address, without brackets.
        host: String,
        /// TCP port; 6379 if none is named.
        port: u16,
        /// The number of the database; 0 if none is named.
        database: u32,
    },
}

impl StoreUrl {
    /// Reads a `url`. The error says what to write instead, and quotes nothing.
    pub fn parse(url: &str) -> Result<Self, &'static str> {
        const FORMS: &str = "write `memory:`, `file:PATH`, `redis://HOST:PORT/0` or `rediss://HOST:PORT/0`";
        if url == "memory:" {
            return Ok(Self::Memory);
        }
        if let Some(path) = url.strip_prefix("file:") {
            return match path {
                "" => Err("write the path behind it, as in `file:var/countersign.redb`"),
                _ if path.starts_with("//") => Err("write the path alone, as in `file:/var/lib/countersign.redb`"),
                _ => Ok(Self::File(path.to_owned())),
            };
        }
        let (tls, rest) = match (url.strip_prefix("redis://"), url.strip_prefix("rediss://")) {
            (Some(rest), _) => (false, rest),
            (None, Some(rest)) => (true, rest),
            (None, None) => return Err(FORMS),
        };
        if rest.contains('@') {
            return Err("write user and password as `username` and `password` beside it");
        }
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        let database = match database {
            "" => 0,
            number => decimal(number).ok_or("behind the host stands the number of a database, as in `/0`")?,
        };
        let (host, port) = split_port(authority).ok_or(FORMS)?;
        Ok(Self::Redis { tls, host: host.to_owned(), port, database })
    }
}

fn split_port(authority: &str) -> Option<(&str, u16)> {
    let (host, rest) = match authority.strip_prefix('[') {
        Some(inner) => {
            let (host, rest) = inner.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            (host, rest)
        }
        None => {
            let (host, rest) = authority.split_at(authority.find(':').unwrap_or(authority.len()));
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
            (host, rest).0.bytes().all(plain).then_some((host, rest))?
        }
    };
    let port = match rest.strip_prefix(':') {
        Some(port) => decimal(port).filter(|port| *port != 0)?,
        None if rest.is_empty() => 6379,
        None => None?,
    };
    (!host.is_empty()).then_some((host, port))
}

/// Digits only: `parse` alone would take a sign.
fn decimal<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_where() {
        let redis = |tls, host: &str, port, database| StoreUrl::Redis { tls, host: host.to_owned(), port, database };
        for (url, place) in [
            ("memory:", StoreUrl::Memory),
            ("file:var/a.redb", StoreUrl::File("var/a.redb".to_owned())),
            ("file:/var/a.redb", StoreUrl::File("/var/a.redb".to_owned())),
            ("redis://h", redis(false, "h", 6379, 0)),
            ("redis://h/", redis(false, "h", 6379, 0)),
            ("rediss://r.corp:7000/3", redis(true, "r.corp", 7000, 3)),
            ("redis://[::1]:7000/3", redis(false, "::1", 7000, 3)),
        ] {
            assert_eq!(StoreUrl::parse(url), Ok(place), "{url}");
        }
        for url in [
            "",
            "memory",
            "memory:x",
            "file:",
            "file:///a",
            "redis:h",
            "redis://",
            "redis://:1",
            "redis://h:0",
            "redis://h:+1",
            "redis://h:70000",
            "redis://h/x",
            "redis://h/-1",
            "redis://h/1/2",
            "redis://u:p@h",
            "redis://h?x=1",
            "redis://[::1",
            "redis://[h]",
            "http://h",
        ] {
            assert!(StoreUrl::parse(url).is_err(), "{url}");
        }
    }
}
