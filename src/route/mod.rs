//! Which route a request takes, and whether it may.
//!
//! Owns the rules of paths and hosts, the tables that are searched per request, the [`Permit`] without which no token
//! is spent, and the [`Guard`] that judges where a host named by a client may lead. It must not know what a provider
//! is, how a client was identified, or where a request goes on the network. Pure: no sockets,
//! no clock, no tasks; workers share a [`RouteTable`] and never change it.
//!
//! A path is judged before anything is looked up, what is matched is what is forwarded, byte for byte, and what could
//! be read in two ways is refused.

mod authority;
mod egress;
mod forward;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod host;
mod json;
mod path;
mod pattern;
mod permit;
#[cfg(test)]
mod properties;
mod rate;
mod rule;
mod table;
mod vars;

use http::Method;

pub use authority::{Authority, DnsName, Host, Malformed};
pub use egress::{Barred, Destinations, Guard};
pub use forward::{ForwardTable, ForwardTarget, RouteConflict};
pub use host::host_name;
pub use json::json_pointer;
pub use path::{PathRules, configured_prefix};
pub use pattern::{Allow, Pattern};
pub use permit::{Admission, Caller, ClientId, Denied, Permit, PermitDraft, RequestTarget};
pub use rate::Rate;
pub use rule::{Opens, Reserved, RouteRule};
pub use table::{Clash, RouteTable};
pub use vars::{Var, VarSource};

/// Whether no route may ever carry this method: `TRACE` and `TRACK` echo credentials (RFC 9110 section 9.3.8), and a
/// `CONNECT` names no path.
pub fn refused_method(method: &Method) -> bool {
    ["CONNECT", "TRACE", "TRACK"].iter().any(|refused| method.as_str().eq_ignore_ascii_case(refused))
}
