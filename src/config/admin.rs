//! `[admin]`: the admin listener, and its access control.
//!
//! On loopback it may be open: every user of the machine is trusted, and the listener itself rejects requests that web
//! pages make. A listener that can be reached from elsewhere always needs TLS and a token.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ServerConfig;

use crate::base::secret::{ExposeSecret, sha256};
use crate::syntax::{Fields, Kind, Node};
use crate::tls::Internal;

use super::listener::{self, Bind, ReadListener, TlsReadContext};
use super::reader::Reader;
use super::schema::{MAY, MUST, SchemaSection, SchemaShape};
use super::spanned_text::{Position, SpannedText, choice};

/// The admin listener, from the `[admin]` section.
#[derive(Clone, Debug)]
pub struct AdminListenerConfig {
    /// Address to bind.
    pub bind: AdminBind,
    /// TLS settings; `None` means plain HTTP.
    pub tls: Option<Arc<ServerConfig>>,
    /// With `tls = "internal"`: where its certificate has to be put before anybody can connect.
    pub internal: Option<Arc<Internal>>,
    /// Endpoints that need no token.
    pub open: Vec<PublicEndpoints>,
    /// Tokens that are accepted; an empty list, possible on loopback only, admits anyone.
    pub tokens: Vec<AdminToken>,
}

/// An address for the admin listener: on loopback, or checked to have TLS and at least one token.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct AdminBind(SocketAddr);

impl AdminBind {
    /// Returns `None` for an address that other machines can reach if TLS or tokens are missing.
    pub fn new(address: SocketAddr, tls: Option<&Arc<ServerConfig>>, tokens: &[AdminToken]) -> Option<Self> {
        (!is_exposed(address) || (tls.is_some() && !tokens.is_empty())).then_some(Self(address))
    }

    /// The address as a socket takes it.
    pub const fn address(self) -> SocketAddr {
        self.0
    }
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

pub(super) const KEYS: SchemaSection = (
    "admin",
    &[
        ("bind", SchemaShape::Address, MUST, "IP address and port; off loopback with TLS and a token only"),
        ("open", SchemaShape::Choices(&["livez", "metrics", "readyz"]), MAY, "what needs no token; default: nothing"),
        ("tls", SchemaShape::InternalOr("listener_tls"), MAY, "without it: plain HTTP"),
        ("token", SchemaShape::Named("admin_token"), MAY, "who may come in; none: everybody on this machine"),
    ],
);

pub(super) const TOKEN_KEYS: SchemaSection = (
    "admin_token",
    &[
        ("role", SchemaShape::Choice(&["operate", "read"]), MUST, "read looks; operate may change things, too"),
        ("value", SchemaShape::Source, MUST, "what is shown as a bearer token"),
    ],
);

/// A token of fewer characters can be guessed.
const SHORTEST: usize = 16;
const ROLES: [(&str, Role); 2] = [("operate", Role::Operate), ("read", Role::Read)];
const PARTS: [(&str, PublicEndpoints); 3] =
    [("livez", PublicEndpoints::Livez), ("metrics", PublicEndpoints::Metrics), ("readyz", PublicEndpoints::Readyz)];

/// Reads `[admin]`. Mistakes are reported; the returned value is then unusable.
pub(super) fn read(root: &Fields<'_>, listeners: &[ReadListener], reader: &Reader<'_>) -> Option<AdminListenerConfig> {
    let node = root.take("admin")?;
    let fields = Fields::new(node, "[admin]", reader.report);
    let bind = listener::bind(&fields, "\"127.0.0.1:9901\"");
    let anywhere = bind.map(Bind::Tcp);
    let around =
        TlsReadContext { what: "[admin]", names: &[], bind: anywhere.as_ref(), is_relayed: false, h2: false, reader };
    let tls_node = fields.take("tls");
    let tls = tls_node.and_then(|node| listener::server_tls(node, &around)).unwrap_or_default();
    let open = open(&fields);
    let token_node = fields.take("token");
    let tokens = token_node.map(|node| tokens(node, reader)).unwrap_or_default();
    if let Some(bind) = bind
        && is_exposed(bind)
    {
        let position = fields.take("bind").map_or_else(|| Position::head(node), Position::of);
        let local = format!("write `127.0.0.1:{}`", bind.port());
        if tls_node.is_none() {
            let help = format!("add `tls = {{ cert = \"…\", key = \"…\" }}`, or {local}");
            position.error(
                reader.report,
                format!("the admin listener at {bind} can be reached from elsewhere, and has no TLS"),
                help,
            );
        }
        if token_node.is_none() {
            let help = format!("add `[admin.token.NAME]` with `value = {{ file = \"…\" }}` and a `role`, or {local}");
            let title =
                format!("the admin listener at {bind} can be reached from elsewhere, and asks nobody for a token");
            position.error(reader.report, title, help);
        }
    }
    fields.finish();
    if let Some(bind) = bind.filter(|bind| bind.port() != 0)
        && let Some(listener) = listeners.iter().find(|listener| listener.bind == Some(Bind::Tcp(bind)))
    {
        let title = format!("`{}` and [admin] both bind {bind}", listener.name);
        listener.head.error(reader.report, title, "move one of them");
    }
    let bind = AdminBind::new(bind?, tls.config.as_ref(), &tokens)?;
    Some(AdminListenerConfig { bind, tls: tls.config, internal: tls.internal, open, tokens })
}

/// Returns whether an address can be reached from other machines.
fn is_exposed(bind: SocketAddr) -> bool {
    !bind.ip().to_canonical().is_loopback()
}

/// Reads `open`: the endpoints that need no token.
fn open(fields: &Fields<'_>) -> Vec<PublicEndpoints> {
    let mut open = Vec::new();
    for word in fields.opt::<Vec<SpannedText>>("open").unwrap_or_default() {
        if let Some(at) = word.find("part", PARTS.iter().map(|(name, _)| *name), fields.report())
            && let Some((_, part)) = PARTS.get(at)
            && !open.contains(part)
        {
            open.push(*part);
        }
    }
    open
}

/// Reads the `[admin.token.NAME]` tables; two tokens with one value are a mistake.
fn tokens(node: &Node, reader: &Reader<'_>) -> Vec<AdminToken> {
    let table = Fields::new(node, "[admin.token]", reader.report);
    let mut tokens: Vec<AdminToken> = Vec::new();
    let entries = table.rest();
    if entries.is_empty() && matches!(node.kind, Kind::Table(_)) {
        table.missing("NAME", "{ value = { file = \"…\" }, role = \"read\" }");
    }
    for entry in entries {
        let name = SpannedText { text: entry.key.clone(), place: Position::new(&node.source, entry.key_span.clone()) };
        name.judge_name(reader.report);
        let fields = Fields::new(&entry.value, format!("[admin.token.{}]", entry.key), reader.report);
        let role = choice(&fields, "role", &ROLES);
        if fields.take("role").is_none() {
            fields.missing("role", "\"read\"");
        }
        let hash = match fields.take("value") {
            Some(value) => hash(value, reader),
            None => {
                fields.missing("value", "{ file = \"…\" }");
                None
            }
        };
        fields.finish();
        let (Some(role), Some(sha256)) = (role, hash) else { continue };
        if let Some(other) = tokens.iter().find(|other| other.sha256 == sha256) {
            let title = format!("[admin.token.{}] and [admin.token.{}] have one value", other.name, name.text);
            name.place.error(reader.report, title, "give each its own, so that one can be told from the other");
        }
        tokens.push(AdminToken { name: name.text.as_str().into(), sha256, role });
    }
    table.finish();
    tokens
}

/// The digest of a token: the token itself is not kept.
fn hash(node: &Node, reader: &Reader<'_>) -> Option<[u8; 32]> {
    let (value, literal) = reader.value(node, reader.report)?;
    let shown = if literal { Position::of(node).redacted() } else { Position::of(node) };
    if literal {
        let help = "write `value = { env = \"NAME\" }` or `{ file = \"path\" }`";
        shown.warning(reader.report, "a token of the admin listener stands in the config file", help);
    }
    let text = value.expose_secret();
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        let help = "a token is letters, digits and signs: `openssl rand -hex 32` makes one";
        shown.error(reader.report, "this token cannot stand in a header field", help);
        return None;
    }
    if text.len() < SHORTEST {
        let help = format!("use {SHORTEST} characters or more: `openssl rand -hex 32` makes one");
        shown.warning(reader.report, "this token can be guessed", help);
    }
    Some(sha256(text.as_bytes()))
}
