//! The names in a config, read without its secrets: forward listeners, routed hosts, clients.
//!
//! `exec`, `env` and `ca` run beside the application, or before there is a CA: the banks' secrets and the listeners'
//! keys are missing, or not readable for this user. So these commands do not load the config as a start would. They
//! take names from it and open no file except those that it includes and the profiles that it names. `check` reports
//! whether the config is correct.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::{Table, Value};

use crate::base::origin::BaseUrl;
use crate::cli::config_path;
use crate::config::{Files as _, MachineFiles, sketch, sketched_pack};
use crate::provider::Profile;
use crate::syntax::{Diagnostics, SourceText};

/// The names in a config.
#[derive(Debug, Default)]
pub struct ConfigSketch {
    /// The first `[[listener]]` with `mode = "forward"`.
    pub forward: Option<ForwardSketch>,
    /// Hosts with a route, each once: lower case, IPv6 without brackets.
    pub routed: Vec<String>,
    /// Names of the `[client.NAME]` sections.
    pub clients: Vec<String>,
}

/// A forward listener's address and interception CA.
#[derive(Debug, Eq, PartialEq)]
pub struct ForwardSketch {
    /// URL at which this machine reaches the listener: `http://host:port`, or `https://host:port` with TLS.
    pub url: String,
    /// Path of `intercept.ca_cert`; `None` unless it is written.
    pub ca_cert: Option<PathBuf>,
    /// Path of `intercept.ca_key`; `None` unless one is written.
    pub ca_key: Option<PathBuf>,
}

impl ConfigSketch {
    /// Reads the config file at `path`. The error is for a person.
    pub fn read(path: &Path) -> Result<Self, String> {
        let named = |error| config_path::with_first_config(format!("{error}; name another file with `-c`"), path);
        let table = sketch(path, &MachineFiles).map_err(named)?;
        Ok(Self::of(&table, path.parent().unwrap_or(Path::new(""))))
    }

    /// Relative paths start at `folder`.
    fn of(table: &Table, folder: &Path) -> Self {
        let each =
            |name: &str| table.get(name).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_table);
        let named = |name: &str| table.get(name).and_then(Value::as_table);
        let mut routed: Vec<String> = each("route")
            .filter_map(|route| {
                let upstream = text(route, "upstream").and_then(|url| BaseUrl::parse(url).ok());
                let provider = || named("provider")?.get(text(route, "provider")?)?.as_table();
                upstream.or_else(|| base_url(provider()?, table, folder)).map(|url| url.bare_host().to_owned())
            })
            .collect();
        routed.sort();
        routed.dedup();
        Self {
            forward: each("listener")
                .find(|one| text(one, "mode") == Some("forward"))
                .and_then(|one| forward(one, folder)),
            routed,
            clients: named("client").into_iter().flat_map(Table::keys).cloned().collect(),
        }
    }
}

fn text<'a>(table: &'a Table, key: &str) -> Option<&'a str> {
    table.get(key).and_then(Value::as_str)
}

fn base_url(provider: &Table, config: &Table, folder: &Path) -> Option<BaseUrl> {
    if let Some(url) = text(provider, "base_url") {
        return BaseUrl::parse(url).ok();
    }
    let (profile, environment) = (text(provider, "profile")?, text(provider, "environment")?);
    profile_named(profile, config, folder)?.environment(environment).cloned()
}

/// A built-in profile, one of a pack, or one's own by path.
fn profile_named(name: &str, config: &Table, folder: &Path) -> Option<Arc<Profile>> {
    if !name.contains('/') && !name.ends_with(".toml") {
        return Profile::builtin(name);
    }
    let of_pack =
        name.split_once('/').and_then(|(pack, own)| Some((sketched_pack(config, folder, pack, &MachineFiles)?, own)));
    if let Some((pack, own)) = of_pack {
        return pack.ok()?.profile(own, &Diagnostics::default());
    }
    let text = String::from_utf8(MachineFiles.read(&folder.join(name)).ok()?).ok()?;
    Profile::parse(&SourceText::new(name.to_owned(), text), &Diagnostics::default())
}

fn forward(listener: &Table, folder: &Path) -> Option<ForwardSketch> {
    let (host, port) = text(listener, "bind")?.rsplit_once(':')?;
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let host = match bare.parse::<IpAddr>().ok()? {
        IpAddr::V4(address) if address.is_unspecified() => "127.0.0.1".to_owned(),
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) if address.is_unspecified() => "[::1]".to_owned(),
        IpAddr::V6(address) => format!("[{address}]"),
    };
    let scheme = if listener.contains_key("tls") { "https" } else { "http" };
    let intercept = listener.get("intercept").and_then(Value::as_table);
    let path = |key| Some(folder.join(text(intercept?, key)?));
    let url = format!("{scheme}://{host}:{}", port.parse::<u16>().ok()?);
    Some(ForwardSketch { url, ca_cert: path("ca_cert"), ca_key: path("ca_key") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_and_secrets_are_not_asked_for() {
        let text = r#"
            [[listener]]
            bind = "127.0.0.1:8443"
            tls = { cert = "missing.crt", key = "missing.key" }
            [[listener]]
            mode = "forward"
            bind = "0.0.0.0:3128"
            intercept = { ca_cert = "certs/ca.crt", ca_key = "/etc/ca.key" }
            [provider.scb]
            profile = "scb"
            environment = "sandbox"
            application_secret = { env = "SURELY_NOT_SET" }
            [provider.meed]
            profile = "meed"
            base_url = "https://Partner.example/api"
            client_secret = { file = "/nowhere" }
            [provider.unused]
            base_url = "https://unused.example"
            [[route]]
            provider = "scb"
            [[route]]
            provider = "meed"
            [[route]]
            provider = "meed"
            path = "/x"
            upstream = "https://[::1]:8443"
            [client.erp]
        "#;
        let sketch = ConfigSketch::of(&text.parse().expect("TOML"), Path::new("/etc/countersign"));
        assert_eq!(sketch.routed, ["::1", "api-sandbox.partners.scb", "partner.example"]);
        assert_eq!(sketch.clients, ["erp"]);
        let (ca_cert, ca_key) = (Some("/etc/countersign/certs/ca.crt".into()), Some("/etc/ca.key".into()));
        assert_eq!(sketch.forward, Some(ForwardSketch { url: "http://127.0.0.1:3128".to_owned(), ca_cert, ca_key }));
        let remote = text.replace("\"/etc/ca.key\"", "{ pkcs11 = {} }").parse().expect("TOML");
        let forward = ConfigSketch::of(&remote, Path::new("/etc")).forward.expect("a forward listener");
        assert_eq!((forward.ca_cert, forward.ca_key), (Some("/etc/certs/ca.crt".into()), None));
    }

    #[test]
    fn what_is_not_a_config_names_nothing() {
        let wrong = "route = 1\nlistener = [1]\nclient = []\nprovider = \"x\"";
        let sketch = ConfigSketch::of(&wrong.parse().expect("TOML"), Path::new(""));
        assert!(sketch.forward.is_none() && sketch.routed.is_empty() && sketch.clients.is_empty());
    }
}
