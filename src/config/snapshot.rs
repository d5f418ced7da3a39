//! The world as one request sees it: immutable, complete, already checked.
//!
//! There is no `validate()`. Whoever holds a [`Snapshot`] holds a right one: only [`super::build`] makes it.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use ipnet::IpNet;

use super::sources::Sources;
use crate::base::origin::BaseUrl;
pub use crate::observe::audit::AuditSettings as Audit;
use crate::observe::once::Once;
use crate::provider::Module;
use crate::route::{ClientId, ForwardTable, Opens, Rate, RouteTable};
use crate::store::StoreSettings;
use crate::tls::{CertName, Interception, Internal};
use crate::token::consent::{ConsentOwner, ReturnRule, Upkeep, UserName};
use crate::upstream::EgressPath;

/// A whole, right configuration.
#[derive(Debug)]
pub struct Snapshot {
    /// Hexadecimal digest of what it was read from (no secrets), for logs and audit.
    pub digest: String,
    /// Where we listen.
    pub listeners: Vec<Arc<ListenerConfig>>,
    /// Whom we call.
    pub providers: Vec<Arc<ProviderConfig>>,
    /// What leads from one to the other; `route::Permit::route` is an index into it.
    pub routes: Vec<Arc<Route>>,
    /// Who may call.
    pub clients: Clients,
    /// What we refuse to spend on anybody.
    pub limits: Limits,
    /// Where and how we log.
    pub log: LogConfig,
    /// Where and how calls and actions are recorded; absent: nowhere.
    pub audit: Option<Audit>,
    /// The operator's door; absent: none.
    pub admin: Option<AdminDoor>,
    /// Worker threads.
    pub workers: usize,
    /// Where records outlive the process.
    pub store: Storage,
    /// Where traces go, and which; absent: there are none.
    pub tracing: Option<Tracing>,
    /// When the configured certificates end.
    pub certificates: Vec<CertificateEnd>,
    /// What it was read from.
    pub sources: Sources,
    /// Which files are watched.
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

/// `[store]`.
#[derive(Clone, Debug, Default)]
pub struct Storage {
    /// Where it is, and how it is reached.
    pub wish: StoreSettings,
    /// Digest of all that goes into `wish` but the keys, secrets included: equal ones are one store, which a reload keeps
    /// open.
    pub id: [u8; 32],
    /// Whether a store that forgets may keep what should not be forgotten.
    pub ephemeral: bool,
}

/// `[tracing]`.
#[derive(Debug)]
pub struct Tracing {
    /// Who takes them.
    pub collector: Collector,
    /// What every export carries; the values are secrets, and marked so.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The share of new traces that is recorded, from 0 to 1.
    pub sample: f64,
    /// What we are called there.
    pub service: Arc<str>,
    /// An export ends after this long.
    pub timeout: Duration,
}

/// Where traces go: OTLP over HTTP.
#[derive(Debug)]
pub struct Collector {
    /// Host and port. Whatever it says of a scheme, `tls` counts.
    pub url: BaseUrl,
    /// The path of exports.
    pub path: String,
    /// TLS settings; absent: in the clear.
    pub tls: Option<Arc<rustls::ClientConfig>>,
}

/// `[admin]`: the operator's door.
#[derive(Clone, Debug)]
pub struct AdminDoor {
    /// Where it binds. Off loopback there is TLS, and at least one token.
    pub bind: SocketAddr,
    /// TLS; absent: plain HTTP.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// With `tls = "internal"`: where its certificate has to be put before anybody can connect.
    pub internal: Option<Arc<Internal>>,
    /// What needs no token.
    pub open: Vec<PublicEndpoints>,
    /// Who may come in; none, on loopback alone: anybody.
    pub tokens: Vec<AdminToken>,
}

/// What may be seen of the operator's door without a token.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PublicEndpoints {
    /// `GET /livez`.
    Livez,
    /// `GET /metrics`.
    Metrics,
    /// `GET /readyz`.
    Readyz,
}

/// One `[admin.token.NAME]`.
#[derive(Clone, Eq, PartialEq)]
pub struct AdminToken {
    /// Its name, for logs.
    pub name: Arc<str>,
    /// The SHA-256 of its value.
    pub sha256: [u8; 32],
    /// What may be done with it.
    pub role: Role,
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminToken").field("name", &self.name).field("role", &self.role).finish_non_exhaustive()
    }
}

/// What an operator may do, from less to more.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Role {
    /// Look.
    Read,
    /// Look, and change things.
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

/// One `[[listener]]`.
#[derive(Debug)]
pub struct ListenerConfig {
    /// Its name, for logs and metrics.
    pub name: Arc<str>,
    /// Where it binds.
    pub bind: Bind,
    /// TLS; absent: plain HTTP.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// With `tls = "internal"`: where its certificate has to be put before anybody can connect.
    pub internal: Option<Arc<Internal>>,
    /// Peers in these networks say first, by the PROXY protocol, whom they speak for.
    pub proxies: Vec<IpNet>,
    /// Who is let in.
    pub access: ListenerAccess,
    /// What it does with requests.
    pub serves: Serves,
    /// Digest of what a connection to it is believed from its first byte: how it is spoken to, whose certificates count,
    /// which balancers. A connection that was made on another footing has to be made anew.
    pub footing: [u8; 32],
}

/// What a listener does with requests.
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
    /// How it speaks inside the tunnels that it intercepts.
    pub interception: Interception,
    /// Whether a CONNECT to a host without a route is passed through, behind the guard.
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
    /// Whether requests for this host belong here. A port is ignored; a request without a host belongs only where any
    /// host does.
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
    /// What it forwards with, if it is a forward listener.
    pub fn forward(&self) -> Option<&ForwardListener> {
        match &self.serves {
            Serves::Forward(forward) => Some(forward),
            Serves::Callback(_) | Serves::Reverse(_) => None,
        }
    }

    /// Whether a peer at this address has to speak the PROXY protocol.
    pub fn is_proxy(&self, peer: IpAddr) -> bool {
        self.proxies.iter().any(|network| network.contains(&peer))
    }
}

/// Where a listener binds.
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

/// Who a listener lets in.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ListenerAccess {
    /// `clients = "anyone"`: nobody is asked who they are.
    Anyone,
    /// Any client that identifies itself.
    Identified,
    /// These clients only.
    Listed(Vec<ClientId>),
}

/// One `[provider.NAME]`: how to reach it. How to speak to it is the route's [`Module`].
#[derive(Debug)]
pub struct ProviderConfig {
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
    /// The proxy and the source address that lead to it.
    pub way: EgressPath,
    /// How long to wait for it.
    pub timeouts: Timeouts,
    /// Renew this long before expiry, never more than a fifth of the life.
    pub refresh_before: Duration,
    /// Whether it is told which trace a request belongs to.
    pub trace_context: bool,
    /// `User-Agent` of our own calls; absent: the profile's, or ours.
    pub user_agent: Option<HeaderValue>,
    /// The types of tokens that were logged as odd ones.
    pub odd_types: Once,
    /// Digest of the transport settings: connections are pooled by it.
    pub transport_id: u64,
    /// How its users consent, where they may.
    pub consents: Option<ConsentSettings>,
    /// How an application speaks to it, without any route's own settings; absent where it takes those.
    pub module: Option<Arc<Module>>,
    /// When the certificate ends that we show to it.
    pub certificate: Option<CertificateEnd>,
}

/// `[provider.NAME.consent]`.
#[derive(Debug)]
pub struct ConsentSettings {
    /// How users consent, and what their calls look like.
    pub module: Arc<Module>,
    /// Where a browser may be sent in the end.
    pub return_to: Vec<ReturnRule>,
    /// When users' tokens are renewed.
    pub upkeep: Upkeep,
    /// Who may start a consent: whoever may call for users somewhere.
    pub opens: Opens,
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

/// One `[[route]]`: what the data plane needs once the route is chosen. Matching lives in [`RouteTable`].
#[derive(Debug)]
pub struct Route {
    /// Its name, for logs and metrics.
    pub name: Arc<str>,
    /// Whom it calls.
    pub provider: Arc<ProviderConfig>,
    /// How to speak to it, with the route's own settings.
    pub module: Arc<Module>,
    /// Where requests go: the provider's base URL, or the route's `upstream`. The permit's path includes its path.
    pub upstream: BaseUrl,
    /// Whether its limits on clients refuse, rather than only being told of.
    pub enforce: bool,
    /// The header that says in which user's name a call is made; absent: in the application's.
    pub user: Option<HeaderName>,
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
    /// Whether bodies are gathered first, within that limit, and go out with a length.
    pub request_buffering: bool,
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
    pub all: Vec<ClientConfig>,
    /// By the SHA-256 of a key.
    pub by_key: HashMap<[u8; 32], ClientId>,
    /// By a name in a verified certificate.
    pub by_certificate: HashMap<CertName, ClientId>,
    /// By the user at the other end of a Unix socket.
    pub by_uid: HashMap<u32, ClientId>,
    /// By what a signed token says.
    pub jwt: Vec<JwtRule>,
    /// Who signs such tokens; each once.
    pub issuers: Vec<Arc<Issuer>>,
}

/// A token with these claims is this client's.
#[derive(Debug)]
pub struct JwtRule {
    /// Whose signature counts; its name is the claim `iss`.
    pub issuer: Arc<Issuer>,
    /// One of the values of `aud`.
    pub audience: String,
    /// The value of `sub`.
    pub subject: String,
    /// Whose it is.
    pub client: ClientId,
}

/// Who signs tokens.
#[derive(Debug)]
pub struct Issuer {
    /// The claim `iss`, byte for byte.
    pub name: String,
    /// Where its public keys are.
    pub keys: IssuerKeys,
    /// TLS settings for fetching them.
    pub tls: Arc<rustls::ClientConfig>,
    /// Digest of all of the above: equal ones have equal keys.
    pub id: [u8; 32],
}

/// Where an issuer's public keys are.
#[derive(Debug)]
pub enum IssuerKeys {
    /// A JSON Web Key Set (RFC 7517) at this URL.
    At(BaseUrl),
    /// Where its discovery document says (OpenID Connect Discovery 1.0 section 4); this is the issuer.
    Discovered(BaseUrl),
}

/// One `[client.NAME]`.
#[derive(Debug)]
pub struct ClientConfig {
    /// Its name: the user name of Basic credentials, and what logs call it.
    pub name: Arc<str>,
    /// Where it may call from; empty: anywhere.
    pub networks: Vec<IpNet>,
    /// Whether its network alone identifies it.
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
    /// Any user's.
    All,
    /// These users'; none: nobody's.
    Only(Vec<UserName>),
}

impl Users {
    /// Whether this user is among them.
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
    /// Tokens that are held at hand.
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

/// `[log]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LogConfig {
    /// JSON or text; absent: text on a terminal, JSON otherwise.
    pub format: Option<LogFormat>,
    /// A `tracing` filter: `info`, `debug`, …
    pub level: String,
    /// Where access lines go.
    pub access: AccessLogTarget,
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
pub enum AccessLogTarget {
    /// Appended to this file.
    File(PathBuf),
    /// Nowhere.
    Off,
    /// To standard error.
    Stderr,
}
