//! `[provider.NAME.consent]`: how users consent.

use std::sync::Arc;
use std::time::Duration;

use crate::provider::{ConsentWiring, Module, Profile};
use crate::route::Opens;
use crate::syntax::{Diagnostics, Fields, Node};
use crate::token::consent::{ReturnRule, Upkeep};

use super::provider::url;
use super::schema::{DURATION, MAY, MUST, SchemaSection, SchemaShape};
use super::spanned_text::{Position, SpannedText};

/// Settings of the `[provider.NAME.consent]` section.
#[derive(Debug)]
pub struct ConsentSettings {
    /// Module of users' consents and of their calls.
    pub module: Arc<Module>,
    /// Rules for the URLs to which a browser may be sent in the end.
    pub return_to: Vec<ReturnRule>,
    /// When users' tokens are renewed.
    pub upkeep: Upkeep,
    /// Clients that may start a consent: those that may call for users somewhere.
    pub opens: Opens,
}

pub(super) const KEYS: SchemaSection = (
    "consent",
    &[
        ("authorize_url", SchemaShape::Url, MAY, "where users agree, where the profile cannot know it"),
        ("keep_alive", DURATION, MAY, "refresh tokens are kept alive this long after a user's last call; 12h"),
        ("par_url", SchemaShape::Url, MAY, "where authorization requests are pushed, where the profile cannot know it"),
        ("params", SchemaShape::Settings, MAY, "parameters of the authorize request, as the profile names them"),
        ("public_url", SchemaShape::Url, MUST, "how browsers reach the callback listener"),
        ("return_to", SchemaShape::Texts, MAY, "where browsers may be sent in the end, as in https://app.example/*"),
    ],
);

/// `[provider.NAME.consent]` as it was read.
pub(super) struct ReadConsent {
    pub(super) wiring: ConsentWiring,
    pub(super) return_to: Vec<ReturnRule>,
    pub(super) keep_alive: Duration,
}

/// Users' refresh tokens are kept alive for so long after their last call.
const KEEP_ALIVE: Duration = Duration::from_secs(12 * 3600);

/// Reads `[provider.NAME.consent]`; `None` without a usable `public_url` and `params`.
pub(super) fn read(node: &Node, profile: Option<&Arc<Profile>>, report: &Diagnostics) -> Option<ReadConsent> {
    let fields = Fields::new(node, "[provider.NAME.consent]", report);
    let public_url =
        fields.req::<SpannedText>("public_url", "\"https://app.example\"").and_then(|word| url(&word, report));
    let authorize_url = fields.opt::<SpannedText>("authorize_url").and_then(|word| url(&word, report));
    let par_url = fields.opt::<SpannedText>("par_url").and_then(|word| url(&word, report));
    let keep_alive = fields.or("keep_alive", KEEP_ALIVE);
    let mut return_to = Vec::new();
    for word in fields.opt::<Vec<SpannedText>>("return_to").unwrap_or_default() {
        match ReturnRule::parse(&word.text) {
            Ok(rule) => return_to.push(rule),
            Err(error) => {
                let title = format!("`{}` is no place for browsers: {error}", word.text);
                word.place.error(report, title, "write it as in `https://app.example/*`");
            }
        }
    }
    let params = match profile {
        Some(profile) if profile.knows_users() => profile.read_consent_params(fields.take("params"), report),
        Some(profile) => {
            let title = format!("the profile `{}` knows no users", profile.name());
            Position::head(node).error(report, title, "remove `consent`");
            fields.accept_rest();
            None
        }
        None => {
            fields.accept_rest();
            None
        }
    };
    fields.finish();
    let wiring = ConsentWiring { public_url: public_url?, authorize_url, par_url, params: params? };
    Some(ReadConsent { wiring, return_to, keep_alive })
}
