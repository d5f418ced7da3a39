//! `mode = "reverse"`: the listener stands in the provider's place.

use super::forward;
use super::{ListenerMode, ModeKeys, ModeKind, ReadMode};
use crate::config::listener::served_routes::ServedRoutes;
use crate::config::listener::server_names::ServerNames;
use crate::route::RouteTable;

/// A listener with `mode = "reverse"`.
#[derive(Debug)]
pub struct ReverseListener {
    /// The hosts it answers to.
    pub names: ServerNames,
    /// The routes that it serves.
    pub table: RouteTable,
}

pub(super) const KIND: ModeKind = ModeKind { word: "reverse", keys: &[], offers_h2: true, identifies: true, read };

fn read(keys: ModeKeys<'_>) -> Box<dyn ReadMode> {
    forward::refuse_keys(keys.fields);
    Box::new(ReadReverse { names: keys.names, table: None })
}

/// A reverse listener as it was read.
struct ReadReverse {
    names: Vec<String>,
    table: Option<RouteTable>,
}

impl ReadMode for ReadReverse {
    fn receives_callbacks(&self) -> bool {
        false
    }

    fn receives_webhooks(&self) -> bool {
        true
    }

    fn refuses_route(&self, listener: &str, bare: bool) -> Option<(String, &'static str)> {
        let title = || format!("`{listener}` is a reverse listener, and the route has no `path` and no `host`");
        bare.then(|| (title(), "add `path = \"/bank\"`, or leave this listener out"))
    }

    fn without_routes(&self) -> Option<&'static str> {
        Some("answered with 404")
    }

    fn build_table(&mut self, listener: usize, routes: &mut ServedRoutes<'_>) {
        match RouteTable::build(routes.on(listener).filter_map(|route| route.rule.clone())) {
            Ok(table) => self.table = Some(table),
            Err(clashes) => {
                let help = "give them different paths, hosts, methods, listeners or clients";
                clashes.into_iter().for_each(|clash| routes.report_clash(clash, help));
            }
        }
    }

    fn finish(self: Box<Self>) -> Option<ListenerMode> {
        Some(ListenerMode::Reverse(ReverseListener { names: ServerNames(self.names), table: self.table? }))
    }
}
