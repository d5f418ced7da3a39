//! `[store]`: where records outlive a process.

use std::collections::HashSet;
use std::sync::Arc;

use rustls::pki_types::ServerName;

use crate::base::secret::{ExposeSecret, SecretString, sha256};
use crate::key_service::UnwrappedKey;
use crate::store::{
    IamLogin, IamService, KeyRing, RedisAddress, RedisLogin, RedisSettings, RedisTopology, SealingKey, StoreSettings,
    StoreUrl,
};
use crate::syntax::{Fields, Kind, Node};
use crate::tls::{self, ClientIdentity, ClientTls};

use super::file_identity::{CLIENT, file_identity};
use super::reader::{Reader, pem_help};
use super::schema::{MAY, MUST, SchemaSection, SchemaShape};
use super::service_key;
use super::spanned_text::{Position, SpannedText, choice};
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
    /// True if a mistake was reported, so that nothing follows from what is absent here.
    pub(super) unread: bool,
    /// Keys that a key service has unwrapped: while this lives, they are not asked for again.
    pub unwrapped: Vec<Arc<UnwrappedKey>>,
}

pub(super) const KEYS: SchemaSection = (
    "store",
    &[
        ("ephemeral", SchemaShape::Flag, MAY, "true: a store in memory may hold users' tokens, and forget them; false"),
        ("iam", SchemaShape::Table("store_iam"), MAY, "the identity of AWS that ElastiCache or MemoryDB lets in"),
        (
            "keys",
            SchemaShape::SourcesOr("wrapped_key"),
            MAY,
            "what records are sealed under: 32 bytes, base64, or wrapped by a key service; the first writes, all read",
        ),
        ("namespace", SchemaShape::Text, MAY, "what every key in Redis begins with; countersign"),
        ("password", SchemaShape::Source, MAY, "for Redis"),
        ("sentinel", SchemaShape::Table("store_sentinel"), MAY, "what Sentinels are shown"),
        ("tls", SchemaShape::Table("store_tls"), MAY, "for rediss://"),
        (
            "url",
            SchemaShape::Text,
            MAY,
            "memory:, file:PATH, redis://HOST:PORT/0, redis+sentinel://HOST,HOST/SERVICE or redis+cluster://HOST,HOST; \
             rediss with TLS; memory:",
        ),
        ("username", SchemaShape::Text, MAY, "the ACL user of Redis"),
        (
            "wait_replicas",
            SchemaShape::Count(0),
            MAY,
            "how many replicas of Redis must have a lock or a user's record; 1 with Sentinels and in a Cluster, else 0",
        ),
    ],
);

pub(super) const IAM_KEYS: SchemaSection = (
    "store_iam",
    &[
        ("access_key_id", SchemaShape::Source, MUST, "of the identity"),
        ("name", SchemaShape::Text, MUST, "of the cache, replication group or cluster"),
        ("region", SchemaShape::Text, MUST, "where it is"),
        ("secret_access_key", SchemaShape::Source, MUST, "of the identity"),
        (
            "service",
            SchemaShape::Choice(&["elasticache", "elasticache-serverless", "memorydb"]),
            MUST,
            "what it is part of",
        ),
        ("session_token", SchemaShape::Source, MAY, "of temporary credentials"),
    ],
);

pub(super) const SENTINEL_KEYS: SchemaSection = (
    "store_sentinel",
    &[
        ("password", SchemaShape::Source, MUST, "for Sentinels"),
        ("username", SchemaShape::Text, MAY, "the ACL user of Sentinels"),
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
const OF_REDIS: [&str; 7] = ["iam", "namespace", "password", "sentinel", "tls", "username", "wait_replicas"];
/// More replicas than this are a mistake.
const MOST_REPLICAS: u64 = 16;

/// Reads `[store]`. Mistakes are reported; the returned value is then unusable.
pub(super) fn read(root: &Fields<'_>, reader: &Reader<'_>) -> Storage {
    let mut storage = Storage::default();
    let Some(node) = root.take("store") else { return storage };
    let errors = reader.report.errors();
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
    storage.unread = reader.report.errors() > errors;
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
    login: RedisLogin,
    sentinel_login: RedisLogin,
    namespace: String,
    tls: Option<StoreTransport>,
    /// Absent: as the topology has it.
    wait_replicas: Option<u32>,
}

/// TLS settings, with a digest of all that went into them.
type StoreTransport = (Arc<rustls::ClientConfig>, [u8; 32]);

fn read_redis(fields: &Fields<'_>, tls: Option<StoreTransport>, reader: &Reader<'_>) -> ReadRedis {
    let login = match fields.take("iam") {
        Some(node) => iam(node, fields, reader).map_or(RedisLogin::Nobody, |iam| RedisLogin::Iam(Arc::new(iam))),
        None => read_login(fields, "the store's password", "REDIS_PASSWORD", reader),
    };
    let sentinel_login = fields.take("sentinel").map_or(RedisLogin::Nobody, |node| {
        let fields = Fields::new(node, "sentinel of [store]", reader.report);
        if !has(&fields, "password") && !has(&fields, "username") {
            fields.missing("password", "{ env = \"SENTINEL_PASSWORD\" }");
        }
        let login = read_login(&fields, "the Sentinels' password", "SENTINEL_PASSWORD", reader);
        fields.finish();
        login
    });
    let namespace = match fields.opt::<SpannedText>("namespace") {
        Some(word) => {
            word.judge_name(reader.report);
            word.text
        }
        None => "countersign".to_owned(),
    };
    let wait_replicas = fields.opt::<u64>("wait_replicas").map(|number| {
        if number > MOST_REPLICAS
            && let Some(place) = fields.take("wait_replicas").map(Position::of)
        {
            place.error(reader.report, "these are more replicas than any Redis has", "write 1, or 0 for none");
        }
        u32::try_from(number).unwrap_or(u32::MAX)
    });
    ReadRedis { login, sentinel_login, namespace, tls, wait_replicas }
}

/// Reads `username` and `password`. `what` and `variable` are for messages.
fn read_login(fields: &Fields<'_>, what: &str, variable: &str, reader: &Reader<'_>) -> RedisLogin {
    let username = fields.opt::<String>("username");
    let password = fields.take("password").and_then(|node| secret(node, what, variable, reader));
    if username.is_some() && !has(fields, "password") {
        fields.missing("password", &format!("{{ env = \"{variable}\" }}"));
    }
    password.map_or(RedisLogin::Nobody, |password| RedisLogin::Password { username, password })
}

fn secret(node: &Node, what: &str, variable: &str, reader: &Reader<'_>) -> Option<SecretString> {
    let (text, literal) = reader.value(node, reader.report)?;
    if literal {
        let help = format!("write `{{ env = \"{variable}\" }}` or `{{ file = \"path\" }}`");
        let title = format!("{what} stands in the config file");
        Position::of(node).redacted().warning(reader.report, title, help);
    }
    Some(text)
}

/// Reads `iam`, with the `username` beside it.
fn iam(node: &Node, store: &Fields<'_>, reader: &Reader<'_>) -> Option<IamLogin> {
    let username = store.req::<String>("username", "\"countersign\"");
    if let Some(entry) = store.take_entry("password") {
        let help = "remove it: with `iam` the password is a token that is made anew for each connection";
        store.error(entry.key_span.clone(), "`password` and `iam` say the same thing twice", "", Some(help.to_owned()));
    }
    let fields = Fields::new(node, "iam of [store]", reader.report);
    let has_service = has(&fields, "service");
    let service = choice(&fields, "service", &IamService::ALL);
    if !has_service {
        fields.missing("service", "\"elasticache\"");
    }
    let name = fields.req::<SpannedText>("name", "\"my-cache\"");
    let region = fields.req::<SpannedText>("region", "\"eu-central-1\"");
    let [access, key] = ["access_key_id", "secret_access_key"].map(|key| {
        let node = fields.take(key);
        if node.is_none() {
            fields.missing(key, &format!("{{ env = \"AWS_{}\" }}", key.to_ascii_uppercase()));
        }
        node
    });
    let access = access.and_then(|node| reader.value(node, reader.report));
    let key = key.and_then(|node| secret(node, "the secret access key", "AWS_SECRET_ACCESS_KEY", reader));
    let session = fields.take("session_token");
    let session_token = session.and_then(|node| secret(node, "the session token", "AWS_SESSION_TOKEN", reader));
    fields.finish();
    let plain = |word: SpannedText, title: &str, help: &str| {
        let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if word.text.is_empty() || !word.text.bytes().all(is_plain) {
            word.place.error(reader.report, format!("`{}` is no {title}", word.text), help);
            return None;
        }
        Some(word.text)
    };
    let name = name.and_then(|word| plain(word, "name of a cache", "write its name in lower case, not its address"));
    let region = region.and_then(|word| plain(word, "region", "write it as in `\"eu-central-1\"`"));
    Some(IamLogin {
        service: service?,
        name: name?,
        region: region?,
        username: username?,
        access_key_id: access?.0.expose_secret().to_owned(),
        secret_access_key: key?,
        session_token,
    })
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
        if let Some((identity, digest)) = file_identity(&fields, &CLIENT, None, reader) {
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
        StoreUrl::File(path) => {
            let path = reader.resolve(&path);
            if let (Err(why), Some(node)) = (reader.creatable(&path), fields.take("url")) {
                let title = format!("the store cannot be kept in `{}`: {why}", path.display());
                let help = "let the user who runs countersign write there, or name another file";
                Position::of(node).error(reader.report, title, help);
                return None;
            }
            Some(StoreSettings::File { path, ring })
        }
        StoreUrl::Redis { tls, topology, database } => {
            if !tls {
                refuse(fields, &["tls"], "write `rediss` instead of `redis` for TLS");
            }
            let is_of_sentinels = matches!(topology, RedisTopology::Sentinel { .. });
            if !is_of_sentinels {
                refuse(fields, &["sentinel"], "it is for `redis+sentinel://HOST:PORT,HOST:PORT/SERVICE`");
            }
            if !tls && matches!(redis.login, RedisLogin::Iam(_)) {
                let help = "write `rediss` instead of `redis`: AWS takes tokens over TLS alone";
                fields.take("iam").map(Position::of)?.error(reader.report, "`iam` needs TLS", help);
                return None;
            }
            let addresses = match &topology {
                RedisTopology::Cluster(all) | RedisTopology::Sentinel { sentinels: all, .. } => all.as_slice(),
                RedisTopology::Single(one) => std::slice::from_ref(one),
            };
            let is_verifiable = |at: &RedisAddress| ServerName::try_from(at.host.as_str()).is_ok();
            if tls && !addresses.iter().all(is_verifiable) {
                let position = fields.take("url").map(Position::of)?;
                position.error(reader.report, "no certificate can be for this host", "write its name or address");
                return None;
            }
            let tls = if tls { Some(redis.tls?.0) } else { None };
            let ReadRedis { login, sentinel_login, namespace, wait_replicas, .. } = redis;
            let wait_replicas = wait_replicas.unwrap_or(match topology {
                RedisTopology::Cluster(_) | RedisTopology::Sentinel { .. } => 1,
                RedisTopology::Single(_) => 0,
            });
            Some(StoreSettings::Redis(RedisSettings {
                topology,
                database,
                tls,
                login,
                sentinel_login,
                namespace,
                wait_replicas,
                ring,
            }))
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
            let form: &[u8] = match redis.topology {
                RedisTopology::Cluster(_) => b"cluster",
                RedisTopology::Sentinel { .. } => b"sentinel",
                RedisTopology::Single(_) => b"single",
            };
            part(form);
            part(redis.topology.to_string().as_bytes());
            part(&redis.database.to_be_bytes());
            part(redis.namespace.as_bytes());
            part(&redis.wait_replicas.to_be_bytes());
            for login in [&redis.login, &redis.sentinel_login] {
                match login {
                    RedisLogin::Iam(iam) => {
                        part(b"iam");
                        part(format!("{:?}", iam.service).as_bytes());
                        let session = iam.session_token.as_ref().map_or("", |token| token.expose_secret());
                        let secret = iam.secret_access_key.expose_secret();
                        for text in [&*iam.name, &iam.region, &iam.username, &iam.access_key_id, secret, session] {
                            part(text.as_bytes());
                        }
                    }
                    RedisLogin::Nobody => part(b"nobody"),
                    RedisLogin::Password { username, password } => {
                        part(b"password");
                        part(username.as_deref().unwrap_or_default().as_bytes());
                        part(password.expose_secret().as_bytes());
                    }
                }
            }
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
