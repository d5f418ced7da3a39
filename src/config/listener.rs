//! `[[listener]]`: where we listen, and who is let in.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ServerConfig;

use crate::syntax::{Fields, Node, Report};
use crate::tls::{self, Identity};

use super::client::Known;
use super::reader::Reader;
use super::snapshot::Access;
use super::words::{Place, Who, Word, choice, later};

/// A listener as it was read; what could not be read is absent and was reported.
pub(super) struct ReadListener {
    pub(super) name: Arc<str>,
    pub(super) head: Place,
    pub(super) bind: Option<SocketAddr>,
    pub(super) tls: Option<Arc<ServerConfig>>,
    pub(super) access: Access,
    /// The names in `clients`, in the order of the list in `access`.
    pub(super) listed: Vec<Word>,
}

/// Reads all listeners.
pub(super) fn read(root: &Fields<'_>, known: &Known, reader: &Reader<'_>) -> Vec<ReadListener> {
    let mut listeners: Vec<ReadListener> = Vec::new();
    for node in tables(root, "listener", reader.report) {
        let listener = read_one(node, known, reader);
        if listeners.iter().any(|other| other.name == listener.name) {
            let title = format!("two listeners are called `{}`", listener.name);
            listener.head.error(reader.report, title, "give each a `name` of its own");
        }
        if let Some(bind) = listener.bind.filter(|bind| bind.port() != 0)
            && let Some(other) = listeners.iter().find(|other| other.bind == Some(bind))
        {
            let title = format!("`{}` and `{}` both bind {bind}", other.name, listener.name);
            listener.head.error(reader.report, title, "give one of them another port");
        }
        listeners.push(listener);
    }
    listeners
}

/// The tables of `[[key]]`.
pub(super) fn tables<'a>(root: &Fields<'a>, key: &str, report: &Report) -> Vec<&'a Node> {
    use crate::syntax::Kind;
    match root.take_entry(key).map(|entry| (entry, &entry.value.kind)) {
        None => Vec::new(),
        Some((_, Kind::Array(items))) => items.iter().collect(),
        Some((entry, Kind::Boolean(_) | Kind::Float(_) | Kind::Integer(_) | Kind::String(_) | Kind::Table(_))) => {
            let place = Place::new(root.source(), entry.key_span.clone());
            place.error(report, format!("`{key}` is a list of tables"), format!("write `[[{key}]]` with two brackets"));
            Vec::new()
        }
    }
}

fn read_one(node: &Node, known: &Known, reader: &Reader<'_>) -> ReadListener {
    let report = reader.report;
    let fields = Fields::new(node, "[[listener]]", report);
    let name = fields.opt::<Word>("name");
    if let Some(name) = &name {
        name.judge_name(report);
    }
    choice(&fields, "mode", &[("reverse", ())]);
    let bind = bind(&fields, "\"127.0.0.1:8443\"");
    let tls_node = fields.take("tls");
    let tls = tls_node.and_then(|node| server_tls(node, reader));
    let plaintext = choice(&fields, "plaintext", &[("allowed", ())]).is_some();
    if let (Some(bind), None, false) = (bind, tls_node, plaintext)
        && !bind.ip().to_canonical().is_loopback()
    {
        let help =
            "add `tls = { cert = \"…\", key = \"…\" }`, or `plaintext = \"allowed\"` if something in front encrypts";
        Place::head(node).error(report, format!("{bind} can be reached from elsewhere, and has no TLS"), help);
    }
    let who = fields.opt::<Who>("clients");
    let asked = fields.node().as_table().is_some_and(|table| table.find("clients").is_some());
    let (access, listed) = match who {
        None => {
            if !asked && known.clients.all.is_empty() {
                let help = "add `[client.NAME]` (see `countersign key new`), or `clients = \"anyone\"` here";
                Place::head(node).error(report, "this listener lets nobody in: the file has no clients", help);
            }
            (Access::Identified, Vec::new())
        }
        Some(Who::Anyone(_)) => (Access::Anyone, Vec::new()),
        Some(Who::Listed(words)) => (Access::Listed(known.listed(&words, report)), words),
    };
    later(&fields, &["names", "proxy_protocol", "intercept", "unmatched"]);
    fields.finish();
    let name = name.map_or_else(|| bind.map_or("listener".to_owned(), |bind| bind.to_string()), |name| name.text);
    ReadListener { name: name.into(), head: Place::head(node), bind, tls, access, listed }
}

/// The `bind` of a table: an address and a port.
pub(super) fn bind(fields: &Fields<'_>, example: &str) -> Option<SocketAddr> {
    let word = fields.req::<Word>("bind", example)?;
    let read = word.text.parse().ok();
    if read.is_none() {
        let help = match word.text.as_str() {
            text if text.starts_with("unix:") => "this version does not have Unix sockets yet".to_owned(),
            text if text.starts_with("localhost:") => format!("write `{}`", text.replacen("localhost", "127.0.0.1", 1)),
            text if text.starts_with(':') => format!("write `127.0.0.1{text}`, `0.0.0.0{text}` or `[::]{text}`"),
            _ => "write an IP address and a port, as in `127.0.0.1:8443` or `[::]:8443`".to_owned(),
        };
        word.place.error(fields.report(), format!("`{}` is not an address to bind", word.text), help);
    }
    read
}

/// `min_version`: whether TLS 1.2 is refused.
pub(super) fn only_tls13(fields: &Fields<'_>) -> bool {
    choice(fields, "min_version", &[("1.2", false), ("1.3", true)]).unwrap_or(false)
}

fn server_tls(node: &Node, reader: &Reader<'_>) -> Option<Arc<ServerConfig>> {
    if node.as_str() == Some("internal") {
        let help = "this version has no CA of its own yet: write `{ cert = \"…\", key = \"…\" }`";
        Place::of(node).error(reader.report, "`tls` cannot be `internal`", help);
        return None;
    }
    let fields = Fields::new(node, "tls of [[listener]]", reader.report);
    let only_tls13 = only_tls13(&fields);
    let cert = fields.req::<Word>("cert", "\"certs/server.crt\"");
    let key = fields.req::<Word>("key", "\"certs/server.key\"");
    later(&fields, &["client_ca", "client_auth"]);
    fields.finish();
    let (identity, _) = identity(&cert?, &key?, reader)?;
    match tls::server(identity, only_tls13) {
        Ok(config) => Some(config),
        Err(error) => {
            Place::of(node).error(reader.report, error, "use a certificate that TLS servers use");
            None
        }
    }
}

/// A certificate chain with its key, from two files; and a digest of both.
pub(super) fn identity(cert: &Word, key: &Word, reader: &Reader<'_>) -> Option<(Identity, [u8; 32])> {
    let (chain, private) = (reader.public_file(cert), reader.private_file(key));
    let chain = chain?;
    if let Err(error) = tls::certificates(&chain) {
        let title = format!("`{}`: {error}", cert.text);
        cert.place.error(reader.report, title, "it must hold the certificate and its chain, as PEM");
        return None;
    }
    let private = private?;
    match Identity::from_pem(&chain, &private) {
        Ok(identity) => {
            let digests = [crate::base::secret::sha256(&chain), crate::base::secret::sha256(&private)].concat();
            Some((identity, crate::base::secret::sha256(&digests)))
        }
        Err(error) => {
            let title = format!("`{}`: {error}", key.text);
            key.place.error(reader.report, title, "it must hold the key that the certificate was made for, as PEM");
            None
        }
    }
}
