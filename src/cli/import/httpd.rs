//! Reading of Apache httpd: `ProxyPass` with a `RequestHeader` that carries a credential.

use std::collections::BTreeSet;
use std::time::Duration;

use super::credential::{Credential, Upstream};
use super::directive::{Directive, read_httpd_syntax};
use super::draft::{Draft, DraftListener, DraftRoute, SecretPlace, quoted};
use super::kind::IncludedFiles;
use super::words::{cure_of, duration, is_credential_header, proxy_name, route_path, secret_place};

const SECOND: Duration = Duration::from_secs(1);
/// Most headers that are looked at for one route.
const MAX_HEADERS: usize = 200;
/// Most hosts of one route.
const MAX_HOSTS: usize = 100;

/// Directives that say nothing about what becomes of a call, in lower case.
const HARMLESS: &[&str] = &[
    "loadmodule",
    "serverroot",
    "serveradmin",
    "servertokens",
    "serversignature",
    "errorlog",
    "customlog",
    "loglevel",
    "logformat",
    "user",
    "group",
    "pidfile",
    "documentroot",
    "proxyrequests",
    "proxypreservehost",
    "proxypassreverse",
    "proxypassreversecookiedomain",
    "sslengine",
    "sslproxyengine",
    "sslprotocol",
    "sslciphersuite",
    "sslhonorcipherorder",
    "sslproxyprotocol",
    "sslproxycheckpeername",
    "sslproxycheckpeercn",
    "sslproxycheckpeerexpire",
    "sslproxyverify",
    "sslproxyverifydepth",
    "hostnamelookups",
    "keepalive",
    "keepalivetimeout",
    "maxkeepaliverequests",
    "protocols",
    "servername",
    "serveralias",
    "listen",
    "sslcertificatefile",
    "sslcertificatekeyfile",
    "sslcacertificatefile",
    "sslverifyclient",
    "sslverifydepth",
    "sslproxymachinecertificatefile",
    "sslproxycacertificatefile",
    "proxytimeout",
    "proxyremote",
    "requestheader",
    "proxypass",
    "proxyvia",
    "traceenable",
    "define",
    "startservers",
    "maxrequestworkers",
];

/// Tells whether a text looks like httpd's.
pub fn is_httpd(text: &str) -> bool {
    text.lines().map(|line| line.trim().to_ascii_lowercase()).any(|line| {
        line.starts_with("proxypass ")
            || line.starts_with("<virtualhost")
            || line.starts_with("requestheader ")
            || line.starts_with("<location")
    })
}

/// Reads a file and what it includes from its own folder.
pub fn read_httpd(text: &str, files: &dyn IncludedFiles, draft: &mut Draft) -> Result<(), String> {
    let mut left = 64;
    let directives = included(read_httpd_syntax(&draft.file, text)?, files, &mut left, 0, draft)?;
    read_host(&directives, &[], None, draft);
    Ok(())
}

fn included(
    directives: Vec<Directive>,
    files: &dyn IncludedFiles,
    left: &mut usize,
    depth: usize,
    draft: &mut Draft,
) -> Result<Vec<Directive>, String> {
    let mut whole = Vec::new();
    for mut directive in directives {
        if is(&directive, "Include") || is(&directive, "IncludeOptional") {
            match files.read(directive.word(0)) {
                Ok(found) if depth < 8 && found.len() <= *left => {
                    *left -= found.len();
                    for (file, text) in found {
                        let inner = read_httpd_syntax(&file, &text)?;
                        whole.extend(included(inner, files, left, depth + 1, draft)?);
                    }
                }
                Ok(_) => {
                    return Err(format!(
                        "{}, line {}: more included files than are read",
                        directive.file, directive.line
                    ));
                }
                Err(why) => lose(draft, &directive, "Include", &why),
            }
            continue;
        }
        // Conditions on modules are taken to hold.
        if is(&directive, "IfModule") || is(&directive, "IfVersion") {
            whole.extend(included(directive.block.take().unwrap_or_default(), files, left, depth, draft)?);
            continue;
        }
        if let Some(block) = directive.block.take() {
            directive.block = Some(included(block, files, left, depth, draft)?);
        }
        whole.push(directive);
    }
    Ok(whole)
}

fn is(directive: &Directive, name: &str) -> bool {
    directive.name.eq_ignore_ascii_case(name)
}

fn lose(draft: &mut Draft, directive: &Directive, what: &str, cure: &str) {
    let file = std::mem::replace(&mut draft.file, directive.file.clone());
    draft.lose(directive.line, what, cure);
    draft.file = file;
}

/// The nearest directive of a name: in these levels, from the inside.
fn nearest<'a>(levels: &[&'a [Directive]], name: &str) -> Option<&'a Directive> {
    levels.iter().rev().find_map(|level| level.iter().rev().find(|directive| is(directive, name)))
}

fn read_host(directives: &[Directive], outer: &[Directive], section: Option<&Directive>, draft: &mut Draft) {
    let before = draft.routes.len();
    for directive in directives {
        if is(directive, "VirtualHost") {
            read_host(directive.inside(), directives, Some(directive), draft);
        } else if is(directive, "Location") || is(directive, "Proxy") {
            read_location(directive, &[outer, directives], draft);
        } else if is(directive, "ProxyPass") {
            read_pass(
                directive,
                directive.word(0),
                directive.word(1),
                &directive.words[2.min(directive.words.len())..],
                &[outer, directives],
                draft,
            );
        } else if !HARMLESS.contains(&directive.name.to_ascii_lowercase().as_str()) {
            lose(draft, directive, &directive.name.clone(), cure_of(&directive.name));
        }
    }
    if draft.routes.len() > before && !directives.iter().any(|inner| is(inner, "VirtualHost")) {
        listener(&[outer, directives], section, draft);
    }
}

fn listener(levels: &[&[Directive]], section: Option<&Directive>, draft: &mut Draft) {
    let of_section = section.map(|section| (section.word(0), section.line));
    let of_listen = nearest(levels, "Listen").map(|listen| (listen.word(0), listen.line));
    let Some((place, line)) = of_section.filter(|(place, _)| place.contains(':')).or(of_listen) else { return };
    let (address, port) = match place.rsplit_once(':') {
        Some((address, port)) => (address.trim_matches(['[', ']']), port),
        None => ("0.0.0.0", place),
    };
    let address = if address.parse::<std::net::IpAddr>().is_ok() { address } else { "0.0.0.0" };
    let Ok(port) = port.parse::<u16>() else {
        draft.lose(
            line,
            "Listen",
            "only an IP address with a port is carried over, docs/config.md#listener-where-we-listen",
        );
        return;
    };
    let file = |name: &str, draft: &mut Draft| {
        let found = nearest(levels, name)?;
        draft.file(found.line, name, found.word(0)).map(|_| found.word(0).to_owned())
    };
    let tls = file("SSLCertificateFile", draft).zip(file("SSLCertificateKeyFile", draft));
    let verify = nearest(levels, "SSLVerifyClient").map(|found| found.word(0).to_ascii_lowercase()).unwrap_or_default();
    let client_ca =
        if matches!(verify.as_str(), "require" | "optional") { file("SSLCACertificateFile", draft) } else { None };
    draft.listeners.push(DraftListener {
        name: "gateway".to_owned(),
        line,
        address: address.to_owned(),
        port,
        tls,
        client_ca,
        client_optional: verify == "optional",
    });
}

fn read_location(section: &Directive, levels: &[&[Directive]], draft: &mut Draft) {
    let mut inside = levels.to_vec();
    inside.push(section.inside());
    let mut calls = false;
    for directive in section.inside() {
        if is(directive, "ProxyPass") {
            calls = true;
            read_pass(
                directive,
                section.word(0),
                directive.word(0),
                &directive.words[1.min(directive.words.len())..],
                &inside,
                draft,
            );
        } else if is(directive, "LimitExcept") {
            if !(directive.inside().len() == 1
                && is(&directive.inside()[0], "Require")
                && directive.inside()[0].words == ["all", "denied"])
            {
                lose(
                    draft,
                    directive,
                    "LimitExcept",
                    "see methods in docs/config.md#route-what-leads-from-one-to-the-other",
                );
            }
        } else if is(directive, "Require") && directive.words == ["all", "granted"] {
        } else if !HARMLESS.contains(&directive.name.to_ascii_lowercase().as_str()) {
            lose(draft, directive, &directive.name.clone(), cure_of(&directive.name));
        }
    }
    let is_for_others = levels
        .iter()
        .flat_map(|level| level.iter())
        .any(|other| is(other, "ProxyPass") && other.word(0) == section.word(0));
    if !calls && !is_for_others && is(section, "Location") {
        lose(draft, section, "Location", "it calls nobody");
    }
}

fn read_pass(
    pass: &Directive,
    path: &str,
    target: &str,
    options: &[String],
    levels: &[&[Directive]],
    draft: &mut Draft,
) {
    let file = std::mem::replace(&mut draft.file, pass.file.clone());
    pass_on(pass, path, target, options, levels, draft);
    draft.file = file;
}

fn pass_on(pass: &Directive, path: &str, target: &str, options: &[String], levels: &[&[Directive]], draft: &mut Draft) {
    if target == "!" {
        draft.lose(pass.line, "ProxyPass !", "see allow in docs/config.md#route-what-leads-from-one-to-the-other");
        return;
    }
    let Some(plain) = route_path(path) else {
        draft.lose(pass.line, "ProxyPass", cure_of("regex"));
        return;
    };
    // Headers of a Location for the same path count for a ProxyPass beside it.
    let mut levels = levels.to_vec();
    let beside: Vec<&Directive> = levels
        .iter()
        .flat_map(|level| level.iter())
        .filter(|section| {
            is(section, "Location") && section.word(0).trim_end_matches('/') == path.trim_end_matches('/')
        })
        .collect();
    levels.extend(beside.iter().map(|section| section.inside()));
    let headers: Vec<&Directive> = {
        let mut seen = BTreeSet::new();
        let all = levels.iter().flat_map(|level| level.iter()).filter(|directive| is(directive, "RequestHeader"));
        all.filter(|directive| {
            let place: *const Directive = *directive;
            seen.insert(place)
        })
        .take(MAX_HEADERS)
        .collect()
    };
    let set = |directive: &&&Directive| {
        matches!(directive.word(0).to_ascii_lowercase().as_str(), "set" | "add" | "append" | "setifempty")
    };
    let carried = headers.iter().filter(set).find(|directive| is_credential_header(directive.word(1)));
    let Some(header) = carried else {
        draft.lose(pass.line, format!("ProxyPass {}", proxy_name(path)), "no credential is added to its calls; a profile without [token] may, docs/adding-a-provider.md#without-a-token");
        return;
    };
    let Some(full) = draft.base_url(pass.line, "ProxyPass", target) else { return };
    let origin_end = full.get(8..).and_then(|rest| rest.find('/')).map_or(full.len(), |at| at + 8);
    if path.ends_with('/') != target.ends_with('/') && path != "/" {
        draft.lose(pass.line, "ProxyPass (the slash at the end)", "paths are joined by whole segments");
    }
    let mut upstream = Upstream::of(full[..origin_end].to_owned());
    tls(&mut upstream, &levels, draft);
    for option in options {
        let (key, value) = option.split_once('=').unwrap_or((option, ""));
        let ours = match key.to_ascii_lowercase().as_str() {
            "connectiontimeout" => "connect",
            "timeout" => "response",
            "keepalive" | "disablereuse" | "enablereuse" | "retry" | "flushpackets" => continue,
            _ => {
                draft.lose(pass.line, format!("ProxyPass {}", proxy_name(key)), cure_of(key));
                continue;
            }
        };
        upstream.timeouts.extend(duration(value, SECOND).map(|time| (ours.to_owned(), quoted(&time))));
    }
    if let Some(time) = nearest(&levels, "ProxyTimeout").and_then(|found| duration(found.word(0), SECOND)) {
        upstream.timeouts.entry("response".to_owned()).or_insert_with(|| quoted(&time));
    }
    if let Some(remote) = nearest(&levels, "ProxyRemote") {
        let proxy = remote.word(1);
        if remote.word(0) == "*" && proxy.starts_with("http://") && !proxy.contains(['@', '$', '%']) {
            upstream.http_proxy = Some(proxy.trim_end_matches('/').to_owned());
        } else {
            draft.lose(remote.line, "ProxyRemote", "see http_proxy in docs/config.md#providername-whom-we-call");
        }
    }
    let credential = credential(header, draft);
    let provider = draft.provider(&upstream, &credential);
    let mut route = DraftRoute::new(draft, pass.line, "", &provider);
    route.name = if plain == "/" { provider.clone() } else { proxy_name(&plain) };
    route.path = Some(plain);
    route.upstream = Some(full);
    for directive in &headers {
        let (action, name, value) = (directive.word(0).to_ascii_lowercase(), directive.word(1), directive.word(2));
        if std::ptr::eq(*directive, *header) {
            continue;
        }
        if action == "unset" || directive.words.len() > 3 {
            lose(draft, directive, &format!("RequestHeader {action} {name}"), cure_of("header"));
        } else if draft.may_copy_header(directive.line, &format!("RequestHeader {name}"), name, value) {
            route.headers.push((name.to_owned(), value.to_owned()));
        }
    }
    let limit = beside
        .iter()
        .flat_map(|section| section.inside())
        .chain(levels.last().copied().unwrap_or_default())
        .find(|inner| is(inner, "LimitExcept"));
    if let Some(limit) = limit {
        route.methods = limit.words.iter().map(|method| method.to_ascii_uppercase()).collect();
        if route.methods.iter().any(|method| method == "GET") && !route.methods.iter().any(|method| method == "HEAD") {
            route.methods.push("HEAD".to_owned());
        }
    }
    let mut hosts: Vec<Option<String>> = Vec::new();
    if levels.first().is_some_and(|outer| !outer.is_empty()) {
        for name in levels
            .iter()
            .flat_map(|level| level.iter())
            .filter(|inner| is(inner, "ServerName") || is(inner, "ServerAlias"))
        {
            for word in &name.words {
                let host = word.split("://").last().unwrap_or_default().split(':').next().unwrap_or_default();
                if host.contains(['*', '?', '$']) {
                    draft.lose(
                        name.line,
                        "ServerAlias",
                        "a host is named whole, docs/config.md#route-what-leads-from-one-to-the-other",
                    );
                } else if hosts.len() < MAX_HOSTS && !hosts.iter().any(|known| known.as_deref() == Some(host)) {
                    hosts.push(Some(host.to_owned()));
                }
            }
        }
    }
    if hosts.is_empty() {
        hosts.push(None);
    }
    for host in hosts {
        draft.route(DraftRoute { host, ..route.clone() });
    }
}

fn tls(upstream: &mut Upstream, levels: &[&[Directive]], draft: &mut Draft) {
    if let Some(found) = nearest(levels, "SSLProxyMachineCertificateFile") {
        // One file has certificate and key.
        if let Some(path) = draft.file(found.line, "SSLProxyMachineCertificateFile", found.word(0)) {
            upstream.tls.insert("client_cert".to_owned(), path.clone());
            upstream.tls.insert("client_key".to_owned(), path);
        }
    }
    if let Some(found) = nearest(levels, "SSLProxyCACertificateFile") {
        let path = draft.file(found.line, "SSLProxyCACertificateFile", found.word(0));
        upstream.tls.extend(path.map(|path| ("ca".to_owned(), path)));
    }
    for name in ["SSLProxyVerify", "SSLProxyCheckPeerName", "SSLProxyCheckPeerExpire"] {
        let Some(found) = nearest(levels, name) else { continue };
        if matches!(found.word(0).to_ascii_lowercase().as_str(), "none" | "off" | "optional" | "optional_no_ca") {
            lose(
                draft,
                found,
                name,
                "the bank's certificate is always verified, docs/config.md#providername-whom-we-call",
            );
        }
    }
}

/// The credential of a `RequestHeader`. Its value is looked at for its scheme and for a reference to a variable alone.
fn credential(header: &Directive, draft: &mut Draft) -> Credential {
    let value = header.word(2);
    let known = ["Bearer", "Basic"]
        .into_iter()
        .find(|scheme| value.to_lowercase().starts_with(&format!("{} ", scheme.to_lowercase())));
    let rest = known.map_or(value, |scheme| value.get(scheme.len() + 1..).unwrap_or_default());
    let secret = secret_place(rest);
    if secret == SecretPlace::Inline {
        lose(
            draft,
            header,
            &format!("RequestHeader {}", header.word(1)),
            "its value looks like a credential and is not copied: set the variable that the config names, or give the bank a profile with a token, docs/providers.md",
        );
    }
    Credential::Static {
        header: header.word(1).to_owned(),
        scheme: known.unwrap_or_default().to_owned(),
        secret,
        line: header.line,
    }
}
