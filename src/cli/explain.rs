//! `countersign explain`: what would become of a request, without sending anything.
//!
//! The answer comes from the data plane's own steps ([`foresee`]); this file chooses the listener, puts the request's
//! head together and shows the difference between what the client sends and what the provider would receive.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueHint};
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST, PROXY_AUTHORIZATION, TRANSFER_ENCODING};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use serde_json::{Value, json};

use super::admin_client::AdminClient;
use super::color::{self, Tone};
use super::{check, complain, config_path, print};
use crate::config::{Bind, ListenerAccess, ListenerConfig, MachineFiles, Snapshot, sketch};
use crate::provider::{ForeseenMessage, ForeseenSignature};
use crate::route::{Authority, Caller, ClientId};
use crate::serve::{Foreseen, Rejected, SampleRequest, foresee};
use crate::syntax::suggest;

/// The arguments of `countersign explain`.
#[derive(Debug, Args)]
pub struct ExplainArguments {
    /// Path of the config file; COUNTERSIGN_CONFIG names another default
    #[arg(short, long, value_name = "FILE", default_value_os_t = config_path::usual())]
    config: PathBuf,
    /// Method of the request to explain
    #[arg(short, long, default_value = "GET")]
    method: String,
    /// Name of the calling client, taken at its word; default: the file's only client, or the client that the headers
    /// identify
    #[arg(long, value_name = "NAME")]
    client: Option<String>,
    /// A header of the request, as in `-H 'x-account-id: 1'`; may be repeated
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// Its body, where a variable is read from it, fields are put into it, or a signature covers it
    #[arg(short, long, value_name = "JSON")]
    data: Option<String>,
    /// The listener; default: the first that would forward the request
    #[arg(long, value_name = "NAME")]
    listener: Option<String>,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
    /// Print a curl command that makes the request instead
    #[arg(long, conflicts_with = "json")]
    curl: bool,
    /// Explain a request that a running instance has had, by its id; method, path, client and listener are taken from it
    #[arg(long, value_name = "ID", conflicts_with_all = ["url", "method", "client", "listener"])]
    request: Option<String>,
    /// That instance's admin listener, as in http://127.0.0.1:9901; default: where the config says
    #[arg(long, value_name = "URL", value_hint = ValueHint::Url, requires = "request")]
    admin: Option<String>,
    /// The CA of its certificate, PEM; default: the certificate in the config, or else the system's CAs
    #[arg(long, value_name = "FILE", requires = "request")]
    admin_ca: Option<PathBuf>,
    /// The URL that the application calls, its path alone, or a route's name and what follows its path, as in `scb/v1/payment`
    #[arg(required_unless_present = "request")]
    url: Option<String>,
}

/// Explains one request. 0: it would be forwarded, 1: it would be refused, 2: this is no request, or no config.
pub fn run(arguments: &ExplainArguments) -> ExitCode {
    let snapshot = match check::load_quietly(&arguments.config) {
        Ok(snapshot) => snapshot,
        // A config with mistakes explains nothing.
        Err(_) => return ExitCode::from(2),
    };
    let sketch = match RequestSketch::of(arguments) {
        Ok(sketch) => sketch,
        Err(why) => {
            complain(&why);
            return ExitCode::from(2);
        }
    };
    match explain(&snapshot, &sketch, arguments) {
        Ok((forwarded, text)) => {
            print(&text);
            ExitCode::from(u8::from(!forwarded))
        }
        Err(why) => {
            complain(&why);
            ExitCode::from(2)
        }
    }
}

/// The request line, and who sends it where: from the arguments, or from a request that an instance has had.
struct RequestSketch {
    method: String,
    url: String,
    client: Option<String>,
    listener: Option<String>,
}

impl RequestSketch {
    fn of(arguments: &ExplainArguments) -> Result<Self, String> {
        let ExplainArguments { method, client, listener, config, .. } = arguments;
        let Some(id) = &arguments.request else {
            let url = arguments.url.as_deref().unwrap_or_default();
            let url = spelled_out(config, url).unwrap_or_else(|| url.to_owned());
            return Ok(Self { method: method.clone(), url, client: client.clone(), listener: listener.clone() });
        };
        let instance = AdminClient::new(arguments.admin.clone(), arguments.admin_ca.clone(), config.clone());
        let id: String = form_urlencoded::byte_serialize(id.as_bytes()).collect();
        let found = instance.ask("GET", &format!("/api/v1/requests/{id}"), None).map_err(|(_, why)| why)?;
        let named = |key: &str| found.get(key).and_then(Value::as_str).map(str::to_owned);
        let missing = || "the instance tells neither method nor path of this request".to_owned();
        complain(
            "note: the query, the headers and the body of a request are not kept; add headers with `-H`, a body with `-d`",
        );
        Ok(Self {
            method: named("http.request.method").ok_or_else(missing)?,
            url: named("url.path").ok_or_else(missing)?,
            client: named("countersign.client"),
            listener: named("countersign.listener"),
        })
    }
}

/// The path that `ROUTE/REST` stands for; `None`: it is a URL or a path, or there is no such route with a path.
fn spelled_out(config: &Path, url: &str) -> Option<String> {
    if url.starts_with('/') || url.contains("://") {
        return None;
    }
    let (name, rest) = url.split_once('/').unwrap_or((url, ""));
    let table = sketch(config, &MachineFiles).ok()?;
    let path = route_path(table.get("route")?.as_array()?, name)?;
    Some(format!("{}/{rest}", path.trim_end_matches('/')))
}

/// The path of the route of this name, which is its path without slashes where it has no other.
fn route_path<'a>(routes: &'a [toml::Value], name: &str) -> Option<&'a str> {
    routes.iter().find_map(|route| {
        let path = route.get("path")?.as_str()?;
        let own = route.get("name").and_then(toml::Value::as_str).unwrap_or(path.trim_matches('/'));
        (own == name).then_some(path)
    })
}

/// The request to explain, prepared for any listener.
struct Question<'a> {
    snapshot: &'a Snapshot,
    client: Option<ClientId>,
    /// Source of `client`, as the output shows it.
    source: &'static str,
    url: &'a str,
    head: Parts,
    /// The scheme and authority that the URL names, if it is one.
    named: Option<(bool, http::uri::Authority)>,
    body: bool,
    data: &'a str,
}

fn explain(
    snapshot: &Snapshot,
    sketch: &RequestSketch,
    arguments: &ExplainArguments,
) -> Result<(bool, String), String> {
    let (client, source) = client(snapshot, sketch.client.as_deref(), arguments.request.is_some())?;
    let (head, named) = head(sketch, &arguments.headers)?;
    let announced = |name| head.headers.get(name).is_some_and(|value| value != "0");
    let data = arguments.data.as_deref().unwrap_or_default();
    let body = !data.is_empty() || announced(CONTENT_LENGTH) || announced(TRANSFER_ENCODING);
    let question = Question { snapshot, client, source, url: &sketch.url, head, named, body, data };
    let listeners = question.listeners(sketch.listener.as_deref())?;
    let mut refused = None;
    for listener in listeners {
        match question.ask(listener) {
            Ok((sent, foreseen)) => {
                let found = Forwarded { question: &question, listener, sent: &sent, foreseen: &foreseen };
                let text = match (arguments.json, arguments.curl) {
                    (true, _) => pretty(&found.json()),
                    (false, true) => found.curl(&arguments.headers),
                    (false, false) => found.text(),
                };
                return Ok((true, text));
            }
            Err(why) if refused.is_none() => refused = Some((listener, why)),
            Err(_) => {}
        }
    }
    let (listener, why) = refused.ok_or("this config has no listener")?;
    let found = Turned { question: &question, listener, why };
    Ok((why.stub, if arguments.json { pretty(&found.json()) } else { found.text() }))
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

fn client(
    snapshot: &Snapshot,
    wanted: Option<&str>,
    is_recorded: bool,
) -> Result<(Option<ClientId>, &'static str), String> {
    let clients = &snapshot.clients.all;
    let names = || clients.iter().map(|client| &*client.name);
    let Some(wanted) = wanted else {
        return Ok(match clients.as_slice() {
            // If every listener requires a client, the only client of the config is assumed; otherwise the headers
            // decide.
            [_] if snapshot.listeners.iter().all(|listener| listener.access != ListenerAccess::Anyone) => {
                (Some(ClientId(0)), "the only one")
            }
            [] | [_, ..] => (None, "by its headers"),
        });
    };
    match names().position(|name| name == wanted).and_then(|at| u16::try_from(at).ok()) {
        Some(at) if is_recorded => Ok((Some(ClientId(at)), "as that request's")),
        Some(at) => Ok((Some(ClientId(at)), "named with --client")),
        None => Err(format!("there is no client called `{}`; {}", wanted.escape_debug(), nearest(wanted, names()))),
    }
}

fn nearest<'a>(wanted: &str, names: impl Iterator<Item = &'a str> + Clone) -> String {
    match suggest(wanted, names.clone()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => match names.collect::<Vec<_>>().join(", ") {
            known if known.is_empty() => "this config has none".to_owned(),
            known => format!("there are: {known}"),
        },
    }
}

type ExplainedClient = Option<(bool, http::uri::Authority)>;

/// The request's head in origin form, and what the URL says about the listener.
fn head(sketch: &RequestSketch, headers: &[String]) -> Result<(Parts, ExplainedClient), String> {
    let RequestSketch { method, url, .. } = sketch;
    let bad_url = || {
        let help = "write `https://host/path`, `/path`, or a route's name and what follows its path: `scb/v1/payment`";
        format!("`{}` is neither a URL nor a path, and names no route: {help}", url.escape_debug())
    };
    let uri: Uri = url.parse().map_err(|_| bad_url())?;
    let named = match (uri.scheme_str(), uri.authority()) {
        (None, None) if url.starts_with('/') => None,
        (Some(scheme @ ("http" | "https")), Some(authority)) => Some((scheme == "https", authority.clone())),
        (_, _) => return Err(bad_url()),
    };
    let target = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let target: Uri = target.parse().map_err(|_| bad_url())?;
    let method = Method::from_bytes(method.as_bytes())
        .map_err(|_| format!("`{}` is not a method: write `GET`, `POST`, …", method.escape_debug()))?;
    let (mut head, ()) = Request::new(()).into_parts();
    (head.method, head.uri) = (method, target);
    for header in headers {
        let read = header.split_once(':').and_then(|(name, value)| {
            let name = HeaderName::from_bytes(name.trim().as_bytes()).ok()?;
            Some((name, HeaderValue::from_bytes(value.trim().as_bytes()).ok()?))
        });
        // The value is not repeated: it may be a key.
        let (name, value) = read.ok_or("a header is written as in `-H 'x-account-id: 0188000049916'`")?;
        head.headers.append(name, value);
    }
    Ok((head, named))
}

impl Question<'_> {
    /// The listeners that may be meant, in the order of the file.
    fn listeners(&self, wanted: Option<&str>) -> Result<Vec<&ListenerConfig>, String> {
        let all = || self.snapshot.listeners.iter().map(|listener| &**listener);
        if let Some(wanted) = wanted {
            let found = all().find(|listener| *listener.name == *wanted);
            let names = all().map(|listener| &*listener.name);
            return found.map(|found| vec![found]).ok_or_else(|| {
                format!("there is no listener called `{}`; {}", wanted.escape_debug(), nearest(wanted, names))
            });
        }
        // A URL that names the provider itself is a request to a forward listener.
        let by_upstream: Vec<&ListenerConfig> = all()
            .filter(|listener| {
                let forward = listener.forward();
                forward.is_some_and(|forward| self.place().is_some_and(|place| forward.table.intercepts(&place)))
            })
            .collect();
        let scheme =
            |listener: &&ListenerConfig| self.named.as_ref().is_none_or(|(tls, _)| listener.tls.is_some() == *tls);
        let port = self.named.as_ref().and_then(|(_, authority)| authority.port_u16());
        let both: Vec<&ListenerConfig> =
            all().filter(scheme).filter(|listener| port.is_some() && port == listener.bind.port()).collect();
        // A load balancer in front may have another port and end TLS.
        let by_scheme: Vec<&ListenerConfig> = all().filter(scheme).collect();
        Ok([by_upstream, both, by_scheme, all().collect()]
            .into_iter()
            .find(|found| !found.is_empty())
            .unwrap_or_default())
    }

    /// The place that the URL names, as a tunnel would.
    fn place(&self) -> Option<Authority> {
        let (_, authority) = self.named.as_ref()?;
        Authority::inner(authority.as_str().as_bytes()).ok()
    }

    /// Follows the request through one listener; answers what the client sends there, and what would become of it.
    fn ask(&self, listener: &ListenerConfig) -> Result<(HeaderMap, Foreseen<'_>), Rejected> {
        let mut head = self.head.clone();
        let host = self.named.as_ref().map_or("localhost", |(_, authority)| authority.as_str());
        if !head.headers.contains_key(HOST)
            && let Ok(host) = HeaderValue::try_from(host)
        {
            head.headers.insert(HOST, host);
        }
        let (place, tls) = (self.place(), self.named.as_ref().is_none_or(|(tls, _)| *tls));
        if let (Some(_), false, Some((_, authority))) = (listener.forward(), tls, &self.named) {
            let path = head.uri.path_and_query().map_or("/", PathAndQuery::as_str);
            let absolute = Uri::builder().scheme("http").authority(authority.clone()).path_and_query(path).build();
            head.uri = absolute.unwrap_or(head.uri);
        }
        let asked = SampleRequest {
            to: place.as_ref().filter(|_| tls),
            listener,
            client: self.client,
            peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
            sni: self.named.as_ref().filter(|_| listener.tls.is_some()).map(|(_, authority)| authority.host()),
            head: &head,
            body: self.body,
            data: self.data.as_bytes(),
        };
        foresee(self.snapshot, &asked).map(|foreseen| (head.headers.clone(), foreseen))
    }

    fn client_name(&self, caller: Option<Caller>) -> Option<&str> {
        match caller {
            Some(Caller::Client(id)) => self.snapshot.clients.all.get(usize::from(id.0)).map(|client| &*client.name),
            Some(Caller::Anyone) | None => None,
        }
    }

    fn client_line(&self, caller: Option<Caller>) -> String {
        match (caller, self.client_name(caller)) {
            (Some(Caller::Anyone), _) => "anyone: this listener asks nobody".to_owned(),
            (_, Some(name)) => format!("{name} ({}{})", self.source, self.networks(caller)),
            (_, None) => "unknown".to_owned(),
        }
    }

    /// From where a client must call, which is taken at its word here.
    fn networks(&self, caller: Option<Caller>) -> String {
        let Some(Caller::Client(id)) = caller else { return String::new() };
        let networks = self.snapshot.clients.all.get(usize::from(id.0)).map(|client| client.networks.as_slice());
        match networks.unwrap_or_default() {
            [] => String::new(),
            some => {
                let some: Vec<String> = some.iter().map(ToString::to_string).collect();
                format!("; it must call from {}", some.join(", "))
            }
        }
    }

    /// Lists the clients that may make this request on this listener.
    fn open_to(&self, listener: &ListenerConfig) -> Vec<&str> {
        let ids = (0..).map(ClientId).zip(&self.snapshot.clients.all);
        let other = |id| Question { client: Some(id), head: self.head.clone(), named: self.named.clone(), ..*self };
        ids.filter(|(id, _)| other(*id).ask(listener).is_ok()).map(|(_, client)| &*client.name).collect()
    }
}

fn listener_line(listener: &ListenerConfig) -> String {
    let scheme = if listener.tls.is_some() { "https" } else { "http" };
    format!("{} ({scheme}://{})", listener.name, listener.bind)
}

/// A request that would be forwarded.
struct Forwarded<'a> {
    question: &'a Question<'a>,
    listener: &'a ListenerConfig,
    sent: &'a HeaderMap,
    foreseen: &'a Foreseen<'a>,
}

/// The header fields of a request, by what becomes of them.
struct Fates {
    added: Vec<(String, String)>,
    replaced: Vec<(String, String)>,
    removed: Vec<String>,
    kept: Vec<String>,
}

impl Forwarded<'_> {
    fn fates(&self) -> Fates {
        let Foreseen { route, headers, stand_in, .. } = self.foreseen;
        let mut fates = Fates { added: Vec::new(), replaced: Vec::new(), removed: Vec::new(), kept: Vec::new() };
        for name in headers.keys() {
            let (own, out): (Vec<_>, Vec<_>) =
                (self.sent.get_all(name).iter().collect(), headers.get_all(name).iter().collect());
            if own == out {
                fates.kept.push(name.to_string());
                continue;
            }
            let of_route = route.headers.iter().any(|(known, value)| known == name && value.is_sensitive());
            let told = out.iter().map(|value| match of_route {
                true => format!("‹secret: headers.{name}›"),
                false => stand_in.describe(&route.module, name, value),
            });
            let list = if own.is_empty() { &mut fates.added } else { &mut fates.replaced };
            list.extend(told.map(|told| (name.to_string(), told)));
        }
        let gone = self.sent.keys().filter(|name| !headers.contains_key(*name));
        fates.removed.extend(gone.map(HeaderName::to_string));
        fates
    }

    /// Lists the clients that may make this request; `None` if the listener does not require a client.
    fn open_to(&self) -> Option<Vec<&str>> {
        match self.foreseen.caller {
            Caller::Anyone => None,
            Caller::Client(_) => Some(self.question.open_to(self.listener)),
        }
    }

    fn upstream(&self) -> String {
        format!("https://{}{}", self.foreseen.route.upstream.authority(), self.foreseen.path_and_query)
    }

    /// A curl command that makes the request. `$COUNTERSIGN_KEY` in it is the client's key.
    fn curl(&self, headers: &[String]) -> String {
        let Question { head, named, data, .. } = self.question;
        let mut words = vec!["curl".to_owned(), "-i".to_owned()];
        if head.method != Method::GET {
            words.extend(["-X".to_owned(), quoted(head.method.as_str())]);
        }
        let path = head.uri.path_and_query().map_or("/", PathAndQuery::as_str);
        let scheme = if self.listener.tls.is_some() { "https" } else { "http" };
        let place = match &self.listener.bind {
            Bind::Tcp(address) if address.ip().is_unspecified() => format!("localhost:{}", address.port()),
            Bind::Tcp(address) => address.to_string(),
            Bind::Unix(path) => {
                words.extend(["--unix-socket".to_owned(), quoted(&path.display().to_string())]);
                "localhost".to_owned()
            }
        };
        let client = self.question.client_name(Some(self.foreseen.caller));
        let has = |name: HeaderName| head.headers.contains_key(name);
        let url = match (self.listener.forward(), named) {
            (Some(_), Some((tls, authority))) => {
                words.extend(["-x".to_owned(), format!("{scheme}://{place}")]);
                if let Some(client) = client.filter(|_| !has(PROXY_AUTHORIZATION)) {
                    words.extend(["-U".to_owned(), format!("\"{client}:$COUNTERSIGN_KEY\"")]);
                }
                format!("{}://{authority}{path}", if *tls { "https" } else { "http" })
            }
            (_, named) => {
                if client.is_some() && !has(AUTHORIZATION) {
                    words.extend(["-H".to_owned(), "\"Authorization: Bearer $COUNTERSIGN_KEY\"".to_owned()]);
                }
                let called = named
                    .as_ref()
                    .map(|(tls, authority)| format!("{}://{authority}", if *tls { "https" } else { "http" }));
                format!("{}{path}", called.unwrap_or_else(|| format!("{scheme}://{place}")))
            }
        };
        for header in headers {
            words.extend(["-H".to_owned(), quoted(header)]);
        }
        if !data.is_empty() {
            if !has(CONTENT_TYPE) {
                words.extend(["-H".to_owned(), quoted("Content-Type: application/json")]);
            }
            words.extend(["--data-raw".to_owned(), quoted(data)]);
        }
        words.push(quoted(&url));
        format!("{}\n", words.join(" "))
    }

    fn text(&self) -> String {
        let Foreseen { caller, route, key, vars, .. } = self.foreseen;
        let open_to = self.open_to().map_or_else(|| "anyone".to_owned(), |names| names.join(", "));
        let method = &self.question.head.method;
        let forwarded = Tone::Good.paint("forwarded", color::stdout_is_colored());
        let mut text = format!("{method} {} would be {forwarded}.\n\n", self.question.url);
        let mut line = |what: &str, told: &str| text += &format!("  {what:<10} {told}\n");
        line("listener", &listener_line(self.listener));
        line("client", &self.question.client_line(Some(*caller)));
        line("route", &format!("{} (this request is open to: {open_to})", route.name));
        if self.foreseen.tolerated {
            line("rules", "would refuse it, but are not enforced (`enforce = false`): it would be logged");
        }
        for (name, value) in vars.iter() {
            line("variable", &format!("{name} = {value}"));
        }
        line("provider", &format!("{} (profile {})", route.provider.name, route.provider.profile));
        match route.module.token_url() {
            Some(url) if route.module.proves() => {
                line("token", &format!("key {key}, from {url}, bound to the key of [dpop]"));
            }
            Some(url) => line("token", &format!("key {key}, from {url}")),
            None => line("token", "none: the provider's credential is static"),
        }
        line("goes to", &format!("{method} {}", self.upstream()));
        let fates = self.fates();
        let shown = |(name, value): &(String, String)| format!("{name}: {value}");
        let lists: [(&str, Vec<String>); 4] = [
            ("Headers added", fates.added.iter().map(shown).collect()),
            ("Headers replaced", fates.replaced.iter().map(shown).collect()),
            ("Headers removed", fates.removed),
            ("Headers passed on as they are", fates.kept),
        ];
        let fields = &self.foreseen.content.body_fields;
        let fields = fields.iter().map(|(pointer, value)| format!("{pointer}: {value}")).collect();
        let signatures = self.foreseen.content.signatures.iter().map(|signature| {
            let ForeseenSignature { place, form, algorithm, text } = signature;
            format!("{place} ({form}, {algorithm}):\n{}", indented(text))
        });
        let messages = self.foreseen.content.messages.iter().map(|message| {
            let ForeseenMessage { form, algorithms, from, to } = message;
            format!("{} becomes {} ({form}, {algorithms})", part(from), part(to))
        });
        let more: [(&str, Vec<String>); 3] = [
            ("Fields put into the body", fields),
            ("Signed and encrypted in the body", messages.collect()),
            ("Signed, with times, nonces and identifiers that are made anew for each attempt", signatures.collect()),
        ];
        for (title, lines) in lists.iter().chain(&more).filter(|(_, lines)| !lines.is_empty()) {
            let _ = writeln!(text, "\n{title}:");
            for line in lines {
                let _ = writeln!(text, "  {line}");
            }
        }
        text
    }

    fn json(&self) -> Value {
        let Foreseen { caller, route, key, vars, .. } = self.foreseen;
        let fates = self.fates();
        let pairs = |list: Vec<(String, String)>| -> Vec<Value> {
            list.into_iter().map(|(name, value)| json!({ "name": name, "value": value })).collect()
        };
        let content = &self.foreseen.content;
        let body_fields: Vec<Value> =
            content.body_fields.iter().map(|(pointer, value)| json!({ "pointer": pointer, "value": value })).collect();
        let message = |one: &ForeseenMessage| json!({ "form": one.form, "algorithms": one.algorithms, "from": one.from, "to": one.to });
        let messages: Vec<Value> = content.messages.iter().map(message).collect();
        let signatures: Vec<Value> = content
            .signatures
            .iter()
            .map(|one| json!({ "place": one.place, "form": one.form, "algorithm": one.algorithm.to_string(), "text": one.text }))
            .collect();
        let vars: serde_json::Map<String, Value> =
            vars.iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
        json!({
            "forwarded": true,
            "listener": &*self.listener.name,
            "client": self.question.client_name(Some(*caller)),
            "route": &*route.name,
            "open_to": self.open_to().map_or_else(|| json!("anyone"), |names| json!(names)),
            "variables": vars,
            "provider": &*route.provider.name,
            "profile": &*route.provider.profile,
            "token": route.module.token_url().map(|url| json!({ "key": key.to_string(), "url": url.to_string() })),
            "upstream": { "method": self.question.head.method.as_str(), "url": self.upstream() },
            "headers": {
                "added": pairs(fates.added),
                "replaced": pairs(fates.replaced),
                "removed": fates.removed,
                "kept": fates.kept,
            },
            "body_fields": body_fields,
            "messages": messages,
            "signatures": signatures,
        })
    }
}

/// A word as a shell takes it, in single quotes where it needs some.
fn quoted(word: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:@%+=,".contains(&byte);
    if !word.is_empty() && word.bytes().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// The part of a body that a JSON pointer names.
fn part(pointer: &str) -> &str {
    if pointer.is_empty() { "all of it" } else { pointer }
}

/// A text of one or more lines, below the line of what it belongs to.
fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}

/// A request that would not be forwarded: it is refused, or answered here.
struct Turned<'a> {
    question: &'a Question<'a>,
    listener: &'a ListenerConfig,
    why: Rejected,
}

impl Turned<'_> {
    fn route(&self) -> Option<&str> {
        self.question.snapshot.routes.get(self.why.route?).map(|route| &*route.name)
    }

    /// Returns advice on the steps that the operator may take about the refusal, if there is any.
    fn advice(&self) -> Option<String> {
        let names: Vec<&str> = self.question.snapshot.clients.all.iter().map(|client| &*client.name).collect();
        match self.why.fault.name() {
            "client-unidentified" => Some(format!("say who calls with `--client NAME`: {}", names.join(", "))),
            _ if self.why.stub => {
                let told = "countersign answers it itself, in the provider's shape, with a worthless token";
                Some(format!("`token_endpoint = \"stub\"`: {told}"))
            }
            "client-not-allowed" if self.why.fault == crate::serve::fault::Fault::ReservedEndpoint => None,
            "client-not-allowed" => {
                let from_a_page =
                    ["origin", "sec-fetch-site"].iter().any(|name| self.question.head.headers.contains_key(*name));
                Some(match (self.route(), self.question.open_to(self.listener).as_slice()) {
                    (None, _) if self.why.caller == Some(Caller::Anyone) && from_a_page => {
                        "where nobody is asked who they are, requests of web pages are refused".to_owned()
                    }
                    (Some(route), []) => {
                        format!("route `{route}` matches, but lets nobody do this: see its `methods` and `allow`")
                    }
                    (Some(route), open) => {
                        format!("route `{route}` matches; this request is open to: {}", open.join(", "))
                    }
                    (None, []) => {
                        "see the `clients` of the listener, and `clients`, `methods` and `allow` of its routes"
                            .to_owned()
                    }
                    (None, open) => format!("this request is open to: {}", open.join(", ")),
                })
            }
            "route-not-found" => {
                let routes = self.question.snapshot.routes.iter().map(|route| &*route.name);
                Some(format!("the routes are: {}", routes.collect::<Vec<_>>().join(", ")))
            }
            _ => None,
        }
    }

    fn text(&self) -> String {
        let row = self.why.fault.row();
        let Question { head, url, .. } = self.question;
        let is_colored = color::stdout_is_colored();
        let (stub, refused) =
            (Tone::Good.paint("answered by countersign", is_colored), Tone::Bad.paint("refused", is_colored));
        let fate = match self.why.stub {
            true => format!("{stub} (200)"),
            false => format!("{refused}: {} ({})", row.name, row.status.as_u16()),
        };
        let mut text = format!("{} {url} would be {fate}.\n\n", head.method);
        let mut line = |what: &str, told: &str| text += &format!("  {what:<10} {told}\n");
        line("listener", &listener_line(self.listener));
        line("client", &self.question.client_line(self.why.caller));
        if let Some(route) = self.route() {
            line("route", route);
        }
        if !self.why.stub {
            // A detail of the path's judge is half a sentence.
            let joint = if row.detail.starts_with(|first: char| first.is_lowercase()) { ":" } else { "." };
            line("why", &format!("{}{joint} {}", row.title, row.detail));
        }
        if let Some(advice) = self.advice() {
            line("note", &advice);
        }
        text
    }

    fn json(&self) -> Value {
        let row = self.why.fault.row();
        if self.why.stub {
            return json!({
                "forwarded": false,
                "stub": true,
                "listener": &*self.listener.name,
                "client": self.question.client_name(self.why.caller),
                "route": self.route(),
                "status": 200,
                "note": self.advice(),
            });
        }
        json!({
            "forwarded": false,
            "listener": &*self.listener.name,
            "client": self.question.client_name(self.why.caller),
            "route": self.route(),
            "error": row.name,
            "status": row.status.as_u16(),
            "title": row.title,
            "detail": row.detail,
            "note": self.advice(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_quoted_for_a_shell_where_it_must_be() {
        assert_eq!(quoted("https://localhost:8443/a?b=1".trim_end_matches("?b=1")), "https://localhost:8443/a");
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("it's $x"), "'it'\\''s $x'");
        assert_eq!(quoted(""), "''");
    }

    #[test]
    fn a_route_is_known_by_its_name_or_by_its_path() {
        let table: toml::Table =
            "[[route]]\npath = \"/scb\"\n[[route]]\nname = \"pay\"\npath = \"/v2/pay/\"\n".parse().expect("TOML");
        let routes = table["route"].as_array().expect("a list");
        assert_eq!(route_path(routes, "scb"), Some("/scb"));
        assert_eq!(route_path(routes, "pay"), Some("/v2/pay/"));
        assert_eq!(route_path(routes, "v2"), None);
    }
}
