//! `[[listener]]`: where we listen, and who is let in.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use rustls::ServerConfig;

use crate::base::secret::{ExposeSecret, SecretString, sha256};
use crate::syntax::{Diagnostics, Fields, Node};
use crate::tls::mint::MintAuthority;
use crate::tls::{self, Certificate, ClientCa, Identity, Internal, ServerTls};

use super::client::{KnownClients, networks};
use super::credentials::{is_host_name, unix_path};
use super::reader::Reader;
use super::scalars::{Position, SpannedText, Who, choice};
use super::snapshot::{Bind, ListenerAccess};

/// A listener as it was read; what could not be read is absent and was reported.
pub(super) struct ReadListener {
    pub(super) name: Arc<str>,
    pub(super) head: Position,
    pub(super) bind: Option<Bind>,
    pub(super) tls: Option<Arc<ServerConfig>>,
    pub(super) internal: Option<Arc<Internal>>,
    /// True if its TLS asks for clients' certificates.
    pub(super) asks_certificates: bool,
    pub(super) serves: ReadServes,
    pub(super) proxies: Vec<IpNet>,
    pub(super) access: ListenerAccess,
    /// The names in `clients`, in the order of the list in `access`.
    pub(super) listed: Vec<SpannedText>,
    /// Digest of what its connections are believed from their start.
    pub(super) footing: [u8; 32],
}

/// The mode of a listener with its settings, as read.
pub(super) enum ReadServes {
    Callback { names: Vec<String> },
    Forward(Box<ReadForward>),
    Reverse { names: Vec<String> },
}

/// A forward listener as it was read.
pub(super) struct ReadForward {
    /// The CA that it intercepts with.
    pub(super) authority: Option<MintAuthority>,
    /// Position for messages about that CA.
    pub(super) place: Position,
    /// True if a CONNECT to a host without a route is tunnelled.
    pub(super) tunnels: bool,
}

impl ReadListener {
    pub(super) const fn is_callback(&self) -> bool {
        matches!(self.serves, ReadServes::Callback { .. })
    }

    pub(super) const fn is_forward(&self) -> bool {
        matches!(self.serves, ReadServes::Forward(_))
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
    let modes = [("callback", Mode::Callback), ("forward", Mode::Forward), ("reverse", Mode::Reverse)];
    let mode = choice(&fields, "mode", &modes).unwrap_or(Mode::Reverse);
    let bind = bind_anywhere(&fields, reader);
    let names = names(&fields);
    let tls_node = fields.take("tls");
    let around =
        TlsReadContext { what: "[[listener]]", names: &names, bind: bind.as_ref(), h2: mode != Mode::Forward, reader };
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
    let mut who = fields.opt::<Who>("clients");
    if let (Mode::Callback, Some(node)) = (mode, fields.take("clients")) {
        Position::of(node).error(report, "a callback listener asks nobody who they are", "remove `clients`");
    }
    if mode == Mode::Callback {
        who = Some(Who::Anyone(Position::head(node)));
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
        Some(Who::Anyone(_)) => (ListenerAccess::Anyone, Vec::new()),
        Some(Who::Listed(words)) => (ListenerAccess::Listed(known.listed(&words, report)), words),
    };
    let serves = match mode {
        Mode::Callback => {
            reverses(&fields);
            ReadServes::Callback { names }
        }
        Mode::Forward => forwards(&fields, node, reader),
        Mode::Reverse => {
            reverses(&fields);
            ReadServes::Reverse { names }
        }
    };
    fields.finish();
    let fallback = || bind.as_ref().map_or("listener".to_owned(), ToString::to_string);
    let name = name.map_or_else(fallback, |name| name.text);
    let believed = format!("{mode:?} {} {:?} {proxies:?}", tls.config.is_some(), tls.client_ca);
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
        serves,
        proxies,
        access,
        listed,
        footing,
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Mode {
    Callback,
    Forward,
    Reverse,
}

/// Reports keys that only a forward listener may have, in a listener of another mode.
fn reverses(fields: &Fields<'_>) {
    for key in ["intercept", "unmatched"] {
        if let Some(node) = fields.take(key) {
            let help = "add `mode = \"forward\"`, or remove it";
            Position::of(node).error(fields.report(), format!("`{key}` is for forward listeners"), help);
        }
    }
}

/// Reads the settings that only a forward listener has, and reports `names`, which it may not have.
fn forwards(fields: &Fields<'_>, node: &Node, reader: &Reader<'_>) -> ReadServes {
    let report = fields.report();
    if let Some(node) = fields.take("names") {
        let help = "a forward listener answers to the hosts of its routes; remove it";
        Position::of(node).error(report, "`names` is for reverse listeners", help);
    }
    let tunnels = choice(fields, "unmatched", &[("deny", false), ("tunnel", true)]).unwrap_or(false);
    let Some(own) = fields.take("intercept") else {
        fields.missing("intercept", "{ ca_cert = \"certs/ca.crt\", ca_key = \"certs/ca.key\" }");
        return ReadServes::Forward(Box::new(ReadForward { authority: None, place: Position::head(node), tunnels }));
    };
    let table = Fields::new(own, "intercept of [[listener]]", report);
    let cert = table.req::<SpannedText>("ca_cert", "\"certs/ca.crt\"");
    let key = table.req::<SpannedText>("ca_key", "\"certs/ca.key\"");
    table.finish();
    let authority = cert.zip(key).and_then(|(cert, key)| authority(&cert, &key, reader));
    ReadServes::Forward(Box::new(ReadForward { authority, place: Position::of(own), tunnels }))
}

/// The interception CA, from two files.
fn authority(cert: &SpannedText, key: &SpannedText, reader: &Reader<'_>) -> Option<MintAuthority> {
    let (chain, private) = (reader.public_file(cert), reader.private_file(key));
    match MintAuthority::from_pem(&chain?, &private?) {
        Ok(authority) => Some(authority),
        Err(error) => {
            let help = "`countersign ca new` makes a pair that fits";
            cert.place.error(reader.report, format!("`{}` and `{}`: {error}", cert.text, key.text), help);
            None
        }
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

/// The hosts that a listener answers to.
fn names(fields: &Fields<'_>) -> Vec<String> {
    let mut names = Vec::new();
    let words = fields.opt::<Vec<SpannedText>>("names");
    if words.as_ref().is_some_and(Vec::is_empty)
        && let Some(node) = fields.take("names")
    {
        Position::of(node).error(fields.report(), "an empty list is no name", "name some, or leave it out: any host");
    }
    for word in words.unwrap_or_default() {
        let bare = word.text.trim_start_matches('[').trim_end_matches(']');
        if bare.parse::<IpAddr>().is_ok() || is_host_name(&word.text) {
            names.push(bare.to_ascii_lowercase());
        } else {
            let help = "write a host without port or wildcard, as in `\"gateway.corp\"`";
            word.place.error(fields.report(), format!("`{}` is not a host name", word.text), help);
        }
    }
    names
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
    pub(super) names: &'a [String],
    pub(super) bind: Option<&'a Bind>,
    pub(super) h2: bool,
    pub(super) reader: &'a Reader<'a>,
}

/// Reads `tls` of what listens.
pub(super) fn server_tls(node: &Node, around: &TlsReadContext<'_>) -> Option<ReadTls> {
    let TlsReadContext { what, names, bind, h2, reader } = *around;
    if let Some(word) = node.as_str() {
        if word != "internal" {
            let help = "write `{ cert = \"…\", key = \"…\" }`, or `\"internal\"`: a certificate of our own CA";
            Position::of(node).error(reader.report, format!("`tls` cannot be `{word}`"), help);
            return None;
        }
        let mut names = names.to_vec();
        if let Some(Bind::Tcp(bind)) = bind
            && !bind.ip().is_unspecified()
        {
            names.push(bind.ip().to_string());
        }
        let internal = Internal::new(names);
        let certificate = Certificate::Internal(internal.clone());
        let config = made(ServerTls { certificate, client_ca: None, only_tls13: false, h2 }, node, reader)?;
        return Some(ReadTls { config: Some(config), internal: Some(internal), ..ReadTls::default() });
    }
    let fields = Fields::new(node, format!("tls of {what}"), reader.report);
    let only_tls13 = only_tls13(&fields);
    let cert = fields.req::<SpannedText>("cert", "\"certs/server.crt\"");
    let key = fields.req::<SpannedText>("key", "\"certs/server.key\"");
    let client_ca = fields.opt::<SpannedText>("client_ca");
    let required = choice(&fields, "client_auth", &[("required", true), ("optional", false)]);
    if required.is_some() && fields.take("client_ca").is_none() {
        fields.missing("client_ca", "\"certs/clients-ca.crt\"");
    }
    fields.finish();
    let identity = cert.zip(key).and_then(|(cert, key)| identity(&cert, &key, None, reader));
    let mut read = ReadTls { asks_certificates: client_ca.is_some(), ..ReadTls::default() };
    let pem = match &client_ca {
        Some(word) => match reader.public_file(word) {
            Some(pem) => Some((word, pem)),
            None => return Some(read),
        },
        None => None,
    };
    if let Some((word, pem)) = &pem
        && let Err(error) = tls::certificates(pem)
    {
        let title = format!("`{}`: {error}", word.text);
        word.place.error(reader.report, title, "it must hold the CAs of the clients' certificates, as PEM");
        return Some(read);
    }
    let client_ca = pem.as_ref().map(|(_, pem)| ClientCa { pem, required: required.unwrap_or(true) });
    read.client_ca = client_ca.as_ref().map(|ca| (sha256(ca.pem), ca.required));
    if let Some((identity, _)) = identity {
        read.config =
            made(ServerTls { certificate: Certificate::Own(identity), client_ca, only_tls13, h2 }, node, reader);
    }
    Some(read)
}

fn made(wish: ServerTls<'_>, node: &Node, reader: &Reader<'_>) -> Option<Arc<ServerConfig>> {
    match tls::server(wish) {
        Ok(config) => Some(config),
        Err(error) => {
            Position::of(node).error(reader.report, error.to_string(), "use certificates that TLS servers use");
            None
        }
    }
}

/// Reads `client_cert` and `client_key`, which go together: what we show where a server asks for it.
pub(super) fn client_identity(fields: &Fields<'_>, reader: &Reader<'_>) -> Option<(Identity, [u8; 32])> {
    client_identity_with(fields, None, reader)
}

/// The same, where the key may be encrypted under a password.
pub(super) fn client_identity_with(
    fields: &Fields<'_>,
    password: Option<&SecretString>,
    reader: &Reader<'_>,
) -> Option<(Identity, [u8; 32])> {
    match (fields.opt::<SpannedText>("client_cert"), fields.opt::<SpannedText>("client_key")) {
        (Some(cert), Some(key)) => return identity(&cert, &key, password, reader),
        (Some(_), None) => fields.missing("client_key", "\"certs/client.key\""),
        (None, Some(_)) => fields.missing("client_cert", "\"certs/client.crt\""),
        (None, None) => {}
    }
    None
}

/// A certificate chain with its key, from two files; and a digest of both.
fn identity(
    cert: &SpannedText,
    key: &SpannedText,
    password: Option<&SecretString>,
    reader: &Reader<'_>,
) -> Option<(Identity, [u8; 32])> {
    let (chain, private) = (reader.public_file(cert), reader.private_file(key));
    let chain = chain?;
    if let Err(error) = tls::certificates(&chain) {
        let title = format!("`{}`: {error}", cert.text);
        cert.place.error(reader.report, title, "it must hold the certificate and its chain, as PEM");
        return None;
    }
    let private = private?;
    let encrypted = tls::is_encrypted(&private);
    if password.is_some() && !encrypted {
        let title = format!("`{}` is not encrypted, so its password is of no use", key.text);
        key.place.warning(reader.report, title, "leave `client_key_password` out, or put the encrypted key there");
    }
    let secret = password.map(|password| password.expose_secret().as_bytes());
    match Identity::from_encrypted_pem(&chain, &private, secret) {
        Ok(identity) => Some((identity, sha256(&[sha256(&chain), sha256(&private)].concat()))),
        Err(error) => {
            let title = format!("`{}`: {error}", key.text);
            let help = match (encrypted, password) {
                (true, None) => {
                    "a provider may name its password: `client_key_password = { env = \"NAME\" }`; elsewhere the key \
                     must not be encrypted"
                }
                (true, Some(_)) => "see the value that `client_key_password` names",
                (false, _) => "it must hold the key that the certificate was made for, as PEM",
            };
            key.place.error(reader.report, title, help);
            None
        }
    }
}
