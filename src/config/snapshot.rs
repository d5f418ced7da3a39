//! The world as one request sees it: immutable, complete, already checked.
//!
//! There is no `validate()`. Whoever holds a [`Snapshot`] holds a right one: only [`super::build`] makes it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use ipnet::IpNet;

use crate::base::origin::BaseUrl;
use crate::provider::Module;
use crate::route::{ClientId, Rate, Table};

/// A whole, right configuration.
#[derive(Debug)]
pub struct Snapshot {
    /// Hexadecimal digest of what it was read from (no secrets), for logs and audit.
    pub digest: String,
    /// Where we listen.
    pub listeners: Vec<Arc<Listener>>,
    /// Whom we call.
    pub providers: Vec<Arc<Provider>>,
    /// What leads from one to the other; `route::Permit::route` is an index into it.
    pub routes: Vec<Arc<Route>>,
    /// Who may call.
    pub clients: Clients,
    /// What we refuse to spend on anybody.
    pub limits: Limits,
    /// Where and how we log.
    pub log: Log,
    /// The operator's door; absent: none.
    pub admin: Option<SocketAddr>,
    /// Worker threads.
    pub workers: usize,
}

/// One `[[listener]]`.
#[derive(Debug)]
pub struct Listener {
    /// Its name, for logs and metrics.
    pub name: Arc<str>,
    /// Where it binds. Port 0: any free one.
    pub bind: SocketAddr,
    /// TLS; absent: plain HTTP.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Who is let in.
    pub access: Access,
    /// The routes that this listener serves.
    pub table: Table,
}

/// Who a listener lets in.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Access {
    /// `clients = "anyone"`: nobody is asked who they are.
    Anyone,
    /// Any client that identifies itself.
    Identified,
    /// These clients only.
    Listed(Vec<ClientId>),
}

/// One `[provider.NAME]`: how to reach it. How to speak to it is the route's [`Module`].
#[derive(Debug)]
pub struct Provider {
    /// Its name.
    pub name: Arc<str>,
    /// Its position in [`Snapshot::providers`].
    pub index: usize,
    /// The profile's name.
    pub profile: Arc<str>,
    /// Where its API lives.
    pub base_url: BaseUrl,
    /// TLS settings for token and resource calls.
    pub tls: Arc<rustls::ClientConfig>,
    /// The name to verify its certificate against; absent: the host dialled.
    pub server_name: Option<rustls::pki_types::ServerName<'static>>,
    /// How long to wait for it.
    pub timeouts: Timeouts,
    /// Renew this long before expiry, never more than a fifth of the life.
    pub refresh_before: Duration,
    /// Digest of the transport settings: connections are pooled by it.
    pub transport_id: u64,
}

/// How long to wait for a provider, leg by leg.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Timeouts {
    /// DNS, TCP and TLS together.
    pub connect: Duration,
    /// A whole token call.
    pub token: Duration,
    /// From the request's end to the response's head.
    pub response: Duration,
    /// An unused connection is kept this long.
    pub idle: Duration,
    /// Between two pieces of a body.
    pub body_idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            token: Duration::from_secs(10),
            response: Duration::from_secs(60),
            idle: Duration::from_secs(20),
            body_idle: Duration::from_secs(60),
        }
    }
}

/// One `[[route]]`: what the data plane needs once the route is chosen. Matching lives in [`Table`].
#[derive(Debug)]
pub struct Route {
    /// Its name, for logs and metrics.
    pub name: Arc<str>,
    /// Whom it calls.
    pub provider: Arc<Provider>,
    /// How to speak to it, with the route's own settings.
    pub module: Arc<Module>,
    /// Where requests go: the provider's base URL, or the route's `upstream`. The permit's path includes its path.
    pub upstream: BaseUrl,
    /// Always set on the forwarded request, after everything else was stripped.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Headers that variables are read from and that are not forwarded.
    pub consumed: Vec<HeaderName>,
    /// What happens when the provider echoes a credential.
    pub reflection: Reflection,
    /// How many requests it takes; absent: any number.
    pub rate: Option<Arc<Rate>>,
    /// Largest request body that is kept for a replay, in bytes.
    pub replay_limit: u64,
    /// Whether its connections may become WebSockets.
    pub websocket: bool,
    /// This route's own waiting times.
    pub timeouts: Timeouts,
}

/// What happens when a provider's answer holds a live token or secret.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Reflection {
    /// The answer is not passed on.
    Block,
    /// Stars stand in the credential's place.
    #[default]
    Mask,
    /// Nobody looks.
    Off,
}

/// Who may call.
#[derive(Debug, Default)]
pub struct Clients {
    /// All clients; a [`ClientId`] is an index.
    pub all: Vec<Client>,
    /// By the SHA-256 of a key.
    pub by_key: HashMap<[u8; 32], ClientId>,
}

/// One `[client.NAME]`.
#[derive(Debug)]
pub struct Client {
    /// Its name: the user name of Basic credentials, and what logs call it.
    pub name: Arc<str>,
    /// Where it may call from; empty: anywhere.
    pub networks: Vec<IpNet>,
    /// Whether its network alone identifies it.
    pub networks_only: bool,
    /// The only values that it may name for these variables; others are not bounded.
    pub vars: Vec<(Arc<str>, Vec<String>)>,
}

/// `[limits]`. `None` and zero-size limits are off.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Client connections of the whole process.
    pub connections: Option<usize>,
    /// Streams of one HTTP/2 connection.
    pub streams: Option<u32>,
    /// Bytes of a request head; 431 beyond.
    pub header_bytes: usize,
    /// Fields of a request head; 431 beyond.
    pub headers: usize,
    /// Bytes of a request target; 414 beyond.
    pub uri_bytes: usize,
    /// Replay buffers of the whole process, in bytes.
    pub buffered_bytes: u64,
    /// A request body must come at least so fast, in bytes per second after a time of grace; 408 below.
    pub body_min_rate: u64,
    /// A request head must be complete this long after its first byte.
    pub header_timeout: Option<Duration>,
    /// A client connection may be silent this long between requests.
    pub idle_timeout: Option<Duration>,
    /// After SIGTERM, keep accepting this long.
    pub drain_delay: Duration,
    /// After that, let requests finish for this long.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: Some(10_000),
            streams: Some(100),
            header_bytes: 32 << 10,
            headers: 100,
            uri_bytes: 8 << 10,
            buffered_bytes: 64 << 20,
            body_min_rate: 240,
            header_timeout: Some(Duration::from_secs(10)),
            idle_timeout: Some(Duration::from_secs(75)),
            drain_delay: Duration::ZERO,
            drain: Duration::from_secs(30),
        }
    }
}

/// `[log]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Log {
    /// JSON or text; absent: text on a terminal, JSON otherwise.
    pub format: Option<LogFormat>,
    /// A `tracing` filter: `info`, `debug`, …
    pub level: String,
    /// Where access lines go.
    pub access: AccessLog,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// Where access lines go.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum AccessLog {
    /// Appended to this file.
    File(PathBuf),
    /// Nowhere.
    Off,
    /// To standard error.
    Stderr,
}
