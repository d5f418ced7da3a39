//! The configuration as one request sees it: immutable, complete, already checked.
//!
//! There is no `validate()`. Every [`Snapshot`] is correct: only [`super::build`] makes it.

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Deref;
use std::sync::Arc;

use super::admin::AdminListenerConfig;
use super::client::Clients;
use super::config_section::ConfigSection;
use super::limits::Limits;
use super::listener::{Bind, ListenerConfig};
use super::log::{AccessLogTarget, LogConfig, LogOverride};
use super::otlp::OtlpExports;
use super::provider::ProviderConfig;
use super::reload::WatchConfig;
use super::route::Route;
use super::sources::Sources;
use super::store::Storage;
use super::webhook::Webhook;
use crate::observe::audit::AuditSettings;
use crate::route::ClientId;

/// A complete configuration that has passed all checks.
///
/// Other modules read its fields; they can neither make one nor set a field of one.
#[derive(Debug)]
pub struct Snapshot(pub(super) SnapshotFields);

impl Deref for Snapshot {
    type Target = SnapshotFields;

    fn deref(&self) -> &SnapshotFields {
        &self.0
    }
}

impl Snapshot {
    /// The same config with another form and level of the log, where `log` names them.
    #[must_use]
    pub fn with_log(mut self, log: &LogOverride) -> Self {
        let own = &mut self.0.log;
        own.format = log.format.or(own.format);
        own.level = log.level.clone().unwrap_or_else(|| std::mem::take(&mut own.level));
        self
    }

    /// Keeps only the first forward listener, at a free port of loopback and in the clear, for a process that serves
    /// one command. The admin listener goes, and access lines to standard error with it. Returns the listener; `None`
    /// if there is no forward listener.
    pub fn keep_forward_listener(&mut self) -> Option<Arc<ListenerConfig>> {
        let Self(fields) = self;
        let at = fields.listeners.iter().position(|listener| listener.forward().is_some())?;
        let mut kept = fields.listeners.swap_remove(at);
        let listener = Arc::get_mut(&mut kept)?;
        listener.bind = Bind::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        (listener.tls, listener.internal, listener.proxies) = (None, None, Vec::new());
        fields.listeners = vec![kept.clone()];
        fields.admin = None;
        fields.webhooks = Vec::new();
        if fields.log.access == AccessLogTarget::Stderr {
            fields.log.access = AccessLogTarget::Off;
        }
        Some(kept)
    }

    /// Adds a key, given by its SHA-256, to a client, which may call from any network from now on. Returns the
    /// client's name; `None` if there is no such client.
    pub fn add_client_key(&mut self, client: ClientId, sha256: [u8; 32]) -> Option<Arc<str>> {
        let clients = &mut self.0.clients;
        let found = clients.all.get_mut(usize::from(client.0))?;
        found.networks.clear();
        clients.by_key.insert(sha256, client);
        Some(found.name.clone())
    }
}

/// The fields of a [`Snapshot`].
#[derive(Debug)]
pub struct SnapshotFields {
    /// Hexadecimal digest of what it was read from (no secrets), for logs and audit.
    pub digest: String,
    /// Listeners, from the `[[listener]]` tables.
    pub listeners: Vec<Arc<ListenerConfig>>,
    /// Providers; [`ProviderConfig::index`] is a position in this list.
    pub providers: Vec<Arc<ProviderConfig>>,
    /// Routes from listeners to providers; `route::Permit::route` is an index into this list.
    pub routes: Vec<Arc<Route>>,
    /// Clients that may call, with their proofs of identity.
    pub clients: Clients,
    /// Limits on the resources that are spent on clients.
    pub limits: Limits,
    /// Format, level and destination of the logs.
    pub log: LogConfig,
    /// Destination and form of the audit records; `None`: none are written.
    pub audit: Option<AuditSettings>,
    /// The admin listener; `None`: there is none.
    pub admin: Option<AdminListenerConfig>,
    /// Number of worker threads; by default one per core.
    pub workers: usize,
    /// The store in which records outlive the process.
    pub store: Storage,
    /// Traces, metrics and log lines that are exported, and where to.
    pub otlp: OtlpExports,
    /// When the configured certificates end.
    pub certificates: Vec<CertificateEnd>,
    /// The sections of the config as they may be shown, without secrets.
    pub sections: Vec<ConfigSection>,
    /// Files that the config was read from, with digests.
    pub sources: Sources,
    /// Webhooks: the places at which providers call us.
    pub webhooks: Vec<Arc<Webhook>>,
    /// Files whose change triggers a reload.
    pub watch: WatchConfig,
}

/// When a certificate file ends.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CertificateEnd {
    /// The file, as the config writes it.
    pub what: String,
    /// Seconds since 1970: the first end among the certificates in it.
    pub at: i64,
}
