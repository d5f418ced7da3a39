//! The configuration as one request sees it: immutable, complete, already checked.
//!
//! There is no `validate()`. Every [`Snapshot`] is correct: only [`super::build`] makes it.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use ipnet::IpNet;

use super::listener::ListenerConfig;
use super::sources::Sources;
use crate::base::origin::BaseUrl;
pub use crate::observe::audit::AuditSettings as Audit;
use crate::observe::once::Once;
use crate::provider::Module;
use crate::route::{ClientId, Opens, Rate};
use crate::store::StoreSettings;
use crate::tls::{CertName, Internal};
use crate::token::consent::{ConsentOwner, ReturnRule, Upkeep, UserName};
use crate::upstream::EgressPath;

/// A complete configuration that has passed all checks.
#[derive(Debug)]
pub struct Snapshot {
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
    pub audit: Option<Audit>,
    /// The operator's door; absent: none.
    pub admin: Option<AdminDoor>,
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

/// `[reload]`: the files whose change is a reload.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum WatchConfig {
    /// Those, and the config, what it includes, and profiles.
    All,
    /// Certificates, keys and secrets. The config's own text stays as it was read last.
    Secrets,
}

/// Settings of the `[store]` section.
#[derive(Clone, Debug, Default)]
pub struct Storage {
    /// Place of the store, and the settings to reach it.
    pub wish: StoreSettings,
    /// Digest of all that goes into `wish` but the keys, secrets included: equal ones are one store, which a reload keeps
    /// open.
    pub id: [u8; 32],
    /// True if a store that does not outlive the process may keep records that should, such as users' consents.
    pub ephemeral: bool,
}

/// Settings of the `[tracing]` section.
#[derive(Debug)]
pub struct Tracing {
    /// The collector that receives the traces.
    pub collector: Collector,
    /// Fields of every export request; the values are secrets, and marked as sensitive.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The share of new traces that is recorded, from 0 to 1.
    pub sample: f64,
    /// Name of this service in its traces.
    pub service: Arc<str>,
    /// An export ends after this long.
    pub timeout: Duration,
}

/// The destination of traces: OTLP over HTTP.
#[derive(Debug)]
pub struct Collector {
    /// Host and port. The scheme of the URL has no meaning: `tls` decides.
    pub url: BaseUrl,
    /// Path of the export requests, ending in `/v1/traces`.
    pub path: String,
    /// TLS settings; absent: in the clear.
    pub tls: Option<Arc<rustls::ClientConfig>>,
}

/// The admin listener, from the `[admin]` section.
#[derive(Clone, Debug)]
pub struct AdminDoor {
    /// Address to bind. Off loopback there is TLS, and at least one token.
    pub bind: SocketAddr,
    /// TLS settings; `None` means plain HTTP.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// With `tls = "internal"`: where its certificate has to be put before anybody can connect.
    pub internal: Option<Arc<Internal>>,
    /// Endpoints that need no token.
    pub open: Vec<PublicEndpoints>,
    /// Tokens that are accepted; an empty list, possible on loopback only, admits anyone.
    pub tokens: Vec<AdminToken>,
}

/// An endpoint of the admin listener that may be open without a token.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PublicEndpoints {
    /// `GET /livez`: whether the process is alive.
    Livez,
    /// `GET /metrics`: all metrics in the OpenMetrics text format.
    Metrics,
    /// `GET /readyz`: whether the process is ready to serve.
    Readyz,
}

/// A token of the admin listener, from `[admin.token.NAME]`.
#[derive(Clone, Eq, PartialEq)]
pub struct AdminToken {
    /// Name of the token's section, for logs.
    pub name: Arc<str>,
    /// The SHA-256 of its value.
    pub sha256: [u8; 32],
    /// Role that the token grants.
    pub role: Role,
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminToken").field("name", &self.name).field("role", &self.role).finish_non_exhaustive()
    }
}

/// Permissions of an operator, from fewer to more.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Role {
    /// Permission to read, without any change.
    Read,
    /// Permission to read and to change things.
    Operate,
}

impl Role {
    /// The word for it in the config.
    pub const fn as_str(self) -> &'static str {
        match self {
            Role::Read => "read",
            Role::Operate => "operate",
        }
    }
}

/// When a certificate file ends.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CertificateEnd {
    /// The file, as the config writes it.
    pub what: String,
    /// Seconds since 1970: the first end among the certificates in it.
    pub at: i64,
}

/// A provider, `[provider.NAME]`, with the settings to reach it. The protocol of its calls is in the route's
/// [`Module`].
#[derive(Debug)]
pub struct ProviderConfig {
    /// Name of the provider, from `[provider.NAME]`.
    pub name: Arc<str>,
    /// Index of the provider in [`Snapshot::providers`].
    pub index: usize,
    /// Name of the profile that the provider uses.
    pub profile: Arc<str>,
    /// Base URL of the provider's API.
    pub base_url: BaseUrl,
    /// TLS settings for token and resource calls.
    pub tls: Arc<rustls::ClientConfig>,
    /// The name to verify its certificate against; absent: the host dialled.
    pub server_name: Option<rustls::pki_types::ServerName<'static>>,
    /// The proxy and the source address that lead to it.
    pub way: EgressPath,
    /// Time limits of calls to the provider.
    pub timeouts: Timeouts,
    /// Renew this long before expiry, never more than a fifth of the life.
    pub refresh_before: Duration,
    /// True if the provider receives the trace context of a request.
    pub trace_context: bool,
    /// `User-Agent` of our own calls; absent: the profile's, or ours.
    pub user_agent: Option<HeaderValue>,
    /// The types of tokens that were logged as odd ones.
    pub odd_types: Once,
    /// Digest of the transport settings: connections are pooled by it.
    pub transport_id: u64,
    /// Settings of users' consents; `None` if users cannot consent.
    pub consents: Option<ConsentSettings>,
    /// Module for calls of the application without any route's own settings; `None` if it requires those.
    pub module: Option<Arc<Module>>,
    /// When the certificate ends that we show to it.
    pub certificate: Option<CertificateEnd>,
}

/// Settings of the `[provider.NAME.consent]` section.
#[derive(Debug)]
pub struct ConsentSettings {
    /// Module of users' consents and of their calls.
    pub module: Arc<Module>,
    /// Rules for the URLs to which a browser may be sent in the end.
    pub return_to: Vec<ReturnRule>,
    /// When users' tokens are renewed.
    pub upkeep: Upkeep,
    /// Clients that may start a consent: those that may call for users somewhere.
    pub opens: Opens,
}

/// Time limits of the steps of a provider call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Timeouts {
    /// DNS, TCP and TLS together.
    pub connect: Duration,
    /// Limit for a whole token call.
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

/// One `[[route]]`: what the data plane needs once the route is chosen. Matching lives in [`RouteTable`].
#[derive(Debug)]
pub struct Route {
    /// Its name, for logs and metrics.
    pub name: Arc<str>,
    /// Provider that the route's requests are sent to.
    pub provider: Arc<ProviderConfig>,
    /// Module for the provider's protocol, with the route's own settings.
    pub module: Arc<Module>,
    /// Destination of requests: the provider's base URL, or the route's `upstream`. The permit's path includes its
    /// path.
    pub upstream: BaseUrl,
    /// True if its limits on clients refuse requests, rather than only being reported.
    pub enforce: bool,
    /// The header that says in which user's name a call is made; absent: in the application's.
    pub user: Option<HeaderName>,
    /// Always set on the forwarded request, after everything else was stripped.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Headers that variables are read from and that are not forwarded.
    pub consumed: Vec<HeaderName>,
    /// Treatment of a response in which the provider echoes a credential.
    pub reflection: Reflection,
    /// Limit on the number of requests; `None`: any number.
    pub rate: Option<Arc<Rate>>,
    /// Largest request body that is kept for a replay, in bytes.
    pub replay_limit: u64,
    /// True if bodies are collected first, within that limit, and sent with a length.
    pub request_buffering: bool,
    /// True if its connections may become WebSockets.
    pub websocket: bool,
    /// This route's own waiting times.
    pub timeouts: Timeouts,
}

/// Treatment of a provider's response that contains a live token or secret.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Reflection {
    /// The answer is not passed on.
    Block,
    /// Stars stand in the credential's place.
    #[default]
    Mask,
    /// Responses are not searched for credentials.
    Off,
}

/// The clients that may call, with indices by proof of identity.
#[derive(Debug, Default)]
pub struct Clients {
    /// All clients; a [`ClientId`] is an index.
    pub all: Vec<ClientConfig>,
    /// By the SHA-256 of a key.
    pub by_key: HashMap<[u8; 32], ClientId>,
    /// By a name in a verified certificate.
    pub by_certificate: HashMap<CertName, ClientId>,
    /// By the user at the other end of a Unix socket.
    pub by_uid: HashMap<u32, ClientId>,
    /// By what a signed token says.
    pub jwt: Vec<JwtRule>,
    /// Issuers of such tokens; each once.
    pub issuers: Vec<Arc<Issuer>>,
}

/// A token with these claims is this client's.
#[derive(Debug)]
pub struct JwtRule {
    /// Issuer whose signature is accepted; its name is the claim `iss`.
    pub issuer: Arc<Issuer>,
    /// One of the values of `aud`.
    pub audience: String,
    /// Required value of the claim `sub`.
    pub subject: String,
    /// Client that such a token identifies.
    pub client: ClientId,
}

/// An issuer of signed client tokens.
#[derive(Debug)]
pub struct Issuer {
    /// The claim `iss`, byte for byte.
    pub name: String,
    /// Location of the issuer's public keys.
    pub keys: IssuerKeys,
    /// TLS settings for fetching them.
    pub tls: Arc<rustls::ClientConfig>,
    /// Digest of all of the above: equal ones have equal keys.
    pub id: [u8; 32],
}

/// The location of an issuer's public keys.
#[derive(Debug)]
pub enum IssuerKeys {
    /// A JSON Web Key Set (RFC 7517) at this URL.
    At(BaseUrl),
    /// The URL in its discovery document (OpenID Connect Discovery 1.0 section 4); this is the issuer.
    Discovered(BaseUrl),
}

/// A client, from one `[client.NAME]` section.
#[derive(Debug)]
pub struct ClientConfig {
    /// Its name: the user name of Basic credentials, and what logs call it.
    pub name: Arc<str>,
    /// Networks from which it may call; empty: any.
    pub networks: Vec<IpNet>,
    /// True if its network alone identifies it.
    pub networks_only: bool,
    /// The only values that it may name for these variables; others are not bounded.
    pub vars: Vec<(Arc<str>, Vec<String>)>,
    /// In whose name it may call.
    pub users: Users,
    /// Consents given to it are given to all clients of this group, and theirs to it.
    pub consent_group: Option<Arc<str>>,
}

impl ClientConfig {
    /// To whom a user consents who consents to this client.
    pub fn owner(&self) -> ConsentOwner {
        match &self.consent_group {
            Some(group) => ConsentOwner::Group(group.clone()),
            None => ConsentOwner::Client(self.name.clone()),
        }
    }
}

/// In whose name a client may call.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Users {
    /// Any user: `users = ["*"]` in the config.
    All,
    /// Only these users; an empty list permits no user.
    Only(Vec<UserName>),
}

impl Users {
    /// Returns whether this user is among them.
    pub fn include(&self, user: &UserName) -> bool {
        match self {
            Users::All => true,
            Users::Only(users) => users.contains(user),
        }
    }
}

/// `[limits]`. `None` and zero-size limits are off.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Client connections of the whole process.
    pub connections: Option<usize>,
    /// Client connections of one peer: an IPv4 address, or an IPv6 network of 64 bits.
    pub connections_per_peer: Option<usize>,
    /// TLS handshakes with clients under way in the whole process.
    pub handshakes: Option<usize>,
    /// Streams of one HTTP/2 connection.
    pub streams: Option<u32>,
    /// Maximum number of tokens that are kept in memory.
    pub tokens: Option<usize>,
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
    /// A blind tunnel may be silent this long.
    pub tunnel_idle: Option<Duration>,
    /// A blind tunnel lasts at most so long.
    pub tunnel_lifetime: Option<Duration>,
    /// After SIGTERM, keep accepting this long.
    pub drain_delay: Duration,
    /// After that, let requests finish for this long.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: Some(10_000),
            connections_per_peer: Some(512),
            handshakes: Some(256),
            streams: Some(100),
            tokens: Some(10_000),
            header_bytes: 32 << 10,
            headers: 100,
            uri_bytes: 8 << 10,
            buffered_bytes: 64 << 20,
            body_min_rate: 240,
            header_timeout: Some(Duration::from_secs(10)),
            idle_timeout: Some(Duration::from_secs(75)),
            tunnel_idle: Some(Duration::from_secs(300)),
            tunnel_lifetime: Some(Duration::from_secs(24 * 3600)),
            drain_delay: Duration::ZERO,
            drain: Duration::from_secs(30),
        }
    }
}

/// Settings of the `[log]` section.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LogConfig {
    /// JSON or text; absent: text on a terminal, JSON otherwise.
    pub format: Option<LogFormat>,
    /// A `tracing` filter: `info`, `debug`, …
    pub level: String,
    /// Destination of the access log lines.
    pub access: AccessLogTarget,
}

/// The format of log lines.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// Text for people, not for programs.
    Text,
}

/// The destination of access log lines.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum AccessLogTarget {
    /// A file to which the lines are appended.
    File(PathBuf),
    /// No destination: access lines are not written.
    Off,
    /// Standard error, as for the log itself.
    Stderr,
}
