//! The hosts of a listener that has names.

use std::net::IpAddr;

use crate::config::ServerNames;
use crate::route;
use crate::serve::fault::Fault;

/// Checks that a request to this host, over TLS that asked for this name, belongs on a listener with these names.
pub(super) fn belongs(names: &ServerNames, sni: Option<&str>, host: Option<&str>) -> Result<(), Fault> {
    let named = host.map(route::host_name).transpose().map_err(Fault::Malformed)?;
    if !names.include(host) {
        return Err(Fault::Misdirected);
    }
    if let (Some(named), Some(sni)) = (named, sni) {
        let is_address = named.starts_with('[') || named.parse::<IpAddr>().is_ok();
        if !is_address && !named.eq_ignore_ascii_case(sni) {
            return Err(Fault::Misdirected);
        }
    }
    Ok(())
}
