//! The configs that replicas of a run have: two realms of the same providers, with two secrets each.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use crate::config::{InMemory, ProviderConfig, Route, Snapshot, build};

/// The providers, each by the name of its route as well. All of them have applications' tokens.
pub(super) const PROVIDERS: [&str; 3] = ["many", "scb", "single"];
/// Names of the providers that have users.
pub(super) const WITH_USERS: [&str; 2] = ["many", "scb"];
/// A whole token call, in milliseconds.
pub(super) const TOKEN_TIMEOUT: u64 = 3_000;

/// A profile whose new token kills the old one.
const SINGLE: &str = "name = \"single\"\nextends = \"oauth2\"\n[token]\ncoexistence = \"single\"\n";

/// All configs: realm `a` with secret 0, realm `a` with secret 1, realm `b` with both.
static SNAPSHOTS: LazyLock<Vec<Arc<Snapshot>>> =
    LazyLock::new(|| EACH.iter().map(|(realm, secret)| read(realm, *secret)).collect());
/// Realm and secret number of each config.
const EACH: [(&str, u64); 4] = [("a", 0), ("a", 1), ("b", 0), ("b", 1)];

/// Returns the config with this number, modulo the number of configs.
pub(super) fn snapshot(number: usize) -> Arc<Snapshot> {
    SNAPSHOTS[number % SNAPSHOTS.len()].clone()
}

/// The number of a config's secret.
pub(super) fn secret(number: usize) -> u64 {
    EACH[number % EACH.len()].1
}

pub(super) fn provider<'a>(snapshot: &'a Snapshot, name: &str) -> &'a Arc<ProviderConfig> {
    snapshot.providers.iter().find(|provider| *provider.name == *name).expect("a provider of ours")
}

pub(super) fn route<'a>(snapshot: &'a Snapshot, name: &str) -> &'a Arc<Route> {
    snapshot.routes.iter().find(|route| *route.name == *name).expect("a route of ours")
}

fn read(realm: &str, secret: u64) -> Arc<Snapshot> {
    let common = format!("refresh_before = \"10s\"\ntimeouts = {{ token = \"{TOKEN_TIMEOUT}ms\" }}\n");
    let mut text = "[[listener]]\nbind = \"127.0.0.1:0\"\nclients = \"anyone\"\n".to_owned();
    for (name, profile) in [("many", "oauth2"), ("scb", "scb"), ("single", "./single.toml")] {
        let host = format!("https://{name}-{realm}.example");
        text += &format!("[provider.{name}]\nprofile = \"{profile}\"\nbase_url = \"{host}\"\n{common}");
        text += match name {
            "scb" => "application_key = \"key\"\napplication_secret = { env = \"SECRET\" }\n",
            _ => "client_id = \"key\"\nclient_secret = { env = \"SECRET\" }\n",
        };
        if name != "scb" {
            text += &format!("token_url = \"{host}/token\"\n");
        }
        if WITH_USERS.contains(&name) {
            text += &format!("[provider.{name}.consent]\npublic_url = \"https://app.example\"\n");
        }
        if name == "many" {
            text += &format!("authorize_url = \"{host}/authorize\"\n");
        }
        text += &format!("[[route]]\nname = \"{name}\"\npath = \"/{name}\"\nprovider = \"{name}\"\n");
    }
    let files = InMemory::new().with_file("/single.toml", SINGLE).with_env("SECRET", format!("secret-{secret}"));
    let (snapshot, found) = build(Path::new("/proxy.toml"), text, &files);
    Arc::new(snapshot.unwrap_or_else(|| panic!("the simulation's config is wrong: {found:?}")))
}
