//! `[[webhook]]`: where a provider calls us, and the application that gets its verified calls.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use rustls::pki_types::ServerName;

use crate::base::origin::BaseUrl;
use crate::base::secret::sha256;
use crate::provider::{CallAs, Module};
use crate::route::configured_prefix;
use crate::syntax::byte_size::ByteSize;
use crate::syntax::{Diagnostics, Fields, Node};
use crate::tls::{self, ClientTls};

use super::listener::{ReadListener, tables};
use super::otlp_target::with_port;
use super::provider::{ProviderConfig, ReadProvider};
use super::reader::{Reader, pem_help};
use super::route::{ReadRoute, methods};
use super::schema::{DURATION, MAY, MUST, SchemaSection, SchemaShape};
use super::spanned_text::{Position, SpannedText};

/// A webhook: one path of one listener, at which a provider calls us.
#[derive(Debug)]
pub struct Webhook {
    /// Its name, for logs and metrics.
    pub name: Arc<str>,
    /// Name of the listener that receives it.
    pub listener: Arc<str>,
    /// The only path that it has.
    pub path: Arc<str>,
    /// The provider that calls.
    pub provider: Arc<ProviderConfig>,
    /// Module of that provider, which verifies.
    pub module: Arc<Module>,
    /// The methods that it takes.
    pub methods: Vec<Method>,
    /// The application that gets what was verified.
    pub application: Application,
    /// Largest body that is read, in bytes.
    pub body_limit: usize,
    /// Time limit of the application's whole answer, and of the sender's whole request.
    pub timeout: Duration,
}

/// The place of an application.
#[derive(Debug)]
pub struct Application {
    /// Host to resolve; no brackets.
    pub host: Arc<str>,
    pub port: u16,
    /// The `Host` of its requests.
    pub authority: String,
    pub path: String,
    /// The query without `?`.
    pub query: Option<String>,
    /// TLS settings; absent: in the clear.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// The name that its certificate must carry.
    pub server_name: ServerName<'static>,
}

pub(super) const KEYS: SchemaSection = (
    "webhook",
    &[
        ("body_limit", SchemaShape::Size, MAY, "largest body that is taken; 1MiB"),
        ("ca", SchemaShape::Text, MAY, "path of the only CAs to trust for the application, PEM"),
        ("listener", SchemaShape::Text, MUST, "the listener that receives it, reverse or callback"),
        ("methods", SchemaShape::Methods, MAY, "default: POST"),
        ("name", SchemaShape::Text, MAY, "for logs and metrics; default: the provider's"),
        ("path", SchemaShape::Text, MUST, "the one path that the provider calls, as in /hooks/bank"),
        ("provider", SchemaShape::Text, MUST, "who calls; its profile says how that is verified"),
        ("timeout", DURATION, MAY, "how long the application may take; 30s"),
        ("to", SchemaShape::Text, MUST, "the application, as in http://127.0.0.1:9000/bank-events"),
    ],
);

/// Largest body unless a webhook says otherwise: 1 MiB.
const BODY_LIMIT: u64 = 1 << 20;
const TIMEOUT: Duration = Duration::from_secs(30);

/// The path prefix of countersign's own endpoints.
const OWN: &str = "/.countersign";

/// A webhook as it was read; what could not be read is absent and was reported.
pub(super) struct ReadWebhook {
    name: Arc<str>,
    head: Position,
    pub(super) listener: Option<usize>,
    path: Option<(Arc<str>, Position)>,
    pub(super) provider: Option<usize>,
    module: Option<Arc<Module>>,
    methods: Vec<Method>,
    application: Option<Application>,
    body_limit: usize,
    timeout: Duration,
}

/// The parts of the config that a webhook is read against.
pub(super) struct WebhookReadContext<'a> {
    pub(super) listeners: &'a [ReadListener],
    pub(super) providers: &'a [ReadProvider],
    pub(super) reader: &'a Reader<'a>,
}

impl ReadWebhook {
    /// Makes the webhook of it, with its provider from among these; `None` if a part of it could not be read.
    pub(super) fn finish(self, listeners: &[ReadListener], providers: &[Arc<ProviderConfig>]) -> Option<Webhook> {
        Some(Webhook {
            name: self.name,
            listener: listeners.get(self.listener?)?.name.clone(),
            path: self.path?.0,
            provider: providers.get(self.provider?)?.clone(),
            module: self.module?,
            methods: self.methods,
            application: self.application?,
            body_limit: self.body_limit,
            timeout: self.timeout,
        })
    }
}

/// Reads all `[[webhook]]` tables.
pub(super) fn read(root: &Fields<'_>, around: &WebhookReadContext<'_>) -> Vec<ReadWebhook> {
    tables(root, "webhook", around.reader.report).into_iter().map(|node| read_one(node, around)).collect()
}

/// Reports names and paths that two webhooks have, or a webhook and a route.
pub(super) fn judge(webhooks: &[ReadWebhook], routes: &[ReadRoute], report: &Diagnostics) {
    for (at, webhook) in webhooks.iter().enumerate() {
        let named = |other: &ReadWebhook| other.name == webhook.name;
        if webhooks[..at].iter().any(named) || routes.iter().any(|route| route.keys.name == webhook.name) {
            let title = format!("another webhook or route is called `{}`", webhook.name);
            webhook.head.error(report, title, "give each a `name` of its own");
        }
        let (Some(listener), Some((path, position))) = (webhook.listener, &webhook.path) else { continue };
        let same = |other: &ReadWebhook| {
            other.listener == webhook.listener && other.path.as_ref().is_some_and(|(known, _)| known == path)
        };
        if webhooks[..at].iter().any(same) {
            position.error(report, format!("another webhook has the path `{path}` there"), "give each its own");
        }
        if let Some(route) = routes.iter().find(|route| route.listeners.contains(&listener) && route.covers(path)) {
            let title = format!("route `{}` takes requests for `{path}`, too", route.keys.name);
            let help =
                "give the webhook a listener of its own, such as one with `mode = \"callback\"`, or another path";
            position.error(report, title, help);
        }
    }
}

fn read_one(node: &Node, around: &WebhookReadContext<'_>) -> ReadWebhook {
    let WebhookReadContext { listeners, providers, reader } = *around;
    let report = reader.report;
    let fields = Fields::new(node, "[[webhook]]", report);
    let name = fields.opt::<SpannedText>("name");
    if let Some(name) = &name {
        name.judge_name(report);
    }
    let provider_word = fields.req::<SpannedText>("provider", "\"bank\"");
    let provider_names = providers.iter().map(|provider| &*provider.name);
    let provider = provider_word.as_ref().and_then(|word| word.find("provider", provider_names, report));
    let module = provider_word.as_ref().zip(provider.and_then(|at| providers.get(at)));
    let module = module.and_then(|(word, provider)| module_of(word, provider, report));
    let listener = fields.req::<SpannedText>("listener", "\"public\"").and_then(|word| {
        let at = word.find("listener", listeners.iter().map(|listener| &*listener.name), report)?;
        let receives = listeners.get(at).is_some_and(|listener| listener.mode.receives_webhooks());
        if !receives {
            let help = "a webhook comes to a reverse listener, or to one with `mode = \"callback\"`";
            word.place.error(report, format!("`{}` is a forward listener", word.text), help);
        }
        receives.then_some(at)
    });
    let path = fields.req::<SpannedText>("path", "\"/hooks/bank\"").and_then(|word| path(&word, report));
    let ca = fields.opt::<SpannedText>("ca");
    let application = fields.req::<SpannedText>("to", "\"http://127.0.0.1:9000/bank-events\"");
    let application = application.and_then(|word| application_of(&word, ca.as_ref(), reader));
    let mut methods = methods(&fields);
    if methods.is_empty() {
        methods.push(Method::POST);
    }
    let body_limit = fields.or("body_limit", ByteSize(BODY_LIMIT)).0;
    if let (0, Some(node)) = (body_limit, fields.take("body_limit")) {
        let help = "write a size, as in `\"1MiB\"`: anybody may send to a webhook";
        Position::of(node).error(report, "the body of a webhook has a limit", help);
    }
    let timeout = fields.or("timeout", TIMEOUT);
    if let (true, Some(node)) = (timeout.is_zero(), fields.take("timeout")) {
        Position::of(node).error(
            report,
            "`timeout` cannot be zero: nothing is that quick",
            "write `timeout = \"30s\"`",
        );
    }
    fields.finish();
    let name = name.or(provider_word).map_or_else(|| "webhook".into(), |word| word.text.into());
    ReadWebhook {
        name,
        head: Position::head(node),
        listener,
        path,
        provider,
        module,
        methods,
        application,
        body_limit: usize::try_from(body_limit).unwrap_or(usize::MAX),
        timeout,
    }
}

/// The module of the provider that calls, whose profile must verify webhooks.
fn module_of(word: &SpannedText, provider: &ReadProvider, report: &Diagnostics) -> Option<Arc<Module>> {
    let module = provider.compile(provider.settings.clone()?, CallAs::Application, report)?;
    if module.webhook().is_none() {
        let title = format!("the profile of [provider.{}] verifies no webhooks", provider.name);
        let help = "add `[[webhook.signature]]` to the profile, or set the keys that it names: see docs/webhooks.md";
        word.place.error(report, title, help);
        return None;
    }
    Some(module)
}

fn path(word: &SpannedText, report: &Diagnostics) -> Option<(Arc<str>, Position)> {
    let wrong = |title: String| {
        word.place.error(report, title, "write plain segments, as in `/hooks/bank`");
        None
    };
    match configured_prefix(&word.text) {
        Ok("") => wrong("a webhook has a path of its own".to_owned()),
        Ok(path) if path == OWN || path.starts_with("/.countersign/") => {
            wrong(format!("paths below `{OWN}` are countersign's own"))
        }
        Ok(path) => Some((path.into(), word.place.clone())),
        Err(why) => wrong(format!("`{}` cannot be the path of a webhook: {why}", word.text)),
    }
}

/// Reads `to` and `ca`.
fn application_of(word: &SpannedText, ca: Option<&SpannedText>, reader: &Reader<'_>) -> Option<Application> {
    let report = reader.report;
    let (text, query) = match word.text.split_once('?') {
        Some((text, query)) => (text, Some(query.to_owned())),
        None => (word.text.as_str(), None),
    };
    let clear = text.split_once("://").filter(|(scheme, _)| scheme.eq_ignore_ascii_case("http"));
    let parsed = match clear {
        Some((_, rest)) => BaseUrl::parse(&format!("https://{}", with_port(rest))),
        None => BaseUrl::parse(text),
    };
    let is_query =
        |query: &String| query.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"#<>\\^`{|}".contains(&byte));
    let url = match parsed {
        Ok(url) if query.as_ref().is_none_or(is_query) => url,
        Ok(_) | Err(_) => {
            // It may contain a password, which must not be shown.
            let help = "write it as in `http://127.0.0.1:9000/bank-events` or `https://app.corp/bank-events`";
            word.place.without_credentials().error(report, "this is not the URL of an application", help);
            return None;
        }
    };
    let slash = if url.path().is_empty() || text.ends_with('/') { "/" } else { "" };
    let (path, host) = (format!("{}{slash}", url.path()), url.bare_host().into());
    let (port, server_name) = (url.port(), url.server_name().clone());
    if clear.is_some() {
        if let Some(ca) = ca {
            ca.place.error(report, "there is no TLS to this application, so nobody is vouched for", "remove `ca`");
        }
        let is_near = url.bare_host() == "localhost"
            || url.bare_host().parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        if !is_near {
            let help = "write `https://…`, unless something else encrypts what travels there";
            word.place.warning(report, "what was verified travels to the application in the clear", help);
        }
        let authority = if port == 80 { url.host().to_owned() } else { format!("{}:{port}", url.host()) };
        return Some(Application { host, port, authority, path, query, tls: None, server_name });
    }
    let pem = ca.map(|word| reader.ca_file(word).map(|pem| (word, pem)));
    let pem = match pem {
        Some(pem) => Some(pem?),
        None => None,
    };
    let mut inputs = b"webhook".to_vec();
    if let Some((word, pem)) = &pem {
        inputs.extend(sha256(pem));
        if let Err(error) = tls::certificates(pem) {
            let help = pem_help(pem, &word.text, "x509", "it must hold the CA, as PEM");
            word.place.error(report, format!("`{}`: {error}", word.text), help);
            return None;
        }
    }
    let client_tls = ClientTls { ca: pem.as_ref().map(|(_, pem)| &pem[..]), ..ClientTls::default() };
    match reader.client_tls(sha256(&inputs), || tls::client(client_tls)) {
        Ok(tls) => {
            Some(Application { host, port, authority: url.authority(), path, query, tls: Some(tls), server_name })
        }
        Err(error) => {
            reader.tls_mistake(&error, ca, &word.place);
            None
        }
    }
}
