//! The text of `proxy.toml` for what an import has gathered.

use std::fmt::Write as _;

use super::draft::{Draft, DraftClient, DraftListener, DraftRoute, Names, quoted, shown};
use super::words::name_of_host;

/// The client of those who call from this machine, where the source does not say who may call.
const LOCAL: &str = "local";

impl Draft {
    /// Completes what a config must have, and takes out what it could not.
    pub fn finish(&mut self) {
        self.settle_listeners();
        self.settle_routes();
        if self.clients.is_empty() {
            let networks = vec!["127.0.0.0/8".to_owned(), "::1/128".to_owned()];
            self.clients.push(DraftClient { name: LOCAL.to_owned(), networks, ..DraftClient::default() });
        }
        let everyone: Vec<String> = self.clients.iter().map(|client| client.name.clone()).collect();
        for route in &mut self.routes {
            if route.clients.is_empty() {
                route.clients.clone_from(&everyone);
            }
        }
    }

    fn settle_listeners(&mut self) {
        if self.listeners.is_empty() {
            self.listeners.push(DraftListener {
                name: "gateway".to_owned(),
                address: "127.0.0.1".to_owned(),
                port: 8080,
                ..DraftListener::default()
            });
        }
        let (mut kept, mut names): (Vec<DraftListener>, Names) = Default::default();
        for mut listener in std::mem::take(&mut self.listeners) {
            if kept.iter().any(|other| other.port == listener.port) {
                self.lose(
                    listener.line,
                    "listener",
                    "another one has this port; docs/config.md#listener-where-we-listen",
                );
                continue;
            }
            let is_local = listener.address.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback());
            if !is_local && listener.tls.is_none() {
                let what = format!("the address of the listener on port {}", listener.port);
                self.lose(listener.line, what, "without TLS only this machine is listened to; add `tls`, or plaintext = \"allowed\", docs/config.md#listener-where-we-listen");
                "127.0.0.1".clone_into(&mut listener.address);
            } else if !is_local && self.clients.is_empty() && listener.client_ca.is_none() {
                let what = format!("callers of the listener on port {}", listener.port);
                self.lose(
                    listener.line,
                    what,
                    "the source does not say who may call, so only this machine may; docs/identity.md",
                );
            } else if listener.client_ca.is_some() && self.clients.is_empty() {
                let what = format!("callers of the listener on port {}", listener.port);
                self.lose(listener.line, what, "name the certificate of each client, docs/identity.md#certificates");
            }
            listener.name = names.take(&listener.name);
            kept.push(listener);
        }
        self.listeners = kept;
    }

    /// Joins routes that differ in what they allow alone; of two that mean the same request, the first stays.
    fn settle_routes(&mut self) {
        let (mut kept, mut limited): (Vec<DraftRoute>, Vec<(String, usize, String)>) = Default::default();
        for route in std::mem::take(&mut self.routes) {
            let rival = kept.iter_mut().find(|other| {
                let disjoint = !route.methods.is_empty()
                    && !other.methods.is_empty()
                    && route.methods.iter().all(|method| !other.methods.contains(method));
                other.host == route.host && other.path == route.path && !disjoint
            });
            match rival {
                None => kept.push(route),
                Some(other) if other.joins(&route) => {
                    if other.rate_limit.is_some() || route.rate_limit.is_some() {
                        limited.push((route.file.clone(), route.line, route.name.clone()));
                    }
                    if other.allow.is_empty() || route.allow.is_empty() {
                        other.allow.clear();
                    } else {
                        let new =
                            route.allow.iter().filter(|line| !other.allow.contains(line)).cloned().collect::<Vec<_>>();
                        other.allow.extend(new);
                    }
                }
                Some(_) => {
                    let file = std::mem::replace(&mut self.file, route.file.clone());
                    let what = format!("route {}", route.name);
                    self.lose(route.line, what, "an earlier route has the same host and path; docs/config.md#route-what-leads-from-one-to-the-other");
                    self.file = file;
                }
            }
        }
        for (file, line, name) in limited {
            let file = std::mem::replace(&mut self.file, file);
            self.lose(line, format!("rate limit of route {name}"), "it is one route with an earlier one, whose limit counts for both; docs/config.md#route-what-leads-from-one-to-the-other");
            self.file = file;
        }
        let mut names = Names::default();
        for route in &mut kept {
            route.name = names.take(&route.name);
            if let Some(provider) = self.providers.iter().find(|provider| provider.name == route.provider)
                && route.upstream.as_ref() == Some(&provider.base_url)
            {
                route.upstream = None;
            }
        }
        self.routes = kept;
    }

    /// The whole text of the config. `origins`: what it was made of.
    pub fn config_text(&self, origins: &str) -> String {
        let mut text = format!(
            "# Made by `countersign import` of {}.\n# All keys are explained in docs/config.md.\n",
            shown(origins)
        );
        if !self.losses.is_empty() {
            let _ = writeln!(text, "#\n# NOT CARRIED OVER. Decide about each of these, then remove this list:");
            for loss in &self.losses {
                let _ = writeln!(text, "#   {}", shown_line(&loss.line()));
            }
        }
        for listener in &self.listeners {
            listener_text(&mut text, listener);
        }
        for provider in &self.providers {
            let _ = writeln!(text, "\n[provider.{}]", provider.name);
            let mut lines = vec![
                ("profile".to_owned(), quoted(&provider.profile), String::new()),
                ("base_url".to_owned(), quoted(&provider.base_url), String::new()),
            ];
            lines.extend(provider.lines.iter().cloned());
            for (key, table) in [("tls", &provider.tls), ("timeouts", &provider.timeouts)] {
                if !table.is_empty() {
                    let pairs: Vec<String> = table.iter().map(|(key, value)| format!("{key} = {value}")).collect();
                    lines.push((key.to_owned(), format!("{{ {} }}", pairs.join(", ")), String::new()));
                }
            }
            aligned(&mut text, &lines);
        }
        for route in &self.routes {
            text.push_str("\n[[route]]\n");
            aligned(&mut text, &route.lines());
        }
        for client in &self.clients {
            let _ = writeln!(text, "\n[client.{}]", client.name);
            let mut lines = Vec::new();
            if !client.key_sha256.is_empty() {
                lines.push(("key_sha256".to_owned(), list(&client.key_sha256), String::new()));
            }
            if !client.networks.is_empty() {
                lines.push(("networks".to_owned(), list(&client.networks), String::new()));
            }
            if client.key_sha256.is_empty() {
                lines.push(("networks_only".to_owned(), "true".to_owned(), String::new()));
            }
            aligned(&mut text, &lines);
        }
        text
    }
}

/// Losses may be longer than a word, but stay on one line.
fn shown_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn listener_text(text: &mut String, listener: &DraftListener) {
    let _ = writeln!(text, "\n[[listener]]\nname = {}", quoted(&listener.name));
    let address =
        if listener.address.contains(':') { format!("[{}]", listener.address) } else { listener.address.clone() };
    let _ = writeln!(text, "bind = {}", quoted(&format!("{address}:{}", listener.port)));
    if let Some((cert, key)) = &listener.tls {
        let mut parts = format!("cert = {}, key = {}", quoted(cert), quoted(key));
        if let Some(ca) = &listener.client_ca {
            let _ = write!(parts, ", client_ca = {}", quoted(ca));
            if listener.client_optional {
                parts.push_str(", client_auth = \"optional\"");
            }
        }
        let _ = writeln!(text, "tls  = {{ {parts} }}");
    }
}

fn aligned(text: &mut String, lines: &[(String, String, String)]) {
    let width = lines.iter().map(|(key, ..)| key.len()).max().unwrap_or_default();
    for (key, value, remark) in lines {
        let _ = write!(text, "{key:<width$} = {value}");
        if !remark.is_empty() {
            let _ = write!(text, "    # {}", shown(remark));
        }
        text.push('\n');
    }
}

fn list(words: &[String]) -> String {
    format!("[{}]", words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(", "))
}

impl DraftRoute {
    /// A route of this provider at a line of a file.
    pub fn new(draft: &Draft, line: usize, name: &str, provider: &str) -> Self {
        let name = if name.is_empty() { name_of_host(provider) } else { super::words::proxy_name(name) };
        Self { name, file: draft.file.clone(), line, provider: provider.to_owned(), strip: true, ..Self::default() }
    }

    /// True if both are one route but for what they allow.
    fn joins(&self, other: &Self) -> bool {
        let bare = |route: &Self| Self {
            name: String::new(),
            line: 0,
            file: String::new(),
            allow: Vec::new(),
            rate_limit: None,
            ..route.clone()
        };
        bare(self) == bare(other)
    }

    fn lines(&self) -> Vec<(String, String, String)> {
        let mut lines = vec![("name".to_owned(), quoted(&self.name), format!("{}, line {}", self.file, self.line))];
        let mut add = |key: &str, value: String| lines.push((key.to_owned(), value, String::new()));
        if let Some(host) = &self.host {
            add("host", quoted(host));
        }
        if let Some(path) = &self.path {
            add("path", quoted(path));
        }
        if !self.methods.is_empty() {
            add("methods", list(&self.methods));
        }
        add("provider", quoted(&self.provider));
        add("clients", list(&self.clients));
        if !self.strip && self.path.as_deref().is_some_and(|path| path != "/") {
            add("strip", "false".to_owned());
        }
        if let Some(upstream) = &self.upstream {
            add("upstream", quoted(upstream));
        }
        if !self.allow.is_empty() {
            add("allow", list(&self.allow));
        }
        if !self.headers.is_empty() {
            let pairs: Vec<String> =
                self.headers.iter().map(|(name, value)| format!("{name} = {}", quoted(value))).collect();
            add("headers", format!("{{ {} }}", pairs.join(", ")));
        }
        if let Some((requests, per)) = &self.rate_limit {
            add("rate_limit", format!("{{ requests = {requests}, per = {} }}", quoted(per)));
        }
        if let Some(response) = &self.response_timeout {
            add("timeouts", format!("{{ response = {} }}", quoted(response)));
        }
        lines
    }
}
