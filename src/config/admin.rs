//! `[admin]`: the admin listener, and its access control.
//!
//! On loopback it may be open: every user of the machine is trusted, and the listener itself rejects requests that web
//! pages make. A listener that can be reached from elsewhere always needs TLS and a token.

use std::net::SocketAddr;

use crate::base::secret::{ExposeSecret, sha256};
use crate::syntax::{Fields, Kind, Node};

use super::listener::{self, Bind, TlsReadContext};
use super::reader::Reader;
use super::scalars::{Position, SpannedText, choice};
use super::snapshot::{AdminDoor, AdminToken, PublicEndpoints, Role};

/// A token of fewer characters can be guessed.
const SHORTEST: usize = 16;
const ROLES: [(&str, Role); 2] = [("operate", Role::Operate), ("read", Role::Read)];
const PARTS: [(&str, PublicEndpoints); 3] =
    [("livez", PublicEndpoints::Livez), ("metrics", PublicEndpoints::Metrics), ("readyz", PublicEndpoints::Readyz)];

/// Reads `[admin]`. Mistakes are reported; the returned value is then unusable.
pub(super) fn read_admin(root: &Fields<'_>, reader: &Reader<'_>) -> Option<AdminDoor> {
    let node = root.take("admin")?;
    let fields = Fields::new(node, "[admin]", reader.report);
    let bind = listener::bind(&fields, "\"127.0.0.1:9901\"");
    let anywhere = bind.map(Bind::Tcp);
    let around = TlsReadContext { what: "[admin]", names: &[], bind: anywhere.as_ref(), h2: false, reader };
    let tls_node = fields.take("tls");
    let tls = tls_node.and_then(|node| listener::server_tls(node, &around)).unwrap_or_default();
    let open = open(&fields);
    let token_node = fields.take("token");
    let tokens = token_node.map(|node| tokens(node, reader)).unwrap_or_default();
    if let Some(bind) = bind
        && is_exposed(bind)
    {
        let place = fields.take("bind").map_or_else(|| Position::head(node), Position::of);
        let local = format!("write `127.0.0.1:{}`", bind.port());
        if tls_node.is_none() {
            let help = format!("add `tls = {{ cert = \"…\", key = \"…\" }}`, or {local}");
            place.error(
                reader.report,
                format!("the admin door at {bind} can be reached from elsewhere, and has no TLS"),
                help,
            );
        }
        if token_node.is_none() {
            let help = format!("add `[admin.token.NAME]` with `value = {{ file = \"…\" }}` and a `role`, or {local}");
            let title = format!("the admin door at {bind} can be reached from elsewhere, and asks nobody for a token");
            place.error(reader.report, title, help);
        }
    }
    fields.finish();
    Some(AdminDoor { bind: bind?, tls: tls.config, internal: tls.internal, open, tokens })
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
    let shown = if literal { Position::of(node).blotted() } else { Position::of(node) };
    if literal {
        let help = "write `value = { env = \"NAME\" }` or `{ file = \"path\" }`";
        shown.warning(reader.report, "a token of the admin door stands in the config file", help);
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
