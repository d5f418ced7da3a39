//! The configuration as one request sees it: immutable, complete, already checked.
//!
//! There is no `validate()`. Every [`Snapshot`] is correct: only [`super::build`] makes it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::IpNet;

use super::admin::AdminListenerConfig;
use super::client::Clients;
use super::limits::Limits;
use super::log::{AccessLogTarget, LogConfig};
use super::provider::ProviderConfig;
use super::reload::WatchConfig;
use super::route::Route;
use super::sources::Sources;
use super::store::Storage;
use super::tracing::Tracing;
use crate::observe::audit::AuditSettings;
use crate::route::{ClientId, ForwardTable, RouteTable};
use crate::tls::{Interception, Internal};

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
    /// Destination and selection of traces; `None`: there are none.
    pub tracing: Option<Tracing>,
    /// When the configured certificates end.
    pub certificates: Vec<CertificateEnd>,
    /// Files that the config was read from, with digests.
    pub sources: Sources,
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

/// A listener, from one `[[listener]]` table.
#[derive(Debug)]
pub struct ListenerConfig {
    /// Its name, for logs and metrics.
    pub name: Arc<str>,
    /// Address or Unix socket path to bind.
    pub bind: Bind,
    /// TLS settings; `None` means plain HTTP.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// With `tls = "internal"`: where its certificate has to be put before anybody can connect.
    pub internal: Option<Arc<Internal>>,
    /// Peers in these networks say first, by the PROXY protocol, whom they speak for.
    pub proxies: Vec<IpNet>,
    /// Clients that the listener admits.
    pub access: ListenerAccess,
    /// Mode of the listener, with its routes or host names.
    pub serves: Serves,
    /// Digest of what a connection to it is believed from its first byte: how it is spoken to, whose certificates count,
    /// which balancers. A connection that was made on another footing has to be made anew.
    pub footing: [u8; 32],
}

/// The mode of a listener: its treatment of requests.
#[derive(Debug)]
pub enum Serves {
    /// Browsers come back to it from a consent; nothing else does. The hosts it answers to.
    Callback(ServerNames),
    /// It is the proxy that a client is told of: requests name the provider itself.
    Forward(Box<ForwardListener>),
    /// It stands in the provider's place: requests are routed by host and path.
    Reverse(ReverseListener),
}

/// A listener with `mode = "forward"`.
#[derive(Debug)]
pub struct ForwardListener {
    /// The routes that it serves, by their upstreams.
    pub table: ForwardTable,
    /// Settings for the connections inside the tunnels that it intercepts.
    pub interception: Interception,
    /// True if a CONNECT to a host without a route is passed through, subject to the guard.
    pub tunnels: bool,
}

/// A listener with `mode = "reverse"`.
#[derive(Debug)]
pub struct ReverseListener {
    /// The hosts it answers to.
    pub names: ServerNames,
    /// The routes that it serves.
    pub table: RouteTable,
}

/// The only hosts that a listener answers to, in lower case, without ports; none: any.
#[derive(Debug, Default)]
pub struct ServerNames(pub Vec<String>);

impl ServerNames {
    /// Returns whether requests for this host belong to the listener. A port is ignored; a request without a host
    /// belongs to it only if any host does.
    pub fn include(&self, host: Option<&str>) -> bool {
        let Self(names) = self;
        if names.is_empty() {
            return true;
        }
        let Some(host) = host else { return false };
        let bare = match host.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or_default(),
            None => host.split(':').next().unwrap_or_default(),
        };
        names.iter().any(|name| name.eq_ignore_ascii_case(bare))
    }
}

impl ListenerConfig {
    /// Returns the settings of a forward listener; `None` for other modes.
    pub fn forward(&self) -> Option<&ForwardListener> {
        match &self.serves {
            Serves::Forward(forward) => Some(forward),
            Serves::Callback(_) | Serves::Reverse(_) => None,
        }
    }

    /// Returns whether a peer at this address must use the PROXY protocol.
    pub fn is_proxy(&self, peer: IpAddr) -> bool {
        self.proxies.iter().any(|network| network.contains(&peer))
    }
}

/// The address or path that a listener binds to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Bind {
    /// An address. Port 0: any free one.
    Tcp(SocketAddr),
    /// The path of a socket.
    Unix(PathBuf),
}

impl Bind {
    /// The TCP port, if it is an address.
    pub const fn port(&self) -> Option<u16> {
        match self {
            Bind::Tcp(address) => Some(address.port()),
            Bind::Unix(_) => None,
        }
    }
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bind::Tcp(address) => address.fmt(f),
            Bind::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// The clients that a listener admits.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ListenerAccess {
    /// `clients = "anyone"`: clients are not asked to identify themselves.
    Anyone,
    /// Any client that identifies itself.
    Identified,
    /// Only these clients, which must identify themselves.
    Listed(Vec<ClientId>),
}
