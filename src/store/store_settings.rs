//! The place of a store and the way to reach it, as a config requests it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::envelope::KeyRing;
use super::redis_settings::RedisSettings;

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

    /// Returns `host:port` of a store on a server; of several, all that the config names.
    pub fn address(&self) -> Option<String> {
        match self {
            StoreSettings::File { .. } | StoreSettings::Memory => None,
            StoreSettings::Redis(redis) => Some(redis.topology.to_string()),
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
