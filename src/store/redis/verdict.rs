//! The meaning of Redis errors, and the reaction to them.
//!
//! A server's own words are not repeated, only its code: the rest may quote what was sent.

use std::fmt;

use ::redis::{ErrorKind, RedisError};

use super::super::error::Error;
use super::super::redis_settings::RedisAddress;
use crate::base::secret::is_wordy_secret;

/// The reason for which a request to Redis failed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum RedisVerdict {
    /// The connection is of no use any more.
    Broken(String),
    /// It is elsewhere in a Cluster; an empty host is that of the node which says so. `asking`: for this once, and to be
    /// asked for with `ASKING`.
    Elsewhere { to: RedisAddress, asking: bool },
    /// Redis has no memory left, or cannot save to its disk.
    Full(String),
    /// The Cluster is not whole, or moves what was asked for.
    NotNow(String),
    /// It answers, but not this.
    Refused(String),
    /// Something else lies at that place.
    WrongType,
}

impl RedisVerdict {
    pub(super) fn into_error(self) -> Error {
        match self {
            Self::Broken(why) | Self::NotNow(why) | Self::Refused(why) => Error::Unavailable(why),
            Self::Elsewhere { .. } => Error::Unavailable(
                "the store is a Cluster: write `redis+cluster://HOST:PORT,HOST:PORT` as `url` in [store]".to_owned(),
            ),
            Self::Full(why) => Error::Full(why),
            Self::WrongType => {
                Error::Unavailable("Redis has something else where countersign keeps its own".to_owned())
            }
        }
    }
}

impl RedisAddress {
    /// Reads the `host:port` of a redirection; an IPv6 address stands there with brackets or without.
    fn redirected(place: &str) -> Option<Self> {
        let (host, port) = place.rsplit_once(':')?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        Some(Self { host: host.to_owned(), port: port.parse().ok()? })
    }
}

/// Judges an error of the Redis at `address`.
pub(super) fn judge(address: impl fmt::Display, error: &RedisError) -> RedisVerdict {
    let says = |what: &str| format!("the store at {address} {what}");
    let cure = "see `username` and `password` in [store]";
    if error.kind() == ErrorKind::AuthenticationFailed {
        return RedisVerdict::Broken(says(&format!("refuses our credentials: {cure}")));
    }
    match error.code() {
        Some("NOAUTH") => RedisVerdict::Broken(says(&format!("asks for credentials: {cure}"))),
        Some("WRONGPASS") => RedisVerdict::Broken(says(&format!("refuses our credentials: {cure}"))),
        Some("NOPERM") => RedisVerdict::Refused(says(
            "does not permit what we need: docs/store.md lists what the ACL user must be allowed",
        )),
        Some("WRONGTYPE") => RedisVerdict::WrongType,
        Some("OOM") => RedisVerdict::Full(says("has no memory left: raise its `maxmemory`")),
        Some("MISCONF") => RedisVerdict::Full(says("cannot save to its disk and takes no writes")),
        // Another connection may lead to the new master, or find that it has loaded.
        Some(code @ ("READONLY" | "LOADING" | "MASTERDOWN")) => {
            RedisVerdict::Broken(says(&format!("takes no requests now ({code})")))
        }
        Some(code @ ("CLUSTERDOWN" | "NOREPLICAS" | "TRYAGAIN")) => {
            RedisVerdict::NotNow(says(&format!("takes no requests now ({code})")))
        }
        Some(code @ ("MOVED" | "ASK")) => {
            match error.redirect_node().and_then(|(place, _)| RedisAddress::redirected(place)) {
                Some(to) => RedisVerdict::Elsewhere { to, asking: code == "ASK" },
                None => RedisVerdict::Refused(says("answers something unexpected")),
            }
        }
        Some(code) if is_wordy_secret(code) => RedisVerdict::Refused(says(&format!("refuses ({code})"))),
        Some(_) => RedisVerdict::Refused(says("refuses")),
        None => match error.kind() {
            ErrorKind::Io => RedisVerdict::Broken(says("has closed the connection")),
            ErrorKind::UnexpectedReturnType => RedisVerdict::Refused(says("answers something unexpected")),
            _ => RedisVerdict::Broken(says("does not speak as Redis does: see `url` in [store]")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirection_names_a_node() {
        for (place, host, port) in
            [("10.0.0.1:7000", "10.0.0.1", 7000), ("::1:7", "::1", 7), ("[::1]:7", "::1", 7), (":7", "", 7)]
        {
            let expected = RedisAddress { host: host.to_owned(), port };
            assert_eq!(RedisAddress::redirected(place), Some(expected), "{place}");
        }
        for place in ["", "h", "h:", "h:x", "h:70000"] {
            assert_eq!(RedisAddress::redirected(place), None, "{place}");
        }
    }
}
