//! `[[route]]`: what leads from a request to a provider.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};

use crate::base::origin::BaseUrl;
use crate::base::secret::ExposeSecret;
use crate::base::time::{Clock, Now};
use crate::provider::{CallAs, Module, Settings, Shadow};
use crate::route::{Allow, Opens, PathRules, Rate, Reserved, RouteRule, Var, configured_prefix, refused_method};
use crate::syntax::byte_size::ByteSize;
use crate::syntax::{Diagnostics, Fields, Kind, Node, suggest};
use crate::token::credential_slots::by_slot;
use crate::token::grant::CallPlace;

use super::client::KnownClients;
use super::listener::{ReadListener, tables};
use super::provider::{ProviderConfig, ReadProvider, url};
use super::reader::Reader;
use super::schema::{DURATION, MAY, MUST, SchemaSection, SchemaShape};
use super::spanned_text::{PermittedClients, Position, SpannedText, choice};
use super::timeouts::{self, Timeouts};
use super::variable::variables;

/// One `[[route]]`: what the data plane needs once the route is chosen. Matching lives in [`RouteRule`].
///
/// Its keys are read as if they were its own fields.
#[derive(Debug)]
pub struct Route {
    /// Provider that the route's requests are sent to.
    pub provider: Arc<ProviderConfig>,
    /// Module for the provider's protocol, with the route's own settings.
    pub module: Arc<Module>,
    /// The shadow of the provider, with the route's own settings; `None`: it has none, or the calls are users'.
    pub shadow: Option<Arc<Shadow>>,
    /// Destination of requests: the provider's base URL, or the route's `upstream`. The permit's path includes its
    /// path.
    pub upstream: BaseUrl,
    /// The same route with the provider's next credentials.
    pub next: Option<Arc<Route>>,
    keys: RouteKeys,
}

impl Route {
    /// The route with the credentials that calls use now, and with the other ones if there are any.
    pub fn by_slot(self: &Arc<Self>, now: Now) -> (&Arc<Self>, Option<&Arc<Self>>) {
        by_slot(self.provider.slots.as_deref(), self, self.next.as_ref(), now)
    }

    /// Returns whether both slots have the credentials that those of `other` have.
    pub fn has_credentials_of(&self, other: &Self) -> bool {
        let keys = |route: &Self| [Some(route.module.key()), route.next.as_ref().map(|next| next.module.key())];
        keys(self) == keys(other)
    }
}

impl Deref for Route {
    type Target = RouteKeys;

    fn deref(&self) -> &RouteKeys {
        &self.keys
    }
}

/// The keys of a `[[route]]` that are finished as soon as its table is read.
#[derive(Clone, Debug)]
pub struct RouteKeys {
    /// Its name, for logs and metrics.
    pub name: Arc<str>,
    /// True if its limits on clients refuse requests, rather than only being reported.
    pub enforce: bool,
    /// The header that says in which user's name a call is made; absent: in the application's.
    pub user: Option<HeaderName>,
    /// Always set on the forwarded request, after everything else was stripped.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Headers that variables are read from and that are not forwarded.
    pub consumed: Vec<HeaderName>,
    /// Treatment of a response in which the provider echoes a credential.
    pub reflection: Reflection,
    /// Limit on the number of requests; `None`: any number.
    pub rate: Option<Arc<Rate>>,
    /// Largest request body that is kept for a replay, in bytes.
    pub replay_limit: u64,
    /// True if bodies are collected first, within that limit, and sent with a length.
    pub request_buffering: bool,
    /// True if its connections may become WebSockets.
    pub websocket: bool,
    /// This route's own waiting times.
    pub timeouts: Timeouts,
}

/// Treatment of a provider's response that contains a live token or secret.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Reflection {
    /// The answer is not passed on.
    Block,
    /// Stars stand in the credential's place.
    #[default]
    Mask,
    /// Responses are not searched for credentials.
    Off,
}

pub(super) const KEYS: SchemaSection = (
    "route",
    &[
        ("allow", SchemaShape::Texts, MAY, "the provider's paths that may be reached, as in GET /v1/*"),
        ("as", SchemaShape::Choice(&["application", "user"]), MAY, "whose token is used"),
        ("clients", SchemaShape::Who, MAY, "who may use it; required as soon as there are two clients"),
        (
            "enforce",
            SchemaShape::Flag,
            MAY,
            "false: what its allow, rate_limit and bounds would refuse passes and is logged",
        ),
        ("headers", SchemaShape::Headers, MAY, "always set on the request"),
        ("host", SchemaShape::Text, MAY, "a host name without port"),
        ("listeners", SchemaShape::Texts, MAY, "the listeners that serve it; default: all"),
        ("methods", SchemaShape::Methods, MAY, "such as GET and POST; default: any"),
        ("name", SchemaShape::Text, MAY, "for logs and metrics"),
        ("path", SchemaShape::Text, MAY, "whole leading segments, as in /scb"),
        (
            "path_rules",
            SchemaShape::ChoiceOrList(
                &["lenient", "strict"],
                &["double-encoding", "encoded-slashes", "parameters", "slashes"],
            ),
            MAY,
            "what passes that a bank may read in two ways; lenient: // and %2f; strict: nothing",
        ),
        ("provider", SchemaShape::Text, MUST, "whom it calls"),
        ("rate_limit", SchemaShape::Table("rate_limit"), MAY, "how many requests this instance lets through"),
        (
            "reflection",
            SchemaShape::Choice(&["block", "mask", "off"]),
            MAY,
            "a credential that the provider echoes; mask",
        ),
        ("replay_limit", SchemaShape::Size, MAY, "largest request body that is kept for the one replay; 1MiB"),
        (
            "request_buffering",
            SchemaShape::Flag,
            MAY,
            "true: bodies are gathered first, within replay_limit, and go out with a length",
        ),
        ("settings", SchemaShape::Settings, MAY, "overrides settings of the profile"),
        ("strip", SchemaShape::Flag, MAY, "removes `path` before forwarding; true"),
        ("timeouts", SchemaShape::Table("timeouts"), MAY, "default: the provider's"),
        (
            "token_endpoint",
            SchemaShape::Choice(&["stub"]),
            MAY,
            "stub: answers the provider's token endpoint itself, with a worthless token",
        ),
        ("upgrade", SchemaShape::Choices(&["websocket"]), MAY, "what a request may switch to; default: nothing"),
        ("upstream", SchemaShape::Url, MAY, "where requests go; default: the provider's base URL"),
        ("user", SchemaShape::Table("user"), MAY, "how a request names its user"),
        ("vars", SchemaShape::Named("var"), MAY, "values that are taken from the request"),
    ],
);

pub(super) const RATE_LIMIT_KEYS: SchemaSection = (
    "rate_limit",
    &[
        ("per", DURATION, MUST, "in this long"),
        ("requests", SchemaShape::Count(1), MUST, "so many requests"),
        ("wait", DURATION, MAY, "a request may wait this long for its turn"),
    ],
);

pub(super) const USER_KEYS: SchemaSection =
    ("user", &[("header", SchemaShape::Text, MUST, "the header that names the user; default: countersign-user")]);

/// Largest request body that is kept for a replay unless a route says otherwise: 1 MiB.
const REPLAY_LIMIT: u64 = 1 << 20;

/// Names the user of a call, unless a route says otherwise.
const USER: &str = "countersign-user";

/// Headers that frame a message or belong to one connection (RFC 9110 sections 6.6 and 7.6.1): never a route's to set.
const FRAMING: &[&str] =
    &["connection", "content-length", "expect", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"];

/// A route as it was read; what could not be read is absent and was reported.
pub(super) struct ReadRoute {
    pub(super) keys: RouteKeys,
    pub(super) head: Position,
    /// Position for messages about the route's match.
    pub(super) matched: Position,
    pub(super) listeners: Vec<usize>,
    pub(super) provider: Option<usize>,
    pub(super) opens: Opens,
    pub(super) upstream: Option<BaseUrl>,
    module: Option<Arc<Module>>,
    /// The module of the provider's next credentials.
    next_module: Option<Arc<Module>>,
    shadow: Option<Arc<Shadow>>,
    stub: bool,
    host: Option<Arc<str>>,
    prefix: Option<Arc<str>>,
    methods: Vec<Method>,
    strip: bool,
    allow: Vec<Allow>,
    vars: Vec<Var>,
    path_rules: PathRules,
}

impl ReadRoute {
    /// Returns whether the route has a variable of this name.
    pub(super) fn defines(&self, var: &str) -> bool {
        self.vars.iter().any(|known| **known.name() == *var)
    }

    /// Returns whether requests for this path may be the route's, whatever their host.
    pub(super) fn covers(&self, path: &str) -> bool {
        let rest = self.prefix.as_deref().and_then(|prefix| path.strip_prefix(prefix));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// Builds the rule that the route table needs; `None` if a part of the route could not be read.
    pub(super) fn rule(&self, route: usize) -> Option<RouteRule> {
        let (module, upstream) = (self.module.clone()?, self.upstream.clone()?);
        let stub: Option<Reserved> = self.stub.then(|| {
            let (module, upstream) = (module.clone(), upstream.clone());
            Arc::new(move |path: &str| module.is_token_endpoint(&upstream, path)) as Reserved
        });
        Some(RouteRule {
            route,
            host: self.host.clone(),
            prefix: self.prefix.clone()?,
            methods: self.methods.clone(),
            opens: self.opens.clone(),
            strip: self.strip,
            base: upstream.path().into(),
            allow: self.allow.clone(),
            vars: self.vars.clone(),
            path_rules: self.path_rules,
            reserved: Arc::new(move |path| module.guards_under(&upstream, path)),
            stub,
            enforce: self.keys.enforce,
        })
    }

    /// With a stub: the token endpoint as a place of its own, for forward listeners. It may lie outside the upstream.
    pub(super) fn token_place(&self, route: usize) -> Option<(BaseUrl, RouteRule)> {
        let module = self.module.as_ref().filter(|_| self.stub)?;
        let (upstream, rule) = (self.upstream.as_ref()?, self.rule(route)?);
        let url = module.token_url()?.clone();
        let below = url.same_origin(upstream) && url.path().starts_with(&format!("{}/", upstream.path()));
        let stub: Reserved = Arc::new(|path| matches!(path, "" | "/"));
        let rule =
            RouteRule { reserved: Arc::new(|_| true), stub: Some(stub), allow: Vec::new(), vars: Vec::new(), ..rule };
        (!below).then_some((url, rule))
    }

    /// Makes the route of it, with its provider from among these; `None` if a part of it could not be read.
    pub(super) fn finish(self, providers: &[Arc<ProviderConfig>]) -> Option<Route> {
        let provider = providers.get(self.provider?)?.clone();
        let (module, upstream, keys) = (self.module?, self.upstream?, self.keys);
        let next = self.next_module.zip(provider.next.clone()).filter(|(next, _)| next.key() != module.key());
        let next = next.map(|(module, provider)| {
            let (upstream, keys) = (upstream.clone(), keys.clone());
            Arc::new(Route { provider, module, shadow: None, upstream, next: None, keys })
        });
        Some(Route { provider, module, shadow: self.shadow, upstream, next, keys })
    }
}

/// The parts of the config that a route is read against.
pub(super) struct RouteReadContext<'a> {
    pub(super) known: &'a KnownClients,
    pub(super) listeners: &'a [ReadListener],
    pub(super) providers: &'a [ReadProvider],
    pub(super) reader: &'a Reader<'a>,
}

/// The modules of a route: of the current credentials, and of the next ones.
type RouteModules = [Option<Arc<Module>>; 2];

/// Modules that were compiled already: by provider, and by the text of the route's settings.
type Modules = Vec<(usize, CallAs, String, RouteModules)>;

/// Reads all `[[route]]` tables; two routes of one name are a mistake.
pub(super) fn read(root: &Fields<'_>, around: &RouteReadContext<'_>) -> Vec<ReadRoute> {
    let report = around.reader.report;
    let mut modules = Modules::new();
    let mut routes: Vec<ReadRoute> = Vec::new();
    for node in tables(root, "route", report) {
        let route = read_one(node, around, &mut modules);
        if routes.iter().any(|other| other.keys.name == route.keys.name) {
            route.head.error(
                report,
                format!("two routes are called `{}`", route.keys.name),
                "give each a `name` of its own",
            );
        }
        routes.push(route);
    }
    routes
}

fn read_one(node: &Node, around: &RouteReadContext<'_>, modules: &mut Modules) -> ReadRoute {
    let RouteReadContext { listeners, providers, reader, .. } = *around;
    let report = reader.report;
    let fields = Fields::new(node, "[[route]]", report);
    let name = fields.opt::<SpannedText>("name");
    if let Some(name) = &name {
        name.judge_name(report);
    }
    let provider_word = fields.req::<SpannedText>("provider", "\"scb\"");
    let provider_names = providers.iter().map(|provider| &*provider.name);
    let provider = provider_word.as_ref().and_then(|word| word.find("provider", provider_names, report));
    let bare = is_bare(&fields, listeners);
    let (matched, host, prefix) = place_of_match(&fields, bare);
    let methods = methods(&fields);
    let listeners = served_on(&fields, listeners, bare);
    let provider_read = provider.and_then(|at| providers.get(at));
    let opens = opens(&fields, around.known, provider_read);
    let upstream = match fields.opt::<SpannedText>("upstream") {
        Some(word) => url(&word, report),
        None => provider_read.and_then(|provider| provider.base_url.clone()),
    };
    let allow = allow(&fields, &methods);
    let user = user(&fields, around.reader);
    let (vars, mut consumed) = variables(&fields);
    consumed.extend(user.clone());
    let name = name.or(provider_word).map_or_else(|| "route".to_owned(), |word| word.text);
    let caller = if user.is_some() { CallAs::User } else { CallAs::Application };
    let [module, next_module] =
        route_modules(&fields, around, (&name, caller), provider, &vars, modules).unwrap_or_default();
    let shadowed = module.as_ref().filter(|_| caller == CallAs::Application);
    let shadow = shadowed
        .zip(provider_read)
        .and_then(|(module, provider)| provider.shadow_of(module, Some((&fields, &vars)), reader, report));
    let headers = headers(&fields, module.as_deref(), reader);
    let replay_limit = fields.or("replay_limit", ByteSize(REPLAY_LIMIT)).0;
    let request_buffering = request_buffering(&fields, replay_limit);
    let timeouts = timeouts::read(&fields, provider_read.map_or_else(Timeouts::default, |provider| provider.timeouts));
    let strip = fields.or("strip", true);
    let path_rules = path_rules(&fields);
    let reflections = [("block", Reflection::Block), ("mask", Reflection::Mask), ("off", Reflection::Off)];
    let keys = RouteKeys {
        name: name.into(),
        user,
        headers,
        consumed,
        replay_limit,
        request_buffering,
        timeouts,
        reflection: choice(&fields, "reflection", &reflections).unwrap_or_default(),
        rate: rate(&fields),
        websocket: websocket(&fields),
        enforce: fields.or("enforce", true),
    };
    let stub = choice(&fields, "token_endpoint", &[("stub", true)]).unwrap_or(false);
    if let (true, Some(node)) =
        (module.as_ref().is_some_and(|module| module.is_standing()), fields.take("token_endpoint"))
    {
        Position::of(node).error(
            report,
            "this provider has no token endpoint: its credential is static",
            "take it out",
        );
    }
    fields.finish();
    ReadRoute {
        keys,
        head: Position::head(node),
        matched: matched.unwrap_or_else(|| Position::head(node)),
        listeners,
        provider,
        opens,
        upstream,
        module,
        next_module,
        shadow,
        stub,
        host,
        prefix,
        methods,
        strip,
        allow,
        vars,
        path_rules,
    }
}

/// Reads `as` and `user`: the header that names the user in whose name calls are made.
fn user(fields: &Fields<'_>, reader: &Reader<'_>) -> Option<HeaderName> {
    let as_user = choice(fields, "as", &[("application", false), ("user", true)]).unwrap_or(false);
    let Some(node) = fields.take("user") else {
        return as_user.then_some(HeaderName::from_static(USER));
    };
    if !as_user {
        Position::of(node).error(
            fields.report(),
            "`user` is for routes with `as = \"user\"`",
            "add that, or remove it",
        );
    }
    let own = Fields::new(node, "user of [[route]]", reader.report);
    let word = own.req::<SpannedText>("header", "\"x-user\"");
    own.finish();
    match HeaderName::from_bytes(word.as_ref()?.text.as_bytes()) {
        Ok(name) if !FRAMING.contains(&name.as_str()) => Some(name).filter(|_| as_user),
        Ok(_) | Err(_) => {
            let word = word?;
            let title = format!("`{}` cannot be the header that names the user", word.text);
            word.place.error(reader.report, title, "header names are letters, digits and `-`");
            None
        }
    }
}

/// Reads `path_rules`: a word, or a list of what passes.
fn path_rules(fields: &Fields<'_>) -> PathRules {
    let words = [("lenient", PathRules::LENIENT), ("strict", PathRules::STRICT)];
    let is_list = |node: &Node| matches!(node.kind, Kind::Array(_));
    if !fields.take("path_rules").is_some_and(is_list) {
        return choice(fields, "path_rules", &words).unwrap_or_default();
    }
    let passes = [
        ("double-encoding", PathRules::DOUBLE_ENCODING),
        ("encoded-slashes", PathRules::ENCODED_SLASHES),
        ("parameters", PathRules::PARAMETERS),
        ("slashes", PathRules::SLASHES),
    ];
    let mut rules = PathRules::STRICT;
    for word in fields.opt::<Vec<SpannedText>>("path_rules").unwrap_or_default() {
        match passes.iter().find(|(name, _)| *name == word.text) {
            Some((_, passes)) => rules = rules.with(*passes),
            None => {
                let help = match suggest(&word.text, passes.iter().map(|(name, _)| *name)) {
                    Some(near) => format!("did you mean `\"{near}\"`?"),
                    None => format!("a list has {}", passes.map(|(name, _)| format!("`\"{name}\"`")).join(", ")),
                };
                word.place.error(fields.report(), format!("nothing of a path is called `{}`", word.text), help);
            }
        }
    }
    rules
}

/// Reads `rate_limit`; a rate of zero, or one too high to limit anything, is a mistake.
fn rate(fields: &Fields<'_>) -> Option<Arc<Rate>> {
    let node = fields.take("rate_limit")?;
    let own = Fields::new(node, "rate_limit of [[route]]", fields.report());
    let requests = own.req::<u64>("requests", "5");
    let per = own.req::<Duration>("per", "\"1s\"");
    let wait = own.or("wait", Duration::ZERO);
    let mut positive = true;
    for (key, zero) in [("requests", requests == Some(0)), ("per", per == Some(Duration::ZERO))] {
        if let (true, Some(node)) = (zero, own.take(key)) {
            positive = false;
            Position::of(node).error(fields.report(), format!("`{key}` cannot be zero"), "write 1 or more");
        }
    }
    own.finish();
    let requests = u32::try_from(requests?).unwrap_or(u32::MAX);
    let rate = Rate::new(requests, per?, wait, Clock::System);
    if rate.is_none() && positive {
        Position::of(node).error(fields.report(), "that many requests in so short a time are no limit", "leave it out");
    }
    rate.map(Arc::new)
}

/// Reads `request_buffering`: whether bodies are gathered before they are sent.
fn request_buffering(fields: &Fields<'_>, replay_limit: u64) -> bool {
    let Some(node) = fields.take("request_buffering") else { return false };
    let wanted = fields.or("request_buffering", false);
    if wanted && replay_limit == 0 {
        let title = "`request_buffering` needs a `replay_limit` above 0: bodies are gathered within it";
        Position::of(node).error(fields.report(), title, "set `replay_limit` to the largest body that you expect");
    }
    wanted
}

/// Reads `upgrade`: whether connections may become WebSockets.
fn websocket(fields: &Fields<'_>) -> bool {
    let words = fields.opt::<Vec<SpannedText>>("upgrade").unwrap_or_default();
    for word in &words {
        if word.text != "websocket" {
            let title = format!("`upgrade` cannot be `{}`", word.text);
            word.place.error(fields.report(), title, "write `[\"websocket\"]`: nothing else is passed");
        }
    }
    !words.is_empty()
}

/// Returns the indices of the listeners that a route is served on. If one cannot be found, returns all suitable ones:
/// it was reported, and its consequences need not be.
fn served_on(fields: &Fields<'_>, listeners: &[ReadListener], bare: bool) -> Vec<usize> {
    let refusal = |listener: &ReadListener| listener.mode.refuses_route(&listener.name, bare);
    let all = || (0..).zip(listeners).filter(|(_, listener)| refusal(listener).is_none()).map(|(at, _)| at).collect();
    let Some(words) = fields.opt::<Vec<SpannedText>>("listeners") else { return all() };
    let names = listeners.iter().map(|listener| &*listener.name);
    let found = words.iter().map(|word| word.find("listener", names.clone(), fields.report()));
    let found: Vec<Option<usize>> = found.collect();
    for (word, at) in words.iter().zip(&found) {
        if let Some((title, help)) = at.and_then(|at| listeners.get(at)).and_then(refusal) {
            word.place.error(fields.report(), title, help);
        }
    }
    if let (true, Some(node)) = (found.is_empty(), fields.take("listeners")) {
        let help = "name some listeners, or leave it out: all of them";
        Position::of(node).error(fields.report(), "a route on no listener can never run", help);
    }
    found.into_iter().collect::<Option<Vec<usize>>>().filter(|found| !found.is_empty()).unwrap_or_else(all)
}

/// Returns whether the route is only for listeners that need no path and no host, of which at least one must exist.
fn is_bare(fields: &Fields<'_>, listeners: &[ReadListener]) -> bool {
    let has = |key| fields.node().as_table().is_some_and(|table| table.find(key).is_some());
    let serves_bare =
        |listener: &ReadListener| listener.mode_unread || listener.mode.refuses_route(&listener.name, true).is_none();
    !has("path") && !has("host") && listeners.iter().any(serves_bare)
}

fn place_of_match(fields: &Fields<'_>, bare: bool) -> (Option<Position>, Option<Arc<str>>, Option<Arc<str>>) {
    let report = fields.report();
    let (path, host) = (fields.opt::<SpannedText>("path"), fields.opt::<SpannedText>("host"));
    let has = |key| fields.node().as_table().is_some_and(|table| table.find(key).is_some());
    if !has("path") && !has("host") && !bare {
        fields.missing("path", "\"/bank\"");
    }
    let prefix = match &path {
        None if has("path") => None,
        None => Some(Arc::from("")),
        Some(word) => match configured_prefix(&word.text) {
            Ok(prefix) => Some(Arc::from(prefix)),
            Err(reason) => {
                let help = match word.text.trim_matches('/') {
                    "" => "write `/bank`, or `/` for every path".to_owned(),
                    rest => format!("write plain segments, as in `/{}`", rest.split('/').next().unwrap_or(rest)),
                };
                word.place.error(report, format!("`{}` cannot be a route's path: {reason}", word.text), help);
                None
            }
        },
    };
    let name = host.as_ref().and_then(|word| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        let bracketed = word.text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
        let address = bracketed.is_some_and(|text| text.parse::<std::net::Ipv6Addr>().is_ok());
        if (word.text.bytes().all(plain) && !word.text.is_empty() && !word.text.ends_with('.')) || address {
            return Some(Arc::from(word.text.to_ascii_lowercase()));
        }
        let help = "write a host name alone: no scheme, port, wildcard or dot at the end";
        word.place.error(report, format!("`{}` is not a host name", word.text), help);
        None
    });
    (path.or(host).map(|word| word.place), name, prefix)
}

/// Reads `methods`; empty: any.
pub(super) fn methods(fields: &Fields<'_>) -> Vec<Method> {
    let mut methods = Vec::new();
    let words = fields.opt::<Vec<SpannedText>>("methods");
    if words.as_ref().is_some_and(Vec::is_empty)
        && let Some(node) = fields.take("methods")
    {
        Position::of(node).error(
            fields.report(),
            "an empty list takes no request",
            "name some methods, or leave it out",
        );
    }
    for word in words.unwrap_or_default() {
        match Method::from_bytes(word.text.as_bytes()) {
            Ok(method) if refused_method(&method) => {
                let help = "leave it out: no route ever carries it";
                word.place.error(fields.report(), format!("`{method}` never passes"), help);
            }
            Ok(method) if method.as_str().bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-') => {
                methods.push(method);
            }
            Ok(_) | Err(_) => {
                let help =
                    format!("methods are written in capitals, as in `{}`", word.text.trim().to_ascii_uppercase());
                word.place.error(fields.report(), format!("`{}` is not a method", word.text), help);
            }
        }
    }
    methods
}

fn opens(fields: &Fields<'_>, known: &KnownClients, provider: Option<&ReadProvider>) -> Opens {
    let report = fields.report();
    let has_key = fields.node().as_table().is_some_and(|table| table.find("clients").is_some());
    let bounds = provider.and_then(|provider| provider.bounds.as_ref());
    match fields.opt::<PermittedClients>("clients") {
        Some(PermittedClients::Anyone(position)) => {
            if let (Some(_), Some(provider)) = (bounds, provider) {
                let title = format!("[provider.{}] is not for anyone", provider.name);
                position.error(report, title, "name clients that its own `clients` lists");
            }
            Opens::Everyone
        }
        Some(PermittedClients::Listed(words)) => {
            let ids = known.listed(&words, report);
            if let (Some(bounds), Some(provider)) = (bounds, provider) {
                for word in &words {
                    let id = known.names().position(|name| name == word.text);
                    if id.is_some_and(|id| !bounds.iter().any(|bound| usize::from(bound.0) == id)) {
                        let title = format!("[provider.{}] is not for client `{}`", provider.name, word.text);
                        word.place.error(report, title, "take it out here, or add it to the provider's `clients`");
                    }
                }
            }
            Opens::Only(ids)
        }
        None => {
            let names: Vec<&str> = known.names().collect();
            if names.len() >= 2 && !has_key {
                fields.missing("clients", &format!("[\"{}\"]", names.first().copied().unwrap_or_default()));
            }
            bounds.map_or(Opens::Everyone, |bounds| Opens::Only(bounds.clone()))
        }
    }
}

fn allow(fields: &Fields<'_>, methods: &[Method]) -> Vec<Allow> {
    let report = fields.report();
    let Some(words) = fields.opt::<Vec<SpannedText>>("allow") else { return Vec::new() };
    if words.is_empty()
        && let Some(node) = fields.take("allow")
    {
        Position::of(node).error(report, "an empty list allows nothing", "name some paths, or leave `allow` out");
    }
    let mut lines = Vec::new();
    for word in &words {
        match Allow::parse(&word.text) {
            Ok(line) => {
                if let Some(method) = line.method()
                    && !methods.is_empty()
                    && !methods.contains(method)
                {
                    let title = format!("`{}` can never apply: the route does not take {method}", word.text);
                    word.place.error(report, title, "add the method to `methods`, or remove the line");
                }
                lines.push(line);
            }
            Err(error) => {
                word.place.error(report, format!("not a line of `allow`: {error}"), "write it as in `\"GET /v1/*\"`");
            }
        }
    }
    lines
}

fn route_modules(
    fields: &Fields<'_>,
    around: &RouteReadContext<'_>,
    (route, caller): (&str, CallAs),
    provider: Option<usize>,
    vars: &[Var],
    modules: &mut Modules,
) -> Option<RouteModules> {
    let report = around.reader.report;
    let node = fields.take("settings");
    let at = provider?;
    let provider = around.providers.get(at)?;
    let base = provider.settings.as_ref()?;
    let settings = match node {
        None => base.clone(),
        Some(node) => {
            let own = Fields::new(node, "settings of [[route]]", report);
            let settings = provider.profile.as_ref()?.override_settings(base, &own, around.reader);
            own.finish();
            settings?
        }
    };
    let used = settings.vars();
    let defined = |name: &str| vars.iter().any(|var| **var.name() == *name);
    // A variable that failed to be read was reported; its name counts all the same.
    let written = fields.take("vars").and_then(Node::as_table);
    let is_unread = written.is_none() && (fields.take("vars").is_some() || fields.is_misspelt("vars"));
    for (name, span) in used.iter().filter(|_| !is_unread) {
        if !defined(name) && written.is_none_or(|table| table.find(name).is_none()) {
            let title = format!("route `{route}` defines no variable `{name}`");
            let help = format!("add `vars = {{ {name} = {{ header = \"x-{name}\" }} }}` to that [[route]]");
            Position::new(fields.source(), span.clone()).error(report, title, help);
        }
    }
    for var in vars {
        if !used.iter().any(|(name, _)| name == var.name())
            && let Some(entry) = written.and_then(|table| table.find(var.name()))
        {
            let title = format!("nothing uses the variable `{}`", var.name());
            let help = format!("write `{{ var = \"{}\" }}` in a setting, or remove it", var.name());
            Position::new(fields.source(), entry.key_span.clone()).warning(report, title, help);
        }
    }
    let text = node.map_or_else(String::new, |node| Position::of(node).text().to_owned());
    if let (CallAs::User, Some(node)) = (caller, node) {
        let help = "put them into [provider.NAME], or make a provider of its own";
        Position::of(node).error(report, "a route for users' calls has the provider's settings", help);
    }
    let same = |(known, called, settings, _): &&(usize, CallAs, String, RouteModules)| {
        *known == at && *called == caller && *settings == text
    };
    if let Some((_, _, _, compiled)) = modules.iter().find(same) {
        return Some(compiled.clone());
    }
    let module = provider.compile(settings, caller, report);
    let over = |next: &Settings| match node {
        None => Some(next.clone()),
        Some(node) => {
            // What is wrong there was reported for the current credentials.
            let silent = Diagnostics::new();
            let own = Fields::new(node, "settings of [[route]]", &silent);
            provider.profile.as_ref()?.override_settings(next, &own, around.reader)
        }
    };
    let next = module.as_ref().and_then(|_| provider.compile_next(over, caller, report));
    let compiled = [module, next];
    modules.push((at, caller, text, compiled.clone()));
    Some(compiled)
}

fn headers(fields: &Fields<'_>, module: Option<&Module>, reader: &Reader<'_>) -> Vec<(HeaderName, HeaderValue)> {
    let report = reader.report;
    let mut headers: Vec<(HeaderName, HeaderValue)> = Vec::new();
    let Some(node) = fields.take("headers") else { return headers };
    let table = Fields::new(node, "headers of [[route]]", report);
    for entry in table.rest() {
        let position = Position::new(&node.source, entry.key_span.clone());
        let Ok(name) = HeaderName::from_bytes(entry.key.as_bytes()) else {
            position.error(report, format!("`{}` is not a header name", entry.key), "use letters, digits and `-`");
            continue;
        };
        if FRAMING.contains(&name.as_str()) || name.as_str().starts_with("proxy-") {
            position.error(report, format!("`{name}` belongs to the connection, not to a route"), "remove it");
        } else if module.is_some_and(|module| module.strips(&name)) {
            position.error(report, format!("`{name}` is the profile's to set"), "remove it");
        } else if CallPlace::Header(name.clone()).names_payment() {
            let title = format!("every payment would have the same `{name}`: the bank would take all for one");
            position.error(report, title, "remove it: the application sends one with each payment");
        } else if headers.iter().any(|(known, _)| *known == name) {
            position.error(report, format!("`{name}` is set twice"), "header names have no upper and lower case");
        }
        let Some((value, literal)) = reader.value(&entry.value, report) else { continue };
        match HeaderValue::from_str(value.expose_secret()) {
            Ok(mut value) => {
                value.set_sensitive(!literal);
                headers.push((name, value));
            }
            Err(_) => {
                let help = "a value is one line of visible ASCII";
                Position::of(&entry.value).error(report, format!("the value of `{name}` cannot be sent"), help);
            }
        }
    }
    table.finish();
    headers
}
