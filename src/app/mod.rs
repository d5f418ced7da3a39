//! The running process: it starts, reloads, hands over and ends.
//!
//! | file | subject |
//! |---|---|
//! | `boot` | [`boot::Running`]: sockets, threads, workers, and their end |
//! | `boot_error` | the reasons for which the process does not start |
//! | `control_thread` | the thread that owns the store, the keeper, consents, reloads and the admin listener |
//! | `alarm` | the signal that a part has ended unasked |
//! | `reload` | a new config in a running process |
//! | `sockets`, `unix_socket`, `inherited` | listening sockets: opened, on paths, taken over from another process |
//! | `upgrade` | the replacement of the process by a new image |
//! | `recordings` | recordings of providers' traffic, across configs |
//! | `supervisor` | notifications to a service manager |
//! | `watch` | changes of the files behind the config |
//! | `access_sink`, `forward_pages`, `process_ca` | access lines, pages of forward listeners, the internal CA |

mod access_sink;
mod alarm;
pub mod boot;
pub mod boot_error;
mod control_thread;
mod forward_pages;
pub(crate) mod inherited;
pub(crate) mod process_ca;
mod recordings;
pub mod reload;
mod sockets;
pub(crate) mod supervisor;
mod unix_socket;
pub(crate) mod upgrade;
mod watch;
