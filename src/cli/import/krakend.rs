//! Reading of KrakenD: endpoints whose backends have `auth/client-credentials`.

use std::time::Duration;

use super::credential::{ClientCredentials, Credential, Upstream, scopes};
use super::draft::{Draft, DraftListener, DraftRoute, SecretPlace};
use super::place::Place;
use super::words::{cure_of, duration, path_pattern, route_path, secret_place};

/// Names of the extension, the older one among them.
const CREDENTIALS: [&str; 2] = ["auth/client-credentials", "github.com/devopsfaith/krakend-oauth2-clientcredentials"];

/// Tells whether this is a file of KrakenD's.
pub fn is_krakend(root: &Place<'_>) -> bool {
    root.list("endpoints").iter().any(|endpoint| endpoint.get("backend").is_some())
}

/// Reads the document.
pub fn read_krakend(root: &Place<'_>, draft: &mut Draft) {
    root.leftover(
        &[
            "$schema",
            "version",
            "name",
            "port",
            "listen_ip",
            "host",
            "timeout",
            "endpoints",
            "tls",
            "extra_config",
            "output_encoding",
            "debug_endpoint",
            "echo_endpoint",
        ],
        draft,
    );
    let before = draft.routes.len();
    for (name, place) in root.get("extra_config").map(|extra| extra.entries()).unwrap_or_default() {
        draft.lose(place.line(), format!("extra_config {name}"), cure_of(name));
    }
    for endpoint in root.list("endpoints") {
        read_endpoint(&endpoint, root, draft);
    }
    if draft.routes.len() == before {
        return;
    }
    let port = root.text_of("port").and_then(|port| port.parse().ok()).unwrap_or(8080);
    let address = root.text_of("listen_ip").filter(|ip| ip.parse::<std::net::IpAddr>().is_ok()).unwrap_or("0.0.0.0");
    let mut listener = DraftListener {
        name: "gateway".to_owned(),
        line: root.get("port").map_or(root.line(), |port| port.line()),
        address: address.to_owned(),
        port,
        ..DraftListener::default()
    };
    if let Some(tls) = root.get("tls") {
        tls.leftover(&["public_key", "private_key", "keys", "disabled", "enable_mtls", "ca_certs"], draft);
        let keys = tls.list("keys").into_iter().next().unwrap_or_else(|| tls.clone());
        let file = |place: &Place<'_>, key: &str, draft: &mut Draft| {
            let found = place.get(key)?;
            let path = found.text()?;
            draft.file(found.line(), found.path(), path).map(|_| path.to_owned())
        };
        listener.tls = file(&keys, "public_key", draft).zip(file(&keys, "private_key", draft));
        if tls.text_of("enable_mtls") == Some("true") {
            let ca = tls.list("ca_certs").into_iter().next();
            listener.client_ca = ca.and_then(|ca| ca.text()).map(str::to_owned);
            if listener.client_ca.is_none() {
                draft.lose(
                    tls.line(),
                    "tls.enable_mtls",
                    "name the clients' CA as client_ca, docs/identity.md#certificates",
                );
            }
        }
    }
    draft.listeners.push(listener);
}

fn read_endpoint(endpoint: &Place<'_>, root: &Place<'_>, draft: &mut Draft) {
    let name = endpoint.text_of("endpoint").unwrap_or_default();
    endpoint.leftover(
        &[
            "endpoint",
            "method",
            "backend",
            "timeout",
            "output_encoding",
            "extra_config",
            "concurrent_calls",
            "@comment",
        ],
        draft,
    );
    let backends = endpoint.list("backend");
    let [backend] = backends.as_slice() else {
        draft.lose(
            endpoint.line(),
            "endpoint",
            "answers are not put together: one route calls one provider; this one is left out",
        );
        return;
    };
    let credentials = backend.get("extra_config").and_then(|extra| CREDENTIALS.iter().find_map(|name| extra.get(name)));
    let Some(credentials) = credentials else {
        draft.lose(endpoint.line(), "endpoint", "no credential is added to its calls; a profile without [token] may, docs/adding-a-provider.md#without-a-token");
        return;
    };
    backend.leftover(
        &["url_pattern", "host", "method", "encoding", "extra_config", "disable_host_sanitize", "@comment"],
        draft,
    );
    for (name, place) in backend.get("extra_config").map(|extra| extra.entries()).unwrap_or_default() {
        if !CREDENTIALS.contains(&name) {
            draft.lose(place.line(), format!("backend extra_config {name}"), cure_of(name));
        }
    }
    let Some(host) = backend.list("host").into_iter().chain(root.list("host")).next() else {
        backend.lose(draft, "it names no host; write base_url yourself");
        return;
    };
    if backend.list("host").len() > 1 {
        draft.lose(host.line(), "host (further ones)", cure_of("balance"));
    }
    let Some(base_url) = draft.base_url(host.line(), "host", host.text().unwrap_or_default()) else { return };
    let method = endpoint.text_of("method").unwrap_or("GET").to_ascii_uppercase();
    if let Some(other) = backend.get("method").filter(|other| other.text() != Some(&*method)) {
        other.lose(draft, "the method of a call is not changed");
        return;
    }
    let url_pattern = backend.text_of("url_pattern").unwrap_or_default();
    let Some(places) = places(name, url_pattern) else {
        draft.lose(
            endpoint.line(),
            "endpoint",
            "path and url_pattern differ in more than what stands before the first variable; this one is left out",
        );
        return;
    };
    if places.wider {
        draft.lose(
            endpoint.line(),
            "endpoint (its last variable)",
            "allow takes several segments there, docs/config.md#route-what-leads-from-one-to-the-other",
        );
    }
    let credential = client_credentials(&credentials, draft);
    let provider = draft.provider(&Upstream::of(base_url.clone()), &credential);
    let mut route = DraftRoute::new(draft, endpoint.line(), name, &provider);
    route.path = Some(places.path);
    route.methods = vec![method.clone()];
    route.allow = vec![format!("{method} {}", places.rest)];
    route.upstream = Some(format!("{base_url}{}", places.base));
    let timeout = endpoint.text_of("timeout").or_else(|| root.text_of("timeout"));
    route.response_timeout = timeout.and_then(|text| duration(text, Duration::from_secs(1)));
    for (name, place) in endpoint.get("extra_config").map(|extra| extra.entries()).unwrap_or_default() {
        if name == "qos/ratelimit/router" && place.get("max_rate").is_some() {
            place.leftover(&["max_rate", "every", "capacity"], draft);
            let requests = place.text_of("max_rate").and_then(|rate| rate.parse::<u64>().ok()).filter(|rate| *rate > 0);
            let every = duration(place.text_of("every").unwrap_or("1s"), Duration::from_secs(1));
            route.rate_limit = requests.zip(every);
            if route.rate_limit.is_some() {
                continue;
            }
        }
        draft.lose(place.line(), format!("endpoint extra_config {name}"), cure_of(name));
    }
    draft.route(route);
}

/// The parts of an endpoint and its backend's path: what is cut off, what is put before, and what stays.
struct Places {
    path: String,
    base: String,
    rest: String,
    wider: bool,
}

fn places(endpoint: &str, url_pattern: &str) -> Option<Places> {
    let pattern = url_pattern.split('?').next().unwrap_or_default();
    if pattern.len() != url_pattern.len() {
        return None;
    }
    let split = |text: &str| {
        let at = text.find("/{").or_else(|| text.find("/*")).unwrap_or(text.len());
        (text[..at].to_owned(), text[at..].to_owned())
    };
    let ((path, rest), (base, other)) = (split(endpoint), split(pattern));
    if rest != other {
        return None;
    }
    let path = route_path(if path.is_empty() { "/" } else { &path })?;
    let base = route_path(if base.is_empty() { "/" } else { &base })?;
    let base = if base == "/" { String::new() } else { base };
    if rest.is_empty() {
        return Some(Places { path, base, rest: "/".to_owned(), wider: false });
    }
    let found = path_pattern(&rest)?;
    let rest = found.pattern.unwrap_or_else(|| "/*".to_owned());
    Some(Places { path, base, rest, wider: found.wider && !rest_is_open(endpoint) })
}

/// True if the endpoint itself takes everything below.
fn rest_is_open(endpoint: &str) -> bool {
    endpoint.ends_with("/*")
}

fn client_credentials(place: &Place<'_>, draft: &mut Draft) -> Credential {
    place.leftover(&["client_id", "client_secret", "token_url", "scopes", "auth_style", "@comment"], draft);
    let url = place.get("token_url");
    let line = url.as_ref().map_or(place.line(), Place::line);
    let token_url = draft.token_url(line, "token_url", url.as_ref().and_then(Place::text));
    Credential::Oauth2(ClientCredentials {
        token_url,
        client_id: place.text_of("client_id").map(str::to_owned),
        secret: place.text_of("client_secret").map_or(SecretPlace::Inline, secret_place),
        scopes: scopes(draft, place.line(), "scopes", &place.texts("scopes")),
        basic: place.text_of("auth_style") == Some("2"),
    })
}
