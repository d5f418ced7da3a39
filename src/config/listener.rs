//! `[[listener]]`: where we listen, and who is let in.

mod mode;
mod served_routes;
mod server_names;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::IpNet;
use rustls::ServerConfig;

use crate::base::secret::sha256;
use crate::route::ClientId;
use crate::syntax::{Diagnostics, Fields, FromNode as _, Node};
use crate::tls::{self, Certificate, ClientCa, Identity, Internal, ServerTls};

use super::client::{KnownClients, networks};
use super::credentials::unix_path;
use super::file_identity::{SERVER, file_identity};
use super::reader::{Reader, pem_help};
use super::schema::{MAY, MUST, SchemaKey, SchemaShape, TLS_VERSIONS};
use super::spanned_text::{PermittedClients, Position, SpannedText, choice};
use super::svid_reference::SvidReference;
use mode::{ModeKeys, ReadMode};
use server_names::names;

pub use mode::*;
pub use server_names::ServerNames;

pub(super) use served_routes::{ServedRoute, ServedRoutes};

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
    pub mode: ListenerMode,
    /// Digest of what a connection to it is believed from its first byte: how it is spoken to, whose certificates count,
    /// which balancers. A connection that was made on another footing has to be made anew.
    pub footing: [u8; 32],
}

impl ListenerConfig {
    /// Returns the settings of a forward listener; `None` for other modes.
    pub fn forward(&self) -> Option<&ForwardListener> {
        self.mode.forward()
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

/// The keys of `[[listener]]` in every mode, for the schema.
pub(super) const KEYS: [SchemaKey; 8] = [
    ("bind", SchemaShape::Bind, MUST, "IP address and port (0: any free one), or unix:/path"),
    ("clients", SchemaShape::Who, MAY, "who is let in; default: every client of the file"),
    mode::KEY,
    ("name", SchemaShape::Text, MAY, "for logs and metrics"),
    ("names", SchemaShape::Texts, MAY, "the hosts that it answers to; default: any"),
    ("plaintext", SchemaShape::Choice(&["allowed"]), MAY, "off loopback without TLS"),
    ("proxy_protocol", SchemaShape::Texts, MAY, "the networks whose connections begin with the PROXY protocol"),
    ("tls", SchemaShape::InternalOr("listener_tls"), MAY, "without it: plain HTTP"),
];

/// The keys of `tls` of what listens, for the schema.
pub(super) const TLS_KEYS: [SchemaKey; 5] = [
    ("cert", SchemaShape::Text, MAY, "path of the certificate and its chain, PEM, unless they stand in key"),
    ("client_auth", SchemaShape::Choice(&["optional", "required"]), MAY, "whether a client must show a certificate"),
    (
        "client_ca",
        SchemaShape::TextOr("svid"),
        MAY,
        "path of the CAs of client certificates, PEM, or a table for a secret_source with kind spiffe",
    ),
    (
        "key",
        SchemaShape::TextOr("key_file"),
        MUST,
        "path of its private key, PEM, or a table for PKCS#12, passwords and SPIFFE",
    ),
    ("min_version", TLS_VERSIONS, MAY, "1.2"),
];

/// A listener as it was read; what could not be read is absent and was reported.
pub(super) struct ReadListener {
    pub(super) name: Arc<str>,
    pub(super) head: Position,
    pub(super) bind: Option<Bind>,
    pub(super) tls: Option<Arc<ServerConfig>>,
    pub(super) internal: Option<Arc<Internal>>,
    /// True if its TLS asks for clients' certificates.
    pub(super) asks_certificates: bool,
    pub(super) mode: Box<dyn ReadMode>,
    /// It was reported that `mode` cannot be read, and what follows from it need not be.
    pub(super) mode_unread: bool,
    pub(super) proxies: Vec<IpNet>,
    pub(super) access: ListenerAccess,
    /// The names in `clients`, in the order of the list in `access`.
    pub(super) listed: Vec<SpannedText>,
    /// Digest of what its connections are believed from their start.
    pub(super) footing: [u8; 32],
}

impl ReadListener {
    /// Returns the settings; `None` if something was reported.
    pub(super) fn finish(self) -> Option<ListenerConfig> {
        let ReadListener { name, bind, tls, internal, mode, proxies, access, footing, .. } = self;
        Some(ListenerConfig { name, bind: bind?, tls, internal, proxies, access, mode: mode.finish()?, footing })
    }
}

/// Reads all `[[listener]]` tables; a name or address that occurs twice is a mistake.
pub(super) fn read(root: &Fields<'_>, known: &KnownClients, reader: &Reader<'_>) -> Vec<ReadListener> {
    let mut listeners: Vec<ReadListener> = Vec::new();
    for node in tables(root, "listener", reader.report) {
        let listener = read_one(node, known, reader);
        if listeners.iter().any(|other| other.name == listener.name) {
            let title = format!("two listeners are called `{}`", listener.name);
            listener.head.error(reader.report, title, "give each a `name` of its own");
        }
        let fixed = |bind: &&Bind| match bind {
            Bind::Tcp(address) => address.port() != 0,
            Bind::Unix(_) => true,
        };
        if let Some(bind) = listener.bind.as_ref().filter(fixed)
            && let Some(other) = listeners.iter().find(|other| other.bind.as_ref() == Some(bind))
        {
            let title = format!("`{}` and `{}` both bind {bind}", other.name, listener.name);
            listener.head.error(reader.report, title, "give one of them another address");
        }
        listeners.push(listener);
    }
    listeners
}

/// Returns the tables of `[[key]]`; a value that is no list is a mistake.
pub(super) fn tables<'a>(root: &Fields<'a>, key: &str, report: &Diagnostics) -> Vec<&'a Node> {
    use crate::syntax::Kind;
    match root.take_entry(key).map(|entry| (entry, &entry.value.kind)) {
        None => Vec::new(),
        Some((_, Kind::Array(items))) => items.iter().collect(),
        Some((entry, Kind::Boolean(_) | Kind::Float(_) | Kind::Integer(_) | Kind::String(_) | Kind::Table(_))) => {
            let place = Position::new(&entry.value.source, entry.key_span.clone());
            place.error(report, format!("`{key}` is a list of tables"), format!("write `[[{key}]]` with two brackets"));
            Vec::new()
        }
    }
}

fn read_one(node: &Node, known: &KnownClients, reader: &Reader<'_>) -> ReadListener {
    let report = reader.report;
    let fields = Fields::new(node, "[[listener]]", report);
    let name = fields.opt::<SpannedText>("name");
    if let Some(name) = &name {
        name.judge_name(report);
    }
    let mode = choice(&fields, "mode", &MODES.map(|mode| (mode.word, mode))).unwrap_or(mode::DEFAULT);
    let bind = bind_anywhere(&fields, reader);
    let names = names(&fields);
    let tls_node = fields.take("tls");
    let is_relayed = fields.take("proxy_protocol").is_some();
    let (what, bind_read) = ("[[listener]]", bind.as_ref());
    let around = TlsReadContext { what, names: &names, bind: bind_read, is_relayed, h2: mode.offers_h2, reader };
    let tls = tls_node.and_then(|node| server_tls(node, &around)).unwrap_or_default();
    let plaintext = choice(&fields, "plaintext", &[("allowed", ())]).is_some();
    if let (Some(Bind::Tcp(bind)), None, false) = (&bind, tls_node, plaintext)
        && !bind.ip().to_canonical().is_loopback()
    {
        let help =
            "add `tls = { cert = \"…\", key = \"…\" }`, or `plaintext = \"allowed\"` if something in front encrypts";
        Position::head(node).error(report, format!("{bind} can be reached from elsewhere, and has no TLS"), help);
    }
    let proxies = networks(&fields, "proxy_protocol");
    if let (Some(Bind::Unix(_)), false, Some(node)) = (&bind, proxies.is_empty(), fields.take("proxy_protocol")) {
        let help = "who comes over a Unix socket has no address; remove it";
        Position::of(node).error(report, "`proxy_protocol` is for TCP listeners", help);
    }
    let mut who = fields.opt::<PermittedClients>("clients");
    if let (false, Some(node)) = (mode.identifies, fields.take("clients")) {
        let title = format!("a {} listener asks nobody who they are", mode.word);
        Position::of(node).error(report, title, "remove `clients`");
    }
    if !mode.identifies {
        who = Some(PermittedClients::Anyone(Position::head(node)));
    }
    let asked = fields.node().as_table().is_some_and(|table| table.find("clients").is_some());
    let (access, listed) = match who {
        None => {
            if !asked && known.clients.all.is_empty() {
                let help = "add `[client.NAME]` (see `countersign key new`), or `clients = \"anyone\"` here";
                Position::head(node).error(report, "this listener lets nobody in: the file has no clients", help);
            }
            (ListenerAccess::Identified, Vec::new())
        }
        Some(PermittedClients::Anyone(_)) => (ListenerAccess::Anyone, Vec::new()),
        Some(PermittedClients::Listed(words)) => (ListenerAccess::Listed(known.listed(&words, report)), words),
    };
    let names = names.into_iter().map(|name| name.text).collect();
    let mode_unread = mode::is_unread(&fields);
    let read = (mode.read)(ModeKeys { fields: &fields, node, names, reader });
    fields.finish();
    let fallback = || bind.as_ref().map_or("listener".to_owned(), ToString::to_string);
    let name = name.map_or_else(fallback, |name| name.text);
    let believed = format!("{} {} {:?} {proxies:?}", mode.word, tls.config.is_some(), tls.client_ca);
    let footing = sha256(believed.as_bytes());
    let ReadTls { config, internal, asks_certificates, .. } = tls;
    let head = Position::head(node);
    ReadListener {
        name: name.into(),
        head,
        bind,
        tls: config,
        internal,
        asks_certificates,
        mode: read,
        mode_unread,
        proxies,
        access,
        listed,
        footing,
    }
}

/// The `bind` of a listener: an address and a port, or a Unix socket.
fn bind_anywhere(fields: &Fields<'_>, reader: &Reader<'_>) -> Option<Bind> {
    let word = fields.req::<SpannedText>("bind", "\"127.0.0.1:8443\"")?;
    match word.text.strip_prefix("unix:") {
        Some(path) => unix_path(&word, path, reader).map(Bind::Unix),
        None => address(&word, fields.report()).map(Bind::Tcp),
    }
}

/// The `bind` of a table: an address and a port.
pub(super) fn bind(fields: &Fields<'_>, example: &str) -> Option<SocketAddr> {
    address(&fields.req::<SpannedText>("bind", example)?, fields.report())
}

fn address(word: &SpannedText, report: &Diagnostics) -> Option<SocketAddr> {
    let read = word.text.parse().ok();
    if read.is_none() {
        let help = match word.text.as_str() {
            text if text.starts_with("unix:") => "only a [[listener]] can be a Unix socket".to_owned(),
            text if text.starts_with("localhost:") => format!("write `{}`", text.replacen("localhost", "127.0.0.1", 1)),
            text if text.starts_with(':') => format!("write `127.0.0.1{text}`, `0.0.0.0{text}` or `[::]{text}`"),
            text if text.starts_with('/') => format!("write `unix:{text}`"),
            _ => "write an IP address and a port, as in `127.0.0.1:8443` or `[::]:8443`".to_owned(),
        };
        word.place.error(report, format!("`{}` is not an address to bind", word.text), help);
    }
    read
}

/// `min_version`: whether TLS 1.2 is refused.
pub(super) fn only_tls13(fields: &Fields<'_>) -> bool {
    choice(fields, "min_version", &[("1.2", false), ("1.3", true)]).unwrap_or(false)
}

/// TLS as it was read.
#[derive(Default)]
pub(super) struct ReadTls {
    pub(super) config: Option<Arc<ServerConfig>>,
    pub(super) internal: Option<Arc<Internal>>,
    asks_certificates: bool,
    /// Digest of the CAs of clients' certificates, and whether one is required.
    client_ca: Option<([u8; 32], bool)>,
}

/// Context in which the `tls` of a listener is read.
pub(super) struct TlsReadContext<'a> {
    /// Name of the section in messages, such as `[[listener]]`.
    pub(super) what: &'a str,
    pub(super) names: &'a [SpannedText],
    pub(super) bind: Option<&'a Bind>,
    /// True if clients call a balancer at another address.
    pub(super) is_relayed: bool,
    pub(super) h2: bool,
    pub(super) reader: &'a Reader<'a>,
}

/// Reads `tls` of what listens.
pub(super) fn server_tls(node: &Node, around: &TlsReadContext<'_>) -> Option<ReadTls> {
    let TlsReadContext { what, names, bind, is_relayed, h2, reader } = *around;
    if let Some(word) = node.as_str() {
        if word != "internal" {
            let help = "write `{ cert = \"…\", key = \"…\" }`, or `\"internal\"`: a certificate of our own CA";
            Position::of(node).error(reader.report, format!("`tls` cannot be `{word}`"), help);
            return None;
        }
        let mut names: Vec<String> = names.iter().map(|name| name.text.clone()).collect();
        if let Some(Bind::Tcp(bind)) = bind
            && !bind.ip().is_unspecified()
        {
            names.push(bind.ip().to_string());
        }
        let internal = Internal::new(names);
        let certificate = Certificate::Internal(internal.clone());
        let wish = ServerTls { certificate, client_ca: None, only_tls13: false, h2 };
        let config = made(wish, &TlsPlaces { node, cert: None, client_ca: None }, reader)?;
        return Some(ReadTls { config: Some(config), internal: Some(internal), ..ReadTls::default() });
    }
    let fields = Fields::new(node, format!("tls of {what}"), reader.report);
    let only_tls13 = only_tls13(&fields);
    let identity = file_identity(&fields, &SERVER, None, reader);
    let cert = fields
        .take("cert")
        .and_then(|node| Some(SpannedText { text: node.as_str()?.to_owned(), place: Position::of(node) }));
    let ca_node = fields.take("client_ca");
    let client_ca = ca_node.map(|node| client_ca(node, reader));
    let required = choice(&fields, "client_auth", &[("required", true), ("optional", false)]);
    if required.is_some() && ca_node.is_none() {
        fields.missing("client_ca", "\"certs/clients-ca.crt\"");
    }
    fields.finish();
    if let Some((identity, _)) = &identity {
        judge_names(cert.as_ref(), identity, names, reader.report);
        if let (Some(Bind::Tcp(bind)), [], Some(word), false) = (bind, names, &cert, is_relayed) {
            judge_address(word, identity, bind.ip().to_canonical(), reader.report);
        }
    }
    let mut read = ReadTls { asks_certificates: ca_node.is_some(), ..ReadTls::default() };
    let pem = match client_ca {
        Some(Some(pem)) => Some(pem),
        Some(None) => return Some(read),
        None => None,
    };
    if let Some((word, pem)) = &pem
        && let Err(error) = tls::certificates(pem)
    {
        let title = format!("`{}`: {error}", word.text);
        let help = pem_help(pem, &word.text, "x509", "it must hold the CAs of the clients' certificates, as PEM");
        word.place.error(reader.report, title, help);
        return Some(read);
    }
    let client_ca = pem.as_ref().map(|(_, pem)| ClientCa { pem, required: required.unwrap_or(true) });
    read.client_ca = client_ca.as_ref().map(|ca| (sha256(ca.pem), ca.required));
    if let Some((identity, _)) = identity {
        let wish = ServerTls { certificate: Certificate::Own(identity), client_ca, only_tls13, h2 };
        let places = TlsPlaces { node, cert: cert.as_ref(), client_ca: pem.as_ref().map(|(word, _)| word) };
        read.config = made(wish, &places, reader);
    }
    Some(read)
}

/// Reads the CAs of clients' certificates, as PEM: a file, or the trust domain of a Workload API.
fn client_ca(node: &Node, reader: &Reader<'_>) -> Option<(SpannedText, Vec<u8>)> {
    if node.as_table().is_none() {
        let word = SpannedText::from_node(node, reader.report)?;
        let pem = reader.ca_file(&word)?;
        return Some((word, pem));
    }
    let fields = Fields::new(node, "`client_ca`", reader.report);
    let source = fields.req::<SpannedText>("source", "\"workload\"");
    let svid = source.and_then(|source| SvidReference::read(node, &source, &fields, reader));
    fields.finish();
    svid?.bundle(reader)
}

/// Warns of names under which clients would refuse the certificate.
fn judge_names(cert: Option<&SpannedText>, identity: &Identity, names: &[SpannedText], report: &Diagnostics) {
    let Some(own) = identity.chain.first() else { return };
    for name in names.iter().filter(|name| tls::is_for_host(own, &name.text) == Some(false)) {
        let known = tls::paper(own).map(|paper| paper.names).unwrap_or_default();
        let known = if known.is_empty() { "no name at all".to_owned() } else { known.join(", ") };
        let file = cert.map_or_else(String::new, |cert| format!(" `{}`", cert.text));
        let title = format!("the certificate{file} is not for `{}`, but for {known}", name.text);
        let help = "clients will refuse it: order a certificate with this name, or take the name out";
        name.place.warning(report, title, help);
    }
}

/// Warns of an address at which no client can accept the certificate: it is for other addresses alone. One with host names
/// is for those who know the listener by them.
fn judge_address(cert: &SpannedText, identity: &Identity, bind: IpAddr, report: &Diagnostics) {
    let Some(own) = identity.chain.first().filter(|_| !bind.is_unspecified() && !bind.is_loopback()) else { return };
    let known = tls::paper(own).map(|paper| paper.names).unwrap_or_default();
    let has_hosts = known.iter().any(|name| name.parse::<IpAddr>().is_err());
    if !known.is_empty() && !has_hosts && tls::is_for_host(own, &bind.to_string()) == Some(false) {
        let title = format!(
            "the certificate `{}` is not for {bind}, where this listens, but for {}",
            cert.text,
            known.join(", ")
        );
        let help = "clients that call this address will refuse it: order a certificate with it, or with a host name";
        cert.place.warning(report, title, help);
    }
}

/// The places that mistakes in the TLS settings of a listener are reported at.
struct TlsPlaces<'a> {
    node: &'a Node,
    cert: Option<&'a SpannedText>,
    client_ca: Option<&'a SpannedText>,
}

fn made(wish: ServerTls<'_>, places: &TlsPlaces<'_>, reader: &Reader<'_>) -> Option<Arc<ServerConfig>> {
    match tls::server(wish) {
        Ok(config) => Some(config),
        Err(error) if error.is_about_ca() => {
            reader.tls_mistake(&error, places.client_ca, &Position::of(places.node));
            None
        }
        Err(error) => {
            let place = places.cert.map_or_else(|| Position::of(places.node), |cert| cert.place.clone());
            place.error(reader.report, error.to_string(), "use certificates that TLS servers use");
            None
        }
    }
}
