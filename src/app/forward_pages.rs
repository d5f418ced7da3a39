//! The pages that forward listeners serve about themselves.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::config::ListenerConfig;
use crate::serve::page::{ForwardPage, ForwardPageError};
use crate::tls::trust_store::public_roots;

/// The forward listeners' own pages.
pub(super) fn forward_pages(
    slots: &[Option<Arc<ListenerConfig>>],
    addresses: &[(Arc<str>, SocketAddr)],
) -> Result<Arc<[Option<ForwardPage>]>, ForwardPageError> {
    let listeners = slots.iter();
    let roots = if listeners.clone().flatten().any(|listener| listener.forward().is_some()) {
        public_roots()
    } else {
        Vec::new()
    };
    let page = |slot: &Option<Arc<ListenerConfig>>| {
        let Some(listener) = slot else { return Ok(None) };
        let Some(forward) = listener.forward() else { return Ok(None) };
        let scheme = if listener.tls.is_some() { "https" } else { "http" };
        let bound = addresses.iter().find(|(name, _)| *name == listener.name).map(|(_, address)| address.to_string());
        let proxy = bound.map_or_else(|| listener.bind.to_string(), |address| format!("{scheme}://{address}"));
        ForwardPage::new(forward.interception.authority().chain(), &roots, &proxy).map(Some)
    };
    listeners.map(page).collect()
}
