//! Reading of Envoy: a bootstrap, or its listeners and clusters, with the filter `credential_injector`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::credential::{ClientCredentials, Credential, Upstream, scopes};
use super::draft::{Draft, DraftListener, DraftRoute, SecretPlace, quoted};
use super::place::Place;
use super::words::{duration, proxy_name, route_path};

const SECOND: Duration = Duration::from_secs(1);

/// Tells whether this is a file of Envoy's.
pub fn is_envoy(root: &Place<'_>) -> bool {
    root.get("static_resources").is_some()
        || root.get("filter_chains").is_some()
        || root.list("listeners").iter().any(|listener| listener.get("filter_chains").is_some())
        || root.list("resources").iter().any(|resource| resource.get("filter_chains").is_some())
}

/// Clusters and secrets by their names.
struct Parts<'a> {
    clusters: BTreeMap<&'a str, Place<'a>>,
    secrets: BTreeMap<&'a str, Place<'a>>,
}

/// Reads one document.
pub fn read_envoy(root: &Place<'_>, draft: &mut Draft) {
    let statics = root.get("static_resources");
    if statics.is_some() {
        root.leftover(&["static_resources", "admin", "node", "stats_config", "layered_runtime"], draft);
    }
    let home = statics.unwrap_or_else(|| root.clone());
    let named = |key: &str| -> BTreeMap<_, _> {
        home.list(key).into_iter().filter_map(|item| Some((item.text_of("name")?, item))).collect()
    };
    let parts = Parts { clusters: named("clusters"), secrets: named("secrets") };
    let listeners = match (home.list("listeners"), home.list("resources")) {
        (found, _) if !found.is_empty() => found,
        (_, found) if !found.is_empty() => found,
        _ => vec![home.clone()],
    };
    for listener in listeners {
        read_listener(&listener, &parts, draft);
    }
}

fn read_listener(listener: &Place<'_>, parts: &Parts<'_>, draft: &mut Draft) {
    listener.leftover(
        &[
            "@type",
            "name",
            "address",
            "filter_chains",
            "listener_filters",
            "per_connection_buffer_limit_bytes",
            "tcp_backlog_size",
            "traffic_direction",
            "stat_prefix",
            "enable_reuse_port",
        ],
        draft,
    );
    let before = draft.routes.len();
    let mut tls = None;
    for chain in listener.list("filter_chains") {
        chain.leftover(&["name", "filters", "transport_socket"], draft);
        if let Some(socket) = chain.get("transport_socket") {
            tls = downstream(&socket, draft).or(tls);
        }
        for filter in chain.list("filters") {
            match filter.get("typed_config") {
                Some(manager)
                    if filter.text_of("name").is_some_and(|name| name.contains("http_connection_manager")) =>
                {
                    read_manager(&manager, parts, draft);
                }
                _ => filter.lose(draft, "only HTTP is carried over; forward mode is in docs/forward.md"),
            }
        }
    }
    let socket = listener.at(&["address", "socket_address"]);
    let port = socket.as_ref().and_then(|socket| socket.text_of("port_value")?.parse::<u16>().ok());
    match (socket, port) {
        (Some(socket), Some(port)) if draft.routes.len() > before => {
            let address = socket.text_of("address").filter(|address| address.parse::<std::net::IpAddr>().is_ok());
            let mut found = tls.unwrap_or_default();
            found.name = listener.text_of("name").unwrap_or("gateway").to_owned();
            found.line = socket.line();
            found.address = address.unwrap_or("127.0.0.1").to_owned();
            found.port = port;
            draft.listeners.push(found);
        }
        (None, _) if draft.routes.len() > before => {
            draft.lose(
                listener.line(),
                "address",
                "only an IP address with a port is carried over, docs/config.md#listener-where-we-listen",
            );
        }
        _ => {}
    }
}

/// The certificate and the clients' CA of a downstream TLS context.
fn downstream(socket: &Place<'_>, draft: &mut Draft) -> Option<DraftListener> {
    let context = socket.get("typed_config")?;
    context.leftover(&["@type", "common_tls_context", "require_client_certificate"], draft);
    let common = context.get("common_tls_context")?;
    common.leftover(&["alpn_protocols", "tls_certificates", "validation_context", "tls_params"], draft);
    let file = |at: &[&str], draft: &mut Draft| -> Option<String> {
        let found = common.at(&at[..1])?.items().into_iter().next()?.at(&at[1..])?;
        let path = found.text()?;
        draft.file(found.line(), found.path(), path).map(|_| path.to_owned())
    };
    let cert = file(&["tls_certificates", "certificate_chain", "filename"], draft);
    let key = file(&["tls_certificates", "private_key", "filename"], draft);
    let client_ca = file(&["validation_context", "trusted_ca", "filename"], draft);
    let tls = cert.zip(key);
    if tls.is_none() {
        common.lose(
            draft,
            "certificate and key are taken from files alone; name them in tls, docs/config.md#listener-where-we-listen",
        );
    }
    let client_optional = context.text_of("require_client_certificate") != Some("true");
    Some(DraftListener { tls, client_ca, client_optional, ..DraftListener::default() })
}

fn read_manager(manager: &Place<'_>, parts: &Parts<'_>, draft: &mut Draft) {
    manager.leftover(
        &[
            "@type",
            "stat_prefix",
            "codec_type",
            "route_config",
            "http_filters",
            "generate_request_id",
            "use_remote_address",
            "access_log",
            "common_http_protocol_options",
            "stream_idle_timeout",
            "server_name",
            "normalize_path",
            "merge_slashes",
        ],
        draft,
    );
    let mut credential = None;
    for filter in manager.list("http_filters") {
        let name = filter.text_of("name").unwrap_or_default();
        if name.ends_with("router") {
            continue;
        }
        match filter.get("typed_config") {
            Some(injector) if name.contains("credential_injector") => credential = injected(&injector, parts, draft),
            _ => draft.lose(filter.line(), format!("http filter {name}"), super::words::cure_of(name)),
        }
    }
    let Some(table) = manager.get("route_config") else {
        manager.lose(draft, "routes that come from elsewhere are not fetched; give them as route_config");
        return;
    };
    table.leftover(&["name", "virtual_hosts", "request_headers_to_add", "validate_clusters"], draft);
    for host in table.list("virtual_hosts") {
        host.leftover(&["name", "domains", "routes", "request_headers_to_add"], draft);
        let domains = domains(&host, draft);
        for route in host.list("routes") {
            read_route(&route, &[&table, &host], &domains, credential.as_ref(), parts, draft);
        }
    }
}

/// The hosts of a virtual host; `None` is any.
fn domains(host: &Place<'_>, draft: &mut Draft) -> Vec<Option<String>> {
    let mut found: Vec<Option<String>> = Vec::new();
    for domain in host.texts("domains") {
        let bare = domain.split(':').next().unwrap_or_default();
        if domain == "*" {
            return vec![None];
        }
        if bare.contains('*') || bare.is_empty() {
            draft.lose(
                host.line(),
                "domains",
                "a host is named whole, docs/config.md#route-what-leads-from-one-to-the-other",
            );
        } else if !found.iter().any(|known| known.as_deref() == Some(bare)) {
            found.push(Some(bare.to_owned()));
        }
    }
    found
}

/// The credential of a `credential_injector`, or of nothing with a loss.
fn injected(injector: &Place<'_>, parts: &Parts<'_>, draft: &mut Draft) -> Option<Credential> {
    injector.leftover(&["@type", "overwrite", "credential"], draft);
    let credential = injector.at(&["credential", "typed_config"])?;
    if credential.get("credential").is_some() {
        return generic(&credential, parts, draft);
    }
    credential
        .leftover(&["@type", "token_endpoint", "client_credentials", "scopes", "token_fetch_retry_interval"], draft);
    let endpoint = credential.get("token_endpoint");
    let (line, url) = endpoint.as_ref().map_or((credential.line(), None), |found| (found.line(), found.text_of("uri")));
    let token_url = draft.token_url(line, "token_endpoint", url);
    if let Some(cluster) = endpoint.as_ref().and_then(|endpoint| parts.clusters.get(endpoint.text_of("cluster")?)) {
        token_cluster(cluster, draft);
    }
    let client = credential.get("client_credentials");
    if let Some(client) = &client {
        client.leftover(&["client_id", "client_secret", "auth_type"], draft);
    }
    let secret = client.as_ref().and_then(|client| client.get("client_secret"));
    let secret = secret.map_or(SecretPlace::Inline, |secret| sds(&secret, parts, draft));
    let scopes = scopes(draft, credential.line(), "scopes", &credential.texts("scopes"));
    let basic =
        client.as_ref().is_some_and(|client| client.text_of("auth_type").is_none_or(|kind| kind == "BASIC_AUTH"));
    let client_id = client.and_then(|client| client.text_of("client_id")).map(str::to_owned);
    Some(Credential::Oauth2(ClientCredentials { token_url, client_id, secret, scopes, basic }))
}

/// A static credential: its whole value stands in a secret.
fn generic(credential: &Place<'_>, parts: &Parts<'_>, draft: &mut Draft) -> Option<Credential> {
    credential.leftover(&["@type", "credential", "header", "header_value_prefix"], draft);
    let secret = credential.get("credential")?;
    let place = sds(&secret, parts, draft);
    let header = credential.text_of("header").unwrap_or("authorization").to_owned();
    let scheme = credential.text_of("header_value_prefix").unwrap_or_default().trim();
    let scheme =
        if scheme.len() <= 16 && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()) { scheme } else { "" };
    Some(Credential::Static { header, scheme: scheme.to_owned(), secret: place, line: secret.line() })
}

/// The place of a secret that is named by an SDS config.
fn sds(secret: &Place<'_>, parts: &Parts<'_>, draft: &mut Draft) -> SecretPlace {
    let name = secret.text_of("name").unwrap_or_default();
    if let Some(found) = parts.secrets.get(name) {
        let value = found.at(&["generic_secret", "secret"]);
        if let Some(file) = value.as_ref().and_then(|value| value.text_of("filename")) {
            return SecretPlace::File(file.to_owned());
        }
        if let Some(variable) = value.as_ref().and_then(|value| value.text_of("environment_variable")) {
            return SecretPlace::Env(variable.to_owned());
        }
        return SecretPlace::Inline;
    }
    if secret.get("sds_config").is_some() {
        draft.lose(
            secret.line(),
            "sds_config",
            "secrets come from files and variables; put this one there, docs/config.md#how-values-are-written",
        );
    }
    SecretPlace::Inline
}

fn read_route(
    route: &Place<'_>,
    above: &[&Place<'_>],
    domains: &[Option<String>],
    credential: Option<&Credential>,
    parts: &Parts<'_>,
    draft: &mut Draft,
) {
    route.leftover(&["name", "match", "route", "request_headers_to_add", "typed_per_filter_config"], draft);
    let Some(action) = route.get("route") else {
        if route.get("redirect").is_none() && route.get("direct_response").is_none() {
            route.lose(draft, "a route without a cluster calls nobody");
        }
        return;
    };
    action.leftover(
        &["cluster", "host_rewrite_literal", "prefix_rewrite", "timeout", "auto_host_rewrite", "idle_timeout"],
        draft,
    );
    let own = per_route(route, parts, draft);
    let Some(credential) = own.as_ref().or(credential) else {
        draft.lose(route.line(), "route", "no credential is added to its calls; a profile without [token] may, docs/adding-a-provider.md#without-a-token");
        return;
    };
    let Some(cluster) = action.text_of("cluster").and_then(|name| parts.clusters.get(name)) else {
        action.lose(draft, "its cluster is not in the file; give it, or name base_url yourself");
        return;
    };
    let rewritten = action.text_of("host_rewrite_literal");
    let Some(mut upstream) = upstream(cluster, rewritten, draft) else { return };
    let Some((path, exact, methods)) = matched(route, draft) else { return };
    let origin = upstream.base_url.clone();
    let (mut strip, mut allow) = (false, Vec::new());
    if let Some(rewrite) = action.get("prefix_rewrite") {
        let Some(rewrite) = rewrite.text().and_then(route_path) else {
            rewrite.lose(draft, "it is no plain path");
            return;
        };
        strip = true;
        if rewrite != "/" {
            upstream.base_url = format!("{origin}{rewrite}");
        }
        if exact {
            allow.push("* /".to_owned());
        }
    } else if exact {
        allow.push(format!("* {path}"));
    }
    let target = upstream.base_url.clone();
    upstream.base_url = origin;
    let provider = draft.provider(&upstream, credential);
    let mut headers = Vec::new();
    for place in above.iter().copied().chain([route]) {
        for header in place.list("request_headers_to_add") {
            header.leftover(&["header", "append_action", "append"], draft);
            let (name, value) = (header.at(&["header", "key"]), header.at(&["header", "value"]));
            if let (Some(name), Some(value)) = (name.and_then(|name| name.text()), value.and_then(|value| value.text()))
            {
                let what = format!("request_headers_to_add {name}");
                if draft.may_copy_header(header.line(), &what, name, value) {
                    headers.retain(|(known, _): &(String, String)| !known.eq_ignore_ascii_case(name));
                    headers.push((name.to_owned(), value.to_owned()));
                }
            }
        }
    }
    let timeout = action.text_of("timeout").and_then(|text| duration(text, SECOND));
    for host in domains {
        let mut made = DraftRoute::new(draft, route.line(), route.text_of("name").unwrap_or(&provider), &provider);
        made.host.clone_from(host);
        made.path = Some(path.clone());
        made.methods.clone_from(&methods);
        made.strip = strip;
        made.allow.clone_from(&allow);
        made.headers.clone_from(&headers);
        made.response_timeout.clone_from(&timeout);
        made.upstream = Some(target.clone());
        draft.route(made);
    }
}

/// A credential of the route itself.
fn per_route(route: &Place<'_>, parts: &Parts<'_>, draft: &mut Draft) -> Option<Credential> {
    let filters = route.get("typed_per_filter_config")?;
    let mut found = None;
    for (name, config) in filters.entries() {
        if name.contains("credential_injector") && config.get("credential").is_some() {
            found = injected(&config, parts, draft);
        } else {
            draft.lose(config.line(), format!("typed_per_filter_config {name}"), super::words::cure_of(name));
        }
    }
    found
}

/// Path, whether it is exact, and methods of a route; `None` if a part of the match cannot be carried over.
fn matched(route: &Place<'_>, draft: &mut Draft) -> Option<(String, bool, Vec<String>)> {
    let found = route.get("match")?;
    found.leftover(&["prefix", "path", "path_separated_prefix", "headers", "case_sensitive"], draft);
    let mut methods = Vec::new();
    for header in found.list("headers") {
        let exact =
            header.at(&["string_match", "exact"]).or_else(|| header.get("exact_match")).and_then(|exact| exact.text());
        match (header.text_of("name"), exact) {
            (Some(":method"), Some(method)) if method.bytes().all(|byte| byte.is_ascii_uppercase()) => {
                methods.push(method.to_owned());
            }
            _ => {
                header.lose(draft, "a route is found by host, path and method alone; this one is left out");
                return None;
            }
        }
    }
    for (key, exact) in [("prefix", false), ("path_separated_prefix", false), ("path", true)] {
        if let Some(place) = found.get(key) {
            let Some(path) = place.text().and_then(route_path) else {
                place.lose(draft, "it is no plain path; this route is left out");
                return None;
            };
            return Some((path, exact, methods));
        }
    }
    found.lose(draft, "a route has a plain path; this one is left out");
    None
}

/// The base URL and TLS of a cluster.
fn upstream(cluster: &Place<'_>, rewritten: Option<&str>, draft: &mut Draft) -> Option<Upstream> {
    cluster.leftover(
        &[
            "@type",
            "name",
            "type",
            "connect_timeout",
            "load_assignment",
            "transport_socket",
            "lb_policy",
            "dns_lookup_family",
            "typed_extension_protocol_options",
            "http2_protocol_options",
            "circuit_breakers",
        ],
        draft,
    );
    let Some(tls) = cluster.at(&["transport_socket", "typed_config"]) else {
        cluster.lose(draft, "it has no TLS, and no token travels without it, docs/config.md#providername-whom-we-call");
        return None;
    };
    let endpoints: Vec<Place<'_>> =
        cluster.get("load_assignment")?.list("endpoints").iter().flat_map(|group| group.list("lb_endpoints")).collect();
    if endpoints.len() > 1 {
        draft.lose(
            cluster.line(),
            format!("{} (its further endpoints)", cluster.path()),
            super::words::cure_of("balance"),
        );
    }
    let socket = endpoints.first()?.at(&["endpoint", "address", "socket_address"])?;
    let (address, port) = (socket.text_of("address")?, socket.text_of("port_value")?);
    let sni = tls.text_of("sni");
    let host = rewritten.or(sni).unwrap_or(address);
    if host != address {
        draft.lose(socket.line(), "socket_address", "the name of the bank is resolved, and this address is not used");
    }
    let authority = if port == "443" || host.contains(':') { host.to_owned() } else { format!("{host}:{port}") };
    let base_url = draft.base_url(socket.line(), "socket_address", &authority)?;
    let mut upstream = Upstream::of(base_url);
    if let Some(sni) = sni.filter(|sni| *sni != host.split(':').next().unwrap_or_default()) {
        upstream.tls.insert("server_name".to_owned(), quoted(sni));
    }
    tls.leftover(&["@type", "sni", "common_tls_context", "auto_host_sni", "auto_sni_san_validation"], draft);
    if let Some(common) = tls.get("common_tls_context") {
        upstream.tls.extend(upstream_tls(&common, draft));
    } else {
        draft.lose(tls.line(), "transport_socket", "the bank's certificate was not verified; it is now, by the system's CAs, docs/config.md#providername-whom-we-call");
    }
    if let Some(connect) = cluster.text_of("connect_timeout").and_then(|text| duration(text, SECOND)) {
        upstream.timeouts.insert("connect".to_owned(), quoted(&connect));
    }
    Some(upstream)
}

fn upstream_tls(common: &Place<'_>, draft: &mut Draft) -> BTreeMap<String, String> {
    let mut tls = BTreeMap::new();
    common.leftover(&["alpn_protocols", "tls_certificates", "validation_context", "tls_params"], draft);
    if let Some(params) = common.get("tls_params") {
        params.leftover(&["tls_minimum_protocol_version", "tls_maximum_protocol_version"], draft);
        match params.text_of("tls_minimum_protocol_version") {
            Some("TLSv1_3") => _ = tls.insert("min_version".to_owned(), quoted("1.3")),
            Some("TLSv1_0" | "TLSv1_1") => params.lose(draft, "TLS 1.2 is the least"),
            _ => {}
        }
    }
    if let Some(certificate) = common.list("tls_certificates").first() {
        for (key, ours) in [("certificate_chain", "client_cert"), ("private_key", "client_key")] {
            let Some(place) = certificate.get(key) else { continue };
            match place.text_of("filename") {
                Some(path) => tls.extend(draft.file(place.line(), ours, path).map(|path| (ours.to_owned(), path))),
                None => place.lose(draft, "certificates and keys are files; write it to one and name it under tls"),
            }
        }
    }
    let Some(validation) = common.get("validation_context") else {
        common.lose(draft, "the bank's certificate was not verified; it is now, by the system's CAs, docs/config.md#providername-whom-we-call");
        return tls;
    };
    validation.leftover(&["trusted_ca", "match_typed_subject_alt_names", "match_subject_alt_names"], draft);
    match validation.at(&["trusted_ca", "filename"]) {
        Some(place) if place.text().is_some_and(is_system_store) => {}
        Some(place) => {
            let path = place.text().unwrap_or_default();
            tls.extend(draft.file(place.line(), "ca", path).map(|path| ("ca".to_owned(), path)));
        }
        None => validation.lose(draft, "CAs are a file; write them to one and name it as tls.ca"),
    }
    tls
}

/// Paths under which systems keep the CAs that are trusted anyway.
fn is_system_store(path: &str) -> bool {
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/ssl/cert.pem", "/etc/pki/tls/certs/ca-bundle.crt"].contains(&path)
}

/// A token endpoint's own connection: what of it differs from a provider's.
fn token_cluster(cluster: &Place<'_>, draft: &mut Draft) {
    let certificate = cluster.at(&["transport_socket", "typed_config", "common_tls_context", "tls_certificates"]);
    if let Some(certificate) = certificate {
        let what = format!("{} of the token endpoint", proxy_name(cluster.text_of("name").unwrap_or("cluster")));
        draft.lose(
            certificate.line(),
            what,
            "tls of a provider holds for its token and its calls alike, docs/config.md#providername-whom-we-call",
        );
    }
}
