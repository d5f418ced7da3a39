//! The CA behind `tls = "internal"`: made when a listener first wants a certificate of it, and kept as long as we run.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::base::time::{Clock, Now};
use crate::config::Snapshot;
use crate::tls::{InternalCa, InternalCaError};

/// Certificates are looked through this often.
const LOOK: Duration = Duration::from_secs(60);

/// Our own CA, if anybody wanted it yet.
#[derive(Debug, Default)]
pub struct ProcessCa(OnceLock<InternalCa>);

impl ProcessCa {
    /// Gives every listener that wants one a certificate, where it has none or an old one. A new config must pass here
    /// before it serves.
    pub fn certify(&self, snapshot: &Snapshot, now: Now) -> Result<(), InternalCaError> {
        let admin_listener =
            snapshot.admin.as_ref().and_then(|admin_listener| Some(("[admin]", admin_listener.internal.as_ref()?)));
        let listeners = snapshot.listeners.iter();
        let wanted = listeners.filter_map(|listener| Some((&*listener.name, listener.internal.as_ref()?)));
        for (listener, internal) in wanted.chain(admin_listener) {
            if self.ca(now)?.renew(internal, now)? {
                tracing::info!(%listener, "a certificate was made");
            }
        }
        Ok(())
    }

    /// Returns the CA's certificate (PEM), or `None` if no listener has needed one yet.
    pub fn pem(&self) -> Option<String> {
        self.0.get().map(InternalCa::pem)
    }

    fn ca(&self, now: Now) -> Result<&InternalCa, InternalCaError> {
        if let Some(ca) = self.0.get() {
            return Ok(ca);
        }
        let made = InternalCa::new(now)?;
        let ca = self.0.get_or_init(|| made);
        tracing::info!(fingerprint = %ca.fingerprint(), "the internal CA of this start:\n{}", ca.pem());
        Ok(ca)
    }
}

/// Keeps the certificates of what `current` answers from expiring. Never ends.
pub async fn keep(ca: Arc<ProcessCa>, clock: Clock, current: impl Fn() -> Arc<Snapshot>) {
    loop {
        tokio::time::sleep(LOOK).await;
        if let Err(error) = ca.certify(&current(), clock.now()) {
            tracing::error!(%error, "cannot renew a certificate for `tls = \"internal\"`");
        }
    }
}
