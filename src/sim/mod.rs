//! Stand-ins for the banks, over real TLS on loopback.
//!
//! Each simulator checks what its bank checks and answers in its bank's words, in good weather and bad: tokens expire,
//! are revoked, connections break. `countersign demo` and `countersign sim` show them to people; the tests use them as
//! the other end of every conversation. They judge the proxy from outside, so this room knows nothing of the proxy:
//! it may use `base/` and the PEM readers of `tls/`, and no other room.
//!
//! One simulator is one thread with its own runtime; a [`SimHandle`] is its remote control, and stops it when dropped.
//! Where a bank's documents are silent, the comment at the spot says *inferred*.
//!
//! A request's way: [`server`] accepts and speaks TLS, [`exchange`] reads, records and asks the bank ([`member`]),
//! [`faults`] say what goes wrong on the way back, [`sim_body`] and [`sim_stream`] let it go wrong.

mod abbeycross;
mod authority;
mod call;
mod control;
mod credentials;
mod exchange;
mod faults;
mod handle;
mod issued_tokens;
mod meed;
mod member;
mod oauth2;
mod rakbank;
mod received;
mod resource;
mod scb;
mod server;
mod sim_body;
mod sim_response;
mod sim_state;
mod sim_stream;

pub use abbeycross::{AbbeyCrossManner, Hours, SuccessBody};
pub use authority::{LeafSpec, SimAuthority, SimLeaf, Usage};
pub use call::SimEndpoint;
pub use credentials::Credentials;
pub use faults::{Close, Expiry, Faults, Issue, ResponseFault, SimFault, Verbatim};
pub use handle::{Sim, SimHandle, SimOptions};
pub use meed::{MeedManner, RefusalShape};
pub use member::Bank;
pub use oauth2::OAuth2Manner;
pub use rakbank::{Dialect, RakbankManner};
pub use received::ReceivedRequest;
pub use scb::ScbManner;
