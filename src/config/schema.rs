//! The JSON Schema of `proxy.toml`, for editors.
//!
//! The reader in `config` is authoritative; this is one table beside it, with a line for every key that the reader
//! takes. A test asks the reader for its keys and compares. Constraints that only the reader can check (names that must
//! exist, files that must be there, keys that belong together) are not in the schema: `countersign check` reports them.

use serde_json::{Map, Value, json};

use super::listener;
use crate::provider::{DeclaredSetting, Profile};

/// The shape of a key's value.
#[derive(Clone, Copy, Debug)]
pub(super) enum SchemaShape {
    /// An IP address and a port.
    Address,
    /// The same, or `unix:` and a path.
    Bind,
    /// A table of freely named lists of texts.
    Bounds,
    /// DELETE
    Choice(&'static [&'static str]),
    /// One of the first words, or a list of the others.
    ChoiceOrList(&'static [&'static str], &'static [&'static str]),
    /// A list of these words.
    Choices(&'static [&'static str]),
    /// A whole number, at least this.
    Count(u64),
    /// A list of whole numbers.
    Counts,
    /// `"30s"`; where 0 switches it off, the number 0 too.
    Duration { off: bool },
    /// DELETE
    Flag,
    /// A table of freely named headers with values.
    Headers,
    /// A table, or the word `"internal"`.
    InternalOr(&'static str),
    /// A list of tables: `[[key]]`.
    List(&'static str),
    /// Tables of free names, `[key.NAME]`, each with the keys of this section.
    Named(&'static str),
    /// A number from 0 to 1.
    Share,
    /// A size such as `"64KiB"`, or the number 0.
    Size,
    /// A table whose members the profile says.
    Settings,
    /// A text that may be elsewhere: `{ env = "NAME" }` or `{ file = "path" }`.
    Source,
    /// A list of values as in `Source`.
    Sources,
    /// A table: `[key]` or `{ … }`.
    Table(&'static str),
    /// DELETE
    Text,
    /// DELETE
    Texts,
    /// A URL with the scheme `https`.
    Url,
    /// `"anyone"`, or a list of clients.
    Who,
}

/// One key: its name, its value, whether it must be there, a few words.
pub(super) type SchemaKey = (&'static str, SchemaShape, bool, &'static str);

pub(super) const MUST: bool = true;
pub(super) const MAY: bool = false;
const DURATION: SchemaShape = SchemaShape::Duration { off: false };
const DURATION_OR_OFF: SchemaShape = SchemaShape::Duration { off: true };
pub(super) const TLS_VERSIONS: SchemaShape = SchemaShape::Choice(&["1.2", "1.3"]);

/// Every section with its keys. The first is the file itself.
const SECTIONS: [(&str, &[SchemaKey]); 24] = [
    (
        "file",
        &[
            ("admin", SchemaShape::Table("admin"), MAY, "the operator's door"),
            ("audit", SchemaShape::Table("audit"), MAY, "where calls and actions are recorded in a chain"),
            ("client", SchemaShape::Named("client"), MAY, "who may call"),
            ("include", SchemaShape::Texts, MAY, "more files of this config, as in conf.d/*.toml"),
            (
                "limits",
                SchemaShape::Table("limits"),
                MAY,
                "what is refused to be spent on anybody; 0 switches a limit off",
            ),
            ("listener", SchemaShape::List("listener"), MUST, "where countersign listens"),
            ("log", SchemaShape::Table("log"), MAY, "how and where it logs"),
            ("provider", SchemaShape::Named("provider"), MAY, "whom it calls"),
            ("reload", SchemaShape::Table("reload"), MAY, "when the config is read anew"),
            ("route", SchemaShape::List("route"), MAY, "what leads from a request to a provider"),
            ("runtime", SchemaShape::Table("runtime"), MAY, "the process"),
            ("store", SchemaShape::Table("store"), MAY, "where records outlive the process"),
            ("tracing", SchemaShape::Table("tracing"), MAY, "where traces go"),
        ],
    ),
    (
        "admin",
        &[
            ("bind", SchemaShape::Address, MUST, "IP address and port; off loopback with TLS and a token only"),
            (
                "open",
                SchemaShape::Choices(&["livez", "metrics", "readyz"]),
                MAY,
                "what needs no token; default: nothing",
            ),
            ("tls", SchemaShape::InternalOr("listener_tls"), MAY, "without it: plain HTTP"),
            ("token", SchemaShape::Named("admin_token"), MAY, "who may come in; none: everybody on this machine"),
        ],
    ),
    (
        "admin_token",
        &[
            ("role", SchemaShape::Choice(&["operate", "read"]), MUST, "read looks; operate may change things, too"),
            ("value", SchemaShape::Source, MUST, "what is shown as a bearer token"),
        ],
    ),
    (
        "audit",
        &[
            (
                "key",
                SchemaShape::Source,
                MAY,
                "makes the chain one that only its holder can make; 32 characters or more",
            ),
            (
                "on_failure",
                SchemaShape::Choice(&["refuse", "continue"]),
                MAY,
                "what becomes of calls while records cannot be written; refuse",
            ),
            ("rotate", SchemaShape::Size, MAY, "begins a new file at this size; 100MiB; 0: never"),
            ("to", SchemaShape::Text, MUST, "path of the file, or stdout"),
        ],
    ),
    (
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
    ),
    (
        "jwt",
        &[
            ("audience", SchemaShape::Text, MUST, "what its `aud` must hold"),
            ("ca", SchemaShape::Text, MAY, "path of the only CAs to trust for the issuer's keys, PEM"),
            ("issuer", SchemaShape::Text, MUST, "what its `iss` must be"),
            ("jwks_url", SchemaShape::Url, MAY, "where the issuer's keys are; default: by discovery"),
            ("subject", SchemaShape::Text, MUST, "what its `sub` must be"),
        ],
    ),
    (
        "limits",
        &[
            ("body_min_rate", SchemaShape::Count(0), MAY, "bytes a second of a request body, after 10 s; 240"),
            ("buffered_bytes", SchemaShape::Size, MAY, "replay buffers of the whole process; 64MiB"),
            ("connections", SchemaShape::Count(0), MAY, "client connections of the whole process; 10000"),
            ("connections_per_peer", SchemaShape::Count(0), MAY, "client connections from one address; 512"),
            ("drain", DURATION_OR_OFF, MAY, "let requests finish this long after SIGTERM; 30s"),
            ("drain_delay", DURATION_OR_OFF, MAY, "keep accepting this long after SIGTERM; 0s"),
            ("handshakes", SchemaShape::Count(0), MAY, "TLS handshakes under way; 256"),
            ("header_bytes", SchemaShape::Size, MAY, "a request's head; 32KiB"),
            ("header_timeout", DURATION_OR_OFF, MAY, "a request's head must be complete by then; 10s"),
            ("headers", SchemaShape::Count(0), MAY, "fields of a request's head; 100"),
            ("idle_timeout", DURATION_OR_OFF, MAY, "a client connection may be silent this long; 75s"),
            ("streams", SchemaShape::Count(0), MAY, "streams of one HTTP/2 connection; 100"),
            (
                "tokens",
                SchemaShape::Count(0),
                MAY,
                "tokens at hand; beyond, the least recently used is forgotten; 10000",
            ),
            ("tunnel_idle", DURATION_OR_OFF, MAY, "a blind tunnel may be silent this long; 5m"),
            ("tunnel_lifetime", DURATION_OR_OFF, MAY, "a blind tunnel lasts at most so long; 24h"),
            ("uri_bytes", SchemaShape::Size, MAY, "a request's target; 8KiB"),
        ],
    ),
    ("listener", &listener::KEYS),
    (
        "consent",
        &[
            ("authorize_url", SchemaShape::Url, MAY, "where users agree, where the profile cannot know it"),
            ("keep_alive", DURATION, MAY, "refresh tokens are kept alive this long after a user's last call; 12h"),
            ("params", SchemaShape::Settings, MAY, "parameters of the authorize request, as the profile names them"),
            ("public_url", SchemaShape::Url, MUST, "how browsers reach the callback listener"),
            (
                "return_to",
                SchemaShape::Texts,
                MAY,
                "where browsers may be sent in the end, as in https://app.example/*",
            ),
        ],
    ),
    ("intercept", &listener::INTERCEPT_KEYS),
    ("listener_tls", &listener::TLS_KEYS),
    (
        "log",
        &[
            ("access", SchemaShape::Text, MAY, "where access lines go: stderr, off, or a path"),
            ("format", SchemaShape::Choice(&["json", "text"]), MAY, "default: text on a terminal, else JSON"),
            ("level", SchemaShape::Text, MAY, "info, or a filter"),
        ],
    ),
    (
        "provider",
        &[
            ("base_url", SchemaShape::Url, MAY, "where its API lives"),
            ("clients", SchemaShape::Who, MAY, "bounds every route that uses this provider"),
            ("consent", SchemaShape::Table("consent"), MAY, "how its users consent"),
            ("default_ttl", DURATION, MAY, "how long a token lives when the provider does not say"),
            ("environment", SchemaShape::Text, MAY, "a base URL that the profile knows"),
            (
                "header_case",
                SchemaShape::Choice(&["lower", "preserve"]),
                MAY,
                "how names of fields are written over HTTP/1.1; preserve: as the client and the profile wrote them; lower",
            ),
            ("http", SchemaShape::Choice(&["1.1"]), MAY, "HTTP/2 is not offered"),
            (
                "http_proxy",
                SchemaShape::Source,
                MAY,
                "the corporate proxy that leads there, as in http://user:password@host:3128",
            ),
            (
                "invalid_header_lines",
                SchemaShape::Choice(&["drop", "refuse"]),
                MAY,
                "what becomes of a malformed line in an answer's head; drop: it is taken out and logged; refuse",
            ),
            ("profile", SchemaShape::Text, MUST, "a built-in profile, or the path of one of your own"),
            ("refresh_before", DURATION, MAY, "renew a token this long before it expires; 60s"),
            ("source_address", SchemaShape::Text, MAY, "the address that connections come from"),
            ("timeouts", SchemaShape::Table("timeouts"), MAY, "how long to wait"),
            ("tls", SchemaShape::Table("provider_tls"), MAY, "for token and resource calls alike"),
            ("token_url", SchemaShape::Url, MAY, "where the token comes from"),
            ("trace_context", SchemaShape::Flag, MAY, "false: it is not told which trace a request belongs to; true"),
            (
                "user_agent",
                SchemaShape::Text,
                MAY,
                "of our own calls: token, authorize, refresh; countersign and its version",
            ),
        ],
    ),
    (
        "provider_tls",
        &[
            ("ca", SchemaShape::Text, MAY, "path of the only CAs to trust, PEM"),
            ("client_cert", SchemaShape::Text, MAY, "path of our certificate and its chain, PEM"),
            ("client_key", SchemaShape::Text, MAY, "path of its private key, PEM"),
            ("client_key_password", SchemaShape::Source, MAY, "what opens that key, if it is encrypted"),
            (
                "key_exchange",
                SchemaShape::Choices(&crate::tls::KEY_EXCHANGES),
                MAY,
                "the groups to offer, as in x25519; default: all but the last",
            ),
            ("min_version", TLS_VERSIONS, MAY, "1.2"),
            ("server_name", SchemaShape::Text, MAY, "the name to ask for and to verify"),
        ],
    ),
    (
        "route",
        &[
            ("allow", SchemaShape::Texts, MAY, "the provider's paths that may be reached, as in GET /v1/*"),
            ("as", SchemaShape::Choice(&["application", "user"]), MAY, "whose token is used"),
            ("clients", SchemaShape::Who, MAY, "who may use it; required as soon as there are two clients"),
            (
                "enforce",
                SchemaShape::Flag,
                MAY,
                "false: what its allow, rate_limit and bounds would refuse passes and is logged",
            ),
            ("headers", SchemaShape::Headers, MAY, "always set on the request"),
            ("host", SchemaShape::Text, MAY, "a host name without port"),
            ("listeners", SchemaShape::Texts, MAY, "the listeners that serve it; default: all"),
            ("methods", SchemaShape::Texts, MAY, "such as GET and POST; default: any"),
            ("name", SchemaShape::Text, MAY, "for logs and metrics"),
            ("path", SchemaShape::Text, MAY, "whole leading segments, as in /scb"),
            (
                "path_rules",
                SchemaShape::ChoiceOrList(
                    &["lenient", "strict"],
                    &["double-encoding", "encoded-slashes", "parameters", "slashes"],
                ),
                MAY,
                "what passes that a bank may read in two ways; lenient: // and %2f; strict: nothing",
            ),
            ("provider", SchemaShape::Text, MUST, "whom it calls"),
            ("rate_limit", SchemaShape::Table("rate_limit"), MAY, "how many requests this instance lets through"),
            (
                "reflection",
                SchemaShape::Choice(&["block", "mask", "off"]),
                MAY,
                "a credential that the provider echoes; mask",
            ),
            ("replay_limit", SchemaShape::Size, MAY, "largest request body that is kept for the one replay; 1MiB"),
            (
                "request_buffering",
                SchemaShape::Flag,
                MAY,
                "true: bodies are gathered first, within replay_limit, and go out with a length",
            ),
            ("settings", SchemaShape::Settings, MAY, "overrides settings of the profile"),
            ("strip", SchemaShape::Flag, MAY, "removes `path` before forwarding; true"),
            ("timeouts", SchemaShape::Table("timeouts"), MAY, "default: the provider's"),
            (
                "token_endpoint",
                SchemaShape::Choice(&["stub"]),
                MAY,
                "stub: answers the provider's token endpoint itself, with a worthless token",
            ),
            ("upgrade", SchemaShape::Choices(&["websocket"]), MAY, "what a request may switch to; default: nothing"),
            ("upstream", SchemaShape::Url, MAY, "where requests go; default: the provider's base URL"),
            ("user", SchemaShape::Table("user"), MAY, "how a request names its user"),
            ("vars", SchemaShape::Named("var"), MAY, "values that are taken from the request"),
        ],
    ),
    (
        "rate_limit",
        &[
            ("per", DURATION, MUST, "in this long"),
            ("requests", SchemaShape::Count(1), MUST, "so many requests"),
            ("wait", DURATION, MAY, "a request may wait this long for its turn"),
        ],
    ),
    (
        "reload",
        &[(
            "watch",
            SchemaShape::Choice(&["all", "secrets"]),
            MAY,
            "the files whose change is a reload; default: secrets",
        )],
    ),
    ("runtime", &[("workers", SchemaShape::Count(1), MAY, "threads that serve requests; default: one per core")]),
    (
        "store",
        &[
            (
                "ephemeral",
                SchemaShape::Flag,
                MAY,
                "true: a store in memory may hold users' tokens, and forget them; false",
            ),
            (
                "keys",
                SchemaShape::Sources,
                MAY,
                "what records are sealed under: 32 bytes, base64; the first writes, all read",
            ),
            ("namespace", SchemaShape::Text, MAY, "what every key in Redis begins with; countersign"),
            ("password", SchemaShape::Source, MAY, "for Redis"),
            ("tls", SchemaShape::Table("store_tls"), MAY, "for rediss://"),
            ("url", SchemaShape::Text, MAY, "memory:, file:PATH, redis://HOST:PORT/0 or rediss://HOST:PORT/0; memory:"),
            ("username", SchemaShape::Text, MAY, "the ACL user of Redis"),
        ],
    ),
    (
        "store_tls",
        &[
            ("ca", SchemaShape::Text, MAY, "path of the only CAs to trust, PEM"),
            ("client_cert", SchemaShape::Text, MAY, "path of our certificate and its chain, PEM"),
            ("client_key", SchemaShape::Text, MAY, "path of its private key, PEM"),
        ],
    ),
    (
        "timeouts",
        &[
            ("body_idle", DURATION, MAY, "between two pieces of a body; 60s"),
            ("connect", DURATION, MAY, "DNS, TCP and TLS together; 5s"),
            ("idle", DURATION, MAY, "an unused connection is kept this long; 20s"),
            ("response", DURATION, MAY, "from the request's end to the head of the response; 60s"),
            ("token", DURATION, MAY, "a whole token call; 10s"),
        ],
    ),
    (
        "tracing",
        &[
            ("ca", SchemaShape::Text, MAY, "path of the only CAs to trust, PEM"),
            ("headers", SchemaShape::Headers, MAY, "what every export carries, such as an API key"),
            ("otlp", SchemaShape::Text, MUST, "the collector, as in http://127.0.0.1:4318; OTLP over HTTP"),
            ("sample", SchemaShape::Share, MAY, "the share of new traces that is recorded; 1"),
            ("service_name", SchemaShape::Text, MAY, "what we are called there; countersign"),
        ],
    ),
    ("user", &[("header", SchemaShape::Text, MUST, "the header that names the user; default: countersign-user")]),
    (
        "var",
        &[
            ("forward", SchemaShape::Flag, MAY, "forwards the header all the same"),
            ("header", SchemaShape::Text, MAY, "the one header field of this name"),
            ("json", SchemaShape::Text, MAY, "the value at this JSON pointer of the body"),
            ("path", SchemaShape::Text, MAY, "the segment in braces of a template over the provider's path"),
            ("pattern", SchemaShape::Text, MAY, "a regular expression that the whole value must match"),
            ("query", SchemaShape::Text, MAY, "the one query parameter of this name"),
            ("value", SchemaShape::Text, MAY, "this constant"),
        ],
    ),
];

/// The keys of a section, sorted; none for a section that there is not.
pub fn keys(section: &str) -> Vec<&'static str> {
    rows(section).into_iter().map(|(key, ..)| key).collect()
}

/// The rows of a section, sorted. Those of `[[listener]]` come from each mode, too.
fn rows(section: &str) -> Vec<SchemaKey> {
    let modes = listener::MODES.map(|mode| ("listener", mode.keys));
    let found = SECTIONS.into_iter().chain(modes).filter(|(name, _)| *name == section);
    let mut rows: Vec<SchemaKey> = found.flat_map(|(_, keys)| keys).copied().collect();
    rows.sort_by_key(|(key, ..)| *key);
    rows
}

/// The schema: JSON Schema, draft 2020-12.
pub fn document() -> Value {
    let mut defs = Map::new();
    for (section, _) in SECTIONS {
        defs.insert(section.to_owned(), table(&rows(section)));
    }
    if let Some(provider) = defs.get_mut("provider") {
        bring_settings(provider);
    }
    let mut whole = defs.remove("file").unwrap_or_default();
    if let Some(whole) = whole.as_object_mut() {
        whole.insert("$schema".to_owned(), "https://json-schema.org/draft/2020-12/schema".into());
        whole.insert("title".to_owned(), "proxy.toml of countersign".into());
        whole.insert("$defs".to_owned(), defs.into());
    }
    whole
}

fn table(keys: &[SchemaKey]) -> Value {
    let described = |(name, shape, _, about): &SchemaKey| {
        let mut value = shape.schema();
        if let Some(value) = value.as_object_mut() {
            value.insert("description".to_owned(), (*about).into());
        }
        ((*name).to_owned(), value)
    };
    let properties: Map<String, Value> = keys.iter().map(described).collect();
    let required: Vec<&str> = keys.iter().filter(|(_, _, required, _)| *required).map(|(name, ..)| *name).collect();
    json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false })
}

/// Adds the settings of the built-in profiles, each for a provider that names the profile. The settings of a custom
/// profile are not known here, so any key is allowed beside its path.
fn bring_settings(provider: &mut Value) {
    let common = provider["properties"].clone();
    let cases: Vec<Value> = Profile::builtin_names()
        .into_iter()
        .filter_map(Profile::builtin)
        .map(|profile| {
            let declared = profile.declared();
            let mut properties = common.as_object().cloned().unwrap_or_default();
            for value in properties.values_mut() {
                *value = json!(true);
            }
            let required: Vec<&str> = declared.iter().filter(|one| one.required).map(|one| &*one.name).collect();
            properties.extend(declared.iter().map(|one| (one.name.to_string(), setting(one))));
            if !profile.environments().is_empty() {
                properties.insert("environment".to_owned(), json!({ "enum": profile.environments() }));
            }
            json!({
                "if": { "properties": { "profile": { "const": profile.name() } }, "required": ["profile"] },
                "then": { "properties": properties, "required": required, "additionalProperties": false },
            })
        })
        .collect();
    if let Some(provider) = provider.as_object_mut() {
        provider.remove("additionalProperties");
        provider.insert("allOf".to_owned(), cases.into());
    }
}

fn setting(declared: &DeclaredSetting) -> Value {
    let mut value = if declared.table { SchemaShape::Settings.schema() } else { text_or_source() };
    if let (Some(value), false) = (value.as_object_mut(), declared.description.is_empty()) {
        value.insert("description".to_owned(), declared.description.clone().into());
    }
    value
}

/// A literal, `{ env = "NAME" }` or `{ file = "path" }`.
fn text_or_source() -> Value {
    let from = |key: &str| {
        json!({ "type": "object", "properties": { key: { "type": "string" } }, "required": [key],
                "additionalProperties": false })
    };
    json!({ "anyOf": [{ "type": "string" }, from("env"), from("file")] })
}

impl SchemaShape {
    fn schema(self) -> Value {
        let named = |section: &str| json!({ "$ref": format!("#/$defs/{section}") });
        let duration = json!({ "type": "string", "pattern": "^([0-9]+(ms|s|m|h|d))+$" });
        match self {
            SchemaShape::Address => json!({ "type": "string", "pattern": "^.+:[0-9]{1,5}$" }),
            SchemaShape::Bind => json!({ "type": "string", "pattern": "^(unix:.+|.+:[0-9]{1,5})$" }),
            SchemaShape::Bounds => {
                json!({ "type": "object", "additionalProperties": { "type": "array", "items": { "type": "string" } } })
            }
            SchemaShape::Choice(words) => json!({ "enum": words }),
            SchemaShape::ChoiceOrList(words, list) => {
                json!({ "anyOf": [{ "enum": words }, { "type": "array", "items": { "enum": list } }] })
            }
            SchemaShape::Choices(words) => json!({ "type": "array", "items": { "enum": words } }),
            SchemaShape::Counts => json!({ "type": "array", "items": { "type": "integer", "minimum": 0 } }),
            SchemaShape::Count(least) => json!({ "type": "integer", "minimum": least }),
            SchemaShape::Duration { off: false } => duration,
            SchemaShape::Duration { off: true } => json!({ "anyOf": [duration, { "const": 0 }] }),
            SchemaShape::Flag => json!({ "type": "boolean" }),
            SchemaShape::Headers => json!({ "type": "object", "additionalProperties": text_or_source() }),
            SchemaShape::InternalOr(section) => json!({ "anyOf": [{ "const": "internal" }, named(section)] }),
            SchemaShape::List(section) => json!({ "type": "array", "items": named(section) }),
            SchemaShape::Named(section) => json!({ "type": "object", "additionalProperties": named(section) }),
            SchemaShape::Settings => json!({ "type": "object" }),
            SchemaShape::Share => json!({ "type": "number", "minimum": 0, "maximum": 1 }),
            SchemaShape::Size => {
                json!({ "anyOf": [{ "type": "string", "pattern": "^[0-9]+(B|KiB|MiB|GiB)$" }, { "const": 0 }] })
            }
            SchemaShape::Source => text_or_source(),
            SchemaShape::Sources => json!({ "type": "array", "items": text_or_source() }),
            SchemaShape::Table(section) => named(section),
            SchemaShape::Text => json!({ "type": "string" }),
            SchemaShape::Texts => json!({ "type": "array", "items": { "type": "string" } }),
            SchemaShape::Url => json!({ "type": "string", "pattern": "^[Hh][Tt][Tt][Pp][Ss]://" }),
            SchemaShape::Who => {
                json!({ "anyOf": [{ "const": "anyone" }, { "type": "array", "items": { "type": "string" } }] })
            }
        }
    }
}
