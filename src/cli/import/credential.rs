//! The credential that a source adds to its calls, and the provider that countersign needs for it.

use std::collections::BTreeMap;

use super::draft::{Draft, DraftProvider, SecretPlace, quoted};
use super::words::{env_name, name_of_host, secret_place};

/// A credential that a gateway adds to calls.
#[derive(Clone, Debug)]
pub enum Credential {
    /// Tokens by client credentials (RFC 6749 section 4.4).
    Oauth2(ClientCredentials),
    /// A value that stays the same, in one header.
    Static {
        header: String,
        /// The word before the credential, or empty.
        scheme: String,
        secret: SecretPlace,
        /// Line of the secret: two that stand in different places are two.
        line: usize,
    },
}

/// The parts of a client-credentials grant.
#[derive(Clone, Debug)]
pub struct ClientCredentials {
    pub token_url: String,
    /// As the source writes it: a literal or a reference; `None`: not named.
    pub client_id: Option<String>,
    pub secret: SecretPlace,
    pub scopes: Vec<String>,
    /// Authenticates in the `Authorization` header instead of the form.
    pub basic: bool,
}

/// The place where calls go, and how.
#[derive(Clone, Debug, Default)]
pub struct Upstream {
    pub base_url: String,
    /// Keys of `tls` with values in TOML.
    pub tls: BTreeMap<String, String>,
    /// Keys of `timeouts` with durations.
    pub timeouts: BTreeMap<String, String>,
    /// Corporate proxy, a URL without credentials.
    pub http_proxy: Option<String>,
}

impl Upstream {
    /// An upstream of nothing but its URL.
    pub fn of(base_url: String) -> Self {
        Self { base_url, ..Self::default() }
    }
}

impl Draft {
    /// Adds the provider of an upstream and a credential, unless there is one, and answers its name.
    pub fn provider(&mut self, upstream: &Upstream, credential: &Credential) -> String {
        let place = format!("{:?}", credential.line_of_inline());
        let (nameless, _) = self.drawn("", upstream, credential);
        let same = format!("{nameless:?} {place}");
        if let Some(known) = self.same_providers.get(&same) {
            return known.clone();
        }
        let name = self.provider_names.take(&name_of_host(&upstream.base_url));
        let (provider, needed) = self.drawn(&name, upstream, credential);
        self.needed.extend(needed.needed);
        self.providers.push(provider);
        self.same_providers.insert(same, name.clone());
        name
    }

    fn drawn(&mut self, name: &str, upstream: &Upstream, credential: &Credential) -> (DraftProvider, Draft) {
        let mut needed = Draft::default();
        let mut provider = DraftProvider {
            name: name.to_owned(),
            base_url: upstream.base_url.clone(),
            tls: upstream.tls.clone(),
            timeouts: upstream.timeouts.clone(),
            ..DraftProvider::default()
        };
        match credential {
            Credential::Oauth2(oauth) => oauth.fill(&mut provider, &mut needed),
            Credential::Static { header, scheme, secret, line } => {
                provider.profile = self.static_profile(header, scheme);
                let value = needed.secret(&provider.name, "credential", secret.clone());
                let remark =
                    if *secret == SecretPlace::Inline { format!("{}, line {line}", self.file) } else { String::new() };
                provider.lines.push(("credential".to_owned(), value, remark));
            }
        }
        if let Some(proxy) = &upstream.http_proxy {
            provider.lines.push(("http_proxy".to_owned(), quoted(proxy), String::new()));
        }
        (provider, needed)
    }
}

impl Credential {
    /// The line of a static credential that stands in the source itself.
    fn line_of_inline(&self) -> Option<usize> {
        match self {
            Self::Static { secret: SecretPlace::Inline, line, .. } => Some(*line),
            Self::Static { .. } | Self::Oauth2(_) => None,
        }
    }
}

impl ClientCredentials {
    fn fill(&self, provider: &mut DraftProvider, needed: &mut Draft) {
        let name = provider.name.clone();
        "oauth2".clone_into(&mut provider.profile);
        let mut add = |key: &str, value: String, remark: &str| {
            provider.lines.push((key.to_owned(), value, remark.to_owned()));
        };
        let remark =
            if self.token_url == super::draft::NO_TOKEN_URL { "not found in the source: replace it" } else { "" };
        add("token_url", quoted(&self.token_url), remark);
        let client_id = match self.client_id.as_deref().map(|id| (id, secret_place(id))) {
            Some((_, SecretPlace::Env(variable))) if env_name(&variable) => {
                needed.secret(&name, "client_id", SecretPlace::Env(variable))
            }
            Some((id, _)) if is_plain_id(id) => quoted(id),
            _ => needed.secret(&name, "client_id", SecretPlace::Inline),
        };
        add("client_id", client_id, "");
        add("client_secret", needed.secret(&name, "client_secret", self.secret.clone()), "");
        if !self.scopes.is_empty() {
            add("scope", quoted(&self.scopes.join(" ")), "");
        }
        if self.basic {
            add("client_auth", quoted("basic"), "");
        }
    }
}

fn is_plain_id(id: &str) -> bool {
    !id.is_empty() && id.len() <= 256 && id.bytes().all(|byte| byte.is_ascii_graphic()) && !id.contains(['$', '{', '}'])
}

/// Keeps the scopes that a config can have, and names the others.
pub fn scopes(draft: &mut Draft, line: usize, what: &str, found: &[&str]) -> Vec<String> {
    let plain = |scope: &str| scope.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"\\${}".contains(&byte));
    let words: Vec<&str> =
        found.iter().flat_map(|text| text.split([' ', ','])).filter(|word| !word.is_empty()).collect();
    if words.iter().any(|word| !plain(word)) {
        draft.lose(line, what, "a scope is not plain text; write `scope` yourself, docs/providers.md#oauth2");
    }
    words.into_iter().filter(|word| plain(word)).map(str::to_owned).collect()
}
