//! The settings of a provider: those that a profile declares, and the values that a config gives them.

use std::ops::Range;
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::base::secret::{ExposeSecret, SecretString};
use crate::provider::key_setting::read_key;
use crate::provider::key_use::KeyUse;
use crate::provider::public_key_setting::read_public_key_setting;
use crate::provider::template::{is_name, is_taken};
use crate::provider::values::{WholeMatch, choice};
use crate::signing::algorithm::SigningAlgorithm;
use crate::signing::key_material::KeyMaterial;
use crate::signing::public_key_set::PublicKeySet;
use crate::signing::signer::Signer;
use crate::syntax::{Diagnostic, Diagnostics, Fields, Node, Severity, SourceText, TableEntry, suggest};

/// The content of a file that a setting names.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FileContent {
    /// Certificates.
    Public,
    /// A key.
    Secret,
}

/// The world around a config, as far as settings are read from it.
pub trait ReadValue {
    /// Reads a secret or plain value that may be a literal, `{ env = "…" }` or `{ file = "…" }`; reports what is wrong.
    /// The flag says whether it was a literal in the file.
    fn value(&self, node: &Node, report: &Diagnostics) -> Option<(SecretString, bool)>;

    /// Reads the file whose path stands at `node`; reports what is wrong.
    fn file(&self, node: &Node, content: FileContent, report: &Diagnostics) -> Option<Zeroizing<Vec<u8>>>;

    /// Reaches the key of a key service that the table at `node` describes, and tries whether it signs by these
    /// algorithms; reports what is wrong.
    fn remote_key(
        &self,
        _kind: RemoteKind,
        node: &Node,
        _algorithms: &[SigningAlgorithm],
        report: &Diagnostics,
    ) -> Option<Arc<dyn Signer>> {
        node.error(report, "no key service is reached here", "", None);
        None
    }

    /// Returns what a missing secret looks like, for the help about it.
    fn secret_example(&self, name: &str) -> String {
        format!("{{ env = \"{}\" }}", name.to_ascii_uppercase())
    }

    /// Returns the time by which certificates are judged, in seconds since 1970.
    fn unix_seconds(&self) -> u64;
}

/// The kind of a key service.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RemoteKind {
    Kms,
    Pkcs11,
}

/// Values alone: there are no files.
impl<F: Fn(&Node, &Diagnostics) -> Option<(SecretString, bool)>> ReadValue for F {
    fn value(&self, node: &Node, report: &Diagnostics) -> Option<(SecretString, bool)> {
        self(node, report)
    }

    fn file(&self, node: &Node, _: FileContent, report: &Diagnostics) -> Option<Zeroizing<Vec<u8>>> {
        node.error(report, "no file is read here", "", None);
        None
    }

    fn unix_seconds(&self) -> u64 {
        0
    }
}

/// The shape of a setting's value.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum SettingKind {
    /// A private key, or a secret in a file, with its certificate.
    Key,
    /// The provider's public key, or several.
    PublicKey,
    /// A table of texts and route variables.
    Table,
    Text,
}

/// A setting, as a profile declares it.
#[derive(Clone, Debug)]
pub(super) struct Setting {
    pub name: Arc<str>,
    pub kind: SettingKind,
    pub secret: bool,
    pub pattern: Option<WholeMatch>,
    pub default: Option<String>,
    pub optional: bool,
    pub description: String,
    /// True if its value is put into a header field; known only once all templates are read.
    pub in_header: bool,
    /// The uses of a key; known only once all of the profile is read.
    pub uses: Vec<KeyUse>,
}

/// Keys that every `[provider.NAME]` has; a setting called so could never be set.
pub const PROVIDER_KEYS: [&str; 24] = [
    "base_url",
    "clients",
    "consent",
    "credentials_expire",
    "default_ttl",
    "environment",
    "header_case",
    "hours",
    "http",
    "http_proxy",
    "invalid_header_lines",
    "next",
    "profile",
    "quota",
    "record",
    "refresh_before",
    "shadow_profile",
    "source_address",
    "timeouts",
    "tls",
    "token_budget",
    "token_url",
    "trace_context",
    "user_agent",
];

impl Setting {
    /// Reads one entry of a profile's `[settings]`.
    pub(super) fn read(entry: &TableEntry, report: &Diagnostics) -> Option<Self> {
        let name = entry.key.as_str();
        let lower = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        let reason = if !is_name(name) || !lower {
            Some("is no name for a setting: use lower-case letters, digits and `_`")
        } else if is_taken(name) {
            Some("is a placeholder already")
        } else if PROVIDER_KEYS.contains(&name) {
            Some("is a key of every provider already")
        } else {
            None
        };
        if let Some(reason) = reason {
            report.error(&entry.value.source, entry.key_span.clone(), format!("{name:?} {reason}"), "", None);
        }
        let fields = Fields::new(&entry.value, format!("setting `{name}`"), report);
        let kinds = [
            ("key", SettingKind::Key),
            ("public-key", SettingKind::PublicKey),
            ("table", SettingKind::Table),
            ("text", SettingKind::Text),
        ];
        let kind = fields.take("kind").and_then(|node| choice(node, report, &kinds)).unwrap_or(SettingKind::Text);
        let setting = Self {
            name: name.into(),
            kind,
            secret: fields.or("secret", false),
            pattern: fields.opt("pattern"),
            default: fields.opt("default"),
            optional: fields.or("optional", false),
            description: fields.or("description", String::new()),
            in_header: false,
            uses: Vec::new(),
        };
        for (key, refused, why) in [
            ("secret", kind == SettingKind::Table && setting.secret, "a table of settings holds no secret"),
            ("pattern", kind == SettingKind::Table && setting.pattern.is_some(), "a table has no pattern"),
            ("default", kind == SettingKind::Table && setting.default.is_some(), "a table has no default"),
            ("secret", kind == SettingKind::Key && setting.secret, "a key is always secret: take this out"),
            ("pattern", kind == SettingKind::Key && setting.pattern.is_some(), "a key has no pattern"),
            ("default", kind == SettingKind::Key && setting.default.is_some(), "a key has no default"),
            ("secret", kind == SettingKind::PublicKey && setting.secret, "a public key is no secret: take this out"),
            ("pattern", kind == SettingKind::PublicKey && setting.pattern.is_some(), "a key has no pattern"),
            ("default", kind == SettingKind::PublicKey && setting.default.is_some(), "a key has no default"),
            ("default", setting.secret && setting.default.is_some(), "a secret has no default"),
            ("optional", setting.optional && setting.default.is_some(), "a setting with a default is never absent"),
        ] {
            if refused && let Some(node) = fields.take(key) {
                node.error(report, why, "", None);
            }
        }
        if let (Some(default), Some(pattern)) = (&setting.default, &setting.pattern)
            && !pattern.fits(default)
            && let Some(node) = fields.take("default")
        {
            node.error(
                report,
                "the default does not match the pattern",
                format!("must match `{}`", pattern.text),
                None,
            );
        }
        fields.finish();
        reason.is_none().then_some(setting)
    }

    /// Reads one entry of `[consent.params]`. Templates call it `{param.NAME}`.
    pub(super) fn read_param(entry: &TableEntry, report: &Diagnostics) -> Option<Self> {
        if !is_name(&entry.key) {
            let title = format!("{:?} is no name for a parameter", entry.key);
            report.error(&entry.value.source, entry.key_span.clone(), title, "letters, digits, `_` and `-`", None);
            return None;
        }
        let fields = Fields::new(&entry.value, format!("parameter `{}`", entry.key), report);
        let param = Self {
            name: format!("param.{}", entry.key).into(),
            kind: SettingKind::Text,
            secret: false,
            pattern: fields.opt("pattern"),
            default: fields.opt("default"),
            // A parameter without a default may be absent: if the provider always requires one, there is a usual value
            // to declare as the default.
            optional: true,
            description: fields.or("description", String::new()),
            in_header: false,
            uses: Vec::new(),
        };
        if let (Some(default), Some(pattern)) = (&param.default, &param.pattern)
            && !pattern.fits(default)
            && let Some(node) = fields.take("default")
        {
            let label = format!("must match `{}`", pattern.text);
            node.error(report, "the default does not match the pattern", label, None);
        }
        fields.finish();
        Some(param)
    }

    /// Reads its value from a provider's table.
    fn value(&self, node: &Node, read: &dyn ReadValue, report: &Diagnostics) -> Option<SettingValue> {
        match self.kind {
            SettingKind::Key => read_key(&self.name, &self.uses, node, read, report).map(SettingValue::Key),
            SettingKind::PublicKey => {
                read_public_key_setting(&self.name, &self.uses, node, read, report).map(SettingValue::PublicKeys)
            }
            SettingKind::Table => self.table(node, read, report),
            SettingKind::Text => self.text(node, read, report).map(SettingValue::Text),
        }
    }

    fn table(&self, node: &Node, read: &dyn ReadValue, report: &Diagnostics) -> Option<SettingValue> {
        let fields = Fields::new(node, format!("`{}`", self.name), report);
        let mut members = Vec::new();
        let mut whole = node.as_table().is_some();
        for entry in fields.rest() {
            // A misspelt one, too: what reads other values knows no `var`.
            let is_named = |inner: &TableEntry| suggest(&inner.key, MEMBER_SOURCES) == Some("var");
            let is_var = entry.value.as_table().is_some_and(|table| table.entries.iter().any(is_named));
            let member = if is_var {
                let inner = Fields::new(&entry.value, format!("`{}.{}`", self.name, entry.key), report);
                let name = inner.opt::<String>("var");
                let span = entry.value.span.clone();
                inner.finish();
                name.map(|name| SettingMember::Var { name: name.into(), span })
            } else {
                read.value(&entry.value, report).map(|(text, _)| SettingMember::Text(text))
            };
            match member {
                Some(member) => members.push((entry.key.clone(), member)),
                None => whole = false,
            }
        }
        fields.finish();
        whole.then_some(SettingValue::Table(members))
    }

    fn text(&self, node: &Node, read: &dyn ReadValue, report: &Diagnostics) -> Option<SecretString> {
        let (value, literal) = read.value(node, report)?;
        let name = &self.name;
        if self.secret && literal {
            let help = format!("write `{name} = {{ env = \"NAME\" }}` or `{name} = {{ file = \"path\" }}`");
            let title = format!("the secret `{name}` is written in the file");
            self.diagnose(node, Severity::Warning, title, "a literal secret", Some(help), report);
        }
        let text = value.expose_secret();
        let fits = self.pattern.as_ref().is_none_or(|pattern| pattern.fits(text));
        let (title, label) = if text.is_empty() {
            (format!("`{name}` is empty"), String::new())
        } else if self.in_header && !header_safe(text) {
            let label = "it goes into a header: visible ASCII without line breaks or outer spaces".to_owned();
            (format!("`{name}` has a character that a header cannot carry"), label)
        } else if !fits {
            let pattern = self.pattern.as_ref().map_or("", |pattern| &pattern.text);
            (format!("`{name}` does not have the form it must have"), format!("must match `{pattern}`"))
        } else {
            return Some(value);
        };
        let help = (!self.description.is_empty()).then(|| format!("it is the {}", self.description));
        self.diagnose(node, Severity::Error, title, &label, help, report);
        None
    }

    /// Reports about a value. The line of the file is shown with it, so a secret that stands there is redacted out.
    fn diagnose(
        &self,
        node: &Node,
        severity: Severity,
        title: String,
        label: &str,
        help: Option<String>,
        report: &Diagnostics,
    ) {
        let source = if self.secret { redacted(&node.source, &node.span) } else { node.source.clone() };
        report.push(Diagnostic { severity, source, span: node.span.clone(), title, label: label.to_owned(), help });
    }

    /// Returns whether the setting is a key.
    pub(super) fn is_key(&self) -> bool {
        self.kind == SettingKind::Key
    }

    /// Returns whether the setting is the provider's public key.
    pub(super) fn is_public_key(&self) -> bool {
        self.kind == SettingKind::PublicKey
    }

    /// Returns whether the setting is a table.
    pub(super) fn is_table(&self) -> bool {
        self.kind == SettingKind::Table
    }

    fn example(&self, read: &dyn ReadValue) -> String {
        match (self.kind, self.secret) {
            (SettingKind::Key, _) => "{ file = \"sign.pem\" }".to_owned(),
            (SettingKind::PublicKey, _) => "{ file = \"bank.pem\" }".to_owned(),
            (SettingKind::Table, _) => "{ name = \"value\" }".to_owned(),
            (SettingKind::Text, true) => read.secret_example(&self.name),
            (SettingKind::Text, false) => "\"…\"".to_owned(),
        }
    }
}

/// The same text with asterisks in `span`, byte for byte, so that lines and columns stay.
pub(super) fn redacted(source: &Arc<SourceText>, span: &Range<usize>) -> Arc<SourceText> {
    let (Some(before), Some(secret), Some(after)) =
        (source.text.get(..span.start), source.text.get(span.clone()), source.text.get(span.end..))
    else {
        return SourceText::new(source.name.clone(), "");
    };
    let stars: String = secret.bytes().map(|b| if b == b'\n' { '\n' } else { '*' }).collect();
    SourceText::new(source.name.clone(), format!("{before}{stars}{after}"))
}

/// Returns whether a header field can carry the text unchanged: RFC 9110 section 5.5, without obs-text.
pub(super) fn header_safe(text: &str) -> bool {
    text.bytes().all(|b| matches!(b, b' '..=b'~')) && text.trim_matches(' ').len() == text.len()
}

/// The keys that say where the value of a member comes from.
const MEMBER_SOURCES: [&str; 5] = ["command", "env", "file", "source", "var"];

/// The values that one `[provider.NAME]` gives to its profile's settings.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    values: Vec<(Arc<str>, SettingValue)>,
}

/// A setting's value. All texts are kept as secrets, whether they are or not.
#[derive(Clone, Debug)]
pub(super) enum SettingValue {
    Key(Arc<KeyMaterial>),
    PublicKeys(Arc<PublicKeySet>),
    Table(Vec<(String, SettingMember)>),
    Text(SecretString),
}

/// A value in a table.
#[derive(Clone, Debug)]
pub(super) enum SettingMember {
    Text(SecretString),
    /// The value of a route variable.
    Var {
        name: Arc<str>,
        /// The byte range in the config that names the variable.
        span: Range<usize>,
    },
}

impl Settings {
    /// Takes every setting's key from `fields`. `None` when something was wrong, all of which was reported.
    pub(super) fn read(declared: &[Setting], fields: &Fields<'_>, read: &dyn ReadValue) -> Option<Self> {
        let mut values = Vec::new();
        let mut whole = true;
        for setting in declared {
            let value = match fields.take(&setting.name) {
                Some(node) => setting.value(node, read, fields.report()),
                None => match &setting.default {
                    Some(default) => Some(SettingValue::Text(SecretString::from(default.as_str()))),
                    None if setting.optional => continue,
                    None => {
                        fields.missing(&setting.name, &setting.example(read));
                        None
                    }
                },
            };
            match value {
                Some(value) => values.push((setting.name.clone(), value)),
                None => whole = false,
            }
        }
        whole.then_some(Self { values })
    }

    /// These values with those of `fields` in their place.
    pub(super) fn overridden(&self, declared: &[Setting], fields: &Fields<'_>, read: &dyn ReadValue) -> Option<Self> {
        let mut merged = self.clone();
        let mut whole = true;
        for setting in declared {
            let Some(node) = fields.take(&setting.name) else { continue };
            match setting.value(node, read, fields.report()) {
                Some(value) => {
                    merged.values.retain(|(name, _)| *name != setting.name);
                    merged.values.push((setting.name.clone(), value));
                }
                None => whole = false,
            }
        }
        whole.then_some(merged)
    }

    /// The route variables that these values refer to, with the place in the config where each is named.
    pub fn vars(&self) -> Vec<(Arc<str>, Range<usize>)> {
        let members = self.values.iter().flat_map(|(_, value)| match value {
            SettingValue::Table(members) => members.as_slice(),
            SettingValue::Key(_) | SettingValue::PublicKeys(_) | SettingValue::Text(_) => &[],
        });
        members
            .filter_map(|(_, member)| match member {
                SettingMember::Text(_) => None,
                SettingMember::Var { name, span } => Some((name.clone(), span.clone())),
            })
            .collect()
    }

    /// Returns a copy of these values with `more` text values appended.
    pub(super) fn and(&self, more: impl IntoIterator<Item = (Arc<str>, SecretString)>) -> Self {
        let mut all = self.clone();
        all.values.extend(more.into_iter().map(|(name, text)| (name, SettingValue::Text(text))));
        all
    }

    /// Returns a copy of these values with other texts for those that `text` gives one.
    pub(super) fn with_texts(&self, mut text: impl FnMut(&str) -> Option<SecretString>) -> Self {
        let mut all = self.clone();
        for (name, value) in &mut all.values {
            if let (SettingValue::Text(known), Some(other)) = (value, text(name)) {
                *known = other;
            }
        }
        all
    }

    pub(super) fn find(&self, name: &str) -> Option<&SettingValue> {
        self.values.iter().find(|(known, _)| **known == *name).map(|(_, value)| value)
    }

    /// Returns the value of a text setting; `None` if it is not set or is a table.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        match self.find(name)? {
            SettingValue::Key(_) | SettingValue::PublicKeys(_) | SettingValue::Table(_) => None,
            SettingValue::Text(text) => Some(text.expose_secret()),
        }
    }

    /// Returns the value of a key setting; `None` if it is not set or is no key.
    pub(super) fn key(&self, name: &str) -> Option<&Arc<KeyMaterial>> {
        match self.find(name)? {
            SettingValue::Key(key) => Some(key),
            SettingValue::PublicKeys(_) | SettingValue::Table(_) | SettingValue::Text(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::origin::BaseUrl;
    use crate::provider::{CallAs, Module, Profile, Wiring};
    use crate::syntax::FromNode;

    /// Texts as they stand; `{ env = "X" }` is what the environment would say.
    fn read(node: &Node, report: &Diagnostics) -> Option<(SecretString, bool)> {
        match node.as_table().and_then(|table| table.find("env")) {
            Some(entry) => String::from_node(&entry.value, report).map(|text| (SecretString::from(text), false)),
            None => String::from_node(node, report).map(|text| (SecretString::from(text), true)),
        }
    }

    fn settings(profile: &str, text: &str) -> (Option<Settings>, Vec<Diagnostic>) {
        let profile = Profile::builtin(profile).expect("a built-in profile");
        let report = Diagnostics::new();
        let node = Node::parse(&SourceText::new("proxy.toml", text), &report);
        let fields = Fields::new(&node, "[provider.bank]", &report);
        let settings = profile.read_settings(&fields, &read);
        fields.finish();
        (settings, report.into_diagnostics())
    }

    fn lines(found: &[Diagnostic]) -> Vec<String> {
        found.iter().map(Diagnostic::one_line).collect()
    }

    #[test]
    fn every_mistake_in_a_providers_settings_is_found_at_once() {
        let text = "client_id = \"a\\r\\nb\"\nclient_secert = { env = \"s\" }\nscope = { env = \"caf\u{e9}\" }\n\
                    oauth_metadata = { a = 7, b = { var = \"x\", c = 1 } }\n";
        let (settings, found) = settings("rakbank", text);
        assert!(settings.is_none());
        assert_eq!(
            lines(&found),
            [
                "proxy.toml:1:13: error: `client_id` has a character that a header cannot carry; \
                 it is the X-IBM-Client-Id of the application",
                "proxy.toml:2:1: error: unknown key `client_secert` in [provider.bank]; did you mean `client_secret`?",
                "proxy.toml:3:9: error: `scope` does not have the form it must have; \
                 it is the scope to ask for, such as internal_transfers or fetch_fields",
                "proxy.toml:4:24: error: expected a string, found an integer",
                "proxy.toml:4:44: error: unknown key `c` in `oauth_metadata.b`; known here: var",
            ]
        );
    }

    /// T12: nothing with a line break, a NUL or a space around it reaches a header.
    #[test]
    fn no_value_breaks_out_of_its_header() {
        for bad in ["a\\nb", "a\\rb", "a\\u0000b", "\u{e9}", " a", "a ", "a\\tb"] {
            let text = format!("application_key = \"{bad}\"\napplication_secret = {{ env = \"s\" }}\n");
            let (settings, found) = settings("scb", &text);
            assert!(settings.is_none() && found.len() == 1, "{bad:?}");
        }
    }

    #[test]
    fn a_literal_secret_is_warned_about_and_never_shown() {
        let text = "application_key = \"k\"\napplication_secret = \"hunter2-hunter2\"\n";
        let (found_settings, found) = settings("scb", text);
        assert!(found_settings.is_some(), "a warning is no error");
        let [warning] = found.as_slice() else { panic!("one warning, not {found:?}") };
        assert_eq!(warning.severity, Severity::Warning);
        assert!(warning.help.as_ref().is_some_and(|help| help.contains("{ env = ")));
        for shown in [warning.render(false), warning.one_line(), format!("{warning:?}"), format!("{found_settings:?}")]
        {
            assert!(!shown.contains("hunter2"), "{shown}");
        }
        assert!(warning.render(false).contains("proxy.toml:2:22"));
        let (_, found) = settings("scb", "application_key = \"k\"\napplication_secret = \"\"\n");
        assert!(found.iter().any(|diagnostic| diagnostic.title == "`application_secret` is empty"));
    }

    #[test]
    fn a_route_overrides_what_it_names_and_nothing_else() {
        let profile = Profile::builtin("rakbank").expect("a built-in profile");
        let (base, _) = settings(
            "rakbank",
            "client_id = \"i\"\nclient_secret = { env = \"s\" }\nscope = \"a\"\noauth_metadata = { x = { var = \"v\" } }\n",
        );
        let base = base.expect("good settings");
        assert_eq!(base.vars().iter().map(|(name, _)| &**name).collect::<Vec<_>>(), ["v"]);
        let report = Diagnostics::new();
        let node = Node::parse(&SourceText::new("proxy.toml", "scope = \"b\"\noauth_metadata = {}\n"), &report);
        let fields = Fields::new(&node, "`settings`", &report);
        let merged = profile.override_settings(&base, &fields, &read).expect("good settings");
        fields.finish();
        assert_eq!(report.errors(), 0);
        assert_eq!((merged.text("scope"), merged.text("client_id")), (Some("b"), Some("i")));
        assert_eq!(base.text("scope"), Some("a"));
        assert!(merged.vars().is_empty());
    }

    proptest! {
        /// Overriding is the same as having been told so from the start, down to the token's key.
        #[test]
        fn merged_settings_are_those_that_were_said_last(
            base in proptest::collection::vec("[a-z]{1,6}", 3),
            over in proptest::collection::vec(proptest::option::of("[a-z]{1,6}"), 3),
        ) {
            let profile = Profile::builtin("oauth2").expect("a built-in profile");
            let names = ["client_id", "client_secret", "scope"];
            let text = |values: &[Option<String>]| -> String {
                let said = names.iter().zip(values).filter_map(|(name, value)| Some((name, value.as_ref()?)));
                said.map(|(name, value)| format!("{name} = {{ env = \"{value}\" }}\n")).collect()
            };
            let all: Vec<Option<String>> = base.iter().cloned().map(Some).collect();
            let last: Vec<Option<String>> = over.iter().zip(&all).map(|(over, base)| over.clone().or(base.clone())).collect();
            let first = settings("oauth2", &text(&all)).0.expect("good settings");
            let direct = settings("oauth2", &text(&last)).0.expect("good settings");
            let report = Diagnostics::new();
            let node = Node::parse(&SourceText::new("proxy.toml", text(&over)), &report);
            let fields = Fields::new(&node, "`settings`", &report);
            let merged = profile.override_settings(&first, &fields, &read).expect("good settings");
            fields.finish();
            prop_assert_eq!(report.errors(), 0);
            let key = |settings: Settings| {
                let url = BaseUrl::parse("https://bank.example").expect("a good URL");
                let wiring = Wiring { name: "a", base_url: url.clone(), token_url: Some(url.into()), default_ttl: None, consent: None, caller: CallAs::Application };
                Module::build(&profile, settings, wiring).expect("a good module").key()
            };
            for (name, value) in names.iter().zip(&last) {
                prop_assert_eq!(merged.text(name), value.as_deref());
            }
            prop_assert_eq!(key(merged), key(direct));
        }
    }
}
