//! The meaning of Redis errors, and the reaction to them.
//!
//! A server's own words are not repeated, only its code: the rest may quote what was sent.

use ::redis::{ErrorKind, RedisError};

use super::super::error::Error;
use crate::base::secret::is_wordy_secret;

/// The reason for which a request to Redis failed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum RedisVerdict {
    /// The connection is of no use any more.
    Broken(String),
    /// Redis has no memory left, or cannot save to its disk.
    Full(String),
    /// It answers, but not this.
    Refused(String),
    /// Something else lies at that place.
    WrongType,
}

impl RedisVerdict {
    pub(super) fn into_error(self) -> Error {
        match self {
            Self::Broken(why) | Self::Refused(why) => Error::Unavailable(why),
            Self::Full(why) => Error::Full(why),
            Self::WrongType => {
                Error::Unavailable("Redis has something else where countersign keeps its own".to_owned())
            }
        }
    }
}

/// Judges an error of the Redis at `address`.
pub(super) fn judge(address: &str, error: &RedisError) -> RedisVerdict {
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
        Some(code @ ("READONLY" | "LOADING" | "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN" | "NOREPLICAS")) => {
            RedisVerdict::Broken(says(&format!("takes no requests now ({code})")))
        }
        Some("MOVED" | "ASK" | "CROSSSLOT") => {
            RedisVerdict::Refused(says("is a cluster of shards, which [store] cannot use: name one Redis"))
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
