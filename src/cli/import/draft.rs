//! The config that an import has gathered so far, and what it could not carry over.
//!
//! Readers of other gateways' files fill a [`Draft`]; it knows no format but our own. No secret gets into it: a credential
//! of a source is named by where countersign is to find it ([`SecretPlace`]), never by its value, and a [`Loss`] names a
//! directive, never what stood behind it.

use std::collections::{BTreeMap, BTreeSet};

use super::words::{env_name, is_plain_header, is_secret_segment, proxy_name, safe_path};
use crate::base::origin::BaseUrl;

/// A directive or field that the written config does not have.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Loss {
    pub file: String,
    /// Line of the file, from 1; 0: the file as a whole.
    pub line: usize,
    /// The directive, or the path of the field; no value of it.
    pub what: String,
    /// The reason, and what to do.
    pub cure: String,
}

impl Loss {
    /// The one line that is told about it.
    pub fn line(&self) -> String {
        let place = if self.line == 0 { self.file.clone() } else { format!("{}, line {}", self.file, self.line) };
        format!("{place}: {}: not carried over: {}", self.what, self.cure)
    }
}

/// The place where countersign finds a credential that the source had.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SecretPlace {
    /// The source named this environment variable.
    Env(String),
    /// The source named this file.
    File(String),
    /// The source had the value itself, or a reference that means nothing here.
    Inline,
}

/// A `[[listener]]` as it will be written.
#[derive(Clone, Debug, Default)]
pub struct DraftListener {
    pub name: String,
    pub line: usize,
    /// IP address.
    pub address: String,
    pub port: u16,
    /// Paths of certificate and private key.
    pub tls: Option<(String, String)>,
    pub client_ca: Option<String>,
    pub client_optional: bool,
}

/// A `[provider.NAME]` as it will be written: keys with values in TOML.
#[derive(Clone, Debug, Default)]
pub struct DraftProvider {
    pub name: String,
    pub profile: String,
    pub base_url: String,
    /// Further keys in their order, each with a remark.
    pub lines: Vec<(String, String, String)>,
    pub tls: BTreeMap<String, String>,
    pub timeouts: BTreeMap<String, String>,
}

/// A `[[route]]` as it will be written.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct DraftRoute {
    pub name: String,
    pub file: String,
    pub line: usize,
    pub host: Option<String>,
    pub path: Option<String>,
    pub methods: Vec<String>,
    pub provider: String,
    pub clients: Vec<String>,
    pub strip: bool,
    /// Base URL where it is another than the provider's.
    pub upstream: Option<String>,
    pub allow: Vec<String>,
    pub headers: Vec<(String, String)>,
    /// Requests, and the duration that they are for.
    pub rate_limit: Option<(u64, String)>,
    pub response_timeout: Option<String>,
}

/// A `[client.NAME]` as it will be written.
#[derive(Clone, Debug, Default)]
pub struct DraftClient {
    pub name: String,
    pub key_sha256: Vec<String>,
    pub networks: Vec<String>,
}

/// What all files of one import have said so far.
#[derive(Clone, Debug, Default)]
pub struct Draft {
    /// File that is being read, as losses name it.
    pub file: String,
    pub listeners: Vec<DraftListener>,
    pub providers: Vec<DraftProvider>,
    pub routes: Vec<DraftRoute>,
    pub clients: Vec<DraftClient>,
    pub losses: Vec<Loss>,
    /// Texts of profiles to be written beside the config, by file name.
    pub profiles: BTreeMap<String, String>,
    /// Variables to be set and files to be put in place before a start, each with the reason.
    pub needed: BTreeMap<String, String>,
    /// A token endpoint that was found apart from the calls that use it.
    pub found_token_url: Option<String>,
    /// Names of providers by all else that is said of them: what two routes share is written once.
    pub same_providers: BTreeMap<String, String>,
    pub provider_names: Names,
    pub client_names: Names,
    /// Losses that are told already.
    pub told: BTreeSet<(String, usize, String, String)>,
}

/// Names that are taken.
#[derive(Clone, Debug, Default)]
pub struct Names {
    taken: BTreeSet<String>,
    next: BTreeMap<String, usize>,
}

impl Names {
    /// Takes a name that is free: the wanted one, or that with a number.
    pub fn take(&mut self, wanted: &str) -> String {
        let wanted = proxy_name(wanted);
        let count = self.next.entry(wanted.clone()).or_insert(1);
        let mut name = wanted.clone();
        while !self.taken.insert(name.clone()) {
            *count += 1;
            name = format!("{}-{count}", wanted.chars().take(56).collect::<String>());
        }
        name
    }
}

/// A token endpoint of nobody, where the source names none; RFC 2606 keeps `.invalid` unused.
pub const NO_TOKEN_URL: &str = "https://token-endpoint.invalid/token";

impl Draft {
    /// Notes that something of the file now being read is not carried over.
    pub fn lose(&mut self, line: usize, what: impl Into<String>, cure: impl Into<String>) {
        if self.losses.len() > MAX_LOSSES {
            return;
        }
        let (what, cure) = (shown_name(&what.into()), cure.into());
        if self.told.insert((self.file.clone(), line, what.clone(), cure.clone())) {
            let loss = Loss { file: self.file.clone(), line, what, cure };
            self.losses.push(match self.losses.len() {
                MAX_LOSSES => {
                    Loss { what: "all that follows".to_owned(), cure: "the list is too long".to_owned(), ..loss }
                }
                _ => loss,
            });
        }
    }

    /// Adds a route; `false`, with a loss, once there are too many.
    pub fn route(&mut self, route: DraftRoute) -> bool {
        let is_full = self.routes.len() >= MAX_ROUTES;
        if is_full {
            self.lose(
                route.line,
                "further routes",
                format!("one import makes at most {MAX_ROUTES}; import the rest apart"),
            );
        } else {
            self.routes.push(route);
        }
        !is_full
    }

    /// A value of a secret setting, in TOML. What has to be there for it is noted.
    pub fn secret(&mut self, provider: &str, setting: &str, place: SecretPlace) -> String {
        match place {
            SecretPlace::File(path) if safe_path(&path) => {
                self.need_file(&path, &format!("{setting} of provider {provider}"));
                format!("{{ file = {} }}", quoted(&path))
            }
            SecretPlace::Env(name) if env_name(&name) => {
                self.needed.insert(format!("variable {name}"), format!("{setting} of provider {provider}"));
                format!("{{ env = {} }}", quoted(&name))
            }
            _ => {
                let name = format!("{provider}_{setting}").to_uppercase().replace(['-', '.'], "_");
                let name =
                    if name.starts_with(|first: char| first.is_ascii_digit()) { format!("P{name}") } else { name };
                self.needed.insert(format!("variable {name}"), format!("{setting} of provider {provider}"));
                format!("{{ env = {} }}", quoted(&name))
            }
        }
    }

    /// Notes a file that the config names.
    pub fn need_file(&mut self, path: &str, why: &str) {
        self.needed.insert(format!("file {}", shown(path)), why.to_owned());
    }

    /// A path of a certificate or key in TOML, if it can stand in a config.
    pub fn file(&mut self, line: usize, what: &str, path: &str) -> Option<String> {
        if safe_path(path) {
            self.need_file(path, what);
            return Some(quoted(path));
        }
        self.lose(line, what, "the path cannot stand in a config; name the file yourself");
        None
    }

    /// The base URL of an upstream; `None`, with a loss, if no token may travel there.
    pub fn base_url(&mut self, line: usize, what: &str, text: &str) -> Option<String> {
        let (url, query) = text.split_once('?').map_or((text, false), |(url, _)| (url, true));
        if query {
            self.lose(line, format!("{what} (its query)"), "a base URL has none; the application adds it to its call");
        }
        let url = url.split('#').next().unwrap_or_default();
        if url.contains('@') {
            self.lose(line, what, "credentials in a URL are not copied; use a profile with a static credential, docs/adding-a-provider.md#without-a-token");
            return None;
        }
        if url.contains(['$', '{', '}', '%']) {
            self.lose(line, what, "it depends on a variable; name the host, docs/config.md#providername-whom-we-call");
            return None;
        }
        let scheme = url.split("://").next().unwrap_or_default().to_ascii_lowercase();
        if url.contains("://") && scheme != "https" {
            self.lose(
                line,
                what,
                "no token travels without TLS: only https:// is called, docs/config.md#providername-whom-we-call",
            );
            return None;
        }
        let url = if url.contains("://") { url.to_owned() } else { format!("https://{url}") };
        if url.split('/').skip(3).any(is_secret_segment) {
            self.lose(line, what, "a part of its path looks like a credential and is not copied; a profile may put it there, docs/adding-a-provider.md#request");
            return None;
        }
        let url = url.trim_end_matches('/').to_owned();
        if BaseUrl::parse(&url).is_err() {
            self.lose(line, what, "it is no URL that countersign can call, docs/config.md#providername-whom-we-call");
            return None;
        }
        Some(url)
    }

    /// A token endpoint: like [`Self::base_url`], and a placeholder that fails where there is none.
    pub fn token_url(&mut self, line: usize, what: &str, text: Option<&str>) -> String {
        let found = match text {
            Some(text) => self.base_url(line, what, text),
            None => None,
        };
        found.unwrap_or_else(|| {
            self.lose(line, what, format!("no usable token endpoint is named; replace `{NO_TOKEN_URL}` in the config"));
            NO_TOKEN_URL.to_owned()
        })
    }

    /// A profile for a credential that stands in one header of every call; answers its path for `profile`.
    ///
    /// `scheme` is the word before the credential, such as `Bearer`, or empty.
    pub fn static_profile(&mut self, header: &str, scheme: &str) -> String {
        let header = if is_plain_header(header) { header.to_ascii_lowercase() } else { "authorization".to_owned() };
        let words: Vec<String> =
            [header.clone(), scheme.to_ascii_lowercase()].into_iter().filter(|w| !w.is_empty()).collect();
        let name = proxy_name(&format!("static-{}", words.join("-"))).replace('.', "-");
        let value = if scheme.is_empty() { "{credential}".to_owned() } else { format!("{scheme} {{credential}}") };
        let meaning = if scheme.is_empty() { "the whole value of the header" } else { "what follows the scheme" };
        let text = format!(
            "# A credential that stays the same, in a header of every call: docs/adding-a-provider.md#without-a-token.\n\n\
             name = {}\n\n[settings.credential]\ndescription = {}\nsecret      = true\n\n[request]\ninject = [{{ header = {}, value = {} }}]\n",
            quoted(&name),
            quoted(meaning),
            quoted(&header),
            quoted(&value)
        );
        let path = format!("profiles/{name}.toml");
        self.profiles.insert(path.clone(), text);
        path
    }

    /// Reports a header whose value is not to be copied, or answers `true` if it may be.
    pub fn may_copy_header(&mut self, line: usize, what: &str, name: &str, value: &str) -> bool {
        use super::words::{FRAMING, is_credential_header, is_credential_value, is_dynamic};
        if FRAMING.contains(&name.to_ascii_lowercase().as_str()) {
            return false;
        }
        if !is_plain_header(name) {
            self.lose(line, what, "the name is none of a header");
        } else if is_credential_header(name) || is_credential_value(value) {
            self.lose(
                line,
                what,
                "its value looks like a credential and is not copied: `headers` of a route with { env = … }, docs/config.md#route-what-leads-from-one-to-the-other, or a profile, docs/adding-a-provider.md#without-a-token",
            );
        } else if is_dynamic(value) {
            self.lose(line, what, "its value is computed for each request; a profile can make ids and times, docs/adding-a-provider.md#times-and-ids");
        } else if value.is_empty() || !value.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) {
            self.lose(line, what, "its value is not plain ASCII text; write it under `headers` of the route");
        } else {
            return true;
        }
        false
    }
}

/// Losses beyond this many are not kept: a list of thousands helps nobody.
const MAX_LOSSES: usize = 2000;
/// Most routes of one import.
const MAX_ROUTES: usize = 2000;

/// A text as TOML writes it.
pub fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// A name of a directive or field as a message shows it. In a broken file a secret may stand where a name should.
fn shown_name(text: &str) -> String {
    let hidden = |word: &str| if is_secret_segment(word) { "…".to_owned() } else { word.to_owned() };
    let words: Vec<String> =
        shown(text).split(' ').map(|word| word.split('.').map(hidden).collect::<Vec<_>>().join(".")).collect();
    words.join(" ")
}

/// A word of a source as a message shows it: on one line, and short.
pub fn shown(text: &str) -> String {
    let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(120).collect();
    plain
}
