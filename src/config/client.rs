//! `[client.NAME]`: the clients that may call.

use std::collections::HashMap;
use std::sync::Arc;

use ipnet::IpNet;

use crate::route::ClientId;
use crate::syntax::{Diagnostics, Fields, FromNode};
use crate::tls::CertName;
use crate::token::consent::{ConsentOwner, UserName};

use super::credentials::{self, DeferredChecks, Issuer, JwtRule};
use super::reader::Reader;
use super::schema::{MAY, SchemaSection, SchemaShape};
use super::spanned_text::{PermittedClients, Position, SpannedText};

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

pub(super) const KEYS: SchemaSection = (
    "client",
    &[
        ("certificate", SchemaShape::Text, MAY, "a SAN URI or DNS name of its certificate, or CN=…"),
        ("consent_group", SchemaShape::Text, MAY, "consents are shared by all clients of this group"),
        ("jwt", SchemaShape::Table("jwt"), MAY, "the signed token that it shows"),
        ("key_sha256", SchemaShape::Texts, MAY, "the SHA-256 of each of its keys; `countersign key new` makes one"),
        ("networks", SchemaShape::Texts, MAY, "where it may call from, as in 10.1.0.0/16"),
        ("networks_only", SchemaShape::Flag, MAY, "its network alone identifies it"),
        ("uids", SchemaShape::Counts, MAY, "users at the other end of a Unix socket"),
        ("users", SchemaShape::Texts, MAY, "the users in whose name it may call; * for all; default: none"),
        ("vars", SchemaShape::Bounds, MAY, "the values that it may name for variables of routes"),
    ],
);

/// The clients of a config, with the positions of their names.
pub(super) struct KnownClients {
    pub(super) clients: Clients,
    pub(super) positions: Vec<Position>,
    pub(super) deferred: DeferredChecks,
}

impl KnownClients {
    pub(super) fn names(&self) -> impl Iterator<Item = &str> + Clone {
        self.clients.all.iter().map(|client| &*client.name)
    }

    /// The clients that a list names; unknown ones are reported.
    pub(super) fn listed(&self, words: &[SpannedText], report: &Diagnostics) -> Vec<ClientId> {
        let mut ids: Vec<ClientId> = Vec::with_capacity(words.len());
        for word in words {
            if let Some(id) = word.find("client", self.names(), report).and_then(|at| u16::try_from(at).ok()) {
                if ids.contains(&ClientId(id)) {
                    word.place.error(report, format!("`{}` is listed twice", word.text), "once is enough");
                } else {
                    ids.push(ClientId(id));
                }
            }
        }
        ids
    }

    /// The clients that `who` names; `None` is anyone.
    pub(super) fn who(&self, who: &PermittedClients, report: &Diagnostics) -> Option<Vec<ClientId>> {
        match who {
            PermittedClients::Anyone(_) => None,
            PermittedClients::Listed(words) => Some(self.listed(words, report)),
        }
    }
}

/// Reads all `[client.NAME]` sections; more than 65536 are a mistake.
pub(super) fn read(root: &Fields<'_>, reader: &Reader<'_>) -> KnownClients {
    let mut known =
        KnownClients { clients: Clients::default(), positions: Vec::new(), deferred: DeferredChecks::default() };
    let Some(node) = root.take("client") else { return known };
    let table = Fields::new(node, "[client]", reader.report);
    for entry in table.rest() {
        let name =
            SpannedText { text: entry.key.clone(), place: Position::new(&entry.value.source, entry.key_span.clone()) };
        name.judge_name(reader.report);
        let Ok(id) = u16::try_from(known.clients.all.len()) else {
            name.place.error(reader.report, "too many clients", "65536 are the most");
            break;
        };
        let fields = Fields::new(&entry.value, format!("[client.{}]", entry.key), reader.report);
        let keys = fields.opt::<Vec<SpannedText>>("key_sha256");
        // A list that cannot be read was reported; it is none the less a list.
        let written = entry.value.as_table().is_some_and(|table| table.find("key_sha256").is_some());
        let has_key = keys.as_ref().map_or(written, |keys| !keys.is_empty());
        for word in keys.unwrap_or_default() {
            match hash(&word.text) {
                Some(hash) => {
                    if known.clients.by_key.insert(hash, ClientId(id)).is_some() {
                        let help = "every key belongs to one client; make another with `countersign key new`";
                        word.place.error(reader.report, "this key is listed already", help);
                    }
                }
                None => {
                    let help = "it is the SHA-256 of the key: 64 hexadecimal digits, never the key itself";
                    // Somebody may have put the key itself here.
                    word.place.redacted().error(reader.report, "not a SHA-256", help);
                }
            }
        }
        let proven =
            credentials::read_credentials(&fields, ClientId(id), &mut known.clients, &mut known.deferred, reader);
        let networks = networks(&fields, "networks");
        let networks_only = fields.or("networks_only", false);
        if networks_only && networks.is_empty() {
            fields.missing("networks", "[\"10.1.0.0/16\"]");
        } else if !has_key && !proven && !networks_only {
            let title = format!("[client.{}] can never be recognised", entry.key);
            let help =
                "give it `key_sha256`, `certificate`, `uids` or `jwt`, or `networks` with `networks_only = true`";
            let keys = ["key_sha256", "certificate", "uids", "jwt", "networks_only"];
            fields.lacks(&keys, entry.key_span.clone(), (title, String::new(), help.to_owned()));
        }
        let vars = bounds(&fields);
        let users = users(&fields);
        let consent_group = fields.opt::<SpannedText>("consent_group").map(|group| {
            group.judge_name(reader.report);
            Arc::from(&*group.text)
        });
        fields.finish();
        known.clients.all.push(ClientConfig {
            name: Arc::from(&*name.text),
            networks,
            networks_only,
            vars,
            users,
            consent_group,
        });
        known.positions.push(name.place);
    }
    table.finish();
    known
}

/// The users in whose name a client may call.
fn users(fields: &Fields<'_>) -> Users {
    let words = fields.opt::<Vec<SpannedText>>("users").unwrap_or_default();
    if words.iter().any(|word| word.text == "*") {
        if let (Some(word), true) = (words.iter().find(|word| word.text != "*"), words.len() > 1) {
            word.place.error(fields.report(), "`*` is every user already", "keep `\"*\"`, or name users");
        }
        return Users::All;
    }
    let mut named = Vec::new();
    for word in words {
        match UserName::parse(&word.text) {
            Ok(user) => named.push(user),
            Err(error) => word.place.error(fields.report(), error.to_string(), "write it as the application says it"),
        }
    }
    Users::Only(named)
}

/// The values that a client may name for variables of routes.
fn bounds(fields: &Fields<'_>) -> Vec<(Arc<str>, Vec<String>)> {
    let Some(node) = fields.take("vars") else { return Vec::new() };
    let table = Fields::new(node, format!("vars of {}", fields.what()), fields.report());
    let mut bounds = Vec::new();
    for entry in table.rest() {
        let position = Position::new(&node.source, entry.key_span.clone());
        SpannedText { text: entry.key.clone(), place: position.clone() }.judge_name(fields.report());
        let Some(values) = Vec::<String>::from_node(&entry.value, fields.report()) else { continue };
        if values.is_empty() {
            let help = "name some values, or leave the variable out: any value";
            position.error(fields.report(), "an empty list permits no value", help);
        }
        bounds.push((Arc::from(&*entry.key), values));
    }
    table.finish();
    bounds
}

/// Reads a list of networks; an empty list or a host address is a mistake.
pub(super) fn networks(fields: &Fields<'_>, key: &str) -> Vec<IpNet> {
    let mut networks = Vec::new();
    let words = fields.opt::<Vec<SpannedText>>(key);
    if words.as_ref().is_some_and(Vec::is_empty)
        && let Some(node) = fields.take(key)
    {
        Position::of(node).error(
            fields.report(),
            "an empty list is no network",
            "name some, or leave it out: anywhere",
        );
    }
    for word in words.unwrap_or_default() {
        match word.text.parse::<IpNet>() {
            Ok(network) if network.trunc() == network => networks.push(network),
            Ok(network) => {
                let help = format!("write `{}`", network.trunc());
                word.place.error(fields.report(), format!("`{network}` names a host, not a network"), help);
            }
            Err(_) => {
                let title = format!("`{}` is not a network", word.text);
                word.place.error(fields.report(), title, "write an address and a prefix length, as in `10.1.0.0/16`");
            }
        }
    }
    networks
}

fn hash(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 {
        return None;
    }
    let mut out = [0; 32];
    for (byte, digits) in out.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let digits = digits.iter().map(|digit| char::from(*digit).to_digit(16)).collect::<Option<Vec<u32>>>()?;
        *byte = digits.iter().try_fold(0_u8, |sum, digit| Some(sum << 4 | u8::try_from(*digit).ok()?))?;
    }
    Some(out)
}
