//! `names`: the hosts that a listener answers to.

use std::net::IpAddr;

use crate::config::credentials::is_host_name;
use crate::config::spanned_text::{Position, SpannedText};
use crate::syntax::Fields;

/// The only hosts that a listener answers to, in lower case, without ports; none: any.
#[derive(Debug, Default)]
pub struct ServerNames(pub Vec<String>);

impl ServerNames {
    /// Returns whether requests for this host belong to the listener. A port is ignored; a request without a host
    /// belongs to it only if any host does.
    pub fn include(&self, host: Option<&str>) -> bool {
        let Self(names) = self;
        if names.is_empty() {
            return true;
        }
        let Some(host) = host else { return false };
        let bare = match host.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or_default(),
            None => host.split(':').next().unwrap_or_default(),
        };
        names.iter().any(|name| name.eq_ignore_ascii_case(bare))
    }
}

/// Reads `names`.
pub(super) fn names(fields: &Fields<'_>) -> Vec<SpannedText> {
    let mut names = Vec::new();
    let words = fields.opt::<Vec<SpannedText>>("names");
    if words.as_ref().is_some_and(Vec::is_empty)
        && let Some(node) = fields.take("names")
    {
        Position::of(node).error(fields.report(), "an empty list is no name", "name some, or leave it out: any host");
    }
    for word in words.unwrap_or_default() {
        let bare = word.text.trim_start_matches('[').trim_end_matches(']');
        if bare.parse::<IpAddr>().is_ok() || is_host_name(&word.text) {
            names.push(SpannedText { text: bare.to_ascii_lowercase(), place: word.place });
        } else {
            let help = "write a host without port or wildcard, as in `\"gateway.corp\"`";
            word.place.error(fields.report(), format!("`{}` is not a host name", word.text), help);
        }
    }
    names
}
