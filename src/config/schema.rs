//! The JSON Schema of `proxy.toml`, for editors.
//!
//! The readers in `config` are authoritative; beside each stands a table with a line for every key that it takes, and
//! this file joins the tables. A test asks the readers for their keys and compares. Constraints that only a reader can
//! check (names that must exist, files that must be there, keys that belong together) are not in the schema:
//! `countersign check` reports them.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use crate::provider::{DeclaredSetting, Profile};

use super::{
    admin, audit, client, consent, credentials, file_identity, hours, limits, listener, log, otlp, profile_pack,
    provider, quota, record, reload, route, runtime, secret_source, service_key, store, svid_reference, timeouts,
    token_budget, tracing, variable, webhook, wrapped_key,
};

/// The shape of a key's value.
#[derive(Clone, Copy, Debug)]
pub(super) enum SchemaShape {
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
    Duration {
        off: bool,
    },
    Flag,
    /// A table of freely named headers with values.
    Headers,
    /// A table, or the word `"internal"`.
    InternalOr(&'static str),
    /// A log level, or a filter with `=` in it.
    Level,
    /// A list of tables: `[[key]]`.
    List(&'static str),
    /// A list of HTTP methods in capitals.
    Methods,
    /// Tables of free names, `[key.NAME]`, each with the keys of this section.
    Named(&'static str),
    /// The name of a built-in profile, or the path of another.
    Profile,
    /// A number from 0 to 1.
    Share,
    /// A size such as `"64KiB"`, or the number 0.
    Size,
    /// A table whose members the profile says.
    Settings,
    /// A text that may be elsewhere: `{ env = "NAME" }` or `{ file = "path" }`.
    Source,
    /// A list of values as in `Source`, or tables with the keys of this section.
    SourcesOr(&'static str),
    /// A table: `[key]` or `{ … }`.
    Table(&'static str),
    Text,
    /// A text, or a table with the keys of this section.
    TextOr(&'static str),
    /// A text, or a list of texts.
    TextOrTexts,
    Texts,
    /// A URL with the scheme `https`.
    Url,
    /// `"anyone"`, or a list of clients.
    Who,
}

/// One key: its name, its value, whether it must be there, a few words.
pub(super) type SchemaKey = (&'static str, SchemaShape, bool, &'static str);

/// The keys of one section, sorted, after its name. Each stands in the file of the section's reader.
pub(super) type SchemaSection = (&'static str, &'static [SchemaKey]);

pub(super) const MUST: bool = true;
pub(super) const MAY: bool = false;
pub(super) const DURATION: SchemaShape = SchemaShape::Duration { off: false };
pub(super) const DURATION_OR_OFF: SchemaShape = SchemaShape::Duration { off: true };
pub(super) const TLS_VERSIONS: SchemaShape = SchemaShape::Choice(&["1.2", "1.3"]);

/// Every section with its keys. The first is the file itself.
const SECTIONS: [SchemaSection; 42] = [
    (
        "file",
        &[
            ("admin", SchemaShape::Table("admin"), MAY, "the admin listener"),
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
            ("otlp", SchemaShape::Table("otlp"), MAY, "the collector of traces, metrics and logs"),
            ("profile_pack", SchemaShape::Named("profile_pack"), MAY, "profiles in a folder outside the program"),
            ("provider", SchemaShape::Named("provider"), MAY, "whom it calls"),
            ("reload", SchemaShape::Table("reload"), MAY, "when the config is read anew"),
            ("route", SchemaShape::List("route"), MAY, "what leads from a request to a provider"),
            ("runtime", SchemaShape::Table("runtime"), MAY, "the process"),
            ("secret_source", SchemaShape::Named("secret_source"), MAY, "a server that keeps secrets"),
            ("store", SchemaShape::Table("store"), MAY, "where records outlive the process"),
            ("tracing", SchemaShape::Table("tracing"), MAY, "where traces go"),
            ("webhook", SchemaShape::List("webhook"), MAY, "where a provider calls us"),
        ],
    ),
    admin::KEYS,
    admin::TOKEN_KEYS,
    audit::KEYS,
    client::KEYS,
    credentials::JWT_KEYS,
    limits::KEYS,
    ("listener", &listener::KEYS),
    consent::KEYS,
    file_identity::KEYS,
    file_identity::CLIENT_KEYS,
    svid_reference::KEYS,
    hours::KEYS,
    ("intercept", &listener::INTERCEPT_KEYS),
    ("listener_tls", &listener::TLS_KEYS),
    log::KEYS,
    otlp::KEYS,
    profile_pack::KEYS,
    provider::KEYS,
    provider::TLS_KEYS,
    record::KEYS,
    quota::KEYS,
    route::KEYS,
    route::RATE_LIMIT_KEYS,
    reload::KEYS,
    runtime::KEYS,
    secret_source::KEYS,
    secret_source::APP_ROLE_KEYS,
    secret_source::KUBERNETES_KEYS,
    secret_source::WEB_IDENTITY_KEYS,
    service_key::KEYS,
    store::KEYS,
    store::IAM_KEYS,
    store::SENTINEL_KEYS,
    store::TLS_KEYS,
    timeouts::KEYS,
    token_budget::KEYS,
    tracing::KEYS,
    route::USER_KEYS,
    variable::KEYS,
    webhook::KEYS,
    wrapped_key::KEYS,
];

/// The keys of a section, sorted; none for a section that there is not.
pub fn keys(section: &str) -> Vec<&'static str> {
    rows(section).into_iter().map(|(key, ..)| key).collect()
}

/// The shapes of a section's keys, by name.
pub(super) fn shapes(section: &str) -> HashMap<&'static str, SchemaShape> {
    rows(section).into_iter().map(|(key, shape, ..)| (key, shape)).collect()
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
        whole.insert("$id".to_owned(), "urn:countersign:schema:proxy.toml".into());
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
    let is_table = declared.table || declared.key || declared.public_key;
    let mut value = if is_table { SchemaShape::Settings.schema() } else { text_or_source() };
    if let (Some(value), false) = (value.as_object_mut(), declared.description.is_empty()) {
        value.insert("description".to_owned(), declared.description.clone().into());
    }
    value
}

/// A literal, `{ env = "NAME" }`, `{ file = "path" }`, `{ command = ["program"] }` or `{ source = "NAME", name = "…" }`.
fn text_or_source() -> Value {
    let duration = SchemaShape::Duration { off: false }.schema();
    let command = json!({
        "type": "object",
        "properties": {
            "command": { "type": "array", "items": { "type": "string" }, "minItems": 1 },
            "timeout": duration,
            "ttl": duration,
        },
        "required": ["command"],
        "additionalProperties": false,
    });
    let text = json!({ "type": "string" });
    let source = json!({
        "type": "object",
        "properties": {
            "field": text,
            "name": text,
            "source": text,
            "ttl": duration,
            "version": { "anyOf": [text, { "type": "integer", "minimum": 1 }] },
        },
        "required": ["source", "name"],
        "additionalProperties": false,
    });
    let from = |key: &str| {
        json!({ "type": "object", "properties": { key: { "type": "string" } }, "required": [key],
                "additionalProperties": false })
    };
    json!({ "anyOf": [{ "type": "string" }, from("env"), from("file"), command, source] })
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
            SchemaShape::Level => {
                json!({ "anyOf": [{ "enum": ["off", "error", "warn", "info", "debug", "trace"] },
                        { "type": "string", "pattern": "=|^(OFF|ERROR|WARN|INFO|DEBUG|TRACE)$" }] })
            }
            SchemaShape::List(section) => json!({ "type": "array", "items": named(section) }),
            SchemaShape::Methods => {
                json!({ "type": "array", "items": { "anyOf": [
                        { "enum": ["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"] },
                        { "type": "string", "pattern": "^[A-Z-]+$" }] } })
            }
            SchemaShape::Named(section) => json!({ "type": "object", "additionalProperties": named(section) }),
            SchemaShape::Profile => {
                json!({ "anyOf": [{ "enum": Profile::builtin_names() }, { "type": "string", "pattern": "/|\\.toml$" }] })
            }
            SchemaShape::Settings => json!({ "type": "object" }),
            SchemaShape::Share => json!({ "type": "number", "minimum": 0, "maximum": 1 }),
            SchemaShape::Size => {
                json!({ "anyOf": [{ "type": "string", "pattern": "^[0-9]+(B|KiB|MiB|GiB)$" }, { "const": 0 }] })
            }
            SchemaShape::Source => text_or_source(),
            SchemaShape::SourcesOr(section) => {
                json!({ "type": "array", "items": { "anyOf": [text_or_source(), named(section)] } })
            }
            SchemaShape::Table(section) => named(section),
            SchemaShape::Text => json!({ "type": "string" }),
            SchemaShape::TextOr(section) => json!({ "anyOf": [{ "type": "string" }, named(section)] }),
            SchemaShape::TextOrTexts => {
                json!({ "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }] })
            }
            SchemaShape::Texts => json!({ "type": "array", "items": { "type": "string" } }),
            SchemaShape::Url => json!({ "type": "string", "pattern": "^[Hh][Tt][Tt][Pp][Ss]://" }),
            SchemaShape::Who => {
                json!({ "anyOf": [{ "const": "anyone" }, { "type": "array", "items": { "type": "string" } }] })
            }
        }
    }
}
