//! Routing: the route that a request takes, and whether it may take it.
//!
//! Owns the rules of paths and hosts, the tables that are searched per request, the [`Admitted`] without which no token
//! is used, and the [`Guard`] that judges the destination of a client-named host. It must not know what a provider is,
//! how a client was identified, or where a request goes on the network. Pure: no sockets, no tasks, and no clock but
//! that of a [`Rate`]; workers share a [`RouteTable`] and never change it.
//!
//! A path is judged before any lookup, the matched path is the forwarded one, byte for byte, and a path that could be
//! read in two ways is refused.

mod admission;
mod authority;
mod egress;
mod forward;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod host;
mod json;
mod path;
mod pattern;
#[cfg(test)]
mod properties;
mod quota;
mod rate;
mod rule;
mod table;
mod vars;

use http::Method;

pub use admission::{Admission, AdmissionDraft, Admitted, Caller, ClientId, Denied, RequestTarget};
pub use authority::{Authority, DnsName, Host, Malformed};
pub use egress::{DestinationRefused, Destinations, Guard};
pub use forward::{ForwardTable, ForwardTarget, RouteConflict};
pub use host::host_name;
pub use json::json_pointer;
pub use path::{PathRules, configured_prefix};
pub use pattern::{Allow, Pattern};
pub use quota::{QuotaClaim, QuotaCounters, QuotaDimension, QuotaKey, QuotaRule, QuotaTurn, QuotaWindow};
pub use rate::Rate;
pub use rule::{Opens, Reserved, RouteRule};
pub use table::{Clash, RouteTable};
pub use vars::{Var, VarSource};

/// Returns whether no route may ever carry this method: `TRACE` and `TRACK` echo credentials (RFC 9110 section 9.3.8),
/// and a `CONNECT` names no path.
pub fn refused_method(method: &Method) -> bool {
    ["CONNECT", "TRACE", "TRACK"].iter().any(|refused| method.as_str().eq_ignore_ascii_case(refused))
}
