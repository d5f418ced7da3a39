//! `[secret_source.NAME]`: a server that keeps secrets, and the values that come from it.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::base::origin::BaseUrl;
use crate::base::secret::{ExposeSecret, SecretString, sha256};
use crate::base::time::Clock;
use crate::secret_source::{
    AwsCredentials, AwsIdentity, AwsSecretsSettings, ContainerToken, DEFAULT_SVID, HttpServer, KubernetesSettings,
    ReadPurpose, SecretDocument, SecretName, SecretSource, ServerSettings, SourceKind, SourcePart, SourceProblem,
    SourceSettings, SpiffeSettings, VaultLogin, VaultSettings,
};
use crate::syntax::{Diagnostics, Fields, Kind, Node, TableEntry, suggest};
use crate::tls::{self, ClientTls};
use crate::upstream::{Destination, EgressPath, ForwardProxy};

use super::pooled_way::{LinkWay, PooledWay};
use super::provider::{http_proxy, url};
use super::reader::{LEAST_TTL, Reader};
use super::schema::{DURATION, MAY, MUST, SchemaSection, SchemaShape};
use super::sources::RemoteSecret;
use super::spanned_text::{Position, SpannedText};

/// The longest answer of a source that is read, in bytes: a `Secret` of Kubernetes has 1 MiB, in base64.
const MOST_ANSWER: usize = 2 << 20;
/// Connecting takes no longer; `timeout` bounds it closer.
const CONNECT: Duration = Duration::from_secs(10);
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
/// A config is read by a thread that waits.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(60);
const DEFAULT_TTL: Duration = Duration::from_secs(300);
/// An agent sends what is new by itself: looking costs nothing.
const SPIFFE_TTL: Duration = Duration::from_secs(5);
/// The variable that names a Workload API (SPIFFE Workload Endpoint section 4).
const SPIFFE_SOCKET: &str = "SPIFFE_ENDPOINT_SOCKET";
/// The folder in which Kubernetes puts the credentials of a pod.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

pub(super) const KEYS: SchemaSection = (
    "secret_source",
    &[
        ("access_key_id", SchemaShape::Source, MAY, "of an AWS user; without it: a web identity"),
        (
            "address",
            SchemaShape::Url,
            MAY,
            "of Vault, of the API server of Kubernetes, or unix:/path of the Workload API; there SPIFFE_ENDPOINT_SOCKET",
        ),
        ("app_role", SchemaShape::Table("secret_source_app_role"), MAY, "the login to Vault by AppRole"),
        ("ca", SchemaShape::Text, MAY, "path of the only CAs to trust, PEM"),
        ("endpoint", SchemaShape::Url, MAY, "of AWS Secrets Manager; default: that of the region"),
        ("http_proxy", SchemaShape::Source, MAY, "the corporate proxy that leads there"),
        ("instance", SchemaShape::Flag, MAY, "true: the role of the AWS instance asks; false"),
        ("kind", SchemaShape::Choice(&WORDS), MUST, "vault (OpenBao too), aws, kubernetes or spiffe"),
        (
            "kubernetes",
            SchemaShape::Table("secret_source_kubernetes"),
            MAY,
            "the login to Vault by the pod's service account",
        ),
        ("namespace", SchemaShape::Text, MAY, "of Vault Enterprise or OpenBao, or of the cluster; there the pod's own"),
        ("region", SchemaShape::Text, MAY, "of AWS, as in eu-central-1"),
        ("secret_access_key", SchemaShape::Source, MAY, "belongs to access_key_id"),
        ("session_token", SchemaShape::Source, MAY, "of temporary keys"),
        ("timeout", DURATION, MAY, "a secret is read within this; 10s"),
        ("token", SchemaShape::Source, MAY, "of Vault"),
        ("token_file", SchemaShape::Text, MAY, "path of the service account's token, where a cluster is asked"),
        (
            "ttl",
            DURATION,
            MAY,
            "its secrets are read again after this long, unless they have a lease; 5m, of spiffe 5s",
        ),
        (
            "web_identity",
            SchemaShape::Table("secret_source_web_identity"),
            MAY,
            "a role of AWS that a cluster's token proves",
        ),
    ],
);

pub(super) const APP_ROLE_KEYS: SchemaSection = (
    "secret_source_app_role",
    &[
        ("mount", SchemaShape::Text, MAY, "where the login is enabled; approle"),
        ("role_id", SchemaShape::Source, MUST, "of the role"),
        ("secret_id", SchemaShape::Source, MAY, "of the role, unless it needs none"),
    ],
);

pub(super) const KUBERNETES_KEYS: SchemaSection = (
    "secret_source_kubernetes",
    &[
        ("mount", SchemaShape::Text, MAY, "where the login is enabled; kubernetes"),
        ("role", SchemaShape::Text, MUST, "of the login"),
        ("token_file", SchemaShape::Text, MAY, "path of the service account's token; the pod's own"),
    ],
);

pub(super) const WEB_IDENTITY_KEYS: SchemaSection = (
    "secret_source_web_identity",
    &[
        ("role_arn", SchemaShape::Text, MAY, "of the role; AWS_ROLE_ARN"),
        ("sts_endpoint", SchemaShape::Url, MAY, "of the Security Token Service; default: that of the region"),
        ("token_file", SchemaShape::Text, MAY, "path of the token; AWS_WEB_IDENTITY_TOKEN_FILE"),
    ],
);

/// The words for the kinds of sources.
const WORDS: [&str; 4] = ["aws", "kubernetes", "spiffe", "vault"];

/// The keys that are not of use for every kind.
const OWN_KEYS: [(&str, &[&str]); 4] = [
    (
        "aws",
        &[
            "access_key_id",
            "ca",
            "endpoint",
            "http_proxy",
            "instance",
            "region",
            "secret_access_key",
            "session_token",
            "web_identity",
        ],
    ),
    ("kubernetes", &["address", "ca", "http_proxy", "namespace", "token_file"]),
    ("spiffe", &["address"]),
    ("vault", &["address", "app_role", "ca", "http_proxy", "kubernetes", "namespace", "token"]),
];

/// A source that a config names.
pub(super) struct NamedSecretSource {
    source: Arc<SecretSource>,
    ttl: Duration,
    place: Position,
    /// True once it has failed in this reading: its other secrets are not asked for.
    has_failed: Cell<bool>,
}

/// A secret at its source, as it is written: `{ source = "NAME", name = "…" }`.
pub(super) struct SourceReference {
    source: Rc<NamedSecretSource>,
    name: SpannedText,
    field: Option<SpannedText>,
    version: Option<String>,
    ttl: Option<Duration>,
}

impl SourceReference {
    /// Reads the keys beside `source`; mistakes are reported.
    pub(super) fn read(source: &SpannedText, fields: &Fields<'_>, reader: &Reader<'_>) -> Option<Self> {
        let report = fields.report();
        let ttl = fields.opt::<Duration>("ttl");
        if let (true, Some(node)) = (ttl.is_some_and(|ttl| ttl < LEAST_TTL), fields.take("ttl")) {
            let help = format!("{} ms is the least", LEAST_TTL.as_millis());
            Position::of(node).error(report, "`ttl` is too short", help);
        }
        let named = reader.named_source(source, report);
        let name = match (fields.take("name"), &named) {
            (None, Some(named)) if named.source.kind() == SourceKind::Spiffe => {
                Some(SpannedText { text: DEFAULT_SVID.to_owned(), place: source.place.clone() })
            }
            // Without the source nobody knows what it wants.
            (None, None) => None,
            (_, _) => fields.req::<SpannedText>("name", "\"secret/data/bank\""),
        };
        let (field, version) = (fields.opt::<SpannedText>("field"), version(fields));
        Some(Self { source: named?, name: name?, field, version, ttl })
    }

    /// Returns whether it is an identity of the Workload API.
    pub(super) fn is_svid(&self) -> bool {
        self.source.source.kind() == SourceKind::Spiffe
    }

    /// Reads all of it, with a name for messages. Mistakes are reported.
    pub(super) fn document(&self, reader: &Reader<'_>, report: &Diagnostics) -> Option<(Arc<SecretDocument>, String)> {
        let (named, word) = (&self.source, &self.name);
        if !is_name(&word.text, named.source.kind()) {
            let help = match named.source.kind() {
                SourceKind::Spiffe => "write a SPIFFE ID, as in `\"spiffe://corp.example/countersign\"`",
                SourceKind::AwsSecretsManager | SourceKind::Kubernetes | SourceKind::Vault => {
                    "write it as in `\"secret/data/bank\"` for Vault, without a slash at its ends"
                }
            };
            word.place.redacted().error(report, "this cannot be the name of a secret", help);
            return None;
        }
        let name = SecretName { name: word.text.clone(), version: self.version.clone() };
        let shown = format!("`{}` of [secret_source.{}]", name.name, named.source.name());
        match reader.document(named, &name)? {
            Ok(document) => {
                reader.read_remote(RemoteSecret {
                    digest: document.digest(),
                    source: named.source.clone(),
                    ttl: self.ttl.unwrap_or(named.ttl),
                    name,
                });
                Some((document, shown))
            }
            Err(problem) => {
                named.tell(&problem, &shown, &word.place, report);
                None
            }
        }
    }

    /// Reads the value of one field, which is given to `take` with a name for messages.
    pub(super) fn value<T>(
        &self,
        reader: &Reader<'_>,
        report: &Diagnostics,
        take: impl FnOnce(&[u8], &str) -> Option<T>,
    ) -> Option<T> {
        let (document, shown) = self.document(reader, report)?;
        match document.value(self.field.as_ref().map(|field| field.text.as_str())) {
            Ok(bytes) => take(bytes, &shown),
            Err(problem) => {
                let place = self.field.as_ref().map_or(&self.name.place, |field| &field.place).redacted();
                place.error(report, format!("{shown}: {}", problem.what), problem.cure);
                None
            }
        }
    }
}

/// The `version` of a secret: a number in Vault, a text in AWS.
fn version(fields: &Fields<'_>) -> Option<String> {
    let node = fields.take("version")?;
    match &node.kind {
        Kind::Integer(number) if *number > 0 => Some(number.to_string()),
        Kind::String(text) if !text.is_empty() => Some(text.clone()),
        Kind::Array(_) | Kind::Boolean(_) | Kind::Float(_) | Kind::Integer(_) | Kind::String(_) | Kind::Table(_) => {
            let help = "write `version = 3` for Vault, `version = \"AWSPREVIOUS\"` for AWS";
            Position::of(node).redacted().error(fields.report(), "this is no version of a secret", help);
            None
        }
    }
}

/// Returns whether a text can be a name at a source. In Vault it is a path without segments that go elsewhere.
fn is_name(text: &str, kind: SourceKind) -> bool {
    let is_plain = (1..=2048).contains(&text.len()) && !text.chars().any(char::is_control);
    let stays = |text: &str| text.split('/').all(|segment| !matches!(segment, "" | "." | ".."));
    is_plain
        && match kind {
            SourceKind::AwsSecretsManager => true,
            SourceKind::Kubernetes => stays(text) && !text.contains('/'),
            SourceKind::Spiffe => text == DEFAULT_SVID || text.starts_with("spiffe://"),
            SourceKind::Vault => stays(text),
        }
}

impl NamedSecretSource {
    /// Asks for a secret, unless its source has failed in this reading.
    pub(super) fn ask(&self, name: &SecretName) -> Option<Result<Arc<SecretDocument>, SourceProblem>> {
        if self.has_failed.get() {
            return None;
        }
        let read = self.source.read(name, ReadPurpose::Config);
        self.has_failed.set(read.as_ref().is_err_and(SourceProblem::is_of_source));
        Some(read)
    }

    /// Reports a problem at what it is about.
    fn tell(&self, problem: &SourceProblem, shown: &str, secret: &Position, report: &Diagnostics) {
        let help = match problem.cure.as_str() {
            "" => "its secrets are read before any request is served",
            cure => cure,
        };
        match problem.part {
            SourcePart::Credentials | SourcePart::Server => {
                let title = format!("[secret_source.{}] gives no secrets: {}", self.source.name(), problem.what);
                self.place.error(report, title, help);
            }
            SourcePart::Field | SourcePart::Secret => {
                secret.redacted().error(report, format!("{shown}: {}", problem.what), help);
            }
        }
    }
}

/// Reads all sources into `reader`, whose secrets may come from them from now on.
pub(super) fn read(root: &Fields<'_>, reader: &Reader<'_>) {
    if let Some(node) = root.take("secret_source") {
        let table = Fields::new(node, "[secret_source]", reader.report);
        let read = table.rest().into_iter().map(|entry| (entry.key.clone(), read_one(entry, reader)));
        let read: Vec<_> = read.collect();
        table.finish();
        reader.add_sources(read);
    } else {
        reader.add_sources(Vec::new());
    }
}

fn read_one(entry: &TableEntry, reader: &Reader<'_>) -> Option<Rc<NamedSecretSource>> {
    let report = reader.report;
    let errors = report.errors();
    let position = Position::new(&entry.value.source, entry.key_span.clone());
    SpannedText { text: entry.key.clone(), place: position.clone() }.judge_name(report);
    let what = format!("[secret_source.{}]", entry.key);
    let fields = Fields::new(&entry.value, what.clone(), report);
    let kind = fields.req::<SpannedText>("kind", "\"vault\"");
    let kind = kind.and_then(|word| WORDS.get(word.find("kind of a source", WORDS.into_iter(), report)?).copied());
    let default_ttl = if kind == Some("spiffe") { SPIFFE_TTL } else { DEFAULT_TTL };
    let ttl = length(&fields, "ttl", default_ttl, LEAST_TTL..=Duration::MAX);
    let timeout = length(&fields, "timeout", DEFAULT_TIMEOUT, Duration::from_millis(100)..=LONGEST_TIMEOUT);
    let server = match kind {
        Some("spiffe") => spiffe(&fields, reader).map(ServerSettings::Spiffe),
        Some(word) => http_source(word, &fields, reader),
        None => {
            fields.accept_rest();
            None
        }
    };
    if let Some(word) = kind {
        foreign_keys(&fields, word);
    }
    fields.finish();
    let server = server.filter(|_| report.errors() == errors)?;
    let Some(sources) = reader.secret_sources() else {
        position.error(report, "no source of secrets is reached here", "");
        return None;
    };
    let settings = SourceSettings { name: entry.key.clone(), timeout, clock: Clock::System, server };
    let source = sources.source(settings);
    Some(Rc::new(NamedSecretSource { source, ttl, place: position, has_failed: Cell::new(false) }))
}

/// Reads a source of this kind that is asked over HTTP.
fn http_source(kind: &str, fields: &Fields<'_>, reader: &Reader<'_>) -> Option<ServerSettings> {
    let way = SourceWay::read(fields, reader);
    match kind {
        "aws" => {
            let made = aws(fields, way.as_ref(), reader);
            let (base, aws) = made?;
            Some(ServerSettings::Aws(way?.to(&base, reader)?, aws))
        }
        "kubernetes" => {
            let way = way.and_then(|way| way.in_cluster(reader));
            let (base, kubernetes) = kubernetes(fields, reader)?;
            Some(ServerSettings::Kubernetes(way?.to(&base, reader)?, kubernetes))
        }
        _ => {
            let (base, vault) = vault(fields, reader)?;
            Some(ServerSettings::Vault(way?.to(&base, reader)?, vault))
        }
    }
}

/// Reads the socket of a Workload API, by default as its variable tells it.
fn spiffe(fields: &Fields<'_>, reader: &Reader<'_>) -> Option<SpiffeSettings> {
    let report = fields.report();
    let word = fields.opt::<SpannedText>("address");
    let place = word.as_ref().map_or_else(|| Position::head(fields.node()), |word| word.place.clone());
    if word.is_none() && fields.take("address").is_some() {
        return None;
    }
    let Some(text) = word.map(|word| word.text).or_else(|| reader.variable(SPIFFE_SOCKET)) else {
        fields.missing("address", "\"unix:/run/spire/agent-sockets/api.sock\"");
        return None;
    };
    // `unix:/path` and `unix:///path` are the same (RFC 3986 section 3).
    let path = text.strip_prefix("unix:").map(|path| path.strip_prefix("//").unwrap_or(path));
    match path {
        Some(path) if path.starts_with('/') => Some(SpiffeSettings { socket: path.into() }),
        Some(_) | None => {
            let title = format!("`{}` is no socket of a Workload API", text.escape_debug());
            let help =
                "write it as in `\"unix:/run/spire/agent-sockets/api.sock\"`: keys are not asked for over a network";
            place.error(report, title, help);
            None
        }
    }
}

/// Reports the keys that are of another kind of source.
fn foreign_keys(fields: &Fields<'_>, kind: &str) {
    let is_own = |key: &str| OWN_KEYS.iter().any(|(word, keys)| *word == kind && keys.contains(&key));
    let others: BTreeSet<_> = OWN_KEYS.iter().flat_map(|(_, keys)| *keys).filter(|key| !is_own(key)).collect();
    for key in others {
        if let Some(entry) = fields.take_entry(key) {
            let title = format!("`{key}` is of no use with `kind = \"{kind}\"`");
            let place = Position::new(&entry.value.source, entry.key_span.clone());
            place.error(fields.report(), title, "remove it, or correct `kind`");
        }
    }
}

/// Reads a duration within bounds.
fn length(fields: &Fields<'_>, key: &str, default: Duration, bounds: std::ops::RangeInclusive<Duration>) -> Duration {
    let length = fields.or(key, default);
    if let (false, Some(node)) = (bounds.contains(&length), fields.take(key)) {
        let most = if *bounds.end() == Duration::MAX {
            String::new()
        } else {
            format!(", {} s the most", bounds.end().as_secs())
        };
        let help = format!("{} ms is the least{most}", bounds.start().as_millis());
        Position::of(node).error(fields.report(), format!("`{key}` cannot be so long or short"), help);
    }
    length
}

/// The CAs and the proxy of a source.
struct SourceWay {
    ca: Option<(SpannedText, Vec<u8>)>,
    proxy: Option<(Arc<ForwardProxy>, [u8; 32])>,
    place: Position,
}

impl SourceWay {
    /// Reads `ca` and `http_proxy`; `None`: one of them was reported.
    fn read(fields: &Fields<'_>, reader: &Reader<'_>) -> Option<Self> {
        let proxy = http_proxy(fields, reader);
        let place = Position::head(fields.node());
        let ca = match fields.opt::<SpannedText>("ca") {
            Some(word) => {
                let pem = reader.ca_file(&word)?;
                Some((word, pem))
            }
            None => None,
        };
        Some(Self { ca, proxy, place })
    }

    /// The same with the CA of the cluster, if none is named.
    fn in_cluster(self, reader: &Reader<'_>) -> Option<Self> {
        if self.ca.is_some() {
            return Some(self);
        }
        let word = SpannedText { text: format!("{ACCOUNT}/ca.crt"), place: self.place.clone() };
        let pem = reader.ca_file(&word)?;
        Some(Self { ca: Some((word, pem)), ..self })
    }

    /// Makes the way to a server.
    fn to(&self, base: &BaseUrl, reader: &Reader<'_>) -> Option<HttpServer> {
        let pem = self.ca.as_ref().map(|(_, pem)| pem.as_slice());
        let mut inputs = base.to_string().into_bytes();
        inputs.extend(sha256(pem.unwrap_or_default()));
        inputs.extend(self.proxy.as_ref().map_or([0; 32], |(_, digest)| *digest));
        let transport = sha256(&[b"secret source".as_slice(), pem.unwrap_or_default()].concat());
        let tls = reader.client_tls(transport, || tls::client(ClientTls { ca: pem, ..ClientTls::default() }));
        let tls = match tls {
            Ok(tls) => tls,
            Err(error) => {
                let place = self.ca.as_ref().map_or(&self.place, |(word, _)| &word.place);
                place.error(reader.report, error.to_string(), "`ca` must hold CA certificates, as PEM");
                return None;
            }
        };
        let destination = Destination {
            host: base.bare_host().into(),
            port: base.port(),
            tls,
            server_name: base.server_name().clone(),
            path: EgressPath { proxy: self.proxy.as_ref().map(|(proxy, _)| proxy.clone()), ..EgressPath::default() },
            connect_timeout: CONNECT,
        };
        let http = Arc::new(PooledWay { destination, most: MOST_ANSWER });
        Some(HttpServer { host: base.authority(), http, digest: sha256(&inputs) })
    }
}

fn vault(fields: &Fields<'_>, reader: &Reader<'_>) -> Option<(BaseUrl, VaultSettings)> {
    let report = fields.report();
    let address = fields.req::<SpannedText>("address", "\"https://vault.corp:8200\"");
    let address = address.and_then(|word| url(&word, report));
    let namespace = fields.opt::<SpannedText>("namespace");
    let (token, app_role, kubernetes) = (fields.take("token"), fields.take("app_role"), fields.take("kubernetes"));
    let namespace = match namespace {
        Some(word) => Some(plain_header(&word, "a namespace", report)?),
        None => None,
    };
    let login = match (token, app_role, kubernetes) {
        (Some(node), None, None) => VaultLogin::Token(secret(node, "token", "the token", reader)?),
        (None, Some(node), None) => by_app_role(node, reader)?,
        (None, None, Some(node)) => by_kubernetes(node, reader)?,
        (None, None, None) => {
            fields.missing(
                "token",
                "{ file = \"vault-token\" }` or `app_role = { … }` or `kubernetes = { role = \"…\" }",
            );
            return None;
        }
        (..) => {
            Position::head(fields.node()).error(
                report,
                format!("{} names more than one login", fields.what()),
                "keep one of `token`, `app_role` and `kubernetes`",
            );
            return None;
        }
    };
    let base = address?;
    let base_path = base.path().to_owned();
    Some((base, VaultSettings { base_path, namespace, login }))
}

fn by_app_role(node: &Node, reader: &Reader<'_>) -> Option<VaultLogin> {
    let fields = Fields::new(node, "`app_role`", reader.report);
    let mount = fields.opt::<String>("mount").unwrap_or_else(|| "approle".to_owned());
    let (role, own) = (fields.take("role_id"), fields.take("secret_id"));
    if role.is_none() {
        fields.missing("role_id", "{ env = \"VAULT_ROLE_ID\" }");
    }
    // It is no secret by itself.
    let role_id = role.and_then(|node| reader.value(node, reader.report));
    let secret_id = own.map(|node| secret(node, "secret_id", "the secret id", reader));
    fields.finish();
    let secret_id = match secret_id {
        Some(read) => Some(read?),
        None => None,
    };
    Some(VaultLogin::AppRole { mount, role_id: role_id?.0, secret_id })
}

fn by_kubernetes(node: &Node, reader: &Reader<'_>) -> Option<VaultLogin> {
    let fields = Fields::new(node, "`kubernetes`", reader.report);
    let mount = fields.opt::<String>("mount").unwrap_or_else(|| "kubernetes".to_owned());
    let role = fields.req::<String>("role", "\"countersign\"");
    let jwt = token_file(&fields, reader);
    fields.finish();
    Some(VaultLogin::Kubernetes { mount, role: role?, jwt })
}

/// The file of a service account's token; it is read when it is needed, since the cluster renews it.
fn token_file(fields: &Fields<'_>, reader: &Reader<'_>) -> PathBuf {
    let named = fields.opt::<SpannedText>("token_file");
    named.map_or_else(|| PathBuf::from(format!("{ACCOUNT}/token")), |word| reader.resolve(&word.text))
}

fn kubernetes(fields: &Fields<'_>, reader: &Reader<'_>) -> Option<(BaseUrl, KubernetesSettings)> {
    let report = fields.report();
    let (address, namespace) = (fields.opt::<SpannedText>("address"), fields.opt::<SpannedText>("namespace"));
    let token = token_file(fields, reader);
    let base = match address {
        Some(word) => url(&word, report)?,
        None => BaseUrl::parse("https://kubernetes.default.svc").ok()?,
    };
    let namespace = match namespace {
        Some(word) => word.text,
        None => {
            let place = Position::head(fields.node());
            reader.text_file(&SpannedText { text: format!("{ACCOUNT}/namespace"), place })?.trim().to_owned()
        }
    };
    let base_path = base.path().to_owned();
    Some((base, KubernetesSettings { base_path, namespace, token }))
}

fn aws(fields: &Fields<'_>, way: Option<&SourceWay>, reader: &Reader<'_>) -> Option<(BaseUrl, AwsSecretsSettings)> {
    let report = fields.report();
    let region = fields.req::<SpannedText>("region", "\"eu-central-1\"");
    let (access, secret_key) = (fields.take("access_key_id"), fields.take("secret_access_key"));
    let (session, web) = (fields.take("session_token"), fields.take("web_identity"));
    let is_instance = fields.or("instance", false);
    let endpoint = fields.opt::<SpannedText>("endpoint").map(|word| url(&word, report));
    let region = region?;
    let plain = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if !plain(&region.text) {
        region.place.error(report, format!("`{}` is no region", region.text), "write it as in `\"eu-central-1\"`");
        return None;
    }
    let base = match endpoint {
        Some(url) => url?,
        None => BaseUrl::parse(&format!("https://secretsmanager.{}.amazonaws.com", region.text)).ok()?,
    };
    let identity = match (access, secret_key, web) {
        (Some(access), Some(secret_key), None) => {
            let session_token = match session {
                Some(node) => Some(secret(node, "session_token", "the session token", reader)?),
                None => None,
            };
            AwsIdentity::Keys(AwsCredentials {
                access_key_id: reader.value(access, report)?.0.expose_secret().to_owned(),
                secret_access_key: secret(secret_key, "secret_access_key", "the secret access key", reader)?,
                session_token,
            })
        }
        (None, None, None) if session.is_none() && is_instance => instance_identity(fields, reader)?,
        (None, None, web) if session.is_none() && !is_instance => {
            web_identity(fields, web, &region.text, way?, reader)?
        }
        (Some(_), None, None) => {
            fields.missing("secret_access_key", "{ env = \"AWS_SECRET_ACCESS_KEY\" }");
            return None;
        }
        (None, _, None) => {
            fields.missing("access_key_id", "{ env = \"AWS_ACCESS_KEY_ID\" }");
            return None;
        }
        (_, _, Some(node)) => {
            let help = "keep one of `web_identity`, `instance` and the keys";
            Position::of(node).error(report, format!("{} has two identities", fields.what()), help);
            return None;
        }
    };
    Some((base, AwsSecretsSettings { region: region.text, identity }))
}

/// Reads the role that a cluster's token proves, by default as the cluster's environment variables tell it.
fn web_identity(
    around: &Fields<'_>,
    node: Option<&Node>,
    region: &str,
    way: &SourceWay,
    reader: &Reader<'_>,
) -> Option<AwsIdentity> {
    let report = reader.report;
    let fields = node.map(|node| Fields::new(node, "`web_identity`", report));
    let text = |key: &str| fields.as_ref().and_then(|fields| fields.opt::<SpannedText>(key));
    let role = text("role_arn").map(|word| word.text).or_else(|| reader.variable("AWS_ROLE_ARN"));
    let token = text("token_file").map(|word| reader.resolve(&word.text));
    let token = token.or_else(|| reader.variable("AWS_WEB_IDENTITY_TOKEN_FILE").map(PathBuf::from));
    let endpoint = text("sts_endpoint").map(|word| url(&word, report));
    if let Some(fields) = fields {
        fields.finish();
    }
    let (Some(role), Some(token)) = (role, token) else {
        if let (None, Some(found)) = (node, container_identity(around, reader)) {
            return found;
        }
        let help = "add `access_key_id` and `secret_access_key`, or `web_identity = { role_arn = \"…\", token_file = \"…\" }`; \
                    `instance = true` asks as the instance; in a pod with a role of AWS the variables AWS_ROLE_ARN and AWS_WEB_IDENTITY_TOKEN_FILE say both";
        let place = node.map_or_else(|| Position::head(around.node()), Position::of);
        place.error(report, format!("{} does not say who asks", around.what()), help);
        return None;
    };
    let endpoint = match endpoint {
        Some(url) => url?,
        None => BaseUrl::parse(&format!("https://sts.{region}.amazonaws.com")).ok()?,
    };
    let HttpServer { host, http, .. } = way.to(&endpoint, reader)?;
    Some(AwsIdentity::Web { role, token, host, http })
}

/// The identity of a container, as the variables tell it that ECS and EKS Pod Identity set. `None`: they are not set; an
/// inner `None`: they were reported.
fn container_identity(around: &Fields<'_>, reader: &Reader<'_>) -> Option<Option<AwsIdentity>> {
    let full = reader.variable("AWS_CONTAINER_CREDENTIALS_FULL_URI");
    let relative = reader.variable("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
    let url = relative.map(|path| format!("http://169.254.170.2{path}")).or(full)?;
    let file = reader.variable("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE").map(PathBuf::from).map(ContainerToken::File);
    let text = reader.variable("AWS_CONTAINER_AUTHORIZATION_TOKEN").map(SecretString::from).map(ContainerToken::Text);
    let Some((host, way, path)) = link(&url) else {
        not_near(around, "AWS_CONTAINER_CREDENTIALS_FULL_URI");
        return Some(None);
    };
    Some(Some(AwsIdentity::Container { path, authorization: file.or(text), host, http: Arc::new(way) }))
}

/// The identity of an instance.
fn instance_identity(around: &Fields<'_>, reader: &Reader<'_>) -> Option<AwsIdentity> {
    let variable = "AWS_EC2_METADATA_SERVICE_ENDPOINT";
    let url = reader.variable(variable).unwrap_or_else(|| "http://169.254.169.254".to_owned());
    let Some((host, way, _)) = link(&url) else {
        not_near(around, variable);
        return None;
    };
    Some(AwsIdentity::Instance { host, http: Arc::new(way) })
}

fn not_near(around: &Fields<'_>, variable: &str) {
    let title = format!("the variable `{variable}` names no address of this machine or its link");
    let help = "keys are asked for without TLS there alone: write it as in `http://169.254.169.254`";
    Position::head(around.node()).error(around.report(), title, help);
}

/// Takes apart a URL of the machine's own link: the authority, the way there, the path.
fn link(url: &str) -> Option<(String, LinkWay, String)> {
    let rest = url.strip_prefix("http://")?;
    let (host, path) = rest.split_once('/').map_or((rest, "/".to_owned()), |(host, path)| (host, format!("/{path}")));
    let address = host.parse::<SocketAddr>().ok();
    let address = address.or_else(|| {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        Some(SocketAddr::new(bare.parse().ok()?, 80))
    })?;
    let is_plain = path.bytes().all(|byte| byte.is_ascii_graphic());
    let way = LinkWay::to(address).filter(|_| is_plain)?;
    Some((host.to_owned(), way, path))
}

/// Reads a secret, and warns of one that stands in the file.
fn secret(node: &Node, key: &str, what: &str, reader: &Reader<'_>) -> Option<SecretString> {
    let (text, literal) = reader.value(node, reader.report)?;
    if literal {
        let help = format!("write `{key} = {{ env = \"NAME\" }}` or `{{ file = \"path\" }}`");
        Position::of(node).redacted().warning(reader.report, format!("{what} stands in the config file"), help);
    }
    Some(text)
}

/// A text that goes into a header as it is.
fn plain_header(word: &SpannedText, what: &str, report: &Diagnostics) -> Option<String> {
    if !word.text.is_empty() && word.text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Some(word.text.clone());
    }
    word.place.error(report, format!("this is no name of {what}"), "write it as in `\"team-a\"`");
    None
}

/// Finds the source of this name; reports that there is none. A source that has failed was reported.
pub(super) fn find(
    word: &SpannedText,
    known: &[(String, Option<Rc<NamedSecretSource>>)],
    report: &Diagnostics,
) -> Option<Rc<NamedSecretSource>> {
    if let Some((_, source)) = known.iter().find(|(name, _)| *name == word.text) {
        return source.clone();
    }
    let help = match suggest(&word.text, known.iter().map(|(name, _)| name.as_str())) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("add [secret_source.{}] with its `kind` and `address`", word.text.escape_debug()),
    };
    let title = format!("there is no source of secrets called `{}`", word.text.escape_debug());
    word.place.redacted().error(report, title, help);
    None
}
