//! The JSON Schema of `proxy.toml`, for editors.
//!
//! The reader in this room is the law; this is one table beside it, with a line for every key that the reader takes. A
//! test asks the reader for its keys and compares. What only the reader can judge (names that must exist, files that
//! must be there, what goes with what) is not said here: `countersign check` says it.

use serde_json::{Map, Value, json};

use crate::provider::{DeclaredSetting, Profile};

/// What a key's value looks like.
#[derive(Clone, Copy, Debug)]
enum Shape {
    /// An IP address and a port.
    Address,
    /// The same, or `unix:` and a path.
    Bind,
    /// A table of freely named lists of texts.
    Bounds,
    /// One of these words.
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
    /// True or false.
    Flag,
    /// A table of freely named headers with values.
    Headers,
    /// A table, or the word `"internal"`.
    InternalOr(&'static str),
    /// A list of tables: `[[key]]`.
    List(&'static str),
    /// Freely named tables: `[key.NAME]`.
    Named(&'static str),
    /// A number from 0 to 1.
    Share,
    /// `"64KiB"` or 0.
    Size,
    /// A table whose members the profile says.
    Settings,
    /// A text that may be elsewhere: `{ env = "NAME" }` or `{ file = "path" }`.
    Source,
    /// A list of those.
    Sources,
    /// A table: `[key]` or `{ … }`.
    Table(&'static str),
    /// A text.
    Text,
    /// A list of texts.
    Texts,
    /// An `https` URL.
    Url,
    /// `"anyone"`, or a list of clients.
    Who,
}

/// One key: its name, its value, whether it must be there, a few words.
type Key = (&'static str, Shape, bool, &'static str);

const MUST: bool = true;
const MAY: bool = false;
const DURATION: Shape = Shape::Duration { off: false };
const DURATION_OR_OFF: Shape = Shape::Duration { off: true };
const TLS_VERSIONS: Shape = Shape::Choice(&["1.2", "1.3"]);

/// Every section with its keys. The first is the file itself.
const SECTIONS: [(&str, &[Key]); 24] = [
    (
        "file",
        &[
            ("admin", Shape::Table("admin"), MAY, "the operator's door"),
            ("audit", Shape::Table("audit"), MAY, "where calls and actions are recorded in a chain"),
            ("client", Shape::Named("client"), MAY, "who may call"),
            ("include", Shape::Texts, MAY, "more files of this config, as in conf.d/*.toml"),
            ("limits", Shape::Table("limits"), MAY, "what is refused to be spent on anybody; 0 switches a limit off"),
            ("listener", Shape::List("listener"), MUST, "where countersign listens"),
            ("log", Shape::Table("log"), MAY, "how and where it logs"),
            ("provider", Shape::Named("provider"), MAY, "whom it calls"),
            ("reload", Shape::Table("reload"), MAY, "when the config is read anew"),
            ("route", Shape::List("route"), MAY, "what leads from a request to a provider"),
            ("runtime", Shape::Table("runtime"), MAY, "the process"),
            ("store", Shape::Table("store"), MAY, "where records outlive the process"),
            ("tracing", Shape::Table("tracing"), MAY, "where traces go"),
        ],
    ),
    (
        "admin",
        &[
            ("bind", Shape::Address, MUST, "IP address and port; off loopback with TLS and a token only"),
            ("open", Shape::Choices(&["livez", "metrics", "readyz"]), MAY, "what needs no token; default: nothing"),
            ("tls", Shape::InternalOr("listener_tls"), MAY, "without it: plain HTTP"),
            ("token", Shape::Named("admin_token"), MAY, "who may come in; none: everybody on this machine"),
        ],
    ),
    (
        "admin_token",
        &[
            ("role", Shape::Choice(&["operate", "read"]), MUST, "read looks; operate may change things, too"),
            ("value", Shape::Source, MUST, "what is shown as a bearer token"),
        ],
    ),
    (
        "audit",
        &[
            ("key", Shape::Source, MAY, "makes the chain one that only its holder can make; 32 characters or more"),
            (
                "on_failure",
                Shape::Choice(&["refuse", "continue"]),
                MAY,
                "what becomes of calls while records cannot be written; refuse",
            ),
            ("rotate", Shape::Size, MAY, "begins a new file at this size; 100MiB; 0: never"),
            ("to", Shape::Text, MUST, "path of the file, or stdout"),
        ],
    ),
    (
        "client",
        &[
            ("certificate", Shape::Text, MAY, "a SAN URI or DNS name of its certificate, or CN=…"),
            ("consent_group", Shape::Text, MAY, "consents are shared by all clients of this group"),
            ("jwt", Shape::Table("jwt"), MAY, "the signed token that it shows"),
            ("key_sha256", Shape::Texts, MAY, "the SHA-256 of each of its keys; `countersign key new` makes one"),
            ("networks", Shape::Texts, MAY, "where it may call from, as in 10.1.0.0/16"),
            ("networks_only", Shape::Flag, MAY, "its network alone identifies it"),
            ("uids", Shape::Counts, MAY, "users at the other end of a Unix socket"),
            ("users", Shape::Texts, MAY, "the users in whose name it may call; * for all; default: none"),
            ("vars", Shape::Bounds, MAY, "the values that it may name for variables of routes"),
        ],
    ),
    (
        "jwt",
        &[
            ("audience", Shape::Text, MUST, "what its `aud` must hold"),
            ("ca", Shape::Text, MAY, "path of the only CAs to trust for the issuer's keys, PEM"),
            ("issuer", Shape::Text, MUST, "what its `iss` must be"),
            ("jwks_url", Shape::Url, MAY, "where the issuer's keys are; default: by discovery"),
            ("subject", Shape::Text, MUST, "what its `sub` must be"),
        ],
    ),
    (
        "limits",
        &[
            ("body_min_rate", Shape::Count(0), MAY, "bytes a second of a request body, after 10 s; 240"),
            ("buffered_bytes", Shape::Size, MAY, "replay buffers of the whole process; 64MiB"),
            ("connections", Shape::Count(0), MAY, "client connections of the whole process; 10000"),
            ("connections_per_peer", Shape::Count(0), MAY, "client connections from one address; 512"),
            ("drain", DURATION_OR_OFF, MAY, "let requests finish this long after SIGTERM; 30s"),
            ("drain_delay", DURATION_OR_OFF, MAY, "keep accepting this long after SIGTERM; 0s"),
            ("handshakes", Shape::Count(0), MAY, "TLS handshakes under way; 256"),
            ("header_bytes", Shape::Size, MAY, "a request's head; 32KiB"),
            ("header_timeout", DURATION_OR_OFF, MAY, "a request's head must be complete by then; 10s"),
            ("headers", Shape::Count(0), MAY, "fields of a request's head; 100"),
            ("idle_timeout", DURATION_OR_OFF, MAY, "a client connection may be silent this long; 75s"),
            ("streams", Shape::Count(0), MAY, "streams of one HTTP/2 connection; 100"),
            ("tokens", Shape::Count(0), MAY, "tokens at hand; beyond, the least recently used is forgotten; 10000"),
            ("tunnel_idle", DURATION_OR_OFF, MAY, "a blind tunnel may be silent this long; 5m"),
            ("tunnel_lifetime", DURATION_OR_OFF, MAY, "a blind tunnel lasts at most so long; 24h"),
            ("uri_bytes", Shape::Size, MAY, "a request's target; 8KiB"),
        ],
    ),
    (
        "listener",
        &[
            ("bind", Shape::Bind, MUST, "IP address and port (0: any free one), or unix:/path"),
            ("clients", Shape::Who, MAY, "who is let in; default: every client of the file"),
            ("intercept", Shape::Table("intercept"), MAY, "the CA that clients of a forward listener trust"),
            (
                "mode",
                Shape::Choice(&["callback", "forward", "reverse"]),
                MAY,
                "reverse: routed by host and path; forward: a proxy that clients are told of; callback: consents alone",
            ),
            ("name", Shape::Text, MAY, "for logs and metrics"),
            ("names", Shape::Texts, MAY, "the hosts that it answers to; default: any"),
            ("plaintext", Shape::Choice(&["allowed"]), MAY, "off loopback without TLS"),
            ("proxy_protocol", Shape::Texts, MAY, "the networks whose connections begin with the PROXY protocol"),
            ("tls", Shape::InternalOr("listener_tls"), MAY, "without it: plain HTTP"),
            (
                "unmatched",
                Shape::Choice(&["deny", "tunnel"]),
                MAY,
                "what a forward listener does with a CONNECT to a host without a route; deny",
            ),
        ],
    ),
    (
        "consent",
        &[
            ("authorize_url", Shape::Url, MAY, "where users agree, where the profile cannot know it"),
            ("keep_alive", DURATION, MAY, "refresh tokens are kept alive this long after a user's last call; 12h"),
            ("params", Shape::Settings, MAY, "parameters of the authorize request, as the profile names them"),
            ("public_url", Shape::Url, MUST, "how browsers reach the callback listener"),
            ("return_to", Shape::Texts, MAY, "where browsers may be sent in the end, as in https://app.example/*"),
        ],
    ),
    (
        "intercept",
        &[
            ("ca_cert", Shape::Text, MUST, "path of the interception CA's certificate, PEM"),
            ("ca_key", Shape::Text, MUST, "path of its private key, PEM"),
        ],
    ),
    (
        "listener_tls",
        &[
            ("cert", Shape::Text, MUST, "path of the certificate and its chain, PEM"),
            ("client_auth", Shape::Choice(&["optional", "required"]), MAY, "whether a client must show a certificate"),
            ("client_ca", Shape::Text, MAY, "path of the CAs of client certificates, PEM"),
            ("key", Shape::Text, MUST, "path of its private key, PEM"),
            ("min_version", TLS_VERSIONS, MAY, "1.2"),
        ],
    ),
    (
        "log",
        &[
            ("access", Shape::Text, MAY, "where access lines go: stderr, off, or a path"),
            ("format", Shape::Choice(&["json", "text"]), MAY, "default: text on a terminal, else JSON"),
            ("level", Shape::Text, MAY, "info, or a filter"),
        ],
    ),
    (
        "provider",
        &[
            ("base_url", Shape::Url, MAY, "where its API lives"),
            ("clients", Shape::Who, MAY, "bounds every route that uses this provider"),
            ("consent", Shape::Table("consent"), MAY, "how its users consent"),
            ("default_ttl", DURATION, MAY, "how long a token lives when the provider does not say"),
            ("environment", Shape::Text, MAY, "a base URL that the profile knows"),
            (
                "header_case",
                Shape::Choice(&["lower", "preserve"]),
                MAY,
                "how names of fields are written over HTTP/1.1; preserve: as the client and the profile wrote them; lower",
            ),
            ("http", Shape::Choice(&["1.1"]), MAY, "HTTP/2 is not offered"),
            (
                "http_proxy",
                Shape::Source,
                MAY,
                "the corporate proxy that leads there, as in http://user:password@host:3128",
            ),
            (
                "invalid_header_lines",
                Shape::Choice(&["drop", "refuse"]),
                MAY,
                "what becomes of a malformed line in an answer's head; drop: it is taken out and logged; refuse",
            ),
            ("profile", Shape::Text, MUST, "a built-in profile, or the path of one of your own"),
            ("refresh_before", DURATION, MAY, "renew a token this long before it expires; 60s"),
            ("source_address", Shape::Text, MAY, "the address that connections come from"),
            ("timeouts", Shape::Table("timeouts"), MAY, "how long to wait"),
            ("tls", Shape::Table("provider_tls"), MAY, "for token and resource calls alike"),
            ("token_url", Shape::Url, MAY, "where the token comes from"),
            ("trace_context", Shape::Flag, MAY, "false: it is not told which trace a request belongs to; true"),
            (
                "user_agent",
                Shape::Text,
                MAY,
                "of our own calls: token, authorize, refresh; countersign and its version",
            ),
        ],
    ),
    (
        "provider_tls",
        &[
            ("ca", Shape::Text, MAY, "path of the only CAs to trust, PEM"),
            ("client_cert", Shape::Text, MAY, "path of our certificate and its chain, PEM"),
            ("client_key", Shape::Text, MAY, "path of its private key, PEM"),
            ("client_key_password", Shape::Source, MAY, "what opens that key, if it is encrypted"),
            (
                "key_exchange",
                Shape::Choices(&crate::tls::KEY_EXCHANGES),
                MAY,
                "the groups to offer, as in x25519; default: all but the last",
            ),
            ("min_version", TLS_VERSIONS, MAY, "1.2"),
            ("server_name", Shape::Text, MAY, "the name to ask for and to verify"),
        ],
    ),
    (
        "route",
        &[
            ("allow", Shape::Texts, MAY, "the provider's paths that may be reached, as in GET /v1/*"),
            ("as", Shape::Choice(&["application", "user"]), MAY, "whose token is used"),
            ("clients", Shape::Who, MAY, "who may use it; required as soon as there are two clients"),
            (
                "enforce",
                Shape::Flag,
                MAY,
                "false: what its allow, rate_limit and bounds would refuse passes and is logged",
            ),
            ("headers", Shape::Headers, MAY, "always set on the request"),
            ("host", Shape::Text, MAY, "a host name without port"),
            ("listeners", Shape::Texts, MAY, "the listeners that serve it; default: all"),
            ("methods", Shape::Texts, MAY, "such as GET and POST; default: any"),
            ("name", Shape::Text, MAY, "for logs and metrics"),
            ("path", Shape::Text, MAY, "whole leading segments, as in /scb"),
            (
                "path_rules",
                Shape::ChoiceOrList(
                    &["lenient", "strict"],
                    &["double-encoding", "encoded-slashes", "parameters", "slashes"],
                ),
                MAY,
                "what passes that a bank may read in two ways; lenient: // and %2f; strict: nothing",
            ),
            ("provider", Shape::Text, MUST, "whom it calls"),
            ("rate_limit", Shape::Table("rate_limit"), MAY, "how many requests this instance lets through"),
            (
                "reflection",
                Shape::Choice(&["block", "mask", "off"]),
                MAY,
                "a credential that the provider echoes; mask",
            ),
            ("replay_limit", Shape::Size, MAY, "largest request body that is kept for the one replay; 1MiB"),
            (
                "request_buffering",
                Shape::Flag,
                MAY,
                "true: bodies are gathered first, within replay_limit, and go out with a length",
            ),
            ("settings", Shape::Settings, MAY, "overrides settings of the profile"),
            ("strip", Shape::Flag, MAY, "removes `path` before forwarding; true"),
            ("timeouts", Shape::Table("timeouts"), MAY, "default: the provider's"),
            (
                "token_endpoint",
                Shape::Choice(&["stub"]),
                MAY,
                "stub: answers the provider's token endpoint itself, with a worthless token",
            ),
            ("upgrade", Shape::Choices(&["websocket"]), MAY, "what a request may switch to; default: nothing"),
            ("upstream", Shape::Url, MAY, "where requests go; default: the provider's base URL"),
            ("user", Shape::Table("user"), MAY, "how a request names its user"),
            ("vars", Shape::Named("var"), MAY, "values that are taken from the request"),
        ],
    ),
    (
        "rate_limit",
        &[
            ("per", DURATION, MUST, "in this long"),
            ("requests", Shape::Count(1), MUST, "so many requests"),
            ("wait", DURATION, MAY, "a request may wait this long for its turn"),
        ],
    ),
    (
        "reload",
        &[("watch", Shape::Choice(&["all", "secrets"]), MAY, "the files whose change is a reload; default: secrets")],
    ),
    ("runtime", &[("workers", Shape::Count(1), MAY, "threads that serve requests; default: one per core")]),
    (
        "store",
        &[
            ("ephemeral", Shape::Flag, MAY, "true: a store in memory may hold users' tokens, and forget them; false"),
            (
                "keys",
                Shape::Sources,
                MAY,
                "what records are sealed under: 32 bytes, base64; the first writes, all read",
            ),
            ("namespace", Shape::Text, MAY, "what every key in Redis begins with; countersign"),
            ("password", Shape::Source, MAY, "for Redis"),
            ("tls", Shape::Table("store_tls"), MAY, "for rediss://"),
            ("url", Shape::Text, MAY, "memory:, file:PATH, redis://HOST:PORT/0 or rediss://HOST:PORT/0; memory:"),
            ("username", Shape::Text, MAY, "the ACL user of Redis"),
        ],
    ),
    (
        "store_tls",
        &[
            ("ca", Shape::Text, MAY, "path of the only CAs to trust, PEM"),
            ("client_cert", Shape::Text, MAY, "path of our certificate and its chain, PEM"),
            ("client_key", Shape::Text, MAY, "path of its private key, PEM"),
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
            ("ca", Shape::Text, MAY, "path of the only CAs to trust, PEM"),
            ("headers", Shape::Headers, MAY, "what every export carries, such as an API key"),
            ("otlp", Shape::Text, MUST, "the collector, as in http://127.0.0.1:4318; OTLP over HTTP"),
            ("sample", Shape::Share, MAY, "the share of new traces that is recorded; 1"),
            ("service_name", Shape::Text, MAY, "what we are called there; countersign"),
        ],
    ),
    ("user", &[("header", Shape::Text, MUST, "the header that names the user; default: countersign-user")]),
    (
        "var",
        &[
            ("forward", Shape::Flag, MAY, "forwards the header all the same"),
            ("header", Shape::Text, MAY, "the one header field of this name"),
            ("json", Shape::Text, MAY, "the value at this JSON pointer of the body"),
            ("path", Shape::Text, MAY, "the segment in braces of a template over the provider's path"),
            ("pattern", Shape::Text, MAY, "a regular expression that the whole value must match"),
            ("query", Shape::Text, MAY, "the one query parameter of this name"),
            ("value", Shape::Text, MAY, "this constant"),
        ],
    ),
];

/// The keys of a section, sorted; none for a section that there is not.
pub fn keys(section: &str) -> Vec<&'static str> {
    let found = SECTIONS.iter().find(|(name, _)| *name == section);
    found.map(|(_, keys)| keys.iter().map(|(key, ..)| *key).collect()).unwrap_or_default()
}

/// The schema: JSON Schema, draft 2020-12.
pub fn document() -> Value {
    let mut defs = Map::new();
    for (section, keys) in SECTIONS {
        defs.insert(section.to_owned(), table(keys));
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

fn table(keys: &[Key]) -> Value {
    let described = |(name, shape, _, about): &Key| {
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

/// The settings of the built-in profiles, each where its profile is named. What a profile of one's own asks for is not
/// known here, so anything may stand beside its path.
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
    let mut value = if declared.table { Shape::Settings.schema() } else { text_or_source() };
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

impl Shape {
    fn schema(self) -> Value {
        let named = |section: &str| json!({ "$ref": format!("#/$defs/{section}") });
        let duration = json!({ "type": "string", "pattern": "^([0-9]+(ms|s|m|h|d))+$" });
        match self {
            Shape::Address => json!({ "type": "string", "pattern": "^.+:[0-9]{1,5}$" }),
            Shape::Bind => json!({ "type": "string", "pattern": "^(unix:.+|.+:[0-9]{1,5})$" }),
            Shape::Bounds => {
                json!({ "type": "object", "additionalProperties": { "type": "array", "items": { "type": "string" } } })
            }
            Shape::Choice(words) => json!({ "enum": words }),
            Shape::ChoiceOrList(words, list) => {
                json!({ "anyOf": [{ "enum": words }, { "type": "array", "items": { "enum": list } }] })
            }
            Shape::Choices(words) => json!({ "type": "array", "items": { "enum": words } }),
            Shape::Counts => json!({ "type": "array", "items": { "type": "integer", "minimum": 0 } }),
            Shape::Count(least) => json!({ "type": "integer", "minimum": least }),
            Shape::Duration { off: false } => duration,
            Shape::Duration { off: true } => json!({ "anyOf": [duration, { "const": 0 }] }),
            Shape::Flag => json!({ "type": "boolean" }),
            Shape::Headers => json!({ "type": "object", "additionalProperties": text_or_source() }),
            Shape::InternalOr(section) => json!({ "anyOf": [{ "const": "internal" }, named(section)] }),
            Shape::List(section) => json!({ "type": "array", "items": named(section) }),
            Shape::Named(section) => json!({ "type": "object", "additionalProperties": named(section) }),
            Shape::Settings => json!({ "type": "object" }),
            Shape::Share => json!({ "type": "number", "minimum": 0, "maximum": 1 }),
            Shape::Size => {
                json!({ "anyOf": [{ "type": "string", "pattern": "^[0-9]+(B|KiB|MiB|GiB)$" }, { "const": 0 }] })
            }
            Shape::Source => text_or_source(),
            Shape::Sources => json!({ "type": "array", "items": text_or_source() }),
            Shape::Table(section) => named(section),
            Shape::Text => json!({ "type": "string" }),
            Shape::Texts => json!({ "type": "array", "items": { "type": "string" } }),
            Shape::Url => json!({ "type": "string", "pattern": "^[Hh][Tt][Tt][Pp][Ss]://" }),
            Shape::Who => {
                json!({ "anyOf": [{ "const": "anyone" }, { "type": "array", "items": { "type": "string" } }] })
            }
        }
    }
}
