//! Records that outlive a process: application tokens, users' tokens, consents that wait for their callback.
//!
//! Owns one small interface, [`Store`], over three backends: memory, a file (redb), Redis. Every record in any of them
//! is sealed in one [envelope], bound to its place, so a reader of the file or of Redis learns names and times, never a
//! secret, and a record that was altered or moved is reported by name instead of being trusted. This module must not
//! know the meaning of a record, its callers, or the format of a config. It runs on the control thread, inside a
//! `LocalSet`: a worker never waits for a disk or for Redis. The file is accessed by a thread of its own.

mod backend;
mod changes;
pub mod envelope;
mod error;
mod file;
mod front;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod lock_attempt;
mod memory;
mod quota_call;
mod record;
mod redis;
mod redis_login;
mod redis_settings;
#[cfg(test)]
pub(crate) mod simulated;
mod store_settings;
mod store_url;

pub use backend::WalkCursor;
pub use changes::{Change, Changes, Lock};
pub use envelope::{KeyRing, SealingKey};
pub use error::{Damage, Damaged, Error};
pub use file::{Holder, holders};
pub use front::{RecordPage, Rekeyed, Store};
pub use lock_attempt::LockAttempt;
pub use quota_call::QuotaCall;
pub use record::{Kind, Listing, RecordEntry, RecordKey, RecordName, StoredRecord, Version};
pub use redis::Patience;
pub use redis_login::{IamLogin, IamService, RedisLogin};
pub use redis_settings::{RedisAddress, RedisSettings, RedisTopology};
pub use store_settings::StoreSettings;
pub use store_url::StoreUrl;
