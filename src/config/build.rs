//! From a text to a snapshot, with every mistake on the way.
//!
//! Sections are read one by one, each as far as it can be, so that one mistake hides no other. Then follow the
//! questions that need the whole: whether every listener has somebody to serve, whether every route can run.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use crate::base::secret::{hex, sha256};
use crate::provider::CallAs as TokenCaller;
use crate::route::{Caller, ClientId, Opens};
use crate::syntax::{Diagnostic, Diagnostics, Fields, Kind, Node, Severity, SourceText, TableEntry};

use super::admin;
use super::audit;
use super::client::{self, KnownClients, Users};
use super::config_section::config_sections;
use super::credentials;
use super::files::Files;
use super::include;
use super::limits;
use super::listener::{self, ListenerAccess, ListenerConfig, ReadListener, ServedRoute, ServedRoutes};
use super::log;
use super::otlp;
use super::profile_pack;
use super::provider::{self, ProviderConfig, ReadProvider};
use super::reader::Reader;
use super::redact::redact_all;
use super::reload;
use super::route::{self, ReadRoute, Route, RouteReadContext};
use super::runtime;
use super::secret_source;
use super::snapshot::{Snapshot, SnapshotFields};
use super::spanned_text::Position;
use super::store::{self, Storage};
use super::webhook::{self, ReadWebhook, Webhook, WebhookReadContext};

/// Reads a config. `path` is where it stands: relative paths in it start at its directory, and messages name it so.
///
/// There is a snapshot exactly when there is no error; warnings may come with it.
pub fn build(path: &Path, text: impl Into<String>, files: &dyn Files) -> (Option<Snapshot>, Vec<Diagnostic>) {
    let source = SourceText::new(path.display().to_string(), text);
    let report = Diagnostics::new();
    let (mut root, whole) = Node::parse_whole(&source, &report);
    let reader = Reader::new(files, path, &report);
    reader.read_text(path, source.text.as_bytes());
    let (included, parsed) = include::gather_includes(&mut root, files, &reader);
    let whole = whole && parsed;
    // Parts of a text that is not well-formed may be missing, so nothing in it can be judged.
    let snapshot = if whole { assemble(&root, &reader, Extent::Whole) } else { None };
    if snapshot.is_none() && report.errors() == 0 {
        report.error(&source, 0..0, "the config could not be put together", "", None);
    }
    let mut diagnostics = report.into_diagnostics();
    for text in included.iter().chain([&source]) {
        redact_all(text, whole, &mut diagnostics);
    }
    let fine = diagnostics.iter().all(|found| found.severity == Severity::Warning);
    (snapshot.filter(|_| fine), diagnostics)
}

/// A config without the providers that have mistakes.
#[derive(Debug)]
pub struct PartialConfig {
    /// The rest, with neither the routes nor the webhooks of those providers. Nothing may be served with it.
    pub snapshot: Snapshot,
    /// The names of the providers that were left out, in the order of the file.
    pub left_out: Vec<Arc<str>>,
}

/// Reads a config again whose `mistakes` are known, without the providers that they are in. `None` if a mistake is
/// elsewhere, or nothing would be left.
pub fn build_without_mistaken_providers(
    path: &Path,
    text: impl Into<String>,
    files: &dyn Files,
    mistakes: &[Diagnostic],
) -> Option<PartialConfig> {
    let source = SourceText::new(path.display().to_string(), text);
    let report = Diagnostics::new();
    let (mut root, _) = Node::parse_whole(&source, &report);
    let reader = Reader::new(files, path, &report);
    let _ = include::gather_includes(&mut root, files, &reader);
    let Kind::Table(table) = &mut root.kind else { return None };
    let named = table.entries.iter_mut().find(|entry| entry.key == "provider")?;
    let Kind::Table(providers) = &mut named.value.kind else { return None };
    let errors: Vec<&Diagnostic> = mistakes.iter().filter(|found| found.severity == Severity::Error).collect();
    let is_mistaken = |entry: &TableEntry| errors.iter().any(|error| holds(entry, error));
    if !errors.iter().all(|error| providers.entries.iter().any(|entry| holds(entry, error))) {
        return None;
    }
    let left_out: Vec<Arc<str>> =
        providers.entries.iter().filter(|entry| is_mistaken(entry)).map(|entry| entry.key.as_str().into()).collect();
    providers.entries.retain(|entry| !is_mistaken(entry));
    if providers.entries.is_empty() {
        return None;
    }
    let uses_one = |node: &Node| {
        let provider = node.as_table().and_then(|table| table.find("provider")?.value.as_str());
        provider.is_some_and(|provider| left_out.iter().any(|name| **name == *provider))
    };
    for entry in table.entries.iter_mut().filter(|entry| matches!(entry.key.as_str(), "route" | "webhook")) {
        if let Kind::Array(items) = &mut entry.value.kind {
            items.retain(|item| !uses_one(item));
        }
    }
    let snapshot = assemble(&root, &reader, Extent::Part)?;
    Some(PartialConfig { snapshot, left_out })
}

/// Returns whether a mistake is in this entry: at its name, or at something in its value.
fn holds(entry: &TableEntry, mistake: &Diagnostic) -> bool {
    let within = |source: &Arc<SourceText>, span: &Range<usize>| {
        source.name == mistake.source.name && span.start <= mistake.span.start && mistake.span.end <= span.end
    };
    let below = match &entry.value.kind {
        Kind::Array(items) => items.iter().any(|item| within(&item.source, &item.span) || in_table(item, mistake)),
        Kind::Table(_) => in_table(&entry.value, mistake),
        Kind::Boolean(_) | Kind::Float(_) | Kind::Integer(_) | Kind::String(_) => false,
    };
    within(&entry.value.source, &entry.key_span) || within(&entry.value.source, &entry.value.span) || below
}

fn in_table(node: &Node, mistake: &Diagnostic) -> bool {
    node.as_table().is_some_and(|table| table.entries.iter().any(|entry| holds(entry, mistake)))
}

/// The part of a config that is judged.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Extent {
    /// A part: what is unused or cannot be reached may only lack what was left out.
    Part,
    Whole,
}

fn assemble(root: &Node, reader: &Reader<'_>, extent: Extent) -> Option<Snapshot> {
    let report = reader.report;
    let fields = Fields::new(root, "the file", report);
    secret_source::read(&fields, reader);
    let known = client::read(&fields, reader);
    profile_pack::read(&fields, reader);
    let providers = provider::read(&fields, &known, reader);
    let mut listeners = listener::read(&fields, &known, reader);
    let around = RouteReadContext { known: &known, listeners: &listeners, providers: &providers, reader };
    let routes = route::read(&fields, &around);
    let around = WebhookReadContext { listeners: &listeners, providers: &providers, reader };
    let webhooks = webhook::read(&fields, &around);
    let limits = limits::read(&fields, reader);
    let log = log::read(&fields, reader);
    let admin = admin::read(&fields, &listeners, reader);
    let workers = runtime::read(&fields, reader);
    let store = store::read(&fields, reader);
    let watch = reload::read(&fields, reader);
    let otlp = otlp::read(&fields, reader);
    // It was taken out, and heeded, before.
    let _heeded = fields.take("include");
    let audit = audit::read(&fields, &log, reader);
    fields.finish();
    if listeners.is_empty() {
        let help = "add a `[[listener]]` with `bind = \"127.0.0.1:8443\"`";
        Position::head(root).error(report, "the file has no listener, so nothing could be served", help);
    }
    credentials::judge(&known, &listeners, report);
    if extent == Extent::Whole {
        judge_reach(&known, &listeners, &routes, &webhooks, report);
        judge_use(&known, &providers, &routes, &webhooks, report);
    }
    judge_quotas(&providers, &routes, report);
    webhook::judge(&webhooks, &routes, report);
    build_tables(&mut listeners, &routes, report);
    let consents = providers.iter().enumerate().map(|(at, provider)| provider.consents(&users_of(&routes, at), report));
    let consents: Vec<_> = consents.collect();
    judge_users(&known, &listeners, &providers, &routes, &store, report);
    if report.errors() > 0 {
        return None;
    }
    let declared = providers.iter().filter_map(|read| Some((&*read.name, read.profile.as_ref()?.declared())));
    let sections = config_sections(root, &declared.collect());
    let mut inputs = root.source.text.clone().into_bytes();
    inputs.extend(reader.texts().iter().flat_map(|text| sha256(text)));
    let finished: Option<Vec<Arc<ProviderConfig>>> = providers
        .iter()
        .zip(consents)
        .enumerate()
        .map(|(index, (provider, consents))| provider.finished(index, consents, reader).map(Arc::new))
        .collect();
    let providers = finished?;
    let routes: Option<Vec<Arc<Route>>> =
        routes.into_iter().map(|route| route.finish(&providers).map(Arc::new)).collect();
    let webhooks = webhooks.into_iter().map(|webhook| webhook.finish(&listeners, &providers).map(Arc::new));
    let webhooks: Option<Vec<Arc<Webhook>>> = webhooks.collect();
    let listeners: Option<Vec<Arc<ListenerConfig>>> =
        listeners.into_iter().map(|listener| listener.finish().map(Arc::new)).collect();
    Some(Snapshot(SnapshotFields {
        digest: hex(&sha256(&inputs)),
        listeners: listeners?,
        providers,
        routes: routes?,
        clients: known.clients,
        limits,
        log,
        audit,
        admin,
        workers,
        store,
        otlp,
        certificates: reader.certificates(),
        sections,
        sources: reader.sources(root),
        webhooks: webhooks?,
        watch,
    }))
}

/// A variable that a quota counts by must be one of every route to its provider: without it all values are counted as one.
fn judge_quotas(providers: &[ReadProvider], routes: &[ReadRoute], report: &Diagnostics) {
    for (at, provider) in providers.iter().enumerate() {
        for (name, place) in provider.quotas.iter().flat_map(|quota| &quota.vars) {
            let lacks = |route: &&ReadRoute| route.provider == Some(at) && !route.defines(name);
            if let Some(route) = routes.iter().find(lacks) {
                let title = format!("route `{}` has no variable `{name}`, by which this quota counts", route.keys.name);
                place.error(report, title, format!("add `{name}` to its `vars`, or take it out here"));
            }
        }
    }
}

/// Builds the route table of each listener.
fn build_tables(listeners: &mut [ReadListener], routes: &[ReadRoute], report: &Diagnostics) {
    let served = routes.iter().enumerate().map(|(index, route)| ServedRoute {
        name: &route.keys.name,
        head: &route.head,
        matched: &route.matched,
        listeners: &route.listeners,
        upstream: route.upstream.as_ref(),
        rule: route.rule(index).map(Arc::new),
        token_place: route.token_place(index),
    });
    let mut served = ServedRoutes::new(served, report);
    for (at, listener) in listeners.iter_mut().enumerate() {
        listener.mode.build_table(at, &mut served);
    }
    served.finish();
}

/// To whom the routes are open that call this provider for users.
fn users_of(routes: &[ReadRoute], provider: usize) -> Opens {
    let calling = routes.iter().filter(|route| route.keys.user.is_some() && route.provider == Some(provider));
    calling.fold(Opens::Only(Vec::new()), |opens, route| opens.joined(&route.opens))
}

/// Users' calls need consents, and consents a place to be kept and a way back.
fn judge_users(
    known: &KnownClients,
    listeners: &[ReadListener],
    providers: &[ReadProvider],
    routes: &[ReadRoute],
    store: &Storage,
    report: &Diagnostics,
) {
    // What is wrong with the store was told.
    let forgetful = !store.settings.outlives() && !store.ephemeral && !store.unread;
    for route in routes.iter().filter(|route| route.keys.user.is_some()) {
        if forgetful {
            let title = format!(
                "route `{}` calls for users, but their consents would be lost with the process",
                route.keys.name
            );
            let help = "add `[store] url = \"file:var/countersign.redb\"` with `keys`, or say `ephemeral = true` there";
            route.head.error(report, title, help);
        }
        let no_client = known.clients.all.iter().all(|client| client.users == Users::Only(Vec::new()));
        if no_client && !report.has_misspelt("users") {
            let title = format!("route `{}` calls for users, but no client may", route.keys.name);
            route.head.error(report, title, "add `users = [\"*\"]` to a [client.NAME]");
        }
    }
    let consenting = providers.iter().find(|provider| provider.consent.is_some());
    let returns = listeners.iter().any(|listener| listener.mode.receives_callbacks());
    if let (Some(provider), false) = (consenting, returns) {
        let title = format!("nobody would come back from a consent of [provider.{}]", provider.name);
        let help = "add a [[listener]] with `mode = \"callback\"`, unless applications post the codes themselves";
        provider.position.warning(report, title, help);
    }
}

/// Every route must be reachable by somebody, and everybody who is let in must have somewhere to go.
fn judge_reach(
    known: &KnownClients,
    listeners: &[ReadListener],
    routes: &[ReadRoute],
    webhooks: &[ReadWebhook],
    report: &Diagnostics,
) {
    for (at, listener) in listeners.iter().enumerate() {
        let Some(answer) = listener.mode.without_routes() else { continue };
        let mut served = routes.iter().filter(|route| route.listeners.contains(&at)).peekable();
        if served.peek().is_none() && webhooks.iter().any(|webhook| webhook.listener == Some(at)) {
            continue;
        }
        if served.peek().is_none() {
            let title = format!("no route is served on listener `{}`", listener.name);
            listener.head.warning(report, title, format!("every request there would be {answer}"));
            continue;
        }
        let served: Vec<&ReadRoute> = served.collect();
        for word in &listener.listed {
            let id = known.names().position(|name| name == word.text).and_then(|id| u16::try_from(id).ok());
            if let Some(id) = id.map(ClientId)
                && !served.iter().any(|route| route.opens.admits(Caller::Client(id)))
            {
                let title = format!("client `{}` is let in here, but no route admits it", word.text);
                word.place.error(report, title, "add it to the `clients` of a [[route]], or remove it");
            }
        }
    }
    for route in routes {
        // A list that could not be read was reported; it proves nothing.
        let unread = matches!(&route.opens, Opens::Only(ids) if ids.is_empty());
        let reachable = route.listeners.iter().filter_map(|at| listeners.get(*at)).any(|l| lets_in(l, &route.opens));
        if !reachable && !unread && !route.listeners.is_empty() && !known.clients.all.is_empty() {
            let title = format!("route `{}` can never run: no listener lets its clients in", route.keys.name);
            let help =
                "a listener with `clients = \"anyone\"` asks nobody who they are, so it serves only routes for anyone";
            route.head.error(report, title, help);
        }
    }
}

fn lets_in(listener: &ReadListener, opens: &Opens) -> bool {
    match (&listener.access, opens) {
        (ListenerAccess::Anyone, opens) => opens.admits(Caller::Anyone),
        (ListenerAccess::Identified, Opens::Everyone) => true,
        (ListenerAccess::Identified, Opens::Only(ids)) => !ids.is_empty(),
        (ListenerAccess::Listed(ids), opens) => ids.iter().any(|id| opens.admits(Caller::Client(*id))),
    }
}

/// Reports what is not used, most likely a slip; not if a misspelt name, which was reported, may refer to it.
fn judge_use(
    known: &KnownClients,
    providers: &[ReadProvider],
    routes: &[ReadRoute],
    webhooks: &[ReadWebhook],
    report: &Diagnostics,
) {
    let unread = routes.iter().any(|route| route.provider.is_none());
    for (at, provider) in providers.iter().enumerate().filter(|_| !unread) {
        let calls = webhooks.iter().any(|webhook| webhook.provider == Some(at));
        if !calls && !routes.iter().any(|route| route.provider == Some(at)) {
            let title = format!("no route uses [provider.{}]", provider.name);
            provider.position.warning(report, title, "add a [[route]] with it, or remove it");
            // Its other mistakes are reported all the same.
            let _ = provider
                .settings
                .clone()
                .and_then(|settings| provider.compile(settings, TokenCaller::Application, report));
        }
    }
    // A bound that is misspelt would bound nothing.
    for (client, position) in known.clients.all.iter().zip(&known.positions).filter(|_| report.errors() == 0) {
        for (var, _) in client.vars.iter().filter(|(var, _)| !routes.iter().any(|route| route.defines(var))) {
            let title = format!("[client.{}] is bounded in `{var}`, but no route defines that variable", client.name);
            position.error(report, title, "write the name of a variable as in the `vars` of a [[route]], or remove it");
        }
    }
    let unread = routes.iter().any(|route| matches!(&route.opens, Opens::Only(ids) if ids.is_empty()));
    for ((id, client), position) in
        (0..).map(ClientId).zip(&known.clients.all).zip(&known.positions).filter(|_| !unread)
    {
        if !routes.iter().any(|route| route.opens.admits(Caller::Client(id))) {
            let title = format!("no route admits [client.{}]", client.name);
            position.warning(report, title, "add it to the `clients` of a [[route]], or remove it");
        }
    }
}
