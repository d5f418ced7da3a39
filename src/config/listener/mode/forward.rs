//! `mode = "forward"`: the listener is the proxy that clients are told of.

use std::sync::Arc;

use super::{ListenerMode, ModeKeys, ModeKind, ReadMode};
use crate::base::origin::BaseUrl;
use crate::config::listener::served_routes::ServedRoutes;
use crate::config::reader::Reader;
use crate::config::schema::{MAY, MUST, SchemaKey, SchemaShape};
use crate::config::service_key;
use crate::config::spanned_text::{Position, SpannedText, choice};
use crate::route::{ForwardTable, RouteConflict, RouteRule};
use crate::syntax::{Diagnostics, Fields, Node};
use crate::tls::Interception;
use crate::tls::mint::{AUTHORITY_ALGORITHMS, CaError, MintAuthority};

/// A listener with `mode = "forward"`.
#[derive(Debug)]
pub struct ForwardListener {
    /// The routes that it serves, by their upstreams.
    pub table: ForwardTable,
    /// Settings for the connections inside the tunnels that it intercepts.
    pub interception: Interception,
    /// True if a CONNECT to a host without a route is passed through, subject to the guard.
    pub tunnels: bool,
}

pub(super) const KIND: ModeKind = ModeKind { word: "forward", keys: &KEYS, offers_h2: false, identifies: true, read };

const KEYS: [SchemaKey; 2] = [
    ("intercept", SchemaShape::Table("intercept"), MAY, "the CA that clients of a forward listener trust"),
    (
        "unmatched",
        SchemaShape::Choice(&["deny", "tunnel"]),
        MAY,
        "what a forward listener does with a CONNECT to a host without a route; deny",
    ),
];

/// The keys of `intercept`, for the schema.
pub(in crate::config) const INTERCEPT_KEYS: [SchemaKey; 2] = [
    ("ca_cert", SchemaShape::Text, MUST, "path of the interception CA's certificate, PEM"),
    ("ca_key", SchemaShape::TextOr("service_key"), MUST, "path of its private key, PEM, or a key of a key service"),
];

/// Reports keys that only a forward listener may have, in a listener of another mode.
pub(super) fn refuse_keys(fields: &Fields<'_>) {
    let is_unread = super::is_unread(fields);
    for (key, ..) in KEYS {
        if let Some(node) = fields.take(key).filter(|_| !is_unread) {
            let help = "add `mode = \"forward\"`, or remove it";
            Position::of(node).error(fields.report(), format!("`{key}` is for forward listeners"), help);
        }
    }
}

fn read(keys: ModeKeys<'_>) -> Box<dyn ReadMode> {
    let ModeKeys { fields, node, reader, .. } = keys;
    let report = fields.report();
    if let Some(node) = fields.take("names") {
        let help = "a forward listener answers to the hosts of its routes; remove it";
        Position::of(node).error(report, "`names` is for reverse listeners", help);
    }
    let tunnels = choice(fields, "unmatched", &[("deny", false), ("tunnel", true)]).unwrap_or(false);
    let Some(own) = fields.take("intercept") else {
        fields.missing("intercept", "{ ca_cert = \"certs/ca.crt\", ca_key = \"certs/ca.key\" }");
        return Box::new(ReadForward { authority: None, position: Position::head(node), tunnels, table: None });
    };
    let table = Fields::new(own, "intercept of [[listener]]", report);
    let cert = table.req::<SpannedText>("ca_cert", "\"certs/ca.crt\"");
    let authority = match table.take("ca_key") {
        Some(key) if key.as_table().is_some() => cert.and_then(|cert| remote_authority(&cert, key, reader)),
        Some(_) | None => {
            let key = table.req::<SpannedText>("ca_key", "\"certs/ca.key\"");
            cert.zip(key).and_then(|(cert, key)| authority(&cert, &key, reader))
        }
    };
    table.finish();
    Box::new(ReadForward { authority, position: Position::of(own), tunnels, table: None })
}

/// The interception CA, from two files.
fn authority(cert: &SpannedText, key: &SpannedText, reader: &Reader<'_>) -> Option<MintAuthority> {
    let (chain, private) = (reader.public_file(cert), reader.private_file(key));
    match MintAuthority::from_pem(&chain?, &private?) {
        Ok(authority) => Some(authority),
        Err(error) => {
            let help = "`countersign ca new` makes a pair that fits";
            cert.place.error(reader.report, format!("`{}` and `{}`: {error}", cert.text, key.text), help);
            None
        }
    }
}

/// The interception CA, from a file and a key service.
fn remote_authority(cert: &SpannedText, key: &Node, reader: &Reader<'_>) -> Option<MintAuthority> {
    let chain = reader.public_file(cert);
    let (kind, node) = service_key::place_of_key(key, "ca_key", reader)?;
    let key = service_key::read_any(kind, node, &AUTHORITY_ALGORITHMS, reader)?;
    let algorithm = key.algorithms.first().copied()?;
    match MintAuthority::elsewhere(&chain?, key.signer, algorithm) {
        Ok(authority) => Some(authority),
        Err(CaError::ForeignKey) => {
            let title = format!("the key of the key service does not belong to the certificate in `{}`", cert.text);
            Position::of(node).error(reader.report, title, "name the key that the CA's certificate was made for");
            None
        }
        Err(error) => {
            let help = "it must hold the CA, as PEM, and behind it those that issued it";
            cert.place.error(reader.report, format!("`{}`: {error}", cert.text), help);
            None
        }
    }
}

/// A forward listener as it was read.
struct ReadForward {
    /// The CA that it intercepts with.
    authority: Option<MintAuthority>,
    /// Position for messages about that CA.
    position: Position,
    tunnels: bool,
    table: Option<ForwardTable>,
}

impl ReadMode for ReadForward {
    fn receives_callbacks(&self) -> bool {
        false
    }

    fn receives_webhooks(&self) -> bool {
        false
    }

    fn refuses_route(&self, _listener: &str, _bare: bool) -> Option<(String, &'static str)> {
        None
    }

    fn without_routes(&self) -> Option<&'static str> {
        Some("refused")
    }

    fn build_table(&mut self, listener: usize, routes: &mut ServedRoutes<'_>) {
        let rules = routes.on(listener).filter_map(|route| route.upstream.cloned().zip(route.rule.clone()));
        match ForwardTable::build(rules.chain(token_places(routes, listener))) {
            Ok(table) => {
                self.judge_authority(&table, routes.report);
                self.table = Some(table);
            }
            Err(conflicts) => {
                for conflict in conflicts {
                    match conflict {
                        RouteConflict::Clash(clash) => {
                            let help = "in forward mode the upstream decides: give them different upstreams, methods, \
                                        listeners or clients";
                            routes.report_clash(clash, help);
                        }
                        RouteConflict::Unnameable(route, why) => routes.note_unnameable(route, why),
                    }
                }
            }
        }
    }

    fn finish(self: Box<Self>) -> Option<ListenerMode> {
        let interception = Interception::new(self.authority?).ok()?;
        Some(ListenerMode::Forward(Box::new(ForwardListener {
            table: self.table?,
            interception,
            tunnels: self.tunnels,
        })))
    }
}

impl ReadForward {
    /// Every host that is to be intercepted must be one that the CA may vouch for.
    fn judge_authority(&self, table: &ForwardTable, report: &Diagnostics) {
        let Some(authority) = &self.authority else { return };
        let mut outside: Vec<String> = table
            .origins()
            .map(|origin| origin.host().to_string())
            .filter(|host| !authority.permits(host.trim_start_matches('[').trim_end_matches(']')))
            .collect();
        outside.sort();
        outside.dedup();
        for host in outside {
            let title = format!(
                "the CA may not vouch for `{host}`, to which a route leads (it may for {})",
                authority.constraints()
            );
            let help = "make one that may with `countersign ca new`, and have clients trust it";
            self.position.error(report, title, help);
        }
    }
}

/// The token endpoints that the routes of a forward listener answer themselves, each once and for whom any of them is.
fn token_places(routes: &ServedRoutes<'_>, listener: usize) -> Vec<(BaseUrl, Arc<RouteRule>)> {
    let mut places: Vec<(BaseUrl, RouteRule)> = Vec::new();
    for (url, rule) in routes.on(listener).filter_map(|route| route.token_place.clone()) {
        match places.iter_mut().find(|(known, _)| known.to_string() == url.to_string()) {
            Some((_, known)) => known.opens = known.opens.joined(&rule.opens),
            None => places.push((url, rule)),
        }
    }
    places.into_iter().map(|(url, rule)| (url, Arc::new(rule))).collect()
}
