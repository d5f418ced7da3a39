//! Reading of Spring Cloud Gateway's `application.yml`: routes with `TokenRelay`, and their client registrations.

use std::time::Duration;

use super::credential::{ClientCredentials, Credential, Upstream, scopes};
use super::draft::{Draft, DraftListener, DraftRoute, SecretPlace, quoted};
use super::place::Place;
use super::words::{cure_of, duration, path_pattern, proxy_name, route_path, secret_place};
use crate::syntax::yaml::{YamlContent, YamlNode, YamlPair};

const MILLISECOND: Duration = Duration::from_millis(1);

/// The places of the gateway's properties, from the newest release to the oldest.
const HOMES: [&[&str]; 5] = [
    &["spring", "cloud", "gateway", "server", "webflux"],
    &["spring", "cloud", "gateway", "server", "webmvc"],
    &["spring", "cloud", "gateway", "server", "mvc"],
    &["spring", "cloud", "gateway", "mvc"],
    &["spring", "cloud", "gateway"],
];

/// Writes out keys with dots, `spring.cloud.gateway: …`, as maps in each other.
pub fn undotted(node: &YamlNode) -> YamlNode {
    let content = match &node.content {
        YamlContent::Map(pairs) => {
            let mut made: Vec<YamlPair> = Vec::new();
            for pair in pairs {
                let mut words: Vec<&str> = pair.key.split('.').take(16).collect();
                if words.iter().any(|word| word.is_empty()) || pair.key.contains('[') {
                    words = vec![&pair.key];
                }
                insert(&mut made, &words, pair.line, undotted(&pair.value));
            }
            YamlContent::Map(made)
        }
        YamlContent::List(items) => YamlContent::List(items.iter().map(undotted).collect()),
        other => other.clone(),
    };
    YamlNode { line: node.line, content }
}

fn insert(into: &mut Vec<YamlPair>, words: &[&str], line: usize, value: YamlNode) {
    let [first, rest @ ..] = words else { return };
    let known = into.iter_mut().find(|pair| pair.key == *first);
    match (known, rest.is_empty(), value) {
        (Some(pair), true, YamlNode { content: YamlContent::Map(new), .. })
            if matches!(pair.value.content, YamlContent::Map(_)) =>
        {
            if let YamlContent::Map(inner) = &mut pair.value.content {
                for pair in new {
                    insert(inner, &[&pair.key], pair.line, pair.value);
                }
            }
        }
        (Some(pair), true, value) => pair.value = value,
        (None, true, value) => into.push(YamlPair { line, key: (*first).to_owned(), value }),
        (Some(pair), false, value) => {
            if !matches!(pair.value.content, YamlContent::Map(_)) {
                pair.value.content = YamlContent::Map(Vec::new());
            }
            if let YamlContent::Map(inner) = &mut pair.value.content {
                insert(inner, rest, line, value);
            }
        }
        (None, false, value) => {
            let mut inner = Vec::new();
            insert(&mut inner, rest, line, value);
            let value = YamlNode { line, content: YamlContent::Map(inner) };
            into.push(YamlPair { line, key: (*first).to_owned(), value });
        }
    }
}

/// Tells whether this is a file of Spring Cloud Gateway's, with its dots written out.
pub fn is_spring(root: &Place<'_>) -> bool {
    root.at(&["spring", "cloud", "gateway"]).is_some() || root.at(&["spring", "security", "oauth2", "client"]).is_some()
}

/// Reads one document.
pub fn read_spring(root: &Place<'_>, draft: &mut Draft) {
    if let Some(profile) = root.at(&["spring", "config", "activate", "on-profile"]) {
        profile.lose(draft, "documents of one profile are left out; import them apart");
        return;
    }
    let Some((home, at)) =
        HOMES.iter().find_map(|at| root.at(at).filter(|home| home.get("routes").is_some()).map(|home| (home, at)))
    else {
        draft.lose(root.line(), "spring.cloud.gateway.routes", "there are none; routes in Java are not read");
        return;
    };
    name_the_rest(root, at, draft);
    home.leftover(&["routes", "default-filters", "httpclient", "enabled", "server", "mvc"], draft);
    let mut timeouts = Vec::new();
    if let Some(client) = home.get("httpclient") {
        client.leftover(&["connect-timeout", "response-timeout"], draft);
        for (key, ours) in [("connect-timeout", "connect"), ("response-timeout", "response")] {
            let time = client.text_of(key).and_then(|text| duration(text, MILLISECOND));
            timeouts.extend(time.map(|time| (ours.to_owned(), quoted(&time))));
        }
    }
    let defaults = home.list("default-filters");
    let before = draft.routes.len();
    for route in home.list("routes") {
        read_route(&route, &defaults, root, &timeouts, draft);
    }
    if draft.routes.len() == before {
        return;
    }
    let port = root.at(&["server", "port"]);
    let address = root.at(&["server", "address"]).and_then(|address| address.text());
    draft.listeners.push(DraftListener {
        name: "gateway".to_owned(),
        line: port.as_ref().map_or(root.line(), Place::line),
        address: address.filter(|text| text.parse::<std::net::IpAddr>().is_ok()).unwrap_or("0.0.0.0").to_owned(),
        port: port.and_then(|port| port.text()?.parse().ok()).unwrap_or(8080),
        ..DraftListener::default()
    });
}

/// Names what stands beside the gateway's own properties.
fn name_the_rest(root: &Place<'_>, home: &[&str], draft: &mut Draft) {
    root.leftover(&["spring", "server", "logging", "management", "info", "debug"], draft);
    if let Some(server) = root.get("server") {
        server.leftover(&["port", "address", "shutdown", "forward-headers-strategy"], draft);
    }
    if let Some(spring) = root.get("spring") {
        spring.leftover(&["application", "cloud", "security", "main", "config", "profiles", "lifecycle"], draft);
    }
    if let Some(cloud) = root.at(&["spring", "cloud"]) {
        cloud.leftover(&["gateway"], draft);
    }
    for depth in 3..home.len() {
        if let Some(place) = root.at(&home[..depth]) {
            place.leftover(&[home[depth], "enabled"], draft);
        }
    }
    if let Some(security) = root.at(&["spring", "security"]) {
        security.leftover(&["oauth2"], draft);
    }
    if let Some(oauth2) = root.at(&["spring", "security", "oauth2"]) {
        oauth2.leftover(&["client"], draft);
    }
}

/// A filter or predicate in its short form, `Name=a,b`, or its long one.
fn short<'a>(place: &Place<'a>) -> (&'a str, Vec<&'a str>) {
    let Some(text) = place.text() else {
        let values = place.get("args").map(|args| match args.entries() {
            entries if entries.is_empty() => args.items(),
            entries => entries.into_iter().flat_map(|(_, value)| value.items()).collect(),
        });
        let values = values.unwrap_or_default().iter().filter_map(Place::text).collect();
        return (place.text_of("name").unwrap_or_default(), values);
    };
    let (name, values) = text.split_once('=').unwrap_or((text, ""));
    (name.trim(), values.split(',').map(str::trim).filter(|value| !value.is_empty()).collect())
}

fn read_route(
    route: &Place<'_>,
    defaults: &[Place<'_>],
    root: &Place<'_>,
    timeouts: &[(String, String)],
    draft: &mut Draft,
) {
    route.leftover(&["id", "uri", "predicates", "filters", "order", "metadata"], draft);
    let name = route.text_of("id").unwrap_or_default();
    let label = format!("route {}", proxy_name(name));
    let filters: Vec<Place<'_>> = defaults.iter().cloned().chain(route.list("filters")).collect();
    let Some(relay) = filters.iter().find(|filter| short(filter).0 == "TokenRelay") else {
        draft.lose(route.line(), label, "no credential is added to its calls; a profile without [token] may, docs/adding-a-provider.md#without-a-token");
        return;
    };
    let (_, words) = short(relay);
    let Some(registration) = words.first() else {
        draft.lose(
            relay.line(),
            "TokenRelay",
            "it passes on the token of whoever is logged in; users consent at the bank, docs/consent.md",
        );
        return;
    };
    let Some(uri) = route.get("uri") else { return };
    let Some(origin) = draft.base_url(uri.line(), "uri", uri.text().unwrap_or_default()) else { return };
    let Some(credential) = registered(root, registration, relay, draft) else { return };
    let Some(found) = predicates(route, draft) else { return };
    let (mut cut, mut before, mut headers) = (0usize, String::new(), Vec::new());
    for filter in &filters {
        let (name, values) = short(filter);
        match (name, values.as_slice()) {
            ("TokenRelay", _) => {}
            ("StripPrefix", [count]) => cut += count.parse::<usize>().unwrap_or(0),
            ("StripPrefix", []) => cut += 1,
            ("PrefixPath", [prefix]) if route_path(prefix).is_some() && before.is_empty() => {
                before = prefix.trim_end_matches('/').to_owned();
            }
            ("AddRequestHeader" | "SetRequestHeader", [name, value]) => {
                if draft.may_copy_header(filter.line(), &format!("AddRequestHeader {name}"), name, value) {
                    headers.push(((*name).to_owned(), (*value).to_owned()));
                }
            }
            ("RemoveRequestHeader", [name]) if name.eq_ignore_ascii_case("cookie") => {}
            _ => draft.lose(filter.line(), format!("filter {name}"), cure_of(name)),
        }
    }
    let mut upstream = Upstream::of(origin.clone());
    upstream.timeouts = timeouts.iter().cloned().collect();
    let mut made = Vec::new();
    for pattern in &found.paths {
        let segments = pattern.prefix.split('/').filter(|segment| !segment.is_empty()).count();
        let route_line = route.line();
        let mut one = DraftRoute::new(draft, route_line, name, "");
        one.methods.clone_from(&found.methods);
        one.headers.clone_from(&headers);
        if cut == 0 {
            one.path = Some(pattern.prefix.clone());
            one.strip = false;
            one.allow = pattern.pattern.iter().map(|pattern| format!("* {pattern}")).collect();
            one.upstream = Some(format!("{origin}{before}"));
        } else if cut <= segments {
            // The first segments are cut off; the others of the path are said by where the call goes.
            let words: Vec<&str> = pattern.prefix.split('/').skip(1).collect();
            let kept = words[cut..].iter().map(|word| format!("/{word}")).collect::<String>();
            one.path = Some(pattern.prefix.clone());
            one.upstream = Some(format!("{origin}{before}{kept}"));
            if let Some(whole) = &pattern.pattern {
                let rest = whole.strip_prefix(&pattern.prefix).unwrap_or(whole);
                one.allow = vec![format!("* {}", if rest.is_empty() { "/" } else { rest })];
            }
        } else {
            draft.lose(
                route.line(),
                format!("{label} StripPrefix"),
                "it cuts off a variable segment; this route is left out",
            );
            continue;
        }
        if pattern.wider {
            draft.lose(
                route.line(),
                format!("{label} Path (its last variable)"),
                "allow takes several segments there, docs/config.md#route-what-leads-from-one-to-the-other",
            );
        }
        made.push(one);
    }
    if made.is_empty() {
        return;
    }
    let provider = draft.provider(&upstream, &credential);
    for one in made {
        for host in &found.hosts {
            draft.route(DraftRoute { provider: provider.clone(), host: host.clone(), ..one.clone() });
        }
    }
}

struct Predicates {
    paths: Vec<super::words::PathPattern>,
    hosts: Vec<Option<String>>,
    methods: Vec<String>,
}

/// What a route matches; `None`, with a loss, if a predicate is another one than path, host and method.
fn predicates(route: &Place<'_>, draft: &mut Draft) -> Option<Predicates> {
    let mut found = Predicates { paths: Vec::new(), hosts: Vec::new(), methods: Vec::new() };
    for predicate in route.list("predicates") {
        let (name, values) = short(&predicate);
        match name {
            "Path" => {
                for value in values.iter().filter(|value| !matches!(**value, "true" | "false")) {
                    match path_pattern(value) {
                        Some(pattern) => found.paths.push(pattern),
                        None => draft.lose(predicate.line(), "predicate Path", cure_of("regex")),
                    }
                }
                if found.paths.is_empty() {
                    return None;
                }
            }
            "Host" if values.iter().all(|value| !value.contains(['*', '{'])) => {
                found.hosts.extend(values.iter().map(|host| Some((*host).to_owned())));
            }
            "Method" => found.methods.extend(values.iter().map(|method| method.to_uppercase())),
            _ => {
                draft.lose(
                    predicate.line(),
                    format!("predicate {name}"),
                    "a route is found by host, path and method alone; this one is left out",
                );
                return None;
            }
        }
    }
    if found.paths.is_empty() {
        found.paths.push(super::words::PathPattern { prefix: "/".to_owned(), pattern: None, wider: false });
    }
    if found.hosts.is_empty() {
        found.hosts.push(None);
    }
    Some(found)
}

/// The credential of a client registration.
fn registered(root: &Place<'_>, name: &str, relay: &Place<'_>, draft: &mut Draft) -> Option<Credential> {
    let client = root.at(&["spring", "security", "oauth2", "client"]);
    let Some(found) = client.as_ref().and_then(|client| client.at(&["registration", name])) else {
        draft.lose(
            relay.line(),
            "TokenRelay",
            "its client registration is not in the file; write the provider yourself, docs/providers.md#oauth2",
        );
        return None;
    };
    found.leftover(
        &[
            "provider",
            "client-id",
            "client-secret",
            "authorization-grant-type",
            "client-authentication-method",
            "scope",
            "client-name",
        ],
        draft,
    );
    if found.text_of("authorization-grant-type").is_some_and(|grant| grant != "client_credentials") {
        draft.lose(
            found.line(),
            "authorization-grant-type",
            "its calls are made in the names of users, who consent at the bank, docs/consent.md",
        );
        return None;
    }
    let basic = match found.text_of("client-authentication-method") {
        None | Some("client_secret_basic" | "basic") => true,
        Some("client_secret_post" | "post") => false,
        Some(_) => {
            draft.lose(
                found.line(),
                "client-authentication-method",
                "signed assertions are a profile's, docs/adding-a-provider.md#signatures",
            );
            false
        }
    };
    let provider = client.and_then(|client| client.at(&["provider", found.text_of("provider").unwrap_or(name)]));
    if let Some(provider) = &provider {
        provider.leftover(
            &["token-uri", "authorization-uri", "jwk-set-uri", "user-info-uri", "user-name-attribute", "issuer-uri"],
            draft,
        );
    }
    let uri = provider.as_ref().and_then(|provider| provider.get("token-uri"));
    let line = uri.as_ref().map_or(found.line(), Place::line);
    let token_url = draft.token_url(line, "token-uri", uri.as_ref().and_then(Place::text));
    Some(Credential::Oauth2(ClientCredentials {
        token_url,
        client_id: found.text_of("client-id").map(str::to_owned),
        secret: found.text_of("client-secret").map_or(SecretPlace::Inline, secret_place),
        scopes: scopes(draft, found.line(), "scope", &found.texts("scope")),
        basic,
    }))
}
