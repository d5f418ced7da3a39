//! The life of a token, as a pure machine: no sockets, no clocks, no tasks.
//!
//! [`state::TokenState`] decides when to fetch, publish, withdraw and rest; time is an argument. [`consent`] is the way to a
//! token of a user, who must agree first. [`credential_slots`] chooses between a provider's current and next credentials. The keeper (`control/`) carries their decisions out. This room must not know what HTTP is beyond the header values it hands on.

pub mod call_budget;
pub mod consent;
pub mod credential_slots;
pub mod failure;
pub mod grant;
pub mod key;
pub mod lease;
pub mod policy;
pub mod state;
