//! Simulators of the banks, over real TLS on loopback.
//!
//! Each simulator checks what its bank checks and responds in its bank's words, in normal operation and under faults:
//! tokens expire, are revoked, connections break. `countersign demo` and `countersign sim` show them to people; the
//! tests use them as the other end of every connection. They judge the proxy from outside, so this module knows nothing
//! of the proxy: it may use `base/` and the PEM readers and the cryptographic provider of `tls/`, and no other module.
//!
//! One simulator is one thread with its own runtime; a [`SimHandle`] controls it from other threads, and stops it when
//! dropped. If a bank's documents do not specify something, the comment at that place says *inferred*.
//!
//! The path of a request: [`server`] accepts and terminates TLS, [`exchange`] reads, records and calls the bank
//! ([`member`]), [`faults`] define what goes wrong on the way back, [`sim_body`] and [`sim_stream`] carry it out.

mod abbeycross;
mod authority;
mod bank_file;
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
mod sim_memory;
mod sim_response;
mod sim_state;
mod sim_stream;

pub use abbeycross::{AbbeyCrossManner, Hours, SuccessBody};
pub use authority::{LeafSpec, SimAuthority, SimLeaf, Usage};
pub use bank_file::{BankFile, DemoCall};
pub use call::SimEndpoint;
pub use credentials::Credentials;
pub use faults::{Close, Expiry, Faults, Issue, ResponseFault, SimFault, Verbatim};
pub use handle::{Sim, SimHandle, SimOptions};
pub use meed::{MeedManner, RefusalShape};
pub use member::Bank;
pub use oauth2::{DpopManner, OAuth2Manner};
pub use rakbank::{Dialect, RakbankManner};
pub use received::ReceivedRequest;
pub use scb::ScbManner;
pub use sim_memory::SimMemory;
