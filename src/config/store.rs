//! `[store]`: where records outlive a process.

use std::collections::HashSet;
use std::sync::Arc;

use rustls::pki_types::ServerName;

use crate::base::secret::{ExposeSecret, SecretString, sha256};
use crate::key_service::UnwrappedKey;
use crate::store::{KeyRing, RedisSettings, SealingKey, StoreSettings, StoreUrl};
use crate::syntax::{Fields, Kind, Node};
use crate::tls::{self, ClientIdentity, ClientTls};

use super::listener::client_identity;
use super::reader::{Reader, pem_help};
use super::schema::{MAY, SchemaSection, SchemaShape};
use super::service_key;
use super::spanned_text::{Position, SpannedText};
use super::wrapped_key::wrapped_key;

/// Settings of the `[store]` section.
#[derive(Clone, Debug, Default)]
pub struct Storage {
    /// Place of the store, and the settings to reach it.
    pub settings: StoreSettings,
    /// Digest of all that goes into `settings` but the keys, secrets included: equal ones are one store, which a reload keeps
    /// open.
    pub id: [u8; 32],
    /// True if a store that does not outlive the process may keep records that should, such as users' consents.
    pub ephemeral: bool,
    /// Keys that a key service has unwrapped: while this lives, they are not asked for again.
    pub unwrapped: Vec<Arc<UnwrappedKey>>,
}

pub(super) const KEYS: SchemaSection = (
    "store",
    &[
        ("ephemeral", SchemaShape::Flag, MAY, "true: a store in memory may hold users' tokens, and forget them; false"),
        (
            "keys",
            SchemaShape::SourcesOr("wrapped_key"),
            MAY,
            "what records are sealed under: 32 bytes, base64, or wrapped by a key service; the first writes, all read",
        ),
        ("namespace", SchemaShape::Text, MAY, "what every key in Redis begins with; countersign"),
        ("password", SchemaShape::Source, MAY, "for Redis"),
        ("tls", SchemaShape::Table("store_tls"), MAY, "for rediss://"),
        ("url", SchemaShape::Text, MAY, "memory:, file:PATH, redis://HOST:PORT/0 or rediss://HOST:PORT/0; memory:"),
        ("username", SchemaShape::Text, MAY, "the ACL user of Redis"),
    ],
);

pub(super) const TLS_KEYS: SchemaSection = (
    "store_tls",
    &[
        ("ca", SchemaShape::Text, MAY, "path of the only CAs to trust, PEM"),
        ("client_cert", SchemaShape::Text, MAY, "path of our certificate and its chain, PEM"),
        ("client_key", SchemaShape::Text, MAY, "path of its private key, PEM"),
    ],
);

/// Keys of `[store]` that only a store in Redis uses.
const OF_REDIS: [&str; 4] = ["namespace", "password", "tls", "username"];

/// Reads `[store]`. Mistakes are reported; the returned value is then unusable.
pub(super) fn read(root: &Fields<'_>, reader: &Reader<'_>) -> Storage {
    let mut storage = Storage::default();
    let Some(node) = root.take("store") else { return storage };
    let fields = Fields::new(node, "[store]", reader.report);
    let url = match fields.opt::<SpannedText>("url") {
        Some(word) => read_url(&word, reader),
        None if has(&fields, "url") => None,
        None => Some(StoreUrl::Memory),
    };
    let keys = keys(&fields, reader, &mut storage.unwrapped);
    let tls = fields.take("tls");
    // Reading the system's CAs takes its time.
    let wanted = tls.is_some() || matches!(url, Some(StoreUrl::Redis { tls: true, .. }));
    let redis = read_redis(&fields, wanted.then(|| transport(tls, reader)).flatten(), reader);
    storage.ephemeral = fields.or("ephemeral", false);
    if let Some(url) = url {
        if !matches!(url, StoreUrl::Redis { .. }) {
            refuse(&fields, &OF_REDIS, "only a store in Redis has a use for it");
        }
        let by = redis.tls.as_ref().map(|(_, digest)| *digest);
        if let Some(settings) = settings(url, keys, redis, &fields, reader) {
            storage.id = digest(&settings, by);
            storage.settings = settings;
        }
    }
    fields.finish();
    storage
}

fn read_url(word: &SpannedText, reader: &Reader<'_>) -> Option<StoreUrl> {
    match StoreUrl::parse(&word.text) {
        Ok(url) => Some(url),
        Err(help) => {
            // The URL may contain a password, which must not be shown.
            word.place.without_credentials().error(reader.report, "this is not the URL of a store", help);
            None
        }
    }
}

/// Result of reading the `keys` of `[store]`.
enum KeySource {
    Absent,
    Mistaken,
    Read(KeyRing),
}

fn keys(fields: &Fields<'_>, reader: &Reader<'_>, unwrapped: &mut Vec<Arc<UnwrappedKey>>) -> KeySource {
    let Some(node) = fields.take("keys") else { return KeySource::Absent };
    let Kind::Array(items) = &node.kind else {
        let help = "write `keys = [{ file = \"store.key\" }]`; the first writes, all read";
        Position::of(node).redacted().error(
            reader.report,
            format!("expected an array, found {}", node.kind_name()),
            help,
        );
        return KeySource::Mistaken;
    };
    let (mut ring, mut seen) = (Vec::new(), HashSet::new());
    for item in items {
        let Some(key) = key(item, reader, unwrapped) else { continue };
        if !seen.insert(key.id()) {
            Position::of(item).redacted().error(reader.report, "this key is in the list already", "remove one of them");
        }
        ring.push(key);
    }
    if items.is_empty() {
        Position::of(node).error(
            reader.report,
            "an empty list of keys seals nothing",
            "make a key: `openssl rand -base64 32`",
        );
    }
    if ring.len() < items.len() {
        return KeySource::Mistaken;
    }
    let mut ring = ring.into_iter();
    ring.next().map_or(KeySource::Mistaken, |first| KeySource::Read(KeyRing::new(first, ring.collect())))
}

fn key(item: &Node, reader: &Reader<'_>, unwrapped: &mut Vec<Arc<UnwrappedKey>>) -> Option<SealingKey> {
    if service_key::is_named(item) {
        let bytes = wrapped_key(item, reader)?;
        let key = SealingKey::from_bytes(&bytes).inspect_err(|error| {
            let help = "wrap 32 random bytes; AWS KMS makes them with `--key-spec AES_256`";
            Position::of(item).error(reader.report, format!("what is wrapped is not a key of a store: {error}"), help);
        });
        unwrapped.push(bytes);
        return key.ok();
    }
    let (text, literal) = reader.value(item, reader.report)?;
    // It may be the key itself, so it is shown in no message.
    let shown = if literal { Position::of(item).redacted() } else { Position::of(item) };
    if literal {
        let help = "write `{ env = \"NAME\" }` or `{ file = \"path\" }`";
        shown.warning(reader.report, "a key of the store stands in the config file", help);
    }
    match SealingKey::from_base64(&text) {
        Ok(key) => Some(key),
        Err(error) => {
            let help = "a key is 32 random bytes in base64: `openssl rand -base64 32` makes one";
            shown.error(reader.report, format!("this is not a key of a store: {error}"), help);
            None
        }
    }
}

/// Settings of a Redis store besides its URL.
struct ReadRedis {
    username: Option<String>,
    password: Option<SecretString>,
    namespace: String,
    tls: Option<StoreTransport>,
}

/// TLS settings, with a digest of all that went into them.
type StoreTransport = (Arc<rustls::ClientConfig>, [u8; 32]);

fn read_redis(fields: &Fields<'_>, tls: Option<StoreTransport>, reader: &Reader<'_>) -> ReadRedis {
    let username = fields.opt::<String>("username");
    let password = fields.take("password").and_then(|node| {
        let (password, literal) = reader.value(node, reader.report)?;
        if literal {
            let help = "write `password = { env = \"NAME\" }` or `{ file = \"path\" }`";
            let title = "the store's password stands in the config file";
            Position::of(node).redacted().warning(reader.report, title, help);
        }
        Some(password)
    });
    if username.is_some() && !has(fields, "password") {
        fields.missing("password", "{ env = \"REDIS_PASSWORD\" }");
    }
    let namespace = match fields.opt::<SpannedText>("namespace") {
        Some(word) => {
            word.judge_name(reader.report);
            word.text
        }
        None => "countersign".to_owned(),
    };
    ReadRedis { username, password, namespace, tls }
}

/// TLS as for any other server, but that Redis has no ALPN.
fn transport(node: Option<&Node>, reader: &Reader<'_>) -> Option<StoreTransport> {
    let (mut client_tls, mut inputs) = (ClientTls::default(), Vec::new());
    let ca;
    let mut word = None;
    if let Some(node) = node {
        let errors = reader.report.errors();
        let fields = Fields::new(node, "tls of [store]", reader.report);
        word = fields.opt::<SpannedText>("ca");
        ca = word.as_ref().and_then(|word| reader.ca_file(word));
        if let (Some(word), Some(pem)) = (&word, &ca) {
            inputs.extend(sha256(pem));
            if let Err(error) = tls::certificates(pem) {
                let help = pem_help(pem, &word.text, "x509", "it must hold the CA, as PEM");
                word.place.error(reader.report, format!("`{}`: {error}", word.text), help);
            }
        }
        client_tls.ca = ca.as_deref();
        if let Some((identity, digest)) = client_identity(&fields, reader) {
            inputs.extend(digest);
            client_tls.identity = Some(ClientIdentity::Local(identity));
        }
        fields.finish();
        if reader.report.errors() > errors {
            return None;
        }
    }
    // The same inputs as a provider's, so the digest says whose they are.
    inputs.extend(b"store");
    let digest = sha256(&inputs);
    let made = reader.client_tls(digest, || {
        let mut config = (*tls::client(client_tls)?).clone();
        config.alpn_protocols.clear();
        Ok(Arc::new(config))
    });
    match (made, node) {
        (Ok(config), _) => Some((config, digest)),
        (Err(error), Some(node)) => {
            reader.tls_mistake(&error, word.as_ref(), &Position::of(node));
            None
        }
        (Err(_), None) => None,
    }
}

fn settings(
    url: StoreUrl,
    keys: KeySource,
    redis: ReadRedis,
    fields: &Fields<'_>,
    reader: &Reader<'_>,
) -> Option<StoreSettings> {
    let ring = match (&url, keys) {
        (_, KeySource::Mistaken) => return None,
        (StoreUrl::Memory, KeySource::Absent) => return Some(StoreSettings::Memory),
        (StoreUrl::Memory, KeySource::Read(_)) => {
            if let Some(node) = fields.take("keys") {
                let title = "a store in memory has no use for `keys`";
                Position::of(node).warning(reader.report, title, "remove them, or name a file or a Redis as `url`");
            }
            return Some(StoreSettings::Memory);
        }
        (StoreUrl::File(_) | StoreUrl::Redis { .. }, KeySource::Absent) => {
            fields.missing("keys", "[{ file = \"store.key\" }]");
            return None;
        }
        (StoreUrl::File(_) | StoreUrl::Redis { .. }, KeySource::Read(ring)) => Arc::new(ring),
    };
    match url {
        StoreUrl::Memory => Some(StoreSettings::Memory),
        StoreUrl::File(path) => Some(StoreSettings::File { path: reader.resolve(&path), ring }),
        StoreUrl::Redis { tls, host, port, database } => {
            if !tls {
                refuse(fields, &["tls"], "write `rediss://` for TLS");
            }
            let name = ServerName::try_from(host.clone());
            let tls = match (tls, name) {
                (false, _) => None,
                (true, Ok(name)) => Some((redis.tls?.0, name)),
                (true, Err(_)) => {
                    let position = fields.take("url").map(Position::of)?;
                    position.error(reader.report, "no certificate can be for this host", "write its name or address");
                    return None;
                }
            };
            let ReadRedis { username, password, namespace, .. } = redis;
            Some(StoreSettings::Redis(RedisSettings { host, port, database, tls, username, password, namespace, ring }))
        }
    }
}

/// Digest of all that makes a store another one. Each part stands behind its length.
fn digest(settings: &StoreSettings, tls: Option<[u8; 32]>) -> [u8; 32] {
    let mut inputs = Vec::new();
    let mut part = |bytes: &[u8]| {
        inputs.extend((bytes.len() as u64).to_be_bytes());
        inputs.extend(bytes);
    };
    match settings {
        // As without the section.
        StoreSettings::Memory => return Storage::default().id,
        StoreSettings::File { path, .. } => {
            part(b"file");
            part(path.as_os_str().as_encoded_bytes());
        }
        StoreSettings::Redis(redis) => {
            part(b"redis");
            part(redis.host.as_bytes());
            part(&redis.port.to_be_bytes());
            part(&redis.database.to_be_bytes());
            part(redis.namespace.as_bytes());
            part(redis.username.as_deref().unwrap_or_default().as_bytes());
            part(redis.password.as_ref().map_or("", |password| password.expose_secret()).as_bytes());
            part(if redis.tls.is_some() { tls.as_ref().map_or(&[], <[u8; 32]>::as_slice) } else { &[] });
        }
    }
    sha256(&inputs)
}

/// Reports keys that mean nothing here.
fn refuse(fields: &Fields<'_>, keys: &[&str], help: &str) {
    for key in keys.iter().filter(|key| has(fields, key)) {
        if let Some(entry) = fields.take_entry(key) {
            let title = format!("`{key}` means nothing for this store");
            fields.error(entry.key_span.clone(), title, "", Some(help.to_owned()));
        }
    }
}

fn has(fields: &Fields<'_>, key: &str) -> bool {
    fields.node().as_table().is_some_and(|table| table.find(key).is_some())
}
