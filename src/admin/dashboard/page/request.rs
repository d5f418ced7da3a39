//! `/ui/requests/ID`: one request, and the cause of its failure.

use askama::Template;

use super::super::super::request_cause::quoted;
use super::super::super::view::{ProviderView, RequestDetailView};
use super::super::Admin;
use super::super::format::{ShownMoment, count, lasted, query};
use super::requests::result;
use super::runbook::runbook_page;
use super::{StatusBadge, Top};
use crate::base::time::Now;
use crate::observe::record::AccessRecord;
use crate::observe::stats::RequestSample;

/// Methods whose requests mostly have a body.
const WITH_BODY: [&str; 3] = ["PATCH", "POST", "PUT"];

#[derive(Template)]
#[template(path = "request.html")]
pub(super) struct RequestPage {
    top: Top,
    method: String,
    path: String,
    at: ShownMoment,
    status: String,
    result: StatusBadge,
    /// The sentence that tells most.
    cause: String,
    more: Vec<String>,
    error: &'static str,
    runbook: String,
    facts: Vec<RequestFact>,
    /// Its provider, and how that is now.
    provider: Option<(String, StatusBadge)>,
    /// The commands to copy, each with its title and a sentence.
    commands: Vec<(&'static str, &'static str, String)>,
}

/// A line of what is known of the request.
struct RequestFact {
    name: &'static str,
    value: String,
    /// Where it leads; empty if nowhere.
    href: String,
    is_code: bool,
}

impl RequestFact {
    const fn text(name: &'static str, value: String) -> Self {
        Self { name, value, href: String::new(), is_code: false }
    }

    const fn code(name: &'static str, value: String) -> Self {
        Self { name, value, href: String::new(), is_code: true }
    }

    /// A name from the config, which leads to a list.
    fn link(name: &'static str, value: &str, place: &str) -> Self {
        Self { name, value: value.to_owned(), href: format!("{place}{}", query(value)), is_code: false }
    }
}

/// Gathers the page; `None` if the request is not kept.
pub(super) async fn gather(admin: &Admin, top: Top, id: &str) -> Option<RequestPage> {
    let (sample, now) = (admin.sample(id)?, admin.clock.now());
    let (detail, providers) = (admin.request(id).await?, admin.providers().await.providers);
    let record = &sample.record;
    let provider = providers.iter().find(|view| Some(&*view.name) == record.provider.as_deref());
    let mut sentences = detail.cause.iter().cloned();
    let mut commands = Vec::new();
    if let Some(explain) = &detail.explain {
        let meaning = "what the config says to such a request; add its query, its header fields and its body if they \
                       matter";
        commands.push(("Explain this", meaning, explain.clone()));
    }
    if let Some(curl) = curl(admin, record, provider) {
        commands.push((
            "The same again",
            "with the client's own key in place of $KEY; nothing of the first is kept",
            curl,
        ));
    }
    Some(RequestPage {
        top,
        method: record.method.to_string(),
        path: record.path.clone(),
        at: ShownMoment::at(record.start.wall, now),
        status: record.status.map_or_else(|| "hung up".to_owned(), |status| status.to_string()),
        result: result(&sample),
        cause: sentences.next().unwrap_or_default(),
        more: sentences.collect(),
        error: record.error.unwrap_or_default(),
        runbook: sample.record.error.and_then(runbook_page).unwrap_or_default(),
        facts: facts(&sample, &detail, now),
        provider: provider.map(|view| (view.name.clone(), super::providers::state(view))),
        commands,
    })
}

fn facts(sample: &RequestSample, detail: &RequestDetailView, now: Now) -> Vec<RequestFact> {
    let (record, view) = (&sample.record, &detail.request);
    let at = ShownMoment::at(record.start.wall, now);
    let mut facts = vec![
        RequestFact::code("Id", format!("urn:uuid:{}", view.request_id)),
        RequestFact::text("Time", format!("{}, {}", at.iso, at.relative)),
    ];
    let named = [
        ("Client", &view.client, "/ui/requests?client="),
        ("Route", &view.route, "/ui/requests?route="),
        ("Provider", &view.provider, "/ui/providers#p-"),
    ];
    for (name, value, place) in named {
        facts.push(match value {
            Some(value) => RequestFact::link(name, value, place),
            None => RequestFact::text(name, "not known when it ended".to_owned()),
        });
    }
    facts.push(RequestFact::text("Listener", view.listener.clone()));
    facts.extend(view.client_address.clone().map(|address| RequestFact::code("Client's address", address)));
    facts.extend(view.user_agent.clone().map(|agent| RequestFact::code("Client's program", agent)));
    facts.extend(view.tls.map(|version| RequestFact::text("Client's TLS", version.to_owned())));
    facts.extend(view.upstream_address.clone().map(|address| RequestFact::code("Provider's address", address)));
    let whose = match view.fault {
        Some("operator") => "the operator: the process, its config or its credentials",
        Some("provider") => "the provider",
        Some(_) => "the client",
        None => "nobody, it went well",
    };
    facts.push(RequestFact::text("To act", whose.to_owned()));
    if let (Some(token), Some(generation)) = (&view.token, view.token_generation) {
        let value = format!("generation {generation}, fingerprint {token}");
        let mut fact = RequestFact::text("Token", value);
        let provider = view.provider.as_deref().unwrap_or_default();
        fact.href = format!("/ui/tokens?q={}", query(detail.token_key.as_deref().unwrap_or(provider)));
        facts.push(fact);
    }
    if let Some(refused) = &record.refused {
        let (fingerprint, generation) = refused.token;
        let value = format!("generation {generation}, fingerprint {fingerprint}");
        facts.push(RequestFact::text("Refused token", value));
    }
    facts.extend(view.replay.map(|replay| RequestFact::text("Replay", replay.to_owned())));
    let own = match record.upstream_took {
        Some(took) => {
            let provider = lasted(took);
            format!("{}, of which the provider took {provider} to its head", lasted(record.took))
        }
        None => format!("{}, without an answer of the provider", lasted(record.took)),
    };
    facts.push(RequestFact::text("Took", own));
    let (sent, got) = (count(view.request_bytes), count(view.response_bytes));
    let end = if view.complete { "" } else { ", not to its end" };
    facts.push(RequestFact::text("Bodies", format!("{sent} bytes to the provider, {got} bytes to the client{end}")));
    facts.extend(view.provider_request_id.clone().map(|id| RequestFact::code("Provider's request id", id)));
    facts.extend(view.trace_id.clone().map(|id| RequestFact::code("Trace", id)));
    facts
}

/// The command that makes the same request again, without its query, header fields and body, which are not kept. `None`
/// where that would be another one.
fn curl(admin: &Admin, record: &AccessRecord, provider: Option<&ProviderView>) -> Option<String> {
    if record.method == http::Method::CONNECT || record.path.ends_with('…') {
        return None;
    }
    let snapshot = admin.reloads.current();
    let listener = snapshot.listeners.iter().find(|listener| listener.name == record.listener)?;
    let (_, address) = admin.addresses.iter().find(|(name, _)| *name == listener.name)?;
    let scheme = if listener.tls.is_some() { "https" } else { "http" };
    let key = "\"Authorization: Bearer $KEY\"";
    let (way, origin) = if listener.forward().is_some() {
        let client = record.client.as_deref().unwrap_or("NAME");
        let proxy = format!("-x {scheme}://{address} --proxy-user {}:\"$KEY\"", quoted(client));
        (proxy, provider?.base_url.clone())
    } else if listener.mode.routes_by_path() {
        let routes = admin.routes().routes;
        let route = routes.iter().find(|route| Some(&*route.name) == record.route.as_deref());
        match route.and_then(|route| route.host.as_deref()) {
            Some(host) => (format!("--connect-to ::{address} -H {key}"), format!("{scheme}://{host}")),
            None => (format!("-H {key}"), format!("{scheme}://{address}")),
        }
    } else {
        return None;
    };
    let method = record.method.as_str();
    let body = if WITH_BODY.contains(&method) { " -H content-type:application/json -d @body.json" } else { "" };
    let method = if method == "GET" { String::new() } else { format!("-X {method} ") };
    Some(format!("curl -i {method}{way}{body} {}", quoted(&format!("{origin}{}", record.path))))
}
