//! Reading of agentgateway: binds, listeners, routes, and what its policies add to calls.

use std::collections::BTreeMap;
use std::time::Duration;

use super::credential::{ClientCredentials, Credential, Upstream, scopes};
use super::draft::{Draft, DraftClient, DraftListener, DraftRoute, SecretPlace, quoted};
use super::place::Place;
use super::words::{cure_of, duration, route_path, secret_place};
use crate::base::secret::{hex, sha256};

const SECOND: Duration = Duration::from_secs(1);

/// Tells whether this is a file of agentgateway's.
pub fn is_agentgateway(root: &Place<'_>) -> bool {
    root.list("binds").iter().any(|bind| bind.get("listeners").is_some())
}

/// Reads one document.
pub fn read_agentgateway(root: &Place<'_>, draft: &mut Draft) {
    root.leftover(&["binds", "backends", "config"], draft);
    if let Some(config) = root.get("config") {
        config.leftover(&["adminAddr", "statsAddr", "readinessAddr"], draft);
    }
    let backends: BTreeMap<&str, Place<'_>> =
        root.list("backends").into_iter().filter_map(|backend| Some((backend.text_of("name")?, backend))).collect();
    for bind in root.list("binds") {
        bind.leftover(&["port", "listeners"], draft);
        let port = bind.text_of("port").and_then(|port| port.parse::<u16>().ok());
        for listener in bind.list("listeners") {
            listener.leftover(&["name", "hostname", "protocol", "tls", "routes"], draft);
            let before = draft.routes.len();
            let host = listener.text_of("hostname").filter(|host| !host.contains('*'));
            if host.is_none() && listener.text_of("hostname").is_some_and(|host| host != "*") {
                draft.lose(
                    listener.line(),
                    "hostname",
                    "a host is named whole, docs/config.md#route-what-leads-from-one-to-the-other",
                );
            }
            for route in listener.list("routes") {
                read_route(&route, host, &backends, draft);
            }
            if let (Some(port), true) = (port, draft.routes.len() > before) {
                let mut made = DraftListener {
                    name: listener.text_of("name").unwrap_or("gateway").to_owned(),
                    line: bind.line(),
                    address: "0.0.0.0".to_owned(),
                    port,
                    ..DraftListener::default()
                };
                if let Some(tls) = listener.get("tls") {
                    tls.leftover(&["cert", "key", "root"], draft);
                    let mut file = |key: &str| {
                        let found = tls.get(key)?;
                        draft.file(found.line(), found.path(), found.text()?).and(found.text().map(str::to_owned))
                    };
                    made.tls = file("cert").zip(file("key"));
                    made.client_ca = file("root");
                }
                draft.listeners.push(made);
            }
        }
    }
}

fn read_route(route: &Place<'_>, host: Option<&str>, backends: &BTreeMap<&str, Place<'_>>, draft: &mut Draft) {
    route.leftover(&["name", "ruleName", "hostnames", "matches", "policies", "backends"], draft);
    let found = route.list("backends");
    let [backend] = found.as_slice() else {
        draft.lose(route.line(), "backends", "a route calls one provider; this one is left out");
        return;
    };
    let policies: Vec<Place<'_>> = [backend.get("policies"), route.get("policies")].into_iter().flatten().collect();
    let named = backend.text_of("backend").and_then(|name| backends.get(name.rsplit('/').next().unwrap_or(name)));
    let target = named.unwrap_or(backend);
    let policy = |name: &str| policies.iter().chain(target.get("policies").as_ref()).find_map(|found| found.get(name));
    let Some(address) = target.get("host") else {
        draft.lose(route.line(), "backends", "only backends with a host are carried over; this route is left out");
        return;
    };
    let Some(auth) = policy("backendAuth") else {
        draft.lose(route.line(), "route", "no credential is added to its calls; a profile without [token] may, docs/adding-a-provider.md#without-a-token");
        return;
    };
    let Some(credential) = backend_auth(&auth, backends, draft) else { return };
    let Some(tls) = policy("backendTLS") else {
        draft.lose(
            address.line(),
            "host",
            "no token travels without TLS (backendTLS), docs/config.md#providername-whom-we-call",
        );
        return;
    };
    let authority = address.text().unwrap_or_default();
    let authority = authority.strip_suffix(":443").unwrap_or(authority);
    let Some(base_url) = draft.base_url(address.line(), "host", authority) else { return };
    let mut upstream = Upstream::of(base_url.clone());
    tls.leftover(&["cert", "key", "root", "hostname"], draft);
    for (key, ours) in [("cert", "client_cert"), ("key", "client_key"), ("root", "ca")] {
        if let Some(place) = tls.get(key) {
            let path = draft.file(place.line(), place.path(), place.text().unwrap_or_default());
            upstream.tls.extend(path.map(|path| (ours.to_owned(), path)));
        }
    }
    if let Some(name) = tls.text_of("hostname") {
        upstream.tls.insert("server_name".to_owned(), quoted(name));
    }
    let provider = draft.provider(&upstream, &credential);
    let mut model = DraftRoute::new(draft, route.line(), route.text_of("name").unwrap_or(&provider), &provider);
    model.strip = false;
    let mut rewrite = None;
    for place in &policies {
        for (name, policy) in place.entries() {
            match name {
                "backendAuth" | "backendTLS" => {}
                "urlRewrite" => rewrite = Some(policy),
                "requestHeaderModifier" => header_modifier(&policy, &mut model, draft),
                "timeout" => {
                    policy.leftover(&["requestTimeout"], draft);
                    let time = policy.text_of("requestTimeout");
                    model.response_timeout = time.and_then(|text| duration(text, SECOND));
                }
                "localRateLimit" => rate_limit(&policy, &mut model, draft),
                "apiKey" => api_keys(&policy, &mut model, draft),
                _ => policy.lose(draft, cure_of(name)),
            }
        }
    }
    let mut hosts: Vec<Option<String>> =
        route.texts("hostnames").into_iter().map(|host| Some(host.to_owned())).collect();
    if hosts.is_empty() {
        hosts.push(host.map(str::to_owned));
    }
    if hosts.iter().flatten().any(|host| host.contains('*')) {
        draft.lose(
            route.line(),
            "hostnames",
            "a host is named whole, docs/config.md#route-what-leads-from-one-to-the-other",
        );
        hosts.retain(|host| !host.as_ref().is_some_and(|host| host.contains('*')));
    }
    for matched in matches(route, draft) {
        let mut made = model.clone();
        made.path = Some(matched.path);
        made.methods = matched.methods;
        let mut target = base_url.clone();
        if let Some(rewrite) = &rewrite {
            rewrite.leftover(&["path"], draft);
            let prefix = rewrite.at(&["path", "prefix"]).and_then(|place| place.text().and_then(route_path));
            let Some(prefix) = prefix else {
                rewrite.lose(draft, "a prefix is replaced by another one; this route is left out");
                return;
            };
            made.strip = true;
            if prefix != "/" {
                target = format!("{base_url}{prefix}");
            }
        }
        if matched.exact {
            let path = if made.strip { "/" } else { made.path.as_deref().unwrap_or("/") };
            made.allow = vec![format!("* {path}")];
        }
        made.upstream = Some(target);
        for host in &hosts {
            draft.route(DraftRoute { host: host.clone(), ..made.clone() });
        }
    }
}

struct Matched {
    path: String,
    exact: bool,
    methods: Vec<String>,
}

fn matches(route: &Place<'_>, draft: &mut Draft) -> Vec<Matched> {
    let listed = route.list("matches");
    if listed.is_empty() {
        return vec![Matched { path: "/".to_owned(), exact: false, methods: Vec::new() }];
    }
    let mut found = Vec::new();
    for matched in listed {
        if let Some(other) = ["headers", "query"].iter().find_map(|key| matched.get(key)) {
            other.lose(draft, "a route is found by host, path and method alone; this match is left out");
            continue;
        }
        matched.leftover(&["path", "method"], draft);
        let path = matched.get("path");
        let prefix = path.as_ref().and_then(|path| path.get("pathPrefix"));
        let exact = path.as_ref().and_then(|path| path.get("exact"));
        let place = prefix.as_ref().or(exact.as_ref());
        let plain = match (place, &path) {
            (Some(place), _) => place.text().and_then(route_path),
            (None, None) => Some("/".to_owned()),
            (None, Some(_)) => None,
        };
        match plain {
            Some(path) => found.push(Matched {
                path,
                exact: prefix.is_none() && exact.is_some(),
                methods: matched.text_of("method").map(str::to_owned).into_iter().collect(),
            }),
            None => matched.lose(draft, "a route has a plain path; this match is left out"),
        }
    }
    found
}

fn backend_auth(auth: &Place<'_>, backends: &BTreeMap<&str, Place<'_>>, draft: &mut Draft) -> Option<Credential> {
    if let Some(key) = auth.get("key") {
        let secret = match key.text_of("file") {
            Some(path) => SecretPlace::File(path.to_owned()),
            None => key.text().or_else(|| key.text_of("value")).map_or(SecretPlace::Inline, secret_place),
        };
        auth.leftover(&["key"], draft);
        let (header, scheme) = ("authorization".to_owned(), "Bearer".to_owned());
        return Some(Credential::Static { header, scheme, secret, line: key.line() });
    }
    let Some(oauth) = auth.get("oauth") else {
        auth.lose(
            draft,
            "this kind of credential is not carried over; this route is left out, docs/adding-a-provider.md",
        );
        return None;
    };
    auth.leftover(&["oauth"], draft);
    oauth.leftover(&["tokenEndpoint", "tokenEndpointPath", "scopes", "clientAuth", "grantType"], draft);
    if oauth
        .text_of("grantType")
        .is_none_or(|grant| !grant.to_lowercase().replace(['_', '-'], "").contains("clientcredentials"))
    {
        draft.lose(oauth.line(), "oauth (the exchange of the caller's token)", "countersign asks with client credentials of its own, or in the names of users who consented, docs/consent.md");
    }
    let endpoint = oauth.get("tokenEndpoint");
    let line = endpoint.as_ref().map_or(oauth.line(), Place::line);
    let host = endpoint.as_ref().and_then(|endpoint| {
        let named = endpoint.text_of("backend").and_then(|name| backends.get(name));
        named
            .and_then(|backend| backend.text_of("host"))
            .or_else(|| endpoint.text_of("host"))
            .or_else(|| endpoint.text())
    });
    let path = oauth.text_of("tokenEndpointPath").unwrap_or_default();
    let url = host.map(|host| format!("{}{path}", host.strip_suffix(":443").unwrap_or(host)));
    let token_url = draft.token_url(line, "tokenEndpoint", url.as_deref());
    let client = oauth.get("clientAuth");
    if let Some(client) = &client {
        client.leftover(&["clientId", "clientSecret", "method"], draft);
    }
    let secret = client.as_ref().and_then(|client| client.get("clientSecret"));
    let secret = secret.map_or(SecretPlace::Inline, |secret| match secret.text_of("file") {
        Some(path) => SecretPlace::File(path.to_owned()),
        None => secret.text().map_or(SecretPlace::Inline, secret_place),
    });
    let basic = client
        .as_ref()
        .is_some_and(|client| client.text_of("method").is_some_and(|method| method.to_lowercase().contains("basic")));
    Some(Credential::Oauth2(ClientCredentials {
        token_url,
        client_id: client.and_then(|client| client.text_of("clientId")).map(str::to_owned),
        secret,
        scopes: scopes(draft, oauth.line(), "scopes", &oauth.texts("scopes")),
        basic,
    }))
}

fn header_modifier(policy: &Place<'_>, route: &mut DraftRoute, draft: &mut Draft) {
    policy.leftover(&["set", "add"], draft);
    for key in ["set", "add"] {
        for (name, place) in policy.get(key).map(|map| map.entries()).unwrap_or_default() {
            let value = place.text().unwrap_or_default();
            if draft.may_copy_header(place.line(), &format!("requestHeaderModifier {name}"), name, value) {
                route.headers.push((name.to_owned(), value.to_owned()));
            }
        }
    }
}

fn rate_limit(policy: &Place<'_>, route: &mut DraftRoute, draft: &mut Draft) {
    for limit in policy.items() {
        limit.leftover(&["type", "limit", "unit", "maxTokens", "tokensPerFill", "fillInterval"], draft);
        let count = limit.text_of("limit").or_else(|| limit.text_of("tokensPerFill"));
        let requests = count.and_then(|count| count.parse::<u64>().ok()).filter(|count| *count > 0);
        let per = match limit.text_of("unit") {
            Some("seconds" | "second") => Some("1s".to_owned()),
            Some("minutes" | "minute") => Some("1m".to_owned()),
            Some("hours" | "hour") => Some("1h".to_owned()),
            Some(_) => None,
            None => limit.text_of("fillInterval").and_then(|text| duration(text, SECOND)),
        };
        let of_requests = limit.text_of("type").is_none_or(|kind| kind == "requests");
        match requests.zip(per) {
            Some(rate) if of_requests && route.rate_limit.is_none() => route.rate_limit = Some(rate),
            _ => limit.lose(draft, cure_of("rate")),
        }
    }
}

/// Clients of the keys that a route takes.
fn api_keys(policy: &Place<'_>, route: &mut DraftRoute, draft: &mut Draft) {
    policy.leftover(&["mode", "keys"], draft);
    if policy.text_of("mode").is_some_and(|mode| mode != "strict") {
        draft.lose(policy.line(), "apiKey.mode", "a caller without a key is refused, docs/identity.md");
    }
    for key in policy.list("keys") {
        let hash = match (key.text_of("keyHash").and_then(|hash| hash.strip_prefix("sha256:")), key.text_of("key")) {
            (Some(hash), _) if hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
                hash.to_lowercase()
            }
            (None, Some(text)) if text.len() >= 16 && !text.contains(['$', '{']) => hex(&sha256(text.as_bytes())),
            _ => {
                draft.lose(key.line(), "apiKey.keys", "it is no key of 16 characters or more, nor its SHA-256; `countersign key new` makes one, docs/identity.md#keys");
                continue;
            }
        };
        let wanted =
            key.at(&["metadata", "name"]).or_else(|| key.at(&["metadata", "user"])).and_then(|name| name.text());
        let name = match draft.clients.iter().find(|client| client.key_sha256.contains(&hash)) {
            Some(known) => known.name.clone(),
            None => {
                let name = draft.client_names.take(wanted.unwrap_or("client"));
                draft.clients.push(DraftClient { name: name.clone(), key_sha256: vec![hash], networks: Vec::new() });
                name
            }
        };
        if !route.clients.contains(&name) {
            route.clients.push(name);
        }
    }
}
