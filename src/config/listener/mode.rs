//! The modes of listeners, each in a file of its own.
//!
//! A mode is read in three steps: its keys, its route table once all routes are read, and the finished settings once the
//! whole config is correct.

mod callback;
mod forward;
mod reverse;

use super::served_routes::ServedRoutes;
use crate::config::reader::Reader;
use crate::config::schema::{MAY, SchemaKey, SchemaShape};
use crate::route::RouteRule;
use crate::syntax::{Fields, Node};

pub use callback::CallbackListener;
pub use forward::ForwardListener;
pub use reverse::ReverseListener;

pub(in crate::config) use forward::INTERCEPT_KEYS;

/// The mode of a listener: its treatment of requests.
#[derive(Debug)]
pub enum ListenerMode {
    /// Browsers come back to it from a consent, and providers call its webhooks; nothing else is there.
    Callback(CallbackListener),
    /// It is the proxy that a client is told of: requests name the provider itself.
    Forward(Box<ForwardListener>),
    /// It stands in the provider's place: requests are routed by host and path.
    Reverse(ReverseListener),
}

impl ListenerMode {
    /// The settings of a callback listener; `None` for other modes.
    pub fn callback(&self) -> Option<&CallbackListener> {
        if let Self::Callback(callback) = self { Some(callback) } else { None }
    }

    /// The settings of a forward listener; `None` for other modes.
    pub fn forward(&self) -> Option<&ForwardListener> {
        if let Self::Forward(forward) = self { Some(forward) } else { None }
    }

    /// The settings of a reverse listener; `None` for other modes.
    pub fn reverse(&self) -> Option<&ReverseListener> {
        if let Self::Reverse(reverse) = self { Some(reverse) } else { None }
    }

    /// The word for it in the config.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Callback(_) => callback::KIND.word,
            Self::Forward(_) => forward::KIND.word,
            Self::Reverse(_) => reverse::KIND.word,
        }
    }

    /// The rules of the routes that it serves, in no order.
    pub fn rules(&self) -> Vec<&RouteRule> {
        match self {
            Self::Callback(_) => Vec::new(),
            Self::Forward(forward) => forward.table.rules(),
            Self::Reverse(reverse) => reverse.table.rules(),
        }
    }

    /// Returns whether host and path of a request choose its route.
    pub const fn routes_by_path(&self) -> bool {
        match self {
            Self::Callback(_) | Self::Forward(_) => false,
            Self::Reverse(_) => true,
        }
    }
}

/// The words of `mode`.
const WORDS: [&str; 3] = [callback::KIND.word, forward::KIND.word, reverse::KIND.word];

/// All modes, in the order of their words.
pub(in crate::config) const MODES: [ModeKind; WORDS.len()] = [callback::KIND, forward::KIND, reverse::KIND];

/// The mode of a listener without the key `mode`.
pub(super) const DEFAULT: ModeKind = reverse::KIND;

/// Returns whether `mode` is misspelt, or none of the words: the keys of a listener say nothing wrong then.
pub(super) fn is_unread(fields: &Fields<'_>) -> bool {
    let is_unknown = |node: &Node| node.as_str().is_none_or(|word| !WORDS.contains(&word));
    fields.is_misspelt("mode") || fields.take("mode").is_some_and(is_unknown)
}

/// The key `mode` in the schema.
pub(super) const KEY: SchemaKey = (
    "mode",
    SchemaShape::Choice(&WORDS),
    MAY,
    "reverse: routed by host and path; forward: a proxy that clients are told of; callback: consents and webhooks alone",
);

/// The part of a mode that is the same for all its listeners.
#[derive(Clone, Copy)]
pub(in crate::config) struct ModeKind {
    /// The word for it in the config.
    pub(super) word: &'static str,
    /// The keys of `[[listener]]` that only this mode has, for the schema.
    pub(in crate::config) keys: &'static [SchemaKey],
    /// True if TLS offers HTTP/2.
    pub(super) offers_h2: bool,
    /// True if its callers are identified, so that it may have `clients`.
    pub(super) identifies: bool,
    /// Reads the keys that depend on the mode.
    pub(super) read: fn(ModeKeys<'_>) -> Box<dyn ReadMode>,
}

/// The input of [`ModeKind::read`].
pub(super) struct ModeKeys<'a> {
    pub(super) fields: &'a Fields<'a>,
    pub(super) node: &'a Node,
    /// The hosts in `names`.
    pub(super) names: Vec<String>,
    pub(super) reader: &'a Reader<'a>,
}

/// The mode of a listener as it was read; what could not be read is absent and was reported.
pub(in crate::config) trait ReadMode {
    /// Returns whether browsers come back here from a consent.
    fn receives_callbacks(&self) -> bool;

    /// Returns whether providers may call webhooks here.
    fn receives_webhooks(&self) -> bool;

    /// Returns why a route cannot be served on this listener, and what to do; `None` if it can. `bare`: the route has no
    /// path and no host.
    fn refuses_route(&self, listener: &str, bare: bool) -> Option<(String, &'static str)>;

    /// Says what becomes of requests without a route; `None` if the mode serves no routes at all.
    fn without_routes(&self) -> Option<&'static str>;

    /// Builds the table of the routes that the listener at this index serves. Conflicts are reported.
    fn build_table(&mut self, listener: usize, routes: &mut ServedRoutes<'_>);

    /// Returns the settings, with the table that was built; `None` if something was reported.
    fn finish(self: Box<Self>) -> Option<ListenerMode>;
}
