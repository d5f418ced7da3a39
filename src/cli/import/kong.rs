//! Reading of Kong's declarative config: services, routes, consumers, and the plugin `upstream-oauth`.

use std::time::Duration;

use super::credential::{ClientCredentials, Credential, Upstream, scopes};
use super::draft::{Draft, DraftClient, DraftRoute, SecretPlace, quoted};
use super::place::Place;
use super::words::{cure_of, duration, proxy_name, route_path, secret_place};
use crate::base::secret::{hex, sha256};

const MILLISECOND: Duration = Duration::from_millis(1);

/// Keys of every object that say nothing about calls.
const BOOKKEEPING: &[&str] = &["id", "name", "tags", "created_at", "updated_at", "enabled", "instance_name"];

/// Tells whether this is a file of Kong's.
pub fn is_kong(root: &Place<'_>) -> bool {
    root.get("_format_version").is_some() || root.get("services").is_some() && root.get("consumers").is_some()
}

/// Reads one document.
pub fn read_kong(root: &Place<'_>, draft: &mut Draft) {
    root.leftover(
        &[
            "_format_version",
            "_transform",
            "_info",
            "services",
            "routes",
            "consumers",
            "plugins",
            "keyauth_credentials",
            "_comment",
        ],
        draft,
    );
    let global = root.list("plugins");
    read_consumers(root, draft);
    for service in root.list("services") {
        let name = service.text_of("name").unwrap_or_default();
        let mut routes = service.list("routes");
        routes.extend(root.list("routes").into_iter().filter(|route| names(route, "service", name)));
        let plugins: Vec<Place<'_>> = service
            .list("plugins")
            .into_iter()
            .chain(global.iter().filter(|plugin| names(plugin, "service", name)).cloned())
            .collect();
        let general: Vec<Place<'_>> = global.iter().filter(|plugin| is_global(plugin)).cloned().collect();
        read_service(&service, &routes, &plugins, &general, &global, draft);
    }
    for route in root.list("routes") {
        if route.get("service").is_none() {
            route.lose(draft, "a route without a service calls nobody");
        }
    }
}

/// Tells whether an object names another one, by its name alone or in a map.
fn names(object: &Place<'_>, key: &str, name: &str) -> bool {
    let found = object.get(key);
    let said = found.and_then(|found| found.text().or_else(|| found.text_of("name")).or_else(|| found.text_of("id")));
    !name.is_empty() && said == Some(name)
}

fn is_global(plugin: &Place<'_>) -> bool {
    ["service", "route", "consumer", "consumer_group"].iter().all(|key| plugin.get(key).is_none())
}

fn read_consumers(root: &Place<'_>, draft: &mut Draft) {
    for consumer in root.list("consumers") {
        consumer.leftover(&[BOOKKEEPING, &["username", "custom_id", "keyauth_credentials"]].concat(), draft);
        let Some(name) = consumer.text_of("username").or_else(|| consumer.text_of("custom_id")) else {
            consumer.lose(draft, "a client has a name, docs/config.md#clientname-who-may-call");
            continue;
        };
        let mut keys = consumer.list("keyauth_credentials");
        keys.extend(root.list("keyauth_credentials").into_iter().filter(|key| names(key, "consumer", name)));
        let mut hashes = Vec::new();
        for key in keys {
            key.leftover(&[BOOKKEEPING, &["key", "consumer", "ttl"]].concat(), draft);
            match key.text_of("key") {
                Some(text) if is_reference(text) => {
                    draft.lose(
                        key.line(),
                        "keyauth_credentials.key",
                        "the key stands elsewhere; put its SHA-256 into key_sha256, docs/identity.md#keys",
                    );
                }
                Some(text) if text.len() < 16 => {
                    draft.lose(key.line(), "keyauth_credentials.key", "a key this short can be found from its hash; make one with `countersign key new`, docs/identity.md#keys");
                }
                Some(text) => hashes.push(hex(&sha256(text.as_bytes()))),
                None => key.lose(draft, "it has no key"),
            }
        }
        if hashes.is_empty() {
            draft.lose(
                consumer.line(),
                format!("consumer {}", proxy_name(name)),
                "without a key it cannot be recognised; `countersign key new` makes one, docs/identity.md#keys",
            );
            continue;
        }
        let name = draft.client_names.take(name);
        hashes.dedup();
        draft.clients.push(DraftClient { name, key_sha256: hashes, networks: Vec::new() });
    }
}

/// Tells whether a text stands for a value that is elsewhere.
fn is_reference(text: &str) -> bool {
    text.contains('{') || secret_place(text) != SecretPlace::Inline
}

fn read_service(
    service: &Place<'_>,
    routes: &[Place<'_>],
    plugins: &[Place<'_>],
    general: &[Place<'_>],
    everything: &[Place<'_>],
    draft: &mut Draft,
) {
    if service.text_of("enabled") == Some("false") {
        return;
    }
    service.leftover(
        &[
            BOOKKEEPING,
            &[
                "url",
                "host",
                "port",
                "protocol",
                "path",
                "connect_timeout",
                "read_timeout",
                "write_timeout",
                "routes",
                "plugins",
                "retries",
            ],
        ]
        .concat(),
        draft,
    );
    for (key, usual) in [("retries", "5"), ("write_timeout", "60000")] {
        if let Some(place) = service.get(key)
            && place.text() != Some(usual)
        {
            place.lose(draft, cure_of(key));
        }
    }
    let Some(upstream) = upstream(service, draft) else { return };
    for route in routes {
        let name = route.text_of("name").unwrap_or_default();
        let own: Vec<Place<'_>> = route
            .list("plugins")
            .into_iter()
            .chain(everything.iter().filter(|plugin| names(plugin, "route", name)).cloned())
            .collect();
        let effective = Effective::of([&own, plugins, general], draft);
        let Some(credential) = effective.credential else {
            draft.lose(route.line(), format!("route {}", proxy_name(name)), "no credential is added to its calls; a profile without [token] may, docs/adding-a-provider.md#without-a-token");
            continue;
        };
        read_route(route, service, &upstream, &credential, &effective.headers, draft);
    }
}

fn upstream(service: &Place<'_>, draft: &mut Draft) -> Option<Upstream> {
    let url = match service.text_of("url") {
        Some(url) => url.to_owned(),
        None => {
            let (protocol, host) = (service.text_of("protocol").unwrap_or("http"), service.text_of("host")?);
            let port = service.text_of("port").filter(|port| *port != "443").map(|port| format!(":{port}"));
            format!("{protocol}://{host}{}{}", port.unwrap_or_default(), service.text_of("path").unwrap_or_default())
        }
    };
    let place = service.get("url").or_else(|| service.get("protocol")).unwrap_or_else(|| service.clone());
    let mut upstream = Upstream::of(draft.base_url(place.line(), &format!("service {}", place.path()), &url)?);
    for (key, ours) in [("connect_timeout", "connect"), ("read_timeout", "response")] {
        if let Some(time) = service.text_of(key).and_then(|text| duration(text, MILLISECOND)) {
            upstream.timeouts.insert(ours.to_owned(), quoted(&time));
        }
    }
    Some(upstream)
}

/// The plugins that hold for one route: the most specific of each name.
#[derive(Default)]
struct Effective {
    credential: Option<Credential>,
    headers: Vec<(String, String)>,
}

impl Effective {
    fn of(levels: [&[Place<'_>]; 3], draft: &mut Draft) -> Self {
        let mut found = Self::default();
        let mut seen: Vec<&str> = Vec::new();
        for plugin in levels.into_iter().flatten() {
            let name = plugin.text_of("name").unwrap_or_default();
            if seen.contains(&name) {
                continue;
            }
            seen.push(name);
            if plugin.text_of("enabled") == Some("false") {
                continue;
            }
            plugin.leftover(&[BOOKKEEPING, &["config", "service", "route", "protocols"]].concat(), draft);
            let config = plugin.get("config").unwrap_or_else(|| plugin.clone());
            match name {
                "upstream-oauth" => found.credential = Some(upstream_oauth(&config, draft)),
                "key-auth" => key_auth(plugin, &config, draft),
                "request-transformer" | "request-transformer-advanced" => found.transform(&config, draft),
                _ => draft.lose(plugin.line(), format!("plugin {name}"), cure_of(name)),
            }
        }
        found
    }

    /// Headers that are added or replaced.
    fn transform(&mut self, config: &Place<'_>, draft: &mut Draft) {
        config.leftover(&["add", "replace"], draft);
        for action in ["add", "replace"] {
            let Some(place) = config.get(action) else { continue };
            place.leftover(&["headers"], draft);
            for header in place.list("headers") {
                let Some((name, value)) = header.text().and_then(|text| text.split_once(':')) else { continue };
                let what = format!("request-transformer header {name}");
                if draft.may_copy_header(header.line(), &what, name.trim(), value.trim()) {
                    self.headers.push((name.trim().to_owned(), value.trim().to_owned()));
                }
            }
        }
    }
}

fn key_auth(plugin: &Place<'_>, config: &Place<'_>, draft: &mut Draft) {
    config.leftover(
        &[
            "config",
            "name",
            "key_names",
            "key_in_header",
            "key_in_query",
            "key_in_body",
            "hide_credentials",
            "run_on_preflight",
            "realm",
            "enabled",
            "tags",
            "protocols",
            "service",
            "route",
        ],
        draft,
    );
    draft.lose(
        plugin.line(),
        "key-auth (the header of the key)",
        "applications send it as `Authorization: Bearer KEY`, docs/identity.md#keys",
    );
}

fn upstream_oauth(config: &Place<'_>, draft: &mut Draft) -> Credential {
    config.leftover(&["oauth", "client", "behavior", "cache"], draft);
    let oauth = config.get("oauth").unwrap_or_else(|| config.clone());
    oauth.leftover(&["token_endpoint", "client_id", "client_secret", "scopes", "grant_type"], draft);
    if let Some(grant) = oauth.get("grant_type")
        && grant.text() != Some("client_credentials")
    {
        grant.lose(draft, "countersign asks with client credentials; users consent at the bank, docs/consent.md");
    }
    let endpoint = oauth.get("token_endpoint");
    let line = endpoint.as_ref().map_or(oauth.line(), Place::line);
    let token_url = draft.token_url(line, "oauth.token_endpoint", endpoint.as_ref().and_then(Place::text));
    let mut basic = false;
    if let Some(client) = config.get("client") {
        client.leftover(&["auth_method", "ssl_verify", "http_version", "keep_alive"], draft);
        match client.text_of("auth_method") {
            Some("client_secret_basic") => basic = true,
            Some("client_secret_post") | None => {}
            Some(_) => {
                if let Some(place) = client.get("auth_method") {
                    place.lose(draft, "signed assertions are a profile's, docs/adding-a-provider.md#signatures");
                }
            }
        }
    }
    if let Some(behavior) = config.get("behavior") {
        behavior.leftover(&["purge_token_on_upstream_status_codes", "upstream_access_token_header_name"], draft);
        if let Some(header) = behavior.get("upstream_access_token_header_name")
            && header.text().is_some_and(|name| !name.eq_ignore_ascii_case("authorization"))
        {
            header.lose(
                draft,
                "the token goes into Authorization; a profile names another header, docs/adding-a-provider.md#request",
            );
        }
    }
    let secret = oauth.text_of("client_secret").map_or(SecretPlace::Inline, secret_place);
    Credential::Oauth2(ClientCredentials {
        token_url,
        client_id: oauth.text_of("client_id").map(str::to_owned),
        secret,
        scopes: scopes(draft, oauth.line(), "oauth.scopes", &oauth.texts("scopes")),
        basic,
    })
}

fn read_route(
    route: &Place<'_>,
    service: &Place<'_>,
    upstream: &Upstream,
    credential: &Credential,
    headers: &[(String, String)],
    draft: &mut Draft,
) {
    route.leftover(
        &[
            BOOKKEEPING,
            &[
                "paths",
                "hosts",
                "methods",
                "strip_path",
                "protocols",
                "plugins",
                "service",
                "preserve_host",
                "https_redirect_status_code",
                "path_handling",
                "regex_priority",
                "request_buffering",
                "response_buffering",
            ],
        ]
        .concat(),
        draft,
    );
    for key in ["preserve_host"] {
        if let Some(place) = route.get(key).filter(|place| place.text() == Some("true")) {
            place.lose(draft, "the bank is called by its own name");
        }
    }
    let strip = route.text_of("strip_path") != Some("false");
    let mut hosts: Vec<Option<String>> = Vec::new();
    for host in route.list("hosts") {
        match host.text() {
            Some(name) if !name.contains('*') => {
                hosts.push(Some(name.split(':').next().unwrap_or_default().to_owned()))
            }
            _ => host.lose(draft, "a host is named whole, docs/config.md#route-what-leads-from-one-to-the-other"),
        }
    }
    if hosts.is_empty() {
        if route.get("hosts").is_some() {
            return;
        }
        hosts.push(None);
    }
    let mut paths: Vec<Option<String>> = Vec::new();
    for path in route.list("paths") {
        match path.text().and_then(route_path) {
            Some(plain) => paths.push(Some(plain)),
            None => path.lose(draft, cure_of("regex")),
        }
    }
    if route.get("paths").is_none() {
        paths.push(hosts.first().and_then(Option::as_ref).is_none().then(|| "/".to_owned()));
    }
    let provider = draft.provider(upstream, credential);
    let name = route.text_of("name").or_else(|| service.text_of("name")).unwrap_or_default();
    let methods: Vec<String> = route.texts("methods").into_iter().map(str::to_owned).collect();
    for host in &hosts {
        for path in &paths {
            let mut made = DraftRoute::new(draft, route.line(), name, &provider);
            made.host.clone_from(host);
            made.path.clone_from(path);
            made.methods.clone_from(&methods);
            made.strip = strip;
            made.headers = headers.to_vec();
            made.upstream = Some(upstream.base_url.clone());
            if !draft.route(made) {
                return;
            }
        }
    }
}
