//! `mode = "callback"`: browsers come back here from a consent.

use super::forward;
use super::{ListenerMode, ModeKeys, ModeKind, ReadMode};
use crate::config::listener::served_routes::ServedRoutes;
use crate::config::listener::server_names::ServerNames;

/// A listener with `mode = "callback"`.
#[derive(Debug)]
pub struct CallbackListener {
    /// The hosts it answers to.
    pub names: ServerNames,
}

pub(super) const KIND: ModeKind = ModeKind { word: "callback", keys: &[], offers_h2: true, identifies: false, read };

fn read(keys: ModeKeys<'_>) -> Box<dyn ReadMode> {
    forward::refuse_keys(keys.fields);
    Box::new(ReadCallback { names: keys.names })
}

/// A callback listener as it was read.
struct ReadCallback {
    names: Vec<String>,
}

impl ReadMode for ReadCallback {
    fn receives_callbacks(&self) -> bool {
        true
    }

    fn receives_webhooks(&self) -> bool {
        true
    }

    fn refuses_route(&self, listener: &str, _bare: bool) -> Option<(String, &'static str)> {
        Some((format!("`{listener}` is a callback listener: it serves no routes"), "leave it out"))
    }

    fn without_routes(&self) -> Option<&'static str> {
        None
    }

    fn build_table(&mut self, _listener: usize, _routes: &mut ServedRoutes<'_>) {}

    fn finish(self: Box<Self>) -> Option<ListenerMode> {
        Some(ListenerMode::Callback(CallbackListener { names: ServerNames(self.names) }))
    }
}
