//! The config in force, section by section, for people: what the files say, with every secret blotted out.
//!
//! The schema decides what is shown: a value appears only if its key is known to hold no secret. Everything else becomes
//! `***`: the literals of secret keys, of tables whose names are free, of settings that a profile declares secret, and
//! of keys that are not known here. The place of a value (a variable, a file, the program of a command) is shown; an
//! argument of a command may be a secret, and is not. Comments are left out.

use std::collections::HashMap;
use std::fmt::Write as _;

use super::redact::speaks_of_secrets;
use super::schema::{SchemaShape, shapes};
use crate::provider::DeclaredSetting;
use crate::syntax::{Kind, Node, Table, TableEntry};

/// Text in place of a secret.
const BLOT: &str = "\"***\"";
/// Keys of the table that says where a value comes from.
const SOURCE_KEYS: [&str; 6] = ["command", "env", "file", "timeout", "ttl", "var"];
/// Keys of a key setting whose texts are paths and names.
const KEY_PATHS: [&str; 5] = ["certificate", "file", "id", "jwk", "pkcs12"];
/// Keys of `kms` and `pkcs11` that are no credentials.
const SERVICE_NAMES: [&str; 10] =
    ["ca", "endpoint", "id", "key", "label", "module", "provider", "region", "slot", "token"];

/// A section of the config, as it may be shown.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConfigSection {
    /// Its name in messages, such as `[provider.scb]`.
    pub name: String,
    /// The file that it stands in, as it was named.
    pub file: String,
    /// Number of its first line there.
    pub line: usize,
    /// Its keys as TOML, with `***` in place of secrets.
    pub text: String,
}

/// The settings that profiles declare, by the name of the provider.
pub(super) type DeclaredSettings<'a> = HashMap<&'a str, Vec<DeclaredSetting>>;

/// Writes the sections of a config that was accepted, in the order of the files.
pub(super) fn config_sections(root: &Node, declared: &DeclaredSettings<'_>) -> Vec<ConfigSection> {
    let mut sections = Vec::new();
    let top = shapes("file");
    for entry in root.as_table().iter().flat_map(|table| &table.entries) {
        let (key, shape) = (entry.key.as_str(), top.get(entry.key.as_str()).copied());
        match (shape, &entry.value.kind) {
            (Some(SchemaShape::Named(section)), Kind::Table(table)) => {
                for named in &table.entries {
                    let path = format!("{key}.{}", written_key(&named.key));
                    let settings = if key == "provider" { declared.get(named.key.as_str()) } else { None };
                    let mut writer = SectionWriter::new(settings);
                    writer.table(&path, false, &named.value, section);
                    sections.push(section_of(format!("[{path}]"), &named.value, named.key_span.start, writer));
                }
            }
            (Some(SchemaShape::List(section)), Kind::Array(items)) => {
                for (at, item) in (1..).zip(items) {
                    let word = |key: &str| item.as_table()?.find(key)?.value.as_str();
                    let mut writer = SectionWriter::new(word("provider").and_then(|name| declared.get(name)));
                    writer.table(key, true, item, section);
                    let name =
                        word("name").map_or_else(|| format!("[[{key}]] {at}"), |name| format!("[[{key}]] {name}"));
                    sections.push(section_of(name, item, item.span.start, writer));
                }
            }
            (Some(SchemaShape::Table(section)), Kind::Table(_)) => {
                let mut writer = SectionWriter::new(None);
                writer.table(key, false, &entry.value, section);
                sections.push(section_of(format!("[{key}]"), &entry.value, entry.key_span.start, writer));
            }
            (_, _) => {
                let mut writer = SectionWriter::new(None);
                writer.text = format!("{} = {}\n", written_key(key), source(&entry.value));
                sections.push(section_of(key.to_owned(), &entry.value, entry.key_span.start, writer));
            }
        }
    }
    sections
}

fn section_of(name: String, node: &Node, start: usize, writer: SectionWriter<'_>) -> ConfigSection {
    let (line, _) = node.source.position(start);
    ConfigSection { name, file: node.source.name.clone(), line, text: writer.text }
}

/// One section while it is written.
struct SectionWriter<'a> {
    text: String,
    /// Settings that the provider's profile declares.
    declared: &'a [DeclaredSetting],
}

impl<'a> SectionWriter<'a> {
    fn new(declared: Option<&'a Vec<DeclaredSetting>>) -> Self {
        Self { text: String::new(), declared: declared.map(Vec::as_slice).unwrap_or_default() }
    }

    /// Writes a table under its header: first its values, then its own tables.
    fn table(&mut self, path: &str, listed: bool, node: &Node, section: &str) {
        let Some(table) = node.as_table() else { return };
        let shapes = shapes(section);
        let _ = if listed { writeln!(self.text, "[[{path}]]") } else { writeln!(self.text, "[{path}]") };
        let (nested, plain): (Vec<&TableEntry>, Vec<&TableEntry>) =
            table.entries.iter().partition(|entry| is_nested(shapes.get(entry.key.as_str()).copied(), entry));
        for entry in plain {
            let value = self.value(shapes.get(entry.key.as_str()).copied(), entry);
            let _ = writeln!(self.text, "{} = {value}", written_key(&entry.key));
        }
        for entry in nested {
            let path = format!("{path}.{}", written_key(&entry.key));
            match (shapes.get(entry.key.as_str()).copied(), &entry.value.kind) {
                (Some(SchemaShape::Named(section)), Kind::Table(named)) => {
                    for one in &named.entries {
                        let path = format!("{path}.{}", written_key(&one.key));
                        self.text.push('\n');
                        self.table(&path, false, &one.value, section);
                    }
                }
                (Some(SchemaShape::List(section)), Kind::Array(items)) => {
                    for item in items {
                        self.text.push('\n');
                        self.table(&path, true, item, section);
                    }
                }
                (Some(SchemaShape::Table(section)), _) => {
                    self.text.push('\n');
                    self.table(&path, false, &entry.value, section);
                }
                // The credentials that follow have the keys of their provider.
                (_, _) => {
                    self.text.push('\n');
                    self.table(&path, false, &entry.value, "provider");
                }
            }
        }
    }

    /// A value on one line.
    fn value(&self, shape: Option<SchemaShape>, entry: &TableEntry) -> String {
        let node = &entry.value;
        match shape {
            None => self.setting(entry),
            Some(SchemaShape::Headers | SchemaShape::Source) => secret_entries(shape, node),
            Some(SchemaShape::Settings) => match (entry.key.as_str(), node.as_table()) {
                ("kms" | "pkcs11", Some(table)) => service(table),
                ("settings", Some(table)) => inline(table, |one| self.setting(one)),
                (_, Some(table)) => inline(table, |one| source(&one.value)),
                (_, None) => source(node),
            },
            Some(SchemaShape::SourcesOr(section)) => list(node, |item| match item.as_table() {
                Some(table) if !is_source(table) => self.inline_section(table, section),
                Some(_) | None => source(item),
            }),
            Some(
                SchemaShape::InternalOr(section)
                | SchemaShape::List(section)
                | SchemaShape::Named(section)
                | SchemaShape::Table(section)
                | SchemaShape::TextOr(section),
            ) => match node.as_table() {
                Some(table) => self.inline_section(table, section),
                None => shown(node),
            },
            Some(SchemaShape::Bounds) => match node.as_table() {
                Some(table) => inline(table, |one| shown(&one.value)),
                None => shown(node),
            },
            Some(
                SchemaShape::Address
                | SchemaShape::Bind
                | SchemaShape::Choice(_)
                | SchemaShape::ChoiceOrList(..)
                | SchemaShape::Choices(_)
                | SchemaShape::Count(_)
                | SchemaShape::Counts
                | SchemaShape::Duration { .. }
                | SchemaShape::Flag
                | SchemaShape::Level
                | SchemaShape::Methods
                | SchemaShape::Profile
                | SchemaShape::Share
                | SchemaShape::Size
                | SchemaShape::Text
                | SchemaShape::TextOrTexts
                | SchemaShape::Texts
                | SchemaShape::Url
                | SchemaShape::Who,
            ) => shown(node),
        }
    }

    fn inline_section(&self, table: &Table, section: &str) -> String {
        let shapes = shapes(section);
        inline(table, |one| self.value(shapes.get(one.key.as_str()).copied(), one))
    }

    /// A setting of a profile.
    fn setting(&self, entry: &TableEntry) -> String {
        let Some(declared) = self.declared.iter().find(|one| *one.name == *entry.key) else {
            return source(&entry.value);
        };
        match entry.value.as_table() {
            Some(table) if declared.key || declared.public_key => {
                inline(table, |one| match (one.key.as_str(), one.value.as_table()) {
                    ("kms" | "pkcs11", Some(table)) => service(table),
                    (key, None) if KEY_PATHS.contains(&key) => shown(&one.value),
                    (_, _) => source(&one.value),
                })
            }
            Some(table) if declared.table => inline(table, |one| source(&one.value)),
            Some(_) => source(&entry.value),
            None if declared.secret || speaks_of_secrets(&entry.key) => source(&entry.value),
            None => shown(&entry.value),
        }
    }
}

/// Returns whether an entry is written as a table with a header of its own.
fn is_nested(shape: Option<SchemaShape>, entry: &TableEntry) -> bool {
    match (shape, &entry.value.kind) {
        (Some(SchemaShape::Named(_) | SchemaShape::Table(_)), Kind::Table(_)) => true,
        (Some(SchemaShape::List(_)), Kind::Array(items)) => items.iter().all(|item| item.as_table().is_some()),
        (Some(SchemaShape::Settings), Kind::Table(_)) => entry.key == "next",
        (_, _) => false,
    }
}

/// Returns whether a table says where a value comes from.
fn is_source(table: &Table) -> bool {
    !table.entries.is_empty() && table.entries.iter().all(|entry| SOURCE_KEYS.contains(&entry.key.as_str()))
}

/// A value that is a secret if it is a literal.
fn source(node: &Node) -> String {
    match &node.kind {
        Kind::Array(_) => list(node, source),
        Kind::Boolean(_) | Kind::Float(_) | Kind::Integer(_) | Kind::String(_) => BLOT.to_owned(),
        Kind::Table(table) if is_source(table) => {
            inline(table, |entry| match (entry.key.as_str(), &entry.value.kind) {
                ("command", Kind::Array(words)) => match words.split_first() {
                    Some((program, [])) => format!("[{}]", shown(program)),
                    Some((program, _)) => format!("[{}, {BLOT}]", shown(program)),
                    None => "[]".to_owned(),
                },
                ("env" | "file" | "timeout" | "ttl" | "var", Kind::String(_)) => shown(&entry.value),
                (_, _) => source(&entry.value),
            })
        }
        Kind::Table(table) => inline(table, |entry| source(&entry.value)),
    }
}

/// A value or a table of values, each a secret if it is a literal.
fn secret_entries(shape: Option<SchemaShape>, node: &Node) -> String {
    match (shape, node.as_table()) {
        // The names of header fields are free: `env` may be one of them.
        (Some(SchemaShape::Headers), Some(table)) => inline(table, |entry| source(&entry.value)),
        (_, _) => source(node),
    }
}

/// The table of a key service.
fn service(table: &Table) -> String {
    inline(table, |entry| {
        let is_name = SERVICE_NAMES.contains(&entry.key.as_str()) && entry.value.as_table().is_none();
        if is_name { shown(&entry.value) } else { source(&entry.value) }
    })
}

/// A value that is no secret. A table in its place is shown as one of secrets.
fn shown(node: &Node) -> String {
    match &node.kind {
        Kind::Array(_) => list(node, shown),
        Kind::Boolean(yes) => yes.to_string(),
        Kind::Float(number) => number.to_string(),
        Kind::Integer(number) => number.to_string(),
        Kind::String(text) => quoted(&without_credentials(text)),
        Kind::Table(_) => source(node),
    }
}

fn list(node: &Node, item: impl Fn(&Node) -> String) -> String {
    match &node.kind {
        Kind::Array(items) => format!("[{}]", items.iter().map(item).collect::<Vec<_>>().join(", ")),
        Kind::Boolean(_) | Kind::Float(_) | Kind::Integer(_) | Kind::String(_) | Kind::Table(_) => item(node),
    }
}

fn inline(table: &Table, value: impl Fn(&TableEntry) -> String) -> String {
    if table.entries.is_empty() {
        return "{}".to_owned();
    }
    let entries = table.entries.iter().map(|entry| format!("{} = {}", written_key(&entry.key), value(entry)));
    format!("{{ {} }}", entries.collect::<Vec<_>>().join(", "))
}

/// A URL without what may be a credential in it: its user information and its query. Other texts stay as they are.
fn without_credentials(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, after) = rest.split_at(end);
    let authority = authority.rsplit_once('@').map_or_else(|| authority.to_owned(), |(_, host)| format!("***@{host}"));
    let after = after.split_once('?').map_or_else(|| after.to_owned(), |(path, _)| format!("{path}?***"));
    format!("{scheme}://{authority}{after}")
}

/// A key of TOML, in quotes if it needs them.
fn written_key(key: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if bare { key.to_owned() } else { quoted(key) }
}

/// A basic string of TOML. Characters that a screen does not show are escaped.
fn quoted(text: &str) -> String {
    let mut written = String::with_capacity(text.len() + 2);
    written.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => written.extend(['\\', c]),
            c if c.is_control()
                || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}') =>
            {
                let _ = write!(written, "\\u{:04X}", u32::from(c));
            }
            c => written.push(c),
        }
    }
    written.push('"');
    written
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::provider::Profile;
    use crate::syntax::{Diagnostics, SourceText};

    fn sections(text: &str) -> Vec<ConfigSection> {
        let source = SourceText::new("conf.d/a.toml", text);
        let root = Node::parse(&source, &Diagnostics::new());
        let declared = Profile::builtin("scb").map(|profile: Arc<Profile>| profile.declared()).unwrap_or_default();
        config_sections(&root, &HashMap::from([("scb", declared)]))
    }

    fn text(text: &str) -> String {
        sections(text).into_iter().map(|section| section.text).collect()
    }

    #[test]
    fn sections_are_named_with_their_place() {
        let found = sections(
            "[log]\nlevel = \"info\"\n\n[client.erp]\nuids = [1]\n[[route]]\nname = \"pay\"\n[[route]]\npath = \"/\"\n",
        );
        let told: Vec<(&str, usize)> = found.iter().map(|one| (one.name.as_str(), one.line)).collect();
        assert_eq!(told, [("[log]", 1), ("[client.erp]", 4), ("[[route]] pay", 6), ("[[route]] 2", 8)]);
        assert!(found.iter().all(|section| section.file == "conf.d/a.toml"));
    }

    #[test]
    fn a_value_is_shown_if_its_key_is_known_to_hold_no_secret() {
        for (written, shown) in [
            ("[log]\nlevel = \"info\"\n", "[log]\nlevel = \"info\"\n"),
            ("[runtime]\nworkers = 2\n", "[runtime]\nworkers = 2\n"),
            ("[odd]\nsecret = 5\n", "odd = { secret = \"***\" }\n"),
            ("[client.\"a b\"]\nkey_sha256 = [\"00ff\"]\n", "[client.\"a b\"]\nkey_sha256 = [\"00ff\"]\n"),
            ("[client.a]\nvars = { account = [\"1\"] }\n", "[client.a]\nvars = { account = [\"1\"] }\n"),
            (
                "[admin]\nbind = \"[::1]:9\"\ntoken.eyes = { value = \"canary\", role = \"read\" }\n",
                "[admin]\nbind = \"[::1]:9\"\n\n[admin.token.eyes]\nvalue = \"***\"\nrole = \"read\"\n",
            ),
            (
                "[store]\nurl = \"redis://u:canary@h:1/0?p=canary\"\npassword = \"canary\"\n\
                 keys = [\"canary\", { env = \"KEY\" }, { kms = { provider = \"aws\", secret_access_key = \"canary\" }, ciphertext = \"canary\" }]\n",
                "[store]\nurl = \"redis://***@h:1/0?***\"\npassword = \"***\"\n\
                 keys = [\"***\", { env = \"KEY\" }, { kms = { provider = \"aws\", secret_access_key = \"***\" }, ciphertext = \"***\" }]\n",
            ),
            (
                "[tracing]\notlp = \"http://h\"\nheaders = { env = \"canary\", x = { file = \"a\" } }\n",
                "[tracing]\notlp = \"http://h\"\nheaders = { env = \"***\", x = { file = \"a\" } }\n",
            ),
            (
                "[audit]\nto = \"a\"\nkey = { command = [\"vault\", \"canary\"], ttl = \"5m\" }\n",
                "[audit]\nto = \"a\"\nkey = { command = [\"vault\", \"***\"], ttl = \"5m\" }\n",
            ),
            ("[log]\naccess = \"a\\u202Eb\"\n", "[log]\naccess = \"a\\u202Eb\"\n"),
        ] {
            assert_eq!(text(written), shown);
        }
    }

    #[test]
    fn settings_of_a_provider_are_shown_as_its_profile_declares_them() {
        let shown = text(
            "[provider.scb]\nprofile = \"scb\"\napplication_key = \"l7\"\napplication_secret = \"canary\"\nunheard = \"canary\"\n\
             http_proxy = \"http://canary:canary@h:1\"\n\
             tls = { client_cert = \"c.pem\", client_key = \"k.pem\", client_key_password = \"canary\" }\n\
             [provider.scb.next]\napplication_secret = \"canary\"\n\
             [provider.scb.consent]\npublic_url = \"https://a\"\nparams = { env = \"canary\" }\n\
             [provider.other]\nprofile = \"./own.toml\"\nid = \"canary\"\nlogin = { env = \"NAME\" }\n\
             [[route]]\nprovider = \"scb\"\nheaders = { x = \"canary\" }\nsettings = { application_secret = \"canary\" }\n",
        );
        assert!(!shown.contains("canary"), "{shown}");
        for part in [
            "profile = \"scb\"",
            "application_secret = \"***\"",
            "client_key = \"k.pem\"",
            "[provider.scb.next]",
            "login = { env = \"NAME\" }",
            "id = \"***\"",
        ] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
    }
}
