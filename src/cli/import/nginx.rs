//! Reading of nginx: `location` blocks that pass calls on with an `Authorization` header, and the token endpoint of njs.

use std::collections::BTreeMap;
use std::time::Duration;

use super::credential::{ClientCredentials, Credential, Upstream};
use super::directive::{Directive, read_nginx_syntax};
use super::draft::{Draft, DraftListener, DraftRoute, NO_TOKEN_URL, SecretPlace, quoted};
use super::kind::IncludedFiles;
use super::words::{cure_of, duration, route_path};

const SECOND: Duration = Duration::from_secs(1);
/// Most headers that are looked at for one route.
const MAX_HEADERS: usize = 200;

/// Directives that say nothing about what becomes of a call.
const HARMLESS: &[&str] = &[
    "access_log",
    "aio",
    "charset",
    "client_body_buffer_size",
    "daemon",
    "default_type",
    "error_log",
    "events",
    "gzip",
    "gzip_types",
    "http2",
    "keepalive_requests",
    "keepalive_timeout",
    "keepalive",
    "load_module",
    "log_format",
    "master_process",
    "multi_accept",
    "pcre_jit",
    "pid",
    "proxy_buffering",
    "proxy_buffers",
    "proxy_buffer_size",
    "proxy_http_version",
    "proxy_pass_request_headers",
    "proxy_redirect",
    "proxy_request_buffering",
    "proxy_ssl_server_name",
    "resolver",
    "resolver_timeout",
    "root",
    "sendfile",
    "server_names_hash_bucket_size",
    "server_tokens",
    "ssl_ciphers",
    "ssl_prefer_server_ciphers",
    "ssl_protocols",
    "ssl_session_cache",
    "ssl_session_timeout",
    "tcp_nodelay",
    "tcp_nopush",
    "types",
    "types_hash_max_size",
    "user",
    "worker_connections",
    "worker_processes",
    "worker_rlimit_nofile",
    "zone",
    "proxy_ssl_session_reuse",
    "subrequest_output_buffer_size",
    "js_path",
    "env",
    "internal",
    "variables_hash_max_size",
];

/// Headers that nginx files set by habit and that a provider gets from countersign itself.
const FORWARDING: &[&str] = &["host", "connection", "upgrade", "content-length", "accept-encoding"];

/// Directives of a block, with those of the blocks around it: the innermost of each name counts.
#[derive(Clone, Default)]
struct Around<'a> {
    single: BTreeMap<&'a str, &'a Directive>,
    headers: Vec<&'a Directive>,
}

/// What a whole configuration names once.
#[derive(Default)]
struct Everywhere<'a> {
    upstreams: BTreeMap<&'a str, &'a Directive>,
    /// Variables that scripts fill, with the line where.
    scripted: BTreeMap<&'a str, &'a Directive>,
}

/// Tells whether a text looks like nginx's.
pub fn is_nginx(text: &str) -> bool {
    text.lines().map(str::trim).any(|line| {
        (line.starts_with("proxy_pass ") || line.starts_with("location ") || line.starts_with("js_import "))
            && !line.contains(": ")
    })
}

/// Reads a file and what it includes from its own folder.
pub fn read_nginx(text: &str, files: &dyn IncludedFiles, draft: &mut Draft) -> Result<(), String> {
    let mut left = 64;
    let directives = included(read_nginx_syntax(&draft.file, text)?, files, &mut left, 0, draft)?;
    let mut everywhere = Everywhere::default();
    gather(&directives, &mut everywhere, files, draft);
    token_location(&directives, draft);
    walk(&directives, &Around::default(), &everywhere, None, draft);
    Ok(())
}

/// Puts the directives of included files where they are included.
fn included(
    directives: Vec<Directive>,
    files: &dyn IncludedFiles,
    left: &mut usize,
    depth: usize,
    draft: &mut Draft,
) -> Result<Vec<Directive>, String> {
    let mut whole = Vec::new();
    for mut directive in directives {
        if directive.name == "include" && directive.block.is_none() {
            let name = directive.word(0).to_owned();
            if name.ends_with("mime.types") {
                continue;
            }
            match files.read(&name) {
                Ok(found) if depth < 8 && found.len() <= *left => {
                    *left -= found.len();
                    for (file, text) in found {
                        let inner = read_nginx_syntax(&file, &text)?;
                        whole.extend(included(inner, files, left, depth + 1, draft)?);
                    }
                }
                Ok(_) => {
                    return Err(format!(
                        "{}, line {}: more included files than are read",
                        directive.file, directive.line
                    ));
                }
                Err(why) => lose(draft, &directive, "include", &why),
            }
            continue;
        }
        if let Some(block) = directive.block.take() {
            directive.block = Some(included(block, files, left, depth, draft)?);
        }
        whole.push(directive);
    }
    Ok(whole)
}

fn lose(draft: &mut Draft, directive: &Directive, what: &str, cure: &str) {
    let file = std::mem::replace(&mut draft.file, directive.file.clone());
    draft.lose(directive.line, what, cure);
    draft.file = file;
}

/// Finds upstreams, variables of scripts, and token endpoints in scripts.
fn gather<'a>(directives: &'a [Directive], into: &mut Everywhere<'a>, files: &dyn IncludedFiles, draft: &mut Draft) {
    for directive in directives {
        match directive.name.as_str() {
            "upstream" => _ = into.upstreams.insert(directive.word(0), directive),
            "js_set" | "set_by_lua_block" | "set_by_lua" | "auth_request_set" => {
                into.scripted.insert(directive.word(0), directive);
            }
            "js_import" | "js_include" => {
                let named =
                    directive.words.iter().find(|word| word.ends_with(".js")).map_or(directive.word(0), String::as_str);
                let scripts = files.read(named).unwrap_or_default();
                let url = scripts.iter().find_map(|(_, text)| token_url_in(text));
                draft.found_token_url = draft.found_token_url.take().or_else(|| url.clone());
                let cure = match url {
                    Some(_) => {
                        "scripts do not run; the token endpoint that it names is taken over, docs/providers.md#oauth2"
                    }
                    None => "scripts do not run; name the token endpoint as token_url, docs/providers.md#oauth2",
                };
                lose(draft, directive, &directive.name, cure);
            }
            _ => {}
        }
        gather(directive.inside(), into, files, draft);
    }
}

/// The first `https://` URL of a script that reads like a token endpoint, without its query.
fn token_url_in(text: &str) -> Option<String> {
    text.match_indices("https://").map(|(at, _)| &text[at..]).find_map(|rest| {
        let url: String =
            rest.chars().take(512).take_while(|c| c.is_ascii_alphanumeric() || ":/._-~".contains(*c)).collect();
        let path =
            url.get(8..).and_then(|rest| rest.find('/').map(|at| rest[at..].to_ascii_lowercase())).unwrap_or_default();
        (path.contains("token") || path.contains("oauth")).then_some(url)
    })
}

/// Finds an internal location that calls a token endpoint for a script.
fn token_location(directives: &[Directive], draft: &mut Draft) {
    for directive in directives {
        if directive.name == "location" && directive.inside().iter().any(|inner| inner.name == "internal") {
            let target = directive.inside().iter().find(|inner| inner.name == "proxy_pass").map(|inner| inner.word(0));
            let place = directive.words.last().map(|word| word.to_ascii_lowercase()).unwrap_or_default();
            if let Some(url) = target
                && (token_url_in(url).is_some() || place.contains("token") || place.contains("oauth"))
                && url.starts_with("https://")
                && draft.found_token_url.is_none()
            {
                draft.found_token_url = Some(url.split('?').next().unwrap_or_default().to_owned());
            }
        }
        token_location(directive.inside(), draft);
    }
}

/// Directives that are read where a location is.
const READ: &[&str] = &[
    "proxy_pass",
    "proxy_set_header",
    "proxy_ssl_certificate",
    "proxy_ssl_certificate_key",
    "proxy_ssl_trusted_certificate",
    "proxy_ssl_name",
    "proxy_ssl_verify",
    "proxy_ssl_verify_depth",
    "proxy_ssl_protocols",
    "proxy_connect_timeout",
    "proxy_read_timeout",
    "limit_except",
    "listen",
    "server_name",
    "ssl_certificate",
    "ssl_certificate_key",
    "ssl_client_certificate",
    "ssl_verify_client",
    "js_set",
    "js_import",
    "js_include",
    "upstream",
    "set",
    "ssl",
];

fn walk<'a>(
    directives: &'a [Directive],
    around: &Around<'a>,
    everywhere: &Everywhere<'a>,
    server: Option<&'a Directive>,
    draft: &mut Draft,
) {
    let mut here = around.clone();
    let own_headers: Vec<&Directive> = directives.iter().filter(|inner| inner.name == "proxy_set_header").collect();
    if !own_headers.is_empty() {
        here.headers = own_headers;
    }
    for directive in directives {
        if directive.block.is_none() {
            here.single.insert(&directive.name, directive);
        }
    }
    for directive in directives {
        match directive.name.as_str() {
            "http" => walk(directive.inside(), &here, everywhere, None, draft),
            "server" => {
                let before = draft.routes.len();
                walk(directive.inside(), &here, everywhere, Some(directive), draft);
                if draft.routes.len() > before {
                    listener(directive, draft);
                }
            }
            "location" => read_location(directive, &here, everywhere, server, draft),
            "upstream" | "events" | "types" | "limit_except" => {}
            "js_set" | "set" => {
                let use_of = directive.word(0);
                if directive.name == "set" && !is_used_as_credential(use_of, &here, directives) {
                    lose(draft, directive, "set", "variables do not exist; write what it stands for");
                }
            }
            name if HARMLESS.contains(&name) || READ.contains(&name) => {}
            name => lose(draft, directive, name, cure_of(name)),
        }
    }
}

/// Tells whether a variable stands in an `Authorization` header.
fn is_used_as_credential(variable: &str, around: &Around<'_>, directives: &[Directive]) -> bool {
    let names =
        |header: &Directive| header.word(0).eq_ignore_ascii_case("authorization") && header.word(1).contains(variable);
    let below = |block: &Directive| block.inside().iter().any(|inner| inner.name == "proxy_set_header" && names(inner));
    around.headers.iter().any(|header| names(header)) || directives.iter().any(below)
}

fn listener(server: &Directive, draft: &mut Draft) {
    let find = |name: &str| server.inside().iter().find(|inner| inner.name == name);
    let Some(listen) = find("listen") else { return };
    let place = listen.word(0);
    let (address, port) = match place.rsplit_once(':') {
        Some((address, port)) => (address.trim_matches(['[', ']']), port),
        None => ("0.0.0.0", place),
    };
    let address = if address == "*" { "0.0.0.0" } else { address };
    let (Ok(port), Ok(_)) = (port.parse::<u16>(), address.parse::<std::net::IpAddr>()) else {
        lose(
            draft,
            listen,
            "listen",
            "only an IP address with a port is carried over, docs/config.md#listener-where-we-listen",
        );
        return;
    };
    let mut made = DraftListener {
        name: "gateway".to_owned(),
        line: listen.line,
        address: address.to_owned(),
        port,
        ..DraftListener::default()
    };
    let file = |name: &str, draft: &mut Draft| {
        let found = find(name)?;
        draft.file(found.line, name, found.word(0)).map(|_| found.word(0).to_owned())
    };
    if listen.words.iter().any(|word| word == "ssl") {
        made.tls = file("ssl_certificate", draft).zip(file("ssl_certificate_key", draft));
    }
    let verify = find("ssl_verify_client").map(|found| found.word(0)).unwrap_or("off");
    if verify != "off" {
        made.client_ca = file("ssl_client_certificate", draft);
        made.client_optional = verify != "on";
    }
    draft.listeners.push(made);
}

fn read_location<'a>(
    location: &'a Directive,
    around: &Around<'a>,
    everywhere: &Everywhere<'a>,
    server: Option<&'a Directive>,
    draft: &mut Draft,
) {
    if location.inside().iter().any(|inner| inner.name == "internal") {
        return;
    }
    // What stands in it is named, and locations in it are read.
    let before = draft.routes.len();
    walk(location.inside(), around, everywhere, server, draft);
    let Some(target) = location.inside().iter().find(|inner| inner.name == "proxy_pass") else {
        if draft.routes.len() == before && !location.inside().iter().any(|inner| inner.name == "location") {
            lose(draft, location, "location", "it calls nobody");
        }
        return;
    };
    let mut here = around.clone();
    let own: Vec<&Directive> = location.inside().iter().filter(|inner| inner.name == "proxy_set_header").collect();
    if !own.is_empty() {
        here.headers = own;
    }
    for directive in location.inside().iter().filter(|inner| inner.block.is_none()) {
        here.single.insert(&directive.name, directive);
    }
    let file = std::mem::replace(&mut draft.file, location.file.clone());
    read_call(location, target, &here, everywhere, server, draft);
    draft.file = file;
}

fn read_call(
    location: &Directive,
    target: &Directive,
    here: &Around<'_>,
    everywhere: &Everywhere<'_>,
    server: Option<&Directive>,
    draft: &mut Draft,
) {
    let exact = location.words.len() == 2 && location.word(0) == "=";
    let plain = match (location.words.len(), location.word(0)) {
        (1, path) => route_path(path),
        (2, "=" | "^~") => route_path(location.word(1)),
        _ => None,
    };
    let Some(path) = plain else {
        draft.lose(location.line, "location", cure_of("regex"));
        return;
    };
    let Some(header) = here
        .headers
        .iter()
        .find(|header| header.word(0).eq_ignore_ascii_case("authorization") && !header.word(1).is_empty())
    else {
        let cure = "no credential is added to its calls; a profile without [token] may, docs/adding-a-provider.md#without-a-token";
        draft.lose(location.line, "location", cure);
        return;
    };
    let Some((mut upstream, uri)) = upstream(target, here, everywhere, draft) else { return };
    let origin = upstream.base_url.clone();
    let place = location.words.last().map(String::as_str).unwrap_or_default();
    let (strip, full) = match uri.as_deref() {
        None => (false, origin.clone()),
        Some(uri) => {
            if place.ends_with('/') != uri.ends_with('/') && !exact && place != "/" {
                draft.lose(
                    target.line,
                    "proxy_pass",
                    "location and URL end differently, with a slash and without; paths are joined by whole segments",
                );
            }
            (true, format!("{origin}{}", uri.trim_end_matches('/')))
        }
    };
    upstream.base_url = origin;
    let credential = credential(header, everywhere, draft);
    let provider = draft.provider(&upstream, &credential);
    let mut route = DraftRoute::new(draft, location.line, "", &provider);
    route.name = if path == "/" { provider.clone() } else { super::words::proxy_name(&path) };
    route.strip = strip;
    route.upstream = Some(full);
    if exact {
        route.allow = vec![format!("* {}", if strip { "/" } else { &path })];
    }
    route.path = Some(path);
    let others = here.headers.iter().filter(|set| !set.word(0).eq_ignore_ascii_case("authorization"));
    for set in others.take(MAX_HEADERS) {
        if set.word(1).is_empty() || FORWARDING.contains(&set.word(0).to_ascii_lowercase().as_str()) {
            continue;
        }
        if draft.may_copy_header(set.line, &format!("proxy_set_header {}", set.word(0)), set.word(0), set.word(1)) {
            route.headers.push((set.word(0).to_owned(), set.word(1).to_owned()));
        }
    }
    if let Some(limit) = location.inside().iter().find(|inner| inner.name == "limit_except") {
        let denies = limit.inside().iter().any(|inner| inner.name == "deny" && inner.word(0) == "all");
        if denies && limit.inside().len() == 1 {
            route.methods = limit.words.iter().map(|method| method.to_ascii_uppercase()).collect();
            if route.methods.iter().any(|method| method == "GET")
                && !route.methods.iter().any(|method| method == "HEAD")
            {
                route.methods.push("HEAD".to_owned());
            }
        } else {
            draft.lose(
                limit.line,
                "limit_except",
                "see methods and clients in docs/config.md#route-what-leads-from-one-to-the-other",
            );
        }
    }
    for host in server_names(server, draft) {
        draft.route(DraftRoute { host, ..route.clone() });
    }
}

/// The hosts of a server; `None` is any.
fn server_names(server: Option<&Directive>, draft: &mut Draft) -> Vec<Option<String>> {
    let named = server.and_then(|server| server.inside().iter().find(|inner| inner.name == "server_name"));
    let Some(named) = named else { return vec![None] };
    let mut hosts = Vec::new();
    for name in &named.words {
        if name == "_" || name.is_empty() || name == "localhost" {
            return vec![None];
        }
        if name.contains(['*', '~']) || name.starts_with('.') {
            draft.lose(
                named.line,
                "server_name",
                "a host is named whole, docs/config.md#route-what-leads-from-one-to-the-other",
            );
        } else {
            hosts.push(Some(name.clone()));
        }
    }
    hosts
}

/// The origin of a `proxy_pass`, how it is called, and the URI behind it.
fn upstream(
    target: &Directive,
    here: &Around<'_>,
    everywhere: &Everywhere<'_>,
    draft: &mut Draft,
) -> Option<(Upstream, Option<String>)> {
    let url = target.word(0);
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let (authority, uri) = match rest.find('/') {
        Some(at) => (&rest[..at], Some(rest[at..].to_owned())),
        None => (rest, None),
    };
    let host_header = here.headers.iter().find(|set| set.word(0).eq_ignore_ascii_case("host")).map(|set| set.word(1));
    let mut name = authority.to_owned();
    if let Some(group) = everywhere.upstreams.get(authority) {
        let servers: Vec<&Directive> = group.inside().iter().filter(|inner| inner.name == "server").collect();
        if servers.len() > 1 {
            lose(draft, group, "upstream (its further servers)", cure_of("balance"));
        }
        for other in
            group.inside().iter().filter(|inner| inner.name != "server" && !HARMLESS.contains(&inner.name.as_str()))
        {
            lose(draft, other, &other.name, cure_of("balance"));
        }
        let address = servers.first().map(|server| server.word(0)).unwrap_or_default();
        let port = address.rsplit_once(':').map_or("443", |(_, port)| port);
        let said = here.single.get("proxy_ssl_name").map(|name| name.word(0)).or(host_header);
        let host =
            said.filter(|said| !said.contains('$')).unwrap_or_else(|| address.split(':').next().unwrap_or_default());
        name = if port == "443" { host.to_owned() } else { format!("{host}:{port}") };
    }
    let base_url = draft.base_url(target.line, "proxy_pass", &format!("{scheme}://{name}"))?;
    if let Some(uri) = uri.as_deref()
        && (uri.contains(['$', '?']) || route_path(uri).is_none())
    {
        draft.lose(
            target.line,
            "proxy_pass",
            "its path depends on a variable or is not plain; this location is left out",
        );
        return None;
    }
    let mut upstream = Upstream::of(base_url);
    for (name, ours) in [
        ("proxy_ssl_certificate", "client_cert"),
        ("proxy_ssl_certificate_key", "client_key"),
        ("proxy_ssl_trusted_certificate", "ca"),
    ] {
        if let Some(found) = here.single.get(name) {
            let path = draft.file(found.line, name, found.word(0));
            upstream.tls.extend(path.map(|path| (ours.to_owned(), path)));
        }
    }
    let name_of_tls = here.single.get("proxy_ssl_name").map(|found| found.word(0));
    if let Some(server_name) =
        name_of_tls.filter(|found| !found.contains('$') && *found != name.split(':').next().unwrap_or_default())
    {
        upstream.tls.insert("server_name".to_owned(), quoted(server_name));
    }
    if here.single.get("proxy_ssl_verify").is_none_or(|verify| verify.word(0) != "on") {
        draft.lose(
            target.line,
            "proxy_ssl_verify",
            "the bank's certificate was not verified; it is now, docs/config.md#providername-whom-we-call",
        );
    }
    for (name, ours) in [("proxy_connect_timeout", "connect"), ("proxy_read_timeout", "response")] {
        let time = here.single.get(name).and_then(|found| duration(found.word(0), SECOND));
        upstream.timeouts.extend(time.map(|time| (ours.to_owned(), quoted(&time))));
    }
    Some((upstream, uri))
}

/// The credential of an `Authorization` header. Its value is looked at for its scheme alone.
fn credential(header: &Directive, everywhere: &Everywhere<'_>, draft: &mut Draft) -> Credential {
    let value = header.word(1);
    let variable = value.split_once('$').map(|(_, name)| format!("${}", name.trim_matches(['{', '}'])));
    let scripted = variable.as_deref().and_then(|name| everywhere.scripted.get(name));
    let passes_on = variable.as_deref().is_some_and(|name| name == "$http_authorization");
    if scripted.is_some() || draft.found_token_url.is_some() && variable.is_some() && !passes_on {
        if let Some(scripted) = scripted {
            lose(
                draft,
                scripted,
                &scripted.name,
                "scripts do not run; the provider gets its tokens itself, docs/providers.md#oauth2",
            );
        }
        let found = draft.found_token_url.clone();
        let token_url = draft.token_url(header.line, "the token endpoint of the script", found.as_deref());
        if token_url != NO_TOKEN_URL {
            draft.lose(
                header.line,
                "client_id and scope of the script",
                "the script has them; set them at the provider, docs/providers.md#oauth2",
            );
        }
        return Credential::Oauth2(ClientCredentials {
            token_url,
            client_id: None,
            secret: SecretPlace::Inline,
            scopes: Vec::new(),
            basic: false,
        });
    }
    let known = ["Bearer", "Basic"]
        .into_iter()
        .find(|scheme| value.to_lowercase().starts_with(&format!("{} ", scheme.to_lowercase())));
    let scheme = known.unwrap_or_default().to_owned();
    draft.lose(
        header.line,
        "proxy_set_header Authorization",
        if passes_on {
            "the application's own credential was passed on; countersign adds one of its own in its place"
        } else {
            "its value looks like a credential and is not copied: set the variable that the config names, or give the bank a profile with a token, docs/providers.md"
        },
    );
    Credential::Static { header: "authorization".to_owned(), scheme, secret: SecretPlace::Inline, line: header.line }
}
